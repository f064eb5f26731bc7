"""The vetted analyses. Adding a name to this tuple is the act of vetting; nothing outside it can be asked."""

from __future__ import annotations

from collections.abc import Mapping

from strategies.analyses.allele_frequency import NoisedFrequency
from strategies.analyses.association import LinearAssociation
from strategies.analyses.attrition import Attrition, NoisedAttrition
from strategies.analyses.carriers import Carriers
from strategies.analyses.competing_risks import CompetingRisks
from strategies.analyses.contingency import Contingency, NoisedContingency
from strategies.analyses.correlation import Correlation, NoisedCorrelation
from strategies.analyses.cox import CoxRegression
from strategies.analyses.discrimination import Discrimination
from strategies.analyses.explained_variance import ExplainedVariance
from strategies.analyses.genotype_counts import GenotypeCounts
from strategies.analyses.genotype_table import GenotypeTable
from strategies.analyses.histogram import Histogram, NoisedHistogram
from strategies.analyses.linkage import LinkageDisequilibrium
from strategies.analyses.logistic_association import LogisticAssociation
from strategies.analyses.match_rates import MatchRates
from strategies.analyses.meta_analysis import MetaAnalysis
from strategies.analyses.missingness import Missingness
from strategies.analyses.mixed_model import MixedModel
from strategies.analyses.noised_regression import NoisedRegression
from strategies.analyses.noised_survival import NoisedSurvival
from strategies.analyses.noised_table_one import NoisedTableOne
from strategies.analyses.panel_matching import PanelMatching
from strategies.analyses.phewas import PheWAS
from strategies.analyses.polygenic_score import PolygenicScore
from strategies.analyses.principal_components import PrincipalComponents
from strategies.analyses.rare_variants import RareVariants
from strategies.analyses.regression import Regression
from strategies.analyses.score_distribution import ScoreDistribution
from strategies.analyses.survival import SurvivalCurves
from strategies.analyses.table_one import TableOne
from strategies.analyses.whole_genome_regression import WholeGenomeRegression
from strategies.analysis import Analysis
from strategies.learning.boosted_trees import BoostedTrees
from strategies.learning.train import PrivateTraining
from strategies.privacy import Regime

CATALOGUE: tuple[type[Analysis], ...] = (
    GenotypeCounts,
    NoisedFrequency,
    PanelMatching,
    MatchRates,
    LinearAssociation,
    LogisticAssociation,
    PrincipalComponents,
    WholeGenomeRegression,
    MetaAnalysis,
    LinkageDisequilibrium,
    PolygenicScore,
    ScoreDistribution,
    ExplainedVariance,
    Discrimination,
    RareVariants,
    TableOne,
    NoisedTableOne,
    Histogram,
    NoisedHistogram,
    Contingency,
    NoisedContingency,
    Correlation,
    NoisedCorrelation,
    Missingness,
    Carriers,
    GenotypeTable,
    PheWAS,
    SurvivalCurves,
    NoisedSurvival,
    CoxRegression,
    CompetingRisks,
    Regression,
    NoisedRegression,
    MixedModel,
    Attrition,
    NoisedAttrition,
    PrivateTraining,
    BoostedTrees,
)

_PER_SITE = "each site's part would need full noise, and the smallest would be noise alone"

NOT_PRIVATE: Mapping[str, str] = {
    "cox": (
        "in each of its rounds the sums of every interval would need noise, which adds up over the intervals in who is "
        "at risk; `survival` counts the same events with noise"
    ),
    "mixed_model": _PER_SITE,
    "meta_analysis": _PER_SITE,
    "competing_risks": "no noised form of its variances is tested; `survival` has one for a single kind of event",
    "association": "a test of so many variants would spend the budget of all; frequencies are told with noise",
    "association_binary": "a test of so many variants would spend the budget of all; frequencies are told with noise",
    "genotype_table": "its cells are of few people, and noise at their size would leave nothing of them",
    "rare_variants": "its cells are of few people, and noise at their size would leave nothing of them",
    "phewas": "so many phenotypes would share one budget; ask `contingency` of those that matter",
    "boosted_trees": (
        "every bin of every level of every tree would be released with noise, which would choose the partings; `train` "
        "learns with noise"
    ),
    "carriers": "nothing of it but a number leaves; `histogram` tells how many carry with noise",
    "missingness": "every column and pair would share one budget; `table_one` tells of each column with noise",
}
"""Analyses without a private form, and why."""


def find(analysis: str, regime: Regime) -> type[Analysis] | None:
    """The analysis of that name that keeps that promise, or None."""
    return next((a for a in CATALOGUE if (a.analysis, a.regime) == (analysis, regime)), None)

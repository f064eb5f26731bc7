"""The vetted analyses. Adding a name to this tuple is the act of vetting; nothing outside it can be asked."""

from __future__ import annotations

from strategies.analyses.allele_frequency import NoisedFrequency
from strategies.analyses.association import LinearAssociation
from strategies.analyses.attrition import Attrition, NoisedAttrition
from strategies.analyses.discrimination import Discrimination
from strategies.analyses.explained_variance import ExplainedVariance
from strategies.analyses.genotype_counts import GenotypeCounts
from strategies.analyses.linkage import LinkageDisequilibrium
from strategies.analyses.logistic_association import LogisticAssociation
from strategies.analyses.match_rates import MatchRates
from strategies.analyses.meta_analysis import MetaAnalysis
from strategies.analyses.panel_matching import PanelMatching
from strategies.analyses.polygenic_score import PolygenicScore
from strategies.analyses.principal_components import PrincipalComponents
from strategies.analyses.rare_variants import RareVariants
from strategies.analyses.score_distribution import ScoreDistribution
from strategies.analyses.whole_genome_regression import WholeGenomeRegression
from strategies.analysis import Analysis
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
    Attrition,
    NoisedAttrition,
    PrivateTraining,
)


def find(analysis: str, regime: Regime) -> type[Analysis] | None:
    """The analysis of that name that keeps that promise, or None."""
    return next((a for a in CATALOGUE if (a.analysis, a.regime) == (analysis, regime)), None)

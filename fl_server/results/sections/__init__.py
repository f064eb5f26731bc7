"""What the report says of each kind of answer: a function of the result, for every analysis of the catalogue."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from fl_server.conduct import Result
from fl_server.results.section import Section
from fl_server.results.sections import (
    associations,
    attritions,
    carriers,
    components,
    frequencies,
    genes,
    linkage,
    matches,
    meta_analyses,
    models,
    regressions,
    scores,
    survival,
    tables,
    whole_genome,
)
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


def _key(page: type[Analysis]) -> tuple[str, Regime]:
    return page.analysis, page.regime


SECTIONS: Mapping[tuple[str, Regime], Callable[[Result], Section]] = {
    _key(GenotypeCounts): frequencies.counted,
    _key(NoisedFrequency): frequencies.noised,
    _key(PanelMatching): matches.counted,
    _key(MatchRates): matches.by_site,
    _key(LinearAssociation): associations.linear,
    _key(LogisticAssociation): associations.binary,
    _key(MetaAnalysis): meta_analyses.combined,
    _key(PrincipalComponents): components.components,
    _key(WholeGenomeRegression): whole_genome.regression,
    _key(LinkageDisequilibrium): linkage.linked,
    _key(PolygenicScore): scores.score,
    _key(ScoreDistribution): scores.distribution,
    _key(ExplainedVariance): scores.explained,
    _key(Discrimination): scores.told_apart,
    _key(RareVariants): genes.tested,
    _key(TableOne): tables.table_one,
    _key(NoisedTableOne): tables.table_one,
    _key(Histogram): tables.histogram,
    _key(NoisedHistogram): tables.histogram,
    _key(Contingency): tables.contingency,
    _key(NoisedContingency): tables.contingency,
    _key(Correlation): tables.correlation,
    _key(NoisedCorrelation): tables.correlation,
    _key(Missingness): tables.missingness,
    _key(Carriers): carriers.offered,
    _key(GenotypeTable): carriers.by_category,
    _key(PheWAS): carriers.phenome,
    _key(SurvivalCurves): survival.curves,
    _key(NoisedSurvival): survival.curves,
    _key(CoxRegression): survival.hazards,
    _key(CompetingRisks): survival.causes,
    _key(Regression): regressions.fitted,
    _key(NoisedRegression): regressions.fitted,
    _key(MixedModel): regressions.mixed,
    _key(Attrition): attritions.flow,
    _key(NoisedAttrition): attritions.flow,
    _key(PrivateTraining): models.trained,
    _key(BoostedTrees): models.grown,
}
"""The section of each analysis and regime; `tests/test_report.py` asks for one of every page."""

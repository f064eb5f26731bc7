"""What a researcher sees: a section with figures for every analysis, in a browser, whatever is withheld."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure as Canvas

import fl_server.results
from fl_server.conduct import Result, Statement
from fl_server.results.sections import SECTIONS
from simulations.populations import write_bed
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
from strategies.analyses.histogram import Histogram, NoisedHistogram, draw_histograms
from strategies.analyses.linkage import LinkageDisequilibrium
from strategies.analyses.logistic_association import LogisticAssociation
from strategies.analyses.match_rates import LEAST_VARIANTS, MatchRates
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
from strategies.analyses.table_one import TableOne, draw_quantiles
from strategies.analyses.whole_genome_regression import WholeGenomeRegression
from strategies.analysis import Analysis, Answer, Combining, Frame, Range, Total
from strategies.catalogue import CATALOGUE
from strategies.families import Family
from strategies.grammar import selection_of
from strategies.learning.boosted_trees import BoostedTrees
from strategies.privacy import Budget, Regime
from strategies.question import Question
from strategies.variants import Panel, Variant
from tests.browser import drawn, needs_chromium
from tests.conftest import in_memory
from tests.laws.zoo import RANGES, add, begun, cohort, first, panel
from tests.tiny import COLUMNS, NAMES, PANEL, PEOPLE, Tiny, genotypes, people_of, study, write_site, write_sites

HALF = len(PANEL) // 2
WHOLE = Panel(
    "GRCh37",
    tuple(
        v._replace(chromosome="21" if j < HALF else "22", weight=0.1 * (j % 7) - 0.2, genes=(f"gene{j // 10}",))
        for j, v in enumerate(PANEL.variants)
    ),
    states=frozenset({"WEIGHT", "GENE"}),
)
LONG = Panel("GRCh37", WHOLE.variants + tuple(Variant("20", 1 + j, ".", "A", "G") for j in range(LEAST_VARIANTS - 50)))
QUESTIONS = (
    Question("matches", PanelMatching("panel")),
    Question("rates", MatchRates("long"), by_site=True),
    Question("sexes", GenotypeCounts("panel", by="sex")),
    Question("pca", PrincipalComponents("panel", components=2, iterations=3)),
    Question("scan", LinearAssociation("panel", ("trait",), ("sex",), minimum_minor_alleles=1, minimum_missing=1)),
    Question("cases", LogisticAssociation("panel", "high", ("sex",), second_stage=0.3)),
    Question("heritability", WholeGenomeRegression("panel", ("trait",), ("sex",), ("21", "22"))),
    Question("countries", MetaAnalysis("panel", ("trait",), ("sex",)), by_site=True),
    Question("clumps", LinkageDisequilibrium("panel", clump="scan", index_p=0.3, member_p=0.6)),
    Question("score", PolygenicScore("panel")),
    Question("by_country", ScoreDistribution("score.score", bins=10), by_site=True),
    Question("explained", ExplainedVariance("score.score", "trait", ("sex",))),
    Question("told", Discrimination("score.score", "high")),
    Question("people", TableOne(("trait", "high"), by="sex")),
    Question("ages", Histogram("trait", by="sex", bins=6)),
    Question("ages_by_country", Histogram("trait", by="sex", bins=6), by_site=True),
    Question("crossed", Contingency("sex", "high")),
    Question("matrix", Correlation(("trait", "high", "sex"))),
    Question("lacking", Missingness(("trait", "high", "sex"))),
    Question("lacking_by_site", Missingness(("trait", "high", "sex")), by_site=True),
    Question("carriers", Carriers("panel", ("first", "second"))),
    Question("by_sex", GenotypeTable("panel", "sex")),
    Question("phenome", PheWAS("panel", ("trait", "high"))),
    Question("adjusted", PheWAS("panel", ("trait",), ("sex", "high"))),
    Question("model", Regression("trait", "sex*high")),
    Question("hospitals", MixedModel("trait", "sex + high"), by_site=True),
    Question("rare", RareVariants("panel", "trait", ("sex",), maximum_frequency=0.5)),
    Question("survival", SurvivalCurves("months", "high", "sex", intervals=24)),
    Question("hazards", CoxRegression("months", "high", ("trait", "sex"), intervals=24)),
    Question("causes", CompetingRisks("months", "outcome", intervals=24)),
    Question("flow", Attrition(), cohort="some"),
    Question("trees", BoostedTrees("high", ("trait", "sex"), trees=3, depth=2, leaf_people=10)),
    Question("noised_people", NoisedTableOne(("trait", "high")), Budget(2.0, 1e-5)),
    Question("noised_ages", NoisedHistogram("trait", bins=6), Budget(2.0, 1e-5)),
    Question("noised_crossed", NoisedContingency("sex", "high"), Budget(2.0, 1e-5)),
    Question("noised_matrix", NoisedCorrelation(("trait", "high", "sex")), Budget(2.0, 1e-5)),
    Question("noised_model", NoisedRegression("trait", "sex"), Budget(2.0, 1e-5)),
    # At epsilon 2 one run in forty has no interval to draw.
    Question("noised_odds", NoisedRegression("high", "sex", Family.BINOMIAL), Budget(10.0, 1e-5)),
    Question("noised_survival", NoisedSurvival("months", "high", intervals=24), Budget(2.0, 1e-5)),
    Question("noised", NoisedAttrition(), Budget(2.0, 1e-5), by_site=True, cohort="some"),
)
CLINICAL = {"months": Range(0.0, 60.0, "mo"), "outcome": Range.of("0", "1", "2")}
COHORTS = {"some": selection_of({"where": ["trait >= -3.5", "sex >= 1"]}, "some")}
DEMO = {("allele_frequency", Regime.PRIVATE), ("train", Regime.PRIVATE)}
"""What the demo asks."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The answers of every exact analysis, asked of four sites of 30 people."""
    out = tmp_path_factory.mktemp("report") / "out"
    columns = {name: Range(*span) for name, span in COLUMNS.items()} | CLINICAL
    asked = study(*QUESTIONS, panels={"panel": WHOLE, "long": LONG}, columns=columns, cohorts=COHORTS)
    plain = {name: span.plain() for name, span in columns.items()}
    with in_memory() as here:
        for site in NAMES:
            write_site(here / "data", site)
            write_bed(here / "data" / site / "genotypes", WHOLE, genotypes(site), people_of(site))
            write_clinical(here / "data" / site / "people.tsv", site)
        policy = {"by_site": ["private", "exact"], "columns": plain, "epsilon": 30.0}
        tiny = Tiny.of(write_sites(here / "data", **policy), here / "nodes")
        try:
            results = tiny.conductor(asked, here / "run").run()
        finally:
            tiny.close()
    fl_server.results.write(asked, tiny.federation, results, out)
    return out


def write_clinical(path: Path, site: str) -> None:
    """Add months until an outcome to a site's table."""
    rng = np.random.default_rng([2, *site.encode()])
    header, *lines = path.read_text(encoding="utf-8").splitlines()
    months, outcome = np.ceil(rng.uniform(0, 60, len(lines))), rng.integers(0, 3, len(lines))
    rows = [f"{line}\t{m:g}\t{o}" for line, m, o in zip(lines, months, outcome, strict=True)]
    path.write_text("\n".join([f"{header}\tmonths\toutcome", *rows]) + "\n", encoding="utf-8")


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    return (folder / "report.html").read_text(encoding="utf-8")


def test_every_exact_analysis_is_asked_and_every_one_has_a_section() -> None:
    pages = {(page.analysis, page.regime) for page in CATALOGUE}
    assert pages == set(SECTIONS)
    asked = {(q.analysis.analysis, q.regime) for q in QUESTIONS}
    assert asked | DEMO == pages


def test_the_report_of_every_analysis_shows_every_plot_in_a_browser(page: str, tmp_path: Path) -> None:
    needs_chromium()
    seen = drawn(page, tmp_path)
    assert {name.partition("-")[0] for name in seen} == {question.name for question in QUESTIONS}
    chosen = ("pca", "cases", "heritability", "sexes", "countries", "rare")
    assert {name for name in seen if name.startswith(chosen)} == {
        "pca-scree", "pca-pc1-loadings", "pca-pc2-loadings", "cases-high-manhattan", "cases-high-quantiles",
        "heritability-trait-offsets", "sexes-spectrum", "sexes-hardy-weinberg", "sexes-groups",
        "countries-trait-manhattan", "countries-trait-quantiles", "countries-trait-forest-1",
        "countries-trait-forest-2", "rare-genes",
    }  # fmt: skip
    assert [name for name, pixels in seen.items() if pixels <= 15] == []


def test_every_figure_says_on_which_terms_and_in_words(page: str) -> None:
    figures = re.findall(r'<figure id="([\w-]+)".*?<figcaption>(.*?)</figcaption>', page, re.DOTALL)
    for _, caption in figures:
        exact = r"Exact, no ε; [\d\u202f]+ people; [\d\u202f]+ rows withheld\.$"
        private = r"|Private: ε (2|10), .* per person at each site.*; nothing is withheld\.$"
        assert re.search(exact + private, caption), caption
    words = [unescape(label) for label in re.findall(r'<svg role="img" aria-label="([^"]*)"', page)]
    assert len(words) >= len(figures) > 20
    assert all(len(label) > 40 for label in words)
    assert "<script" not in page
    assert not re.search(r"\bnan\b", re.sub(r"<svg.*?</svg>|<style.*?</style>", "", page, flags=re.DOTALL))


def test_the_report_says_whom_the_questions_are_about(page: str) -> None:
    asked = page[page.index("What was asked") : page.index('id="answered-title"')]
    for words in ("cohort some", "trait &gt;= -3.5", "trait is at least -3.5"):
        assert words in asked, words


def test_the_report_says_what_was_found(page: str) -> None:
    articles = dict(re.findall(r'<article aria-labelledby="answer-([\w-]+)">(.*?)</article>', page, re.DOTALL))
    for name, words in {
        "matches": ("found at every site", "of 50"),
        "rates": ("rounded to 1 %", "LONG"),
        "sexes": ("Groups of sex",),
        "pca": ("pca.pc2", "so there is no plot of people"),
        "cases": ("firth approximate", "the test that each p is of"),
        "heritability": ("ridge λ", "heritability.trait_chr21 to heritability.trait_chr22"),
        "countries": ("I²", "p of Q", "CY"),
        "clumps": ("index variant", "r² of at least 0.8"),
        "score": ("later exact questions name it score.score",),
        "by_country": ("bins withheld", "DK"),
        "adjusted": ("Beside sex and high", "of one copy"),
        "explained": ("incremental",),
        "told": ("odds ratio per standard deviation", "Tenths of the score"),
        "model": ("Coefficients", "sex:high", "adjusted R²"),
        "noised_model": ("of sampling and of the noise", "noise of each sum of products (SD)"),
        "noised_odds": ("odds ratio", "of sampling and of the noise", "last step&#39;s score (SD)", "rounds"),
        "hospitals": ("intraclass correlation", "DK"),
        "rare": ("SKAT-O", "gene2"),
        "survival": ("log-rank", "at risk"),
        "hazards": ("hazard ratio", "converged"),
        "causes": ("Cumulative incidence", "People by how they left"),
        "flow": ("1: trait &gt;= -3.5", "left out by it", "people are in the cohort some"),
        "noised": ("noise, standard deviation", "at BE"),
    }.items():
        assert all(word.replace("LONG", "1\u202f000") in articles[name] for word in words), name


def test_the_report_shows_how_a_variable_is_distributed_in_each_country(page: str) -> None:
    """By hand from the sites' own values: the fullest of six bins from -4 to 4, and its share."""
    found = re.findall(r'<figure id="([\w-]+)".*?<svg role="img" aria-label="([^"]*)"', page, re.DOTALL)
    told = unescape(dict(found)["ages_by_country-by-site"])
    for site in NAMES:
        values = np.round(np.random.default_rng([1, *site.encode()]).normal(0, 1, PEOPLE), 4)
        counts, edges = np.histogram(values, bins=6, range=(-4.0, 4.0))
        most = int(counts.argmax())
        assert f"{site} {edges[most]:g} to {edges[most + 1]:g} ({100 * counts[most] / PEOPLE:.0f} %)" in told
    assert "0 bins are withheld" in told
    assert "time (mo)" in page


def test_what_a_site_withheld_is_a_cross_in_the_figure_by_country() -> None:
    edges = np.array([0.0, 1.0, 2.0, 3.0])
    table = {"low": edges[:-1], "high": edges[1:], "people": np.array([6.0, np.nan, np.nan])}
    other = table | {"people": np.array([5.0, 20.0, 0.0])}
    answers = {s: Answer({"histogram": t}, {"variable": "age", "unit": "a"}) for s, t in (("A", table), ("B", other))}
    axes = Canvas().add_subplot()
    told = draw_histograms(answers, axes)
    assert "2 bins are withheld, where a cross stands" in told
    assert "B 1 to 2 (80 %)" in told
    assert axes.get_xlabel() == "age (a)"
    assert [len(np.asarray(line.get_xdata())) for line in axes.lines] == [2, 0]


def test_table_one_has_a_scale_with_numbers_and_units_for_each_variable() -> None:
    table = {
        "variable": ("age", "age", "ldl", "ldl"), "group": ("all",) * 4, "quantile": np.array([0.25, 0.75] * 2),
        "low": np.array([30.0, 50.0, -1.0, np.nan]), "high": np.array([40.0, 70.0, 3.0, np.nan]),
        "withheld": np.array([False, False, False, True]),
    }  # fmt: skip
    one, axes = Answer({"quantiles": table}, {"unit_age": "a"}), Canvas().add_subplot()
    assert "1 quantiles are withheld" in draw_quantiles({"": one}, axes)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["age (a)", "ldl"]
    minus = "\N{MINUS SIGN}"
    assert [t.get_text() for t in axes.texts] == ["30", "40", "50", "60", "70", f"{minus}1", "0", "1", "2", "3"]
    assert "at 4 sites" in draw_quantiles(dict.fromkeys("ABCD", one), Canvas().add_subplot())


STATEMENT = Statement(
    Regime.EXACT,
    ("a", "b", "c"),
    {},
    20,
    20,
    3,
    {},
    1,
    0.0,
    dict.fromkeys("abc", 1),
    {},
    dict.fromkeys("abc", 1),
    (),
    1.0,
)


@pytest.mark.parametrize("kind", [p for p in CATALOGUE if p.regime is Regime.EXACT], ids=lambda p: p.__name__)
def test_a_section_stands_where_everything_is_withheld(kind: type[Analysis]) -> None:
    frame, parts = Frame(panel(23), RANGES), [cohort(5, 23, seed) for seed in range(3)]
    changes: list[dict[str, Any]] = [{"by": "high"}] if kind is GenotypeCounts else [{}]
    if kind is LinkageDisequilibrium:
        changes.append({"clump": "scan"})
    for change in changes:
        asked = begun(first(kind, change), frame)
        own = [asked.summarise(part, frame) for part in parts]
        answer = asked.conclude(Total(add(own), ("a", "b", "c"), {}, 20), frame)
        by_site = {s: asked.conclude(Total(o, (s,), {}, 20), frame) for s, o in zip("abc", own, strict=True)}
        assert isinstance(answer, Answer)
        apart = asked.by_site and kind is not GenotypeCounts
        if apart:
            answer = asked.combine(by_site, frame) if isinstance(asked, Combining) else Answer({}, {}, 3)
        result = Result(Question("asked", asked, by_site=apart), answer, by_site if apart else {}, STATEMENT)
        section = SECTIONS[kind.analysis, Regime.EXACT](result)
        assert not re.search(r"\bnan\b", str([section.lead, section.tables, section.beside])), section
        for drawn_one in section.figures:
            assert not re.search(r"\bnan\b", drawn_one.alt), drawn_one.alt


@pytest.mark.parametrize(("response", "family"), [("high", Family.BINOMIAL), ("visits", Family.POISSON)])
def test_a_private_regression_shows_ratios_with_intervals_that_count_noise(response: str, family: Family) -> None:
    frame, people = Frame(panel(2), RANGES), cohort(4000, 2, 1)
    asked, sds = NoisedRegression(response, "arm + score", family), {"score": 4.0, "information": 2.0}
    while isinstance(
        answer := asked.conclude(Total(asked.summarise(people, frame), ("a",), sds), frame), NoisedRegression
    ):
        asked = answer
    assert isinstance(answer, Answer)
    section = SECTIONS["regression", Regime.PRIVATE](Result(Question("asked", asked), answer, {}, STATEMENT))
    effect = {"high": "odds ratio", "visits": "rate ratio"}[response]
    (table,), (forest,) = section.tables, section.figures
    assert table.head[-2:] == (effect, "its 95 % interval")
    assert re.fullmatch(r"[\d.]+ to [\d.]+", table.rows[1][-1])
    assert f"{effect.capitalize()}s with 95 % intervals of sampling and of the noise added for privacy, on an" in (
        forest.caption
    )
    assert f"Forest plot of the {effect}s of {response}: arm[drug] " in forest.alt
    assert ("noise of each sum of the last step's score (SD)", "4") in section.beside.rows


def test_a_private_regression_that_is_all_noise_says_so() -> None:
    frame, asked = Frame(panel(23), RANGES), first(NoisedRegression)
    answer = asked.conclude(Total(asked.summarise(cohort(5, 23, 1), frame), ("a",), {"products": 50.0}), frame)
    section = SECTIONS["regression", Regime.PRIVATE](Result(Question("asked", asked), answer, {}, STATEMENT))
    assert "a ridge draws coefficients towards 0, and there are no intervals" in section.lead
    assert not re.search(r"\bnan\b", str([section.lead, section.tables, section.beside])), section
    assert "there are none" in section.figures[0].alt

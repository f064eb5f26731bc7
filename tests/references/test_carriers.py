"""Genotypes beside clinical columns, over the demo's sites: equal to scipy and statsmodels on the pooled people."""

from __future__ import annotations

import csv
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy import stats
from scipy.stats.contingency import odds_ratio
from statsmodels.stats.multitest import multipletests

from fl_client.readers import Dataset, DatasetConfig
from simulations.run import simulate
from strategies.analyses.carriers import Carriers, Coding
from strategies.analyses.genotype_table import GenotypeTable
from strategies.analyses.phewas import PheWAS
from strategies.analyses.principal_components import PrincipalComponents
from strategies.analyses.table_one import TableOne
from strategies.analysis import Answer, Frame, Needs, Range
from strategies.cohort import MISSING
from strategies.errors import UsageError
from strategies.projection import GenotypeColumns, projection_of
from strategies.question import Question
from strategies.study import Purpose, Study
from strategies.variants import Panel

ROOT = Path(__file__).parents[2] / "simulations"
SITES = ROOT / "data" / "europe1000g"
FORMATS = {"FI": "pgen", "GB": "vcf.gz", "IT": "bed", "CEU": "pgen"}
COLUMNS = {
    "sex": Range(1.0, 2.0), "GSTT1_rn": Range(-4.0, 4.0), "GSTT1_high": Range(0.0, 1.0), "pc1": Range(-250.0, 250.0),
}  # fmt: skip
FEW = 12


@pytest.fixture(scope="module")
def few() -> Panel:
    """A dozen variants of the demo, with the one that governs GSTT1 among them."""
    whole = Panel.read(SITES / "panel.tsv.gz", "GRCh37")
    known = [v for v in whole.variants if v.position == 24334948]
    others = whole.variants[100::1700][: FEW - 1]
    return Panel(whole.assembly, tuple(sorted({*known, *others}, key=lambda v: v.position)), states=whole.states)


@pytest.fixture(scope="module")
def people(few: Panel) -> pd.DataFrame:
    """The pooled table: every person's columns, and their copies of each variant, NaN where missing."""
    tables = []
    for site, ending in FORMATS.items():
        config = DatasetConfig("x", "GRCh37", f"{site}/people.tsv", f"{site}/genotypes.{ending}")
        dataset = Dataset.open(config, SITES)
        opened = dataset.cohort(Needs(tuple(COLUMNS), "few"), Frame(few, COLUMNS))
        assert opened.genotypes is not None
        codes = opened.genotypes.codes().astype(float)
        codes[codes == MISSING] = np.nan
        with (SITES / site / "people.tsv").open() as file:
            head = next(csv.reader(file, delimiter="\t"))
        assert set(COLUMNS) <= set(head)
        tables.append(pd.DataFrame({**opened.columns, **{f"v{j}": row for j, row in enumerate(codes)}}))
    return pd.concat(tables, ignore_index=True)


@pytest.fixture(scope="module")
def answers(few: Panel) -> dict[str, Answer]:
    """Of one study over the demo's four sites."""
    names = tuple(f"v{j}" for j in range(len(few)))
    questions = (
        Question("carriers", Carriers("few", names)),
        Question("copies", Carriers("few", names, Coding.COPIES)),
        Question("by_high", GenotypeTable("few", "GSTT1_high")),
        Question("phenome", PheWAS("few", ("GSTT1_rn", "GSTT1_high", "pc1"))),
        Question("pcs", PrincipalComponents("few", components=2, iterations=3)),
        Question("adjusted", PheWAS("few", ("GSTT1_rn", "pc1"), ("sex", "copies.v5"))),
        Question("structured", PheWAS("few", ("GSTT1_rn",), ("pcs.pc1", "carriers.v7"))),
        Question("expression", TableOne(("GSTT1_rn",), by="carriers.v3", fewest=5)),
        Question("by_copies", TableOne(("GSTT1_rn",), by="copies.v3", quantiles=())),
    )
    asked = Study("carriers", Purpose.SCIENTIFIC_RESEARCH, "GRCh37", 3, COLUMNS, {"few": few}, questions)
    # As a node gets it: decoded from its document.
    asked = Study.from_document(asked.document, {"few": few.encode()})
    return {one.question.name: one.answer for one in simulate(asked, SITES).results}


def test_people_are_grouped_by_a_genotype_that_stays_at_their_node(
    answers: dict[str, Answer], people: pd.DataFrame
) -> None:
    groups = {"non-carrier": people["v3"] == 0, "carrier": people["v3"] > 0}
    told = pd.DataFrame(dict(answers["expression"].tables["numbers"])).set_index("group")
    for name, who in groups.items():
        assert told.loc[name, "people"] == who.sum()
        assert told.loc[name, "mean"] == pytest.approx(people[who]["GSTT1_rn"].mean(), rel=1e-8, abs=1e-9)
    told = pd.DataFrame(dict(answers["by_copies"].tables["numbers"])).set_index("group")
    for copies in (0, 1, 2):
        assert told.loc[str(copies), "people"] == (people["v3"] == copies).sum()


def test_genotypes_by_category_are_the_pooled_ones(answers: dict[str, Answer], people: pd.DataFrame) -> None:
    table = pd.DataFrame(dict(answers["by_high"].tables["variants"]))
    cells = pd.DataFrame(dict(answers["by_high"].tables["genotypes"]))
    assert not table["withheld"].any()
    for j, row in table.iterrows():
        own = people[[f"v{j}", "GSTT1_high"]].dropna()
        counts = pd.crosstab(own["GSTT1_high"], own[f"v{j}"]).to_numpy()
        shown = cells.iloc[2 * int(j) : 2 * int(j) + 2][["hom_ref", "het", "hom_alt"]].to_numpy()
        assert shown.tolist() == counts.tolist()
        assert row["p_value"] == pytest.approx(stats.chi2_contingency(counts, correction=False).pvalue, rel=1e-9)
        carriers = np.array([[counts[1, 1:].sum(), counts[1, 0]], [counts[0, 1:].sum(), counts[0, 0]]])
        want = odds_ratio(carriers, kind="sample")
        assert row["carrier_odds_ratio"] == pytest.approx(want.statistic, rel=1e-9)
        assert row["carrier_odds_ratio_low"] == pytest.approx(want.confidence_interval(0.95).low, rel=1e-6)
        assert row["carrier_fisher_p_value"] == pytest.approx(stats.fisher_exact(carriers).pvalue, rel=1e-7)
        # Cochran and Armitage's statistic is N r^2.
        r = np.corrcoef(own[f"v{j}"], own["GSTT1_high"])[0, 1]
        assert row["trend_p_value"] == pytest.approx(stats.chi2.sf(len(own) * r**2, 1), rel=1e-8)


def test_each_phenotype_is_regressed_on_copies_as_statsmodels_does(
    answers: dict[str, Answer], people: pd.DataFrame
) -> None:
    table = pd.DataFrame(dict(answers["phenome"].tables["phenome"]))
    assert len(table) == 3 * FEW
    for number, row in table.iterrows():
        own = people[[f"v{int(number) // 3}", row["phenotype"]]].dropna()
        fit = sm.OLS(own[row["phenotype"]], sm.add_constant(own.iloc[:, 0])).fit()
        assert row["people"] == len(own)
        assert row["beta"] == pytest.approx(fit.params.iloc[1], rel=1e-7)
        assert row["standard_error"] == pytest.approx(fit.bse.iloc[1], rel=1e-7)
        assert row["p_value"] == pytest.approx(fit.pvalues.iloc[1], rel=1e-5)
    p = table["p_value"].to_numpy()
    np.testing.assert_allclose(table["q_value"], multipletests(p, method="fdr_bh")[1], rtol=1e-9)
    np.testing.assert_allclose(table["p_bonferroni"], multipletests(p, method="bonferroni")[1], rtol=1e-9)
    best = table.loc[table["p_value"].idxmin()]
    assert best["phenotype"] == "GSTT1_rn"
    assert best["p_value"] < 1e-60, "the variant that is known to govern it"


def test_each_phenotype_is_adjusted_for_columns_of_the_table_and_for_those_that_other_questions_offer(
    answers: dict[str, Answer], people: pd.DataFrame
) -> None:
    table = pd.DataFrame(dict(answers["adjusted"].tables["phenome"]))
    fitted = 0
    for number, row in table.iterrows():
        variant, phenotype = f"v{int(number) // 2}", row["phenotype"]
        own = people[["sex", "v5", variant, phenotype]].dropna().T.drop_duplicates().T
        if variant == "v5":  # it explains itself
            assert np.isnan(row["beta"])
            assert row["problem"].startswith("covariates explain")
            continue
        fit = sm.OLS(own[phenotype], sm.add_constant(own[[variant, "sex", "v5"]])).fit()
        assert row["people"] == len(own)
        assert row["beta"] == pytest.approx(fit.params[variant], rel=1e-8, abs=1e-8 * fit.bse[variant])
        assert row["standard_error"] == pytest.approx(fit.bse[variant], rel=1e-8)
        fitted += 1
    assert fitted == 2 * (FEW - 1)
    structured = pd.DataFrame(dict(answers["structured"].tables["phenome"]))
    assert answers["structured"].facts["covariates"] == "pcs.pc1, carriers.v7"
    assert np.isfinite(structured["p_value"]).all()
    assert structured.loc[structured["p_value"].idxmin(), "p_value"] < 1e-50


def test_a_phenotype_of_two_categories_is_tested_by_its_trend(few: Panel, people: pd.DataFrame) -> None:
    """On the pooled people as one site: a score test of a logistic regression, in closed form and by statsmodels."""
    from strategies.analysis import Total  # noqa: PLC0415
    from strategies.cohort import Cohort, Genotypes  # noqa: PLC0415

    columns = {"high": people["GSTT1_high"].to_numpy(dtype=float).copy()}
    columns["high"][::7] = np.nan
    codes = np.nan_to_num(np.stack([people[f"v{j}"] for j in range(len(few))]), nan=3.0).astype(np.uint8)
    question, frame = PheWAS("few", ("high",)), Frame(few, {"high": Range.of("low", "high")})
    sums = question.summarise(Cohort(len(people), Genotypes.pack(codes), columns), frame)
    answer = question.conclude(Total(sums, ("a",)), frame)
    for j, p in enumerate(np.asarray(answer.tables["phenome"]["p_value"])):
        there = (codes[j] < 3) & ~np.isnan(columns["high"])
        g, y = codes[j][there].astype(float), columns["high"][there]
        null = sm.Logit(y, np.ones(len(y))).fit(disp=0)
        mean = null.predict(np.ones(len(y)))
        score = g @ (y - mean)
        spread = mean[0] * (1 - mean[0]) * ((g - g.mean()) ** 2).sum()
        assert p == pytest.approx(stats.chi2.sf(score**2 / spread, 1), rel=1e-6)


def test_a_column_of_genotypes_has_no_value_where_one_is_missing() -> None:
    from strategies.cohort import Genotypes  # noqa: PLC0415

    codes = np.array([[0, 1, 2, 3, 1], [2, 2, 3, 0, 0], [1, 1, 1, 1, 1]], dtype=np.uint8)
    levels = np.array([[0.0, 1.0, 2.0], [0.0, 1.0, 1.0], [-1.0, -1.0, -1.0]])
    sent = GenotypeColumns(("a", "b", "c"), levels)
    arrived = projection_of(("a", "b", "c"), sent.arrays())
    sums = np.zeros((5, 3), dtype=np.int64)
    for span in (slice(0, 2), slice(2, 3)):
        arrived.add(sums, Genotypes.pack(codes[span]), span)
    got = arrived.columns(sums)
    np.testing.assert_array_equal(got["a"], [0, 1, 2, np.nan, 1])
    np.testing.assert_array_equal(got["b"], [1, 1, np.nan, 0, 0])
    assert np.isnan(got["c"]).all()
    for wrong in (levels + 0.5, levels[:, :2], np.full((2, 3), np.nan)):
        with pytest.raises(ValueError, match="column"):
            GenotypeColumns(("a", "b", "c"), wrong)


def test_names_beyond_the_panel_and_odd_chromosomes_are_refused(few: Panel) -> None:
    def built(question: Carriers, panel: Panel) -> Study:
        made = Study("s", Purpose.SCIENTIFIC_RESEARCH, "GRCh37", 3, {}, {"few": panel}, (Question("q", question),))
        return Study.from_document(made.document, {"few": panel.encode()})

    too_many = tuple(f"n{j}" for j in range(len(few) + 1))
    with pytest.raises(UsageError, match="a variant for each name"):
        built(Carriers("few", too_many), few)
    on_x = Panel("GRCh37", (few.variants[0]._replace(chromosome="X", position=5_000_000),))
    with pytest.raises(UsageError, match="two copies"):
        built(Carriers("few", ("one",)), on_x)
    offered = Carriers("few", ("one",)).offers["one"]
    assert offered.categories == ("non-carrier", "carrier")
    assert replace(Carriers("few", ("one",)), coding=Coding.COPIES).offers["one"] == Range(0.0, 2.0)
    assert math.isclose(offered.maximum, 1.0)

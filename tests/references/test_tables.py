"""Tables of people over sites equal those of the pooled table: numpy and pandas, scipy.stats, statsmodels."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.stats.contingency import association, odds_ratio
from statsmodels.stats.contingency_tables import StratifiedTable

from strategies import two_way
from strategies.analyses.contingency import Contingency, NoisedContingency
from strategies.analyses.correlation import Correlation, NoisedCorrelation
from strategies.analyses.genotype_counts import GenotypeCounts
from strategies.analyses.histogram import Histogram, NoisedHistogram
from strategies.analyses.missingness import Missingness
from strategies.analyses.noised_table_one import NoisedTableOne
from strategies.analyses.score_distribution import ScoreDistribution, distributions
from strategies.analyses.table_one import TableOne
from strategies.analysis import Analysis, Answer, Frame, Range, Total
from strategies.cohort import Cohort
from strategies.privacy import Budget
from strategies.protections import noise
from tests.laws.zoo import RANGES, add, cohort, panel

SHARED = Path(__file__).parents[2].parent / "shared" / "data" / "clinical"
FRAME = Frame(panel(3), RANGES)


def pooled(seed: int = 5, people: int = 800, missing: float = 0.2) -> tuple[Cohort, pd.DataFrame]:
    """People of the zoo, and the same as a pooled table in which missing is missing."""
    made = cohort(people, 3, seed, missing)
    return made, pd.DataFrame(dict(made.columns))


def asked(question: Any, people: Cohort, frame: Frame = FRAME, minimum: int = 0, sites: int = 4) -> Answer:
    """The answer over sites of unequal sizes, one of them empty."""
    cut = np.random.default_rng(1).choice(sites, len(people), p=[0.6, 0.3, 0.1, 0.0][:sites])
    parts = [people.take(np.flatnonzero(cut == s)) for s in range(sites)]
    while isinstance(question, Analysis):
        sums = add([question.summarise(part, frame) for part in parts])
        question = question.conclude(Total(sums, tuple("abcd"[:sites]), {}, minimum), frame)
    assert isinstance(question, Answer)
    return question


def opened(people: Cohort, *names: str) -> Cohort:
    """What a node opens of a question's columns."""
    return replace(people, columns={name: people.columns[name] for name in names})


def rows(answer: Answer, table: str) -> pd.DataFrame:
    return pd.DataFrame(dict(answer.tables[table]))


# -- table one ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", [None, "arm"])
def test_table_one_is_that_of_the_pooled_table(by: str | None) -> None:
    people, table = pooled()
    answer = asked(TableOne(("score", "smoking", "time"), by=by, fewest=5), people)
    labels = {"all": table if by is None else table[table[by].notna()]}
    if by is not None:
        labels |= {name: table[table[by] == code] for code, name in enumerate(RANGES[by].categories)}
    numbers, categories = rows(answer, "numbers"), rows(answer, "categories")
    assert len(numbers) == 2 * len(labels)
    for row in numbers.itertuples():
        values = labels[row.group][row.variable]
        assert (row.people, row.missing) == (values.notna().sum(), values.isna().sum())
        assert row.mean == pytest.approx(values.mean(), rel=1e-9)
        assert row.standard_deviation == pytest.approx(values.std(ddof=1), rel=1e-8)
    for row in categories.itertuples():
        values = labels[row.group]["smoking"]
        names = RANGES["smoking"].categories
        count = values.isna().sum() if row.category == "" else (values == names.index(row.category)).sum()
        assert row.people == count
        assert row.category == "" or row.share == pytest.approx(count / values.notna().sum())
    assert answer.facts["people"] == len(labels["all"])


@pytest.mark.parametrize(("narrowings", "fewest"), [(1, 1), (2, 10), (3, 1), (4, 3)])
def test_a_pooled_quantile_lies_within_the_interval_told(narrowings: int, fewest: int) -> None:
    people, table = pooled(6, 700, 0.1)
    levels = (0.05, 0.1, 0.25, 0.5, 0.75, 0.95)
    question = TableOne(("score", "visits", "trait"), "arm", levels, narrowings, fewest)
    answer = asked(question, people)
    seen = 0
    for row in rows(answer, "quantiles").itertuples():
        own = (
            table[table["arm"].notna()]
            if row.group == "all"
            else table[table["arm"] == ("placebo", "drug").index(row.group)]
        )
        values = own[row.variable].dropna().to_numpy()
        true = float(np.quantile(values, row.quantile, method="inverted_cdf"))
        span = RANGES[row.variable]
        width = span.maximum - span.minimum
        assert row.low - 1e-12 * width <= true <= row.high + 1e-12 * width, row
        inside = np.count_nonzero((values >= row.low - 1e-9) & (values <= row.high + 1e-9))
        assert inside >= fewest
        depth = round(-math.log((row.high - row.low) / width, 32))
        assert (row.high - row.low) == pytest.approx(width / 32**depth, rel=1e-9)
        if depth < narrowings:  # it stopped where the next bin would have held too few
            finer = width / 32 ** (depth + 1)
            at = math.floor((true - span.minimum) / finer)
            held = np.floor((values - span.minimum) / finer) == at
            assert np.count_nonzero(held) < max(fewest, 1) or held.sum() == 0
        seen += depth == narrowings
    assert seen > 5 or fewest > 5


def test_no_quantile_is_told_narrower_than_the_minimum_of_people() -> None:
    people, table = pooled(7, 300, 0.2)
    wide, narrow = (asked(TableOne(("score",), fewest=1, narrowings=3), people, minimum=k) for k in (20, 0))
    for one, least in ((wide, 20), (narrow, 1)):
        for row in rows(one, "quantiles").itertuples():
            assert table["score"].between(row.low, row.high).sum() >= least
    widths = [(rows(one, "quantiles")["high"] - rows(one, "quantiles")["low"]).to_numpy() for one in (wide, narrow)]
    assert (widths[0] > widths[1]).all()


def test_standardised_mean_differences() -> None:
    people, table = pooled(8)
    told = rows(asked(TableOne(("score", "smoking", "high"), by="arm"), people), "differences").set_index("variable")
    one, two = (table[table["arm"] == code] for code in (0, 1))
    for name in ("score", "high"):
        spread = math.sqrt((one[name].var(ddof=1) + two[name].var(ddof=1)) / 2)
        want = (two[name].mean() - one[name].mean()) / spread
        assert told.loc[name].item() == pytest.approx(want, rel=1e-8)
    shares = [group["smoking"].dropna().value_counts(normalize=True).sort_index().to_numpy() for group in (one, two)]
    apart = (shares[1] - shares[0])[1:]
    s = sum(np.diag(p[1:]) - np.outer(p[1:], p[1:]) for p in shares) / 2
    assert told.loc["smoking"].item() == pytest.approx(math.sqrt(apart @ np.linalg.solve(s, apart)), rel=1e-9)


def test_few_people_without_a_value_are_told_nowhere() -> None:
    """Who they are does not show, nor that they are three and not four: the variable is withheld, others are not."""
    people, _ = pooled(9, 300, 0.0)
    said = []
    for few in (3, 4):
        columns = {name: values.copy() for name, values in people.columns.items()}
        columns["score"][:few] = np.nan
        lacking = Cohort(len(people), None, columns)
        for question in (TableOne(("score", "time")), Missingness(("score", "time"))):
            answer = asked(question, lacking, minimum=5)
            said.append((type(question).__name__, str(answer)))
            name = "numbers" if isinstance(question, TableOne) else "columns"
            told = rows(answer, name).set_index("variable")
            assert math.isnan(told.loc["score", "missing"])
            assert told.loc["time", "missing"] == 0
    assert said[0] == said[2]
    assert said[1] == said[3]


def test_groups_are_shown_all_or_none() -> None:
    people, table = pooled(10, 200, 0.0)
    columns = {name: values.copy() for name, values in people.columns.items()}
    columns["arm"][:] = 0.0
    columns["arm"][:3] = 1.0
    answer = asked(TableOne(("score", "smoking"), by="arm"), Cohort(200, None, columns), minimum=5)
    numbers = rows(answer, "numbers").set_index("group")
    assert numbers.loc["all", "mean"] == pytest.approx(table["score"].mean())
    assert numbers.loc[["placebo", "drug"], ["people", "mean", "missing"]].isna().all(axis=None)
    assert math.isnan(float(answer.facts["people_drug"]))
    assert math.isnan(float(answer.facts["people_placebo"]))


# -- histograms, missing values, names of groups -----------------------------------------------------------------------


def test_a_histogram_is_numpys() -> None:
    people, table = pooled(11)
    edges = (-2.0, -0.5, 0.0, 0.7, 4.0)
    answer = asked(Histogram("trait", "arm", edges), people)
    for code, name in enumerate(RANGES["arm"].categories):
        own = table[table["arm"] == code]["trait"].dropna()
        want, _ = np.histogram(np.clip(own, -2.0, np.nextafter(4.0, 0)), edges)
        shown = rows(answer, "histogram")
        assert shown[shown["arm"] == name]["people"].tolist() == want.tolist()
    kinds = rows(asked(Histogram("smoking"), people), "histogram")
    assert kinds["people"].tolist() == table["smoking"].value_counts().sort_index().tolist()


def test_missing_values_together() -> None:
    people, table = pooled(12)
    names = ("score", "smoking", "trait")
    answer = asked(Missingness(names), people)
    missing = table[list(names)].isna()
    assert rows(answer, "columns")["missing"].tolist() == missing.sum().tolist()
    for row in rows(answer, "together").itertuples():
        assert row.missing == (missing[row.variable] & missing[row.other]).sum()


def test_groups_of_categories_are_called_by_their_names() -> None:
    people, table = pooled(13, 400, 0.05)
    distribution = asked(ScoreDistribution("risk", by="smoking", bins=4), opened(people, "risk", "smoking"))
    names = [one.name for one in distributions(distribution, {})]
    assert names == ["smoking " + name for name in RANGES["smoking"].categories]
    counts = asked(GenotypeCounts("common", by="smoking"), opened(people, "smoking"))
    assert list(dict.fromkeys(counts.tables["populations"]["population"])) == list(RANGES["smoking"].categories)
    for code, name in enumerate(RANGES["smoking"].categories):
        own = table[table["smoking"] == code]
        assert distribution.facts[f"people_smoking_{name}"] == own["risk"].notna().sum()
        assert counts.facts[f"people_{name}"] == len(own)


# -- contingency tables ------------------------------------------------------------------------------------------------


def test_a_two_by_two_table_is_that_of_scipy() -> None:
    people, table = pooled(14, 300)
    facts = asked(Contingency("arm", "high"), people).facts
    both = table[["arm", "high"]].dropna()
    counts = pd.crosstab(both["arm"], both["high"]).to_numpy()
    chi = stats.chi2_contingency(counts, correction=False)
    assert facts["chi_square"] == pytest.approx(chi.statistic, rel=1e-12)
    assert facts["p_value"] == pytest.approx(chi.pvalue, rel=1e-9)
    assert facts["cramers_v"] == pytest.approx(association(counts, method="cramer"), rel=1e-9)
    assert facts["fisher_p_value"] == pytest.approx(stats.fisher_exact(counts).pvalue, rel=1e-9)
    for kind, name in (("sample", "odds_ratio"), ("conditional", "conditional_odds_ratio")):
        want = odds_ratio(counts, kind=kind)
        interval = want.confidence_interval(0.95)
        assert facts[name] == pytest.approx(want.statistic, rel=1e-6)
        assert facts[f"{name}_low"] == pytest.approx(interval.low, rel=1e-6)
        assert facts[f"{name}_high"] == pytest.approx(interval.high, rel=1e-6)


def test_strata_are_pooled_as_statsmodels_does() -> None:
    people, table = pooled(15, 500)
    answer = asked(Contingency("arm", "high", "smoking"), people)
    both = table[["arm", "high", "smoking"]].dropna()
    each = [pd.crosstab(own["arm"], own["high"]).to_numpy() for _, own in both.groupby("smoking")]
    want = StratifiedTable(each)
    assert answer.facts["mantel_haenszel_odds_ratio"] == pytest.approx(want.oddsratio_pooled, rel=1e-12)
    low, high = want.oddsratio_pooled_confint()
    assert answer.facts["mantel_haenszel_odds_ratio_low"] == pytest.approx(low, rel=1e-9)
    assert answer.facts["mantel_haenszel_odds_ratio_high"] == pytest.approx(high, rel=1e-9)
    null = want.test_null_odds(correction=False)
    assert answer.facts["mantel_haenszel_chi_square"] == pytest.approx(null.statistic, rel=1e-9)
    crude = asked(Contingency("arm", "high"), Cohort(len(both), None, {n: both[n].to_numpy() for n in both})).facts
    assert answer.facts["chi_square"] == crude["chi_square"]


def by_hand(counts: np.ndarray) -> float:
    """Fisher's p of a small table by listing every table with its margins."""
    rows_, columns = counts.sum(axis=1), counts.sum(axis=0)
    law = stats.random_table(rows_, columns)
    here, p = law.pmf(counts), 0.0
    free = [range(min(rows_[i], columns[j]) + 1) for i in range(len(rows_) - 1) for j in range(len(columns) - 1)]
    for inner in itertools.product(*free):
        other = np.zeros(counts.shape, dtype=int)
        other[:-1, :-1] = np.reshape(inner, (len(rows_) - 1, len(columns) - 1))
        other[:-1, -1] = rows_[:-1] - other[:-1, :-1].sum(axis=1)
        other[-1] = columns - other[:-1].sum(axis=0)
        if (other >= 0).all() and (chance := law.pmf(other)) <= here * (1 + 1e-7):
            p += float(chance)
    return p


def test_fishers_test_of_more_rows_is_the_sum_over_all_tables() -> None:
    rng = np.random.default_rng(2)
    for shape in ((2, 3), (3, 3), (3, 2), (2, 4)):
        for _ in range(4):
            counts = rng.integers(0, 5, shape) + np.eye(*shape, dtype=int)
            assert two_way.fisher(counts) == pytest.approx(by_hand(counts), rel=1e-8)
    assert math.isnan(two_way.fisher(np.full((5, 5), 40))), "more tables than are walked through"


def test_fishers_test_and_odds_ratios_of_many_tables() -> None:
    rng = np.random.default_rng(3)
    for _ in range(60):
        counts = rng.integers(0, 12, (2, 2))
        if not (counts.any(axis=0).all() and counts.any(axis=1).all()):
            continue
        assert two_way.fisher(counts) == pytest.approx(stats.fisher_exact(counts).pvalue, rel=1e-8)
        want, got = odds_ratio(counts), two_way.conditional(counts)
        low, high = want.confidence_interval(0.95)
        np.testing.assert_allclose([got.estimate, got.low, got.high], [want.statistic, low, high], rtol=1e-6)


def test_statistics_are_given_where_nothing_is_withheld_alone() -> None:
    people, _ = pooled(16, 90)
    whole, hidden = (asked(Contingency("outcome", "smoking"), people, minimum=k) for k in (0, 10))
    assert hidden.withheld > 0
    assert math.isfinite(float(whole.facts["chi_square"]))
    for name in ("chi_square", "p_value", "cramers_v", "fisher_p_value"):
        assert math.isnan(float(hidden.facts[name]))


@pytest.mark.skipif(not SHARED.exists(), reason="the shared clinical data are not on this machine")
def test_a_real_trial_by_arm() -> None:
    """HSAUR's respiratory trial: two centres, treatment and status."""
    table = pd.read_csv(SHARED / "HSAUR_respiratory.csv")
    first = table[table["month"] == table["month"].iloc[0]].reset_index(drop=True)
    spans = {
        "treatment": Range.of("placebo", "treatment"),
        "status": Range.of("good", "poor"),
        "age": Range(0.0, 100.0),
    }
    columns = {
        "treatment": (first["treatment"] == "treatment").to_numpy(float),
        "status": (first["status"] == "poor").to_numpy(float),
        "age": first["age"].to_numpy(float),
    }
    people, frame = Cohort(len(first), None, columns), Frame(None, spans)
    facts = asked(Contingency("treatment", "status"), people, frame).facts
    counts = pd.crosstab(first["treatment"], first["status"]).to_numpy()
    assert facts["fisher_p_value"] == pytest.approx(stats.fisher_exact(counts).pvalue, rel=1e-9)
    one = asked(TableOne(("age",), by="treatment", fewest=3, narrowings=2), people, frame)
    told = rows(one, "numbers").set_index("group")
    assert told.loc["treatment", "mean"] == pytest.approx(
        first[first["treatment"] == "treatment"]["age"].mean(), rel=1e-9
    )


# -- correlations ------------------------------------------------------------------------------------------------------


def test_correlations_are_numpys_also_where_a_column_is_narrow() -> None:
    people, _ = pooled(17, 400, 0.1)
    rng = np.random.default_rng(4)
    columns = dict(people.columns)
    columns["narrow"] = 1e4 + 0.3 * columns["trait"] + rng.normal(0, 0.6, len(people))
    frame = Frame(None, {**RANGES, "narrow": Range(0.0, 1e5)})  # its deviation is a 10^-5 part of the range
    names = ("trait", "narrow", "risk", "high")
    answer = asked(Correlation(names), Cohort(len(people), None, columns), frame)
    whole = pd.DataFrame({name: columns[name] for name in names}).dropna()
    assert answer.facts["people"] == len(whole)
    for row in rows(answer, "correlations").itertuples():
        want = stats.pearsonr(whole[row.variable], whole[row.other])
        interval = want.confidence_interval()
        assert row.r == pytest.approx(want.statistic, abs=1e-9)
        assert (row.low_95, row.high_95) == pytest.approx((interval.low, interval.high), abs=1e-9)
        assert row.p_value == pytest.approx(want.pvalue, rel=1e-6)


# -- with noise --------------------------------------------------------------------------------------------------------


def released(question: Any, people: Cohort, frame: Frame = FRAME) -> Answer:
    fields = question.leaves(frame)
    sds = noise.scales(fields, Budget(2.0, 1e-6).loss)
    sums = noise.add_noise(question.summarise(people, frame), fields, sds)
    answer = question.conclude(Total(sums, ("a",), sds), frame)
    assert isinstance(answer, Answer)
    return answer


def test_intervals_under_noise_hold_what_they_should() -> None:
    """Of 95 % intervals at most a third miss in 40 releases: by chance below 10^-9 for independent ones."""
    people, table = pooled(18, 3000, 0.1)
    held: dict[str, list[bool]] = {name: [] for name in ("median", "mean", "bin", "cell", "r")}
    own = table["score"].dropna()
    true_bins = rows(asked(Histogram("score", bins=8), people), "histogram")["people"].to_numpy()
    true_cells = rows(asked(Contingency("arm", "high"), people), "cells")["people"].to_numpy()
    r = table[["trait", "risk"]].dropna().corr().iloc[0, 1]
    for _ in range(40):
        one = released(NoisedTableOne(("score",), quantiles=(0.5,)), people)
        quantile, numbers = rows(one, "quantiles").iloc[0], rows(one, "numbers").iloc[0]
        true = np.quantile(own, 0.5, method="inverted_cdf")
        held["median"].append(quantile["low_95"] <= true <= quantile["high_95"])
        assert quantile["high_95"] - quantile["low_95"] < 1.5
        held["mean"].append(abs(numbers["mean"] - own.mean()) <= 1.96 * numbers["mean_noise_sd"])
        for name, question, truth in (
            ("bin", NoisedHistogram("score", bins=8), true_bins),
            ("cell", NoisedContingency("arm", "high"), true_cells),
        ):
            told = rows(released(question, people), "histogram" if name == "bin" else "cells")
            held[name].append(bool(((told["low_95"] <= truth) & (truth <= told["high_95"])).mean() > 0.5))
        pair = rows(released(NoisedCorrelation(("trait", "risk")), people), "correlations").iloc[0]
        held["r"].append(pair["low_95"] <= r <= pair["high_95"])
    for name, each in held.items():
        assert np.mean(each) > 2 / 3, (name, np.mean(each))


def test_a_noised_table_without_noise_is_the_exact_one() -> None:
    people, table = pooled(19, 1000, 0.1)
    question = NoisedTableOne(("score", "smoking"), by="arm", quantiles=(0.1, 0.5, 0.9))
    answer = question.conclude(Total(question.summarise(people, FRAME), ("a",)), FRAME)
    exact = asked(TableOne(("score", "smoking"), by="arm"), people)
    for name in ("people", "missing", "mean", "standard_deviation"):
        np.testing.assert_allclose(rows(answer, "numbers")[name], rows(exact, "numbers")[name], rtol=1e-4)
    assert rows(answer, "categories")["people"].tolist() == rows(exact, "categories")["people"].tolist()
    for row in rows(answer, "quantiles").itertuples():
        own = (
            table[table["arm"].notna()]
            if row.group == "all"
            else table[table["arm"] == ("placebo", "drug").index(row.group)]
        )
        true = np.quantile(own["score"].dropna(), row.quantile, method="inverted_cdf")
        assert row.low_95 <= true <= row.high_95
        assert row.high_95 - row.low_95 <= 3 * 10 / 512 + 1e-9


def test_chi_square_under_independence_is_not_driven_up_by_noise() -> None:
    """Its p is below 0.01 in at most 30 of 300 tables: by chance below 10^-9; Pearson's of noised cells is, in most."""
    rng = np.random.default_rng(6)
    ours, pearson = [], []
    for _ in range(300):
        cells = rng.multinomial(600, np.full(6, 1 / 6)).reshape(2, 3) + rng.normal(0, 25, (2, 3))
        ours.append(two_way.noised_chi_square(cells, 25.0)[2])
        pearson.append(two_way.chi_square(np.maximum(cells, 1.0))[2])
    assert np.sum(np.array(ours) < 0.01) <= 30
    assert np.sum(np.array(pearson) < 0.01) > 100

"""A private linear regression: statsmodels' where there is no noise, and intervals that count on it where there is."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from numpy.typing import NDArray
from scipy import stats

from strategies.analyses.noised_regression import GRID_BITS, NoisedRegression, solved
from strategies.analysis import Answer, Frame, Range, Total
from strategies.cohort import Cohort
from strategies.errors import UsageError
from strategies.families import Family
from strategies.privacy import Budget
from strategies.protections import noise
from strategies.study import Study
from tests.laws.zoo import RANGES, cohort, panel

FRAME = Frame(
    None, {"y": Range(40.0, 220.0, "mm[Hg]"), "age": Range(18.0, 90.0, "a"), "arm": Range.of("placebo", "drug")}
)
TRUE = np.array([95.0, 0.6, -8.0])
QUESTION = NoisedRegression("y", "age + arm")


def people(count: int, rng: np.random.Generator, deviation: float = 12.0) -> Cohort:
    """Blood pressure by age and arm, and nobody near the ends of the ranges."""
    age, arm = rng.uniform(20, 88, count), rng.integers(0, 2, count).astype(float)
    y = FRAME.columns["y"].clamp(TRUE[0] + TRUE[1] * age + TRUE[2] * arm + rng.normal(0, deviation, count))
    return Cohort(count, None, MappingProxyType({"y": y, "age": age, "arm": arm}))


def released(question: NoisedRegression, who: Cohort, budget: Budget | None, frame: Frame = FRAME) -> Answer:
    """The answer with the gate's noise, or without."""
    fields, sums, sds = question.leaves(frame), question.summarise(who, frame), dict[str, float]()
    if budget is not None:
        sds = noise.scales(fields, budget.loss)
        sums = noise.add_noise(sums, fields, sds)
    return question.conclude(Total(sums, ("a",), sds), frame)


def told(answer: Answer, column: str) -> NDArray[np.float64]:
    return np.asarray(answer.tables["coefficients"][column], dtype=np.float64)


@pytest.mark.parametrize("formula", ["score + arm*risk + smoking", "risk^2 + visits", "score + sex - 1", "smoking - 1"])
def test_without_noise_it_is_statsmodels(formula: str) -> None:
    frame, made = Frame(panel(3), RANGES), cohort(3000, 3, 7)
    names = {name for name in RANGES if name in formula}
    table = pd.DataFrame({name: made.columns[name] for name in ("trait", *names)}).dropna()
    x = design(formula, table)
    opened = Cohort(3000, None, MappingProxyType({name: made.columns[name] for name in ("trait", *names)}))
    answer, want = released(NoisedRegression("trait", formula), opened, None, frame), sm.OLS(table["trait"], x).fit()
    assert answer.facts["people"] == len(table)
    assert answer.facts["ridge"] == 0
    np.testing.assert_allclose(told(answer, "coefficient"), want.params, rtol=1e-5, atol=1e-6)  # sums are on a grid
    np.testing.assert_allclose(told(answer, "standard_error"), want.bse, rtol=1e-5)
    assert answer.facts["dispersion"] == pytest.approx(want.scale, rel=1e-5)


def design(formula: str, table: pd.DataFrame) -> pd.DataFrame:
    """The columns of a formula, written out by hand."""
    one = {"(intercept)": np.ones(len(table))}
    if formula == "score + arm*risk + smoking":
        x = one | {"score": table["score"], "arm": table["arm"], "risk": table["risk"]}
        x |= {"former": table["smoking"] == 1, "current": table["smoking"] == 2, "both": table["arm"] * table["risk"]}
    elif formula == "risk^2 + visits":
        x = one | {"square": table["risk"] ** 2, "visits": table["visits"]}
    elif formula == "score + sex - 1":
        x = {"score": table["score"], "sex": table["sex"]}
    else:
        x = {str(code): table["smoking"] == code for code in range(3)}
    return pd.DataFrame(x, dtype=float)


def test_intervals_under_noise_hold_the_truth_and_are_no_wider_than_they_have_to_be() -> None:
    """300 samples of 1,500 people, each released at epsilon 1. Were each interval's coverage 94 %, fewer than 85 % of
    300 would hold it by chance below 10^-8; the mean of 300 squares of normal numbers is below 0.6 by chance below
    10^-7."""
    rng, budget = np.random.default_rng(20), Budget(1.0, 1e-5)
    assert stats.binom.cdf(int(0.85 * 300) - 1, 300, 0.94) < 1e-8
    assert stats.chi2.cdf(0.6 * 300, 300) < 1e-7
    held, squares, alone = [], [], []
    for _ in range(300):
        who = people(1500, rng)
        answer = released(QUESTION, who, budget)
        assert answer.facts["ridge"] == 0
        held.append((told(answer, "low") <= TRUE) & (told(answer, "high") >= TRUE))
        squares.append(((told(answer, "coefficient") - TRUE) / told(answer, "standard_error")) ** 2)
        alone.append(told(released(QUESTION, who, None), "standard_error") / told(answer, "standard_error"))
    coverage = np.mean(held, axis=0)
    print("coverage", coverage, "mean square", np.mean(squares, axis=0))
    assert (coverage >= 0.85).all(), coverage
    assert (np.mean(squares, axis=0) >= 0.6).all()
    assert np.mean(alone) < 0.5, "most of what is not known here is noise, so that this is a test of it"


def test_the_variance_that_noise_makes_is_that_of_many_draws() -> None:
    """Of columns that go together, with large coefficients of both signs; people's residuals are all 0."""
    rng, beta = np.random.default_rng(21), np.array([1.5, -2.0])
    a = 1e4 * np.array([[1.0, 0.6], [0.6, 1.0]])
    products = np.block([[a, (a @ beta)[:, None]], [(a @ beta)[None], np.array([[beta @ a @ beta]])]])
    estimates, i, j = [], *np.triu_indices(3)
    for _ in range(20_000):
        off = np.zeros((3, 3))
        off[i, j] = off[j, i] = rng.normal(0, 10.0, 6)
        estimates.append(np.linalg.solve(a + off[:2, :2], a @ beta + off[:2, 2]))
    _, covariance, variance, ridge = solved(products, 10.0, 1e9)  # so many that nothing is left of sampling
    assert ridge == 0
    assert variance < 1e-6
    np.testing.assert_allclose(covariance, np.cov(np.array(estimates).T), rtol=0.05)


def test_twenty_thousand_people_at_epsilon_one_are_enough() -> None:
    """An error of more than 6 standard errors: by chance below 10^-8."""
    who = people(20_000, np.random.default_rng(22))
    answer, exact = released(QUESTION, who, Budget(1.0, 1e-5)), released(QUESTION, who, None)
    error = told(answer, "standard_error")
    print("standard errors", error, "without noise", told(exact, "standard_error"))
    assert (np.abs(told(answer, "coefficient") - TRUE) < 6 * error).all()
    assert (error[1:] < [0.02, 0.6]).all(), error  # coefficients of 0.6 a year and 8 mm
    assert (told(answer, "p_value")[1:] < 1e-10).all()


# -- where noise leaves little -----------------------------------------------------------------------------------------


def assert_no_intervals(answer: Answer) -> None:
    assert answer.facts["ridge"] > 0
    assert np.isfinite(told(answer, "coefficient")).all()
    for column in ("standard_error", "statistic", "p_value", "low", "high"):
        assert np.isnan(told(answer, column)).all(), column
    assert np.isnan(float(answer.facts["dispersion"]))


@pytest.mark.parametrize("count", [0, 1, 5, 30])
def test_few_people_have_no_intervals(count: int) -> None:
    """The least eigenvalue is at most the mean of the diagonal: below 30 and noise 43 / sqrt(3) wide, which is above
    the 180 that are asked by chance below 10^-8."""
    who = people(count, np.random.default_rng(23))
    for _ in range(5):
        assert_no_intervals(released(QUESTION, who, Budget(0.27, 1e-5)))


def test_columns_that_explain_one_another_have_no_intervals() -> None:
    """age and age again: what tells them apart is noise. Seeded: by chance it is enough once in three thousand."""
    ranges = {**FRAME.columns, "again": FRAME.columns["age"]}
    made = people(3000, np.random.default_rng(24))
    who = Cohort(3000, None, MappingProxyType({**made.columns, "again": made.columns["age"]}))
    question, frame, rng = NoisedRegression("y", "age + again"), Frame(None, ranges), np.random.default_rng(26)
    sums = question.summarise(who, frame)["products"]
    for _ in range(20):
        noised = sums + np.rint(rng.normal(0, 13 * 2.0**GRID_BITS, sums.shape)).astype(np.int64)
        answer = question.conclude(Total({"products": noised}, ("a",), {"products": 13.0}), frame)
        assert_no_intervals(answer)
        assert np.abs(told(answer, "coefficient")[1:]).max() < 3.0  # without a ridge it could be anything
    without = released(question, who, None, frame)
    assert_no_intervals(without)
    assert told(without, "coefficient")[1:].sum() == pytest.approx(0.6, abs=0.1)


def test_nobody_without_noise_is_zeros() -> None:
    answer = released(QUESTION, people(0, np.random.default_rng(25)), None)
    assert_no_intervals(answer)
    assert answer.facts["people"] == 0


def test_people_who_are_all_alike_have_no_intervals_but_for_their_mean() -> None:
    """Noise of the two directions in which they do not differ is 0.82 of its width in the mean, and asked to be 4.2:
    by chance below 10^-6."""
    ends = {"y": np.full(400, 220.0), "age": np.full(400, 90.0), "arm": np.ones(400)}
    who = Cohort(400, None, MappingProxyType(ends))
    assert_no_intervals(released(QUESTION, who, Budget(1.0, 1e-5)))
    answer = released(NoisedRegression("y", "1"), who, Budget(1.0, 1e-5))
    assert told(answer, "coefficient")[0] == pytest.approx(220, abs=6 * told(answer, "standard_error")[0])
    assert told(answer, "standard_error")[0] < 5


# -- what is not asked -------------------------------------------------------------------------------------------------


def test_a_study_that_asks_for_one_is_told(tmp_path: Path) -> None:
    asked = """
    title = "study"
    purpose = "scientific_research"
    assembly = "GRCh37"
    [columns]
    y = [0, 1]
    age = [18, 90]
    [[question]]
    name = "model"
    analysis = "regression"
    regime = "private"
    epsilon = 1.0
    delta = 1e-5
    response = "y"
    formula = "age"
    distribution = "DISTRIBUTION"
    """
    file = tmp_path / "study.toml"
    file.write_text(asked.replace("DISTRIBUTION", "gaussian"), encoding="utf-8")
    assert Study.read(file).questions[0].analysis == NoisedRegression("y", "age")
    file.write_text(asked.replace("DISTRIBUTION", "binomial"), encoding="utf-8")
    assert Study.read(file).questions[0].analysis == NoisedRegression("y", "age", Family.BINOMIAL)
    file.write_text(asked.replace("DISTRIBUTION", "negative_binomial"), encoding="utf-8")
    with pytest.raises(UsageError, match="the likelihood of its dispersion is not concave"):
        Study.read(file)


def test_the_response_is_no_column_of_the_formula() -> None:
    with pytest.raises(ValueError, match="the response and the exposure are not columns of the formula"):
        NoisedRegression("y", "age + y")

"""A mixed model from the sites' own parts, against statsmodels and the likelihood with the whole covariance matrix."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy import optimize

from strategies.analyses.mixed_model import FEW, Method, MixedModel
from strategies.analysis import Answer, Frame, Range, Total
from strategies.formula import parse
from tests.references.test_regression import RANGES, cohort, column, in_order, own_columns, people


def combined(
    question: MixedModel, table: pd.DataFrame, minimum: int = 0, ranges: dict[str, Range] = RANGES
) -> tuple[Answer, dict[str, Answer]]:
    """Over the table's sites, and one without anybody; each withholds for itself."""
    frame, answers = Frame(None, ranges), {}
    for site in range(int(table["site"].max()) + 2):
        sums = question.summarise(cohort(table[table["site"] == site], ranges), frame)
        sums = question.withhold(sums, minimum)
        answers[str(site)] = question.conclude(Total(sums, (str(site),), {}, minimum), frame)
    return question.combine(answers, frame), answers


def design(question: MixedModel, table: pd.DataFrame) -> pd.DataFrame:
    return in_order(own_columns(question.formula, table), parse(question.formula).over(RANGES).names)


def dense(table: pd.DataFrame, x: np.ndarray, y: np.ndarray, restricted: bool) -> tuple[np.ndarray, ...]:
    """Coefficients, errors, both variances and log likelihood, by the people's whole covariance matrix."""
    same = (table["site"].to_numpy()[:, None] == table["site"].to_numpy()).astype(float)

    def minus(logs: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        within, between = np.exp(logs)
        v = within * np.eye(len(y)) + between * same
        inverse = np.linalg.inv(v)
        a = x.T @ inverse @ x
        b = np.linalg.solve(a, x.T @ inverse @ y)
        r = y - x @ b
        out = len(y) * np.log(2 * np.pi) + np.linalg.slogdet(v)[1] + r @ inverse @ r
        if restricted:
            out += np.linalg.slogdet(a)[1] - x.shape[1] * np.log(2 * np.pi)
        return out / 2, b, np.sqrt(np.diagonal(np.linalg.inv(a)))

    start = np.log([np.var(y), np.var(y) / 10])
    found = optimize.minimize(
        lambda logs: minus(logs)[0],
        start,
        method="Nelder-Mead",
        options={"xatol": 1e-9, "fatol": 1e-12, "maxiter": 2000},
    )
    value, b, error = minus(found.x)
    return b, error, np.exp(found.x), np.array(-value)


@pytest.mark.parametrize("method", list(Method))
@pytest.mark.parametrize(
    "formula", ["age*smoking", *(pytest.param(f, marks=pytest.mark.proof) for f in ("1", "age + log(crp)"))]
)
def test_a_mixed_model_is_statsmodels_and_the_dense_likelihoods(method: Method, formula: str) -> None:
    question = MixedModel("pressure", formula, method)
    table = people(90, 8).copy()
    table["pressure"] += 7.0 * (table["site"] - 2)
    answer, _ = combined(question, table)
    x, y, facts = design(question, table), table["pressure"].to_numpy(), answer.facts
    b, error, (within, between), value = dense(table, x.to_numpy(), y, method is Method.REML)
    assert np.abs((column(answer, "coefficient") - b) / error).max() < 1e-6
    np.testing.assert_allclose(column(answer, "standard_error"), error, rtol=1e-6)
    assert facts["residual_variance"] == pytest.approx(within, rel=1e-6)
    assert facts["site_variance"] == pytest.approx(between, rel=1e-5)
    assert facts["log_likelihood"] == pytest.approx(float(value), rel=1e-10)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it asks for a flatter gradient than its own differences reach
        want = sm.MixedLM(y, x, groups=table["site"]).fit(reml=method is Method.REML, method="bfgs", gtol=1e-8)
    k = x.shape[1]
    assert np.abs((column(answer, "coefficient") - want.params.iloc[:k]) / want.bse.iloc[:k]).max() < 1e-5
    assert facts["site_variance"] == pytest.approx(float(np.asarray(want.cov_re)[0, 0]), rel=1e-4)
    assert facts["residual_variance"] == pytest.approx(want.scale, rel=1e-5)
    assert facts["log_likelihood"] == pytest.approx(want.llf, rel=1e-9)


def test_sites_that_do_not_differ_have_no_variance_between_them() -> None:
    table = people(400, 9).copy()
    table["pressure"] -= table.groupby("site")["pressure"].transform("mean")
    answer, _ = combined(MixedModel("pressure", "1"), table, ranges={**RANGES, "pressure": Range(-300.0, 300.0)})
    assert answer.facts["site_variance"] == 0
    ordinary = sm.OLS(table["pressure"], np.ones(400)).fit()
    assert column(answer, "standard_error") == pytest.approx(float(ordinary.bse.iloc[0]), rel=1e-9)


def test_a_site_of_few_people_or_few_of_a_category_is_left_out() -> None:
    table = people(600, 10).copy()
    at = np.flatnonzero(table["site"] == 0)
    table.loc[at[4:], "site"] = 4
    answer, parts = combined(MixedModel("pressure", "age"), table, 5)
    assert parts["0"].facts["problem"] == FEW
    assert np.isnan(np.asarray(parts["0"].tables["coefficients"]["mean"])).all()
    rest, _ = combined(MixedModel("pressure", "age"), table[table["site"] > 0], 5)
    assert answer.facts["people"] == 596
    np.testing.assert_array_equal(column(answer, "coefficient"), column(rest, "coefficient"))
    table["site"] = people(600, 10)["site"]
    smokers = np.flatnonzero((table["site"] == 3) & (table["smoking"] == 2))
    table.loc[smokers[3:], "smoking"] = 0.0
    _, parts = combined(MixedModel("pressure", "age + smoking"), table, 3)
    assert parts["3"].facts["problem"] == "none"
    _, parts = combined(MixedModel("pressure", "age + smoking"), table, 5)
    assert parts["3"].facts["problem"] == FEW
    codes = {**RANGES, "arm": Range(0.0, 1.0)}  # the same as numbers
    table["arm"] = np.where(table["site"] == 2, np.arange(600) == np.flatnonzero(table["site"] == 2)[0], table["arm"])
    _, parts = combined(MixedModel("pressure", "arm"), table, 5, codes)
    assert [s for s in "01234" if parts[s].facts["problem"] == FEW] == ["2"]


@pytest.mark.parametrize(
    ("formula", "change", "words"),
    [
        ("age", {"site": lambda t: t["site"] % 2}, "fewer than 3 sites"),
        ("age + bmi", {"bmi": lambda t: t["age"] / 2}, "columns explain one another: age, bmi"),
        ("arm", {"arm": lambda t: 0.0 * t["arm"]}, "(nearly) constant, relative to its range: arm[drug]"),
    ],
)
def test_what_has_no_estimate_says_why(formula: str, change: dict[str, Any], words: str) -> None:
    answer, _ = combined(MixedModel("pressure", formula), people(300, 11).assign(**change))
    assert answer.facts["problem"] == words
    assert np.isnan(column(answer, "coefficient")).all()


def test_sums_at_trial_ratios_would_tell_the_sites_apart() -> None:
    """Why this page is asked for each site: sum log(1 + n lambda) at as many ratios as there are sites is a polynomial
    whose roots are -1 / n."""
    people_at = np.array([37.0, 120.0, 260.0, 811.0])
    ratios = np.array([1e-3, 4e-3, 1e-2, 3e-2])
    told = np.log1p(people_at[:, None] * ratios).sum(axis=0)
    powers = np.linalg.solve(ratios[:, None] ** np.arange(1, 5), np.expm1(told))
    found = -1 / np.roots(np.append(powers[::-1], 1.0)).real
    np.testing.assert_allclose(np.sort(found), people_at, rtol=1e-6)

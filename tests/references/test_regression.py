"""Regressions over sites against statsmodels on the pooled people, with patsy's or the tests' own columns."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import patsy
import pytest
import statsmodels.api as sm
from numpy.typing import NDArray

from strategies.analyses.regression import FEW, Regression
from strategies.analysis import Analysis, Answer, Frame, Range, Total
from strategies.cohort import Cohort
from strategies.errors import UsageError
from strategies.families import Family
from strategies.formula import parse
from strategies.sandwich import Errors
from tests.laws.zoo import add

ARM, SMOKING = ("placebo", "drug"), ("never", "former", "current")
RANGES = {
    "age": Range(18.0, 100.0),
    "bmi": Range(10.0, 70.0),
    "crp": Range(0.1, 1000.0, "mg/L"),
    "arm": Range.of(*ARM),
    "smoking": Range.of(*SMOKING),
    "years": Range(0.01, 20.0),
    "pressure": Range(0.0, 400.0, "mm[Hg]"),
    "ill": Range.of("no", "yes"),
    "visits": Range(0.0, 500.0),
    "falls": Range(0.0, 500.0),
}
AGE_KNOTS = (40.0, 55.0, 65.0, 80.0)


@cache
def people(number: int = 1500, seed: int = 1) -> pd.DataFrame:
    """Made-up people with an outcome of each family."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame(
        {
            "age": np.clip(rng.normal(60, 13, number), 18, 100).round(1),
            "bmi": np.clip(rng.normal(27, 5, number), 10, 70).round(2),
            "crp": np.clip(rng.lognormal(1, 1.2, number), 0.1, 1000).round(3),
            "arm": rng.integers(0, 2, number).astype(float),
            "smoking": rng.choice([0.0, 1.0, 2.0], number, p=[0.5, 0.3, 0.2]),
            "years": rng.uniform(0.05, 10, number).round(3),
            "site": rng.choice(5, number, p=[0.05, 0.15, 0.2, 0.25, 0.35]),
        }
    )
    away = rng.normal(0, 0.4, 5)[table["site"]]
    line = 0.03 * (table["age"] - 60) + 0.5 * table["arm"] - 0.3 * (table["smoking"] == 2) + 0.2 * np.log(table["crp"])
    table["pressure"] = (120 + 8 * line + 5 * away + rng.normal(0, 12, number)).round(1)
    table["ill"] = (rng.random(number) < 1 / (1 + np.exp(1 - line - away))).astype(float)
    table["visits"] = rng.poisson(np.exp(0.2 + 0.5 * line) * table["years"]).astype(float)
    table["falls"] = rng.poisson(np.exp(0.4 + 0.5 * line) * rng.gamma(1 / 0.7, 0.7, number)).astype(float)
    return table


def cohort(table: pd.DataFrame, names: Mapping[str, Any] = RANGES) -> Cohort:
    columns = {name: table[name].to_numpy(dtype=np.float64) for name in names}
    return Cohort(len(table), None, MappingProxyType(columns))


def over_sites(
    question: Analysis, parts: list[Cohort], ranges: Mapping[str, Range] = RANGES, minimum: int = 0
) -> Answer:
    frame, left = Frame(None, ranges), question.rounds()
    while left:
        total = add([question.summarise(part, frame) for part in parts])
        following = question.conclude(Total(total, tuple("abcdefgh"[: len(parts)]), {}, minimum), frame)
        if isinstance(following, Answer):
            return following
        question, left = following, left - 1
    raise AssertionError("no answer within the question's rounds")


def answered(question: Analysis, table: pd.DataFrame | None = None, minimum: int = 0, **more: Any) -> Answer:
    """Over the table's own sites, one of which has nobody."""
    table = people() if table is None else table
    parts = [cohort(table[table["site"] == s], more.get("ranges", RANGES)) for s in range(6)]
    return over_sites(question, parts, minimum=minimum, **more)


def column(answer: Answer, name: str) -> NDArray[np.float64]:
    return np.asarray(answer.tables["coefficients"][name], dtype=np.float64)


def spline(x: pd.Series, *knots: float) -> pd.DataFrame:
    """Harrell's basis, from his book."""
    t = knots
    out = {"x": x}
    for j in range(len(t) - 2):
        value = np.maximum(x - t[j], 0) ** 3
        value -= np.maximum(x - t[-2], 0) ** 3 * (t[-1] - t[j]) / (t[-1] - t[-2])
        value += np.maximum(x - t[-1], 0) ** 3 * (t[-2] - t[j]) / (t[-1] - t[-2])
        out[f"x{j}"] = value / (t[-1] - t[0]) ** 2
    return pd.DataFrame(out)


def labelled(table: pd.DataFrame) -> pd.DataFrame:
    out = table.copy()
    for name, words in (("arm", ARM), ("smoking", SMOKING)):
        out[name] = pd.Categorical.from_codes(table[name].astype(int), list(words))
    return out


def own_columns(formula: str, table: pd.DataFrame) -> pd.DataFrame:
    """patsy's."""
    written = formula.replace("log(", "np.log(").replace("^", "**").replace("age**2", "I(age**2)")
    written = written.replace('C(smoking, ref = "former")', 'C(smoking, Treatment("former"))')
    if "spline" in written:
        names = ", ".join(f"{k:g}" for k in AGE_KNOTS)
        written = written.replace(f"spline(age, {names})", "+".join(f"s{j}" for j in range(len(AGE_KNOTS) - 1)))
        basis = spline(table["age"], *AGE_KNOTS)
        table = table.assign(**{f"s{j}": basis.iloc[:, j] for j in range(basis.shape[1])})
    return patsy.dmatrix(written, labelled(table), return_type="dataframe")


def ours(name: str) -> frozenset[str]:
    """The pieces of one of patsy's columns by our names."""
    for theirs, own in {
        "Intercept": "(intercept)",
        "T.": "",
        'C(smoking, Treatment("former"))': "smoking",
        "np.log(": "log(",
        "I(age ** 2)": "age^2",
        **{f"s{j}": f"spline(age)[{j + 1}]" for j in range(3)},
    }.items():
        name = name.replace(theirs, own)
    return frozenset(name.split(":"))


def in_order(columns: pd.DataFrame, terms: tuple[str, ...]) -> pd.DataFrame:
    """patsy's columns in the order of ours."""
    at = {ours(name): name for name in columns.columns}
    assert len(at) == len(terms)
    return columns[[at[frozenset(term.split(":"))] for term in terms]]


def pooled(question: Regression, table: pd.DataFrame, columns: pd.DataFrame | None = None, **fit: Any) -> Any:
    y, x = table[question.response], columns
    if x is None:
        terms = parse(question.formula).over(RANGES).names
        x = in_order(own_columns(question.formula, table), terms)
    offset = None if question.exposure is None else np.log(table[question.exposure])
    if question.distribution is Family.GAUSSIAN:
        return sm.OLS(y, x).fit(**fit)
    if question.distribution is Family.BINOMIAL:
        return sm.Logit(y, x).fit(disp=0, method="newton", tol=1e-14, maxiter=100, **fit)
    if question.distribution is Family.POISSON:
        return sm.Poisson(y, x, offset=offset).fit(disp=0, method="newton", tol=1e-14, maxiter=100, **fit)
    start = sm.Poisson(y, x, offset=offset).fit(disp=0, method="newton").params
    return sm.NegativeBinomial(y, x, offset=offset).fit(
        np.append(start, 0.5), disp=0, method="newton", tol=1e-14, maxiter=100, **fit
    )


def same(answer: Answer, want: Any, tolerance: float = 1e-8) -> None:
    """Coefficients, errors, tests and intervals, each relative to the standard error or to itself."""
    assert answer.facts["problem"] == "none"
    error = np.asarray(want.bse)
    for name, values in (("coefficient", want.params), ("low", want.conf_int()[0]), ("high", want.conf_int()[1])):
        got = column(answer, name)
        assert np.abs((got - np.asarray(values)) / error).max() < tolerance, name
        np.testing.assert_allclose(got, values, rtol=tolerance, atol=tolerance * 1e-2 * float(np.median(error)))
    np.testing.assert_allclose(column(answer, "standard_error"), error, rtol=tolerance)
    np.testing.assert_allclose(column(answer, "statistic"), want.tvalues, rtol=10 * tolerance, atol=tolerance)
    np.testing.assert_allclose(column(answer, "p_value"), want.pvalues, rtol=1e-6, atol=1e-300)
    assert answer.facts["log_likelihood"] == pytest.approx(want.llf, rel=1e-10)
    assert answer.facts["aic"] == pytest.approx(want.aic, rel=1e-10)
    assert answer.facts["bic"] == pytest.approx(want.bic, rel=1e-10)


FORMULAS = (
    "age + bmi",
    "age*arm + smoking + log(crp)",
    'C(smoking, ref = "former")*arm + bmi + age^2',
    "spline(age, 40, 55, 65, 80) + arm:bmi + arm + bmi",
    "1",
    "smoking + age - 1",
)
OUTCOMES = {
    Family.GAUSSIAN: "pressure",
    Family.BINOMIAL: "ill",
    Family.POISSON: "visits",
    Family.NEGATIVE_BINOMIAL: "falls",
}


@pytest.mark.parametrize("formula", FORMULAS)
@pytest.mark.parametrize("family", list(Family))
def test_a_regression_over_sites_is_statsmodels_on_the_pooled_people(family: Family, formula: str) -> None:
    question = Regression(OUTCOMES[family], formula, family)
    answer = answered(question)
    same(answer, pooled(question, people()))
    assert answer.facts["people"] == len(people())


@pytest.mark.parametrize("family", list(Family))
@pytest.mark.parametrize("errors", [Errors.HC0, Errors.HC1, Errors.CLUSTERED])
def test_robust_errors_are_statsmodels(family: Family, errors: Errors) -> None:
    question = Regression(OUTCOMES[family], "age*arm + smoking", family, errors=errors)
    kind = {"cov_type": errors.value.upper()}
    if errors is Errors.CLUSTERED:
        kind = {"cov_type": "cluster", "cov_kwds": {"groups": people()["site"]}}
    want = pooled(question, people(), **kind)
    if errors is Errors.HC1 and family is not Family.GAUSSIAN:  # statsmodels leaves the factor out; R's sandwich has it
        p, n = len(want.params), len(people())
        answer = answered(question)
        np.testing.assert_allclose(column(answer, "standard_error"), want.bse * (n / (n - p)) ** 0.5, rtol=1e-8)
    else:
        same(answered(question), want)


@pytest.mark.parametrize("family", [Family.POISSON, Family.NEGATIVE_BINOMIAL])
def test_an_exposure_is_an_offset_of_its_logarithm(family: Family) -> None:
    question = Regression("visits" if family is Family.POISSON else "falls", "age + arm", family, exposure="years")
    answer, want = answered(question), pooled(question, people())
    same(answer, want)
    if family is Family.POISSON:
        x = own_columns("age + arm", people())[["Intercept", "age", "arm[T.drug]"]]
        glm = sm.GLM(people()["visits"], x, sm.families.Poisson(), offset=np.log(people()["years"])).fit(tol=1e-14)
        assert answer.facts["deviance"] == pytest.approx(glm.deviance, rel=1e-10)
        assert answer.facts["null_deviance"] == pytest.approx(glm.null_deviance, rel=1e-10)
        assert answer.facts["dispersion"] == pytest.approx(glm.pearson_chi2 / glm.df_resid, rel=1e-10)


def test_what_a_linear_and_a_logistic_model_explain_is_statsmodels() -> None:
    linear = Regression("pressure", "age + smoking")
    answer, want = answered(linear), pooled(linear, people())
    for name, value in {
        "r2": want.rsquared,
        "r2_adjusted": want.rsquared_adj,
        "dispersion": want.scale,
        "deviance": want.ssr,
        "null_deviance": want.centered_tss,
        "degrees_of_freedom": want.df_resid,
    }.items():
        assert answer.facts[name] == pytest.approx(value, rel=1e-10), name
    through = Regression("pressure", "age + bmi - 1")
    answer, want = answered(through), pooled(through, people())
    assert answer.facts["r2"] == pytest.approx(want.rsquared, rel=1e-10)
    assert answer.facts["r2_adjusted"] == pytest.approx(want.rsquared_adj, rel=1e-10)
    logistic = Regression("ill", "age + smoking", Family.BINOMIAL)
    answer, want = answered(logistic), pooled(logistic, people())
    assert answer.facts["null_log_likelihood"] == pytest.approx(want.llnull, rel=1e-10)
    assert answer.facts["deviance"] == pytest.approx(-2 * want.llf, rel=1e-10)
    assert answer.facts["cases"] == people()["ill"].sum()


@pytest.mark.parametrize("errors", list(Errors))
def test_site_effects_are_a_column_for_each_site(errors: Errors) -> None:
    question = Regression("pressure", "age*arm + smoking", errors=errors, site_effects=True)
    answer, table = answered(question), people()
    own = in_order(own_columns(question.formula, table), parse(question.formula).over(RANGES).names)
    sites = pd.get_dummies(table["site"], dtype=float)
    kind = {"cov_type": "nonrobust" if errors is Errors.CLASSICAL else errors.value.upper()}
    if errors is Errors.CLUSTERED:
        kind = {"cov_type": "cluster", "cov_kwds": {"groups": table["site"]}}
    want = sm.OLS(table["pressure"], pd.concat([own.drop(columns="Intercept"), sites], axis=1)).fit(**kind)
    k = own.shape[1] - 1
    np.testing.assert_allclose(column(answer, "coefficient"), want.params[:k], rtol=1e-8)
    np.testing.assert_allclose(column(answer, "standard_error"), want.bse[:k], rtol=1e-8)
    np.testing.assert_allclose(column(answer, "p_value"), want.pvalues[:k], rtol=1e-6, atol=1e-300)
    assert answer.facts["log_likelihood"] == pytest.approx(want.llf, rel=1e-9)
    assert answer.facts["aic"] == pytest.approx(want.aic, rel=1e-9)
    assert answer.facts["r2"] == pytest.approx(want.rsquared, rel=1e-7)
    assert answer.facts["degrees_of_freedom"] == want.df_resid
    assert answer.facts["sites"] == 5, "the sixth has nobody"


@pytest.mark.parametrize("family", list(Family))
def test_how_people_are_split_changes_no_digit(family: Family) -> None:
    """Over sites of which one has one class alone, one has one person, and some have nobody."""
    question = Regression(OUTCOMES[family], "age*smoking + arm", family, errors=Errors.HC0)
    table = people(600, 3)
    one = over_sites(question, [cohort(table)])
    y = table[OUTCOMES[family]]
    site = np.where(y <= y.quantile(0.1), 1, np.random.default_rng(4).integers(2, 5, len(y)))
    site[0] = 5
    other = over_sites(question, [cohort(table[site == s]) for s in range(7)])
    for name in ("coefficient", "standard_error", "p_value"):
        assert np.array_equal(column(one, name), column(other, name)), name
    assert one.facts == other.facts


def test_wide_ranges_and_rare_categories_cost_no_digits() -> None:
    """A column in a ten-thousandth of its range, counts in a range of a billion, and a category of 1 in 300."""
    table = people(3000, 5).copy()
    table["arm"] = (np.arange(3000) % 300 == 0).astype(float)
    ranges = {**RANGES, "crp": Range(0.1, 5e4), "bmi": Range(0.0, 1e4), "visits": Range(0.0, 1e9)}
    ranges |= {"age": Range(-5e4, 5e4), "pressure": Range(-1e5, 1e5)}
    for family in Family:
        question = Regression(OUTCOMES[family], "age + bmi + arm + crp", family)
        same(answered(question, table, ranges=ranges), pooled(question, table))


def problem(question: Regression, table: pd.DataFrame, minimum: int = 0) -> str:
    """What is said where there are no estimates."""
    answer = answered(question, table, minimum)
    assert np.isnan(column(answer, "coefficient")).all()
    assert np.isnan(column(answer, "standard_error")).all()
    return str(answer.facts["problem"])


def test_what_has_no_estimate_says_why() -> None:
    table, logistic = people(), Regression("ill", "age + arm", Family.BINOMIAL)
    split = table.assign(ill=(table["age"] > 60).astype(float))
    assert problem(logistic, split) == "cases and controls are separated by age"
    level = table.assign(ill=np.where(table["smoking"] == 2, 1.0, table["ill"]))
    assert problem(Regression("ill", "smoking + age", Family.BINOMIAL), level) == (
        "cases and controls are separated by smoking[current]"
    )
    assert problem(logistic, table[table["ill"] == 1]) == "no cases, or no controls"
    assert problem(logistic, table[table["arm"] == 0]).startswith("(nearly) constant, relative to its range: arm[drug]")
    assert problem(logistic, table.iloc[:3]) == "fewer people than coefficients, or as many"
    twice = table.assign(bmi=table["age"] / 2 + 5)
    for family in Family:
        said = problem(Regression(OUTCOMES[family], "age + bmi + arm", family), twice)
        assert said == "columns explain one another: age, bmi"
    visits = table.assign(visits=np.where(table["smoking"] == 1, 0.0, table["visits"]))
    counts = Regression("visits", "smoking", Family.POISSON)
    assert problem(counts, visits) == "people without any events are set apart by smoking[former]"
    assert problem(counts, table.assign(visits=0.0)) == "no events"
    even = table.assign(falls=np.arange(len(table)) % 2 + 3.0)
    said = problem(Regression("falls", "age", Family.NEGATIVE_BINOMIAL), even)
    assert said == "counts vary no more than Poisson's: ask distribution poisson"
    within = table.assign(arm=(table["site"] > 2).astype(float))
    assert "explain one another" in problem(Regression("pressure", "age + arm", site_effects=True), within)
    few = Regression("pressure", "age", errors=Errors.CLUSTERED)
    assert problem(few, table[table["site"] < 2]) == "errors clustered by site need people at 3 sites or more"


def test_small_numbers_withhold_everything() -> None:
    table, question = people(), Regression("ill", "age + smoking", Family.BINOMIAL)
    assert answered(question, minimum=20).withheld == 0
    rare = table.assign(smoking=np.where(np.arange(len(table)) < 7, 2.0, np.minimum(table["smoking"], 1.0)))
    assert answered(Regression("pressure", "age + smoking"), rare, 5).withheld == 0
    assert problem(Regression("pressure", "age + smoking"), rare, 10) == FEW
    assert problem(question, rare, 5) == FEW, "of seven, two or three are cases"
    assert problem(Regression("pressure", "age"), table.iloc[:4], 5) == FEW
    cases = table.assign(ill=(np.arange(len(table)) < 4).astype(float))
    assert problem(Regression("ill", "age", Family.BINOMIAL), cases, 5) == FEW
    events = table.assign(visits=(np.arange(len(table)) < 4).astype(float))
    assert problem(Regression("visits", "age", Family.POISSON), events, 5) == FEW
    coded = table.assign(bmi=np.where(np.arange(len(table)) < 4, 70.0, 10.0))  # numbers, but a category in truth
    assert problem(Regression("pressure", "bmi"), coded, 5) == FEW
    crossed = table.assign(arm=np.where((table["smoking"] == 2) & (np.arange(len(table)) > 90), 0.0, table["arm"]))
    assert problem(Regression("pressure", "arm*smoking"), crossed, 5) == FEW, "few in a combination"
    assert answered(Regression("pressure", "arm + smoking"), crossed, 5).withheld == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"formula": "age + pressure"}, "not columns of the formula"),
        ({"exposure": "years"}, "an exposure is one of counts"),
        ({"distribution": Family.POISSON, "site_effects": True}, "drop out by centring in a linear model alone"),
        ({"formula": "age - 1", "site_effects": True}, "in the place of an intercept"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_words(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Regression(**({"response": "pressure", "formula": "age"} | change))


def test_counts_and_exposures_have_ranges_that_fit() -> None:
    frame = Frame(None, {"visits": Range(-1.0, 5.0), "age": Range(0.0, 9.0), "years": Range(0.0, 9.0)})
    with pytest.raises(UsageError, match="Counts are not negative"):
        Regression("visits", "age", Family.POISSON).leaves(frame)
    with pytest.raises(UsageError, match="exposure's public range is positive"):
        Regression("age", "visits", Family.POISSON, exposure="years").leaves(frame)

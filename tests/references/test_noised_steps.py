"""Private logistic and Poisson regressions: statsmodels' where there is no noise, and intervals that count on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
import statsmodels.api as sm
from numpy.typing import NDArray
from scipy import special, stats

from fl_server.planning.steps import steps
from strategies.analyses import noised_regression
from strategies.analyses.noised_regression import FRACTIONS, UNSETTLED, NoisedRegression
from strategies.analysis import Answer, Frame, Range, Total
from strategies.cohort import Cohort
from strategies.errors import UsageError
from strategies.families import Family
from strategies.privacy import Budget, Loss
from strategies.protections import noise
from strategies.question import Question
from strategies.study import Study
from strategies.summary import Summary
from tests.tiny import Tiny, study

RANGES = {
    "age": Range(18.0, 90.0, "a"),
    "arm": Range.of("placebo", "drug"),
    "smoking": Range.of("never", "former", "current"),
    "years": Range(0.25, 10.0, "a"),
    "ill": Range.of("no", "yes"),
    "falls": Range(0.0, 10.0),
    "ever": Range(0.0, 30.0),
}
FRAME = Frame(None, RANGES)
FORMULA, TERMS = "age + arm + smoking", ("(intercept)", "age", "arm[drug]", "smoking[former]", "smoking[current]")
TRUE = np.array([-2.6, 0.03, 0.0, 0.3, 0.7])
"""The drug does nothing."""
ILL = NoisedRegression("ill", FORMULA, Family.BINOMIAL)
FALLS = NoisedRegression("falls", FORMULA, Family.POISSON)
RATES = NoisedRegression("ever", FORMULA, Family.POISSON, "years")
"""Falls in one year, and in the years that somebody is seen."""
BUDGET = Budget(3.0, 1e-5)


def people(count: int, rng: np.random.Generator) -> Cohort:
    age, arm = rng.normal(55, 14, count).clip(18, 90), rng.integers(0, 2, count).astype(float)
    smoking, years = rng.choice([0.0, 1.0, 2.0], count, p=[0.5, 0.3, 0.2]), rng.uniform(0.25, 10, count)
    columns = {"age": age, "arm": arm, "smoking": smoking, "years": years}
    line = rows(columns) @ TRUE
    columns["ill"] = (rng.random(count) < special.expit(line)).astype(float)
    columns["falls"] = rng.poisson(np.exp(line)).clip(0, 10).astype(float)
    columns["ever"] = rng.poisson(np.exp(line) * years).clip(0, 30).astype(float)
    return Cohort(count, None, MappingProxyType(columns))


def rows(columns: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    """The formula's columns, written out by hand."""
    smoking = columns["smoking"]
    return np.stack([np.ones(len(smoking)), columns["age"], columns["arm"], smoking == 1, smoking == 2], axis=1)


Noise = Callable[[NoisedRegression, Summary, Frame], tuple[Summary, dict[str, float]]]


def silent(_: NoisedRegression, sums: Summary, __: Frame) -> tuple[Summary, dict[str, float]]:
    return sums, {}


def seeded(rng: np.random.Generator, budget: Budget = BUDGET) -> Noise:
    """As wide as the gate's, and the same in every run."""

    def add(question: NoisedRegression, sums: Summary, frame: Frame) -> tuple[Summary, dict[str, float]]:
        fields = question.leaves(frame)
        sds = noise.scales(fields, Loss(budget.loss.rho * question.fraction()))
        drawn = {n: rng.normal(0, sds[n] * 2.0 ** fields[n].fraction_bits, sums[n].shape) for n in fields}
        return {n: sums[n] + np.rint(drawn[n]).astype(np.int64) for n in fields}, sds

    return add


def released(question: NoisedRegression, who: Cohort, noised: Noise, frame: Frame = FRAME) -> Answer:
    """The answer after all rounds."""
    for number in range(1, question.rounds() + 1):
        sums, sds = noised(question, question.summarise(who, frame), frame)
        following = question.conclude(Total(sums, ("a",), sds), frame)
        if isinstance(following, Answer):
            assert number == question.rounds()
            return following
        question = following
    raise AssertionError("no answer within the question's rounds")


def told(answer: Answer, column: str) -> NDArray[np.float64]:
    return np.asarray(answer.tables["coefficients"][column], dtype=np.float64)


# -- without noise -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("question", [ILL, FALLS, RATES], ids=["ill", "falls", "rates"])
def test_without_noise_it_is_statsmodels(question: NoisedRegression) -> None:
    who = people(4000, np.random.default_rng(1))
    x, y = rows(who.columns), who.columns[question.response]
    family = sm.families.Binomial() if question is ILL else sm.families.Poisson()
    offset = np.log(who.columns["years"]) if question.exposure else None
    want, answer = sm.GLM(y, x, family=family, offset=offset).fit(tol=1e-14), released(question, who, silent)
    assert answer.tables["coefficients"]["term"] == TERMS
    np.testing.assert_allclose(told(answer, "coefficient"), want.params, rtol=1e-6)
    np.testing.assert_allclose(told(answer, "ratio"), np.exp(want.params), rtol=1e-6)
    np.testing.assert_allclose(told(answer, "standard_error"), want.bse, rtol=1e-4)  # of where the last step began
    assert answer.facts["effect"] == ("odds ratio" if question is ILL else "rate ratio")
    assert (answer.facts["people"], answer.facts["problem"], answer.facts["ridge"]) == (4000, "none", 0)
    at_the_maximum = last_step(question, who)
    np.testing.assert_allclose(told(at_the_maximum, "coefficient"), want.params, rtol=1e-7, atol=1e-8)
    np.testing.assert_allclose(told(at_the_maximum, "standard_error"), want.bse, rtol=1e-7)


def last_step(question: NoisedRegression, who: Cohort) -> Answer:
    """The last round, had there been more before it."""
    asked, before = question, question.rounds() - 2
    for _ in range(12):
        following = asked.conclude(Total(asked.summarise(who, FRAME), ("a",)), FRAME)
        assert isinstance(following, NoisedRegression)
        asked = replace(following, taken=min(following.taken, before))
    last = replace(asked, taken=before + 1)
    answer = last.conclude(Total(last.summarise(who, FRAME), ("a",)), FRAME)
    assert isinstance(answer, Answer)
    return answer


@pytest.mark.parametrize("exposure", [None, "years"])
def test_without_noise_and_without_an_intercept_it_is_statsmodels(exposure: str | None) -> None:
    who = people(4000, np.random.default_rng(2))
    levels = (who.columns["smoking"][:, None] == np.arange(3)).astype(float)
    x = np.concatenate([levels, who.columns["arm"][:, None]], axis=1)
    offset = None if exposure is None else np.log(who.columns["years"])
    asked = NoisedRegression("ever", "smoking + arm - 1", Family.POISSON, exposure)
    family = sm.families.Poisson()
    if exposure is None:
        asked, family = NoisedRegression("ill", "smoking + arm - 1", Family.BINOMIAL), sm.families.Binomial()
    want = sm.GLM(who.columns[asked.response], x, family=family, offset=offset).fit(tol=1e-14)
    answer = released(asked, who, silent)
    np.testing.assert_allclose(told(answer, "coefficient"), want.params, rtol=1e-6)
    np.testing.assert_allclose(told(answer, "standard_error"), want.bse, rtol=1e-5)


def test_strong_effects_and_few_cases_are_reached_within_the_rounds() -> None:
    rng = np.random.default_rng(3)
    for strength, level in ((2.0, -4.0), (1.0, -4.5)):
        who = people(20_000, rng)
        line = level + strength * rows(who.columns)[:, 1:] @ TRUE[1:]
        ill = (rng.random(20_000) < special.expit(line)).astype(float)
        who = replace(who, columns=MappingProxyType({**who.columns, "ill": ill}))
        want = sm.GLM(ill, rows(who.columns), family=sm.families.Binomial()).fit(tol=1e-14)
        off = np.abs(told(released(ILL, who, silent), "coefficient") - want.params) / want.bse
        print("strength", strength, "cases", ill.mean(), "off by standard errors", off)
        assert (off < 0.01).all()


# -- intervals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("question", "count", "epsilon"),
    [(ILL, 6000, 1.0), (FALLS, 6000, 3.0), (RATES, 6000, 3.0)],
    ids=["ill", "falls", "rates"],
)
def test_intervals_under_noise_hold_the_truth_and_are_no_wider_than_they_have_to_be(
    question: NoisedRegression, count: int, epsilon: float
) -> None:
    """100 samples, and nothing is said where noise swallows one. Were each interval's coverage 94 %, fewer than 82 of
    100 would hold it by chance below 10^-4, and the mean of 100 squares of normal numbers is below 0.5 by chance below
    10^-4; here people and noise are seeded."""
    assert stats.binom.cdf(81, 100, 0.94) < 1e-4
    assert stats.chi2.cdf(50, 100) < 1e-4
    rng, without = np.random.default_rng(20), []
    held, squares, significant, alone = list[NDArray[np.bool_]](), [], 0, []
    for _ in range(100):
        who = people(count, rng)
        answer = released(question, who, seeded(rng, Budget(epsilon, 1e-5)))
        if answer.facts["ridge"] or answer.facts["problem"] != "none":
            without.append(answer)
            continue
        held.append((told(answer, "low") <= TRUE) & (told(answer, "high") >= TRUE))
        squares.append(((told(answer, "coefficient") - TRUE) / told(answer, "standard_error")) ** 2)
        significant += bool(told(answer, "p_value")[2] < 0.05)
        alone.append(told(released(question, who, silent), "standard_error") / told(answer, "standard_error"))
    coverage = np.mean(held, axis=0)
    print("coverage", coverage, "mean square", np.mean(squares, axis=0), "sampling's part", np.mean(alone, axis=0))
    print("without intervals", len(without), "of 100; the drug is significant in", significant)
    assert len(without) <= 20
    assert (coverage >= 0.82).all(), coverage
    assert (np.mean(squares, axis=0) >= 0.5).all()
    assert significant <= 18, "the drug does nothing"
    assert np.mean(alone) < 0.9, "noise is a part of what is not known, so that this is a test of it"


def test_the_variance_that_noise_makes_is_that_of_many_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long last step of one data set: what differs is noise."""
    monkeypatch.setattr(noised_regression, "settled", lambda *_: True)
    monkeypatch.setattr(noised_regression, "LONGEST", 100.0)
    who, rng = people(8000, np.random.default_rng(21)), np.random.default_rng(22)
    question = ILL
    for _ in range(question.rounds() - 1):
        question = question.conclude(Total(question.summarise(who, FRAME), ("a",)), FRAME)  # type: ignore[assignment]
    question = replace(question, estimate=tuple(b + 0.6 for b in question.estimate))  # a step to take
    sums, add = question.summarise(who, FRAME), seeded(rng, Budget(1.0, 1e-5))
    without = question.conclude(Total(sums, ("a",)), FRAME)
    assert isinstance(without, Answer)
    estimates, errors, sampling = [], [], told(without, "standard_error")
    for _ in range(1500):
        answer = question.conclude(Total(*_with(add(question, sums, FRAME))), FRAME)
        assert isinstance(answer, Answer)
        estimates.append(told(answer, "coefficient"))
        errors.append(told(answer, "standard_error") ** 2)
    by_noise = np.var(estimates, axis=0)
    assert np.isfinite(estimates).all()
    print("variances", by_noise, "of sampling", sampling**2, "told", np.median(errors, axis=0))
    np.testing.assert_allclose(np.median(errors, axis=0), by_noise + sampling**2, rtol=0.12)  # 1500 draws: 4 %


def _with(noised: tuple[Summary, dict[str, float]]) -> tuple[Summary, tuple[str, ...], dict[str, float]]:
    return noised[0], ("a",), noised[1]


# -- where noise leaves little -----------------------------------------------------------------------------------------


def assert_no_intervals(answer: Answer) -> None:
    for column in ("standard_error", "statistic", "p_value", "low", "high", "ratio_low", "ratio_high"):
        assert np.isnan(told(answer, column)).all(), column
    if answer.facts["problem"] == "none":
        assert answer.facts["ridge"] > 0
        assert np.isfinite(told(answer, "coefficient")).all()
    else:
        assert answer.facts["problem"] == UNSETTLED
        assert np.isnan(told(answer, "coefficient")).all()


@pytest.mark.parametrize("question", [ILL, FALLS, RATES], ids=["ill", "falls", "rates"])
@pytest.mark.parametrize("count", [0, 1, 5, 100])
def test_few_people_have_no_intervals(question: NoisedRegression, count: int) -> None:
    """Warnings are errors here, so nothing overflows on the way."""
    rng = np.random.default_rng(23)
    for epsilon in (0.001, 0.1, 1.0):
        for _ in range(5):
            assert_no_intervals(released(question, people(count, rng), seeded(rng, Budget(epsilon, 1e-5))))


def test_nobody_without_noise_has_no_intervals() -> None:
    for question in (ILL, FALLS, RATES):
        assert_no_intervals(released(question, people(0, np.random.default_rng(24)), silent))


def test_columns_that_separate_the_cases_have_no_intervals() -> None:
    rng, found = np.random.default_rng(25), []
    for count, noised in ((3000, silent), (3000, seeded(rng)), (50_000, seeded(rng))):
        who = people(count, rng)
        columns = MappingProxyType({**who.columns, "ill": (who.columns["arm"] == 1).astype(float)})
        answer = released(ILL, replace(who, columns=columns), noised)
        found.append(answer.facts["problem"])
        print(answer.facts, told(answer, "coefficient"))
        if noised is not silent:
            assert_no_intervals(answer)


def test_columns_that_explain_one_another_have_no_intervals() -> None:
    frame = Frame(None, {**RANGES, "again": RANGES["age"]})
    made, rng = people(20_000, np.random.default_rng(26)), np.random.default_rng(27)
    who = replace(made, columns=MappingProxyType({**made.columns, "again": made.columns["age"]}))
    for question in (ILL, FALLS):
        for _ in range(10):
            assert_no_intervals(released(replace(question, formula="age + again"), who, seeded(rng), frame))


# -- the promise -------------------------------------------------------------------------------------------------------


def test_the_rounds_cost_the_budget_and_no_more() -> None:
    assert len(FRACTIONS) == ILL.rounds()
    assert sum(FRACTIONS) == pytest.approx(1, abs=1e-12)
    who, question, rho = people(500, np.random.default_rng(28)), ILL, 0.0
    add = seeded(np.random.default_rng(29))
    for _ in range(question.rounds()):
        fields = question.leaves(FRAME)
        rho += noise.spent(fields, noise.scales(fields, Loss(BUDGET.loss.rho * question.fraction()))).rho
        sums, sds = add(question, question.summarise(who, FRAME), FRAME)
        following = question.conclude(Total(sums, ("a",), sds), FRAME)
        question = following if isinstance(following, NoisedRegression) else question
    assert rho == pytest.approx(BUDGET.loss.rho, rel=1e-12)


def test_gates_spend_the_budget_once_over_all_rounds(make_tiny: Callable[..., Tiny], quick_path: Path) -> None:
    tiny, budget = make_tiny(epsilon=100.0), Budget(90.0, 1e-5)
    asked = Question("model", NoisedRegression("high", "sex", Family.BINOMIAL), budget)
    (result,) = tiny.conductor(study(asked), quick_path / "run").run()
    facts = result.answer.facts
    assert (facts["problem"], facts["ridge"], facts["rounds"]) == ("none", 0, len(FRACTIONS))
    assert result.statement.rho == pytest.approx(budget.loss.rho)
    for gate in tiny.gates.values():
        assert gate.ledger.spent().rho == pytest.approx(budget.loss.rho, rel=1e-9)
    assert abs(float(facts["people"]) - 120) < 6 * float(facts["people_noise_sd"])
    assert facts["people_noise_sd"] > 0


def test_a_plan_foretells_every_round_and_its_noise() -> None:
    asked = Question("model", NoisedRegression("high", "sex", Family.BINOMIAL), BUDGET)
    foretold = steps(study(asked), asked)
    assert [set(step.noise) for step in foretold] == [{"products"}, *3 * [{"score", "information"}]]
    middle, last = (step.noise["information"] for step in foretold[-2:])
    assert middle / last == pytest.approx((FRACTIONS[-1] / FRACTIONS[-2]) ** 0.5, rel=1e-6)


def test_the_noise_that_is_told_of_people_is_that_of_the_first_round() -> None:
    who, rng, first = people(4000, np.random.default_rng(30)), np.random.default_rng(31), []
    add = seeded(rng)

    def keeping(question: NoisedRegression, sums: Summary, frame: Frame) -> tuple[Summary, dict[str, float]]:
        out = add(question, sums, frame)
        first.append(out[1])
        return out

    answer = released(RATES, who, keeping)
    assert answer.facts["people_noise_sd"] == pytest.approx(first[0]["products"], rel=1e-9)
    assert answer.facts["score_noise_sd"] == first[-1]["score"]


# -- what is not asked -------------------------------------------------------------------------------------------------


def test_what_a_private_regression_is_not_of() -> None:
    with pytest.raises(ValueError, match=r"not of a negative_binomial outcome: .* Ask distribution poisson"):
        NoisedRegression("falls", "age", Family.NEGATIVE_BINOMIAL)
    with pytest.raises(ValueError, match="an exposure is one of counts: ask distribution poisson"):
        NoisedRegression("ill", "age", Family.BINOMIAL, "years")
    with pytest.raises(ValueError, match="the response and the exposure are not columns of the formula"):
        NoisedRegression("falls", "age + years", Family.POISSON, "years")
    with pytest.raises(ValueError, match="An estimate follows from earlier rounds"):
        replace(ILL, taken=1)
    with pytest.raises(ValueError, match="numbers are within their bounds"):
        replace(ILL, taken=1, estimate=(13.0,))
    with pytest.raises(ValueError, match="a number for each coefficient"):
        replace(ILL, taken=1, estimate=(1.0,)).leaves(FRAME)


@pytest.mark.parametrize(
    ("name", "span", "words"),
    [
        ("ever", Range(0.0, 2e6), "is of counts up to 1,000,000, as noise is as wide as the largest"),
        ("ever", Range(-1.0, 5.0), "Counts are not negative"),
        ("years", Range(0.0, 5.0), "An exposure's public range is positive"),
    ],
)
def test_ranges_that_leave_nothing_are_refused(name: str, span: Range, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        RATES.leaves(Frame(None, {**RANGES, name: span}))


def test_a_study_may_ask_for_one_over_all_sites_alone(tmp_path: Path) -> None:
    asked = """
    title = "study"
    purpose = "scientific_research"
    assembly = "GRCh37"
    [columns]
    falls = [0, 20]
    years = [0.25, 10]
    age = [18, 90]
    [[question]]
    name = "model"
    analysis = "regression"
    regime = "private"
    epsilon = 1.0
    delta = 1e-5
    response = "falls"
    formula = "age"
    distribution = "poisson"
    exposure = "years"
    """
    file = tmp_path / "study.toml"
    file.write_text(asked, encoding="utf-8")
    assert Study.read(file).questions[0].analysis == NoisedRegression("falls", "age", Family.POISSON, "years")
    file.write_text(asked + "by_site = true\n", encoding="utf-8")
    with pytest.raises(UsageError, match="an answer for each site takes one round"):
        Study.read(file)


def test_a_step_stays_within_the_box() -> None:
    assert noised_regression.moved(np.zeros(2), np.array([1e300, -1e300])).tolist() == [2.0, -2.0]
    assert noised_regression.moved(np.array([11.0, -11.0]), np.array([2.0, -2.0])).tolist() == [12.0, -12.0]

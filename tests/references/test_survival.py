"""Survival over sites against lifelines and statsmodels on the pooled people, whose times are rounded here, by plain
loops, to the intervals that a minimum of people leaves."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tomli_w
from lifelines import AalenJohansenFitter, CoxPHFitter, KaplanMeierFitter
from lifelines.statistics import multivariate_logrank_test
from lifelines.utils import median_survival_times, restricted_mean_survival_time
from numpy.typing import NDArray
from scipy.optimize import minimize
from statsmodels.duration.hazard_regression import PHReg
from statsmodels.duration.survfunc import SurvfuncRight, survdiff

from simulations.populations import write_table
from simulations.run import simulate
from strategies.analyses.competing_risks import CompetingRisks
from strategies.analyses.cox import DEPENDENT, FITTED, NO_EVENTS, NO_MAXIMUM, Baseline, CoxRegression
from strategies.analyses.noised_survival import NoisedSurvival, made_positive
from strategies.analyses.survival import SurvivalCurves
from strategies.analysis import Analysis, Answer, Frame, Range, Total
from strategies.cohort import Cohort
from strategies.protections.suppression import PROFILES
from strategies.question import Question
from strategies.study import Purpose, Study
from tests.laws.zoo import add
from tests.tiny import POLICY

CLINICAL = Path(__file__).parents[3] / "shared" / "data" / "clinical"
needs_data = pytest.mark.skipif(not CLINICAL.exists(), reason="the shared data folder is not there")

Floats = NDArray[np.float64]
EXACT, FIT = 1e-12, 1e-7


# -- people ------------------------------------------------------------------------------------------------------------


def read(name: str, columns: Mapping[str, str | tuple[str, Mapping[str, float]]]) -> dict[str, Floats]:
    """Columns of a data set by other names, words as the places that stand beside them."""
    table = pd.read_csv(CLINICAL / f"survival_{name}.csv")
    out = {}
    for new, old in columns.items():
        values = table[old] if isinstance(old, str) else table[old[0]].map(old[1])
        out[new] = values.to_numpy(dtype=np.float64)
    return out


def colon() -> tuple[dict[str, Floats], dict[str, Range]]:
    arms = ("Obs", "Lev", "Lev+5FU")
    columns = {"time": "time", "event": "status", "age": "age", "nodes": "nodes", "sex": "sex", "differ": "differ"}
    people = read("colon", {**columns, "rx": ("rx", {a: float(i) for i, a in enumerate(arms)}), "kind": "etype"})
    deaths = people.pop("kind") == 2
    ranges = {
        "time": Range(0, 3400, "d"), "event": Range.of("alive", "dead"), "age": Range(18, 90), "nodes": Range(0, 40),
        "sex": Range(0, 1), "differ": Range(1, 3), "rx": Range.of(*arms),
    }  # fmt: skip
    return {name: values[deaths] for name, values in people.items()}, ranges


def lung() -> tuple[dict[str, Floats], dict[str, Range]]:
    columns = {"time": "time", "event": "status", "age": "age", "sex": "sex", "ecog": "ph.ecog", "inst": "inst"}
    ranges = {"time": Range(0, 1100, "d"), "event": Range(1, 2), "age": Range(18, 90), "sex": Range(1, 2)}
    return read("cancer", columns), {**ranges, "ecog": Range(0, 4), "inst": Range(1, 33)}


def breast() -> tuple[dict[str, Floats], dict[str, Range]]:
    """Rotterdam's people and the German trial's, `study` 0 and 1."""
    shared = {"age": "age", "nodes": "nodes", "meno": "meno", "hormon": "hormon", "grade": "grade"}
    one = read("rotterdam", {"time": "dtime", "event": "death", **shared})
    other = read("gbsg", {"time": "rfstime", "event": "status", **shared})
    both = {name: np.concatenate([one[name], other[name]]) for name in one}
    both["study"] = np.repeat([0.0, 1.0], [len(one["time"]), len(other["time"])])
    ranges = {"time": Range(0, 7300, "d"), "event": Range(0, 1), "age": Range(18, 95), "nodes": Range(0, 60)}
    return both, {
        **ranges, "meno": Range(0, 1), "hormon": Range(0, 1), "grade": Range(1, 3),
        "study": Range.of("Rotterdam", "GBSG"),
    }  # fmt: skip


def flchain() -> tuple[dict[str, Floats], dict[str, Range]]:
    sexes = {"F": 0.0, "M": 1.0}
    columns = {"time": "futime", "event": "death", "age": "age", "sex": ("sex", sexes), "group": "flc.grp"}
    ranges = {"time": Range(0, 5300, "d"), "event": Range(0, 1), "age": Range(50, 105), "sex": Range.of("F", "M")}
    return read("flchain", columns), {**ranges, "group": Range(1, 10)}


PEOPLE = {"colon": colon, "lung": lung, "breast": breast, "flchain": flchain}


def split(columns: Mapping[str, Floats], site: NDArray[Any], sites: int) -> list[Cohort]:
    everybody = Cohort(len(site), columns=columns)
    return [everybody.take(np.flatnonzero(site == s)) for s in range(sites)]


def at_random(columns: Mapping[str, Floats], sites: int = 5, seed: int = 1) -> list[Cohort]:
    """Sites of which the last has nobody."""
    n = len(columns["time"])
    return split(columns, np.random.default_rng(seed).integers(0, sites - 1, n), sites)


def asked(question: Any, parts: Sequence[Cohort], ranges: Mapping[str, Range], minimum: int = 5) -> Answer:
    """The answer over sites, each of which opens the columns that are needed."""
    frame, names = Frame(None, ranges), tuple(f"S{i}" for i in range(len(parts)))
    opened = [replace(part, columns={n: part.columns[n] for n in question.needs().columns}) for part in parts]
    for _ in range(question.rounds()):
        total = add([question.summarise(part, frame) for part in opened])
        following = question.conclude(Total(total, names, {}, minimum), frame)
        if isinstance(following, Answer):
            return following
        assert isinstance(following, Analysis)
        question = following
    raise AssertionError("no answer within the question's rounds")


# -- rounding, by plain loops ------------------------------------------------------------------------------------------


def plainly_rounded(time: Floats, way: NDArray[Any], group: NDArray[Any], ends: Floats, minimum: int) -> Floats:
    """Each person's time, rounded up to the ends that a minimum leaves for those who leave as she does."""
    fine = [next(i for i, end in enumerate(ends) if t <= end) for t in time.tolist()]
    out = np.empty(len(time))
    stops = {True: list(range(len(ends))), False: list(range(len(ends)))}
    people = {
        events: [
            [(group[i], way[i]) for i in range(len(time)) if fine[i] == t and (way[i] > 0) == events]
            for t in range(len(ends))
        ]
        for events in (True, False)
    }
    for level in (k for k in PROFILES if 0 < k <= minimum):
        stops[True] = joined(stops[True], people[True], level)
        stops[False] = joined([t for t in stops[False] if t in stops[True]], people[False], level)
    for i in range(len(time)):
        out[i] = ends[next(stop for stop in stops[bool(way[i] > 0)] if fine[i] <= stop)]
    return out


def joined(stops: list[int], people: list[list[Any]], least: int) -> list[int]:
    """Those of some stops between which each cell is of nobody or of so many."""
    out = [-1]
    for stop in stops:
        if fits(list(range(out[-1] + 1, stop + 1)), people, least):
            out.append(stop)
    while out[-1] != stops[-1] and not fits(list(range(out[-1] + 1, stops[-1] + 1)), people, least):
        out.pop()
    return out[1:] if out[-1] == stops[-1] else [*out[1:], stops[-1]]


def fits(block: list[int], people: list[list[Any]], least: int) -> bool:
    """Whether each cell of some intervals is of nobody or of so many."""
    here = [cell for t in block for cell in people[t]]
    return not any(0 < here.count(cell) < least for cell in set(here))


def complete(columns: Mapping[str, Floats], *names: str) -> NDArray[np.bool_]:
    return np.isfinite([columns[name] for name in names]).all(axis=0)


def event_of(columns: Mapping[str, Floats], ranges: Mapping[str, Range], name: str = "event") -> NDArray[np.int64]:
    return (ranges[name].unit(columns[name]) > 0).astype(np.int64)


# -- Kaplan-Meier and log-rank -----------------------------------------------------------------------------------------

CURVES = [("colon", "rx", "sex", 5), ("colon", "rx", "sex", 0), ("lung", "sex", "ecog", 3), ("lung", None, None, 10),
          ("breast", "study", "hormon", 5), ("flchain", "sex", "group", 20)]  # fmt: skip


@needs_data
@pytest.mark.parametrize(("name", "by", "strata", "minimum"), CURVES)
def test_curves_and_tests_are_lifelines_and_statsmodels(
    name: str, by: str | None, strata: str | None, minimum: int
) -> None:
    columns, ranges = PEOPLE[name]()
    inside = complete(columns, *filter(None, ("time", "event", by)))
    time, event = columns["time"][inside], event_of(columns, ranges)[inside]
    group = columns[by][inside] if by else np.zeros(len(time))
    ends = np.linspace(0, ranges["time"].maximum, 61)[1:]
    rounded = plainly_rounded(time, event, group, ends, minimum)
    got = asked(SurvivalCurves("time", "event", by, intervals=60), at_random(columns), ranges, minimum)
    rows, groups = pd.DataFrame(dict(got.tables["survival"])), pd.DataFrame(dict(got.tables["groups"]))
    assert got.facts["people"] == inside.sum()
    until = float(got.facts["restricted_at"])
    for place, label in enumerate(groups["group"]):
        mine = group == (place + (ranges[by].minimum if by else 0))
        ours, own = rows[rows["group"] == label].set_index("time"), groups.loc[place]
        theirs = KaplanMeierFitter().fit(rounded[mine], event[mine])
        at = ours.index[ours[["events", "censored"]].sum(axis=1) > 0]
        table = theirs.event_table.loc[at]
        assert (ours.loc[at, "at_risk"] == table["at_risk"]).all()
        assert (ours.loc[at, "events"] == table["observed"]).all()
        assert (ours.loc[at, "censored"] == table["censored"]).all()
        cells = ours[["events", "censored"]].to_numpy()
        assert not ((cells > 0) & (cells < minimum)).any()
        want = theirs.survival_function_.loc[at].to_numpy()[:, 0]
        assert np.allclose(ours.loc[at, "survival"], want, rtol=EXACT, atol=EXACT)
        inner = (want > 0) & (want < 1)
        bounds = theirs.confidence_interval_.loc[at].to_numpy()[inner]
        assert np.allclose(ours.loc[at, ["low_95", "high_95"]].to_numpy()[inner], bounds, rtol=EXACT, atol=0)
        curve = SurvfuncRight(rounded[mine], event[mine])
        errors = ours.loc[curve.surv_times, "standard_error"].to_numpy()
        assert np.allclose(errors[curve.surv_prob > 0], curve.surv_prob_se[curve.surv_prob > 0], rtol=EXACT)
        middle = theirs.median_survival_time_
        assert own["median"] == middle or (np.isnan(own["median"]) and np.isinf(middle))
        low, high = median_survival_times(theirs.confidence_interval_).to_numpy()[0]
        for one, other in ((own["median_low_95"], low), (own["median_high_95"], high)):
            assert one == other or (np.isnan(one) and np.isinf(other))
        assert own["restricted_mean"] == pytest.approx(restricted_mean_survival_time(theirs, until), rel=1e-10)
        assert own["restricted_mean_error"] == pytest.approx(plain_mean_error(ours, until), rel=1e-10)
    if by is None:
        assert np.isnan(got.facts["log_rank_chi2"])
        return
    test = multivariate_logrank_test(rounded, group, event)
    assert float(got.facts["log_rank_chi2"]) == pytest.approx(test.test_statistic, rel=EXACT)
    assert float(got.facts["log_rank_p_value"]) == pytest.approx(test.p_value, rel=1e-10)
    assert strata is not None
    stratified = asked(SurvivalCurves("time", "event", by, strata, intervals=60), at_random(columns), ranges, minimum)
    here = complete(columns, "time", "event", by, strata)
    again = plainly_rounded(columns["time"][here], event_of(columns, ranges)[here], columns[by][here], ends, minimum)
    chi2, _ = survdiff(again, event_of(columns, ranges)[here], columns[by][here], strata=columns[strata][here])
    assert float(stratified.facts["log_rank_chi2"]) == pytest.approx(chi2, rel=EXACT)


def plain_mean_error(rows: pd.DataFrame, until: float) -> float:
    """By its formula, interval by interval."""
    times, heights, variance = [0.0, *rows.index], [1.0, *rows["survival"]], 0.0
    for i, (time, row) in enumerate(rows.iterrows(), start=1):
        area = sum(
            heights[j] * (min(times[j + 1] if j + 1 < len(times) else until, until) - times[j])
            for j in range(i, len(times))
            if times[j] < until
        )
        d, n = row["events"], row["at_risk"]
        if time <= until and area > 0 and d > 0:
            variance += area**2 * d / (n * (n - d))
    return math.sqrt(variance)


# -- Cox ---------------------------------------------------------------------------------------------------------------


def frame_of(columns: Mapping[str, Floats], ranges: Mapping[str, Range], names: Sequence[str]) -> pd.DataFrame:
    """Covariates with a column for each category but the first."""
    out = {}
    for name in names:
        for place, category in enumerate(ranges[name].categories):
            if place:
                out[f"{name} {category}"] = (columns[name] == place).astype(np.float64)
        if not ranges[name].categories:
            out[name] = columns[name]
    return pd.DataFrame(out)


COX = [
    ("colon", ("age", "nodes", "rx", "sex"), None, 5), ("colon", ("age", "rx"), "differ", 3),
    ("lung", ("age", "sex", "ecog"), None, 5), ("breast", ("age", "nodes", "hormon", "grade"), "study", 10),
    ("breast", ("age", "nodes", "study"), None, 0), ("flchain", ("age", "sex"), "group", 5),
]  # fmt: skip


@needs_data
@pytest.mark.parametrize("baseline", list(Baseline))
@pytest.mark.parametrize(("name", "covariates", "strata", "minimum"), COX)
def test_hazard_ratios_are_lifelines_and_statsmodels(
    name: str, covariates: tuple[str, ...], strata: str | None, minimum: int, baseline: Baseline
) -> None:
    columns, ranges = PEOPLE[name]()
    parts, own = at_random(columns, seed=3), baseline is Baseline.SITE
    site = np.random.default_rng(3).integers(0, 4, len(columns["time"]))
    inside = complete(columns, "time", "event", *covariates, *filter(None, [strata]))
    event = event_of(columns, ranges)[inside]
    stratum = columns[strata][inside] if strata else np.zeros(len(event))
    cells = np.zeros(len(event)) if own else stratum
    ends = np.linspace(0, ranges["time"].maximum, 51)[1:]
    rounded = plainly_rounded(columns["time"][inside], event, cells, ends, minimum)
    got = asked(CoxRegression("time", "event", covariates, strata, baseline, intervals=50), parts, ranges, minimum)
    assert (got.facts["fit"], got.facts["people"], got.facts["events"]) == (FITTED, inside.sum(), event.sum())
    X = frame_of(columns, ranges, covariates)[inside].reset_index(drop=True)
    table = got.tables["coefficients"]
    assert table["term"] == tuple(X)
    whose = stratum * 100 + (site[inside] if own else 0)

    statsmodels = PHReg(rounded, X, status=event, strata=whose, ties="efron").fit(method="newton", tol=1e-12, disp=0)
    for column, want in (("coefficient", statsmodels.params), ("standard_error", statsmodels.bse)):
        assert np.allclose(np.asarray(table[column]), want, rtol=FIT, atol=0), column
    assert float(got.facts["log_likelihood"]) == pytest.approx(statsmodels.llf, rel=1e-10)

    people = X.assign(T=rounded, E=event, S=whose)
    fit = CoxPHFitter().fit(people, "T", "E", strata=["S"], fit_options={"precision": 1e-12, "max_steps": 100})
    summary = fit.summary
    for column, theirs in (
        ("coefficient", "coef"), ("standard_error", "se(coef)"), ("hazard_ratio", "exp(coef)"), ("z", "z"),
        ("low_95", "exp(coef) lower 95%"), ("high_95", "exp(coef) upper 95%"),
    ):  # fmt: skip
        assert np.allclose(np.asarray(table[column]), summary[theirs], rtol=FIT, atol=0), column
    assert np.allclose(np.log(np.asarray(table["p_value"])), np.log(summary["p"]), rtol=1e-5)
    ratio = fit.log_likelihood_ratio_test()
    assert float(got.facts["likelihood_ratio_chi2"]) == pytest.approx(ratio.test_statistic, rel=1e-8)
    wald = statsmodels.params @ np.linalg.solve(statsmodels.cov_params(), statsmodels.params)
    assert float(got.facts["wald_chi2"]) == pytest.approx(wald, rel=1e-6)
    if own:
        assert "baseline" not in got.tables
        return
    baseline_rows = pd.DataFrame(dict(got.tables["baseline"]))
    for stratum_name, rows in baseline_rows.groupby("stratum", sort=False):
        code = (ranges[strata].categories.index(stratum_name) if ranges[strata].categories else float(stratum_name)) \
            if strata else 0.0  # fmt: skip
        column = next(c for c in fit.baseline_cumulative_hazard_ if float(c if strata else 0) == code * 100) \
            if strata else fit.baseline_cumulative_hazard_.columns[0]  # fmt: skip
        theirs = fit.baseline_cumulative_hazard_[column].dropna()
        at = [t for t in rows["time"] if t in theirs.index and rows.set_index("time").loc[t, "events"] > 0]
        assert at
        assert np.allclose(rows.set_index("time").loc[at, "cumulative_hazard"], theirs.loc[at], rtol=1e-7, atol=1e-12)


@needs_data
def test_score_and_proportionality_tests_are_those_of_a_likelihood_differentiated_by_steps() -> None:
    columns, ranges = lung()
    covariates = ("age", "sex", "ecog")
    inside = complete(columns, "time", "event", *covariates)
    event = event_of(columns, ranges)[inside]
    ends = np.linspace(0, 1100, 41)[1:]
    rounded = plainly_rounded(columns["time"][inside], event, np.zeros(len(event)), ends, 5)
    got = asked(CoxRegression("time", "event", covariates, intervals=40), at_random(columns), ranges)
    X = np.stack([columns[n][inside] for n in covariates], axis=1)
    X = (X - X.mean(axis=0)) / X.std(axis=0)

    def value(b: Floats, g: Floats) -> float:
        """The log likelihood of x b + (time - mean) x g, death by death."""
        out, middle = 0.0, rounded[event > 0].mean()
        for t in np.unique(rounded[event > 0]):
            hazard, dead = np.exp(X @ (b + (t - middle) * g)), (rounded == t) & (event > 0)
            out += np.log(hazard[dead]).sum()
            for part in np.arange(dead.sum()) / dead.sum():
                out -= np.log(hazard[rounded >= t].sum() - part * hazard[dead].sum())
        return out

    def whole(v: Floats) -> float:
        return value(v[:3], v[3:] / 300)

    def derivatives(at: Floats) -> tuple[Floats, Floats]:
        h, unit = 1e-3, np.eye(len(at))
        slope = np.array([(whole(at + h * e) - whole(at - h * e)) / (2 * h) for e in unit])
        signs = ((1, 1, 1), (1, -1, -1), (-1, 1, -1), (-1, -1, 1))
        curve = [[sum(s * whole(at + h * (a * e + b * f)) for a, b, s in signs) for f in unit] for e in unit]
        return slope, -np.array(curve) / (4 * h * h)

    slope, curve = derivatives(np.zeros(6))
    score = slope[:3] @ np.linalg.solve(curve[:3, :3], slope[:3])
    assert float(got.facts["score_chi2"]) == pytest.approx(score, rel=1e-4)
    b = np.asarray(got.tables["coefficients"]["coefficient"]) * np.stack([columns[n][inside] for n in covariates]).std(
        1
    )
    slope, curve = derivatives(np.concatenate([b, np.zeros(3)]))
    left = curve[3:, 3:] - curve[3:, :3] @ np.linalg.solve(curve[:3, :3], curve[:3, 3:])
    assert float(got.facts["proportional_chi2"]) == pytest.approx(
        slope[3:] @ np.linalg.solve(left, slope[3:]), rel=1e-3
    )
    each = np.asarray(got.tables["coefficients"]["proportional_chi2"])
    assert np.allclose(each, slope[3:] ** 2 / np.diagonal(left), rtol=1e-3)


def made(
    time: Sequence[float], event: Sequence[int], **more: Sequence[float]
) -> tuple[dict[str, Floats], dict[str, Range]]:
    columns = {"time": time, "event": event, **more}
    ranges = {"time": Range(0, 100), "event": Range(0, 1), "x": Range(-4, 4), "arm": Range.of("a", "b")}
    return {n: np.array(v, dtype=np.float64) for n, v in columns.items()}, ranges


def test_where_a_likelihood_has_no_maximum_it_says_so() -> None:
    rng = np.random.default_rng(4)
    time, n = np.ceil(rng.uniform(0, 100, 80)), 80
    early = (time < 40).astype(np.float64)
    for baseline in Baseline:
        columns, ranges = made(time, early, x=early * 2 - 1)  # who has the event has x = 1, all others -1
        got = asked(CoxRegression("time", "event", ("x",), baseline=baseline), at_random(columns), ranges, 0)
        assert (got.facts["fit"], got.facts["events"]) == (NO_MAXIMUM, early.sum())
        assert np.isnan(np.asarray(got.tables["coefficients"]["hazard_ratio"])).all()
        columns, ranges = made(time, np.zeros(n), x=rng.normal(size=n))
        got = asked(CoxRegression("time", "event", ("x",), baseline=baseline), at_random(columns), ranges)
        assert (got.facts["fit"], got.facts["events"], got.facts["people"]) == (NO_EVENTS, 0, n)
        twice = rng.normal(size=n)
        columns, ranges = made(time, early, x=twice, z=2 * twice)
        asks = CoxRegression("time", "event", ("x", "z"), baseline=baseline)
        got = asked(asks, at_random(columns), {**ranges, "z": Range(-8, 8)})
        assert got.facts["fit"] == DEPENDENT


def test_all_tied_people_and_a_group_without_events() -> None:
    rng = np.random.default_rng(5)
    arm, n = rng.integers(0, 2, 90), 90
    columns, ranges = made(np.full(n, 50.0), rng.integers(0, 2, n), x=rng.normal(size=n), arm=arm)
    event = columns["event"].astype(int)
    got = asked(SurvivalCurves("time", "event", "arm"), at_random(columns), ranges)
    test = multivariate_logrank_test(columns["time"], arm, event)
    assert float(got.facts["log_rank_chi2"]) == pytest.approx(test.test_statistic, rel=EXACT)
    fit = asked(CoxRegression("time", "event", ("x",)), at_random(columns), ranges)
    want = PHReg(columns["time"], columns["x"][:, None], status=event, ties="efron").fit(disp=0)
    assert np.asarray(fit.tables["coefficients"]["coefficient"])[0] == pytest.approx(want.params[0], rel=1e-6)

    columns, ranges = made(np.ceil(rng.uniform(0, 100, n)), event * (arm == 0), x=rng.normal(size=n), arm=arm)
    got = asked(SurvivalCurves("time", "event", "arm", intervals=20), at_random(columns), ranges, 3)
    groups = got.tables["groups"]
    assert np.asarray(groups["events"]).tolist() == [columns["event"].sum(), 0]
    rows = np.asarray(got.tables["survival"]["group"]) == "b"
    assert (np.asarray(got.tables["survival"]["survival"])[rows] == 1).all()
    ends = np.linspace(0, 100, 21)[1:]
    rounded = plainly_rounded(columns["time"], columns["event"].astype(int), arm, ends, 3)
    test = multivariate_logrank_test(rounded, arm, columns["event"])
    assert float(got.facts["log_rank_chi2"]) == pytest.approx(test.test_statistic, rel=EXACT)


@pytest.mark.parametrize("minimum", [3, 5, 20])
def test_no_cell_of_a_few_people_is_shown_and_none_follows(minimum: int) -> None:
    """By brute force: over forty cohorts, each number of people in every table, and each difference of numbers at
    risk, is of nobody or of at least the minimum."""
    shown = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        n = int(rng.integers(1, 300))
        columns, ranges = made(
            np.ceil(rng.exponential(25, n)).clip(0, 100), rng.integers(0, 2, n), arm=rng.integers(0, 2, n)
        )
        columns["cause"] = columns["event"] * rng.integers(1, 3, n)
        ranges["cause"] = Range.of("none", "one", "other")
        parts = at_random(columns, seed=seed)
        curves = asked(SurvivalCurves("time", "event", "arm", intervals=50), parts, ranges, minimum)
        causes = asked(CompetingRisks("time", "cause", "arm", intervals=50), parts, ranges, minimum)
        cox = asked(CoxRegression("time", "event", (), "arm", intervals=50), parts, ranges, minimum)
        told = [float(answer.facts["people"]) for answer in (curves, causes, cox)]
        for answer in (curves, causes, cox):
            for table in answer.tables.values():
                told += [n for c in ("events", "censored", "people") for n in np.asarray(table.get(c, ())).tolist()]
                key = next((table[c] for c in ("group", "stratum") if c in table), ())
                for name in dict.fromkeys(key):
                    mine = [i for i, one in enumerate(key) if one == name and "at_risk" in table]
                    risk = [float(np.asarray(table["at_risk"])[i]) for i in mine]
                    told += [a - b for a, b in zip(risk, [*risk, 0.0][1:], strict=True)]
        assert not any(0 < number < minimum for number in told)
        shown += len(told)
    assert shown > 400


# -- competing causes --------------------------------------------------------------------------------------------------


def plain_incidence(time: Floats, way: NDArray[Any], cause: int) -> list[tuple[float, float, float]]:
    """Time, incidence and its variance, by sums over all earlier times."""
    times = np.unique(time)
    n = [float((time >= t).sum()) for t in times]
    d = [float(((time == t) & (way > 0)).sum()) for t in times]
    dk = [float(((time == t) & (way == cause)).sum()) for t in times]
    before, F, out = 1.0, 0.0, []
    lags, heights = [], []
    for j, t in enumerate(times):
        lags.append(before)
        F += before * dk[j] / n[j]
        heights.append(F)
        before *= 1 - d[j] / n[j]
        variance = 0.0
        for i in range(j + 1):
            away = F - heights[i]
            variance += away**2 * d[i] / (n[i] * (n[i] - d[i])) if n[i] > d[i] else 0.0
            variance += lags[i] ** 2 * dk[i] * (n[i] - dk[i]) / n[i] ** 3 - 2 * away * lags[i] * dk[i] / n[i] ** 2
        out.append((float(t), F, variance))
    return out


def causes_of(answer: Answer, cause: str, group: str) -> pd.DataFrame:
    rows = pd.DataFrame(dict(answer.tables["incidence"]))
    return rows[(rows["cause"] == cause) & (rows["group"] == group)].set_index("time")


@needs_data
@pytest.mark.parametrize(("by", "minimum"), [(None, 0), ("trt", 3), (None, 5)])
def test_incidences_are_lifelines_and_those_of_plain_sums(by: str | None, minimum: int) -> None:
    columns = read("pbc", {"time": "time", "outcome": "status", "trt": "trt"})
    ranges = {"time": Range(0, 4800, "d"), "outcome": Range.of("none", "transplant", "death"), "trt": Range(1, 2)}
    inside = complete(columns, *filter(None, ("time", "outcome", by)))
    time, way = columns["time"][inside], columns["outcome"][inside].astype(int)
    group = columns[by][inside] if by else np.zeros(len(time))
    ends = np.unique(time) if minimum == 0 else np.linspace(0, 4800, 49)[1:]
    asks = CompetingRisks("time", "outcome", by, ends=tuple(ends.tolist()))
    got = asked(asks, at_random(columns), ranges, minimum)
    rounded = plainly_rounded(time, way, group, ends, minimum)
    for code in np.unique(group):
        mine = group == code
        for cause in (1, 2):
            ours = causes_of(got, ranges["outcome"].categories[cause], f"{code:g}" if by else "everybody")
            for t, height, variance in plain_incidence(rounded[mine], way[mine], cause):
                assert ours.loc[t, "incidence"] == pytest.approx(height, rel=EXACT, abs=EXACT)
                assert ours.loc[t, "standard_error"] ** 2 == pytest.approx(variance, rel=1e-9, abs=1e-15)
            if AalenJohansenFitter._check_for_duplicates(rounded[mine], way[mine]):
                assert minimum, "times of different causes are tied only once they are rounded"
                continue
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # of logarithms before the first event
                theirs = AalenJohansenFitter().fit(rounded[mine], way[mine], cause)
            ours = ours.loc[np.unique(rounded[mine])]
            want = theirs.cumulative_density_.loc[ours.index].to_numpy()[:, 0]
            assert np.allclose(ours["incidence"], want, rtol=EXACT, atol=EXACT)
            told = theirs.variance_.loc[ours.index].to_numpy()
            there = np.isfinite(told) & (want > 0)  # theirs has none where all at risk have an event
            assert np.allclose(ours["standard_error"][there] ** 2, told[there], rtol=1e-9, atol=0)
            bounds = theirs.confidence_interval_.loc[ours.index].to_numpy()[there]  # their first is the lower one
            assert np.allclose(ours[["low_95", "high_95"]].to_numpy()[there], bounds, rtol=1e-9)


# -- with noise --------------------------------------------------------------------------------------------------------


@needs_data
def test_noised_curves_are_lifelines_where_there_is_no_noise_and_near_them_where_there_is() -> None:
    columns, ranges = flchain()
    question, frame = NoisedSurvival("time", "event", "sex", intervals=12), Frame(None, ranges)
    total = add(
        [question.summarise(part, frame) for part in at_random({n: columns[n] for n in ("time", "event", "sex")})]
    )
    clear = question.conclude(Total(total, ("a", "b"), {"counts": 0.0}), frame)
    exact = asked(SurvivalCurves("time", "event", "sex", intervals=12), at_random(columns), ranges, 0)
    for column in ("at_risk", "survival", "standard_error", "low_95", "high_95"):
        assert np.allclose(
            np.asarray(clear.tables["survival"][column]), np.asarray(exact.tables["survival"][column]), rtol=1e-9
        ), column
    rng, sd, away = np.random.default_rng(7), 12.0, []
    for _ in range(60):
        noise = np.rint(rng.normal(0, sd * 1024, total["counts"].shape)).astype(np.int64)
        noised = question.conclude(Total({"counts": total["counts"] + noise}, ("a", "b"), {"counts": sd}), frame)
        rows = noised.tables["survival"]
        curves = np.asarray(rows["survival"]).reshape(2, -1)
        assert (np.diff(curves, axis=1) <= 0).all()
        assert ((curves >= 0) & (curves <= 1)).all()
        low, high = (np.asarray(rows[c]).reshape(2, -1) for c in ("low_95", "high_95"))
        true = np.asarray(exact.tables["survival"]["survival"]).reshape(2, -1)
        away.append(((true > low) & (true < high)).mean())
    assert np.mean(away) > 0.95  # of noise alone: what sampling adds to the interval is not in these sixty


def test_cells_made_positive_are_the_nearest_with_the_same_sum() -> None:
    rng = np.random.default_rng(8)
    for _ in range(20):
        cells = rng.normal(1.0, 3.0, 7)
        if cells.sum() <= 0:
            assert not made_positive(cells).any()
            continue
        got = made_positive(cells)
        assert got.sum() == pytest.approx(cells.sum())

        def away(x: Floats, cells: Floats = cells) -> float:
            return float(((x - cells) ** 2).sum())

        def sum_of(x: Floats, cells: Floats = cells) -> float:
            return float(x.sum() - cells.sum())

        same = {"type": "eq", "fun": sum_of}
        want = minimize(away, np.maximum(cells, 0), bounds=[(0, None)] * 7, constraints=same)
        assert np.allclose(got, want.x, atol=1e-4)


# -- through gates -----------------------------------------------------------------------------------------------------


def institutions(merged: bool) -> dict[str, NDArray[np.bool_]]:
    """Who of the lung study is at which institution; those of fewer than five people as one if asked."""
    inst = lung()[0]["inst"]
    where = {f"I{int(code)}": inst == code for code in np.unique(inst[np.isfinite(inst)])}
    if merged:
        few = [site for site, mine in where.items() if mine.sum() < 5]
        where["FEW"] = np.logical_or.reduce([where.pop(site) for site in few])
    return where


def as_in_phreg(answer: Answer, there: NDArray[np.bool_], strata: NDArray[Any], minimum: int) -> None:
    """The lung study's hazard ratios of age and sex, within strata, of some people."""
    columns, ranges = lung()
    event = event_of(columns, ranges)[there]
    ends = np.linspace(0, 1100, 41)[1:]
    rounded = plainly_rounded(columns["time"][there], event, np.zeros(len(event)), ends, minimum)
    X = np.stack([columns["age"][there], columns["sex"][there]], axis=1)
    want = PHReg(rounded, X, status=event, strata=strata, ties="efron").fit(method="newton", tol=1e-12, disp=0)
    table = answer.tables["coefficients"]
    assert np.allclose(np.asarray(table["coefficient"]), want.params, rtol=FIT, atol=0)
    assert np.allclose(np.asarray(table["standard_error"]), want.bse, rtol=FIT, atol=0)


def places(where: Mapping[str, NDArray[np.bool_]]) -> NDArray[np.int64]:
    """(N,) each person's site, -1 for nobody's."""
    return np.select(list(where.values()), list(range(len(where))), -1)


@needs_data
@pytest.mark.parametrize("baseline", list(Baseline))
def test_lung_by_institution_with_small_ones_merged(baseline: Baseline) -> None:
    columns, ranges = lung()
    where = institutions(merged=True)
    assert min(mine.sum() for mine in where.values()) >= 5
    site = places(where)
    question = CoxRegression("time", "event", ("age", "sex"), baseline=baseline, intervals=40)
    got = asked(question, split(columns, site, len(where)), ranges)
    there = site >= 0
    assert got.facts["people"] == there.sum() == 227
    as_in_phreg(got, there, site[there] if baseline is Baseline.SITE else np.zeros(227), 5)


@needs_data
def test_lung_by_institution_through_gates_of_which_the_small_ones_refuse(tmp_path: Path) -> None:
    columns, ranges = lung()
    names, where, sites = ("time", "event", "age", "sex"), institutions(merged=False), {}
    policy = POLICY | {"minimum_people": 5, "minimum_cell": 5, "columns": {n: ranges[n].plain() for n in names}}
    for number, (site, mine) in enumerate(where.items()):
        (tmp_path / site).mkdir()
        ids = [f"{site}-{i}" for i in range(int(mine.sum()))]
        write_table(tmp_path / site / "people.tsv", ids, {n: columns[n][mine] for n in names})
        dataset = {"identifier": f"LUNG-{site}", "assembly": "GRCh37", "people": f"{site}/people.tsv"}
        sites[site] = {"country": "A" + chr(65 + number), "people": int(mine.sum()), "dataset": dataset}
    (tmp_path / "sites.toml").write_text(tomli_w.dumps({"policy": policy, "sites": sites}), encoding="utf-8")
    questions = (
        Question("curves", SurvivalCurves("time", "event", "sex", intervals=40)),
        Question("hazards", CoxRegression("time", "event", ("age", "sex"), baseline=Baseline.SITE, intervals=40)),
    )
    plain = {name: Range.from_plain(ranges[name].plain(), name) for name in names}
    study = Study("lung", Purpose.SCIENTIFIC_RESEARCH, "GRCh37", 3, plain, {}, questions)
    curves, hazards = simulate(study, tmp_path).results
    small = {site for site, mine in where.items() if mine.sum() < 5}
    assert small == {"I4", "I10", "I33"}
    site = places({name: mine for name, mine in where.items() if name not in small})
    there = site >= 0
    for result in (curves, hazards):
        assert set(result.statement.sites) == set(where) - small
        assert set(result.statement.absent) == small
        assert all("TOO_FEW_PEOPLE" in why for why in result.statement.absent.values()), result.statement.absent
        assert result.answer.facts["people"] == there.sum() == 217
    as_in_phreg(hazards.answer, there, site[there], 5)
    event, sex = event_of(columns, ranges)[there], columns["sex"][there]
    rounded = plainly_rounded(columns["time"][there], event, sex, np.linspace(0, 1100, 41)[1:], 5)
    test = multivariate_logrank_test(rounded, sex, event)
    assert float(curves.answer.facts["log_rank_chi2"]) == pytest.approx(test.test_statistic, rel=EXACT)


def test_the_grid_is_what_was_asked() -> None:
    columns, ranges = made([0.0, 10.0, 10.5, 99.0, 30.0], [1, 1, 1, 1, 0])
    for asks, want in (
        (SurvivalCurves("time", "event", step=10.0), {10.0: 2, 20.0: 1, 100.0: 1}),
        (SurvivalCurves("time", "event", ends=(5.0, 40.0)), {5.0: 1, 40.0: 2}),  # the last is followed beyond it
    ):
        got = asked(asks, [Cohort(5, columns=columns)], ranges, 0)
        rows = got.tables["survival"]
        told = zip(np.asarray(rows["time"]).tolist(), np.asarray(rows["events"]).tolist(), strict=True)
        assert {t: n for t, n in told if n} == want
    with pytest.raises(ValueError, match="step or ends"):
        replace(SurvivalCurves("time", "event", step=10.0), ends=(1.0,))

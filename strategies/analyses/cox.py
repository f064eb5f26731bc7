"""Cox regression on a public time grid: hazard ratios of covariates, ties by Efron, baselines pooled or of each site.

A first round counts who leaves in each interval, with the event and without, and measures the covariates. Intervals
are joined until no cell is of a few people (`strategies.time_grid`), and standardised covariates z follow. Then each
round sums at the coordinator's last estimate b, until Newton's method with halved steps has found the maximum.

With one baseline for all sites, people add exp(z b) times (1, z, zz') to the joined interval in which they leave, and
those with the event once more to the events' sums; who is at risk follows by running sums. A stratum with a small cell
in all withholds everything. With a baseline of its own for each site, and each stratum in it, a site works out its own
partial likelihood, gradient and information, and these are summed; nobody sees a site's interval, and no estimate of
the baseline is made. Both are equal to what tools give for the rounded times, the latter with sites as strata.

A likelihood without a maximum, where a covariate puts the events in order, is said to have none [1].

[1] Heinze, Schemper: A solution to the problem of monotone likelihood in Cox regression, Biometrics 57 (2001).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy import special

from strategies import likelihood
from strategies.analyses.allele_frequency import NORMAL_95
from strategies.analysis import (
    CARRIED,
    DERIVED,
    KEPT,
    NAMES_ANY_COLUMN,
    NAMES_CASES,
    NAMES_COLUMN,
    NAMES_GROUPS,
    WHOLE,
    Answer,
    Column,
    Frame,
    Needs,
    Total,
)
from strategies.cohort import Cohort
from strategies.covariates import Covariates
from strategies.groups import names_in, places_in
from strategies.hits import bounded
from strategies.partial_likelihood import Efron, tail
from strategies.privacy import Regime
from strategies.protections.suppression import WITHHELD
from strategies.summary import Field, Summary
from strategies.time_grid import Joined, TimeGrid, check_grid, check_size, coarsened, counted, known

MOST_STEPS = 25
CONVERGED = 1e-9
"""The longest part of a step that is the last, in log hazards per standard deviation."""

SEPARATED = 10.0
"""Log hazards per standard deviation beyond which the likelihood is taken to have no maximum."""

LEVEL = 1e4
"""So many people's log likelihoods are told apart as finely as `likelihood.FLAT`; those of more are rounded more."""

INDEPENDENT = 1e-9
"""The smallest eigenvalue of the covariates' information at b = 0, scaled to a diagonal of 1."""

SUM_BITS = 48
MOST_PEOPLE = 2**40

Floats = NDArray[np.float64]

FITTED, NO_EVENTS = "converged", "no events"
NO_MAXIMUM = "no maximum: a covariate puts the events in order (monotone likelihood)"
DEPENDENT = "none: covariates explain one another among those at risk"


class Baseline(StrEnum):
    """Whose hazard covariates multiply."""

    POOLED = "pooled"
    SITE = "site"


def _empty(*shape: int) -> Floats:
    return np.zeros(shape)


@dataclass(frozen=True)
class CoxRegression:
    """Hazard ratios of covariates.

    Attributes:
        time, event: as `SurvivalCurves` has them.
        covariates: names of columns: numbers, or categories, each of which is compared with the first.
        strata: name of a column of groups with a baseline each.
        baseline: one for the people of all sites, or one for each site.
        intervals, step, ends: the grid, as `TimeGrid.of` takes it.
        taken: rounds taken.
        people: with all columns.
        centre, scale: mean and deviation of each term in units of half its range.
        estimate: b, per standard deviation.
        ways: (T,) which intervals' ends times are rounded up to, as `Joined` has it; J of them.
        counts: (S, J, 2) who left at each, without the event and with it.
        search: (1, k + 1) what the next step needs of those before.
        null: log likelihood at b = 0, and the score test's chi-square there.
    """

    analysis: ClassVar[str] = "cox"
    regime: ClassVar[Regime] = Regime.EXACT
    by_site: ClassVar[bool] = False
    summary_in_words: ClassVar[str] = (
        "numbers of people who left in each interval of time, with the event and without; then, in each round, sums "
        "over them of relative hazards times products of covariates in each joined interval, or each site's gradient "
        "and information"
    )

    time: str = field(metadata=NAMES_COLUMN)
    event: str = field(metadata=NAMES_CASES)
    covariates: tuple[str, ...] = field(default=(), metadata=NAMES_ANY_COLUMN)
    strata: str | None = field(default=None, metadata=NAMES_GROUPS)
    baseline: Baseline = Baseline.POOLED
    intervals: int = 100
    step: float | None = None
    ends: tuple[float, ...] = ()
    taken: int = field(default=0, metadata=DERIVED)
    people: int = field(default=0, metadata=DERIVED)
    centre: tuple[float, ...] = field(default=(), metadata=DERIVED)
    scale: tuple[float, ...] = field(default=(), metadata=DERIVED)
    estimate: tuple[float, ...] = field(default=(), metadata=DERIVED)
    ways: NDArray[np.int64] = field(
        default_factory=lambda: np.zeros(0, dtype=np.int64), compare=False, metadata=CARRIED
    )
    counts: NDArray[np.int64] = field(
        default_factory=lambda: np.zeros((0, 0, 2), dtype=np.int64), compare=False, metadata=KEPT
    )
    search: Floats = field(default_factory=lambda: _empty(1, 0), compare=False, metadata=KEPT)
    null: Floats = field(default_factory=lambda: _empty(2), compare=False, metadata=KEPT)

    def __post_init__(self) -> None:
        columns = self.needs().columns
        if len(set(columns)) != len(columns):
            raise ValueError("time, event, covariates and strata must be different columns.")
        check_grid(self.intervals, self.step, self.ends)
        Joined(self.ways)
        if not (0 <= self.taken <= MOST_STEPS and 0 <= self.people <= MOST_PEOPLE):
            raise ValueError("A round is one of those that were announced, over some people.")
        self._covariates.check(len(self.estimate))
        if not all(abs(b) <= 2 * SEPARATED for b in self.estimate):
            raise ValueError("Log hazards are within their bounds.")

    def needs(self) -> Needs:
        return Needs(columns=tuple(filter(None, (self.time, self.event, *self.covariates, self.strata))))

    def rounds(self) -> int:
        return 1 + MOST_STEPS

    def fraction(self) -> float:
        return 0.0

    def slices(self, frame: Frame) -> tuple[slice, ...]:
        return WHOLE

    # -- what the rounds share --------------------------------------------------------------------------------------

    @property
    def _covariates(self) -> Covariates:
        return Covariates(np.array(self.centre), np.array(self.scale))

    @property
    def _b(self) -> Floats:
        return np.array(self.estimate, dtype=np.float64)

    @property
    def _joined(self) -> Joined:
        return Joined(self.ways)

    @property
    def _bits(self) -> int:
        """Fraction bits of the sums: those of N people with products of 64 on average are below 2^54."""
        return SUM_BITS - self.people.bit_length()

    def _grid(self, frame: Frame) -> TimeGrid:
        return TimeGrid.of(self.time, frame.columns[self.time], self.intervals, self.step, self.ends)

    def cuts(self, frame: Frame) -> Mapping[str, tuple[float, ...]]:
        return {self.time: self._grid(frame).cuts}

    def _strata(self, frame: Frame) -> int:
        return len(names_in(self.strata, frame))

    def _terms(self, frame: Frame) -> list[tuple[str, list[str]]]:
        """Each covariate's terms: itself, or its categories but the first."""
        out = []
        for name in self.covariates:
            span = frame.columns[name]
            out.append((name, [f"{name} {c}" for c in span.categories[1:]] or [name]))
        return out

    def _unit(self, cohort: Cohort, frame: Frame, inside: NDArray[np.bool_]) -> Floats:
        """(n, k) terms in [-1, 1]; of a category 1 is yes and -1 is no."""
        out = [_empty(int(inside.sum()), 0)]
        for name in self.covariates:
            span, values = frame.columns[name], cohort.columns[name][inside]
            places = np.arange(1, len(span.categories))
            out.append(np.where(values[:, None] == places, 1.0, -1.0) if len(places) else span.unit(values)[:, None])
        return np.concatenate(out, axis=1)

    def _corners(self, frame: Frame) -> list[Floats]:
        """For each covariate the (V, its terms) values at the ends of its range, or of all its categories."""
        out, start = [], 0
        for name, terms in self._terms(frame):
            span = slice(start, start := start + len(terms))
            places = np.arange(1, len(frame.columns[name].categories))
            unit = np.array([[-1.0], [1.0]])
            if len(places):
                unit = np.where(np.arange(len(places) + 1)[:, None] == places, 1.0, -1.0)
            out.append((unit - np.array(self.centre)[span]) / np.array(self.scale)[span])
        return out

    # -- what leaves --------------------------------------------------------------------------------------------------

    def leaves(self, frame: Frame) -> dict[str, Field]:
        grid, strata, k = self._grid(frame), self._strata(frame), sum(len(terms) for _, terms in self._terms(frame))
        if not self.taken:
            told = strata if self.baseline is Baseline.POOLED else 1
            check_size((told, len(grid), 2))
            words = "people who left in each interval, without the event and with it"
            return {"counts": Field((1, told, len(grid), 2), words, 1, 1), **Covariates.leaves(k)}
        if len(self.estimate) != k or len(self.ways) != len(grid):
            raise ValueError(
                "A round has an estimate of each term, and says of each interval who is rounded to its end."
            )
        shape = (strata, len(self._joined.ends))
        check_size((*shape, (k + 1) * (k + 2)))
        corners, b, people = self._corners(frame), self._b, Field((), "people", 1, 1)
        farthest = np.concatenate([np.ones(1), *(np.abs(c).max(axis=0) for c in corners)])
        cuts = np.cumsum([0, *(c.shape[1] for c in corners)])
        reach = [(c @ b[start:stop]) for c, (start, stop) in zip(corners, pairwise(cuts), strict=True)]
        if self.baseline is Baseline.SITE:
            spans = np.concatenate([_empty(0), *(np.ptp(c, axis=0) for c in corners)])
            held = self._held(spans, sum(float(np.ptp(r)) for r in reach))
            texts = ("log likelihood", "its gradient", "its negative second derivatives")
            return {
                name: replace(bounded(f"each site's partial {text}", 2 * most, self._bits), over="within")
                for (name, most), text in zip(held.items(), texts, strict=True)
            } | {"people": people}
        with np.errstate(over="ignore"):
            heaviest = np.exp(sum(float(r.max()) for r in reach))
            most = np.outer(farthest, farthest)
            for c, start in zip(corners, cuts.tolist(), strict=False):
                inner = slice(1 + start, 1 + start + c.shape[1])
                most[inner, inner] = np.abs(c[:, :, None] * c[:, None, :]).max(axis=0)
            upper = heaviest * most[np.triu_indices(1 + k)]
        words = "relative hazards times products of covariates"
        return {
            "leaving": bounded(f"{words}, of those who leave", upper, self._bits, shape=(*shape, len(upper))),
            "events": bounded(f"{words}, of those with the event", upper, self._bits, shape=(*shape, len(upper))),
            "columns": bounded("covariates of those with the event", farthest[1:], self._bits, shape=(*shape, k)),
            "people": people,
        }

    def _held(self, spans: Floats, odds: float) -> dict[str, Floats]:
        """What no site's part exceeds, from how far apart two people can be: so many deaths as there are people."""
        i, j = np.triu_indices(len(spans))
        each = odds + math.log(self.people + 1)
        return {
            "likelihood": np.array(self.people * each),
            "gradient": self.people * spans,
            "information": self.people * spans[i] * spans[j],
        }

    def summarise(self, cohort: Cohort, frame: Frame) -> Summary:
        inside, grid, fields = cohort.complete, self._grid(frame), self.leaves(frame)
        at, beyond = grid.places(cohort.columns[self.time][inside])
        event = (frame.columns[self.event].unit(cohort.columns[self.event][inside]) > 0) & ~beyond
        stratum, unit = places_in(self.strata, frame, cohort, inside), self._unit(cohort, frame, inside)
        if not self.taken:
            if self.baseline is Baseline.SITE:
                stratum = np.zeros_like(stratum)
            places = (np.zeros_like(at), stratum, at, event.astype(np.int64))
            return {"counts": counted(places, fields["counts"].shape), **Covariates.sums(unit)}
        from strategies.kernels import hazards  # noqa: PLC0415  (numba loads where it is used)

        joined, shape = self._joined.rounded(at, event), (self._strata(frame), len(self._joined.ends))
        cells = stratum * shape[1] + joined
        parts = hazards.sums(self._covariates.across(unit), cells, event, self._b, self._bits, math.prod(shape))
        leaving, dying, columns = (part.reshape(*shape, part.shape[1]) for part in parts)
        people = np.array(len(at), dtype=np.int64)
        if self.baseline is Baseline.POOLED:
            return {"leaving": leaving, "events": dying, "columns": columns, "people": people}
        deaths = counted((stratum, joined, event.astype(np.int64)), (*shape, 2))[..., 1]
        own = Efron.of(leaving, dying, columns, deaths, self._b, self._bits)
        numbers = {
            "likelihood": np.array(own.value if math.isfinite(own.value) else -np.inf),
            "gradient": own.gradient,
            "information": own.whole[np.triu_indices(len(self.estimate))],
        }
        corners = self._corners(frame)
        cuts = np.cumsum([0, *(c.shape[1] for c in corners)])
        odds = sum(float(np.ptp(c @ self._b[a:b])) for c, (a, b) in zip(corners, pairwise(cuts), strict=True))
        held = self._held(np.concatenate([_empty(0), *(np.ptp(c, axis=0) for c in corners)]), odds)
        return {
            name: fields[name].integers(np.clip(values, -held[name], held[name])) for name, values in numbers.items()
        } | {"people": people}

    # -- what follows -------------------------------------------------------------------------------------------------

    def withhold(self, sums: Summary, minimum_cell: int) -> Summary:
        if self.taken:  # who may be told was seen to before
            return sums
        counts = coarsened(sums["counts"], minimum_cell)
        if not known(counts)[0].all():
            return {name: np.full_like(array, WITHHELD) for name, array in sums.items()}
        return {**sums, "counts": counts}

    def conclude(self, total: Total, frame: Frame) -> Answer | CoxRegression:
        held = self.withhold(total.sums, total.minimum_cell)
        if not self.taken:
            return self._started(held, frame)
        fields, k = self.leaves(frame), len(self.estimate)
        found: Efron | None = None
        if self.baseline is Baseline.POOLED:
            deaths = self.counts[..., 1]
            found = Efron.of(held["leaving"], held["events"], held["columns"], deaths, self._b, self._bits)
            value, gradient, information = found.value, found.gradient, found.whole
        else:
            values = {name: fields[name].values(held[name]) for name in ("likelihood", "gradient", "information")}
            value, gradient, information = float(values["likelihood"]), values["gradient"], _empty(k, k)
            i, j = np.triu_indices(k)
            information[i, j] = information[j, i] = values["information"]
        if not k:
            return self._answer(frame, FITTED, self._b, _empty(0, 0), value, found)
        following = self
        if self.taken == 1:
            scale = np.sqrt(np.maximum(np.diagonal(information), 1e-300))
            if not np.linalg.eigvalsh(information / np.outer(scale, scale))[0] > INDEPENDENT:
                return self._answer(frame, DEPENDENT, None, None, value, found)
            score = float(gradient @ np.linalg.solve(information, gradient))
            following = replace(self, null=np.array([value, score]))
        level = np.array([value / (1 + self.people / LEVEL)])
        step = likelihood.newton(self._b[None], self.search, gradient[None], information[None], level, watched=k)
        b = step.following[0]
        if step.lost[0] or np.abs(b).max() > SEPARATED or (self.taken == MOST_STEPS and not step.done[0]):
            return following._answer(frame, NO_MAXIMUM, None, None, value, found)
        if step.done[0] and (np.abs(b - self._b).max() < CONVERGED or self.taken == MOST_STEPS):
            return following._answer(frame, FITTED, b, step.inverse[0], value, found)
        return replace(following, taken=self.taken + 1, estimate=tuple(b.tolist()), search=step.search)

    def _started(self, held: Summary, frame: Frame) -> Answer | CoxRegression:
        if (held["counts"] == WITHHELD).all():
            return self._answer(frame, "withheld", None, None, math.nan, None)
        joined, fields = Joined.of(held["counts"]), self.leaves(frame)
        counts = known(held["counts"])[1][0][:, joined.ends]
        people, names = int(counts.sum()), tuple(t for _, terms in self._terms(frame) for t in terms)
        following = replace(self, people=people, ways=joined.ways, counts=counts)
        if not counts[..., 1].any():
            return following._answer(frame, NO_EVENTS, None, None, math.nan, None)
        values = {name: fields[name].values(held[name]) for name in fields if name != "counts"}
        measured = Covariates.of(names, values, people)
        nothing = _empty(len(names))
        return replace(
            following,
            taken=1,
            centre=tuple(measured.centre.tolist()),
            scale=tuple(measured.scale.tolist()),
            estimate=tuple(nothing.tolist()),
            search=likelihood.beginning(nothing[None]),
        )

    def _answer(
        self, frame: Frame, fit: str, b: Floats | None, inverse: Floats | None, value: float, found: Efron | None
    ) -> Answer:
        terms = [(term, frame.columns[name]) for name, own in self._terms(frame) for term in own]
        k, withheld = len(terms), fit == "withheld"
        half = np.array([0.5 if s.categories else (s.maximum - s.minimum) / 2 for _, s in terms])
        per = np.array(self.scale) * half if b is not None else np.full(k, np.nan)
        beta = np.full(k, np.nan) if b is None else b / per
        error = np.full(k, np.nan) if inverse is None else np.sqrt(np.diagonal(inverse)) / per
        z = beta / error
        with np.errstate(over="ignore"):
            ratios = [np.exp(beta + width * error) for width in (0.0, -NORMAL_95, NORMAL_95)]
        coefficients: dict[str, Column] = {
            "term": tuple(term for term, _ in terms),
            "coefficient": beta,
            "standard_error": error,
            **dict(zip(("hazard_ratio", "low_95", "high_95"), ratios, strict=True)),
            "z": z,
            "p_value": 2 * special.ndtr(-np.abs(z)),
        }
        tables = {"coefficients": coefficients}
        counts, fitted = self.counts, fit == FITTED
        null, score = self.null if k else (value, 0.0)
        wald = float(b @ np.linalg.solve(inverse, b)) if b is not None and inverse is not None and k else math.nan
        chi2 = {"likelihood_ratio": 2 * (value - null), "wald": wald, "score": score}
        facts: dict[str, float | int | str] = {
            "people": math.nan if withheld else int(counts.sum()),
            "events": math.nan if withheld else int(counts[..., 1].sum()),
            "fit": fit,
            "intervals": len(self._grid(frame)),
            "intervals_shown": counts.shape[1],
            "rounds": self.taken + 1,
            "log_likelihood": value if fitted else math.nan,
            "log_likelihood_null": float(null) if fitted else math.nan,
            "degrees": k,
        }
        for name, number in chi2.items():
            told = float(number) if fitted and k else math.nan
            facts |= {f"{name}_chi2": told, f"{name}_p_value": float(tail(told, k))}
        if fitted and found is not None:
            times = self._grid(frame).ends[self._joined.ends]
            tables["baseline"] = self._baseline(names_in(self.strata, frame), times, found)
            tests, degrees = found.proportional(times, counts[..., 1])
            p = tail(tests, degrees)
            coefficients |= {"proportional_chi2": tests[:k], "proportional_p_value": p[:k]}
            facts |= {"proportional_chi2": float(tests[k]), "proportional_p_value": float(p[k])} if k else {}
        coefficients["withheld"] = np.full(k, withheld)
        return Answer(tables, facts, k if withheld else 0)

    def _baseline(self, names: tuple[str, ...], times: Floats, found: Efron) -> dict[str, Column]:
        """Breslow's cumulative hazard of somebody with every term at its mean over all people."""
        deaths = self.counts[..., 1].astype(np.float64)
        at_risk = np.cumsum(self.counts.sum(axis=-1)[:, ::-1], axis=1)[:, ::-1]
        hazard = np.cumsum(np.where(deaths > 0, deaths / np.where(found.risk > 0, found.risk, 1.0), 0.0), axis=1)
        s, j = deaths.shape
        return {
            "stratum": tuple(name for name in names for _ in range(j)),
            "time": np.tile(times, s),
            "at_risk": at_risk.ravel(),
            "events": deaths.ravel(),
            "cumulative_hazard": hazard.ravel(),
            "survival": np.exp(-hazard).ravel(),
        }


def draw_hazards(answer: Answer, axes: Any) -> str:
    """Draw each term's hazard ratio with its 95 % interval; returns the figure in words."""
    table = answer.tables["coefficients"]
    names = tuple(table["term"])
    ratio, low, high = (np.asarray(table[n], dtype=np.float64) for n in ("hazard_ratio", "low_95", "high_95"))
    at = -np.arange(len(names))
    axes.axvline(1.0, color="C2", linewidth=1, linestyle=(0, (3, 2)))
    axes.hlines(at, low, high, color="C0", linewidth=1.6)
    axes.plot(ratio, at, "o", color="C0", markersize=6)
    if np.isfinite(ratio).any():
        axes.set_xscale("log")
        axes.xaxis.get_major_locator().set_params(subs=(1, 2, 5))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()
    axes.set_yticks(at, names)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(-len(names) + 0.4, 0.6)
    axes.set_xlabel("hazard ratio, 95 % interval")
    if not np.isfinite(ratio).any():
        return f"Hazard ratios of {len(names)} terms: there are none, or they are withheld."
    told = ", ".join(f"{name} {r:.2f}" for name, r in zip(names, ratio, strict=True) if np.isfinite(r))
    return f"Hazard ratios with 95 % intervals: {told}."

"""Survival by group: Kaplan-Meier curves on a public time grid, medians, restricted means, and a log-rank test.

Sites send how many people of each group left in each interval of the grid, with the event or without. All else follows
at the coordinator. Intervals are first joined until no number that is shown is of a few people, see
`strategies.time_grid`, and all is computed on what is left; a group with few events or few leavers in all is withheld.
The test's strata are not shown apart, and only the groups' numbers decide which intervals are joined.

The private form is `strategies.analyses.noised_survival`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from strategies.analysis import NAMES_CASES, NAMES_COLUMN, NAMES_GROUPS, WHOLE, Answer, Column, Frame, Needs, Total
from strategies.cohort import Cohort
from strategies.errors import UsageError
from strategies.groups import names_in, places_in
from strategies.labels import unit_of, with_unit
from strategies.privacy import Regime
from strategies.product_limit import LogRank, Survival, log_rank, median, restricted_mean
from strategies.summary import Field, Summary
from strategies.time_grid import Joined, TimeGrid, check_grid, check_size, coarsened, counted, known

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class SurvivalCurves:
    """Kaplan-Meier curves of groups, and the test that they are one.

    Attributes:
        time: name of the column of times from the same beginning, such as months since diagnosis.
        event: name of the column whose upper half of the public range is the event; all others were alive when last
            seen.
        by: name of a column of groups; None for one curve of everybody.
        strata: name of a column of groups within which the log-rank test compares.
        intervals, step, ends: the grid over the time's range, as `TimeGrid.of` takes it; step or ends before
            intervals.
        restricted_at: up to when mean times are taken; None for the last end at which each group has people at risk.
    """

    analysis: ClassVar[str] = "survival"
    regime: ClassVar[Regime] = Regime.EXACT
    by_site: ClassVar[bool] = False
    summary_in_words: ClassVar[str] = (
        "for each interval of time and group, numbers of people who left with the event and without"
    )

    time: str = field(metadata=NAMES_COLUMN)
    event: str = field(metadata=NAMES_CASES)
    by: str | None = field(default=None, metadata=NAMES_GROUPS)
    strata: str | None = field(default=None, metadata=NAMES_GROUPS)
    intervals: int = 100
    step: float | None = None
    ends: tuple[float, ...] = ()
    restricted_at: float | None = None

    def __post_init__(self) -> None:
        if len(set(self._columns)) != len(self._columns):
            raise ValueError("time, event, by and strata must be different columns.")
        if self.restricted_at is not None and not (self.restricted_at > 0 and math.isfinite(self.restricted_at)):
            raise ValueError("restricted_at must be above 0.")
        check_grid(self.intervals, self.step, self.ends)

    @property
    def _columns(self) -> tuple[str, ...]:
        return tuple(filter(None, (self.time, self.event, self.by, self.strata)))

    def needs(self) -> Needs:
        return Needs(columns=self._columns)

    def rounds(self) -> int:
        return 1

    def fraction(self) -> float:
        return 0.0

    def slices(self, frame: Frame) -> tuple[slice, ...]:
        return WHOLE

    def _grid(self, frame: Frame) -> TimeGrid:
        return TimeGrid.of(self.time, frame.columns[self.time], self.intervals, self.step, self.ends)

    def cuts(self, frame: Frame) -> Mapping[str, tuple[float, ...]]:
        return {self.time: self._grid(frame).cuts}

    def leaves(self, frame: Frame) -> dict[str, Field]:
        grid = self._grid(frame)
        if self.restricted_at is not None and self.restricted_at > grid.ends[-1]:
            raise UsageError(
                "Mean times are taken up to a time on the grid.",
                f"restricted_at {self.restricted_at:g}, the grid ends at {grid.ends[-1]:g}",
                "choose an earlier one.",
            )
        strata, groups = (len(names_in(name, frame)) for name in (self.strata, self.by))
        shape = (strata, groups, len(grid), 2)
        check_size(shape)
        return {"counts": Field(shape, "people who left in each interval, without the event and with it", 1, 1)}

    def summarise(self, cohort: Cohort, frame: Frame) -> Summary:
        inside, grid = cohort.complete, self._grid(frame)
        at, beyond = grid.places(cohort.columns[self.time][inside])
        event = (frame.columns[self.event].unit(cohort.columns[self.event][inside]) > 0) & ~beyond
        strata, groups = (places_in(name, frame, cohort, inside) for name in (self.strata, self.by))
        places = (strata, groups, at, event.astype(np.int64))
        return {"counts": counted(places, self.leaves(frame)["counts"].shape)}

    def withhold(self, sums: Summary, minimum_cell: int) -> Summary:
        return {"counts": coarsened(sums["counts"], minimum_cell)}

    def conclude(self, total: Total, frame: Frame) -> Answer:
        counts = self.withhold(total.sums, total.minimum_cell)["counts"]
        grid, names, ends = self._grid(frame), names_in(self.by, frame), Joined.of(counts).ends
        shown, whole = known(counts)
        cells = whole[:, shown][:, :, ends].astype(np.float64)
        told, stops = cells.sum(axis=0), grid.ends[ends]
        events, leaving = told[..., 1], told.sum(axis=-1)
        curve = Survival.of(events, leaving)
        until = self.restricted_at or last_at_risk(curve.risk, stops)
        table = {
            "people": leaving.sum(axis=1),
            "events": events.sum(axis=1),
            "censored": told[..., 0].sum(axis=1),
            **spread_of(curve, stops, until, grid.start),
        }
        test = log_rank(cells[..., 1], cells.sum(axis=-1))
        table |= {"expected_events": test.expected}
        groups: dict[str, Column] = {
            "group": names,
            **{name: _filled(values, shown) for name, values in table.items()},
            "withheld": ~shown,
        }
        facts: dict[str, float | int | str] = {
            "people": float(leaving.sum()) if shown.any() else math.nan,
            "events": float(events.sum()) if shown.any() else math.nan,
            **unit_of(frame.columns[self.time]),
            "intervals": len(grid),
            "intervals_shown": len(ends) if shown.any() else 0,
            "restricted_at": until,
            **_tested(test),
        }
        some = tuple(name for name, there in zip(names, shown, strict=True) if there)
        rows = curve_rows(some, stops, curve)
        rows["events"], rows["censored"] = events.ravel(), told[..., 0].ravel()
        return Answer({"survival": rows, "groups": groups}, facts, int((~shown).sum()))


def last_at_risk(risk: Floats, stops: Floats) -> float:
    """The last end at which each of (G, J) groups with people still has some at risk; NaN without any."""
    there = (risk[risk[:, 0] > 0] > 0).all(axis=0) if risk.size else np.zeros(0, dtype=bool)
    return float(stops[np.flatnonzero(there)[-1]]) if there.any() and (risk > 0).any() else math.nan


def spread_of(
    curve: Survival, stops: Floats, until: float, start: float, log_noise: Floats | float = 0.0
) -> dict[str, Floats]:
    """(G,) medians with their 95 % intervals, where those of the curve reach a half, and restricted means."""
    low, high = curve.interval(log_noise)
    mean, error = restricted_mean(curve, stops, until, start)
    there = curve.risk[:, :1].max(axis=1, initial=0) > 0
    return {
        "median": median(curve.survival, stops),
        "median_low_95": median(np.where(np.isnan(low), 0.0, low), stops),
        "median_high_95": median(np.where(np.isnan(high), 0.0, high), stops),
        "restricted_mean": np.where(there, mean, np.nan),
        "restricted_mean_error": np.where(there, error, np.nan),
    }


def curve_rows(
    names: tuple[str, ...], stops: Floats, curve: Survival, log_noise: Floats | float = 0.0
) -> dict[str, Column]:
    """The rows of a table of curves: group after group, each of (J,) rounded times."""
    j, g = len(stops), len(names)
    low, high = curve.interval(log_noise)
    return {
        "group": tuple(name for name in names for _ in range(j)),
        "time": np.tile(stops, g),
        "at_risk": curve.risk.ravel(),
        "survival": curve.survival.ravel(),
        "standard_error": curve.errors(log_noise).ravel(),
        "low_95": low.ravel(),
        "high_95": high.ravel(),
    }


def _filled(values: Floats, shown: NDArray[np.bool_]) -> Floats:
    out = np.full(len(shown), np.nan)
    out[shown] = values
    return out


def _tested(test: LogRank) -> dict[str, float | int | str]:
    return {"log_rank_chi2": test.chi2, "log_rank_degrees": test.degrees, "log_rank_p_value": test.p_value}


# -- figures -----------------------------------------------------------------------------------------------------------


def draw_curves(answer: Answer, axes: Any) -> str:
    """Draw each group's survival with its 95 % interval, and how many are at risk beneath; returns it in words."""
    table = answer.tables["survival"]
    names = list(dict.fromkeys(table["group"]))
    group = np.asarray(table["group"])
    numbers = {n: np.asarray(v, dtype=np.float64) for n, v in table.items() if n != "group"}
    last = float(numbers["time"].max(initial=1.0))
    ticks = np.linspace(0.0, last, 5)
    told = []
    for place, name in enumerate(names):
        rows = group == name
        ends, survival, low, high, risk = (
            numbers[n][rows] for n in ("time", "survival", "low_95", "high_95", "at_risk")
        )
        colour, style = f"C{place % 3}", ("-", (0, (5, 2)), (0, (2, 1.5)))[place // 3 % 3]
        at = np.concatenate([[0.0], ends])
        axes.step(at, np.append(1.0, survival), where="post", color=colour, linestyle=style, linewidth=1.6, label=name)
        axes.fill_between(
            at, np.append(1.0, low), np.append(1.0, high), step="post", color=colour, alpha=0.15, linewidth=0
        )
        for tick in ticks:
            later = np.flatnonzero(ends > tick - 1e-9)
            text = f"{float(risk[later[0]]) if len(later) else 0.0:.0f}"
            axes.text(tick, -0.24 - 0.085 * place, text, transform=axes.get_xaxis_transform(), ha="center",
                      va="top", fontsize=9, color=colour)  # fmt: skip
        axes.text(-0.02, -0.24 - 0.085 * place, name[:14], transform=axes.transAxes, ha="right", va="top", fontsize=9,
                  color=colour)  # fmt: skip
        told.append(f"{name} ends at {survival[-1]:.2f}" if len(survival) else f"{name} has none")
    axes.set_xlim(0, last)
    axes.set_ylim(0, 1.02)
    axes.set_xticks(ticks, [f"{t:g}" for t in np.round(ticks, 2)])
    axes.set_xlabel(f"{with_unit('time', answer)}; people at risk below")
    axes.set_ylabel("survival")
    if len(names) > 1:
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    if not told:
        return "Survival curves: every group is withheld, so none is drawn."
    return f"Survival curves of {len(names)} groups with 95 % intervals and numbers at risk: {', '.join(told)}."

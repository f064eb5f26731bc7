"""Competing risks by group: the cumulative incidence of each cause on a public time grid, by Aalen and Johansen.

One event ends what can be seen of a person, and there are several kinds of it. The incidence of a cause is the part of
all people who have had it by then, others having had another before; one minus Kaplan-Meier would count these as if
they could still have it. Sites send how many people of each group left in each interval, by which cause or none; joined
intervals and withheld groups are those of `strategies.analyses.survival`, with each cause a cell of its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from strategies.analysis import NAMES_CATEGORIES, NAMES_COLUMN, NAMES_GROUPS, WHOLE, Answer, Column, Frame, Needs, Total
from strategies.cohort import Cohort
from strategies.groups import names_in, places_in
from strategies.labels import unit_of, with_unit
from strategies.privacy import Regime
from strategies.product_limit import Incidence
from strategies.summary import Field, Summary
from strategies.time_grid import Joined, TimeGrid, check_grid, check_size, coarsened, counted, known


@dataclass(frozen=True)
class CompetingRisks:
    """Cumulative incidences of the causes of an outcome.

    Attributes:
        time: name of the column of times from the same beginning.
        outcome: name of a column of categories: the first is none, alive without an event when last seen; each other is
            a cause.
        by: name of a column of groups; None for everybody.
        intervals, step, ends: the grid, as `TimeGrid.of` takes it.
    """

    analysis: ClassVar[str] = "competing_risks"
    regime: ClassVar[Regime] = Regime.EXACT
    by_site: ClassVar[bool] = False
    summary_in_words: ClassVar[str] = (
        "for each interval of time and group, numbers of people who left by each cause and without an event"
    )

    time: str = field(metadata=NAMES_COLUMN)
    outcome: str = field(metadata=NAMES_CATEGORIES)
    by: str | None = field(default=None, metadata=NAMES_GROUPS)
    intervals: int = 100
    step: float | None = None
    ends: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        columns = self.needs().columns
        if len(set(columns)) != len(columns):
            raise ValueError("time, outcome and by must be different columns.")
        check_grid(self.intervals, self.step, self.ends)

    def needs(self) -> Needs:
        return Needs(columns=tuple(filter(None, (self.time, self.outcome, self.by))))

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
        ways = len(frame.columns[self.outcome].categories)
        shape = (1, len(names_in(self.by, frame)), len(self._grid(frame)), ways)
        check_size(shape)
        return {"counts": Field(shape, "people who left in each interval, without an event and by each cause", 1, 1)}

    def summarise(self, cohort: Cohort, frame: Frame) -> Summary:
        inside = cohort.complete
        at, beyond = self._grid(frame).places(cohort.columns[self.time][inside])
        way = np.where(beyond, 0, cohort.columns[self.outcome][inside].astype(np.int64))
        places = (np.zeros_like(at), places_in(self.by, frame, cohort, inside), at, way)
        return {"counts": counted(places, self.leaves(frame)["counts"].shape)}

    def withhold(self, sums: Summary, minimum_cell: int) -> Summary:
        return {"counts": coarsened(sums["counts"], minimum_cell)}

    def conclude(self, total: Total, frame: Frame) -> Answer:
        counts = self.withhold(total.sums, total.minimum_cell)["counts"]
        grid, names, ends = self._grid(frame), names_in(self.by, frame), Joined.of(counts).ends
        shown, cells = known(counts)
        told = cells[0, shown][:, ends].astype(np.float64)
        causes, by_cause = frame.columns[self.outcome].categories[1:], np.moveaxis(told, -1, 0)
        found = Incidence.of(by_cause[1:], told.sum(axis=-1))
        low, high = found.interval()
        some = tuple(name for name, there in zip(names, shown, strict=True) if there)
        j = len(ends)
        rows: dict[str, Column] = {
            "cause": tuple(cause for cause in causes for _ in range(j * len(some))),
            "group": tuple(name for _ in causes for name in some for _ in range(j)),
            "time": np.tile(grid.ends[ends], len(causes) * len(some)),
            "at_risk": np.tile(found.risk.ravel(), len(causes)),
            "events": by_cause[1:].ravel(),
            "incidence": found.incidence.ravel(),
            "standard_error": np.sqrt(found.variance).ravel(),
            "low_95": low.ravel(),
            "high_95": high.ravel(),
        }
        groups: dict[str, Column] = {"group": names}
        for name, people in (
            ("people", told.sum(axis=(1, 2))),
            ("censored", told[..., 0].sum(axis=1)),
            *((f"events_{cause}", by_cause[k + 1].sum(axis=1)) for k, cause in enumerate(causes)),
        ):
            column = np.full(len(names), np.nan)
            column[shown] = people
            groups[name] = column
        groups["withheld"] = ~shown
        facts: dict[str, float | int | str] = {
            "people": float(told.sum()) if shown.any() else math.nan,
            **unit_of(frame.columns[self.time]),
            "intervals": len(grid),
            "intervals_shown": j if shown.any() else 0,
        }
        return Answer({"incidence": rows, "groups": groups}, facts, int((~shown).sum()))


def draw_incidence(answer: Answer, axes: Any) -> str:
    """Draw the cumulative incidence of each cause and group with its 95 % interval; returns the figure in words."""
    table = answer.tables["incidence"]
    cause, group = np.asarray(table["cause"]), np.asarray(table["group"])
    ends, height, low, high = (
        np.asarray(table[n], dtype=np.float64) for n in ("time", "incidence", "low_95", "high_95")
    )
    styles, told = ("-", (0, (5, 2)), (0, (2, 1.5)), (0, (6, 1.5, 1, 1.5))), []
    groups = list(dict.fromkeys(table["group"]))
    for k, one in enumerate(dict.fromkeys(table["cause"])):
        for g, other in enumerate(groups):
            rows = (cause == one) & (group == other)
            at, name = np.append(0.0, ends[rows]), one if len(groups) == 1 else f"{one}, {other}"
            look = {"color": f"C{g % 3 if len(groups) > 1 else k % 3}", "linestyle": styles[k % 4]}
            axes.step(at, np.append(0.0, height[rows]), where="post", linewidth=1.6, label=name, **look)
            axes.fill_between(
                at, np.append(0.0, low[rows]), np.append(0.0, high[rows]), step="post", color=look["color"],
                alpha=0.13, linewidth=0,
            )  # fmt: skip
            told.append(f"{name} {height[rows][-1]:.2f}")
    axes.set_xlim(0, float(ends.max(initial=1.0)))
    axes.set_ylim(0, None)
    axes.set_xlabel(with_unit("time", answer))
    axes.set_ylabel("cumulative incidence")
    if not told:
        return "Cumulative incidences: every group is withheld, so none is drawn."
    axes.legend(loc="upper left", fontsize=9)
    return f"Cumulative incidences with 95 % intervals; at the end {', '.join(told)}."

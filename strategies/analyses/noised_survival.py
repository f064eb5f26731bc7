"""Survival by group with noise: a Kaplan-Meier curve of noised numbers of people on a coarse public grid.

A person is in one cell of group, interval and way to leave, so one cell changes by one [1]. Noised numbers are made
numbers of people first: the nearest cells to them, in least squares, that are not negative and have the same sum, group
by group [2, Norm-Sub]. At risk are those who leave later, by running sums; so survival falls from 1 and stays above 0.

The interval's variance is Greenwood's and that of the noise, by the delta method through the running sums; what making
cells positive changes is left out of it. Choose few intervals: each of them adds to the noise of all before it. No test
compares the groups: its statistic's law under noise is none that is tabulated.

[1] Gondara, Wang: Differentially private survival function estimation, MLHC 2020.
[2] Wang, Lopuhaa-Zwakenberg, Li, Skoric, Li: Locally differentially private frequency estimation with consistency,
    NDSS 2020, section IV.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from strategies.analyses.survival import Floats, curve_rows, last_at_risk, spread_of
from strategies.analysis import NAMES_ANY_COLUMN, NAMES_COLUMN, WHOLE, Answer, Frame, Needs, Total
from strategies.cohort import Cohort
from strategies.groups import names_in, places_in
from strategies.labels import unit_of
from strategies.privacy import Regime
from strategies.product_limit import Survival
from strategies.summary import COUNT_BITS, Field, Summary
from strategies.time_grid import TimeGrid, check_grid, check_size, counted


@dataclass(frozen=True)
class NoisedSurvival:
    """Kaplan-Meier curves of groups, from noised numbers of people.

    Attributes:
        time, event, by: as `SurvivalCurves` has them.
        intervals, step, ends: the grid, as `TimeGrid.of` takes it.
    """

    analysis: ClassVar[str] = "survival"
    regime: ClassVar[Regime] = Regime.PRIVATE
    by_site: ClassVar[bool] = True
    summary_in_words: ClassVar[str] = (
        "for each interval of time and group, noised numbers of people who left with the event and without, per site"
    )

    time: str = field(metadata=NAMES_COLUMN)
    event: str = field(metadata=NAMES_COLUMN)
    by: str | None = field(default=None, metadata=NAMES_ANY_COLUMN)
    intervals: int = 20
    step: float | None = None
    ends: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        columns = self.needs().columns
        if len(set(columns)) != len(columns):
            raise ValueError("time, event and by must be different columns.")
        check_grid(self.intervals, self.step, self.ends)

    def needs(self) -> Needs:
        return Needs(columns=tuple(filter(None, (self.time, self.event, self.by))))

    def rounds(self) -> int:
        return 1

    def fraction(self) -> float:
        return 1.0

    def slices(self, frame: Frame) -> tuple[slice, ...]:
        return WHOLE

    def _grid(self, frame: Frame) -> TimeGrid:
        return TimeGrid.of(self.time, frame.columns[self.time], self.intervals, self.step, self.ends)

    def leaves(self, frame: Frame) -> dict[str, Field]:
        shape = (len(names_in(self.by, frame)), len(self._grid(frame)), 2)
        check_size(shape)
        words = "people who left in each interval, without the event and with it"
        return {"counts": Field(shape, words, 1, 1, COUNT_BITS)}

    def summarise(self, cohort: Cohort, frame: Frame) -> Summary:
        inside = cohort.complete
        at, beyond = self._grid(frame).places(cohort.columns[self.time][inside])
        event = (frame.columns[self.event].unit(cohort.columns[self.event][inside]) > 0) & ~beyond
        places = (places_in(self.by, frame, cohort, inside), at, event.astype(np.int64))
        return {"counts": counted(places, self.leaves(frame)["counts"].shape) << COUNT_BITS}

    def withhold(self, sums: Summary, minimum_cell: int) -> Summary:
        return sums

    def conclude(self, total: Total, frame: Frame) -> Answer:
        names, grid, noise = names_in(self.by, frame), self._grid(frame), total.noise.get("counts", 0.0)
        noised = self.leaves(frame)["counts"].values(total.sums["counts"])
        cells = np.stack([made_positive(one.ravel()).reshape(one.shape) for one in noised])
        events, leaving = cells[..., 1], cells.sum(axis=-1)
        curve = Survival.of(events, leaving)
        log_noise = noise**2 * noised_log(events, curve.risk)
        until = last_at_risk(curve.risk, grid.ends)
        people = noised.sum(axis=(1, 2))
        people_noise = noise * math.sqrt(2 * len(grid))
        rows = curve_rows(names, grid.ends, curve, log_noise)
        rows["events"], rows["censored"] = events.ravel(), cells[..., 0].ravel()
        groups = {
            "group": names,
            "people": people,
            "people_noise_sd": np.full(len(names), people_noise),
            "events": noised[..., 1].sum(axis=1),
            "events_noise_sd": np.full(len(names), people_noise / math.sqrt(2)),
            **spread_of(curve, grid.ends, until, grid.start, log_noise),
        }
        del groups["restricted_mean_error"]  # of sampling alone, it would be too small
        facts: dict[str, float | int | str] = {
            "people": float(people.sum()),
            "people_noise_sd": people_noise * math.sqrt(len(names)),
            "cell_noise_sd": noise,
            **unit_of(frame.columns[self.time]),
            "intervals": len(grid),
            "restricted_at": until,
        }
        return Answer({"survival": rows, "groups": groups}, facts)


def made_positive(cells: Floats) -> Floats:
    """The nearest cells that are not negative and have the same sum; nobody where the sum is not above 0.

    >>> made_positive(np.array([3.0, -1.0, 1.0, 0.0])).tolist()
    [2.5, 0.0, 0.5, 0.0]
    """
    total = float(cells.sum())
    if not total > 0:
        return np.zeros_like(cells)
    falling = np.sort(cells)[::-1]
    excess = (np.cumsum(falling) - total) / np.arange(1, len(cells) + 1)
    kept: Floats = np.maximum(cells - excess[np.flatnonzero(falling > excess)[-1]], 0.0)
    return kept


def noised_log(events: Floats, risk: Floats) -> Floats:
    """(G, J) variance of log survival that noise of variance 1 in each cell makes.

    A person who leaves in s is at risk up to s: with h = d / (n (n - d)), log S(t) changes by the sum of h over the
    intervals up to t before s, less 1 / n_s for an event in s <= t, or up to s for somebody without one.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        h = np.where(risk > events, events / (risk * (risk - events)), np.inf)
        one = np.where(risk > 0, 1 / risk, np.inf)
    h, one = np.where(np.isfinite(h), h, 1.0), np.where(np.isfinite(one), one, 1.0)
    up_to = np.cumsum(h, axis=1)
    before = up_to - h
    intervals = risk.shape[1]
    later = np.arange(intervals - 1, -1, -1)
    out: Floats = np.cumsum((before - one) ** 2 + up_to**2, axis=1) + 2 * later * up_to**2
    return out

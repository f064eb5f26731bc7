"""Time on a public grid: in which interval somebody's time ends, and which intervals are shown as one.

Times are rounded up to the end of the interval they fall in: who has the event in an interval has it at its end; who
leaves it without one is at risk through it. That is the convention of a product limit on tied times [1, section 1.4],
so estimates equal those of any tool that is given the rounded times.

Intervals are open to the left: a time on an end belongs to what ends there. A time of the range's minimum falls into
the first. Who is followed beyond the last end counts as without an event there; the range's maximum ends the grid
unless ends are given that stop before it. A node clamps times to the public range, so declare it wide enough.

[1] Kalbfleisch, Prentice: The Statistical Analysis of Failure Time Data, 2nd edition (2002).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from strategies.analysis import Range
from strategies.errors import UsageError
from strategies.protections.suppression import PROFILES, WITHHELD, check_profile, small

MOST_INTERVALS = 2000
MOST_CELLS = 400_000
"""Of a table of strata, groups, intervals and ways to leave."""

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class TimeGrid:
    """T intervals of time.

    Attributes:
        start: where the first begins.
        ends: (T,) where each ends, ascending, in the time's unit.
    """

    start: float
    ends: Floats

    @staticmethod
    def of(column: str, span: Range, intervals: int, step: float | None, ends: tuple[float, ...]) -> TimeGrid:
        """The grid over a column's range: so many intervals, or as long ones as stated, or with these ends.

        Raises:
            UsageError: if that is no grid over it.

        >>> TimeGrid.of("months", Range(0, 10), 100, 4.0, ()).ends.tolist()
        [4.0, 8.0, 12.0]
        """
        low, high = span.minimum, span.maximum
        if ends:
            if not low < ends[0] or not ends[-1] <= high:
                raise UsageError(
                    "The ends of a time grid lie within the column's range, the first above its lowest value.",
                    f"ends from {ends[0]:g} to {ends[-1]:g}, {column!r} has {span!s:.200}",
                    "choose others, or declare a wider range.",
                )
            return TimeGrid(low, np.array(ends))
        if step is None:
            return TimeGrid(low, np.linspace(low, high, intervals + 1)[1:].astype(np.float64))
        number = math.ceil((high - low) / step - 1e-9) if step * MOST_INTERVALS >= high - low else 0
        if not 1 <= number <= MOST_INTERVALS:
            raise UsageError(
                f"A time grid has at most {MOST_INTERVALS} intervals.",
                f"steps of {step:g} over {span!s:.200}",
                "choose a longer step.",
            )
        return TimeGrid(low, low + step * np.arange(1, number + 1, dtype=np.float64))

    def __len__(self) -> int:
        return len(self.ends)

    @property
    def cuts(self) -> tuple[float, ...]:
        """The lowest times that lie beyond each end.

        >>> TimeGrid(0.0, np.array([1.0, 2.0])).cuts
        (1.0000000000000002, 2.0000000000000004)
        """
        return tuple(np.nextafter(self.ends, np.inf).tolist())

    def places(self, times: Floats) -> tuple[Counts, NDArray[np.bool_]]:
        """(n,) the interval in which each time ends, and whether it goes beyond the last end.

        >>> TimeGrid(0.0, np.array([1.0, 2.0])).places(np.array([0.0, 1.0, 1.5, 2.5]))
        (array([0, 0, 1, 1]), array([False, False, False,  True]))
        """
        at = np.searchsorted(self.ends, times, side="left").astype(np.int64)
        beyond = at == len(self.ends)
        return np.where(beyond, len(self.ends) - 1, at), beyond


def check_grid(intervals: int, step: float | None, ends: tuple[float, ...]) -> None:
    """Assert that a question states a grid.

    Raises:
        ValueError: if it does not, or states two.
    """
    if not 1 <= intervals <= MOST_INTERVALS:
        raise ValueError(f"intervals must be from 1 to {MOST_INTERVALS}.")
    if step is not None and not (step > 0 and math.isfinite(step)):
        raise ValueError("step must be above 0.")
    if step is not None and ends:
        raise ValueError("give step or ends, not both.")
    if len(ends) > MOST_INTERVALS or not all(map(math.isfinite, ends)) or list(ends) != sorted(set(ends)):
        raise ValueError(f"ends must ascend, at most {MOST_INTERVALS} of them.")


def check_size(shape: tuple[int, ...]) -> None:
    """Assert that a table of strata, groups, intervals and ways to leave is not too large.

    Raises:
        UsageError: if it is.
    """
    if math.prod(shape) > MOST_CELLS:
        raise UsageError(
            f"Strata, groups, intervals and ways to leave make a table of at most {MOST_CELLS:,} cells.",
            " times ".join(map(str, shape)),
            "choose a coarser grid, or fewer groups.",
        )


# -- intervals that are shown as one -----------------------------------------------------------------------------------


def coarsened(counts: Counts, minimum: int) -> Counts:
    """Counts with `WITHHELD` in each interval that is joined to a later one, which holds the sum of both.

    Intervals are joined for those with an event: from the first on, until each cell is of nobody or of at least the
    minimum; what is left at the end joins those before it. What came of it is joined further for those without an
    event, who so are at risk through all events that are rounded past the time at which they left, and few of whom do
    not make the events coarse. Which are joined follows from the totals alone, and an interval in which nobody leaves
    is joined to none but in between. No number of people at risk tells more, since from one end to the next it falls by
    cells that are shown. A group that has a small number of somebody in all cannot be shown, and is withheld all over.
    A higher minimum withholds what a lower one does: each profile starts from what the one before withheld.

    Args:
        counts: (S, G, T, K) people of each group who left in each interval, without an event (0) and by each kind of
            event; or what this function made of them. S strata are not shown apart: a cell is of all of them.
        minimum: one of the profiles.

    >>> censored, deaths = [0, 4, 0, 0, 5], [1, 2, 0, 3, 1]
    >>> coarsened(np.array([[np.stack([censored, deaths], axis=1)]]), 3)[0, 0].T == WITHHELD
    array([[ True, False, False,  True, False],
           [ True, False, False,  True, False]])
    """
    check_profile(minimum)
    for level in PROFILES[1 : PROFILES.index(minimum) + 1]:
        counts = _coarsened(counts, level)
    return counts


def _coarsened(counts: Counts, minimum: int) -> Counts:
    shown, cells = known(counts)
    shown &= ~small(cells.sum(axis=(0, 2)), minimum).any(axis=1)
    out = np.full_like(counts, WITHHELD)
    if shown.any():
        ends = np.arange(counts.shape[2])
        for ways in (slice(1, None), slice(0, 1)):
            before = ends[(counts[:, :, ends, ways] != WITHHELD).any(axis=(0, 1, 3))]
            mine = cells[:, shown][..., ways]
            ends = before[_joined(np.moveaxis(_sums(mine, before).sum(axis=0), 1, 0), minimum)]
            out[..., ways][np.ix_(np.arange(len(out)), shown, ends)] = _sums(mine, ends)
    return out


def _joined(blocks: Counts, minimum: int) -> list[int]:
    """The last blocks of those that are joined, of (B, ...) people in each block."""
    closed, people = list[tuple[int, Counts]](), np.zeros_like(blocks[0])
    for at, block in enumerate(blocks):
        people = people + block
        if not small(people, minimum).any():
            closed.append((at, people))
            people = np.zeros_like(people)
    while small(people, minimum).any():
        people = people + closed.pop()[1]
    return sorted({*(at for at, _ in closed), len(blocks) - 1})


def _sums(counts: Counts, ends: Counts) -> Counts:
    """(S, G, J, K) people up to each end, from the one before on."""
    return np.diff(np.cumsum(counts, axis=2)[:, :, ends], axis=2, prepend=0)


def known(counts: Counts) -> tuple[NDArray[np.bool_], Counts]:
    """(G,) which groups are shown, and the (S, G, T, K) counts with nobody where one is withheld."""
    hidden = counts == WITHHELD
    return ~hidden.all(axis=(0, 2, 3)), np.where(hidden, 0, counts)


def counted(at: tuple[Counts, ...], shape: tuple[int, ...]) -> Counts:
    """How many people are in each cell of a table, from their places along each of its axes."""
    flat = np.ravel_multi_index(at, shape)
    return np.bincount(flat, minlength=math.prod(shape)).reshape(shape).astype(np.int64)


@dataclass(frozen=True, eq=False)
class Joined:
    """Which intervals' ends times are rounded up to, once some are joined.

    Attributes:
        ways: (T,) 2 where everybody's times end, 1 where those with an event do, 0 where nobody's.
    """

    ways: Counts

    def __post_init__(self) -> None:
        whole = self.ways.ndim == 1 and self.ways.dtype == np.int64 and ((self.ways >= 0) & (self.ways <= 2)).all()
        if not whole or (len(self.ways) and self.ways[-1] != 2):
            raise ValueError("Joined intervals end at 1 or 2, and the last at 2.")

    @staticmethod
    def of(counts: Counts) -> Joined:
        """From (S, G, T, K) counts as `coarsened` makes them; of none if all of them are withheld."""
        there = (counts != WITHHELD).any(axis=(0, 1))
        if not there.any():
            return Joined(np.zeros(0, dtype=np.int64))
        return Joined(there[:, 0].astype(np.int64) + there[:, 1:].any(axis=1))

    @property
    def ends(self) -> Counts:
        """(J,) the intervals at whose ends times may end."""
        return np.flatnonzero(self.ways)

    def rounded(self, at: Counts, event: NDArray[np.bool_]) -> Counts:
        """(n,) which of the J ends each time is rounded up to.

        >>> Joined(np.array([1, 0, 2, 2])).rounded(np.array([0, 0, 1, 1]), np.array([False, True, False, True]))
        array([1, 0, 1, 1])
        """
        number = np.cumsum(self.ways > 0) - 1
        some, everybody = (
            number[ends[np.searchsorted(ends, at)]] for ends in (self.ends, np.flatnonzero(self.ways > 1))
        )
        return np.where(event, some, everybody)

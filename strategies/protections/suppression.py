"""Small numbers: what an exact answer does not show. A rule against careless tables, not a defence against membership
inference: no minimum is, and the report measures by how much.

Rules, for a minimum of k people:

* *both tails*: a cell of 1 to k - 1 people is withheld, and so is one whose complement within a margin is of that size.
  A cell of nobody is shown, unless the margin itself is small;
* *complementary cells*: every withheld cell stays uncertain by at least k, given all that is shown and that no cell is
  negative; see `hidden_cells`;
* *dominance*: a sum is withheld that one person's contribution could make up to more than p per cent;
* *holders*: in a total, a variant that fewer than three sites hold, since two sites know each other's part.

That a cell is withheld is itself shown, and tells that it, or one beside it, is small.

[1] Hundepool et al.: Statistical Disclosure Control (2012), sections 4.2 (dominance) and 4.4.2 (hypercube method).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import combinations, product

import numpy as np
from numpy.typing import NDArray

from strategies.summary import Summary

PROFILES = (0, 3, 5, 10, 20)
"""The minimums of people in a cell that a policy may name; 0 is for public data."""

LEAST_HOLDERS = 3
"""With two sites behind a number, each learns the other's part."""

WITHHELD = -(2**63)
"""What stands in a summary for a number that is withheld; no sum over people comes near it."""

Axes = tuple[str, ...]
Table = NDArray[np.int64]


def check_profile(minimum: int) -> None:
    """Assert that a minimum is one of the profiles.

    Raises:
        ValueError: if it is none.
    """
    if minimum not in PROFILES:
        raise ValueError(f"minimum_cell must be one of {', '.join(map(str, PROFILES))} (0 for public data).")


def small(people: Table, minimum: int) -> NDArray[np.bool_]:
    """Whether each number of people is at least one but below the minimum."""
    return np.asarray((people > 0) & (people < minimum))


def small_cells(cells: Iterable[Table], minimum: int) -> NDArray[np.bool_]:
    """(M,) whether any of a row's cells shows at least one person but fewer than the minimum.

    The cells must be *all* cells that people fall into, so that a small complement is seen as well; the whole row is
    then withheld, so that no cell follows from the others.

    >>> small_cells([np.array([0, 3, 9]), np.array([12, 9, 3])], 5).tolist()
    [False, True, True]
    """
    out: NDArray[np.bool_] = np.any([small(c, minimum) for c in cells], axis=0)
    return out


def held_by_few(holders: Table, sites: int) -> NDArray[np.bool_]:
    """(M,) whether fewer than three sites hold a variant of a total. One site's own part is no total.

    Args:
        holders: (M,) number of sites at which somebody's genotype is observed.
        sites: number of sites in the sum.
    """
    return (holders < LEAST_HOLDERS) & (sites > 1)


def replaced(sums: Summary, names: Iterable[str], rows: NDArray[np.bool_], by: int) -> Summary:
    """The sums with one number all over some of the rows (the first axes, which `rows` runs over) of named arrays."""
    out = dict(sums)
    for name in names:
        out[name] = np.array(sums[name])
        out[name][rows] = by
    return out


def dominated(sums: NDArray[np.float64], people: Table, low: float, high: float, percent: float) -> NDArray[np.bool_]:
    """Whether one person could make up more than `percent` of a sum: the (n, k) rule of [1] with n = 1.

    A federated sum hides the largest contribution, so what it can be at most is taken: of n contributions in the
    public range [low, high] with the sum s, no one exceeds min(high, s - (n - 1) low). It is withheld more often than
    by the contributions themselves, never less often.

    Args:
        sums, people: (M,) sums of a magnitude, and the number of people behind each.
        low, high: the public range of a contribution, from 0.

    Raises:
        ValueError: if a contribution may be negative: a share of the sum means nothing then.

    >>> dominated(np.array([100.0, 100.0]), np.array([3, 30]), 0.0, 40.0, 35.0).tolist()
    [True, True]
    >>> dominated(np.array([100.0, 1000.0]), np.array([3, 30]), 25.0, 40.0, 51.0).tolist()
    [False, False]
    """
    if not 0 <= low <= high:
        raise ValueError("Dominance is about magnitudes: contributions within [low, high], low at least 0.")
    largest = np.minimum(high, sums - (people - 1) * low)
    return (people > 0) & (100 * largest > percent * sums)


# -- tables with margins ----------------------------------------------------------------------------------------------


def with_margins(tables: Mapping[Axes, Table]) -> dict[Axes, Table]:
    """Tables of the same people and all their margins, each once.

    Args:
        tables: names of a table's axes -> counts. Tables that name the same axis are linked by it.

    Returns:
        names of axes in alphabetic order -> counts; () is the number of people.

    Raises:
        ValueError: if two tables disagree on a common margin: they are not of the same people.

    >>> for axes, counts in with_margins({("sex", "age"): np.array([[4, 6], [1, 9]])}).items():
    ...     print(axes, counts.tolist())
    ('age', 'sex') [[4, 1], [6, 9]]
    ('sex',) [10, 10]
    ('age',) [5, 15]
    () 20
    """
    out: dict[Axes, Table] = {}
    for axes, table in tables.items():
        for size in range(len(axes), -1, -1):
            for kept in combinations(axes, size):
                counts = table.sum(axis=tuple(i for i, name in enumerate(axes) if name not in kept), dtype=np.int64)
                margin = np.transpose(counts, sorted(range(size), key=kept.__getitem__))
                if not np.array_equal(out.setdefault(tuple(sorted(kept)), margin), margin):
                    raise ValueError("Linked tables are of the same people: they agree on their common margins.")
    return out


def hidden_cells(tables: Mapping[Axes, Table], minimum: int) -> dict[Axes, NDArray[np.bool_]]:
    """Which cells of tables and margins are withheld, so that none can be worked out from those shown.

    Besides the small ones (both tails, in margins too) others are withheld, until each withheld cell lies on a *move*:
    people who change place along some axes, all else of them alike, and so change withheld cells alone. In one table it
    is the hypercube of [1]; along linked tables and withheld margins it runs through all of them. If d people can move
    one way and e the other before a cell is empty, each cell of the move may hold anything in a span of d + e: at least
    the minimum, for whoever sees all other cells and margins and knows this rule. Somebody who is in the table knows
    one person more. Which move is taken is a heuristic (the fewest people newly withheld); the best is NP-hard to find.

    A higher minimum shows nothing that a lower one withholds: each profile starts from what the one before withholds.

    Args:
        tables: as `with_margins` takes them.
        minimum: one of the profiles.

    Returns:
        the axes of `with_margins(tables)` -> whether each cell is withheld.

    Raises:
        ValueError: as `with_margins`, or if the minimum is no profile.

    >>> hidden_cells({("age", "sex"): np.array([[3, 9, 8], [7, 6, 8], [9, 9, 9]])}, 5)["age", "sex"].astype(int)
    array([[1, 1, 0],
           [1, 1, 0],
           [0, 0, 0]])
    """
    check_profile(minimum)
    counts = with_margins(tables)
    grid = _Grid(counts)
    for level in PROFILES[1 : PROFILES.index(minimum) + 1]:
        grid.withhold_small(level)
        grid.protect(level)
    return {axes: hidden.reshape(counts[axes].shape) for axes, hidden in grid.hidden.items()}


class _Grid:
    """Tables and margins over all their axes, of length 1 where a table has not that axis, and what is withheld."""

    def __init__(self, counts: Mapping[Axes, Table]) -> None:
        self.axes = sorted({name for names in counts for name in names})
        lengths = {name: n for names, c in counts.items() for name, n in zip(names, c.shape, strict=True)}
        self.counts = {
            names: c.reshape([lengths[a] if a in names else 1 for a in self.axes]) for names, c in counts.items()
        }
        self.hidden = {names: np.zeros(c.shape, dtype=bool) for names, c in self.counts.items()}

    def withhold_small(self, minimum: int) -> None:
        for names, cells in self.counts.items():
            self.hidden[names] |= small(cells, minimum)
            for name in names:
                margin = self.counts[tuple(n for n in names if n != name)]
                self.hidden[names] |= small(margin - cells, minimum)

    def protect(self, minimum: int) -> None:
        safe = {names: np.zeros(c.shape, dtype=bool) for names, c in self.counts.items()}
        for names, place in [(n, tuple(p)) for n, h in self.hidden.items() for p in np.argwhere(h).tolist()]:
            if not safe[names][place]:
                moved, other = self._cheapest_move(names, place, minimum)
                for table, cells, _ in self._corners(names, moved, place, other):
                    self.hidden[table][cells] = safe[table][cells] = True

    def _cheapest_move(self, names: Axes, place: tuple[int, ...], minimum: int) -> tuple[Axes, tuple[int, ...]]:
        """The axes along which people move, and the move's other end, also along axes beside `names`."""
        best: tuple[float, Axes, tuple[int, ...]] | None = None
        for moved in (m for size in range(len(names) + 1) for m in combinations(names, size)):
            cost, leaving, coming = np.zeros(1), np.full(1, np.inf), np.full(1, np.inf)
            for table, cells, sign in self._corners(names, moved, place, None):
                people = self.counts[table][cells].astype(np.float64)
                cost = cost + np.where(self.hidden[table][cells], 0.0, people + 1)
                if sign > 0:
                    leaving = np.minimum(leaving, people)
                else:
                    coming = np.minimum(coming, people)
            cost = np.where(leaving + coming >= minimum, cost, np.inf)
            for name in moved:  # a move has two ends
                at = self.axes.index(name)
                np.moveaxis(cost, at, 0)[place[at]] = np.inf
            chosen = np.unravel_index(int(np.argmin(cost)), cost.shape)
            if best is None or cost[chosen] < best[0]:
                best = float(cost[chosen]), moved, tuple(int(i) for i in chosen)
        assert best is not None, "people may always be added everywhere, which withholds every table's total"
        return best[1], best[2]

    def _corners(
        self, names: Axes, moved: Axes, place: tuple[int, ...], other: tuple[int, ...] | None
    ) -> Iterable[tuple[Axes, tuple[slice, ...], int]]:
        """The cells that a move changes, and by which sign: of one `other` end, or (None) of all of them at once."""
        for table in self.counts:
            if not set(moved) <= set(table):
                continue
            for ends in product((0, 1), repeat=len(moved)):
                far = {name for name, end in zip(moved, ends, strict=True) if end}
                cells = []
                for at, name in enumerate(self.axes):
                    if name not in table:
                        cells.append(slice(None))
                    elif name in names and name not in far:
                        cells.append(slice(place[at], place[at] + 1))
                    else:
                        cells.append(slice(None) if other is None else slice(other[at], other[at] + 1))
                yield table, tuple(cells), 1 - 2 * (sum(ends) % 2)

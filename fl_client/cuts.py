"""Where an exact answer told people of one crowd apart, so that no two answers tell of the few between two cuts.

An answer that tells people at or above a point of a column from those below has *cut* there: at the edges of a
histogram, the ends of a time grid, the knots of a spline, between two groups, or between cases and controls. Points are
the study's. Two answers with a cut at 50 and one at 50.001 differ by whoever lies in between, so a node remembers,
beside each crowd, where it was cut and who lay where.

What an answer tells of one column is a run of cells: who lies below a cut, between two, or at and above one. Every run
is held against every whole crowd that others were asked about, and against every run of another answer's cells of the
same column, within each group by which both tell them, and each answer's groups against the other's people. Two are far
enough apart where they are the same people or differ by at least k; where they have nobody in common; and, of one
crowd, where nobody is in neither. What is passed over, so that studies on the same edges can be answered at all:

- of two crowds that differ by at least k, runs whose borders both answers have, though they may differ by fewer;
- in one crowd, a run of which both borders are also borders of the other answer: it is made of that answer's own cells,
  which small-cell rules withhold; nothing compares what the two withhold;
- cuts of different columns. Columns that nodes compute from answers are all taken for one, of different axes: what
  they hold is the coordinator's word. Derived ones are the policy's, word for word, and each is a column of its own.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fl_client.splits import Split
from strategies.codec import canonical
from strategies.wire import pack_parts, unpack_parts

COMPUTED = "."
"""Stands for the name of any column that nodes compute from an answer: how is the coordinator's word."""

QUICK = 1
"""zlib's level."""

Numbers = NDArray[np.uint16]
"""(B,) one for each person, by number in the register."""


@dataclass(frozen=True, eq=False)
class Cuts:
    """Those of one column in one exact answer. P = cuts.

    Attributes:
        crowd: name of the crowd.
        column: the column's name, or how it is derived, or COMPUTED.
        ucum: unit of the points.
        points: (P,) ascending.
        groups: by which columns' cells the answer told these, and how many each has.
        cells: in which cell a person lies, from 1; 0 for who is in none.
        group: in which combination of groups, from 0.
    """

    crowd: str
    column: str
    ucum: str
    points: tuple[float, ...]
    groups: tuple[tuple[str, int], ...]
    cells: Numbers
    group: Numbers

    @staticmethod
    def of(crowd: str, split: Split, numbers: NDArray[np.int64]) -> Cuts:
        """From how a crowd's people are told apart, and their numbers in the register."""
        cells, group = np.zeros((2, int(numbers.max(initial=-1)) + 1), dtype=np.uint16)
        cells[numbers] = np.where(split.group < 0, 0, split.cells + 1)
        group[numbers] = np.maximum(split.group, 0)
        column = split.derivation or (COMPUTED if "." in split.name else split.name)
        return Cuts(crowd, column, split.ucum, split.points, split.groups, cells, group)

    def plain(self) -> tuple[bytes, bytes, bytes]:
        """As bytes, the same for the same."""
        head: Mapping[str, object] = {
            "crowd": self.crowd,
            "column": self.column,
            "ucum": self.ucum,
            "points": list(self.points),
            "groups": [list(pair) for pair in self.groups],
        }
        return canonical(head), self.cells.astype("<u2").tobytes(), self.group.astype("<u2").tobytes()

    def pack(self) -> bytes:
        """As fewer bytes."""
        head, *numbers = self.plain()
        return pack_parts([head, *(zlib.compress(one, QUICK) for one in numbers)])

    @staticmethod
    def unpack(data: bytes) -> Cuts:
        """What `pack` packed."""
        head, *packed = unpack_parts(data)
        told = json.loads(head)
        points, groups = tuple(map(float, told["points"])), tuple((str(n), int(size)) for n, size in told["groups"])
        cells, group = (np.frombuffer(zlib.decompress(one), dtype="<u2") for one in packed)
        return Cuts(told["crowd"], told["column"], told["ucum"], points, groups, cells, group)

    def singles_out(self, earlier: Cuts, least: int) -> bool:
        """Whether these cuts, beside an earlier answer's of the same column, tell about 1 to `least` - 1 persons."""
        size = max(len(self.cells), len(earlier.cells))
        mine, theirs = (np.pad(one.cells, (0, size - len(one.cells))).astype(np.int64) for one in (self, earlier))
        shape = len(self.points) + 2, len(earlier.points) + 2
        nested = self.crowd == earlier.crowd and np.array_equal(mine > 0, theirs > 0)
        known = _same_people(_joint(mine, theirs, shape)) if nested else self._corresponding(earlier)
        left, right = np.asarray(known.any(axis=1)), np.asarray(known.any(axis=0))
        if (left.all() and right.all()) or (nested and (left.all() or right.all())):
            return False
        common = tuple(group for group in self.groups if group in earlier.groups)
        mixed = [(self.groups, ()), ((), earlier.groups)]
        for here, there in [((), ()), (common, common), *mixed]:
            codes, others = self._codes(here, size), earlier._codes(there, size)
            alike = here == there
            for a, b in _in_groups(np.where(mine > 0, codes, -1), np.where(theirs > 0, others, -1), alike):
                joint = _joint(np.where(a, mine, 0), np.where(b, theirs, 0), shape)
                people = int(joint.sum() - joint[0, 0]) if nested and alike else -1
                if _few_apart(joint, left, right, nested, people, least):
                    return True
        return False

    def singles_out_beside(self, inside: NDArray[np.bool_], least: int) -> bool:
        """Whether these cuts, beside an answer about another crowd, tell about 1 to `least` - 1 persons.

        Args:
            inside: who is in that crowd, by number in the register.
        """
        size = max(len(self.cells), len(inside))
        mine = np.pad(self.cells, (0, size - len(self.cells))).astype(np.int64)
        held = np.pad(inside, (0, size - len(inside))).astype(np.int64)
        none = np.zeros(len(self.points) + 2, dtype=bool)
        whole = none.copy()
        whole[[0, -1]] = True  # all cells are the crowd itself, which was held against that crowd
        codes = self._codes(self.groups, size)
        for group in [None, *np.unique(codes[mine > 0])] if self.groups else [None]:
            joint = _joint(mine if group is None else np.where(codes == group, mine, 0), held, (len(whole), 2))
            left = whole if group is None else none
            if _few_apart(joint, left, np.ones(2, dtype=bool), False, -1, least):
                return True
        return False

    def _corresponding(self, other: Cuts) -> NDArray[np.bool_]:
        """(P + 2, Q + 2) which borders here and there are the same, by what is said of them. To which side of one a
        value on it belongs is left aside: cases lie above a middle that groups are halfway to."""
        out = np.zeros((len(self.points) + 2, len(other.points) + 2), dtype=bool)
        out[0, 0] = out[-1, -1] = True
        if self.column == other.column != COMPUTED and self.ucum == other.ucum:
            out[1:-1, 1:-1] = np.isclose(np.array(self.points)[:, None], other.points, rtol=1e-15, atol=0.0)
        return out

    def _codes(self, groups: tuple[tuple[str, int], ...], size: int) -> NDArray[np.int64]:
        """(size,) in which combination of some of the groups each person is."""
        out, rest = np.zeros(size, dtype=np.int64), np.pad(self.group, (0, size - len(self.group))).astype(np.int64)
        place = {}
        for name in reversed(self.groups):
            rest, place[name] = np.divmod(rest, name[1])
        for name in groups:
            out = out * name[1] + place[name]
        return out


def _joint(mine: NDArray[np.int64], theirs: NDArray[np.int64], shape: tuple[int, int]) -> NDArray[np.int64]:
    """People by cell here and there."""
    return np.bincount(mine * shape[1] + theirs, minlength=shape[0] * shape[1]).reshape(shape).astype(np.int64)


def _same_people(joint: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(P + 2, Q + 2) whether nobody lies between a border here and one there, of one crowd."""
    below = np.pad(joint[1:, 1:], ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
    return np.asarray((below == below[:, -1:]) & (below == below[-1:, :]))


def _in_groups(
    one: NDArray[np.int64], other: NDArray[np.int64], common: bool
) -> Iterator[tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
    """Who is in each group here and there: in the same one if they are common, else in each here and each there."""
    for a in np.unique(one[one >= 0]):
        for b in [a] if common else np.unique(other[other >= 0]):
            yield one == a, other == b


def _few_apart(
    joint: NDArray[np.int64], left: NDArray[np.bool_], right: NDArray[np.bool_], nested: bool, people: int, least: int
) -> bool:
    from strategies.kernels.intervals import few_apart  # noqa: PLC0415  (numba loads where it is used)

    return bool(few_apart(joint, left, right, nested, people, least))

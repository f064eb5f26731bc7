"""Where an exact answer cut a column, so that no two answers tell of the few people between two cuts.

An answer that tells people at or above a point of a column from those below has *cut* there: at the edges of a
histogram, the ends of a time grid, the knots of a spline. Points are the study's. Two answers with a cut at 50 and one
at 50.001 differ by whoever lies in between, so a node remembers, beside each crowd, where it was cut and who lay where.

Those at or above a cut, or between two, are held against every whole crowd that others were asked about, and those at
or above it against the cuts of the same column in other answers. Two are far enough apart where the people beyond one
and not beyond the other are none or at least k, where nobody is beyond both, or, of one crowd, where nobody is below
both. Two cuts of which one answer has both are not held against each other: between them lies a cell of that answer,
which small-cell rules withhold. So finer and coarser edges are both answered where the coarser ones are among the
finer; nothing compares what the two withhold. Not compared are cuts of different columns, those below a cut beside
other crowds, and those between two cuts beside others' cuts.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from strategies.codec import canonical
from strategies.wire import pack_parts, unpack_parts

COMPUTED = "."
"""Stands for the name of any column that nodes compute from an answer: how is the coordinator's word."""

QUICK = 1
"""zlib's level."""

Places = NDArray[np.uint16]
"""(B,) by number in the register: how many of an answer's cuts a person lies at or above; 0 for who is not in it."""


@dataclass(frozen=True, eq=False)
class Cuts:
    """Those of one column in one exact answer. P = cuts.

    Attributes:
        crowd: name of the crowd.
        people: how many are in it.
        column: the column's name, or COMPUTED.
        ucum: unit of the points.
        points: (P,) ascending.
        places: who lies where.
    """

    crowd: str
    people: int
    column: str
    ucum: str
    points: tuple[float, ...]
    places: Places

    @staticmethod
    def of(
        crowd: str,
        name: str,
        ucum: str,
        points: tuple[float, ...],
        numbers: NDArray[np.int64],
        values: NDArray[np.float64],
    ) -> Cuts:
        """From the numbers in the register of a crowd's people, and their values; who has none is below all points."""
        places = np.zeros(int(numbers.max(initial=-1)) + 1, dtype=np.uint16)
        places[numbers] = np.where(np.isnan(values), 0, np.searchsorted(points, values, side="right"))
        return Cuts(crowd, len(numbers), COMPUTED if "." in name else name, ucum, points, places)

    def pack(self) -> bytes:
        """As bytes, the same for the same."""
        head: Mapping[str, object] = {
            "crowd": self.crowd,
            "people": self.people,
            "column": self.column,
            "ucum": self.ucum,
            "points": list(self.points),
        }
        return pack_parts([canonical(head), zlib.compress(self.places.astype("<u2").tobytes(), QUICK)])

    @staticmethod
    def unpack(data: bytes) -> Cuts:
        """What `pack` packed."""
        head, packed = unpack_parts(data)
        told, places = json.loads(head), np.frombuffer(zlib.decompress(packed), dtype="<u2")
        points = tuple(map(float, told["points"]))
        return Cuts(told["crowd"], told["people"], told["column"], told["ucum"], points, places)

    def singles_out(self, earlier: Cuts, least: int) -> bool:
        """Whether these cuts, beside an earlier answer's of the same column, tell about 1 to `least` - 1 persons."""
        size = max(len(self.places), len(earlier.places))
        mine, theirs = (np.pad(one.places, (0, size - len(one.places))).astype(np.int64) for one in (self, earlier))
        shape = len(self.points) + 1, len(earlier.points) + 1
        joint = np.bincount(mine * shape[1] + theirs, minlength=shape[0] * shape[1]).reshape(shape)
        beyond = joint[::-1, ::-1].cumsum(axis=0).cumsum(axis=1)[::-1, ::-1]  # at or above cut i here and cut j there
        both = beyond[1:, 1:]
        either = beyond[1:, :1] + beyond[:1, 1:] - both
        apart = either - both
        few = (apart > 0) & (apart < least) & (both > 0)
        if self.crowd == earlier.crowd:
            few &= either < self.people
        same = apart == 0
        if self.column != COMPUTED:  # equal points of two computed columns are not the same people's
            same |= (self.ucum == earlier.ucum) & np.equal.outer(self.points, earlier.points)
        return bool(few[np.ix_(~same.any(axis=1), ~same.any(axis=0))].any())

    def singles_out_beside(self, inside: NDArray[np.bool_], least: int) -> bool:
        """Whether these cuts, beside an answer about another crowd, tell about 1 to `least` - 1 persons.

        Args:
            inside: who is in that crowd, by number in the register.
        """
        size, cells = max(len(self.places), len(inside)), len(self.points) + 1
        held = np.pad(inside, (0, size - len(inside)))
        places = np.pad(self.places, (0, size - len(self.places)))
        both, own = (
            np.concatenate([[0], np.bincount(one, minlength=cells).cumsum()]) for one in (places[held], places)
        )
        both, own = (np.subtract.outer(one, one).T[1:] for one in (both, own))  # from a point up to another, or the end
        between = np.arange(1, cells + 1)[:, None] < np.arange(cells + 1)
        apart = own + np.count_nonzero(inside) - 2 * both
        return bool((between & (apart > 0) & (apart < least) & (both > 0)).any())

"""Stretches of the genome: where a site's records lie, and where it could have called a variant."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fl_client.readers.lines import lines
from strategies.errors import DataError
from strategies.variants import CHROMOSOMES, chromosome

_NUMBERS = {name: number for number, name in enumerate(CHROMOSOMES)}


@dataclass(frozen=True, eq=False)
class Intervals:
    """Disjoint stretches of places (see `index.place`), first and last place included, ascending."""

    starts: NDArray[np.int64]
    ends: NDArray[np.int64]

    @staticmethod
    def of(starts: NDArray[np.int64], ends: NDArray[np.int64]) -> Intervals:
        """The union of stretches that may overlap and lie in any order.

        >>> union = Intervals.of(np.array([5, 1, 7]), np.array([8, 2, 9]))
        >>> union.starts.tolist(), union.ends.tolist()
        ([1, 5], [2, 9])
        """
        order = np.argsort(starts, kind="stable")
        starts, reach = starts[order], np.maximum.accumulate(ends[order])
        new = np.concatenate([[True], starts[1:] > reach[:-1] + 1]) if len(starts) else np.zeros(0, dtype=bool)
        last = np.concatenate([new[1:], [True]]) if len(starts) else new
        return Intervals(starts[new], reach[last])

    def contain(self, places: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.bool_]:
        """(K,) whether all the places from each of `places` on, so many, lie in one stretch."""
        at = np.searchsorted(self.starts, places, side="right") - 1
        return (at >= 0) & (np.append(self.ends, -1)[at] >= places + lengths - 1)

    def touch(self, places: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.bool_]:
        """(K,) whether any of those places lies in one."""
        at = np.searchsorted(self.starts, places + lengths - 1, side="right") - 1
        return (at >= 0) & (np.append(self.ends, -1)[at] >= places)

    @staticmethod
    def read(path: Path) -> Intervals:
        """Read a BED file of regions: chromosome, first place counted from 0, place after the last; more is ignored.

        Contigs that no panel knows are passed over.

        Raises:
            DataError: if it is not there, malformed, or names no region of a chromosome.
        """
        starts, ends = [], []
        for number, line in enumerate(lines(path), start=1):
            if not line.strip() or line.startswith(("#", "track", "browser")):
                continue
            cells = line.split()
            inside = len(cells) >= 3 and all(c.isascii() and c.isdigit() and len(c) <= 10 for c in cells[1:3])
            if not (inside and int(cells[1]) < int(cells[2]) < 2**31):
                raise DataError(
                    "A line of a BED file holds a chromosome, a start from 0 and an end beyond it.",
                    f"{path.name}, line {number}: {line[:60]!r}",
                    "correct the line.",
                )
            known = chromosome(cells[0])
            if known is not None:
                starts.append(_NUMBERS[known] << 32 | int(cells[1]) + 1)
                ends.append(_NUMBERS[known] << 32 | int(cells[2]))
        if not starts:
            raise DataError(
                "A file of callable regions names at least one on a chromosome.", f"{path.name}: none", "name them."
            )
        return Intervals.of(np.array(starts, dtype=np.int64), np.array(ends, dtype=np.int64))

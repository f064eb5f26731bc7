"""Sums of numbers whose largest possible is far beyond their usual size: on a coarse grid that holds the largest, and,
of what each has below that grid, on a fine one. So neither a wide public range nor many people cost digits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from strategies.summary import Field, Summary

Floats = NDArray[np.float64]

SUM_BITS = 56
"""Of a sum over all people: 2^5 sites then stay within 2^62 / 2^5 each."""

GRID_BITS = 40
"""From the largest contribution to a unit of the coarse grid, and from there to one of the fine grid, at most."""


@dataclass(frozen=True, eq=False)
class FineSums:
    """An array of sums over people.

    Attributes:
        name, unit: of the coarse part; the fine part is `name_rest`.
        most: the largest absolute value of one person's contribution to each entry, at which it is held.
        people: how many are summed over all sites.
    """

    name: str
    unit: str
    most: Floats
    people: int

    @cached_property
    def bits(self) -> tuple[int, int]:
        """Fraction bits of both grids."""
        room = min(GRID_BITS, SUM_BITS - max(self.people, 1).bit_length())
        coarse = room - math.ceil(math.log2(max(float(self.most.max(initial=0.0)), 2.0**-60)))
        return coarse, coarse + room

    def leaves(self) -> dict[str, Field]:
        """Both parts; rounding moves an entry of the coarse one by half a unit, and that is all the fine one holds."""
        coarse, fine = self.bits
        shape, half, size = self.most.shape, 2.0 ** -(coarse + 1), self.most.size
        l1, l2 = float(self.most.sum()) + size * half, float(np.sqrt((self.most**2).sum())) + size**0.5 * half
        return {
            self.name: Field(shape, self.unit, l1, l2, coarse),
            f"{self.name}_rest": Field(shape, f"{self.unit}, the rest", size * half, size**0.5 * half, fine),
        }

    def sums(self, values: Floats) -> dict[str, NDArray[np.int64]]:
        """Of (n, ...) people's contributions."""
        coarse, rest = self.leaves().values()
        held = np.clip(np.nan_to_num(values), -self.most, self.most)
        whole = coarse.integers(held)
        return {
            self.name: whole.sum(axis=0),
            f"{self.name}_rest": rest.integers(held - coarse.values(whole)).sum(axis=0),
        }

    def values(self, sums: Summary) -> Floats:
        """Both parts together."""
        coarse, rest = self.leaves().values()
        return coarse.values(sums[self.name]) + rest.values(sums[f"{self.name}_rest"])


def leaves(parts: Mapping[str, FineSums]) -> dict[str, Field]:
    """The fields of several."""
    return {name: field for part in parts.values() for name, field in part.leaves().items()}

"""Named arrays that add, on a public integer grid.

Every person's contribution is rounded to the grid *before* it is summed, so sums are sums of integers: they do not
depend on the order of people, on how people are split over sites, or on the linear algebra library. Federated equals
pooled bit for bit, and what one person can change is exact after rounding.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Summary = Mapping[str, NDArray[np.int64]]
"""name -> integers on the grid of the field of that name."""

MOST_INTEGER = 2**62
"""Bound on the absolute value of a masked integer over all sites: half of the ring's signed range."""

COUNT_BITS = 10
"""Grid of noised counts of people: at the largest epsilon a hundredth of the noise is still some units wide."""

MOST_CONTRIBUTION = 2.0**57
"""Bound on the absolute value of one person's integer."""


class NotAsDeclaredError(Exception):
    """A summary is not what its analysis declared. The text names fields and shapes, never values."""


class SumOverflowError(Exception):
    """A site's part is so large that the sum over the sites might leave the ring. Nothing was sent."""


@dataclass(frozen=True)
class Field:
    """One array that leaves a site.

    Attributes:
        shape: its shape; where `per_variant`, the first axis runs over the variants of the slice.
        unit: what an entry counts, in words.
        l1, l2: the most that one person, added or removed, can change the array, after rounding to the grid.
        fraction_bits: an entry's value is its integer times 2 to the minus this.
        per_variant: whether the array is cut with the panel. An array that is not is sent with every slice, where
            its agreement shows that a site's data did not change in mid-question.
        share: in the private regime, the share of the round's loss that this field's noise spends.
        over: what it adds over. A field over people is a sum of one contribution a person, so people may be split
            over sites in any way. One over sites, such as whether a site holds a variant, is not, nor is one within
            sites, of deviations from a site's own mean: for exact sums alone.
    """

    shape: tuple[int, ...]
    unit: str
    l1: float
    l2: float
    fraction_bits: int = 0
    per_variant: bool = False
    share: float = 1.0
    over: Literal["people", "sites", "within"] = "people"

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def values(self, integers: NDArray[np.int64]) -> NDArray[np.float64]:
        """Integers on the grid as numbers in the field's unit."""
        return integers.astype(np.float64) * 2.0**-self.fraction_bits

    def integers(self, values: NDArray[np.float64]) -> NDArray[np.int64]:
        """The nearest integers on the grid (ties to even), for one person's or several people's contributions.

        A contribution that is no number counts as 0, one beyond 2^57 as that: each by itself, so that nobody's depends
        on anybody else's, and never by an error, which would tell about the person. Only parameters from forged totals
        lead there.
        """
        scaled = np.nan_to_num(np.rint(values * 2.0**self.fraction_bits), nan=0.0)
        held: NDArray[np.int64] = np.clip(scaled, -MOST_CONTRIBUTION, MOST_CONTRIBUTION).astype(np.int64)
        return held


def after_rounding(l2: float, entries: int, fraction_bits: int) -> float:
    """The most that a contribution of length `l2` measures once it is on the grid: each entry moves by half a unit.

    >>> after_rounding(1.0, 4, 3)
    1.125
    """
    return l2 + math.sqrt(entries) / 2 * 2.0**-fraction_bits


def check(summary: Summary, declared: Mapping[str, Field]) -> None:
    """Assert that what a site computed is what its analysis said would leave.

    Raises:
        NotAsDeclaredError: for a missing or extra name, another shape, or another dtype than int64.
    """
    if summary.keys() != declared.keys():
        raise NotAsDeclaredError(f"names {sorted(summary)} instead of {sorted(declared)}")
    for name, field in declared.items():
        got = summary[name]
        if got.dtype != np.int64 or got.shape != field.shape:
            raise NotAsDeclaredError(f"{name} is {got.dtype}{got.shape} instead of int64{field.shape}")


def check_range(summary: Summary, sites: int) -> None:
    """Assert that the sum over `sites` such parts cannot leave the ring of 2^64.

    Raises:
        SumOverflowError: if an entry's absolute value reaches 2^62 / sites.
    """
    limit = MOST_INTEGER // sites
    for name, integers in summary.items():
        if integers.size and (int(integers.max()) >= limit or int(integers.min()) <= -limit):
            raise SumOverflowError(f"an entry of {name} reaches 2^62 / {sites}")


def saturated(summary: Summary, sites: int) -> Summary:
    """The same, with entries held within 2^62 / sites.

    In a later round a refusal would answer, as often as a coordinator cares to forge earlier totals, whether one site's
    sum lies beyond a limit of its choice. Honest totals never lead here; a forged one learns nothing, and what comes
    out does not agree with the earlier totals, which `conclude` notices.
    """
    limit = MOST_INTEGER // sites - 1
    return {name: np.clip(integers, -limit, limit) for name, integers in summary.items()}


def add(one: Summary, other: Summary) -> Summary:
    """The summary of the people of both."""
    return {name: one[name] + other[name] for name in one}


def join(slices: Sequence[Summary], declared: Mapping[str, Field]) -> Summary:
    """Put the totals of a question's slices together along the variants.

    Raises:
        NotAsDeclaredError: if an array that is not cut differs between slices, that is, if data changed under way.
    """
    joined: dict[str, NDArray[np.int64]] = {}
    for name, field in declared.items():
        parts = [s[name] for s in slices]
        if field.per_variant:
            joined[name] = np.concatenate(parts)
        else:
            if any(not np.array_equal(parts[0], part) for part in parts[1:]):
                raise NotAsDeclaredError(f"{name} differs between slices of one question")
            joined[name] = parts[0]
    return joined

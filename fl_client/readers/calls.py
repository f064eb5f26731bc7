"""Genotypes as they lie in a site's files: whose they are, of which variants, and some of them on demand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fl_client.readers.index import Index
from strategies.cohort import COPY, NO_DOSAGE
from strategies.errors import DataError

NEAREST = COPY // 10
"""A dosage is a genotype where it is no further than this from a whole number of copies: PLINK 2's rule and default."""


class Calls(Protocol):
    """One file of genotypes, opened and checked."""

    @property
    def people(self) -> tuple[str, ...]:
        """The N people of the file, distinct, in the file's order."""
        ...

    @property
    def index(self) -> Index:
        """The usable variants and their rows."""
        ...

    def fill(
        self,
        rows: NDArray[np.int64],
        swapped: NDArray[np.bool_],
        chosen: NDArray[np.int64] | None,
        out: NDArray[np.uint8],
    ) -> None:
        """Write genotypes, packed as `strategies.cohort.Genotypes` has them.

        Args:
            rows: (K,) rows of the file; where -1, nothing is written.
            swapped: (K,) whether the reference is counted, and not the alternate.
            chosen: (P,) numbers of the people wanted, or None for all in the file's order.
            out: (K, ceil(P / 4)) where they go.

        Raises:
            DataError: if the file can no longer be read.
        """
        ...

    def dosages(self, rows: NDArray[np.int64]) -> NDArray[np.uint16]:
        """(K, N) expected alternate alleles of K rows, in units of 1 / COPY of an allele; NO_DOSAGE where missing.

        Whole numbers of alleles where the file has genotypes alone.

        Raises:
            DataError: if the file can no longer be read.
        """
        ...


def whole(codes: NDArray[np.int8]) -> NDArray[np.uint16]:
    """Genotypes as dosages: everything but 0, 1 and 2 is missing.

    >>> whole(np.array([0, 1, 2, 3, -9], dtype=np.int8)).tolist()
    [0, 16384, 32768, 65535, 65535]
    """
    out = codes.astype(np.uint16) * np.uint16(COPY)
    out[(codes < 0) | (codes > 2)] = NO_DOSAGE
    return out


def units(copies: NDArray[np.floating]) -> NDArray[np.uint16]:
    """Expected alleles from 0 to 2, NaN where missing, as dosages.

    >>> units(np.array([0.0, 0.5, 2.0, np.nan])).tolist()
    [0, 8192, 32768, 65535]
    """
    seen = ~np.isnan(copies)
    out = np.full(copies.shape, NO_DOSAGE, dtype=np.uint16)
    out[seen] = np.floor(copies[seen].astype(np.float64) * COPY + 0.5)
    return out


def nearest(dosages: NDArray[np.uint16]) -> NDArray[np.int8]:
    """The genotypes of dosages: -9 where missing, or further than NEAREST from a whole number of alleles.

    >>> nearest(np.array([0, 1638, 1639, 16384, 31130, 32768, 65535], dtype=np.uint16)).tolist()
    [0, 0, -9, 1, 2, 2, -9]
    """
    dosages = dosages.astype(np.int32)
    copies = (dosages + COPY // 2) // COPY
    copies[(np.abs(dosages - copies * COPY) > NEAREST) | (dosages == NO_DOSAGE)] = -9
    return copies.astype(np.int8)


def distinct(people: Sequence[str], where: str) -> tuple[str, ...]:
    """The people of a file, once each.

    Raises:
        DataError: if there are none, one has no identifier, or one stands there twice.
    """
    if not people:
        raise DataError("A file of people names at least one person.", f"{where}: none", "add one line per person.")
    if not all(people):
        raise DataError(
            "Every person has an identifier.",
            f"{where}: person {people.index('') + 1} has none",
            "fill it in, or remove the line.",
        )
    if len(set(people)) < len(people):
        again = [person for person, times in Counter(people).items() if times > 1]
        raise DataError(
            "The people of a file are distinct.",
            f"{where}: {len(again)} more than once, {shown(again)}",
            "remove or rename all but one entry of each.",
        )
    return tuple(people)


def shown(names: Sequence[str]) -> str:
    """At most three of the names, for the node's own eyes."""
    return ", ".join(repr(n[:40]) for n in names[:3]) + (" ..." if len(names) > 3 else "")

"""A data set's genotypes, variant by variant: all of them, in blocks that a constant memory holds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from fl_client.readers import Dataset
from fl_client.readers.index import Key
from strategies.cohort import Genotypes
from strategies.errors import DataError
from strategies.ploidy import PSEUDO_AUTOSOMAL
from strategies.variants import CHROMOSOMES

SPAN = 8192
"""Variants in a span of bit planes: 128 words of 64."""

_CELLS_AT_A_TIME = 1 << 25


class Place(IntEnum):
    """Where a variant lies, as far as the copies that a person has there."""

    AUTOSOME = 0
    X = 1
    X_PAIRED = 2
    Y = 3
    MITOCHONDRION = 4


@dataclass(frozen=True, eq=False)
class Variants:
    """The M variants of a data set, in the order of its file.

    Attributes:
        chromosomes: (M,) index of its chromosome in `strategies.variants.CHROMOSOMES`.
        positions: (M,) its position.
        places: (M,) where it lies.
        rows: (M,) its row in the file.
        spelt: reference and alternate of every pair of alleles that there is.
        pairs: (M,) which of them it has.
    """

    chromosomes: NDArray[np.int64] = field(repr=False)
    positions: NDArray[np.int64] = field(repr=False)
    places: NDArray[np.uint8] = field(repr=False)
    rows: NDArray[np.int64] = field(repr=False)
    spelt: tuple[tuple[str, str], ...] = field(repr=False)
    pairs: NDArray[np.int32] = field(repr=False)

    @staticmethod
    def of(data: Dataset) -> Variants:
        """The variants of a data set.

        Raises:
            DataError: if it has no genotypes.
        """
        if data.calls is None:
            raise DataError(
                "Quality control reads genotypes.",
                f"{data.config.identifier} has none",
                "name them as `genotypes` in the [dataset] table.",
            )
        index = data.calls.index
        order = np.argsort(index.rows, kind="stable")
        chromosomes, positions = index.places[order] >> 32, index.places[order] & 0xFFFFFFFF
        places = np.full(len(order), Place.AUTOSOME, dtype=np.uint8)
        (_, first), (last, _) = PSEUDO_AUTOSOMAL[data.config.assembly]
        on_x = chromosomes == CHROMOSOMES.index("X")
        places[on_x] = np.where((first < positions) & (positions < last), Place.X, Place.X_PAIRED)[on_x]
        places[chromosomes == CHROMOSOMES.index("Y")] = Place.Y
        places[chromosomes == CHROMOSOMES.index("MT")] = Place.MITOCHONDRION
        return Variants(chromosomes, positions, places, index.rows[order], tuple(index.alleles), index.pairs[order])

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Key]:
        for chromosome, position, pair in zip(
            self.chromosomes.tolist(), self.positions.tolist(), self.pairs.tolist(), strict=True
        ):
            yield (CHROMOSOMES[chromosome], position, *self.spelt[pair])


def blocks(data: Dataset, rows: NDArray[np.int64]) -> Iterator[tuple[slice, NDArray[np.uint8]]]:
    """Which of the rows, and (K, N) their codes 0, 1, 2 or MISSING for the people of the data set, in its order.

    A block has a power of two of variants, SPAN at most, so that blocks fill spans.
    """
    assert data.calls is not None
    people, total = data.order, len(data.calls.people)
    chosen = None if np.array_equal(people, np.arange(total)) else people
    step = SPAN
    while step > 64 and step * total > _CELLS_AT_A_TIME:
        step //= 2
    for start in range(0, len(rows), step):
        asked = rows[start : start + step]
        packed = np.empty((len(asked), -(-len(people) // 4)), dtype=np.uint8)
        data.calls.fill(asked, np.zeros(len(asked), dtype=bool), chosen, packed)
        yield slice(start, start + len(asked)), Genotypes(packed, len(people)).codes()

"""How many alternate alleles a site's people have: observed ones, or expected ones where genotypes were imputed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from strategies import kernels
from strategies.cohort import COPY, MISSING, Cohort, Genotypes

DOSAGE_BITS = COPY.bit_length() - 1

SMALLER = 4
"""The part of a slice's variants that is asked at once where dosages are read: each is as large as eight genotypes."""

CELLS_AT_A_TIME = 1 << 22
"""People times variants."""


@dataclass(frozen=True, eq=False)
class Alleles:
    """Alleles at M variants, of those of N people who count.

    A dosage counts as what it is in sums, and as the genotype that it is nearest to in counts; where a file has
    genotypes alone, its dosages are these.

    Attributes:
        packed: (M, ceil(N / 4)) genotypes of all people, or the nearest to their dosages.
        cells: (M, 4) how many people who count have 0, 1, 2 or no observed alternate alleles by these.
        sums, squares: (M,) of the numbers of alleles of those who have one, in units of 2^-bits and their square.
        bits: 0, or of dosages DOSAGE_BITS.
        dosages: (M, N), or None.
    """

    packed: NDArray[np.uint8]
    cells: NDArray[np.int64]
    sums: NDArray[np.int64]
    squares: NDArray[np.int64]
    bits: int
    dosages: NDArray[np.uint16] | None

    @staticmethod
    def of(cohort: Cohort, inside: NDArray[np.bool_], dosed: bool) -> Alleles:
        """Of a cohort's variants; `inside` (N,) is who counts, `dosed` whether dosages are read."""
        genotypes = cohort.genotypes
        assert genotypes is not None
        if not dosed:
            cells = genotypes.counts(inside)
            sums, squares = cells[:, 1] + 2 * cells[:, 2], cells[:, 1] + 4 * cells[:, 2]
            return Alleles(genotypes.packed, cells, sums, squares, 0, None)
        dosages = cohort.dosages
        assert dosages is not None
        nearest = _nearest(dosages)
        powers = kernels.dosage_powers(dosages, inside)
        return Alleles(nearest.packed, nearest.counts(inside), powers[:, 0], powers[:, 1], DOSAGE_BITS, dosages)

    def product(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.int64]:
        """(R, C) alleles of some rows times (N, C) integers, which are 0 for who does not count; 0 where missing. Each
        person's product with a dosage is rounded."""
        if self.dosages is None:
            return kernels.product(self.packed, rows, self.cells[rows], columns)
        return kernels.dosage_product(self.dosages, rows, columns)

    def squared(self, rows: NDArray[np.int64], column: NDArray[np.int64], once: NDArray[np.int64]) -> NDArray[np.int64]:
        """(R,) squared alleles of some rows times (N,) integers, as `product`; `once` (R,) is that of the same."""
        if self.dosages is not None:
            return kernels.dosage_squares(self.dosages, rows, column)
        # A genotype's square is itself and, with two alleles, two more: the sum over those who have two is another
        # product, of genotypes in which their code is 1 and every other 0.
        packed, cells = self.packed[rows], self.cells[rows]
        both: NDArray[np.uint8] = ((packed >> 1) & ~packed & 0b01010101).astype(np.uint8)
        beside = np.stack([cells[:, [0, 1, 3]].sum(axis=1), cells[:, 2], *np.zeros((2, len(rows)), np.int64)], axis=1)
        return once + 2 * kernels.product(both, np.arange(len(rows)), beside, column[:, None])[:, 0]

    def values(
        self,
        rows: NDArray[np.int64],
        people: NDArray[np.int64],
        missing: NDArray[np.float64],
        shift: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        """(R, K) alleles of K of the people at a few rows, or (R,) `missing`, less (R,) `shift`."""
        return kernels.stand_for(self.packed, self.dosages, rows, people, missing, shift)


def _nearest(dosages: NDArray[np.uint16]) -> Genotypes:
    """The nearest genotypes of (M, N) dosages, some variants after the others: codes are as large as dosages."""
    variants, people = dosages.shape
    packed, step = np.empty((variants, -(-people // 4)), dtype=np.uint8), max(1, CELLS_AT_A_TIME // max(1, people))
    for start in range(0, variants, step):
        packed[start : start + step] = Genotypes.pack(nearest_copies(dosages[start : start + step])).packed
    return Genotypes(packed, people)


def nearest_copies(dosages: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """The number of copies that each dosage is nearest to, MISSING where there is none.

    >>> nearest_copies(np.array([0, 8191, 8192, 24575, 24576, 32768, 65535], dtype=np.uint16)).tolist()
    [0, 0, 1, 1, 2, 2, 3]
    """
    copies = (dosages.astype(np.uint32) + COPY // 2) // COPY
    return np.minimum(copies, MISSING).astype(np.uint8)

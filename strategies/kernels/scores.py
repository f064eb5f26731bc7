"""Sums over variants for each person."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

PEOPLE_AT_A_TIME = 256
"""Their sums stay in the nearest cache while the variants pass by."""


@njit(cache=True, nogil=True)
def add_steps(packed: NDArray[np.uint8], steps: NDArray[np.int64], sums: NDArray[np.int64]) -> None:
    """Add each person's step at each variant.

    Args:
        packed: (M, ceil(N / 4)) genotypes, as `strategies.cohort.Genotypes` holds them.
        steps: (M, 4, L) what a person adds who has 0, 1, 2 or no observed alternate alleles.
        sums: (N, L) added to.
    """
    people, columns = sums.shape
    for start in range(0, people, PEOPLE_AT_A_TIME):
        stop = min(start + PEOPLE_AT_A_TIME, people)
        for j in range(packed.shape[0]):
            for i in range(start, stop):
                code = (packed[j, i >> 2] >> (2 * (i & 3))) & 3
                for k in range(columns):
                    sums[i, k] += steps[j, code, k]

"""Tiles of genotypes as numbers, for matrix products."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray


@njit(cache=True, nogil=True)
def tile(packed: NDArray[np.uint8], levels: NDArray[np.float64], first: int, last: int) -> NDArray[np.float64]:
    """(m, last - first) the level of each genotype of some people.

    Args:
        packed: (m, ceil(N / 4)) genotypes, as `strategies.cohort.Genotypes` holds them.
        levels: (m, 4) the number for each code.
        first, last: the people; `first` is a multiple of 4.
    """
    m, n = packed.shape[0], last - first
    out = np.empty((m, n))
    for j in range(m):
        row, level, at = packed[j], levels[j], out[j]
        full = n >> 2
        for byte in range(full):
            bits = row[(first >> 2) + byte]
            at[4 * byte] = level[bits & 3]
            at[4 * byte + 1] = level[(bits >> 2) & 3]
            at[4 * byte + 2] = level[(bits >> 4) & 3]
            at[4 * byte + 3] = level[bits >> 6]
        for i in range(4 * full, n):
            at[i] = level[(row[(first + i) >> 2] >> (2 * (i & 3))) & 3]
    return out

"""Sums over people for pairs of variants, by counting bits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from strategies.kernels.compiled import compiled, ones

BYTES_AT_A_TIME = 1024
"""Of 4,096 people: their bits at a few hundred variants stay in the nearest caches."""

_EVEN, _ODD, _1 = np.uint64(0x5555555555555555), np.uint64(0xAAAAAAAAAAAAAAAA), np.uint64(1)


@compiled
def planes(packed: NDArray[np.uint8], first: int, last: int) -> NDArray[np.uint64]:
    """(M, 3, W) bits of the people in some bytes of each row: one alternate allele at least, two, none observed.

    Two words of 32 people make one of 64: the first's bits stand in its even places, the second's in its odd ones.

    Args:
        packed: (M, ceil(N / 4)) genotypes, as `strategies.cohort.Genotypes` holds them.
        first, last: the bytes.
    """
    m, words = packed.shape[0], (last - first + 15) // 16
    out = np.empty((m, 3, words), dtype=np.uint64)
    for j in range(m):
        for k in range(words):
            one, other = np.uint64(0), np.uint64(0)
            for byte in range(8):
                here = first + 16 * k + byte
                if here < last:
                    one |= np.uint64(packed[j, here]) << np.uint64(8 * byte)
                if here + 8 < last:
                    other |= np.uint64(packed[j, here + 8]) << np.uint64(8 * byte)
            low = (one & _EVEN) | ((other & _EVEN) << _1)
            high = ((one >> _1) & _EVEN) | (other & _ODD)
            out[j, 0, k] = low ^ high
            out[j, 1, k] = high & ~low
            out[j, 2, k] = low & high
    return out


@compiled
def add_products(
    bits: NDArray[np.uint64], one: NDArray[np.int64], other: NDArray[np.int64], out: NDArray[np.int64]
) -> None:
    """Add, for each of (P,) pairs, the people's alternate alleles at one variant times those at the other."""
    for p in range(len(one)):
        a, b = bits[one[p]], bits[other[p]]
        total = np.uint64(0)
        for k in range(bits.shape[2]):
            total += ones(a[0, k] & b[0, k]) + ones(a[0, k] & b[1, k])
            total += ones(a[1, k] & b[0, k]) + ones(a[1, k] & b[1, k])
        out[p] += np.int64(total)


@compiled
def add_observed(
    bits: NDArray[np.uint64], one: NDArray[np.int64], other: NDArray[np.int64], out: NDArray[np.int64]
) -> None:
    """Add, for each of (P,) pairs, people to (P, 5): without either genotype; of those with both, who have one
    alternate allele at least and two at the first, and at the second."""
    for p in range(len(one)):
        a, b = bits[one[p]], bits[other[p]]
        without, a1, a2, b1, b2 = np.uint64(0), np.uint64(0), np.uint64(0), np.uint64(0), np.uint64(0)
        for k in range(bits.shape[2]):
            without += ones(a[2, k] | b[2, k])
            a1 += ones(a[0, k] & ~b[2, k])
            a2 += ones(a[1, k] & ~b[2, k])
            b1 += ones(b[0, k] & ~a[2, k])
            b2 += ones(b[1, k] & ~a[2, k])
        out[p, 0] += np.int64(without)
        out[p, 1] += np.int64(a1)
        out[p, 2] += np.int64(a2)
        out[p, 3] += np.int64(b1)
        out[p, 4] += np.int64(b2)

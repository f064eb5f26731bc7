"""Two bits for each genotype, four people to a byte: from a file's packing to ours, for everybody or for some.

Ours: 0, 1, 2 alternate alleles, 3 missing, the first person in the lowest bits, padding 0 (`strategies.cohort`).
A .bed: 0 two copies of A1, 1 missing, 2 one copy, 3 none, in the same order; A1 is the allele that is counted.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Rows = NDArray[np.int64]

_HIGH, _LOW = np.uint8(0b10101010), np.uint8(0b01010101)
_ONE, _TWO, _THREE = np.uint8(1), np.uint8(2), np.uint8(3)


@njit(cache=True, nogil=True)
def recode(cells: Bytes, rows: Rows, out: Bytes, places: Rows, swapped: Any, bed: bool, people: int) -> None:
    """out[places[k]] = cells[rows[k]] in our codes, the other allele counted where `swapped`.

    Args:
        cells: (R, ceil(N / 4)) packed genotypes.
        rows: (K,) which of them.
        out: (M, ceil(N / 4)); another array than `cells`, or the loops are eight times slower.
        places: (K,) where they go.
        swapped: (K,) whether 0 and 2 change places.
        bed: whether `cells` is in the codes of a .bed, and not in ours.
        people: N.
    """
    width = out.shape[1]
    for k in range(len(rows)):
        row, to = cells[rows[k]], out[places[k]]
        # In each pair of bits (high, low): a .bed's 2 - x is (not high, high xor low), and x is (low, high xor low).
        if bed and swapped[k]:
            for j in range(width):
                b = row[j]
                to[j] = ((b << _ONE) & _HIGH) | ((b ^ (b >> _ONE)) & _LOW)
        elif bed:
            for j in range(width):
                b = row[j]
                to[j] = (~b & _HIGH) | ((b ^ (b >> _ONE)) & _LOW)
        elif swapped[k]:
            for j in range(width):
                b = row[j]
                to[j] = (~(b ^ (b << _ONE)) & _HIGH) | (b & _LOW)
        else:
            for j in range(width):
                to[j] = row[j]
        if people % 4:
            to[width - 1] &= np.uint8((1 << (2 * (people % 4))) - 1)


@njit(cache=True, nogil=True)
def gather(cells: Bytes, rows: Rows, out: Bytes, people: Rows) -> None:
    """out[k] = some people of cells[rows[k]], in the order given and in the codes of `cells`.

    Args:
        cells: (R, ceil(N / 4)) packed genotypes.
        rows: (K,) which of them.
        out: (K, ceil(P / 4)).
        people: (P,) numbers from 0 to N - 1.
    """
    count = len(people)
    at, shift = people >> 2, ((people & 3) << 1).astype(np.uint8)
    for k in range(len(rows)):
        row, to = cells[rows[k]], out[k]
        for j in range(count >> 2):
            i = j << 2
            to[j] = (
                ((row[at[i]] >> shift[i]) & _THREE)
                | ((row[at[i + 1]] >> shift[i + 1]) & _THREE) << _TWO
                | ((row[at[i + 2]] >> shift[i + 2]) & _THREE) << np.uint8(4)
                | ((row[at[i + 3]] >> shift[i + 3]) & _THREE) << np.uint8(6)
            )
        if count & 3:
            last = np.uint8(0)
            for i in range(count & ~3, count):
                last |= ((row[at[i]] >> shift[i]) & _THREE) << np.uint8((i & 3) << 1)
            to[count >> 2] = last


@njit(cache=True, nogil=True)
def pack(codes: NDArray[np.int8], out: Bytes, places: Rows) -> None:
    """out[places[k]] = codes[k] packed; every code but 0, 1 and 2 is missing.

    Args:
        codes: (K, N) alternate allele counts.
        out: (M, ceil(N / 4)).
        places: (K,) where they go.
    """
    count = codes.shape[1]
    for k in range(len(codes)):
        row, to = codes[k].view(np.uint8), out[places[k]]
        for j in range(count >> 2):
            i = j << 2
            to[j] = (
                min(row[i], _THREE)
                | min(row[i + 1], _THREE) << _TWO
                | min(row[i + 2], _THREE) << np.uint8(4)
                | min(row[i + 3], _THREE) << np.uint8(6)
            )
        if count & 3:
            last = np.uint8(0)
            for i in range(count & ~3, count):
                last |= min(row[i], _THREE) << np.uint8((i & 3) << 1)
            to[count >> 2] = last

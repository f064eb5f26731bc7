"""Weighted sums over the variants, for each person.

Four variants' genotypes of a person are one byte, so what they add is one of 256 sums that are made beforehand. Two
such bytes of each of four people are worked on at a time: a word, turned from variants to people two bits by two bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from strategies.kernels.compiled import compiled
from strategies.kernels.threads import in_pieces

PEOPLE_AT_A_TIME = 4096
"""Their sums stay in the nearest cache while the variants pass by; a multiple of four."""

_BYTE = np.uint64(0xFF)
_NEAR, _FAR = np.uint64(0x00CC_00CC_00CC_00CC), np.uint64(0x0000_F0F0_0000_F0F0)
"""What changes places with what lies 6 bits, and 12 bits, above it."""


def add_steps(packed: NDArray[np.uint8], steps: NDArray[np.int64], sums: NDArray[np.int64]) -> None:
    """Add each person's step at each variant.

    Args:
        packed: (M, ceil(N / 4)) genotypes, as `strategies.cohort.Genotypes` holds them.
        steps: (M, 4, L) what a person adds who has 0, 1, 2 or no observed alternate alleles.
        sums: (N, L) added to.
    """
    if not len(packed):
        return
    table = np.empty((steps.shape[2], 2 * -(-len(packed) // 8), 256), dtype=np.int64)
    _tables(steps, table)

    def some(people: slice) -> None:
        mine = sums[people]
        cells = packed[:, people.start // 4 : -(-people.stop // 4)]
        total = np.zeros(4 * cells.shape[1], dtype=np.int64)
        for k in range(len(table)):
            total[:] = 0
            _add(cells, table[k], total)
            mine[:, k] += total[: len(mine)]

    in_pieces(some, len(sums), PEOPLE_AT_A_TIME)


@compiled
def _tables(steps: Any, table: Any) -> None:
    """table[k, g, code] = what the four variants of group g add with the genotypes in a byte; beyond the last, none."""
    for k in range(table.shape[0]):
        for group in range(table.shape[1]):
            for code in range(256):
                total = np.int64(0)
                for j in range(4 * group, min(4 * group + 4, len(steps))):
                    total += steps[j, (code >> (2 * (j - 4 * group))) & 3, k]
                table[k, group, code] = total


@compiled
def _add(cells: Any, table: Any, sums: Any) -> None:
    """sums[i] += the sum over the groups of table[group, person i's genotypes in it]."""
    last = len(cells) - 1
    for group in range(0, len(table), 2):
        j = 4 * group
        a, b, c, d = cells[min(j, last)], cells[min(j + 1, last)], cells[min(j + 2, last)], cells[min(j + 3, last)]
        e, f, g, h = cells[min(j + 4, last)], cells[min(j + 5, last)], cells[min(j + 6, last)], cells[min(j + 7, last)]
        low, high = table[group], table[group + 1]
        for at in range(cells.shape[1]):
            # A byte for each of eight variants; in it, two bits for each of four people.
            x = np.uint64(a[at]) | np.uint64(b[at]) << np.uint64(8)
            x |= np.uint64(c[at]) << np.uint64(16) | np.uint64(d[at]) << np.uint64(24)
            x |= np.uint64(e[at]) << np.uint64(32) | np.uint64(f[at]) << np.uint64(40)
            x |= np.uint64(g[at]) << np.uint64(48) | np.uint64(h[at]) << np.uint64(56)
            t = (x ^ (x >> np.uint64(6))) & _NEAR
            x = x ^ t ^ (t << np.uint64(6))
            t = (x ^ (x >> np.uint64(12))) & _FAR
            x = x ^ t ^ (t << np.uint64(12))
            # A byte for each of four people; in it, two bits for each of four variants: first `low`'s, then `high`'s.
            i = at << 2
            sums[i] += low[x & _BYTE] + high[(x >> np.uint64(32)) & _BYTE]
            sums[i + 1] += low[(x >> np.uint64(8)) & _BYTE] + high[(x >> np.uint64(40)) & _BYTE]
            sums[i + 2] += low[(x >> np.uint64(16)) & _BYTE] + high[(x >> np.uint64(48)) & _BYTE]
            sums[i + 3] += low[(x >> np.uint64(24)) & _BYTE] + high[x >> np.uint64(56)]

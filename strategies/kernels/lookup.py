"""Sums over genotypes by tables: what the four genotypes of a byte add is looked up, for all columns at once [1].

A table has a row for each of 256 bytes, and is used by thousands of variants, or people, before the next is made. Four
are used together, so that sums are fetched and put back a quarter as often.

[1] Arlazarov, Dinic, Kronrod, Faradzev: On economical construction of the transitive closure of a directed graph,
    Doklady Akademii Nauk SSSR 194 (1970): the method of four Russians.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from strategies.kernels.compiled import compiled
from strategies.kernels.packed import word

_LOWEST = np.uint64(0x0303030303030303)
"""One genotype of each byte."""

BYTES = 4
"""Tables at a time."""


@compiled
def _tabulate(steps: Any, values: Any, table: Any) -> None:
    """(256, C) what each byte adds: the sum of its four genotypes' steps (4, 4) times their values (4, C)."""
    columns = values.shape[1]
    for c in range(columns):
        table[0, c] = 0
        for k in range(4):
            table[0, c] += steps[k, 0] * values[k, c]
    for k in range(4):
        for code in range(1, 4):
            step = steps[k, code] - steps[k, 0]
            for byte in range(1 << (2 * k)):  # all that the genotypes before can be
                for c in range(columns):
                    table[(code << (2 * k)) | byte, c] = table[byte, c] + step * values[k, c]


@compiled
def over_people(packed: Any, values: Any, out: Any) -> None:
    """Add to (M, C) the sums over people of alternate alleles, 0 where missing, times (4 W, C) integers; W bytes."""
    variants, width = packed.shape
    columns, steps = values.shape[1], np.zeros((4, 4), np.int64)
    steps[:, 1], steps[:, 2] = 1, 2
    tables = np.empty((BYTES, 256, columns), np.int64)
    one, two, three, four = tables[0], tables[1], tables[2], tables[3]
    for start in range(0, width, BYTES):
        for k in range(min(BYTES, width - start)):
            at = 4 * (start + k)
            _tabulate(steps, values[at : at + 4], tables[k])
        if width - start < BYTES:
            for j in range(variants):
                for k in range(width - start):
                    for c in range(columns):
                        out[j, c] += tables[k, packed[j, start + k], c]
            return
        for j in range(variants):
            a, b = one[packed[j, start]], two[packed[j, start + 1]]
            d, e = three[packed[j, start + 2]], four[packed[j, start + 3]]
            to = out[j]
            for c in range(columns):
                to[c] += (a[c] + b[c]) + (d[c] + e[c])


@compiled
def _turn(packed: Any, first: int, start: int, keys: Any) -> None:
    """Bytes of four variants' genotypes of one person each, (4, 8 W): for person 4 b + p of the bytes from `start`."""
    flat, width = packed.reshape(-1), packed.shape[1]
    words = keys.view(np.uint64)
    words[:] = 0
    for k in range(min(4, len(packed) - first)):
        up = np.uint64(2 * k)
        for w in range(words.shape[1]):
            x = word(flat, (first + k) * width + start, width - start, w)
            words[0, w] |= (x & _LOWEST) << up
            words[1, w] |= ((x >> np.uint64(2)) & _LOWEST) << up
            words[2, w] |= ((x >> np.uint64(4)) & _LOWEST) << up
            words[3, w] |= ((x >> np.uint64(6)) & _LOWEST) << up


@compiled
def over_variants(packed: Any, steps: Any, values: Any, start: int, stop: int, out: Any) -> None:
    """Add to (4 B, C) the sums over variants of each person's step times (M', C) integers, of the people whose
    genotypes are in the bytes from `start` to `stop`.

    Args:
        packed: (M, W) genotypes.
        steps: (M', 4) what stands for each code; M' is the next multiple of 16, with zeros beyond M.
        values: (M', C).
    """
    columns, size = values.shape[1], stop - start
    tables = np.empty((BYTES, 256, columns), np.int64)
    one, two, three, four = tables[0], tables[1], tables[2], tables[3]
    keys = np.empty((BYTES, 4, (size + 7) // 8 * 8), np.uint8)
    for first in range(0, len(values), 4 * BYTES):
        for k in range(BYTES):
            at = first + 4 * k
            _tabulate(steps[at : at + 4], values[at : at + 4], tables[k])
            _turn(packed, at, start, keys[k])
        for b in range(size):
            for p in range(4):
                f, g = one[keys[0, p, b]], two[keys[1, p, b]]
                d, e = three[keys[2, p, b]], four[keys[3, p, b]]
                to = out[4 * b + p]
                for c in range(columns):
                    to[c] += (f[c] + g[c]) + (d[c] + e[c])

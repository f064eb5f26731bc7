"""Loops over genotypes as they are packed: two bits a person, 32 people to a word.

Sums are of integers, so they are the same in whatever order, on however many threads. A row of genotypes is W words;
the last is filled up with zeros, and people beyond the last have zeros in every column. The lower and the upper bit of
each code stand in the lower of its two bits: 00 none, 01 one, 10 two alternate alleles, 11 missing.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from strategies.kernels.compiled import compiled, ones, trailing, word_at
from strategies.summary import MOST_CONTRIBUTION

_EVERY = np.uint64(0x5555555555555555)
_ONE = np.uint64(1)
_MOST = MOST_CONTRIBUTION


@compiled
def word(flat: Any, row: int, width: int, k: int) -> Any:
    """Word k of a row of `width` bytes that starts at byte `row`."""
    at = row + 8 * k
    if 8 * k + 8 <= width:
        return word_at(flat, at)
    out = np.uint64(0)
    for b in range(width - 8 * k):
        out |= np.uint64(flat[at + b]) << np.uint64(8 * b)
    return out


@compiled
def count(packed: Any, inside: Any, people: int, out: Any) -> None:
    """(M, 4) people with each code, among the `people` whose two bits are set in (W,) words."""
    flat, (variants, width) = packed.reshape(-1), packed.shape
    whole = width // 8
    for j in range(variants):
        some, high, both = np.uint64(0), np.uint64(0), np.uint64(0)
        for k in range(whole):
            x = word_at(flat, j * width + 8 * k) & inside[k]
            lower, upper = x & _EVERY, (x >> _ONE) & _EVERY
            some += ones(lower)
            high += ones(upper)
            both += ones(lower & upper)
        if whole < len(inside):
            x = word(flat, j * width, width, whole) & inside[whole]
            lower, upper = x & _EVERY, (x >> _ONE) & _EVERY
            some += ones(lower)
            high += ones(upper)
            both += ones(lower & upper)
        out[j, 3] = both
        out[j, 2] = high - both
        out[j, 1] = some - both
        out[j, 0] = people - np.int64(some + high - both)


@compiled
def product(packed: Any, rows: Any, taken: Any, columns: Any, total: Any, out: Any) -> None:  # noqa: PLR0912
    """(R, C) alternate alleles, 0 where missing, of some rows times columns (32 W, C) with the sums `total` (C,).

    Everybody is taken to have `taken` (R,) alleles; those who have another number of them are walked.
    """
    flat, width = packed.reshape(-1), packed.shape[1]
    wide = columns.shape[1]
    first, second = np.empty(wide, np.int64), np.empty(wide, np.int64)
    for r in range(len(rows)):
        start, most = rows[r] * width, taken[r]
        first[:] = 0
        second[:] = 0
        for k in range((width + 7) // 8):
            x = word(flat, start, width, k)
            lower, upper = x & _EVERY, (x >> _ONE) & _EVERY
            one, two = lower & ~upper, upper & ~lower
            none = _EVERY & ~(one | two)
            some, others = one, two
            if most == 2:
                others = none
            elif most == 1:
                some, others = two, none
            while some:
                i = 32 * k + (trailing(some) >> 1)
                for c in range(wide):
                    first[c] += columns[i, c]
                some &= some - _ONE
            while others:
                i = 32 * k + (trailing(others) >> 1)
                for c in range(wide):
                    second[c] += columns[i, c]
                others &= others - _ONE
        if most == 0:
            for c in range(wide):
                out[r, c] = first[c] + 2 * second[c]
        elif most == 1:
            for c in range(wide):
                out[r, c] = total[c] + first[c] - second[c]
        else:
            for c in range(wide):
                out[r, c] = 2 * (total[c] - second[c]) - first[c]


@compiled
def add_products(values: Any, i: int, size: int, unit: float, out: Any) -> None:
    """Add person i's products on the grid, as `Field.integers` rounds them, to (size + 1, C): those of each of the
    first `size` columns with all, and in the last row the squares."""
    wide = values.shape[1]
    for a in range(size):
        scaled = values[i, a] * unit
        for b in range(wide):
            out[a, b] += np.int64(min(max(np.rint(scaled * values[i, b]), -_MOST), _MOST))
    for b in range(wide):
        out[size, b] += np.int64(min(max(np.rint(values[i, b] * unit * values[i, b]), -_MOST), _MOST))


@compiled
def products(values: Any, size: int, unit: float, out: Any) -> None:
    """The same of everybody."""
    for i in range(len(values)):
        add_products(values, i, size, unit, out)


@compiled
def missing_products(packed: Any, rows: Any, values: Any, size: int, unit: float, out: Any) -> None:
    """(R, size + 1, C) the same of the people without a genotype, for some rows."""
    flat, width = packed.reshape(-1), packed.shape[1]
    for r in range(len(rows)):
        start = rows[r] * width
        for k in range((width + 7) // 8):
            x = word(flat, start, width, k)
            left = x & (x >> _ONE) & _EVERY
            while left:
                add_products(values, 32 * k + (trailing(left) >> 1), size, unit, out[r])
                left &= left - _ONE


@compiled
def missing_imputed(packed: Any, rows: Any, alleles: Any, columns: Any, out: Any) -> None:
    """Add to (R, C) the columns of the people without a genotype, times the (R,) alleles that each is taken to have,
    rounded for each of them."""
    flat, width = packed.reshape(-1), packed.shape[1]
    for r in range(len(rows)):
        start, imputed = rows[r] * width, alleles[r]
        for k in range((width + 7) // 8):
            x = word(flat, start, width, k)
            left = x & (x >> _ONE) & _EVERY
            while left:
                i = 32 * k + (trailing(left) >> 1)
                for c in range(columns.shape[1]):
                    out[r, c] += np.int64(np.rint(imputed * np.float64(columns[i, c])))
                left &= left - _ONE


@compiled
def unpack(packed: Any, people: int, out: Any) -> None:
    """(M, N) codes."""
    for j in range(len(packed)):
        for i in range(people):
            out[j, i] = (packed[j, i >> 2] >> np.uint8(2 * (i & 3))) & np.uint8(3)


@compiled
def take(packed: Any, people: Any, out: Any) -> None:
    """(M, ceil(K / 4)) bytes of K people of those packed (M, ceil(N / 4))."""
    for j in range(len(packed)):
        for b in range(out.shape[1]):
            byte = np.uint8(0)
            for k in range(min(4, len(people) - 4 * b)):
                i = people[4 * b + k]
                byte |= ((packed[j, i >> 2] >> np.uint8(2 * (i & 3))) & np.uint8(3)) << np.uint8(2 * k)
            out[j, b] = byte


@compiled
def stand_for(packed: Any, rows: Any, people: Any, copies: Any, out: Any) -> None:
    """(R, K) what the genotypes of K of the people stand for at some rows: (R, 4) numbers, by code."""
    for r in range(len(rows)):
        row, of = packed[rows[r]], copies[r]
        for i in range(len(people)):
            p = people[i]
            out[r, i] = of[(row[p >> 2] >> ((p & 3) << 1)) & 3]

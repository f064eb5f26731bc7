"""Fast loops over packed genotypes. What they sum are integers: results are equal bit for bit everywhere.

The compiler is loaded when a loop is first called, not when a page that may call it is read. Work is cut by variants
into pieces of a constant size, for two threads.
"""

from __future__ import annotations

from functools import cache, partial
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strategies.kernels.threads import in_pieces

PAIRS_AT_A_TIME = 1 << 15
LOOKED_UP_AT_A_TIME = 4096
"""Variants, or people, that share tables before others do: so many that making the tables is little of the work."""

WORTH_WALKING = 10
"""One person in so many is walked in the time in which all are looked up."""

LANES = 8
"""Columns are filled up to a multiple of this: 512 bits of integers."""

Packed = NDArray[np.uint8]


@cache
def _packed() -> ModuleType:
    from strategies.kernels import packed  # noqa: PLC0415  (half a second of compiler)

    return packed


@cache
def _lookup() -> ModuleType:
    from strategies.kernels import lookup  # noqa: PLC0415  (likewise)

    return lookup


@cache
def _statistics() -> ModuleType:
    from strategies.kernels import statistics  # noqa: PLC0415  (likewise)

    return statistics


@cache
def _pairs() -> ModuleType:
    from strategies.kernels import pairs  # noqa: PLC0415  (likewise)

    return pairs


@cache
def _dosages() -> ModuleType:
    from strategies.kernels import dosages  # noqa: PLC0415  (likewise)

    return dosages


def _words(people: int) -> int:
    return -(-people // 32)


def _filled(values: NDArray[np.float64] | NDArray[np.int64]) -> NDArray[np.float64] | NDArray[np.int64]:
    """(32 W, C') the same (N, C) and zeros."""
    people, columns = values.shape
    out = np.zeros((32 * _words(people), -(-columns // LANES) * LANES), dtype=values.dtype)
    out[:people, :columns] = values
    return out


def counts(packed: Packed, people: int, inside: NDArray[np.bool_] | None = None) -> NDArray[np.int64]:
    """(M, 4) people with 0, 1, 2 or no observed alternate alleles, among all N or those `inside` (N,)."""
    both = np.zeros((32 * _words(people), 2), dtype=bool)
    both[:people] = True if inside is None else inside[:, None]
    bits = np.packbits(both, bitorder="little").view(np.uint64)
    among = people if inside is None else int(np.count_nonzero(inside))
    out, packed = np.empty((len(packed), 4), dtype=np.int64), np.ascontiguousarray(packed)
    in_pieces(lambda s: _packed().count(packed[s], bits, among, out[s]), len(packed))
    return out


def product(
    packed: Packed, rows: NDArray[np.int64], cells: NDArray[np.int64], columns: NDArray[np.int64]
) -> NDArray[np.int64]:
    """(R, C) alternate alleles, 0 where missing, of some rows times (N, C) integers, exact modulo 2^64.

    Args:
        rows: (R,) of the M variants.
        cells: (R, 4) their counts, by which the fewest people are walked; none where those are many.
        columns: (N, C).
    """
    walked = np.stack([cells[:, 1] + cells[:, 2], cells.sum(axis=1) - cells[:, 1], cells.sum(axis=1) - cells[:, 2]])
    taken, often = np.argmin(walked, axis=0), walked.min(axis=0) * WORTH_WALKING > len(columns)
    out, packed = np.empty((len(rows), columns.shape[1]), dtype=np.int64), np.ascontiguousarray(packed)
    out[often] = over_people(packed[rows[often]], columns)
    few, filled = rows[~often], _filled(columns)
    total, some = filled.sum(axis=0), np.empty((len(few), filled.shape[1]), dtype=np.int64)
    in_pieces(lambda s: _packed().product(packed, few[s], taken[~often][s], filled, total, some[s]), len(few))
    out[~often] = some[:, : columns.shape[1]]
    return out


def over_people(packed: Packed, values: NDArray[np.int64]) -> NDArray[np.int64]:
    """(M, C) alternate alleles, 0 where missing, times (N, C) integers, exact modulo 2^64."""
    filled, packed = _filled(values), np.ascontiguousarray(packed)
    out = np.zeros((len(packed), filled.shape[1]), dtype=np.int64)
    in_pieces(lambda s: _lookup().over_people(packed[s], filled, out[s]), len(packed), LOOKED_UP_AT_A_TIME)
    return out[:, : values.shape[1]]


def over_variants(
    packed: Packed, people: int, steps: NDArray[np.int64], values: NDArray[np.int64]
) -> NDArray[np.int64]:
    """(N, C) sums over variants of (M, 4) steps, one for each code, times (M, C) integers, exact modulo 2^64."""
    variants, (_, columns) = -(-len(values) // 16) * 16, values.shape
    stepped = np.zeros((variants, 4), dtype=np.int64)
    filled = np.zeros((variants, -(-columns // LANES) * LANES), dtype=np.int64)
    stepped[: len(steps)], filled[: len(values), :columns] = steps, values
    out, packed = np.zeros((4 * packed.shape[1], filled.shape[1]), dtype=np.int64), np.ascontiguousarray(packed)

    def work(s: slice) -> None:
        _lookup().over_variants(packed, stepped, filled, s.start, s.stop, out[4 * s.start : 4 * s.stop])

    in_pieces(work, packed.shape[1], LOOKED_UP_AT_A_TIME // 4)
    return out[:people, :columns]


def products(values: NDArray[np.float64], size: int, fraction_bits: int) -> NDArray[np.int64]:
    """(size + 1, C) sums over people of the products on the grid of (N, C) values: of each of the first `size` columns
    with all, and in the last row the squares."""
    filled = _filled(values)
    out = np.zeros((size + 1, filled.shape[1]), dtype=np.int64)
    _packed().products(filled, size, 2.0**fraction_bits, out)
    return out[:, : values.shape[1]]


def missing_products(
    packed: Packed, rows: NDArray[np.int64], values: NDArray[np.float64], size: int, fraction_bits: int
) -> NDArray[np.int64]:
    """(R, size + 1, C) the same over the people without a genotype, for some rows."""
    filled, packed = _filled(values), np.ascontiguousarray(packed)
    out = np.zeros((len(rows), size + 1, filled.shape[1]), dtype=np.int64)
    unit = 2.0**fraction_bits
    in_pieces(lambda s: _packed().missing_products(packed, rows[s], filled, size, unit, out[s]), len(rows))
    return out[:, :, : values.shape[1]]


def missing_imputed(
    packed: Packed, rows: NDArray[np.int64], alleles: NDArray[np.float64], columns: NDArray[np.int64]
) -> NDArray[np.int64]:
    """(R, C) sums over the people without a genotype of (N, C) integers times the (R,) alleles that each is taken to
    have, each rounded."""
    filled, packed = _filled(columns), np.ascontiguousarray(packed)
    out = np.zeros((len(rows), filled.shape[1]), dtype=np.int64)
    in_pieces(lambda s: _packed().missing_imputed(packed, rows[s], alleles[s], filled, out[s]), len(rows))
    return out[:, : columns.shape[1]]


def dosage_powers(dosages: NDArray[np.uint16], inside: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(M, 2) sums of (M, N) dosages, and of their squares, of those who have one among `inside` (N,)."""
    out = np.zeros((len(dosages), 2), dtype=np.int64)
    in_pieces(lambda s: _dosages().powers(dosages[s], inside, out[s]), len(dosages))
    return out


def dosage_product(
    dosages: NDArray[np.uint16], rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> NDArray[np.int64]:
    """(R, C) alleles, 0 where missing, of some rows of (M, N) dosages times (N, C) integers, each product rounded."""
    filled = _filled(columns)[: len(columns)]
    out = np.zeros((len(rows), filled.shape[1]), dtype=np.int64)
    in_pieces(lambda s: _dosages().product(dosages, rows[s], filled, out[s]), len(rows))
    return out[:, : columns.shape[1]]


def pair_sums(
    packed: Packed, pairs: NDArray[np.int64], some: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(P,) sums over people of the alternate alleles at one variant times those at the other, 0 where missing, of
    (P, 2) pairs of rows; and (Q, 5) numbers of people, as `pairs.add_observed` gives them, of some of the pairs."""
    products, observed = np.zeros(len(pairs), dtype=np.int64), np.zeros((len(some), 5), dtype=np.int64)
    one, other = np.ascontiguousarray(pairs.T)
    a, b, step = one[some], other[some], _pairs().BYTES_AT_A_TIME
    for start in range(0, packed.shape[1], step):
        bits = _pairs().planes(packed, start, min(start + step, packed.shape[1]))
        in_pieces(partial(_multiply, bits, one, other, products), len(pairs), PAIRS_AT_A_TIME)
        in_pieces(partial(_observe, bits, a, b, observed), len(some), PAIRS_AT_A_TIME)
    return products, observed


def _multiply(bits: Any, one: Any, other: Any, out: Any, s: slice) -> None:
    _pairs().add_products(bits, one[s], other[s], out[s])


def _observe(bits: Any, one: Any, other: Any, out: Any, s: slice) -> None:
    _pairs().add_observed(bits, one[s], other[s], out[s])


def dosage_squares(
    dosages: NDArray[np.uint16], rows: NDArray[np.int64], column: NDArray[np.int64]
) -> NDArray[np.int64]:
    """(R,) squared alleles, 0 where missing, of some rows of (M, N) dosages times (N,) integers, each product
    rounded."""
    out = np.zeros(len(rows), dtype=np.int64)
    in_pieces(lambda s: _dosages().squares(dosages, rows[s], column, out[s]), len(rows))
    return out


def stand_for(
    packed: Packed,
    dosages: NDArray[np.uint16] | None,
    rows: NDArray[np.int64],
    people: NDArray[np.int64],
    missing: NDArray[np.float64],
    shift: NDArray[np.float64],
) -> NDArray[np.float64]:
    """(R, K) alleles of K of the people at some rows, by dosages if there are any, or (R,) `missing`, less (R,)
    `shift`. For a thread of its own, and a few rows."""
    out = np.empty((len(rows), len(people)))
    if dosages is not None:
        _dosages().stand_for(dosages, rows, people, missing, shift, out)
        return out
    none, one, two = (np.full(len(rows), number) for number in (0.0, 1.0, 2.0))
    copies = np.stack([none, one, two, missing], axis=1) - shift[:, None]
    _packed().stand_for(packed, rows, people, copies, out)
    return out


def unpack(packed: Packed, people: int) -> NDArray[np.uint8]:
    """(M, N) codes."""
    out = np.empty((len(packed), people), dtype=np.uint8)
    in_pieces(lambda s: _packed().unpack(packed[s], people, out[s]), len(packed))
    return out


def take(packed: Packed, people: NDArray[np.int64]) -> Packed:
    """(M, ceil(K / 4)) bytes of K of the people, in the order given."""
    out = np.empty((len(packed), -(-len(people) // 4)), dtype=np.uint8)
    in_pieces(lambda s: _packed().take(packed[s], people, out[s]), len(packed))
    return out


def hardy_weinberg(cells: NDArray[np.int64]) -> NDArray[np.float64]:
    """(M,) exact p values of (M, 3) genotype counts; NaN where nobody is."""
    out = np.empty(len(cells))
    in_pieces(lambda s: _statistics().hardy_weinberg(cells[s], out[s]), len(cells))
    return out


def regress(
    products: NDArray[np.int64],
    missing: NDArray[np.int64],
    at: NDArray[np.int64],
    pairs: tuple[NDArray[np.int64], NDArray[np.int64]],
    unit: float,
    scores: NDArray[np.float64],
    squares: NDArray[np.float64],
    degrees: NDArray[np.int64],
    size: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(M, P) slope of each variant's genotype in the regression of each trait on it and the covariates, and its
    standard error; NaN where there is none. See `statistics.regress` for the arguments."""
    beta, error = (np.empty((len(at), scores.shape[1] - size)) for _ in range(2))
    places = at, scores, squares, degrees

    def work(s: slice) -> None:
        mine, score, square, free = (a[s] for a in places)
        _statistics().regress(products, missing, mine, *pairs, unit, score, square, free, size, beta[s], error[s])

    in_pieces(work, len(at))
    return beta, error

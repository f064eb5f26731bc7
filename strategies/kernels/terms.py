"""Each person's terms of a likelihood's derivatives, rounded and added: sums are of integers, in any order the same."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from strategies.kernels.compiled import compiled
from strategies.likelihood import MOST_FACTOR
from strategies.summary import MOST_CONTRIBUTION

LANES = 8
"""Columns are filled up to a multiple of this: 512 bits of integers."""

_MOST = MOST_CONTRIBUTION


@compiled
def _held(value: float, most: float) -> Any:
    """The nearest integer within bounds; 0 for what is no number."""
    if value != value:  # noqa: PLR0124
        return 0
    return np.int64(min(max(np.rint(value), -most), most))


@compiled
def whole(x: Any, unit: float) -> Any:
    """(N, L) integers of (N, k) columns on a grid, filled up with zeros."""
    people, k = x.shape
    out = np.zeros((people, -(-k // LANES) * LANES), np.int64)
    for i in range(people):
        for j in range(k):
            out[i, j] = _held(x[i, j] * unit, MOST_FACTOR)
    return out


@compiled
def along(x: Any, coefficients: Any) -> Any:
    """(N,) sums of (N, k) columns times (k,) coefficients, from left to right."""
    out = np.zeros(len(x))
    for i in range(len(x)):
        for j in range(len(coefficients)):
            out[i] += x[i, j] * coefficients[j]
    return out


@compiled
def softplus(odds: float) -> float:
    """log(1 + exp(odds))."""
    return max(odds, 0.0) + math.log1p(math.exp(-abs(odds)))


@compiled
def bend(odds: Any, cases: Any, residuals: Any, weights: Any) -> None:
    """(N,) y - mu and mu (1 - mu)."""
    for i in range(len(odds)):
        e = math.exp(-abs(odds[i]))
        far = 1.0 / (1.0 + e)
        near = e * far
        weights[i] = near * far
        if cases[i]:
            residuals[i] = near if odds[i] > 0 else far
        else:
            residuals[i] = -far if odds[i] > 0 else -near


@compiled
def correct(odds: Any, anchor: Any, first: Any, rest: Any, inverse: Any, residuals: Any) -> None:
    """Add h (1 / 2 - mu) to (N,) residuals, with the leverages h = w x' A x, w at the anchor's log odds."""
    people, k = rest.shape
    image = np.empty(k + 1)
    for i in range(people):
        x = rest[i]
        for a in range(k + 1):
            image[a] = inverse[0, a] * first[i]
        for b in range(k):
            for a in range(k + 1):
                image[a] += inverse[b + 1, a] * x[b]
        h = image[0] * first[i]
        for b in range(k):
            h += image[b + 1] * x[b]
        e = math.exp(-abs(anchor[i]))
        h *= e / ((1.0 + e) * (1.0 + e))
        h = min(max(h, 0.0), 1.0) if h == h else 0.0  # noqa: PLR0124
        far = 1.0 / (1.0 + math.exp(-abs(odds[i])))
        residuals[i] += h * (0.5 - far if odds[i] > 0 else far - 0.5)


@compiled
def add_terms(
    first: Any, rest: Any, integers: Any, residuals: Any, weights: Any, units: Any, scores: Any, products: Any
) -> None:
    """Add residual times column, and weight times the products of each pair of columns.

    A term is rounded. Where neither column is the first, both of its factors are, which is much faster; few people may
    have all the weight in the first, so there it would show.

    Args:
        first, rest: (N,) and (N, k) columns.
        integers: (N, L) the latter by `whole`.
        residuals, weights: (N,).
        units: of scores, of weight times column, and of the column that it is multiplied by.
        scores: (1 + k,) added to.
        products: (1 + k, 1 + L) added to, right above the diagonal.
    """
    people, k = rest.shape
    wide = integers.shape[1]
    weighted = np.empty(k, np.int64)
    for i in range(people):
        x, z = rest[i], integers[i]
        scores[0] += _held(residuals[i] * first[i] * units[0], _MOST)
        for b in range(k):
            scores[b + 1] += _held(residuals[i] * x[b] * units[0], _MOST)
        one = weights[i] * first[i]
        products[0, 0] += _held(one * first[i] * units[0], _MOST)
        for b in range(k):
            products[0, b + 1] += _held(one * x[b] * units[0], _MOST)
        for a in range(k):
            weighted[a] = _held(weights[i] * x[a] * units[1], MOST_FACTOR)
        for a in range(k):
            for b in range(wide):
                products[a + 1, b + 1] += weighted[a] * z[b]


@compiled
def hit(
    first: Any,
    rest: Any,
    integers: Any,
    cases: Any,
    null: Any,
    base: Any,
    at: Any,
    anchor: Any,
    inverse: Any,
    units: Any,
    scores: Any,
    products: Any,
) -> int:
    """The terms of one variant's model; returns the sum of what each person's log likelihood gains over the null model.

    Args:
        first, rest, integers, units, scores, products: as `add_terms` takes them.
        cases: (N,) y.
        null: (N,) the null model's log odds.
        base: (N,) log odds to which the columns add.
        at: (1 + k,) coefficients.
        anchor, inverse: (1 + k,) and (1 + k, 1 + k) where leverages are taken; empty without Firth's penalty.
    """
    people = len(first)
    odds = base + first * at[0] + along(rest, at[1:])
    residuals, weights, total = np.empty(people), np.empty(people), 0
    bend(odds, cases, residuals, weights)
    if len(anchor):
        correct(odds, base + first * anchor[0] + along(rest, anchor[1:]), first, rest, inverse, residuals)
    add_terms(first, rest, integers, residuals, weights, units, scores, products)
    for i in range(people):
        gain = softplus(null[i]) - softplus(odds[i])
        if cases[i]:
            gain += odds[i] - null[i]
        total += _held(gain * units[3], _MOST)
    return total


@compiled
def tails(null: Any, value: Any, at: Any, unit: float, cumulants: Any, ends: Any) -> None:
    """Add each person's part in K, K' and K'' at both t (2, 3), and in the lowest and the highest score (2,)."""
    for i in range(len(null)):
        e = math.exp(-abs(null[i]))
        far = 1.0 / (1.0 + e)
        mu = far if null[i] > 0 else e * far
        rest = e * far if null[i] > 0 else far
        a = value[i]
        ends[0] += _held(min(a * rest, -a * mu) * unit, _MOST)
        ends[1] += _held(max(a * rest, -a * mu) * unit, _MOST)
        level = softplus(null[i])
        for tail in range(2):
            moved = null[i] + a * at[tail]
            e = math.exp(-abs(moved))
            far = 1.0 / (1.0 + e)
            tilted = far if moved > 0 else e * far
            cumulants[tail, 0] += _held((softplus(moved) - level - a * at[tail] * mu) * unit, _MOST)
            cumulants[tail, 1] += _held(a * (tilted - mu) * unit, _MOST)
            cumulants[tail, 2] += _held(a * a * e * far * far * unit, _MOST)

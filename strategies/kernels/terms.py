"""Each person's terms of a likelihood's derivatives, rounded and added: sums are of integers, in any order the same.

Some hundreds of people are taken at a time, one operation after another on all of them: columns stand (k, N), and loops
over people are ones that a compiler makes eight steps of at once.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from strategies.kernels.compiled import compiled
from strategies.likelihood import MOST_FACTOR
from strategies.summary import MOST_CONTRIBUTION

PEOPLE_AT_A_TIME = 480
"""Their numbers stay in the nearest cache. Arrays that lie 4,096 bytes apart would make loops three times slower."""

_MOST = MOST_CONTRIBUTION

_PER_HALVING = 1.4426950408889634
_HALVING_HIGH, _HALVING_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
"""log 2 as a number with 32 bits and the rest."""

_INTEGERS = 6755399441055744.0
"""1.5 * 2^52: added, it leaves a whole number in the lowest bits."""

_LEAST = -700.0
"""exp of less is taken to be exp of this."""

_FACTORIALS = tuple(1.0 / float(np.prod(np.arange(1.0, n + 1))) for n in range(14))
_ODD = tuple(1.0 / n for n in range(1, 24, 2))
_LOG_THREE_HALVES = 0.4054651081081644


@compiled
def _held(value: float, most: float) -> Any:
    """The nearest integer within bounds; 0 for what is no number."""
    if value != value:  # noqa: PLR0124
        return 0
    return np.int64(min(max(np.rint(value), -most), most))


@compiled
def decays(odds: Any, out: Any) -> None:
    """exp(-|odds|) to the last bit but one: with r = x - m log 2, 2^m times Taylor's series of exp(r)."""
    shifted = np.empty(len(odds))
    for i in range(len(odds)):
        x = max(-abs(odds[i]), _LEAST)
        s = x * _PER_HALVING + _INTEGERS
        m = s - _INTEGERS
        r = (x - m * _HALVING_HIGH) - m * _HALVING_LOW
        series = _FACTORIALS[13]
        for n in range(12, -1, -1):
            series = series * r + _FACTORIALS[n]
        shifted[i], out[i] = s, series
    whole, bits = shifted.view(np.int64), out.view(np.int64)
    for i in range(len(odds)):
        bits[i] += whole[i] << 52


@compiled
def softplus(odds: Any, decay: Any, out: Any) -> None:
    """log(1 + exp(odds)), where `decay` is e = exp(-|odds|). With c = 1 or 3 / 2, log(1 + e) is log c + 2 artanh s of
    s = (1 + e - c) / (1 + e + c), which is at most 1 / 5."""
    for i in range(len(odds)):
        e = decay[i]
        less = 0.5 if e > 0.5 else 0.0
        s = (e - less) / (2.0 + less + e)
        z = s * s
        series = _ODD[11]
        for n in range(10, -1, -1):
            series = series * z + _ODD[n]
        out[i] = max(odds[i], 0.0) + ((_LOG_THREE_HALVES if e > 0.5 else 0.0) + 2.0 * s * series)


@compiled
def levels(odds: Any) -> Any:
    """(N,) log(1 + exp(odds))."""
    decay, out = np.empty(len(odds)), np.empty(len(odds))
    decays(odds, decay)
    softplus(odds, decay, out)
    return out


@compiled
def whole(across: Any, unit: float) -> Any:
    """Integers of (k, N) columns on a grid."""
    out = np.empty(across.shape, np.int64)
    for j in range(len(across)):
        for i in range(across.shape[1]):
            out[j, i] = _held(across[j, i] * unit, MOST_FACTOR)
    return out


@compiled
def _along(across: Any, coefficients: Any, start: int, out: Any) -> None:
    """Sums of (k, N) columns times (k,) coefficients from the first to the last, of the people from `start`."""
    out[:] = 0.0
    for j in range(len(coefficients)):
        for i in range(len(out)):
            out[i] += across[j, start + i] * coefficients[j]


@compiled
def along(across: Any, coefficients: Any) -> Any:
    """(N,) the same of everybody."""
    out = np.empty(across.shape[1])
    _along(across, coefficients, 0, out)
    return out


@compiled
def _odds(base: Any, first: Any, across: Any, at: Any, start: int, out: Any) -> None:
    """Log odds of the people from `start`, base + first a + columns c with (a, c) in `at`; 0 for what is no number."""
    _along(across, at[1:], start, out)
    for i in range(len(out)):
        moved = base[start + i] + first[start + i] * at[0] + out[i]
        out[i] = moved if moved == moved else 0.0  # noqa: PLR0124


@compiled
def _bend(odds: Any, decay: Any, cases: Any, residuals: Any, weights: Any) -> None:
    """y - mu and mu (1 - mu), where `decay` is exp(-|odds|)."""
    for i in range(len(odds)):
        far = 1.0 / (1.0 + decay[i])
        near = decay[i] * far
        weights[i] = near * far
        mu = far if odds[i] > 0 else near
        rest = near if odds[i] > 0 else far
        residuals[i] = rest if cases[i] else -mu


@compiled
def bend(odds: Any, cases: Any, residuals: Any, weights: Any) -> None:
    """(N,) y - mu and mu (1 - mu)."""
    decay = np.empty(len(odds))
    decays(odds, decay)
    _bend(odds, decay, cases, residuals, weights)


@compiled
def _leverages(decay: Any, first: Any, across: Any, inverse: Any, start: int, out: Any) -> None:
    """h = w x' A x of the people from `start`, A symmetric, with w of the log odds whose exp(-|odds|) is `decay`."""
    image = np.empty(len(out))
    for i in range(len(out)):
        out[i] = inverse[0, 0] * first[start + i] * first[start + i]
    for a in range(len(across)):
        for i in range(len(out)):
            image[i] = 2.0 * inverse[0, a + 1] * first[start + i]
        for b in range(a):
            for i in range(len(out)):
                image[i] += 2.0 * inverse[b + 1, a + 1] * across[b, start + i]
        for i in range(len(out)):
            out[i] += (image[i] + inverse[a + 1, a + 1] * across[a, start + i]) * across[a, start + i]
    for i in range(len(out)):
        e = decay[i]
        h = out[i] * (e / ((1.0 + e) * (1.0 + e)))
        out[i] = min(max(h, 0.0), 1.0) if h == h else 0.0  # noqa: PLR0124


@compiled
def _add_terms(
    first: Any,
    across: Any,
    integers: Any,
    start: int,
    residuals: Any,
    weights: Any,
    units: Any,
    scores: Any,
    products: Any,
) -> None:
    """Add residual times column, and weight times the products of each pair of columns, of the people from `start`.

    A term is rounded. Where neither column is the first, both of its factors are, which is much faster; few people may
    have all the weight in the first, so there it would show.

    Args:
        first, across: (N,) and (k, N) columns.
        integers: (k, N) the latter by `whole`.
        residuals, weights: of the people from `start`.
        units: of scores, of weight times column, and of the column that it is multiplied by.
        scores: (1 + k,) added to.
        products: (1 + k, 1 + k) added to, above the diagonal.
    """
    people, k = len(residuals), len(across)
    score, square = 0, 0
    for i in range(people):
        score += _held(residuals[i] * first[start + i] * units[0], _MOST)
        square += _held(weights[i] * first[start + i] * first[start + i] * units[0], _MOST)
    scores[0] += score
    products[0, 0] += square
    for b in range(k):
        score, product = 0, 0
        for i in range(people):
            score += _held(residuals[i] * across[b, start + i] * units[0], _MOST)
            product += _held(weights[i] * first[start + i] * across[b, start + i] * units[0], _MOST)
        scores[b + 1] += score
        products[0, b + 1] += product
    weighted = np.empty(people, np.int64)
    for a in range(k):
        for i in range(people):
            weighted[i] = _held(weights[i] * across[a, start + i] * units[1], MOST_FACTOR)
        for b in range(a, k):
            product = 0
            for i in range(people):
                product += weighted[i] * integers[b, start + i]
            products[a + 1, b + 1] += product


@compiled
def hit(
    first: Any,
    across: Any,
    integers: Any,
    cases: Any,
    null: Any,
    level: Any,
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
        first, across, integers, units, scores, products: as `_add_terms` takes them.
        cases: (N,) y.
        null, level: (N,) the null model's log odds, and `levels` of them.
        base: (N,) log odds to which the columns add.
        at: (1 + k,) coefficients.
        anchor, inverse: (1 + k,) and (1 + k, 1 + k) where leverages are taken; empty without Firth's penalty.
    """
    total = 0
    for start in range(0, len(first), PEOPLE_AT_A_TIME):
        people = min(PEOPLE_AT_A_TIME, len(first) - start)
        odds, decay, residuals = np.empty(people), np.empty(people), np.empty(people)
        weights, other, anchored = np.empty(people), np.empty(people), np.empty(people)
        _odds(base, first, across, at, start, odds)
        decays(odds, decay)
        _bend(odds, decay, cases[start : start + people], residuals, weights)
        softplus(odds, decay, other)
        for i in range(people):
            gain = level[start + i] - other[i] + ((odds[i] - null[start + i]) if cases[start + i] else 0.0)
            total += _held(gain * units[3], _MOST)
        if len(anchor):
            _odds(base, first, across, anchor, start, other)
            decays(other, anchored)
            _leverages(anchored, first, across, inverse, start, other)
            for i in range(people):
                far = 1.0 / (1.0 + decay[i])
                residuals[i] += other[i] * (0.5 - far if odds[i] > 0 else far - 0.5)
        _add_terms(first, across, integers, start, residuals, weights, units, scores, products)
    return total


@compiled
def _without(alleles: Any, across: Any, out: Any, first: Any) -> None:
    """(N,) a variant's column: (N,) alleles less (k, N) columns times (k,) `out`."""
    _along(across, out, 0, first)
    for i in range(len(first)):
        first[i] = alleles[i] - first[i]


@compiled
def hits(
    alleles: Any,
    covariates: Any,
    out: Any,
    across: Any,
    integers: Any,
    cases: Any,
    null: Any,
    level: Any,
    base: Any,
    at: Any,
    anchor: Any,
    inverse: Any,
    units: Any,
    scores: Any,
    products: Any,
    gains: Any,
) -> None:
    """`hit` of some variants, each with a row of `alleles`, `out`, `at`, `anchor`, `inverse`, and of the sums.

    Args:
        alleles: (H, N) what each person's genotype stands for.
        covariates, out: (k, N) and (H, k) what is taken out of it.
        gains: (H,) sums of what log likelihoods gain.
    """
    first = np.empty(alleles.shape[1])
    for h in range(len(alleles)):
        _without(alleles[h], covariates, out[h], first)
        gains[h] = hit(
            first, across, integers, cases, null, level, base, at[h], anchor[h], inverse[h], units, scores[h],
            products[h],
        )  # fmt: skip


@compiled
def tails(null: Any, level: Any, value: Any, at: Any, unit: float, cumulants: Any, ends: Any) -> None:
    """Add each person's part in K, K' and K'' at both t (2, 3), and in the lowest and the highest score (2,)."""
    for start in range(0, len(null), PEOPLE_AT_A_TIME):
        people = min(PEOPLE_AT_A_TIME, len(null) - start)
        mu, decay, moved, bent = np.empty(people), np.empty(people), np.empty(people), np.empty(people)
        here, a = null[start : start + people], value[start : start + people]
        decays(here, decay)
        low, high = 0, 0
        for i in range(people):
            far = 1.0 / (1.0 + decay[i])
            mu[i] = far if here[i] > 0 else decay[i] * far
            rest = decay[i] * far if here[i] > 0 else far
            low += _held(min(a[i] * rest, -a[i] * mu[i]) * unit, _MOST)
            high += _held(max(a[i] * rest, -a[i] * mu[i]) * unit, _MOST)
        ends[0] += low
        ends[1] += high
        for tail in range(2):
            t = at[tail]
            for i in range(people):
                odds = here[i] + a[i] * t
                moved[i] = odds if odds == odds else 0.0  # noqa: PLR0124
            decays(moved, decay)
            softplus(moved, decay, bent)
            k, slope, curve = 0, 0, 0
            for i in range(people):
                far = 1.0 / (1.0 + decay[i])
                tilted = far if moved[i] > 0 else decay[i] * far
                k += _held((bent[i] - level[start + i] - a[i] * t * mu[i]) * unit, _MOST)
                slope += _held(a[i] * (tilted - mu[i]) * unit, _MOST)
                curve += _held(a[i] * a[i] * decay[i] * far * far * unit, _MOST)
            cumulants[tail, 0] += k
            cumulants[tail, 1] += slope
            cumulants[tail, 2] += curve


@compiled
def tilts(
    alleles: Any,
    covariates: Any,
    out: Any,
    null: Any,
    level: Any,
    at: Any,
    unit: float,
    cumulants: Any,
    ends: Any,
) -> None:
    """`tails` of some variants, each with a row of `alleles`, `out`, `at` and of the sums; else as `hits`."""
    first = np.empty(alleles.shape[1])
    for h in range(len(alleles)):
        _without(alleles[h], covariates, out[h], first)
        tails(null, level, first, at[h], unit, cumulants[h], ends[h])

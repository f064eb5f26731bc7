"""The distribution of a quadratic form in normals: Q = sum_i weight[i] X_i^2 with independent standard normal X_i.

Both tails are found to a relative error of about 1e-9, however small, by inverting the moment generating function

    M(s) = prod_i (1 - 2 weight[i] s)^(-1/2),   P(Q > x) = 1 / (2 pi i) int exp(-s x) M(s) / s ds,

along a path through the saddlepoint [1] that bends towards the right half-plane, where exp(-s x) vanishes: past the
branch points, which lie on the real axis, and the integrand's oscillations [2]. The trapezoidal rule then converges
exponentially. It takes the place of Davies' algorithm, whose error is absolute.

[1] Kuonen: Saddlepoint approximations for distributions of quadratic forms in normal variables, Biometrika 86 (1999).
[2] Trefethen, Weideman: The exponentially convergent trapezoidal rule, SIAM Review 56 (2014), section 15.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LEAST_WEIGHT = 1e-10
"""Relative to the largest; what is smaller is rounding."""

STEP, POINTS, MOST_BLOCKS = 0.08, 128, 100
"""Of the trapezoidal rule: its step in units of the saddlepoint's width, and how many points are taken at a time, until
they add nothing."""


def upper_tail(x: float, weights: NDArray[np.float64]) -> float:
    """P(Q > x); NaN without a positive weight.

    Args:
        x: a value of Q.
        weights: (m,) weights, not negative but for rounding.

    >>> round(upper_tail(3.841459, np.array([1.0])), 6), round(upper_tail(9.210340, np.array([1.0, 1.0])), 6)
    (0.05, 0.01)
    """
    weights = weights[weights > LEAST_WEIGHT * weights.max(initial=0.0)]
    if not len(weights):
        return float("nan")
    if not x > 0:
        return 1.0
    mean = float(weights.sum())
    x, weights = x / mean, weights / mean
    # The path crosses the real axis at the saddlepoint, or beside it where that is next to the pole at 0.
    limit = 1 / (2 * weights.max())
    beside = min(0.5 / np.sqrt(2 * (weights**2).sum()), limit / 2)
    at = _saddlepoint(x, weights)
    at = at if abs(at) > beside else beside
    width = 1 / np.sqrt((2 * weights**2 / (1 - 2 * weights * at) ** 2).sum())
    room = limit - at
    bend, integral = width**2 / (2 * room), 0.0
    for block in range(MOST_BLOCKS):
        t = STEP * (np.arange(block * POINTS, (block + 1) * POINTS) + 0.5)
        s = at + 1j * width * t + bend * t**2
        log = -s * x - 0.5 * np.log(1 - 2 * weights[:, None] * s).sum(axis=0)
        terms = (np.exp(log) / s * (1j * width + 2 * bend * t)).imag * (STEP / np.pi)
        integral += float(terms.sum())
        if np.abs(terms[-8:]).max() <= 1e-17 * abs(integral):
            break
    return float(min(max(integral if at > 0 else 1 + integral, 0.0), 1.0))


def _saddlepoint(x: float, weights: NDArray[np.float64]) -> float:
    """Where d/ds log M(s) = x, by bisection: it increases from 0 to infinity below 1 / (2 largest weight)."""
    high = 1 / (2 * weights.max())
    low = min(-1.0, -len(weights) / x)
    for _ in range(60):
        middle = (low + high) / 2
        if (weights / (1 - 2 * weights * middle)).sum() < x:
            low = middle
        else:
            high = middle
    return float(low + high) / 2

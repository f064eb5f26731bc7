"""How much log odds may change over people's covariates for a node to sum under them: models that a coordinator states.

If log odds leapt at a point of the coordinator's choice, sums would count who lies beyond, and those of two such points
tell of the people in between. So a node takes no model that is steep over the declared ranges. Nothing that a
coordinator states, means and deviations among it, makes a model flatter than it is, and the refusal depends on nobody.

What holds, among people with as many copies: weights w of two whose covariates lie d half ranges apart differ by a
factor of exp(64 d) at most; and of N who lie evenly over one covariate's range, those who carry the weight are N / 64
at least, by (sum w)^2 / sum w^2. What does not: who lies far from everybody else, in one covariate or in many at once,
may carry most of it; and from very many exact sums about known covariates genotypes follow by linear equations.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

STEEPEST = 64.0
"""Log odds over half a range of a covariate, or of several, as the length of all slopes and the intercept. Beside ten
principal components within 32 deviations those are 2 for a deviation of one, 0.6 for one of each."""

ROUNDED = 1e-9
"""Of the largest eigenvalue of a sum of squares, how much of it the smallest may be below 0."""


def steep(coefficients: Floats, scale: Floats) -> NDArray[np.bool_]:
    """(H,) which of (H, 1 + K) intercepts and slopes of K covariates in deviations are too long, or no numbers.

    Args:
        coefficients: of the intercept and the covariates.
        scale: (K,) deviations in half ranges.

    >>> steep(np.array([[-3.0, 0.5, 2.0], [-3.0, 0.5, 7.0]]), np.array([0.5, 0.1])).tolist()
    [False, True]
    """
    lengths = np.linalg.norm(coefficients / np.append(1.0, scale), axis=1)
    return np.asarray(~(lengths <= STEEPEST), dtype=np.bool_)


def steep_squares(forms: Floats, scale: Floats) -> NDArray[np.bool_]:
    """(H,) which of (H, 2 + K, 2 + K) quadratic forms of copies, intercept and covariates are longer in some direction
    than 64, or no sums of squares: leverages of such a form would mark a thin slice of people out, as a leap does."""
    unit = np.concatenate([[1.0, 1.0], scale])
    forms = forms / np.outer(unit, unit)
    held = np.asarray((np.abs(forms) <= STEEPEST**2).all(axis=(1, 2)))
    spectrum = np.linalg.eigvalsh(np.where(held[:, None, None], forms, 0.0))
    least, most = spectrum[:, 0], spectrum[:, -1]
    return np.asarray(~held | (most > STEEPEST**2) | (least < -ROUNDED * most), dtype=np.bool_)

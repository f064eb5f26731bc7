"""A step towards the maximum of one model's likelihood, from sums alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

CONVERGED = 1e-20
"""Newton decrement g' I^-1 g, a chi-square: estimates are then within 10^-10 of their standard errors."""

LONGEST = 5.0
"""Of a step, in a standardised column's coefficient."""

FLAT = 1e-12
"""A likelihood that falls by less, relative to itself, is not told from one that has been rounded."""

SINGULAR = 1e-8
"""The smallest eigenvalue of an information matrix whose diagonal is 1, in which columns do not explain one another:
what is left of doubles then has eight digits."""

LEAST = 1e-13
"""Of such an eigenvalue by which a step is divided."""


@dataclass(frozen=True, eq=False)
class Step:
    """One step.

    Attributes:
        following: (q,) where the next round looks.
        search: (q + 1,) the best estimate so far and its likelihood.
        done: whether this round's estimate is the maximum.
    """

    following: Floats
    search: Floats
    done: bool


def step(at: Floats, search: Floats, score: Floats, information: Floats, value: float) -> Step:
    """A step of Newton's method, or half of the way back where the likelihood fell.

    Where the information is not positive, as far from the maximum of a negative binomial likelihood, eigenvalues are
    taken without their signs, so that the step still goes up.

    Args:
        at: (q,) where this round looked.
        search: as `Step` has it, or empty.
        score: (q,) its derivatives.
        information: (q, q) its second derivatives, with the sign changed.
        value: the log likelihood.
    """
    if len(search) and value < search[-1] - FLAT * (1 + abs(search[-1])):
        return Step((search[:-1] + at) / 2, search, False)
    scale, spectrum, vectors = decomposed(information)
    lengths = np.maximum(np.abs(spectrum), LEAST)
    direction = vectors @ ((vectors.T @ (score / scale)) / lengths) / scale
    done = bool(spectrum[0] > 0 and direction @ score < CONVERGED)
    direction *= min(1.0, LONGEST / max(float(np.abs(direction).max(initial=0.0)), LONGEST))
    return Step(at + direction, np.append(at, value), done)


def decomposed(matrix: Floats) -> tuple[Floats, Floats, Floats]:
    """(q,) what the diagonal is divided by to be 1, and eigenvalues, ascending, and vectors of what comes out."""
    scale = np.sqrt(np.maximum(np.abs(np.diagonal(matrix)), 1e-300))
    spectrum, vectors = np.linalg.eigh(matrix / np.outer(scale, scale))
    return scale, spectrum, vectors


def dependent(matrix: Floats, names: tuple[str, ...]) -> str:
    """Names of the columns that explain one another in (k, k) sums of their products; nothing if none do."""
    if not len(matrix):
        return ""
    _, spectrum, vectors = decomposed(matrix)
    return "" if spectrum[0] >= SINGULAR else leading(vectors[:, 0], names)


def weakest(information: Floats) -> Floats:
    """(k,) the direction in which least is known."""
    return np.asarray(np.linalg.eigh(information)[1][:, 0])


def leading(direction: Floats, names: tuple[str, ...]) -> str:
    """Names of the columns along which a direction mainly runs."""
    weights = np.abs(direction)
    return ", ".join(name for name, w in zip(names, weights, strict=True) if w > 0.1 * weights.max())


def symmetric(above: Floats, size: int) -> Floats:
    """(k, k) from the entries above and on the diagonal, row by row."""
    out = np.empty((size, size))
    i, j = np.triu_indices(size)
    out[i, j] = out[j, i] = above
    return out

"""Linear systems A x = b of which every entry carries noise: their solution, and what the noise does to it.

With A = A_0 + E_A and b = A_0 x_0 + r_0 + E_b,

    x - x_0 = A^-1 (r_0 + E_b - E_A x_0)

exactly. The noise of an entry above the diagonal of A stands below it, too, hence for noise tau_A and tau_b wide

    Var (E_b - E_A x) = tau_b^2 I + tau_A^2 (|x|^2 I + x x' - diag(x^2)),

with x in the place of x_0 and as if A and its noise were independent: delta method.

Where the least eigenvalue of A is below tau_A sqrt(p log(2 p^2 / 0.05)), about as large as noise makes one, a ridge
lifts it there [1, algorithm 1; theirs is of an eigenvalue with noise of its own, ours of the noised matrix, which costs
nothing]. Solutions are then drawn towards 0 by nobody knows how much.

[1] Wang: Revisiting differentially private linear regression: optimal and adaptive prediction and estimation in
    unbounded domain, UAI 2018.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

FAILURE = 0.05
"""Of [1]: the probability that noise alone has a longer eigenvalue than the ridge counts on."""

LEAST_EIGENVALUE = 1e-6
"""Of a matrix without noise, which is solved all the same."""

LEAST_SHARE = 0.01
"""Of the mean eigenvalue, to which `held` lifts the others: it does not know how wide the noise is."""

LEAST_WEIGHT = 1e-3
"""To which it lifts them at least, in people's weights."""


@dataclass(frozen=True, eq=False)
class NoisedSystem:
    """A x = b.

    Attributes:
        matrix: (p, p) A, symmetric.
        right: (p,) b.
        matrix_noise, right_noise: standard deviation of the noise in each entry.

    >>> one = NoisedSystem(np.array([[100.0]]), np.array([20.0]), 1.0, 1.0)
    >>> float(one.solution[0]), round(float(one.noise[0, 0]), 6), one.ridge
    (0.2, 1.04, 0.0)
    """

    matrix: Floats
    right: Floats
    matrix_noise: float
    right_noise: float

    @cached_property
    def ridge(self) -> float:
        """What is added to the diagonal; 0 where A stands out from its noise."""
        p = len(self.matrix)
        enough = max(self.matrix_noise * math.sqrt(p * math.log(2 * p**2 / FAILURE)), LEAST_EIGENVALUE)
        return max(enough - float(np.linalg.eigvalsh(self.matrix)[0]), 0.0)

    @cached_property
    def solution(self) -> Floats:
        """(p,) x."""
        return np.asarray(np.linalg.solve(self.matrix + self.ridge * np.eye(len(self.matrix)), self.right))

    @cached_property
    def inverse(self) -> Floats:
        """(p, p) A^-1, without a ridge."""
        return np.asarray(np.linalg.inv(self.matrix))

    @cached_property
    def noise(self) -> Floats:
        """(p, p) Var (E_b - E_A x)."""
        x, square = self.solution, self.solution**2
        by_matrix = square.sum() * np.eye(len(x)) + np.outer(x, x) - np.diag(square)
        return np.asarray(self.right_noise**2 * np.eye(len(x)) + self.matrix_noise**2 * by_matrix)


def held(matrix: Floats, right: Floats) -> Floats:
    """(p,) a solution of A x = b that stays finite whatever noise made of A: eigenvalues that are below a hundredth of
    their mean are lifted there.

    >>> held(np.array([[4.0, 0.0], [0.0, -1.0]]), np.array([2.0, 0.0])).tolist()
    [0.5, 0.0]
    """
    spectrum, vectors = np.linalg.eigh(matrix)
    lengths = np.maximum(spectrum, max(LEAST_SHARE * float(spectrum.mean()), LEAST_WEIGHT))
    return np.asarray(vectors @ ((vectors.T @ right) / lengths))

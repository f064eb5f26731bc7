"""Ridge regressions side by side: (A_l + shift_l I) x_l = b_l, advanced by one product with A at a time.

The method of Hestenes and Stiefel [1, algorithm 6.18]; its steps are the coefficients of Lanczos' tridiagonal matrix
[1, section 6.7.3], whose eigenvalues and first components are nodes and weights of a Gauss quadrature of b'f(A)b [2].

[1] Saad: Iterative methods for sparse linear systems, 2nd edition (2003).
[2] Golub, Meurant: Matrices, moments and quadrature with applications (2010), section 3.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

Vectors = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ConjugateGradients:
    """The state of n regressions on M variants.

    Attributes:
        shift, length: (n,) ridge, and length of the right-hand side.
        least: residual, relative to `length`, at which a regression has ended.
        residual, direction, solution: (M, n).
        alpha, beta: (r, n) steps so far; NaN once a regression has ended.
    """

    shift: Vectors
    length: Vectors
    least: float
    residual: Vectors
    direction: Vectors
    solution: Vectors
    alpha: Vectors
    beta: Vectors

    @staticmethod
    def start(right: Vectors, shift: Vectors, least: float) -> ConjugateGradients:
        """From (M, n) right-hand sides."""
        none = np.zeros((0, len(shift)))
        return ConjugateGradients(
            shift, np.linalg.norm(right, axis=0), least, right, right, np.zeros_like(right), none, none
        )

    @property
    def relative(self) -> Vectors:
        """(n,) length of the residuals, relative to the right-hand sides; 0 where those are 0."""
        return np.asarray(np.linalg.norm(self.residual, axis=0) / np.where(self.length > 0, self.length, 1.0))

    @property
    def going(self) -> NDArray[np.int64]:
        """Those that have not ended."""
        return np.flatnonzero(self.relative > self.least)

    @property
    def block(self) -> Vectors:
        """(M, L) the directions that A is to be multiplied by: of length 1, of those that have not ended."""
        there = self.direction[:, self.going]
        return np.asarray(there / np.linalg.norm(there, axis=0))

    def advanced(self, images: Vectors) -> ConjugateGradients:
        """One step on, given (M, L) A times `block`."""
        at = self.going
        p, r, size = self.direction[:, at], self.residual[:, at], np.linalg.norm(self.direction[:, at], axis=0)
        before = (r * r).sum(axis=0)
        image = images * size + self.shift[at] * p
        alpha = before / (p * image).sum(axis=0)
        rest = r - alpha * image
        beta = (rest * rest).sum(axis=0) / before
        changed = {"residual": rest, "direction": rest + beta * p, "solution": self.solution[:, at] + alpha * p}
        arrays = {name: getattr(self, name).copy() for name in changed}
        for name, values in changed.items():
            arrays[name][:, at] = values
        steps = np.full((2, 1, len(self.shift)), np.nan)
        steps[0, 0, at], steps[1, 0, at] = alpha, beta
        return replace(
            self, **arrays, alpha=np.concatenate([self.alpha, steps[0]]), beta=np.concatenate([self.beta, steps[1]])
        )

    def quadrature(self, number: int) -> tuple[Vectors, Vectors]:
        """Nodes and weights with b'f(A)b = sum of weight f(node), of one regression; none where b is 0."""
        main, beside = self._tridiagonal(number)
        if not len(main):
            return np.zeros(0), np.zeros(0)
        nodes, vectors = linalg.eigh_tridiagonal(main, beside[:-1])
        return np.maximum(nodes, 0.0), self.length[number] ** 2 * vectors[0] ** 2

    def relative_at(self, number: int, shifts: Vectors) -> Vectors:
        """The relative residuals that the same steps leave of a regression with other ridges; 0 where b is 0."""
        main, beside = self._tridiagonal(number)
        if not len(main):
            return np.zeros(len(shifts))
        nodes, vectors = linalg.eigh_tridiagonal(main, beside[:-1])
        return np.asarray(beside[-1] * np.abs((vectors[0] * vectors[-1]) @ (1 / np.add.outer(nodes, shifts))))

    def _tridiagonal(self, number: int) -> tuple[Vectors, Vectors]:
        """(r,) main diagonal of A in Lanczos' basis, and (r,) what stands beside it, the next step's included."""
        alpha, beta = self.alpha[:, number], self.beta[:, number]
        alpha, beta = alpha[np.isfinite(alpha)], beta[np.isfinite(alpha)]
        main = 1 / alpha - self.shift[number]
        main[1:] += beta[:-1] / alpha[:-1]
        return main, np.sqrt(beta) / alpha

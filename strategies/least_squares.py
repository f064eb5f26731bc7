"""The solution of a linear model, from sums of products of standardised columns and of the response."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from strategies import newton
from strategies.coefficients import Coefficients, likelihood_facts
from strategies.model_matrix import ModelMatrix

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class LeastSquares:
    """k coefficients of n people.

    Attributes:
        matrix: the columns, with the response after them.
        products: (k + 1, k + 1) sums of products, the response's last.
        people: n.
        within: whether columns are measured from each site's means, so that there is no intercept among them.
        sites: with people, where they are; else 0.
    """

    matrix: ModelMatrix
    products: Floats
    people: int
    within: bool
    sites: int

    @property
    def names(self) -> tuple[str, ...]:
        return self.matrix.terms.names[self.within :]

    @property
    def degrees(self) -> int:
        """Of freedom."""
        return self.people - len(self.names) - self.sites

    @property
    def problem(self) -> str:
        """Why there is no solution, or nothing."""
        if self.degrees < 1:
            return "fewer people than coefficients, or as many"
        dependent = newton.dependent(self.products[:-1, :-1], self.names)
        return f"columns explain one another: {dependent}" if dependent else ""

    @cached_property
    def estimate(self) -> Floats:
        """(k,)."""
        k = len(self.names)
        return np.asarray(np.linalg.solve(self.products[:k, :k], self.products[:k, k]) if k else np.zeros(0))

    @cached_property
    def residual(self) -> float:
        """The sum of squared residuals."""
        k = len(self.names)
        return max(float(self.products[k, k] - self.estimate @ self.products[:k, k]), 0.0)

    @cached_property
    def inverse(self) -> Floats:
        """(k, k) of the products of columns."""
        return np.asarray(np.linalg.inv(self.products[:-1, :-1]))

    @property
    def covariance(self) -> Floats:
        """(k, k) of the estimate, where all residuals vary alike."""
        return self.inverse * (self.residual / self.degrees)

    @property
    def _unit(self) -> float:
        """Of the standardised response, in its own."""
        return float(self.matrix.scale[-1] * self.matrix.half[-1])

    def facts(self) -> dict[str, float | int | str]:
        """How well the model fits, in the response's units."""
        n, left, degrees = self.people, self.products[-1, -1], self.degrees
        intercept, unit = self.matrix.terms.intercept, self._unit
        whole = n if self.within or not intercept else float(left - self.products[0, -1] ** 2 / n)
        with np.errstate(divide="ignore"):
            likelihood = -n / 2 * float(np.log(2 * np.pi * self.residual * unit**2 / n) + 1)
        r2 = 1 - self.residual / whole
        loose = n - (1 if intercept else 0)
        return {
            **likelihood_facts(likelihood, len(self.names) + self.sites, n),
            "degrees_of_freedom": degrees,
            "dispersion": self.residual / degrees * unit**2,
            "deviance": self.residual * unit**2,
            "null_deviance": whole * unit**2,
            "r2": r2,
            "r2_adjusted": 1 - (1 - r2) * loose / degrees,
            **({"sites": self.sites} if self.within else {}),
        }

    def coefficients(self, estimate: Floats, covariance: Floats, degrees: float | None) -> Coefficients:
        """Standardised estimates in the terms' own units.

        Args:
            estimate: (k,).
            covariance: (k, k).
            degrees: of freedom of t, or None.
        """
        matrix, within = self.matrix, self.within
        scaled = matrix.own_units(len(self.names) + within)[within:, within:] * self._unit
        values = scaled @ estimate
        if matrix.terms.intercept and not within:  # the response's own middle
            values[0] += matrix.middle[-1] + matrix.centre[-1] * matrix.half[-1]
        return Coefficients(self.names, values, scaled @ covariance @ scaled.T, degrees)

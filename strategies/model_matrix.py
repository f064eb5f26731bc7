"""The columns of a regression's formula over sites: measured alike everywhere, and back in their own units."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from strategies.formula import Terms
from strategies.summary import Field, Summary

Floats = NDArray[np.float64]

MOMENT_BITS = 32

LEAST_DEVIATION = 1e-4
"""A column's pooled standard deviation in units of half its range; below this the sums lose their precision."""

AT_ITS_ENDS = 1e-6
"""Of people's summed distances from both ends of a range, multiplied: below it, everybody is at one of them."""


@dataclass(frozen=True, eq=False)
class ModelMatrix:
    """K columns of numbers, each mapped from its bounds into [-1, 1]; without an intercept, divided by the farther one.

    Attributes:
        terms: the formula's.
        low, high: (K,) bounds of the terms, and of further columns after them.
        centre, scale: (K,) pooled mean and deviation after mapping; without an intercept 0 and the root mean square.
            Before they are known, 0 and 1.
    """

    terms: Terms
    low: Floats
    high: Floats
    centre: Floats
    scale: Floats

    @staticmethod
    def of(terms: Terms, further: tuple[tuple[float, float], ...], centre: Floats, scale: Floats) -> ModelMatrix:
        """Of a formula's terms and further columns with these bounds."""
        bounds = np.array([*(term.bounds for term in terms.terms), *further], dtype=np.float64).reshape(-1, 2)
        if not len(centre):
            centre, scale = np.zeros(len(bounds)), np.ones(len(bounds))
        if not len(centre) == len(scale) == len(bounds):
            raise ValueError("A round has the mean and deviation of each column.")
        if not ((np.abs(centre) <= 1) & (scale >= LEAST_DEVIATION) & (scale <= 1)).all():
            raise ValueError("Means and deviations are within their bounds.")
        return ModelMatrix(terms, bounds[:, 0], bounds[:, 1], centre, scale)

    @cached_property
    def middle(self) -> Floats:
        return (self.low + self.high) / 2 * self.terms.intercept

    @cached_property
    def half(self) -> Floats:
        """Of the ranges."""
        whole = self.terms.intercept
        return (self.high - self.low) / 2 if whole else np.maximum(np.abs(self.low), np.abs(self.high))

    def unit(self, columns: Mapping[str, Floats], further: tuple[Floats, ...] = ()) -> Floats:
        """(n, K) in [-1, 1] of n people."""
        values = [*(term.values(columns) for term in self.terms.terms), *further]
        n = len(next(iter(columns.values())))
        raw = np.stack(values, axis=1) if values else np.zeros((n, 0))
        return np.clip((raw - self.middle) / self.half, -1.0, 1.0)

    def rows(self, columns: Mapping[str, Floats], further: tuple[Floats, ...] = ()) -> Floats:
        """(n, 1 + K) intercept and standardised columns, or (n, K) without an intercept."""
        z = (self.unit(columns, further) - self.centre) / self.scale
        return np.concatenate([np.ones((len(z), 1)), z], axis=1) if self.terms.intercept else z

    @cached_property
    def ends(self) -> Floats:
        """(2, 1 + K) lowest and highest values of these."""
        ends = np.array([self.low, self.high])
        z = (np.clip((ends - self.middle) / self.half, -1.0, 1.0) - self.centre) / self.scale
        return np.concatenate([np.ones((2, 1)), z], axis=1) if self.terms.intercept else z

    @cached_property
    def most(self) -> Floats:
        """(1 + K,) largest absolute values of these."""
        return np.asarray(np.abs(self.ends).max(axis=0))

    def own_units(self, coefficients: int) -> Floats:
        """(p, p) what takes the coefficients of the first p standardised columns to those of the terms themselves."""
        whole = self.terms.intercept
        k = coefficients - whole
        per = 1 / (self.scale[:k] * self.half[:k])
        out = np.diag(np.concatenate([np.ones(int(whole)), per]))
        if whole:
            out[0, 1:] = -(self.centre[:k] * self.half[:k] + self.middle[:k]) * per
        return out

    # -- moments ------------------------------------------------------------------------------------------------------

    @staticmethod
    def leaves(classes: int, columns: int) -> dict[str, Field]:
        """The fields of the sums that centre and scale follow from: of each class' people, who are in one."""
        k, shape = columns, (classes, columns)
        words = "sums of columns in units of half their range"
        return {
            "sums": Field(shape, words, k, k**0.5, MOMENT_BITS),
            "squares": Field(shape, "sums of squares of the same", k, k**0.5, MOMENT_BITS),
        }

    @staticmethod
    def sums(unit: Floats, group: NDArray[np.int64], classes: int) -> Summary:
        """Of (n, K) values in [-1, 1] of people of (n,) classes."""
        fields = ModelMatrix.leaves(classes, unit.shape[1])
        whole = {"sums": fields["sums"].integers(unit), "squares": fields["squares"].integers(unit**2)}
        return {name: np.stack([rows[group == c].sum(axis=0) for c in range(classes)]) for name, rows in whole.items()}

    def moments(self, sums: Summary, people: int) -> tuple[Floats, Floats]:
        """(K,) centre and scale over so many people."""
        total = {name: field.values(sums[name].sum(axis=0)) for name, field in self.leaves(1, len(self.low)).items()}
        centre = np.clip(total["sums"] / people, -1.0, 1.0) * self.terms.intercept
        return centre, np.sqrt(np.clip(total["squares"] / people - centre**2, 0.0, 1.0))

    def at_ends(self, sums: Summary, people: NDArray[np.int64]) -> NDArray[np.int64]:
        """(2, C, K) how many people of each class are at the lower and at the upper end of a column at which everybody
        is at one of them, as of a category; 0 for the others."""
        total = {name: field.values(sums[name]) for name, field in self.leaves(1, len(self.low)).items()}
        low, high = np.clip((np.array([self.low, self.high]) - self.middle) / self.half, -1.0, 1.0)
        n = people[:, None]
        between = (low + high) * total["sums"] - total["squares"] - low * high * n  # sum (x - low) (high - x)
        upper = np.rint((total["sums"] - low * n) / (high - low))
        both = np.all(np.abs(between) < AT_ITS_ENDS, axis=0)
        return np.asarray(np.where(both, np.stack([n - upper, upper]), 0), dtype=np.int64)

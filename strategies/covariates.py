"""Covariates over sites: their pooled mean and deviation, by which all sites measure them alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from strategies.design import LEAST_DEVIATION, check_varying
from strategies.summary import Field, Summary

MOMENT_BITS = 32

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Covariates:
    """K covariates beside an intercept.

    Attributes:
        centre, scale: (K,) pooled mean and deviation after mapping each range to [-1, 1].
    """

    centre: Floats
    scale: Floats

    @staticmethod
    def leaves(number: int) -> dict[str, Field]:
        """The fields of the sums that they follow from; none of none."""
        k, words = number, "sums of covariates in units of half their range"
        if not k:
            return {}
        return {  # values lie in [-1, 1]: each sum moves by at most 1
            "sums": Field((k,), words, k, k**0.5, MOMENT_BITS),
            "squares": Field((k,), "sums of squares of the same", k, k**0.5, MOMENT_BITS),
        }

    @staticmethod
    def sums(unit: Floats) -> Summary:
        """Of (n, K) values in [-1, 1]."""
        powers = {"sums": unit, "squares": unit**2}
        return {
            name: field.integers(powers[name]).sum(axis=0) for name, field in Covariates.leaves(unit.shape[1]).items()
        }

    @staticmethod
    def of(names: tuple[str, ...], values: Mapping[str, Floats], people: int) -> Covariates:
        """From the sums over so many people.

        Raises:
            UsageError: if one does not vary.
        """
        if not names:
            return Covariates(np.zeros(0), np.zeros(0))
        centre = values["sums"] / people
        variance = np.maximum(values["squares"] / people - centre**2, 0.0)
        check_varying(names, variance)
        return Covariates(centre, np.sqrt(variance))

    def check(self, number: int) -> None:
        """Raises: ValueError: if they are not so many covariates' mean and deviation."""
        if not len(self.centre) == len(self.scale) == number:
            raise ValueError("A round has the mean and deviation of each covariate.")
        if not ((np.abs(self.centre) <= 1) & (self.scale >= LEAST_DEVIATION) & (self.scale <= 1)).all():
            raise ValueError("Means and deviations are within their bounds.")

    @property
    def ends(self) -> Floats:
        """(2, 1 + K) lowest and highest values of the intercept and the standardised covariates."""
        return np.array([np.append(1.0, (end - self.centre) / self.scale) for end in (-1, 1)])

    def across(self, unit: Floats) -> Floats:
        """(1 + K, n) intercept and standardised covariates of (n, K) values in [-1, 1]."""
        out = np.ones((1 + unit.shape[1], len(unit)))
        out[1:] = ((unit - self.centre) / self.scale).T
        return out

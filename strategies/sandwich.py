"""Standard errors of a regression: its own, or robust ones by the sandwich A^-1 B A^-1."""

from __future__ import annotations

from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from strategies import newton
from strategies.protections.suppression import LEAST_HOLDERS
from strategies.regression_sums import RegressionSums
from strategies.summary import Summary

Floats = NDArray[np.float64]


class Errors(StrEnum):
    """Which standard errors: the model's own, robust, or robust with each site's people as a cluster."""

    CLASSICAL = "classical"
    HC0 = "hc0"
    HC1 = "hc1"
    CLUSTERED = "clustered"


def sandwich(
    errors: Errors, inverse: Floats, sums: Summary, asked: RegressionSums, coefficients: int
) -> tuple[Floats, str]:
    """(q, q) robust covariance, or why there is none.

    Args:
        errors: any but classical.
        inverse: (q, q) A^-1.
        sums: of the round that asked for B.
        asked: the round.
        coefficients: how many there are, an intercept for each site among them.
    """
    q, n = len(inverse), asked.people
    if errors is Errors.CLUSTERED:
        sites = int(sums["sites"])
        if sites < LEAST_HOLDERS:
            return inverse, f"errors clustered by site need people at {LEAST_HOLDERS} sites or more"
        fields = asked.leaves()
        above = fields["clusters"].values(sums["clusters"]) + fields["clusters_rest"].values(sums["clusters_rest"])
        factor = sites / (sites - 1) * (n - 1) / (n - coefficients)
    else:
        above = asked.leaves()["meat"].values(sums["meat"]) if asked.within else asked.parts["meat"].values(sums)
        factor = n / (n - coefficients) if errors is Errors.HC1 else 1.0
    return np.asarray(factor * inverse @ newton.symmetric(above, q) @ inverse), ""

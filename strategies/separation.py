"""A likelihood without a maximum: columns along which it does not end."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from strategies import newton
from strategies.families import Family

Floats = NDArray[np.float64]

SEPARATED = 20.0
"""Log odds per standard deviation of a column beyond which a likelihood is taken to have no maximum."""

UNKNOWN = 1e-10
"""The smallest eigenvalue of the information, relative to that of a person at the start and the number of people, where
it is taken to have none."""


def separated(family: Family, names: tuple[str, ...], estimate: Floats, information: Floats, start: float) -> str:
    """Which columns set people apart so that there is no maximum, in words; nothing where there may be one.

    Args:
        family: any but gaussian.
        names: of the p coefficients.
        estimate: (p,) of standardised columns.
        information: (p, p) there.
        start: the weight of all people where the search began.
    """
    inner = np.array([name.startswith("(") for name in names])
    b = np.where(inner, 0.0, estimate)
    far = family is Family.BINOMIAL and bool((np.abs(b) > SEPARATED).any())
    if not far and not np.linalg.eigvalsh(information)[0] < UNKNOWN * start:
        return ""
    along = newton.leading(b if far else np.where(inner, 0.0, newton.weakest(information)), names)
    if family is Family.BINOMIAL:
        return f"cases and controls are separated by {along}"
    return f"people without any events are set apart by {along}"

"""What a regression takes for its outcome: who is a case, and which ranges counts and exposures have."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from strategies.analysis import Frame, Range
from strategies.errors import UsageError
from strategies.families import Family


def middle_of(span: Range) -> float:
    """The lowest number above the middle of a range: who is a case lies at or above it.

    >>> middle_of(Range(1.0, 2.0))
    1.5000000000000002
    """
    return float(np.nextafter((span.minimum + span.maximum) / 2, np.inf))


def cases(span: Range, values: NDArray[np.float64]) -> NDArray[np.int64]:
    """(n,) 1 for values above the middle of the column's range, else 0.

    >>> cases(Range(1.0, 2.0), np.array([1.0, 1.5, 2.0])).tolist()
    [0, 0, 1]
    """
    return np.asarray(span.unit(values) > 0, dtype=np.int64)


def check_ranges(family: Family, response: str, exposure: str | None, frame: Frame) -> None:
    """Assert that counts are not negative, and exposures positive.

    Raises:
        UsageError: if their public ranges are others.
    """
    span = frame.columns[response]
    if family.counts and not span.minimum >= 0:
        raise UsageError(
            "Counts are not negative.",
            f"{response} in {span}",
            "raise the lower end of its range in the study's [columns], or ask another distribution.",
        )
    if exposure is not None and not frame.columns[exposure].minimum > 0:
        raise UsageError(
            "An exposure's public range is positive.",
            f"{exposure} in {frame.columns[exposure]}",
            "raise the lower end of its range in the study's [columns].",
        )

"""Groups of people: the categories of a public column, or its codes."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from strategies.analysis import Frame, Range
from strategies.cohort import Cohort
from strategies.errors import UsageError

MOST_GROUPS = 20


def group_codes(column: str, span: Range) -> range:
    """The codes of a column of groups, from the lowest to the highest; of categories, their places.

    Raises:
        UsageError: if the column's range is none of codes, or of too many.
    """
    codes = range(math.ceil(span.minimum), math.floor(span.maximum) + 1) if span.maximum < 2**31 else range(0)
    if (codes.start, codes.stop - 1) != (span.minimum, span.maximum) or len(codes) > MOST_GROUPS:
        raise UsageError(
            f"Groups are the categories of a column, or the whole numbers of its public range, at most {MOST_GROUPS}.",
            f"{column!r} has {span!s:.200}",
            f"declare the lowest and highest code, for example {column} = [1, 4], in the study's [columns].",
        )
    return codes


def group_names(column: str, span: Range) -> tuple[str, ...]:
    """The groups' names: the categories, or the codes.

    Raises:
        UsageError: as `group_codes`.
    """
    return span.categories or tuple(map(str, group_codes(column, span)))


def group_places(values: NDArray[np.float64], codes: range) -> NDArray[np.int64]:
    """(N,) the place of each person's group among the codes: a value in between counts as the nearest code; -1 without
    one.

    >>> group_places(np.array([1.0, 3.0, 1.6, np.nan]), range(1, 4)).tolist()
    [0, 2, 1, -1]
    """
    there = ~np.isnan(values)
    return np.where(there, np.rint(np.where(there, values, codes.start)) - codes.start, -1).astype(np.int64)


EVERYBODY = "everybody"
"""The name of the one group where none are told apart."""


def names_in(column: str | None, frame: Frame) -> tuple[str, ...]:
    """Names of a column's groups; of everybody where there is no column.

    Raises:
        UsageError: as `group_codes`.
    """
    return (EVERYBODY,) if column is None else group_names(column, frame.columns[column])


def places_in(column: str | None, frame: Frame, cohort: Cohort, inside: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(n,) the place of the group of each of the people inside; a value in between counts as the nearest code.

    Raises:
        UsageError: as `group_codes`.
    """
    if column is None:
        return np.zeros(np.count_nonzero(inside), dtype=np.int64)
    return group_places(cohort.columns[column][inside], group_codes(column, frame.columns[column]))

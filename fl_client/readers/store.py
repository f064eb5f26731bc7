"""Relational clinical data, wherever it lies: closed statements in, arrays out.

A statement is a SQLAlchemy Core expression that this package wrote. What a study named in it (codes, concepts) is bound
to it as parameters, by the database's own protocol; no text of a study is ever part of a statement.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from fl_client.readers.events import NEVER
from strategies.errors import DataError

Rows = sa.Select[*tuple[Any, ...]]
"""A statement of this package's own."""


class Store(Protocol):
    """An opened store of tables that nobody can write through it."""

    @property
    def name(self) -> str:
        """What it is called in errors."""
        ...

    @property
    def schema(self) -> str:
        """Where the tables are, as an identifier."""
        ...

    @property
    def tables(self) -> Mapping[str, Collection[str]]:
        """Names of the tables that are there, and of their columns, in lower case."""
        ...

    @property
    def counts(self) -> Mapping[str, int]:
        """Rows of each table, where they are needed to tell two versions of the data apart; files are told apart by
        their bytes."""
        ...

    def rows(self, statement: Rows) -> tuple[NDArray[Any], ...]:
        """The columns of a statement's result.

        Returns:
            Whole numbers as int64, NEVER where null; other numbers as float64, NaN where null or infinite; texts as
            objects, "" where null.

        Raises:
            DataError: if it cannot be read, takes longer than it may, or a column is not of its type.
        """
        ...

    def assert_unchanged(self) -> None:
        """Assert that the tables are what they were when the store was opened.

        Raises:
            DataError: if they are not.
        """
        ...


def array(kind: sa.types.TypeEngine[Any], values: Sequence[Any]) -> NDArray[Any]:
    """A column of a result as `Store.rows` gives it.

    Raises:
        ValueError: if it is not of its kind.

    >>> array(sa.Integer(), [1, None]).tolist() == [1, NEVER]
    True
    >>> array(sa.Double(), [1.5, None, float("inf")]).tolist()
    [1.5, nan, nan]
    """
    if isinstance(kind, sa.Integer):
        return whole(np.array([NEVER if value is None else value for value in values]))
    if isinstance(kind, sa.Float | sa.Numeric):
        return finite(np.array([np.nan if value is None else value for value in values], dtype=np.float64))
    out = np.empty(len(values), dtype=object)
    out[:] = ["" if value is None else str(value) for value in values]
    return out


def whole(values: NDArray[Any]) -> NDArray[np.int64]:
    """Whole numbers as such, of whatever type their column is; NEVER where NaN.

    Raises:
        ValueError: if one is none, or is a text.

    >>> whole(np.array([2.0, np.nan])).tolist() == [2, NEVER]
    True
    """
    if values.dtype.kind == "i" or not len(values):
        return values.astype(np.int64, copy=False)
    if values.dtype.kind == "f":
        known = ~np.isnan(values) & (values != NEVER)
        plain = np.where(known, values, 0.0)
        if (np.abs(plain) > 2.0**53).any() or (plain != np.rint(plain)).any():
            raise ValueError("a number is not whole.")
        return np.where(known, plain.astype(np.int64), NEVER)
    listed = values.tolist()
    exact = [int(value) for value in listed]  # a Decimal, say, or an unsigned one
    if values.dtype.kind not in "uO" or exact != listed or max(map(abs, exact)) > -NEVER:
        raise ValueError("a cell is no whole number.")
    return np.array(exact, dtype=np.int64)


def finite(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Numbers, NaN where infinite."""
    return np.where(np.isfinite(values), values, np.nan)


def mistyped(where: str, column: str = "") -> DataError:
    """The error for a column that is not what CDM 5.4 makes of it; it says nothing of what is in it."""
    return DataError(
        "The columns of a CDM are of the types that CDM 5.4 gives them.",
        f"{where}: a cell of {column} is of another" if column else f"{where}: a cell is not of its column's type",
        "load the tables with the CDM's types: whole numbers for identifiers and concepts, dates for days.",
    )

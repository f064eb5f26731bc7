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
            Whole numbers as int64, NEVER where null; other numbers as float64, NaN where null; texts as objects, ""
            where null.

        Raises:
            DataError: if it cannot be read, or takes longer than it may.
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

    >>> array(sa.Integer(), [1, None]).tolist() == [1, NEVER]
    True
    """
    if isinstance(kind, sa.Integer):
        return np.array([NEVER if value is None else value for value in values], dtype=np.int64)
    if isinstance(kind, sa.Float | sa.Numeric):
        return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    out = np.empty(len(values), dtype=object)
    out[:] = ["" if value is None else str(value) for value in values]
    return out

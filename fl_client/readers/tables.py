"""Tables of people: a line or row per person, in a text, a Parquet file or a DuckDB database."""

from __future__ import annotations

import csv
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from fl_client.readers.calls import distinct, shown
from fl_client.readers.embedded import Columnar
from fl_client.readers.lines import columns as columns_of
from fl_client.readers.lines import lines
from fl_client.readers.numbers import numbers
from fl_client.readers.variables import Cells, Variable, places
from strategies.analysis import Range
from strategies.errors import DataError

TABLES = (".tsv", ".csv", ".parquet", ".duckdb")
"""Endings of people tables; any other is a text with tabs."""


@dataclass(frozen=True, eq=False)
class Table:
    """N people and their numbers.

    Attributes:
        name: the file's name, for errors.
        people: N identifiers, in the table's order.
        parsed: name -> (N,) float64, NaN where missing or no value, read-only; of a variable with categories, places in
            its own list.
        words: name of each column with a cell that is no number -> whose the first such cell is.
        variables: those that are declared, by name; they stand in the place of columns of the same name.
        unlisted: name of a variable with categories -> how many cells are none of them, and not missing either.
    """

    name: str
    people: tuple[str, ...] = field(repr=False)
    parsed: Mapping[str, NDArray[np.float64]] = field(repr=False)
    words: Mapping[str, str] = field(repr=False)
    variables: Mapping[str, Variable] = field(default_factory=dict, repr=False)
    unlisted: Mapping[str, int] = field(default_factory=dict, repr=False)

    @staticmethod
    def open(
        path: Path,
        person: str = "person",
        leave_out: Collection[str] = frozenset(),
        variables: Mapping[str, Variable] = MappingProxyType({}),
        table: str = "",
    ) -> Table:
        """Read a table whose first column, named `person`, is the identifier, but for some of its people.

        A column with a cell that is neither a finite number nor a missing code is not numeric; that is no error until
        somebody asks for it.

        Args:
            path: the file.
            person: the first column's name.
            leave_out: identifiers of those who are left out.
            variables: what the node declares of its columns.
            table: the table's name in a DuckDB file.

        Raises:
            DataError: for a missing or empty file, a header that is wrong or names a column twice, a line with another
                number of cells, a person who has no identifier or stands there twice, or one to leave out who is not
                there; for a variable whose column is not there.
        """
        columns = columns_of_table(path, person, table)
        people = columns.pop(person)
        assert isinstance(people, list)
        return Table.of(path.name, people, columns, leave_out, variables)

    @staticmethod
    def of(
        name: str,
        people: list[str],
        columns: Mapping[str, Cells],
        leave_out: Collection[str],
        variables: Mapping[str, Variable],
    ) -> Table:
        """A table of columns as they lie in a source.

        Raises:
            DataError: as `open` does.
        """
        # A table of nobody is a data set like any other: a private answer must not tell it from one of somebody.
        listed = distinct(people, name) if people else ()
        if unknown := sorted(set(leave_out) - set(listed)):
            raise DataError(
                "Everybody who is to be left out is in the people table.",
                f"{len(unknown)} are not in {name}: {shown(unknown)}",
                "correct the identifiers in the `exclude` file, or remove those who are gone from the table.",
            )
        if leave_out:
            kept = np.flatnonzero([who not in leave_out for who in listed])
            listed = tuple(listed[row] for row in kept)
            columns = {c: [v[row] for row in kept] if isinstance(v, list) else v[kept] for c, v in columns.items()}
        parsed: dict[str, NDArray[np.float64]] = {}
        words: dict[str, str] = {}
        for column, cells in columns.items():
            parsed[column], first = numbers(cells) if isinstance(cells, list) else (cells, None)
            if first is not None:
                words[column] = f"person {first + 1} has neither"
        unlisted: dict[str, int] = {}
        for called, variable in variables.items():
            column = variable.column or called
            if column not in columns:
                raise DataError(
                    "The column of a declared variable is in the people table.",
                    f"{name} has no column {column!r:.60}, which {called!r:.60} is declared for",
                    "correct its `column`, or remove the variable.",
                )
            parsed[called], strange = variable.read(cells := columns[column])
            words.pop(called, None)
            if variable.shape.categories:
                unlisted[called] = int(strange.sum())
            elif strange.any():
                first = int(strange.argmax())
                words[called] = f"person {first + 1} has neither"
        for values in parsed.values():
            values.setflags(write=False)
        return Table(name, listed, MappingProxyType(parsed), MappingProxyType(words), variables, unlisted)

    def take(self, people: NDArray[np.int64]) -> Table:
        """Some of the people, in the order given."""
        parsed = {name: values[people] for name, values in self.parsed.items()}
        return replace(self, people=tuple(self.people[k] for k in people), parsed=MappingProxyType(parsed))

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns with numbers, and of the variables with categories."""
        return tuple(name for name in self.parsed if name not in self.words)

    def column(self, name: str, words_as_missing: bool = False) -> NDArray[np.float64]:
        """(N,) values of a column as they lie there, NaN where missing.

        Args:
            name: the column.
            words_as_missing: take a cell that is no number as missing. A private question does: one person's cell must
                not decide whether it is answered.

        Raises:
            DataError: if the table has no such column, or it is not numeric.
        """
        if name in self.words and not words_as_missing:
            raise DataError(
                "A column that is asked for holds numbers, or one of the missing codes NA, NaN, '.', '?' and nothing.",
                f"{self.name}, column {name!r}: {self.words[name]}",
                "write the values as numbers, for example 0 and 1, or declare it in [dataset.variables].",
            )
        if name not in self.parsed:
            raise DataError(
                "A column that is asked for is in the people table.",
                f"{self.name} has no column {name!r}",
                "add it, or correct its name in the policy or the study.",
            )
        return self.parsed[name]

    def values(self, name: str, asked: Range, words_as_missing: bool = False) -> NDArray[np.float64]:
        """(N,) values of a column in a study's unit, or as places in its list of categories; not clamped.

        Raises:
            DataError: as `column` does, and if the variable's values cannot become such.
        """
        values = self.column(name, words_as_missing)
        if name in self.variables:
            return self.variables[name].fit(values, asked)
        return places(values, asked.categories) if asked.categories else values


def columns_of_table(path: Path, first: str, table: str = "") -> dict[str, Cells]:
    """The columns of a table by their names: texts, or numbers where a Parquet or DuckDB file has numbers.

    Args:
        path: the file.
        first: the name of its first column, which is read as texts.
        table: the table's name in a DuckDB file.

    Raises:
        DataError: for a missing or empty file, a header that is wrong or names a column twice, or a line with another
            number of cells.
    """
    if path.suffix in (".parquet", ".duckdb"):
        stored = Columnar.open(path, table)
        _check([*stored.columns], path, first)
        return dict(zip(stored.columns, stored.cells(), strict=True))
    header, columns = _read(path, first)
    return dict(zip(header, columns, strict=True))


def _read(path: Path, person: str) -> tuple[list[str], list[list[str]]]:
    """The header and the columns under it, stripped."""
    separator, quoting = (",", csv.QUOTE_MINIMAL) if path.suffix == ".csv" else ("\t", csv.QUOTE_NONE)
    if (plain := columns_of(path, separator)) is not None:
        plain = [list(map(str.strip, column)) for column in plain]
        header = [column[0] for column in plain]
        _check(header, path, person)
        return header, [column[1:] for column in plain]
    ended = (f"{line}\n" for line in lines(path))  # without it, a line's end within quotes would be nothing
    reader = csv.reader(ended, delimiter=separator, quoting=quoting, strict=True)  # type: ignore[arg-type]
    try:
        header = [name.strip() for name in next(reader, [])]
        _check(header, path, person)
        columns: list[list[str]] = [[] for _ in header]
        for line in reader:
            if len(line) != len(header):
                raise DataError(
                    "Each line of a people table has as many cells as its header.",
                    f"{path.name}, line {reader.line_num}: {len(line)} instead of {len(header)}",
                    "correct the line; empty lines are not allowed either.",
                )
            for column, cell in zip(columns, line, strict=True):
                column.append(cell.strip())
    except csv.Error as error:
        raise DataError(
            "A people table is plain tab-separated or comma-separated text.",
            f"{path.name}, line {reader.line_num}: {error}",
            "correct the line.",
        ) from None
    return header, columns


def _check(header: list[str], path: Path, person: str) -> None:
    if not header:
        raise DataError(
            "A people table starts with a header.", f"{path.name} is empty", "name the file with the people."
        )
    if header[0] != person:
        raise DataError(
            f"The first column of the people table is the identifier and is called {person!r}.",
            f"{path.name}: {header[0][:40]!r}",
            "rename the column, or set `person` in the [dataset] table.",
        )
    twice = sorted({name for name in header if header.count(name) > 1 or not name})
    if twice:
        raise DataError(
            "Each column of the people table has a name of its own.",
            f"{path.name}: {', '.join(map(repr, twice))[:120]} is empty or stands there twice",
            "rename or remove one of the two.",
        )

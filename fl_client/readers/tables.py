"""Tables of people: one line per person, tab-separated, or comma-separated if the name ends in .csv."""

from __future__ import annotations

import csv
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from fl_client.readers.calls import distinct, shown
from fl_client.readers.lines import columns as columns_of
from fl_client.readers.lines import lines
from strategies.errors import DataError

MISSING_CODES = frozenset({"", "NA", "NaN", ".", "?"})
"""What a table writes for a value that was not observed. -9 is a number."""


@dataclass(frozen=True, eq=False)
class Table:
    """N people and their numbers.

    Attributes:
        name: the file's name, for errors.
        people: N identifiers, in the table's order.
        parsed: name -> (N,) float64, NaN where missing or no number, read-only.
        words: name of each column with a cell that is no number -> where and what the first such cell is.
    """

    name: str
    people: tuple[str, ...] = field(repr=False)
    parsed: Mapping[str, NDArray[np.float64]] = field(repr=False)
    words: Mapping[str, str] = field(repr=False)

    @staticmethod
    def open(path: Path, person: str = "person", leave_out: Collection[str] = frozenset()) -> Table:
        """Read a table whose first column, named `person`, is the identifier, but for some of its people.

        A column with a cell that is neither a finite number nor a missing code is not numeric; that is no error until
        somebody asks for it.

        Raises:
            DataError: for a missing or empty file, a header that is wrong or names a column twice, a line with another
                number of cells, a person who has no identifier or stands there twice, or one to leave out who is not
                there.
        """
        header, columns = _read(path, person)
        # A table of nobody is a data set like any other: a private answer must not tell it from one of somebody.
        listed = distinct(columns[0], path.name) if columns[0] else ()
        if unknown := sorted(set(leave_out) - set(listed)):
            raise DataError(
                "Everybody who is to be left out is in the people table.",
                f"{len(unknown)} are not in {path.name}: {shown(unknown)}",
                "correct the identifiers in the `exclude` file, or remove those who are gone from the table.",
            )
        if leave_out:
            kept = [row for row, who in enumerate(listed) if who not in leave_out]
            columns = [[column[row] for row in kept] for column in columns]
        parsed: dict[str, NDArray[np.float64]] = {}
        words: dict[str, str] = {}
        for name, cells in zip(header[1:], columns[1:], strict=True):
            parsed[name], first = _numbers(cells)
            parsed[name].setflags(write=False)
            if first is not None:
                words[name] = f"{cells[first][:40]!r} for person {first + 1}"
        return Table(path.name, tuple(columns[0]), MappingProxyType(parsed), MappingProxyType(words))

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the numeric columns."""
        return tuple(name for name in self.parsed if name not in self.words)

    def column(self, name: str, words_as_missing: bool = False) -> NDArray[np.float64]:
        """(N,) values of a column, NaN where missing.

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
                "write the values as numbers, for example 0 and 1.",
            )
        if name not in self.parsed:
            raise DataError(
                "A column that is asked for is in the people table.",
                f"{self.name} has no column {name!r}",
                "add it, or correct its name in the policy or the study.",
            )
        return self.parsed[name]


def _read(path: Path, person: str) -> tuple[list[str], list[list[str]]]:
    """The header and the columns under it, stripped."""
    separator, quoting = (",", csv.QUOTE_MINIMAL) if path.suffix == ".csv" else ("\t", csv.QUOTE_NONE)
    if (plain := columns_of(path, separator)) is not None:
        plain = [list(map(str.strip, column)) for column in plain]
        header = [column[0] for column in plain]
        _check(header, path, person)
        return header, [column[1:] for column in plain]
    reader = csv.reader(lines(path), delimiter=separator, quoting=quoting, strict=True)  # type: ignore[arg-type]
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


def _numbers(cells: list[str]) -> tuple[NDArray[np.float64], int | None]:
    """The numbers in a column, NaN where missing or none; and where the first stands that is none."""
    if (text := "".join(cells)).isascii() and "_" not in text:  # `float` would take other digits, and 1_000
        try:
            values = np.array(list(map(float, cells)), dtype=np.float64)
        except ValueError:
            pass
        else:
            if np.isfinite(values).all():
                return values, None
    known = {cell: _number(cell) for cell in set(cells)}
    values = np.array([math.nan if known[cell] is None else known[cell] for cell in cells], dtype=np.float64)
    return values, next((i for i, cell in enumerate(cells) if known[cell] is None), None)


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


def _number(cell: str) -> float | None:
    """The number in a cell, NaN for a missing code, None for anything else, infinities among it."""
    if cell in MISSING_CODES:
        return math.nan
    # float() would also take 1_000 and digits of other scripts.
    if not cell.isascii() or "_" in cell:
        return None
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) else None

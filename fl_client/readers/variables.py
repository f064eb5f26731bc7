"""Variables as a node declares them: where their values stand, what these mean, and how they fit what a study asks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_client.readers.numbers import MISSING_CODES, number
from strategies.analysis import Range
from strategies.codec import is_number
from strategies.dictionary import Described
from strategies.errors import DataError
from strategies.units import Conversion, analyte_of, conversion

NULL_FLAVOURS = frozenset(
    {"NI", "UNK", "ASKU", "NASK", "NAV", "NAVU", "QS", "TRC", "MSK", "NP", "DER", "OTH", "INV", "PINF", "NINF", "NA"}
)
"""HL7's words for why a value is not there: missing in a declared variable, unless declared as a category of it."""

Cells = list[str] | NDArray[np.float64]
"""A column as it lies in a table: texts, or numbers with NaN where there is none."""


@dataclass(frozen=True)
class Variable:
    """A `[dataset.variables.NAME]` table.

    Attributes:
        column: the people table's column; by default of the variable's own name.
        range: lowest and highest value that the variable can take, from a code book.
        unit: the values' unit as a code of UCUM, or nothing for numbers without one.
        categories: names of categories as the cells have them, or a table: cell -> name of its category. Cells that are
            numbers are compared as numbers: "1" is 1.0.
        missing: what the cells have, beside the usual codes, where a value was not observed, such as -9.
        meaning: what it is, in words.
        minimal: the field of the 1+MG minimal metadata that it fills.
        concept: the OMOP concept that it is.
        analyte: what is measured, for units between mass and amount of substance: a name in `strategies.units`, a LOINC
            code such as LOINC:2093-3, or nothing where `concept` says it.
    """

    column: str = ""
    range: tuple[float, ...] = ()
    unit: str = ""
    categories: Any = ()
    missing: tuple[Any, ...] = ()
    meaning: str = ""
    minimal: str = ""
    concept: int = 0
    analyte: str = ""

    def __post_init__(self) -> None:
        pairs = self._pairs
        if not all(isinstance(word, str) for pair in pairs for word in pair):
            raise ValueError('categories are a list of names, or a table such as {"1" = "male", "0" = "female"}.')
        if not all(isinstance(code, str) or is_number(code) for code in self.missing):
            raise ValueError('missing codes are texts or numbers, such as ["?", -9].')
        if bool(self.range) == bool(pairs):
            raise ValueError("a variable has a range = [lowest, highest] or categories.")
        if pairs and self.unit:
            raise ValueError("categories have no unit.")
        if self.range and (len(self.range) != 2 or not self.range[0] < self.range[1]):
            raise ValueError("a variable's range is [lowest, highest].")
        if len(self._known) < len(pairs):
            raise ValueError("each cell stands for one category; cells that are numbers are compared as numbers.")
        if both := [cell for cell in self._known if cell in self._missing]:
            raise ValueError(f"{both[0]!r:.40} is declared as missing and as a category.")
        if self.analyte and not analyte_of(self.analyte):
            raise ValueError(f"analyte is none that units are converted for, got {self.analyte!r:.40}.")
        _ = self.described  # which has its own rules

    @cached_property
    def shape(self) -> Range:
        """Its public range and unit, or its categories in the order in which they are declared."""
        if self.range:
            return Range(self.range[0], self.range[1], self.unit)
        return Range.of(*dict.fromkeys(self._known.values()))

    @property
    def described(self) -> Described:
        """What the public dictionary says of it."""
        return Described(self.shape, self.meaning, self.minimal, self.concept)

    @property
    def measured(self) -> str:
        """The analyte, if it is one that units are converted for."""
        return analyte_of(self.analyte) or analyte_of(f"OMOP:{self.concept}")

    def read(self, cells: Cells) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Values of N cells, NaN where missing: numbers, or places in the list of categories.

        Returns:
            The values (N,), and which of the cells (N,) are neither a value nor a missing code; they are NaN, too.
        """
        if isinstance(cells, list):
            distinct = sorted(set(cells))
            at = {cell: i for i, cell in enumerate(distinct)}
            places = np.fromiter((at[cell] for cell in cells), dtype=np.int64, count=len(cells))
            keys = [_key(cell) for cell in distinct]
        else:
            unique, places = np.unique(cells, return_inverse=True)
            keys = [float(value) for value in unique]
        found = [self._value(key) for key in keys]
        values = np.array([math.nan if value is None else value for value in found], dtype=np.float64)
        strange = np.array([value is None for value in found], dtype=bool)
        return values[places], strange[places]

    def fit(self, values: NDArray[np.float64], asked: Range) -> NDArray[np.float64]:
        """Values as `read` gives them, in the unit or as places in the list that a study states, not clamped.

        Raises:
            DataError: if they cannot be.
        """
        if asked.categories and self._known:
            own = self.shape.categories
            turn = [asked.categories.index(name) if name in asked.categories else math.nan for name in own]
            out = np.full(len(values), math.nan)
            seen = ~np.isnan(values)
            out[seen] = np.array(turn)[values[seen].astype(np.int64)]
            return out
        turned = None if asked.categories or self._known else self.conversion(asked.ucum)
        if turned is None:
            raise DataError(
                "A variable is read in its own unit, in one that its unit converts to, or as its categories.",
                f"it is {self.shape}, and {asked} is asked for",
                "correct the policy's range, or name the variable's `analyte`.",
            )
        return turned(values)

    def conversion(self, unit: str) -> Conversion | None:
        """How its values become values in another unit, or None."""
        return conversion(self.unit, unit, self.measured)

    @property
    def _pairs(self) -> list[tuple[Any, Any]]:
        """Cells and the names of their categories."""
        if isinstance(self.categories, Mapping):
            return list(self.categories.items())
        return [(name, name) for name in self.categories] if isinstance(self.categories, list | tuple) else [((), ())]

    @cached_property
    def _known(self) -> Mapping[str | float, str]:
        return {_key(cell): name for cell, name in self._pairs}

    @cached_property
    def _missing(self) -> frozenset[str | float]:
        return frozenset(_key(code) if isinstance(code, str) else float(code) for code in self.missing)

    def _value(self, key: str | float) -> float | None:
        """The value of a cell, NaN for a missing one, None for anything else."""
        if key in self._known:
            return float(self.shape.categories.index(self._known[key]))
        if key in self._missing or key in NULL_FLAVOURS or key in MISSING_CODES or key != key:  # noqa: PLR0124  (NaN)
            return math.nan
        return None if self._known or isinstance(key, str) else key


def places(values: NDArray[np.float64], categories: tuple[str, ...]) -> NDArray[np.float64]:
    """Numbers of a column that no variable is declared for, as places in a study's list; any other is missing.

    >>> places(np.array([0.0, 1.0, 2.0, 0.5, np.nan]), ("no", "yes")).tolist()
    [0.0, 1.0, nan, nan, nan]
    """
    return np.where(np.isin(values, np.arange(len(categories))), values, math.nan)


def _key(cell: str) -> str | float:
    """A cell as it is compared: as a number if it is one."""
    value = number(cell)
    return cell if value is None or math.isnan(value) else value

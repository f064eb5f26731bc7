"""Contingency tables of two columns of categories, in strata of a third if asked: counts, tests, odds ratios.

Exact: small cells are withheld, and others with them, in all margins, so that none follows from those shown; statistics
are given where nothing is withheld alone, since they would give cells away. Private: each person is in one cell, so all
cells together cost as much as one count, whose noise tests and intervals know of.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from strategies.analyses.allele_frequency import NORMAL_95
from strategies.analysis import NAMES_GROUPS, WHOLE, Answer, Column, Frame, Needs, Total
from strategies.cohort import Cohort
from strategies.errors import UsageError
from strategies.groups import group_codes, group_names, group_places
from strategies.privacy import Regime
from strategies.protections.suppression import WITHHELD, Axes, hidden_cells
from strategies.summary import COUNT_BITS, Field, Summary
from strategies.two_way import (
    Ratio,
    chi_square,
    conditional,
    cramers_v,
    fisher,
    mantel_haenszel,
    noised_chi_square,
    noised_woolf,
    woolf,
)

MOST_CELLS = 400

MARGINS: Mapping[str, Axes] = {
    "cells": ("column", "row", "stratum"),
    "crude": ("column", "row"),
    "rows": ("row",),
    "columns": ("column",),
    "strata": ("stratum",),
    "people": (),
}
"""What is told -> the axes that it is not summed over."""


@dataclass(frozen=True)
class Shape:
    """The axes of a table.

    Attributes:
        columns: names of the columns of rows, columns and strata; no third without strata.
        codes, labels: of each column's categories.
    """

    columns: tuple[str, ...]
    codes: tuple[range, ...]
    labels: tuple[tuple[str, ...], ...]

    @staticmethod
    def of(row: str, column: str, stratum: str | None, frame: Frame) -> Shape:
        """The axes within a frame's columns.

        Raises:
            UsageError: if a column is none of categories or codes, or the table has too many cells.
        """
        names = (row, column, *((stratum,) if stratum else ()))
        codes = tuple(group_codes(name, frame.columns[name]) for name in names)
        if math.prod(map(len, codes)) > MOST_CELLS:
            raise UsageError(
                f"A table has at most {MOST_CELLS} cells.",
                " by ".join(str(len(c)) for c in codes),
                "declare fewer categories, or leave the strata out.",
            )
        return Shape(names, codes, tuple(group_names(name, frame.columns[name]) for name in names))

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(map(len, self.codes))

    def counts(self, cohort: Cohort) -> NDArray[np.int64]:
        """(R, C) or (R, C, S) people in each cell: those with a value in every column."""
        places = [group_places(cohort.columns[n], c) for n, c in zip(self.columns, self.codes, strict=True)]
        inside = np.all([place >= 0 for place in places], axis=0)
        flat = np.ravel_multi_index([place[inside] for place in places], self.sizes)
        return np.bincount(flat, minlength=math.prod(self.sizes)).reshape(self.sizes)

    def listed(self) -> dict[str, Column]:
        """The categories of each cell, the last column's fastest."""
        at = np.indices(self.sizes).reshape(len(self.sizes), -1)
        labels = zip(self.columns, self.labels, at, strict=True)
        return {name: tuple(own[i] for i in place) for name, own, place in labels}


def _check(row: str, column: str, stratum: str | None) -> None:
    if len({row, column, stratum}) < 3:
        raise ValueError("row, column and stratum must be different columns.")


@dataclass(frozen=True)
class Contingency:
    """How many people are in each cell of a table of two or three columns, with tests of independence.

    Attributes:
        row, column: names of columns of categories, or of whole numbers; at most 20 each. People without a value in one
            of them are left out.
        stratum: a third; the odds ratio of two by two tables is then pooled over its categories.
    """

    analysis: ClassVar[str] = "contingency"
    regime: ClassVar[Regime] = Regime.EXACT
    by_site: ClassVar[bool] = True
    summary_in_words: ClassVar[str] = "numbers of people in each cell of a table, and in its margins"

    row: str = field(metadata=NAMES_GROUPS)
    column: str = field(metadata=NAMES_GROUPS)
    stratum: str | None = field(default=None, metadata=NAMES_GROUPS)

    def __post_init__(self) -> None:
        _check(self.row, self.column, self.stratum)

    def needs(self) -> Needs:
        return Needs(columns=(self.row, self.column, *((self.stratum,) if self.stratum else ())))

    def rounds(self) -> int:
        return 1

    def fraction(self) -> float:
        return 0.0

    def slices(self, frame: Frame) -> tuple[slice, ...]:
        return WHOLE

    def _shape(self, frame: Frame) -> Shape:
        return Shape.of(self.row, self.column, self.stratum, frame)

    def leaves(self, frame: Frame) -> dict[str, Field]:
        sizes = self._shape(frame).sizes
        out = {
            "people": Field((), "people", 1, 1),
            "cells": Field(sizes, "people in each cell", 1, 1),
            "rows": Field(sizes[:1], "people in each row", 1, 1),
            "columns": Field(sizes[1:2], "people in each column", 1, 1),
        }
        if self.stratum:
            out["crude"] = Field(sizes[:2], "people in each row and column", 1, 1)
            out["strata"] = Field(sizes[2:], "people in each stratum", 1, 1)
        return out

    def summarise(self, cohort: Cohort, frame: Frame) -> Summary:
        cells = self._shape(frame).counts(cohort)
        axes = range(cells.ndim)
        return {
            "people": cells.sum(),
            "cells": cells,
            "rows": cells.sum(axis=tuple(axes)[1:]),
            "columns": cells.sum(axis=tuple(i for i in axes if i != 1)),
            **({"crude": cells.sum(axis=2), "strata": cells.sum(axis=(0, 1))} if self.stratum else {}),
        }

    def withhold(self, sums: Summary, minimum_cell: int) -> Summary:
        if any((array == WITHHELD).any() for array in sums.values()):  # it was done before
            return sums
        cells = sums["cells"]
        hidden = hidden_cells({("row", "column", "stratum")[: cells.ndim]: cells}, minimum_cell)
        if hidden[()]:
            return {name: np.full_like(array, WITHHELD) for name, array in sums.items()}
        out = {}
        for name, array in sums.items():
            axes = tuple(axis for axis in MARGINS[name] if cells.ndim == 3 or axis != "stratum")
            mask = np.swapaxes(hidden[axes], 0, 1) if len(axes) > 1 else hidden[axes]  # ("column", "row", ...)
            out[name] = np.where(mask, WITHHELD, array)
        return out

    def conclude(self, total: Total, frame: Frame) -> Answer:
        shape = self._shape(frame)
        sums = self.withhold(total.sums, total.minimum_cell)
        told = {name: np.where(array == WITHHELD, np.nan, array.astype(np.float64)) for name, array in sums.items()}
        withheld = np.isnan(told["cells"]).ravel()
        tables: dict[str, Mapping[str, Column]] = {
            "cells": {**shape.listed(), "people": told["cells"].ravel(), "withheld": withheld},
            "margins": _margins(shape, [told[name] for name in ("rows", "columns", "strata") if name in told]),
        }
        facts: dict[str, float | int | str] = {"people": float(told["people"])}
        whole = all(np.isfinite(array).all() for array in told.values())
        facts |= _statistics(sums.get("crude", sums["cells"]) if whole else None, shape.sizes[:2] == (2, 2))
        if self.stratum and shape.sizes[:2] == (2, 2):
            strata = np.moveaxis(told["cells"], 2, 0) if whole else np.zeros((0, 2, 2))
            pooled = mantel_haenszel(strata)
            facts |= _interval("mantel_haenszel_odds_ratio", pooled.ratio)
            facts |= {"mantel_haenszel_chi_square": pooled.statistic, "mantel_haenszel_p_value": pooled.p}
        return Answer(tables, facts, int(withheld.sum()))


def _margins(shape: Shape, counts: list[NDArray[np.float64]]) -> dict[str, Column]:
    people = np.concatenate(counts)
    return {
        "variable": tuple(name for name, labels in zip(shape.columns, shape.labels, strict=True) for _ in labels),
        "category": tuple(label for labels in shape.labels for label in labels),
        "people": people,
        "withheld": np.isnan(people),
    }


def _interval(name: str, ratio: Ratio) -> dict[str, float | int | str]:
    return {name: ratio.estimate, f"{name}_low": ratio.low, f"{name}_high": ratio.high}


def _statistics(counts: NDArray[np.int64] | None, two_by_two: bool) -> dict[str, float | int | str]:
    """Tests and measures of a table; NaN where it is withheld."""
    table = np.zeros((2, 2)) if counts is None else counts.astype(np.float64)
    statistic, degrees, p = chi_square(table)
    out: dict[str, float | int | str] = {
        "chi_square": statistic,
        "degrees_of_freedom": math.nan if counts is None else degrees,
        "p_value": p,
        "cramers_v": cramers_v(table),
        "fisher_p_value": math.nan if counts is None else fisher(counts),
    }
    if two_by_two:
        exact = conditional(np.zeros((2, 2), dtype=np.int64) if counts is None else counts)
        out |= _interval("odds_ratio", woolf(table)) | _interval("conditional_odds_ratio", exact)
    return out


@dataclass(frozen=True)
class NoisedContingency:
    """The same table with noise in every cell.

    Attributes:
        row, column, stratum: as of the exact one.
    """

    analysis: ClassVar[str] = "contingency"
    regime: ClassVar[Regime] = Regime.PRIVATE
    by_site: ClassVar[bool] = True
    summary_in_words: ClassVar[str] = "noised numbers of people in each cell of a table"

    row: str = field(metadata=NAMES_GROUPS)
    column: str = field(metadata=NAMES_GROUPS)
    stratum: str | None = field(default=None, metadata=NAMES_GROUPS)

    def __post_init__(self) -> None:
        _check(self.row, self.column, self.stratum)

    def needs(self) -> Needs:
        return Needs(columns=(self.row, self.column, *((self.stratum,) if self.stratum else ())))

    def rounds(self) -> int:
        return 1

    def fraction(self) -> float:
        return 1.0

    def slices(self, frame: Frame) -> tuple[slice, ...]:
        return WHOLE

    def _shape(self, frame: Frame) -> Shape:
        return Shape.of(self.row, self.column, self.stratum, frame)

    def leaves(self, frame: Frame) -> dict[str, Field]:
        return {"cells": Field(self._shape(frame).sizes, "people in each cell", 1.0, 1.0, COUNT_BITS)}

    def summarise(self, cohort: Cohort, frame: Frame) -> Summary:
        return {"cells": self._shape(frame).counts(cohort) << COUNT_BITS}

    def withhold(self, sums: Summary, minimum_cell: int) -> Summary:
        return sums

    def conclude(self, total: Total, frame: Frame) -> Answer:
        shape, noise = self._shape(frame), total.noise.get("cells", 0.0)
        cells = self.leaves(frame)["cells"].values(total.sums["cells"])
        half = NORMAL_95 * noise
        tables: dict[str, Mapping[str, Column]] = {
            "cells": {
                **shape.listed(),
                "people": cells.ravel(),
                "low_95": np.maximum(cells.ravel() - half, 0.0),
                "high_95": np.maximum(cells.ravel() + half, 0.0),
            }
        }
        strata = shape.sizes[2] if self.stratum else 1
        crude, spread = cells.reshape(*shape.sizes[:2], strata).sum(axis=2), noise * math.sqrt(strata)
        statistic, degrees, p = noised_chi_square(crude, spread)
        facts: dict[str, float | int | str] = {
            "people": float(cells.sum()),
            "people_noise_sd": noise * math.sqrt(cells.size),
            "cell_noise_sd": noise,
            "chi_square": statistic,
            "degrees_of_freedom": degrees,
            "p_value": p,
        }
        if shape.sizes[:2] == (2, 2):
            facts |= _interval("odds_ratio", noised_woolf(crude, spread))
        return Answer(tables, facts)


def draw_cells(answer: Answer, names: tuple[str, str], axes: Any) -> str:
    """Draw each row's people by column, one bar beside the other; returns the figure in words."""
    table = answer.tables["cells"]
    rows, columns = (list(dict.fromkeys(table[name])) for name in names)
    people = np.zeros((len(rows), len(columns)))
    for row, column, n in zip(table[names[0]], table[names[1]], np.asarray(table["people"]), strict=True):
        people[rows.index(row), columns.index(column)] += n  # strata together; NaN where one is withheld
    width = 0.8 / len(columns)
    for j, column in enumerate(columns):
        place = np.arange(len(rows)) + (j - (len(columns) - 1) / 2) * width
        shade = 1.0 - 0.7 * j / max(len(columns) - 1, 1)
        axes.bar(place, np.nan_to_num(people[:, j]), width * 0.92, color="C0", alpha=shade, label=f"{column:.20}")
        axes.plot(place[np.isnan(people[:, j])], np.zeros(np.isnan(people[:, j]).sum()), "x", color="C1", markersize=5)
    axes.set_xticks(np.arange(len(rows)), [f"{row:.14}" for row in rows])
    axes.set_xlabel(names[0])
    axes.set_ylabel("people")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, title=names[1])
    hidden = int(np.isnan(people).sum())
    return f"People by {names[0]} and {names[1]}, as bars side by side: {len(rows)} by {len(columns)} cells" + (
        f", {hidden} of them withheld, where a cross stands." if hidden else "."
    )

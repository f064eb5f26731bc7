"""The variables of a table: what is public about each, and in which cell of it a person is.

A variable of numbers has two cells, observed and missing; one of categories a cell for each, and missing comes last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strategies.analysis import Column, Range
from strategies.cohort import Cohort
from strategies.errors import UsageError
from strategies.groups import MOST_GROUPS, group_codes, group_names, group_places

MOST_VARIABLES = 50


@dataclass(frozen=True)
class Variables:
    """The variables of a question in order, and its groups of people.

    Attributes:
        names: V of them.
        ranges: what is public about each.
        by: the column of groups, or None.
        groups: codes of the groups; one for everybody where there is no column.
        labels: their names.
    """

    names: tuple[str, ...]
    ranges: tuple[Range, ...]
    by: str | None
    groups: range
    labels: tuple[str, ...]

    @staticmethod
    def of(names: Sequence[str], by: str | None, columns: Mapping[str, Range]) -> Variables:
        """The variables within a frame's columns.

        Raises:
            UsageError: if a variable has more categories, or `by` more groups, than a table has room for.
        """
        ranges = tuple(columns[name] for name in names)
        for name, span in zip(names, ranges, strict=True):
            if len(span.categories) > MOST_GROUPS:
                raise UsageError(
                    f"A table has at most {MOST_GROUPS} categories of a variable.",
                    f"{name!r} has {len(span.categories)}",
                    "declare fewer, or leave it out.",
                )
        if by is None:
            return Variables(tuple(names), ranges, None, range(1), ())
        return Variables(tuple(names), ranges, by, group_codes(by, columns[by]), group_names(by, columns[by]))

    def size(self, variable: int) -> int:
        """Number of cells of a variable."""
        return (len(self.ranges[variable].categories) or 1) + 1

    @property
    def numbers(self) -> tuple[int, ...]:
        """Places of the variables of numbers."""
        return tuple(i for i, span in enumerate(self.ranges) if not span.categories)

    def group_of(self, cohort: Cohort) -> NDArray[np.int64]:
        """(N,) the place of each person's group; -1 for who has none and takes no part."""
        if self.by is None:
            return np.zeros(len(cohort), dtype=np.int64)
        return group_places(cohort.columns[self.by], self.groups)

    def place_of(self, cohort: Cohort, variable: int) -> NDArray[np.int64]:
        """(N,) each person's cell of a variable."""
        values, last = cohort.columns[self.names[variable]], self.size(variable) - 1
        if not self.ranges[variable].categories:
            return np.isnan(values).astype(np.int64)
        place = group_places(values, range(last))
        return np.where(place < 0, last, place)

    def counts(self, cohort: Cohort, variable: int) -> NDArray[np.int64]:
        """(G, c) people of each group in each cell of a variable."""
        group, size = self.group_of(cohort), self.size(variable)
        flat = (group * size + self.place_of(cohort, variable))[group >= 0]
        return np.bincount(flat, minlength=len(self.groups) * size).reshape(len(self.groups), size)

    def unit(self, cohort: Cohort, variable: int) -> NDArray[np.float64]:
        """(N,) numbers in units of half their range, NaN where missing."""
        return self.ranges[variable].unit(cohort.columns[self.names[variable]])


def per_group(values: NDArray[np.int64], group: NDArray[np.int64], groups: int) -> NDArray[np.int64]:
    """(G, ...) sums of people's (N, ...) integers over each group; who is in none (-1) is left out."""
    out = np.zeros((groups, *values.shape[1:]), dtype=np.int64)
    np.add.at(out, group[group >= 0], values[group >= 0])
    return out


def mean_and_deviation(
    people: NDArray[np.float64], sums: NDArray[np.float64], squares: NDArray[np.float64], span: Range
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation (n - 1), in a variable's own unit, from sums in units of half its range; NaN without
    people, and the deviation of one."""
    half, middle = (span.maximum - span.minimum) / 2, (span.maximum + span.minimum) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.where(people > 0, sums / people, np.nan)
        variance = np.where(people > 1, (squares - sums * mean) / (people - 1), np.nan)
    return middle + half * mean, half * np.sqrt(np.maximum(variance, 0.0))


def columns_of(names: tuple[str, ...], rows: list[tuple[Any, ...]]) -> dict[str, Column]:
    """Rows of a table as its columns: texts, or numbers."""
    out: dict[str, Column] = {}
    for i, name in enumerate(names):
        values = [row[i] for row in rows]
        if name in ("variable", "category", "group"):
            out[name] = tuple(values)
        else:
            out[name] = np.array(values, dtype=np.bool_ if name == "withheld" else np.float64)
    return out


def draw_matrix(shares: NDArray[np.float64], rows: Sequence[str], columns: Sequence[str], axes: Any) -> None:
    """Draw numbers from -1 to 1 as squares, blue above 0 and orange below, a cross where there is none."""
    most = max(float(np.nanmax(np.abs(shares), initial=0.0)), 1e-9)
    for i, row in enumerate(shares.tolist()):
        for j, share in enumerate(row):
            if not np.isfinite(share):
                axes.plot([j], [i], "x", color="C2", markersize=5)
                continue
            ends = [j - 0.48, j + 0.48, j + 0.48, j - 0.48], [i - 0.48, i - 0.48, i + 0.48, i + 0.48]
            axes.fill(*ends, color="C0" if share >= 0 else "C1", alpha=0.04 + 0.8 * abs(share) / most, linewidth=0)
            axes.plot([*ends[0], ends[0][0]], [*ends[1], ends[1][0]], color="C0", linewidth=1.2)
            if max(len(rows), len(columns)) <= 12:
                axes.text(j, i, f"{round(100 * share)}".replace("-", "\N{MINUS SIGN}"), ha="center", va="center")
    axes.set_xlim(-0.5, len(columns) - 0.5)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xticks(np.arange(len(columns)), [f"{name:.12}" for name in columns], rotation=90)
    axes.set_yticks(np.arange(len(rows)), [f"{name:.12}" for name in rows])

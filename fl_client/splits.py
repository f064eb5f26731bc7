"""By which columns an exact answer tells people apart, and into which cells."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from strategies.analysis import Analysis, Cutting, Frame, Range, named
from strategies.cohort import Cohort
from strategies.groups import group_codes, group_places
from strategies.outcomes import middle_of


@dataclass(frozen=True)
class Way:
    """One column of a question by which it tells people apart.

    Attributes:
        name: the column's.
        points: where it is cut, ascending: who lies at or above one is told from who lies below.
        nearest: whether a value counts as the nearest whole number, so that points are halfway between these.
        grouping: whether other columns' cells are told for each of its cells.
    """

    name: str
    points: tuple[float, ...]
    nearest: bool
    grouping: bool

    def cells(self, values: NDArray[np.float64]) -> NDArray[np.int64]:
        """(n,) in which of the cells each value lies, from 0; -1 without one."""
        if self.nearest:
            first = int(self.points[0] - 0.5)
            return group_places(values, range(first, first + len(self.points) + 1))
        return np.where(np.isnan(values), -1, np.searchsorted(self.points, values, side="right"))


def ways(analysis: Analysis, frame: Frame) -> tuple[Way, ...]:
    """By which columns an analysis tells people apart: where it declares cuts, by groups and cases, and by every column
    of categories that it reads."""
    cut = analysis.cuts(frame) if isinstance(analysis, Cutting) else {}
    out = [Way(name, points, False, False) for name, points in cut.items() if points]
    marked = {
        name: f.metadata["splits"]
        for f in fields(analysis)  # type: ignore[arg-type]
        if "splits" in f.metadata
        for name in named(getattr(analysis, f.name), f.metadata)
    }
    for name in analysis.needs().opened:
        if (span := frame.columns.get(name)) is None:
            continue  # computed by nodes
        if span.categories or marked.get(name) == "codes":
            out.append(_of_codes(name, span, name in marked))
        elif name in marked:
            out.append(Way(name, (middle_of(span),), False, True))
    return tuple(out)


def _of_codes(name: str, span: Range, grouping: bool) -> Way:
    codes = range(len(span.categories)) if span.categories else group_codes(name, span)
    return Way(name, tuple(code + 0.5 for code in codes[:-1]), True, grouping)


@dataclass(frozen=True, eq=False)
class Split:
    """People told apart by a column.

    Attributes:
        name: the column's.
        ucum: the unit of the points.
        derivation: how the column follows from a person's record, if it is derived; else nothing.
        points: the borders of the cells.
        cells: (n,) in which cell each person lies, from 0; -1 for who has no value.
        groups: names of the columns by whose cells these are told, and how many each has.
        group: (n,) in which combination of those each person is, from 0; -1 for who is in none.
    """

    name: str
    ucum: str
    derivation: str
    points: tuple[float, ...]
    cells: NDArray[np.int64]
    groups: tuple[tuple[str, int], ...]
    group: NDArray[np.int64]


def splits(analysis: Analysis, frame: Frame, cohort: Cohort, inside: NDArray[np.bool_]) -> tuple[Split, ...]:
    """How an analysis tells the people inside apart, one split a column; of those that leave all in one cell, none."""
    told = ways(analysis, frame)
    cells = [way.cells(cohort.columns[way.name][inside]) for way in told]
    out = []
    for at, (way, own) in enumerate(zip(told, cells, strict=True)):
        there = own[own >= 0]
        if not len(there) or there.min() == there.max():
            continue
        groups, group = [], np.zeros(len(own), dtype=np.int64)
        for number, other in enumerate(told):
            if not way.grouping and other.grouping and other.name != way.name and number != at:
                size = len(other.points) + 1
                groups.append((_identity(other.name, frame), size))
                group = np.where((group < 0) | (cells[number] < 0), -1, group * size + cells[number])
        span = frame.columns.get(way.name)
        ucum, derivation = ("", "") if span is None else (span.ucum, str(span.value or ""))
        out.append(Split(way.name, ucum, derivation, way.points, own, tuple(groups), group))
    return tuple(out)


def _identity(name: str, frame: Frame) -> str:
    """A column's name and unit, or how it is derived."""
    span = frame.columns[name]
    return str(span.value) if span.value else f"{name} {span.ucum}"

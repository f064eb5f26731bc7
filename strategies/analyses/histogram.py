"""A histogram of one column: numbers on public edges, or categories; over all people or by group.

Exact: small cells are withheld, and others with them, so that none follows from those shown. Private: each person is in
one bin, so all bins and groups together cost as much as one count.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from strategies.analyses.allele_frequency import NORMAL_95
from strategies.analysis import NAMES_ANY_COLUMN, NAMES_GROUPS, WHOLE, Answer, Column, Frame, Needs, Total
from strategies.cohort import Cohort
from strategies.groups import group_codes, group_names, group_places
from strategies.labels import unit_of, with_unit
from strategies.privacy import Regime
from strategies.protections.suppression import WITHHELD, hidden_cells
from strategies.summary import COUNT_BITS, Field, Summary

MOST_BINS = 200


def _check(variable: str, by: str | None, edges: tuple[float, ...], bins: int) -> None:
    if variable == by:
        raise ValueError("variable and by must be different columns.")
    if not 2 <= bins <= MOST_BINS or len(edges) > MOST_BINS + 1:
        raise ValueError(f"bins must be from 2 to {MOST_BINS}.")
    if edges and (len(edges) < 3 or not all(a < b for a, b in pairwise(edges))):
        raise ValueError("edges ascend, and bound two bins at least.")


@dataclass(frozen=True)
class Bins:
    """The cells of a histogram.

    Attributes:
        edges: (B + 1,) of the bins of a number; None of categories.
        labels: names of the categories.
        groups, group_labels: codes and names of the groups; one for everybody where there is no column.
    """

    edges: NDArray[np.float64] | None
    labels: tuple[str, ...]
    groups: range
    group_labels: tuple[str, ...]

    @staticmethod
    def of(variable: str, by: str | None, edges: tuple[float, ...], bins: int, frame: Frame) -> Bins:
        """The cells within a frame's columns.

        Raises:
            UsageError: if `by` is no column of groups.
        """
        span = frame.columns[variable]
        cut = np.array(edges) if edges else np.linspace(span.minimum, span.maximum, bins + 1)
        groups = range(1) if by is None else group_codes(by, frame.columns[by])
        names = () if by is None else group_names(by, frame.columns[by])
        return Bins(None if span.categories else cut, span.categories, groups, names)

    @property
    def shape(self) -> tuple[int, int]:
        """Groups and bins."""
        return len(self.groups), len(self.labels) if self.edges is None else len(self.edges) - 1

    def counts(self, cohort: Cohort, variable: str, by: str | None) -> NDArray[np.int64]:
        """(G, B) people with a value and a group; those beyond the edges count in the end bins."""
        values = cohort.columns[variable]
        if self.edges is None:
            place = group_places(values, range(len(self.labels)))
        else:
            at = np.searchsorted(self.edges, values, side="right") - 1
            place = np.where(np.isnan(values), -1, np.clip(at, 0, self.shape[1] - 1))
        group = np.zeros(len(cohort), dtype=np.int64) if by is None else group_places(cohort.columns[by], self.groups)
        flat = (group * self.shape[1] + place)[(group >= 0) & (place >= 0)]
        return np.bincount(flat, minlength=math.prod(self.shape)).reshape(self.shape)

    def listed(self, by: str | None) -> dict[str, Column]:
        """The group and bin of each cell, bins fastest."""
        groups, bins = self.shape
        out: dict[str, Column] = {}
        if by is not None:
            out[by] = tuple(label for label in self.group_labels for _ in range(bins))
        if self.edges is None:
            return out | {"category": self.labels * groups}
        return out | {"low": np.tile(self.edges[:-1], groups), "high": np.tile(self.edges[1:], groups)}


@dataclass(frozen=True)
class Histogram:
    """How many people are in each bin of a number, or in each category.

    Attributes:
        variable: name of the column.
        by: name of a column whose categories, or whole numbers, are groups that are told apart. People without a value
            in either column are left out.
        edges: public edges of the bins of a number, the lower end of a bin within it; none for equal ones.
        bins: how many equal bins the public range is cut into.
    """

    analysis: ClassVar[str] = "histogram"
    regime: ClassVar[Regime] = Regime.EXACT
    by_site: ClassVar[bool] = True
    summary_in_words: ClassVar[str] = "numbers of people in each bin or category and group"

    variable: str = field(metadata=NAMES_ANY_COLUMN)
    by: str | None = field(default=None, metadata=NAMES_GROUPS)
    edges: tuple[float, ...] = ()
    bins: int = 20

    def __post_init__(self) -> None:
        _check(self.variable, self.by, self.edges, self.bins)

    def needs(self) -> Needs:
        return Needs(columns=(self.variable, *((self.by,) if self.by else ())))

    def rounds(self) -> int:
        return 1

    def fraction(self) -> float:
        return 0.0

    def slices(self, frame: Frame) -> tuple[slice, ...]:
        return WHOLE

    def _bins(self, frame: Frame) -> Bins:
        return Bins.of(self.variable, self.by, self.edges, self.bins, frame)

    def cuts(self, frame: Frame) -> Mapping[str, tuple[float, ...]]:
        edges = self._bins(frame).edges
        return {} if edges is None else {self.variable: tuple(edges[1:-1].tolist())}

    def leaves(self, frame: Frame) -> dict[str, Field]:
        groups, bins = self._bins(frame).shape
        return {
            "people": Field((), "people", 1, 1),
            "groups": Field((groups,), "people in each group", 1, 1),
            "bins": Field((bins,), "people in each bin", 1, 1),
            "cells": Field((groups, bins), "people in each group and bin", 1, 1),
        }

    def summarise(self, cohort: Cohort, frame: Frame) -> Summary:
        cells = self._bins(frame).counts(cohort, self.variable, self.by)
        return {"people": cells.sum(), "groups": cells.sum(axis=1), "bins": cells.sum(axis=0), "cells": cells}

    def withhold(self, sums: Summary, minimum_cell: int) -> Summary:
        if any((array == WITHHELD).any() for array in sums.values()):  # it was done before
            return sums
        hidden = hidden_cells({("group", "value"): sums["cells"]}, minimum_cell)
        if hidden[()]:
            return {name: np.full_like(array, WITHHELD) for name, array in sums.items()}
        masks = {"groups": hidden["group",], "bins": hidden["value",], "cells": hidden["group", "value"]}
        return {**sums, **{name: np.where(mask, WITHHELD, sums[name]) for name, mask in masks.items()}}

    def conclude(self, total: Total, frame: Frame) -> Answer:
        bins, sums = self._bins(frame), self.withhold(total.sums, total.minimum_cell)
        told = {name: np.where(array == WITHHELD, np.nan, array.astype(np.float64)) for name, array in sums.items()}
        withheld = np.isnan(told["cells"]).ravel()
        tables: dict[str, Mapping[str, Column]] = {
            "histogram": {**bins.listed(self.by), "people": told["cells"].ravel(), "withheld": withheld}
        }
        if self.by is not None:
            alone = Bins(bins.edges, bins.labels, range(1), ())
            margin = told["bins"]
            tables["together"] = {**alone.listed(None), "people": margin, "withheld": np.isnan(margin)}
        facts: dict[str, float | int | str] = {
            "people": float(told["people"]),
            "variable": self.variable,
            **unit_of(frame.columns[self.variable]),
        }
        facts |= {f"people_{label}": float(n) for label, n in zip(bins.group_labels, told["groups"], strict=False)}
        return Answer(tables, facts, int(withheld.sum()))


@dataclass(frozen=True)
class NoisedHistogram:
    """The same with noise in every bin.

    Attributes:
        variable, by, edges, bins: as of the exact one.
    """

    analysis: ClassVar[str] = "histogram"
    regime: ClassVar[Regime] = Regime.PRIVATE
    by_site: ClassVar[bool] = True
    summary_in_words: ClassVar[str] = "noised numbers of people in each bin or category and group"

    variable: str = field(metadata=NAMES_ANY_COLUMN)
    by: str | None = field(default=None, metadata=NAMES_GROUPS)
    edges: tuple[float, ...] = ()
    bins: int = 20

    def __post_init__(self) -> None:
        _check(self.variable, self.by, self.edges, self.bins)

    def needs(self) -> Needs:
        return Needs(columns=(self.variable, *((self.by,) if self.by else ())))

    def rounds(self) -> int:
        return 1

    def fraction(self) -> float:
        return 1.0

    def slices(self, frame: Frame) -> tuple[slice, ...]:
        return WHOLE

    def _bins(self, frame: Frame) -> Bins:
        return Bins.of(self.variable, self.by, self.edges, self.bins, frame)

    def leaves(self, frame: Frame) -> dict[str, Field]:
        return {"cells": Field(self._bins(frame).shape, "people in each group and bin", 1.0, 1.0, COUNT_BITS)}

    def summarise(self, cohort: Cohort, frame: Frame) -> Summary:
        return {"cells": self._bins(frame).counts(cohort, self.variable, self.by) << COUNT_BITS}

    def withhold(self, sums: Summary, minimum_cell: int) -> Summary:
        return sums

    def conclude(self, total: Total, frame: Frame) -> Answer:
        bins, noise = self._bins(frame), total.noise.get("cells", 0.0)
        cells = self.leaves(frame)["cells"].values(total.sums["cells"])
        half, people = NORMAL_95 * noise, cells.ravel()
        table: dict[str, Column] = {
            **bins.listed(self.by),
            "people": people,
            "low_95": np.maximum(people - half, 0.0),
            "high_95": np.maximum(people + half, 0.0),
        }
        facts: dict[str, float | int | str] = {
            "people": float(people.sum()),
            "people_noise_sd": noise * math.sqrt(len(people)),
            "cell_noise_sd": noise,
            "variable": self.variable,
            **unit_of(frame.columns[self.variable]),
        }
        facts |= {f"people_{label}": float(n) for label, n in zip(bins.group_labels, cells.sum(axis=1), strict=False)}
        return Answer({"histogram": table}, facts)


def draw_histogram(answer: Answer, by: str | None, axes: Any) -> str:
    """Draw people by bin, groups as lines, with the noise's interval if there is one; returns the figure in words."""
    table = answer.tables["histogram"]
    people = np.asarray(table["people"], dtype=np.float64)
    names = table[by] if by else ("people",) * len(people)
    groups = list(dict.fromkeys(names))
    each = len(people) // len(groups)
    numbers = "low" in table
    for g, group in enumerate(groups):
        own = slice(g * each, (g + 1) * each)
        counts, color = people[own], f"C{g % 3}"
        at = np.asarray(table["low"][own], dtype=np.float64) if numbers else np.arange(each) - 0.4
        end = np.asarray(table["high"][own], dtype=np.float64) if numbers else at + 0.8
        if len(groups) == 1:
            axes.bar(at, np.nan_to_num(counts), (end - at) * 0.94, align="edge", color=color)
        else:
            axes.stairs(np.nan_to_num(counts), np.append(at, end[-1]), color=color, linewidth=1.4, label=f"{group:.20}")
        axes.plot((at + end)[np.isnan(counts)] / 2, np.zeros(np.isnan(counts).sum()), "x", color="C1", markersize=5)
        if "low_95" in table:
            ends = [np.asarray(table[name][own], dtype=np.float64) for name in ("low_95", "high_95")]
            axes.vlines((at + end) / 2, *ends, color=color, linewidth=1, alpha=0.6)
    if not numbers:
        axes.set_xticks(np.arange(each), [f"{label:.10}" for label in table["category"][:each]])
    if len(groups) > 1:
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, title=by)
    axes.set_xlabel(with_unit(str(answer.facts["variable"]), answer))
    axes.set_ylabel("people")
    hidden = int(np.isnan(people).sum())
    told = f", {hidden} of them withheld, where a cross stands" if hidden else ""
    return f"Histogram of people in {each} bins, in {len(groups)} group{'s' * (len(groups) > 1)}{told}."


def draw_histograms(answers: Mapping[str, Answer], axes: Any) -> str:
    """Draw each site's histogram as shares of its people in a row of its own; returns the figure in words."""
    counts, least = dict[str, NDArray[np.float64]](), 0
    for site, answer in answers.items():
        table = answer.tables.get("together", answer.tables["histogram"])
        people = np.asarray(table["people"], dtype=np.float64)
        least = len(dict.fromkeys(zip(*(table[name] for name in ("low", "category") if name in table), strict=True)))
        counts[site] = people.reshape(-1, least).sum(axis=0)  # groups together, where a noised answer has them apart
    first = next(iter(answers.values()))
    table, numbers = first.tables["histogram"], "low" in first.tables["histogram"]
    at = np.asarray(table["low"][:least], dtype=np.float64) if numbers else np.arange(least) - 0.5
    end = np.asarray(table["high"][:least], dtype=np.float64) if numbers else at + 1.0
    shares = {site: np.maximum(n, 0.0) / max(float(np.nansum(np.maximum(n, 0.0))), 1.0) for site, n in counts.items()}
    tallest = max((float(np.nanmax(s)) for s in shares.values() if np.isfinite(s).any()), default=0.0) or 1.0
    told = []
    for row, (site, share) in enumerate(shares.items()):
        base, edges = -float(row), np.append(at, end[-1])
        height = base + 0.85 * np.nan_to_num(share) / tallest
        axes.stairs(height, edges, baseline=base, fill=True, color="C0", alpha=0.35)
        axes.stairs(height, edges, baseline=base, color="C0", linewidth=1.2)
        hidden = np.isnan(share)
        axes.plot((at + end)[hidden] / 2, np.full(int(hidden.sum()), base + 0.08), "x", color="C1", markersize=5)
        if np.isfinite(share).any() and np.nanmax(share) > 0:
            most = int(np.nanargmax(share))
            where = f"{at[most]:g} to {end[most]:g}" if numbers else str(table["category"][most])
            told.append(f"{site} {where} ({100 * share[most]:.0f} %)")
    axes.set_yticks(-np.arange(len(shares)), list(shares))
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(-len(shares) + 0.8, 0.95)
    if not numbers:
        axes.set_xticks(np.arange(least), [f"{label:.10}" for label in table["category"][:least]])
    axes.set_xlabel(with_unit(str(first.facts["variable"]), first))
    withheld = int(sum(np.isnan(share).sum() for share in shares.values()))
    return (
        f"Histograms of people at {len(shares)} sites, in rows below one another; most are at "
        f"{', '.join(told) or 'none that is shown'}; {withheld} bins are withheld, where a cross stands."
    )

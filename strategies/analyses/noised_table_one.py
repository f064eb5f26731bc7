"""Table one for publication: counts, means, deviations, quantiles and categories of some variables, with noise.

One round. Of each variable a person is in one cell; of a number in its sum and its square, at most 1 each in half its
public range, and in one bin of 8, one of 64 and one of 512 over the range. A rank at an edge is a sum of at most 21 of
these bins, so its noise is small wherever the edge lies, and the interval of a quantile is where its rank may be. The
exact form is `table_one`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from strategies.analyses.allele_frequency import NORMAL_95
from strategies.analyses.table_one import ALL, check_asked
from strategies.analysis import NAMES_ANY_COLUMN, WHOLE, Answer, Column, Frame, Needs, Total
from strategies.cohort import Cohort
from strategies.labels import unit_of
from strategies.privacy import Regime
from strategies.summary import COUNT_BITS, Field, Summary
from strategies.variables import Variables, columns_of, mean_and_deviation, per_group

BRANCH, LEVELS = 8, 3
FINEST = BRANCH**LEVELS
STARTS = tuple(sum(BRANCH**d for d in range(1, level)) for level in range(1, LEVELS + 1))
"""Where each level's bins begin in the tree."""

MOMENT_BITS = 16


@dataclass(frozen=True)
class NoisedTableOne:
    """Noised counts, means, deviations, quantiles and categories of some variables, by group if asked.

    Attributes:
        variables, by, quantiles: as of the exact one.
    """

    analysis: ClassVar[str] = "table_one"
    regime: ClassVar[Regime] = Regime.PRIVATE
    by_site: ClassVar[bool] = True
    summary_in_words: ClassVar[str] = (
        "of each variable and group, noised numbers of people in each category and without a value, noised sums of "
        "numbers and of their squares, and noised numbers of people in bins over the public range"
    )

    variables: tuple[str, ...] = field(metadata=NAMES_ANY_COLUMN)
    by: str | None = field(default=None, metadata=NAMES_ANY_COLUMN)
    quantiles: tuple[float, ...] = (0.25, 0.5, 0.75)

    def __post_init__(self) -> None:
        check_asked(self.variables, self.by, self.quantiles)

    def needs(self) -> Needs:
        return Needs(columns=(self.by,) if self.by else (), optional=self.variables)

    def rounds(self) -> int:
        return 1

    def fraction(self) -> float:
        return 1.0

    def slices(self, frame: Frame) -> tuple[slice, ...]:
        return WHOLE

    def _variables(self, frame: Frame) -> Variables:
        return Variables.of(self.variables, self.by, frame.columns)

    def leaves(self, frame: Frame) -> dict[str, Field]:
        variables = self._variables(frame)
        groups, out = len(variables.groups), dict[str, Field]()
        for i, name in enumerate(variables.names):
            words = f"people in each category of {name} and without"
            out[f"cells_{i}"] = Field((groups, variables.size(i)), words, 1.0, 1.0, COUNT_BITS)
        for i in variables.numbers:
            words = f"sums of {variables.names[i]} and of its square, in units of half its range"
            out[f"moments_{i}"] = Field((groups, 2), words, 2.0, 2**0.5, MOMENT_BITS)
            if self.quantiles:
                size = STARTS[-1] + FINEST
                words = f"people in 8, 64 and 512 bins of {variables.names[i]}"
                out[f"tree_{i}"] = Field((groups, size), words, float(LEVELS), LEVELS**0.5, COUNT_BITS)
        return out

    def summarise(self, cohort: Cohort, frame: Frame) -> Summary:
        variables, fields = self._variables(frame), self.leaves(frame)
        group, out = variables.group_of(cohort), dict[str, NDArray[np.int64]]()
        for i in range(len(variables.names)):
            out[f"cells_{i}"] = variables.counts(cohort, i) << COUNT_BITS
        for i in variables.numbers:
            values = variables.unit(cohort, i)
            unit, there = np.nan_to_num(values), (group >= 0) & ~np.isnan(values)
            own = fields[f"moments_{i}"].integers(np.stack([unit, unit**2], axis=1))
            out[f"moments_{i}"] = per_group(own, group, len(variables.groups))
            if self.quantiles:
                at = np.clip(np.floor((unit + 1) / 2 * FINEST), 0, FINEST - 1).astype(np.int64)
                size = fields[f"tree_{i}"].shape[1]
                tree = np.zeros(fields[f"tree_{i}"].size, dtype=np.int64)
                for level, start in enumerate(STARTS, start=1):
                    place = group * size + start + at // BRANCH ** (LEVELS - level)
                    tree += np.bincount(place[there], minlength=len(tree))
                out[f"tree_{i}"] = tree.reshape(-1, size) << COUNT_BITS
        return out

    def withhold(self, sums: Summary, minimum_cell: int) -> Summary:
        return sums

    def conclude(self, total: Total, frame: Frame) -> Answer:
        variables = self._variables(frame)
        values = {name: f.values(total.sums[name]) for name, f in self.leaves(frame).items()}
        groups = len(variables.labels)
        strata = [(ALL, slice(None)), *((label, slice(g, g + 1)) for g, label in enumerate(variables.labels))]
        numbers, categories, quantiles = (list[tuple[Any, ...]]() for _ in range(3))
        for i, (name, span) in enumerate(zip(variables.names, variables.ranges, strict=True)):
            for label, own in strata:
                cells = values[f"cells_{i}"][own].sum(axis=0)
                together = math.sqrt(groups if label == ALL and groups else 1)
                noise = total.noise.get(f"cells_{i}", 0.0) * together
                if span.categories:
                    having = max(float(cells[:-1].sum()), 1.0)
                    for j, people in enumerate(cells.tolist()):
                        what = span.categories[j] if j < len(cells) - 1 else ""
                        share = min(max(people / having, 0.0), 1.0) if what else math.nan
                        categories.append((name, what, label, people, noise, share))
                    continue
                people = max(float(cells[0]), 1.0)
                first, second = values[f"moments_{i}"][own].sum(axis=0)
                mean, deviation = mean_and_deviation(np.array([people]), first, second, span)
                middle, half = (span.maximum + span.minimum) / 2, (span.maximum - span.minimum) / 2
                off = (float(mean[0]) - middle) / half
                error = half / people * math.hypot(total.noise.get(f"moments_{i}", 0.0) * together, off * noise)
                inside = float(np.clip(mean[0], span.minimum, span.maximum))
                numbers.append((name, label, float(cells[0]), float(cells[1]), noise, inside, error, *deviation))
                if self.quantiles:
                    tree, scale = values[f"tree_{i}"][own].sum(axis=0), total.noise.get(f"tree_{i}", 0.0) * together
                    for level in self.quantiles:
                        ends = quantile_interval(tree, level, scale)
                        low, at, high = (span.minimum + 2 * half * e / FINEST for e in ends)
                        quantiles.append((name, label, level, low, at, high))
        tables: dict[str, Mapping[str, Column]] = {
            "numbers": columns_of(
                ("variable", "group", "people", "missing", "people_noise_sd", "mean", "mean_noise_sd",
                 "standard_deviation"),
                numbers,
            ),
            "categories": columns_of(
                ("variable", "category", "group", "people", "people_noise_sd", "share"), categories
            ),
            "quantiles": columns_of(("variable", "group", "quantile", "low_95", "estimate", "high_95"), quantiles),
        }  # fmt: skip
        everybody = values["cells_0"]
        facts: dict[str, float | int | str] = {
            "people": float(everybody.sum()),
            "people_noise_sd": total.noise.get("cells_0", 0.0) * math.sqrt(everybody.size),
        }
        for name, span in zip(variables.names, variables.ranges, strict=True):
            facts |= unit_of(span, name)
        return Answer(tables, facts)


def quantile_interval(tree: NDArray[np.float64], level: float, noise: float) -> tuple[int, int, int]:
    """Where a quantile of the people lies, in edges of the finest bins: the ends of a 95 % interval, and an estimate.

    At an edge the people below it, less `level` times all, are 0 but for noise: the interval holds the edges at which
    that may be, and a bin at either end.

    Args:
        tree: noised people in 8, 64 and 512 bins, one after the other.
        noise: standard deviation of the noise in each bin.
    """
    edges = np.arange(FINEST + 1)
    below, nodes = np.zeros(FINEST + 1), np.zeros(FINEST + 1)
    for depth, start in enumerate(STARTS, start=1):
        width = BRANCH ** (LEVELS - depth)
        upto = np.concatenate([[0.0], np.cumsum(tree[start : start + BRANCH**depth])])
        parent = edges // (width * BRANCH) * BRANCH if depth > 1 else 0 * edges  # bins before it are in a wider one
        below += upto[edges // width] - upto[parent]
        if depth > 1:
            nodes += edges // width - parent
    coarse = edges // BRANCH ** (LEVELS - 1)
    all_of_them = float(tree[:BRANCH].sum())
    variance = (1 - level) ** 2 * coarse + level**2 * (BRANCH - coarse) + nodes
    off = below - level * all_of_them
    possible = np.flatnonzero(np.abs(off) <= NORMAL_95 * noise * np.sqrt(variance))
    at = int(np.argmax(np.maximum.accumulate(off) >= 0)) if (off >= 0).any() else FINEST
    low, high = (int(possible[0]), int(possible[-1])) if len(possible) else (at, at)
    return max(min(low, at) - 1, 0), at, min(max(high, at) + 1, FINEST)

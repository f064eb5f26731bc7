"""Phenome-wide association: each variant of a short panel with many phenotypes, each of its own people; exact.

A phenotype of two categories is tested by the Cochran-Armitage trend over copies, the score test of a logistic
regression; its odds ratio is that of carriers. One of numbers is regressed on the copies. There are no covariates: for
those, `carriers` offers a variant's genotypes as a column that regressions take. Who lacks a phenotype is a cell of it,
and keeps their place in the others; a pair of variant and phenotype with a small cell is withheld.

[1] Benjamini, Hochberg: Controlling the false discovery rate, JRSS B 57 (1995).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy import special

from strategies.analysis import (
    NAMES_COLUMN,
    NAMES_PANEL,
    Answer,
    Column,
    Frame,
    Needs,
    Range,
    Total,
    by_variants,
)
from strategies.cohort import Cohort
from strategies.errors import UsageError
from strategies.groups import group_places
from strategies.ploidy import copies, counts_by_group
from strategies.privacy import Regime
from strategies.protections.suppression import WITHHELD, held_by_few, replaced, small
from strategies.summary import Field, Summary
from strategies.two_way import trend, woolf

MOST_VARIANTS, MOST_PHENOTYPES = 100, 500
MOMENT_BITS = 36


@dataclass(frozen=True)
class PheWAS:
    """A few variants with all phenotypes.

    Attributes:
        panel: name of a panel of at most 100 variants, of which everybody has two copies.
        phenotypes: names of 1 to 500 columns, of two categories or of numbers.
    """

    analysis: ClassVar[str] = "phewas"
    regime: ClassVar[Regime] = Regime.EXACT
    by_site: ClassVar[bool] = True
    summary_in_words: ClassVar[str] = (
        "for each variant and phenotype, numbers of people with each genotype by category and without the phenotype, "
        "and of numbers the sums and sums of squares by genotype"
    )

    panel: str = field(metadata=NAMES_PANEL)
    phenotypes: tuple[str, ...] = field(metadata=NAMES_COLUMN)

    def __post_init__(self) -> None:
        if not 1 <= len(self.phenotypes) <= MOST_PHENOTYPES or len(set(self.phenotypes)) < len(self.phenotypes):
            raise ValueError(f"phenotypes are 1 to {MOST_PHENOTYPES} different columns.")

    def needs(self) -> Needs:
        return Needs(panel=self.panel, optional=self.phenotypes)

    def rounds(self) -> int:
        return 1

    def fraction(self) -> float:
        return 0.0

    def slices(self, frame: Frame) -> tuple[slice, ...]:
        return by_variants(frame)

    def _kinds(self, frame: Frame) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Phenotypes of two categories, and of numbers."""
        binary = tuple(name for name in self.phenotypes if frame.columns[name].categories)
        return binary, tuple(name for name in self.phenotypes if name not in binary)

    def leaves(self, frame: Frame) -> dict[str, Field]:
        assert frame.panel is not None
        m, (binary, numbers) = len(frame.panel), self._kinds(frame)
        if m > MOST_VARIANTS or copies(frame.panel).any():
            raise UsageError(
                f"All phenotypes are asked of at most {MOST_VARIANTS} variants of which everybody carries two copies.",
                f"panel {self.panel!r:.60} of {m}",
                "name a shorter panel, without X outside its pseudo-autosomal regions, Y and MT.",
            )
        b, n = m * len(binary), m * len(numbers)
        words = "people with 0, 1, 2 or no observed alternate alleles"
        return {
            "binary": Field(
                (m, len(binary), 4, 3), f"{words}, by category and without one", b, b**0.5, per_variant=True
            ),
            "numbers": Field(
                (m, len(numbers), 4, 2), f"{words}, with and without a value", n, n**0.5, per_variant=True
            ),
            "sums": Field(
                (m, len(numbers), 3, 2),
                "sums of values and of their squares by genotype, in units of half the range",
                2 * n,
                (2 * n) ** 0.5,
                MOMENT_BITS,
                per_variant=True,
            ),
            "holders": Field((m,), "sites that hold the variant", m, m**0.5, per_variant=True, over="sites"),
            "people": Field((), "people", 1, 1),
        }

    def summarise(self, cohort: Cohort, frame: Frame) -> Summary:
        assert cohort.genotypes is not None
        (binary, numbers), fields = self._kinds(frame), self.leaves(frame)
        out: dict[str, NDArray[np.int64]] = {
            name: np.zeros(fields[name].shape, dtype=np.int64) for name in ("binary", "numbers", "sums")
        }
        for i, name in enumerate(binary):
            place = group_places(cohort.columns[name], range(2))
            counted = counts_by_group(cohort.genotypes, np.where(place < 0, 2, place), 3)
            out["binary"][:, i] = counted.transpose(0, 2, 1)
        codes = cohort.genotypes.codes() if numbers else np.zeros((len(cohort.genotypes), 0), dtype=np.uint8)
        for i, name in enumerate(numbers):
            missing = np.isnan(cohort.columns[name])
            counted = counts_by_group(cohort.genotypes, missing.astype(np.int64), 2)
            out["numbers"][:, i] = counted.transpose(0, 2, 1)
            unit = np.nan_to_num(frame.columns[name].unit(cohort.columns[name]))
            own = fields["sums"].integers(np.stack([unit, unit**2], axis=1))
            for copy in range(3):
                for j, row in enumerate(codes):
                    out["sums"][j, i, copy] = own[(row == copy) & ~missing].sum(axis=0)
        observed = cohort.genotypes.counts()[:, :3].any(axis=1)
        out["holders"] = np.where(observed, 1, 0).astype(np.int64)
        return out | {"people": np.array(len(cohort), dtype=np.int64)}

    def withhold(self, sums: Summary, minimum_cell: int) -> Summary:
        if small(sums["people"], minimum_cell):
            return {name: np.full_like(array, WITHHELD) for name, array in sums.items()}
        out = dict(sums)
        for kind, more in (("binary", ()), ("numbers", ("sums",))):
            few = (small(sums[kind], minimum_cell) | (sums[kind] == WITHHELD)).any(axis=(2, 3))
            out |= replaced(out, (kind, *more), few, WITHHELD)
        return out

    def conclude(self, total: Total, frame: Frame) -> Answer:
        assert frame.panel is not None
        sums = self.withhold(total.sums, total.minimum_cell)
        few = held_by_few(sums["holders"], len(total.sites))
        binary, numbers = self._kinds(frame)
        rows = list[tuple[Any, ...]]()
        for j, variant in enumerate(frame.panel.variants):
            for name in self.phenotypes:
                if name in binary:
                    cells = sums["binary"][j, binary.index(name)]
                    hidden = bool(few[j] or (cells == WITHHELD).any())
                    result = _binary(None if hidden else cells)
                else:
                    at = numbers.index(name)
                    cells = sums["numbers"][j, at]
                    hidden = bool(few[j] or (cells == WITHHELD).any())
                    result = _linear(None if hidden else cells, sums["sums"][j, at], frame.columns[name])
                rows.append((variant.identifier, name, *result, hidden))
        names = ("variant", "phenotype", "people", "cases", "odds_ratio", "odds_ratio_low", "odds_ratio_high", "beta",
                 "standard_error", "p_value", "withheld")  # fmt: skip
        table: dict[str, Column] = {}
        for i, column in enumerate(names):
            values = [row[i] for row in rows]
            text = column in ("variant", "phenotype")
            kind = np.bool_ if column == "withheld" else np.float64
            table[column] = tuple(values) if text else np.array(values, dtype=kind)
        p = np.asarray(table["p_value"], dtype=np.float64)
        tests = int(np.isfinite(p).sum())
        table |= {"p_bonferroni": np.minimum(p * max(tests, 1), 1.0), "q_value": false_discovery(p)}
        people = math.nan if sums["people"] == WITHHELD else int(sums["people"])
        facts: dict[str, float | int | str] = {"people": people, "phenotypes": len(self.phenotypes), "tests": tests}
        return Answer({"phenome": table}, facts, int(np.count_nonzero(table["withheld"])))


NO_RESULT = (math.nan,) * 8
"""People, cases, odds ratio, its interval, beta, its standard error, p."""


def _binary(cells: NDArray[np.int64] | None) -> tuple[float, ...]:
    """Of (4, 3) genotypes by category."""
    if cells is None:
        return NO_RESULT
    table = cells[:3, :2].T.astype(np.float64)
    ratio = woolf(np.stack([table[::-1, 1:].sum(axis=1), table[::-1, 0]], axis=1))
    p = float(trend(table)[1])
    return float(table.sum()), float(table[1].sum()), ratio.estimate, ratio.low, ratio.high, math.nan, math.nan, p


def _linear(cells: NDArray[np.int64] | None, sums: NDArray[np.int64], span: Range) -> tuple[float, ...]:
    """Of (4, 2) people by genotype with a value, and (3, 2) sums: the regression of the values on copies."""
    if cells is None:
        return NO_RESULT
    people, copy, half = cells[:3, 0].astype(np.float64), np.arange(3.0), (span.maximum - span.minimum) / 2
    first, second = sums.T * 2.0**-MOMENT_BITS
    n = float(people.sum())
    beta = error = p = math.nan
    if n > 2:
        gg = float(people @ copy**2) - float(people @ copy) ** 2 / n
        gy = float(first @ copy) - float(people @ copy) * float(first.sum()) / n
        yy = float(second.sum()) - float(first.sum()) ** 2 / n
        if gg > 1e-9 * n and yy > 0:
            beta = gy / gg
            error = math.sqrt(max(yy - beta * gy, 0.0) / (n - 2) / gg)
            p = 2 * float(special.stdtr(n - 2, -abs(beta / error))) if error > 0 else math.nan
    return n, math.nan, math.nan, math.nan, math.nan, half * beta, half * error, p


def false_discovery(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Benjamini and Hochberg's q values [1] of the p values that there are.

    >>> false_discovery(np.array([0.01, np.nan, 0.02, 0.5])).round(4).tolist()
    [0.03, nan, 0.03, 0.5]
    """
    out, there = np.full(len(p), np.nan), np.flatnonzero(np.isfinite(p))
    order = there[np.argsort(p[there], kind="stable")]
    q = p[order] * len(order) / np.arange(1, len(order) + 1)
    out[order] = np.minimum(np.minimum.accumulate(q[::-1])[::-1], 1.0)
    return out


def draw_phenome(answer: Answer, axes: Any) -> str:
    """Draw -log10 p of each phenotype, the most significant named; returns the figure in words."""
    table = answer.tables["phenome"]
    p = np.asarray(table["p_value"], dtype=np.float64)
    height = -np.log10(np.maximum(p, 1e-300))
    phenotypes = list(dict.fromkeys(table["phenotype"]))
    place = np.array([phenotypes.index(name) for name in table["phenotype"]], dtype=np.float64)
    axes.plot(place, height, "o", color="C0", markersize=4)
    tests = int(np.isfinite(p).sum())
    if tests:
        axes.axhline(-math.log10(0.05 / tests), color="C2", linewidth=1, linestyle=(0, (3, 2)))
        for i in np.argsort(np.where(np.isfinite(p), p, 2.0), kind="stable")[: min(5, tests)].tolist():
            axes.annotate(f"{table['phenotype'][i]:.16}", (place[i], height[i]), (3, 3), textcoords="offset points")
    axes.set_xlabel("phenotype, in the study's order")
    axes.set_ylabel("−log₁₀ p")
    axes.set_ylim(0, None)
    if not tests:
        return "P values of phenotypes: there are none, or they are withheld."
    best = int(np.nanargmin(p))
    name = f"{table['phenotype'][best]} with {table['variant'][best]}"
    return f"P values of {tests} pairs of variant and phenotype; the smallest is that of {name}, {p[best]:.2g}."

"""Genotypes by category: carriers by diagnosis, response by genotype. Of each variant of a panel the people with 0, 1,
2 and no observed alternate alleles in each category, and tests of independence; exact.

The cells of a variant are all its people, so a variant with one small cell is withheld as a row, as in exact genotype
counts; what may be known of it, such as a category's size or the genotypes of all, leaves each of its cells a span of
at least the minimum.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from strategies.analyses.allele_frequency import variant_columns
from strategies.analysis import NAMES_GROUPS, NAMES_PANEL, Answer, Column, Frame, Needs, Total, by_variants
from strategies.cohort import Cohort
from strategies.errors import UsageError
from strategies.groups import group_codes, group_names, group_places
from strategies.ploidy import copies, counts_by_group
from strategies.privacy import Regime
from strategies.protections.suppression import WITHHELD, held_by_few, replaced, small, small_cells
from strategies.summary import Field, Summary
from strategies.two_way import NO_RATIO, chi_square, fisher, trend, woolf

GENOTYPES = ("hom_ref", "het", "hom_alt", "missing")


@dataclass(frozen=True)
class GenotypeTable:
    """Genotypes of a panel's variants by the categories of a column.

    Attributes:
        panel: name of the study's panel, of variants of which everybody has two copies.
        category: name of a column of categories or of whole numbers, at most 20. Of two, the second are cases: the odds
            of carrying the alternate allele are theirs over the first's. People without a value are left out.
    """

    analysis: ClassVar[str] = "genotype_table"
    regime: ClassVar[Regime] = Regime.EXACT
    by_site: ClassVar[bool] = True
    summary_in_words: ClassVar[str] = (
        "for each variant and category, the number of people with each genotype; the number of sites that hold the "
        "variant, and of people in each category"
    )

    panel: str = field(metadata=NAMES_PANEL)
    category: str = field(metadata=NAMES_GROUPS)

    def needs(self) -> Needs:
        return Needs(columns=(self.category,), panel=self.panel)

    def rounds(self) -> int:
        return 1

    def fraction(self) -> float:
        return 0.0

    def slices(self, frame: Frame) -> tuple[slice, ...]:
        return by_variants(frame)

    def leaves(self, frame: Frame) -> dict[str, Field]:
        assert frame.panel is not None
        if (odd := copies(frame.panel)).any():
            raise UsageError(
                "Genotypes by category are of variants of which everybody carries two copies.",
                f"{np.count_nonzero(odd)} of panel {self.panel!r:.40} on X beyond pseudo-autosomal regions, Y or MT",
                "leave them out of the panel, or ask for exact counts by group and sex.",
            )
        m, categories = len(frame.panel), len(group_codes(self.category, frame.columns[self.category]))
        words = "people with 0, 1, 2 or no observed alternate alleles, by category"
        return {
            "genotypes": Field((m, categories, 4), words, m, m**0.5, per_variant=True),
            "holders": Field((m,), "sites that hold the variant", m, m**0.5, per_variant=True, over="sites"),
            "categories": Field((categories,), "people in each category", 1, 1),
            "people": Field((), "people", 1, 1),
        }

    def summarise(self, cohort: Cohort, frame: Frame) -> Summary:
        assert cohort.genotypes is not None
        codes = group_codes(self.category, frame.columns[self.category])
        group = group_places(cohort.columns[self.category], codes)
        cells = counts_by_group(cohort.genotypes, group, len(codes))
        people = np.bincount(group[group >= 0], minlength=len(codes)).astype(np.int64)
        return {
            "genotypes": cells,
            "holders": cells[:, :, :3].any(axis=(1, 2)).astype(np.int64),
            "categories": people,
            "people": people.sum(),
        }

    def withhold(self, sums: Summary, minimum_cell: int) -> Summary:
        cells = sums["genotypes"]
        few = small_cells(np.moveaxis(cells.reshape(len(cells), -1), 1, 0), minimum_cell)
        few |= (cells == WITHHELD).any(axis=(1, 2))
        out = replaced(sums, ("genotypes",), few, WITHHELD)
        unsaid = np.broadcast_to(small(sums["categories"], minimum_cell).any(), sums["categories"].shape)
        out = replaced(out, ("categories",), unsaid, WITHHELD)
        return replaced(out, ("people",), small(sums["people"], minimum_cell), WITHHELD)

    def conclude(self, total: Total, frame: Frame) -> Answer:
        assert frame.panel is not None
        sums = self.withhold(total.sums, total.minimum_cell)
        names = group_names(self.category, frame.columns[self.category])
        few = held_by_few(sums["holders"], len(total.sites))
        withheld = few | (sums["genotypes"] == WITHHELD).any(axis=(1, 2))
        cells = np.where(withheld[:, None, None], 0, sums["genotypes"])
        variants = variant_columns(frame.panel)
        table: dict[str, Column] = {**variants, **_tested(cells, withheld), "withheld": withheld, "held_by_few": few}
        each: dict[str, Column] = {
            "variant": tuple(one for one in variants["id"] for _ in names),
            self.category: names * len(cells),
            **{
                genotype: np.where(withheld[:, None], np.nan, cells[:, :, g]).ravel()
                for g, genotype in enumerate(GENOTYPES)
            },
            "withheld": np.repeat(withheld, len(names)),
        }
        facts: dict[str, float | int | str] = {"people": _told(sums["people"]), "variants": len(cells)}
        facts |= {f"people_{name}": _told(n) for name, n in zip(names, sums["categories"], strict=True)}
        return Answer({"variants": table, "genotypes": each}, facts, int(withheld.sum()))


def _told(people: NDArray[np.int64]) -> float:
    return math.nan if people == WITHHELD else int(people)


def _tested(cells: NDArray[np.int64], withheld: NDArray[np.bool_]) -> Mapping[str, Column]:
    """Tests of (M, K, 4) genotypes by category: of all three genotypes; of two categories, of carriers and a trend."""
    observed = cells[:, :, :3].astype(np.float64)
    columns: dict[str, list[float]] = {
        name: [] for name in ("chi_square", "degrees_of_freedom", "p_value", "trend_p_value", "carrier_odds_ratio",
                              "carrier_odds_ratio_low", "carrier_odds_ratio_high", "carrier_fisher_p_value")
    }  # fmt: skip
    two = observed.shape[1] == 2
    for j, table in enumerate(observed):
        ratio, p = NO_RATIO, math.nan
        if two and not withheld[j]:
            carriers = np.stack([table[:, 1:].sum(axis=1), table[:, 0]], axis=1)[::-1]  # cases first
            ratio, p = woolf(carriers), fisher(carriers.astype(np.int64))
        slope = float(trend(table)[1]) if two else math.nan
        values = (*chi_square(table), slope, ratio.estimate, ratio.low, ratio.high, p)
        for column, value in zip(columns.values(), values, strict=True):
            column.append(value)
    numbers = {"people": observed.sum(axis=(1, 2)), "carriers": observed[:, :, 1:].sum(axis=(1, 2))}
    numbers |= {name: np.array(column, dtype=np.float64) for name, column in columns.items()}
    return {name: np.where(withheld, np.nan, values) for name, values in numbers.items()}


def draw_genotypes(answer: Answer, category: str, row: int, axes: Any) -> str:
    """Draw one variant's genotypes within each category, as parts of those observed; returns the figure in words."""
    table = answer.tables["genotypes"]
    names = list(dict.fromkeys(table[category]))
    own = slice(row * len(names), (row + 1) * len(names))
    counts = np.stack([np.asarray(table[g][own], dtype=np.float64) for g in GENOTYPES[:3]])
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = np.nan_to_num(100 * counts / counts.sum(axis=0))
    left = np.zeros(len(names))
    for share, label, shade in zip(shares, ("no copy", "1 copy", "2 copies"), (0.25, 0.6, 1.0), strict=True):
        axes.barh(np.arange(len(names)), share, left=left, color="C0", alpha=shade, height=0.7, label=label)
        left = left + share
    axes.set_yticks(np.arange(len(names)), [f"{name:.16}" for name in names])
    axes.invert_yaxis()
    axes.set_xlabel("% of those observed")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    return f"Genotypes of {table['variant'][own.start]} in {len(names)} categories of {category}, as parts of each."

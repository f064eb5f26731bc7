"""Genotype counts, exact: of each variant, with its allele frequency, call rate and Hardy-Weinberg p.

Counted over all people, and for each group of a public column of codes if one is named. X, Y and MT are counted by sex
(`strategies.ploidy`). The Hardy-Weinberg test is exact [1] and of those with two copies, on X of the females; there is
none on Y and MT.

Not for publication: exact counts of many variants expose membership [2]. `allele_frequency` has the private form.

[1] Wigginton, Cutler, Abecasis: A note on exact tests of Hardy-Weinberg equilibrium, AJHG 76 (2005), equation 2.
[2] Homer et al.: Resolving individuals contributing trace amounts of DNA, PLoS Genetics 4 (2008).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from strategies import kernels
from strategies.analyses.allele_frequency import variant_columns
from strategies.analysis import NAMES_GROUPS, NAMES_PANEL, Answer, Column, Frame, Needs, Total, by_variants
from strategies.cohort import Cohort
from strategies.errors import UsageError
from strategies.groups import group_codes, group_names
from strategies.ploidy import CELLS, check_sex, copies, counts_by_copies, counts_by_group
from strategies.privacy import Regime
from strategies.protections.suppression import WITHHELD, held_by_few, replaced, small, small_cells
from strategies.summary import Field, Summary

TOTAL = "Total"

LABEL = re.compile(r"(?!Total$)[A-Za-z0-9_-]{1,40}")
"""A name of a group."""


def hardy_weinberg(homozygous_1: Column, heterozygous: Column, homozygous_2: Column) -> NDArray[np.float64]:
    """Exact Hardy-Weinberg p values: the total probability of tables no likelier than the one observed [1].

    Args:
        homozygous_1, heterozygous, homozygous_2: (M,) genotype counts.

    Returns:
        (M,) p values in (0, 1]; NaN where nobody was genotyped.

    >>> hardy_weinberg(np.array([201, 0]), np.array([144, 0]), np.array([13, 0])).round(7).tolist()
    [0.0409479, nan]
    """
    return kernels.hardy_weinberg(np.stack([homozygous_1, heterozygous, homozygous_2], axis=1).astype(np.int64))


@dataclass(frozen=True)
class GenotypeCounts:
    """How many people carry 0, 1 and 2 alternate alleles, and how many have no observed genotype, per variant.

    The cells of a variant are all its people, so a variant with one small cell is withheld as a row: then no cell
    follows from the others and the number of people, and every minor allele count shown is 0 or at least the minimum.
    Groups are shown all or not at all: a variant at which one group has a small cell shows its total alone, and then
    each cell of a group may still be any number of at least that many values, whatever is known of the group's size.
    A variant counts as held by a site, or by a site's part of a group, where somebody's genotype is observed.

    Attributes:
        panel: name of the study's panel.
        by: name of a column whose codes, the whole numbers of its range, are groups that are counted apart as well. A
            value in between counts as the nearest code. At most 20 groups; people without a value are left out.
        sex: name of the column of sexes, 1 male and 2 female, which a panel with variants on X outside its
            pseudo-autosomal regions, on Y or on MT needs. Where a table writes 0 for unknown, its range is [0, 2].
            People without a value are left out.
        labels: names of the groups, from the lowest code to the highest; those of the form FI, FI_M or M are written
            for exchange between nodes. None given: M and F where `by` is the column of sexes, else the codes.
    """

    analysis: ClassVar[str] = "allele_frequency"
    regime: ClassVar[Regime] = Regime.EXACT
    by_site: ClassVar[bool] = True
    summary_in_words: ClassVar[str] = (
        "for each variant, the number of people with each genotype and of sites that hold it; the number of people; "
        "the same for each group where the question names groups"
    )

    panel: str = field(metadata=NAMES_PANEL)
    by: str | None = field(default=None, metadata=NAMES_GROUPS)
    sex: str | None = field(default=None, metadata=NAMES_GROUPS)
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.labels and self.by is None:
            raise ValueError("labels name the groups of `by`.")
        if len(set(self.labels)) < len(self.labels) or not all(map(LABEL.fullmatch, self.labels)):
            raise ValueError("labels are different names of 1 to 40 letters, digits, '_' and '-', none of them Total.")

    def needs(self) -> Needs:
        return Needs(columns=self._columns, panel=self.panel)

    def rounds(self) -> int:
        return 1

    def fraction(self) -> float:
        return 0.0

    def slices(self, frame: Frame) -> tuple[slice, ...]:
        return by_variants(frame)

    @property
    def _columns(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for name in (self.by, self.sex) if name is not None))

    @property
    def _cells(self) -> int:
        return len(CELLS) if self.sex else 4

    def groups(self, frame: Frame) -> tuple[str, ...]:
        """Labels of the groups, from the lowest code to the highest; none if the question names no column of groups.

        Raises:
            UsageError: if the column's range is none of codes, or has another number of them than there are labels.
        """
        if self.by is None:
            return ()
        codes = group_codes(self.by, frame.columns[self.by])
        names = group_names(self.by, frame.columns[self.by])
        labels = self.labels or (("M", "F") if self.by == self.sex and len(codes) == 2 else names)
        if TOTAL in labels:
            raise UsageError(
                f"No group is called {TOTAL}, which stands for everybody.",
                f"a category of {self.by!r:.60}",
                "give `labels`, or declare another name.",
            )
        if len(labels) != len(codes):
            raise UsageError(
                "There are as many labels as groups.",
                f"{len(labels)} labels and {len(codes)} codes of {self.by!r}",
                "name each code, from the lowest to the highest, or leave `labels` out.",
            )
        return labels

    def leaves(self, frame: Frame) -> dict[str, Field]:
        assert frame.panel is not None
        check_sex(frame.panel, self.panel, self.sex, frame.columns, males_alone=True)
        m, groups = len(frame.panel), len(self.groups(frame))
        # A person is in one of a variant's cells at most: one entry per variant changes, by one.
        words = "people with 0, 1, 2 or no observed alternate alleles"
        if self.sex:
            words += " of two, and with 0, 1 or none observed of one"
        out = {
            "genotypes": Field((m, self._cells), words, m, m**0.5, per_variant=True),
            "holders": Field((m,), "sites that hold the variant", m, m**0.5, per_variant=True, over="sites"),
            "people": Field((), "people", 1, 1),
        }
        if groups:
            held = "sites that hold the variant, by group"
            out |= {
                "groups": Field((m, groups, self._cells), f"{words}, by group", m, m**0.5, per_variant=True),
                "group_holders": Field((m, groups), held, m, m**0.5, per_variant=True, over="sites"),
                "group_people": Field((groups,), "people by group", 1, 1),
            }
        return out

    def summarise(self, cohort: Cohort, frame: Frame) -> Summary:
        assert cohort.genotypes is not None
        if not self._columns:
            return _counted(cohort.genotypes.counts(), len(cohort))
        assert frame.panel is not None
        inside, groups = cohort.complete, max(1, len(self.groups(frame)))
        group = np.where(inside, 0, -1)
        if self.by is not None:
            codes = np.rint(cohort.columns[self.by][inside]) - frame.columns[self.by].minimum
            group[inside] = codes.astype(np.int64)
        if self.sex is None:
            cells = counts_by_group(cohort.genotypes, group, groups)
        else:
            sex = np.rint(cohort.columns[self.sex])
            cells = counts_by_copies(cohort.genotypes, copies(frame.panel), group, groups, sex)
        out = _counted(cells.sum(axis=1), int(np.count_nonzero(inside)))
        if self.by is None:
            return out
        return {
            **out,
            "groups": cells,
            "group_holders": _observed(cells),
            "group_people": np.bincount(group[inside], minlength=groups).astype(np.int64),
        }

    def withhold(self, sums: Summary, minimum_cell: int) -> Summary:
        few = _has_small(sums["genotypes"], sums["people"], minimum_cell)
        shown = replaced(sums, ("genotypes",), few, WITHHELD)
        shown = replaced(shown, ("people",), small(sums["people"], minimum_cell), WITHHELD)
        if "groups" in sums:
            few |= _has_small(sums["groups"], sums["group_people"], minimum_cell).any(axis=1)
            shown = replaced(shown, ("groups",), few, WITHHELD)
            any_small = np.broadcast_to(small(sums["group_people"], minimum_cell).any(), sums["group_people"].shape)
            shown = replaced(shown, ("group_people",), any_small, WITHHELD)
        return shown

    def conclude(self, total: Total, frame: Frame) -> Answer:
        assert frame.panel is not None
        sums = self.withhold(total.sums, total.minimum_cell)
        few = held_by_few(sums["holders"], len(total.sites))
        withheld = few | (sums["genotypes"] == WITHHELD).any(axis=1)
        variants = variant_columns(frame.panel)
        table = {**variants, **_numbers(sums["genotypes"], withheld), "held_by_few": few}
        people = math.nan if sums["people"] == WITHHELD else int(sums["people"])
        facts: dict[str, float | int | str] = {"people": people, "variants": len(frame.panel)}
        tables: dict[str, Mapping[str, Column]] = {"frequencies": table}
        if self.by is not None:
            labels = self.groups(frame)
            hidden = withheld | self._collapsed(sums, withheld, len(total.sites))
            tables["populations"] = _populations(variants, labels, sums["groups"], hidden)
            for label, number in zip(labels, sums["group_people"].tolist(), strict=True):
                facts[f"people_{label}"] = math.nan if number == WITHHELD or hidden.all() else number
            facts["variants_without_groups"] = int((hidden & ~withheld).sum())
        return Answer(tables, facts, int(withheld.sum()))

    def _collapsed(self, sums: Summary, withheld: NDArray[np.bool_], sites: int) -> NDArray[np.bool_]:
        """(M,) whether a variant shows no group, since one has a small cell or is held by few sites."""
        small_ones: NDArray[np.bool_] = (sums["groups"] == WITHHELD).any(axis=(1, 2))
        cells = np.where((withheld | small_ones)[:, None, None], 0, sums["groups"])
        few = held_by_few(sums["group_holders"], sites) & cells.any(axis=2)
        return small_ones | few.any(axis=1)


def _observed(cells: NDArray[np.int64]) -> NDArray[np.int64]:
    """1 where somebody's genotype is observed, else 0; the last axis is `CELLS`, or the first four of them."""
    seen = np.concatenate([cells[..., :3], cells[..., 4:6]], axis=-1)
    return np.asarray(seen.any(axis=-1), dtype=np.int64)


def _counted(cells: NDArray[np.int64], people: int) -> dict[str, NDArray[np.int64]]:
    return {"genotypes": cells, "holders": _observed(cells), "people": np.array(people, dtype=np.int64)}


def _has_small(cells: NDArray[np.int64], people: NDArray[np.int64], minimum: int) -> NDArray[np.bool_]:
    """Whether any of a row's cells is small, or the number of people who are in none of them (on Y, the females).

    A row that is withheld already keeps what it says; what is computed of it here is of no account.
    """
    nobody = small(people - cells.sum(axis=-1), minimum)
    out: NDArray[np.bool_] = nobody | small_cells(np.moveaxis(cells, -1, 0), minimum)
    return out


def _numbers(cells: NDArray[np.int64], withheld: NDArray[np.bool_]) -> dict[str, Column]:
    """The columns of (M, 4) or (M, 7) cells, NaN where withheld. A frequency is one of alleles: AC over AN."""
    cells = np.where(withheld[:, None], 0, cells)
    hemi = cells[:, 4:] if cells.shape[1] > 4 else np.zeros((len(cells), 3), dtype=np.int64)
    ref, het, alt, missing = cells[:, :4].T
    observed, one = ref + het + alt, hemi[:, 0] + hemi[:, 1]
    missing = missing + hemi[:, 2]
    ac, an = het + 2 * alt + hemi[:, 1], 2 * observed + one
    with np.errstate(invalid="ignore", divide="ignore"):
        frequency = ac / an
        call_rate = (observed + one) / (observed + one + missing)
    columns = {
        "hom_ref": ref,
        "het": het,
        "hom_alt": alt,
        "hemi_ref": hemi[:, 0],
        "hemi_alt": hemi[:, 1],
        "missing": missing,
        "ac": ac,
        "an": an,
        "frequency": frequency,
        "call_rate": call_rate,
        "hwe_p": hardy_weinberg(ref, het, alt),
    }
    shown: dict[str, Column] = {name: np.where(withheld, np.nan, values) for name, values in columns.items()}
    return shown | {"withheld": withheld}


def _populations(
    variants: Mapping[str, Column], labels: tuple[str, ...], cells: NDArray[np.int64], hidden: NDArray[np.bool_]
) -> dict[str, Column]:
    """The same columns for each group, one group after the other, with its label in the first."""
    each = [_numbers(cells[:, g], hidden) for g in range(len(labels))]
    again = {
        name: values * len(labels) if isinstance(values, tuple) else np.tile(values, len(labels))
        for name, values in variants.items()
    }
    columns = {name: np.concatenate([np.asarray(one[name]) for one in each]) for name in each[0]}
    return {"population": tuple(label for label in labels for _ in range(len(hidden))), **again, **columns}


def draw_spectrum(answer: Answer, axes: Any) -> str:
    """Draw how many variants have which minor allele frequency; returns the figure in words."""
    frequency = np.asarray(answer.tables["frequencies"]["frequency"], dtype=np.float64)
    minor = np.minimum(frequency, 1 - frequency)[np.isfinite(frequency)]
    counts, edges = np.histogram(minor, bins=50, range=(0.0, 0.5))
    axes.bar(edges[:-1], counts, width=np.diff(edges) * 0.86, align="edge", color="C0")
    axes.set_xlim(0, 0.5)
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("minor allele frequency")
    axes.set_ylabel("variants")
    middle = f", half of them below {np.median(minor):.2f}" if len(minor) else ""
    return f"Histogram of the minor allele frequency of {len(minor):,} variants{middle}."


def draw_hardy_weinberg(answer: Answer, axes: Any) -> str:
    """Draw observed against expected Hardy-Weinberg p values; returns the figure in words."""
    p = np.asarray(answer.tables["frequencies"]["hwe_p"], dtype=np.float64)
    p = np.sort(p[np.isfinite(p)])
    expected = -np.log10((np.arange(len(p)) + 0.5) / max(len(p), 1))
    observed = -np.log10(np.maximum(p, np.finfo(np.float64).tiny))
    axes.plot([0, expected.max(initial=1)], [0, expected.max(initial=1)], color="C2", linewidth=1)
    axes.scatter(expected, observed, s=7, color="C0", linewidths=0, rasterized=True)
    axes.set_xlabel("expected −log₁₀ p")
    axes.set_ylabel("observed −log₁₀ p")
    least = f"; the smallest is {p[0]:.2g}" if len(p) else ""
    return f"Observed against expected Hardy-Weinberg p values of {len(p):,} variants{least}."


def draw_groups(answer: Answer, axes: Any) -> str:
    """Draw how far each group's frequencies lie from everybody's: a box for half of the variants, a line for nine of
    ten; returns the figure in words."""
    table = answer.tables["populations"]
    whole = np.asarray(answer.tables["frequencies"]["frequency"], dtype=np.float64)
    labels = list(dict.fromkeys(table["population"]))
    away = np.asarray(table["frequency"], dtype=np.float64).reshape(len(labels), -1) - whole
    told = []
    for at, (label, differences) in enumerate(zip(labels, away, strict=True)):
        shown = differences[np.isfinite(differences)]
        if not len(shown):
            axes.text(0.5, at, "none shown", transform=axes.get_yaxis_transform(), ha="center", va="center")
            continue
        low, quarter, middle, three, high = np.quantile(shown, [0.05, 0.25, 0.5, 0.75, 0.95])
        axes.hlines(at, low, high, color="C0", linewidth=2)
        axes.barh(at, three - quarter, left=quarter, height=0.5, facecolor=("C0", 0.5), edgecolor="C0", linewidth=1.6)
        axes.vlines(middle, at - 0.25, at + 0.25, color="C1", linewidth=2)
        told.append(f"{label} from {low:+.3f} to {high:+.3f}")
    axes.axvline(0, color="C2", linewidth=1, linestyle=(0, (3, 2)))
    axes.set_yticks(range(len(labels)), labels)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.set_xlabel("frequency less everybody's")
    return f"Differences of each group's allele frequencies from everybody's, nine of ten variants: {', '.join(told)}."

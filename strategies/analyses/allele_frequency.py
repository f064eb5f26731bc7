"""Allele frequency: how often each variant's alternate allele occurs.

Exact: the genotype counts of every variant, summed over the sites, from which frequency, call rate and the exact
Hardy-Weinberg p value [1] follow. Private: for a small public panel, each site releases one noised sum of allele
counts per variant, centred at the published frequency, and one noised number of people; the frequency's interval
covers noise and sampling. A missing genotype counts as the published frequency (0.5 where none is given), which draws
the estimate towards it; the interval does not cover that, so ask this of variants that are rarely missing.

Do not use the exact form for publication: exact counts of many variants expose membership [2].

[1] Wigginton, Cutler, Abecasis: A note on exact tests of Hardy-Weinberg equilibrium, AJHG 76 (2005), equation 2.
[2] Homer et al.: Resolving individuals contributing trace amounts of DNA, PLoS Genetics 4 (2008).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from strategies.analysis import NAMES_PANEL, WHOLE, Answer, Column, Frame, Needs, Total, by_variants
from strategies.cohort import Cohort
from strategies.privacy import Regime
from strategies.protections.suppression import small_cells
from strategies.summary import Field, Summary
from strategies.variants import Panel

NORMAL_95 = 1.959963984540054
"""Two-sided 95 % point of the normal distribution."""


def hardy_weinberg(homozygous_1: Column, heterozygous: Column, homozygous_2: Column) -> NDArray[np.float64]:
    """Exact Hardy-Weinberg p values: the total probability of tables no likelier than the one observed [1].

    Args:
        homozygous_1, heterozygous, homozygous_2: (M,) genotype counts.

    Returns:
        (M,) p values in (0, 1]; NaN where nobody was genotyped.

    >>> hardy_weinberg(np.array([201, 0]), np.array([144, 0]), np.array([13, 0])).round(7).tolist()
    [0.0409479, nan]
    """
    het = np.asarray(heterozygous, dtype=np.float64)
    rare = np.minimum(homozygous_1, homozygous_2).astype(np.float64)
    common = np.maximum(homozygous_1, homozygous_2).astype(np.float64)
    total, tail = np.ones_like(het), np.ones_like(het)
    # Tables with the same allele counts are walked outwards from the observed one, relative to its probability.
    for fewer in (True, False):
        active = np.flatnonzero(het > 1) if fewer else np.flatnonzero(rare > 0)
        h, r, c, p = het[active], rare[active], common[active], np.ones(len(active))
        while len(active):
            if fewer:
                p = p * h * (h - 1) / (4 * (r + 1) * (c + 1))
                h, r, c = h - 2, r + 1, c + 1
                more = h > 1
            else:
                p = p * 4 * r * c / ((h + 2) * (h + 1))
                h, r, c = h + 2, r - 1, c - 1
                more = r > 0
            total[active] += p
            tail[active] += np.where(p <= 1 + 1e-8, p, 0)
            more &= p > tail[active] * 1e-17  # beyond the mode, probabilities fall for good
            active, h, r, c, p = active[more], h[more], r[more], c[more], p[more]
    return np.where(het + rare + common > 0, np.minimum(1.0, tail / total), np.nan)


def variant_columns(panel: Panel) -> dict[str, Column]:
    """The columns that name a panel's variants in every table."""
    return {
        "chromosome": tuple(v.chromosome for v in panel.variants),
        "position": np.array([v.position for v in panel.variants], dtype=np.int64),
        "id": tuple(v.identifier for v in panel.variants),
        "ref": tuple(v.reference for v in panel.variants),
        "alt": tuple(v.alternate for v in panel.variants),
    }


@dataclass(frozen=True)
class GenotypeCounts:
    """How many people carry 0, 1 and 2 alternate alleles, and how many have no observed genotype, per variant."""

    analysis: ClassVar[str] = "allele_frequency"
    regime: ClassVar[Regime] = Regime.EXACT
    by_site: ClassVar[bool] = False
    summary_in_words: ClassVar[str] = "for each variant, the number of people with each genotype, summed over the sites"

    panel: str = field(metadata=NAMES_PANEL)

    def needs(self) -> Needs:
        return Needs(panel=self.panel)

    def rounds(self) -> int:
        return 1

    def fraction(self) -> float:
        return 0.0

    def slices(self, frame: Frame) -> tuple[slice, ...]:
        return by_variants(frame)

    def leaves(self, frame: Frame) -> dict[str, Field]:
        assert frame.panel is not None
        m = len(frame.panel)
        # A person is in one of a variant's four cells: one entry per variant changes, by one.
        return {
            "genotypes": Field(
                (m, 4), "people with 0, 1, 2 or no observed alternate alleles", m, m**0.5, per_variant=True
            )
        }

    def summarise(self, cohort: Cohort, frame: Frame) -> Summary:
        assert cohort.genotypes is not None
        return {"genotypes": cohort.genotypes.counts()}

    def conclude(self, total: Total, frame: Frame) -> Answer:
        assert frame.panel is not None
        cells = total.sums["genotypes"]
        ref, het, alt, missing = cells.T
        observed = ref + het + alt
        withheld = small_cells(cells.T, total.minimum_cell)
        with np.errstate(invalid="ignore", divide="ignore"):
            frequency = (het + 2 * alt) / (2 * observed)
            call_rate = observed / (observed + missing)

        def shown(values: NDArray[np.float64] | NDArray[np.int64]) -> NDArray[np.float64]:
            return np.where(withheld, np.nan, values)

        table: dict[str, Column] = {
            **variant_columns(frame.panel),
            "hom_ref": shown(ref),
            "het": shown(het),
            "hom_alt": shown(alt),
            "missing": shown(missing),
            "ac": shown(het + 2 * alt),
            "an": shown(2 * observed),
            "frequency": shown(frequency),
            "call_rate": shown(call_rate),
            "hwe_p": shown(hardy_weinberg(ref, het, alt)),
            "withheld": withheld,
        }
        people = int(cells[0].sum())
        return Answer({"frequencies": table}, {"people": people, "variants": len(frame.panel)}, int(withheld.sum()))


@dataclass(frozen=True)
class NoisedFrequency:
    """Noised allele counts of a small public panel and a noised number of people, for each site and together.

    Each genotype enters as its distance from twice the published frequency p, so a missing one counts as 2p, and a
    person can move a variant's sum by max(2p, 2 - 2p) at most instead of by 2.
    """

    analysis: ClassVar[str] = "allele_frequency"
    regime: ClassVar[Regime] = Regime.PRIVATE
    by_site: ClassVar[bool] = True
    summary_in_words: ClassVar[str] = (
        "for each variant, one noised allele count per site; one noised number of people per site"
    )

    panel: str = field(metadata=NAMES_PANEL)

    FRACTION_BITS: ClassVar[int] = 10

    def needs(self) -> Needs:
        return Needs(panel=self.panel)

    def rounds(self) -> int:
        return 1

    def fraction(self) -> float:
        return 1.0

    def slices(self, frame: Frame) -> tuple[slice, ...]:
        return WHOLE

    def _steps(self, frame: Frame) -> NDArray[np.int64]:
        """(M, 4) what a person with 0, 1, 2 or no observed alternate alleles adds, on the grid."""
        assert frame.panel is not None
        twice = 2 * frame.panel.frequencies
        steps = np.rint((np.arange(3)[None, :] - twice[:, None]) * 2.0**self.FRACTION_BITS).astype(np.int64)
        return np.concatenate([steps, np.zeros((len(twice), 1), dtype=np.int64)], axis=1)

    def leaves(self, frame: Frame) -> dict[str, Field]:
        assert frame.panel is not None
        most = np.abs(self._steps(frame)).max(axis=1) * 2.0**-self.FRACTION_BITS
        return {
            "alternate": Field(
                (len(most),),
                "alternate alleles above twice the published frequency",
                float(most.sum()),
                float(np.sqrt((most**2).sum())),
                self.FRACTION_BITS,
                per_variant=True,
                share=0.8,
            ),
            "people": Field((), "people", 1.0, 1.0, share=0.2),
        }

    def summarise(self, cohort: Cohort, frame: Frame) -> Summary:
        assert cohort.genotypes is not None
        return {
            "alternate": (cohort.genotypes.counts() * self._steps(frame)).sum(axis=1),
            "people": np.array(len(cohort), dtype=np.int64),
        }

    def conclude(self, total: Total, frame: Frame) -> Answer:
        assert frame.panel is not None
        fields = self.leaves(frame)
        above = fields["alternate"].values(total.sums["alternate"])
        noised_people = float(total.sums["people"])
        p, noise, people_noise = (
            frame.panel.frequencies,
            total.noise.get("alternate", 0.0),
            total.noise.get("people", 0.0),
        )
        people = max(noised_people, 1.0)  # post-processing: a noised number of people may fall below one
        estimate = p + above / (2 * people)
        low, high = interval(estimate, p, people, noise, people_noise)
        published = [v.frequency for v in frame.panel.variants]
        table: dict[str, Column] = {
            **variant_columns(frame.panel),
            "published_frequency": np.array([np.nan if f is None else f for f in published]),
            "ac": above + 2 * p * noised_people,
            "ac_noise_sd": np.sqrt(noise**2 + (2 * p * people_noise) ** 2),
            "frequency": np.clip(estimate, 0.0, 1.0),
            "low_95": low,
            "high_95": high,
        }
        facts = {"people": noised_people, "people_noise_sd": people_noise, "variants": len(p)}
        return Answer({"frequencies": table}, facts)


def interval(
    estimate: NDArray[np.float64], published: NDArray[np.float64], people: float, noise: float, people_noise: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """95 % score interval of a population frequency under sampling of people and added noise.

    With n people the estimate's variance at frequency f is f (1 - f) / 2n + v, where v is the noise's share; solving
    (estimate - f)^2 = z^2 (f (1 - f) / 2n + v) for f gives the ends, as Wilson's interval does for v = 0.

    Args:
        estimate, published: (M,) noised and published frequencies.
        people: noised number of people, at least 1.
        noise, people_noise: standard deviations of the noise in an allele count and in the number of people.

    Returns:
        low, high: (M,) within [0, 1].
    """
    v = (noise / (2 * people)) ** 2 + ((estimate - published) * people_noise / people) ** 2
    w = NORMAL_95**2 / (2 * people)
    centre = (estimate + w / 2) / (1 + w)
    inside = (estimate + w / 2) ** 2 - (1 + w) * (estimate**2 - NORMAL_95**2 * v)
    half = np.sqrt(np.maximum(inside, 0)) / (1 + w)
    return np.clip(centre - half, 0, 1), np.clip(centre + half, 0, 1)


def expected_width(frequency: float, people: int, noise: float, people_noise: float) -> float:
    """The width that `interval` is expected to have, from public numbers alone: for planning before it is paid."""
    low, high = interval(np.array([frequency]), np.array([frequency]), float(people), noise, people_noise)
    return float(high[0] - low[0])


def draw_spectrum(answer: Answer, axes: Any) -> str:
    """Draw how many variants have which minor allele frequency; returns the figure in words."""
    frequency = np.asarray(answer.tables["frequencies"]["frequency"], dtype=np.float64)
    minor = np.minimum(frequency, 1 - frequency)[np.isfinite(frequency)]
    counts, edges = np.histogram(minor, bins=50, range=(0.0, 0.5))
    axes.bar(edges[:-1], counts, width=np.diff(edges) * 0.86, align="edge", color="C0")
    axes.set_xlim(0, 0.5)
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


def draw_intervals(answer: Answer, by_site: Mapping[str, Answer], axes: Any) -> str:
    """Draw each variant's frequency with its interval, together and at each site; returns the figure in words."""
    markers = ("o", "s", "^", "v", "D", "P", "X")
    table = answer.tables["frequencies"]
    rows = np.arange(len(table["id"]))
    lines = [("together", answer), *by_site.items()]
    for number, (name, one) in enumerate(lines):
        own = one.tables["frequencies"]
        estimate, low, high = (np.asarray(own[c], dtype=np.float64) for c in ("frequency", "low_95", "high_95"))
        at = rows + 0.72 * ((number + 0.5) / len(lines) - 0.5)
        colour, width, size = ("C1", 2.2, 5.5) if number == 0 else ("C0", 1.2, 4.2)
        axes.hlines(at, low, high, color=colour, linewidth=width)
        axes.plot(estimate, at, markers[number % len(markers)], color=colour, markersize=size, label=name)
    published = np.asarray(table["published_frequency"], dtype=np.float64)
    axes.vlines(published, rows - 0.42, rows + 0.42, color="C2", linewidth=1, linestyle=(0, (3, 2)), label="published")
    axes.set_yticks(rows, [f"{c}:{p}" for c, p in zip(table["chromosome"], table["position"], strict=True)])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(0, 1)
    axes.set_xlabel("alternate allele frequency, 95 % interval")
    axes.tick_params(axis="y", length=0)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    names = ", ".join(by_site)
    return f"Frequencies of {len(rows)} variants with 95 % intervals, together and at {names}, and the published ones."

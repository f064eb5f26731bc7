"""Allele frequency for publication: how often each variant's alternate allele occurs, with noise.

For a small public panel of places where everybody has two copies, each site releases noised sums of allele counts,
centred at the published frequency, noised numbers of missing genotypes, and a noised number of people; the frequency's
interval covers noise, sampling, and genotypes that are missing at random. For many rare variants each person's
contribution may be clipped, which makes the noise smaller by far; the interval then also covers what clipping cut away,
at the cost of width, so choose a clip that hardly anybody reaches. The exact form is `genotype_counts`.

[1] Fieller: Some problems in interval estimation, JRSS B 16 (1954).
[2] Zou, Donner: Construction of confidence limits about effect measures, Statistics in Medicine 27 (2008), equation 3.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy import special

from strategies.analysis import NAMES_PANEL, WHOLE, Answer, Column, Frame, Needs, Total
from strategies.cohort import MISSING, Cohort, Genotypes, Stored, blocks
from strategies.errors import UsageError
from strategies.ploidy import copies
from strategies.privacy import Regime
from strategies.protections.clipping import KEPT_BITS, kept
from strategies.summary import COUNT_BITS, Field, Summary
from strategies.variants import Panel

NORMAL_95 = 1.959963984540054
"""Two-sided 95 % point of the normal distribution."""

LEAST_WEIGHT = 2.0**-5
"""Of a missing genotype in a clipped row, where the published frequency is about 0 or 1."""

VARIANT_BLOCK = 1024
"""Variants whose genotypes are unpacked at a time: a constant in code."""


def variant_columns(panel: Panel) -> dict[str, Column]:
    """The columns that name a panel's variants in every table."""
    return {
        "chromosome": panel.chromosomes,
        "position": panel.positions(panel.assembly),
        "id": tuple(v.identifier for v in panel.variants),
        "ref": tuple(v.reference for v in panel.variants),
        "alt": tuple(v.alternate for v in panel.variants),
    }


@dataclass(frozen=True)
class NoisedFrequency:
    """Noised allele counts of a public panel and a noised number of people.

    Attributes:
        panel: name of the study's panel.
        clip: longest row of numbers that a person may contribute; None for any. For M rare variants with an expected
            number C of carried alleles a person, a little above sqrt(C) is right, instead of about 2 sqrt(M).

    A person's row has two numbers for each variant: her distance x - c from c, twice the published frequency, if she
    is genotyped, and a weight w if she is not. One of the two is zero and neither exceeds max(c, 2 - c), so the row is
    as long at most as it would be without the second: the numbers of missing genotypes cost nothing. w is that largest
    distance or, with a clip, a genotype's expected deviation, so that a row with missing genotypes is not the longer.
    With a clip her row is scaled by s = min(1, clip / length), and she counts as s and 1 - s instead of as 1.
    """

    analysis: ClassVar[str] = "allele_frequency"
    regime: ClassVar[Regime] = Regime.PRIVATE
    by_site: ClassVar[bool] = True
    summary_in_words: ClassVar[str] = (
        "for each variant, one noised allele count and one noised number of missing genotypes per site; one noised "
        "number of people per site"
    )

    panel: str = field(metadata=NAMES_PANEL)
    clip: float | None = None

    FRACTION_BITS: ClassVar[int] = 10

    def __post_init__(self) -> None:
        if self.clip is not None and not 0.1 <= self.clip <= 1e4:
            raise ValueError("clip must be from 0.1 to 10000.")

    def needs(self) -> Needs:
        return Needs(panel=self.panel, walked=True)

    def rounds(self) -> int:
        return 1

    def fraction(self) -> float:
        return 1.0

    def slices(self, frame: Frame) -> tuple[slice, ...]:
        return WHOLE

    @property
    def _bits(self) -> int:
        return self.FRACTION_BITS if self.clip is None else self.FRACTION_BITS + KEPT_BITS

    def _steps(self, frame: Frame) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """On the grid: (M, 3) x - c of a person with x = 0, 1, 2 alternate alleles, and (M,) w.

        c itself is rounded to the grid, and the answer is centred at the rounded one: no rounding is left in a sum.
        """
        assert frame.panel is not None
        p, unit = frame.panel.frequencies, 2.0**self.FRACTION_BITS
        steps = (np.arange(3) << self.FRACTION_BITS) - np.rint(2 * p * unit).astype(np.int64)[:, None]
        if self.clip is None:
            return steps, np.abs(steps).max(axis=1)
        return steps, np.rint(deviation(p) * unit).astype(np.int64)

    def leaves(self, frame: Frame) -> dict[str, Field]:
        assert frame.panel is not None
        if (odd := copies(frame.panel)).any():
            raise UsageError(
                "Noised frequencies are of variants of which everybody carries two copies.",
                f"{np.count_nonzero(odd)} of panel {self.panel!r} on X outside its pseudo-autosomal regions, Y or MT",
                "leave them out of the panel, or ask for exact counts.",
            )
        most = np.abs(self._steps(frame)[0]).max(axis=1) * 2.0**-self.FRACTION_BITS
        l1, l2 = float(most.sum()), float(np.sqrt((most**2).sum()))
        people = Field((), "people", 1.0, 1.0, COUNT_BITS, share=0.2)
        if self.clip is not None:
            l2 = min(l2, self.clip)
            l1 = min(l1, math.sqrt(len(most)) * l2)  # M of the row's 2 M numbers are zero
            words = "people as far as they count, and as far as they were cut away"
            people = Field((2,), words, 1.0, 1.0, KEPT_BITS, share=0.2)  # s and 1 - s: at most 1 in L2, too
        words = "alternate alleles above twice the published frequency, and missing genotypes by their weight"
        return {
            "alternate": Field((len(most), 2), words, l1, l2, self._bits, per_variant=True, share=0.8),
            "people": people,
        }

    def summarise(self, cohort: Cohort, frame: Frame) -> Summary:
        steps, weight = self._steps(frame)
        if self.clip is None:
            counts = np.concatenate([some.counts() for _, some in blocks(cohort.walked)])
            people = np.array(len(cohort) << COUNT_BITS, dtype=np.int64)
        else:
            whole = _kept(cohort.walked, steps, weight, self.clip * 2.0**self.FRACTION_BITS)
            counts = _kept_counts(cohort.walked, whole)
            people = np.array([whole.sum(), (2**KEPT_BITS - whole).sum()], dtype=np.int64)
        alternate = np.stack([(counts[:, :3] * steps).sum(axis=1), counts[:, 3] * weight], axis=1)
        return {"alternate": alternate, "people": people}

    def withhold(self, sums: Summary, minimum_cell: int) -> Summary:
        return sums

    def conclude(self, total: Total, frame: Frame) -> Answer:
        assert frame.panel is not None
        fields = self.leaves(frame)
        above, weighted = fields["alternate"].values(total.sums["alternate"]).T
        counted, *cut = fields["people"].values(total.sums["people"]).ravel().tolist()
        steps, weight = (a * 2.0**-self.FRACTION_BITS for a in self._steps(frame))
        centre = -steps[:, 0] / 2
        noise, people_noise = total.noise.get("alternate", 0.0), total.noise.get("people", 0.0)
        called, called_noise = counted - weighted / weight, np.hypot(people_noise, noise / weight)
        estimate = centre + above / (2 * np.maximum(called, 1.0))  # post-processing: noise may leave fewer than one
        low, high = interval(above, called, centre, noise, called_noise)
        facts: dict[str, float | int | str] = {
            "people": counted + sum(cut),
            "people_noise_sd": people_noise * math.sqrt(1 + len(cut)),
            "variants": len(centre),
        }
        if self.clip is not None:
            low, high = widened(low, high, estimate, called, cut[0], people_noise)
            facts |= {
                "clip": self.clip,
                "clipped_expected": expected_clipped(frame.panel.frequencies, self.clip),
                "people_cut_away": cut[0],
                "people_cut_away_noise_sd": people_noise,
            }
        published = [v.frequency for v in frame.panel.variants]
        table: dict[str, Column] = {
            **variant_columns(frame.panel),
            "published_frequency": np.array([np.nan if f is None else f for f in published]),
            "ac": above + 2 * centre * called,
            "ac_noise_sd": np.hypot(noise, 2 * centre * called_noise),
            "an": 2 * called,
            "an_noise_sd": 2 * called_noise,
            "frequency": np.clip(estimate, 0.0, 1.0),
            "low_95": low,
            "high_95": high,
        }
        return Answer({"frequencies": table}, facts)


def deviation(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """(M,) standard deviation of a genotype under Hardy-Weinberg, and a little where there is next to none."""
    return np.maximum(np.sqrt(2 * p * (1 - p)), LEAST_WEIGHT)


def _kept(
    genotypes: Genotypes | Stored, steps: NDArray[np.int64], weight: NDArray[np.int64], norm: float
) -> NDArray[np.int64]:
    """(N,) the part of each person's row that is kept. The same work whoever the people are."""
    squares = np.concatenate([steps, weight[:, None]], axis=1).astype(np.float64) ** 2
    lengths = np.full(genotypes.people, int(squares[:, 0].sum()), dtype=np.int64)
    for span, codes in _codes(genotypes):
        here = squares[span]
        for code in (1, 2, MISSING):  # sums of integers below 2^53: exact in whatever order the library adds
            lengths += ((here[:, code] - here[:, 0]) @ (codes == code).astype(np.float64)).astype(np.int64)
    return kept(lengths, norm)


def _kept_counts(genotypes: Genotypes | Stored, whole: NDArray[np.int64]) -> NDArray[np.int64]:
    """(M, 4) genotype counts in which each person counts as the part that is kept of her."""
    counts = np.zeros((len(genotypes), 4), dtype=np.int64)
    parts = whole.astype(np.float64)
    for span, codes in _codes(genotypes):
        for code in (1, 2, MISSING):
            counts[span, code] = ((codes == code).astype(np.float64) @ parts).astype(np.int64)
    counts[:, 0] = whole.sum() - counts.sum(axis=1)
    return counts


def _codes(genotypes: Genotypes | Stored) -> Iterator[tuple[slice, NDArray[np.uint8]]]:
    """(m, N) codes of some variants at a time."""
    for outer, some in blocks(genotypes):
        for start in range(0, len(some), VARIANT_BLOCK):
            span = slice(start, min(start + VARIANT_BLOCK, len(some)))
            yield slice(outer.start + span.start, outer.start + span.stop), some[span].codes()


def interval(
    above: NDArray[np.float64],
    called: NDArray[np.float64],
    centre: NDArray[np.float64],
    noise: float,
    called_noise: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """95 % interval of a population frequency under sampling of people and added noise: a score interval of a ratio.

    At frequency f = centre + d, above - 2 d called has mean 0 and variance noise^2 + (2 d called_noise)^2 +
    2 called f (1 - f). The interval holds the d at which its square is below z^2 times that: Fieller's [1] with a
    Wilson term for sampling. Where the number of called genotypes is itself lost in noise, it is all of [0, 1].

    Args:
        above: (M,) noised alternate alleles above 2 centre among the called.
        called: (M,) noised number of called genotypes.
        centre: (M,) what was subtracted from each.
        noise, called_noise: standard deviations of the noise in the two.

    Returns:
        low, high: (M,) within [0, 1].
    """
    z = NORMAL_95**2
    people = np.maximum(called, 1.0)
    a = 4 * called**2 + z * (2 * people - 4 * called_noise**2)
    b = -4 * above * called - 2 * z * people * (1 - 2 * centre)
    c = above**2 - z * (noise**2 + 2 * people * centre * (1 - centre))
    able = (a > 0) & (called > 0)
    a = np.where(able, a, 1.0)
    half = np.sqrt(np.maximum(b**2 - 4 * a * c, 0)) / (2 * a)
    middle = centre - b / (2 * a)
    low, high = np.clip(middle - half, 0, 1), np.clip(middle + half, 0, 1)
    return np.where(able, low, 0.0), np.where(able, high, 1.0)


def widened(
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    estimate: NDArray[np.float64],
    called: NDArray[np.float64],
    cut: float,
    cut_noise: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """An interval that also covers what clipping cut away, whoever it was cut away from.

    Clipped people count as s of a person; the other 1 - s of them, at most r = cut / (called + cut) of all, may have
    any frequency from 0 to 1. The frequency of all lies from (1 - r) f to (1 - r) f + r, for the frequency f of what
    was kept. The noise in r is joined with the interval of f as in [2].

    Args:
        low, high, estimate: (M,) interval and estimate of the frequency of what was kept.
        called: (M,) noised number of called genotypes, as far as they count.
        cut, cut_noise: noised number of people cut away, and the noise's standard deviation.
    """
    f = np.clip(estimate, low, high)
    people = np.maximum(called, 1.0) + max(cut, 0.0)
    r, spread = max(cut, 0.0) / people, NORMAL_95 * cut_noise / people
    down = np.hypot((1 - r) * (f - low), f * spread)
    up = np.hypot((1 - r) * (high - f), (1 - f) * spread)
    return np.clip((1 - r) * f - down, 0, 1), np.clip((1 - r) * f + r + up, 0, 1)


def expected_clipped(frequencies: NDArray[np.float64], clip: float) -> float:
    """About the fraction of people whose row is longer than the clip, from public frequencies alone.

    Under Hardy-Weinberg and independence, nothing missing: a shifted gamma distribution with the first three moments of
    the squared length.

    >>> round(expected_clipped(np.full(10_000, 0.001), 5.5), 3)
    0.015
    """
    p = frequencies[:, None]
    chance = np.concatenate([(1 - p) ** 2, 2 * p * (1 - p), p**2], axis=1)
    squares = (np.arange(3) - 2 * p) ** 2
    mean = (chance * squares).sum(axis=1, keepdims=True)
    variance = float((chance * (squares - mean) ** 2).sum())
    if variance == 0:
        return float(mean.sum() > clip**2)
    z = (clip**2 - float(mean.sum())) / math.sqrt(variance)
    skew = float((chance * (squares - mean) ** 3).sum()) / variance**1.5
    if abs(skew) < 1e-3:
        return float(special.ndtr(-z))
    shape = 4 / skew**2
    at = max(0.0, shape + math.copysign(1.0, skew) * z * math.sqrt(shape))
    return float(special.gammaincc(shape, at) if skew > 0 else special.gammainc(shape, at))


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
    where = f"together and at {', '.join(by_site)}" if by_site else "over all sites together"
    return f"Frequencies of {len(rows)} variants with 95 % intervals, {where}, and the published ones."

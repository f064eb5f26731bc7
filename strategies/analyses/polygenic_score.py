"""A polygenic score over sites: which variants carry it, and its pooled mean and deviation. Nobody's score leaves.

    score[i] = sum_j w[j] g[i, j],   a missing genotype, or a variant that the site does not hold, counting as 2 p[j],

with w the panel's published weights and p the pooled frequency: what plink2's `--score` computes by default, summed.

Round 1 sums each variant's allele counts. Round 2 carries 2 p to the nodes; each computes its own people's scores in
integers, and the sums of the scores and of their squares leave. Each node can then compute the standardised score of
its own people from the answer: later questions name it `question.score`.

A score is linear in genotypes, so a variant whose counts may not be shown stays out of it, and the table says so; so
does one that fewer than three sites hold. A score of very few variants is as good as their genotypes: its deviation
tells their counts. Weights are public but chosen by whoever asks: made for one known genome, they single out its owner.

[1] Chang et al.: Second-generation PLINK, GigaScience 4 (2015); www.cog-genomics.org/plink/2.0/score.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from strategies.analyses.allele_frequency import variant_columns
from strategies.analysis import (
    CARRIED,
    DERIVED,
    KEPT,
    NAMES_PANEL,
    PROJECTED,
    WHOLE,
    Answer,
    Column,
    Frame,
    Needs,
    Range,
    Total,
    by_variants,
    stating,
)
from strategies.cohort import Cohort, blocks
from strategies.errors import GenosumError
from strategies.evidence import draw_along, name_highest
from strategies.privacy import Regime
from strategies.products import FEW, SMALL
from strategies.projection import MOST_WEIGHT, Projection
from strategies.protections.suppression import WITHHELD, held_by_few, replaced, small
from strategies.summary import MOST_CONTRIBUTION, MOST_INTEGER, Field, Summary
from strategies.variants import WEIGHT

GRID_BITS = 40
"""Fraction bits of the moments with one person. With n people they are fewer by those of n: a sum of squares then stays
below 2^57 unless linkage makes the variance 2^17 times what independent variants have."""


@dataclass(frozen=True)
class PolygenicScore:
    """The pooled frequencies, mean and standard deviation that make a weighted sum of alleles a score.

    Attributes:
        panel: name of the study's panel, which states weights.
        taken: rounds taken so far.
        people: pooled number of people.
        centre: (M,) pooled mean number of alternate alleles; SMALL or FEW where left out.
        untold: (M,) whether the number of people without a genotype is withheld.
    """

    analysis: ClassVar[str] = "polygenic_score"
    regime: ClassVar[Regime] = Regime.EXACT
    by_site: ClassVar[bool] = False
    summary_in_words: ClassVar[str] = (
        "allele counts of each variant; then the sum of the people's scores and that of their squares"
    )

    panel: str = field(metadata=stating(NAMES_PANEL, WEIGHT))
    taken: int = field(default=0, metadata=DERIVED)
    people: int = field(default=0, metadata=DERIVED)
    centre: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0), compare=False, metadata=CARRIED)
    untold: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, dtype=bool), compare=False, metadata=KEPT)

    def __post_init__(self) -> None:
        if not (0 <= self.taken <= 1 and 0 <= self.people < 2**31):
            raise ValueError("taken is 0 or 1, people a number below 2^31.")
        c = self.centre
        if not (((c >= 0) & (c <= 2)) | (c == SMALL) | (c == FEW)).all():
            raise ValueError("A centre lies from 0 to 2.")

    @property
    def offers(self) -> Mapping[str, Range]:
        return {"score": PROJECTED}

    def needs(self) -> Needs:
        return Needs(panel=self.panel, walked=self.taken > 0)

    def rounds(self) -> int:
        return 2

    def fraction(self) -> float:
        return 0.0

    def slices(self, frame: Frame) -> tuple[slice, ...]:
        return WHOLE if self.taken else by_variants(frame)

    def leaves(self, frame: Frame) -> dict[str, Field]:
        assert frame.panel is not None
        m = len(frame.panel)
        if not self.taken:
            return {
                "alleles": Field((m,), "alternate alleles", 2 * m, 2 * m**0.5, per_variant=True),
                "people_with": Field(
                    (m, 3),
                    "people with an alternate allele, with a reference allele, without a genotype",
                    2 * m,
                    (2 * m) ** 0.5,
                    per_variant=True,
                ),
                "holders": Field((m,), "sites that hold the variant", m, m**0.5, per_variant=True, over="sites"),
                "people": Field((), "people", 1, 1),
            }
        if len(self.centre) != m:
            raise ValueError("A centre is given for each variant.")
        grid = 2.0**-self._bits
        most = min(self._longest(self._scores(frame)) + grid, MOST_CONTRIBUTION * grid)
        square = min(most**2 + grid, MOST_CONTRIBUTION * grid)
        return {
            "moments": Field(
                (2,),
                "sums of the score and of its square, about its expected mean in expected deviations",
                most + square,
                math.hypot(most, square),
                self._bits,
            ),
            "people": Field((), "people", 1, 1),
        }

    @property
    def _bits(self) -> int:
        return GRID_BITS - self.people.bit_length()

    @property
    def _inside(self) -> NDArray[np.bool_]:
        return self.centre >= 0

    def _expected(self, frame: Frame) -> tuple[float, float]:
        """Mean and standard deviation of the score if its variants were independent and in Hardy-Weinberg."""
        assert frame.panel is not None
        c = np.where(self._inside, self.centre, 0.0)
        weights = np.where(self._inside, frame.panel.weights, 0.0)
        return float(weights @ c), float(np.sqrt(weights**2 @ (c * (1 - c / 2))))

    def _scores(self, frame: Frame) -> Projection:
        """The score about its expected mean, in expected deviations.

        Raises:
            ValueError: if it has none, or weights are beyond their bound in its units.
        """
        deviation = self._expected(frame)[1]
        if not deviation > 0:
            raise ValueError("A score varies.")
        assert frame.panel is not None
        return _weighted(self.centre, frame.panel.weights / deviation, 0.0)

    @staticmethod
    def _longest(scores: Projection) -> float:
        """The farthest that anybody's score can lie from its centre."""
        steps = scores.steps(slice(None))[:, :, 0]
        return max(float(steps.max(axis=1).sum()), -float(steps.min(axis=1).sum())) * 2.0**-scores.bits

    def summarise(self, cohort: Cohort, frame: Frame) -> Summary:
        people = np.array(len(cohort), dtype=np.int64)
        if not self.taken:
            assert cohort.genotypes is not None
            hom, het, alt, missing = cohort.genotypes.counts().T
            return {
                "alleles": het + 2 * alt,
                "people_with": np.stack([het + alt, hom + het, missing], axis=1),
                "holders": (hom + het + alt > 0).astype(np.int64),
                "people": people,
            }
        scores, moments = self._scores(frame), self.leaves(frame)["moments"]
        sums = np.zeros((len(cohort), 1), dtype=np.int64)
        for span, genotypes in blocks(cohort.walked):
            scores.add(sums, genotypes, span)
        values = scores.columns(sums)["score"]
        return {"moments": moments.integers(np.stack([values, values**2])).sum(axis=1), "people": people}

    def withhold(self, sums: Summary, minimum_cell: int) -> Summary:
        if small(sums["people"], minimum_cell):
            return {name: np.full_like(array, WITHHELD) for name, array in sums.items()}
        if self.taken:
            return sums
        alternate, reference, missing = sums["people_with"].T
        observed = sums["people"] - np.where(missing == WITHHELD, 0, missing)
        rare = small(alternate, minimum_cell) | small(reference, minimum_cell) | (observed < max(1, minimum_cell))
        out = replaced(sums, ("alleles", "people_with"), rare, WITHHELD)
        return replaced(out, ("people_with",), small(missing, minimum_cell), WITHHELD)

    def conclude(self, total: Total, frame: Frame) -> Answer | PolygenicScore:
        assert frame.panel is not None
        sums = self.withhold(total.sums, total.minimum_cell)
        if not self.taken:
            if sums["people"] == WITHHELD:
                nothing = np.ones(len(frame.panel), dtype=bool)
                return replace(self, centre=np.full(len(nothing), SMALL), untold=nothing)._answer(frame, math.nan)
            return self._started(frame, sums, len(total.sites))
        if sums["people"] == WITHHELD or sums["people"] < 1:
            return self._answer(frame, math.nan)
        if int(sums["moments"][1]) >= MOST_INTEGER // len(total.sites) - 1:
            raise GenosumError(
                "A score's variance is within 2^17 times that of independent variants.",
                "more than can be summed",
                "thin the panel: its weights lie on a few blocks of linked variants.",
            )
        first, second = self.leaves(frame)["moments"].values(sums["moments"]) / int(sums["people"])
        return self._answer(frame, int(sums["people"]), float(first), max(float(second - first**2), 0.0))

    def _started(self, frame: Frame, sums: Summary, sites: int) -> Answer | PolygenicScore:
        people, few = int(sums["people"]), held_by_few(sums["holders"], sites)
        hidden, missing = sums["alleles"] == WITHHELD, sums["people_with"][:, 2]
        # Where the people without a genotype are too few to be told, they are taken to be none.
        observed = people - np.where(missing == WITHHELD, 0, missing)
        mean = np.clip(np.where(hidden, 0, sums["alleles"]) / np.maximum(observed, 1), 0.0, 2.0)
        centre = np.where(few, FEW, np.where(hidden, SMALL, mean))
        following = replace(self, taken=1, people=people, centre=centre, untold=missing == WITHHELD)
        try:
            following.leaves(frame)
        except ValueError:  # nothing that varies is left
            return following._answer(frame, people)
        return following

    def _answer(self, frame: Frame, people: float, mean: float = math.nan, variance: float = math.nan) -> Answer:
        """From the moments in expected deviations; NaN where there is no score, or it is withheld."""
        assert frame.panel is not None
        inside, (about, unit) = self._inside, self._expected(frame)
        withheld = ~inside | self.untold
        table: dict[str, Column] = {
            **variant_columns(frame.panel),
            "weight": frame.panel.weights,
            "frequency": np.where(inside, self.centre / 2, np.nan),
            "in_score": inside,
            "withheld": withheld,
            "held_by_few": self.centre == FEW,
        }
        facts: dict[str, float | int | str] = {
            "people": people,
            "variants": len(inside),
            "variants_in_score": int(inside.sum()),
            "mean": about + mean * unit,
            "standard_deviation": math.sqrt(variance) * unit,
        }
        if frame.panel.set_aside:
            facts["lines_set_aside"] = ", ".join(f"{n} {reason}" for reason, n in frame.panel.set_aside.items())
        return Answer({"variants": table}, facts, int(withheld.sum()))

    def projection(self, answer: Answer, frame: Frame) -> Projection:
        """The score with a pooled mean of 0 and a standard deviation of 1; 0 for everybody where there is none."""
        assert frame.panel is not None
        frequency = np.asarray(answer.tables["variants"]["frequency"], dtype=np.float64)
        centre = np.where(np.isfinite(frequency), 2 * frequency, SMALL)
        mean, deviation = float(answer.facts["mean"]), float(answer.facts["standard_deviation"])
        weights = frame.panel.weights / deviation if deviation > 0 else np.full(len(centre), np.nan)
        if not (np.abs(weights) <= MOST_WEIGHT).all():
            return _weighted(centre, np.zeros(len(centre)), 0.0)
        about = float(np.where(centre >= 0, centre, 0.0) @ weights)
        return _weighted(centre, weights, about - mean / deviation)


def _weighted(centre: NDArray[np.float64], weights: NDArray[np.float64], shift: float) -> Projection:
    """Weights of the variants that are not left out."""
    inside = centre >= 0
    return Projection(
        ("score",), np.where(inside, weights, 0.0)[:, None], np.where(inside, centre, 0.0), np.array([shift])
    )


def expected_parts(answer: Answer) -> NDArray[np.float64]:
    """(M,) part of the score's variance that each variant would have if all were independent and in Hardy-Weinberg
    proportions; NaN where a variant is not in the score."""
    table = answer.tables["variants"]
    weight, frequency = (np.asarray(table[name], dtype=np.float64) for name in ("weight", "frequency"))
    spread = weight**2 * 2 * frequency * (1 - frequency)
    return np.asarray(spread / max(float(np.nansum(spread)), 1e-300))


def draw_contributions(answer: Answer, axes: Any) -> str:
    """Draw the expected part of each variant along the genome; returns the figure in words."""
    table, part = answer.tables["variants"], 100 * expected_parts(answer)
    place = draw_along(table, part, axes)
    axes.set_ylim(0, None)
    axes.set_ylabel("% of the variance")
    name = name_highest(table, part, place, axes)
    if not name:
        return "Contributions of variants to the score: there are none."
    return (
        f"Parts of {int(np.isfinite(part).sum()):,} variants in the score's variance along the genome: the largest, "
        f"{name}, has {np.nanmax(part):.1f} %."
    )

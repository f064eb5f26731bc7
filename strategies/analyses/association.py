"""Association of quantitative traits with each variant: linear regression, as of the people pooled.

    y = a + g b + X c + e,   one regression per variant and trait, over the people who have all traits and covariates

Round 1 sums the columns and their squares, so that all sites standardise with the same pooled mean and deviation, and
counts genotypes. By the counts each variant takes one of these forms, and its letter goes with round 2:

    few      fewer than three sites hold it: nothing is asked
    rare     the pooled minor allele count lies below `minimum_minor_alleles`: nothing is asked
    whole    nobody's genotype is missing
    less     some are: the products of the people without a genotype are summed as well, and subtracting them from the
             whole cohort's gives the normal equations of the people with one exactly [1]
    imputed  some are, and too few for that, or the study asks for it: whoever has no genotype is given the pooled mean
             by the site itself, so that no sum over those few people leaves it

Round 2 sums for each variant g'X, g'y and genotype counts, and for `less` those products. With `site_effects` each site
has an intercept of its own: g, X and y are centred at the site over the people who count for the variant [2], and what
leaves is no site's mean nor an indicator of a site, but products of deviations. One that only one site adds to, and all
of them if no other site holds the variant, would be that site's; secure summing and the minimum of sites hide them.

With `dosages`, g lies between 0 and 2: the expected number of alternate alleles where files have imputed genotypes, the
genotype where they have that alone. Numbers of people go by the genotype that is nearest.

With `offset`, the trait less the prediction of all other chromosomes takes the trait's place [3, step 2], one for each
chromosome of the panel, so that related people may stay in. The prediction was fitted to the very people whom it is
subtracted for: it takes part of a variant's own effect too, and leaves residuals that are short. So beta is divided by
the `shrinkage` and t multiplied by the root of the `calibration` which the earlier answer states for the trait [4]: t
squared is then on average what a mixed model's is. Without effects anywhere else both are near 1.

A variant whose pooled number of observed genotypes, of missing ones (`less`), or of people with the minor allele lies
below the minimum cell is withheld. Where few people have traits and covariates, their number and the whole answer are
withheld before round 2.

NaN, and no estimate: a variant that the covariates explain, covariates that explain one another among the people with a
genotype, fewer people than parameters. Without an offset not for related people, nor for strong population structure
beyond the covariates.

[1] Seber, Lee: Linear Regression Analysis, 2nd edition (2003), section 3.2: partitioned normal equations.
[2] Lovell: Seasonal adjustment of economic time series, JASA 58 (1963): the theorem of Frisch and Waugh.
[3] Mbatchou et al.: Computationally efficient whole-genome regression, Nature Genetics 53 (2021).
[4] Svishcheva et al.: Rapid variance components-based method, Nature Genetics 44 (2012), equations 5 to 7.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import special

from strategies import kernels
from strategies.alleles import DOSAGE_BITS, SMALLER, Alleles
from strategies.analyses.allele_frequency import variant_columns
from strategies.analysis import (
    DERIVED,
    KEPT,
    NAMES_COLUMN,
    NAMES_OFFERING,
    NAMES_PANEL,
    Answer,
    Column,
    Frame,
    Needs,
    Total,
    by_variants,
)
from strategies.cohort import Cohort
from strategies.design import Design, Standardise, check_varying, norms
from strategies.errors import UsageError
from strategies.offsets import Offset
from strategies.ploidy import check_sex, read_by_sex
from strategies.privacy import Regime
from strategies.protections.suppression import LEAST_HOLDERS, WITHHELD, replaced, small
from strategies.summary import Field, Summary
from strategies.tested import Form, Tested, numbers

MOST_TRAITS = 100

Floats = NDArray[np.float64]

BY_VARIANT = ("genotypes", "alleles", "scores", "squares")
"""The sums of round 2 that have a row for each variant that goes on."""

ESTIMATES = ("beta", "standard_error", "t", "p_value", "effect_allele_frequency", "n")
"""What the answer says about a variant."""


class Missing(StrEnum):
    """What becomes of people without a genotype: they are left out of the variant's regression, or given its mean."""

    COMPLETE_CASE = "complete_case"
    MEAN_IMPUTED = "mean_imputed"


@dataclass(frozen=True)
class LinearAssociation:
    """Beta, standard error, t and p of each trait for every variant of a panel.

    Attributes:
        panel: name of the study's panel.
        traits: names of the quantitative columns; a person counts who has all of them and all covariates.
        covariates: names of further columns; an intercept is always there.
        missing: what becomes of people without a genotype.
        standardise: whose mean and deviation traits and covariates are measured in. A column that is constant at a site
            is 0 there if it is the site's.
        site_effects: whether each site has an intercept of its own; it costs one degree of freedom for each site with
            people in the regression but the first.
        minimum_minor_alleles: a variant goes on with at least so many copies of the rarer allele among those people.
        minimum_missing: fewer people without a genotype than this are given its mean, whatever `missing` says.
        dosages: whether expected numbers of alternate alleles are read; at a site whose files have none, genotypes are.
        offset: name of an earlier whole-genome regression of these traits and covariates, whose prediction without a
            variant's chromosome is subtracted from each trait.
        sex: name of the column of sexes, which variants on X outside its pseudo-autosomal regions and on MT need. One
            copy counts as two, and a heterozygous genotype of it as missing, as in PLINK 2. Not with dosages.
        people: the pooled number of people with traits and covariates; 0 in round 1, derived from its totals.
        centre, scale: pooled mean and deviation of (covariates, traits) after mapping each range to [-1, 1]; likewise.
        forms: each variant's form, a digit; likewise.
        imputed: the mean number of alternate alleles at each variant whose form is `imputed`, as base64 of their
            float64, which is a hundred times faster read than as many numbers; likewise.
        left_out: the C chromosomes of the panel, without each of which an offset predicts; likewise.
        adjustments: (2, P) shrinkage and calibration, which stay at the coordinator.
    """

    analysis: ClassVar[str] = "association"
    regime: ClassVar[Regime] = Regime.EXACT
    by_site: ClassVar[bool] = False
    summary_in_words: ClassVar[str] = "for each variant, the sums that a linear regression needs, over the sites"

    panel: str = field(metadata=NAMES_PANEL)
    traits: tuple[str, ...] = field(metadata=NAMES_COLUMN)
    covariates: tuple[str, ...] = field(default=(), metadata=NAMES_COLUMN)
    missing: Missing = Missing.COMPLETE_CASE
    standardise: Standardise = Standardise.POOLED
    site_effects: bool = False
    minimum_minor_alleles: int = 20
    minimum_missing: int = 20
    dosages: bool = False
    offset: str | None = field(default=None, metadata=NAMES_OFFERING)
    sex: str | None = field(default=None, metadata=NAMES_COLUMN)
    people: int = field(default=0, metadata=DERIVED)
    centre: tuple[float, ...] = field(default=(), metadata=DERIVED)
    scale: tuple[float, ...] = field(default=(), metadata=DERIVED)
    forms: str = field(default="", metadata=DERIVED)
    imputed: str = field(default="", metadata=DERIVED)
    left_out: tuple[str, ...] = field(default=(), metadata=DERIVED)
    adjustments: Floats = field(default_factory=lambda: np.zeros((0, 0)), compare=False, metadata=KEPT)

    def __post_init__(self) -> None:
        if not 1 <= len(self.traits) <= MOST_TRAITS:
            raise ValueError(f"traits must name 1 to {MOST_TRAITS} columns.")
        if self.dosages and self.sex is not None:
            raise ValueError("Dosages are of people with two copies: leave `sex` out, and variants that need it.")
        if len(set(self._columns)) != len(self._columns):
            raise ValueError("traits and covariates must be different columns.")
        if self.minimum_minor_alleles < 1 or self.minimum_missing < 1:
            raise ValueError("minimum_minor_alleles and minimum_missing must be at least 1.")
        if self.offset is not None and self.standardise is Standardise.SITE:
            raise ValueError("an offset is in the trait's pooled deviations: standardise must be pooled.")

    MOMENT_BITS: ClassVar[int] = 32

    @property
    def follows(self) -> str:
        """The earlier question whose predictions are subtracted, or nothing."""
        return self.offset or ""

    def after(self, answer: Answer, frame: Frame) -> LinearAssociation:
        """The question once that one is answered.

        Raises:
            UsageError: if the answer has no predictions of a trait.
        """
        return replace(self, adjustments=self._offset.stated(answer))

    @property
    def _columns(self) -> tuple[str, ...]:
        return (*self.covariates, *self.traits)

    @property
    def _offset(self) -> Offset:
        return Offset(self.offset, self.traits, self.left_out)

    def _design(self, frame: Frame) -> Design:
        return Design(
            self.people,
            np.array(self.centre),
            np.array(self.scale),
            len(self.covariates),
            len(self.traits),
            self._offset.number,
            self._offset.farthest(frame),
            self.standardise,
            self.site_effects,
        )

    def _tested(self, frame: Frame) -> Tested:
        assert frame.panel is not None
        return Tested.of(self.forms, self.imputed, self._offset.blocks(frame.panel), frame)

    def needs(self) -> Needs:
        sex = () if self.sex is None else (self.sex,)
        columns = tuple(dict.fromkeys((*self._columns, *self._offset.columns, *sex)))
        return Needs(columns=columns, panel=self.panel, dosages=self.dosages)

    def rounds(self) -> int:
        return 2

    def fraction(self) -> float:
        return 0.0

    def slices(self, frame: Frame) -> tuple[slice, ...]:
        return by_variants(frame, SMALLER if self.dosages else 1)

    def leaves(self, frame: Frame) -> dict[str, Field]:
        assert frame.panel is not None
        check_sex(frame.panel, self.panel, self.sex, frame.columns, males_alone=False)
        k, m = len(self._columns), len(frame.panel)
        if not self.centre:
            self._offset.check(frame)
            # Values lie in [-1, 1]: each sum moves by at most 1.
            return {
                "people": Field((), "people with traits and covariates", 1, 1),
                "sums": Field((k,), "sums of columns in units of half their range", k, k**0.5, self.MOMENT_BITS),
                "squares": Field((k,), "sums of squares of the same", k, k**0.5, self.MOMENT_BITS),
                **self._counted(m),
                **_held(m),
            }
        tested, design = self._tested(frame), self._design(frame)
        m, less = len(tested.on), len(tested.less)
        product, value = design.changes()
        every, f = design.changes(design.blocks)[0], design.bits
        apart = product * (1 + design.within)  # two scatters change, of all people and of those with a genotype
        over: Literal["people", "within"] = "within" if design.within else "people"
        missing = "products of people without genotype"
        fields = {
            "products": Field(
                (len(every),), "products of intercept, covariates and traits", *norms(every), f, over=over
            ),
            **self._counted(m),
            "scores": Field(
                (m, k), "alternate alleles times covariates and traits", *norms(value, m), f, True, over=over
            ),
            "missing": Field((less, len(product)), missing, *norms(apart, less), f, True, over=over),
        }
        if self.site_effects:
            bits, words = f - 1, "squared deviations of alleles from their mean at the site"
            fields |= {
                "squares": Field((m,), words, *norms(np.array([4 + 2.0**-bits]), m), bits, True, over=over),
                **_held(m),
                "sites": Field((), "sites with people", 1, 1, over="sites"),
            }
        elif self.dosages:
            fields["squares"] = Field((m,), "squared dosages", 4 * m, 4 * m**0.5, 2 * DOSAGE_BITS, True)
        return fields

    def _counted(self, variants: int) -> dict[str, Field]:
        words = "people with 1, 2 or no observed alternate alleles"
        counts = {"genotypes": Field((variants, 3), words, variants, variants**0.5, per_variant=True)}
        if not self.dosages:
            return counts
        alleles = Field((variants,), "sums of dosages", 2 * variants, 2 * variants**0.5, DOSAGE_BITS, True)
        return {**counts, "alleles": alleles}

    def summarise(self, cohort: Cohort, frame: Frame) -> Summary:
        assert frame.panel is not None
        columns = np.stack([frame.columns[name].unit(cohort.columns[name]) for name in self._columns], axis=1)
        offsets = np.zeros((len(cohort), len(self._offset.columns)))
        for number, name in enumerate(self._offset.columns):
            offsets[:, number] = frame.columns[name].clamp(cohort.columns[name])
        inside = cohort.having(self.needs().columns)
        if self.sex is not None:
            cohort = replace(cohort, genotypes=read_by_sex(cohort, frame.panel, self.sex))
        fields, people = self.leaves(frame), int(np.count_nonzero(inside))
        alleles = Alleles.of(cohort, inside, self.dosages)
        held = np.any(alleles.cells[:, :3], axis=1).astype(np.int64)
        counted = {"genotypes": alleles.cells[:, 1:]} | ({"alleles": alleles.sums} if self.dosages else {})
        if not self.centre:
            return {
                "people": np.array(people, dtype=np.int64),
                "sums": fields["sums"].integers(columns[inside]).sum(axis=0),
                "squares": fields["squares"].integers(columns[inside] ** 2).sum(axis=0),
                **counted,
                "holders": held,
            }
        tested, design, grid = self._tested(frame), self._design(frame), fields["scores"]
        w = np.zeros((len(cohort), 1 + len(self.covariates) + design.blocks * design.traits))
        w[inside, 0], w[inside, 1:] = 1.0, design.measured(columns[inside], offsets[inside], grid)
        out = {
            "products": design.products(w),
            **{name: values[tested.on] for name, values in counted.items()},
            **tested.sums(alleles, w, design, grid),
        }
        if not self.site_effects:
            missing = design.paired(out["missing"])
            return {**out, "missing": missing, **({"squares": alleles.squares[tested.on]} if self.dosages else {})}
        return {
            **out,
            **tested.centred(out, alleles, people, grid.integers(w[:, 1:]).sum(axis=0), design),
            "holders": held[tested.on],
            "sites": np.array(people > 0, dtype=np.int64),
        }

    def withhold(self, sums: Summary, minimum_cell: int) -> Summary:
        if not self.centre:
            if small(sums["people"], minimum_cell):
                return {name: np.full_like(array, WITHHELD) for name, array in sums.items()}
            return sums
        forms = numbers(self.forms)
        forms = forms[forms > Form.RARE]
        het, alt, missing = sums["genotypes"].T
        observed = self.people - missing
        minor = np.minimum(het + alt, observed - alt)  # people with either allele, not alleles
        # How many people were given the mean is not told, so that they may be few.
        few = small(missing, minimum_cell) & (forms != Form.IMPUTED)
        few |= (minor < minimum_cell) | (observed < minimum_cell)
        few &= observed > 0
        shown = replaced(sums, [n for n in BY_VARIANT if n in sums], few, WITHHELD)
        return replaced(shown, ("missing",), few[forms == Form.LESS], WITHHELD)

    def conclude(self, total: Total, frame: Frame) -> Answer | LinearAssociation:
        assert frame.panel is not None
        fields = self.leaves(frame)
        sums = self.withhold(total.sums, total.minimum_cell)
        if not self.centre:
            if sums["people"] == WITHHELD:
                return self._answer(frame, math.nan, np.zeros(len(frame.panel), dtype=np.int64), {})
            return self._second_round(
                sums, {name: fields[name].values(sums[name]) for name in ("sums", "squares")}, frame
            )
        tested, design, k = self._tested(frame), self._design(frame), len(self.covariates)
        forms, on = tested.forms, tested.forms[tested.on]
        hidden = (sums["genotypes"] == WITHHELD).any(axis=1)
        sums = replaced(sums, [n for n in BY_VARIANT if n in sums], hidden, 0)
        sums = replaced(sums, ("missing",), hidden[on == Form.LESS], 0)
        design.check(fields["products"].values(sums["products"]), self.covariates, self.traits)
        observed, alleles, squares = self._alleles(sums)
        given, n = on == Form.IMPUTED, np.where(on == Form.IMPUTED, self.people, observed)
        mean, without = tested.means, self.people - observed[on == Form.IMPUTED]
        frequency = alleles / np.maximum(2 * observed, 1)
        coarse = given & small(self.people - observed, total.minimum_cell)
        frequency[coarse] = np.rint(frequency[coarse] * self.people) / self.people
        alleles[given] += mean * without
        squares[given] += mean**2 * without
        scores, degrees = fields["scores"].values(sums["scores"]), n - k - 2
        if self.site_effects:
            squares = fields["squares"].values(sums["squares"])
            degrees = n - k - 1 - np.where(given, sums["sites"], sums["holders"])
        else:
            scores = np.concatenate([alleles[:, None], scores], axis=1)
        at = np.where(on == Form.LESS, np.cumsum(on == Form.LESS) - 1, -1)
        degrees[hidden] = 0
        beta, error = (np.empty((len(on), design.traits)) for _ in range(2))
        blocks = tested.blocks[tested.on]
        for block in np.unique(blocks):
            mine = blocks == block
            beta[mine], error[mine] = kernels.regress(
                design.of_block(sums["products"], int(block)),
                sums["missing"],
                at[mine],
                design.pairs(),
                2.0**-design.bits,
                scores[mine],
                squares[mine],
                degrees[mine],
                design.size,
            )
        spans = [frame.columns[name] for name in self.traits]
        units = np.array(self.scale[k:]) * [(s.maximum - s.minimum) / 2 for s in spans]
        if self.standardise is Standardise.SITE:
            units = np.ones(len(spans))
        if len(self.adjustments):
            shrinkage, calibration = self.adjustments
            beta, error = beta / shrinkage, error / (shrinkage * np.sqrt(calibration))
        with np.errstate(invalid="ignore", divide="ignore"):
            t = beta / error
            p = 2 * special.stdtr(np.maximum(degrees, 1)[:, None], -np.abs(t))
        hide = np.where(hidden, np.nan, 1.0)
        estimates = {
            name: dict(zip(ESTIMATES, (*columns, frequency * hide, n * hide), strict=True))
            for name, *columns in zip(self.traits, (beta * units).T, (error * units).T, t.T, p.T, strict=True)
        }
        every = np.zeros(len(forms), dtype=bool)
        every[tested.on] = hidden
        return self._answer(frame, self.people, forms, estimates, every)

    def _alleles(self, sums: Summary) -> tuple[NDArray[np.int64], Floats, Floats]:
        """(m,) how many people have a genotype, and the sums of their alleles and of these squared."""
        het, alt, missing = sums["genotypes"].T
        observed = np.asarray(self.people - missing, dtype=np.int64)
        if not self.dosages:
            return observed, het + 2.0 * alt, het + 4.0 * alt
        alleles, squares = (sums[name].astype(np.float64) for name in ("alleles", "squares"))
        return observed, alleles * 2.0**-DOSAGE_BITS, squares * 2.0 ** (-2 * DOSAGE_BITS)

    def _answer(
        self,
        frame: Frame,
        people: float,
        forms: NDArray[np.int64],
        estimates: Mapping[str, Mapping[str, Floats]],
        hidden: NDArray[np.bool_] | None = None,
    ) -> Answer:
        """Each trait's table with NaN in the rows that are withheld; `estimates` is empty if all are."""
        assert frame.panel is not None
        there = forms > Form.RARE
        withheld = ~there if hidden is None else ~there | hidden
        variants = variant_columns(frame.panel)
        flags = {
            "imputed": (forms == Form.IMPUTED) & ~withheld,
            "withheld": withheld,
            "rare": (forms == Form.RARE),
            "held_by_few": (forms == Form.FEW) & bool(estimates),
        }
        tables: dict[str, Mapping[str, Column]] = {}
        for trait in self.traits:
            shown = {name: np.full(len(forms), np.nan) for name in ESTIMATES}
            for name, values in estimates.get(trait, {}).items():
                shown[name][there] = values
            tables[trait] = {**variants, **shown, **flags}
        facts: dict[str, float | int | str] = {
            "people": people,
            "traits": ", ".join(self.traits),
            "covariates": ", ".join(self.covariates),
            "variants": len(frame.panel),
            "rare": int(flags["rare"].sum()),
            "imputed": int(flags["imputed"].sum()),
        }
        facts |= self._offset.facts(self.adjustments)
        return Answer(tables, facts, int(withheld.sum()))

    def _second_round(self, sums: Summary, values: dict[str, Floats], frame: Frame) -> LinearAssociation:
        assert frame.panel is not None
        people = int(sums["people"])
        if people < len(self.covariates) + 3:
            raise UsageError(
                "A regression needs more people than it has parameters.",
                f"{people} people have traits and covariates, {len(self.covariates) + 2} parameters",
                "drop covariates or ask sites that have the columns.",
            )
        mean = values["sums"] / people
        variance = values["squares"] / people - mean**2
        check_varying(self._columns, variance)
        het, alt, missing = sums["genotypes"].T
        observed, alleles = people - missing, het + 2 * alt
        if self.dosages:
            alleles = sums["alleles"] * 2.0**-DOSAGE_BITS
        minor = np.minimum(alleles, 2 * observed - alleles)
        less = (missing >= self.minimum_missing) & (self.missing is Missing.COMPLETE_CASE)
        forms = np.where(missing == 0, Form.WHOLE, np.where(less, Form.LESS, Form.IMPUTED))
        forms[minor < self.minimum_minor_alleles] = Form.RARE
        forms[sums["holders"] < LEAST_HOLDERS] = Form.FEW
        given = forms == Form.IMPUTED
        return replace(
            self,
            people=people,
            left_out=self._offset.of(frame.panel),
            centre=tuple(mean.tolist()),
            scale=tuple(np.sqrt(variance).tolist()),
            forms=(forms + ord("0")).astype(np.uint8).tobytes().decode(),
            imputed=base64.b64encode((alleles[given] / observed[given]).astype("<f8").tobytes()).decode(),
        )


def _held(variants: int) -> dict[str, Field]:
    words = "sites that hold the variant"
    return {"holders": Field((variants,), words, variants, variants**0.5, per_variant=True, over="sites")}

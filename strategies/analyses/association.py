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

A variant whose pooled number of observed genotypes, of missing ones (`less`), or of people with the minor allele lies
below the minimum cell is withheld. Where few people have traits and covariates, their number and the whole answer are
withheld before round 2.

NaN, and no estimate: a variant that the covariates explain, covariates that explain one another among the people with a
genotype, fewer people than parameters. Not for related people or strong population structure beyond the covariates.

[1] Seber, Lee: Linear Regression Analysis, 2nd edition (2003), section 3.2: partitioned normal equations.
[2] Lovell: Seasonal adjustment of economic time series, JASA 58 (1963): the theorem of Frisch and Waugh.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum, StrEnum
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import special

from strategies import kernels
from strategies.analyses.allele_frequency import variant_columns
from strategies.analysis import DERIVED, NAMES_COLUMN, NAMES_PANEL, Answer, Column, Frame, Needs, Total, by_variants
from strategies.cohort import Cohort
from strategies.errors import GenosumError, UsageError
from strategies.privacy import Regime
from strategies.protections.suppression import LEAST_HOLDERS, WITHHELD, replaced, small
from strategies.summary import MOST_CONTRIBUTION, Field, Summary

LEAST_DEVIATION = 1e-4
"""A column's pooled standard deviation in units of half its range; below this the sums lose their precision."""

MOST_TRAITS = 100

BY_VARIANT = ("genotypes", "scores", "squares")
"""The sums of round 2 that have a row for each variant that goes on."""

ESTIMATES = ("beta", "standard_error", "t", "p_value", "effect_allele_frequency", "n")
"""What the answer says about a variant."""


class Missing(StrEnum):
    """What becomes of people without a genotype: they are left out of the variant's regression, or given its mean."""

    COMPLETE_CASE = "complete_case"
    MEAN_IMPUTED = "mean_imputed"


class Standardise(StrEnum):
    """Whose mean and deviation a column is measured in: all people's, where beta is in the trait's own unit, or each
    site's own, which is another quantity: beta is then in deviations of the trait within the sites."""

    POOLED = "pooled"
    SITE = "site"


class Form(IntEnum):
    """How a variant goes on after the counts; as a digit it travels with round 2."""

    FEW = 0
    RARE = 1
    WHOLE = 2
    LESS = 3
    IMPUTED = 4


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
        people: the pooled number of people with traits and covariates; 0 in round 1, derived from its totals.
        centre, scale: pooled mean and deviation of (covariates, traits) after mapping each range to [-1, 1]; likewise.
        forms: each variant's form, a digit; likewise.
        imputed: the mean number of alternate alleles at each variant whose form is `imputed`, as base64 of their
            float64, which is a hundred times faster read than as many numbers; likewise.
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
    people: int = field(default=0, metadata=DERIVED)
    centre: tuple[float, ...] = field(default=(), metadata=DERIVED)
    scale: tuple[float, ...] = field(default=(), metadata=DERIVED)
    forms: str = field(default="", metadata=DERIVED)
    imputed: str = field(default="", metadata=DERIVED)

    def __post_init__(self) -> None:
        if not 1 <= len(self.traits) <= MOST_TRAITS:
            raise ValueError(f"traits must name 1 to {MOST_TRAITS} columns.")
        if len(set(self._columns)) != len(self._columns):
            raise ValueError("traits and covariates must be different columns.")
        if self.minimum_minor_alleles < 1 or self.minimum_missing < 1:
            raise ValueError("minimum_minor_alleles and minimum_missing must be at least 1.")

    MOMENT_BITS: ClassVar[int] = 32

    @property
    def _bits(self) -> int:
        """Fraction bits of round 2, as fine as the ring allows.

        Standardised columns have sum z^2 = N over all sites, so by Cauchy and Schwarz no sum of products exceeds N and
        no genotype sum 2 N. With 2^5 sites and the node's limit of 2^62 / sites, f = 56 - log2 N bits fit; with site
        effects one less, since two people may then lie 2 N^1/2 apart.
        """
        return 56 - self.people.bit_length() - self.site_effects

    @property
    def _reach(self) -> float:
        """The farthest that anybody can lie from the mean, in deviations, if N people have that mean and deviation.

        With site effects, values are held there before they are centred: were products held after it, one person far
        out would move those of all others at her site. Only a forged first round, or somebody added to the people that
        it is of, lies beyond.
        """
        return float(2.0 ** (self.people.bit_length() / 2))

    @property
    def _columns(self) -> tuple[str, ...]:
        return (*self.covariates, *self.traits)

    @property
    def _size(self) -> int:
        """Covariates, with the intercept unless it is a site's own."""
        return len(self.covariates) + (not self.site_effects)

    @property
    def _pairs(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Index pairs (i <= j) of the products of w that a regression reads: traits meet covariates and themselves."""
        k, wide = self._size, self._size + len(self.traits)
        pairs = [(i, j) for i in range(k) for j in range(i, wide)] + [(j, j) for j in range(k, wide)]
        rows, columns = np.array(pairs, dtype=np.int64).T
        return rows, columns

    def _forms(self, frame: Frame) -> NDArray[np.int64]:
        """(M,) the forms of a slice's variants."""
        assert frame.panel is not None
        digits = self.forms[frame.start : frame.start + len(frame.panel)]
        return np.frombuffer(digits.encode(), dtype=np.uint8).astype(np.int64) - ord("0")

    def _imputed(self, frame: Frame) -> NDArray[np.float64]:
        """The mean number of alternate alleles at each imputed variant of a slice."""
        before = self.forms.count(str(Form.IMPUTED.value), 0, frame.start)
        count = int(np.count_nonzero(self._forms(frame) == Form.IMPUTED))
        means = np.frombuffer(base64.b64decode(self.imputed), dtype="<f8")[before : before + count]
        return np.asarray(np.clip(np.nan_to_num(means), 0.0, 2.0))

    def needs(self) -> Needs:
        return Needs(columns=self._columns, panel=self.panel)

    def rounds(self) -> int:
        return 2

    def fraction(self) -> float:
        return 0.0

    def slices(self, frame: Frame) -> tuple[slice, ...]:
        return by_variants(frame)

    def leaves(self, frame: Frame) -> dict[str, Field]:
        assert frame.panel is not None
        k, m = len(self._columns), len(frame.panel)
        if not self.centre:
            # Values lie in [-1, 1]: each sum moves by at most 1.
            return {
                "people": Field((), "people with traits and covariates", 1, 1),
                "sums": Field((k,), "sums of columns in units of half their range", k, k**0.5, self.MOMENT_BITS),
                "squares": Field((k,), "sums of squares of the same", k, k**0.5, self.MOMENT_BITS),
                **_counted(m),
                **_held(m),
            }
        forms, (i, _), f = self._forms(frame), self._pairs, self._bits
        m, less = int(np.count_nonzero(forms >= Form.WHOLE)), int(np.count_nonzero(forms == Form.LESS))
        product, value = self._changes()
        apart = product * (1 + self._within)  # two scatters change, of all people and of those with a genotype
        over: Literal["people", "within"] = "within" if self._within else "people"
        q, missing = len(i), "products of people without genotype"
        fields = {
            "products": Field((q,), "products of intercept, covariates and traits", *_norms(product), f, over=over),
            **_counted(m),
            "scores": Field(
                (m, k), "alternate alleles times covariates and traits", *_norms(value, m), f, True, over=over
            ),
            "missing": Field((less, q), missing, *_norms(apart, less), f, True, over=over),
        }
        if self.site_effects:
            bits, words = self._bits - 1, "squared deviations of alleles from their mean at the site"
            fields |= {
                "squares": Field((m,), words, *_norms(np.array([4 + 2.0**-bits]), m), bits, True, over=over),
                **_held(m),
                "sites": Field((), "sites with people", 1, 1, over="sites"),
            }
        return fields

    @property
    def _within(self) -> bool:
        """Whether what leaves adds over sites alone: a person moves the mean or the deviation of all at her site."""
        return self.site_effects or self.standardise is Standardise.SITE

    def _changes(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The most by which a person changes each pair's product, and alleles times a column, from the ranges' ends.

        Of deviations from a site's mean, a person at distance d adds at most d_i d_j, and each is rounded anew. Of n
        people in the site's own deviations, no sum of products exceeds n, and n is at most `people`.
        """
        (i, j), grid = self._pairs, 2.0**-self._bits
        centre, scale = np.array(self.centre), np.array(self.scale)
        held = MOST_CONTRIBUTION * grid  # only a forged first round leads beyond
        if self.standardise is Standardise.SITE:
            whole = np.full(len(i), 2.0 * self.people + 1)
            return whole, np.full(len(scale), 2 * whole[0])
        if self.site_effects:
            most = 2 * np.minimum(1 / scale, self._reach)
            product = most[i] * most[j] + (1 + self.people * (1 + most[i] + most[j])) * grid
            return product, 2 * (most + (1 + self.people) * grid)
        most = np.concatenate([[1.0], np.maximum(np.abs(1 - centre), np.abs(1 + centre)) / scale])
        return np.minimum(most[i] * most[j] + grid, held), 2 * np.minimum(most[1:] + grid, held)

    def summarise(self, cohort: Cohort, frame: Frame) -> Summary:
        assert cohort.genotypes is not None
        columns = np.stack([frame.columns[name].unit(cohort.columns[name]) for name in self._columns], axis=1)
        inside = np.asarray(np.isfinite(columns).all(axis=1))
        fields, people = self.leaves(frame), int(np.count_nonzero(inside))
        cells = cohort.genotypes.counts(inside)
        held = np.any(cells[:, :3], axis=1).astype(np.int64)
        if not self.centre:
            return {
                "people": np.array(people, dtype=np.int64),
                "sums": fields["sums"].integers(columns[inside]).sum(axis=0),
                "squares": fields["squares"].integers(columns[inside] ** 2).sum(axis=0),
                "genotypes": cells[:, 1:],
                "holders": held,
            }
        forms, packed, f = self._forms(frame), cohort.genotypes.packed, self._bits
        on, less, imputed = (np.flatnonzero(c) for c in (forms > Form.RARE, forms == Form.LESS, forms == Form.IMPUTED))
        grid = fields["scores"]
        w = np.zeros((len(cohort), 1 + columns.shape[1]))
        w[inside, 0], w[inside, 1:] = 1.0, self._standardised(columns[inside], grid)
        z = grid.integers(w[:, 1:])
        size, (i, j) = 1 + len(self.covariates), self._pairs
        scores = kernels.product(packed, on, cells[on], z)
        scores[np.searchsorted(on, imputed)] += kernels.missing_imputed(packed, imputed, self._imputed(frame), z)
        products, missing = kernels.products(w, size, f), kernels.missing_products(packed, less, w, size, f)
        first = int(self.site_effects)  # without the intercept
        out = {
            "products": _paired(products[None], size, i + first, j + first)[0],
            "genotypes": cells[on, 1:],
            "scores": scores,
            "missing": _paired(missing, size, i + first, j + first),
        }
        if not self.site_effects:
            return out
        return {
            **out,
            **self._centred(out, cells[on], people, z.sum(axis=0), missing[:, 0], frame),
            "holders": held[on],
            "sites": np.array(people > 0, dtype=np.int64),
        }

    def _standardised(self, columns: NDArray[np.float64], grid: Field) -> NDArray[np.float64]:
        """(N, k) complete people's values of covariates and traits, centred and scaled as the question says.

        Means and deviations of a site are of integers on the grid, so they do not depend on the order of its people.
        """
        out: NDArray[np.float64] = (columns - np.array(self.centre)) / np.array(self.scale)
        if self.site_effects:
            out = np.clip(out, -self._reach, self._reach)
        if len(out) and self._within:
            z = grid.integers(out)
            out = (z - z.sum(axis=0) / len(z)) * 2.0**-grid.fraction_bits
        if len(out) and self.standardise is Standardise.SITE:
            squares = grid.integers(out**2).sum(axis=0) * 2.0**-grid.fraction_bits / len(out)
            able = squares > LEAST_DEVIATION**2
            out = np.where(able, out / np.sqrt(np.where(able, squares, 1.0)), 0.0)
        return out

    def _centred(
        self,
        sums: Summary,
        cells: NDArray[np.int64],
        people: int,
        total: NDArray[np.int64],
        missing: NDArray[np.int64],
        frame: Frame,
    ) -> Summary:
        """The site's sums with genotypes, and the columns of those who count for a variant, measured from their means.

        Args:
            sums: as they are without.
            cells: (m, 4) genotype counts.
            people: n, of the site.
            total, missing: the columns' sums over its people, (k,), and with the intercept first over those without a
                genotype, (less, 1 + k).
        """
        forms, grid = self._forms(frame), 2.0**-self._bits
        forms = forms[forms > Form.RARE]
        alleles, squared = cells[:, 1] + 2.0 * cells[:, 2], cells[:, 1] + 4.0 * cells[:, 2]
        given, counted = forms == Form.IMPUTED, np.maximum(people - cells[:, 3], 1)
        mean, without = self._imputed(frame), cells[forms == Form.IMPUTED, 3]
        alleles[given] += mean * without
        squared[given] += mean**2 * without
        counted[given] = max(people, 1)
        columns = np.broadcast_to(total, (len(cells), len(total))).copy()
        columns[forms == Form.LESS] -= missing[:, 1:]
        left, (i, j) = columns[forms == Form.LESS].astype(np.float64), self._pairs
        apart = left[:, i] * left[:, j] * grid / counted[forms == Form.LESS, None]
        squares = (squared - alleles**2 / counted) * 2.0 ** (self._bits - 1)
        return {
            "scores": sums["scores"] - _whole(alleles[:, None] * columns / counted[:, None]),
            "missing": sums["missing"] + _whole(apart),
            "squares": _whole(squares),
        }

    def withhold(self, sums: Summary, minimum_cell: int) -> Summary:
        if not self.centre:
            if small(sums["people"], minimum_cell):
                return {name: np.full_like(array, WITHHELD) for name, array in sums.items()}
            return sums
        forms = np.frombuffer(self.forms.encode(), dtype=np.uint8) - ord("0")
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
            return self._second_round(sums, {name: fields[name].values(sums[name]) for name in ("sums", "squares")})
        forms, k, unit = self._forms(frame), len(self.covariates), 2.0**-self._bits
        on = forms[forms > Form.RARE]
        hidden = (sums["genotypes"] == WITHHELD).any(axis=1)
        sums = replaced(sums, [n for n in BY_VARIANT if n in sums], hidden, 0)
        sums = replaced(sums, ("missing",), hidden[on == Form.LESS], 0)
        self._checked(fields["products"].values(sums["products"]))
        het, alt, missing = sums["genotypes"].T
        observed, alleles, squares = self.people - missing, het + 2.0 * alt, het + 4.0 * alt
        given, n = on == Form.IMPUTED, np.where(on == Form.IMPUTED, self.people, observed)
        mean, without = self._imputed(frame), missing[on == Form.IMPUTED]
        frequency = alleles / np.maximum(2 * observed, 1)
        coarse = given & small(missing, total.minimum_cell)
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
        beta, error = kernels.regress(
            sums["products"], sums["missing"], at, self._pairs, unit, scores, squares, degrees, self._size
        )
        spans = [frame.columns[name] for name in self.traits]
        units = np.array(self.scale[k:]) * [(s.maximum - s.minimum) / 2 for s in spans]
        if self.standardise is Standardise.SITE:
            units = np.ones(len(spans))
        with np.errstate(invalid="ignore", divide="ignore"):
            t = beta / error
            p = 2 * special.stdtr(np.maximum(degrees, 1)[:, None], -np.abs(t))
        hide = np.where(hidden, np.nan, 1.0)
        estimates = {
            name: dict(zip(ESTIMATES, (*columns, frequency * hide, n * hide), strict=True))
            for name, *columns in zip(self.traits, (beta * units).T, (error * units).T, t.T, p.T, strict=True)
        }
        whole = np.zeros(len(forms), dtype=bool)
        whole[forms > Form.RARE] = hidden
        return self._answer(frame, self.people, forms, estimates, whole)

    def _answer(
        self,
        frame: Frame,
        people: float,
        forms: NDArray[np.int64],
        estimates: Mapping[str, Mapping[str, NDArray[np.float64]]],
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
        return Answer(tables, facts, int(withheld.sum()))

    def _checked(self, products: NDArray[np.float64]) -> None:
        """Assert that the second round's products are those of the first round's people, and no column follows from
        others."""
        (i, j), size = self._pairs, self._size
        whole = np.zeros((size + len(self.traits),) * 2)
        whole[i, j] = whole[j, i] = products / max(self.people, 1)
        squares = np.diagonal(whole)
        low = -1.0 if self._within else 0.1
        if self.people < 1 or not ((squares > low) & (squares < 1.9)).all():
            raise GenosumError(
                "Columns standardised by round 1 have a mean square of 1 in round 2.",
                "sums that do not agree",
                "run the study again; if it stays so, a site's data changed in between.",
            )
        for number, trait in enumerate(self.traits, start=size):
            here = [*range(size), number]
            if np.linalg.eigvalsh(whole[np.ix_(here, here)])[0] < 1e-9:
                raise UsageError(
                    "Covariates must not explain one another or a trait, with site effects within the sites.",
                    f"{', '.join((*self.covariates, trait))} are linearly dependent",
                    "drop what follows from the others.",
                )

    def _second_round(self, sums: Summary, values: dict[str, NDArray[np.float64]]) -> LinearAssociation:
        people = int(sums["people"])
        if people < len(self.covariates) + 3:
            raise UsageError(
                "A regression needs more people than it has parameters.",
                f"{people} people have traits and covariates, {len(self.covariates) + 2} parameters",
                "drop covariates or ask sites that have the columns.",
            )
        mean = values["sums"] / people
        variance = values["squares"] / people - mean**2
        constant = [name for name, v in zip(self._columns, variance, strict=True) if not v > LEAST_DEVIATION**2]
        if constant:
            raise UsageError(
                "Traits and covariates must vary over the sites together, relative to their range.",
                f"(nearly) constant: {', '.join(constant)}",
                "drop them or narrow their range.",
            )
        het, alt, missing = sums["genotypes"].T
        observed, alleles = people - missing, het + 2 * alt
        minor = np.minimum(alleles, 2 * observed - alleles)
        less = (missing >= self.minimum_missing) & (self.missing is Missing.COMPLETE_CASE)
        forms = np.where(missing == 0, Form.WHOLE, np.where(less, Form.LESS, Form.IMPUTED))
        forms[minor < self.minimum_minor_alleles] = Form.RARE
        forms[sums["holders"] < LEAST_HOLDERS] = Form.FEW
        given = forms == Form.IMPUTED
        return replace(
            self,
            people=people,
            centre=tuple(mean.tolist()),
            scale=tuple(np.sqrt(variance).tolist()),
            forms=(forms + ord("0")).astype(np.uint8).tobytes().decode(),
            imputed=base64.b64encode((alleles[given] / observed[given]).astype("<f8").tobytes()).decode(),
        )


def _counted(variants: int) -> dict[str, Field]:
    words = "people with 1, 2 or no observed alternate alleles"
    return {"genotypes": Field((variants, 3), words, variants, variants**0.5, per_variant=True)}


def _held(variants: int) -> dict[str, Field]:
    words = "sites that hold the variant"
    return {"holders": Field((variants,), words, variants, variants**0.5, per_variant=True, over="sites")}


def _norms(entries: NDArray[np.float64], times: int = 1) -> tuple[float, float]:
    """L1 and L2 of an array that has these entries so many times."""
    return times * float(entries.sum()), times**0.5 * float(np.sqrt((entries**2).sum()))


def _whole(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """The nearest integers, held where a ring element may be; only forged totals lead there."""
    held: NDArray[np.int64] = np.clip(np.rint(values), -MOST_CONTRIBUTION, MOST_CONTRIBUTION).astype(np.int64)
    return held


def _paired(sums: NDArray[np.int64], size: int, i: NDArray[np.int64], j: NDArray[np.int64]) -> NDArray[np.int64]:
    """(R, q) the products of pairs of columns out of (R, size + 1, C), as `kernels.products` gives them."""
    return sums[:, np.minimum(i, size), j]

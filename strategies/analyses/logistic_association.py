"""Association of a binary trait with each variant: a score test of all, and a second test of those with a small p.

    log odds of being a case = X c + b g,   one model per variant, over the people with trait and covariates

1. *moments*  People, cases, the covariates' sums and squares, so that all sites standardise alike; genotype counts.
2. *null*     c under b = 0 by Newton's method, one round a step.
3. *scores*   For each variant U = g'r, v = g'(w X) and g'(w g), with r = y - mu and w = mu (1 - mu) of the null model:
              V = g'(w g) - v'(X'w X)^-1 v, z = U / sqrt(V) [1]. A missing genotype counts as the pooled mean.
4. *hits*     Where the score's p lies below `second_stage`, by `test`, all hits in each round together:
    `logistic`           the whole model by Newton's method; Wald test
    `firth`              the same with Firth's penalty [2]; Wald test
    `firth_approximate`  b alone, with Firth's penalty and the null model as offset, of what covariates leave of the
                         genotype, a = g - X (X'w X)^-1 v; likelihood-ratio test [3]
    `spa`                saddlepoint approximation of both tails of U, for few cases or rare alleles [4]

beta is the log odds ratio of one alternate allele; after `score` and `spa` it is U / V, a first step towards it. z is
the normal quantile of the p value, with beta's sign. The standard error is that of the information at the maximum, and
beta / z after `spa`.

Left out and withheld: a variant whose pooled number of rarer alleles is below `minimum_minor_alleles`, whose number of
people with the rarer allele or of observed ones is below the minimum cell, or which fewer than three sites hold.
Nothing is asked about it. The whole answer is withheld where people, cases or controls are few.

An error: covariates that explain one another, or that separate cases from controls (no maximum in `iterations` rounds).
NaN and not `converged`: a variant that covariates explain; a second test without a maximum, that is, a log odds ratio
beyond 20, singular information, or no end in the rounds. `firth` has a maximum where `logistic` has none.

Sums over a variant's carriers are linear in their residuals, and an estimate tells about how many of them are cases: no
minimum hides that. Not for related people or strong structure beyond the covariates.

[1] Cox, Hinkley: Theoretical Statistics (1974), section 9.3: score tests with nuisance parameters.
[2] Heinze, Schemper: A solution to the problem of separation in logistic regression, Statistics in Medicine 21 (2002).
[3] Mbatchou et al.: Computationally efficient whole-genome regression, Nature Genetics 53 (2021), online methods.
[4] Dey et al.: A fast and accurate algorithm to test for binary phenotypes, Am. J. Human Genetics 101 (2017).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy import special

from strategies import null_models, score_tests
from strategies.alleles import DOSAGE_BITS, SMALLER, Alleles
from strategies.analyses.allele_frequency import variant_columns
from strategies.analysis import (
    CARRIED,
    DERIVED,
    KEPT,
    NAMES_COLUMN,
    NAMES_OFFERING,
    NAMES_PANEL,
    VARIANTS_PER_SLICE,
    WHOLE,
    Answer,
    Column,
    Frame,
    Needs,
    Span,
    Total,
    by_variants,
)
from strategies.cohort import Cohort
from strategies.design import LEAST_DEVIATION
from strategies.errors import UsageError
from strategies.hits import Models, Round, SecondTest, bounded, symmetric
from strategies.likelihood import Sample
from strategies.null_models import NullModels
from strategies.offsets import MOST_LEFT_OUT, Offset
from strategies.ploidy import check_sex, read_by_sex
from strategies.privacy import Regime
from strategies.products import FEW, SMALL, Centring, centring, seldom
from strategies.protections.suppression import WITHHELD, replaced, small
from strategies.summary import Field, Summary

NULL_FIELDS = ("score", "information", "likelihood")
"""The sums that a step of a null model needs."""

MOST_COEFFICIENT = 1024.0
"""Of a model that a node is asked about; no search goes beyond `likelihood.SEPARATED` by more than a step."""

LEAST_TILTED = 0.1
"""|z| below which a saddlepoint lies too near to 0 to be told from it; the score's own p stands there."""

Floats = NDArray[np.float64]


class Stage(StrEnum):
    """What a round asks for."""

    MOMENTS = "moments"
    NULL = "null"
    SCORES = "scores"
    HITS = "hits"


def _none() -> Floats:
    return np.zeros(0)


@dataclass(frozen=True)
class LogisticAssociation:
    """Log odds ratio, standard error, z and p of a binary trait for every variant of a panel.

    Attributes:
        panel: name of the study's panel.
        trait: name of the binary column; a case is above the middle of its range.
        covariates: names of further columns; an intercept is always there.
        test: what is done about hits.
        second_stage: the score's p below which a variant is a hit.
        most_hits: at most so many, those with the smallest p; the others keep the score's.
        minimum_minor_alleles: least pooled number of copies of the rarer allele of a variant that is tested.
        iterations: most rounds that the null models take, and hits at least may take.
        dosages: whether expected numbers of alternate alleles are read; at a site whose files have none, genotypes are.
        offset: name of an earlier whole-genome regression of this trait and these covariates, whose prediction without
            a variant's chromosome is added to the log odds.
        sex: name of the column of sexes, which variants on X outside its pseudo-autosomal regions and on MT need. One
            copy counts as two, and a heterozygous genotype of it as missing, as in PLINK 2. Not with dosages.
        taken: rounds taken so far.
        stage: what this round asks for.
        people: pooled number of people with trait and covariates.
        centre, scale: (K) pooled mean and deviation of the covariates after mapping each range to [-1, 1].
        cases: pooled number of cases.
        left_out: the C chromosomes of the panel, without each of which an offset predicts; none without an offset.
        null: (C (1 + K)) coefficients of the null models, of each the intercept's and the standardised covariates'.
        imputed: (M,) pooled mean number of alternate alleles, SMALL or FEW; for `scores`.
        hits: (H,) places of variants in the panel, ascending; for `hits`.
        models: (H, ...) what is asked about each: mean, coefficients or t, and what they are in terms of.
        means, unobserved: (M,) as `imputed`, and the pooled number of people without a genotype.
        estimates: (M, 6) beta, standard error, z, p, whether it is the second test's, whether it converged.
        scored: (H, 2) U and V of the hits.
        search: (H, ...) or, of the null models, (C, ...) what the next step needs.
        adjustments: (2, 1) shrinkage and calibration of an offset.
    """

    analysis: ClassVar[str] = "association_binary"
    regime: ClassVar[Regime] = Regime.EXACT
    by_site: ClassVar[bool] = False
    summary_in_words: ClassVar[str] = (
        "for each variant, the sums that a score test needs, and in each round those that a step of a logistic "
        "regression, of all people and of the variants with a small p value, needs, over the sites"
    )

    panel: str = field(metadata=NAMES_PANEL)
    trait: str = field(metadata=NAMES_COLUMN)
    covariates: tuple[str, ...] = field(default=(), metadata=NAMES_COLUMN)
    test: SecondTest = SecondTest.FIRTH_APPROXIMATE
    second_stage: float = 1e-3
    most_hits: int = 2000
    minimum_minor_alleles: int = 20
    iterations: int = 30
    dosages: bool = False
    offset: str | None = field(default=None, metadata=NAMES_OFFERING)
    sex: str | None = field(default=None, metadata=NAMES_COLUMN)
    taken: int = field(default=0, metadata=DERIVED)
    stage: Stage = field(default=Stage.MOMENTS, metadata=DERIVED)
    people: int = field(default=0, metadata=DERIVED)
    centre: tuple[float, ...] = field(default=(), metadata=DERIVED)
    scale: tuple[float, ...] = field(default=(), metadata=DERIVED)
    left_out: tuple[str, ...] = field(default=(), metadata=DERIVED)
    null: tuple[float, ...] = field(default=(), metadata=DERIVED)
    imputed: Floats = field(default_factory=_none, compare=False, metadata=CARRIED)
    hits: NDArray[np.int64] = field(
        default_factory=lambda: np.zeros(0, dtype=np.int64), compare=False, metadata=CARRIED
    )
    models: Floats = field(default_factory=_none, compare=False, metadata=CARRIED)
    cases: int = field(default=0, metadata=DERIVED)
    means: Floats = field(default_factory=_none, compare=False, metadata=KEPT)
    unobserved: NDArray[np.int64] = field(
        default_factory=lambda: np.zeros(0, dtype=np.int64), compare=False, metadata=KEPT
    )
    estimates: Floats = field(default_factory=_none, compare=False, metadata=KEPT)
    scored: Floats = field(default_factory=_none, compare=False, metadata=KEPT)
    search: Floats = field(default_factory=_none, compare=False, metadata=KEPT)
    adjustments: Floats = field(default_factory=_none, compare=False, metadata=KEPT)

    MOMENT_BITS: ClassVar[int] = 32

    def __post_init__(self) -> None:
        if self.trait in self.covariates or len(set(self.covariates)) != len(self.covariates):
            raise ValueError("trait and covariates must be different columns.")
        if self.dosages and self.sex is not None:
            raise ValueError("Dosages are of people with two copies: leave `sex` out, and variants that need it.")
        for name, low, high in (
            ("second_stage", 0.0, 1.0),
            ("most_hits", 1, 4096),
            ("minimum_minor_alleles", 0, 10**9),
            ("iterations", 5, 100),
            ("taken", 0, self.rounds()),
            ("people", 0, 2**40),
        ):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} must be from {low:g} to {high:g}.")
        if self.stage is not Stage.MOMENTS:
            self._check_models()

    def _check_models(self) -> None:
        k, c, s, n = len(self.covariates), np.array(self.centre), np.array(self.scale), np.array(self.null)
        if not (len(c) == len(s) == k and len(n) == self._offset.number * (1 + k) and 0 < self.cases < self.people):
            raise ValueError("A round has people, and the mean, deviation and coefficients of each covariate.")
        names = self.left_out
        if bool(names) != bool(self.offset) or len(set(names)) != len(names) or len(names) > MOST_LEFT_OUT:
            raise ValueError("A round with an offset leaves different chromosomes out.")
        inside = (np.abs(c) <= 1).all() and (s >= LEAST_DEVIATION).all() and (s <= 1).all()
        if not inside or not (np.abs(n) <= MOST_COEFFICIENT).all():
            raise ValueError("Means, deviations and coefficients are within their bounds.")
        Centring(self.imputed).check()
        if not self.hits.size:
            return
        h = self.hits
        if h.dtype != np.int64 or h.ndim != 1 or len(h) > self.most_hits or h[0] < 0 or (np.diff(h) <= 0).any():
            raise ValueError("Hits are different places in a panel, ascending.")
        if len(self.models) != len(h):
            raise ValueError("A hit has a model.")
        self._models()

    # -- an offset ------------------------------------------------------------------------------------------------

    @property
    def follows(self) -> str:
        """The earlier question whose predictions are added, or nothing."""
        return self.offset or ""

    def after(self, answer: Answer, frame: Frame) -> LogisticAssociation:
        """The question once that one is answered.

        Raises:
            UsageError: if the answer has no predictions of the trait.
        """
        return replace(self, adjustments=self._offset.stated(answer))

    @property
    def _offset(self) -> Offset:
        return Offset(self.offset, (self.trait,), self.left_out)

    @property
    def _log_odds(self) -> float:
        """Of one deviation of the trait."""
        mu = self.cases / self.people
        return float(1 / np.sqrt(mu * (1 - mu)))

    def _corrected(self, rows: Floats) -> Floats:
        """(n, 4) beta, standard error, z and p as an offset's adjustments make them."""
        if not len(self.adjustments):
            return rows
        (shrinkage,), (calibration,) = self.adjustments
        z = rows[:, 2] * np.sqrt(calibration)
        beta, error = rows[:, 0] / shrinkage, rows[:, 1] / (shrinkage * np.sqrt(calibration))
        return np.stack([beta, error, z, 2 * special.ndtr(-np.abs(z))], axis=1)

    # -- shapes ---------------------------------------------------------------------------------------------------

    @property
    def _bits(self) -> int:
        """Fraction bits of the later rounds, as fine as the ring allows.

        Standardised covariates have sum x^2 = N over all sites, so by Cauchy and Schwarz no sum of products exceeds N,
        and none with a genotype 4 N / 4. With 2^5 sites and the node's limit of 2^62 / sites, 56 - log2 N bits fit.
        """
        return max(56 - self.people.bit_length(), 16)

    @property
    def _columns(self) -> tuple[str, ...]:
        return (*self.covariates, self.trait)

    def _models(self) -> Models:
        return Models.of(self.test, self.models, 1 + len(self.covariates))

    def needs(self) -> Needs:
        sex = () if self.sex is None else (self.sex,)
        columns = tuple(dict.fromkeys((*self._columns, *self._offset.columns, *sex)))
        panel = None if self.stage is Stage.NULL else self.panel
        return Needs(columns=columns, panel=panel, dosages=self.dosages and panel is not None)

    def rounds(self) -> int:
        return 2 + self.iterations * (1 + (self.test is not SecondTest.SCORE))

    def fraction(self) -> float:
        return 0.0

    def slices(self, frame: Frame) -> tuple[Span, ...]:
        assert frame.panel is not None
        if self.stage is Stage.HITS:  # whoever names places beyond the panel asks for a slice that is not there
            there = self.hits.size and self.hits[-1] < len(frame.panel)
            most = VARIANTS_PER_SLICE // self._smaller
            return tuple(self.hits[a : a + most] for a in range(0, len(self.hits), most)) if there else ()
        return WHOLE if self.stage is Stage.NULL else by_variants(frame, self._smaller)

    @property
    def _smaller(self) -> int:
        return SMALLER if self.dosages else 1

    def _here(self, frame: Frame) -> NDArray[np.int64]:
        """(h,) numbers of the hits that lie in a slice."""
        assert frame.panel is not None
        if frame.places is not None:
            return np.flatnonzero(np.isin(self.hits, frame.places))
        return np.flatnonzero((self.hits >= frame.start) & (self.hits < frame.start + len(frame.panel)))

    def _rows(self, frame: Frame) -> NDArray[np.int64]:
        """Places in a slice of the variants that sums are about: those that are tested, or hits."""
        if self.stage is Stage.SCORES:
            return np.flatnonzero(self._imputed(frame) > 0)
        here = self._here(frame)
        return np.arange(len(here)) if frame.places is not None else self.hits[here] - frame.start

    def _imputed(self, frame: Frame) -> Floats:
        """(m,) means of a slice's variants."""
        assert frame.panel is not None
        here = self.imputed[frame.start : frame.start + len(frame.panel)]
        if len(here) != len(frame.panel):
            raise ValueError("A round of scores has a mean for each variant.")
        return here

    def _null_models(self, frame: Frame) -> NullModels:
        centre, scale = np.array(self.centre), np.array(self.scale)
        ends = np.array([np.append(1.0, (-1 - centre) / scale), np.append(1.0, (1 - centre) / scale)])
        coefficients = np.array(self.null).reshape(self._offset.number, -1)
        return NullModels(coefficients, ends, self._offset.farthest(frame) * self._log_odds, self._bits)

    # -- what leaves ----------------------------------------------------------------------------------------------

    def leaves(self, frame: Frame) -> dict[str, Field]:
        assert frame.panel is not None
        check_sex(frame.panel, self.panel, self.sex, frame.columns, males_alone=False)
        people = {"people": Field((), "people with trait and covariates", 1, 1)}
        if self.stage is Stage.MOMENTS:
            self._offset.check(frame)
            return people | self._moments(len(frame.panel))
        models, f = self._null_models(frame), self._bits
        if self.stage is Stage.NULL:
            return people | models.leaves()
        blocks = self._offset.blocks(frame.panel)[self._rows(frame)]
        if self.stage is Stage.HITS:
            here, null = self._models()[self._here(frame)], models.coefficients[blocks]
            return people | here.leaves(null, models.ends, models.farthest, f - 2)
        most, reach = np.abs(models.ends).max(axis=0), models.reach
        r, w = reach.residual[blocks], reach.weight[blocks]
        weighted = "alternate alleles times weighted covariates"
        return {
            **people,
            **models.leaves(),
            "scores": bounded("alternate alleles times residuals", 2 * r[:, None], f, True, r.shape),
            "weighted": bounded(weighted, 2 * w[:, None] * most, f, True),
            "squares": bounded("weighted squared alternate alleles", 4 * w[:, None], f, True, w.shape),
        }

    def _moments(self, variants: int) -> dict[str, Field]:
        m, k = variants, len(self.covariates)
        words = "people with 1, 2 or no observed alternate alleles"
        out = {"cases": Field((), "cases", 1, 1)}
        if k:  # values lie in [-1, 1]: each sum moves by at most 1
            words_of = {
                "sums": "sums of covariates in units of half their range",
                "squares": "sums of squares of the same",
            }
            out |= {name: Field((k,), text, k, k**0.5, self.MOMENT_BITS) for name, text in words_of.items()}
        out["genotypes"] = Field((m, 3), words, m, m**0.5, per_variant=True)
        if self.dosages:
            out["alleles"] = Field((m,), "sums of dosages", 2 * m, 2 * m**0.5, DOSAGE_BITS, True)
        out["holders"] = Field((m,), "sites that hold the variant", m, m**0.5, per_variant=True, over="sites")
        return out

    def summarise(self, cohort: Cohort, frame: Frame) -> Summary:
        assert frame.panel is not None
        columns = np.stack([frame.columns[name].unit(cohort.columns[name]) for name in self._columns], axis=1)
        inside = np.asarray(np.isfinite([cohort.columns[name] for name in self.needs().columns]).all(axis=0))
        fields, unit, cases = self.leaves(frame), columns[inside, :-1], columns[inside, -1] > 0
        people = {"people": np.array(len(unit), dtype=np.int64)}
        if self.stage is Stage.MOMENTS:
            alleles, moments = self._alleles(cohort, frame, inside), {"sums": unit, "squares": unit**2}
            return {
                **people,
                "cases": np.array(np.count_nonzero(cases), dtype=np.int64),
                **{n: fields[n].integers(values).sum(axis=0) for n, values in moments.items() if self.covariates},
                "genotypes": alleles.cells[:, 1:],
                **({"alleles": alleles.sums} if self.dosages else {}),
                "holders": np.any(alleles.cells[:, :3], axis=1).astype(np.int64),
            }
        models, across = self._null_models(frame), np.ones((1 + unit.shape[1], len(unit)))
        across[1:] = ((unit - np.array(self.centre)) / np.array(self.scale)).T
        rows, alleles = np.zeros(0, dtype=np.int64), None
        if self.stage is not Stage.NULL:
            alleles, rows = self._alleles(cohort, frame, inside), self._rows(frame)
        blocks = self._offset.blocks(frame.panel)[rows]
        out = people | {name: np.zeros(f.shape, dtype=np.int64) for name, f in fields.items() if name != "people"}
        for number in range(len(models)):  # of all at once, people's log odds might need too much memory
            mine = blocks == number
            if self.stage is Stage.HITS and not mine.any():
                continue
            sample = Sample.of(across, cases, self._added(cohort, frame, number)[inside], models.coefficients[number])
            if self.stage is not Stage.HITS:
                for name, total in zip(NULL_FIELDS, sample.terms(self._bits), strict=True):
                    out[name][number] = total
            if alleles is not None and mine.any():
                for name, sums in self._variant_sums(alleles, frame, mine, inside, sample, fields).items():
                    out[name][mine] = sums
        return out

    def _variant_sums(
        self,
        alleles: Alleles,
        frame: Frame,
        mine: NDArray[np.bool_],
        inside: NDArray[np.bool_],
        sample: Sample,
        fields: Mapping[str, Field],
    ) -> Summary:
        """Sums about those of a slice's `_rows` that meet the sample's null model."""
        rows = self._rows(frame)[mine]
        if self.stage is Stage.SCORES:
            return score_tests.sums(alleles, rows, self._imputed(frame)[rows], inside, sample, fields["scores"])
        own = {name: f for name, f in fields.items() if name != "people"}
        return self._models()[self._here(frame)[mine]].sums(alleles, rows, inside, sample, own)

    def _added(self, cohort: Cohort, frame: Frame, number: int) -> Floats:
        """(N,) what the offset of one null model adds to people's log odds."""
        if not self._offset.columns:
            return np.zeros(len(cohort))
        name = self._offset.columns[number]
        return self._log_odds * frame.columns[name].clamp(cohort.columns[name])

    def _alleles(self, cohort: Cohort, frame: Frame, inside: NDArray[np.bool_]) -> Alleles:
        assert frame.panel is not None
        read = replace(cohort, genotypes=read_by_sex(cohort, frame.panel, self.sex))
        return Alleles.of(read, inside, self.dosages)

    # -- what follows ---------------------------------------------------------------------------------------------

    def withhold(self, sums: Summary, minimum_cell: int) -> Summary:
        if self.stage is not Stage.MOMENTS:  # what is left out was so before anything was multiplied by it
            return sums
        people, cases = sums["people"], sums["cases"]
        if any(small(number, minimum_cell) for number in (people, cases, people - cases)):
            return {name: np.full_like(array, WITHHELD) for name, array in sums.items()}
        # How many people are given the mean is not told, so that they may be few.
        dosages = sums["alleles"] if self.dosages else None
        few = seldom(sums["genotypes"], int(people), self.minimum_minor_alleles, minimum_cell, dosages)
        return replaced(sums, ("genotypes", "alleles") if self.dosages else ("genotypes",), few, WITHHELD)

    def conclude(self, total: Total, frame: Frame) -> Answer | LogisticAssociation:
        fields, sums = self.leaves(frame), self.withhold(total.sums, total.minimum_cell)
        if self.stage is Stage.MOMENTS:
            return self._started(sums, frame, len(total.sites))
        values = {name: fields[name].values(sums[name]) for name in fields}
        if self.stage is Stage.NULL:
            return self._fitted(values, frame)
        if self.stage is Stage.SCORES:
            following = self._scored(values, frame)
        else:
            following = self._settled(self._models().followed(values, self.search, self.scored))
        if following.hits.size and following.taken < self.rounds():
            return following
        return following._answer(frame, total.minimum_cell)

    def _started(self, sums: Summary, frame: Frame, sites: int) -> Answer | LogisticAssociation:
        assert frame.panel is not None
        nothing = np.full(len(frame.panel), SMALL)
        if sums["people"] == WITHHELD:
            return replace(self, means=nothing)._answer(frame, 0)
        people, cases, k = int(sums["people"]), int(sums["cases"]), len(self.covariates)
        if people < k + 3 or not 0 < cases < people:
            raise UsageError(
                "A binary trait needs cases and controls, and more people than the model has parameters.",
                f"{people} people have trait and covariates, {cases} of them are cases; {k + 2} parameters",
                "correct the trait's range, drop covariates, or ask sites that have the columns.",
            )
        means = centring(sums, sites).centre
        centre, scale = np.zeros(0), np.zeros(0)
        if k:
            centre = sums["sums"] * 2.0**-self.MOMENT_BITS / people
            scale = np.sqrt(np.maximum(sums["squares"] * 2.0**-self.MOMENT_BITS / people - centre**2, 0.0))
        constant = [name for name, s in zip(self.covariates, scale, strict=True) if not s > LEAST_DEVIATION]
        if constant:
            raise UsageError(
                "Covariates must vary over the sites together, relative to their range.",
                f"(nearly) constant: {', '.join(constant)}",
                "drop them or narrow their range.",
            )
        left_out = self._offset.of(frame.panel)
        null = np.tile(np.append(special.logit(cases / people), np.zeros(k)), (max(1, len(left_out)), 1))
        started = replace(
            self,
            people=people,
            cases=cases,
            means=means,
            unobserved=np.where(sums["genotypes"][:, 2] == WITHHELD, 0, sums["genotypes"][:, 2]),
            estimates=np.full((len(means), 6), np.nan),
        )
        if not (means > 0).any():
            return started._answer(frame, 0)
        return replace(
            started,
            taken=1,
            stage=Stage.NULL,
            centre=tuple(centre.tolist()),
            scale=tuple(scale.tolist()),
            left_out=left_out,
            null=tuple(null.ravel().tolist()),
            search=null_models.beginning(null),
        )

    def _fitted(self, values: Mapping[str, Floats], frame: Frame) -> LogisticAssociation:
        spread = self.cases * (1 - self.cases / self.people)
        if self.taken == 1 and null_models.dependent(values["information"], spread):
            raise UsageError(
                "Covariates must not explain one another.",
                f"{', '.join(self.covariates)} are linearly dependent",
                "drop what follows from the others.",
            )
        step = self._null_models(frame).step(self.search, values)
        if step.lost or (self.taken == self.iterations and not step.done):
            raise UsageError(
                "Covariates must not separate cases from controls.",
                f"{', '.join(self.covariates) or 'an intercept alone'}: no largest likelihood in {self.taken} rounds",
                "drop what is nearly the trait itself, merge rare levels, or ask sites with more cases.",
            )
        null = tuple(step.coefficients.ravel().tolist())
        following = replace(self, taken=self.taken + 1, null=null, search=step.search)
        return replace(following, stage=Stage.SCORES, imputed=self.means, search=_none()) if step.done else following

    def _scored(self, values: Mapping[str, Floats], frame: Frame) -> LogisticAssociation:
        assert frame.panel is not None
        on = np.flatnonzero(self.means > 0)
        blocks = self._offset.blocks(frame.panel)[on]
        tests = score_tests.Tests.of(values, symmetric(values["information"]), blocks)
        u, variance, z, p = tests.scores, tests.variance, tests.z, tests.p
        rows = self._corrected(np.stack([u / variance, 1 / np.sqrt(variance), z, p], axis=1))
        estimates = self.estimates.copy()
        estimates[on] = np.concatenate([rows, np.stack([np.zeros(len(on)), np.isfinite(z)], axis=1)], axis=1)
        following = replace(self, taken=self.taken + 1, estimates=estimates, imputed=_none())
        if self.test is SecondTest.SCORE:
            return following
        p = rows[:, 3]
        chosen = np.flatnonzero(p < self.second_stage)
        if self.test is SecondTest.SPA:
            chosen = chosen[np.abs(z[chosen]) >= LEAST_TILTED]
        chosen = np.sort(chosen[np.argsort(p[chosen], kind="stable")][: self.most_hits])
        u, v, blocks = u[chosen], variance[chosen], blocks[chosen]
        null, mean = self._null_models(frame).coefficients[blocks], self.means[on][chosen]
        models, search = Models.first(self.test, u, v, mean, null, tests.inverse[blocks], tests.out[chosen])
        hits, scored = on[chosen], np.stack([u, v], axis=1)
        return replace(following, stage=Stage.HITS, hits=hits, models=models.numbers, scored=scored, search=search)

    def _settled(self, step: Round) -> LogisticAssociation:
        """The round after, of hits that are neither done nor lost; whatever is left at the end has no estimate."""
        estimates = self.estimates.copy()
        estimates[self.hits] = np.array([np.nan, np.nan, np.nan, np.nan, 1.0, 0.0])
        done, on = step.done, ~step.done & ~step.lost
        estimates[self.hits[done], :4], estimates[self.hits[done], 5] = self._corrected(step.rows[done]), 1.0
        return replace(
            self,
            taken=self.taken + 1,
            estimates=estimates,
            hits=self.hits[on],
            models=step.models[on].numbers,
            scored=self.scored[on],
            search=step.search[on],
        )

    def _answer(self, frame: Frame, minimum_cell: int) -> Answer:
        """The table, with NaN in rows that are left out; in all of them where people, cases or controls are few."""
        assert frame.panel is not None
        inside, whole = self.means > 0, self.people > 0
        estimates = self.estimates if whole else np.full((len(inside), 6), np.nan)
        frequency = self.means / 2
        if whole:  # what a few people without a genotype do to it would tell their number
            coarse = small(self.unobserved, minimum_cell)
            frequency = np.where(coarse, np.rint(frequency * self.people) / self.people, frequency)
        second, converged = estimates[:, 4] == 1, estimates[:, 5] == 1
        test = np.where(inside & whole, np.where(second, self.test.value, SecondTest.SCORE.value), "")
        shown = dict(zip(("beta", "standard_error", "z", "p_value"), estimates.T, strict=False))
        table: dict[str, Column] = {
            **variant_columns(frame.panel),
            **shown,
            "effect_allele_frequency": np.where(inside, frequency, np.nan),
            "n": np.where(inside, float(self.people), np.nan),
            "cases": np.where(inside, float(self.cases), np.nan),
            "test": tuple(test.tolist()),
            "converged": converged,
            "imputed": inside & (self.unobserved > 0 if whole else False),
            "withheld": ~inside,
            "held_by_few": self.means == FEW,
        }
        facts: dict[str, float | int | str] = {
            "people": self.people if whole else math.nan,
            "cases": self.cases if whole else math.nan,
            "trait": self.trait,
            "covariates": ", ".join(self.covariates),
            "test": self.test.value,
            "variants": len(frame.panel),
            "tested_twice": int(second.sum()),
            "not_converged": int((inside & ~converged).sum()),
            **self._offset.facts(self.adjustments),
        }
        return Answer({self.trait: table}, facts, int((~inside).sum()))

"""Association of a binary trait with each variant: a score test of all, and a second test of those with a small p.

    log odds of being a case = X c + b g,   one model per variant, over the people with trait and covariates

1. *moments*  People, cases, the covariates' sums and squares, so that all sites standardise alike; genotype counts.
2. *null*     c under b = 0 by Newton's method, one round a step. With an offset there are several, see below.
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

With `dosages`, g lies between 0 and 2: the expected number of alternate alleles where files have imputed genotypes, the
genotype where they have that alone. Numbers of people go by the genotype that is nearest.

With `offset`, the log odds have s o added, where o is what all other chromosomes predict of the trait, taken as a
number, in its deviations, and s = 1 / sqrt(mu (1 - mu)) with mu = cases / people (why, says
`strategies/null_models.py`), so that related people may stay in [3, 5]. Each chromosome has its own null model, all
fitted in the same rounds, and a variant meets its chromosome's, in its score and as a hit. The prediction was fitted to
the very people whose log odds it is added to: it takes part of a variant's own effect too, and leaves residuals that
are short. So beta is divided by the `shrinkage` which the earlier answer states of the trait. The z that a test ends
with is multiplied by the root of its `calibration` [6], as t in `association`, and, since V is what log odds lead to
expect and not, as in t, what residuals are, divided by the root of their `dispersion`, sum (y - mu)^2 / sum w [7]. p
follows from that z, and hits are chosen by it. beta is of people with the same prediction: larger than of all together.

Left out and withheld: a variant whose pooled number of rarer alleles is below `minimum_minor_alleles`, whose number of
people with the rarer allele or of observed ones is below the minimum cell, or which fewer than three sites hold.
Nothing is asked about it. The whole answer is withheld where people, cases or controls are few.

An error: covariates that explain one another, or that separate cases from controls (no maximum in `iterations` rounds).
NaN and not `converged`: a variant that covariates explain; a second test without a maximum, that is, a log odds ratio
beyond 20, log odds too steep for nodes (`strategies.steepness`), singular information, or no end in the rounds. `firth`
has a maximum where `logistic` has none.

Sums over a variant's carriers are linear in their residuals, and an estimate tells about how many of them are cases: no
minimum hides that. Without an offset not for related people, nor for strong structure beyond the covariates.

[1] Cox, Hinkley: Theoretical Statistics (1974), section 9.3: score tests with nuisance parameters.
[2] Heinze, Schemper: A solution to the problem of separation in logistic regression, Statistics in Medicine 21 (2002).
[3] Mbatchou et al.: Computationally efficient whole-genome regression, Nature Genetics 53 (2021), online methods.
[4] Dey et al.: A fast and accurate algorithm to test for binary phenotypes, Am. J. Human Genetics 101 (2017).
[5] Chen et al.: Control for population structure and relatedness for binary traits, Am. J. Human Genetics 98 (2016).
[6] Svishcheva et al.: Rapid variance components-based method, Nature Genetics 44 (2012), equations 5 to 7.
[7] McCullagh, Nelder: Generalized Linear Models, 2nd edition (1989), sections 4.5 and 9.2: quasi-likelihood.
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

from strategies import moments, null_models, score_tests
from strategies.alleles import SMALLER, Alleles
from strategies.analyses.allele_frequency import variant_columns
from strategies.analysis import (
    CARRIED,
    DERIVED,
    KEPT,
    NAMES_CASES,
    NAMES_COLUMN,
    NAMES_OFFERING,
    NAMES_PANEL,
    VARIANTS_PER_SLICE,
    WHOLE,
    Answer,
    Frame,
    Needs,
    Span,
    Total,
    by_variants,
    check_within,
)
from strategies.cohort import Cohort
from strategies.covariates import Covariates
from strategies.errors import UsageError
from strategies.estimates import Estimates, corrected
from strategies.hits import Models, Round, SecondTest, symmetric
from strategies.likelihood import Sample
from strategies.moments import Moments
from strategies.null_models import NullModels
from strategies.offsets import Offset
from strategies.ploidy import check_sex, read_by_sex
from strategies.privacy import Regime
from strategies.products import SMALL, Centring
from strategies.protections.suppression import WITHHELD
from strategies.steepness import STEEPEST, steep
from strategies.summary import Field, Summary

NULL_FIELDS = ("score", "information", "likelihood")
"""The sums that a step of a null model needs."""

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
        adjustments, dispersions: (2, 1) shrinkage and calibration of an offset, and (C,) dispersions with it.
    """

    analysis: ClassVar[str] = "association_binary"
    regime: ClassVar[Regime] = Regime.EXACT
    by_site: ClassVar[bool] = False
    summary_in_words: ClassVar[str] = (
        "for each variant, the sums that a score test needs, and in each round those that a step of a logistic "
        "regression, of all people and of the variants with a small p value, needs, over the sites"
    )

    panel: str = field(metadata=NAMES_PANEL)
    trait: str = field(metadata=NAMES_CASES)
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
    dispersions: Floats = field(default_factory=_none, compare=False, metadata=KEPT)

    def __post_init__(self) -> None:
        if self.trait in self.covariates or len(set(self.covariates)) != len(self.covariates):
            raise ValueError("trait and covariates must be different columns.")
        if self.dosages and self.sex is not None:
            raise ValueError("Dosages are of people with two copies: leave `sex` out, and variants that need it.")
        check_within(
            self,
            ("second_stage", 0.0, 1.0),
            ("most_hits", 1, 4096),
            ("minimum_minor_alleles", 0, 10**9),
            ("iterations", 5, 100),
            ("taken", 0, self.rounds()),
            ("people", 0, 2**40),
        )
        if self.stage is not Stage.MOMENTS:
            self._check_models()

    def _check_models(self) -> None:
        k, n = len(self.covariates), np.array(self.null)
        self._standard.check(k)
        if len(n) != self._offset.number * (1 + k) or steep(n.reshape(-1, 1 + k), self._standard.scale).any():
            raise ValueError("A round has the coefficients of each model, and none that are too steep.")
        if not 0 < self.cases < self.people:
            raise ValueError("A round has cases and controls.")
        self._offset.check_left_out()
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

    @property
    def _standard(self) -> Covariates:
        return Covariates(np.array(self.centre), np.array(self.scale))

    def _null_models(self, frame: Frame) -> NullModels:
        coefficients = np.array(self.null).reshape(self._offset.number, -1)
        farthest = self._offset.farthest(frame) * self._log_odds
        return NullModels(coefficients, self._standard.ends, farthest, self._bits)

    # -- what leaves ----------------------------------------------------------------------------------------------

    def leaves(self, frame: Frame) -> dict[str, Field]:
        assert frame.panel is not None
        check_sex(frame.panel, self.panel, self.sex, frame.columns, males_alone=False)
        people = {"people": Field((), "people with trait and covariates", 1, 1)}
        if self.stage is Stage.MOMENTS:
            self._offset.check(frame)
            return people | moments.leaves(len(frame.panel), len(self.covariates), self.dosages)
        models, f = self._null_models(frame), self._bits
        if self.stage is Stage.NULL:
            return people | models.leaves()
        blocks = self._offset.blocks(frame.panel)[self._rows(frame)]
        if self.stage is Stage.HITS:
            here, null = self._models()[self._here(frame)], models.coefficients[blocks]
            if here.steep(null, self._standard.scale).any():
                raise ValueError("A round has no models of hits that are too steep.")
            return people | here.leaves(null, models.ends, models.farthest, f - 2)
        short = models.residuals() if self.offset else {}
        return {**people, **models.leaves(), **short, **score_tests.leaves(models.reach, models.ends, blocks, f)}

    def summarise(self, cohort: Cohort, frame: Frame) -> Summary:
        assert frame.panel is not None
        columns = np.stack([frame.columns[name].unit(cohort.columns[name]) for name in self._columns], axis=1)
        inside = cohort.having(self.needs().columns)
        fields, unit, cases = self.leaves(frame), columns[inside, :-1], columns[inside, -1] > 0
        people = {"people": np.array(len(unit), dtype=np.int64)}
        if self.stage is Stage.MOMENTS:
            return {**people, **moments.sums(unit, cases, self._alleles(cohort, frame, inside))}
        models, across = self._null_models(frame), self._standard.across(unit)
        out: dict[str, NDArray[np.int64]] = dict(people)

        def sample(number: int) -> Sample:  # one at a time: of all, people's log odds might need too much memory
            added = self._added(cohort, frame, number)[inside]
            return Sample.of(across, cases, added, models.coefficients[number])

        if self.stage is not Stage.HITS:
            squared = fields.get("residuals")
            terms = [sample(number).terms(self._bits, squared) for number in range(len(models))]
            out |= {name: np.stack([of[name] for of in terms]) for name in terms[0]}
        if self.stage is Stage.NULL:
            return out
        own = {name: f for name, f in fields.items() if name not in out}
        out |= {name: np.zeros(f.shape, dtype=np.int64) for name, f in own.items()}
        alleles, rows, hits = self._alleles(cohort, frame, inside), self._rows(frame), self._here(frame)
        blocks = self._offset.blocks(frame.panel)[rows]
        for number in np.unique(blocks):
            mine, model = np.flatnonzero(blocks == number), sample(number)
            sums: Summary
            if self.stage is Stage.SCORES:
                means = self._imputed(frame)[rows[mine]]
                sums = score_tests.sums(alleles, rows[mine], means, inside, model, own["scores"])
            else:
                sums = self._models()[hits[mine]].sums(alleles, rows[mine], inside, model, own)
            for name, values in sums.items():
                out[name][mine] = values
        return out

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
        return moments.withheld(sums, self.minimum_minor_alleles, minimum_cell)

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
            following = self._settled(self._models().followed(values, self.search, self.scored), frame)
        if following.hits.size and following.taken < self.rounds():
            return following
        return following._answer(frame, total.minimum_cell)

    def _started(self, sums: Summary, frame: Frame, sites: int) -> Answer | LogisticAssociation:
        assert frame.panel is not None
        begun = replace(
            self,
            means=np.full(len(frame.panel), SMALL),
            unobserved=np.zeros(len(frame.panel), dtype=np.int64),
            estimates=Estimates.none(len(frame.panel)).numbers,
        )
        if sums["people"] == WITHHELD:
            return begun._answer(frame, 0)
        found, left_out = Moments.of(sums, self.covariates, sites), self._offset.of(frame.panel)
        begun = replace(begun, people=found.people, cases=found.cases, means=found.means, unobserved=found.unobserved)
        if not (found.means > 0).any():
            return begun._answer(frame, 0)
        start = np.append(special.logit(found.cases / found.people), np.zeros(len(self.covariates)))
        null = np.tile(start, (max(1, len(left_out)), 1))
        return replace(
            begun,
            taken=1,
            stage=Stage.NULL,
            centre=tuple(found.standard.centre.tolist()),
            scale=tuple(found.standard.scale.tolist()),
            left_out=left_out,
            null=tuple(null.ravel().tolist()),
            search=null_models.beginning(null),
        )

    def _fitted(self, values: Mapping[str, Floats], frame: Frame) -> LogisticAssociation:
        if self.taken == 1:
            spread = self.cases * (1 - self.cases / self.people)
            null_models.check_independent(values["information"], spread, self.covariates)
        step = self._null_models(frame).step(self.search, values)
        if steep(step.coefficients, self._standard.scale).any() and not step.lost:
            raise UsageError(
                f"Log odds change by at most {STEEPEST:g} over half of the covariates' declared ranges.",
                f"{', '.join(self.covariates)}: more, after {self.taken} rounds",
                "declare narrower ranges, or drop what is nearly the trait itself.",
            )
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
        dispersions = null_models.dispersions(values) if self.offset else _none()
        following = replace(self, taken=self.taken + 1, dispersions=dispersions, imputed=_none())
        rows = following._corrected(np.stack([u / variance, 1 / np.sqrt(variance), z, p], axis=1), blocks)
        following = replace(following, estimates=Estimates(self.estimates).scored(on, rows).numbers)
        if self.test is SecondTest.SCORE:
            return following
        chosen = self.test.chosen(rows[:, 3], z, self.second_stage, self.most_hits)
        u, v, blocks = u[chosen], variance[chosen], blocks[chosen]
        null, mean = self._null_models(frame).coefficients[blocks], self.means[on][chosen]
        models, search = Models.first(self.test, u, v, mean, null, tests.inverse[blocks], tests.out[chosen])
        flat, hits, scored = ~models.steep(null, self._standard.scale), on[chosen], np.stack([u, v], axis=1)
        numbers, hits, scored, search = models.numbers[flat], hits[flat], scored[flat], search[flat]
        return replace(following, stage=Stage.HITS, hits=hits, models=numbers, scored=scored, search=search)

    def _settled(self, step: Round, frame: Frame) -> LogisticAssociation:
        """The round after, of hits that are neither done nor lost; whatever is left at the end has no estimate."""
        assert frame.panel is not None
        blocks = self._offset.blocks(frame.panel)[self.hits]
        null = self._null_models(frame).coefficients[blocks]
        on = ~step.done & ~step.lost & ~step.models.steep(null, self._standard.scale)
        rows = self._corrected(step.rows, blocks)
        estimates = Estimates(self.estimates).tested(self.hits, step.done, rows).numbers
        return replace(
            self,
            taken=self.taken + 1,
            estimates=estimates,
            hits=self.hits[on],
            models=step.models[on].numbers,
            scored=self.scored[on],
            search=step.search[on],
        )

    def _corrected(self, rows: Floats, blocks: NDArray[np.int64]) -> Floats:
        """(n, 4) beta, standard error, z and p, of variants with n null models, as an offset's numbers make them."""
        if not len(self.adjustments):
            return rows
        (shrinkage,), (calibration,) = self.adjustments
        return corrected(rows, shrinkage, calibration / self.dispersions[blocks])

    def _answer(self, frame: Frame, minimum_cell: int) -> Answer:
        """The table, with NaN in rows that are left out; in all of them where people, cases or controls are few."""
        assert frame.panel is not None
        known = Estimates(self.estimates)
        inside = self.means > 0
        table = known.table(self.test, self.means, self.unobserved, self.people, self.cases, minimum_cell)
        facts: dict[str, float | int | str] = {
            "people": self.people or math.nan,
            "cases": self.cases or math.nan,
            "trait": self.trait,
            "covariates": ", ".join(self.covariates),
            "test": self.test.value,
            "variants": len(frame.panel),
            "tested_twice": int(known.second.sum()),
            "not_converged": int((inside & ~known.converged).sum()),
            **self._offset.facts(self.adjustments),
            **{f"dispersion_chr{c}": float(d) for c, d in zip(self.left_out, self.dispersions, strict=False)},
        }
        return Answer({self.trait: {**variant_columns(frame.panel), **table}}, facts, int((~inside).sum()))

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

from strategies import likelihood, score_tests
from strategies.analyses.allele_frequency import variant_columns
from strategies.analysis import (
    CARRIED,
    DERIVED,
    KEPT,
    NAMES_COLUMN,
    NAMES_PANEL,
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
from strategies.hits import Models, Round, SecondTest, bounded, products, symmetric
from strategies.likelihood import Grid, Reach, Sample
from strategies.ploidy import check_sex, read_by_sex
from strategies.privacy import Regime
from strategies.products import FEW, SMALL, Centring, centring, seldom
from strategies.protections.suppression import WITHHELD, replaced, small
from strategies.summary import Field, Summary

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
        iterations: most rounds that the null model takes, and hits at least may take.
        sex: name of the column of sexes, which variants on X outside its pseudo-autosomal regions and on MT need. One
            copy counts as two, and a heterozygous genotype of it as missing, as in PLINK 2.
        taken: rounds taken so far.
        stage: what this round asks for.
        people: pooled number of people with trait and covariates.
        centre, scale: (K) pooled mean and deviation of the covariates after mapping each range to [-1, 1].
        null: (1 + K) coefficients of the null model, of the intercept and the standardised covariates.
        imputed: (M,) pooled mean number of alternate alleles, SMALL or FEW; for `scores`.
        hits: (H,) places of variants in the panel, ascending; for `hits`.
        models: (H, ...) what is asked about each: mean, coefficients or t, and what they are in terms of.
        cases: pooled number of cases.
        means, unobserved: (M,) as `imputed`, and the pooled number of people without a genotype.
        estimates: (M, 6) beta, standard error, z, p, whether it is the second test's, whether it converged.
        scored: (H, 2) U and V of the hits.
        search: (H, ...) or, of the null model, (1, ...) what the next step needs.
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
    sex: str | None = field(default=None, metadata=NAMES_COLUMN)
    taken: int = field(default=0, metadata=DERIVED)
    stage: Stage = field(default=Stage.MOMENTS, metadata=DERIVED)
    people: int = field(default=0, metadata=DERIVED)
    centre: tuple[float, ...] = field(default=(), metadata=DERIVED)
    scale: tuple[float, ...] = field(default=(), metadata=DERIVED)
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

    MOMENT_BITS: ClassVar[int] = 32

    def __post_init__(self) -> None:
        if self.trait in self.covariates or len(set(self.covariates)) != len(self.covariates):
            raise ValueError("trait and covariates must be different columns.")
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
        if not (len(c) == len(s) == k and len(n) == 1 + k and self.people):
            raise ValueError("A round has the mean, deviation and coefficient of each covariate.")
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
        columns = tuple(dict.fromkeys((*self._columns, *sex)))
        return Needs(columns=columns, panel=None if self.stage is Stage.NULL else self.panel)

    def rounds(self) -> int:
        return 2 + self.iterations * (1 + (self.test is not SecondTest.SCORE))

    def fraction(self) -> float:
        return 0.0

    def slices(self, frame: Frame) -> tuple[Span, ...]:
        assert frame.panel is not None
        if self.stage is Stage.HITS:  # whoever names places beyond the panel asks for a slice that is not there
            return (self.hits,) if self.hits.size and self.hits[-1] < len(frame.panel) else ()
        return WHOLE if self.stage is Stage.NULL else by_variants(frame)

    def _here(self, frame: Frame) -> NDArray[np.int64]:
        """(h,) numbers of the hits that lie in a slice."""
        assert frame.panel is not None
        if frame.places is not None:
            return np.flatnonzero(np.isin(self.hits, frame.places))
        return np.flatnonzero((self.hits >= frame.start) & (self.hits < frame.start + len(frame.panel)))

    def _imputed(self, frame: Frame) -> Floats:
        """(m,) means of a slice's variants."""
        assert frame.panel is not None
        here = self.imputed[frame.start : frame.start + len(frame.panel)]
        if len(here) != len(frame.panel):
            raise ValueError("A round of scores has a mean for each variant.")
        return here

    @property
    def _ends(self) -> Floats:
        """(2, 1 + K) lowest and highest values of the intercept and the standardised covariates."""
        centre, scale = np.array(self.centre), np.array(self.scale)
        return np.array([np.append(1.0, (-1 - centre) / scale), np.append(1.0, (1 - centre) / scale)])

    # -- what leaves ----------------------------------------------------------------------------------------------

    def leaves(self, frame: Frame) -> dict[str, Field]:
        assert frame.panel is not None
        check_sex(frame.panel, self.panel, self.sex, frame.columns, males_alone=False)
        people = {"people": Field((), "people with trait and covariates", 1, 1)}
        if self.stage is Stage.MOMENTS:
            k, m = len(self.covariates), len(frame.panel)
            sums, squares = "sums of covariates in units of half their range", "sums of squares of the same"
            # Values lie in [-1, 1]: each sum moves by at most 1.
            moments = {
                "sums": Field((k,), sums, k, k**0.5, self.MOMENT_BITS),
                "squares": Field((k,), squares, k, k**0.5, self.MOMENT_BITS),
            }
            words = "people with 1, 2 or no observed alternate alleles"
            return {
                **people,
                "cases": Field((), "cases", 1, 1),
                **(moments if k else {}),
                "genotypes": Field((m, 3), words, m, m**0.5, per_variant=True),
                "holders": Field((m,), "sites that hold the variant", m, m**0.5, per_variant=True, over="sites"),
            }
        if self.stage is Stage.HITS:
            return people | self._models()[self._here(frame)].leaves(np.array(self.null), self._ends, self._bits - 2)
        ends, f = self._ends, self._bits
        most, reach, grid = np.abs(ends).max(axis=0), Reach.of(np.array([self.null]), ends), Grid(f)
        r, w = float(reach.residual[0]), float(reach.weight[0])
        model = {
            **people,
            "score": bounded("residuals times covariates", r * most, f),
            "information": products("weighted products of covariates", reach.weight, most[None], grid),
            "likelihood": bounded("log likelihood beyond that of even odds", reach.most, grid.likelihood, shape=()),
        }
        if self.stage is Stage.NULL:
            return model
        m = int(np.count_nonzero(self._imputed(frame) > 0))
        return {
            **model,
            "scores": bounded("alternate alleles times residuals", np.full((m, 1), 2 * r), f, True, (m,)),
            "weighted": bounded("alternate alleles times weighted covariates", np.tile(2 * w * most, (m, 1)), f, True),
            "squares": bounded("weighted squared alternate alleles", np.full((m, 1), 4 * w), f, True, (m,)),
        }

    def summarise(self, cohort: Cohort, frame: Frame) -> Summary:
        assert frame.panel is not None
        columns = np.stack([frame.columns[name].unit(cohort.columns[name]) for name in self._columns], axis=1)
        inside = np.asarray(np.isfinite([cohort.columns[name] for name in self.needs().columns]).all(axis=0))
        fields, unit, cases = self.leaves(frame), columns[inside, :-1], columns[inside, -1] > 0
        people = np.array(len(unit), dtype=np.int64)
        if self.stage is Stage.MOMENTS:
            cells = read_by_sex(cohort, frame.panel, self.sex).counts(inside)
            moments = {"sums": unit, "squares": unit**2} if self.covariates else {}
            return {
                "people": people,
                "cases": np.array(np.count_nonzero(cases), dtype=np.int64),
                **{name: fields[name].integers(values).sum(axis=0) for name, values in moments.items()},
                "genotypes": cells[:, 1:],
                "holders": np.any(cells[:, :3], axis=1).astype(np.int64),
            }
        across = np.ones((1 + unit.shape[1], len(unit)))
        across[1:] = ((unit - np.array(self.centre)) / np.array(self.scale)).T
        sample = Sample.of(across, cases, np.array(self.null))
        if self.stage is Stage.HITS:
            here, genotypes = self._here(frame), read_by_sex(cohort, frame.panel, self.sex)
            rows = np.arange(len(here)) if frame.places is not None else self.hits[here] - frame.start
            own = {name: f for name, f in fields.items() if name != "people"}
            return {"people": people, **self._models()[here].sums(genotypes, rows, inside, sample, own)}
        score, information, gain = sample.terms(self._bits)
        sums: Summary = {"people": people, "score": score, "information": information, "likelihood": gain}
        if self.stage is Stage.NULL:
            return sums
        genotypes = read_by_sex(cohort, frame.panel, self.sex)
        return {**sums, **score_tests.sums(genotypes, self._imputed(frame), inside, sample, fields["scores"])}

    # -- what follows ---------------------------------------------------------------------------------------------

    def withhold(self, sums: Summary, minimum_cell: int) -> Summary:
        if self.stage is not Stage.MOMENTS:  # what is left out was so before anything was multiplied by it
            return sums
        people, cases = sums["people"], sums["cases"]
        if any(small(number, minimum_cell) for number in (people, cases, people - cases)):
            return {name: np.full_like(array, WITHHELD) for name, array in sums.items()}
        # How many people are given the mean is not told, so that they may be few.
        few = seldom(sums["genotypes"], int(people), self.minimum_minor_alleles, minimum_cell)
        return replaced(sums, ("genotypes",), few, WITHHELD)

    def conclude(self, total: Total, frame: Frame) -> Answer | LogisticAssociation:
        fields, sums = self.leaves(frame), self.withhold(total.sums, total.minimum_cell)
        if self.stage is Stage.MOMENTS:
            return self._started(sums, frame, len(total.sites))
        values = {name: fields[name].values(sums[name]) for name in fields}
        if self.stage is Stage.NULL:
            return self._fitted(values)
        if self.stage is Stage.SCORES:
            following = self._scored(values)
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
        null = np.append(special.logit(cases / people), np.zeros(k))
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
            null=tuple(null.tolist()),
            search=likelihood.beginning(null[None]),
        )

    def _fitted(self, values: Mapping[str, Floats]) -> LogisticAssociation:
        information = symmetric(values["information"][None])
        spread = self.cases * (1 - self.cases / self.people)
        if self.taken == 1 and np.linalg.eigvalsh(information[0])[0] < 1e-9 * spread:
            raise UsageError(
                "Covariates must not explain one another.",
                f"{', '.join(self.covariates)} are linearly dependent",
                "drop what follows from the others.",
            )
        at, value = np.array([self.null]), values["likelihood"][None]
        step = likelihood.newton(at, self.search, values["score"][None], information, value, at.shape[1])
        if step.lost[0] or (self.taken == self.iterations and not step.done[0]):
            raise UsageError(
                "Covariates must not separate cases from controls.",
                f"{', '.join(self.covariates) or 'an intercept alone'}: no largest likelihood in {self.taken} rounds",
                "drop what is nearly the trait itself, merge rare levels, or ask sites with more cases.",
            )
        following = replace(self, taken=self.taken + 1, null=tuple(step.following[0].tolist()), search=step.search)
        return replace(following, stage=Stage.SCORES, imputed=self.means, search=_none()) if step.done[0] else following

    def _scored(self, values: Mapping[str, Floats]) -> LogisticAssociation:
        on = np.flatnonzero(self.means > 0)
        tests = score_tests.Tests.of(values, symmetric(values["information"][None])[0])
        u, variance, z, p = tests.scores, tests.variance, tests.z, tests.p
        rows = [u / variance, 1 / np.sqrt(variance), z, p, np.zeros(len(on)), np.isfinite(z)]
        estimates = self.estimates.copy()
        estimates[on] = np.stack(rows, axis=1)
        following = replace(self, taken=self.taken + 1, estimates=estimates, imputed=_none())
        if self.test is SecondTest.SCORE:
            return following
        small_p = np.flatnonzero(p < self.second_stage)
        if self.test is SecondTest.SPA:
            small_p = small_p[np.abs(z[small_p]) >= LEAST_TILTED]
        small_p = np.sort(small_p[np.argsort(p[small_p], kind="stable")][: self.most_hits])
        u, v = u[small_p], variance[small_p]
        models, search = Models.first(
            self.test, u, v, self.means[on][small_p], np.array(self.null), tests.inverse, tests.out[small_p]
        )
        hits, scored = on[small_p], np.stack([u, v], axis=1)
        return replace(following, stage=Stage.HITS, hits=hits, models=models.numbers, scored=scored, search=search)

    def _settled(self, step: Round) -> LogisticAssociation:
        """The round after, of hits that are neither done nor lost; whatever is left at the end has no estimate."""
        estimates = self.estimates.copy()
        estimates[self.hits] = np.array([np.nan, np.nan, np.nan, np.nan, 1.0, 0.0])
        done, on = step.done, ~step.done & ~step.lost
        estimates[self.hits[done], :4], estimates[self.hits[done], 5] = step.rows[done], 1.0
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
        }
        return Answer({self.trait: table}, facts, int((~inside).sum()))

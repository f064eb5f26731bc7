"""Phenome-wide association: each variant of a short panel with many phenotypes, each of its own people; exact.

Without covariates, in one round: a phenotype of two categories is tested by the Cochran-Armitage trend over copies, the
score test of a logistic regression, and its odds ratio is that of carriers. One of numbers is regressed on the copies.

With covariates, which all people of the answer have:

1. *counts*  Genotypes by category, covariates' sums and squares, so that all sites standardise alike.
2. *fits*    Numbers by least squares on copies and covariates, in one round. Two categories by the whole logistic
             regression of every pair, by Newton's method, one round a step, all pairs that are not at their maximum yet
             in each; Wald test, and the odds ratio of one copy [2]. With `firth` by Firth's penalised likelihood [3].

Who lacks a phenotype, or a genotype, is a cell of it, and keeps their place in the others. A pair of variant and
phenotype with a small cell is withheld, as is one of a variant that fewer than three sites hold; with covariates it is
never fitted. What else has no estimate says why in `problem`.

All pairs are fitted in full, rather than tested by the score of one null model for each phenotype: that needs a missing
genotype to count as something, and has no odds ratio. Measured with 20,000 people at a site and ten covariates: 5,000
pairs take 7 seconds of a processor and 3.6 MB a round and five rounds; the most there may be, ten times that. What a
node is asked about log odds is bounded by the declared ranges of covariates: see `strategies.phenome`.

[1] Benjamini, Hochberg: Controlling the false discovery rate, JRSS B 57 (1995).
[2] McCullagh, Nelder: Generalized Linear Models, 2nd edition (1989), section 4.4.
[3] Heinze, Schemper: A solution to the problem of separation in logistic regression, Statistics in Medicine 21 (2002).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from strategies import phenome
from strategies.alleles import Alleles
from strategies.analyses.allele_frequency import NORMAL_95
from strategies.analysis import (
    CARRIED,
    DERIVED,
    KEPT,
    NAMES_COLUMN,
    NAMES_PANEL,
    Answer,
    Column,
    Frame,
    Needs,
    Total,
    by_variants,
)
from strategies.cohort import Cohort
from strategies.covariates import Covariates
from strategies.errors import UsageError
from strategies.groups import group_places
from strategies.hits import Models, SecondTest
from strategies.phenome import MOMENT_BITS, Pairs
from strategies.ploidy import copies, counts_by_group
from strategies.privacy import Regime
from strategies.protections.suppression import WITHHELD, held_by_few, replaced, small
from strategies.summary import Field, Summary

MOST_VARIANTS, MOST_PHENOTYPES = 100, 500
MOST_COVARIATES = 50
MOST_STEPS = 30
MOST_SUMS = 4_000_000
"""Of products of covariates, copies and phenotype in a round: each pair has (K + 2) (K + 3) / 2 beside K covariates."""

LEVEL = 3e-6
"""Steps of a penalised search that are shorter than this are the last: leverages are of rounded information, and where
few weights are not small no search ends more exactly."""

NAMED, MOST_NAMED, LETTERS_IN_A_ROW = 20, 5, 60
"""In the figure: phenotypes whose names stand below it, pairs that are named in it, letters that fit below it."""

Floats = NDArray[np.float64]

FINE, FEW, ALONE, FEWER, EXPLAINED, SEPARATED, STEEP, ENDLESS = range(8)
PROBLEMS = (
    "none",
    "withheld: few people in a cell, or few sites",
    "one genotype, one category or one value alone",
    "fewer people than coefficients, or as many",
    "covariates explain the variant or one another",
    "categories are separated: the likelihood has no maximum",
    "odds that change more over the declared range of a covariate than sites are asked about: declare a narrower one",
    f"no maximum within {MOST_STEPS} steps, as where covariates separate categories",
)
"""Why a pair has no estimate."""

ESTIMATES = (
    "people", "cases", "odds_ratio", "odds_ratio_low", "odds_ratio_high", "beta", "standard_error", "p_value",
)  # fmt: skip
"""Of a pair. With covariates beta is, of two categories, the logarithm of the odds ratio; without, there is none."""


@dataclass(frozen=True)
class PheWAS:
    """A few variants with all phenotypes.

    Attributes:
        panel: name of a panel of at most 100 variants, of which everybody has two copies.
        phenotypes: names of 1 to 500 columns, of two categories or of numbers.
        covariates: names of further columns, at most 50; an intercept is always there.
        firth: whether logistic regressions beside covariates have Firth's penalty, for rare phenotypes.
        taken: rounds taken so far.
        people: pooled number of people with all covariates.
        centre, scale: (K) pooled mean and deviation of the covariates after mapping each range to [-1, 1].
        pairs: (H,) those that this round fits, ascending: number of the variant times phenotypes, plus the phenotype's.
        models: (H', ...) of those with two categories, what is asked about each.
        counted: (M P, 3) of all pairs the people who are fitted, with 0, 1 and 2 copies.
        found: (M P, 8) of all pairs `ESTIMATES`, as far as known.
        problems: (M P,) of all pairs the place in `PROBLEMS`.
        search: (H', ...) what the next step needs.
    """

    analysis: ClassVar[str] = "phewas"
    regime: ClassVar[Regime] = Regime.EXACT
    summary_in_words: ClassVar[str] = (
        "for each variant and phenotype, numbers of people with each genotype by category and without the phenotype, "
        "and of numbers the sums and sums of squares by genotype; beside covariates their sums and squares, and in "
        "each round the sums that a regression of each pair needs"
    )

    panel: str = field(metadata=NAMES_PANEL)
    phenotypes: tuple[str, ...] = field(metadata=NAMES_COLUMN)
    covariates: tuple[str, ...] = field(default=(), metadata=NAMES_COLUMN)
    firth: bool = False
    taken: int = field(default=0, metadata=DERIVED)
    people: int = field(default=0, metadata=DERIVED)
    centre: tuple[float, ...] = field(default=(), metadata=DERIVED)
    scale: tuple[float, ...] = field(default=(), metadata=DERIVED)
    pairs: NDArray[np.int64] = field(
        default_factory=lambda: np.zeros(0, dtype=np.int64), compare=False, metadata=CARRIED
    )
    models: Floats = field(default_factory=lambda: np.zeros((0, 0)), compare=False, metadata=CARRIED)
    counted: NDArray[np.int64] = field(
        default_factory=lambda: np.zeros((0, 3), dtype=np.int64), compare=False, metadata=KEPT
    )
    found: Floats = field(default_factory=lambda: np.zeros((0, 0)), compare=False, metadata=KEPT)
    problems: NDArray[np.int64] = field(
        default_factory=lambda: np.zeros(0, dtype=np.int64), compare=False, metadata=KEPT
    )
    search: Floats = field(default_factory=lambda: np.zeros((0, 0)), compare=False, metadata=KEPT)

    def __post_init__(self) -> None:
        if not 1 <= len(self.phenotypes) <= MOST_PHENOTYPES or len(set(self.phenotypes)) < len(self.phenotypes):
            raise ValueError(f"phenotypes are 1 to {MOST_PHENOTYPES} different columns.")
        names = (*self.phenotypes, *self.covariates)
        if len(self.covariates) > MOST_COVARIATES or len(set(names)) < len(names):
            raise ValueError(f"covariates are at most {MOST_COVARIATES} different columns, and no phenotypes.")
        if self.firth and not self.covariates:
            raise ValueError("firth is of regressions beside covariates: name some, or leave firth out.")
        if not 0 <= self.taken <= self.rounds() or not 0 <= self.people < 2**40:
            raise ValueError("A round has a number of rounds and of people.")
        if self.taken:
            self._check_pairs()

    def _check_pairs(self) -> None:
        self._standard.check(len(self.covariates))
        h = self.pairs
        if not self.covariates or not self.people:
            raise ValueError("A round that fits has people and covariates.")
        if h.size and (h.dtype != np.int64 or h.ndim != 1 or h[0] < 0 or (np.diff(h) <= 0).any()):
            raise ValueError("Pairs are different ones, ascending.")
        if phenome.steep(self._models(), self._standard).any():
            raise ValueError("A round has no models that are too steep.")

    @property
    def by_site(self) -> bool:
        """What takes one round can be answered for each site."""
        return not self.covariates

    @property
    def _standard(self) -> Covariates:
        return Covariates(np.array(self.centre), np.array(self.scale))

    @property
    def _test(self) -> SecondTest:
        return SecondTest.FIRTH if self.firth else SecondTest.LOGISTIC

    def _models(self) -> Models:
        k = 1 + len(self.covariates)
        return Models.of(self._test, self.models if self.models.size else np.zeros((0, sum(self._test.sizes(k)))), k)

    def needs(self) -> Needs:
        return Needs(columns=self.covariates, panel=self.panel, optional=self.phenotypes)

    def rounds(self) -> int:
        return 1 + MOST_STEPS * bool(self.covariates)

    def fraction(self) -> float:
        return 0.0

    def slices(self, frame: Frame) -> tuple[slice, ...]:
        assert frame.panel is not None
        last = len(frame.panel) * len(self.phenotypes)  # whoever names pairs beyond asks for what is not there
        there = not self.taken or (self.pairs.size and self.pairs[-1] < last)
        return by_variants(frame) if there else ()

    def _kinds(self, frame: Frame) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Phenotypes of two categories, and of numbers."""
        binary = tuple(name for name in self.phenotypes if frame.columns[name].categories)
        return binary, tuple(name for name in self.phenotypes if name not in binary)

    def _asked(self, frame: Frame) -> tuple[Pairs, Pairs, Models]:
        """The pairs of a slice: those of numbers, those of two categories, and the models of these.

        Raises:
            ValueError: if there is not a model for each of these.
        """
        assert frame.panel is not None
        variants, phenotypes = np.divmod(self.pairs, len(self.phenotypes))
        binary = np.isin(np.array(self.phenotypes)[phenotypes], self._kinds(frame)[0])
        here = (variants >= frame.start) & (variants < frame.start + len(frame.panel))
        models = self._models()
        if len(models) != np.count_nonzero(binary):
            raise ValueError("A pair of two categories has a model.")
        numbers, classes = (
            Pairs(variants[one] - frame.start, phenotypes[one], self._standard, self.people)
            for one in (here & ~binary, here & binary)
        )
        return numbers, classes, models[here[binary]]

    # -- what leaves --------------------------------------------------------------------------------------------------

    def leaves(self, frame: Frame) -> dict[str, Field]:
        assert frame.panel is not None
        m, (binary, numbers) = len(frame.panel), self._kinds(frame)
        if m > MOST_VARIANTS or copies(frame.panel).any():
            raise UsageError(
                f"All phenotypes are asked of at most {MOST_VARIANTS} variants of which everybody carries two copies.",
                f"panel {self.panel!r:.60} of {m}",
                "name a shorter panel, without X outside its pseudo-autosomal regions, Y and MT.",
            )
        k, pairs = len(self.covariates), m * len(self.phenotypes)
        each = (k + 2) * (k + 3) // 2
        if k and pairs * each > MOST_SUMS:
            raise UsageError(
                f"Pairs of variant and phenotype beside covariates need at most {MOST_SUMS:,} sums a round.",
                f"{m} variants by {len(self.phenotypes)} phenotypes beside {k} covariates: {each:,} of each pair",
                f"ask about {MOST_SUMS // each:,} pairs at once, or drop covariates.",
            )
        people = {"people": Field((), "people with all covariates" if self.covariates else "people", 1, 1)}
        if self.taken:
            of_numbers, of_classes, models = self._asked(frame)
            out = of_numbers.leaves_of_numbers() if self.taken == 1 else {}
            return out | phenome.leaves_of_classes(models, of_classes) | people
        b, n = m * len(binary), m * len(numbers)
        words = "people with 0, 1, 2 or no observed alternate alleles"
        out = {
            "binary": Field(
                (m, len(binary), 4, 3), f"{words}, by category and without one", b, b**0.5, per_variant=True
            ),
            "numbers": Field(
                (m, len(numbers), 4, 2), f"{words}, with and without a value", n, n**0.5, per_variant=True
            ),
            "holders": Field((m,), "sites that hold the variant", m, m**0.5, per_variant=True, over="sites"),
        }
        if not self.covariates:
            out["moments"] = Field(
                (m, len(numbers), 3, 2),
                "sums of values and of their squares by genotype, in units of half the range",
                2 * n,
                (2 * n) ** 0.5,
                MOMENT_BITS,
                per_variant=True,
            )
        return out | Covariates.leaves(len(self.covariates)) | people

    def summarise(self, cohort: Cohort, frame: Frame) -> Summary:
        assert cohort.genotypes is not None
        (binary, numbers), fields, inside = self._kinds(frame), self.leaves(frame), cohort.having(self.covariates)
        people = {"people": np.array(np.count_nonzero(inside), dtype=np.int64)}
        unit = np.zeros((len(cohort), len(self.covariates)))
        for i, name in enumerate(self.covariates):
            unit[:, i] = frame.columns[name].unit(cohort.columns[name])
        if self.taken:
            return {**people, **self._fitted_at(cohort, frame, unit, inside)}
        out = {
            name: np.zeros(f.shape, dtype=np.int64) for name, f in fields.items() if name not in ("people", "holders")
        }
        for i, name in enumerate(binary):
            place = group_places(cohort.columns[name], range(2))
            group = np.where(inside, np.where(place < 0, 2, place), -1)
            out["binary"][:, i] = counts_by_group(cohort.genotypes, group, 3).transpose(0, 2, 1)
        for i, name in enumerate(numbers):
            missing = np.isnan(cohort.columns[name])
            group = np.where(inside, missing.astype(np.int64), -1)
            out["numbers"][:, i] = counts_by_group(cohort.genotypes, group, 2).transpose(0, 2, 1)
        if "moments" in fields:
            codes = cohort.genotypes.codes() if numbers else np.zeros((len(cohort.genotypes), 0), dtype=np.uint8)
            for i, name in enumerate(numbers):
                missing = np.isnan(cohort.columns[name])
                values = np.nan_to_num(frame.columns[name].unit(cohort.columns[name]))
                own = fields["moments"].integers(np.stack([values, values**2], axis=1))
                for copy in range(3):
                    for j, row in enumerate(codes):
                        out["moments"][j, i, copy] = own[(row == copy) & ~missing].sum(axis=0)
        observed = cohort.genotypes.counts(inside)[:, :3].any(axis=1)
        out["holders"] = np.where(observed, 1, 0).astype(np.int64)
        return {**out, **Covariates.sums(unit[inside]), **people}

    def _fitted_at(self, cohort: Cohort, frame: Frame, unit: Floats, inside: NDArray[np.bool_]) -> Summary:
        """What a site sums about the pairs that are fitted."""
        of_numbers, of_classes, models = self._asked(frame)

        def values(number: int) -> Floats:
            name = self.phenotypes[number]
            column, span = cohort.columns[name], frame.columns[name]
            return column if span.categories else span.unit(column)

        alleles = Alleles.of(cohort, inside, False)
        out = of_classes.sums_of_classes(models, alleles, values, unit, inside)
        return out | (of_numbers.sums_of_numbers(alleles, values, unit, inside) if self.taken == 1 else {})

    # -- what follows -------------------------------------------------------------------------------------------------

    def withhold(self, sums: Summary, minimum_cell: int) -> Summary:
        if self.taken:  # what is withheld was never fitted
            return sums
        if small(sums["people"], minimum_cell):
            return {name: np.full_like(array, WITHHELD) for name, array in sums.items()}
        out = dict(sums)
        for kind in ("binary", "numbers"):
            few = (small(sums[kind], minimum_cell) | (sums[kind] == WITHHELD)).any(axis=(2, 3))
            more = ("moments",) if kind == "numbers" and "moments" in sums else ()
            out |= replaced(out, (kind, *more), few, WITHHELD)
        return out

    def conclude(self, total: Total, frame: Frame) -> Answer | PheWAS:
        assert frame.panel is not None
        sums = self.withhold(total.sums, total.minimum_cell)
        if self.taken:
            return self._stepped(sums, frame)
        few = np.repeat(held_by_few(sums["holders"], len(total.sites)), len(self.phenotypes))
        cells = self._cells(sums, frame)
        hidden = few | (cells == WITHHELD).any(axis=(1, 2))
        problems = np.where(hidden, FEW, FINE)
        cells[hidden] = 0
        if not self.covariates:
            found = self._in_closed_form(cells, hidden, sums, frame)
            problems[~hidden & np.isnan(found[:, -1])] = ALONE
            return replace(self, found=found, problems=problems)._answer(sums["people"], frame)
        classes = self._binary(frame)
        counted = np.where(classes[:, None], cells[:, :3, :2].sum(axis=2), cells[:, :3, 0])
        people, cases = counted.sum(axis=1), cells[:, :3, 1].sum(axis=1)
        alone = (np.count_nonzero(counted, axis=1) < 2) | (classes & ((cases == 0) | (cases == people)))
        problems[~hidden & alone] = ALONE
        problems[(problems == FINE) & (people <= len(self.covariates) + 2)] = FEWER
        found = np.full((len(cells), len(ESTIMATES)), np.nan)
        found[:, 0], found[:, 1] = people, np.where(classes, cases, np.nan)
        found[hidden] = np.nan
        begun = replace(self, counted=counted, found=found, problems=problems)
        pairs = np.flatnonzero(problems == FINE)
        if not pairs.size:
            return begun._answer(sums["people"], frame)
        values = {name: f.values(sums[name]) for name, f in Covariates.leaves(len(self.covariates)).items()}
        everybody = int(sums["people"])
        standard, two = Covariates.of(self.covariates, values, everybody), pairs[classes[pairs]]
        models, search = phenome.started(
            self._test, people[two], cases[two], counted[two] @ np.arange(3), len(self.covariates)
        )
        return replace(
            begun,
            taken=1,
            people=everybody,
            centre=tuple(standard.centre.tolist()),
            scale=tuple(standard.scale.tolist()),
            pairs=pairs,
            models=models.numbers,
            search=search,
        )

    def _binary(self, frame: Frame) -> NDArray[np.bool_]:
        """(M P,) whether the phenotype of each pair has two categories."""
        one = np.array([bool(frame.columns[name].categories) for name in self.phenotypes])
        return np.tile(one, len(frame.panel or ()))

    def _cells(self, sums: Summary, frame: Frame) -> NDArray[np.int64]:
        """(M P, 4, 3) of each pair the people by genotype and category, or with a value, without one, and nobody."""
        m, names, (binary, numbers) = len(frame.panel or ()), self.phenotypes, self._kinds(frame)
        out = np.zeros((m, len(names), 4, 3), dtype=np.int64)
        out[:, [names.index(name) for name in binary]] = sums["binary"]
        out[:, [names.index(name) for name in numbers], :, :2] = sums["numbers"]
        return out.reshape(-1, 4, 3)

    def _in_closed_form(
        self, cells: NDArray[np.int64], hidden: NDArray[np.bool_], sums: Summary, frame: Frame
    ) -> Floats:
        """(M P, 8) what follows without covariates."""
        out, (_, numbers) = np.full((len(cells), len(ESTIMATES)), np.nan), self._kinds(frame)
        for at in np.flatnonzero(~hidden).tolist():
            variant, phenotype = divmod(at, len(self.phenotypes))
            name = self.phenotypes[phenotype]
            if name in numbers:
                out[at] = phenome.regressed_alone(
                    cells[at], sums["moments"][variant, numbers.index(name)], frame.columns[name]
                )
            else:
                out[at] = phenome.trended(cells[at])
        return out

    def _stepped(self, sums: Summary, frame: Frame) -> Answer | PheWAS:
        """The next round, of the pairs that are neither done nor without a maximum, or the answer."""
        fields, classes, models = self.leaves(frame), self._binary(frame)[self.pairs], self._models()
        found, problems, two = self.found.copy(), self.problems.copy(), self.pairs[classes]
        if self.taken == 1:
            at = self.pairs[~classes]
            spans = [frame.columns[self.phenotypes[number]] for number in at % len(self.phenotypes)]
            half = np.array([(span.maximum - span.minimum) / 2 for span in spans]).reshape(-1, 1)
            products, scores = (fields[name].values(sums[name]) for name in ("products", "scores"))
            rows = phenome.regressed(products, scores, self.counted[at])
            found[at, 5:] = rows * np.concatenate([half, half, np.ones_like(half)], axis=1)
            problems[at[np.isnan(rows[:, 0])]] = EXPLAINED
            problems[at[np.isfinite(rows[:, 0]) & np.isnan(rows[:, 2])]] = ALONE
        step = phenome.followed(models, fields, sums, self.search)
        done = step.done
        if self.firth:  # in its first round the penalty is not there yet
            short = np.abs(step.models.sought - models.sought).max(axis=1, initial=0.0) < LEVEL
            done = (done | (short & ~step.lost)) & (self.taken > 1)
        beta, error, _, p = step.rows[done].T
        ends = beta[:, None] + NORMAL_95 * np.array([0.0, -1.0, 1.0]) * error[:, None]
        with np.errstate(over="ignore"):
            found[two[done], 2:] = np.concatenate([np.exp(ends), np.stack([beta, error, p], axis=1)], axis=1)
        problems[two[step.lost & ~done]] = EXPLAINED if self.taken == 1 else SEPARATED
        steep = phenome.steep(step.models, self._standard) & ~done & ~step.lost
        problems[two[steep]] = STEEP
        on = ~done & ~step.lost & ~steep
        known = replace(self, found=found, problems=problems)
        if on.any() and self.taken + 1 < self.rounds():
            following = step.models[on].numbers
            return replace(known, taken=self.taken + 1, pairs=two[on], models=following, search=step.search[on])
        problems[two[on]] = ENDLESS
        return known._answer(sums["people"], frame)

    def _answer(self, people: NDArray[np.int64], frame: Frame) -> Answer:
        assert frame.panel is not None
        names = [variant.identifier for variant in frame.panel.variants]
        p, withheld = self.found[:, -1], self.problems == FEW
        tests = int(np.isfinite(p).sum())
        table: dict[str, Column] = {
            "variant": tuple(name for name in names for _ in self.phenotypes),
            "phenotype": self.phenotypes * len(names),
            **dict(zip(ESTIMATES, self.found.T, strict=True)),
            "withheld": withheld,
            "problem": tuple(PROBLEMS[number] for number in self.problems),
            "p_bonferroni": np.minimum(p * max(tests, 1), 1.0),
            "q_value": false_discovery(p),
        }
        facts: dict[str, float | int | str] = {
            "people": math.nan if people == WITHHELD else int(people),
            "phenotypes": len(self.phenotypes),
            "covariates": ", ".join(self.covariates),
            "odds_ratio_of": "one copy" if self.covariates else "carriers",
            "tests": tests,
            "without_estimate": int((self.problems > FEW).sum()),
        }
        return Answer({"phenome": table}, facts, int(np.count_nonzero(withheld)))


def false_discovery(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Benjamini and Hochberg's q values [1] of the p values that there are.

    >>> false_discovery(np.array([0.01, np.nan, 0.02, 0.5])).round(4).tolist()
    [0.03, nan, 0.03, 0.5]
    """
    out, there = np.full(len(p), np.nan), np.flatnonzero(np.isfinite(p))
    order = there[np.argsort(p[there], kind="stable")]
    q = p[order] * len(order) / np.arange(1, len(order) + 1)
    out[order] = np.minimum(np.minimum.accumulate(q[::-1])[::-1], 1.0)
    return out


def draw_phenome(answer: Answer, axes: Any) -> str:
    """Draw -log10 p of all pairs, each phenotype's variants side by side, and name the best pairs; returns the figure
    in words."""
    table = answer.tables["phenome"]
    p = np.asarray(table["p_value"], dtype=np.float64)
    height, phenotypes = -np.log10(np.maximum(p, 1e-300)), list(dict.fromkeys(table["phenotype"]))
    variants = len(p) // len(phenotypes)
    variant, phenotype = np.divmod(np.arange(len(p)), len(phenotypes))
    place = phenotype + 0.6 * ((variant + 0.5) / max(variants, 1) - 0.5)
    axes.plot(place, height, "o", color="C0", markersize=4)
    tests, few = int(np.isfinite(p).sum()), len(phenotypes) <= NAMED
    if tests:
        axes.axhline(-math.log10(0.05 / tests), color="C2", linewidth=1, linestyle=(0, (3, 2)))
        order, named = np.argsort(np.where(np.isfinite(p), p, 2.0), kind="stable")[:tests], set[int]()
        for i in order.tolist():
            if phenotype[i] in named or len(named) == MOST_NAMED:
                continue  # of each phenotype its best, so that names do not lie on one another
            named.add(int(phenotype[i]))
            text, left = table["variant" if few else "phenotype"][i], place[i] > 0.75 * len(phenotypes) - 0.5
            axes.annotate(f"{text:.24}", (place[i], height[i]), (-4 if left else 4, 3), textcoords="offset points",
                          ha="right" if left else "left", fontsize=9)  # fmt: skip
    axes.set_xlim(-0.6, len(phenotypes) - 0.4)
    if few:
        turned = 90 if sum(map(len, phenotypes)) > LETTERS_IN_A_ROW else 0
        axes.set_xticks(np.arange(len(phenotypes)), [f"{name:.16}" for name in phenotypes], rotation=turned)
    else:
        axes.set_xticks([])
        axes.set_xlabel("phenotype, in the study's order")
    axes.set_ylabel("−log₁₀ p")
    level = -math.log10(0.05 / max(tests, 1))
    axes.set_ylim(0, 1.1 * max(float(np.nanmax(height, initial=0.0)), level))
    if not tests:
        return "P values of phenotypes: there are none, or they are withheld."
    best = int(np.nanargmin(p))
    name = f"{table['phenotype'][best]} with {table['variant'][best]}"
    return f"P values of {tests} pairs of variant and phenotype; the smallest is that of {name}, {p[best]:.2g}."

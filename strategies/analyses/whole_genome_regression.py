"""Whole-genome regression: what all other chromosomes say of a trait, as an offset for its association.

With G~ the genotypes of a thinned panel, centred and scaled by pooled frequencies, missing ones at the centre, X the
covariates with an intercept and y~ the trait without what X explains, the weights for chromosome c are a ridge
regression on the other chromosomes [1, step 1; 2, equation 5]:

    (A_c + lambda I) w = G~_c y~,     A_c = G~_c (I - X (X'X)^-1 X') G~_c'     (variants by variants)

by conjugate gradients. The sites sum G~ (G~' V) for the coordinator's vectors V; a person's score G~' V stays with her
site. That X is projected out costs no round: with X'X = N I, A = G~ G~' - (G~ X)(G~ X)' / N.

lambda follows from the heritability that maximises the restricted likelihood, on a grid of 0.01. Its log determinant
comes from the same Krylov spaces, by quadrature over random vectors of the coordinator [3]. People are not cut into
folds: sums over a fifth of a variant's carriers would tell more of each of them than a sum over all.

Each node computes `<trait>_chr<c>` = sum_j w_j (g_j - 2 f_j) / s_j of its own people, in deviations of the trait. That
genotypes here still hold what X explains changes nothing where the later regression has X among its covariates: both
forms differ by X (X'X)^-1 X' G~' w, which lies in the span of X, and taking that from the trait leaves a regression on
X and g with the same slope, residuals and t for g.

An offset of this kind makes the association's residuals shorter and, for related people, less alike. It also takes
part of a variant's own effect: `shrinkage_<trait>` is the mean part that is left, and `calibration_<trait>` the factor
by which the squared t falls short of the mixed model's [4, equations 5 to 7]. So without them the test is conservative,
the more so the more of the people are close relatives: the corrected slope is beta / shrinkage, its error that of the
regression / (shrinkage sqrt(calibration)). `association` takes off a variant's own column and corrects with both where
its `offset` names this question; its panel may be another one, so long as each of its chromosomes is named here.

People lacking a trait or covariate are left out of all. Rare variants stay out, as `strategies/products.py` says, and
so does what lies on a chromosome that is not named: X, Y and MT are no autosomes.

[1] Mbatchou et al.: Computationally efficient whole-genome regression, Nature Genetics 53 (2021).
[2] Loh et al.: Efficient Bayesian mixed-model analysis, Nature Genetics 47 (2015), supplementary note, section 1.
[3] Ubaru, Chen, Saad: Fast estimation of tr(f(A)) via stochastic Lanczos quadrature, SIAM J. Matrix Anal. (2017).
[4] Svishcheva et al.: Rapid variance components-based method, Nature Genetics 44 (2012).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from strategies.analyses.allele_frequency import variant_columns
from strategies.analysis import (
    CARRIED,
    DERIVED,
    KEPT,
    NAMES_COLUMN,
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
)
from strategies.cohort import Cohort
from strategies.conjugate_gradients import ConjugateGradients
from strategies.design import check_varying
from strategies.errors import UsageError
from strategies.privacy import Regime
from strategies.products import (
    FEW,
    SMALL,
    Centring,
    centring,
    counted,
    counts_leave,
    grid,
    held,
    products_leave,
    rare,
)
from strategies.projection import Projection
from strategies.protections.suppression import WITHHELD, replaced, small
from strategies.summary import Field, Summary

AUTOSOMES = tuple(str(c) for c in range(1, 23))

MOMENT_BITS = 32
"""Of products of columns in units of half their range."""

PROBES = 10
"""Random vectors for a log determinant: they add a twentieth to the heritability's own standard error."""

HERITABILITIES = np.arange(1, 100) / 100

LEAST_LEFT = 1e-9
"""Part of a column's variance that others leave over; below this they explain it."""

QUADRATURE = 1e-3
"""Relative residual at which the heritability is chosen; quadratic forms are then exact to about its square."""

LEAST_DIRECTION = 1e-10
"""Relative length of what a basis leaves out."""

MOST_TURN = 2.0**20
"""Of an entry of `turn`: a forged one is refused."""

EXHAUSTED = 1e-8
"""Relative residual at which rounding of the products ends a Krylov space."""


@dataclass(frozen=True)
class WholeGenomeRegression:
    """Weights of all other chromosomes' variants, for each trait and chromosome.

    Attributes:
        panel: name of the study's panel; 10,000 to 500,000 variants that are not in strong linkage disequilibrium.
        traits: names of P quantitative columns.
        covariates: names of further columns; an intercept is always there.
        chromosomes: the C chromosomes whose variants take part, each of which is left out in turn.
        iterations: most rounds of products, for the heritability and again for the weights.
        tolerance: residual of a ridge regression, relative to its right-hand side, at which it is solved.
        minimum_minor_alleles: least pooled number of minor alleles of a variant that takes part.
        taken: rounds taken so far.
        people: pooled number of people with all traits and covariates.
        centre: (M,) pooled mean number of alternate alleles; SMALL or FEW where left out.
        turn: (K + P, K + P) what makes (X, y~) of (1, covariates, traits), with X'X = N I.
        block: (M, L) orthonormal vectors, zero where left out: a basis of the directions of `solver`.
        squares: (P,) y~'y~.
        deviations: (P,) pooled standard deviations, in the traits' own units.
        crossed, right: (M, K) G~ X / sqrt(N), with K the number of covariates and the intercept, and (M, P) G~ y~.
        lengths: (C',) squared scores of the random vector of each chromosome that has variants.
        solver: ridge regressions under way.
        heritabilities, shrinkages: (P,) once they are known.
    """

    analysis: ClassVar[str] = "whole_genome_regression"
    regime: ClassVar[Regime] = Regime.EXACT
    by_site: ClassVar[bool] = False
    summary_in_words: ClassVar[str] = (
        "genotype counts of each variant and products of traits and covariates; for each variant, the sums of genotype "
        "times trait and covariate; then, in each round, those of genotype times a score that the coordinator's "
        "vectors give each person"
    )

    panel: str = field(metadata=NAMES_PANEL)
    traits: tuple[str, ...] = field(metadata=NAMES_COLUMN)
    covariates: tuple[str, ...] = field(default=(), metadata=NAMES_COLUMN)
    chromosomes: tuple[str, ...] = AUTOSOMES
    iterations: int = 20
    tolerance: float = 1e-4
    minimum_minor_alleles: int = 20
    taken: int = field(default=0, metadata=DERIVED)
    people: int = field(default=0, metadata=DERIVED)
    centre: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0), compare=False, metadata=CARRIED)
    turn: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 0)), compare=False, metadata=CARRIED)
    block: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 0)), compare=False, metadata=CARRIED)
    squares: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0), compare=False, metadata=KEPT)
    deviations: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0), compare=False, metadata=KEPT)
    crossed: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 0)), compare=False, metadata=KEPT)
    right: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 0)), compare=False, metadata=KEPT)
    lengths: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0), compare=False, metadata=KEPT)
    solver: ConjugateGradients | None = field(default=None, compare=False, metadata=KEPT)
    heritabilities: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0), compare=False, metadata=KEPT)
    shrinkages: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0), compare=False, metadata=KEPT)

    def __post_init__(self) -> None:
        for name, low, high in (
            ("iterations", 1, 50),
            ("tolerance", 1e-7, 0.1),
            ("minimum_minor_alleles", 0, 10**9),
            ("taken", 0, self.rounds() - 1),
            ("people", 0, 2**62),
        ):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} must be from {low} to {high}.")
        if not 0 < len(self.traits) <= 20 or len(set(self._columns)) != len(self._columns):
            raise ValueError("1 to 20 traits, and covariates, must be different columns.")
        names = self.chromosomes
        if not 0 < len(names) <= 100 or len(set(names)) != len(names) or not all(0 < len(c) <= 40 for c in names):
            raise ValueError("chromosomes must be 1 to 100 different names.")
        if not len(self.centre):
            return
        Centring(self.centre).check()
        v = self.block
        if v.ndim != 2 or len(v) != len(self.centre) or not 0 < v.shape[1] <= self._widest or v[~self._inside].any():
            raise ValueError("A block has a few vectors, zero where a variant is left out.")
        if np.abs(v.T @ v - np.eye(v.shape[1])).max() > 1e-6:
            raise ValueError("A block's vectors are orthonormal.")
        if self.turn.shape != (self._width, self._width) or not (np.abs(self.turn) <= MOST_TURN).all():
            raise ValueError("A turn of the columns is a square of bounded numbers.")

    @property
    def _columns(self) -> tuple[str, ...]:
        return (*self.covariates, *self.traits)

    @property
    def _width(self) -> int:
        """K + P: intercept, covariates and traits."""
        return 1 + len(self._columns)

    @property
    def _widest(self) -> int:
        return max(len(self.traits) + PROBES + len(self.chromosomes), len(self.traits) * len(self.chromosomes))

    @property
    def _products(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Index pairs (i <= j) of the products of (1, covariates, traits) but for the first, which counts people."""
        rows, columns = np.triu_indices(self._width)
        return rows[1:].astype(np.int64), columns[1:].astype(np.int64)

    @property
    def _centring(self) -> Centring:
        return Centring(self.centre)

    @property
    def _inside(self) -> NDArray[np.bool_]:
        return np.asarray(self._centring.inside)

    @property
    def offers(self) -> Mapping[str, Range]:
        return {f"{trait}_chr{name}": PROJECTED for trait in self.traits for name in self.chromosomes}

    def needs(self) -> Needs:
        return Needs(columns=self._columns, panel=self.panel, walked=self.taken > 0)

    def rounds(self) -> int:
        return 2 + 2 * self.iterations

    def fraction(self) -> float:
        return 0.0

    def slices(self, frame: Frame) -> tuple[slice, ...]:
        return WHOLE if self.taken else by_variants(frame)

    def leaves(self, frame: Frame) -> dict[str, Field]:
        assert frame.panel is not None
        m = len(frame.panel)
        if not self.taken:
            q = len(self._products[0])  # products of values in [-1, 1]
            moments = Field((q,), "products of columns in units of half their range", q, q**0.5, MOMENT_BITS)
            return {**counts_leave(m), "moments": moments}
        if len(self.centre) != m:
            raise ValueError("A block has a row for each variant.")
        most, width = self._centring.most, self.block.shape[1]
        score = self._centring.longest_scores(self.block) + width**0.5 * 2.0**-self._score_bits
        out = {
            "products": products_leave("genotype times score, both centred", most, score, width, self._score_bits),
            "people": Field((), "people", 1, 1),
        }
        if self.taken == 1:
            turned = self._turned_most
            size = float(np.linalg.norm(turned)) + len(turned) ** 0.5 * 2.0**-self._column_bits
            words = "centred genotype times covariate and trait"
            out["columns"] = products_leave(words, most, size, len(turned), self._column_bits)
        return out

    @property
    def _score_bits(self) -> int:
        return grid(max(float(self._centring.furthest(self.block).max()), 1.0))

    @property
    def _turned_most(self) -> NDArray[np.float64]:
        """(K + P,) the largest absolute value of (X, y~) that values within their ranges give."""
        out: NDArray[np.float64] = np.abs(self.turn).sum(axis=0)
        return out

    @property
    def _column_bits(self) -> int:
        return grid(float(self._turned_most.max()))

    def summarise(self, cohort: Cohort, frame: Frame) -> Summary:
        unit = np.stack([frame.columns[name].unit(cohort.columns[name]) for name in self._columns], axis=1)
        complete = np.asarray(np.isfinite(unit).all(axis=1))
        w = np.concatenate([np.ones((len(unit), 1)), np.where(complete[:, None], unit, 0.0)], axis=1)
        if not self.taken:
            assert cohort.genotypes is not None
            people, (i, j) = np.flatnonzero(complete), self._products
            genotypes = cohort.genotypes if complete.all() else cohort.genotypes.take(people)
            moments = self.leaves(frame)["moments"].integers(w[people][:, i] * w[people][:, j]).sum(axis=0)
            return {**counted(genotypes), "moments": moments}
        vectors = self._centring.scores(cohort.walked, self.block, self._score_bits)
        if self.taken == 1:
            turned = np.zeros_like(w)
            for column, row in zip(w.T, self.turn, strict=True):  # in one order, whatever the number of people
                turned += column[:, None] * row
            vectors = np.hstack([vectors, held(turned, self._column_bits)])
        products = self._centring.products(cohort.walked, vectors * complete[:, None])
        out: Summary = {"products": products, "people": np.array(np.count_nonzero(complete), dtype=np.int64)}
        if self.taken > 1:
            return out
        of_block, columns = np.hsplit(products, [self.block.shape[1]])
        return {**out, "products": of_block, "columns": columns}

    def withhold(self, sums: Summary, minimum_cell: int) -> Summary:
        if self.taken:  # what is left out was so before anything was multiplied by it
            names = ("products", "columns") if self.taken == 1 else ("products",)
            return replaced(sums, names, ~self._inside, WITHHELD)
        if small(sums["people"], minimum_cell):
            return {name: np.full_like(array, WITHHELD) for name, array in sums.items()}
        few = rare(sums["genotypes"], int(sums["people"]), self.minimum_minor_alleles, minimum_cell)
        return replaced(sums, ("genotypes",), few, WITHHELD)

    def conclude(self, total: Total, frame: Frame) -> Answer | WholeGenomeRegression:
        assert frame.panel is not None
        sums = self.withhold(total.sums, total.minimum_cell)
        if not self.taken:
            if sums["people"] == WITHHELD:
                return self._answer(frame, np.full(len(frame.panel), SMALL), math.nan)
            return self._started(frame, sums, len(total.sites))
        fields, scaling = self.leaves(frame), np.where(self._inside, 1 / self._centring.scale, 0.0)[:, None]
        values = {n: fields[n].values(np.where(scaling > 0, sums[n], 0)) * scaling for n in fields if n != "people"}
        groups = self._groups(frame, self.centre)
        if self.solver is None:
            return self._prepared(values["columns"], values["products"], groups)
        images = values["products"] - self.crossed @ (self.crossed.T @ self.block)
        images = images @ (self.block.T @ self.solver.block)
        solver = self.solver.advanced(images * self._allowed(groups)[:, self.solver.going])
        if len(self.heritabilities):
            return self._continued(solver, frame)
        chosen = self._likeliest(solver)
        ridges = self._ridges(chosen)
        quadratic = [n for n in range(len(solver.shift)) if not 0 <= n - len(self.traits) < PROBES]
        far = max(float(solver.relative_at(n, ridges).max()) for n in quadratic)
        if far > QUADRATURE and len(solver.alpha) < self.iterations and len(solver.going):
            return replace(self, taken=self.taken + 1, block=_basis(solver.block), solver=solver)
        known = replace(self, heritabilities=chosen, shrinkages=self._shrinkages(solver, ridges))
        right = np.repeat(self.right, len(self.chromosomes), axis=1) * known._allowed(groups)
        shifts = np.repeat(ridges, len(self.chromosomes))
        return known._continued(ConjugateGradients.start(right, shifts, self.tolerance), frame)

    # -- at the coordinator ----------------------------------------------------------------------------------------

    def _groups(self, frame: Frame, centre: NDArray[np.float64]) -> NDArray[np.int64]:
        """(M,) the number of each variant's chromosome among those named; -1 where left out."""
        assert frame.panel is not None
        numbers = {name: c for c, name in enumerate(self.chromosomes)}
        out = np.array([numbers.get(v.chromosome, -1) for v in frame.panel.variants], dtype=np.int64)
        out[centre <= 0] = -1
        return out

    def _allowed(self, groups: NDArray[np.int64]) -> NDArray[np.bool_]:
        """(M, n) which variants each regression is on."""
        if len(self.heritabilities):
            return np.tile(groups[:, None] != np.arange(len(self.chromosomes))[None, :], len(self.traits))
        every = np.ones((len(groups), len(self.traits) + PROBES), dtype=bool)
        return np.hstack([every, np.not_equal.outer(groups, np.unique(groups[groups >= 0]))])

    def _started(self, frame: Frame, sums: Summary, sites: int) -> Answer | WholeGenomeRegression:
        """The second round: centres, the columns' turn, and a random vector on each chromosome."""
        people = int(sums["people"])
        if people < self._width + 2:
            raise UsageError(
                "A regression needs more people than it has parameters.",
                f"{people} people have traits and covariates, {self._width} parameters",
                "drop covariates or ask sites that have the columns.",
            )
        centre = centring(sums, sites).centre
        groups = self._groups(frame, centre)
        centre = np.where((centre > 0) & (groups < 0), SMALL, centre)
        if not (centre > 0).any():
            return self._answer(frame, centre, people)
        moments, (i, j) = np.ones((self._width, self._width)), self._products
        moments[i, j] = moments[j, i] = sums["moments"] * 2.0**-MOMENT_BITS / people
        turn, squares, deviations = self._turned(moments)
        spans = [frame.columns[name] for name in self.traits]
        each = np.equal.outer(groups, np.unique(groups[groups >= 0])) * _signs(len(groups), 1, "chromosomes")
        return replace(
            self,
            taken=1,
            people=people,
            centre=centre,
            turn=turn,
            block=each / np.linalg.norm(each, axis=0),
            squares=squares * people,
            deviations=deviations * np.array([(span.maximum - span.minimum) / 2 for span in spans]),
        )

    def _turned(
        self, moments: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """What makes (X, y~) of the columns, mean squares of y~, and the traits' deviations, from the mean products."""
        k, mean = self._width - len(self.traits), moments[0, 1:]
        variance = np.diagonal(moments)[1:] - mean**2
        check_varying(self._columns, variance)
        deviation = np.sqrt(variance)
        related = (moments[1:, 1:] - np.outer(mean, mean)) / np.outer(deviation, deviation)
        slopes = np.linalg.lstsq(moments[:k, :k], moments[:k, k:], rcond=None)[0]
        left = np.diagonal(moments[k:, k:] - moments[k:, :k] @ slopes) / variance[k - 1 :]
        if not min(np.linalg.eigvalsh(related[: k - 1, : k - 1]).min(initial=1.0), left.min()) > LEAST_LEFT:
            raise UsageError(
                "Covariates must not explain one another or a trait.",
                f"{', '.join(self._columns)} are linearly dependent",
                "drop what follows from the others.",
            )
        turn = np.zeros_like(moments)
        turn[:k, :k] = np.linalg.inv(np.linalg.cholesky(moments[:k, :k])).T
        turn[:k, k:] = -slopes / deviation[k - 1 :]
        turn[k:, k:] = np.diag(1 / deviation[k - 1 :])
        return turn, left, deviation[k - 1 :]

    def _prepared(
        self, columns: NDArray[np.float64], products: NDArray[np.float64], groups: NDArray[np.int64]
    ) -> WholeGenomeRegression:
        """The third round: Krylov spaces of the traits, of random vectors, and of what a chromosome shares with the
        others."""
        k = self._width - len(self.traits)
        crossed, right = columns[:, :k] / self.people**0.5, columns[:, k:]
        images = products - crossed @ (crossed.T @ self.block)
        begun = replace(self, taken=2, crossed=crossed, right=right, lengths=(self.block * images).sum(axis=0))
        probes = np.where(self._inside[:, None], _signs(len(groups), PROBES, "log determinant"), 0.0)
        start = np.hstack([right, probes, images]) * begun._allowed(groups)
        ridge = self._ridges(HERITABILITIES[-1:])[0]
        solver = ConjugateGradients.start(start, np.full(start.shape[1], ridge), EXHAUSTED)
        return replace(begun, block=_basis(solver.block), solver=solver)

    def _ridges(self, heritabilities: NDArray[np.float64]) -> NDArray[np.float64]:
        """The lambda of each: variance left over, relative to that of one variant's effect."""
        out: NDArray[np.float64] = np.count_nonzero(self._inside) * (1 - heritabilities) / heritabilities
        return out

    def _likeliest(self, solver: ConjugateGradients) -> NDArray[np.float64]:
        """(P,) the heritability of each trait at which the restricted likelihood is largest."""
        ridges, traits, m = self._ridges(HERITABILITIES), len(self.traits), np.count_nonzero(self._inside)
        free = self.people - (self._width - traits)
        spread = np.zeros(len(ridges))
        for number in range(traits, traits + PROBES):
            nodes, weights = solver.quadrature(number)
            spread += np.log(nodes[:, None] + ridges).T @ weights / PROBES
        out = []
        for t, squares in enumerate(self.squares):
            nodes, weights = solver.quadrature(t)
            fit = squares - (weights[:, None] / (nodes[:, None] + ridges)).sum(axis=0)
            likelihood = -free * np.log(np.maximum(fit, 1e-300) / ridges) - spread - (free - m) * np.log(ridges)
            out.append(HERITABILITIES[int(np.argmax(likelihood))])
        return np.array(out)

    def _shrinkages(self, solver: ConjugateGradients, ridges: NDArray[np.float64]) -> NDArray[np.float64]:
        """(P,) the mean of lambda g' V^-1 g / g'g over random sums g of one chromosome's variants, V on the others."""
        taken = np.zeros(len(ridges))
        for number in range(len(self.traits) + PROBES, len(solver.shift)):
            nodes, weights = solver.quadrature(number)
            taken += (weights[:, None] / (nodes[:, None] + ridges)).sum(axis=0)
        return np.asarray(1 - taken / max(float(self.lengths.sum()), 1e-300))

    def _continued(self, solver: ConjugateGradients, frame: Frame) -> Answer | WholeGenomeRegression:
        """The next round of the weights, or the answer."""
        if len(solver.going) and len(solver.alpha) < self.iterations:
            return replace(self, taken=self.taken + 1, block=_basis(solver.block), solver=solver)
        return self._answer(frame, self.centre, self.people, solver)

    def _calibrations(self, solver: ConjugateGradients) -> NDArray[np.float64]:
        """(P,) the mixed model's squared t relative to the offset's: r'r / (y'r shrinkage), r the trait less offset."""
        count = len(self.chromosomes)
        w, right = solver.solution, np.repeat(self.right, count, axis=1)
        fit = (w * right).sum(axis=0)
        within = np.repeat(self.squares, count) - fit
        length = within - fit + (w * (right - solver.residual)).sum(axis=0) - solver.shift * (w * w).sum(axis=0)
        each = length.reshape(-1, count).sum(axis=1) / within.reshape(-1, count).sum(axis=1)
        return np.asarray(each / self.shrinkages)

    def _answer(
        self,
        frame: Frame,
        centre: NDArray[np.float64],
        people: float,
        solver: ConjugateGradients | None = None,
    ) -> Answer:
        """The weights of an alternate allele in the trait's deviations; NaN in rows that are left out."""
        assert frame.panel is not None
        inside, scale = centre > 0, Centring(centre).scale
        table: dict[str, Column] = {
            **variant_columns(frame.panel),
            "frequency": np.where(inside, centre / 2, np.nan),
        }
        for number, name in enumerate(self.offers):
            weights = np.full(len(centre), np.nan) if solver is None else solver.solution[:, number] / scale
            table[name] = np.where(inside, weights, np.nan)
        facts: dict[str, float | int | str] = {
            "people": people,
            "traits": ", ".join(self.traits),
            "covariates": ", ".join(self.covariates),
            "variants": len(centre),
            "variants_used": int(inside.sum()),
            "residual": 0.0 if solver is None else float(solver.relative.max()),
        }
        nothing = np.full(len(self.traits), np.nan)
        for what, values in (
            ("deviation", nothing if solver is None else self.deviations),
            ("heritability", nothing if solver is None else self.heritabilities),
            ("shrinkage", nothing if solver is None else self.shrinkages),
            ("calibration", nothing if solver is None else self._calibrations(solver)),
        ):
            facts |= {f"{what}_{trait}": float(v) for trait, v in zip(self.traits, values, strict=True)}
        table |= {"withheld": ~inside, "held_by_few": centre == FEW}
        return Answer({"weights": table}, facts, int((~inside).sum()))

    def projection(self, answer: Answer, frame: Frame) -> Projection:
        """The offsets; 0 for everybody where there are no weights."""
        table = answer.tables["weights"]
        frequency = np.asarray(table["frequency"], dtype=np.float64)
        weights = np.stack([np.asarray(table[name], dtype=np.float64) for name in self.offers], axis=1)
        return Projection(
            tuple(self.offers), np.nan_to_num(weights), 2 * np.nan_to_num(frequency), np.zeros(len(self.offers))
        )


def _basis(directions: NDArray[np.float64]) -> NDArray[np.float64]:
    """An orthonormal basis of vectors that may be next to dependent; zero where all of them are."""
    left, size, _ = np.linalg.svd(directions, full_matrices=False)
    there = np.asarray(directions.any(axis=1))
    return np.where(there[:, None], left[:, size > LEAST_DIRECTION * size[0]], 0.0)


def _signs(variants: int, vectors: int, purpose: str) -> NDArray[np.float64]:
    """(M, L) public random signs, the same everywhere."""
    stream = hashlib.shake_256(f"genosum signs v1 {purpose} {variants} {vectors}".encode()).digest(variants * vectors)
    return np.asarray(1.0 - 2.0 * (np.frombuffer(stream, dtype=np.uint8).reshape(variants, vectors) & 1))

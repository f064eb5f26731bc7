"""Principal components of the genotypes of all people together: loadings leave, nobody's scores do.

With G~ the genotypes, centred and scaled by pooled frequencies, missing ones at the centre, the loadings are the
leading eigenvectors of A = G~ G~' (variants by variants) [1]. Each round the coordinator sends a block V of vectors,
and the sites sum G~ (G~' V): what a site computes for its people, G~' V, stays there. The blocks span a Krylov space,
in which the eigenvectors are found by Rayleigh and Ritz [2, section 4]; all blocks are kept, so few rounds are enough.

Each node can compute its own people's scores from the answer: later questions name them `question.pc1` and so on.

A variant's row of the sums is linear in its carriers' scores, so rare variants must stay out: a variant takes part only
if its pooled number of minor alleles, of people with the minor allele and of missing genotypes is large enough, and
three sites hold it. Thin the panel for linkage disequilibrium first, or leading components describe single regions.

[1] Patterson, Price, Reich: Population structure and eigenanalysis, PLoS Genetics 2 (2006), equations 1 to 3.
[2] Musco, Musco: Randomized block Krylov methods, NeurIPS (2015), algorithm 2.
"""

from __future__ import annotations

import hashlib
import math
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
    WHOLE,
    Answer,
    Column,
    Frame,
    Needs,
    Total,
    by_variants,
)
from strategies.cohort import Cohort, Genotypes
from strategies.kernels.threads import side_by_side
from strategies.privacy import Regime
from strategies.projection import Projection
from strategies.protections.suppression import WITHHELD, held_by_few, replaced, small
from strategies.summary import Field, Summary

ALLELE_BITS, MOST_BITS = 14, 27
"""Genotypes are centred in units of 2^-14 alleles; vectors and scores are integers below 2^27. A product of a tile of
1,024 stays below 2^53, where float64 is exact in whatever order a library adds."""

TILE = 512
"""Variants, and people, of a tile: 2 MB, and a constant in code."""

OVERSAMPLED = 10
"""Vectors in a block beyond the components that are wanted."""

CONVERGED = 1e-4
"""Largest residual of a wanted eigenvector, relative to its eigenvalue, at which no further round is asked."""

SMALL, FEW = -1.0, -2.0
"""In the place of a centre: left out because of small numbers, or because fewer than three sites hold the variant."""


@dataclass(frozen=True)
class PrincipalComponents:
    """The leading principal components, as a loading for each variant.

    Attributes:
        panel: name of the study's panel.
        components: K.
        iterations: most rounds of products.
        minimum_minor_alleles: least pooled number of minor alleles of a variant that takes part.
        taken: rounds taken so far.
        people: pooled number of people.
        centre: (M,) pooled mean number of alternate alleles; SMALL or FEW where left out.
        block: (M, L) orthonormal vectors, zero where left out.
        basis, images: (M, L r) blocks of earlier rounds, and A times those.
    """

    analysis: ClassVar[str] = "pca"
    regime: ClassVar[Regime] = Regime.EXACT
    by_site: ClassVar[bool] = False
    summary_in_words: ClassVar[str] = (
        "genotype counts of each variant; then, in each round, for each variant the sum over people of genotype times "
        "a score that the coordinator's vectors give each person"
    )

    panel: str = field(metadata=NAMES_PANEL)
    components: int = 10
    iterations: int = 12
    minimum_minor_alleles: int = 20
    taken: int = field(default=0, metadata=DERIVED)
    people: int = field(default=0, metadata=DERIVED)
    centre: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0), compare=False, metadata=CARRIED)
    block: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 0)), compare=False, metadata=CARRIED)
    basis: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 0)), compare=False, metadata=KEPT)
    images: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 0)), compare=False, metadata=KEPT)

    def __post_init__(self) -> None:
        for name, low, high in (
            ("components", 1, 50),
            ("iterations", 1, 50),
            ("minimum_minor_alleles", 0, 10**9),
            ("taken", 0, self.iterations),
        ):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} must be from {low} to {high}.")
        if not len(self.centre):
            return
        c, v = self.centre, self.block
        inside = (c > 0) & (c < 2)
        if not (inside | (c == SMALL) | (c == FEW)).all():
            raise ValueError("A centre lies between 0 and 2.")
        if v.ndim != 2 or len(v) != len(c) or not 0 < v.shape[1] <= self._width or v[~inside].any():
            raise ValueError("A block has a few vectors, zero where a variant is left out.")
        if np.abs(v.T @ v - np.eye(v.shape[1])).max() > 1e-6:
            raise ValueError("A block's vectors are orthonormal.")

    @property
    def _width(self) -> int:
        return self.components + OVERSAMPLED

    @property
    def offers(self) -> tuple[str, ...]:
        return tuple(f"pc{k}" for k in range(1, self.components + 1))

    def needs(self) -> Needs:
        return Needs(panel=self.panel)

    def rounds(self) -> int:
        return 1 + self.iterations

    def fraction(self) -> float:
        return 0.0

    def slices(self, frame: Frame) -> tuple[slice, ...]:
        return WHOLE if self.taken else by_variants(frame)

    def leaves(self, frame: Frame) -> dict[str, Field]:
        assert frame.panel is not None
        m = len(frame.panel)
        if not self.taken:
            return {
                "genotypes": Field(
                    (m, 3), "people with 1, 2 or no observed alternate alleles", m, m**0.5, per_variant=True
                ),
                "holders": Field((m,), "sites that hold the variant", m, m**0.5, per_variant=True, over="sites"),
                "people": Field((), "people", 1, 1),
            }
        if len(self.centre) != m:
            raise ValueError("A block has a row for each variant.")
        width, most = self.block.shape[1], self._most
        # |sum_l| of a person's scores: V is orthonormal, so they are no longer than her scaled genotypes.
        score = self._longest + width**0.5 * 2.0**-self._score_bits
        l2 = float(np.sqrt((most**2).sum())) * score
        return {
            "products": Field(
                (m, width),
                "genotype times score, both centred",
                float(most.sum()) * width**0.5 * score,
                l2,
                ALLELE_BITS + self._score_bits,
            ),
            "people": Field((), "people", 1, 1),
        }

    @property
    def _inside(self) -> NDArray[np.bool_]:
        return self.centre > 0

    @property
    def _scale(self) -> NDArray[np.float64]:
        """(M,) standard deviation of a genotype under Hardy-Weinberg; 1 where left out."""
        c = np.where(self._inside, self.centre, 1.0)
        return np.where(self._inside, np.sqrt(c * (1 - c / 2)), 1.0)

    @property
    def _most(self) -> NDArray[np.float64]:
        """(M,) largest distance of a genotype from its centre on the grid; 0 where left out."""
        most: NDArray[np.float64] = np.abs(_levels(self.centre)).max(axis=1) * 2.0**-ALLELE_BITS
        return most

    @property
    def _longest(self) -> float:
        """Length of the longest scaled genotypes that a person can have."""
        return float(np.sqrt(((self._most / self._scale) ** 2).sum()))

    @property
    def _score_bits(self) -> int:
        """Fraction bits of a score: none reaches 2^27 on the grid."""
        return MOST_BITS - 1 - math.ceil(math.log2(max(self._longest, 1.0)))

    def summarise(self, cohort: Cohort, frame: Frame) -> Summary:
        assert cohort.genotypes is not None
        if not self.taken:
            cells = cohort.genotypes.counts()
            return {
                "genotypes": cells[:, 1:],
                "holders": np.any(cells[:, :3], axis=1).astype(np.int64),
                "people": np.array(len(cohort), dtype=np.int64),
            }
        vectors = self.block / self._scale[:, None]
        bits = MOST_BITS - 1 - math.ceil(math.log2(max(float(np.abs(vectors).max()), 2.0**-30)))
        levels = _levels(self.centre)
        sums = _scores(cohort.genotypes, levels, np.rint(vectors * 2.0**bits))
        limit = 2.0**MOST_BITS - 1
        scores = np.clip(np.rint(sums * 2.0 ** (self._score_bits - bits - ALLELE_BITS)), -limit, limit)
        people = np.array(len(cohort), dtype=np.int64)
        return {"products": _products(cohort.genotypes, levels, scores), "people": people}

    def withhold(self, sums: Summary, minimum_cell: int) -> Summary:
        if self.taken:  # what is left out was so before anything was multiplied by it
            return replaced(sums, ("products",), ~self._inside, WITHHELD)
        if small(sums["people"], minimum_cell):
            return {name: np.full_like(array, WITHHELD) for name, array in sums.items()}
        het, alt, missing = sums["genotypes"].T
        observed = sums["people"] - missing
        alleles = het + 2 * alt
        carriers = np.minimum(het + alt, observed - alt)
        rare = np.minimum(alleles, 2 * observed - alleles) < max(1, self.minimum_minor_alleles)
        few = rare | small(missing, minimum_cell) | (carriers < minimum_cell) | (observed < minimum_cell)
        return replaced(sums, ("genotypes",), few, WITHHELD)

    def conclude(self, total: Total, frame: Frame) -> Answer | PrincipalComponents:
        assert frame.panel is not None
        sums = self.withhold(total.sums, total.minimum_cell)
        if not self.taken:
            if sums["people"] == WITHHELD:
                nothing = np.full(len(frame.panel), SMALL)
                return self._answer(frame, nothing, np.zeros(0), np.zeros((len(nothing), 0)), math.nan, 0.0)
            return self._started(frame, sums, len(total.sites))
        products = self.leaves(frame)["products"].values(np.where(self._inside[:, None], sums["products"], 0))
        image = products / self._scale[:, None]
        basis = np.hstack([self.basis, self.block]) if self.basis.size else self.block
        images = np.hstack([self.images, image]) if self.images.size else image
        values, loadings, residual = _ritz(basis, images, self.components)
        following = _orthonormal(image, basis) if self.taken < self.iterations and residual > CONVERGED else None
        if following is None or not following.shape[1]:
            return self._answer(frame, self.centre, values, loadings, self.people, residual)
        return replace(self, taken=self.taken + 1, block=following, basis=basis, images=images)

    def _started(self, frame: Frame, sums: Summary, sites: int) -> Answer | PrincipalComponents:
        het, alt, missing = np.where(sums["genotypes"] == WITHHELD, 0, sums["genotypes"]).T
        hidden, few = (sums["genotypes"] == WITHHELD).any(axis=1), held_by_few(sums["holders"], sites)
        people = int(sums["people"])
        observed = np.maximum(people - missing, 1)
        mean = (het + 2 * alt) / observed
        centre = np.where(few, FEW, np.where(hidden | ~((mean > 0) & (mean < 2)), SMALL, mean))
        inside = centre > 0
        if not inside.any():
            return self._answer(frame, centre, np.zeros(0), np.zeros((len(centre), 0)), people, 0.0)
        width = min(self._width, int(inside.sum()))
        stream = hashlib.shake_256(f"genosum first block v1 {len(centre)} {width}".encode()).digest(
            8 * len(centre) * width
        )
        draws = np.frombuffer(stream, dtype="<u8").reshape(len(centre), width) / 2.0**63 - 1
        block = _orthonormal(np.where(inside[:, None], draws, 0.0), np.zeros((len(centre), 0)))
        return replace(self, taken=1, people=people, centre=centre, block=block)

    def _answer(
        self,
        frame: Frame,
        centre: NDArray[np.float64],
        values: NDArray[np.float64],
        loadings: NDArray[np.float64],
        people: float,
        residual: float,
    ) -> Answer:
        assert frame.panel is not None
        inside = centre > 0
        table: dict[str, Column] = {
            **variant_columns(frame.panel),
            "frequency": np.where(inside, centre / 2, np.nan),
        }
        facts: dict[str, float | int | str] = {
            "people": people,
            "variants": len(centre),
            "variants_used": int(inside.sum()),
            "residual": residual,
        }
        for k, name in enumerate(self.offers):
            there = k < len(values)
            table[name] = np.where(inside, loadings[:, k], np.nan) if there else np.full(len(centre), np.nan)
            facts[f"eigenvalue_{k + 1}"] = float(values[k]) / max(int(inside.sum()), 1) if there else math.nan
        table |= {"withheld": ~inside, "held_by_few": centre == FEW}
        return Answer({"loadings": table}, facts, int((~inside).sum()))

    def projection(self, answer: Answer, frame: Frame) -> Projection:
        """Scores with a pooled variance of 1; a component that there is not is 0 for everybody."""
        table, used = answer.tables["loadings"], float(answer.facts["variants_used"])
        frequency = np.asarray(table["frequency"], dtype=np.float64)
        inside = np.isfinite(frequency)
        centre = np.where(inside, 2 * frequency, 0.0)
        deviation = np.where(inside, np.sqrt(centre * (1 - centre / 2)), 1.0)
        weights = []
        for k, name in enumerate(self.offers, start=1):
            variance = float(answer.facts[f"eigenvalue_{k}"]) * used / max(float(answer.facts["people"]), 1.0)
            loading = np.where(inside, np.asarray(table[name], dtype=np.float64), 0.0)
            usable = variance > 0 and bool(np.isfinite(loading).all())
            weights.append(loading / deviation / math.sqrt(variance) if usable else np.zeros_like(loading))
        return Projection(self.offers, np.stack(weights, axis=1), centre, np.zeros(len(weights)))


def _levels(centre: NDArray[np.float64]) -> NDArray[np.float64]:
    """(M, 4) integers: a genotype's distance from its centre in units of 2^-14, by its code; 0 where left out.

    That the centre itself is rounded moves all people of a variant alike, by 3e-5 alleles at most.
    """
    whole = np.rint(centre * 2**ALLELE_BITS)
    levels = [np.where(centre > 0, (copies << ALLELE_BITS) - whole, 0.0) for copies in range(3)]
    return np.stack([*levels, np.zeros_like(centre)], axis=1)


def _scores(genotypes: Genotypes, levels: NDArray[np.float64], vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, L) sums over variants of level times vector, exact."""
    turned = np.ascontiguousarray(vectors.T)

    def sums(people: slice) -> NDArray[np.int64]:
        out = np.zeros((len(turned), people.stop - people.start), dtype=np.int64)
        for start in range(0, len(genotypes), TILE):
            span = slice(start, start + TILE)
            cells = tile(genotypes.packed[span], levels[span], people.start, people.stop)
            out += (turned[:, span] @ cells).astype(np.int64)
        return out

    from strategies.kernels.tiles import tile  # noqa: PLC0415  (numba loads where it is used)

    parts = side_by_side(sums, genotypes.people, TILE)
    return np.concatenate([np.zeros((0, len(turned)), dtype=np.int64), *(part.T for part in parts)]).astype(np.float64)


def _products(genotypes: Genotypes, levels: NDArray[np.float64], scores: NDArray[np.float64]) -> NDArray[np.int64]:
    """(M, L) sums over people of level times score, exact."""

    def sums(span: slice) -> NDArray[np.int64]:
        out = np.zeros((span.stop - span.start, scores.shape[1]), dtype=np.int64)
        for first in range(0, genotypes.people, TILE):
            last = min(first + TILE, genotypes.people)
            out += (tile(genotypes.packed[span], levels[span], first, last) @ scores[first:last]).astype(np.int64)
        return out

    from strategies.kernels.tiles import tile  # noqa: PLC0415

    return np.concatenate(side_by_side(sums, len(genotypes), TILE))


def _orthonormal(vectors: NDArray[np.float64], basis: NDArray[np.float64]) -> NDArray[np.float64]:
    """An orthonormal basis of what vectors have outside the span of an orthonormal basis; directions that are next to
    nothing are left out."""
    length = np.linalg.norm(vectors, axis=0)
    rest = vectors / np.where(length > 0, length, 1.0)
    for _ in range(2):  # twice is enough [Parlett: The symmetric eigenvalue problem, section 6.9]
        rest = rest - basis @ (basis.T @ rest)
    left, size, _ = np.linalg.svd(rest, full_matrices=False)
    kept = left[:, size > 1e-7]
    kept = kept - basis @ (basis.T @ kept)
    out, _ = np.linalg.qr(kept)
    return np.where((np.abs(vectors).sum(axis=1) > 0)[:, None], out, 0.0)


def _ritz(
    basis: NDArray[np.float64], images: NDArray[np.float64], components: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """The leading eigenvalues and eigenvectors of A within the span of a basis, and the largest relative residual."""
    inner = basis.T @ images
    values, vectors = np.linalg.eigh((inner + inner.T) / 2)
    order = np.argsort(values)[::-1][:components]
    values, vectors = values[order], vectors[:, order]
    loadings = basis @ vectors
    turned = np.sign(loadings[np.abs(loadings).argmax(axis=0), np.arange(loadings.shape[1])])
    rest = np.linalg.norm(images @ vectors - loadings * values, axis=0)
    kept = values > 1e-9 * max(float(values[0]), 1e-300)
    residual = float((rest[kept] / values[kept]).max(initial=0.0))
    return values[kept], (loadings * turned)[:, kept], residual


def draw_scree(answer: Answer, axes: Any) -> str:
    """Draw the eigenvalues; returns the figure in words."""
    values = [float(v) for name, v in answer.facts.items() if name.startswith("eigenvalue_")]
    axes.bar(range(1, len(values) + 1), values, color="C0")
    axes.set_xlabel("component")
    axes.set_ylabel("eigenvalue / variants")
    axes.set_xticks(range(1, len(values) + 1))
    shown = ", ".join(f"{v:.3g}" for v in values[:5])
    return f"Eigenvalues of {len(values)} principal components, relative to the number of variants: {shown} and so on."

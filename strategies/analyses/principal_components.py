"""Principal components of the genotypes of all people together: loadings leave, nobody's scores do.

With G~ the genotypes, centred and scaled by pooled frequencies, missing ones at the centre, the loadings are the
leading eigenvectors of A = G~ G~' (variants by variants) [1]. Each round the coordinator sends a block V of vectors,
and the sites sum G~ (G~' V): what a site computes for its people, G~' V, stays there. The blocks span a Krylov space,
in which the eigenvectors are found by Rayleigh and Ritz [2, section 4]; all blocks are kept, so few rounds are enough.

Each node can compute its own people's scores from the answer: later questions name them `question.pc1` and so on.

Rare variants stay out, as `strategies/products.py` says, and those of which not everybody has two copies. Thin the
panel for linkage disequilibrium first, or leading components describe single regions.

[1] Patterson, Price, Reich: Population structure and eigenanalysis, PLoS Genetics 2 (2006), equations 1 to 3.
[2] Musco, Musco: Randomized block Krylov methods, NeurIPS (2015), algorithm 2.
"""

from __future__ import annotations

import hashlib
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
)
from strategies.cohort import Cohort
from strategies.evidence import draw_along, name_highest
from strategies.ploidy import TWO, copies
from strategies.privacy import Regime
from strategies.products import FEW, SMALL, Centring, centring, counted, counts_leave, grid, products_leave, rare
from strategies.projection import Projection
from strategies.protections.suppression import WITHHELD, replaced, small
from strategies.summary import Field, Summary

OVERSAMPLED = 6
"""Vectors in a block beyond the components that are wanted; with ten of these they fill two of a loop's eight lanes."""

CONVERGED = 1e-4
"""Largest residual of a wanted eigenvector, relative to its eigenvalue, at which no further round is asked."""


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
        inner: (L r, L r) products of those two.
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
    inner: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 0)), compare=False, metadata=KEPT)

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
        self._centring.check()
        v = self.block
        if v.ndim != 2 or len(v) != len(self.centre) or not 0 < v.shape[1] <= self._width or v[~self._inside].any():
            raise ValueError("A block has a few vectors, zero where a variant is left out.")
        if np.abs(v.T @ v - np.eye(v.shape[1])).max() > 1e-6:
            raise ValueError("A block's vectors are orthonormal.")

    @property
    def _width(self) -> int:
        return self.components + OVERSAMPLED

    @property
    def offers(self) -> Mapping[str, Range]:
        return {f"pc{k}": PROJECTED for k in range(1, self.components + 1)}

    def needs(self) -> Needs:
        return Needs(panel=self.panel, walked=self.taken > 0)

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
            return counts_leave(m)
        if len(self.centre) != m:
            raise ValueError("A block has a row for each variant.")
        width, most = self.block.shape[1], self._centring.most
        score = self._centring.longest_scores(self.block) + width**0.5 * 2.0**-self._score_bits
        return {
            "products": products_leave("genotype times score, both centred", most, score, width, self._score_bits),
            "people": Field((), "people", 1, 1),
        }

    @property
    def _centring(self) -> Centring:
        return Centring(self.centre)

    @property
    def _inside(self) -> NDArray[np.bool_]:
        return self._centring.inside

    @property
    def _score_bits(self) -> int:
        """Fraction bits of a score: none reaches 2^27 on the grid."""
        return grid(max(float(self._centring.furthest(self.block).max()), 1.0))

    def summarise(self, cohort: Cohort, frame: Frame) -> Summary:
        if not self.taken:
            assert cohort.genotypes is not None
            return counted(cohort.genotypes)
        scores = self._centring.scores(cohort.walked, self.block, self._score_bits)
        return {
            "products": self._centring.products(cohort.walked, scores),
            "people": np.array(len(cohort), dtype=np.int64),
        }

    def withhold(self, sums: Summary, minimum_cell: int) -> Summary:
        if self.taken:  # what is left out was so before anything was multiplied by it
            return replaced(sums, ("products",), ~self._inside, WITHHELD)
        if small(sums["people"], minimum_cell):
            return {name: np.full_like(array, WITHHELD) for name, array in sums.items()}
        few = rare(sums["genotypes"], int(sums["people"]), self.minimum_minor_alleles, minimum_cell)
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
        image = products / self._centring.scale[:, None]
        basis = np.hstack([self.basis, self.block]) if self.basis.size else self.block
        images = np.hstack([self.images, image]) if self.images.size else image
        cross = basis.T @ image
        inner = np.zeros((len(cross), len(cross)))
        inner[: len(self.inner), : len(self.inner)] = self.inner
        inner[:, len(self.inner) :], inner[len(self.inner) :] = cross, cross.T
        values, loadings, residual = _ritz(basis, images, inner, self.components)
        following = _orthonormal(image, basis) if self.taken < self.iterations and residual > CONVERGED else None
        if following is None or not following.shape[1]:
            return self._answer(frame, self.centre, values, loadings, self.people, residual)
        return replace(self, taken=self.taken + 1, block=following, basis=basis, images=images, inner=inner)

    def _started(self, frame: Frame, sums: Summary, sites: int) -> Answer | PrincipalComponents:
        assert frame.panel is not None
        people, centre = int(sums["people"]), centring(sums, sites).centre
        centre = np.where((centre > 0) & (copies(frame.panel) != TWO), SMALL, centre)
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
        return Projection(tuple(self.offers), np.stack(weights, axis=1), centre, np.zeros(len(weights)))


def _orthonormal(vectors: NDArray[np.float64], basis: NDArray[np.float64]) -> NDArray[np.float64]:
    """An orthonormal basis of what vectors have outside the span of an orthonormal basis; directions that are next to
    nothing are left out."""
    length = np.linalg.norm(vectors, axis=0)
    rest = vectors / np.where(length > 0, length, 1.0)
    for _ in range(2):  # twice is enough [Parlett: The symmetric eigenvalue problem, section 6.9]
        rest = rest - basis @ (basis.T @ rest)
    square, triangle = np.linalg.qr(rest)
    left, size, _ = np.linalg.svd(triangle)
    kept = square @ left[:, size > 1e-7]
    kept = kept - basis @ (basis.T @ kept)
    out, _ = np.linalg.qr(kept)
    return np.where((np.abs(vectors).sum(axis=1) > 0)[:, None], out, 0.0)


def _ritz(
    basis: NDArray[np.float64], images: NDArray[np.float64], inner: NDArray[np.float64], components: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """The leading eigenvalues and eigenvectors of A within the span of a basis, and the largest relative residual."""
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
    at = np.arange(1, len(values) + 1)
    axes.plot(at, values, color="C0", linewidth=1.6, marker="o", markersize=5)
    axes.set_ylim(0, 1.08 * max([v for v in values if math.isfinite(v)], default=1.0))
    axes.margins(x=0.05)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("component")
    axes.set_ylabel("eigenvalue / variants")
    shown = ", ".join(f"{v:.3g}" for v in values[:5] if math.isfinite(v))
    if not shown:
        return "Eigenvalues of principal components: there are none."
    return f"Eigenvalues of {len(values)} principal components, relative to the number of variants: {shown} and so on."


def draw_loadings(answer: Answer, column: str, axes: Any) -> str:
    """Draw each variant's part of a component along the genome, as a multiple of an even part; returns it in words."""
    table = answer.tables["loadings"]
    part = np.asarray(table[column], dtype=np.float64) ** 2
    used = int(np.isfinite(part).sum())
    place = draw_along(table, part * used, axes)
    axes.set_ylim(0, None)
    axes.set_ylabel("part, 1 if all had the same")
    name = name_highest(table, part * used, place, axes)
    if not name:
        return f"Loadings of {column}: there are none."
    few = int((np.sort(part[np.isfinite(part)])[::-1].cumsum() < 0.5).sum()) + 1
    return (
        f"Parts of {used:,} variants in {column} along the genome: the largest, {name}, is "
        f"{np.nanmax(part) * used:.1f} times an even part; {few:,} variants make up half of the component."
    )

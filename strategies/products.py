"""Genotypes of all people together, centred and scaled by pooled frequencies, times vectors: exact, on any machine.

With G~ (variants by people) such genotypes, missing ones at the centre, what leaves a site is G~ s for scores s of its
people; scores may themselves be G~' v for a coordinator's vector v, and those stay. A variant's row of G~ s is linear
in its carriers' scores, so rare variants stay out: a variant takes part only if its pooled number of minor alleles, of
people with the minor allele and of missing genotypes is large enough, and three sites hold it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from strategies.cohort import Genotypes
from strategies.kernels.threads import side_by_side
from strategies.protections.suppression import WITHHELD, held_by_few, small
from strategies.summary import Field, Summary

ALLELE_BITS, MOST_BITS = 14, 27
"""Genotypes are centred in units of 2^-14 alleles; vectors and scores are integers below 2^27. A product of a tile of
1,024 stays below 2^53, where float64 is exact in whatever order a library adds."""

TILE = 512
"""Variants, and people, of a tile: 2 MB, and a constant in code."""

SMALL, FEW = -1.0, -2.0
"""In the place of a centre: left out because of small numbers, or because fewer than three sites hold the variant."""


@dataclass(frozen=True, eq=False)
class Centring:
    """The centre of each variant's genotypes, and what follows from it.

    Attributes:
        centre: (M,) pooled mean number of alternate alleles; SMALL or FEW where a variant is left out.
    """

    centre: NDArray[np.float64]

    def check(self) -> None:
        """Raises: ValueError: if a centre is neither a number of alleles nor a reason."""
        if not (self.inside & (self.centre < 2) | (self.centre == SMALL) | (self.centre == FEW)).all():
            raise ValueError("A centre lies between 0 and 2.")

    @property
    def inside(self) -> NDArray[np.bool_]:
        """(M,) whether a variant takes part."""
        return self.centre > 0

    @property
    def scale(self) -> NDArray[np.float64]:
        """(M,) standard deviation of a genotype under Hardy-Weinberg; 1 where left out."""
        c = np.where(self.inside, self.centre, 1.0)
        return np.where(self.inside, np.sqrt(c * (1 - c / 2)), 1.0)

    @property
    def levels(self) -> NDArray[np.float64]:
        """(M, 4) integers: a genotype's distance from its centre in units of 2^-14, by its code; 0 where left out.

        That the centre itself is rounded moves all people of a variant alike, by 3e-5 alleles at most.
        """
        whole = np.rint(self.centre * 2**ALLELE_BITS)
        levels = [np.where(self.inside, (copies << ALLELE_BITS) - whole, 0.0) for copies in range(3)]
        return np.stack([*levels, np.zeros_like(self.centre)], axis=1)

    @property
    def most(self) -> NDArray[np.float64]:
        """(M,) largest distance of a genotype from its centre on the grid; 0 where left out."""
        most: NDArray[np.float64] = np.abs(self.levels).max(axis=1) * 2.0**-ALLELE_BITS
        return most

    @property
    def longest(self) -> float:
        """Length of the longest scaled genotypes that a person can have."""
        return float(np.sqrt(((self.most / self.scale) ** 2).sum()))

    def scores(self, genotypes: Genotypes, vectors: NDArray[np.float64], bits: int) -> NDArray[np.float64]:
        """(N, L) people's scores G~' V as integers on a grid of 2^-bits, none beyond 2^27; `vectors` is V, (M, L)."""
        turned = vectors / self.scale[:, None]
        fine = grid(float(np.abs(turned).max(initial=0.0)))
        sums = _over_variants(genotypes, self.levels, np.rint(turned * 2.0**fine))
        return held(sums * 2.0 ** -(fine + ALLELE_BITS), bits)

    def products(self, genotypes: Genotypes, scores: NDArray[np.float64]) -> NDArray[np.int64]:
        """(M, L) sums over people of centred genotype times score, exact, 2^14 times finer than the scores' grid.

        The coordinator divides by `scale`: sums of one person's alleles and scores have a bound without it.
        """
        return _over_people(genotypes, self.levels, scores)


def grid(most: float) -> int:
    """Fraction bits with which no number reaches 2^27, given the largest.

    >>> grid(1.0), grid(1000.0)
    (26, 16)
    """
    return MOST_BITS - 1 - math.ceil(math.log2(max(most, 2.0**-30)))


def held(values: NDArray[np.float64], bits: int) -> NDArray[np.float64]:
    """The nearest integers on a grid of 2^-bits, none beyond 2^27."""
    limit = 2.0**MOST_BITS - 1
    return np.clip(np.rint(values * 2.0**bits), -limit, limit)


def counts_leave(variants: int) -> dict[str, Field]:
    """What leaves so that pooled frequencies are known, and who may take part."""
    m = variants
    return {
        "genotypes": Field((m, 3), "people with 1, 2 or no observed alternate alleles", m, m**0.5, per_variant=True),
        "holders": Field((m,), "sites that hold the variant", m, m**0.5, per_variant=True, over="sites"),
        "people": Field((), "people", 1, 1),
    }


def counted(genotypes: Genotypes) -> Summary:
    """A site's part of it."""
    cells = genotypes.counts()
    return {
        "genotypes": cells[:, 1:],
        "holders": np.any(cells[:, :3], axis=1).astype(np.int64),
        "people": np.array(genotypes.people, dtype=np.int64),
    }


def rare(sums: Summary, minimum_minor_alleles: int, minimum_cell: int) -> NDArray[np.bool_]:
    """(M,) whether a variant has too few minor alleles, people with them, observed or missing genotypes."""
    het, alt, missing = sums["genotypes"].T
    observed = sums["people"] - missing
    alleles = het + 2 * alt
    carriers = np.minimum(het + alt, observed - alt)
    seldom = np.minimum(alleles, 2 * observed - alleles) < max(1, minimum_minor_alleles)
    out: NDArray[np.bool_] = (
        seldom | small(missing, minimum_cell) | (carriers < minimum_cell) | (observed < minimum_cell)
    )
    return out


def centring(sums: Summary, sites: int) -> Centring:
    """The centres, from counts in which rare variants are withheld."""
    het, alt, missing = np.where(sums["genotypes"] == WITHHELD, 0, sums["genotypes"]).T
    hidden, few = (sums["genotypes"] == WITHHELD).any(axis=1), held_by_few(sums["holders"], sites)
    mean = (het + 2 * alt) / np.maximum(int(sums["people"]) - missing, 1)
    return Centring(np.where(few, FEW, np.where(hidden | ~((mean > 0) & (mean < 2)), SMALL, mean)))


def _over_variants(
    genotypes: Genotypes, levels: NDArray[np.float64], vectors: NDArray[np.float64]
) -> NDArray[np.float64]:
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


def _over_people(genotypes: Genotypes, levels: NDArray[np.float64], scores: NDArray[np.float64]) -> NDArray[np.int64]:
    """(M, L) sums over people of level times score, exact."""

    def sums(span: slice) -> NDArray[np.int64]:
        out = np.zeros((span.stop - span.start, scores.shape[1]), dtype=np.int64)
        for first in range(0, genotypes.people, TILE):
            last = min(first + TILE, genotypes.people)
            out += (tile(genotypes.packed[span], levels[span], first, last) @ scores[first:last]).astype(np.int64)
        return out

    from strategies.kernels.tiles import tile  # noqa: PLC0415

    return np.concatenate(side_by_side(sums, len(genotypes), TILE))

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

from strategies import kernels
from strategies.alleles import DOSAGE_BITS
from strategies.cohort import Genotypes, Stored, blocks
from strategies.protections.suppression import WITHHELD, held_by_few, small
from strategies.summary import Field, Summary

ALLELE_BITS, MOST_BITS = 14, 27
"""Genotypes are centred in units of 2^-14 alleles; vectors and scores are integers below 2^27. A sum over a million
people or variants stays below 2^62."""

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

    def furthest(self, vectors: NDArray[np.float64]) -> NDArray[np.float64]:
        """(L,) largest score that genotypes can give a person, for each of the vectors V, (M, L)."""
        turned, unit = vectors / self.scale[:, None], 2.0**-ALLELE_BITS
        up, down = np.maximum(turned, 0.0), np.minimum(turned, 0.0)
        above, below = (ends[:, None] * unit for ends in (self.levels.max(axis=1), self.levels.min(axis=1)))
        high, low = (up * above + down * below).sum(axis=0), (up * below + down * above).sum(axis=0)
        return np.asarray(np.maximum(high, -low))

    def longest_scores(self, vectors: NDArray[np.float64]) -> float:
        """Length of the longest scores G~' V: with orthonormal V no more than that of scaled genotypes."""
        return min(float(np.linalg.norm(self.furthest(vectors))), self.longest)

    def scores(self, genotypes: Genotypes | Stored, vectors: NDArray[np.float64], bits: int) -> NDArray[np.float64]:
        """(N, L) people's scores G~' V as integers on a grid of 2^-bits, none beyond 2^27; `vectors` is V, (M, L)."""
        turned = vectors / self.scale[:, None]
        fine = grid(float(np.abs(turned).max(initial=0.0)))
        levels, whole = self.levels.astype(np.int64), np.rint(turned * 2.0**fine).astype(np.int64)
        sums = np.zeros((genotypes.people, whole.shape[1]), dtype=np.int64)
        for span, some in blocks(genotypes):
            sums += kernels.over_variants(some.packed, some.people, levels[span], whole[span])
        return held(sums.astype(np.float64) * 2.0 ** -(fine + ALLELE_BITS), bits)

    def products(self, genotypes: Genotypes | Stored, scores: NDArray[np.float64]) -> NDArray[np.int64]:
        """(M, L) sums over people of centred genotype times score, exact, 2^14 times finer than the scores' grid.

        The coordinator divides by `scale`: sums of one person's alleles and scores have a bound without it.
        """
        whole, levels = scores.astype(np.int64), self.levels[:, :1].astype(np.int64)
        total, out = whole.sum(axis=0), np.zeros((len(genotypes), whole.shape[1]), dtype=np.int64)
        for span, some in blocks(genotypes):
            rows = np.flatnonzero(self.inside[span])
            missing = kernels.missing_imputed(some.packed, rows, np.ones(len(rows)), whole)
            # A genotype's level is that of none, and 2^14 more for each alternate allele; a missing one's is 0.
            alleles = kernels.over_people(some.packed, whole)[rows] << ALLELE_BITS
            out[span][rows] = alleles + levels[span][rows] * (total - missing)
        return out


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


def products_leave(unit: str, most: NDArray[np.float64], size: float, width: int, bits: int) -> Field:
    """Sums over people of alleles (M,), at most so far from their centre, times `width` scores on a grid of 2^-bits,
    at most so long together."""
    l1 = float(most.sum()) * width**0.5 * size
    return Field((len(most), width), unit, l1, float(np.linalg.norm(most)) * size, ALLELE_BITS + bits)


def counted(genotypes: Genotypes) -> Summary:
    """A site's part of it."""
    cells = genotypes.counts()
    return {
        "genotypes": cells[:, 1:],
        "holders": np.any(cells[:, :3], axis=1).astype(np.int64),
        "people": np.array(genotypes.people, dtype=np.int64),
    }


def seldom(
    genotypes: NDArray[np.int64],
    people: int,
    minimum_minor_alleles: int,
    minimum_cell: int,
    dosages: NDArray[np.int64] | None = None,
) -> NDArray[np.bool_]:
    """(M,) whether a variant has too few minor alleles, people with them, or observed genotypes.

    Args:
        genotypes: (M, 3) people with 1, 2 or no observed alternate alleles.
        people: all of them.
        dosages: (M,) sums of dosages, if these are read.
    """
    het, alt, missing = genotypes.T
    observed = people - missing
    alleles = het + 2 * alt if dosages is None else dosages * 2.0**-DOSAGE_BITS
    carriers = np.minimum(het + alt, observed - alt)  # people with either allele, not alleles
    few = np.minimum(alleles, 2 * observed - alleles) < max(1, minimum_minor_alleles)
    out: NDArray[np.bool_] = few | (carriers < minimum_cell) | (observed < minimum_cell)
    return out


def rare(genotypes: NDArray[np.int64], people: int, minimum_minor_alleles: int, minimum_cell: int) -> NDArray[np.bool_]:
    """(M,) the same, or whether it has too few missing genotypes."""
    return seldom(genotypes, people, minimum_minor_alleles, minimum_cell) | small(genotypes[:, 2], minimum_cell)


def centring(sums: Summary, sites: int) -> Centring:
    """The centres, from counts in which rare variants are withheld, and from `alleles`, if dosages were summed."""
    het, alt, missing = np.where(sums["genotypes"] == WITHHELD, 0, sums["genotypes"]).T
    alleles = het + 2 * alt
    if "alleles" in sums:
        alleles = np.where(sums["alleles"] == WITHHELD, 0, sums["alleles"]) * 2.0**-DOSAGE_BITS
    hidden, few = (sums["genotypes"] == WITHHELD).any(axis=1), held_by_few(sums["holders"], sites)
    mean = alleles / np.maximum(int(sums["people"]) - missing, 1)
    return Centring(np.where(few, FEW, np.where(hidden | ~((mean > 0) & (mean < 2)), SMALL, mean)))

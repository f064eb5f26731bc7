"""The columns of a linear regression over sites: how they are measured, on which grid, and how far one person reaches.

The rows of a design are w = (1, covariates, responses). A response is a trait, or, where each chromosome has an offset
of its own, a trait less its offset, in one block of traits for each chromosome. Site effects have no intercept: columns
are centred at the site, whose own mean is not in what leaves.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from strategies import kernels
from strategies.errors import GenosumError, UsageError
from strategies.summary import MOST_CONTRIBUTION, Field

LEAST_DEVIATION = 1e-4
"""A column's pooled standard deviation in units of half its range; below this the sums lose their precision."""

OFFSET_BITS = 2
MOST_SQUARE = 8.0
"""Of a trait less its offset, in the mean and in squared deviations of the trait, and the fraction bits that it costs:
2 MOST_SQUARE^(1/2) N is below 2^(1 + OFFSET_BITS) N."""


class Standardise(StrEnum):
    """Whose mean and deviation a column is measured in: all people's, where beta is in the trait's own unit, or each
    site's own, which is another quantity: beta is then in deviations of the trait within the sites."""

    POOLED = "pooled"
    SITE = "site"


@dataclass(frozen=True)
class Design:
    """Measured columns of N people: K covariates and P traits, C blocks of these.

    Attributes:
        people: N, pooled.
        centre, scale: (K + P) pooled mean and deviation of each column after mapping its range to [-1, 1].
        covariates, traits: K and P.
        blocks: C, 1 without offsets.
        farthest: the largest absolute value of an offset, in deviations of the trait; 0 without.
        standardise, site_effects: as `LinearAssociation` has them.
    """

    people: int
    centre: NDArray[np.float64]
    scale: NDArray[np.float64]
    covariates: int
    traits: int
    blocks: int = 1
    farthest: float = 0.0
    standardise: Standardise = Standardise.POOLED
    site_effects: bool = False

    @property
    def bits(self) -> int:
        """Fraction bits of the sums, as fine as the ring allows.

        Standardised columns have sum z^2 = N over all sites, so by Cauchy and Schwarz no sum of products exceeds N and
        no genotype sum 2 N. With 2^5 sites and the node's limit of 2^62 / sites, f = 56 - log2 N bits fit; with site
        effects one less, since two people may then lie 2 N^1/2 apart.
        """
        return 56 - self.people.bit_length() - self.site_effects - OFFSET_BITS * (self.farthest > 0)

    @property
    def reach(self) -> NDArray[np.float64]:
        """(K + C P) the farthest that anybody can lie from the mean, in deviations, if N people have that mean and
        deviation, or that mean square.

        With site effects, values are held there before they are centred: were products held after it, one person far
        out would move those of all others at her site. Only a forged first round, or somebody added to the people that
        it is of, lies beyond.
        """
        squares = np.ones(self.covariates + self.blocks * self.traits)
        squares[self.covariates :] = MOST_SQUARE if self.farthest else 1.0
        return np.asarray(2.0 ** (self.people.bit_length() / 2) * np.sqrt(squares))

    @property
    def size(self) -> int:
        """Covariates, with the intercept unless it is a site's own."""
        return self.covariates + (not self.site_effects)

    @property
    def within(self) -> bool:
        """Whether what leaves adds over sites alone: a person moves the mean or the deviation of all at her site."""
        return self.site_effects or self.standardise is Standardise.SITE

    def pairs(self, blocks: int = 1) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Index pairs (i <= j) of the products of w that regressions read: responses meet covariates and themselves."""
        k, wide = self.size, self.size + blocks * self.traits
        pairs = [(i, j) for i in range(k) for j in range(i, wide)] + [(j, j) for j in range(k, wide)]
        rows, columns = np.array(pairs, dtype=np.int64).T
        return rows, columns

    def of_block(self, products: NDArray[np.int64], block: int) -> NDArray[np.int64]:
        """Those of the products of all pairs that are of one block's, in the order of `pairs`."""
        _, j = self.pairs(self.blocks)
        mine = (j < self.size) | ((j - self.size) // self.traits == block)
        return np.asarray(products[mine], dtype=np.int64)

    def products(self, w: NDArray[np.float64]) -> NDArray[np.int64]:
        """(q,) sums over people of all blocks' products of (N, 1 + K + C P) columns, the intercept first."""
        size = 1 + self.covariates
        return self._paired(kernels.products(w, size, self.bits)[None], self.blocks).reshape(-1)

    def paired(self, sums: NDArray[np.int64]) -> NDArray[np.int64]:
        """(R, q) one block's products out of (R, K + 2, 1 + K + P) sums, as `kernels.missing_products` gives them."""
        return self._paired(sums, 1)

    def _paired(self, sums: NDArray[np.int64], blocks: int) -> NDArray[np.int64]:
        (i, j), first = self.pairs(blocks), 1 + self.covariates - self.size
        return np.asarray(sums[:, np.minimum(i + first, 1 + self.covariates), j + first], dtype=np.int64)

    def measured(self, columns: NDArray[np.float64], offsets: NDArray[np.float64], grid: Field) -> NDArray[np.float64]:
        """(n, K + C P) complete people's covariates and responses.

        Means and deviations of a site are of integers on the grid, so they do not depend on the order of its people.

        Args:
            columns: (n, K + P) of covariates and traits, within [-1, 1].
            offsets: (n, C P), or (n, 0).
            grid: a field on the grid.
        """
        out: NDArray[np.float64] = (columns - self.centre) / self.scale
        if offsets.shape[1]:
            traits = np.tile(out[:, self.covariates :], self.blocks) - offsets
            out = np.concatenate([out[:, : self.covariates], traits], axis=1)
        if self.site_effects:
            out = np.clip(out, -self.reach, self.reach)
        if len(out) and self.within:
            z = grid.integers(out)
            out = (z - z.sum(axis=0) / len(z)) * 2.0**-grid.fraction_bits
        if len(out) and self.standardise is Standardise.SITE:
            squares = grid.integers(out**2).sum(axis=0) * 2.0**-grid.fraction_bits / len(out)
            able = squares > LEAST_DEVIATION**2
            out = np.where(able, out / np.sqrt(np.where(able, squares, 1.0)), 0.0)
        return out

    def changes(self, blocks: int = 1) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The most by which a person changes each of `pairs`' products, and two alleles times a covariate or a trait,
        from the ranges' ends.

        Of deviations from a site's mean, a person at distance d adds at most d_i d_j, and each is rounded anew, as is
        each number of alleles times it. Of n people in the site's own deviations, no sum of products exceeds n, and n
        is at most `people`.
        """
        (i, j), grid = self.pairs(blocks), 2.0**-self.bits
        held = MOST_CONTRIBUTION * grid  # only a forged first round leads beyond
        if self.standardise is Standardise.SITE:
            whole = np.full(len(i), 2.0 * self.people + 1)
            return whole, np.full(self.covariates + self.traits, 2 * whole[0])
        offset = np.repeat([0.0, self.farthest], [self.covariates, self.traits])
        if self.site_effects:
            own = 2 * np.minimum(1 / self.scale + offset, self.reach[: len(self.scale)])
            most = self._repeated(own, blocks)
            product = most[i] * most[j] + (1 + self.people * (1 + most[i] + most[j])) * grid
            return product, 2 * own + (3 + 3 * self.people) * grid
        own = np.maximum(np.abs(1 - self.centre), np.abs(1 + self.centre)) / self.scale + offset
        most = np.concatenate([[1.0], self._repeated(own, blocks)])
        return np.minimum(most[i] * most[j] + grid, held), 2 * np.minimum(own + grid, held)

    def check(self, products: NDArray[np.float64], covariates: tuple[str, ...], traits: tuple[str, ...]) -> None:
        """Assert that all blocks' products are those of the first round's people, and no column follows from others.

        Raises:
            GenosumError: if mean squares are not what they were, or an offset is larger than its trait.
            UsageError: if covariates explain one another or a trait.
        """
        (i, j), size = self.pairs(self.blocks), self.size
        mean = np.zeros((size + self.blocks * self.traits,) * 2)
        mean[i, j] = mean[j, i] = products / max(self.people, 1)
        squares, least = np.diagonal(mean), -1.0 if self.within else 0.1
        low, high = np.full(len(squares), least), np.full(len(squares), 1.9)
        offset, more = "", ""
        if self.farthest:
            low[size:], high[size:] = -1.0, MOST_SQUARE
            offset = f", a trait less its offset one below {MOST_SQUARE:g}"
            more = ", or the predictions are larger than the trait"
        if self.people < 1 or not ((squares > low) & (squares < high)).all():
            raise GenosumError(
                f"Columns standardised by round 1 have a mean square of 1 in round 2{offset}.",
                "sums that do not agree",
                f"run the study again; if it stays so, a site's data changed in between{more}.",
            )
        for number, trait in enumerate(traits * self.blocks, start=size):
            here = [*range(size), number]
            if np.linalg.eigvalsh(mean[np.ix_(here, here)])[0] < 1e-9:
                raise UsageError(
                    "Covariates must not explain one another or a trait, with site effects within the sites.",
                    f"{', '.join((*covariates, trait))} are linearly dependent",
                    "drop what follows from the others.",
                )

    def _repeated(self, own: NDArray[np.float64], blocks: int) -> NDArray[np.float64]:
        return np.concatenate([own[: self.covariates], np.tile(own[self.covariates :], blocks)])


def check_varying(names: tuple[str, ...], variance: NDArray[np.float64]) -> None:
    """Assert that every column varies, in units of half its range.

    Raises:
        UsageError: if one does not, or hardly.
    """
    constant = [name for name, v in zip(names, variance, strict=True) if not v > LEAST_DEVIATION**2]
    if constant:
        raise UsageError(
            "Traits and covariates must vary over the sites together, relative to their range.",
            f"(nearly) constant: {', '.join(constant)}",
            "drop them or narrow their range.",
        )


def whole(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """The nearest integers, held where a ring element may be; only forged totals lead there."""
    held: NDArray[np.int64] = np.clip(np.rint(values), -MOST_CONTRIBUTION, MOST_CONTRIBUTION).astype(np.int64)
    return held


def norms(entries: NDArray[np.float64], times: int = 1) -> tuple[float, float]:
    """L1 and L2 of an array that has these entries so many times."""
    return times * float(entries.sum()), times**0.5 * float(np.sqrt((entries**2).sum()))

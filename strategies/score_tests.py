"""The score test of every variant under one null model of a binary trait: what a site sums, and what follows.

    U = g'r,  v = g'(w X),  V = g'(w g) - v' I^-1 v,  z = U / sqrt(V),   r = y - mu,  w = mu (1 - mu),  I = X'(w X)

A missing genotype counts as the pooled mean. Source: Cox, Hinkley: Theoretical Statistics (1974), section 9.3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from strategies import kernels
from strategies.cohort import Genotypes
from strategies.likelihood import Floats, Sample
from strategies.summary import Field

EXPLAINED = 1e-6
"""Of g'(w g), what covariates leave at least; with less they explain the variant, and z is NaN."""


def sums(
    genotypes: Genotypes, mean: Floats, inside: NDArray[np.bool_], sample: Sample, grid: Field
) -> dict[str, NDArray[np.int64]]:
    """A site's `scores` U (M',), `weighted` v (M', k) and `squares` g'(w g) (M',) of the M' variants that take part.

    Args:
        genotypes: of all N people.
        mean: (M,) pooled mean number of alternate alleles; not positive where a variant is left out.
        inside: (N,) the people who are in the sample.
        sample: of them.
        grid: on which columns are rounded.
    """
    packed, on = genotypes.packed, np.flatnonzero(mean > 0)
    residuals, weights = sample.weighed()
    columns = np.zeros((len(inside), 1 + len(sample.across)), dtype=np.int64)
    columns[inside, 0] = grid.integers(residuals)
    columns[inside, 1:] = grid.integers((weights * sample.across).T)
    cells, weight = kernels.counts(packed, len(inside), inside)[on], columns[:, 1:2]
    alleles = kernels.product(packed, on, cells, columns)
    given = kernels.missing_imputed(packed, on, mean[on], columns)
    # A genotype's square is itself and, with two alleles, two more: the sum over those who have two is another
    # product, of genotypes in which their code is 1 and every other 0.
    both: NDArray[np.uint8] = ((packed >> 1) & ~packed & 0b01010101).astype(np.uint8)
    beside = np.stack([cells[:, [0, 1, 3]].sum(axis=1), cells[:, 2], *np.zeros((2, len(on)), np.int64)], axis=1)
    twice = kernels.product(both, on, beside, weight)[:, 0]
    squared = kernels.missing_imputed(packed, on, mean[on] ** 2, weight)[:, 0]
    return {
        "scores": alleles[:, 0] + given[:, 0],
        "weighted": alleles[:, 1:] + given[:, 1:],
        "squares": alleles[:, 1] + 2 * twice + squared,
    }


@dataclass(frozen=True, eq=False)
class Tests:
    """What the sums over all sites say.

    Attributes:
        scores, variance: (M',) U and V; V is NaN where covariates explain the variant.
        inverse: (k, k) I^-1.
        out: (M', k) I^-1 v, what takes covariates out of a genotype.
        z, p: (M',) two-sided.
    """

    scores: Floats
    variance: Floats
    inverse: Floats
    out: Floats
    z: Floats
    p: Floats

    @staticmethod
    def of(values: Mapping[str, Floats], information: Floats) -> Tests:
        """From the values of `sums` and I."""
        scores, weighted, squares = values["scores"], values["weighted"], values["squares"]
        inverse: Floats = np.linalg.inv(information).astype(np.float64)
        out: Floats = np.linalg.solve(information, weighted.T).T.astype(np.float64)
        variance = squares - (weighted * out).sum(axis=1)
        variance[variance <= EXPLAINED * squares] = np.nan
        with np.errstate(invalid="ignore"):
            z = scores / np.sqrt(variance)
        return Tests(scores, variance, inverse, out, z, 2 * special.ndtr(-np.abs(z)))

"""The score test of every variant under a null model of a binary trait: what a site sums, and what follows.

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
from strategies.alleles import Alleles
from strategies.hits import bounded
from strategies.likelihood import Floats, Reach, Sample
from strategies.summary import Field

EXPLAINED = 1e-6
"""Of g'(w g), what covariates leave at least; with less they explain the variant, and z is NaN."""


def leaves(reach: Reach, ends: Floats, blocks: NDArray[np.int64], bits: int) -> dict[str, Field]:
    """The fields of the sums about R variants.

    Args:
        reach: (C,) log odds under the null models.
        ends: (2, k) lowest and highest values of the covariates.
        blocks: (R,) the number of each variant's null model.
        bits: fraction bits.
    """
    r, w = reach.residual[blocks, None], reach.weight[blocks, None]
    most, shape = np.abs(ends).max(axis=0), blocks.shape
    return {
        "scores": bounded("alternate alleles times residuals", 2 * r, bits, True, shape),
        "weighted": bounded("alternate alleles times weighted covariates", 2 * w * most, bits, True),
        "squares": bounded("weighted squared alternate alleles", 4 * w, bits, True, shape),
    }


def sums(
    alleles: Alleles, rows: NDArray[np.int64], mean: Floats, inside: NDArray[np.bool_], sample: Sample, grid: Field
) -> dict[str, NDArray[np.int64]]:
    """A site's `scores` U (R,), `weighted` v (R, k) and `squares` g'(w g) (R,) of R of its variants.

    Args:
        alleles: of all N people.
        rows: (R,) of the variants.
        mean: (R,) their pooled mean number of alternate alleles.
        inside: (N,) the people who are in the sample.
        sample: of them.
        grid: on which columns are rounded.
    """
    residuals, weights = sample.weighed()
    columns = np.zeros((len(inside), 1 + len(sample.across)), dtype=np.int64)
    columns[inside, 0] = grid.integers(residuals)
    columns[inside, 1:] = grid.integers((weights * sample.across).T)
    observed, weight = alleles.product(rows, columns), columns[:, 1]
    given = kernels.missing_imputed(alleles.packed, rows, mean, columns)
    squared = kernels.missing_imputed(alleles.packed, rows, mean**2, weight[:, None])[:, 0]
    return {
        "scores": observed[:, 0] + given[:, 0],
        "weighted": observed[:, 1:] + given[:, 1:],
        "squares": alleles.squared(rows, weight, observed[:, 1]) + squared,
    }


@dataclass(frozen=True, eq=False)
class Tests:
    """What the sums over all sites say.

    Attributes:
        scores, variance: (M',) U and V; V is NaN where covariates explain the variant.
        inverse: (C, k, k) I^-1 of each null model.
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
    def of(values: Mapping[str, Floats], information: Floats, blocks: NDArray[np.int64]) -> Tests:
        """From the values of `sums`, (C, k, k) I, and (M',) the number of each variant's null model."""
        scores, weighted, squares = values["scores"], values["weighted"], values["squares"]
        inverse: Floats = np.linalg.inv(information).astype(np.float64)
        out = np.empty_like(weighted)
        for block in np.unique(blocks):
            mine = blocks == block
            out[mine] = np.linalg.solve(information[block], weighted[mine].T).T
        variance = squares - (weighted * out).sum(axis=1)
        variance[variance <= EXPLAINED * squares] = np.nan
        with np.errstate(invalid="ignore"):
            z = scores / np.sqrt(variance)
        return Tests(scores, variance, inverse, out, z, 2 * special.ndtr(-np.abs(z)))

"""Membership from association statistics of a quantitative trait or a disease.

A member with residual trait e (in residual deviations) moves every t by about z e / sqrt n, where z is the standardised
genotype [1, equation 5; 2 for cases and controls, whose e has two values]. So S = sum z t has the mean
a = e |z|^2 / sqrt n for a member and 0 for others, and the same variance, in proportion to |z|^2; the log-likelihood
ratio is in proportion to (a S - a^2 / 2) / |z|^2. A true effect moves S for everybody alike: variants with |t| of 3 or
more are left out, which makes the attack stronger.

[1] Im et al.: On sharing quantitative trait GWAS results in an era of multiple-omics data and the limits of genomic
    privacy, AJHG 90 (2012).
[2] Jacobs et al.: A new statistic and its power to infer membership in a genome-wide association study using genotype
    frequencies, Nature Genetics 41 (2009).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulations.attacks.frequencies import VARIANTS_AT_A_TIME
from strategies.cohort import MISSING

MOST_TRUE_EFFECT = 3.0
"""A t beyond this counts as a true effect, which says nothing about who took part."""


def residuals(covariates: NDArray[np.float64], trait: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N,) what (N, c) covariates, an intercept among them, leave of a trait, in its deviations.

    Of one fit over everybody who is scored: a fit over members alone would shrink the members' residuals.
    """
    left = trait - covariates @ np.linalg.lstsq(covariates, trait, rcond=None)[0]
    return np.asarray(left / left.std(), dtype=np.float64)


def regression_scores(
    t: NDArray[np.float64],
    frequencies: NDArray[np.float64],
    people: NDArray[np.float64],
    codes: NDArray[np.uint8],
    residual: NDArray[np.float64],
) -> NDArray[np.float64]:
    """(N,) log-likelihood ratios of membership, up to a factor.

    Args:
        t: (M,) released t statistics; NaN where withheld.
        frequencies: (M,) released frequencies of the effect allele.
        people: (M,) number of people behind each.
        codes: (M, N) genotype codes of the targets.
        residual: (N,) e, their residual traits.
    """
    usable = np.isfinite(t) & (np.abs(np.nan_to_num(t)) < MOST_TRUE_EFFECT) & (frequencies > 0) & (frequencies < 1)
    total, length, slope = (np.zeros(len(residual)) for _ in range(3))
    for start in range(0, len(t), VARIANTS_AT_A_TIME):
        block = np.flatnonzero(usable[start : start + VARIANTS_AT_A_TIME]) + start
        p = frequencies[block, None]
        z = np.where(codes[block] == MISSING, 0.0, (codes[block] - 2 * p) / np.sqrt(2 * p * (1 - p)))
        total += t[block] @ z
        length += (z**2).sum(axis=0)
        slope += (z**2 / np.sqrt(people[block, None])).sum(axis=0)
    a = residual * slope
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(length > 0, (a * total - a**2 / 2) / length, 0.0), dtype=np.float64)

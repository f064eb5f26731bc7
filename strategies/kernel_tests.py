"""Tests of several variants at once, from their scores and the scores' covariance under no effect.

S are U scores with Var S = s2 K; weights are in both. P values of the quadratic forms are exact (`quadratic_form`) but
where said.

[1] Wu et al.: Rare-variant association testing for sequencing data with the sequence kernel association test, AJHG 89
    (2011).
[2] Lee, Wu, Lin: Optimal tests for rare variant effects in sequencing association studies, Biostatistics 13 (2012),
    section 3.
[3] Liu, Tang, Zhang: A new chi-square approximation to the distribution of non-negative definite quadratic forms in
    non-central normal variables, Computational Statistics and Data Analysis 53 (2009).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import special

from strategies.quadratic_form import upper_tail

MIXTURES = (0.0, 0.01, 0.04, 0.09, 0.16, 0.25, 0.5, 1.0)
"""Shares of the burden test among which SKAT-O chooses."""

NODES = 48
"""Of the Gauss-Legendre rule over the part that all mixtures share: its error is some 1e-4 of the p value."""

Matrix = NDArray[np.float64]


def burden(scores: Matrix, covariance: Matrix, variance: float) -> tuple[float, float, float]:
    """Effect of the sum of weighted alleles, its standard error and p value; NaN where it does not vary."""
    total, spread = float(scores.sum()), float(covariance.sum())
    if not spread > 1e-10 * float(np.abs(covariance).sum()):
        return math.nan, math.nan, math.nan
    beta, error = total / spread, math.sqrt(variance / spread)
    return beta, error, 2 * float(special.ndtr(-abs(beta / error)))


def skat(scores: Matrix, covariance: Matrix, variance: float) -> float:
    """P value of the sum of squared scores [1, equation 3]."""
    return upper_tail(float(scores @ scores) / variance, np.asarray(np.linalg.eigvalsh(covariance), dtype=np.float64))


def skat_o(scores: Matrix, covariance: Matrix, variance: float) -> float:
    """P value of the least p value over mixtures of burden test and SKAT [2].

    The mixtures' quantiles are those of a chi-square with their first moments [3], as in the authors' own software.
    """
    if len(scores) == 1:
        return skat(scores, covariance, variance)
    size, k = len(scores), covariance
    squares, square = float(scores @ scores) / variance, float(scores.sum()) ** 2 / variance
    spectra = [_spectrum(k, rho) for rho in MIXTURES]
    each = [upper_tail((1 - r) * squares + r * square, w) for r, w in zip(MIXTURES, spectra, strict=True)]
    least = float(np.nanmin(each)) if np.isfinite(each).any() else math.nan
    mean_square = float(k.sum()) / size**2  # of the mean of the variants' standardised genotypes
    if not (least > 0 and mean_square > 1e-10 * float(np.abs(k).sum()) / size**2):
        return least
    shared = k.sum(axis=1) / size
    projected = np.outer(shared, shared) / mean_square
    rest = k - projected
    weights = np.linalg.eigvalsh(rest)
    weights = weights[weights > 1e-10 * np.linalg.eigvalsh(k)[-1]]
    if not len(weights):
        return least
    rhos = np.minimum(MIXTURES, 0.999)  # the burden test has no rest to integrate over
    quantiles = np.array([_quantile(least, w) for w in spectra])
    tau = size**2 * rhos * mean_square + (1 - rhos) * float(shared @ shared) / mean_square
    mean, own = float(weights.sum()), 2 * float((weights**2).sum())
    shrink = math.sqrt(own / (own + 4 * float((projected * rest).sum())))
    farthest = math.sqrt(float((quantiles / tau).min()))
    at, mass = np.polynomial.legendre.leggauss(NODES)
    z, mass = (at + 1) / 2 * farthest, mass / 2 * farthest
    tails = [
        upper_tail((float(((quantiles - tau * x**2) / (1 - rhos)).min()) - mean) * shrink + mean, weights) for x in z
    ]
    inside = float(mass @ (np.array(tails) * 2 * np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)))
    p = inside + 2 * float(special.ndtr(-farthest))
    return float(min(max(p, least), len(MIXTURES) * least, 1.0))


def _spectrum(covariance: Matrix, rho: float) -> Matrix:
    """Weights of (1 - rho) S'S + rho (1'S)^2 as a quadratic form, for scores of unit variance."""
    size = len(covariance)
    mixed = (1 - rho) * covariance + rho * np.outer(np.ones(size), covariance.sum(axis=0))
    return np.real(np.linalg.eigvals(mixed))


def _quantile(p: float, weights: Matrix) -> float:
    """Where about the upper tail of a quadratic form is p: skewness and kurtosis of a chi-square fitted to it [3]."""
    c = [float((weights**power).sum()) for power in range(1, 5)]
    s1, s2 = c[2] / c[1] ** 1.5, c[3] / c[1] ** 2
    if s1**2 > s2:
        a = 1 / (s1 - math.sqrt(s1**2 - s2))
        shift = s1 * a**3 - a**2
        degrees = a**2 - 2 * shift
    else:
        degrees = 1 / s2
    standard = (float(special.chdtri(degrees, p)) - degrees) / math.sqrt(2 * degrees)
    return float(standard * math.sqrt(2 * c[1]) + c[0])

"""Membership inference, as a measurement: how well does an exact answer tell who is in it?

The attacker knows a person's genotypes (and, against a regression, trait and covariates) and the released answer, and
scores how likely the person took part. The measurement is the area under the ROC curve (AUC) of that score over people
who did take part and people who did not: 0.5 is guessing, 1 is certainty. Nobody's published reference is needed, and
the non-members stand for it: each is scored against the *others* alone, so that an answer made from somebody else's
data gives 0.5.

Frequencies [1, 2]. With released frequencies r of n people, reference frequencies p of k others and noise of standard
deviation s in an allele count, r - p has the variance v = p (1 - p) (1 / 2n + 1 / 2k) + (s / 2n)^2 for everybody, and
for a member with x alternate alleles the mean d = (x - 2p) / 2n. The log-likelihood ratio of the two is

    sum over variants of  d (r - p) / v - d^2 / 2v.

Leaving the noise out of v would weight the noisiest variants most and flatter the defence. With independent variants,
no noise and a known reference, AUC = Phi(sqrt(M / n) / sqrt 2); a release that costs rho in zCDP holds it below
Phi(sqrt rho).

Regression [3]. A member with residual trait e (in residual deviations) moves every t by about z e / sqrt n, where z is
the standardised genotype. So S = sum z t has the mean a = e |z|^2 / sqrt n for a member and 0 for others, and the same
variance, in proportion to |z|^2; the log-likelihood ratio is in proportion to (a S - a^2 / 2) / |z|^2. A true effect
moves S for everybody alike: variants with |t| of 3 or more are left out, which makes the attack stronger.

[1] Homer et al.: Resolving individuals contributing trace amounts of DNA, PLoS Genetics 4 (2008).
[2] Sankararaman et al.: Genomic privacy and limits of individual detection in a pool, Nature Genetics 41 (2009).
[3] Im et al.: On sharing quantitative trait GWAS results in an era of multiple-omics data and the limits of genomic
    privacy, AJHG 90 (2012).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from strategies.analyses.allele_frequency import GenotypeCounts
from strategies.analyses.association import LinearAssociation
from strategies.analysis import Analysis, Answer, Part
from strategies.cohort import MISSING, Cohort

MOST_TRUE_EFFECT = 3.0
"""A t beyond this counts as a true effect, which says nothing about who took part."""

VARIANTS_AT_A_TIME = 2048


def first_half(people: Sequence[str], salt: str = "membership") -> NDArray[np.bool_]:
    """(N,) whether each person is in the half that takes part: a public draw from the person's own identifier."""
    return Part(0.0, 0.5, salt).holds(people)


def measure(analysis: Analysis, answer: Answer, members: Cohort, non_members: Cohort) -> float | None:
    """The membership AUC of an exact answer.

    Args:
        analysis: the question as the study asks it.
        answer: its answer from the members alone.
        members, non_members: people with the question's whole panel and columns.

    Returns:
        the AUC, or None where no attack on this analysis is known here.
    """
    if members.genotypes is None or non_members.genotypes is None:
        return None
    inside, outside = members.genotypes.codes(), non_members.genotypes.codes()
    if isinstance(analysis, GenotypeCounts):
        table = answer.tables["frequencies"]
        return membership_auc_frequencies(np.asarray(table["frequency"]), np.asarray(table["an"]) / 2, inside, outside)
    if isinstance(analysis, LinearAssociation):
        table = answer.tables["associations"]
        one, other = _design(analysis, members), _design(analysis, non_members)
        known, other_known = np.isfinite(one).all(axis=1), np.isfinite(other).all(axis=1)
        return membership_auc_association(
            np.asarray(table["t"]),
            np.asarray(table["effect_allele_frequency"]),
            np.asarray(table["n"]),
            (inside[:, known], outside[:, other_known]),
            (one[known, -1], other[other_known, -1]),
            (one[known, :-1], other[other_known, :-1]),
        )
    return None


def _design(analysis: LinearAssociation, people: Cohort) -> NDArray[np.float64]:
    """(N, c + 2) intercept, covariates, trait."""
    columns = [people.columns[name] for name in (*analysis.covariates, analysis.trait)]
    return np.stack([np.ones(len(people)), *columns], axis=1)


def membership_auc_frequencies(
    released: NDArray[np.float64],
    people: NDArray[np.float64] | float,
    members: NDArray[np.uint8],
    non_members: NDArray[np.uint8],
    *,
    reference: NDArray[np.float64] | None = None,
    noise_sd: float = 0.0,
) -> float:
    """AUC of the noise-aware log-likelihood ratio of released allele frequencies.

    Args:
        released: (M,) released alternate allele frequencies; NaN where withheld.
        people: n, in all or (M,) per variant, behind them.
        members: (M, N1) genotype codes of people in the release.
        non_members: (M, N0) the same of people who are not.
        reference: (M,) frequencies that the attacker knows exactly, if any; else the other non-members' are used.
        noise_sd: standard deviation of the noise in a released allele count.

    Returns:
        the AUC.
    """
    usable = np.isfinite(released)
    n = np.broadcast_to(np.asarray(people, dtype=np.float64), released.shape)
    usable &= np.where(np.isfinite(n), n, 0) > 0
    scores = [np.zeros(members.shape[1]), np.zeros(non_members.shape[1])]
    for start in range(0, len(released), VARIANTS_AT_A_TIME):
        block = np.flatnonzero(usable[start : start + VARIANTS_AT_A_TIME]) + start
        r, pool = released[block, None], n[block, None]
        inside, outside = members[block], non_members[block]
        alleles = _alleles(outside).sum(axis=1, keepdims=True)
        known = (outside != MISSING).sum(axis=1, keepdims=True)
        for own, codes in enumerate((inside, outside)):
            seen = codes != MISSING
            if reference is None:
                # Half an allele of either kind keeps a frequency off 0 and 1. A non-member is left out of the
                # reference, or the score would know it by its own part in that.
                k = known - own * seen
                p = (alleles - own * _alleles(codes) + 0.5) / (2 * k + 1)
                share = 1 / (2 * k + 1)
            else:
                p, share = np.clip(reference[block, None], 1e-6, 1 - 1e-6), 0.0
            v = p * (1 - p) * (1 / (2 * pool) + share) + (noise_sd / (2 * pool)) ** 2
            d = np.where(seen, codes - 2 * p, 0.0) / (2 * pool)
            scores[own] += (d * (r - p) / v - d**2 / (2 * v)).sum(axis=0)
    return auc(*scores)


def membership_auc_association(
    t: NDArray[np.float64],
    frequencies: NDArray[np.float64],
    people: NDArray[np.float64],
    genotypes: tuple[NDArray[np.uint8], NDArray[np.uint8]],
    traits: tuple[NDArray[np.float64], NDArray[np.float64]],
    covariates: tuple[NDArray[np.float64], NDArray[np.float64]],
) -> float:
    """AUC of the log-likelihood ratio of released regression statistics.

    Args:
        t: (M,) released t statistics; NaN where withheld.
        frequencies: (M,) released frequencies of the effect allele.
        people: (M,) number of people behind each.
        genotypes: members' (M, N1) and non-members' (M, N0) codes.
        traits: (N1,) and (N0,) values of the trait.
        covariates: (N1, c) and (N0, c) covariates with an intercept.

    Returns:
        the AUC.
    """
    # Residuals from one fit over everybody: a fit over one of the two groups would shrink that group's residuals.
    everybody = np.concatenate(covariates)
    residual = np.concatenate(traits)
    residual = residual - everybody @ np.linalg.lstsq(everybody, residual, rcond=None)[0]
    e = residual / residual.std()
    usable = np.isfinite(t) & (np.abs(np.nan_to_num(t)) < MOST_TRUE_EFFECT) & (frequencies > 0) & (frequencies < 1)
    cut = len(traits[0])
    total, length, slope = np.zeros(len(e)), np.zeros(len(e)), np.zeros(len(e))
    for start in range(0, len(t), VARIANTS_AT_A_TIME):
        block = np.flatnonzero(usable[start : start + VARIANTS_AT_A_TIME]) + start
        p = frequencies[block, None]
        for codes, span in zip(genotypes, (slice(0, cut), slice(cut, None)), strict=True):
            z = np.where(codes[block] == MISSING, 0.0, (codes[block] - 2 * p) / np.sqrt(2 * p * (1 - p)))
            total[span] += t[block] @ z
            length[span] += (z**2).sum(axis=0)
            slope[span] += (z**2 / np.sqrt(people[block, None])).sum(axis=0)
    a = e * slope
    with np.errstate(invalid="ignore", divide="ignore"):
        score = np.where(length > 0, (a * total - a**2 / 2) / length, 0.0)
    return auc(score[:cut], score[cut:])


def auc(members: NDArray[np.float64], non_members: NDArray[np.float64]) -> float:
    """The chance that a random member scores above a random non-member; ties count half.

    >>> auc(np.array([2.0, 3.0]), np.array([1.0, 2.0]))
    0.875
    """
    ranks: NDArray[Any] = stats.rankdata(np.concatenate([members, non_members]))
    n1, n0 = len(members), len(non_members)
    return float((ranks[:n1].sum() - n1 * (n1 + 1) / 2) / (n1 * n0))


def standard_error(area: float, members: int, non_members: int) -> float:
    """Standard error of an AUC (Hanley and McNeil, Radiology 143 (1982), equation 1)."""
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    variance = area * (1 - area) + (members - 1) * (q1 - area**2) + (non_members - 1) * (q2 - area**2)
    return float(np.sqrt(variance / (members * non_members)))


def _alleles(codes: NDArray[np.uint8]) -> NDArray[np.int64]:
    return np.where(codes == MISSING, 0, codes).astype(np.int64)

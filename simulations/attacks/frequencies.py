"""Membership from allele frequencies and genotype counts.

The attacker adds up, over the variants, what a person's genotype says for or against membership; so an attack is a
table of M variants by 3 genotypes. A missing genotype says nothing.

Frequencies, noise-aware [1, 2]. Let A be the released number of alternate alleles above 2c for each of n people, with
noise of deviations s (in A) and t (in n), and p the reference frequency, known from k people. Z = A - 2 (p - c) n has
the variance v = 2n p (1 - p) (1 + n / k) + s^2 + (2 (p - c) t)^2 for everybody, and for a member with x alternate
alleles the mean d = x - 2p. The log-likelihood ratio of the two normals is

    sum over variants of  d Z / v - d^2 / 2v.

Leaving the noise out of v would weight the noisiest variants most and flatter the defence.

Genotype counts [3, equation 1, of genotypes instead of a likelihood of alleles]. A member's genotype is one of the n
that were counted, with chance c_g / n; another person's is one more of the population, with the predictive chance
(c_g + k_g + 1/2) / (n + k + 3/2), where k_g of the reference have it. The ratio of the two is the Bayes factor; a share
of wrong genotypes keeps it above zero.

[1] Homer et al.: Resolving individuals contributing trace amounts of DNA, PLoS Genetics 4 (2008), equation 1.
[2] Sankararaman et al.: Genomic privacy and limits of individual detection in a pool, Nature Genetics 41 (2009).
[3] Visscher, Hill: The limits of individual identification from sample allele frequencies, PLoS Genetics 5 (2009).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from strategies.analyses.allele_frequency import NoisedFrequency
from strategies.analysis import Answer
from strategies.cohort import MISSING

VARIANTS_AT_A_TIME = 2048

AS_GOOD_AS_KNOWN = 1e9
"""People behind a published frequency that is taken as exact."""

WRONG_GENOTYPES = 1e-3
"""Share of genotypes that the attacker knows wrongly."""

ALLELES = np.arange(3)


@dataclass(frozen=True)
class Reference:
    """Public people whom the attacker compares with.

    Attributes:
        counts: (M, 3) people with 0, 1 and 2 alternate alleles.
        own: whether a scored person is one of them, who is then left out, or a score would know its own part.
    """

    counts: NDArray[np.float64]
    own: bool = False

    @staticmethod
    def published(frequencies: NDArray[np.float64]) -> Reference:
        """From (M,) frequencies taken as exact, in Hardy-Weinberg proportions."""
        p = np.clip(frequencies, 1e-6, 1 - 1e-6)
        return Reference(AS_GOOD_AS_KNOWN * np.stack([(1 - p) ** 2, 2 * p * (1 - p), p**2], axis=1))

    @staticmethod
    def of(codes: NDArray[np.uint8], own: bool = False) -> Reference:
        """From (M, N) genotype codes."""
        return Reference(np.stack([(codes == g).sum(axis=1) for g in ALLELES], axis=1).astype(np.float64), own)

    @property
    def people(self) -> NDArray[np.float64]:
        """(M, 1) observed people, without the scored one."""
        return np.asarray(self.counts.sum(axis=1, keepdims=True) - self.own, dtype=np.float64)

    @property
    def frequencies(self) -> NDArray[np.float64]:
        """(M, 3) alternate allele frequency without the scored person, for each genotype that person may have.

        Half an allele of either kind keeps it off 0 and 1.
        """
        alleles = (self.counts @ ALLELES)[:, None] - self.own * ALLELES
        return np.asarray((alleles + 0.5) / (2 * self.people + 1), dtype=np.float64)


@dataclass(frozen=True)
class Release:
    """Released alternate allele counts with the noise that their answer states.

    Attributes:
        above: (M,) A, alternate alleles above `centre` times two for each of the people; NaN where withheld.
        centre: (M,) c; zero for a plain count.
        people: (M,) n, people with a genotype behind each.
        noise_sd, people_noise_sd: deviations s and t of the noise in `above` and in `people`, (M,) or one for all.
    """

    above: NDArray[np.float64]
    centre: NDArray[np.float64]
    people: NDArray[np.float64]
    noise_sd: NDArray[np.float64] | float = 0.0
    people_noise_sd: NDArray[np.float64] | float = 0.0

    @staticmethod
    def exact(answer: Answer) -> Release:
        """Of exact genotype counts."""
        table = answer.tables["frequencies"]
        ac, an = (np.asarray(table[c], dtype=np.float64) for c in ("ac", "an"))
        return Release(ac, np.zeros(len(ac)), an / 2)

    @staticmethod
    def private(answer: Answer, published: NDArray[np.float64]) -> Release:
        """Of noised frequencies, which are centred at the panel's (M,) published ones, rounded to their grid.

        The noise of the number of people enters every count with 2c; taking it off again leaves one noise a variant.
        """
        table = answer.tables["frequencies"]
        unit = 2.0 ** (NoisedFrequency.FRACTION_BITS + 1)
        centre = np.rint(published * unit) / unit
        ac, ac_sd, an, an_sd = (
            np.asarray(table[c], dtype=np.float64) for c in ("ac", "ac_noise_sd", "an", "an_noise_sd")
        )
        sd = np.sqrt(np.maximum(ac_sd**2 - (centre * an_sd) ** 2, 0.0))
        return Release(ac - centre * an, centre, np.maximum(an / 2, 1.0), sd, an_sd / 2)

    @property
    def frequencies(self) -> NDArray[np.float64]:
        """(M,) as released."""
        return np.asarray(self.centre + self.above / (2 * self.people), dtype=np.float64)


def frequency_ratio(release: Release, reference: Reference) -> NDArray[np.float64]:
    """(M, 3) noise-aware log-likelihood ratio of membership, by variant and genotype."""
    p, n, c = reference.frequencies, release.people[:, None], release.centre[:, None]
    s, t = (np.asarray(sd, dtype=np.float64).reshape(-1, 1) for sd in (release.noise_sd, release.people_noise_sd))
    sampled = 2 * n * p * (1 - p) * (1 + 2 * n / (2 * reference.people + 1))
    with np.errstate(invalid="ignore", divide="ignore"):
        v = sampled + s**2 + (2 * (p - c) * t) ** 2
        d = ALLELES - 2 * p
        out = d * (release.above[:, None] - 2 * (p - c) * n) / v - d**2 / (2 * v)
    return _spoken(out)


def homer(release: Release, reference: Reference) -> NDArray[np.float64]:
    """(M, 3) Homer's distance [1]: how much nearer a genotype is to the release than to the reference."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return _spoken(np.abs(ALLELES / 2 - reference.frequencies) - np.abs(ALLELES / 2 - release.frequencies[:, None]))


def genotype_ratio(counts: NDArray[np.float64], reference: Reference) -> NDArray[np.float64]:
    """(M, 3) log Bayes factor of membership from (M, 3) released genotype counts; NaN rows are withheld."""
    n = counts.sum(axis=1, keepdims=True)
    seen = reference.counts - reference.own
    with np.errstate(invalid="ignore", divide="ignore"):
        predicted = (counts + seen + 0.5) / (n + reference.people + 1.5)
        return _spoken(np.log((1 - WRONG_GENOTYPES) * counts / n / predicted + WRONG_GENOTYPES))


def genotype_counts(answer: Answer) -> NDArray[np.float64]:
    """(M, 3) released people with 0, 1 and 2 alternate alleles."""
    table = answer.tables["frequencies"]
    return np.stack([np.asarray(table[c], dtype=np.float64) for c in ("hom_ref", "het", "hom_alt")], axis=1)


def scores(table: NDArray[np.float64], codes: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(N,) sums of an (M, 3) table's entries at each person's (M, N) genotypes; with (M, 3, R), (N, R) for R tables."""
    out = np.zeros((codes.shape[1], *table.shape[2:]))
    for start in range(0, len(table), VARIANTS_AT_A_TIME):
        block, here = codes[start : start + VARIANTS_AT_A_TIME], table[start : start + VARIANTS_AT_A_TIME]
        # Relative to the genotype without alternate alleles, which is what most people have at most variants.
        out += here[:, 0].sum(axis=0)
        steps = [here[:, 1] - here[:, 0], here[:, 2] - here[:, 0], -here[:, 0]]
        for code, step in zip((1, 2, MISSING), steps, strict=True):
            at = block == code
            if code != MISSING or at.any():
                out += at.T.astype(np.float32) @ step.astype(np.float32)
    return out


def log_threshold(false_alarms: float) -> float:
    """A log-likelihood ratio that another person passes with at most this chance, by Markov's inequality: the ratio's
    mean over others is 1. No member need be looked at to set it.

    >>> round(log_threshold(1e-4), 2)
    9.21
    """
    return float(-np.log(false_alarms))


def _spoken(table: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.nan_to_num(table, nan=0.0, posinf=0.0, neginf=0.0)

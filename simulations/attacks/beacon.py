"""Membership from yes and no: a Beacon says, allele by allele, whether anybody in the data set carries it.

If nobody else carries an allele that a member has, the answer is yes because of that member. With n people and an
allele of frequency p, D_n = (1 - p)^2n is the chance of a no. For a carrier of the allele, "no" has the chance D_n if
not a member and delta D_(n-1) if one, where delta is the chance of a wrong genotype [1, equation 1]; where each answer
is turned round with chance q, both chances are mixed with their complements. The attacker asks the rarest carried
alleles first [2, 3].

[1] Shringarpure, Bustamante: Privacy Risks from Genomic Data-Sharing Beacons, AJHG 97 (2015).
[2] Raisaro et al.: Addressing Beacon re-identification attacks, JAMIA 24 (2017): the optimal attack.
[3] von Thenen, Ayday, Cicek: Re-identification of individuals in genomic data-sharing beacons via allele inference,
    Bioinformatics 35 (2019).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from simulations.attacks.frequencies import Reference
from strategies.cohort import MISSING

WRONG_ALLELES = 1e-6
"""delta of [1]."""


def beacon_ratio(
    answers: NDArray[np.bool_], people: float, reference: Reference, turned: float = 0.0
) -> NDArray[np.float64]:
    """(M, 3) log-likelihood ratio of membership from (M,) answers, by variant and genotype.

    Args:
        answers: whether anybody carries the alternate allele.
        people: n.
        reference: public people.
        turned: q, the chance with which each answer was turned round; 0 if answers are exact.
    """
    p = reference.frequencies
    if not 0 <= turned < 0.5:
        raise ValueError(f"turned must be from 0 to below 0.5, got {turned}.")
    no_other, no_member = (1 - p) ** (2 * people), WRONG_ALLELES * (1 - p) ** (2 * people - 2)
    no_other, no_member = ((1 - turned) * no + turned * (1 - no) for no in (no_other, no_member))
    tiny = np.finfo(np.float64).tiny
    no = np.log(np.maximum(no_member, tiny) / np.maximum(no_other, tiny))
    yes = np.log(np.maximum(1 - no_member, tiny) / np.maximum(1 - no_other, tiny))
    out = np.where(answers[:, None], yes, no)
    out[:, 0] = 0.0  # nobody asks for an allele that the target does not have
    return out


def rarest_first(
    codes: NDArray[np.uint8], frequencies: NDArray[np.float64], queries: float = math.inf
) -> NDArray[np.uint8]:
    """(M, N) codes with only each person's `queries` rarest carried alleles; all else is as if it were not known.

    Args:
        codes: (M, N) genotype codes.
        frequencies: (M,) of the alternate allele.
        queries: how many the attacker may ask.
    """
    order = np.argsort(frequencies, kind="stable")
    carried = (codes[order] == 1) | (codes[order] == 2)
    asked = np.zeros_like(carried)
    asked[order] = carried & (np.cumsum(carried, axis=0) <= queries)
    return np.where(asked, codes, MISSING).astype(np.uint8)

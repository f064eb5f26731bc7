"""Who lies outside the thresholds, and who is to be left out of the data set."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from fl_client.qc.genotypes import Place
from fl_client.qc.kinship import Relatives
from fl_client.qc.measures import Measures
from fl_client.qc.thresholds import Thresholds
from fl_client.qc.unrelated import families, unrelated
from strategies.ploidy import FEMALE, MALE

LEAST_VARIANTS = 5000
"""Autosomal variants by which relatives are judged: the kinship of strangers then has a standard deviation of 0.015, if
the variants are unlinked, so that 0.0884 is almost six away."""

LEAST_CHROMOSOMES = 10
"""Autosomes by which they are judged: a single stretch in common is too much of a chromosome or two."""

LEAST_ON_X = 100
"""Variants on X, polymorphic and outside the paired regions, by which a person's sex is judged."""


class Reason(StrEnum):
    """Why a person is to be left out, in the order in which it is looked at."""

    CALL_RATE = "call_rate"
    SEX = "sex"
    HETEROZYGOSITY = "heterozygosity"
    RELATED = "related"


@dataclass(frozen=True, eq=False)
class Verdict:
    """What becomes of N people.

    Attributes:
        reasons: Reason -> (N,) whether it holds for each person; a relative is one who is to be left out for it.
        unjudged: Reason -> why nobody was judged by it.
        mean, sd: heterozygosity of the people who are called well enough, and its sample standard deviation.
        variants: (M,) whether each variant is called often enough.
        families: number of people in each connected family of relatives, largest first.
    """

    reasons: dict[Reason, NDArray[np.bool_]] = field(repr=False)
    unjudged: dict[Reason, str]
    mean: float
    sd: float
    families: tuple[int, ...]

    @property
    def out(self) -> NDArray[np.bool_]:
        """(N,) whether a person is to be left out."""
        return np.asarray(np.any(list(self.reasons.values()), axis=0))


def unjudged(measures: Measures) -> dict[Reason, str]:
    """Which reasons the data set says too little about, and why."""
    out = {}
    autosomal = measures.used & (measures.variants.places == Place.AUTOSOME)
    chromosomes = len(np.unique(measures.variants.chromosomes[autosomal]))
    if autosomal.sum() < LEAST_VARIANTS or chromosomes < LEAST_CHROMOSOMES:
        out[Reason.RELATED] = (
            f"{autosomal.sum():,} autosomal variants on {chromosomes} chromosomes; "
            f"relatives are judged by at least {LEAST_VARIANTS:,} on {LEAST_CHROMOSOMES}"
        )
    if not autosomal.any():
        out[Reason.HETEROZYGOSITY] = "no autosomal variant is called often enough"
    if measures.x.polymorphic < LEAST_ON_X:
        out[Reason.SEX] = (
            f"{measures.x.polymorphic:,} polymorphic variants on X outside its paired regions; "
            f"sex is judged by at least {LEAST_ON_X}"
        )
    elif not measures.sex.any():
        out[Reason.SEX] = "the people table has no column that says who is male (1) and who is female (2)"
    return out


def judge(people: tuple[str, ...], measures: Measures, relatives: Relatives | None, thresholds: Thresholds) -> Verdict:
    """Hold everybody against the thresholds.

    Heterozygosity is held against those who are called well enough. Relatives are looked for among those who pass all
    else, so that nobody goes for a relative who goes anyway.

    Args:
        relatives: pairs above the threshold, or None where they are not judged.
    """
    without = unjudged(measures)
    nobody = np.zeros(len(people), dtype=bool)
    reasons = {reason: nobody.copy() for reason in Reason}
    reasons[Reason.CALL_RATE] = ~(measures.call_rates >= thresholds.person_call_rate)
    rate, mean, sd = measures.autosomes.rate, math.nan, math.nan
    if Reason.SEX not in without:
        f = measures.x.coefficient
        reasons[Reason.SEX] = ((measures.sex == MALE) & ~(f > thresholds.male_f)) | (
            (measures.sex == FEMALE) & ~(f < thresholds.female_f)
        )
    well = ~reasons[Reason.CALL_RATE]
    if Reason.HETEROZYGOSITY not in without and well.sum() > 1:
        mean, sd = float(rate[well].mean()), float(rate[well].std(ddof=1))
        reasons[Reason.HETEROZYGOSITY] = well & ~(np.abs(rate - mean) <= thresholds.heterozygosity_sd * sd)
    sizes: list[int] = []
    if relatives is not None:
        pairs = list(zip(relatives.first.tolist(), relatives.second.tolist(), strict=True))
        sizes = families(pairs)
        fine = ~np.any(list(reasons.values()), axis=0)
        among = [(i, j) for i, j in pairs if fine[i] and fine[j]]
        reasons[Reason.RELATED][list(unrelated(people, measures.called.tolist(), among))] = True
    return Verdict(reasons, without, mean, sd, tuple(sizes))

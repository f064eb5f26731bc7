"""Where quality control draws its lines."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Thresholds:
    """What a person or a variant is held against. The defaults are the field's [1, 2].

    Attributes:
        person_call_rate: least share of genotypes observed in a person, on the autosomes and X.
        variant_call_rate: least share of people observed at a variant. One below it is reported and stays in the data
            set, but nobody's heterozygosity, sex or relatives are judged by it.
        heterozygosity_sd: most standard deviations between a person's heterozygosity and the mean.
        female_f, male_f: the inbreeding coefficient on X is below the first in women and above the second in men.
        kinship: people with more than this are relatives; 2^-3.5 = 0.0884 is where the second degree begins.

    [1] Anderson et al.: Data quality control in genetic case-control association studies, Nat Protoc 5 (2010).
    [2] Manichaikul et al.: Robust relationship inference in genome-wide association studies, Bioinformatics 26 (2010).
    """

    person_call_rate: float = 0.97
    variant_call_rate: float = 0.95
    heterozygosity_sd: float = 3.0
    female_f: float = 0.2
    male_f: float = 0.8
    kinship: float = 0.0884

    def __post_init__(self) -> None:
        if not (0 <= self.person_call_rate <= 1 and 0 <= self.variant_call_rate <= 1):
            raise ValueError("a call rate must be from 0 to 1.")
        if not self.heterozygosity_sd > 0:
            raise ValueError("heterozygosity_sd must be above 0.")
        if not -1 <= self.female_f <= self.male_f <= 1:
            raise ValueError("female_f must be at most male_f, both from -1 to 1.")
        if not 0 < self.kinship < 0.5:
            raise ValueError("kinship must be between 0 and 0.5, which is a person's with themselves.")

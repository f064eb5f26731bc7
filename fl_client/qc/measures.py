"""What one pass over the genotypes says about each person and each variant."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numba import njit
from numpy.typing import NDArray

from fl_client.qc.genotypes import Place, Variants, blocks
from fl_client.readers import Dataset
from strategies.analysis import Range
from strategies.cohort import MISSING
from strategies.ploidy import FEMALE, MALE

_PEOPLE_AT_A_TIME = 1024


@dataclass(frozen=True, eq=False)
class Inbreeding:
    """Heterozygous calls of N people over some of the variants, and what their frequencies let expect.

    Attributes:
        polymorphic: how many of them had both alleles.
        observed, heterozygous: (N,) number of each person's calls, and of heterozygous ones.
        expected: (N,) homozygous calls expected at the variants observed, in Hardy-Weinberg proportions.
    """

    polymorphic: int
    observed: NDArray[np.int64] = field(repr=False)
    heterozygous: NDArray[np.int64] = field(repr=False)
    expected: NDArray[np.float64] = field(repr=False)

    @property
    def rate(self) -> NDArray[np.float64]:
        """(N,) share of heterozygous calls; NaN without a call."""
        return _ratio(self.heterozygous, self.observed)

    @property
    def coefficient(self) -> NDArray[np.float64]:
        """(N,) F = (observed - expected) / (calls - expected) homozygous calls [1]; NaN where nothing is expected.

        [1] Purcell et al.: PLINK, Am J Hum Genet 81 (2007), as `--het` and `--check-sex` print it.
        """
        return _ratio(self.observed - self.heterozygous - self.expected, self.observed - self.expected)


@dataclass(frozen=True, eq=False)
class Measures:
    """N people and M variants, measured.

    Attributes:
        variants: which they are.
        sex: (N,) MALE, FEMALE, or 0 where the people table says neither.
        counts: (M, 4) people with 0, 1, 2 alternate alleles and none observed; on Y of men alone.
        called: (N,) number of genotypes observed on the autosomes and X, whatever the variants' call rate.
        countable: how many variants those are.
        used: (M,) whether a variant is called often enough to judge people by.
        autosomes, x: heterozygous calls at variants used on the autosomes, and on X outside the paired regions.
    """

    variants: Variants
    sex: NDArray[np.int8] = field(repr=False)
    counts: NDArray[np.int32] = field(repr=False)
    called: NDArray[np.int64] = field(repr=False)
    countable: int
    used: NDArray[np.bool_] = field(repr=False)
    autosomes: Inbreeding
    x: Inbreeding

    @property
    def call_rates(self) -> NDArray[np.float64]:
        """(N,) share of genotypes observed in each person; NaN without a variant that counts."""
        return _ratio(self.called, np.full(len(self.called), self.countable))

    @property
    def variant_call_rates(self) -> NDArray[np.float64]:
        """(M,) share of people observed at each variant; NaN on Y where no man is known."""
        return called(self.counts)


def called(counts: NDArray[np.int32]) -> NDArray[np.float64]:
    """(M,) share of people observed, of (M, 4) counts of genotypes; NaN for nobody."""
    whole = counts.sum(axis=1)
    return _ratio(whole - counts[:, MISSING], whole)


def measure(data: Dataset, variants: Variants, sex: NDArray[np.int8], least_call_rate: float) -> Measures:
    """Read all genotypes once.

    Args:
        sex: (N,) what the people table says.
        least_call_rate: of a variant to judge people by.
    """
    people, men = len(sex), sex == MALE
    counts = np.empty((len(variants), 4), dtype=np.int32)
    used = np.zeros(len(variants), dtype=bool)
    counting = np.isin(variants.places, (Place.AUTOSOME, Place.X, Place.X_PAIRED))
    total, autosomes, x = _Sums.zero(people), _Sums.zero(people), _Sums.zero(people)
    for span, codes in blocks(data, variants.rows):
        places = variants.places[span]
        counts[span] = _count(codes, np.ones(people, dtype=bool))
        if (y := places == Place.Y).any():
            counts[span][y] = _count(codes[y], men)
        used[span] = called(counts[span]) >= least_call_rate
        autosome, on_x = places == Place.AUTOSOME, places == Place.X
        total.add(codes, counting[span], np.zeros(len(codes)))
        one_copy = np.zeros_like(counts[span])
        if on_x.any():
            one_copy[on_x] = _count(codes[on_x], men)
        homozygous = _homozygous(counts[span] - one_copy, one_copy)
        autosomes.add(codes, autosome & used[span], homozygous)
        x.add(codes, on_x & used[span], homozygous)
    countable = int(counting.sum())
    return Measures(variants, sex, counts, total.observed, countable, used, autosomes.inbreeding(), x.inbreeding())


def sex_of(data: Dataset, column: str) -> NDArray[np.int8]:
    """(N,) MALE, FEMALE, or 0 for anything else, of a column of the people table; all 0 if it has no such column. Of a
    declared variable, the categories "male" and "female" are meant."""
    if data.missing_columns((column,)):
        return np.zeros(len(data.people), dtype=np.int8)
    if column in data.table.variables and data.table.variables[column].shape.categories:
        values = data.table.values(column, Range.of("male", "female")) + MALE
    else:
        values = data.table.column(column)
    return np.where(values == MALE, MALE, np.where(values == FEMALE, FEMALE, 0)).astype(np.int8)


@dataclass(eq=False)
class _Sums:
    """`Inbreeding` while it is added up, in the file's order of variants: the same bits whatever the blocks."""

    polymorphic: int
    observed: NDArray[np.int64]
    heterozygous: NDArray[np.int64]
    expected: NDArray[np.float64]

    @staticmethod
    def zero(people: int) -> _Sums:
        return _Sums(0, np.zeros(people, np.int64), np.zeros(people, np.int64), np.zeros(people))

    def add(self, codes: NDArray[np.uint8], chosen: NDArray[np.bool_], homozygous: NDArray[np.float64]) -> None:
        """Add those of the (K, N) codes that are chosen, and the share of homozygous people to expect at each."""
        rows = np.flatnonzero(chosen)
        _add(codes, rows, homozygous[rows], self.observed, self.heterozygous, self.expected)
        self.polymorphic += int((homozygous[rows] < 1).sum())

    def inbreeding(self) -> Inbreeding:
        return Inbreeding(self.polymorphic, self.observed, self.heterozygous, self.expected)


def _homozygous(two: NDArray[np.int32], one: NDArray[np.int32]) -> NDArray[np.float64]:
    """(K,) share 1 - 2pq of homozygous people; p of the (K, 4) counts of people with two copies, and of those with one.

    Heterozygous calls of one copy are errors, and say nothing about p.
    """
    alternate = two[:, 1] + 2 * two[:, 2] + one[:, 2]
    copies = 2 * two[:, :MISSING].sum(axis=1) + one[:, 0] + one[:, 2]
    p = alternate / np.maximum(copies, 1)  # where nobody is observed nothing is added, so p may be anything but NaN
    return np.asarray(1 - 2 * p * (1 - p))


def _ratio(above: NDArray[np.float64 | np.int64], below: NDArray[np.float64 | np.int64]) -> NDArray[np.float64]:
    """Their quotient; NaN where `below` is 0."""
    out = np.full(np.shape(above), np.nan)
    np.divide(above, below, out=out, where=below != 0)
    return out


@njit(cache=True, nogil=True)
def _counts(codes, chosen, out):  # type: ignore[no-untyped-def]
    for k in range(codes.shape[0]):
        one = two = missing = np.int32(0)
        for i in range(codes.shape[1]):
            code = codes[k, i]
            one += chosen[i] & (code == 1)
            two += chosen[i] & (code == 2)
            missing += chosen[i] & (code == 3)
        out[k, 1], out[k, 2], out[k, 3] = one, two, missing


def _count(codes: NDArray[np.uint8], chosen: NDArray[np.bool_]) -> NDArray[np.int32]:
    """(K, 4) number of the chosen people by genotype."""
    out = np.empty((len(codes), 4), dtype=np.int32)
    _counts(codes, chosen, out)
    out[:, 0] = chosen.sum() - out[:, 1:].sum(axis=1)
    return out


@njit(cache=True, nogil=True)
def _add(codes, rows, homozygous, observed, heterozygous, expected):  # type: ignore[no-untyped-def]
    seen, mixed = np.empty(_PEOPLE_AT_A_TIME, np.int32), np.empty(_PEOPLE_AT_A_TIME, np.int32)
    for start in range(0, codes.shape[1], _PEOPLE_AT_A_TIME):  # whose sums stay in the cache
        size = min(_PEOPLE_AT_A_TIME, codes.shape[1] - start)
        share = expected[start : start + size].copy()
        seen[:], mixed[:] = 0, 0
        for k in range(len(rows)):
            row, chance = codes[rows[k], start : start + size], homozygous[k]
            for i in range(size):
                seen[i] += np.int32(row[i] != MISSING)
                mixed[i] += np.int32(row[i] == 1)
            for i in range(size):
                share[i] += chance if row[i] != MISSING else 0.0
        for i in range(size):
            observed[start + i] += seen[i]
            heterozygous[start + i] += mixed[i]
            expected[start + i] = share[i]

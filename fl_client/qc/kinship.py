"""How closely every two people are related, by KING-robust [1]: two bits a genotype, and bits counted.

For people i and j, over the variants at which both were observed,

    kinship = 1/2 - (4 N_AA,aa + N_Aa,hom + N_hom,Aa) / (4 min(N_Aa(i), N_Aa(j)))

with N_AA,aa opposite homozygotes and N_Aa,hom heterozygotes in i alone: equation 11 of [1], for pairs that may come
from different families, as `plink2 --make-king` computes it. It needs no allele frequencies, so that strangers of one
ancestry come out at 0 whatever the others' are; strangers of two ancestries come out below.

Genotypes are turned person by person into a scratch file without a name, of a quarter byte each, which the system
removes when the process ends. So memory grows with the people, not with the variants nor with the pairs.

[1] Manichaikul et al.: Robust relationship inference in genome-wide association studies, Bioinformatics 26 (2010).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_client.qc.genotypes import SPAN, blocks
from fl_client.readers import Dataset
from fl_client.readers.held import Held
from strategies.kernels.compiled import compiled, ones
from strategies.kernels.threads import in_pieces

DEGREES = (2**-1.5, 2**-2.5, 2**-3.5, 2**-4.5)
"""Least kinship of a duplicate or identical twin, and of relatives of the first, second and third degree [1]."""

KINSHIP_BINS = np.linspace(-0.3, 0.5, 161)
OPPOSITE_BINS = np.linspace(0.0, 0.25, 126)
"""Edges of the picture of all pairs; what lies outside is drawn at the edge."""

_WORDS = SPAN // 64
_TILE = 2048
_CACHED = 64
_PEOPLE_AT_A_TIME = 1024
_BOTH_HETEROZYGOUS, _ONE_HETEROZYGOUS, _OTHER_HETEROZYGOUS, _BOTH_HOMOZYGOUS, _OPPOSITE = range(5)


@dataclass(frozen=True, eq=False)
class Relatives:
    """R pairs of people above a kinship, and what all pairs look like together.

    Attributes:
        first, second: (R,) the two people; first < second, in the data set's order.
        observed: (R,) variants at which both were observed.
        both_heterozygous, opposite: (R,) at how many of them both were heterozygous, or opposite homozygotes.
        kinship: (R,) KING-robust.
        degrees: (5,) number of all pairs by degree as DEGREES cuts them, strangers last; not those of whom one has no
            heterozygous genotype where both were observed, since they have no kinship.
        density: (125, 160) number of all pairs by share of opposite homozygotes and kinship.
    """

    first: NDArray[np.int32] = field(repr=False)
    second: NDArray[np.int32] = field(repr=False)
    observed: NDArray[np.int32] = field(repr=False)
    both_heterozygous: NDArray[np.int32] = field(repr=False)
    opposite: NDArray[np.int32] = field(repr=False)
    kinship: NDArray[np.float64] = field(repr=False)
    degrees: NDArray[np.int64]
    density: NDArray[np.int64] = field(repr=False)

    def __len__(self) -> int:
        return len(self.kinship)


def relatives(data: Dataset, rows: NDArray[np.int64], above: float, scratch: Path) -> Relatives:
    """Compare every two people of a data set.

    Args:
        rows: the variants, as rows of its genotype file: autosomal ones.
        above: list the pairs with more kinship than this.
        scratch: the folder of the scratch file.

    Raises:
        DataError: if the scratch file cannot be made there, or the disk is full.
    """
    planes = Held.scratch(scratch)
    _turn(data, rows, planes)
    return _compare(planes, len(data.people), -(-len(rows) // SPAN), above)


def _turn(data: Dataset, rows: NDArray[np.int64], planes: Held) -> None:
    """Write the genotypes as bit planes: span by span of variants, (N, 2, _WORDS) words."""
    words = np.empty((len(data.people), 2, _WORDS), dtype=np.uint64)
    for span, codes in blocks(data, rows):
        if span.start % SPAN == 0:
            words.fill(np.iinfo(np.uint64).max)  # missing: so is what a last span does not fill
        _set_bits(codes, span.start % SPAN // 64, words)
        if span.stop % SPAN == 0 or span.stop == len(rows):
            planes.append(words.data)


def _compare(planes: Held, people: int, spans: int, above: float) -> Relatives:
    """Tile by tile of the pairs, through all spans of variants."""
    degrees = np.zeros(len(DEGREES) + 1, dtype=np.int64)
    density = np.zeros((len(OPPOSITE_BINS) - 1, len(KINSHIP_BINS) - 1), dtype=np.int64)
    whom, counted, kinship = [np.empty((0, 2), np.int32)], [np.empty((0, 5), np.int32)], [np.empty(0)]
    for i in range(0, people, _TILE):
        for j in range(0, i + 1, _TILE):
            counts = np.zeros((min(_TILE, people - i), min(_TILE, people - j), 5), dtype=np.int32)
            for span in range(spans):
                one = _read(planes, people, span, i)
                other = one if i == j else _read(planes, people, span, j)
                in_pieces(partial(_count_rows, one, other, i == j, counts), len(one), _CACHED)
            here = np.empty(counts.shape[:2])
            _conclude(counts, i == j, here, degrees, density)
            at = np.nonzero(here > above)
            whom.append(np.stack([at[1] + j, at[0] + i], axis=1).astype(np.int32))
            counted.append(counts[at])
            kinship.append(here[at])
    pairs, kinds = np.concatenate(whom), np.concatenate(counted)
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    pairs, kinds = pairs[order], kinds[order]
    return Relatives(
        pairs[:, 0], pairs[:, 1], kinds[:, :_OPPOSITE].sum(axis=1, dtype=np.int32), kinds[:, _BOTH_HETEROZYGOUS],
        kinds[:, _OPPOSITE], np.concatenate(kinship)[order], degrees, density,
    )  # fmt: skip


def _read(planes: Held, people: int, span: int, start: int) -> NDArray[np.uint64]:
    """(_TILE, 2, _WORDS) words of the people from `start`, fewer at the end."""
    words = np.empty((min(_TILE, people - start), 2, _WORDS), dtype=np.uint64)
    planes.read(words.data, (span * people + start) * words[0].nbytes)
    return words


def _count_rows(
    one: NDArray[np.uint64], other: NDArray[np.uint64], same: bool, counts: NDArray[np.int32], rows: slice
) -> None:
    _count(one[rows], other, rows.start if same else len(other), counts[rows])


@compiled
def _set_bits(codes: Any, first_word: Any, words: Any) -> None:
    """Put (K, N) codes into (N, 2, W) words, 64 variants to a word: low bits of the codes, high bits of the codes."""
    variants, people = codes.shape
    low, high = np.empty(_PEOPLE_AT_A_TIME, np.uint64), np.empty(_PEOPLE_AT_A_TIME, np.uint64)
    for start in range(0, people, _PEOPLE_AT_A_TIME):
        size = min(_PEOPLE_AT_A_TIME, people - start)
        for k in range(0, variants, 64):
            here = min(64, variants - k)
            rest = ~np.uint64(0) << np.uint64(here) if here < 64 else np.uint64(0)
            low[:], high[:] = rest, rest
            for bit in range(here):
                row = codes[k + bit, start : start + size]
                for i in range(size):
                    code = np.uint64(row[i])
                    low[i] |= (code & np.uint64(1)) << np.uint64(bit)
                    high[i] |= (code >> np.uint64(1)) << np.uint64(bit)
            for i in range(size):
                words[start + i, 0, first_word + k // 64] = low[i]
                words[start + i, 1, first_word + k // 64] = high[i]


@compiled
def _count(one: Any, other: Any, before: Any, counts: Any) -> None:
    """Add to (A, B, 5) counts, of people of (A, 2, W) words with those of (B, 2, W): the first `before` + i for the
    person i, so that people are not compared with themselves."""
    for columns in range(0, len(other), _CACHED):
        for i in range(len(one)):
            low_i, high_i = one[i, 0], one[i, 1]
            for j in range(columns, min(columns + _CACHED, before + i, len(other))):
                low_j, high_j = other[j, 0], other[j, 1]
                a = b = c = d = e = np.uint64(0)
                for w in range(low_i.size):
                    homozygous_i, homozygous_j = ~low_i[w], ~low_j[w]
                    heterozygous_i, heterozygous_j = low_i[w] & ~high_i[w], low_j[w] & ~high_j[w]
                    both = homozygous_i & homozygous_j
                    a += ones(heterozygous_i & heterozygous_j)
                    b += ones(heterozygous_i & homozygous_j)
                    c += ones(homozygous_i & heterozygous_j)
                    d += ones(both)
                    e += ones(both & (high_i[w] ^ high_j[w]))
                pair = counts[i, j]
                pair[_BOTH_HETEROZYGOUS] += a
                pair[_ONE_HETEROZYGOUS] += b
                pair[_OTHER_HETEROZYGOUS] += c
                pair[_BOTH_HOMOZYGOUS] += d
                pair[_OPPOSITE] += e


@compiled
def _conclude(counts: Any, same: Any, kinship: Any, degrees: Any, density: Any) -> None:
    """From (A, B, 5) counts: kinship (A, B), NaN where there is none; and every pair is added to the two totals."""
    low_kinship, per_kinship = KINSHIP_BINS[0], 1 / (KINSHIP_BINS[1] - KINSHIP_BINS[0])
    per_opposite = 1 / OPPOSITE_BINS[1]
    for i in range(counts.shape[0]):
        for j in range(counts.shape[1]):
            pair = counts[i, j]
            one, other, opposite = pair[_ONE_HETEROZYGOUS], pair[_OTHER_HETEROZYGOUS], pair[_OPPOSITE]
            least = pair[_BOTH_HETEROZYGOUS] + min(one, other)
            if (same and j >= i) or least == 0:
                kinship[i, j] = np.nan
                continue
            value = 0.5 - (4 * opposite + one + other) / (4 * least)
            kinship[i, j] = value
            degree = 0
            while degree < len(DEGREES) and value <= DEGREES[degree]:
                degree += 1
            degrees[degree] += 1
            share = opposite / (pair[_BOTH_HETEROZYGOUS] + one + other + pair[_BOTH_HOMOZYGOUS])
            x = min(max(int(share * per_opposite), 0), density.shape[0] - 1)
            y = min(max(int(np.floor((value - low_kinship) * per_kinship)), 0), density.shape[1] - 1)
            density[x, y] += 1

"""How many copies of a place people carry, by chromosome, build and sex; and people counted by what they carry.

Two copies: autosomes and the pseudo-autosomal regions of X. Elsewhere on X females carry two and males one; males alone
carry Y, one copy of it; of MT everybody carries one. A heterozygous genotype where somebody carries one copy is taken
as missing. These are the counts of `plink2 --split-par --geno-counts`, but for one thing: on X outside its
pseudo-autosomal regions, somebody whose sex is unknown counts as missing here and as a female there.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from strategies.analysis import Range
from strategies.cohort import Cohort, Genotypes
from strategies.errors import UsageError
from strategies.variants import CHROMOSOMES, Panel

PSEUDO_AUTOSOMAL = {
    "GRCh37": ((60_001, 2_699_520), (154_931_044, 155_260_560)),
    "GRCh38": ((10_001, 2_781_479), (155_701_383, 156_030_895)),
}
"""Build -> first and last position on X of regions PAR#1 and PAR#2. Genome Reference Consortium, assembly regions of
GRCh37.p13 and GRCh38.p14."""

TWO, BY_SEX, MALES, ONE = range(4)
"""Who carries how many: everybody two; females two and males one; males one and females none; everybody one."""

MALE, FEMALE = 1, 2
"""A sex column's codes, as in PLINK's .fam; any other number is an unknown sex."""

CELLS = ("hom_ref", "het", "hom_alt", "missing", "hemi_ref", "hemi_alt", "hemi_missing")
"""People who carry two copies, by genotype, then people who carry one. Without a sex column only the first four."""

_KINDS = np.array([{"X": BY_SEX, "Y": MALES, "MT": ONE}.get(name, TWO) for name in CHROMOSOMES], dtype=np.uint8)
_LOW = np.uint64(0x5555_5555_5555_5555)
_BLOCK_BYTES = 1 << 20


def copies(panel: Panel) -> NDArray[np.uint8]:
    """(M,) who carries how many copies of each variant's place.

    >>> from strategies.variants import Variant
    >>> at = [("22", 5), ("X", 2_699_520), ("X", 2_699_521), ("Y", 5), ("MT", 5)]
    >>> copies(Panel("GRCh37", tuple(Variant(c, p, ".", "A", "C") for c, p in at))).tolist()
    [0, 0, 1, 2, 3]
    """
    kind = _KINDS[panel.places.chromosomes]
    for first, last in PSEUDO_AUTOSOMAL[panel.assembly]:
        kind[(kind == BY_SEX) & (first <= panel.places.positions) & (panel.places.positions <= last)] = TWO
    return kind


def check_sex(panel: Panel, name: str, column: str | None, spans: Mapping[str, Range], males_alone: bool) -> None:
    """Hold a question to naming its column of sexes where its panel has variants of which not all have two copies.

    Args:
        panel, name: the panel, or a slice of it, and its name.
        column: name of the column of sexes, if the question names one.
        spans: the columns' ranges.
        males_alone: whether variants on Y can be asked about.

    Raises:
        UsageError: if it does not, if the column's range is not that of sexes, or for variants on Y.
    """
    kind = copies(panel)
    if column is not None and (spans[column].minimum, spans[column].maximum) not in ((MALE, FEMALE), (0, FEMALE)):
        raise UsageError(
            "A column of sexes holds 1 for male and 2 for female, and may hold 0 for unknown.",
            f"the range of {column!r} is [{spans[column].minimum:g}, {spans[column].maximum:g}]",
            f"declare {column} = [1, 2] or [0, 2] in the study's [columns].",
        )
    if column is None and kind.any():
        raise UsageError(
            "Variants on X outside its pseudo-autosomal regions, on Y and on MT are read by sex.",
            f"{np.count_nonzero(kind)} of panel {name!r}, the first is {panel.variants[int(np.argmax(kind > 0))]}, "
            "and no column of sexes",
            'add sex = "COLUMN" to the question (1 male, 2 female), or leave them out of the panel.',
        )
    if not males_alone and (kind == MALES).any():
        raise UsageError(
            "A regression is over everybody, and females have no genotype on Y.",
            f"{np.count_nonzero(kind == MALES)} of panel {name!r}, the first is "
            f"{panel.variants[int(np.argmax(kind == MALES))]}",
            "leave variants on Y out of the panel.",
        )


def counts_by_group(
    genotypes: Genotypes, group: NDArray[np.int64], groups: int, rows: NDArray[np.int64] | None = None
) -> NDArray[np.int64]:
    """(M, G, 4) people of each group with 0, 1 and 2 alternate alleles, and with none observed.

    Args:
        genotypes: M variants by N people.
        group: (N,) from 0 to G - 1; -1 for somebody who is left out.
        groups: G.
        rows: the M variants that are counted, if not all.

    >>> g = Genotypes.pack(np.array([[0, 1, 2, 3, 2]], dtype=np.uint8))
    >>> counts_by_group(g, np.array([0, 0, 1, 1, -1]), 2).tolist()
    [[[1, 1, 0, 0], [0, 0, 1, 1]]]
    """
    members = group == np.arange(groups)[:, None]
    masks = _words(Genotypes.pack(members.astype(np.uint8)).packed)
    rows = np.arange(len(genotypes)) if rows is None else rows
    out = np.empty((len(rows), groups, 4), dtype=np.int64)
    step = max(1, _BLOCK_BYTES // max(1, genotypes.packed.shape[1]))
    for start in range(0, len(rows), step):
        span = slice(start, start + step)
        block = _words(genotypes.packed[rows[span]])
        low, high = block & _LOW, (block >> np.uint64(1)) & _LOW
        both = low & high
        for g, mask in enumerate(masks):
            for code, bits in ((1, low), (2, high), (3, both)):
                out[span, g, code] = np.bitwise_count(bits & mask).sum(axis=1, dtype=np.int64)
    out[:, :, 1:3] -= out[:, :, 3:]
    out[:, :, 0] = members.sum(axis=1) - out[:, :, 1:].sum(axis=2)
    return out


def counts_by_copies(
    genotypes: Genotypes, kind: NDArray[np.uint8], group: NDArray[np.int64], groups: int, sex: NDArray[np.float64]
) -> NDArray[np.int64]:
    """(M, G, 7) people of each group in each of `CELLS`; a female is in no cell of a variant on Y.

    Args:
        genotypes: M variants by N people.
        kind: (M,) as `copies` gives it.
        group, groups: as `counts_by_group` takes them.
        sex: (N,) MALE, FEMALE, or anything else where it is unknown.
    """
    out = np.zeros((len(genotypes), groups, len(CELLS)), dtype=np.int64)
    everybody = np.flatnonzero((kind == TWO) | (kind == ONE))
    one = kind[everybody] == ONE
    counted = counts_by_group(genotypes, group, groups, everybody)
    out[everybody[~one], :, :4] = counted[~one]
    out[everybody[one], :, 4:] = _one_copy(counted[one])
    rows = np.flatnonzero((kind == BY_SEX) | (kind == MALES))
    if len(rows):
        column = np.select([sex == FEMALE, sex == MALE], [0, 1], 2)
        strata = np.where(group < 0, -1, 3 * group + column)
        female, male, unknown = np.moveaxis(
            counts_by_group(genotypes, strata, 3 * groups, rows).reshape(len(rows), groups, 3, 4), 2, 0
        )
        out[rows, :, 4:] = _one_copy(male)
        female[:, :, 3] += unknown.sum(axis=2)
        out[rows, :, :4] = np.where((kind[rows] == BY_SEX)[:, None, None], female, 0)
    return out


def read_by_sex(cohort: Cohort, panel: Panel, column: str | None) -> Genotypes:
    """A cohort's genotypes, where a heterozygous one of somebody with one copy is missing, and on X all of somebody
    whose sex is unknown. One copy stays coded 0 or 2, as PLINK's files have it and `plink2 --glm` takes X.

    Args:
        cohort: M variants by N people.
        panel: of M variants, none of them on Y.
        column: name of the column of sexes; None where everybody has two copies of each.

    >>> from strategies.variants import Variant
    >>> panel = Panel("GRCh37", tuple(Variant(c, 5_000_000, ".", "A", "C") for c in ("22", "X")))
    >>> codes = np.array([[0, 1, 1, 2, 2], [0, 1, 1, 2, 2]], dtype=np.uint8)
    >>> cohort = Cohort(5, Genotypes.pack(codes), {"sex": np.array([1.0, 1, 2, 1, 0])})
    >>> read_by_sex(cohort, panel, "sex").codes().tolist()
    [[0, 1, 1, 2, 2], [0, 3, 1, 2, 3]]
    """
    assert cohort.genotypes is not None
    if column is None:
        return cohort.genotypes
    kind, sex = copies(panel), cohort.columns[column]
    everybody, men, unknown = (
        Genotypes.pack(who.astype(np.uint8)[None]).packed[0]
        for who in (np.ones(len(cohort), dtype=bool), sex == MALE, (sex != MALE) & (sex != FEMALE))
    )
    packed = cohort.genotypes.packed.copy() if kind.any() else cohort.genotypes.packed
    for row in np.flatnonzero(kind):
        cells, by_sex = packed[row], kind[row] == BY_SEX
        heterozygous = cells & ~(cells >> 1) & (men if by_sex else everybody)
        packed[row] = cells | heterozygous << 1 | (unknown * np.uint8(3) if by_sex else np.uint8(0))
    return Genotypes(packed, len(cohort))


def _one_copy(counted: NDArray[np.int64]) -> NDArray[np.int64]:
    """(M, G, 3) reference, alternate and missing of one copy, from (M, G, 4) counts."""
    return np.stack([counted[:, :, 0], counted[:, :, 2], counted[:, :, 1] + counted[:, :, 3]], axis=2)


def _words(packed: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """(m, ceil(bytes / 8)) the same bits in words of 64, the last one padded with zeros."""
    m, width = packed.shape
    out = np.zeros((m, -(-width // 8) * 8), dtype=np.uint8)
    out[:, :width] = packed
    return out.view(np.uint64)

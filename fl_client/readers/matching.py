"""Which of a site's variants is which of a panel's.

A site's entry stands for a panel's variant at the same place (chromosome, and position in the site's own build), if

1. its alleles are the same as written; or, if there is no such entry,
2. swapped: the site's reference is the panel's alternate, so that what it counts is 2 minus what is asked;
3. flipped: single letters, each the complement of the panel's, as on the other strand;
4. flipped and swapped.

Of 2 to 4 exactly one must hold. A palindromic variant (A/T, C/G) matches as written alone: swapped, it looks as if it
were flipped, so it is absent; in a panel that does not say which allele is the reference, it is swapped. Alleles of
several letters are not flipped, and swapped only where the site gives a reference genome and that has one of the two
alleles and not both: in a run of T, A/AT is an insertion and AT/A another variant, a deletion. With a genome both sides
are also compared in their left-most, shortest spelling, the spelling as written first; if two of the site's entries
come to the same one, neither stands for it.
"""

from __future__ import annotations

from collections import abc
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fl_client.readers.index import SEVERAL, Entries, Index, place
from fl_client.readers.sequence import Sequence
from strategies.variants import CHROMOSOMES, COMPLEMENT, How, Panel

_STARTS = np.array([place(name, 0) for name in CHROMOSOMES], dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Match:
    """Where each of a panel's M variants stands at a site.

    Attributes:
        rows: (M,) the site's row, or -1.
        how: (M,) a `How`; where SEVERAL or NO_POSITION (in the site's build), the row is -1.
        places: (M,) the place of each, -1 where it has none.
    """

    rows: NDArray[np.int64]
    how: NDArray[np.uint8]
    places: NDArray[np.int64]

    @property
    def swapped(self) -> NDArray[np.bool_]:
        """(M,) whether the site counts the panel's reference allele."""
        return np.isin(self.how, (How.SWAPPED, How.FLIPPED_AND_SWAPPED))

    @property
    def flipped(self) -> NDArray[np.bool_]:
        """(M,) whether the site has the variant on the other strand."""
        return np.isin(self.how, (How.FLIPPED, How.FLIPPED_AND_SWAPPED))

    def counts(self) -> dict[str, int]:
        """How -> variants, of all the ways there are."""
        return {how.name.lower(): int(np.count_nonzero(self.how == how)) for how in How}


def aligned(index: Index, sequence: Sequence) -> Index | None:
    """Those of a site's variants whose left-most, shortest spelling is another than that in its file; None if none is.

    Raises:
        DataError: if the reference genome is shorter than its index says.
    """
    entries = Entries("reference genome", several=True)
    spelt = list(index.alleles)
    long = np.array([len(r) + len(a) > 2 for r, a in spelt], dtype=bool)
    count = 0
    for k in np.flatnonzero(long[index.pairs]):
        name, position = CHROMOSOMES[index.places[k] >> 32], int(index.places[k]) & 0xFFFFFFFF
        written = (position, *spelt[index.pairs[k]])
        shortest = sequence.aligned(name, *written)
        if shortest != written:
            entries.enter(int(index.rows[k]), int(k), name, str(shortest[0]), *shortest[1:])
            count += 1
    return entries.index() if count else None


@dataclass(frozen=True, eq=False)
class _Spelling:
    """The reference and the alternate allele of M variants: (M,) numbers among pairs."""

    numbers: NDArray[np.int64]
    pairs: abc.Sequence[tuple[str, str]]

    def __getitem__(self, variant: np.intp | np.int64) -> tuple[str, str]:
        return self.pairs[int(self.numbers[variant])]

    def among(self, known: abc.Mapping[tuple[str, str], int]) -> NDArray[np.int64]:
        """(M,) a site's number of each pair, -1 where it has none; each is looked up once."""
        some, inverse = np.unique(self.numbers, return_inverse=True)
        return np.array([known.get(self.pairs[k], -1) for k in some.tolist()], dtype=np.int64)[inverse]


def match(panel: Panel, assembly: str, index: Index, realigned: Index | None, sequence: Sequence | None) -> Match:
    """Find a panel's variants among a site's.

    Args:
        panel: M variants.
        assembly: the site's build, one of the panel's.
        index: the site's variants.
        realigned: those of them that `aligned` spells otherwise.
        sequence: the site's reference genome, if it gives one.

    Raises:
        DataError: if the reference genome is shorter than its index says.
    """
    positions, spelling = panel.positions(assembly), _Spelling(panel.places.pairs, panel.places.spelt)
    numbers = _STARTS[panel.places.chromosomes]
    places = np.where(positions > 0, numbers + positions, -1)
    rows, how = _oriented(index, places, spelling, sequence, panel.oriented)
    if sequence is not None:
        left = np.flatnonzero((how == How.ABSENT) & (places >= 0))
        spelt = [
            sequence.aligned(panel.variants[j].chromosome, int(positions[j]), *spelling[j])
            if sum(map(len, spelling[j])) > 2
            else (int(positions[j]), *spelling[j])
            for j in left
        ]
        shortest = np.array([numbers[j] + s[0] for j, s in zip(left, spelt, strict=True)], dtype=np.int64)
        anew = _Spelling(np.arange(len(left)), [s[1:] for s in spelt])
        for other in (index, realigned):
            if other is not None and len(left):
                found, way = _oriented(other, shortest, anew, sequence, panel.oriented)
                new = (how[left] == How.ABSENT) & (way != How.ABSENT)
                rows[left[new]], how[left[new]] = found[new], way[new]
    how[places < 0] = How.NO_POSITION
    return Match(rows, how, places)


def _oriented(
    index: Index,
    places: NDArray[np.int64],
    alleles: _Spelling,
    sequence: Sequence | None,
    reference_known: bool,
) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """(M,) rows and ways of variants that are looked for in every orientation."""
    known = index.alleles
    rows = index.find(places, alleles.among(known))
    how = np.where(rows >= 0, How.AS_WRITTEN, How.ABSENT).astype(np.uint8)
    how[rows == SEVERAL] = How.SEVERAL
    left = np.flatnonzero(rows == -1)
    turned: dict[How, list[int]] = {How.SWAPPED: [], How.FLIPPED: [], How.FLIPPED_AND_SWAPPED: []}
    for j in left:
        reference, alternate = alleles[j]
        single = len(reference) == len(alternate) == 1
        r, a = reference.translate(COMPLEMENT), alternate.translate(COMPLEMENT)
        flips = single and r != alternate
        swapped = known.get((alternate, reference), -1)
        turns = (
            flips or not reference_known if single else _one_is_there(sequence, int(places[j]), reference, alternate)
        )
        swapped = swapped if turns else -1
        turned[How.SWAPPED].append(swapped)
        turned[How.FLIPPED].append(known.get((r, a), -1) if flips else -1)
        turned[How.FLIPPED_AND_SWAPPED].append(known.get((a, r), -1) if flips else -1)
    for way, pairs in turned.items():
        found = index.find(places[left], np.array(pairs, dtype=np.int64))
        several = (found == SEVERAL) | ((found >= 0) & (how[left] != How.ABSENT))
        once = (found >= 0) & ~several & (how[left] == How.ABSENT)
        rows[left[once]], how[left[once]] = found[once], way
        rows[left[several]], how[left[several]] = -1, How.SEVERAL
    rows[rows == SEVERAL] = -1
    return rows, how


def _one_is_there(sequence: Sequence | None, at: int, reference: str, alternate: str) -> bool:
    """Whether a genome has one of two alleles at a place, and not both."""
    if sequence is None or at < 0:
        return False
    position, longest = at & 0xFFFFFFFF, max(len(reference), len(alternate))
    here = sequence.letters(CHROMOSOMES[at >> 32], position, position + longest - 1)
    return here.startswith(reference) != here.startswith(alternate)


def shown(found: Match) -> str:
    """The counts of a match, for the node's own operator."""
    said = {name.replace("_", " "): count for name, count in found.counts().items() if count}
    return ", ".join(f"{count:,} {name}" for name, count in said.items())

"""A site's own list of variants, in columns: some forty bytes for each, however many people there are."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fl_client.readers.intervals import Intervals
from strategies import variants
from strategies.errors import DataError
from strategies.variants import CHROMOSOMES

Key = tuple[str, int, str, str]
"""Chromosome, position, reference, alternate: one entry of a site's own list of variants."""

SEVERAL = -2
"""What is found where more than one row stands under a key."""

_chromosome = lru_cache(maxsize=4096)(variants.chromosome)
_NUMBERS = {name: number for number, name in enumerate(CHROMOSOMES)}


def place(chromosome: str, position: int) -> int:
    """A place as one number: places of a chromosome follow each other."""
    return _NUMBERS[chromosome] << 32 | position


@dataclass(frozen=True, eq=False)
class Index:
    """Variants and the rows of a file that hold them, ordered by place.

    Attributes:
        places: (E,) the place of each entry, ascending.
        pairs: (E,) the number of its pair of alleles.
        rows: (E,) its row in the file.
        alleles: (reference, alternate) -> the pair's number.
        touched: the places of all entries with the length of their references, and of what no panel can hold.
    """

    places: NDArray[np.int64]
    pairs: NDArray[np.int32]
    rows: NDArray[np.int64]
    alleles: Mapping[tuple[str, str], int] = field(repr=False)
    touched: Intervals = field(repr=False)

    def __len__(self) -> int:
        return len(self.places)

    def __iter__(self) -> Iterator[Key]:
        spelt = list(self.alleles)
        for where, pair in zip(self.places.tolist(), self.pairs.tolist(), strict=True):
            yield (CHROMOSOMES[where >> 32], where & 0xFFFFFFFF, *spelt[pair])

    def find(self, places: NDArray[np.int64], pairs: NDArray[np.int64]) -> NDArray[np.int64]:
        """(K,) the row of each place and pair of alleles; -1 where there is none, SEVERAL where there is more than one.

        The cost is that of K look-ups in an ordered list, whatever the size of the site.
        """
        found = np.full(len(places), -1, dtype=np.int64)
        at = np.searchsorted(self.places, places)
        open_ = np.flatnonzero(pairs >= 0)
        while len(open_):
            open_ = open_[at[open_] < len(self.places)]
            open_ = open_[self.places[at[open_]] == places[open_]]
            same = open_[self.pairs[at[open_]] == pairs[open_]]
            found[same] = np.where(found[same] == -1, self.rows[at[same]], SEVERAL)
            at[open_] += 1
        return found


class Entries:
    """A list of variants while it is read: `enter` each, then `index` them."""

    def __init__(self, where: str, several: bool = False) -> None:
        """`where` is what an entry's number is put behind, such as "x.bim, line"; `several` lets a variant stand on
        more than one row."""
        self._where, self._several = where, several
        self._places, self._rows, self._numbers, self._pairs = array("q"), array("q"), array("q"), array("i")
        self._alleles: dict[tuple[str, str], int] = {}
        self._starts, self._ends = array("q"), array("q")

    def enter(self, row: int, number: int, chromosome: str, position: str, reference: str, alternate: str) -> bool:
        """Enter a variant, as written, at its row, if it can be in a panel.

        Passed over, since no panel holds them: other contigs, positions below 1 (PLINK's "unplaced"), and alleles that
        are not spelt in A, C, G, T (`0`, `.`, `*`, `<DEL>`, `N`, breakends). Lower case alleles are read as upper case.

        Args:
            row: the variant's row in the file.
            number: the number of its line or record, for errors.
            chromosome, position, reference, alternate: the variant.

        Returns:
            Whether it was entered.

        Raises:
            DataError: for a position that is no number, or two equal alleles.
        """
        reference, alternate = reference.upper(), alternate.upper()
        digits = position.removeprefix("-")
        if not (digits.isascii() and digits.isdigit() and int(digits) < 2**31):
            raise DataError(
                "A variant's position is a whole number below 2147483648.",
                f"{self._where} {number}: position {position[:20]!r}",
                "correct the line, or write the file again with the tool that made it.",
            )
        known = _chromosome(chromosome)
        if known is None or int(position) < 1:
            return False
        at = place(known, int(position))
        usable = _spelt(reference) and _spelt(alternate)
        if not usable or len(reference) > 1:
            self._starts.append(at)
            self._ends.append(at + max(1, len(reference)) - 1)
        if not usable:
            return False
        if reference == alternate:
            raise DataError(
                "A variant has two different alleles.",
                f"{self._where} {number}: {known}:{position} has {reference[:20]!r} twice",
                "correct the line, or write the file again with the tool that made it.",
            )
        self._places.append(at)
        self._pairs.append(self._alleles.setdefault((reference, alternate), len(self._alleles)))
        self._rows.append(row)
        self._numbers.append(number)
        return True

    def enter_all(
        self,
        chromosomes: Sequence[str],
        positions: Sequence[str],
        references: Sequence[str],
        alternates: Sequence[str],
    ) -> None:
        """Enter every line of a file, the first of which is number 1 and row 0: columns of it, as `enter` takes them.

        Raises:
            DataError: as `enter` does.
        """
        if not self._enter_columns(chromosomes, positions, references, alternates):
            for row, line in enumerate(zip(chromosomes, positions, references, alternates, strict=True)):
                self.enter(row, row + 1, *line)

    def _enter_columns(
        self,
        chromosomes: Sequence[str],
        positions: Sequence[str],
        references: Sequence[str],
        alternates: Sequence[str],
    ) -> bool:
        """Enter the columns if every position is plain digits and no line would be refused."""
        digits = "".join(positions)
        if not (digits.isascii() and digits.isdigit() and all(positions) and max(map(len, positions)) <= 10):
            return False
        at = np.array(list(map(int, positions)), dtype=np.int64)
        names = {name: _chromosome(name) for name in set(chromosomes)}
        numbers = {name: -1 if known is None else _NUMBERS[known] for name, known in names.items()}
        number = np.array([numbers[name] for name in chromosomes], dtype=np.int64)
        written = list(zip(references, alternates, strict=True))
        kinds = {pair: kind for kind, pair in enumerate(dict.fromkeys(written))}
        spelt = [(reference.upper(), alternate.upper()) for reference, alternate in kinds]
        kind = np.array([kinds[pair] for pair in written], dtype=np.int64)
        usable = np.array([_spelt(r) and _spelt(a) for r, a in spelt])[kind]
        there = (number >= 0) & (at > 0)
        entered = there & usable
        equal = np.array([r == a for r, a in spelt])[kind]
        if at.max() >= 2**31 or (entered & equal).any():
            return False
        pairs = np.full(len(spelt), -1, dtype=np.int32)
        for k in np.unique(kind[entered]):
            pairs[k] = self._alleles.setdefault(spelt[k], len(self._alleles))
        places, lengths = number << 32 | at, np.array([max(1, len(r)) for r, _ in spelt])[kind]
        wide = there & (~usable | (lengths > 1))
        self._starts.frombytes(places[wide].tobytes())
        self._ends.frombytes((places + lengths - 1)[wide].tobytes())
        rows = np.flatnonzero(entered)
        self._places.frombytes(places[rows].tobytes())
        self._pairs.frombytes(pairs[kind[rows]].tobytes())
        self._rows.frombytes(rows.tobytes())
        self._numbers.frombytes((rows + 1).tobytes())
        return True

    def index(self) -> Index:
        """All that was entered.

        Raises:
            DataError: if nothing was, or a variant was entered twice.
        """
        places, pairs = np.array(self._places, dtype=np.int64), np.array(self._pairs, dtype=np.int32)
        if not len(places):
            raise empty(self._where.rsplit(",", 1)[0])
        order = np.lexsort((np.array(self._numbers), pairs, places))
        places, pairs = places[order], pairs[order]
        again = np.flatnonzero((places[1:] == places[:-1]) & (pairs[1:] == pairs[:-1])) + 1
        rows = np.array(self._rows, dtype=np.int64)[order]
        if len(again) and not self._several:
            second = min(again, key=lambda k: self._numbers[order[k]])
            key = (CHROMOSOMES[places[second] >> 32], places[second] & 0xFFFFFFFF, *list(self._alleles)[pairs[second]])
            raise DataError(
                "The variants of a genotype file are distinct.",
                f"{self._where} {self._numbers[order[second]]}: {':'.join(map(str, key))} stands there a second time",
                "remove one of the two, for example with `plink2 --rm-dup` or `bcftools norm -d exact`.",
            )
        touched = Intervals.of(
            np.concatenate([places, np.array(self._starts, dtype=np.int64)]),
            np.concatenate([places, np.array(self._ends, dtype=np.int64)]),
        )
        return Index(places, pairs, rows, self._alleles, touched)


def empty(where: str) -> DataError:
    """The error for a file of genotypes without a variant."""
    return DataError("A genotype file holds at least one variant.", f"{where}: none", "name the file that has them.")


def _spelt(allele: str) -> bool:
    return bool(allele) and not allele.strip("ACGT")

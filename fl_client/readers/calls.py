"""Called genotypes as they lie in a site's files: whose they are, of which variants, and some of them on demand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from strategies import variants
from strategies.errors import DataError

Key = tuple[str, int, str, str]
"""Chromosome, position, reference, alternate: one entry of a site's own list of variants."""

_chromosome = lru_cache(maxsize=4096)(variants.chromosome)


class Calls(Protocol):
    """One file of genotypes, opened and checked."""

    @property
    def people(self) -> tuple[str, ...]:
        """The N people of the file, distinct, in the file's order."""
        ...

    @property
    def rows(self) -> Mapping[Key, int]:
        """Each usable variant -> its row in the file."""
        ...

    def codes(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """(K, N) alternate allele counts 0, 1, 2 or MISSING, of K of the rows, in the order asked.

        Raises:
            DataError: if the file can no longer be read.
        """
        ...


def enter(rows: dict[Key, int], row: int, entry: tuple[str, str, str, str], where: str) -> bool:
    """Enter a variant (chromosome, position, reference, alternate, as written) at its row, if it can be in a panel.

    Passed over, since no panel holds them: other contigs, positions below 1 (PLINK's "unplaced"), and alleles that are
    not spelt in A, C, G, T (`0`, `.`, `*`, `<DEL>`, `N`, breakends). Lower case alleles are read as upper case.

    Returns:
        Whether it was entered.

    Raises:
        DataError: for a position that is no number, two equal alleles, or a variant that was entered before.
    """
    name, place, reference, alternate = entry[0], entry[1], entry[2].upper(), entry[3].upper()
    digits = place.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and int(digits) < 2**31):
        raise DataError(
            "A variant's position is a whole number below 2147483648.",
            f"{where}: position {place[:20]!r}",
            "correct the line, or write the file again with the tool that made it.",
        )
    known = _chromosome(name)
    if known is None or int(place) < 1 or not (_spelt(reference) and _spelt(alternate)):
        return False
    if reference == alternate:
        raise DataError(
            "A variant has two different alleles.",
            f"{where}: {known}:{place} has {reference[:20]!r} twice",
            "correct the line, or write the file again with the tool that made it.",
        )
    key = (known, int(place), reference, alternate)
    if rows.setdefault(key, row) != row:
        raise DataError(
            "The variants of a genotype file are distinct.",
            f"{where}: {':'.join(map(str, key))} stands there a second time",
            "remove one of the two, for example with `plink2 --rm-dup` or `bcftools norm -d exact`.",
        )
    return True


def distinct(people: Sequence[str], where: str) -> tuple[str, ...]:
    """The people of a file, once each.

    Raises:
        DataError: if there are none, one has no identifier, or one stands there twice.
    """
    if not people:
        raise DataError("A file of people names at least one person.", f"{where}: none", "add one line per person.")
    if not all(people):
        raise DataError(
            "Every person has an identifier.",
            f"{where}: person {people.index('') + 1} has none",
            "fill it in, or remove the line.",
        )
    again = [person for person, times in Counter(people).items() if times > 1]
    if again:
        raise DataError(
            "The people of a file are distinct.",
            f"{where}: {len(again)} more than once, {shown(again)}",
            "remove or rename all but one entry of each.",
        )
    return tuple(people)


def shown(names: Sequence[str]) -> str:
    """At most three of the names, for the node's own eyes."""
    return ", ".join(repr(n[:40]) for n in names[:3]) + (" ..." if len(names) > 3 else "")


def lines(path: Path) -> Iterator[str]:
    """The lines of a text file, without their ends.

    Raises:
        DataError: if it is not there, or not UTF-8 text.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            for line in file:
                yield line.rstrip("\n")
    except OSError as error:
        raise absent(path, error) from None
    except UnicodeDecodeError as error:
        raise DataError(
            "A file of text is written in UTF-8.",
            f"{path.name}: {error.reason} at byte {error.start}",
            "write it again in UTF-8; if it is compressed, decompress it.",
        ) from None


def absent(path: Path, error: OSError) -> DataError:
    """The error for a file that is not there or may not be read."""
    return DataError(
        "Every file of a data set is there and readable.",
        f"{path}: {error.strerror or error}",
        "correct the path in the [dataset] table, or the file's permissions.",
    )


def empty(where: str) -> DataError:
    """The error for a file of genotypes without a variant."""
    return DataError("A genotype file holds at least one variant.", f"{where}: none", "name the file that has them.")


def _spelt(allele: str) -> bool:
    return bool(allele) and not allele.strip("ACGT")

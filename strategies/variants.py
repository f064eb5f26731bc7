"""Which variants, in which build and orientation. A panel is public and is sent by the coordinator, never by a node."""

from __future__ import annotations

import gzip
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from strategies.errors import UsageError

ASSEMBLIES = ("GRCh37", "GRCh38")
CHROMOSOMES = (*(str(c) for c in range(1, 23)), "X", "Y", "MT")
COMPLEMENT = str.maketrans("ACGT", "TGCA")
HEADER = ("#CHROM", "POS", "ID", "REF", "ALT")
MOST_VARIANTS = 5_000_000


def chromosome(name: str) -> str | None:
    """The canonical name of a chromosome (`chr22` -> `22`, `chrM` -> `MT`), or None if it is not one of ours."""
    bare = name.removeprefix("chr")
    bare = {"M": "MT", "23": "X", "24": "Y", "26": "MT"}.get(bare, bare)
    return bare if bare in CHROMOSOMES else None


@dataclass(frozen=True, slots=True)
class Variant:
    """One alternate allele at one place. `frequency` is a *published* alternate allele frequency, if one is known."""

    chromosome: str
    position: int
    identifier: str
    reference: str
    alternate: str
    frequency: float | None = None

    @property
    def key(self) -> tuple[str, int, str, str]:
        return self.chromosome, self.position, self.reference, self.alternate

    @property
    def palindromic(self) -> bool:
        """True if the two alleles are each other's complement, so that a swap and a strand flip look alike."""
        return len(self.reference) == 1 and self.reference.translate(COMPLEMENT) == self.alternate

    def __str__(self) -> str:
        return f"{self.chromosome}:{self.position}:{self.reference}:{self.alternate}"


@dataclass(frozen=True)
class Panel:
    """An ordered, public list of distinct variants in one assembly.

    >>> panel = Panel("GRCh37", (Variant("22", 24334948, "rs1", "G", "A"),))
    >>> Panel.decode(panel.encode(), "GRCh37", "here") == panel
    True
    """

    assembly: str
    variants: tuple[Variant, ...]

    def __len__(self) -> int:
        return len(self.variants)

    def __getitem__(self, span: slice) -> Panel:
        return Panel(self.assembly, self.variants[span])

    @property
    def frequencies(self) -> NDArray[np.float64]:
        """(M,) published alternate allele frequencies; 0.5, the least favourable value, where none is given."""
        return np.array([0.5 if v.frequency is None else v.frequency for v in self.variants])

    def encode(self) -> bytes:
        """The panel as a tab-separated text; equal panels give equal bytes."""
        out = ["\t".join((*HEADER, "FREQUENCY"))]
        for v in self.variants:
            frequency = "." if v.frequency is None else repr(v.frequency)
            out.append(f"{v.chromosome}\t{v.position}\t{v.identifier}\t{v.reference}\t{v.alternate}\t{frequency}")
        return ("\n".join(out) + "\n").encode()

    @staticmethod
    def decode(text: bytes, assembly: str, where: str) -> Panel:
        """Read a panel strictly.

        Raises:
            UsageError: for an unknown assembly, a wrong header, a malformed or duplicate line.
        """
        if assembly not in ASSEMBLIES:
            raise UsageError(
                f"A panel's assembly must be one of {', '.join(ASSEMBLIES)}.", f"{assembly!r}", "correct `assembly`."
            )
        lines = io.StringIO(text.decode("utf-8", errors="strict")).read().splitlines()
        header = tuple(lines[0].split("\t")) if lines else ()
        if header not in (HEADER, (*HEADER, "FREQUENCY")):
            raise UsageError(
                "A panel starts with a header of five or six named columns.",
                f"{where}: {' '.join(header)[:80]!r}",
                f"start it with {' '.join(HEADER)} and, if wanted, FREQUENCY, separated by tabs.",
            )
        if len(lines) - 1 > MOST_VARIANTS:
            raise UsageError(
                f"A panel holds at most {MOST_VARIANTS} variants.", f"{where}: {len(lines) - 1}", "split the study."
            )
        variants: list[Variant] = []
        seen: dict[tuple[str, int, str, str], int] = {}
        for number, line in enumerate(lines[1:], start=2):
            variant = _variant(line, len(header), f"{where}, line {number}")
            if variant.key in seen:
                raise UsageError(
                    "The variants of a panel are distinct.",
                    f"{where}: {variant} stands on lines {seen[variant.key]} and {number}",
                    "remove one of the two.",
                )
            seen[variant.key] = number
            variants.append(variant)
        if not variants:
            raise UsageError("A panel holds at least one variant.", f"{where}: none", "add one line per variant.")
        return Panel(assembly, tuple(variants))

    @staticmethod
    def read(path: Path, assembly: str) -> Panel:
        """Read a panel from a plain or gzipped file.

        Raises:
            UsageError: if the file is missing, unreadable or malformed.
        """
        try:
            raw = path.read_bytes()
            text = gzip.decompress(raw) if path.suffix == ".gz" else raw
            return Panel.decode(text, assembly, path.name)
        except (OSError, EOFError, UnicodeDecodeError) as error:
            raise UsageError(
                "A study's panel must be a readable text file.",
                f"{path}: {type(error).__name__}",
                "correct `file` in the study's [panels] table.",
            ) from None


def _variant(line: str, columns: int, where: str) -> Variant:
    cells = line.split("\t")
    problem = None
    frequency: float | None = None
    if len(cells) != columns:
        problem = f"{len(cells)} columns instead of {columns}"
    elif chromosome(cells[0]) is None:
        problem = f"chromosome {cells[0][:12]!r}"
    elif not (cells[1].isascii() and cells[1].isdigit() and len(cells[1]) <= 10 and 0 < int(cells[1]) < 2**31):
        problem = f"position {cells[1][:12]!r}"
    elif any(not allele or set(allele) - set("ACGT") for allele in cells[3:5]) or cells[3] == cells[4]:
        problem = f"alleles {cells[3][:12]!r} and {cells[4][:12]!r}"
    elif columns == len(HEADER) + 1 and cells[5] != ".":
        try:
            frequency = float(cells[5])
        except ValueError:
            frequency = math.nan
        if not 0 <= frequency <= 1:
            problem = f"frequency {cells[5][:12]!r}"
    if problem:
        raise UsageError(
            "A panel's line holds chromosome, position, identifier, two different alleles of A, C, G, T and, if the "
            "header has it, a frequency from 0 to 1 or '.'.",
            f"{where}: {problem}",
            "correct the line; example: 22<tab>24334948<tab>rs1<tab>G<tab>A",
        )
    name = chromosome(cells[0])
    assert name is not None
    return Variant(name, int(cells[1]), cells[2], cells[3], cells[4], frequency)


def match(
    panel: Sequence[Variant], rows: Mapping[tuple[str, int, str, str], int]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Where each variant of a panel stands among a site's own.

    A site's entry (chromosome, position, reference, alternate) matches a panel's variant if the alleles are the same,
    or swapped, in which case alternate counts become 2 minus themselves. A swapped palindromic variant is taken as
    absent: a swap and a strand flip cannot be told apart there. The site's mapping is built once, so a slice of a
    panel costs in proportion to the slice, not to the site.

    Args:
        panel: M variants.
        rows: a site's entry -> its row.

    Returns:
        index: (M,) the site's row, or -1 where absent.
        swapped: (M,) whether the site counts the panel's reference allele.
    """
    index = np.full(len(panel), -1, dtype=np.int64)
    swapped = np.zeros(len(panel), dtype=bool)
    for j, v in enumerate(panel):
        i = rows.get(v.key)
        if i is None and not v.palindromic:
            i = rows.get((v.chromosome, v.position, v.alternate, v.reference))
            swapped[j] = i is not None
        index[j] = -1 if i is None else i
    return index, swapped

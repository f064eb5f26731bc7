"""PLINK files: .bed with .bim and .fam (PLINK 1), .pgen with .pvar and .psam (PLINK 2).

1. Chang et al., GigaScience 4:7 (2015); the formats: https://www.cog-genomics.org/plink/1.9/formats#bed and
   https://www.cog-genomics.org/plink/2.0/formats#pgen
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pgenlib import PgenReader

from fl_client.readers.calls import Key, absent, distinct, empty, enter, lines
from strategies.cohort import MISSING
from strategies.errors import DataError

_MAGIC = b"\x6c\x1b"
_SNP_MAJOR = 1
_CELLS_AT_A_TIME = 1 << 24

# A pair of bits in a .bed: 00 two copies of A1, 01 missing, 10 one copy, 11 none; A1 is the allele that we count.
_PAIRS = np.array([2, MISSING, 1, 0], dtype=np.uint8)
_QUADS = _PAIRS[(np.arange(256)[:, None] >> np.array([0, 2, 4, 6])) & 3]


@dataclass(frozen=True, eq=False)
class Bed:
    """PLINK 1 genotypes, read from the disk as they are asked for.

    Column 5 of the .bim (A1, usually the minor or the alternate allele) is the alternate, column 6 (A2) the reference;
    a panel with the two the other way round matches by swapping.

    Attributes:
        cells: (M, ceil(N / 4)) bytes of the .bed, mapped.
    """

    people: tuple[str, ...] = field(repr=False)
    rows: Mapping[Key, int] = field(repr=False)
    cells: NDArray[np.uint8] = field(repr=False)

    @staticmethod
    def open(path: Path) -> Bed:
        """Open a .bed and the .bim and .fam beside it.

        Raises:
            DataError: for a missing, malformed, cut or sample-major file, or duplicate people or variants.
        """
        fam, bim = path.with_suffix(".fam"), path.with_suffix(".bim")
        people = distinct([_cells(line, 6, f"{fam.name}, line {n}")[1] for n, line in _numbered(fam)], fam.name)
        rows: dict[Key, int] = {}
        variants = 0
        for number, line in _numbered(bim):
            where = f"{bim.name}, line {number}"
            chromosome, _, _, position, a1, a2 = _cells(line, 6, where)
            enter(rows, variants, (chromosome, position, a2, a1), where)
            variants += 1
        if not variants:
            raise empty(bim.name)
        width = -(-len(people) // 4)
        try:
            with path.open("rb") as file:
                magic, found = file.read(3), os.fstat(file.fileno()).st_size
        except OSError as error:
            raise absent(path, error) from None
        if magic[:2] != _MAGIC or magic[2:] not in (b"\x00", b"\x01"):
            raise DataError(
                "A .bed starts with the bytes 6c 1b 01.",
                f"{path.name} starts with {magic.hex(' ') or 'nothing'}",
                "name a PLINK 1 binary file, or write it again with `plink2 --make-bed`.",
            )
        if magic[2] != _SNP_MAJOR:
            raise DataError(
                "A .bed holds its genotypes variant by variant.",
                f"{path.name} holds them person by person (6c 1b 00)",
                "write it again with `plink --make-bed`.",
            )
        if found != (expected := 3 + variants * width):
            raise DataError(
                "A .bed holds 3 bytes and, for each variant, one byte for each 4 people.",
                f"{path.name} has {found} bytes, expected {expected} for {variants} variants and {len(people)} people",
                "copy it again, or take the .bim and .fam that were written with it.",
            )
        return Bed(people, rows, np.memmap(path, dtype=np.uint8, mode="r", offset=3, shape=(variants, width)))

    def codes(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """(K, N) codes of K rows: see `Calls.codes`."""
        quads: NDArray[np.uint8] = _QUADS[np.asarray(self.cells[rows])]
        return quads.reshape(len(rows), -1)[:, : len(self.people)]


@dataclass(frozen=True, eq=False)
class Pgen:
    """PLINK 2 genotypes, read from the disk as they are asked for: hard calls, phase and dosages left aside.

    This version reads biallelic variants.
    """

    people: tuple[str, ...] = field(repr=False)
    rows: Mapping[Key, int] = field(repr=False)
    name: str
    reader: PgenReader = field(repr=False)

    @staticmethod
    def open(path: Path) -> Pgen:
        """Open a .pgen and the .pvar and .psam beside it, and read every variant once.

        Raises:
            DataError: for a missing, malformed, cut or damaged file, a variant with several alternates, or duplicate
                people or variants.
        """
        psam, pvar = path.with_suffix(".psam"), path.with_suffix(".pvar")
        people = distinct([cells[0] for _, cells in _table(psam, "#FID", "#IID", take=("IID",))], psam.name)
        rows: dict[Key, int] = {}
        variants = 0
        for number, cells in _table(pvar, "#CHROM", take=("CHROM", "POS", "REF", "ALT")):
            chromosome, position, reference, alternate = cells
            if "," in alternate:
                raise DataError(
                    "A .pvar has one alternate allele in each line; this version reads no others.",
                    f"{pvar.name}, line {number}: {chromosome}:{position} has {alternate[:40]!r}",
                    "split them with `bcftools norm -m -any` before conversion, or keep two alleles with "
                    "`plink2 --max-alleles 2 --make-pgen`.",
                )
            enter(rows, variants, (chromosome, position, reference, alternate), f"{pvar.name}, line {number}")
            variants += 1
        if not variants:
            raise empty(pvar.name)
        try:
            with path.open("rb"):
                pass
            reader = PgenReader(os.fsencode(path), raw_sample_ct=len(people), variant_ct=variants)
        except OSError as error:
            raise absent(path, error) from None
        except RuntimeError as error:
            raise _broken(path.name, error) from None
        opened = Pgen(people, rows, path.name, reader)
        # pgenlib looks at the head of a file only; a cut or damaged body shows when it is read.
        step = max(1, _CELLS_AT_A_TIME // len(people))
        for start in range(0, variants, step):
            opened.codes(np.arange(start, min(start + step, variants), dtype=np.int64))
        return opened

    def codes(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """(K, N) codes of K rows: see `Calls.codes`."""
        out = np.empty((len(rows), len(self.people)), dtype=np.int8)
        try:
            self.reader.read_list(rows.astype(np.uint32), out)
        except RuntimeError as error:
            raise _broken(self.name, error) from None
        out[out < 0] = MISSING
        return out.view(np.uint8)


def _broken(name: str, error: RuntimeError) -> DataError:
    said = error.args[0] if error.args else ""
    said = said.decode(errors="replace") if isinstance(said, bytes) else str(said)
    return DataError(
        "A .pgen is whole, and agrees with its .pvar and .psam.",
        f"{name}: {said.strip()[:300]}",
        "copy it again, or take the .pvar and .psam that were written with it.",
    )


def _numbered(path: Path) -> enumerate[str]:
    return enumerate(lines(path), start=1)


def _cells(line: str, columns: int, where: str) -> list[str]:
    cells = line.split()
    if len(cells) != columns:
        raise DataError(
            f"Each line has {columns} columns.",
            f"{where}: {len(cells)}",
            "correct the line, or write the file again with the tool that made it.",
        )
    return cells


def _table(path: Path, *first: str, take: tuple[str, ...]) -> list[tuple[int, list[str]]]:
    """Line number and wanted cells of each line under a PLINK 2 header, which starts with one of `first`."""
    out: list[tuple[int, list[str]]] = []
    header: list[str] = []
    at: list[int] = []
    separator: str | None = None
    for number, line in _numbered(path):
        if not header and line.startswith("##"):
            continue
        if not header:
            # PLINK writes tabs; a header with spaces only says that spaces separate.
            separator = "\t" if "\t" in line else None
            header = line.split(separator)
            names = [name.removeprefix("#") for name in header]
            if header[:1] not in [[name] for name in first] or any(names.count(name) != 1 for name in take):
                raise DataError(
                    f"A {path.suffix} has a header with {', '.join(take)}, starting with {' or '.join(first)}.",
                    f"{path.name}, line {number}: {line[:80]!r}",
                    "write it again with `plink2 --make-pgen`.",
                )
            at = [names.index(name) for name in take]
            continue
        cells = line.split(separator)
        if len(cells) != len(header):
            raise DataError(
                "Each line has as many columns as the header.",
                f"{path.name}, line {number}: {len(cells)} instead of {len(header)}",
                "correct the line, or write the file again with the tool that made it.",
            )
        out.append((number, [cells[i] for i in at]))
    return out

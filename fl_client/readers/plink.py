"""PLINK files: .bed with .bim and .fam (PLINK 1), .pgen with .pvar and .psam (PLINK 2).

1. Chang et al., GigaScience 4:7 (2015); the formats: https://www.cog-genomics.org/plink/1.9/formats#bed and
   https://www.cog-genomics.org/plink/2.0/formats#pgen
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pgenlib import PgenReader

from fl_client.readers.calls import distinct, units, whole
from fl_client.readers.held import Held
from fl_client.readers.index import Entries, Index, empty
from fl_client.readers.lines import absent, columns, lines
from fl_client.readers.packed import Packed, unpacked
from strategies.errors import DataError

_MAGIC = b"\x6c\x1b"
_SNP_MAJOR = 1
_CELLS_AT_A_TIME = 1 << 22
_MOST_ALTERNATES = 254  # of a .pgen


@dataclass(frozen=True, eq=False)
class Bed:
    """PLINK 1 genotypes, read from the disk as they are asked for.

    Column 5 of the .bim (A1, usually the minor or the alternate allele) is the alternate, column 6 (A2) the reference;
    a panel with the two the other way round matches by swapping.
    """

    people: tuple[str, ...] = field(repr=False)
    index: Index = field(repr=False)
    cells: Packed = field(repr=False)

    @staticmethod
    def open(path: Path) -> Bed:
        """Open a .bed and the .bim and .fam beside it.

        Raises:
            DataError: for a missing, malformed, cut or sample-major file, or duplicate people or variants.
        """
        fam, bim = path.with_suffix(".fam"), path.with_suffix(".bim")
        people = distinct(_columns(fam, 6)[1], fam.name)
        chromosomes, _, _, positions, a1, a2 = _columns(bim, 6)
        if not (variants := len(positions)):
            raise empty(bim.name)
        entries = Entries(f"{bim.name}, line")
        entries.enter_all(chromosomes, positions, a2, a1)
        width = -(-len(people) // 4)
        file = Held.open(path)
        head = bytearray(min(3, file.size))
        file.read(memoryview(head), 0)
        magic = bytes(head)
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
        if file.size != (expected := 3 + variants * width):
            raise DataError(
                "A .bed holds 3 bytes and, for each variant, one byte for each 4 people.",
                f"{path.name} has {file.size} bytes, expected {expected} for {variants} variants and "
                f"{len(people)} people",
                "copy it again, or take the .bim and .fam that were written with it.",
            )
        return Bed(people, entries.index(), Packed(file, 3, len(people), bed=True))

    def fill(
        self,
        rows: NDArray[np.int64],
        swapped: NDArray[np.bool_],
        chosen: NDArray[np.int64] | None,
        out: NDArray[np.uint8],
    ) -> None:
        """See `Calls.fill`."""
        self.cells.fill(rows, swapped, chosen, out)

    def dosages(self, rows: NDArray[np.int64]) -> NDArray[np.uint16]:
        """See `Calls.dosages`."""
        return whole(unpacked(self.cells, rows))


@dataclass(frozen=True, eq=False)
class Pgen:
    """PLINK 2 genotypes and dosages, read from the disk as they are asked for; phase is left aside.

    A variant with several alternates becomes one row for each; a row counts copies of its own.

    Attributes:
        variants, alternates: (R,) the variant in the file and the number of the alternate, from 1, of each row.
    """

    people: tuple[str, ...] = field(repr=False)
    index: Index = field(repr=False)
    name: str
    reader: PgenReader = field(repr=False)
    variants: NDArray[np.uint32] = field(repr=False)
    alternates: NDArray[np.uint8] = field(repr=False)

    @staticmethod
    def open(path: Path) -> Pgen:
        """Open a .pgen and the .pvar and .psam beside it, and read every variant once.

        Raises:
            DataError: for a missing, malformed, cut or damaged file, or duplicate people or variants.
        """
        psam, pvar = path.with_suffix(".psam"), path.with_suffix(".pvar")
        people = distinct([cells[0] for _, cells in _table(psam, "#FID", "#IID", take=("IID",))], psam.name)
        entries = Entries(f"{pvar.name}, line")
        variants, alternates, offsets = array("I"), array("B"), array("Q", [0])
        for number, cells in _table(pvar, "#CHROM", take=("CHROM", "POS", "REF", "ALT")):
            chromosome, position, reference, spelt = cells
            alleles = spelt.split(",")
            if len(alleles) > _MOST_ALTERNATES:
                raise DataError(
                    f"A .pvar has at most {_MOST_ALTERNATES} alternate alleles in a line.",
                    f"{pvar.name}, line {number}: {len(alleles)}",
                    "split the line with `bcftools norm -m -any` before conversion.",
                )
            for k, alternate in enumerate(alleles, start=1):
                entries.enter(len(variants), number, chromosome, position, reference, alternate)
                variants.append(len(offsets) - 1)
                alternates.append(k)
            offsets.append(offsets[-1] + 1 + len(alleles))
        if not variants:
            raise empty(pvar.name)
        several = None if offsets[-1] == 2 * (len(offsets) - 1) else np.array(offsets, dtype=np.uintp)
        try:
            with path.open("rb"):
                pass
            reader = PgenReader(
                os.fsencode(path),
                raw_sample_ct=len(people),
                variant_ct=len(offsets) - 1,
                allele_idx_offsets=several,
            )
        except OSError as error:
            raise absent(path, error) from None
        except RuntimeError as error:
            raise _broken(path.name, error) from None
        columns = np.array(variants, dtype=np.uint32), np.array(alternates, dtype=np.uint8)
        opened = Pgen(people, entries.index(), path.name, reader, *columns)
        # pgenlib looks at the head of a file only; a cut or damaged body shows when it is read.
        step = max(1, _CELLS_AT_A_TIME // len(people))
        for start in range(0, len(variants), step):
            opened._codes(np.arange(start, min(start + step, len(variants))))
        return opened

    def fill(
        self,
        rows: NDArray[np.int64],
        swapped: NDArray[np.bool_],
        chosen: NDArray[np.int64] | None,
        out: NDArray[np.uint8],
    ) -> None:
        """See `Calls.fill`."""
        from strategies.kernels.packing import pack  # noqa: PLC0415

        asked = np.flatnonzero(rows >= 0)
        step = max(1, _CELLS_AT_A_TIME // len(self.people))
        for start in range(0, len(asked), step):
            places = asked[start : start + step]
            codes = self._codes(rows[places])
            if chosen is not None:
                codes = np.ascontiguousarray(codes[:, chosen])
            turned = swapped[places]
            codes[turned] = 2 - codes[turned]  # -9, missing, becomes 11
            pack(codes, out, places)

    def dosages(self, rows: NDArray[np.int64]) -> NDArray[np.uint16]:
        """See `Calls.dosages`."""
        out = np.empty((len(rows), len(self.people)), dtype=np.uint16)
        step = max(1, _CELLS_AT_A_TIME // len(self.people))
        for start in range(0, len(rows), step):
            part = rows[start : start + step]
            copies = np.empty((len(part), len(self.people)), dtype=np.float32)
            self._read(self.reader.read_dosages_list, part, copies)
            copies[copies < 0] = np.nan
            out[start : start + step] = units(copies)
        return out

    def _codes(self, rows: NDArray[np.int64]) -> NDArray[np.int8]:
        """(K, N) alternate alleles, -9 where missing."""
        out = np.empty((len(rows), len(self.people)), dtype=np.int8)
        self._read(self.reader.read_list, rows, out)
        return out

    def _read(self, read: Callable[..., None], rows: NDArray[np.int64], out: NDArray[Any]) -> None:
        variants, alternates = self.variants[rows], self.alternates[rows]
        try:
            if (alternates == 1).all():
                read(variants, out)
                return
            for k in np.unique(alternates):
                here = np.flatnonzero(alternates == k)
                part = np.empty((len(here), out.shape[1]), dtype=out.dtype)
                read(variants[here], part, int(k))
                out[here] = part
        except RuntimeError as error:
            raise _broken(self.name, error) from None


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


def _columns(path: Path, width: int) -> list[list[str]]:
    """The columns of a file whose lines have so many cells, with spaces or tabs between."""
    plain = columns(path)
    if plain is not None and len(plain) == width:
        return plain
    out: list[list[str]] = [[] for _ in range(width)]
    for number, line in _numbered(path):
        cells = line.split()
        if len(cells) != width:
            raise DataError(
                f"Each line has {width} columns.",
                f"{path.name}, line {number}: {len(cells)}",
                "correct the line, or write the file again with the tool that made it.",
            )
        for column, cell in zip(out, cells, strict=True):
            column.append(cell)
    return out


def _table(path: Path, *first: str, take: tuple[str, ...]) -> Iterator[tuple[int, list[str]]]:
    """Line number and wanted cells of each line under a PLINK 2 header, which starts with one of `first`."""
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
        yield number, [cells[i] for i in at]

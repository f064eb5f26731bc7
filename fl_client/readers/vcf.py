"""Variant Call Format: .vcf, .vcf.gz and .bcf. GT and DS are read.

The library underneath (cyvcf2 over htslib) reads on through damage that must not pass: a missing end-of-file block, a
last line cut inside a genotype, a line with more genotypes than people, a position that does not fit 32 bits. So the
bytes are walked once before, and what the library gives is counted against them.

Of a line, CHROM, POS, REF, ALT, FORMAT, GT and DS are read and must be as the specification says. What stands in ID,
QUAL, FILTER, INFO and the other FORMAT fields decides nothing here and is not judged.

1. The Variant Call Format Specification, sections 1.4, 1.6, 5.5 and 6: https://samtools.github.io/hts-specs/
"""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from cyvcf2 import VCF
from numpy.typing import NDArray

from fl_client.readers.calls import distinct, nearest, units, whole
from fl_client.readers.held import Held
from fl_client.readers.index import Entries, Index
from fl_client.readers.lines import absent
from fl_client.readers.packed import Packed, unpacked
from strategies.cohort import COPY, NO_DOSAGE
from strategies.errors import DataError

_GZIP = b"\x1f\x8b"
_END_OF_BGZF = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")
_BEFORE_PEOPLE = 9
_CELLS_AT_A_TIME = 1 << 22
_UNOBSERVED, _NO_SECOND = -1, -2
_MISSING = -9
_ANY_ALLELE = ("<NON_REF>", "<*>")
_ROUNDING = 1 / COPY


@dataclass(frozen=True, eq=False)
class Vcf:
    """Genotypes of a VCF or BCF file, and its dosages if it has any, turned once into files that are read by the row.

    A line with several alternates becomes one row for each alternate. A row counts copies of its own alternate; any
    other allele, be it the reference, another alternate, `*` or symbolic, counts as none. A genotype with any allele
    unobserved (`./.`, `.|1`) is missing. A haploid genotype counts double, as PLINK stores it: `1` is 2. A line without
    an alternate (`.`) says nothing about any. A line without GT has the genotypes of its dosages, where they are close
    to one (`calls.NEAREST`); without either, nobody was observed there.

    Attributes:
        cells: the genotypes, in a file without a name.
        dosed: (R, N) dosages as uint16 in another, if the header names DS.
    """

    people: tuple[str, ...] = field(repr=False)
    index: Index = field(repr=False)
    cells: Packed = field(repr=False)
    dosed: Held | None = field(repr=False)

    @staticmethod
    def open(path: Path, scratch: Path | None = None) -> Vcf:
        """Read a whole file, a block of variants at a time.

        Args:
            path: the file.
            scratch: the folder for what it is turned into; by default, where the system keeps temporary files.

        Raises:
            DataError: for a missing, malformed, cut or damaged file, a gVCF, a file without GT and DS, more than two
                alleles in a genotype, a dosage beyond 2, duplicate people or variants, or a full disk.
        """
        expected = _records(path)
        # cyvcf2 raises bare `Exception`; what htslib has to say goes to standard error.
        try:
            file = VCF(str(path))
            names, header = list(file.samples), file.raw_header
        except Exception as error:
            raise _malformed(path, f"the header: {error}") from None
        people = distinct(names, path.name)
        entries = Entries(f"{path.name}, record")
        cells, dosed = Held.scratch(scratch), Held.scratch(scratch) if _names_dosages(header) else None
        block = _Block(len(people), cells, dosed)
        rows = number = observed = 0
        records = iter(file)
        while True:
            try:
                record = next(records, None)
                entry = None if record is None else (record.CHROM, str(record.POS), record.REF, list(record.ALT))
            except Exception as error:
                raise _malformed(path, f"record {number + 1}: {error}") from None
            if record is None or entry is None:
                break
            number += 1
            chromosome, position, reference, alternates = entry
            _no_reference_block(record, alternates, f"{path.name}, record {number}")
            wanted = [
                k
                for k, alternate in enumerate(alternates, start=1)
                if entries.enter(rows + k - 1, number, chromosome, position, reference, alternate)
            ]
            given = {"GT", "DS"} & set(record.FORMAT) if dosed else {"GT"} & set(record.FORMAT)
            observed += bool(given)
            if wanted and given:
                genotypes, dosages = _read(record, given, len(people), len(alternates), f"{path.name}, record {number}")
            elif wanted:
                genotypes = np.full((len(alternates), len(people)), _MISSING, dtype=np.int8)
                dosages = whole(genotypes)
            for k in range(1, 1 + len(alternates) if wanted else 1):
                block.add(genotypes[k - 1], dosages[k - 1])
            rows += len(alternates) if wanted else 0
        if number != expected:
            raise _malformed(path, f"{number} records could be read of {expected}")
        if number and not observed:
            raise DataError(
                "A genotype file has genotypes (GT) or dosages (DS).",
                f"{path.name}: neither, in {number} records",
                "name a file that has them.",
            )
        block.flush()
        return Vcf(people, entries.index(), Packed(cells, 0, len(people)), dosed)

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
        if self.dosed is None:
            return whole(unpacked(self.cells, rows))
        out = np.empty((len(rows), len(self.people)), dtype=np.uint16)
        for k, row in enumerate(rows):
            self.dosed.read(out[k].data, int(row) * out[k].nbytes)
        return out


class _Block:
    """Variants on their way into files, some at a time."""

    def __init__(self, people: int, cells: Held, dosed: Held | None) -> None:
        most = max(1, _CELLS_AT_A_TIME // people)
        self._cells, self._dosed, self._count = cells, dosed, 0
        self._genotypes = np.empty((most, people), dtype=np.int8)
        self._dosages = np.empty((most if dosed else 0, people), dtype=np.uint16)

    def add(self, genotypes: NDArray[np.int8], dosages: NDArray[np.uint16]) -> None:
        """One row: (N,) alternate alleles and dosages."""
        self._genotypes[self._count] = genotypes
        if self._dosed is not None:
            self._dosages[self._count] = dosages
        self._count += 1
        if self._count == len(self._genotypes):
            self.flush()

    def flush(self) -> None:
        """Write what there is."""
        from strategies.kernels.packing import pack  # noqa: PLC0415

        if not self._count:
            return
        packed = np.empty((self._count, -(-self._genotypes.shape[1] // 4)), dtype=np.uint8)
        pack(self._genotypes[: self._count], packed, np.arange(self._count))
        self._cells.append(packed.data)
        if self._dosed is not None:
            self._dosed.append(self._dosages[: self._count].data)
        self._count = 0


def _names_dosages(header: str) -> bool:
    """Whether a header names DS as the number that it is: else its text could be anything, and is left aside."""
    lines = [line for line in header.splitlines() if line.startswith("##FORMAT=<") and "ID=DS," in line]
    return any("Type=Float" in line for line in lines)


def _no_reference_block(record: Any, alternates: Sequence[str], where: str) -> None:
    end = record.INFO.get("END") if not alternates else None
    if (len(alternates) == 1 and alternates[0] in _ANY_ALLELE) or (isinstance(end, int) and end > record.POS):
        raise DataError(
            "A genotype file is of variants that all its people were called at together, not a gVCF.",
            f"{where}: a block of reference calls",
            "call the people together first, for example with GATK GenotypeGVCFs, GLnexus or `bcftools convert`.",
        )


def _read(
    record: Any, given: Set[str], people: int, alternates: int, where: str
) -> tuple[NDArray[np.int8], NDArray[np.uint16]]:
    """(A, N) alternate alleles and dosages of a record's alternates."""
    single = np.zeros(people, dtype=bool)
    genotypes = None
    if "GT" in given:
        alleles = _alleles(record, people, alternates, where)
        single = alleles[:, 1] == _NO_SECOND
        genotypes = np.stack([_copies(alleles, k) for k in range(1, alternates + 1)])
        if "DS" not in given:
            return genotypes, whole(genotypes)
    try:
        copies = np.asarray(record.format("DS"), dtype=np.float64).T
    except Exception as error:
        raise _dosage(f"{where}: {error}") from None
    if np.isnan(copies).all() or (genotypes is not None and len(copies) < alternates):
        copies = np.full((alternates, people), np.nan)  # one number for several alternates says nothing about any
    if copies.shape != (alternates, people):
        raise _dosage(f"{where}: {len(copies)} dosages a person, {alternates} alternates")
    copies = np.where(single, 2 * copies, copies)
    if (copies < 0).any() or (copies > 2 + _ROUNDING).any():
        raise _dosage(f"{where}: {np.nanmin(copies):g} to {np.nanmax(copies):g} copies")
    dosages = units(np.minimum(copies, 2))
    if genotypes is None:
        return nearest(dosages), dosages
    return genotypes, np.where(dosages == NO_DOSAGE, whole(genotypes), dosages)


def _dosage(found: str) -> DataError:
    return DataError(
        "A dosage (DS) is a number from 0 to 2 for each alternate, or to 1 where the genotype has one allele.",
        found,
        "write the file again with the tool that made it, or without DS.",
    )


def _alleles(record: Any, people: int, alternates: int, where: str) -> NDArray[np.int16]:
    """(N, 2) allele numbers: 0 the reference, -1 unobserved, -2 in second place if haploid."""
    try:
        alleles: NDArray[np.int16] = record.genotype.array()[:, :-1]  # the last column is phase
    except Exception as error:
        raise DataError(
            "Genotypes (GT) can be read.", f"{where}: {error}", "write the file again with the tool that made it."
        ) from None
    highest = alleles.max(initial=0)
    if len(alleles) != people or highest > alternates:
        raise DataError(
            "A record has one genotype for each person, of alleles that the record names.",
            f"{where}: {len(alleles)} genotypes for {people} people, highest allele {highest} of {alternates}",
            "write the file again with the tool that made it.",
        )
    if (alleles[:, 2:] != _NO_SECOND).any():
        raise DataError(
            "A genotype has one or two alleles.",
            f"{where}: {alleles.shape[1]}",
            "remove the record, or call it as diploid.",
        )
    if alleles.shape[1] == 1:
        return np.concatenate([alleles, np.full_like(alleles, _NO_SECOND)], axis=1)
    return alleles[:, :2]


def _copies(alleles: NDArray[np.int16], alternate: int) -> NDArray[np.int8]:
    """(N,) copies of an alternate, or _MISSING."""
    first, second = alleles[:, 0], alleles[:, 1]
    second = np.where(second == _NO_SECOND, first, second)
    copies: NDArray[np.int8] = (first == alternate).astype(np.int8) + (second == alternate)
    copies[(first < 0) | (second == _UNOBSERVED)] = _MISSING
    return copies


def _records(path: Path) -> int:
    """The number of records by the bytes alone.

    Raises:
        DataError: if the file is not VCF or BCF, is cut, or has a line that the library would misread.
    """
    try:
        with path.open("rb") as raw:
            start = raw.read(18)
            zipped = start[:2] == _GZIP
            if zipped and start[12:14] == b"BC":
                raw.seek(max(0, path.stat().st_size - len(_END_OF_BGZF)))
                if raw.read() != _END_OF_BGZF:
                    raise _cut(path, "no end-of-file block")
            raw.seek(0)
            with gzip.open(raw) if zipped else raw as file:
                magic = file.read(5)
                if magic[:3] == b"BCF":
                    return _binary(file, path)
                if magic == b"##fil":
                    return _text(file, path)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _cut(path, str(error)) from None
    except OSError as error:
        raise absent(path, error) from None
    raise DataError(
        "A VCF starts with ##fileformat=VCFv4, a BCF with the letters BCF.",
        f"{path.name} starts with {magic!r}",
        "name a VCF or BCF file.",
    )


def _text(file: IO[bytes] | gzip.GzipFile, path: Path) -> int:
    columns = 0
    count = 0
    for number, line in enumerate(file, start=1):
        if not line.endswith(b"\n"):
            raise _cut(path, f"line {number} has no end")
        if line.startswith(b"##") or number == 1:
            continue
        tabs = line.count(b"\t")
        if not columns:
            if not line.startswith(b"#CHROM\t"):
                raise _malformed(path, f"line {number} should be the header #CHROM")
            columns = tabs + 1
            if columns <= _BEFORE_PEOPLE:
                raise DataError(
                    "A genotype file has one column for each person.",
                    f"{path.name}: none",
                    "name a file with genotypes.",
                )
            continue
        if tabs + 1 != columns:
            raise _malformed(path, f"line {number} has {tabs + 1} columns, the header {columns}")
        cells = line.split(b"\t", _BEFORE_PEOPLE)
        position, alternates, formats = cells[1], cells[4], cells[8].split(b":")
        if b"" in alternates.split(b","):
            raise _malformed(path, f"line {number} has an alternate without letters")
        if len(set(formats)) != len(formats) or any(key != b"".join(key.split()) for key in formats):
            raise _malformed(path, f"line {number} has FORMAT {cells[8][:40].decode(errors='replace')!r}")
        if not (position.isdigit() and int(position) < 2**31):
            raise _malformed(path, f"line {number} has position {position[:20].decode(errors='replace')!r}")
        count += 1
    if not columns:
        raise _malformed(path, "no header #CHROM")
    return count


def _binary(file: IO[bytes] | gzip.GzipFile, path: Path) -> int:
    """Walk the lengths of a BCF: magic, header, then for each record the bytes shared and the bytes for each person."""
    (header,) = struct.unpack("<I", _exactly(file, 4, path))
    text = _exactly(file, header, path).rstrip(b"\0").rstrip(b"\n")
    people = max(0, text.rsplit(b"\n", 1)[-1].count(b"\t") + 1 - _BEFORE_PEOPLE)
    count = 0
    while lengths := file.read(8):
        if len(lengths) < 8:
            raise _cut(path, f"record {count + 1} has no end")
        shared, each = struct.unpack("<II", lengths)
        body = _exactly(file, shared, path)
        _exactly(file, each, path)
        count += 1
        if shared < 24 or int.from_bytes(body[20:23], "little") != people:
            raise _malformed(path, f"record {count} is not for {people} people")
    return count


def _exactly(file: IO[bytes] | gzip.GzipFile, length: int, path: Path) -> bytes:
    found = file.read(length)
    if len(found) != length:
        raise _cut(path, f"{length} bytes are announced, {len(found)} are there")
    return found


def _cut(path: Path, found: str) -> DataError:
    return DataError(
        "A genotype file is whole to its last byte.",
        f"{path.name}: {found[:200]}",
        "copy it again; if nothing is lost, end its last line.",
    )


def _malformed(path: Path, found: str) -> DataError:
    return DataError(
        "A genotype file follows the VCF specification.",
        f"{path.name}: {found[:300]}",
        "write it again with the tool that made it; `bcftools view` says more.",
    )

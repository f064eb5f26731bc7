"""Variant Call Format: .vcf, .vcf.gz and .bcf. Only GT is read.

The library underneath (cyvcf2 over htslib) reads on through damage that must not pass: a missing end-of-file block, a
last line cut inside a genotype, a line with more genotypes than people, a position that does not fit 32 bits. So the
bytes are walked once before, and what the library gives is counted against them.

1. The Variant Call Format Specification, sections 1.4, 1.6 and 6: https://samtools.github.io/hts-specs/
"""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from cyvcf2 import VCF
from numpy.typing import NDArray

from fl_client.readers.calls import Key, absent, distinct, empty, enter
from strategies.cohort import MISSING, Genotypes
from strategies.errors import DataError

_GZIP = b"\x1f\x8b"
_END_OF_BGZF = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")
_BEFORE_PEOPLE = 9
_VARIANTS_AT_A_TIME = 1024
_UNOBSERVED, _NO_SECOND = -1, -2


@dataclass(frozen=True, eq=False)
class Vcf:
    """Genotypes of a VCF or BCF file, held packed in memory.

    A line with several alternates becomes one row for each alternate. A row counts copies of its own alternate; any
    other allele, be it the reference, another alternate, `*` or symbolic, counts as none. A genotype with any allele
    unobserved (`./.`, `.|1`) is missing. A haploid genotype counts double, as PLINK stores it: `1` is 2. Alleles are
    taken as written: indels are not aligned to the left. A line without an alternate (`.`) says nothing about any.
    """

    people: tuple[str, ...] = field(repr=False)
    rows: Mapping[Key, int] = field(repr=False)
    genotypes: Genotypes = field(repr=False)

    @staticmethod
    def open(path: Path) -> Vcf:
        """Read a whole file.

        Raises:
            DataError: for a missing, malformed, cut or damaged file, a line without GT or with more than two alleles
                in a genotype, or duplicate people or variants.
        """
        expected = _records(path)
        # cyvcf2 raises bare `Exception`; what htslib has to say goes to standard error.
        try:
            file = VCF(str(path))
            names = list(file.samples)
        except Exception as error:
            raise _malformed(path, f"the header: {error}") from None
        people = distinct(names, path.name)
        rows: dict[Key, int] = {}
        blocks: list[NDArray[np.uint8]] = []
        block: list[NDArray[np.uint8]] = []
        number = 0
        records = iter(file)
        while True:
            try:
                record = next(records, None)
                entry = None if record is None else (record.CHROM, str(record.POS), record.REF, list(record.ALT))
            except Exception as error:
                raise _malformed(path, f"record {number + 1}: {error}") from None
            if entry is None:
                break
            number += 1
            where = f"{path.name}, record {number}"
            chromosome, position, reference, alternates = entry
            alleles: NDArray[np.int16] | None = None
            for k, alternate in enumerate(alternates, start=1):
                row = len(blocks) * _VARIANTS_AT_A_TIME + len(block)
                if enter(rows, row, (chromosome, position, reference, alternate), where):
                    if alleles is None:
                        alleles = _alleles(record, len(people), len(alternates), where)
                    block.append(_copies(alleles, k))
                    if len(block) == _VARIANTS_AT_A_TIME:
                        blocks.append(Genotypes.pack(np.array(block)).packed)
                        block = []
        if number != expected:
            raise _malformed(path, f"{number} records could be read of {expected}")
        if not rows:
            raise empty(path.name)
        if block:
            blocks.append(Genotypes.pack(np.array(block)).packed)
        return Vcf(people, rows, Genotypes(np.concatenate(blocks), len(people)))

    def codes(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """(K, N) codes of K rows: see `Calls.codes`."""
        return Genotypes(self.genotypes.packed[rows], len(self.people)).codes()


def _alleles(record: Any, people: int, alternates: int, where: str) -> NDArray[np.int16]:
    """(N, 2) allele numbers: 0 the reference, -1 unobserved, -2 in second place if haploid."""
    if "GT" not in record.FORMAT:
        raise DataError("Every record has genotypes (GT).", f"{where}: none", "name a file with genotypes.")
    try:
        alleles: NDArray[np.int16] = record.genotype.array()[:, :-1]  # the last column is phase
    except Exception as error:
        raise DataError(
            "Every record has genotypes (GT).", f"{where}: {error}", "write the file again with the tool that made it."
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


def _copies(alleles: NDArray[np.int16], alternate: int) -> NDArray[np.uint8]:
    """(N,) copies of an alternate, or MISSING."""
    first, second = alleles[:, 0], alleles[:, 1]
    second = np.where(second == _NO_SECOND, first, second)
    copies: NDArray[np.uint8] = (first == alternate).astype(np.uint8) + (second == alternate)
    copies[(first < 0) | (second == _UNOBSERVED)] = MISSING
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
        position = line.split(b"\t", 2)[1]
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

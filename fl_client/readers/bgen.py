"""BGEN files, versions 1.1 to 1.3: probabilities of genotypes, with a .sample file beside them or identifiers inside.

1. Band, Marchini, bioRxiv 308296 (2018); the format: https://www.chg.ox.ac.uk/~gav/bgen_format/spec/latest.html
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from bgen import BgenReader
from numpy.typing import NDArray

from fl_client.readers.calls import distinct, nearest, units
from fl_client.readers.held import Held
from fl_client.readers.index import Entries, Index
from fl_client.readers.lines import lines
from strategies.cohort import COPY
from strategies.errors import DataError


@dataclass(frozen=True, eq=False)
class Bgen:
    """Dosages from probabilities, and genotypes where a dosage is close to one (`calls.NEAREST`), when asked for.

    The first allele is the reference, each other one becomes a row; a file that has them the other way round matches by
    swapping. A haploid genotype counts double, as PLINK stores it.

    Attributes:
        variants, alternates: (R,) the variant in the file and the number of the alternate, from 1, of each row.
    """

    people: tuple[str, ...] = field(repr=False)
    index: Index = field(repr=False)
    file: Held = field(repr=False)
    reader: BgenReader = field(repr=False)
    variants: NDArray[np.uint32] = field(repr=False)
    alternates: NDArray[np.uint8] = field(repr=False)

    @staticmethod
    def open(path: Path) -> Bgen:
        """Open a .bgen and the .sample beside it, if there is one, and read every variant once.

        Raises:
            DataError: for a missing, malformed, cut or damaged file, people without identifiers or with more than two
                copies of a chromosome, or duplicate people or variants.
        """
        file = Held.open(path)
        try:
            # By its number: by its name, a .bgi beside it would be taken as its index, whatever file it was made of.
            reader = BgenReader(f"/dev/fd/{file.descriptor}", delay_parsing=False)
            header = reader.header
            people = _people(path, reader.samples if header.has_sample_ids else None, header.nsamples)
        except (ValueError, IndexError, RuntimeError, MemoryError, UnicodeDecodeError) as error:
            raise _broken(path.name, error) from None
        entries = Entries(f"{path.name}, variant")
        variants, alternates = array("I"), array("B")
        for number in range(header.nvariants):
            (chromosome, position, alleles), dosages = _variant(reader, number, path.name)
            for k in range(1, 1 + len(dosages)):
                entries.enter(len(variants), number + 1, chromosome, position, alleles[0], alleles[k])
                variants.append(number)
                alternates.append(k)
        columns = np.array(variants, dtype=np.uint32), np.array(alternates, dtype=np.uint8)
        return Bgen(people, entries.index(), file, reader, *columns)

    def fill(
        self,
        rows: NDArray[np.int64],
        swapped: NDArray[np.bool_],
        chosen: NDArray[np.int64] | None,
        out: NDArray[np.uint8],
    ) -> None:
        """See `Calls.fill`."""
        from strategies.kernels.packing import pack  # noqa: PLC0415

        for k in np.flatnonzero(rows >= 0):
            codes = nearest(self.dosages(rows[k : k + 1]))
            if chosen is not None:
                codes = codes[:, chosen]
            pack(2 - codes if swapped[k] else codes, out, np.array([k]))

    def dosages(self, rows: NDArray[np.int64]) -> NDArray[np.uint16]:
        """See `Calls.dosages`."""
        out = np.empty((len(rows), len(self.people)), dtype=np.uint16)
        for k, row in enumerate(rows):
            out[k] = _variant(self.reader, int(self.variants[row]), self.file.name)[1][self.alternates[row] - 1]
        return out


def _people(path: Path, inside: list[str] | None, count: int) -> tuple[str, ...]:
    """The people of the .sample file, or else those of the .bgen itself."""
    sample = path.with_suffix(".sample")
    if not sample.exists():
        if inside is None:
            raise DataError(
                "A .bgen names its people, or has a .sample file beside it.",
                f"{path.name} names nobody, and there is no {sample.name}",
                "put the .sample file that was written with it beside it.",
            )
        return distinct(inside, path.name)
    rows = [line.split() for line in lines(sample)]
    header = rows[0] if rows else []
    if header[:2] != ["ID_1", "ID_2"] or len(rows) < 2 or any(len(row) != len(header) for row in rows):
        raise DataError(
            "A .sample file starts with a header, ID_1 ID_2 ..., and a line of types, and all its lines are as long.",
            f"{sample.name}: {' '.join(header)[:80]!r}",
            "write it again with the tool that made it.",
        )
    people = distinct([row[1] for row in rows[2:]], sample.name)
    if len(people) != count:
        raise DataError(
            "A .sample file names the people of its .bgen.",
            f"{sample.name} names {len(people)}, {path.name} has {count}",
            "take the one that was written with it.",
        )
    return people


def _variant(reader: BgenReader, number: int, name: str) -> tuple[tuple[str, str, Sequence[str]], NDArray[np.uint16]]:
    """A variant's chromosome, position and A alleles, and its (A - 1, N) dosages, one row for each alternate.

    Raises:
        DataError: if it cannot be read.
    """
    try:
        variant = reader[number]
        named = variant.chrom, str(variant.pos), variant.alleles
        ploidy, phased, probabilities = np.asarray(variant.ploidy), variant.is_phased, variant.probabilities
    except (ValueError, IndexError, RuntimeError, MemoryError, UnicodeDecodeError) as error:
        raise _broken(name, error) from None
    alleles, one, two = len(named[2]), ploidy == 1, ploidy == 2
    if not (one | two).all() or alleles < 2:
        raise DataError(
            "A variant has two alleles or more, and a person one copy or two.",
            f"{name}, variant {number + 1}: {alleles} alleles, up to {ploidy.max(initial=0)} copies",
            "remove the variant.",
        )
    if (probabilities < -1 / COPY).any():  # the last of each is what is missing to 1
        raise _broken(name, ValueError(f"variant {number + 1} has probabilities beyond 1"))
    # Unphased, a column for each pair of alleles: 00, 01, 11, 02, 12, 22, ...; phased, or of one copy, for each allele.
    pairs = np.array([(a, b) for b in range(alleles) for a in range(b + 1)])
    out = np.empty((alleles - 1, len(ploidy)), dtype=np.uint16)
    for k in range(1, alleles):
        copies = np.full(len(ploidy), np.nan)
        if phased:
            copies[two] = probabilities[two, k] + probabilities[two, alleles + k] if two.any() else 0
        elif two.any():
            copies[two] = probabilities[two][:, : len(pairs)].astype(np.float64) @ (pairs == k).sum(axis=1)
        copies[one] = 2 * probabilities[one, k]
        out[k - 1] = units(np.clip(copies, 0, 2))
    return named, out


def _broken(name: str, error: Exception) -> DataError:
    return DataError(
        "A .bgen is whole, and of version 1.1, 1.2 or 1.3.",
        f"{name}: {str(error)[:200] or type(error).__name__}",
        "copy it again, or write it again with `plink2 --export bgen-1.3`.",
    )

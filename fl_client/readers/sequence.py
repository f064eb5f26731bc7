"""The reference genome, where a site gives one, and the one spelling that a variant has against it.

1. Tan, Abecasis, Kang, Bioinformatics 31:2202 (2015): trim equal last letters and extend to the left until the last
   letters differ; then trim equal first letters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fl_client.readers.held import Held
from fl_client.readers.lines import lines
from strategies.errors import DataError
from strategies.variants import chromosome

_LETTERS_AT_A_TIME = 256


@dataclass(frozen=True)
class _Contig:
    """One line of a .fai: letters, the byte of the first, letters a line, bytes a line."""

    length: int
    offset: int
    letters: int
    bytes: int


@dataclass(frozen=True, eq=False)
class Sequence:
    """A FASTA file, read as it is needed through the .fai beside it."""

    file: Held = field(repr=False)
    contigs: Mapping[str, _Contig] = field(repr=False)

    @staticmethod
    def open(path: Path) -> Sequence:
        """Open a plain FASTA file with the .fai of `samtools faidx` beside it.

        Raises:
            DataError: if one is missing, the .fai is malformed or names no chromosome, or does not fit the FASTA file.
        """
        index = path.with_name(path.name + ".fai")
        contigs = {}
        for number, line in enumerate(lines(index), start=1):
            cells = line.split("\t")
            if len(cells) != 5 or not all(c.isascii() and c.isdigit() for c in cells[1:]):
                raise _unfit(f"{index.name}, line {number}: {line[:60]!r}")
            known, contig = chromosome(cells[0]), _Contig(*map(int, cells[1:]))
            if not 0 < contig.letters < contig.bytes:
                raise _unfit(f"{index.name}, line {number}: {line[:60]!r}")
            if known is not None:
                contigs[known] = contig
        opened = Sequence(Held.open(path), contigs)
        size = opened.file.size
        if not contigs or any(opened._byte(c, c.length) >= size for c in contigs.values()):
            raise _unfit(f"{path.name} has {size} bytes, and {index.name} {len(contigs)} chromosomes")
        return opened

    def letters(self, name: str, first: int, last: int) -> str:
        """The letters from position `first` to `last`, both included, in upper case; fewer at a chromosome's ends.

        Raises:
            DataError: if the file is shorter than its .fai says.
        """
        contig = self.contigs.get(name)
        if contig is None:
            return ""
        first, last = max(1, first), min(last, contig.length)
        if last < first:
            return ""
        start = self._byte(contig, first)
        raw = bytearray(self._byte(contig, last) + 1 - start)
        self.file.read(memoryview(raw), start)
        text = raw.translate(None, b"\r\n").upper().decode("latin-1")
        if len(text) != last - first + 1:
            raise _unfit(f"{self.file.name}: {len(text)} letters of {last - first + 1} at {name}:{first}")
        return text

    def aligned(self, name: str, position: int, reference: str, alternate: str) -> tuple[int, str, str]:
        """The left-most and shortest spelling of a variant: position, reference and alternate [1].

        Which of the two alleles the genome has does not matter, but one must be there; else the variant stays as it is.

        Raises:
            DataError: if the file is shorter than its .fai says.
        """
        here = self.letters(name, position, position + max(len(reference), len(alternate)) - 1)
        if not (here.startswith(reference) or here.startswith(alternate)):
            return position, reference, alternate
        before = ""
        while reference[-1] == alternate[-1]:
            if min(len(reference), len(alternate)) == 1:
                if not before:
                    before = self.letters(name, position - _LETTERS_AT_A_TIME, position - 1)
                if not before or before[-1] not in "ACGT":
                    break
                reference, alternate, before = before[-1] + reference, before[-1] + alternate, before[:-1]
                position -= 1
            reference, alternate = reference[:-1], alternate[:-1]
        while min(len(reference), len(alternate)) > 1 and reference[0] == alternate[0]:
            reference, alternate, position = reference[1:], alternate[1:], position + 1
        return position, reference, alternate

    @staticmethod
    def _byte(contig: _Contig, position: int) -> int:
        lines_before, letter = divmod(position - 1, contig.letters)
        return contig.offset + lines_before * contig.bytes + letter


def _unfit(found: str) -> DataError:
    return DataError(
        "A reference genome is a plain FASTA file with its .fai.", found, "write the index again with `samtools faidx`."
    )

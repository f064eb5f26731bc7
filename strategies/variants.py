"""Which variants, in which builds. A panel is public and is sent by the coordinator, never by a node."""

from __future__ import annotations

import gc
import gzip
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cached_property
from operator import eq, itemgetter
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from strategies.errors import UsageError

ASSEMBLIES = ("GRCh37", "GRCh38")
CHROMOSOMES = (*(str(c) for c in range(1, 23)), "X", "Y", "MT")
COMPLEMENT = str.maketrans("ACGT", "TGCA")
HEADER = ("#CHROM", "POS", "ID", "REF", "ALT")
EITHER_WAY = (*HEADER[:3], "OTHER", "EFFECT")
"""The header of a panel that does not say which allele is the genome's reference, as scores do not."""

FREQUENCY, WEIGHT, GENE = "FREQUENCY", "WEIGHT", "GENE"
MOST_WEIGHT = 2.0**20
MOST_GENES = 20
"""Of one variant."""

MOST_VARIANTS = 5_000_000

_SAME = {"M": "MT", "23": "X", "24": "Y", "25": "X", "XY": "X", "PAR1": "X", "PAR2": "X", "26": "MT"}
# Versions of the chromosomes' RefSeq accessions in GRCh37; GRCh38 has the next of each, but the same mitochondrion.
_VERSIONS = (10, 11, 11, 11, 9, 11, 13, 10, 11, 10, 9, 11, 10, 8, 9, 9, 10, 9, 9, 10, 8, 10, 10, 9)
_ACCESSIONS = {"NC_012920.1": "MT"} | {
    f"NC_{number:06d}.{version + later}": name
    for number, (name, version) in enumerate(zip(CHROMOSOMES, _VERSIONS, strict=False), start=1)
    for later in (0, 1)
}


class How(IntEnum):
    """How a panel's variant was found at a site. SEVERAL: more than one entry may be it; NO_POSITION: in its build."""

    ABSENT = 0
    AS_WRITTEN = 1
    SWAPPED = 2
    FLIPPED = 3
    FLIPPED_AND_SWAPPED = 4
    SEVERAL = 5
    NO_POSITION = 6

    @property
    def found(self) -> bool:
        return How.AS_WRITTEN <= self <= How.FLIPPED_AND_SWAPPED


def chromosome(name: str) -> str | None:
    """The canonical name of a chromosome, or None if it is not one of ours.

    Known are `22`, `chr22` and `CHR22`, `022` as in BGEN files, PLINK's numbers (23 to 26; 25, XY, PAR1 and PAR2 are X)
    and the RefSeq accessions of GRCh37 and GRCh38.

    >>> [chromosome(name) for name in ("chrM", "022", "NC_000022.10", "HLA-A")]
    ['MT', '22', '22', None]
    """
    if name in _ACCESSIONS:
        return _ACCESSIONS[name]
    bare = name[3:] if name[:3].lower() == "chr" else name
    bare = bare.lstrip("0").upper()
    bare = _SAME.get(bare, bare)
    return bare if bare in CHROMOSOMES else None


def other_assembly(assembly: str) -> str:
    """The one of the two builds that `assembly` is not."""
    return ASSEMBLIES[1 - ASSEMBLIES.index(assembly)]


class Variant(NamedTuple):
    """One alternate allele at one place.

    Attributes:
        frequency: a *published* alternate allele frequency, if one is known.
        lifted: its position in the other build, if that is known.
        weight: what one copy of the alternate allele adds to a score, or counts for in a test of genes, if stated.
        genes: names of the genes that it is tested with.
    """

    chromosome: str
    position: int
    identifier: str
    reference: str
    alternate: str
    frequency: float | None = None
    lifted: int | None = None
    weight: float | None = None
    genes: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[str, int, str, str]:
        return self.chromosome, self.position, self.reference, self.alternate

    @property
    def palindromic(self) -> bool:
        """True if the two alleles are each other's complement, so that a swap and a strand flip look alike."""
        return len(self.reference) == 1 and self.reference.translate(COMPLEMENT) == self.alternate

    def __str__(self) -> str:
        return f"{self.chromosome}:{self.position}:{self.reference}:{self.alternate}"


@dataclass(frozen=True, eq=False)
class Places:
    """Where M variants are and what they are, in columns: what is asked of every slice of a panel.

    Attributes:
        chromosomes: (M,) places in CHROMOSOMES.
        positions, lifted: (M,) in the panel's build and in the other one; 0 where there is none.
        pairs: (M,) number of the reference and the alternate allele among `spelt`.
        spelt: different pairs of a reference and an alternate allele.
    """

    chromosomes: NDArray[np.uint8]
    positions: NDArray[np.int64]
    lifted: NDArray[np.int64]
    pairs: NDArray[np.int64]
    spelt: tuple[tuple[str, str], ...]

    @staticmethod
    def of(variants: Sequence[Variant], lifts: bool) -> Places:
        """Of a panel's variants."""
        count, numbers = len(variants), {name: k for k, name in enumerate(CHROMOSOMES)}
        known: dict[tuple[str, str], int] = {}
        pairs = (known.setdefault(pair, len(known)) for pair in map(itemgetter(3, 4), variants))
        return Places(
            np.fromiter(map(numbers.__getitem__, map(itemgetter(0), variants)), dtype=np.uint8, count=count),
            np.fromiter(map(itemgetter(1), variants), dtype=np.int64, count=count),
            np.fromiter((v.lifted or 0 for v in variants) if lifts else (0,) * count, dtype=np.int64, count=count),
            np.fromiter(pairs, dtype=np.int64, count=count),
            tuple(known),
        )

    def __getitem__(self, span: slice | NDArray[np.int64]) -> Places:
        return Places(self.chromosomes[span], self.positions[span], self.lifted[span], self.pairs[span], self.spelt)


@dataclass(frozen=True)
class Panel:
    """An ordered, public list of distinct variants, with their positions in one build or in both.

    Attributes:
        assembly: the build in which every variant has its position.
        variants: M of them.
        lifts: whether positions in the other build stand in the panel, too; a variant may lack one.
        oriented: whether reference alleles are the genome's. Where they are not, the alternate one is what is counted,
            and a palindromic variant is taken on the forward strand, either way round.
        states: which of `WEIGHT` and `GENE` stand in it; a variant may lack either.
        set_aside: reason -> lines of the file it was read from that are none of its variants.

    >>> panel = Panel("GRCh37", (Variant("22", 24334948, "rs1", "G", "A"),))
    >>> Panel.decode(panel.encode(), "GRCh37", "here") == panel
    True
    """

    assembly: str
    variants: tuple[Variant, ...]
    lifts: bool = False
    oriented: bool = True
    states: frozenset[str] = frozenset()
    set_aside: Mapping[str, int] = field(default_factory=dict, compare=False)

    def __len__(self) -> int:
        return len(self.variants)

    def __getitem__(self, span: slice | NDArray[np.int64]) -> Panel:
        variants = self.variants[span] if isinstance(span, slice) else tuple(self.variants[j] for j in span)
        panel = Panel(self.assembly, variants, self.lifts, self.oriented, self.states)
        vars(panel)["places"] = self.places[span]  # made once for all slices
        return panel

    @cached_property
    def places(self) -> Places:
        """The variants in columns."""
        return Places.of(self.variants, self.lifts)

    @property
    def chromosomes(self) -> tuple[str, ...]:
        """(M) canonical names."""
        return tuple(map(itemgetter(0), self.variants))

    @property
    def frequencies(self) -> NDArray[np.float64]:
        """(M,) published alternate allele frequencies; 0.5, the least favourable value, where none is given."""
        return np.array([0.5 if v.frequency is None else v.frequency for v in self.variants])

    @property
    def weights(self) -> NDArray[np.float64]:
        """(M,) weight of an alternate allele; 0 where none is given."""
        return np.array([v.weight or 0.0 for v in self.variants])

    @property
    def assemblies(self) -> tuple[str, ...]:
        """The builds in which the panel has positions."""
        return ASSEMBLIES if self.lifts else (self.assembly,)

    def positions(self, assembly: str) -> NDArray[np.int64]:
        """(M,) positions in one of the panel's builds; 0 where a variant has none."""
        assert assembly in self.assemblies
        return self.places.positions if assembly == self.assembly else self.places.lifted

    def encode(self) -> bytes:
        """The panel as a tab-separated text; equal panels give equal bytes."""
        columns = (map(itemgetter(k), self.variants) for k in range(len(Variant._fields)))
        names, positions, identifiers, references, alternates, frequencies, lifted, weights, genes = columns
        cells: dict[str, Iterable[str]] = {FREQUENCY: map(_cell, frequencies)}
        if self.lifts:
            cells[f"POS_{other_assembly(self.assembly)}"] = map(_cell, lifted)
        if WEIGHT in self.states:
            cells[WEIGHT] = map(_cell, weights)
        if GENE in self.states:
            cells[GENE] = (",".join(some) or "." for some in genes)
        header = "\t".join((*(HEADER if self.oriented else EITHER_WAY), *cells))
        written = (names, map(str, positions), identifiers, references, alternates, *cells.values())
        return "\n".join([header, *map("\t".join, zip(*written, strict=True)), ""]).encode()

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the text."""
        return hashlib.sha256(self.encode()).hexdigest()

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
        lines = text.decode("utf-8", errors="strict").splitlines()
        optional = (FREQUENCY, lifted := f"POS_{other_assembly(assembly)}", WEIGHT, GENE)
        header = tuple(lines[0].split("\t")) if lines else ()
        more = header[len(HEADER) :]
        if (
            header[: len(HEADER)] not in (HEADER, EITHER_WAY)
            or not set(more) <= set(optional)
            or len(set(more)) != len(more)
        ):
            raise UsageError(
                f"A panel of {assembly} starts with {' '.join(HEADER)} and, if wanted, {', '.join(optional)}.",
                f"{where}: {' '.join(header)[:80]!r}",
                "correct its first line; tabs separate the names.",
            )
        if len(lines) - 1 > MOST_VARIANTS:
            raise UsageError(
                f"A panel holds at most {MOST_VARIANTS} variants.", f"{where}: {len(lines) - 1}", "split the study."
            )
        variants = _variants(lines, header, where)
        if not variants:
            raise UsageError("A panel holds at least one variant.", f"{where}: none", "add one line per variant.")
        return Panel(assembly, variants, lifted in header, "ALT" in header, frozenset(header) & {WEIGHT, GENE})

    @staticmethod
    def read(path: Path, assembly: str) -> Panel:
        """Read a panel, or a scoring file of the PGS Catalog, from a plain or gzipped file.

        Raises:
            UsageError: if the file is missing, unreadable or malformed.
        """
        from strategies import scoring_file  # noqa: PLC0415  (which makes panels)

        try:
            raw = path.read_bytes()
            text = gzip.decompress(raw) if path.suffix == ".gz" else raw
            if scoring_file.is_one(text):
                return scoring_file.panel(text, assembly, path.name)
            return Panel.decode(text, assembly, path.name)
        except (OSError, EOFError, UnicodeDecodeError) as error:
            raise UsageError(
                "A study's panel must be a readable text file.",
                f"{path}: {type(error).__name__}",
                "correct `file` in the study's [panels] table.",
            ) from None


def _variants(lines: list[str], header: tuple[str, ...], where: str) -> tuple[Variant, ...]:
    """The variants under a header, column by column: a million take two seconds or three."""
    lines = lines[1:]
    try:
        if any(line.count("\t") != len(header) - 1 for line in lines):
            raise ValueError("columns")
        cells = "\t".join(lines).split("\t") if lines else []
        columns = {name: cells[k :: len(header)] for k, name in enumerate(header)}
        names, positions, identifiers, references, alternates = (columns.pop(name) for name in header[: len(HEADER)])
        known = {name: chromosome(name) for name in set(names)}
        alleles = set(references) | set(alternates)
        if None in known.values() or not all(map(_spelt, alleles)) or any(map(eq, references, alternates)):
            raise ValueError("words")
        chromosomes, places = [known[name] or "" for name in names], _positions(positions)
        nothing = ["."] * len(lines)
        frequencies = _optional(columns.pop(FREQUENCY, nothing), _frequency)
        weights = _optional(columns.pop(WEIGHT, nothing), weight)
        genes = [names or () for names in _optional(columns.pop(GENE, nothing), _genes)]
        lifted = _optional(columns.popitem()[1] if columns else nothing, _position)
    except ValueError:
        number, problem = next((n, p) for n, line in enumerate(lines, start=2) if (p := _problem(line, header)))
        raise UsageError(
            "A panel's line holds chromosome, position, identifier, two different alleles of A, C, G, T and, if the "
            "header has them, a frequency from 0 to 1, a position in the other build, a weight and names of genes with "
            "commas between, each of these or '.'.",
            f"{where}, line {number}: {problem}",
            "correct the line; example: 22<tab>24334948<tab>rs1<tab>G<tab>A",
        ) from None
    _distinct(chromosomes, places, references, alternates, where)
    rest = (identifiers, references, alternates, frequencies, lifted, weights, genes)
    with _no_collection():
        return tuple(map(Variant._make, zip(chromosomes, places, *rest, strict=True)))


@contextmanager
def _no_collection() -> Iterator[None]:
    """Python looks for unused objects whenever many were made: of a million that all are kept it would look at each ten
    times over."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


T = TypeVar("T")


def _optional(cells: list[str], read: Callable[[str], T]) -> list[T | None]:
    return [None if cell == "." else read(cell) for cell in cells]


def _distinct(
    chromosomes: list[str], positions: list[int], references: list[str], alternates: list[str], where: str
) -> None:
    numbers = {name: number for number, name in enumerate(CHROMOSOMES)}
    places = np.array([numbers[name] for name in chromosomes], dtype=np.int64) << 32 | np.array(positions, np.int64)
    order = np.argsort(places, kind="stable")
    first: dict[tuple[int, str, str], int] = {}
    together = np.flatnonzero(np.diff(places[order]) == 0)
    for i in sorted({int(order[k + side]) for k in together for side in (0, 1)}):
        key = (int(places[i]), references[i], alternates[i])
        if first.setdefault(key, i) != i:
            raise UsageError(
                "The variants of a panel are distinct.",
                f"{where}: {chromosomes[i]}:{positions[i]}:{references[i]}:{alternates[i]} stands on lines "
                f"{first[key] + 2} and {i + 2}",
                "remove one of the two.",
            )


def _spelt(allele: str) -> bool:
    return bool(allele) and not allele.strip("ACGT")


def _position(cell: str) -> int:
    if cell.isdigit() and cell.isascii() and len(cell) <= 10:
        position = int(cell)
        if 0 < position < 2**31:
            return position
    raise ValueError("a position")


def _positions(cells: list[str]) -> list[int]:
    """As `_position` reads each, all at once."""
    text = "".join(cells)
    if text.isdigit() and text.isascii() and all(cells) and max(map(len, cells)) <= 10:
        positions = list(map(int, cells))
        if min(positions) > 0 and max(positions) < 2**31:
            return positions
    return list(map(_position, cells))


def _frequency(cell: str) -> float:
    value = float(cell)
    if 0 <= value <= 1:
        return value
    raise ValueError("a frequency")


def weight(cell: str) -> float:
    """A weight from text.

    Raises:
        ValueError: if it is none, or its absolute value is above 2^20.
    """
    value = float(cell)
    if abs(value) <= MOST_WEIGHT:
        return value
    raise ValueError("a weight")


def _genes(cell: str) -> tuple[str, ...]:
    names = tuple(cell.split(","))
    spelt = all(0 < len(name) <= 40 and name.isascii() and name.isprintable() for name in names)
    if spelt and len(set(names)) == len(names) <= MOST_GENES:
        return names
    raise ValueError("genes")


def _cell(value: float | None) -> str:
    return "." if value is None else repr(value)


def _problem(line: str, header: tuple[str, ...]) -> str | None:
    """What is wrong with a panel's line, or None."""
    cells = line.split("\t")
    if len(cells) != len(header):
        return f"{len(cells)} columns instead of {len(header)}"
    if chromosome(cells[0]) is None:
        return f"chromosome {cells[0][:12]!r}"
    if not (_spelt(cells[3]) and _spelt(cells[4])) or cells[3] == cells[4]:
        return f"alleles {cells[3][:12]!r} and {cells[4][:12]!r}"
    readers: dict[str, tuple[str, Callable[[str], object]]] = {
        FREQUENCY: ("frequency", _frequency),
        WEIGHT: ("weight", weight),
        GENE: ("genes", _genes),
    }
    for name, cell in zip(header, cells, strict=True):
        what, read = readers.get(name, ("position", _position))
        if name == "POS" or (name not in header[: len(HEADER)] and cell != "."):
            try:
                read(cell)
            except ValueError:
                return f"{what} {cell[:12]!r}"
    return None

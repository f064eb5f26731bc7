"""What is on a node's disk, as people: the data set, and the cohort that a request may see of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from fl_client.readers.bgen import Bgen
from fl_client.readers.calls import Calls, distinct, shown
from fl_client.readers.events import Clinical
from fl_client.readers.index import Index
from fl_client.readers.intervals import Intervals
from fl_client.readers.lines import absent, lines
from fl_client.readers.matching import Match, aligned, match
from fl_client.readers.plink import Bed, Pgen
from fl_client.readers.sequence import Sequence
from fl_client.readers.tables import Table
from fl_client.readers.vcf import Vcf
from strategies.analysis import Frame, Needs, Range
from strategies.cohort import COPY, NO_DOSAGE, Cohort, Genotypes, Stored, blocks
from strategies.errors import DataError
from strategies.projection import Projection
from strategies.protections.suppression import check_profile
from strategies.variants import ASSEMBLIES, How, Panel

_BESIDE = {".bed": (".bim", ".fam"), ".pgen": (".pvar", ".psam")}
_CELLS_AT_A_TIME = 1 << 24
MOST_HELD = 1 << 28
"""Genotypes, of 64 MiB, that are read once where a request walks them, perhaps several times."""
_BYTES_AT_A_TIME = 1 << 22
"""Of a file that is digested: after so many another thread gets the interpreter, and may keep it for a while."""
_EACH = np.array([0b00000000, 0b01010101, 0b10101010, 0b11111111], dtype=np.uint8)
"""The byte of four people with the same genotype."""


class Absent(StrEnum):
    """What it means that a variant is not in a site's genotype file."""

    UNKNOWN = "unknown"
    REFERENCE = "reference"


@dataclass(frozen=True)
class DatasetConfig:
    """The `[dataset]` table of a node's configuration.

    Attributes:
        identifier: the data set's name in permits, for example GDI-FI-DEMO-0001.
        assembly: GRCh37 or GRCh38.
        people: path of the people table, relative to the configuration's folder.
        genotypes: path of a .bed, .pgen, .bgen, .vcf, .vcf.gz or .bcf, or nothing.
        synthetic: whether no person stands behind the data.
        person: name of the people table's first column.
        minimum_cell: the data set's own minimum of people in a cell of an exact answer; the stricter of it and the
            policy's holds.
        version: number of the data set's version, which `fl-client data` fixed; version 1 is what a node first opened.
        exclude: path of a text file with one identifier a line, of people to leave out, or nothing: those whom a look
            at several people rules out (relatives, outliers), and those who withdrew.
        absent_means: what it means that a variant is not in the genotype file: "unknown" (everybody is missing), or
            "reference", where everybody was looked at and the file lists only where somebody differs.
        callable: path of the BED file of regions in which people were looked at; with "reference", and only then.
        reference: path of the build's FASTA file, with its .fai beside it, or nothing: with it, insertions and
            deletions are matched in whatever way they are spelt.
    """

    identifier: str
    assembly: str
    people: str
    genotypes: str = ""
    synthetic: bool = False
    person: str = "person"
    minimum_cell: int = 0
    version: int = 1
    exclude: str = ""
    absent_means: Absent = Absent.UNKNOWN
    callable: str = ""
    reference: str = ""

    def __post_init__(self) -> None:
        if self.assembly not in ASSEMBLIES:
            raise ValueError(f"assembly must be one of {', '.join(ASSEMBLIES)}.")
        if not (0 < len(self.identifier) <= 64 and self.identifier.isascii() and self.identifier.isprintable()):
            raise ValueError("identifier must be 1 to 64 printable ASCII characters.")
        if not self.people:
            raise ValueError("people must name the people table.")
        check_profile(self.minimum_cell)
        if not 0 < self.version < 2**31:
            raise ValueError("version must be a number from 1.")
        if bool(self.callable) != (self.absent_means is Absent.REFERENCE):
            raise ValueError('callable must name the regions where absent_means is "reference", and only there.')
        if not self.genotypes and (self.callable or self.reference):
            raise ValueError("callable and reference belong to genotypes.")


@dataclass(frozen=True)
class _Stamp:
    """A file as it was when the data set was opened. `node` changes when another file takes its name."""

    path: Path
    node: int
    size: int
    changed_ns: int

    @staticmethod
    def of(path: Path) -> _Stamp:
        try:
            status = path.stat()
        except OSError as error:
            raise absent(path, error) from None
        return _Stamp(path, status.st_ino, status.st_size, status.st_mtime_ns)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A site's people, opened and checked. They are the people table's, in its order.

    Genotypes of people who are not in the table are never read into a cohort.

    Attributes:
        config: what was opened.
        digest: 16 hexadecimal digits that change if any byte of the files does; their names do not matter.
        table: the people table.
        calls: the genotypes, or None.
        order: (N,) where each person stands in the genotype file.
        looked_at: regions in which an absent variant is the reference, or None.
        sequence: the build's reference genome, or None.
        realigned: the variants whose left-most, shortest spelling is not the file's, or None.
    """

    config: DatasetConfig
    digest: str
    table: Table = field(repr=False)
    calls: Calls | None = field(repr=False)
    order: NDArray[np.int64] = field(repr=False)
    looked_at: Intervals | None = field(repr=False)
    sequence: Sequence | None = field(repr=False)
    realigned: Index | None = field(repr=False)
    _stamps: tuple[_Stamp, ...] = field(repr=False)

    @staticmethod
    def open(config: DatasetConfig, folder: Path, scratch: Path | None = None) -> Dataset:
        """Open every file of a data set and check it.

        Args:
            config: what to open.
            folder: the folder that the paths are relative to.
            scratch: the folder for files without a name into which a VCF or BCF is turned; by default, where the system
                keeps temporary files.

        Raises:
            DataError: if a file is missing or malformed, or a person has no genotypes.
        """
        paths, genotypes = [folder / config.people], folder / config.genotypes
        if config.genotypes:
            paths += [genotypes, *(genotypes.with_suffix(s) for s in _BESIDE.get(genotypes.suffix, ()))]
            if genotypes.suffix == ".bgen" and (sample := genotypes.with_suffix(".sample")).exists():
                paths.append(sample)
        if config.exclude:
            paths.append(folder / config.exclude)
        more = {role: folder / name for role, name in _more(config).items()}
        stamps = tuple(_Stamp.of(path) for path in (*paths, *more.values()))
        with ThreadPoolExecutor(1) as beside:  # while one waits for the disk, the other works
            digest = beside.submit(_digest, stamps, more)
            leave_out: tuple[str, ...] = ()
            if config.exclude:
                leave_out = distinct([line.strip() for line in lines(paths[-1])], paths[-1].name)
            table = Table.open(paths[0], config.person, frozenset(leave_out))
            calls = _calls(genotypes, scratch) if config.genotypes else None
        order = np.arange(0) if calls is None else _order(table, calls, config.genotypes)
        if calls is not None and table.people == calls.people:
            table = replace(table, people=calls.people)  # the identifiers are held once
        looked_at = Intervals.read(more["callable"]) if config.callable else None
        sequence = Sequence.open(more["reference"]) if config.reference else None
        realigned = aligned(calls.index, sequence) if calls and sequence else None
        opened = Dataset(config, digest.result(), table, calls, order, looked_at, sequence, realigned, stamps)
        opened.assert_unchanged()
        return opened

    @property
    def people(self) -> tuple[str, ...]:
        """N identifiers. They go nowhere but to `Part.holds`."""
        return self.table.people

    @property
    def clinical(self) -> Clinical | None:
        """The people's dates and events, if the data set has a source of them."""
        return None

    @property
    def genotyped(self) -> NDArray[np.bool_]:
        """(N,) who has genotypes."""
        return np.full(len(self.people), self.calls is not None)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the numeric columns."""
        return self.table.columns

    @property
    def headings(self) -> tuple[str, ...]:
        """Names of all columns, whatever is in them: no person decides about a heading."""
        return tuple(self.table.parsed)

    def missing_columns(self, names: Iterable[str]) -> tuple[str, ...]:
        """Those of the names that are no numeric column here."""
        return tuple(name for name in names if name not in self.table.columns)

    def out_of_range(self, ranges: Mapping[str, Range]) -> dict[str, int]:
        """Column -> how many values lie outside its range and would be clamped; missing values do not count.

        The numbers are for the node's own operator.

        Raises:
            DataError: if a column is not there or not numeric.
        """
        out = {}
        for name, limits in ranges.items():
            values = self.table.column(name)
            out[name] = int(np.count_nonzero((values < limits.minimum) | (values > limits.maximum)))
        return out

    def cohort(
        self,
        needs: Needs,
        frame: Frame,
        words_as_missing: bool = False,
        projected: Mapping[str, NDArray[np.float64]] | None = None,
        inside: NDArray[np.bool_] | None = None,
    ) -> Cohort:
        """Open what a request needs, and nothing else.

        Args:
            needs: which people, columns and panel.
            frame: the request's slice of the panel (M variants), and the public range of each column.
            words_as_missing: take cells that are no numbers as missing.
            projected: name -> (N,) values of columns that were computed for all people.
            inside: (N,) who else must be in it; everybody, if None.

        Returns:
            The people of the part who are inside, in the table's order, with columns clamped to their ranges and
            genotypes in the panel's order: all missing where the site has no such variant, swapped where its alleles
            are. Genotypes that are walked, and are many, stay in their file until then.

        Raises:
            DataError: if a column or the genotypes are not there, the panel is of another assembly, or a file changed
                since it was opened.
        """
        self.assert_unchanged()
        part = needs.part.holds(self.people)
        chosen = np.flatnonzero(part if inside is None else part & inside)
        columns = {}
        for name in needs.columns:
            values = (projected or {}).get(name)
            values = (self.table.column(name, words_as_missing) if values is None else values)[chosen]
            if name not in frame.columns:
                raise DataError("A column is opened within a public range.", f"{name!r} has none", "state its range.")
            columns[name] = frame.columns[name].clamp(values)
            columns[name].setflags(write=False)
        genotypes = dosages = stored = None
        if needs.walked and frame.panel is not None and len(frame.panel) * len(chosen) > MOST_HELD:
            stored = self._stored(frame.panel, chosen)
        elif needs.panel is not None:
            genotypes, dosages = self._genotypes(frame.panel, chosen, needs.dosages)
        matched = None
        if needs.matched is not None:
            matched = self.matched(_sent(frame.panel)).how
            matched.setflags(write=False)
        self.assert_unchanged()  # nor while they were read
        people = len(chosen)
        return Cohort(people, genotypes, MappingProxyType(columns), dosages=dosages, matched=matched, stored=stored)

    def _stored(self, panel: Panel, chosen: NDArray[np.int64]) -> Stored:
        self._calls()
        return Stored(len(panel), len(chosen), partial(self._some, panel, chosen))

    def _some(self, panel: Panel, chosen: NDArray[np.int64], rows: slice | NDArray[np.int64]) -> Genotypes:
        """Some variants of a panel."""
        self.assert_unchanged()
        genotypes, _ = self._genotypes(panel[rows], chosen, False)
        self.assert_unchanged()
        return genotypes

    def project(self, projection: Projection, panel: Panel) -> dict[str, NDArray[np.float64]]:
        """Name -> (N,) columns of all people from M variants' weights.

        Raises:
            DataError: as `cohort` does.
        """
        everybody = np.arange(len(self.people))
        sums = np.zeros((len(everybody), len(projection.names)), dtype=np.int64)
        for span, some in blocks(self._stored(panel, everybody)):
            projection.add(sums, some, span)
        return projection.columns(sums)

    def matched(self, panel: Panel) -> Match:
        """Where a panel's variants stand here; for the node itself, and its own operator.

        Raises:
            DataError: if there are no genotypes, or the panel has no positions in their build.
        """
        calls = self._calls()
        if self.config.assembly not in panel.assemblies:
            raise DataError(
                "A panel is matched to genotypes in a build in which it has positions.",
                f"the panel is {' and '.join(panel.assemblies)}, {self.config.identifier} is {self.config.assembly}",
                f"ask with a panel of {self.config.assembly}, or add the column POS_{self.config.assembly}.",
            )
        return match(panel, self.config.assembly, calls.index, self.realigned, self.sequence)

    def _calls(self) -> Calls:
        if self.calls is None:
            raise DataError(
                "A question about variants needs genotypes.",
                f"{self.config.identifier} has none",
                "name them as `genotypes` in the [dataset] table.",
            )
        return self.calls

    def _genotypes(
        self, panel: Panel | None, chosen: NDArray[np.int64], with_dosages: bool
    ) -> tuple[Genotypes, NDArray[np.uint16] | None]:
        calls = self._calls()
        panel = _sent(panel)
        found = self.matched(panel)
        people = self.order[chosen]
        everybody = np.array_equal(people, np.arange(len(calls.people)))
        # Of a variant that is not there: 3, missing, or 0 or 2 copies, the same for everybody.
        absent_here = np.flatnonzero(found.rows < 0)
        everywhere = self._everywhere(panel, found)[absent_here]
        packed = np.empty((len(panel), -(-len(people) // 4)), dtype=np.uint8)
        packed[absent_here] = _EACH[everywhere][:, None]
        if len(people) % 4:
            packed[absent_here, -1] &= (1 << 2 * (len(people) % 4)) - 1
        calls.fill(found.rows, found.swapped, None if everybody else people, packed)
        if not with_dosages:
            return Genotypes(packed, len(people)), None
        dosages = np.empty((len(panel), len(people)), dtype=np.uint16)
        dosages[absent_here] = np.array([0, COPY, 2 * COPY, NO_DOSAGE], dtype=np.uint16)[everywhere][:, None]
        step = max(1, _CELLS_AT_A_TIME // len(calls.people))
        here = np.flatnonzero(found.rows >= 0)
        for start in range(0, len(here), step):
            part = here[start : start + step]
            read = calls.dosages(found.rows[part])[:, people]
            turned = found.swapped[part][:, None] & (read != NO_DOSAGE)
            dosages[part] = np.where(turned, 2 * COPY - read, read)
        dosages.setflags(write=False)
        return Genotypes(packed, len(people)), dosages

    def _everywhere(self, panel: Panel, found: Match) -> NDArray[np.uint8]:
        """(M,) everybody's genotype of each variant that is absent: 3, unless absent means reference here.

        It does where the whole of the panel's reference allele lies in a region in which people were looked at, no
        record of the site's touches it, and it is known what the reference is: the panel's, in the panel's own build,
        or the one of the two alleles that the site's reference genome has. An insertion or deletion needs that genome,
        without which the site may have it spelt otherwise. Y stays missing: who has one is not known here.
        """
        out = np.full(len(panel), 3, dtype=np.uint8)
        if self.looked_at is None:
            return out
        assert self.calls is not None
        lengths = np.array([len(v.reference) for v in panel.variants], dtype=np.int64)
        likely = (found.how == How.ABSENT) & self.looked_at.contain(found.places, lengths)
        for j in np.flatnonzero(likely & ~self.calls.index.touched.touch(found.places, lengths)):
            variant, position = panel.variants[j], int(found.places[j]) & 0xFFFFFFFF
            if variant.chromosome == "Y":
                continue
            if self.sequence is not None:
                longest = max(len(variant.reference), len(variant.alternate))
                here = self.sequence.letters(variant.chromosome, position, position + longest - 1)
                out[j] = 0 if here.startswith(variant.reference) else 2 if here.startswith(variant.alternate) else 3
            elif len(variant.reference) == len(variant.alternate) == 1 and panel.assembly == self.config.assembly:
                out[j] = 0 if panel.oriented else 3
        return out

    def assert_unchanged(self) -> None:
        """Assert that the files are what they were when the data set was opened.

        Raises:
            DataError: if one is not.
        """
        for stamp in self._stamps:
            if _Stamp.of(stamp.path) != stamp:
                raise DataError(
                    "The files of an open data set stay as they are.",
                    f"{stamp.path.name} changed since it was opened",
                    "restart the node, which opens them anew.",
                )


def _sent(panel: Panel | None) -> Panel:
    if panel is None:
        raise DataError("A question about variants needs genotypes.", "no panel came with it", "send it.")
    return panel


def _more(config: DatasetConfig) -> dict[str, str]:
    """The files of a data set beside people and genotypes: what each is for -> its path."""
    named = {"callable": config.callable, "reference": config.reference}
    named["index"] = f"{config.reference}.fai" if config.reference else ""
    return {role: name for role, name in named.items() if name}


def _calls(path: Path, scratch: Path | None) -> Calls:
    if path.suffix == ".bed":
        return Bed.open(path)
    if path.suffix == ".pgen":
        return Pgen.open(path)
    if path.suffix == ".bgen":
        return Bgen.open(path)
    if path.name.endswith((".vcf", ".vcf.gz", ".bcf")):
        return Vcf.open(path, scratch)
    raise DataError(
        "Genotypes are read from .bed, .pgen, .bgen, .vcf, .vcf.gz or .bcf.",
        f"{path.name}",
        "convert them to one of these.",
    )


def _order(table: Table, calls: Calls, name: str) -> NDArray[np.int64]:
    """(N,) where each person of the table stands in the genotype file."""
    if table.people == calls.people:
        return np.arange(len(calls.people))
    at = {person: i for i, person in enumerate(calls.people)}
    without = [person for person in table.people if person not in at]
    if without:
        raise DataError(
            "Every person of the people table has genotypes.",
            f"{len(without)} of {len(table.people)} are not in {name}: {shown(without)}",
            "remove them from the table, or name the genotype file that has them.",
        )
    return np.array([at[person] for person in table.people], dtype=np.int64)


def _digest(stamps: tuple[_Stamp, ...], more: Mapping[str, Path]) -> str:
    roles = {path: role for role, path in more.items()}
    whole = hashlib.sha256(b"genosum dataset v1\0")
    for stamp in stamps:
        digest, buffer = hashlib.sha256(), bytearray(_BYTES_AT_A_TIME)
        with stamp.path.open("rb", buffering=0) as file:
            while found := file.readinto(buffer):
                digest.update(memoryview(buffer)[:found])
        line = f"{roles.get(stamp.path, stamp.path.suffix)}\t{stamp.size}\t{digest.hexdigest()}\n"
        whole.update(line.encode())
    return whole.hexdigest()[:16]

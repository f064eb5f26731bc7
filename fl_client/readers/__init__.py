"""What is on a node's disk, as people: the data set, and the cohort that a request may see of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from fl_client.readers.bgen import Bgen
from fl_client.readers.calls import Calls, distinct
from fl_client.readers.config import Absent, DatasetConfig
from fl_client.readers.events import Clinical
from fl_client.readers.index import Index
from fl_client.readers.intervals import Intervals
from fl_client.readers.lines import lines
from fl_client.readers.link import placed
from fl_client.readers.matching import Match, aligned, match
from fl_client.readers.plink import Bed, Pgen
from fl_client.readers.sequence import Sequence
from fl_client.readers.source import Source, paths
from fl_client.readers.stamps import Stamp, assert_unchanged, digest
from fl_client.readers.store import Store
from fl_client.readers.tables import Table
from fl_client.readers.vcf import Vcf
from strategies.analysis import Frame, Needs, Range
from strategies.codec import canonical
from strategies.cohort import COPY, MISSING, NO_DOSAGE, Cohort, Genotypes, Stored, blocks
from strategies.errors import DataError
from strategies.projection import GenotypeColumns, Projection
from strategies.variants import How, Panel

__all__ = ["Absent", "Dataset", "DatasetConfig"]

_BESIDE = {".bed": (".bim", ".fam"), ".pgen": (".pvar", ".psam")}
_CELLS_AT_A_TIME = 1 << 24
MOST_HELD = 1 << 28
"""Genotypes, of 64 MiB, that are read once where a request walks them, perhaps several times."""
_EACH = np.array([0b00000000, 0b01010101, 0b10101010, 0b11111111], dtype=np.uint8)
"""The byte of four people with the same genotype."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """A site's people, opened and checked. They are the people table's, in its order, or the CDM's, in ascending order.

    Genotypes of others are never read into a cohort; of people who have none, all are missing.

    Attributes:
        config: what was opened.
        digest: 16 hexadecimal digits that change if any byte of the files does; their names do not matter. Of a
            server's database they change with its release, its people and their dates, and the rows of its tables.
        table: the people, and their columns.
        clinical: their dates and events, or None.
        calls: the genotypes, or None.
        order: (N,) where each person stands in the genotype file, -1 for who does not.
        looked_at: regions in which an absent variant is the reference, or None.
        sequence: the build's reference genome, or None.
        realigned: the variants whose left-most, shortest spelling is not the file's, or None.
    """

    config: DatasetConfig
    digest: str
    table: Table = field(repr=False)
    clinical: Clinical | None = field(repr=False)
    calls: Calls | None = field(repr=False)
    order: NDArray[np.int64] = field(repr=False)
    looked_at: Intervals | None = field(repr=False)
    sequence: Sequence | None = field(repr=False)
    realigned: Index | None = field(repr=False)
    _stamps: tuple[Stamp, ...] = field(repr=False)
    _store: Store | None = field(repr=False)

    @staticmethod
    def open(config: DatasetConfig, folder: Path, scratch: Path | None = None) -> Dataset:
        """Open every file of a data set and check it.

        Args:
            config: what to open.
            folder: the folder that the paths are relative to.
            scratch: the folder for files without a name into which a VCF or BCF is turned; by default, where the system
                keeps temporary files.

        Raises:
            DataError: if a file is missing or malformed, or nobody has genotypes where there is a file of them.
        """
        files, genotypes = paths(config, folder), folder / config.genotypes
        if config.genotypes:
            files += [genotypes, *(genotypes.with_suffix(s) for s in _BESIDE.get(genotypes.suffix, ()))]
            if genotypes.suffix == ".bgen" and (sample := genotypes.with_suffix(".sample")).exists():
                files.append(sample)
        more = {role: folder / name for role, name in _more(config).items()}
        roles = {path: role for role, path in more.items() if role != "exclude"}
        stamps = tuple(Stamp.of(path) for path in (*files, *more.values()))
        with ThreadPoolExecutor(1) as beside:  # while one waits for the disk, the other works
            digested = beside.submit(digest, stamps, roles)
            leave_out: tuple[str, ...] = ()
            if config.exclude:
                leave_out = distinct([line.strip() for line in lines(more["exclude"])], more["exclude"].name)
            source = Source.open(config, folder, frozenset(leave_out))
            calls = _calls(genotypes, scratch) if config.genotypes else None
        table = source.table
        order = np.arange(0) if calls is None else placed(table, calls, config.genotypes, more.get("link"))
        if calls is not None and table.people == calls.people:
            table = replace(table, people=calls.people)  # the identifiers are held once
        looked_at = Intervals.read(more["callable"]) if config.callable else None
        sequence = Sequence.open(more["reference"]) if config.reference else None
        realigned = aligned(calls.index, sequence) if calls and sequence else None
        whole = _with_declared(digested.result(), config, source)
        opened = Dataset(
            config, whole, table, source.clinical, calls, order, looked_at, sequence, realigned, stamps, source.store
        )
        opened.assert_unchanged()
        return opened

    @property
    def people(self) -> tuple[str, ...]:
        """N identifiers. They go nowhere but to `Part.holds`."""
        return self.table.people

    @property
    def genotyped(self) -> NDArray[np.bool_]:
        """(N,) who has genotypes."""
        return self.order >= 0 if self.calls is not None else np.zeros(len(self.people), dtype=bool)

    def of_genotyped(self) -> Dataset:
        """The same for those alone who have genotypes."""
        if self.genotyped.all():
            return self
        chosen = np.flatnonzero(self.genotyped)
        return replace(self, table=self.table.take(chosen), order=self.order[chosen], clinical=None)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns that can be read: of numbers, or declared."""
        return self.table.columns

    @property
    def headings(self) -> tuple[str, ...]:
        """Names of all columns, whatever is in them: no person decides about a heading."""
        return tuple(self.table.parsed)

    def missing_columns(self, names: Iterable[str]) -> tuple[str, ...]:
        """Those of the names that are no column here that can be read."""
        return tuple(name for name in names if name not in self.table.columns)

    def out_of_range(self, ranges: Mapping[str, Range]) -> dict[str, int]:
        """Column -> how many values lie outside its range and would be clamped; missing values do not count.

        The numbers are for the node's own operator.

        Raises:
            DataError: if a column is not there or not numeric.
        """
        out = {}
        for name, limits in ranges.items():
            values = self.table.values(name, limits)
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
        for name in needs.opened:
            if (limits := frame.columns.get(name)) is None:
                self.table.column(name, words_as_missing)
                raise DataError("A column is opened within a public range.", f"{name!r} has none", "state its range.")
            values = (projected or {}).get(name)
            values = self.table.values(name, limits, words_as_missing) if values is None else values
            columns[name] = limits.clamp(values[chosen])
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

    def project(self, projection: Projection | GenotypeColumns, panel: Panel) -> dict[str, NDArray[np.float64]]:
        """Name -> (N,) columns of all people from M variants.

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
        without = np.flatnonzero(people < 0)
        people = np.maximum(people, 0)  # of whom another's are read, and taken away again
        everybody = np.array_equal(people, np.arange(len(calls.people)))
        # Of a variant that is not there: 3, missing, or 0 or 2 copies, the same for everybody.
        absent_here = np.flatnonzero(found.rows < 0)
        everywhere = self._everywhere(panel, found)[absent_here]
        packed = np.empty((len(panel), -(-len(people) // 4)), dtype=np.uint8)
        packed[absent_here] = _EACH[everywhere][:, None]
        if len(people) % 4:
            packed[absent_here, -1] &= (1 << 2 * (len(people) % 4)) - 1
        calls.fill(found.rows, found.swapped, None if everybody else people, packed)
        if len(without):
            nothing = np.zeros(packed.shape[1], dtype=np.uint8)
            np.bitwise_or.at(nothing, without // 4, (MISSING << 2 * (without % 4)).astype(np.uint8))
            packed |= nothing
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
        dosages[:, without] = NO_DOSAGE
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
        """Assert that files and database are what they were when the data set was opened.

        Raises:
            DataError: if they are not.
        """
        assert_unchanged(self._stamps)
        if self._store is not None:
            self._store.assert_unchanged()


def _sent(panel: Panel | None) -> Panel:
    if panel is None:
        raise DataError("A question about variants needs genotypes.", "no panel came with it", "send it.")
    return panel


def _more(config: DatasetConfig) -> dict[str, str]:
    """The files of a data set beside people and genotypes: what each is for -> its path."""
    named = {"exclude": config.exclude, "callable": config.callable, "reference": config.reference}
    named |= {"index": f"{config.reference}.fai" if config.reference else "", "link": config.link}
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


def _with_declared(files: str, config: DatasetConfig, source: Source) -> str:
    """The files' digest, or one of all that a data set's people and values follow from."""
    declared = {name: asdict(variable) for name, variable in config.variables.items()}
    if not (declared or source.digest or config.table or config.schema):
        return files
    whole = canonical({"files": files, "store": source.digest, "variables": declared, "table": config.table,
                       "schema": config.schema})  # fmt: skip
    return hashlib.sha256(whole).hexdigest()[:16]

"""What is on a node's disk, as people: the data set, and the cohort that a request may see of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from fl_client.readers.calls import Calls, absent, distinct, lines, shown
from fl_client.readers.plink import Bed, Pgen
from fl_client.readers.tables import Table
from fl_client.readers.vcf import Vcf
from strategies.analysis import VARIANTS_PER_SLICE, Frame, Needs, Range
from strategies.cohort import MISSING, Cohort, Genotypes
from strategies.errors import DataError
from strategies.projection import Projection
from strategies.protections.suppression import check_profile
from strategies.variants import ASSEMBLIES, Panel, match

_CELLS_AT_A_TIME = 1 << 26
_BESIDE = {".bed": (".bim", ".fam"), ".pgen": (".pvar", ".psam")}
_SWAP = np.array([2, 1, 0, MISSING], dtype=np.uint8)


@dataclass(frozen=True)
class DatasetConfig:
    """The `[dataset]` table of a node's configuration.

    Attributes:
        identifier: the data set's name in permits, for example GDI-FI-DEMO-0001.
        assembly: GRCh37 or GRCh38.
        people: path of the people table, relative to the configuration's folder.
        genotypes: path of a .bed, .pgen, .vcf, .vcf.gz or .bcf, or nothing.
        synthetic: whether no person stands behind the data.
        person: name of the people table's first column.
        minimum_cell: the data set's own minimum of people in a cell of an exact answer; the stricter of it and the
            policy's holds.
        version: number of the data set's version, which `fl-client data` fixed; version 1 is what a node first opened.
        exclude: path of a text file with one identifier a line, of people to leave out, or nothing: those whom a look
            at several people rules out (relatives, outliers), and those who withdrew.
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
    """

    config: DatasetConfig
    digest: str
    table: Table = field(repr=False)
    calls: Calls | None = field(repr=False)
    order: NDArray[np.int64] = field(repr=False)
    _stamps: tuple[_Stamp, ...] = field(repr=False)

    @staticmethod
    def open(config: DatasetConfig, folder: Path) -> Dataset:
        """Open every file of a data set and check it.

        Args:
            config: what to open.
            folder: the folder that the paths are relative to.

        Raises:
            DataError: if a file is missing or malformed, or a person has no genotypes.
        """
        paths = [folder / config.people]
        if config.genotypes:
            genotypes = folder / config.genotypes
            paths += [genotypes, *(genotypes.with_suffix(s) for s in _BESIDE.get(genotypes.suffix, ()))]
        if config.exclude:
            paths.append(folder / config.exclude)
        stamps = tuple(_Stamp.of(path) for path in paths)
        leave_out = distinct([line.strip() for line in lines(paths[-1])], paths[-1].name) if config.exclude else ()
        table = Table.open(paths[0], config.person, frozenset(leave_out))
        calls = _calls(paths[1]) if config.genotypes else None
        order = np.arange(0) if calls is None else _order(table, calls, config.genotypes)
        opened = Dataset(config, _digest(stamps), table, calls, order, stamps)
        opened._unchanged()
        return opened

    @property
    def people(self) -> tuple[str, ...]:
        """N identifiers. They go nowhere but to `Part.holds`."""
        return self.table.people

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
    ) -> Cohort:
        """Open what a request needs, and nothing else.

        Args:
            needs: which people, columns and panel.
            frame: the request's slice of the panel (M variants), and the public range of each column.
            words_as_missing: take cells that are no numbers as missing.
            projected: name -> (N,) values of columns that were computed for all people.

        Returns:
            The people of the part, in the table's order, with columns clamped to their ranges and genotypes in the
            panel's order: all missing where the site has no such variant, swapped where its alleles are.

        Raises:
            DataError: if a column or the genotypes are not there, the panel is of another assembly, or a file changed
                since it was opened.
        """
        self._unchanged()
        chosen = np.flatnonzero(needs.part.holds(self.people))
        columns = {}
        for name in needs.columns:
            values = (projected or {}).get(name)
            values = (self.table.column(name, words_as_missing) if values is None else values)[chosen]
            if name not in frame.columns:
                raise DataError("A column is opened within a public range.", f"{name!r} has none", "state its range.")
            columns[name] = frame.columns[name].clamp(values)
            columns[name].setflags(write=False)
        genotypes = None if needs.panel is None else self._genotypes(frame.panel, chosen)
        self._unchanged()  # nor while they were read
        return Cohort(people=len(chosen), genotypes=genotypes, columns=MappingProxyType(columns))

    def project(self, projection: Projection, panel: Panel) -> dict[str, NDArray[np.float64]]:
        """Name -> (N,) columns of all people from M variants' weights.

        Raises:
            DataError: as `cohort` does.
        """
        self._unchanged()
        everybody = np.arange(len(self.people))
        sums = np.zeros((len(everybody), len(projection.names)), dtype=np.int64)
        for start in range(0, len(panel), VARIANTS_PER_SLICE):
            span = slice(start, start + VARIANTS_PER_SLICE)
            projection.add(sums, self._genotypes(panel[span], everybody), span)
        self._unchanged()
        return projection.columns(sums)

    def _genotypes(self, panel: Panel | None, chosen: NDArray[np.int64]) -> Genotypes:
        if self.calls is None or panel is None:
            raise DataError(
                "A question about variants needs genotypes.",
                f"{self.config.identifier} has none" if self.calls is None else "no panel came with the question",
                "name them as `genotypes` in the [dataset] table.",
            )
        if panel.assembly != self.config.assembly:
            raise DataError(
                "A panel is matched to genotypes of its own assembly only.",
                f"the panel is {panel.assembly}, {self.config.identifier} is {self.config.assembly}",
                f"ask with a panel of {self.config.assembly}.",
            )
        index, swapped = match(panel.variants, self.calls.rows)
        packed = np.empty((len(panel), -(-len(chosen) // 4)), dtype=np.uint8)
        people = self.order[chosen]
        step = max(1, _CELLS_AT_A_TIME // len(self.calls.people))
        for start in range(0, len(panel), step):
            span = slice(start, start + step)
            here = np.flatnonzero(index[span] >= 0)
            codes = np.full((len(index[span]), len(chosen)), MISSING, dtype=np.uint8)
            if len(here):
                codes[here] = self.calls.codes(index[span][here])[:, people]
            turned = swapped[span]
            codes[turned] = _SWAP[codes[turned]]
            packed[span] = Genotypes.pack(codes).packed
        return Genotypes(packed, len(chosen))

    def _unchanged(self) -> None:
        for stamp in self._stamps:
            if _Stamp.of(stamp.path) != stamp:
                raise DataError(
                    "The files of an open data set stay as they are.",
                    f"{stamp.path.name} changed since it was opened",
                    "restart the node, which opens them anew.",
                )


def _calls(path: Path) -> Calls:
    if path.suffix == ".bed":
        return Bed.open(path)
    if path.suffix == ".pgen":
        return Pgen.open(path)
    if path.name.endswith((".vcf", ".vcf.gz", ".bcf")):
        return Vcf.open(path)
    raise DataError(
        "Genotypes are read from .bed, .pgen, .vcf, .vcf.gz or .bcf.", f"{path.name}", "convert them to one of these."
    )


def _order(table: Table, calls: Calls, name: str) -> NDArray[np.int64]:
    """(N,) where each person of the table stands in the genotype file."""
    at = {person: i for i, person in enumerate(calls.people)}
    without = [person for person in table.people if person not in at]
    if without:
        raise DataError(
            "Every person of the people table has genotypes.",
            f"{len(without)} of {len(table.people)} are not in {name}: {shown(without)}",
            "remove them from the table, or name the genotype file that has them.",
        )
    return np.array([at[person] for person in table.people], dtype=np.int64)


def _digest(stamps: tuple[_Stamp, ...]) -> str:
    whole = hashlib.sha256(b"genosum dataset v1\0")
    for stamp in stamps:
        with stamp.path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        whole.update(f"{stamp.path.suffix}\t{stamp.size}\t{digest}\n".encode())
    return whole.hexdigest()[:16]

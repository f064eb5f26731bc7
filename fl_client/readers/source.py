"""Whom a data set is of, and what happened to them: whichever kind of source its configuration names."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from fl_client.database import checked
from fl_client.readers import embedded, phenopackets, recorded, server
from fl_client.readers.config import DatasetConfig
from fl_client.readers.events import Clinical
from fl_client.readers.omop import SHAPE, VARIABLES, Omop
from fl_client.readers.store import Store
from fl_client.readers.tables import Table


@dataclass(frozen=True, eq=False)
class Source:
    """A source of people, opened.

    Attributes:
        table: the people, and their columns and variables.
        clinical: their dates and events, or None.
        store: the database that holds them, if it is a server's: no file says when it changes.
        digest: of what is there, if it is a server's; files are digested byte by byte.
    """

    table: Table
    clinical: Clinical | None = field(default=None, repr=False)
    store: Store | None = field(default=None, repr=False)
    digest: str = ""

    @staticmethod
    def open(config: DatasetConfig, folder: Path, leave_out: Collection[str]) -> Source:
        """Read who is there, but for some.

        Raises:
            DataError: if it cannot be read, or is not what the configuration says.
        """
        if config.omop:
            return _cdm(config, folder, leave_out)
        if config.phenopackets:
            table, clinical = phenopackets.read(folder / config.phenopackets, leave_out)
            return Source(table, clinical)
        table = Table.open(folder / config.people, config.person, leave_out, config.variables, config.table)
        if not config.events:
            return Source(table)
        return Source(table, recorded.read(folder / config.events, table.people))


def paths(config: DatasetConfig, folder: Path) -> list[Path]:
    """The files and folders that hold the people and their events; a server's are none.

    Raises:
        DataError: if a folder is not there.
    """
    if config.served:
        return []
    if config.omop:
        path = folder / config.omop
        return [path, *(path / name for name in embedded.names(path))] if path.is_dir() else embedded.with_log(path)
    if config.phenopackets:
        path = folder / config.phenopackets
        return [path, *phenopackets.files(path)]
    return [path for name in (config.people, config.events) if name for path in embedded.with_log(folder / name)]


def _cdm(config: DatasetConfig, folder: Path, leave_out: Collection[str]) -> Source:
    store: Store
    if config.served:
        url = checked(config.omop, "omop")
        store = server.Server.open(url, config.schema or "public", SHAPE, config.statement_timeout)
    else:
        store = embedded.Embedded.open(folder / config.omop, config.schema or "main", SHAPE)
    cdm = Omop.open(store, leave_out)
    values = cdm.variables()
    for column in values.values():
        column.setflags(write=False)
    people = tuple(map(str, cdm.persons.tolist()))
    table = Table(store.name, people, MappingProxyType(values), MappingProxyType({}), VARIABLES)
    return Source(table, cdm, store, cdm.digest) if config.served else Source(table, cdm)

"""Tables in files, read by DuckDB: a database of its own, Parquet, or CSV; in a folder or a zip archive."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy.dialects import postgresql

from fl_client.readers.lines import absent
from fl_client.readers.store import Rows, array
from fl_client.readers.variables import Cells
from strategies.errors import DataError

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

_DIALECT = postgresql.dialect(paramstyle="numeric_dollar")  # type: ignore[no-untyped-call]
"""DuckDB's SQL is PostgreSQL's, as far as this package writes it."""

_ALONE = {"enable_external_access": "false", "autoload_known_extensions": "false", "lock_configuration": "true"}
"""No statement opens a file or loads code, whatever it says."""

Shape = Mapping[str, Mapping[str, sa.types.TypeEngine[Any]]]
"""Tables, their columns, and the type of each."""


@dataclass(frozen=True, eq=False)
class Embedded:
    """A store in this process. Attributes as of `Store`."""

    name: str
    schema: str
    tables: Mapping[str, Collection[str]] = field(repr=False)
    _connection: duckdb.DuckDBPyConnection = field(repr=False)
    counts: Mapping[str, int] = field(default_factory=dict)

    @staticmethod
    def open(path: Path, schema: str, shape: Shape) -> Embedded:
        """Open a .duckdb file, or a folder or .zip of .parquet or .csv files that are named as their tables.

        Of a folder's or archive's files, the columns of `shape` are read and no others. Parquet files of a folder stay
        where they are; all else is held in memory.

        Args:
            path: what to open.
            schema: where the tables are in a .duckdb file.
            shape: the tables and columns that are wanted.

        Raises:
            DataError: if it is not there or something else, or a cell is not of its column's type.
        """
        import duckdb  # noqa: PLC0415  a second that a node without such files does not wait for

        if not path.exists():
            raise absent(path, FileNotFoundError(2, "No such file or directory"))
        try:
            if path.suffix == ".duckdb":
                connection = duckdb.connect(str(path), read_only=True, config=dict(_ALONE))
            else:
                connection, schema = _loaded(path, shape), "main"
            found = connection.execute(
                "SELECT lower(table_name), lower(column_name) FROM duckdb_columns() "
                "WHERE schema_name = $1 AND database_name = current_database()",
                [schema],
            ).fetchall()
        except (duckdb.Error, zipfile.BadZipFile, ValueError) as error:
            raise _unreadable(path.name, error) from None
        tables: dict[str, set[str]] = {}
        for table, column in found:
            tables.setdefault(table, set()).add(column)
        return Embedded(path.name, schema, MappingProxyType(tables), connection)

    def rows(self, statement: Rows) -> tuple[NDArray[Any], ...]:
        """As `Store.rows`."""
        import duckdb  # noqa: PLC0415

        compiled = statement.compile(dialect=_DIALECT, compile_kwargs={"render_postcompile": True})
        bound = [compiled.params[name] for name in compiled.positiontup or ()]
        try:
            found = self._connection.execute(str(compiled), bound).fetchnumpy()
        except duckdb.Error as error:
            raise _unreadable(self.name, error) from None
        kinds = [column.type for column in statement.selected_columns]
        return tuple(_array(kind, values) for kind, values in zip(kinds, found.values(), strict=True))

    def assert_unchanged(self) -> None:
        """Its files are the data set's, which looks at them itself."""


@dataclass(frozen=True, eq=False)
class Columnar:
    """A people table in a Parquet or DuckDB file.

    Attributes:
        columns: names, in the table's order.
    """

    columns: tuple[str, ...]
    _cells: Mapping[str, Cells] = field(repr=False)

    @staticmethod
    def open(path: Path, table: str) -> Columnar:
        """Read one.

        Raises:
            DataError: if it is not there, or is no such file.
        """
        import duckdb  # noqa: PLC0415

        if not path.exists():
            raise absent(path, FileNotFoundError(2, "No such file or directory"))
        try:
            if path.suffix == ".parquet":
                rows = duckdb.connect(":memory:").read_parquet(str(path))
            else:
                rows = duckdb.connect(str(path), read_only=True, config=dict(_ALONE)).table(f'"{_quoted(table)}"')
            names = tuple(rows.columns)
            kinds = [str(kind) for kind in rows.types]
            cast = ", ".join(map(_cast, range(len(names)), names, kinds))
            found = rows.project(cast).fetchnumpy() if names else {}
        except duckdb.Error as error:
            raise _unreadable(path.name, error) from None
        return Columnar(names, MappingProxyType({f"c{k}": _cells(found[f"c{k}"]) for k in range(len(names))}))

    def cells(self) -> list[Cells]:
        """Each column: texts, or numbers where the file has numbers; the first one always texts."""
        return [*self._cells.values()]


_NUMBERS = ("TINYINT", "SMALLINT", "INT", "BIGINT", "HUGEINT", "U", "DECIMAL", "DOUBLE", "FLOAT", "BOOLEAN")
"""Beginnings of DuckDB's numeric types; UUID is the one other type with U, and no column of numbers."""


def _cast(number: int, name: str, kind: str) -> str:
    plain = number and "[" not in kind and kind.startswith(_NUMBERS) and kind != "UUID"
    to = "DOUBLE" if plain else "VARCHAR"
    return f'CAST("{_quoted(name)}" AS {to}) AS c{number}'


def _cells(column: NDArray[Any]) -> Cells:
    if column.dtype.kind == "f":
        values = np.ma.filled(np.ma.asarray(column, dtype=np.float64), np.nan)
        return np.where(np.isfinite(values), values, np.nan)
    missing = np.ma.getmaskarray(column)
    return ["" if gone else str(cell).strip() for cell, gone in zip(np.ma.getdata(column), missing, strict=True)]


def _quoted(name: str) -> str:
    """An identifier of the operator's own file, for between double quotes."""
    return name.replace('"', '""')


def _array(kind: sa.types.TypeEngine[Any], values: NDArray[Any]) -> NDArray[Any]:
    if values.dtype.kind in "if" and not isinstance(kind, sa.String):
        plain = values.astype(np.int64 if isinstance(kind, sa.Integer) else np.float64)
        if not np.ma.isMaskedArray(values):
            return plain
        return np.ma.filled(plain, np.iinfo(np.int64).min if plain.dtype.kind == "i" else np.nan)
    missing = np.ma.getmaskarray(values)
    return array(kind, [None if gone else value for value, gone in zip(np.ma.getdata(values), missing, strict=True)])


def _loaded(path: Path, shape: Shape) -> duckdb.DuckDBPyConnection:
    """A database in memory with the tables of a folder or archive."""
    import duckdb  # noqa: PLC0415

    stored = {Path(name).stem.lower(): name for name in names(path) if Path(name).stem.lower() in shape}
    parquet = [str(path / name) for name in stored.values() if path.is_dir() and name.endswith(".parquet")]
    connection = duckdb.connect(":memory:", config={"autoload_known_extensions": "false"})
    for table, name in stored.items():
        if str(path / name) in parquet:
            whole = connection.read_parquet(str(path / name))
        else:
            whole = connection.from_arrow(_arrow(path, name, shape[table]))
        there = {column.lower(): column for column in whole.columns}
        wanted = ", ".join(
            f'CAST("{_quoted(there[column])}" AS {kind.compile(dialect=_DIALECT)}) AS {column}'
            for column, kind in shape[table].items()
            if column in there
        )
        if not wanted:
            continue
        if str(path / name) in parquet:
            whole.project(wanted).create_view(table)
        else:
            whole.project(wanted).create(table)
    connection.execute(f"SET allowed_paths = [{', '.join(['?'] * len(parquet))}]", parquet)
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


def names(path: Path) -> list[str]:
    """Files of a folder or archive that may hold tables, by name."""
    if path.is_dir():
        every: Sequence[str] = [file.name for file in path.iterdir() if file.is_file()]
    else:
        with zipfile.ZipFile(path) as archive:
            every = archive.namelist()
    return sorted(n for n in every if n.lower().endswith((".csv", ".parquet")) and not Path(n).name.startswith("."))


def _arrow(path: Path, name: str, columns: Collection[str]) -> pa.Table:
    """The wanted columns of one file; those of a CSV as texts."""
    import pyarrow.csv  # noqa: PLC0415
    import pyarrow.parquet  # noqa: PLC0415

    if path.is_dir():
        raw = (path / name).read_bytes()
    else:
        with zipfile.ZipFile(path) as archive:
            raw = archive.read(name)
    if name.lower().endswith(".parquet"):
        there = pyarrow.parquet.read_schema(io.BytesIO(raw)).names
        return pyarrow.parquet.read_table(io.BytesIO(raw), columns=[n for n in there if n.lower() in columns])
    header = raw[: raw.find(b"\n") if b"\n" in raw else None].decode("utf-8-sig").strip()
    separator = "\t" if "\t" in header else ","
    there = [column.strip().strip('"') for column in header.split(separator)]
    wanted = [column for column in there if column.lower() in columns]
    kinds = dict.fromkeys(wanted, pyarrow.string())
    return pyarrow.csv.read_csv(
        io.BytesIO(raw),
        read_options=pyarrow.csv.ReadOptions(column_names=there, skip_rows=1),
        parse_options=pyarrow.csv.ParseOptions(delimiter=separator, newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(
            include_columns=wanted, column_types=kinds, null_values=[""], strings_can_be_null=True,
            quoted_strings_can_be_null=True,
        ),
    )  # fmt: skip


def _unreadable(name: str, error: Exception) -> DataError:
    return DataError(
        "Tables are read from a DuckDB database, or from Parquet or CSV files whose cells are of their columns' types.",
        f"{name}: {str(error).splitlines()[0][:160]}",
        "restore or correct the file; a database that another process writes to is opened when that has ended.",
    )

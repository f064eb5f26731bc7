"""Tables in files, read by DuckDB: a database of its own, Parquet, or CSV; in a folder or a zip archive."""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy.dialects import postgresql

from fl_client.readers.events import NEVER
from fl_client.readers.lines import absent
from fl_client.readers.store import Rows, array, finite, mistyped, whole
from fl_client.readers.variables import Cells
from strategies.errors import DataError

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

_DIALECT = postgresql.dialect(paramstyle="numeric_dollar")  # type: ignore[no-untyped-call]
"""DuckDB's SQL is PostgreSQL's, as far as this package writes it."""

_ALONE = {"enable_external_access": "false", "autoload_known_extensions": "false"}
"""No statement opens a file or loads code, whatever it says."""

_ERRORS = (OSError, RuntimeError, ValueError, EOFError, zipfile.BadZipFile, zlib.error)
"""What reading a folder or an archive raises: one with a password, for example, a RuntimeError."""

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
                connection = _database(path)
            else:
                connection, schema = _loaded(path, shape), "main"
            found = connection.execute(
                "SELECT lower(table_name), lower(column_name) FROM duckdb_columns() "
                "WHERE schema_name = $1 AND database_name = current_database()",
                [schema],
            ).fetchall()
        except (duckdb.Error, *_ERRORS) as error:
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
        out = []
        for column, values in zip(statement.selected_columns, found.values(), strict=True):
            try:
                out.append(_array(column.type, values))
            except (ValueError, TypeError, ArithmeticError):
                raise mistyped(self.name, column.name) from None
        return tuple(out)

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
                rows = _memory().read_parquet(str(path))
            else:
                rows = _database(path).table(f'"{_quoted(table)}"')
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


_WHOLE = r"U?(TINY|SMALL|BIG|HUGE)?INT(EGER)?"
_NUMBER = re.compile(rf"{_WHOLE}|DECIMAL\(\d+,\d+\)|DOUBLE|FLOAT|BOOLEAN")
"""DuckDB's numeric types."""


def _cast(number: int, name: str, kind: str) -> str:
    to = "DOUBLE" if number and _NUMBER.fullmatch(kind) else "VARCHAR"
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
    """As `store.array`, of a column that may be masked."""
    if values.dtype.kind in "if" and not isinstance(kind, sa.String):
        plain = np.ma.getdata(values)
        plain = whole(plain) if isinstance(kind, sa.Integer) else finite(plain.astype(np.float64))
        if not np.ma.isMaskedArray(values):
            return plain
        return np.where(np.ma.getmaskarray(values), NEVER if plain.dtype.kind == "i" else np.nan, plain)
    missing = np.ma.getmaskarray(values)
    return array(kind, [None if gone else value for value, gone in zip(np.ma.getdata(values), missing, strict=True)])


def _memory() -> duckdb.DuckDBPyConnection:
    """A database in memory, where the day of a timestamp is not that of whoever reads it."""
    import duckdb  # noqa: PLC0415

    connection = duckdb.connect(":memory:", config={"autoload_known_extensions": "false"})
    connection.execute("SET TimeZone = 'UTC'")
    return connection


def _database(path: Path) -> duckdb.DuckDBPyConnection:
    """A database in a file, in which nothing can be written, opened or loaded."""
    import duckdb  # noqa: PLC0415

    connection = duckdb.connect(str(path), read_only=True, config=dict(_ALONE))
    if connection.execute("SELECT current_setting('lock_configuration')").fetchone() == (False,):
        connection.execute("SET GLOBAL TimeZone = 'UTC'")  # a process' connections to it share one lock
        connection.execute("SET lock_configuration = true")
    return connection


def _loaded(path: Path, shape: Shape) -> duckdb.DuckDBPyConnection:
    """A database in memory with the tables of a folder or archive."""
    import duckdb  # noqa: PLC0415

    stored: dict[str, str] = {}
    for name in names(path):
        table = Path(name).stem.lower()
        if table in shape and stored.setdefault(table, name) != name:
            raise ValueError(f"{stored[table]} and {name} are of the same table")
    parquet = [str(path / name) for name in stored.values() if path.is_dir() and name.endswith(".parquet")]
    connection = _memory()
    for table, name in stored.items():
        try:
            _load(connection, path, name, shape[table], str(path / name) in parquet)
        except (duckdb.Error, *_ERRORS) as error:
            raise _unreadable(f"{path.name}/{name}", error) from None
    connection.execute(f"SET allowed_paths = [{', '.join(['?'] * len(parquet))}]", parquet)
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


def _load(
    connection: duckdb.DuckDBPyConnection,
    path: Path,
    name: str,
    columns: Mapping[str, sa.types.TypeEngine[Any]],
    in_place: bool,
) -> None:
    """Make a table of a file, or, where it can stay in its place, a view."""
    rows = connection.read_parquet(str(path / name)) if in_place else connection.from_arrow(_arrow(path, name, columns))
    there = {column.lower(): (column, str(kind)) for column, kind in zip(rows.columns, rows.types, strict=True)}
    wanted = ", ".join(
        f"{_typed(column, *there[column], kind)} AS {column}" for column, kind in columns.items() if column in there
    )
    if wanted and in_place:
        rows.project(wanted).create_view(Path(name).stem.lower())
    elif wanted:
        rows.project(wanted).create(Path(name).stem.lower())


def _typed(column: str, name: str, kind: str, wanted: sa.types.TypeEngine[Any]) -> str:
    """A column of a file, called `name` there, as one of another type.

    Where DuckDB rounds, 12.6 is no whole number. The cast that then fails says which column it is of, and not the cell.
    """
    cell, to = f'"{_quoted(name)}"', wanted.compile(dialect=_DIALECT)
    cast = f"CAST({cell} AS {to})"
    if not isinstance(wanted, sa.Integer) or re.fullmatch(_WHOLE, kind):
        return cast
    none = f"WHEN isnan({cell}) THEN NULL " if kind in ("DOUBLE", "FLOAT") else ""
    same = f"CAST({cast} AS DOUBLE) IS NOT DISTINCT FROM CAST({cell} AS DOUBLE)"
    return f"CASE {none}WHEN {same} THEN {cast} ELSE CAST('when casting from source column {column}' AS {to}) END"


def with_log(path: Path) -> list[Path]:
    """A file, and what was written to a DuckDB database and stands in its log alone: it is read as well."""
    log = path.with_name(path.name + ".wal")
    return [path, log] if path.suffix == ".duckdb" and log.exists() else [path]


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
    if len({column.lower() for column in wanted}) < len(wanted):
        raise ValueError("a column stands there twice")
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
    """What a reader said, as an error for its operator. What it says of a cell has the cell's text, and stays out."""
    import duckdb  # noqa: PLC0415

    said = (str(error).splitlines() or [type(error).__name__])[0]
    if isinstance(error, duckdb.ConversionException | duckdb.OutOfRangeException):
        column = re.search(r"when casting from source column (\w+)", said)
        return mistyped(name, column[1] if column else "")
    said = re.sub(r"(Expected \d+ columns, got \d+).*", r"\1", said)  # and the line
    return DataError(
        "Tables are read from a DuckDB database, or from Parquet or CSV files whose cells are of their columns' types.",
        f"{name}: {said[:160]}",
        "restore or correct the file; a database that another process writes to is opened when that has ended.",
    )

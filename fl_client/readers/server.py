"""Tables in a PostgreSQL database of the operator's own, read by a role that cannot write."""

from __future__ import annotations

import weakref
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from fl_client.readers.store import Rows, array, mistyped
from strategies.errors import DataError

_ROWS_AT_A_TIME = 1 << 16
_OF_A_CELL = "22"
"""The class of SQLSTATE of what is wrong with a value."""

_TABLES_OF_ROWS = ("r", "m")
"""Kinds of relations whose rows say which transaction wrote them."""

_RELATIONS = sa.table("pg_class", *map(sa.column, ("oid", "relname", "relkind", "relnamespace")), schema="pg_catalog")
_SCHEMAS = sa.table("pg_namespace", *map(sa.column, ("oid", "nspname")), schema="pg_catalog")
_COLUMNS = sa.table(
    "pg_attribute", *map(sa.column, ("attrelid", "attname", "attnum", "attisdropped")), schema="pg_catalog"
)


@dataclass(frozen=True, eq=False)
class Server:
    """A store behind a server. Attributes as of `Store`.

    Every statement runs in a read-only transaction at REPEATABLE READ, under the statement timeout. What each table's
    rows were written by tells whether it changed: a sum over the writing transactions' numbers, computed anew only
    when the server's list of transactions moved at all. Rows of a view, and of a table of which the role may read some
    columns alone, are counted.
    """

    name: str
    schema: str
    tables: Mapping[str, Collection[str]] = field(repr=False)
    counts: Mapping[str, int] = field(repr=False)
    _engine: sa.Engine = field(repr=False)
    _written: Mapping[str, tuple[int, str]] = field(repr=False)
    _seen: dict[str, str] = field(repr=False)

    def __post_init__(self) -> None:
        weakref.finalize(self, self._engine.dispose)

    @staticmethod
    def open(url: str, schema: str, wanted: Collection[str], timeout_s: int) -> Server:
        """Connect, and make sure that nothing can be written.

        Args:
            url: of the database, without a password: libpq finds it in ~/.pgpass or where PGPASSFILE says.
            schema: where the tables are.
            wanted: names of the tables that may be read.
            timeout_s: seconds after which a statement is given up.

        Raises:
            DataError: if it cannot be reached, has no such schema, or the role could write there.
        """
        shown = sa.make_url(url).render_as_string()
        settings = {
            "default_transaction_read_only": "on",
            "statement_timeout": timeout_s * 1000,
            "idle_in_transaction_session_timeout": timeout_s * 1000,
            "TimeZone": "UTC",  # the day of a timestamp is not that of whoever reads it
            "DateStyle": "ISO,YMD",
        }
        engine = sa.create_engine(
            url,
            isolation_level="REPEATABLE READ",
            execution_options={"postgresql_readonly": True},
            pool_pre_ping=True,
            connect_args={
                "options": " ".join(f"-c {name}={value}" for name, value in settings.items()),
                "connect_timeout": 10,
                "application_name": "genosum",
            },
        )
        try:
            with engine.connect() as connection:
                relations = _relations(connection, schema)
                _cannot_write(connection, schema, relations, shown)
                tables = {
                    name: frozenset(_names(connection, oid)) for name, (oid, _) in relations.items() if name in wanted
                }
                snapshot = _snapshot(connection)
                written = {
                    name: _state(connection, schema, name, _tells_writers(connection, *relations[name]))
                    for name in tables
                }
        except sa.exc.SQLAlchemyError as error:
            engine.dispose()
            raise unreachable(shown, error) from None
        except DataError:
            engine.dispose()
            raise
        counts = {name: rows for name, (rows, _) in sorted(written.items())}
        return Server(
            shown, schema, MappingProxyType(tables), MappingProxyType(counts), engine, written, {"snapshot": snapshot}
        )

    def rows(self, statement: Rows) -> tuple[NDArray[Any], ...]:
        """As `Store.rows`."""
        kinds = [column.type for column in statement.selected_columns]
        parts: list[list[NDArray[Any]]] = []
        try:
            with (
                self._engine.connect() as connection,
                connection.execution_options(yield_per=_ROWS_AT_A_TIME).execute(statement) as result,
            ):
                for some in result.partitions():
                    columns = zip(*some, strict=True)
                    parts.append([array(kind, column) for kind, column in zip(kinds, columns, strict=True)])
        except sa.exc.SQLAlchemyError as error:
            raise unreachable(self.name, error) from None
        except (ValueError, TypeError, ArithmeticError):
            raise mistyped(self.name) from None
        parts = parts or [[array(kind, ()) for kind in kinds]]
        return tuple(np.concatenate(column) for column in zip(*parts, strict=True))

    def assert_unchanged(self) -> None:
        """As `Store.assert_unchanged`."""
        try:
            with self._engine.connect() as connection:
                snapshot = _snapshot(connection)
                if snapshot == self._seen["snapshot"]:
                    return
                for name, (_, writers) in self._written.items():
                    if _state(connection, self.schema, name, bool(writers)) != self._written[name]:
                        raise DataError(
                            "The tables of an open data set stay as they are.",
                            f"{self.name}: {self.schema}.{name} changed since it was opened",
                            "restart the node, which opens them anew; load new data while no study runs.",
                        )
                self._seen["snapshot"] = snapshot
        except sa.exc.SQLAlchemyError as error:
            raise unreachable(self.name, error) from None


def unreachable(where: str, error: Exception) -> DataError:
    """What a database said, as an error for its operator. What it says of a cell has the cell's text, and stays out."""
    if (getattr(getattr(error, "orig", None), "sqlstate", None) or "").startswith(_OF_A_CELL):
        return mistyped(where)
    said = str(getattr(error, "orig", None) or error).splitlines() or [type(error).__name__]
    return DataError(
        "A clinical database can be reached and read, each statement within the timeout.",
        f"{where}: {said[0][:160]}",
        "start the server, grant SELECT to the node's role, or set `statement_timeout` in the [dataset] table.",
    )


def _snapshot(connection: sa.Connection) -> str:
    """Which transactions were over: the same text, and nothing was committed in between."""
    return str(connection.execute(sa.select(sa.cast(sa.func.pg_current_snapshot(), sa.Text))).scalar_one())


def _relations(connection: sa.Connection, schema: str) -> dict[str, tuple[int, str]]:
    """Tables and views of a schema: name in lower case -> its number and kind."""
    found = connection.execute(
        sa.select(_RELATIONS.c.relname, _RELATIONS.c.oid, sa.cast(_RELATIONS.c.relkind, sa.Text))
        .join(_SCHEMAS, _SCHEMAS.c.oid == _RELATIONS.c.relnamespace)
        .where(_SCHEMAS.c.nspname == schema, _RELATIONS.c.relkind.in_(["r", "p", "v", "m", "f"]))
    )
    return {str(name).lower(): (oid, kind) for name, oid, kind in found}


def _cannot_write(connection: sa.Connection, schema: str, relations: Mapping[str, tuple[int, str]], where: str) -> None:
    may = sa.func.has_table_privilege(_RELATIONS.c.oid, "INSERT, UPDATE, DELETE, TRUNCATE")
    column = sa.func.has_any_column_privilege(_RELATIONS.c.oid, "INSERT, UPDATE")
    numbers = [oid for oid, _ in relations.values()]
    writable = connection.execute(
        sa.select(_RELATIONS.c.relname)
        .where(_RELATIONS.c.oid.in_(numbers), sa.or_(may, column))
        .order_by(_RELATIONS.c.relname)
    )
    found = [str(name) for (name,) in writable]
    if relations and connection.execute(sa.select(sa.func.has_schema_privilege(schema, "CREATE"))).scalar_one():
        found.append(f"new tables in {schema}")
    if found:
        raise DataError(
            "A node reads its clinical database as a role that cannot write there.",
            f"{where}: it may write {', '.join(found[:3])}{' ...' * (len(found) > 3)}",
            "make a role with CONNECT, USAGE on the schema and SELECT on its tables alone, and name it in the URL.",
        )


def _tells_writers(connection: sa.Connection, oid: int, kind: str) -> bool:
    """Whether a relation's rows say who wrote them: those of a table do, to a role that may read all of it."""
    return kind in _TABLES_OF_ROWS and bool(
        connection.execute(sa.select(sa.func.has_table_privilege(oid, "SELECT"))).scalar_one()
    )


def _names(connection: sa.Connection, oid: int) -> list[str]:
    """Columns of a relation, in lower case."""
    found = connection.execute(
        sa.select(_COLUMNS.c.attname).where(
            _COLUMNS.c.attrelid == oid, _COLUMNS.c.attnum > 0, sa.not_(_COLUMNS.c.attisdropped)
        )
    )
    return [str(name).lower() for (name,) in found]


def _state(connection: sa.Connection, schema: str, table: str, writers: bool) -> tuple[int, str]:
    """Rows of a table, and the sum of the numbers of the transactions that wrote them; nothing of a view's."""
    source = sa.table(table, schema=schema)
    written = sa.cast(sa.func.sum(sa.cast(sa.cast(sa.literal_column("xmin"), sa.Text), sa.BigInteger)), sa.Text)
    counted: list[sa.ColumnElement[Any]] = [sa.func.count().label("n"), written if writers else sa.literal("")]
    rows, total = connection.execute(sa.select(*counted).select_from(source)).one()
    return int(rows), f"writers {total}" if writers else ""

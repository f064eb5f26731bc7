"""Where a node's ledger is stored: a SQLite file of its own, or a PostgreSQL database by URL. One writer at a time.

On SQLite a transaction begins immediate; on PostgreSQL it first takes an advisory lock, which the server frees when the
process dies. Either way transactions are serial and durable before they return.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from strategies.errors import DataError, UsageError

TABLES = sa.MetaData()

POSTGRESQL = "postgresql+psycopg"
_WRITING, _ANSWERING = 0x67656E6F73756D01, 0x67656E6F73756D02
"""Keys of the advisory locks; a database holds one node's ledger."""


class Database:
    """An opened store of a ledger's tables.

    Attributes:
        engine: every `engine.begin()` is one transaction, alone among all processes.
    """

    def __init__(self, folder: Path, url: str | None) -> None:
        """Open the tables, and create them where they are not.

        Args:
            folder: the node's state folder.
            url: None for the file `ledger.sqlite` in it, or what `checked` lets through.

        Raises:
            DataError: if it is not a ledger, or cannot be reached.
        """
        self._folder, self._sqlite = folder, url is None
        self.engine = _file(folder / "ledger.sqlite") if url is None else _server(checked(url))
        try:
            # One process at a time: SQLite does not wait for its lock while it turns a new file into a write-ahead one.
            with locked(folder / "opening"), self.engine.begin() as connection:
                TABLES.create_all(connection)
        except sa.exc.DatabaseError as error:
            self.engine.dispose()
            where = str(folder / "ledger.sqlite") if url is None else sa.make_url(url).render_as_string()
            raise DataError(
                "A node's ledger is the database that it wrote: a SQLite file, or PostgreSQL by URL.",
                f"{where}: {str(error.orig).splitlines()[0][:120]}",
                "start the server, or restore it from a copy; never start with an empty one, since it holds what "
                "was spent.",
            ) from None

    def close(self) -> None:
        self.engine.dispose()

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the lock under which requests are answered, over all processes of the node; it ends with the process."""
        if self._sqlite:
            with locked(self._folder / "lock"):
                yield
            return
        # The lock is the connection's, not a transaction's: none stays open while data are read.
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("SELECT pg_advisory_lock(%s)", (_ANSWERING,))
            try:
                yield
            finally:
                connection.exec_driver_sql("SELECT pg_advisory_unlock(%s)", (_ANSWERING,))

    def forget(self) -> None:
        """Make what was overwritten unreadable in the files, as far as the store can be told to.

        On SQLite deleted bytes are zeroed and the write-ahead log is cut. PostgreSQL keeps the log that its operator
        configured; the rows are vacuumed.
        """
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            if self._sqlite:
                # Pages as they were before the update lie in the write-ahead log until it is cut.
                connection.connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")
            else:
                connection.exec_driver_sql("VACUUM sessions, replies, exchanges, agreements, peers")


Statement = sa.Select[Any] | sa.Insert | sa.Update | sa.Delete


def given(*names: str) -> dict[str, sa.BindParameter[Any]]:
    """For a statement's `filter_by`: these columns have the values that `run` is given under their names."""
    return {name: sa.bindparam(name) for name in names}


def run(connection: sa.Connection, statement: Statement, **values: Any) -> sa.CursorResult[Any]:
    """Execute a statement that a room holds as a constant.

    It becomes text once in a process. SQLAlchemy would look at every part of it each time to see that it knows it,
    which takes longer than what SQLite does then. Values come back as the driver has them: SQLite's truths are numbers.
    """
    text, own = _text(statement, connection.dialect.name)
    return connection.exec_driver_sql(text, own | values)


@cache
def _text(statement: Statement, dialect: str) -> tuple[str, dict[str, Any]]:
    """A statement's text and the values that it brings along, such as a limit."""
    driver, style = ("sqlite", "named") if dialect == "sqlite" else (POSTGRESQL, "pyformat")
    kind: Callable[..., sa.Dialect] = sa.make_url(f"{driver}://").get_dialect()
    compiled = statement.compile(dialect=kind(paramstyle=style))
    return str(compiled), {name: value for name, value in compiled.params.items() if value is not None}


def checked(url: str, key: str = "ledger") -> str:
    """The URL of a PostgreSQL database.

    Args:
        url: what a node's file says.
        key: under which key it says so.

    Raises:
        UsageError: if it is something else, or holds a password: libpq reads those from a file that only its owner may
            read.
    """
    try:
        parts = sa.make_url(url)
    except sa.exc.ArgumentError:
        parts = None
    if parts is None or parts.drivername != POSTGRESQL or not parts.database:
        raise UsageError(
            "A node's database is a file of its own, or a PostgreSQL database by URL.",
            f"{key} is something else",
            f'name a file, or write {key} = "{POSTGRESQL}://user@localhost/database"; a ledger may be left out.',
        )
    if parts.password is not None or "password" in parts.query:
        raise UsageError(
            "A password does not stand in a node's file.",
            f"{key} names one",
            "put it into ~/.pgpass or the file that PGPASSFILE names, of mode 0600.",
        )
    return url


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a file's lock, over all processes; it ends with the process, however that ends."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def write(path: Path, data: bytes, synced: bool = True) -> None:
    """Write a file so that after a crash it is there whole or not at all; also after one of the machine, if synced."""
    partial = path.with_name(path.name + ".partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        if synced:
            file.flush()
            os.fsync(file.fileno())
    partial.replace(path)
    if not synced:
        return
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _file(path: Path) -> sa.Engine:
    if not path.exists():
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    engine = sa.create_engine(f"sqlite:///{path}", connect_args={"timeout": 60})
    sa.event.listen(engine, "connect", _settings)
    sa.event.listen(engine, "begin", lambda c: c.connection.cursor().execute("BEGIN IMMEDIATE"))
    return engine


def _settings(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # SQLAlchemy's BEGIN IMMEDIATE is ours, not the driver's
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "secure_delete=ON", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _server(url: str) -> sa.Engine:
    # Read committed, so that what is read after the lock was waited for is what its last holder wrote.
    engine = sa.create_engine(
        url,
        isolation_level="READ COMMITTED",
        pool_pre_ping=True,
        connect_args={"options": "-csynchronous_commit=on", "connect_timeout": 10},
    )
    sa.event.listen(engine, "begin", _lock)
    return engine


def _lock(connection: sa.Connection) -> None:
    if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(%s)", (_WRITING,))

"""The node's memory: what was spent, what was answered, who asked. It outlives every process and is never rewritten.

The journal is append-only and chained: each entry's head is the SHA-256 of the head before it and the entry itself.
A private question's whole loss is reserved before any data is read; a reply is stored in the same transaction as the
journal's line about it, before a byte of it leaves. A reservation whose reply was never stored stays spent.

The journal names sessions, studies, questions and decisions, never people, genotypes, variants or parameters.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from fl_client.agreements import Agreements
from fl_client.agreements import tables as agreed_tables
from strategies.codec import canonical
from strategies.errors import DataError
from strategies.privacy import Budget, Loss

GENESIS = "0" * 64

VETO_FILE = "VETO"
"""While a file of this name lies in the node's state folder, every request is refused but one: to forget a study."""

_tables = sa.MetaData()

_journal = sa.Table(
    "journal",
    _tables,
    sa.Column("sequence", sa.Integer, primary_key=True),
    sa.Column("entry", sa.Text, nullable=False),
    sa.Column("head", sa.Text, nullable=False),
)
_reserved = sa.Table(
    "reserved",
    _tables,
    sa.Column("dataset", sa.Text, primary_key=True),
    sa.Column("session", sa.Text, primary_key=True),
    sa.Column("question", sa.Text, primary_key=True),
    sa.Column("rho", sa.Float, nullable=False),
)
_sessions = sa.Table(
    "sessions",
    _tables,
    sa.Column("session", sa.Text, primary_key=True),
    sa.Column("study", sa.Text, nullable=False),
    sa.Column("coordinator", sa.Text, nullable=False),
    sa.Column("request", sa.Text, nullable=False),
    sa.Column("document", sa.LargeBinary),
    sa.Column("sealing", sa.Text, nullable=False),
    sa.Column("key", sa.LargeBinary),
    sa.Column("reply", sa.LargeBinary, nullable=False),
)
_replies = sa.Table(
    "replies",
    _tables,
    sa.Column("request", sa.Text, primary_key=True),
    sa.Column("session", sa.Text, nullable=False),
    sa.Column("question", sa.Text, nullable=False),
    sa.Column("round", sa.Integer, nullable=False),
    sa.Column("slice", sa.Integer, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("file", sa.Text, nullable=False),
    sa.Column("masked", sa.Boolean, nullable=False),
    sa.Column("crowd", sa.Text),
    sa.UniqueConstraint("session", "question", "round", "slice", "attempt"),
)
_persons = sa.Table(
    "persons",
    _tables,
    sa.Column("dataset", sa.Text, primary_key=True),
    sa.Column("start", sa.Integer, primary_key=True),
    sa.Column("sealed", sa.LargeBinary, nullable=False),
)
_crowds = sa.Table(
    "crowds",
    _tables,
    sa.Column("dataset", sa.Text, primary_key=True),
    sa.Column("crowd", sa.Text, primary_key=True),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("sealed", sa.LargeBinary, nullable=False),
)
_versions = sa.Table(
    "versions",
    _tables,
    sa.Column("dataset", sa.Text, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("digest", sa.Text, nullable=False),
)
_earlier = sa.Table(
    "earlier",
    _tables,
    sa.Column("session", sa.Text, primary_key=True),
    sa.Column("question", sa.Text, primary_key=True),
    sa.Column("attempt", sa.Integer, primary_key=True),
    sa.Column("round", sa.Integer, primary_key=True),
    sa.Column("digest", sa.Text, nullable=False),
)


@dataclass(frozen=True)
class Session:
    """A study that was opened here. `key` is the node's X25519 key for it; None once the study was closed."""

    session: str
    study: str
    coordinator: str
    request: str
    document: bytes | None
    sealing: str
    key: bytes | None
    reply: bytes


@dataclass(frozen=True)
class Slot:
    """The place of a reply: one request per place is ever answered."""

    session: str
    question: str
    round: int
    slice: int
    attempt: int


@dataclass(frozen=True)
class Stored:
    """A reply that was recorded, and whether it left under masks."""

    request: str
    slot: Slot
    masked: bool


@dataclass(frozen=True)
class Crowd:
    """Whose data stand behind an exact answer, as `fl_client.overlap` sealed it.

    Attributes:
        name: the same for the same people, and nothing to who has not the key.
        version: the data set's version under which they were first asked about.
        sealed: their bitmap, encrypted.
    """

    name: str
    version: int
    sealed: bytes


class OverBudgetError(Exception):
    """A reservation does not fit. `left` is a public number: policy minus what was reserved."""

    def __init__(self, asked: Loss, left: Loss) -> None:
        super().__init__("over budget")
        self.asked, self.left = asked, left


class Ledger:
    """Opened on a folder that belongs to the node; safe under concurrent processes and a crash at any instruction."""

    def __init__(self, folder: Path, dataset: str) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder, self.dataset = folder, dataset
        (folder / "replies").mkdir(mode=0o700, exist_ok=True)
        path = folder / "ledger.sqlite"
        if not path.exists():
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        self._engine = sa.create_engine(f"sqlite:///{path}", connect_args={"timeout": 60})
        sa.event.listen(self._engine, "connect", _settings)
        sa.event.listen(self._engine, "begin", lambda c: c.exec_driver_sql("BEGIN IMMEDIATE"))
        try:
            # One process at a time: SQLite does not wait for its lock while it turns a new file into a write-ahead one.
            with _locked(folder / "opening"), self._engine.begin() as connection:
                for tables in (_tables, agreed_tables):
                    tables.create_all(connection)
                closed = self._closed(connection)
        except sa.exc.DatabaseError as error:
            self._engine.dispose()
            raise DataError(
                "A node's ledger is the SQLite file that it wrote.",
                f"{path}: {str(error.orig)[:80]}",
                "restore it from a copy; never start with an empty one, since it holds what was spent.",
            ) from None
        self.agreements = Agreements(self._engine, dataset, self._append)
        self._sweep(closed)  # a process may have died between forgetting and deleting

    def close(self) -> None:
        self._engine.dispose()

    # -- budget ---------------------------------------------------------------------------------------------------

    def reserve(self, session: str, question: str, loss: Loss, budget: Budget) -> None:
        """Set a question's whole loss aside, once, before any data is read.

        Raises:
            OverBudgetError: if it does not fit into what is left of the data set's budget. Nothing is set aside.
        """
        with self._engine.begin() as connection:
            place = {"dataset": self.dataset, "session": session, "question": question}
            if connection.execute(sa.select(_reserved.c.rho).filter_by(**place)).first():
                return
            left = max(0.0, budget.loss.rho - self._spent(connection))
            if loss.rho > left * (1 + 1e-12):
                raise OverBudgetError(loss, Loss(left))
            connection.execute(_reserved.insert().values(**place, rho=loss.rho))
            self._append(connection, {"event": "reserve", **place, "rho": loss.rho})

    def spent(self) -> Loss:
        """The loss that was ever reserved for this data set."""
        with self._engine.begin() as connection:
            return Loss(self._spent(connection))

    def _spent(self, connection: sa.Connection) -> float:
        rows = connection.execute(sa.select(_reserved.c.rho).where(_reserved.c.dataset == self.dataset)).scalars()
        return float(sum(rows))

    # -- sessions -------------------------------------------------------------------------------------------------

    def session(self, session: str) -> Session | None:
        with self._engine.begin() as connection:
            row = connection.execute(sa.select(_sessions).filter_by(session=session)).mappings().first()
        return Session(**row) if row else None

    def open_session(self, opened: Session, panels: Mapping[str, bytes]) -> None:
        """Remember a study and its key. The panels lie beside the database."""
        folder = self._panels(opened.session)
        folder.mkdir(mode=0o700, exist_ok=True)
        for name, text in panels.items():
            _write(folder / name, text)
        with self._engine.begin() as connection:
            connection.execute(_sessions.insert().values(**opened.__dict__))
            self._append(
                connection,
                {"event": "open", "session": opened.session, "study": opened.study, "coordinator": opened.coordinator},
            )

    def panels(self, session: str) -> dict[str, bytes]:
        """The panels of an open session."""
        return {file.name: file.read_bytes() for file in self._panels(session).iterdir()}

    def close_session(self, session: str) -> None:
        """Forget keys, roots, shares, panels and masked replies of a study. Private replies stay: they are public by
        intent."""
        with self._engine.begin() as connection:
            done = connection.execute(_sessions.update().filter_by(session=session).values(key=None, document=None))
            self.agreements.forget(connection, session)
            connection.execute(_earlier.delete().filter_by(session=session))
            if done.rowcount:
                self._append(connection, {"event": "close", "session": session})
            closed = self._closed(connection)
        with self._engine.connect() as connection:
            # Pages as they were before the update lie in the write-ahead log until it is cut.
            connection.connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._sweep(closed)

    def _closed(self, connection: sa.Connection) -> tuple[list[str], list[str]]:
        """Masked replies of closed studies, and closed studies."""
        over = sa.select(_sessions.c.session).where(_sessions.c.document.is_(None))
        masked = sa.select(_replies.c.file).where(_replies.c.masked, _replies.c.session.in_(over))
        return list(connection.execute(masked).scalars()), list(connection.execute(over).scalars())

    def _sweep(self, closed: tuple[Sequence[str], Sequence[str]]) -> None:
        """Delete the files of closed studies."""
        there = {path.name for path in (self.folder / "replies").iterdir()}
        for name in there.intersection(closed[0]):
            (self.folder / "replies" / name).unlink(missing_ok=True)
        for folder in map(self._panels, closed[1]):
            if folder.exists():
                for file in folder.iterdir():
                    file.unlink(missing_ok=True)
                folder.rmdir()

    def _panels(self, session: str) -> Path:
        return self.folder / f"panels-{hashlib.sha256(session.encode()).hexdigest()[:32]}"

    # -- replies --------------------------------------------------------------------------------------------------

    def reply(self, request: str) -> bytes | None:
        """The stored bytes of an answered request, or None."""
        with self._engine.begin() as connection:
            name = connection.execute(sa.select(_replies.c.file).filter_by(request=request)).scalar()
        path = self.folder / "replies" / name if name else None
        return path.read_bytes() if path and path.exists() else None

    def occupant(self, slot: Slot) -> str | None:
        """The request that was answered at this place, or None."""
        with self._engine.begin() as connection:
            return connection.execute(sa.select(_replies.c.request).filter_by(**slot.__dict__)).scalar()

    def stored(self, request: str) -> Stored | None:
        with self._engine.begin() as connection:
            row = connection.execute(sa.select(_replies).filter_by(request=request)).mappings().first()
        if row is None:
            return None
        slot = Slot(row["session"], row["question"], row["round"], row["slice"], row["attempt"])
        return Stored(request, slot, row["masked"])

    def record(
        self,
        request: str,
        slot: Slot,
        reply: bytes,
        line: Mapping[str, Any],
        masked: bool,
        crowd: Crowd | None,
    ) -> None:
        """Store a reply: its bytes are synced to disk first, then row, crowd and journal line are committed together.

        An exact reply has a crowd whether or not its mask is ever opened: the node cannot know.
        """
        name = f"{request}.bin"
        _write(self.folder / "replies" / name, reply)
        with self._engine.begin() as connection:
            connection.execute(
                _replies.insert().values(
                    request=request,
                    **slot.__dict__,
                    file=name,
                    masked=masked,
                    crowd=crowd.name if crowd else None,
                )
            )
            if crowd and not connection.execute(sa.select(_crowds.c.crowd).filter_by(**self._key(crowd))).first():
                connection.execute(
                    _crowds.insert().values(**self._key(crowd), version=crowd.version, sealed=crowd.sealed)
                )
            self._append(connection, {"event": "answer", **line, "bytes": len(reply)})

    # -- people and versions --------------------------------------------------------------------------------------

    def persons(self) -> list[tuple[int, bytes]]:
        """The data set's register of persons, piece by piece: the first number of each piece and its sealed tokens."""
        with self._engine.begin() as connection:
            rows = connection.execute(sa.select(_persons).filter_by(dataset=self.dataset).order_by(_persons.c.start))
            return [(row.start, row.sealed) for row in rows]

    def enrol(self, start: int, sealed: bytes) -> None:
        """Append a piece to the register of persons."""
        with self._engine.begin() as connection:
            connection.execute(_persons.insert().values(dataset=self.dataset, start=start, sealed=sealed))

    def crowds(self) -> tuple[str, ...]:
        """Names of the crowds that exact answers were ever about."""
        with self._engine.begin() as connection:
            rows = connection.execute(sa.select(_crowds.c.crowd).filter_by(dataset=self.dataset)).scalars()
            return tuple(sorted(rows))

    def crowd(self, name: str) -> Crowd:
        """The crowd of that name."""
        with self._engine.begin() as connection:
            row = connection.execute(sa.select(_crowds).filter_by(dataset=self.dataset, crowd=name)).one()
        return Crowd(row.crowd, row.version, row.sealed)

    def _key(self, crowd: Crowd) -> dict[str, str]:
        return {"dataset": self.dataset, "crowd": crowd.name}

    def versions(self) -> dict[int, str]:
        """Number -> digest of every version of the data set that was fixed, oldest first."""
        with self._engine.begin() as connection:
            rows = connection.execute(sa.select(_versions).filter_by(dataset=self.dataset).order_by(_versions.c.number))
            return {row.number: row.digest for row in rows}

    def fix_version(self, number: int, digest: str, people: int) -> None:
        """Fix a version of the data set: what its files and exclusions are from now on, under this number."""
        with self._engine.begin() as connection:
            connection.execute(_versions.insert().values(dataset=self.dataset, number=number, digest=digest))
            line = {"event": "version", "dataset": self.dataset, "version": number, "data": digest, "people": people}
            self._append(connection, line)

    def first_seen(self, slot: Slot, digest: str) -> str:
        """The digest of the earlier totals with which a round was first asked: this one, if it is asked now."""
        place = {"session": slot.session, "question": slot.question, "attempt": slot.attempt, "round": slot.round}
        with self._engine.begin() as connection:
            known = connection.execute(sa.select(_earlier.c.digest).filter_by(**place)).scalar()
            if known is None:
                connection.execute(_earlier.insert().values(**place, digest=digest))
            return known or digest

    # -- journal --------------------------------------------------------------------------------------------------

    def note(self, line: Mapping[str, Any]) -> None:
        """Append a line that changes nothing else, such as a refusal."""
        with self._engine.begin() as connection:
            self._append(connection, line)

    def journal(self) -> Iterator[dict[str, Any]]:
        """Every entry, oldest first.

        Raises:
            ValueError: if an entry's head does not follow from the one before: the journal was altered.
        """
        with self._engine.begin() as connection:
            rows = connection.execute(sa.select(_journal).order_by(_journal.c.sequence)).all()
        before = GENESIS
        for number, row in enumerate(rows, start=1):
            if row.sequence != number or row.head != _head(before, row.entry):
                raise ValueError(f"The journal was altered at entry {number}.")
            before = row.head
            yield json.loads(row.entry)

    def _append(self, connection: sa.Connection, line: Mapping[str, Any]) -> None:
        last = connection.execute(sa.select(_journal).order_by(_journal.c.sequence.desc()).limit(1)).first()
        sequence, before = (last.sequence + 1, last.head) if last else (1, GENESIS)
        entry = canonical({"time": round(time.time(), 3), **line}).decode()
        connection.execute(_journal.insert().values(sequence=sequence, entry=entry, head=_head(before, entry)))

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """One request at a time touches the data set, over all processes of the node."""
        with _locked(self.folder / "lock"):
            yield


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a file's lock, over all processes; it ends with the process, however that ends."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _head(before: str, entry: str) -> str:
    return hashlib.sha256(before.encode() + entry.encode()).hexdigest()


def _settings(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # SQLAlchemy's BEGIN IMMEDIATE is ours, not the driver's
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "secure_delete=ON", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _write(path: Path, data: bytes) -> None:
    """Write a file so that after a crash it is there whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)

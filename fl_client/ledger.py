"""The node's memory: what was spent, what was answered, who asked. It outlives every process and is never rewritten.

A private question's whole loss is reserved before any data is read; a reply is stored in the same transaction as the
journal's line about it, before a byte of it leaves. A reservation whose reply was never stored stays spent. What is
spent follows from the journal alone; the tables beside it are for finding things, and are held against it.

The journal names sessions, studies, questions and decisions, never people, genotypes, variants or parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from fl_client import journal, reservations
from fl_client.agreements import Agreements
from fl_client.database import TABLES, Database, given, run, write
from fl_client.denials import Denials
from fl_client.marks import Kept, KeptMarks
from fl_client.panels import Panels
from fl_client.reservations import Bounds, Charge, Place
from strategies.marks import Mark
from strategies.privacy import Loss

VETO_FILE = "VETO"
"""While a file of this name lies in the node's state folder, every request is refused but one: to forget a study."""

_adopted = sa.Table(
    "adopted",
    TABLES,
    sa.Column("dataset", sa.Text, primary_key=True),
    sa.Column("sequence", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("head", sa.Text, primary_key=True),
)
_sessions = sa.Table(
    "sessions",
    TABLES,
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
    TABLES,
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
    TABLES,
    sa.Column("dataset", sa.Text, primary_key=True),
    sa.Column("start", sa.Integer, primary_key=True),
    sa.Column("sealed", sa.LargeBinary, nullable=False),
)
_crowds = sa.Table(
    "crowds",
    TABLES,
    sa.Column("dataset", sa.Text, primary_key=True),
    sa.Column("crowd", sa.Text, primary_key=True),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("sealed", sa.LargeBinary, nullable=False),
)
_versions = sa.Table(
    "versions",
    TABLES,
    sa.Column("dataset", sa.Text, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("digest", sa.Text, nullable=False),
)
_earlier = sa.Table(
    "earlier",
    TABLES,
    sa.Column("session", sa.Text, primary_key=True),
    sa.Column("question", sa.Text, primary_key=True),
    sa.Column("attempt", sa.Integer, primary_key=True),
    sa.Column("round", sa.Integer, primary_key=True),
    sa.Column("digest", sa.Text, nullable=False),
)
_SESSION, _OPEN = sa.select(_sessions).filter_by(**given("session")), _sessions.insert()
_REPLY, _RECORD = sa.select(_replies).filter_by(**given("request")), _replies.insert()
_OCCUPANT = sa.select(_replies.c.request).filter_by(**given("session", "question", "round", "slice", "attempt"))
_PERSONS = sa.select(_persons).filter_by(**given("dataset")).order_by(_persons.c.start)
_CROWDS = sa.select(_crowds.c.crowd).filter_by(**given("dataset"))
_CROWD_THERE = sa.select(_crowds.c.crowd).filter_by(**given("dataset", "crowd"))
_CROWD, _ADD_CROWD = sa.select(_crowds).filter_by(**given("dataset", "crowd")), _crowds.insert()
_VERSIONS = sa.select(_versions).filter_by(**given("dataset")).order_by(_versions.c.number)
_ADOPTED = sa.select(_adopted).filter_by(**given("dataset", "sequence", "head"))
_FIRST_SEEN = sa.select(_earlier.c.digest).filter_by(**given("session", "question", "attempt", "round"))
_SEE, _ENROL, _FIX = _earlier.insert(), _persons.insert(), _versions.insert()
_ADOPT, _ALL_ADOPTED = _adopted.insert(), sa.select(_adopted)
_OVER = sa.select(_sessions.c.session).where(_sessions.c.document.is_(None))
_MASKED_OVER = sa.select(_replies.c.file).where(_replies.c.masked, _replies.c.session.in_(_OVER))
_CLOSE = (
    _sessions.update()
    .where(_sessions.c.session == sa.bindparam("closed"), _sessions.c.document.is_not(None))
    .values(key=sa.null(), document=sa.null())
)
_UNSEE = _earlier.delete().filter_by(**given("session"))


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


class Ledger:
    """Opened on a folder that belongs to the node; safe under concurrent processes and a crash at any instruction."""

    def __init__(self, folder: Path, dataset: str, url: str | None = None) -> None:
        """Open it.

        Args:
            folder: the node's state folder.
            dataset: identifier of the data set.
            url: of a PostgreSQL database; None for a SQLite file in the folder.

        Raises:
            DataError: if the database is not a ledger, or cannot be reached.
            UsageError: if the URL is not as it must be.
        """
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder, self.dataset = folder, dataset
        (folder / "replies").mkdir(mode=0o700, exist_ok=True)
        self._database = Database(folder, url)
        self._engine = self._database.engine
        self._marks = KeptMarks(folder, dataset)
        self.agreements = Agreements(self._engine, dataset, self._append)
        self.denials, self.panels = Denials(self._engine, dataset, self._append), Panels(folder)
        with self._engine.begin() as connection:
            closed = self._closed(connection)
        self._sweep(closed)  # a process may have died between forgetting and deleting

    def close(self) -> None:
        self._database.close()

    def exclusive(self) -> AbstractContextManager[None]:
        """One request at a time touches the data set, over all processes of the node."""
        return self._database.exclusive()

    # -- budget ---------------------------------------------------------------------------------------------------

    def reserve(self, asked: Charge, bounds: Bounds, events: Sequence[Mapping[str, Any]]) -> None:
        """Set a question's whole loss aside, once for each attempt, before any data is read.

        Args:
            asked: the loss, and for what; asked again for the same, nothing more is set aside.
            bounds: the policy's.
            events: what is going to be done, in `strategies.accounting`'s words, for the reported epsilon.

        Raises:
            OverBudgetError: if it does not fit into what is left of a bound. Nothing is set aside.
            ValueError: if reservations were cut out of the table.
        """
        with self._engine.begin() as connection:
            if reservations.fits(connection, self.dataset, asked, bounds):
                self._charge(connection, "reserve", self.dataset, asked, events)

    def fits(self, asked: Charge, bounds: Bounds) -> None:
        """Raise what `reserve` would raise, and set nothing aside.

        Raises:
            OverBudgetError: if it does not fit into what is left of a bound.
            ValueError: if reservations were cut out of the table.
        """
        with self._engine.begin() as connection:
            reservations.fits(connection, self.dataset, asked, bounds)

    def _charge(
        self, connection: sa.Connection, event: str, dataset: str, charge: Charge,
        events: Sequence[Mapping[str, Any]], **more: Any,
    ) -> None:  # fmt: skip
        said = reservations.charge(connection, dataset, charge)
        self._append(connection, {"event": event, **said, "events": list(events), **more})

    def spent(self) -> Loss:
        """The loss that was ever reserved for this data set."""
        with self._engine.begin() as connection:
            return Loss(journal.mark(connection, self.dataset).spent)

    def verify(self) -> journal.Replay:
        """Read the journal from its beginning, follow what was spent, and hold the tables against it.

        Raises:
            ValueError: if anything was altered, added or removed.
        """
        with self._engine.begin() as connection:
            told = journal.replay(connection)
            rows = reservations.rows(connection)
            adopted = run(connection, _ALL_ADOPTED).all()
        charges = sorted((c.dataset, c.session, c.question, c.attempt, c.rho, c.permit, c.year) for c in told.charges)
        if sorted(rows) != charges:
            raise ValueError("The table of reservations is not what the journal says.")
        if {tuple(row) for row in adopted} != told.adopted:
            raise ValueError("The table of adopted marks is not what the journal says.")
        return told

    # -- marks ----------------------------------------------------------------------------------------------------

    def mark(self) -> Mark:
        """Where the ledger stands, unsigned, to be told to others: kept before it is returned."""
        with self._engine.begin() as connection:
            mark = journal.mark(connection, self.dataset)
        return self._keep(mark)

    def _keep(self, mark: Mark) -> Mark:
        self._marks.issue(mark, self.knows)
        return mark

    def knows(self, mark: Mark) -> bool:
        """Whether the journal issued that mark, or has been charged for it."""
        with self._engine.begin() as connection:
            return self._known(connection, mark)

    def _known(self, connection: sa.Connection, mark: Mark) -> bool:
        if journal.holds(connection, mark):
            return True
        # Each data set's mark for itself: two of one entry were charged one loss each.
        there = {"dataset": mark.dataset, "sequence": mark.sequence, "head": mark.head}
        return run(connection, _ADOPTED, **there).first() is not None

    def present(self, mark: Mark) -> None:
        """Take notice of a mark that others remember. Its signature was verified."""
        if not self.knows(mark):
            self._marks.lose(replace(mark, signature=""))

    def missing(self) -> tuple[Mark, ...]:
        """Marks of this node that its journal does not know: it was put back to an older copy."""
        kept = self._marks.read()  # before the journal is, so that another process' newer mark is found there
        if not kept.all:
            return ()
        with self._engine.begin() as connection:
            return tuple(mark for mark in kept.all if not self._known(connection, mark))

    def adopt(self, marks: Sequence[Mark], year: int) -> list[tuple[Mark, Loss]]:
        """Charge what was spent on lost branches, in full, and know their marks from now on.

        What a mark's branch provably shares with this journal is charged already: up to the last of its earlier heads
        that the journal holds. Two marks of one lost branch are charged each for itself, since nothing shows that they
        are of one.

        Args:
            marks: besides those that are kept.
            year: against whose share it counts; no bound keeps a gap from being charged.

        Returns:
            each mark that was not known, and its charge.
        """
        out = []
        with self.exclusive(), self._marks.held():
            kept = self._marks.read()
            with self._engine.begin() as connection:
                for mark in dict.fromkeys(replace(m, signature="") for m in (*kept.all, *marks)):
                    if self._known(connection, mark):
                        continue
                    gap = Loss(max(0.0, mark.spent - journal.shared(connection, mark)))
                    lost = {"dataset": mark.dataset, "sequence": mark.sequence, "head": mark.head}
                    run(connection, _ADOPT, **lost)
                    charge = Charge(Place("", mark.head, 0), gap, "", year)
                    self._charge(connection, "adopt", mark.dataset, charge, (), sequence=mark.sequence, head=mark.head)
                    out.append((mark, gap))
                stands = journal.mark(connection, self.dataset)
            self._marks.write(Kept(stands))
        return out

    # -- sessions -------------------------------------------------------------------------------------------------

    def session(self, session: str) -> Session | None:
        with self._engine.begin() as connection:
            row = run(connection, _SESSION, session=session).mappings().first()
        return Session(**row) if row else None

    def open_session(self, opened: Session, panels: Mapping[str, bytes], make: Callable[[Mark], bytes]) -> bytes:
        """Remember a study, its panels and its key.

        Args:
            opened: with no reply yet.
            panels: name -> text.
            make: the reply, from the mark that it carries.

        Returns:
            the reply, stored.
        """
        self.panels.keep(opened.session, panels)
        with self._engine.begin() as connection:
            self._append(
                connection,
                {"event": "open", "session": opened.session, "study": opened.study, "coordinator": opened.coordinator},
            )
            mark = journal.mark(connection, self.dataset)
            reply = make(mark)
            run(connection, _OPEN, **{**opened.__dict__, "reply": reply})
        self._keep(mark)
        return reply

    def projection(self, session: str, question: str) -> str:
        """The digest of the numbers from which those columns were computed."""
        place = {"session": session, "question": question, "attempt": 0, "round": 0}
        with self._engine.begin() as connection:
            return str(run(connection, _FIRST_SEEN, **place).scalar_one())

    def close_session(self, session: str) -> None:
        """Forget keys, roots, shares, panels and masked replies of a study. Private replies stay: they are public by
        intent."""
        with self._engine.begin() as connection:
            done = run(connection, _CLOSE, closed=session)
            self.agreements.forget(connection, session)
            run(connection, _UNSEE, session=session)
            if done.rowcount:
                self._append(connection, {"event": "close", "session": session})
            closed = self._closed(connection)
        self._database.forget()
        self._sweep(closed)

    def _closed(self, connection: sa.Connection) -> tuple[list[str], list[str]]:
        """Masked replies of closed studies, and closed studies."""
        return list(run(connection, _MASKED_OVER).scalars()), list(run(connection, _OVER).scalars())

    def _sweep(self, closed: tuple[Sequence[str], Sequence[str]]) -> None:
        """Delete the files of closed studies."""
        there = {path.name for path in (self.folder / "replies").iterdir()}
        for name in there.intersection(closed[0]):
            (self.folder / "replies" / name).unlink(missing_ok=True)
        for session in closed[1]:
            self.panels.forget(session)

    # -- replies --------------------------------------------------------------------------------------------------

    def reply(self, request: str) -> bytes | None:
        """The stored bytes of an answered request, or None."""
        with self._engine.begin() as connection:
            row = run(connection, _REPLY, request=request).first()
        path = self.folder / "replies" / row.file if row else None
        return path.read_bytes() if path and path.exists() else None

    def occupant(self, slot: Slot) -> str | None:
        """The request that was answered at this place, or None."""
        with self._engine.begin() as connection:
            return run(connection, _OCCUPANT, **slot.__dict__).scalar()

    def stored(self, request: str) -> Stored | None:
        with self._engine.begin() as connection:
            row = run(connection, _REPLY, request=request).first()
        if row is None:
            return None
        return Stored(request, Slot(row.session, row.question, row.round, row.slice, row.attempt), bool(row.masked))

    def record(
        self,
        request: str,
        slot: Slot,
        make: Callable[[Mark], bytes],
        line: Mapping[str, Any],
        masked: bool,
        crowds: Sequence[Crowd],
    ) -> bytes:
        """Store a reply: its bytes are synced to disk, then row, crowds and journal line are committed together. `mark`
        keeps its mark, before it leaves.

        Args:
            request, slot: which one is answered, and where.
            make: the reply, from the mark that it carries: the ledger's with this very reply in it.
            line: what the journal says of it.
            masked: whether it leaves under masks.
            crowds: who is in an exact reply, and the parts of them about whom its optional columns tell, whether or not
                its mask is ever opened: the node cannot know.

        Returns:
            the reply.
        """
        name = f"{request}.bin"
        with self._engine.begin() as connection:
            whole = crowds[0].name if crowds else None
            run(connection, _RECORD, request=request, **slot.__dict__, file=name, masked=masked, crowd=whole)
            for crowd in crowds:
                key = {"dataset": self.dataset, "crowd": crowd.name}
                if not run(connection, _CROWD_THERE, **key).first():
                    run(connection, _ADD_CROWD, **key, version=crowd.version, sealed=crowd.sealed)
            self._append(connection, {"event": "answer", **line})
            mark = journal.mark(connection, self.dataset)
            reply = make(mark)
            write(self.folder / "replies" / name, reply)
        return reply

    # -- people and versions --------------------------------------------------------------------------------------

    def persons(self) -> list[tuple[int, bytes]]:
        """The data set's register of persons, piece by piece: the first number of each piece and its sealed tokens."""
        with self._engine.begin() as connection:
            return [(row.start, row.sealed) for row in run(connection, _PERSONS, dataset=self.dataset)]

    def enrol(self, start: int, sealed: bytes) -> None:
        """Append a piece to the register of persons."""
        with self._engine.begin() as connection:
            run(connection, _ENROL, dataset=self.dataset, start=start, sealed=sealed)

    def crowds(self) -> tuple[str, ...]:
        """Names of the crowds that exact answers were ever about."""
        with self._engine.begin() as connection:
            return tuple(sorted(run(connection, _CROWDS, dataset=self.dataset).scalars()))

    def crowd(self, name: str) -> Crowd:
        """The crowd of that name."""
        with self._engine.begin() as connection:
            row = run(connection, _CROWD, dataset=self.dataset, crowd=name).one()
        return Crowd(row.crowd, row.version, row.sealed)

    def versions(self) -> dict[int, str]:
        """Number -> digest of every version of the data set that was fixed, oldest first."""
        with self._engine.begin() as connection:
            return {row.number: row.digest for row in run(connection, _VERSIONS, dataset=self.dataset)}

    def fix_version(self, number: int, digest: str, people: int) -> None:
        """Fix a version of the data set: what its files and exclusions are from now on, under this number."""
        with self._engine.begin() as connection:
            run(connection, _FIX, dataset=self.dataset, number=number, digest=digest)
            line = {"event": "version", "dataset": self.dataset, "version": number, "data": digest, "people": people}
            self._append(connection, line)

    def first_seen(self, slot: Slot, digest: str) -> str:
        """The digest of the earlier totals with which a round was first asked: this one, if it is asked now."""
        place = {"session": slot.session, "question": slot.question, "attempt": slot.attempt, "round": slot.round}
        with self._engine.begin() as connection:
            known: str | None = run(connection, _FIRST_SEEN, **place).scalar()
            if known is None:
                run(connection, _SEE, **place, digest=digest)
            return known or digest

    # -- journal --------------------------------------------------------------------------------------------------

    def note(self, line: Mapping[str, Any]) -> None:
        """Append a line that changes nothing else, such as a refusal."""
        with self._engine.begin() as connection:
            self._append(connection, line)

    def journal(self) -> Iterator[dict[str, Any]]:
        """Every entry, oldest first.

        Raises:
            ValueError: if an entry does not follow from the ones before: the journal was altered.
        """
        with self._engine.begin() as connection:
            for _, entry, _ in journal.entries(connection):
                yield entry

    def export(self) -> Iterator[dict[str, Any]]:
        """Every entry with its number and head, oldest first: what anybody needs to follow the chain.

        Raises:
            ValueError: if the journal was altered.
        """
        with self._engine.begin() as connection:
            for sequence, entry, head in journal.entries(connection):
                yield {"sequence": sequence, "head": head, "entry": entry}

    def _append(self, connection: sa.Connection, line: Mapping[str, Any]) -> None:
        journal.append(connection, line)

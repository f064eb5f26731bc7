"""The journal: append-only, chained, and enough by itself to know what was spent.

Each entry's head is the SHA-256 of the head before it and the entry itself, and each entry carries what was spent by
then for every data set. So the last entry alone says what is left, no row of another table can be cut out to refund
anything, and a journal whose end was cut off is one that does not know the marks it issued.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import sqlalchemy as sa

from fl_client.database import TABLES, given, run
from strategies.codec import canonical
from strategies.marks import EARLIER_DIGITS, Mark, distances

GENESIS = "0" * 64

_journal = sa.Table(
    "journal",
    TABLES,
    sa.Column("sequence", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("entry", sa.Text, nullable=False),
    sa.Column("head", sa.Text, nullable=False),
)
_LAST_TWO = sa.select(_journal).order_by(_journal.c.sequence.desc()).limit(2)
_ONE = sa.select(_journal).filter_by(**given("sequence"))
_ADD = _journal.insert()


def append(connection: sa.Connection, line: Mapping[str, Any]) -> int:
    """Add an entry and return its sequence number. Its `rho`, if it has one, is spent for its `dataset`.

    An entry that adopts lost marks takes a number beyond theirs, so that numbers grow for whoever saw them.

    Raises:
        ValueError: if the last entry is not as it was written.
    """
    rows = run(connection, _LAST_TWO).all()
    last, before = (rows[0].sequence, rows[0].head) if rows else (0, GENESIS)
    if rows and before != _head(rows[1].head if len(rows) > 1 else GENESIS, rows[0].entry):
        raise ValueError(f"The journal was altered at entry {last}.")
    totals: dict[str, float] = json.loads(rows[0].entry)["spent"] if rows else {}
    entry = {"time": round(time.time(), 3), **line, "spent": _after(totals, line)}
    text = canonical(entry).decode()
    sequence = _next(last, entry)
    run(connection, _ADD, sequence=sequence, entry=text, head=_head(before, text))
    return sequence


def mark(connection: sa.Connection, dataset: str) -> Mark:
    """Where the journal stands now; unsigned."""
    last = run(connection, _LAST_TWO).first()
    if last is None:
        return Mark(dataset, 0, "", 0.0)
    back = distances(last.sequence)
    places = [last.sequence - d for d in back]
    named = {f"place_{number}": place for number, place in enumerate(places)}
    heads = {row.sequence: row.head for row in run(connection, _heads(len(places)), **named)} if places else {}
    earlier = tuple(heads.get(place, "")[:EARLIER_DIGITS] for place in places)
    return Mark(dataset, last.sequence, last.head, json.loads(last.entry)["spent"].get(dataset, 0.0), earlier)


@cache
def _heads(number: int) -> sa.Select[Any]:
    """So many entries' numbers and heads."""
    places = [sa.bindparam(f"place_{place}", type_=sa.BigInteger) for place in range(number)]
    return sa.select(_journal.c.sequence, _journal.c.head).where(_journal.c.sequence.in_(places))


def holds(connection: sa.Connection, seen: Mark) -> bool:
    """Whether this journal, as it is now, issued that mark."""
    if seen.sequence == 0:
        return True
    row = run(connection, _ONE, sequence=seen.sequence).first()
    return row is not None and row.head == seen.head


def shared(connection: sa.Connection, lost: Mark) -> float:
    """What had been spent where the lost mark's branch provably still was this journal's: 0 if nothing proves any."""
    for distance, head in zip(distances(lost.sequence), lost.earlier, strict=True):
        row = run(connection, _ONE, sequence=lost.sequence - distance).first()
        if head and row is not None and row.head[:EARLIER_DIGITS] == head:
            return float(json.loads(row.entry)["spent"].get(lost.dataset, 0.0))
    return 0.0


@dataclass(frozen=True)
class Charge:
    """A loss that was set aside, as the journal tells it.

    Attributes:
        rho: zCDP loss.
        permit, year: against whose and which year's share it counts besides; no permit's for an adopted gap.
        events: what is going to happen to the data, for the accountant; nothing is known of an adopted gap's.
    """

    dataset: str
    session: str
    question: str
    attempt: int
    rho: float
    permit: str
    year: int
    events: tuple[Mapping[str, Any], ...]


@dataclass
class Replay:
    """What follows from the entries alone, read from the first to the last.

    Attributes:
        entries: how many there are of each event.
        charges: every loss that was ever set aside, in order.
        adopted: the lost marks that were charged for: (dataset, sequence, head).
    """

    entries: dict[str, int] = field(default_factory=dict)
    charges: list[Charge] = field(default_factory=list)
    adopted: set[tuple[str, int, str]] = field(default_factory=set)

    def spent(self, dataset: str) -> float:
        """The sum of the data set's losses, added in order."""
        total = 0.0
        for charge in self.charges:
            total += charge.rho if charge.dataset == dataset else 0.0
        return total


def replay(connection: sa.Connection) -> Replay:
    """Read all of the journal.

    Raises:
        ValueError: if an entry does not follow from the ones before: the journal was altered.
    """
    out = Replay()
    for _, entry, _ in entries(connection):
        out.entries[str(entry["event"])] = out.entries.get(str(entry["event"]), 0) + 1
        if "rho" in entry:
            out.charges.append(
                Charge(
                    entry["dataset"], entry["session"], entry["question"], entry["attempt"], entry["rho"],
                    entry["permit"], entry["year"], tuple(entry["events"]),
                )
            )  # fmt: skip
        if entry["event"] == "adopt":
            out.adopted.add((entry["dataset"], entry["sequence"], entry["head"]))
    return out


def entries(connection: sa.Connection) -> Iterator[tuple[int, dict[str, Any], str]]:
    """Number, entry and head of each line, oldest first.

    Raises:
        ValueError: at the first entry that does not follow from the ones before.
    """
    before, last, totals = GENESIS, 0, dict[str, float]()
    for row in connection.execute(sa.select(_journal).order_by(_journal.c.sequence)).all():
        if row.head != _head(before, row.entry):
            raise ValueError(f"The journal was altered at entry {row.sequence}.")
        entry = json.loads(row.entry)
        totals = _after(totals, entry)
        if row.sequence != _next(last, entry) or entry["spent"] != totals:
            raise ValueError(f"The journal was altered at entry {row.sequence}.")
        before, last = row.head, row.sequence
        yield row.sequence, entry, row.head


def _after(totals: Mapping[str, float], line: Mapping[str, Any]) -> dict[str, float]:
    if "rho" not in line:
        return dict(totals)
    return {**totals, line["dataset"]: totals.get(line["dataset"], 0.0) + line["rho"]}


def _next(last: int, line: Mapping[str, Any]) -> int:
    return max(last, line["sequence"] if line["event"] == "adopt" else 0) + 1


def _head(before: str, entry: str) -> str:
    return hashlib.sha256(before.encode() + entry.encode()).hexdigest()

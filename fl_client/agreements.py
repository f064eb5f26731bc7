"""What a node keeps of its agreements: keys, roots, shares, and which totals of its data set may exist.

An agreement is one attempt of a question with its roster. Once a node signed it, its total may be opened, with or
without the node; so the roster counts from then on, until enough of its sites have withdrawn.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import cache
from typing import Any

import sqlalchemy as sa

from fl_client.database import TABLES, given, run

_exchanges = sa.Table(
    "exchanges",
    TABLES,
    sa.Column("request", sa.Text, primary_key=True),
    sa.Column("session", sa.Text, nullable=False),
    sa.Column("reply", sa.LargeBinary, nullable=False),
)
_agreements = sa.Table(
    "agreements",
    TABLES,
    sa.Column("session", sa.Text, primary_key=True),
    sa.Column("question", sa.Text, primary_key=True),
    sa.Column("attempt", sa.Integer, primary_key=True),
    sa.Column("agreement", sa.Text, nullable=False),
    sa.Column("roster", sa.Text, nullable=False),
    sa.Column("share", sa.Text, nullable=False),
    sa.Column("stage", sa.Text, nullable=False),
    sa.Column("key", sa.LargeBinary),
    sa.Column("root", sa.LargeBinary),
    sa.Column("transcript", sa.Text),
    sa.Column("exact", sa.Boolean, nullable=False),
)
_peers = sa.Table(
    "peers",
    TABLES,
    sa.Column("agreement", sa.Text, primary_key=True),
    sa.Column("site", sa.Text, primary_key=True),
    sa.Column("session", sa.Text, nullable=False),
    sa.Column("key", sa.LargeBinary, nullable=False),
    sa.Column("share", sa.LargeBinary, nullable=False),
)
_rosters = sa.Table(
    "rosters",
    TABLES,
    sa.Column("dataset", sa.Text, primary_key=True),
    sa.Column("members", sa.Text, primary_key=True),
)
_pending = sa.Table(
    "pending",
    TABLES,
    sa.Column("dataset", sa.Text, primary_key=True),
    sa.Column("agreement", sa.Text, primary_key=True),
    sa.Column("members", sa.Text, nullable=False),
)
_withdrawn = sa.Table(
    "withdrawn",
    TABLES,
    sa.Column("dataset", sa.Text, primary_key=True),
    sa.Column("agreement", sa.Text, primary_key=True),
)
_EXCHANGED, _EXCHANGE = sa.select(_exchanges.c.reply).filter_by(**given("request")), _exchanges.insert()
_THIS = _agreements.c.agreement == sa.bindparam("this")
_BEGIN, _REACH = _agreements.insert(), _agreements.update().where(_THIS).values(stage=sa.bindparam("stage"))
_SIGN = _REACH.values(transcript=sa.bindparam("transcript"))
_GIVE_UP = _REACH.values(key=sa.null(), root=sa.null())
_PEERS, _PEER = sa.select(_peers).filter_by(**given("agreement")).order_by("site"), _peers.insert()
_NO_PEERS = _peers.delete().filter_by(**given("agreement"))
_FORGET = tuple(table.delete().filter_by(**given("session")) for table in (_exchanges, _peers))
_PENDING, _MAY_BE = sa.select(_pending).filter_by(**given("dataset")), _pending.insert()
_NONE_PENDING = _pending.delete().filter_by(**given("dataset"))
_NOT_PENDING = _pending.delete().filter_by(**given("dataset", "agreement"))
_ROSTERS, _ROSTER = sa.select(_rosters.c.members).filter_by(**given("dataset")), _rosters.insert()
_WITHDRAWN, _WITHDRAW = sa.select(_withdrawn.c.agreement).filter_by(**given("dataset")), _withdrawn.insert()


class Stage(StrEnum):
    """How far an attempt has come at this node."""

    SHARED = "shared"
    AGREED = "agreed"
    OPENED = "opened"
    WITHDRAWN = "withdrawn"


@dataclass(frozen=True)
class Peer:
    """Another site of a roster: the secret of the pairwise masks with it, and this node's share of its root."""

    site: str
    key: bytes
    share: bytes


@dataclass(frozen=True)
class Agreement:
    """One attempt of a question with its roster. `share` is the request that began it; key and root are this node's own
    and None once they are deleted; `transcript` is None until it signed one. Only the rosters of `exact` totals count
    against each other: what follows from a noised one by subtraction carries its noise."""

    session: str
    question: str
    attempt: int
    agreement: str
    roster: tuple[str, ...]
    share: str
    stage: Stage
    key: bytes | None
    root: bytes | None
    exact: bool
    transcript: str | None = None


@dataclass(frozen=True)
class Known:
    """Which totals of a data set may exist, as far as a node knows: rosters that were opened, agreements that may be,
    and those that this node will never open. The last two overlap: what one site has withdrawn the others may open."""

    opened: frozenset[tuple[str, ...]]
    pending: Mapping[str, tuple[str, ...]]
    withdrawn: frozenset[str]


class Agreements:
    """A part of the node's ledger, in the same database."""

    def __init__(
        self, engine: sa.Engine, dataset: str, append: Callable[[sa.Connection, Mapping[str, Any]], None]
    ) -> None:
        """`append` adds a line to the ledger's journal, within the transaction that it is given."""
        self._engine, self.dataset, self._append = engine, dataset, append

    def exchanged(self, request: str) -> bytes | None:
        """The stored reply to an exchange of keys, signatures or seeds, or None."""
        with self._engine.begin() as connection:
            return run(connection, _EXCHANGED, request=request).scalar()

    def remember(self, request: str, session: str, reply: bytes) -> None:
        """Store the reply to an exchange that changes nothing else."""
        with self._engine.begin() as connection:
            run(connection, _EXCHANGE, request=request, session=session, reply=reply)

    def of(self, session: str, **place: Any) -> list[Agreement]:
        """A session's agreements with this `share`, or question, or attempt; by question and attempt."""
        with self._engine.begin() as connection:
            return self._of(connection, session, **place)

    def _of(self, connection: sa.Connection, session: str, **place: Any) -> list[Agreement]:
        rows = run(connection, _chosen(*place), session=session, **place).mappings()
        kinds = ((row, {"stage": Stage(row["stage"]), "exact": bool(row["exact"])}) for row in rows)
        return [Agreement(**{**row, "roster": tuple(json.loads(row["roster"])), **kind}) for row, kind in kinds]

    def peers(self, agreement: str) -> dict[str, Peer]:
        """The other sites of an agreement that this node signed."""
        with self._engine.begin() as connection:
            rows = run(connection, _PEERS, agreement=agreement).all()
        return {r.site: Peer(r.site, r.key, r.share) for r in rows}

    def known(self) -> Known:
        """Which totals of this data set may exist; each node's list goes into what the sites of a roster sign."""
        with self._engine.begin() as connection:
            opened = run(connection, _ROSTERS, dataset=self.dataset).scalars().all()
            pending = run(connection, _PENDING, dataset=self.dataset).all()
            gone = run(connection, _WITHDRAWN, dataset=self.dataset).scalars().all()
        may_be = {p.agreement: tuple(json.loads(p.members)) for p in pending if p.members not in opened}
        return Known(frozenset(tuple(json.loads(m)) for m in opened), may_be, frozenset(gone))

    def withdraw(self, session: str, before: Mapping[str, int]) -> None:
        """Give up these questions' attempts before these: delete keys, roots and shares, for good."""
        with self._engine.begin() as connection:
            for question, attempt in before.items():
                there = self._of(connection, session, question=question)
                self._withdraw(connection, [one for one in there if one.attempt < attempt])

    def forget(self, connection: sa.Connection, session: str) -> None:
        """Give up and delete all that a session has, within the transaction that closes it."""
        self._withdraw(connection, self._of(connection, session))
        for everything in _FORGET:
            run(connection, everything, session=session)

    def _withdraw(self, connection: sa.Connection, agreements: Sequence[Agreement]) -> None:
        for one in agreements:
            run(connection, _NO_PEERS, agreement=one.agreement)
            if one.stage in (Stage.SHARED, Stage.AGREED):
                run(connection, _WITHDRAW, dataset=self.dataset, agreement=one.agreement)
            stage = Stage.OPENED if one.stage is Stage.OPENED else Stage.WITHDRAWN
            run(connection, _GIVE_UP, this=one.agreement, stage=stage)

    def share(self, request: str, agreements: Sequence[Agreement], reply: bytes) -> None:
        """Store what a node sent to the others of a roster."""
        with self._engine.begin() as connection:
            for agreement in agreements:
                run(connection, _BEGIN, **{**asdict(agreement), "roster": json.dumps(sorted(agreement.roster))})
            run(connection, _EXCHANGE, request=request, session=agreements[0].session, reply=reply)

    def agree(
        self,
        request: str,
        agreements: Sequence[Agreement],
        peers: Mapping[str, Sequence[Peer]],
        learned: Known,
        reply: bytes,
        line: Mapping[str, Any],
    ) -> None:
        """Sign: from here on these rosters may be opened, with or without this node.

        Args:
            request, reply: the message, and what is answered to it whenever it comes.
            agreements: what is signed, each with its transcript.
            peers: agreement -> its other sites.
            learned: what this node knows with the others' lists, instead of what it knew.
            line: the journal's.
        """
        with self._engine.begin() as connection:
            for one in agreements:
                run(connection, _SIGN, this=one.agreement, stage=Stage.AGREED, transcript=one.transcript)
                for peer in peers[one.agreement]:
                    run(connection, _PEER, agreement=one.agreement, session=one.session, **peer.__dict__)
            rosters = {one.agreement: one.roster for one in agreements if one.exact} | dict(learned.pending)
            run(connection, _NONE_PENDING, dataset=self.dataset)
            for name, roster in rosters.items():
                members = json.dumps(sorted(roster))
                run(connection, _MAY_BE, dataset=self.dataset, agreement=name, members=members)
            for roster in learned.opened:
                self._opened(connection, roster)
            run(connection, _EXCHANGE, request=request, session=agreements[0].session, reply=reply)
            self._append(connection, {"event": "agree", **line})

    def open(self, agreement: Agreement, line: Mapping[str, Any]) -> None:
        """Remember that the total of this attempt was opened."""
        with self._engine.begin() as connection:
            run(connection, _REACH, this=agreement.agreement, stage=Stage.OPENED)
            run(connection, _NOT_PENDING, dataset=self.dataset, agreement=agreement.agreement)
            if agreement.exact:
                self._opened(connection, agreement.roster)
            self._append(connection, {"event": "unmask", **line})

    def _opened(self, connection: sa.Connection, roster: Sequence[str]) -> None:
        members = json.dumps(sorted(roster))
        if members not in run(connection, _ROSTERS, dataset=self.dataset).scalars().all():
            run(connection, _ROSTER, dataset=self.dataset, members=members)


@cache
def _chosen(*names: str) -> sa.Select[Any]:
    """A session's agreements where these columns, too, are as given."""
    return sa.select(_agreements).filter_by(**given("session", *names)).order_by("question", "attempt")

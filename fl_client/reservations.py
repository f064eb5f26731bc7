"""What was set aside of a data set's budget, for what, and whether more would fit.

The journal is what counts: the table is for finding things, and is held against it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from fl_client import journal
from fl_client.database import TABLES, given, run
from strategies.privacy import Loss, Renewal

_reserved = sa.Table(
    "reserved",
    TABLES,
    sa.Column("dataset", sa.Text, primary_key=True),
    sa.Column("session", sa.Text, primary_key=True),
    sa.Column("question", sa.Text, primary_key=True),
    sa.Column("attempt", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("rho", sa.Double, nullable=False),
    sa.Column("permit", sa.Text, nullable=False),
    sa.Column("year", sa.Integer, nullable=False),
)
_THERE = sa.select(_reserved.c.rho).filter_by(**given("dataset", "session", "question", "attempt"))
_OF_DATASET = sa.select(_reserved).filter_by(**given("dataset"))
_ALL, _ADD = sa.select(_reserved), _reserved.insert()


@dataclass(frozen=True)
class Place:
    """What a loss is set aside for, once: one attempt of a session's question."""

    session: str
    question: str
    attempt: int


@dataclass(frozen=True)
class Charge:
    """A loss, for what it is set aside, and against whose and which year's share it counts."""

    place: Place
    loss: Loss
    permit: str
    year: int


@dataclass(frozen=True)
class Bounds:
    """How much may be set aside for one data set, in zCDP.

    Attributes:
        lifetime: over all questions of everybody, ever; where the budget is renewed, in each calendar year.
        permit: of it, over the questions under one permit.
        year: of it, in one calendar year (UTC).
        renewal: whether the budget is renewed.
    """

    lifetime: Loss
    permit: Loss
    year: Loss
    renewal: Renewal = Renewal.NEVER


class OverBudgetError(Exception):
    """A reservation does not fit. All are public numbers: policy, and policy minus what was reserved.

    Attributes:
        asked, left: losses.
        bound: which of the bounds was hit: lifetime, permit or year.
        whole: that bound.
    """

    def __init__(self, asked: Loss, left: Loss, bound: str, whole: Loss) -> None:
        super().__init__("over budget")
        self.asked, self.left, self.bound, self.whole = asked, left, bound, whole


def fits(connection: sa.Connection, dataset: str, asked: Charge, bounds: Bounds) -> bool:
    """Whether a loss that fits is still to be set aside; False if it was.

    Raises:
        OverBudgetError: if it does not fit into what is left of a bound.
        ValueError: if reservations were cut out of the table.
    """
    if run(connection, _THERE, dataset=dataset, **asked.place.__dict__).first():
        return False
    for name, whole, spent in _within(connection, dataset, bounds, asked.permit, asked.year):
        left = max(0.0, whole.rho - spent)
        if asked.loss.rho > left * (1 + 1e-12):
            raise OverBudgetError(asked.loss, Loss(left), name, whole)
    return True


def _within(
    connection: sa.Connection, dataset: str, bounds: Bounds, permit: str, year: int
) -> tuple[tuple[str, Loss, float], ...]:
    """Each bound by name, the widest first, and what was spent of it."""
    rows = run(connection, _OF_DATASET, dataset=dataset).all()
    total = journal.mark(connection, dataset).spent
    if not math.isclose(math.fsum(r.rho for r in rows), total, rel_tol=1e-9, abs_tol=1e-15):
        raise ValueError("The table of reservations is not what the journal says.")
    this_year = [r for r in rows if r.year == year]
    renewed = bounds.renewal is Renewal.YEARLY
    of_permit = [r for r in (this_year if renewed else rows) if r.permit == permit]
    return (
        ("lifetime", bounds.lifetime, math.fsum(r.rho for r in this_year) if renewed else total),
        ("permit", bounds.permit, math.fsum(r.rho for r in of_permit)),
        ("year", bounds.year, math.fsum(r.rho for r in this_year)),
    )


def charge(connection: sa.Connection, dataset: str, asked: Charge) -> dict[str, Any]:
    """Set a loss aside; what the journal is to say of it is returned."""
    said = {
        "dataset": dataset,
        **asked.place.__dict__,
        "rho": asked.loss.rho,
        "permit": asked.permit,
        "year": asked.year,
    }
    run(connection, _ADD, **said)
    return said


def rows(connection: sa.Connection) -> list[tuple[Any, ...]]:
    """Data set, session, question, attempt, rho, permit and year of all that was set aside."""
    return [tuple(row) for row in run(connection, _ALL).all()]

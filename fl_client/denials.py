"""Refusals that depended on who is in the data, counted: each of them tells something of people, and costs nothing.

An exact question about too few people, or about people who differ by a few from earlier ones, is refused. The refusal
itself says that there are fewer than k of them, and whoever may ask on for ever can find people by refusals alone [1].
So a node counts them for each coordinator and calendar year, each thing that was asked about once, and beyond
`MOST_DENIALS` refuses all that coordinator's exact questions alike, until the year is over.

What remains: that many yes or no a year, and what follows from questions that are not refused.

[1] Kenthapadi, Mishra, Nissim: Simulatable auditing, PODS 2005, section 1: denials that depend on data tell of them.
"""

from __future__ import annotations

import hashlib
import time

import sqlalchemy as sa

from fl_client.database import TABLES, given, run
from strategies.analysis import parameters
from strategies.codec import canonical
from strategies.question import Question
from strategies.study import Study

MOST_DENIALS = 100
"""For one coordinator in one calendar year: two studies of 50 cohorts, the most that one has, all of them too small
here. Finding out about a person takes some denials, so of a site's people few can be found out about in a year."""

_denials = sa.Table(
    "denials",
    TABLES,
    sa.Column("dataset", sa.Text, primary_key=True),
    sa.Column("coordinator", sa.Text, primary_key=True),
    sa.Column("year", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("asked", sa.Text, primary_key=True),
)
_OF_YEAR = sa.select(sa.func.count()).select_from(_denials).filter_by(**given("dataset", "coordinator", "year"))


class Denials:
    """Those of one data set."""

    def __init__(self, engine: sa.Engine, dataset: str) -> None:
        self._engine, self._dataset = engine, dataset

    def add(self, coordinator: str, asked: str) -> None:
        """Count one of this year, unless it was counted for the same."""
        row = {**self._key(coordinator), "asked": asked}
        with self._engine.begin() as connection:
            if not connection.execute(sa.select(_denials).filter_by(**row)).first():
                connection.execute(_denials.insert().values(**row))

    def exhausted(self, coordinator: str) -> bool:
        """Whether a coordinator was told no so often this year that no more may be told."""
        with self._engine.begin() as connection:
            return int(run(connection, _OF_YEAR, **self._key(coordinator)).scalar_one()) >= MOST_DENIALS

    def _key(self, coordinator: str) -> dict[str, str | int]:
        return {"dataset": self._dataset, "coordinator": coordinator, "year": time.gmtime().tm_year}


def asked_about(study: Study, question: Question, version: int, answer: bool) -> str:
    """A digest of what a refusal tells about.

    Args:
        version: the data set's version.
        answer: whether it is the people of the question's answer; else those of its cohort.
    """
    selection = study.selection(question)
    named = study.columns if answer else selection.reads.columns if selection else ()
    told = {
        "version": version,
        "cohort": selection.plain() if selection else {},
        "columns": {name: study.columns[name].plain() for name in named},
    }
    if answer:
        told |= {"analysis": question.analysis.analysis, "parameters": parameters(question.analysis)}
    return hashlib.sha256(canonical(told)).hexdigest()

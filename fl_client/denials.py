"""Refusals that depended on who is in the data, counted: each of them tells something of people, and costs nothing.

An exact question about too few people, or about people who differ by a few from earlier ones, is refused. The refusal
itself says that there are fewer than k of them, and whoever may ask on for ever can find people by refusals alone [1].
So a node counts them for each coordinator and calendar year, and after `MOST_DENIALS` refuses all that coordinator's
exact questions alike, until the year is over or the node's operator lifts it.

What counts once is what was asked about, by the words that determine it (`fl_client.asked`), whatever would have been
computed of it. Who the people turn out to be does not matter: `trait >= 3.1` and `trait >= 3.2` may be the same four
people, or nobody, and each no tells something else, so halving would go on for ever at the price of one.

A new version of the data set is no new question. What is refused again for the same reason, version after version, is
one run of refusals: it ends with an answer, or another reason, and only the next one counts again. A run tells of two
changes, that it began and that it ended, so a year tells of at most twice `MOST_DENIALS` of them, however often the
data are loaded. If each version counted, who asks one study after every nightly load would be refused everything within
weeks, though told nothing new. If a question counted but once a year, each night would say for nothing whether somebody
came to those whom it was answered about, or left.

So the count follows from what was asked and said alone, and when it is reached tells nothing of people.

What remains: that many runs a year, and what follows from questions that are not refused.

[1] Kenthapadi, Mishra, Nissim: Simulatable auditing, PODS 2005, section 1: denials that depend on data tell of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

from fl_client.database import TABLES, given, run
from fl_client.refusal import RefusalError
from strategies.reasons import Reason

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
    sa.Column("said", sa.Text, nullable=False),
    sa.Column("runs", sa.Integer, nullable=False),
)
_RUNS_OF_YEAR = sa.select(sa.func.coalesce(sa.func.sum(_denials.c.runs), 0)).filter_by(
    **given("dataset", "coordinator", "year")
)


class Denials:
    """Those of one data set."""

    def __init__(
        self, engine: sa.Engine, dataset: str, append: Callable[[sa.Connection, Mapping[str, Any]], None]
    ) -> None:
        """`append` adds a line to the journal, in the same transaction."""
        self._engine, self._dataset, self._append = engine, dataset, append

    @contextmanager
    def counting(self, coordinator: str, asked: str) -> Iterator[None]:
        """Count what is refused within for what is asked about; else it is answered."""
        try:
            yield
        except RefusalError as refusal:
            self.refused(coordinator, asked, refusal.reason)
            raise
        self.answered(coordinator, [asked])

    def refused(self, coordinator: str, asked: str, reason: Reason) -> None:
        """Count one of this year, unless that was the last that was said of it."""
        place = {**self._year(coordinator), "asked": asked}
        with self._engine.begin() as connection:
            row = connection.execute(sa.select(_denials).filter_by(**place)).first()
            if row is None:
                connection.execute(_denials.insert().values(**place, said=reason.value, runs=1))
            elif row.said != reason.value:
                again = _denials.update().filter_by(**place)
                connection.execute(again.values(said=reason.value, runs=row.runs + 1))

    def answered(self, coordinator: str, asked: Collection[str]) -> None:
        """What is refused of these from now on is counted again."""
        if not asked:
            return
        before = _denials.update().filter_by(**self._year(coordinator)).where(_denials.c.asked.in_(asked))
        with self._engine.begin() as connection:
            connection.execute(before.where(_denials.c.said != "").values(said=""))

    def exhausted(self, coordinator: str) -> bool:
        """Whether a coordinator was told no so often this year that no more may be told."""
        with self._engine.begin() as connection:
            return self._counted(connection, coordinator) >= MOST_DENIALS

    def counts(self) -> dict[tuple[str, int], int]:
        """(coordinator, year) -> how many there are of them."""
        whole = sa.select(_denials.c.coordinator, _denials.c.year, sa.func.sum(_denials.c.runs).label("runs"))
        each = whole.filter_by(dataset=self._dataset).group_by(_denials.c.coordinator, _denials.c.year)
        with self._engine.begin() as connection:
            return {(row.coordinator, row.year): int(row.runs) for row in sorted(connection.execute(each))}

    def lift(self, coordinator: str) -> int:
        """Forget those of a coordinator and this year; the journal says who and how many, which is returned."""
        with self._engine.begin() as connection:
            count = self._counted(connection, coordinator)
            if count:
                connection.execute(_denials.delete().filter_by(**self._year(coordinator)))
                line = {"dataset": self._dataset, "coordinator": coordinator, "denials": count}
                self._append(connection, {"event": "lift_denials", **line})
            return count

    def _counted(self, connection: sa.Connection, coordinator: str) -> int:
        return int(run(connection, _RUNS_OF_YEAR, **self._year(coordinator)).scalar_one())

    def _year(self, coordinator: str) -> dict[str, str | int]:
        return {"dataset": self._dataset, "coordinator": coordinator, "year": time.gmtime().tm_year}

"""A clinical source in memory, for tests: dates of people, and lists of what happened to them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import date

import numpy as np
from numpy.typing import NDArray

from fl_client.readers.events import NEVER, Events, Periods
from strategies.events import Code, Domain
from strategies.selection import Event

EPOCH = date(1970, 1, 1).toordinal()


@dataclass(frozen=True)
class Happening:
    """One event of a person; without a date, or without a result, if it is None."""

    domain: Domain
    code: str
    day: date | None
    value: float | None = None
    ucum: str = ""


@dataclass(frozen=True)
class Life:
    """A person's record."""

    born: date | None = None
    died: date | None = None
    periods: tuple[tuple[date, date], ...] = ()
    dated: bool = True
    happened: tuple[Happening, ...] = ()
    values: dict[str, float | str | None] = field(default_factory=dict)
    genotyped: bool = True


def days(dates: Sequence[date | None]) -> NDArray[np.int64]:
    return np.array([NEVER if d is None else d.toordinal() - EPOCH for d in dates], dtype=np.int64)


BELOW = {"SNOMED:1": {"SNOMED:1", "SNOMED:11", "SNOMED:12"}, "ATC:A10": {"ATC:A10", "ATC:A10A"},
         "SNOMED:5": {"SNOMED:5", "SNOMED:59"}, "SNOMED:7": {"SNOMED:7", "SNOMED:59"}}  # fmt: skip
"""A vocabulary: a code -> itself and all below it."""


def means(code: Code, recorded: str) -> bool:
    """Whether a recorded code is meant by one that is asked for."""
    own = f"{code.vocabulary}:{code.code}"
    return recorded in BELOW.get(own, {own}) if code.descendants else recorded == own


@dataclass(frozen=True)
class InMemory:
    """A `Clinical` over some lives; `asked` counts the calls, as a database would see them."""

    lives: Sequence[Life]
    asked: list[tuple[Domain, tuple[Code, ...]]] = field(default_factory=list)

    @property
    def dated(self) -> NDArray[np.bool_]:
        return np.array([life.dated for life in self.lives], dtype=bool)

    @property
    def born(self) -> NDArray[np.int64]:
        return days([life.born for life in self.lives])

    @property
    def died(self) -> NDArray[np.int64]:
        return days([life.died for life in self.lives])

    @property
    def followed(self) -> NDArray[np.int64]:
        firsts = [min((first for first, _ in life.periods), default=None) for life in self.lives]
        lasts = [max((last for _, last in life.periods), default=None) for life in self.lives]
        return np.stack([days(firsts), days(lasts)], axis=1)

    @property
    def periods(self) -> Periods:
        rows = [(person, *period) for person, life in enumerate(self.lives) for period in life.periods]
        whose = np.array([person for person, _, _ in rows], dtype=np.int64)
        return Periods.joined(whose, days([first for _, first, _ in rows]), days([last for _, _, last in rows]))

    def events(self, domain: Domain, codes: Sequence[Code]) -> Events:
        self.asked.append((domain, tuple(codes)))
        rows = [
            (person, happening)
            for person, life in enumerate(self.lives)
            for happening in life.happened
            if happening.domain is domain and (not codes or any(means(code, happening.code) for code in codes))
        ]
        rows.sort(key=lambda row: (row[0], row[1].day or date.min))
        return Events(
            np.array([person for person, _ in rows], dtype=np.int64),
            days([h.day for _, h in rows]),
            np.array([np.nan if h.value is None else h.value for _, h in rows], dtype=np.float64),
            tuple(h.ucum for _, h in rows),
        )

    def names(self, code: Code) -> frozenset[Code]:
        return frozenset({Code(code.vocabulary, code.code)})

    def shares(self, one: Code, other: Code) -> bool:
        below = (BELOW.get(f"{code.vocabulary}:{code.code}", set()) for code in (one, other))
        return bool(set.intersection(*below))

    def knows(self, asked: Collection[Event]) -> bool:
        return True

    def above(self, code: Code) -> frozenset[Code]:
        own = str(Code(code.vocabulary, code.code))
        found = {own} | {above for above, below in BELOW.items() if own in below}
        return frozenset(Code(*name.split(":")) for name in found)

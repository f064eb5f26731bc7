"""Events of people that a source has one by one, as codes it wrote itself: a table of events, or Phenopackets."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fl_client.readers.events import NEVER, Events, Periods, ordered
from fl_client.readers.numbers import number
from fl_client.readers.tables import columns_of_table
from strategies.errors import DataError
from strategies.events import Code, Domain
from strategies.selection import Event

HEADER = ("person", "domain", "code", "date", "value", "unit")
DATES = ("birth", "death", "start", "end")
"""Words in the place of a domain: dates of a person, and the first and last day on which events were recorded."""

SPELT = {"HP": "HPO", "SNOMEDCT": "SNOMED", "SNOMEDCT_US": "SNOMED", "SCTID": "SNOMED", "LNC": "LOINC",
         "ICD10": "ICD10", "RXNORM": "RxNorm", "RxCUI": "RxNorm", "NCIT": "NCIt", "ORPHANET": "Orphanet",
         "ORPHA": "Orphanet", "UO": "UO", "ATC": "ATC"}  # fmt: skip
"""Prefixes of codes as sources write them -> OMOP's name of the vocabulary; any other is a name of its own."""


_DATE = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d(:?\d\d)?)?)?", re.ASCII)


class Happened(NamedTuple):
    """One event: whose, of which domain and code, on which day, with which result."""

    person: int
    domain: str
    code: str
    day: int = NEVER
    value: float = np.nan
    unit: str = ""


@dataclass(frozen=True, eq=False)
class Recorded:
    """N people's dates and events in memory. It is a `Clinical`.

    Attributes:
        dated, born, died, followed: as of `Clinical`.
        periods: as of `Clinical`: from the first day to the last, where both are known.
    """

    name: str
    dated: NDArray[np.bool_] = field(repr=False)
    born: NDArray[np.int64] = field(repr=False)
    died: NDArray[np.int64] = field(repr=False)
    followed: NDArray[np.int64] = field(repr=False)
    periods: Periods = field(repr=False)
    _events: Mapping[tuple[str, str], Sequence[Happened]] = field(repr=False)

    @staticmethod
    def of(name: str, dated: NDArray[np.bool_], happened: Sequence[Happened]) -> Recorded:
        """From a source's events; those of `DATES` are people's dates.

        Args:
            name: the source's, for errors.
            dated: (N,) as of `Clinical`.
            happened: the events.
        """
        people = len(dated)
        born, died, first, last = (np.full(people, NEVER) for _ in range(4))
        dates = dict(zip(DATES, (born, died, first, last), strict=True))
        events: dict[tuple[str, str], list[Happened]] = {}
        for event in happened:
            if event.domain in dates:
                dates[event.domain][event.person] = event.day
            else:
                events.setdefault((event.domain, spelt(event.code)), []).append(event)
        followed = np.stack([first, last], axis=1)
        for values in (dated, born, died, followed):
            values.setflags(write=False)
        periods = Periods.joined(np.arange(people), first, last)
        return Recorded(name, dated, born, died, followed, periods, events)

    def events(self, domain: Domain, codes: Sequence[Code]) -> Events:
        """As `Clinical.events`: the codes are compared as the source wrote them, but for their prefixes.

        Raises:
            DataError: if descendants of a code are asked for; there is no vocabulary here.
        """
        if below := [code for code in codes if code.descendants]:
            raise DataError(
                "What lies below a code follows from the vocabulary's hierarchy.",
                f"{self.name} has codes alone, and {str(below[0])!r:.60} asks for descendants",
                "ask for the codes one by one, or load the events into an OMOP CDM with its vocabulary.",
            )
        keys = dict.fromkeys((domain.value, spelt(f"{code.vocabulary}:{code.code}")) for code in codes)
        keys = keys if codes else dict.fromkeys(key for key in self._events if key[0] == domain.value)
        found = [event for key in keys for event in self._events.get(key, ())]
        units = np.empty(len(found), dtype=object)
        units[:] = [event.unit for event in found]
        return ordered(
            np.arange(len(self.born)),
            np.array([event.person for event in found], dtype=np.int64),
            np.array([event.day for event in found], dtype=np.int64),
            np.array([event.value for event in found], dtype=np.float64),
            units,
        )

    def names(self, code: Code) -> frozenset[Code]:
        """As `Clinical.names`: the code with its vocabulary as OMOP names it."""
        vocabulary, _, own = spelt(f"{code.vocabulary}:{code.code}").partition(":")
        return frozenset({code, Code(vocabulary, own)})

    def shares(self, one: Code, other: Code) -> bool:
        """As `Clinical.shares`: nothing lies below anything here."""
        return False

    def knows(self, asked: Collection[Event]) -> bool:
        """As `Clinical.knows`: every domain may have events, and no code has descendants."""
        return not any(code.descendants for event in asked for code in event.codes)

    def above(self, code: Code) -> frozenset[Code]:
        """As `Clinical.above`: there is no vocabulary here."""
        return self.names(code)


def spelt(code: str) -> str:
    """A code with its vocabulary as OMOP names it, and its own prefix once.

    >>> spelt("HP:0001250"), spelt("HPO:HP:0001250"), spelt("SNOMEDCT:44054006")
    ('HPO:0001250', 'HPO:0001250', 'SNOMED:44054006')
    """
    vocabulary, _, rest = code.partition(":")
    vocabulary = SPELT.get(vocabulary, vocabulary)
    again, colon, within = rest.partition(":")
    return f"{vocabulary}:{within if colon and SPELT.get(again, again) == vocabulary else rest}"


def read(path: Path, people: Sequence[str]) -> Recorded:
    """Read a table of events: a .tsv, .csv or .parquet with the columns of `HEADER`.

    A line with one of `DATES` as its domain has a date alone. Lines of people who are not in the data set are left out.

    Raises:
        DataError: if it is not there, or a line is not as it must be.
    """
    columns = columns_of_table(path, HEADER[0])
    if tuple(columns) != HEADER:
        raise _bad(path, f"the header is {', '.join(columns)[:80]}", f"have the columns {', '.join(HEADER)}")
    at = {person: k for k, person in enumerate(people)}
    kinds = {domain.value for domain in Domain} | set(DATES)
    days: dict[str, int | None] = {}
    happened, told = [], set()
    for line, (person, domain, code, date, value, unit) in enumerate(zip(*map(_texts, columns.values()), strict=True)):
        where = f"event {line + 1}"
        if domain not in kinds:
            raise _bad(path, f"{where}: its domain is another word", f"use one of {', '.join(sorted(kinds))}")
        if (":" not in code) == (domain not in DATES):
            raise _bad(
                path, f"{where}: its code is none", "write VOCABULARY:CODE, such as SNOMED:44054006; a date has none"
            )
        if date not in days:
            days[date] = day_of(date)
        day, result = days[date], number(value)
        if day is None or (domain in DATES and day == NEVER):
            raise _bad(path, f"{where}: its date is none", "write YYYY-MM-DD, or nothing where an event's is not known")
        if result is None:
            raise _bad(path, f"{where}: its value is no number", "write a number, or nothing")
        if person not in at:
            continue
        if domain in DATES:
            if (person, domain) in told:
                raise _bad(path, f"{where}: the person has a {domain} before", "keep one of them")
            told.add((person, domain))
        happened.append(Happened(at[person], domain, code, day, result, unit))
    return Recorded.of(path.name, np.ones(len(people), dtype=bool), happened)


def day_of(date: str) -> int | None:
    """Days since 1970-01-01 of a date or timestamp in ISO 8601; NEVER for nothing, None for anything else.

    >>> day_of("1970-01-02"), day_of("1969-12-31T23:59:59Z"), day_of("02.01.1970")
    (1, -1, None)
    """
    if not date:
        return NEVER
    if not _DATE.fullmatch(date):
        return None
    try:
        return int(np.datetime64(date[:10], "D").astype(np.int64))
    except ValueError:
        return None


def _texts(column: Any) -> list[str]:
    return column if isinstance(column, list) else ["" if cell != cell else repr(cell) for cell in column.tolist()]  # noqa: PLR0124  (NaN)


def _bad(path: Path, found: str, remedy: str) -> DataError:
    return DataError(
        "A table of events has a person, a domain, a code, a date, a value and a unit on each line.",
        f"{path.name}, {found}",
        f"{remedy}.",
    )

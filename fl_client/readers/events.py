"""What happened to people, and when: the events of a clinical source, whatever it is stored in."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from strategies.errors import DataError
from strategies.events import Code, Domain
from strategies.selection import Event

NEVER = np.iinfo(np.int64).min
"""The day of what has no known day."""

MOST_EVENTS = 20_000_000
"""Of one kind, that a node reads from a database; as many are kept of all kinds that one cohort names. They fit into a
few GB of memory, and no question makes a node read more."""


@dataclass(frozen=True, eq=False)
class Events:
    """E events of one kind, ordered by person and day; those without a date first.

    Attributes:
        person: (E,) int64 places in the data set's people.
        day: (E,) int64 days as `Clinical.dated` counts them, NEVER where the source has none.
        value: (E,) float64 results of measurements, NaN where there is none.
        ucum: the unit of each value as a code of UCUM, "" where the source has none.
    """

    person: NDArray[np.int64] = field(repr=False)
    day: NDArray[np.int64] = field(repr=False)
    value: NDArray[np.float64] = field(repr=False)
    ucum: tuple[str, ...] = field(repr=False)

    def __len__(self) -> int:
        return len(self.person)


@dataclass(frozen=True, eq=False)
class Periods:
    """P periods on all days of which events were recorded, by person and day; between two of a person lies a day at
    least of which that is not known.

    Attributes:
        person: (P,) int64 places in the data set's people.
        first, last: (P,) int64 days, both within.
    """

    person: NDArray[np.int64] = field(repr=False)
    first: NDArray[np.int64] = field(repr=False)
    last: NDArray[np.int64] = field(repr=False)

    @staticmethod
    def joined(person: NDArray[np.int64], first: NDArray[np.int64], last: NDArray[np.int64]) -> Periods:
        """The periods of spans in any order: spans that overlap or follow one another are one, as CDM 5.4 has it; a
        span without its first or last day, or that ends before it begins, is none.

        >>> whose, begins, ends = np.array([1, 0, 0, 0]), np.array([7, 9, 1, 5]), np.array([8, 12, 4, 6])
        >>> periods = Periods.joined(whose, begins, ends)
        >>> periods.person.tolist(), periods.first.tolist(), periods.last.tolist()
        ([0, 0, 1], [1, 9, 7], [6, 12, 8])
        """
        known = (first != NEVER) & (first <= last)
        order = np.lexsort((first[known], person[known]))
        person, first, last = person[known][order], first[known][order], last[known][order]
        if not len(person):
            return Periods(person, first, last)
        # Days of the next person stand higher than any of this one: the latest day so far is one running maximum.
        low, apart = first.min(), last.max() - first.min() + 2
        reach = np.maximum.accumulate(person * apart + last - low)
        begins = np.ones(len(person), dtype=bool)
        begins[1:] = person[1:] * apart + first[1:] - low > reach[:-1] + 1
        at = np.flatnonzero(begins)
        return Periods(person[at], first[at], np.maximum.reduceat(last, at))

    def hold(self, first: NDArray[np.int64], last: NDArray[np.int64]) -> NDArray[np.bool_]:
        """(N,) whether one period of a person has all days of hers from one (N,) to another (N,)."""
        inside = (self.first <= first[self.person]) & (last[self.person] <= self.last)
        return np.bincount(self.person[inside], minlength=len(first)) > 0

    def ends(self, people: int) -> NDArray[np.int64]:
        """(N, 2) the first day of a person's first period and the last day of the last, NEVER where there is none."""
        out = np.full((people, 2), NEVER)
        out[self.person[::-1], 0] = self.first[::-1]  # of several, what is written last stays
        out[self.person, 1] = self.last
        return out


class Clinical(Protocol):
    """A node's clinical source, opened: dates of its people, and their events by kind.

    Attributes:
        dated: (N,) whether a person's days are counted from 1970-01-01. Whoever's record has ages and no dates has no
            calendar: her days are counted from her birth.
        born, died: (N,) int64 days, NEVER where unknown or not.
        followed: (N, 2) int64 first and last day on which events were recorded, NEVER where unknown; what lies between
            them need not be one period.
        periods: on which days events were recorded, as far as the source says it.
    """

    @property
    def dated(self) -> NDArray[np.bool_]: ...

    @property
    def born(self) -> NDArray[np.int64]: ...

    @property
    def died(self) -> NDArray[np.int64]: ...

    @property
    def followed(self) -> NDArray[np.int64]: ...

    @property
    def periods(self) -> Periods: ...

    def events(self, domain: Domain, codes: Sequence[Code]) -> Events:
        """The events of a domain with one of some codes; all of it where no code is named.

        Raises:
            DataError: if the source has no such domain, or cannot be read.
        """
        ...

    def names(self, code: Code) -> frozenset[Code]:
        """Every name that the source has for what a code means: itself, OMOP's number beside the vocabulary's own code,
        and the standard concept to which it is mapped."""
        ...

    def shares(self, one: Code, other: Code) -> bool:
        """Whether something lies below both codes in the vocabulary.

        Raises:
            DataError: as `above`.
        """
        ...

    def knows(self, asked: Collection[Event]) -> bool:
        """Whether the source could answer, whoever is in it: it has the domains, the codes' vocabularies, and their
        hierarchy where descendants are asked for. The people's tables are not read.

        Raises:
            DataError: if the vocabulary cannot be read.
        """
        ...

    def above(self, code: Code) -> frozenset[Code]:
        """The names of a code and of all that lie above it in the vocabulary; without one, the code's alone.

        Raises:
            DataError: if the vocabulary cannot be read; so does `names`.
        """
        ...


def too_many(where: str, asked: Sequence[Code]) -> DataError:
    """What is said where a database holds more events of a kind than a node reads."""
    return DataError(
        f"A node reads at most {MOST_EVENTS:,} events of one kind.",
        f"{where} holds more {f'of {len(asked)} codes' if asked else 'of a domain, and no code is named'}",
        "name codes, or fewer, in the study.",
    )


def ordered(
    persons: NDArray[np.int64],
    who: NDArray[np.int64],
    day: NDArray[np.int64],
    value: NDArray[np.float64],
    unit: NDArray[Any],
) -> Events:
    """Events of some of the people, by person and day; what else is the same is ordered by value and unit, so that
    every source gives the same.

    Args:
        persons: (N,) identifiers of the data set's people, ascending.
        who: (E,) identifiers; events of others are left out.
        day, value, unit: (E,) of each event.
    """
    at = np.searchsorted(persons, who)
    inside = at < len(persons)
    inside[inside] = persons[at[inside]] == who[inside]
    at, day, value, unit = at[inside], day[inside], value[inside], unit[inside]
    codes, spelt = _encoded(unit)
    order = np.lexsort((codes, value, day, at))
    return Events(at[order], day[order], value[order], tuple(spelt[k] for k in codes[order].tolist()))


def _encoded(texts: NDArray[Any]) -> tuple[NDArray[np.int64], list[str]]:
    """Texts as numbers of a sorted list."""
    spelt = sorted(set(texts.tolist()))
    at = {text: k for k, text in enumerate(spelt)}
    return np.fromiter((at[text] for text in texts.tolist()), dtype=np.int64, count=len(texts)), spelt

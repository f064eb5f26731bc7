"""What happened to people, and when: the events of a clinical source, whatever it is stored in."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from strategies.events import Code, Domain
from strategies.selection import Event

NEVER = np.iinfo(np.int64).min
"""The day of what has no known date."""


@dataclass(frozen=True, eq=False)
class Events:
    """E events of one kind, ordered by person and day; those without a date first.

    Attributes:
        person: (E,) int64 places in the data set's people.
        day: (E,) int64 days since 1970-01-01, NEVER where the source has none.
        value: (E,) float64 results of measurements, NaN where there is none.
        ucum: the unit of each value as a code of UCUM, "" where the source has none.
    """

    person: NDArray[np.int64] = field(repr=False)
    day: NDArray[np.int64] = field(repr=False)
    value: NDArray[np.float64] = field(repr=False)
    ucum: tuple[str, ...] = field(repr=False)

    def __len__(self) -> int:
        return len(self.person)


class Clinical(Protocol):
    """A node's clinical source, opened: dates of its people, and their events by kind.

    Attributes:
        born, died: (N,) int64 days since 1970-01-01, NEVER where unknown or not.
        followed: (N, 2) int64 first and last day on which events were recorded, NEVER where unknown.
    """

    @property
    def born(self) -> NDArray[np.int64]: ...

    @property
    def died(self) -> NDArray[np.int64]: ...

    @property
    def followed(self) -> NDArray[np.int64]: ...

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

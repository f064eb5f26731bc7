"""What happened to people, and when: the events of a clinical source, whatever it is stored in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from strategies.events import Code, Domain

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
        """The events of a domain with one of some codes.

        Raises:
            DataError: if the source has no such domain, or cannot be read.
        """
        ...

    def above(self, code: Code) -> frozenset[Code]:
        """A code and all that lie above it in the vocabulary, by every name that the source has for each: OMOP's number
        beside the vocabulary's own code, and the standard one beside one that is mapped to it. Without a vocabulary,
        the code alone."""
        ...

"""The marks that a node keeps beside its database: the highest it issued, and those that it was shown and did not know.

The file is written after the journal's entry is committed and before the reply leaves, so it is never ahead of a ledger
that nobody put back, whatever crashes in between, and never behind what others were told.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from fl_client.database import locked, write
from strategies.codec import decode, parse
from strategies.errors import DataError, UsageError
from strategies.marks import Mark


@dataclass(frozen=True)
class Kept:
    """What the file holds.

    Attributes:
        issued: the highest mark that this node ever issued for the data set, on the branch that it is on.
        lost: marks with this node's signature that its journal did not hold when they were presented.
    """

    issued: Mark | None = None
    lost: tuple[Mark, ...] = ()

    @property
    def all(self) -> tuple[Mark, ...]:
        return ((self.issued,) if self.issued else ()) + self.lost


class KeptMarks:
    """The file of one data set's marks."""

    def __init__(self, folder: Path, dataset: str) -> None:
        self._path = folder / f"marks-{hashlib.sha256(dataset.encode()).hexdigest()[:16]}.json"

    def read(self) -> Kept:
        """What is kept.

        Raises:
            DataError: if the file is not as it was written.
        """
        try:
            return decode(Kept, parse(self._path.read_bytes()), self._path.name)
        except FileNotFoundError:
            return Kept()
        except (ValueError, UsageError):
            raise DataError(
                "A node keeps the marks that it issued as it wrote them.",
                f"{self._path} is something else",
                "restore it from the newest copy there is.",
            ) from None

    def issue(self, mark: Mark, knows: Callable[[Mark], bool]) -> None:
        """Keep a mark that is about to leave, unless a higher one is kept, or one that the journal does not know."""
        with self.held():
            kept = self.read()
            if kept.issued is not None and (kept.issued.sequence >= mark.sequence or not knows(kept.issued)):
                return
            self.write(replace(kept, issued=mark))

    def lose(self, mark: Mark) -> None:
        """Keep a mark that the journal does not know."""
        with self.held():
            kept = self.read()
            if mark not in kept.all:
                self.write(replace(kept, lost=(*kept.lost, mark)))

    def write(self, kept: Kept) -> None:
        """Replace what is kept; `held` around it."""
        document = {"issued": kept.issued and kept.issued.plain(), "lost": [mark.plain() for mark in kept.lost]}
        write(self._path, json.dumps(document).encode())

    @contextmanager
    def held(self) -> Iterator[None]:
        """One process at a time changes the file."""
        with locked(self._path.with_suffix(".lock")):
            yield

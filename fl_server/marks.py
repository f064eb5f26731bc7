"""The coordinator's memory of each node's ledger: the highest mark it ever saw, over all studies and runs."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path

from strategies.codec import decode, parse
from strategies.errors import UsageError
from strategies.federation import Federation
from strategies.marks import Mark


class SeenMarks:
    """A file of marks, site by site, that any number of runs may share. It is presented to the nodes in every study,
    and what `fl-client ledger adopt --mark` reads."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path = path

    def read(self, federation: Federation) -> dict[str, Mark]:
        """Site -> its highest mark, of the sites that signed theirs with the key that they have now.

        Raises:
            UsageError: if the file is not as it was written.
        """
        return {
            site: mark
            for site, mark in self._all().items()
            if site in federation.nodes and mark.is_signed_by(federation.nodes[site].identity)
        }

    def remember(self, seen: Mapping[str, Mark]) -> None:
        """Keep those that are higher than what is kept; on disk before this returns."""
        descriptor = os.open(self._path.with_suffix(".lock"), os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            known = self._all()
            higher = {s: m for s, m in seen.items() if s not in known or m.sequence > known[s].sequence}
            if higher:
                self._write({site: mark.plain() for site, mark in {**known, **higher}.items()})
        finally:
            os.close(descriptor)

    def _all(self) -> dict[str, Mark]:
        try:
            raw = parse(self._path.read_bytes())
            return {site: decode(Mark, mark, site) for site, mark in raw.items()}
        except FileNotFoundError:
            return {}
        except (ValueError, TypeError, UsageError):
            raise UsageError(
                "A coordinator keeps the marks of its nodes' ledgers as it wrote them.",
                f"{self._path} is something else",
                "restore it from the newest copy there is.",
            ) from None

    def _write(self, document: Mapping[str, object]) -> None:
        fresh = self._path.with_suffix(".fresh")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(json.dumps(document).encode())
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._path)


def follows(before: Mark | None, after: Mark) -> bool:
    """Whether a ledger can have issued the one mark before the other: numbers grow, and nothing is refunded."""
    if before is None:
        return True
    refunded = before.dataset == after.dataset and after.spent < before.spent
    same = (after.sequence, after.head) == (before.sequence, before.head)
    return not refunded and (after.sequence > before.sequence or same)

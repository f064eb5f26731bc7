"""What an open study keeps beside the database, in a folder of its session: its panels, and the columns that answers
offer to later questions."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fl_client.database import write


@dataclass(frozen=True)
class Panels:
    """Those in a node's state folder."""

    folder: Path

    def keep(self, session: str, panels: Mapping[str, bytes]) -> None:
        """Keep a session's panels: name -> text."""
        folder = self._of(session)
        folder.mkdir(mode=0o700, exist_ok=True)
        for name, text in panels.items():
            write(folder / name, text)

    def read(self, session: str) -> dict[str, bytes]:
        """The panels of an open session."""
        return {file.name: file.read_bytes() for file in self._of(session).iterdir() if not file.suffix}

    def keep_columns(self, session: str, question: str, columns: bytes) -> None:
        """Keep the columns that a question offers, as long as the panels."""
        write(self._of(session) / f"{question}.columns", columns)

    def columns(self, session: str, question: str) -> bytes | None:
        """The columns that a question offers, if they were computed."""
        path = self._of(session) / f"{question}.columns"
        return path.read_bytes() if path.exists() else None

    def forget(self, session: str) -> None:
        """Delete all of it, if it is there."""
        folder = self._of(session)
        if folder.exists():
            for file in folder.iterdir():
                file.unlink(missing_ok=True)
            folder.rmdir()

    def _of(self, session: str) -> Path:
        return self.folder / f"panels-{hashlib.sha256(session.encode()).hexdigest()[:32]}"

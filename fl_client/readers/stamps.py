"""Files as they were when a data set was opened."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fl_client.readers.lines import absent
from strategies.errors import DataError

_BYTES_AT_A_TIME = 1 << 22
"""Of a file that is digested: after so many another thread gets the interpreter, and may keep it for a while."""


@dataclass(frozen=True)
class Stamp:
    """A file or folder as it was. `node` changes when another file takes its name, a folder's time when one comes or
    goes. A file that is written in place, and given its old time again, is told apart by its digest at the next start.
    """

    path: Path
    node: int
    size: int
    changed_ns: int

    @staticmethod
    def of(path: Path) -> Stamp:
        """
        Raises:
            DataError: if it is not there.
        """
        try:
            status = path.stat()
        except OSError as error:
            raise absent(path, error) from None
        return Stamp(path, status.st_ino, status.st_size, status.st_mtime_ns)


def assert_unchanged(stamps: Sequence[Stamp]) -> None:
    """Assert that files are what they were.

    Raises:
        DataError: if one is not.
    """
    for stamp in stamps:
        if Stamp.of(stamp.path) != stamp:
            raise DataError(
                "The files of an open data set stay as they are.",
                f"{stamp.path.name} changed since it was opened",
                "restart the node, which opens them anew.",
            )


def digest(stamps: Sequence[Stamp], roles: Mapping[Path, str]) -> str:
    """A digest of the files' bytes, in their order, and of what each is for; not of their names. Folders do not count.

    Args:
        stamps: the files.
        roles: path -> what it is for; by default its suffix.
    """
    whole = hashlib.sha256(b"genosum dataset v1\0")
    for stamp in stamps:
        if stamp.path.is_dir():
            continue
        of_file, buffer = hashlib.sha256(), bytearray(_BYTES_AT_A_TIME)
        with stamp.path.open("rb", buffering=0) as file:
            while found := file.readinto(buffer):
                of_file.update(memoryview(buffer)[:found])
        line = f"{roles.get(stamp.path, stamp.path.suffix)}\t{stamp.size}\t{of_file.hexdigest()}\n"
        whole.update(line.encode())
    return whole.hexdigest()[:16]

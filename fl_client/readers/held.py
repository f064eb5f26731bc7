"""Files that a data set holds open: read at any place, closed when nobody holds them any more.

They are read and not mapped: a mapped file that is cut while it is read ends the process, and what was read of it
counts as the process' memory.
"""

from __future__ import annotations

import os
import tempfile
import weakref
from dataclasses import dataclass
from pathlib import Path

from fl_client.readers.lines import absent
from strategies.errors import DataError


@dataclass(frozen=True, eq=False)
class Held:
    """An open file."""

    descriptor: int
    name: str

    def __post_init__(self) -> None:
        weakref.finalize(self, os.close, self.descriptor)

    @staticmethod
    def open(path: Path) -> Held:
        """Open a file.

        Raises:
            DataError: if it is not there or may not be read.
        """
        try:
            return Held(os.open(path, os.O_RDONLY | os.O_CLOEXEC), path.name)
        except OSError as error:
            raise absent(path, error) from None

    @staticmethod
    def scratch(folder: Path | None) -> Held:
        """A new file without a name, mode 0600, in a folder or where the system keeps such: gone with its holder.

        Raises:
            DataError: if none can be made there.
        """
        try:
            descriptor, path = tempfile.mkstemp(prefix="genotypes-", dir=folder)
            os.unlink(path)
        except OSError as error:
            raise _full(error) from None
        return Held(descriptor, "scratch file")

    @property
    def size(self) -> int:
        """Bytes in the file."""
        return os.fstat(self.descriptor).st_size

    def append(self, data: memoryview) -> None:
        """Write all of `data` at the end.

        Raises:
            DataError: if the disk is full.
        """
        data = data.cast("B")
        try:
            while data:
                data = data[os.write(self.descriptor, data) :]
        except OSError as error:
            raise _full(error) from None

    def read(self, into: memoryview, start: int) -> None:
        """Fill `into` from byte `start` on.

        Raises:
            DataError: if the file ends before that, or cannot be read.
        """
        found = 0
        into = into.cast("B")
        while found < len(into):
            try:
                more = os.preadv(self.descriptor, [into[found:]], start + found)
            except OSError as error:
                raise absent(Path(self.name), error) from None
            if not more:
                raise DataError(
                    "The files of an open data set stay as they are.",
                    f"{self.name} ended at byte {start + found}",
                    "restart the node, which opens them anew.",
                )
            found += more


def _full(error: OSError) -> DataError:
    return DataError(
        "A node has room for its genotypes, packed: a quarter of a byte for each, and two more for each dosage.",
        error.strerror or type(error).__name__,
        "free some in the state folder; a .pgen or .bgen needs none.",
    )

"""Lines of a site's text files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from strategies.errors import DataError


def lines(path: Path) -> Iterator[str]:
    """The lines of a text file, without their ends.

    Raises:
        DataError: if it is not there, or not UTF-8 text.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            for line in file:
                yield line.rstrip("\n")
    except OSError as error:
        raise absent(path, error) from None
    except UnicodeDecodeError as error:
        raise DataError(
            "A file of text is written in UTF-8.",
            f"{path.name}: {error.reason} at byte {error.start}",
            "write it again in UTF-8; if it is compressed, decompress it.",
        ) from None


def absent(path: Path, error: OSError) -> DataError:
    """The error for a file that is not there or may not be read."""
    return DataError(
        "Every file of a data set is there and readable.",
        f"{path}: {error.strerror or error}",
        "correct the path in the [dataset] table, or the file's permissions.",
    )

"""Where people stand in the genotype file, by their own identifiers or by a table that links the two."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fl_client.readers.calls import Calls, distinct, shown
from fl_client.readers.tables import Table, columns_of_table
from strategies.errors import DataError

HEADER = ["person", "genotype"]


def placed(table: Table, calls: Calls, name: str, link: Path | None) -> NDArray[np.int64]:
    """(N,) where each person of a table stands in the genotype file, -1 for who does not.

    Args:
        table: the people.
        calls: the genotypes.
        name: the genotype file's, for errors.
        link: a table of who has which identifier there; by default everybody has their own.

    Raises:
        DataError: if nobody has genotypes, or the link is not one to one.
    """
    if link is None and table.people == calls.people:
        return np.arange(len(calls.people))
    called = None if link is None else _read(link)
    at = {identifier: i for i, identifier in enumerate(calls.people)}
    names = table.people if called is None else [called.get(person, "") for person in table.people]
    order = np.array([at.get(identifier, -1) for identifier in names], dtype=np.int64)
    if len(order) and order.max() < 0:
        raise DataError(
            "Somebody of the data set has genotypes.",
            f"none of {len(order)} is in {name}: {shown([identifier for identifier in names if identifier])}",
            "name the genotype file that has them, or as `link` a table of their identifiers there.",
        )
    return order


def _read(path: Path) -> dict[str, str]:
    """Person -> identifier in the genotype file."""
    columns = columns_of_table(path, HEADER[0])
    if list(columns) != HEADER:
        raise DataError(
            "A link has two columns, person and genotype.",
            f"{path.name}: {', '.join(columns)[:80]}",
            "write who has which identifier in the genotype file, one a line.",
        )
    people, genotypes = (
        column if isinstance(column, list) else [f"{cell:.0f}" for cell in column] for column in columns.values()
    )
    return dict(zip(distinct(people, path.name), distinct(genotypes, path.name), strict=True))

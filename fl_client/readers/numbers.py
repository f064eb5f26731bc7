"""Numbers as the cells of a text have them."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

MISSING_CODES = frozenset({"", "NA", "NaN", ".", "?"})
"""What a table writes for a value that was not observed. -9 is a number."""


def numbers(cells: list[str]) -> tuple[NDArray[np.float64], int | None]:
    """The numbers in a column, NaN where missing or none; and where the first stands that is none."""
    if (text := "".join(cells)).isascii() and "_" not in text:  # `float` would take other digits, and 1_000
        try:
            values = np.array(list(map(float, cells)), dtype=np.float64)
        except ValueError:
            pass
        else:
            if np.isfinite(values).all():
                return values, None
    known = {cell: number(cell) for cell in set(cells)}
    values = np.array([math.nan if known[cell] is None else known[cell] for cell in cells], dtype=np.float64)
    return values, next((i for i, cell in enumerate(cells) if known[cell] is None), None)


def number(cell: str) -> float | None:
    """The number in a cell, NaN for a missing code, None for anything else, infinities among it."""
    if cell in MISSING_CODES:
        return math.nan
    # float() would also take 1_000 and digits of other scripts.
    if not cell.isascii() or "_" in cell:
        return None
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) else None

"""Sums over people of exp(x b) times products of their columns, by the stretch of time in which each leaves."""

from __future__ import annotations

import math
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strategies.kernels.compiled import compiled
from strategies.kernels.threads import in_pieces

PEOPLE_AT_A_TIME = 1 << 16
HELD = 2.0**57
"""Beyond it a person's integer is held, as `Field.integers` holds it."""

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def sums(
    across: Floats, at: Integers, event: NDArray[np.bool_], b: Floats, bits: int, cells: int
) -> tuple[Integers, Integers, Integers]:
    """What people add to the cell in which they leave, on a grid of so many fraction bits.

    Args:
        across: (1 + k, n) ones and columns.
        at: (n,) each person's cell.
        event: (n,) whether it is with an event.
        b: (k,) log hazards of a unit of each column.
        cells: how many there are.

    Returns:
        (cells, q) of exp(x b) times the products above the diagonal, the first with itself being 1, over all who leave;
        the same over those with an event; (cells, k) of columns over these.
    """
    k = len(across) - 1
    out = tuple(np.zeros((cells, width), dtype=np.int64) for width in (*((k + 1) * (k + 2) // 2,) * 2, k))
    across, lock = np.ascontiguousarray(across), Lock()

    def some(people: slice) -> None:
        own = tuple(np.zeros_like(array) for array in out)
        _add(across[:, people], at[people], event[people], b, 2.0**bits, *own)
        with lock:
            for number, part in enumerate(own):
                out[number][:] += part

    in_pieces(some, len(at), PEOPLE_AT_A_TIME)
    return out[0], out[1], out[2]


@compiled
def _on_grid(value: Any) -> Any:
    if math.isnan(value):
        return np.int64(0)
    return np.int64(min(max(np.rint(value), -HELD), HELD))


@compiled
def _add(across: Any, at: Any, event: Any, b: Any, unit: Any, leaving: Any, dying: Any, columns: Any) -> None:
    k = len(b)
    row = np.empty(k + 1)
    for person in range(len(at)):
        odds = 0.0
        for j in range(k + 1):
            row[j] = across[j, person]
            if j > 0:
                odds += row[j] * b[j - 1]
        weight = math.exp(odds) * unit
        cell, dies, place = at[person], event[person], 0
        for i in range(k + 1):
            part = weight * row[i]
            for j in range(i, k + 1):
                term = _on_grid(part * row[j])
                leaving[cell, place] += term
                if dies:
                    dying[cell, place] += term
                place += 1
        if dies:
            for j in range(k):
                columns[cell, j] += _on_grid(row[j + 1] * unit)

"""Clumps: an association's hits, gathered around the strongest of those that are correlated."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from strategies.analysis import Column

Table = Mapping[str, Column]


def clumped(
    p: NDArray[np.float64],
    pairs: NDArray[np.int64],
    squared: NDArray[np.float64],
    thresholds: tuple[float, float, float],
    variants: Table,
) -> tuple[Table, Table]:
    """Clumps, and the variants in them.

    In the order of p, then of the panel, each variant with p <= `index_p` that is in no clump is the index of one, and
    takes in all variants in none that form a pair with it, have p <= `member_p` and r2 >= `r2`, or r2 unknown.

    Args:
        p: (M,) p values; NaN for a variant that is in no clump.
        pairs: (P, 2) rows of the variants whose r2 was asked.
        squared: (P,) r2; NaN where unknown.
        thresholds: index_p, member_p, r2.
        variants: the columns that name the M variants.

    Returns:
        The clumps by the p value of their index, and the members by clump and then by p. `unknown` counts, or says of a
        member, that r2 with the index is not known.
    """
    index_p, member_p, least = thresholds
    member = np.nan_to_num(p, nan=2.0) <= member_p
    near = (squared >= least) | np.isnan(squared)
    linked = pairs[near & member[pairs].all(axis=1)]
    r2 = squared[near & member[pairs].all(axis=1)]
    both, again = np.concatenate([linked, linked[:, ::-1]]), np.concatenate([r2, r2])
    order = np.argsort(both[:, 0], kind="stable")
    both, again = both[order], again[order]
    free, rows = member.copy(), [np.zeros((0, 2), dtype=np.int64)]
    found = [np.zeros(0)]
    for number, index in enumerate(_hits(p, index_p)):
        if not free[index]:
            continue
        start, stop = np.searchsorted(both[:, 0], [index, index + 1])
        others = both[start:stop, 1]
        kept = free[others]
        free[index] = free[others[kept]] = False
        taken = np.concatenate([[index], others[kept]])
        rows.append(np.stack([np.full(len(taken), number), taken], axis=1))
        found.append(np.concatenate([[1.0], again[start:stop][kept]]))
    clump, row = np.concatenate(rows).T
    values = np.concatenate(found)
    _, clump = np.unique(clump, return_inverse=True)  # by the p of the index, from 0
    order = np.lexsort((row, p[row], clump))
    clump, row, values = clump[order], row[order], values[order]
    number = int(clump.max(initial=-1)) + 1
    head = np.searchsorted(clump, np.arange(number))
    position = np.asarray(variants["position"])[row]
    members: dict[str, Column] = {
        "clump": clump + 1,
        **_taken(variants, row),
        "p_value": p[row],
        "r2": values,
        "unknown": np.isnan(values),
    }
    clumps: dict[str, Column] = {
        "clump": np.arange(1, number + 1),
        **_taken(variants, row[head]),
        "p_value": p[row[head]],
        "members": np.bincount(clump, minlength=number),
        "unknown": np.bincount(clump, np.isnan(values), minlength=number).astype(np.int64),
        "first_position": np.minimum.reduceat(position, head) if number else position,
        "last_position": np.maximum.reduceat(position, head) if number else position,
    }
    return clumps, members


def _hits(p: NDArray[np.float64], most: float) -> list[int]:
    """The variants with p up to the most, by p and then by row."""
    order = np.argsort(p, kind="stable")  # NaN last
    return [int(j) for j in order[: int(np.count_nonzero(p <= most))]]


def _taken(table: Table, rows: NDArray[np.int64]) -> dict[str, Column]:
    return {
        name: tuple(column[j] for j in rows.tolist()) if isinstance(column, tuple) else column[rows]
        for name, column in table.items()
    }

"""Whether two partitions of people, each along an axis of its own, have runs of cells that few people tell apart."""

from __future__ import annotations

from typing import Any

import numpy as np

from strategies.kernels.compiled import compiled


@compiled
def few_apart(joint: Any, left: Any, right: Any, nested: bool, everybody: int, least: int) -> bool:
    """Whether a run of cells of one partition and one of the other, which overlap, differ by 1 to `least` - 1 people.

    A run goes from one border up to a later one; cell c lies between borders c - 1 and c. Most pairs are left after
    few steps: a run is given up as soon as `least` people of either partition are in it alone.

    Args:
        joint: (P + 2, Q + 2) people by cell here and there; row or column 0 for who is not in that partition.
        left, right: (P + 2,) and (Q + 2,) to which border of the other a border corresponds, -1 to none; border 0 is
            below all cells and the last above.
        nested: whether a pair is passed over as soon as both borders of either run correspond to some, as in one crowd,
            where a run is then one of the other's own; else only where they correspond to each other.
        everybody: people of whom some must be in neither run; -1 where none need be.
        least: k.
    """
    rows, columns = joint.shape
    theirs = joint.sum(axis=0)
    run = np.empty(columns, dtype=np.int64)
    for i in range(rows - 1):
        run[:] = 0
        for j in range(i + 1, rows):
            run += joint[j]
            if run[0] >= least:
                break
            mine, before = run.sum(), run[0]
            for k in range(columns - 1):
                alone, both = 0, 0
                for m in range(k + 1, columns):
                    alone += theirs[m] - run[m]
                    both += run[m]
                    if alone >= least:
                        break
                    apart = alone + mine - both
                    if both == 0 or apart == 0 or apart >= least or everybody == mine + alone:
                        continue
                    known = left[i] >= 0 and left[j] >= 0
                    if nested:
                        passed = known or (right[k] >= 0 and right[m] >= 0)
                    else:
                        passed = known and left[i] == k and left[j] == m
                    if not passed:
                        return True
                before += run[k + 1]
                if before >= least:
                    break
    return False

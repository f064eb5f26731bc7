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
        left, right: (P + 2,) and (Q + 2,) whether a border is also one of the other; border 0 is below all cells and
            the last above.
        nested: whether a pair is passed over as soon as both borders of either run are common, as in one crowd, where
            the run is then one of the other's own; else only where those of both runs are.
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
                    here, there = left[i] and left[j], right[k] and right[m]
                    if not ((here or there) if nested else (here and there)):
                        return True
                before += run[k + 1]
                if before >= least:
                    break
    return False

"""Small cells: what an exact answer does not show. A rule against careless tables, not a defence against membership
inference: no minimum is, and the report measures by how much."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray


def small_cells(cells: Iterable[NDArray[np.int64]], minimum: int) -> NDArray[np.bool_]:
    """(M,) whether any of a row's cells shows at least one person but fewer than the minimum.

    The cells must be *all* cells that people fall into, so that a small complement is seen as well; the whole row is
    then withheld, so that no cell follows from the others.

    >>> small_cells([np.array([0, 3, 9]), np.array([12, 9, 3])], 5).tolist()
    [False, True, True]
    """
    out: NDArray[np.bool_] = np.any([(c > 0) & (c < minimum) for c in cells], axis=0)
    return out

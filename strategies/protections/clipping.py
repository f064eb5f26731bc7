"""Contribution clipping: nobody's row of numbers is longer than a public norm, so nobody moves a sum by more.

    row  <-  row * min(1, norm / ||row||)

Integer rows are scaled by a part that is itself on a grid, so the products are integers of a finer grid and nothing
is rounded afterwards: the length is at most the norm exactly. Clipping bends what is estimated, by as much as it cuts
away; a page that clips states how much that was.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

KEPT_BITS = 10
"""Grid of the part of a row that is kept."""

BELOW = 1 - 2.0**-30
"""Rounding in float64 never lifts a length above the norm."""


def factors(lengths: NDArray[np.float64], norm: float) -> NDArray[np.float64]:
    """What rows of these lengths are multiplied by to be no longer than the norm; 0 where a length is not finite."""
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        return np.where(np.isfinite(lengths), np.minimum(1.0, norm * BELOW / lengths), 0.0)


def kept(squares: NDArray[np.int64], norm: float) -> NDArray[np.int64]:
    """The part of each row that is kept, in units of 2^-KEPT_BITS, rounded down.

    Args:
        squares: (N,) squared lengths of integer rows, below 2^62.
        norm: in the same units as the rows' entries.

    >>> kept(np.array([0, 25, 100]), 5.5).tolist()
    [1024, 1024, 563]
    """
    return np.floor(factors(np.sqrt(squares.astype(np.float64)), norm) * 2.0**KEPT_BITS).astype(np.int64)


def clip_rows(rows: NDArray[np.int64], norm: float) -> NDArray[np.int64]:
    """(N, d) integer rows, each scaled to at most the norm, on the grid that is finer by KEPT_BITS.

    One person changes a sum of such rows by the norm at most, in L2; her row depends on nobody else's.

    >>> (clip_rows(np.array([[3, 4], [30, 40]]), 10.0) / 1024).round(2).tolist()
    [[3.0, 4.0], [5.98, 7.97]]
    """
    return rows * kept((rows**2).sum(axis=1), norm)[:, None]

"""Work on two threads. What is computed is integers, so it does not matter who computes what."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

THREADS = 2
"""As many as the smallest machine that a node may be."""


VARIANTS_AT_A_TIME = 512


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(THREADS)


def in_pieces(work: Callable[[slice], None], size: int, step: int = VARIANTS_AT_A_TIME) -> None:
    """Do the work on every piece of so many things. It may not itself wait for others to be done so."""
    pieces = [slice(start, min(start + step, size)) for start in range(0, size, step)]
    if len(pieces) < 2:
        for piece in pieces:
            work(piece)
        return
    for _ in _pool().map(work, pieces):
        pass

"""Work on two threads. What is computed is integers, so it does not matter who computes what."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from threadpoolctl import threadpool_limits

T = TypeVar("T")

THREADS = 2
"""As many as the smallest machine that a node may be; a linear algebra library's own threads rest meanwhile."""


def side_by_side(part: Callable[[slice], T], size: int, step: int) -> list[T]:
    """What `part` gives for each step of `size` things, in order."""
    spans = [slice(start, min(start + step, size)) for start in range(0, size, step)]
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(part, spans))

"""Noise in bulk: draws from a table beside OpenDP's, alternately in one run: `python -m simulations.benchmarks.noise`.

Times are of the processor, medians of repetitions, and include making the table. OpenDP's are scaled up from fewer
draws, in which its time is proportional.
"""

from __future__ import annotations

import statistics
import time
import tracemalloc
from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from strategies.protections import noise
from strategies.protections.sampler import Law, Table

DRAWS = 1_000_000
FEWER = 10_000
REPETITIONS = 5
SCALES = {"3.3": 3.3, "100": 100.0, "8,500": 8500.0, "2^20": 2.0**20, "2^40": 2.0**40, "2^52": 2.0**52}
LAWS = {"gaussian": (Law.gaussian, noise.discrete_gaussian), "laplace": (Law.laplace, noise.discrete_laplace)}


def seconds(task: Callable[[], object]) -> float:
    """The processor time of one call."""
    start = time.process_time()
    task()
    return time.process_time() - start


def in_bulk(law: Law) -> None:
    """DRAWS draws of a table that is made first."""
    Table.of(law).draw(DRAWS)


def few_at_a_time(draw: Callable[[float, int], NDArray[np.int64]], scale: float) -> None:
    """FEWER draws of the sampler that few draws come from."""
    for _ in range(FEWER // 250):
        draw(scale, 250)


def peak_mebibytes(task: Callable[[], object]) -> float:
    """The most memory that a call holds beyond what was held before, its result included."""
    tracemalloc.start()
    task()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 2**20


def main() -> None:
    """Print one line for each law and scale."""
    print(f"{DRAWS:,} draws; seconds of one processor, medians of {REPETITIONS}; memory with the draws' own 7.6 MiB")
    print(f"{'law':10}{'scale':>8}{'table':>10}{'OpenDP':>10}{'ratio':>8}{'MiB':>8}")
    for name, (law, draw) in LAWS.items():
        for label, scale in SCALES.items():
            bulk, few = partial(in_bulk, law(scale)), partial(few_at_a_time, draw, scale)
            pairs = [(seconds(bulk), seconds(few) * DRAWS / FEWER) for _ in range(REPETITIONS)]
            mine, other = (statistics.median(times) for times in zip(*pairs, strict=True))
            memory = peak_mebibytes(bulk)
            print(f"{name:10}{label:>8}{mine:10.3f}{other:10.1f}{other / mine:8.0f}{memory:8.1f}", flush=True)


if __name__ == "__main__":
    main()

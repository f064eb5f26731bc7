"""How fast a site masks, beside Flower's own utilities: `make bench`.

One site of a roster of six, so five peers, with 64 MiB of payload. Ours adds six ChaCha20 streams (five of pairs, one
of its own) in the ring of 2^64. Flower's SecAgg+ functions quantise as many float64 values, make six masks with their
generator, and add. Both are run in turn in one process. Peak memory is that of a fresh process which does one of them.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from flwr.common.secure_aggregation.ndarrays_arithmetic import parameters_addition, parameters_mod
from flwr.common.secure_aggregation.quantization import quantize
from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen

from strategies.protections import secure_sum

PEERS, WORDS, REPEATS = 5, 1 << 23, 7
RING = 1 << 32


def ours() -> Callable[[], object]:
    """Masking of WORDS ring elements as a node does it; every repeat has fresh seeds."""
    part = {"sums": np.arange(WORDS, dtype=np.int64)}

    def run() -> object:
        seeds = {f"P{i}": os.urandom(secure_sum.SEED_BYTES) for i in range(PEERS)}
        return secure_sum.mask(part, "P", os.urandom(secure_sum.SEED_BYTES), seeds)

    return run


def ours_alone() -> Callable[[], object]:
    """The same in one thread."""
    part = {"sums": np.arange(WORDS, dtype=np.int64)}

    def run() -> object:
        vector = secure_sum.flatten(part)
        secure_sum.add_streams(vector, [(os.urandom(secure_sum.SEED_BYTES), 1) for _ in range(PEERS + 1)], threads=1)
        return vector

    return run


def flowers() -> Callable[[], object]:
    """The same with Flower's functions, as its SecAgg+ client mod calls them."""
    values = np.random.default_rng(0).normal(size=WORDS)

    def run() -> object:
        vector = quantize([values], 8.0, 1 << 22)
        for _ in range(PEERS + 1):
            vector = parameters_addition(vector, pseudo_rand_gen(os.urandom(32), RING, [(WORDS,)]))
        return parameters_mod(vector, RING)

    return run


CONTENDERS: dict[str, Callable[[], Callable[[], object]]] = {
    "ours": ours,
    "ours, 1 thread": ours_alone,
    "Flower's SecAgg+ functions": flowers,
}


def main() -> None:
    """Print a line for each: MB/s of payload, its spread, the ratios to Flower's, and peak memory."""
    if len(sys.argv) > 1:  # a fresh process that is asked for its peak
        CONTENDERS[sys.argv[1]]()()
        status = Path("/proc/self/status").read_text(encoding="ascii")
        print(int(status.split("VmHWM:")[1].split()[0]) // 1024)
        return
    runs = {name: make() for name, make in CONTENDERS.items()}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(REPEATS):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    megabytes = WORDS * 8 / 1e6
    slow = times["Flower's SecAgg+ functions"]
    print(f"{megabytes:.0f} MB of payload, {PEERS} peers, {REPEATS} repeats in turn, {os.cpu_count()} cores")
    for name, seconds in times.items():
        middle = statistics.median(seconds)
        command = [sys.executable, "-m", "simulations.benchmarks.masking", name]
        peak = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
        print(
            f"{name:28} median {megabytes / middle:5.0f} MB/s"
            f" (slowest {megabytes / max(seconds):.0f}, fastest {megabytes / min(seconds):.0f})"
            f"  {statistics.median(slow) / middle:4.1f} x Flower's, {min(slow) / min(seconds):.1f} x at best"
            f"  peak {peak} MB"
        )


if __name__ == "__main__":
    main()

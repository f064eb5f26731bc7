"""Where a logarithmic axis is marked, in numbers as people write them."""

from __future__ import annotations

import math


def ticks(low: float, high: float) -> tuple[list[float], list[str]]:
    """1, 2 and 5 times powers of ten from low to high, or powers alone where these are many; and how they read.

    >>> ticks(0.03, 0.6)
    ([0.05, 0.1, 0.2, 0.5], ['0.05', '0.1', '0.2', '0.5'])
    """
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    times = (1, 2, 5) if high / low < 1000 else (1,)
    found = [float(f"{m}e{k}") for k in powers for m in times if low <= float(f"{m}e{k}") <= high]
    return found, [f"{value:,.10g}" for value in found]

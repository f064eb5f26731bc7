"""Discrete Gaussian noise on integers: what makes a private release private.

A field with L2 sensitivity D (on the grid, after rounding) and noise of scale sigma costs rho = D^2 / (2 sigma^2)
[1]. Draws come from OpenDP's sampler: exact rational arithmetic over the operating system's generator, so neither
floating-point artefacts nor a weak generator stand between the claim and the numbers.

[1] Canonne, Kamath, Steinke: The Discrete Gaussian for Differential Privacy, NeurIPS 2020, theorem 14.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from opendp.domains import atom_domain, vector_domain  # opendp.prelude would load scikit-learn and polars: two seconds
from opendp.measurements import make_gaussian
from opendp.metrics import l2_distance
from opendp.mod import enable_features

from strategies.privacy import Loss
from strategies.summary import Field, Summary

enable_features("contrib")

MOST_SCALE = 2.0**52
"""In units of the grid. A draw leaves 64 bits beyond 2048 such scales, so it is never cut off at the ends of the type,
which would show part of what the noise hides."""


def scales(fields: Mapping[str, Field], loss: Loss) -> dict[str, float]:
    """The standard deviation of each field's noise, in its unit, such that the release of all costs at most `loss`.

    A field spends its share of the round's loss; shares are relative to their sum.

    Raises:
        ValueError: if a field's noise would be wider than the sampler's integers hold.

    >>> scales({"people": Field((), "people", 1.0, 1.0)}, Loss(0.5))
    {'people': 1.0}
    """
    shares = sum(f.share for f in fields.values())
    out = {name: f.l2 / math.sqrt(2 * loss.rho * f.share / shares) for name, f in fields.items()}
    for name, field in fields.items():
        if not out[name] * 2.0**field.fraction_bits <= MOST_SCALE:
            raise ValueError(f"The noise of {name} is at most 2^52 grid units wide, got {out[name]:g}.")
    return out


def spent(fields: Mapping[str, Field], noise: Mapping[str, float]) -> Loss:
    """What releasing the fields with that noise costs.

    >>> spent({"people": Field((), "people", 1.0, 1.0)}, {"people": 1.0})
    Loss(rho=0.5)
    """
    return Loss(sum(f.l2**2 / (2 * noise[name] ** 2) for name, f in fields.items()))


def add_noise(summary: Summary, fields: Mapping[str, Field], noise: Mapping[str, float]) -> Summary:
    """The summary with independent discrete Gaussian noise in every entry, still on the fields' grids."""
    out = {}
    for name, field in fields.items():
        draws = discrete_gaussian(noise[name] * 2.0**field.fraction_bits, field.size)
        out[name] = summary[name] + draws.reshape(field.shape)
    return out


def discrete_gaussian(scale: float, size: int) -> NDArray[np.int64]:
    """(size,) draws with P(x) proportional to exp(-x^2 / (2 scale^2)), from the operating system's generator.

    Raises:
        ValueError: if the scale is not above 0 and at most 2^52.
    """
    if not 0 < scale <= MOST_SCALE:
        raise ValueError(f"The scale of noise is above 0 and at most 2^52, got {scale:g}.")
    if size == 0:
        return np.zeros(0, dtype=np.int64)
    return np.array(_sampler(scale)([0] * size), dtype=np.int64)


@lru_cache(maxsize=64)
def _sampler(scale: float) -> Any:
    # "i64" and not `int`, which OpenDP takes for 32 bits and silently cuts draws off at 2^31.
    return make_gaussian(vector_domain(atom_domain(T="i64")), l2_distance(T=float), scale=scale)

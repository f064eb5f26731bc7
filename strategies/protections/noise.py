"""Discrete noise on integers: what makes a private release private.

A field with L2 sensitivity D (on the grid, after rounding) and discrete Gaussian noise of scale sigma costs
rho = D^2 / (2 sigma^2) [1, theorem 14]. Few draws come from OpenDP's sampler, which is exact; many from `sampler.py`,
whose distance from the law a budget takes off its delta. Both use the operating system's generator, and noise is never
a floating-point number, so neither artefacts of rounding nor a weak generator stand between the claim and the numbers.

Under secure summing nobody sees a site's own part, so the noise may be shared: with `honest` sites assumed to be
present and not to tell the coordinator their noise, each adds variance sigma^2 / honest. A sum of discrete Gaussians is
none, but close to one: `spent_together` accounts for the difference [2].

No analysis uses discrete Laplace noise today: for one count at rho = 0.03 its standard deviation is 1.4 times the
Gaussian's, and more for several numbers. It is for a release that is to be pure epsilon-DP, with delta = 0.

[1] Canonne, Kamath, Steinke: The Discrete Gaussian for Differential Privacy, NeurIPS 2020.
[2] Kairouz, Liu, Steinke: The Distributed Discrete Gaussian Mechanism for Federated Learning with Secure Aggregation,
    ICML 2021, proposition 14 (of arXiv 2102.06387).
[3] Harrison, Manurangsi: Exact zCDP Characterizations for Fundamental Differentially Private Mechanisms, FORC 2026.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from opendp.domains import atom_domain, vector_domain  # opendp.prelude would load scikit-learn and polars: two seconds
from opendp.measurements import make_gaussian, make_laplace
from opendp.metrics import l1_distance, l2_distance
from opendp.mod import enable_features

from strategies.privacy import Loss
from strategies.protections.sampler import Law, table
from strategies.summary import Field, Summary

enable_features("contrib")

MOST_SCALE = 2.0**52
"""In units of the grid. A draw leaves 63 bits beyond 2^11 such scales, so neither law is ever cut off at the ends of
the type, which would show part of what the noise hides."""

FEW = 256
"""Up to so many draws OpenDP takes about as long as it takes to make a table."""

LEAST_SHARE = 2.0
"""Least scale of a site's share, in units of the grid: what [2] adds for a sum of such shares is below 10^-16."""


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
    _check_scale(scale)
    if size > FEW:
        return table(Law.gaussian(scale)).draw(size)
    return _drawn(_gaussian(scale), size)


def discrete_laplace(scale: float, size: int) -> NDArray[np.int64]:
    """(size,) draws with P(x) proportional to exp(-|x| / scale), from the operating system's generator.

    Raises:
        ValueError: if the scale is not above 0 and at most 2^52.
    """
    _check_scale(scale)
    if size > FEW:
        return table(Law.laplace(scale)).draw(size)
    return _drawn(_laplace(scale), size)


def _check_scale(scale: float) -> None:
    if not 0 < scale <= MOST_SCALE:
        raise ValueError(f"The scale of noise is above 0 and at most 2^52, got {scale:g}.")


def _drawn(exact: Any, size: int) -> NDArray[np.int64]:
    return np.array(exact([0] * size) if size else [], dtype=np.int64)


# "i64" and not `int`, which OpenDP takes for 32 bits and silently cuts draws off at 2^31.


@lru_cache(maxsize=64)
def _gaussian(scale: float) -> Any:
    return make_gaussian(vector_domain(atom_domain(T="i64")), l2_distance(T=float), scale=scale)


@lru_cache(maxsize=64)
def _laplace(scale: float) -> Any:
    return make_laplace(vector_domain(atom_domain(T="i64")), l1_distance(T="i64"), scale=scale)


# -- pure epsilon ------------------------------------------------------------------------------------------------------


def laplace_scale(field: Field, epsilon: float) -> float:
    """The scale of discrete Laplace noise, in the field's unit, that makes its release epsilon-DP with delta = 0.

    >>> laplace_scale(Field((3,), "people", 2.0, 2.0), 0.5)
    4.0
    """
    return field.l1 / epsilon


def laplace_loss(field: Field, scale: float) -> Loss:
    """What releasing the field with discrete Laplace noise of that scale costs in zCDP; below epsilon^2 / 2.

    With lambda = 1 / scale in units of the grid and epsilon = l1 / scale it is the Kullback-Leibler divergence

        rho = epsilon - (1 - e^-epsilon) lambda / sinh(lambda),

    the tight bound [3]: no Renyi divergence of order alpha is above alpha rho. It is convex in the sensitivity, so a
    person who changes one entry by l1 is the worst case for several entries too.

    >>> round(laplace_loss(Field((), "people", 1.0, 1.0), 1.0).rho, 4), round(math.tanh(0.5), 4)
    (0.4621, 0.4621)
    """
    rate, epsilon = 1 / (scale * 2.0**field.fraction_bits), field.l1 / scale
    hyperbolic = 2 * rate * math.exp(-rate) / -math.expm1(-2 * rate)  # rate / sinh(rate), which would overflow
    return Loss(epsilon + math.expm1(-epsilon) * hyperbolic)


# -- shared noise ------------------------------------------------------------------------------------------------------


def share_scale(scale: float, honest: int) -> float:
    """The scale of one site's share, in grid units: any `honest` of them together have at least variance scale^2.

    Sums of shares stay in the ring of 2^64: 22 scales bound a draw from a table, and data are held within 2^62 over all
    sites. Were a sum to wrap, that would cost accuracy and no privacy: it is a function of the noised sum alone.

    Raises:
        ValueError: if fewer than one site is assumed honest, or the share is below 2 grid units or above 2^52.

    >>> share_scale(12.0, 4)
    6.0
    """
    if honest < 1:
        raise ValueError(f"Shared noise needs at least 1 honest site, got {honest}.")
    return _checked(scale / math.sqrt(honest))


def _checked(share: float) -> float:
    if not LEAST_SHARE <= share <= MOST_SCALE:
        raise ValueError(
            f"A site's share of noise is from {LEAST_SHARE:g} to 2^52 grid units wide, got {share:g}; "
            "a finer grid or fewer honest sites make it wider."
        )
    return share


def shares(fields: Mapping[str, Field], loss: Loss, honest: int) -> dict[str, float]:
    """The standard deviation of each site's share of each field's noise, in the field's unit, such that the release of
    the sum costs at most `loss` while `honest` sites add theirs and keep it to themselves.

    Raises:
        ValueError: if fewer than one site is assumed honest, or a share is below 2 grid units or above 2^52.

    >>> shares({"people": Field((), "people", 1.0, 1.0, fraction_bits=4)}, Loss(0.5), 4)
    {'people': 0.5}
    """
    out = {}
    for name, full in scales(fields, loss).items():
        field, grid = fields[name], 2.0 ** fields[name].fraction_bits
        excess = _excess(share_scale(full * grid, honest), honest) * math.sqrt(field.size)
        out[name] = share_scale(field.l2 * grid / (field.l2 / full - excess), honest) / grid
    return out


def spent_together(fields: Mapping[str, Field], shares: Mapping[str, float], honest: int) -> Loss:
    """What releasing the sum of the fields costs if `honest` sites add noise of that scale and keep it to themselves.

    With n honest sites, a share of sigma >= 1/2 grid units and d entries, [2] bounds the Renyi divergence of order
    alpha by (alpha / 2) (D / (sqrt(n) sigma) + tau sqrt(d))^2, where tau is 10 times the sum over k = 1 .. n - 1 of
    exp(-2 pi^2 sigma^2 k / (k + 1)). Noise of further sites only hides more.

    Raises:
        ValueError: if fewer than one site is assumed honest, or a share is below 2 grid units or above 2^52.
    """
    if honest < 1:
        raise ValueError(f"Shared noise needs at least 1 honest site, got {honest}.")
    rho = 0.0
    for name, field in fields.items():
        excess = _excess(_checked(shares[name] * 2.0**field.fraction_bits), honest) * math.sqrt(field.size)
        rho += (field.l2 / (math.sqrt(honest) * shares[name]) + excess) ** 2 / 2
    return Loss(rho)


def _excess(share: float, honest: int) -> float:
    """tau of [2]: how far a sum of discrete Gaussians is from one."""
    return 10 * sum(math.exp(-2 * math.pi**2 * share**2 * k / (k + 1)) for k in range(1, honest))

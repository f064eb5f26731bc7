"""Privacy as values with arithmetic: the unit that is protected, the loss of a release, a budget that bounds it.

Losses are kept in zero-concentrated differential privacy (zCDP, Bun and Steinke 2016): a release with L2 sensitivity
D and discrete Gaussian noise of scale sigma costs rho = D^2 / (2 sigma^2) [1, theorem 4 and corollary 16], losses of
releases add, and a total rho is stated as (epsilon, delta) by the conversion of [1, proposition 12].

Losses are always those of one person. A unit of k people, such as a family, is hidden at k^2 times the loss of one
[2, proposition 27], so promises about different units are kept in one book.

[1] Canonne, Kamath, Steinke: The Discrete Gaussian for Differential Privacy, NeurIPS 2020.
[2] Bun, Steinke: Concentrated Differential Privacy, TCC 2016; the full version is arXiv 1605.02065.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from scipy.optimize import brentq, minimize_scalar

from strategies.protections.sampler import delta_of_sampling

LEAST_EPSILON = 1e-6
"""A stated epsilon below this would be all noise, and outside the range in which the conversion was checked."""

LEAST_DELTA = 1e-30
"""Far above what the sampler's tables take off it: 10^-36 at the largest epsilon."""

MOST_DRAWS = 2**40
"""More numbers than all rounds and slices of any question release."""


MOST_RELATIVES = 100


@dataclass(frozen=True)
class Unit:
    """Whose presence is hidden. Neighbouring data sets differ by one such unit, added or removed.

    Attributes:
        people: 1 for a person; k for any k people together, such as a family, who may stand at different sites:
            k people at several sites lose k^2 times what one of them does where sites share noise, and less where not.

    >>> str(Unit()), str(Unit(3))
    ('person', 'family of 3')
    """

    people: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.people <= MOST_RELATIVES:
            raise ValueError(f"family must be from 1 (a person) to {MOST_RELATIVES} relatives, got {self.people}.")

    def __str__(self) -> str:
        return "person" if self.people == 1 else f"family of {self.people}"


PERSON = Unit()


class Regime(StrEnum):
    """The two promises. They are never mixed in one answer."""

    EXACT = "exact"
    """The answer equals the pooled analysis; secure summing hides each site's part."""

    PRIVATE = "private"
    """Every number that leaves carries calibrated noise and is accounted for."""


class Renewal(StrEnum):
    """Whether a data set's budget is renewed. Where it is, every figure holds per calendar year."""

    NEVER = "never"
    YEARLY = "yearly"


@dataclass(frozen=True, order=True)
class Loss:
    """What a release costs one person, in zCDP. Losses of the same people add; those of disjoint people do not.

    >>> Loss(0.1) + Loss(0.2) <= Loss(0.31)
    True
    """

    rho: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.rho) and self.rho >= 0):
            raise ValueError(f"A loss is a finite number of at least 0, got rho = {self.rho}.")

    def __add__(self, other: Loss) -> Loss:
        return Loss(self.rho + other.rho)

    def epsilon(self, delta: float, unit: Unit = PERSON) -> float:
        """The smallest epsilon that this loss of each person implies for a unit at `delta` [2, proposition 27].

        >>> round(Loss(0.02).epsilon(1e-5, Unit(3)) / Loss(0.18).epsilon(1e-5), 9)
        1.0
        """
        return epsilon_of(self.rho * unit.people**2, delta)


@dataclass(frozen=True)
class Budget:
    """A bound (epsilon, delta) on what may be learnt about one unit.

    >>> round(Budget(epsilon=3.0, delta=1e-5).loss.rho, 6)
    0.224249
    >>> print(Budget(3.0, 1e-5, Unit(4)))
    epsilon 3, delta 1e-05, per family of 4
    """

    epsilon: float
    delta: float
    unit: Unit = PERSON

    def __post_init__(self) -> None:
        if not LEAST_EPSILON <= self.epsilon <= 100:
            raise ValueError(f"epsilon must be from {LEAST_EPSILON} to 100, got {self.epsilon}.")
        if not LEAST_DELTA <= self.delta <= 1e-3:
            raise ValueError(f"delta must be from {LEAST_DELTA} to 0.001, got {self.delta}.")

    @property
    def loss(self) -> Loss:
        """The largest zCDP loss of each person that this budget allows, once delta has paid for the sampler's tables.

        Sampling is paid for once whatever the unit: it bounds how far each data set's release is from an ideal one.
        """
        rho = rho_of(self.epsilon, self.delta - delta_of_sampling(MOST_DRAWS, self.epsilon))
        return Loss(rho / self.unit.people**2)

    def times(self, count: int) -> float:
        """The epsilon, at the same delta, of a release that costs `count` times as much; infinite where none holds.

        >>> round(Budget(3.0, 1e-5).times(2), 2)
        4.44
        """
        if count == 1:
            return self.epsilon
        loss = Loss(self.loss.rho * count)
        epsilon = loss.epsilon(self.delta, self.unit)
        left = self.delta - delta_of_sampling(MOST_DRAWS * count, min(epsilon + 1, 700.0))
        return loss.epsilon(left, self.unit) if left > self.delta * (1 - 1e-6) else math.inf

    def __str__(self) -> str:
        return f"epsilon {self.epsilon:g}, delta {self.delta:g}, per {self.unit}"


def stacked(spends: Sequence[tuple[float, float, float]]) -> float:
    """The most that several releases cost any one person, when each reads only people in a part [start, stop).

    Args:
        spends: (start, stop, fraction) of each release.

    >>> stacked([(0.0, 0.7, 0.5), (0.0, 0.7, 0.5), (0.7, 1.0, 1.0)])
    1.0
    """
    edges = {start for start, _, _ in spends}
    return max((sum(f for a, b, f in spends if a <= edge < b) for edge in edges), default=0.0)


def epsilon_of(rho: float, delta: float) -> float:
    """The smallest epsilon such that rho-zCDP implies (epsilon, delta)-DP, by [1, proposition 12].

    epsilon = min over alpha > 1 of  rho alpha + log(1 - 1/alpha) - (log delta + log alpha) / (alpha - 1).

    >>> round(epsilon_of(0.5, 1e-6), 2)
    5.22
    """
    if rho == 0:
        return 0.0

    def at(log_excess: float) -> float:
        excess = math.exp(log_excess)
        alpha = 1 + excess
        return rho * alpha - math.log1p(1 / excess) - (math.log(delta) + math.log(alpha)) / excess

    # The objective is smooth with one valley in log(alpha - 1); a coarse grid finds it, Brent polishes.
    grid = [-7 + 0.25 * i for i in range(120)]
    best = min(grid, key=at)
    polished = minimize_scalar(at, bounds=(best - 0.25, best + 0.25), method="bounded", options={"xatol": 1e-12})
    return max(0.0, min(at(best), float(polished.fun)))


@lru_cache(maxsize=256)
def rho_of(epsilon: float, delta: float) -> float:
    """The largest rho whose conversion stays within (epsilon, delta)."""
    upper = epsilon + 1.0
    while epsilon_of(upper, delta) < epsilon:  # pragma: no cover  (rho <= epsilon always holds in the allowed range)
        upper *= 2
    root = float(brentq(lambda rho: epsilon_of(rho, delta) - epsilon, 1e-18, upper, xtol=1e-30, rtol=1e-12))
    return root * (1 - 1e-9)  # a hair below the root, so that the stated epsilon is never exceeded by rounding

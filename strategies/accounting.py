"""What was done to the data, as values, and what it costs together, computed elsewhere than where it is done.

**Charged and enforced** is zCDP: rho adds, and a budget (epsilon, delta) is a bound on the sum by the conversion of
[1, proposition 12]. Discrete Gaussian noise on integer vectors of L2 sensitivity D is D^2 / (2 sigma^2)-zCDP in any
dimension [1, theorem 14], so nothing in this bound stands in for anything else.

A Poisson-subsampled Gaussian has no zCDP bound that keeps the gain of the sampling: its Renyi divergence over the order
grows without limit to that of the unsampled one. It is charged at one order: that at which the budget's own rho becomes
its epsilon. If RDP(a) is added up at this order a alone and kept at most a rho, the conversion at a gives epsilon, and
the order is fixed by the policy before anything is asked, so questions may be chosen in view of earlier answers. A
charge is therefore RDP(a) / a, and belongs to that budget.

**Reported** besides is the epsilon of privacy loss distributions (PLD [2], pessimistic estimates) and of Renyi
divergences at many orders (RDP [3]), both by `dp_accounting`. There a continuous Gaussian in one dimension stands in
for the discrete one in many; for scales of some units of the grid the difference is far below the digits shown, but
that is not a theorem, so these figures bound nothing here.

[1] Canonne, Kamath, Steinke: The Discrete Gaussian for Differential Privacy, NeurIPS 2020.
[2] Koskela, Jaelkoe, Honkela: Computing Tight Differential Privacy Guarantees Using FFT, AISTATS 2020.
[3] Mironov, Talwar, Zhang: Renyi Differential Privacy of the Sampled Gaussian Mechanism, 2019, section 3.3.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

from strategies.codec import decode
from strategies.errors import UsageError
from strategies.privacy import Budget, Loss, epsilon_of


@dataclass(frozen=True)
class Gaussian:
    """Releases with discrete Gaussian noise, on the same people one after another.

    Attributes:
        multiplier: standard deviation over L2 sensitivity, of each.
        count: how many.
    """

    kind: ClassVar[str] = "gaussian"
    multiplier: float
    count: int = 1

    def __post_init__(self) -> None:
        if not (self.multiplier > 0 and self.count >= 1):
            raise ValueError("noise has a multiplier above 0 and a count of at least 1.")


@dataclass(frozen=True)
class SampledGaussian:
    """Steps on Poisson samples: each person takes part in each with probability `rate`, unseen by others.

    Attributes:
        multiplier: standard deviation over L2 sensitivity, of each step.
        rate: q.
        steps: how many.
    """

    kind: ClassVar[str] = "sampled_gaussian"
    multiplier: float
    rate: float
    steps: int

    def __post_init__(self) -> None:
        if not (self.multiplier > 0 and 0 < self.rate <= 1 and self.steps >= 1):
            raise ValueError("sampled noise has a multiplier above 0, a rate of at most 1 and at least 1 step.")


@dataclass(frozen=True)
class Laplace:
    """Releases with discrete Laplace noise, on the same people one after another.

    Attributes:
        multiplier: scale over L1 sensitivity, of each: the release is 1/multiplier-DP.
        count: how many.
    """

    kind: ClassVar[str] = "laplace"
    multiplier: float
    count: int = 1

    def __post_init__(self) -> None:
        if not (self.multiplier > 0 and self.count >= 1):
            raise ValueError("noise has a multiplier above 0 and a count of at least 1.")


Event = Gaussian | SampledGaussian | Laplace
_KINDS: Mapping[str, type[Event]] = {c.kind: c for c in (Gaussian, SampledGaussian, Laplace)}


def plain(event: Event) -> dict[str, Any]:
    """An event as plain data."""
    return {"kind": event.kind, **asdict(event)}


def read(raw: Mapping[str, Any]) -> Event:
    """The inverse of `plain`.

    Raises:
        UsageError: if it is no event that this version knows.
    """
    kind = _KINDS.get(str(raw.get("kind")))
    if kind is None:
        raise UsageError(
            f"An event is one of {', '.join(_KINDS)}.", repr(raw.get("kind"))[:80], "use the version that wrote it."
        )
    return decode(kind, {key: value for key, value in raw.items() if key != "kind"}, "an event")


def of_loss(loss: Loss, count: int = 1) -> Gaussian:
    """The releases with Gaussian noise that together cost exactly this.

    >>> of_loss(Loss(0.5))
    Gaussian(multiplier=1.0, count=1)
    """
    return Gaussian(math.sqrt(count / (2 * loss.rho)), count)


def charge(events: Iterable[Event], budget: Budget) -> Loss:
    """What these events take from a budget; exact for Gaussian noise, an upper bound for the others.

    Raises:
        ValueError: for sampled events under a budget whose unit is more than one person.

    >>> charge([Gaussian(2.0, count=4)], Budget(3.0, 1e-5))
    Loss(rho=0.5)
    """
    return Loss(math.fsum(_rho(event, budget) for event in events))


def _rho(event: Event, budget: Budget) -> float:
    if isinstance(event, Gaussian):
        return event.count / (2 * event.multiplier**2)
    if isinstance(event, Laplace):
        return event.count / (2 * event.multiplier**2)  # pure epsilon-DP is epsilon^2 / 2-zCDP
    if budget.unit.people > 1:
        raise ValueError("steps on samples are charged for the unit of one person.")
    order = order_of(budget)
    return event.steps * sampled_divergence(event.multiplier, event.rate, order) / order


def order_of(budget: Budget) -> float:
    """The Renyi order at which the budget's rho becomes its epsilon."""
    found = minimize_scalar(lambda log: _at(budget.loss.rho, budget.delta, 1 + math.exp(log)), bounds=(-7, 23))
    return 1 + math.exp(float(found.x))


def _at(rho: float, delta: float, order: float) -> float:
    """The epsilon to which rho converts at one order [1, proposition 12]."""
    return rho * order + math.log1p(-1 / order) - (math.log(delta) + math.log(order)) / (order - 1)


def sampled_divergence(multiplier: float, rate: float, order: float) -> float:
    """The Renyi divergence of one step on a Poisson sample, the larger of adding and removing a person.

        log E[((1 - q) + q exp((2 z - 1) / (2 s^2)))^a] / (a - 1),   z ~ N(0, s^2)     [3, theorem 4 and section 3.3]

    The integrand is analytic and decays like a Gaussian, for which the trapezoidal rule converges geometrically.
    """
    s = multiplier
    z = np.linspace(-40 * s, order + 40 * s, 200_001)
    kept = math.log1p(-rate) if rate < 1 else -math.inf
    mixed = np.logaddexp(kept, math.log(rate) + (2 * z - 1) / (2 * s**2))
    density = -(z**2) / (2 * s**2) - math.log(s * math.sqrt(2 * math.pi))
    expected = float(logsumexp(order * mixed + density) + math.log(z[1] - z[0]))
    if expected < 1:  # what exceeds 1 is summed by itself, so that a thousand small steps keep their digits
        excess = np.exp(order * mixed + density) - np.exp(density)
        expected = math.log1p(float(excess.sum()) * (z[1] - z[0]))
    return max(0.0, expected / (order - 1))


@dataclass(frozen=True)
class Epsilons:
    """What a history costs at the budget's delta, three times. `zcdp` is the one that is enforced."""

    zcdp: float
    rdp: float
    pld: float


def epsilons(events: Sequence[Event], budget: Budget, unexplained: Loss = Loss(0.0)) -> Epsilons:  # noqa: B008  (frozen)
    """What the events and a loss of which nothing else is known cost together at the budget's delta.

    Where there is such a loss, `rdp` and `pld` are sums of two statements, each at half of delta.
    """
    total = charge(events, budget) + unexplained
    if any(isinstance(event, SampledGaussian) for event in events):
        zcdp = max(0.0, _at(total.rho, budget.delta, order_of(budget)))  # charged at this order, so true at it alone
    else:
        zcdp = epsilon_of(total.rho, budget.delta)
    if unexplained.rho == 0:
        return Epsilons(zcdp, _by_renyi(events, budget, budget.delta), _by_distributions(events, budget.delta))
    half = budget.delta / 2
    rest = epsilon_of(unexplained.rho, half)
    return Epsilons(zcdp, _by_renyi(events, budget, half) + rest, _by_distributions(events, half) + rest)


def _by_renyi(events: Sequence[Event], budget: Budget, delta: float) -> float:
    from dp_accounting.rdp import rdp_privacy_accountant as rdp  # noqa: PLC0415  (a second to import)

    if not events:
        return 0.0
    orders = {*rdp.DEFAULT_RDP_ORDERS, order_of(budget)}
    gaussian = charge([e for e in events if not isinstance(e, SampledGaussian)], budget)
    if gaussian.rho > 0:  # the best order for what was spent so far, too
        best = minimize_scalar(lambda log: _at(gaussian.rho, delta, 1 + math.exp(log)), bounds=(-7, 23))
        orders.add(1 + math.exp(float(best.x)))
    accountant = rdp.RdpAccountant(sorted(orders))
    for event, count in _composed(events):
        accountant.compose(event, count)
    return float(accountant.get_epsilon(delta))


def _by_distributions(events: Sequence[Event], delta: float) -> float:
    from dp_accounting.pld import pld_privacy_accountant as pld  # noqa: PLC0415

    if not events:
        return 0.0
    accountant = pld.PLDAccountant()
    for event, count in _composed(events):
        accountant.compose(event, count)
    return float(accountant.get_epsilon(delta))


def _composed(events: Sequence[Event]) -> list[tuple[Any, int]]:
    """As `dp_accounting` names them. Gaussian releases compose to one Gaussian release exactly."""
    from dp_accounting import dp_event  # noqa: PLC0415

    out: list[tuple[Any, int]] = []
    precision = math.fsum(e.count / e.multiplier**2 for e in events if isinstance(e, Gaussian))
    if precision > 0:
        out.append((dp_event.GaussianDpEvent(precision**-0.5), 1))
    for event in events:
        if isinstance(event, SampledGaussian):
            step = dp_event.PoissonSampledDpEvent(event.rate, dp_event.GaussianDpEvent(event.multiplier))
            out.append((step, event.steps))
        elif isinstance(event, Laplace):
            out.append((dp_event.LaplaceDpEvent(event.multiplier), event.count))
    return out

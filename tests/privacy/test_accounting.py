"""What histories cost: against the Gaussian's exact curve, quadrature in many digits, and the figures of others."""

from __future__ import annotations

import math

import mpmath
import pytest
from scipy.optimize import brentq
from scipy.stats import norm

from strategies import accounting
from strategies.accounting import Event, Gaussian, Laplace, SampledGaussian
from strategies.errors import UsageError
from strategies.privacy import Budget, Loss

BUDGET = Budget(3.0, 1e-6)


def exact(multiplier: float, delta: float) -> float:
    """The Gaussian mechanism's epsilon: Balle and Wang 2018, theorem 8, solved for epsilon."""
    mu = 1 / multiplier

    def excess(epsilon: float) -> float:
        return float(norm.cdf(mu / 2 - epsilon / mu) - math.exp(epsilon) * norm.cdf(-mu / 2 - epsilon / mu)) - delta

    return float(brentq(excess, 0, 200, xtol=1e-12))


@pytest.mark.parametrize("multiplier", [1.0, 10.0])
@pytest.mark.parametrize("count", [1, 7])
def test_gaussian_releases_cost_what_the_exact_curve_says(multiplier: float, count: int) -> None:
    found = accounting.epsilons([Gaussian(multiplier, count)], BUDGET)
    true = exact(multiplier / math.sqrt(count), BUDGET.delta)
    assert true <= found.pld <= true * 1.001 + 1e-3
    assert found.pld <= found.rdp <= found.zcdp * (1 + 1e-9)
    assert found.zcdp == Loss(count / (2 * multiplier**2)).epsilon(BUDGET.delta)


def test_laplace_releases_cost_their_sum_at_most_and_their_exact_curve() -> None:
    once = accounting.epsilons([Laplace(2.0)], BUDGET)
    # One release: delta = 1 - exp((epsilon - epsilon0) / 2), epsilon0 = 1/2.
    assert once.pld == pytest.approx(0.5 + 2 * math.log1p(-BUDGET.delta), abs=1e-3)
    assert accounting.charge([Laplace(2.0, 8)], BUDGET) == Loss(8 * 0.5**2 / 2)


@pytest.mark.parametrize(
    ("event", "pld", "rdp"),
    [(SampledGaussian(1.0, 0.01, 1000), 2.125, 2.437), (SampledGaussian(1.1, 0.02, 3000), 6.581, 7.084)],
)
def test_known_figures_of_sampled_training(event: SampledGaussian, pld: float, rdp: float) -> None:
    found = accounting.epsilons([event], BUDGET)
    assert found.pld == pytest.approx(pld, abs=2e-3)
    assert found.rdp == pytest.approx(rdp, abs=2e-3)
    assert found.pld <= found.rdp <= found.zcdp * (1 + 1e-9)


@pytest.mark.parametrize("order", [1.5, 8.93, 40])
@pytest.mark.parametrize(("multiplier", "rate"), [(1.0, 0.01), (0.7, 0.2), (2.0, 1.0)])
def test_the_divergence_of_a_sampled_step_is_that_of_quadrature_in_both_directions(
    order: float, multiplier: float, rate: float
) -> None:
    """Added or removed: the larger is the one that is charged."""
    mpmath.mp.dps = 30
    a, s, q = mpmath.mpf(order), mpmath.mpf(multiplier), mpmath.mpf(rate)

    def density(z: mpmath.mpf) -> mpmath.mpf:
        return mpmath.exp(-(z**2) / (2 * s**2)) / (s * mpmath.sqrt(2 * mpmath.pi))

    def ratio(z: mpmath.mpf) -> mpmath.mpf:
        return 1 - q + q * mpmath.exp((2 * z - 1) / (2 * s**2))

    edges = [-30 * s, -5 * s, 0, a / 2, a, a + 5 * s, a + 30 * s]
    removed = mpmath.log(mpmath.quad(lambda z: density(z) * ratio(z) ** a, edges)) / (a - 1)
    added = mpmath.log(mpmath.quad(lambda z: density(z) * ratio(z) ** (1 - a), edges)) / (a - 1)
    found = accounting.sampled_divergence(multiplier, rate, order)
    assert found == pytest.approx(float(removed), rel=1e-9, abs=1e-14)
    assert found >= float(added) * (1 - 1e-9)


HISTORIES: dict[str, list[Event]] = {
    "releases": [Gaussian(20.0, 30), Gaussian(7.0), Gaussian(90.0, 400)],
    "training on samples": [SampledGaussian(1.0, 0.01, 1000)],
    "both": [Gaussian(5.0, 3), SampledGaussian(1.3, 0.02, 400), Laplace(40.0, 10)],
    "many trainings": [SampledGaussian(2.0, 0.05, 300), SampledGaussian(0.8, 0.002, 5000), Gaussian(9.0)],
}


@pytest.mark.parametrize("name", HISTORIES)
@pytest.mark.parametrize("epsilon", [1.0, pytest.param(8.0, marks=pytest.mark.proof)])
def test_what_fits_into_a_budget_costs_no_more_than_its_epsilon(name: str, epsilon: float) -> None:
    """The noise is stretched until the charge fills the budget: its tight epsilon, found otherwise, stays within."""
    budget = Budget(epsilon, 1e-6)
    stretched = _stretched(HISTORIES[name], budget)
    assert accounting.charge(stretched, budget).rho <= budget.loss.rho
    assert accounting.charge(stretched, budget).rho >= 0.9 * budget.loss.rho
    found = accounting.epsilons(stretched, budget)
    assert found.pld <= budget.epsilon
    assert found.rdp <= budget.epsilon * (1 + 1e-9)
    assert found.zcdp <= budget.epsilon * (1 + 1e-9)


def _stretched(events: list[Event], budget: Budget) -> list[Event]:
    def at(factor: float) -> list[Event]:
        out: list[Event] = []
        for e in events:
            if isinstance(e, SampledGaussian):
                out.append(SampledGaussian(e.multiplier * factor, e.rate, e.steps))
            else:
                out.append(type(e)(e.multiplier * factor, e.count))
        return out

    def over(log: float) -> float:
        return accounting.charge(at(math.exp(log)), budget).rho - 0.999 * budget.loss.rho

    return at(math.exp(float(brentq(over, -3, 4, xtol=1e-3))) * 1.001)


def test_a_history_without_any_sampling_is_charged_as_if_nothing_were_known_of_samples() -> None:
    assert accounting.charge([SampledGaussian(2.0, 1.0, 10)], BUDGET).rho == pytest.approx(10 / 8, rel=1e-9)


def test_a_question_s_events_cost_what_is_charged() -> None:
    for rho, count in ((0.3, 1), (0.05, 10), (1e-9, 1000)):
        assert accounting.charge([accounting.of_loss(Loss(rho), count)], BUDGET).rho == pytest.approx(rho, rel=1e-12)


def test_a_loss_of_which_nothing_is_known_is_added_by_zcdp_at_half_of_delta() -> None:
    gap, event = Loss(0.02), Gaussian(4.0)
    found = accounting.epsilons([event], BUDGET, gap)
    assert found.zcdp == Loss(0.02 + 1 / 32).epsilon(BUDGET.delta)
    half = BUDGET.delta / 2
    assert found.pld == pytest.approx(exact(4.0, half) + gap.epsilon(half), abs=2e-3)
    assert found.pld >= exact(4.0, half) + gap.epsilon(half)
    assert accounting.epsilons([], BUDGET) == accounting.Epsilons(0.0, 0.0, 0.0)


def test_events_are_data() -> None:
    for event in (Gaussian(1.5, 3), SampledGaussian(1.0, 0.25, 7), Laplace(2.0)):
        assert accounting.read(accounting.plain(event)) == event
    for raw in ({"kind": "unheard of", "multiplier": 1.0}, {"kind": "laplace"}, {"kind": "laplace", "multiplier": -1}):
        with pytest.raises(UsageError):
            accounting.read(raw)

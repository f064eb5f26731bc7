"""Figures of an attack against other implementations, and a bound on epsilon that holds and bites."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import integrate, stats
from sklearn.metrics import roc_auc_score, roc_curve

from simulations.attacks import success
from strategies.privacy import Budget


def scored(seed, members=83, others=131, shift=0.7, ties=False):
    rng = np.random.default_rng(seed)
    one, other = rng.normal(shift, 1, members), rng.normal(0, 1, others)
    return (np.round(one, 1), np.round(other, 1)) if ties else (one, other)


def labelled(members, others):
    return np.r_[np.ones(len(members)), np.zeros(len(others))], np.r_[members, others]


@pytest.mark.parametrize("ties", [False, True])
def test_the_curve_and_its_area_are_those_of_scikit_learn(ties):
    members, others = scored(1, ties=ties)
    false, true = success.roc(members, others)
    want_false, want_true, _ = roc_curve(*labelled(members, others), drop_intermediate=False)
    assert np.allclose(false, want_false)
    assert np.allclose(true, want_true)
    assert success.auc(members, others) == pytest.approx(roc_auc_score(*labelled(members, others)), abs=1e-12)


@pytest.mark.parametrize("ties", [False, True])
def test_the_interval_is_delongs_by_its_definition(ties):
    members, others = scored(2, ties=ties)
    wins = np.array([[1.0 if m > o else 0.5 if m == o else 0.0 for o in others] for m in members])
    area, by_member, by_other = wins.mean(), wins.mean(axis=1), wins.mean(axis=0)
    variance = sum((by_member - area) ** 2) / (len(members) * (len(members) - 1))
    variance += sum((by_other - area) ** 2) / (len(others) * (len(others) - 1))
    low, high = success.interval(members, others)
    assert (low, high) == pytest.approx((area - 1.959964 * variance**0.5, area + 1.959964 * variance**0.5), abs=1e-6)


def test_the_interval_covers_as_often_as_it_says():
    truth = stats.norm.cdf(0.7 / math.sqrt(2))
    covered = [low <= truth <= high for low, high in (success.interval(*scored(s)) for s in range(1000))]
    assert 0.92 < np.mean(covered) < 0.97


def test_a_perfect_attack_is_not_stated_as_certain():
    low, high = success.interval(np.arange(25) + 100.0, np.arange(60.0))
    assert high == 1.0
    assert low == pytest.approx(0.025 ** (1 / 25))  # 25 of 25: Clopper and Pearson in closed form
    low, high = success.interval(np.arange(25.0), np.arange(60) + 100.0)
    assert (low, high) == pytest.approx((0.0, 1 - 0.025 ** (1 / 25)))


def test_members_are_found_at_the_false_alarms_allowed():
    members, others = scored(3, members=500, others=1000)
    for rate in (0.1, 0.01, 0.001):
        threshold = np.sort(others)[-math.floor(rate * 1000) - 1]
        assert success.found(members, others, rate) == np.mean(members > threshold)
    few = others[:60]  # one in a hundred of sixty is nobody
    assert success.found(members, few, 1e-2) == np.mean(members > few.max())
    assert success.found(np.ones(5), np.ones(5), 0.5) == 0.0, "ties are not found"


@pytest.mark.parametrize(("k", "n"), [(0, 10), (3, 10), (10, 10), (1, 1000)])
def test_limits_of_a_probability_are_scipys(k, n):
    want = stats.binomtest(k, n).proportion_ci(0.95, method="exact")
    assert success.clopper_pearson(k, n) == pytest.approx((want.low, want.high), abs=1e-12)


def test_the_bound_on_epsilon_holds_and_is_not_idle():
    # Laplace noise of scale 1 on one bit: exactly (1, 0). A bound of 95 % may fail for 2 of 40 seeds.
    bounds = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        bounds.append(success.epsilon_at_least(1 + rng.laplace(size=1000), rng.laplace(size=1000), 0.0))
    assert np.mean(np.array(bounds) > 1.0) <= 0.1
    assert np.median(bounds) > 0.5
    # Half of the noise is (2, 0), and is seen to be more than 1.
    rng = np.random.default_rng(0)
    assert success.epsilon_at_least(1 + rng.laplace(0, 0.5, 5000), rng.laplace(0, 0.5, 5000), 0.0) > 1.2


def test_delta_is_given_away_for_free():
    rng = np.random.default_rng(4)
    others = rng.normal(size=4000)
    members = np.where(rng.random(4000) < 0.02, 100.0, rng.normal(size=4000))  # (0, 0.02)
    assert success.epsilon_at_least(members, others, 0.0) > 1.5
    assert success.epsilon_at_least(members, others, 0.03) == 0.0


def test_the_bound_of_the_area_is_the_gaussian_one():
    for rho in (0.0066, 0.185, 1.54):
        shift = math.sqrt(2 * rho)  # a difference of D, with rho = D^2 / 2 sigma^2, in units of sigma
        want, _ = integrate.quad(lambda x, s=shift: stats.norm.pdf(x) * stats.norm.sf(x - s), -12, 12)
        assert success.at_most(rho) == pytest.approx(want, abs=1e-9)


def test_all_figures_of_an_attack_stand_together():
    members, others = scored(5)
    figures = success.measured("a", "b", members, others, True, Budget(1.0, 1e-6))
    assert (figures.attack, figures.reference, figures.members, figures.others) == ("a", "b", 83, 131)
    assert figures.synthetic
    assert figures.auc_low_95 < figures.auc < figures.auc_high_95
    assert figures.tpr_at_fpr_1e_2 >= figures.tpr_at_fpr_1e_3 > 0
    assert figures.auc_at_most == pytest.approx(stats.norm.cdf(math.sqrt(Budget(1.0, 1e-6).loss.rho)))
    assert success.measured("a", "b", members, others, True, None).auc_at_most is None

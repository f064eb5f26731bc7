"""The Beacon attack: likelihoods by hand, success without and with randomised answers, and none on strangers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from simulations.attacks.beacon import beacon_ratio, rarest_first
from simulations.attacks.experiment import QUERIES, Setting, beacon_table, draw
from simulations.attacks.frequencies import Reference, scores
from simulations.attacks.success import auc
from strategies.cohort import MISSING


@pytest.mark.parametrize("turned", [0.0, 0.27])
def test_the_ratio_is_that_of_the_two_chances_of_a_no(turned):
    n, p = 20, np.array([0.004, 0.02])
    got = beacon_ratio(np.array([False, True]), n, Reference.published(p), turned)

    def no(chance):
        return chance * (1 - turned) + (1 - chance) * turned

    others = [no((1 - f) ** (2 * n)) for f in p]
    member = [no(1e-6 * (1 - f) ** (2 * n - 2)) for f in p]
    want = [math.log(member[0] / others[0]), math.log((1 - member[1]) / (1 - others[1]))]
    for j in range(2):
        assert got[j] == pytest.approx([0.0, want[j], want[j]], rel=1e-6)


def test_answers_that_are_coins_are_not_attacked():
    with pytest.raises(ValueError, match=r"turned must be from 0 to below 0\.5, got 0\.5"):
        beacon_ratio(np.array([True]), 5, Reference.published(np.array([0.1])), 0.5)


def test_the_rarest_carried_alleles_are_asked_first():
    codes = np.array([[1, 0], [2, 1], [0, 1], [1, MISSING]], dtype=np.uint8)
    p = np.array([0.3, 0.1, 0.01, 0.2])
    first = rarest_first(codes, p, 2)
    assert first.T.tolist() == [[MISSING, 2, MISSING, 1], [MISSING, 1, 1, MISSING]]
    assert rarest_first(codes, p).T.tolist() == [[1, 2, MISSING, 1], [MISSING, 1, 1, MISSING]]


def test_answers_about_other_people_tell_nothing():
    rng = np.random.default_rng(5)
    p = np.exp(rng.uniform(math.log(0.001), math.log(0.02), 2000))
    targets, others, strangers = draw(p, 200, rng), draw(p, 200, rng), draw(p, 100, rng)
    found = beacon_ratio((strangers > 0).any(axis=1), 100, Reference.published(p))
    assert abs(auc(scores(found, targets), scores(found, others)) - 0.5) < 3 * 0.029


def test_yes_and_no_give_members_away_and_noise_in_each_answer_does_not_help():
    rows = {(r.queries, r.epsilon): r for r in beacon_table(Setting(people=50, epsilon=(0.1, 1.0), repeats=2))}
    assert rows[1, None].auc > 0.9
    assert rows[100, None].auc > 0.99
    assert rows[100, 1.0].auc > 0.95, "epsilon 1 for each of a hundred answers"
    assert 0.5 < rows[1, 0.1].auc < rows[100, 0.1].auc < 0.9
    assert [rows[q, None].auc for q in QUERIES] == sorted(rows[q, None].auc for q in QUERIES)
    large = {(r.queries, r.epsilon): r for r in beacon_table(Setting(people=250, epsilon=(), repeats=2))}
    assert large[100, None].auc < rows[100, None].auc

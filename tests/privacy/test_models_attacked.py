"""Membership from trained models: the scores by hand, success where a model has learnt its people by heart, and none
beyond the bound where it was trained privately."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm
from sklearn.linear_model import LogisticRegression

from fl_server.conduct import Result
from simulations.attacks import models
from simulations.attacks.experiment import draw, panel
from simulations.attacks.success import auc
from simulations.membership import Halves, measure
from simulations.release import Site, released
from strategies.analysis import Frame, Range
from strategies.cohort import Cohort, Genotypes
from strategies.learning.train import PrivateTraining, Shapes, clipped_gradients
from strategies.privacy import Budget
from strategies.question import Question

VARIANTS, PEOPLE = 200, 200
RNG = np.random.default_rng(8)
P = np.round(RNG.uniform(0.1, 0.5, VARIANTS), 6)
CODES = draw(P, PEOPLE, RNG)
LABELS = RNG.integers(0, 2, PEOPLE).astype(float)  # nothing to learn but the people themselves
FRAME = Frame(panel(P), {"label": Range(0, 1)})
COHORT = Cohort(PEOPLE, Genotypes.pack(CODES), {"label": LABELS})
NAMES = tuple(f"p{i}" for i in range(PEOPLE))
INSIDE = np.arange(PEOPLE) % 2 == 0
TRAINING = PrivateTraining("panel", "label", 100, "salt", steps=5, learning_rate=5.0, training_share=0.99, averaged=2)


def test_the_loss_is_the_logistic_one():
    confidence = np.array([-3.0, 0.0, 2.0, 800.0])
    want = [-math.log(1 / (1 + math.exp(-c))) if c < 700 else 0.0 for c in confidence]
    assert models.losses(confidence) == pytest.approx(want, abs=1e-12)


def test_the_shadow_ratio_is_that_of_two_normals():
    shadows = np.array([[1.0, 0.0], [2.0, 0.5], [0.0, 3.0], [0.5, 4.0]])
    inside = np.array([[True, False], [True, False], [False, True], [False, True]])
    got = models.shadow_ratio(np.array([1.2, 1.0]), shadows, inside)
    # Of each person two shadows with and two without; one variance of each kind, over both people.
    with_sd = math.sqrt((0.5 + 0.5) / 2)  # 1, 2 about 1.5 and 3, 4 about 3.5
    without_sd = math.sqrt((0.125 + 0.125) / 2)  # 0, .5 about .25 twice
    for person, value, means in ((0, 1.2, (1.5, 0.25)), (1, 1.0, (3.5, 0.25))):
        want = norm(means[0], with_sd).logpdf(value) - norm(means[1], without_sd).logpdf(value)
        assert got[person] == pytest.approx(want, abs=1e-12)


def test_the_ratio_of_rounds_is_that_of_two_multivariate_normals():
    rng = np.random.default_rng(1)
    public, own, n, sd = rng.normal(size=(50, 3)), rng.normal(size=(4, 3)), 30.0, 2.0
    total = rng.normal(size=3)
    got = models.rounds_ratio(total, np.full(3, sd), own, public, n)
    m, cov = public.mean(axis=0), n * np.cov(public.T) + sd**2 * np.eye(3)
    null = multivariate_normal(n * m, cov).logpdf(total)
    assert got == pytest.approx([multivariate_normal(n * m + g - m, cov).logpdf(total) - null for g in own], abs=1e-8)


def test_a_model_that_knows_its_people_by_heart_gives_them_away():
    rng = np.random.default_rng(3)

    def trained(chosen):
        model = LogisticRegression(C=0.1, max_iter=1000).fit(CODES[:, chosen].T, LABELS[chosen])
        return (2 * LABELS - 1) * model.decision_function(CODES.T)

    mine = trained(INSIDE)
    drawn = rng.random((4, PEOPLE)) < 0.5
    drawn = np.concatenate([drawn, ~drawn])
    shadows = np.stack([trained(chosen) for chosen in drawn])
    loss, ratio = -models.losses(mine), models.shadow_ratio(mine, shadows, drawn)
    assert auc(loss[INSIDE], loss[~INSIDE]) > 0.8
    assert auc(ratio[INSIDE], ratio[~INSIDE]) > 0.85


REPEATS = 2
ROOM = 0.175
"""An AUC of 100 and 100 people has a deviation of .041, the mean of two releases .029: six deviations."""


@lru_cache
def private(epsilon, repeat):
    """A model trained on those inside, and every round that led to it; anew for each repeat."""
    chosen = np.flatnonzero(INSIDE)
    site = Site(tuple(NAMES[i] for i in chosen), COHORT.take(chosen))
    return Budget(epsilon, 1e-6), released(
        Question("q", TRAINING, Budget(epsilon, 1e-6), honest_sites=1), FRAME, [site]
    )


def measured(epsilon, repeat):
    budget, out = private(epsilon, repeat)
    halves = {"A": Halves(NAMES, COHORT, INSIDE)}
    return measure(Result(Question("q", TRAINING, budget, honest_sites=1), out.answer, {}, None), FRAME, halves, True)


def allowed(epsilon):
    return norm.cdf(math.sqrt(Budget(epsilon, 1e-6).loss.rho))


def test_private_models_are_measured_and_stay_under_the_bound():
    areas: dict[str, list[float]] = {}
    for repeat in range(REPEATS):
        for a in measured(1.0, repeat):
            assert 95 <= a.members <= 100
            assert a.auc_at_most == pytest.approx(allowed(1.0))
            areas.setdefault(a.attack, []).append(a.auc)
    assert areas.keys() == {"loss of the model", "16 shadow models"}
    for found in areas.values():
        assert np.mean(found) <= allowed(1.0) + ROOM


def test_a_model_with_hardly_any_noise_is_seen_by_the_same_attack():
    assert measured(100.0, 0)[0].auc > allowed(1.0) + ROOM + 0.1


def rounds_area(epsilon, repeat):
    """AUC of the coordinator's attack, which sees every round's sum."""
    _, out = private(epsilon, repeat)
    x, y = TRAINING.inputs(COHORT, FRAME)
    public_codes = draw(P, 2000, np.random.default_rng(77))
    public = Cohort(
        2000,
        Genotypes.pack(public_codes),
        {"label": np.random.default_rng(78).integers(0, 2, 2000).astype(float)},
    )
    x0, y0 = TRAINING.inputs(public, FRAME)
    shapes, sums, noise, own, reference = Shapes(VARIANTS, 0), [], [], [], []
    for question, total in out.rounds[:-1]:
        weights = np.array(question.weights) if question.taken else shapes.start()
        sums.append(question.leaves(FRAME)["gradient"].values(total.sums["gradient"]))
        noise.append(np.full(shapes.parameters, total.noise["gradient"]))
        own.append(clipped_gradients(shapes, weights, x, y, TRAINING.clipping_norm))
        reference.append(clipped_gradients(shapes, weights, x0, y0, TRAINING.clipping_norm))
    rows = [np.concatenate(part, axis=-1) for part in (sums, noise, own, reference)]
    scored = models.rounds_ratio(*rows, float(INSIDE.sum()))
    return auc(scored[INSIDE], scored[~INSIDE])


def test_somebody_who_sees_every_round_stays_under_the_bound_too():
    assert np.mean([rounds_area(1.0, repeat) for repeat in range(REPEATS)]) <= allowed(1.0) + ROOM
    assert rounds_area(100.0, 0) > allowed(1.0) + ROOM + 0.02

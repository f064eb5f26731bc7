"""Genomes from gradients of one person, and from two exact answers; and how sum and noise end the first."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from simulations.attacks.experiment import draw, panel
from simulations.attacks.reconstruction import NOT_TOLD, between, genotypes, inverted
from simulations.release import Site, released
from strategies.analyses.genotype_counts import GenotypeCounts
from strategies.analysis import Frame, Range
from strategies.cohort import MISSING, Cohort, Genotypes
from strategies.learning.train import PrivateTraining, Shapes
from strategies.privacy import Budget
from strategies.question import Question

VARIANTS, PEOPLE = 40, 200
RNG = np.random.default_rng(20)
P = np.round(RNG.uniform(0.1, 0.5, VARIANTS), 6)
CODES = draw(P, PEOPLE, RNG)
FRAME = Frame(panel(P), {"label": Range(0, 1)})
LABELS = RNG.integers(0, 2, PEOPLE).astype(float)


def cohort(people):
    return Cohort(len(people), Genotypes.pack(CODES[:, people]), {"label": LABELS[people]})


def training(hidden=0):
    return PrivateTraining("panel", "label", 100, "salt", hidden=hidden, steps=1, averaged=1, training_share=0.99)


def entered(hidden=0):
    """(M, 3) what a person with 0, 1 and 2 alternate alleles enters."""
    steps = []
    for g in range(3):
        all_alike = Cohort(1, Genotypes.pack(np.full((VARIANTS, 1), g, dtype=np.uint8)), {"label": np.zeros(1)})
        steps.append(training(hidden).inputs(all_alike, FRAME)[0][0])
    return np.stack(steps, axis=1)


def first_sum(people, hidden=0, budget=None):
    """The first round's sum, as a coordinator sees it."""
    question, one = training(hidden), cohort(np.array(people))
    if budget is None:
        fields = question.leaves(FRAME)
        return fields["gradient"].values(question.summarise(one, FRAME)["gradient"])
    site = Site(tuple(f"p{i}" for i in people), one)
    asked, total = released(Question("q", question, budget, by_site=True), FRAME, [site]).rounds[0]
    return asked.leaves(FRAME)["gradient"].values(total.sums["gradient"])


def right(gradient, person, hidden=0):
    """Share of a person's genotypes that inversion tells."""
    x, _ = inverted(Shapes(VARIANTS, hidden), gradient)
    return float((genotypes(x, entered(hidden)) == CODES[:, person]).mean())


GUESS = float(np.mean([(CODES[:, i] == np.rint(2 * P)).mean() for i in range(PEOPLE)]))
"""Share that is right without any gradient: everybody has the genotype nearest to the mean."""


@pytest.mark.parametrize("hidden", [0, 8])
def test_the_update_of_one_person_is_that_persons_genome(hidden):
    told = 0
    for person in range(20):
        gradient = first_sum([person], hidden)
        if np.isfinite(inverted(Shapes(VARIANTS, hidden), gradient)[0]).all():  # some hidden unit sees the person
            told += 1
            assert right(gradient, person, hidden) == 1.0
        assert inverted(Shapes(VARIANTS, hidden), gradient)[1] == LABELS[person]
    assert told >= 18


def test_inversion_undoes_a_gradient_that_torch_computed():
    shapes, x = Shapes(5, 3), torch.tensor([[0.5, -1.0, 2.0, 0.0, 0.25]], dtype=torch.float64)
    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Linear(5, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1)).double()
    torch.nn.functional.binary_cross_entropy_with_logits(model(x)[:, 0], torch.ones(1).double()).backward()
    gradient = np.concatenate([p.grad.numpy().ravel() for p in model.parameters()])
    told, label = inverted(shapes, gradient)
    assert told == pytest.approx(x.numpy()[0], abs=1e-12)
    assert label == 1.0


def test_a_sum_over_people_tells_nobodys_genome():
    gradient = first_sum(range(100))
    assert np.mean([right(gradient, person) for person in range(100)]) < GUESS + 0.1


def test_noise_hides_even_somebody_who_is_alone():
    # A person's bias entry is at most 1 in size, the noise's deviation at epsilon 1 is about 4.5 in every entry: the
    # quotient is of two noises. The share right is a mean over 20 x 40 genotypes, with a deviation below .03.
    shares = [right(first_sum([person], budget=Budget(1.0, 1e-6)), person) for person in range(20)]
    assert np.mean(shares) < GUESS + 0.15
    assert np.mean([right(first_sum([person]), person) for person in range(20)]) == 1.0, "without noise, everything"


def test_nobody_is_told_from_an_empty_gradient():
    x, label = inverted(Shapes(3, 0), np.zeros(4))
    assert np.isnan(x).all()
    assert label is None
    assert genotypes(x, np.zeros((3, 3))).tolist() == [NOT_TOLD] * 3


def counts(people, minimum_cell=0):
    site = Site(tuple(map(str, people)), cohort(np.array(people)))
    return released(Question("q", GenotypeCounts("panel")), FRAME, [site], minimum_cell).answer


def test_two_exact_answers_that_differ_by_one_person_are_that_persons_genome():
    everybody = list(range(PEOPLE))
    for gone in (0, 17, 199):
        told = between(counts(everybody), counts([i for i in everybody if i != gone]))
        assert np.array_equal(told, CODES[:, gone])


def test_a_minimum_cell_does_not_prevent_it():
    everybody = list(range(PEOPLE))
    larger, smaller = counts(everybody, 5), counts(everybody[1:], 5)
    told = between(larger, smaller)
    shown = ~(larger.tables["frequencies"]["withheld"] | smaller.tables["frequencies"]["withheld"])
    assert shown.mean() > 0.5
    assert np.array_equal(told[shown], CODES[shown, 0])
    assert (told[~shown] == NOT_TOLD).all()


def test_a_missing_genotype_is_told_as_missing():
    codes = CODES.copy()
    codes[3, 0] = MISSING

    def answer(chosen):
        people = Cohort(chosen.shape[1], Genotypes.pack(np.ascontiguousarray(chosen)))
        return released(
            Question("q", GenotypeCounts("panel")), FRAME, [Site(tuple("x" * len(people)), people)], 0
        ).answer

    assert between(answer(codes), answer(codes[:, 1:]))[3] == MISSING


def test_answers_that_differ_by_two_people_are_no_genome():
    everybody = list(range(PEOPLE))
    assert (between(counts(everybody), counts(everybody[2:])) == NOT_TOLD).all()

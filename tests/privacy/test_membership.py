"""Membership inference reaches theory without noise, stays under the bound with it, and is 0.5 on others' data."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import norm

from simulations.attacks import (
    auc,
    first_half,
    measure,
    membership_auc_association,
    membership_auc_frequencies,
    standard_error,
)
from strategies.analyses.allele_frequency import GenotypeCounts, NoisedFrequency
from strategies.analyses.association import LinearAssociation
from strategies.analysis import Frame, Range, Total
from strategies.cohort import MISSING, Cohort, Genotypes
from strategies.protections.noise import discrete_gaussian
from strategies.variants import Panel, Variant

N, M, SCORED = 1000, 5000, 400


def draw(rng, p, people):
    return rng.binomial(2, p[:, None], (len(p), people)).astype(np.uint8)


@pytest.fixture(scope="module")
def population():
    rng = np.random.default_rng(20240601)
    p = rng.uniform(0.05, 0.5, M)
    return p, draw(rng, p, N), draw(rng, p, SCORED), draw(rng, p, N)


def test_without_noise_the_attack_reaches_theory(population):
    p, members, others, _ = population
    got = membership_auc_frequencies(members.mean(axis=1) / 2, N, members[:, :SCORED], others, reference=p)
    want = norm.cdf(math.sqrt(M / N) / math.sqrt(2))
    assert want == pytest.approx(0.943, abs=5e-4)
    assert abs(got - want) < 3 * standard_error(want, SCORED, SCORED)


def test_a_reference_of_the_non_members_costs_the_attacker_what_theory_says(population):
    _, members, others, _ = population
    got = membership_auc_frequencies(members.mean(axis=1) / 2, N, members[:, :SCORED], others)
    # The variance of r - p grows by the factor 1 + n / k, so M / n shrinks by it.
    want = norm.cdf(math.sqrt(M / (N * (1 + N / SCORED))) / math.sqrt(2))
    assert abs(got - want) < 4 * standard_error(want, SCORED, SCORED)


@pytest.mark.parametrize("known", [True, False])
def test_an_answer_of_other_people_tells_nothing(population, known):
    p, members, others, strangers = population
    reference = p if known else None
    got = membership_auc_frequencies(strangers.mean(axis=1) / 2, N, members[:, :SCORED], others, reference=reference)
    assert abs(got - 0.5) < 3 * standard_error(0.5, SCORED, SCORED)


@pytest.mark.parametrize("rho", [0.05, 0.25, 1.0])
def test_with_noise_the_attack_stays_under_the_bound(population, rho):
    p, members, others, _ = population
    most = np.maximum(2 * p, 2 - 2 * p)
    sd = math.sqrt((most**2).sum() / (2 * rho))
    released = (members.sum(axis=1, dtype=np.int64) + discrete_gaussian(sd, M)) / (2 * N)
    got = membership_auc_frequencies(released, N, members[:, :SCORED], others, reference=p, noise_sd=sd)
    assert got <= norm.cdf(math.sqrt(rho)) + 3 * standard_error(0.5, SCORED, SCORED)
    if rho == 1.0:  # and the attack is not blind: the bound would be met by a coin as well
        assert got > 0.5 + 3 * standard_error(0.5, SCORED, SCORED)


def test_knowing_the_noise_makes_the_attack_stronger():
    rng = np.random.default_rng(7)
    # Rare and common variants together: the plain ratio trusts the rare ones, which the noise hits hardest.
    p = np.concatenate([np.full(2500, 0.01), np.full(2500, 0.4)])
    members, others = draw(rng, p, 300), draw(rng, p, 300)
    sd = 12.0
    released = (members.sum(axis=1, dtype=np.int64) + rng.normal(0, sd, len(p))) / 600
    aware = membership_auc_frequencies(released, 300, members, others, reference=p, noise_sd=sd)
    plain = membership_auc_frequencies(released, 300, members, others, reference=p)
    assert aware > plain + 0.05


def regression(genotypes, trait, design):
    """t, frequency and n of one ordinary least squares fit per variant, by projection."""
    q, _ = np.linalg.qr(design)
    g = genotypes - (genotypes @ q) @ q.T
    y = trait - q @ (q.T @ trait)
    gg, gy = (g**2).sum(axis=1), g @ y
    beta, degrees = gy / gg, len(trait) - design.shape[1] - 1
    error = np.sqrt((y @ y - beta * gy) / (degrees * gg))
    return beta / error, genotypes.mean(axis=1) / 2, np.full(len(genotypes), float(len(trait)))


def traits(rng, genotypes, design):
    """Half of the variance from ten true effects; a covariate as well."""
    effects = np.zeros(len(genotypes))
    effects[:10] = 0.35
    return effects @ genotypes + 0.5 * design[:, 1] + rng.normal(size=genotypes.shape[1])


@pytest.fixture(scope="module")
def regressed(population):
    rng = np.random.default_rng(31)
    _, *groups = population
    designs = [np.stack([np.ones(g.shape[1]), rng.normal(size=g.shape[1])], axis=1) for g in groups]
    values = [traits(rng, g, d) for g, d in zip(groups, designs, strict=True)]
    return groups, designs, values


def test_regression_statistics_expose_members_as_far_as_theory_says(regressed):
    (members, others, _), designs, values = regressed
    t, f, n = regression(members, values[0], designs[0])
    got = membership_auc_association(
        t, f, n, (members[:, :SCORED], others), (values[0][:SCORED], values[1]), (designs[0][:SCORED], designs[1])
    )
    rng = np.random.default_rng(5)
    e = rng.normal(size=(2, 200_000))
    a = e * math.sqrt(M / N)
    s = rng.normal(size=e.shape) + np.array([[1.0], [0.0]]) * a
    want = auc(*(a * s - a**2 / 2))
    assert want > 0.8
    assert abs(got - want) < 0.04  # residuals are known up to the true effects only


def test_regression_statistics_of_other_people_tell_nothing(regressed):
    (members, others, strangers), designs, values = regressed
    t, f, n = regression(strangers, values[2], designs[2])
    got = membership_auc_association(
        t, f, n, (members[:, :SCORED], others), (values[0][:SCORED], values[1]), (designs[0][:SCORED], designs[1])
    )
    assert abs(got - 0.5) < 3 * standard_error(0.5, SCORED, SCORED)


def cohort(rng, p, people, missing=0.0):
    codes = draw(rng, p, people)
    codes[rng.random(codes.shape) < missing] = MISSING
    trait = rng.normal(size=people)
    trait[:2] = np.nan
    return Cohort(people, Genotypes.pack(codes), {"trait": trait, "age": rng.uniform(-1, 1, people)})


def test_answers_of_the_catalogue_are_measured_as_they_are():
    rng = np.random.default_rng(11)
    p = rng.uniform(0.1, 0.5, 600)
    panel = Panel("GRCh37", tuple(Variant("1", i + 1, f"v{i}", "A", "C") for i in range(len(p))))
    frame = Frame(panel, {"trait": Range(-5, 5), "age": Range(-1, 1)})
    members, others = cohort(rng, p, 100, 0.02), cohort(rng, p, 100, 0.02)

    counts = GenotypeCounts("panel")
    answer = counts.conclude(Total(counts.summarise(members, frame), ("A",), minimum_cell=2), frame)
    assert answer.withheld
    measured = measure(counts, answer, members, others)
    assert measured is not None
    assert measured > 0.75

    first = LinearAssociation("panel", "trait", ("age",))
    second = first.conclude(Total(first.summarise(members, frame), ("A",)), frame)
    answer = second.conclude(Total(second.summarise(members, frame), ("A",)), frame)
    measured = measure(first, answer, members, others)
    assert measured is not None
    assert measured > 0.75

    assert measure(NoisedFrequency("panel"), answer, members, others) is None


def test_the_half_is_public_and_about_a_half():
    people = [f"HG{i:05d}" for i in range(4000)]
    half = first_half(people)
    assert abs(half.mean() - 0.5) < 0.03
    assert np.array_equal(first_half(people[::-1]), half[::-1])

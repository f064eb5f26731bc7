"""Membership inference reaches theory without noise, stays under the bound with it, and is 0.5 on others' data."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from scipy.stats import norm

from fl_server.conduct import Result
from simulations.attacks import association, frequencies
from simulations.attacks.experiment import Setting, draw, panel, release, table
from simulations.attacks.frequencies import Reference, Release
from simulations.attacks.success import auc
from simulations.membership import Halves, first_half, measure
from simulations.release import Site, released
from strategies.analyses.allele_frequency import NoisedFrequency
from strategies.analyses.association import LinearAssociation
from strategies.analyses.genotype_counts import GenotypeCounts
from strategies.analysis import Frame, Range
from strategies.cohort import MISSING, Cohort, Genotypes
from strategies.privacy import Budget
from strategies.protections.noise import discrete_gaussian
from strategies.question import Question

N, M, SCORED = 1000, 5000, 400


def standard_error(area, members, others):
    """Of an AUC: Hanley and McNeil, Radiology 143 (1982), equation 1."""
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    variance = area * (1 - area) + (members - 1) * (q1 - area**2) + (others - 1) * (q2 - area**2)
    return math.sqrt(variance / (members * others))


def counted(codes, noise=0.0, sd=0.0):
    """Plain allele counts of (M, N) codes, with noise."""
    total = codes.sum(axis=1, dtype=np.int64) + noise
    return Release(total.astype(float), np.zeros(len(codes)), np.full(len(codes), float(codes.shape[1])), sd)


def area_of(found, members, others, reference):
    """AUC of the likelihood ratio of frequencies."""
    if reference is None:
        known, own = Reference.of(others), Reference.of(others, own=True)
    else:
        known = own = Reference.published(reference)
    tables = frequencies.frequency_ratio(found, known), frequencies.frequency_ratio(found, own)
    return auc(frequencies.scores(tables[0], members), frequencies.scores(tables[1], others))


@pytest.fixture(scope="module")
def population():
    rng = np.random.default_rng(20240601)
    p = rng.uniform(0.05, 0.5, M)
    return p, draw(p, N, rng), draw(p, SCORED, rng), draw(p, N, rng)


def test_without_noise_the_attack_reaches_theory(population):
    p, members, others, _ = population
    got = area_of(counted(members), members[:, :SCORED], others, p)
    want = norm.cdf(math.sqrt(M / N) / math.sqrt(2))
    assert want == pytest.approx(0.943, abs=5e-4)
    assert abs(got - want) < 3 * standard_error(want, SCORED, SCORED)


def test_a_reference_of_the_others_costs_the_attacker_what_theory_says(population):
    _, members, others, _ = population
    got = area_of(counted(members), members[:, :SCORED], others, None)
    # The variance of r - p grows by the factor 1 + n / k, so M / n shrinks by it.
    want = norm.cdf(math.sqrt(M / (N * (1 + N / SCORED))) / math.sqrt(2))
    assert abs(got - want) < 4 * standard_error(want, SCORED, SCORED)


@pytest.mark.parametrize("known", [True, False])
def test_an_answer_of_other_people_tells_nothing(population, known):
    p, members, others, strangers = population
    got = area_of(counted(strangers), members[:, :SCORED], others, p if known else None)
    assert abs(got - 0.5) < 3 * standard_error(0.5, SCORED, SCORED)


@pytest.mark.parametrize("rho", [0.05, 0.25, 1.0])
def test_with_noise_the_attack_stays_under_the_bound(population, rho):
    p, members, others, _ = population
    most = np.maximum(2 * p, 2 - 2 * p)
    sd = math.sqrt((most**2).sum() / (2 * rho))
    found = counted(members, discrete_gaussian(sd, M), sd)
    got = area_of(found, members[:, :SCORED], others, p)
    # In theory .54, .59, .66 against bounds of .59, .69, .84: over five standard errors of .02 away on either side.
    assert got <= norm.cdf(math.sqrt(rho)) + 3 * standard_error(0.5, SCORED, SCORED)
    if rho == 1.0:  # and the attack is not blind: the bound would be met by a coin as well
        assert got > 0.5 + 2.5 * standard_error(0.5, SCORED, SCORED)


def test_knowing_the_noise_makes_the_attack_stronger():
    rng = np.random.default_rng(7)
    # Rare and common variants together: the plain ratio trusts the rare ones, which the noise hits hardest.
    p = np.concatenate([np.full(2500, 0.01), np.full(2500, 0.4)])
    members, others = draw(p, 300, rng), draw(p, 300, rng)
    noise = rng.normal(0, 12.0, len(p))
    aware = area_of(counted(members, noise, 12.0), members, others, p)
    plain = area_of(counted(members, noise), members, others, p)
    assert aware > plain + 0.05


def test_the_noise_of_the_number_of_people_is_taken_off_or_counted(population):
    p, members, others, _ = population
    budget = Budget(30.0, 1e-6)
    people = Cohort(N, Genotypes.pack(members))
    got = release(people, Frame(panel(p)), budget)
    assert np.allclose(
        got.noise_sd, math.sqrt((np.maximum(2 * p, 2 - 2 * p) ** 2).sum() / (1.6 * budget.loss.rho)), rtol=1e-3
    )
    honest = area_of(got, members[:, :SCORED], others, p)
    mistaken = Release(got.above, np.zeros(M), got.people, got.noise_sd, got.people_noise_sd)
    assert honest > 0.6
    assert abs(area_of(mistaken, members[:, :SCORED], others, p) - 0.5) < honest - 0.5
    # Against a reference that is not the published one, noise in n enters every count: less is trusted.
    other = Reference.published(np.clip(p + 0.1, 0, 1))
    noisy_people = Release(got.above, got.centre, got.people, got.noise_sd, 1000.0)
    weights = [np.abs(frequencies.frequency_ratio(r, other)).sum() for r in (got, noisy_people)]
    assert weights[1] < weights[0] / 2


def test_the_table_of_frequencies_is_the_ratio_of_two_normals():
    p, n, k, sd, above = 0.3, 40.0, 25, 3.0, 31.0
    reference = Reference(np.array([[12.0, 9.0, 4.0]]))
    found = Release(np.array([above]), np.zeros(1), np.array([n]), sd)
    q = (9 + 2 * 4 + 0.5) / (2 * k + 1)
    variance = 2 * n * q * (1 - q) + 4 * n**2 * q * (1 - q) / (2 * k + 1) + sd**2
    null = norm(2 * n * q, math.sqrt(variance))
    want = [norm(2 * n * q + x - 2 * q, math.sqrt(variance)).logpdf(above) - null.logpdf(above) for x in range(3)]
    assert frequencies.frequency_ratio(found, reference)[0] == pytest.approx(want, abs=1e-12)
    assert p != q


def test_the_table_of_genotype_counts_is_the_ratio_of_two_multinomials():
    counts, p = np.array([7, 4, 1]), 0.25
    population = np.array([(1 - p) ** 2, 2 * p * (1 - p), p**2])
    got = frequencies.genotype_ratio(counts[None].astype(float), Reference.published(np.array([p])))[0]
    for g in range(3):
        rest = counts - np.eye(3, dtype=int)[g]
        ratio = stats.multinomial(11, population).pmf(rest) / stats.multinomial(12, population).pmf(counts)
        assert got[g] == pytest.approx(math.log(0.999 * ratio + 0.001), abs=1e-6)
    known, own = Reference(np.array([[5.0, 3.0, 2.0]])), Reference(np.array([[5.0, 3.0, 2.0]]), own=True)
    # Polya's urn: the next draw's chance given all that was seen, the person itself left out.
    for reference, left in ((known, 0), (own, 1)):
        got = frequencies.genotype_ratio(counts[None].astype(float), reference)[0]
        predicted = (counts + np.array([5, 3, 2]) - left + 0.5) / (12 + 10 - left + 1.5)
        assert got == pytest.approx(np.log(0.999 * (counts / 12) / predicted + 0.001), abs=1e-12)


def test_homers_distance_is_his():
    found = Release(np.array([26.0]), np.zeros(1), np.array([40.0]))
    reference = Reference.published(np.array([0.3]))
    want = [abs(x / 2 - 0.3) - abs(x / 2 - 26 / 80) for x in range(3)]
    assert frequencies.homer(found, reference)[0] == pytest.approx(want, abs=1e-8)


def test_a_score_is_the_sum_over_observed_genotypes():
    rng = np.random.default_rng(2)
    codes = rng.integers(0, 4, (3000, 7)).astype(np.uint8)
    values = rng.normal(size=(3000, 3, 2))
    want = np.array([sum(values[j, c] for j, c in enumerate(person) if c != MISSING) for person in codes.T])
    assert np.allclose(frequencies.scores(values, codes), want, atol=1e-3)
    assert np.allclose(frequencies.scores(values[:, :, 0], codes), want[:, 0], atol=1e-3)


# -- the published experience of a node, and the table -----------------------------------------------------------------

MEMBERS, OTHERS, SNPS, FLOOR = 25, 60, 4000, 5


def small_release(seed):
    rng = np.random.default_rng(seed)
    p = np.round(rng.uniform(0.05, 0.5, SNPS), 6)
    codes = draw(p, MEMBERS + OTHERS, rng)
    frame = Frame(panel(p))
    people = Cohort(MEMBERS, Genotypes.pack(codes[:, :MEMBERS]))
    return p, frame, people, codes[:, :MEMBERS], codes[:, MEMBERS:]


@pytest.mark.parametrize("seed", range(5))
def test_a_floor_of_five_hides_none_of_25_members(seed):
    p, frame, people, members, others = small_release(seed)
    site = Site(tuple(map(str, range(MEMBERS))), people)
    answer = released(Question("q", GenotypeCounts("panel")), frame, [site], FLOOR).answer
    assert 0 < answer.withheld < SNPS, "the floor is at work"
    found = frequencies.genotype_ratio(frequencies.genotype_counts(answer), Reference.published(p))
    # One in 10,000 by Markov's inequality: nobody's score was looked at to set it.
    threshold = frequencies.log_threshold(1e-4)
    assert (frequencies.scores(found, members) > threshold).sum() >= 24
    assert (frequencies.scores(found, others) > threshold).sum() == 0
    # The frequencies alone, without the genotypes behind them, are nearly enough.
    assert area_of(Release.exact(answer), members, others, p) > 0.99


def mean_area(budget, repeats):
    p, frame, people, members, others = small_release(0)
    areas = [area_of(release(people, frame, budget), members, others, p) for _ in range(repeats)]
    return float(np.mean(areas))


def test_the_same_release_at_epsilon_1_hides_them():
    # A repeat's AUC has a deviation of .07, the mean of 20 of .016; it lies about .04 below the bound, and .06 more is
    # allowed: over six deviations.
    assert mean_area(Budget(1.0, 1e-6), 20) <= norm.cdf(math.sqrt(Budget(1.0, 1e-6).loss.rho)) + 0.06


def test_and_a_release_with_too_little_noise_would_be_seen():
    # Epsilon 30 sold as 1: the mean AUC of 8 is about .85 with a deviation of .015.
    assert mean_area(Budget(30.0, 1e-6), 8) > norm.cdf(math.sqrt(Budget(1.0, 1e-6).loss.rho)) + 0.06


@pytest.mark.proof
def test_200_releases_at_epsilon_1_stay_under_the_bound():
    rho = Budget(1.0, 1e-6).loss.rho
    mean = mean_area(Budget(1.0, 1e-6), 200)
    print(f"\n25 members, 60 others, 4,000 SNPs, epsilon 1: mean AUC {mean:.4f}, bound {norm.cdf(math.sqrt(rho)):.4f}")
    assert mean <= norm.cdf(math.sqrt(rho)) + 0.02


@pytest.mark.proof
def test_the_table_over_epsilon_and_variants():
    rows = list(table(Setting()))
    assert [(r.variants, r.epsilon) for r in rows] == [
        (m, e) for m in (500, 5000, 20000) for e in (None, 0.5, 1.0, 3.0, 10.0)
    ]
    for row in rows:
        print(f"\nM {row.variants} epsilon {row.epsilon}: AUC {row.auc:.4f}, theory {row.theory:.4f}", end="")
        if row.epsilon is None:
            want = norm.cdf(math.sqrt(row.variants / 2000))
            assert abs(row.auc - want) < 0.01
        else:
            # The mean of ten has a deviation of .004 and lies .02 or more below the bound: ten deviations.
            assert row.auc <= norm.cdf(math.sqrt(Budget(row.epsilon, 1e-6).loss.rho)) + 0.02
            assert row.epsilon_at_least <= row.epsilon
    by_epsilon = {e: np.mean([r.auc for r in rows if r.epsilon == e]) for e in (0.5, 1.0, 3.0, 10.0)}
    assert by_epsilon[0.5] < by_epsilon[3.0] < by_epsilon[10.0]


# -- association statistics --------------------------------------------------------------------------------------------


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


def regression_area(released_by, regressed, values):
    (members, others, _), designs, _ = regressed
    codes = np.concatenate([members[:, :SCORED], others], axis=1)
    residual = association.residuals(
        np.concatenate([designs[0][:SCORED], designs[1]]), np.concatenate([values[0][:SCORED], values[1]])
    )
    scored = association.regression_scores(*released_by, codes, residual)
    return auc(scored[:SCORED], scored[SCORED:])


@pytest.mark.parametrize("binary", [False, True])
def test_regression_statistics_expose_members_as_far_as_theory_says(regressed, binary):
    (members, _, _), designs, values = regressed
    if binary:
        values = [(v > np.median(values[0])).astype(float) for v in values]
    got = regression_area(regression(members, values[0], designs[0]), regressed, values)
    rng = np.random.default_rng(5)
    e = rng.choice([-1.0, 1.0], size=(2, 200_000)) if binary else rng.normal(size=(2, 200_000))
    a = e * math.sqrt(M / N)
    s = rng.normal(size=e.shape) + np.array([[1.0], [0.0]]) * a
    want = auc(*(a * s - a**2 / 2))
    assert want > 0.8
    assert abs(got - want) < 0.04  # residuals are known up to the true effects only


def test_regression_statistics_of_other_people_tell_nothing(regressed):
    (_, _, strangers), designs, values = regressed
    got = regression_area(regression(strangers, values[2], designs[2]), regressed, values)
    assert abs(got - 0.5) < 3 * standard_error(0.5, SCORED, SCORED)


# -- the catalogue's answers -------------------------------------------------------------------------------------------


def cohort(rng, p, people, missing=0.0):
    codes = draw(p, people, rng)
    codes[rng.random(codes.shape) < missing] = MISSING
    trait = rng.normal(size=people)
    trait[:2] = np.nan
    return Cohort(people, Genotypes.pack(codes), {"trait": trait, "age": rng.uniform(-1, 1, people)})


def asked(analysis, frame, halves, budget=None, minimum_cell=0):
    """The measured attacks on the answer of the halves' members."""
    sites = {name: Site(tuple(np.array(h.identifiers)[h.inside]), h.members) for name, h in halves.items()}
    question = Question("q", analysis, budget, by_site=budget is not None and analysis.by_site)
    answer = released(question, frame, list(sites.values()), minimum_cell).answer
    by_site = {name: released(question, frame, [site]).answer for name, site in sites.items()} if budget else {}
    return measure(Result(question, answer, by_site, None), frame, halves, True)


def test_answers_of_the_catalogue_are_measured_as_they_are():
    rng = np.random.default_rng(11)
    p = rng.uniform(0.1, 0.5, 600)
    frame = Frame(panel(p), {"trait": Range(-5, 5), "age": Range(-1, 1)})
    halves = {
        name: Halves(tuple(f"{name}{i}" for i in range(100)), cohort(rng, p, 100, 0.02), np.arange(100) < 50)
        for name in "ABC"
    }
    attacks = asked(GenotypeCounts("panel"), frame, halves, minimum_cell=2)
    assert {a.attack for a in attacks} == {
        "likelihood ratio of genotype counts", "likelihood ratio of frequencies", "Homer's distance"
    }  # fmt: skip
    assert [a.auc for a in attacks] == sorted((a.auc for a in attacks), reverse=True)
    assert all(a.auc > 0.75 and (a.members, a.others, a.synthetic) == (150, 150, True) for a in attacks)
    (regressed,) = asked(LinearAssociation("panel", ("trait",), ("age",)), frame, halves)
    assert regressed.auc > 0.75
    assert (regressed.members, regressed.others) == (144, 150), "people without a trait are in no regression"


def test_a_private_answer_is_measured_at_each_persons_own_site():
    rng = np.random.default_rng(12)
    p = np.round(rng.uniform(0.1, 0.5, 600), 6)
    halves = {
        name: Halves(tuple(f"{name}{i}" for i in range(100)), cohort(rng, p, 100), np.arange(100) < 50) for name in "AB"
    }
    # Nearly without noise, then with much: .97 and .51 or so, with deviations of .02 and .04.
    loose = asked(NoisedFrequency("panel"), Frame(panel(p)), halves, Budget(100.0, 1e-3))
    tight = asked(NoisedFrequency("panel"), Frame(panel(p)), halves, Budget(0.1, 1e-6))
    assert loose[0].auc > 0.75
    assert tight[0].auc < 0.75
    assert tight[0].auc_at_most == pytest.approx(norm.cdf(math.sqrt(Budget(0.1, 1e-6).loss.rho)))
    assert loose[0].attack == "noise-aware likelihood ratio of frequencies"


def test_the_half_is_public_and_about_a_half():
    people = [f"HG{i:05d}" for i in range(4000)]
    half = first_half(people)
    assert abs(half.mean() - 0.5) < 0.03
    assert np.array_equal(first_half(people[::-1]), half[::-1])

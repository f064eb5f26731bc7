"""Noise is what it is said to be: its distribution, its scale, what it costs, and the intervals that count on it.

Draws come from the operating system's generator and cannot be seeded. Each statistical test therefore accepts the truth
but with a probability below 10^-9, and each is shown to reject a scale of 2/3 and of 3/2.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from dp_accounting import GaussianDpEvent, SelfComposedDpEvent
from dp_accounting.pld.privacy_loss_distribution import from_discrete_gaussian_mechanism
from dp_accounting.rdp import RdpAccountant
from numpy.typing import NDArray
from scipy import special, stats
from scipy.optimize import brentq

from fl_client.readers import Dataset, DatasetConfig
from strategies.analyses.allele_frequency import NoisedFrequency
from strategies.analysis import Answer, Frame, Total
from strategies.cohort import MISSING, Cohort, Genotypes
from strategies.privacy import Budget, Loss, epsilon_of, rho_of, stacked
from strategies.protections import noise
from strategies.summary import Field, after_rounding
from strategies.variants import Panel
from tests.tiny import FREQUENCIES, NAMES, PANEL, PEOPLE, Tiny, genotypes, study

EUROPE = Path(__file__).parents[2] / "simulations" / "data" / "europe1000g"
TWELVE = EUROPE.parents[1] / "studies" / "public12.tsv"
FALSE_ALARM = 1e-12
DEVIATIONS = float(stats.norm.isf(FALSE_ALARM / 2))
"""7.1: how many standard errors a mean of thousands of draws may be off."""


def has_scale(draws: NDArray[np.int64], scale: float) -> bool:
    """Whether the mean square is that of a discrete Gaussian of the scale, of 2 or more, within its sampling error."""
    squares = draws.astype(np.float64) ** 2
    return abs(float(squares.mean()) - scale**2) <= DEVIATIONS * scale**2 * math.sqrt(2 / len(draws))


def test_noise_is_in_every_entry_on_the_field_s_grid_and_leaves_the_summary_alone() -> None:
    fields = {
        "fine": Field((40, 5), "", 1, 1, fraction_bits=10),
        "coarse": Field((), "", 1, 1),
        "none": Field((0, 3), "", 1, 1),
    }
    summary = {name: np.full(f.shape, 7, dtype=np.int64) for name, f in fields.items()}
    sd = {"fine": 1e6, "coarse": 1e9, "none": 1.0}
    noised = noise.add_noise(summary, fields, sd)
    for name, f in fields.items():
        assert (noised[name].shape, noised[name].dtype) == (f.shape, np.int64)
        assert np.all(summary[name] == 7)
    assert np.all(noised["fine"] != 7)  # each equals 7 with a probability of 4e-10
    assert len(np.unique(noised["fine"])) == 200
    many = np.concatenate([noise.add_noise(summary, fields, sd)["fine"].ravel() - 7 for _ in range(20)])
    assert has_scale(many, 1e6 * 2**10), "a unit is 2^10 steps of the grid"


# -- what noise costs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rho", [1e-9, 1e-3, 0.2242, 1.0, 40.0])
@pytest.mark.parametrize("shares", [(1.0,), (0.8, 0.2), (1.0, 1.0, 1.0), (1e-3, 5.0)])
def test_scales_and_spent_are_each_other_s_inverse(rho: float, shares: tuple[float, ...]) -> None:
    fields = {f"f{i}": Field((3,), "", 9.0, 0.5 + i, share=s) for i, s in enumerate(shares)}
    sd = noise.scales(fields, Loss(rho))
    assert noise.spent(fields, sd).rho == pytest.approx(rho, rel=1e-12, abs=0)
    for name, f in fields.items():
        alone = noise.spent({name: f}, sd).rho
        assert alone == pytest.approx(rho * f.share / sum(shares), rel=1e-12)
        assert noise.scales({name: f}, Loss(alone))[name] == pytest.approx(sd[name], rel=1e-12)


def test_the_scale_follows_the_sensitivity_after_rounding() -> None:
    """rho = D^2 / (2 sigma^2), with D and sigma in one unit."""
    fields = {"a": Field((4,), "", 4.0, 2.0, fraction_bits=12)}
    assert noise.scales(fields, Loss(0.125)) == {"a": 4.0}


METHODS = [(0.0066, 0.5), (0.0244, 1.0), (0.185, 3.0), (0.5, 5.22), (1.0, 7.77), (1.54, 10.0)]
"""zCDP loss and the epsilon that it implies at delta = 10^-6."""


@pytest.mark.parametrize(("rho", "epsilon"), METHODS)
def test_conversion_gives_the_published_numbers(rho: float, epsilon: float) -> None:
    assert epsilon_of(rho, 1e-6) == pytest.approx(epsilon, rel=0.006)
    assert rho_of(epsilon, 1e-6) == pytest.approx(rho, rel=0.008)


LOSSES = [1e-6, 1e-3, 0.0305, 0.2242, 1.0, 8.0]
DELTAS = [1e-9, 1e-6, 1e-5, 1e-3]


@pytest.mark.parametrize("delta", DELTAS)
@pytest.mark.parametrize("rho", LOSSES)
def test_conversion_agrees_with_an_independent_accountant(rho: float, delta: float) -> None:
    """Renyi accounting of the Gaussian mechanism of that loss, over a fine grid of orders: never below ours, which
    takes the best order, and above it by the grid's coarseness only."""
    orders = 1 + np.exp(np.linspace(-5, 14, 4000))
    accountant = RdpAccountant(orders.tolist())
    accountant.compose(GaussianDpEvent(1 / math.sqrt(2 * rho)))
    theirs, ours = accountant.get_epsilon(delta), epsilon_of(rho, delta)
    assert ours <= theirs * (1 + 1e-9)
    assert ours >= theirs * (1 - 1e-3)


@pytest.mark.parametrize("rho", [0.01, 0.2242, 1.0])
def test_the_stated_epsilon_is_an_upper_bound_for_the_discrete_gaussian(rho: float) -> None:
    """The exact privacy loss distribution of the mechanism lies below what we state, and not far below."""
    sigma = 1 / math.sqrt(2 * rho)
    exact = from_discrete_gaussian_mechanism(sigma, sensitivity=1).get_epsilon_for_delta(1e-6)
    stated = epsilon_of(rho, 1e-6)
    assert exact <= stated <= 1.6 * exact + 0.1


def test_losses_add_as_composition_does() -> None:
    accountant = RdpAccountant((1 + np.exp(np.linspace(-5, 9, 3000))).tolist())
    accountant.compose(SelfComposedDpEvent(GaussianDpEvent(1 / math.sqrt(2 * 0.02)), 11))
    total = Loss(0.0)
    for _ in range(11):
        total += Loss(0.02)
    assert total.rho == pytest.approx(0.22)
    assert total.epsilon(1e-5) == pytest.approx(accountant.get_epsilon(1e-5), rel=1e-3)


@pytest.mark.parametrize("delta", DELTAS)
@pytest.mark.parametrize("epsilon", [1e-6, 1e-3, 0.1, 0.5, 1.0, 3.0, 10.0, 100.0])
def test_a_budget_is_used_up_and_never_exceeded(epsilon: float, delta: float) -> None:
    loss = Budget(epsilon, delta).loss
    assert epsilon * (1 - 1e-6) <= loss.epsilon(delta) <= epsilon
    assert Loss(loss.rho * (1 + 1e-6)).epsilon(delta) > epsilon


def test_more_loss_is_more_epsilon_and_none_is_none() -> None:
    rhos = np.geomspace(1e-9, 50, 200)
    epsilons = [epsilon_of(float(r), 1e-5) for r in rhos]
    assert all(a < b for a, b in itertools.pairwise(epsilons))
    assert epsilon_of(0.0, 1e-5) == 0.0


@pytest.mark.parametrize(
    ("epsilon", "delta"),
    [
        (0, 1e-5),
        (9e-7, 1e-5),
        (-1, 1e-5),
        (101, 1e-5),
        (math.nan, 1e-5),
        (math.inf, 1e-5),
        (1, 0),
        (1, 2e-3),
        (1, math.nan),
    ],
)
def test_a_budget_that_promises_nothing_is_refused(epsilon: float, delta: float) -> None:
    with pytest.raises(ValueError, match=r"must be (above 0|from)"):
        Budget(epsilon, delta)


@pytest.mark.parametrize("rho", [-1e-9, math.nan, math.inf])
def test_a_loss_is_a_number(rho: float) -> None:
    with pytest.raises(ValueError, match="A loss is a finite number"):
        Loss(rho)


def test_stacked_losses_are_what_the_unluckiest_person_pays() -> None:
    rng = np.random.default_rng(3)
    for _ in range(300):
        ends = np.sort(rng.integers(0, 9, (rng.integers(1, 7), 2)), axis=1) / 8
        spends = [(float(a), float(b), float(f)) for (a, b), f in zip(ends, rng.random(len(ends)), strict=True)]
        people = (np.arange(8) + 0.5) / 8
        paid = [sum(f for a, b, f in spends if a <= person < b) for person in people]
        assert stacked(spends) == pytest.approx(max(paid), abs=1e-12)
    assert stacked([]) == 0


# -- pure epsilon ------------------------------------------------------------------------------------------------------


def renyi(one: NDArray[np.float64], other: NDArray[np.float64], order: float) -> float:
    """The divergence of two laws given by the logarithms of their probabilities."""
    return float(special.logsumexp(order * one + (1 - order) * other)) / (order - 1)


ORDERS = 1 + np.geomspace(1e-2, 1e3, 40)


@pytest.mark.parametrize("l1", [1, 2, 5, 40])
@pytest.mark.parametrize("scale", [0.3, 1.0, 4.0, 60.0])
def test_the_loss_of_laplace_noise_is_the_least_that_bounds_every_renyi_divergence(l1: int, scale: float) -> None:
    field = Field((), "", l1 / 8, l1 / 8, fraction_bits=3)
    reach = math.ceil(50 * scale) + l1
    x = np.arange(-reach, reach + l1 + 1).astype(np.float64)
    here, there = (-np.abs(x - at) / scale for at in (0, l1))
    here, there = here - special.logsumexp(here), there - special.logsumexp(there)
    rho = noise.laplace_loss(field, scale / 8).rho
    rates = [renyi(here, there, order) / order for order in ORDERS]
    limit = float(np.exp(here) @ (here - there))  # at order 1
    assert limit == pytest.approx(rho, rel=1e-9)
    assert max(rates) <= rho
    epsilon = l1 / scale
    assert rho <= epsilon**2 / 2
    assert np.abs(here - there).max() == pytest.approx(epsilon), "and its release is epsilon-DP"
    assert noise.laplace_scale(field, epsilon) == pytest.approx(scale / 8)
    for part in range(1, l1):  # a person who changes two entries by l1 together loses no more
        both = [noise.laplace_loss(replace(field, l1=p / 8), scale / 8).rho for p in (part, l1 - part)]
        assert sum(both) <= rho * (1 + 1e-12)


def test_very_narrow_laplace_noise_costs_epsilon() -> None:
    assert noise.laplace_loss(Field((), "", 1, 1), 1e-4).rho == pytest.approx(1e4)


def test_no_analysis_gains_by_laplace_noise() -> None:
    """At the loss of a typical count, the Gaussian's deviation is smaller."""
    count = Field((), "people", 1.0, 1.0)
    sd = noise.scales({"n": count}, Loss(0.03))["n"]
    scale = brentq(lambda t: noise.laplace_loss(count, t).rho - 0.03, 0.5, 50)
    assert math.sqrt(2) * scale == pytest.approx(1.4 * sd, rel=0.02)


# -- sensitivity after rounding ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("entries", [1, 7, 400])
@pytest.mark.parametrize("bits", [0, 4, 16])
def test_rounding_lengthens_by_what_is_declared_and_no_more(entries: int, bits: int) -> None:
    field = Field((entries,), "", 1, 1, fraction_bits=bits)
    rng = np.random.default_rng(2)
    reached = 0.0
    for scale in (0.3, 1.0, 50.0):
        halves = np.full(entries, (np.floor(scale) + 0.5 + 1e-9) * 2.0**-bits)  # each entry rounds up by a half
        for contribution in (halves, -halves, *rng.normal(0, scale * 2.0**-bits, (50, entries))):
            length = float(np.linalg.norm(contribution))
            on_grid = float(np.linalg.norm(field.values(field.integers(contribution))))
            bound = after_rounding(length, entries, bits)
            assert on_grid <= bound * (1 + 1e-12)
            reached = max(reached, (on_grid - length) / (bound - length))
    assert reached > 0.99, "and a contribution is lengthened so much"


# -- the private frequencies -------------------------------------------------------------------------------------------

QUESTION = NoisedFrequency("panel")
PRIVATE = Budget(3.0, 1e-5)
RELEASES = 2000


def release(summary: dict[str, NDArray[np.int64]], frame: Frame, stated: float = 1.0) -> Answer:
    """What the gate and the coordinator do with a site's summary; `stated` falsifies the noise that is stated."""
    fields = QUESTION.leaves(frame)
    sd = noise.scales(fields, PRIVATE.loss)
    noised = noise.add_noise(summary, fields, sd)
    answer = QUESTION.conclude(Total(noised, ("FI",), {name: s * stated for name, s in sd.items()}), frame)
    assert isinstance(answer, Answer)
    return answer


@pytest.fixture(scope="module")
def finland() -> tuple[dict[str, NDArray[np.int64]], Frame, NDArray[np.float64]]:
    """The demo's FI site: its summary of the twelve public variants, and its true AC."""
    panel = Panel.read(TWELVE, "GRCh37")
    config = DatasetConfig("FI", "GRCh37", "FI/people.tsv", "FI/genotypes.pgen")
    frame = Frame(panel)
    cohort = Dataset.open(config, EUROPE).cohort(QUESTION.needs(), frame)
    assert cohort.genotypes is not None
    codes = cohort.genotypes.codes()
    true = np.where(codes == 3, 0, codes).sum(axis=1)
    assert (len(cohort), len(panel)) == (92, 12)
    return dict(QUESTION.summarise(cohort, frame)), frame, true


def test_errors_of_released_counts_have_the_stated_deviation(
    finland: tuple[dict[str, NDArray[np.int64]], Frame, NDArray[np.float64]],
) -> None:
    summary, frame, true = finland
    errors, people, stated = [], [], None
    for _ in range(RELEASES):
        answer = release(summary, frame)
        table = answer.tables["frequencies"]
        errors.append(np.asarray(table["ac"]) - true)
        people.append(float(answer.facts["people"]) - 92)
        sds = np.append(np.asarray(table["ac_noise_sd"]), float(answer.facts["people_noise_sd"]))
        assert stated is None or np.array_equal(stated, sds), "the stated deviation is public: no release changes it"
        stated = sds
    assert stated is not None
    columns = np.column_stack([np.stack(errors), people])
    low, high = (stats.chi2.ppf(q, RELEASES) / RELEASES for q in (FALSE_ALARM, 1 - FALSE_ALARM))
    assert (2 / 3) ** 2 < low < high < (3 / 2) ** 2, "the interval rejects two thirds and three halves"
    ratios = (columns**2).mean(axis=0) / stated**2
    assert np.all((low < ratios) & (ratios < high)), ratios
    bias = np.abs(columns.mean(axis=0))
    assert np.all(bias < DEVIATIONS * stated / math.sqrt(RELEASES))


def coverage(stated: float, shift: float, missing: float = 0.0, people: int = 92, releases: int = RELEASES) -> float:
    """How often the 95 % interval holds the frequency of the population from which people are drawn anew each time."""
    panel = Panel.read(TWELVE, "GRCh37")
    frame = Frame(panel)
    truth = np.clip(panel.frequencies + shift * np.where(np.arange(12) % 2, 1, -1), 0.05, 0.95)
    rng = np.random.default_rng(11)
    covered = 0
    for _ in range(releases):
        codes = rng.binomial(2, truth[:, None], (12, people)).astype(np.uint8)
        codes[rng.random(codes.shape) < missing] = MISSING
        summary = QUESTION.summarise(Cohort(people, Genotypes.pack(codes)), frame)
        table = release(dict(summary), frame, stated).tables["frequencies"]
        covered += int(((np.asarray(table["low_95"]) <= truth) & (truth <= np.asarray(table["high_95"]))).sum())
    return covered / (12 * releases)


@pytest.mark.parametrize(("shift", "missing"), [(0.0, 0.0), (0.15, 0.05), (0.4, 0.2)])
def test_the_interval_covers_the_population_s_frequency(shift: float, missing: float) -> None:
    # Twelve answers of one release share the noise in the number of people; were they one, the error would be 0.5 %.
    # 24,000 answers as good as independent deviate by 4.9 standard errors, 0.7 %, once in a million.
    covered = coverage(1.0, shift, missing)
    print(f"shift {shift}, {missing:.0%} missing: 95 % intervals covered {covered:.4f}")
    assert 0.943 <= covered <= 0.97


def test_an_interval_that_states_less_or_more_noise_than_there_is_is_seen() -> None:
    assert coverage(2 / 3, 0.0, releases=700) < 0.93
    assert coverage(3 / 2, 0.0, releases=700) > 0.97


def test_released_counts_of_a_whole_federation_have_the_stated_deviation(tiny: Tiny, quick_path: Path) -> None:
    """Through study, gate, sealing and coordinator: 40 questions at 4 sites, 50 variants each."""
    small = Budget(0.5, 1e-5)
    questions = tuple(replace(FREQUENCIES, name=f"q{i}", budget=small, by_site=True) for i in range(40))
    p = np.rint(2 * PANEL.frequencies * 2**10) / 2**11  # the centre lies on the grid
    alternate, people, together = [], [], []
    for result in tiny.conductor(study(*questions), quick_path / "run").run():
        assert set(result.by_site) == set(NAMES)
        sd = result.statement.noise
        assert noise.spent(QUESTION.leaves(Frame(PANEL)), sd).rho == pytest.approx(small.loss.rho)
        summed, everybody = np.zeros(len(p)), np.zeros(len(p))
        for site, answer in result.by_site.items():
            codes = genotypes(site)
            true = np.where(codes == 3, 0, codes).sum(axis=1)
            summed += true
            # Taking the noised genotypes' share off again leaves the noise of the alternate counts alone.
            table, n = answer.tables["frequencies"], float(answer.facts["people"])
            called = (codes != 3).sum(axis=1)
            everybody += called
            alternate.append(
                (np.asarray(table["ac"]) - true - p * (np.asarray(table["an"]) - 2 * called)) / sd["alternate"]
            )
            people.append((n - PEOPLE) / sd["people"])
        table = result.answer.tables["frequencies"]
        off = np.asarray(table["ac"]) - summed - p * (np.asarray(table["an"]) - 2 * everybody)
        together.append(off / (sd["alternate"] * len(NAMES) ** 0.5))
    for errors in (np.concatenate(alternate), np.concatenate(together), np.array(people)):
        low, high = (stats.chi2.ppf(q, len(errors)) / len(errors) for q in (FALSE_ALARM, 1 - FALSE_ALARM))
        assert low < (errors**2).mean() < high, len(errors)
    pooled = stats.chi2.ppf([FALSE_ALARM, 1 - FALSE_ALARM], 40 * 50) / (40 * 50)
    assert pooled[0] > (2 / 3) ** 2
    assert pooled[1] < (3 / 2) ** 2

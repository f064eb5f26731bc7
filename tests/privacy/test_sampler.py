"""Draws follow their law: the tables to the last of 320 bits, and what comes out of either sampler.

Draws come from the operating system's generator and cannot be seeded. Each statistical test accepts the truth but with
a probability below 10^-9, and rejects a scale of 2/3 and of 3/2 with one that is as small.
"""

from __future__ import annotations

import ast
import itertools
import math
import os
import random
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal, localcontext
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from strategies import privacy
from strategies.privacy import Budget, rho_of
from strategies.protections import noise, sampler
from strategies.protections.sampler import BITS, DISTANCE, Law, Table, delta_of_sampling, exponential

FALSE_ALARM = 1e-12
DEVIATIONS = float(stats.norm.isf(FALSE_ALARM / 2))
ONE = Decimal(2**BITS)

Draw = Callable[[float, int], NDArray[np.int64]]


def few_at_a_time(draw: Draw) -> Draw:
    """The exact sampler that few draws come from, asked again and again."""

    def drawn(scale: float, size: int) -> NDArray[np.int64]:
        return np.concatenate([draw(scale, min(noise.FEW, size - at)) for at in range(0, size, noise.FEW)])

    return drawn


LAWS: dict[str, tuple[Callable[[float], Law], Draw, Callable[[NDArray[np.float64], float], NDArray[np.float64]]]] = {
    "gaussian": (Law.gaussian, noise.discrete_gaussian, lambda x, scale: x**2 / (2 * scale**2)),
    "laplace": (Law.laplace, noise.discrete_laplace, lambda x, scale: np.abs(x) / scale),
}
SCALES = [0.3, 0.8, 1.0, 3.3, 10.0, 127.9, 128.0, 1000.0, 1e4]
LARGE = [2.0**20, 3e9, 2.0**40, noise.MOST_SCALE]


# -- exactly, without a draw -------------------------------------------------------------------------------------------


def exactly(law: Law, magnitude: int) -> Decimal:
    """exp(-E(magnitude)) to 200 digits: Python's decimal arithmetic, no recurrence."""
    exponent = law.quadratic * magnitude**2 + law.linear * magnitude
    return (-Decimal(exponent.numerator) / Decimal(exponent.denominator)).exp()


@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize("scale", [0.05, 0.3, 3.3, 15.99, 127.99, 8500.0, noise.MOST_SCALE])
def test_a_table_is_its_law_but_for_the_stated_distance(name: str, scale: float) -> None:
    law = LAWS[name][0](scale)
    table = Table.of(law)
    with localcontext() as context:
        context.prec = 200
        weights = [exactly(law, q << law.cell_bits) for q in range(len(table.ends) + 1)]
        ratio = exactly(law, (len(table.ends) + 1) << law.cell_bits) / weights[-1] if weights[-1] else Decimal(0)
        beyond = weights.pop() / (1 - ratio)  # what falls faster than a geometric series is less than it
        total = sum(weights)
        ends = [0, *table.ends]
        held = [Decimal(b - a) / ONE for a, b in itertools.pairwise(ends)]
        off = sum(abs(h - w / total) for h, w in zip(held, weights, strict=True)) / 2 + beyond / (total + beyond)
        assert off <= (len(held) + 1) / ONE
        assert 4 * (len(held) + 4) / ONE <= Decimal(DISTANCE)
    assert table.ends[-1] == 2**BITS
    assert sorted(table.ends) == list(table.ends)


@pytest.mark.parametrize(
    "law",
    [Law(Fraction(1, 18), Fraction(0), 2), Law(Fraction(0), Fraction(1, 5), 3), Law(Fraction(1, 2), Fraction(0), 0)],
)
def test_cell_rest_rejection_and_sign_together_are_the_law(law: Law) -> None:
    """Every outcome of a proposal, with the probability that the tables and thresholds give it."""
    table = Table.of(law)
    outcomes: dict[int, Decimal] = {}
    cell = 1 << law.cell_bits
    with localcontext() as context:
        context.prec = 200
        for q, (start, end) in enumerate(zip((0, *table.ends), table.ends, strict=False)):
            for r in range(cell):
                rise = r * (law.quadratic * (2 * q * cell + r) + law.linear)
                chance = Decimal(end - start) / ONE / cell / 2 * Decimal(exponential(rise, BITS)) / ONE
                for x in {q * cell + r, -(q * cell + r)}:  # a zero once: the negative one is thrown away
                    outcomes[x] = chance
        kept = sum(outcomes.values())
        assert kept >= Decimal("0.5")
        total = 2 * sum(exactly(law, a) for a in range(1, max(outcomes) + 400)) + 1
        off = sum(abs(p / kept - exactly(law, abs(x)) / total) for x, p in outcomes.items()) / 2
        assert off <= Decimal(DISTANCE)
        assert off > 0


def test_the_exponential_is_right_to_its_last_bits() -> None:
    exponents = [
        Fraction(0),
        Fraction(1, 10**30),
        Fraction(220),
        Fraction(10**9),
        *(Fraction(k, 37) for k in range(400)),
    ]
    with localcontext() as context:
        context.prec = 200
        for exponent in exponents:
            true = (-Decimal(exponent.numerator) / Decimal(exponent.denominator)).exp() * ONE
            assert abs(exponential(exponent, BITS) - true) < 2


@pytest.mark.parametrize("low", [b"\0", b"\xff", b"\x5a"])
@pytest.mark.parametrize("scale", [0.3, 3.3, 100.0])
def test_a_word_that_ties_is_decided_by_all_its_bits(scale: float, low: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against integers of 320 bits, for the words on both sides of each entry; also where many entries share one word,
    in the tail that 64 bits cannot tell apart."""
    table = Table.of(Law.gaussian(scale))
    tops = sorted({int(t) for t in table.tops})
    near = sorted({w for t in (0, *tops) for w in (t - 1, t, t + 1) if 0 <= w < 2**64})
    monkeypatch.setattr(os, "urandom", lambda n: low * n)
    got = table.cells(np.array(near, dtype=np.uint64))
    for word, cell in zip(near, got, strict=True):
        whole = (word << (BITS - 64)) + int.from_bytes(low * 32, "big")
        assert cell == sum(end <= whole for end in table.ends)
    assert len(tops) < len(table.ends), "the tail shares a word"
    last = int(got[-1])
    assert (last == len(table.ends) - 1) == (low == b"\xff"), "the last cell takes all the bits there are"
    assert last >= 9 * scale - 1


def test_what_rounding_could_decide_is_decided_in_integers() -> None:
    """Words on both sides of the threshold of step 3, nearer than floating point tells apart."""
    table = Table.of(Law.gaussian(1e6))
    rng = np.random.default_rng(5)
    cells, low = rng.integers(0, 900, 300), rng.integers(1, 1 << table.law.cell_bits, 300)
    for step in (-1, 1):
        words = []
        for q, r in zip(cells.tolist(), low.tolist(), strict=True):
            rise = r * table.law.quadratic * (2 * (q << table.law.cell_bits) + r)
            words.append((exponential(rise, BITS) >> (BITS - 64)) + step)
        assert np.all(table.keep(cells, low, np.array(words, dtype=np.uint64)) == (step < 0))
        assert sum(float(w) == float(w - 2 * step) for w in words) > 200, "floats are the same on both sides"


def test_delta_pays_for_the_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """M is (epsilon, delta)-DP and each of its two outputs is within eta: P'(A) <= e^epsilon Q'(A) + delta + (1 +
    e^epsilon) eta."""
    assert delta_of_sampling(10**6, 3.0) == pytest.approx(10**6 * DISTANCE * (1 + math.e**3), rel=1e-12, abs=0)
    assert delta_of_sampling(privacy.MOST_DRAWS, 100.0) < 1e-5 * privacy.LEAST_DELTA
    monkeypatch.setattr(privacy, "delta_of_sampling", lambda draws, epsilon: 4e-6 if draws == 2**40 else 0.0)
    assert Budget(2.0, 1e-5).loss.rho == rho_of(2.0, 6e-6)


# -- what comes out ----------------------------------------------------------------------------------------------------


def probabilities(name: str, scale: float) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The law by its definition, to 40 scales."""
    reach = math.ceil(40 * scale) + 1
    x = np.arange(-reach, reach + 1)
    weight = np.exp(-LAWS[name][2](x.astype(np.float64), scale))
    return x, weight / weight.sum()


def fits(draws: NDArray[np.int64], name: str, scale: float) -> bool:
    """Chi-square over about fifty cells of like probability; a cell that expects fewer than 20 draws has an exact
    binomial test of its own. The 30 is for cells of 20, whose tail is heavier than the normal's."""
    x, p = probabilities(name, scale)
    label = np.floor((np.cumsum(p) - p / 2) * 50).astype(np.int64).clip(0, 49)
    expected = np.bincount(label, p, 50) * len(draws)
    observed = np.bincount(label[np.clip(draws, x[0], x[-1]) - x[0]], minlength=50)
    many, none = expected >= 20, expected == 0
    for seen, share in zip(observed[~many & ~none], expected[~many & ~none] / len(draws), strict=True):
        if 2 * min(stats.binom.cdf(seen, len(draws), share), stats.binom.sf(seen - 1, len(draws), share)) < FALSE_ALARM:
            return False
    statistic = float(((observed[many] - expected[many]) ** 2 / expected[many]).sum())
    return statistic <= stats.chi2.isf(FALSE_ALARM, max(1, int(many.sum()) - 1)) + 30


def moments(name: str, scale: float) -> tuple[float, float]:
    """The law's second and fourth moment."""
    if scale >= 50:  # to within 1 / scale^2
        return (scale**2, 3 * scale**4) if name == "gaussian" else (2 * scale**2, 24 * scale**4)
    x, p = probabilities(name, scale)
    return float(p @ x**2), float(p @ x.astype(np.float64) ** 4)


def has_scale(draws: NDArray[np.int64], name: str, scale: float) -> bool:
    """Whether the mean square is the law's, within its sampling error and what `moments` leaves out."""
    second, fourth = moments(name, scale)
    error = math.sqrt((fourth - second**2) / len(draws))
    return abs(float((draws.astype(np.float64) ** 2).mean()) - second) <= DEVIATIONS * error + (scale >= 50)


@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize("scale", SCALES)
def test_chi_square_accepts_the_scale_and_rejects_two_thirds_and_three_halves(name: str, scale: float) -> None:
    draw = LAWS[name][1]
    draws = draw(scale, 60_000)
    assert (draws.dtype, draws.shape) == (np.int64, (60_000,))
    assert fits(draws, name, scale)
    for wrong in (2 / 3, 3 / 2):
        assert not fits(draws, name, scale * wrong)
        assert not fits(draw(scale * wrong, 60_000), name, scale)
    if scale >= 1:  # of the same variance, another law
        other = "laplace" if name == "gaussian" else "gaussian"
        assert not fits(draws, other, math.sqrt(moments(name, scale)[0]) / (2**0.5 if other == "laplace" else 1))


@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize("cell_bits", [1, 2, 5])
def test_any_cut_into_cells_gives_the_law(name: str, cell_bits: int) -> None:
    """Coarser cells than any that is used: at 2^5 and a scale of 20 every third proposal is thrown away."""
    table = Table.of(replace(LAWS[name][0](20.0), cell_bits=cell_bits))
    draws = table.draw(60_000)
    assert fits(draws, name, 20.0)
    assert not fits(draws, name, 20.0 * 2 / 3)


@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize("scale", [0.3, 1.0, 10.0, 1e4])
def test_chi_square_says_the_same_of_the_sampler_of_few_draws(name: str, scale: float) -> None:
    draws = few_at_a_time(LAWS[name][1])(scale, 12_000 if scale < 1 else 5000)
    assert fits(draws, name, scale)
    assert not fits(draws, name, scale * 2 / 3)
    assert not fits(draws, name, scale * 3 / 2)


@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize(("scale", "exact"), [*((s, False) for s in SCALES + LARGE), *((s, True) for s in LARGE)])
def test_moments_are_the_law_s(name: str, scale: float, exact: bool) -> None:
    draw = LAWS[name][1]
    draws = few_at_a_time(draw)(scale, 3000) if exact else draw(scale, 60_000)
    assert has_scale(draws, name, scale)
    assert not has_scale(draws, name, scale * 2 / 3)
    assert not has_scale(draws, name, scale * 3 / 2)
    assert abs(draws.mean()) <= DEVIATIONS * math.sqrt(moments(name, scale)[0] / len(draws))


@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize("scale", LARGE)
def test_large_noise_has_its_law_and_even_low_bits(name: str, scale: float) -> None:
    draws = LAWS[name][1](scale, 60_000)
    law = stats.norm if name == "gaussian" else stats.laplace
    for factor in (1.0, 2 / 3, 3 / 2):
        cells = np.bincount((law.cdf(draws / (scale * factor)) * 50).astype(np.int64).clip(0, 49), minlength=50)
        statistic = ((cells - 1200) ** 2 / 1200).sum()
        assert (statistic <= stats.chi2.isf(FALSE_ALARM, 49) + 30) == (factor == 1.0)
    low = np.bincount(draws & 31, minlength=32)
    assert ((low - 1875) ** 2 / 1875).sum() <= stats.chi2.isf(FALSE_ALARM, 31) + 30
    assert scale < 2**40 or len(np.unique(draws)) == len(draws), "not cut off at a type's ends"


@pytest.mark.parametrize("draw", [noise.discrete_gaussian, noise.discrete_laplace])
def test_sizes_and_scales_that_are_refused(draw: Draw) -> None:
    for size in (0, 1, noise.FEW, noise.FEW + 1, 70_000):
        assert draw(3.0, size).shape == (size,)
    for scale in (0.0, -1.0, math.nan, math.inf, noise.MOST_SCALE * 1.001):
        for size in (3, 3000):
            with pytest.raises(ValueError, match=r"The scale of noise is above 0 and at most 2\^52, got"):
                draw(scale, size)
    assert not draw(1e-300, 3000).any(), "noise that narrow is none, and no error"


# -- where it comes from -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("draw", [noise.discrete_gaussian, noise.discrete_laplace])
@pytest.mark.parametrize("size", [200, 4000])
def test_no_seed_repeats_a_draw(draw: Draw, size: int) -> None:
    streams = []
    for _ in range(2):
        random.seed(1)
        np.random.seed(1)
        streams.append(draw(1e15, size))
    assert not np.any(streams[0] == streams[1])  # 4000 pairs, each equal with a probability of 3e-16


def test_a_table_s_words_are_keyed_by_the_operating_system(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def known(n: int) -> bytes:
        asked.append(n)
        return bytes(range(n))

    monkeypatch.setattr(os, "urandom", known)
    one, other = noise.discrete_gaussian(1e9, 70_000), noise.discrete_gaussian(1e9, 70_000)
    assert asked[0] == 32
    assert np.array_equal(one, other), "nothing but the key decides"
    assert len(np.unique(one)) > 69_000, "and the stream does not start again from tile to tile"


def test_no_other_generator_is_near() -> None:
    for module in (noise, sampler):
        tree = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))
        names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        imported = {a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names}
        assert not (names | imported) & {"random", "default_rng", "normal", "secrets", "torch"}


def test_streams_are_independent() -> None:
    draws = [noise.discrete_gaussian(50.0, 100_000) for _ in range(3)]
    columns = [*draws, np.roll(draws[0], 1), np.roll(draws[0], 65_536)]
    for values in (np.stack(columns).astype(np.float64), np.stack(columns).astype(np.float64) ** 2):
        correlations = np.corrcoef(values)[np.triu_indices(5, 1)]
        assert np.abs(correlations).max() <= DEVIATIONS / math.sqrt(100_000)

"""Clipping holds every row within the norm exactly, bends nothing else, and makes rare variants worth asking for."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from numpy.typing import NDArray

from strategies.analyses.allele_frequency import NoisedFrequency, expected_clipped
from strategies.analysis import Answer, Frame, Total
from strategies.cohort import MISSING, Cohort, Genotypes
from strategies.learning.train import INPUT_BITS, Shapes, clipped_gradients, on_grid
from strategies.privacy import Budget, Loss
from strategies.protections import noise
from strategies.protections.clipping import KEPT_BITS, clip_rows, factors
from strategies.variants import Panel, Variant

RNG = np.random.default_rng(20)


def rows(number: int) -> NDArray[np.int64]:
    """Integer rows of every length: zero, one entry, all alike, at random, far beyond any norm."""
    out = [np.zeros(7), np.eye(7)[3], *(np.full(7, 10**k) for k in range(7)), *(np.eye(7)[0] * 10**k for k in range(9))]
    out += [RNG.normal(0, 10.0 ** RNG.uniform(0, 7), 7) for _ in range(number)]
    return np.rint(np.stack(out)).astype(np.int64)


@pytest.mark.parametrize("norm", [0.75, 1.0, 5.0, 1000.0, 1e6, math.sqrt(7) * 1e3])
def test_no_clipped_row_is_longer_than_the_norm_and_short_ones_stay(norm: float) -> None:
    before = rows(500)
    after = clip_rows(before, norm)
    bound = Fraction(norm) ** 2 * 4**KEPT_BITS
    shortened = 0
    for old, new in zip(before.tolist(), after.tolist(), strict=True):
        length = math.sqrt(sum(x * x for x in old))
        assert sum(x * x for x in new) <= bound
        if length < norm * (1 - 1e-6):
            assert new == [x << KEPT_BITS for x in old]
        else:
            shortened += 1
            lost = norm - math.sqrt(sum(x * x for x in new)) / 2**KEPT_BITS
            assert lost <= length / 2**KEPT_BITS + 1e-9 * norm  # no more than the grid of the kept part
            assert all(a * old[0] == b * new[0] for a, b in zip(new, old, strict=True))  # the direction stays
    assert 0 < shortened < len(before)


def test_a_row_is_clipped_by_itself() -> None:
    before = rows(50)
    whole = clip_rows(before, 30.0)
    for i in range(len(before)):
        assert np.array_equal(clip_rows(before[i : i + 1], 30.0)[0], whole[i])


def test_a_factor_never_lifts_a_length_above_the_norm() -> None:
    lengths = np.concatenate(
        [10.0 ** RNG.uniform(-300, 300, 5000), [0.0, 5e-324, 1.0, np.nextafter(1, 2), np.inf, np.nan]]
    )
    for norm in (0.01, 1.0, 100.0):
        found = factors(lengths, norm)
        finite = np.isfinite(lengths)
        assert (found[finite] * lengths[finite] <= norm).all()
        assert (found[lengths < norm * (1 - 1e-6)] == 1).all()
        assert not found[~finite].any()


@pytest.mark.parametrize("hidden", [0, 4])
def test_training_clips_by_the_same_law(hidden: int) -> None:
    shapes = Shapes(5, hidden)
    weights = on_grid(RNG.uniform(-64, 64, shapes.parameters), 16)
    x = on_grid(RNG.uniform(-4, 4, (300, 5)), INPUT_BITS)
    y = RNG.integers(0, 2, 300).astype(float)
    for most in (0.01, 1.0, 7.0):
        lengths = np.linalg.norm(clipped_gradients(shapes, weights, x, y, most), axis=1)
        plain = np.linalg.norm(clipped_gradients(shapes, weights, x, y, 1e9), axis=1)
        assert (lengths <= most).all()
        assert lengths == pytest.approx(np.minimum(plain, most), rel=1e-8)


# -- clipped frequencies -----------------------------------------------------------------------------------------------


def frame_of(frequencies: NDArray[np.float64]) -> Frame:
    return Frame(
        Panel("GRCh37", tuple(Variant("1", 1 + j, "x", "A", "C", float(f)) for j, f in enumerate(frequencies)))
    )


def drawn(rng: np.random.Generator, p: NDArray[np.float64], people: int, missing: float = 0.0) -> NDArray[np.uint8]:
    codes = rng.binomial(2, p[:, None] if p.ndim == 1 else p, (len(p), people)).astype(np.uint8)
    codes[rng.random(codes.shape) < missing] = MISSING
    return codes


def released(question: NoisedFrequency, codes: NDArray[np.uint8], frame: Frame, rho: float) -> Answer:
    """What gate and coordinator make of a site's people."""
    fields = question.leaves(frame)
    sds = noise.scales(fields, Loss(rho))
    noised = noise.add_noise(question.summarise(Cohort(codes.shape[1], Genotypes.pack(codes)), frame), fields, sds)
    answer = question.conclude(Total(noised, ("a",), sds), frame)
    assert isinstance(answer, Answer)
    return answer


def test_a_clipped_sum_is_the_sum_of_clipped_people() -> None:
    """Against the definition, one person after the other, in fractions."""
    rng = np.random.default_rng(1)
    p = np.array([0.5, 0.125, 0.75, 0.0, 1.0, 0.25])  # multiples of 2^-11: the centre is not rounded
    weights = [Fraction(max(32, round(1024 * math.sqrt(2 * f * (1 - f)))), 1024) for f in p.tolist()]
    frame, clip, part = frame_of(p), 1.77, 2**KEPT_BITS
    codes = rng.integers(0, 4, (len(p), 60)).astype(np.uint8)
    codes[:, :4] = np.arange(4)
    want, people = [[Fraction(0), Fraction(0)] for _ in p], Fraction(0)
    for i in range(codes.shape[1]):
        row = []
        for f, w, code in zip(map(Fraction, p.tolist()), weights, codes[:, i].tolist(), strict=True):
            row.append((Fraction(0), w) if code == MISSING else (code - 2 * f, Fraction(0)))
        length = math.sqrt(sum(a * a + b * b for a, b in row))
        keep = Fraction(min(part, math.floor(part * clip / length))) / part if length else Fraction(1)
        people += keep
        want = [[w[0] + keep * r[0], w[1] + keep * r[1]] for w, r in zip(want, row, strict=True)]
    question = NoisedFrequency("panel", clip)
    summary, fields = question.summarise(Cohort(60, Genotypes.pack(codes)), frame), question.leaves(frame)
    assert fields["alternate"].values(summary["alternate"]).tolist() == [[float(a), float(b)] for a, b in want]
    assert fields["people"].values(summary["people"]).tolist() == [float(people), float(60 - people)]


def test_clipping_makes_the_error_of_a_rare_panel_thirty_to_forty_times_smaller() -> None:
    """10,000 variants of 0.1 %: a person carries about 20 alleles, so her row is about 4.5 long and not 200."""
    rng, variants, people, clip = np.random.default_rng(2), 10_000, 1000, 5.5
    p = np.full(variants, 0.001)
    frame, codes = frame_of(p), drawn(rng, p, people)
    true = codes.sum(axis=1) / (2 * people)
    rho, error, facts = Budget(1.0, 1e-6).loss.rho, {}, {}
    for asked in (None, clip):
        answer = released(NoisedFrequency("panel", asked), codes, frame, rho)
        error[asked] = float(
            np.sqrt(np.mean((np.asarray(answer.tables["frequencies"]["ac"]) / (2 * people) - true) ** 2))
        )
        facts[asked] = answer.facts
    ratio = error[None] / error[clip]
    print(f"root mean square error of a frequency: {error[None]:.4f} unclipped, {error[clip]:.5f} clipped: {ratio:.1f}")
    # 20,000 draws of noise: the ratio deviates from 199.8 / 5.5 = 36.3 by 1 %, one standard error.
    assert 30 <= ratio <= 40
    lengths = np.sqrt(((codes - 0.002) ** 2).sum(axis=0))
    assert facts[clip]["clipped_expected"] == pytest.approx((lengths > clip).mean(), abs=0.02)


def test_the_interval_covers_rare_variants_whoever_is_cut() -> None:
    """A tenth of the people carry ten times as many alleles of every third variant, and those are cut most."""
    rng, variants, people, clip, releases = np.random.default_rng(3), 300, 4000, 4.0, 10
    published = np.full(variants, 0.01)
    own = published * rng.uniform(0.5, 2.0, variants)
    burdened = own * np.where(np.arange(variants) % 3, 1, 10)
    truth = 0.9 * own + 0.1 * burdened
    frame, question, covered = frame_of(published), NoisedFrequency("panel", clip), 0
    for _ in range(releases):
        who = rng.random(people) < 0.1
        codes = drawn(rng, np.where(who, burdened[:, None], own[:, None]), people, missing=0.05)
        answer = released(question, codes, frame, rho=2.0)
        table = answer.tables["frequencies"]
        covered += int(((np.asarray(table["low_95"]) <= truth) & (truth <= np.asarray(table["high_95"]))).sum())
    assert float(answer.facts["people_cut_away"]) > 100  # the case is worth its name
    share = covered / (releases * variants)
    print(f"95 % intervals of clipped rare variants covered {share:.4f}")
    assert share >= 0.95 - 4.9 * math.sqrt(0.05 * 0.95 / (releases * variants))  # once in a million


@pytest.mark.parametrize(("frequency", "variants", "clip"), [(0.001, 10_000, 5.0), (0.01, 500, 3.5), (0.5, 40, 4.5)])
def test_the_fraction_clipped_is_the_expected_one(frequency: float, variants: int, clip: float) -> None:
    p = np.full(variants, frequency)
    rng = np.random.default_rng(4)
    # How many of the variants are heterozygous and homozygous is enough: they are alike and independent.
    chances = [(1 - frequency) ** 2, 2 * frequency * (1 - frequency), frequency**2]
    squares = rng.multinomial(variants, chances, 20_000) @ (np.arange(3) - 2 * frequency) ** 2
    found = float((squares > clip**2).mean())
    assert 0.01 < found < 0.9
    assert expected_clipped(p, clip) == pytest.approx(found, abs=0.05 if variants < 100 else 0.025)


def test_everybody_or_nobody_is_clipped_at_the_ends() -> None:
    assert expected_clipped(np.zeros(5), 0.1) == 0
    assert expected_clipped(np.full(50, 0.5), 100.0) == pytest.approx(0, abs=1e-12)
    assert expected_clipped(np.full(50, 0.5), 0.1) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("clip", [0.0, 0.09, 10_001.0, math.nan, -1.0])
def test_a_clip_that_makes_no_sense_is_refused(clip: float) -> None:
    with pytest.raises(ValueError, match="clip must be from"):
        NoisedFrequency("panel", clip)


def test_a_clip_that_nobody_reaches_changes_nothing_but_the_grid() -> None:
    rng = np.random.default_rng(5)
    p = rng.uniform(0.1, 0.9, 20)
    frame, codes = frame_of(p), drawn(rng, p, 50, 0.1)
    people = Cohort(50, Genotypes.pack(codes))
    plain, wide = NoisedFrequency("panel"), NoisedFrequency("panel", 100.0)
    assert wide.leaves(frame)["alternate"].l2 == plain.leaves(frame)["alternate"].l2
    one, other = plain.summarise(people, frame), wide.summarise(people, frame)
    assert np.array_equal(one["alternate"][:, 0] << KEPT_BITS, other["alternate"][:, 0])
    answers = [q.conclude(Total(s, ("a",)), frame) for q, s in ((plain, one), (wide, other))]
    assert all(isinstance(answer, Answer) for answer in answers)
    for name in ("ac", "an", "frequency"):
        assert np.allclose(*(np.asarray(answer.tables["frequencies"][name]) for answer in answers), rtol=1e-12)
    assert other["people"].tolist() == [50 << KEPT_BITS, 0]

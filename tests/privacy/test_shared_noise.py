"""Noise that sites share: together they carry one noise, and what a sum of shares costs is bounded.

Statistical tests accept the truth but with a probability below 10^-9.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import special

from strategies.privacy import Loss
from strategies.protections import noise
from strategies.protections.sampler import Law, Table
from strategies.summary import MOST_INTEGER, Field
from tests.privacy.test_noise import has_scale


def summed(scale: float, sites: int) -> NDArray[np.float64]:
    """The exact law of a sum of discrete Gaussians, by convolution, to 12 deviations of the sum and beyond."""
    reach = math.ceil(13 * scale * math.sqrt(sites)) + 6
    x = np.arange(-reach, reach + 1)
    one = np.exp(-(x**2) / (2 * scale**2))
    law = one = one / one.sum()
    for _ in range(sites - 1):
        law = np.convolve(law, one)
    return np.log(law[law > 1e-290])


def divergence(law: NDArray[np.float64], moved: int, order: float) -> float:
    """Of the law and the law moved, over what both reach."""
    return float(special.logsumexp(order * law[moved:] + (1 - order) * law[: len(law) - moved])) / (order - 1)


@pytest.mark.parametrize("sites", [2, 3, 4, 7])
@pytest.mark.parametrize("share", [0.5, 0.6, 0.8, 1.0, 2.0, 5.0])
def test_no_divergence_of_a_sum_of_shares_exceeds_the_bound(share: float, sites: int) -> None:
    law = summed(share, sites)
    exceeds_without = False
    for moved in (1, 2, 3):
        plain, excess = moved / (math.sqrt(sites) * share), noise._excess(share, sites)
        for order in (1.01, 1.5, 2.0, 4.0):
            got = divergence(law, moved, order)
            assert got <= order / 2 * (plain + excess) ** 2 * (1 + 1e-9)
            exceeds_without |= got > order / 2 * plain**2 * (1 + 1e-9)
            if share >= 2:  # what is accounted is this bound, and here nothing but the Gaussian's
                field = Field((), "", moved, moved)
                rho = noise.spent_together({"a": field}, {"a": share}, sites).rho
                assert got <= order * rho * (1 + 1e-9)
                assert got >= order * rho * (1 - 1e-6)
    assert exceeds_without == (share <= 1), "narrow shares need tau, and shares of 2 do not"


def test_the_sum_of_tau_is_the_published_one() -> None:
    """tau = 10 sum_(k=1)^(n-1) exp(-2 pi^2 sigma^2 k / (k + 1)), by hand for three shares of 1/2."""
    assert noise._excess(0.5, 3) == pytest.approx(10 * (math.exp(-(math.pi**2) / 4) + math.exp(-(math.pi**2) / 3)))
    assert noise._excess(0.5, 1) == 0, "one share is a discrete Gaussian"
    assert noise._excess(noise.LEAST_SHARE, 10_000) < 1e-16
    many = Field((10**6,), "", 3.0, 3.0)
    moved, excess = 3 / (2 * 2), noise._excess(2.0, 4) * 1000
    added = noise.spent_together({"a": many}, {"a": 2.0}, 4).rho - moved**2 / 2
    assert added == pytest.approx(moved * excess, rel=0.01, abs=0)


@pytest.mark.parametrize("honest", [1, 2, 4, 26])
@pytest.mark.parametrize("rho", [1e-4, 0.0305, 0.2242])
def test_shares_of_the_honest_sites_cost_the_loss_and_no_more(rho: float, honest: int) -> None:
    fields = {
        "a": Field((200_000,), "", 90.0, 9.0, fraction_bits=10, share=0.8),
        "n": Field((), "", 1, 1, 6, share=0.2),
    }
    shares = noise.shares(fields, Loss(rho), honest)
    assert rho * (1 - 1e-9) <= noise.spent_together(fields, shares, honest).rho <= rho * (1 + 1e-12)
    for name, full in noise.scales(fields, Loss(rho)).items():
        assert honest * shares[name] ** 2 == pytest.approx(full**2, rel=1e-9)
    if honest > 1:  # were one of them to tell, it would cost more
        assert noise.spent_together(fields, shares, honest - 1).rho > rho * honest / (honest - 0.5)


def test_shares_are_widened_where_their_sum_is_not_yet_like_a_gaussian(monkeypatch: pytest.MonkeyPatch) -> None:
    """Below the least share, where tau is large enough to be seen."""
    monkeypatch.setattr(noise, "LEAST_SHARE", 0.5)
    field, loss = {"a": Field((1,), "", 1.0, 1.0)}, Loss(0.34)
    plain = {"a": noise.share_scale(noise.scales(field, loss)["a"], 3)}
    assert plain["a"] == pytest.approx(0.7, abs=0.01)
    assert noise.spent_together(field, plain, 3).rho > 1.2 * loss.rho
    assert 0.7 * loss.rho < noise.spent_together(field, noise.shares(field, loss, 3), 3).rho <= loss.rho


@pytest.mark.parametrize("sites", [4, 15, 27])
def test_the_total_carries_one_noise_and_not_one_a_site(sites: int) -> None:
    """1/S of the variance of S local noises, within 5 %: at 120,000 entries the ratio's relative error is 0.6 %, so 5 %
    is 8.6 of them."""
    field = {"a": Field((120_000,), "", 6.0, 6.0, fraction_bits=5)}
    zero = {"a": np.zeros(120_000, dtype=np.int64)}
    local, share = noise.scales(field, Loss(0.2)), noise.shares(field, Loss(0.2), sites)
    full, shared = (sum(noise.add_noise(zero, field, sd)["a"] for _ in range(sites)) for sd in (local, share))
    assert np.var(shared) / np.var(full) * sites == pytest.approx(1, abs=0.05)
    assert has_scale(np.asarray(shared), local["a"] * 32)


def test_with_sites_that_tell_the_honest_ones_still_carry_one_noise() -> None:
    field = {"a": Field((120_000,), "", 6.0, 6.0, fraction_bits=5)}
    zero = {"a": np.zeros(120_000, dtype=np.int64)}
    sd, share = noise.scales(field, Loss(0.2))["a"] * 32, noise.shares(field, Loss(0.2), 3)
    parts = [noise.add_noise(zero, field, share)["a"] for _ in range(5)]
    assert has_scale(np.sum(parts[2:], axis=0), sd)
    assert np.var(np.sum(parts, axis=0)) == pytest.approx(sd**2 * 5 / 3, rel=0.05)


@pytest.mark.parametrize("scale", [noise.LEAST_SHARE, 127.9, 1e6, noise.MOST_SCALE])
def test_sums_of_shares_stay_in_the_ring(scale: float) -> None:
    """Data within 2^62 over all sites, and the largest number that a table holds from each of 27."""
    law = Law.gaussian(scale)
    most = len(Table.of(law).ends) << law.cell_bits
    assert most <= 22 * scale
    assert MOST_INTEGER + 27 * most < 2**63


def test_shares_that_cannot_be_drawn_or_accounted_for_are_refused() -> None:
    count = {"n": Field((), "people", 1.0, 1.0)}
    for call in (
        lambda: noise.share_scale(3.9, 4),
        lambda: noise.shares(count, Loss(0.2), 4),
        lambda: noise.spent_together(count, {"n": 1.99}, 4),
        lambda: noise.share_scale(math.nan, 4),
    ):
        with pytest.raises(ValueError, match=r"share of noise is from 2 to 2\^52 grid units wide, got (0\.79|1\.|nan)"):
            call()
    with pytest.raises(ValueError, match=r"2\^52 grid units wide, got 9\.0"):
        noise.share_scale(2 * noise.MOST_SCALE, 1)
    for honest in (0, -1):
        with pytest.raises(ValueError, match=f"at least 1 honest site, got {honest}"):
            noise.shares(count, Loss(0.2), honest)
        with pytest.raises(ValueError, match=f"at least 1 honest site, got {honest}"):
            noise.spent_together(count, {"n": 5.0}, honest)
    assert noise.shares({"n": replace(count["n"], fraction_bits=4)}, Loss(0.2), 4)["n"] == pytest.approx(0.79, abs=0.01)

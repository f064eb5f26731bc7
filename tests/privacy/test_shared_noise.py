"""Noise that sites share: together they carry one noise, and what a sum of shares costs is bounded.

Statistical tests accept the truth but with a probability below 10^-9.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import special

from fl_server.results import statement
from fl_server.session import Checkpoint
from simulations.populations import write_bed
from strategies.analyses.allele_frequency import NoisedFrequency
from strategies.codec import canonical, parse
from strategies.errors import RefusedError, UsageError
from strategies.privacy import Budget, Loss, Unit, epsilon_of, rho_of
from strategies.protections import noise
from strategies.protections.sampler import Law, Table
from strategies.question import HONEST_SITES, Question
from strategies.study import Study
from strategies.summary import MOST_INTEGER, Field, Summary
from strategies.variants import Panel, Variant
from strategies.wire import Agree, Ask, Unmask, unpack_arrays
from tests.privacy.test_drop_outs import dropping
from tests.privacy.test_noise import has_scale
from tests.tiny import (
    COUNTS,
    FREQUENCIES,
    NAMES,
    PANEL,
    PEOPLE,
    TOGETHER,
    TRAINING,
    Tiny,
    people_of,
    study,
    write_site,
    write_sites,
)


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


# -- behind real gates ------------------------------------------------------------------------------------------------

MANY = tuple(f"{a}{b}" for a in "AB" for b in "ABCDEFGHIJKLMNOPQRSTUVWXYZ")[:15]
WIDE = Panel(
    "GRCh37",
    tuple(Variant("22", 1000 + 10 * j, f"v{j}", "A", "C", round(0.1 + 0.8 * (j % 97) / 97, 3)) for j in range(11_000)),
)
SHARED = Question("shared", NoisedFrequency("wide"), Budget(1.0, 1e-5))
RHO = Budget(1.0, 1e-5).loss.rho


def alone(asked: Study) -> float:
    """Standard deviation of one site's full noise, in grid units."""
    return noise.scales(SHARED.analysis.leaves(asked.frame(SHARED)), Loss(RHO))["alternate"] * 1024


def wide_codes(site: str) -> NDArray[np.uint8]:
    rng = np.random.default_rng([2, *site.encode()])
    codes = rng.binomial(2, WIDE.frequencies[:, None], (len(WIDE), PEOPLE)).astype(np.uint8)
    codes[rng.random(codes.shape) < 0.02] = 3
    return codes


def federation_of(folder: Path, sites: Sequence[str], **policy: object) -> Tiny:
    data = folder / "data"
    for site in sites:
        write_site(data, site)
        write_bed(data / site / "genotypes", WIDE, wide_codes(site), people_of(site))
    return Tiny.of(write_sites(data, sites, **policy), folder / "nodes")


def noise_in(run: Path, question: str, sites: Sequence[str], attempt: int = 1) -> NDArray[np.float64]:
    """(2 M,) what was added to the counts in an opened total, or in the sum of the sites' parts, in grid units."""
    arrays = unpack_arrays(Checkpoint(run).read(f"{question}.{attempt}.1.0.total") or b"")
    parts = [array for name, array in arrays.items() if name == "0" or name.endswith("/alternate")]
    got = np.sum([part.reshape(-1)[: 2 * len(WIDE)] for part in parts], axis=0)
    codes = np.concatenate([wide_codes(site) for site in sites], axis=1)
    centre = np.rint(2 * WIDE.frequencies * 1024).astype(np.int64)
    weight = np.maximum(centre, 2 * 1024 - centre)
    called = codes != 3
    above = np.where(called, codes, 0).sum(axis=1) * 1024 - called.sum(axis=1) * centre
    true = np.stack([above, (~called).sum(axis=1) * weight], axis=1).reshape(-1)
    return (got - true).astype(np.float64)


@pytest.mark.parametrize("sites", [4, pytest.param(15, marks=pytest.mark.proof)])
def test_an_opened_total_has_1_over_s_of_the_variance_of_local_noise(quick_path: Path, sites: int) -> None:
    """A variance over 22,000 entries has a relative error of 0.95 %: 5 % is 5.2 of them, which luck exceeds with a
    probability of 2e-7."""
    names = MANY[:sites]
    tiny = federation_of(quick_path, names, honest_sites=sites)
    together, apart = replace(SHARED, honest_sites=sites), replace(SHARED, name="apart", by_site=True)
    asked = study(together, apart, panels={"wide": WIDE})
    result, local = tiny.conductor(asked, quick_path / "run").run()
    tiny.close()
    shared, full = (noise_in(quick_path / "run", name, names) for name in ("shared", "apart"))
    variance = alone(asked) ** 2
    assert np.var(full) == pytest.approx(sites * variance, rel=0.05)
    assert np.var(shared) == pytest.approx(variance, rel=0.05)
    assert (len(local.by_site), len(result.by_site)) == (sites, 0)
    # What is stated, accounted and there is the same.
    fields, said = SHARED.analysis.leaves(asked.frame(SHARED)), result.statement
    assert said.noise["alternate"] * 1024 == pytest.approx(math.sqrt(variance / sites), rel=1e-9)
    assert noise.spent_together(fields, said.noise, sites).rho == pytest.approx(said.rho, rel=1e-9)
    assert said.rho == RHO


def test_a_site_that_falls_silent_leaves_its_noise_in_the_sum(quick_path: Path) -> None:
    """Its part is recovered, S / h = 4 / 2 noises and all. Chances as above."""
    names = MANY[:4]
    tiny = federation_of(quick_path, names)
    asked = study(SHARED, panels={"wide": WIDE})
    (result,) = tiny.conductor(asked, quick_path / "run", dropping(tiny, {Unmask: [names[2]]}, False)).run()
    tiny.close()
    assert result.statement.recovered == {names[2]: "did not answer"}
    assert SHARED.honest_sites == HONEST_SITES == 2
    assert np.var(noise_in(quick_path / "run", "shared", names)) == pytest.approx(4 / 2 * alone(asked) ** 2, rel=0.05)


def test_parts_that_leave_the_ring_are_held_before_the_noise_and_never_refused(
    tiny: Tiny, quick_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refusal or a wrapped sum would tell about the data without noise."""
    summarise = NoisedFrequency.summarise

    def huge(page: NoisedFrequency, *seen: Any) -> Summary:
        return {name: np.full_like(part, 2**62) for name, part in summarise(page, *seen).items()}

    monkeypatch.setattr(NoisedFrequency, "summarise", huge)
    (result,) = tiny.conductor(study(TOGETHER), quick_path / "run").run()
    assert result.statement.sites == NAMES
    total = unpack_arrays(Checkpoint(quick_path / "run").read("frequencies.1.1.0.total") or b"")["0"]
    assert np.abs(total - 2**62).max() < 2**30


# -- what it counts on, and what it costs ------------------------------------------------------------------------------


def test_every_attempt_is_charged_and_stated(tiny: Tiny, quick_path: Path) -> None:
    """A site is lost after the others answered: another draw of the noise, which nobody can tell was never opened."""
    link = dropping(tiny, {Ask: ["CY"]}, False)
    (result,) = tiny.conductor(study(TOGETHER), quick_path / "run", link).run()
    rho = RHO
    assert result.statement.sites == ("AT", "BE", "DK")
    assert (result.statement.attempts, result.statement.rho) == (2, 2 * rho)
    for site in result.statement.sites:
        assert tiny.gates[site].ledger.spent().rho == pytest.approx(2 * rho, rel=1e-12)
        charges = tiny.gates[site].ledger.verify().charges
        assert [(c.question, c.attempt, c.rho) for c in charges] == [("frequencies", n, rho) for n in (1, 2)]
    assert tiny.gates["CY"].ledger.spent().rho == 0
    said = statement.document(result, ())
    assert said["attempts"] == 2
    assert said["epsilon"] == pytest.approx(Loss(2 * rho).epsilon(1e-5), rel=1e-9)
    assert 1 < said["epsilon"] < 2
    assert said["epsilon_if_one_honest"] == pytest.approx(Loss(4 * rho).epsilon(1e-5), rel=1e-9)


def test_an_attempt_that_was_never_asked_costs_nothing(tiny: Tiny, quick_path: Path) -> None:
    (result,) = tiny.conductor(study(TOGETHER), quick_path / "run", dropping(tiny, {Agree: ["CY"]}, False)).run()
    assert (result.statement.attempts, result.statement.rho) == (1, RHO)
    assert tiny.gates["AT"].ledger.spent() == Loss(RHO)


def test_another_attempt_that_does_not_fit_is_refused(make_tiny: Callable[..., Tiny], quick_path: Path) -> None:
    tiny = make_tiny(epsilon=1.2)
    with pytest.raises(RefusedError, match="budget"):
        tiny.conductor(study(TOGETHER), quick_path / "run", dropping(tiny, {Ask: ["CY"]}, False)).run()
    assert tiny.gates["AT"].ledger.spent() == Loss(RHO)


def test_a_site_that_cannot_pay_says_so_before_the_others_pay(make_tiny: Callable[..., Tiny], quick_path: Path) -> None:
    """And it stays in the exact questions of the same study."""
    tiny = make_tiny(policies={"DK": {"epsilon": 0.5}})
    asked = study(COUNTS, TOGETHER, replace(COUNTS, name="again"))
    counts, noised, again = tiny.conductor(asked, quick_path / "run").run()
    assert noised.statement.absent == {"DK": "refused: BUDGET_EXHAUSTED"}
    assert noised.statement.attempts == 1
    assert counts.statement.sites == again.statement.sites == NAMES
    assert tiny.gates["AT"].ledger.spent() == Loss(RHO)


def test_the_statement_says_on_whom_it_rests(tiny: Tiny, quick_path: Path) -> None:
    shared, apart = tiny.conductor(study(TOGETHER, replace(FREQUENCIES, name="apart")), quick_path / "run").run()
    said, alone = statement.document(shared, ()), statement.document(apart, ())
    assert (said["honest_sites_assumed"], alone["honest_sites_assumed"]) == (2, 0)
    worse = Loss(2 * RHO).epsilon(1e-5)
    assert said["epsilon_if_one_honest"] == pytest.approx(worse, rel=1e-9)
    assert f"epsilon {worse:.3g}" in said["honest_sites_in_words"]
    assert alone["epsilon_if_one_honest"] is None
    assert said["noise_sd_together"]["people"] == pytest.approx(said["noise_sd"]["people"] * 2)
    assert said["epsilon"] == alone["epsilon"] == 1.0


@pytest.mark.parametrize("sites", [2, 4, 15, 27])
@pytest.mark.parametrize("epsilon", [0.01, 1.0, 100.0])
@pytest.mark.parametrize(
    "question", [TOGETHER, replace(TOGETHER, analysis=NoisedFrequency("panel", 2.0)), TRAINING], ids=str
)
def test_grids_are_fine_enough_for_shares(question: Question, epsilon: float, sites: int) -> None:
    asked = replace(question, budget=Budget(epsilon, 1e-3), honest_sites=sites)
    frame = study(question).frame(question)
    fields = asked.analysis.leaves(frame)
    spent = noise.spent_together(fields, asked.noise(asked.analysis, fields), sites).rho
    assert spent == pytest.approx(asked.budget.loss.rho * asked.analysis.fraction(), rel=1e-9)


def test_a_study_states_the_honest_sites_where_noise_is_shared_and_only_there() -> None:
    """It is part of the signed document, so nobody counts on more sites than the researcher wrote."""
    two, three = study(TOGETHER), study(replace(TOGETHER, honest_sites=3))
    assert two.digest != three.digest
    panels = {"panel": PANEL.encode()}
    assert Study.from_document(three.document, panels) == three
    assert Study.from_document(study(FREQUENCIES, COUNTS).document, panels) == study(FREQUENCIES, COUNTS)
    without = parse(two.document)
    del without["question"][0]["honest_sites"]
    assert Study.from_document(canonical(without), panels) == two
    for wrong, rule in (
        ({"honest_sites": 0}, "from 1 to 100"),
        ({"honest_sites": 101}, "from 1 to 100"),
        ({"honest_sites": 2.5}, "honest_sites"),
        ({"by_site": True}, "sites share noise"),
    ):
        raw = parse(two.document)
        raw["question"][0] |= wrong
        with pytest.raises(UsageError, match=rule):
            Study.from_document(canonical(raw), panels)


@pytest.mark.parametrize("honest", [0, 101])
def test_a_policy_relies_on_1_to_100_sites(make_tiny: Callable[..., Tiny], honest: int) -> None:
    with pytest.raises(UsageError, match="honest_sites must be from 1 to 100"):
        make_tiny(honest_sites=honest)


def test_times_is_the_epsilon_of_so_many_losses() -> None:
    """Against the conversion itself; where the sampler's distance would eat delta, nothing is claimed."""
    for family in (1, 3):
        budget = Budget(2.0, 1e-6, Unit(family))
        assert budget.times(1) == 2.0
        assert budget.times(5) == pytest.approx(epsilon_of(5 * rho_of(2.0, 1e-6), 1e-6), rel=1e-6)
    assert Budget(100.0, 1e-30).times(100) == math.inf

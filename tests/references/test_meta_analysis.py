"""Each site's own regressions against least squares, what they combine to against statsmodels, and beside the joint
fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from statsmodels.stats.meta_analysis import combine_effects

import fl_server.results
from strategies.analyses.association import LinearAssociation
from strategies.analyses.meta_analysis import MetaAnalysis
from strategies.analysis import Answer, Frame, Total
from strategies.cohort import MISSING, Cohort, Genotypes
from strategies.question import Question
from strategies.variants import Panel
from tests.references.test_pooled import COVARIATES, DEMO, TRAIT, least_squares, pooled
from tests.references.test_principal_components import over_sites
from tests.tiny import NAMES, PANEL, Tiny, genotypes, study

META = MetaAnalysis("common", (TRAIT,), COVARIATES)


@pytest.fixture(scope="module")
def sites() -> tuple[Frame, dict[str, tuple[NDArray[np.uint8], NDArray[np.float64]]]]:
    """Each site's codes and columns, with genotypes missing here and there, and 3,000 of the panel's variants."""
    from simulations.sites import Sites  # noqa: PLC0415

    frame = Frame(Panel.read(DEMO / "panel.tsv.gz", "GRCh37")[8000:11_000], Sites.read(DEMO).policy.columns)
    codes, columns, sizes = pooled(DEMO)
    codes, out, start = codes[8000:11_000].copy(), {}, 0
    rng = np.random.default_rng(11)
    codes[rng.random(codes.shape) < 0.02] = MISSING
    for name, size in sizes.items():
        out[name] = codes[:, start : start + size], columns[start : start + size]
        start += size
    out["FI"][0][5] = MISSING
    return frame, out


def cohort(codes: NDArray[np.uint8], columns: NDArray[np.float64]) -> Cohort:
    return Cohort(codes.shape[1], Genotypes.pack(codes), dict(zip((*COVARIATES, TRAIT), columns.T, strict=True)))


def by_site(frame: Frame, sites: dict, minimum: int = 0) -> dict[str, Answer]:
    """What a gate and the coordinator make of each site: it withholds for itself, then its part alone is concluded."""
    out = {}
    for name, (codes, columns) in sites.items():
        sums = META.withhold(META.summarise(cohort(codes, columns), frame), minimum)
        out[name] = META.conclude(Total(sums, (name,), {}, minimum), frame)
    return out


def table(answer: Answer) -> dict[str, NDArray[np.float64]]:
    (only,) = answer.tables.values()
    return {name: np.asarray(c) for name, c in only.items() if not isinstance(c, tuple)}


@pytest.mark.parametrize("minimum", [0, 5])
def test_each_site_is_its_own_least_squares(sites: tuple[Frame, dict], minimum: int) -> None:
    frame, parts = sites
    answers = by_site(frame, parts, minimum)
    for name, (codes, columns) in parts.items():
        got = table(answers[name])
        beta, t = least_squares(codes, columns)
        copies, seen = np.where(codes == MISSING, 0, codes).sum(axis=1), (codes != MISSING).sum(axis=1)
        missing = (codes == MISSING).sum(axis=1)
        carriers = np.minimum(((codes > 0) & (codes < MISSING)).sum(axis=1), (codes < 2).sum(axis=1))
        few = np.minimum(copies, 2 * seen - copies) < 20
        few |= (carriers < minimum) | ((missing > 0) & (missing < minimum)) | (seen < minimum)
        assert np.array_equal(got["withheld"].astype(bool), few)
        assert 100 < few.sum() < len(few) - 100
        for ours, want in (("beta", beta), ("t", t)):
            assert np.isnan(got[ours][few]).all()
            assert np.array_equal(np.isnan(got[ours][~few]), np.isnan(want[~few]))
            relative = np.abs(got[ours][~few] / want[~few] - 1)
            print(f"{name} {ours}: largest relative difference {np.nanmax(relative):.1e}")
            assert np.nanmax(relative) < 1e-9
        assert np.array_equal(got["n"][~few], seen[~few])
        assert np.allclose(got["effect_allele_frequency"][~few], copies[~few] / (2 * seen[~few]), rtol=1e-14)


def test_combinations_are_statsmodels(sites: tuple[Frame, dict]) -> None:
    frame, parts = sites
    answers = by_site(frame, parts)
    got = table(META.combine(answers, frame))
    beta, error, n = (np.stack([table(a)[c] for a in answers.values()]) for c in ("beta", "standard_error", "n"))
    number = np.isfinite(beta).sum(axis=0)
    assert np.array_equal(got["sites"], number)
    assert {0, 1, 2, 3, 4} <= set(number.tolist())
    cut = {True: 0, False: 0}
    for j in range(len(number)):
        there = np.isfinite(beta[:, j])
        if number[j] < 2:
            assert np.isnan([got[c][j] for c in got if c not in ("position", "sites")]).all()
            continue
        want = combine_effects(beta[there, j], error[there, j] ** 2, method_re="chi2")  # DerSimonian and Laird's
        positive = want.tau2 > 0  # it does not cut a negative one, as DerSimonian and Laird do
        cut[positive] += 1
        homogeneous = want.test_homogeneity()
        pairs = {
            "beta": want.mean_effect_fe,
            "standard_error": want.sd_eff_w_fe,
            "beta_random": want.mean_effect_re if positive else want.mean_effect_fe,
            "standard_error_random": want.sd_eff_w_re if positive else want.sd_eff_w_fe,
            "q": want.q,
            "q_p_value": homogeneous.pvalue,
            "i2": max(0.0, want.i2),
            "tau2": max(0.0, want.tau2),
        }
        for name, value in pairs.items():
            assert got[name][j] == pytest.approx(value, rel=1e-9, abs=1e-12), (j, name)
        assert got["n"][j] == n[there, j].sum()
    assert min(cut.values()) > 500


def test_it_stands_beside_the_joint_fit_and_is_not_equal(sites: tuple[Frame, dict]) -> None:
    frame, parts = sites
    combined = table(META.combine(by_site(frame, parts), frame))
    cohorts = [cohort(*part) for part in parts.values()]
    joint = table(over_sites(LinearAssociation("common", (TRAIT,), COVARIATES), cohorts, frame))
    both = (combined["sites"] == 4) & np.isfinite(joint["t"])
    alike = np.corrcoef(combined["z"][both], joint["t"][both])[0, 1]
    apart = np.abs(combined["z"] - joint["t"])[both].max()
    undefined = int((np.isfinite(joint["t"]) & ~(combined["sites"] >= 2)).sum())
    print(f"r of z and t {alike:.5f} over {both.sum()} variants, most apart {apart:.2f}; {undefined} undefined")
    assert 0.95 < alike < 0.9999
    assert apart > 0.05
    assert undefined > 0


def test_a_site_that_cannot_fit_says_so_and_is_left_out(sites: tuple[Frame, dict]) -> None:
    frame, parts = sites
    codes, columns = parts["GB"]
    for change, why in (
        ({1: 3.0}, "a trait or a covariate does not vary"),
        ({2: columns[:, 1]}, "traits and covariates explain one another"),
    ):
        altered = columns.copy()
        for column, value in change.items():
            altered[:, column] = value
        answers = by_site(frame, {**parts, "GB": (codes, altered)})
        assert answers["GB"].facts["fit"] == why
        assert np.isnan(table(answers["GB"])["beta"]).all()
        assert table(META.combine(answers, frame))["sites"].max() == 3
    few = META.conclude(Total(META.summarise(cohort(codes[:, :5], columns[:5]), frame), ("GB",)), frame)
    assert few.facts["fit"] == "fewer people than parameters"
    hidden = META.conclude(Total(META.summarise(cohort(codes[:, :4], columns[:4]), frame), ("GB",), {}, 5), frame)
    assert hidden.facts["fit"] == "few people"
    assert np.isnan(float(hidden.facts["people"]))


def test_a_mean_that_is_large_beside_its_deviation_costs_few_digits(sites: tuple[Frame, dict]) -> None:
    frame, parts = sites
    codes, columns = parts["IT"]
    columns = columns.copy()
    columns[:, 1] = 240 + columns[:, 1] / np.abs(columns[:, 1]).max()  # of a range from -250 to 250
    got = table(by_site(frame, {"IT": (codes, columns)})["IT"])
    centred = columns - [0, 240, 0, 0, 0]
    beta, t = least_squares(codes, centred)
    shown = np.isfinite(got["beta"])
    assert np.nanmax(np.abs(got["beta"][shown] / beta[shown] - 1)) < 1e-8
    assert np.nanmax(np.abs(got["t"][shown] / t[shown] - 1)) < 1e-8


def test_a_study_asks_each_site_and_combines(make_tiny, quick_path: Path) -> None:
    tiny: Tiny = make_tiny(policies={site: {"by_site": ["exact"]} for site in NAMES})
    asked = study(Question("meta", MetaAnalysis("panel", ("trait",), ("sex",)), by_site=True))
    (result,) = tiny.conductor(asked, quick_path / "run").run()
    assert set(result.by_site) == set(NAMES)
    again = result.question.analysis.combine(result.by_site, Frame(PANEL))
    assert np.array_equal(table(result.answer)["z"], table(again)["z"], equal_nan=True)
    assert np.isfinite(table(result.answer)["z"]).sum() > 10
    codes = genotypes("BE")
    seen = (codes != MISSING).sum(axis=1)
    own = table(result.by_site["BE"])
    assert np.array_equal(own["n"][own["withheld"] == 0], seen[own["withheld"] == 0])
    assert result.answer.withheld == sum(int(table(one)["withheld"].sum()) for one in result.by_site.values())
    fl_server.results.write(asked, tiny.federation, [result], quick_path / "out")
    read = fl_server.results.load(quick_path / "out")["meta"]
    assert read.table()["sites"].to_list() == table(result.answer)["sites"].tolist()
    assert len(read.by_site()) == 4 * len(read.table())
    page = (quick_path / "out" / "report.html").read_text()
    assert 'aria-label="Forest plot of 22:' in page
    assert "at AT, BE, CY, DK and combined; I² = " in page

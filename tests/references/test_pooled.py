"""Federated equals pooled: the demo's sites against plink2 on the pooled data, and against least squares.

The goldens were made with plink2 v2.00a3.5 (`--geno-counts`, `--hardy`, `--glm` with covariates sex, pc1 to pc3).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from fl_client.readers import Dataset
from simulations.populations import write_bed
from simulations.run import simulate
from simulations.sites import Sites
from strategies.analyses.genotype_counts import hardy_weinberg
from strategies.analysis import Frame, Needs
from strategies.study import Study
from strategies.variants import Panel

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "simulations" / "data" / "europe1000g"
GOLDEN = Path(__file__).parent / "europe1000g"
SGKIT = ROOT.parent / "shared" / "data" / "association_golden" / "sgkit" / "test_hwe" / "sim_01.csv"
COVARIATES = ("sex", "pc1", "pc2", "pc3")
TRAIT = "GSTT1_rn"
PRINTED = 5e-6
"""Relative: plink2 prints six significant digits."""


def golden(name: str) -> pl.DataFrame:
    return pl.read_csv(GOLDEN / f"{name}.gz", separator="\t", null_values=["NA", "."])


def demo_study(*names: str) -> Study:
    study = Study.read(ROOT / "simulations" / "studies" / "demo.toml")
    return replace(study, questions=tuple(q for q in study.questions if q.name in names))


def answers(study: Study, data: Path) -> dict[str, dict[str, np.ndarray]]:
    out = {}
    for result in simulate(study, data).results:
        ((_, table),) = result.answer.tables.items()
        out[result.question.name] = {name: np.asarray(values) for name, values in table.items()}
    return out


@pytest.fixture(scope="module")
def demo() -> dict[str, dict[str, np.ndarray]]:
    return answers(demo_study("counts", "gstt1"), DEMO)


def test_genotype_counts_are_plinks(demo: dict[str, dict[str, np.ndarray]]) -> None:
    want, got = golden("pooled.gcount"), demo["counts"]
    assert len(want) == len(got["position"]) == 20_000
    assert want["ID"].to_list() == got["id"].tolist()
    names = {"hom_ref": "HOM_REF_CT", "het": "HET_REF_ALT_CTS", "hom_alt": "TWO_ALT_GENO_CTS", "missing": "MISSING_CT"}
    for ours, theirs in names.items():
        assert np.array_equal(got[ours], want[theirs].to_numpy()), ours
    assert not got["withheld"].any()


def test_frequencies_and_hardy_weinberg_are_plinks(demo: dict[str, dict[str, np.ndarray]]) -> None:
    got = demo["counts"]
    frequency = golden("pooled.afreq")["ALT_FREQS"].to_numpy()
    assert np.allclose(got["frequency"], frequency, rtol=PRINTED, atol=0)
    assert np.allclose(got["hwe_p"], golden("pooled.hardy")["P"].to_numpy(), rtol=PRINTED, atol=0)
    assert (got["call_rate"] == 1).all()


@pytest.mark.skipif(not SGKIT.exists(), reason="the shared data folder is not there")
def test_hardy_weinberg_is_what_sgkit_published() -> None:
    """Of 200 simulated tables, computed by its authors with the code of Wigginton, Cutler, Abecasis (2005)."""
    heterozygous, one, other, want = np.loadtxt(SGKIT, delimiter=",", skiprows=1).T
    assert len(want) == 200
    assert hardy_weinberg(one, heterozygous, other) == pytest.approx(want, rel=1e-9)


def test_small_cells_are_withheld_exactly_where_the_golden_says(tmp_path: Path) -> None:
    sites = (DEMO / "sites.toml").read_text().replace("minimum_cell = 0\n", "minimum_cell = 5\n")
    sites = sites.replace(', "exact"]\n', "]\n", 1)  # with a minimum, exact answers are by site or over all of them
    assert "minimum_cell = 5" in sites
    assert 'by_site = ["private"]' in sites
    for site in ("FI", "GB", "IT", "CEU"):
        (tmp_path / site).symlink_to(DEMO / site)
    (tmp_path / "sites.toml").write_text(sites)
    got = answers(demo_study("counts"), tmp_path)["counts"]
    cells = golden("pooled.gcount").select("HOM_REF_CT", "HET_REF_ALT_CTS", "TWO_ALT_GENO_CTS", "MISSING_CT").rows()
    want = np.array([any(0 < cell < 5 for cell in row) for row in cells])
    assert np.array_equal(got["withheld"], want)
    assert 0.15 < want.mean() < 0.25
    for name in ("hom_ref", "het", "hom_alt", "missing", "ac", "an", "frequency", "call_rate", "hwe_p"):
        assert np.array_equal(np.isnan(got[name]), want), name


def test_association_is_plinks(demo: dict[str, dict[str, np.ndarray]]) -> None:
    want, got = golden("pooled.GSTT1_rn.glm.linear"), demo["gstt1"]
    assert want["ID"].to_list() == got["id"].tolist()
    effect = np.where(want["A1"].to_numpy() == got["alt"], 1.0, -1.0)
    for ours, theirs, sign in (("beta", "BETA", effect), ("t", "T_STAT", effect), ("standard_error", "SE", 1.0)):
        relative = np.abs(got[ours] / (sign * want[theirs].to_numpy()) - 1)
        assert relative.max() < PRINTED, (ours, relative.max())
    # p falls steeply in t: the six printed digits of t are what is compared above, p is compared on its logarithm.
    assert np.allclose(np.log10(got["p_value"]), np.log10(want["P"].to_numpy()), rtol=1e-4, atol=1e-5)
    top = int(np.argmin(got["p_value"]))
    assert (got["chromosome"][top], got["position"][top]) == ("22", 24334948)
    assert round(float(got["beta"][top]), 5) == -1.13222
    assert f"{got['p_value'][top]:.1e}" == "2.5e-83"


@pytest.fixture(scope="module")
def people() -> tuple[np.ndarray, np.ndarray, dict[str, int]]:
    """Codes (M, N), covariates and trait (N, k) of all sites together, and each site's number of people."""
    return pooled(DEMO)


def pooled(data: Path) -> tuple[np.ndarray, np.ndarray, dict[str, int]]:
    sites, panel = Sites.read(data), Panel.read(DEMO / "panel.tsv.gz", "GRCh37")
    frame = Frame(panel, sites.policy.columns)
    codes, columns, sizes = [], [], {}
    for name, site in sites.sites.items():
        cohort = Dataset.open(site.dataset, data).cohort(Needs((*COVARIATES, TRAIT), "common"), frame)
        assert cohort.genotypes is not None
        codes.append(cohort.genotypes.codes())
        columns.append(np.stack([cohort.columns[c] for c in (*COVARIATES, TRAIT)], axis=1))
        sizes[name] = len(cohort)
    return np.concatenate(codes, axis=1), np.concatenate(columns), sizes


def least_squares(codes: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Beta and t of each variant over the people with a genotype, by a QR decomposition per variant."""
    beta, t = np.full(len(codes), np.nan), np.full(len(codes), np.nan)
    X, y = np.column_stack([np.ones(len(columns)), columns[:, :-1]]), columns[:, -1]
    X = X / np.abs(X).max(axis=0)
    for j, row in enumerate(codes):
        seen = row != 3
        if seen.sum() <= X.shape[1] + 1:
            continue
        q, r = np.linalg.qr(np.column_stack([X[seen], row[seen]]))
        z = q.T @ y[seen]
        residual = y[seen] - q @ z
        residual -= q @ (q.T @ residual)
        if abs(r[-1, -1]) < 1e-6:
            continue
        beta[j] = z[-1] / r[-1, -1]
        error = np.sqrt(residual @ residual / (seen.sum() - X.shape[1] - 1)) / abs(r[-1, -1])
        t[j] = beta[j] / error
    return beta, t


def close(ours: np.ndarray, want: np.ndarray) -> None:
    assert np.array_equal(np.isnan(ours), np.isnan(want))
    relative = np.abs(ours / want - 1)
    print(f"largest relative difference {np.nanmax(relative):.2e}")
    assert np.nanmax(relative) < 1e-9


def test_association_is_least_squares(
    demo: dict[str, dict[str, np.ndarray]], people: tuple[np.ndarray, np.ndarray, dict[str, int]]
) -> None:
    beta, t = least_squares(people[0], people[1])
    close(demo["gstt1"]["beta"], beta)
    close(demo["gstt1"]["t"], t)


def test_association_with_missing_genotypes_is_least_squares(
    tmp_path: Path, people: tuple[np.ndarray, np.ndarray, dict[str, int]]
) -> None:
    codes, columns, sizes = people[0].copy(), people[1], people[2]
    rng = np.random.default_rng(20260101)
    codes[rng.random(codes.shape) < 0.03] = 3
    first = next(iter(sizes.values()))
    codes[7, :first] = 3  # at one site nobody has this variant
    codes[:, first + 3][rng.permutation(len(codes))[: len(codes) // 2]] = 3  # one person misses half
    panel, start = Panel.read(DEMO / "panel.tsv.gz", "GRCh37"), 0
    text = (DEMO / "sites.toml").read_text()
    for name, size in sizes.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "people.tsv").write_bytes((DEMO / name / "people.tsv").read_bytes())
        lines = (DEMO / name / "people.tsv").read_text().splitlines()
        identifiers = [line.split("\t")[0] for line in lines[1:]]
        write_bed(tmp_path / name / "genotypes", panel, codes[:, start : start + size], identifiers)
        start += size
    for extension in ("pgen", "vcf.gz"):
        text = text.replace(f"genotypes.{extension}", "genotypes.bed")
    (tmp_path / "sites.toml").write_text(text)
    study = demo_study("gstt1", "counts")
    linear = replace(study.questions[1].analysis, minimum_minor_alleles=1, minimum_missing=1)  # type: ignore[type-var]
    got = answers(
        replace(study, questions=(study.questions[0], replace(study.questions[1], analysis=linear))), tmp_path
    )
    beta, t = least_squares(codes, columns)
    close(got["gstt1"]["beta"], beta)
    close(got["gstt1"]["t"], t)
    assert np.array_equal(got["counts"]["missing"], (codes == 3).sum(axis=1))
    assert np.array_equal(got["gstt1"]["n"], (codes != 3).sum(axis=1))

"""Polygenic scores over sites against plink2 on the pooled people, and what a score tells of traits against
scikit-learn and statsmodels."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import statsmodels.api as sm
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from fl_client.readers import Dataset, DatasetConfig
from simulations.populations import write_bed, write_table
from simulations.run import simulate
from strategies.analyses.discrimination import Discrimination
from strategies.analyses.explained_variance import ExplainedVariance
from strategies.analyses.polygenic_score import PolygenicScore
from strategies.analyses.score_distribution import ScoreDistribution
from strategies.analysis import Answer, Frame, Needs
from strategies.cohort import MISSING, Cohort, Genotypes
from strategies.question import Question
from strategies.variants import Panel
from tests.references.test_pooled import DEMO, PRINTED, demo_study, pooled
from tests.references.test_principal_components import over_sites

PRS = Path(__file__).parents[3] / "shared" / "data" / "prs"
TARGET = PRS / "target_genomes" / "cineca_synthetic_subset.bed"


def plink2(folder: Path, *arguments: str) -> NDArray[np.float64]:
    """(N,) sums of scores."""
    command = ["plink2", *arguments, "cols=+scoresums", "--out", "out"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    table = pl.read_csv(folder / "out.sscore", separator="\t")
    (column,) = (name for name in table.columns if name.endswith("_SUM") and name != "NAMED_ALLELE_DOSAGE_SUM")
    return table[column].to_numpy()


def weighted(panel: Panel, seed: int) -> Panel:
    rng = np.random.default_rng(seed)
    weights = rng.normal(0, 0.01, len(panel)) * 10.0 ** rng.integers(-3, 2, len(panel))
    variants = tuple(v._replace(weight=float(w)) for v, w in zip(panel.variants, weights, strict=True))
    return Panel(panel.assembly, variants, states=frozenset({"WEIGHT"}))


@cache
def demo() -> tuple[Panel, NDArray[np.uint8]]:
    """The demo's panel with weights, and its people's genotypes, some of which are missing."""
    codes, rng = pooled(DEMO)[0].copy(), np.random.default_rng(20260301)
    codes[rng.random(codes.shape) < 0.03] = MISSING
    return weighted(Panel.read(DEMO / "panel.tsv.gz", "GRCh37"), 1), codes


def in_sum(answer: Answer, standard: NDArray[np.float64]) -> NDArray[np.float64]:
    """The offered column in the weights' own unit."""
    return float(answer.facts["mean"]) + float(answer.facts["standard_deviation"]) * standard


def test_scores_of_the_demo_with_missing_genotypes_are_plinks(tmp_path: Path) -> None:
    panel, codes = demo()
    site = np.random.default_rng(5).choice(4, codes.shape[1], p=(0.1, 0.2, 0.3, 0.4))
    parts = [Cohort(int((site == s).sum()), Genotypes.pack(codes[:, site == s])) for s in range(4)]
    answer = over_sites(PolygenicScore("panel"), parts, Frame(panel))
    projection = PolygenicScore("panel").projection(answer, Frame(panel))
    sums = np.zeros((codes.shape[1], 1), dtype=np.int64)
    projection.add(sums, Genotypes.pack(codes), slice(None))
    standard = projection.columns(sums)["score"]
    assert (standard.mean(), standard.std()) == (pytest.approx(0, abs=1e-9), pytest.approx(1, rel=1e-9))
    got = in_sum(answer, standard)

    write_bed(tmp_path / "pooled", panel, codes, [f"p{i}" for i in range(codes.shape[1])])
    lines = [f"{v.identifier}\t{v.alternate}\t{v.weight!r}\n" for v in panel.variants]
    (tmp_path / "weights").write_text("".join(lines))
    want = plink2(tmp_path, "--bfile", "pooled", "--score", "weights", "1", "2", "3")
    assert np.allclose(got, want, rtol=PRINTED, atol=1e-9)

    alleles = np.where(codes == MISSING, np.nan, codes.astype(np.float64))
    exact = panel.weights @ np.where(codes == MISSING, np.nanmean(alleles, axis=1, keepdims=True), alleles)
    assert np.abs(got - exact).max() < 1e-9 * exact.std()
    assert float(answer.facts["mean"]) == pytest.approx(exact.mean(), rel=1e-9)
    assert float(answer.facts["standard_deviation"]) == pytest.approx(exact.std(), rel=1e-9)
    assert answer.facts["variants_in_score"] == len(panel)


def write_genome(path: Path, bim: list[list[str]]) -> None:
    """Chromosome 22 with the target's reference alleles, which tell insertions from deletions, and N elsewhere."""
    letters = bytearray(b"N" * 52_000_000)
    for _, _, _, position, _, reference in bim:
        letters[int(position) - 1 : int(position) - 1 + len(reference)] = reference.encode()
    path.write_bytes(b">22\n" + letters + b"\n")
    path.with_name(f"{path.name}.fai").write_text(f"22\t{len(letters)}\t4\t{len(letters)}\t{len(letters) + 1}\n")


@pytest.mark.skipif(not PRS.exists(), reason="the shared data folder is not there")
def test_a_scoring_file_of_the_catalogue_scores_as_plink2_does(tmp_path: Path) -> None:
    """Four sites over one file of genotypes, of which each sees the people of its own table."""
    panel = Panel.read(PRS / "scorefiles" / "PGS001229_22.txt", "GRCh37")
    assert (len(panel), dict(panel.set_aside)) == (835, {})
    frame = Frame(Panel.decode(panel.encode(), "GRCh37", "the wire"))
    for suffix in (".bed", ".bim", ".fam"):
        (tmp_path / "genotypes").with_suffix(suffix).symlink_to(TARGET.with_suffix(suffix))
    write_genome(tmp_path / "genome.fa", [line.split() for line in TARGET.with_suffix(".bim").read_text().splitlines()])
    people = [line.split()[1] for line in TARGET.with_suffix(".fam").read_text().splitlines()]
    site = np.random.default_rng(6).choice(4, len(people), p=(0.1, 0.2, 0.3, 0.4))
    sites = []
    for s in range(4):
        write_table(tmp_path / f"{s}.tsv", [p for p, at in zip(people, site, strict=True) if at == s], {})
        files = DatasetConfig("PRS", "GRCh37", f"{s}.tsv", "genotypes.bed", reference="genome.fa")
        sites.append(Dataset.open(files, tmp_path))
    question = PolygenicScore("panel")
    answer = over_sites(question, [one.cohort(Needs(panel="panel"), frame) for one in sites], frame)
    projection = question.projection(answer, frame)
    got = np.empty(len(people))
    for s, one in enumerate(sites):
        assert one.people == tuple(p for p, at in zip(people, site, strict=True) if at == s)
        assert frame.panel is not None
        got[site == s] = in_sum(answer, one.project(projection, frame.panel)["score"])

    # Six of the file's variants are not in the target. Of 22:22394291 A/AG, AG counted, the target has AG/A, and so has
    # the genome: the file does not say whether it means that deletion or an insertion, so it stands for neither.
    assert answer.facts["variants_in_score"] == 828
    lines = (PRS / "scorefiles" / "PGS001229_22.txt").read_text().splitlines()
    kept = [line for line in lines if not line.startswith("#") and "\t22394291\t" not in line]
    (tmp_path / "score.txt").write_text("\n".join(kept) + "\n")
    target = ["--bfile", str(TARGET.with_suffix(""))]
    want = plink2(tmp_path, *target, "--score", "score.txt", "1", "4", "6", "header")
    assert np.allclose(got, want, rtol=PRINTED, atol=1e-9)
    lines = (PRS / "scorefiles" / "test.scorefile").read_text().splitlines()
    (tmp_path / "test.txt").write_text("\n".join(line for line in lines if ":22394291:" not in line) + "\n")
    named = [*target, "--set-all-var-ids", "@:#:$r:$a"]
    again = plink2(tmp_path, *named, "--score", "test.txt", "1", "2", "3", "header")
    assert np.allclose(got, again, rtol=PRINTED, atol=1e-9)


def answered(panel: Panel, *questions: Question) -> dict[str, Answer]:
    asked = replace(demo_study("counts"), questions=questions, panels={"weights": panel})
    return {r.question.name: r.answer for r in simulate(asked, DEMO).results}


@pytest.fixture(scope="module")
def table() -> pl.DataFrame:
    """The demo's people, site by site in the order in which `pooled` has their genotypes."""
    return pl.concat([pl.read_csv(DEMO / s / "people.tsv", separator="\t") for s in ("FI", "GB", "IT", "CEU")])


@pytest.fixture(scope="module")
def demo_answers() -> dict[str, Answer]:
    """A study about a score that nodes compute themselves, with every twentieth variant of the panel in it."""
    panel = weighted(Panel.read(DEMO / "panel.tsv.gz", "GRCh37"), 2)
    panel = replace(panel, variants=panel.variants[::20])
    score, covariates = "prs.score", ("sex", "pc1", "pc2")
    return answered(
        panel,
        Question("prs", PolygenicScore("weights")),
        Question("distribution", ScoreDistribution(score)),
        Question("by_sex", ScoreDistribution(score, by="sex")),
        Question("variance", ExplainedVariance(score, "GSTT1_rn", covariates)),
        Question("alone", ExplainedVariance(score, "GSTT1_rn")),
        Question("cases", Discrimination(score, "GSTT1_high", covariates)),
        Question("cases_alone", Discrimination(score, "GSTT1_high")),
    )


@pytest.fixture(scope="module")
def standard(table: pl.DataFrame) -> NDArray[np.float64]:
    """(N,) the same score, by numpy from the pooled genotypes."""
    panel = weighted(Panel.read(DEMO / "panel.tsv.gz", "GRCh37"), 2)
    raw = panel.weights[::20] @ pooled(DEMO)[0][::20].astype(np.float64)
    return (raw - raw.mean()) / raw.std()


def test_a_distribution_is_numpys_histogram(
    demo_answers: dict[str, Answer], standard: NDArray[np.float64], table: pl.DataFrame
) -> None:
    edges = np.linspace(-4, 4, 41)
    got = demo_answers["distribution"]
    assert np.array_equal(np.asarray(got.tables["distribution"]["people"]), np.histogram(standard, edges)[0])
    assert got.facts["people"] == len(standard)
    assert float(got.facts["mean"]) == pytest.approx(0, abs=1e-8)
    assert float(got.facts["standard_deviation"]) == pytest.approx(1, rel=1e-8)
    by_sex, sex = demo_answers["by_sex"], table["sex"].to_numpy()
    rows = np.asarray(by_sex.tables["distribution"]["sex"])
    for code in (1, 2):
        here = np.asarray(by_sex.tables["distribution"]["people"])[rows == code]
        assert np.array_equal(here, np.histogram(standard[sex == code], edges)[0])
        assert by_sex.facts[f"people_sex_{code}"] == (sex == code).sum()
        mean, deviation = (float(by_sex.facts[f"{name}_sex_{code}"]) for name in ("mean", "standard_deviation"))
        assert mean == pytest.approx(standard[sex == code].mean(), rel=1e-7)
        assert deviation == pytest.approx(standard[sex == code].std(), rel=1e-7)


@pytest.mark.parametrize(("name", "columns"), [("variance", ("sex", "pc1", "pc2")), ("alone", ())])
def test_explained_variance_is_statsmodels(
    name: str,
    columns: tuple[str, ...],
    demo_answers: dict[str, Answer],
    standard: NDArray[np.float64],
    table: pl.DataFrame,
) -> None:
    answer, y = demo_answers[name], table["GSTT1_rn"].to_numpy()
    covariates = sm.add_constant(table.select(columns).to_numpy().reshape(len(y), -1).astype(np.float64))
    if not columns:
        covariates = np.ones((len(y), 1))
    alone, full = sm.OLS(y, covariates).fit(), sm.OLS(y, np.column_stack([covariates, standard])).fit()
    want = {
        "r2": full.rsquared,
        "r2_covariates": alone.rsquared,
        "r2_incremental": full.rsquared - alone.rsquared,
        "r2_partial": 1 - full.ssr / alone.ssr,
        "beta_per_standard_deviation": full.params[-1],
        "standard_error_per_standard_deviation": full.bse[-1],
    }
    for fact, value in want.items():
        assert float(answer.facts[fact]) == pytest.approx(value, rel=1e-6, abs=1e-12), fact
    effects = answer.tables["effects"]
    assert effects["term"] == (*columns, "prs.score")
    for column, values in (("beta", full.params), ("standard_error", full.bse), ("t", full.tvalues)):
        assert np.allclose(np.asarray(effects[column]), values[1:], rtol=1e-6, atol=0), column
    assert np.allclose(np.asarray(effects["p_value"]), full.pvalues[1:], rtol=1e-6, atol=0)


@pytest.mark.parametrize(("name", "columns"), [("cases", ("sex", "pc1", "pc2")), ("cases_alone", ())])
def test_discrimination_is_scikit_learns_and_statsmodels(
    name: str,
    columns: tuple[str, ...],
    demo_answers: dict[str, Answer],
    standard: NDArray[np.float64],
    table: pl.DataFrame,
) -> None:
    facts, label = demo_answers[name].facts, table["GSTT1_high"].to_numpy()
    area = roc_auc_score(label, standard)
    print(f"area {facts['area']}, of {area} unbinned")
    assert float(facts["area_low"]) <= area <= float(facts["area_high"])
    assert float(facts["area"]) == pytest.approx(area, abs=1e-3)
    assert float(facts["area_high"]) - float(facts["area_low"]) < 0.01
    others = [table[c].to_numpy().astype(np.float64) for c in columns]
    fit = sm.Logit(label, np.column_stack([np.ones(len(label)), *others, standard])).fit(disp=0, tol=1e-12)
    log, error = fit.params[-1], fit.bse[-1]
    assert float(facts["log_odds_per_standard_deviation"]) == pytest.approx(log, rel=1e-6)
    assert float(facts["standard_error"]) == pytest.approx(error, rel=1e-6)
    assert float(facts["odds_ratio_per_standard_deviation"]) == pytest.approx(np.exp(log), rel=1e-6)
    low, high = np.exp(fit.conf_int()[-1])
    assert (float(facts["odds_ratio_low"]), float(facts["odds_ratio_high"])) == pytest.approx((low, high), rel=1e-6)
    assert float(facts["p_value"]) == pytest.approx(fit.pvalues[-1], rel=1e-5)


def test_tenths_are_those_of_the_people(
    demo_answers: dict[str, Answer], standard: NDArray[np.float64], table: pl.DataFrame
) -> None:
    tenths, label = demo_answers["cases_alone"].tables["tenths"], table["GSTT1_high"].to_numpy()
    low, high = np.asarray(tenths["low"]), np.asarray(tenths["high"])
    low[0], high[-1] = -np.inf, np.inf
    inside = (standard[:, None] >= low) & (standard[:, None] < high)
    assert inside.sum() == len(standard)
    assert np.array_equal(np.asarray(tenths["people"]), inside.sum(axis=0))
    assert np.array_equal(np.asarray(tenths["cases"]), (inside & (label == 1)[:, None]).sum(axis=0))
    assert np.array_equal(np.asarray(tenths["controls"]), (inside & (label == 0)[:, None]).sum(axis=0))
    assert np.abs(inside.mean(axis=0) - 0.1).max() < 0.02

"""Countries that msprime simulates, over sites, against plink2 and statsmodels on the same people in one file."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import statsmodels.api as sm
from numpy.typing import NDArray

from simulations.benchmarks import data
from simulations.benchmarks.data import Countries, demes
from simulations.run import simulate
from strategies.analyses.association import LinearAssociation
from strategies.analyses.logistic_association import LogisticAssociation
from strategies.analysis import Analysis, Range
from strategies.hits import SecondTest
from strategies.question import Question
from strategies.study import Purpose, Study
from strategies.variants import Panel
from tests.references.plain import whole_bed

PRINTED = 5e-6
"""Relative: plink2 prints six significant digits."""

SINGLE = 1e-3
"""plink2's logistic regression, and Firth's, is in single precision; 3.5e-4 was seen."""

PLINK2 = pytest.mark.skipif(shutil.which("plink2") is None, reason="plink2 is not installed: not compared with it")

Table = dict[str, NDArray[Any]]
Floats = NDArray[np.float64]


@pytest.fixture(scope="module")
def countries() -> Iterator[Countries]:
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(data, "FOLDER", Path(folder))
        yield demes((1200, 500, 208, 96), 250)


def asked(countries: Countries, page: Analysis) -> dict[str, Table]:
    """The tables of a question about all variants."""
    panel = Panel.read(countries.folder / "panel.tsv", "GRCh38")
    ranges = {name: Range(*span) for name, span in countries.ranges.items()}
    question = (Question("question", page),)
    study = Study("simulated", Purpose.SCIENTIFIC_RESEARCH, "GRCh38", 3, ranges, {"panel": panel}, question)
    (result,) = simulate(study, countries.folder).results
    tables = result.answer.tables.items()
    return {name: {n: np.asarray(column) for n, column in table.items()} for name, table in tables}


def plink2(countries: Countries, traits: str, folder: Path, *arguments: str) -> dict[str, pl.DataFrame]:
    """Each trait's additive effects, as plink2 regresses the pooled people."""
    command = [
        "plink2", "--bfile", str(countries.pooled), "--pheno", str(countries.folder / traits),
        "--covar", str(countries.folder / "covariates.txt"), "--covar-variance-standardize",
        "--glm", *arguments, "hide-covar", "--threads", "1", "--out", str(folder / "out"),
    ]  # fmt: skip
    one = {
        **os.environ,
        "OPENBLAS_NUM_THREADS": "1",
    }  # its Firth regressions, of floats, change with the library's threads
    subprocess.run(command, check=True, capture_output=True, env=one)
    read = {path: pl.read_csv(path, separator="\t", null_values="NA") for path in folder.glob("out.*.glm.*")}
    return {path.name.split(".")[1]: table for path, table in read.items()}


def effects(table: pl.DataFrame, got: Table) -> Floats:
    """1 where plink2's effect is the alternate allele's, -1 where it is the reference's."""
    assert table["ID"].to_list() == got["id"].tolist()
    return np.where(table["A1"].to_numpy() == got["alt"], 1.0, -1.0)


def linear(countries: Countries, traits: int, folder: Path) -> None:
    names, compared = countries.traits[:traits], 0
    tables = asked(countries, LinearAssociation("panel", names, countries.covariates))
    theirs = plink2(countries, "traits.txt", folder)
    for name in names:
        got, want = tables[name], theirs[name]
        t = effects(want, got) * want["T_STAT"].to_numpy()
        there = ~got["withheld"] & ~got["imputed"]
        compared += int(there.sum())
        assert np.abs(got["t"][there] / t[there] - 1).max() < PRINTED
        assert np.array_equal(got["n"][there], want["OBS_CT"].to_numpy()[there])
    assert compared > 0.5 * traits * countries.variants


@PLINK2
def test_linear_regressions_are_plinks(countries: Countries, tmp_path: Path) -> None:
    linear(countries, 3, tmp_path)


@PLINK2
@pytest.mark.proof
def test_linear_regressions_of_twenty_thousand_people_are_plinks(tmp_path: Path) -> None:
    linear(demes(), 2, tmp_path)


def pooled(countries: Countries) -> tuple[Floats, Floats, NDArray[np.int8]]:
    """Everybody's y, intercept and covariates, and (M, N) codes."""
    read = [pl.read_csv(countries.folder / f"{name}.txt", separator="\t") for name in ("cases", "covariates")]
    y, x = (table.drop("#IID").to_numpy().astype(np.float64) for table in read)
    _, _, codes = whole_bed(countries.pooled.with_suffix(".bed"))
    return y[:, 0] - 1, sm.add_constant(x), codes


def genotype(codes: NDArray[np.int8]) -> Floats:
    """Alternate alleles, the mean of them where missing."""
    observed = (codes >= 0) & (codes < 3)
    return np.where(observed, codes, codes[observed].mean())


def binary(countries: Countries, test: SecondTest) -> Table:
    page = LogisticAssociation("panel", countries.binary[0], countries.covariates, test, 1.0, 4096, 40, 12)
    return asked(countries, page)[countries.binary[0]]


def some(got: Table) -> NDArray[np.int64]:
    """Twenty variants, some with missing genotypes."""
    there = np.flatnonzero(~got["withheld"])
    return np.asarray(there[:: len(there) // 20])


def test_scores_are_those_of_statsmodels(countries: Countries) -> None:
    got, (y, x, codes) = binary(countries, SecondTest.SCORE), pooled(countries)
    null = sm.GLM(y, x, sm.families.Binomial()).fit(tol=1e-12)
    for j in some(got):
        chi2 = np.ravel(null.model.score_test(null.params, exog_extra=genotype(codes[j])[:, None])[0])[0]
        assert got["z"][j] ** 2 == pytest.approx(chi2, rel=1e-6)


@PLINK2
def test_logistic_regressions_are_those_of_statsmodels_and_plinks(countries: Countries, tmp_path: Path) -> None:
    got, (y, x, codes) = binary(countries, SecondTest.LOGISTIC), pooled(countries)
    for j in some(got):
        fit = sm.GLM(y, np.column_stack([genotype(codes[j]), x]), sm.families.Binomial()).fit(tol=1e-12)
        assert (got["beta"][j], got["standard_error"][j]) == pytest.approx((fit.params[0], fit.bse[0]), rel=1e-6)
        assert got["z"][j] == pytest.approx(fit.tvalues[0], rel=1e-6)
    as_plink(got, plink2(countries, "cases.txt", tmp_path, "no-firth")[countries.binary[0]])


@PLINK2
def test_firths_regressions_are_plinks(countries: Countries, tmp_path: Path) -> None:
    got = binary(countries, SecondTest.FIRTH)
    as_plink(got, plink2(countries, "cases.txt", tmp_path, "firth")[countries.binary[0]])


def as_plink(got: Table, want: pl.DataFrame) -> None:
    """Where no genotype is missing, since plink2 leaves people without one out."""
    effect, there = effects(want, got), ~got["withheld"] & ~got["imputed"] & got["converged"]
    z, beta = effect * want["Z_STAT"].to_numpy(), effect * np.log(want["OR"].to_numpy())
    assert there.sum() > 30
    assert np.abs(got["z"] - z)[there].max() < SINGLE
    assert np.abs(got["beta"] - beta)[there].max() < SINGLE

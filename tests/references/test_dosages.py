"""Association of dosages, from every format that has them, against plink2 reading the same file."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from fl_client.readers import Dataset, DatasetConfig
from strategies.analyses.association import LinearAssociation
from strategies.analysis import VARIANTS_PER_SLICE, Answer, Frame, Range
from strategies.cohort import COPY, NO_DOSAGE
from strategies.study import Question
from strategies.variants import Panel, Variant
from tests.laws.zoo import panel
from tests.references.test_formats import HEAD, PLINK2, plink2, write_vcf
from tests.references.test_principal_components import over_sites
from tests.tiny import LINEAR, Tiny, study, write_sites

VARIANTS, PEOPLE, SITES = 60, 240, (0, 30, 90, 130, 240)
NAMES = tuple(f"p{i}" for i in range(PEOPLE))
QUESTION = LinearAssociation("p", ("trait",), ("sex", "age"), dosages=True, minimum_minor_alleles=5, minimum_missing=1)
RANGES = {"trait": Range(-10, 10), "sex": Range(1, 2), "age": Range(0, 100)}
FRAME = Frame(Panel("GRCh37", tuple(Variant("1", 10 + j, ".", "A", "C") for j in range(VARIANTS))), RANGES)


def imputed(rng: np.random.Generator) -> tuple[NDArray[np.float64], list[str]]:
    """(M, N) expected alleles, three decimals, NaN where missing, and the lines of a VCF that has them."""
    copies = rng.binomial(2, rng.uniform(0.05, 0.95, VARIANTS)[:, None], (VARIANTS, PEOPLE)).astype(np.float64)
    away = rng.choice([0.0, 0.02, 0.4], copies.shape, p=[0.4, 0.4, 0.2]) * rng.uniform(0, 1, copies.shape)
    copies = np.round(np.abs(copies - away), 3)
    copies[rng.random(copies.shape) < 0.03] = np.nan
    copies[:5] = np.where(np.isnan(copies[:5]), 1.0, copies[:5])  # nobody is missing
    lines = []
    for j, row in enumerate(copies):
        words = ["./.:." if np.isnan(d) else f"{('0/0', '0/1', '1/1')[round(d)]}:{d:.3f}" for d in row]
        lines.append(f"1 {10 + j} v{j} A C . . . GT:DS {' '.join(words)}")
    return copies, lines


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One set of people in three formats, a people table for each site, and plink2's phenotypes and covariates."""
    where, rng = tmp_path_factory.mktemp("dosages"), np.random.default_rng(21)
    copies, lines = imputed(rng)
    write_vcf(where, *lines, head=HEAD, people=NAMES)
    columns = {"sex": rng.integers(1, 3, PEOPLE), "age": rng.integers(20, 80, PEOPLE)}
    trait = 0.4 * np.nan_to_num(copies[7]) + 0.01 * columns["age"] + rng.normal(0, 1, PEOPLE)
    table = pl.DataFrame({"person": NAMES, "trait": np.round(trait, 4), **columns})
    table.rename({"person": "#IID"}).write_csv(where / "all.tsv", separator="\t")
    for site, (first, last) in enumerate(pairwise(SITES)):
        table[first:last].write_csv(where / f"people{site}.tsv", separator="\t")
    return where


def answered(folder: Path, genotypes: str, question: LinearAssociation = QUESTION) -> tuple[Answer, list[Dataset]]:
    opened = [
        Dataset.open(DatasetConfig(f"S{site}", "GRCh37", f"people{site}.tsv", genotypes), folder) for site in range(4)
    ]
    return over_sites(question, [site.cohort(question.needs(), FRAME) for site in opened], FRAME), opened


@PLINK2
@pytest.mark.parametrize("kind", ["vcf", "pgen", "bgen"])
def test_dosages_of_every_format_are_plink2s(kind: str, folder: Path) -> None:
    stem, out = str(folder / "g"), str(folder / kind)
    source = ["--vcf", f"{stem}.vcf", "dosage=DS"]
    if kind != "vcf":
        plink2(*source, "--make-pgen", "--out", stem)
        source = ["--pfile", stem]
    if kind == "bgen":
        plink2(*source, "--export", "bgen-1.2", "ref-first", "bits=16", "--out", stem)
        source = ["--bgen", f"{stem}.bgen", "ref-first", "--sample", f"{stem}.sample"]
    plink2(
        *source, "--pheno", str(folder / "all.tsv"), "--pheno-name", "trait", "--covar", str(folder / "all.tsv"),
        "--covar-name", "sex,age", "--glm", "hide-covar", "--out", out,
    )  # fmt: skip
    want = pl.read_csv(f"{out}.trait.glm.linear", separator="\t", null_values=["NA"])
    answer, _ = answered(folder, f"g.{kind}")
    table = answer.tables["trait"]
    sign = np.where(want["A1"].to_numpy() == "C", 1.0, -1.0)
    assert np.array_equal(np.asarray(table["n"]), want["OBS_CT"].to_numpy())
    t = np.asarray(table["t"]) * sign
    worst = np.abs(t / want["T_STAT"].to_numpy() - 1).max()
    print(kind, f"{worst:.1e}")
    assert np.isfinite(t).all()
    assert worst < 5e-6  # it prints six digits
    assert np.abs(np.asarray(table["beta"]) * sign / want["BETA"].to_numpy() - 1).max() < 5e-6


def test_dosages_are_least_squares_and_frequencies_their_sums(folder: Path) -> None:
    answer, opened = answered(folder, "g.vcf")
    cohorts = [site.cohort(QUESTION.needs(), FRAME) for site in opened]
    dosages = np.concatenate([c.dosages for c in cohorts if c.dosages is not None], axis=1)
    y, sex, age = (np.concatenate([c.columns[name] for c in cohorts]) for name in ("trait", "sex", "age"))
    table = answer.tables["trait"]
    for row, units in enumerate(dosages):
        seen = units != NO_DOSAGE
        g = units[seen] / COPY
        x = np.column_stack([np.ones(seen.sum()), sex[seen], age[seen], g])
        inverse = np.linalg.inv(x.T @ x)
        beta = inverse @ x.T @ y[seen]
        rest = y[seen] - x @ beta
        error = np.sqrt(rest @ rest / (len(g) - 4) * inverse[-1, -1])
        assert np.asarray(table["t"])[row] == pytest.approx(beta[-1] / error, rel=1e-9)
        assert np.asarray(table["effect_allele_frequency"])[row] == pytest.approx(g.mean() / 2, rel=1e-12)


def test_files_without_dosages_have_their_genotypes_as_dosages(folder: Path) -> None:
    """The same answer, digit for digit, with and without."""
    text = (folder / "g.vcf").read_text().replace("GT:DS", "GT")
    lines = [line if line.startswith("#") else _hard(line) for line in text.splitlines() if "ID=DS" not in line]
    (folder / "hard.vcf").write_text("\n".join(lines) + "\n")
    dosed, _ = answered(folder, "hard.vcf")
    hard, _ = answered(folder, "hard.vcf", replace(QUESTION, dosages=False))
    for name, values in hard.tables["trait"].items():
        np.testing.assert_array_equal(dosed.tables["trait"][name], values, name)


def _hard(line: str) -> str:
    return "\t".join(word.split(":")[0] if number > 8 else word for number, word in enumerate(line.split("\t")))


def test_the_rarer_allele_is_counted_by_the_sum_of_dosages(folder: Path) -> None:
    """Most people may have a little of an allele that nobody's nearest genotype has."""
    answer, opened = answered(folder, "g.vcf")
    needs = QUESTION.needs()
    dosages = np.concatenate([c.dosages for c in (d.cohort(needs, FRAME) for d in opened) if c.dosages is not None], 1)
    seen = dosages != NO_DOSAGE
    copies = np.where(seen, dosages / COPY, 0.0).sum(axis=1)
    minor = np.minimum(copies, 2 * seen.sum(axis=1) - copies)
    least = int(np.median(minor))
    assert len(set(np.ceil(minor))) > 10
    asked = replace(QUESTION, minimum_minor_alleles=least)
    rare = np.asarray(answered(folder, "g.vcf", asked)[0].tables["trait"]["rare"])
    assert np.array_equal(rare, minor < least)
    assert not np.asarray(answer.tables["trait"]["rare"]).all()


def test_nodes_answer_with_dosages(tmp_path: Path) -> None:
    """Through gates, masks and a conductor; their .bed files have genotypes alone."""
    tiny = Tiny.of(write_sites(tmp_path / "data"), tmp_path / "nodes")
    assert isinstance(LINEAR.analysis, LinearAssociation)
    dosed = Question("dosed", replace(LINEAR.analysis, dosages=True))
    hard, same = (r.answer.tables["trait"] for r in tiny.conductor(study(LINEAR, dosed), tmp_path / "run").run())
    for name, values in hard.items():
        np.testing.assert_array_equal(same[name], values, name)
    tiny.close()


def test_dosages_are_asked_for_in_smaller_slices() -> None:
    part = VARIANTS_PER_SLICE // 4
    frame = Frame(panel(2 * part + 1), RANGES)
    assert [s.stop - s.start for s in QUESTION.slices(frame)] == [part, part, 1]
    assert QUESTION.needs().dosages
    assert not LinearAssociation("p", ("trait",)).needs().dosages

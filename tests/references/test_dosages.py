"""Association of dosages, from every format that has them, against plink2 reading the same file, and statsmodels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import statsmodels.api as sm
from numpy.typing import NDArray
from scipy import special

from fl_client.readers import Dataset, DatasetConfig
from strategies.analyses.association import LinearAssociation
from strategies.analyses.logistic_association import LogisticAssociation, Stage
from strategies.analysis import VARIANTS_PER_SLICE, Answer, Frame, Range, Total
from strategies.cohort import COPY, NO_DOSAGE, Genotypes
from strategies.hits import SecondTest
from strategies.protections.suppression import WITHHELD
from strategies.question import Question
from strategies.summary import join
from strategies.variants import Panel, Variant
from tests.laws.zoo import add, panel
from tests.laws.zoo import cohort as laws_cohort
from tests.references.test_formats import HEAD, PLINK2, plink2, write_vcf
from tests.references.test_logistic_association import firth, residual, saddlepoint
from tests.references.test_principal_components import over_sites
from tests.references.test_simulated import SINGLE
from tests.tiny import LINEAR, Tiny, study, write_sites

VARIANTS, PEOPLE, SITES = 60, 240, (0, 30, 90, 130, 240)
WHOLE = 20
"""The first of the variants, of which nobody's genotype is missing."""

NAMES = tuple(f"p{i}" for i in range(PEOPLE))
QUESTION = LinearAssociation("p", ("trait",), ("sex", "age"), dosages=True, minimum_minor_alleles=5, minimum_missing=1)
BINARY = LogisticAssociation("p", "case", ("sex", "age"), SecondTest.LOGISTIC, 1.0, dosages=True)
RANGES = {"trait": Range(-10, 10), "case": Range(1, 2), "sex": Range(1, 2), "age": Range(0, 100)}
FRAME = Frame(Panel("GRCh37", tuple(Variant("1", 10 + j, ".", "A", "C") for j in range(VARIANTS))), RANGES)


def imputed(rng: np.random.Generator) -> tuple[NDArray[np.float64], list[str]]:
    """(M, N) expected alleles, three decimals, NaN where missing, and the lines of a VCF that has them."""
    copies = rng.binomial(2, rng.uniform(0.05, 0.95, VARIANTS)[:, None], (VARIANTS, PEOPLE)).astype(np.float64)
    away = rng.choice([0.0, 0.02, 0.4], copies.shape, p=[0.4, 0.4, 0.2]) * rng.uniform(0, 1, copies.shape)
    copies = np.round(np.abs(copies - away), 3)
    copies[rng.random(copies.shape) < 0.03] = np.nan
    copies[:WHOLE] = np.where(np.isnan(copies[:WHOLE]), 1.0, copies[:WHOLE])
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
    case = (trait + rng.logistic(0, 1, PEOPLE) > np.quantile(trait, 0.7)).astype(int) + 1
    table = pl.DataFrame({"person": NAMES, "trait": np.round(trait, 4), **columns, "case": case})
    table.rename({"person": "#IID"}).write_csv(where / "all.tsv", separator="\t")
    for site, (first, last) in enumerate(pairwise(SITES)):
        table[first:last].write_csv(where / f"people{site}.tsv", separator="\t")
    return where


def opened_at(folder: Path, *genotypes: str) -> list[Dataset]:
    """The four sites' data, each with the next of these files."""
    names = [genotypes[site % len(genotypes)] for site in range(4)]
    return [
        Dataset.open(DatasetConfig(f"S{site}", "GRCh37", f"people{site}.tsv", name), folder)
        for site, name in enumerate(names)
    ]


def answered(folder: Path, genotypes: str, question: LinearAssociation = QUESTION) -> tuple[Answer, list[Dataset]]:
    opened = opened_at(folder, genotypes)
    return over_sites(question, [site.cohort(question.needs(), FRAME) for site in opened], FRAME), opened


def written(kind: str, stem: str) -> list[str]:
    """The dosages of a VCF as a file of another kind, and the words by which plink2 reads it."""
    source = ["--vcf", f"{stem}.vcf", "dosage=DS"]
    if kind != "vcf":
        plink2(*source, "--make-pgen", "--out", stem)
        source = ["--pfile", stem]
    if kind == "bgen":
        plink2(*source, "--export", "bgen-1.2", "ref-first", "bits=16", "--out", stem)
        source = ["--bgen", f"{stem}.bgen", "ref-first", "--sample", f"{stem}.sample"]
    return source


@PLINK2
@pytest.mark.parametrize("kind", ["vcf", "pgen", "bgen"])
def test_dosages_of_every_format_are_plink2s(kind: str, folder: Path) -> None:
    source, out = written(kind, str(folder / "g")), str(folder / kind)
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
    write_hard(folder)
    dosed, _ = answered(folder, "hard.vcf")
    hard, _ = answered(folder, "hard.vcf", replace(QUESTION, dosages=False))
    for name, values in hard.tables["trait"].items():
        np.testing.assert_array_equal(dosed.tables["trait"][name], values, name)


def write_hard(folder: Path) -> None:
    """The same file without its dosages."""
    text = (folder / "g.vcf").read_text().replace("GT:DS", "GT")
    lines = [line if line.startswith("#") else _hard(line) for line in text.splitlines() if "ID=DS" not in line]
    (folder / "hard.vcf").write_text("\n".join(lines) + "\n")


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


# -- a binary trait ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pooled:
    """Everybody's numbers, from the sites' own files.

    Attributes:
        answer: table of the question over the sites.
        dosages: (M, N) alleles, a missing one the mean.
        x: (N, 3) intercept and covariates.
        y: (N,) 1 for a case.
    """

    answer: dict[str, NDArray[np.generic]]
    dosages: NDArray[np.float64]
    x: NDArray[np.float64]
    y: NDArray[np.float64]

    @staticmethod
    def of(folder: Path, question: LogisticAssociation, *genotypes: str) -> Pooled:
        parts = [site.cohort(question.needs(), FRAME) for site in opened_at(folder, *genotypes)]
        units = np.concatenate([part.dosages for part in parts if part.dosages is not None], axis=1)
        alleles = np.where(units == NO_DOSAGE, np.nan, units / COPY)
        alleles = np.where(np.isnan(alleles), np.nanmean(alleles, axis=1, keepdims=True), alleles)
        case, sex, age = (np.concatenate([part.columns[name] for part in parts]) for name in ("case", "sex", "age"))
        table = over_sites(question, parts, FRAME).tables["case"]
        x = np.column_stack([np.ones(len(case)), sex, (age - 50) / 20])
        return Pooled({name: np.asarray(column) for name, column in table.items()}, alleles, x, (case > 1.5) * 1.0)

    def null(self) -> NDArray[np.float64]:
        """(N,) mu under the null model."""
        return np.asarray(sm.Logit(self.y, self.x).fit(disp=0, tol=1e-14).predict())

    def near(self, name: str, want: list[float]) -> None:
        assert self.answer[name].tolist() == pytest.approx(want, rel=1e-6)


@pytest.fixture(params=["dosages", "dosages at two sites of four"])
def files(request: pytest.FixtureRequest, folder: Path) -> tuple[str, ...]:
    write_hard(folder)
    return ("g.vcf",) if request.param == "dosages" else ("g.vcf", "hard.vcf")


def test_a_binary_trait_s_scores_are_raos_of_dosages(folder: Path, files: tuple[str, ...]) -> None:
    got = Pooled.of(folder, replace(BINARY, test=SecondTest.SCORE), *files)
    mu = got.null()
    left = [residual(g, got.x, mu * (1 - mu)) for g in got.dosages]
    u = [float(a @ (got.y - mu)) for a in left]
    v = [float(a**2 @ (mu * (1 - mu))) for a in left]
    got.near("z", [one / two**0.5 for one, two in zip(u, v, strict=True)])
    got.near("beta", [one / two for one, two in zip(u, v, strict=True)])
    got.near("effect_allele_frequency", (got.dosages.mean(axis=1) / 2).tolist())
    assert len(set((got.dosages * COPY).ravel().astype(int).tolist())) > 500
    assert np.asarray(got.answer["imputed"]).tolist() == [False] * WHOLE + [True] * (VARIANTS - WHOLE)


def test_a_binary_trait_s_second_tests_read_dosages(folder: Path, files: tuple[str, ...]) -> None:
    got = Pooled.of(folder, BINARY, *files)
    fits = [sm.Logit(got.y, np.column_stack([g, got.x])).fit(disp=0, tol=1e-14) for g in got.dosages]
    got.near("beta", [fit.params[0] for fit in fits])
    got.near("standard_error", [fit.bse[0] for fit in fits])
    mu = got.null()
    few = replace(got, dosages=got.dosages[::7])

    got = Pooled.of(folder, replace(BINARY, test=SecondTest.FIRTH), *files)
    firths = [firth(np.column_stack([g, got.x]), got.y) for g in few.dosages]
    assert got.answer["beta"][::7].tolist() == pytest.approx([b[0] for b, _, _ in firths], rel=1e-6)

    lefts = [residual(g, got.x, mu * (1 - mu)) for g in few.dosages]
    got = Pooled.of(folder, replace(BINARY, test=SecondTest.FIRTH_APPROXIMATE), *files)
    betas = [firth(left[:, None], got.y, special.logit(mu))[0][0] for left in lefts]
    assert got.answer["beta"][::7].tolist() == pytest.approx(betas, rel=1e-6)

    got, compared = Pooled.of(folder, replace(BINARY, test=SecondTest.SPA), *files), 0
    for left, p, test in zip(lefts, got.answer["p_value"][::7], got.answer["test"][::7], strict=True):
        u = float(left @ (got.y - mu))
        if test == "spa":
            assert p == pytest.approx(saddlepoint(left, mu, abs(u)) + saddlepoint(left, mu, -abs(u)), rel=1e-6)
            compared += 1
    assert compared > 5


@PLINK2
@pytest.mark.parametrize("kind", ["vcf", "pgen", "bgen"])
def test_a_binary_trait_s_dosages_of_every_format_are_plink2s(kind: str, folder: Path) -> None:
    """Where nobody's genotype is missing: plink2 leaves such people out, and the score test has them as the mean."""
    source, out = written(kind, str(folder / "g")), str(folder / f"binary.{kind}")
    plink2(
        *source, "--pheno", str(folder / "all.tsv"), "--pheno-name", "case", "--covar", str(folder / "all.tsv"),
        "--covar-name", "sex,age", "--covar-variance-standardize", "--glm", "hide-covar", "no-firth", "--out", out,
    )  # fmt: skip
    want = pl.read_csv(f"{out}.case.glm.logistic", separator="\t", null_values=["NA"])[:WHOLE]
    table = Pooled.of(folder, BINARY, f"g.{kind}").answer
    sign = np.where(want["A1"].to_numpy() == "C", 1.0, -1.0)
    z, odds = want["Z_STAT"].to_numpy() * sign, np.log(want["OR"].to_numpy()) * sign
    apart = np.abs(table["z"][:WHOLE] - z).max(), np.abs(table["beta"][:WHOLE] - odds).max()
    print(kind, apart)
    assert max(apart) < SINGLE
    assert set(table["test"]) == {"logistic"}


def test_nodes_answer_about_a_binary_trait_with_dosages(tmp_path: Path) -> None:
    """Through gates, masks and a conductor; their .bed files have genotypes alone, and so the same answer."""
    tiny = Tiny.of(write_sites(tmp_path / "data"), tmp_path / "nodes")
    page = LogisticAssociation("panel", "high", ("sex",), SecondTest.LOGISTIC, 0.05, minimum_minor_alleles=1)
    asked = study(Question("hard", page), Question("dosed", replace(page, dosages=True)))
    hard, same = (r.answer.tables["high"] for r in tiny.conductor(asked, tmp_path / "run").run())
    assert "logistic" in hard["test"]
    for name, values in hard.items():
        np.testing.assert_array_equal(same[name], values, name)
    tiny.close()


def test_hits_with_dosages_are_asked_for_in_smaller_pieces() -> None:
    """Which join to the whole."""
    part, m = VARIANTS_PER_SLICE // 4, VARIANTS_PER_SLICE // 4 + 30
    people = laws_cohort(90, m, 3, missing=0.0)
    page = LogisticAssociation(
        "p", "high", (), SecondTest.FIRTH_APPROXIMATE, 1.0, 4096, minimum_minor_alleles=1, dosages=True
    )
    frame, question = Frame(panel(m), {"high": Range(0, 1)}), page
    assert [s.stop - s.start for s in page.slices(frame) if isinstance(s, slice)] == [part, 30]
    while question.stage is not Stage.HITS:
        parts = [people.take(np.arange(90)[s::3]) for s in range(3)]
        following = question.conclude(Total(add([question.summarise(p, frame) for p in parts]), tuple("abc")), frame)
        assert isinstance(following, LogisticAssociation)
        question = following
    spans, joined = question.slices(frame), []
    assert [len(span) for span in spans if isinstance(span, np.ndarray)] == [part, len(question.hits) - part]
    assert people.genotypes is not None
    assert people.dosages is not None
    for span in spans:
        assert isinstance(span, np.ndarray)
        packed = Genotypes(people.genotypes.packed[span], len(people))
        cut = replace(people, genotypes=packed, dosages=people.dosages[span])
        joined.append(question.summarise(cut, frame[span]))
    whole = question.summarise(people, frame)
    for name, values in join(joined, question.leaves(frame)).items():
        np.testing.assert_array_equal(values, whole[name], name)


def test_a_rare_variant_s_sum_of_dosages_is_withheld_with_its_counts() -> None:
    people, frame = laws_cohort(90, 23, 3), Frame(panel(23), {"high": Range(0, 1)})
    page = LogisticAssociation("p", "high", (), SecondTest.SCORE, minimum_minor_alleles=45, dosages=True)
    shown = page.withhold(page.summarise(people, frame), 3)
    hidden = (shown["genotypes"] == WITHHELD).any(axis=1)
    assert 0 < hidden.sum() < 23
    assert np.array_equal(shown["alleles"] == WITHHELD, hidden)


def test_a_binary_trait_s_dosages_are_of_two_copies() -> None:
    with pytest.raises(ValueError, match="two copies"):
        replace(BINARY, sex="sex")

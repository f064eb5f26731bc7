"""Counts by sex and by group: against a person-by-person count, and against plink2 on X, Y and MT of both builds."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from simulations.populations import write_bed
from strategies.analyses.allele_frequency import NoisedFrequency
from strategies.analyses.association import LinearAssociation
from strategies.analyses.genotype_counts import GenotypeCounts
from strategies.analyses.logistic_association import LogisticAssociation
from strategies.analyses.meta_analysis import MetaAnalysis
from strategies.analysis import Answer, Frame, Range, Total
from strategies.cohort import Cohort, Genotypes
from strategies.errors import UsageError
from strategies.hits import SecondTest
from strategies.ploidy import read_by_sex
from strategies.privacy import Budget
from strategies.question import Question
from strategies.study import Purpose, Study
from strategies.variants import Panel, Variant
from tests.references.test_principal_components import over_sites

ENDS = {"GRCh37": (2_699_520, 154_931_044, 155_260_560), "GRCh38": (2_781_479, 155_701_383, 156_030_895)}
"""Last of PAR1, first and last of PAR2 on X."""

FLAGS = {"GRCh37": "b37", "GRCh38": "b38"}
PRINTED = 5e-6
"""Relative: plink2 prints six significant digits."""


def panel(assembly: str) -> Panel:
    one, two, last = ENDS[assembly]
    x = [70_000, one, one + 1, 50_000_000, 50_000_001, two - 1, two, last]
    places = (
        [("22", p) for p in (5, 6)]
        + [("X", p) for p in x]
        + [("Y", 3_000_000), ("Y", 3_000_001), ("MT", 10), ("MT", 11)]
    )
    return Panel(assembly, tuple(Variant(c, p, f"{c}_{p}", "C", "A") for c, p in places))


def people(of: Panel, size: int, seed: int, unknown: bool = False) -> Cohort:
    """Genotypes with missing ones; in every second variant no male is heterozygous at X or Y, and nobody at MT."""
    rng = np.random.default_rng(seed)
    sex = rng.integers(0 if unknown else 1, 3, size).astype(float)
    codes = rng.binomial(2, rng.uniform(0.1, 0.9, len(of))[:, None], (len(of), size)).astype(np.uint8)
    codes[rng.random(codes.shape) < 0.05] = 3
    for j in range(0, len(of), 2):
        one = np.ones(size, dtype=bool) if of.variants[j].chromosome == "MT" else sex == 1
        codes[j, one & (codes[j] == 1)] = 2
    return Cohort(size, Genotypes.pack(codes), {"sex": sex, "group": rng.integers(3, 6, size).astype(float)})


def carried(variant: Variant, assembly: str, sex: float, code: int) -> int | None:
    """Which of the seven cells one person is in, by the rules as a geneticist says them; None for none."""
    one, two, last = ENDS[assembly]
    par = variant.position <= one or two <= variant.position <= last
    if variant.chromosome == "Y" and sex != 1:
        return None
    if variant.chromosome == "X" and not par and sex not in (1, 2):
        return 3
    if variant.chromosome in ("Y", "MT") or (variant.chromosome == "X" and not par and sex == 1):
        return {0: 4, 2: 5}.get(code, 6)
    return code


def answered(question: GenotypeCounts, cohort: Cohort, frame: Frame) -> Answer:
    parts = [question.summarise(cohort.take(np.arange(len(cohort))[s::3]), frame) for s in range(3)]
    sums = {name: np.sum([part[name] for part in parts], axis=0) for name in parts[0]}
    answer = question.conclude(Total(sums, ("a", "b", "c")), frame)
    assert isinstance(answer, Answer)
    return answer


@pytest.mark.parametrize("assembly", list(ENDS))
@pytest.mark.parametrize("size", [1, 63, 64, 131])
def test_everybody_is_in_the_cell_where_a_geneticist_puts_her(assembly: str, size: int) -> None:
    of = panel(assembly)
    cohort = people(of, size, size, unknown=True)
    cohort.columns["sex"][::17] = np.nan
    cohort.columns["group"][5::19] = np.nan
    frame = Frame(of, {"sex": Range(0, 2), "group": Range(3, 5)})
    got = GenotypeCounts("p", by="group", sex="sex").summarise(cohort, frame)
    want, number, codes = np.zeros((len(of), 3, 7), dtype=int), np.zeros(3, dtype=int), cohort.genotypes.codes()
    for i in range(size):
        sex, group = cohort.columns["sex"][i], cohort.columns["group"][i]
        if np.isnan(sex) or np.isnan(group):
            continue
        number[int(group) - 3] += 1
        for j, variant in enumerate(of.variants):
            cell = carried(variant, assembly, sex, int(codes[j, i]))
            if cell is not None:
                want[j, int(group) - 3, cell] += 1
    assert np.array_equal(got["groups"], want)
    assert np.array_equal(got["genotypes"], want.sum(axis=1))
    assert np.array_equal(got["group_people"], number)
    assert got["people"] == number.sum()
    seen = want[:, :, [0, 1, 2, 4, 5]].any(axis=2)
    assert np.array_equal(got["group_holders"], seen)
    assert np.array_equal(got["holders"], seen.any(axis=1))


def read_codes(cohort: Cohort, on: Panel, assembly: str) -> np.ndarray:
    """One person and variant after the other."""
    codes = cohort.genotypes.codes().copy()
    for j, variant in enumerate(on.variants):
        for i, sex in enumerate(cohort.columns["sex"]):
            cell = carried(variant, assembly, sex, int(codes[j, i]))
            codes[j, i] = {4: 0, 5: 2, 6: 3}.get(cell, cell)
    return codes


@pytest.mark.parametrize("assembly", list(ENDS))
def test_a_regression_reads_what_a_geneticist_would(assembly: str) -> None:
    of = panel(assembly)
    on = of[np.flatnonzero([v.chromosome != "Y" for v in of.variants])]
    cohort = people(on, 131, 4, unknown=True)
    got = read_by_sex(cohort, on, "sex").codes()
    assert np.array_equal(got, read_codes(cohort, on, assembly))
    assert (got != cohort.genotypes.codes()).any()
    autosomes = replace(cohort, genotypes=cohort.genotypes[:2])
    assert read_by_sex(autosomes, on[:2], None) is autosomes.genotypes


def test_groups_without_a_column_of_sexes_add_up_to_the_plain_counts() -> None:
    of = panel("GRCh37")[:2]
    cohort = people(panel("GRCh37"), 200, 3)
    cohort = replace(cohort, genotypes=cohort.genotypes[:2])
    frame = Frame(of, {"group": Range(3, 5)})
    plain = GenotypeCounts("p").summarise(cohort, frame)
    grouped = GenotypeCounts("p", by="group").summarise(cohort, frame)
    assert np.array_equal(grouped["groups"].sum(axis=1), plain["genotypes"])
    for name in plain:
        assert np.array_equal(grouped[name], plain[name])


@pytest.mark.skipif(shutil.which("plink2") is None, reason="plink2 is not installed: X, Y and MT not compared with it")
@pytest.mark.parametrize("assembly", list(ENDS))
def test_x_y_and_mt_are_plinks(assembly: str, tmp_path: Path) -> None:
    of = panel(assembly)
    cohort = people(of, 300, 8)
    names = [f"s{i}" for i in range(300)]
    write_bed(tmp_path / "a", of, cohort.genotypes.codes(), names)
    sexes = [f"0\t{n}\t0\t0\t{int(s)}\t-9\n" for n, s in zip(names, cohort.columns["sex"], strict=True)]
    (tmp_path / "a.fam").write_text("".join(sexes))

    def plink(*arguments: str) -> None:
        command = ["plink2", "--bfile", "a", "--split-par", FLAGS[assembly], "--threads", "1", *arguments]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)

    def table(name: str) -> pl.DataFrame:
        return pl.read_csv(tmp_path / name, separator="\t")

    plink("--geno-counts", "--freq", "--hardy", "--out", "all")
    plink("--keep-females", "--hardy", "--out", "females")
    frame = Frame(of, {"sex": Range(1, 2)})
    got = answered(GenotypeCounts("p", sex="sex"), cohort, frame).tables["frequencies"]
    counts = table("all.gcount")
    assert counts["ID"].to_list() == list(got["id"])
    columns = {
        "hom_ref": "HOM_REF_CT", "het": "HET_REF_ALT_CTS", "hom_alt": "TWO_ALT_GENO_CTS",
        "hemi_ref": "HAP_REF_CT", "hemi_alt": "HAP_ALT_CTS", "missing": "MISSING_CT",
    }  # fmt: skip
    for ours, theirs in columns.items():
        assert np.array_equal(got[ours], counts[theirs].to_numpy()), ours
    # Where a male is heterozygous, plink2 counts him as missing above and as half of each allele in frequencies.
    frequencies, clean = table("all.afreq"), np.arange(len(of)) % 2 == 0
    on_x = np.array([v.chromosome == "X" for v in of.variants])
    assert (clean & on_x).sum() == 4
    both = clean | np.array([v.chromosome == "22" for v in of.variants])
    assert np.array_equal(got["an"][both], frequencies["OBS_CT"].to_numpy()[both])
    assert np.allclose(got["frequency"][both], frequencies["ALT_FREQS"].to_numpy()[both], rtol=PRINTED, atol=0)
    p = {**dict(table("all.hardy").select("ID", "P").rows()), **dict(table("females.hardy.x").select("ID", "P").rows())}
    for name, value in zip(got["id"], got["hwe_p"], strict=True):
        assert np.isnan(value) == name.startswith(("Y", "MT"))
        assert np.isnan(value) or value == pytest.approx(p[name], rel=PRINTED), name
    by_sex = answered(GenotypeCounts("p", by="sex", sex="sex"), cohort, frame).tables["populations"]
    for label, flag in (("M", "--keep-males"), ("F", "--keep-females")):
        plink(flag, "--geno-counts", "--out", label)
        counts, here = table(f"{label}.gcount"), np.array(by_sex["population"]) == label
        for ours, theirs in columns.items():
            want = counts[theirs].to_numpy()
            if label == "F":  # of Y, plink2 counts missing genotypes of nobody, too
                want = np.where(counts["#CHROM"].to_numpy() == "Y", 0, want)
            assert np.array_equal(np.asarray(by_sex[ours])[here], want), (label, ours)


def question(**parameters: object) -> Question:
    return Question("q", GenotypeCounts("all", **parameters))  # type: ignore[arg-type]


def study(asked: Question, **columns: tuple[float, float]) -> Study:
    ranges = {name: Range(*span) for name, span in columns.items()}
    return Study("t", Purpose.SCIENTIFIC_RESEARCH, "GRCh37", 3, ranges, {"all": panel("GRCh37")}, (asked,))


SEXES, GROUPS = {"sex": (1, 2)}, {"sex": (1, 2), "group": (3, 5)}


@pytest.mark.parametrize(
    ("asked", "columns", "words"),
    [
        (question(), {}, r'8 of panel .all., the first is X:2699521:C:A.*\n.*add sex = "COLUMN"'),
        (question(by="group"), {"group": (3, 5)}, "are read by sex"),
        (question(sex="sex"), {"sex": (0, 1)}, r"declare sex = \[1, 2\] or \[0, 2\]"),
        (question(by="sex", sex="sex", labels=("F",)), SEXES, "as many labels as groups"),
        (question(by="group", sex="sex"), {"sex": (1, 2), "group": (3, 5.5)}, r"'group' has \[3, 5.5\]"),
        (question(by="group", sex="sex"), {"sex": (1, 2), "group": (1, 21)}, "at most 20"),
        (question(by="group", sex="sex"), {"sex": (1, 2), "group": (0, 1e300)}, "at most 20"),
        (Question("q", NoisedFrequency("all"), Budget(1.0, 1e-5)), {}, "everybody carries two copies"),
        (Question("q", MetaAnalysis("all", ("group",)), by_site=True), {"group": (3, 5)}, "are read by sex"),
        (
            Question("q", MetaAnalysis("all", ("group",), sex="sex"), by_site=True),
            GROUPS,
            r"genotype on Y.*2 of.*Y:3000000:C:A",
        ),
    ],
)
def test_what_cannot_be_counted_is_said_when_the_study_is_read(
    asked: Question, columns: dict[str, tuple[float, float]], words: str
) -> None:
    made = study(asked, **columns)
    with pytest.raises(UsageError, match=r"(?s)" + words) as caught:
        Study.from_document(made.document, {"all": panel("GRCh37").encode()})
    assert str(caught.value).startswith("the study, question 1: ")


@pytest.mark.parametrize("labels", [("Total", "b", "c"), ("a", "a", "b"), ("a b", "c", "d"), ("", "a", "b")])
def test_labels_are_names(labels: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="labels are different names"):
        GenotypeCounts("p", by="group", labels=labels)
    with pytest.raises(ValueError, match="labels name the groups"):
        GenotypeCounts("p", labels=("a", "b"))


def test_a_study_names_groups_as_its_file_says() -> None:
    made = study(question(by="group", sex="sex", labels=("FI", "SE", "NO")), **GROUPS)
    again = Study.from_document(made.document, {"all": panel("GRCh37").encode()})
    assert again == made
    answer = answered(made.questions[0].analysis, people(panel("GRCh37"), 90, 1), made.frame(made.questions[0]))
    assert list(dict.fromkeys(answer.tables["populations"]["population"])) == ["FI", "SE", "NO"]
    assert answer.facts["people_FI"] + answer.facts["people_SE"] + answer.facts["people_NO"] == 90
    plain = study(question(by="group", sex="sex"), **GROUPS)
    assert plain.questions[0].analysis.groups(plain.frame(plain.questions[0])) == ("3", "4", "5")


@pytest.mark.skipif(shutil.which("plink2") is None, reason="plink2 is not installed: X and MT not compared with it")
@pytest.mark.parametrize("assembly", list(ENDS))
def test_an_association_on_x_is_plinks(assembly: str, tmp_path: Path) -> None:
    """Over autosomes, pseudo-autosomal regions, X and MT, also with men who are heterozygous where they cannot be."""
    on = panel(assembly)
    on = on[np.flatnonzero([v.chromosome != "Y" for v in on.variants])]
    cohort = people(on, 400, 8)
    rng = np.random.default_rng(2)
    age, sex = np.clip(rng.normal(50, 12, 400), 20, 90), cohort.columns["sex"]
    trait = np.clip(0.02 * age + 0.3 * sex + 0.2 * (cohort.genotypes.codes()[3] == 2) + rng.normal(size=400), -6, 9)
    cohort = replace(cohort, columns={"sex": sex, "age": age, "trait": trait})
    frame = Frame(on, {"sex": Range(1, 2), "age": Range(20, 90), "trait": Range(-6, 9)})
    asked = LinearAssociation("p", ("trait",), ("age", "sex"), minimum_minor_alleles=1, minimum_missing=1, sex="sex")
    parts = [cohort.take(np.arange(400)[s::3]) for s in range(3)]
    names = [f"s{i}" for i in range(400)]
    write_bed(tmp_path / "a", on, cohort.genotypes.codes(), names)
    sexes = [f"0\t{n}\t0\t0\t{int(s)}\t-9\n" for n, s in zip(names, sex, strict=True)]
    (tmp_path / "a.fam").write_text("".join(sexes))
    table = {"#IID": names, "age": age, "sex": sex, "trait": trait}
    for name, columns in (("trait", ("#IID", "trait")), ("covar", ("#IID", "age", "sex"))):
        pl.DataFrame({c: table[c] for c in columns}).write_csv(tmp_path / f"{name}.txt", separator="\t")
    cleaned = ("--set-hh-missing", "--set-mixed-mt-missing", "--make-bed", "--out", "b")
    regressed = (
        "--pheno",
        "trait.txt",
        "--covar",
        "covar.txt",
        "--glm",
        "hide-covar",
        "no-x-sex",
        "omit-ref",
        "--out",
        "glm",
    )
    split = ("--bfile", "a", "--split-par", FLAGS[assembly], "--make-bed", "--out", "s")
    for words in (split, ("--bfile", "s", *cleaned), ("--bfile", "b", *regressed)):
        subprocess.run(["plink2", *words], cwd=tmp_path, check=True, capture_output=True)
    theirs = pl.read_csv(tmp_path / "glm.trait.glm.linear", separator="\t", null_values="NA")
    got = over_sites(asked, parts, frame).tables["trait"]
    assert theirs["ID"].to_list() == list(got["id"])
    assert np.asarray(got["n"]).tolist() == theirs["OBS_CT"].to_list()
    for ours, name in (("t", "T_STAT"), ("p_value", "P")):
        assert np.asarray(got[ours]) == pytest.approx(theirs[name].to_numpy(), rel=PRINTED)
    one = np.where([v.chromosome == "MT" for v in on.variants], 2.0, 1.0)  # where PLINK has one copy count as one
    assert np.asarray(got["beta"]) * one == pytest.approx(theirs["BETA"].to_numpy(), rel=PRINTED)
    assert min(theirs["OBS_CT"]) < 330 < max(theirs["OBS_CT"])

    # A binary trait, by the same reading: scores of the genotypes that a person's reading gives.
    cohort = replace(cohort, columns={"sex": sex, "age": age, "trait": (trait > np.median(trait)).astype(float)})
    by_hand = replace(cohort, genotypes=Genotypes.pack(read_codes(cohort, on, assembly)))
    plain = LogisticAssociation("p", "trait", ("age", "sex"), SecondTest.SCORE, minimum_minor_alleles=1)
    frame = Frame(on, {**frame.columns, "trait": Range(0, 1)})
    autosomes = Frame(
        Panel(on.assembly, tuple(v._replace(chromosome="22", position=1 + j) for j, v in enumerate(on.variants))),
        frame.columns,
    )
    answers = [
        over_sites(question, [people.take(np.arange(400)[s::3]) for s in range(3)], around).tables["trait"]
        for question, people, around in ((replace(plain, sex="sex"), cohort, frame), (plain, by_hand, autosomes))
    ]
    for name in ("z", "p_value", "n"):
        assert np.array_equal(np.asarray(answers[0][name]), np.asarray(answers[1][name]))

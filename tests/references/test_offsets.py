"""A whole-genome regression's predictions as the offset of an association: against dense algebra on the pooled people,
published outputs of REGENIE and of Glow, and simulated relatives."""

from __future__ import annotations

import csv
import gzip
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from strategies.analyses.association import LinearAssociation
from strategies.analyses.principal_components import PrincipalComponents
from strategies.analyses.whole_genome_regression import WholeGenomeRegression
from strategies.analysis import PROJECTED, Answer, Frame, Range
from strategies.cohort import MISSING, Cohort, Genotypes
from strategies.design import MOST_SQUARE, Design, Standardise
from strategies.errors import GenosumError, UsageError
from strategies.question import Question
from strategies.study import Study
from strategies.variants import Panel, Variant
from tests import tiny as small
from tests.references.families import Families
from tests.references.test_principal_components import over_sites
from tests.references.test_whole_genome_regression import frame, split, standardised, without
from tests.references.zarr import read
from tests.tiny import NAMES, PANEL, Tiny, study, write_sites

GOLDEN = Path(__file__).parents[3] / "shared" / "data" / "association_golden"
REGENIE, GLOW = GOLDEN / "nf-gwas", GOLDEN / "sgkit" / "test_regenie"
Floats = NDArray[np.float64]


def with_offsets(
    codes: NDArray[np.uint8],
    columns: dict[str, Floats],
    regression: WholeGenomeRegression,
    place: Frame,
    site: NDArray[np.int64],
) -> tuple[Answer, dict[str, Floats], Frame]:
    """A regression's answer over sites, all columns with those that it offers, and a frame with their ranges."""
    answer = over_sites(regression, split(codes, columns, site), place)
    made = regression.projection(answer, place)
    distance = np.where(codes == MISSING, 0.0, codes - made.centre[:, None])
    offered = {f"wgr.{name}": distance.T @ made.weights[:, i] for i, name in enumerate(made.names)}
    return answer, columns | offered, replace(place, columns={**place.columns, **dict.fromkeys(offered, PROJECTED)})


def associated(
    question: LinearAssociation,
    answer: Answer,
    codes: NDArray[np.uint8],
    columns: dict[str, Floats],
    place: Frame,
    site: NDArray[np.int64],
) -> Answer:
    """A question's answer over sites, after the regression's."""
    asked = question.after(answer, place) if question.offset else question
    return over_sites(asked, split(codes, columns, site), place)


def slopes(g: Floats, y: Floats, x: Floats) -> tuple[Floats, Floats]:
    """(M,) beta and t of each row of (M, N) genotypes beside X, by least squares."""
    g, y = without(x, g), without(x, y)
    own = (g * g).sum(axis=1)
    beta = g @ y / own
    degrees = len(y) - x.shape[1] - 1
    return beta, beta / np.sqrt((y @ y - beta**2 * own) / degrees / own)


def test_with_an_offset_it_is_least_squares_of_what_a_dense_ridge_regression_leaves() -> None:
    rng = np.random.default_rng(17)
    people = Families.of(families=70, children=3, chromosomes=3, each=50, rng=rng)
    codes, n = people.codes, people.codes.shape[1]
    codes[rng.random(codes.shape) < 0.02] = MISSING
    age = rng.uniform(20, 80, n)
    genetic = standardised(codes).T @ rng.normal(0, 1, len(codes))
    columns = {"height": genetic / genetic.std() + rng.normal(0, 0.8, n) + 0.02 * age, "age": age}
    columns["height"][rng.random(n) < 0.03] = np.nan
    site = rng.choice(4, n, p=(0.1, 0.2, 0.3, 0.4))
    regression = WholeGenomeRegression("panel", ("height",), ("age",), tuple("123"), iterations=50, tolerance=1e-7)
    answer, every, place = with_offsets(codes, columns, regression, frame(people.chromosome), site)
    asked = LinearAssociation("panel", ("height",), ("age",), offset="wgr", minimum_missing=1)
    table = associated(asked, answer, codes, every, place, site).tables["height"]
    there = np.isfinite(columns["height"])
    x, y = np.column_stack([np.ones(there.sum()), age[there]]), columns["height"][there]
    z, g = standardised(codes[:, there]), codes[:, there].astype(np.float64)
    mean = np.nanmean(np.where(g == MISSING, np.nan, g), axis=1, keepdims=True)
    exact = np.where(g == MISSING, 0.0, (g - mean) / np.sqrt(mean * (1 - mean / 2)))  # fitted with rounded centres
    h, shrinkage, calibration = (
        float(answer.facts[f"{what}_height"]) for what in ("heritability", "shrinkage", "calibration")
    )
    worst = 0.0
    for c in (1, 2, 3):
        other = without(x, z[people.chromosome != c])
        rest = without(x, y) / y.std()
        weights = np.linalg.solve(other @ other.T + len(z) * (1 - h) / h * np.eye(len(other)), other @ rest)
        offset = y.std() * (exact[people.chromosome != c].T @ weights)
        for row in np.flatnonzero(people.chromosome == c):
            seen = g[row] != MISSING
            beta, t = slopes(g[row : row + 1, seen], (y - offset)[seen], x[seen])
            got = [float(np.asarray(table[name])[row]) for name in ("beta", "t")]
            error = max(abs(got[0] * shrinkage - beta[0]) / abs(beta[0] / t[0]), abs(got[1] / calibration**0.5 - t[0]))
            worst = max(worst, error)
    print(f"{worst:.1e} standard errors")
    assert worst < 1e-6


def sites_of_500(chromosome: str) -> tuple[NDArray[np.uint8], dict[str, Floats], Frame, NDArray[np.int64], list[str]]:
    """nf-gwas' people at four sites: genotypes of one chromosome, traits, ranges, and the variants' names."""
    codes, variants = [], []
    with gzip.open(REGENIE / "example_hg38.vcf.gz", "rt") as file:
        for line in file:
            if not line.startswith("#"):
                _, position, name, reference, alternate, _, _, _, _, *calls = line.split()
                codes.append([call.count("1") for call in calls])
                variants.append(Variant(chromosome, int(position), name, reference, alternate))
    rows = [line.split() for line in (REGENIE / "phenotype.txt").read_text().splitlines()[1:]]
    columns = {f"Y{t}": np.array([float(row[1 + t]) for row in rows]) for t in (1, 2)}
    panel = Panel("GRCh38", tuple(v._replace(reference="A", alternate="C") for v in variants))
    site = np.random.default_rng(4).choice(4, len(rows), p=(0.1, 0.2, 0.3, 0.4))
    return (
        np.array(codes, dtype=np.uint8),
        columns,
        Frame(panel, {name: Range(-20.0, 20.0) for name in columns}),
        site,
        [v.identifier for v in variants],
    )


@pytest.mark.skipif(not REGENIE.exists(), reason="the shared data folder is not there")
def test_regenies_published_step_2_is_reproduced() -> None:
    """nf-gwas' example has one chromosome, so REGENIE's prediction without it is nothing, as is ours, and no covariates
    took part. Its chi-square is of a score test: (N - 1) r^2, where r^2 = t^2 / (t^2 + N - 2)."""
    codes, columns, place, site, names = sites_of_500("1")
    traits = ("Y1", "Y2")
    regression = WholeGenomeRegression("panel", traits, (), ("1",))
    answer, every, place = with_offsets(codes, columns, regression, place, site)
    for trait in traits:
        assert not every[f"wgr.{trait}_chr1"].any()
        assert answer.facts[f"shrinkage_{trait}"] == pytest.approx(1, abs=1e-12)
        assert answer.facts[f"calibration_{trait}"] == pytest.approx(1, abs=1e-9)
    asked = LinearAssociation("panel", traits, offset="wgr", minimum_minor_alleles=1)
    tables = associated(asked, answer, codes, every, place, site).tables
    compared = 0
    for trait in traits:
        beta, t, frequency = (np.asarray(tables[trait][name]) for name in ("beta", "t", "effect_allele_frequency"))
        chi = 499 * t**2 / (t**2 + 498)
        with gzip.open(REGENIE / f"regenie_step2_example_{trait}.regenie.gz", "rt") as file:
            for line in list(file)[1:]:
                words = line.split()
                row = names.index(words[2])
                want = [float(words[number]) for number in (9, 11, 12, 5)]
                got = [beta[row], chi[row], -np.log10(stats.chi2.sf(chi[row], 1)), frequency[row]]
                assert got == pytest.approx(want, rel=1e-5, abs=1e-6)  # it prints six digits
                compared += 1
    assert compared == 2000


def glows(simulation: str = "sim_sm_02") -> tuple[NDArray[np.uint8], dict[str, Floats], NDArray[np.int64], Frame]:
    """sgkit's simulated people: genotypes, columns, each variant's chromosome from 0, and the frame."""
    folder = GLOW / "dataset" / simulation
    codes = read(folder / "genotypes.zarr.zip", "call_genotype").sum(axis=2).astype(np.uint8)
    contig = read(folder / "genotypes.zarr.zip", "variant_contig")
    columns = {}
    for name in ("traits", "covariates"):
        with (folder / f"{name}.csv").open() as file:
            head, *rows = csv.reader(file)
        columns |= {word: np.array([float(row[1 + k]) for row in rows]) for k, word in enumerate(head[1:])}
    place = frame(contig + 1)
    ranges = {name: Range(-350.0, -150.0) if name[0] == "Y" else Range(-10.0, 10.0) for name in columns}
    return codes, columns, contig, Frame(place.panel, ranges)


@pytest.mark.skipif(not GLOW.exists(), reason="the shared data folder is not there")
@pytest.mark.parametrize("adjusted", [False, True])
def test_glows_published_tests_with_its_own_predictions_are_reproduced(adjusted: bool) -> None:
    """Glow's predictions are in deviations of what covariates leave of the trait, N - K - 1 degrees of freedom.

    Without covariates its t is ours. With them it is not: what covariates explain of a prediction stays in Glow's sum
    of squared residuals, which a regression on prediction-adjusted trait and covariates does not have. With that added,
    its t is ours again. No heritability or calibration is Glow's: both are 1 here.
    """
    codes, columns, contig, place = glows()
    covariates = tuple(name for name in columns if name[0] == "X") if adjusted else ()
    traits = tuple(name for name in columns if name[0] == "Y")
    x = np.column_stack([np.ones(codes.shape[1]), *(columns[name] for name in covariates)])
    n, k = x.shape
    suffix = "" if adjusted else "_nocovariate"
    offsets = read(GLOW / "dataset" / "sim_sm_02" / f"glow_offsets{suffix}.zarr.zip", "regenie_loco_prediction")
    offered, left = {}, {}
    for p, trait in enumerate(traits):
        rest = without(x, columns[trait])
        unit = np.sqrt(rest @ rest / (n - k))
        for c in range(10):
            offered[f"wgr.{trait}_chr{c + 1}"] = offsets[c, :, p] * unit / columns[trait].std()
            left[trait, c] = rest / unit - offsets[c, :, p]
    site = np.arange(n) % 4
    place = replace(place, columns={**place.columns, **dict.fromkeys(offered, PROJECTED)})
    nothing = Answer({}, {f"{what}_{trait}": 1.0 for what in ("shrinkage", "calibration") for trait in traits})
    asked = LinearAssociation("panel", traits, covariates, offset="wgr", minimum_minor_alleles=1)
    tables = associated(asked, nothing, codes, columns | offered, place, site).tables
    published = {}
    with (GLOW / "result" / "sim_sm_02-wgr_02" / f"gwas_loco{suffix}.csv").open() as file:
        published = {(row["phenotype"], int(row["start"])): float(row["tvalue"]) for row in csv.DictReader(file)}
    assert len(published) == 1250
    apart = 0.0
    for (trait, row), want in published.items():
        t = float(np.asarray(tables[trait]["t"])[row])
        y = left[trait, int(contig[row])]
        own = without(x, y)
        df = n - k - 1
        # b^2 g'g = t^2 RSS / df, of our residual sum of squares and, with what covariates explain, of Glow's.
        rss = own @ own * df / (df + t**2)
        theirs = t * np.sqrt(rss / (rss + y @ y - own @ own))
        assert theirs == pytest.approx(want, rel=1e-8, abs=1e-8)
        apart = max(apart, abs(t - want))
    assert (apart > 0.01) == adjusted


@pytest.mark.skipif(not GLOW.exists(), reason="the shared data folder is not there")
@pytest.mark.parametrize(("simulation", "run"), [("sim_sm_01", "wgr_01"), ("sim_sm_02", "wgr_02")])
def test_glows_older_published_tests_have_no_intercept(simulation: str, run: str) -> None:
    """They subtract a prediction from all chromosomes and regress on a genotype that is not centred and on standardised
    covariates, without an intercept. Least squares of these columns gives what Glow published; with an intercept it
    gives what we answer for the same prediction, which is another number."""
    codes, columns, _, place = glows(simulation)
    covariates, traits = ([name for name in columns if name[0] == letter] for letter in "XY")
    with (GLOW / "result" / f"{simulation}-{run}" / "predictions.csv").open() as file:
        _, *rows = csv.reader(file)
    chromosomes = sorted({v.chromosome for v in place.panel.variants}) if place.panel else []
    offered = {
        f"wgr.{trait}_chr{c}": np.array([float(row[1 + p]) for row in rows])
        for p, trait in enumerate(traits)
        for c in chromosomes
    }
    place = replace(place, columns={**place.columns, **dict.fromkeys(offered, PROJECTED)})
    nothing = Answer({}, {f"{what}_{trait}": 1.0 for what in ("shrinkage", "calibration") for trait in traits})
    asked = LinearAssociation("panel", tuple(traits), tuple(covariates), offset="wgr", minimum_minor_alleles=1)
    site = np.arange(codes.shape[1]) % 4
    tables = associated(asked, nothing, codes, columns | offered, place, site).tables
    x = np.column_stack([(columns[name] - columns[name].mean()) / columns[name].std() for name in covariates])
    with_intercept, apart, compared = np.column_stack([np.ones(len(x)), x]), 0.0, 0
    with (GLOW / "result" / f"{simulation}-{run}" / "gwas.csv").open() as file:
        published = {(row["label"], int(row["start"])): row for row in csv.DictReader(file)}
    for trait in traits:
        y = (columns[trait] - columns[trait].mean()) / columns[trait].std() - offered[f"wgr.{trait}_chr1"]
        theirs, _ = slopes(codes.astype(np.float64), y, x)
        ours, t = slopes(codes.astype(np.float64), y, with_intercept)
        beta = np.asarray(tables[trait]["beta"]) / columns[trait].std()
        for row in range(len(codes)):
            want = float(published[trait, row]["beta"])
            assert theirs[row] == pytest.approx(want, rel=1e-9, abs=1e-12)
            assert beta[row] == pytest.approx(ours[row], rel=1e-7, abs=1e-8 * abs(ours[row] / t[row]))
            apart, compared = max(apart, abs(ours[row] - want)), compared + 1
    assert compared == len(published)
    assert apart > 0.1


# -- through the nodes, and what is refused ----------------------------------------------------------------------------

TWO = replace(
    PANEL,
    variants=tuple(v._replace(chromosome="21" if j < 25 else "22") for j, v in enumerate(PANEL.variants)),
)
REGRESSION = Question("wgr", WholeGenomeRegression("panel", ("trait",), ("sex",), ("21", "22"), iterations=3))
LINEAR = Question(
    "linear",
    LinearAssociation("panel", ("trait",), ("sex",), offset="wgr", minimum_minor_alleles=1, minimum_missing=1),
)


def test_a_study_over_nodes_subtracts_predictions_that_never_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(small, "PANEL", TWO)
    tiny = Tiny.of(write_sites(tmp_path / "data"), tmp_path / "nodes")
    asked = study(REGRESSION, LINEAR, panels={"panel": TWO})
    weights, association = (r.answer for r in tiny.conductor(asked, tmp_path / "run").run())
    made = REGRESSION.analysis.projection(weights, asked.frame(REGRESSION))  # type: ignore[attr-defined]
    codes = np.concatenate([small.genotypes(name) for name in NAMES], axis=1)
    predicted = np.where(codes == MISSING, 0.0, codes - made.centre[:, None]).T @ made.weights
    datasets = [gate.dataset for gate in tiny.gates.values()]
    cohorts = [d.cohort(REGRESSION.analysis.needs(), asked.frame(REGRESSION)) for d in datasets if d is not None]
    y, sex = (np.concatenate([c.columns[name] for c in cohorts]) for name in ("trait", "sex"))
    x, calibration = np.column_stack([np.ones(len(y)), sex]), float(weights.facts["calibration_trait"])
    assert association.facts["offset"] == "wgr"
    assert association.facts["calibration_trait"] == calibration
    t = np.asarray(association.tables["trait"]["t"])
    for row in np.flatnonzero(np.isfinite(t)):
        seen = codes[row] != MISSING
        rest = y / y.std() - predicted[:, made.names.index(f"trait_chr{TWO.variants[row].chromosome}")]
        _, want = slopes(codes[row : row + 1, seen].astype(np.float64), rest[seen], x[seen])
        assert t[row] == pytest.approx(want[0] * calibration**0.5, rel=1e-7, abs=1e-9)
    tiny.close()


def test_a_site_that_could_not_predict_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(small, "PANEL", TWO)
    tiny = Tiny.of(write_sites(tmp_path / "data", own_total=NAMES), tmp_path / "nodes")
    link = tiny.link()

    def lost(name: str, envelopes: list[bytes]) -> list[bytes] | None:
        return None if name == NAMES[0] and any(b'"kind":"project"' in e for e in envelopes) else envelopes

    link.on_request = lost
    asked = study(REGRESSION, LINEAR, panels={"panel": TWO})
    _, association = tiny.conductor(asked, tmp_path / "run", link).run()
    assert association.statement.sites == NAMES[1:]
    assert association.answer.facts["people"] == 3 * small.PEOPLE
    tiny.close()


def changed(**change: Any) -> Question:
    return replace(LINEAR, analysis=replace(LINEAR.analysis, **change))  # type: ignore[type-var]


def regressed(**change: Any) -> Question:
    return replace(REGRESSION, analysis=replace(REGRESSION.analysis, **change))  # type: ignore[type-var]


@pytest.mark.parametrize(
    ("questions", "rule", "found"),
    [
        ((LINEAR,), "what an earlier exact question offers", "'wgr'; there are: none"),
        ((LINEAR, REGRESSION), "what an earlier exact question offers", "'wgr'; there are: none"),
        ((small.FREQUENCIES, changed(offset="frequencies")), "an earlier exact question offers", "there are: none"),
        ((small.COUNTS, changed(offset="counts")), "an earlier exact question offers", "there are: none"),
        ((regressed(covariates=()), LINEAR), "same traits and covariates", "not in both: sex"),
        ((REGRESSION, changed(covariates=())), "same traits and covariates", "not in both: sex"),
        ((regressed(traits=("high",)), LINEAR), "same traits and covariates", "not in both: high, trait"),
        ((regressed(traits=("sex",), covariates=("trait",)), LINEAR), "each trait without each", "trait_chr21"),
        ((regressed(chromosomes=("21", "1")), LINEAR), "each trait without each", "'wgr' does not offer trait_chr22"),
    ],
    ids=[
        "of nothing", "of a later one", "of a private one", "of what offers nothing", "of fewer covariates",
        "of more covariates", "of another trait", "of a covariate", "without a chromosome",
    ],
)  # fmt: skip
def test_an_offset_is_of_the_same_columns_and_of_every_chromosome(
    questions: tuple[Question, ...], rule: str, found: str
) -> None:
    asked = study(*questions, panels={"panel": TWO})
    with pytest.raises(UsageError) as error:
        Study.from_document(asked.document, {"panel": TWO.encode()})
    assert rule in error.value.rule
    assert found in error.value.found
    assert error.value.remedy


def test_an_offset_that_other_columns_offer_is_none() -> None:
    components = Question("pca", PrincipalComponents("panel", components=2, iterations=3))
    asked = study(components, changed(offset="pca"), panels={"panel": TWO})
    with pytest.raises(UsageError, match="same traits and covariates"):
        Study.from_document(asked.document, {"panel": TWO.encode()})


def test_a_regression_without_weights_is_no_offset() -> None:
    question = LINEAR.analysis
    assert isinstance(question, LinearAssociation)
    for facts in ({}, {"shrinkage_trait": 0.9, "calibration_trait": float("nan")}):
        with pytest.raises(UsageError, match="found variants") as error:
            question.after(Answer({}, facts), Frame(TWO))
        assert "'wgr'" in error.value.found


def test_a_site_s_own_deviations_have_no_offset() -> None:
    with pytest.raises(ValueError, match="pooled"):
        replace(LINEAR.analysis, standardise=Standardise.SITE)  # type: ignore[type-var]


def test_predictions_far_beyond_the_trait_are_refused() -> None:
    """They are clamped to 32 deviations, and sums of their squares might leave the ring."""
    rng = np.random.default_rng(2)
    n, place = 200, Frame(TWO, {"trait": Range(-4, 4), "sex": Range(1, 2)})
    place = replace(place, columns={**place.columns, "wgr.trait_chr21": PROJECTED, "wgr.trait_chr22": PROJECTED})
    columns = {"trait": rng.normal(0, 1, n), "sex": rng.choice([1.0, 2.0], n)}
    columns |= {f"wgr.trait_chr{c}": rng.choice([-4.0, 4.0], n) for c in (21, 22)}
    codes = rng.binomial(2, 0.4, (len(TWO), n)).astype(np.uint8)
    parts = [
        Cohort(50, Genotypes.pack(codes[:, s::4]), MappingProxyType({m: v[s::4] for m, v in columns.items()}))
        for s in range(4)
    ]
    question = LINEAR.analysis
    assert isinstance(question, LinearAssociation)
    stated = Answer({}, {"shrinkage_trait": 1.0, "calibration_trait": 1.0})
    with pytest.raises(GenosumError, match="a trait less its offset one below 8") as error:
        over_sites(question.after(stated, place), parts, place)
    assert "larger than the trait" in error.value.remedy


@pytest.mark.parametrize("people", [3, 1000, 1 << 20, (1 << 24) - 1])
def test_sums_with_an_offset_stay_in_the_ring_up_to_the_mean_square_that_is_refused(people: int) -> None:
    """By Cauchy and Schwarz: alleles times a response of mean square 8, over all sites; a node holds 2^62 / 32."""
    design = Design(people, np.zeros(1), np.ones(1), 0, 1, farthest=32.0)
    assert 2 * people * MOST_SQUARE**0.5 * 2.0**design.bits <= 2**57
    assert people * MOST_SQUARE * 2.0**design.bits <= 2**57

"""Association of a binary trait over sites against the pooled people: statsmodels' logistic regression, and score
tests, Firth's penalised likelihood and saddlepoints that are written here from their formulas."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import polars as pl
import pytest
import statsmodels.api as sm
import yaml
from numpy.typing import NDArray
from scipy import optimize, special, stats

from fl_server import results
from simulations.run import simulate
from strategies.analyses.logistic_association import LogisticAssociation
from strategies.analysis import Frame, Range
from strategies.cohort import MISSING, Cohort, Genotypes
from strategies.errors import UsageError
from strategies.hits import SecondTest
from strategies.question import Question
from strategies.variants import Panel, Variant
from tests.references.plain import whole_bed
from tests.references.test_pooled import DEMO, demo_study, golden
from tests.references.test_principal_components import over_sites

SAIGE = Path(__file__).parents[3] / "shared" / "data" / "association_golden" / "SAIGE"
COVARIATES = ("age", "dose", "sex")
RANGES = {"age": Range(20.0, 90.0), "dose": Range(-6.0, 6.0), "sex": Range(1.0, 2.0), "case": Range(0.0, 1.0)}

Floats = NDArray[np.float64]


class People:
    """Made-up people at four unequal sites; what the sites' sums are compared with is computed of all of them."""

    def __init__(self, people: int, frequencies: Floats, seed: int, intercept: float, missing: float = 0.02) -> None:
        rng = np.random.default_rng(seed)
        m = len(frequencies)
        self.codes = rng.binomial(2, frequencies[:, None], (m, people)).astype(np.uint8)
        age, dose, sex = rng.uniform(20, 90, people), rng.normal(0, 1.5, people), rng.integers(1, 3, people)
        self.x = np.column_stack([age, np.clip(dose, -6, 6), sex.astype(float)])
        odds = (
            intercept + 0.02 * (age - 55) + 0.3 * dose - 0.4 * (sex - 1.5) + 0.6 * self.codes[0] - 0.7 * self.codes[1]
        )
        self.y = (rng.random(people) < special.expit(odds)).astype(float)
        self.codes[rng.random(self.codes.shape) < missing] = MISSING
        self.sites = rng.choice(4, people, p=(0.1, 0.2, 0.3, 0.4))

    @property
    def frame(self) -> Frame:
        panel = Panel("GRCh37", tuple(Variant("22", 1 + j, f"v{j}", "A", "C") for j in range(len(self.codes))))
        return Frame(panel, RANGES)

    def parts(self) -> list[Cohort]:
        out = []
        for site in range(4):
            here = np.flatnonzero(self.sites == site)
            columns = {name: self.x[here, k] for k, name in enumerate(COVARIATES)} | {"case": self.y[here]}
            out.append(Cohort(len(here), Genotypes.pack(self.codes[:, here]), MappingProxyType(columns)))
        return out

    def asked(self, test: str, second_stage: float = 1.0, **change: int) -> dict[str, NDArray[np.generic]]:
        """The answer's table."""
        question = LogisticAssociation("p", "case", COVARIATES, SecondTest(test), second_stage)
        self.answer = over_sites(replace(question, **change), self.parts(), self.frame)
        return {name: np.asarray(column) for name, column in self.answer.tables["case"].items()}

    def design(self, variant: int) -> Floats:
        """(N, 2 + K) genotype, a missing one as the mean, intercept, and covariates about as long as these."""
        genotype = np.where(self.codes[variant] == MISSING, np.nan, self.codes[variant].astype(float))
        genotype[np.isnan(genotype)] = np.nanmean(genotype)
        return np.column_stack([genotype, np.ones(len(self.y)), (self.x - self.x.mean(axis=0)) / self.x.std(axis=0)])


@pytest.fixture(scope="module")
def people() -> People:
    return People(1500, np.array([0.3, 0.2, 0.5, 0.08, 0.02, 0.9]), 5, -1.6)


@pytest.fixture(scope="module")
def unbalanced() -> People:
    return People(1200, np.array([0.05, 0.03, 0.02, 0.012, 0.3]), 11, -3.9)


def near(ours: NDArray[np.generic], want: list[float], tolerance: float = 1e-6) -> None:
    assert ours.tolist() == pytest.approx(want, rel=tolerance)


def null_model(people: People) -> tuple[Floats, Floats]:
    """(N, 1 + K) covariates and the (N,) probabilities of statsmodels' logistic regression on them."""
    x = people.design(0)[:, 1:]
    return x, np.asarray(sm.Logit(people.y, x).fit(disp=0, tol=1e-14, method="newton").predict())


def residual(genotype: Floats, x: Floats, w: Floats) -> Floats:
    """What a weighted regression on the covariates leaves over of a genotype."""
    root = np.sqrt(w)
    return genotype - x @ np.linalg.lstsq(root[:, None] * x, root * genotype, rcond=None)[0]


def score_test(people: People, variant: int) -> tuple[float, float]:
    """U and V of Rao's test."""
    x, mu = null_model(people)
    left = residual(people.design(variant)[:, 0], x, mu * (1 - mu))
    return float(left @ (people.y - mu)), float((left**2) @ (mu * (1 - mu)))


def penalised(b: Floats, x: Floats, y: Floats, offset: Floats) -> float:
    """Minus the log likelihood and half the log determinant of the information [Heinze, Schemper 2002]."""
    eta = offset + x @ b
    w = special.expit(eta) * special.expit(-eta)
    value = y @ eta - np.logaddexp(0, eta).sum() + np.linalg.slogdet(x.T @ (w[:, None] * x))[1] / 2
    return -float(value)


def firth(x: Floats, y: Floats, offset: Floats | None = None) -> tuple[Floats, float, float]:
    """The maximum of the penalised likelihood, the first coefficient's standard error, and the maximum itself.

    By a quasi-Newton search from values alone; then each step of a Newton's on differences of them, in long doubles'
    place by a fourth-order rule, so that the place is known to about 1e-8.
    """
    offset = np.zeros(len(y)) if offset is None else offset
    found = optimize.minimize(penalised, np.zeros(x.shape[1]), (x, y, offset), method="BFGS", options={"gtol": 1e-7})
    b = found.x
    for _ in range(3):
        root = optimize.root(lambda at: gradient(at, x, y, offset), b, method="hybr", tol=1e-13)
        b = root.x
    eta = offset + x @ b
    w = special.expit(eta) * special.expit(-eta)
    return b, float(np.sqrt(np.linalg.inv(x.T @ (w[:, None] * x))[0, 0])), -penalised(b, x, y, offset)


def gradient(b: Floats, x: Floats, y: Floats, offset: Floats, h: float = 1e-3) -> Floats:
    """Of the penalised likelihood by central differences of the sixth order: no formula of Firth's score is used."""
    out = np.empty(len(b))
    for j in range(len(b)):
        e = np.zeros(len(b))
        e[j] = h
        at = [penalised(b + step * e, x, y, offset) - penalised(b - step * e, x, y, offset) for step in (1, 2, 3)]
        out[j] = (45 * at[0] - 9 * at[1] + at[2]) / (60 * h)
    return out


def test_scores_are_raos(people: People) -> None:
    got = people.asked("score")
    want = [score_test(people, j) for j in range(len(people.codes))]
    near(got["z"], [u / v**0.5 for u, v in want])
    near(got["beta"], [u / v for u, v in want])
    near(got["standard_error"], [v**-0.5 for _, v in want])
    near(got["p_value"], [2 * stats.norm.sf(abs(u) / v**0.5) for u, v in want])
    assert set(got["test"]) == {"score"}
    assert got["converged"].all()
    observed = np.where(people.codes == MISSING, np.nan, people.codes)
    near(got["effect_allele_frequency"], (np.nanmean(observed, axis=1) / 2).tolist(), 1e-12)
    assert set(got["n"]) == {1500}
    assert set(got["cases"]) == {people.y.sum()}


def test_logistic_regressions_are_those_of_statsmodels(people: People) -> None:
    got = people.asked("logistic")
    fits = [sm.Logit(people.y, people.design(j)).fit(disp=0, tol=1e-14) for j in range(len(people.codes))]
    near(got["beta"], [fit.params[0] for fit in fits])
    near(got["standard_error"], [fit.bse[0] for fit in fits])
    near(got["z"], [fit.tvalues[0] for fit in fits])
    near(got["p_value"], [fit.pvalues[0] for fit in fits], 1e-5)
    assert set(got["test"]) == {"logistic"}


@pytest.mark.parametrize("which", ["people", "unbalanced"])
def test_firths_estimates_maximise_the_penalised_likelihood(which: str, request: pytest.FixtureRequest) -> None:
    people: People = request.getfixturevalue(which)
    got = people.asked("firth")
    fits = [firth(people.design(j), people.y) for j in range(len(people.codes))]
    near(got["beta"], [b[0] for b, _, _ in fits])
    near(got["standard_error"], [error for _, error, _ in fits])
    near(got["z"], [b[0] / error for b, error, _ in fits])


@pytest.mark.parametrize("which", ["people", "unbalanced"])
def test_approximate_firth_takes_the_null_model_as_offset(which: str, request: pytest.FixtureRequest) -> None:
    people: People = request.getfixturevalue(which)
    got, (x, mu) = people.asked("firth_approximate"), null_model(people)
    offset, want = special.logit(mu), []
    for j in range(len(people.codes)):
        left = residual(people.design(j)[:, 0], x, mu * (1 - mu))[:, None]
        b, error, maximum = firth(left, people.y, offset)
        ratio = 2 * (maximum + penalised(np.zeros(1), left, people.y, offset))
        want.append((b[0], error, np.sign(b[0]) * ratio**0.5))
    for name, values in zip(("beta", "standard_error", "z"), zip(*want, strict=True), strict=True):
        near(got[name], list(values))


def saddlepoint(a: Floats, mu: Floats, s: float) -> float:
    """P(sum a (y - mu) > s) for s > 0, or < s for s < 0 [Dey et al. 2017], by a bracketing root."""
    sign = np.sign(s)
    a, s = a * sign, s * sign
    if s >= np.maximum(a * (1 - mu), -a * mu).sum():
        return 0.0

    def k(t: float) -> float:
        return float((np.log1p(mu * np.expm1(a * t)) - a * mu * t).sum())

    def slope(t: float) -> float:
        return float((a * (special.expit(special.logit(mu) + a * t) - mu)).sum())

    t = optimize.brentq(lambda at: slope(at) - s, 0, 300, xtol=1e-14, rtol=1e-14)
    tilted = special.expit(special.logit(mu) + a * t)
    w = np.sqrt(2 * (t * s - k(t)))
    v = t * np.sqrt((a**2 * tilted * (1 - tilted)).sum())
    return float(stats.norm.sf(w + np.log(v / w) / w))


@pytest.mark.parametrize("which", ["people", "unbalanced"])
def test_saddlepoints_are_found(which: str, request: pytest.FixtureRequest) -> None:
    people: People = request.getfixturevalue(which)
    got, (x, mu) = people.asked("spa"), null_model(people)
    done = np.flatnonzero(got["test"] == "spa")
    assert len(done) >= 4
    for j in done:
        left = residual(people.design(j)[:, 0], x, mu * (1 - mu))
        u, v = score_test(people, j)
        p = saddlepoint(left, mu, abs(u)) + saddlepoint(left, mu, -abs(u))
        assert got["p_value"][j] == pytest.approx(p, rel=1e-6)
        assert got["z"][j] == pytest.approx(np.sign(u) * stats.norm.isf(p / 2), rel=1e-6)
        assert got["beta"][j] == pytest.approx(u / v, rel=1e-6)
        assert got["standard_error"][j] == pytest.approx(got["beta"][j] / got["z"][j], rel=1e-9)
    beside = np.setdiff1d(np.arange(len(people.codes)), done)
    assert (np.abs(got["z"][beside]) < 0.1).all()


def test_tails_of_a_small_cohort_are_those_of_all_its_outcomes() -> None:
    """Without covariates and given a constant probability of being a case, the score is a sum over carriers: its
    distribution is that of two binomial numbers, which are counted out."""
    n, ones, twos, cases = 400, 40, 4, 20
    genotype = np.r_[np.zeros(n - ones - twos), np.ones(ones), np.full(twos, 2.0)]
    mu, mean = cases / n, genotype.mean()
    for at in (8, 10):
        hit = np.zeros(n)
        hit[np.r_[0 : cases - at, n - twos - at : n - twos]] = 1
        made = Cohort(n, Genotypes.pack(genotype.astype(np.uint8)[None]), MappingProxyType({"case": hit}))
        cut = [made.take(np.arange(s, n, 3)) for s in range(3)]
        frame = Frame(Panel("GRCh37", (Variant("1", 1, "v", "A", "C"),)), RANGES)
        table = over_sites(LogisticAssociation("p", "case", (), SecondTest.SPA, 1.0), cut, frame).tables["case"]
        u = float(genotype @ (hit - mu))
        x, w = np.ones((n, 1)), np.full(n, mu * (1 - mu))
        left = residual(genotype, x, w)
        values, counts = np.unique(left.round(12), return_counts=True)
        grids = [np.arange(c + 1) for c in counts]
        mass = [stats.binom.pmf(grid, c, mu) for grid, c in zip(grids, counts, strict=True)]
        sums = sum(v * (g.reshape([-1 if i == j else 1 for i in range(len(grids))]) - c * mu)
                   for j, (v, g, c) in enumerate(zip(values, grids, counts, strict=True)))  # fmt: skip
        joint = np.einsum("i,j,k->ijk", *mass)
        exact = float(joint[np.abs(sums) >= abs(u) - 1e-9].sum())
        half = float(joint[np.abs(sums) > abs(u) + 1e-9].sum())
        normal = 2 * stats.norm.sf(abs(u) / np.sqrt((left**2 * w).sum()))
        p = float(np.asarray(table["p_value"])[0])
        # A tail of a continuous approximation lies about half way through the outcome's own probability.
        assert half * 0.8 < p < exact * 1.2
        assert abs(np.log(p / ((exact + half) / 2))) < 0.5 * abs(np.log(normal / ((exact + half) / 2)))
        assert mean > 0


def test_separation_has_no_logistic_estimate_and_one_of_firths() -> None:
    people = People(900, np.array([0.3, 0.2, 0.02]), 3, -2.5, missing=0.0)
    people.codes[2, people.y == 1] = 0  # no case has the allele
    got = people.asked("logistic", iterations=30)
    assert got["converged"].tolist() == [True, True, False]
    for name in ("beta", "standard_error", "z", "p_value"):
        assert np.isnan(got[name]).tolist() == [False, False, True], name
    assert got["test"].tolist() == ["logistic"] * 3
    assert people.answer.facts["not_converged"] == 1
    beta, error, _ = firth(people.design(2), people.y)
    got = people.asked("firth")
    assert got["converged"].all()
    assert got["beta"][2] == pytest.approx(beta[0], rel=1e-6)
    assert got["standard_error"][2] == pytest.approx(error, rel=1e-6)


def test_too_few_rounds_are_told() -> None:
    people = People(900, np.array([0.3, 0.2, 0.02]), 3, -2.5)
    people.codes[2, people.y == 1] = 0
    got = people.asked("logistic", iterations=5)  # the third would run for twenty
    assert got["converged"].tolist() == [True, True, False]
    assert np.isnan(got["beta"][2])


def separating(people: People) -> None:
    people.x[:, 1] = np.where(people.y == 1, 3.0, -3.0)


def explained(people: People) -> None:
    people.x[:, 1] = people.x[:, 0] / 10 - 5


def constant(people: People) -> None:
    people.x[:, 2] = 1.0


def all_cases(people: People) -> None:
    people.y[:] = 1.0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (separating, "must not separate cases from controls"),
        (explained, "must not explain one another"),
        (constant, "must vary over the sites together"),
        (all_cases, "needs cases and controls"),
    ],
)
def test_what_has_no_null_model_is_an_error(change: Callable[[People], None], words: str) -> None:
    people = People(400, np.array([0.3, 0.2]), 3, -1.0)
    change(people)
    with pytest.raises(UsageError, match=words):
        people.asked("score")


def test_a_variant_that_covariates_explain_has_no_estimate(people: People) -> None:
    twice = People(700, np.array([0.3, 0.2, 0.4]), 6, -1.0, missing=0.0)
    twice.x[:, 1] = twice.codes[1]
    for test in ("score", "firth", "spa"):
        got = twice.asked(test)
        assert np.isnan(got["beta"]).tolist() == [False, True, False]
        assert not got["converged"][1]
        assert not got["withheld"][1]


def test_only_the_smallest_p_values_are_tested_twice(people: People) -> None:
    score = people.asked("score")["p_value"]
    got = people.asked("logistic", 0.5, most_hits=2)
    assert (got["test"] == "logistic").tolist() == (np.argsort(np.argsort(score)) < 2).tolist()
    beside = got["test"] == "score"
    assert np.array_equal(got["p_value"][beside], score[beside])


def test_rare_variants_and_small_numbers_are_left_out(people: People) -> None:
    rare = People(1500, np.array([0.3, 0.2, 0.006, 0.003]), 5, -1.6, missing=0.0)
    copies = rare.codes.sum(axis=1)
    assert copies[2] < 20
    got = rare.asked("score")
    assert got["withheld"].tolist() == (copies < 20).tolist()
    assert np.isnan(got["beta"]).tolist() == (copies < 20).tolist()
    assert (got["test"] == "").tolist() == (copies < 20).tolist()
    got = rare.asked("score", minimum_minor_alleles=int(copies[3]))
    assert not got["withheld"].any()


def rejections(variants: int, level: float) -> tuple[int, int]:
    """How often scores, and saddlepoints of those with p below 0.05, reject a hypothesis that holds: one case to 50
    controls, alleles of a frequency of 0.01."""
    rng, people = np.random.default_rng(2026), 5100
    made = People(people, np.full(2, 0.01), 1, -4.0, missing=0.0)
    made.codes = rng.binomial(2, 0.01, (variants, people)).astype(np.uint8)
    made.y = np.zeros(people)
    made.y[rng.choice(people, 100, replace=False)] = 1.0
    score = made.asked("score")["p_value"]
    spa = made.asked("spa", 0.05)["p_value"]
    bold, held = int((score < level).sum()), int((spa < level).sum())
    print(f"{bold} of {variants} scores and {held} saddlepoints have p < {level:g}")
    return bold, held


def test_the_score_alone_is_too_bold_about_rare_cases_and_the_saddlepoint_is_not() -> None:
    bold, held = rejections(1000, 2e-3)
    # Seeded: no luck is in it. Two are expected; a binomial number of mean 2 is 7 or more with a probability of 5e-3.
    assert bold >= 7
    assert held < 7


@pytest.mark.proof
def test_the_saddlepoint_keeps_its_level_over_many_variants() -> None:
    bold, held = rejections(20_000, 1e-3)
    assert bold > 40
    # 20 are expected; the exact interval of 99.9 % of a binomial number of that mean is 7 to 36.
    assert 7 <= held <= 36


def demo(every: int) -> tuple[dict[str, NDArray[np.generic]], pl.DataFrame]:
    """What the demo's sites answer about one variant of so many, and plink2's answer."""
    study = demo_study("gstt1")
    page = LogisticAssociation("common", "GSTT1_high", ("sex", "pc1", "pc2", "pc3"), SecondTest.LOGISTIC, 1e-3)
    columns = {**study.columns, "GSTT1_high": Range(0.0, 1.0)}
    panel = study.panels["common"]
    some = Panel(panel.assembly, panel.variants[::every])
    asked = replace(study, columns=columns, panels={"common": some}, questions=(Question("binary", page),))
    (result,) = simulate(asked, DEMO).results
    table = {name: np.asarray(column) for name, column in result.answer.tables["GSTT1_high"].items()}
    return table, golden("pooled.GSTT1_high.glm.logistic.hybrid").gather_every(every)


def compared(got: dict[str, NDArray[np.generic]], want: pl.DataFrame, least: int) -> None:
    assert want["ID"].to_list() == got["id"].tolist()
    effect = np.where(want["A1"].to_numpy() == got["alt"], 1.0, -1.0)
    theirs, odds = effect * want["Z_STAT"].to_numpy(), effect * np.log(want["OR"].to_numpy())
    hits = got["test"] == "logistic"
    assert hits.sum() >= least
    assert got["converged"].all()
    # plink2's logistic regression is in single precision: its statistics differ from statsmodels' by 1e-3.
    assert np.abs(got["z"][hits] - theirs[hits]).max() < 2e-3
    assert np.allclose(got["beta"][hits], odds[hits], rtol=2e-3, atol=2e-3)
    rest = ~hits  # a score test and a Wald test of the same hypothesis
    assert np.corrcoef(got["z"][rest], theirs[rest])[0, 1] > 0.9999
    assert np.abs(got["z"][rest] - theirs[rest]).max() < 0.35


def test_hits_of_the_demo_are_plinks() -> None:
    compared(*demo(20), 10)


@pytest.mark.proof
def test_all_hits_of_the_demo_are_plinks() -> None:
    compared(*demo(1), 100)


def test_the_files_of_a_binary_trait_say_what_it_is(tmp_path: Path) -> None:
    study = demo_study("gstt1")
    panel = study.panels["common"]
    page = LogisticAssociation("common", "GSTT1_high", ("sex",), SecondTest.SCORE)
    asked = replace(
        study,
        columns={**study.columns, "GSTT1_high": Range(0.0, 1.0)},
        panels={"common": Panel(panel.assembly, panel.variants[:40])},
        questions=(Question("binary", page),),
    )
    outcome = simulate(asked, DEMO)
    results.write(asked, outcome.federation, outcome.results, tmp_path / "out")
    folder = tmp_path / "out" / "binary"
    table = {name: np.asarray(c) for name, c in outcome.results[0].answer.tables["GSTT1_high"].items()}
    rows = pl.read_csv(folder / "GSTT1_high.tsv.gz", separator="\t", null_values="#NA")
    shown = np.isfinite(table["beta"])
    assert rows["beta"].to_list() == table["beta"][shown].tolist()
    assert rows["p_value"].to_list() == table["p_value"][shown].tolist()
    (sample,) = yaml.safe_load((folder / "GSTT1_high.tsv.gz-meta.yaml").read_text())["samples"]
    cases = int(table["cases"][shown][0])
    assert sample["case_control_study"] is True
    assert (sample["case_count"], sample["control_count"]) == (cases, 358 - cases)
    kept = pl.read_parquet(folder / "GSTT1_high.parquet")
    assert kept["cases"].dtype == pl.Int64
    assert set(kept["test"].to_list()) <= {"score", "", None}


def _saige() -> tuple[People, list[int], dict[int, list[str]]]:
    """SAIGE's example people at four sites, the positions of its variants, and its published rows."""
    phenotypes = SAIGE / "input" / "pheno_1000samples.txt_withdosages_withBothTraitTypes.txt"
    lines = [line.split() for line in phenotypes.read_text().splitlines()]
    head, rows = lines[0], lines[1:]
    keys, samples, codes = whole_bed(SAIGE / "input" / "genotype_100markers.bed")
    at = {person: i for i, person in enumerate(samples)}
    published = {}
    output = SAIGE / "output" / "genotype_100markers_marker_bgen_sparseGRMforNull_no_vr.txt"
    for line in output.read_text().splitlines():
        words = line.split()
        if words[0] != "CHR":
            published[int(words[1])] = words
    markers = [row for row, key in enumerate(keys) if key[1] in published]
    made = People(4, np.array([0.5, 0.5]), 1, 0.0)
    made.codes = codes[np.ix_(markers, [at[row[head.index("IID")]] for row in rows])]
    made.y = np.array([float(row[head.index("y_binary")]) for row in rows])
    x = np.array([[float(row[head.index(name)]) for name in ("x1", "x2")] for row in rows])
    made.x = np.column_stack([np.clip(50 + 5 * x[:, 0], 20, 90), np.zeros(len(x)), 1 + x[:, 1]])
    made.sites = np.arange(len(rows)) % 4
    return made, [keys[row][1] for row in markers], published


def _relatedness(name: str) -> Floats:
    out = np.zeros((1000, 1000))
    for line in (SAIGE / "output" / name).read_text().splitlines()[2:]:
        i, j, value = line.split()
        out[int(i) - 1, int(j) - 1] = out[int(j) - 1, int(i) - 1] = float(value)
    return out


@pytest.mark.skipif(not SAIGE.exists(), reason="the shared data folder is not there")
def test_saiges_published_scores_differ_by_its_random_effect_alone() -> None:
    """SAIGE's scores are of a null model with a random effect of relatedness. With the variance that its own matrices
    state, 0.329, penalised quasi-likelihood gives its published scores; without, ours."""
    people, positions, published = _saige()
    got = over_sites(
        LogisticAssociation("p", "case", ("age", "sex"), SecondTest.SCORE, minimum_minor_alleles=1),
        people.parts(),
        people.frame,
    ).tables["case"]
    theirs = np.array([float(published[p][10]) for p in positions])
    ours = np.asarray(got["beta"]) / np.asarray(got["standard_error"]) ** 2
    stem = "sparseGRM_relatednessCutoff_0.125_1000_randomMarkersUsed.sparseGRM.mtx"
    a = _relatedness(stem)
    stated = _relatedness(f"example_binary_sparseGRM.varianceRatio.txt_{stem[10:-13]}sparseSigma.mtx")
    tau = stated[2, 0] / a[2, 0]
    assert tau == pytest.approx(0.329, abs=1e-3)
    x = np.column_stack([np.ones(1000), people.x[:, [0, 2]]])
    for variance, want, most in ((tau, theirs, 0.02), (0.0, ours, 1e-9)):
        mu = _with_random_effect(x, people.y, variance * a)
        scores = [residual(g.astype(float), x, mu * (1 - mu)) @ (people.y - mu) for g in people.codes]
        assert np.abs(np.array(scores) - want).max() < most
    assert 0.5 < np.abs(theirs - ours).max() < 1


def _with_random_effect(x: Floats, y: Floats, covariance: Floats) -> Floats:
    """(N,) fitted probabilities by penalised quasi-likelihood [Breslow, Clayton 1993, section 2.3]."""
    b, effect = np.zeros(x.shape[1]), np.zeros(len(y))
    for _ in range(60):
        eta = x @ b + effect
        w = special.expit(eta) * special.expit(-eta)
        working = eta + (y - special.expit(eta)) / w
        inverse = np.linalg.inv(np.diag(1 / w) + covariance)
        before, b = b, np.linalg.solve(x.T @ inverse @ x, x.T @ inverse @ working)
        effect = covariance @ (inverse @ (working - x @ b))
        if np.abs(b - before).max() < 1e-13:
            break
    return np.asarray(special.expit(x @ b + effect))

"""A whole-genome regression's predictions as the offset of a binary trait: against statsmodels and formulas written out
on the pooled people, and simulated relatives."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import statsmodels.api as sm
from numpy.typing import NDArray
from scipy import special, stats

from strategies.analyses.logistic_association import LogisticAssociation, Stage
from strategies.analyses.whole_genome_regression import WholeGenomeRegression
from strategies.analysis import PROJECTED, Answer, Frame, Range, Total
from strategies.cohort import MISSING, Cohort, Genotypes
from strategies.errors import UsageError
from strategies.hits import LEAST_TILTED, SecondTest
from strategies.null_models import NullModels, beginning
from strategies.question import Question
from strategies.study import Study
from strategies.variants import Panel, Variant
from tests import tiny as small
from tests.laws.zoo import add
from tests.references.families import Families
from tests.references.test_logistic_association import COVARIATES, RANGES, People, firth, near, penalised, residual
from tests.references.test_logistic_association import saddlepoint as tail
from tests.references.test_offsets import REGRESSION, TWO
from tests.references.test_principal_components import over_sites
from tests.references.test_whole_genome_regression import frame, split, standardised
from tests.tiny import NAMES, Tiny, study, write_sites

Floats = NDArray[np.float64]

SHRINKAGE, CALIBRATION = 0.8, 1.3
STATED = Answer({}, {"shrinkage_case": SHRINKAGE, "calibration_case": CALIBRATION})


@dataclass(frozen=True)
class Offered:
    """People whose variants lie on three chromosomes, with a made-up prediction without each of these."""

    people: People
    chromosome: NDArray[np.int64]
    predictions: dict[str, Floats]

    @staticmethod
    def of(people: People, seed: int) -> Offered:
        rng = np.random.default_rng(seed)
        y, m = people.y, len(people.codes)
        drawn = {f"wgr.case_chr{c}": rng.normal(0, 0.4, len(y)) + 0.3 * (y - y.mean()) / y.std() for c in (1, 2, 3)}
        return Offered(people, np.arange(m) * 3 // m + 1, drawn)

    @property
    def place(self) -> Frame:
        variants = tuple(Variant(str(c), 1 + j, ".", "A", "C") for j, c in enumerate(self.chromosome))
        return Frame(Panel("GRCh37", variants), {**RANGES, **dict.fromkeys(self.predictions, PROJECTED)})

    def parts(self) -> list[Cohort]:
        out = []
        for site, part in enumerate(self.people.parts()):
            mine = self.people.sites == site
            offered = {name: values[mine] for name, values in self.predictions.items()}
            out.append(replace(part, columns=MappingProxyType({**part.columns, **offered})))
        return out

    def asked(self, test: str, second_stage: float = 1.0) -> dict[str, NDArray[np.generic]]:
        """The answer's table."""
        question = LogisticAssociation("p", "case", COVARIATES, SecondTest(test), second_stage, offset="wgr")
        table = over_sites(question.after(STATED, self.place), self.parts(), self.place).tables["case"]
        return {name: np.asarray(column) for name, column in table.items()}

    def odds(self, variant: int) -> Floats:
        """(N,) the offset that a variant meets: a prediction in deviations of 0 and 1, in log odds."""
        mu = self.people.y.mean()
        return self.predictions[f"wgr.case_chr{self.chromosome[variant]}"] / np.sqrt(mu * (1 - mu))

    def fit(self, variant: int, first: int) -> Any:
        """statsmodels' logistic regression on the columns of a variant's design from the `first`."""
        x = self.people.design(variant)[:, first:]
        family = sm.families.Binomial()
        return sm.GLM(self.people.y, x, family=family, offset=self.odds(variant)).fit(tol=1e-14, maxiter=100)

    def score(self, variant: int) -> tuple[float, float, Floats, Floats]:
        """U and V of Rao's test, the genotype without what covariates explain of it, and mu, of the null model."""
        design, mu = self.people.design(variant), np.asarray(self.fit(variant, 1).fittedvalues)
        left = residual(design[:, 0], design[:, 1:], mu * (1 - mu))
        return float(left @ (self.people.y - mu)), float((left**2) @ (mu * (1 - mu))), left, mu


@pytest.fixture(scope="module", params=["common", "unbalanced"])
def offered(request: pytest.FixtureRequest) -> Offered:
    if request.param == "common":
        return Offered.of(People(1500, np.array([0.3, 0.2, 0.5, 0.08, 0.02, 0.9]), 5, -1.6), 8)
    return Offered.of(People(1200, np.array([0.08, 0.15, 0.1, 0.06, 0.3]), 11, -3.2), 9)


def dispersion(offered: Offered, variant: int) -> float:
    """Pearson's statistic of the null model over what is expected of its terms' sizes together."""
    mu = np.asarray(offered.fit(variant, 1).fittedvalues)
    return float(((offered.people.y - mu) ** 2).sum() / (mu * (1 - mu)).sum())


def agree(offered: Offered, test: str, estimates: list[tuple[float, float, float]]) -> None:
    """That beta, standard error and z of each variant are answered, corrected as the page says; p is of z."""
    got = offered.asked(test)
    done = np.flatnonzero(got["test"] == test).tolist()
    assert len(done) == len(estimates)
    calibration = np.array([CALIBRATION / dispersion(offered, j) for j in done])
    beta, error, z = np.array(estimates).T
    near(got["beta"][done], (beta / SHRINKAGE).tolist())
    near(got["standard_error"][done], (error / SHRINKAGE / calibration**0.5).tolist())
    near(got["z"][done], (z * calibration**0.5).tolist())
    near(got["p_value"][done], (2 * stats.norm.sf(np.abs(z) * calibration**0.5)).tolist(), 2e-5)
    assert got["converged"][done].all()


def every(offered: Offered) -> range:
    return range(len(offered.people.codes))


def test_scores_are_raos_of_the_variants_own_chromosome(offered: Offered) -> None:
    tests = [offered.score(j)[:2] for j in every(offered)]
    agree(offered, "score", [(u / v, v**-0.5, u / v**0.5) for u, v in tests])
    assert len({round(float(offered.fit(j, 1).params[0]), 9) for j in every(offered)}) == 3
    assert len({round(dispersion(offered, j), 9) for j in every(offered)}) == 3


def test_logistic_regressions_are_those_of_statsmodels_with_that_offset(offered: Offered) -> None:
    fits = [offered.fit(j, 0) for j in every(offered)]
    agree(offered, "logistic", [(fit.params[0], fit.bse[0], fit.tvalues[0]) for fit in fits])


def test_firths_estimates_maximise_the_penalised_likelihood_with_that_offset(offered: Offered) -> None:
    fits = [firth(offered.people.design(j), offered.people.y, offered.odds(j)) for j in every(offered)]
    agree(offered, "firth", [(float(b[0]), error, float(b[0]) / error) for b, error, _ in fits])


def test_approximate_firth_adds_to_the_null_model_of_the_chromosome(offered: Offered) -> None:
    y, want = offered.people.y, []
    for j in every(offered):
        _, _, left, mu = offered.score(j)
        null, column = special.logit(mu), left[:, None]
        b, error, maximum = firth(column, y, null)
        ratio = 2 * (maximum + penalised(np.zeros(1), column, y, null))
        want.append((float(b[0]), error, float(np.sign(b[0]) * ratio**0.5)))
    agree(offered, "firth_approximate", want)


def test_saddlepoints_are_those_of_the_null_model_of_the_chromosome(offered: Offered) -> None:
    want = []
    for u, v, left, mu in map(offered.score, every(offered)):
        if abs(u / v**0.5) >= LEAST_TILTED:
            p = tail(left, mu, abs(u)) + tail(left, mu, -abs(u))
            z = float(np.sign(u) * stats.norm.isf(p / 2))
            want.append((u / v, abs(u / v / z), z))
    assert len(want) >= 4
    agree(offered, "spa", want)


def test_hits_are_chosen_by_the_corrected_p(offered: Offered) -> None:
    z = np.array([u / v**0.5 for u, v, *_ in map(offered.score, every(offered))])
    root = np.array([(CALIBRATION / dispersion(offered, j)) ** 0.5 for j in every(offered)])
    plain, corrected = 2 * stats.norm.sf(np.abs(z)), 2 * stats.norm.sf(np.abs(z) * root)
    at = int(np.argmax(plain - corrected))
    below = float(np.sqrt(plain[at] * corrected[at]))
    got = offered.asked("logistic", below)
    assert (got["test"] == "logistic").tolist() == (corrected < below).tolist()
    assert (corrected < below).tolist() != (plain < below).tolist()


def test_a_prediction_of_nothing_is_no_offset(offered: Offered) -> None:
    """Where it is 0 for everybody, beta is as without, but for what it is divided by."""
    nothing = replace(offered, predictions={name: 0 * values for name, values in offered.predictions.items()})
    got, plain = nothing.asked("firth"), offered.people.asked("firth")
    near(got["beta"], (np.asarray(plain["beta"], dtype=float) / SHRINKAGE).tolist(), 1e-9)


def test_a_model_at_its_maximum_stays_there_while_others_go_on() -> None:
    """A likelihood over a million people is rounded by more than a step may lower it."""
    at, flat = np.array([[0.3, 0.1], [0.2, -0.1]]), np.array([[4.0, 0.0, 4.0]] * 2)
    models = NullModels(at, np.array([[1.0, -2.0], [1.0, 2.0]]), 0.0, 40)
    found = {"score": np.array([[1e-9, 0.0], [0.4, 0.0]]), "information": flat, "likelihood": np.array([5.0, 5.0])}
    first = models.step(beginning(at), found)
    assert (first.done, first.search[:, -1].tolist()) == (False, [1.0, 0.0])
    following = replace(models, coefficients=first.coefficients)
    lower = {**found, "score": np.zeros((2, 2)), "likelihood": np.array([5.0 - 1e-4, 5.1])}
    last = following.step(first.search, lower)
    assert last.done
    assert np.array_equal(last.coefficients[0], first.coefficients[0])


# -- through the nodes, and what is refused ----------------------------------------------------------------------------

RIDGE = replace(REGRESSION, analysis=replace(REGRESSION.analysis, traits=("high",)))  # type: ignore[type-var]
BINARY = Question(
    "binary",
    LogisticAssociation("panel", "high", ("sex",), SecondTest.LOGISTIC, 0.2, minimum_minor_alleles=1, offset="wgr"),
)


def test_a_study_over_nodes_adds_predictions_that_never_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(small, "PANEL", TWO)
    tiny = Tiny.of(write_sites(tmp_path / "data"), tmp_path / "nodes")
    asked = study(RIDGE, BINARY, panels={"panel": TWO})
    weights, association = (r.answer for r in tiny.conductor(asked, tmp_path / "run").run())
    made = RIDGE.analysis.projection(weights, asked.frame(RIDGE))  # type: ignore[attr-defined]
    codes = np.concatenate([small.genotypes(name) for name in NAMES], axis=1)
    predicted = np.where(codes == MISSING, 0.0, codes - made.centre[:, None]).T @ made.weights
    datasets = [gate.dataset for gate in tiny.gates.values()]
    cohorts = [d.cohort(RIDGE.analysis.needs(), asked.frame(RIDGE)) for d in datasets if d is not None]
    y, sex = (np.concatenate([c.columns[name] for c in cohorts]) for name in ("high", "sex"))
    calibration, shrinkage = (float(weights.facts[f"{what}_high"]) for what in ("calibration", "shrinkage"))
    assert association.facts["offset"] == "wgr"
    short = {c: float(association.facts[f"dispersion_chr{c}"]) for c in (21, 22)}
    assert (association.facts["calibration_high"], association.facts["shrinkage_high"]) == (calibration, shrinkage)
    table, compared = association.tables["high"], 0
    for row in np.flatnonzero(np.isfinite(np.asarray(table["z"]))):
        chromosome = TWO.variants[row].chromosome
        offset = predicted[:, made.names.index(f"high_chr{chromosome}")] / y.std()
        g = np.where(codes[row] == MISSING, codes[row][codes[row] != MISSING].mean(), codes[row])
        design, model = np.column_stack([g, np.ones(len(y)), sex]), sm.families.Binomial()
        mu = np.asarray(sm.GLM(y, design[:, 1:], family=model, offset=offset).fit(tol=1e-14).fittedvalues)
        assert short[int(chromosome)] == pytest.approx(((y - mu) ** 2).sum() / (mu * (1 - mu)).sum(), rel=1e-7)
        left = residual(g, design[:, 1:], mu * (1 - mu))
        u, v = left @ (y - mu), left**2 @ (mu * (1 - mu))
        z, beta = u / v**0.5, u / v
        if table["test"][row] == "logistic":
            fit = sm.GLM(y, design, family=model, offset=offset).fit(tol=1e-14)
            z, beta = fit.tvalues[0], fit.params[0]
            compared += 1
        z *= (calibration / short[int(chromosome)]) ** 0.5
        assert np.asarray(table["z"])[row] == pytest.approx(z, rel=1e-6, abs=1e-8)
        assert np.asarray(table["beta"])[row] == pytest.approx(beta / shrinkage, rel=1e-6, abs=1e-8)
    assert compared > 3
    tiny.close()


def changed(**change: Any) -> Question:
    return replace(BINARY, analysis=replace(BINARY.analysis, **change))  # type: ignore[type-var]


def regressed(**change: Any) -> Question:
    return replace(RIDGE, analysis=replace(RIDGE.analysis, **change))  # type: ignore[type-var]


@pytest.mark.parametrize(
    ("questions", "rule", "found"),
    [
        ((BINARY,), "what an earlier exact question offers", "'wgr'; there are: none"),
        ((BINARY, RIDGE), "what an earlier exact question offers", "'wgr'; there are: none"),
        ((RIDGE, changed(covariates=())), "same traits and covariates", "not in both: sex"),
        ((regressed(traits=("trait",)), BINARY), "same traits and covariates", "not in both: high, trait"),
        ((regressed(traits=("sex",), covariates=("high",)), BINARY), "each trait without each", "high_chr21"),
        ((regressed(chromosomes=("21", "1")), BINARY), "each trait without each", "'wgr' does not offer high_chr22"),
    ],
    ids=["of nothing", "of a later one", "of more covariates", "of another trait", "of a covariate", "of too few"],
)
def test_an_offset_is_of_the_same_columns_and_of_every_chromosome(
    questions: tuple[Question, ...], rule: str, found: str
) -> None:
    asked = study(*questions, panels={"panel": TWO})
    with pytest.raises(UsageError) as error:
        Study.from_document(asked.document, {"panel": TWO.encode()})
    assert rule in error.value.rule
    assert found in error.value.found
    assert error.value.remedy


X = replace(TWO, variants=tuple(v._replace(chromosome="X", position=5_000_000 + v.position) for v in TWO.variants))


@pytest.mark.parametrize(
    ("change", "chromosomes", "found"),
    [
        ({}, ("21", "22"), "no column of sexes"),
        ({"sex": "sex"}, ("21", "22"), "'wgr' does not offer high_chrX"),
        ({"sex": "sex"}, ("21", "22", "X"), None),
    ],
)
def test_an_offset_of_x_is_read_by_sex(change: dict[str, Any], chromosomes: tuple[str, ...], found: str | None) -> None:
    """X is predicted from the others, so the regression has to name it; its own variants it leaves out or takes in."""
    asked = study(regressed(chromosomes=chromosomes), changed(**change), panels={"panel": X})
    if found is None:
        assert Study.from_document(asked.document, {"panel": X.encode()}) == asked
        return
    with pytest.raises(UsageError) as error:
        Study.from_document(asked.document, {"panel": X.encode()})
    assert found in error.value.found


def test_a_regression_without_weights_is_no_offset() -> None:
    assert isinstance(BINARY.analysis, LogisticAssociation)
    for facts in ({}, {"shrinkage_high": 0.9, "calibration_high": float("nan")}):
        with pytest.raises(UsageError, match="found variants") as error:
            BINARY.analysis.after(Answer({}, facts), Frame(TWO))
        assert "'wgr'" in error.value.found


@pytest.mark.parametrize(
    "change",
    [
        {"left_out": ()},
        {"left_out": ("1", "2", "3", "3"), "null": (0.0,) * 16},
        {"left_out": ("1", "2", "4")},
        {"left_out": ("1", "2", "wgr")},
        {"left_out": ("1", "2")},
        {"null": (0.0,) * 8},
        {"cases": 0},
        {"offset": None},
    ],
)
def test_a_round_of_other_chromosomes_or_models_is_no_round(offered: Offered, change: dict[str, Any]) -> None:
    """A node refuses what its page does not take."""
    place = offered.place
    question: Any = LogisticAssociation("p", "case", COVARIATES, SecondTest.SCORE, offset="wgr").after(STATED, place)
    total = add([question.summarise(part, place) for part in offered.parts()])
    question = question.conclude(Total(total, tuple("abcd")), place)
    assert question.stage is Stage.NULL
    assert question.leaves(place)
    last = replace(question, stage=Stage.SCORES, imputed=question.means)
    with pytest.raises(ValueError):  # noqa: PT011  (each rule has its own words)
        replace(last, **change).leaves(place)


def test_nobody_s_offset_leads_beyond_what_a_saddlepoint_declares() -> None:
    """As many cases as controls, so that without the offset nobody's residual would be more than about a half."""
    made = Offered.of(People(900, np.array([0.3, 0.3, 0.3]), 5, 0.0), 8)
    asked = LogisticAssociation("p", "case", (), SecondTest.SPA, 1.0, most_hits=1, offset="wgr")
    question: Any = asked.after(STATED, made.place)
    while question.stage is not Stage.HITS:
        total = add([question.summarise(part, made.place) for part in made.parts()])
        question = question.conclude(Total(total, tuple("abcd")), made.place)
    declared, farthest = question.leaves(made.place), dict.fromkeys(("cumulants", "ends"), 0.0)
    for code, end, case in itertools.product((0, 1, 2), (-32.0, -1.0, 0.0, 1.0, 32.0), (0.0, 1.0)):
        columns = {name: np.array([end]) for name in made.predictions} | {"case": np.array([case])}
        her = Cohort(1, Genotypes.pack(np.full((3, 1), code, dtype=np.uint8)), columns)
        for name, moved in question.summarise(her, made.place).items():
            size = float(np.linalg.norm(declared[name].values(moved)))
            assert size <= declared[name].l2 * (1 + 1e-12), name
            farthest[name] = max(farthest.get(name, 0.0), size / declared[name].l2)
    print(farthest)
    assert farthest["ends"] > 0.6
    assert farthest["cumulants"] > 0.3


# -- relatives --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trial:
    """z of variants that `association_binary` gives by its score test, over several traits.

    Attributes:
        plain, offset, mixed: of all people; with the offset alone; and with it, as it is answered: corrected.
        dropped: of the founders alone.
    """

    plain: Floats
    offset: Floats
    mixed: Floats
    dropped: Floats

    @property
    def each(self) -> tuple[Floats, ...]:
        return self.plain, self.offset, self.mixed, self.dropped

    def inflations(self) -> list[float]:
        """Lambda of each: the median squared z in units of the median without any effect."""
        return [float(np.median(z**2) / stats.chi2.median(1)) for z in self.each]

    def rates(self, level: float) -> list[float]:
        """How often each is beyond a level."""
        return [float((2 * stats.norm.sf(np.abs(z)) < level).mean()) for z in self.each]


def trial(
    seed: int,
    families: int,
    children: int,
    effect: float,
    traits: int,
    prevalence: float = 0.3,
    inherited: float = 0.4,
    each: int = 80,
) -> Trial:
    """Liabilities that are inherited over all chromosomes but one, whose variants are tested.

    Args:
        effect: share of the liability's variance that one variant of the tested chromosome explains, which alone is
            then tested.
        prevalence: how many are cases.
        inherited: share of the liability's variance.
    """
    rng, chromosomes = np.random.default_rng(seed), 10
    people = Families.of(families, children, chromosomes, each, rng)
    z, n = standardised(people.codes), people.codes.shape[1]
    names, columns, tested = [f"t{t}" for t in range(traits)], {}, []
    for t, name in enumerate(names):
        own = np.flatnonzero(people.chromosome == 1 + t % chromosomes)
        genetic = np.delete(z, own, axis=0).T @ rng.normal(0, 1, len(z) - len(own))
        tested.append(rng.choice(own, 1) if effect else own)
        liability = genetic / genetic.std() * inherited**0.5 + rng.normal(0, 1, n) * (1 - inherited) ** 0.5
        liability += effect**0.5 * z[tested[-1]].sum(axis=0) * bool(effect)
        columns[name] = (liability > np.quantile(liability, 1 - prevalence)).astype(np.float64)
    place = Frame(frame(people.chromosome).panel, dict.fromkeys(names, Range(0.0, 1.0)))
    question = WholeGenomeRegression("panel", tuple(names), (), tuple(str(c) for c in range(1, chromosomes + 1)))
    answer = over_sites(question, split(people.codes, columns, people.family % 4), place)
    offsets = question.projection(answer, place)
    made = (people.codes - offsets.centre[:, None]).T @ offsets.weights
    offered = {f"wgr.{name}": made[:, number] for number, name in enumerate(offsets.names)}
    place = replace(place, columns={**place.columns, **dict.fromkeys(offered, PROJECTED)})
    out: list[list[Floats]] = [[], [], [], []]

    def tried(asked: LogisticAssociation, of: NDArray[np.bool_], rows: NDArray[np.int64]) -> tuple[Floats, Answer]:
        values = {name: column[of] for name, column in (columns | offered).items()}
        said = over_sites(asked, split(people.codes[:, of], values, people.family[of] % 4), place)
        return np.asarray(said.tables[asked.trait]["z"], dtype=np.float64)[rows], said

    for name, rows in zip(names, tested, strict=True):
        plain = LogisticAssociation("panel", name, (), SecondTest.SCORE, minimum_minor_alleles=1)
        everybody = np.ones(n, dtype=bool)
        mixed, said = tried(replace(plain, offset="wgr").after(answer, place), everybody, rows)
        short = float(said.facts[f"dispersion_chr{people.chromosome[rows[0]]}"])
        alone = mixed / np.sqrt(float(answer.facts[f"calibration_{name}"]) / short)
        found = tried(plain, everybody, rows)[0], alone, mixed, tried(plain, people.founder, rows)[0]
        for values, more in zip(out, found, strict=True):
            values.append(more)
    return Trial(*(np.concatenate(values) for values in out))


def test_offsets_take_the_inflation_of_relatives_away() -> None:
    """400 null variants: few enough for a normal run; `make proof` has 14,400."""
    found = trial(3, families=120, children=3, effect=0.0, traits=10, inherited=0.7, each=40)
    print(found.inflations())
    plain, offset, mixed, _ = ((z**2).mean() for z in found.each)
    assert plain > 1.15
    assert offset < 0.8
    assert mixed == pytest.approx(1, abs=0.15)
    assert found.rates(0.05)[2] < 0.07


@pytest.mark.proof
@pytest.mark.parametrize(
    ("children", "prevalence", "inherited", "near_one"),
    [(4, 0.3, 0.4, 0.1), (4, 0.1, 0.4, 0.1), (4, 0.3, 0.7, 0.2), (4, 0.1, 0.7, 0.2)],
)
def test_type_1_error_and_power_among_relatives(
    children: int, prevalence: float, inherited: float, near_one: float
) -> None:
    """4,800 null variants and 80 with an effect, in people all of whom have first-degree relatives.

    The offset alone is far too timid, since residuals are shorter than what log odds say; corrected it is near its
    level, and has more power than the founders alone. Where almost all of a liability is inherited and there are few
    variants, a prediction says so much of the very people that the corrections are about a tenth off.
    """
    null = [trial(seed, 150, children, 0.0, 20, prevalence, inherited) for seed in range(10, 13)]
    inflated, timid, mixed, _ = inflations = np.mean([each.inflations() for each in null], axis=0)
    rates = {level: np.mean([each.rates(level) for each in null], axis=0) for level in (0.05, 0.001)}
    power = [trial(100 + seed, 150, children, 0.02, 20, prevalence, inherited) for seed in range(4)]
    found = np.mean([each.rates(0.001) for each in power], axis=0)
    print(children, prevalence, inherited, "lambda", inflations, "rates", rates, "power", found)
    assert inflated > 1.12
    assert timid < 0.85
    assert mixed == pytest.approx(1, abs=near_one)
    assert np.mean([(each.mixed**2).mean() for each in null]) == pytest.approx(1, abs=near_one)
    assert rates[0.05][2] < 0.05 * (1 + near_one) + 0.01
    assert rates[0.001][2] < 0.004
    assert found[2] > found[1]
    assert found[2] > found[3]

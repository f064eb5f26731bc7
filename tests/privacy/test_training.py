"""Private training: gradients against other libraries, what one person can change, and what it finds in real data."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from fl_client.readers import Dataset, DatasetConfig
from strategies.analysis import Answer, Frame, Part, Range, Total
from strategies.catalogue import find
from strategies.cohort import MISSING, Cohort, Genotypes
from strategies.errors import UsageError
from strategies.learning.train import PrivateTraining, Shapes, area, clipped_gradients, network, scores
from strategies.privacy import Budget, Loss, Regime
from strategies.protections import noise
from strategies.summary import add, check
from strategies.variants import Panel, Variant

SIMULATIONS = Path(__file__).parents[2] / "simulations"
EUROPE = SIMULATIONS / "data" / "europe1000g"
GENOTYPES = {"FI": "genotypes.pgen", "GB": "genotypes.vcf.gz", "IT": "genotypes.bed", "CEU": "genotypes.pgen"}
COLUMNS = {"label": Range(0, 1), "sex": Range(1, 2), "age": Range(20, 80)}
VARIANTS = 12
PANEL = Panel(
    "GRCh37",
    tuple(Variant("22", 100 + j, f"v{j}", "A", "C", (None, 0.0, 0.002, 0.3, 0.5, 1.0)[j % 6]) for j in range(VARIANTS)),
)
FRAME = Frame(PANEL, COLUMNS)
QUESTION = PrivateTraining("panel", "label", 200, "split", ("sex", "age"), steps=4, averaged=2)


def people(rng: np.random.Generator, n: int) -> Cohort:
    """A cohort with missing genotypes, labels and covariates."""
    columns = {
        "label": rng.choice([0.0, 1.0, np.nan], n, p=[0.45, 0.45, 0.1]),
        "sex": rng.choice([1.0, 2.0, np.nan], n, p=[0.45, 0.45, 0.1]),
        "age": rng.uniform(20, 80, n),
    }
    return Cohort(n, Genotypes.pack(rng.integers(0, 4, (VARIANTS, n)).astype(np.uint8)), columns)


def extremes() -> Cohort:
    """All combinations of the most extreme people: every genotype the same, every column at an end or missing."""
    grid = [
        (g, y, s, a)
        for g in (0, 1, 2, MISSING)
        for y in (0.0, 0.5, 1.0, np.nan)
        for s in (1.0, 2.0, np.nan)
        for a in (20.0, 80.0)
    ]
    codes = np.array([[g for g, *_ in grid]] * VARIANTS, dtype=np.uint8)
    label, sex, age = (np.array([row[k] for row in grid]) for k in (1, 2, 3))
    return Cohort(len(grid), Genotypes.pack(codes), {"label": label, "sex": sex, "age": age})


def at_weights(question: PrivateTraining, weights: np.ndarray, taken: int) -> PrivateTraining:
    """The question as it stands in a later round."""
    flat = tuple(weights.tolist())
    return replace(question, taken=taken, weights=flat, velocity=flat, sums=flat, gradients=(1.0,) * taken)


def drawn_weights(rng: np.random.Generator, shapes: Shapes, reach: float) -> np.ndarray:
    return np.rint(rng.uniform(-reach, reach, shapes.parameters) * 2**16) / 2**16


@pytest.mark.parametrize("hidden", [0, 5])
@pytest.mark.parametrize("most", [0.3, 1.0, 1e3])
def test_closed_form_gradients_are_those_of_autograd(hidden: int, most: float) -> None:
    rng = np.random.default_rng(1)
    shapes = Shapes(VARIANTS + 2, hidden)
    weights = drawn_weights(rng, shapes, 1.0)
    x, y = QUESTION.inputs(people(rng, 60), FRAME)
    model = network(shapes, weights)

    def loss(parameters: dict[str, torch.Tensor], one: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        odds = torch.func.functional_call(model, parameters, (one[None],))[0, 0]
        return torch.nn.functional.binary_cross_entropy_with_logits(odds, label)

    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))
    found = each({n: p.detach() for n, p in model.named_parameters()}, torch.from_numpy(x), torch.from_numpy(y))
    plain = np.concatenate([found[name].reshape(len(x), -1).numpy() for name in shapes.named], axis=1)
    lengths = np.linalg.norm(plain, axis=1, keepdims=True)
    want = plain * np.minimum(1, most / lengths)
    assert np.abs(clipped_gradients(shapes, weights, x, y, most) - want).max() < 1e-6
    if most < 1:
        assert (lengths > most).mean() > 0.3  # the case is worth its name: many are clipped


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("hidden", [0, 5])
def test_closed_form_gradients_are_those_of_opacus(hidden: int) -> None:
    from opacus.grad_sample import GradSampleModule  # noqa: PLC0415  (warns as it is imported)

    rng = np.random.default_rng(2)
    shapes = Shapes(VARIANTS + 2, hidden)
    weights = drawn_weights(rng, shapes, 1.0)
    x, y = QUESTION.inputs(people(rng, 60), FRAME)
    model = GradSampleModule(network(shapes, weights).train(), loss_reduction="sum")
    odds = model(torch.from_numpy(x))[:, 0]
    torch.nn.functional.binary_cross_entropy_with_logits(odds, torch.from_numpy(y), reduction="sum").backward()
    plain = np.concatenate([p.grad_sample.reshape(len(x), -1).numpy() for p in model.parameters()], axis=1)
    want = plain * np.minimum(1, 1 / np.linalg.norm(plain, axis=1, keepdims=True))
    assert np.abs(clipped_gradients(shapes, weights, x, y, 1.0) - want).max() < 1e-6


@pytest.mark.parametrize("hidden", [0, 1, 5])
@pytest.mark.parametrize(("reach", "most"), [(0.0, 1.0), (1.0, 1.0), (64.0, 1.0), (1.0, 0.01), (64.0, 100.0)])
def test_one_person_changes_a_sum_by_no_more_than_declared(hidden: int, reach: float, most: float) -> None:
    rng = np.random.default_rng(3)
    question = replace(QUESTION, hidden=hidden, clipping_norm=most)
    shapes = Shapes(VARIANTS + 2, hidden)
    declared = question.leaves(FRAME)["gradient"]
    reached = 0.0
    for cohort in (extremes(), people(rng, 60)):
        round_two = at_weights(question, drawn_weights(rng, shapes, reach), 1)
        everybody = round_two.summarise(cohort, FRAME)["gradient"]
        for i in range(len(cohort)):
            others = cohort.take(np.delete(np.arange(len(cohort)), i))
            change = everybody - round_two.summarise(others, FRAME)["gradient"]
            one, two = sum(abs(int(c)) for c in change), math.sqrt(sum(int(c) ** 2 for c in change))
            unit = 2.0**-declared.fraction_bits
            assert two * unit <= declared.l2
            assert one * unit <= declared.l1
            reached = max(reached, two * unit / declared.l2)
    print(f"hidden {hidden}, weights within {reach:g}, C {most:g}: the worst person reached {reached:.4f} of the bound")
    if most <= 1 and (reach > 0 or not hidden):  # else gradients are shorter than C
        assert reached > 0.98  # the bound is not lazy


def test_one_person_changes_one_cell_of_the_histogram_by_one() -> None:
    rng = np.random.default_rng(4)
    last = at_weights(QUESTION, drawn_weights(rng, Shapes(VARIANTS + 2, 0), 1.0), QUESTION.steps)
    for cohort in (extremes(), people(rng, 60)):
        counted = last.leaves(FRAME)["histogram"].values
        everybody = counted(last.summarise(cohort, FRAME)["histogram"])
        known = np.isfinite(np.stack(list(cohort.columns.values()))).all(axis=0)
        assert everybody.sum() == known.sum()
        for i in range(len(cohort)):
            others = cohort.take(np.delete(np.arange(len(cohort)), i))
            change = everybody - counted(last.summarise(others, FRAME)["histogram"])
            assert np.abs(change).sum() == known[i]


@pytest.mark.parametrize("hidden", [0, 5])
def test_a_sum_depends_neither_on_order_nor_on_how_people_are_split(hidden: int) -> None:
    rng = np.random.default_rng(5)
    cohort = people(rng, 3001)
    question = replace(QUESTION, hidden=hidden)
    for taken in (1, question.steps):
        asked = at_weights(question, drawn_weights(rng, Shapes(VARIANTS + 2, hidden), 3.0), taken)
        (whole,) = asked.summarise(cohort, FRAME).values()
        order = rng.permutation(len(cohort))
        for cuts in ([], [1], [7, 8, 1031], [1024, 2048]):
            parts = [asked.summarise(cohort.take(part), FRAME) for part in np.split(order, cuts)]
            assert np.array_equal(whole, sum(next(iter(part.values())) for part in parts))


@pytest.mark.parametrize(("hidden", "inputs"), [(0, 200), (16, 200), (64, 200)])
def test_a_person_s_score_and_gradient_are_hers_alone(hidden: int, inputs: int) -> None:
    """Also at weights that forged totals may lead to: pairs of units that cancel but for the last bit of their sum.

    A library adds a batch's rows in an order that depends on how many there are; one more person must not change
    anybody else's score, or the histogram's bound would be false.
    """
    rng = np.random.default_rng(0)
    half = hidden // 2
    if hidden:
        first = np.rint(rng.normal(0, 30, (half, inputs)).clip(-60, 60) * 2**16) / 2**16
        bias, last = rng.normal(0, 1, half), np.rint(rng.normal(0, 30, half).clip(-60, 60) * 2**16) / 2**16
        near = -last + 2.0**-16 * rng.integers(-1, 2, half)
        weights = np.concatenate([np.tile(first, (2, 1)).ravel(), bias, bias, last, near, [0.0]])
    else:
        weights = rng.normal(0, 30, inputs + 1).clip(-60, 60)
    weights = np.rint(weights * 2**16) / 2**16
    people = np.rint(rng.normal(0, 1, (400, inputs)).clip(-4, 4) * 2**10) / 2**10
    labels = rng.integers(0, 2, 400).astype(float)
    shapes = Shapes(inputs, hidden)
    whole = scores(shapes, weights, people)
    for n in range(1, 400):
        assert np.array_equal(scores(shapes, weights, people[:n]), whole[:n]), n
    gradients = clipped_gradients(shapes, weights, people, labels, 1.0)
    for n in (1, 2, 3, 17, 100, 399):
        assert np.array_equal(clipped_gradients(shapes, weights, people[:n], labels[:n], 1.0), gradients[:n]), n


def test_rounds_cost_the_budget_and_parts_are_disjoint() -> None:
    rho = Budget(3.0, 1e-5).loss.rho
    question, spent, parts = QUESTION, [], []
    total = Total({"gradient": np.zeros(VARIANTS + 3, dtype=np.int64)}, ("a",))
    for _ in range(question.steps):
        declared = question.leaves(FRAME)
        scale = noise.scales(declared, Loss(rho * question.fraction()))
        spent.append(noise.spent(declared, scale).rho)
        parts.append(question.needs().part)
        question = question.conclude(total, FRAME)
        assert isinstance(question, PrivateTraining)
    assert sum(spent) == pytest.approx(rho, rel=1e-12)
    assert question.fraction() == 1
    assert question.rounds() == len(parts) + 1
    held_out = question.needs().part
    assert set(parts) == {Part(0.0, 0.7, "split")}
    names = [f"person {i}" for i in range(5000)]
    trained = parts[0].holds(names)
    assert np.array_equal(~trained, held_out.holds(names))
    assert trained.mean() == pytest.approx(0.7, abs=0.03)


@pytest.mark.parametrize("hidden", [0, 3])
def test_every_cohort_is_answered(hidden: int) -> None:
    n = 20
    codes = np.random.default_rng(6).integers(0, 3, (VARIANTS, n)).astype(np.uint8)
    ages, sexes = np.full(n, 50.0), np.full(n, 1.0)
    absent = np.full((VARIANTS, n), MISSING, dtype=np.uint8)
    nobody = people(np.random.default_rng(6), 0)
    one_class = Cohort(n, Genotypes.pack(codes), {"label": np.ones(n), "sex": sexes, "age": ages})
    unlabelled = Cohort(n, Genotypes.pack(codes), {"label": np.full(n, np.nan), "sex": sexes, "age": ages})
    untyped = Cohort(n, Genotypes.pack(absent), {"label": np.arange(n) % 2.0, "sex": sexes, "age": ages})
    for cohort in (nobody, one_class, unlabelled, untyped):
        question: PrivateTraining | Answer = replace(QUESTION, hidden=hidden)
        while isinstance(question, PrivateTraining):
            summary = question.summarise(cohort, FRAME)
            check(summary, question.leaves(FRAME))
            question = question.conclude(Total(summary, ("a",)), FRAME)
        assert all(np.isfinite(a).all() for a in (question.model or {}).values())
        if cohort is untyped:
            assert question.facts["auc"] == pytest.approx(0.5)  # everybody looks alike
        else:
            assert math.isnan(float(question.facts["auc"]))
    training = replace(QUESTION, hidden=hidden)
    for cohort in (nobody, unlabelled):
        assert not training.summarise(cohort, FRAME)["gradient"].any()


def test_a_noised_histogram_never_fails() -> None:
    rng = np.random.default_rng(7)
    last = at_weights(QUESTION, drawn_weights(rng, Shapes(VARIANTS + 2, 0), 1.0), QUESTION.steps)
    for spread in (1, 5, 50, 10**6):
        for _ in range(50):
            cells = rng.integers(-spread, spread + 1, (2, QUESTION.bins))
            answer = last.conclude(Total({"histogram": cells}, ("a", "b"), {"histogram": 3.0}), FRAME)
            assert isinstance(answer, Answer)
            auc = float(answer.facts["auc"])
            assert math.isnan(auc) or 0 <= auc <= 1
            for rate in ("true_positive_rate", "false_positive_rate"):
                points = np.asarray(answer.tables["roc"][rate], dtype=np.float64)
                assert np.isnan(points).all() or (np.diff(points) >= 0).all()
    empty = last.conclude(Total({"histogram": np.zeros((2, QUESTION.bins), dtype=np.int64)}, ("a",)), FRAME)
    assert isinstance(empty, Answer)
    assert math.isnan(float(empty.facts["auc"]))


def test_area_is_the_mann_whitney_statistic() -> None:
    rng = np.random.default_rng(8)
    labels, bins = rng.integers(0, 2, 300), rng.integers(0, 9, 300)
    bins = np.minimum(bins + 2 * labels, 9)
    histogram = np.stack([np.bincount(bins[labels == k], minlength=10) for k in (0, 1)]).astype(float)
    assert area(histogram).area == pytest.approx(roc_auc_score(labels, bins), abs=1e-12)
    assert area(histogram[:, ::-1]).area == pytest.approx(1 - area(histogram).area, abs=1e-12)


def test_the_interval_of_the_area_covers_sampling_and_noise() -> None:
    rng = np.random.default_rng(9)
    shape = np.array([[30, 20, 15, 12, 10, 6, 4, 3], [3, 4, 6, 10, 12, 15, 20, 30]], dtype=float)
    true = area(shape).area
    covered = []
    for _ in range(2000):
        drawn = np.stack([rng.multinomial(54, row / row.sum()) for row in shape])
        found = area(drawn + rng.normal(0, 3.0, drawn.shape), 3.0)
        low, high = found.interval
        covered.append(low <= true <= high)
    print(f"95 % intervals of an area of {true:.3f} covered it {np.mean(covered):.3f} of the time")
    assert 0.94 <= np.mean(covered) <= 0.99


def test_concluding_is_deterministic_and_needs_only_the_sums() -> None:
    rng = np.random.default_rng(10)
    for hidden in (0, 3):
        first = replace(QUESTION, hidden=hidden)
        d = Shapes(VARIANTS + 2, hidden).parameters
        sums = [{"gradient": rng.integers(-(2**24), 2**24, d)} for _ in range(first.steps)]
        runs = []
        for noised in ({}, {"gradient": 5.0}):
            question = first
            for total in sums:
                following = question.conclude(Total(total, ("a", "b"), noised, 10), FRAME)
                assert isinstance(following, PrivateTraining)
                question = following
            runs.append(question)
        assert runs[0] == runs[1]
        assert all(w * 2**16 == int(w * 2**16) for w in runs[0].weights)
        answer = runs[0].conclude(Total({"histogram": np.full((2, first.bins), 9)}, ("a",)), FRAME)
        assert isinstance(answer, Answer)
        assert answer.model is not None
        model = torch.nn.Sequential(*network(Shapes(VARIANTS + 2, hidden), np.array(runs[0].weights))).float()
        model.load_state_dict({name: torch.from_numpy(a) for name, a in answer.model.items()}, strict=True)
        x, _ = first.inputs(people(rng, 30), FRAME)
        with torch.no_grad():
            odds = torch.sigmoid(model(torch.from_numpy(x).float()))[:, 0].numpy()
        shapes = Shapes(VARIANTS + 2, hidden)
        assert np.abs(odds - scores(shapes, np.array(runs[0].weights), x)).max() < 1e-5


def test_the_training_curve_tells_signal_from_noise() -> None:
    rng = np.random.default_rng(11)
    question: PrivateTraining | Answer = replace(QUESTION, steps=4)
    d = VARIANTS + 3
    first = question
    assert isinstance(first, PrivateTraining)
    scale = noise.scales(first.leaves(FRAME), Loss(0.2 * first.fraction()))["gradient"]
    while isinstance(question, PrivateTraining) and question.taken < question.steps:
        drawn = rng.normal(0, 2 * scale, d) * 2**question.FRACTION_BITS
        question = question.conclude(Total({"gradient": np.rint(drawn).astype(np.int64)}, tuple("abcd")), FRAME)
    assert isinstance(question, PrivateTraining)
    cell = noise.scales(question.leaves(FRAME), Loss(0.2))["histogram"]
    cells = {"histogram": np.full((2, question.bins), 20)}
    answer = question.conclude(Total(cells, tuple("abcd"), {"histogram": 2 * cell}), FRAME)
    assert isinstance(answer, Answer)
    curve = answer.tables["training"]
    expected = 2 * scale * math.sqrt(d) / (QUESTION.expected_people * QUESTION.training_share)
    assert np.asarray(curve["noise"]) == pytest.approx(expected)
    assert np.asarray(curve["gradient"]) == pytest.approx(expected, rel=0.5)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"covariates": ("label",)}, "different columns"),
        ({"training_share": 1.0}, "training_share must be from 0.01 to 0.99"),
        ({"averaged": 5}, "averaged must be from 1 to 4"),
        ({"clipping_norm": math.nan}, "clipping_norm must be from 0.01 to 100"),
        ({"hidden": 65}, "hidden must be from 0 to 64"),
        ({"split": "x" * 101}, "split must be at most 100 characters"),
        ({"taken": 1, "gradients": (1.0,)}, "weights must follow from earlier rounds"),
        ({"weights": (65.0,), "velocity": (0.0,), "sums": (0.0,)}, "weights must lie within 64"),
        ({"weights": (1.0,)}, "must follow from earlier rounds"),
    ],
)
def test_parameters_that_break_a_rule_are_refused(changes: Mapping[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        replace(QUESTION, **changes)  # type: ignore[arg-type]


def test_a_model_that_would_drown_in_noise_is_refused() -> None:
    many = Panel("GRCh37", tuple(Variant("22", j, "v", "A", "C") for j in range(1, 1100)))
    with pytest.raises(UsageError, match="at most 65536 parameters"):
        replace(QUESTION, hidden=64).leaves(Frame(many, COLUMNS))


def test_training_is_in_the_catalogue_and_torch_is_loaded_only_to_train() -> None:
    assert find("train", Regime.PRIVATE) is PrivateTraining
    derived = {f.name for f in fields(PrivateTraining) if f.metadata.get("derived")}
    assert derived == {"taken", "weights", "velocity", "sums", "gradients"}
    loaded = "import sys, strategies.catalogue; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", loaded], check=False).returncode == 0


@dataclass(frozen=True)
class Europe:
    """The demo's four sites, with everybody's genotypes at the panel around GSTT1."""

    frame: Frame
    names: dict[str, tuple[str, ...]]
    cohorts: dict[str, Cohort]

    def part(self, site: str, part: Part, labels: Mapping[str, np.ndarray]) -> Cohort:
        cohort = self.cohorts[site]
        columns = {**cohort.columns, "GSTT1_high": labels[site]}
        return replace(cohort, columns=columns).take(np.flatnonzero(part.holds(self.names[site])))


@pytest.fixture(scope="module")
def europe() -> Europe:
    if not EUROPE.is_dir():
        pytest.skip("the demo's data are not there")
    panel = Panel.read(SIMULATIONS / "studies" / "gstt1.tsv", "GRCh37")
    frame = Frame(panel, DEMO_COLUMNS)
    everybody = replace(DEMO.needs(), part=Part())
    sites = {site: open_site(site) for site in GENOTYPES}
    return Europe(
        frame,
        {site: tuple(data.people) for site, data in sites.items()},
        {site: data.cohort(everybody, frame) for site, data in sites.items()},
    )


def open_site(site: str) -> Dataset:
    return Dataset.open(DatasetConfig(f"DEMO-{site}", "GRCh37", "people.tsv", GENOTYPES[site]), EUROPE / site)


DEMO = PrivateTraining("gstt1", "GSTT1_high", 360, "split 0", ("sex",))
"""The question that the demo's study asks, at its default parameters."""

HONEST = 3
"""Of its four sites, as in the demo's study."""

DEMO_COLUMNS = {"GSTT1_high": Range(0, 1), "sex": Range(1, 2)}


@dataclass(frozen=True)
class Trained:
    """An answer beside what only a simulation knows: the exact area on the held-out people."""

    answer: Answer
    exact: float
    binned: float


def train(europe: Europe, question: PrivateTraining, labels: Mapping[str, np.ndarray], loss: Loss | None) -> Trained:
    """Ask all rounds as a gate would, with each site's share of the noise, or without noise if there is no loss."""
    while True:
        part, declared = question.needs().part, question.leaves(europe.frame)
        scale = {} if loss is None else noise.shares(declared, Loss(loss.rho * question.fraction()), HONEST)
        cohorts = [europe.part(site, part, labels) for site in europe.cohorts]
        sums = None
        for cohort in cohorts:
            summary = question.summarise(cohort, europe.frame)
            if loss is not None:
                summary = noise.add_noise(summary, declared, scale)
            sums = summary if sums is None else add(sums, summary)
        assert sums is not None
        total = Total(sums, tuple(europe.cohorts), {k: v * math.sqrt(len(cohorts)) for k, v in scale.items()})
        concluded = question.conclude(total, europe.frame)
        if isinstance(concluded, Answer):
            pairs = [question.inputs(cohort, europe.frame) for cohort in cohorts]
            x, y = (np.concatenate([pair[k] for pair in pairs]) for k in (0, 1))
            predicted = scores(Shapes(x.shape[1], question.hidden), np.array(question.weights), x)
            held = [declared["histogram"].values(question.summarise(c, europe.frame)["histogram"]) for c in cohorts]
            return Trained(concluded, float(roc_auc_score(y, predicted)), area(np.sum(held, axis=0)).area)
        question = concluded


def best_single_variant(panel: Panel, labels: Mapping[str, np.ndarray]) -> tuple[float, Variant]:
    """The largest area of any variant alone, on everybody: chosen and measured on the same people."""
    frame = Frame(panel, DEMO_COLUMNS)
    needs = replace(DEMO.needs(), part=Part())
    codes = [open_site(site).cohort(needs, frame).genotypes.codes() for site in GENOTYPES]  # type: ignore[union-attr]
    y = np.concatenate([labels[site] for site in GENOTYPES])
    areas = np.array([roc_auc_score(y, row) for row in np.concatenate(codes, axis=1)])
    areas = np.maximum(areas, 1 - areas)
    return float(areas.max()), panel.variants[int(areas.argmax())]


@pytest.mark.proof
@pytest.mark.parametrize(("hidden", "repeats"), [(0, 8), (8, 2)])
def test_thirty_splits_of_real_people(europe: Europe, hidden: int, repeats: int) -> None:
    """At epsilon 3 per site the model predicts held-out people about as well as it does without noise or clipping."""
    loss = Budget(3.0, 1e-5).loss
    labels = {site: cohort.columns["GSTT1_high"] for site, cohort in europe.cohorts.items()}
    rng = np.random.default_rng(12)
    private, plain, permuted, unbounded = [], [], [], []
    for number in range(30):
        question = replace(DEMO, split=f"split {number}", hidden=hidden)
        private += [train(europe, question, labels, loss) for _ in range(repeats)]
        plain.append(train(europe, replace(question, clipping_norm=100.0), labels, None))
        for _ in range(4):  # the mean's standard error is then about 0.005, a tenth of what is allowed
            shuffled = {site: rng.permutation(values) for site, values in labels.items()}
            permuted.append(train(europe, question, shuffled, loss))
        parts = {}
        for share in (Part(0.0, 0.7, question.split), Part(0.7, 1.0, question.split)):
            pairs = [question.inputs(europe.part(s, share, labels), europe.frame) for s in europe.cohorts]
            parts[share.start] = tuple(np.concatenate([pair[k] for pair in pairs]) for k in (0, 1))
        (x, y), (held, truth) = parts[0.0], parts[0.7]
        pooled = LogisticRegression(C=1.0, max_iter=5000).fit(x, y)
        unbounded.append(roc_auc_score(truth, pooled.decision_function(held)))
    exact = np.array([t.exact for t in private])
    noised = np.array([float(t.answer.facts["auc"]) for t in private])
    errors = noised - np.array([t.binned for t in private])
    stated = np.array([float(t.answer.facts["auc_noise_sd"]) for t in private])
    without = np.array([t.exact for t in plain])
    chance = np.array([t.exact for t in permuted])
    around = Panel.read(EUROPE / "panel.tsv.gz", "GRCh37")
    around = Panel("GRCh37", tuple(v for v in around.variants if 24_150_000 <= v.position < 24_600_000))
    best, variant = best_single_variant(around, labels)
    assert europe.frame.panel is not None
    best_in_panel, _ = best_single_variant(europe.frame.panel, labels)
    print(
        f"\nhidden {hidden}, {len(exact)} private trainings over 30 splits, {loss.epsilon(1e-5):.2f} at 1e-5 per site\n"
        f"  area on held-out people      {exact.mean():.4f}  sd {exact.std():.3f}  lowest {exact.min():.3f}\n"
        f"  area from noised histograms  {np.nanmean(noised):.4f}  sd {np.nanstd(noised):.3f}"
        f"  NaN {np.isnan(noised).sum()}\n"
        f"    error by noise: root mean square {np.sqrt(np.nanmean(errors**2)):.3f}, stated {np.nanmean(stated):.3f}\n"
        f"  same, no noise, no clipping  {without.mean():.4f}  (scikit-learn, pooled: {np.mean(unbounded):.4f})\n"
        f"  labels permuted within sites {chance.mean():.4f}  sd {chance.std():.3f}\n"
        f"  best single variant          {best_in_panel:.4f} of the panel; of {len(around)} near {best:.4f}, {variant}"
    )
    assert exact.mean() >= 0.84
    assert exact.mean() >= without.mean() - 0.03
    assert abs(chance.mean() - 0.5) <= 0.05
    if not hidden:
        assert np.nanmean(noised) >= 0.84
        assert np.nanmean(noised) >= without.mean() - 0.03
        assert np.isnan(noised).mean() <= 0.1  # about one in a hundred, where a class all but vanishes in its noise
        assert np.sqrt(np.nanmean(errors**2)) <= 1.3 * np.nanmean(stated)

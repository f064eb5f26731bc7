"""Boosted trees of a federation beside those of scikit-learn on all people pooled and equally binned."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

from strategies.analysis import Answer, Frame, Range, Total
from strategies.cohort import Cohort
from strategies.learning.boosted_trees import BoostedTrees, Loss
from strategies.learning.tree_growth import coarsened
from strategies.protections.suppression import PROFILES, WITHHELD
from tests.laws.zoo import add

RANGES = {
    "a": Range(-4.0, 4.0),
    "b": Range(0.0, 10.0),
    "c": Range(0.0, 3.0),
    "g": Range.of("u", "v", "w"),
    "h": Range.of("no", "yes"),
    "case": Range.of("no", "yes"),
    "trait": Range(-12.0, 12.0),
}
FRAME = Frame(columns=RANGES)
FEATURES = ("a", "b", "c", "g", "h")


def people(n: int, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    out = {
        "a": rng.normal(0, 2, n).clip(-4, 4),
        "b": rng.uniform(0, 10, n),
        "c": rng.integers(0, 4, n).astype(float),
        "g": rng.integers(0, 3, n).astype(float),
        "h": rng.integers(0, 2, n).astype(float),
    }
    odds = out["a"] * (1 + out["h"]) / 2 - 0.3 * out["b"] + 1.5 * (out["c"] == 2) + (out["g"] == 1)
    out["case"] = (rng.random(n) < 1 / (1 + np.exp(-odds))).astype(float)
    out["trait"] = (odds + rng.normal(0, 1, n)).clip(-12, 12)
    return out


def asked(page: BoostedTrees, columns: Mapping[str, np.ndarray], ends: list[int], minimum: int = 0) -> Answer:
    """The answer over sites of people up to each end."""
    spans = [slice(a, b) for a, b in zip([0, *ends], ends, strict=False)]
    sites = [Cohort(s.stop - s.start, columns={name: v[s] for name, v in columns.items()}) for s in spans]
    names, following = tuple(f"site{i}" for i in range(len(sites))), page
    while isinstance(following, BoostedTrees):
        sums = add([following.summarise(site, FRAME) for site in sites])
        following = following.conclude(Total(sums, names, minimum_cell=minimum), FRAME)  # type: ignore[assignment]
    return following


def inputs(columns: Mapping[str, np.ndarray], bins: int) -> np.ndarray:
    """(n, F) numbers by bin, categories as no or yes: the test's own."""
    out = []
    for name in FEATURES:
        span, values = RANGES[name], columns[name]
        if not span.categories:
            edges = np.linspace(span.minimum, span.maximum, bins + 1)
            out.append(np.clip(np.searchsorted(edges, values, side="right") - 1, 0, bins - 1))
        elif len(span.categories) == 2:
            out.append(values)
        else:
            out += [values == place for place in range(len(span.categories))]
    return np.stack(out, axis=1).astype(float)


def foretold(answer: Answer, columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """f of everybody, from the answer's table alone."""
    nodes: dict[int, dict[int, tuple[str, float, float]]] = defaultdict(dict)
    table = answer.tables["trees"]
    for row in zip(*(table[name] for name in ("tree", "node", "feature", "below", "value")), strict=True):
        nodes[int(row[0])][int(row[1])] = (str(row[2]), float(row[3]), float(row[4]))
    values = {name: columns[name] for name in FEATURES if not RANGES[name].categories}
    for name in FEATURES:
        values |= {f"{name} {c}": (columns[name] == k).astype(float) for k, c in enumerate(RANGES[name].categories)}
    out = np.full(len(columns["a"]), float(answer.facts["base"]))
    for tree in sorted(nodes):
        for i in range(len(out)):
            at = 0
            while nodes[tree][at][0]:
                feature, below, _ = nodes[tree][at]
                at = 2 * at + 1 + int(values[feature][i] >= below)
            out[i] += nodes[tree][at][2]
    return out


@pytest.mark.parametrize(("loss", "response"), [(Loss.LOGISTIC, "case"), (Loss.SQUARED, "trait")])
@pytest.mark.parametrize(("depth", "l2"), [(4, 0.0), (2, 5.0)])
def test_trees_are_those_of_scikit_learn(loss: Loss, response: str, depth: int, l2: float) -> None:
    columns = people(2000, 1)
    page = BoostedTrees(response, FEATURES, loss, trees=20, depth=depth, l2=l2, learning_rate=0.2)
    answer = asked(page, columns, [300, 1100, 2000])
    other = HistGradientBoostingClassifier if loss is Loss.LOGISTIC else HistGradientBoostingRegressor
    model = other(
        max_iter=20, max_depth=depth, max_leaf_nodes=None, min_samples_leaf=20, learning_rate=0.2,
        l2_regularization=l2, early_stopping=False, max_bins=255,
    ).fit(inputs(columns, 32), columns[response])  # fmt: skip
    want = model._raw_predict(inputs(columns, 32))[:, 0]
    np.testing.assert_allclose(foretold(answer, columns), want, atol=1e-7)
    table = answer.tables["trees"]
    sizes = [len(predictor[0].nodes) for predictor in model._predictors]
    assert np.bincount(np.asarray(table["tree"]))[1:].tolist() == sizes, "as many nodes in each tree"
    for number, (predictor,) in enumerate(model._predictors, start=1):
        ours = np.sort(np.asarray(table["people"])[np.asarray(table["tree"]) == number])
        assert ours.tolist() == np.sort(predictor.nodes["count"]).tolist(), "of as many people"
    assert answer.facts["rounds"] <= 1 + 20 * depth


def test_however_people_are_split_over_sites_the_trees_are_the_same_bytes() -> None:
    columns, page = people(900, 2), BoostedTrees("case", FEATURES, trees=5, depth=3)
    one, three = (asked(page, columns, ends) for ends in ([900], [20, 400, 900]))
    for name, table in one.tables.items():
        for column, values in table.items():
            np.testing.assert_array_equal(
                np.asarray(values), np.asarray(three.tables[name][column]), f"{name} {column}"
            )
    assert {**one.facts} == {**three.facts}


def test_bins_of_few_people_are_joined_before_anything_follows_from_them() -> None:
    rng = np.random.default_rng(5)
    cells = rng.poisson(3.0, (20, 4, 12, 1)) * (rng.random((20, 4, 12, 1)) < 0.7)
    cells = np.concatenate([cells, rng.integers(-50, 50, cells.shape)], axis=3).astype(np.int64)
    before = cells
    for minimum in PROFILES[1:]:
        joined = coarsened(cells, minimum)
        hidden = joined[..., 0] == WITHHELD
        assert np.array_equal(hidden, (joined == WITHHELD).all(axis=3))
        assert (hidden | (joined[..., 0] == 0) | (joined[..., 0] >= minimum)).all()
        assert (hidden >= (before[..., 0] == WITHHELD)).all(), "a higher minimum withholds what a lower one does"
        assert np.array_equal(coarsened(joined, minimum), joined)
        whole = hidden.all(axis=2)
        sums = np.where(hidden[..., None], 0, joined)
        assert np.array_equal(sums.sum(axis=2)[~whole], cells.sum(axis=2)[~whole])
        totals = cells[..., 0].sum(axis=2)
        assert np.array_equal(whole, (totals > 0) & (totals < minimum))
        for place in np.argwhere(~whole):  # what is shown at a bin is of the bins since the last that is shown
            ends = np.flatnonzero(~hidden[tuple(place)])
            each = np.diff(cells[tuple(place)].cumsum(axis=0)[ends], axis=0, prepend=0)
            assert np.array_equal(each, joined[tuple(place)][ends])
        before = joined


def test_a_leaf_shows_no_fewer_people_than_a_cell() -> None:
    answer = asked(
        BoostedTrees("case", FEATURES, trees=6, depth=4, leaf_people=10), people(700, 3), [200, 400, 700], 10
    )
    assert answer.facts["fit"] == "grown"
    assert np.asarray(answer.tables["trees"]["people"]).min() >= 10


@pytest.mark.proof
def test_trees_of_100_000_people_and_50_features_beside_scikit_learn() -> None:
    """100 trees of five levels, four unequal sites; printed: time beside it, and exchanges."""
    rng, n = np.random.default_rng(7), 100_000
    columns = {f"x{j}": rng.normal(0, 1, n).clip(-4, 4) for j in range(50)}
    odds = columns["x0"] * columns["x1"] + np.sin(columns["x2"]) - (columns["x3"] > 1) + 0.1 * columns["x4"]
    columns["case"] = (rng.random(n) < 1 / (1 + np.exp(-odds))).astype(float)
    names = tuple(f"x{j}" for j in range(50))
    frame = Frame(columns={name: Range(-4.0, 4.0) for name in names} | {"case": Range.of("no", "yes")})
    ends, following = [10_000, 30_000, 60_000, n], BoostedTrees("case", names, trees=100, depth=5)
    spans = [slice(a, b) for a, b in zip([0, *ends], ends, strict=False)]
    sites = [Cohort(s.stop - s.start, columns={name: v[s] for name, v in columns.items()}) for s in spans]
    started, answer = time.perf_counter(), None
    while answer is None:
        sums = add([following.summarise(site, frame) for site in sites])
        concluded = following.conclude(Total(sums, ("a", "b", "c", "d")), frame)
        answer, following = (concluded, following) if isinstance(concluded, Answer) else (None, concluded)
    ours = time.perf_counter() - started
    edges = np.linspace(-4.0, 4.0, 33)
    binned = np.stack([np.clip(np.searchsorted(edges, columns[x], "right") - 1, 0, 31) for x in names], 1).astype(float)
    started = time.perf_counter()
    model = HistGradientBoostingClassifier(
        max_iter=100, max_depth=5, max_leaf_nodes=None, min_samples_leaf=20, early_stopping=False
    ).fit(binned, columns["case"])
    theirs = time.perf_counter() - started
    print(f"{answer.facts['rounds']} exchanges, {ours:.1f} s; scikit-learn, pooled, {theirs:.1f} s")
    want, table = model._raw_predict(binned)[:, 0], answer.tables["trees"]
    width = 2**6 - 1
    features, below, values = np.full((100, width), -1), np.zeros((100, width)), np.zeros((100, width))
    at = np.asarray(table["tree"]) - 1, np.asarray(table["node"])
    features[at] = [names.index(name) if name else -1 for name in table["feature"]]
    below[at], values[at] = np.nan_to_num(np.asarray(table["below"])), table["value"]
    x, got = np.stack([columns[name] for name in names]), np.full(n, float(answer.facts["base"]))
    for t in range(100):
        node = np.zeros(n, dtype=np.int64)
        for _ in range(5):
            inner = features[t, node] >= 0
            beyond = x[features[t, node], np.arange(n)] >= below[t, node]
            node = np.where(inner, 2 * node + 1 + beyond, node)
        got += values[t, node]
    np.testing.assert_allclose(got, want, atol=1e-6)

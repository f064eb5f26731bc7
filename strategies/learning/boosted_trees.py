"""Gradient-boosted trees of decisions: each tree grows level by level from histograms that are summed over the sites.

    f(x) = b + rate * sum over trees of the value of the leaf in which x lies

b is the mean of the response, or the log odds of the cases. For each tree a person has a gradient g = dL / df and a
second derivative h of the loss, both rounded to single precision; each exchange sums people, g and h by open node,
feature and bin, and from the sums follows by which feature and bin each node is parted, and whether. Features are cut
into bins of equal width over their public range, and a category is a feature of two bins. So a tree takes at most as
many exchanges as it has levels, and the trees are those that scikit-learn's histogram gradient boosting grows on all
people pooled and equally binned, with no limit on leaves [1].

What one person can change: in a round, one cell of people for each feature by one, and one cell of each sum by their
own g or h. What the answer shows of people is who is in a node, never fewer than `leaf_people`, and the node's value.
A bin of few people in a node is joined to its neighbours before anything follows from it. Which bins part which nodes
is the coordinator's word in the rounds that follow.

[1] Ke et al.: LightGBM, NeurIPS 2017, algorithm 1; scikit-learn's HistGradientBoosting follows it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy import special

from strategies.analysis import (
    CARRIED,
    DERIVED,
    KEPT,
    NAMES_ANY_COLUMN,
    NAMES_COLUMN,
    WHOLE,
    Answer,
    Column,
    Frame,
    Needs,
    Total,
    check_within,
)
from strategies.cohort import Cohort
from strategies.errors import UsageError
from strategies.learning.tree_growth import Parting, coarsened, parted
from strategies.outcomes import cases, middle_of
from strategies.privacy import Regime
from strategies.protections.suppression import WITHHELD, small
from strategies.summary import Field, Summary

MOST_TREES, MOST_DEPTH, MOST_BINS, MOST_FEATURES = 500, 8, 64, 500
MOST_CELLS = 4_000_000
MOST_PEOPLE = 2**40
MOST_VALUE = 1e6

SUM_BITS = 54
"""A sum over N people of numbers below one is below 2^54 on a grid of 2^-(54 - log2 N), and 27 sites' below 2^62."""

OPEN, LEAF = -2, -1
"""In the place of a node's feature: it may yet be parted; it is a leaf, or there is no such node."""

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]


class Loss(StrEnum):
    """What trees make small: squares of y - f, or the negative log likelihood of cases with log odds f."""

    SQUARED = "squared"
    LOGISTIC = "logistic"


@dataclass(frozen=True)
class Feature:
    """A column, or one of its categories, in bins.

    Attributes:
        column: the column's name.
        category: which category, by place; None for a number.
        label: its name in the answer.
        edges: (B + 1,) of the bins of a number.
    """

    column: str
    category: int | None
    label: str
    edges: tuple[float, ...]

    def bins(self, values: Floats) -> NDArray[np.uint8]:
        """(n,) the bin of each value."""
        if self.category is not None:
            return np.asarray(values == self.category, dtype=np.uint8)
        from strategies.kernels import trees  # noqa: PLC0415  (numba loads where it is used)

        out = np.zeros(len(values), dtype=np.uint8)
        trees.binned(values, np.array(self.edges), out)
        return out

    def border(self, cut: int) -> float:
        """The lowest value beyond a bin; of a category, a half between no and yes."""
        return self.edges[cut + 1] if self.edges else 0.5


def _none(*shape: int) -> Counts:
    return np.zeros(shape, dtype=np.int64)


@dataclass(frozen=True)
class BoostedTrees:
    """Trees that foretell a column.

    Attributes:
        response: name of a column of numbers; for the logistic loss whoever lies above the middle of its range, or in
            the second of two categories, is a case.
        features: names of columns of numbers or of categories.
        loss: what is made small.
        trees: how many are grown.
        depth: the most partings from the root to a leaf.
        leaf_people: fewest people in a leaf.
        learning_rate: by what a tree's values are multiplied.
        l2: added to a node's sum of second derivatives.
        bins: how many equal bins a number's range is cut into.
        taken: rounds taken.
        tree, level: which tree's level this round is about.
        people: with all columns.
        base: b.
        parts: (T, 2^depth - 1) by which feature each node of each tree is parted, OPEN or LEAF; children of node k are
            2 k + 1 and 2 k + 2.
        borders: (T, 2^depth - 1) the last bin of the first child.
        values: (T, 2^(depth + 1) - 1) each node's value, times the learning rate.
        gains, sizes: (T, 2^(depth + 1) - 1) what parting a node gained, and how many people are in it.
    """

    analysis: ClassVar[str] = "boosted_trees"
    regime: ClassVar[Regime] = Regime.EXACT
    by_site: ClassVar[bool] = False
    summary_in_words: ClassVar[str] = (
        "in each round, for each open node of a tree, numbers of people in each bin of each feature and sums of their "
        "residuals and weights"
    )

    response: str = field(metadata=NAMES_COLUMN)
    features: tuple[str, ...] = field(metadata=NAMES_ANY_COLUMN)
    loss: Loss = Loss.LOGISTIC
    trees: int = 100
    depth: int = 4
    leaf_people: int = 20
    learning_rate: float = 0.1
    l2: float = 0.0
    bins: int = 32
    taken: int = field(default=0, metadata=DERIVED)
    tree: int = field(default=0, metadata=DERIVED)
    level: int = field(default=0, metadata=DERIVED)
    people: int = field(default=0, metadata=DERIVED)
    base: float = field(default=0.0, metadata=DERIVED)
    parts: Counts = field(default_factory=lambda: _none(0, 0), compare=False, metadata=CARRIED)
    borders: Counts = field(default_factory=lambda: _none(0, 0), compare=False, metadata=CARRIED)
    values: Floats = field(default_factory=lambda: np.zeros((0, 0)), compare=False, metadata=CARRIED)
    gains: Floats = field(default_factory=lambda: np.zeros((0, 0)), compare=False, metadata=KEPT)
    sizes: Counts = field(default_factory=lambda: _none(0, 0), compare=False, metadata=KEPT)

    def __post_init__(self) -> None:
        if self.response in self.features or not 1 <= len(set(self.features)) == len(self.features) <= MOST_FEATURES:
            raise ValueError(f"response and 1 to {MOST_FEATURES} features must be different columns.")
        check_within(
            self,
            ("trees", 1, MOST_TREES),
            ("depth", 1, MOST_DEPTH),
            ("leaf_people", 1, 10**6),
            ("learning_rate", 1e-4, 1.0),
            ("l2", 0.0, 1e6),
            ("bins", 2, MOST_BINS),
            ("taken", 0, self.rounds() - 1),
            ("tree", 0, self.trees - 1),
            ("level", 0, self.depth - 1),
            ("people", 0, MOST_PEOPLE),
            ("base", -1e12, 1e12),
        )

    def _check_trees(self) -> None:
        """Assert that the trees so far are such.

        Raises:
            ValueError: if they are not.
        """
        grown, inner, all_ = self.tree + 1, 2**self.depth - 1, 2 ** (self.depth + 1) - 1
        shapes = {"parts": (grown, inner), "borders": (grown, inner), "values": (grown, all_)}
        for name, shape in shapes.items():
            array, kind = getattr(self, name), np.float64 if name == "values" else np.int64
            if array.shape != shape or array.dtype != kind:
                raise ValueError("A round carries the trees so far.")
        if not (np.abs(self.values) <= MOST_VALUE).all() or (self.parts < OPEN).any() or not len(self._open):
            raise ValueError("Trees are within their bounds, and a round is about open nodes of the last.")

    def needs(self) -> Needs:
        return Needs(columns=(self.response, *self.features))

    def rounds(self) -> int:
        return 1 + self.trees * self.depth

    def fraction(self) -> float:
        return 0.0

    def slices(self, frame: Frame) -> tuple[slice, ...]:
        return WHOLE

    # -- what the rounds share --------------------------------------------------------------------------------------

    def _bins(self, frame: Frame) -> list[Feature]:
        """The features, one for a number and for two categories, and one for each of more."""
        out = []
        for name in self.features:
            span = frame.columns[name]
            if not span.categories:
                edges = np.linspace(span.minimum, span.maximum, self.bins + 1)
                out.append(Feature(name, None, name, tuple(edges.tolist())))
            else:
                first = 1 if len(span.categories) == 2 else 0
                out += [Feature(name, k, f"{name} {c}", ()) for k, c in enumerate(span.categories) if k >= first]
        return out

    def cuts(self, frame: Frame) -> Mapping[str, tuple[float, ...]]:
        inner = {one.column: one.edges[1:-1] for one in self._bins(frame) if one.edges}
        return {**inner, **({self.response: (middle_of(frame.columns[self.response]),)} if self._logistic else {})}

    @property
    def _logistic(self) -> bool:
        return self.loss is Loss.LOGISTIC

    @property
    def _open(self) -> Counts:
        """(L,) the nodes of this round's level that may yet be parted."""
        first = 2**self.level - 1
        return np.asarray(first + np.flatnonzero(self.parts[self.tree, first : 2 * first + 1] == OPEN))

    def _reach(self) -> tuple[float, float]:
        """The lowest and the highest f of anybody before this tree."""
        done = self.values[: self.tree]
        ends = np.pad(self.parts[: self.tree], ((0, 0), (0, 2**self.depth)), constant_values=LEAF) < 0
        low, high = (np.where(ends, done, end) for end in (np.inf, -np.inf))
        return self.base + float(low.min(axis=1).sum()), self.base + float(high.max(axis=1).sum())

    def _most(self, frame: Frame) -> float:
        """The largest |g|."""
        low, high = self._reach()
        if self._logistic:
            return float(max(special.expit(high), special.expit(-low)))
        span = frame.columns[self.response]
        return max(high - span.minimum, span.maximum - low)

    def _bits(self, frame: Frame) -> int:
        return SUM_BITS - self.people.bit_length() - max(0, math.ceil(math.log2(max(1.0, self._most(frame)))))

    # -- what leaves --------------------------------------------------------------------------------------------------

    def leaves(self, frame: Frame) -> dict[str, Field]:
        if not self.taken:
            if self._logistic:
                return {"people": Field((2,), "controls and cases with every column", 1, 1)}
            span = frame.columns[self.response]
            most = max(abs(span.minimum), abs(span.maximum))
            bits = 30 - max(0, math.ceil(math.log2(max(1.0, most))))
            return {
                "people": Field((1,), "people with every column", 1, 1),
                "response": Field((), f"sum of {self.response}", most + 2.0**-bits, most + 2.0**-bits, bits),
            }
        self._check_trees()
        features = self._bins(frame)
        if (self.parts >= len(features)).any():
            raise ValueError("A node is parted by a feature.")
        shape = len(self._open), len(features), max(2, self.bins)
        if math.prod(shape) > MOST_CELLS:
            raise UsageError(
                f"Open nodes, features and bins make at most {MOST_CELLS:,} cells.",
                " times ".join(map(str, shape)),
                "take fewer features or bins, or shallower trees.",
            )
        number, bits = len(features), self._bits(frame)
        out = {"people": Field(shape, "people in each open node, feature and bin", number, number**0.5)}
        words = {"gradient": ("residuals", self._most(frame)), "curvature": ("p (1 - p)", 0.25)}
        for name, (word, most) in words.items():
            if name == "gradient" or self._logistic:
                held = float(np.nextafter(np.float32(most), np.float32(np.inf))) + 2.0**-bits
                out[name] = Field(shape, f"sums of {word}", number * held, number**0.5 * held, bits)
        return out

    def summarise(self, cohort: Cohort, frame: Frame) -> Summary:
        inside, fields, span = cohort.complete, self.leaves(frame), frame.columns[self.response]
        values = cohort.columns[self.response][inside]
        case = cases(span, values)
        if not self.taken:
            if self._logistic:
                return {"people": np.bincount(case, minlength=2).astype(np.int64)}
            people = np.array([len(values)], dtype=np.int64)
            return {"people": people, "response": np.array(fields["response"].integers(values).sum(), dtype=np.int64)}
        from strategies.kernels import trees  # noqa: PLC0415  (numba loads where it is used)

        bins = np.stack([one.bins(cohort.columns[one.column][inside]) for one in self._bins(frame)])
        rows, f = np.ascontiguousarray(bins.T), np.full(len(values), self.base)
        trees.added(rows, self.parts[: self.tree], self.borders[: self.tree], self.values[: self.tree], f)
        node = np.zeros(len(values), dtype=np.int64)
        trees.placed(rows, self.parts[self.tree], self.borders[self.tree], node)
        number = np.full(2 ** (self.depth + 1) - 1, -1)
        number[self._open] = np.arange(len(self._open))
        numbers = [fields["gradient"].integers(self._gradient(f, case, values).astype(np.float64))]
        if self._logistic:
            p = special.expit(f)
            numbers.append(fields["curvature"].integers((p * (1 - p)).astype(np.float32).astype(np.float64)))
        cells = np.zeros((*fields["people"].shape, 1 + len(numbers)), dtype=np.int64)
        trees.histograms(bins, number[node], np.stack(numbers, axis=1), cells)
        return {name: np.ascontiguousarray(cells[..., i]) for i, name in enumerate(fields)}

    def _gradient(self, f: Floats, case: Counts, values: Floats) -> NDArray[np.float32]:
        return np.asarray(special.expit(f) - case if self._logistic else f - values, dtype=np.float32)

    # -- what follows -------------------------------------------------------------------------------------------------

    def withhold(self, sums: Summary, minimum_cell: int) -> Summary:
        if not self.taken:
            hidden = small(sums["people"], minimum_cell).any()
            return {name: np.full_like(array, WITHHELD) for name, array in sums.items()} if hidden else sums
        cells = coarsened(np.stack([sums[name] for name in sums], axis=-1), minimum_cell)
        return {name: cells[..., i] for i, name in enumerate(sums)}

    def conclude(self, total: Total, frame: Frame) -> Answer | BoostedTrees:
        held, fields = self.withhold(total.sums, total.minimum_cell), self.leaves(frame)
        if not self.taken:
            return self._started(held, fields, frame)
        if self.leaf_people < total.minimum_cell:
            raise UsageError(
                "A leaf shows no fewer people than a cell.",
                f"leaf_people {self.leaf_people}, cells of at least {total.minimum_cell}",
                "raise leaf_people.",
            )
        there = held["people"] != WITHHELD
        numbers = {name: np.where(there, field.values(held[name]), 0.0) for name, field in fields.items()}
        curvature = numbers["curvature" if self._logistic else "people"]
        return self._parted(parted(held["people"], numbers["gradient"], curvature, self.leaf_people, self.l2), frame)

    def _started(self, held: Summary, fields: Mapping[str, Field], frame: Frame) -> Answer | BoostedTrees:
        if (held["people"] == WITHHELD).all():
            return self._answer(frame, "withheld")
        people = int(held["people"].sum())
        if self._logistic:
            if not held["people"].all():
                return replace(self, people=people)._answer(frame, "no cases, or no controls")
            base = math.log(held["people"][1] / held["people"][0])
        elif not people:
            return self._answer(frame, "nobody")
        else:
            base = float(fields["response"].values(held["response"])) / people
        return self._next_tree(people=people, base=base)

    def _next_tree(self, **started: float) -> BoostedTrees:
        """With one more tree, of which the root is open."""
        inner, all_ = 2**self.depth - 1, 2 ** (self.depth + 1) - 1

        def longer(array: NDArray[Any], columns: int, filled: float) -> NDArray[Any]:
            return np.concatenate([array.reshape(-1, columns), np.full((1, columns), filled, dtype=array.dtype)])

        parts = longer(self.parts, inner, LEAF)
        parts[-1, 0] = OPEN
        return replace(
            self,
            taken=self.taken + 1,
            tree=len(parts) - 1,
            level=0,
            parts=parts,
            borders=longer(self.borders, inner, LEAF),
            values=longer(self.values, all_, 0.0),
            gains=longer(self.gains, all_, 0.0),
            sizes=longer(self.sizes, all_, 0),
            **started,  # type: ignore[arg-type]
        )

    def _parted(self, found: Parting, frame: Frame) -> Answer | BoostedTrees:
        nodes, t = self._open, self.tree
        parts, borders, values, gains, sizes = (
            getattr(self, name).copy() for name in ("parts", "borders", "values", "gains", "sizes")
        )
        parts[t, nodes], borders[t, nodes], gains[t, nodes] = found.feature, found.cut, found.gain
        if not self.level:
            sizes[t, 0] = found.people[0]
            values[t, 0] = np.clip(self.learning_rate * found.value[0], -MOST_VALUE, MOST_VALUE)
        apart = np.flatnonzero(found.feature >= 0)
        for side in (0, 1):
            child = 2 * nodes[apart] + 1 + side
            sizes[t, child] = found.sizes[apart, side]
            values[t, child] = np.clip(self.learning_rate * found.children[apart, side], -MOST_VALUE, MOST_VALUE)
            if self.level + 1 < self.depth:
                parts[t, child] = np.where(sizes[t, child] >= 2 * self.leaf_people, OPEN, LEAF)
        grown = replace(self, parts=parts, borders=borders, values=values, gains=gains, sizes=sizes)
        return grown._following(frame)

    def _following(self, frame: Frame) -> Answer | BoostedTrees:
        first = 2 ** (self.level + 1) - 1
        if (self.parts[self.tree, first:] == OPEN).any():
            return replace(self, taken=self.taken + 1, level=self.level + 1)
        if self.tree + 1 == self.trees:
            return self._answer(frame, "grown")
        return self._next_tree()

    def _answer(self, frame: Frame, fit: str) -> Answer:
        features = self._bins(frame)
        tree, node = np.nonzero(self.sizes) if fit == "grown" else (np.zeros(0, dtype=np.int64),) * 2
        inner = np.pad(self.parts, ((0, 0), (0, self.values.shape[1] - self.parts.shape[1])), constant_values=LEAF)
        part = inner[tree, node] if len(tree) else tree
        apart = part >= 0
        border = np.array([features[k].border(self.borders[t, n]) for t, n, k in _some(tree, node, part)])
        below = np.full(len(tree), np.nan)
        below[apart] = border
        gains = self.gains[tree, node] if len(tree) else np.zeros(0)
        each = np.zeros(len(features))
        np.add.at(each, part[apart], gains[apart])
        whole = each.sum()
        facts: dict[str, float | int | str] = {
            "response": self.response,
            "loss": self.loss.value,
            "fit": fit,
            "people": math.nan if fit == "withheld" else self.people,
            "base": self.base if fit == "grown" else math.nan,
            "trees": len(np.unique(tree)),
            "leaves": int((~apart).sum()),
            "rounds": self.taken + 1,
        }
        tables: dict[str, Mapping[str, Column]] = {
            "trees": {
                "tree": tree + 1,
                "node": node,
                "feature": tuple(features[k].label if k >= 0 else "" for k in part),
                "below": below,
                "value": self.values[tree, node] if len(tree) else np.zeros(0),
                "people": self.sizes[tree, node] if len(tree) else tree,
                "gain": np.where(apart, gains, np.nan),
            },
            "importance": {
                "feature": tuple(one.label for one in features),
                "partings": np.bincount(part[apart], minlength=len(features)),
                "gain": each,
                "share": each / whole if whole > 0 else np.full(len(features), np.nan),
            },
        }
        return Answer(tables, facts)


def draw_importance(answer: Answer, axes: Any) -> str:
    """Draw which part of all that was gained each feature gained; returns the figure in words."""
    table = answer.tables["importance"]
    share = np.nan_to_num(np.asarray(table["share"], dtype=np.float64))
    order = np.argsort(-share, kind="stable")[:20]
    names = [str(table["feature"][i]) for i in order]
    axes.barh(np.arange(len(order)), share[order], color="C0")
    axes.set_yticks(np.arange(len(order)), [f"{name:.24}" for name in names])
    axes.invert_yaxis()
    axes.set_xlim(0, None)
    axes.set_xlabel("share of the gain")
    return "Share of the gain by feature: " + ", ".join(
        f"{n} {share[i]:.2f}" for n, i in zip(names, order, strict=True)
    )


def _some(tree: Counts, node: Counts, part: Counts) -> list[tuple[int, int, int]]:
    return [(int(t), int(n), int(k)) for t, n, k in zip(tree, node, part, strict=True) if k >= 0]

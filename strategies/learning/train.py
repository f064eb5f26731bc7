"""Private training of a classifier: each site sums its people's clipped gradients, adds noise, and one step follows.

    minimise  sum_i  log(1 + exp(-(2 y_i - 1) f(x_i))),   f linear or with one hidden layer of rectified units.

Every round is one full-batch step that all sites take together. A person's gradient is clipped to length C [1] and
rounded to the grid; a site releases the sum over its training people with discrete Gaussian noise. Nobody is sampled,
so T rounds cost exactly T times one round in zCDP, and the coordinator's part (dividing by a public number of people,
momentum, averaging of iterates) is post-processing [2, proposition 5] and free. The last round is a release about
*other* people, those held out: how many of each class fall into each bin of the predicted score, with noise; the ROC
curve and its area follow from that.

What one person can change: a training person moves each round's sum by C + sqrt(d) / 2 grid units at most in L2, for d
parameters (by less where no input is long enough to reach C); a held-out person moves one cell of the histogram by
one. A person without label or covariate moves nothing.

A closed form gives the lengths of all gradients without forming them [3]: the gradient of a layer is the outer product
of its error delta_i and its input (a_i, 1), so ||g_i||^2 = sum over layers of ||delta_i||^2 (||a_i||^2 + 1).

Not for many inputs and few people: noise grows with the square root of the number of parameters, the signal does not.
Choose variants from earlier, public knowledge; choosing them, or the parameters here, by looking at the same people's
labels is a release that this page does not account for.

[1] Abadi et al.: Deep Learning with Differential Privacy, CCS 2016, algorithm 1, here with sampling rate 1.
[2] Bun, Steinke: Concentrated Differential Privacy, TCC 2016.
[3] Goodfellow: Efficient Per-Example Gradient Computations, arXiv 1510.01799 (2015), section 4.
[4] DeLong, DeLong, Clarke-Pearson: Comparing the areas under two or more correlated ROC curves, Biometrics 44 (1988).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy import special

from strategies.analyses.allele_frequency import NORMAL_95
from strategies.analysis import (
    DERIVED,
    NAMES_COLUMN,
    NAMES_PANEL,
    WHOLE,
    Answer,
    Column,
    Frame,
    Needs,
    Part,
    Total,
    check_within,
)
from strategies.cohort import Cohort
from strategies.errors import UsageError
from strategies.privacy import Regime
from strategies.protections.clipping import factors
from strategies.summary import COUNT_BITS, Field, Summary, after_rounding

if TYPE_CHECKING:
    import torch

INPUT_BITS, WEIGHT_BITS = 10, 16
"""Grids of inputs and weights. Products are integers on the grid of 2^-26 and their sums below 2^53 are exact in
float64, so a person's score does not depend on the linear algebra library or on who else is in the batch."""

MOST_INPUT, MOST_WEIGHT, MOST_PARAMETERS, MOST_HIDDEN = 4.0, 64.0, 65536, 64
"""|input| * |weight| * inputs <= 2^24, in units of 2^-26: 2^50. Weights also stay exact in float32."""

LEAST_SCALED_FREQUENCY = 0.01
"""A published frequency nearer to 0 or 1 than this is scaled as if it were this."""

CELLS_AT_A_TIME = 1 << 22
"""People times parameters whose gradients are held at a time: a constant in code."""


@dataclass(frozen=True)
class Shapes:
    """The model's layers: one (inputs -> 1), or two (inputs -> hidden -> 1) with rectified units between."""

    inputs: int
    hidden: int

    @property
    def named(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of each parameter in the order in which they are flattened: that of torch's state_dict."""
        if not self.hidden:
            return {"0.weight": (1, self.inputs), "0.bias": (1,)}
        h = self.hidden
        return {"0.weight": (h, self.inputs), "0.bias": (h,), "2.weight": (1, h), "2.bias": (1,)}

    @property
    def parameters(self) -> int:
        """d, how many numbers the model has."""
        return sum(math.prod(shape) for shape in self.named.values())

    def arrays(self, flat: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """The (d,) parameters by name."""
        assert flat.shape == (self.parameters,)
        ends = np.cumsum([math.prod(shape) for shape in self.named.values()])[:-1]
        return {n: part.reshape(s) for (n, s), part in zip(self.named.items(), np.split(flat, ends), strict=True)}

    def start(self) -> NDArray[np.float64]:
        """(d,) the weights before the first round: zero, or where units must differ, public draws from a hash.

        Draws are uniform within 1 / sqrt(a layer's inputs), torch's own default for a linear layer.
        """
        if not self.hidden:
            return np.zeros(self.parameters)
        stream = hashlib.shake_256(f"genosum initial weights v1 {self.inputs} {self.hidden}".encode())
        uniform = np.frombuffer(stream.digest(8 * self.parameters), dtype="<u8") / 2.0**63 - 1
        reach = {"0": 1 / math.sqrt(self.inputs), "2": 1 / math.sqrt(self.hidden)}
        arrays = [reach[name[0]] * part.ravel() for name, part in self.arrays(uniform).items()]
        return on_grid(np.concatenate(arrays), WEIGHT_BITS)


def on_grid(values: NDArray[np.float64], bits: int) -> NDArray[np.float64]:
    """The nearest multiples of 2^-bits."""
    return np.rint(values * 2.0**bits) * 2.0**-bits


def network(shapes: Shapes, weights: NDArray[np.float64]) -> torch.nn.Sequential:
    """The torch model with the (d,) weights, in float64: (N, inputs) -> (N, 1) log odds of the class 1."""
    import torch  # noqa: PLC0415  (a node that never trains need not load it)

    layers = [torch.nn.Linear(shapes.inputs, shapes.hidden or 1)]
    modules: list[torch.nn.Module] = [*layers]
    if shapes.hidden:
        modules += [torch.nn.ReLU(), torch.nn.Linear(shapes.hidden, 1)]
    model = torch.nn.Sequential(*modules).double()
    model.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in shapes.arrays(weights).items()})
    return model.eval()


def scores(shapes: Shapes, weights: NDArray[np.float64], inputs: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N,) predicted probabilities of the class 1 for (N, inputs) on the input grid."""
    return np.asarray(special.expit(_odds(shapes, weights, inputs)[0]), dtype=np.float64)


def _odds(
    shapes: Shapes, weights: NDArray[np.float64], inputs: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    """(N,) log odds and (N, hidden) rectified units, if there are any.

    The first layer's sums are exact in whatever order the library adds. The second layer's are not, so they are added
    unit by unit: a person's score would otherwise depend, in its last bits, on how many others are in the batch.
    """
    import torch  # noqa: PLC0415

    model = network(shapes, weights)
    with torch.no_grad():
        if not shapes.hidden:
            return np.asarray(model(torch.from_numpy(inputs))[:, 0].numpy()), None
        hidden = np.asarray(model[:2](torch.from_numpy(inputs)).numpy())
    last = shapes.arrays(weights)
    return _in_order(hidden * last["2.weight"])[:, 0] + last["2.bias"], hidden


def clipped_gradients(
    shapes: Shapes,
    weights: NDArray[np.float64],
    inputs: NDArray[np.float64],
    labels: NDArray[np.float64],
    most: float,
) -> NDArray[np.float64]:
    """Each person's gradient of the logistic loss, scaled down to length `most` where it is longer.

    Args:
        weights: (d,) parameters.
        inputs: (N, inputs) on the input grid.
        labels: (N,) 0 or 1.
        most: C, the clipping norm.

    Returns:
        (N, d) gradients in the order of `Shapes.named`, each of length at most C; zero where a length is not finite.
    """
    n = len(inputs)
    odds, hidden = _odds(shapes, weights, inputs)
    # expit and not torch.sigmoid, whose vectorised body and scalar tail differ in the last bit.
    error = (special.expit(odds) - labels)[:, None]
    squared_input = (inputs**2).sum(axis=1, keepdims=True)  # exact: squares on the grid of 2^-20
    if hidden is None:
        layers = [(error, inputs)]
        squared = error**2 * (squared_input + 1)
    else:
        a, active = hidden, hidden > 0
        back = error * np.where(active, shapes.arrays(weights)["2.weight"], 0.0)
        layers = [(back, inputs), (error, a)]
        # Squares are added unit by unit: the order of a library's sum may depend on the number of people.
        squared = _in_order(back**2) * (squared_input + 1) + error**2 * (_in_order(a**2) + 1)
    norm = np.sqrt(squared)
    scale = factors(norm, most)
    parts = []
    for delta, entering in layers:
        scaled = np.where(scale > 0, delta * scale, 0.0)
        parts += [(scaled[:, :, None] * entering[:, None, :]).reshape(n, delta.shape[1] * entering.shape[1]), scaled]
    out = np.concatenate(parts, axis=1)
    assert out.shape == (n, shapes.parameters)
    return out


def _in_order(terms: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, 1) sums of (N, h) along h, left to right."""
    return reduce(np.add, (terms[:, [j]] for j in range(terms.shape[1])))


@dataclass(frozen=True)
class Area:
    """The area under a ROC curve and its uncertainty; all NaN where a class is empty after noise."""

    area: float
    error: float
    noise: float

    @property
    def interval(self) -> tuple[float, float]:
        """95 % normal interval, within [0, 1]."""
        low, high = self.area - NORMAL_95 * self.error, self.area + NORMAL_95 * self.error
        return (float(np.clip(low, 0, 1)), float(np.clip(high, 0, 1)))


def area(histogram: NDArray[np.float64], noise: float = 0.0) -> Area:
    """The area under the ROC curve of a histogram of scores, by class: Mann-Whitney with ties within a bin as halves.

        A = sum_ij p_i n_j k_ij / (P N),   k_ij = 1 if i > j, 1/2 if i = j, else 0.

    With F_i = sum_j n_j k_ij / N and G_j = sum_i p_i k_ij / P the variance by sampling of people [4, equation 5] is
    sum p_i (F_i - A)^2 / P^2 + sum n_j (G_j - A)^2 / N^2, and noise of standard deviation s in each cell adds, to first
    order, the same sums with s^2 in the place of p_i and n_j.

    Args:
        histogram: (2, B) people of class 0 and class 1 in each bin of the score, ascending; may be negative by noise.
        noise: s, the standard deviation of the noise in a cell.

    Returns:
        the area within [0, 1], its standard error, and the part of that error which is noise. NaN where a class holds
        fewer people than one, or than two standard deviations of its own noise: a ratio to such a number means nothing.

    >>> area(np.array([[3.0, 1.0], [1.0, 3.0]])).area
    0.75
    """
    bins = histogram.shape[1]
    assert histogram.shape == (2, bins)
    negative, positive = histogram
    n, p = float(negative.sum()), float(positive.sum())
    if min(n, p) < max(1.0, 2 * noise * math.sqrt(bins)):
        return Area(math.nan, math.nan, math.nan)
    below = (np.cumsum(negative) - negative / 2) / n  # F
    above = 1 - (np.cumsum(positive) - positive / 2) / p  # G
    estimate = float(positive @ below) / p
    spread_p, spread_n = (below - estimate) ** 2 / p**2, (above - estimate) ** 2 / n**2
    by_noise = noise**2 * float(spread_p.sum() + spread_n.sum())
    by_people = float(np.maximum(positive, 0) @ spread_p + np.maximum(negative, 0) @ spread_n)
    return Area(min(max(estimate, 0.0), 1.0), math.sqrt(by_people + by_noise), math.sqrt(by_noise))


@dataclass(frozen=True)
class PrivateTraining:
    """A classifier of a binary column from genotypes and covariates, trained and evaluated on disjoint people.

    Attributes:
        panel: name of the study's panel; genotypes are centred and scaled by its published frequencies.
        label: name of the binary column; the class is 1 above the middle of its range.
        covariates: names of further columns, each mapped from its range to [-1, 1].
        expected_people: a public guess of the number of people at all sites together; gradients are divided by their
            training share, so that a wrong guess only changes the length of the step.
        split: the salt that draws people into training and held-out part.
        training_share: the part of the people who train.
        hidden: number of hidden units; 0 is logistic regression.
        steps: T, number of training rounds.
        clipping_norm: C.
        learning_rate, momentum: of the step w <- w - rate v, v <- momentum v + gradient.
        averaged: how many of the last rounds' weights are averaged to the model.
        bins: number of bins of the predicted score.
        taken: steps taken so far.
        weights, velocity, sums: (d,) current weights, v, and the sum of the weights to average.
        gradients: lengths of the noised sums so far.
    """

    analysis: ClassVar[str] = "train"
    regime: ClassVar[Regime] = Regime.PRIVATE
    by_site: ClassVar[bool] = False
    summary_in_words: ClassVar[str] = (
        "in each round, one noised sum of the training people's clipped gradients; at the end, a noised histogram of "
        "the held-out people's predicted scores, by class"
    )

    panel: str = field(metadata=NAMES_PANEL)
    label: str = field(metadata=NAMES_COLUMN)
    expected_people: int
    split: str
    covariates: tuple[str, ...] = field(default=(), metadata=NAMES_COLUMN)
    training_share: float = 0.7
    hidden: int = 0
    steps: int = 10
    clipping_norm: float = 1.0
    learning_rate: float = 0.5
    momentum: float = 0.5
    averaged: int = 5
    bins: int = 8
    taken: int = field(default=0, metadata=DERIVED)
    weights: tuple[float, ...] = field(default=(), metadata=DERIVED)
    velocity: tuple[float, ...] = field(default=(), metadata=DERIVED)
    sums: tuple[float, ...] = field(default=(), metadata=DERIVED)
    gradients: tuple[float, ...] = field(default=(), metadata=DERIVED)

    FRACTION_BITS: ClassVar[int] = 16

    def __post_init__(self) -> None:
        if self.label in self.covariates or len(set(self.covariates)) != len(self.covariates):
            raise ValueError("label and covariates must be different columns.")
        check_within(
            self,
            ("expected_people", 1, 10**9),
            ("training_share", 0.01, 0.99),
            ("hidden", 0, MOST_HIDDEN),
            ("steps", 1, 1000),
            ("clipping_norm", 0.01, 100),
            ("learning_rate", 1e-6, 1000),
            ("momentum", 0, 0.99),
            ("averaged", 1, self.steps),
            ("bins", 2, 100),
            ("taken", 0, self.steps),
        )
        if len(self.split) > 100:
            raise ValueError("split must be at most 100 characters.")
        if any(not abs(w) <= MOST_WEIGHT for w in self.weights):
            raise ValueError(f"weights must lie within {MOST_WEIGHT:g}.")
        if len(self.gradients) != self.taken or len({len(self.weights), len(self.velocity), len(self.sums)}) != 1:
            raise ValueError("weights, velocity, sums and gradients must follow from earlier rounds.")
        if (self.taken > 0) != (len(self.weights) > 0):
            raise ValueError("weights must follow from earlier rounds.")

    @property
    def _training(self) -> bool:
        return self.taken < self.steps

    def needs(self) -> Needs:
        span = (0.0, self.training_share) if self._training else (self.training_share, 1.0)
        return Needs((self.label, *self.covariates), self.panel, Part(*span, self.split))

    def rounds(self) -> int:
        return self.steps + 1

    def fraction(self) -> float:
        # Training rounds stack on the same people; the people held out meet the evaluation alone.
        return 1 / self.steps if self._training else 1.0

    def slices(self, frame: Frame) -> tuple[slice, ...]:
        return WHOLE

    def _shapes(self, frame: Frame) -> Shapes:
        assert frame.panel is not None
        shapes = Shapes(len(frame.panel) + len(self.covariates), self.hidden)
        if shapes.parameters > MOST_PARAMETERS:
            raise UsageError(
                f"A privately trained model has at most {MOST_PARAMETERS} parameters.",
                f"{shapes.parameters}",
                "choose fewer variants or hidden units; so many would drown in noise.",
            )
        return shapes

    def _weights(self, shapes: Shapes) -> NDArray[np.float64]:
        return np.array(self.weights) if self.taken else shapes.start()

    def _longest(self, frame: Frame) -> float:
        """The longest gradient that anybody can have at any weights, where inputs alone bound it: without hidden units.

        A gradient is an error of at most 1 times (x, 1), and each input has a public largest value.
        """
        if self.hidden:
            return math.inf
        return math.sqrt(float((_steps(frame) ** 2).max(axis=1).sum()) + len(self.covariates) + 1)

    def leaves(self, frame: Frame) -> dict[str, Field]:
        if not self._training:
            words = "held-out people without and with the label, by score"
            return {"histogram": Field((2, self.bins), words, 1, 1, COUNT_BITS)}
        d = self._shapes(frame).parameters
        l2 = after_rounding(min(self.clipping_norm, self._longest(frame)), d, self.FRACTION_BITS)
        return {"gradient": Field((d,), "sum of clipped gradients", math.sqrt(d) * l2, l2, self.FRACTION_BITS)}

    def inputs(self, cohort: Cohort, frame: Frame) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """What the model sees of the people whose label and covariates are all observed.

        Returns:
            (N', inputs) standardised genotypes, zero where missing, then covariates, on the input grid; (N',) labels.
        """
        assert cohort.genotypes is not None
        steps, span = _steps(frame), frame.columns[self.label]
        columns = {name: cohort.columns[name] for name in (self.label, *self.covariates)}
        known = np.flatnonzero(np.isfinite(np.stack([*columns.values()])).all(axis=0))
        codes = cohort.genotypes.codes()[:, known]
        genotypes = np.take_along_axis(steps, codes.astype(np.intp), axis=1).T
        covariates = [frame.columns[n].unit(columns[n][known])[:, None] for n in self.covariates]
        labels = (columns[self.label][known] > (span.minimum + span.maximum) / 2).astype(np.float64)
        return on_grid(np.concatenate([genotypes, *covariates], axis=1), INPUT_BITS), labels

    def summarise(self, cohort: Cohort, frame: Frame) -> Summary:
        shapes, (x, y) = self._shapes(frame), self.inputs(cohort, frame)
        weights = self._weights(shapes)
        if not self._training:
            bins = np.minimum((scores(shapes, weights, x) * self.bins).astype(np.int64), self.bins - 1)
            cells = np.bincount(y.astype(np.int64) * self.bins + bins, minlength=2 * self.bins)
            return {"histogram": cells.reshape(2, self.bins).astype(np.int64) << COUNT_BITS}
        gradient = self.leaves(frame)["gradient"]
        total = np.zeros(gradient.shape, dtype=np.int64)
        block = CELLS_AT_A_TIME // shapes.parameters
        for start in range(0, len(x), block):
            span = slice(start, start + block)
            people = clipped_gradients(shapes, weights, x[span], y[span], self.clipping_norm)
            total += gradient.integers(people).sum(axis=0)
        return {"gradient": total}

    def withhold(self, sums: Summary, minimum_cell: int) -> Summary:
        return sums

    def conclude(self, total: Total, frame: Frame) -> Answer | PrivateTraining:
        return self._step(total, frame) if self._training else self._answer(total, frame)

    @property
    def _normaliser(self) -> float:
        return self.expected_people * self.training_share

    def _step(self, total: Total, frame: Frame) -> PrivateTraining:
        """The next round. Entry by entry and with an integer sum, so that every machine finds the same bits."""
        shapes = self._shapes(frame)
        integers = total.sums["gradient"]
        gradient = self.leaves(frame)["gradient"].values(integers)
        velocity = np.array(self.velocity) if self.taken else np.zeros(shapes.parameters)
        velocity = self.momentum * velocity + gradient / self._normaliser
        weights = self._weights(shapes) - self.learning_rate * velocity
        weights = on_grid(np.clip(weights, -MOST_WEIGHT, MOST_WEIGHT), WEIGHT_BITS)
        sums = np.array(self.sums) if self.sums else np.zeros(shapes.parameters)
        taken = self.taken + 1
        if taken > self.steps - self.averaged:
            sums = sums + weights
        if taken == self.steps:
            weights = on_grid(sums / self.averaged, WEIGHT_BITS)
        length = math.sqrt(sum(int(i) ** 2 for i in integers)) * 2.0**-self.FRACTION_BITS
        return replace(
            self,
            taken=taken,
            weights=tuple(weights.tolist()),
            velocity=tuple(velocity.tolist()),
            sums=tuple(sums.tolist()),
            gradients=(*self.gradients, length),
        )

    def _answer(self, total: Total, frame: Frame) -> Answer:
        shapes = self._shapes(frame)
        noise = total.noise.get("histogram", 0.0)
        histogram = self.leaves(frame)["histogram"].values(total.sums["histogram"])
        auc = area(histogram, noise)
        edges = np.arange(self.bins + 1) / self.bins
        low, high = auc.interval
        facts: dict[str, float | int | str] = {
            "model": f"one hidden layer of {self.hidden} rectified units" if self.hidden else "logistic regression",
            "parameters": shapes.parameters,
            "label": self.label,
            "covariates": ", ".join(self.covariates),
            "variants": shapes.inputs - len(self.covariates),
            "training_rounds": self.steps,
            "clipping_norm": self.clipping_norm,
            "expected_people": self.expected_people,
            "training_share": self.training_share,
            "held_out_without_label": float(histogram[0].sum()),
            "held_out_with_label": float(histogram[1].sum()),
            "cell_noise_sd": noise,
            "auc": auc.area,
            "auc_standard_error": auc.error,
            "auc_noise_sd": auc.noise,
            "auc_low_95": low,
            "auc_high_95": high,
        }
        tables: dict[str, Mapping[str, Column]] = {
            "training": self._curve(noise, frame),
            "roc": _roc(histogram, edges),
            "histogram": {
                "score_from": edges[:-1],
                "score_to": edges[1:],
                "without_label": histogram[0],
                "with_label": histogram[1],
            },
            "inputs": self._inputs_table(frame),
        }
        model = {name: a.astype(np.float32) for name, a in shapes.arrays(np.array(self.weights)).items()}
        return Answer(tables, facts, model=model)

    def _curve(self, cell_noise: float, frame: Frame) -> dict[str, Column]:
        """The training curve that costs nothing: how long the noised gradient was, and how much of it was noise.

        A loss would be another release. Noise of standard deviation s in each of d entries lifts the sum's squared
        length by d s^2 on average; training has found what it can where nothing is left above that.
        """
        first = replace(self, taken=0, weights=(), velocity=(), sums=(), gradients=())
        gradient = first.leaves(frame)["gradient"]
        # One roster and one loss hold for all rounds of a question, so the noise in a gradient follows from the cells'.
        noise = cell_noise * gradient.l2 * math.sqrt(self.steps)
        lengths, noise_length = np.array(self.gradients), noise * math.sqrt(gradient.size)
        return {
            "round": np.arange(1, self.steps + 1),
            "gradient": lengths / self._normaliser,
            "noise": np.full(self.steps, noise_length / self._normaliser),
            "signal": np.sqrt(np.maximum(lengths**2 - noise_length**2, 0)) / self._normaliser,
        }

    def _inputs_table(self, frame: Frame) -> dict[str, Column]:
        """How a person's data become the model's inputs: (value - centre) / scale, in the order of the weights."""
        assert frame.panel is not None
        centre, scale = _standard(frame)
        ranges = [frame.columns[name] for name in self.covariates]
        return {
            "input": (*(str(v) for v in frame.panel.variants), *self.covariates),
            "centre": np.concatenate([centre, [(r.minimum + r.maximum) / 2 for r in ranges]]),
            "scale": np.concatenate([scale, [(r.maximum - r.minimum) / 2 for r in ranges]]),
        }


def _standard(frame: Frame) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(M,) twice the published frequency p, and sqrt(2 p (1 - p)), a genotype's deviation under Hardy-Weinberg."""
    assert frame.panel is not None
    p = frame.panel.frequencies
    within = np.clip(p, LEAST_SCALED_FREQUENCY, 1 - LEAST_SCALED_FREQUENCY)
    return 2 * p, np.sqrt(2 * within * (1 - within))


def _steps(frame: Frame) -> NDArray[np.float64]:
    """(M, 4) the input of people with 0, 1, 2 and no observed alternate alleles; the last is the centre, 0."""
    centre, scale = _standard(frame)
    steps = np.zeros((len(centre), 4))
    steps[:, :3] = np.clip((np.arange(3)[None, :] - centre[:, None]) / scale[:, None], -MOST_INPUT, MOST_INPUT)
    return on_grid(steps, INPUT_BITS)


def _roc(histogram: NDArray[np.float64], edges: NDArray[np.float64]) -> dict[str, Column]:
    """Points of the curve, from the strictest threshold down; for drawing, noise is kept from bending it backwards.

    Rates are NaN where a noised class holds fewer than one person.
    """
    cumulated = np.cumsum(histogram[:, ::-1], axis=1)
    totals = cumulated[:, [-1]]
    rates = np.full((2, len(edges)), np.nan)
    able = totals[:, 0] >= 1
    rates[able, 0] = 0.0
    rates[able, 1:] = np.maximum.accumulate(np.clip(cumulated[able] / totals[able], 0, 1), axis=1)
    return {"threshold": edges[::-1].copy(), "false_positive_rate": rates[0], "true_positive_rate": rates[1]}


def draw_roc(answer: Answer, axes: Any) -> str:
    """Draw a classifier's ROC curve on the people held out; returns the figure in words."""
    table, facts = answer.tables["roc"], answer.facts
    false, true = (np.asarray(table[c], dtype=np.float64) for c in ("false_positive_rate", "true_positive_rate"))
    axes.plot([0, 1], [0, 1], color="C2", linewidth=1, linestyle=(0, (5, 3)))
    axes.fill_between(false, true, color="C0", alpha=0.12, linewidth=0)
    axes.plot(false, true, color="C0", linewidth=2, marker="o", markersize=3.5)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.set_aspect("equal")
    axes.set_xlabel("false positive rate")
    axes.set_ylabel("true positive rate")
    area, low, high = (float(facts.get(name, float("nan"))) for name in ("auc", "auc_low_95", "auc_high_95"))
    if not np.isfinite(area):
        return "ROC curve; its area cannot be told from the noise."
    interval = f"95 % interval {low:.2f} to {high:.2f}"
    axes.text(0.97, 0.06, f"AUC {area:.2f}\n{interval}", ha="right", va="bottom", linespacing=1.5)
    return f"ROC curve of the people held out, from a noised histogram: area {area:.2f}, {interval}."


def draw_training(answer: Answer, axes: Any) -> str:
    """Draw how long the noised gradient was in each round and how much of it was noise; returns the figure in words."""
    table = answer.tables["training"]
    rounds = np.asarray(table["round"], dtype=np.int64)
    lengths, noise, signal = (np.asarray(table[c], dtype=np.float64) for c in ("gradient", "noise", "signal"))
    axes.plot(rounds, lengths, color="C0", linewidth=2, marker="o", markersize=3.5, label="as released")
    axes.plot(rounds, signal, color="C1", linewidth=1.6, marker="s", markersize=3, label="without noise, estimated")
    axes.plot(rounds, noise, color="C2", linewidth=1.2, linestyle=(0, (5, 3)), label="noise alone")
    axes.set_ylim(0, None)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("round")
    axes.set_ylabel("length of the mean gradient")
    axes.legend(loc="lower left", bbox_to_anchor=(-0.05, 1.0), ncols=1)
    return (
        f"Training curve over {len(rounds)} rounds: the released gradient's length goes from {lengths[0]:.3g} to "
        f"{lengths[-1]:.3g}, of which {noise[0]:.3g} is noise."
    )

"""The area under the ROC curve that a privately trained linear model is expected to reach, from public numbers alone.

Assumed, and said wherever a number is shown: people are in Hardy-Weinberg proportions at the panel's published
frequencies, variants are independent of each other, the label follows a logistic model whose effects are spread evenly
over them, covariates tell nothing, a share `cases` of the people has the label, and the best model that there is has
the area `auc`.

A person then enters by two numbers: t, the inputs along the direction u of the true effects, and the length of
the rest.
Weights are a u + b (the bias) + a deviation, and a clipped gradient is the inputs times min(|error|, C / |(x, 1)|), so
the path of a and b follows from means over made-up people. Around it, noise and the choice of training people move the
weights linearly: what a unit that entered in round s has become follows the recursion of the weights themselves, with
the mean curvature in the place of the gradient. Noise is new in each round, so its variances add; the people are the
same in all rounds, so their effects add. The deviation is fed back into the made-up people's scores, since a noisy
model errs more and learns more slowly. This mean-field approximation is compared with 2,000 trainings in
tests/references/test_plan.py.

For the evaluation, the expected histogram of the held-out people's scores is handed to `area`, which the answer itself
uses and which says how far people [1] and noise move the area. The band holds that and the deviation of the weights.

[1] DeLong, DeLong, Clarke-Pearson, Biometrics 44 (1988); with one bin a score it is what Hanley and McNeil, Radiology
143 (1982), approximate.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats
from scipy.optimize import brentq

from fl_server.planning.steps import EPSILONS, made_up, together
from strategies.analyses.allele_frequency import NORMAL_95
from strategies.analysis import Frame
from strategies.learning.train import LEAST_SCALED_FREQUENCY, MOST_INPUT, PrivateTraining, area
from strategies.privacy import Budget, Loss
from strategies.protections import noise

CROWD = 20_000
"""Made-up people over whom means are taken: their error is a hundredth of a standard deviation."""

DRAWN_VARIANTS = 512
"""Of a longer panel this many variants are drawn, and the rest of a person is taken to be like them."""

_Z = np.linspace(-6, 6, 121)
_NORMAL = np.exp(-(_Z**2) / 2) / np.exp(-(_Z**2) / 2).sum()


@dataclass(frozen=True)
class Band:
    """What the released area under the ROC curve is expected to be.

    Attributes:
        mean, sd: of the released area: over people, training noise and the evaluation's noise.
        model: the expected area of the model itself, on all people there are.
        missing: the probability that a class is too small beside its noise, and no area is released.
    """

    mean: float
    sd: float
    model: float
    missing: float

    @property
    def interval(self) -> tuple[float, float]:
        """95 % normal interval, within [0, 1]."""
        low, high = self.mean - NORMAL_95 * self.sd, self.mean + NORMAL_95 * self.sd
        return max(low, 0.0), min(high, 1.0)


@dataclass(frozen=True)
class Label:
    """A label's log odds, `intercept + slope z`, for a standard normal z."""

    intercept: float
    slope: float

    @property
    def with_label(self) -> NDArray[np.float64]:
        """(121,) probability of the label on the grid of z."""
        return np.asarray(special.expit(self.intercept + self.slope * _Z), dtype=np.float64)


@lru_cache(maxsize=16)
def label(auc: float, cases: float) -> Label:
    """The logistic model whose own score has the area `auc`, and whose label a share `cases` of the people has.

    >>> abs(best_area(label(0.8, 0.3)) - 0.8) < 1e-6
    True
    """

    def with_slope(slope: float) -> Label:
        return Label(brentq(lambda b: float(_NORMAL @ Label(b, slope).with_label) - cases, -200, 200), slope)

    return with_slope(brentq(lambda slope: best_area(with_slope(slope)) - auc, 0.0, 30.0, xtol=1e-9))


def best_area(one: Label) -> float:
    """The area of the label's own log odds as a score."""
    positive = _NORMAL * one.with_label
    return area(np.stack([_NORMAL - positive, positive]) * 1e6).area


@dataclass(frozen=True)
class Crowd:
    """Made-up people.

    Attributes:
        along: (N,) t, a person's inputs along the direction of the true effects.
        rest: (N,) squared length of the inputs across it.
        others: number of directions across it.
        with_label: (N,) probability of the label.
        around: (N,) standard normal: where a person lies along the noise of the weights.
        label: how the label follows from t.
    """

    along: NDArray[np.float64]
    rest: NDArray[np.float64]
    others: int
    with_label: NDArray[np.float64]
    around: NDArray[np.float64]
    label: Label

    @staticmethod
    def of(question: PrivateTraining, frame: Frame, one: Label) -> Crowd:
        assert frame.panel is not None
        rng = np.random.default_rng(0)
        p = np.sort(frame.panel.frequencies)
        drawn = p[np.linspace(0, len(p) - 1, min(len(p), DRAWN_VARIANTS)).astype(np.int64)]
        within = np.clip(drawn, LEAST_SCALED_FREQUENCY, 1 - LEAST_SCALED_FREQUENCY)
        along, squares = np.zeros(CROWD), np.zeros(CROWD)
        for f, scaled in zip(drawn, within, strict=True):
            x = (rng.binomial(2, f, CROWD) - 2 * f) / math.sqrt(2 * scaled * (1 - scaled))
            x = np.clip(x, -MOST_INPUT, MOST_INPUT)
            along += x / math.sqrt(len(drawn))
            squares += x**2 * len(p) / len(drawn)
        for name in question.covariates:
            span = frame.columns[name]
            squares += span.unit(made_up(span, CROWD, rng)) ** 2
        z = (along - along.mean()) / max(float(along.std()), 1e-9)
        return Crowd(
            along=along,
            rest=np.maximum(squares - along**2, 0.0),
            others=len(p) + len(question.covariates) - 1,
            with_label=np.asarray(special.expit(one.intercept + one.slope * z), dtype=np.float64),
            around=rng.standard_normal(CROWD),
            label=one,
        )


@dataclass(frozen=True)
class Weights:
    """The trained weights' distribution: along the true effects, in the bias, and in each direction across."""

    along: float
    along_sd: float
    bias: float
    bias_sd: float
    across_sd: float


def trained(question: PrivateTraining, crowd: Crowd, people: float, noise_sd: float) -> Weights:
    """The weights that training ends with.

    Args:
        people: the number of training people at all sites.
        noise_sd: standard deviation of the noise in each entry of the total gradient.
    """
    normaliser, steps = question.expected_people * question.training_share, question.steps
    t, label_share = crowd.along, crowd.with_label
    limit = question.clipping_norm / np.sqrt(t**2 + crowd.rest + 1)
    squares = np.stack([t**2, np.ones_like(t), crowd.rest / max(crowd.others, 1)])
    reach = np.stack([t**2, np.ones_like(t), crowd.rest])
    # Along u, in the bias and in a direction across: what a unit that entered in each round has become, and how large
    # one person's part of that round's gradient is.
    speed, place, kept, part = (np.zeros((3, steps)) for _ in range(4))
    path, velocity, averaged = np.zeros(2), np.zeros(2), np.zeros(2)

    def variance(response: NDArray[np.float64]) -> NDArray[np.float64]:
        by_people = people * (response * part).sum(axis=1) ** 2
        return np.asarray(noise_sd**2 * (response**2).sum(axis=1) + by_people)

    for step in range(steps):
        p = special.expit(path[0] * t + path[1] + np.sqrt(variance(place) @ reach) * crowd.around)
        # The error is p without the label and p - 1 with it; its size is cut at `limit`.
        without, having = np.minimum(p, limit), np.minimum(1 - p, limit)
        error = (1 - label_share) * without - label_share * having
        squared = (1 - label_share) * without**2 + label_share * having**2
        bend = p * (1 - p) * ((1 - label_share) * (p < limit) + label_share * (1 - p < limit))
        gradient = np.array([(error * t).mean(), error.mean()])
        part[:, step] = np.sqrt(np.maximum((squares * squared).mean(axis=1) - np.append(gradient, 0.0) ** 2, 0))
        curvature = people / normaliser * (squares * bend).mean(axis=1)
        speed = question.momentum * speed + curvature[:, None] * place
        speed[:, step] += 1 / normaliser
        place = place - question.learning_rate * speed
        velocity = question.momentum * velocity + people / normaliser * gradient
        path = path - question.learning_rate * velocity
        if step >= steps - question.averaged:
            averaged = averaged + path / question.averaged
            kept = kept + place / question.averaged
    along_sd, bias_sd, across_sd = np.sqrt(variance(kept)).tolist()
    return Weights(float(averaged[0]), along_sd, float(averaged[1]), bias_sd, across_sd)


@dataclass(frozen=True)
class AreaBand:
    """What to expect of a trained model.

    Attributes:
        auc, cases: what is assumed: the best model's area, and the share of the people with the label.
        people, sites: at all sites together, all taken to have label and covariates; and of how many sites.
        asked, noiseless: at the question's price, and with no noise in training or evaluation.
        over_epsilon, over_people: the same at other prices, and with other numbers of people.
    """

    auc: float
    cases: float
    people: int
    sites: int
    asked: Band
    noiseless: Band
    over_epsilon: Mapping[float, Band]
    over_people: Mapping[int, Band]


def area_band(
    question: PrivateTraining,
    frame: Frame,
    budget: Budget,
    people: Sequence[int],
    auc: float,
    cases: float,
    honest: int,
) -> AreaBand | None:
    """What to expect of a linear model over sites with so many people each; None for one with hidden units."""
    if question.hidden:
        return None
    total = sum(people)
    crowd = Crowd.of(question, frame, label(auc, cases))

    def at(loss: Loss | None, count: int = total) -> Band:
        scaled = replace(question, expected_people=max(1, round(question.expected_people * count / total)))
        return band(scaled, frame, crowd, count, loss, len(people), honest)

    losses = {e: replace(budget, epsilon=e).loss for e in sorted({*EPSILONS, budget.epsilon})}
    counts = [round(total * times) for times in (0.5, 1, 2, 4, 8) if total * times >= 1]
    return AreaBand(
        auc,
        cases,
        total,
        len(people),
        at(budget.loss),
        at(None),
        {epsilon: at(loss) for epsilon, loss in losses.items()},
        {count: at(budget.loss, count) for count in counts},
    )


def band(
    question: PrivateTraining, frame: Frame, crowd: Crowd, people: float, loss: Loss | None, sites: int, honest: int
) -> Band:
    """The released area of a linear model.

    Args:
        people: at all sites together, with label and covariates.
        loss: what the question may cost; None for no noise at all.
        sites: how many of them.
        honest: how many of them the shared noise counts on.
    """
    gradient, cell = 0.0, 0.0
    if loss is not None:
        last = _evaluating(question, frame)
        training = noise.shares(question.leaves(frame), Loss(loss.rho * question.fraction()), honest)
        gradient = together(training, sites)["gradient"]
        cell = together(noise.shares(last.leaves(frame), Loss(loss.rho * last.fraction()), honest), sites)["histogram"]
    weights = trained(question, crowd, people * question.training_share, gradient)
    return _released(question, crowd, weights, people * (1 - question.training_share), cell)


def _evaluating(question: PrivateTraining, frame: Frame) -> PrivateTraining:
    flat = (0.0,) * question.leaves(frame)["gradient"].size
    lengths = (0.0,) * question.steps
    return replace(question, taken=question.steps, weights=flat, velocity=flat, sums=flat, gradients=lengths)


def _released(question: PrivateTraining, crowd: Crowd, weights: Weights, held_out: float, cell: float) -> Band:
    """Averages over the weights' distribution of what `area` says of the expected histogram."""
    positive = _NORMAL * crowd.label.with_label
    classes = np.stack([_NORMAL - positive, positive])
    edges = special.logit(np.arange(1, question.bins) / question.bins)[:, None]
    lengths = weights.across_sd * math.sqrt(float(crowd.rest.mean()) / max(crowd.others, 1)) * _chi(crowd.others)
    found: list[tuple[float, float, float]] = []  # weight, area, its error
    model = 0.0
    for z, wz in _nodes(7):
        slope = (weights.along + weights.along_sd * z) * float(crowd.along.std())
        for length in np.maximum(lengths, 1e-9):
            model += wz / len(lengths) * _unbinned(slope, length, classes)
            for b, wb in _nodes(5):
                shift = weights.bias + weights.bias_sd * b
                below = special.ndtr((edges - shift - slope * _Z) / length)
                cells = np.diff(below, axis=0, prepend=0.0, append=1.0)
                one = area(_noised(held_out * classes @ cells.T, cell), cell)
                found.append((wz * wb / len(lengths), one.area, one.error))
    w, released, error = np.array(found).T
    mean = float(w @ released)
    sd = math.sqrt(float(w @ ((released - mean) ** 2 + error**2)))
    return Band(mean, sd, model, _missing(question, held_out, cell, float(positive.sum())))


def _noised(histogram: NDArray[np.float64], cell: float) -> NDArray[np.float64]:
    """(2, B) the shares of a class' bins that noise in all cells leaves on average, times the class' size.

    A share is (h_i + e_i) / (H + sum e), so to second order its mean is h_i / H + s^2 / H^2 (B h_i / H - 1): dividing
    by a noised total drives shares apart.
    """
    size = histogram.sum(axis=1, keepdims=True)
    return np.asarray(histogram + cell**2 / size * (histogram.shape[1] * histogram / size - 1))


@lru_cache(maxsize=2)
def _nodes(count: int) -> tuple[tuple[float, float], ...]:
    """Nodes and weights of an average over a standard normal."""
    z, w = np.polynomial.hermite_e.hermegauss(count)
    return tuple(zip(z.tolist(), (w / w.sum()).tolist(), strict=True))


def _chi(degrees: int) -> NDArray[np.float64]:
    """Equally likely lengths of as many standard normal numbers."""
    if degrees == 0:
        return np.zeros(1)
    return np.asarray(np.sqrt(stats.chi2.ppf((np.arange(9) + 0.5) / 9, degrees)), dtype=np.float64)


def _unbinned(slope: float, noise_score: float, classes: NDArray[np.float64]) -> float:
    """P(score with label > score without), scores being slope z + noise."""
    coarse = classes[:, ::2]  # every other point of the grid is plenty for so smooth an integrand
    without, having = coarse / coarse.sum(axis=1, keepdims=True)
    above = special.ndtr(slope * (_Z[::2, None] - _Z[None, ::2]) / (math.sqrt(2) * noise_score))
    return float(having @ above @ without)


def _missing(question: PrivateTraining, held_out: float, cell: float, cases: float) -> float:
    """The probability that a class' noised total lies below what `area` asks for."""
    floor, noise_sd = max(1.0, 2 * cell * math.sqrt(question.bins)), cell * math.sqrt(question.bins)
    there = 1.0
    for share in (cases, 1 - cases):
        sd = math.sqrt(held_out * share * (1 - share) + noise_sd**2)
        there *= float(special.ndtr((held_out * share - floor) / sd))
    return 1 - there


def draw_over_epsilon(expected: AreaBand, asked: float, axes: Any) -> str:
    """Draw the band of the released area over epsilon; returns the figure in words."""
    _draw(expected.over_epsilon, expected, asked, axes)
    axes.set_xticks(sorted(expected.over_epsilon), [f"{e:g}" for e in sorted(expected.over_epsilon)])
    axes.minorticks_off()
    axes.set_xlabel("epsilon")
    low, high = expected.asked.interval
    return (
        f"Expected area under the ROC curve over epsilon, with the band that holds 95 % of released areas: at the "
        f"{asked:g} asked for {expected.asked.mean:.2f}, {low:.2f} to {high:.2f}; without noise "
        f"{expected.noiseless.mean:.2f}."
    )


def draw_over_people(expected: AreaBand, axes: Any) -> str:
    """Draw the band of the released area over the number of people; returns the figure in words."""
    _draw(expected.over_people, expected, expected.people, axes)
    counts = sorted(expected.over_people)
    axes.set_xticks(counts, [f"{n:,}" for n in counts])
    axes.minorticks_off()
    axes.set_xlabel("people at all sites together")
    ends = (expected.over_people[n].mean for n in (counts[0], counts[-1]))
    first, last = ends
    return f"Expected area from {first:.2f} with {counts[0]:,} people to {last:.2f} with {counts[-1]:,}."


def _draw(bands: Mapping[float, Band] | Mapping[int, Band], expected: AreaBand, asked: float, axes: Any) -> None:
    at = sorted(bands)
    found = [bands[x] for x in at]  # type: ignore[index]
    axes.fill_between(
        at, [b.interval[0] for b in found], [b.interval[1] for b in found], color="C0", alpha=0.14, linewidth=0
    )
    axes.plot(at, [b.mean for b in found], color="C0", marker="o", markersize=4, linewidth=2, label="released, 95 %")
    axes.axhline(expected.auc, color="C1", linewidth=1.2, label="best model, assumed")
    axes.axhline(0.5, color="C2", linewidth=1, label="guessing")
    axes.axvline(asked, color="C2", linewidth=1, linestyle=(0, (5, 3)))
    axes.set_xscale("log")
    axes.set_ylim(0.3, 1.0)
    axes.set_ylabel("area under the ROC curve")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)

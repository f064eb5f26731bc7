"""How far an allele frequency is expected to lie from the truth, by minor allele frequency, people, sites and epsilon.

Assumed: the true frequencies are the published ones (0.5 where none is given, the least favourable), and nobody's
genotype is missing. With n people, the sum of alternate alleles has variance 2 n p (1 - p) by sampling of people plus
the noise's; it is divided by twice the noised number of called genotypes, and the result is kept within [0, 1]. The
expected error follows by quadrature over both: over the number by Gauss and Hermite's nodes, over the sum on a grid.
With a clip, nothing is taken to be cut away, as where hardly anybody reaches it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_server.planning.steps import EPSILONS, together
from fl_server.planning.ticks import ticks
from strategies.analyses.allele_frequency import NoisedFrequency, deviation, interval, widened
from strategies.analysis import Frame
from strategies.question import Question
from strategies.variants import Panel

EDGES = (0.0, 0.01, 0.05, 0.1, 0.25, 0.5)
"""Of the bins of the minor allele frequency; a bin holds its upper edge."""

WIDE = 0.1
"""A 95 % interval of a frequency that is wider than this says little."""

MOST_EPSILON, MOST_PEOPLE = 100.0, 10**7

ROUNDED = 3
"""Digits to which frequencies are rounded here, so that a long panel costs no more than 501 of them."""

_NODES, _NODE_WEIGHTS = np.polynomial.hermite_e.hermegauss(17)
_GRID = np.linspace(-6, 6, 97)
_GRID_WEIGHTS = np.exp(-(_GRID**2) / 2) / np.exp(-(_GRID**2) / 2).sum()


@dataclass(frozen=True)
class Bin:
    """The expected error over a bin's variants.

    Attributes:
        above, to: its edges.
        variants: how many of the panel's lie in it.
        rms, absolute: root mean square and mean absolute error of a frequency.
        width: expected width of a 95 % interval; None where the answer gives none.
    """

    above: float
    to: float
    variants: int
    rms: float
    absolute: float
    width: float | None


@dataclass(frozen=True)
class FrequencyError:
    """What to expect of a question about allele frequencies.

    Attributes:
        by_site: site -> bins; empty where no site's own answer is given.
        total: bins of all sites together.
        over_epsilon: epsilon -> the same at other prices; empty when exact.
        smallest_over_epsilon: likewise at the site with the fewest people.
    """

    by_site: Mapping[str, tuple[Bin, ...]]
    total: tuple[Bin, ...]
    over_epsilon: Mapping[float, tuple[Bin, ...]]
    smallest_over_epsilon: Mapping[float, tuple[Bin, ...]]


def exact(panel: Panel, people: Mapping[str, int]) -> FrequencyError:
    """What to expect of exact counts: the sampling of people alone."""
    return FrequencyError({}, bins(panel.frequencies, sum(people.values()), {}), {}, {})


def noised(question: Question, frame: Frame, people: Mapping[str, int]) -> FrequencyError:
    """What to expect of a private release by each site and together."""
    analysis, budget = question.analysis, question.budget
    assert frame.panel is not None
    assert budget is not None
    assert isinstance(analysis, NoisedFrequency)
    p, total, smallest = frame.panel.frequencies, sum(people.values()), min(people.values())

    def at(epsilon: float) -> dict[str, float]:
        return replace(question, budget=replace(budget, epsilon=epsilon)).noise(analysis, analysis.leaves(frame))

    def expected(count: int, sds: Mapping[str, float]) -> tuple[Bin, ...]:
        return bins(p, count, sds, analysis.clip is not None)

    own = at(budget.epsilon)
    prices = {epsilon: at(epsilon) for epsilon in sorted({*EPSILONS, budget.epsilon})}
    sizes = {count: expected(count, own) for count in set(people.values())}
    return FrequencyError(
        {name: sizes[count] for name, count in people.items()},
        expected(total, together(own, len(people))),
        {epsilon: expected(total, together(sds, len(people))) for epsilon, sds in prices.items()},
        {epsilon: expected(smallest, sds) for epsilon, sds in prices.items()},
    )


def warnings(question: Question, frame: Frame, people: Mapping[str, int]) -> tuple[str, ...]:
    """Where intervals will be so wide that they say little, and what would make them narrow."""
    name, analysis, budget = question.name, question.analysis, question.budget
    assert frame.panel is not None
    assert budget is not None
    assert isinstance(analysis, NoisedFrequency)
    p, fields = frame.panel.frequencies, analysis.leaves(frame)

    def width(count: float, epsilon: float, sites: int) -> float:
        sds = replace(question, budget=replace(budget, epsilon=epsilon)).noise(analysis, fields)
        return max(b.width or 0.0 for b in bins(p, round(count), together(sds, sites), analysis.clip is not None))

    def remedy(count: int, sites: int) -> str:
        most = _least(lambda n: width(n, budget.epsilon, sites) <= WIDE, float(count), float(MOST_PEOPLE))
        by_people = f"about {most:,.0f} people at epsilon {budget.epsilon:g}" if most else "more people than there are"
        epsilon = _least(lambda e: width(count, e, sites) <= WIDE, budget.epsilon, MOST_EPSILON)
        if epsilon:
            return f"epsilon {epsilon:.1f}, or {by_people}"
        alone = width(count, MOST_EPSILON, sites)
        return f"{by_people}; no epsilon is enough, since sampling alone gives {alone:.2f}"

    out = []
    everybody = sum(people.values())
    asked = [
        (count, 1, ", ".join(site for site, n in people.items() if n == count))
        for count in sorted(set(people.values()))
    ]
    if not question.by_site:
        asked = [(everybody, len(people), "all sites together" if len(people) > 1 else next(iter(people)))]
    for count, sites, where in asked:
        if (wide := width(count, budget.epsilon, sites)) > WIDE:
            out.append(
                f"{name} at {where} ({count:,} people): a 95 % interval will be about {wide:.2f} wide. "
                f"For {WIDE:g} it takes {remedy(count, sites)}."
            )
    if question.by_site and len(people) > 1 and (wide := width(everybody, budget.epsilon, len(people))) > WIDE:
        out.append(f"{name} over all {len(people)} sites together: still about {wide:.2f} wide.")
    return tuple(out)


def _least(enough: Callable[[float], bool], start: float, most: float) -> float | None:
    """About the least number from `start` to `most` that is enough, to 1 %; None if none is."""
    if not enough(most):
        return None
    low, high = start, most
    while high / low > 1.01:
        middle = (low * high) ** 0.5
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def bins(
    frequencies: NDArray[np.float64], people: int, noise: Mapping[str, float], clipped: bool = False
) -> tuple[Bin, ...]:
    """The expected error by minor allele frequency; bins without a variant are left out.

    Args:
        frequencies: (M,) published ones.
        people: whose alleles are summed.
        noise: standard deviations of the sum of `alternate` alleles and of the number of `people`; empty when exact.
        clipped: whether contributions are.
    """
    minor = np.minimum(frequencies, 1 - frequencies)
    which = np.searchsorted(EDGES, minor, side="left").clip(1)
    distinct, back = np.unique(minor.round(ROUNDED), return_inverse=True)
    if noise:
        squared, absolute, width = _noised(distinct, people, noise["alternate"], noise["people"], clipped)
    else:
        squared = distinct * (1 - distinct) / (2 * people)
        absolute, width = np.sqrt(2 / np.pi * squared), np.full(len(distinct), np.nan)
    out = []
    for number in np.unique(which):
        of = back[which == number]
        out.append(
            Bin(
                EDGES[number - 1],
                EDGES[number],
                len(of),
                float(np.sqrt(squared[of].mean())),
                float(absolute[of].mean()),
                float(width[of].mean()) if noise else None,
            )
        )
    return tuple(out)


def _noised(
    p: NDArray[np.float64], people: int, alternate: float, count: float, clipped: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """(M,) expected squared error, absolute error and interval width."""
    centre = p[:, None]
    weight = deviation(centre) if clipped else np.maximum(2 * centre, 2 - 2 * centre)  # of a missing genotype
    called_noise = np.hypot(count, alternate / weight)
    sums = np.sqrt(2 * people * centre * (1 - centre) + alternate**2) * _GRID
    out = np.zeros((3, len(p)))
    for node, share in zip(_NODES, _NODE_WEIGHTS / _NODE_WEIGHTS.sum(), strict=True):
        called = people + called_noise * float(node)
        estimate = centre + sums / (2 * np.maximum(called, 1.0))
        error = np.clip(estimate, 0, 1) - centre
        low, high = interval(sums, called, centre, alternate, called_noise)
        if clipped:
            low, high = widened(low, high, estimate, called, 0.0, count)
        out += share * np.stack([error**2 @ _GRID_WEIGHTS, np.abs(error) @ _GRID_WEIGHTS, (high - low) @ _GRID_WEIGHTS])
    return out[0], out[1], out[2]


def draw_errors(curve: Mapping[float, tuple[Bin, ...]], asked: float, axes: Any) -> str:
    """Draw the root mean square error over epsilon, one line a bin; returns the figure in words."""
    styles = (("C0", "o"), ("C1", "s"), ("C2", "^"), ("C0", "D"), ("C1", "v"))
    epsilons = sorted(curve)
    first = curve[epsilons[0]]
    for number, one in enumerate(first):
        colour, marker = styles[number]
        line = [curve[e][number].rms for e in epsilons]
        axes.plot(epsilons, line, color=colour, marker=marker, markersize=4, linewidth=1.6, label=f"to {one.to:g}")
    axes.axvline(asked, color="C2", linewidth=1, linestyle=(0, (5, 3)))
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_yticks(*ticks(*axes.get_ylim()))
    axes.set_xticks(epsilons, [f"{e:g}" for e in epsilons])
    axes.minorticks_off()
    axes.set_xlabel("epsilon")
    axes.set_ylabel("root mean square error")
    axes.legend(title="minor allele frequency", loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    worst = max(b.rms for b in curve[asked])
    return (
        f"Expected root mean square error of a frequency for epsilon from {epsilons[0]:g} to {epsilons[-1]:g}, by "
        f"minor allele frequency; at the {asked:g} asked for (dashed line) it is at most {worst:.2g}."
    )

"""What a study will read, send, cost and take, from public facts alone: nothing is asked of anybody.

Later rounds depend on earlier answers. Their shapes are found by answering the question once over made-up people who
lie within the study's public ranges; no number of theirs is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from fl_server.conduct import SLICES_PER_EXCHANGE
from strategies.analyses.allele_frequency import NoisedFrequency, expected_width
from strategies.analysis import Analysis, Frame, Range, Total
from strategies.cohort import Cohort, Genotypes
from strategies.federation import Federation
from strategies.privacy import Budget, Loss
from strategies.protections import noise
from strategies.study import Question, Study
from strategies.summary import Field

PEOPLE = 64
"""Made-up people: enough for any regression in a study's reach."""

ASSUMED_PEOPLE = 100
"""Of a site that states no public number."""

WIDE = 0.1
"""A 95 % interval of a frequency that is wider than this says little."""

MOST_EPSILON, MOST_PEOPLE = 100.0, 10**7
ENVELOPE_BYTES = 400
"""About what a signed reply weighs beside its numbers."""


@dataclass(frozen=True)
class Step:
    """One round of a question.

    Attributes:
        columns: what is read, besides the panel.
        panel: name of the panel, or None.
        fields: what leaves a site over all slices.
        exchanges: how often the sites are asked; a masked sum takes a second time to open it.
        bytes: about what leaves each site.
        noise: field -> standard deviation in each site's release; empty when exact.
    """

    columns: tuple[str, ...]
    panel: str | None
    fields: Mapping[str, Field]
    exchanges: int
    bytes: int
    noise: Mapping[str, float]


def steps(study: Study, question: Question) -> tuple[Step, ...]:
    """The rounds that a question takes, at most `question.analysis.rounds()`."""
    frame, analysis = study.frame(question), question.analysis
    out: list[Step] = []
    while True:
        out.append(_step(question, analysis, frame))
        following = _following(analysis, frame)
        if following is None or len(out) == question.analysis.rounds():
            return tuple(out)
        analysis = following


def _step(question: Question, analysis: Analysis, frame: Frame) -> Step:
    cut, needs = analysis.slices(frame), analysis.needs()
    sent = [sum(f.size for f in analysis.leaves(frame[span]).values()) * 8 + ENVELOPE_BYTES for span in cut]
    fields, sds = analysis.leaves(frame), {}
    exchanges = 1
    if question.summed:
        exchanges = 2 * -(-len(cut) // SLICES_PER_EXCHANGE)
    if question.budget is not None:
        sds = noise.scales(fields, Loss(question.budget.loss.rho * analysis.fraction()))
    return Step(needs.columns, needs.panel, fields, exchanges, sum(sent), sds)


def _following(analysis: Analysis, frame: Frame) -> Analysis | None:
    """The next round's analysis after a made-up answer; None if there is none."""
    small = frame[analysis.slices(frame)[0]]  # a derived parameter never depends on how a panel is cut
    rng = np.random.default_rng(0)
    columns = {name: _made_up(span, rng) for name, span in frame.columns.items()}
    genotypes = None
    if small.panel is not None:
        genotypes = Genotypes.pack(rng.integers(0, 3, size=(len(small.panel), PEOPLE)).astype(np.uint8))
    try:
        sums = analysis.summarise(Cohort(PEOPLE, genotypes, columns), small)
        following = analysis.conclude(Total(sums, ("made_up",)), small)
    except Exception:
        return None  # made-up people may be too odd for a statistic; the plan then ends at the round before
    return following if isinstance(following, Analysis) else None


def _made_up(span: Range, rng: np.random.Generator) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    if span.maximum - span.minimum <= 2 and span.minimum.is_integer() and span.maximum.is_integer():
        return rng.integers(int(span.minimum), int(span.maximum) + 1, PEOPLE).astype(np.float64)
    return rng.uniform(span.minimum, span.maximum, PEOPLE)


def warnings(study: Study, question: Question, federation: Federation | None) -> tuple[str, ...]:
    """What a researcher should know before the budget is spent: frequencies whose intervals will be wide."""
    analysis, budget = question.analysis, question.budget
    if not isinstance(analysis, NoisedFrequency) or budget is None:
        return ()
    people = {"a site": ASSUMED_PEOPLE}
    if federation is not None and federation.nodes:
        people = {name: node.people or ASSUMED_PEOPLE for name, node in federation.nodes.items()}
    frame = study.frame(question)
    assert frame.panel is not None
    spread = _Spread(analysis, frame, budget.delta)
    out = []
    for site, count in people.items():
        width = spread.width(count, budget.epsilon)
        if width > WIDE:
            out.append(
                f"{question.name} at {site} (about {count} people): a 95 % interval will be up to {width:.2f} wide. "
                f"For {WIDE:g} it takes {spread.remedy(count, budget)}."
            )
    if len(people) > 1 and (width := spread.width(sum(people.values()), budget.epsilon, len(people))) > WIDE:
        out.append(f"{question.name} over all {len(people)} sites together: still up to {width:.2f} wide.")
    return tuple(out)


@dataclass(frozen=True)
class _Spread:
    """How wide the widest interval of a question is expected to be."""

    analysis: NoisedFrequency
    frame: Frame
    delta: float

    def width(self, people: float, epsilon: float, sites: int = 1) -> float:
        assert self.frame.panel is not None
        rho = Budget(epsilon, self.delta).loss.rho
        sds = noise.scales(self.analysis.leaves(self.frame), Loss(rho * self.analysis.fraction()))
        alternate, count = (sds[name] * sites**0.5 for name in ("alternate", "people"))
        clipped = self.analysis.clip is not None
        frequencies = set(self.frame.panel.frequencies.tolist())
        return max(expected_width(p, int(people), alternate, count, clipped) for p in frequencies)

    def remedy(self, people: int, budget: Budget) -> str:
        most = _least(lambda n: self.width(n, budget.epsilon) <= WIDE, float(people), float(MOST_PEOPLE))
        by_people = f"about {most:,.0f} people at epsilon {budget.epsilon:g}" if most else "more people than there are"
        epsilon = _least(lambda e: self.width(people, e) <= WIDE, budget.epsilon, MOST_EPSILON)
        if epsilon:
            return f"epsilon {epsilon:.1f}, or {by_people}"
        alone = self.width(people, MOST_EPSILON)
        return f"{by_people}; no epsilon is enough, since sampling alone gives {alone:.2f}"


def _least(enough: Callable[[float], bool], start: float, most: float) -> float | None:
    """About the least number from `start` to `most` that is enough, to 1 %; None if none is."""
    if not enough(most):
        return None
    low, high = start, most
    while high / low > 1.01:
        middle = (low * high) ** 0.5
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high

"""The rounds that a question takes: what each reads, sends, costs and takes, from public facts alone.

Later rounds depend on earlier answers. Their shapes are found by answering the question once over made-up people who
lie within the study's public ranges; no number of theirs is shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fl_server.conduct import SLICES_PER_EXCHANGE
from strategies.analysis import Analysis, Frame, Range, Total, carries
from strategies.cohort import COPY, NO_DOSAGE, Cohort, Genotypes
from strategies.question import Question
from strategies.study import Study
from strategies.summary import Field

PEOPLE, MADE_UP_SITES = 256, 3
"""Made-up people at each made-up site: enough for any regression in a study's reach."""

ENVELOPE_BYTES = 620
"""About what a signed reply weighs beside its numbers: most of it is the mark of the node's ledger."""

AGREEMENT_BYTES = 1_900
"""About what a site sends to agree on a roster of four with the others; each further site adds some hundred bytes."""

START_S, EXCHANGE_S, BYTES_PER_S = 2.0, 0.25, 40e6
"""Seconds before the first exchange and for each exchange and site, and bytes a second over all sites: measured over
four SuperNodes and a SuperLink with TLS on the loopback of one machine with two cores. What the sites compute and what
a slower network adds is not in it."""

EPSILONS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
"""Where curves over epsilon are worked out, besides at a question's own."""


@dataclass(frozen=True)
class Step:
    """One round of a question.

    Attributes:
        columns: what is read, besides the panel.
        panel: name of the panel, or None.
        fields: what leaves a site over all slices.
        exchanges: how often the sites are asked; a masked sum takes a second time to open it.
        bytes: about what leaves each site.
        noise: field -> standard deviation of what each site adds; empty when exact.
    """

    columns: tuple[str, ...]
    panel: str | None
    fields: Mapping[str, Field]
    exchanges: int
    bytes: int
    noise: Mapping[str, float]


def steps(study: Study, question: Question) -> tuple[Step, ...]:
    """The rounds that a question takes, at most `question.analysis.rounds()`."""
    frame, analysis, most = study.frame(question), question.analysis, question.analysis.rounds()
    out = [_step(question, analysis, frame)]
    while len(out) < most and (following := _following(analysis, frame)) is not None:
        analysis = following
        out.append(_step(question, analysis, frame))
    if len(out) > 1 and carries(type(analysis)):  # its last rounds ask alike until the answer is good enough
        out += out[-1:] * (most - len(out))
    return tuple(out)


def _step(question: Question, analysis: Analysis, frame: Frame) -> Step:
    cut, needs = analysis.slices(frame), analysis.needs()
    sent = [sum(f.size for f in analysis.leaves(frame[span]).values()) * 8 + ENVELOPE_BYTES for span in cut]
    fields = analysis.leaves(frame)
    exchanges = 1
    if question.summed:
        opened = -(-len(cut) // SLICES_PER_EXCHANGE)
        exchanges = 2 * opened
        sent.append(opened * ENVELOPE_BYTES)
    panel = needs.panel or needs.matched
    return Step(needs.opened, panel, fields, exchanges, sum(sent), question.noise(analysis, fields))


def _following(analysis: Analysis, frame: Frame) -> Analysis | None:
    """The next round's analysis after a made-up answer; None if there is none."""
    rng = np.random.default_rng(0)
    columns = {name: made_up(span, PEOPLE, rng) for name, span in frame.columns.items()}
    genotypes = dosages = None
    if frame.panel is not None:  # a quarter is missing: what is sent about missing genotypes is foretold at its most
        packed = rng.integers(0, 256, size=(len(frame.panel), PEOPLE // 4), dtype=np.uint8)
        genotypes = Genotypes(packed, PEOPLE)
        if analysis.needs().dosages:
            dosages = np.array([0, COPY, 2 * COPY, NO_DOSAGE], dtype=np.uint16)[genotypes.codes()]
    try:
        sums = analysis.summarise(Cohort(PEOPLE, genotypes, columns, dosages=dosages), frame)
        sums = {name: MADE_UP_SITES * array for name, array in sums.items()}
        following = analysis.conclude(Total(sums, ("made_up",) * MADE_UP_SITES), frame)
    except Exception:
        return None  # made-up people may be too odd for a statistic; the plan then ends at the round before
    return following if isinstance(following, Analysis) else None


def made_up(span: Range, people: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """(N,) values of a column within its public range: whole numbers where the range is a short one of these,
    or the places of categories."""
    low, high = float(span.minimum), float(span.maximum)
    if (span.categories or high - low <= 2) and low.is_integer() and high.is_integer():
        return rng.integers(int(low), int(high) + 1, people).astype(np.float64)
    return rng.uniform(low, high, people)


def together(noise: Mapping[str, float], sites: int) -> dict[str, float]:
    """The noise that the total over sites carries, to which each adds as much."""
    return {name: sd * sites**0.5 for name, sd in noise.items()}


def duration_s(exchanges: int, size: int, sites: int) -> float:
    """About how long so many exchanges take in which so many bytes leave each site, in seconds."""
    return exchanges * EXCHANGE_S * sites + size * sites / BYTES_PER_S

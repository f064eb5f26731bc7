"""A later round of a question, as an honest coordinator comes to it, and what a node says to one that was changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from strategies.analysis import Total
from strategies.question import Question
from strategies.reasons import Reason
from strategies.study import Study
from strategies.wire import Refused
from tests.laws.zoo import add
from tests.tiny import NAMES, Tiny


def later(tiny: Tiny, study: Study, question: Question, there: Callable[[Any], bool]) -> tuple[Any, list[Any]]:
    """The first round that is the one looked for, and the totals that led to it."""
    frame, totals, page = study.frame(question), list[Any](), question.analysis
    while not there(page):
        parts = []
        for gate in tiny.gates.values():
            assert gate.dataset is not None
            parts.append(page.summarise(gate.dataset.cohort(page.needs(), frame), frame))
        totals.append(add(parts))
        following = page.conclude(Total(totals[-1], NAMES), frame)
        assert isinstance(following, type(question.analysis))
        page = following
    return page, totals


def asked(
    tiny: Tiny,
    study: Study,
    question: Question,
    there: Callable[[Any], bool],
    change: Mapping[str, Callable[[Any], Any]],
    session: str = "session-1",
) -> Reason | None:
    """Why a node refuses that round with some of its parameters changed; None if it answers."""
    page, totals = later(tiny, study, question, there)
    for name, value in change.items():
        object.__setattr__(page, name, value(getattr(page, name)))
    envelope = tiny.pen(study, session).open().ask(question.name, analysis=page, earlier=totals, slices=1)
    header = tiny.read("AT", tiny.gates["AT"].answer(envelope)).header
    return header.reason if isinstance(header, Refused) else None

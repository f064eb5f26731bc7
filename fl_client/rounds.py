"""A question's round, as the node itself derives it: nobody tells a node what to compute."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from fl_client.agreements import Agreement
from fl_client.ledger import Ledger, Session, Slot
from fl_client.refusal import RefusalError
from strategies.analysis import Analysis, Frame, Span, Total, alike, carries, parameters, stated
from strategies.codec import canonical
from strategies.errors import UsageError
from strategies.privacy import stacked
from strategies.question import Question
from strategies.reasons import Reason
from strategies.study import Study
from strategies.summary import check
from strategies.wire import Ask, Message, unpack_arrays, unpack_numbers, unpack_parts


@dataclass(frozen=True)
class Admitted:
    """What step 2 hands on: the question's round as the node itself derived it."""

    ask: Ask
    study: Study
    question: Question
    analysis: Analysis
    frame: Frame
    span: Span
    session: Session
    agreement: Agreement | None


def slot_of(ask: Ask) -> Slot:
    """Where a request's reply belongs."""
    return Slot(ask.session, ask.question, ask.round, ask.slice, ask.attempt)


def derived(message: Message, ask: Ask, study: Study, question: Question, ledger: Ledger) -> Analysis:
    """The round's analysis, recomputed from the signed study and the earlier rounds' totals.

    Raises:
        RefusalError: if it is not the one that follows.
    """
    if not 1 <= ask.round <= question.analysis.rounds():
        raise RefusalError(Reason.OUT_OF_ORDER)
    if ask.round > 1 and carries(type(question.analysis)):
        return _stated(message, ask, question, ledger)
    sums = [unpack_arrays(part) for part in unpack_parts(message.body)]
    if len(sums) != ask.round - 1:
        raise RefusalError(Reason.NOT_DERIVED)
    frame, analysis = study.frame(question), question.analysis
    spends = [(analysis.needs().part.start, analysis.needs().part.stop, analysis.fraction())]
    for earlier in sums:
        try:
            check(earlier, analysis.leaves(frame))
            following = analysis.conclude(Total(earlier, ask.roster), frame)
        except Exception:  # totals are the coordinator's word: whatever they break is its fault
            raise RefusalError(Reason.NOT_DERIVED) from None
        if not isinstance(following, Analysis):
            raise RefusalError(Reason.NOT_DERIVED)
        analysis = following
        spends.append((analysis.needs().part.start, analysis.needs().part.stop, analysis.fraction()))
    if not alike(parameters(analysis), dict(ask.parameters)) or stacked(spends) > 1 + 1e-9:
        raise RefusalError(Reason.NOT_DERIVED)
    _once(message, ask, ledger)
    return _restated(question.analysis, ask, {})


def _stated(message: Message, ask: Ask, question: Question, ledger: Ledger) -> Analysis:
    """The round's analysis, as the coordinator states it: totals of each variant do not travel to every node."""
    parts = unpack_parts(message.body)
    if len(parts) != 1:
        raise RefusalError(Reason.NOT_DERIVED)
    analysis = _restated(question.analysis, ask, unpack_numbers(parts[0]))
    if ask.parameters.get("taken") != ask.round - 1:
        raise RefusalError(Reason.NOT_DERIVED)
    _once(message, ask, ledger)
    return analysis


def _once(message: Message, ask: Ask, ledger: Ledger) -> None:
    """One round of a question has one set of parameters, for all its slices."""
    digest = hashlib.sha256(canonical(dict(ask.parameters)) + message.body).hexdigest()
    if ask.round > 1 and ledger.first_seen(slot_of(ask), digest) != digest:
        raise RefusalError(Reason.NOT_DERIVED)


def _restated(asked: Analysis, ask: Ask, arrays: Mapping[str, NDArray[Any]]) -> Analysis:
    try:
        return stated(asked, ask.parameters, arrays)
    except (UsageError, ValueError):
        raise RefusalError(Reason.NOT_DERIVED) from None

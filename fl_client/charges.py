"""What a question is charged, before anything is read for it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from fl_client.ledger import Ledger
from fl_client.policy import Policy
from fl_client.refusal import RefusalError
from fl_client.reservations import Charge, OverBudgetError, Place
from strategies import accounting
from strategies.privacy import Loss
from strategies.question import Question
from strategies.reasons import Reason
from strategies.wire import Ask, Share


def reserve(ledger: Ledger, policy: Policy, coordinator: str, ask: Ask, question: Question) -> None:
    """Set the loss of one attempt aside; nothing where the question is exact.

    Another attempt is another draw of the noise, and nobody can know that the earlier one was never opened.

    Raises:
        RefusalError: if it does not fit into the budget.
    """
    if question.budget is None:
        return
    # Fractions of rounds that meet the same people add up to one at most: so many releases, all noised alike.
    loss, releases = question.budget.loss, max(1, round(1 / question.analysis.fraction()))
    events = [accounting.plain(accounting.of_loss(loss, releases))]
    place = Place(ask.session, ask.question, ask.attempt)
    with _within_budget():
        ledger.reserve(_charge(coordinator, place, loss), policy.bounds, events)


def affordable(
    ledger: Ledger, policy: Policy, coordinator: str, share: Share, question: Question, attempt: int
) -> None:
    """Refuse before the others are asked, and pay, for an attempt that this node will not take part in.

    Raises:
        RefusalError: if it would not fit into the budget.
    """
    if question.budget is not None:
        place = Place(share.session, question.name, attempt)
        with _within_budget():
            ledger.fits(_charge(coordinator, place, question.budget.loss), policy.bounds)


def _charge(coordinator: str, place: Place, loss: Loss) -> Charge:
    """Against the coordinator's share, and this year's."""
    return Charge(place, loss, coordinator, time.gmtime().tm_year)


@contextmanager
def _within_budget() -> Iterator[None]:
    try:
        yield
    except OverBudgetError as over:
        public = {"rho_asked": over.asked.rho, "rho_left": over.left.rho, f"rho_{over.bound}": over.whole.rho}
        raise RefusalError(Reason.BUDGET_EXHAUSTED, **public) from None

"""What a node's operator is told about the ledger: what was spent, by whom and when, and what it comes to."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from fl_client.journal import Charge, Replay
from fl_client.ledger import Ledger
from fl_client.policy import NodeConfig
from strategies import accounting
from strategies.codec import decode, parse
from strategies.errors import DataError, UsageError
from strategies.marks import Mark
from strategies.privacy import Budget, Loss, Renewal


def verified(ledger: Ledger) -> Replay:
    """The journal, followed from its beginning.

    Raises:
        DataError: if it, or a table beside it, was altered, or marks are missing from it.
    """
    try:
        return ledger.verify()
    except ValueError as error:
        raise DataError(
            "A node's journal is append-only, and its tables say what it says.",
            str(error).rstrip("."),
            "keep the state folder as it is and investigate.",
        ) from None


def behind(config: NodeConfig, ledger: Ledger) -> None:
    """Assert that the journal knows every mark of this node that was ever seen.

    Raises:
        DataError: if it does not.
    """
    if missing := ledger.missing():
        last = max(mark.sequence for mark in missing)
        raise DataError(
            "A ledger knows every mark that its node ever issued.",
            f"{len(missing)} that it does not know, up to entry {last}: it was put back to an older copy",
            f"put the newest one back, or run `fl-client ledger adopt` on {config.name}'s file, which charges the gap.",
        )


def rows(config: NodeConfig, ledger: Ledger, year: int) -> Iterator[tuple[str, str]]:
    """What was spent, remains, and comes to as epsilon, as lines of name and text."""
    told, policy = verified(ledger), config.policy
    counts = ", ".join(f"{count} {event}" for event, count in sorted(told.entries.items()))
    yield "journal", f"{sum(told.entries.values())} entries, verified: each follows from the one before"
    yield "", counts or "empty"
    mine = [charge for charge in told.charges if charge.dataset == ledger.dataset]
    yearly = policy.renewal is Renewal.YEARLY
    counted = [charge for charge in mine if charge.year == year] if yearly else mine
    whole, bounds = policy.budget.loss.rho, policy.bounds
    yield "spent", _of(_sum(counted), whole) + (f" in {year}; the budget is renewed every year" if yearly else "")
    figures = _epsilons(config, counted)
    of = f"of {policy.epsilon:g} at delta {policy.delta:g}, per {policy.budget.unit}"
    yield "epsilon", f"{figures.zcdp:.4g} {of} (zCDP, enforced)"
    yield "", f"{figures.rdp:.4g} by Renyi divergences, {figures.pld:.4g} by privacy loss distributions"
    for one in sorted({charge.year for charge in mine} | {year}):
        yield f"in {one}", _of(_sum([charge for charge in mine if charge.year == one]), bounds.year.rho)
    for permit in sorted({charge.permit for charge in counted if charge.permit}):
        yield "permit", f"{permit}: " + _of(_sum([c for c in counted if c.permit == permit]), bounds.permit.rho)
    if told.adopted:
        gaps = _sum([charge for charge in mine if not charge.permit])
        yield "adopted", f"{len(told.adopted)} lost marks, rho {gaps:.6f}"


def adopt(config: NodeConfig, ledger: Ledger, file: Path | None) -> list[tuple[Mark, Loss]]:
    """Charge the lost marks that the node keeps, and the one in a coordinator's file.

    Raises:
        UsageError: if the file is not a mark of this node.
    """
    verified(ledger)
    marks = [] if file is None else [_mark(config, file)]
    return ledger.adopt(marks, time.gmtime().tm_year)


def _mark(config: NodeConfig, file: Path) -> Mark:
    _, identity = config.parties()
    try:
        raw = parse(file.read_bytes())
        mark = decode(Mark, raw[config.name], file.name)
    except (OSError, ValueError, KeyError, TypeError) as error:
        found = error.strerror if isinstance(error, OSError) else f"no mark of {config.name}"
        raise UsageError(
            "A mark stands in a coordinator's state/marks.json, under the node's name.",
            f"{file}: {found}",
            "ask for it again.",
        ) from None
    if not mark.is_signed_by(identity.public):
        raise UsageError("A mark is signed by the node that adopts it.", f"{file} is not", "ask for it again.")
    return mark


def _epsilons(config: NodeConfig, charges: list[Charge]) -> accounting.Epsilons:
    budget, people = config.policy.budget, config.policy.budget.unit.people
    told = [accounting.read(event) for charge in charges for event in charge.events]
    # k people move a sum k times as far as one does: the same noise is a k-th of the multiplier to them.
    events = [replace(event, multiplier=event.multiplier / people) for event in told]
    unexplained = Loss(people**2 * _sum([charge for charge in charges if not charge.events]))
    return accounting.epsilons(events, Budget(budget.epsilon, budget.delta), unexplained)


def _sum(charges: list[Charge]) -> float:
    total = 0.0
    for charge in charges:
        total += charge.rho
    return total


def _of(rho: float, whole: float) -> str:
    return f"rho {rho:.6f} of {whole:.6f}, left {max(0.0, whole - rho):.6f}"

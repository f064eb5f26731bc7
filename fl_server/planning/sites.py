"""What a coordinator knows of the sites before it asks anybody: how many people, what budget, what is spent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from strategies.errors import UsageError
from strategies.federation import Federation
from strategies.privacy import Budget, Loss
from strategies.wire import Opened, WireError, open_envelope

ASSUMED_PEOPLE = 100
"""Of a site that states no public number."""

MOST_PEOPLE = 10**9


@dataclass(frozen=True)
class Site:
    """A site before it is asked.

    Attributes:
        people: its public, approximate number of people.
        assumed: whether that number is a guess of ours.
        budget: what its data set may lose in its lifetime, as its node stated it last; None if it never did.
        spent: what the node last signed that it has lost; None if that is unknown.
    """

    people: int
    assumed: bool = False
    budget: Budget | None = None
    spent: Loss | None = None

    def left(self) -> Loss | None:
        """What may still be lost there; None if it is unknown."""
        if self.budget is None or self.spent is None:
            return None
        return Loss(max(self.budget.loss.rho - self.spent.rho, 0.0))


def sites(
    federation: Federation | None,
    minimum_sites: int,
    people: int | None = None,
    budgets: Mapping[str, Budget] | None = None,
    known: Mapping[str, float] | None = None,
) -> dict[str, Site]:
    """The sites by name: the federation's, or as many nameless ones as the study needs.

    Args:
        people: of every site, in the place of the federation file's numbers.
        budgets: site -> its lifetime budget, where known.
        known: site -> rho spent there, where known.

    Raises:
        UsageError: if `people` is no number of people.
    """
    if people is not None and not 1 <= people <= MOST_PEOPLE:
        raise UsageError(f"A site has 1 to {MOST_PEOPLE} people.", f"--people {people}", "correct the number.")
    if federation is None or not federation.nodes:
        return {f"site {i}": Site(people or ASSUMED_PEOPLE, people is None) for i in range(1, minimum_sites + 1)}
    out = {}
    for name, node in federation.nodes.items():
        count = people or node.people
        spent = (known or {}).get(name)
        out[name] = Site(
            count or ASSUMED_PEOPLE, count == 0, (budgets or {}).get(name), None if spent is None else Loss(spent)
        )
    return out


def stated_budgets(run: Path, federation: Federation) -> dict[str, Budget]:
    """The lifetime budgets that nodes stated when they opened a study, from the folder of a run that is under way.

    Raises:
        UsageError: if the folder is not there, or a file in it is not what a node of the federation signed.
    """
    if not run.is_dir():
        raise UsageError("A run under way has a folder.", f"{run} is none", "name the folder that ends in .run.")
    identities = {name: node.identity for name, node in federation.nodes.items()}
    out = {}
    for file in sorted(run.glob("*.opened")):
        try:
            message = open_envelope(file.read_bytes(), identities)
        except WireError:
            raise UsageError(
                "A node's statement is signed by the federation file's key.", f"{file} is not", "name another run."
            ) from None
        if isinstance(message.header, Opened):
            out[message.signer] = Budget(message.header.epsilon, message.header.delta)
    return out

"""One answer in the report: what it says, what shows it, and on which terms."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fl_server.conduct import Result
from fl_server.results.figures import Figure
from fl_server.results.words import count, power


@dataclass(frozen=True)
class Table:
    """A table in the page; columns of numbers are set flush right."""

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: tuple[bool, ...]


@dataclass(frozen=True)
class Section:
    """One answer in the page.

    Attributes:
        title, lead: what it is and what it says, in one sentence each.
        figures, tables: what shows it.
        beside: a table that fills the place beside a single figure.
    """

    title: str
    lead: str
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()
    beside: Table | None = None


def in_short(*rows: tuple[str, str]) -> Table:
    """A table of what is said of an answer as a whole."""
    return Table("The answer in short", ("", "value"), rows, (False, True))


def people_of(result: Result) -> float:
    """People behind an answer, over all sites; NaN where that is withheld or not known."""
    facts = [result.answer.facts] if "people" in result.answer.facts else [a.facts for a in result.by_site.values()]
    return sum(float(f.get("people", math.nan)) for f in facts) if facts else math.nan


def terms(result: Result) -> str:
    """On which terms a figure's numbers stand, for its caption: regime, price, people, rows withheld."""
    question, people = result.question, people_of(result)
    if question.budget is not None:
        budget = question.budget
        told = f"; about {count(people)} people (noised)" if math.isfinite(people) else ""
        return (
            f"Private: ε {budget.epsilon:g}, δ {power(budget.delta)} per {budget.unit} at each site{told}; "
            "nothing is withheld."
        )
    told = f"{count(people)} people" if math.isfinite(people) else "number of people withheld"
    return f"Exact, no ε; {told}; {count(result.answer.withheld)} rows withheld."

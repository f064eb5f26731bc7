"""What is written beside what is drawn: names with their units, and numbers beside bars."""

from __future__ import annotations

from strategies.analysis import Answer, Range

SPACE = "\N{NO-BREAK SPACE}"
"""Before a text that stands beside a bar: a page drops an ordinary one."""


def unit_of(span: Range, name: str = "") -> dict[str, str]:
    """The fact that tells a column's unit, if it has one.

    >>> unit_of(Range(20, 350, "mg/dL")), unit_of(Range(18, 90, "a"), "age"), unit_of(Range(0, 1))
    ({'unit': 'mg/dL'}, {'unit_age': 'a'}, {})
    """
    return {f"unit_{name}" if name else "unit": span.ucum} if span.ucum else {}


def with_unit(name: str, answer: Answer, of: str = "") -> str:
    """A name, and in brackets the unit that `unit_of` told."""
    unit = answer.facts.get(f"unit_{of}" if of else "unit", "")
    return f"{name} ({unit})" if unit else name

"""Conditions and values in plain words, for whoever decides about them."""

from __future__ import annotations

from strategies.events import Code
from strategies.selection import (
    Age,
    Aged,
    Anchor,
    Category,
    Condition,
    Count,
    Day,
    Days,
    Either,
    Event,
    Every,
    Followed,
    Genotyped,
    Happened,
    Measured,
    Missing,
    Named,
    Not,
    Number,
    Occurrence,
    Operator,
    Relation,
    Selection,
    Taken,
    Value,
    Whether,
    Window,
    number_text,
)

_COMPARED = {
    Operator.EQUAL: "exactly",
    Operator.OTHER: "other than",
    Operator.LESS: "below",
    Operator.AT_MOST: "at most",
    Operator.MORE: "above",
    Operator.AT_LEAST: "at least",
}
_DAYS = {
    Named.INDEX: "the index day",
    Named.BIRTH: "birth",
    Named.DEATH: "death",
    Named.END: "the last day on which events were recorded",
}


def told(node: Condition | Value | Anchor | Window | Event | Code) -> str:
    """A condition, a value, a day, a window, an event or a code in plain words.

    >>> from strategies.grammar import condition_of
    >>> told(condition_of("age >= 40 and no drug ATC:A10A+ before index", "a test"))
    'age is at least 40, and no record of a drug with code ATC A10A or any below it, before the index day'
    >>> told(condition_of("not (bmi < 30)", "a test"))
    'it does not hold, or is not known, that bmi is below 30'
    """
    if isinstance(node, Condition):
        return _condition(node)
    return _value(node) if isinstance(node, Value) else _part(node)


def _condition(condition: Condition) -> str:
    match condition:
        case Every(parts):
            return ", and ".join(f"({told(p)})" if isinstance(p, Every | Either) else told(p) for p in parts)
        case Either(parts):
            return ", or ".join(f"({told(p)})" if isinstance(p, Every | Either) else told(p) for p in parts)
        case Not(Happened(1) as happened):
            return f"no record of {_of(happened.event, happened.window)}"
        case Not(Missing(column)):
            return f"{column} is known"
        case Not(part):
            return f"it does not hold, or is not known, that {told(part)}"
        case Number(column, operator, number):
            return f"{column} is {_COMPARED[operator]} {number_text(number)}"
        case Category(column, categories, other):
            return f"{column} is {'known and not ' if other else ''}{' or '.join(categories)}"
        case Missing(column):
            return f"{column} is not known"
        case Happened(least, event, window):
            return f"at least {'one record' if least == 1 else f'{least} records'} of {_of(event, window)}"
        case Aged(anchor, operator, number):
            return f"the age on {told(anchor)} is {_COMPARED[operator]} {number_text(number)} whole years"
        case Followed(days, relation, anchor):
            span = f"{days} days {relation.value} it"
            return f"events were recorded on {told(anchor)} and on all days to {span}"
        case Genotyped():
            return "has genotypes"


def _value(value: Value) -> str:
    match value:
        case Age(anchor):
            return f"the age on {told(anchor)}, in whole years"
        case Days(start, ends):
            earliest = "the earliest of " if len(ends) > 1 else ""
            return f"the days from {told(start)} to {earliest}{' and '.join(map(told, ends))}"
        case Whether(condition):
            return f"yes or no, whether {told(condition)}"
        case Measured(taken, event, window):
            which = "the mean of the results" if taken is Taken.MEAN else f"the {taken.value} result"
            return f"{which} of {_of(event, window)}"
        case Count(event, window):
            return f"the number of records of {_of(event, window)}"


def _part(part: Anchor | Window | Event | Code) -> str:
    match part:
        case Occurrence(which, event, window):
            return f"the day of the {which.value} record of {_of(event, window)}"
        case Window():
            return _window(part)
        case Event(domain, codes, operator, number, ucum):
            of = f" with code {' or '.join(map(told, codes))}" if codes else ""
            result = f" and a result {_COMPARED[operator]} {number_text(number)} {ucum}".rstrip() if operator else ""
            return f"a{'n' if domain.value[0] in 'aeiou' else ''} {domain.value}{of}{result}"
        case Code(vocabulary, code, descendants):
            return f"{vocabulary} {code}{' or any below it' if descendants else ''}"
        case Named():
            return _DAYS[part]
        case Day(date):
            return date.isoformat()


def _of(event: Event, window: Window | None) -> str:
    return told(event) + (f", {_window(window)}" if window else "")


def _window(window: Window) -> str:
    day = told(window.anchor)
    if window.relation is Relation.ON:
        return f"on {day}"
    if window.relation is Relation.OF:
        return f"at most {window.days} days from {day}"
    if window.days is None:
        return f"{window.relation.value} {day}"
    return f"in the {window.days} days {window.relation.value} {day}"


def steps_told(selection: Selection) -> tuple[str, ...]:
    """Each step of a cohort in plain words, the index first."""
    index = selection.index
    if index is None:
        first: tuple[str, ...] = ()
    elif isinstance(index, Occurrence):
        first = (f"has {told(index).removeprefix('the day of ')}; its day is the index day",)
    else:
        first = (f"has an index day: {told(index)}",)
    return first + tuple(map(told, selection.steps))

"""Who, and what of them: conditions and values over columns and clinical events, as typed data.

A study's text is read by `strategies.grammar` into these, and nothing else is ever evaluated. Each prints itself as the
one text that is read back to it. What they mean of a person's record stands in `fl_client.selection`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from datetime import date
from decimal import Decimal
from enum import StrEnum
from typing import Any, TypeVar

from strategies.events import Code, Domain

MOST_STEPS = 20
MOST_DAYS = 36_525
"""A hundred years."""

MOST_COUNT = 1000

WITH_RESULTS = (Domain.MEASUREMENT, Domain.OBSERVATION)
"""Domains whose events have a result."""

NO, YES = "no", "yes"
"""The categories of a column that says whether a condition holds."""


class Operator(StrEnum):
    """How a number is compared."""

    EQUAL = "="
    OTHER = "!="
    LESS = "<"
    AT_MOST = "<="
    MORE = ">"
    AT_LEAST = ">="


class Named(StrEnum):
    """Days that a person has, or has not."""

    INDEX = "index"
    BIRTH = "birth"
    DEATH = "death"
    END = "end of follow-up"


class Which(StrEnum):
    """Of several events, which one."""

    FIRST = "first"
    LAST = "last"


class Taken(StrEnum):
    """Of several results, what is taken."""

    FIRST = "first"
    LAST = "last"
    MEAN = "mean"


class Relation(StrEnum):
    """Where an event lies beside a day. Only `of` and `on` include the day itself."""

    BEFORE = "before"
    AFTER = "after"
    ON = "on"
    OF = "of"


def number_text(number: float) -> str:
    """A number without an exponent.

    >>> number_text(1e-5), number_text(48.0), number_text(-0.5)
    ('0.00001', '48', '-0.5')
    """
    text = format(Decimal(repr(number)), "f")
    return text.removesuffix(".0")


@dataclass(frozen=True)
class Event:
    """A kind of event: of a domain, with one of some codes (any, if none), with a result so compared (any, if not)."""

    domain: Domain
    codes: tuple[Code, ...] = ()
    operator: Operator | None = None
    number: float = 0.0
    ucum: str = ""

    def __str__(self) -> str:
        """
        >>> str(Event(Domain.MEASUREMENT, (Code("LOINC", "4548-4"),), Operator.AT_LEAST, 48, "mmol/mol"))
        'measurement LOINC:4548-4 >= 48 mmol/mol'
        """
        out = [self.domain.value, "|".join(map(str, self.codes))]
        if self.operator is not None:
            out += [self.operator.value, number_text(self.number), self.ucum]
        return " ".join(filter(None, out))


@dataclass(frozen=True)
class Day:
    """A literal date."""

    date: date

    def __str__(self) -> str:
        return self.date.isoformat()


@dataclass(frozen=True)
class Occurrence:
    """The day of the first or last event of a kind that has a day, within a window or at any time."""

    which: Which
    event: Event
    window: Window | None = None

    def __str__(self) -> str:
        """In parentheses, if the event's result is compared: `age at first measurement X < 50` is about the age."""
        text = " ".join(filter(None, (self.which.value, str(self.event), str(self.window or ""))))
        return f"({text})" if self.event.operator else text


Anchor = Named | Day | Occurrence
"""A day of a person's own."""


@dataclass(frozen=True)
class Window:
    """Days beside an anchor: all before or after it, or at most so many.

    Attributes:
        days: None for any number; 1 to 36,525. `of` has them, `on` has not.
    """

    relation: Relation
    anchor: Anchor
    days: int | None = None

    def __post_init__(self) -> None:
        if (self.relation is Relation.ON and self.days is not None) or (
            self.relation is Relation.OF and self.days is None
        ):
            raise ValueError("A window is before, after or on a day, or within days before, after or of it.")

    def __str__(self) -> str:
        """
        >>> str(Window(Relation.BEFORE, Named.INDEX, 365))
        'within 365 days before index'
        """
        within = "" if self.days is None else f"within {self.days} days "
        return f"{within}{self.relation.value} {self.anchor}"


# -- conditions -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Every:
    """All of some conditions."""

    parts: tuple[Condition, ...]

    def __str__(self) -> str:
        return " and ".join(f"({p})" if isinstance(p, Every | Either) else str(p) for p in self.parts)


@dataclass(frozen=True)
class Either:
    """At least one of some conditions."""

    parts: tuple[Condition, ...]

    def __str__(self) -> str:
        return " or ".join(f"({p})" if isinstance(p, Either) else str(p) for p in self.parts)


@dataclass(frozen=True)
class Not:
    """A condition turned round: it holds for whoever the other does not hold for."""

    part: Condition

    def __str__(self) -> str:
        if isinstance(self.part, Happened) and self.part.least == 1:
            return f"no {self.part.told}"
        return f"not ({self.part})" if isinstance(self.part, Every | Either) else f"not {self.part}"


@dataclass(frozen=True)
class Number:
    """A column of numbers, compared."""

    column: str
    operator: Operator
    number: float

    def __str__(self) -> str:
        return f"{self.column} {self.operator.value} {number_text(self.number)}"


@dataclass(frozen=True)
class Category:
    """A column of categories has one of some, or is known and has none of them.

    Attributes:
        categories: one with `=` and `!=`, one or more with `in`.
    """

    column: str
    categories: tuple[str, ...]
    other: bool = False

    def __str__(self) -> str:
        """
        >>> str(Category("smoking", ("never", "not asked"))), str(Category("sex", ("female",), True))
        ("smoking in (never, 'not asked')", 'sex != female')
        """
        texts = [c if c.isalpha() and c.isascii() else f"'{c}'" for c in self.categories]
        if self.other or len(texts) == 1:
            return f"{self.column} {'!=' if self.other else '='} {texts[0]}"
        return f"{self.column} in ({', '.join(texts)})"


@dataclass(frozen=True)
class Missing:
    """A column has no value."""

    column: str

    def __str__(self) -> str:
        return f"{self.column} is missing"


@dataclass(frozen=True)
class Happened:
    """At least so many events of a kind lie in a window."""

    least: int
    event: Event
    window: Window | None = None

    @property
    def told(self) -> str:
        """The events and the window."""
        return " ".join(filter(None, (str(self.event), str(self.window or ""))))

    def __str__(self) -> str:
        return f"any {self.told}" if self.least == 1 else f"at least {self.least} {self.told}"


@dataclass(frozen=True)
class Aged:
    """A person's age on a day, in whole years, compared."""

    anchor: Anchor
    operator: Operator
    number: float

    def __str__(self) -> str:
        return f"age at {self.anchor} {self.operator.value} {number_text(self.number)}"


@dataclass(frozen=True)
class Followed:
    """Events were recorded on a day and on all the days up to so many before or after it."""

    days: int
    relation: Relation
    anchor: Anchor

    def __str__(self) -> str:
        return f"followed for {self.days} days {self.relation.value} {self.anchor}"


@dataclass(frozen=True)
class Genotyped:
    """A person has genotypes."""

    def __str__(self) -> str:
        return "has genotypes"


Condition = Every | Either | Not | Number | Category | Missing | Happened | Aged | Followed | Genotyped
"""Who."""


# -- values -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Age:
    """A person's age on a day, in whole years."""

    anchor: Anchor

    def __str__(self) -> str:
        return f"age at {self.anchor}"


@dataclass(frozen=True)
class Days:
    """Days from one day to the earliest known of others; negative where it lies before."""

    start: Anchor
    ends: tuple[Anchor, ...]

    def __str__(self) -> str:
        return f"days from {self.start} to {' or '.join(map(str, self.ends))}"


@dataclass(frozen=True)
class Whether:
    """Whether a condition holds: category no or yes."""

    condition: Condition

    def __str__(self) -> str:
        return f"whether {self.condition}"


@dataclass(frozen=True)
class Measured:
    """The first or last result of a kind of event, or the mean of all, in the column's unit."""

    taken: Taken
    event: Event
    window: Window | None = None

    def __str__(self) -> str:
        return " ".join(filter(None, (f"{self.taken.value} of {self.event}", str(self.window or ""))))


@dataclass(frozen=True)
class Count:
    """How many events of a kind lie in a window."""

    event: Event
    window: Window | None = None

    def __str__(self) -> str:
        return " ".join(filter(None, (f"count of {self.event}", str(self.window or ""))))


Value = Age | Days | Whether | Measured | Count
"""What of them: a derived column."""

Node = Condition | Value | Anchor | Window | Event | Code
N = TypeVar("N")


def within(node: Any) -> Iterator[Any]:
    """An expression, and all that it is made of."""
    yield node
    if is_dataclass(node):
        for f in fields(node):
            part = getattr(node, f.name)
            for one in part if isinstance(part, tuple) else (part,):
                yield from within(one)


def indexed(node: N, index: Anchor) -> N:
    """An expression with another day in the place of `index`."""
    if node is Named.INDEX:
        return index  # type: ignore[return-value]
    if not is_dataclass(node):
        return node
    changed = {}
    for f in fields(node):
        part = getattr(node, f.name)
        changed[f.name] = tuple(indexed(p, index) for p in part) if isinstance(part, tuple) else indexed(part, index)
    return replace(node, **changed)  # type: ignore[type-var]


@dataclass(frozen=True)
class Reads:
    """What an expression reads of a person's record.

    Attributes:
        columns: of the people table.
        events: kinds of events.
        dates: whether it reads any date of hers.
        index: whether it names the cohort's index.
        genotypes: whether it asks if she has genotypes.
    """

    columns: frozenset[str]
    events: frozenset[Event]
    dates: bool
    index: bool
    genotypes: bool

    @property
    def domains(self) -> frozenset[Domain]:
        return frozenset(event.domain for event in self.events)

    @property
    def codes(self) -> frozenset[Code]:
        return frozenset(code for event in self.events for code in event.codes)

    @property
    def clinical(self) -> bool:
        """Whether it reads a clinical source at all."""
        return self.dates or bool(self.events)


def reads(*expressions: Condition | Value | Anchor) -> Reads:
    """What some expressions read."""
    found = [one for expression in expressions for one in within(expression)]
    return Reads(
        frozenset(one.column for one in found if isinstance(one, Number | Category | Missing)),
        frozenset(one for one in found if isinstance(one, Event)),
        any(isinstance(one, Named | Day | Aged | Followed | Age | Days) for one in found),
        Named.INDEX in found,
        any(isinstance(one, Genotyped) for one in found),
    )


@dataclass(frozen=True)
class Selection:
    """A cohort as a study defines it.

    Attributes:
        index: the day from which a person is in it; who has none is not in it. None for a cohort without.
        steps: conditions, each of which narrows those that the ones before left.
    """

    index: Anchor | None = None
    steps: tuple[Condition, ...] = ()

    def plain(self) -> dict[str, Any]:
        """What a file would say."""
        index = {} if self.index is None else {"index": str(self.index)}
        return index | {"where": [str(step) for step in self.steps]}

    @property
    def texts(self) -> tuple[str, ...]:
        """What each step asks, the index first."""
        first = () if self.index is None else (f"index = {self.index}",)
        return first + tuple(str(step) for step in self.steps)

    @property
    def reads(self) -> Reads:
        """What it reads, its own index put in the place of the word."""
        return reads(*(() if self.index is None else (self.index,)), *self.steps)

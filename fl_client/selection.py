"""Who is in a cohort, and the values derived of them, from each person's own record alone.

A test is true or false, never unknown:

* a comparison with a value, date or age that is not known is false, `!=` too; so is `in`;
* `not` turns a test round, so `not age >= 40` holds for people without an age, and `age < 40` does not;
* an event without a day counts where there is no window, and lies in none; `first` and `last` pass it over;
* a window beside a day that a person has not holds nothing, so `any` is false there and `no` is true;
* whoever's record has ages and no dates has no calendar day: what is asked of 2020-01-31 is not known of her, and what
  is asked of ages or of days from one event to another is;
* `followed` asks for one period that has all the days: two with a gap between them do not;
* `at least 2` counts records, also of one day; the first and the last result of a day with several is their mean;
* a result in another unit than the one asked for, and that cannot be converted to it, is no result;
* columns are clamped to their public ranges first, as an analysis would see them.

A derived value is missing where what it needs is not known; `whether` is yes or no, and `count` 0 where nothing is.
A cohort with an index holds people who have that day. N = people, E = events.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from fl_client.readers import Dataset
from fl_client.readers.events import MOST_EVENTS, NEVER, Clinical, Events
from strategies.analysis import PASSED, Frame, Needs, Range, names_of
from strategies.codec import canonical
from strategies.errors import DataError
from strategies.events import Code, Domain
from strategies.privacy import Regime
from strategies.question import Question
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
    Which,
    Window,
    reads,
)
from strategies.study import Study
from strategies.units import analyte_of, conversion

MOST_KEPT = 16
"""Cohorts whose people are remembered: a question's rounds and slices come one after another."""

Numbers = NDArray[np.float64]
Inside = NDArray[np.bool_]
DaysOf = NDArray[np.int64]
"""(N,) days as `Clinical.dated` counts them, NEVER where unknown."""

_COMPARISONS: Mapping[Operator, np.ufunc] = {
    Operator.EQUAL: np.equal,
    Operator.LESS: np.less,
    Operator.AT_MOST: np.less_equal,
    Operator.MORE: np.greater,
    Operator.AT_LEAST: np.greater_equal,
}


@dataclass(frozen=True, eq=False)
class Records:
    """What is known of N people.

    Attributes:
        people: N.
        ranges: of the columns that an expression names.
        columns: name -> (N,) values, clamped to them.
        genotyped: (N,) who has genotypes.
        clinical: their dates and events, if the site has any.
        known: kinds of events that were asked for already: a database is asked once.
    """

    people: int
    ranges: Mapping[str, Range]
    columns: Mapping[str, Numbers] = field(repr=False)
    genotyped: Inside = field(repr=False)
    clinical: Clinical | None = field(repr=False)
    known: dict[tuple[Domain, tuple[Code, ...]], Events] = field(default_factory=dict, repr=False)

    def events(self, event: Event) -> Events:
        """All events of a kind, whatever their results."""
        kind = event.domain, event.codes
        if kind not in self.known:
            found = self.source.events(*kind)
            if len(found) + sum(map(len, self.known.values())) > MOST_EVENTS:
                self.known.clear()
            self.known[kind] = found
        return self.known[kind]

    @property
    def source(self) -> Clinical:
        if self.clinical is None:
            raise DataError(
                "A question about events needs a clinical source.",
                "the data set has none",
                "name one in the [dataset] table.",
            )
        return self.clinical


@dataclass(frozen=True, eq=False)
class Chosen:
    """A question's people and the columns derived of them.

    Attributes:
        inside: (N,) whose records an analysis sees; None for everybody's.
        members: (N,) whom policy counts and remembers: those inside, or who passed all steps where the steps are what
            is asked about; None for everybody.
        columns: name -> (N,) values of everybody, NaN where missing.
    """

    inside: Inside | None = None
    members: Inside | None = None
    columns: Mapping[str, Numbers] = field(default_factory=lambda: MappingProxyType({}))

    def places(self, part: Inside) -> NDArray[np.int64]:
        """Who of a part of the people it is, by place."""
        return np.flatnonzero(part if self.inside is None else part & self.inside)


def passed(selection: Selection, records: Records) -> tuple[NDArray[np.int64], DaysOf | None]:
    """(N,) how many of a cohort's steps each person passed, from the first on; and (N,) the index, if it has one."""
    expressions, index = _Expressions(records), None
    out = np.zeros(records.people, dtype=np.int64)
    there = np.ones(records.people, dtype=bool)
    if selection.index is not None:
        index = expressions.day(selection.index)
        there = index != NEVER
        out += there
        expressions = _Expressions(records, index)
    for step in selection.steps:
        there = there & expressions.holds(step)
        out += there
    return out, index


def derived(column: Range, records: Records) -> Numbers:
    """(N,) values of a derived column, NaN where missing."""
    assert column.value is not None
    return _Expressions(records).value(column.value, column.ucum)


class _Expressions:
    """Expressions over people's records, for one index."""

    def __init__(self, records: Records, index: DaysOf | None = None) -> None:
        self.records, self.index = records, index

    # -- conditions ----------------------------------------------------------------------------------------------------

    def holds(self, condition: Condition) -> Inside:
        """(N,) for whom a condition holds."""
        columns = self.records.columns
        match condition:
            case Every(parts):
                return reduce(np.logical_and, map(self.holds, parts))
            case Either(parts):
                return reduce(np.logical_or, map(self.holds, parts))
            case Not(part):
                return ~self.holds(part)
            case Number(column, operator, number):
                return _compared(columns[column], operator, number)
            case Category(column, categories, other):
                return self._is_one_of(column, categories, other)
            case Missing(column):
                return np.isnan(columns[column])
            case Happened(least, event, window):
                return np.asarray(self._counted(event, window) >= least)
            case Aged(anchor, operator, number):
                return _compared(self._age(anchor), operator, number)
            case Followed(days, relation, anchor):
                return self._followed(days, relation, anchor)
            case Genotyped():
                return self.records.genotyped

    def _is_one_of(self, column: str, categories: tuple[str, ...], other: bool) -> Inside:
        names, values = self.records.ranges[column].categories, self.records.columns[column]
        one = np.isin(values, [names.index(category) for category in categories])
        return ~one & ~np.isnan(values) if other else one

    def _followed(self, days: int, relation: Relation, anchor: Anchor) -> Inside:
        at = self.day(anchor)
        known = at != NEVER
        at = np.where(known, at, 0)
        first, last = (at, at + days) if relation is Relation.AFTER else (at - days, at)
        return np.asarray(known & self.records.source.periods.hold(first, last))

    # -- days ----------------------------------------------------------------------------------------------------------

    def day(self, anchor: Anchor) -> DaysOf:
        """(N,) each person's own day."""
        match anchor:
            case Named.INDEX:
                assert self.index is not None, "a study is checked for that"
                return self.index
            case Named.BIRTH:
                return self.records.source.born
            case Named.DEATH:
                return self.records.source.died
            case Named.END:
                return self.records.source.followed[:, 1]
            case Day(date):
                return np.where(self.records.source.dated, np.datetime64(date, "D").astype(np.int64), NEVER)
            case Occurrence(which, event, window):
                events = self._events(event, window)
                dated = events.day != NEVER
                return _extreme(which, events.person[dated], events.day[dated], self.records.people)

    def _age(self, anchor: Anchor) -> Numbers:
        """(N,) whole years from birth to a day, by the calendar."""
        born, at = self.records.source.born, self.day(anchor)
        known = (born != NEVER) & (at != NEVER)
        (months, day), (months_born, day_born) = (_calendar(np.where(known, d, 0)) for d in (at, born))
        years = (months - months_born - (day < day_born)) // 12
        return np.where(known, years.astype(np.float64), np.nan)

    # -- events --------------------------------------------------------------------------------------------------------

    def _events(self, event: Event, window: Window | None) -> Events:
        """Those of a kind, with such a result, in a window."""
        events = self.records.events(event)
        keep = np.ones(len(events), dtype=bool)
        if event.operator is not None:
            keep &= _compared(results(events, event.codes, event.ucum), event.operator, event.number)
        if window is not None:
            at = self.day(window.anchor)[events.person]
            known = (at != NEVER) & (events.day != NEVER)
            keep &= known & _beside(np.where(known, events.day - at, 0), window)
        kept = np.flatnonzero(keep)
        ucum = events.ucum if len(kept) == len(events) else tuple(events.ucum[i] for i in kept.tolist())
        return Events(events.person[kept], events.day[kept], events.value[kept], ucum)

    def _counted(self, event: Event, window: Window | None) -> NDArray[np.int64]:
        """(N,) number of events."""
        return np.bincount(self._events(event, window).person, minlength=self.records.people)

    # -- values --------------------------------------------------------------------------------------------------------

    def value(self, value: Value, ucum: str) -> Numbers:
        """(N,) a derived column in a unit."""
        match value:
            case Age(anchor):
                return self._age(anchor)
            case Days(start, ends):
                return self._between(start, ends)
            case Whether(condition):
                return self.holds(condition).astype(np.float64)
            case Count(event, window):
                return self._counted(event, window).astype(np.float64)
            case Measured(taken, event, window):
                return self._measured(taken, self._events(event, window), event.codes, ucum)

    def _between(self, start: Anchor, ends: tuple[Anchor, ...]) -> Numbers:
        last = np.iinfo(np.int64).max
        days = [self.day(end) for end in ends]
        earliest = np.minimum.reduce([np.where(day == NEVER, last, day) for day in days])
        begun = self.day(start)
        known = (begun != NEVER) & (earliest != last)
        return np.where(known, np.where(known, earliest, 0) - np.where(known, begun, 0), np.nan).astype(np.float64)

    def _measured(self, taken: Taken, events: Events, codes: Sequence[Code], ucum: str) -> Numbers:
        values, people = results(events, codes, ucum), self.records.people
        keep = ~np.isnan(values)
        if taken is not Taken.MEAN:
            keep &= events.day != NEVER
            which = Which.FIRST if taken is Taken.FIRST else Which.LAST
            wanted = _extreme(which, events.person[keep], events.day[keep], people)
            keep &= events.day == wanted[events.person]
        count = np.bincount(events.person[keep], minlength=people)
        sums = np.bincount(events.person[keep], weights=values[keep], minlength=people)
        return np.where(count > 0, sums / np.maximum(count, 1), np.nan)


def results(events: Events, codes: Sequence[Code], ucum: str) -> Numbers:
    """(E,) results of some codes in a unit, NaN where there is none, or none that becomes one in that unit."""
    measured = {analyte_of(f"{code.vocabulary}:{code.code}") for code in codes}
    analyte = measured.pop() if len(measured) == 1 else ""
    units, out = np.array(events.ucum, dtype=object), np.full(len(events), np.nan)
    for unit in set(events.ucum):
        if (turned := conversion(unit, ucum, analyte)) is not None:
            out[units == unit] = turned(events.value[units == unit])
    return out


def _compared(values: Numbers, operator: Operator, number: float) -> Inside:
    """Whether each value is known and compares so: NaN is no other number."""
    if operator is Operator.OTHER:
        return np.asarray((values != number) & ~np.isnan(values))
    return np.asarray(_COMPARISONS[operator](values, number), dtype=bool)


def _beside(away: NDArray[np.int64], window: Window) -> Inside:
    """Whether days that lie so far from an anchor are in a window beside it."""
    most = np.iinfo(np.int64).max if window.days is None else window.days
    match window.relation:
        case Relation.BEFORE:
            return np.asarray((away < 0) & (away >= -most))
        case Relation.AFTER:
            return np.asarray((away > 0) & (away <= most))
        case Relation.ON:
            return np.asarray(away == 0)
        case Relation.OF:
            return np.asarray(np.abs(away) <= most)


def _extreme(which: Which, person: NDArray[np.int64], day: DaysOf, people: int) -> DaysOf:
    """(N,) the first or last of people's days, NEVER of those who have none."""
    if which is Which.LAST:
        out = np.full(people, NEVER)
        np.maximum.at(out, person, day)
        return out
    out = np.full(people, np.iinfo(np.int64).max)
    np.minimum.at(out, person, day)
    return np.where(out == np.iinfo(np.int64).max, NEVER, out)


def _calendar(days: DaysOf) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Months since 1970-01, and the day of the month from 0."""
    dates = days.astype("datetime64[D]")
    months = dates.astype("datetime64[M]")
    return months.astype(np.int64), (dates - months.astype("datetime64[D]")).astype(np.int64)


class Cohorts:
    """The people of questions about one data set, each cohort evaluated once.

    Ten rounds of a question ask a database once. What is remembered is whose step it was and derived values, in memory.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[bytes, Chosen] = OrderedDict()

    def chosen(self, dataset: Dataset, study: Study, question: Question) -> Chosen:
        """The people of a question, in whichever round, and what it reads of them that is derived.

        Raises:
            DataError: if a column or the clinical source cannot be read.
        """
        selection, columns = study.selection(question), study.derived(question)
        genotypes = reads_genotypes(study, question) and not dataset.genotyped.all()
        if selection is None and not columns and not genotypes:
            return Chosen()
        expressions = _read(selection, columns)
        words = question.regime is Regime.PRIVATE  # one person's cell must not decide whether it is answered
        steps = PASSED in question.analysis.needs().columns
        key = canonical(
            {
                "data": [dataset.digest, dataset.config.version],
                "cohort": selection.plain() if selection else {},
                "derived": {name: column.plain() for name, column in columns.items()},
                "columns": {name: study.columns[name].plain() for name in expressions},
                "asked": [words, steps, genotypes],
            }
        )
        if key not in self._kept:
            frame = Frame(None, {name: study.columns[name] for name in expressions})
            opened = dataset.cohort(Needs(columns=expressions), frame, words_as_missing=words)
            records = Records(len(dataset.people), frame.columns, opened.columns, dataset.genotyped, dataset.clinical)
            self._kept[key] = _choose(selection, columns, records, steps, genotypes)
            if len(self._kept) > MOST_KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]


def _read(selection: Selection | None, columns: Mapping[str, Range]) -> tuple[str, ...]:
    """The people table's columns that a cohort and derived columns name."""
    values = reads(*(column.value for column in columns.values() if column.value is not None))
    return tuple(sorted(values.columns | (selection.reads.columns if selection else frozenset())))


def _choose(
    selection: Selection | None, columns: Mapping[str, Range], records: Records, steps: bool, genotypes: bool
) -> Chosen:
    out = {name: derived(column, records) for name, column in columns.items()}
    members = records.genotyped if genotypes else None
    if selection is not None:
        count, _ = passed(selection, records)
        all_steps = count == len(selection.texts)
        members = all_steps if members is None else all_steps & members
        if steps:
            out[PASSED] = count.astype(np.float64)
    for array in (*out.values(), *([] if members is None else [members])):
        array.setflags(write=False)
    return Chosen(None if steps else members, members, MappingProxyType(out))


def reads_genotypes(study: Study, question: Question) -> bool:
    """Whether any round of a question, or of one whose columns it reads, is about genotypes."""
    if names_of(question.analysis, "panel"):
        return True
    return any(reads_genotypes(study, source) for source in study.sources(question))


def forbidden(asked: Code, ruled_out: Code, clinical: Clinical | None) -> bool:
    """Whether a code that is asked for is one that a policy rules out, or lies below it, or has it below itself, or
    has with it what lies below both.

    What lies below another, and which names mean the same, is as the source's vocabulary has it; a source without one
    knows codes by their names alone.

    Raises:
        DataError: if the vocabulary cannot be read.
    """
    one, other = Code(asked.vocabulary, asked.code), Code(ruled_out.vocabulary, ruled_out.code)
    if clinical is None or one == other:
        return one == other
    names, others = clinical.names(one), clinical.names(other)
    return bool(
        names & others
        or (ruled_out.descendants and clinical.above(one) & others)
        or (asked.descendants and clinical.above(other) & names)
        or (asked.descendants and ruled_out.descendants and clinical.shares(one, other))
    )

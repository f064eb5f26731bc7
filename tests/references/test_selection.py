"""Cohorts and derived columns against an evaluator of the tests' own: one person at a time, from lists and dates."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from random import Random
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from fl_client.readers.events import NEVER
from fl_client.selection import Records, derived, passed
from strategies.analysis import Range
from strategies.events import Code, Domain
from strategies.grammar import MOST_CHARACTERS, condition_of, index_of, value_of
from strategies.selection import (
    Age,
    Aged,
    Category,
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
    Whether,
    Which,
    Window,
    indexed,
    reads,
)
from strategies.wording import told
from tests.clinical import EPOCH, Happening, InMemory, Life, means

RANGES = {"age": Range(0, 110), "bmi": Range(10, 80), "smoking": Range.of("never", "former", "current smoker")}
CODES = ("SNOMED:1", "SNOMED:11", "SNOMED:12", "SNOMED:2", "ATC:A10", "ATC:A10A")
START = date(2019, 6, 1)


def a_day(rng: Random) -> date:
    """Of a few hundred, with many ties, some at the end of February."""
    if rng.random() < 0.1:
        return date(2020, 2, 29)
    return START + timedelta(days=rng.choice([0, 1, 7, 30, 31, 365, 366, 400]) + rng.randint(-3, 3))


def a_happening(rng: Random) -> Happening:
    domain = rng.choice([Domain.CONDITION, Domain.DRUG, Domain.MEASUREMENT, Domain.VISIT])
    value = rng.choice([None, 30.0, 48.0, 50.5]) if domain is Domain.MEASUREMENT else None
    ucum = rng.choice(["mmol/mol", "%"]) if value is not None else ""
    return Happening(domain, rng.choice(CODES), None if rng.random() < 0.1 else a_day(rng), value, ucum)


def born_on(rng: Random) -> date:
    return rng.choice([date(2000, 2, 29), date(1950 + rng.randint(0, 69), rng.randint(1, 12), rng.randint(1, 28))])


def a_period(rng: Random) -> tuple[date, date]:
    begin = a_day(rng) - timedelta(days=rng.choice([0, 90, 365]))
    return begin, begin + timedelta(days=rng.choice([0, 1, 7, 91, 365, 730]))


def a_life(rng: Random) -> Life:
    return Life(
        born=None if rng.random() < 0.15 else born_on(rng),
        died=a_day(rng) if rng.random() < 0.2 else None,
        periods=tuple(a_period(rng) for _ in range(rng.choice([0, 1, 1, 2, 3, 5]))),
        dated=rng.random() < 0.8,
        happened=tuple(a_happening(rng) for _ in range(rng.choice([0, 0, 1, 2, 5, 9]))),
        values={
            "age": rng.choice([None, 17.0, 40.0, 64.5]),
            "bmi": rng.choice([None, 18.5, 30.0, 31.0]),
            "smoking": rng.choice([None, *RANGES["smoking"].categories]),
        },
        genotyped=rng.random() < 0.7,
    )


def records(lives: list[Life]) -> Records:
    columns = {}
    for name, span in RANGES.items():
        cells = [life.values[name] for life in lives]
        places = [span.categories.index(c) if isinstance(c, str) else c for c in cells]
        columns[name] = np.array([np.nan if c is None else c for c in places], dtype=np.float64)
    genotyped = np.array([life.genotyped for life in lives], dtype=bool)
    return Records(len(lives), RANGES, MappingProxyType(columns), genotyped, InMemory(lives))


# -- one person, from the definition -----------------------------------------------------------------------------------


def compares(value: float | None, operator: Operator, number: float) -> bool:
    if value is None:
        return False
    return {
        "=": value == number, "!=": value != number, "<": value < number,
        "<=": value <= number, ">": value > number, ">=": value >= number,
    }[operator.value]  # fmt: skip


def whole_years(born: date, on: date) -> int:
    return on.year - born.year - ((on.month, on.day) < (born.month, born.day))


def the_day(life: Life, anchor: Any, index: date | None) -> date | None:
    if anchor is Named.INDEX:
        return index
    if anchor is Named.BIRTH:
        return life.born
    if anchor is Named.DEATH:
        return life.died
    if anchor is Named.END:
        return max((last for _, last in life.periods), default=None)
    if isinstance(anchor, Day):
        return anchor.date if life.dated else None
    found = [h.day for h in those(life, anchor.event, anchor.window, index) if h.day is not None]
    if not found:
        return None
    return min(found) if anchor.which is Which.FIRST else max(found)


def is_in(on: date | None, life: Life, window: Window | None, index: date | None) -> bool:
    if window is None:
        return True
    at = the_day(life, window.anchor, index)
    if on is None or at is None:
        return False
    away = (on - at).days
    if window.relation is Relation.ON:
        return away == 0
    if window.relation is Relation.OF:
        return -window.days <= away <= window.days
    if window.relation is Relation.BEFORE:
        return away < 0 and (window.days is None or -away <= window.days)
    return away > 0 and (window.days is None or away <= window.days)


def those(life: Life, event: Event, window: Window | None, index: date | None) -> list[Happening]:
    out = []
    for happening in life.happened:
        if happening.domain is not event.domain:
            continue
        if event.codes and not any(means(code, happening.code) for code in event.codes):
            continue
        if event.operator is not None:
            value = happening.value if happening.ucum == event.ucum else None
            if not compares(value, event.operator, event.number):
                continue
        if is_in(happening.day, life, window, index):
            out.append(happening)
    return out


def holds(life: Life, condition: Any, index: date | None) -> bool:
    if isinstance(condition, Every):
        return all(holds(life, part, index) for part in condition.parts)
    if isinstance(condition, Either):
        return any(holds(life, part, index) for part in condition.parts)
    if isinstance(condition, Not):
        return not holds(life, condition.part, index)
    if isinstance(condition, Number):
        return compares(life.values[condition.column], condition.operator, condition.number)
    if isinstance(condition, Category):
        value = life.values[condition.column]
        return value is not None and (value in condition.categories) != condition.other
    if isinstance(condition, Missing):
        return life.values[condition.column] is None
    if isinstance(condition, Happened):
        return len(those(life, condition.event, condition.window, index)) >= condition.least
    if isinstance(condition, Aged):
        on = the_day(life, condition.anchor, index)
        known = life.born is not None and on is not None
        return compares(whole_years(life.born, on) if known else None, condition.operator, condition.number)
    if isinstance(condition, Followed):
        on = the_day(life, condition.anchor, index)
        step = timedelta(days=1 if condition.relation is Relation.AFTER else -1)
        return on is not None and all(
            any(first <= on + k * step <= last for first, last in life.periods) for k in range(condition.days + 1)
        )
    assert isinstance(condition, Genotyped)
    return life.genotyped


def value_for(life: Life, value: Any, ucum: str, index: date | None) -> float | None:
    if isinstance(value, Age):
        on = the_day(life, value.anchor, index)
        return None if life.born is None or on is None else whole_years(life.born, on)
    if isinstance(value, Days):
        start = the_day(life, value.start, index)
        ends = [day for end in value.ends if (day := the_day(life, end, index)) is not None]
        return None if start is None or not ends else (min(ends) - start).days
    if isinstance(value, Whether):
        return float(holds(life, value.condition, index))
    found = those(life, value.event, value.window, index)
    if isinstance(value, Count):
        return len(found)
    results = [h for h in found if h.value is not None and h.ucum == ucum]
    if value.taken is not Taken.MEAN:
        dated = [h.day for h in results if h.day is not None]
        if not dated:
            return None
        at = min(dated) if value.taken is Taken.FIRST else max(dated)
        results = [h for h in results if h.day == at]
    return sum(h.value for h in results) / len(results) if results else None


# -- expressions at random ---------------------------------------------------------------------------------------------


def an_event(rng: Random, compared: bool = True) -> Event:
    domain = rng.choice([Domain.CONDITION, Domain.DRUG, Domain.MEASUREMENT, Domain.VISIT])
    asked = rng.sample(CODES, rng.randint(0, 2))
    codes = tuple(Code(*code.split(":"), rng.random() < 0.4) for code in asked)
    if domain is Domain.MEASUREMENT and compared and rng.random() < 0.6:
        unit = rng.choice(["mmol/mol", "%", ""])
        return Event(domain, codes, rng.choice(list(Operator)), rng.choice([30.0, 48.0, 49.25]), unit)
    return Event(domain, codes)


def an_anchor(rng: Random, depth: int, index: bool = True) -> Any:
    simple = [Named.BIRTH, Named.DEATH, Named.END, Day(a_day(rng)), *([Named.INDEX] * 3 if index else [])]
    if depth == 0 or rng.random() < 0.5:
        return rng.choice(simple)
    return Occurrence(rng.choice(list(Which)), an_event(rng), a_window(rng, depth - 1, index))


def a_window(rng: Random, depth: int, index: bool = True) -> Window | None:
    if rng.random() < 0.3:
        return None
    relation = rng.choice(list(Relation))
    days = rng.choice([1, 7, 365]) if relation is Relation.OF or rng.random() < 0.5 else None
    return Window(relation, an_anchor(rng, depth, index), None if relation is Relation.ON else days)


def a_condition(rng: Random, depth: int = 3) -> Any:
    kind = rng.randrange(11 if depth else 8)
    if kind == 0:
        return Number(rng.choice(["age", "bmi"]), rng.choice(list(Operator)), rng.choice([17.0, 30.0, 64.5]))
    if kind == 1:
        other = rng.random() < 0.3
        names = rng.sample(RANGES["smoking"].categories, 1 if other else rng.randint(1, 3))
        return Category("smoking", tuple(names), other)
    if kind == 2:
        return Missing(rng.choice(list(RANGES)))
    if kind in (3, 4):
        return Happened(rng.choice([1, 1, 2, 3]), an_event(rng), a_window(rng, 2))
    if kind == 5:
        return Aged(an_anchor(rng, 2), rng.choice(list(Operator)), rng.choice([18, 40.0, 59.5]))
    if kind == 6:
        return Followed(rng.choice([1, 90, 365]), rng.choice([Relation.BEFORE, Relation.AFTER]), an_anchor(rng, 1))
    if kind == 7:
        return Genotyped()
    if kind == 8:
        return Not(a_condition(rng, depth - 1))
    parts = tuple(a_condition(rng, depth - 1) for _ in range(rng.randint(2, 3)))
    return Every(parts) if kind == 9 else Either(parts)


def a_value(rng: Random) -> Any:
    return rng.choice(
        [
            Age(an_anchor(rng, 2)),
            Days(an_anchor(rng, 1), tuple(an_anchor(rng, 2) for _ in range(rng.randint(1, 3)))),
            Whether(a_condition(rng, 2)),
            Count(an_event(rng), a_window(rng, 2)),
            *(Measured(t, replace(an_event(rng, False), domain=Domain.MEASUREMENT), a_window(rng, 1)) for t in Taken),
        ]
    )


def lives(rng: Random, count: int) -> list[Life]:
    return [a_life(rng) for _ in range(count)]


def of_day(number: int) -> date | None:
    return None if number == NEVER else date.fromordinal(number + EPOCH)


@pytest.mark.parametrize("seed", range(40))
def test_a_cohort_is_whom_the_definition_says(seed: int) -> None:
    rng = Random(seed)
    people = lives(rng, 60)
    known = records(people)
    reached = set()
    for _ in range(12):
        selection = Selection(an_anchor(rng, 2, index=False), tuple(a_condition(rng) for _ in range(rng.randint(1, 3))))
        count, index = passed(selection, known)
        assert index is not None
        for person, life in enumerate(people):
            own = the_day(life, selection.index, None)
            assert of_day(int(index[person])) == own, (str(selection.index), life)
            expected = 0
            for here in [own is not None, *(holds(life, step, own) for step in selection.steps)]:
                if not here:
                    break
                expected += 1
            assert count[person] == expected, (selection.texts, life)
        reached |= set(count.tolist())
    assert len(reached) > 2


@pytest.mark.parametrize("seed", range(40))
def test_a_derived_column_is_what_the_definition_says(seed: int) -> None:
    rng = Random(1000 + seed)
    people = lives(rng, 60)
    known, found = records(people), 0
    for _ in range(25):
        value, index = a_value(rng), an_anchor(rng, 1, index=False)
        of_people = indexed(value, index)
        assert not reads(of_people).index
        measured = isinstance(value, Measured)
        ucum = rng.choice(["mmol/mol", "%"]) if measured else ""
        column = replace(Range.of("no", "yes") if isinstance(value, Whether) else Range(-9, 9, ucum), value=of_people)
        values = derived(column, known)
        for person, life in enumerate(people):
            expected = value_for(life, value, ucum, the_day(life, index, None))
            assert (None if np.isnan(values[person]) else values[person]) == pytest.approx(expected), (str(value), life)
        found += int((~np.isnan(values)).sum())
    assert found > 100


@pytest.mark.parametrize("seed", range(10))
def test_whether_somebody_is_in_a_cohort_depends_on_her_own_record_alone(seed: int) -> None:
    rng = Random(2000 + seed)
    people = lives(rng, 40)
    for _ in range(10):
        selection = Selection(an_anchor(rng, 2, index=False), (a_condition(rng), a_condition(rng)))
        value = replace(Range(-9, 9, "%"), value=Measured(Taken.MEAN, Event(Domain.MEASUREMENT)))
        whole, values = passed(selection, records(people)), derived(value, records(people))
        some = sorted(rng.sample(range(40), rng.choice([0, 1, 17])))
        part, own = (
            passed(selection, records([people[i] for i in some])),
            derived(value, records([people[i] for i in some])),
        )
        assert whole[1] is not None
        assert part[1] is not None
        assert np.array_equal(whole[0][some], part[0])
        assert np.array_equal(whole[1][some], part[1])
        assert np.array_equal(values[some], own, equal_nan=True)


def test_what_is_written_is_read_back_as_it_was() -> None:
    rng = Random(7)
    for _ in range(3000):
        condition, value, anchor = a_condition(rng), a_value(rng), an_anchor(rng, 3)
        for one, read in ((condition, condition_of), (value, value_of), (anchor, index_of)):
            if len(str(one)) > MOST_CHARACTERS:
                continue
            again = read(str(one), "a test")
            assert again == one, str(one)
            assert str(again) == str(one)
            assert told(one)


def test_what_is_read_says_what_it_reads() -> None:
    asked = reads(condition_of("bmi >= 30 and no drug ATC:A10+ before index or sex = f or has genotypes", "a test"))
    assert asked.columns == {"bmi", "sex"}
    assert asked.domains == {Domain.DRUG}
    assert asked.codes == {Code("ATC", "A10", True)}
    assert (asked.dates, asked.index, asked.genotypes, asked.clinical) == (True, True, True, True)
    plain = reads(condition_of("bmi >= 30", "a test"))
    assert (plain.dates, plain.index, plain.genotypes, plain.clinical) == (False, False, False, False)


BORN = [date(2000, 2, 29), date(2000, 3, 1), date(1999, 12, 31), None]


@pytest.mark.parametrize(
    ("on", "years"),
    [
        (date(2018, 2, 28), [17, 17, 18, None]),
        (date(2018, 3, 1), [18, 18, 18, None]),
        (date(2020, 2, 29), [20, 19, 20, None]),
        (date(1999, 12, 30), [-1, -1, -1, None]),
    ],
)
def test_age_is_in_whole_years_by_the_calendar(on: date, years: list[int | None]) -> None:
    known = records([Life(born=born, values=dict.fromkeys(RANGES)) for born in BORN])
    values = derived(replace(Range(0, 120), value=Age(Day(on))), known)
    assert [None if np.isnan(v) else int(v) for v in values] == years


def of(text: str, *people: Life) -> list[bool]:
    filled = [replace(life, values=dict.fromkeys(RANGES) | life.values) for life in people]
    return [bool(c) for c in passed(Selection(None, (condition_of(text, "a test"),)), records(filled))[0]]


def test_what_is_missing_means_what_the_page_says() -> None:
    nobody, forty = Life(), Life(values={"age": 40.0})
    assert of("age >= 40", nobody, forty) == [False, True]
    assert of("age < 40", nobody, forty) == [False, False]
    assert of("age != 40", nobody, forty) == [False, False]
    assert of("not age >= 40", nobody, forty) == [True, False]
    assert of("smoking != never", nobody, Life(values={"smoking": "former"})) == [False, True]
    undated = Life(happened=(Happening(Domain.DRUG, "ATC:A10", None),))
    assert of("any drug ATC:A10", undated, nobody) == [True, False]
    assert of("any drug ATC:A10 before 2030-01-01", undated, nobody) == [False, False]
    assert of("no drug ATC:A10 before 2030-01-01", undated, nobody) == [True, True]
    assert of("any drug after birth", undated, nobody) == [False, False]


def test_a_window_includes_its_ends_and_only_of_and_on_the_day_itself() -> None:
    def drug(day: int) -> Life:
        return Life(happened=(Happening(Domain.DRUG, "ATC:A10", date(2020, 1, day)),))

    month = [drug(day) for day in range(1, 32)]

    def inside(window: str) -> list[int]:
        return [day for day, there in enumerate(of(f"any drug {window} 2020-01-15", *month), start=1) if there]

    assert inside("on") == [15]
    assert inside("before") == list(range(1, 15))
    assert inside("after") == list(range(16, 32))
    assert inside("within 3 days before") == [12, 13, 14]
    assert inside("within 3 days after") == [16, 17, 18]
    assert inside("within 3 days of") == [12, 13, 14, 15, 16, 17, 18]


def test_follow_up_includes_both_its_ends() -> None:
    spans = [(date(2020, 1, a), date(2020, 1, b)) for a, b in ((1, 11), (2, 11), (1, 10), (5, 11), (6, 11), (1, 5))]
    lives = [*(Life(periods=(span,)) for span in spans), Life()]
    assert of("followed for 10 days after 2020-01-01", *lives) == [True, *[False] * 6]
    assert of("followed for 9 days before 2020-01-11", *lives) == [True, True, *[False] * 5]
    assert of("followed for 5 days before 2020-01-10", *lives) == [True, True, True, True, False, False, False]


def test_follow_up_is_one_period() -> None:
    def january(*spans: tuple[int, int]) -> Life:
        return Life(periods=tuple((date(2020, 1, a), date(2020, 1, b)) for a, b in spans))

    lives = [
        january((1, 5), (6, 11)),
        january((1, 5), (7, 11)),
        january((4, 11), (1, 6)),
        january((1, 20), (3, 4)),
        january(),
    ]
    assert of("followed for 10 days after 2020-01-01", *lives) == [True, False, True, True, False]
    assert of("followed for 4 days before 2020-01-11", *lives) == [True, True, True, True, False]
    assert of("followed for 1 day after 2020-01-05", *lives) == [True, False, True, True, False]


def test_who_has_ages_alone_has_no_calendar_day() -> None:
    born = date(1970, 1, 1)  # as a source counts her days: from her birth
    told = (
        Happening(Domain.CONDITION, "SNOMED:1", date(1978, 1, 1)),
        Happening(Domain.DRUG, "ATC:A10", date(1978, 1, 9)),
    )
    ages = Life(born=born, periods=((born, date(1980, 1, 1)),), happened=told, dated=False)
    dates = replace(ages, dated=True)
    for text, calendar in (
        ("any condition before 2020-01-01", True),
        ("any condition on 1978-01-01", True),
        ("no condition before 2020-01-01", False),
        ("age at 1979-01-01 >= 9", True),
        ("not age at 1979-01-01 >= 9", False),
        ("followed for 1 day after 1975-01-01", True),
    ):
        assert of(text, dates, ages) == [calendar, text.startswith(("no ", "not "))], text
    for text in (
        "age at first condition = 8", "any drug within 8 days after first condition", "any condition after birth",
        "followed for 365 days before first condition", "age at end of follow-up = 10",
    ):  # fmt: skip
        assert of(text, dates, ages) == [True, True], text
    gone = derived(
        replace(Range(0, 9999), value=Days(Day(date(1975, 1, 1)), (Named.END,))),
        records([replace(life, values=dict.fromkeys(RANGES)) for life in (dates, ages)]),
    )
    assert gone[0] == 1826
    assert np.isnan(gone[1])

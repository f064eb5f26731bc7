"""The texts in which a study says who and what, read by recursive descent into `strategies.selection`.

    condition = both { "or" both }                       both = negated { "and" negated }
    negated   = "not" negated | "(" condition ")" | test
    test      = column compare number | column ( "=" | "!=" ) category | column "in" "(" category { "," category } ")"
              | column "is" "missing" | "has" "genotypes" | "age" "at" anchor compare number
              | "followed" "for" days ( "before" | "after" ) anchor
              | ( "any" | "no" | "at" "least" number ) event [ window ]
    event     = domain [ code { "|" code } ] [ compare number [ unit ] ]           of a measurement or observation
    window    = ( "before" | "after" | "on" ) anchor | "within" days ( "before" | "after" | "of" ) anchor
    anchor    = "index" | "birth" | "death" | "end" "of" "follow-up" | year-month-day | "(" anchor ")"
              | ( "first" | "last" ) event [ window ]    its result is compared in parentheses only
    value     = "age" "at" anchor | "days" "from" anchor "to" anchor { "or" anchor } | "whether" condition
              | ( "first" | "last" | "mean" ) "of" event [ window ] | "count" "of" event [ window ]
    days      = number ( "day" | "days" )                code = vocabulary ":" code [ "+" ]

A window belongs to the nearest event before it. `no` is `not any`. A category that is not one word of letters stands in
'single quotes'. Every other character is an error, and so is a text that is too long, too deep or of too many parts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from string import ascii_letters, digits
from typing import Any, NoReturn, TypeVar

from strategies.codec import decode
from strategies.errors import UsageError
from strategies.events import Code, Domain
from strategies.selection import (
    MOST_COUNT,
    MOST_DAYS,
    MOST_STEPS,
    WITH_RESULTS,
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
)

MOST_CHARACTERS = 2000
MOST_DEPTH = 12
MOST_PARTS = 200
MOST_DIGITS = 12
MOST_YEARS = 150

_LETTERS = frozenset(ascii_letters)
_DIGITS = frozenset(digits)
_WORD = _LETTERS | _DIGITS | frozenset("_-.:+/*%[]")
_QUOTED = _LETTERS | _DIGITS | frozenset(" _-./+<>=%&,:()")
_COLUMN = _LETTERS | _DIGITS | frozenset("_-")
_CODE = _LETTERS | _DIGITS | frozenset("_-.:/")
_UNIT = _LETTERS | _DIGITS | frozenset("/.*%[]-")
_MARKS = ("<=", ">=", "!=", "<", ">", "=", "(", ")", ",", "|")
_WORDS_BETWEEN = frozenset({"and", "or", "not"})

T = TypeVar("T")


@dataclass(frozen=True)
class _Token:
    """A word, a mark or a quoted text, and at which character of the whole it begins."""

    text: str
    at: int
    quoted: bool = False


def condition_of(text: str, where: str) -> Condition:
    """The condition that a text says.

    Raises:
        UsageError: if it says none; with the place in the text.
    """
    return _Reader.whole(text, where, _Reader.condition)


def value_of(text: str, where: str) -> Value:
    """The value that a text says.

    Raises:
        UsageError: if it says none; with the place in the text.
    """
    return _Reader.whole(text, where, _Reader.value)


def index_of(text: str, where: str) -> Anchor:
    """The day that a text says.

    Raises:
        UsageError: if it says none; with the place in the text.
    """
    return _Reader.whole(text, where, lambda reader: reader.anchor(compared=True))


def selection_of(raw: Mapping[str, Any], where: str) -> Selection:
    """The cohort that a study's file says: an index, conditions, or both.

    Raises:
        UsageError: if it says none; with the place in the text.
    """
    steps = raw.get("where", [])
    shape = decode(_SelectionFile, {**raw, "where": [steps] if isinstance(steps, str) else steps}, where)
    return Selection(
        index_of(shape.index, f"{where}, index") if shape.index else None,
        tuple(condition_of(text, f"{where}, step {i}") for i, text in enumerate(shape.where, start=1)),
    )


def code_of(text: str, where: str) -> Code:
    """The code that a text says.

    Raises:
        UsageError: if it says none.
    """
    return _Reader.whole(text, where, _Reader.code)


@dataclass(frozen=True)
class _SelectionFile:
    where: tuple[str, ...]
    index: str = ""

    def __post_init__(self) -> None:
        if not (self.index or self.where) or len(self.where) > MOST_STEPS:
            raise ValueError(f"a cohort has an index, or 1 to {MOST_STEPS} steps in `where`, or both.")


class _Reader:
    """A text's tokens, read one by one."""

    def __init__(self, text: str, where: str) -> None:
        self.text, self.where = text, where
        self.at = self.depth = self.parts = 0
        if len(text) > MOST_CHARACTERS:
            raise UsageError(
                f"{where}: an expression has at most {MOST_CHARACTERS:,} characters.",
                f"{len(text):,}",
                "ask in several steps, or with codes that have descendants.",
            )
        self.tokens = self._tokens()

    @staticmethod
    def whole(text: str, where: str, read: Callable[[_Reader], T]) -> T:
        reader = _Reader(text, where)
        out = read(reader)
        if reader.at < len(reader.tokens):
            reader.fail("the text to end here, or `and`, `or`, or a window such as `before index`")
        return out

    def _tokens(self) -> Sequence[_Token]:
        out, at, text = [], 0, self.text
        while at < len(text):
            if text[at] in " \n":
                at += 1
                continue
            mark = next((m for m in _MARKS if text.startswith(m, at)), "")
            end = at + len(mark)
            if text[at] == "'":
                end = at + 1
                while end < len(text) and text[end] in _QUOTED:
                    end += 1
                if end == len(text) or text[end] != "'" or not text[at + 1 : end].strip():
                    self._refuse(at, "a category between single quotes, of letters, digits and simple marks")
                out.append(_Token(text[at + 1 : end], at, quoted=True))
                at = end + 1
                continue
            if not mark:
                while end < len(text) and text[end] in _WORD:
                    end += 1
            if end == at:
                self._refuse(at, "words, numbers and ( ) , | < <= = != >= > alone")
            out.append(_Token(text[at:end], at))
            at = end
        return out

    def _refuse(self, at: int, expected: str) -> NoReturn:
        said = ascii(self.text[at : at + 30])[1:-1] or "the end of the text"
        raise UsageError(f"{self.where}: expected {expected}.", f"at character {at + 1}: {said}", "correct it there.")

    def fail(self, expected: str) -> NoReturn:
        """Say what was expected at the token that is next."""
        self._refuse(self.tokens[self.at].at if self.at < len(self.tokens) else len(self.text), expected)

    # -- tokens --------------------------------------------------------------------------------------------------------

    def peek(self, ahead: int = 0) -> str:
        """The text of a token ahead, nothing beyond the last one and for a quoted text."""
        at = self.at + ahead
        return "" if at >= len(self.tokens) or self.tokens[at].quoted else self.tokens[at].text

    def take(self) -> str:
        self.at += 1
        return self.tokens[self.at - 1].text

    def accept(self, *words: str) -> bool:
        """Whether these words are next; they are then read."""
        if all(self.peek(i) == word for i, word in enumerate(words)):
            self.at += len(words)
            return True
        return False

    def expect(self, *words: str) -> None:
        for word in words:
            if not self.accept(word):
                self.fail(f"`{word}`")

    def one_of(self, *words: str) -> str:
        if self.peek() not in words:
            self.fail(" or ".join(f"`{word}`" for word in words))
        return self.take()

    def count_part(self) -> None:
        self.parts += 1
        if self.parts > MOST_PARTS:
            self.fail(f"at most {MOST_PARTS} tests, events and codes")

    def deeper(self, read: Callable[[], T]) -> T:
        self.depth += 1
        if self.depth > MOST_DEPTH:
            self.fail(f"at most {MOST_DEPTH} levels of nesting")
        out = read()
        self.depth -= 1
        return out

    def number(self, lowest: float, highest: float, whole: bool = False) -> float:
        text = self.peek()
        unsigned = text.removeprefix("-")
        before, point, after = unsigned.partition(".")
        figures = bool(before) and set(before + after) <= _DIGITS and bool(after) == bool(point)
        if not figures or (whole and (point or unsigned != text)):
            self.fail("a whole number" if whole else "a number such as 48 or -0.5")
        if len(before + after) > MOST_DIGITS or not lowest <= float(text) <= highest:
            self.fail(f"a number of at most {MOST_DIGITS} digits, from {lowest:g} to {highest:g}")
        return float(self.take()) + 0.0  # -0 is 0

    def operator(self) -> Operator:
        return Operator(self.one_of(*Operator))

    def days(self) -> int:
        count = int(self.number(1, MOST_DAYS, whole=True))
        self.one_of("days", "day")
        return count

    # -- conditions ----------------------------------------------------------------------------------------------------

    def condition(self) -> Condition:
        parts = [self._both()]
        while self.accept("or"):
            parts.append(self._both())
        return parts[0] if len(parts) == 1 else Either(tuple(parts))

    def _both(self) -> Condition:
        parts = [self._negated()]
        while self.accept("and"):
            parts.append(self._negated())
        return parts[0] if len(parts) == 1 else Every(tuple(parts))

    def _negated(self) -> Condition:
        if self.accept("not"):
            return Not(self.deeper(self._negated))
        if self.accept("("):
            inside = self.deeper(self.condition)
            self.expect(")")
            return inside
        return self._test()

    def _test(self) -> Condition:
        self.count_part()
        if self.peek(1) in (*Operator, "is", "in"):  # before any word of the grammar: a column may have such a name
            return self._of_a_column()
        if self.accept("any"):
            return self._happened(1)
        if self.accept("no"):
            return Not(self._happened(1))
        if self.accept("at", "least"):
            return self._happened(int(self.number(1, MOST_COUNT, whole=True)))
        if self.accept("has", "genotypes"):
            return Genotyped()
        if self.accept("age", "at"):
            anchor = self.anchor()
            return Aged(anchor, self.operator(), self.number(0, MOST_YEARS))
        if self.accept("followed", "for"):
            return Followed(self.days(), Relation(self.one_of("before", "after")), self.anchor())
        self.fail("a condition, such as `age >= 40`, `any condition SNOMED:44054006+ before index` or `has genotypes`")

    def _of_a_column(self) -> Condition:
        column = self.peek()
        if not 0 < len(column) <= 40 or not set(column) <= _COLUMN or column in _WORDS_BETWEEN:
            self.fail("a column's name")
        self.take()
        if self.accept("is"):
            self.expect("missing")
            return Missing(column)
        if self.accept("in"):
            self.expect("(")
            found = [self._category()]
            while self.accept(","):
                found.append(self._category())
            self.expect(")")
            return Category(column, tuple(found))
        if self.peek() in ("=", "!=") and not self._number_is_next():
            other = self.take() == "!="
            return Category(column, (self._category(),), other)
        return Number(column, self.operator(), self.number(-1e12, 1e12))

    def _number_is_next(self) -> bool:
        word = self.peek(1)
        return bool(word) and set(word) <= _DIGITS | {"-", "."}

    def _category(self) -> str:
        self.count_part()
        if self.at < len(self.tokens) and self.tokens[self.at].quoted:
            return self.take()
        word = self.peek()
        if not word or not set(word) <= _LETTERS:
            self.fail("a category, in single quotes if it is not one word of letters")
        return self.take()

    def _happened(self, least: int) -> Happened:
        event = self._event(compared=True)
        return Happened(least, event, self._window())

    # -- events, windows, days -----------------------------------------------------------------------------------------

    def _event(self, compared: bool) -> Event:
        self.count_part()
        domain = Domain(self.one_of(*Domain))
        codes: list[Code] = []
        if ":" in self.peek():
            codes.append(self.code())
            while self.accept("|"):
                codes.append(self.code())
        if not (compared and self.peek() in tuple(Operator)):
            return Event(domain, tuple(codes))
        if domain not in WITH_RESULTS:
            self.fail(f"no comparison: an event with a result is a {' or '.join(WITH_RESULTS)}")
        operator, number = self.operator(), self.number(-1e12, 1e12)
        return Event(domain, tuple(codes), operator, number, self._unit())

    def _unit(self) -> str:
        word = self.peek()
        if word in ("before", "after", "on", "within", "and", "or", "") or word in _MARKS:
            return ""
        if len(word) > 20 or not set(word) <= _UNIT or not set(word[0]) <= _LETTERS | _DIGITS | {"%", "["}:
            self.fail("a unit's code in UCUM, such as mmol/mol")
        return self.take()

    def code(self) -> Code:
        """One code."""
        self.count_part()
        vocabulary, colon, code = self.peek().partition(":")
        descendants = code.endswith("+")
        code = code.removesuffix("+")
        if not (
            colon
            and 0 < len(vocabulary) <= 20
            and set(vocabulary) <= _COLUMN
            and vocabulary[0] in _LETTERS
            and 0 < len(code) <= 50
            and set(code) <= _CODE
            and {code[0], code[-1]} <= _LETTERS | _DIGITS
        ):
            self.fail("a code such as SNOMED:44054006, with + for all below it")
        self.take()
        return Code(vocabulary, code, descendants)

    def _window(self) -> Window | None:
        if self.peek() in ("before", "after", "on"):
            relation = Relation(self.take())
            return Window(relation, self.deeper(self.anchor))
        if self.accept("within"):
            days = self.days()
            relation = Relation(self.one_of("before", "after", "of"))
            return Window(relation, self.deeper(self.anchor), days)
        return None

    def anchor(self, compared: bool = False) -> Anchor:
        """A day; an event's result is compared where that can be meant alone."""
        if self.accept("("):
            inside = self.deeper(lambda: self.anchor(compared=True))
            self.expect(")")
            return inside
        for named in Named:
            if self.accept(*named.value.split()):
                return named
        if self.peek() in tuple(Which):
            which = Which(self.take())
            event = self._event(compared)
            return Occurrence(which, event, self._window())
        return Day(self._date())

    def _date(self) -> date:
        text = self.peek()
        if len(text) == 10 and text[4] == text[7] == "-" and set(text[:4] + text[5:7] + text[8:]) <= _DIGITS:
            try:
                found = date.fromisoformat(text)
            except ValueError:
                self.fail("a date that there is")
            if not 1800 <= found.year <= 2200:
                self.fail("a date from 1800 to 2200")
            self.take()
            return found
        self.fail("a day: index, birth, death, end of follow-up, a date such as 2020-01-31, or first or last <event>")

    # -- values --------------------------------------------------------------------------------------------------------

    def value(self) -> Value:
        """A derived column."""
        if self.accept("age", "at"):
            return Age(self.anchor())
        if self.accept("days", "from"):
            start = self.anchor()
            self.expect("to")
            ends = [self.anchor()]
            while self.accept("or"):
                ends.append(self.anchor())
            return Days(start, tuple(ends))
        if self.accept("whether"):
            return Whether(self.condition())
        if self.accept("count", "of"):
            event = self._event(compared=True)
            return Count(event, self._window())
        for taken in Taken:
            if self.accept(taken.value, "of"):
                event = self._event(compared=False)
                if event.domain not in WITH_RESULTS:
                    self.fail(f"a {' or '.join(WITH_RESULTS)}, which has a result")
                return Measured(taken, event, self._window())
        self.fail(
            "a value: `age at`, `days from`, `whether`, `count of`, or `first`, `last` or `mean of` a measurement"
        )

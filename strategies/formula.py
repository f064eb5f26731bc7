"""The right side of a regression, in a closed grammar that is parsed by hand; nothing in it is run.

    formula   =  item {"+" item} ["-" "1"]              - 1: no intercept
    item      =  "1" | crossed
    crossed   =  joined {"*" joined}                    a*b is a + b + a:b
    joined    =  atom {":" atom}                        a:b is the product
    atom      =  column
              |  column "^" whole number                2 to 5
              |  "log" "(" column ")"                   of a column whose public range is positive
              |  "spline" "(" column "," knots ")"      restricted cubic spline [1] with 3 to 10 public knots
              |  "C" "(" column ["," "ref" "=" "category"] ")"

A column's name that is not letters, digits, dots and underscores stands in backquotes. A column of categories is one
column for each category but the first, or but `ref`, which is 1 for the people of that category and else 0 (treatment
coding). Without an intercept the first factor that stands alone has a column for each of its categories.

Every term is a function of one person's values alone, and its bounds follow from the columns' public ranges: each of
its pieces is monotone, or an even power, and the pieces of a product are of different columns.

[1] Harrell: Regression Modeling Strategies, 2nd edition (2015), equations 2.24 and 2.25.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from itertools import combinations, pairwise, product
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from strategies.errors import UsageError

if TYPE_CHECKING:
    from strategies.analysis import Range

Floats = NDArray[np.float64]

MOST_CHARACTERS, MOST_TERMS, MOST_WAYS, MOST_CELLS = 2000, 60, 3, 1000
"""Of a formula; of its columns; of the columns of an interaction; of the combinations of its categories."""

POWERS, KNOTS = range(2, 6), range(3, 11)

LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_")
DIGITS = frozenset("0123456789")
SIGNS = frozenset("+-*:^(),=")


class How(StrEnum):
    """What becomes of a column."""

    ITSELF = "itself"
    POWER = "power"
    LOG = "log"
    SPLINE = "spline"
    FACTOR = "factor"


@dataclass(frozen=True)
class Atom:
    """A column in a formula.

    Attributes:
        numbers: the power, or the knots.
        reference: the category without a column of its own, if it is stated.
    """

    column: str
    how: How = How.ITSELF
    numbers: tuple[float, ...] = ()
    reference: str | None = None


@dataclass(frozen=True)
class Piece:
    """A function of one column.

    Attributes:
        label: its name.
        number: the power; which of a spline's columns, from 0; or the place of a category.
        knots: of a spline.
        low, high: its bounds over the column's public range.
    """

    label: str
    column: str
    how: How
    number: int
    knots: tuple[float, ...]
    low: float
    high: float

    def values(self, x: Floats) -> Floats:
        """(N,) of the column's (N,) values."""
        return _values(self.how, self.number, self.knots, x)


@dataclass(frozen=True)
class Term:
    """A product of functions of different columns: one column of a regression."""

    pieces: tuple[Piece, ...]

    @property
    def name(self) -> str:
        return ":".join(p.label for p in self.pieces)

    @property
    def bounds(self) -> tuple[float, float]:
        """Lowest and highest value over the public ranges."""
        low, high = 1.0, 1.0
        for p in self.pieces:
            ends = [a * b for a in (low, high) for b in (p.low, p.high)]
            low, high = min(ends), max(ends)
        return low, high

    def values(self, columns: Mapping[str, Floats]) -> Floats:
        """(N,) of the columns' (N,) values."""
        out = self.pieces[0].values(columns[self.pieces[0].column])
        for p in self.pieces[1:]:
            out = out * p.values(columns[p.column])
        return out


@dataclass(frozen=True)
class Terms:
    """What a formula is over the columns' public ranges.

    Attributes:
        intercept: whether there is one.
        terms: the others, in order.
        tables: the columns of categories whose combinations are cells of people: those of each factor or interaction
            that is in no larger one.
    """

    intercept: bool
    terms: tuple[Term, ...]
    tables: tuple[tuple[str, ...], ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Of all coefficients."""
        return ("(intercept)",) * self.intercept + tuple(term.name for term in self.terms)


@dataclass(frozen=True)
class Formula:
    """A formula as it is written.

    Attributes:
        intercept: whether there is one.
        products: the atoms of each term, in order; each term once.
    """

    intercept: bool
    products: tuple[tuple[Atom, ...], ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns, in the order in which they stand."""
        return tuple(dict.fromkeys(atom.column for atoms in self.products for atom in atoms))

    @property
    def knots(self) -> dict[str, tuple[float, ...]]:
        """Of each column the knots of its splines, ascending: the points that who writes the formula chooses.

        >>> parse("spline(age, 40, 50, 60) * sex").knots
        {'age': (40.0, 50.0, 60.0)}
        """
        found: dict[str, set[float]] = {}
        for atom in (atom for atoms in self.products for atom in atoms if atom.how is How.SPLINE):
            found.setdefault(atom.column, set()).update(atom.numbers)
        return {column: tuple(sorted(knots)) for column, knots in found.items()}

    def over(self, columns: Mapping[str, Range]) -> Terms:
        """Its terms over the columns' public ranges.

        Raises:
            UsageError: if a range does not allow what is asked of a column, or there are too many terms.
        """
        written = [frozenset(a.column for a in atoms) for atoms in self.products]
        pieces: dict[Atom, tuple[Piece, ...]] = {}
        full = not self.intercept
        terms: list[Term] = []
        factors: list[frozenset[str]] = []
        for atoms, own in zip(self.products, written, strict=True):
            for atom in atoms:
                if atom not in pieces:
                    whole = full and len(atoms) == 1 and bool(columns[atom.column].categories)
                    pieces[atom], full = _pieces(atom, columns[atom.column], whole), full and not whole
            grouped = [atom.column for atom in atoms if columns[atom.column].categories]
            if grouped:
                self._check_parts(own, written)
                factors.append(frozenset(grouped))
            terms += [Term(one) for one in product(*(pieces[atom] for atom in atoms))]
            if len(terms) > MOST_TERMS:
                raise UsageError(
                    f"A formula has at most {MOST_TERMS} columns, a category counting as one.",
                    f"more, at {':'.join(atom.column for atom in atoms):.80}",
                    "leave terms out, or join categories.",
                )
        largest = [f for f in dict.fromkeys(factors) if not any(f < other for other in factors)]
        for f in largest:
            if math.prod(len(columns[name].categories) for name in f) > MOST_CELLS:
                raise UsageError(
                    f"An interaction of categories has at most {MOST_CELLS:,} combinations of them.",
                    f"more, of {' and '.join(sorted(f)):.200}",
                    "join categories.",
                )
        return Terms(self.intercept, tuple(terms), tuple(tuple(sorted(f)) for f in largest))

    def _check_parts(self, own: frozenset[str], written: list[frozenset[str]]) -> None:
        """Assert that an interaction of categories has its parts beside it: without them it would need a column for
        each category, which is another model than the one that stands there."""
        for size in range(1, len(own)):
            for part in combinations(sorted(own), size):
                if frozenset(part) not in written or not self.intercept:
                    raise UsageError(
                        "An interaction of categories stands beside an intercept and each of its parts.",
                        f"{':'.join(sorted(own)):.80} without "
                        + (f"{':'.join(part):.80}" if self.intercept else "an intercept"),
                        "write a*b in the place of a:b, and leave - 1 out.",
                    )


# -- pieces -----------------------------------------------------------------------------------------------------------


def _values(how: How, number: int, knots: tuple[float, ...], x: Floats) -> Floats:
    if how is How.LOG:
        return np.log(np.ascontiguousarray(x))
    if how is How.POWER:
        out = x
        for _ in range(number - 1):
            out = out * x
        return out
    if how is How.FACTOR:
        return np.asarray(x == number, dtype=np.float64)
    if how is How.SPLINE and number:
        return _spline(number - 1, knots, x)
    return x


def _spline(j: int, knots: tuple[float, ...], x: Floats) -> Floats:
    """The j-th column of a restricted cubic spline beside x itself [1]: cubic between knots, linear beyond them, and
    never falling."""
    t, last, before = knots[j], knots[-1], knots[-2]
    a, b, c = (_cubed(np.maximum(x - knot, 0.0)) for knot in (t, before, last))
    out: Floats = (a - b * ((last - t) / (last - before)) + c * ((before - t) / (last - before))) / (
        last - knots[0]
    ) ** 2
    return out


def _cubed(x: Floats) -> Floats:
    return x * x * x


def _pieces(atom: Atom, span: Range, whole: bool) -> tuple[Piece, ...]:
    """The functions that an atom stands for.

    Args:
        whole: whether a factor has a column for each of its categories.
    """
    column, ends = atom.column, np.array([span.minimum, span.maximum])
    if span.categories and atom.how in (How.ITSELF, How.FACTOR):
        reference = span.categories[0] if atom.reference is None else atom.reference
        if reference not in span.categories:
            raise UsageError(
                "A factor's reference is one of the column's categories.",
                f"{reference!r:.80} of {column}: {span!s:.200}",
                "name one of these.",
            )
        return tuple(
            Piece(f"{column}[{name}]", column, How.FACTOR, place, (), 0.0, 1.0)
            for place, name in enumerate(span.categories)
            if whole or name != reference
        )
    if span.categories or atom.how is How.FACTOR:
        raise UsageError(
            "C(...) is of a column of categories; powers, log and splines are of columns of numbers.",
            f"{atom.how.value} of {column}: {span!s:.200}",
            "leave it out, or declare the column otherwise in the study's [columns].",
        )
    if atom.how is How.LOG and not span.minimum > 0:
        raise UsageError(
            "A logarithm is of a column whose public range is positive.",
            f"log({column}), {column} in {span}",
            "raise the lower end of the range, or take the column itself.",
        )
    if atom.how is How.SPLINE and not (span.minimum < atom.numbers[0] and atom.numbers[-1] < span.maximum):
        raise UsageError(
            "The knots of a spline lie within the column's public range.",
            f"{column} in {span}, knots {', '.join(f'{k:g}' for k in atom.numbers)}",
            "choose others.",
        )
    if atom.how is How.SPLINE:
        parts = [(f"spline({column})[{n + 1}]", n) for n in range(len(atom.numbers) - 1)]
    else:
        power = int(atom.numbers[0]) if atom.numbers else 0
        written = {How.LOG: f"log({column})", How.POWER: f"{column}^{power}"}
        parts = [(written.get(atom.how, column), power)]
    out = []
    for label, number in parts:
        knots = atom.numbers if atom.how is How.SPLINE else ()
        low, high = sorted(_values(atom.how, number, knots, ends).tolist())
        if atom.how is How.POWER and number % 2 == 0 and span.minimum < 0 < span.maximum:
            low = 0.0
        out.append(Piece(label, column, atom.how, number, knots, low, high))
    return tuple(out)


# -- reading ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Token:
    """A sign, or a "name", a "number", a "text", or the "end"; where it begins, from 1."""

    kind: str
    text: str
    at: int


def _tokens(text: str) -> Iterator[_Token]:
    i = 0
    while i < len(text):
        start, c = i, text[i]
        if c == " ":
            i += 1
        elif c in SIGNS:
            i += 1
            yield _Token(c, c, start + 1)
        elif c in '`"':
            end = text.find(c, i + 1)
            if end < 0:
                raise _wrong(text, start + 1, f"a {c} that is not closed")
            i = end + 1
            yield _Token("name" if c == "`" else "text", text[start + 1 : end], start + 1)
        elif c in LETTERS:
            while i < len(text) and text[i] in LETTERS | DIGITS | {"."}:
                i += 1
            yield _Token("name", text[start:i], start + 1)
        elif c in DIGITS or c == ".":
            while i < len(text) and (
                text[i] in DIGITS | {".", "e"} or (text[i] in "+-" and text[i - 1] == "e" and i > start)
            ):
                i += 1
            yield _Token("number", text[start:i], start + 1)
        else:
            raise _wrong(text, start + 1, f"the character {c!r}")
    yield _Token("end", "", len(text) + 1)


def _wrong(text: str, at: int, found: str, rule: str = "") -> UsageError:
    """What is said about a place in a formula."""
    near = text[max(at - 16, 0) : at + 15]
    return UsageError(
        rule or "A formula is columns, joined by +, * and :, with ^, log(...), spline(...), C(...) and - 1.",
        f"{found}, character {at}, in {near!r}",
        'write it like age + sex*bmi + age^2 + log(crp) + spline(age, 40, 50, 60) + C(smoking, ref = "never").',
    )


class _Reader:
    """Reads tokens from the first to the last."""

    def __init__(self, text: str) -> None:
        self.text, self.tokens, self.place = text, tuple(_tokens(text)), 0

    @property
    def next(self) -> _Token:
        return self.tokens[self.place]

    def wrong(self, wanted: str) -> UsageError:
        token = self.next
        found = "its end" if token.kind == "end" else repr(token.text)
        return _wrong(self.text, token.at, f"{found} where {wanted} is expected")

    def take(self, kind: str, wanted: str) -> str:
        token = self.next
        if token.kind != kind:
            raise self.wrong(wanted)
        self.place += 1
        return token.text

    def given(self, kind: str) -> bool:
        """Whether such a token is next, which is then taken."""
        there = self.next.kind == kind
        self.place += there
        return there

    def formula(self) -> Formula:
        intercept, products = True, dict[frozenset[Atom], tuple[Atom, ...]]()
        while True:
            if self.next.kind == "number":
                self.one()
            else:
                for atoms in self.crossed():
                    products.setdefault(frozenset(atoms), atoms)
            if self.given("-"):
                self.one()
                intercept = False
            if not self.given("+"):
                break
        if self.next.kind != "end":
            raise self.wrong("+ or an end")
        if not intercept and not products:
            raise _wrong(self.text, 1, "neither a column nor an intercept")
        return Formula(intercept, tuple(sorted(products.values(), key=len)))

    def one(self) -> None:
        if self.next.text != "1":
            raise self.wrong("1")
        self.place += 1

    def crossed(self) -> list[tuple[Atom, ...]]:
        start, parts = self.next.at, [self.joined()]
        while self.given("*"):
            parts.append(self.joined())
        out = []
        for size in range(1, len(parts) + 1):
            for chosen in combinations(parts, size):
                out.append(tuple(atom for part in chosen for atom in part))
        for atoms in out:
            names = [atom.column for atom in atoms]
            if len(set(names)) < len(names) or len(names) > MOST_WAYS:
                raise _wrong(
                    self.text,
                    start,
                    ":".join(names)[:80],
                    f"An interaction is of 2 to {MOST_WAYS} different columns.",
                )
        return out

    def joined(self) -> tuple[Atom, ...]:
        atoms = [self.atom()]
        while self.given(":"):
            atoms.append(self.atom())
        return tuple(atoms)

    def atom(self) -> Atom:
        quoted, name = self.text[self.next.at - 1 : self.next.at] == "`", self.take("name", "a column")
        if not quoted and self.given("("):
            return self.called(name)
        if self.given("^"):
            return Atom(name, How.POWER, (float(self.whole()),))
        return Atom(name)

    def called(self, function: str) -> Atom:
        if function not in ("log", "spline", "C"):
            self.place -= 2
            raise self.wrong("log(...), spline(...) or C(...)")
        column, numbers, reference = self.take("name", "a column"), list[float](), None
        while function == "spline" and self.given(","):
            numbers.append(self.number())
        if function == "spline" and (len(numbers) not in KNOTS or not all(a < b for a, b in pairwise(numbers))):
            raise _wrong(self.text, self.next.at, f"{len(numbers)} knots", "A spline has 3 to 10 knots, ascending.")
        if function == "C" and self.given(","):
            if self.take("name", "ref") != "ref":
                self.place -= 1
                raise self.wrong("ref")
            self.take("=", "=")
            reference = self.take("text", "a category in quotes")
        self.take(")", ")")
        return Atom(
            column, {"log": How.LOG, "spline": How.SPLINE, "C": How.FACTOR}[function], tuple(numbers), reference
        )

    def whole(self) -> int:
        token = self.next
        if token.kind != "number" or token.text not in map(str, POWERS):
            raise self.wrong(f"a whole power from {POWERS[0]} to {POWERS[-1]}")
        self.place += 1
        return int(token.text)

    def number(self) -> float:
        sign, token = -1.0 if self.given("-") else 1.0, self.next
        try:
            value = sign * float(self.take("number", "a number"))
        except ValueError:
            value = math.inf
        if not math.isfinite(value):
            raise _wrong(self.text, token.at, f"{token.text!r:.40} where a number is expected")
        return value


@lru_cache(maxsize=64)
def parse(text: str) -> Formula:
    """Read a formula.

    Raises:
        UsageError: if it is not of the grammar, with the place; or too long.

    >>> parse("age + sex*bmi - 1").columns
    ('age', 'sex', 'bmi')
    >>> [len(atoms) for atoms in parse("age^2 + sex:log(bmi) + 1").products]
    [1, 2]
    """
    if len(text) > MOST_CHARACTERS:
        raise UsageError(f"A formula has at most {MOST_CHARACTERS:,} characters.", f"{len(text):,}", "leave terms out.")
    return _Reader(text).formula()

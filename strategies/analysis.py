"""The contract of a statistic: needs, leaves, slices, summarise, conclude.

A question's analysis is a frozen dataclass. Its fields are public parameters, its methods are vetted code. What leaves
a site is a sum over people, so secure summing, noise, budget, wire, resumption and simulation are written once.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from typing import Any, ClassVar, Protocol, Self, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from strategies.codec import decode
from strategies.cohort import Cohort
from strategies.errors import UsageError
from strategies.formula import parse as parse_formula
from strategies.grammar import value_of
from strategies.privacy import Regime
from strategies.projection import GenotypeColumns, Projection
from strategies.selection import NO, YES, Age, Days, Measured, Value, Whether
from strategies.summary import Field, Summary
from strategies.variants import Panel

MOST_CATEGORIES = 1000

VARIANTS_PER_SLICE = 4096
"""A constant in code: a question is cut alike everywhere, whatever the machine."""


@dataclass(frozen=True)
class Part:
    """A public part of the people: those whose own draw falls in [start, stop). Drawn from identifier and salt alone,
    so nobody's part depends on anybody else, and releases over disjoint parts cost a person the larger of the two."""

    start: float = 0.0
    stop: float = 1.0
    salt: str = ""

    def holds(self, identifiers: Sequence[str]) -> NDArray[np.bool_]:
        """(N,) whether each person is in the part."""
        if (self.start, self.stop) == (0.0, 1.0):
            return np.ones(len(identifiers), dtype=bool)
        key = hashlib.sha256(b"genosum part v1\0" + self.salt.encode()).digest()
        draws = [hashlib.blake2b(i.encode(), key=key, digest_size=8).digest() for i in identifiers]
        at = np.array([int.from_bytes(d, "big") / 2**64 for d in draws])
        return (at >= self.start) & (at < self.stop)


@dataclass(frozen=True)
class Needs:
    """What one round reads: nothing else is opened.

    Attributes:
        columns: names of the columns; their public ranges stand in the study and within the node's policy. Whoever has
            a value in each of them takes part, and nobody else.
        optional: names of further columns, each told by itself, with who lacks a value in a cell of its own: lacking
            one keeps nobody out. An exact page withholds such a cell where it is small, and all that it follows from.
        panel: name of the panel whose genotypes are read, or None.
        part: which people.
        walked: whether the genotypes are walked block by block, so that they may stay in their file.
        dosages: whether the panel's dosages are read as well.
        matched: name of the panel that is matched to the site's variants; their genotypes are not read.
    """

    columns: tuple[str, ...] = ()
    panel: str | None = None
    part: Part = field(default_factory=Part)
    walked: bool = False
    dosages: bool = False
    matched: str | None = None
    optional: tuple[str, ...] = ()

    @property
    def opened(self) -> tuple[str, ...]:
        """All columns that are read."""
        return (*self.columns, *self.optional)


@dataclass(frozen=True)
class Range:
    """What is public about a column: the range to which a node clamps its values before an analysis sees them, and
    their unit; or the list of its categories, whose values are then the places in it.

    Attributes:
        minimum, maximum: in the unit; of categories 0 and their number less 1.
        ucum: the unit's code in UCUM, such as "mg/dL", or nothing for a number without one.
        categories: names of 2 to 1,000 categories, from place 0; a value that is none of them is missing.
        value: how the column is derived from a person's record, if it is no column of the people table.
    """

    minimum: float
    maximum: float
    ucum: str = ""
    categories: tuple[str, ...] = ()
    value: Value | None = None

    def __post_init__(self) -> None:
        if self.categories:
            if not 2 <= len(self.categories) <= MOST_CATEGORIES or len(set(self.categories)) < len(self.categories):
                raise ValueError(f"A column has 2 to {MOST_CATEGORIES:,} different categories.")
            if not all(0 < len(c) <= 80 and c.isprintable() and c == c.strip() for c in self.categories):
                raise ValueError("A category is 1 to 80 printable characters, none of them a space at an end.")
            if self.ucum or (self.minimum, self.maximum) != (0.0, len(self.categories) - 1.0):
                raise ValueError("Categories have no unit, and their values are their places from 0.")
        if self.value is not None:
            self._check_value(self.value)
        if not (len(self.ucum) <= 40 and self.ucum.isascii() and self.ucum.isprintable() and " " not in self.ucum):
            raise ValueError("A unit is a code of UCUM such as mg/dL.")
        half = (self.maximum - self.minimum) / 2
        widest = max(abs(self.minimum), abs(self.maximum), 1e-9)
        if not (math.isfinite(half) and half > 1e-9 * widest):  # narrower, and mapping it would lose its people
            raise ValueError(f"A range is wider than rounding, got [{self.minimum}, {self.maximum}].")

    def _check_value(self, value: Value) -> None:
        if self.categories != ((NO, YES) if isinstance(value, Whether) else ()):
            raise ValueError("A value with `whether` has the categories no and yes, and every other one a range.")
        own = {Age: "a", Days: "d"}.get(type(value), "")
        if not isinstance(value, Measured) and self.ucum not in ("", own):
            raise ValueError("Ages are in whole years, times in days, and counts have no unit.")

    @staticmethod
    def of(*categories: str) -> Range:
        """The public list of a column's categories."""
        return Range(0.0, len(categories) - 1.0, categories=categories)

    @staticmethod
    def from_plain(raw: Any, where: str) -> Range:
        """What a file says of a column: [lowest, highest], {range = [lowest, highest], unit = "mg/dL"}, or
        {categories = ["no", "yes"]}; and of a derived one {value = "age at index", range = [0, 120]}, or
        {value = "whether any drug ATC:A10A+"}, whose categories are no and yes.

        Raises:
            UsageError: for anything else.
        """
        try:
            if isinstance(raw, Mapping):
                shape = decode(_ColumnFile, raw, where)
                value = value_of(shape.value, f"{where}, value") if shape.value else None
                if isinstance(value, Whether) and not shape.range and shape.categories in ((), (NO, YES)):
                    return replace(Range.of(NO, YES), value=value)
                if shape.categories:
                    return replace(Range.of(*shape.categories), value=value)
                if not shape.range:
                    raise ValueError("a derived column that is not `whether` has a range [lowest, highest].")
                return Range(shape.range[0], shape.range[1], shape.unit, value=value)
            low, high = decode(_ColumnFile, {"range": raw}, where).range
            return Range(low, high)
        except ValueError as error:
            raise UsageError(f"{where}: {error}", "another value", "correct it.") from None

    def plain(self) -> list[float] | dict[str, Any]:
        """What a file would say."""
        if isinstance(self.value, Whether):
            return {"value": str(self.value)}
        if self.categories:
            return {"categories": list(self.categories)}
        span = [self.minimum, self.maximum]
        unit = {"unit": self.ucum} if self.ucum else {}
        if self.value is not None:
            return {"value": str(self.value), "range": span, **unit}
        return {"range": span, **unit} if unit else span

    def __str__(self) -> str:
        """
        >>> str(Range(20, 350, "mg/dL")), str(Range.of("never", "former", "current"))
        ('[20, 350] mg/dL', 'never, former, current')
        """
        if self.categories:
            return ", ".join(self.categories)
        return f"[{self.minimum:g}, {self.maximum:g}]" + f" {self.ucum}" * bool(self.ucum)

    def clamp(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Values within the range; NaN stays NaN."""
        return np.clip(values, self.minimum, self.maximum)

    def unit(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """The range mapped to [-1, 1]; beyond it, where a far and narrow range's middle is rounded, held at the end."""
        return np.clip((values - (self.minimum + self.maximum) / 2) / ((self.maximum - self.minimum) / 2), -1, 1)


@dataclass(frozen=True)
class _ColumnFile:
    range: tuple[float, ...] = ()
    unit: str = ""
    categories: tuple[str, ...] = ()
    value: str = ""

    def __post_init__(self) -> None:
        if (self.range and self.categories) or not (self.range or self.categories or self.value):
            raise ValueError("a column has a range [lowest, highest] or categories.")
        if self.range and (len(self.range) != 2 or not self.range[0] < self.range[1]):
            raise ValueError("a column's range is [lowest, highest].")
        if self.categories and self.unit:
            raise ValueError("categories have no unit.")


Span = slice | NDArray[np.int64]
"""Variants of a panel that are asked for together: a stretch of it, or those at some places, ascending."""


@dataclass(frozen=True)
class Frame:
    """What is public around a question: the panel (or the slice of it that is asked, and which number its first variant
    has in the panel) and the columns' ranges. Where variants are chosen one by one, `places` are their numbers."""

    panel: Panel | None = None
    columns: Mapping[str, Range] = field(default_factory=dict)
    start: int = 0
    places: NDArray[np.int64] | None = field(default=None, compare=False)

    def __getitem__(self, span: Span) -> Frame:
        panel = None if self.panel is None else self.panel[span]
        if not isinstance(span, slice):
            return Frame(panel, self.columns, self.start, span)
        return Frame(panel, self.columns, self.start + (span.start or 0))


@dataclass(frozen=True)
class Total:
    """What a coordinator concludes from: a sum over sites and what is publicly known about it.

    Attributes:
        sums: the totals, as integers on the grids of `leaves`.
        sites: names of the sites in the sum.
        noise: field -> standard deviation of the noise in each entry, in the field's unit; empty when exact.
        minimum_cell: fewest people in a cell that an exact answer shows: the strictest of study, policies, data sets.
    """

    sums: Summary
    sites: tuple[str, ...]
    noise: Mapping[str, float] = field(default_factory=dict)
    minimum_cell: int = 0


Column = NDArray[Any] | tuple[str, ...]


@dataclass(frozen=True)
class Answer:
    """A question's answer, ready to be written in the field's formats.

    Attributes:
        tables: name -> column -> values; a withheld number is NaN.
        facts: name -> number or text; a withheld number is NaN.
        withheld: rows that are withheld.
        model: parameters by name, if the question trained one.
    """

    tables: Mapping[str, Mapping[str, Column]]
    facts: Mapping[str, float | int | str]
    withheld: int = 0
    model: Mapping[str, NDArray[np.float32]] | None = None


NAMES_PANEL = {"names": "panel"}
"""Metadata of a parameter that names one of the study's panels."""

NAMES_COLUMN = {"names": "column"}
"""Metadata of a parameter that names one or more of the study's columns: of numbers, or of two categories, which count
as 0 and 1."""

NAMES_CATEGORIES = {"names": "column", "values": "categories"}
"""Metadata of a parameter that names one or more of the study's columns of categories."""

NAMES_ANY_COLUMN = {"names": "column", "values": "any"}
"""Metadata of a parameter that names one or more of the study's columns, of numbers or of categories."""

NAMES_GROUPS = {**NAMES_ANY_COLUMN, "splits": "codes"}
"""Metadata of a parameter that names columns by whose categories, or nearest whole numbers, people are told apart."""

NAMES_CASES = {**NAMES_COLUMN, "splits": "middle"}
"""Metadata of a parameter that names columns of who has something: whoever lies above the middle of the range."""

NAMES_COLUMNS_IN_FORMULA = {"names": "column", "values": "any", "formula": True}
"""Metadata of a parameter that is a formula, whose columns are the study's."""

NAMES_QUESTION = {"names": "question"}
"""Metadata of a parameter that names an earlier exact question about the same panel, or `question.table` of it."""


NAMES_OFFERING = {"names": "offering"}
"""Metadata of a parameter that names an earlier exact question with the same columns, all of whose offered columns the
analysis may read."""


def of_at_least(metadata: Mapping[str, str], variants: int) -> dict[str, Any]:
    """The metadata of a parameter that names a panel of at least so many variants."""
    return {**metadata, "variants": variants}


def stating(metadata: Mapping[str, str], column: str) -> dict[str, str]:
    """The metadata of a parameter that names a panel which has to state an optional column."""
    return {**metadata, "states": column}


DERIVED = {"derived": True}
"""Metadata of a parameter that follows from earlier totals and that a study cannot set. A node computes it anew."""

CARRIED = {"derived": True, "array": True, "carried": True}
"""Metadata of an array that follows from totals which are too large to be sent to every node. It travels in a request's
body in their place; a node holds it to what its page asks in `__post_init__` and `leaves`, and takes one for a round.
For exact questions alone. A page that has one counts its rounds in `taken`."""

KEPT = {"derived": True, "array": True}
"""Metadata of an array that stays at the coordinator between rounds."""


@runtime_checkable
class Analysis(Protocol):
    """The contract. An implementation is one page under `strategies/analyses` and one name in the catalogue.

    Attributes:
        analysis: the name by which a study asks for it.
        regime: the promise it keeps.
        by_site: whether its answer can be given for each site: in the private regime from parts with full noise each,
            in the exact one, if it takes one round, from parts in which each site withheld its own small cells.
        summary_in_words: one sentence for the data-access committee: what leaves.
    """

    analysis: ClassVar[str]
    regime: ClassVar[Regime]
    summary_in_words: ClassVar[str]

    @property
    def by_site(self) -> bool:
        """Whether its answer can be given for each site: see above."""
        ...

    def needs(self) -> Needs:
        """What this round reads."""
        ...

    def rounds(self) -> int:
        """The most rounds that the question, asked from its beginning, may take; signed with the study."""
        ...

    def fraction(self) -> float:
        """The fraction of the question's loss that this round spends; 0 in the exact regime."""
        ...

    def slices(self, frame: Frame) -> tuple[Span, ...]:
        """How this round is cut."""
        ...

    def leaves(self, frame: Frame) -> dict[str, Field]:
        """What leaves a site for one slice; `frame` holds the slice's variants."""
        ...

    def summarise(self, cohort: Cohort, frame: Frame) -> Summary:
        """What a site computes: the only line that sees people."""
        ...

    def withhold(self, sums: Summary, minimum_cell: int) -> Summary:
        """The sums with `WITHHELD` in the place of small cells and of all that they follow from; nothing that is
        concluded depends on what stood there. Private sums stay as they are: no floor looks at people."""
        ...

    def conclude(self, total: Total, frame: Frame) -> Answer | Self:
        """The answer, or the next round. The next round depends on the sums alone, so that nodes can check it."""
        ...


def by_variants(frame: Frame, smaller: int = 1) -> tuple[slice, ...]:
    """Cut a panel into slices of a constant number of variants, or of a constant part of it."""
    panel, most = frame.panel, VARIANTS_PER_SLICE // smaller
    assert panel is not None
    return tuple(slice(a, min(a + most, len(panel))) for a in range(0, len(panel), most))


WHOLE = (slice(None),)
"""The cut of a round that is asked in one piece."""


def check_within(page: object, *bounds: tuple[str, float, float]) -> None:
    """Assert that a page's numbers lie within bounds: name, lowest and highest.

    Raises:
        ValueError: if one does not.
    """
    for name, low, high in bounds:
        if not low <= getattr(page, name) <= high:
            raise ValueError(f"{name} must be from {low:g} to {high:g}.")


def parameters(analysis: Analysis) -> dict[str, Any]:
    """The public parameters of a round as plain data, in the order of the dataclass' fields; no arrays."""
    return {f: plain(getattr(analysis, f)) for f in _with(type(analysis), "array", there=False)}


def carries(page: type[Analysis]) -> bool:
    """Whether requests of its later rounds carry arrays in the place of the earlier totals."""
    return bool(_with(page, "carried"))


def carried(analysis: Analysis) -> dict[str, NDArray[Any]]:
    """The arrays that a round's requests carry."""
    return {f: getattr(analysis, f) for f in _with(type(analysis), "carried")}


def _with(page: type[Analysis], mark: str, there: bool = True) -> list[str]:
    """Names of the fields whose metadata have a mark, or have it not."""
    return [f.name for f in fields(page) if bool(f.metadata.get(mark)) == there]  # type: ignore[arg-type]


A = TypeVar("A", bound="Analysis")


def stated(asked: A, given: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> A:
    """The round of a question that a coordinator states: what the study set is as it was asked.

    Args:
        asked: the question as it stands in the study.
        given: the round's parameters as plain data.
        arrays: those that it carries, if it does.

    Raises:
        UsageError, ValueError: if they are not parameters of such a question's round.
    """
    page, before = type(asked), parameters(asked)
    if any(name not in given or given[name] != before[name] for name in _with(page, "derived", there=False)):
        raise ValueError("A round has its question's parameters.")
    if arrays and set(arrays) != set(_with(page, "carried")):
        raise ValueError("A round carries its own arrays.")
    out = decode(page, given, "the round", leave_out=frozenset(_with(page, "array")))
    return replace(out, **arrays) if arrays else out  # type: ignore[type-var]


NEARLY = 1e-9
"""Two machines' linear algebra may differ in the last bits of what follows from the same totals."""


def alike(one: Any, other: Any) -> bool:
    """Whether two plain values are the same but for the last bits of numbers that are no integers."""
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=NEARLY, abs_tol=NEARLY)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(alike, one, other))
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(alike(one[key], other[key]) for key in one)
    return type(one) is type(other) and bool(one == other)


@runtime_checkable
class Following(Analysis, Protocol):
    """An analysis that may read an earlier question's answer, at the coordinator and nowhere else."""

    @property
    def follows(self) -> str:
        """The earlier question's name, or nothing."""
        ...

    def after(self, answer: Answer, frame: Frame) -> Self:
        """The question once that one is answered: arrays that stay at the coordinator are filled in."""
        ...


@runtime_checkable
class Combining(Analysis, Protocol):
    """An exact analysis that is always asked for each site, and makes an answer over all from the sites' own."""

    def combine(self, answers: Mapping[str, Answer], frame: Frame) -> Answer:
        """The answer over all sites; it depends on the sites' answers alone."""
        ...


@runtime_checkable
class Offering(Analysis, Protocol):
    """An analysis whose answer lets each node compute columns of its own people, which later questions may name.

    The columns stay at the node: `question.column` is opened like a column of the table, within its range.
    """

    @property
    def offers(self) -> Mapping[str, Range]:
        """Names of the columns, and what is public about each."""
        ...

    def projection(self, answer: Answer, frame: Frame) -> Projection | GenotypeColumns:
        """How the columns are computed, from public numbers alone."""
        ...


@runtime_checkable
class Narrowing(Analysis, Protocol):
    """An exact analysis whose rounds go on only where enough people are; a node holds that to its own minimum."""

    @property
    def fewest(self) -> int:
        """The fewest people in what a further round is about."""
        ...


@runtime_checkable
class Cutting(Analysis, Protocol):
    """An exact analysis that tells people apart at points of a column which the study chooses. A node holds them
    against those of earlier answers: two that cut a column a little apart tell of the few people in between."""

    def cuts(self, frame: Frame) -> Mapping[str, tuple[float, ...]]:
        """Of each such column the points, ascending: who lies at one or above it counts otherwise than who lies below.
        The same in all rounds."""
        ...


PASSED = "cohort.passed"
"""The column that says how many steps of a question's cohort a person passed, from the first on: a category for none,
and one for each. Who is in the cohort passed all. A question that reads it is about everybody."""

PROJECTED = Range(-32.0, 32.0)
"""The public range of an offered column whose pooled standard deviation is about 1."""


def names_of(analysis: Analysis, kind: str) -> tuple[str, ...]:
    """The study's panels, columns or questions that a question's parameters name: `kind` is "panel", "column",
    "question" or "offering"."""
    out: list[str] = []
    for f in fields(analysis):  # type: ignore[arg-type]
        if f.metadata.get("names") == kind:
            out += named(getattr(analysis, f.name), f.metadata)
    return tuple(out)


def named(value: Any, metadata: Mapping[Any, Any]) -> tuple[str, ...]:
    """The names that a parameter of that metadata holds: one, several, none, or those in a formula."""
    if metadata.get("formula"):
        return parse_formula(value).columns
    return value if isinstance(value, tuple) else () if value is None else (value,)


def plain(value: Any) -> Any:
    """Tuples as lists, words of a closed set as text, all else as it is: what JSON gives back."""
    if isinstance(value, StrEnum):
        return value.value
    return [plain(v) for v in value] if isinstance(value, tuple) else value

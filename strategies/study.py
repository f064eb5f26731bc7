"""A study: what a researcher asks, as typed data. There is no field that could hold code."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from strategies.analysis import (
    PASSED,
    Frame,
    Range,
    names_of,
)
from strategies.codec import canonical, decode, parse, read_toml
from strategies.errors import UsageError
from strategies.expressions import MOST_COHORTS, check_codes, check_expression, check_selection
from strategies.grammar import selection_of
from strategies.protections.suppression import check_profile
from strategies.question import Question, is_name, offers, question_of
from strategies.selection import Reads, Selection, indexed, reads
from strategies.variants import ASSEMBLIES, Panel


class Purpose(StrEnum):
    """The purposes of Article 53(1) of Regulation (EU) 2025/327, (a) to (f)."""

    PUBLIC_HEALTH = "public_health"
    POLICY = "policy"
    OFFICIAL_STATISTICS = "official_statistics"
    EDUCATION = "education"
    SCIENTIFIC_RESEARCH = "scientific_research"
    IMPROVEMENT_OF_CARE = "improvement_of_care"


@dataclass(frozen=True)
class Study:
    """A file of questions.

    Attributes:
        title, purpose: what it is, and for which of the six purposes.
        assembly: the build of all its panels.
        minimum_sites: fewer answers than this end a question.
        minimum_cell: fewest people in a cell that its exact answers show, where no site asks for more.
        columns: the columns it reads, with what is public about each.
        cohorts: whom its questions may be about, by name.
        panels: the public lists of variants.
        questions: in the order in which they are asked.
    """

    title: str
    purpose: Purpose
    assembly: str
    minimum_sites: int
    columns: Mapping[str, Range]
    panels: Mapping[str, Panel]
    questions: tuple[Question, ...]
    minimum_cell: int = 0
    cohorts: Mapping[str, Selection] = field(default_factory=dict)

    @cached_property
    def document(self) -> bytes:
        """The study as canonical JSON, with each panel's digest in the place of its file."""
        cohorts = {"cohorts": {name: cohort.plain() for name, cohort in self.cohorts.items()}} if self.cohorts else {}
        return canonical(
            cohorts
            | {
                "title": self.title,
                "purpose": self.purpose.value,
                "assembly": self.assembly,
                "minimum_sites": self.minimum_sites,
                "minimum_cell": self.minimum_cell,
                "columns": {name: column.plain() for name, column in self.columns.items()},
                "panels": {name: {"sha256": panel.digest} for name, panel in self.panels.items()},
                "question": [q.plain() for q in self.questions],
            }
        )

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the document: one changed character is another study."""
        return _digest(self.document)

    def frame(self, question: Question) -> Frame:
        """What is public around a question."""
        names = names_of(question.analysis, "panel")
        named, offered = {name for name in names_of(question.analysis, "column") if "." in name}, dict[str, Range]()
        for source in self.sources(question):
            all_of_it = source.name in names_of(question.analysis, "offering")
            ranges = offers(source, question.regime)
            offered |= {name: span for name, span in ranges.items() if all_of_it or name in named}
        columns = {**self.columns, **offered}
        if (selection := self.selection(question)) is not None:
            steps = (f"{number}: {text}" for number, text in enumerate(("everybody", *selection.texts)))
            columns[PASSED] = Range.of(*(step[:80].strip() for step in steps))
        return Frame(self.panels[names[0]] if names else None, columns)

    def selection(self, question: Question) -> Selection | None:
        """The cohort that a question is about; None for everybody."""
        return self.cohorts[question.cohort] if question.cohort else None

    def derived(self, question: Question) -> dict[str, Range]:
        """The derived columns that a question reads, with the cohort's own index in the place of the word."""
        out, selection = {}, self.selection(question)
        for name in names_of(question.analysis, "column"):
            if name in self.columns and (value := self.columns[name].value) is not None:
                index = None if selection is None else selection.index
                out[name] = replace(self.columns[name], value=value if index is None else indexed(value, index))
        return out

    def derived_reads(self, question: Question) -> Reads:
        """What the derived columns of a question are derived from."""
        return reads(*(c.value for c in self.derived(question).values() if c.value is not None))

    def read_from_table(self, question: Question) -> tuple[str, ...]:
        """The columns of the people table that a question reads: by itself, through derived ones and for its cohort."""
        selection, derived = self.selection(question), self.derived(question)
        named = self.derived_reads(question).columns
        cohort = selection.reads.columns if selection else frozenset()
        own = [name for name in names_of(question.analysis, "column") if "." not in name and name not in derived]
        return (*own, *sorted((named | cohort) - set(own)))

    def sources(self, question: Question) -> tuple[Question, ...]:
        """The earlier questions whose offered columns a question reads."""
        names = {name.split(".")[0] for name in names_of(question.analysis, "column") if "." in name}
        names |= set(names_of(question.analysis, "offering"))
        return tuple(q for q in self.questions if q.name in names)

    def all_sources(self, question: Question) -> tuple[Question, ...]:
        """The earlier questions that a question's columns follow from, themselves or by others, each once, in order."""
        found, ahead = set[str](), [question]
        while ahead:
            for source in self.sources(ahead.pop()):
                if source.name not in found:
                    found.add(source.name)
                    ahead.append(source)
        return tuple(q for q in self.questions if q.name in found)

    def question(self, name: str) -> Question | None:
        """The question of that name, or None."""
        return next((q for q in self.questions if q.name == name), None)

    @staticmethod
    def read(path: Path) -> Study:
        """Read a study from a TOML file, with its panels from the files that it names.

        Raises:
            UsageError: for anything that is not as it must be.
        """
        raw = read_toml(path, "A study", "A study is a readable file.", "correct the path.")
        shape = decode(_StudyFile, raw, path.name)
        panels = {}
        for name, reference in shape.panels.items():
            source = decode(_PanelFile, reference, f"{path.name}, panel {name}")
            panels[name] = Panel.read(path.parent / source.file, shape.assembly)
        return _build(shape, panels, path.name)

    @staticmethod
    def from_document(document: bytes, panels: Mapping[str, bytes]) -> Study:
        """What a node does with a study that came over the wire: decode as strictly as a file, check each digest.

        Raises:
            UsageError: for anything that is not as it must be.
        """
        try:
            raw = parse(document)
        except ValueError:
            raise UsageError("A study's document is JSON.", "something else", "send a study.") from None
        shape = decode(_StudyFile, raw, "the study")
        if set(panels) != set(shape.panels):
            raise UsageError("A study travels with exactly its panels.", "others", "send those.")
        built = {}
        for name, reference in shape.panels.items():
            want = decode(_PanelDigest, reference, "the study's panel").sha256
            if _digest(panels[name]) != want:
                raise UsageError("A panel has the digest that the study states.", "another digest", "send that panel.")
            try:
                built[name] = _panel(panels[name], shape.assembly)
            except UnicodeDecodeError:
                raise UsageError("A panel is a text.", "something else", "send a panel.") from None
        return _build(shape, built, "the study")


@dataclass(frozen=True)
class _StudyFile:
    title: str
    purpose: Purpose
    assembly: str
    question: tuple[Mapping[str, Any], ...]
    minimum_sites: int = 3
    minimum_cell: int = 0
    columns: Mapping[str, Range] = field(default_factory=dict)
    panels: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    cohorts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 < len(self.title) <= 200 or not self.title.isprintable():
            raise ValueError("title must be 1 to 200 printable characters.")
        if self.assembly not in ASSEMBLIES:
            raise ValueError(f"assembly must be one of {', '.join(ASSEMBLIES)}.")
        if not 1 <= self.minimum_sites <= 100:
            raise ValueError("minimum_sites must be from 1 to 100.")
        check_profile(self.minimum_cell)
        if not 1 <= len(self.question) <= 100:
            raise ValueError("a study has 1 to 100 questions.")
        if not all(map(is_name, self.columns)):
            raise ValueError("a column's name is made of letters, digits, '_' and '-'.")
        if not all(map(is_name, self.panels)):
            raise ValueError("a panel's name is made of letters, digits, '_' and '-'.")
        if not all(map(is_name, self.cohorts)) or len(self.cohorts) > MOST_COHORTS:
            raise ValueError(f"a study has at most {MOST_COHORTS} cohorts, named by letters, digits, '_' and '-'.")


@dataclass(frozen=True)
class _PanelFile:
    file: str


@dataclass(frozen=True)
class _PanelDigest:
    sha256: str


@lru_cache(maxsize=4)
def _panel(text: bytes, assembly: str) -> Panel:
    """A panel, kept: a study is opened again after a restart, and by every site of a simulation."""
    return Panel.decode(text, assembly, "panel")


def _build(shape: _StudyFile, panels: Mapping[str, Panel], where: str) -> Study:
    cohorts = {name: selection_of(raw, f"{where}, cohort {name}") for name, raw in shape.cohorts.items()}
    for name, cohort in cohorts.items():
        check_selection(cohort, shape.columns, f"{where}, cohort {name}")
    for name, column in shape.columns.items():
        if column.value is not None:  # each question that reads it says whether there is an index
            check_expression(column.value, shape.columns, f"{where}, column {name}", index=True)
    check_codes(cohorts, shape.columns, where)
    questions: list[Question] = []
    for number, raw in enumerate(shape.question, start=1):
        questions.append(question_of(raw, number, shape.columns, panels, cohorts, tuple(questions), where))
    names = [q.name for q in questions]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise UsageError("The questions of a study have different names.", f"twice {', '.join(twice)}", "rename one.")
    study = Study(
        shape.title,
        shape.purpose,
        shape.assembly,
        shape.minimum_sites,
        shape.columns,
        panels,
        tuple(questions),
        shape.minimum_cell,
        cohorts,
    )
    for number, question in enumerate(questions, start=1):
        try:
            question.analysis.leaves(study.frame(question))  # what no site could declare is not sent to any
        except UsageError as error:
            raise UsageError(f"{where}, question {number}: {error.rule}", error.found, error.remedy) from None
    return study


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()

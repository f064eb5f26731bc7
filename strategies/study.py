"""A study: what a researcher asks, as typed data. There is no field that could hold code."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from strategies.analysis import (
    PASSED,
    Analysis,
    Combining,
    Frame,
    Offering,
    Range,
    named,
    names_of,
    parameters,
    plain,
)
from strategies.catalogue import CATALOGUE, NOT_PRIVATE, find
from strategies.codec import canonical, decode, parse, read_toml
from strategies.errors import UsageError
from strategies.expressions import MOST_COHORTS, check_expression, check_question, check_selection
from strategies.grammar import selection_of
from strategies.privacy import Budget, Loss, Regime, Unit
from strategies.protections import noise
from strategies.protections.suppression import check_profile
from strategies.selection import Reads, Selection, indexed, reads
from strategies.summary import Field
from strategies.variants import ASSEMBLIES, Panel

NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")

HONEST_SITES = 2
"""Sites that are assumed to keep their noise to themselves where study and policy say nothing else."""


class Purpose(StrEnum):
    """The purposes of Article 53(1) of Regulation (EU) 2025/327, (a) to (f)."""

    PUBLIC_HEALTH = "public_health"
    POLICY = "policy"
    OFFICIAL_STATISTICS = "official_statistics"
    EDUCATION = "education"
    SCIENTIFIC_RESEARCH = "scientific_research"
    IMPROVEMENT_OF_CARE = "improvement_of_care"


@dataclass(frozen=True)
class Question:
    """One question: an analysis with its public parameters.

    Attributes:
        budget: in the private regime, what it may cost each person.
        by_site: whether it is answered for each site as well. Private: beside the answer over all sites, from parts
            that carry full noise each. Exact: instead of it, since a total and all sites' parts but one give away what
            that one withheld.
        honest_sites: h, where a private answer is summed: the sites whose noise suffices. Each site adds variance
            sigma^2 / h, so the promise rests on h sites of the roster that keep their noise to themselves.
        cohort: name of the study's cohort that it is about, or nothing: everybody.
    """

    name: str
    analysis: Analysis
    budget: Budget | None = None
    by_site: bool = False
    honest_sites: int = HONEST_SITES
    cohort: str = ""

    @property
    def regime(self) -> Regime:
        return self.analysis.regime

    @property
    def summed(self) -> bool:
        """Whether the sites' parts are added under secure summing, so that nobody sees any one of them."""
        return not self.by_site

    @property
    def shares_noise(self) -> bool:
        """Whether each site adds a share of the noise, because nobody sees its part alone."""
        return self.summed and self.regime is Regime.PRIVATE

    def noise(self, analysis: Analysis, fields: Mapping[str, Field]) -> dict[str, float]:
        """Standard deviation of the noise that each site adds to each field in a round, in its unit; empty when exact.

        Raises:
            ValueError: if the noise would be wider, or a share of it narrower, than the sampler's integers hold.
        """
        if self.budget is None:
            return {}
        loss = Loss(self.budget.loss.rho * analysis.fraction())
        return noise.shares(fields, loss, self.honest_sites) if self.shares_noise else noise.scales(fields, loss)


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
                "question": [_question_document(q) for q in self.questions],
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
            ranges = _offers(source, question.regime)
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
    questions: list[Question] = []
    for number, raw in enumerate(shape.question, start=1):
        questions.append(_question(raw, number, shape.columns, panels, cohorts, tuple(questions), where))
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


def _question(
    raw: Mapping[str, Any],
    number: int,
    columns: Mapping[str, Range],
    panels: Mapping[str, Panel],
    cohorts: Mapping[str, Selection],
    earlier: tuple[Question, ...],
    where: str,
) -> Question:
    where = f"{where}, question {number}"
    keys = ("name", "analysis", "regime", "epsilon", "delta", "family", "by_site", "honest_sites", "cohort")
    head = {key: raw[key] for key in keys if key in raw}
    shape = decode(_QuestionHead, head, where)
    page = _page(shape.analysis, shape.regime, where)
    derived = frozenset(f.name for f in fields(page) if f.metadata.get("derived"))  # type: ignore[arg-type]
    rest = {key: value for key, value in raw.items() if key not in head}
    analysis = decode(page, rest, where, leave_out=derived)
    offered = {name: span for q in earlier for name, span in _offers(q, shape.regime).items()}
    _names_what_is_there(analysis, columns, panels, offered, where)
    _is_about_a_cohort(shape.cohort, analysis, cohorts, where)
    check_question(analysis, cohorts.get(shape.cohort), columns, where)
    budget = None
    if shape.regime is Regime.PRIVATE:
        if shape.epsilon is None or shape.delta is None:
            raise UsageError(f"{where}: a private question states epsilon and delta.", "one is missing", "add it.")
        try:
            budget = Budget(shape.epsilon, shape.delta, Unit(1 if shape.family is None else shape.family))
        except ValueError as error:
            raise UsageError(f"{where}: {error}", "another value", "correct it.") from None
    elif any(value is not None for value in (shape.epsilon, shape.delta, shape.family)):
        raise UsageError(
            f"{where}: an exact question spends no epsilon.", "epsilon, delta or family", "remove it or ask privately."
        )
    _comes_after(analysis, earlier, where)
    _has_its_offset(analysis, shape.cohort, earlier, where)
    _can_be_by_site(analysis, shape.by_site, where)
    if shape.honest_sites is not None and (budget is None or shape.by_site):
        raise UsageError(
            f"{where}: sites share noise where an answer is private and not by site.",
            "honest_sites, and no shared noise",
            "leave honest_sites out.",
        )
    honest = HONEST_SITES if shape.honest_sites is None else shape.honest_sites
    return Question(shape.name, analysis, budget, shape.by_site, honest, shape.cohort)


def _is_about_a_cohort(name: str, analysis: Analysis, cohorts: Mapping[str, Selection], where: str) -> None:
    if name and name not in cohorts:
        raise UsageError(
            f"{where}: a cohort stands in the study's [cohorts] table.",
            f"cohort = {name!r:.60}; there are: {', '.join(cohorts) or 'none'}",
            "define it there.",
        )
    if PASSED in analysis.needs().columns and not name:
        raise UsageError(
            f"{where}: {analysis.analysis} is about the steps of a cohort.", "no cohort", 'add cohort = "its name".'
        )


def _page(analysis: str, regime: Regime, where: str) -> type[Analysis]:
    """The page of the catalogue that a question asks for."""
    page = find(analysis, regime)
    if page is not None:
        return page
    if regime is Regime.PRIVATE and analysis in NOT_PRIVATE:
        raise UsageError(
            f"{where}: {analysis} has no private form: {NOT_PRIVATE[analysis]}.", "regime = private", "ask it exactly."
        )
    known = ", ".join(f"{a.analysis} ({a.regime})" for a in CATALOGUE)
    raise UsageError(
        f"{where}: an analysis must be in the catalogue: {known}.", f"{analysis!r:.60} ({regime})", "ask one of these."
    )


def _names_what_is_there(
    analysis: Analysis,
    columns: Mapping[str, Range],
    panels: Mapping[str, Panel],
    offered: Mapping[str, Range],
    where: str,
) -> None:
    """Assert that the panels and columns that a question names are the study's, and such as it is about."""
    for f in fields(analysis):  # type: ignore[arg-type]
        value, kind = getattr(analysis, f.name), f.metadata.get("names")
        known_names = {"panel": {*panels}, "column": {*columns, *offered}}.get(str(kind), set())
        for name in named(value, f.metadata) if kind in ("panel", "column") else ():
            if name not in known_names and kind == "column" and "." in name:
                raise UsageError(
                    f"{where}: a column with a dot is one that an earlier question offers; an exact question's column "
                    "is for exact questions alone.",
                    f"{f.name} = {name!r:.80}; offered: {', '.join(sorted(offered)) or 'none'}",
                    "correct the name, or ask that question before.",
                )
            if name not in known_names:
                raise UsageError(
                    f"{where}: a {kind} must stand in the study's [{kind}s] table.",
                    f"{f.name} = {name!r:.60}",
                    "declare it there.",
                )
            if kind == "column":
                _has_values(f.metadata.get("values", "numbers"), name, {**columns, **offered}, f"{where}, {f.name}")
        least = f.metadata.get("variants", 0)
        if kind == "panel" and len(panels[value]) < least:
            raise UsageError(
                f"{where}: {analysis.analysis} is about a panel of at least {least:,} variants.",
                f"{value!r:.60} has {len(panels[value]):,}",
                "name a longer one.",
            )
        states = f.metadata.get("states")
        if states is not None and states not in panels[value].states:
            raise UsageError(
                f"{where}: {analysis.analysis} reads a panel that states {states}.",
                f"panel {value!r:.60} does not",
                f"add a column {states} to it.",
            )


def _has_values(values: str, name: str, columns: Mapping[str, Range], where: str) -> None:
    """Assert that a column's values are of the kind that a parameter is about."""
    categories = columns[name].categories
    if values == "categories" and not categories:
        raise UsageError(
            f"{where}: a column of categories.",
            f"{name!r:.60} is of numbers",
            f'declare {name:.40} = {{categories = ["no", "yes"]}} in the study\'s [columns].',
        )
    if values == "numbers" and len(categories) > 2:
        raise UsageError(
            f"{where}: a column of numbers, or of two categories.",
            f"{name!r:.60} has {len(categories)}",
            "name another, or declare two categories.",
        )


def _offers(question: Question, regime: Regime) -> dict[str, Range]:
    """The columns that a question offers to later ones, by the names under which those read them, and their ranges.
    What follows from exact totals stays among exact questions."""
    if not isinstance(question.analysis, Offering) or (question.regime is Regime.EXACT and regime is Regime.PRIVATE):
        return {}
    return {f"{question.name}.{column}": span for column, span in question.analysis.offers.items()}


def _comes_after(analysis: Analysis, earlier: tuple[Question, ...], where: str) -> None:
    panel = names_of(analysis, "panel")
    able = [q.name for q in earlier if q.regime is Regime.EXACT and names_of(q.analysis, "panel") == panel]
    for name in names_of(analysis, "question"):
        if name.partition(".")[0] not in able:
            raise UsageError(
                f"{where}: it reads the answer of an earlier exact question about the same panel.",
                f"{name!r:.80}; there are: {', '.join(able) or 'none'}",
                "correct the name, or ask that question before.",
            )


def _has_its_offset(analysis: Analysis, cohort: str, earlier: tuple[Question, ...], where: str) -> None:
    able = {q.name: q for q in earlier if q.regime is Regime.EXACT and isinstance(q.analysis, Offering)}
    for name in names_of(analysis, "offering"):
        if name not in able:
            raise UsageError(
                f"{where}: an offset is what an earlier exact question offers.",
                f"{name!r:.60}; there are: {', '.join(able) or 'none'}",
                "correct the name, or ask that question before.",
            )
        here, there = (set(names_of(a, "column")) for a in (analysis, able[name].analysis))
        if here != there:
            raise UsageError(
                f"{where}: an offset is of the same traits and covariates, and so of the same people.",
                f"not in both: {', '.join(sorted(here ^ there))}",
                f"name the same columns here and in {name!r:.60}.",
            )
        if able[name].cohort != cohort:
            raise UsageError(
                f"{where}: an offset is of the same cohort.",
                f"{cohort or 'everybody'} here and {able[name].cohort or 'everybody'} there",
                f"name the same cohort here and in {name!r:.60}.",
            )


def _can_be_by_site(analysis: Analysis, by_site: bool, where: str) -> None:
    if isinstance(analysis, Combining) and not by_site:
        raise UsageError(
            f"{where}: this analysis is made of the sites' own answers.", "by_site = false", "set by_site = true."
        )
    if by_site and not analysis.by_site:
        able = ", ".join(f"{a.analysis} ({a.regime})" for a in CATALOGUE if a.by_site)
        raise UsageError(
            f"{where}: these analyses can be answered for each site: {able}.",
            f"{analysis.analysis} ({analysis.regime}) with by_site = true",
            "leave by_site out.",
        )


@dataclass(frozen=True)
class _QuestionHead:
    name: str
    analysis: str
    regime: Regime
    epsilon: float | None = None
    delta: float | None = None
    family: int | None = None
    by_site: bool = False
    honest_sites: int | None = None
    cohort: str = ""

    def __post_init__(self) -> None:
        if not is_name(self.name):
            raise ValueError("a question's name is 1 to 40 letters, digits, '_' and '-'.")
        if self.honest_sites is not None and not 1 <= self.honest_sites <= 100:
            raise ValueError("honest_sites must be from 1 to 100.")


def _question_document(question: Question) -> dict[str, Any]:
    derived = {f.name for f in fields(question.analysis) if f.metadata.get("derived")}  # type: ignore[arg-type]
    out: dict[str, Any] = {
        "name": question.name,
        "analysis": question.analysis.analysis,
        "regime": question.regime.value,
        "by_site": question.by_site,
    }
    if question.cohort:
        out["cohort"] = question.cohort
    if question.budget:
        budget = question.budget
        out |= {"epsilon": budget.epsilon, "delta": budget.delta, "family": budget.unit.people}
        if question.shares_noise:
            out["honest_sites"] = question.honest_sites
    return out | {key: plain(value) for key, value in parameters(question.analysis).items() if key not in derived}


def is_name(name: str) -> bool:
    """Whether a text is fit to name a question, a panel or a column: 1 to 40 letters, digits, '_' and '-'."""
    return 0 < len(name) <= 40 and set(name) <= NAME_CHARACTERS


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()

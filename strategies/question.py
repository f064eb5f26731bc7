"""One question of a study, and what must hold for it beside the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from strategies.analysis import PASSED, Analysis, Combining, Offering, Range, named, names_of, parameters, plain
from strategies.catalogue import CATALOGUE, NOT_PRIVATE, find
from strategies.codec import decode
from strategies.errors import UsageError
from strategies.expressions import check_question
from strategies.privacy import Budget, Loss, Regime, Unit
from strategies.protections import noise
from strategies.selection import Selection
from strategies.summary import Field
from strategies.variants import Panel

NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")

HONEST_SITES = 2
"""Sites that are assumed to keep their noise to themselves where study and policy say nothing else."""


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

    def plain(self) -> dict[str, Any]:
        """As in a study's document."""
        derived = {f.name for f in fields(self.analysis) if f.metadata.get("derived")}  # type: ignore[arg-type]
        out: dict[str, Any] = {
            "name": self.name,
            "analysis": self.analysis.analysis,
            "regime": self.regime.value,
            "by_site": self.by_site,
        }
        if self.cohort:
            out["cohort"] = self.cohort
        if self.budget:
            budget = self.budget
            out |= {"epsilon": budget.epsilon, "delta": budget.delta, "family": budget.unit.people}
            if self.shares_noise:
                out["honest_sites"] = self.honest_sites
        return out | {key: plain(value) for key, value in parameters(self.analysis).items() if key not in derived}


def question_of(
    raw: Mapping[str, Any],
    number: int,
    columns: Mapping[str, Range],
    panels: Mapping[str, Panel],
    cohorts: Mapping[str, Selection],
    earlier: tuple[Question, ...],
    where: str,
) -> Question:
    """A study's question from its table.

    Args:
        raw: the table.
        number: its place, from 1.
        columns, panels, cohorts: the study's.
        earlier: the questions before it.
        where: how errors name the study.

    Raises:
        UsageError: for anything that is not as it must be.
    """
    where = f"{where}, question {number}"
    keys = ("name", "analysis", "regime", "epsilon", "delta", "family", "by_site", "honest_sites", "cohort")
    head = {key: raw[key] for key in keys if key in raw}
    shape = decode(_QuestionHead, head, where)
    page = _page(shape.analysis, shape.regime, where)
    derived = frozenset(f.name for f in fields(page) if f.metadata.get("derived"))  # type: ignore[arg-type]
    rest = {key: value for key, value in raw.items() if key not in head}
    analysis = decode(page, rest, where, leave_out=derived)
    offered = {name: span for q in earlier for name, span in offers(q, shape.regime).items()}
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


def offers(question: Question, regime: Regime) -> dict[str, Range]:
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
        able = ", ".join(f"{a.analysis} ({a.regime})" for a in CATALOGUE if bool(a.by_site))
        raise UsageError(
            f"{where}: these analyses, exact ones in one round, can be answered for each site: {able}.",
            f"{analysis.analysis} ({analysis.regime}) with by_site = true",
            "leave by_site out.",
        )
    if by_site and analysis.rounds() > 1:
        raise UsageError(
            f"{where}: an answer for each site takes one round, as further ones follow from all sites together.",
            f"{analysis.rounds()} rounds with by_site = true",
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


def is_name(name: str) -> bool:
    """Whether a text is fit to name a question, a panel or a column: 1 to 40 letters, digits, '_' and '-'."""
    return 0 < len(name) <= 40 and set(name) <= NAME_CHARACTERS

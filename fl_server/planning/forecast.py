"""A study's plan: each question's rounds and what its answer is expected to be worth, before anything is spent."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from fl_server.planning import frequencies, model, power
from fl_server.planning.frequencies import FrequencyError
from fl_server.planning.model import AreaBand
from fl_server.planning.power import Power
from fl_server.planning.sites import Site
from fl_server.planning.steps import AGREEMENT_BYTES, START_S, Step, duration_s, steps
from strategies.analyses.allele_frequency import NoisedFrequency
from strategies.analyses.association import LinearAssociation
from strategies.analyses.genotype_counts import GenotypeCounts
from strategies.errors import UsageError
from strategies.evidence import GENOME_WIDE
from strategies.learning.train import PrivateTraining
from strategies.privacy import Loss, Regime
from strategies.question import Question
from strategies.study import Study
from strategies.version import package_version

FORMAT = "genosum plan 1"

Expected = FrequencyError | Power | AreaBand


@dataclass(frozen=True)
class Assumed:
    """What is assumed of a disease or trait, since no public number says it.

    Attributes:
        auc: area under the ROC curve of the best model that there is.
        cases: share of the people with the label.
        threshold: a level of significance beside the genome-wide one, or None.
    """

    auc: float = 0.75
    cases: float = 0.5
    threshold: float | None = None

    def __post_init__(self) -> None:
        if not 0.51 <= self.auc <= 0.99:
            raise UsageError(
                "The best model's area is assumed from 0.51 to 0.99.", f"--auc {self.auc:g}", "correct it."
            )
        if not 0.001 <= self.cases <= 0.999:
            raise UsageError(
                "The share of people with a label is assumed from 0.001 to 0.999.",
                f"--cases {self.cases:g}",
                "correct it.",
            )
        if self.threshold is not None and not 1e-30 <= self.threshold <= 0.5:
            raise UsageError(
                "A level of significance lies from 1e-30 to 0.5.", f"--threshold {self.threshold:g}", "correct it."
            )


@dataclass(frozen=True)
class Forecast:
    """One question's rounds and what to expect of its answer; None where nothing is foretold."""

    question: Question
    steps: tuple[Step, ...]
    expected: Expected | None
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """A study's plan.

    Attributes:
        sites: by name, as they are known.
        loss: of all questions together, per person at each site.
        delta: the largest of the questions'; None if all are exact.
    """

    study: Study
    sites: Mapping[str, Site]
    assumed: Assumed
    forecasts: tuple[Forecast, ...]
    loss: Loss
    delta: float | None

    @property
    def people(self) -> dict[str, int]:
        """Site -> its number of people."""
        return {name: site.people for name, site in self.sites.items()}

    @property
    def agreements(self) -> int:
        """How often a roster is agreed on: once for all exact questions that are summed, and for each private one."""
        exact = [question.regime is Regime.EXACT for question in self.study.questions if question.summed]
        return any(exact) + exact.count(False)

    @property
    def bytes(self) -> int:
        """About what leaves each site."""
        return sum(step.bytes for f in self.forecasts for step in f.steps) + AGREEMENT_BYTES * self.agreements

    @property
    def exchanges(self) -> int:
        """How often the sites are asked; a study is also opened and closed, and its roster agreed on."""
        return 2 + 2 * self.agreements + sum(step.exchanges for forecast in self.forecasts for step in forecast.steps)

    @property
    def duration_s(self) -> float:
        """About how long it takes, but for what the sites compute."""
        return START_S + duration_s(self.exchanges, self.bytes, len(self.sites))

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a researcher should know before the budget is spent."""
        out = [warning for forecast in self.forecasts for warning in forecast.warnings]
        for name, site in self.sites.items():
            left = site.left()
            if left is not None and left < self.loss:
                out.append(
                    f"{name} has rho {left.rho:.6f} left of the {self.loss.rho:.6f} that the study costs: "
                    "it will refuse the rest."
                )
        return tuple(out)


def plan(study: Study, sites: Mapping[str, Site], assumed: Assumed) -> Plan:
    """Foretell a study; nothing is asked of anybody."""
    people = {name: site.people for name, site in sites.items()}
    forecasts = tuple(_forecast(study, question, people, assumed) for question in study.questions)
    budgets = [q.budget for q in study.questions if q.budget]
    loss = Loss(sum(b.loss.rho for b in budgets))
    return Plan(study, sites, assumed, forecasts, loss, max((b.delta for b in budgets), default=None))


def _forecast(study: Study, question: Question, people: Mapping[str, int], assumed: Assumed) -> Forecast:
    frame, analysis, budget = study.frame(question), question.analysis, question.budget
    expected: Expected | None = None
    warnings: tuple[str, ...] = ()
    if isinstance(analysis, GenotypeCounts) and frame.panel is not None:
        expected = frequencies.exact(frame.panel, people)
    elif isinstance(analysis, NoisedFrequency) and budget is not None:
        expected = frequencies.noised(question, frame, people)
        if not question.by_site:
            expected = replace(expected, by_site={}, smallest_over_epsilon={})
        warnings = frequencies.warnings(question, frame, people)
    elif isinstance(analysis, LinearAssociation):
        levels = {GENOME_WIDE} | ({assumed.threshold} if assumed.threshold else set())
        expected = power.power(sum(people.values()), len(analysis.covariates), sorted(levels))
    elif isinstance(analysis, PrivateTraining) and budget is not None:
        expected = model.area_band(
            analysis, frame, budget, tuple(people.values()), assumed.auc, assumed.cases, question.honest_sites
        )
        if expected is not None and not expected.asked.interval[0] > 0.5:
            warnings = (f"{question.name}: the released AUC cannot be told from guessing with confidence.",)
    return Forecast(question, steps(study, question), expected, warnings)


def document(made: Plan) -> dict[str, Any]:
    """The plan as plain data; null where a number does not exist or is unknown."""
    return {
        "format": FORMAT,
        "version": package_version(),
        "title": made.study.title,
        "study": made.study.digest,
        "assumed": _plain(made.assumed),
        "sites": {name: _site(site) for name, site in made.sites.items()},
        "exchanges": made.exchanges,
        "seconds_without_computing": made.duration_s,
        "rho": made.loss.rho if made.delta else None,
        "epsilon": made.loss.epsilon(made.delta) if made.delta else None,
        "delta": made.delta,
        "questions": {f.question.name: _question(f) for f in made.forecasts},
        "warnings": list(made.warnings),
    }


def _site(site: Site) -> dict[str, Any]:
    left = site.left()
    return {
        "people": site.people,
        "people_assumed": site.assumed,
        "budget_rho": site.budget.loss.rho if site.budget else None,
        "spent_rho": site.spent.rho if site.spent else None,
        "left_rho": left.rho if left else None,
    }


def _question(forecast: Forecast) -> dict[str, Any]:
    budget = forecast.question.budget
    return {
        "analysis": forecast.question.analysis.analysis,
        "regime": forecast.question.regime.value,
        "epsilon": budget.epsilon if budget else None,
        "delta": budget.delta if budget else None,
        "rho": budget.loss.rho if budget else None,
        "rounds": [
            {
                "reads": [*step.columns, *([f"panel {step.panel}"] if step.panel else [])],
                "leaves": {name: list(field.shape) for name, field in step.fields.items()},
                "noise_sd": dict(step.noise),
                "exchanges": step.exchanges,
                "bytes_from_each_site": step.bytes,
            }
            for step in forecast.steps
        ],
        "expected": _plain(forecast.expected),
    }


def _plain(value: Any) -> Any:
    """Dataclasses and mappings as JSON's objects, NaN as null."""
    if hasattr(value, "__dataclass_fields__"):
        return {name: _plain(getattr(value, name)) for name in value.__dataclass_fields__}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

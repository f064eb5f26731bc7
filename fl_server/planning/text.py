"""A plan as it is printed: at most 100 columns."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence

from fl_server.planning.forecast import Expected, Forecast, Plan
from fl_server.planning.frequencies import Bin, FrequencyError
from fl_server.planning.model import AreaBand, Band
from fl_server.planning.power import EFFECTS, Power
from fl_server.planning.sites import Site
from fl_server.planning.steps import Step
from strategies.analysis import PASSED
from strategies.privacy import PERSON, Loss
from strategies.study import Study
from strategies.summary import Field
from strategies.wording import steps_told, told

WIDTH, INDENT = 100, " " * 11

ASSUMES = "variants that are independent of each other, in people in Hardy-Weinberg proportions"


def lines(made: Plan) -> list[str]:
    """The plan, line by line."""
    study = made.study
    out = [study.title]
    head = f"  for {study.purpose}, {study.assembly}, from at least {study.minimum_sites} sites, SHA-256"
    out += [head, f"  {study.digest}"]
    for number, forecast in enumerate(made.forecasts, start=1):
        out += [
            "",
            f"{number}. {forecast.question.name}: {forecast.question.analysis.analysis}, {forecast.question.regime}",
        ]
        out += _question(study, forecast, made.people)
    out += ["", *_sites(made)]
    out.append("")
    cost = f"; {_cost(made.loss, made.delta)} per person at each site" if made.delta else ""
    out += _wrapped("", f"All questions: {made.exchanges} exchanges{cost}.")
    out += _wrapped(
        "",
        f"About {_duration(made.duration_s)} besides the sites' own computing, as measured over four nodes on one "
        "machine; slower networks take longer.",
    )
    for warning in made.warnings:
        out += _wrapped("Warning: ", warning)
    return out


def _question(study: Study, forecast: Forecast, people: Mapping[str, int]) -> list[str]:
    question, steps = forecast.question, forecast.steps
    analysis = question.analysis
    columns = list(dict.fromkeys(name for step in steps for name in step.columns))
    ranges = study.frame(question).columns
    derived = {name: f" ({told(c.value)})" for name, c in study.derived(question).items() if c.value is not None}
    reads = [f"{name} {ranges[name]}{derived.get(name, '')}" for name in columns if name != PASSED]
    panels = dict.fromkeys(step.panel for step in steps if step.panel)
    for name in panels:
        aside = ", ".join(f"{n:,} {reason}" for reason, n in study.panels[name].set_aside.items())
        reads.append(
            f"{len(study.panels[name]):,} variants of panel {name}{f' (lines set aside: {aside})' * bool(aside)}"
        )
    out = []
    if (selection := study.selection(question)) is not None:
        everybody = any(PASSED in step.columns for step in steps)
        who = "everybody, by how many steps they pass" if everybody else "who passes all steps"
        out += _wrapped("   who     ", f"cohort {question.cohort}, {who}: {'; '.join(steps_told(selection))}")
    out += _wrapped("   reads   ", "; ".join(reads) or "nothing else")
    out += _wrapped("   leaves  ", analysis.summary_in_words)
    for rounds, step in _alike(steps):
        for name, field in step.fields.items():
            # In the exact regime a later round's grid follows from the first one's total: its bounds are not known yet.
            bounds = _bounds(field, step.noise.get(name)) if question.budget or step is steps[0] else ""
            shape = " x ".join(f"{n:,}" for n in field.shape) or "1"
            out += _wrapped(INDENT, f"{rounds}{name}, {shape}: {field.unit}{bounds}")
    if question.budget:
        each = " and for each site" if question.by_site else ""
        out += _wrapped("   costs   ", f"{_cost(question.budget.loss, question.budget.delta)} per person at each site")
        if question.shares_noise:
            words = f"on {question.honest_sites} sites that keep their share of the noise to themselves"
            out += _wrapped("   rests   ", f"{words}; another attempt, if a site is lost, costs as much again")
        if question.budget.unit != PERSON:
            out += _wrapped("   hides   ", f"a {question.budget.unit} together, at {question.budget}")
        out += _wrapped("   answers ", f"together{each}, for publication at that price")
    elif question.by_site:
        words = "no epsilon: exact parts of each site, without small cells, for the permit holder"
        out += _wrapped("   costs   ", words)
    else:
        out += _wrapped("   costs   ", "no epsilon: the exact total, for the permit holder, not for publication")
    count, most = sum(step.exchanges for step in steps), question.analysis.rounds()
    fewer = "" if len(steps) == most else f" in {len(steps)} rounds, or more: at most {most}"
    rounds = "" if most == 1 else fewer or f" in at most {most} rounds"
    size = sum(step.bytes for step in steps)
    out += _wrapped("   takes   ", f"{count} exchange{'s' * (count > 1)}{rounds}; about {_size(size)} from each site")
    return out + _expected(forecast.expected, people)


# -- what to expect -------------------------------------------------------------------------------------------------


def _expected(expected: Expected | None, people: Mapping[str, int]) -> list[str]:
    match expected:
        case FrequencyError():
            return _frequencies(expected, people)
        case Power():
            return _power(expected)
        case AreaBand():
            return _area(expected)
        case None:
            return _wrapped("   expect  ", "nothing is foretold for this analysis with these parameters")


def _frequencies(expected: FrequencyError, people: Mapping[str, int]) -> list[str]:
    columns: dict[str, tuple[Bin, ...]] = {}
    if expected.by_site:
        least, most = min(people, key=lambda s: people[s]), max(people, key=lambda s: people[s])
        columns = {f"{site}, {people[site]:,}": expected.by_site[site] for site in dict.fromkeys((least, most))}
    columns[f"total, {sum(people.values()):,}"] = expected.total
    widths = ", and in brackets the width of a 95 % interval" if expected.by_site else ""
    out = _wrapped("   expect  ", f"a root mean square error of a variant's frequency{widths}, for so many people")
    rows = [("minor allele", "variants", *columns)]
    for number, one in enumerate(expected.total):
        cells = [f"{b[number].rms:.4f}" + _bracket(b[number].width) for b in columns.values()]
        rows.append((f"to {one.to:g}", f"{one.variants:,}", *cells))
    return out + _table(rows)


def _bracket(width: float | None) -> str:
    return "" if width is None else f" ({width:.2f})"


def _power(expected: Power) -> list[str]:
    out: list[str] = []
    for level, found in expected.levels.items():
        out += _wrapped(
            "   expect  " if not out else INDENT,
            f"for {expected.people:,} people at p < {level:g}, in standard deviations of the trait given covariates",
        )
        effects = [f"power {EFFECTS[1]:g}", *(f"{b:g}" for b in EFFECTS[2:])]
        rows = [("minor allele", "SE of beta", "80 % from", "variance", *effects)]
        for r in found:
            least = (
                ("none", "") if r.detectable is None else (f"{r.detectable:#.3g}", f"{100 * (r.explained or 0):.2g} %")
            )
            rows.append(
                (f"{r.minor:g}", f"{r.standard_error:#.3g}", *least, *(f"{r.power[b]:.2f}" for b in EFFECTS[1:]))
            )
        out += _table(rows) if found else _wrapped(INDENT, "too few people for a regression")
    return out


def _area(expected: AreaBand) -> list[str]:
    asked = expected.asked
    out = _wrapped("   expect  ", f"a released AUC of {_band(asked)}; without any noise {_band(expected.noiseless)}")
    out += _wrapped(INDENT, f"the model itself, on all people there are: {asked.model:.2f}")
    if asked.missing >= 0.005:
        out += _wrapped(INDENT, f"no AUC at all, lost in noise, with probability {asked.missing:.2f}")
    others = [f"{epsilon:g}: {_band(b)}" for epsilon, b in expected.over_epsilon.items()]
    out += _wrapped(INDENT, f"by epsilon {'; '.join(others)}")
    return out + _wrapped(
        INDENT,
        f"assumed: the best model there is reaches {expected.auc:g}; {100 * expected.cases:g} % have the label; "
        f"effects spread evenly over {ASSUMES}",
    )


def _band(band: Band) -> str:
    if math.isnan(band.mean):
        return "none, lost in noise"
    return f"{band.mean:.2f} (95 %: {band.interval[0]:.2f} to {band.interval[1]:.2f})"


# -- sites ----------------------------------------------------------------------------------------------------------


def _sites(made: Plan) -> list[str]:
    rows = [("site", "people", "left of its budget")]
    rows += [
        (name, f"{site.people:,}{' ?' * site.assumed}", _left(site, made.delta)) for name, site in made.sites.items()
    ]
    out = _table(rows, "")
    if any(site.assumed for site in made.sites.values()):
        out += _wrapped(
            "", "?: no public number of people; --federation names a file that has them, --people assumes one."
        )
    return out


def _left(site: Site, delta: float | None) -> str:
    if site.budget is None:
        return "unknown until it is asked"
    budget = site.budget
    lifetime = f"lifetime epsilon {budget.epsilon:g} at delta {budget.delta:g} (rho {budget.loss.rho:.6f})"
    left = site.left()
    if left is None:
        return f"{lifetime}; what is spent is unknown"
    return f"{_cost(left, delta or budget.delta)}; {lifetime}"


# -- numbers --------------------------------------------------------------------------------------------------------


def _wrapped(first: str, text: str) -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent=first, subsequent_indent=INDENT if first else "  ", break_long_words=False
    )


def _table(rows: Sequence[tuple[str, ...]], indent: str = INDENT) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        (indent + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))).rstrip()
        for row in rows
    ]


def _alike(steps: Sequence[Step]) -> list[tuple[str, Step]]:
    """Rounds from which the same leaves, told once."""
    out: list[tuple[int, int, Step]] = []
    for number, step in enumerate(steps, start=1):
        if out and out[-1][2].fields == step.fields and out[-1][2].noise == step.noise:
            out[-1] = (out[-1][0], number, step)
        else:
            out.append((number, number, step))
    if len(steps) == 1:
        return [("", steps[0])]
    return [(f"round {a}: " if a == b else f"rounds {a} to {b}: ", step) for a, b, step in out]


def _bounds(field: Field, sd: float | None) -> str:
    noised = f"; noise of standard deviation {sd:.4g}" if sd is not None else ""
    return f"; one person changes it by at most {field.l1:.6g} (L1), {field.l2:.6g} (L2){noised}"


def _cost(loss: Loss, delta: float) -> str:
    return f"epsilon {loss.epsilon(delta):.4g} at delta {delta:g} (rho {loss.rho:.6f})"


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 10**6 else f"{max(1, round(count / 1e3))} kB"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} seconds" if seconds < 100 else f"{seconds / 60:.0f} minutes"

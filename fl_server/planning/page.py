"""A plan on disk: plan.json, and plan.html, one self-contained page with figures in the report's style."""

from __future__ import annotations

import json
import math
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from fl_server.planning import frequencies, model, power, text
from fl_server.planning.forecast import Forecast, Plan, document
from fl_server.planning.frequencies import Bin, FrequencyError
from fl_server.planning.model import AreaBand, Band
from fl_server.planning.power import Power
from fl_server.results.figures import Figure, figure
from fl_server.results.section import Table
from fl_server.results.words import NONE, count
from fl_server.results.words import power as ten
from strategies.version import package_version


def write(made: Plan, folder: Path) -> None:
    """Write a new folder, whole or not at all."""
    partly = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partly, ignore_errors=True)
    try:
        partly.mkdir(parents=True)
        (partly / "plan.json").write_text(json.dumps(document(made), indent=1) + "\n", encoding="utf-8")
        (partly / "plan.html").write_text(render(made), encoding="utf-8")
        partly.rename(folder)
    finally:
        shutil.rmtree(partly, ignore_errors=True)


def render(made: Plan) -> str:
    """The page as HTML."""
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(
            [jinja2.PackageLoader("fl_server.planning", "."), jinja2.PackageLoader("fl_server.results", ".")]
        ),
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["markup"] = Markup  # for drawings alone: matplotlib has escaped their texts
    return environment.get_template("plan.html.jinja").render(
        study=made.study,
        version=package_version(),
        purpose=made.study.purpose.value.replace("_", " "),
        words="\n".join(text.lines(made)),
        asked=_asked(made),
        sites=_sites(made),
        warnings=made.warnings,
        questions=[_question(forecast) for forecast in made.forecasts],
    )


def _asked(made: Plan) -> Table:
    rows = []
    for forecast in made.forecasts:
        question, budget = forecast.question, forecast.question.budget
        price = (f"{budget.epsilon:g}", ten(budget.delta), f"{budget.loss.rho:.4g}") if budget else (NONE, NONE, NONE)
        exchanges = sum(step.exchanges for step in forecast.steps)
        size = sum(step.bytes for step in forecast.steps)
        rows.append((question.name, question.regime.value, *price, count(exchanges), f"{count(size / 1000)} kB"))
    head = ("question", "regime", "ε", "δ", "rho", "exchanges", "from each site")
    return Table(
        "What each question costs a person at each site, and takes", head, tuple(rows), (False,) * 2 + (True,) * 5
    )


def _sites(made: Plan) -> Table:
    rows = []
    for name, site in made.sites.items():
        left = site.left()
        budget = NONE if site.budget is None else f"{site.budget.loss.rho:.4g}"
        people = count(site.people) + (" (assumed)" if site.assumed else "")
        rows.append((name, people, budget, "unknown" if left is None else f"{left.rho:.4g}"))
    return Table(
        "Sites, and what is known of their budgets, in rho", ("site", "people", "lifetime", "left"), tuple(rows),
        (False, True, True, True),
    )  # fmt: skip


def _question(forecast: Forecast) -> dict[str, Any]:
    question, expected = forecast.question, forecast.expected
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()
    epsilon = question.budget.epsilon if question.budget else math.nan
    match expected:
        case FrequencyError():
            tables = (_errors(expected),)
            for where, curve in (("total", expected.over_epsilon), ("smallest", expected.smallest_over_epsilon)):
                if curve:
                    caption = "Error over epsilon, all sites together." if where == "total" else "At the smallest site."
                    draw = partial(frequencies.draw_errors, curve, epsilon)
                    figures += (figure(f"{question.name}-{where}", caption, draw),)
        case Power():
            for level, rows in expected.levels.items():
                tables += (_power(level, rows),)
                figures += (
                    figure(
                        f"{question.name}-power-{level:g}",
                        f"Power at p < {level:g}.",
                        partial(power.draw_power, expected, level),
                    ),
                    figure(
                        f"{question.name}-detectable-{level:g}",
                        "The effect that is found with 80 % power, over people.",
                        partial(power.draw_detectable, expected, level),
                    ),
                )
        case AreaBand():
            tables = (_areas(expected),)
            figures = (
                figure(
                    f"{question.name}-epsilon", "AUC over epsilon.", partial(model.draw_over_epsilon, expected, epsilon)
                ),
                figure(f"{question.name}-people", "AUC over people.", partial(model.draw_over_people, expected)),
            )
        case None:
            pass
    return {
        "name": question.name,
        "analysis": question.analysis.analysis.replace("_", " "),
        "regime": question.regime.value,
        "figures": figures,
        "tables": tables,
    }


def _errors(expected: FrequencyError) -> Table:
    columns = {"total": expected.total, **expected.by_site}
    rows = [
        (f"to {b.to:g}", count(b.variants), *(_error(c[i]) for c in columns.values()))
        for i, b in enumerate(expected.total)
    ]
    widths = ", and width of a 95 % interval" if expected.by_site else ""
    return Table(
        f"Expected root mean square error of a frequency{widths}", ("minor allele frequency", "variants", *columns),
        tuple(rows), (False, *(True,) * (len(columns) + 1)),
    )  # fmt: skip


def _error(one: Bin) -> str:
    return f"{one.rms:.4f}" + ("" if one.width is None else f"\n{one.width:.2f}")


def _power(level: float, rows: tuple[power.Row, ...]) -> Table:
    cells = tuple(
        (
            f"{r.minor:g}",
            f"{r.standard_error:#.3g}",
            NONE if r.detectable is None else f"{r.detectable:#.3g}",
            NONE if r.explained is None else f"{100 * r.explained:.2g} %",
            *(f"{p:.2f}" for p in r.power.values()),
        )
        for r in rows
    )
    effects = tuple(f"power at {b:g}" for b in power.EFFECTS)
    head = ("minor allele frequency", "standard error", "found with 80 %", "variance explained", *effects)
    return Table(
        f"Association at p < {ten(level)}, in standard deviations given covariates", head, cells, (True,) * len(head)
    )


def _areas(expected: AreaBand) -> Table:
    rows: list[tuple[str, Band]] = [("without any noise", expected.noiseless)]
    rows += [(f"epsilon {e:g}", band) for e, band in expected.over_epsilon.items()]
    cells = tuple((name, *_band(band)) for name, band in rows)
    caption = (
        f"Released AUC of {count(expected.people)} people, if the best model there is reaches {expected.auc:g} and "
        f"{100 * expected.cases:g} % have the label"
    )
    return Table(caption, ("", "expected", "95 % band", "the model itself"), cells, (False, True, True, True))


def _band(band: Band) -> tuple[str, str, str]:
    if math.isnan(band.mean):
        return NONE, "lost in noise", f"{band.model:.2f}"
    low, high = band.interval
    return f"{band.mean:.2f}", f"{low:.2f}–{high:.2f}", f"{band.model:.2f}"

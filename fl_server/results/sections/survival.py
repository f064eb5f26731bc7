"""Times until an event in the report: survival curves, hazard ratios, competing causes."""

from __future__ import annotations

from functools import partial

import numpy as np

from fl_server.conduct import Result
from fl_server.results.figures import Size, figure
from fl_server.results.section import Section, Table, in_short, people_of
from fl_server.results.words import between, count, fixed, floats, listed, number, power, short
from strategies.analyses.competing_risks import draw_incidence
from strategies.analyses.cox import Baseline, draw_hazards
from strategies.analyses.survival import draw_curves
from strategies.analysis import parameters

TIMES = 6
"""At which incidences are listed."""


def curves(result: Result) -> Section:
    """Kaplan-Meier curves, exact or noised."""
    answer, name, facts, private = result.answer, result.question.name, result.answer.facts, result.question.budget
    asked, table = parameters(result.question.analysis), answer.tables["groups"]
    columns = ("people", "events", "median", "median_low_95", "median_high_95", "restricted_mean")
    people, events, median, low, high, mean = (floats(table[c]) for c in columns)
    rows = tuple(
        (
            str(group),
            count(people[i]),
            count(events[i]),
            short(median[i], 4),
            f"{short(low[i], 4)} to {short(high[i], 4)}",
            short(mean[i], 4),
        )
        for i, group in enumerate(table["group"])
    )
    until = short(number(facts, "restricted_at"), 4)
    head = ("", "people", "events", "median", "its 95 % interval", f"mean up to {until}")
    groups = Table(f"{asked['event']} by {asked['by'] or 'nobody'}", head, rows, (False, *(True,) * 5))
    short_rows = [("people", count(people_of(result)))]
    if private:
        short_rows += [
            ("noise of each cell (SD)", short(number(facts, "cell_noise_sd"), 3)),
            ("noise of the number of people (SD)", short(number(facts, "people_noise_sd"), 3)),
            ("intervals", count(number(facts, "intervals"))),
        ]
    else:
        degrees = count(number(facts, "log_rank_degrees"))
        within = f", within {asked['strata']}" if asked["strata"] else ""
        short_rows += [
            ("events", count(number(facts, "events"))),
            ("intervals shown, after small ones were joined", count(number(facts, "intervals_shown"))),
            ("of", count(number(facts, "intervals"))),
            (f"log-rank χ²{within}", short(number(facts, "log_rank_chi2"), 4)),
            ("degrees of freedom", degrees),
            ("p", power(number(facts, "log_rank_p_value"))),
        ]
    shown = list(dict.fromkeys(answer.tables["survival"]["group"]))
    caption = f"Part of people without {asked['event']}, with 95 % intervals; below, how many are at risk."
    size = 290 + 24 * max(len(shown), 1)
    drawn = figure(f"{name}-curves", caption, partial(draw_curves, answer), Size(720, size), Size(352, size))
    lead = f"{asked['time']} until {asked['event']}, {count(people_of(result))} people in all"
    lead += f", by {asked['by']}." if asked["by"] else "."
    return Section(f"Survival until {asked['event']}", lead, (drawn,), (in_short(*short_rows), groups))


def hazards(result: Result) -> Section:
    """A Cox regression."""
    answer, name, facts = result.answer, result.question.name, result.answer.facts
    asked, table = parameters(result.question.analysis), answer.tables["coefficients"]
    beta, error, ratio, low, high, p = (
        floats(table[c]) for c in ("coefficient", "standard_error", "hazard_ratio", "low_95", "high_95", "p_value")
    )
    head = ("term", "coefficient", "standard error", "hazard ratio", "95 % interval", "p")
    rows = tuple(
        (
            str(term),
            short(beta[i], 4),
            short(error[i], 3),
            fixed(ratio[i], 3),
            between(low[i], high[i], 3),
            power(p[i]),
        )
        for i, term in enumerate(table["term"])
    )
    terms = Table("Hazard ratios, all terms together", head, rows, (False, *(True,) * 5))
    whose = "each site has its own" if asked["baseline"] == Baseline.SITE.value else "one for all sites"
    if asked["strata"]:
        whose += f", one for each {asked['strata']}"
    beside = in_short(
        ("people with every column", count(number(facts, "people"))),
        ("events", count(number(facts, "events"))),
        ("baseline hazard", whose),
        ("estimate", str(facts["fit"])),
        ("intervals shown, after small ones were joined", count(number(facts, "intervals_shown"))),
        ("likelihood ratio χ²", short(number(facts, "likelihood_ratio_chi2"), 4)),
        ("degrees of freedom", count(number(facts, "degrees"))),
        ("p", power(number(facts, "likelihood_ratio_p_value"))),
        ("p of hazards that are not proportional", power(number(facts, "proportional_p_value"))),
    )
    caption = f"Hazard ratios of {asked['event']} with 95 % intervals."
    size = Size(352, 110 + 26 * max(len(rows), 1))
    drawn = figure(f"{name}-hazards", caption, partial(draw_hazards, answer), size)
    lead = f"How the hazard of {asked['event']} goes with {listed(asked['covariates'])}"
    lead += f"; the estimate: {facts['fit']}."
    return Section(f"Hazard ratios of {asked['event']}", lead, (drawn,), (terms,), beside)


def causes(result: Result) -> Section:
    """Cumulative incidences of competing causes."""
    answer, name, facts = result.answer, result.question.name, result.answer.facts
    asked, table, groups = parameters(result.question.analysis), answer.tables["incidence"], answer.tables["groups"]
    time, height, low, high = (floats(table[c]) for c in ("time", "incidence", "low_95", "high_95"))
    cause, group = np.asarray(table["cause"]), np.asarray(table["group"])
    rows = []
    for one in dict.fromkeys(table["cause"]):
        for other in dict.fromkeys(table["group"]):
            mine = np.flatnonzero((cause == one) & (group == other))
            for i in mine[np.linspace(0, len(mine) - 1, min(TIMES, len(mine))).astype(np.int64)].tolist():
                rows.append((str(one), str(other), short(time[i], 4), fixed(height[i], 3), between(low[i], high[i], 3)))
    told = Table(
        "Cumulative incidence at some times",
        ("cause", "group", asked["time"], "incidence", "95 % interval"),
        tuple(rows),
        (False, False, True, True, True),
    )
    names = [n for n in groups if n not in ("group", "withheld")]
    people = Table(
        "People by how they left",
        ("group", *(n.replace("events_", "") for n in names)),
        tuple((str(g), *(count(floats(groups[n])[i]) for n in names)) for i, g in enumerate(groups["group"])),
        (False, *(True,) * len(names)),
    )
    caption = f"Part of people who have had each {asked['outcome']}, with 95 % intervals."
    drawn = figure(f"{name}-incidence", caption, partial(draw_incidence, answer), Size(720, 300), Size(352, 300))
    lead = f"{asked['outcome']} by {asked['time']}, {count(number(facts, 'people'))} people; "
    lead += f"{count(number(facts, 'intervals_shown'))} of {count(number(facts, 'intervals'))} intervals are shown, "
    lead += "after small ones were joined."
    return Section(f"Competing causes: {asked['outcome']}", lead, (drawn,), (told, people))

"""How sites' variants match a panel, in the report."""

from __future__ import annotations

from functools import partial

import numpy as np

from fl_server.conduct import Result
from fl_server.results.figures import Size, figure
from fl_server.results.section import Section, Table, in_short
from fl_server.results.words import count, fixed, floats
from strategies.analyses.match_rates import draw_rates, rates
from strategies.analyses.panel_matching import WAYS, draw_found


def counted(result: Result) -> Section:
    """At how many sites each variant was found, summed."""
    answer, name, facts = result.answer, result.question.name, result.answer.facts
    table = answer.tables["matches"]
    found, ways = floats(table["found"]), {way: floats(table[way]) for way in WAYS}
    short = in_short(
        ("people", count(float(facts["people"]))),
        ("variants asked", count(facts["variants"])),
        ("found at every site", count(facts["found_everywhere"])),
        ("found at no site", count(facts["found_nowhere"])),
        ("withheld: one or two sites found it, or did not", count(answer.withheld)),
        ("of those shown, the way withheld", count(np.count_nonzero(table["ways_withheld"]) - answer.withheld)),
    )
    rows = tuple(
        (way.replace("_", " "), *(count(number) for number in (np.nansum(sites), np.count_nonzero(sites > 0))))
        for way, sites in ways.items()
    )
    head = ("way", "times, over sites and variants", "variants")
    ways_shown = Table("Where the ways are shown", head, rows, (False, True, True))
    caption = "Variants by the number of sites that found them. Nothing is shown of one or two sites."
    drawn = figure(f"{name}-found", caption, partial(draw_found, answer))
    shown = int(np.isfinite(found).sum())
    lead = f"How the variants of {len(result.statement.sites)} sites match a panel: shown for {count(shown)} of "
    lead += f"{count(facts['variants'])}. Whose variants these are, nobody saw."
    return Section("Match of the panel", lead, (drawn,), (ways_shown,), short)


def by_site(result: Result) -> Section:
    """What percentage of a panel each site found."""
    answers, name = result.by_site, result.question.name
    rows = tuple((site, *(fixed(percent, 0) for percent in ways.values())) for site, ways in rates(answers).items())
    head = ("site", *(way.replace("_", " ") for way in WAYS))
    table = Table("Per cent of the panel's variants, rounded to 1 %", head, rows, (False, *(True,) * len(WAYS)))
    height = 80 + 30 * len(answers)
    caption = "What each site found of the panel in any way; each way is rounded to 1 % before it leaves."
    drawn = figure(f"{name}-rates", caption, partial(draw_rates, answers), Size(720, height), Size(352, height))
    variants = next((one.facts["variants"] for one in answers.values()), 0)
    lead = (
        f"How much of a panel of {count(variants)} variants {len(answers)} sites found, where their policies tell it."
    )
    return Section("Match of the panel by site", lead, (drawn,), (table,))

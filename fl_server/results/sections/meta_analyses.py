"""A meta-analysis in the report: evidence, and the leading variants country by country."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np

from fl_server.conduct import Result
from fl_server.results.figures import Figure, Size, figure
from fl_server.results.section import Section, Table, people_of
from fl_server.results.sections.associations import adjusted, evidence
from fl_server.results.words import count, fixed, floats, listed, percent, power, variant
from strategies.analyses.meta_analysis import draw_forest
from strategies.analysis import Column
from strategies.evidence import leads

TRAITS_DRAWN, LEADS = 2, 4
"""Traits with figures, and of each so many variants that lie apart."""


def combined(result: Result) -> Section:
    """Each site's own regressions, and what they combine to."""
    answer, by_site = result.answer, result.by_site
    figures: list[Figure] = []
    tables: list[Table] = []
    for trait, table in list(answer.tables.items())[:TRAITS_DRAWN]:
        figures += evidence(result.question.name, trait, table)
        for number, row in enumerate(leads(table, LEADS), start=1):
            figures.append(_forest(result, trait, row, number))
        tables.append(_leading(trait, table))
    sites = Table(
        "Each site's own part",
        ("site", "people", "fit", "rows withheld"),
        tuple(
            (site, count(one.facts.get("people")), str(one.facts.get("fit", "")), count(one.withheld))
            for site, one in by_site.items()
        ),
        (False, True, False, True),
    )
    several = sum(int(np.count_nonzero(np.asarray(table["sites"]) > 1)) for table in answer.tables.values())
    lead = f"Each of {len(by_site)} sites fitted its own linear regression of {listed(answer.tables)} on each variant"
    lead += f"{adjusted(result)}; {count(people_of(result))} people in all. {count(several)} estimates of at least "
    lead += "two sites were combined, with fixed and with random effects."
    return Section(f"Meta-analysis of {listed(answer.tables)}", lead, tuple(figures), (*tables, sites))


def _forest(result: Result, trait: str, row: int, number: int) -> Figure:
    table = result.answer.tables[trait]
    q, p, i2 = (floats(table[name])[row] for name in ("q", "q_p_value", "i2"))
    caption = f"{trait}, {variant(table, row)}: each site (square) and both combinations (diamond). "
    caption += f"Q = {fixed(q, 2)} (p = {power(p)}), I² = {percent(i2, 0)}."
    size = Size(352, 84 + 26 * (len(result.by_site) + 2))
    draw = partial(draw_forest, result.answer, result.by_site, trait, row)
    return figure(f"{result.question.name}-{trait}-forest-{number}", caption, draw, size)


def _leading(trait: str, table: Mapping[str, Column]) -> Table:
    names = ("beta", "standard_error", "p_value", "p_value_random", "q_p_value", "i2", "sites")
    beta, error, p, p_random, q_p, i2, sites = (floats(table[name]) for name in names)
    rows = tuple(
        (
            variant(table, i),
            count(sites[i]),
            f"{fixed(beta[i], 3)} ± {fixed(error[i], 3)}",
            power(p[i]),
            power(p_random[i]),
            power(q_p[i]),
            percent(i2[i], 0),
        )
        for i in leads(table, 10)
    )
    return Table(
        f"The leading variants of {trait}, a million base pairs apart",
        ("variant", "sites", "beta ± error", "p, fixed", "p, random", "p of Q", "I²"),
        rows,
        (False, *(True,) * 6),
    )

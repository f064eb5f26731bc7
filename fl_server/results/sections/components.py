"""Principal components in the report: eigenvalues, loadings, and the columns that later questions may name.

There is no plot of people: their scores never leave the nodes.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from fl_server.conduct import Result
from fl_server.results.figures import Size, figure
from fl_server.results.section import Section, Table, in_short
from fl_server.results.words import count, fixed, floats, number, percent, short, variant
from strategies.analyses.principal_components import draw_loadings, draw_scree

DRAWN = 2
"""Components whose loadings have a figure."""


def components(result: Result) -> Section:
    """The leading principal components."""
    answer, name, facts = result.answer, result.question.name, result.answer.facts
    table = answer.tables["loadings"]
    names = [column for column in table if column.startswith("pc")]
    values = [number(facts, f"eigenvalue_{k}") for k in range(1, len(names) + 1)]
    people = number(facts, "people")
    there = [n for n, value in zip(names, values, strict=True) if math.isfinite(value)]
    figures = []
    for column in there[:DRAWN]:
        caption = f"{column.upper()}: each variant's part of it, along the genome. A component of ancestry lies "
        caption += "everywhere; one peak is a region of linked variants."
        figures.append(
            figure(
                f"{name}-{column}-loadings",
                caption,
                partial(draw_loadings, answer, column),
                Size(720, 240),
                Size(352, 240),
            )
        )
    scree = "Scree plot: each component's eigenvalue, relative to the number of variants."
    figures.append(figure(f"{name}-scree", scree, partial(draw_scree, answer)))
    rows = []
    for column, value in zip(names, values, strict=True):
        loading = np.nan_to_num(floats(table[column])) ** 2
        top = int(np.argmax(loading))
        heaviest = f"{variant(table, top)} ({percent(loading[top], 1)})" if column in there else ""
        rows.append((f"{name}.{column}", fixed(value, 3), percent(value / people, 2), heaviest))
    offered = Table(
        "Columns offered to later exact questions of the study; each node has computed them for its own people",
        ("column", "eigenvalue", "part of the variance, about", "heaviest variant (its part of the component)"),
        tuple(rows),
        (False, True, True, False),
    )
    few = int(np.count_nonzero(table["held_by_few"]))
    beside = in_short(
        ("people", count(people)),
        ("variants asked", count(facts["variants"])),
        ("variants used", count(facts["variants_used"])),
        ("variants left out, rare or with a small cell", count(answer.withheld - few)),
        ("variants withheld because fewer than three sites hold them", count(few)),
        ("largest relative residual of a component", short(number(facts, "residual"), 2)),
    )
    lead = f"{len(there)} components of {count(facts['variants_used'])} variants over {count(people)} people. Loadings "
    lead += "left the sites; people's scores did not, so there is no plot of people."
    return Section("Principal components", lead, tuple(figures), (offered,), beside)

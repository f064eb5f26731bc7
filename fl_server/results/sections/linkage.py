"""Linkage disequilibrium in the report: r2 by distance, and clumps where an association was clumped."""

from __future__ import annotations

from functools import partial

import numpy as np

from fl_server.conduct import Result
from fl_server.results.figures import Size, figure
from fl_server.results.section import Section, Table, in_short
from fl_server.results.words import count, floats, place, power, variant
from strategies.analyses.linkage import draw_decay

TOP_CLUMPS = 15


def linked(result: Result) -> Section:
    """Pairs of variants in a band, or clumps of hits."""
    answer, name, facts = result.answer, result.question.name, result.answer.facts
    pairs = answer.tables["pairs"]
    r2, distance = floats(pairs["r2"]), np.abs(floats(pairs["distance"]))
    shown, few = np.isfinite(r2), int(np.count_nonzero(pairs["held_by_few"]))
    short = in_short(
        ("people", count(float(facts["people"]))),
        ("variants asked", count(facts["variants"])),
        ("variants that took part", count(facts["variants_used"])),
        ("pairs", count(facts["pairs"])),
        ("pairs withheld for few people", count(int(facts["pairs_withheld"]) - few)),
        ("pairs withheld because fewer than three sites hold both", count(few)),
        ("pairs with r² of at least 0.8", count(np.count_nonzero(r2[shown] >= 0.8))),
        ("farthest of these, base pairs", count(distance[shown & (r2 >= 0.8)].max(initial=0))),
    )
    caption = "r² of pairs of variants by their distance (points), and its mean (line)."
    drawn = figure(f"{name}-decay", caption, partial(draw_decay, answer), Size(352, 320))
    if "clumps" not in answer.tables:
        lead = f"r² of {count(shown.sum())} pairs of neighbouring variants, by genotypes that are not phased."
        return Section("Linkage disequilibrium", lead, (drawn,), (), short)
    lead = f"{count(facts['clumps'])} clumps of the hits of {facts['clumped']}: each is gathered around its smallest p."
    return Section(f"Clumps of {facts['clumped']}", lead, (drawn,), (_clumps(result),), short)


def _clumps(result: Result) -> Table:
    table = result.answer.tables["clumps"]
    p, members, unknown, first, last = (
        floats(table[c]) for c in ("p_value", "members", "unknown", "first_position", "last_position")
    )
    number = len(p)
    rows = tuple(
        (
            count(i + 1),
            variant(table, i),
            power(p[i]),
            count(members[i]),
            count(unknown[i]),
            f"{place(table, i).partition(':')[0]}:{int(first[i])}–{int(last[i])}",
        )
        for i in range(min(number, TOP_CLUMPS))
    )
    return Table(
        f"Clumps by the p of their index variant: the first {len(rows)} of {count(number)}",
        ("clump", "index variant", "p", "variants", "of these, r² unknown", "from – to"),
        rows,
        (False, False, True, True, True, False),
    )

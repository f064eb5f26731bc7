"""Genotype counts and allele frequencies in the report, exact and noised."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial

import numpy as np

from fl_server.conduct import Result
from fl_server.results.figures import Size, figure
from fl_server.results.section import Section, Table, in_short
from fl_server.results.words import count, fixed, floats, power, smallest, spoken, variant
from strategies.analyses.allele_frequency import draw_intervals
from strategies.analyses.genotype_counts import draw_groups, draw_hardy_weinberg, draw_spectrum
from strategies.analysis import Column, parameters

FARTHEST = 5


def counted(result: Result) -> Section:
    """Exact genotype counts."""
    if not result.answer.tables:
        return _parts(result)
    answer, name = result.answer, result.question.name
    table = answer.tables["frequencies"]
    frequency, rate, p = (floats(table[c]) for c in ("frequency", "call_rate", "hwe_p"))
    shown = np.isfinite(frequency)
    minor = np.minimum(frequency, 1 - frequency)[shown]
    least = np.nanmin(rate) if np.isfinite(rate).any() else math.nan
    few = int(np.count_nonzero(table["held_by_few"]))
    short = in_short(
        ("people", count(answer.facts["people"])),
        ("variants asked", count(len(frequency))),
        ("variants shown", count(int(shown.sum()))),
        ("variants withheld for a small cell", count(answer.withheld - few)),
        ("variants withheld because fewer than three sites hold them", count(few)),
        ("minor allele frequency below 0.01", count(int((minor < 0.01).sum()))),
        ("minor allele frequency 0.01 to 0.05", count(int(((minor >= 0.01) & (minor < 0.05)).sum()))),
        ("minor allele frequency of at least 0.05", count(int((minor >= 0.05).sum()))),
        ("lowest call rate", fixed(least, 4)),
        ("Hardy-Weinberg p below 10⁻⁶", count(int((p < 1e-6).sum()))),
    )
    figures = [
        figure(f"{name}-spectrum", "Variants by minor allele frequency.", partial(draw_spectrum, answer)),
        figure(
            f"{name}-hardy-weinberg",
            "Hardy-Weinberg test: exact p values against those expected without departures.",
            partial(draw_hardy_weinberg, answer),
        ),
    ]
    tables = [short]
    if rows := smallest(p, FARTHEST):
        tables.append(_farthest(table, rows))
    if "populations" in answer.tables:
        tables.append(_groups(result))
        labels = len(tables[-1].rows)
        caption = "Each group's alternate allele frequency less that of everybody: a box holds half of the variants, "
        caption += "a line nine of ten."
        size = Size(720, 110 + 34 * labels)
        narrow = Size(352, 110 + 34 * labels)
        figures.append(figure(f"{name}-groups", caption, partial(draw_groups, answer), size, narrow))
    people = count(answer.facts["people"])
    lead = f"{count(int(shown.sum()))} of {count(len(frequency))} variants, counted over {people} people."
    return Section("Genotype counts and allele frequencies", lead, tuple(figures), tuple(tables))


def _farthest(table: Mapping[str, Column], rows: list[int]) -> Table:
    cells = [floats(table[c]) for c in ("hom_ref", "het", "hom_alt")]
    frequency, p = (floats(table[c]) for c in ("frequency", "hwe_p"))
    return Table(
        "The five variants farthest from Hardy-Weinberg proportions",
        ("variant", "ref/ref", "ref/alt", "alt/alt", "frequency", "p"),
        tuple((variant(table, i), *(count(c[i]) for c in cells), fixed(frequency[i], 3), power(p[i])) for i in rows),
        (False, *(True,) * 5),
    )


def _groups(result: Result) -> Table:
    """A question's groups: how many people each has, and how many variants it shows."""
    answer, analysis = result.answer, result.question.analysis
    of, frequency = np.array(answer.tables["populations"]["population"]), answer.tables["populations"]["frequency"]
    shown = np.isfinite(floats(frequency))
    rows = tuple(
        (label, count(answer.facts[f"people_{label}"]), count(np.count_nonzero(shown & (of == label))))
        for label in dict.fromkeys(of.tolist())
    )
    column = parameters(analysis)["by"]
    return Table(
        f"Groups of {column}: all are shown at a variant, or none",
        ("", "people", "variants shown"),
        rows,
        (False, True, True),
    )


def _parts(result: Result) -> Section:
    """Counts of each site: how much of its part each shows. The numbers lie in the table by site."""
    rows = tuple((site, count(one.facts.get("people")), count(one.withheld)) for site, one in result.by_site.items())
    table = Table("Each site's own part", ("site", "people", "rows withheld"), rows, (False, True, True))
    lead = (
        f"Given for each of {len(rows)} sites, and not over all of them: a total would give away what a site withheld."
    )
    return Section(f"{spoken(result.question).capitalize()} for each site", lead, (), (table,))


def noised(result: Result) -> Section:
    """Noised allele frequencies, together and by site."""
    answer, by_site, name = result.answer, result.by_site, result.question.name
    table = answer.tables["frequencies"]
    columns: list[tuple[str, Mapping[str, Column]]] = [("together", table)]
    columns += [(site, one.tables["frequencies"]) for site, one in by_site.items()]
    published = floats(table["published_frequency"])
    rows = tuple(
        (variant(table, i), fixed(published[i], 2), *(_interval(t, i) for _, t in columns))
        for i in range(len(table["id"]))
    )
    head = ("variant", "published", *(label for label, _ in columns))
    people = tuple(
        (label, count(round(float(one.facts["people"]))), fixed(float(one.facts["people_noise_sd"]), 1))
        for label, one in [("together", answer), *by_site.items()]
    )
    lines, variants = len(columns), len(rows)
    height = 90 + variants * max(24, 9 * lines)
    drawn = figure(
        f"{name}-intervals",
        "Alternate allele frequency of each variant with its 95 % interval.",
        partial(draw_intervals, answer, by_site),
        Size(720, height),
        Size(352, height + 40),
    )
    tables = (
        Table("Alternate allele frequency and 95 % interval", head, rows, (False, *(True,) * (len(head) - 1))),
        Table("Number of people, with noise", ("", "people", "noise, standard deviation"), people, (False, True, True)),
    )
    where = f", together and at {len(by_site)} sites" if by_site else " over all sites together"
    lead = f"{count(variants)} variants{where}. Intervals cover the noise added for privacy and the sampling of people."
    title = "Allele frequencies by country" if by_site else "Allele frequencies"
    return Section(title, lead, (drawn,), tables)


def _interval(table: Mapping[str, Column], i: int) -> str:
    value, low, high = (floats(table[c])[i] for c in ("frequency", "low_95", "high_95"))
    return f"{fixed(value, 2)}\n{fixed(low, 2)}–{fixed(high, 2)}"

"""Associations of every variant in the report: quantitative traits, and a binary one."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np

from fl_server.conduct import Result
from fl_server.results.figures import Figure, Size, figure
from fl_server.results.section import Section, Table, in_short
from fl_server.results.words import NONE, count, fixed, floats, power, smallest, variant
from strategies.analysis import Column
from strategies.evidence import GENOME_WIDE, draw_manhattan, draw_quantiles, genomic_inflation

TOP_ROWS = 10
TRAITS_DRAWN = 2
"""Traits of an association that have figures in the page; all have their files and a line."""

WIDE, NARROW = Size(720, 330), Size(352, 300)


def linear(result: Result) -> Section:
    """An association of quantitative traits."""
    answer, name = result.answer, result.question.name
    traits = tuple(answer.tables)
    shown = {trait: np.isfinite(floats(table["p_value"])) for trait, table in answer.tables.items()}
    figures = tuple(drawn for trait in traits[:TRAITS_DRAWN] for drawn in evidence(name, trait, answer.tables[trait]))
    table = answer.tables[traits[0]]  # what holds of a variant holds for every trait
    few = int(np.count_nonzero(table["held_by_few"]))
    inflation, passing, top = zip(*(_found(answer.tables[trait]) for trait in traits), strict=True)
    beside = in_short(
        ("people with traits and covariates", count(answer.facts["people"])),
        ("variants tested", count(int(shown[traits[0]].sum()))),
        ("of these, with the mean given to people without a genotype", count(answer.facts["imputed"])),
        ("variants left out for few copies of the rarer allele", count(answer.facts["rare"])),
        ("variants withheld for a small cell", count(answer.withheld - few - int(np.count_nonzero(table["rare"])))),
        ("variants withheld because fewer than three sites hold them", count(few)),
        ("variants with p below 5 × 10⁻⁸", ", ".join(map(count, passing[:TRAITS_DRAWN]))),
        ("genomic inflation λ", ", ".join(fixed(v, 3) for v in inflation[:TRAITS_DRAWN])),
    )
    tables = [_hits(trait, answer.tables[trait], len(traits) > 1) for trait in traits[:TRAITS_DRAWN]]
    if len(traits) > 1:
        rows = tuple(
            (t, count(n), fixed(v, 3), variant(answer.tables[t], i), power(floats(answer.tables[t]["p_value"])[i]))
            if i is not None
            else (t, count(n), fixed(v, 3), NONE, NONE)
            for t, n, v, i in zip(traits, passing, inflation, top, strict=True)
        )
        head = ("trait", "p below 5 × 10⁻⁸", "λ", "smallest p at", "p")
        tables.append(Table(f"The {len(traits)} traits", head, rows, (False, True, True, False, True)))
    what = traits[0] if len(traits) == 1 else f"each of {len(traits)} traits"
    lead = f"Linear regression of {what} on each variant{adjusted(result)}."
    if (at := top[0]) is not None:
        beta, p = (floats(table[c])[at] for c in ("beta", "p_value"))
        lead += f" The top variant{'' if len(traits) == 1 else f' of {traits[0]}'} is {variant(table, at)}: "
        lead += f"beta {fixed(beta, 4)}, p = {power(p)}."
    return Section(f"Association with {what}", lead, figures, tuple(tables), beside)


def binary(result: Result) -> Section:
    """An association of a binary trait."""
    answer, name, facts = result.answer, result.question.name, result.answer.facts
    (trait, table), test = next(iter(answer.tables.items())), str(facts["test"]).replace("_", " ")
    p = floats(table["p_value"])
    inflation, passing, at = _found(table)
    few = int(np.count_nonzero(table["held_by_few"]))
    rows = [
        ("people with trait and covariates", count(facts["people"])),
        ("cases", count(facts["cases"])),
        ("controls", count(float(facts["people"]) - float(facts["cases"]))),
        ("variants tested", count(int(np.isfinite(p).sum()))),
        ("of these, with the mean given to people without a genotype", count(np.count_nonzero(table["imputed"]))),
        (f"of these, tested a second time ({test})", count(facts["tested_twice"])),
        ("of these, without an estimate: separated, or explained by covariates", count(facts["not_converged"])),
        ("variants withheld, rare or with a small cell", count(answer.withheld - few)),
        ("variants withheld because fewer than three sites hold them", count(few)),
        ("variants with p below 5 × 10⁻⁸", count(passing)),
        ("genomic inflation λ", fixed(inflation, 3)),
    ]
    tables = [_binary_hits(table)]
    lost = np.flatnonzero(~np.asarray(table["converged"]) & ~np.asarray(table["withheld"])).tolist()
    if lost:
        flagged = tuple((variant(table, i), str(table["test"][i]).replace("_", " ")) for i in lost[:TOP_ROWS])
        caption = f"Flagged: the first {len(flagged)} of {count(len(lost))} variants without an estimate"
        tables.append(Table(caption, ("variant", "test without a maximum"), flagged, (False, False)))
    lead = f"Log odds of {trait} by copies of each variant's alternate allele{adjusted(result)}: a score test of all"
    lead += f", and a second one ({test}) of those with a small p." if test != "score" else "."
    if at is not None:
        beta = floats(table["beta"])[at]
        odds = f", odds ratio {fixed(float(np.exp(beta)), 2)}" if abs(beta) < 20 else ""
        lead += f" The top variant is {variant(table, at)}: p = {power(p[at])}{odds}."
    return Section(
        f"Association with {trait}", lead, evidence(name, trait, table), tuple(tables), in_short(*rows)
    )  # fmt: skip


def adjusted(result: Result) -> str:
    """What a lead says of covariates."""
    covariates = result.answer.facts.get("covariates")
    return f", adjusted for {covariates}" if covariates else ""


def _found(table: Mapping[str, Column]) -> tuple[float, int, int | None]:
    """Genomic inflation, variants beyond genome-wide significance, and where the smallest p value is, if any."""
    p = floats(table["p_value"])
    there, top = np.isfinite(p), smallest(p, 1)
    return genomic_inflation(p), int((p[there] < GENOME_WIDE).sum()), top[0] if top else None


def _hits(trait: str, table: Mapping[str, Column], named: bool) -> Table:
    names = ("p_value", "beta", "standard_error", "effect_allele_frequency", "n")
    p, beta, error, frequency, n = (floats(table[c]) for c in names)
    rows = tuple(
        (
            variant(table, i),
            str(table["alt"][i]),
            fixed(frequency[i], 3),
            fixed(beta[i], 4),
            fixed(error[i], 4),
            power(p[i]),
            count(n[i]),
        )
        for i in smallest(p, TOP_ROWS)
    )
    of = f" of {trait}" if named else ""
    return Table(
        f"The {len(rows)} variants with the smallest p values{of}",
        ("variant", "effect allele", "frequency", "beta", "standard error", "p", "n"),
        rows,
        (False, False, *(True,) * 5),
    )


def _binary_hits(table: Mapping[str, Column]) -> Table:
    names = ("p_value", "beta", "standard_error", "effect_allele_frequency")
    p, beta, error, frequency = (floats(table[c]) for c in names)
    rows = tuple(
        (
            variant(table, i),
            fixed(frequency[i], 3),
            fixed(beta[i], 3),
            fixed(error[i], 3),
            power(p[i]),
            str(table["test"][i]).replace("_", " "),
        )
        for i in smallest(p, TOP_ROWS)
    )
    return Table(
        f"The {len(rows)} variants with the smallest p values, and the test that each p is of",
        ("variant", "frequency", "log odds ratio", "standard error", "p", "test"),
        rows,
        (False, True, True, True, True, False),
    )


def evidence(name: str, trait: str, table: Mapping[str, Column]) -> tuple[Figure, Figure]:
    """The Manhattan and the QQ plot of a table of p values."""
    return (
        figure(
            f"{name}-{trait}-manhattan",
            f"{trait}, Manhattan plot: evidence along the genome. The dashed line is the level 5 × 10⁻⁸.",
            partial(draw_manhattan, table),
            WIDE,
            NARROW,
        ),
        figure(
            f"{name}-{trait}-quantiles",
            f"{trait}, QQ plot: observed against expected evidence; the band holds 95 % of null p values.",
            partial(draw_quantiles, table),
        ),
    )

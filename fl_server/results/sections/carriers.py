"""Genotypes beside clinical columns in the report: carriers, genotypes by category, all phenotypes of a variant."""

from __future__ import annotations

from functools import partial

import numpy as np

from fl_server.conduct import Result
from fl_server.results.figures import Figure, Size, figure
from fl_server.results.section import Section, Table, people_of
from fl_server.results.words import NONE, between, count, fixed, floats, listed, power, short, smallest, variant
from strategies.analyses.genotype_counts import draw_spectrum
from strategies.analyses.genotype_table import draw_genotypes
from strategies.analyses.phewas import draw_phenome
from strategies.analysis import Answer, parameters

ROWS = 20


def offered(result: Result) -> Section:
    """The columns of carriers that nodes have from now on."""
    name, table = result.question.name, result.answer.tables["variants"]
    asked = parameters(result.question.analysis)
    cells = {c: floats(table[c]) for c in ("hom_ref", "het", "hom_alt", "missing", "frequency")}
    rows = tuple(
        (
            variant(table, i),
            f"{name}.{column}",
            *(count(cells[c][i]) for c in ("hom_ref", "het", "hom_alt", "missing")),
        )
        for i, column in enumerate(table["column"])
        if column
    )
    head = ("variant", "column", "0 copies", "1", "2", "missing")
    listed_ = Table("Columns of genotypes", head, rows, (False, False, *(True,) * 4))
    drawn = figure(
        f"{name}-spectrum",
        "Minor allele frequencies of the panel.",
        partial(draw_spectrum, Answer({"frequencies": table}, result.answer.facts)),
    )
    lead = f"Each node has {len(asked['names'])} columns of its own people's genotypes ({asked['coding']}), "
    lead += f"which later exact questions name {name}.{asked['names'][0]} and so on; {count(people_of(result))} people."
    return Section("Carriers", lead, (drawn,), (listed_,))


def by_category(result: Result) -> Section:
    """Genotypes by category, the most different first."""
    category = parameters(result.question.analysis)["category"]
    answers = {site: one for site, one in result.by_site.items() if one.tables} or {"": result.answer}
    tables, figures = list[Table](), list[Figure]()
    for site, one in answers.items():
        if not one.tables:
            continue
        table = one.tables["variants"]
        p, fisher, odds, low, high, carriers = (
            floats(table[c])
            for c in (
                "p_value",
                "carrier_fisher_p_value",
                "carrier_odds_ratio",
                "carrier_odds_ratio_low",
                "carrier_odds_ratio_high",
                "carriers",
            )
        )
        order = smallest(p, ROWS)
        rows = tuple(
            (
                variant(table, i),
                count(carriers[i]),
                power(p[i]),
                f"{fixed(odds[i], 2)} ({between(low[i], high[i], 2)})" if np.isfinite(odds[i]) else NONE,
                power(fisher[i]),
            )
            for i in order
        )
        head = ("variant", "carriers", "p of genotypes", "odds ratio of carriers", "Fisher's p")
        of = f" at {site}" if site else ""
        tables.append(Table(f"Variants that differ most by {category}{of}", head, rows, (False, *(True,) * 4)))
        for i in order[:2] or [0]:
            caption = f"{variant(table, i)}{of}: genotypes by {category}."
            draw = partial(draw_genotypes, one, category, i)
            place = f"{f'{site}-' if site else ''}{i}"
            figures.append(figure(f"{result.question.name}-genotypes-{place}", caption, draw, Size(352, 240)))
    lead = f"Genotypes by {category} of {count(people_of(result))} people; "
    lead += f"{count(result.answer.withheld)} variants are withheld for small numbers or few sites."
    return Section(f"Genotypes by {category}", lead, tuple(figures), tuple(tables))


def phenome(result: Result) -> Section:
    """The phenotypes of a few variants."""
    answers = {site: one for site, one in result.by_site.items() if one.tables} or {"": result.answer}
    tables, figures = list[Table](), list[Figure]()
    for site, one in answers.items():
        if not one.tables:
            continue
        table = one.tables["phenome"]
        p, q, people, odds, low, high, beta, error = (
            floats(table[c])
            for c in (
                "p_value",
                "q_value",
                "people",
                "odds_ratio",
                "odds_ratio_low",
                "odds_ratio_high",
                "beta",
                "standard_error",
            )
        )
        rows = tuple(
            (
                str(table["variant"][i]),
                str(table["phenotype"][i]),
                count(people[i]),
                f"odds ratio {fixed(odds[i], 2)} ({between(low[i], high[i], 2)})"
                if np.isfinite(odds[i])
                else f"{short(beta[i], 4)} ± {short(error[i], 3)} a copy"
                if np.isfinite(beta[i])
                else NONE,
                power(p[i]),
                power(q[i]),
            )
            for i in smallest(p, ROWS)
        )
        of = f" at {site}" if site else ""
        head = ("variant", "phenotype", "people", "effect", "p", "q")
        numeric = (False, False, True, True, True, True)
        tables.append(Table(f"Phenotypes with the smallest p{of}", head, rows, numeric))
        caption = f"P values of all phenotypes{of}; the dashed line is 0.05 over their number."
        end = f"-{site}" if site else ""
        name, draw = f"{result.question.name}-phenome{end}", partial(draw_phenome, one)
        figures.append(figure(name, caption, draw, Size(720, 260), Size(352, 260)))
    asked = parameters(result.question.analysis)
    lead = f"{len(asked['phenotypes'])} phenotypes of {count(people_of(result))} people, each of those who have it: "
    lead += f"{listed(asked['phenotypes'][:5])}{' and others' if len(asked['phenotypes']) > 5 else ''}."
    if asked["covariates"]:
        kind = "penalised (Firth) logistic" if asked["firth"] else "logistic"
        lead += f" Beside {listed(asked['covariates'])}; odds ratios are of one copy, by {kind} regression."
    none = sum(int(one.facts.get("without_estimate", 0)) for one in answers.values())
    if none:
        lead += f" {count(none)} pairs have no estimate, and a problem that says why."
    return Section("All phenotypes of a variant", lead, tuple(figures), tuple(tables))

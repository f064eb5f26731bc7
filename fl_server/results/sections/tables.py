"""Tables of people in the report: table one, histograms, contingency tables, correlations, missing values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from fl_server.conduct import Result
from fl_server.results.figures import Figure, Size, figure
from fl_server.results.section import Section, Table, in_short, people_of
from fl_server.results.words import NONE, between, count, fixed, floats, listed, number, percent, power, short
from strategies.analyses.contingency import draw_cells
from strategies.analyses.correlation import draw_correlations
from strategies.analyses.histogram import draw_histogram, draw_histograms
from strategies.analyses.missingness import draw_missing, draw_missing_by_site
from strategies.analyses.table_one import ALL, draw_quantiles
from strategies.analysis import Answer, Column, parameters


def table_one(result: Result) -> Section:
    """The variables of table one, a column for each group."""
    asked = parameters(result.question.analysis)
    answers = result.by_site or {"": result.answer}
    shown = [(site, one) for site, one in answers.items() if one.tables]
    tables = tuple(_table_one(one, site, asked) for site, one in shown)
    figures: tuple[Figure, ...] = ()
    if shown and (told := shown[0][1].tables["quantiles"])["variable"]:
        numbers, strata = (len(dict.fromkeys(told[name])) for name in ("variable", "group"))
        each = "site by site" if len(shown) > 1 else "everybody first, then each group"
        caption = f"Quantiles of each number, {each}: the middle of the interval in which each is known to lie."
        height = 40 + numbers * (60 + 14 * (len(shown) if len(shown) > 1 else strata))
        figures = (
            figure(f"{result.question.name}-quantiles", caption, partial(draw_quantiles, dict(shown)),
                   Size(720, height), Size(352, height)),
        )  # fmt: skip
    by = f" by {asked['by']}" if asked["by"] else ""
    lead = f"{len(asked['variables'])} variables of {count(people_of(result))} people{by}. A variable is told of those "
    lead += "who have it; a quantile lies within the interval that stands in its place."
    return Section(f"Table one{by}", lead, figures, tables)


def _table_one(answer: Answer, site: str, asked: Mapping[str, Any]) -> Table:
    numbers, categories, quantiles = (answer.tables[name] for name in ("numbers", "categories", "quantiles"))
    groups = list(dict.fromkeys([*numbers["group"], *categories["group"]]))
    differences = answer.tables.get("differences")
    rows = list[tuple[str, ...]]()
    for variable in asked["variables"]:
        own = [i for i, name in enumerate(numbers["variable"]) if name == variable]
        apart = ""
        if differences is not None:
            at = list(differences["variable"]).index(variable)
            apart = fixed(float(floats(differences["standardised_mean_difference"])[at]), 3)
        if own:
            cells = [_told(numbers, i) for i in own]
            rows.append((f"{variable}, mean (SD)", *(_cell(c, "mean", "standard_deviation") for c in cells), apart))
            rows.append((f"{variable}, people", *(count(c["people"]) for c in cells), ""))
            rows.append((f"{variable}, missing", *(count(c["missing"]) for c in cells), ""))
            for level in dict.fromkeys(floats(quantiles["quantile"]).tolist()):
                ends = [
                    _ends(quantiles, i)
                    for i, name in enumerate(quantiles["variable"])
                    if name == variable and float(floats(quantiles["quantile"])[i]) == level
                ]
                rows.append((f"{variable}, quantile {level:g}", *ends, ""))
            continue
        own = [i for i, name in enumerate(categories["variable"]) if name == variable]
        for category in dict.fromkeys(categories["category"][i] for i in own):
            at_category = [i for i in own if categories["category"][i] == category]
            people, share = floats(categories["people"]), floats(categories["share"])
            cells_ = [count(people[i]) + (f" ({percent(share[i], 1)})" if category else "") for i in at_category]
            rows.append((f"{variable}, {category or 'missing'}", *cells_, apart))
            apart = ""
    head = ("variable", *("all" if group == ALL else str(group) for group in groups), "SMD")
    rows = [row if differences is not None else row[:-1] for row in rows]
    head = head if differences is not None else head[:-1]
    caption = f"Table one{f' of {site}' if site else ''}; SMD: standardised mean difference of the two groups"
    caption = caption if differences is not None else caption.partition(";")[0]
    return Table(caption, head, tuple(rows), (False, *(True,) * (len(head) - 1)))


def _told(table: Mapping[str, Column], row: int) -> dict[str, float]:
    return {name: float(floats(table[name])[row]) for name in table if name not in ("variable", "group")}


def _cell(told: Mapping[str, float], mean: str, deviation: str) -> str:
    if not math.isfinite(told[mean]):
        return NONE
    return f"{short(told[mean], 4)} ({short(told[deviation], 4)})"


def _ends(quantiles: Mapping[str, Column], row: int) -> str:
    names = ("low", "high") if "low" in quantiles else ("low_95", "high_95")
    low, high = (float(floats(quantiles[name])[row]) for name in names)
    return f"{short(low, 5)} to {short(high, 5)}" if math.isfinite(low) else NONE


def histogram(result: Result) -> Section:
    """People by bin, at each country where the answer is by site."""
    asked, name = parameters(result.question.analysis), result.question.name
    answers = {site: one for site, one in result.by_site.items() if one.tables} or {"": result.answer}
    caption = f"People by {asked['variable']}; a cross where a bin is withheld."
    figures = tuple(
        figure(f"{name}-histogram{f'-{site}' if site else ''}", f"{site}: {caption}" if site else caption,
               partial(draw_histogram, one, asked["by"]))
        for site, one in answers.items()
    )  # fmt: skip
    if len(answers) > 1:
        each = f"People by {asked['variable']} at each site, as shares of its own; a cross where a bin is withheld."
        height = 70 + 56 * len(answers)
        draw = partial(draw_histograms, answers)
        figures = (figure(f"{name}-by-site", each, draw, Size(720, height), Size(352, height)), *figures)
    rows = []
    for site, one in answers.items():
        people = floats(one.tables["histogram"]["people"])
        rows.append((site or "all sites", count(number(one.facts, "people")), count(int(np.isnan(people).sum()))))
    head = ("", "people", "bins withheld")
    table = Table(f"{asked['variable']} in numbers", head, tuple(rows), (False, True, True))
    where = f"at {len(answers)} sites" if "" not in answers else "over all people"
    lead = f"How {asked['variable']} is distributed {where}, {count(people_of(result))} people in all."
    return Section(f"Histogram of {asked['variable']}", lead, figures, (table,))


def contingency(result: Result) -> Section:
    """A table of two columns, and its tests."""
    asked, name = parameters(result.question.analysis), result.question.name
    answers = {site: one for site, one in result.by_site.items() if one.tables} or {"": result.answer}
    names = asked["row"], asked["column"]
    figures = tuple(
        figure(f"{name}-cells{f'-{site}' if site else ''}",
               f"{f'{site}: people' if site else 'People'} by {names[0]} and {names[1]}.",
               partial(draw_cells, one, names), Size(352, 280))
        for site, one in answers.items()
    )  # fmt: skip
    tables = tuple(_cells(one, site, names) for site, one in answers.items())
    first = result.answer.facts
    rows = [("people", count(people_of(result)))]
    for key, word in (("chi_square", "chi-square"), ("mantel_haenszel_chi_square", "Mantel-Haenszel chi-square")):
        if key in first:
            p = number(first, "p_value" if key == "chi_square" else "mantel_haenszel_p_value")
            rows.append((word, f"{fixed(number(first, key), 3)}, p {power(p)}"))
    if "fisher_p_value" in first:
        rows.append(("Fisher's exact p", power(number(first, "fisher_p_value"))))
        rows.append(("Cramér's V", fixed(number(first, "cramers_v"), 3)))
    for key, word in (
        ("odds_ratio", "odds ratio (Woolf)"),
        ("conditional_odds_ratio", "odds ratio (conditional)"),
        ("mantel_haenszel_odds_ratio", "odds ratio (Mantel-Haenszel)"),
    ):
        if key in first:
            ends = between(number(first, f"{key}_low"), number(first, f"{key}_high"), 2)
            rows.append((word, f"{fixed(number(first, key), 3)} ({ends})"))
    lead = f"{listed(names)} of {count(people_of(result))} people"
    lead += f", in strata of {asked['stratum']}." if asked["stratum"] else "."
    return Section(f"{names[0]} by {names[1]}", lead, figures, (*((in_short(*rows),) if first else ()), *tables))


def _cells(answer: Answer, site: str, names: Sequence[str]) -> Table:
    table = answer.tables["cells"]
    columns = [name for name in table if isinstance(table[name], tuple)]
    people = floats(table["people"])
    rows = tuple((*(str(table[c][i]) for c in columns), count(people[i])) for i in range(len(people)))
    of = f" of {site}" if site else ""
    return Table(f"People{of} by {listed(names)}", (*columns, "people"), rows, (*(False,) * len(columns), True))


def correlation(result: Result) -> Section:
    """A matrix of correlations."""
    name, table = result.question.name, result.answer.tables["correlations"]
    low, high, r = (floats(table[c]) for c in ("low_95", "high_95", "r"))
    order = np.argsort(-np.nan_to_num(np.abs(r)), kind="stable")[:30].tolist()
    rows = tuple(
        (f"{table['variable'][i]}, {table['other'][i]}", fixed(r[i], 3), between(low[i], high[i], 3)) for i in order
    )
    strongest = Table("Strongest correlations", ("columns", "r", "95 % interval"), rows, (False, True, True))
    columns = parameters(result.question.analysis)["columns"]
    side = 160 + 34 * min(len(columns), 12)
    drawn = figure(f"{name}-correlations", "Pearson correlations of those who have all columns.",
                   partial(draw_correlations, result.answer), Size(min(side, 720), min(side, 560)))  # fmt: skip
    lead = f"Correlations of {len(columns)} columns, of {count(people_of(result))} people who have them all."
    return Section("Correlations", lead, (drawn,), (strongest,))


def missingness(result: Result) -> Section:
    """Who lacks what: together, or at each site."""
    name = result.question.name
    answers = {site: one for site, one in result.by_site.items() if one.tables}
    variables = parameters(result.question.analysis)["variables"]
    side = 160 + 30 * min(len(variables), 14)
    if answers:
        drawn = figure(f"{name}-missing", "Per cent of people without each column, by site; a cross where withheld.",
                       partial(draw_missing_by_site, answers), Size(352, min(side, 560)))  # fmt: skip
        each = answers
    else:
        drawn = figure(f"{name}-missing", "Per cent of people without both of two columns; on the diagonal, each.",
                       partial(draw_missing, result.answer), Size(min(side, 720), min(side, 560)))  # fmt: skip
        each = {"": result.answer} if result.answer.tables else {}
    rows = tuple(
        (f"{site}: {variable}" if site else str(variable), count(missing), percent(share, 1))
        for site, one in each.items()
        for variable, missing, share in zip(
            one.tables["columns"]["variable"],
            floats(one.tables["columns"]["missing"]).tolist(),
            floats(one.tables["columns"]["share_missing"]).tolist(),
            strict=True,
        )
    )
    table = Table("People without each column", ("column", "missing", "share"), rows, (False, True, True))
    lead = f"Who lacks which of {len(variables)} columns, of {count(people_of(result))} people."
    return Section("Missing values", lead, (drawn,), (table,))

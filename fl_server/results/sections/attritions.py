"""Attrition in the report: whom each step of a cohort's definition leaves."""

from __future__ import annotations

import math
from functools import partial

from fl_server.conduct import Result
from fl_server.results.figures import Size, figure
from fl_server.results.section import Section, Table
from fl_server.results.words import count, fixed, floats, number
from strategies.analyses.attrition import draw_attrition


def flow(result: Result) -> Section:
    """How many people are left after each step."""
    answer, question = result.answer, result.question
    tables = []
    for site, one in (result.by_site or {"": answer}).items():
        if "steps" not in one.tables:
            continue
        table = one.tables["steps"]
        columns = [floats(table[name]) for name in ("people", "left_out")]
        noise = floats(table["people_noise_sd"]) if "people_noise_sd" in table else None
        rows = tuple(
            (
                str(text),
                count(columns[0][i]),
                count(columns[1][i]),
                *(() if noise is None else (fixed(noise[i], 1),)),
            )
            for i, text in enumerate(table["step"])
        )
        head = ("step", "people left", "left out by it", *(() if noise is None else ("noise, standard deviation",)))
        tables.append(
            Table(
                f"Steps of {question.cohort}{' at ' * bool(site)}{site}",
                head,
                rows,
                (False,) + (True,) * (len(head) - 1),
            )
        )
    drawn = tuple(
        figure(
            f"{question.name}-flow{number}",
            f"Whom each step of the cohort {question.cohort} leaves{' at ' * bool(site)}{site}, and who is left out.",
            partial(draw_attrition, one),
            Size(720, 40 + 66 * len(one.tables["steps"]["step"])),
            Size(352, 40 + 66 * len(one.tables["steps"]["step"])),
        )
        for number, (site, one) in enumerate({"": answer}.items() if answer.tables else result.by_site.items())
    )
    inside = number(answer.facts, "people_in_cohort") if answer.facts else math.nan
    told = (
        f"{count(inside)} of {count(number(answer.facts, 'people'))} people are"
        if answer.facts
        else "Each site says how many of its people are"
    )
    return Section(f"Attrition of {question.cohort}", f"{told} in the cohort {question.cohort}.", drawn, tuple(tables))

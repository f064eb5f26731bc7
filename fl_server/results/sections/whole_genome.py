"""A whole-genome regression in the report: heritability, ridge, and the offsets that later questions may name."""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from fl_server.conduct import Result
from fl_server.results.figures import Size, figure
from fl_server.results.section import Section, Table, in_short
from fl_server.results.words import between, count, fixed, floats, listed, number, short
from strategies.analysis import parameters
from strategies.heritability import draw_offsets, offset_variances

TRAITS_DRAWN = 2


def regression(result: Result) -> Section:
    """Whole-genome regressions of one or more traits."""
    answer, name, facts = result.answer, result.question.name, result.answer.facts
    asked = parameters(result.question.analysis)
    traits, chromosomes, table = asked["traits"], asked["chromosomes"], answer.tables["weights"]
    used, few = number(facts, "variants_used"), int(np.count_nonzero(table["held_by_few"]))
    fits, offers = [], []
    for trait in traits:
        h2 = number(facts, f"heritability_{trait}")
        ridge = used * (1 - h2) / h2 if h2 > 0 else math.nan
        rest = (number(facts, f"{what}_{trait}") for what in ("shrinkage", "calibration"))
        fits.append((trait, fixed(h2, 2), count(ridge), *(fixed(value, 3) for value in rest)))
        variances = list(offset_variances(answer, trait).values())
        columns = [f"{name}.{trait}_chr{chromosomes[at]}" for at in (0, -1)]
        explained = between(min(variances), max(variances), 3)
        offers.append((" to ".join(dict.fromkeys(columns)), count(len(chromosomes)), explained))
    fitted = Table(
        "What was fitted",
        ("trait", "heritability", "ridge λ", "part of an effect that is left", "squared t, of the mixed model's"),
        tuple(fits),
        (False, True, True, True, True),
    )
    offered = Table(
        "Columns offered to later exact questions of the study; each node has computed them for its own people",
        ("columns, each without its own chromosome", "number", "expected part of the trait's variance"),
        tuple(offers),
        (False, True, True),
    )
    beside = in_short(
        ("people with traits and covariates", count(number(facts, "people"))),
        ("variants asked", count(facts["variants"])),
        ("variants used", count(used)),
        ("variants withheld because fewer than three sites hold them", count(few)),
        ("variants left out, rare, with a small cell or elsewhere", count(answer.withheld - few)),
        ("largest relative residual of a regression", short(number(facts, "residual"), 2)),
    )
    figures = tuple(
        figure(
            f"{name}-{trait}-offsets",
            f"{trait}: what each offset is expected to explain, if variants were independent. A low bar is a "
            "chromosome that carries much itself.",
            partial(draw_offsets, answer, trait),
            Size(720, 260),
            Size(352, 280),
        )
        for trait in traits[:TRAITS_DRAWN]
        if any(offset_variances(answer, trait).values())
    )
    told = [f"{trait} {fixed(number(facts, f'heritability_{trait}'), 2)}" for trait in traits]
    lead = (
        f"Heritability by restricted likelihood from {count(used)} variants: {listed(told)}. For each chromosome the "
    )
    lead += "weights of all others make an offset for association; people's offsets stayed at their nodes."
    inside = np.isfinite(floats(table["frequency"]))
    if len({c for c, used in zip(table["chromosome"], inside, strict=True) if used}) < 2:
        lead += " The variants lie on one chromosome: without it nothing is left, and its offset is 0."
    return Section(f"Whole-genome regression of {listed(traits)}", lead, figures, (beside, fitted, offered))

"""Polygenic scores in the report: what is in a score, how it is distributed, and what it explains and tells."""

from __future__ import annotations

from functools import partial

import numpy as np

from fl_server.conduct import Result
from fl_server.results.figures import Size, figure
from fl_server.results.section import Section, Table, in_short, people_of
from fl_server.results.words import between, count, fixed, floats, listed, number, percent, power, short, variant
from strategies.analyses.discrimination import draw_tenths
from strategies.analyses.explained_variance import draw_explained
from strategies.analyses.polygenic_score import draw_contributions, expected_parts
from strategies.analyses.score_distribution import distributions, draw_distributions
from strategies.analysis import parameters

HEAVIEST = 10


def score(result: Result) -> Section:
    """A score's variants, and its pooled mean and deviation."""
    answer, name, facts = result.answer, result.question.name, result.answer.facts
    table = answer.tables["variants"]
    weight, frequency, part = floats(table["weight"]), floats(table["frequency"]), expected_parts(answer)
    few = int(np.count_nonzero(table["held_by_few"]))
    rows = [
        ("people", count(float(facts["people"]))),
        ("variants with a weight", count(facts["variants"])),
        ("variants in the score", count(facts["variants_in_score"])),
        ("left out because fewer than three sites hold them", count(few)),
        ("rows withheld", count(answer.withheld)),
        ("mean", short(number(facts, "mean"), 4)),
        ("standard deviation", short(number(facts, "standard_deviation"), 4)),
    ]
    if "lines_set_aside" in facts:
        rows.append(("lines of the scoring file set aside", str(facts["lines_set_aside"])))
    order = np.argsort(-np.nan_to_num(part), kind="stable")[:HEAVIEST].tolist()
    heaviest = Table(
        f"The {len(order)} variants that vary the score most",
        ("variant", "effect allele", "weight", "frequency", "part of the variance, if independent"),
        tuple(
            (
                variant(table, i),
                str(table["alt"][i]),
                short(weight[i], 4),
                fixed(frequency[i], 3),
                percent(part[i], 1),
            )
            for i in order
            if part[i] > 0
        ),
        (False, False, True, True, True),
    )
    drawn = figure(
        f"{name}-contributions",
        "Where the score comes from: each variant's part of its variance, were variants independent.",
        partial(draw_contributions, answer),
        Size(720, 240),
        Size(352, 240),
    )
    lead = f"{count(facts['variants_in_score'])} of {count(facts['variants'])} weighted variants make the score. "
    lead += (
        f"Each node computed it for its own people: later exact questions name it {name}.score, in standard deviations."
    )
    beside = in_short(*rows)
    return Section(f"Polygenic score {name}", lead, (drawn,), (beside, heaviest))


def distribution(result: Result) -> Section:
    """Histograms of a score, by group or by country."""
    asked = parameters(result.question.analysis)
    found = distributions(result.answer, result.by_site)
    rows = tuple(
        (one.name, count(one.people), fixed(one.mean, 3), fixed(one.deviation, 3), count(one.withheld)) for one in found
    )
    head = ("", "people", "mean", "standard deviation", "bins withheld")
    table = Table(f"{asked['predictor']} in numbers", head, rows, (False, True, True, True, True))
    height = 70 + 62 * len(found)
    caption = "Share of people in each bin of the score, one row each; ticks below are means, crosses withheld bins."
    drawn = figure(
        f"{result.question.name}-distribution", caption, partial(draw_distributions, found), Size(720, height),
        Size(352, height),
    )  # fmt: skip
    where = (
        f"at {len(found)} sites" if result.by_site else f"in {len(found)} groups" if asked["by"] else "over all people"
    )
    lead = f"How {asked['predictor']} is distributed {where}, {count(people_of(result))} people in all."
    return Section(f"Distribution of {asked['predictor']}", lead, (drawn,), (table,))


def explained(result: Result) -> Section:
    """What a score explains of a quantitative trait."""
    answer, name, facts = result.answer, result.question.name, result.answer.facts
    asked, table = parameters(result.question.analysis), answer.tables["effects"]
    beta, error, p = (floats(table[c]) for c in ("beta", "standard_error", "p_value"))
    effects = Table(
        f"Effects on {asked['trait']}, all terms together",
        ("term", "beta", "standard error", "p"),
        tuple((str(term), fixed(beta[i], 4), fixed(error[i], 4), power(p[i])) for i, term in enumerate(table["term"])),
        (False, True, True, True),
    )
    per, spread = number(facts, "beta_per_standard_deviation"), number(facts, "standard_error_per_standard_deviation")
    beside = in_short(
        ("people with every column", count(number(facts, "people"))),
        ("R² of covariates alone", fixed(number(facts, "r2_covariates"), 4)),
        ("R² with the score", fixed(number(facts, "r2"), 4)),
        ("the score's own (incremental) R²", fixed(number(facts, "r2_incremental"), 4)),
        ("of what covariates leave (partial R²)", fixed(number(facts, "r2_partial"), 4)),
        (f"{asked['trait']} per deviation of the score", f"{fixed(per, 4)} ± {fixed(spread, 4)}"),
    )
    caption = f"R² of {asked['trait']}: of the covariates alone, and with the score."
    drawn = figure(f"{name}-explained", caption, partial(draw_explained, answer), Size(352, 200))
    lead = f"{asked['predictor']} explains {percent(number(facts, 'r2_incremental'), 2)} of the variance of "
    lead += f"{asked['trait']} beyond {listed(asked['covariates']) if asked['covariates'] else 'its mean'}."
    return Section(f"What {asked['predictor']} explains of {asked['trait']}", lead, (drawn,), (effects,), beside)


def told_apart(result: Result) -> Section:
    """How well a score tells cases from controls."""
    answer, name, facts = result.answer, result.question.name, result.answer.facts
    asked, table = parameters(result.question.analysis), answer.tables["tenths"]
    low, high, people, controls, cases, odds = (
        floats(table[c]) for c in ("low", "high", "people", "controls", "cases", "odds_ratio")
    )
    tenths = Table(
        "Tenths of the score",
        ("tenth", "score", "people", "controls", "cases", "odds ratio to the middle fifth"),
        tuple(
            (
                str(i + 1),
                between(low[i], high[i], 2),
                count(people[i]),
                count(controls[i]),
                count(cases[i]),
                fixed(odds[i], 2),
            )
            for i in range(len(low))
        ),
        (False, *(True,) * 5),
    )
    ratio, least, most = (number(facts, f"odds_ratio_{end}") for end in ("per_standard_deviation", "low", "high"))
    area = number(facts, "area")
    beside = in_short(
        ("people with every column", count(number(facts, "people"))),
        ("cases", count(number(facts, "cases"))),
        ("controls", count(number(facts, "controls"))),
        ("area under the ROC curve (AUC)", fixed(area, 3)),
        ("of the unbinned scores it lies in", between(number(facts, "area_low"), number(facts, "area_high"), 3)),
        ("odds ratio per standard deviation", fixed(ratio, 2)),
        ("its 95 % interval", between(least, most, 2)),
        ("p", power(number(facts, "p_value"))),
    )
    caption = f"Odds of {asked['label']} in each tenth of the score over those of the middle fifth (hollow), with 95 % "
    caption += "intervals where counts are shown."
    drawn = figure(f"{name}-tenths", caption, partial(draw_tenths, answer), Size(352, 300))
    lead = (
        f"{asked['predictor']} tells {asked['label']} from the rest with an area under the curve of {fixed(area, 3)}; "
    )
    lead += f"the odds ratio of a standard deviation is {fixed(ratio, 2)} (95 % interval {between(least, most, 2)})."
    return Section(f"How well {asked['predictor']} tells {asked['label']}", lead, (drawn,), (tenths,), beside)

"""Regressions in the report: coefficients in a table, and as a forest plot."""

from __future__ import annotations

from functools import partial

import numpy as np

from fl_server.conduct import Result
from fl_server.results.figures import Figure, Size, figure
from fl_server.results.section import Section, Table, in_short
from fl_server.results.words import NONE, between, count, fixed, floats, number, power, short
from strategies.analysis import Answer
from strategies.coefficients import MOST_DRAWN, draw_forest

FACTS = (
    ("sites", "sites with an intercept of their own"),
    ("log_likelihood", "log likelihood"),
    ("null_log_likelihood", "log likelihood without columns"),
    ("deviance", "deviance"),
    ("null_deviance", "deviance without columns"),
    ("dispersion", "dispersion"),
    ("aic", "AIC"),
    ("bic", "BIC"),
    ("r2", "R²"),
    ("r2_adjusted", "adjusted R²"),
    ("people_noise_sd", "noise of the number of people (SD)"),
    ("product_noise_sd", "noise of each sum of products (SD)"),
    ("score_noise_sd", "noise of each sum of the last step's score (SD)"),
    ("information_noise_sd", "noise of each sum of its information (SD)"),
    ("rounds", "rounds"),
    ("ridge", "ridge"),
)

ERRORS = {
    "classical": "the model's own",
    "hc0": "robust (HC0)",
    "hc1": "robust (HC1)",
    "clustered": "robust, each site a cluster",
    "noised": "of sampling and of the noise added for privacy",
}


def fitted(result: Result) -> Section:
    """A regression's coefficients."""
    answer, facts = result.answer, result.answer.facts
    response, family = str(facts["response"]), str(facts["distribution"]).replace("_", " ")
    cases = (("cases", count(number(facts, "cases"))), ("controls", count(number(facts, "controls"))))
    beside = in_short(
        ("people with every column", count(number(facts, "people"))),
        *(cases if "cases" in facts else ()),
        ("distribution", family),
        ("standard errors", ERRORS[str(facts["errors"])]),
        *((word, short(number(facts, name))) for name, word in FACTS if name in facts),
    )
    lead = f"{response} on {facts['formula']}: {family} regression over the people of all sites together. "
    lead += told(answer)
    return Section(f"Regression of {response}", lead, (forest(result),), (coefficients(answer),), beside)


def mixed(result: Result) -> Section:
    """A mixed model's coefficients and variances."""
    answer, facts = result.answer, result.answer.facts
    response = str(facts.get("response", "the response"))
    beside = in_short(
        ("people with every column", count(number(facts, "people"))),
        ("sites combined", count(number(facts, "sites"))),
        ("variance between sites", short(number(facts, "site_variance"))),
        ("variance within sites", short(number(facts, "residual_variance"))),
        ("intraclass correlation", fixed(number(facts, "intraclass_correlation"), 4)),
        ("log likelihood", short(number(facts, "log_likelihood"))),
    )
    parts = tuple(
        (site, count(number(one.facts, "people")), "" if one.facts["problem"] == "none" else str(one.facts["problem"]))
        for site, one in result.by_site.items()
    )
    sites = Table("Each site's own part", ("site", "people", "left out because"), parts, (False, True, False))
    lead = f"{response} on {facts.get('formula', 'columns')}, with a random intercept for each site, by "
    lead += "full" if facts.get("method") == "ml" else "restricted"
    lead += f" maximum likelihood. {told(answer)}"
    return Section(f"Mixed model of {response}", lead, (forest(result),), (coefficients(answer), sites), beside)


def told(answer: Answer) -> str:
    """Why there are no estimates, or which of them are far from 0."""
    facts, table = answer.facts, answer.tables["coefficients"]
    if facts["problem"] != "none":
        return f"There are no estimates: {facts['problem']}."
    if number(facts, "ridge") > 0:
        return "Too little stands out from the noise: a ridge draws coefficients towards 0, and there are no intervals."
    p = floats(table["p_value"])
    at = [i for i, term in enumerate(table["term"]) if not str(term).startswith("(")]
    below = int(np.count_nonzero(p[at] < 0.05))
    return f"{count(below)} of {count(len(at))} coefficients have a p below 0.05."


def coefficients(answer: Answer) -> Table:
    """The table of coefficients."""
    table, effect = answer.tables["coefficients"], str(answer.facts.get("effect", "coefficient"))
    names = ("coefficient", "standard_error", "statistic", "p_value", "low", "high")
    value, error, statistic, p, low, high = (floats(table[name]) for name in names)
    ratio = [floats(table[name]) for name in ("ratio", "ratio_low", "ratio_high")] if "ratio" in table else []
    rows = []
    for i, term in enumerate(table["term"]):
        row = [str(term), short(value[i], 4), short(error[i], 4), fixed(statistic[i], 2), power(p[i])]
        row.append(_interval(low[i], high[i]))
        if ratio:
            inner = str(term).startswith("(")
            row += [NONE, NONE] if inner else [short(ratio[0][i], 4), _interval(ratio[1][i], ratio[2][i])]
        rows.append(tuple(row))
    more = (effect, "its 95 % interval") if ratio else ()
    head = ("term", "coefficient", "standard error", "z or t", "p", "95 % interval", *more)
    return Table("Coefficients", head, tuple(rows), (False, *(True,) * (len(head) - 1)))


def _interval(low: float, high: float) -> str:
    if not np.isfinite([low, high]).all():
        return between(float("nan"), float("nan"), 2)
    return f"{short(low, 4)} to {short(high, 4)}"


def forest(result: Result) -> Figure:
    """The coefficients with their intervals."""
    answer = result.answer
    rows = sum(not str(term).startswith("(") for term in answer.tables["coefficients"]["term"])
    effect = str(answer.facts.get("effect", "coefficient"))
    caption = f"{effect.capitalize()}s with 95 % intervals"
    if answer.facts.get("errors") == "noised":
        caption += f" {ERRORS['noised']}"
    caption += ", on an axis of logarithms." if "ratio" in answer.tables["coefficients"] else "."
    if rows > MOST_DRAWN:
        caption += f" The first {MOST_DRAWN} of {rows}."
    size = Size(352, 84 + 26 * max(1, min(rows, MOST_DRAWN)))
    return figure(f"{result.question.name}-forest", caption, partial(draw_forest, answer), size)

"""The report: one self-contained page. What was asked, who answered, the answers, and what was promised about each."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import jinja2
from markupsafe import Markup

from fl_server.conduct import Result
from fl_server.results import statement
from fl_server.results.attack import HOW_MEASURED, Attacks, MeasuredAttack
from fl_server.results.section import Table, terms
from fl_server.results.sections import SECTIONS
from fl_server.results.words import NONE, count, fixed, listed, power, short, spoken
from strategies.analysis import Range, parameters
from strategies.federation import Federation
from strategies.privacy import Loss, Regime
from strategies.study import Study
from strategies.version import package_version
from strategies.wording import steps_told, told


def render(
    study: Study,
    federation: Federation,
    results: Sequence[Result],
    attacks: Attacks,
    today: datetime.date,
    files: Sequence[str],
) -> str:
    """The page as HTML.

    Args:
        attacks: what was measured on the answers.
        today: the day that the page states.
        files: where each file of the answers lies, from the page's own folder; the page links them.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("fl_server.results", "."), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["markup"] = Markup  # for drawings alone: matplotlib has escaped their texts
    return environment.get_template("report.html.jinja").render(
        study=study,
        federation=federation,
        today=f"{today.day} {today:%B %Y}",
        version=package_version(),
        purpose=study.purpose.value.replace("_", " "),
        asked=_asked(study),
        columns=_columns(study),
        cohorts=_cohorts(study),
        answered=_answered(federation, results),
        silent=_silent(federation, results),
        answers=[_answer(r, attacks.get(r.question.name, ()), files) for r in results],
        not_for_publication=statement.NOT_FOR_PUBLICATION,
        how_measured=HOW_MEASURED,
        disjoint=statement.DISJOINT,
        together=_together(results),
        synthetic=sorted({site for r in results for site in r.statement.synthetic}),
    )


def _together(results: Sequence[Result]) -> str:
    """What all private questions cost the same person, which is more than any one of them."""
    budgets = [r.question.budget for r in results if r.question.budget]
    if len(budgets) < 2:
        return ""
    delta = max(b.delta for b in budgets)
    rho = sum(r.statement.rho for r in results)
    return (
        f"Together, the {len(budgets)} private questions cost a person at a site "
        f"epsilon {Loss(rho).epsilon(delta):.3g} at delta {power(delta)} (rho {rho:.4g})."
    )


# -- what was asked, who answered -----------------------------------------------------------------------------------


def _asked(study: Study) -> Table:
    rows = []
    for question in study.questions:
        own = parameters(question.analysis)
        panel = study.frame(question).panel
        what = [f"cohort {question.cohort}"] if question.cohort else []
        if panel is not None:
            what.append(f"{count(len(panel))} variants")
        named = {"traits": "traits", "label": "label", "response": "response", "formula": "formula"}
        named |= {"covariates": "covariates", "by": "groups", "sex": "sexes"}
        what += [f"{word} {listed(own[key])}" for key, word in named.items() if own.get(key)]
        budget = question.budget
        price = f"ε {budget.epsilon:g}, δ {power(budget.delta)} per {budget.unit}" if budget else NONE
        rows.append((question.name, spoken(question), question.regime.value, "; ".join(what), price))
    return Table(
        "Questions, in the order in which they were asked",
        ("question", "analysis", "regime", "about", "price"),
        tuple(rows),
        (False,) * 5,
    )


def _columns(study: Study) -> Table | None:
    if not study.columns:
        return None
    rows = tuple((name, _said(column)) for name, column in study.columns.items())
    caption = "Columns that the study names, and the public range to which every site clamps them"
    return Table(caption, ("column", "range"), rows, (False, False))


def _said(column: Range) -> str:
    derived = "" if column.value is None else f": {told(column.value)}"
    if column.categories:
        return ", ".join(column.categories) + derived
    return f"{short(column.minimum)} to {short(column.maximum)}" + f" {column.ucum}" * bool(column.ucum) + derived


def _cohorts(study: Study) -> Table | None:
    if not study.cohorts:
        return None
    steps = {name: zip(cohort.texts, steps_told(cohort), strict=True) for name, cohort in study.cohorts.items()}
    rows = tuple((name, text, words) for name, both in steps.items() for text, words in both)
    caption = "Cohorts that the study defines: who is in one passes all its steps"
    return Table(caption, ("cohort", "step", "in words"), rows, (False, False, False))


def _answered(federation: Federation, results: Sequence[Result]) -> Table:
    rows = []
    for site, node in federation.nodes.items():
        cells = []
        for result in results:
            s = result.statement
            cells.append("answered" if site in s.sites else s.absent.get(site, "not asked"))
        policies = sorted({r.statement.policies[site] for r in results if site in r.statement.policies})
        rows.append((site, node.country, *cells, ", ".join(p[:16] for p in policies) or NONE))
    names = tuple(r.question.name for r in results)
    head = ("site", "country", *names, "policy (digest)")
    return Table("Sites of the federation and what they did", head, tuple(rows), (False,) * len(head))


def _silent(federation: Federation, results: Sequence[Result]) -> list[str]:
    """One sentence for each site and reason that kept it from answers."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for result in results:
        for site in federation.nodes:
            if site not in result.statement.sites:
                why = result.statement.absent.get(site, "was not asked")
                reasons.setdefault((site, why), []).append(result.question.name)
    everything = len(results)
    return [
        f"{site} {why}: not in {'any answer' if len(names) == everything else listed(names)}."
        for (site, why), names in reasons.items()
    ]


def _answer(result: Result, attacks: Sequence[MeasuredAttack], files: Sequence[str]) -> dict[str, Any]:
    question = result.question
    section = SECTIONS[question.analysis.analysis, question.regime](result)
    figures = tuple(replace(drawn, caption=f"{drawn.caption} {terms(result)}") for drawn in section.figures)
    return {
        "name": question.name,
        "analysis": spoken(question),
        "regime": question.regime.value,
        "exact": question.regime is Regime.EXACT,
        "words": question.analysis.summary_in_words,
        "promise": statement.promise(question),
        "section": replace(section, figures=figures),
        "membership": f"{attacks[0].auc:.2f}" if attacks else None,
        "draws": round(100 * attacks[0].auc) if attacks else None,
        "attacks": _attacks(attacks) if attacks else None,
        "statement": _statement(result),
        "bytes": _bytes(result),
        "files": _files(question.name, files),
    }


def _files(question: str, files: Sequence[str]) -> list[tuple[str, str]]:
    """What each link to a question's files says, and where it leads; of a folder, the first file alone."""
    own, folders = [f for f in files if f.startswith(f"{question}/")], dict[str, list[str]]()
    for file in own:
        folders.setdefault(file.rpartition("/")[0], []).append(file)
    links = [(f.removeprefix(f"{question}/"), f) for f in folders.pop(question, [])]
    for folder, inside in folders.items():
        first = inside[0].removeprefix(f"{question}/")
        more = f" and {count(len(inside) - 1)} more in {folder.removeprefix(question)[1:]}/" if len(inside) > 1 else ""
        links.append((f"{first}{more}", inside[0]))
    return links


# -- what was promised ----------------------------------------------------------------------------------------------


def _statement(result: Result) -> tuple[tuple[str, str], ...]:
    said = statement.document(result, ())
    exact = result.question.regime is Regime.EXACT
    together = said["noise_sd_together"]
    noise = ", ".join(f"{name} {sd:.3g} (together {together[name]:.3g})" for name, sd in said["noise_sd"].items())
    attempts = f" over {said['attempts']} attempts, each with other noise" if said["attempts"] > 1 else ""
    cell = said["minimum_cell"]
    if not exact:
        rule = "not applied: nothing about the data withholds a private answer"
    elif cell > 1:
        rule = f"{cell} people; {count(said['withheld_rows'])} rows withheld"
    else:
        rule = "none: the sites' policies set no minimum"
    return (
        ("regime", said["regime"]),
        ("for whom", said["for_whom"]),
        ("epsilon", NONE + " (no such claim)" if said["epsilon"] is None else f"{said['epsilon']:.4g}"),
        ("delta", NONE + " (no such claim)" if exact else power(said["delta"])),
        ("unit", f"{said['unit']}, at each site"),
        ("budget", NONE + " (nothing is spent)" if exact else said["budget_in_words"]),
        ("loss in zCDP", NONE + " (no such claim)" if exact else f"rho {said['rho']:.4g} at each site{attempts}"),
        ("noise of each site, standard deviation", NONE if exact else noise),
        ("minimum people at a site", _least(said["minimum_people"]) if exact else "not applied: nothing is refused"),
        ("minimum people in a cell", rule),
        ("minimum sites", _least(said["minimum_sites"])),
        ("honest sites assumed", said["honest_sites_in_words"]),
        ("sites in the answer", listed(said["sites"])),
        ("version of the data", ", ".join(f"{site} {n}" for site, n in said["data_versions"].items())),
        ("people", "synthetic: nobody stands behind the data" if said["synthetic"] else "real"),
        ("sites absent", _why(said["absent"])),
        ("sites whose masks the others opened", _why(said["recovered"])),
    )


def _why(sites: Mapping[str, str]) -> str:
    return "; ".join(f"{site} {why}" for site, why in sites.items()) or "none"


def _attacks(attacks: Sequence[MeasuredAttack]) -> Table:
    first = attacks[0]
    made_up = "synthetic " if first.synthetic else ""
    rows = tuple(
        (
            a.attack,
            f"{fixed(a.auc, 3)}\n{fixed(a.auc_low_95, 3)}–{fixed(a.auc_high_95, 3)}",
            fixed(a.tpr_at_fpr_1e_2, 2),
            fixed(a.tpr_at_fpr_1e_3, 2),
            fixed(a.epsilon_at_least, 2),
            NONE if a.auc_at_most is None else fixed(a.auc_at_most, 3),
            a.reference,
        )
        for a in attacks
    )
    caption = (
        f"Measured attacks: {count(first.members)} {made_up}people who took part, {count(first.others)} who did not"
    )
    head = (
        "attack",
        "AUC and 95 % interval",
        "found at 1 in 100 false",
        "found at 1 in 1,000 false",
        "ε at least",
        "AUC allowed",
        "compared with",
    )
    return Table(caption, head, rows, (False, *(True,) * 5, False))


def _bytes(result: Result) -> Table:
    left = result.statement.bytes_left
    rows = tuple((site, count(left[site])) for site in result.statement.sites)
    rows += (("together", count(sum(left[site] for site in result.statement.sites))),)
    return Table("Bytes that left each site", ("site", "bytes"), rows, (False, True))


def _least(value: int) -> str:
    return count(value) if value > 0 else "none"

"""The report: one self-contained page. What was asked, who answered, the answers, and what was promised about each."""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from fl_server.conduct import Result
from fl_server.results import statement
from fl_server.results.attack import HOW_MEASURED, Attacks, MeasuredAttack
from fl_server.results.figures import Figure, Size, figure
from strategies.analyses.allele_frequency import NoisedFrequency, draw_intervals
from strategies.analyses.association import LinearAssociation
from strategies.analyses.genotype_counts import GenotypeCounts, draw_hardy_weinberg, draw_spectrum
from strategies.analyses.linkage import LinkageDisequilibrium, draw_decay
from strategies.analyses.meta_analysis import MetaAnalysis, draw_forest
from strategies.analysis import Column, parameters
from strategies.evidence import GENOME_WIDE, draw_manhattan, draw_quantiles, genomic_inflation
from strategies.federation import Federation
from strategies.learning.train import draw_roc, draw_training
from strategies.privacy import Loss, Regime
from strategies.study import Question, Study
from strategies.version import package_version

NONE = "–"
TOP_ROWS = 10
TRAITS_DRAWN = 2
"""Traits of an association that have figures in the page; all have their files and a line."""

SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Table:
    """A table in the page; columns of numbers are set flush right."""

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: tuple[bool, ...]


@dataclass(frozen=True)
class Section:
    """One answer in the page.

    Attributes:
        title, lead: what it is and what it says, in one sentence each.
        figures, tables: what shows it.
        beside: a table that fills the place beside a single figure.
    """

    title: str
    lead: str
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()
    beside: Table | None = None


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
        what = []
        if panel is not None:
            what.append(f"{count(len(panel))} variants")
        named = {"traits": "traits", "label": "label", "covariates": "covariates", "by": "groups", "sex": "sexes"}
        what += [f"{word} {_listed(own[key])}" for key, word in named.items() if own.get(key)]
        budget = question.budget
        price = f"ε {budget.epsilon:g}, δ {power(budget.delta)} per {budget.unit}" if budget else NONE
        rows.append((question.name, _name(question), question.regime.value, "; ".join(what), price))
    return Table(
        "Questions, in the order in which they were asked",
        ("question", "analysis", "regime", "about", "price"),
        tuple(rows),
        (False,) * 5,
    )


def _columns(study: Study) -> Table | None:
    if not study.columns:
        return None
    rows = tuple((name, f"{_short(r.minimum)} to {_short(r.maximum)}") for name, r in study.columns.items())
    caption = "Columns that the study names, and the public range to which every site clamps them"
    return Table(caption, ("column", "range"), rows, (False, False))


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
        f"{site} {why}: not in {'any answer' if len(names) == everything else _listed(names)}."
        for (site, why), names in reasons.items()
    ]


def _answer(result: Result, attacks: Sequence[MeasuredAttack], files: Sequence[str]) -> dict[str, Any]:
    question = result.question
    own = SECTIONS.get((question.analysis.analysis, question.regime), _any)
    section = own(result) if result.answer.tables or not result.by_site else _parts(result)
    return {
        "name": question.name,
        "analysis": _name(question),
        "regime": question.regime.value,
        "exact": question.regime is Regime.EXACT,
        "words": question.analysis.summary_in_words,
        "promise": statement.promise(question),
        "section": section,
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


# -- the answers ----------------------------------------------------------------------------------------------------


def _genotype_counts(result: Result) -> Section:
    answer, name = result.answer, result.question.name
    table = answer.tables["frequencies"]
    frequency, rate, p = (_numbers(table[c]) for c in ("frequency", "call_rate", "hwe_p"))
    shown = np.isfinite(frequency)
    minor = np.minimum(frequency, 1 - frequency)[shown]
    least = np.nanmin(rate) if np.isfinite(rate).any() else math.nan
    few = int(np.count_nonzero(table["held_by_few"]))
    rows = (
        ("people", count(answer.facts["people"])),
        ("variants asked", count(len(frequency))),
        ("variants shown", count(int(shown.sum()))),
        ("variants withheld for a small cell", count(answer.withheld - few)),
        ("variants withheld because fewer than three sites hold them", count(few)),
        ("minor allele frequency below 0.01", count(int((minor < 0.01).sum()))),
        ("minor allele frequency 0.01 to 0.05", count(int(((minor >= 0.01) & (minor < 0.05)).sum()))),
        ("minor allele frequency of at least 0.05", count(int((minor >= 0.05).sum()))),
        ("lowest call rate", _fixed(least, 4)),
        ("Hardy-Weinberg p below 10⁻⁶", count(int((p < 1e-6).sum()))),
    )
    order = np.argsort(np.where(np.isfinite(p), p, 2.0), kind="stable")[:5]
    cells = [_numbers(table[c]) for c in ("hom_ref", "het", "hom_alt")]
    lowest = tuple(
        (_variant(table, i), *(count(c[i]) for c in cells), _fixed(frequency[i], 3), power(p[i]))
        for i in order
        if np.isfinite(p[i])
    )
    tables = (
        Table("The answer in short", ("", "number"), rows, (False, True)),
        Table(
            "The five variants farthest from Hardy-Weinberg proportions",
            ("variant", "ref/ref", "ref/alt", "alt/alt", "frequency", "p"),
            lowest,
            (False, *(True,) * 5),
        ),
    )
    figures = (
        figure(f"{name}-spectrum", "Variants by minor allele frequency.", partial(draw_spectrum, answer)),
        figure(
            f"{name}-hardy-weinberg",
            "Hardy-Weinberg test: exact p values against those expected without departures.",
            partial(draw_hardy_weinberg, answer),
        ),
    )
    people = count(answer.facts["people"])
    lead = f"{count(int(shown.sum()))} of {count(len(frequency))} variants, counted over {people} people."
    more = (_groups(result),) if "populations" in answer.tables else ()
    given = (*tables[:1], *(tables[1:] if lowest else ()), *more)
    return Section("Genotype counts and allele frequencies", lead, figures, given)


def _groups(result: Result) -> Table:
    """A question's groups: how many people each has, and how many variants it shows."""
    answer, analysis = result.answer, result.question.analysis
    of, frequency = np.array(answer.tables["populations"]["population"]), answer.tables["populations"]["frequency"]
    shown = np.isfinite(_numbers(frequency))
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


def _noised_frequencies(result: Result) -> Section:
    answer, by_site, name = result.answer, result.by_site, result.question.name
    table = answer.tables["frequencies"]
    columns: list[tuple[str, Mapping[str, Column]]] = [("together", table)]
    columns += [(site, one.tables["frequencies"]) for site, one in by_site.items()]
    published = _numbers(table["published_frequency"])
    rows = tuple(
        (_variant(table, i), _fixed(published[i], 2), *(_interval(t, i) for _, t in columns))
        for i in range(len(table["id"]))
    )
    head = ("variant", "published", *(label for label, _ in columns))
    people = tuple(
        (label, count(round(float(one.facts["people"]))), _fixed(float(one.facts["people_noise_sd"]), 1))
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


def _association(result: Result) -> Section:
    answer, name = result.answer, result.question.name
    traits = tuple(answer.tables)
    shown = {trait: np.isfinite(_numbers(table["p_value"])) for trait, table in answer.tables.items()}
    figures = tuple(drawn for trait in traits[:TRAITS_DRAWN] for drawn in _evidence(name, trait, answer.tables[trait]))
    table = answer.tables[traits[0]]  # what holds of a variant holds for every trait
    few = int(np.count_nonzero(table["held_by_few"]))
    inflation, passing, top = zip(*(_found(answer.tables[trait]) for trait in traits), strict=True)
    short = (
        ("people with traits and covariates", count(answer.facts["people"])),
        ("variants tested", count(int(shown[traits[0]].sum()))),
        ("of these, with the mean given to people without a genotype", count(answer.facts["imputed"])),
        ("variants left out for few copies of the rarer allele", count(answer.facts["rare"])),
        ("variants withheld for a small cell", count(answer.withheld - few - int(np.count_nonzero(table["rare"])))),
        ("variants withheld because fewer than three sites hold them", count(few)),
        ("variants with p below 5 × 10⁻⁸", ", ".join(map(count, passing[:TRAITS_DRAWN]))),
        ("genomic inflation λ", ", ".join(_fixed(v, 3) for v in inflation[:TRAITS_DRAWN])),
    )
    beside = Table("The answer in short", ("", "number"), short, (False, True))
    tables = [_top_hits(trait, answer.tables[trait], len(traits) > 1) for trait in traits[:TRAITS_DRAWN]]
    if len(traits) > 1:
        rows = tuple(
            (t, count(n), _fixed(v, 3), _variant(answer.tables[t], i), power(_numbers(answer.tables[t]["p_value"])[i]))
            if i is not None
            else (t, count(n), _fixed(v, 3), NONE, NONE)
            for t, n, v, i in zip(traits, passing, inflation, top, strict=True)
        )
        head = ("trait", "p below 5 × 10⁻⁸", "λ", "smallest p at", "p")
        tables.append(Table(f"The {len(traits)} traits", head, rows, (False, True, True, False, True)))
    covariates = f", adjusted for {answer.facts['covariates']}" if answer.facts.get("covariates") else ""
    what = traits[0] if len(traits) == 1 else f"each of {len(traits)} traits"
    lead = f"Linear regression of {what} on each variant{covariates}."
    if (at := top[0]) is not None:
        beta, p = (_numbers(table[c])[at] for c in ("beta", "p_value"))
        lead += f" The top variant{'' if len(traits) == 1 else f' of {traits[0]}'} is {_variant(table, at)}: "
        lead += f"beta {_fixed(beta, 4)}, p = {power(p)}."
    return Section(f"Association with {what}", lead, figures, tuple(tables), beside)


def _found(table: Mapping[str, Column]) -> tuple[float, int, int | None]:
    """Genomic inflation, variants beyond genome-wide significance, and where the smallest p value is, if any."""
    p = _numbers(table["p_value"])
    there = np.isfinite(p)
    top = int(np.argmin(np.where(there, p, 2.0))) if there.any() else None
    return genomic_inflation(p), int((p[there] < GENOME_WIDE).sum()), top


def _top_hits(trait: str, table: Mapping[str, Column], named: bool) -> Table:
    names = ("p_value", "beta", "standard_error", "effect_allele_frequency", "n")
    p, beta, error, frequency, n = (_numbers(table[c]) for c in names)
    order = np.argsort(np.where(np.isfinite(p), p, 2.0), kind="stable")[:TOP_ROWS]
    rows = tuple(
        (
            _variant(table, i),
            str(table["alt"][i]),
            _fixed(frequency[i], 3),
            _fixed(beta[i], 4),
            _fixed(error[i], 4),
            power(p[i]),
            count(n[i]),
        )
        for i in order.tolist()
        if np.isfinite(p[i])
    )
    of = f" of {trait}" if named else ""
    return Table(
        f"The {len(rows)} variants with the smallest p values{of}",
        ("variant", "effect allele", "frequency", "beta", "standard error", "p", "n"),
        rows,
        (False, False, *(True,) * 5),
    )


def _evidence(name: str, trait: str, table: Mapping[str, Column]) -> tuple[Figure, Figure]:
    return (
        figure(
            f"{name}-{trait}-manhattan",
            f"{trait}, Manhattan plot: evidence along the genome. The dashed line is the level 5 × 10⁻⁸.",
            partial(draw_manhattan, table),
            Size(720, 330),
            Size(352, 300),
        ),
        figure(
            f"{name}-{trait}-quantiles",
            f"{trait}, QQ plot: observed against expected evidence; the band holds 95 % of null p values.",
            partial(draw_quantiles, table),
        ),
    )


def _training(result: Result) -> Section:
    answer, name, facts = result.answer, result.question.name, result.answer.facts
    area, low, high = (float(facts.get(key, math.nan)) for key in ("auc", "auc_low_95", "auc_high_95"))
    single = float(facts.get("simulation_only_best_variant_auc", math.nan))
    which = f" ({facts['simulation_only_best_variant']})" if "simulation_only_best_variant" in facts else ""
    rows = [
        ("area under the ROC curve (AUC), held out", f"{_fixed(area, 3)} ({_fixed(low, 3)} to {_fixed(high, 3)})"),
        ("standard deviation of the noise in it", _fixed(float(facts.get("auc_noise_sd", math.nan)), 3)),
    ]
    if math.isfinite(single):
        rows.append((f"beside it: the best single variant{which}, AUC", _fixed(single, 3)))
    share = facts.get("training_share")
    held_out = [float(facts.get(key, math.nan)) for key in ("held_out_with_label", "held_out_without_label")]
    rows += [
        ("held-out share of each site's people", NONE if share is None else f"{100 * (1 - float(share)):g} %"),
        ("held-out people with and without the label, noised", " and ".join(_whole(v) for v in held_out)),
        ("model", str(facts.get("model", NONE))),
        ("parameters", count(facts.get("parameters"))),
        ("training rounds", count(facts.get("training_rounds"))),
    ]
    if "roc" in answer.tables and "training" in answer.tables:
        figures: tuple[Figure, ...] = (
            figure(f"{name}-roc", "ROC curve on the people held out, from noised counts.", partial(draw_roc, answer)),
            figure(
                f"{name}-training",
                "Training curve: where it comes down to the dashed noise, nothing is left to learn.",
                partial(draw_training, answer),
            ),
        )
    else:
        figures = ()
    label = facts.get("label", "the label")
    interval = f"95 % interval {_fixed(low, 2)} to {_fixed(high, 2)}"
    lead = f"A model that predicts {label} reaches an AUC of {_fixed(area, 2)} ({interval}) on people it has not seen"
    lead += f"; the best single variant alone reaches {_fixed(single, 2)}." if math.isfinite(single) else "."
    if not math.isfinite(area):
        lead = f"A model that predicts {label}; its AUC cannot be told from the noise."
    table = Table("The model in short; its card lies beside the parameters", ("", "value"), tuple(rows), (False, True))
    return Section(f"Prediction of {label}", lead, figures, (table,))


def _parts(result: Result) -> Section:
    """An exact answer for each site: how much of its part each shows. The numbers lie in the table by site."""
    rows = tuple((site, count(one.facts.get("people")), count(one.withheld)) for site, one in result.by_site.items())
    table = Table("Each site's own part", ("site", "people", "rows withheld"), rows, (False, True, True))
    lead = (
        f"Given for each of {len(rows)} sites, and not over all of them: a total would give away what a site withheld."
    )
    return Section(f"{_name(result.question).capitalize()} for each site", lead, (), (table,))


def _any(result: Result) -> Section:
    """An analysis without a page of its own here: its facts, and the first rows of its tables."""
    answer = result.answer
    facts = tuple(
        (key.replace("_", " "), count(value) if isinstance(value, int) else str(value))
        for key, value in answer.facts.items()
    )
    tables = [Table("Facts", ("", "value"), facts, (False, True))]
    for name, table in answer.tables.items():
        columns = [np.asarray(c)[:TOP_ROWS].tolist() for c in table.values()]
        rows = tuple(tuple(str(v) for v in row) for row in zip(*columns, strict=True))
        tables.append(Table(f"First rows of {name}", tuple(table), rows, (False,) * len(table)))
    draw = FIGURES.get(result.question.analysis.analysis)
    figures = draw(result) if draw else ()
    return Section(_name(result.question), result.question.analysis.summary_in_words, figures, tuple(tables))


def _forest(result: Result) -> tuple[Figure, ...]:
    name, caption = result.question.name, "The variant with the smallest p value: each site's beta, and both combined."
    size = Size(352, 110 + 24 * (len(result.by_site) + 2))
    draw = partial(draw_forest, result.answer, result.by_site)
    return tuple(
        figure(f"{name}-forest-{number}", f"{trait}. {caption}", partial(draw, trait), size)
        for number, trait in enumerate(result.answer.tables)
    )


def _decay(result: Result) -> tuple[Figure, ...]:
    caption = "r² of pairs of variants by distance, and its mean."
    return (figure(f"{result.question.name}-decay", caption, partial(draw_decay, result.answer)),)


FIGURES: Mapping[str, Callable[[Result], tuple[Figure, ...]]] = {
    MetaAnalysis.analysis: _forest,
    LinkageDisequilibrium.analysis: _decay,
}
"""What is drawn of analyses without a page of their own here."""


SECTIONS: Mapping[tuple[str, Regime], Callable[[Result], Section]] = {
    (GenotypeCounts.analysis, GenotypeCounts.regime): _genotype_counts,
    (NoisedFrequency.analysis, NoisedFrequency.regime): _noised_frequencies,
    (LinearAssociation.analysis, LinearAssociation.regime): _association,
    ("train", Regime.PRIVATE): _training,
}


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
        ("minimum people at a site", _minimum(said["minimum_people"]) if exact else "not applied: nothing is refused"),
        ("minimum people in a cell", rule),
        ("minimum sites", _minimum(said["minimum_sites"])),
        ("honest sites assumed", said["honest_sites_in_words"]),
        ("sites in the answer", _listed(said["sites"])),
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
            f"{_fixed(a.auc, 3)}\n{_fixed(a.auc_low_95, 3)}–{_fixed(a.auc_high_95, 3)}",
            _fixed(a.tpr_at_fpr_1e_2, 2),
            _fixed(a.tpr_at_fpr_1e_3, 2),
            _fixed(a.epsilon_at_least, 2),
            NONE if a.auc_at_most is None else _fixed(a.auc_at_most, 3),
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


# -- numbers and names ----------------------------------------------------------------------------------------------


def count(value: Any) -> str:
    """A whole number with thin spaces between thousands; a dash where there is none."""
    if value is None or not math.isfinite(value):
        return NONE
    return f"{round(value):,}".replace(",", "\u202f").replace("-", "−")


def power(value: float) -> str:
    """A number in three digits, with a power of ten where it is small.

    >>> power(2.5e-83), power(0.0312), power(1e-5)
    ('2.5 × 10⁻⁸³', '0.0312', '10⁻⁵')
    """
    if not math.isfinite(value):
        return NONE
    if value == 0:
        return "below 10⁻³⁰⁰"
    if value >= 0.001:
        return f"{value:.3g}"
    mantissa, exponent = f"{value:.1e}".split("e")
    ten = "10" + str(int(exponent)).translate(SUPERSCRIPTS)
    return ten if mantissa == "1.0" else f"{mantissa} × {ten}"


def _fixed(value: float, digits: int) -> str:
    return f"{value:.{digits}f}".replace("-", "−") if math.isfinite(value) else NONE


def _whole(value: float) -> str:
    return count(value) if math.isfinite(value) else NONE


def _short(value: float) -> str:
    return f"{value:g}".replace("-", "−")


def _minimum(value: int) -> str:
    return count(value) if value > 0 else "none"


def _numbers(column: Column) -> NDArray[np.float64]:
    return np.asarray(column, dtype=np.float64)


def _listed(names: Any) -> str:
    names = [names] if isinstance(names, str) else [str(n) for n in names]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else "none"


def _name(question: Question) -> str:
    return question.analysis.analysis.replace("_", " ")


def _variant(table: Mapping[str, Column], i: int) -> str:
    return f"{table['chromosome'][i]}:{int(_numbers(table['position'])[i])} {table['ref'][i]}>{table['alt'][i]}"


def _interval(table: Mapping[str, Column], i: int) -> str:
    value, low, high = (_numbers(table[c])[i] for c in ("frequency", "low_95", "high_95"))
    return f"{_fixed(value, 2)}\n{_fixed(low, 2)}–{_fixed(high, 2)}"

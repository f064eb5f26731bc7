"""Trained models in the report."""

from __future__ import annotations

import math
from functools import partial

from fl_server.conduct import Result
from fl_server.results.figures import Figure, Size, figure
from fl_server.results.section import Section, Table, in_short
from fl_server.results.words import NONE, between, count, fixed, floats, number, short
from strategies.learning.boosted_trees import draw_importance
from strategies.learning.train import draw_roc, draw_training


def trained(result: Result) -> Section:
    """A model that was trained privately."""
    answer, name, facts = result.answer, result.question.name, result.answer.facts
    area, low, high = (number(facts, key) for key in ("auc", "auc_low_95", "auc_high_95"))
    single = number(facts, "simulation_only_best_variant_auc")
    which = f" ({facts['simulation_only_best_variant']})" if "simulation_only_best_variant" in facts else ""
    rows = [
        ("area under the ROC curve (AUC), held out", f"{fixed(area, 3)} ({between(low, high, 3)})"),
        ("standard deviation of the noise in it", fixed(number(facts, "auc_noise_sd"), 3)),
    ]
    if math.isfinite(single):
        rows.append((f"beside it: the best single variant{which}, AUC", fixed(single, 3)))
    share = facts.get("training_share")
    held_out = [number(facts, key) for key in ("held_out_with_label", "held_out_without_label")]
    rows += [
        ("held-out share of each site's people", NONE if share is None else f"{100 * (1 - float(share)):g} %"),
        ("held-out people with and without the label, noised", " and ".join(map(count, held_out))),
        ("model", str(facts.get("model", NONE))),
        ("parameters", count(facts.get("parameters"))),
        ("training rounds", count(facts.get("training_rounds"))),
    ]
    figures: tuple[Figure, ...] = ()
    if "roc" in answer.tables and "training" in answer.tables:
        figures = (
            figure(f"{name}-roc", "ROC curve on the people held out, from noised counts.", partial(draw_roc, answer)),
            figure(
                f"{name}-training",
                "Training curve: where it comes down to the dashed noise, nothing is left to learn.",
                partial(draw_training, answer),
            ),
        )
    label = facts.get("label", "the label")
    interval = f"95 % interval {between(low, high, 2)}"
    lead = f"A model that predicts {label} reaches an AUC of {fixed(area, 2)} ({interval}) on people it has not seen"
    lead += f"; the best single variant alone reaches {fixed(single, 2)}." if math.isfinite(single) else "."
    if not math.isfinite(area):
        lead = f"A model that predicts {label}; its AUC cannot be told from the noise."
    table = Table("The model in short; its card lies beside the parameters", ("", "value"), tuple(rows), (False, True))
    return Section(f"Prediction of {label}", lead, figures, (table,))


def grown(result: Result) -> Section:
    """Boosted trees."""
    answer, name, facts = result.answer, result.question.name, result.answer.facts
    table = answer.tables["importance"]
    partings, gain, share = (floats(table[c]) for c in ("partings", "gain", "share"))
    rows = tuple(
        (str(feature), count(partings[i]), short(gain[i], 4), fixed(share[i], 3))
        for i, feature in enumerate(table["feature"])
    )
    told = Table("What the features gained", ("feature", "partings", "gain", "share"), rows, (False, True, True, True))
    beside = in_short(
        ("people with every column", count(number(facts, "people"))),
        ("trees", count(number(facts, "trees"))),
        ("leaves", count(number(facts, "leaves"))),
        ("made small", str(facts["loss"])),
        ("before any tree", short(number(facts, "base"), 4)),
        ("exchanges", count(number(facts, "rounds"))),
    )
    size = Size(352, 90 + 24 * min(max(len(rows), 1), 20))
    drawn = figure(f"{name}-importance", "Share of the gain by feature.", partial(draw_importance, answer), size)
    lead = f"Boosted trees that foretell {facts['response']}: {facts['fit']}."
    return Section(f"Trees of {facts['response']}", lead, (drawn,), (told,), beside)

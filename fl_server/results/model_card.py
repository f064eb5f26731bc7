"""A trained model's card: what it is, whose data, at what privacy, how well, and what it is not for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from fl_server.conduct import Result
from fl_server.results import statement

LIMITS = (
    "It describes people like those of the sites named here, and nobody else; elsewhere its accuracy is unknown.",
    "Its accuracy was measured on people of the same sites, with noise; read the interval, not the number alone.",
    "The label is 1 above the middle of the column's public range, whatever that means for the column.",
    "It is a research result: not a medical device, and not for decisions about a person.",
    "Epsilon bounds what parameters and metrics together reveal about one person, not about groups.",
)


def document(result: Result, countries: Mapping[str, str], version: str, digest: str) -> dict[str, Any]:
    """The card as plain data.

    Args:
        countries: site -> country code.
        version: of the software.
        digest: of the study.
    """
    facts, budget, model = result.answer.facts, result.question.budget, result.answer.model or {}
    share = facts.get("training_share")
    return {
        "name": result.question.name,
        "task": "binary classification",
        "model": facts.get("model"),
        "label": facts.get("label"),
        "covariates": [c for c in str(facts.get("covariates", "")).split(", ") if c],
        "variants": facts.get("variants"),
        "parameters": {name: list(array.shape) for name, array in model.items()},
        "data_sites": {site: countries.get(site, "") for site in result.statement.sites},
        "synthetic": bool(result.statement.synthetic),
        "training_rounds": facts.get("training_rounds"),
        "training_share": share,
        "held_out_share": None if share is None else round(1 - float(share), 10),
        "privacy": {
            "regime": result.question.regime.value,
            "epsilon": statement.epsilon(result),
            "delta": budget.delta if budget else None,
            "unit": str(budget.unit) if budget else None,
            "rho": result.statement.rho if budget else None,
            "honest_sites_assumed": result.question.honest_sites if budget else None,
        },
        "metrics": {name: number(facts[name]) for name in facts if "auc" in name or name.startswith("held_out")},
        "limits": list(LIMITS),
        "study": digest,
        "software": version,
    }


def number(value: Any) -> Any:
    """The value, or None for a number that is none."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def text(card: Mapping[str, Any], inputs: Sequence[str]) -> str:
    """The card as Markdown.

    Args:
        card: as `document` makes it.
        inputs: names of the model's inputs in order, if known.
    """
    privacy, metrics = card["privacy"], card["metrics"]
    sites = ", ".join(f"{site} ({country})" if country else site for site, country in card["data_sites"].items())

    def shown(name: str) -> str:
        value = metrics.get(name)
        return "not known" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)

    rows = [f"| {name} | {shown(name)} |" for name in metrics]
    listed = [f"{i}. `{name}`" for i, name in enumerate(inputs)]
    return "\n".join(
        [
            f"# Model card: {card['name']}",
            "",
            f"A {card['model']} that predicts `{card['label']}` from {card['variants']} variants"
            + (f" and {', '.join(card['covariates'])}." if card["covariates"] else "."),
            "Trained together by sites whose data stayed where they are.",
            "",
            "## Data",
            "",
            f"- Sites: {sites}",
            f"- People: {'synthetic, so the model says nothing about anyone' if card['synthetic'] else 'real'}",
            f"- Training people: {_percent(card['training_share'])} of each site, drawn by a public hash",
            f"- Held out for evaluation: {_percent(card['held_out_share'])}",
            "",
            "## Privacy",
            "",
            f"- epsilon {privacy['epsilon']:.4g}, delta {privacy['delta']:g}, per {privacy['unit']} at each site"
            f" (rho = {privacy['rho']:.4g} in zCDP)"
            if privacy["epsilon"] is not None
            else "- no differential privacy claim is made",
            f"- It rests on {privacy['honest_sites_assumed']} sites that keep their share of the noise to themselves",
            "- The evaluation is paid for by the same epsilon and delta",
            "",
            "## Metrics",
            "",
            "| metric | value |",
            "|---|---|",
            *rows,
            "",
            "## Inputs",
            "",
            "Each input is (value - centre) / scale as in `inputs.parquet`; a missing genotype is 0. In this order:",
            "",
            *listed,
            "",
            "## Limits",
            "",
            *(f"- {line}" for line in card["limits"]),
            "",
            f"Study {card['study']}, Genosum {card['software']}.",
            "",
        ]
    )


def _percent(share: Any) -> str:
    return "not known" if share is None else f"{100 * float(share):g} %"

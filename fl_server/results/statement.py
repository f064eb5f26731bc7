"""The privacy statement of one answer: what was promised, in numbers and in words that do not promise more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fl_server.conduct import Result
from fl_server.results import attack
from strategies.privacy import PERSON, Regime

NOT_FOR_PUBLICATION = "this answer is for the permit holder, not for publication"

DISJOINT = (
    "Nobody's data are assumed to lie at two sites: records may not be linked across countries, so it is not checked. "
    "A person at two sites would lose up to the sum of both sites' losses."
)

PROMISE: Mapping[Regime, str] = {
    Regime.EXACT: (
        "The answer equals the pooled analysis. Secure summing shows the network and the coordinator the total alone, "
        "and nobody one site's part. It makes no differential privacy claim: an exact total can expose who is in it."
    ),
    Regime.PRIVATE: (
        "Every number that left a site carries calibrated noise, drawn at the site before anything left it. Whatever "
        "is computed from them, whether one given person's data were used stays hidden within epsilon and delta."
    ),
}

FOR_WHOM: Mapping[Regime, str] = {
    Regime.EXACT: NOT_FOR_PUBLICATION,
    Regime.PRIVATE: "this answer is designed for publication, at the epsilon and delta stated",
}

HONEST_SITES: Mapping[Regime, int] = {Regime.EXACT: 2, Regime.PRIVATE: 0}

HONEST_IN_WORDS: Mapping[Regime, str] = {
    Regime.EXACT: "at least two sites that do not collude with the coordinator",
    Regime.PRIVATE: "none: each site's own noise is full, so its people rely on that site alone",
}


def document(result: Result, attacks: Sequence[attack.MeasuredAttack]) -> dict[str, Any]:
    """The statement as plain data. `epsilon`, `delta` and `rho` are null where nothing of the kind is promised,
    `measured_attacks` where none was measured."""
    s, budget = result.statement, result.question.budget
    return {
        "regime": s.regime.value,
        "promise": PROMISE[s.regime],
        "for_whom": FOR_WHOM[s.regime],
        "epsilon": budget.epsilon if budget else None,
        "delta": budget.delta if budget else None,
        "rho": s.rho if budget else None,
        "unit": str(budget.unit if budget else PERSON),
        "noise_sd": dict(s.noise),
        "minimum_people": s.minimum_people,
        "minimum_cell": s.minimum_cell,
        "minimum_sites": s.minimum_sites,
        "honest_sites_assumed": HONEST_SITES[s.regime],
        "honest_sites_in_words": HONEST_IN_WORDS[s.regime],
        "persons_across_sites": DISJOINT,
        "withheld_rows": result.answer.withheld,
        "sites": list(s.sites),
        "absent": dict(s.absent),
        "synthetic": list(s.synthetic),
        "bytes_left": dict(s.bytes_left),
        "policies": dict(s.policies),
        "measured_attacks": attack.document(attacks),
    }

"""The privacy statement of one answer: what was promised, in numbers and in words that do not promise more."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from fl_server.conduct import Result
from fl_server.results import attack
from strategies.privacy import PERSON, Budget, Regime
from strategies.question import Question

NOT_FOR_PUBLICATION = "this answer is for the permit holder, not for publication"

DISJOINT = (
    "Nobody's data are assumed to lie at two sites: records may not be linked across countries, so it is not checked. "
    "A person at two sites would lose up to the sum of both sites' losses, twice that where sites share noise."
)

LARGEST = "Epsilon is the largest over the sites: on that assumption, a person's data meet one site's budget alone."

NOT_RENEWED = "no site renews its budget: the figure is part of what a person may ever lose"


def renewal_in_words(renewed: Sequence[str]) -> str:
    """Whether the sites' budgets begin anew, and what that means for a stated epsilon."""
    return f"renewed every year at {', '.join(renewed)}: there the figure holds per year" if renewed else NOT_RENEWED


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

PROMISE_OF_SHARED_NOISE = (
    "Every total that the coordinator saw carries calibrated noise, of which each site drew a share before anything "
    "left it. Secure summing shows nobody one site's part, and opens the whole roster's with every share or nothing: a "
    "site that fell silent has its share in it. Whatever is computed from them, whether one given person's data were "
    "used stays hidden within epsilon and delta."
)

PROMISE_OF_PARTS = (
    "Each site's part of the answer is exact, and the coordinator sees it: the site itself withheld its small cells "
    "and all that they follow from. It makes no differential privacy claim: exact numbers can expose who is in them."
)

HONEST_OF_TOTAL = "at least two sites that do not collude with the coordinator"

HONEST_OF_NOISE = "none: each site's own noise is full, so its people rely on that site alone"

HONEST_OF_PARTS = "none: each site withholds from its own part before the coordinator sees it"


def promise(question: Question) -> str:
    """What is promised about a question's answer, in words."""
    if question.shares_noise:
        return PROMISE_OF_SHARED_NOISE
    return PROMISE_OF_PARTS if question.by_site and question.budget is None else PROMISE[question.regime]


def epsilon(result: Result) -> float | None:
    """What all attempts together may have cost a person, or the question's unit; None if nothing is promised."""
    return _number(result.question.budget, result.statement.attempts)


def _alone(result: Result) -> float | None:
    """Epsilon if only one site of the roster keeps its noise to itself; None where noise is not shared."""
    question = result.question
    times = result.statement.attempts * question.honest_sites
    return _number(question.budget, times) if question.shares_noise else None


def _number(budget: Budget | None, times: int) -> float | None:
    found = math.inf if budget is None else budget.times(times)
    return found if math.isfinite(found) else None


def _honest(result: Result) -> tuple[int, str]:
    """How many sites the promise rests on, and in words."""
    question, h = result.question, result.question.honest_sites
    if not question.summed:
        return 0, HONEST_OF_NOISE if question.budget else HONEST_OF_PARTS
    if question.budget is None:
        return 2, HONEST_OF_TOTAL
    alone = _alone(result)
    bound = "no epsilon would hold" if alone is None else f"epsilon {alone:.3g}"
    return h, (
        f"{h} of the sites in the answer that keep their noise to themselves; if one site alone did, the loss would be "
        f"{h} times as large: {bound}"
    )


def document(result: Result, attacks: Sequence[attack.MeasuredAttack]) -> dict[str, Any]:
    """The statement as plain data. `epsilon`, `delta` and `rho` are null where nothing of the kind is promised,
    `epsilon_if_one_honest` where noise is not shared too, `measured_attacks` where none was measured."""
    s, question = result.statement, result.question
    budget, (honest, in_words) = question.budget, _honest(result)
    return {
        "regime": s.regime.value,
        "promise": promise(question),
        "by_site": question.by_site,
        "for_whom": FOR_WHOM[s.regime],
        "epsilon": epsilon(result),
        "delta": budget.delta if budget else None,
        "rho": s.rho if budget else None,
        "attempts": s.attempts,
        "unit": str(budget.unit if budget else PERSON),
        "noise_sd": dict(s.noise),
        "noise_sd_together": {name: sd * math.sqrt(len(s.sites)) for name, sd in s.noise.items()},
        "minimum_people": s.minimum_people,
        "minimum_cell": s.minimum_cell,
        "minimum_sites": s.minimum_sites,
        "honest_sites_assumed": honest,
        "honest_sites_in_words": in_words,
        "epsilon_if_one_honest": _alone(result),
        "budget_renewed": list(s.renewed),
        "budget_in_words": renewal_in_words(s.renewed) if budget else None,
        "persons_across_sites": f"{DISJOINT} {LARGEST}" if budget else DISJOINT,
        "withheld_rows": result.answer.withheld,
        "sites": list(s.sites),
        "absent": dict(s.absent),
        "recovered": dict(s.recovered),
        "synthetic": list(s.synthetic),
        "bytes_left": dict(s.bytes_left),
        "policies": dict(s.policies),
        "data_versions": dict(s.data_versions),
        "measured_attacks": attack.document(attacks),
    }

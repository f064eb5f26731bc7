"""The measured attack on an answer, as it stands in the report and in the privacy statement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

HOW_MEASURED = (
    "In a simulation, where it is known who took part, the question was asked again of one half of the sites' people; "
    "the held-out half are the others. The attacker knows a person's data. AUC is the area under the ROC curve: 0.5 is "
    "guessing, 1 is certainty. A figure is of the attacks tried, on these people; a better attack may exist."
)


@dataclass(frozen=True)
class MeasuredAttack:
    """How well one attack told the people in an answer from others.

    Attributes:
        attack: what was done, in words.
        reference: what the attacker compared with, in words.
        members, others: how many people in the answer, and how many not in it, were scored.
        synthetic: whether they were made up.
        auc, auc_low_95, auc_high_95: area under the ROC curve with its 95 % interval over people.
        tpr_at_fpr_1e_2, tpr_at_fpr_1e_3: share of members found where at most that share of the others is.
        epsilon_at_least: the release is not (epsilon, delta)-private for a smaller epsilon, with 95 % confidence; delta
            is the budget's, or 0 for an exact answer.
        auc_at_most: what the stated loss allows any attack; None for an exact answer, which states none.
    """

    attack: str
    reference: str
    members: int
    others: int
    synthetic: bool
    auc: float
    auc_low_95: float
    auc_high_95: float
    tpr_at_fpr_1e_2: float
    tpr_at_fpr_1e_3: float
    epsilon_at_least: float
    auc_at_most: float | None


Attacks = Mapping[str, Sequence[MeasuredAttack]]
"""Question -> the attacks measured on its answer, the strongest first."""


def document(attacks: Sequence[MeasuredAttack]) -> dict[str, Any] | None:
    """The attacks as plain data; None if none was measured."""
    return {"how": HOW_MEASURED, "attacks": [asdict(a) for a in attacks]} if attacks else None

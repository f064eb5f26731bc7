"""What a reply carries out of the building, as journal and airlock tell it: no identifier, variant or parameter."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from fl_client.policy import Policy
from fl_client.readers import Dataset
from fl_client.rounds import Admitted
from strategies.privacy import Regime
from strategies.summary import Field

MASKED = "under masks: only the total over the whole roster can be opened, and with signatures of all its sites alone"
SEALED = "encrypted to the coordinator, who reads this node's part"


@dataclass(frozen=True)
class Array:
    """One array of a reply.

    Attributes:
        shape: how many numbers there are.
        noise_sd: standard deviation of this node's noise in each entry, in its unit; None where there is none.
        one_person: the most that one person can change the array, as its L2 norm in the unit.
    """

    shape: tuple[int, ...]
    noise_sd: float | None
    one_person: float


@dataclass(frozen=True)
class Release:
    """What one reply carried out of the building. It is the journal's line about the reply, too.

    Attributes:
        coordinator, purpose, study, session: who asked, what for, and under which study (its digest and its run).
        question, analysis: its name and its statistic.
        regime, by_site, form: the promise, whether this node's part is given by itself, and how the bytes travel.
        round, slice, slices, attempt, roster: the place of the reply, and the sites that are summed.
        arrays: name -> what it holds.
        digest, bytes: SHA-256 and size of the reply's body, which the node signed with its mark.
        honest_sites: on how many sites the noise counts; None where this node's is full, or there is none.
        minimum_people, minimum_cell, minimum_sites: the thresholds in force; nothing of the kind where private.
        epsilon, delta, unit, reserved_rho: the loss of one attempt of the whole question, reserved before data were
            read; None where exact.
        policy, data, version: digests of policy and data set that answered, and the data set's version.
        synthetic: whether no person stands behind the data.
        decision: why it was let out.
    """

    coordinator: str
    purpose: str
    study: str
    session: str
    question: str
    analysis: str
    regime: str
    by_site: bool
    form: str
    round: int
    slice: int
    slices: int
    attempt: int
    roster: tuple[str, ...]
    arrays: Mapping[str, Array]
    digest: str
    bytes: int
    honest_sites: int | None
    minimum_people: int | None
    minimum_cell: int | None
    minimum_sites: int | None
    epsilon: float | None
    delta: float | None
    unit: str | None
    reserved_rho: float | None
    policy: str
    data: str
    version: int
    synthetic: bool
    decision: str = "released: every condition of the policy held when it was answered"

    def line(self) -> dict[str, Any]:
        """The journal's line, as plain data."""
        return {"event": "answer", **json.loads(json.dumps(asdict(self)))}


def release_of(
    admitted: Admitted,
    policy: Policy,
    minimum_cell: int,
    dataset: Dataset,
    fields: Mapping[str, Field],
    sds: Mapping[str, float],
    body: bytes,
) -> Release:
    """What is about to leave.

    Args:
        minimum_cell: the strictest of policy, data set and study.
        fields: what it is made of.
        sds: field -> standard deviation of this node's noise.
        body: the bytes.
    """
    ask, study, question = admitted.ask, admitted.study, admitted.question
    budget, exact = question.budget, question.regime is Regime.EXACT
    return Release(
        coordinator=admitted.session.coordinator,
        purpose=study.purpose.value,
        study=ask.study,
        session=ask.session,
        question=ask.question,
        analysis=question.analysis.analysis,
        regime=question.regime.value,
        by_site=question.by_site,
        form=MASKED if question.summed else SEALED,
        round=ask.round,
        slice=ask.slice,
        slices=ask.slices,
        attempt=ask.attempt,
        roster=ask.roster,
        arrays={name: Array(field.shape, sds.get(name), field.l2) for name, field in fields.items()},
        digest=hashlib.sha256(body).hexdigest(),
        bytes=len(body),
        honest_sites=question.honest_sites if question.shares_noise else None,
        minimum_people=policy.minimum_people if exact else None,
        minimum_cell=minimum_cell if exact else None,
        minimum_sites=policy.minimum_sites if question.summed else None,
        epsilon=budget.epsilon if budget else None,
        delta=budget.delta if budget else None,
        unit=str(budget.unit) if budget else None,
        reserved_rho=budget.loss.rho if budget else None,
        policy=policy.identifier,
        data=dataset.digest,
        version=dataset.config.version,
        synthetic=dataset.config.synthetic,
    )

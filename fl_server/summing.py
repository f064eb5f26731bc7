"""A coordinator's side of secure summing: a roster agrees, answers under masks, and opens its sum.

Share and Agree are exchanged once for all questions that have the same roster. A site that is lost before the sum was
opened means another attempt without it, since nothing was revealed. A site that falls silent while the sum is opened is
in it: the others' shares open its masks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from fl_server.session import Checkpoint, Session, T
from strategies.protections import secure_sum
from strategies.protections.secure_sum import Vector
from strategies.question import Question
from strategies.reasons import Reason
from strategies.study import Study
from strategies.wire import (
    Agree,
    Agreed,
    Answered,
    Recover,
    Recovered,
    Share,
    Shared,
    Unmask,
    Unmasked,
    WireError,
    digest_of,
    open_envelope,
    pack_arrays,
    pack_parts,
    seal_envelope,
    unpack_arrays,
    unpack_parts,
    unseal,
)

_STALE = f"refused: {Reason.AGREEMENT_STALE}"


class SitesLostError(Exception):
    """Sites of a roster did not take the next step with the others. None, if all must agree once more."""

    def __init__(self, lost: Mapping[str, str]) -> None:
        super().__init__("sites lost")
        self.lost = {site: why for site, why in lost.items() if why != _STALE}


@dataclass(frozen=True)
class Attempt:
    """One attempt of a question: its roster, and the place in the run's folder of the exchange that covers it."""

    question: str
    number: int
    roster: tuple[str, ...]
    exchange: str


@dataclass(frozen=True)
class Summing:
    """What it needs of a run: the study, the session with the nodes, and the folder that outlives the process."""

    study: Study
    session: Session
    checkpoint: Checkpoint

    # -- which attempt a question is in ---------------------------------------------------------------------------

    def lost(self, question: Question) -> list[dict[str, str]]:
        """For each attempt that was given up, the sites that were lost in it, and why."""
        out: list[dict[str, str]] = []
        while (lost := self.checkpoint.read(f"{question.name}.{len(out) + 1}.lost")) is not None:
            out.append(json.loads(lost))
        return out

    def give_up(self, question: Question, lost: Mapping[str, str]) -> None:
        """The question's present attempt is over."""
        number = len(self.lost(question)) + 1
        self.checkpoint.write(f"{question.name}.{number}.lost", json.dumps(dict(lost)).encode())

    def attempt(self, question: Question) -> Attempt | None:
        """The question's present attempt, if it has begun: after a restart, still the first process's."""
        number = len(self.lost(question)) + 1
        for first in self.study.questions:
            for at in range(1, len(self.lost(first)) + 2):
                begun = self.checkpoint.read(f"{first.name}.{at}.roster") if first.summed else None
                known = json.loads(begun) if begun else {"questions": {}}
                if known["questions"].get(question.name) == number:
                    return Attempt(question.name, number, tuple(known["roster"]), f"{first.name}.{at}")
        return None

    def asked(self, question: Question) -> int:
        """How many attempts the sites were asked in, whether or not all of them answered."""
        numbers = range(1, len(self.lost(question)) + 2)
        return sum(self.checkpoint.read(f"{question.name}.{n}.1.0.0.request") is not None for n in numbers)

    def begin(self, questions: Sequence[Question], roster: Sequence[str]) -> None:
        """Begin an attempt of these questions together."""
        numbers = {question.name: len(self.lost(question)) + 1 for question in questions}
        place = json.dumps({"roster": roster, "questions": numbers}).encode()
        self.checkpoint.write(f"{questions[0].name}.{numbers[questions[0].name]}.roster", place)

    def covered(self, attempt: Attempt) -> list[Question]:
        """The questions whose present attempt began in the same exchange."""
        found = ((question, self.attempt(question)) for question in self.study.questions if question.summed)
        return [question for question, known in found if known and known.exchange == attempt.exchange]

    def _present(self, roster: Sequence[str]) -> None:
        away = self.session.away
        if gone := {site: away[site] for site in roster if site in away}:
            raise SitesLostError(gone)

    # -- agree ----------------------------------------------------------------------------------------------------

    def agree(self, attempt: Attempt) -> None:
        """Have every site of the roster share and sign, unless they did.

        Raises:
            SitesLostError: if one did not; the attempt is over for all questions that the exchange covers.
        """
        place, roster = attempt.exchange, attempt.roster
        if self.checkpoint.read(f"{place}.agreed") is not None:
            return
        self._present(roster)
        numbers = {question.name: len(self.lost(question)) + 1 for question in self.covered(attempt)}
        share = self.checkpoint.once(
            f"{place}.share",
            lambda: seal_envelope(
                Share(self.session.name, self.study.digest, numbers, roster, self.session.expires()),
                pack_parts(self.session.certificates[site] for site in roster),
                self.session.identity,
            ),
        )
        shared = self._envelopes(share, roster, Shared)
        self.checkpoint.once(f"{place}.shared", lambda: pack_parts(shared))
        agree = self.checkpoint.once(
            f"{place}.agree",
            lambda: seal_envelope(
                Agree(self.session.name, digest_of(share), self.session.expires()),
                pack_parts(shared),
                self.session.identity,
            ),
        )
        agreed = self._envelopes(agree, roster, Agreed)
        self.checkpoint.once(f"{place}.agreed", lambda: pack_parts(agreed))

    def _envelopes(self, request: bytes, roster: Sequence[str], kind: type[T]) -> list[bytes]:
        answers, lost = self.session.collect([request], roster, kind)
        if lost:
            raise SitesLostError(lost)
        return [answers[site][0].envelope for site in roster]

    # -- sum ------------------------------------------------------------------------------------------------------

    def total(
        self, place: str, attempt: Attempt, asks: Sequence[bytes], lengths: Sequence[int]
    ) -> tuple[list[Vector], dict[str, str]]:
        """The totals of one exchange's slices over the whole roster, and the sites whose masks the others opened.

        Raises:
            SitesLostError: if a site did not answer, or its masks could not be opened.
        """
        done = self.checkpoint.read(f"{place}.total")
        if done is not None:
            arrays, recovered = unpack_arrays(done), self.checkpoint.read(f"{place}.recovered")
            return [arrays[str(i)].view(np.uint64) for i in range(len(asks))], json.loads(recovered or b"{}")
        self._present(attempt.roster)
        masked = self._masked(asks, attempt.roster, lengths)
        requests = tuple(digest_of(ask) for ask in asks)
        signed = self.checkpoint.read(f"{attempt.exchange}.agreed")
        assert signed is not None
        header = Unmask(self.session.name, attempt.question, attempt.number, requests, self.session.expires())
        unmask = self.checkpoint.once(f"{place}.unmask", partial(seal_envelope, header, signed, self.session.identity))
        seeds, lost = self._secrets(unmask, attempt.roster, len(asks), Unmasked)
        refused = {site: why for site, why in lost.items() if why.startswith("refused: ")}
        if refused:  # an operator's no is not overridden by the others' shares
            raise SitesLostError(refused)
        if lost:
            roots = self._roots(place, attempt, sorted(lost), sorted(seeds), lost)
            for site, root in roots.items():
                seeds[site] = [secure_sum.self_seed(root, bytes.fromhex(request)) for request in requests]
        vectors = [
            secure_sum.unmask(
                {site: masked[site][i] for site in attempt.roster}, {site: seeds[site][i] for site in attempt.roster}
            )
            for i in range(len(asks))
        ]
        self.checkpoint.write(f"{place}.recovered", json.dumps(lost).encode())
        self.checkpoint.write(f"{place}.total", pack_arrays({str(i): v.view(np.int64) for i, v in enumerate(vectors)}))
        return vectors, lost

    def _masked(self, asks: Sequence[bytes], roster: Sequence[str], lengths: Sequence[int]) -> dict[str, list[Vector]]:
        answers, lost = self.session.collect(asks, roster, Answered)
        masked = {}
        for site, replies in answers.items():
            bodies = [reply.body for reply in replies]
            if [len(body) for body in bodies] != [8 * length for length in lengths]:
                lost[site] = "sent another shape than declared"
            else:
                masked[site] = [np.frombuffer(body, dtype="<u8").astype(np.uint64) for body in bodies]
        if lost:
            raise SitesLostError(lost)
        return masked

    def _secrets(
        self, request: bytes, sites: Sequence[str], count: int, kind: type[T]
    ) -> tuple[dict[str, list[bytes]], dict[str, str]]:
        """What each site sealed to this coordinator: as many seeds or shares as were asked."""
        answers, lost = self.session.collect([request], sites, kind)
        out, size = {}, secure_sum.SEED_BYTES
        for site, (reply,) in answers.items():
            try:
                opened = unseal(reply.body, self.session.sealing, digest_of(request))
            except WireError:
                opened = b""
            if len(opened) == count * size:
                out[site] = [opened[at : at + size] for at in range(0, len(opened), size)]
            else:
                lost[site] = "sent seeds of another shape"
        return out, lost

    def _roots(
        self,
        place: str,
        attempt: Attempt,
        silent: Sequence[str],
        openers: Sequence[str],
        lost: Mapping[str, str],
    ) -> dict[str, bytes]:
        """The roots of sites that fell silent, from the shares of those who opened."""
        need = secure_sum.threshold(len(attempt.roster))
        if len(openers) < need:
            raise SitesLostError(lost)
        header = Recover(self.session.name, attempt.question, attempt.number, tuple(silent), self.session.expires())
        recover = self.checkpoint.once(
            f"{place}.{'-'.join(silent)}.recover", partial(seal_envelope, header, b"", self.session.identity)
        )
        shares, gone = self._secrets(recover, openers, len(silent), Recovered)
        if len(shares) < need:
            raise SitesLostError({**lost, **gone})
        places = {site: number for number, site in enumerate(sorted(attempt.roster))}
        givers = sorted(shares)[:need]
        roots = {}
        for number, site in enumerate(silent):
            roots[site] = secure_sum.combine({places[giver]: shares[giver][number] for giver in givers})
            if secure_sum.commitment(roots[site]) != self._commitment(attempt, site):
                raise SitesLostError({**lost, site: "shared another root than it stated"})
        return roots

    def _commitment(self, attempt: Attempt, site: str) -> str:
        shared = unpack_parts(self.checkpoint.read(f"{attempt.exchange}.shared") or b"")
        envelope = shared[attempt.roster.index(site)]
        header = open_envelope(envelope, {site: self.session.federation.nodes[site].identity}).header
        assert isinstance(header, Shared)
        return header.roots[attempt.question]

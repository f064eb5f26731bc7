"""The loop: while the answer is a question, ask it. Slices, quorum, restarts, checkpoints, and no statistics.

Everything that matters is on the coordinator's disk before it is sent: requests are signed once and sent again as the
same bytes after a crash, so nodes answer from their stores and nothing is paid twice.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from fl_server.marks import SeenMarks
from fl_server.session import Checkpoint, Link, Session
from strategies.analysis import VARIANTS_PER_SLICE, Analysis, Answer, Frame, Total, parameters
from strategies.errors import GenosumError, RefusedError, TooFewSitesError, UsageError
from strategies.federation import Federation, Identity
from strategies.privacy import Loss, Regime, Renewal
from strategies.protections import noise, secure_sum
from strategies.study import Question, Study
from strategies.summary import NotAsDeclaredError, Summary, add, check, join
from strategies.version import package_version
from strategies.wire import (
    MEANING,
    Answered,
    Ask,
    Reason,
    Unmask,
    Unmasked,
    WireError,
    digest_of,
    pack_arrays,
    pack_parts,
    seal_envelope,
    unpack_arrays,
    unseal,
)

SLICES_PER_EXCHANGE = 4
"""Exchanges are dear, restarts too: this many slices travel in one message and are checkpointed together."""


@dataclass(frozen=True)
class Statement:
    """What was promised about one answer, in numbers.

    Attributes:
        sites: who is in the answer.
        absent: who is not, and why.
        minimum_cell, minimum_people: the strictest of the sites' policies; 0 when private, where nothing about the
            data may refuse or withhold.
        minimum_sites: the strictest of the study and, when exact, the sites' policies.
        noise: field -> standard deviation in a site's release, in the field's unit.
        rho: zCDP loss of the question per person at each site; 0 when exact.
        bytes_left: site -> bytes of signed replies.
        policies: site -> digest of the policy it answered under.
        renewed: the sites whose budget is renewed every year, where every figure holds per year.
        synthetic: the sites whose people are made up; all or none, since the two are never mixed.
        seconds: from the first request to the answer, of this process.
    """

    regime: Regime
    sites: tuple[str, ...]
    absent: Mapping[str, str]
    minimum_cell: int
    minimum_people: int
    minimum_sites: int
    noise: Mapping[str, float]
    rho: float
    bytes_left: Mapping[str, int]
    policies: Mapping[str, str]
    synthetic: tuple[str, ...]
    seconds: float
    renewed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Result:
    """One question's answer over all sites together, for each site where the analysis gives that, and its statement."""

    question: Question
    answer: Answer
    by_site: Mapping[str, Answer]
    statement: Statement


@dataclass(frozen=True)
class Progress:
    """Where a study stands: question number `question` of `questions`, `done` of about `steps` exchanges of it."""

    name: str
    question: int
    questions: int
    done: int
    steps: int
    note: str = ""


class _SitesLostError(Exception):
    """Sites that answered a question's first exchange did not answer a later one."""

    def __init__(self, lost: Mapping[str, str]) -> None:
        super().__init__("sites lost")
        self.lost = lost


@dataclass
class Conductor:
    """Asks a study's questions over a link."""

    study: Study
    federation: Federation
    coordinator: str
    identity: Identity
    link: Link
    checkpoint: Checkpoint
    seen: SeenMarks
    timeout_s: float = 600.0
    wait_s: float = 10.0
    progress: Callable[[Progress], None] = lambda _: None
    _absent: dict[str, str] = field(default_factory=dict)
    _at: Progress = field(default_factory=lambda: Progress("", 0, 0, 0, 0))

    def __post_init__(self) -> None:
        self._session = Session(
            self.study,
            self.federation,
            self.coordinator,
            self.identity,
            self.link,
            self.checkpoint,
            self.seen,
            self.timeout_s,
            self.wait_s,
        )

    # -- the study ------------------------------------------------------------------------------------------------

    def run(self) -> tuple[Result, ...]:
        """Open the study, ask its questions in order, close it.

        Raises:
            RefusedError: if nodes refused and too few are left.
            TooFewSitesError: if too few sites answered.
            UsageError: if the checkpoint belongs to another study.
        """
        session = self._session
        session.open()
        results = tuple(self._answer(number, question) for number, question in enumerate(self.study.questions, start=1))
        session.close()
        return results

    # -- one question ---------------------------------------------------------------------------------------------

    def _answer(self, number: int, question: Question) -> Result:
        started = time.monotonic()
        self._session.bytes_left = json.loads(self.checkpoint.read(f"{question.name}.bytes") or b"{}")
        self._at = Progress(question.name, number, len(self.study.questions), 0, self._steps(question))
        self.progress(self._at)
        frame = self.study.frame(question)
        self._absent = dict(self._session.away)  # a refusal concerns one question; a site that fell silent stays away
        willing = (site for site in self._session.opened if question.name not in self._session.opened[site].refuses)
        roster = tuple(sorted(site for site in willing if site not in self._absent))
        refusing = {
            s: f"refused: {o.refuses[question.name]}"
            for s, o in self._session.opened.items()
            if question.name in o.refuses
        }
        if question.regime is Regime.EXACT:
            sites, sums, analysis = self._exact(question, frame, roster, refusing)
            total = Total(sums, sites, {}, max(self._session.opened[s].minimum_cell for s in sites))
            answer, by_site, sds = self._final(analysis, total, frame), {}, {}
        else:
            sites, parts, analysis = self._private(question, frame, roster, refusing)
            assert question.budget is not None
            loss = Loss(question.budget.loss.rho * analysis.fraction())
            sds = noise.scales(analysis.leaves(frame), loss)
            together = {name: sd * len(sites) ** 0.5 for name, sd in sds.items()}
            answer = self._final(analysis, Total(_sum(parts.values()), sites, together), frame)
            each = parts.items() if analysis.by_site else ()
            by_site = {site: self._final(analysis, Total(part, (site,), sds), frame) for site, part in each}
        policies = [self._session.opened[site] for site in sites]
        exact = question.regime is Regime.EXACT
        statement = Statement(
            regime=question.regime,
            sites=sites,
            absent={**self._absent, **refusing},
            minimum_cell=max(o.minimum_cell for o in policies) if exact else 0,
            minimum_people=max(o.minimum_people for o in policies) if exact else 0,
            minimum_sites=max([self.study.minimum_sites, *(o.minimum_sites for o in policies if exact)]),
            noise=sds,
            rho=question.budget.loss.rho if question.budget else 0.0,
            bytes_left={site: self._session.bytes_left.get(site, 0) for site in sites},
            policies={site: self._session.opened[site].policy for site in sites},
            synthetic=tuple(site for site in sites if self._session.opened[site].synthetic),
            seconds=time.monotonic() - started,
            renewed=tuple(site for site in sites if self._session.opened[site].renewal is Renewal.YEARLY),
        )
        return Result(question, answer, by_site, statement)

    def _final(self, analysis: Analysis, total: Total, frame: Frame) -> Answer:
        answer = analysis.conclude(total, frame)
        assert isinstance(answer, Answer)
        return answer

    def _exact(
        self, question: Question, frame: Frame, roster: tuple[str, ...], refusing: Mapping[str, str]
    ) -> tuple[tuple[str, ...], Summary, Analysis]:
        """The last round's total under secure summing, and the sites that are in it."""
        attempt, before = 1, dict[str, str]()
        while (lost := self.checkpoint.read(f"{question.name}.{attempt}.lost")) is not None:
            before |= json.loads(lost)
            attempt += 1
        while True:
            roster = tuple(site for site in roster if site not in self._absent)
            asked = self._asked(question, attempt, roster, refusing, before)
            try:
                return self._rounds(question, frame, attempt, asked, refusing)
            except _SitesLostError as error:
                self.checkpoint.write(f"{question.name}.{attempt}.lost", json.dumps(dict(error.lost)).encode())
                self._lose(error.lost)
                attempt += 1

    def _asked(
        self,
        question: Question,
        attempt: int,
        roster: tuple[str, ...],
        refusing: Mapping[str, str],
        before: Mapping[str, str],
    ) -> tuple[str, ...]:
        """The roster that is signed into an attempt's first requests: after a restart, still the first process's."""

        def decide() -> bytes:
            self._quorum(question, roster, refusing)  # before it costs anybody anything
            return json.dumps(roster).encode()

        asked = tuple(json.loads(self.checkpoint.once(f"{question.name}.{attempt}.roster", decide)))
        self._absent |= {s: before.get(s, "came after the question was asked") for s in roster if s not in asked}
        return asked

    def _lose(self, lost: Mapping[str, str]) -> None:
        self._absent.update(lost)
        self._session.away.update({site: why for site, why in lost.items() if not why.startswith("refused: ")})

    def _name_absent(self, roster: Iterable[str], there: Container[str]) -> None:
        """Also where an earlier process found them absent, every site that was asked and is not in the sum is named."""
        for site in roster:
            if site not in there:
                self._absent.setdefault(site, "did not answer")

    def _rounds(
        self, question: Question, frame: Frame, attempt: int, roster: tuple[str, ...], refusing: Mapping[str, str]
    ) -> tuple[tuple[str, ...], Summary, Analysis]:
        analysis, earlier, first = question.analysis, list[Summary](), True
        for number in range(1, question.analysis.rounds() + 1):
            cut = analysis.slices(frame)
            totals: list[Summary] = []
            for start in range(0, len(cut), SLICES_PER_EXCHANGE):
                numbers = range(start, min(start + SLICES_PER_EXCHANGE, len(cut)))
                place = f"{question.name}.{attempt}.{number}.{start}"
                asks = self._requests(place, question, analysis, number, numbers, len(cut), attempt, roster, earlier)
                fields = [analysis.leaves(frame[cut[n]]) for n in numbers]
                survivors, vectors = self._summed(
                    place, asks, roster, [sum(f.size for f in fs.values()) for fs in fields], first
                )
                if first:
                    # Whoever answered the first exchange is the roster of all that follows.
                    self._name_absent(roster, survivors)
                    roster, first = survivors, False
                    self._quorum(question, roster, refusing)
                totals += [secure_sum.unflatten(v, f) for v, f in zip(vectors, fields, strict=True)]
                self._advance()
            try:
                total = join(totals, analysis.leaves(frame))
            except NotAsDeclaredError as error:
                raise GenosumError(
                    "A site's data must not change in mid-question.",
                    str(error),
                    "run the study again once its data are still.",
                ) from None
            if number == question.analysis.rounds():
                return roster, total, analysis
            following = analysis.conclude(Total(total, roster), frame)
            if not isinstance(following, Analysis):
                return roster, total, analysis
            earlier.append(total)
            analysis = following
        raise AssertionError("unreachable: rounds() bounds the loop")

    def _summed(
        self, place: str, asks: Sequence[bytes], roster: tuple[str, ...], lengths: Sequence[int], first: bool
    ) -> tuple[tuple[str, ...], list[np.ndarray[Any, np.dtype[np.uint64]]]]:
        """The totals of one exchange's slices and the sites in them: ask, then open the survivors' masks once."""
        done = self.checkpoint.read(f"{place}.total")
        if done is not None:
            names = tuple(json.loads(self.checkpoint.read(f"{place}.survivors") or b"[]"))
            arrays = unpack_arrays(done)
            return names, [arrays[str(i)].view(np.uint64) for i in range(len(asks))]
        digests = [digest_of(a) for a in asks]
        masked, lost = self._masked(asks, roster, lengths)
        planned = self.checkpoint.read(f"{place}.survivors")
        survivors = tuple(json.loads(planned)) if planned else tuple(sorted(masked))
        gone = {s: lost.get(s, "did not answer") for s in survivors if s not in masked}
        if gone or (not first and set(survivors) != set(roster)):
            raise _SitesLostError(gone or lost)
        if first:
            self._lose(lost)
            if len(survivors) < max(secure_sum.LEAST_SITES, self.study.minimum_sites):
                return survivors, [
                    np.zeros(n, dtype=np.uint64) for n in lengths
                ]  # the quorum check that follows says why
        self.checkpoint.once(f"{place}.survivors", lambda: json.dumps(survivors).encode())
        unmask = self.checkpoint.once(
            f"{place}.unmask",
            lambda: seal_envelope(
                Unmask(self._session.name, tuple(digests), survivors, self._session.expires()), b"", self.identity
            ),
        )
        seeds, lost = self._seeds(unmask, survivors, [s for s in roster if s not in survivors], len(asks))
        if lost:
            raise _SitesLostError(lost)
        vectors = []
        for i in range(len(asks)):
            own = {site: bytes.fromhex(seeds[site].own[i]) for site in survivors}
            pairs = {
                site: {m: bytes.fromhex(values[i]) for m, values in seeds[site].missing.items()} for site in survivors
            }
            vectors.append(secure_sum.unmask({site: masked[site][i] for site in survivors}, own, pairs))
        self.checkpoint.write(f"{place}.total", pack_arrays({str(i): v.view(np.int64) for i, v in enumerate(vectors)}))
        return survivors, vectors

    def _masked(
        self, asks: Sequence[bytes], roster: tuple[str, ...], lengths: Sequence[int]
    ) -> tuple[dict[str, list[np.ndarray[Any, np.dtype[np.uint64]]]], dict[str, str]]:
        answers, lost = self._session.collect(asks, roster, Answered)
        masked = {}
        for site, messages in answers.items():
            vectors = [np.frombuffer(body, dtype="<u8").astype(np.uint64) for _, body in messages if len(body) % 8 == 0]
            if [len(v) for v in vectors] != list(lengths):
                lost[site] = "sent another shape than declared"
            else:
                masked[site] = vectors
        return masked, lost

    def _seeds(
        self, unmask: bytes, survivors: tuple[str, ...], missing: Sequence[str], count: int
    ) -> tuple[dict[str, Unmasked], dict[str, str]]:
        answers, lost = self._session.collect([unmask], survivors, Unmasked)
        seeds = {}
        for site, ((header, _),) in answers.items():
            lists = [header.own, *header.missing.values()]
            if set(header.missing) != set(missing) or any(
                len(values) != count or any(not _is_seed(v) for v in values) for values in lists
            ):
                lost[site] = "sent seeds of another shape"
            else:
                seeds[site] = header
        return seeds, lost

    def _private(
        self, question: Question, frame: Frame, roster: tuple[str, ...], refusing: Mapping[str, str]
    ) -> tuple[tuple[str, ...], dict[str, Summary], Analysis]:
        """The last round's noised parts, site by site."""
        analysis, earlier = question.analysis, list[Summary]()
        rounds = question.analysis.rounds()
        self._can_be_answered(question, frame)
        roster = self._asked(question, 1, roster, refusing, {})
        for number in range(1, rounds + 1):
            cut = analysis.slices(frame)
            place = f"{question.name}.1.{number}.0"
            asks = self._requests(place, question, analysis, number, range(len(cut)), len(cut), 1, roster, earlier)
            parts = self._parts(place, asks, roster, analysis, frame)
            self._name_absent(roster, parts)
            roster = tuple(sorted(parts))
            self._quorum(question, roster, refusing)
            arrays = {f"{site}/{name}": a for site, part in parts.items() for name, a in part.items()}
            self.checkpoint.once(f"{place}.total", partial(pack_arrays, arrays))
            self._advance()
            if number < rounds:
                total = _sum(parts.values())
                following = analysis.conclude(Total(total, roster), frame)
                if isinstance(following, Analysis):
                    earlier.append(total)
                    analysis = following
                    continue
            return roster, parts, analysis
        raise AssertionError("unreachable: rounds() bounds the loop")

    def _can_be_answered(self, question: Question, frame: Frame) -> None:
        """Assert it before anybody pays for it."""
        assert question.budget is not None
        try:
            noise.scales(question.analysis.leaves(frame), question.budget.loss)
        except ValueError as error:
            raise UsageError(
                f"Question {question.name!r} needs noise that fits.", str(error), "ask for a larger epsilon."
            ) from None

    def _parts(
        self, place: str, asks: Sequence[bytes], roster: tuple[str, ...], analysis: Analysis, frame: Frame
    ) -> dict[str, Summary]:
        done = self.checkpoint.read(f"{place}.total")
        if done is not None:
            arrays = unpack_arrays(done)
            sites = sorted({key.split("/")[0] for key in arrays})
            return {site: {k.split("/")[1]: a for k, a in arrays.items() if k.startswith(f"{site}/")} for site in sites}
        cut, digests = analysis.slices(frame), [digest_of(a) for a in asks]
        answers, lost = self._session.collect(asks, roster, Answered)
        parts: dict[str, Summary] = {}
        for site, messages in answers.items():
            try:
                slices = []
                for digest, span, (_, body) in zip(digests, cut, messages, strict=True):
                    opened = unpack_arrays(unseal(body, self._session.sealing, digest))
                    check(opened, analysis.leaves(frame[span]))
                    slices.append(opened)
                parts[site] = join(slices, analysis.leaves(frame))
            except (WireError, NotAsDeclaredError):
                lost[site] = "sent another shape than declared"
        self._lose(lost)
        return parts

    # -- messages -------------------------------------------------------------------------------------------------

    def _requests(
        self,
        place: str,
        question: Question,
        analysis: Analysis,
        number: int,
        slices: Iterable[int],
        of: int,
        attempt: int,
        roster: tuple[str, ...],
        earlier: Sequence[Summary],
    ) -> list[bytes]:
        keys = (
            {site: base64.b64encode(self._session.certificates[site]).decode() for site in roster}
            if question.regime is Regime.EXACT
            else {}
        )
        body = pack_parts([pack_arrays(total) for total in earlier])
        out = []
        for n in slices:
            header = Ask(
                session=self._session.name,
                study=self.study.digest,
                question=question.name,
                round=number,
                slice=n,
                slices=of,
                attempt=attempt,
                roster=roster,
                parameters=parameters(analysis),
                keys=keys,
                expires=self._session.expires(),
                version=package_version(),
            )
            out.append(
                self.checkpoint.once(f"{place}.{n}.request", partial(seal_envelope, header, body, self.identity))
            )
        return out

    # -- quorum and progress --------------------------------------------------------------------------------------

    def _quorum(self, question: Question, sites: Sequence[str], refusing: Mapping[str, str]) -> None:
        need = self.study.minimum_sites
        if question.regime is Regime.EXACT:
            asked = [self._session.opened[s].minimum_sites for s in sites]
            need = max(need, secure_sum.LEAST_SITES, *asked)
        if len(sites) >= need:
            return
        reasons = {**self._absent, **refusing}
        found = f"{len(sites)} of {len(self.federation.nodes)} answer"
        if reasons:
            found += "; " + ", ".join(f"{site} {why}" for site, why in sorted(reasons.items()))
        codes = [why.removeprefix("refused: ") for why in reasons.values() if why.startswith("refused: ")]
        if codes:
            rule, remedy = MEANING[Reason(codes[0])]
            raise RefusedError(
                codes[0],
                f"Question {question.name!r} needs {need} sites, and nodes refused. {rule}",
                found,
                remedy + ".",
            )
        raise TooFewSitesError(
            f"Question {question.name!r} needs {need} sites.", found, "wait until more are up, then run with --resume."
        )

    def _steps(self, question: Question) -> int:
        """About how many exchanges a question takes."""
        frame = self.study.frame(question)
        last = 1
        if frame.panel is not None and question.regime is Regime.EXACT:
            last = -(-len(frame.panel) // (VARIANTS_PER_SLICE * SLICES_PER_EXCHANGE))
        return question.analysis.rounds() - 1 + last

    def _advance(self, note: str = "") -> None:
        self.checkpoint.write(f"{self._at.name}.bytes", json.dumps(self._session.bytes_left).encode())
        at = self._at
        self._at = Progress(at.name, at.question, at.questions, min(at.done + 1, at.steps), at.steps, note)
        self.progress(self._at)


def _sum(parts: Iterable[Summary]) -> Summary:
    parts = iter(parts)
    total = next(parts)
    for part in parts:
        total = add(total, part)
    return total


def _is_seed(text: str) -> bool:
    try:
        return len(bytes.fromhex(text)) == secure_sum.SEED_BYTES
    except ValueError:
        return False

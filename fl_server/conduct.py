"""The loop: while the answer is a question, ask it. Slices, quorum, restarts, checkpoints, and no statistics.

Everything that matters is on the coordinator's disk before it is sent: requests are signed once and sent again as the
same bytes after a crash, so nodes answer from their stores and nothing is paid twice.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from fl_server.marks import SeenMarks
from fl_server.session import Checkpoint, Link, Session
from fl_server.summing import Attempt, SitesLostError, Summing
from strategies.analysis import (
    VARIANTS_PER_SLICE,
    Analysis,
    Answer,
    Combining,
    Following,
    Frame,
    Offering,
    Total,
    carried,
    carries,
    parameters,
)
from strategies.errors import GenosumError, RefusedError, TooFewSitesError, UsageError
from strategies.federation import Federation, Identity
from strategies.privacy import Regime, Renewal
from strategies.protections import secure_sum
from strategies.question import Question
from strategies.reasons import MEANING, Reason
from strategies.study import Study
from strategies.summary import NotAsDeclaredError, Summary, add, check, join
from strategies.version import package_version
from strategies.wire import (
    Answered,
    Ask,
    Project,
    Projected,
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
        minimum_cell, minimum_people: the strictest of the sites (and for a cell, of the study); 0 when private, where
            nothing about the data may refuse or withhold.
        minimum_sites: the strictest of the study and, for a total, of the sites' policies and of what its noise counts
            on.
        noise: field -> standard deviation of what each site added, in the field's unit.
        attempts: how often the question was asked of sites whose parts are summed, with other noise each time: every
            site in the answer was charged for each of them at most. 1 when nothing is summed.
        rho: zCDP loss of the question per person, over all attempts, at the site that was charged most; 0 when exact.
        bytes_left: site -> bytes of signed replies.
        policies: site -> digest of the policy it answered under.
        data_versions: site -> number of its data set's version, which it fixed before the study was opened.
        renewed: the sites whose budget is renewed every year, where every figure holds per year.
        synthetic: the sites whose people are made up; all or none, since the two are never mixed.
        seconds: from the first request to the answer, of this process.
        recovered: who is in a total though it fell silent at the end, and why: the others opened its masks.
    """

    regime: Regime
    sites: tuple[str, ...]
    absent: Mapping[str, str]
    minimum_cell: int
    minimum_people: int
    minimum_sites: int
    noise: Mapping[str, float]
    attempts: int
    rho: float
    bytes_left: Mapping[str, int]
    policies: Mapping[str, str]
    data_versions: Mapping[str, int]
    synthetic: tuple[str, ...]
    seconds: float
    recovered: Mapping[str, str] = field(default_factory=dict)
    renewed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Result:
    """One question's answer over all sites together, for each site where the question asks that, and its statement.

    An exact answer for each site is instead of one over all, which then has no tables and no facts, unless it is made
    of the sites' own answers; its `withheld` is the sum of the sites'.
    """

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
    _projected: dict[str, set[str]] = field(default_factory=dict)
    _answers: dict[str, Answer] = field(default_factory=dict)
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
        self._summing = Summing(self.study, self._session, self.checkpoint)

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
        results = []
        for number, question in enumerate(self.study.questions, start=1):
            results.append(self._answer(number, question))
            self._answers[question.name] = results[-1].answer
            if any(question in self.study.sources(later) for later in self.study.questions):
                self._project(question, results[-1].answer)
        session.close()
        return tuple(results)

    def _project(self, question: Question, answer: Answer) -> None:
        """Have every site compute the columns that an answer offers; a site that does not is asked no question that
        reads them."""
        assert isinstance(question.analysis, Offering)
        projection = question.analysis.projection(answer, self.study.frame(question))
        header = Project(self._session.name, self.study.digest, question.name, self._session.expires())
        request = self.checkpoint.once(
            f"{question.name}.project",
            lambda: seal_envelope(header, pack_arrays(projection.arrays()), self.identity),
        )
        done = set(json.loads(self.checkpoint.read(f"{question.name}.projected") or b"[]"))
        came, lost = self._session.collect([request], [s for s in self._willing(question) if s not in done], Projected)
        self._lose(lost)
        self._projected[question.name] = done | set(came)
        self.checkpoint.write(f"{question.name}.projected", json.dumps(sorted(done | set(came))).encode())

    # -- one question ---------------------------------------------------------------------------------------------

    def _answer(self, number: int, question: Question) -> Result:
        started = time.monotonic()
        self._session.bytes_left = json.loads(self.checkpoint.read(f"{question.name}.bytes") or b"{}")
        self._at = Progress(question.name, number, len(self.study.questions), 0, self._steps(question))
        self.progress(self._at)
        frame = self.study.frame(question)
        self._absent = dict(self._session.away)  # a refusal concerns one question; a site that fell silent stays away
        roster = self._willing(question)
        refusing = {
            s: f"refused: {o.refuses[question.name]}"
            for s, o in self._session.opened.items()
            if question.name in o.refuses
        }
        recovered: Mapping[str, str] = {}
        if question.summed:
            self._can_be_answered(question, frame)
            sites, sums, analysis, recovered = self._summed(question, frame, roster, refusing)
            sds = question.noise(analysis, analysis.leaves(frame))
            minimum = 0 if question.budget else self._minimum_cell(sites)
            total = Total(sums, sites, _of_all(sds, sites), minimum)
            answer, by_site = self._final(analysis, total, frame), {}
        elif question.budget is None:
            sites, parts, analysis = self._sealed(question, frame, roster, refusing)
            minimum = self._minimum_cell(sites)
            sds = dict[str, float]()
            by_site = {s: self._final(analysis, Total(parts[s], (s,), {}, minimum), frame) for s in sites}
            made = analysis.combine(by_site, frame) if isinstance(analysis, Combining) else Answer({}, {})
            answer = replace(made, withheld=sum(one.withheld for one in by_site.values()))
        else:
            self._can_be_answered(question, frame)
            sites, parts, analysis = self._sealed(question, frame, roster, refusing)
            sds = question.noise(analysis, analysis.leaves(frame))
            answer = self._final(analysis, Total(_sum(parts.values()), sites, _of_all(sds, sites)), frame)
            by_site = {site: self._final(analysis, Total(part, (site,), sds), frame) for site, part in parts.items()}
        policies = [self._session.opened[site] for site in sites]
        exact = question.regime is Regime.EXACT
        attempts = self._summing.asked(question) if question.summed else 1
        statement = Statement(
            regime=question.regime,
            sites=sites,
            absent={**self._absent, **refusing},
            minimum_cell=self._minimum_cell(sites) if exact else 0,
            minimum_people=max(o.minimum_people for o in policies) if exact else 0,
            minimum_sites=self._least(question, sites),
            noise=sds,
            attempts=attempts,
            rho=attempts * question.budget.loss.rho if question.budget else 0.0,
            bytes_left={site: self._session.bytes_left.get(site, 0) for site in sites},
            policies={site: self._session.opened[site].policy for site in sites},
            data_versions={site: self._session.opened[site].data for site in sites},
            synthetic=tuple(site for site in sites if self._session.opened[site].synthetic),
            seconds=time.monotonic() - started,
            recovered=recovered,
            renewed=tuple(site for site in sites if self._session.opened[site].renewal is Renewal.YEARLY),
        )
        return Result(question, answer, by_site, statement)

    def _minimum_cell(self, sites: Iterable[str]) -> int:
        """The strictest of the study and of what the sites stated."""
        return max([self.study.minimum_cell, *(self._session.opened[site].minimum_cell for site in sites)])

    def _final(self, analysis: Analysis, total: Total, frame: Frame) -> Answer:
        answer = analysis.conclude(total, frame)
        assert isinstance(answer, Answer)
        return answer

    def _willing(self, question: Question) -> tuple[str, ...]:
        """The sites that opened the study, do not refuse the question, have the columns that earlier answers offer it
        and are not away."""
        opened, away = self._session.opened, self._session.away
        able = {s for s, o in opened.items() if question.name not in o.refuses and s not in away}
        for source in self.study.sources(question):
            able &= self._projected.get(source.name, able)
        return tuple(sorted(able))

    def _summed(
        self, question: Question, frame: Frame, roster: tuple[str, ...], refusing: Mapping[str, str]
    ) -> tuple[tuple[str, ...], Summary, Analysis, dict[str, str]]:
        """The last round's total under secure summing, the sites in it, and those of them whose masks others opened."""
        while True:
            attempt = self._attempt(question, roster, refusing)
            try:
                self._agree(attempt)
                return self._rounds(question, frame, attempt)
            except SitesLostError as error:
                self._summing.give_up(question, error.lost)
                self._lose(error.lost)

    def _attempt(self, question: Question, roster: tuple[str, ...], refusing: Mapping[str, str]) -> Attempt:
        """The attempt that a question is in, begun if it has not, together with all that have the same roster."""
        before: dict[str, str] = {}
        for lost in self._summing.lost(question):
            before |= lost
        attempt = self._summing.attempt(question)
        if attempt is None:
            roster = tuple(site for site in roster if site not in self._absent)
            self._quorum(question, roster, {**before, **refusing})  # before it costs anybody anything
            if len(self._summing.lost(question)) >= 2 * len(self.federation.nodes):
                rule, remedy = MEANING[Reason.AGREEMENT_STALE]
                found = "other studies' rosters were signed in between, again and again"
                raise RefusedError(Reason.AGREEMENT_STALE, rule, found, remedy + ".")
            later = self.study.questions[self.study.questions.index(question) + 1 :]
            same = [q for q in later if _agreed_with_others(q) and self._willing(q) == roster]
            same = [q for q in same if self._summing.attempt(q) is None] if _agreed_with_others(question) else []
            self._summing.begin([question, *same], roster)
            attempt = self._summing.attempt(question)
            assert attempt is not None
        self._absent |= {
            s: before.get(s, "came after the roster was agreed") for s in roster if s not in attempt.roster
        }
        return attempt

    def _agree(self, attempt: Attempt) -> None:
        try:
            self._summing.agree(attempt)
        except SitesLostError as error:
            for other in self._summing.covered(attempt):
                if other.name != attempt.question:
                    self._summing.give_up(other, {s: w for s, w in error.lost.items() if not w.startswith("refused: ")})
            raise

    def _lose(self, lost: Mapping[str, str]) -> None:
        self._absent.update(lost)
        self._session.away.update({site: why for site, why in lost.items() if not why.startswith("refused: ")})

    def _name_absent(self, roster: Iterable[str], there: Container[str]) -> None:
        """Also where an earlier process found them absent, every site that was asked and is not in the sum is named."""
        for site in roster:
            if site not in there:
                self._absent.setdefault(site, "did not answer")

    def _rounds(
        self, question: Question, frame: Frame, attempt: Attempt
    ) -> tuple[tuple[str, ...], Summary, Analysis, dict[str, str]]:
        analysis, earlier, recovered = question.analysis, list[Summary](), dict[str, str]()
        if isinstance(analysis, Following) and analysis.follows:
            analysis = analysis.after(self._answers[analysis.follows], frame)
        for number in range(1, question.analysis.rounds() + 1):
            cut = analysis.slices(frame)
            totals: list[Summary] = []
            for start in range(0, len(cut), SLICES_PER_EXCHANGE):
                numbers = range(start, min(start + SLICES_PER_EXCHANGE, len(cut)))
                place = f"{question.name}.{attempt.number}.{number}.{start}"
                asks = self._requests(
                    place, question, analysis, number, numbers, len(cut), attempt.number, attempt.roster, earlier
                )
                fields = [analysis.leaves(frame[cut[n]]) for n in numbers]
                lengths = [sum(f.size for f in fs.values()) for fs in fields]
                vectors, silent = self._summing.total(place, attempt, asks, lengths)
                recovered |= silent
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
                return attempt.roster, total, analysis, recovered
            following = analysis.conclude(Total(total, attempt.roster, {}, self._minimum_cell(attempt.roster)), frame)
            if not isinstance(following, Analysis):
                return attempt.roster, total, analysis, recovered
            earlier.append(total)
            analysis = following
        raise AssertionError("unreachable: rounds() bounds the loop")

    def _sealed(
        self, question: Question, frame: Frame, roster: tuple[str, ...], refusing: Mapping[str, str]
    ) -> tuple[tuple[str, ...], dict[str, Summary], Analysis]:
        """The last round's parts, site by site: noised, or without what the site withheld."""
        analysis, earlier = question.analysis, list[Summary]()
        rounds = question.analysis.rounds()
        roster = self._asked(question, roster, refusing)
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

    def _asked(self, question: Question, roster: tuple[str, ...], refusing: Mapping[str, str]) -> tuple[str, ...]:
        """The roster that is signed into the first requests: after a restart, still the first process's."""

        def decide() -> bytes:
            self._quorum(question, roster, refusing)  # before it costs anybody anything
            return json.dumps(roster).encode()

        asked = tuple(json.loads(self.checkpoint.once(f"{question.name}.1.roster", decide)))
        self._absent |= dict.fromkeys((s for s in roster if s not in asked), "came after the question was asked")
        return asked

    def _can_be_answered(self, question: Question, frame: Frame) -> None:
        """Assert it before anybody pays for it."""
        try:
            question.noise(question.analysis, question.analysis.leaves(frame))
        except ValueError as error:
            raise UsageError(
                f"Question {question.name!r} needs noise that fits.", str(error), "ask for another epsilon."
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
                for digest, span, reply in zip(digests, cut, messages, strict=True):
                    opened = unpack_arrays(unseal(reply.body, self._session.sealing, digest))
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
        if number > 1 and carries(type(analysis)):
            body = pack_parts([pack_arrays(carried(analysis))])
        else:
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
                expires=self._session.expires(),
                version=package_version(),
            )
            out.append(
                self.checkpoint.once(f"{place}.{n}.request", partial(seal_envelope, header, body, self.identity))
            )
        return out

    # -- quorum and progress --------------------------------------------------------------------------------------

    def _least(self, question: Question, sites: Iterable[str]) -> int:
        """The strictest of the study and, for a total, of the sites' policies and of what its noise counts on."""
        least = [self.study.minimum_sites]
        if question.summed:
            least += [secure_sum.LEAST_SITES, *(self._session.opened[site].minimum_sites for site in sites)]
        if question.shares_noise:
            least.append(question.honest_sites)
        return max(least)

    def _quorum(self, question: Question, sites: Sequence[str], refusing: Mapping[str, str]) -> None:
        need = self._least(question, sites)
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
        if frame.panel is not None and question.summed:
            last = -(-len(frame.panel) // (VARIANTS_PER_SLICE * SLICES_PER_EXCHANGE))
        return question.analysis.rounds() - 1 + last

    def _advance(self, note: str = "") -> None:
        self.checkpoint.write(f"{self._at.name}.bytes", json.dumps(self._session.bytes_left).encode())
        at = self._at
        self._at = Progress(at.name, at.question, at.questions, min(at.done + 1, at.steps), at.steps, note)
        self.progress(self._at)


def _agreed_with_others(question: Question) -> bool:
    """Whether one exchange may agree on its roster and other questions'. Not if it is private: a site that cannot pay
    for it refuses, and should not be lost to the others for that."""
    return question.summed and question.budget is None


def _of_all(sds: Mapping[str, float], sites: Sequence[str]) -> dict[str, float]:
    """Standard deviations of the noise in a total to which each site added as much."""
    return {name: sd * len(sites) ** 0.5 for name, sd in sds.items()}


def _sum(parts: Iterable[Summary]) -> Summary:
    parts = iter(parts)
    total = next(parts)
    for part in parts:
        total = add(total, part)
    return total

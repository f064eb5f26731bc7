"""The one door. Everything that leaves a node has passed these steps, in this order, straight down.

    1 decode   verify the signature, then parse strictly
    2 admit    a ledger that is not behind; coordinator, purpose, analysis, columns, build, veto, roster, order
    3 reserve  the loss of the whole question, before any data is read
    4 open     only what the analysis needs, clamped to public ranges
      people     of the question's cohort; as many as policy asks, and the same as earlier exact answers' or many
                 others (exact)
    5 summarise  the only line that sees people
    6 check    against what the analysis declared would leave
    7 protect  noise (private: a share of it where parts are summed), or small cells withheld (exact, by site)
    8 mask     secure summing, or sealing to the coordinator where nothing is summed
    9 record   reply, ledger and journal line; only then does the reply leave

The same request is answered with the same stored bytes. A refusal carries a closed reason code and public numbers;
what else there is to say stays in the node's own log.
"""

from __future__ import annotations

import hashlib
import logging
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from fl_client import asked, versions
from fl_client.agreements import Agreement
from fl_client.airlock import Airlock
from fl_client.charges import affordable, reserve
from fl_client.crowds import Crowds
from fl_client.ledger import VETO_FILE, Crowd, Ledger, Session, Slot
from fl_client.objections import Objection, Objections, unreadable
from fl_client.policy import NodeConfig
from fl_client.readers import Dataset
from fl_client.refusal import RefusalError, not_expired
from fl_client.releases import release_of
from fl_client.rounds import Admitted, derived, slot_of
from fl_client.selection import Cohorts
from fl_client.sessions import Sessions, new_key
from fl_client.summing import Summing
from strategies.analysis import Offering
from strategies.errors import DataError, UsageError
from strategies.events import Code
from strategies.federation import Federation, Identity
from strategies.marks import Mark
from strategies.privacy import Regime
from strategies.projection import projection_of
from strategies.protections import noise
from strategies.question import Question, is_name
from strategies.reasons import Reason
from strategies.study import Study
from strategies.summary import Field, Summary, SumOverflowError, check, check_range, saturated
from strategies.version import package_version
from strategies.wire import (
    Agree,
    Answered,
    Ask,
    Close,
    Closed,
    Message,
    Open,
    Opened,
    Project,
    Projected,
    Recover,
    Refused,
    Share,
    Unmask,
    WireError,
    digest_of,
    open_envelope,
    pack_arrays,
    seal,
    seal_envelope,
    unpack_numbers,
)

log = logging.getLogger("genosum.node")


class Gate:
    """A node's door, in front of one data set."""

    def __init__(
        self, config: NodeConfig, federation: Federation, identity: Identity, dataset: Dataset | None, ledger: Ledger
    ) -> None:
        """`dataset` is None while the data cannot be read: the node then refuses everything alike."""
        self.name, self.policy, self.dataset_config = config.name, config.policy, config.dataset
        self.minimum_cell = config.minimum_cell
        self.federation, self.identity, self.dataset, self.ledger = federation, identity, dataset, ledger
        self._sessions, self._crowds, self._cohorts = Sessions(ledger, self.name, identity), Crowds(ledger), Cohorts()
        self._ruled_out: dict[Code, bool] = {}
        self._airlock = Airlock(ledger.folder, self.name)
        self._decided: list[Mapping[str, Any]] = []  # in this bundle
        self._owes_mark = False  # a recorded reply's is not kept yet

    @staticmethod
    def build(config: NodeConfig) -> Gate:
        """A gate from a node's file.

        Raises:
            UsageError: if federation file, key or policy are not as they must be.
        """
        federation, identity = config.parties()
        ledger = config.open_ledger()
        ledger.mark()  # a process killed between an entry and its mark left the mark to the next
        dataset: Dataset | None
        try:
            dataset = config.open_dataset()
            versions.settle(dataset, ledger)
        except DataError as error:
            unreadable(error)
            dataset = None
        return Gate(config, federation, identity, dataset, ledger)

    def answer(self, envelope: bytes) -> bytes:
        """One message in, one message out, whatever happens."""
        return self.answers([envelope])[0]

    def answers(self, envelopes: Sequence[bytes]) -> list[bytes]:
        """As many messages out as in, whatever happens; what is told of them is on disk before any of them leaves."""
        replies = [self._answered(envelope) for envelope in envelopes]
        try:
            with self.ledger.exclusive():
                self._tell()
        except Exception as error:
            _log(error)
            return [self._refuse(digest_of(envelope), None, Reason.INTERNAL, {}) for envelope in envelopes]
        return replies

    def _tell(self) -> None:
        """Keep the mark of the last reply, and add to the airlock's reports what was decided."""
        decided, self._decided = self._decided, []
        if self._owes_mark:
            self.ledger.mark()
            self._owes_mark = False
            self._airlock.write(decided)
            return
        try:
            self._airlock.write(decided)
        except OSError as error:  # a full disk must not turn a refusal into another
            log.error("the airlock's reports cannot be written: %s", type(error).__name__)

    def _answered(self, envelope: bytes) -> bytes:
        request = digest_of(envelope)
        coordinators = {name: c.identity for name, c in self.federation.coordinators.items()}
        message: Message | None = None
        try:
            message = open_envelope(envelope, coordinators)  # 1 decode
            with self.ledger.exclusive():
                return self._answer(message)
        except RefusalError as refusal:
            return self._refuse(request, message, refusal.reason, refusal.public)
        except WireError as error:
            return self._refuse(request, message, error.reason, {})
        except Exception as error:
            _log(error)
            return self._refuse(request, message, Reason.INTERNAL, {})

    def _refuse(self, request: str, message: Message | None, reason: Reason, public: Mapping[str, float]) -> bytes:
        line = {"event": "refuse", "reason": reason.value, "coordinator": message.signer if message else ""}
        header = message.header if message else None
        if isinstance(header, Ask):
            line |= _place(header)
        try:
            self.ledger.note(line)
            self._decided.append(line)
        except Exception as error:  # a full disk must not turn a refusal into an exception that others see
            log.error("the journal cannot be written: %s", type(error).__name__)
        log.info("refused: %s", reason.value)
        refused = Refused(request, self.name, reason, dict(public))
        try:
            return self._sealed(refused, b"", self.ledger.mark())
        except Exception as error:
            log.error("the ledger cannot be read: %s", type(error).__name__)
            return seal_envelope(refused, b"", self.identity)

    def _sealed(self, reply: Opened | Answered | Projected | Closed | Refused, body: bytes, mark: Mark) -> bytes:
        """A reply in its envelope, with the signed mark of the ledger as it was when the reply was made."""
        return seal_envelope(replace(reply, mark=mark.signed(self.identity)), body, self.identity)

    def _answer(self, message: Message) -> bytes:
        handlers: Mapping[type, Callable[[Message, Any], bytes]] = {
            Open: self._open,
            Share: self._together,
            Agree: self._together,
            Ask: self._ask,
            Project: self._project,
            Unmask: self._together,
            Recover: self._together,
            Close: self._close,
        }
        step = handlers.get(type(message.header))
        if step is None:
            raise RefusalError(Reason.MALFORMED)
        if not isinstance(message.header, Close):
            self._not_vetoed()
            self._not_behind(message)
        return step(message, message.header)

    # -- one question's slice -------------------------------------------------------------------------------------

    def _ask(self, message: Message, ask: Ask) -> bytes:
        if (stored := self.ledger.reply(message.digest)) is not None:
            self._sessions.same_coordinator(message, self.ledger.session(ask.session))
            return stored
        admitted = self._admit(message, ask)  # 2
        study, question, dataset = admitted.study, admitted.question, self._dataset()
        fields = self._declared(admitted)  # what cannot be answered is not paid for
        reserve(self.ledger, self.policy, message.signer, ask, question)  # 3
        try:
            needs, frame = admitted.analysis.needs(), admitted.frame[admitted.span]
            projected = self._sessions.columns(admitted.session, needs)
            words = question.regime is Regime.PRIVATE
            chosen = self._cohorts.chosen(dataset, study, question)
            computed = {**projected, **chosen.columns}
            cohort = dataset.cohort(needs, frame, words, computed, chosen.inside)  # 4 open
            crowds: tuple[Crowd, ...] = ()
            if question.regime is Regime.EXACT:
                numbers = self._sessions.projections(admitted.session, needs)
                about = asked.of_answer(study, question, admitted.analysis, frame, numbers)
                least = self.policy.minimum_people
                with self.ledger.denials.counting(message.signer, about):
                    crowds = self._crowds.of(dataset, admitted.analysis, frame, chosen, cohort, least)
            summary = admitted.analysis.summarise(cohort, frame)  # 5 summarise
        except DataError as error:
            unreadable(error)
            raise RefusalError(Reason.DATASET_UNAVAILABLE) from None
        check(summary, fields)  # 6
        sds, cell = dict[str, float](), self._objections.minimum_cell(study)
        if question.regime is Regime.PRIVATE:
            if question.summed:  # before the noise: what wraps or refuses must depend on noised numbers alone
                summary = saturated(summary, len(ask.roster))
            sds = question.noise(admitted.analysis, fields)
            summary = noise.add_noise(summary, fields, sds)  # 7 protect
        elif question.by_site:
            summary = admitted.analysis.withhold(summary, cell)  # 7
        if admitted.agreement is not None:
            body = self._mask(message.digest, admitted.agreement, admitted, summary)  # 8
        else:
            body = seal(pack_arrays(summary), admitted.session.sealing, message.digest)  # 8
        line = release_of(admitted, self.policy, cell, dataset, fields, sds, body).line()
        answered = Answered(message.digest, self.name, package_version())
        make = partial(self._sealed, answered, body)
        reply = self.ledger.record(message.digest, slot_of(ask), make, line, question.summed, crowds)  # 9
        self._owes_mark = True
        self._decided.append({**line, "time": time.time()})
        return reply

    def _admit(self, message: Message, ask: Ask) -> Admitted:
        session = self._sessions.of(message, ask.session)
        if session.study != ask.study or self._sessions.said(session).data != self.dataset_config.version:
            raise RefusalError(Reason.SESSION_CONFLICT)  # slices of two versions would not add up to an answer
        not_expired(ask.expires)
        if ask.version != package_version():  # of code that was changed in mid-study, too
            raise RefusalError(Reason.VERSION_MISMATCH)
        study = self._sessions.study(session)
        question = study.question(ask.question)
        if question is None:
            raise RefusalError(Reason.OUT_OF_ORDER)
        self._not_objected(message, study, question)
        agreement = self._agreement(ask, question)
        analysis = derived(message, ask, study, question, self.ledger)
        frame = study.frame(question)
        cut = analysis.slices(frame)
        if not (ask.slices == len(cut) and 0 <= ask.slice < len(cut)):
            raise RefusalError(Reason.OUT_OF_ORDER)
        slot = slot_of(ask)
        if self.ledger.occupant(slot) is not None:
            raise RefusalError(Reason.ALREADY_ANSWERED)
        return Admitted(ask, study, question, analysis, frame, cut[ask.slice], session, agreement)

    def objection(self, coordinator: str, study: Study, question: Question) -> Objection | None:
        """Why this node would not answer the question; None if it would."""
        return self._objections.to(coordinator, study, question)

    @property
    def _objections(self) -> Objections:
        return Objections(
            self.policy,
            self.dataset_config,
            self.minimum_cell,
            self.dataset,
            self._cohorts,
            self._ruled_out,
            self.ledger.denials,
        )

    def _not_objected(self, message: Message, study: Study, question: Question) -> None:
        if (objection := self._objections.counted(message.signer, study, question)) is not None:
            raise RefusalError(objection[0], **objection[1])

    def _agreement(self, ask: Ask, question: Question) -> Agreement | None:
        """The agreement under which the part will be masked; None if each site's part is sealed by itself."""
        if question.summed:
            self._summing.admit_roster(ask.roster, ask.attempt, _least_sites(question))
            return self._summing.agreed(ask)
        known = self.federation.nodes
        if self.name not in ask.roster or len(set(ask.roster)) != len(ask.roster) or not set(ask.roster) <= set(known):
            raise RefusalError(Reason.NOT_IN_ROSTER)
        if ask.attempt != 1:
            raise RefusalError(Reason.OUT_OF_ORDER)  # another attempt would be a second draw of the noise
        return None

    def _declared(self, admitted: Admitted) -> dict[str, Field]:
        """What will leave; asked before anything is spent on it."""
        try:
            fields = admitted.analysis.leaves(admitted.frame[admitted.span])
            admitted.question.noise(admitted.analysis, fields)
        except (UsageError, ValueError):
            raise RefusalError(Reason.STUDY_INVALID) from None
        return fields

    def _mask(self, request: str, agreement: Agreement, admitted: Admitted, summary: Summary) -> bytes:
        sites = len(agreement.roster)
        if admitted.question.regime is Regime.EXACT:  # a noised part was held before its noise was added
            try:
                check_range(summary, sites)
            except SumOverflowError:
                if admitted.ask.round == 1:  # the signed study alone leads here
                    raise RefusalError(Reason.SUM_OVERFLOW) from None
                summary = saturated(summary, sites)
        return self._summing.mask(request, agreement, summary)

    # -- agreeing on a roster, opening its sum --------------------------------------------------------------------

    @property
    def _summing(self) -> Summing:
        return Summing(self.name, self.policy, self.federation, self.identity, self.ledger)

    def _together(self, message: Message, step: Share | Agree | Unmask | Recover) -> bytes:
        """Exchanges of keys, signatures, seeds and shares; the same request is answered with the same bytes."""
        session = self._sessions.of(message, step.session)
        if (stored := self.ledger.agreements.exchanged(message.digest)) is not None:
            return stored
        if isinstance(step, Unmask):
            return self._summing.unmask(message, step, session)
        if isinstance(step, Recover):
            return self._summing.recover(message, step, session)
        not_expired(step.expires)
        if isinstance(step, Agree):
            return self._summing.agree(message, step, session)
        if session.study != step.study:
            raise RefusalError(Reason.SESSION_CONFLICT)
        study = self._sessions.study(session)
        exact = set()
        for name, attempt in step.questions.items():
            question = study.question(name)
            if question is None or not question.summed:
                raise RefusalError(Reason.OUT_OF_ORDER)
            self._not_objected(message, study, question)
            self._summing.admit_roster(step.roster, attempt, _least_sites(question))
            affordable(self.ledger, self.policy, message.signer, step, question, attempt)
            if question.regime is Regime.EXACT:
                exact.add(name)
        return self._summing.share(message, step, session, exact)

    # -- columns that an answer offers -----------------------------------------------------------------------------

    def _project(self, message: Message, step: Project) -> bytes:
        """Compute an answer's columns for the node's own people, once; nothing of them leaves."""
        session = self._sessions.of(message, step.session)
        if (stored := self.ledger.agreements.exchanged(message.digest)) is not None:
            return stored
        not_expired(step.expires)
        if session.study != step.study or self._sessions.said(session).data != self.dataset_config.version:
            raise RefusalError(Reason.SESSION_CONFLICT)
        study = self._sessions.study(session)
        question = study.question(step.question)
        if question is None or not isinstance(question.analysis, Offering):
            raise RefusalError(Reason.OUT_OF_ORDER)
        self._not_objected(message, study, question)
        panel = study.frame(question).panel
        try:
            projection = projection_of(tuple(question.analysis.offers), unpack_numbers(message.body))
        except ValueError:
            raise RefusalError(Reason.MALFORMED) from None
        if panel is None or len(projection) != len(panel):
            raise RefusalError(Reason.MALFORMED)
        place = Slot(step.session, step.question, 0, 0, 0)
        numbers = hashlib.sha256(message.body).hexdigest()
        if self.ledger.first_seen(place, numbers) != numbers:
            raise RefusalError(Reason.ALREADY_ANSWERED)
        try:
            columns = self._dataset().project(projection, panel)
        except DataError as error:
            unreadable(error)
            raise RefusalError(Reason.DATASET_UNAVAILABLE) from None
        self.ledger.panels.keep_columns(step.session, step.question, pack_arrays(columns))
        line = {"event": "project", "coordinator": message.signer, "session": step.session, "study": step.study,
                "question": step.question, "columns": len(columns)}  # fmt: skip
        self.ledger.note(line)
        reply = self._sealed(Projected(message.digest, self.name), b"", self.ledger.mark())
        self.ledger.agreements.remember(message.digest, step.session, reply)
        return reply

    # -- opening and closing a study ------------------------------------------------------------------------------

    def _open(self, message: Message, opening: Open) -> bytes:
        if not is_name(opening.session):
            raise RefusalError(Reason.MALFORMED)  # its questions would have no airlock report
        known = self.ledger.session(opening.session)
        if known is not None:
            if known.request != message.digest:
                raise RefusalError(Reason.SESSION_CONFLICT)
            self._sessions.same_coordinator(message, known)
            return known.reply
        not_expired(opening.expires)
        if message.signer not in self.policy.coordinators:
            raise RefusalError(Reason.COORDINATOR_NOT_ALLOWED)
        if opening.version != package_version():
            raise RefusalError(Reason.VERSION_MISMATCH)
        study, document, panels = self._sessions.read(message, opening)
        try:
            seal(b"", opening.sealing, message.digest)
        except ValueError:  # before anything is charged for a reply that could not be sealed
            raise RefusalError(Reason.KEYS_INVALID) from None
        refuses: dict[str, Reason] = {}
        for question in study.questions:
            if (objection := self._objections.counted(message.signer, study, question)) is not None:
                refuses[question.name] = objection[0]
                line = {"event": "refuse", "reason": objection[0].value, "coordinator": message.signer,
                        "session": opening.session, "study": opening.study, "question": question.name}  # fmt: skip
                self.ledger.note(line)
                self._decided.append(line)
        private, public = new_key()
        policy = self.policy
        opened = Opened(
            request=message.digest,
            node=self.name,
            session=opening.session,
            study=opening.study,
            key=public,
            version=package_version(),
            minimum_cell=self.minimum_cell,
            minimum_people=policy.minimum_people,
            minimum_sites=policy.minimum_sites,
            policy=policy.identifier,
            epsilon=policy.budget.loss.epsilon(policy.delta),  # per person, whatever unit the policy promises
            delta=policy.delta,
            synthetic=self.dataset_config.synthetic,
            data=self.dataset_config.version,
            refuses=refuses,
            renewal=policy.renewal,
        )
        session = Session(
            opening.session, opening.study, message.signer, message.digest, document, opening.sealing, private, b""
        )
        return self.ledger.open_session(session, panels, partial(self._sealed, opened, b""))

    def _close(self, message: Message, close: Close) -> bytes:
        self._sessions.same_coordinator(message, self.ledger.session(close.session))
        self.ledger.close_session(close.session)
        return self._sealed(Closed(message.digest, self.name), b"", self.ledger.mark())

    # -- shared conditions ----------------------------------------------------------------------------------------

    def _not_vetoed(self) -> None:
        if (self.ledger.folder / VETO_FILE).exists():
            raise RefusalError(Reason.VETOED)

    def _not_behind(self, message: Message) -> None:
        """A ledger that was put back to an older copy would spend again what it does not know to be spent."""
        header = message.header
        if isinstance(header, Open) and (shown := header.marks.get(self.name)) is not None:
            if not shown.is_signed_by(self.identity.public):
                raise RefusalError(Reason.BAD_SIGNATURE)
            if message.signer in self.policy.coordinators and header.expires >= time.time():
                self.ledger.present(shown)  # nobody stops a node for good with a request that it would not answer
        if self.ledger.missing():
            raise RefusalError(Reason.LEDGER_BEHIND)

    def _dataset(self) -> Dataset:
        if self.dataset is None:
            raise RefusalError(Reason.DATASET_UNAVAILABLE)
        return self.dataset


def _log(error: Exception) -> None:
    # The text of an exception may hold data: neither the wire nor the log sees it, only where it happened.
    where = [f"{Path(f.filename).name}:{f.lineno}" for f in traceback.extract_tb(error.__traceback__)]
    log.error("internal: %s at %s", type(error).__name__, " < ".join(reversed(where)))


def _least_sites(question: Question) -> int:
    """As many sites as shared noise counts on."""
    return question.honest_sites if question.shares_noise else 0


def _place(ask: Ask) -> dict[str, str]:
    """Which study's question a request says to be, for the journal; nothing if it holds text that is no name."""
    digest = len(ask.study) == len(digest_of(b"")) and set(ask.study) <= set("0123456789abcdef")
    if not (digest and is_name(ask.session) and is_name(ask.question)):
        return {}
    return {"session": ask.session, "study": ask.study, "question": ask.question}

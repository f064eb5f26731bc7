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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from numpy.typing import NDArray

from fl_client import versions
from fl_client.agreements import Agreement
from fl_client.airlock import MASKED, SEALED, Airlock, Array, Release
from fl_client.ledger import VETO_FILE, Crowd, Ledger, Session, Slot
from fl_client.overlap import Register
from fl_client.policy import NodeConfig, Policy
from fl_client.ranges import objection
from fl_client.readers import Dataset
from fl_client.refusal import RefusalError, not_expired
from fl_client.reservations import OverBudgetError, Place
from fl_client.selection import Chosen, Cohorts, forbidden
from fl_client.summing import Summing
from strategies import accounting
from strategies.analysis import (
    PASSED,
    Analysis,
    Frame,
    Narrowing,
    Needs,
    Offering,
    Span,
    Total,
    alike,
    carries,
    parameters,
    stated,
)
from strategies.codec import canonical
from strategies.cohort import Cohort
from strategies.errors import DataError, UsageError
from strategies.events import Code
from strategies.federation import Federation, Identity
from strategies.marks import Mark
from strategies.privacy import Regime, stacked
from strategies.projection import projection_of
from strategies.protections import noise
from strategies.question import Question, is_name
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
    Reason,
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
    unpack_arrays,
    unpack_columns,
    unpack_numbers,
    unpack_parts,
)

log = logging.getLogger("genosum.node")


@dataclass(frozen=True)
class Admitted:
    """What step 2 hands on: the question's round as the node itself derived it."""

    ask: Ask
    question: Question
    analysis: Analysis
    frame: Frame
    span: Span
    session: Session
    agreement: Agreement | None


class Gate:
    """A node's door, in front of one data set."""

    def __init__(
        self, config: NodeConfig, federation: Federation, identity: Identity, dataset: Dataset | None, ledger: Ledger
    ) -> None:
        """`dataset` is None while the data cannot be read: the node then refuses everything alike."""
        self.name, self.policy, self.dataset_config = config.name, config.policy, config.dataset
        self.minimum_cell = config.minimum_cell
        self.federation, self.identity, self.dataset, self.ledger = federation, identity, dataset, ledger
        self._study: tuple[str, Study] | None = None
        self._register: Register | None = None
        self._cohorts = Cohorts()
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
            _unreadable(error)
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
            self._same_coordinator(message, self.ledger.session(ask.session))
            return stored
        admitted = self._admit(message, ask)  # 2
        question, dataset = admitted.question, self._dataset()
        fields = self._declared(admitted)  # what cannot be answered is not paid for
        self._reserve(message.signer, ask, question)  # 3
        try:
            needs, frame = admitted.analysis.needs(), admitted.frame[admitted.span]
            projected = self._projected(admitted.session, needs)
            words = question.regime is Regime.PRIVATE
            chosen = self._cohorts.chosen(dataset, self._opened_study(admitted.session), question)
            computed = {**projected, **chosen.columns}
            cohort = dataset.cohort(needs, frame, words, computed, chosen.inside)  # 4 open
            crowds = self._crowds(dataset, needs, frame, chosen, cohort) if question.regime is Regime.EXACT else ()
            summary = admitted.analysis.summarise(cohort, frame)  # 5 summarise
        except DataError as error:
            _unreadable(error)
            raise RefusalError(Reason.DATASET_UNAVAILABLE) from None
        check(summary, fields)  # 6
        sds: Mapping[str, float] = {}
        if question.regime is Regime.PRIVATE:
            if question.summed:  # before the noise: what wraps or refuses must depend on noised numbers alone
                summary = saturated(summary, len(ask.roster))
            sds = question.noise(admitted.analysis, fields)
            summary = noise.add_noise(summary, fields, sds)  # 7 protect
        elif question.by_site:
            summary = admitted.analysis.withhold(summary, self._minimum_cell(self._opened_study(admitted.session)))  # 7
        if admitted.agreement is not None:
            body = self._mask(message.digest, admitted.agreement, admitted, summary)  # 8
        else:
            body = seal(pack_arrays(summary), admitted.session.sealing, message.digest)  # 8
        line = self._release(message, admitted, fields, sds, body).line()
        answered = Answered(message.digest, self.name, package_version())
        make = partial(self._sealed, answered, body)
        reply = self.ledger.record(message.digest, _slot(ask), make, line, question.summed, crowds)  # 9
        self._owes_mark = True
        self._decided.append({**line, "time": time.time()})
        return reply

    def _release(
        self, message: Message, admitted: Admitted, fields: Mapping[str, Field], sds: Mapping[str, float], body: bytes
    ) -> Release:
        """What is about to leave, as journal and airlock tell it."""
        ask, question, dataset = admitted.ask, admitted.question, self._dataset()
        study, budget, exact = self._opened_study(admitted.session), question.budget, question.regime is Regime.EXACT
        return Release(
            coordinator=message.signer,
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
            minimum_people=self.policy.minimum_people if exact else None,
            minimum_cell=self._minimum_cell(study) if exact else None,
            minimum_sites=self.policy.minimum_sites if question.summed else None,
            epsilon=budget.epsilon if budget else None,
            delta=budget.delta if budget else None,
            unit=str(budget.unit) if budget else None,
            reserved_rho=budget.loss.rho if budget else None,
            policy=self.policy.identifier,
            data=dataset.digest,
            version=dataset.config.version,
            synthetic=self.dataset_config.synthetic,
        )

    def _admit(self, message: Message, ask: Ask) -> Admitted:
        session = self._session(message, ask.session)
        if session.study != ask.study or self._opened(session).data != self.dataset_config.version:
            raise RefusalError(Reason.SESSION_CONFLICT)  # slices of two versions would not add up to an answer
        not_expired(ask.expires)
        if ask.version != package_version():  # of code that was changed in mid-study, too
            raise RefusalError(Reason.VERSION_MISMATCH)
        study = self._opened_study(session)
        question = study.question(ask.question)
        if question is None:
            raise RefusalError(Reason.OUT_OF_ORDER)
        if (reason := self.objection(message.signer, study, question)) is not None:
            raise RefusalError(reason[0], **reason[1])
        agreement = self._agreement(ask, question)
        analysis = self._derive(message, ask, study, question)
        frame = study.frame(question)
        cut = analysis.slices(frame)
        if not (ask.slices == len(cut) and 0 <= ask.slice < len(cut)):
            raise RefusalError(Reason.OUT_OF_ORDER)
        slot = _slot(ask)
        if self.ledger.occupant(slot) is not None:
            raise RefusalError(Reason.ALREADY_ANSWERED)
        return Admitted(ask, question, analysis, frame, cut[ask.slice], session, agreement)

    def objection(self, coordinator: str, study: Study, question: Question) -> tuple[Reason, dict[str, float]] | None:
        """Why this node would not answer the question, from policy and public facts alone; None if it would.

        In the exact regime the number of people counts as well. In the private regime nothing about the data does,
        or the refusal itself would be a release without noise. What it would say of a question whose columns this one
        reads, it says of this one.
        """
        asked = (*study.all_sources(question), question)
        return next(filter(None, (self._objection(coordinator, study, one) for one in asked)), None)

    def _objection(self, coordinator: str, study: Study, question: Question) -> tuple[Reason, dict[str, float]] | None:
        """The same of a question alone."""
        policy = self.policy
        if coordinator not in policy.coordinators:
            return Reason.COORDINATOR_NOT_ALLOWED, {}
        if study.purpose not in policy.purposes:
            return Reason.PURPOSE_NOT_ALLOWED, {}
        if question.regime not in policy.analyses.get(question.analysis.analysis, ()):
            return Reason.ANALYSIS_NOT_ALLOWED, {}
        if not self._given(study, question):
            return Reason.BY_SITE_NOT_ALLOWED, {}
        if question.shares_noise and question.honest_sites > policy.honest_sites:
            return Reason.HONEST_SITES, {"honest_sites": policy.honest_sites}
        panel = study.frame(question).panel
        if self.dataset is None or (panel is not None and not self.dataset_config.genotypes):
            return Reason.DATASET_UNAVAILABLE, {}
        if (reason := self._reads(study, question, self.dataset)) is not None:
            return reason, {}
        if (reason := self._derives(study, question, self.dataset)) is not None:
            return reason, {}
        if panel is not None and self.dataset_config.assembly not in panel.assemblies:
            return Reason.WRONG_ASSEMBLY, {}
        if question.regime is Regime.EXACT:
            if isinstance(question.analysis, Narrowing) and question.analysis.fewest < self._minimum_cell(study):
                return Reason.TOO_FEW_PEOPLE, {"minimum_cell": self._minimum_cell(study)}
            return self._enough(study, question, self.dataset)
        return None

    def _derives(self, study: Study, question: Question, dataset: Dataset) -> Reason | None:
        """Why a question's cohort may not be looked for, or a column not be derived."""
        policy, selection, derived = self.policy, study.selection(question), study.derived(question)
        read = [study.derived_reads(question)] + ([selection.reads] if selection else [])
        if any(one.domains - set(policy.events) or (one.clinical and not policy.events) for one in read):
            return Reason.EVENTS_NOT_ALLOWED
        events = {event for one in read for event in one.events}
        if policy.forbidden and not all(event.codes for event in events):
            return Reason.CODE_NOT_ALLOWED  # all codes are more than those that policy leaves
        try:
            if any(self._forbids(code, dataset) for event in events for code in event.codes):
                return Reason.CODE_NOT_ALLOWED
            if any(one.clinical for one in read) and (dataset.clinical is None or not dataset.clinical.knows(events)):
                return Reason.DATASET_UNAVAILABLE  # before anything is paid for
        except DataError as error:  # without the vocabulary nobody knows what a code means
            _unreadable(error)
            return Reason.DATASET_UNAVAILABLE
        for name, column in derived.items() if question.regime is Regime.EXACT else ():
            # Totals of two columns that are derived almost alike differ by the few people for whom they differ.
            if name not in policy.columns:
                return Reason.COLUMN_NOT_ALLOWED
            if column != policy.columns[name]:
                return Reason.RANGE_OUTSIDE_POLICY
        return None

    def _forbids(self, code: Code, dataset: Dataset) -> bool:
        """Whether policy rules a code out; a vocabulary is asked once."""
        if code not in self._ruled_out:
            self._ruled_out[code] = any(forbidden(code, one, dataset.clinical) for one in self.policy.forbidden)
        return self._ruled_out[code]

    def _enough(self, study: Study, question: Question, dataset: Dataset) -> tuple[Reason, dict[str, float]] | None:
        """Why an exact question's people are too few. A cohort that nobody here is in is refused like one of a few: or
        the refusal would tell whether there is somebody."""
        least = self.policy.minimum_people
        try:
            members = self._cohorts.chosen(dataset, study, question).members
        except DataError as error:
            _unreadable(error)
            return Reason.DATASET_UNAVAILABLE, {}
        if len(dataset.people) < least or (members is not None and np.count_nonzero(members) < least):
            return Reason.TOO_FEW_PEOPLE, {"minimum_people": least}
        return None

    def _reads(self, study: Study, question: Question, dataset: Dataset) -> Reason | None:
        """Why the columns of the people table that a question reads may not be read, or not so."""
        exact, policy = question.regime is Regime.EXACT, self.policy
        there = dataset.columns if exact else dataset.headings
        for name in study.read_from_table(question):
            if name not in policy.columns or name not in there:
                return Reason.COLUMN_NOT_ALLOWED
            allowed, variable = policy.columns[name], dataset.config.declared.get(name)
            if (reason := objection(study.columns[name], allowed, variable, exact)) is not None:
                return reason
        return None

    def _given(self, study: Study, question: Question) -> bool:
        """Whether policy gives its own part, or one in a total from which the parts that it gives would follow."""
        allowed = self.policy.by_site
        if question.by_site:
            return question.regime in allowed
        return question.regime is Regime.PRIVATE or Regime.EXACT not in allowed or self._minimum_cell(study) == 0

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

    def _minimum_cell(self, study: Study) -> int:
        """The strictest of policy, data set and study."""
        return max(self.minimum_cell, study.minimum_cell)

    def _crowds(
        self, dataset: Dataset, needs: Needs, frame: Frame, chosen: Chosen, cohort: Cohort
    ) -> tuple[Crowd, ...]:
        """The people of an exact answer, if policy allows it: who lacks a column that is needed is not among them. And
        the parts of them who have a value in each optional column. Where a cohort's steps are counted, it is those who
        passed all, and its parts are who passed each."""
        places, least = chosen.places(needs.part.holds(dataset.people)), self.policy.minimum_people
        there = inside = cohort.having(needs.columns)
        if chosen.members is not None:
            inside = there & chosen.members[places]
        if 0 < np.count_nonzero(inside) < least:
            raise RefusalError(Reason.TOO_FEW_PEOPLE, minimum_people=least)
        if self._register is None:
            self._register = Register(self.ledger, dataset.people)
        crowd = self._register.crowd(places[inside], least, dataset.config.version)
        having = [places[inside & cohort.having([name])] for name in needs.optional]
        if steps := PASSED in needs.columns:  # as many as the study has, whoever passed them
            passed, last = cohort.columns[PASSED], round(frame.columns[PASSED].maximum)
            having = [places[there & (passed >= step)] for step in range(1, last + 1)]
        parts = None if crowd is None else self._register.parts(crowd, having, least, steps)
        if crowd is None or parts is None:
            raise RefusalError(Reason.OVERLAP, minimum_people=least)
        return crowd, *parts

    def _derive(self, message: Message, ask: Ask, study: Study, question: Question) -> Analysis:
        """The round's analysis, recomputed from the signed study and the earlier rounds' totals."""
        if not 1 <= ask.round <= question.analysis.rounds():
            raise RefusalError(Reason.OUT_OF_ORDER)
        if ask.round > 1 and carries(type(question.analysis)):
            return self._stated(message, ask, question)
        sums = [unpack_arrays(part) for part in unpack_parts(message.body)]
        if len(sums) != ask.round - 1:
            raise RefusalError(Reason.NOT_DERIVED)
        frame, analysis = study.frame(question), question.analysis
        spends = [(analysis.needs().part.start, analysis.needs().part.stop, analysis.fraction())]
        for earlier in sums:
            try:
                check(earlier, analysis.leaves(frame))
                following = analysis.conclude(Total(earlier, ask.roster), frame)
            except Exception:  # totals are the coordinator's word: whatever they break is its fault
                raise RefusalError(Reason.NOT_DERIVED) from None
            if not isinstance(following, Analysis):
                raise RefusalError(Reason.NOT_DERIVED)
            analysis = following
            spends.append((analysis.needs().part.start, analysis.needs().part.stop, analysis.fraction()))
        if not alike(parameters(analysis), dict(ask.parameters)) or stacked(spends) > 1 + 1e-9:
            raise RefusalError(Reason.NOT_DERIVED)
        self._once(message, ask)
        return _restated(question.analysis, ask, {})

    def _stated(self, message: Message, ask: Ask, question: Question) -> Analysis:
        """The round's analysis, as the coordinator states it: totals of each variant do not travel to every node."""
        parts = unpack_parts(message.body)
        if len(parts) != 1:
            raise RefusalError(Reason.NOT_DERIVED)
        analysis = _restated(question.analysis, ask, unpack_numbers(parts[0]))
        if ask.parameters.get("taken") != ask.round - 1:
            raise RefusalError(Reason.NOT_DERIVED)
        self._once(message, ask)
        return analysis

    def _once(self, message: Message, ask: Ask) -> None:
        """One round of a question has one set of parameters, for all its slices."""
        digest = hashlib.sha256(canonical(dict(ask.parameters)) + message.body).hexdigest()
        if ask.round > 1 and self.ledger.first_seen(_slot(ask), digest) != digest:
            raise RefusalError(Reason.NOT_DERIVED)

    def _declared(self, admitted: Admitted) -> dict[str, Field]:
        """What will leave; asked before anything is spent on it."""
        try:
            fields = admitted.analysis.leaves(admitted.frame[admitted.span])
            admitted.question.noise(admitted.analysis, fields)
        except (UsageError, ValueError):
            raise RefusalError(Reason.STUDY_INVALID) from None
        return fields

    def _reserve(self, coordinator: str, ask: Ask, question: Question) -> None:
        """Set the loss of one attempt aside.

        Another attempt is another draw of the noise, and nobody can know that the earlier one was never opened.
        """
        if question.budget is None:
            return
        # Fractions of rounds that meet the same people add up to one at most: so many releases, all noised alike.
        loss, releases = question.budget.loss, max(1, round(1 / question.analysis.fraction()))
        events = [accounting.plain(accounting.of_loss(loss, releases))]
        place, year = Place(ask.session, ask.question, ask.attempt), time.gmtime().tm_year
        with _within_budget():
            self.ledger.reserve(place, loss, self.policy.bounds, coordinator, year, events)

    def _affordable(self, coordinator: str, share: Share, question: Question, attempt: int) -> None:
        """Refuse before the others are asked, and pay, for an attempt that this node will not take part in."""
        if question.budget is not None:
            place, year = Place(share.session, question.name, attempt), time.gmtime().tm_year
            with _within_budget():
                self.ledger.fits(place, question.budget.loss, self.policy.bounds, coordinator, year)

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
        session = self._session(message, step.session)
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
        study = self._opened_study(session)
        exact = set()
        for name, attempt in step.questions.items():
            question = study.question(name)
            if question is None or not question.summed:
                raise RefusalError(Reason.OUT_OF_ORDER)
            if (reason := self.objection(message.signer, study, question)) is not None:
                raise RefusalError(reason[0], **reason[1])
            self._summing.admit_roster(step.roster, attempt, _least_sites(question))
            self._affordable(message.signer, step, question, attempt)
            if question.regime is Regime.EXACT:
                exact.add(name)
        return self._summing.share(message, step, session, exact)

    # -- columns that an answer offers -----------------------------------------------------------------------------

    def _project(self, message: Message, step: Project) -> bytes:
        """Compute an answer's columns for the node's own people, once; nothing of them leaves."""
        session = self._session(message, step.session)
        if (stored := self.ledger.agreements.exchanged(message.digest)) is not None:
            return stored
        not_expired(step.expires)
        if session.study != step.study or self._opened(session).data != self.dataset_config.version:
            raise RefusalError(Reason.SESSION_CONFLICT)
        study = self._opened_study(session)
        question = study.question(step.question)
        if question is None or not isinstance(question.analysis, Offering):
            raise RefusalError(Reason.OUT_OF_ORDER)
        if (reason := self.objection(message.signer, study, question)) is not None:
            raise RefusalError(reason[0], **reason[1])
        panel = study.frame(question).panel
        try:
            projection = projection_of(tuple(question.analysis.offers), unpack_numbers(message.body))
        except ValueError:
            raise RefusalError(Reason.MALFORMED) from None
        if panel is None or len(projection) != len(panel):
            raise RefusalError(Reason.MALFORMED)
        place = Slot(step.session, step.question, 0, 0, 0)
        if self.ledger.first_seen(place, message.digest) != message.digest:
            raise RefusalError(Reason.ALREADY_ANSWERED)
        try:
            columns = self._dataset().project(projection, panel)
        except DataError as error:
            _unreadable(error)
            raise RefusalError(Reason.DATASET_UNAVAILABLE) from None
        self.ledger.keep_columns(step.session, step.question, pack_arrays(columns))
        line = {"event": "project", "coordinator": message.signer, "session": step.session, "study": step.study,
                "question": step.question, "columns": len(columns)}  # fmt: skip
        self.ledger.note(line)
        reply = self._sealed(Projected(message.digest, self.name), b"", self.ledger.mark())
        self.ledger.agreements.remember(message.digest, step.session, reply)
        return reply

    def _projected(self, session: Session, needs: Needs) -> dict[str, NDArray[np.float64]]:
        """The computed ones of the columns that a round reads, by the names under which it reads them."""
        out: dict[str, NDArray[np.float64]] = {}
        for source in {name.split(".")[0] for name in needs.opened if "." in name and name != PASSED}:
            kept = self.ledger.columns(session.session, source)
            if kept is None:
                raise RefusalError(Reason.OUT_OF_ORDER)
            out |= {f"{source}.{name}": values for name, values in unpack_columns(kept).items()}
        return out

    # -- opening and closing a study ------------------------------------------------------------------------------

    def _open(self, message: Message, opening: Open) -> bytes:
        if not is_name(opening.session):
            raise RefusalError(Reason.MALFORMED)  # its questions would have no airlock report
        known = self.ledger.session(opening.session)
        if known is not None:
            if known.request != message.digest:
                raise RefusalError(Reason.SESSION_CONFLICT)
            self._same_coordinator(message, known)
            return known.reply
        not_expired(opening.expires)
        if message.signer not in self.policy.coordinators:
            raise RefusalError(Reason.COORDINATOR_NOT_ALLOWED)
        if opening.version != package_version():
            raise RefusalError(Reason.VERSION_MISMATCH)
        document, panels = _study_parts(message.body)
        try:
            study = Study.from_document(document, panels)
        except UsageError:
            raise RefusalError(Reason.STUDY_INVALID) from None
        if study.digest != opening.study:
            raise RefusalError(Reason.STUDY_INVALID)
        self._study = opening.session, study
        try:
            seal(b"", opening.sealing, message.digest)
        except ValueError:  # before anything is charged for a reply that could not be sealed
            raise RefusalError(Reason.KEYS_INVALID) from None
        refuses: dict[str, Reason] = {}
        for question in study.questions:
            if (objection := self.objection(message.signer, study, question)) is not None:
                refuses[question.name] = objection[0]
                line = {"event": "refuse", "reason": objection[0].value, "coordinator": message.signer,
                        "session": opening.session, "study": opening.study, "question": question.name}  # fmt: skip
                self.ledger.note(line)
                self._decided.append(line)
        key = X25519PrivateKey.generate()
        public = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        policy: Policy = self.policy
        opened = Opened(
            request=message.digest,
            node=self.name,
            session=opening.session,
            study=opening.study,
            key=public.hex(),
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
        private = key.private_bytes(
            serialization.Encoding.Raw, serialization.PrivateFormat.Raw, serialization.NoEncryption()
        )
        session = Session(
            opening.session,
            opening.study,
            message.signer,
            message.digest,
            document,
            opening.sealing,
            private,
            b"",
        )
        return self.ledger.open_session(session, panels, partial(self._sealed, opened, b""))

    def _close(self, message: Message, close: Close) -> bytes:
        self._same_coordinator(message, self.ledger.session(close.session))
        self.ledger.close_session(close.session)
        return self._sealed(Closed(message.digest, self.name), b"", self.ledger.mark())

    # -- shared conditions ----------------------------------------------------------------------------------------

    def _session(self, message: Message, name: str) -> Session:
        """The open session of this coordinator."""
        session = self.ledger.session(name)
        if session is None or session.document is None:
            raise RefusalError(Reason.NOT_OPENED)
        self._same_coordinator(message, session)
        return session

    def _same_coordinator(self, message: Message, session: Session | None) -> None:
        """A session belongs to whoever opened it: another coordinator can sign the very same request."""
        if session is not None and session.coordinator != message.signer:
            raise RefusalError(Reason.SESSION_CONFLICT)

    def _opened(self, session: Session) -> Opened:
        """What this node said when it opened the session."""
        opened = open_envelope(session.reply, {self.name: self.identity.public}).header
        assert isinstance(opened, Opened)
        return opened

    def _opened_study(self, session: Session) -> Study:
        """The session's study; the latest one is kept decoded, since a study's slices come one after another."""
        if self._study is None or self._study[0] != session.session:
            assert session.document is not None
            self._study = session.session, Study.from_document(session.document, self.ledger.panels(session.session))
        return self._study[1]

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


def _unreadable(error: DataError) -> None:
    log.error("the data set cannot be read: %s `fl-client check` says more.", error.rule)


def _log(error: Exception) -> None:
    # The text of an exception may hold data: neither the wire nor the log sees it, only where it happened.
    where = [f"{Path(f.filename).name}:{f.lineno}" for f in traceback.extract_tb(error.__traceback__)]
    log.error("internal: %s at %s", type(error).__name__, " < ".join(reversed(where)))


def _restated(asked: Analysis, ask: Ask, arrays: Mapping[str, NDArray[Any]]) -> Analysis:
    try:
        return stated(asked, ask.parameters, arrays)
    except (UsageError, ValueError):
        raise RefusalError(Reason.NOT_DERIVED) from None


def _least_sites(question: Question) -> int:
    """As many sites as shared noise counts on."""
    return question.honest_sites if question.shares_noise else 0


@contextmanager
def _within_budget() -> Iterator[None]:
    try:
        yield
    except OverBudgetError as over:
        public = {"rho_asked": over.asked.rho, "rho_left": over.left.rho, f"rho_{over.bound}": over.whole.rho}
        raise RefusalError(Reason.BUDGET_EXHAUSTED, **public) from None


def _place(ask: Ask) -> dict[str, str]:
    """Which study's question a request says to be, for the journal; nothing if it holds text that is no name."""
    digest = len(ask.study) == len(digest_of(b"")) and set(ask.study) <= set("0123456789abcdef")
    if not (digest and is_name(ask.session) and is_name(ask.question)):
        return {}
    return {"session": ask.session, "study": ask.study, "question": ask.question}


def _slot(ask: Ask) -> Slot:
    return Slot(ask.session, ask.question, ask.round, ask.slice, ask.attempt)


def _study_parts(body: bytes) -> tuple[bytes, dict[str, bytes]]:
    parts = unpack_parts(body)
    if len(parts) % 2 != 1:
        raise RefusalError(Reason.MALFORMED)
    try:
        names = [p.decode("ascii") for p in parts[1::2]]
    except UnicodeDecodeError:
        raise RefusalError(Reason.MALFORMED) from None
    if len(set(names)) != len(names) or not all(map(is_name, names)):
        raise RefusalError(Reason.MALFORMED)
    return parts[0], dict(zip(names, parts[2::2], strict=True))

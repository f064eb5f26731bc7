"""Why a node would not answer a question: from policy and public facts, and of an exact one the number of its people.

In the private regime nothing about the data counts, or the refusal itself would be a release without noise.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np

from fl_client import asked
from fl_client.denials import MOST_DENIALS, Denials
from fl_client.policy import Policy
from fl_client.ranges import objection
from fl_client.readers import Dataset
from fl_client.readers.config import DatasetConfig
from fl_client.selection import Cohorts, forbidden
from strategies.analysis import Narrowing
from strategies.errors import DataError
from strategies.events import Code
from strategies.privacy import Regime
from strategies.question import Question
from strategies.reasons import Reason
from strategies.study import Study

log = logging.getLogger("genosum.node")

Objection = tuple[Reason, dict[str, float]]
"""A reason to refuse, and public numbers that say more of it."""


def unreadable(error: DataError) -> None:
    """Tell the operator, and nobody else, which rule the data break."""
    log.error("the data set cannot be read: %s `fl-client check` says more.", error.rule)


@dataclass(frozen=True, eq=False)
class Objections:
    """What a node holds questions against.

    Attributes:
        policy, config: the node's, and its data set's file.
        least_cell: fewest people in a cell that policy or data set shows.
        dataset: None while the data cannot be read.
        cohorts: the people of questions.
        ruled_out: code -> whether policy rules it out; a vocabulary is asked once.
        denials: refusals that told of people.
    """

    policy: Policy
    config: DatasetConfig
    least_cell: int
    dataset: Dataset | None
    cohorts: Cohorts
    ruled_out: dict[Code, bool]
    denials: Denials

    def to(self, coordinator: str, study: Study, question: Question) -> Objection | None:
        """The first to a question, None if there is none. What there is to say of a question whose columns it reads is
        said of this one."""
        return self._first(coordinator, study, question)[1]

    def counted(self, coordinator: str, study: Study, question: Question) -> Objection | None:
        """The same, counted if it tells of people, for the question whose they are: the coordinator is about to hear
        it. Where there is none, it hears that of each exact one's there are enough."""
        one, found = self._first(coordinator, study, question)
        if found is None:
            exact = [q for q in _with_sources(study, question) if q.regime is Regime.EXACT]
            self.denials.answered(coordinator, [asked.of_cohort(study, q) for q in exact])
        elif "minimum_people" in found[1]:
            self.denials.refused(coordinator, asked.of_cohort(study, one), found[0])
        return found

    def _first(self, coordinator: str, study: Study, question: Question) -> tuple[Question, Objection | None]:
        """The same as `to`, and which question's it is."""
        for one in _with_sources(study, question):
            if (found := self._alone(coordinator, study, one)) is not None:
                return one, found
        return question, None

    def _alone(self, coordinator: str, study: Study, question: Question) -> Objection | None:
        """The first to a question alone."""
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
        if self.dataset is None or (panel is not None and not self.config.genotypes):
            return Reason.DATASET_UNAVAILABLE, {}
        if (reason := self._reads(study, question, self.dataset)) is not None:
            return reason, {}
        if (reason := self._derives(study, question, self.dataset)) is not None:
            return reason, {}
        if panel is not None and self.config.assembly not in panel.assemblies:
            return Reason.WRONG_ASSEMBLY, {}
        if question.regime is Regime.EXACT:
            if isinstance(question.analysis, Narrowing) and question.analysis.fewest < self.minimum_cell(study):
                return Reason.TOO_FEW_PEOPLE, {"minimum_cell": self.minimum_cell(study)}
            if self.denials.exhausted(coordinator):
                return Reason.TOO_MANY_REFUSALS, {"most": MOST_DENIALS}
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
            unreadable(error)
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
        if code not in self.ruled_out:
            self.ruled_out[code] = any(forbidden(code, one, dataset.clinical) for one in self.policy.forbidden)
        return self.ruled_out[code]

    def _enough(self, study: Study, question: Question, dataset: Dataset) -> Objection | None:
        """Why an exact question's people are too few. A cohort that nobody here is in is refused like one of a few: or
        the refusal would tell whether there is somebody. It still tells that there are fewer than the minimum, so such
        refusals are counted, and end: see `fl_client.denials`, which says what remains."""
        least = self.policy.minimum_people
        try:
            members = self.cohorts.chosen(dataset, study, question).members
        except DataError as error:
            unreadable(error)
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
        return question.regime is Regime.PRIVATE or Regime.EXACT not in allowed or self.minimum_cell(study) == 0

    def minimum_cell(self, study: Study) -> int:
        """The strictest of policy, data set and study."""
        return max(self.least_cell, study.minimum_cell)


def _with_sources(study: Study, question: Question) -> tuple[Question, ...]:
    """A question after all whose columns it reads."""
    return (*study.all_sources(question), question)

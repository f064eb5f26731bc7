"""The people of exact answers, each held against those of all earlier ones before anything of them is summed."""

from __future__ import annotations

import numpy as np

from fl_client.ledger import Crowd, Ledger
from fl_client.overlap import Register
from fl_client.readers import Dataset
from fl_client.refusal import RefusalError
from fl_client.selection import Chosen
from fl_client.splits import splits
from strategies.analysis import PASSED, Analysis, Frame
from strategies.cohort import Cohort
from strategies.reasons import Reason


class Crowds:
    """Those of a data set. Its people are entered in the register when the first exact answer is made."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._register: Register | None = None

    def of(
        self, dataset: Dataset, analysis: Analysis, frame: Frame, chosen: Chosen, cohort: Cohort, least: int
    ) -> tuple[Crowd, ...]:
        """The people of an exact answer, if policy allows it: who lacks a column that is needed is not among them. And
        the parts of them who have a value in each optional column, and where they are cut. Where a cohort's steps are
        counted, it is those who passed all, and its parts are who passed each.

        Args:
            least: fewest people who may be told about.

        Raises:
            RefusalError: if they are too few, or beside earlier answers a few of them would be singled out.
        """
        needs = analysis.needs()
        places = chosen.places(needs.part.holds(dataset.people))
        there = inside = cohort.having(needs.columns)
        if chosen.members is not None:
            inside = there & chosen.members[places]
        if 0 < np.count_nonzero(inside) < least:
            raise RefusalError(Reason.TOO_FEW_PEOPLE, minimum_people=least)
        if self._register is None:
            self._register = Register(self._ledger, dataset.people)
        crowd = self._register.crowd(places[inside], least, dataset.config.version)
        if crowd is None:
            raise RefusalError(Reason.OVERLAP, minimum_people=least)
        having = [places[inside & cohort.having([name])] for name in needs.optional]
        if steps := PASSED in needs.columns:  # as many as the study has, whoever passed them
            passed, last = cohort.columns[PASSED], round(frame.columns[PASSED].maximum)
            having = [places[there & (passed >= step)] for step in range(1, last + 1)]
        parts = self._register.parts(crowd, having, least, steps)
        cuts = self._register.cut(crowd, places[inside], splits(analysis, frame, cohort, inside), least)
        if parts is None or cuts is None:
            raise RefusalError(Reason.OVERLAP, minimum_people=least)
        return crowd, *parts, *cuts

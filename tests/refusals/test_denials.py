"""Refusals that tell of people are counted, and end."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from fl_client.denials import MOST_DENIALS
from fl_client.gate import Gate
from strategies.analyses.histogram import Histogram
from strategies.expressions import MOST_COHORTS
from strategies.grammar import selection_of
from strategies.question import Question
from strategies.reasons import Reason
from strategies.study import Study
from strategies.wire import Opened
from tests.refusals.test_cuts import between, values_of
from tests.refusals.test_overlap import ask
from tests.tiny import COUNTS, FREQUENCIES, Tiny, study

Make = Callable[..., Tiny]
K, MOST = 5, 4


@pytest.fixture
def tiny(make_tiny: Make, monkeypatch: pytest.MonkeyPatch) -> Tiny:
    monkeypatch.setattr("fl_client.denials.MOST_DENIALS", MOST)
    return make_tiny(minimum_people=K)


def told(gate: Gate) -> int:
    with gate.ledger._engine.begin() as connection:
        return int(connection.exec_driver_sql("SELECT count(*) FROM denials").scalar_one())


def above(*least: float) -> Study:
    """Questions about those whose trait is at least so much."""
    cohorts = {f"c{n}": selection_of({"where": f"trait >= {at:.4f}"}, "a test") for n, at in enumerate(least)}
    return study(*(replace(COUNTS, name=name, cohort=name) for name in cohorts), COUNTS, FREQUENCIES, cohorts=cohorts)


def refuses(tiny: Tiny, asked: Study, session: str) -> dict[str, Reason]:
    """What AT says to opening a study."""
    opened = tiny.read("AT", tiny.gates["AT"].answer(tiny.pen(asked, session).opening())).header
    assert isinstance(opened, Opened)
    return dict(opened.refuses)


def test_nobody_is_looked_for_by_refusals_without_end(tiny: Tiny) -> None:
    """The fifth largest trait, by halving: each study that is opened says whether there are five above a point."""
    low, high, heard = -4.0, 4.0, list[Reason | None]()
    for step in range(40):
        middle = (low + high) / 2
        said = refuses(tiny, above(middle), f"s{step}").get("c0")
        heard.append(said)
        low, high = (low, middle) if said is Reason.TOO_FEW_PEOPLE else (middle, high)
    assert heard.count(Reason.TOO_FEW_PEOPLE) == MOST
    first = heard.index(Reason.TOO_MANY_REFUSALS)
    assert set(heard[first:]) == {Reason.TOO_MANY_REFUSALS}
    fifth = np.sort(values_of(tiny))[-K]
    assert high - fifth > 1e-3 or fifth - low > 1e-3, "it is not found"


def test_then_every_exact_question_is_refused_until_the_year_is_over(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = [3.0 + n / 10 for n in range(MOST)]
    assert set(refuses(tiny, above(*points[:-1]), "before").values()) == {Reason.TOO_FEW_PEOPLE}
    assert ask(tiny, "counts", above(*points)) is Reason.TOO_MANY_REFUSALS, "opened with one more"
    assert told(tiny.gates["AT"]) == MOST
    tiny.restart("AT")
    assert ask(tiny, "counts", study(COUNTS)) is Reason.TOO_MANY_REFUSALS
    assert ask(tiny, "frequencies", study(FREQUENCIES)) is None, "private questions tell by noise alone"
    ledger = tiny.gates["AT"].ledger
    assert ledger.denials.exhausted("demo")
    assert not ledger.denials.exhausted("another")
    today = time.gmtime()
    monkeypatch.setattr("fl_client.denials.time.gmtime", lambda *_: time.struct_time((today.tm_year + 1, *today[1:])))
    assert ask(tiny, "counts", study(COUNTS)) is None


def test_the_same_is_told_once_and_what_tells_nothing_is_not_counted(tiny: Tiny) -> None:
    asked = above(3.0)
    for session in ("one", "two", "three"):
        assert refuses(tiny, asked, session) == {"c0": Reason.TOO_FEW_PEOPLE}
    assert told(tiny.gates["AT"]) == 1
    for question in asked.questions:
        tiny.gates["AT"].objection("demo", asked, question)
        tiny.gates["AT"].objection("another", asked, question)
    gate = tiny.gates["AT"]
    gate.policy = replace(gate.policy, purposes=())
    assert Reason.PURPOSE_NOT_ALLOWED in refuses(tiny, above(3.1), "four").values()
    assert told(tiny.gates["AT"]) == 1, "neither what the operator asked nor what policy alone decided"


def test_refusals_for_people_and_cuts_that_differ_by_a_few_are_counted_too(tiny: Tiny) -> None:
    points = [between(tiny, n) for n in (14, 15, 16)]
    questions = study(*(Question(f"q{n}", Histogram("trait", edges=(-4.0, at, 4.0))) for n, at in enumerate(points)))
    assert ask(tiny, "q0", questions) is None
    assert [ask(tiny, name, questions) for name in ("q1", "q2", "q1")] == [Reason.OVERLAP] * 3
    assert told(tiny.gates["AT"]) == 2
    assert ask(tiny, "c0", above(between(tiny, 2))) is Reason.OVERLAP
    assert told(tiny.gates["AT"]) == 3


def test_two_studies_whose_every_cohort_is_too_small_stay_within_the_bound() -> None:
    assert 2 * MOST_COHORTS <= MOST_DENIALS

"""What a private question costs: once, before data are read, for ever; whatever crashes, restarts or is deleted."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fl_client.readers import Dataset
from fl_server.results import statement
from simulations.sites import COORDINATOR
from strategies import accounting
from strategies.analysis import Answer, Total
from strategies.errors import RefusedError
from strategies.privacy import Budget
from strategies.reasons import Reason
from strategies.wire import Answered, Refused, unseal
from tests.tiny import COUNTS, FREQUENCIES, NAMES, TRAINING, Pen, Tiny, study

SITE = "AT"
STUDY = study(FREQUENCIES, TRAINING, COUNTS)
COST = Budget(1.0, 1e-5).loss


class StopError(BaseException):
    """The process is killed: nothing below catches this."""


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The data sets from which a cohort was opened, in order."""
    opened: list[str] = []
    cohort = Dataset.cohort

    def counted(self: Dataset, *arguments: Any, **how: Any) -> Any:
        opened.append(self.config.identifier)
        return cohort(self, *arguments, **how)

    monkeypatch.setattr(Dataset, "cohort", counted)
    return opened


def reason(tiny: Tiny, envelope: bytes, site: str = SITE) -> Reason | None:
    header = tiny.read(site, tiny.gates[site].answer(envelope)).header
    return header.reason if isinstance(header, Refused) else None


def events(tiny: Tiny, event: str) -> list[dict[str, Any]]:
    return [line for line in tiny.gates[SITE].ledger.journal() if line["event"] == event]


def test_an_exhausted_budget_survives_restart_and_a_deleted_coordinator(
    make_tiny: Callable[..., Tiny], quick_path: Path, reads: list[str]
) -> None:
    tiny = make_tiny(epsilon=1.2)
    asked = study(FREQUENCIES)
    tiny.conductor(asked, quick_path / "run").run()
    assert len(reads) == len(NAMES)
    reads.clear()

    for site in NAMES:
        tiny.restart(site)
    shutil.rmtree(quick_path / "run")
    with pytest.raises(RefusedError) as refused:
        tiny.conductor(asked, quick_path / "run").run()
    assert (refused.value.code, refused.value.exit_code) == ("BUDGET_EXHAUSTED", 3)
    assert "AT refused: BUDGET_EXHAUSTED" in refused.value.found
    assert reads == []
    for site in NAMES:
        assert tiny.gates[site].ledger.spent() == COST


def test_a_smaller_question_still_fits_what_is_left(make_tiny: Callable[..., Tiny], quick_path: Path) -> None:
    tiny = make_tiny(epsilon=1.2)
    tiny.conductor(study(FREQUENCIES), quick_path / "one").run()
    small = replace(FREQUENCIES, name="small", budget=Budget(0.5, 1e-5))
    (result,) = tiny.conductor(study(small), quick_path / "two").run()
    assert result.statement.sites == NAMES
    assert tiny.gates[SITE].ledger.spent() == COST + Budget(0.5, 1e-5).loss


def test_the_same_request_twice_gives_the_same_bytes_and_one_charge(tiny: Tiny, reads: list[str]) -> None:
    request = tiny.pen(STUDY).open().ask("frequencies")
    first = tiny.gates[SITE].answer(request)
    assert isinstance(tiny.read(SITE, first).header, Answered)
    for _ in range(2):
        assert tiny.gates[SITE].answer(request) == first
        tiny.restart(SITE)
    assert tiny.gates[SITE].answer(request) == first
    assert reads == ["TINY-AT"]
    assert tiny.gates[SITE].ledger.spent() == COST
    assert len(events(tiny, "reserve")) == len(events(tiny, "answer")) == 1


def test_the_same_exact_request_twice_gives_the_same_masked_bytes(tiny: Tiny) -> None:
    request = tiny.pen(STUDY).open().ask("counts")
    first = tiny.gates[SITE].answer(request)
    assert tiny.restart(SITE).answer(request) == first
    assert tiny.gates[SITE].ledger.spent().rho == 0


@pytest.mark.parametrize(
    ("question", "over_fewer"), [("frequencies", Reason.ALREADY_ANSWERED), ("counts", Reason.NOT_AGREED)]
)
def test_another_request_for_an_answered_slot_is_refused_before_data_are_read(
    tiny: Tiny, reads: list[str], question: str, over_fewer: Reason
) -> None:
    pen = tiny.pen(STUDY).open()
    tiny.gates[SITE].answer(pen.ask(question))
    reads.clear()
    assert reason(tiny, pen.ask(question, expires=2**40)) is Reason.ALREADY_ANSWERED
    assert reason(tiny, pen.ask(question, expires=2**40, roster=("AT", "BE", "CY"))) is over_fewer
    assert reads == []


def test_rounds_of_one_question_are_charged_once(tiny: Tiny, quick_path: Path, reads: list[str]) -> None:
    tiny.conductor(study(TRAINING), quick_path / "run").run()
    assert reads.count("TINY-AT") == 3
    assert len(events(tiny, "reserve")) == 1
    assert tiny.gates[SITE].ledger.spent() == Budget(3.0, 1e-5).loss


def test_rounds_that_would_cost_more_than_was_reserved_are_refused(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, reads: list[str]
) -> None:
    """No analysis of the catalogue does that; were one to, the gate and not its author would have the last word."""
    frame = STUDY.frame(TRAINING)
    total = {name: np.zeros(f.shape, dtype=np.int64) for name, f in TRAINING.analysis.leaves(frame).items()}
    second = TRAINING.analysis.conclude(Total(total, NAMES), frame)
    assert not isinstance(second, Answer)
    pen = tiny.pen(STUDY).open()
    monkeypatch.setattr(type(TRAINING.analysis), "fraction", lambda _: 0.6)
    assert reason(tiny, pen.ask("training")) is None
    reads.clear()
    assert reason(tiny, pen.ask("training", analysis=second, earlier=[total])) is Reason.NOT_DERIVED
    assert reads == []


def test_another_session_is_charged_again(tiny: Tiny) -> None:
    for session in ("one", "two"):
        assert reason(tiny, tiny.pen(STUDY, session).open().ask("frequencies")) is None
    assert tiny.gates[SITE].ledger.spent() == COST + COST


@pytest.mark.parametrize("error", [StopError, OSError], ids=["killed", "failed"])
@pytest.mark.parametrize("place", ["write", "_append"], ids=["before the file", "in the transaction"])
def test_a_crash_between_reservation_and_record_keeps_the_charge_and_answers_later(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, place: str, error: type[BaseException]
) -> None:
    from fl_client import ledger  # noqa: PLC0415

    pen, gate = tiny.pen(STUDY).open(), tiny.gates[SITE]
    request = pen.ask("frequencies")
    real = {"write": ledger.write, "_append": ledger.Ledger._append}[place]

    def broken(*arguments: Any) -> Any:
        if place == "_append" and arguments[2]["event"] != "answer":
            return real(*arguments)
        raise error

    monkeypatch.setattr(ledger if place == "write" else ledger.Ledger, place, broken)
    if error is StopError:
        with pytest.raises(StopError):
            gate.answer(request)
    else:
        assert reason(tiny, request) is Reason.INTERNAL
    monkeypatch.undo()

    gate = tiny.restart(SITE)
    assert gate.ledger.spent() == COST
    assert events(tiny, "answer") == []
    reply = tiny.read(SITE, gate.answer(request))
    assert isinstance(reply.header, Answered)
    assert unseal(reply.body, pen.sealing, reply.header.request)
    assert gate.ledger.spent() == COST
    assert len(events(tiny, "reserve")) == len(events(tiny, "answer")) == 1


def test_a_failed_analysis_and_a_closed_study_refund_nothing(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    pen = tiny.pen(STUDY).open()

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(type(FREQUENCIES.analysis), "summarise", fail)
    assert reason(tiny, pen.ask("frequencies")) is Reason.INTERNAL
    monkeypatch.undo()
    assert tiny.gates[SITE].ledger.spent() == COST
    tiny.gates[SITE].answer(pen.closing())
    assert tiny.restart(SITE).ledger.spent() == COST


def test_what_is_reserved_before_data_are_read_is_the_whole_question(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[float] = []
    cohort = Dataset.cohort

    def watched(self: Dataset, *arguments: Any, **how: Any) -> Any:
        seen.append(tiny.gates[SITE].ledger.spent().rho)
        return cohort(self, *arguments, **how)

    monkeypatch.setattr(Dataset, "cohort", watched)
    pen: Pen = tiny.pen(STUDY).open()
    tiny.gates[SITE].answer(pen.ask("training"))  # the first of three rounds
    assert seen == [Budget(3.0, 1e-5).loss.rho]


def test_a_private_reply_is_still_given_after_the_study_was_closed(tiny: Tiny) -> None:
    pen = tiny.pen(STUDY).open()
    noised, exact = pen.ask("frequencies"), pen.ask("counts")
    first = [tiny.gates[SITE].answer(noised), tiny.gates[SITE].answer(exact)]
    tiny.gates[SITE].answer(pen.closing())
    assert tiny.restart(SITE).answer(noised) == first[0]
    assert reason(tiny, exact) is Reason.NOT_OPENED


def test_a_permit_s_share_and_a_year_s_bound_what_one_coordinator_may_spend(make_tiny: Callable[..., Tiny]) -> None:
    for share, bound in (({"permit": 0.3}, "rho_permit"), ({"year": 0.3}, "rho_year")):
        tiny = make_tiny(epsilon=2.0, shares=share)
        two = replace(FREQUENCIES, name="two")
        pen, whole = tiny.pen(study(FREQUENCIES, two)).open(), Budget(2.0, 1e-5).loss.rho
        assert reason(tiny, pen.ask("frequencies")) is None
        header = tiny.read(SITE, tiny.gates[SITE].answer(pen.ask("two"))).header
        assert isinstance(header, Refused)
        assert header.reason is Reason.BUDGET_EXHAUSTED
        assert set(header.public) == {"rho_asked", "rho_left", bound}
        assert header.public[bound] == pytest.approx(0.3 * whole)
        assert header.public["rho_left"] == pytest.approx(0.3 * whole - COST.rho)


def test_a_budget_that_is_renewed_says_so_in_the_answer_s_statement(
    make_tiny: Callable[..., Tiny], quick_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = make_tiny(epsilon=1.2, policies={"DK": {"renewal": "yearly", "epsilon": 1.2}})
    (result,) = tiny.conductor(study(FREQUENCIES), quick_path / "one").run()
    said = statement.document(result, ())
    assert said["budget_renewed"] == ["DK"]
    assert said["budget_in_words"] == "renewed every year at DK: there the figure holds per year"
    assert "Epsilon is the largest over the sites" in said["persons_across_sites"]
    with pytest.raises(RefusedError):
        tiny.conductor(study(FREQUENCIES), quick_path / "two").run()
    today = time.gmtime()
    next_year = time.struct_time((today.tm_year + 1, *today[1:]))
    with monkeypatch.context() as patch:
        patch.setattr("fl_client.gate.time.gmtime", lambda *_: next_year)
        pen = tiny.pen(study(FREQUENCIES)).open()
        assert reason(tiny, pen.ask("frequencies"), "DK") is None
        assert reason(tiny, pen.ask("frequencies"), "AT") is Reason.BUDGET_EXHAUSTED


def test_what_is_reserved_is_told_to_the_accountant_as_events(tiny: Tiny) -> None:
    pen = tiny.pen(STUDY).open()
    for question, rounds in (("frequencies", 1), ("training", TRAINING.analysis.rounds() - 1)):
        assert reason(tiny, pen.ask(question)) is None
        charge = tiny.gates[SITE].ledger.verify().charges[-1]
        (event,) = [accounting.read(raw) for raw in charge.events]
        assert event.count == rounds  # type: ignore[union-attr]
        assert accounting.charge([event], Budget(1.0, 1e-5)).rho == pytest.approx(charge.rho, rel=1e-12)
        assert (charge.permit, charge.question) == (COORDINATOR, question)

"""The node's memory: it cannot be altered unseen, overspent by racing processes or read by others, it forgets what it
is told to forget, and it never knew who the people are."""

from __future__ import annotations

import json
import multiprocessing
import os
import sqlite3
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import fl_client.ledger as ledger_module
from fl_client.ledger import GENESIS, Ledger, OverBudgetError, Session, Slot
from strategies.privacy import Budget, Loss
from strategies.wire import Closed, Refused
from tests.tiny import COUNTS, FREQUENCIES, LINEAR, NAMES, PANEL, TRAINING, Tiny, people_of, study

BUDGET = Budget(3.0, 1e-5)
SITE = "AT"


@pytest.fixture
def ledger(quick_path: Path) -> Iterator[Ledger]:
    opened = Ledger(quick_path / "state", "DATA")
    yield opened
    opened.close()


def entries(ledger: Ledger) -> list[dict[str, Any]]:
    return list(ledger.journal())


def sql(ledger: Ledger, *statements: str) -> None:
    """What somebody with the file does, past the ledger."""
    connection = sqlite3.connect(ledger.folder / "ledger.sqlite", isolation_level=None)
    for statement in statements:
        connection.execute(statement)
    connection.close()


# -- the chain ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def written(ledger: Ledger) -> Ledger:
    for number in range(6):
        ledger.note({"event": "refuse", "reason": "VETOED", "number": number})
    return ledger


def test_a_journal_that_nobody_touched_is_read(written: Ledger) -> None:
    assert [line["number"] for line in entries(written)] == [0, 1, 2, 3, 4, 5]
    again = Ledger(written.folder, "DATA")
    again.note({"event": "refuse", "number": 6})
    assert len(entries(again)) == 7
    again.close()


ALTERATIONS = {
    "a deleted row": ["DELETE FROM journal WHERE sequence = 3"],
    "a deleted row, closed up": [
        "DELETE FROM journal WHERE sequence = 3",
        "UPDATE journal SET sequence = sequence - 1 WHERE sequence > 3",
    ],
    "the first row deleted": ["DELETE FROM journal WHERE sequence = 1"],
    "two rows exchanged": [
        "UPDATE journal SET sequence = 100 WHERE sequence = 2",
        "UPDATE journal SET sequence = 2 WHERE sequence = 3",
        "UPDATE journal SET sequence = 3 WHERE sequence = 100",
    ],
    "entries exchanged under their heads": [
        "UPDATE journal SET entry = (SELECT entry FROM journal WHERE sequence = 4) WHERE sequence = 5"
    ],
    "another entry": ["UPDATE journal SET entry = '{}' WHERE sequence = 6"],
    "another head": [f"UPDATE journal SET head = '{GENESIS}' WHERE sequence = 6"],
    "an entry put between": [
        "UPDATE journal SET sequence = sequence + 100 WHERE sequence > 3",
        "INSERT INTO journal VALUES (4, '{}', 'x')",
        "UPDATE journal SET sequence = sequence - 99 WHERE sequence > 100",
    ],
    "rows with other numbers": ["UPDATE journal SET sequence = sequence + 10 WHERE sequence > 3"],
    "an entry put at the end": [f"INSERT INTO journal VALUES (7, '{{}}', '{GENESIS}')"],
}


@pytest.mark.parametrize("name", ALTERATIONS)
def test_an_altered_journal_is_noticed(written: Ledger, name: str) -> None:
    sql(written, *ALTERATIONS[name])
    with pytest.raises(ValueError, match="The journal was altered at entry"):
        entries(written)


def test_every_flipped_byte_of_the_journal_is_noticed(ledger: Ledger) -> None:
    ledger.note({"event": "refuse", "reason": "VETOED"})
    ledger.note({"event": "close"})
    connection = sqlite3.connect(ledger.folder / "ledger.sqlite", isolation_level=None)
    flips = 0
    for column in ("entry", "head"):
        for sequence, text in connection.execute(f"SELECT sequence, {column} FROM journal").fetchall():
            for at in range(len(text)):
                changed = text[:at] + chr(ord(text[at]) ^ 1) + text[at + 1 :]
                connection.execute(f"UPDATE journal SET {column} = ? WHERE sequence = ?", (changed, sequence))
                with pytest.raises(ValueError, match="altered at entry"):
                    entries(ledger)
                flips += 1
            connection.execute(f"UPDATE journal SET {column} = ? WHERE sequence = ?", (text, sequence))
    connection.close()
    assert flips > 200
    assert len(entries(ledger)) == 2


# -- reservations ------------------------------------------------------------------------------------------------------


def test_a_question_is_charged_once_and_another_is_charged_too(ledger: Ledger) -> None:
    for _ in range(3):
        ledger.reserve("s", "q", Loss(0.01), BUDGET)
    assert ledger.spent() == Loss(0.01)
    ledger.reserve("s", "q2", Loss(0.01), BUDGET)
    ledger.reserve("s2", "q", Loss(0.01), BUDGET)
    assert ledger.spent().rho == pytest.approx(0.03)
    assert [line["event"] for line in entries(ledger)] == ["reserve"] * 3


def test_a_budget_can_be_spent_to_the_last_and_not_beyond(ledger: Ledger) -> None:
    tenth = Loss(BUDGET.loss.rho / 10)
    for number in range(10):
        ledger.reserve("s", f"q{number}", tenth, BUDGET)
    with pytest.raises(OverBudgetError) as over:
        ledger.reserve("s", "more", Loss(1e-9), BUDGET)
    assert over.value.left.rho == pytest.approx(0, abs=1e-15)
    assert ledger.spent().epsilon(BUDGET.delta) <= BUDGET.epsilon
    ledger.reserve("s", "q3", tenth, BUDGET)  # what was reserved stays reserved, and is free


def test_what_does_not_fit_leaves_no_trace_in_the_budget(ledger: Ledger) -> None:
    ledger.reserve("s", "q", Loss(0.2), BUDGET)
    with pytest.raises(OverBudgetError) as over:
        ledger.reserve("s", "big", Loss(0.1), BUDGET)
    assert (over.value.asked, over.value.left.rho) == (Loss(0.1), pytest.approx(BUDGET.loss.rho - 0.2))
    assert ledger.spent() == Loss(0.2)
    assert len(entries(ledger)) == 1


def test_a_smaller_budget_counts_what_was_spent_under_a_larger_one(ledger: Ledger) -> None:
    ledger.reserve("s", "q", BUDGET.loss, BUDGET)
    with pytest.raises(OverBudgetError) as over:
        ledger.reserve("s", "q2", Loss(1e-6), Budget(1.0, 1e-5))
    assert over.value.left == Loss(0.0)


def test_each_data_set_has_a_budget_of_its_own(ledger: Ledger) -> None:
    ledger.reserve("s", "q", BUDGET.loss, BUDGET)
    other = Ledger(ledger.folder, "OTHER")
    assert other.spent() == Loss(0.0)
    other.reserve("s", "q", BUDGET.loss, BUDGET)
    other.close()
    assert ledger.spent() == BUDGET.loss


PROCESSES, EACH, FIT = 4, 12, 20


def spend(folder: str, process: int, start: Any, granted: Any) -> None:
    opened = Ledger(Path(folder), "DATA")
    start.wait(60)
    count = 0
    try:
        for number in range(EACH):
            with suppress(OverBudgetError):
                opened.reserve(f"session-{process}", f"q{number}", Loss(BUDGET.loss.rho / FIT), BUDGET)
                count += 1
        opened.close()
    finally:
        granted.put(count)


def test_racing_processes_cannot_overspend(quick_path: Path) -> None:
    """48 questions of four processes, of which 20 fit."""
    context = multiprocessing.get_context("spawn")
    start, granted = context.Barrier(PROCESSES), context.Queue()
    folder = quick_path / "state"
    workers = [context.Process(target=spend, args=(str(folder), p, start, granted)) for p in range(PROCESSES)]
    for worker in workers:
        worker.start()
    counts = [granted.get(timeout=120) for _ in workers]
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    assert sum(counts) == FIT
    opened = Ledger(folder, "DATA")
    assert opened.spent().rho == pytest.approx(BUDGET.loss.rho)
    assert opened.spent().epsilon(BUDGET.delta) <= BUDGET.epsilon * (1 + 1e-12)
    assert len(entries(opened)) == FIT, "the chain holds though four processes wrote it"
    opened.close()


def test_processes_that_open_a_new_ledger_together_wait_for_each_other(
    quick_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite refuses at once, without waiting, to make a file a write-ahead one while another connection writes it."""
    begun, calls, settings = threading.Event(), list[None](), ledger_module._settings

    def slow(connection: Any, record: Any) -> None:
        calls.append(None)
        if len(calls) == 1:
            connection.execute("BEGIN IMMEDIATE")
            begun.set()
            time.sleep(0.3)
            connection.execute("COMMIT")
        settings(connection, record)

    monkeypatch.setattr(ledger_module, "_settings", slow)
    first = threading.Thread(target=lambda: Ledger(quick_path / "state", "DATA").close())
    first.start()
    assert begun.wait(60)
    Ledger(quick_path / "state", "DATA").close()
    first.join(60)


def test_one_request_at_a_time_touches_a_data_set(ledger: Ledger) -> None:
    other, order = Ledger(ledger.folder, "DATA"), list[str]()

    def wait() -> None:
        with other.exclusive():
            order.append("second")

    with ledger.exclusive():
        thread = threading.Thread(target=wait)
        thread.start()
        time.sleep(0.05)  # long enough to be overtaken, were there no lock; too short only ever lets the test pass
        order.append("first")
    thread.join(60)
    assert order == ["first", "second"]
    other.close()


def test_the_lock_is_released_after_an_exception(ledger: Ledger) -> None:
    for _ in range(2):
        with pytest.raises(KeyError), ledger.exclusive():
            raise KeyError


# -- replies -----------------------------------------------------------------------------------------------------------

SLOT = Slot("s", "q", 1, 0, 1)


def test_a_slot_is_taken_once_whatever_the_request(ledger: Ledger) -> None:
    import sqlalchemy  # noqa: PLC0415

    ledger.record("a" * 64, SLOT, b"reply", {}, False, None)
    assert ledger.occupant(SLOT) == "a" * 64
    with pytest.raises(sqlalchemy.exc.IntegrityError):
        ledger.record("b" * 64, SLOT, b"other", {}, False, None)
    assert ledger.reply("a" * 64) == b"reply"
    assert ledger.reply("b" * 64) is None
    assert [line["event"] for line in entries(ledger)] == ["answer"], "the second line fell with its row"


def test_a_reply_is_on_disk_before_its_row(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    append = Ledger._append

    def watched(self: Ledger, connection: Any, line: Any) -> None:
        seen.append((self.folder / "replies" / ("a" * 64 + ".bin")).read_bytes())
        append(self, connection, line)

    monkeypatch.setattr(Ledger, "_append", watched)
    ledger.record("a" * 64, SLOT, b"reply", {}, False, None)
    assert seen == [b"reply"]


def test_a_reply_whose_file_is_gone_is_not_made_up(ledger: Ledger) -> None:
    ledger.record("a" * 64, SLOT, b"reply", {}, False, None)
    (ledger.folder / "replies" / ("a" * 64 + ".bin")).unlink()
    assert ledger.reply("a" * 64) is None
    assert ledger.occupant(SLOT) == "a" * 64


# -- what is kept, from whom, and for how long -------------------------------------------------------------------------


def bytes_on_disk(folder: Path) -> bytes:
    return b"\0".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def test_files_are_for_the_owner_alone(tiny: Tiny, quick_path: Path) -> None:
    """Whatever the umask: the files' own modes say so."""
    old = os.umask(0)
    try:
        state = quick_path / "fresh"
        fresh = Ledger(state, "DATA")
        with fresh.exclusive():
            fresh.record("a" * 64, SLOT, b"reply", {}, True, None)
            fresh.open_session(Session("s", "d", "c", "r", b"{}", "00", b"key", b"reply"), {"panel": b"text"})
        paths = [state, *state.rglob("*")]
        assert {"lock", "ledger.sqlite", "ledger.sqlite-wal", "replies", "panel"} <= {p.name for p in paths}
        for path in paths:
            want = 0o700 if path.is_dir() else 0o600
            assert stat.S_IMODE(path.stat().st_mode) == want, path.name
        fresh.close()
        tiny.conductor(study(COUNTS), quick_path / "run").run()
        for path in (quick_path / "run", *(quick_path / "run").rglob("*")):
            assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path.name
    finally:
        os.umask(old)


def test_a_closed_study_leaves_no_key_root_share_panel_or_masked_reply_on_the_disk(tiny: Tiny) -> None:
    pen, gate = tiny.pen(study(COUNTS, LINEAR, FREQUENCIES)).open(), tiny.gates[SITE]
    requests = [pen.ask("counts"), pen.ask("linear")]
    masked = [tiny.read(SITE, gate.answer(request)).body for request in requests]
    noised = gate.answer(pen.ask("frequencies"))
    seeds = gate.answer(pen.unmask(requests[:1]))
    session = gate.ledger.session(pen.session)
    assert session is not None
    agreements = gate.ledger.agreements.of(pen.session)
    shares = [peer.share for one in agreements for peer in gate.ledger.agreements.peers(one.agreement).values()]
    secrets = [session.key, *(key for one in agreements for key in (one.key, one.root)), *shares]
    assert [len(s or b"") for s in secrets] == [32] * (1 + 2 * 2 + 2 * 3)
    forms = [*(s for s in secrets if s), seeds, PANEL.encode()[:200], *masked]
    hidden = [form.hex().encode() for form in secrets if form]
    before = bytes_on_disk(gate.ledger.folder)
    assert all(form in before for form in forms), "so the search finds what is there"

    assert isinstance(tiny.read(SITE, gate.answer(pen.closing())).header, Closed)
    after = bytes_on_disk(gate.ledger.folder)
    assert not [i for i, form in enumerate([*forms, *hidden]) if form in after]
    assert (gate.ledger.folder / "ledger.sqlite").stat().st_size > 0
    assert list(gate.ledger.folder.glob("panels-*")) == []
    assert gate.answer(pen.ask("frequencies")) == noised, "a private reply is public by intent"
    assert [p.read_bytes() for p in (gate.ledger.folder / "replies").iterdir()] == [noised]


@pytest.mark.parametrize("again", ["restart", "close"])
def test_a_crash_while_a_study_closes_leaves_no_masked_reply_behind(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, again: str
) -> None:
    """The process dies when it has forgotten the study and before it has deleted a file."""
    pen = tiny.pen(study(COUNTS, FREQUENCIES)).open()
    masked = tiny.gates[SITE].answer(pen.ask("counts"))
    noised = tiny.gates[SITE].answer(pen.ask("frequencies"))

    class DeadError(BaseException):
        pass

    def dies(*_: object) -> None:
        raise DeadError

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "_sweep", dies)
        with pytest.raises(DeadError):
            tiny.gates[SITE].answer(pen.closing())
    folder = tiny.gates[SITE].ledger.folder
    assert {p.read_bytes() for p in (folder / "replies").iterdir()} == {masked, noised}
    assert len(list(folder.glob("panels-*"))) == 1
    if again == "restart":
        tiny.restart(SITE)
    else:
        tiny.gates[SITE].answer(pen.closing())
    assert [p.read_bytes() for p in (folder / "replies").iterdir()] == [noised]
    assert list(folder.glob("panels-*")) == []


def test_keys_are_gone_though_another_process_has_the_ledger_open(tiny: Tiny) -> None:
    gate = tiny.gates[SITE]
    other = Ledger(gate.ledger.folder, gate.ledger.dataset)
    other.spent()
    pen = tiny.pen(study(COUNTS)).open()
    session = gate.ledger.session(pen.session)
    assert session is not None
    assert session.key is not None
    assert session.key in bytes_on_disk(gate.ledger.folder)
    gate.answer(pen.closing())
    assert session.key not in bytes_on_disk(gate.ledger.folder)
    other.close()


def test_closing_one_study_leaves_another_s_keys(tiny: Tiny) -> None:
    one, two = (tiny.pen(study(COUNTS), name).open() for name in ("one", "two"))
    tiny.gates[SITE].answer(one.closing())
    assert not isinstance(tiny.read(SITE, tiny.gates[SITE].answer(two.ask("counts"))).header, Refused)


def test_the_journal_knows_no_people_variants_parameters_or_numbers(
    make_tiny: Callable[..., Tiny], quick_path: Path
) -> None:
    tiny = make_tiny(policies={"DK": {"columns": {"sex": [1, 2]}}}, own_total=NAMES)
    tiny.conductor(study(COUNTS, LINEAR, FREQUENCIES, TRAINING), quick_path / "run").run()
    allowed = {"time", "event", "session", "study", "coordinator", "question", "analysis", "regime", "round", "slice",
               "roster", "policy", "data", "bytes", "dataset", "rho", "reason", "questions",
               "version", "people"}  # fmt: skip
    events = set()
    for site, gate in tiny.gates.items():
        journal = entries(gate.ledger)
        events |= {line["event"] for line in journal}
        assert all(set(line) <= allowed for line in journal)
        text = json.dumps(journal)
        words = [*people_of(site), *(f'"{v.identifier}"' for v in PANEL.variants), *(str(v) for v in PANEL.variants)]
        parameters = ["panel", "trait", "covariates", "high", "sex", "salt", "learning_rate", "weights", "centre"]
        for word in [*words, *parameters]:
            assert word not in text, word
    assert events == {"version", "open", "agree", "reserve", "answer", "refuse", "unmask", "close"}


def test_no_file_of_a_node_s_state_holds_people_or_genotypes(tiny: Tiny, quick_path: Path) -> None:
    """Nor do private replies: what is stored of them is sealed to the coordinator."""
    tiny.conductor(study(COUNTS, FREQUENCIES), quick_path / "run").run()
    for site, gate in tiny.gates.items():
        stored = bytes_on_disk(gate.ledger.folder)
        assert not any(person.encode() in stored for person in people_of(site))
        bed = (tiny.data / site / "genotypes.bed").read_bytes()
        assert not any(bed[at : at + 16] in stored for at in range(3, len(bed) - 16, 16))
        assert b"dtype" not in stored, "no array is there in the clear"

"""The node's memory: it cannot be altered unseen, overspent by racing processes or read by others, it forgets what it
is told to forget, and it never knew who the people are."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from fl_client import database
from fl_client.journal import GENESIS
from fl_client.ledger import Ledger, Session, Slot
from fl_client.reservations import Bounds, Charge, OverBudgetError, Place
from strategies.marks import Mark
from strategies.privacy import Budget, Loss, Renewal
from strategies.wire import Closed, Refused
from tests.privacy import racer
from tests.tiny import COUNTS, FREQUENCIES, LINEAR, NAMES, PANEL, TRAINING, Tiny, people_of, study

BUDGET = Budget(3.0, 1e-5)
WHOLE = BUDGET.loss
BOUNDS = Bounds(WHOLE, WHOLE, WHOLE)
YEAR = 2026
SITE = "AT"


@pytest.fixture
def ledger(quick_path: Path, ledger_url: str | None) -> Iterator[Ledger]:
    """The same on SQLite and on PostgreSQL."""
    opened = Ledger(quick_path / "state", "DATA", ledger_url)
    yield opened
    opened.close()


def again(ledger: Ledger, dataset: str = "DATA") -> Ledger:
    """What another process of the node opens."""
    return Ledger(ledger.folder, dataset, url_of(ledger))


def url_of(ledger: Ledger) -> str | None:
    url = ledger._engine.url
    return None if url.drivername == "sqlite" else url.render_as_string(hide_password=False)


def entries(ledger: Ledger) -> list[dict[str, Any]]:
    return list(ledger.journal())


def charge(
    ledger: Ledger,
    session: str,
    question: str,
    rho: float,
    bounds: Bounds = BOUNDS,
    permit: str = "c",
    year: int = YEAR,
) -> None:
    ledger.reserve(Charge(Place(session, question, 1), Loss(rho), permit, year), bounds, [])


def record(ledger: Ledger, request: str, slot: Slot, reply: bytes = b"reply", masked: bool = False) -> bytes:
    return ledger.record(request, slot, lambda _: reply, {}, masked, ())


def sql(ledger: Ledger, *statements: str) -> None:
    """What somebody with the database does, past the ledger."""
    engine = sa.create_engine(ledger._engine.url)
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
    engine.dispose()


# -- the chain ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def written(ledger: Ledger) -> Ledger:
    for number in range(6):
        ledger.note({"event": "refuse", "reason": "VETOED", "number": number})
    return ledger


def test_a_journal_that_nobody_touched_is_read(written: Ledger) -> None:
    assert [line["number"] for line in entries(written)] == [0, 1, 2, 3, 4, 5]
    other = again(written)
    other.note({"event": "refuse", "number": 6})
    assert len(entries(other)) == 7
    other.close()


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
    engine = sa.create_engine(ledger._engine.url, isolation_level="AUTOCOMMIT")
    flips = 0
    with engine.connect() as connection:
        for column in ("entry", "head"):
            change = sa.text(f"UPDATE journal SET {column} = :text WHERE sequence = :sequence")
            for sequence, text in connection.exec_driver_sql(f"SELECT sequence, {column} FROM journal").all():
                for at in range(len(text)):
                    changed = text[:at] + chr(ord(text[at]) ^ 1) + text[at + 1 :]
                    connection.execute(change, {"text": changed, "sequence": sequence})
                    with pytest.raises(ValueError, match="altered at entry"):
                        entries(ledger)
                    flips += 1
                connection.execute(change, {"text": text, "sequence": sequence})
    engine.dispose()
    assert flips > 200
    assert len(entries(ledger)) == 2


# -- what follows from the journal -------------------------------------------------------------------------------------


def spending(ledger: Ledger) -> None:
    charge(ledger, "s", "q1", 0.01, permit="a")
    charge(ledger, "s", "q2", 0.02, permit="b", year=YEAR + 1)
    record(ledger, "a" * 64, SLOT)
    ledger.note({"event": "refuse"})


TAMPERED = {
    "a reservation cut out": ["DELETE FROM reserved WHERE question = 'q1'"],
    "all reservations cut out": ["DELETE FROM reserved"],
    "a smaller loss": ["UPDATE reserved SET rho = 0.001 WHERE question = 'q2'"],
    "another's permit": ["UPDATE reserved SET permit = 'b'"],
    "another year": ["UPDATE reserved SET year = 2020"],
    "a mark made known": [f"INSERT INTO adopted VALUES ('DATA', 900, '{GENESIS}')"],
}


@pytest.mark.parametrize("name", TAMPERED)
def test_the_tables_must_say_what_the_journal_says(ledger: Ledger, name: str) -> None:
    spending(ledger)
    told = ledger.verify()
    assert told.spent("DATA") == ledger.spent().rho == 0.01 + 0.02
    assert told.entries == {"reserve": 2, "answer": 1, "refuse": 1}
    sql(ledger, *TAMPERED[name])
    with pytest.raises(ValueError, match="is not what the journal says"):
        ledger.verify()
    assert ledger.spent().rho == 0.01 + 0.02, "nothing is refunded by a table"


@pytest.mark.parametrize("name", ["a reservation cut out", "all reservations cut out", "a smaller loss"])
def test_reservations_that_were_cut_out_end_all_reserving(ledger: Ledger, name: str) -> None:
    spending(ledger)
    sql(ledger, *TAMPERED[name])
    with pytest.raises(ValueError, match="is not what the journal says"):
        charge(ledger, "s", "q3", 1e-6)


def test_the_last_entry_must_follow_before_another_is_added(ledger: Ledger) -> None:
    spending(ledger)
    sql(ledger, "UPDATE journal SET entry = replace(entry, '0.03', '0.01') WHERE sequence = 4")
    with pytest.raises(ValueError, match="altered at entry 4"):
        ledger.note({"event": "refuse"})


def test_a_tail_that_was_cut_off_follows_in_itself_and_is_still_missed(ledger: Ledger) -> None:
    spending(ledger)
    ledger.mark()
    tail = ["DELETE FROM journal WHERE sequence > 1", "DELETE FROM reserved WHERE question = 'q2'"]
    sql(ledger, *tail, "DELETE FROM replies")
    assert ledger.verify().spent("DATA") == 0.01, "the chain alone cannot tell"
    assert [mark.sequence for mark in ledger.missing()] == [4]


def test_an_export_is_followed_by_others_code(ledger: Ledger) -> None:
    spending(ledger)
    before = GENESIS
    lines = list(ledger.export())
    for number, line in enumerate(lines, start=1):
        text = json.dumps(line["entry"], sort_keys=True, separators=(",", ":"))
        before = hashlib.sha256((before + text).encode()).hexdigest()
        assert (line["sequence"], line["head"]) == (number, before)
    assert sum(line["entry"].get("rho", 0) for line in lines) == pytest.approx(ledger.spent().rho)


# -- reservations ------------------------------------------------------------------------------------------------------


def test_a_question_is_charged_once_and_another_is_charged_too(ledger: Ledger) -> None:
    for _ in range(3):
        charge(ledger, "s", "q", 0.01)
    assert ledger.spent() == Loss(0.01)
    charge(ledger, "s", "q2", 0.01)
    charge(ledger, "s2", "q", 0.01)
    assert ledger.spent().rho == pytest.approx(0.03)
    assert [line["event"] for line in entries(ledger)] == ["reserve"] * 3


def test_a_budget_can_be_spent_to_the_last_and_not_beyond(ledger: Ledger) -> None:
    tenth = WHOLE.rho / 10
    for number in range(10):
        charge(ledger, "s", f"q{number}", tenth)
    with pytest.raises(OverBudgetError) as over:
        charge(ledger, "s", "more", 1e-9)
    assert over.value.left.rho == pytest.approx(0, abs=1e-15)
    assert ledger.spent().epsilon(BUDGET.delta) <= BUDGET.epsilon
    charge(ledger, "s", "q3", tenth)  # what was reserved stays reserved, and is free


def test_what_does_not_fit_leaves_no_trace_in_the_budget(ledger: Ledger) -> None:
    charge(ledger, "s", "q", 0.2)
    with pytest.raises(OverBudgetError) as over:
        charge(ledger, "s", "big", 0.1)
    assert (over.value.asked, over.value.left.rho) == (Loss(0.1), pytest.approx(WHOLE.rho - 0.2))
    assert (over.value.bound, over.value.whole) == ("lifetime", WHOLE)
    assert ledger.spent() == Loss(0.2)
    assert len(entries(ledger)) == 1


def test_a_smaller_budget_counts_what_was_spent_under_a_larger_one(ledger: Ledger) -> None:
    charge(ledger, "s", "q", WHOLE.rho)
    small = Budget(1.0, 1e-5).loss
    with pytest.raises(OverBudgetError) as over:
        charge(ledger, "s", "q2", 1e-6, Bounds(small, small, small))
    assert over.value.left == Loss(0.0)


def test_each_data_set_has_a_budget_of_its_own(ledger: Ledger) -> None:
    charge(ledger, "s", "q", WHOLE.rho)
    other = again(ledger, "OTHER")
    assert other.spent() == Loss(0.0)
    charge(other, "s", "q", WHOLE.rho)
    assert other.spent() == WHOLE
    other.close()
    assert ledger.spent() == WHOLE
    assert ledger.verify().spent("OTHER") == WHOLE.rho


def refused(ledger: Ledger, question: str, rho: float, bounds: Bounds, permit: str, year: int) -> str:
    """Which bound keeps it from being reserved."""
    before = ledger.spent()
    with pytest.raises(OverBudgetError) as over:
        charge(ledger, "s", question, rho, bounds, permit, year)
    assert ledger.spent() == before
    return over.value.bound


def test_a_permit_and_a_year_have_shares_of_the_budget(ledger: Ledger) -> None:
    bounds = Bounds(Loss(1.0), Loss(0.5), Loss(0.7))
    charge(ledger, "s", "q1", 0.5, bounds, "a", 2026)
    assert refused(ledger, "q2", 0.01, bounds, "a", 2026) == "permit"
    assert refused(ledger, "q2", 0.01, bounds, "a", 2027) == "permit", "a permit's share is for good"
    charge(ledger, "s", "q2", 0.2, bounds, "b", 2026)
    assert refused(ledger, "q3", 0.01, bounds, "b", 2026) == "year"
    charge(ledger, "s", "q3", 0.25, bounds, "b", 2027)
    assert refused(ledger, "q4", 0.06, bounds, "c", 2027) == "lifetime"
    charge(ledger, "s", "q4", 0.05, bounds, "c", 2027)
    assert ledger.spent().rho == pytest.approx(1.0)


def test_a_budget_is_renewed_where_the_policy_says_so(ledger: Ledger) -> None:
    bounds = Bounds(Loss(1.0), Loss(0.6), Loss(1.0), Renewal.YEARLY)
    for year in (2026, 2027):
        charge(ledger, "s", f"a{year}", 0.6, bounds, "a", year)
        assert refused(ledger, f"x{year}", 0.01, bounds, "a", year) == "permit"
        charge(ledger, "s", f"b{year}", 0.4, bounds, "b", year)
        assert refused(ledger, f"x{year}", 0.01, bounds, "b", year) == "lifetime"
    assert ledger.spent().rho == pytest.approx(2.0), "what was lost in all is still known"
    never = Bounds(Loss(1.0), Loss(0.6), Loss(1.0))
    assert refused(ledger, "never", 0.01, never, "c", 2028) == "lifetime"


RACERS = 8


def test_of_eight_processes_that_race_for_the_last_unit_one_wins(ledger: Ledger) -> None:
    """24 questions, of which one fits."""
    for number in range(19):
        charge(ledger, "before", f"q{number}", WHOLE.rho / 20)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.privacy.racer"])
    start, granted = context.Barrier(RACERS), context.Queue()
    arguments = [(str(ledger.folder), url_of(ledger), number, WHOLE.rho, start, granted) for number in range(RACERS)]
    workers = [context.Process(target=racer.spend, args=a) for a in arguments]
    for worker in workers:
        worker.start()
    counts = [granted.get(timeout=120) for _ in workers]
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    assert sorted(counts) == [0] * 7 + [1]
    assert ledger.spent().rho == pytest.approx(WHOLE.rho)
    assert ledger.spent().epsilon(BUDGET.delta) <= BUDGET.epsilon * (1 + 1e-12)
    assert ledger.verify().entries == {"reserve": 20}, "the chain holds though nine processes wrote it"
    assert ledger.missing() == ()


def test_processes_that_open_a_new_ledger_together_wait_for_each_other(
    quick_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite refuses at once, without waiting, to make a file a write-ahead one while another connection writes it."""
    begun, calls, settings = threading.Event(), list[None](), database._settings

    def slow(connection: Any, record: Any) -> None:
        calls.append(None)
        if len(calls) == 1:
            connection.execute("BEGIN IMMEDIATE")
            begun.set()
            time.sleep(0.3)
            connection.execute("COMMIT")
        settings(connection, record)

    monkeypatch.setattr(database, "_settings", slow)
    first = threading.Thread(target=lambda: Ledger(quick_path / "state", "DATA").close())
    first.start()
    assert begun.wait(60)
    Ledger(quick_path / "state", "DATA").close()
    first.join(60)


def test_one_request_at_a_time_touches_a_data_set(ledger: Ledger) -> None:
    other, order = again(ledger), list[str]()

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
    assert record(ledger, "a" * 64, SLOT) == b"reply"
    assert ledger.occupant(SLOT) == "a" * 64
    with pytest.raises(sa.exc.IntegrityError):
        record(ledger, "b" * 64, SLOT, b"other")
    assert ledger.reply("a" * 64) == b"reply"
    assert ledger.reply("b" * 64) is None
    assert [line["event"] for line in entries(ledger)] == ["answer"], "the second line fell with its row"


def test_a_reply_is_on_disk_before_its_row_is_committed(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def watched(connection: sa.Connection) -> None:
        path = ledger.folder / "replies" / ("a" * 64 + ".bin")
        seen.append(path.read_bytes() if path.exists() else None)

    sa.event.listen(ledger._engine, "commit", watched)
    record(ledger, "a" * 64, SLOT)
    assert seen[0] == b"reply"


def test_a_reply_whose_file_is_gone_is_not_made_up(ledger: Ledger) -> None:
    record(ledger, "a" * 64, SLOT)
    (ledger.folder / "replies" / ("a" * 64 + ".bin")).unlink()
    assert ledger.reply("a" * 64) is None
    assert ledger.occupant(SLOT) == "a" * 64


# -- marks -------------------------------------------------------------------------------------------------------------


def answered(ledger: Ledger, number: int, rho: float = 0.01) -> Mark:
    """One private question, charged and answered; the mark that its reply carries."""
    charge(ledger, "s", f"q{number}", rho)
    seen: list[Mark] = []
    slot = Slot("s", f"q{number}", 1, 0, 1)
    ledger.record(f"{number:064x}", slot, lambda mark: seen.append(mark) or b"reply", {}, False, ())  # type: ignore[func-returns-value]
    ledger.mark()  # as the gate does, before the reply leaves
    return seen[0]


def test_a_reply_carries_the_mark_of_the_ledger_that_holds_it(ledger: Ledger) -> None:
    mark = answered(ledger, 1)
    last = list(ledger.export())[-1]
    assert (mark.sequence, mark.head, mark.spent) == (last["sequence"], last["head"], 0.01)
    assert last["entry"]["event"] == "answer"
    assert mark == ledger.mark()
    ledger.note({"event": "refuse"})
    assert ledger.knows(mark)
    assert ledger.missing() == ()


def test_marks_of_one_branch_prove_what_they_share(ledger: Ledger) -> None:
    heads = {}
    for number in range(1, 21):
        mark = answered(ledger, number)
        heads |= {line["sequence"]: line["head"] for line in ledger.export()}
        places = [mark.sequence - 2**k for k in range(10) if 2**k < mark.sequence]
        assert mark.earlier == tuple(heads[place][:32] for place in places)


def snapshot(ledger: Ledger) -> dict[str, list[Any]]:
    """A copy of every table, as a dump holds it."""
    with ledger._engine.begin() as connection:
        return {
            t.name: [dict(r._mapping) for r in connection.execute(sa.select(t))] for t in database.TABLES.sorted_tables
        }


def put_back(ledger: Ledger, copy: dict[str, list[Any]]) -> None:
    with ledger._engine.begin() as connection:
        for table in reversed(database.TABLES.sorted_tables):
            connection.execute(table.delete())
            if copy[table.name]:
                connection.execute(table.insert(), copy[table.name])


def lose(ledger: Ledger, before: int, after: int) -> Mark:
    """A ledger that was put back: the last mark it issued, `after` answers beyond the copy."""
    for number in range(before):
        answered(ledger, number)
    copy = snapshot(ledger)
    for number in range(before, before + after):
        last = answered(ledger, number)
    put_back(ledger, copy)
    return last


def test_a_database_that_was_put_back_is_noticed_and_charged_for_the_gap_alone(ledger: Ledger) -> None:
    last = lose(ledger, before=16, after=4)
    assert ledger.missing() == (last,)
    ((mark, gap),) = ledger.adopt((), YEAR)
    # 8 entries were lost: the mark's head 8 entries earlier is the copy's last.
    assert (mark, gap.rho) == (last, pytest.approx(0.04))
    assert ledger.spent().rho == pytest.approx(0.20)
    assert ledger.missing() == ()
    assert ledger.mark().sequence == last.sequence + 1, "numbers grow for those who saw the lost ones"
    assert ledger.adopt((last,), YEAR) == [], "it is charged once"
    assert ledger.verify().adopted == {(last.dataset, last.sequence, last.head)}
    assert answered(ledger, 99).spent == pytest.approx(0.21)


@pytest.mark.parametrize("before", range(0, 12, 3))
@pytest.mark.parametrize("after", [1, 3, 8])
def test_a_gap_is_never_charged_too_little_nor_more_than_twice(ledger: Ledger, before: int, after: int) -> None:
    """An earlier head lies at most as far before the copy's end as that lies before the mark."""
    last = lose(ledger, before, after)
    ((_, gap),) = ledger.adopt((), YEAR)
    assert gap.rho >= 0.01 * after - 1e-12
    assert gap.rho <= 0.01 * min(2 * after, before + after) + 1e-12
    assert ledger.spent().rho >= last.spent - 1e-12


def test_two_data_sets_marks_of_one_entry_are_charged_each(ledger: Ledger) -> None:
    """Both were told the same number and head, each with its own loss: knowing one is not knowing the other."""
    other = again(ledger, "OTHER")
    ledger.note({"event": "refuse"})
    copy = snapshot(ledger)
    charge(other, "s", "q", 0.07)
    charge(ledger, "s", "q", 0.03)
    assert ledger.mark().head == other.mark().head
    put_back(ledger, copy)
    assert [gap.rho for _, gap in ledger.adopt((), YEAR)] == [0.03]
    assert [mark.dataset for mark in other.missing()] == ["OTHER"]
    assert [gap.rho for _, gap in other.adopt((), YEAR)] == [0.07]
    assert (ledger.spent().rho, other.spent().rho) == (0.03, 0.07)
    assert (ledger.missing(), other.missing()) == ((), ())
    ledger.verify()
    other.close()


def test_a_branch_that_shares_nothing_is_charged_whole(ledger: Ledger, quick_path: Path) -> None:
    elsewhere = Ledger(quick_path / "elsewhere", "DATA")
    for number in range(3):
        lost = answered(elsewhere, number, 0.02)
    elsewhere.close()
    answered(ledger, 1)
    ledger.present(lost)
    assert ledger.missing() == (lost,)
    assert ledger.adopt((), YEAR) == [(lost, Loss(lost.spent))]
    assert ledger.spent().rho == pytest.approx(0.07)


def test_a_ledger_that_is_behind_does_not_forget_it_by_going_on(ledger: Ledger) -> None:
    """Refusals are entries too: a journal that grows past the lost mark holds another head there."""
    last = lose(ledger, before=2, after=2)
    for _ in range(10):
        ledger.note({"event": "refuse"})
        ledger.mark()
    assert ledger.mark().sequence > last.sequence
    assert ledger.missing() == (last,)
    other = again(ledger)
    assert other.missing() == (last,)
    other.close()


def test_the_newest_copy_put_back_is_no_reason_to_refuse_any_more(ledger: Ledger) -> None:
    answered(ledger, 1)
    old = snapshot(ledger)
    answered(ledger, 2)
    newest = snapshot(ledger)
    put_back(ledger, old)
    assert ledger.missing() != ()
    put_back(ledger, newest)
    assert ledger.missing() == ()


def test_processes_that_issue_marks_together_are_never_behind(ledger: Ledger) -> None:
    """The file is written after the entry, and read before the journal."""
    stop, wrong = threading.Event(), list[object]()

    def issue() -> None:
        other = again(ledger)
        while not stop.is_set():
            other.note({"event": "refuse"})
            other.mark()
            if other.missing():
                wrong.append(other.missing())
        other.close()

    threads = [threading.Thread(target=issue) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(1.0)
    stop.set()
    for thread in threads:
        thread.join(60)
    assert wrong == []
    assert len(entries(ledger)) > 20


def test_a_crash_between_the_entry_and_the_mark_is_no_loss(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    answered(ledger, 1)
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "_keep", lambda _, mark: mark)
        answered(ledger, 2)
    other = again(ledger)
    assert other.missing() == ()
    assert other.mark().sequence == 4
    other.close()


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
            record(fresh, "a" * 64, SLOT, masked=True)
            fresh.open_session(
                Session("s", "d", "c", "r", b"{}", "00", b"key", b""), {"panel": b"text"}, lambda _: b"r"
            )
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
    peers = [peer for one in agreements for peer in gate.ledger.agreements.peers(one.agreement).values()]
    of_peers = (secret for peer in peers for secret in (peer.key, peer.share))
    secrets = [session.key, *(key for one in agreements for key in (one.key, one.root)), *of_peers]
    assert [len(s or b"") for s in secrets] == [32] * (1 + 2 * 2 + 2 * 2 * 3)
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
               "roster", "policy", "data", "bytes", "dataset", "rho", "reason", "questions", "version", "people",
               "spent", "permit", "year", "events", "by_site", "purpose", "form", "slices", "attempt", "arrays",
               "digest", "minimum_people", "minimum_cell", "minimum_sites", "epsilon", "delta", "unit", "reserved_rho",
               "synthetic", "decision", "honest_sites"}  # fmt: skip
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

"""What was released stays charged: a node that is killed at any instant, a state that is put back to an older copy, a
coordinator that remembers, a mark that somebody made up."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from fl_client import cli
from fl_client.policy import NodeConfig
from strategies.federation import Identity
from strategies.marks import Mark
from strategies.privacy import Budget
from strategies.reasons import Reason
from strategies.study import Study
from strategies.wire import Answered, Closed, Opened, Refused, Unmasked
from tests.postgresql import Server
from tests.tiny import COUNTS, FREQUENCIES, NAMES, Tiny, study

SITE = "AT"
COST = Budget(1.0, 1e-5).loss.rho


def move(tiny: Tiny, url: str | None) -> None:
    """Let the site keep its ledger there from now on, in a state folder that is as new."""
    file = tiny.workspace.node_files[SITE]
    tiny.gates[SITE].ledger.close()
    shutil.rmtree(tiny.gates[SITE].ledger.folder)
    if url is not None:
        file.write_text(f'ledger = "{url}"\n' + file.read_text(encoding="utf-8"), encoding="utf-8")
    tiny.restart(SITE)


@pytest.fixture
def moved(tiny: Tiny, ledger_url: str | None) -> Tiny:
    """The tiny federation, with one site's ledger on SQLite or on PostgreSQL."""
    move(tiny, ledger_url)
    return tiny


# -- marks in replies --------------------------------------------------------------------------------------------------


def mark_of(tiny: Tiny, reply: bytes) -> Mark:
    header = tiny.read(SITE, reply).header
    assert isinstance(header, Opened | Answered | Unmasked | Closed | Refused)
    assert header.mark is not None
    assert header.mark.is_signed_by(tiny.federation.nodes[SITE].identity)
    assert not header.mark.is_signed_by(tiny.federation.nodes["BE"].identity)
    return header.mark


def test_every_kind_of_reply_carries_a_mark_that_grows(tiny: Tiny) -> None:
    gate, pen = tiny.gates[SITE], tiny.pen(study(COUNTS, FREQUENCIES))
    pen.open()
    counts, noised = pen.ask("counts"), pen.ask("frequencies")
    replies = [pen.certificates[SITE], gate.answer(counts), gate.answer(noised), gate.answer(pen.unmask([counts]))]
    replies += [gate.answer(b"garbage"), gate.answer(pen.closing())]
    marks = [mark_of(tiny, reply) for reply in replies]
    assert [type(tiny.read(SITE, r).header).__name__ for r in replies] == [
        "Opened", "Answered", "Answered", "Unmasked", "Refused", "Closed",
    ]  # fmt: skip
    assert [m.sequence for m in marks] == sorted({m.sequence for m in marks})
    assert [m.spent for m in marks] == [0, 0, *[pytest.approx(COST)] * 4]
    heads = {line["sequence"]: line["head"] for line in gate.ledger.export()}
    assert all(heads[m.sequence] == m.head for m in marks)
    assert mark_of(tiny, gate.answer(noised)) == marks[2], "a stored reply carries the mark that it was made with"


@pytest.mark.parametrize("change", [{"sequence": 900, "earlier": ("",) * 10}, {"spent": 0.0}, {"dataset": "OTHER"}])
def test_a_changed_mark_is_not_the_node_s(tiny: Tiny, change: dict[str, object]) -> None:
    tiny.pen(study(FREQUENCIES), "one").open()
    mark = mark_of(tiny, tiny.gates[SITE].answer(tiny.pen(study(FREQUENCIES), "two").opening()))
    forged = replace(replace(mark, spent=0.5).signed(tiny.gates[SITE].identity), **change)  # type: ignore[arg-type]
    reply = tiny.gates[SITE].answer(tiny.pen(study(FREQUENCIES), "three").opening(marks={SITE: forged}))
    header = tiny.read(SITE, reply).header
    assert isinstance(header, Refused)
    assert header.reason is Reason.BAD_SIGNATURE
    assert tiny.gates[SITE].ledger.missing() == ()
    again = tiny.gates[SITE].answer(tiny.pen(study(FREQUENCIES), "four").opening())
    assert isinstance(tiny.read(SITE, again).header, Opened), "a forged mark has no effect"


def test_a_mark_by_another_key_is_not_adopted(tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    forged = Mark(f"TINY-{SITE}", 900, "a" * 64, 1.0, ("",) * 10).signed(Identity.generate())
    reply = tiny.gates[SITE].answer(tiny.pen(study(FREQUENCIES)).opening(marks={SITE: forged}))
    header = tiny.read(SITE, reply).header
    assert isinstance(header, Refused)
    assert header.reason is Reason.BAD_SIGNATURE
    file = tmp_path / "marks.json"
    file.write_text(json.dumps({SITE: forged.plain()}))
    assert cli.main(["ledger", "adopt", str(tiny.workspace.node_files[SITE]), "--mark", str(file)]) == 2
    assert "A mark is signed by the node that adopts it." in capsys.readouterr().err
    assert tiny.gates[SITE].ledger.spent().rho == 0


# -- a copy that is put back -------------------------------------------------------------------------------------------


@contextmanager
def put_back(tiny: Tiny, server: Server | None, *, everything: bool) -> Iterator[None]:
    """Whatever happens to the site inside, its database is afterwards what it was before; the folder too, if so."""
    state, home = tiny.gates[SITE].ledger.folder, tiny.workspace.node_files[SITE].parent
    tiny.gates[SITE].ledger.close()
    dump = server.run("pg_dump", "--clean", "postgres") if server else b""
    shutil.copytree(state, home / "copy")
    tiny.restart(SITE)
    yield
    tiny.gates[SITE].ledger.close()
    if server:
        server.run("psql", "-q", "-v", "ON_ERROR_STOP=1", "postgres", given=dump)
    if everything:
        shutil.rmtree(state)
        shutil.copytree(home / "copy", state)
    elif not server:
        for old in state.glob("ledger.sqlite*"):
            old.unlink()
        for file in (home / "copy").glob("ledger.sqlite*"):
            shutil.copy(file, state)
    tiny.restart(SITE)


@pytest.fixture
def server(request: pytest.FixtureRequest, ledger_url: str | None) -> Server | None:
    return request.getfixturevalue("postgresql") if ledger_url else None


def asked(name: str) -> Study:
    return study(replace(FREQUENCIES, name=name), title=name)


def absent(tiny: Tiny, folder: Path, name: str) -> str | None:
    """Why the site is not in the answer to one more private question."""
    (result,) = tiny.conductor(asked(name), folder / name).run()
    return result.statement.absent.get(SITE)


@pytest.mark.parametrize("everything", [False, True], ids=["the database alone", "the whole state"])
def test_a_copy_that_is_put_back_is_caught_and_the_gap_is_charged(
    moved: Tiny, server: Server | None, quick_path: Path, everything: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny, node = moved, str(moved.workspace.node_files[SITE])
    assert absent(tiny, quick_path, "before") is None
    with put_back(tiny, server, everything=everything):
        assert absent(tiny, quick_path, "lost") is None
        assert tiny.gates[SITE].ledger.spent().rho == pytest.approx(2 * COST)
    assert tiny.gates[SITE].ledger.spent().rho == pytest.approx(COST), "so the copy was put back"
    assert bool(tiny.gates[SITE].ledger.missing()) is not everything, "by the file beside the database"

    for name in ("one", "two"):  # by the coordinator's mark, and for good
        assert absent(tiny, quick_path, name) == "refused: LEDGER_BEHIND"
    pen = tiny.pen(asked("three"), "session-3")
    header = tiny.read(SITE, tiny.gates[SITE].answer(pen.opening())).header
    assert isinstance(header, Refused)
    assert header.reason is Reason.LEDGER_BEHIND, "also for a coordinator who knows nothing"
    assert tiny.gates[SITE].ledger.spent().rho == pytest.approx(COST)
    capsys.readouterr()
    assert cli.main(["ledger", "verify", node]) == 4
    assert "it was put back to an older copy" in capsys.readouterr().err

    assert cli.main(["ledger", "adopt", node]) == 0
    assert "was lost and is charged" in capsys.readouterr().out
    spent = tiny.gates[SITE].ledger.spent().rho
    assert 2 * COST - 1e-12 <= spent <= 3 * COST + 1e-12, "the gap in full; what provably is shared, once"
    assert cli.main(["ledger", "verify", node]) == 0
    assert cli.main(["ledger", "adopt", node]) == 0
    assert tiny.gates[SITE].ledger.spent().rho == spent, "it is charged once"
    tiny.restart(SITE)
    assert absent(tiny, quick_path, "four") is None, "and coordinators see a mark that grew"
    assert tiny.gates[SITE].ledger.spent().rho == pytest.approx(spent + COST)


@pytest.mark.parametrize("who", ["outside policy", "expired"])
def test_a_mark_in_a_request_that_would_not_be_answered_stops_nobody(tiny: Tiny, who: str) -> None:
    """A coordinator that lost its permit, or a relay with an old request, shows a mark of a lost branch."""
    mark = mark_of(tiny, tiny.gates[SITE].answer(tiny.pen(asked("lost")).opening()))
    move(tiny, None)
    gate = tiny.gates[SITE]
    policy, expires, reason = gate.policy, 1, Reason.EXPIRED
    if who == "outside policy":
        gate.policy, expires = replace(policy, coordinators=("another",)), int(time.time()) + 3600
        reason = Reason.COORDINATOR_NOT_ALLOWED
    header = tiny.read(
        SITE, gate.answer(tiny.pen(asked("old"), "old").opening(marks={SITE: mark}, expires=expires))
    ).header
    gate.policy = policy
    assert isinstance(header, Refused)
    assert header.reason is reason
    pen = tiny.pen(asked("next"), "next").open([SITE])
    assert isinstance(tiny.read(SITE, gate.answer(pen.ask("next"))).header, Answered)
    shown = tiny.read(SITE, gate.answer(tiny.pen(asked("true"), "true").opening(marks={SITE: mark}))).header
    assert isinstance(shown, Refused)
    assert shown.reason is Reason.LEDGER_BEHIND, "whoever may ask may show it"


def test_a_new_empty_ledger_is_behind_and_a_coordinator_s_file_is_adopted(
    tiny: Tiny, quick_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert absent(tiny, quick_path, "one") is None
    move(tiny, None)
    node, seen = str(tiny.workspace.node_files[SITE]), tiny.folder / "seen" / "marks.json"
    assert cli.main(["ledger", "adopt", node, "--mark", str(seen)]) == 0
    assert f"of TINY-{SITE}: rho {COST:.6f} was lost" in capsys.readouterr().out
    tiny.restart(SITE)
    assert tiny.gates[SITE].ledger.spent().rho == pytest.approx(COST)
    assert absent(tiny, quick_path, "two") is None


def test_a_restart_between_any_two_replies_is_no_reason_to_refuse(tiny: Tiny, quick_path: Path) -> None:
    for number in range(4):
        assert absent(tiny, quick_path, f"q{number}") is None
        tiny.restart(SITE)


# -- what the coordinator sees -----------------------------------------------------------------------------------------


def test_a_coordinator_names_a_site_that_went_back_in_mid_study(tiny: Tiny, quick_path: Path) -> None:
    """The node's own file is put back too, and no study is opened in between: the coordinator alone can see it."""
    link = tiny.link()
    two = study(replace(FREQUENCIES, name="one"), replace(FREQUENCIES, name="two"), replace(FREQUENCIES, name="three"))
    state, copy = tiny.gates[SITE].ledger.folder, tiny.folder / "copy"
    asks: list[str] = []

    def back(name: str, envelopes: list[bytes]) -> list[bytes]:
        if name == SITE:
            asks.append(name)
            if len(asks) in (2, 3):  # one is about to be asked; two is about to be asked
                tiny.gates[SITE].ledger.close()
                if len(asks) == 2:
                    shutil.copytree(state, copy)
                else:
                    shutil.rmtree(state)
                    shutil.copytree(copy, state)
                tiny.restart(SITE)
        return envelopes

    link.on_request = back
    link.gates = tiny.gates
    one, two_, three = tiny.conductor(two, quick_path / "run", link).run()
    assert SITE in one.statement.sites
    assert two_.statement.absent == three.statement.absent == {SITE: "has a ledger that went back to an older copy"}


def test_a_run_that_is_resumed_takes_stored_replies_for_what_they_are(tiny: Tiny, quick_path: Path) -> None:
    """Another study was answered in between: the stored marks are older than what the coordinator knows by then."""

    class KilledError(Exception):
        pass

    def killed(*_: object) -> None:
        raise KilledError

    link = tiny.link()
    link.on_reply = lambda name, envelopes, replies: (
        killed() if name == "DK" and isinstance(tiny.read(name, replies[0]).header, Answered) else replies
    )
    with pytest.raises(KilledError):
        tiny.conductor(asked("first"), quick_path / "first", link).run()
    assert absent(tiny, quick_path, "between") is None
    (result,) = tiny.conductor(asked("first"), quick_path / "first").run()
    assert result.statement.sites == NAMES
    assert tiny.gates[SITE].ledger.spent().rho == pytest.approx(2 * COST)


# -- kill -9 -----------------------------------------------------------------------------------------------------------

QUESTION = Budget(0.05, 1e-5)
AT_ONCE = 3
"""A life is long enough for about so many answers."""


@pytest.mark.parametrize("kills", [10, pytest.param(100, marks=pytest.mark.proof)])
def test_a_node_that_is_killed_at_any_instant_has_charged_whatever_it_released(
    moved: Tiny, quick_path: Path, kills: int
) -> None:
    tiny, node, requests = moved, moved.workspace.node_files[SITE], quick_path / "requests"
    questions = [replace(FREQUENCIES, name=f"q{number}", budget=QUESTION) for number in range(100)]
    asks: list[bytes] = []
    for session in range(1 + kills * AT_ONCE // 100):
        pen = tiny.pen(study(*questions), f"session-{session}").open((SITE,))
        asks += [pen.ask(question.name) for question in questions]
    requests.mkdir()
    for number, ask in enumerate(asks):
        (requests / f"{number:06d}.bin").write_bytes(ask)
    tiny.gates[SITE].ledger.close()

    released: dict[int, bytes] = {}
    command = [sys.executable, "-m", "tests.privacy.victim", str(node), str(requests)]
    nursery = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert nursery.stdout is not None
        assert nursery.stdout.readline() == "ready\n"
        lengths = [live(nursery, quick_path, released, answers=AT_ONCE) for _ in range(3)]
        span, chance = max(lengths), random.Random(20260101)  # the instants are seeded, their span is this machine's
        for kill in range(kills):
            live(nursery, quick_path, released, seconds=chance.uniform(0, span))
            ledger = NodeConfig.read(node).open_ledger()
            assert ledger.spent().rho >= len(released) * QUESTION.loss.rho * (1 - 1e-9), f"after kill {kill}"
            assert ledger.missing() == (), "no crash makes a ledger seem to be put back"
            ledger.close()
    finally:
        nursery.kill()
        nursery.communicate()

    assert len(released) > kills / 4
    gate = tiny.restart(SITE)
    told = gate.ledger.verify()
    charged = {(charge.session, charge.question) for charge in told.charges}
    assert {(f"session-{n // 100}", f"q{n % 100}") for n in released} <= charged
    assert len(charged) <= len(released) + kills + 3, "and at most one more for each life"
    for number, reply in released.items():
        assert gate.answer(asks[number]) == reply
    assert gate.ledger.verify().spent(gate.ledger.dataset) == gate.ledger.spent().rho


def live(
    nursery: subprocess.Popen[str],
    folder: Path,
    released: dict[int, bytes],
    seconds: float | None = None,
    answers: int | None = None,
) -> float:
    """One life of a node: killed after some time, or after some answers. Whole replies are kept; a reply to a request
    that had one must be the same. Returns how long it was."""
    assert nursery.stdin is not None
    assert nursery.stdout is not None
    fifo, first = folder / "fifo", max(released, default=0)
    os.mkfifo(fifo)
    nursery.stdin.write(f"{first} {fifo}\n")
    nursery.stdin.flush()
    child = int(nursery.stdout.readline())
    timer = threading.Timer(seconds, kill, (child,)) if seconds is not None else None
    count = 0
    with fifo.open("rb") as pipe:
        began = time.monotonic()
        if timer:
            timer.start()
        while len(head := pipe.read(8)) == 8:
            number, length = struct.unpack(">II", head)
            reply = pipe.read(length)
            if len(reply) < length:
                break
            assert released.setdefault(number, reply) == reply, "the same request has the same reply, for ever"
            count += 1
            if count == answers:
                kill(child)
        lasted = time.monotonic() - began
    if timer:
        timer.cancel()
        timer.join()
    fifo.unlink()
    return lasted


def kill(child: int) -> None:
    """Unless it came to its own end first."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)

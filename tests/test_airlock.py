"""What an operator shows a data-access committee: every byte that left stands in a report, and nothing else does."""

from __future__ import annotations

import hashlib
import json
import stat
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from fl_client import cli
from fl_client.airlock import Airlock
from simulations.sites import COORDINATOR
from strategies.reasons import Reason
from strategies.wire import Answered, Ask, Refused, open_envelope
from tests.tiny import COUNTS, FREQUENCIES, LINEAR, NAMES, Tiny, people_of, study

SITE = "DK"


@pytest.fixture
def asked(make_tiny: Callable[..., Tiny], quick_path: Path) -> tuple[Tiny, list[bytes]]:
    """A site that answers counts and frequencies and may not read the trait, and the bodies that it sent."""
    tiny = make_tiny(policies={SITE: {"columns": {"sex": [1, 2]}}}, own_total=NAMES)
    link = tiny.link()
    tiny.conductor(study(COUNTS, FREQUENCIES, LINEAR), quick_path / "run", link).run()
    read = [tiny.read(site, reply) for site, _, reply in link.traffic if site == SITE]
    return tiny, [message.body for message in read if isinstance(message.header, Answered)]


def reports(tiny: Tiny) -> dict[str, dict[str, object]]:
    folder = tiny.gates[SITE].ledger.folder / "airlock"
    read = [json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))]
    return {str(report["question"]): report for report in read}


class Page(HTMLParser):
    """The words of a page, and what it would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("script", "link", "iframe", "img", "object") or {"src", "href"} & dict(attrs).keys():
            self.fetched.append(tag)

    def handle_data(self, data: str) -> None:
        self.words += data


def test_every_reply_that_left_is_in_a_report_with_its_digest(asked: tuple[Tiny, list[bytes]]) -> None:
    tiny, bodies = asked
    told = reports(tiny)
    assert set(told) == {"counts", "frequencies", "linear"}
    released = [r for report in told.values() for r in report["released"]]  # type: ignore[attr-defined]
    assert sorted(r["digest"] for r in released) == sorted(hashlib.sha256(body).hexdigest() for body in bodies)
    assert sum(r["bytes"] for r in released) == sum(map(len, bodies))
    assert told["linear"]["released"] == []
    assert told["linear"]["refused"] == {Reason.COLUMN_NOT_ALLOWED: 1}
    assert told["counts"]["numbers"] == sum(len(body) for body in bodies[:1]) / 8, "eight bytes each under masks"


def test_a_report_says_what_protected_it(asked: tuple[Tiny, list[bytes]]) -> None:
    tiny, _ = asked
    told = reports(tiny)
    (counts,), (noised,) = told["counts"]["released"], told["frequencies"]["released"]  # type: ignore[misc]
    gate = tiny.gates[SITE]
    assert counts["epsilon"] is None
    assert (counts["minimum_people"], counts["minimum_sites"]) == (gate.policy.minimum_people, 3)
    assert all(array["noise_sd"] is None for array in counts["arrays"].values())
    assert FREQUENCIES.budget is not None
    assert (noised["epsilon"], noised["delta"], noised["unit"]) == (1.0, 1e-5, "person")
    assert noised["reserved_rho"] == FREQUENCIES.budget.loss.rho
    assert noised["minimum_people"] is None
    assert all(array["noise_sd"] > 0 for array in noised["arrays"].values())
    for release in (counts, noised):
        assert release["roster"] == list(NAMES)
        assert release["policy"] == gate.policy.identifier
        assert release["synthetic"] is True


def test_a_page_is_readable_and_asks_nothing_of_the_network(asked: tuple[Tiny, list[bytes]]) -> None:
    tiny, _ = asked
    pages = {
        file.stem.split("+", 1)[1]: Page(file.read_text())
        for file in (tiny.gates[SITE].ledger.folder / "airlock").glob("*.html")
    }
    assert all(page.fetched == [] for page in pages.values())
    assert "not bounded: an exact total can expose who is in it" in pages["counts"].words
    assert "epsilon 1 at delta 1e-05, per person" in pages["frequencies"].words
    assert "Nothing left: every request was refused." in pages["linear"].words
    assert Reason.COLUMN_NOT_ALLOWED in pages["linear"].words
    assert "it is synthetic" in pages["counts"].words


def test_reports_hold_no_person_and_are_for_the_owner_alone(asked: tuple[Tiny, list[bytes]]) -> None:
    tiny, _ = asked
    folder = tiny.gates[SITE].ledger.folder / "airlock"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for file in folder.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        text = file.read_text()
        assert not any(person in text for person in people_of(SITE))
        assert not any(word in text for word in ("rs1", "learning_rate", '"panel"', '"trait"'))


def test_reports_follow_from_the_journal_alone(asked: tuple[Tiny, list[bytes]]) -> None:
    tiny, _ = asked
    ledger = tiny.gates[SITE].ledger
    folder = ledger.folder / "airlock"
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    for file in folder.iterdir():
        file.unlink()
    assert Airlock(ledger.folder, SITE).rewrite(ledger.journal()) == 3
    after = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert after.keys() == before.keys()
    for name in (name for name in before if name.endswith(".json")):
        one, other = json.loads(before[name]), json.loads(after[name])
        for release in (*one["released"], *other["released"]):
            assert release.pop("time").endswith("UTC")  # the journal's clock and the airlock's read one after the other
        assert one == other


def test_names_of_a_refused_request_name_no_file(tiny: Tiny) -> None:
    gate = tiny.gates["AT"]
    asking = tiny.pen(study(COUNTS)).open(["AT"])
    before = {path for path in gate.ledger.folder.parent.rglob("*") if path.suffix in (".json", ".html")}
    for name in ("../../outside", "a/b", "", "x" * 200):
        refused = tiny.read("AT", gate.answer(asking.ask(name)))
        assert isinstance(refused.header, Refused)
    assert {path for path in gate.ledger.folder.parent.rglob("*") if path.suffix in (".json", ".html")} == before


@pytest.mark.parametrize("session", ["with.dot", "x" * 41, "../../outside", ""])
def test_no_session_is_opened_whose_questions_would_have_no_report(tiny: Tiny, session: str) -> None:
    reply = tiny.read("AT", tiny.gates["AT"].answer(tiny.pen(study(FREQUENCIES), session).opening()))
    assert isinstance(reply.header, Refused)
    assert reply.header.reason is Reason.MALFORMED


def test_no_two_sessions_questions_share_a_report(tiny: Tiny) -> None:
    """Whatever names a coordinator chooses: alike at their beginnings, or alike once they are put together."""
    gate, places = tiny.gates["AT"], [("a" * 39 + "1", "q"), ("a" * 39 + "2", "q"), ("a-b", "c"), ("a", "b-c")]
    for session, name in places:
        pen = tiny.pen(study(replace(FREQUENCIES, name=name)), session).open(["AT"])
        assert isinstance(tiny.read("AT", gate.answer(pen.ask(name))).header, Answered)
    reports = [json.loads(file.read_bytes()) for file in (gate.ledger.folder / "airlock").glob("*.json")]
    assert sorted((report["session"], report["question"], report["replies"]) for report in reports) == sorted(
        (*place, 1) for place in places
    )


@pytest.mark.parametrize("change", ["session", "study", "question"])
def test_a_refused_request_s_text_is_not_in_the_journal(tiny: Tiny, change: str) -> None:
    gate, text = tiny.gates["AT"], "22:1000:A>C " * 1000
    asking = tiny.pen(study(FREQUENCIES)).open(["AT"])
    ask = open_envelope(asking.ask("frequencies"), {COORDINATOR: tiny.workspace.identity.public}).header
    assert isinstance(ask, Ask)
    reply = gate.answer(asking.sign(replace(ask, **{change: text})))  # type: ignore[arg-type]
    assert isinstance(tiny.read("AT", reply).header, Refused)
    assert text not in json.dumps(list(gate.ledger.journal()))


def test_the_command_writes_them_anew(asked: tuple[Tiny, list[bytes]], capsys: pytest.CaptureFixture[str]) -> None:
    tiny, _ = asked
    folder = tiny.gates[SITE].ledger.folder / "airlock"
    for file in folder.glob("*.html"):
        file.unlink()
    assert cli.main(["airlock", str(tiny.workspace.node_files[SITE])]) == 0
    assert capsys.readouterr().out.endswith(
        "3 reports, a page and a JSON file for each question that was asked here.\n"
    )
    assert len(list(folder.glob("*.html"))) == 3

"""Differencing: no two exact answers of a node differ by a few people, whatever became of its data in between."""

from __future__ import annotations

import itertools
import json
import logging
import os
import re
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import tomli_w

import fl_client.overlap
from fl_client import cli, readers
from fl_client.gate import Gate
from fl_client.overlap import KEY_FILE, Register, singles_out
from strategies.analyses.genotype_counts import GenotypeCounts
from strategies.analyses.histogram import Histogram
from strategies.analyses.table_one import TableOne
from strategies.analysis import Needs, Part
from strategies.errors import DataError, RefusedError
from strategies.question import Question
from strategies.reasons import Reason
from strategies.study import Study
from strategies.wire import Refused, digest_of
from tests.refusals.test_rosters import reason, table_of
from tests.tiny import COUNTS, FREQUENCIES, LINEAR, NAMES, PANEL, TRAINING, Tiny, genotypes, people_of, study

SITE, K = "AT", 5
ASKED = study(COUNTS, LINEAR, FREQUENCIES, TRAINING)
PEOPLE = people_of(SITE)
Make = Callable[..., Tiny]
Lines = list[str]


@pytest.fixture
def tiny(make_tiny: Make) -> Tiny:
    return make_tiny(minimum_people=K)


def lines_of(tiny: Tiny) -> Lines:
    """The lines of AT's people table: a header and thirty people."""
    return (tiny.data / SITE / "people.tsv").read_text().splitlines()


def write(tiny: Tiny, lines: Sequence[str]) -> None:
    (tiny.data / SITE / "people.tsv").write_text("\n".join(lines) + "\n")


def set_dataset(tiny: Tiny, **change: object) -> None:
    file = tiny.workspace.node_files[SITE]
    document = tomllib.loads(file.read_text())
    document["dataset"] |= change
    file.write_text(tomli_w.dumps(document))


def renew(tiny: Tiny) -> Gate:
    """What the operator does when files or exclusions changed: fix the next version, name it, start the node again."""
    assert cli.main(["data", str(tiny.workspace.node_files[SITE])]) == 0
    set_dataset(tiny, version=max(tiny.gates[SITE].ledger.versions()))
    return tiny.restart(SITE)


def ask(tiny: Tiny, question: str = "counts", asked: Study = ASKED) -> Reason | None:
    """Ask AT the first round in a session of its own; None if it answers."""
    number = sum(line["event"] == "open" for line in tiny.gates[SITE].ledger.journal())
    return reason(tiny, tiny.pen(asked, f"asked-{number}").open().ask(question))


def blank(data: Path, numbers: Sequence[int]) -> None:
    """AT's people of these numbers have no trait."""
    table = data / SITE / "people.tsv"
    text = table.read_text()
    for number in numbers:
        text = re.sub(rf"({PEOPLE[number]}\t)[^\t]+", r"\1NA", text)
    table.write_text(text)


def without(numbers: Sequence[int]) -> Callable[[Lines], Lines]:
    return lambda lines: [line for line in lines if line.split("\t")[0] not in {PEOPLE[n] for n in numbers}]


# -- consents that are withdrawn, people who join ----------------------------------------------------------------------


def test_a_withdrawn_consent_is_not_read_off_two_answers(tiny: Tiny) -> None:
    assert ask(tiny) is None
    (tiny.data / SITE / "withdrawn.txt").write_text(PEOPLE[7] + "\n")
    set_dataset(tiny, exclude=str(tiny.data / SITE / "withdrawn.txt"))
    gate = renew(tiny)
    assert gate.dataset is not None
    assert PEOPLE[7] not in gate.dataset.people
    before, crowds, spent = len(list(gate.ledger.journal())), gate.ledger.crowds(), gate.ledger.spent()

    pen = tiny.pen(ASKED, "later").open()
    refused = tiny.read(SITE, gate.answer(request := pen.ask("counts")))
    assert isinstance(refused.header, Refused)
    assert (refused.header.reason, refused.header.public) == (Reason.OVERLAP, {"minimum_people": K})
    assert refused.body == b""
    assert reason(tiny, pen.unmask([request])) is Reason.NOT_ANSWERED
    lines = list(gate.ledger.journal())[before:]
    assert [line["event"] for line in lines] == ["open", "agree", "refuse", "refuse"]
    assert (lines[2]["reason"], lines[2]["question"]) == ("OVERLAP", "counts")
    assert (gate.ledger.crowds(), gate.ledger.spent()) == (crowds, spent)
    assert not (gate.ledger.folder / "replies" / f"{digest_of(request)}.bin").exists()


def test_the_subtraction_finds_the_person_where_nothing_refuses_it(
    make_tiny: Make, quick_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The attack itself, on totals as a coordinator gets them; with the check in place it gets one total only."""
    for number, checked in enumerate((False, True)):
        tiny = make_tiny(minimum_people=K)
        with monkeypatch.context() as patch:
            if not checked:
                patch.setattr(fl_client.overlap, "singles_out", lambda *_, **__: False)
            (everybody,) = tiny.conductor(study(COUNTS), quick_path / f"one {number}").run()
            write(tiny, without([7])(lines_of(tiny)))
            renew(tiny)
            second = tiny.conductor(study(COUNTS), quick_path / f"two {number}")
            if checked:
                with pytest.raises(RefusedError, match="AT refused: OVERLAP"):
                    second.run()
            else:
                (rest,) = second.run()
                found = (table_of(everybody) - table_of(rest)).argmax(axis=1)
                assert np.array_equal(found, genotypes(SITE)[:, 7]), "every genotype of the person who withdrew"


CHANGES: dict[str, tuple[list[int], list[int], bool]] = {
    # name: (left out at first, left out later, whether the second answer is given)
    "the same": ([], [], True),
    "one withdrew": ([], [3], False),
    "one joined": ([3], [], False),
    "k - 1 withdrew": ([], [0, 9, 17, 29], False),
    "k withdrew": ([], [0, 1, 9, 17, 29], True),
    "k joined": ([0, 1, 9, 17, 29], [], True),
    "one joined and one withdrew": ([0], [29], False),
    "two joined and two withdrew": ([0, 1], [2, 3], False),
    "three joined and two withdrew": ([0, 1, 2], [3, 4], True),
}


@pytest.mark.parametrize("name", CHANGES)
def test_people_differ_by_none_or_by_k(make_tiny: Make, name: str) -> None:
    first, second, answered = CHANGES[name]
    whole: list[str] = []

    def begin(data: Path) -> None:
        table = data / SITE / "people.tsv"
        whole.extend(table.read_text().splitlines())
        table.write_text("\n".join(without(first)(whole)) + "\n")

    tiny = make_tiny(minimum_people=K, edit=begin)
    assert ask(tiny) is None
    write(tiny, without(second)(whole))
    renew(tiny)
    assert ask(tiny) is (None if answered else Reason.OVERLAP)


def test_people_are_known_again_in_files_of_other_names_and_orders(make_tiny: Make) -> None:
    tiny = make_tiny(minimum_people=K, edit=lambda data: blank(data, range(6)))
    assert ask(tiny, "linear") is None
    header, *people = lines_of(tiny)
    table = tiny.data / SITE / "second.csv"

    def save(lines: Sequence[str]) -> None:
        table.write_text("\n".join(line.replace("\t", ",") for line in lines) + "\n")

    save([header, *reversed(people)])
    set_dataset(tiny, people=str(table))
    renew(tiny)
    assert ask(tiny, "linear") is None
    assert len(tiny.gates[SITE].ledger.crowds()) == 1
    save([header, *people[12:], *people[:11]])
    renew(tiny)
    assert ask(tiny, "linear") is Reason.OVERLAP
    save([header, *people])
    renew(tiny)
    assert ask(tiny, "linear") is None, "the first people, again"


def test_a_stricter_policy_counts_for_earlier_answers_too(tiny: Tiny) -> None:
    lines = lines_of(tiny)
    assert ask(tiny) is None
    write(tiny, lines[:-6])
    renew(tiny)
    assert ask(tiny) is None
    gate = tiny.gates[SITE]
    gate.policy = replace(gate.policy, minimum_people=6)
    assert ask(tiny) is None
    gate.policy = replace(gate.policy, minimum_people=7)
    assert ask(tiny) is Reason.OVERLAP


# -- who is in an answer -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("lacking", "answered"), [(0, True), (1, False), (3, False), (4, False), (5, True)])
@pytest.mark.parametrize("order", [("counts", "linear"), ("linear", "counts")])
def test_people_who_lack_a_column_are_a_difference(
    make_tiny: Make, lacking: int, answered: bool, order: tuple[str, str]
) -> None:
    """Counts over everybody, less the association's, are the counts of those who have no trait."""
    tiny = make_tiny(minimum_people=K, edit=lambda data: blank(data, range(lacking)))
    assert ask(tiny, order[0]) is None
    assert ask(tiny, order[1]) is (None if answered else Reason.OVERLAP)


def parts(monkeypatch: pytest.MonkeyPatch, **spans: tuple[float, float]) -> Study:
    """A study that counts genotypes in public parts of the people, which no exact analysis of today asks for."""
    wanted = {name: Part(*span, salt="parts") for name, span in spans.items()}
    monkeypatch.setattr(GenotypeCounts, "needs", lambda self: Needs(panel=self.panel, part=wanted[self.panel]))
    questions = [replace(COUNTS, name=name, analysis=GenotypeCounts(name)) for name in spans]
    return study(*questions, panels=dict.fromkeys(spans, PANEL))


def test_parts_of_the_people(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    draws = sorted(
        next(a for a in np.linspace(0, 1, 4001) if not Part(a, 1, "parts").holds([person])[0]) for person in PEOPLE
    )
    low, high = (draws[14] + draws[15]) / 2, (draws[25] + draws[26]) / 2  # 15 people below, then 11, then 4
    asked = parts(monkeypatch, first=(0.0, low), second=(low, 1.0), whole=(0.0, 1.0), most=(0.0, high), end=(high, 1.0))
    assert ask(tiny, "first", asked) is None
    assert ask(tiny, "second", asked) is None, "disjoint"
    assert ask(tiny, "whole", asked) is None, "the sum of both, which anybody could have added up"
    assert len(tiny.gates[SITE].ledger.crowds()) == 3
    assert ask(tiny, "most", asked) is Reason.OVERLAP
    assert ask(tiny, "end", asked) is Reason.TOO_FEW_PEOPLE


def test_earlier_answers_are_put_together(make_tiny: Make) -> None:
    """Those who lack both of two columns: everybody, less who has one, less who has the other, plus who has both."""

    def lack(data: Path) -> None:
        table = data / SITE / "people.tsv"
        header, *people = table.read_text().splitlines()
        cells = [line.split("\t") for line in people]
        for number, row in enumerate(cells):
            row[1] = "NA" if number < 7 else row[1]
            row[3] = "NA" if number < 2 or 7 <= number < 12 else row[3]
        table.write_text("\n".join([header, *("\t".join(row) for row in cells)]) + "\n")

    one = replace(LINEAR, name="one", analysis=replace(LINEAR.analysis, covariates=()))
    other = replace(LINEAR, name="other", analysis=replace(LINEAR.analysis, traits=("high",), covariates=()))
    both = replace(LINEAR, name="both", analysis=replace(LINEAR.analysis, covariates=("high",)))
    asked = study(COUNTS, one, other, both)
    names = ["counts", "one", "other", "both"]
    for last in names:
        tiny = make_tiny(minimum_people=K, edit=lack)
        order = [*(name for name in names if name != last), last]
        assert [ask(tiny, name, asked) for name in order] == [None, None, None, Reason.OVERLAP], last


# -- what counts as an answer ------------------------------------------------------------------------------------------


def test_an_answer_that_was_never_opened_counts_and_outlives_its_study(tiny: Tiny) -> None:
    pen = tiny.pen(ASKED).open()
    assert reason(tiny, pen.ask("counts")) is None  # nobody asks for its seeds
    tiny.gates[SITE].answer(pen.closing())
    write(tiny, without([7])(lines_of(tiny)))
    renew(tiny)
    assert ask(tiny) is Reason.OVERLAP


def test_a_question_that_restarts_is_about_the_same_people(tiny: Tiny) -> None:
    pen = tiny.pen(ASKED).open()
    first = pen.ask("counts")
    assert reason(tiny, first) is None
    stored = tiny.gates[SITE].answer(first)
    assert reason(tiny, pen.ask("counts", attempt=2, roster=("AT", "BE", "CY"))) is None
    tiny.restart(SITE)
    assert reason(tiny, pen.ask("counts", attempt=3)) is None
    assert tiny.gates[SITE].answer(first) == stored
    assert len(tiny.gates[SITE].ledger.crowds()) == 1


def test_a_private_question_is_neither_refused_for_its_people_nor_remembered(tiny: Tiny) -> None:
    assert ask(tiny) is None
    remembered = tiny.gates[SITE].ledger.crowds()
    write(tiny, without([7])(lines_of(tiny)))
    renew(tiny)
    assert ask(tiny, "frequencies") is None
    assert ask(tiny, "training") is None
    assert tiny.gates[SITE].ledger.crowds() == remembered
    assert ask(tiny) is Reason.OVERLAP

    pen = tiny.pen(ASKED, "more").open()
    (tiny.gates[SITE].ledger.folder / KEY_FILE).unlink()
    tiny.restart(SITE)
    assert reason(tiny, pen.ask("frequencies")) is None, "nor does it need the register"


def test_each_exact_reply_names_its_crowd_and_version(tiny: Tiny, quick_path: Path) -> None:
    tiny.conductor(study(COUNTS, LINEAR, FREQUENCIES), quick_path / "run").run()
    ledger = tiny.gates[SITE].ledger
    with ledger._engine.begin() as connection:
        rows = connection.exec_driver_sql("SELECT question, crowd FROM replies").all()
    (name,) = ledger.crowds()
    assert {(row.question, row.crowd) for row in rows} == {("counts", name), ("linear", name), ("frequencies", None)}
    assert ledger.crowd(name).version == 1
    assert {line["version"] for line in ledger.journal() if line["event"] == "answer"} == {1}


def test_reply_and_crowd_are_recorded_together_or_not_at_all(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = tiny.gates[SITE]
    pen = tiny.pen(ASKED).open()
    real = gate.ledger._append

    def fail(connection: object, line: dict[str, object]) -> None:
        if line["event"] == "answer":
            raise OSError(28, "full")
        real(connection, line)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(gate.ledger, "_append", fail)
        assert reason(tiny, pen.ask("counts")) is Reason.INTERNAL
    assert gate.ledger.crowds() == ()
    assert reason(tiny, pen.ask("counts")) is None
    assert len(gate.ledger.crowds()) == 1


def test_slices_and_rounds_of_a_question_are_compared_once(
    make_tiny: Make, quick_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = make_tiny()
    monkeypatch.setattr("strategies.analysis.VARIANTS_PER_SLICE", 12)
    calls: list[int] = []
    real = fl_client.overlap.singles_out

    def counted(*arguments: object, **named: object) -> bool:
        calls.append(1)
        return real(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(fl_client.overlap, "singles_out", counted)
    tiny.conductor(study(COUNTS, LINEAR), quick_path / "run").run()
    answers = [line for line in tiny.gates[SITE].ledger.journal() if line["event"] == "answer"]
    assert len(answers) == 15  # three rounds of five slices
    assert len(calls) == len(NAMES), "the second question is about the same people"


# -- what a node keeps, and who can read it ----------------------------------------------------------------------------


def test_what_is_kept_tells_nobody_who_has_not_the_key(
    tiny: Tiny, quick_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    link = tiny.link()
    with caplog.at_level(logging.DEBUG):
        tiny.conductor(study(COUNTS, LINEAR), quick_path / "run", link).run()
        write(tiny, without([7])(lines_of(tiny)))
        gate = renew(tiny)
        assert ask(tiny) is Reason.OVERLAP
    key = gate.ledger.folder / KEY_FILE
    assert key.stat().st_mode & 0o777 == 0o600
    register = Register(gate.ledger, PEOPLE)
    (name,), (piece,) = gate.ledger.crowds(), gate.ledger.persons()
    sealed = gate.ledger.crowd(name).sealed
    bitmap, tokens = register._open(sealed, f"crowd {name}"), register._open(piece[1], "persons 0")
    assert np.unpackbits(np.frombuffer(bitmap, np.uint8)).sum() == 30
    assert len(tokens) == 30 * 16

    secrets = [key.read_bytes(), tokens, tokens[:16], tokens[-16:], *(person.encode() for person in PEOPLE)]
    kept = b"".join(f.read_bytes() for f in gate.ledger.folder.rglob("*") if f.is_file() and f.name != KEY_FILE)
    traffic = b"".join(request + reply for _, request, reply in link.traffic)
    said = (caplog.text + json.dumps(list(gate.ledger.journal()))).encode()
    assert sealed in kept, "so the search finds what is there"
    for secret in secrets:
        assert not any(secret in place for place in (kept, traffic, said))
    for place in (traffic, said):
        assert not any(word in place for word in (sealed, piece[1], name.encode(), bytes.fromhex(name)))
    assert bitmap not in kept
    assert register._seal(bitmap, "x") != register._seal(bitmap, "x")
    with pytest.raises(DataError, match="under its own key"):
        register._open(sealed, f"crowd {'0' * 64}")  # a row in another's place


SPOILT: dict[str, Callable[[Path], object]] = {
    "gone": Path.unlink,
    "another": lambda key: key.write_bytes(os.urandom(32)),
    "short": lambda key: key.write_bytes(b"key"),
    "open to others": lambda key: key.chmod(0o644),
}


@pytest.mark.parametrize("name", SPOILT)
def test_without_its_key_a_node_answers_nothing_exact(tiny: Tiny, name: str, caplog: pytest.LogCaptureFixture) -> None:
    assert ask(tiny) is None
    SPOILT[name](tiny.gates[SITE].ledger.folder / KEY_FILE)
    tiny.restart(SITE)
    assert ask(tiny) is Reason.DATASET_UNAVAILABLE
    assert "the data set cannot be read: " in caplog.text
    assert (tiny.gates[SITE].ledger.folder / KEY_FILE).exists() is (name != "gone"), "a new one would bury the old"


# -- versions ----------------------------------------------------------------------------------------------------------


def test_files_that_change_while_they_are_walked_are_refused(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "MOST_HELD", 0)
    assert ask(tiny, "frequencies") is None
    looks, unchanged = list[Path](), readers.Dataset.assert_unchanged

    def changed(dataset: readers.Dataset) -> None:
        looks.append(tiny.data)
        if len(looks) == 4:  # before and after the columns were opened, and before the first block: now, after it
            write(tiny, lines_of(tiny)[:-8])
        unchanged(dataset)

    monkeypatch.setattr(readers.Dataset, "assert_unchanged", changed)
    assert ask(tiny, "frequencies") is Reason.DATASET_UNAVAILABLE
    assert len(looks) == 4


def test_files_that_changed_are_refused_until_their_operator_fixes_a_version(
    tiny: Tiny, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger = tiny.gates[SITE].ledger
    assert list(ledger.versions()) == [1]
    first = ledger.versions()[1]
    whole = lines_of(tiny)
    write(tiny, whole[:-8])
    tiny.restart(SITE)
    for question in ("counts", "frequencies"):
        assert ask(tiny, question) is Reason.DATASET_UNAVAILABLE
    assert "A version of a data set stays as it was fixed." in caplog.text

    node = str(tiny.workspace.node_files[SITE])
    assert cli.main(["data", node]) == 0
    assert "22 people" in (said := capsys.readouterr().out)
    assert f"Next: version = 2 in the [dataset] table of {node}" in said
    tiny.restart(SITE)
    assert ask(tiny) is Reason.DATASET_UNAVAILABLE, "the node's file still names version 1"
    set_dataset(tiny, version=2)
    tiny.restart(SITE)
    assert ask(tiny) is None
    assert cli.main(["data", node]) == 0
    assert "The node's file names this version." in capsys.readouterr().out

    write(tiny, whole)
    assert cli.main(["data", node]) == 0
    assert "version 1" in capsys.readouterr().out, "files that were fixed before keep their number"
    set_dataset(tiny, version=3)
    tiny.restart(SITE)
    assert ask(tiny) is Reason.DATASET_UNAVAILABLE
    assert "A data set has a version that was fixed." in caplog.text
    lines = [line for line in tiny.gates[SITE].ledger.journal() if line["event"] == "version"]
    assert [(line["version"], line["people"]) for line in lines] == [(1, 30), (2, 22)]
    assert lines[0]["data"] == first
    assert set(lines[0]) == {"time", "event", "dataset", "version", "data", "people", "spent"}


def test_a_study_is_answered_from_one_version(tiny: Tiny) -> None:
    pen = tiny.pen(ASKED).open()
    assert reason(tiny, pen.ask("counts")) is None
    write(tiny, lines_of(tiny)[:-8])
    renew(tiny)
    for question in ("linear", "frequencies"):
        assert reason(tiny, pen.ask(question)) is Reason.SESSION_CONFLICT
    assert ask(tiny, "linear") is None


def test_the_statement_names_each_site_s_version(tiny: Tiny, quick_path: Path) -> None:
    write(tiny, [*lines_of(tiny)[:1], *reversed(lines_of(tiny)[1:])])
    renew(tiny)
    (result,) = tiny.conductor(study(COUNTS), quick_path / "run").run()
    assert result.statement.data_versions == {"AT": 2, "BE": 1, "CY": 1, "DK": 1}


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("AT-person-007\nAT-person-999\n", "Everybody who is to be left out is in the people table."),
        ("AT-person-007\nAT-person-007\n", "The people of a file are distinct."),
        ("\n", "Every person has an identifier."),
        ("", "A file of people names at least one person."),
    ],
)
def test_exclusions_that_do_not_hold_are_said(tiny: Tiny, text: str, rule: str) -> None:
    from fl_client.readers import Dataset  # noqa: PLC0415

    gate = tiny.gates[SITE]
    (tiny.data / SITE / "exclude.txt").write_text(text)
    config = replace(gate.dataset_config, exclude="exclude.txt")
    with pytest.raises(DataError) as error:
        Dataset.open(config, tiny.data / SITE)
    assert error.value.rule == rule


@pytest.mark.parametrize("file", ["people.tsv", "genotypes.bed"])
def test_a_file_that_is_replaced_is_noticed_though_size_and_time_are_kept(tiny: Tiny, file: str) -> None:
    pen = tiny.pen(ASKED).open()
    path = tiny.data / SITE / file
    status = path.stat()
    other = path.with_name("other")
    other.write_bytes(path.read_bytes()[:-2] + b"1\n")
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.replace(path)
    assert path.stat().st_mtime_ns == status.st_mtime_ns
    assert reason(tiny, pen.ask("counts")) is Reason.DATASET_UNAVAILABLE


def test_a_file_that_changes_while_it_is_read_gives_no_answer(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    pen, gate = tiny.pen(ASKED).open(), tiny.gates[SITE]
    assert gate.dataset is not None
    calls = type(gate.dataset.calls)
    real = calls.fill

    def during(self: object, *asked: object) -> object:
        with (tiny.data / SITE / "genotypes.bed").open("ab") as file:
            file.write(b"\0")
        return real(self, *asked)  # type: ignore[arg-type]

    monkeypatch.setattr(calls, "fill", during)
    assert reason(tiny, pen.ask("counts")) is Reason.DATASET_UNAVAILABLE
    assert gate.ledger.crowds() == ()


# -- sums and differences of crowds ------------------------------------------------------------------------------------


def bits(*crowds: Sequence[int]) -> np.ndarray:
    return np.packbits(np.array(crowds, dtype=np.uint8).astype(bool), axis=1)


def fewest(now: np.ndarray, earlier: np.ndarray) -> int:
    """The smallest support of now + a rational combination of the earlier: by elimination on every set of people."""
    count, people = earlier.shape
    best = people + 1
    for kept in range(people + 1):
        for zero in itertools.combinations(range(people), people - kept):
            rows = [[Fraction(int(e[p])) for e in earlier] + [Fraction(-int(now[p]))] for p in zero]
            if _solvable(rows, count):
                return kept
    return best


def _solvable(rows: list[list[Fraction]], unknowns: int) -> bool:
    at = 0
    for column in range(unknowns):
        pivot = next((r for r in range(at, len(rows)) if rows[r][column]), None)
        if pivot is None:
            continue
        rows[at], rows[pivot] = rows[pivot], rows[at]
        rows[at] = [value / rows[at][column] for value in rows[at]]
        for r in range(len(rows)):
            if r != at and rows[r][column]:
                rows[r] = [a - rows[r][column] * b for a, b in zip(rows[r], rows[at], strict=True)]
        at += 1
    return not any(row[-1] for row in rows[at:])


def test_every_refusal_is_a_real_combination_and_few_are_missed() -> None:
    """Against rational elimination on every subset of eight people; seeds make this the same in every run."""
    rng = np.random.default_rng(3)
    found = real = 0
    for _ in range(100):
        count = int(rng.integers(2, 5))
        crowds = rng.random((count + 1, 8)) < 0.7
        least = int(rng.integers(2, 5))
        now, earlier = crowds[-1], crowds[:-1]
        if any(np.array_equal(now, e) for e in earlier):
            continue
        told = fewest(now.astype(int), earlier.astype(int))
        pair = any(0 < (now ^ e).sum() < least and (now & e).any() for e in earlier)
        refused = singles_out(bits(now)[0], bits(*earlier), least)
        assert not refused or pair or 0 < told < least
        real += pair or 0 < told < least
        found += refused
    assert real > 40
    assert found == real


def test_a_triple_that_leaves_one_person_is_found_among_many() -> None:
    rng = np.random.default_rng(4)
    crowds = rng.random((12, 5000)) < 0.9
    alone = crowds[2].astype(int) - crowds[5] + crowds[9]
    fit = (alone == 0) | (alone == 1)
    crowds, alone = crowds[:, fit], alone[fit]
    target = alone.astype(bool)
    assert not singles_out(bits(target)[0], bits(*crowds), 20), "it follows from the others, and tells nothing new"
    target[11] ^= True
    assert singles_out(bits(target)[0], bits(*crowds), 20)
    target[rng.choice(len(target), 60, replace=False)] ^= True
    assert not singles_out(bits(target)[0], bits(*crowds), 20)


# -- optional columns: who lacks a value is a cell of the answer -------------------------------------------------------

TABLE = Question("table", TableOne(("trait", "high"), quantiles=()))
BY_SEX = Question("by_sex", TableOne(("trait",), by="sex", quantiles=()))
TRAIT = Question("trait", Histogram("trait"))
TABLES = study(TABLE, BY_SEX, TRAIT, COUNTS)


def test_few_people_without_an_optional_value_do_not_make_a_node_refuse(make_tiny: Make) -> None:
    tiny = make_tiny(edit=lambda data: blank(data, [3, 4]))
    assert ask(tiny, "table", TABLES) is None
    assert ask(tiny, "counts", TABLES) is None, "about the same people"
    assert ask(tiny, "table", TABLES) is None
    names = tiny.gates[SITE].ledger.crowds()
    assert sorted("-" in name for name in names) == [False, True], "everybody, and those who have the trait"


def test_a_part_is_held_against_what_was_asked_of_other_people(make_tiny: Make) -> None:
    """Everybody but two has a trait, everybody but two others a sex: sums of the trait of both would tell of few."""

    def edit(data: Path) -> None:
        blank(data, [3, 4])
        table = data / SITE / "people.tsv"
        head, *lines = table.read_text().splitlines()
        at = head.split("\t").index("sex")
        cells = [line.split("\t") for line in lines]
        for number in (8, 9):
            cells[number][at] = "NA"
        table.write_text("\n".join([head, *("\t".join(c) for c in cells)]) + "\n")

    for first, second in (("table", "trait"), ("trait", "table"), ("by_sex", "trait"), ("table", "by_sex")):
        tiny = make_tiny(edit=edit)
        assert ask(tiny, first, TABLES) is None
        assert ask(tiny, second, TABLES) is Reason.OVERLAP, (first, second)


def test_parts_are_compared_where_the_crowds_themselves_are_far_apart(make_tiny: Make) -> None:
    """Ten of 30 have no sex, so the crowds are far apart; of these all but two lack the trait, too."""
    left = range(20, 30)

    def edit(data: Path) -> None:
        blank(data, [n for n in left if n not in (20, 21)])
        table = data / SITE / "people.tsv"
        head, *lines = table.read_text().splitlines()
        at = head.split("\t").index("sex")
        cells = [line.split("\t") for line in lines]
        for number in left:
            cells[number][at] = "NA"
        table.write_text("\n".join([head, *("\t".join(c) for c in cells)]) + "\n")

    for first, second in (("table", "by_sex"), ("by_sex", "table")):
        tiny = make_tiny(edit=edit, minimum_people=5)
        assert ask(tiny, first, TABLES) is None
        assert ask(tiny, second, TABLES) is Reason.OVERLAP, "the trait of two would be the difference"

"""What one question, or one study, may make a node read and walk through."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest

import fl_client.readers.omop
import fl_client.selection
from fl_client.readers.events import Events
from fl_client.selection import Records
from simulations.omop import Cdm
from strategies.analyses.attrition import Attrition, NoisedAttrition
from strategies.analysis import NAMES_COLUMN, PROJECTED, Range
from strategies.errors import DataError, UsageError
from strategies.events import Code, Domain
from strategies.expressions import MOST_CODES
from strategies.grammar import selection_of
from strategies.privacy import Budget
from strategies.question import Question
from strategies.reasons import Reason
from strategies.selection import Event
from strategies.study import Study
from strategies.wire import Opened, Refused
from tests.references.test_sources import opened
from tests.tiny import COUNTS, NAMES, Tiny, people_of, study

Make = Callable[..., Tiny]


# -- codes and events ------------------------------------------------------------------------------------------------


def of_codes(number: int) -> Study:
    """A study whose cohort and column name so many different codes, each code of the column twice."""
    first, *others = ("|".join(f"ICD10:{n}" for n in range(at, min(at + 150, number))) for at in range(0, number, 150))
    cohorts = {"coded": selection_of({"where": [f"any condition {codes}" for codes in others]}, "a test")}
    columns = {
        name: Range.from_plain({"value": f"whether any condition {first}"}, "a test") for name in ("one", "other")
    }
    return study(COUNTS, cohorts=cohorts, columns=columns)


def test_a_study_names_so_many_codes_and_no_more() -> None:
    made = of_codes(MOST_CODES)
    panels = {name: panel.encode() for name, panel in made.panels.items()}
    assert Study.from_document(made.document, panels).digest == made.digest
    with pytest.raises(UsageError) as error:
        Study.from_document(of_codes(MOST_CODES + 1).document, panels)
    assert (
        error.value.rule
        == f"the study: a study's cohorts and derived columns name at most {MOST_CODES:,} different codes."
    )
    assert error.value.found == f"{MOST_CODES + 1:,}"
    assert "with +" in error.value.remedy


def test_a_node_reads_so_many_events_of_a_kind_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Cdm.of(200, seed=5).write_duckdb(tmp_path / "cdm.duckdb", "cdm54")
    clinical = opened(tmp_path, omop="cdm.duckdb", schema="cdm54").clinical
    assert clinical is not None
    there = len(clinical.events(Domain.VISIT, ()))
    monkeypatch.setattr(fl_client.readers.omop, "MOST_EVENTS", there)
    assert len(clinical.events(Domain.VISIT, ())) == there
    monkeypatch.setattr(fl_client.readers.omop, "MOST_EVENTS", there - 3)
    asked = list[int]()
    real = type(clinical.store).rows  # type: ignore[attr-defined]

    def counted(store: object, statement: object) -> tuple[np.ndarray, ...]:
        found: tuple[np.ndarray, ...] = real(store, statement)
        asked.append(len(found[0]))
        return found

    monkeypatch.setattr(type(clinical.store), "rows", counted)  # type: ignore[attr-defined]
    with pytest.raises(DataError) as error:
        clinical.events(Domain.VISIT, ())
    assert asked == [there - 2], "no more rows come than are needed to know"
    assert "no code is named" in error.value.found
    assert error.value.remedy
    monkeypatch.setattr(fl_client.readers.omop, "MOST_EVENTS", 0)
    with pytest.raises(DataError, match="of 1 codes"):
        clinical.events(Domain.VISIT, (Code("Visit", "OP"),))


def test_events_of_many_kinds_are_not_all_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    kept, each = list[int](), 30

    class Source:
        def events(self, domain: Domain, codes: object) -> Events:
            return Events(np.zeros(each, np.int64), np.zeros(each, np.int64), np.zeros(each), ("",) * each)

    monkeypatch.setattr(fl_client.selection, "MOST_EVENTS", 100)
    everybody = np.ones(1, dtype=bool)
    records = Records(1, {}, MappingProxyType({}), everybody, Source())  # type: ignore[arg-type]
    for n in range(40):
        assert len(records.events(Event(Domain.CONDITION, (Code("ICD10", str(n)),)))) == each
        kept.append(sum(map(len, records.known.values())))
    assert max(kept) <= 100
    assert records.events(Event(Domain.CONDITION, (Code("ICD10", "39"),))) is not None


@pytest.mark.parametrize("where", ["any condition SNOMED:1+", "age at (first condition SNOMED:1+) >= 0"])
def test_what_a_source_cannot_answer_is_refused_before_anything_is_charged_or_read(
    make_tiny: Make, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """A table of events has no hierarchy of codes."""

    def edit(data: Path) -> None:
        for site in NAMES:
            rows = [f"{person}\tcondition\tSNOMED:1\t2020-01-02\t\t" for person in people_of(site)]
            (data / site / "events.tsv").write_text("\n".join(["person\tdomain\tcode\tdate\tvalue\tunit", *rows, ""]))

    tiny = make_tiny(
        edit, datasets={site: {"events": f"{site}/events.tsv"} for site in NAMES}, events=["condition"],
        minimum_people=5,
    )  # fmt: skip
    cohorts = {
        "below": selection_of({"where": where}, "a test"),
        "itself": selection_of({"where": "any condition SNOMED:1"}, "a test"),
    }
    questions = [
        Question("private", NoisedAttrition(), Budget(1.0, 1e-5), by_site=True, cohort="below"),
        Question("exact", Attrition(), cohort="below"),
        Question("known", NoisedAttrition(), Budget(1.0, 1e-5), by_site=True, cohort="itself"),
    ]
    pen, gate = tiny.pen(study(*questions, cohorts=cohorts)).open(), tiny.gates["AT"]
    read = list[object]()
    assert gate.dataset is not None
    real = type(gate.dataset.clinical).events
    monkeypatch.setattr(type(gate.dataset.clinical), "events", lambda *a: read.append(a) or real(*a))
    said = tiny.read("AT", pen.certificates["AT"]).header
    assert isinstance(said, Opened)
    assert said.refuses == dict.fromkeys(("private", "exact"), Reason.DATASET_UNAVAILABLE)
    reply = tiny.read("AT", gate.answer(pen.ask("private"))).header
    assert isinstance(reply, Refused)
    assert reply.reason is Reason.DATASET_UNAVAILABLE
    assert gate.ledger.spent().rho == 0
    assert read == []
    assert not isinstance(tiny.read("AT", gate.answer(pen.ask("known"))).header, Refused)
    assert gate.ledger.spent().rho > 0
    assert read != []


# -- questions that read one another's columns -------------------------------------------------------------------------


@dataclass(frozen=True)
class Reading:
    """An analysis that reads columns, as far as a study looks."""

    columns: tuple[str, ...] = field(metadata=NAMES_COLUMN)


def test_what_a_question_follows_from_is_walked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forty questions, each of which reads columns of the two before: 10^8 paths lead from the last to the first."""
    questions = tuple(
        Question(f"q{n}", Reading(tuple(f"q{m}.one" for m in (n - 1, n - 2) if m >= 0)))  # type: ignore[arg-type]
        for n in range(40)
    )
    made, walked, real = study(*questions, columns={"one": PROJECTED}), list[str](), Study.sources

    def counted(self: Study, question: Question) -> tuple[Question, ...]:
        walked.append(question.name)
        if len(walked) > 1000:
            raise AssertionError("walked without end")
        return real(self, question)

    monkeypatch.setattr(Study, "sources", counted)
    assert [q.name for q in made.all_sources(questions[-1])] == [f"q{n}" for n in range(39)]
    assert sorted(walked) == sorted(f"q{n}" for n in range(40)), "each once"

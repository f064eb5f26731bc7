"""What a study would mean here, in plain words: who is looked for, what is read, what would leave, and yes or no.

The same `Gate.objection` decides as when the study arrives. Nothing is sent, reserved or recorded, and of the data no
more is read than the objection needs: in the exact regime, how many people a cohort has.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fl_client.gate import Gate
from fl_client.ledger import VETO_FILE
from fl_client.selection import reads_genotypes
from fl_client.splits import ways
from strategies.analysis import PASSED, names_of
from strategies.question import Question
from strategies.reasons import MEANING, Reason
from strategies.selection import reads
from strategies.study import Study
from strategies.summary import Field
from strategies.wording import steps_told, told

Line = tuple[str, str]
"""What a line is about, and the line; nothing for one that continues."""


@dataclass(frozen=True)
class Explained:
    """A question in plain words, and why this node would refuse it; None if it would answer."""

    question: str
    lines: tuple[Line, ...]
    refused: Reason | None


def explained(gate: Gate, study: Study, coordinator: str) -> tuple[Explained, ...]:
    """Each question of a study, as it would be met here if that coordinator asked it."""
    return tuple(_question(gate, study, question, coordinator) for question in study.questions)


def _question(gate: Gate, study: Study, question: Question, coordinator: str) -> Explained:
    vetoed = (gate.ledger.folder / VETO_FILE).exists()
    objection = (Reason.VETOED, {}) if vetoed else gate.objection(coordinator, study, question)
    lines = [
        ("question", f"{question.name}: {question.analysis.analysis}, {question.regime.value}"),
        *_titled("who", _who(study, question)),
        *_titled("reads", _reads(study, question)),
        *_titled("leaves", _leaves(study, question)),
        *_titled("terms", _terms(gate, study, question)),
    ]
    if objection is None:
        return Explained(question.name, (*lines, ("answer", f"would be given to {coordinator}")), None)
    rule, remedy = MEANING[objection[0]]
    numbers = "".join(f"; {name} = {value:g}" for name, value in objection[1].items())
    answer = (("answer", f"refused to {coordinator}: {objection[0].value}{numbers}"), ("", f"{rule} Remedy: {remedy}."))
    return Explained(question.name, (*lines, *answer), objection[0])


def _titled(title: str, texts: Iterator[str]) -> Iterator[Line]:
    for number, text in enumerate(texts):
        yield title if number == 0 else "", text


def _who(study: Study, question: Question) -> Iterator[str]:
    selection = study.selection(question)
    everybody = PASSED in question.analysis.needs().columns
    if selection is None:
        yield "everybody in the data set"
    else:
        yield "everybody, by how many of these steps they pass:" if everybody else f"the cohort {question.cohort}, who"
        yield from (f"{number}. {step}" for number, step in enumerate(steps_told(selection), start=1))
    if reads_genotypes(study, question):
        yield "of them, those who have genotypes"
    if names_of(question.analysis, "column"):
        yield "of them, as the analysis asks, those who have a value in the columns that it reads"


def _reads(study: Study, question: Question) -> Iterator[str]:
    selection, derived = study.selection(question), study.derived(question)
    for name in study.read_from_table(question):
        yield f"column {name}: {study.columns[name]}"
    for name, column in derived.items():
        assert column.value is not None
        yield f"derived column {name}: {told(column.value)}; {column}"
    for name in names_of(question.analysis, "column"):
        if "." in name:
            yield f"column {name}, which this node computes from the answer of {name.split('.')[0]}"
    for name in names_of(question.analysis, "panel"):
        yield f"genotypes of {len(study.panels[name]):,} variants, panel {name}"
    whom, what = selection.reads if selection else reads(), study.derived_reads(question)
    for purpose, one in (("find the cohort", whom), ("derive columns", what)):
        yield from (f"events, to {purpose}: {told(event)}" for event in sorted(one.events, key=str))
        if one.dates:
            yield f"dates of people, to {purpose}"
    if not (study.read_from_table(question) or derived or names_of(question.analysis, "panel") or whom.events):
        yield "nothing but that people are there"


def _leaves(study: Study, question: Question) -> Iterator[str]:
    analysis, frame = question.analysis, study.frame(question)
    yield analysis.summary_in_words
    cut = analysis.slices(frame)
    for name, field in analysis.leaves(frame).items():
        yield f"{name}: {_shape(field)}: {field.unit}"
    for way in ways(analysis, frame):
        at = f"{len(way.points)} points" if len(way.points) > 1 else "one point"
        yield f"{way.name} is cut at {at}: who lies on each side is held against earlier answers"
    rounds = f"at most {analysis.rounds()} rounds" if analysis.rounds() > 1 else "one round"
    slices = f", the first in {len(cut):,} slices" if len(cut) > 1 else ""
    where = "this site's part alone" if question.by_site else "a part that only the sum over the sites shows"
    yield f"{rounds}{slices}; {where}"


def _shape(field: Field) -> str:
    return "one number" if field.size == 1 else f"{' by '.join(f'{n:,}' for n in field.shape)} numbers"


def _terms(gate: Gate, study: Study, question: Question) -> Iterator[str]:
    policy = gate.policy
    if question.budget is None:
        cells = max(gate.minimum_cell, study.minimum_cell)
        people = f"refused below {policy.minimum_people} people here"
        yield f"exact: {people}, cells of fewer than {cells} withheld" if cells else f"exact: {people}"
        if question.summed:
            yield f"in sums of at least {max(policy.minimum_sites, study.minimum_sites)} sites"
        return
    budget, left = question.budget, max(0.0, policy.budget.loss.rho - gate.ledger.spent().rho)
    yield f"private: {budget}, rho {budget.loss.rho:.6f} of the {left:.6f} that are left"
    if question.shares_noise:
        yield f"noise shared, and {question.honest_sites} sites taken to keep theirs to themselves"

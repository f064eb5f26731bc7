"""In the private regime nothing about the data refuses; in the exact regime what a node can see does."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from strategies.analysis import PASSED, Analysis, Total, names_of
from strategies.catalogue import CATALOGUE
from strategies.grammar import selection_of
from strategies.privacy import Budget, Regime
from strategies.question import Question
from strategies.reasons import Reason
from strategies.study import Study
from strategies.wire import Answered
from tests.laws.zoo import PARAMETERS, changes, first
from tests.tiny import COLUMNS, COUNTS, LINEAR, NAMES, PANEL, PEOPLE, VARIANTS, Tiny, study, write_site, write_sites

SITE = "AT"


def three_people(data: Path) -> None:
    write_site(data, SITE, people=3)


def one_person(data: Path) -> None:
    write_site(data, SITE, in_table=1)


def nobody(data: Path) -> None:
    write_site(data, SITE, in_table=0)


def nothing_observed(data: Path) -> None:
    write_site(data, SITE, codes=np.full((VARIANTS, PEOPLE), 3, dtype=np.uint8))
    table = data / SITE / "people.tsv"
    header, *lines = table.read_text().splitlines()
    empty = [line.split("\t")[0] + "\t" * header.count("\t") for line in lines]
    table.write_text("\n".join([header, *empty]) + "\n")


def no_such_variant(data: Path) -> None:
    bim = data / SITE / "genotypes.bim"
    bim.write_text(bim.read_text().replace("22\t", "21\t"))


def everybody_writes(data: Path, *cells: str) -> None:
    table = data / SITE / "people.tsv"
    header, *lines = table.read_text().splitlines()
    table.write_text("\n".join([header, *("\t".join([line.split("\t")[0], *cells]) for line in lines)]) + "\n")


def beyond_the_ranges(data: Path) -> None:
    everybody_writes(data, "1e300", "-1e300", "1e300")


def a_word_in_one_cell(data: Path) -> None:
    table = data / SITE / "people.tsv"
    header, first, *lines = table.read_text().splitlines()
    spoilt = first.rsplit("\t", 1)[0] + "\tabc"
    table.write_text("\n".join([header, spoilt, *lines]) + "\n")


def words_for_numbers(data: Path) -> None:
    everybody_writes(data, "tall", "f", "-")


def infinities_and_nans(data: Path) -> None:
    everybody_writes(data, "inf", "nan", "-inf")


def everybody_alike(data: Path) -> None:
    write_site(data, SITE, codes=np.full((VARIANTS, PEOPLE), 2, dtype=np.uint8))
    everybody_writes(data, "4", "2", "1")


EDITS = [
    a_word_in_one_cell,
    words_for_numbers,
    infinities_and_nans,
    beyond_the_ranges,
    everybody_alike,
    three_people,
    one_person,
    nobody,
    nothing_observed,
    no_such_variant,
]


def every_private_question() -> Study:
    """Each private analysis of the catalogue, and each of its changes that the laws know, over the tiny columns; where
    by site, about a cohort, whoever is in it."""
    questions = []
    here = {"covariates": ("sex",), "steps": 2, "averaged": 1, "variables": ("sex",), "variable": "sex",
            "row": "sex", "column": "high", "columns": ("trait", "high"), "time": "sex", "event": "high"}  # fmt: skip
    for page in CATALOGUE:
        for number, change in enumerate(changes(page) if page.regime is Regime.PRIVATE else []):
            fitting = {k: v for k, v in here.items() if k in {f.name for f in fields(page)}}  # type: ignore[arg-type]
            analysis = first(page, fitting | change)
            if "ends" in change or not {*names_of(analysis, "column")} <= {*COLUMNS}:
                continue  # about times and columns that the tiny sites have not
            cohort = "some" if PASSED in analysis.needs().columns else ""
            one = Question(f"{page.__name__}_{number}", analysis, Budget(0.3, 1e-5), cohort=cohort)
            apart = replace(one, name=f"{one.name}_by_site", by_site=True, cohort="some")
            questions += [one, apart] if page.by_site else [one]
    cohorts = {"some": selection_of({"where": ["trait >= 0", "not sex is missing"]}, "some")}
    return study(*questions, panels={PARAMETERS["panel"]: PANEL}, cohorts=cohorts)


def reply_lengths(tiny: Tiny) -> list[tuple[str, int, int]]:
    """Question, round and length of each reply of one site to every private question, each asked to its end."""
    asked, gate, out = every_private_question(), tiny.gates[SITE], []
    pen = tiny.pen(asked).open()
    for question in asked.questions:
        frame, analysis, earlier = asked.frame(question), question.analysis, []
        while isinstance(analysis, Analysis):
            reply = gate.answer(pen.ask(question.name, analysis=analysis, earlier=earlier))
            assert isinstance(tiny.read(SITE, reply).header, Answered), tiny.read(SITE, reply).header
            out.append((question.name, len(earlier) + 1, len(reply)))
            total = {name: np.full(f.shape, 3, dtype=np.int64) for name, f in analysis.leaves(frame).items()}
            earlier.append(total)
            analysis = analysis.conclude(Total(total, NAMES), frame)
    assert not [line for line in gate.ledger.journal() if line["event"] == "refuse"]
    return out


@pytest.fixture(scope="module")
def usual_lengths(tiny_files: Path, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, int, int]]:
    folder = tmp_path_factory.mktemp("usual")
    shutil.copytree(tiny_files, folder / "data")
    tiny = Tiny.of(write_sites(folder / "data"), folder / "nodes")
    lengths = reply_lengths(tiny)
    tiny.close()
    return lengths


@pytest.mark.parametrize("edit", EDITS, ids=[e.__name__ for e in EDITS])
def test_every_private_question_is_answered_at_the_same_length_whatever_the_data_are(
    make_tiny: Callable[..., Tiny], edit: Callable[[Path], None], usual_lengths: list[tuple[str, int, int]]
) -> None:
    """As many replies, as long: neither a refusal nor a size tells anything about anybody."""
    assert reply_lengths(make_tiny(edit=edit)) == usual_lengths


@pytest.mark.parametrize("edit", [three_people, one_person, nobody], ids=["three", "one", "nobody"])
def test_an_exact_question_is_answered_without_a_site_of_too_few_people(
    make_tiny: Callable[..., Tiny], quick_path: Path, edit: Callable[[Path], None]
) -> None:
    tiny = make_tiny(edit=edit)
    for result in tiny.conductor(study(COUNTS, LINEAR), quick_path / "run").run():
        assert result.statement.sites == ("BE", "CY", "DK")
        assert result.statement.absent == {SITE: f"refused: {Reason.TOO_FEW_PEOPLE}"}


def two_with_a_trait(data: Path) -> None:
    table = data / SITE / "people.tsv"
    header, *lines = table.read_text().splitlines()
    at = header.split("\t").index("trait")
    rows = [line.split("\t") for line in lines]
    for row in rows[2:]:
        row[at] = ""
    table.write_text("\n".join([header, *("\t".join(row) for row in rows)]) + "\n")


def test_people_without_the_columns_do_not_count(make_tiny: Callable[..., Tiny], quick_path: Path) -> None:
    (linear,) = make_tiny(edit=two_with_a_trait).conductor(study(LINEAR), quick_path / "run").run()
    assert linear.statement.sites == ("BE", "CY", "DK")
    assert linear.statement.absent == {SITE: f"refused: {Reason.TOO_FEW_PEOPLE}"}


def test_the_number_of_people_leaves_in_no_refusal(make_tiny: Callable[..., Tiny]) -> None:
    """A policy's minimum is public; that 3 or 4 people are below it must not be told apart."""
    public = []
    for people in (3, 4):
        tiny = make_tiny(edit=lambda data, n=people: write_site(data, SITE, people=n))
        pen = tiny.pen(study(COUNTS)).open()
        header = tiny.read(SITE, tiny.gates[SITE].answer(pen.ask("counts"))).header
        public.append((header.reason, header.public))
    assert public[0] == public[1] == (Reason.TOO_FEW_PEOPLE, {"minimum_people": 20})

"""In the private regime nothing about the data refuses; in the exact regime what a node can see does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from strategies.wire import Reason
from tests.tiny import COUNTS, FREQUENCIES, LINEAR, NAMES, PEOPLE, TRAINING, VARIANTS, Tiny, study, write_site

SITE = "AT"
ASKED = study(FREQUENCIES, TRAINING)


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


def beyond_the_ranges(data: Path) -> None:
    table = data / SITE / "people.tsv"
    header, *lines = table.read_text().splitlines()
    table.write_text("\n".join([header, *(f"{line.split(chr(9))[0]}\t1e300\t-1e300\t1e300" for line in lines)]) + "\n")


def a_word_in_one_cell(data: Path) -> None:
    table = data / SITE / "people.tsv"
    header, first, *lines = table.read_text().splitlines()
    spoilt = first.rsplit("\t", 1)[0] + "\tabc"
    table.write_text("\n".join([header, spoilt, *lines]) + "\n")


EDITS = [a_word_in_one_cell, three_people, one_person, nobody, nothing_observed, no_such_variant, beyond_the_ranges]


@pytest.mark.parametrize("edit", EDITS, ids=[e.__name__ for e in EDITS])
def test_a_private_question_is_answered_whatever_the_data_are(
    make_tiny: Callable[..., Tiny], quick_path: Path, edit: Callable[[Path], None]
) -> None:
    tiny = make_tiny(edit=edit)
    for result in tiny.conductor(ASKED, quick_path / "run").run():
        assert result.statement.sites == NAMES
        assert result.statement.absent == {}


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

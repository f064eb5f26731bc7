"""Scoring files: what a panel is made of, what is set aside and counted, what is refused, and how a site matches it."""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fl_client.readers.index import Entries
from fl_client.readers.matching import match
from fl_server.planning.forecast import Assumed, plan
from fl_server.planning.text import lines as lines_of
from strategies.analyses.polygenic_score import PolygenicScore
from strategies.analysis import Total
from strategies.errors import UsageError
from strategies.question import Question
from strategies.study import Study
from strategies.variants import How, Panel, Variant
from tests.laws.zoo import add, cohort
from tests.tiny import study

HEAD = "###PGS CATALOG SCORING FILE\n#format_version=2.0\n#pgs_id=PGS000000\n#genome_build={build}\n"
COLUMNS = "rsID\tchr_name\tchr_position\teffect_allele\tother_allele\teffect_weight"


def file(folder: Path, *lines: str, columns: str = COLUMNS, build: str = "GRCh37", extra: str = "") -> Path:
    path = folder / "PGS000000.txt.gz"
    body = HEAD.format(build=build) + extra + "\n".join((columns, *lines)) + "\n"
    path.write_bytes(gzip.compress(body.encode()))
    return path


def test_the_effect_allele_is_what_a_panel_counts(tmp_path: Path) -> None:
    more = COLUMNS + "\tallelefrequency_effect"
    panel = Panel.read(
        file(tmp_path, "rs1\t22\t100\tG\tA\t-0.25\t0.3", "\tchr1\t7\tT\tTC\t1e-3\t", columns=more), "GRCh37"
    )
    assert panel.variants == (
        Variant("22", 100, "rs1", "A", "G", 0.3, None, -0.25),
        Variant("1", 7, ".", "TC", "T", None, None, 0.001),
    )
    assert not panel.oriented
    again = Panel.decode(panel.encode(), "GRCh37", "the wire")
    assert again == panel
    assert again.weights.tolist() == [-0.25, 0.001]


HARMONISED = COLUMNS + "\ths_note\thm_chr\thm_pos\thm_inferOtherAllele"


def test_harmonised_positions_are_taken_in_their_build(tmp_path: Path) -> None:
    lines = "rs1\t22\t100\tG\t\t0.5\t\t22\t200\tA", "rs2\t22\t101\tG\t\t0.5\t\t22\t201\tA/T"
    path = file(tmp_path, *lines, columns=HARMONISED, extra="#HmPOS_build=GRCh38\n")
    for assembly, position in (("GRCh37", 100), ("GRCh38", 200)):
        panel = Panel.read(path, assembly)
        assert [(v.position, v.reference) for v in panel.variants] == [(position, "A")]
        assert dict(panel.set_aside) == {"several other alleles": 1}


EVERY = COLUMNS + "\tis_haplotype\tis_diplotype\tis_interaction\tis_dominant\tis_recessive\tdosage_1_weight"


def test_lines_that_do_not_add_are_set_aside_and_counted(tmp_path: Path) -> None:
    flags = ["haplotype", "diplotype", "interaction", "dominant", "recessive"]
    lines = ["rs0\t1\t1\tG\tA\t0.5"]
    for number, flag in enumerate(flags):
        cells = ["True" if name == flag else "False" for name in flags]
        lines.append(f"rs{number}\t1\t{10 + number}\tG\tA\t0.5\t" + "\t".join(cells))
    lines += [
        "rs6\t1\t20\tG\tA\t0.5" + "\tFalse" * 5 + "\t0.1",
        "rs7\t1\t21\tG\t\t0.5",
        "rs8\t1\t22\tDRB1*15:01\tA\t0.5",
        "rs9\tX\t23\tG\tA\t0.5",
        "rs10\tHLA\t24\tG\tA\t0.5",
        "rs11\t1\t\tG\tA\t0.5",
        "rs12\t1\t25\tG\tA\tnan",
        "rs13\t1\t26\tG\tA\t",
    ]
    panel = Panel.read(file(tmp_path, *lines, columns=EVERY), "GRCh37")
    assert [str(v) for v in panel.variants] == ["1:1:A:G"]
    assert dict(panel.set_aside) == {
        **dict.fromkeys(flags, 1),
        "a weight for each dosage": 1,
        "no other allele": 1,
        "alleles that are no sequences": 1,
        "not on an autosome": 1,
        "no position": 2,
        "no weight": 2,
    }
    told = " ".join("\n".join(lines_of(plan(asked(panel), {}, Assumed()))).split())
    assert "1 variants of panel panel (lines set aside: 1 a weight for each dosage," in told
    people = cohort(40, 1, 3)
    question = PolygenicScore("panel")
    frame = asked(panel).frame(Question("prs", question))
    sites = ("a", "b", "c")
    second = question.conclude(Total(add([question.summarise(people, frame)] * 3), sites), frame)
    answer = second.conclude(Total(add([second.summarise(people, frame)] * 3), sites), frame)  # type: ignore[union-attr]
    assert "2 no weight" in answer.facts["lines_set_aside"]  # type: ignore[union-attr]


def asked(panel: Panel) -> Study:
    return replace(study(Question("prs", PolygenicScore("panel"))), panels={"panel": panel})


@pytest.mark.parametrize(
    ("lines", "change", "rule"),
    [
        (["rs1\t1\t5\tG\tA\t0.5", "rs2\t1\t5\tG\tA\t0.1"], {}, "distinct"),
        (["rs1\t1\t5\tG\tA\t0.5"], {"build": "GRCh38"}, "the study's assembly"),
        (["rs1\t1\t5\tG\tA\t0.5"], {"build": "NCBI36"}, "the study's assembly"),
        (["rs1\t1\t5\tG\tA\t0.5\t1\t2"], {}, "a cell for each column"),
        (["rs1\t1\t5\tG\t\t0.5"], {}, "add a weight for each copy"),
        ([], {}, "add a weight for each copy"),
        (["rs1\t0.5"], {"columns": "rsID\teffect_weight"}, "names of its columns"),
        (["rs1\t1\t5\tG\tA\t0.5"], {"columns": COLUMNS.replace("chr_position", "position")}, "the study's assembly"),
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path: Path, lines: list[str], change: dict[str, str], rule: str) -> None:
    with pytest.raises(UsageError, match=rule) as caught:
        Panel.read(file(tmp_path, *lines, **change), "GRCh37")
    assert "PGS000000.txt.gz" in caught.value.found


def test_a_score_needs_a_panel_with_weights() -> None:
    document = study(Question("prs", PolygenicScore("panel"))).document
    panel = study().panels["panel"]
    with pytest.raises(UsageError, match="states WEIGHT"):
        Study.from_document(document, {"panel": panel.encode()})


def test_a_palindromic_variant_matches_either_way_round_where_the_panel_knows_no_reference() -> None:
    entries = Entries("site")
    for row, (position, reference, alternate) in enumerate([(10, "T", "A"), (20, "A", "G"), (30, "C", "T")]):
        entries.enter(row, row, "22", str(position), reference, alternate)
    index = entries.index()
    variants = tuple(
        Variant("22", p, ".", r, a, weight=1.0) for p, r, a in [(10, "A", "T"), (20, "G", "A"), (30, "G", "A")]
    )
    for oriented, first in ((True, How.ABSENT), (False, How.SWAPPED)):
        found = match(Panel("GRCh37", variants, oriented=oriented), "GRCh37", index, None, None)
        assert found.how.tolist() == [first, How.SWAPPED, How.FLIPPED]
        assert found.swapped.tolist() == [not oriented, True, False]
        np.testing.assert_array_equal(found.rows, [-1 if oriented else 0, 1, 2])

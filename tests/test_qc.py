"""`fl-client qc`: who is found, what is written and where, and that nothing that a node serves changes by it."""

from __future__ import annotations

import hashlib
import json
import re
import stat
import statistics
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w

from fl_client import cli
from fl_client.policy import NodeConfig
from fl_client.qc import genotypes, kinship
from fl_client.qc.genotypes import Variants
from fl_client.qc.measures import Measures, measure, sex_of
from fl_client.qc.report import Report
from fl_client.qc.thresholds import Thresholds
from fl_client.qc.verdict import Reason
from fl_client.readers import Dataset
from fl_client.readers.calls import Calls
from fl_client.readers.index import Index
from tests import pedigrees
from tests.pedigrees import FEMALE, MALE, identifiers

Said = pytest.CaptureFixture[str]

PEOPLE = 240
SEXES = np.where(np.arange(PEOPLE) % 2 == 0, MALE, FEMALE)
CHILDREN = {20: (0, 1), 21: (0, 3), 22: (4, 5), 23: (22, 7)}
PANEL = pedigrees.panel(5500, 300)
AUTOSOMAL = np.array([v.chromosome != "X" for v in PANEL.variants])

SWAPPED, UNCALLED, MIXED, TWIN, UNTOLD = 30, 31, 32, 34, 36
"""A man told as a woman, poorly called, of two people's DNA, a man with the sample of 35, and a man of no told sex."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site with everything that quality control looks for, once."""
    rng = np.random.default_rng(14)
    codes = pedigrees.founders(PANEL, SEXES, rng)
    pedigrees.drop(PANEL, codes, SEXES, CHILDREN, rng)
    both = rng.random(len(codes)) < 0.5
    codes[both & AUTOSOMAL, MIXED] = 1
    codes[:, TWIN] = codes[:, 35]
    codes = pedigrees.unobserved(codes, 0.01, rng)
    codes[rng.random(len(codes)) < 0.06, UNCALLED] = 3
    told = SEXES.copy()
    told[SWAPPED], told[UNTOLD] = FEMALE, 0
    home = tmp_path_factory.mktemp("site")
    pedigrees.site(home, PANEL, codes, told)
    return home


@pytest.fixture(scope="module")
def data(folder: Path) -> Dataset:
    return Dataset.open(pedigrees.config(), folder)


@pytest.fixture(scope="module")
def report(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Report:
    return Report.of(data, (), Thresholds(), "sex", tmp_path_factory.mktemp("scratch"))


@pytest.fixture(scope="module")
def written(report: Report, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return report.write(tmp_path_factory.mktemp("node") / "qc")


@pytest.fixture
def node(folder: Path, tmp_path: Path, capsys: Said) -> Path:
    """A node's file over that site."""
    words = ["init", str(tmp_path / "FI"), "--name", "FI", "--country", "FI", "--dataset", "PEDIGREE"]
    words += ["--people", str(folder / "people.tsv"), "--genotypes", str(folder / "g.bed"), "--assembly", "GRCh37"]
    assert cli.main([*words, "--synthetic"]) == 0
    capsys.readouterr()
    return tmp_path / "FI/node.toml"


def edit(node: Path, **dataset: object) -> None:
    document = tomllib.loads(node.read_text())
    document["dataset"] |= dataset
    node.write_text(tomli_w.dumps(document))


def out_for(report: Report, reason: Reason) -> set[int]:
    return set(np.flatnonzero(report.verdict.reasons[reason]).tolist())


# -- who is found -----------------------------------------------------------------------------------------------------


def test_everybody_is_found_and_nobody_else(report: Report) -> None:
    assert out_for(report, Reason.CALL_RATE) == {UNCALLED}
    assert out_for(report, Reason.SEX) == {SWAPPED, TWIN}, "the man whose sample is a woman's, too"
    assert MIXED in out_for(report, Reason.HETEROZYGOSITY)
    assert len(out_for(report, Reason.HETEROZYGOSITY)) <= 3, "3 in 1,000 of a bell curve lie outside"
    assert out_for(report, Reason.RELATED) == {20, 21, 22, 23}, "of each family three are no relatives: the founders"
    assert report.verdict.families == (5, 5, 2)


def test_who_goes_anyway_costs_no_relative_their_place(report: Report) -> None:
    """The twin goes for the wrong sex; 35, who is the same person, stays."""
    assert report.relatives is not None
    pairs = set(zip(report.relatives.first.tolist(), report.relatives.second.tolist(), strict=True))
    assert (TWIN, 35) in pairs
    assert not report.verdict.out[35]


def test_a_threshold_is_met_by_who_is_on_it(data: Dataset, report: Report, tmp_path: Path) -> None:
    rates = report.measures.call_rates
    middle = float(np.sort(rates)[PEOPLE // 2])
    moved = Report.of(data, (), Thresholds(person_call_rate=middle), "sex", tmp_path)
    assert moved.verdict.reasons[Reason.CALL_RATE].sum() == (rates < middle).sum() > 10
    rate, well = report.measures.autosomes.rate, rates >= 0.97
    mean, sd = statistics.mean(rate[well]), statistics.stdev(rate[well])
    moved = Report.of(data, (), Thresholds(heterozygosity_sd=0.5), "sex", tmp_path)
    outside = set(np.flatnonzero(well & (np.abs(rate - mean) > 0.5 * sd)).tolist())
    assert out_for(moved, Reason.HETEROZYGOSITY) == outside
    assert 10 < len(outside) < PEOPLE
    assert report.relatives is not None
    least = float(report.relatives.kinship.min())
    moved = Report.of(data, (), Thresholds(kinship=least), "sex", tmp_path)
    assert moved.relatives is not None
    assert len(moved.relatives) == len(report.relatives) - 1, "relatives are above it"


def test_nobody_is_of_the_wrong_sex_where_none_is_told(data: Dataset, report: Report, tmp_path: Path) -> None:
    assert UNTOLD not in out_for(report, Reason.SEX)
    without = Report.of(data, (), Thresholds(), "gender", tmp_path)
    assert not without.verdict.reasons[Reason.SEX].any()
    assert "no column" in without.verdict.unjudged[Reason.SEX]


@pytest.mark.parametrize(
    ("panel", "unjudged"),
    [
        (pedigrees.panel(5600), {Reason.SEX: "0 polymorphic variants on X"}),
        (pedigrees.panel(4900, 200), {Reason.RELATED: "4,900 autosomal variants on 22 chromosomes"}),
        (
            replace(PANEL, variants=tuple(v._replace(chromosome="22") for v in PANEL.variants[:5400])),
            {Reason.SEX: "0 polymorphic", Reason.RELATED: "5,400 autosomal variants on 1 chromosomes"},
        ),
    ],
)
def test_what_cannot_be_judged_is_said_and_nobody_is_left_out_for_it(
    panel: object, unjudged: Mapping[Reason, str], tmp_path: Path
) -> None:
    assert isinstance(panel, type(PANEL))
    rng = np.random.default_rng(2)
    codes = pedigrees.founders(panel, SEXES[:60], rng)
    codes[:, 8] = codes[:, 10]
    found = Report.of(pedigrees.opened(tmp_path, panel, codes, SEXES[:60]), (), Thresholds(), "sex", tmp_path)
    assert found.verdict.unjudged.keys() == unjudged.keys()
    for reason, words in unjudged.items():
        assert words in found.verdict.unjudged[reason]
        assert not found.verdict.reasons[reason].any()
        assert found.numbers()["reasons"][reason.value].keys() == {"unjudged"}
    assert (found.relatives is None) == (Reason.RELATED in unjudged)


def test_y_and_mitochondria_count_for_nobody(tmp_path: Path) -> None:
    """A woman has no call on Y. Its call rate is that among men."""
    rng = np.random.default_rng(5)
    places = [("1", 10), ("Y", 3_000_000), ("MT", 10), ("X", 100)]
    panel = replace(PANEL, variants=tuple(PANEL.variants[0]._replace(chromosome=c, position=p) for c, p in places))
    codes = 2 * rng.integers(0, 2, (4, 20)).astype(np.uint8)
    codes[1, SEXES[:20] == FEMALE] = 3
    codes[1, 0] = codes[2, 1] = 3
    opened = pedigrees.opened(tmp_path, panel, codes, SEXES[:20])
    measures = measure(opened, Variants.of(opened), sex_of(opened, "sex"), 0.5)
    assert measures.call_rates.tolist() == [1.0] * 20
    assert measures.countable == 2
    by_name = dict(zip((key[0] for key in measures.variants), measures.variant_call_rates, strict=True))
    assert by_name == {"1": 1.0, "Y": 0.9, "MT": 0.95, "X": 1.0}


# -- what does not matter ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Watched:
    """Calls that remember the largest block that was asked for."""

    calls: Calls
    largest: list[int]

    @property
    def people(self) -> tuple[str, ...]:
        return self.calls.people

    @property
    def index(self) -> Index:
        return self.calls.index

    def fill(self, rows: Any, swapped: Any, chosen: Any, out: Any) -> None:
        self.largest.append(len(rows))
        self.calls.fill(rows, swapped, chosen, out)

    def dosages(self, rows: Any) -> Any:
        raise AssertionError("quality control reads genotypes")


def _equal(one: Measures, other: Measures) -> None:
    for name in ("autosomes", "x"):
        mine, theirs = getattr(one, name), getattr(other, name)
        assert mine.polymorphic == theirs.polymorphic
        for what in ("observed", "heterozygous", "expected"):
            np.testing.assert_array_equal(getattr(mine, what), getattr(theirs, what))
    np.testing.assert_array_equal(one.counts, other.counts)
    np.testing.assert_array_equal(one.called, other.called)


def test_blocks_are_small_and_do_not_matter(
    data: Dataset, report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert data.calls is not None
    watched = Watched(data.calls, [])
    monkeypatch.setattr(genotypes, "_CELLS_AT_A_TIME", 256 * PEOPLE)
    monkeypatch.setattr(kinship, "_TILE", 70)
    again = Report.of(replace(data, calls=watched), (), Thresholds(), "sex", tmp_path)
    assert max(watched.largest) == 256
    assert sum(watched.largest) == len(PANEL) + int((report.measures.used & AUTOSOMAL).sum()), "two passes"
    _equal(again.measures, report.measures)
    assert again.relatives is not None
    assert report.relatives is not None
    for name in ("first", "second", "kinship", "observed", "opposite", "degrees", "density"):
        np.testing.assert_array_equal(getattr(again.relatives, name), getattr(report.relatives, name))
    assert list(tmp_path.iterdir()) == [], "the scratch file has no name"


def test_the_order_of_people_does_not_matter(data: Dataset, report: Report, tmp_path: Path) -> None:
    """The table's people in another order than the file's."""
    order = np.random.default_rng(6).permutation(PEOPLE)
    table = replace(
        data.table,
        people=tuple(data.people[i] for i in order),
        parsed={name: values[order] for name, values in data.table.parsed.items()},
    )
    again = Report.of(replace(data, table=table, order=data.order[order]), (), Thresholds(), "sex", tmp_path)
    assert again.exclude == report.exclude != b""


def test_a_file_that_changes_meanwhile_is_seen(folder: Path, tmp_path: Path) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    opened = Dataset.open(pedigrees.config(), tmp_path)
    (tmp_path / "people.tsv").write_text((tmp_path / "people.tsv").read_text() + "\n")
    with pytest.raises(Exception, match="stay as they are"):
        Report.of(opened, (), Thresholds(), "sex", tmp_path)


# -- what is written --------------------------------------------------------------------------------------------------


def test_a_report_is_its_owners_and_names_people_in_tables_alone(written: Path) -> None:
    assert stat.S_IMODE(written.stat().st_mode) == stat.S_IMODE(written.parent.stat().st_mode) == 0o700
    names = {"report.html", "report.json", "people.tsv", "variants.tsv", "relatives.tsv", "exclude.txt"}
    assert {file.name for file in written.iterdir()} == names
    for file in written.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        named = "person-0" in file.read_text()
        assert named == (file.name in ("people.tsv", "relatives.tsv", "exclude.txt")), file.name


def test_the_tables_hold_what_was_measured(report: Report, written: Path) -> None:
    people = [line.split("\t") for line in (written / "people.tsv").read_text().splitlines()]
    assert people[0] == ["person", "call_rate", "heterozygosity", "f", "x_f", "sex", "leave_out_for"]
    assert [line[0] for line in people[1:]] == identifiers(PEOPLE)
    np.testing.assert_allclose([float(line[1]) for line in people[1:]], report.measures.call_rates, rtol=1e-5)
    assert people[1 + SWAPPED][5:] == ["female", "sex"]
    assert people[1 + UNTOLD][5] == ""
    left_out = [line[0] for line in people[1:] if line[6]]
    assert (written / "exclude.txt").read_text().split() == left_out
    pairs = [line.split("\t") for line in (written / "relatives.tsv").read_text().splitlines()]
    degrees = {frozenset(line[:2]): line[6] for line in pairs[1:]}
    name = identifiers(PEOPLE)
    assert degrees[frozenset((name[0], name[20]))] == "first degree"
    assert degrees[frozenset((name[20], name[21]))] == "second degree"
    assert degrees[frozenset((name[TWIN], name[35]))] == "duplicates or identical twins"
    assert len((written / "variants.tsv").read_text().splitlines()) == len(PANEL) + 1
    numbers = json.loads((written / "report.json").read_text())
    assert numbers["left_out"] == len(left_out)
    assert numbers["pairs"]["duplicates or identical twins"] == 1
    assert sum(numbers["pairs"].values()) == PEOPLE * (PEOPLE - 1) // 2


def test_the_page_is_self_contained_and_says_in_words_what_it_draws(written: Path) -> None:
    page = (written / "report.html").read_text()
    assert not re.search(r"<(script|link|iframe|object|img)\b|\b(src|href)=\"(?!#|data:image/png)|url\((?!#)", page)
    assert page.count("<svg") == page.count('<svg role="img" aria-label="') == page.count("<figcaption>") == 5
    assert len(re.findall(r' id="([^"]+)"', page)) == len(set(re.findall(r' id="([^"]+)"', page)))
    words = re.findall(r'aria-label="([^"]+)" viewBox', page)
    assert words[0].startswith(f"Histogram of the call rate of {PEOPLE:,} people; median 0.99")
    assert any(f"{PEOPLE * (PEOPLE - 1) // 2:,} pairs" in text for text in words)


# -- the command ------------------------------------------------------------------------------------------------------


def test_qc_proposes_and_data_fixes_the_version(node: Path, report: Report, capsys: Said) -> None:
    """From the first look to a served version: three commands, two lines of the node's file."""
    assert cli.main(["qc", str(node)]) == 0
    said = capsys.readouterr().out
    assert "person-" not in said
    assert f"{int(report.verdict.out.sum())} of {PEOPLE} people" in said
    (name,) = re.findall(r'exclude = "([^"]+)" in the \[dataset\] table', said)
    assert (node.parent / name).read_bytes() == report.exclude
    edit(node, exclude=name)
    assert cli.main(["data", str(node)]) == 0
    assert f"{PEOPLE - int(report.verdict.out.sum())} people" in capsys.readouterr().out
    kept = Dataset.open(NodeConfig.read(node).dataset, node.parent)
    assert set(kept.people) == set(identifiers(PEOPLE)) - set(report.exclude.decode().split())
    # The journal tells by which thresholds and which list, and names nobody.
    ledger = NodeConfig.read(node).open_ledger()
    examined, fixed = ledger.journal()
    ledger.close()
    assert examined["event"] == "qc"
    assert examined["thresholds"]["person_call_rate"] == Thresholds().person_call_rate
    assert examined["exclude_sha256"] == hashlib.sha256(report.exclude).hexdigest()
    assert (fixed["event"], fixed["version"], fixed["data"]) == ("version", 1, kept.digest)
    assert "person-0" not in json.dumps(examined)
    assert cli.main(["ledger", "verify", str(node)]) == 0


def test_qc_changes_nothing_that_a_node_serves(node: Path, capsys: Said) -> None:
    """Neither the files of an open data set, nor its version, nor a report that was written before."""
    assert cli.main(["data", str(node)]) == 0
    assert cli.main(["qc", str(node), "--heterozygosity-sd", "9"]) == 0
    edit(node, exclude="state/qc/1/exclude.txt", version=2)
    assert cli.main(["data", str(node)]) == 0
    config = NodeConfig.read(node)
    serving = Dataset.open(config.dataset, node.parent)
    before = {file: file.stat() for file in (node.parent / "state/qc/1").iterdir()}
    text = node.read_bytes()
    assert cli.main(["qc", str(node), "--kinship", "0.2"]) == 0
    assert {file: file.stat() for file in (node.parent / "state/qc/1").iterdir()} == before
    assert node.read_bytes() == text
    serving.assert_unchanged()
    ledger = config.open_ledger()
    assert ledger.versions().keys() == {1, 2}
    assert ledger.versions()[2] == serving.digest
    ledger.close()


def test_who_was_left_out_before_stays_out(node: Path, capsys: Said) -> None:
    withdrew = identifiers(PEOPLE)[200]
    (node.parent / "withdrawn.txt").write_text(f"{withdrew}\n")
    edit(node, exclude="withdrawn.txt")
    assert cli.main(["qc", str(node)]) == 0
    first, *others = (node.parent / "state/qc/1/exclude.txt").read_text().split()
    assert first == withdrew
    assert len(others) > 3
    numbers = json.loads((node.parent / "state/qc/1/report.json").read_text())
    assert (numbers["left_out_before"], numbers["people"]) == (1, PEOPLE - 1)
    # Once they are applied, nobody else is related, of the wrong sex or poorly called.
    edit(node, exclude="state/qc/1/exclude.txt")
    assert cli.main(["qc", str(node)]) == 0
    reasons = json.loads((node.parent / "state/qc/2/report.json").read_text())["reasons"]
    assert [reasons[name]["people"] for name in ("call_rate", "sex", "related")] == [0, 0, 0]


def test_qc_where_nobody_is_to_be_left_out(tmp_path: Path, node: Path, capsys: Said) -> None:
    panel = pedigrees.panel(500)
    codes = pedigrees.founders(panel, SEXES[:40], np.random.default_rng(3))
    pedigrees.site(tmp_path, panel, codes, SEXES[:40])
    edit(node, people=str(tmp_path / "people.tsv"), genotypes=str(tmp_path / "g.bed"))
    assert cli.main(["qc", str(node)]) == 0
    assert "Nobody is to be left out" in capsys.readouterr().out
    assert {f.name for f in (node.parent / "state/qc/1").iterdir()} == {
        "report.html", "report.json", "people.tsv", "variants.tsv",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        (["--person-call-rate", "1.5"], "a call rate must be from 0 to 1"),
        (["--variant-call-rate", "nan"], "a call rate must be from 0 to 1"),
        (["--heterozygosity-sd", "0"], "must be above 0"),
        (["--female-f", "0.9"], "at most male_f"),
        (["--kinship", "0.5"], "between 0 and 0.5"),
    ],
)
def test_thresholds_that_make_no_sense_are_refused(node: Path, words: list[str], rule: str, capsys: Said) -> None:
    assert cli.main(["qc", str(node), *words]) == 2
    assert rule in capsys.readouterr().err
    assert not (node.parent / "state/qc").exists()


def test_qc_without_genotypes_is_refused(node: Path, capsys: Said) -> None:
    edit(node, genotypes="")
    assert cli.main(["qc", str(node)]) == 4
    assert re.fullmatch(r"[^\n]+\n  Found:  .+\n  Remedy: [^\n]+\n", capsys.readouterr().err)

"""Bad input at a researcher's desk: one clear message (rule, found, remedy), the right exit code, no debris."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from simulations.cli import main

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "simulations" / "data" / "europe1000g"
SITES = ("FI", "GB", "IT", "CEU")

STUDY = """
title = "a study"
purpose = "scientific_research"
assembly = "GRCh37"
minimum_sites = 4
[columns]
GSTT1_rn = [-4, 4]
sex = [1, 2]
[panels.few]
file = "few.tsv"
[[question]]
name = "counts"
analysis = "allele_frequency"
regime = "exact"
panel = "few"
[[question]]
name = "gstt1"
analysis = "association"
regime = "exact"
panel = "few"
traits = ["GSTT1_rn"]
covariates = ["sex"]
"""

PANEL = "#CHROM\tPOS\tID\tREF\tALT\n22\t16058758\ta\tC\tA\n22\t16060513\tb\tT\tC\n"


class Desk:
    """A study, a panel and a copy of the demo's sites, to be spoilt."""

    def __init__(self, folder: Path) -> None:
        self.study, self.panel, self.sites, self.out = (
            folder / "s.toml",
            folder / "few.tsv",
            folder / "sites",
            folder / "out",
        )
        self.study.write_text(STUDY)
        self.panel.write_text(PANEL)
        shutil.copytree(DEMO, self.sites)

    def edit(self, file: Path, old: str, new: str) -> None:
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new, 1))

    def run(self) -> int:
        return main([str(self.study), "--sites", str(self.sites), "--out", str(self.out)])


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def _drop_column(desk: Desk) -> None:
    table = desk.sites / "IT" / "people.tsv"
    lines = [line.split("\t") for line in table.read_text().splitlines()]
    at = lines[0].index("GSTT1_rn")
    table.write_text("".join("\t".join(c for i, c in enumerate(line) if i != at) + "\n" for line in lines))


def _cut(name: str, to: int) -> Callable[[Desk], None]:
    def spoil(desk: Desk) -> None:
        path = desk.sites / name
        path.write_bytes(path.read_bytes()[:to])

    return spoil


def _twice(desk: Desk) -> None:
    for file in ("genotypes.bim",):
        path = desk.sites / "IT" / file
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join([lines[1], *lines[1:]]))


def _strangers(desk: Desk) -> None:
    table = desk.sites / "FI" / "people.tsv"
    header, *lines = table.read_text().splitlines()
    table.write_text("\n".join([header, *(f"NOBODY{i}\t{line.split(chr(9), 1)[1]}" for i, line in enumerate(lines))]))


def _edit(where: str, old: str, new: str) -> Callable[[Desk], None]:
    def spoil(desk: Desk) -> None:
        desk.edit({"study": desk.study, "panel": desk.panel, "sites": desk.sites / "sites.toml"}[where], old, new)

    return spoil


def _declare(variable: str, more: str = "") -> Callable[[Desk], None]:
    """Declare a variable at FI, or add a line to its data set."""

    def spoil(desk: Desk) -> None:
        declared = f", variables = {{ {variable} }}" if variable else f", {more}"
        desk.edit(desk.sites / "sites.toml", '"FI/genotypes.pgen"', f'"FI/genotypes.pgen"{declared}')

    return spoil


def _cdm(path: str) -> Callable[[Desk], None]:
    def spoil(desk: Desk) -> None:
        desk.edit(desk.sites / "sites.toml", 'people = "FI/people.tsv"', f'omop = "{path}"')
        desk.edit(desk.sites / "sites.toml", "sex = [1, 2]", 'sex = { categories = ["female", "male"] }')

    return spoil


def _three_people(desk: Desk) -> None:
    table = desk.sites / "GB" / "people.tsv"
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:4]))


BAD: dict[str, tuple[Callable[[Desk], None], int, str]] = {
    "unknown field in a study": (
        _edit("study", 'title = "a study"', 'title = "a study"\ncode = "x"'),
        2,
        "unknown 'code'",
    ),
    "unknown field in a question": (
        _edit("study", 'name = "counts"', 'name = "counts"\nweight = 3'),
        2,
        "unknown 'weight'",
    ),
    "unknown analysis": (_edit("study", '"association"', '"assocation"'), 2, "catalogue"),
    "analysis that has no private form": (
        _edit("study", 'analysis = "association"\nregime = "exact"', 'analysis = "association"\nregime = "private"'),
        2,
        "has no private form",
    ),
    "exact with epsilon": (_edit("study", 'panel = "few"', 'panel = "few"\nepsilon = 1.0'), 2, "spends no epsilon"),
    "column that is not declared": (_edit("study", "sex = [1, 2]\n", ""), 2, "[columns] table"),
    "range upside down": (_edit("study", "[-4, 4]", "[4, -4]"), 2, "a column's range is [lowest, highest]"),
    "duplicate variant in the panel": (
        _edit("panel", "22\t16060513\tb\tT\tC\n", "22\t16058758\tb\tC\tA\n"),
        2,
        "distinct",
    ),
    "allele that is none": (_edit("panel", "\tT\tC\n", "\tT\tN\n"), 2, "line 3"),
    "no such panel file": (_edit("study", "few.tsv", "fewer.tsv"), 2, "readable text file"),
    "no sites.toml": (lambda desk: (desk.sites / "sites.toml").unlink(), 2, "sites.toml"),
    "unknown field in the policy": (_edit("sites", "\nminimum_cell = 0", "\nminimum_cel = 0"), 2, "minimum_cel"),
    "panel in another build": (_edit("study", "GRCh37", "GRCh38"), 3, "WRONG_ASSEMBLY"),
    "trait that one site lacks": (_drop_column, 3, "IT refused: COLUMN_NOT_ALLOWED"),
    "range wider than the policy's": (_edit("study", "[-4, 4]", "[-9, 4]"), 3, "RANGE_OUTSIDE_POLICY"),
    "site with three people": (_three_people, 3, "GB refused: TOO_FEW_PEOPLE"),
    "purpose that the policy does not serve": (
        _edit("study", "scientific_research", "policy"),
        3,
        "PURPOSE_NOT_ALLOWED",
    ),
    "nobody of the table in the genotypes": (_strangers, 4, "NOBODY"),
    "a declared variable without its column": (
        _declare('height = { range = [0, 3], unit = "m" }'),
        4,
        "no column 'height'",
    ),
    "a declared variable with both kinds of values": (
        _declare('sex = { range = [1, 2], categories = ["a", "b"] }'),
        2,
        "range = [lowest, highest] or categories",
    ),
    "a policy's range in a unit that the variable's does not convert to": (
        _declare('sex = { range = [1, 2], unit = "kg" }'),
        2,
        "[1, 2] kg",
    ),
    "a table's name without a database": (_declare("", 'table = "people"'), 2, "table must name"),
    "two kinds of people": (_declare("", 'omop = "cdm.duckdb"'), 2, "people must name the people table, or else"),
    "no CDM there": (_cdm("cdm.duckdb"), 4, "cdm.duckdb"),
    "a CDM that is none": (_cdm("sites.toml"), 4, "sites.toml"),
    "a CDM by a URL with a password": (_cdm("postgresql+psycopg://a:b@h/d"), 2, "omop names one"),
    "truncated VCF": (_cut("GB/genotypes.vcf.gz", 300_000), 4, "genotypes.vcf.gz"),
    "bed of the wrong length": (_cut("IT/genotypes.bed", 459_000), 4, "460003"),
    "truncated pgen": (_cut("FI/genotypes.pgen", 200_000), 4, "genotypes.pgen"),
    "duplicate variants in a site's file": (_twice, 4, "22"),
    "no people table": (lambda desk: (desk.sites / "CEU" / "people.tsv").unlink(), 4, "people.tsv"),
    "more sites wanted than there are": (_edit("study", "minimum_sites = 4", "minimum_sites = 5"), 5, "4 of 4 answer"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name: str, desk: Desk, capfd: pytest.CaptureFixture[str]) -> None:
    spoil, code, found = BAD[name]
    spoil(desk)
    assert desk.run() == code
    error = capfd.readouterr().err
    assert error.count("\n  Remedy: ") == 1, error
    assert re.search(r"\n  Found:  .+\n  Remedy: .+", error), error
    assert found in error
    assert "Traceback" not in error
    assert not desk.out.exists()
    assert not list(desk.out.parent.glob(".out*"))


def test_one_site_less_is_named_and_not_fatal(desk: Desk, capfd: pytest.CaptureFixture[str]) -> None:
    _drop_column(desk)
    desk.edit(desk.study, "minimum_sites = 4", "minimum_sites = 3")
    assert desk.run() == 0
    assert "COLUMN_NOT_ALLOWED" in (desk.out / "report.html").read_text()


def test_results_are_not_overwritten(desk: Desk, capfd: pytest.CaptureFixture[str]) -> None:
    desk.out.mkdir()
    (desk.out / "kept").touch()
    assert desk.run() == 2
    assert "a new folder" in capfd.readouterr().err
    assert (desk.out / "kept").exists()

"""The main job, as `make demo` runs it, and what a person then sees in a browser."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import fl_server.results
from simulations.cli import main
from tests.browser import blue, drawn, needs_chromium, screenshot

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo") / "results"
    study = ROOT / "simulations" / "studies" / "demo.toml"
    sites = ROOT / "simulations" / "data" / "europe1000g"
    assert main([str(study), "--sites", str(sites), "--out", str(out), "--measure"]) == 0
    return out


def test_every_question_has_its_folder_and_formats(demo: Path) -> None:
    want = {
        "counts": ("answer.json", "frequencies.parquet", "frequencies.tsv.gz"),
        "frequencies": ("answer.json", "frequencies.parquet", "frequencies.by_site.parquet"),
        "gstt1": ("answer.json", "GSTT1_rn.parquet", "GSTT1_rn.tsv.gz", "GSTT1_rn.tsv.gz-meta.yaml"),
        "gstt1_model": ("answer.json", "model.safetensors", "model_card.md", "model_card.json", "roc.parquet"),
    }
    for folder, files in want.items():
        assert all((demo / folder / file).stat().st_size > 0 for file in files), folder
    assert {p.name for p in demo.iterdir()} == {*want, "report.html", "ro-crate-metadata.json", "study.json"}


def test_answers_are_read_in_two_lines(demo: Path) -> None:
    table = fl_server.results.load(demo)["gstt1"].table()
    best = table.sort("p_value").row(0, named=True)
    assert (best["chromosome"], best["position"], round(best["beta"], 5)) == ("22", 24334948, -1.13222)
    assert len(table.to_pandas()) == 20_000


def test_every_answer_says_what_it_gives_away(demo: Path) -> None:
    measured = {}
    for name, answer in fl_server.results.load(demo).items():
        assert answer.statement["measured_attacks"]["how"]
        measured[name] = {a["attack"]: a for a in answer.statement["measured_attacks"]["attacks"]}
        assert not any(a["synthetic"] for a in measured[name].values())
    assert measured["counts"]["likelihood ratio of genotype counts"]["auc"] > 0.95
    assert 0.7 < measured["counts"]["likelihood ratio of frequencies"]["auc"] < 0.95
    assert 0.7 < measured["gstt1"]["likelihood ratio of the regression statistics of GSTT1_rn"]["auc"] < 0.95
    # An AUC of 184 and 174 people has a deviation of .03, of 131 and 117 of .037: six of the wider are allowed.
    for name in ("frequencies", "gstt1_model"):
        assert all(a["auc"] < a["auc_at_most"] + 0.22 for a in measured[name].values())
    text = (demo / "report.html").read_text()
    assert text.count("this answer is for the permit holder, not for publication") >= 2
    assert text.count("<caption><span>Measured attacks: ") == 4
    assert "Its membership AUC was not measured" not in text


def test_the_private_answers_state_their_price(demo: Path) -> None:
    for name in ("frequencies", "gstt1_model"):
        statement = fl_server.results.load(demo)[name].statement
        assert (statement["epsilon"], statement["delta"], statement["unit"]) == (3.0, 1e-5, "person")
        assert statement["regime"] == "private"


def test_the_report_shows_every_plot_in_a_browser(demo: Path, tmp_path: Path) -> None:
    needs_chromium()
    page = (demo / "report.html").read_text()
    seen = drawn(page, tmp_path)
    assert len(seen) >= 7  # spectrum, Hardy-Weinberg, frequencies, Manhattan, QQ, ROC, training
    assert [name for name, pixels in seen.items() if pixels <= 150] == []
    private = r"<figcaption>[^<]* Private: ε 3, δ 10⁻⁵ per person at each site[^<]*; nothing is withheld\.</figcaption>"
    assert len(re.findall(private, page)) == 3


def test_the_whole_report_opens_in_a_browser(demo: Path) -> None:
    needs_chromium()
    pixels = screenshot(demo / "report.html", 9000)
    assert blue(pixels) > 2000
    assert (pixels[6000:7000] != pixels[6000, 0]).any(), "the page is long"

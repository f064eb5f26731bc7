"""`fl-simulate`: the same study in this process and on Flower's engine, and synthetic twins to develop against."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import fl_server.results
from simulations.cli import main
from simulations.sites import Sites, prepare
from strategies.study import Study

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "simulations" / "data" / "europe1000g"


def exact_half(folder: Path) -> Path:
    """The demo's study without its private questions, whose noise differs in every run."""
    study = Study.read(ROOT / "simulations" / "studies" / "demo.toml")
    text = (ROOT / "simulations" / "studies" / "demo.toml").read_text().replace("../data", str(DEMO.parent))
    for name in ("public12.tsv", "gstt1.tsv"):
        shutil.copy(ROOT / "simulations" / "studies" / name, folder)
    head, *questions = text.split("[[question]]")
    file = folder / "exact.toml"
    file.write_text(head + "".join("[[question]]" + q for q in questions if 'regime = "exact"' in q))
    assert len(Study.read(file).questions) == sum(q.budget is None for q in study.questions)
    return file


def test_one_process_and_ray_give_the_same_bytes(tmp_path: Path) -> None:
    study, here, there = exact_half(tmp_path), tmp_path / "here", tmp_path / "there"
    assert main([str(study), "--sites", str(DEMO), "--out", str(here)]) == 0
    command = [sys.executable, "-m", "simulations.cli", str(study), "--sites", str(DEMO), "--out", str(there)]
    done = subprocess.run([*command, "--engine", "ray"], capture_output=True, text=True, check=False, cwd=ROOT)
    if "does not allow one" in done.stderr:
        pytest.skip("this system allows no network namespace, and Ray's ports must not be open")
    assert done.returncode == 0, done.stderr
    tables = sorted(p.relative_to(here) for p in here.rglob("*") if p.suffix in (".parquet", ".gz"))
    assert len(tables) >= 4
    for table in tables:
        assert (here / table).read_bytes() == (there / table).read_bytes(), table


def test_ray_is_not_started_with_open_ports_unasked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "")  # no `unshare` to be found
    study = exact_half(tmp_path)
    assert main([str(study), "--sites", str(DEMO), "--out", str(tmp_path / "out"), "--engine", "ray"]) == 2
    assert "--allow-open-ports" in capsys.readouterr().err


def test_a_twin_runs_the_study_and_says_that_it_is_synthetic(tmp_path: Path) -> None:
    prepare(DEMO, tmp_path / "real")
    study, twin, out = exact_half(tmp_path), tmp_path / "twin", tmp_path / "out"
    federation = tmp_path / "real" / "federation.toml"
    assert main(["twin", str(federation), "--out", str(twin), "--study", str(study)]) == 0
    real, made_up = Sites.read(DEMO).sites, Sites.read(twin).sites
    assert made_up.keys() == real.keys()
    assert all(site.dataset.synthetic for site in made_up.values())
    assert {name: site.people for name, site in made_up.items()} == {name: site.people for name, site in real.items()}
    assert main([str(study), "--sites", str(twin), "--out", str(out)]) == 0
    assert "synthetic" in (out / "report.html").read_text().lower()
    assert fl_server.results.load(out)["counts"].statement["synthetic"] == sorted(made_up)
    again = tmp_path / "again"
    assert main(["twin", str(federation), "--out", str(again), "--study", str(study)]) == 0
    assert all(p.read_bytes() == (again / p.relative_to(twin)).read_bytes() for p in twin.rglob("*") if p.is_file())


def test_a_twin_needs_no_study(tmp_path: Path) -> None:
    prepare(DEMO, tmp_path / "real")
    assert main(["twin", str(tmp_path / "real" / "federation.toml"), "--out", str(tmp_path / "twin")]) == 0
    assert (tmp_path / "twin" / "panel.tsv").exists()


def test_synthetic_and_real_sites_are_not_mixed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sites = tmp_path / "sites"
    shutil.copytree(DEMO, sites)
    text = (sites / "sites.toml").read_text()
    file = sites / "sites.toml"
    file.write_text(text.replace('"GDI-IT-DEMO-0001",', '"GDI-IT-DEMO-0001", synthetic = true,'))
    assert main([str(exact_half(tmp_path)), "--sites", str(sites), "--out", str(tmp_path / "out")]) == 2
    assert "never mixed" in capsys.readouterr().err


def frequencies_alone(folder: Path) -> Path:
    """The demo's small private question in a study of its own."""
    shutil.copy(ROOT / "simulations" / "studies" / "public12.tsv", folder)
    file = folder / "frequencies.toml"
    file.write_text(
        'title = "Frequencies"\npurpose = "scientific_research"\nassembly = "GRCh37"\nminimum_sites = 3\n'
        '[panels.public12]\nfile = "public12.tsv"\n[[question]]\nname = "frequencies"\nregime = "private"\n'
        'analysis = "allele_frequency"\nepsilon = 3.0\ndelta = 1e-5\npanel = "public12"\n'
    )
    return file


def test_attacks_on_a_study_are_printed_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study, out = frequencies_alone(tmp_path), tmp_path / "attacks.json"
    assert main(["attack", str(study), "--sites", str(DEMO), "--out", str(out)]) == 0
    shown, written = capsys.readouterr().out, json.loads(out.read_text())
    assert "frequencies (allele frequency, private, epsilon 3, delta 1e-05, per person)" in shown
    assert "SYNTHETIC" not in shown
    assert (written["format"], written["synthetic"]) == ("genosum attacks 1", [])
    assert written["study"] == Study.read(study).digest
    first, second = written["questions"]["frequencies"]
    assert {first["attack"], second["attack"]} == {"noise-aware likelihood ratio of frequencies", "Homer's distance"}
    assert (first["members"], first["others"], first["synthetic"]) == (184, 174, False)
    assert first["auc"] >= second["auc"]
    assert f"AUC {first['auc']:.3f}" in shown


def test_attacks_on_synthetic_sites_say_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepare(DEMO, tmp_path / "real")
    study, twin, out = frequencies_alone(tmp_path), tmp_path / "twin", tmp_path / "out"
    federation = tmp_path / "real" / "federation.toml"
    assert main(["twin", str(federation), "--out", str(twin), "--study", str(study)]) == 0
    assert main(["attack", str(study), "--sites", str(twin)]) == 0
    assert "SYNTHETIC people at CEU, FI, GB, IT." in capsys.readouterr().out
    assert main([str(study), "--sites", str(twin), "--out", str(out), "--measure"]) == 0
    measured = fl_server.results.load(out)["frequencies"].statement["measured_attacks"]["attacks"]
    assert all(attack["synthetic"] for attack in measured)
    assert "synthetic people who took part" in (out / "report.html").read_text()


def test_attacks_on_made_up_people_are_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["attack", "--people", "30", "--variants", "50,100", "--epsilon", "1", "--repeats", "2"]
    assert main([*words, "--out", str(tmp_path / "a.json")]) == 0
    shown, written = capsys.readouterr().out, json.loads((tmp_path / "a.json").read_text())
    assert shown.startswith("SYNTHETIC people: 30 members, 30 others, drawn 2 times")
    assert written["synthetic"] is True
    assert [(row["variants"], row["epsilon"]) for row in written["frequencies"]] == [
        (50, None), (50, 1.0), (100, None), (100, 1.0)
    ]  # fmt: skip
    exact = written["frequencies"][0]
    assert f"      50    exact  {exact['auc']:6.3f}" in shown
    assert [row["queries"] for row in written["beacon"]] == [1, 1, 10, 10, 100, 100]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["--sites", "x"], "--sites x"),
        (["study.toml"], "study.toml"),
        (["study.toml", "--sites", "x", "--people", "5"], "--people 5"),
        (["--variants", "5,x"], "--variants '5,x'"),
        (["--variants", "0"], "Found:  0"),
        (["--epsilon", "0"], "epsilon 0"),
        (["--repeats", "1"], "repeats must be from 2"),
        (["--people", "100000", "--variants", "100000"], "at most 4000000000 genotypes"),
        (["--out", "."], "exists"),
    ],
)
def test_an_attack_that_cannot_be_is_refused_in_three_sentences(
    words: list[str], found: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["attack", *words]) == 2
    error = capsys.readouterr().err
    assert found in error
    assert "\n  Found:  " in error
    assert "\n  Remedy: " in error

"""Who may import whom, what is listed, what ships: the shape of the house, asserted."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from strategies.analysis import Analysis
from strategies.catalogue import CATALOGUE, NOT_PRIVATE
from strategies.privacy import Regime

ROOT = Path(__file__).parents[1]
PACKAGES = ("strategies", "fl_client", "fl_server", "simulations")
MAY_IMPORT = {
    "strategies": {"strategies"},
    "fl_client": {"strategies", "fl_client"},
    "fl_server": {"strategies", "fl_server"},
    "simulations": set(PACKAGES),
}
TOP_LEVEL = {
    "pyproject.toml", "README.md", "fl_server", "fl_client", "strategies", "tests", "simulations", "Makefile",
    "constraints.txt", "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", ".ci", ".gitignore",
}  # fmt: skip
FLOWER_PRIVATE = {
    "fl_client/executor.py", "fl_server/superlink.py", "simulations/federation.py", "simulations/benchmarks/masking.py",
}  # fmt: skip
FLOWER_PUBLIC = {"flwr.app", "flwr.clientapp", "flwr.serverapp", "flwr.simulation"}
VAGUE = {"manager", "handler", "processor", "engine", "factory", "helper", "helpers", "utils", "util", "base", "common"}


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            found.add(node.module or "")
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_point_one_way(package: str) -> None:
    assert sources(package)
    for path in sources(package):
        ours = {name.split(".")[0] for name in imports(path)} & set(PACKAGES)
        assert ours <= MAY_IMPORT[package], path
        assert "tests" not in {name.split(".")[0] for name in imports(path)}, path


def test_the_shared_language_knows_no_flower_outside_learning() -> None:
    for path in sources("strategies"):
        if "learning" not in path.parts:
            assert not any(name.split(".")[0] in ("flwr", "torch", "matplotlib") for name in imports(path)), path


def test_flowers_private_modules_are_touched_in_four_files() -> None:
    for package in PACKAGES:
        for path in sources(package):
            private = {n for n in imports(path) if n.split(".")[0] == "flwr" and n not in FLOWER_PUBLIC}
            assert not private or path.relative_to(ROOT).as_posix() in FLOWER_PRIVATE, (path, private)


def test_nodes_load_no_plotting_no_accountant_and_no_torch_until_they_train() -> None:
    names = ("torch", "matplotlib", "ray", "dp_accounting", "scipy.stats")
    code = f"import sys, fl_client.app; print([m for m in {names} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=_quiet())
    assert out.stdout.strip() == "[]"


def test_every_page_is_in_the_catalogue() -> None:
    pages = {p.stem for p in (ROOT / "strategies" / "analyses").glob("*.py")} - {"__init__"}
    listed = {page.__module__.rsplit(".", 1)[1] for page in CATALOGUE if ".analyses." in page.__module__}
    assert pages == listed
    assert all(isinstance(page, type) and hasattr(page, "summarise") for page in CATALOGUE)
    assert Analysis not in CATALOGUE


def test_no_file_name_that_flower_would_drop() -> None:
    for package in PACKAGES:
        for path in sources(package):
            assert not re.fullmatch(r"test_.*\.py|.*_test\.py", path.name), path


def test_names_say_what_a_thing_is() -> None:
    for package in PACKAGES:
        for path in sources(package):
            assert not set(re.split(r"[_.]", path.stem)) & VAGUE, path
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ClassDef):
                    words = {w.lower() for w in re.findall(r"[A-Z][a-z]+|[A-Z]+(?![a-z])", node.name)}
                    assert not words & VAGUE, (path, node.name)


def test_nothing_runs_what_was_received() -> None:
    """No pickle, marshal, eval or exec; no import by a name held in data; no getattr by a name from the wire."""
    for package in PACKAGES:
        for path in sources(package):
            assert not imports(path) & {"pickle", "cloudpickle", "dill", "marshal", "shelve"}, path
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                    assert node.func.id not in ("eval", "exec", "__import__", "compile"), (path, node.lineno)
                called = node.func if isinstance(node, ast.Call) else None
                if isinstance(called, ast.Attribute) and called.attr == "import_module":
                    assert isinstance(node.args[0], ast.Constant), (path, node.lineno)
    for name in ("wire.py", "codec.py"):
        assert "getattr(" not in (ROOT / "strategies" / name).read_text(encoding="utf-8")
    for name in ("gate.py", "objections.py", "rounds.py", "sessions.py"):
        assert "getattr(" not in (ROOT / "fl_client" / name).read_text(encoding="utf-8")


def test_the_gate_is_read_straight_down() -> None:
    text = (ROOT / "fl_client" / "gate.py").read_text(encoding="utf-8")
    body = text[text.index("    def _ask(") : text.index("    def _admit(")]
    order = ["_admit", "reserve(", "# 4 open", "# 5 summarise", "check(summary", "add_noise", "_mask", "ledger.record"]
    at = [body.index(step) for step in order]
    assert at == sorted(at)
    assert text.count(".summarise(") == 1, "one line sees people"


def test_the_top_level_is_the_owners() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split(
        "\n"
    )
    if not any(listed):
        pytest.skip("not a git checkout")
    assert {name.split("/")[0] for name in listed if name} <= TOP_LEVEL


def test_what_the_wheel_holds(tmp_path: Path) -> None:
    source = tmp_path / "source"  # a build in place would leave its copies behind, and find them the next time
    for package in PACKAGES:
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("data", "__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(source)]
    subprocess.run(command, check=True, capture_output=True, env=_quiet())
    (wheel,) = tmp_path.glob("*.whl")
    names = [n for n in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in n]
    tracked = {p.relative_to(ROOT).as_posix() for package in PACKAGES for p in sources(package)}
    templates = {p.relative_to(ROOT).as_posix() for package in PACKAGES for p in (ROOT / package).rglob("*.jinja")}
    assert set(names) == tracked | templates


def test_no_words_that_promise_too_much() -> None:
    for path in [
        ROOT / "README.md",
        *(ROOT / p / "README.md" for p in PACKAGES),
        *(q for p in PACKAGES for q in sources(p)),
    ]:
        text = path.read_text(encoding="utf-8").lower()
        for word in ("ehds compliant", "gdpr compliant", "gdi approved", "anonymous", "anonymised"):
            assert word not in text, (path, word)


def _quiet() -> dict[str, str]:
    return {**os.environ, "FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}


def test_every_test_that_the_threat_model_names_is_there() -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "strategies/protections/README.md").read_text(encoding="utf-8")))
    there = {
        name for file in (ROOT / "tests").rglob("*.py") for name in re.findall(r"def (test_\w+)", file.read_text())
    }
    assert len(named) > 20
    assert named <= there


def test_why_an_analysis_has_no_private_form_is_said_of_those_alone_that_have_none() -> None:
    regimes = {name: {page.regime for page in CATALOGUE if page.analysis == name} for name in NOT_PRIVATE}
    assert set(map(frozenset, regimes.values())) == {frozenset({Regime.EXACT})}

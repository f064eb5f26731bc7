"""One real federation for all tests of this folder: a SuperLink, four SuperNodes, TLS, node keys, loopback."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from simulations.deployment import SITES, Deployment, deployed

ROOT = Path(__file__).parents[2]

PRIVATE = """
[[question]]
name = "freq"
analysis = "allele_frequency"
regime = "private"
epsilon = 1.0
delta = 1e-5
panel = "few"
"""

COUNTS = """
[[question]]
name = "counts"
analysis = "allele_frequency"
regime = "exact"
panel = "common"
"""

ASSOCIATION = """
[[question]]
name = "gstt1"
analysis = "association"
regime = "exact"
panel = "few"
traits = ["GSTT1_rn"]
covariates = ["sex", "pc1", "pc2", "pc3"]
"""


@pytest.fixture(scope="session")
def write_study(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Write a study of the given questions over the demo's panels."""
    folder = tmp_path_factory.mktemp("studies")

    def write(name: str, *questions: str, minimum_sites: int = 3) -> Path:
        path = folder / f"{name}.toml"
        path.write_text(
            f'title = "{name}"\npurpose = "scientific_research"\nassembly = "GRCh37"\nminimum_sites = {minimum_sites}\n'
            "[columns]\nsex = [1, 2]\nGSTT1_rn = [-4, 4]\npc1 = [-250, 250]\npc2 = [-250, 250]\npc3 = [-250, 250]\n"
            f'[panels.common]\nfile = "{SITES / "panel.tsv.gz"}"\n'
            f'[panels.few]\nfile = "{ROOT / "simulations" / "studies" / "public12.tsv"}"\n' + "".join(questions)
        )
        return path

    return write


@pytest.fixture(scope="session")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """The federation; afterwards none of its processes is left, and no run's app was ever unpacked."""
    folder = tmp_path_factory.mktemp("federation")
    with deployed(SITES, folder) as up:
        yield up
        groups = [process.pid for process in up.processes.values()]
    for group in groups:
        with pytest.raises(ProcessLookupError):
            os.killpg(group, 0)
    assert [path for path in folder.rglob("*") if path.name in ("apps", "stub.py") or path.suffix == ".fab"] == []


@pytest.fixture
def asks(federation: Deployment) -> Callable[..., subprocess.Popen[str]]:
    """Start `fl-server run` of a study; with `dies`, under tests/deployment/dies.py and those words for it."""

    def ask(study: Path, out: Path, *words: str, dies: tuple[str, ...] = ()) -> subprocess.Popen[str]:
        module = ["tests.deployment.dies", *dies, "--"] if dies else ["fl_server.cli"]
        run = ["run", str(study), "--server", str(federation.server_file), "--out", str(out), *words]
        command = [sys.executable, "-m", *module, *run]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)

    return ask

"""A whole study over sites on this machine: what `fl-simulate` and the tests call."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from flwr.serverapp import Grid

from fl_client.app import app, open_gate
from fl_client.policy import NodeConfig
from fl_server.app import GridLink
from fl_server.conduct import Conductor, Progress, Result
from fl_server.marks import SeenMarks
from fl_server.session import Checkpoint
from simulations.federation import LocalGrid, over_ray
from simulations.sites import COORDINATOR, Workspace, prepare
from strategies.federation import Federation
from strategies.kernels.threads import THREADS
from strategies.study import Study


def _quiet(_: Progress) -> None:
    """Show nothing."""


@dataclass(frozen=True)
class Outcome:
    """A simulated study's answers and the federation that gave them."""

    federation: Federation
    results: tuple[Result, ...]


def conductor(
    study: Study,
    workspace: Workspace,
    checkpoint: Path,
    progress: Callable[[Progress], None] = _quiet,
    grid: Grid | None = None,
) -> Conductor:
    """A conductor over a workspace's nodes: in this process, or over the grid given."""
    with ThreadPoolExecutor(THREADS) as sites:
        for _ in sites.map(_readable, workspace.node_files.values()):
            pass
    link = GridLink(LocalGrid(app, list(workspace.node_files.values())) if grid is None else grid)
    run, seen = Checkpoint(checkpoint), SeenMarks(checkpoint.with_name(f"{checkpoint.name}.marks.json"))
    return Conductor(
        study, workspace.federation, COORDINATOR, workspace.identity, link, run, seen, wait_s=0.0, progress=progress
    )


def _readable(node_file: Path) -> None:
    """A node that cannot read its data refuses everything alike; on a laptop the reason is for whoever sits there."""
    if open_gate(str(node_file)).dataset is None:
        NodeConfig.read(node_file).open_dataset()


def simulate(
    study: Study,
    data: Path,
    progress: Callable[[Progress], None] = _quiet,
    keep: Callable[[str], bool] | None = None,
    ray: bool = False,
) -> Outcome:
    """Ask a study of a folder of sites; keys, ledgers and checkpoints live in a folder that is gone afterwards.

    Args:
        study: what is asked.
        data: the folder with `sites.toml`.
        progress: called at every exchange.
        keep: if given, only the people for whose identifier it is true belong to the data sets.
        ray: use Flower's simulation engine instead of this process.

    Raises:
        GenosumError: as `Conductor.run` does.
    """
    with tempfile.TemporaryDirectory(prefix="genosum-") as folder:
        workspace, run = prepare(data, Path(folder) / "nodes", keep), Path(folder) / "run"
        if ray:
            files = list(workspace.node_files.values())
            results = over_ray(files, lambda grid: conductor(study, workspace, run, progress, grid).run())
        else:
            results = conductor(study, workspace, run, progress).run()
        return Outcome(workspace.federation, results)

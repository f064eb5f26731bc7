"""A whole study over sites on this machine: what `fl-simulate` and the tests call."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from fl_client.app import app
from fl_server.app import GridLink
from fl_server.conduct import Checkpoint, Conductor, Progress, Result
from simulations.federation import LocalGrid
from simulations.sites import COORDINATOR, Workspace, prepare
from strategies.study import Study


def conductor(
    study: Study, workspace: Workspace, checkpoint: Path, progress: Callable[[Progress], None] = lambda _: None
) -> Conductor:
    """A conductor over a workspace's nodes, all in this process."""
    link = GridLink(LocalGrid(app, list(workspace.node_files.values())))
    return Conductor(
        study,
        workspace.federation,
        COORDINATOR,
        workspace.identity,
        link,
        Checkpoint(checkpoint),
        wait_s=0.0,
        progress=progress,
    )


def simulate(
    study: Study,
    data: Path,
    progress: Callable[[Progress], None] = lambda _: None,
    keep: Callable[[str], bool] | None = None,
) -> tuple[Result, ...]:
    """Ask a study of a folder of sites; keys, ledgers and checkpoints live in a folder that is gone afterwards.

    Raises:
        GenosumError: as `Conductor.run` does.
    """
    with tempfile.TemporaryDirectory(prefix="genosum-") as folder:
        workspace = prepare(data, Path(folder) / "nodes", keep)
        return conductor(study, workspace, Path(folder) / "run", progress).run()

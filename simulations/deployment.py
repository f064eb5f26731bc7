"""A real federation on this machine: a SuperLink and one SuperNode a site, with TLS and node keys, on loopback.

    python -m simulations.deployment [STUDY] [--sites DIR] [--out DIR]

Everything is made by the commands that operators type, in a folder that is gone afterwards; every process is one that
they would start.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path

import tomli_w

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
os.environ["FLWR_DISABLE_UPDATE_CHECK"] = "1"

import fl_client.cli
import fl_server.cli
from fl_server import superlink
from fl_server.config import ServerConfig
from simulations.sites import COORDINATOR, Sites
from strategies.errors import GenosumError, UsageError

STUDY = Path(__file__).parent / "studies" / "demo.toml"
SITES = Path(__file__).parent / "data" / "europe1000g"
UP_S, DOWN_S = 90.0, 15.0


@dataclass
class Deployment:
    """A federation in a folder, and those of its processes that run.

    Attributes:
        folder: holds one folder a node, the coordinator's, and every process' log.
        server_file: the coordinator's file.
        node_files: site -> its node file.
        processes: "superlink" or a site -> the process, which leads a group of its own.
    """

    folder: Path
    server_file: Path
    node_files: Mapping[str, Path]
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def config(self) -> ServerConfig:
        return ServerConfig.read(self.server_file)

    def start(self, name: str) -> None:
        """Start the SuperLink, or a site's node. Its log is appended to."""
        module, file = ("fl_server.cli", self.server_file)
        if name != "superlink":
            module, file = "fl_client.cli", self.node_files[name]
        with self.log(name).open("ab") as out:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", module, "serve", str(file)],
                stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    def log(self, name: str) -> Path:
        """Where the SuperLink or a node writes."""
        return self.folder / f"{name}.log"

    def wait(self, names: Sequence[str] = ()) -> None:
        """Wait until these nodes (all, if none is named) are connected.

        Raises:
            GenosumError: if a process ended, or it takes more than a minute and a half.
        """
        names = names or tuple(self.node_files)
        deadline, up = time.monotonic() + UP_S, dict[str, bool]()
        while not all(up.get(name) for name in names):
            ended = [name for name in ("superlink", *names) if self.processes[name].poll() is not None]
            if ended or time.monotonic() > deadline:
                who = ended[0] if ended else next(name for name in names if not up.get(name))
                end = self.log(who).read_text(encoding="utf-8", errors="replace")[-2000:]
                raise GenosumError("Every process of the federation starts.", f"{who} did not:\n{end}", "see above.")
            time.sleep(0.1)
            try:
                up = dict(superlink.nodes(self.config.superlink.api, 0.0))
            except superlink.LinkError:
                up = {}

    def kill(self, name: str) -> None:
        """kill -9 the SuperLink, or a node with its SuperNode and its executor."""
        process = self.processes.pop(name)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def stop(self) -> None:
        """Stop every process as an operator would; what does not heed is killed."""
        for process in self.processes.values():
            process.terminate()
        deadline = time.monotonic() + DOWN_S
        for process in self.processes.values():
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        self.processes.clear()


def prepare(data: Path, folder: Path) -> Deployment:
    """Make a federation of a folder of sites, by the operators' own commands.

    Args:
        data: the folder with `sites.toml`.
        folder: a new folder, gets all keys, node files and copies of the data.

    Raises:
        UsageError: if `sites.toml` is not as it must be.
    """
    sites = Sites.read(data)
    fleet, api, *own = _free_ports(2 + len(sites.sites))
    home = folder / "coordinator"
    _command(fl_server.cli.main, "init", home, "--name", COORDINATOR, "--fleet-port", fleet, "--api-port", api)
    files = {}
    for port, (name, site) in zip(own, sites.sites.items(), strict=True):
        place = folder / name
        source = folder / "data" / name
        shutil.copytree((data / site.dataset.people).parent, source)
        genotypes = ["--genotypes", source / Path(site.dataset.genotypes).name] if site.dataset.genotypes else []
        flags = ["--own-total"] * site.own_total + ["--synthetic"] * site.dataset.synthetic
        _command(
            fl_client.cli.main, "init", place, "--name", name, "--country", site.country, *genotypes,
            "--people", source / Path(site.dataset.people).name, "--dataset", site.dataset.identifier,
            "--assembly", site.dataset.assembly, "--superlink", f"localhost:{fleet}", "--runtime-port", port,
            "--public-people", site.people, *flags,
        )  # fmt: skip
        files[name] = place / "node.toml"
        document = tomllib.loads(files[name].read_text(encoding="utf-8"))
        if site.dataset.exclude:
            document["dataset"]["exclude"] = str(shutil.copy(data / site.dataset.exclude, source))
        document["policy"] = (site.policy or sites.policy).plain() | {"own_total": site.own_total}
        files[name].write_text(tomli_w.dumps(document), encoding="utf-8")
        _command(fl_server.cli.main, "admit", home, place / "registration.toml")
    for name in files:
        for shared in ("federation.toml", "ca.crt"):
            shutil.copy(home / shared, folder / name / shared)
    return Deployment(folder, home / "server.toml", files)


def _command(main: Callable[[Sequence[str]], int], *words: object) -> None:
    said = io.StringIO()
    with redirect_stdout(said), redirect_stderr(said):
        code = main([str(word) for word in words])
    if code:
        raise UsageError("A federation is made by its commands.", said.getvalue().strip(), "see above.")


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


@contextmanager
def deployed(data: Path, folder: Path) -> Iterator[Deployment]:
    """A federation that is up; every process is gone afterwards.

    Raises:
        GenosumError: if it does not come up.
    """
    federation = prepare(data, folder)
    try:
        for name in ("superlink", *federation.node_files):
            federation.start(name)
        federation.wait()
        yield federation
    finally:
        federation.stop()


def main(arguments: Sequence[str] | None = None) -> int:
    """Ask a study of a federation that is made for it and torn down; the value is the exit code."""
    parser = argparse.ArgumentParser("python -m simulations.deployment")
    parser.add_argument("study", type=Path, nargs="?", default=STUDY, help="the study file (default: the demo)")
    parser.add_argument("--sites", type=Path, default=SITES, help="a folder with sites.toml (default: the demo's)")
    parser.add_argument("--out", type=Path, default=Path("results/federation"), help="a new folder for the answers")
    chosen = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    started = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="genosum-") as folder, deployed(chosen.sites, Path(folder)) as up:
            names = ", ".join(up.node_files)
            print(
                f"SuperLink and {len(up.node_files)} nodes ({names}) are up after {time.monotonic() - started:.1f} s."
            )
            begun = time.monotonic()
            command = [
                sys.executable, "-m", "fl_server.cli", "run", str(chosen.study),
                "--server", str(up.server_file), "--out", str(chosen.out),
            ]  # fmt: skip
            code = subprocess.run(command, check=False).returncode
            if code == 0:
                print(f"The study took {time.monotonic() - begun:.1f} s over real SuperNodes.")
            return code
    except GenosumError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())

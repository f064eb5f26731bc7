"""A real SuperLink and four real SuperNodes: same answers, one public interface, and what a `kill -9` does."""

from __future__ import annotations

import io
import os
import signal
import socket
import ssl
import subprocess
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import httpx
import numpy as np
import pytest

from fl_client.policy import NodeConfig
from fl_server import superlink
from fl_server.app import GridLink
from fl_server.conduct import Conductor, Result
from fl_server.marks import SeenMarks
from fl_server.results import load
from fl_server.session import Checkpoint
from simulations.deployment import SITES, Deployment
from simulations.run import simulate
from strategies.analysis import Answer
from strategies.federation import Federation, Identity
from strategies.privacy import Budget
from strategies.study import Study
from tests.deployment.conftest import ASSOCIATION, COUNTS, PRIVATE

Ask = Callable[..., "subprocess.Popen[str]"]
RHO = Budget(1.0, 1e-5).loss.rho


def same(one: Answer, other: Answer) -> bool:
    """Equal bit for bit, NaN included."""
    return one.facts == other.facts and all(
        np.array_equal(np.asarray(a), np.asarray(b), equal_nan=np.asarray(a).dtype.kind == "f")
        for name, table in one.tables.items()
        for a, b in zip(table.values(), other.tables[name].values(), strict=True)
    )


@pytest.fixture(scope="module")
def alone(write_study: Callable[..., Path]) -> Mapping[str, Result]:
    """The exact questions' answers in one process."""
    study = Study.read(write_study("alone", COUNTS, ASSOCIATION))
    return {result.question.name: result for result in simulate(study, SITES).results}


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit code and what was said, once it is over."""
    out, err = process.communicate()
    return process.returncode, out, err


def journal(federation: Deployment, site: str) -> list[dict[str, object]]:
    config = NodeConfig.read(federation.node_files[site])
    ledger = config.open_ledger()
    try:
        return list(ledger.journal())
    finally:
        ledger.close()


def spent(federation: Deployment, site: str) -> float:
    config = NodeConfig.read(federation.node_files[site])
    ledger = config.open_ledger()
    try:
        return ledger.spent().rho
    finally:
        ledger.close()


def test_exact_answers_are_those_of_one_process(
    federation: Deployment, alone: Mapping[str, Result], write_study: Callable[..., Path], tmp_path: Path
) -> None:
    study, config = Study.read(write_study("alone", COUNTS, ASSOCIATION)), federation.config
    parties = Federation.read(config.folder / config.federation)
    identity = Identity.read(config.folder / config.identity)
    with superlink.Run(config.superlink.api, config.secret, study.digest, tmp_path / "superlink.run") as run:
        link, checkpoint = GridLink(run.grid), Checkpoint(tmp_path / "run")
        seen = SeenMarks(tmp_path / "marks.json")
        results = Conductor(study, parties, config.name, identity, link, checkpoint, seen).run()
    assert [result.question.name for result in results] == ["counts", "gstt1"]
    for result in results:
        assert result.statement.sites == ("CEU", "FI", "GB", "IT")
        assert result.statement.absent == {}
        assert same(result.answer, alone[result.question.name].answer)


def test_the_public_port_serves_the_fleet_api_only(federation: Deployment) -> None:
    config = federation.config
    authority = ssl.create_default_context(cafile=str(config.folder / "ca.crt"))
    public = f"https://{config.superlink.listen}"
    with httpx.Client(verify=authority) as client:
        for path in (
            "/", "/health", "/docs", "/openapi.json", "/v1/control/list-nodes", "/v1/control/start-run",
            "/v1/control/register-node", "/v1/runtime/acquire-task", "/v1/runtime/push-messages",
            "/v1/fleet/../control/list-nodes", "/v1/fleet/%2e%2e/control/list-nodes",
        ):  # fmt: skip
            assert client.post(public + path).status_code == 404, path
            assert client.get(public + path).status_code == 404, path
        assert client.post(public + "/v1/fleet/pull-messages").status_code == 415  # there, and wants a protobuf
        assert client.post(f"http://{config.superlink.api}/v1/control/list-nodes").status_code == 415
    with pytest.raises(httpx.ConnectError):
        httpx.get(public)  # by no authority that the world knows
    host, _, port = config.superlink.listen.rpartition(":")
    for version, spoken in ((ssl.TLSVersion.TLSv1_2, "TLSv1.2"), (ssl.TLSVersion.TLSv1_3, "TLSv1.3")):
        context = ssl.create_default_context(cafile=str(config.folder / "ca.crt"))
        context.minimum_version = context.maximum_version = version
        with (
            socket.create_connection((host, int(port))) as plain,
            context.wrap_socket(plain, server_hostname=host) as s,
        ):
            assert s.version() == spoken


def test_everything_listens_on_loopback(federation: Deployment) -> None:
    """Read from the kernel: no socket of any of the federation's processes listens anywhere else."""
    inodes = set()
    for process in federation.processes.values():
        for number in _group(process.pid):
            for descriptor in Path(f"/proc/{number}/fd").iterdir():
                try:
                    target = os.readlink(descriptor)
                except OSError:
                    continue
                if target.startswith("socket:["):
                    inodes.add(target[8:-1])
    places = Counter()
    for table, loopback in (("tcp", "0100007F"), ("tcp6", "00000000000000000000000001000000")):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            cells = line.split()
            if cells[3] == "0A" and cells[9] in inodes:
                places[cells[1].split(":")[0] == loopback] += 1
    assert places == {True: 2 + len(federation.node_files)}


def _group(leader: int) -> list[int]:
    out = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if os.getpgid(int(place.name)) == leader:
                out.append(int(place.name))
        except ProcessLookupError:
            continue
    return out


def test_the_app_that_flower_wants_is_one_empty_file() -> None:
    fab = superlink.stub("a" * 64)
    with zipfile.ZipFile(io.BytesIO(fab)) as archive:
        assert sorted(archive.namelist()) == [".info/CONTENT", "pyproject.toml", "stub.py"]
        assert archive.read("stub.py") == b"app = None\n"
        assert b"a" * 64 in archive.read("pyproject.toml")
    assert len(fab) < 2000
    assert superlink.stub("a" * 64) != fab  # a nonce tells our task from everybody else's


def test_a_superlink_that_is_down_or_has_another_secret(federation: Deployment, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        nobody = f"127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(superlink.LinkError, match=r"SuperLink answers\.\n  Found:  .*refused\n  Remedy: start it with"):
        superlink.nodes(nobody, 0.0)
    run = superlink.Run(federation.config.superlink.api, b"another", "a" * 64, tmp_path / "superlink.run")
    with pytest.raises(superlink.LinkError, match=r"holds the secret of its SuperLink"), run:
        pass


def test_a_run_that_somebody_stopped(federation: Deployment, tmp_path: Path) -> None:
    memory = tmp_path / "superlink.run"
    with superlink.Run(federation.config.superlink.api, federation.config.secret, "b" * 64, memory) as run:
        assert len(list(run.grid.get_node_ids())) == len(federation.node_files)
        run._stop(int(memory.read_text()))
        with pytest.raises(superlink.LinkError, match=r"(?s)goes on until its coordinator ends it.*with --resume"):
            run.grid.get_node_ids()
    assert not memory.exists()


def test_kill_of_superlink_and_coordinator(
    federation: Deployment, alone: Mapping[str, Result], write_study: Callable[..., Path], asks: Ask, tmp_path: Path
) -> None:
    """Killed when the private total was opened but not yet on disk, killed again in mid-question, then resumed."""
    study, out = write_study("resumed", PRIVATE, COUNTS), tmp_path / "out"
    before = {site: (spent(federation, site), len(journal(federation, site))) for site in federation.node_files}
    code, _, said = ended(asks(study, out, dies=("before", "freq.1.1.0.total", "self")))
    assert code == -signal.SIGKILL, said
    group = str(federation.processes["superlink"].pid)
    code, _, said = ended(asks(study, out, "--resume", dies=("after", "counts.1.1.0.total", group, "self")))
    assert code == -signal.SIGKILL, said
    federation.processes.pop("superlink").wait()
    assert not out.exists()
    federation.start("superlink")
    federation.wait()
    asked = tmp_path / "asked"
    code, _, said = ended(asks(study, out, "--resume", dies=("asks", str(asked))))
    assert code == 0, said
    assert "Warning" not in said
    # The second exchange of counts: neither the finished question nor the finished slices.
    assert asked.read_text().splitlines() == ["1 Answered", "1 Unmasked"]
    for site, (rho, length) in before.items():
        lines = [line for line in journal(federation, site)[length:] if line.get("question") == "freq"]
        assert Counter(line["event"] for line in lines) == {"reserve": 1, "answer": 1, "unmask": 1}
        assert spent(federation, site) - rho == pytest.approx(RHO)
    table, columns = load(out)["counts"].table(), alone["counts"].answer.tables["frequencies"]
    numbers = {name: np.asarray(c) for name, c in columns.items() if name in table.columns and name != "chromosome"}
    assert {"ac", "an", "frequency", "hwe_p"} <= numbers.keys()
    for name, column in numbers.items():
        got = table[name].to_numpy()
        assert np.array_equal(got.astype(column.dtype), column, equal_nan=column.dtype.kind == "f"), name
    assert not (tmp_path / "out.run").exists()  # and with it the study's keys


def test_kill_of_a_node(federation: Deployment, write_study: Callable[..., Path], asks: Ask, tmp_path: Path) -> None:
    """Three coordinators are in mid-question when a node is killed: one goes on without it, one may not, one waits."""
    three, four = write_study("three", COUNTS), write_study("four", COUNTS, minimum_sites=4)
    moment, killed = "counts.1.1.0.total", tmp_path / "killed"
    waits = {
        "strict": asks(four, tmp_path / "strict", "--away", "0", dies=("after", moment, f"wait:{killed}")),
        "patient": asks(four, tmp_path / "patient", "--away", "3600", dies=("after", moment, f"wait:{killed}")),
    }
    while len(list(tmp_path.glob("*.run/ready"))) < len(waits):
        for process in waits.values():
            assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    group = str(federation.processes["CEU"].pid)
    dies = ("after", moment, group, f"touch:{killed}")
    code, _, said = ended(asks(three, tmp_path / "three", "--away", "0", dies=dies))
    killed.touch()  # whatever went wrong, the others do not wait for ever
    few, _, why = ended(waits["strict"])
    assert code == 0, said
    federation.processes.pop("CEU").wait()
    federation.start("CEU")
    assert "counts is answered without CEU, which did not answer" in said
    statement = load(tmp_path / "three")["counts"].statement
    assert set(statement["sites"]) == {"FI", "GB", "IT"}
    assert statement["absent"] == {"CEU": "did not answer"}
    assert "CEU" in (tmp_path / "three" / "report.html").read_text()
    assert few == 5, why
    assert "needs 4 sites" in why
    assert "CEU did not answer" in why
    assert "Traceback" not in why
    assert not (tmp_path / "strict").exists()
    code, _, said = ended(waits["patient"])
    assert code == 0, said
    assert set(load(tmp_path / "patient")["counts"].statement["sites"]) == set(federation.node_files)


def test_link_and_executor_end_with_their_parent(federation: Deployment) -> None:
    process = federation.processes.pop("IT")
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 60
    while _group(process.pid):
        assert time.monotonic() < deadline
        time.sleep(0.1)

"""A study over sites on one machine: the same gate and the same conduct, with no socket between them.

`LocalGrid` is a Flower Grid in one process. What passes are the same signed envelopes, which are bytes; how Flower
writes a record of bytes is left to networks. `over_ray` is Flower's simulation engine.
"""

from __future__ import annotations

import fcntl
import itertools
import json
import logging
import os
import shutil
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.task_identity import TaskIdentity

from fl_client.app import open_gate, respond
from strategies.errors import UsageError
from strategies.kernels.threads import THREADS

T = TypeVar("T")


class LocalGrid(Grid):
    """Nodes in this process. Each is a node file; the installed ClientApp answers for it."""

    def __init__(self, app: ClientApp, node_files: Sequence[Path]) -> None:
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1  # Message() insists on these
        self._app, self._run, self._count = app, None, itertools.count(1)
        self._replies: dict[str, Message] = {}
        self._sites = ThreadPoolExecutor(THREADS)
        self._contexts = {
            address: Context(
                run_id=1, node_id=address, node_config={"node": str(file)}, state=RecordDict(), run_config={}
            )
            for address, file in enumerate(node_files, start=1001)
        }

    def set_run(self, run: Any) -> None:
        self._run = run

    @property
    def run(self) -> Any:
        return self._run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        return list(self._contexts)

    def get_nodes(self) -> Iterable[NodeInfo]:
        return [NodeInfo(node_id=address) for address in self._contexts]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        numbered = [(f"m{next(self._count)}", message) for message in messages]
        self._replies |= self._sites.map(self._answered, numbered)
        return [identifier for identifier, _ in numbered]

    def _answered(self, numbered: tuple[str, Message]) -> tuple[str, Message]:
        """A message's identifier and reply."""
        identifier, message = numbered
        message.metadata.__dict__["_message_id"], message.metadata.__dict__["_run_id"] = identifier, 1
        try:
            reply = self._app(message, self._contexts[message.metadata.dst_node_id])
        except Exception:
            reply = Message(Error(2, "error on node (details withheld)"), reply_to=message)
        reply.metadata.__dict__["_reply_to_message_id"] = identifier
        return identifier, reply

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return [self._replies.pop(i) for i in message_ids if i in self._replies]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        return self.pull_messages(self.push_messages(messages))


# -- Flower's simulation engine ---------------------------------------------------------------------------------------

NODE_FILES = "GENOSUM_NODE_FILES"
"""Environment variable by which Ray's processes learn which node file each virtual node has: a JSON list of paths."""

INSIDE = "GENOSUM_OWN_NAMESPACE"

virtual_node = ClientApp()
"""The ClientApp of a virtual node: Ray numbers its nodes, and the number names the node file."""


@virtual_node.query("genosum")
def _genosum(message: Message, context: Context) -> Message:
    files = json.loads(os.environ[NODE_FILES])
    gate = open_gate(files[int(context.node_config["partition-id"])])
    return Message(respond(gate, message.content), reply_to=message)


def over_ray(node_files: Sequence[Path], conduct: Callable[[Grid], T]) -> T:
    """Run `conduct` over Flower's simulation engine with one virtual node a file.

    Ray listens on all interfaces without authentication: see `isolate`.
    """
    os.environ[NODE_FILES] = json.dumps([str(f) for f in node_files])
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"  # else Ray warns about accelerators that nobody asked for
    logging.getLogger("flwr").setLevel(logging.ERROR)  # the progress display says what there is to say
    from flwr.simulation import run_simulation  # noqa: PLC0415  (pulls in Ray, which most runs do without)

    server, outcome = ServerApp(), list[T | BaseException]()

    @server.main()
    def main(grid: Grid, _: Context) -> None:
        while len(list(grid.get_node_ids())) < len(node_files):
            time.sleep(0.1)
        try:
            outcome.append(conduct(grid))
        except BaseException as error:
            outcome.append(error)

    backend = {
        "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
        "init_args": {"num_cpus": 2, "include_dashboard": False},
    }
    run_simulation(server, virtual_node, num_supernodes=len(node_files), backend_config=backend)  # type: ignore[arg-type]
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]


def isolate(command: Sequence[str], allow_open_ports: bool) -> int | None:
    """Run the command again in a network namespace of its own, so that Ray's ports cannot be reached from outside.

    Returns:
        the command's exit code; None if this process is already inside, or open ports were allowed.

    Raises:
        UsageError: if the system does not allow a namespace and open ports were not allowed.
    """
    if os.environ.get(INSIDE):
        _loopback_up()
        return None
    if allow_open_ports:
        return None
    wrapped = ["unshare", "--user", "--map-root-user", "--net", sys.executable, "-m", "simulations.cli"]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*wrapped[:4], "true"], check=False, capture_output=True).returncode
    ):
        raise UsageError(
            "Ray opens ports on all interfaces, so it runs in a network namespace of its own.",
            "this system does not allow one",
            "use the default engine, or give --allow-open-ports on a machine that holds no real data.",
        )
    return subprocess.run([*wrapped, *command], check=False, env={**os.environ, INSIDE: "1"}).returncode


def _loopback_up() -> None:
    """Bring `lo` up in a fresh network namespace (SIOCGIFFLAGS, then SIOCSIFFLAGS with IFF_UP)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sh14x", b"lo", 0)
        flags = struct.unpack("16sh14x", fcntl.ioctl(control, 0x8913, request))[1]
        fcntl.ioctl(control, 0x8914, struct.pack("16sh14x", b"lo", flags | 1))

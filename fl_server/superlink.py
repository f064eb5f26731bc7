"""The SuperLink of a federation, and the coordinator's own process as its ServerApp.

One process serves two ports. The whole API (control, runtime, fleet) listens in plain HTTP on loopback and is for the
coordinator alone, since Flower's control API knows no accounts. The public port speaks TLS and serves `/v1/fleet/*`
only, to nodes whose key was registered. Started by itself:

    python -m fl_server.superlink server.toml

A study is conducted by the process that the coordinator types at: `Run` submits a stub app that holds nothing but a
digest and a nonce, takes that one task, and talks to the nodes through its Grid until it reports how it ended. No app
is ever unpacked at either end.

Flower's private names are touched here, in `fl_client/executor.py` and in `simulations/federation.py` alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import importlib
import json
import logging
import ssl
import sys
import threading
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

import httpx
import uvicorn
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_public_key
from flwr.app import Message
from flwr.cli.build import build_fab_from_files
from flwr.common.constant import SubStatus
from flwr.common.serde import run_from_proto
from flwr.proto.control_pb2 import ListNodesRequest, RegisterNodeRequest, StartRunRequest, StopRunRequest
from flwr.proto.fab_pb2 import Fab
from flwr.proto.node_pb2 import NodeInfo
from flwr.proto.runtime_pb2 import (
    AcquireTaskRequest,
    PullTaskInputRequest,
    PushTaskOutputRequest,
    SendTaskHeartbeatRequest,
)
from flwr.supercore.control.control_http_client import ControlHttpClient
from flwr.supercore.heartbeat import HeartbeatSender
from flwr.supercore.inflatable import inflatable_utils
from flwr.supercore.interceptors import (
    RuntimeTokenHttpInterceptor,
    RuntimeVersionHttpInterceptor,
    SuperExecAuthHttpInterceptor,
)
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supercore.retry import RetryInvoker, exponential
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.grid import HttpGrid

from fl_server.config import ServerConfig
from fl_server.ports import Application, check_port, fleet_only, held
from strategies.errors import GenosumError, UsageError

log = logging.getLogger("genosum.superlink")

# Objects of a message are there a moment after the message; Flower's own first look comes after a whole second.
_PULL = {"initial_backoff": 0.05, "backoff_cap": 1.0}
inflatable_utils.pull_objects.__kwdefaults__ = {**(inflatable_utils.pull_objects.__kwdefaults__ or {}), **_PULL}


class LinkError(GenosumError):
    """Raised when the SuperLink cannot be reached, or does not accept this coordinator's run."""

    exit_code: ClassVar[int] = 1


# -- the SuperLink's process --------------------------------------------------------------------------------------

REGISTER_S = 2.0
"""How often the folder of registered keys is looked at."""


def check(config: ServerConfig) -> None:
    """Assert that a SuperLink can start from this file.

    Raises:
        UsageError: if a port is in use or a file is missing or open to others.
    """
    paths = config.superlink
    config.secret  # noqa: B018  (its own check)
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(config.folder / paths.certificate, config.folder / paths.key)
    except (OSError, ssl.SSLError) as error:
        raise UsageError(
            "A SuperLink has a certificate and its key.",
            f"{paths.certificate}, {paths.key}: {error.strerror or 'not a pair'}",
            "make them with `fl-server init`, or restore them.",
        ) from None
    check_port(paths.listen, "listen")
    check_port(paths.api, "api")


def serve(config: ServerConfig) -> None:
    """Serve until a signal comes. Expects FLWR_TELEMETRY_ENABLED=0 in the environment."""
    # The server's modules are heavy, and a coordinator's terminal does not need them.
    flower = importlib.import_module("flwr.superlink.cli.flower_superlink")
    create_app = importlib.import_module("flwr.superlink.main").create_app
    paths = config.superlink
    host, _, port = paths.api.rpartition(":")
    database = config.folder / paths.database
    database.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    sys.argv = [
        "flower-superlink", "--insecure", "--host", host, "--port", port, "--isolation", "process",
        "--superexec-auth-secret-file", str(config.folder / paths.secret),
        "--disable-runtime-dependency-installation", "--database", str(database),
    ]  # fmt: skip
    lifespan = flower._parse_superlink_lifespan_config()
    # The command refuses node keys without TLS on the same port; here TLS is on the other one.
    lifespan.enable_supernode_auth = True
    asyncio.run(_serve(config, held(create_app(lifespan, flower.SuperLinkLifespan))))


async def _serve(config: ServerConfig, application: Application) -> None:
    paths = config.superlink
    host, _, port = paths.api.rpartition(":")
    inner = uvicorn.Server(uvicorn.Config(application, host=host, port=int(port), access_log=False))
    host, _, port = paths.listen.rpartition(":")
    public = uvicorn.Config(
        fleet_only(application),
        host=host.strip("[]"),
        port=int(port),
        ssl_certfile=config.folder / paths.certificate,
        ssl_keyfile=str(config.folder / paths.key),
        access_log=False,
        server_header=False,
        lifespan="off",  # the inner server runs it
        log_config=None,
    )
    public.load()
    assert public.ssl is not None
    public.ssl.minimum_version = ssl.TLSVersion.TLSv1_2
    outer = uvicorn.Server(public)
    outer.capture_signals = contextlib.nullcontext  # type: ignore[method-assign, assignment]  # they belong to the inner server
    whole = asyncio.create_task(inner.serve())
    while not (inner.started or whole.done()):
        await asyncio.sleep(0.02)
    sides = [asyncio.create_task(outer.serve()), asyncio.create_task(_register(config))]
    await whole
    outer.should_exit = True
    sides[1].cancel()
    await asyncio.gather(*sides, return_exceptions=True)


async def _register(config: ServerConfig) -> None:
    """Register the nodes of the folder of keys, also those that are admitted while the SuperLink runs."""
    folder, known = config.folder / config.superlink.supernodes, set[str]()
    while True:
        for file in sorted(folder.glob("*.pub")):
            if file.name not in known:
                known.add(file.name)
                try:
                    await asyncio.to_thread(register, config.superlink.api, file.stem, file.read_bytes())
                    log.info("node %s may join", file.stem)
                except (GenosumError, OSError) as error:
                    log.error("node %s: %s", file.stem, error)
        await asyncio.sleep(REGISTER_S)


# -- the coordinator's side ---------------------------------------------------------------------------------------

BRIDGE_S = 60.0
"""A running study waits this long for a SuperLink that restarts."""

ANSWER_S = 5.0
"""A new run waits this long for the SuperLink."""

_RULE = "A coordinator's SuperLink answers."
_START = "start it with `fl-server serve`"


def _retry(longest_s: float) -> RetryInvoker:
    # Flower's own policy waits for ever, and answers HTTP 401 by sending SIGINT to its own process.
    return RetryInvoker(lambda: exponential(0.2, max_delay=2), httpx.TransportError, None, longest_s)


@contextmanager
def _told(address: str, remedy: str = f"{_START}.") -> Iterator[None]:
    """Failures of the connection, as errors for people."""
    try:
        yield
    except httpx.TransportError as error:
        raise LinkError(_RULE, f"{address}: {error or type(error).__name__}", remedy) from None
    except httpx.HTTPStatusError as error:
        status = error.response.status_code
        if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise LinkError(
                "A run goes on until its coordinator ends it.",
                f"the SuperLink at {address} no longer knows it: it was stopped, or gave no sign for a minute",
                "run again with --resume.",
            ) from None
        found = f"{address}{error.request.url.path}: HTTP {status} {_reason(error)}".rstrip()
        raise LinkError("A SuperLink accepts what a coordinator of its version sends.", found, remedy) from None


def _reason(error: httpx.HTTPStatusError) -> str:
    try:
        return str(json.loads(error.response.text).get("message", ""))[:200]
    except (ValueError, AttributeError):
        return ""


def _control(address: str, longest_s: float = ANSWER_S) -> ControlHttpClient:
    version = RuntimeVersionHttpInterceptor(component_name="flwr CLI")
    return ControlHttpClient.from_server_address(address, True, None, [version], retry_invoker=_retry(longest_s))


def public_key(name: str, key: bytes) -> ec.EllipticCurvePublicKey:
    """A node's key from its OpenSSH line.

    Raises:
        UsageError: if it is not one of an elliptic curve.
    """
    try:
        public = load_ssh_public_key(key)
    except (ValueError, UnsupportedAlgorithm):
        public = None
    if not isinstance(public, ec.EllipticCurvePublicKey):
        raise UsageError(
            "A SuperNode's key is an ECDSA key in OpenSSH form.", f"{name}: something else", "run `fl-client init`."
        )
    return public


def register(address: str, name: str, key: bytes) -> None:
    """Let the holder of a key join as a node; once or many times.

    Args:
        address: the API's host:port.
        name: the node's name, for listings.
        key: its public key, as one OpenSSH line.

    Raises:
        UsageError: if the key is not one of an elliptic curve.
        LinkError: if the SuperLink does not answer.
    """
    public = public_key(name, key)
    request = RegisterNodeRequest(public_key=public_key_to_bytes(public), name=name)
    with _told(address), _closing(_control(address, BRIDGE_S)) as control:
        try:
            control.RegisterNode(request)
        except httpx.HTTPStatusError as error:
            if error.response.status_code != httpx.codes.PRECONDITION_FAILED:  # that is: it is registered already
                raise


def nodes(address: str, longest_s: float = ANSWER_S) -> Mapping[str, bool]:
    """Each registered node, and whether it is connected now.

    Raises:
        LinkError: if the SuperLink does not answer.
    """
    with _told(address), _closing(_control(address, longest_s)) as control:
        return {node.name: node.status == "online" for node in control.ListNodes(ListNodesRequest()).nodes_info}


@contextmanager
def _closing(client: Any) -> Iterator[Any]:
    try:
        yield client
    finally:
        client.close()


def stub(digest: str) -> bytes:
    """An app of one empty file: Flower wants one, nobody opens it. Its nonce tells our task from everybody else's."""
    description = f"{digest} {uuid.uuid4().hex}"
    project = f"""[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "genosum-stub"
version = "1.0.0"
description = "{description}"
license = "Apache-2.0"
dependencies = ["flwr>=1.41.0"]
[tool.flwr.app]
publisher = "genosum"
[tool.flwr.app.components]
serverapp = "stub:app"
clientapp = "stub:app"
[tool.flwr.app.config]
"""
    fab, _ = build_fab_from_files({"pyproject.toml": project.encode(), "stub.py": b"app = None\n"})
    return bytes(fab)


class _Grid(HttpGrid):  # type: ignore[misc, unused-ignore]
    """Flower's Grid with errors for people, which notices when its run was stopped."""

    def __init__(self, address: str, token: str, lost: threading.Event) -> None:
        super().__init__(address, insecure=True, token=token)
        self._address, self._lost = address, lost
        self._retry_invoker = _retry(BRIDGE_S)

    @contextmanager
    def _watched(self) -> Iterator[None]:
        if self._lost.is_set():
            raise LinkError(
                "A run goes on until its coordinator ends it.",
                f"the SuperLink at {self._address} ended it",
                "run again with --resume.",
            )
        with _told(self._address, f"{_START}, then run again with --resume."):
            yield

    def get_nodes(self) -> Iterable[NodeInfo]:
        with self._watched():
            return super().get_nodes()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        messages = list(messages)
        with self._watched():
            identifiers = list(super().push_messages(messages))
        if len(identifiers) != len(messages):
            raise LinkError("A message fits through the SuperLink.", "it refused one as too large", "ask for less.")
        return identifiers

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        with self._watched():
            return super().pull_messages(message_ids)


class Run:
    """A Flower run whose ServerApp is this process.

        with Run(config.superlink.api, config.secret, study.digest, folder / "superlink.run") as run:
            Conductor(..., GridLink(run.grid), ...).run()

    One at a time in a process: Flower keeps the task's identity in a class.
    """

    def __init__(self, address: str, secret: bytes, digest: str, memory: Path) -> None:
        """Args:
        address: the API's host:port.
        secret: the SuperExec secret.
        digest: what the run is about, for listings.
        memory: file that remembers this run's number. The number that it holds from a killed process is stopped first.
        """
        self._address, self._secret, self._digest, self._memory = address, secret, digest, memory
        self._lost, self._ended = threading.Event(), False

    def __enter__(self) -> Self:
        """Raises:
        LinkError: if the SuperLink does not answer or refuses the secret.
        """
        with _told(self._address), contextlib.ExitStack() as opened:
            self._control = _control(self._address)
            opened.callback(self._control.close)
            self._stop_stale()
            fab = stub(self._digest)
            sha = hashlib.sha256(fab).hexdigest()
            self._number = self._control.StartRun(StartRunRequest(fab=Fab(hash_str=sha, content=fab))).run_id
            self._memory.write_text(str(self._number))
            opened.callback(self._abandon)
            token = self._acquire(sha)
            self.grid = _Grid(self._address, token, self._lost)
            opened.callback(self.grid.close)
            self._pulse = self._runtime("flwr-serverapp", RuntimeTokenHttpInterceptor(token))
            opened.callback(self._pulse.close)
            task = self.grid._runtime_client.PullTaskInput(PullTaskInputRequest())  # the run is now "running"
            TaskIdentity.task_id, TaskIdentity.run_id = task.task_id, task.run.run_id
            TaskIdentity.node_id = task.context.node_id
            self.grid.set_run(run_from_proto(task.run))
            self._heart = HeartbeatSender(self._beat)
            self._heart.start()
            self._opened = opened.pop_all()
        return self

    def _acquire(self, sha: str) -> str:
        """The token of our task. Asked by type, the SuperLink would hand out the oldest task of anybody."""
        secret = SuperExecAuthHttpInterceptor(
            master_secret=self._secret, protected_methods=frozenset({"/flwr.proto.Runtime/AcquireTask"})
        )
        with _closing(self._runtime("SuperExec", secret)) as client:
            try:
                # Undocumented: the field is matched against the app's hash of a task of any type.
                reply = client.AcquireTask(AcquireTaskRequest(agentapp_fab_hashes=[sha]))
            except httpx.HTTPStatusError as error:
                if error.response.status_code != httpx.codes.UNAUTHORIZED:
                    raise
                raise LinkError(
                    "A coordinator holds the secret of its SuperLink.",
                    f"{self._address} does not accept it",
                    "use the server.toml from which the SuperLink was started.",
                ) from None
        if not reply.token or reply.task.run_id != self._number:
            raise LinkError(
                "A run's task is taken by the process that submitted it.", "it was taken by another", "run again."
            )
        return str(reply.token)

    def _runtime(self, name: str, credentials: Any) -> RuntimeHttpClient:
        version = RuntimeVersionHttpInterceptor(component_name=name)
        return RuntimeHttpClient.from_server_address(self._address, True, None, [version, credentials])

    def _beat(self) -> bool:
        # Flower's own function raises SIGINT in this process once the run was stopped; a flag is enough.
        try:
            if self._pulse.SendTaskHeartbeat(SendTaskHeartbeatRequest()).success:
                return True
        except httpx.TransportError:
            return False
        except httpx.HTTPStatusError as error:
            if error.response.status_code >= httpx.codes.INTERNAL_SERVER_ERROR:
                return False
        self._lost.set()
        return True

    def _stop_stale(self) -> None:
        """Stop the run that a killed process left behind, so that its queued messages do not keep nodes busy."""
        with contextlib.suppress(OSError, ValueError):
            self._stop(int(self._memory.read_text()))

    def _abandon(self) -> None:
        if not self._ended:
            self._stop(self._number)

    def _stop(self, number: int) -> None:
        with contextlib.suppress(httpx.HTTPError):  # it ended by itself, or the SuperLink is gone
            self._control.StopRun(StopRunRequest(run_id=number))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        status = SubStatus.COMPLETED if kind is None else SubStatus.FAILED
        # The details stand in the SuperLink's listing: the kind of an error, never its text.
        details = "" if kind is None else f"coordinator: {kind.__name__}"
        self.grid._runtime_client._retry_invoker = _retry(ANSWER_S)
        with contextlib.suppress(httpx.HTTPError):
            self.grid._runtime_client.PushTaskOutput(PushTaskOutputRequest(sub_status=status, details=details))
            self._ended = True
        if self._heart.is_running:
            self._heart.stop()
        self._opened.close()
        self._memory.unlink(missing_ok=True)


def main() -> None:
    """`python -m fl_server.superlink server.toml`, what `fl-server serve` becomes."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s [%(name)s] %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    serve(ServerConfig.read(Path(sys.argv[1])))


if __name__ == "__main__":
    main()

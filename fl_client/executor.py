"""A node's two processes, and the one that looks after them.

    link   Flower's SuperNode, which dials out to the SuperLink and holds messages; it never sees data
    work   takes messages from it over loopback and answers them with the installed ClientApp, `fl_client.app.app`

An app that came with a run (a FAB) is neither unpacked nor imported, no other app can be named, and the text of an
exception stays here: what the other side gets is a constant. Which node file is answered for is decided by the
operator's command line alone.

Flower's private names are touched here, in `fl_server/superlink.py` and in `simulations/federation.py` alone.
"""

from __future__ import annotations

import importlib
import logging
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
import types
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import httpx
from flwr.app import Error, Message
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode, SubStatus
from flwr.proto.runtime_pb2 import AcquireTaskRequest, SendTaskHeartbeatRequest
from flwr.supercore import heartbeat
from flwr.supercore.inflatable import inflatable_utils
from flwr.supercore.interceptors import (
    RuntimeTokenHttpInterceptor,
    RuntimeVersionHttpInterceptor,
    SuperExecAuthHttpInterceptor,
)
from flwr.supercore.retry import RetryInvoker, exponential
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supernode import fleet_http_connection
from flwr.supernode.runtime.run_clientapp import pull_task_input, push_message, push_task_output

from fl_client.policy import Link, NodeConfig
from strategies.errors import GenosumError, UsageError

log = logging.getLogger("genosum.executor")

BUSY_POLL_S, IDLE_POLL_S, BUSY_FOR_S = 0.05, 0.5, 10.0
"""How often a process looks for work, within some seconds of the last and after them."""

HEARTBEAT_S = 10
"""The shortest interval that a SuperLink allows: a killed node is known to be gone, and may come back, after 20 s."""

RESTART_S, MOST_RESTART_S, LIVED_S = 1.0, 15.0, 60.0
"""The pause before a process is started again, doubled each time that it does not live for a minute."""

STOP_S = 10.0

for _pull in (inflatable_utils.pull_objects, inflatable_utils.pull_and_inflate_object_from_tree):
    # Objects of a message are there a moment after the message; Flower's own first look comes after a whole second.
    _pull.__kwdefaults__ = {**(_pull.__kwdefaults__ or {}), "initial_backoff": 0.05, "backoff_cap": 1.0}


class _Pace:
    """How long to sleep between looks."""

    def __init__(self) -> None:
        self._last = 0.0

    def worked(self) -> None:
        self._last = time.monotonic()

    def sleep(self) -> None:
        time.sleep(BUSY_POLL_S if time.monotonic() - self._last < BUSY_FOR_S else IDLE_POLL_S)


# -- link ---------------------------------------------------------------------------------------------------------


def link(config: NodeConfig, secret: Path) -> None:
    """Run Flower's SuperNode until a signal comes."""
    where = link_of(config)
    client = importlib.import_module("flwr.supernode.start_client_internal")
    pace = _Pace()

    def sleep(seconds: float) -> None:
        # Two sleeps are written into that module: 0.5 s while the executor works, 3 s while there is no message.
        if seconds < 3:
            pace.worked()
            time.sleep(0.02)
        else:
            pace.sleep()

    client.time = types.SimpleNamespace(sleep=sleep, time=time.time, monotonic=time.monotonic)  # type: ignore[attr-defined]
    for module in (fleet_http_connection, heartbeat):
        vars(module)["HEARTBEAT_DEFAULT_INTERVAL"] = HEARTBEAT_S
    sys.argv = [
        "flower-supernode", "--isolation", "process", "--superexec-auth-secret-file", str(secret),
        "--superlink", where.superlink, "--root-certificates", str(config.folder / where.root_certificates),
        "--auth-supernode-private-key", str(config.folder / where.node_key),
        "--host", "127.0.0.1", "--port", str(where.runtime_port),
    ]  # fmt: skip
    importlib.import_module("flwr.supernode.cli.flower_supernode").flower_supernode()


# -- work ---------------------------------------------------------------------------------------------------------


def work(config: NodeConfig, node_file: Path, secret: Path) -> NoReturn:
    """Answer messages for ever.

    Raises:
        UsageError: if the node's file, key or federation file are not as they must be.
    """
    installed = importlib.import_module("fl_client.app")  # here, so that the link's process holds nothing that reads
    installed.open_gate(str(node_file))  # reads the data once, before there is anything to answer
    address = f"127.0.0.1:{link_of(config).runtime_port}"
    credentials = SuperExecAuthHttpInterceptor(
        master_secret=secret.read_bytes(), protected_methods=frozenset({"/flwr.proto.Runtime/AcquireTask"})
    )
    tasks, pace = _client(address, "SuperExec", credentials, None), _Pace()
    log.info("%s answers", config.name)
    while True:
        reply = tasks.AcquireTask(AcquireTaskRequest(supported_task_types=["flwr-clientapp"]))
        if reply.token:
            _answer(address, reply.token, installed.app, node_file)
            pace.worked()
        else:
            pace.sleep()


def _answer(address: str, token: str, app: ClientApp, node_file: Path) -> None:
    """Take one message, answer it, push the reply. Whatever happens, the executor lives on."""
    started = time.monotonic()
    client = _client(address, "flwr-clientapp", RuntimeTokenHttpInterceptor(token), 60.0)
    pulse = _client(address, "flwr-clientapp", RuntimeTokenHttpInterceptor(token), 0.0)
    heart = heartbeat.HeartbeatSender(lambda: _beat(pulse))
    heart.start()
    status, context = SubStatus.FAILED, None
    try:
        message, context, _, _ = pull_task_input(client)  # the last is the run's app: left as the bytes that it is
        reply, status = respond(app, message, context, node_file)
        log.info("answered a message in %.2f s", time.monotonic() - started)
        push_message(client, reply, context)
    except Exception as error:  # such as a run that was stopped meanwhile
        _note("a message was not answered", error)
    finally:
        with suppress(httpx.HTTPError):
            push_task_output(client=client, context=context, sub_status=status, details="")
        heart.stop()
        pulse.close()
        client.close()


def respond(app: ClientApp, message: Message, context: Any, node_file: Path) -> tuple[Message, str]:
    """The app's reply, or a constant error, and the task's status."""
    context.node_config["node"] = str(node_file)  # set here and last, so that nothing received can name another file
    try:
        return app(message=message, context=context), SubStatus.COMPLETED
    except Exception as error:
        _note("the app failed", error)
        withheld = Error(code=ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason="error on node (details withheld)")
        return Message(withheld, reply_to=message), SubStatus.FAILED


def _note(what: str, error: Exception) -> None:
    # The text of an exception may hold data; its kind and place do not.
    where = [f"{Path(f.filename).name}:{f.lineno}" for f in traceback.extract_tb(error.__traceback__)]
    log.error("%s: %s at %s", what, type(error).__name__, " < ".join(reversed(where[-6:])))


def _client(address: str, name: str, credentials: Any, longest_s: float | None) -> RuntimeHttpClient:
    # Flower's own retry policy answers HTTP 401 by sending SIGINT to its own process.
    retry = RetryInvoker(lambda: exponential(0.2, max_delay=2), httpx.TransportError, None, longest_s)
    version = RuntimeVersionHttpInterceptor(component_name=name)
    return RuntimeHttpClient.from_server_address(address, True, None, [version, credentials], retry_invoker=retry)


def _beat(pulse: RuntimeHttpClient) -> bool:
    try:
        pulse.SendTaskHeartbeat(SendTaskHeartbeatRequest())
    except httpx.TransportError:
        return False
    except httpx.HTTPStatusError:
        return True  # the task is over; its reply will be refused, which is noted there
    return True


# -- both ---------------------------------------------------------------------------------------------------------


def link_of(config: NodeConfig) -> Link:
    """The node's `[link]` table.

    Raises:
        UsageError: if it has none.
    """
    if config.link is None:
        raise UsageError(
            "A node that serves has a [link] table.",
            f"{config.name} has none",
            "see a file that `fl-client init` made.",
        )
    return config.link


def check_port(config: NodeConfig) -> None:
    """Assert that the node's own port is free.

    Raises:
        UsageError: if another process listens there.
    """
    port = link_of(config).runtime_port
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise UsageError(
                "A port is listened on by one process.",
                f"runtime_port = {port}: {os.strerror(error.errno or 0)}",
                "stop the other process, or choose another port in the [link] table.",
            ) from None


def serve(config: NodeConfig, node_file: Path) -> int:
    """Keep link and executor running until SIGTERM or SIGINT; both end with this process, however it ends.

    A link that ended is started again; the executor waits for it. If the executor ended, both are: a SuperNode that
    lost its executor would hold its message for a minute. A node file that breaks a rule is not tried twice.

    Returns:
        The exit code.
    """
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    secret = _fresh_secret(config)
    children = {role: _start(role, node_file, secret) for role in ("link", "work")}
    started, pause_s = time.monotonic(), RESTART_S
    while not stop.wait(0.1):
        ended = {role: child.returncode for role, child in children.items() if child.poll() is not None}
        if not ended:
            continue
        if "work" in ended:
            _end(children)
            if ended["work"] == UsageError.exit_code:
                return UsageError.exit_code
        pause_s = RESTART_S if time.monotonic() - started > LIVED_S else min(2 * pause_s, MOST_RESTART_S)
        log.warning("ended: %s; next start in %.0f s", ended, pause_s)
        if stop.wait(pause_s):
            break
        started = time.monotonic()
        children |= {role: _start(role, node_file, secret) for role, c in children.items() if c.poll() is not None}
    _end(children)
    log.info("%s stopped", config.name)
    return 0


def _fresh_secret(config: NodeConfig) -> Path:
    """A secret that link and executor share for as long as they live."""
    state = config.folder / config.state
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = state / "executor.secret"
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(secrets.token_bytes(32))
    return path


def _start(role: str, node_file: Path, secret: Path) -> subprocess.Popen[bytes]:
    quiet = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
    place = {"FLWR_HOME": str(secret.parent / "flwr"), "GENOSUM_PARENT": str(os.getpid())}
    command = [sys.executable, "-m", "fl_client.executor", role, str(node_file), str(secret)]
    return subprocess.Popen(command, env={**os.environ, **quiet, **place}, stdin=subprocess.DEVNULL)


def _end(children: dict[str, subprocess.Popen[bytes]]) -> None:
    for child in children.values():
        if child.poll() is None:
            child.terminate()
    deadline = time.monotonic() + STOP_S
    for child in children.values():
        try:
            child.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _follow(parent: int) -> None:
    """End this process when its parent ended, also if that was killed and could not say so."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def main() -> int:
    """`python -m fl_client.executor link|work NODE.toml SECRET`, the two children of `fl-client serve`."""
    role, node_file, secret = sys.argv[1], Path(sys.argv[2]).resolve(), Path(sys.argv[3]).resolve()
    _follow(int(os.environ["GENOSUM_PARENT"]))
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s [%(name)s] %(message)s", stream=sys.stdout
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        config = NodeConfig.read(node_file)
        if role == "link":
            link(config, secret)
        else:
            work(config, node_file, secret)
    except GenosumError as error:
        print(error, file=sys.stderr, flush=True)
        return error.exit_code
    except (httpx.HTTPError, OSError) as error:
        _note("the executor lost its SuperNode", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

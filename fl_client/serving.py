"""What must hold before a node is served: its keys are its own, the authority is valid, and nobody else serves it."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from fl_client.policy import NodeConfig
from strategies.errors import UsageError


def own_file(path: Path, what: str) -> None:
    """Refuse a secret that is not there, or that others may read.

    Raises:
        UsageError: if so.
    """
    try:
        mode = path.stat().st_mode & 0o077
    except OSError as error:
        raise UsageError(
            f"A node has its {what}.", f"{path}: {error.strerror}", "restore it, or register anew."
        ) from None
    if mode:
        raise UsageError("A key may be read by its owner alone.", f"{path} is open to others", f"chmod 600 {path}")


def authority(path: Path) -> str:
    """The day until which the certificate of the SuperLink's authority is valid.

    Raises:
        UsageError: if there is none, or its day is past.
    """
    try:
        end = x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc
    except OSError as error:
        raise UsageError(
            "A node pins the authority of the SuperLink's certificate.",
            f"{path}: {error.strerror}",
            "get ca.crt from the coordinator.",
        ) from None
    except ValueError:
        raise UsageError(
            "A node pins the authority of the SuperLink's certificate.",
            f"{path} is no certificate in PEM form",
            "get ca.crt from the coordinator.",
        ) from None
    if end < datetime.now(UTC):
        raise UsageError(
            "A certificate is valid.", f"{path} ended on {end:%Y-%m-%d}", "get a new one from the coordinator."
        )
    return f"{end:%Y-%m-%d}"


@contextmanager
def once(config: NodeConfig) -> Iterator[None]:
    """Hold the node's serving lock, which its process loses however it ends."""
    state = config.folder / config.state
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (state / "serving").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UsageError(
                "A node is served once.", f"{config.name} is being served", "stop the other first."
            ) from None
        yield


def served(config: NodeConfig) -> bool:
    """Whether a process serves the node now."""
    try:
        with once(config):
            return False
    except UsageError:
        return True

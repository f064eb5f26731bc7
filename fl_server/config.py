"""A coordinator's own file: where its SuperLink listens and where its keys lie."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from strategies.codec import decode, read_toml
from strategies.errors import UsageError


@dataclass(frozen=True)
class SuperLinkConfig:
    """The `[superlink]` table of a coordinator's file.

    Attributes:
        listen: host:port of the public port, for the nodes.
        api: host:port of the whole API; loopback.
        certificate, key: the public port's, in PEM form.
        secret: file of the secret without which nobody takes a run's task.
        database: file of the SuperLink's state, by which nodes and runs outlive a restart.
        supernodes: folder with one public key a registered node.
    """

    listen: str
    api: str
    certificate: str
    key: str
    secret: str
    database: str
    supernodes: str

    def __post_init__(self) -> None:
        for name in ("listen", "api"):
            host, _, port = getattr(self, name).rpartition(":")
            if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
                raise ValueError(f"{name} must be host:port, such as 127.0.0.1:9443.")
        if self.api.rpartition(":")[0] not in ("127.0.0.1", "localhost", "[::1]"):
            raise ValueError("api must be a loopback address: whoever reaches it can register nodes and stop runs.")


@dataclass(frozen=True)
class ServerConfig:
    """A coordinator's file, with all its paths relative to the file's folder."""

    name: str
    federation: str
    identity: str
    superlink: SuperLinkConfig
    folder: Path = Path()

    @staticmethod
    def read(path: Path) -> ServerConfig:
        """Read a coordinator's file strictly.

        Raises:
            UsageError: if it is missing or not as it must be.
        """
        raw = read_toml(
            path, "A coordinator's file", "A coordinator's file is readable.", "make one with `fl-server init`."
        )
        config = decode(ServerConfig, raw, path.name, leave_out=frozenset({"folder"}))
        return replace(config, folder=path.parent.resolve())

    @property
    def secret(self) -> bytes:
        """The SuperExec secret.

        Raises:
            UsageError: if its file is missing or open to others.
        """
        path = self.folder / self.superlink.secret
        try:
            mode, secret = path.stat().st_mode & 0o077, path.read_bytes()
        except OSError as error:
            raise UsageError(
                "A coordinator keeps the SuperLink's secret in a file.", f"{path}: {error.strerror}", "restore it."
            ) from None
        if mode or not secret:
            found = f"{path} is open to others" if mode else f"{path} is empty"
            raise UsageError("A secret may be read by its owner alone.", found, f"chmod 600 {path}")
        return secret

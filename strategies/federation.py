"""Who takes part: the file that every party pins. It is the root of trust; no key comes from anywhere else."""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from strategies.codec import decode, read_toml
from strategies.dictionary import Described
from strategies.errors import UsageError


@dataclass(frozen=True)
class Node:
    """A national node as the others know it.

    Attributes:
        country: ISO 3166 alpha-2 code.
        identity: its Ed25519 public key, base64.
        own_total: whether this node accepts that its own total may follow from others'.
        people: a public, approximate number of people, for planning; 0 if it states none.
        columns: its public dictionary, which `fl-client dictionary` writes: column -> public range or categories, and
            what it means; for whoever writes a study, for planning and for synthetic twins.
    """

    country: str
    identity: str
    own_total: bool = False
    people: int = 0
    columns: Mapping[str, Described] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not (len(self.country) == 2 and self.country.isascii() and self.country.isupper()):
            raise ValueError("country must be a two-letter ISO code such as FI.")
        if self.people < 0:
            raise ValueError("people must be at least 0.")
        public_key(self.identity)

    def plain(self) -> dict[str, Any]:
        """What the federation's file would say of it."""
        return asdict(self) | {"columns": {name: column.plain() for name, column in self.columns.items()}}


@dataclass(frozen=True)
class Coordinator:
    """A coordinator as the nodes know it."""

    identity: str

    def __post_init__(self) -> None:
        public_key(self.identity)


@dataclass(frozen=True)
class Federation:
    """Nodes and coordinators by name, with the keys by which they are known."""

    name: str
    nodes: Mapping[str, Node]
    coordinators: Mapping[str, Coordinator]

    def __post_init__(self) -> None:
        keys = [n.identity for n in self.nodes.values()] + [c.identity for c in self.coordinators.values()]
        if len(set(keys)) != len(keys):
            raise ValueError("every node and coordinator has an identity key of its own.")
        if any(not name.isidentifier() for name in (*self.nodes, *self.coordinators)):
            raise ValueError("names are made of letters, digits and '_'.")

    def plain(self) -> dict[str, Any]:
        """What the federation's file would say."""
        return asdict(self) | {"nodes": {name: node.plain() for name, node in self.nodes.items()}}

    @staticmethod
    def read(path: Path) -> Federation:
        """Read the pinned file.

        Raises:
            UsageError: if it is missing or not as it must be.
        """
        raw = read_toml(path, "A federation file", "A federation file is readable.", "make one with `fl-server init`.")
        return decode(Federation, raw, path.name)


class Identity:
    """A party's long-term Ed25519 signing key."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key

    @staticmethod
    def generate() -> Identity:
        return Identity(Ed25519PrivateKey.generate())

    @property
    def public(self) -> str:
        raw = self._key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        return base64.b64encode(raw).decode()

    def sign(self, data: bytes) -> bytes:
        return self._key.sign(data)

    def write(self, path: Path) -> None:
        """Write the key to a new file of mode 0600.

        Raises:
            UsageError: if the file exists: a key is never overwritten.
        """
        pem = self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        write_secret(path, pem)

    @staticmethod
    def read(path: Path) -> Identity:
        """Read a key from a file that only its owner may read.

        Raises:
            UsageError: if the file is missing, open to others, or not an Ed25519 key.
        """
        try:
            mode = path.stat().st_mode & 0o077
            key = serialization.load_pem_private_key(path.read_bytes(), password=None)
        except OSError as error:
            raise UsageError(
                "A signing key is a readable file.",
                f"{path}: {error.strerror}",
                "make one with `init`, or correct the path.",
            ) from None
        except ValueError:
            raise UsageError(
                "A signing key is an Ed25519 key in PEM form.", f"{path}: something else", "restore it."
            ) from None
        if mode:
            raise UsageError(
                "A signing key may be read by its owner alone.", f"{path} is open to others", f"chmod 600 {path}"
            )
        if not isinstance(key, Ed25519PrivateKey):
            raise UsageError("A signing key is an Ed25519 key in PEM form.", f"{path}: another kind", "restore it.")
        return Identity(key)


def write_secret(path: Path, data: bytes) -> None:
    """Write a new file that only its owner may read.

    Raises:
        UsageError: if the file exists.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise UsageError("A secret is never overwritten.", f"{path} exists", "move it away first.") from None
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def public_key(text: str) -> Ed25519PublicKey:
    """The public key of a base64 text.

    Raises:
        ValueError: if it is not one.
    """
    try:
        return Ed25519PublicKey.from_public_bytes(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError):
        raise ValueError("identity must be an Ed25519 public key in base64.") from None


@lru_cache(maxsize=4096)
def verify(identity: str, signature: bytes, data: bytes) -> bool:
    """Whether `signature` over `data` was made by the holder of the identity.

    What was found is kept: a node's mark, key and certificate are met again in every exchange of a study.
    """
    try:
        public_key(identity).verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True

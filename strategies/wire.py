"""Messages between a coordinator and the nodes, and how they become bytes.

An envelope is  MAGIC | version | signer | signature | header length | header | body,  where the signer is the first
eight bytes of the SHA-256 of an identity key and the signature covers the SHA-256 of all that follows it: the digest by
which the message is referred to, so that a large body is read once. Nothing of an envelope is parsed before its
signature was verified with a pinned key. Headers are JSON, decoded strictly into the dataclasses below; bodies are
arrays in safetensors form, a study with its panels, or sealed bytes. No received text ever names code.

    Open    -> Opened    here is the study; here is my key for it
    Share   -> Shared    here is a roster; here are my mask keys, the others' shares of my roots, the rosters I know
    Agree   -> Agreed    here is what every site of the roster sent; I sign that I saw it and open nothing else
    Ask     -> Answered  one slice of one round of one question; a masked or sealed part of its sum
    Project -> Projected here are public weights; compute the columns that an answer offers, and keep them
    Unmask  -> Unmasked  here is everybody's signature; the seeds of my self masks, sealed to the coordinator
    Recover -> Recovered these sites fell silent; my shares of their roots, sealed to the coordinator
    Close   -> Closed    forget the study's keys
    anything -> Refused  a closed reason code and public quantities

Every reply carries the mark of its node's ledger; None only in a refusal by a node that cannot read its ledger.
"""

from __future__ import annotations

import base64
import hashlib
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, ClassVar, get_args

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from strategies.codec import canonical, decode, parse
from strategies.errors import UsageError
from strategies.federation import Identity, verify
from strategies.marks import Mark
from strategies.privacy import Renewal
from strategies.reasons import Reason

MAGIC = b"GENOSUM\0"
VERSION = 3
_PREFIX = struct.Struct(">8sH8s64s")
_LENGTH = struct.Struct(">I")
_DIGESTED, _SIGNED = b"genosum envelope v1\0", b"genosum signature v3\0"
MOST_BYTES = 2**31 - 1
MOST_HEADER = 2**24
"""A round's derived parameters travel in the header, and a trained model has up to 65,536 of them, four times over."""


class WireError(Exception):
    """A message that is refused; `reason` is all that may be said about it."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.value)
        self.reason = reason


@dataclass(frozen=True)
class Open:
    """A study and its panels (in the body) for a session. `sealing` is the key to which private parts are sealed,
    `marks` the highest that the coordinator ever saw of each node."""

    kind: ClassVar[str] = "open"
    session: str
    study: str
    version: str
    sealing: str
    expires: int
    marks: Mapping[str, Mark] = field(default_factory=dict)


@dataclass(frozen=True)
class Opened:
    """A node's key for the session, signed like everything by its identity, its public rules, and the questions that
    it would refuse, with the reason, so that a roster can be made without it."""

    kind: ClassVar[str] = "opened"
    request: str
    node: str
    session: str
    study: str
    key: str
    version: str
    minimum_cell: int
    minimum_people: int
    minimum_sites: int
    policy: str
    epsilon: float
    delta: float
    synthetic: bool
    data: int
    refuses: Mapping[str, Reason]
    renewal: Renewal = Renewal.NEVER
    mark: Mark | None = None


@dataclass(frozen=True)
class Share:
    """A roster for these questions, each in its attempt. The body holds the roster's Opened envelopes, in its order."""

    kind: ClassVar[str] = "share"
    session: str
    study: str
    questions: Mapping[str, int]
    roster: tuple[str, ...]
    expires: int


@dataclass(frozen=True)
class Shared:
    """A site's part of an agreement. The body holds, for each other site in the roster's order, sealed to its key for
    the session, its shares of the roots.

    Attributes:
        keys: question -> the public key for its pairwise masks.
        roots: question -> a commitment to the root of the self masks.
        opened: the rosters over which, to the node's knowledge, a total of its data set was opened.
        pending: agreement -> its roster: those that were signed, and may have been opened.
        withdrawn: the agreements that the node will never open: it deleted what it would have opened them with.
    """

    kind: ClassVar[str] = "shared"
    request: str
    node: str
    keys: Mapping[str, str]
    roots: Mapping[str, str]
    opened: tuple[tuple[str, ...], ...]
    pending: Mapping[str, tuple[str, ...]]
    withdrawn: tuple[str, ...]
    mark: Mark | None = None


@dataclass(frozen=True)
class Agree:
    """What every site of the roster of the request `share` sent: their Shared envelopes, in its order, in the body."""

    kind: ClassVar[str] = "agree"
    session: str
    share: str
    expires: int


@dataclass(frozen=True)
class Agreed:
    """The node saw these very envelopes, found the roster in order and will open it, or nothing, for its questions."""

    kind: ClassVar[str] = "agreed"
    request: str
    node: str
    transcript: str
    mark: Mark | None = None


@dataclass(frozen=True)
class Ask:
    """One slice of one round. The body holds the totals of earlier rounds, or the arrays that the round carries."""

    kind: ClassVar[str] = "ask"
    session: str
    study: str
    question: str
    round: int
    slice: int
    slices: int
    attempt: int
    roster: tuple[str, ...]
    parameters: Mapping[str, Any]
    expires: int
    version: str


@dataclass(frozen=True)
class Answered:
    """A part in the body: masked ring elements (of an exact total), or arrays sealed to the coordinator (private, or
    exact without small cells)."""

    kind: ClassVar[str] = "answered"
    request: str
    node: str
    version: str
    mark: Mark | None = None


@dataclass(frozen=True)
class Unmask:
    """Requests of one attempt that all of its roster answered. The body holds the roster's Agreed envelopes."""

    kind: ClassVar[str] = "unmask"
    session: str
    question: str
    attempt: int
    requests: tuple[str, ...]
    expires: int


@dataclass(frozen=True)
class Unmasked:
    """In the body, sealed to the coordinator, the seed of the self mask of each request."""

    kind: ClassVar[str] = "unmasked"
    request: str
    node: str
    mark: Mark | None = None


@dataclass(frozen=True)
class Recover:
    """Sites that answered an attempt and fell silent before they opened it."""

    kind: ClassVar[str] = "recover"
    session: str
    question: str
    attempt: int
    sites: tuple[str, ...]
    expires: int


@dataclass(frozen=True)
class Recovered:
    """In the body, sealed to the coordinator, the node's share of each site's root."""

    kind: ClassVar[str] = "recovered"
    request: str
    node: str
    mark: Mark | None = None


@dataclass(frozen=True)
class Project:
    """The body holds public weights, which follow from a question's answer. The node computes the columns that the
    question offers, for its own people, and keeps them until the study is closed. Nothing of them leaves."""

    kind: ClassVar[str] = "project"
    session: str
    study: str
    question: str
    expires: int


@dataclass(frozen=True)
class Projected:
    kind: ClassVar[str] = "projected"
    request: str
    node: str
    mark: Mark | None = None


@dataclass(frozen=True)
class Close:
    """The study is over: forget the session's keys."""

    kind: ClassVar[str] = "close"
    session: str
    expires: int


@dataclass(frozen=True)
class Closed:
    kind: ClassVar[str] = "closed"
    request: str
    node: str
    mark: Mark | None = None


@dataclass(frozen=True)
class Refused:
    """A reason code and, for some, public numbers from the policy or the request."""

    kind: ClassVar[str] = "refused"
    request: str
    node: str
    reason: Reason
    public: Mapping[str, float] = field(default_factory=dict)
    mark: Mark | None = None


Header = (
    Open | Opened | Share | Shared | Agree | Agreed | Ask | Answered
    | Unmask | Unmasked | Recover | Recovered | Project | Projected | Close | Closed | Refused
)  # fmt: skip
_KINDS: Mapping[str, type[Header]] = {c.kind: c for c in get_args(Header)}


@dataclass(frozen=True)
class Message:
    """A verified envelope: who signed it, its header, its body, and its digest."""

    signer: str
    header: Header
    body: bytes
    digest: str


def seal_envelope(header: Header, body: bytes, identity: Identity) -> bytes:
    """Sign a message and put it into bytes."""
    text = canonical({"kind": header.kind, **_plain(header)})
    length = _LENGTH.pack(len(text))
    signature = identity.sign(_SIGNED + _digest(length, text, body))
    return b"".join([_PREFIX.pack(MAGIC, VERSION, _key_id(identity.public), signature), length, text, body])


def open_envelope(envelope: bytes, identities: Mapping[str, str]) -> Message:
    """Verify, then parse.

    Args:
        envelope: received bytes.
        identities: name -> public key of those who may have signed.

    Raises:
        WireError: MALFORMED, VERSION_MISMATCH or BAD_SIGNATURE.
    """
    if not _PREFIX.size + _LENGTH.size <= len(envelope) <= MOST_BYTES:
        raise WireError(Reason.MALFORMED)
    magic, version, key_id, signature = _PREFIX.unpack_from(envelope)
    if magic != MAGIC:
        raise WireError(Reason.MALFORMED)
    if version != VERSION:
        raise WireError(Reason.VERSION_MISMATCH)
    signer = next((name for name, key in identities.items() if _key_id(key) == key_id), None)
    if signer is None:
        raise WireError(Reason.BAD_SIGNATURE)
    digest = _digest(memoryview(envelope)[_PREFIX.size :])
    if not verify(identities[signer], signature, _SIGNED + digest):
        raise WireError(Reason.BAD_SIGNATURE)
    (length,) = _LENGTH.unpack_from(envelope, _PREFIX.size)
    start = _PREFIX.size + _LENGTH.size
    if length > MOST_HEADER or start + length > len(envelope):
        raise WireError(Reason.MALFORMED)
    try:
        document = parse(envelope[start : start + length])
        kind = _KINDS[document.pop("kind")]
        header = decode(kind, document, "message")
    except (ValueError, KeyError, TypeError, UsageError, RecursionError):
        raise WireError(Reason.MALFORMED) from None
    return Message(signer, header, envelope[start + length :], digest.hex())


def digest_of(envelope: bytes) -> str:
    """The digest by which a message is referred to: of all that is signed, in hexadecimal."""
    return _digest(memoryview(envelope)[_PREFIX.size :]).hex()


def _digest(*signed: bytes | memoryview) -> bytes:
    digest = hashlib.sha256(_DIGESTED)
    for part in signed:
        digest.update(part)
    return digest.digest()


def agreement_of(session: str, question: str, attempt: int, roster: Sequence[str]) -> str:
    """The name of what a roster agrees on for one attempt of a question, in hexadecimal."""
    place = {"session": session, "question": question, "attempt": attempt, "roster": sorted(roster)}
    return hashlib.sha256(b"genosum agreement v1\0" + canonical(place)).hexdigest()


def transcript_of(share: str, shared: Iterable[bytes]) -> str:
    """What the sites of a roster sign: the digests of the request and of all their Shared envelopes, in its order."""
    digests = [share, *map(digest_of, shared)]
    return hashlib.sha256(b"genosum transcript v1\0" + " ".join(digests).encode()).hexdigest()


@lru_cache(maxsize=4096)
def _key_id(identity: str) -> bytes:
    return hashlib.sha256(base64.b64decode(identity)).digest()[:8]


def _plain(value: Any) -> Any:
    if isinstance(value, str | int | float | None):
        return value
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    return {name: _plain(v) for name, v in vars(value).items()}


def pack_arrays(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Named arrays of 64-bit integers or numbers as bytes."""
    return bytes(save_arrays({name: np.array(a, order="C") for name, a in arrays.items()}))


def unpack_arrays(data: bytes) -> dict[str, NDArray[np.int64]]:
    """The inverse of `pack_arrays` for integers, and all that ever leaves a node; writable copies.

    Raises:
        WireError: MALFORMED, also for any dtype but int64.
    """
    return _unpacked(data, np.dtype(np.int64))


def unpack_numbers(data: bytes) -> dict[str, NDArray[Any]]:
    """The inverse of `pack_arrays` for what a coordinator states: integers, and finite numbers; writable copies.

    Raises:
        WireError: MALFORMED, also for any dtype but int64 and float64.
    """
    arrays = _unpacked(data, np.dtype(np.int64), np.dtype(np.float64))
    if not all(np.isfinite(a).all() for a in arrays.values()):
        raise WireError(Reason.MALFORMED)
    return arrays


def unpack_columns(data: bytes) -> dict[str, NDArray[Any]]:
    """The inverse of `pack_arrays` for the columns that a node computed and kept: numbers, NaN where there is none.

    Raises:
        WireError: MALFORMED, also for any dtype but float64.
    """
    return _unpacked(data, np.dtype(np.float64))


def _unpacked(data: bytes, *allowed: np.dtype[Any]) -> dict[str, NDArray[Any]]:
    if not data:
        return {}
    try:
        arrays = {name: np.array(a) for name, a in load_arrays(data).items()}
    except (SafetensorError, ValueError, KeyError, TypeError, OverflowError):
        raise WireError(Reason.MALFORMED) from None
    if any(a.dtype not in allowed for a in arrays.values()):
        raise WireError(Reason.MALFORMED)
    return arrays


def pack_parts(parts: Iterable[bytes]) -> bytes:
    """Several byte strings as one."""
    parts = list(parts)
    return struct.pack(">I", len(parts)) + b"".join(struct.pack(">Q", len(p)) + p for p in parts)


def unpack_parts(data: bytes) -> list[bytes]:
    """The inverse of `pack_parts`.

    Raises:
        WireError: MALFORMED.
    """
    out, at = [], 4
    if len(data) < at:
        raise WireError(Reason.MALFORMED)
    (count,) = struct.unpack_from(">I", data)
    for _ in range(count):
        if at + 8 > len(data):
            raise WireError(Reason.MALFORMED)
        (length,) = struct.unpack_from(">Q", data, at)
        at += 8
        if at + length > len(data):
            raise WireError(Reason.MALFORMED)
        out.append(data[at : at + length])
        at += length
    if at != len(data):
        raise WireError(Reason.MALFORMED)
    return out


_SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)


def seal(data: bytes, to: str, request: str) -> bytes:
    """Encrypt to the holder of an X25519 key (HPKE, RFC 9180, base mode), bound to a request.

    Raises:
        ValueError: if `to` is not a proper key.
    """
    return _SUITE.encrypt(data, X25519PublicKey.from_public_bytes(bytes.fromhex(to)), info=request.encode())


def unseal(data: bytes, key: X25519PrivateKey, request: str) -> bytes:
    """The inverse of `seal`.

    Raises:
        WireError: MALFORMED, if the bytes were not sealed to this key for this request.
    """
    try:
        return _SUITE.decrypt(data, key, info=request.encode())
    except (InvalidTag, ValueError):
        raise WireError(Reason.MALFORMED) from None

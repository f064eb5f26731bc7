"""A coordinator's session with the nodes: a study opened, keys gathered, signed requests sent, replies verified.

What is asked, and what follows from the answers, is `conduct.py`'s business.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from fl_server.marks import SeenMarks, follows
from strategies.codec import decode
from strategies.errors import UsageError
from strategies.federation import Federation, Identity, write_secret
from strategies.marks import Mark
from strategies.study import Study
from strategies.version import package_version
from strategies.wire import (
    Agreed,
    Answered,
    Close,
    Open,
    Opened,
    Projected,
    Recovered,
    Refused,
    Shared,
    Unmasked,
    WireError,
    digest_of,
    open_envelope,
    pack_parts,
    seal_envelope,
)

LIFETIME_S = 30 * 24 * 3600
"""How long a request may be answered for the first time, and so how long a run may be resumed."""

WENT_BACK = "has a ledger that went back to an older copy"


class Link(Protocol):
    """How bytes reach nodes and come back. An address is whatever the link uses; who answers is known by signature."""

    def addresses(self) -> Sequence[int]:
        """The nodes that can be reached now."""
        ...

    def exchange(self, messages: Mapping[int, Sequence[bytes]], timeout_s: float) -> Mapping[int, Sequence[bytes]]:
        """Send each node its envelopes and return what came back in time. A node that failed is simply absent."""
        ...


class Checkpoint:
    """A run's folder: session, keys, signed requests, totals. Every file appears whole or not at all."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder = folder

    def read(self, name: str) -> bytes | None:
        path = self.folder / name
        return path.read_bytes() if path.exists() else None

    def write(self, name: str, data: bytes) -> bytes:
        path = self.folder / name
        fresh = path.with_name(f"{path.name}.fresh")
        fresh.unlink(missing_ok=True)
        write_secret(fresh, data)
        fresh.replace(path)
        return data

    def once(self, name: str, make: Callable[[], bytes]) -> bytes:
        """The file's content; made and written first if it is not there."""
        known = self.read(name)
        return self.write(name, make()) if known is None else known


T = TypeVar("T", Answered, Shared, Agreed, Unmasked, Recovered, Projected)


@dataclass(frozen=True)
class Reply(Generic[T]):
    """A verified reply of a site: its header, its body, and the envelope that the site signed."""

    header: T
    body: bytes
    envelope: bytes


@dataclass
class Session:
    """One run of a study with the nodes of a federation.

    Attributes:
        study, federation, coordinator, identity: what is asked, of whom, by whom.
        link, checkpoint, seen: how bytes travel, where they are kept, and what is known of the nodes' ledgers.
        timeout_s, wait_s: how long an exchange may take, and how long nodes may take to appear.
        sites: site -> its address now.
        opened, certificates: site -> its Opened message, and the same as the envelope that it signed.
        away: site -> why it does not take part.
        bytes_left: site -> bytes of signed replies, since last emptied.
    """

    study: Study
    federation: Federation
    coordinator: str
    identity: Identity
    link: Link
    checkpoint: Checkpoint
    seen: SeenMarks
    timeout_s: float
    wait_s: float
    sites: dict[str, int] = field(default_factory=dict)
    opened: dict[str, Opened] = field(default_factory=dict)
    certificates: dict[str, bytes] = field(default_factory=dict)
    away: dict[str, str] = field(default_factory=dict)
    bytes_left: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known = self.federation.coordinators.get(self.coordinator)
        if known is None or known.identity != self.identity.public:
            raise UsageError(
                "A coordinator is known to the federation by its name and key.",
                f"{self.coordinator!r} with this key is not in the federation file",
                "use the key of that coordinator, or have the nodes pin a file that names this one.",
            )

    def open(self) -> None:
        """Open the study at every node that answers: a new session, or the one that the checkpoint holds.

        Raises:
            UsageError: if the checkpoint belongs to another study, or synthetic and real sites would be mixed.
        """
        stamp = {"study": self.study.digest, "version": package_version()}
        run = json.loads(
            self.checkpoint.once("run.json", lambda: json.dumps({**stamp, "session": secrets.token_hex(16)}).encode())
        )
        if {key: run[key] for key in stamp} != stamp:
            raise UsageError(
                "A run is resumed with the same study and the same version.",
                f"the run in {self.checkpoint.folder.name} was started with another",
                "start a new run.",
            )
        self.name = run["session"]
        self.sealing = X25519PrivateKey.from_private_bytes(
            self.checkpoint.once(
                "sealing.key",
                lambda: X25519PrivateKey.generate().private_bytes(
                    serialization.Encoding.Raw, serialization.PrivateFormat.Raw, serialization.NoEncryption()
                ),
            )
        )
        public = self.sealing.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        envelope = self.checkpoint.once(
            "open.request",
            lambda: seal_envelope(
                Open(
                    self.name,
                    self.study.digest,
                    package_version(),
                    public.hex(),
                    self.expires(),
                    self.seen.read(self.federation),
                ),
                pack_parts(
                    [self.study.document, *_flat((n.encode(), p.encode()) for n, p in self.study.panels.items())]
                ),
                self.identity,
            ),
        )
        opening = open_envelope(envelope, {self.coordinator: self.identity.public}).header
        assert isinstance(opening, Open)
        for site in self.federation.nodes:  # after a restart: finished answers hold sites that may be down now
            if (known := self.checkpoint.read(f"{site}.opened")) is not None:
                self._admit(None, [known], digest_of(envelope), opening.marks)
        heard: set[int] = set()  # who said nothing may have been away: asked again while there is time
        deadline = time.monotonic() + self.wait_s
        while True:
            came = self._exchange({a: [envelope] for a in self.link.addresses() if a not in heard})
            heard.update(came)
            for address, replies in came.items():
                self._admit(address, replies, digest_of(envelope), opening.marks)
            if len(self.sites) == len(self.federation.nodes) or time.monotonic() > deadline:
                break
            time.sleep(0.2)
        for site in self.federation.nodes:
            if site not in self.sites:
                self.away.setdefault(site, "did not answer")

        kinds = {opened.synthetic for opened in self.opened.values()}
        if len(kinds) > 1:
            made_up = ", ".join(sorted(site for site, opened in self.opened.items() if opened.synthetic))
            raise UsageError(
                "Synthetic and real people are never mixed in one study.",
                f"synthetic: {made_up}",
                "leave one kind out.",
            )

    def _admit(
        self, address: int | None, replies: Sequence[bytes], request: str, presented: Mapping[str, Mark]
    ) -> None:
        identities = {name: node.identity for name, node in self.federation.nodes.items()}
        try:
            message = open_envelope(replies[0], identities)
        except (WireError, IndexError):
            return  # not a node of this federation
        header, site = message.header, message.signer
        if isinstance(header, Refused) and header.request == request and address is not None:
            self.away[site] = f"refused: {header.reason}"
            self.sites[site] = address
        elif isinstance(header, Opened) and (header.request, header.node, header.version) == (
            request,
            site,
            package_version(),
        ):
            if header.mark is None or not self._credible(site, header.mark, presented.get(site)):
                self.away[site] = WENT_BACK
                return
            self.seen.remember({site: header.mark})
            self.opened[site], self.certificates[site] = header, replies[0]
            self.checkpoint.write(f"{site}.opened", replies[0])
            if address is not None:
                self.sites[site] = address
                self.away.pop(site, None)

    def _credible(self, site: str, mark: Mark | None, before: Mark | None) -> bool:
        """Whether a reply's mark is the node's own and not before the one that was known when it was first asked."""
        return mark is not None and mark.is_signed_by(self.federation.nodes[site].identity) and follows(before, mark)

    def _known_when_asked(self, requests: Sequence[bytes]) -> dict[str, Mark]:
        """Site -> the highest mark that was known before these requests were first sent: a stored reply to a request
        that is sent again carries the mark that it was made with."""
        marks = self.seen.read(self.federation)
        text = self.checkpoint.once(
            f"{digest_of(requests[0])[:32]}.marks",
            lambda: json.dumps({site: mark.plain() for site, mark in marks.items()}).encode(),
        )
        return {site: decode(Mark, mark, site) for site, mark in json.loads(text).items()}

    def close(self) -> None:
        """Tell the nodes that the study is over: they forget its keys."""
        close = seal_envelope(Close(self.name, self.expires()), b"", self.identity)
        self._exchange({self.sites[site]: [close] for site in self.opened if site in self.sites})

    def collect(
        self, requests: Sequence[bytes], sites: Iterable[str], kind: type[T]
    ) -> tuple[dict[str, list[Reply[T]]], dict[str, str]]:
        """Send the requests to each site; its verified replies in order, or why it has none."""
        sites = list(sites)
        digests, before = [digest_of(r) for r in requests], self._known_when_asked(requests)
        came = self._exchange({self.sites[site]: requests for site in sites if site in self.sites})
        answers: dict[str, list[Reply[T]]] = {}
        lost: dict[str, str] = {}
        marks: dict[str, Mark] = {}
        for site in sites:
            replies = came.get(self.sites[site]) if site in self.sites else None
            if replies is None or len(replies) != len(requests):
                lost[site] = "did not answer"
                continue
            read: list[Reply[T]] = []
            for digest, reply in zip(digests, replies, strict=True):
                try:
                    message = open_envelope(reply, {site: self.federation.nodes[site].identity})
                except WireError:
                    lost[site] = "sent a reply that it did not sign"
                    break
                header = message.header
                if not isinstance(header, kind | Refused) or (header.request, header.node) != (digest, site):
                    lost[site] = "answered another request"
                    break
                if isinstance(header, Refused):
                    lost[site] = f"refused: {header.reason}"
                    break
                if header.mark is None or not self._credible(site, header.mark, before.get(site)):
                    lost[site] = WENT_BACK
                    break
                if site not in marks or header.mark.sequence > marks[site].sequence:
                    marks[site] = header.mark
                if isinstance(header, Answered) and header.version != package_version():
                    lost[site] = "runs another version"
                    break
                read.append(Reply(header, message.body, reply))
            else:
                answers[site] = read
                self.bytes_left[site] = self.bytes_left.get(site, 0) + sum(len(r) for r in replies)
        self.seen.remember(marks)
        return answers, lost

    def _exchange(self, messages: Mapping[int, Sequence[bytes]]) -> Mapping[int, Sequence[bytes]]:
        return self.link.exchange(messages, self.timeout_s) if messages else {}

    def expires(self) -> int:
        """When a request that is signed now expires."""
        return int(time.time()) + LIFETIME_S


def _flat(pairs: Iterable[tuple[bytes, bytes]]) -> list[bytes]:
    return [item for pair in pairs for item in pair]

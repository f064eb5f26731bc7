"""Where a node's ledger stood when it replied: small enough to travel with every reply, and signed.

A ledger that was put back to an older copy does not know the marks that it issued since. Whoever keeps one (the node
beside its database, each coordinator in its own state) can hold it against the ledger.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from strategies.codec import canonical
from strategies.federation import Identity, verify

_SIGNED = b"genosum mark v1\0"
_HEXADECIMAL = frozenset("0123456789abcdef")
EARLIER_DIGITS = 32
"""Earlier heads are shortened to 128 bits: they travel with every reply."""


@dataclass(frozen=True)
class Mark:
    """A ledger's position.

    Attributes:
        dataset: identifier of the data set.
        sequence: number of the journal's last entry; 0 while there is none. It only ever grows.
        head: the chain's digest at that entry, hexadecimal; empty at 0.
        spent: cumulative zCDP rho of the data set.
        earlier: the beginnings of the heads 1, 2, 4, 8, ... entries before, empty where there is no such entry. By them
            a ledger proves how far it shares a branch that it has lost.
        signature: the node's, hexadecimal, over all of this; empty where the node keeps it for itself.
    """

    dataset: str
    sequence: int
    head: str
    spent: float
    earlier: tuple[str, ...] = ()
    signature: str = ""

    def __post_init__(self) -> None:
        if not (0 <= self.sequence < 2**62 and 0 <= self.spent < math.inf):
            raise ValueError("a mark has a sequence number and a loss of at least 0.")
        if len(self.head) not in (0, 64) or not set(self.head) <= _HEXADECIMAL:
            raise ValueError("a mark's head is a SHA-256 in hexadecimal.")
        if len(self.earlier) != len(distances(self.sequence)):
            raise ValueError("a mark has one earlier head for each power of two below its sequence number.")

    def signed(self, identity: Identity) -> Mark:
        """The same, signed by the node."""
        return replace(self, signature=identity.sign(self._text()).hex())

    def is_signed_by(self, identity: str) -> bool:
        """Whether the holder of this public key signed it."""
        try:
            return verify(identity, bytes.fromhex(self.signature), self._text())
        except ValueError:
            return False

    def plain(self) -> dict[str, Any]:
        """As plain data, the inverse of `strategies.codec.decode`."""
        return {**vars(self), "earlier": list(self.earlier)}

    def _text(self) -> bytes:
        return _SIGNED + canonical({key: value for key, value in self.plain().items() if key != "signature"})


def distances(sequence: int) -> tuple[int, ...]:
    """How many entries before a mark its earlier heads lie.

    >>> distances(6)
    (1, 2, 4)
    """
    return tuple(1 << k for k in range(max(0, sequence - 1).bit_length()))

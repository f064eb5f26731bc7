"""The coordinator's side of Flower: a Link over a Grid."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from strategies.wire import WireError, pack_parts, unpack_parts

POLL_S = 0.03
NODE_UNAVAILABLE = 5
"""Flower's error code for a node that went away with a message in hand."""

AWAY_S = 20.0
"""A node that went away is asked again if it is back within this time: its supervisor starts it anew, and the same
request gets the same stored bytes."""

LOOK_S = 1.0


class GridLink:
    """Sends bundles of envelopes to the nodes of a Grid and gathers what comes back in time."""

    def __init__(self, grid: Grid, away_s: float = AWAY_S) -> None:
        self._grid, self._away_s = grid, away_s

    def addresses(self) -> Sequence[int]:
        return sorted(self._grid.get_node_ids())

    def exchange(self, messages: Mapping[int, Sequence[bytes]], timeout_s: float) -> Mapping[int, Sequence[bytes]]:
        """One message a node. Errors, late and malformed replies are left out: an absent reply is a lost site."""
        deadline = time.monotonic() + timeout_s
        replies: dict[int, Sequence[bytes]] = {}
        patience: dict[int, float] = {}  # until when a node that went away may be back
        away, look = set[int](), 0.0
        waiting = self._push(messages, messages)
        while (waiting or away) and (now := time.monotonic()) < deadline:
            for reply in self._grid.pull_messages(list(waiting)) if waiting else ():
                address = waiting.pop(reply.metadata.reply_to_message_id, None)
                if address is None:
                    continue
                if not reply.has_error():
                    replies |= _envelopes(address, reply)
                elif reply.error.code == NODE_UNAVAILABLE and now < patience.setdefault(address, now + self._away_s):
                    away.add(address)
            if away and now >= look:
                look = now + LOOK_S
                back = away.intersection(self.addresses())
                waiting |= self._push(messages, back)
                away = {address for address in away - back if now < patience[address]}
            if waiting or away:
                time.sleep(POLL_S)
        return replies

    def _push(self, messages: Mapping[int, Sequence[bytes]], addresses: Iterable[int]) -> dict[str, int]:
        """Send to these addresses; message identifier -> address, without those that Flower does not know."""
        addresses = list(addresses)
        out = [
            Message(
                RecordDict({"genosum": ConfigRecord({"parts": pack_parts(messages[address])})}),
                dst_node_id=address,
                message_type="query.genosum",
            )
            for address in addresses
        ]
        pushed = self._grid.push_messages(out) if out else ()
        return {identifier: address for identifier, address in zip(pushed, addresses, strict=True) if identifier}


def _envelopes(address: int, reply: Message) -> dict[int, Sequence[bytes]]:
    """A reply's envelopes under its address; nothing if it is no bundle of them."""
    try:
        return {address: unpack_parts(bytes(reply.content["genosum"]["parts"]))}  # type: ignore[arg-type]
    except (WireError, KeyError, TypeError, ValueError):
        return {}

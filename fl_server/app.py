"""The coordinator's side of Flower: a Link over a Grid."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from strategies.wire import WireError, pack_parts, unpack_parts

POLL_S = 0.03


class GridLink:
    """Sends bundles of envelopes to the nodes of a Grid and gathers what comes back in time."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid

    def addresses(self) -> Sequence[int]:
        return sorted(self._grid.get_node_ids())

    def exchange(self, messages: Mapping[int, Sequence[bytes]], timeout_s: float) -> Mapping[int, Sequence[bytes]]:
        """One message a node. Errors, late and malformed replies are left out: an absent reply is a lost site."""
        out = [
            Message(
                RecordDict({"genosum": ConfigRecord({"parts": pack_parts(parts)})}),
                dst_node_id=address,
                message_type="query.genosum",
            )
            for address, parts in messages.items()
        ]
        addresses = dict(zip(self._grid.push_messages(out), messages, strict=True))
        waiting = {identifier for identifier in addresses if identifier}
        replies: dict[int, Sequence[bytes]] = {}
        deadline = time.monotonic() + timeout_s
        while waiting and time.monotonic() < deadline:
            for reply in self._grid.pull_messages(list(waiting)):
                identifier = reply.metadata.reply_to_message_id
                waiting.discard(identifier)
                if reply.has_error() or identifier not in addresses:
                    continue
                try:
                    replies[addresses[identifier]] = unpack_parts(bytes(reply.content["genosum"]["parts"]))  # type: ignore[arg-type]
                except (WireError, KeyError, TypeError, ValueError):
                    continue
            if waiting:
                time.sleep(POLL_S)
        return replies

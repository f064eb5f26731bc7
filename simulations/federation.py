"""A study over sites on one machine: the same gate and the same conduct, with no socket between them.

`LocalGrid` is a Flower Grid in one process; messages are serialised and read back as on a network.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.task_identity import TaskIdentity


class LocalGrid(Grid):
    """Nodes in this process. Each is a node file; the installed ClientApp answers for it."""

    def __init__(self, app: ClientApp, node_files: Sequence[Path]) -> None:
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1  # Message() insists on these
        self._app, self._run, self._count = app, None, itertools.count(1)
        self._replies: dict[str, Message] = {}
        self._contexts = {
            address: Context(
                run_id=1, node_id=address, node_config={"node": str(file)}, state=RecordDict(), run_config={}
            )
            for address, file in enumerate(node_files, start=1001)
        }

    def set_run(self, run: Any) -> None:
        self._run = run

    @property
    def run(self) -> Any:
        return self._run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        return list(self._contexts)

    def get_nodes(self) -> Iterable[NodeInfo]:
        return [NodeInfo(node_id=address) for address in self._contexts]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        identifiers = []
        for message in messages:
            identifier = f"m{next(self._count)}"
            message.metadata.__dict__["_message_id"], message.metadata.__dict__["_run_id"] = identifier, 1
            try:
                arrived = _through_the_wire(message)
                arrived.metadata.__dict__["_message_id"] = identifier
                reply = _through_the_wire(self._app(arrived, self._contexts[message.metadata.dst_node_id]))
            except Exception:
                reply = Message(Error(2, "error on node (details withheld)"), reply_to=message)
            reply.metadata.__dict__["_reply_to_message_id"] = identifier
            self._replies[identifier] = reply
            identifiers.append(identifier)
        return identifiers

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return [self._replies.pop(i) for i in message_ids if i in self._replies]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        return self.pull_messages(self.push_messages(messages))


def _through_the_wire(message: Message) -> Message:
    objects: Mapping[str, bytes] = {key: o.deflate() for key, o in get_all_nested_objects(message).items()}
    return inflate_object_from_contents(message.object_id, dict(objects))  # type: ignore[return-value]

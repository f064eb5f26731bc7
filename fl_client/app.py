"""The Flower ClientApp: bytes in, bytes out. What the bytes mean is the gate's business."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from fl_client.gate import Gate
from fl_client.policy import NodeConfig
from strategies.wire import WireError, pack_parts, unpack_parts

app = ClientApp()


@app.query("genosum")
def genosum(message: Message, context: Context) -> Message:
    """Answer a bundle of envelopes with as many envelopes, in one record: records cost requests, requests cost time."""
    gate = open_gate(str(context.node_config["node"]))
    return Message(respond(gate, message.content), reply_to=message)


def respond(gate: Gate, content: RecordDict) -> RecordDict:
    """The gate's replies to a message's envelopes; none to a message that is not a bundle of them."""
    try:
        envelopes = unpack_parts(bytes(content["genosum"]["parts"]))  # type: ignore[arg-type]
    except (WireError, KeyError, TypeError, ValueError):
        envelopes = []
    return RecordDict({"genosum": ConfigRecord({"parts": pack_parts(gate.answers(envelopes))})})


@cache
def open_gate(node_file: str) -> Gate:
    """The gate of a node's file, opened once per process."""
    return Gate.build(NodeConfig.read(Path(node_file)))

"""A node that is going to be killed: it forks, from a process that has imported all and opened nothing, a child that
answers requests through the real gate until it is no more.

    python -m tests.privacy.victim NODE.toml REQUESTS    reads lines "FIRST FIFO"; prints each child's number
"""

from __future__ import annotations

import os
import struct
import sys
from pathlib import Path

from fl_client.gate import Gate
from fl_client.policy import NodeConfig


def answer(node: Path, requests: Path, first: int, fifo: str) -> None:
    """Answer the requests from number `first` on; each reply goes out whole, with its number and length before it."""
    with open(fifo, "wb", buffering=0) as out:
        gate = Gate.build(NodeConfig.read(node))
        for path in sorted(requests.iterdir())[first:]:
            reply = gate.answer(path.read_bytes())
            out.write(struct.pack(">II", int(path.stem), len(reply)) + reply)


def main(node: Path, requests: Path) -> None:
    print("ready", flush=True)
    for line in sys.stdin:
        first, fifo = line.split()
        child = os.fork()
        if child == 0:
            try:
                answer(node, requests, int(first), fifo)
            finally:
                os._exit(0)
        print(child, flush=True)
        os.waitpid(child, 0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

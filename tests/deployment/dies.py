"""`fl-server run`, with a `kill -9` at an exact moment: when a given file of the checkpoint is written.

    python -m tests.deployment.dies before|after FILE DEED... -- run STUDY ...
    python -m tests.deployment.dies asks FILE -- run STUDY ...

A DEED is the number of a process group, which is killed; `self`, which is killed; `touch:PLACE`; or `wait:PLACE`, which
makes the file `ready` beside the checkpoint and goes on when PLACE is there. Nothing depends on how fast a machine is.
With `asks` nobody is killed, and each exchange of the study is a line of the file: how many requests, of which kind. A
message that Flower lost is sent again within its exchange, which makes no line.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from fl_server.cli import main
from fl_server.session import Checkpoint, Session

own, words = sys.argv[1 : sys.argv.index("--")], sys.argv[sys.argv.index("--") + 1 :]
moment, file, *deeds = own
write, collect = Checkpoint.write, Session.collect


def do(folder: Path) -> None:
    for deed in deeds:
        verb, _, place = deed.partition(":")
        if verb == "wait":
            (folder / "ready").touch()
            while not Path(place).exists():
                time.sleep(0.05)
        elif verb == "touch":
            Path(place).touch()
        elif verb == "self":
            os.kill(os.getpid(), signal.SIGKILL)
        else:
            os.killpg(int(verb), signal.SIGKILL)


def deadly(checkpoint: Checkpoint, name: str, data: bytes) -> bytes:
    if name == file and moment == "before":
        do(checkpoint.folder)
    write(checkpoint, name, data)
    if name == file and moment == "after":
        do(checkpoint.folder)
    return data


def counted(session: Session, requests: Sequence[bytes], sites: Iterable[str], kind: type[Any]) -> Any:
    if moment == "asks":
        with Path(file).open("a") as lines:
            lines.write(f"{len(requests)} {kind.__name__}\n")
    return collect(session, requests, sites, kind)


Checkpoint.write, Session.collect = deadly, counted  # type: ignore[method-assign]
sys.exit(main(words))

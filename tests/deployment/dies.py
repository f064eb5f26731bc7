"""`fl-server run`, with a `kill -9` at an exact moment: when a given file of the checkpoint is written.

    python -m tests.deployment.dies before|after FILE PROCESS... -- run STUDY ...

A PROCESS is the number of a process group, or `self`. Nothing here waits, so nothing depends on how fast a machine is.
"""

from __future__ import annotations

import os
import signal
import sys

from fl_server.cli import main
from fl_server.conduct import Checkpoint

own, words = sys.argv[1 : sys.argv.index("--")], sys.argv[sys.argv.index("--") + 1 :]
moment, file, *processes = own
write = Checkpoint.write


def kill() -> None:
    for process in processes:
        if process == "self":
            os.kill(os.getpid(), signal.SIGKILL)
        else:
            os.killpg(int(process), signal.SIGKILL)


def deadly(checkpoint: Checkpoint, name: str, data: bytes) -> bytes:
    if name == file and moment == "before":
        kill()
    write(checkpoint, name, data)
    if name == file and moment == "after":
        kill()
    return data


Checkpoint.write = deadly  # type: ignore[method-assign]
sys.exit(main(words))

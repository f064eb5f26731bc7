"""A PostgreSQL server of a test's own: an unprivileged user's, in a folder of its own, behind a Unix socket alone."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

PROGRAMS = max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)
"""Debian's, of the newest version there is."""


@dataclass(frozen=True)
class Server:
    """A running server.

    Attributes:
        socket: folder of its socket, which only its user and root may enter.
        user: its superuser.
    """

    socket: Path
    user: str

    def emptied(self) -> str:
        """The URL of the one database, which holds nothing."""
        with psycopg.connect(host=str(self.socket), user=self.user, dbname="postgres", autocommit=True) as connection:
            connection.execute("DROP SCHEMA public CASCADE")
            connection.execute("CREATE SCHEMA public")
        return f"postgresql+psycopg://{self.user}@/postgres?host={self.socket}"

    def run(self, program: str, *arguments: str, given: bytes = b"") -> bytes:
        """What one of PostgreSQL's programs prints."""
        assert PROGRAMS is not None
        command = [str(PROGRAMS / program), "-h", str(self.socket), "-U", self.user, *arguments]
        return subprocess.run(command, input=given, capture_output=True, check=True).stdout


@contextmanager
def serving(durable: bool = False) -> Iterator[Server]:
    """A server for as long as the context lasts.

    Args:
        durable: whether it waits for the disk. Tests kill the node, never the server, and need not.
    """
    assert PROGRAMS is not None
    root = os.getuid() == 0
    user = pwd.getpwnam("postgres").pw_name if root else pwd.getpwuid(os.getuid()).pw_name
    who = {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []} if root else {}
    folder = Path(tempfile.mkdtemp(prefix="genosum-pg-", dir="/tmp"))
    try:
        if root:
            shutil.chown(folder, user)

        def run(program: str, *arguments: str) -> None:
            # No pipes: the server would inherit them, and who reads them would wait for its end.
            command = [str(PROGRAMS / program), "-D", str(folder / "data"), *arguments]  # type: ignore[operator]
            with (folder / "log").open("ab") as log:
                subprocess.run(command, stdout=log, stderr=log, check=True, cwd="/", **who)  # type: ignore[call-overload]

        run("initdb", "--auth=trust", "--no-sync", "--username", user)
        settings = f"-c listen_addresses= -c unix_socket_directories={folder} -c fsync={'on' if durable else 'off'}"
        run("pg_ctl", "start", "-w", "-l", str(folder / "server.log"), "-o", settings)
        try:
            yield Server(folder, user)
        finally:
            run("pg_ctl", "stop", "-w", "-m", "immediate")
    finally:
        shutil.rmtree(folder, ignore_errors=True)

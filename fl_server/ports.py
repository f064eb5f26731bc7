"""Who may ask what at which port: polls that are held, a public port that knows the nodes' paths only."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import httpx

from strategies.errors import UsageError

Scope = MutableMapping[str, Any]
Event = MutableMapping[str, Any]
Application = Callable[[Scope, Callable[[], Awaitable[Event]], Callable[[Event], Awaitable[None]]], Awaitable[None]]

MOST_BODY_BYTES = 2**29
"""A longer request to the public port is not read."""

STORED = {"/v1/runtime/push-messages": "to nodes", "/v1/fleet/push-messages": "to coordinator"}
"""After these requests somebody may have a message waiting."""

HELD = {"/v1/fleet/pull-messages": ("to nodes", 15.0), "/v1/runtime/pull-messages": ("to coordinator", 2.0)}
"""These are answered at once if there is a message, otherwise when one is stored or the time in seconds is over; both
lie below the client's own limit of 30 s. Four nodes that ask every 50 ms instead keep half a processor busy."""


class _Arrivals:
    """Wakes whoever waits for messages of one direction."""

    def __init__(self) -> None:
        self._next = asyncio.Event()

    @property
    def next(self) -> asyncio.Event:
        """Set when the next message is stored. Take it before looking, or a message may slip between."""
        return self._next

    def ring(self) -> None:
        self._next.set()
        self._next = asyncio.Event()


def held(application: Application) -> Application:
    """An ASGI application whose idle polls are held, and whose other requests come one at a time.

    SQLite writers that collide sleep in its busy handler; a queue here is faster. A request is read whole before it is
    queued and answered after it left, so that one slow link delays nobody else.
    """
    queue = asyncio.Semaphore(1)
    arrivals = {direction: _Arrivals() for direction in STORED.values()}

    async def call(
        scope: Scope, receive: Callable[[], Awaitable[Event]], send: Callable[[Event], Awaitable[None]]
    ) -> None:
        path = scope.get("path", "") if scope["type"] == "http" else ""
        if not path.startswith(("/v1/runtime/", "/v1/fleet/")):
            await application(scope, receive, send)
            return
        body = await _body(receive)
        if body is None:
            return

        async def answer() -> list[Event]:
            sent: list[Event] = []
            unread = [{"type": "http.request", "body": body, "more_body": False}]

            async def give() -> Event:
                if unread:
                    return unread.pop()
                return await asyncio.Event().wait() and {}  # never: the client is looked after outside

            async def take(event: Event) -> None:
                sent.append(event)

            async with queue:
                await application({**scope, "state": dict(scope.get("state", {}))}, give, take)
            return sent

        if path in HELD:
            direction, patience_s = HELD[path]
            events = await _patiently(answer, arrivals[direction], patience_s, receive)
        else:
            events = await answer()
        if path in STORED:
            arrivals[STORED[path]].ring()
        for event in events:
            await send(event)

    return call


async def _body(receive: Callable[[], Awaitable[Event]]) -> bytes | None:
    """A request's whole body; None if the client left or sends too much."""
    body = bytearray()
    while True:
        event = await receive()
        body += event.get("body", b"")
        if event["type"] == "http.disconnect" or len(body) > MOST_BODY_BYTES:
            return None
        if not event.get("more_body"):
            return bytes(body)


async def _patiently(
    answer: Callable[[], Awaitable[list[Event]]],
    arrivals: _Arrivals,
    patience_s: float,
    receive: Callable[[], Awaitable[Event]],
) -> list[Event]:
    """The first answer that is not empty, or the last one before patience ends or the client leaves."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + patience_s
    gone = asyncio.ensure_future(receive())
    try:
        while True:
            stored = arrivals.next
            events = await answer()
            # An empty protobuf is no byte at all.
            if events[0].get("status") != httpx.codes.OK or any(event.get("body") for event in events):
                return events
            waiting = asyncio.ensure_future(stored.wait())
            await asyncio.wait(
                {waiting, gone}, timeout=max(0.0, deadline - loop.time()), return_when=asyncio.FIRST_COMPLETED
            )
            waiting.cancel()
            if gone.done() or loop.time() >= deadline:
                return events
    finally:
        gone.cancel()


def fleet_only(application: Application) -> Application:
    """An ASGI application that knows no path but the nodes' own."""

    async def call(
        scope: Scope, receive: Callable[[], Awaitable[Event]], send: Callable[[Event], Awaitable[None]]
    ) -> None:
        if scope["type"] == "http" and scope["path"].startswith("/v1/fleet/"):
            await application(scope, receive, send)
        elif scope["type"] == "http":
            await send({"type": "http.response.start", "status": 404, "headers": []})
            await send({"type": "http.response.body", "body": b""})

    return call


def check_port(address: str, name: str) -> None:
    """Assert that an address can be listened on.

    Raises:
        UsageError: if another process listens there, or it is no address of this machine.
    """
    host, _, port = address.rpartition(":")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host.strip("[]"), int(port)))
        except OSError as error:
            raise UsageError(
                "A port is listened on by one process, at an address of this machine.",
                f"{name} = {address}: {os.strerror(error.errno or 0)}",
                "stop the other process, or change the address.",
            ) from None

"""Server-sent events, written by hand.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

import anyio
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from creamas_sc.page.source import EventId

log = logging.getLogger(__name__)

# After so long without an event, a comment shows that the connection is alive.
QUIET_SECONDS: Final = 15.0
RETRY_MILLISECONDS: Final = 1000

Write = Callable[[EventId | None, str, str], Awaitable[None]]


def event(at: EventId | None, name: str, data: str) -> bytes:
    """An event as bytes; ``data`` is one line."""
    identity = "" if at is None else f"id: {at}\n"
    return f"{identity}event: {name}\ndata: {data}\n\n".encode()


class EventStream(Response):
    """Sends what ``follow`` writes until the browser goes away, or until ``stopping`` is set.

    A browser that does not read holds back only its own ``follow``, which goes on later with what
    is kept of the events until then.
    """

    media_type = "text/event-stream"

    def __init__(self, follow: Callable[[Write], Awaitable[Any]], stopping: anyio.Event) -> None:
        self._follow, self._stopping = follow, stopping
        self._lock = anyio.Lock()
        self._sent = False
        super().__init__(headers={"x-accel-buffering": "no"})
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def write(data: bytes) -> None:
            async with self._lock:
                await send({"type": "http.response.body", "body": data, "more_body": True})

        async def write_event(at: EventId | None, name: str, data: str) -> None:
            self._sent = True
            await write(event(at, name, data))

        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        async with anyio.create_task_group() as tasks:

            async def until(over: Callable[[], Awaitable[Any]]) -> None:
                await over()
                tasks.cancel_scope.cancel()

            async def gone() -> None:
                while (await receive())["type"] != "http.disconnect":
                    pass

            async def show_life() -> None:
                await write(f"retry: {RETRY_MILLISECONDS}\n\n".encode())
                while True:
                    await anyio.sleep(QUIET_SECONDS)
                    if not self._sent:
                        await write(b": \n\n")
                    self._sent = False

            tasks.start_soon(until, gone)
            tasks.start_soon(until, self._stopping.wait)
            tasks.start_soon(show_life)
            try:
                await self._follow(write_event)
            except Exception:  # the browser asks again
                log.exception("a stream of events failed")
            tasks.cancel_scope.cancel()
        with anyio.CancelScope(shield=True), anyio.move_on_after(1):
            await send({"type": "http.response.body", "body": b"", "more_body": False})

"""A browser without a network for tests of the page, and something for the page to show."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import anyio
import trio

from creamas_sc.page.access import HEADER, Access
from creamas_sc.page.app import make_app
from creamas_sc.page.source import (
    Asked,
    Emit,
    EventId,
    Json,
    PageError,
    Picture,
    Source,
    Sources,
)

HOST = "127.0.0.1:8000"
ORIGIN = f"http://{HOST}"


@dataclass
class Reply:
    """What the page has answered."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Browser:
    """Sends requests to an ASGI application, with the cookies that it got.

    Attributes:
        headers: Of each request.
        cookie: The one that it has.
    """

    def __init__(self, app: Any) -> None:
        self.headers: dict[str, str] = {"host": HOST}
        self.cookie = ""
        self._app = app

    async def get(self, path: str, **headers: str) -> Reply:
        return await self.send("GET", path, **headers)

    async def post(self, path: str, **headers: str) -> Reply:
        return await self.send("POST", path, **headers)

    async def send(self, method: str, path: str, **headers: str) -> Reply:
        """Send a request; names of headers have _ for -."""
        reply = Reply()
        requests = iter([{"type": "http.request", "body": b"", "more_body": False}])

        async def receive() -> Any:
            if (found := next(requests, None)) is not None:
                return found
            await trio.sleep_forever()

        async def send(message: Any) -> None:
            self._take(reply, message)

        with trio.fail_after(20):
            await self._app(self._scope(method, path, headers), receive, send)
        return reply

    @asynccontextmanager
    async def stream(self, path: str, buffered: float = 1000, **headers: str) -> AsyncIterator[Any]:
        """Read a stream: the reply so far, and a channel of what comes; leaving hangs up."""
        reply, gone = Reply(), trio.Event()
        send_chunk, chunks = trio.open_memory_channel[bytes](buffered)

        async def receive() -> Any:
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            self._take(reply, message)
            if message.get("body"):
                with suppress(trio.BrokenResourceError):  # nobody reads: servers drop it, too
                    await send_chunk.send(message["body"])

        async with trio.open_nursery() as nursery:

            async def run() -> None:
                with send_chunk:
                    await self._app(self._scope("GET", path, headers), receive, send)

            nursery.start_soon(run)
            yield reply, chunks
            gone.set()
            await chunks.aclose()

    def _scope(self, method: str, path: str, headers: Mapping[str, str]) -> dict[str, Any]:
        path, _, query = path.partition("?")
        all_headers = {**self.headers, **{k.replace("_", "-"): v for k, v in headers.items()}}
        if self.cookie:
            all_headers.setdefault("cookie", self.cookie)
        return {
            "type": "http",
            "method": method,
            "path": unquote(path),
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": [(k.encode(), v.encode("latin-1")) for k, v in all_headers.items()],
            "scheme": "http",
            "http_version": "1.1",
            "server": ("127.0.0.1", 8000),
            "client": ("127.0.0.1", 5000),
            "root_path": "",
        }

    def _take(self, reply: Reply, message: Any) -> None:
        if message["type"] == "http.response.start":
            reply.status = message["status"]
            reply.headers = {k.decode(): v.decode("latin-1") for k, v in message["headers"]}
            if "set-cookie" in reply.headers:
                self.cookie = reply.headers["set-cookie"].partition(";")[0]
        elif message["type"] == "http.response.body":
            reply.body += message.get("body", b"")


class FakeSource(Source):
    """Notes what it is asked, and answers that.

    Attributes:
        asked: Names of methods, and their arguments.
        fails: Raised by each method.
        looks: The picture of every artifact.
    """

    name, kind = "society", "simulation"

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.fails: Exception | None = None
        self.looks = Picture("image/png", b"png")
        self.answers: dict[str, Any] = {}

    def _answer(self, *asked: Any) -> Json:
        self.asked.append(asked)
        if self.fails is not None:
            raise self.fails
        return self.answers.get(asked[0], {"asked": asked[0]})

    async def state(self) -> Json:
        return {"can_steer": True, **self._answer("state")}

    async def follow(self, last: EventId | None, emit: Emit) -> None:
        self._answer("follow", last)
        await emit(EventId("7", 3), "state", {"can_steer": True})
        await trio.sleep_forever()

    async def runs(self) -> Json:
        return self._answer("runs")

    async def metrics(self, by: str | None, points: int) -> Json:
        return self._answer("metrics", by, points)

    async def artifacts(self, run: str | None, asked: Asked) -> Json:
        return self._answer("artifacts", run, asked)

    async def artifact(self, run: str | None, number: int) -> Json:
        return self._answer("artifact", run, number)

    async def picture(self, run: str | None, number: int) -> Picture:
        self._answer("picture", run, number)
        return self.looks

    async def society(self, run: str | None, step: int | None) -> Json:
        return self._answer("society", run, step)

    async def slaves(self) -> Json:
        return self._answer("slaves")

    async def log(self, lines: int) -> Json:
        return self._answer("log", lines)

    async def steer(self, how: str) -> Json:
        return {"can_steer": True, **self._answer("steer", how)}


class FakeSources(Sources):
    """Has one source."""

    daemon = "default"

    def __init__(self, source: Source) -> None:
        self._source = source

    async def all(self) -> list[tuple[str, str]]:
        return [(self._source.name, self._source.kind)]

    def get(self, name: str) -> Source:
        if name != self._source.name:
            raise PageError(404, f"there is no {name!r}")
        return self._source


class Visit:
    """A page, its source and a browser that may not have entered yet."""

    def __init__(self, source: Source | None = None, **access: Any) -> None:
        self.fake = FakeSource()
        self.access = Access(**access)
        self.stopping = anyio.Event()
        chosen = self.fake if source is None else source
        self.app = make_app(FakeSources(chosen), self.access, self.stopping)
        self.browser = Browser(self.app)

    async def enter(self) -> Browser:
        """Open the URL that was printed."""
        reply = await self.browser.get(f"/?token={self.access.url_token}")
        assert reply.status == 303
        return self.browser

    @property
    def steering(self) -> dict[str, str]:
        """The header of what changes something."""
        return {HEADER.replace("-", "_"): self.access.header_token}

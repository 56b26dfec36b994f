"""The page's routes: requests to a source, answers as JSON, and the files of the page itself."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from importlib.resources import files
from typing import Any, Final

import anyio
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from creamas_sc.errors import AgentErrors, CreamasError
from creamas_sc.foreign import text_of
from creamas_sc.page.access import ARTIFACT_POLICY, HEADERS, Access, Enter
from creamas_sc.page.source import Asked, EventId, PageError, Source, Sources
from creamas_sc.page.stream import EventStream
from creamas_sc.runtime.installation import installed_version

log = logging.getLogger(__name__)

MAX_STREAMS: Final = 32
MOST_ARTIFACTS: Final = 100
_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_KEPT: Final = {"cache-control": "private, max-age=86400, immutable"}


def static_file(name: str) -> bytes | None:
    """A file of the page itself; None if there is none of that name."""
    folder = files("creamas_sc.page") / "static"
    known = {
        each.name: each for each in folder.iterdir() if "." + each.name.rpartition(".")[2] in _TYPES
    }
    found = known.get(name)
    return None if found is None else found.read_bytes()


def make_app(sources: Sources, access: Access, stopping: anyio.Event) -> ASGIApp:
    """The page of ``sources`` as an ASGI application.

    Args:
        stopping: Once it is set, streams of events end.
    """
    pages = Pages(sources, access, stopping)
    return Guard(Router(pages.routes(), redirect_slashes=False), access)


class Guard:
    """Asks `Access` about each request first; adds the headers; makes errors answers."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app, self._access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # a WebSocket: none are served
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            return
        begun = False

        async def with_headers(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                there = {name for name, _ in message["headers"]}
                message["headers"] = [
                    *message["headers"],
                    *(
                        (n.encode(), v.encode())
                        for n, v in HEADERS.items()
                        if n.encode() not in there
                    ),
                ]
            await send(message)

        answer = self._admit(scope)
        if answer is not None:
            await answer(scope, receive, with_headers)
            return
        try:
            await self._app(scope, receive, with_headers)
        except Exception as error:
            if begun:
                raise
            await _failure(error)(scope, receive, with_headers)

    def _admit(self, scope: Scope) -> Response | None:
        headers = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in scope["headers"]}
        path, query = scope["path"], scope["query_string"].decode("latin-1")
        decision = self._access.decide(scope["method"], path, query, headers)
        if decision is None:
            return None
        if isinstance(decision, Enter):
            return RedirectResponse("./", 303, {"set-cookie": decision.cookie})
        if path == "/":
            return PlainTextResponse(decision.why + "\n", decision.status)
        return answer({"error": decision.why}, decision.status)


def _failure(error: Exception) -> Response:
    """The answer to a request that failed."""
    if isinstance(error, PageError):
        return answer({"error": str(error)}, error.status)
    if isinstance(error, (CreamasError, AgentErrors, OSError)):
        return answer({"error": " ".join(text_of(error).split())}, 503)
    log.error("a request failed", exc_info=error)
    return answer({"error": f"the page has a bug: {type(error).__name__}: {text_of(error)}"}, 500)


class Pages:
    """The routes."""

    def __init__(self, sources: Sources, access: Access, stopping: anyio.Event) -> None:
        self._sources, self._access, self._stopping = sources, access, stopping
        self._streams = 0

    def routes(self) -> list[Route]:
        """All that is served."""
        of = "/api/s/{name:str}"
        reads: dict[str, Callable[[Source, Mapping[str, str]], Awaitable[Any]]] = {
            "state": lambda source, _: source.state(),
            "runs": lambda source, _: source.runs(),
            "metrics": _metrics,
            "artifacts": _artifacts,
            "society": lambda s, q: s.society(q.get("run"), _whole(q, "step", None)),
            "slaves": lambda source, _: source.slaves(),
            "log": lambda source, q: source.log(_whole(q, "lines", 200, 1, 1000)),
        }
        read = [
            Route(f"{of}/{what}", partial(self._read, how), methods=["GET"])
            for what, how in reads.items()
        ]
        steer = [
            Route(f"{of}/{how}", partial(self._steer, how), methods=["POST"])
            for how in ("pause", "resume")
        ]
        return [
            Route("/", self._file, methods=["GET"]),
            Route("/static/{file:str}", self._file, methods=["GET"]),
            Route("/api/session", self._session, methods=["GET"]),
            *read,
            Route(f"{of}/events", self._events, methods=["GET"]),
            Route(f"{of}/artifacts/{{number:int}}", self._artifact, methods=["GET"]),
            Route(f"{of}/artifacts/{{number:int}}/picture", self._picture, methods=["GET"]),
            *steer,
        ]

    async def _file(self, request: Request) -> Response:
        name = request.path_params.get("file", "index.html")
        data = static_file(name)
        if data is None:
            raise PageError(404, f"there is no file {name!r}")
        return Response(data, media_type=_TYPES["." + name.rpartition(".")[2]])

    async def _session(self, request: Request) -> Response:
        return answer(
            {
                "token": self._access.header_token,
                "read_only": self._access.read_only,
                "version": installed_version(),
                "daemon": self._sources.daemon,
                "sources": [
                    {"name": name, "kind": kind} for name, kind in await self._sources.all()
                ],
            }
        )

    def _source(self, request: Request) -> Source:
        return self._sources.get(request.path_params["name"])

    async def _read(
        self, how: Callable[[Source, Mapping[str, str]], Awaitable[Any]], request: Request
    ) -> Response:
        return answer(self._steerable(await how(self._source(request), request.query_params)))

    async def _steer(self, how: str, request: Request) -> Response:
        return answer(self._steerable(await self._source(request).steer(how)))

    def _steerable(self, value: Any) -> Any:
        if isinstance(value, dict) and "can_steer" in value and self._access.read_only:
            return {**value, "can_steer": False}
        return value

    async def _artifact(self, request: Request) -> Response:
        source, number = self._source(request), request.path_params["number"]
        return answer(await source.artifact(request.query_params.get("run"), number))

    async def _picture(self, request: Request) -> Response:
        source, number = self._source(request), request.path_params["number"]
        picture = await source.picture(request.query_params.get("run"), number)
        kind = picture.kind + (
            "; charset=utf-8" if picture.kind.endswith(("svg+xml", "html")) else ""
        )
        # A browser that shows it never runs what is in it, in a frame, an image or a tab.
        headers = {**_KEPT, "content-security-policy": ARTIFACT_POLICY, "content-type": kind}
        return Response(picture.data, headers=headers)

    async def _events(self, request: Request) -> Response:
        source = self._source(request)
        asked = request.headers.get("last-event-id") or request.query_params.get("since", "")
        if self._streams >= MAX_STREAMS:
            raise PageError(503, f"the page has {MAX_STREAMS} streams of events already")

        async def follow(emit: Any) -> None:
            async def steerable(at: EventId | None, event: str, data: Any) -> None:
                await emit(at, event, to_json(self._steerable(data)))

            self._streams += 1
            try:
                await source.follow(EventId.parse(asked), steerable)
            finally:
                self._streams -= 1

        return EventStream(follow, self._stopping)


async def _metrics(source: Source, query: Mapping[str, str]) -> Any:
    return await source.metrics(query.get("by") or None, _whole(query, "points", 400, 10, 2000))


async def _artifacts(source: Source, query: Mapping[str, str]) -> Any:
    order = query.get("order", "newest")
    if order not in ("newest", "best"):
        raise PageError(400, f"order must be newest or best, not {order!r}")
    asked = Asked(
        order,
        _whole(query, "upto", None),
        query.get("agent") or None,
        _whole(query, "offset", 0),
        _whole(query, "limit", 48, 1, MOST_ARTIFACTS),
    )
    return await source.artifacts(query.get("run"), asked)


def _whole(
    query: Mapping[str, str], name: str, default: Any, least: int = 0, most: int = 2**53
) -> Any:
    """A whole number of the query, or the default.

    Raises:
        PageError: It is another text, or out of bounds.
    """
    text = query.get(name, "")
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 16 and least <= int(text) <= most):
        raise PageError(400, f"{name} must be a whole number from {least} to {most}, not {text!r}")
    return int(text)


def answer(value: Any, status: int = 200) -> Response:
    """A value as JSON."""
    return Response(to_json(value), status, media_type="application/json")


def to_json(value: Any) -> str:
    """A value as JSON text in one line; numbers that JSON has none of become null."""
    try:
        return json.dumps(value, allow_nan=False, separators=(",", ":"))
    except ValueError:
        return json.dumps(_finite(value), allow_nan=False, separators=(",", ":"))


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return value

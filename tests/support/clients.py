"""One test for three clients: async under asyncio and trio, and blocking."""

from __future__ import annotations

import functools
import inspect
import itertools
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from typing import Any

import anyio
import pytest

from creamas_sc.client import connect, connect_sync
from creamas_sc.rpc.exposed import Proxy

BOUND_SECONDS = 30.0

needs_trio = pytest.mark.skipif(find_spec("trio") is None, reason="trio is not installed")
KINDS = ["asyncio", pytest.param("trio", marks=needs_trio), "sync"]
ASYNC_KINDS = KINDS[:2]

Body = Callable[..., Coroutine[Any, Any, None]]


class Awaited:
    """A blocking object whose methods can be awaited: they block, and then nothing is left to do.

    What they return is of the same kind where it is the client's own.
    """

    def __init__(self, plain: Any) -> None:
        self.plain = plain

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.plain, name)
        if not callable(found):
            return found

        async def method(*args: Any, **kwargs: Any) -> Any:
            return _awaited(found(*_plain(args), **kwargs))

        return method

    @asynccontextmanager
    async def attach(self, name: str) -> AsyncIterator[Awaited]:
        with self.plain.attach(name) as simulation:
            yield Awaited(simulation)

    def events(self, since: int | None = None) -> _Events:
        return _Events(self.plain.events(since))

    def __eq__(self, other: object) -> bool:
        return bool(self.plain == (other.plain if isinstance(other, Awaited) else other))

    def __hash__(self) -> int:
        return hash(self.plain)


class _Events:
    def __init__(self, iterator: Iterator[Any]) -> None:
        self._iterator = iterator

    def __aiter__(self) -> _Events:
        return self

    async def __anext__(self) -> Any:
        try:
            return next(self._iterator)
        except StopIteration:
            raise StopAsyncIteration from None


def plain(value: Any) -> Any:
    """The client's own object."""
    return value.plain if isinstance(value, Awaited) else value


def _awaited(value: Any) -> Any:
    if isinstance(value, Proxy):
        return Awaited(value)
    if type(value) in (list, tuple):
        return type(value)(map(_awaited, value))
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, Awaited):
        return value.plain
    if type(value) in (list, tuple):
        return type(value)(map(_plain, value))
    return value


@asynccontextmanager
async def connected(kind: str, daemon: str | None = None) -> AsyncIterator[Any]:
    """A client of the kind."""
    if kind == "sync":
        with connect_sync(daemon, timeout=BOUND_SECONDS) as plain:
            yield Awaited(plain)
    else:
        async with connect(daemon) as client:
            yield client


def run(kind: str, body: Callable[[], Awaitable[None]]) -> None:
    """Run ``body`` to its end, under an event loop or without one."""
    if kind != "sync":
        anyio.run(_bounded, body, backend=kind)
        return
    coroutine = body()
    assert inspect.iscoroutine(coroutine)
    try:
        coroutine.send(None)
    except StopIteration:
        return
    raise AssertionError("a blocking client waits in its calls only")


async def _bounded(body: Callable[[], Awaitable[None]]) -> None:
    with anyio.fail_after(BOUND_SECONDS):
        await body()


def each_client(test: Body) -> Callable[..., None]:
    """Run an async test once for each kind of client; it gets ``kind`` if it asks for it."""
    return _each(test, KINDS)


def each_async_client(test: Body) -> Callable[..., None]:
    """The same without the blocking one."""
    return _each(test, ASYNC_KINDS)


def _each(test: Body, kinds: list[Any]) -> Callable[..., None]:
    signature = inspect.signature(test)
    wants_kind = "kind" in signature.parameters

    @functools.wraps(test)
    def runs(kind: str, **fixtures: Any) -> None:
        if wants_kind:
            fixtures["kind"] = kind
        run(kind, functools.partial(test, **fixtures))

    if not wants_kind:
        added = inspect.Parameter("kind", inspect.Parameter.KEYWORD_ONLY)
        signature = signature.replace(parameters=[*signature.parameters.values(), added])
    runs.__signature__ = signature  # type: ignore[attr-defined]
    marked: Callable[..., None] = pytest.mark.parametrize("kind", kinds)(runs)
    return marked


# ---- simulations in a real daemon

SOCIETY = "tests.client.society"


class Named:
    """Names that no other test uses."""

    _numbers = itertools.count(1)

    def __init__(self) -> None:
        self._given: list[str] = []

    def __call__(self) -> str:
        self._given.append(f"sim-{os.getpid()}-{next(self._numbers)}")
        return self._given[-1]

    def clear(self) -> None:
        """Close those that are left."""
        with connect_sync(timeout=BOUND_SECONDS) as client:
            for left in {summary["name"] for summary in client.ls()} & set(self._given):
                client.close(left)


@asynccontextmanager
async def studio(kind: str, named: Named, slaves: int = 1, **kwargs: Any) -> AsyncIterator[Any]:
    """A new simulation, attached to; ``named`` ends it."""
    name = named()
    async with connected(kind) as client:
        await client.create(
            name,
            menv_cls=f"{SOCIETY}:Studio",
            slave_addrs=[("localhost", 0)] * slaves,
            slave_mgr_cls=f"{SOCIETY}:Curator",
            **kwargs,
        )
        async with client.attach(name) as simulation:
            yield simulation

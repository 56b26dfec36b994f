"""Byte streams in memory, and connections over them."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from inspect import isawaitable
from typing import Any

import anyio
import trio
import trio.testing
from anyio.abc import ByteStream

from creamas_sc.rpc.addresses import split_address
from creamas_sc.rpc.connection import Connection, EventHandler, Handler, Request
from creamas_sc.rpc.socket_stream import ConnectedStream
from creamas_sc.runtime.paths import runtime_folder
from creamas_sc.wire.codec import Codec, Payload
from creamas_sc.wire.frames import Frame, FrameReader

BOUND_SECONDS = 60
CODEC = Codec()


def connect_to(address: str) -> socket.socket:
    """Connect to the unix socket of the environment of an address, as its user's programs can.

    Raises:
        OSError: Nothing listens there.
    """
    port = split_address(address if address[-1].isdecimal() else f"{address}0")[1]
    place = runtime_folder() / "environments"
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.connect(os.fspath(next(place.glob(f"*/{port}"), place / str(port))))
    except OSError:
        sock.close()
        raise
    return sock


def stranger_at(address: str) -> trio.SocketStream:
    """As `connect_to`, but a stream."""
    return trio.SocketStream(trio.socket.from_stdlib_socket(connect_to(address)))


class Piped(ByteStream):
    """What anyio makes of a stream, over one of trio's in memory."""

    local = True  # as a unix socket of this user's
    stranger = staticmethod(lambda: None)

    def __init__(self, stream: trio.StapledStream[Any, Any]) -> None:
        self._stream = stream

    async def receive(self, max_bytes: int = 65536) -> bytes:
        try:
            data = await self._stream.receive_some(max_bytes)
        except trio.ClosedResourceError:
            raise anyio.ClosedResourceError from None
        if not data:
            raise anyio.EndOfStream
        return bytes(data)

    async def send(self, item: bytes) -> None:
        try:
            await self._stream.send_all(item)
        except trio.ClosedResourceError:
            raise anyio.ClosedResourceError from None
        except trio.BrokenResourceError:
            raise anyio.BrokenResourceError from None

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def aclose(self) -> None:
        await self._stream.aclose()


Pair = Callable[[], tuple[ByteStream, ByteStream]]


def memory_pair() -> tuple[ByteStream, ByteStream]:
    """Takes all that is written at once."""
    one, other = trio.testing.memory_stream_pair()
    return Piped(one), Piped(other)


def lockstep_pair() -> tuple[ByteStream, ByteStream]:
    """A write ends when all of it is read: the slowest of readers."""
    one, other = trio.testing.lockstep_stream_pair()
    return Piped(one), Piped(other)


def socket_pair() -> tuple[ByteStream, ByteStream]:
    """Connected sockets, which a connection writes to directly."""
    one, other = socket.socketpair()
    return ConnectedStream(one), ConnectedStream(other)


@asynccontextmanager
async def joined(
    serve: Handler | None = None,
    *,
    on_event: EventHandler | None = None,
    serve_near: Handler | None = None,
    pair: Pair = memory_pair,
    **options: Any,
) -> AsyncIterator[tuple[Connection, Connection]]:
    """Two connections joined in memory: near calls, and far serves and hears events.

    The block is bounded, by the test's clock. ``options`` are far's.
    """
    one, other = pair()
    near = Connection(one, serve_near, name="far")
    far = Connection(other, serve, on_event=on_event, name="near", **options)
    with trio.fail_after(BOUND_SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(near.run)
            nursery.start_soon(far.run)
            yield near, far
            await near.aclose()
            await far.aclose()


@asynccontextmanager
async def wired(
    serve: Handler | None = None,
    *,
    on_event: EventHandler | None = None,
    pair: Pair = memory_pair,
    **options: Any,
) -> AsyncIterator[tuple[ByteStream, Connection]]:
    """A bare stream, and the connection at its other end."""
    bare, other = pair()
    connection = Connection(other, serve, on_event=on_event, name="peer", **options)
    with trio.fail_after(BOUND_SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.run)
            yield bare, connection
            await bare.aclose()
            await connection.aclose()


async def ask(connection: Connection, method: str, *args: Any, **kwargs: Any) -> Any:
    """Call ``method`` with the values ``args``; ``kwargs`` are `Connection.call`'s own."""
    return CODEC.decode(await connection.call(None, method, CODEC.encode(args), **kwargs))


async def read_frames(stream: ByteStream, count: int) -> list[Frame]:
    """Read ``count`` frames from a bare stream."""
    reader, frames = FrameReader(), list[Frame]()
    while len(frames) < count:
        frames += reader.receive_data(await stream.receive(1 << 20))
    return frames


class Service:
    """Serves its methods; notes the requests, and the calls that were cancelled."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.cancelled: list[str] = []
        self.gates: dict[Any, trio.Event] = {}

    def __call__(self, request: Request) -> Payload | Awaitable[Payload]:
        self.requests.append(request)
        value = getattr(self, request.method)(*CODEC.decode(request.payload))
        return self._finish(request, value) if isawaitable(value) else CODEC.encode(value)

    async def _finish(self, request: Request, value: Awaitable[Any]) -> Payload:
        try:
            return CODEC.encode(await value)
        except trio.Cancelled:
            self.cancelled.append(request.method)
            raise

    def echo(self, *values: Any) -> tuple[Any, ...]:
        return values

    async def pause(self, *values: Any) -> tuple[Any, ...]:
        for _ in range(2):  # with one, it might stay with the reader
            await trio.lowlevel.checkpoint()
        return values

    def gate(self, key: Any) -> trio.Event:
        return self.gates.setdefault(key, trio.Event())

    async def behind(self, key: Any) -> Any:
        await self.gate(key).wait()
        return key

    async def sleep(self, seconds: float = 1e6) -> str:
        await trio.sleep(seconds)
        return "slept"

    async def shield(self, seconds: float) -> str:
        with trio.CancelScope(shield=True):
            await trio.sleep(seconds)
        return "done all the same"

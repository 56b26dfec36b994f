"""The row about streams that are cut, split and stalled: the named error or none, never a hang."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, cast

import anyio
import msgpack
import pytest
import trio
import trio.testing
from anyio.abc import ByteStream
from trio.testing import MockClock

from creamas_sc.errors import ConnectionLost, DeadlineExceeded, HandshakeError, to_wire
from creamas_sc.rpc import endpoint as endpoint_module
from creamas_sc.rpc.addresses import Port
from creamas_sc.rpc.connection import Connection, Request
from creamas_sc.rpc.endpoint import Endpoint
from creamas_sc.runtime.timeouts import HANDSHAKE_SECONDS
from creamas_sc.wire.codec import Payload
from creamas_sc.wire.frames import FrameReader, Kind, encode_frame
from creamas_sc.wire.handshake import Handshake, Identity
from tests.faults.registry import Figures, row
from tests.support.streams import BOUND_SECONDS, CODEC, ask, memory_pair, wired


def _frame(kind: Kind, call_id: int, meta: bytes, value: Any, *parts: bytes) -> bytes:
    return b"".join(encode_frame(kind, call_id, meta, CODEC.encode(value).body, parts))


REQUEST = msgpack.packb((None, "echo", 10.0))
LOST = to_wire(ConnectionLost("of the callee's", address="its own", may_have_run=True))
# The first call of a connection has the id 1: replies, failures and cancels are about that.
FRAMES = {
    "request": _frame(Kind.REQUEST, 1, REQUEST, ("value",)),
    "request with parts": _frame(Kind.REQUEST, 1, REQUEST, ("value",), b"part", b"", b"more"),
    "reply": _frame(Kind.REPLY, 1, b"", "answer"),
    "failure": _frame(Kind.FAILURE, 1, b"", LOST),
    "cancel": _frame(Kind.CANCEL, 1, b"", None),
    "event": _frame(Kind.EVENT, 0, b"news", [1, 2, 3]),
    "hello": _frame(Kind.HELLO, 0, b"proof", "again"),
}


class Received:
    """What came through at the connection's end."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.events: list[str] = []
        self.outcomes: list[Any] = []

    def serve(self, request: Request) -> Payload:
        self.requests.append(request.method)
        return request.payload

    def note_event(self, name: str, payload: Payload) -> None:
        self.events.append(name)

    async def call(self, connection: Connection, **kwargs: Any) -> None:
        try:
            self.outcomes.append(await ask(connection, "any", **kwargs))
        except (ConnectionLost, DeadlineExceeded) as error:
            self.outcomes.append(type(error))

    def expect(self, name: str, whole: bool) -> None:
        """Nothing of a frame that was cut; a whole one counts."""
        assert self.requests == ["echo"] * (whole and "request" in name)
        assert self.events == ["news"] * (whole and name == "event")
        answered = whole and name == "reply"
        assert self.outcomes == ["answer" if answered else ConnectionLost]


async def _cut(name: str) -> int:
    """A frame of that name cut after each byte; returns after how many."""
    frame = FRAMES[name]
    for end in range(len(frame) + 1):
        received = Received()
        async with wired(received.serve, on_event=received.note_event) as (bare, connection):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(received.call, connection)
                await trio.testing.wait_all_tasks_blocked()
                await bare.send(frame[:end])
                await bare.aclose()
                await connection.closed.wait()
        received.expect(name, end == len(frame))
    return len(frame) + 1


async def _split(name: str) -> int:
    """It comes in single bytes; returns how many."""
    received = Received()
    async with wired(received.serve, on_event=received.note_event) as (bare, connection):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(received.call, connection)
            await trio.testing.wait_all_tasks_blocked()
            for byte in FRAMES[name]:
                await bare.send(bytes([byte]))
                await trio.testing.wait_all_tasks_blocked()
            assert connection.alive == (name != "hello")
            await bare.aclose()
    received.expect(name, True)
    return len(FRAMES[name])


async def _stalled(name: str) -> int:
    """It stalls after each byte: the call meets its own deadline, and a close does not wait."""
    frame = FRAMES[name]
    for end in range(len(frame)):
        received = Received()
        async with wired(received.serve, on_event=received.note_event) as (bare, connection):
            await bare.send(frame[:end])
            began = trio.current_time()
            await received.call(connection, timeout=2)
            assert trio.current_time() - began < 3
            assert connection.alive
            await connection.aclose()
        assert received.outcomes == [DeadlineExceeded]
        assert (received.requests, received.events) == ([], [])
    return len(frame)


# ---- during the handshake

IDENTITY = Identity("s", b"k" * 32, "environment", "tcp://localhost:1/", 1)
CALLED = replace(IDENTITY, address="tcp://localhost:2/")


class Accepting:
    """A listener of streams in memory."""

    def __init__(self) -> None:
        self.send, self.receive = trio.open_memory_channel[ByteStream](10)
        self.socket = self.receive  # what an endpoint closes at its end
        self.port = Port("localhost", 1, None, cast("trio.SocketListener", self))

    async def accept(self) -> ByteStream:
        return await self.receive.receive()


class _Unadopted:
    """In place of `ConnectedStream`: what is accepted is in memory, and has no socket to adopt."""

    @staticmethod
    def adopt(stream: ByteStream) -> ByteStream:
        return stream


def _endpoint(links: list[Connection]) -> Endpoint:
    def serve(request: Request) -> Payload:
        return request.payload

    return Endpoint(serve, CODEC, lambda *_: None, lambda link, _: links.append(link))


async def _shake_hands(
    stream: ByteStream, handshake: Handshake, send: Callable[[bytes], Any]
) -> None:
    """Our part of a handshake; all that it sends goes through ``send``."""
    reader = FrameReader()
    while True:
        for data in handshake.data_to_send():
            await send(data)
        if handshake.complete:
            return
        for frame in reader.receive_data(await stream.receive()):
            handshake.receive(frame)


class Fault:
    """Sends ``limit`` bytes as they are, or one by one, and then closes or stalls."""

    def __init__(self, stream: ByteStream, limit: int, single: bool, stall: bool) -> None:
        self.stream, self.left, self.single, self.stall = stream, limit, single, stall
        self.sent = 0

    async def send(self, data: bytes) -> None:
        data, cut = data[: self.left], len(data) > self.left
        self.left -= len(data)
        self.sent += len(data)
        for piece in [data[i : i + 1] for i in range(len(data))] if self.single else [data]:
            await self.stream.send(piece)
            await trio.lowlevel.checkpoint()
        if cut:
            if self.stall:
                await trio.sleep_forever()
            await self.stream.aclose()
            raise anyio.ClosedResourceError


async def _shaken_hands(stream: ByteStream, handshake: Handshake, fault: Fault) -> bool:
    """Whether the handshake came to its end."""
    try:
        with trio.move_on_after(2 * HANDSHAKE_SECONDS):
            await _shake_hands(stream, handshake, fault.send)
            return True
    except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError,
            HandshakeError):  # fmt: skip
        pass
    return False


async def _dial(limit: int, single: bool = False, stall: bool = False) -> tuple[bool, int]:
    """Greet an endpoint with a fault; whether it accepted, and how many bytes were sent."""
    links: list[Connection] = []
    endpoint, listener = _endpoint(links), Accepting()
    ours, theirs = memory_pair()
    fault = Fault(ours, limit, single, stall)
    with trio.fail_after(BOUND_SECONDS), pytest.MonkeyPatch.context() as patched:
        patched.setattr(endpoint_module, "ConnectedStream", _Unadopted)
        async with trio.open_nursery() as nursery:
            await nursery.start(endpoint.run, listener.port, IDENTITY)
            await listener.send.send(theirs)
            spoken = await _shaken_hands(ours, Handshake(IDENTITY, client=True), fault)
            if spoken:
                await ours.send(FRAMES["request"])
                (frame,) = FrameReader().receive_data(await ours.receive())
                assert frame.kind is Kind.REPLY
            with trio.move_on_after(2 * HANDSHAKE_SECONDS):
                await trio.testing.wait_all_tasks_blocked()
            await ours.aclose()
            await endpoint.aclose()
    assert len(links) == spoken
    return spoken, fault.sent


class _Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@contextmanager
def _logged() -> Iterator[list[logging.LogRecord]]:
    """What endpoints log in the block."""
    handler = _Kept()
    log = endpoint_module.log
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield handler.records
    finally:
        log.setLevel(level)
        log.removeHandler(handler)


async def _accepted() -> int:
    """The accepted side splits, cuts or stalls its greeting."""
    spoken, size = await _dial(10**6)
    assert spoken
    assert await _dial(10**6, single=True) == (True, size)
    for limit, stall in product(range(size), (False, True)):
        with _logged() as records:
            assert await _dial(limit, stall=stall) == (False, limit)
        (record,) = records
        answer, _, why = record.getMessage().partition(": ")
        assert answer == "refused a connection"
        assert why
        # A peer that is gone, as after a script was killed, is not logged.
        assert record.levelno == (logging.WARNING if stall else logging.INFO)
        assert record.exc_info is None
    return 2 + 2 * size


async def _answer(limit: int, single: bool = False, stall: bool = False) -> tuple[Any, int]:
    """Answer an endpoint with a fault; what it got, and how many bytes were sent."""
    ours, theirs = memory_pair()
    fault = Fault(ours, limit, single, stall)
    endpoint, listener = _endpoint([]), Accepting()
    outcome: list[Any] = []

    async def connect(*_: Any) -> ByteStream:
        return theirs

    async def dial() -> None:
        try:
            link = await endpoint.connection("tcp://localhost:2/")
            outcome.append(await ask(link, "any", timeout=2))
        except (HandshakeError, ConnectionLost, DeadlineExceeded) as error:
            outcome.append(type(error))

    with trio.fail_after(BOUND_SECONDS), pytest.MonkeyPatch.context() as patched:
        patched.setattr(Endpoint, "_connect", connect)
        patched.setattr(endpoint_module, "ANSWER_SECONDS", HANDSHAKE_SECONDS)
        async with trio.open_nursery() as nursery:
            await nursery.start(endpoint.run, listener.port, IDENTITY)
            async with trio.open_nursery() as answering:
                answering.start_soon(dial)
                if await _shaken_hands(ours, Handshake(CALLED, client=False), fault):
                    with trio.move_on_after(5), suppress(anyio.ClosedResourceError):
                        await fault.send(FRAMES["reply"])
            await ours.aclose()
            await endpoint.aclose()
    (answer,) = outcome
    return answer, fault.sent


async def _connected_to() -> int:
    """The listening side splits, cuts or stalls its greeting and its answer."""
    answer, size = await _answer(10**6)
    assert answer == "answer"
    assert await _answer(10**6, single=True) == ("answer", size)
    hello = size - len(FRAMES["reply"])
    for limit in range(size):
        assert await _answer(limit) == (ConnectionLost, limit)
    for limit in range(0, size, 7):
        late = ConnectionLost if limit < hello else DeadlineExceeded
        assert await _answer(limit, stall=True) == (late, limit)
    return 2 + size + len(range(0, size, 7))


FAULTS = {"cut": _cut, "split": _split, "stalled": _stalled}
GREETINGS = {"the accepted side": _accepted, "the listening side": _connected_to}


@row(
    9,
    "a stream cut after each byte of each frame kind and of a greeting, split into bytes, stalled",
    "the named error or none; never a hang",
    cases=(*(f"{name} {how}" for name, how in product(FRAMES, FAULTS)), *GREETINGS),
    rounds=len(FRAMES) * len(FAULTS) + len(GREETINGS),
    short=len(FRAMES) * len(FAULTS) + len(GREETINGS),
    quick=len(FRAMES) * len(FAULTS) + len(GREETINGS),  # in memory
)
def faulty_streams(case: str, number: int, folder: Path) -> Figures:
    """All places of one kind of frame, in one way; over streams in memory, with a fake clock.

    A hang is seen at once: with all tasks blocked, that clock jumps to the bound.
    """
    name, _, how = case.rpartition(" ")

    async def run() -> int:
        work: Awaitable[int] = GREETINGS[case]() if case in GREETINGS else FAULTS[how](name)
        return await work

    places = trio.run(run, clock=MockClock(autojump_threshold=0))
    return {"total places": places}

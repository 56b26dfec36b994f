"""Connections to a peer that reads slowly or not at all: no memory fills, and no order is lost."""

from __future__ import annotations

import gc
import socket
import tracemalloc
from typing import Any

import msgpack
import pytest
import trio
import trio.testing
from trio.testing import MockClock

from creamas_sc import errors
from creamas_sc.errors import (
    DeadlineExceeded,
    EncodeError,
)
from creamas_sc.rpc.connection import Connection, Request
from creamas_sc.rpc.socket_stream import TRIO_LOOP, ConnectedStream
from creamas_sc.rpc.write_queue import HIGH_WATER_BYTES, JOIN_BYTES, WriteQueue
from creamas_sc.wire import limits
from creamas_sc.wire.codec import Payload
from creamas_sc.wire.frames import Kind, encode_frame
from tests.support.streams import (
    BOUND_SECONDS,
    CODEC,
    Pair,
    Service,
    ask,
    joined,
    lockstep_pair,
    read_frames,
    socket_pair,
    wired,
)


async def _no_more_than(connection: Connection, bytes_: int) -> None:
    await trio.testing.wait_all_tasks_blocked(0.01)
    assert HIGH_WATER_BYTES < connection.out.size <= bytes_


@pytest.mark.parametrize("pair", [lockstep_pair, socket_pair])
async def test_a_peer_that_asks_and_does_not_read_fills_no_memory(
    pair: Pair, autojump_clock: MockClock
) -> None:
    size, count = 1 << 20, 64
    large = b"r" * size
    served = most = 0

    def serve(request: Request) -> Payload:
        nonlocal served, most
        served += 1
        most = max(most, request.connection.out.size)
        return Payload(large)

    async with wired(serve, pair=pair) as (bare, connection):
        meta = msgpack.packb((None, "any", None))
        for call_id in range(count):
            await bare.send(b"".join(encode_frame(Kind.REQUEST, call_id, meta)))
        await _no_more_than(connection, HIGH_WATER_BYTES + 3 * size)
        assert served < 10
        frames = await read_frames(bare, count)
        assert sorted(frame.call_id for frame in frames) == list(range(count))
        assert all(frame.body == large for frame in frames)
    assert served == count
    assert most <= HIGH_WATER_BYTES  # also once it reads, it is served in turn


@pytest.mark.parametrize("pair", [lockstep_pair, socket_pair])
async def test_a_connection_that_is_over_keeps_no_memory(pair: Pair) -> None:
    """It is garbage that refers to itself, and may be collected much later."""
    size = 8 << 20
    meta = msgpack.packb((None, "any", None))
    half = b"".join(encode_frame(Kind.REQUEST, 2, meta, bytes(size)))[: size // 2]
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        async with wired(lambda _: Payload(bytes(size)), pair=pair) as (bare, connection):
            await bare.send(b"".join(encode_frame(Kind.REQUEST, 1, meta)))
            await bare.send(half)
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert tracemalloc.get_traced_memory()[0] > size
            await bare.aclose()
            await connection.closed.wait()
            assert tracemalloc.get_traced_memory()[0] < size // 8
    finally:
        tracemalloc.stop()
        gc.enable()


@pytest.mark.parametrize("pair", [lockstep_pair, socket_pair])
async def test_answers_that_come_late_fill_no_memory_either(
    pair: Pair, autojump_clock: MockClock
) -> None:
    """All are under way when the first one is there; what is too much is an error of its call."""
    size, count, limit = 1 << 20, 64, 16 << 20
    slow = trio.Event()

    async def late(request: Request) -> Payload:
        await slow.wait()
        return Payload(b"" if request.method == "small" else b"r" * size)

    async with wired(late, pair=pair, max_unread_bytes=limit) as (bare, connection):
        for call_id in range(count):
            meta = msgpack.packb((None, "small" if call_id % 2 else "large", None))
            await bare.send(b"".join(encode_frame(Kind.REQUEST, call_id, meta)))
        await trio.testing.wait_all_tasks_blocked(0.01)
        slow.set()
        await _no_more_than(connection, limit + size)
        frames = await read_frames(bare, count)
        assert sorted(frame.call_id for frame in frames) == list(range(count))
        dropped = [frame for frame in frames if frame.kind is Kind.FAILURE]
        assert 16 <= len(dropped) <= 20
        error = errors.from_wire(CODEC.decode(Payload(dropped[0].body)))
        assert isinstance(error, EncodeError)
        assert "wait for peer to read them" in str(error)
        assert all(frame.call_id % 2 == 0 for frame in dropped)


async def test_answers_are_computed_in_turn_for_a_peer_that_is_slow(
    autojump_clock: MockClock,
) -> None:
    """They are begun one after the other as it reads; none is dropped."""
    size, count = 8 << 20, 10

    async def large() -> Payload:
        return Payload(b"r" * size)

    async with wired(lambda _: large(), pair=lockstep_pair, max_unread_bytes=size) as (bare, _):
        meta = msgpack.packb((None, "any", None))
        asked = [b"".join(encode_frame(Kind.REQUEST, n, meta)) for n in range(count)]
        await bare.send(b"".join(asked))
        frames = await read_frames(bare, count)
        assert {frame.kind for frame in frames} == {Kind.REPLY}


async def test_a_call_that_is_cancelled_before_its_turn(autojump_clock: MockClock) -> None:
    """Nothing of it is left unawaited, which would be a warning and so an error here."""
    began = []

    async def any_() -> Payload:
        began.append(1)
        await trio.sleep_forever()
        raise AssertionError

    async with wired(lambda _: any_(), pair=lockstep_pair) as (bare, connection):
        connection.out.fill()
        await bare.send(b"".join(encode_frame(Kind.REQUEST, 1, msgpack.packb((None, "a", 1.0)))))
        connection.out.end()  # it was free to begin when the call came
        await trio.testing.wait_all_tasks_blocked()
        connection.post("event", Payload(b"e" * (HIGH_WATER_BYTES + 1)))
        await bare.send(b"".join(encode_frame(Kind.REQUEST, 2, msgpack.packb((None, "a", 1.0)))))
        await trio.sleep(2)
        kinds = [frame.kind for frame in await read_frames(bare, 3)]
        assert sorted(kinds) == [Kind.FAILURE, Kind.FAILURE, Kind.EVENT]
        assert began == [1]


async def test_calls_that_wait_for_a_reader_are_bounded(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_UNREAD_REFUSALS", 3)
    async with wired(Service(), pair=lockstep_pair, max_unread_bytes=1000) as (bare, connection):
        connection.post("event", Payload(b"e" * (HIGH_WATER_BYTES + 1)))
        meta = msgpack.packb((None, "echo", None))
        for n in range(5):
            await bare.send(b"".join(encode_frame(Kind.REQUEST, n, meta, b"q" * 600)))
            await trio.testing.wait_all_tasks_blocked()
            assert connection.alive == (n < 4)
        assert connection.protocol.limits.waiting_bytes == 0
    assert "reads no answers" in caplog.text


@pytest.mark.parametrize("pair", [lockstep_pair, socket_pair])
async def test_two_that_answer_each_other_at_length(pair: Pair, autojump_clock: MockClock) -> None:
    """Both are above high water, and neither waits for the other for ever."""
    large, count = b"r" * (HIGH_WATER_BYTES + 1), 10

    async def answer() -> Payload:
        await trio.lowlevel.checkpoint()
        return Payload(large)

    answers = []

    async def call(connection: Connection) -> None:
        answers.append((await connection.call(None, "any", Payload(large))).body == large)

    serve: Any = lambda _: answer()  # noqa: E731
    async with joined(serve, serve_near=serve, pair=pair) as both:
        async with trio.open_nursery() as nursery:
            for connection in both * count:
                nursery.start_soon(call, connection)
    assert answers == [True] * 2 * count


@pytest.mark.parametrize("pair", [lockstep_pair, socket_pair])
async def test_callers_wait_for_a_peer_that_does_not_read(
    pair: Pair, autojump_clock: MockClock
) -> None:
    size, count = 1 << 20, 64
    async with wired(pair=pair) as (bare, connection):
        async with trio.open_nursery() as nursery:
            for _ in range(count):
                nursery.start_soon(connection.call, None, "any", Payload(b"q" * size))
            await _no_more_than(connection, HIGH_WATER_BYTES + 3 * size)
            for frame in await read_frames(bare, count):
                await bare.send(b"".join(encode_frame(Kind.REPLY, frame.call_id)))


async def test_a_call_that_waits_to_be_sent_has_its_timeout(autojump_clock: MockClock) -> None:
    async with wired(pair=lockstep_pair) as (_, connection):
        for _ in range(2):
            connection.post("event", Payload(b"e" * HIGH_WATER_BYTES))
        with pytest.raises(DeadlineExceeded) as caught:
            await ask(connection, "any", timeout=2)
        assert trio.current_time() < BOUND_SECONDS / 2
        assert (caught.value.acknowledged, caught.value.may_have_run) == (False, False)


async def test_a_deadline_behind_a_slow_reader_does_not_spoil_the_reply(
    autojump_clock: MockClock,
) -> None:
    """The reply is queued, and its call's time runs out before the peer reads it."""
    large = b"r" * (HIGH_WATER_BYTES + 1)

    async def late() -> Payload:
        await trio.lowlevel.checkpoint()
        return Payload(large)

    async with wired(lambda _: late(), pair=lockstep_pair) as (bare, connection):
        await bare.send(b"".join(encode_frame(Kind.REQUEST, 1, msgpack.packb((None, "any", 1.0)))))
        await trio.sleep(5)
        connection.post("last", Payload(b""))
        frames = await read_frames(bare, 2)
        assert [(frame.kind, frame.call_id) for frame in frames] == [
            (Kind.REPLY, 1),
            (Kind.EVENT, 0),
        ]


async def test_a_flush_writes_what_was_queued_lazily_while_the_queue_was_held() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        stream = ConnectedStream(ours)
        out = WriteQueue(stream, TRIO_LOOP, lambda: None)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(out.run)
            out.held = True
            out.put([b"event"], lazily=True)
            nursery.start_soon(out.flush)
            await trio.testing.wait_all_tasks_blocked()
            out.release()
            with trio.fail_after(BOUND_SECONDS):
                await out.wait_until_drained()
            nursery.cancel_scope.cancel()
        assert theirs.recv(10) == b"event"
        await stream.aclose()


class _NoSocket:
    """A stream that is not a plain socket, as those of asyncio; keeps what is sent."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def extra(self, _: object, default: object) -> object:
        return default

    async def send(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self.sent.append(bytes(data))


async def test_small_buffers_leave_together_on_a_stream_that_is_not_a_socket() -> None:
    stream: Any = _NoSocket()
    out = WriteQueue(stream, TRIO_LOOP, lambda: None)
    small = [b"%d;" % i for i in range(1000)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(out.run)
        for buffer in [*small, b"L" * JOIN_BYTES, b"last"]:
            out.put([buffer])
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert stream.sent == [b"".join(small), b"L" * JOIN_BYTES, b"last"]
    assert out.size == 0

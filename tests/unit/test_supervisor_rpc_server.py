"""Methods over a connection, with memory in place of a socket's other end."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgpack
import numpy as np
import pytest
import trio
import trio.testing

from creamas_sc.errors import (
    BadArguments,
    CallRefused,
    CreamasError,
    DecodeError,
    UnknownSimulation,
)
from creamas_sc.rpc.calls import ServedCall, served_call
from creamas_sc.rpc.connection import Connection
from creamas_sc.rpc.socket_stream import ConnectedStream
from creamas_sc.rpc.write_queue import HIGH_WATER_BYTES
from creamas_sc.wire.codec import Codec, Payload
from creamas_sc.wire.frames import FrameReader, Kind, encode_frame
from supervisor import rpc_server
from supervisor.rpc_server import Method, MethodServer, PlainCodec, start_apart
from tests.support import values
from tests.support.streams import read_frames

BOUND_SECONDS = 5
CODEC = Codec()


async def add(a: int, b: int = 1) -> int:
    return a + b


async def refuse() -> None:
    raise UnknownSimulation("there is none")


async def wait() -> None:
    await trio.sleep_forever()


async def refuse_in_a_nursery() -> None:
    async with trio.open_nursery():
        await refuse()


async def break_in_a_nursery() -> None:
    async with trio.open_nursery():
        raise KeyError("slot")


METHODS: dict[str, Method] = {"add": add, "refuse": refuse, "wait": wait}
IN_NURSERIES: dict[str, Method] = {"refuse": refuse_in_a_nursery, "break": break_in_a_nursery}


@asynccontextmanager
async def joined(methods: dict[str, Method] = METHODS) -> AsyncIterator[Connection]:
    """A client's end of a connection to a front."""
    ours, theirs = socket.socketpair()
    front = MethodServer(ConnectedStream(theirs), methods, "a client", FrameReader())
    connection = Connection(ConnectedStream(ours))
    with trio.fail_after(BOUND_SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(front.connection.run)
            nursery.start_soon(connection.run)
            yield connection
            await connection.aclose()
            await front.connection.closed.wait()


async def call(connection: Connection, method: str, *args: Any, **kwargs: Any) -> Any:
    payload = CODEC.encode((args, kwargs))
    return CODEC.decode(await connection.call(None, method, payload))


async def test_methods_are_called_by_name() -> None:
    async with joined() as connection:
        assert await call(connection, "add", 1, b=2) == 3
        assert await call(connection, "add", 1) == 2


async def test_errors_reach_the_caller_as_they_are() -> None:
    async with joined() as connection:
        with pytest.raises(UnknownSimulation, match="there is none"):
            await call(connection, "refuse")


async def test_a_nursery_hides_no_error(caplog: pytest.LogCaptureFixture) -> None:
    async with joined(IN_NURSERIES) as connection:
        with pytest.raises(UnknownSimulation, match="there is none"):
            await call(connection, "refuse")
        assert caplog.text == ""
        with pytest.raises(CreamasError, match=r"^KeyError: 'slot'$"):
            await call(connection, "break")
    assert "a call failed inside creamas_sc" in caplog.text
    assert "KeyError: 'slot'" in caplog.text


async def test_what_does_not_fit_is_refused_with_what_would() -> None:
    async with joined() as connection:
        with pytest.raises(CallRefused, match="no method fly; there are add, refuse, wait"):
            await call(connection, "fly")
        with pytest.raises(BadArguments, match=r"add\(a, b\): missing a required argument: 'a'"):
            await call(connection, "add")
        with pytest.raises(BadArguments, match=r"add\(a, b\): got an unexpected keyword"):
            await call(connection, "add", 1, c=2)
        bad: list[Any] = [None, 1, [], "text", ((), {}, 1)]
        for value in bad:
            with pytest.raises(BadArguments, match="add: malformed arguments"):
                await connection.call(None, "add", CODEC.encode(value))
        with pytest.raises(CallRefused):
            await connection.call(3, "add", CODEC.encode(((1,), {})))
        assert await call(connection, "add", 1) == 2


async def test_a_caller_that_goes_cancels_its_call() -> None:
    async with joined() as connection:
        with trio.move_on_after(0.01) as scope:
            await call(connection, "wait")
        assert scope.cancelled_caught
        assert await call(connection, "add", 1) == 2


@pytest.mark.parametrize(
    "value",
    [
        *(int, np.ones(3), np.float64(1), [{"a": (dict,)}]),
        *(next(iter(values.Mood)), values.Place(1), values.Route(()), values.shorten),
    ],
)
def test_a_plain_codec_imports_nothing_for_a_value(value: object) -> None:
    with pytest.raises(DecodeError, match="unknown extension"):
        PlainCodec().decode(CODEC.encode(value))


def test_a_plain_codec_carries_plain_values() -> None:
    value: dict[Any, Any] = {
        "a": [1, 2.5, None, b"x" * (1 << 17)],
        (1, 2): {3, "four"},
        "big": 1 << 99,
    }
    assert PlainCodec().decode(PlainCodec().encode(value)) == value


async def test_a_task_that_is_started_apart_has_nothing_of_the_call() -> None:
    seen: list[ServedCall | None] = []

    async def look() -> None:
        seen.append(served_call.get())

    served = ServedCall()
    token = served_call.set(served)
    try:
        async with trio.open_nursery() as nursery:
            start_apart(nursery, look)
            nursery.start_soon(look)
    finally:
        served_call.reset(token)
    assert set(seen) == {None, served}


async def test_numbers_that_cannot_be_printed_are_refused() -> None:
    async with joined() as client:
        for number in (10**5000, [10**5000], {"a": (10**5000,)}):
            payload = CODEC.encode(((number,), {}))
            with pytest.raises(BadArguments, match="2077 bytes is over the limit of 64"):
                await client.call(None, "add", payload)
        answer = await client.call(None, "add", CODEC.encode(((2**256,), {})))
        assert CODEC.decode(answer) == 2**256 + 1


@pytest.mark.parametrize("read", [True, False])
async def test_answers_are_encoded_when_the_peer_reads(
    read: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All are there at once, as when calls wait for the same host; making them takes time."""
    encode, made = rpc_server.CODEC.encode, []

    def note(value: Any, *args: Any) -> Payload:
        made.append(value)
        return encode(value, *args)

    monkeypatch.setattr(rpc_server.CODEC, "encode", note)
    ready, size, count = trio.Event(), 1 << 20, 30

    async def give() -> str:
        await ready.wait()
        return "x" * size

    ours, theirs = socket.socketpair()
    server = MethodServer(ConnectedStream(theirs), {"give": give}, "a client", FrameReader())
    stream = ConnectedStream(ours)
    with trio.fail_after(BOUND_SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.connection.run)
            meta, nothing = msgpack.packb((None, "give", None)), CODEC.encode(((), {})).body
            for number in range(count):
                await stream.send(b"".join(encode_frame(Kind.REQUEST, number, meta, nothing)))
            await trio.testing.wait_all_tasks_blocked(0.01)
            ready.set()
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert 0 < server.connection.out.size <= HIGH_WATER_BYTES + size
            begun = len(made)
            assert begun < count // 2
            if read:
                frames = await read_frames(stream, count)
                assert sorted(frame.call_id for frame in frames) == list(range(count))
                assert {len(CODEC.decode(Payload(frame.body))) for frame in frames} == {size}
            await stream.aclose()
    assert len(made) == (count if read else begun)

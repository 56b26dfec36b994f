"""Connections joined in memory, or by sockets: calls, the reader role, events, and the end."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

import msgpack
import pytest
import trio
import trio.testing
from trio.testing import MockClock

from creamas_sc import errors
from creamas_sc.errors import CallRefused, ConnectionLost, CreamasError, EncodeError
from creamas_sc.rpc import connection as connection_module
from creamas_sc.rpc import write_queue
from creamas_sc.rpc.connection import Connection, Request
from creamas_sc.rpc.socket_stream import ConnectedStream
from creamas_sc.rpc.write_queue import BATCH
from creamas_sc.runtime.event_loop import adopt_running_loop
from creamas_sc.wire.codec import Payload
from creamas_sc.wire.frames import Kind, encode_frame
from tests.support.forks import exit_code_of
from tests.support.streams import (
    BOUND_SECONDS,
    CODEC,
    Pair,
    Service,
    ask,
    joined,
    lockstep_pair,
    memory_pair,
    read_frames,
    socket_pair,
    wired,
)

every_pair = pytest.mark.parametrize("pair", [memory_pair, lockstep_pair, socket_pair])


# ---- calls


@every_pair
@pytest.mark.parametrize("method", ["echo", "pause"])
async def test_pipelined_calls_both_ways(pair: Pair, method: str) -> None:
    answers: list[Any] = []

    async def call(connection: Connection, key: str) -> None:
        answers.append(await ask(connection, method, key, b"x" * 1000))

    async with joined(Service(), serve_near=Service(), pair=pair) as (near, far):
        async with trio.open_nursery() as nursery:
            for n in range(200):
                nursery.start_soon(call, near, f"to far {n}")
                nursery.start_soon(call, far, f"to near {n}")
    asked = {f"to {side} {n}" for side in ("near", "far") for n in range(200)}
    assert {key for key, _ in answers} == asked
    assert len(answers) == 400


async def test_the_peer_gets_target_method_and_arguments() -> None:
    service = Service()
    async with joined(service) as (near, far):
        answer = await near.call(7, "echo", CODEC.encode(("x", {1: (2, 3)})))
        assert CODEC.decode(answer) == ("x", {1: (2, 3)})
    (request,) = service.requests
    assert (request.connection, request.target, request.method) == (far, 7, "echo")


async def test_answers_may_come_in_any_order() -> None:
    service = Service()
    answered: list[int] = []

    async def call(key: int) -> None:
        assert await ask(near, "behind", key) == key
        answered.append(key)

    async with joined(service) as (near, _):
        async with trio.open_nursery() as nursery:
            for key in (1, 2, 3):
                nursery.start_soon(call, key)
            await trio.testing.wait_all_tasks_blocked()
            for key in (2, 3, 1):
                service.gate(key).set()
                await trio.testing.wait_all_tasks_blocked()
    assert answered == [2, 3, 1]


@every_pair
async def test_large_parts_arrive_whole(pair: Pair) -> None:
    large = bytes(range(256)) * 8192
    async with joined(Service(), pair=pair) as (near, _):
        assert await ask(near, "echo", large, 1, large) == (large, 1, large)


async def test_a_call_that_never_suspends_costs_no_task() -> None:
    tasks = []

    async def serve() -> Payload:
        tasks.append(trio.lowlevel.current_task())
        return Payload(b"")

    async with joined(lambda _: serve()) as (near, _):
        for _ in range(10):
            await near.call(None, "any", Payload(b""))
    assert len(set(tasks)) == 1


@pytest.mark.parametrize("rounds", [1, 2])
async def test_a_call_that_lets_the_scheduler_go_round_once_costs_no_task(rounds: int) -> None:
    tasks = []

    async def serve() -> Payload:
        tasks.append(trio.lowlevel.current_task())
        for _ in range(rounds):
            await trio.lowlevel.checkpoint()
        return Payload(b"")

    async with joined(lambda _: serve(), pair=socket_pair) as (near, _):
        with trio.CancelScope(shield=True):  # no deadline
            for _ in range(10):
                await near.call(None, "any", Payload(b""))
    assert len(set(tasks)) == (1 if rounds == 1 else 10)


async def test_a_deadline_that_passes_while_the_scheduler_goes_round_ends_the_call_alone() -> None:
    async def serve(method: str) -> Payload:
        if method == "slow":
            time.sleep(0.1)  # noqa: ASYNC251 - it computes
            await trio.lowlevel.cancel_shielded_checkpoint()
        return Payload(b"")

    async with joined(lambda request: serve(request.method), pair=socket_pair) as (near, _):
        with trio.move_on_after(0.05) as scope:
            await near.call(None, "slow", Payload(b""))
        assert scope.cancelled_caught
        await near.call(None, "next", Payload(b""))


async def test_what_is_answered_leaves_before_the_scheduler_goes_round() -> None:
    left = []
    bare, other = socket.socketpair()

    async def resting() -> Payload:
        await trio.lowlevel.checkpoint()
        left.append(bare.recv(1 << 16, socket.MSG_DONTWAIT))
        connection.abort()
        return Payload(b"")

    serve: dict[str, Callable[[], Any]]
    serve = {"first": lambda: Payload(b"an answer"), "second": resting}
    for call_id, method in enumerate(serve, start=1):
        meta = msgpack.packb((None, method, None))
        bare.send(b"".join(encode_frame(Kind.REQUEST, call_id, meta)))
    connection = Connection(ConnectedStream(other), lambda request: serve[request.method]())
    with bare, trio.fail_after(BOUND_SECONDS):
        await connection.run()
    assert len(left) == 1
    assert b"an answer" in left[0]


async def test_a_forked_child_serves_and_answers_nothing() -> None:
    served, mark = os.pipe()
    children = []
    all_served = trio.Event()

    def serve(request: Request) -> Payload:
        os.write(mark, request.method.encode())
        if request.method == "B":
            children.append(os.fork())
        elif request.method == "C":
            all_served.set()
        return Payload(b"an answer")

    bare, other = socket.socketpair()
    for call_id, method in enumerate("ABC", start=1):
        meta = msgpack.packb((None, method, None))
        bare.send(b"".join(encode_frame(Kind.REQUEST, call_id, meta)))
    with bare:
        async with adopt_running_loop():
            with trio.fail_after(BOUND_SECONDS):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(Connection(ConnectedStream(other), serve).run)
                    await all_served.wait()
                    await trio.testing.wait_all_tasks_blocked()
                    nursery.cancel_scope.cancel()
        assert exit_code_of(children[0]) == 1
        os.close(mark)
        with open(served, "rb") as marks:
            assert marks.read() == b"ABC"
        assert bare.recv(1 << 16).count(b"an answer") == 3


async def test_a_served_call_calls_back_a_peer_that_is_gone() -> None:
    async def back() -> Payload:
        bare.close()
        return await connection.call(None, "any", Payload(b""))

    for _ in range(20):  # whether the reader or the writer learns of it first is chance
        bare, other = socket.socketpair()
        connection = Connection(ConnectedStream(other), lambda _: back())
        meta = msgpack.packb((None, "any", None))
        bare.send(b"".join(encode_frame(Kind.REQUEST, 1, meta)))
        with trio.fail_after(BOUND_SECONDS):
            await connection.run()


async def test_a_call_that_waits_for_room_which_its_own_wait_makes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(write_queue, "HIGH_WATER_BYTES", 1000)
    # On a busy machine the reader may otherwise write between the two, and no call waits.
    monkeypatch.setattr(connection_module, "YIELD_SECONDS", BOUND_SECONDS)
    large = CODEC.encode("x" * 2000)

    async def abort_when_it_waits(connection: Connection) -> None:
        while not connection.protocol.in_flight:
            await trio.lowlevel.checkpoint()
        connection.abort()

    for _ in range(20):  # which of the two tasks has its turn first is chance
        bare, other = socket.socketpair()
        for call_id in (1, 2):
            meta = msgpack.packb((None, "any", None))
            bare.send(b"".join(encode_frame(Kind.REQUEST, call_id, meta)))
        connection = Connection(ConnectedStream(other), lambda _: large)
        with bare, trio.fail_after(BOUND_SECONDS):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(abort_when_it_waits, connection)
                await connection.run()


async def test_a_call_that_suspends_keeps_its_task_its_scopes_and_its_variables() -> None:
    mark: ContextVar[str] = ContextVar("mark", default="")
    gate = trio.Event()
    seen = []

    async def serve(method: str) -> Payload:
        task = trio.lowlevel.current_task()
        if method == "first":
            mark.set("of the first")
            with trio.move_on_after(BOUND_SECONDS):
                await gate.wait()
        seen.append((method, mark.get()))
        assert trio.lowlevel.current_task() is task
        return Payload(b"")

    async with joined(lambda request: serve(request.method)) as (near, _):
        async with trio.open_nursery() as nursery:
            for method in ("first", "second", "third"):
                nursery.start_soon(near.call, None, method, Payload(b""))
            await trio.testing.wait_all_tasks_blocked(0.01)
            gate.set()
    assert dict(seen) == {"second": "", "third": "", "first": "of the first"}
    assert seen[-1][0] == "first"


@every_pair
async def test_a_flood_of_calls_lets_other_tasks_run(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of it comes in one piece, and would be one batch."""
    monkeypatch.setattr(connection_module, "YIELD_SECONDS", 0.0)
    served, count, at = 0, 500, []

    def serve(_: Request) -> Payload:
        nonlocal served
        served += 1
        return Payload(b"")

    async def look() -> None:
        while served < count:
            at.append(served)
            await trio.lowlevel.checkpoint()

    async with wired(serve, pair=pair) as (bare, _):
        calls = [encode_frame(Kind.REQUEST, n, msgpack.packb((1, "a", None))) for n in range(count)]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(look)
            nursery.start_soon(bare.send, b"".join(b for call in calls for b in call))
            await read_frames(bare, count)
    assert len(set(at)) > count / 2


async def test_many_small_answers_leave_in_few_writes_but_not_all_at_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection_module, "YIELD_SECONDS", BOUND_SECONDS)
    sizes = []

    def serve(request: Request) -> Payload:
        sizes.append(request.connection.out.size)
        return Payload(b"")

    async with wired(serve, pair=socket_pair) as (bare, _):
        meta = msgpack.packb((None, "any", None))
        calls = [encode_frame(Kind.REQUEST, n, meta) for n in range(10 * BATCH)]
        await bare.send(b"".join(b for call in calls for b in call))
        await read_frames(bare, len(calls))
    assert sizes.count(0) == 10  # each time all that waited had been written


async def test_an_end_that_serves_nothing_refuses() -> None:
    async with joined() as (near, _):
        with pytest.raises(CallRefused, match="echo: this end takes no calls"):
            await ask(near, "echo")


# ---- errors


@pytest.mark.parametrize("late", [False, True], ids=["sync", "async"])
async def test_an_error_crosses(late: bool) -> None:
    async def fail() -> Payload:
        await trio.lowlevel.checkpoint()
        raise CallRefused("what went wrong")

    def serve(_: Request) -> Awaitable[Payload]:
        if late:
            return fail()
        raise CallRefused("what went wrong")

    async with joined(serve) as (near, _):
        with pytest.raises(CallRefused, match="what went wrong"):
            await ask(near, "fail")


async def test_an_error_of_the_handler_that_is_a_bug_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with joined(Service()) as (near, _):
        with pytest.raises(CreamasError, match="TypeError"):
            await near.call(None, "echo", CODEC.encode(3))  # no tuple: ``*3`` fails
        assert await ask(near, "echo", 1) == (1,)
    (record,) = caplog.records
    assert record.exc_info is not None
    assert record.levelno == logging.ERROR


@pytest.mark.parametrize("method", ["echo", "pause"])
async def test_too_large_a_reply_is_an_error_and_the_connection_lives(method: str) -> None:
    class Huge(Service):
        def echo(self, *values: Any) -> Any:
            return (bytes(2**28 + 1),) if values[0] == "huge" else values

        async def pause(self, *values: Any) -> Any:
            return self.echo(*values)

    async with joined(Huge()) as (near, _):
        with pytest.raises(EncodeError, match="over the limit"):
            await ask(near, method, "huge")
        assert await ask(near, method, "small") == ("small",)


async def test_too_large_a_call_is_an_error_and_the_connection_lives() -> None:
    async with joined(Service()) as (near, _):
        with pytest.raises(EncodeError, match="over the limit"):
            await ask(near, "echo", bytes(2**28 + 1))
        assert await ask(near, "echo", "small") == ("small",)


# ---- events


@every_pair
async def test_events_arrive_in_order(pair: Pair) -> None:
    heard: list[tuple[str, Any]] = []

    def hear(name: str, payload: Payload) -> None:
        heard.append((name, CODEC.decode(payload)))

    async with joined(Service(), on_event=hear, pair=pair) as (near, _):
        for n in range(500):
            near.post(f"event {n % 3}", CODEC.encode((n, b"y" * (n * 37 % 5000))))
        await ask(near, "echo")
        assert [(name, value[0]) for name, value in heard] == [
            (f"event {n % 3}", n) for n in range(500)
        ]
    near.post("nobody is there", CODEC.encode(1))
    assert len(heard) == 500


async def test_an_event_leaves_with_the_answer_behind_it(autojump_clock: MockClock) -> None:
    heard: list[tuple[str, float]] = []

    async def serve() -> Payload:
        for news in ("first", "second"):
            far.post(news, CODEC.encode(None), with_answer=True)
            await trio.sleep(1)
        return CODEC.encode("reply")

    def hear(name: str, _: Payload) -> None:
        heard.append((name, trio.current_time()))

    one, other = memory_pair()
    near, far = Connection(one, on_event=hear), Connection(other, lambda _: serve())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(near.run)
        nursery.start_soon(far.run)
        began = trio.current_time()
        assert await ask(near, "any") == "reply"
        assert heard == [("first", began + 2), ("second", began + 2)]
        far.post("no call is in flight", CODEC.encode(None), with_answer=True)
        await trio.testing.wait_all_tasks_blocked()
        assert len(heard) == 3
        far.abort()


# ---- the end


@every_pair
async def test_a_peer_that_goes_ends_the_calls_both_ways(
    pair: Pair, autojump_clock: MockClock
) -> None:
    ours, theirs = Service(), Service()
    failed: list[ConnectionLost] = []

    async def call(connection: Connection) -> None:
        try:
            await ask(connection, "sleep")
        except ConnectionLost as error:
            failed.append(error)

    async with joined(theirs, serve_near=ours, pair=pair) as (near, far):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call, near)
            nursery.start_soon(call, far)
            await trio.testing.wait_all_tasks_blocked(0.01)
            far.abort()
        await near.closed.wait()
        await far.closed.wait()
        assert not near.alive
        assert not far.alive
        with pytest.raises(ConnectionLost, match="no connection to far") as caught:
            await ask(near, "echo")
        assert not caught.value.may_have_run
    assert sorted(error.address for error in failed) == ["far", "near"]
    assert all(error.may_have_run for error in failed)
    assert (ours.cancelled, theirs.cancelled) == (["sleep"], ["sleep"])


@every_pair
@pytest.mark.parametrize("size", [10, 100_000])
async def test_close_flushes_what_is_queued(pair: Pair, size: int) -> None:
    heard: list[int] = []

    def hear(name: str, payload: Payload) -> None:
        heard.append(CODEC.decode(payload)[0])

    async with joined(on_event=hear, pair=pair) as (near, far):
        await trio.testing.wait_all_tasks_blocked(0.01)
        for n in range(30):
            near.post("event", CODEC.encode((n, b"z" * size)))
        await near.aclose()
        await far.closed.wait()
    assert heard == list(range(30))


@pytest.mark.parametrize("pair", [lockstep_pair, socket_pair])
async def test_close_does_not_wait_for_a_peer_that_does_not_read(
    pair: Pair, autojump_clock: MockClock
) -> None:
    async with wired(pair=pair) as (_, connection):
        for _ in range(20):
            connection.post("event", CODEC.encode(b"z" * 100_000))
        await trio.testing.wait_all_tasks_blocked(0.01)
        began = trio.current_time()
        await connection.aclose()
        assert trio.current_time() - began == pytest.approx(connection_module.FLUSH_SECONDS)


async def test_a_cancelled_close_closes(autojump_clock: MockClock) -> None:
    async with wired(pair=lockstep_pair) as (_, connection):
        connection.post("event", CODEC.encode(1))
        await trio.testing.wait_all_tasks_blocked()
        with trio.CancelScope() as scope:
            scope.cancel()
            await connection.aclose()
        assert connection.closed.is_set()


# ---- a peer that breaks the protocol

GARBAGE: dict[str, bytes] = {
    "http": b"GET / HTTP/1.1\r\n\r\n",
    "hello": b"".join(encode_frame(Kind.HELLO, 0, b"", b"again")),
    "4 GiB": b"\xff\xff\xff\xff\x03" + bytes(11),
    "no request": b"".join(encode_frame(Kind.REQUEST, 1, b"\xc1")),
    "half a request": b"".join(encode_frame(Kind.REQUEST, 1, msgpack.packb((1, "act")))),
    "no method": b"".join(encode_frame(Kind.REQUEST, 1, msgpack.packb((1, 2, None)))),
    "no seconds": b"".join(encode_frame(Kind.REQUEST, 1, msgpack.packb((1, "echo", "soon")))),
    "nan seconds": b"".join(
        encode_frame(Kind.REQUEST, 1, msgpack.packb((1, "echo", float("nan"))))
    ),
    "no event": b"".join(encode_frame(Kind.EVENT, 0, b"\xff\xfe")),
}


@pytest.mark.parametrize("garbage", GARBAGE)
async def test_garbage_closes_the_connection_with_one_log_line(
    garbage: str, caplog: pytest.LogCaptureFixture
) -> None:
    service = Service()
    failed: list[Exception] = []

    async def call(connection: Connection) -> None:
        try:
            await ask(connection, "any")
        except ConnectionLost as error:
            failed.append(error)

    async with wired(service) as (bare, connection):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call, connection)
            await trio.testing.wait_all_tasks_blocked()
            await bare.send(GARBAGE[garbage])
            await connection.closed.wait()
    assert len(failed) == 1
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith("closing the connection to peer: ")
    assert record.exc_info is None


async def test_late_answers_and_cancels_of_nothing_are_ignored() -> None:
    async with wired(Service()) as (bare, connection):
        for kind in (Kind.REPLY, Kind.FAILURE, Kind.CANCEL):
            await bare.send(b"".join(encode_frame(kind, 77)))
        await trio.testing.wait_all_tasks_blocked()
        assert connection.alive


@pytest.mark.parametrize("body", [b"", b"\xc1", msgpack.packb({"code": "no such"})])
async def test_a_malformed_failure_is_an_error_of_its_call_alone(
    body: bytes, autojump_clock: MockClock
) -> None:
    async with wired(Service()) as (bare, connection):

        async def answer() -> None:
            (frame,) = await read_frames(bare, 1)
            await bare.send(b"".join(encode_frame(Kind.FAILURE, frame.call_id, b"", body)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer)
            with pytest.raises(errors.DecodeError):
                await ask(connection, "any")
        assert connection.alive


async def test_a_handler_of_events_that_fails_ends_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def hear(name: str, payload: Payload) -> None:
        raise ZeroDivisionError(name)

    async with joined(Service(), on_event=hear) as (near, far):
        near.post("bad news", CODEC.encode(None))
        assert await ask(near, "echo", 1) == (1,)
        assert far.alive
    (record,) = caplog.records
    assert "bad news" in record.getMessage()
    assert record.exc_info is not None


async def test_more_calls_in_flight_than_there_may_be() -> None:
    service = Service()
    async with joined(service, max_calls=3) as (near, _):
        async with trio.open_nursery() as nursery:
            for key in range(3):
                nursery.start_soon(ask, near, "behind", key)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(CallRefused, match="3 calls are in flight"):
                await ask(near, "echo")
            for key in range(3):
                service.gate(key).set()
        assert await ask(near, "echo") == ()


def test_a_connection_that_never_ran_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        stream, other = memory_pair()
        connection = Connection(stream)
        with trio.fail_after(1):
            await connection.aclose()
        assert not connection.alive
        await other.aclose()

    runner: Callable[..., Any] = trio.run
    runner(main)

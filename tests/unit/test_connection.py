"""Two connections joined in memory, or by a pair of sockets that never leaves the process."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from inspect import isawaitable
from typing import Any

import anyio
import msgpack
import pytest
import trio
import trio.testing
from anyio.abc import ByteStream
from trio.testing import MockClock

from creamas_sc import errors
from creamas_sc.errors import (
    AgentError,
    AgentErrors,
    CallRefused,
    ConnectionLost,
    CreamasError,
    DeadlineExceeded,
    EncodeError,
    SlaveLost,
)
from creamas_sc.rpc import connection as connection_module
from creamas_sc.rpc import write_queue
from creamas_sc.rpc.connection import Connection, Request
from creamas_sc.rpc.socket_stream import ConnectedStream
from creamas_sc.rpc.write_queue import BATCH, HIGH_WATER_BYTES
from creamas_sc.wire import limits
from creamas_sc.wire.codec import Payload
from creamas_sc.wire.frames import Frame, FrameReader, Kind, encode_frame
from creamas_sc.wire.protocol import ACKNOWLEDGE_SECONDS
from tests.support.streams import (
    BOUND_SECONDS,
    CODEC,
    Pair,
    ask,
    joined,
    lockstep_pair,
    memory_pair,
    socket_pair,
    wired,
)

every_pair = pytest.mark.parametrize("pair", [memory_pair, lockstep_pair, socket_pair])


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
        return Payload(b"")

    serve: dict[str, Callable[[], Any]]
    serve = {"first": lambda: Payload(b"an answer"), "second": resting}
    for call_id, method in enumerate(serve, start=1):
        meta = msgpack.packb((None, method, None))
        bare.send(b"".join(encode_frame(Kind.REQUEST, call_id, meta)))
    with bare, trio.move_on_after(0.2):
        await Connection(ConnectedStream(other), lambda request: serve[request.method]()).run()
    assert len(left) == 1
    assert b"an answer" in left[0]


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
    large = CODEC.encode("x" * 2000)

    async def abort_when_it_waits(connection: Connection) -> None:
        while not connection.serving:
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
            await _read_frames(bare, count)
    assert len(set(at)) > count / 2


async def test_many_small_answers_leave_in_few_writes_but_not_all_at_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection_module, "YIELD_SECONDS", BOUND_SECONDS)
    sizes = []

    def serve(request: Request) -> Payload:
        sizes.append(request.connection._out.size)
        return Payload(b"")

    async with wired(serve, pair=socket_pair) as (bare, _):
        meta = msgpack.packb((None, "any", None))
        calls = [encode_frame(Kind.REQUEST, n, meta) for n in range(10 * BATCH)]
        await bare.send(b"".join(b for call in calls for b in call))
        await _read_frames(bare, len(calls))
    assert sizes.count(0) == 10  # each time all that waited had been written


async def test_an_end_that_serves_nothing_refuses() -> None:
    async with joined() as (near, _):
        with pytest.raises(CallRefused, match="echo: this end takes no calls"):
            await ask(near, "echo")


# ---- errors


def _agent_error(number: int) -> AgentError:
    return AgentError(
        address=f"tcp://localhost:1/{number}",
        type_name="ValueError",
        message="bad",
        traceback_text="T",
    )


ERRORS: list[Exception] = [
    *(
        cls("what went wrong")
        for cls in errors.WIRE_CODES.values()
        if cls not in (AgentError, SlaveLost, DeadlineExceeded, EncodeError)
    ),
    _agent_error(3),
    SlaveLost("gone", address="a", pid=3, exit_code=None, signal=9, may_have_run=False),
    DeadlineExceeded("late", acknowledged=True, may_have_run=False, addresses=["a", "b"]),
    EncodeError("cannot", type_name="x.Y", path="args[0]"),
]


@pytest.mark.parametrize("late", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
async def test_each_error_crosses_with_its_fields(error: CreamasError, late: bool) -> None:
    async def fail() -> Payload:
        await trio.lowlevel.checkpoint()
        raise error

    def serve(request: Request) -> Awaitable[Payload]:
        if late:
            return fail()
        raise error

    async with joined(serve) as (near, _):
        with pytest.raises(CreamasError) as caught:
            await ask(near, "fail")
    assert type(caught.value) is type(error)
    assert str(caught.value) == str(error)
    names = {*error.fields, "may_have_run"}
    assert {n: getattr(caught.value, n) for n in names} == {n: getattr(error, n) for n in names}


async def test_a_group_keeps_its_failures_and_results() -> None:
    told = {e.address: e for e in (_agent_error(1), _agent_error(2))}

    def serve(request: Request) -> Payload:
        raise AgentErrors("two failed", told, [1, (2,)])

    async with joined(serve) as (near, _):
        with pytest.raises(AgentErrors, match="two failed") as caught:
            await ask(near, "fail")
    assert list(caught.value.failures) == list(told)
    assert caught.value.results == [1, (2,)]
    assert [str(e) for e in caught.value.exceptions] == [str(e) for e in told.values()]


async def test_our_own_slip_is_logged_and_told(caplog: pytest.LogCaptureFixture) -> None:
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


async def test_results_that_cannot_travel_are_told_of() -> None:
    def serve(request: Request) -> Payload:
        raise AgentErrors("one failed", {"a": _agent_error(1)}, [object()])

    async with joined(serve) as (near, _):
        with pytest.raises(EncodeError, match="object"):
            await ask(near, "fail")


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


# ---- cancellation and deadlines


async def test_a_cancelled_call_is_cancelled_at_the_peer_and_acknowledged(
    autojump_clock: MockClock,
) -> None:
    service = Service()
    async with joined(service) as (near, _):
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask, near, "sleep")
                await trio.testing.wait_all_tasks_blocked()
                began = trio.current_time()
                scope.cancel()
        assert scope.cancelled_caught
        assert service.cancelled == ["sleep"]
        assert trio.current_time() == began  # the acknowledgement came at once
        assert await ask(near, "echo", 1) == (1,)


async def test_a_cancelled_call_of_a_deaf_peer_ends_within_the_bound(
    autojump_clock: MockClock,
) -> None:
    async with joined(Service()) as (near, _):
        began = trio.current_time()
        with trio.move_on_after(1) as scope:
            await ask(near, "shield", 20)
        assert scope.cancelled_caught
        assert trio.current_time() - began == pytest.approx(1 + ACKNOWLEDGE_SECONDS)
        assert await ask(near, "echo", 1) == (1,)
        await trio.sleep(20)  # the late reply changes nothing
        assert await ask(near, "echo", 2) == (2,)


async def test_a_timeout_that_the_callee_acknowledges(autojump_clock: MockClock) -> None:
    service = Service()
    async with joined(service) as (near, _):
        began = trio.current_time()
        with pytest.raises(DeadlineExceeded) as caught:
            await ask(near, "sleep", timeout=3)
        assert trio.current_time() - began == pytest.approx(3)
        assert service.cancelled == ["sleep"]
    assert (caught.value.acknowledged, caught.value.may_have_run) == (True, True)


async def test_a_callee_acknowledges_that_the_time_ran_out(autojump_clock: MockClock) -> None:
    async with wired(Service()) as (bare, _):
        meta = msgpack.packb((None, "sleep", 3.0))
        body = CODEC.encode(()).body
        await bare.send(b"".join(encode_frame(Kind.REQUEST, 5, meta, body)))
        began = trio.current_time()
        (frame,) = await _read_frames(bare, 1)
        assert trio.current_time() - began == pytest.approx(3)
        told = errors.from_wire(CODEC.decode(Payload(frame.body)))
        assert isinstance(told, DeadlineExceeded)
        assert (frame.call_id, told.acknowledged, told.may_have_run) == (5, True, True)


async def test_a_timeout_that_the_callee_shields_from(autojump_clock: MockClock) -> None:
    async with joined(Service()) as (near, _):
        began = trio.current_time()
        with pytest.raises(DeadlineExceeded, match="shield of far") as caught:
            await ask(near, "shield", 20, timeout=3)
        assert trio.current_time() - began == pytest.approx(3 + ACKNOWLEDGE_SECONDS)
    assert (caught.value.acknowledged, caught.value.may_have_run) == (False, True)
    assert caught.value.addresses == ["far"]


async def test_who_further_on_has_not_confirmed_is_told(autojump_clock: MockClock) -> None:
    class Relay(Service):
        async def relay(self, method: str, seconds: float) -> Any:
            async with trio.open_nursery() as nursery:  # what it starts serves the call, too
                nursery.start_soon(ask, onwards, method, seconds)

    async with joined(Service()) as (onwards, _), wired(Relay()) as (bare, _):
        for call_id, method in enumerate(("sleep", "shield"), start=1):
            meta = msgpack.packb((None, "relay", 3.0))
            body = CODEC.encode((method, 20)).body
            await bare.send(b"".join(encode_frame(Kind.REQUEST, call_id, meta, body)))
            (frame,) = await _read_frames(bare, 1)
            told = errors.from_wire(CODEC.decode(Payload(frame.body)))
            assert isinstance(told, DeadlineExceeded)
            assert told.acknowledged == (method == "sleep")
            assert told.addresses == ([] if told.acknowledged else ["far"])


async def test_a_confirmation_that_somebody_further_on_did_not_give(
    autojump_clock: MockClock,
) -> None:
    async def unsure(request: Request) -> Payload:
        try:
            await trio.sleep_forever()
        finally:
            raise DeadlineExceeded("cancelled", acknowledged=False)

    async with joined(unsure) as (near, _):
        with pytest.raises(DeadlineExceeded) as caught:
            await ask(near, "anything", timeout=1)
        assert not caught.value.acknowledged


async def test_a_call_that_is_given_up_at_once_is_cancelled_all_the_same(
    autojump_clock: MockClock,
) -> None:
    service = Service()
    async with joined(service) as (near, _):
        began = trio.current_time()
        with pytest.raises(DeadlineExceeded) as caught:
            await near.call(None, "shield", CODEC.encode((20,)), timeout=3, acknowledge_seconds=0)
        assert trio.current_time() - began == pytest.approx(3)
        assert not caught.value.acknowledged
        with pytest.raises(DeadlineExceeded):
            await near.call(None, "sleep", CODEC.encode(()), timeout=3, acknowledge_seconds=0)
        await trio.testing.wait_all_tasks_blocked()
        assert service.cancelled == ["sleep"]


async def test_a_reply_within_the_acknowledgements_bound_counts(autojump_clock: MockClock) -> None:
    async with joined(Service()) as (near, _):
        late = 1 + ACKNOWLEDGE_SECONDS / 2
        assert await ask(near, "shield", late, timeout=1) == "done all the same"


@pytest.mark.parametrize(
    ("scope_seconds", "timeout", "expected"),
    [(None, None, None), (5, None, 5), (None, 2, 2), (5, 2, 2), (2, 5, 2), (-1, 5, 0)],
)
async def test_remaining_seconds_travel(
    scope_seconds: float | None,
    timeout: float | None,
    expected: float | None,
    autojump_clock: MockClock,
) -> None:
    service = Service()
    seconds = float("inf") if scope_seconds is None else scope_seconds
    async with joined(service) as (near, _):
        # The shield keeps the deadline of the block itself out of it.
        with trio.CancelScope(deadline=trio.current_time() + seconds, shield=True):
            await ask(near, "echo", timeout=timeout)
    (request,) = service.requests
    assert request.remaining == (None if expected is None else pytest.approx(expected))


async def test_the_callers_move_on_after_is_silent(autojump_clock: MockClock) -> None:
    service = Service()
    async with joined(service) as (near, _):
        began = trio.current_time()
        with anyio.move_on_after(2) as scope:
            await ask(near, "sleep")
        assert scope.cancel_called
        assert trio.current_time() - began == pytest.approx(2)
        assert service.cancelled == ["sleep"]


async def test_the_callers_fail_after_is_a_plain_timeout_error(autojump_clock: MockClock) -> None:
    async with joined(Service()) as (near, _):
        with pytest.raises(TimeoutError) as caught:
            with anyio.fail_after(2):
                await ask(near, "sleep")
        assert type(caught.value) is TimeoutError


async def test_a_callee_whose_clock_is_ahead_does_not_break_the_callers_scope(
    autojump_clock: MockClock,
) -> None:
    async def ahead() -> Payload:
        await trio.sleep(1.9)
        raise DeadlineExceeded("out of time here", acknowledged=True)

    async with joined(lambda _: ahead()) as (near, _):
        with anyio.move_on_after(2) as scope:
            await ask(near, "any")
        assert scope.cancel_called
        with pytest.raises(DeadlineExceeded, match="out of time here"):
            await ask(near, "any")


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


# ---- a peer that reads slowly


async def _no_more_than(connection: Connection, bytes_: int) -> None:
    await trio.testing.wait_all_tasks_blocked(0.01)
    assert HIGH_WATER_BYTES < connection._out.size <= bytes_


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
        most = max(most, request.connection._out.size)
        return Payload(large)

    async with wired(serve, pair=pair) as (bare, connection):
        meta = msgpack.packb((None, "any", None))
        for call_id in range(count):
            await bare.send(b"".join(encode_frame(Kind.REQUEST, call_id, meta)))
        await _no_more_than(connection, HIGH_WATER_BYTES + 3 * size)
        assert served < 10
        frames = await _read_frames(bare, count)
        assert sorted(frame.call_id for frame in frames) == list(range(count))
        assert all(frame.body == large for frame in frames)
    assert served == count
    assert most <= HIGH_WATER_BYTES  # also once it reads, it is served in turn


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
        frames = await _read_frames(bare, count)
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
        frames = await _read_frames(bare, count)
        assert {frame.kind for frame in frames} == {Kind.REPLY}


async def test_a_call_that_is_cancelled_before_its_turn(autojump_clock: MockClock) -> None:
    """Nothing of it is left unawaited, which would be a warning and so an error here."""
    began = []

    async def any_() -> Payload:
        began.append(1)
        await trio.sleep_forever()
        raise AssertionError

    async with wired(lambda _: any_(), pair=lockstep_pair) as (bare, connection):
        connection._out.fill()
        await bare.send(b"".join(encode_frame(Kind.REQUEST, 1, msgpack.packb((None, "a", 1.0)))))
        connection._out.end()  # it was free to begin when the call came
        await trio.testing.wait_all_tasks_blocked()
        connection.post("event", Payload(b"e" * (HIGH_WATER_BYTES + 1)))
        await bare.send(b"".join(encode_frame(Kind.REQUEST, 2, msgpack.packb((None, "a", 1.0)))))
        await trio.sleep(2)
        kinds = [frame.kind for frame in await _read_frames(bare, 3)]
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
            for frame in await _read_frames(bare, count):
                await bare.send(b"".join(encode_frame(Kind.REPLY, frame.call_id)))


async def test_a_call_that_waits_to_be_sent_has_its_timeout(autojump_clock: MockClock) -> None:
    async with wired(pair=lockstep_pair) as (_, connection):
        for _ in range(2):
            connection.post("event", Payload(b"e" * HIGH_WATER_BYTES))
        with pytest.raises(DeadlineExceeded) as caught:
            await ask(connection, "any", timeout=2)
        assert trio.current_time() < BOUND_SECONDS / 2
        assert (caught.value.acknowledged, caught.value.may_have_run) == (False, False)


async def _read_frames(stream: ByteStream, count: int) -> list[Frame]:
    reader, frames = FrameReader(), list[Frame]()
    while len(frames) < count:
        frames += reader.receive_data(await stream.receive(1 << 20))
    return frames


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
        frames = await _read_frames(bare, 2)
        assert [(frame.kind, frame.call_id) for frame in frames] == [
            (Kind.REPLY, 1),
            (Kind.EVENT, 0),
        ]


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
            (frame,) = await _read_frames(bare, 1)
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

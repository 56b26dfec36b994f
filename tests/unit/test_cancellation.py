"""Calls that are cancelled or out of time, at both ends of a connection."""

from __future__ import annotations

from typing import Any

import anyio
import msgpack
import pytest
import trio
import trio.testing
from trio.testing import MockClock

from creamas_sc import errors
from creamas_sc.errors import (
    DeadlineExceeded,
)
from creamas_sc.rpc.connection import Request
from creamas_sc.runtime.timeouts import ACKNOWLEDGE_SECONDS
from creamas_sc.wire.codec import Payload
from creamas_sc.wire.frames import Kind, encode_frame
from tests.support.streams import (
    CODEC,
    Service,
    ask,
    joined,
    read_frames,
    wired,
)


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
        (frame,) = await read_frames(bare, 1)
        assert trio.current_time() - began == pytest.approx(3)
        error = errors.from_wire(CODEC.decode(Payload(frame.body)))
        assert isinstance(error, DeadlineExceeded)
        assert (frame.call_id, error.acknowledged, error.may_have_run) == (5, True, True)


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
            (frame,) = await read_frames(bare, 1)
            error = errors.from_wire(CODEC.decode(Payload(frame.body)))
            assert isinstance(error, DeadlineExceeded)
            assert error.acknowledged == (method == "sleep")
            assert error.addresses == ([] if error.acknowledged else ["far"])


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

"""Several calls that one task makes at once, over connections in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from creamas_sc.errors import CallRefused, ConnectionLost, DeadlineExceeded, first_error
from creamas_sc.rpc.calls import Call, Calls, ServedCall, served_call
from creamas_sc.rpc.connection import Connection, Request
from creamas_sc.rpc.loops import ANYIO_LOOP
from creamas_sc.runtime.timeouts import ACKNOWLEDGE_SECONDS
from creamas_sc.wire.codec import Payload
from tests.support.streams import CODEC, joined


class Peer:
    """Answers after a while, in its own way."""

    def __init__(self) -> None:
        self.cancelled: list[str] = []

    def __call__(self, request: Request) -> Awaitable[Payload]:
        return self._answer(request.method, *CODEC.decode(request.payload))

    async def _answer(self, method: str, seconds: float) -> Payload:
        try:
            with trio.CancelScope(shield=method == "shield"):
                await trio.sleep(seconds)
        except trio.Cancelled:
            self.cancelled.append(method)
            raise
        if method == "fail":
            raise CallRefused("it failed")
        return CODEC.encode("x" * 100_000 if method == "large" else seconds)


@asynccontextmanager
async def peers(count: int) -> AsyncIterator[tuple[list[Connection], list[Peer]]]:
    async with AsyncExitStack() as stack:
        served = [Peer() for _ in range(count)]
        links = [(await stack.enter_async_context(joined(peer)))[0] for peer in served]
        yield links, served


async def start(calls: Calls, links: list[Connection], *asked: tuple[str, float]) -> list[Call]:
    return [
        await calls.start(link, None, method, CODEC.encode((seconds,)))
        for link, (method, seconds) in zip(links, asked, strict=True)
    ]


async def answer(calls: Calls, call: Call) -> Any:
    return CODEC.decode(await calls.answer(call))


async def test_all_are_asked_before_any_is_awaited(autojump_clock: MockClock) -> None:
    async with peers(3) as (links, _), Calls(ANYIO_LOOP) as calls:
        began = trio.current_time()
        asked = await start(calls, links, ("sleep", 3), ("sleep", 1), ("sleep", 2))
        await calls.wait()
        assert trio.current_time() - began == pytest.approx(3)
        assert calls.unanswered == 0
        assert [await answer(calls, call) for call in asked] == [3, 1, 2]


async def test_the_wait_ends_early_for_a_failure_and_for_a_large_answer(
    autojump_clock: MockClock,
) -> None:
    async with peers(3) as (links, _), Calls(ANYIO_LOOP) as calls:
        asked = await start(calls, links, ("sleep", 3), ("fail", 1), ("large", 2))
        ended = []
        while calls.unanswered:
            await calls.wait()
            ended.append([call.ended for call in asked])
        assert ended == [[False, True, False], [False, True, True], [True, True, True]]
        with pytest.raises(CallRefused, match="it failed"):
            await calls.answer(asked[1])
        assert len(await answer(calls, asked[2])) == 100_000


async def test_one_that_goes_is_told_while_the_others_go_on(autojump_clock: MockClock) -> None:
    async with peers(2) as (links, _), Calls(ANYIO_LOOP) as calls:
        asked = await start(calls, links, ("sleep", 3), ("sleep", 100))
        links[1].abort()
        await calls.wait()
        with pytest.raises(ConnectionLost):
            await calls.answer(asked[1])
        await calls.wait()
        assert await answer(calls, asked[0]) == 3
        with pytest.raises(ConnectionLost) as caught:
            await calls.start(links[1], None, "sleep", CODEC.encode((1,)))
        assert not caught.value.may_have_run


@pytest.mark.parametrize("by", ["an error", "a cancel"])
async def test_none_goes_on_behind_the_block(by: str, autojump_clock: MockClock) -> None:
    async def ask() -> None:
        async with Calls(ANYIO_LOOP) as calls:
            await start(calls, links, ("sleep", 100), ("sleep", 1), ("sleep", 100))
            if by == "an error":
                await trio.sleep(4)
                raise KeyError
            await calls.wait()

    async with peers(3) as (links, served):
        with trio.move_on_after(4.5 if by == "an error" else 4) as scope, suppress(KeyError):
            await ask()
        assert trio.current_time() == pytest.approx(4)
        assert scope.cancelled_caught == (by == "a cancel")
        assert [peer.cancelled for peer in served] == [["sleep"], [], ["sleep"]]
        assert not any(link.protocol.pending for link in links)


async def test_all_have_the_same_time_to_confirm(autojump_clock: MockClock) -> None:
    async with peers(3) as (links, _):
        served = ServedCall()
        served_call.set(served)
        for link, name in zip(links, "abc", strict=True):
            link.name = name
        with trio.move_on_after(5):
            async with Calls(ANYIO_LOOP) as calls:
                asked = await start(calls, links, ("shield", 20), ("sleep", 20), ("shield", 20))
                await calls.wait()
        assert trio.current_time() == pytest.approx(5 + ACKNOWLEDGE_SECONDS)
        assert [call.acknowledged for call in asked] == [False, True, False]
        assert served.unconfirmed == ("a", "c")


async def test_a_lost_call_is_none_that_did_not_confirm(autojump_clock: MockClock) -> None:
    async with peers(2) as (links, _):
        served = ServedCall()
        served_call.set(served)
        with trio.move_on_after(5):
            async with Calls(ANYIO_LOOP) as calls:
                await start(calls, links, ("sleep", 20), ("sleep", 20))
                links[0].abort()
                await calls.wait()
                await calls.wait()
        assert trio.current_time() == pytest.approx(5)
        assert served.unconfirmed == ()


@pytest.mark.parametrize("seconds_to_confirm", [0, ACKNOWLEDGE_SECONDS])
async def test_a_timeout_keeps_what_came_in_time(
    seconds_to_confirm: float, autojump_clock: MockClock
) -> None:
    async with peers(4) as (links, served):
        async with Calls(ANYIO_LOOP, 5, seconds_to_confirm) as calls:
            asked = await start(
                calls, links, ("sleep", 1), ("sleep", 9), ("shield", 9), ("shield", 5.1)
            )
            await calls.wait()
            assert trio.current_time() == pytest.approx(5 + seconds_to_confirm)
            assert calls.unanswered == 0
            assert await answer(calls, asked[0]) == 1
            for call in asked[1:3]:
                with pytest.raises(DeadlineExceeded, match="did not finish in 5 s") as caught:
                    await calls.answer(call)
                confirmed = call is asked[1] and seconds_to_confirm > 0
                assert caught.value.acknowledged == confirmed
            if seconds_to_confirm:  # an answer while they confirm counts
                assert await answer(calls, asked[3]) == 5.1
        await trio.testing.wait_all_tasks_blocked()
        assert served[1].cancelled == ["sleep"]


async def test_the_peers_are_told_how_long_they_have(autojump_clock: MockClock) -> None:
    remaining = []

    def serve(request: Request) -> Payload:
        remaining.append(request.remaining)
        return Payload(b"\xc0")

    async with joined(serve) as (link, _):
        for timeout, deadline in ((None, 50.0), (7.0, 50.0), (50.0, 7.0)):
            with trio.CancelScope(deadline=trio.current_time() + deadline):
                async with Calls(ANYIO_LOOP, timeout) as calls:
                    await trio.sleep(1)
                    await calls.start(link, None, "any", Payload(b""))
                    await calls.wait()
    assert remaining == pytest.approx([49, 6, 6])


def test_errors_of_the_same_moment_are_noted_on_the_first() -> None:
    first = first_error([CallRefused("one"), KeyError("two")])
    assert isinstance(first, CallRefused)
    assert first.__notes__ == ["and KeyError: 'two'"]
    assert not hasattr(first_error([CallRefused("one")]), "__notes__")

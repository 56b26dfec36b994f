"""A client's calls to agents: how many run at once."""

from __future__ import annotations

from typing import Any

import trio
import trio.testing

from creamas_sc.simulation_host.client_server import (
    FEW,
    LARGE_BYTES,
    STUCK_SECONDS,
    ConcurrencyLimit,
)


class Reader:
    """A connection, as far as turns are concerned."""

    def __init__(self) -> None:
        self.out = self
        self.reads = trio.Event()
        self.reads.set()

    @property
    def drained(self) -> bool:
        return self.reads.is_set()

    async def wait_until_drained(self) -> None:
        await self.reads.wait()


class Calls:
    """Calls that wait for their turn, and then for `end`."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.limit = ConcurrencyLimit()
        self.reader: Any = Reader()
        self.running = 0
        self._nursery = nursery

    async def _call(self) -> None:
        await self.limit.acquire(self.reader)
        self.running += 1

    def make(self, count: int) -> None:
        for _ in range(count):
            self._nursery.start_soon(self._call)

    def end(self, size: int = 0) -> None:
        self.running -= 1
        self.limit.release(size)


Clock = trio.testing.MockClock


async def test_few_at_first_and_more_where_answers_are_small(mock_clock: Clock) -> None:
    async with trio.open_nursery() as nursery:
        calls = Calls(nursery)
        calls.make(100)
        await trio.testing.wait_all_tasks_blocked()
        assert calls.running == FEW
        for _ in range(10):
            calls.end()
            await trio.testing.wait_all_tasks_blocked()
        assert calls.running == FEW + 10
        calls.end(LARGE_BYTES + 1)
        for _ in range(10):
            calls.end(LARGE_BYTES + 1)
            await trio.testing.wait_all_tasks_blocked()
        assert calls.running == FEW
        nursery.cancel_scope.cancel()


async def test_none_begins_while_the_client_does_not_read(autojump_clock: Clock) -> None:
    async with trio.open_nursery() as nursery:
        calls = Calls(nursery)
        calls.reader.reads = trio.Event()
        calls.make(2)
        await trio.sleep(1000)
        assert calls.running == 0
        calls.reader.reads.set()
        await trio.testing.wait_all_tasks_blocked()
        assert calls.running == 2


async def test_calls_that_wait_for_each_other_all_get_their_turn(autojump_clock: Clock) -> None:
    async with trio.open_nursery() as nursery:
        calls = Calls(nursery)
        calls.make(1000)
        await trio.sleep(10 * STUCK_SECONDS)
        assert calls.running == 1000

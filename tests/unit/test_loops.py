"""What connections take from trio's lowest level, against trio's own."""

from __future__ import annotations

import math
import random
from contextlib import ExitStack

import pytest
import trio
import trio.testing

from creamas_sc.rpc.socket_stream import TrioWaiter, effective_deadline


@pytest.mark.parametrize("seed", range(20))
async def test_the_effective_deadline_is_trios(seed: int) -> None:
    rng = random.Random(seed)
    with ExitStack() as scopes:
        for _ in range(20):
            seconds = rng.choice([math.inf, math.inf, rng.uniform(1, 1000)])
            shield = rng.random() < 0.2
            scopes.enter_context(trio.CancelScope(deadline=seconds + 1e6, shield=shield))
            assert effective_deadline() == trio.current_effective_deadline()


async def test_the_effective_deadline_of_who_is_cancelled() -> None:
    with ExitStack() as scopes:
        scopes.enter_context(trio.CancelScope()).cancel()
        scopes.enter_context(trio.CancelScope(deadline=math.inf))
        assert effective_deadline() == trio.current_effective_deadline() == -math.inf
        scopes.enter_context(trio.CancelScope(shield=True))
        assert effective_deadline() == trio.current_effective_deadline() == math.inf


async def test_a_waiter_lets_its_task_go_on_once_it_is_set() -> None:
    waiter = TrioWaiter()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(waiter.wait)
        await trio.testing.wait_all_tasks_blocked()
        assert not waiter.is_set()
        waiter.set()
        waiter.set()
    assert waiter.is_set()
    with trio.testing.assert_checkpoints():
        await waiter.wait()


async def test_a_wait_that_is_given_up_can_be_begun_again() -> None:
    waiter = TrioWaiter()
    with trio.move_on_after(0) as scope:
        await waiter.wait()
    assert scope.cancelled_caught
    async with trio.open_nursery() as nursery:
        nursery.start_soon(waiter.wait)
        await trio.testing.wait_all_tasks_blocked()
        waiter.set()

"""Who waits for a step that is under way, and who is refused."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

from creamas_sc import CreativeAgent
from creamas_sc.errors import CreamasError
from creamas_sc.mp.step_lock import StepLock
from creamas_sc.rpc.connection import Request
from creamas_sc.rpc.rounds.activity import Activity, current_activity
from creamas_sc.wire.codec import Payload
from tests.support.streams import joined


@pytest.mark.parametrize(
    ("target", "refused"), [(0, True), (None, False), ("tcp://localhost:1/0", False)]
)
async def test_a_call_of_an_agent_does_not_wait_for_the_step(target: Any, refused: bool) -> None:
    lock = StepLock()
    end, later = trio.Event(), trio.Event()
    taken: list[str] = []

    async def step(name: str, start: trio.Event | None = None) -> None:
        if start is not None:
            await start.wait()
        async with lock:
            taken.append(name)

    async def serve(request: Request) -> Payload:
        nursery.start_soon(step, "left behind", later)
        await step("called")
        return Payload(b"")

    async def hold() -> None:
        async with lock:
            await end.wait()

    async def call() -> None:
        if refused:
            with pytest.raises(CreamasError, match="a step is under way"):
                await near.call(target, "step", Payload(b""))
        else:
            await near.call(target, "step", Payload(b""))

    async with joined(serve) as (near, _), trio.open_nursery() as nursery:
        nursery.start_soon(hold)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(call)
        await trio.testing.wait_all_tasks_blocked()
        # What the call has started waits like anybody once the call is over.
        later.set()
        await trio.testing.wait_all_tasks_blocked()
        assert taken == []
        end.set()
    assert taken == (["left behind"] if refused else ["called", "left behind"])


async def test_gathers_and_steps_wait_for_one_another() -> None:
    lock, end = StepLock(), trio.Event()
    taken: list[Any] = []

    async def gather(number: int) -> None:
        async with lock.held_by_gather() as held:
            taken.append((number, held))
            await end.wait()

    async def step() -> None:
        async with lock:
            taken.append("step")

    async with trio.open_nursery() as nursery:
        for task in (partial(gather, 1), partial(gather, 2), step, partial(gather, 3)):
            nursery.start_soon(task)
            await trio.testing.wait_all_tasks_blocked()
        assert taken == [(1, True)]
        assert lock.locked()
        end.set()
    assert taken == [(1, True), (2, True), "step", (3, True)]
    assert not lock.locked()


async def test_a_gather_does_not_wait_for_a_step() -> None:
    lock = StepLock()
    async with lock, lock.held_by_gather() as held:
        assert not held
    async with lock.held_by_gather() as held:
        assert held
    assert not lock.locked()


async def test_a_gather_that_an_agent_of_a_gather_asks_for_does_not_wait() -> None:
    lock = StepLock()
    activity = Activity(CreativeAgent.act(None))  # type: ignore[arg-type]
    async with lock.held_by_gather() as held:
        assert held
        token = current_activity.set(activity)
        with trio.fail_after(1):
            async with lock.held_by_gather() as inner:
                assert not inner
            with pytest.raises(CreamasError, match="a step is under way"):
                await lock.__aenter__()
        current_activity.reset(token)
    activity.work.close()

"""Who waits for a step that is under way, and who is refused."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from creamas_sc.errors import CreamasError
from creamas_sc.mp.step_lock import StepLock
from creamas_sc.rpc.connection import Request
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

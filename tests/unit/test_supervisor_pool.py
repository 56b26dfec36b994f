"""Starts of many actors at once, with processes that never come."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from creamas_sc.core import Environment
from creamas_sc.errors import BadValue, CreamasError, StartError
from creamas_sc.mp import EnvManager, slave_pool
from creamas_sc.supervisor_client.messages import MAX_SLAVES, ActorOrder
from supervisor.actors.pool import ActorPool
from supervisor.actors.tractor_adapter import Actor
from supervisor.nodes.placement import Placement
from supervisor.nodes.registry import NodeRegistry
from supervisor.timeouts import MAX_STARTING


class Slow:
    """Where every process takes its time.

    Attributes:
        launches: How many there were.
        most: How many were under way at once.
    """

    def __init__(self, seconds: float) -> None:
        self.launches = self.most = self._now = 0
        self._seconds = seconds

    async def start(self, actor: Actor, order: object, on_end: object) -> None:
        self.launches += 1
        self._now += 1
        self.most = max(self.most, self._now)
        await trio.sleep(self._seconds)
        self._now -= 1
        raise OSError("x" * 1_000_000)


def a_pool(there: Slow) -> ActorPool:
    nodes = NodeRegistry(None)  # type: ignore[arg-type]
    return ActorPool(Placement(there, nodes), lambda message: None)  # type: ignore[arg-type]


def orders(count: int) -> list[ActorOrder]:
    return [
        {
            "slot": f"slave-{i}",
            "name": f"slave-{i}",
            "entry": "m:f",
            "spec": b"",
            "environ": {},
            "cwd": "/",
            "path": [],
        }
        for i in range(count)
    ]


async def test_a_few_are_launched_at_a_time_and_not_in_time(autojump_clock: MockClock) -> None:
    there = Slow(5.0)
    with pytest.raises(StartError) as caught:
        await a_pool(there).start(orders(100), 2.0)
    assert str(caught.value) == "not ready within 2 s: slave-0, slave-1, slave-2, 97 more"
    assert trio.current_time() == pytest.approx(2.0)
    assert (there.launches, there.most) == (MAX_STARTING, MAX_STARTING)


async def test_a_stop_of_a_cancelled_start_waits_for_its_end(
    autojump_clock: MockClock,
) -> None:
    class Stubborn(Slow):
        async def start(self, *args: object) -> None:
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    await trio.sleep(1.0)

    pool = a_pool(Stubborn(0.0))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pool.start, orders(1))
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            with pytest.raises(CreamasError, match="no actor in slot slave-0"):
                await pool.stop(["slave-0"])
        assert trio.current_time() == pytest.approx(1.0)


async def test_the_text_of_a_failure_is_bounded() -> None:
    with pytest.raises(StartError, match=r"slave-\d did not start: x+ \[\.\.\.") as caught:
        await a_pool(Slow(0.0)).start(orders(2))
    assert len(str(caught.value)) < 2100


@pytest.mark.parametrize("count", [MAX_SLAVES + 1, 100_000])
async def test_too_many_are_refused_at_once(count: int) -> None:
    there = Slow(0.0)
    words = f"cannot start {count} slaves: a simulation can have 512"
    with trio.fail_after(2):
        with pytest.raises(StartError, match=words):
            await a_pool(there).start(orders(count))
    assert there.launches == 0
    with pytest.raises(BadValue, match=words):
        slave_pool.SlavePool().orders([("localhost", 0)] * count, Environment, EnvManager, None)


def test_a_simulation_may_have_512_slaves() -> None:
    assert MAX_SLAVES == 512
    made = slave_pool.SlavePool().orders(
        [("localhost", 0)] * MAX_SLAVES, Environment, EnvManager, None
    )
    assert len(made) == MAX_SLAVES

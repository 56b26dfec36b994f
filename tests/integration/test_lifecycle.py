"""Starts, stops and closes that overlap, fail or are cancelled: nothing is left or lost."""

from __future__ import annotations

import os
import signal
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

from creamas_sc import Artifact, Environment, MultiEnvironment, Simulation, expose
from creamas_sc.errors import (
    AgentError,
    AgentErrors,
    ConnectionLost,
    LoadError,
    SlaveLost,
    StartError,
)
from tests.support import agents, processes
from tests.support.agents import Counter, Echo, Manager
from tests.support.shared_supervisor import own_children, uses_shared_supervisor

ANY_PORT = ("localhost", 0)
KILLED_SECONDS = 1.0


class Closer(Echo):
    """Closes its own environment in its act."""

    @expose
    async def act(self) -> None:
        await self.env.close(as_coro=True)


class Stepper(Echo):
    """Asks for a step within its act."""

    way = "trigger_all"

    @expose
    def choose(self, way: str) -> None:
        self.way = way

    @expose
    async def act(self, *args: Any) -> None:
        host = await self.connect(self.env.manager.host_manager())
        await getattr(host, self.way)()


class Host(agents.Host):
    """Takes steps in ways of its own."""

    @expose
    async def step_one(self) -> Any:
        return await self.menv.trigger_act(self.menv.addrs[0][:-1] + "1")

    @expose
    async def step_within(self) -> Any:
        return await self.menv.trigger_all_within(60)

    @expose
    async def step_simulation(self) -> Any:
        return await Simulation(self.menv).astep()

    @expose
    async def step_in_a_task(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.menv.trigger_all)


class Parent(Echo):
    """Makes an agent in its constructor."""

    @expose
    def child_draws(self) -> float:
        return float(Echo(self.env).rng.random())


class Picky(MultiEnvironment):
    """Refuses one artifact."""

    def add_artifact(self, artifact: Artifact) -> None:
        if artifact.obj == 11:
            raise ValueError("not this one")
        super().add_artifact(artifact)


def tree() -> list[int]:
    return own_children()


async def test_two_in_sibling_tasks_do_not_touch_each_other() -> None:
    entered, first_gone = trio.Event(), trio.Event()

    async def first() -> None:
        async with MultiEnvironment(ANY_PORT, Environment) as menv:
            await menv.spawn_slaves([ANY_PORT], Environment, Manager)
            await entered.wait()
        first_gone.set()

    async def second() -> None:
        async with MultiEnvironment(ANY_PORT, Environment) as menv:
            await menv.spawn_slaves([ANY_PORT], Environment, Manager)
            await menv.spawn(Counter)
            entered.set()
            await first_gone.wait()
            assert await menv.trigger_all() == [1]

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(first)
            nursery.start_soon(second)


async def test_two_starts_at_once_have_one_supervisor(own_menv: MultiEnvironment) -> None:
    menv = own_menv
    async with trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(menv.spawn_slaves, [ANY_PORT], Environment, Manager)
    assert len(menv.addrs) == 4
    assert len(tree()) == 1


async def test_a_close_ends_a_start_under_way() -> None:
    menv = MultiEnvironment(ANY_PORT, Environment)
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            await menv.env.open()
            nursery.start_soon(_start_refused, menv)
            await trio.testing.wait_all_tasks_blocked(0.02)
            await menv.close(as_coro=True)
    assert tree() == []


async def _start_refused(menv: MultiEnvironment) -> None:
    with pytest.raises(StartError, match="closed while slaves were starting"):
        await menv.spawn_slaves([ANY_PORT], Environment, Manager)


@pytest.mark.parametrize("milliseconds", [1, 20, 40, 80, 160])
async def test_a_cancelled_start_leaves_nothing(
    milliseconds: int, caplog: pytest.LogCaptureFixture
) -> None:
    menv = MultiEnvironment(ANY_PORT, Environment)
    with trio.move_on_after(milliseconds / 1000) as scope:
        await menv.spawn_slaves([ANY_PORT] * 2, Environment, Manager)
    if scope.cancelled_caught:
        assert menv.addrs == []
        if "did not end within" in caplog.text:  # on a busy machine; its keeper was killed
            processes.wait_gone(processes.open_pidfds(tree()), KILLED_SECONDS)
        assert tree() == []
    await menv.close(as_coro=True)


async def test_a_first_start_that_fails_leaves_no_supervisor() -> None:
    async with MultiEnvironment(ANY_PORT, Environment) as menv:
        with pytest.raises(StartError):
            await menv.spawn_slaves([ANY_PORT], "tests.support.agents:Nope", Manager)
        assert tree() == []
        await menv.spawn_slaves([ANY_PORT], Environment, Manager)


async def test_waiting_for_a_dead_slave_raises(menv: MultiEnvironment) -> None:
    manager = await menv.connect(menv.addrs[0])
    os.kill(await manager.pid(), signal.SIGKILL)

    async def wait_until_told() -> None:
        while await menv.wait_slaves(5):
            await trio.lowlevel.checkpoint()

    with trio.fail_after(1), pytest.raises(SlaveLost):
        await wait_until_told()


async def test_an_agent_that_closes_its_own_environment(menv: MultiEnvironment) -> None:
    await menv.spawn(Closer)
    with trio.fail_after(5), pytest.raises(ConnectionLost):
        await menv.trigger_all()
    report = await menv.close(as_coro=True)
    assert report[1].graceful


@pytest.mark.parametrize(
    "way", ["trigger_all", "step_one", "step_within", "step_simulation", "step_in_a_task"]
)
@pytest.mark.parametrize("calls", ["free", "rounds"])
@pytest.mark.usefixtures("shared_supervisor")
async def test_a_step_from_within_a_step_is_refused(way: str, calls: str) -> None:
    with uses_shared_supervisor():
        menv = MultiEnvironment(ANY_PORT, Environment, Host, calls=calls)
    with trio.fail_after(30):
        async with menv:
            await menv.spawn_slaves([ANY_PORT], Environment, Manager)
            await menv.set_host_managers()
            stepper, addr = await menv.spawn(Stepper)
            await stepper.choose(way)
            with pytest.raises(AgentErrors) as caught, trio.fail_after(5):
                await menv.trigger_all()
            assert "a step is under way" in str(caught.value.exceptions[0])
            with pytest.raises(AgentError, match="a step is under way"), trio.fail_after(5):
                await menv.trigger_act(addr)


@pytest.mark.parametrize("seed", [7])
async def test_agents_made_by_an_agent_have_their_own_random_numbers(
    menv: MultiEnvironment,
) -> None:
    parent, _ = await menv.spawn(Parent)
    child = await parent.child_draws()
    (other, _), (sibling, _) = [await menv.spawn(Echo) for _ in range(2)]
    drawn = [(await agent.draw(1))[0] for agent in (other, sibling)]
    assert len({child, *drawn}) == 3


async def test_a_failed_spawn_does_not_count_as_an_agent_of_the_slave(
    menv: MultiEnvironment,
) -> None:
    first = menv.addrs[0]
    for _ in range(3):
        with pytest.raises(LoadError):
            await menv.spawn("tests.support.agents:Nope")
    assert (await menv.spawn(Echo))[1].startswith(first[:-1])


async def test_an_artifact_that_a_subclass_refuses_costs_nothing_else() -> None:
    with trio.fail_after(30):
        async with Picky(ANY_PORT, Environment) as menv:
            await menv.spawn_slaves([ANY_PORT], Environment, Manager)
            for start in (0, 10, 20):
                await menv.spawn(Counter, start)
            assert await menv.trigger_all() == [1, 11, 21]
            assert [artifact.obj for artifact in menv.artifacts] == [1, 21]


async def test_the_manager_is_agent_0_of_the_master(menv: MultiEnvironment) -> None:
    assert menv.env.manager is menv.manager
    assert menv.env.get_agents() == []
    assert menv.env.get_agents(include_manager=True) == [menv.manager.addr]


async def test_environment_variables_need_not_be_utf8(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREAMAS_ODD", os.fsdecode(b"\xff\xfe"))
    async with MultiEnvironment(ANY_PORT, Environment) as menv:
        await menv.spawn_slaves([ANY_PORT], Environment, Manager)
        echo, _ = await menv.spawn(agents.Variables)
        assert await echo.variable("CREAMAS_ODD") == b"\xff\xfe"


@pytest.mark.usefixtures("shared_supervisor")
@pytest.mark.parametrize("users", [None, "7"])
async def test_slaves_share_the_cores_unless_the_user_decides(
    users: str | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if users is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", users)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(9))
    with uses_shared_supervisor():
        menv = MultiEnvironment(ANY_PORT, Environment)
    async with menv:
        await menv.spawn_slaves([ANY_PORT] * 2, Environment, Manager)
        echo, _ = await menv.spawn(agents.Variables)
        assert await echo.variable("OMP_NUM_THREADS") == (users or "4").encode()
        await menv.spawn_slaves([ANY_PORT], Environment, Manager)
        echo, _ = await menv.spawn(agents.Variables, addr=menv.addrs[2])
        assert await echo.variable("OMP_NUM_THREADS") == (users or "3").encode()
    expected = "each of 2 slaves gets OMP_NUM_THREADS=4, of 9 cores"
    assert (expected in caplog.messages) == (users is None)


def test_closing_again_when_the_loop_is_over() -> None:
    async def main() -> MultiEnvironment:
        async with MultiEnvironment(ANY_PORT, Environment) as menv:
            await menv.spawn_slaves([ANY_PORT], Environment, Manager)
        return menv

    menv = trio.run(main)
    assert menv.close().graceful
    assert trio.run(partial(menv.close, as_coro=True)) is menv.close()
    assert menv.env.close() is None
    assert trio.run(partial(menv.env.close, as_coro=True)) is None


@pytest.mark.parametrize("seed", [-1, "abc", 1.5, True])
def test_bad_seeds_are_refused(seed: Any) -> None:
    with pytest.raises(ValueError, match="seed must be an int of at least 0"):
        MultiEnvironment(ANY_PORT, Environment, seed=seed)

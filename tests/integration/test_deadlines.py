"""Steps in a limited time: late slaves, what is kept, and what happens to a silent slave."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
import trio
import trio.testing

from creamas_sc import Artifact, CreativeAgent, Environment, MultiEnvironment, expose
from creamas_sc.errors import AgentErrors, BadValue, DeadlineExceeded, SlaveLost, StepOverran
from creamas_sc.mp import RestartPolicy, set_base_timeout
from creamas_sc.mp.steps import SILENT_SECONDS
from creamas_sc.rpc.write_queue import HIGH_WATER_BYTES
from tests.support.agents import Counter, Echo, GivesStranger, Killer, Manager, Raises, Sleeper
from tests.support.marks import also_free

ANY_PORT = ("localhost", 0)
BOUND_SECONDS = 30
SHORT = 0.2


class Gate(CreativeAgent):
    """Acts when it is let."""

    @expose
    async def act(self) -> str:
        self.publish(Artifact(self, "begun"))
        await self.opened.wait()
        return "acted"

    @property
    def opened(self) -> trio.Event:
        self.event: trio.Event
        if not hasattr(self, "event"):
            self.event = trio.Event()
        return self.event

    @expose
    def let(self) -> None:
        self.opened.set()


class Around(Environment):
    """Does something before and after a step."""

    async def trigger_all(self, *args: Any, **kwargs: Any) -> list[Any]:
        results = await super().trigger_all(*args, **kwargs)
        return [("around", result) for result in results]


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """A process under SIGSTOP within the block; where it is gone by then, so be it."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        try:
            os.kill(pid, signal.SIGCONT)
        except ProcessLookupError:
            pass


async def pid_of(menv: MultiEnvironment, slave: int) -> int:
    return int(await (await menv.connect(menv.addrs[slave])).pid())


@also_free
async def test_the_others_results_are_kept(menv: MultiEnvironment) -> None:
    first, second = menv.addrs
    await menv.spawn_n(Counter, 3, 10, addr=first)
    sleeper, late = await menv.spawn(Sleeper, addr=first)
    await menv.spawn_n(Counter, 2, 20, addr=first)
    await menv.spawn_n(Counter, 2, 30, addr=second)
    with pytest.raises(StepOverran, match="1 of the agents had not acted") as caught:
        await menv.trigger_all_within(SHORT)
    assert caught.value.addresses == [late]
    assert caught.value.results == [11, 11, 11, 21, 21, 31, 31]
    assert (caught.value.failures, caught.value.acknowledged) == ({}, True)
    assert caught.value.may_have_run
    assert await sleeper.was_cancelled()
    assert [a.obj for a in menv.artifacts] == [11, 11, 11, 21, 21, 31, 31]
    with pytest.raises(StepOverran) as caught:
        await menv.trigger_all_within(SHORT)
    assert caught.value.results == [12, 12, 12, 22, 22, 32, 32]


@also_free
async def test_an_overrun_also_reports_agents_that_raised(menv: MultiEnvironment) -> None:
    _, failed = await menv.spawn(Raises, "value", "act")
    _, late = await menv.spawn(Sleeper)
    _, odd = await menv.spawn(GivesStranger, addr=menv.addrs[1])
    await menv.spawn(Counter)
    with pytest.raises(StepOverran) as caught:
        await menv.trigger_all_within(SHORT)
    assert caught.value.addresses == [late]
    assert set(caught.value.failures) == {failed, odd}
    assert "raised in act" in caught.value.failures[failed].traceback_text
    assert "Stranger" in caught.value.failures[odd].message
    assert caught.value.results == [1]


@also_free
async def test_a_step_in_time_returns_what_trigger_all_returns(menv: MultiEnvironment) -> None:
    await menv.spawn(Echo)
    await menv.spawn(Echo)
    expected = await menv.trigger_all(1, two=(3,))
    assert await menv.trigger_all_within(BOUND_SECONDS, 1, two=(3,)) == expected
    await menv.spawn(Raises, "value", "act")
    with pytest.raises(AgentErrors):
        await menv.trigger_all_within(BOUND_SECONDS)


@also_free
async def test_a_step_with_no_time_does_not_start(menv: MultiEnvironment) -> None:
    await menv.spawn(Counter)
    with pytest.raises(DeadlineExceeded) as caught:
        await menv.trigger_all_within(0)
    assert not caught.value.may_have_run
    assert await menv.trigger_all() == [1]


@pytest.fixture
def base_timeout() -> Iterator[float]:
    set_base_timeout(1.5)
    yield 1.5
    set_base_timeout(None)


async def test_a_users_own_trigger_all_is_used() -> None:
    with trio.fail_after(BOUND_SECONDS):
        async with MultiEnvironment(ANY_PORT, Environment) as menv:
            await menv.spawn_slaves([ANY_PORT], Around, Manager)
            await menv.spawn(Counter)
            assert await menv.trigger_all_within(BOUND_SECONDS) == [("around", 1)]
            _, late = await menv.spawn(Sleeper)
            with pytest.raises(StepOverran) as caught:
                await menv.trigger_all_within(SHORT)
            assert (caught.value.addresses, caught.value.results) == ([late], [2])


@also_free
async def test_a_slave_that_is_silent_takes_only_its_own_results(menv: MultiEnvironment) -> None:
    first = menv.addrs[0]
    for addr in menv.addrs:
        await menv.spawn_n(Counter, 2, addr=addr)
    with stopped(await pid_of(menv, 0)):
        with pytest.raises(StepOverran, match="1 of the slaves did not answer") as caught:
            await menv.trigger_all_within(SHORT)
        assert (caught.value.addresses, caught.value.acknowledged) == ([first], False)
        assert caught.value.results == [1, 1]
    # What it did late has ended, and its late answer is dropped.
    assert await menv.trigger_all() in ([2, 2, 2, 2], [1, 1, 2, 2])


@also_free
async def test_a_silent_slave_is_ended_where_asked_for(menv: MultiEnvironment) -> None:
    first, second = menv.addrs
    for addr in menv.addrs:
        await menv.spawn_n(Counter, 2, addr=addr)
    with stopped(await pid_of(menv, 0)), pytest.raises(StepOverran) as caught:
        await menv.trigger_all_within(SHORT, on_overrun="kill")
    assert (caught.value.addresses, caught.value.results) == ([first], [1, 1])
    assert menv.addrs == [second]
    assert await menv.trigger_all() == [2, 2]
    with pytest.raises(SlaveLost):
        await menv.connect(first[:-1] + "1")


@asynccontextmanager
async def clogged(menv: MultiEnvironment, slave: int) -> AsyncIterator[None]:
    """A slave that is stopped, with more in its queue than it may hold."""
    echo, _ = await menv.spawn(Echo, addr=menv.addrs[slave])
    with stopped(await pid_of(menv, slave)):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(echo.evaluate, b"x" * (HIGH_WATER_BYTES + 1))
            await trio.testing.wait_all_tasks_blocked(0.05)
            yield
            nursery.cancel_scope.cancel()


@also_free
async def test_a_slave_that_reads_nothing_is_silent_alone(menv: MultiEnvironment) -> None:
    await menv.spawn(Counter, addr=menv.addrs[1])
    async with clogged(menv, 0):
        with pytest.raises(StepOverran) as caught:
            await menv.trigger_all_within(SHORT)
    assert (caught.value.addresses, caught.value.results) == ([menv.addrs[0]], [1])


@pytest.mark.parametrize("calls", ["free"])  # in rounds nobody acts before all are ready
async def test_a_slave_that_reads_nothing_hides_no_loss(menv: MultiEnvironment) -> None:
    await menv.spawn(Killer, addr=menv.addrs[1])
    async with clogged(menv, 0):
        with trio.fail_after(BOUND_SECONDS / 2), pytest.raises(SlaveLost):
            await menv.trigger_all()


async def test_a_slave_that_reads_nothing_hides_no_loss_before_a_step_in_rounds(
    menv: MultiEnvironment,
) -> None:
    await menv.spawn(Counter, addr=menv.addrs[1])
    killed = menv._slaves.members[1]

    async def kill() -> None:
        await trio.testing.wait_all_tasks_blocked()
        os.kill(killed.pid, signal.SIGKILL)

    async with clogged(menv, 0), trio.open_nursery() as nursery:
        nursery.start_soon(kill)
        with trio.fail_after(BOUND_SECONDS / 2), pytest.raises(SlaveLost):
            await menv.trigger_all()


@also_free
async def test_the_base_timeout_counts_for_a_step(
    menv: MultiEnvironment, base_timeout: float
) -> None:
    await menv.spawn(Sleeper)
    await menv.spawn(Counter)
    began = trio.current_time()
    with pytest.raises(DeadlineExceeded) as caught:
        await menv.trigger_all()
    assert base_timeout <= trio.current_time() - began < base_timeout + SILENT_SECONDS
    assert caught.value.acknowledged
    assert len(await menv.get_agents(as_coro=True)) == 2


@also_free
async def test_a_slave_that_answers_is_not_ended(menv: MultiEnvironment) -> None:
    await menv.spawn(Sleeper)
    addrs = menv.addrs
    with pytest.raises(StepOverran):
        await menv.trigger_all_within(SHORT, on_overrun="kill")
    assert menv.addrs == addrs
    assert await pid_of(menv, 0)


@pytest.mark.slow
async def test_a_slave_killed_for_an_overrun_is_restarted_by_the_policy() -> None:
    with trio.fail_after(BOUND_SECONDS):
        policy = RestartPolicy("transient")
        async with MultiEnvironment(ANY_PORT, Environment, restart=policy) as menv:
            await menv.spawn_slaves([ANY_PORT] * 2, Environment, Manager)
            for addr in menv.addrs:
                await menv.spawn(Counter, addr=addr)
            addrs = menv.addrs
            with stopped(await pid_of(menv, 1)), pytest.raises(StepOverran):
                await menv.trigger_all_within(SHORT, on_overrun="kill")
            assert await menv.trigger_all() == [2, 1]
            (restart,) = menv.restarts
            assert (restart.address, restart.agents, menv.addrs) == (addrs[1], 1, addrs)
            assert "did not answer" in restart.cause


@also_free
async def test_waiting_for_another_step_counts_towards_the_limit(menv: MultiEnvironment) -> None:
    gate, _ = await menv.spawn(Gate)
    results: list[Any] = []

    async def step() -> None:
        results.append(await menv.trigger_all())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(step)
        while not menv.in_step:
            await trio.lowlevel.checkpoint()
        with pytest.raises(DeadlineExceeded, match="before it was its turn") as caught:
            await menv.trigger_all_within(SHORT)
        assert (caught.value.may_have_run, caught.value.acknowledged) == (False, True)
        await gate.let()
    assert results == [["acted"]]
    assert await menv.trigger_all_within(BOUND_SECONDS) == ["acted"]


@also_free
async def test_a_cancelled_step_leaves_the_next_its_turn(menv: MultiEnvironment) -> None:
    gate, _ = await menv.spawn(Gate)
    with trio.move_on_after(SHORT):
        await menv.trigger_all_within(BOUND_SECONDS)
    await gate.let()
    assert await menv.trigger_all() == ["acted"]


@pytest.mark.parametrize(
    ("seconds", "on_overrun"),
    [(-1, "cancel"), ("1", "cancel"), (None, "cancel"), (float("nan"), "cancel"), (1, "forget")],
)
async def test_bad_arguments(menv: MultiEnvironment, seconds: Any, on_overrun: str) -> None:
    await menv.spawn(Counter)
    with pytest.raises(BadValue, match=r"seconds|on_overrun"):
        await menv.trigger_all_within(seconds, on_overrun=on_overrun)
    assert await menv.trigger_all() == [1]


@also_free
async def test_an_agents_own_manager_limits_a_step_too(menv: MultiEnvironment) -> None:
    _, late = await menv.spawn(Sleeper, addr=menv.addrs[0])
    await menv.spawn(Counter, addr=menv.addrs[0])
    manager = await menv.connect(menv.addrs[0])
    with pytest.raises(StepOverran) as caught:
        await manager.trigger_all_within(SHORT)
    assert (caught.value.addresses, caught.value.results) == ([late], [1])

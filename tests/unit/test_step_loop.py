"""One step of all agents: its order, its failures, and what it costs."""

from __future__ import annotations

import contextvars
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from creamas_sc.core import step_loop
from creamas_sc.core.step_loop import run_acts
from tests.support.forks import exit_code_of


class Spawned(trio.abc.Instrument):
    """Counts the tasks that are made, and the rounds of the scheduler."""

    count = rounds = 0

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        self.count += 1

    def before_io_wait(self, timeout: float) -> None:
        self.rounds += 1


@contextmanager
def spawned_tasks() -> Iterator[Spawned]:
    spawned = Spawned()
    trio.lowlevel.add_instrument(spawned)
    yield spawned
    trio.lowlevel.remove_instrument(spawned)


async def at_once(agent: int) -> int:
    return agent * 2


async def after_a_sleep(agent: int) -> int:
    await trio.sleep(agent % 3)
    return agent * 2


def plain(agent: int) -> int:
    return agent * 2


async def mixed(agent: int) -> int:
    return await (after_a_sleep if agent % 4 == 0 else at_once)(agent)


@pytest.mark.parametrize("act", [at_once, after_a_sleep, plain, mixed])
async def test_results_are_in_the_agents_order(
    act: Callable[[int], Any], autojump_clock: MockClock
) -> None:
    assert await run_acts(range(100), act) == ([2 * n for n in range(100)], {})


async def test_no_agents() -> None:
    assert await run_acts([], at_once) == ([], {})


async def test_agents_may_come_from_any_sequence() -> None:
    class Generated(list[int]):
        def __iter__(self) -> Iterator[int]:
            yield from (1, 2, 3)

    assert await run_acts(Generated([1, 2, 3]), mixed) == ([2, 4, 6], {})


async def test_acts_begin_in_order_and_suspended_ones_run_concurrently(
    autojump_clock: MockClock,
) -> None:
    begun: list[int] = []

    async def act(agent: int) -> None:
        begun.append(agent)
        await trio.sleep(10)

    began = trio.current_time()
    await run_acts(range(50), act)
    assert trio.current_time() - began == pytest.approx(10)
    assert begun == list(range(50))


async def test_in_a_forked_child_no_further_agent_acts() -> None:
    acted: list[int] = []
    children: list[int] = []

    async def act(agent: int) -> None:
        acted.append(agent)
        if agent == 1:
            children.append(os.fork())

    await run_acts(range(4), act)
    if children == [0]:
        os._exit(len(acted))
    assert exit_code_of(children[0]) == 2
    assert acted == [0, 1, 2, 3]


async def test_acts_may_wait_for_each_other() -> None:
    events = [trio.Event() for _ in range(10)]

    async def act(agent: int) -> int:
        if agent < 9:
            await events[agent + 1].wait()
        events[agent].set()
        return agent

    with trio.fail_after(5):
        assert await run_acts(range(10), act) == (list(range(10)), {})


async def test_acts_that_suspend_cost_a_task_each_and_few_rounds_of_the_scheduler() -> None:
    async def act(agent: int) -> int:
        await trio.lowlevel.checkpoint()
        return agent

    with spawned_tasks() as spawned:
        assert await run_acts(range(1000), act) == (list(range(1000)), {})
    assert spawned.count <= 1000
    assert spawned.rounds < 50


async def test_workers_are_started_one_by_one_where_few_acts_suspend() -> None:
    async def act(agent: int) -> None:
        if agent % 10 == 0:
            await trio.lowlevel.checkpoint()

    with spawned_tasks() as spawned:
        await run_acts(range(1000), act)
    assert spawned.count <= 102


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("kind", [ValueError, SystemExit, GeneratorExit, StopIteration])
async def test_a_failure_is_its_agents_alone(kind: type[BaseException], late: bool) -> None:
    async def act(agent: int) -> int:
        if late:
            await trio.lowlevel.checkpoint()
        if agent in (1, 3):
            raise kind(agent)
        return agent

    results, failures = await run_acts(range(5), act)
    assert results == [0, None, 2, None, 4]
    assert sorted(failures) == [1, 3]
    # Python itself makes a RuntimeError of a StopIteration that leaves a coroutine.
    expected = RuntimeError if kind is StopIteration else kind
    assert {type(error) for error in failures.values()} == {expected}


async def test_a_failure_of_a_plain_act() -> None:
    def act(agent: int) -> int:
        if agent == 1:
            raise KeyError(agent)
        return agent

    results, failures = await run_acts(range(3), act)
    assert (results, list(failures)) == ([0, None, 2], [1])


async def interrupted(agent: int) -> int:
    if agent == 1:
        raise KeyboardInterrupt
    return agent


@pytest.fixture
def _ignores_ctrl_c() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_ignores_ctrl_c")
async def test_a_keyboard_interrupt_where_there_is_no_ctrl_c() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # trio's own run has set its handler
    results, failures = await run_acts(range(3), interrupted)
    assert (results, [type(e) for e in failures.values()]) == ([0, None, 2], [KeyboardInterrupt])


def test_a_keyboard_interrupt_off_the_main_thread() -> None:
    outcomes: list[Any] = []
    thread = threading.Thread(
        target=lambda: outcomes.append(trio.run(run_acts, range(3), interrupted))
    )
    thread.start()
    thread.join()
    ((results, failures),) = outcomes
    assert (results, [type(e) for e in failures.values()]) == ([0, None, 2], [KeyboardInterrupt])


async def test_a_real_ctrl_c_passes() -> None:
    with pytest.raises(KeyboardInterrupt):
        await run_acts(range(3), interrupted)


async def test_an_act_lives_in_one_task_from_start_to_end(autojump_clock: MockClock) -> None:
    async def act(agent: int) -> bool:
        task = trio.lowlevel.current_task()
        # A cancel scope belongs to the task that opened it: trio checks.
        with trio.move_on_after(agent % 5) as scope:
            await trio.sleep(2.5)
        for _ in range(agent % 3):
            await trio.lowlevel.checkpoint()
        assert trio.lowlevel.current_task() is task
        return scope.cancelled_caught

    results, failures = await run_acts(range(20), act)
    assert not failures
    assert results == [agent % 5 < 2.5 for agent in range(20)]


async def test_an_act_may_open_a_nursery(autojump_clock: MockClock) -> None:
    async def act(agent: int) -> int:
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(trio.sleep, agent)
        return agent

    assert await run_acts(range(10), act) == (list(range(10)), {})


async def in_a_nursery(seconds: float, tasks: int) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(tasks):
            nursery.start_soon(trio.sleep, seconds)
        await trio.sleep(seconds)


@pytest.mark.parametrize("tasks", [0, 1])
async def test_cancellation_passes_a_nursery_of_the_users(
    autojump_clock: MockClock, tasks: int
) -> None:
    with trio.move_on_after(1) as scope:
        await run_acts(range(3), lambda agent: in_a_nursery(agent, tasks))
    assert scope.cancelled_caught
    with limited(1.5):
        _, failures = await run_acts(range(3), lambda agent: in_a_nursery(agent, tasks))
    assert {position: type(error) for position, error in failures.items()} == {
        2: step_loop.Unfinished
    }


async def test_cancellation_passes(autojump_clock: MockClock) -> None:
    cancelled: list[int] = []

    async def act(agent: int) -> None:
        try:
            await trio.sleep(agent)
        except trio.Cancelled:
            cancelled.append(agent)
            raise

    with trio.move_on_after(4.5) as scope:
        await run_acts(range(10), act)
    assert scope.cancelled_caught
    assert sorted(cancelled) == [5, 6, 7, 8, 9]


async def test_an_error_beside_a_cancellation_is_not_lost(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """An act whose nursery was cancelled, and a task of which failed as it ended."""

    async def fails_at_the_end() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("while cleaning up")

    async def act(agent: int) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fails_at_the_end)
            nursery.start_soon(trio.sleep_forever)

    with trio.move_on_after(1) as scope:
        await run_acts(range(2), act)
    assert scope.cancelled_caught
    assert caplog.text.count("ValueError: while cleaning up") == 2
    with limited(1):
        _, failures = await run_acts(range(2), act)
    assert {position: type(error) for position, error in failures.items()} == {
        0: step_loop.Unfinished,
        1: step_loop.Unfinished,
    }
    assert caplog.text.count("ValueError: while cleaning up") == 4


async def test_a_step_of_many_short_acts_is_cancellable(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(range(10**9))
    # Each look at the clock is one of its ticks: no real time in it.
    monkeypatch.setattr(step_loop, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    count = 0

    async def act(agent: int) -> None:
        nonlocal count
        count += 1
        if count == 500:
            scope.cancel()

    with trio.CancelScope() as scope:
        await run_acts(range(10**6), act)
    assert scope.cancelled_caught
    assert 500 <= count < 1000


async def test_a_step_of_many_short_acts_lets_others_run(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(range(10**9))
    monkeypatch.setattr(step_loop, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    count = 0
    seen: list[int] = []

    async def look() -> None:
        while count < 10_000:
            seen.append(count)
            await trio.lowlevel.checkpoint()

    async def act(agent: int) -> None:
        nonlocal count
        count += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look)
        await trio.lowlevel.checkpoint()
        await run_acts(range(10_000), act)
    assert len(set(seen)) > 10


async def test_acts_that_never_suspend_cost_no_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_loop, "YIELD_SECONDS", 1e9)
    with spawned_tasks() as spawned:
        await run_acts(range(10_000), at_once)
    assert spawned.count == 0


async def test_an_act_that_suspends_costs_one_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_loop, "YIELD_SECONDS", 1e9)

    async def act(agent: int) -> None:
        if agent % 100 == 0:
            for _ in range(5):
                await trio.lowlevel.checkpoint()

    with spawned_tasks() as spawned:
        await run_acts(range(1000), act)
    assert spawned.count == 10


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    token = step_loop.step_limit.set(step_loop.StepLimit(trio.current_time() + seconds))
    yield
    step_loop.step_limit.reset(token)


async def test_a_limit_cuts_off_what_is_not_done(autojump_clock: MockClock) -> None:
    cancelled: list[int] = []

    async def act(agent: int) -> int:
        try:
            await trio.sleep(agent)
        except trio.Cancelled:
            cancelled.append(agent)
            raise
        if agent == 1:
            raise ValueError(agent)
        return agent

    began = trio.current_time()
    with limited(2.5):
        results, failures = await run_acts([0, 9, 1, 2, 3], act)
    assert trio.current_time() - began == pytest.approx(2.5)
    assert results == [0, None, None, 2, None]
    assert {position: type(error) for position, error in failures.items()} == {
        1: step_loop.Unfinished,
        2: ValueError,
        4: step_loop.Unfinished,
    }
    assert sorted(cancelled) == [3, 9]


async def test_a_limit_leaves_out_those_that_have_not_begun(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    ticks = iter(range(10**9))
    monkeypatch.setattr(step_loop, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    begun: list[int] = []

    async def act(agent: int) -> int:
        begun.append(agent)
        autojump_clock.jump(1)
        return agent

    with limited(100.5):
        results, failures = await run_acts(range(1000), act)
    assert len(results) == 1000
    assert begun == list(range(len(begun)))
    assert 100 <= len(begun) < 1000
    assert sorted(failures) == list(range(len(begun), 1000))


async def test_a_step_within_its_limit(autojump_clock: MockClock) -> None:
    with limited(10):
        assert await run_acts(range(5), after_a_sleep) == ([0, 2, 4, 6, 8], {})


async def test_the_callers_own_cancellation_goes_before_a_limit(autojump_clock: MockClock) -> None:
    async def act(agent: int) -> None:
        await trio.sleep(100)

    with limited(10), trio.move_on_after(1) as scope:
        await run_acts(range(3), act)
    assert scope.cancelled_caught


async def test_acts_of_one_worker_share_its_context() -> None:
    seen = contextvars.ContextVar[int]("seen", default=-1)

    async def act(agent: int) -> int:
        before = seen.get()
        seen.set(agent)
        return before

    assert await run_acts(range(3), act) == ([-1, 0, 1], {})

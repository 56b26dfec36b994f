"""Helpers for coroutines and addresses."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import trio
import trio.testing

from creamas_sc import util
from creamas_sc.errors import AgentError, AgentErrors, agent_errors
from creamas_sc.rpc import exposed
from creamas_sc.runtime.coroutines import at_once
from creamas_sc.runtime.event_loop import adopt_running_loop


@pytest.fixture(params=["trio", "asyncio"])
def either_loop(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Runs an async function to its end, under each loop."""

    def run(function: Callable[..., Any]) -> Any:
        return anyio.run(function, backend=request.param)

    return run


async def double(addr: str, extra: int = 0) -> int:
    await anyio.lowlevel.checkpoint()
    return 2 * int(addr) + extra


# ---- run


def test_run_blocks_for_the_result_at_home() -> None:
    async def where() -> int:
        await trio.lowlevel.checkpoint()
        return threading.get_ident()

    here = threading.get_ident()
    home = util.run(where())
    assert home != here
    assert util.run(where()) == home


def test_run_raises_what_the_coroutine_raises() -> None:
    async def fail() -> None:
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        util.run(fail())


def test_run_works_within_a_running_asyncio_loop() -> None:
    async def cell() -> Any:
        return util.run(double("2"))

    assert asyncio.run(cell()) == 4


def test_run_takes_other_awaitables() -> None:
    class Lazy:
        def __await__(self) -> Any:
            return double("3").__await__()

    assert util.run(Lazy()) == 6


def test_run_refuses_on_its_own_loop() -> None:
    async def nested() -> None:
        util.run(double("1"))

    with pytest.raises(RuntimeError, match="await the async form"):
        util.run(nested())


async def test_run_refuses_on_a_home_loop_of_the_users() -> None:
    async with adopt_running_loop():
        with pytest.raises(RuntimeError, match="await the async form"):
            util.run(double("1"))
    assert util.run(double("1")) == 2


@pytest.mark.parametrize("task", [3, [1, 2], double])
def test_run_needs_something_to_await(task: Any) -> None:
    with pytest.raises(TypeError, match=r"run\(\) needs a coroutine, not"):
        util.run(task)


def test_run_takes_what_aiomas_calls_until() -> None:
    assert util.run(until=double("1")) == 2
    with pytest.raises(TypeError, match="task or until, which mean the same, not both"):
        util.run(3, until=4)


@pytest.fixture
def asyncio_loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def test_run_uses_the_asyncio_loop_that_it_is_given(
    asyncio_loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def where() -> Any:
        await asyncio.sleep(0)
        return asyncio.get_running_loop()

    assert util.run(where(), asyncio_loop) is asyncio_loop
    assert util.run(until=where(), loop=asyncio_loop) is asyncio_loop
    assert util.run_or_coro(where(), False, asyncio_loop) is asyncio_loop
    task = asyncio_loop.create_task(where())
    assert util.run(task) is asyncio_loop, "a task's own loop"
    asyncio_loop.call_soon(asyncio_loop.stop)
    assert util.run(None, asyncio_loop) is None


def test_run_refuses_what_is_no_loop(asyncio_loop: asyncio.AbstractEventLoop) -> None:
    with pytest.raises(TypeError, match="loop must be an asyncio event loop or None, not 3"):
        util.run(double("1"), loop=3)
    asyncio_loop.close()
    with pytest.raises(RuntimeError, match="closed"):
        util.run(double("1"), asyncio_loop)  # "never awaited" is a warning, and warnings are errors


async def test_run_on_an_asyncio_loop_does_not_block_a_home_loop(
    asyncio_loop: asyncio.AbstractEventLoop,
) -> None:
    async with adopt_running_loop():
        with pytest.raises(RuntimeError, match="await the async form"):
            util.run(double("1"), asyncio_loop)


def test_run_without_a_task_runs_until_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(loop: Any, coroutine: Any) -> None:
        assert coroutine.__name__ == "sleep_forever"
        coroutine.close()
        raise KeyboardInterrupt

    monkeypatch.setattr("creamas_sc.runtime.event_loop.LoopHandle.run_sync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        util.run()


def test_run_or_coro() -> None:
    coroutine = double("1")
    assert util.run_or_coro(coroutine, True) is coroutine
    assert util.run_or_coro(coroutine, False) == 2


# ---- many tasks


def test_create_tasks_keeps_the_order(either_loop: Any) -> None:
    finished = []

    async def slow_first(addr: str) -> str:
        for _ in range(10 - int(addr)):
            await anyio.lowlevel.checkpoint()
        finished.append(addr)
        return addr * 2

    async def main() -> list[Any]:
        return await util.create_tasks(slow_first, ["1", "5", "9"])

    assert either_loop(main) == ["11", "55", "99"]
    assert finished == ["9", "5", "1"], "they run at once"


async def test_create_tasks_passes_arguments_on() -> None:
    assert await util.create_tasks(double, ["1", "2"], 10) == [12, 14]
    assert await util.create_tasks(double, ["1", "2"], extra=10) == [12, 14]
    assert await util.create_tasks(double, []) == []


@pytest.mark.parametrize(
    ("results", "flat"),
    [
        ([[1, 2], [3]], [1, 2, 3]),
        ([(1, 2), {3}], [1, 2, 3]),
        ([[1], 2], [[1], 2]),
        (["ab", "cd"], ["ab", "cd"]),
        ([b"ab", b"cd"], [b"ab", b"cd"]),
        ([{"a": 1}, {"b": 2}], [{"a": 1}, {"b": 2}]),
        ([[], []], []),
        ([None, None], [None, None]),
    ],
)
async def test_results_are_flattened(results: list[Any], flat: list[Any]) -> None:
    async def task(addr: str) -> Any:
        return results[int(addr)]

    addrs = [str(i) for i in range(len(results))]
    assert await util.create_tasks(task, addrs) == flat
    assert await util.create_tasks(task, addrs, flatten=False) == results


def test_create_tasks_is_a_plain_function_that_keeps_its_addresses() -> None:
    assert not inspect.iscoroutinefunction(util.create_tasks)
    addrs = ["1", "2"]
    tasks = util.create_tasks(double, addrs)
    addrs.clear()
    assert util.run(tasks) == [2, 4]
    with pytest.raises(TypeError, match="iterable"):
        util.run(util.create_tasks(double, 3))  # type: ignore[arg-type]


def test_nothing_starts_before_the_await() -> None:
    started = []

    async def task(addr: str) -> None:
        started.append(addr)

    util.create_tasks(task, ["1"]).close()
    assert started == []


def test_a_single_error_is_raised_as_itself(either_loop: Any) -> None:
    cancelled = []
    group = AgentErrors("one failed", {"a": AgentError(address="a", type_name="E", message="m")})

    async def task(addr: str) -> None:
        if addr == "1":
            await anyio.wait_all_tasks_blocked()
            raise group
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            cancelled.append(addr)
            raise

    async def main() -> None:
        await util.create_tasks(task, ["0", "1", "2"])

    with pytest.raises(AgentErrors) as caught:
        either_loop(main)
    assert caught.value is group, "not unwrapped, though it is a group of one itself"
    assert sorted(cancelled) == ["0", "2"]


def test_several_errors_come_as_a_group(either_loop: Any) -> None:
    async def task(addr: str) -> None:
        try:
            if addr == "1":
                raise KeyError(addr)
            await anyio.sleep_forever()
        finally:
            raise ValueError(addr)

    async def main() -> None:
        await util.create_tasks(task, ["0", "1"])

    with pytest.raises(ExceptionGroup, match="2 of 2 tasks failed") as caught:
        either_loop(main)
    assert {type(error) for error in caught.value.exceptions} == {ValueError}


async def test_a_ctrl_c_is_not_wrapped() -> None:
    async def task(addr: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await util.create_tasks(task, ["0"])


async def test_several_of_them_come_as_a_group() -> None:
    async def task(addr: str) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            raise KeyboardInterrupt

    with anyio.CancelScope() as scope:
        scope.cancel()
        with pytest.raises(BaseExceptionGroup) as caught:
            await util.create_tasks(task, ["0", "1"])
    assert [type(error) for error in caught.value.exceptions] == [KeyboardInterrupt] * 2


def test_wait_tasks(either_loop: Any) -> None:
    async def main() -> list[Any]:
        return await util.wait_tasks(double(addr) for addr in "123")

    assert either_loop(main) == [2, 4, 6]


async def test_wait_tasks_flattens_when_asked() -> None:
    async def pair(i: int) -> list[int]:
        return [i, i]

    assert await util.wait_tasks([pair(1), pair(2)]) == [1, 1, 2, 2]
    assert await util.wait_tasks([pair(1), pair(2)], flatten=False) == [[1, 1], [2, 2]]


def test_wait_tasks_leaves_no_coroutine_behind(either_loop: Any) -> None:
    async def fail() -> None:
        raise ValueError("first")

    async def main() -> None:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await util.wait_tasks([double("1"), double("2")])
        with pytest.raises(ValueError, match="first"):
            await util.wait_tasks([fail(), double("1")])

    either_loop(main)  # "never awaited" is a warning, and warnings are errors


# ---- addresses


def test_sort_addrs_takes_numbers_as_numbers() -> None:
    ordered = [
        "tcp://anode:50/0",
        "tcp://anode:50/2",
        "tcp://anode:50/10",
        "tcp://anode:5555/1",
        "tcp://anode:18000/0",
        "tcp://bnode:50/1",
    ]
    assert util.sort_addrs(sorted(ordered)) == ordered
    assert util.sort_addrs(iter(reversed(ordered))) == ordered


def test_split_addrs() -> None:
    addrs = ["tcp://a:50/2", "tcp://b:50/1", "tcp://a:51/1", "tcp://a:50/1", "tcp://[::1]:50/1"]
    assert util.split_addrs(addrs) == {
        "a": {50: ["tcp://a:50/2", "tcp://a:50/1"], 51: ["tcp://a:51/1"]},
        "b": {50: ["tcp://b:50/1"]},
        "::1": {50: ["tcp://[::1]:50/1"]},
    }
    assert util.split_addrs([]) == {}


def test_managers() -> None:
    assert util.get_manager("tcp://a:50/12") == "tcp://a:50/0"
    assert util.addrs2managers(["tcp://a:50/2", "tcp://b:50/1", "tcp://a:50/1"]) == {
        "tcp://a:50/0": ["tcp://a:50/2", "tcp://a:50/1"],
        "tcp://b:50/0": ["tcp://b:50/1"],
    }


@pytest.mark.parametrize("addr", ["", "agent", "tcp://localhost:5556", "tcp://localhost:5556/x"])
@pytest.mark.parametrize(
    "function",
    [
        lambda addr: util.sort_addrs([addr]),
        lambda addr: util.split_addrs([addr]),
        lambda addr: util.addrs2managers([addr]),
        util.get_manager,
    ],
)
def test_what_is_no_address_is_refused(function: Any, addr: str) -> None:
    with pytest.raises(ValueError, match="is not an agent's address"):
        function(addr)


@pytest.mark.parametrize(
    ("name", "sanitized"),
    [
        ("tcp://localhost:5556/1", "tcp_localhost_5556_1"),
        ("ada", "ada"),
        ("/ada/", "ada"),
        ("", "_"),
        ("..", "_"),
        ("../..", ".._.."),
    ],
)
def test_sanitize_agent_name(name: str, sanitized: str) -> None:
    assert util.sanitize_agent_name(name) == sanitized


def test_expose_is_here_too() -> None:
    assert util.expose is exposed.expose


async def test_errors_of_one_moment_are_noted_on_the_first() -> None:
    gate = trio.Event()

    async def fail(text: str) -> None:
        if text == "neither":
            await trio.testing.wait_all_tasks_blocked()
            gate.set()
        await gate.wait()
        if text != "neither":
            raise ValueError(text)

    with pytest.raises(ValueError, match=r"one|two") as caught:
        await at_once(fail, ["one", "two", "neither"])
    raised = {str(caught.value), *caught.value.__notes__}
    assert raised in ({"one", "and ValueError: two"}, {"two", "and ValueError: one"})


async def test_the_errors_of_agents_are_no_several_errors() -> None:
    raised = agent_errors("failed", {"tcp://h:1/1": ValueError("its own")}, [])

    async def fail(_: int) -> None:
        raise raised

    with pytest.raises(AgentErrors) as caught:
        await at_once(fail, [1])
    assert caught.value is raised

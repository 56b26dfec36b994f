"""What `spawn` calls: agent classes and marked factories, whatever else a name may lead to."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from creamas_sc import CreativeAgent, Environment, EnvManager, agent_factory
from creamas_sc.errors import LoadError
from creamas_sc.mp.preloading import script_agent_classes
from creamas_sc.runtime.event_loop import adopt_running_loop
from creamas_sc.runtime.timeouts import YIELD_SECONDS


class Made(CreativeAgent):
    """An agent with a colour."""

    def __init__(self, environment: Environment, colour: str = "") -> None:
        super().__init__(environment)
        self.colour = colour


@agent_factory
def made(environment: Environment, colour: str) -> Made:
    return Made(environment, colour)


@agent_factory
async def made_later(environment: Environment, colour: str) -> Made:
    return Made(environment, colour)


@agent_factory
def makes_none(environment: Environment) -> int:
    return 3


def unmarked(environment: Environment) -> Made:
    return Made(environment)


async def spawn(agent_cls: Any, *args: Any) -> Any:
    """What a new environment's manager makes of it."""
    async with adopt_running_loop():
        env = Environment(("localhost", 0))
        await env.open(EnvManager)
        try:
            agent, addr = await env.manager.spawn(agent_cls, *args)
            assert env.get_agents() == [addr]
            return agent
        finally:
            await env.close(as_coro=True)


@pytest.mark.parametrize("what", ["Made", "made", "made_later"])
@pytest.mark.parametrize("by_name", [True, False])
async def test_classes_and_marked_factories(what: str, by_name: bool) -> None:
    agent = await spawn(f"{__name__}:{what}" if by_name else globals()[what], "red")
    assert type(agent).__name__ == "Made"
    assert agent.colour == "red"


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("os:mkdir", "a builtin_function_or_method"),
        ("os:system", "a builtin_function_or_method"),
        ("builtins:exec", "a builtin_function_or_method"),
        ("pydoc:pipepager", "a function without @agent_factory"),
        ("subprocess:Popen", "derive it from CreativeAgent"),
        (f"{__name__}:unmarked", "a function without @agent_factory"),
        (f"{__name__}:__file__", "a str"),
    ],
)
async def test_nothing_else_is_called(name: str, what: str, tmp_path: Path) -> None:
    folder = tmp_path / "made"
    with pytest.raises(LoadError, match="is not an agent class") as caught:
        await spawn(name, str(folder))
    assert what in str(caught.value)
    assert not folder.exists()


async def test_a_factory_that_makes_no_agent() -> None:
    with pytest.raises(LoadError, match="must return an agent, not 3"):
        await spawn(makes_none)


class Slow(Made):
    """Takes a while to make, without waiting."""

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        time.sleep(0.01)


@asynccontextmanager
async def managed() -> AsyncIterator[Environment]:
    with trio.fail_after(30):
        async with adopt_running_loop():
            env = Environment(("localhost", 0))
            await env.open(EnvManager)
            try:
                yield env
            finally:
                await env.close(as_coro=True)


@pytest.mark.parametrize("n", [1, 10_000])
async def test_a_spawn_whose_time_is_up_leaves_no_agents(n: int) -> None:
    async with managed() as env:
        Made(env)
        before = env.get_agents()
        with trio.move_on_after(0.001 if n == 1 else 0.1) as scope:
            await env.manager.spawn_n(Slow if n > 1 else VerySlow, n)
        assert scope.cancelled_caught
        assert env.get_agents() == before
        assert len(await env.manager.spawn_n(Made, 3)) == 3
        assert len(env.get_agents()) == 4


class VerySlow(Made):
    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        time.sleep(2 * YIELD_SECONDS)


class Waits(Made):
    """Made by a coroutine function, which waits once the agent is there, but for the first two."""

    made = 0


@agent_factory
async def waits(environment: Environment) -> Waits:
    agent = Waits(environment)
    Waits.made += 1
    if Waits.made > 2:
        await trio.sleep_forever()
    return agent


@agent_factory
async def fails_at_the_third(environment: Environment) -> Waits:
    agent = Waits(environment)
    Waits.made += 1
    await trio.lowlevel.checkpoint()
    if Waits.made > 2:
        raise ValueError("no more")
    return agent


@agent_factory
async def makes_agents_for_nothing(environment: Environment) -> str:
    await environment.manager.spawn(Made)
    Made(environment)
    return "no agent"


@pytest.mark.parametrize("factory", [waits, fails_at_the_third, makes_agents_for_nothing])
async def test_agents_of_a_coroutine_function_are_undone_too(
    factory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Waits, "made", 0)
    async with managed() as env:
        Made(env)
        before = env.get_agents()
        with trio.move_on_after(0.1), contextlib.suppress(ValueError, LoadError):
            await env.manager.spawn_n(factory, 10)
        assert env.get_agents() == before
        assert len(await env.manager.spawn_n(Made, 3)) == 3


async def test_a_coroutine_function_may_wait_for_another_spawn() -> None:
    there = trio.Event()

    @agent_factory
    async def waits_for_another(environment: Environment) -> Made:
        await there.wait()
        return Made(environment)

    async with managed() as env:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(env.manager.spawn, waits_for_another)
            await a_few_rounds()
            await env.manager.spawn(Made)
            there.set()
        assert len(env.get_agents()) == 2


async def test_what_a_coroutine_function_made_stays_if_others_made_agents_after_it() -> None:
    async with managed() as env:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(env.manager.spawn_n, waits, 10)
                await a_few_rounds()
                own = Made(env, "own")
                scope.cancel()
        assert env.get_agent(own.addr) is own


@asynccontextmanager
async def long_spawn(env: Environment) -> AsyncIterator[tuple[trio.Nursery, trio.CancelScope]]:
    """A spawn that is under way, a nursery beside it, and what cancels it."""
    scope = trio.CancelScope()
    async with trio.open_nursery() as nursery:

        async def spawn_many() -> None:
            with scope:
                await env.manager.spawn_n(Slow, 10_000)

        nursery.start_soon(spawn_many)
        while len(env.get_agents()) < 10:
            await trio.lowlevel.checkpoint()
        yield nursery, scope


async def test_others_run_during_a_long_spawn_and_can_cancel_it() -> None:
    async with managed() as env:
        async with long_spawn(env) as (nursery, scope):
            nursery.start_soon(env.manager.spawn_n, Made, 2)  # waits for its turn
            await a_few_rounds()
            scope.cancel()
        assert [type(agent) for agent in env.get_agents(addr=False)] == [Made, Made]


async def a_few_rounds() -> None:
    for _ in range(3):
        await trio.lowlevel.checkpoint()


async def test_an_agent_that_another_task_makes_meanwhile_keeps_its_address() -> None:
    async with managed() as env:
        async with long_spawn(env) as (_, scope):
            own = Made(env, "own")
            scope.cancel()
        assert env.get_agent(own.addr) is own


@pytest.mark.parametrize("n", [-1, 10**7, 10**5000], ids=["-1", "10**7", "10**5000"])
async def test_no_number_of_agents(n: int) -> None:
    async with managed() as env:
        with pytest.raises(ValueError, match="at least 0, at most 1,000,000"):
            await env.manager.spawn_n(Made, n)
        assert env.get_agents() == []


def test_classes_that_a_program_loads_for_other_ends_are_not_the_scripts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Such as those of all tests, which slaves would load at their start."""
    assert script_agent_classes() == []
    monkeypatch.setattr(sys.modules["__main__"], "Made", Made, raising=False)
    assert script_agent_classes() == [f"{__name__}:Made"]

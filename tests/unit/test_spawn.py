"""What `spawn` calls: agent classes and marked factories, whatever else a name may lead to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from creamas_sc import CreativeAgent, Environment, EnvManager, agent_factory
from creamas_sc.errors import LoadError
from creamas_sc.runtime.event_loop import adopt_running_loop


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

"""One call of many agents: of an environment, and through its manager."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio

from creamas_sc import CreativeAgent, Environment, expose
from creamas_sc.core.step_loop import StepLimit, step_limit
from creamas_sc.errors import AgentErrors, BadArguments, NotExposed, UnknownAgent
from creamas_sc.mp import EnvManager
from creamas_sc.rpc.addresses import split_address
from creamas_sc.runtime.event_loop import adopt_running_loop
from tests.support.values import Stranger

ANY_PORT = ("localhost", 0)


class Sage(CreativeAgent):
    """Has opinions, and some days none."""

    asked = 0

    @expose
    def opinion(self, topic: str, *, loud: bool = False) -> str:
        Sage.asked += 1
        return f"{topic}{'!' if loud else ''} {split_address(self.addr)[2]}"

    @expose
    async def slowly(self, addrs: list[str], method: str) -> Any:
        await trio.sleep(0.01 * (9 - split_address(self.addr)[2]))
        return addrs, method

    @expose
    def perhaps(self) -> Any:
        number = split_address(self.addr)[2]
        if number == 1:
            raise ValueError("not today")
        return Stranger() if number == 2 else number

    @expose
    async def of_others(self, addrs: list[str]) -> Any:
        return await self.env.gather("opinion", "art", addrs=addrs)


class Silent(CreativeAgent):
    """Has no opinion at all."""


@pytest.fixture
async def home() -> AsyncIterator[Environment]:
    with trio.fail_after(20):
        async with adopt_running_loop():
            env = await Environment.create(ANY_PORT, as_coro=True)
            yield env
            await env.close(as_coro=True)


@pytest.fixture
async def sages(home: Environment) -> list[str]:
    return [Sage(home).addr for _ in range(4)]


async def test_gather_calls_all_in_order(home: Environment, sages: list[str]) -> None:
    one, two, three, four = sages
    told = await home.gather("opinion", "art", loud=True)
    assert list(told) == [one, two, three, four]
    assert list(told.values()) == ["art! 0", "art! 1", "art! 2", "art! 3"]
    # Those that wait do so at the same time, and their parameters may have any names.
    with trio.fail_after(1):
        assert list(await home.gather("slowly", [], method="x")) == sages
    assert await home.gather("opinion", "art", addrs=[three, one, three]) == {
        three: "art 2", one: "art 0",
    }  # fmt: skip
    assert await home.gather("opinion", "art", addrs=[]) == {}


async def test_gather_refuses_before_it_calls(home: Environment, sages: list[str]) -> None:
    Silent(home)
    Sage.asked = 0
    with pytest.raises(NotExposed, match=r"Silent of .*/4 has no exposed method 'opinion'"):
        await home.gather("opinion", "art")
    with pytest.raises(UnknownAgent, match=r"there is no agent .*/99"):
        await home.gather("opinion", "art", addrs=[sages[0], f"{home.base_url}99"])
    with pytest.raises(ValueError, match="is not in this environment"):
        await home.gather("opinion", "art", addrs=["tcp://localhost:1/0"])
    assert Sage.asked == 0
    with pytest.raises(BadArguments, match=r"Sage\.opinion\(topic"):
        await home.gather("opinion", addrs=sages)


async def test_gather_keeps_the_others_results(home: Environment, sages: list[str]) -> None:
    with pytest.raises(AgentErrors, match="1 of the agents failed in perhaps") as caught:
        await home.gather("perhaps", addrs=[sages[1], sages[0], sages[3]])
    assert list(caught.value.failures) == [sages[1]]
    assert caught.value.results == {sages[0]: 0, sages[3]: 3}


async def test_gather_from_another_environment(home: Environment) -> None:
    home.manager = EnvManager(home)
    sages = [Sage(home).addr for _ in range(4)]
    other = await Environment.create(ANY_PORT, as_coro=True)
    try:
        manager = await other.connect(home.manager.addr)
        assert await manager.gather("opinion", "art", addrs=sages[2:]) == {
            sages[2]: "art 3", sages[3]: "art 4",
        }  # fmt: skip
        with pytest.raises(NotExposed, match="no exposed method 'nothing'"):
            await manager.gather("nothing")
        with pytest.raises(BadArguments, match="unexpected keyword argument 'x'"):
            await manager.gather("opinion", "art", x=1)
        # What cannot travel fails by its agent, too, among those that raised.
        with pytest.raises(AgentErrors, match="2 of the agents failed") as caught:
            await manager.gather("perhaps", addrs=[sages[3], sages[1], sages[0]])
        told = {addr: error.type_name for addr, error in caught.value.failures.items()}
        assert told == {sages[0]: "ValueError", sages[1]: "creamas_sc.errors.EncodeError"}
        assert caught.value.results == {sages[3]: 4}
    finally:
        await other.close(as_coro=True)


async def test_gather_within_a_limited_step(home: Environment, sages: list[str]) -> None:
    token = step_limit.set(StepLimit(trio.current_time() - 1))
    try:
        asker = home.get_agent(sages[0])
        assert await asker.of_others(sages[1:2]) == {sages[1]: "art 1"}  # type: ignore[attr-defined]
    finally:
        step_limit.reset(token)

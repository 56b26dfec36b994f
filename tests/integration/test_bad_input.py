"""Bad input gets an error that says what is wrong, and nothing is lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from creamas_sc import Environment, MultiEnvironment, Proxy
from creamas_sc.errors import (
    AgentError,
    AgentErrors,
    BadArguments,
    ConnectionLost,
    LoadError,
    NotExposed,
    StartError,
    UnknownAgent,
)
from tests.support import agents, values
from tests.support.agents import Counter, Echo, Raises

AGENTS, VALUES = agents.__name__, values.__name__
VALUES = "tests.support.values"
Call = Callable[[MultiEnvironment, Proxy], Any]

CASES: dict[str, tuple[Call, type[Exception], str]] = {
    "no address": (lambda m, _: m.connect("foo"), ValueError, "'foo' is not an agent's address"),
    "nobody there": (lambda m, _: m.connect("tcp://localhost:1/1"), ConnectionLost, "localhost:1/"),
    "unknown agent": (lambda m, e: m.connect(e.addr + "9"), UnknownAgent, "there is no agent"),
    "unknown agent here": (
        lambda m, _: m.connect(m.env.base_url + "99"),
        UnknownAgent,
        "there is no agent",
    ),
    "unknown method": (lambda _, e: e.nothing(), NotExposed, "no exposed method 'nothing'"),
    "not exposed": (lambda _, e: e.secret(), NotExposed, "mark it with @expose"),
    "private": (lambda _, e: e._register(), NotExposed, "no exposed method"),
    "too few": (lambda _, e: e.evaluate(), BadArguments, r"Echo.evaluate\(artifact"),
    "too many": (lambda _, e: e.evaluate(1, 2), BadArguments, "takes 2 positional"),
    "unknown keyword": (lambda _, e: e.evaluate(other=1), BadArguments, "other"),
    "raises": (lambda _, e: e.fail("so there"), AgentError, "ValueError in tcp://.*: so there"),
    "asyncio": (lambda _, e: e.use_asyncio(), AgentError, "use anyio or trio here, not asyncio"),
    "no module": (lambda m, _: m.spawn("no_such:Cls"), LoadError, "'no_such'.*does not import"),
    "no class": (lambda m, _: m.spawn(f"{AGENTS}:Nope"), LoadError, "has no 'Nope'"),
    "no agent": (lambda m, _: m.spawn(f"{VALUES}:Point"), LoadError, "is not an agent class"),
    "not callable": (lambda m, _: m.spawn(f"{AGENTS}:os"), LoadError, "class, but a module"),
    "malformed": (lambda m, _: m.spawn(f"{AGENTS}.Echo"), LoadError, "package.module:Class"),
    "number": (lambda m, _: m.spawn(5), LoadError, "got 5"),  # type: ignore[arg-type]
    "agent's init": (
        lambda m, _: m.spawn(Raises, "value", "init"),
        AgentError,
        "ValueError in .*: raised in init",
    ),
    "agent's init exits": (
        lambda m, _: m.spawn_n(Raises, 3, "exit", "init"),
        AgentError,
        "SystemExit in .*: raised in init",
    ),
    "agent's arguments": (lambda m, _: m.spawn(Counter, 1, 2, 3), BadArguments, r"Counter\("),
    "wrong slave": (lambda m, _: m.spawn(Echo, addr="tcp://a:1/0"), ValueError, "not a slave's"),
    "n": (lambda m, _: m.spawn_n(Echo, -1), ValueError, "at least 0"),
    "environment's arguments": (
        lambda m, _: m.spawn_slaves([("localhost", 0)], Environment, agents.Manager, [{"x": 1}]),
        StartError,
        "unexpected keyword argument 'x'",
    ),
    "environment's codec": (
        lambda m, _: m.spawn_slaves(
            [("localhost", 0)], Environment, agents.Manager, [{"codec": int}]
        ),
        StartError,
        "int",
    ),
    "unknown environment": (
        lambda m, _: m.spawn_slaves([("localhost", 0)], f"{AGENTS}:Nope", agents.Manager),
        StartError,
        "has no 'Nope'",
    ),
    "local class": (
        lambda m, _: m.spawn(type("Inner", (Echo,), {"__qualname__": "f.<locals>.Inner"})),
        LoadError,
        "inside a function",
    ),
}  # fmt: skip


async def test_each_error_says_what_is_wrong(menv: MultiEnvironment) -> None:
    echo, _addr = await menv.spawn(Echo)
    for name, (call, kind, pattern) in CASES.items():
        with pytest.raises(kind, match=pattern):
            await call(menv, echo)
        assert await echo.evaluate(name) == name
    assert await menv.get_agents(as_coro=True) == [echo.addr]
    assert await menv.trigger_all() == [((), {})]


async def test_is_ready_that_raises(menv: MultiEnvironment) -> None:
    await menv.spawn_slaves(
        [("localhost", 0)], agents.FailingEnvironment, agents.Manager, [{"fails_in": "is_ready"}]
    )
    with pytest.raises(AgentError, match="not ready at all"):
        await menv.wait_slaves(5, check_ready=True)
    with pytest.raises(AgentError, match="not ready at all"):
        await menv.is_ready()


async def test_save_info_and_close_that_raise_are_raised_after_the_close(
    menv: MultiEnvironment,
) -> None:
    await menv.spawn_slaves(
        [("localhost", 0)], agents.FailingEnvironment, agents.Manager, [{"fails_in": "save_info"}]
    )
    slave = menv.addrs[2]
    agent, _ = await menv.spawn(Raises, "value", "close", addr=menv.addrs[0])
    with pytest.raises(AgentErrors, match="2 of the agents failed to save or close") as caught:
        await menv.close(as_coro=True)
    failed = [agent.addr, slave.removesuffix("0")]
    assert list(caught.value.failures) == failed
    report = await menv.close(as_coro=True)
    assert report.graceful
    assert "raised in close" in report[0].errors[0]
    assert report[1].errors == ()
    assert "cannot save" in report[2].errors[0]


async def test_a_master_that_cannot_save_closes_all_the_same() -> None:
    class Failing(MultiEnvironment):
        def save_info(self, folder: str | None, *args: Any, **kwargs: Any) -> Any:
            raise OSError("disk full")

    menv = Failing(("localhost", 0), Environment)
    await menv.spawn_slaves([("localhost", 0)], Environment, agents.Manager)
    with pytest.raises(AgentError, match="disk full"):
        await menv.close(as_coro=True)


async def test_an_agent_that_stops_its_environment(menv: MultiEnvironment) -> None:
    one, _ = await menv.spawn(Echo)
    two, _ = await menv.spawn(Echo)
    await one.stop_environment()
    assert await two.evaluate(1) == 1

    async def step_until_told() -> None:
        while True:
            await menv.trigger_all()

    with pytest.raises((AgentErrors, ConnectionLost)):
        await step_until_told()
    assert await menv.trigger_all() == [((), {})]


async def test_an_agent_without_act_is_named_once(
    menv: MultiEnvironment, caplog: pytest.LogCaptureFixture
) -> None:
    for cls in (agents.Draws, Counter, agents.Draws):
        await menv.spawn_n(cls, 2)
    with pytest.raises(LoadError):
        await menv.spawn(f"{AGENTS}:Nope")
    warnings = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert warnings == [
        "tests.support.agents:Draws has no method act, so its agents do nothing in a step"
    ]


async def test_constructor_arguments() -> None:
    with pytest.raises(TypeError, match="codec"):
        MultiEnvironment(("localhost", 0), Environment, codec=str)

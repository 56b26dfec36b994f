"""User code that raises: its caller gets the error, and the rest goes on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import trio

from creamas_sc import Environment, MultiEnvironment
from creamas_sc.errors import AgentError, AgentErrors, StartError
from creamas_sc.mp import EnvManager
from tests.faults.agents import Raiser, RaisingEnvironment, RaisingManager
from tests.faults.registry import Figures, calls_of, in_rounds_too, row

BOUND_SECONDS = 20.0
KINDS = (
    "ValueError",
    "SystemExit",
    "KeyboardInterrupt",
    "GeneratorExit",
    "MemoryError",
    "RecursionError",
    "StopIteration",
    "StopAsyncIteration",
    "UnicodeDecodeError",
    "Odd",
    "Wordless",
)
IN_AGENTS = ("init", "act", "evaluate", "evaluate for another", "close")
IN_STARTS = ("env_init", "mgr_init")
IN_ENVIRONMENTS = ("is_ready", "save_info")
SLAVES = [("localhost", 0)]


@row(
    13,
    "user code that raises anything anywhere, SystemExit and KeyboardInterrupt included",
    "the named error at the caller, everything else goes on",
    cases=in_rounds_too(
        [
            f"{kind} in {where}"
            for where, kind in product((*IN_AGENTS, *IN_STARTS, *IN_ENVIRONMENTS), KINDS)
        ]
    ),
    rounds=2 * 9 * 11,
    short=5,
)
def user_code_raises(case: str, number: int, folder: Path) -> Figures:
    """Raise one error in one place, next to healthy slaves and a healthy agent in another one."""
    calls, plain = calls_of(case)
    kind, _, where = plain.partition(" in ")
    trio.run(_bounded, kind, where, calls)
    return {}


async def _bounded(kind: str, where: str, calls: str) -> None:
    with trio.fail_after(BOUND_SECONDS):
        async with MultiEnvironment(("localhost", 0), Environment, calls=calls) as menv:
            await menv.spawn_slaves(SLAVES * 2, Environment, EnvManager)
            well, _ = await menv.spawn(Raiser, kind, "nowhere")
            if where in IN_AGENTS:
                await _in_agent(menv, kind, where)
            else:
                await _in_environment(menv, kind, where)
            await menv.trigger_act(well.addr)
            if where in ("close", "save_info"):
                await _fails(kind, AgentErrors, lambda: menv.close(as_coro=True))
            report = await menv.close(as_coro=True)
            failures = [error for slave in report for error in slave.errors]
            assert len(failures) == (where in ("close", "save_info")), failures
            assert all(slave.graceful for slave in report)
            _check_named(kind, failures)


async def _in_agent(menv: MultiEnvironment, kind: str, where: str) -> None:
    if where == "init":
        await _fails(kind, AgentError, lambda: menv.spawn(Raiser, kind, where))
        assert await menv.trigger_all() == ["acted"]
        return
    ill, addr = await menv.spawn(Raiser, kind, where.split()[0], addr=menv.addrs[1])
    if where == "act":
        errors = await _fails(kind, AgentErrors, menv.trigger_all)
        assert (list(errors.failures), errors.results) == ([addr], ["acted"])
        await _fails(kind, AgentError, lambda: menv.trigger_act(addr))
    elif where == "evaluate":
        await _fails(kind, AgentError, lambda: ill.evaluate(None))
        assert await menv.trigger_all() == ["acted"] * 2
    elif where == "evaluate for another":
        agents = await menv.get_agents(as_coro=True)
        first = await menv.connect(agents[0])
        await _fails("", AgentError, lambda: first.ask(addr))
        in_step = await _fails("", AgentErrors, lambda: menv.trigger_all(addr))
        assert list(in_step.failures) == agents


async def _in_environment(menv: MultiEnvironment, kind: str, where: str) -> None:
    each = [{"kind": kind, "where": where}]

    async def start() -> None:
        await menv.spawn_slaves(SLAVES, RaisingEnvironment, RaisingManager, each)

    if where in IN_STARTS:
        await _fails(kind, StartError, start)
        return
    await start()
    if where == "is_ready":
        await _fails(kind, AgentError, menv.is_ready)


async def _fails(kind: str, cls: type[Any], call: Callable[[], Awaitable[Any]]) -> Any:
    with pytest.raises((AgentError, AgentErrors, StartError)) as caught:
        await call()
    error = caught.value
    assert type(error) is cls, error
    _check_named(kind, [str(failure) for failure in getattr(error, "exceptions", [error])])
    return error


def _check_named(kind: str, texts: list[str]) -> None:
    # PEP 479: a coroutine cannot end by StopIteration, and Python says so in other words.
    named = "RuntimeError" if kind.startswith("Stop") else kind
    for text in texts:
        assert kind in text or named in text, text

"""A slave that is stopped in a step with a time limit."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import trio

from creamas_sc import Environment, MultiEnvironment
from creamas_sc.client import connect
from creamas_sc.errors import StepOverran
from tests.faults.daemon import daemon
from tests.faults.registry import Figures, calls_of, in_rounds_too, row
from tests.support.agents import Manager

SECONDS = 0.3
LATE_SECONDS = 0.5
SLAVES = 3
AGENTS = 20  # in each
ANY_PORT = ("localhost", 0)
BOUND_SECONDS = 60.0


@row(
    8,
    "a slave SIGSTOPped in trigger_all_within",
    f"StepOverran <= its time + {LATE_SECONDS:g} s; the other slaves' results kept, but in rounds "
    "of agents that ask others",
    cases=in_rounds_too(
        (
            "script, goes on",
            "daemon, goes on",
            "script, ended and started again",
            "daemon, ended and started again",
        )
    ),
    rounds=200,
    short=3,
)
def stopped_slave(case: str, number: int, folder: Path) -> Figures:
    """Steps before, while one of the slaves is stopped, and after."""
    calls, plain = calls_of(case)
    where, _, then = plain.partition(", ")
    restart = "permanent" if then.startswith("ended") else "temporary"
    settings = {"calls": calls, "restart": restart}
    if where == "script":
        return trio.run(_script, settings, number)
    name = f"row-8-{number}"
    with daemon(name, folder):
        return trio.run(_daemon, name, settings, number)


async def _script(settings: Mapping[str, Any], number: int) -> Figures:
    with trio.fail_after(BOUND_SECONDS):
        async with MultiEnvironment(ANY_PORT, Environment, **settings) as menv:
            await menv.spawn_slaves([ANY_PORT] * SLAVES, Environment, Manager)
            return await _steps(menv, menv.addrs, settings, number)


async def _daemon(name: str, settings: Mapping[str, Any], number: int) -> Figures:
    with trio.fail_after(BOUND_SECONDS):
        async with connect(name) as client:
            await client.create(
                "one",
                slave_addrs=[ANY_PORT] * SLAVES,
                slave_mgr_cls="tests.support.agents:Manager",
                **settings,
            )
            async with client.attach("one") as menv:
                return await _steps(menv, await menv.get_addrs(), settings, number)


async def _steps(menv: Any, addrs: list[str], settings: Mapping[str, Any], number: int) -> Figures:
    kill, in_rounds = settings["restart"] == "permanent", settings["calls"] == "rounds"
    askers = []
    for addr in addrs:
        await menv.spawn_n("tests.support.agents:Counter", AGENTS, addr=addr)
        if in_rounds:
            askers.append((await menv.spawn("tests.faults.agents:Asker", addr=addr))[1])

    def of_slave(slave: int, count: int) -> list[Any]:
        mine = askers[slave : slave + 1]
        return [count] * AGENTS + [[each for each in askers if each not in mine] for _ in mine]

    def of_others(count: int) -> list[Any]:
        return [each for slave in others for each in of_slave(slave, count)]

    victim = number % SLAVES
    others = [slave for slave in range(SLAVES) if slave != victim]
    first = await menv.trigger_all_within(BOUND_SECONDS, askers)
    assert first == [each for slave in range(SLAVES) for each in of_slave(slave, 1)]
    pid = await (await menv.connect(addrs[victim])).pid()
    os.kill(pid, signal.SIGSTOP)
    began, on_overrun = trio.current_time(), "kill" if kill else "cancel"
    try:
        with pytest.raises(StepOverran) as caught:
            await menv.trigger_all_within(SECONDS, askers, on_overrun=on_overrun)
        late = trio.current_time() - began - SECONDS
    finally:
        if not kill:
            os.kill(pid, signal.SIGCONT)
    without = [addrs[victim], *(addr for addr in askers if addr != askers[victim])]
    assert caught.value.addresses == without, caught.value.addresses
    assert not caught.value.acknowledged
    assert caught.value.failures == {}, caught.value
    assert caught.value.results == [2] * AGENTS * (SLAVES - 1)
    after = await menv.trigger_all_within(BOUND_SECONDS, askers)
    in_each = AGENTS + in_rounds
    place = victim * in_each
    mine = after[place : place + in_each]
    assert after[:place] + after[place + in_each :] == of_others(3)
    # Of one that goes on, the step may have run late, or not; one that is new has counted nothing.
    assert mine in [of_slave(victim, count) for count in ([1] if kill else [2, 3])]
    if not kill:
        assert late <= LATE_SECONDS, f"{late:.3f} s late"
    return {"ended by seconds" if kill else "late by seconds": late}

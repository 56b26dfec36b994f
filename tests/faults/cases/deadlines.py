"""A slave that is stopped in a step with a time limit."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import trio

from creamas_sc import Environment, MultiEnvironment
from creamas_sc.client import connect
from creamas_sc.errors import StepOverran
from tests.faults.daemon import daemon
from tests.faults.registry import Figures, row
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
    f"StepOverran <= its time + {LATE_SECONDS:g} s; the other slaves' results kept",
    cases=(
        "script, goes on",
        "daemon, goes on",
        "script, ended and started again",
        "daemon, ended and started again",
    ),
    rounds=100,
    short=2,
)
def stopped_slave(case: str, number: int, folder: Path) -> Figures:
    """Steps before, while one of the slaves is stopped, and after."""
    where, _, then = case.partition(", ")
    kill = then.startswith("ended")
    if where == "script":
        return trio.run(_script, kill, number)
    name = f"row-8-{number}"
    with daemon(name, folder):
        return trio.run(_daemon, name, kill, number)


async def _script(kill: bool, number: int) -> Figures:
    with trio.fail_after(BOUND_SECONDS):
        restart = "permanent" if kill else "temporary"
        async with MultiEnvironment(ANY_PORT, Environment, restart=restart) as menv:
            await menv.spawn_slaves([ANY_PORT] * SLAVES, Environment, Manager)
            return await _steps(menv, menv.addrs, kill, number)


async def _daemon(name: str, kill: bool, number: int) -> Figures:
    with trio.fail_after(BOUND_SECONDS):
        restart = "permanent" if kill else "temporary"
        async with connect(name) as client:
            await client.create(
                "one",
                slave_addrs=[ANY_PORT] * SLAVES,
                slave_mgr_cls="tests.support.agents:Manager",
                restart=restart,
            )
            async with client.attach("one") as menv:
                return await _steps(menv, await menv.get_addrs(), kill, number)


async def _steps(menv: Any, addrs: list[str], kill: bool, number: int) -> Figures:
    for addr in addrs:
        await menv.spawn_n("tests.support.agents:Counter", AGENTS, addr=addr)
    assert await menv.trigger_all_within(BOUND_SECONDS) == [1] * AGENTS * SLAVES
    victim = number % SLAVES
    pid = await (await menv.connect(addrs[victim])).pid()
    os.kill(pid, signal.SIGSTOP)
    began = trio.current_time()
    try:
        with pytest.raises(StepOverran) as caught:
            await menv.trigger_all_within(SECONDS, on_overrun="kill" if kill else "cancel")
        late = trio.current_time() - began - SECONDS
    finally:
        if not kill:
            os.kill(pid, signal.SIGCONT)
    assert (caught.value.addresses, caught.value.acknowledged) == ([addrs[victim]], False)
    assert caught.value.results == [2] * AGENTS * (SLAVES - 1)
    after = await menv.trigger_all_within(BOUND_SECONDS)
    mine = after[victim * AGENTS : (victim + 1) * AGENTS]
    rest = after[: victim * AGENTS] + after[(victim + 1) * AGENTS :]
    assert rest == [3] * AGENTS * (SLAVES - 1)
    # Of one that goes on, the step may have run late, or not; one that is new has counted nothing.
    assert mine in ([[1] * AGENTS] if kill else [[2] * AGENTS, [3] * AGENTS])
    if not kill:
        assert late <= LATE_SECONDS, f"{late:.3f} s late"
    return {"ended by seconds" if kill else "late by seconds": late}

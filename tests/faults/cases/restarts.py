"""Rows about slaves that are lost and started again."""

from __future__ import annotations

import os
import random
import signal
import time
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import trio

from creamas_sc import Environment, MultiEnvironment, expose
from creamas_sc.errors import SlaveLost
from creamas_sc.mp import EnvManager, RestartPolicy
from tests.faults.registry import Figures, row
from tests.support.agents import Echo, end_process

SEEN_SECONDS = 1.0
BACK_SECONDS = 5.0
BOUND_SECONDS = 30.0
SLAVES = 4
AGENTS = 3  # in each
ANY_PORT = ("localhost", 0)


class Holder(Echo):
    """Can be held in a call."""

    @expose
    async def hold(self) -> None:
        await trio.sleep_forever()


@row(
    4,
    "a random slave killed every 2 s for 10 minutes under restart='permanent'",
    f"each seen <= {SEEN_SECONDS:g} s; restarts reported = kills; siblings' results right",
    cases=("4 kills, one after the other", "300 kills, 2 s apart"),
    rounds=2,
    short=1,
    quick=0,
)
def kills(case: str, number: int, folder: Path) -> Figures:
    """So many kills, each with a call in flight there and calls to all others."""
    n = int(case.split()[0])
    return trio.run(_kills, n, 2.0 if "2 s apart" in case else 0.0)


async def _kills(n: int, seconds_apart: float) -> Figures:
    chosen = random.Random(n)
    figures = {"seen in seconds": 0.0, "back in seconds": 0.0}
    policy = RestartPolicy("permanent", restarts=10, seconds=10.0)
    async with MultiEnvironment(ANY_PORT, Environment, restart=policy) as menv:
        await menv.spawn_slaves([ANY_PORT] * SLAVES, Environment, EnvManager)
        held = [(await menv.spawn_n(Holder, AGENTS, addr=addr))[0][0] for addr in menv.addrs]
        for kill in range(1, n + 1):
            began = trio.current_time()
            seen, back = await _kill(menv, held, chosen.randrange(SLAVES), kill)
            figures["seen in seconds"] = max(figures["seen in seconds"], seen)
            figures["back in seconds"] = max(figures["back in seconds"], back)
            assert len(menv.restarts) == kill
            assert not menv.restarts[-1].failures
            assert menv.restarts[-1].agents == AGENTS
            await trio.sleep_until(began + seconds_apart)
    return figures


async def _kill(
    menv: MultiEnvironment, held: list[Any], victim: int, kill: int
) -> tuple[float, float]:
    """Kill one; seconds until the call in flight there failed, and until a step was done."""
    pid = await _pid(held[victim])
    siblings = [agent for agent in held if agent is not held[victim]]
    failed_at: list[float] = []

    async def hold() -> None:
        with pytest.raises(SlaveLost) as caught:
            await held[victim].hold()
        failed_at.append(time.monotonic())
        assert (caught.value.pid, caught.value.signal) == (pid, signal.SIGKILL)
        assert caught.value.may_have_run

    async def ask(agent: Any) -> None:
        asked = 0
        while not failed_at or asked < 10:
            assert await agent.evaluate((kill, asked)) == (kill, asked)
            asked += 1

    with trio.fail_after(BACK_SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hold)
            for agent in siblings:
                nursery.start_soon(ask, agent)
            await held[victim].evaluate(0)  # so that the call before is there too
            killed_at = time.monotonic()
            os.kill(pid, signal.SIGKILL)
        assert failed_at[0] - killed_at <= SEEN_SECONDS
        assert await menv.trigger_all(kill) == [((kill,), {})] * (SLAVES * AGENTS)
        assert await _pid(held[victim]) != pid
    return failed_at[0] - killed_at, time.monotonic() - killed_at


async def _pid(agent: Any) -> int:
    pid: int = await agent.pid()
    return pid


# ---- crash loops


class Crasher(Echo):
    """Notes in ``journal`` that it was made; ends its process in its act, or when made again."""

    def __init__(self, environment: Environment, journal: str, when: str, how: str) -> None:
        super().__init__(environment)
        self.how = how
        with open(journal, "a+") as file:
            file.write(f"{os.getpid()}\n")
            file.seek(0)
            again = len(file.readlines()) > 1
        if again and when == "made again":
            end_process(how)

    @expose
    async def act(self, *args: Any, **kwargs: Any) -> Any:
        end_process(self.how)


@row(
    6,
    "slaves that crash again and again, in a step or as soon as they are restored",
    "exactly N restarts in T, N from 0 to 3; then the declared end, its cause named",
    cases=tuple(
        f"{when}, {how}"
        for when, how in product(("step", "made again"), ("SIGKILL", "SIGSEGV", "0", "3"))
    ),
    rounds=100,
    short=2,
)
def crash_loop(case: str, number: int, folder: Path) -> Figures:
    """One slave of two that crashes until the simulation ends."""
    when, _, how = case.partition(", ")
    return trio.run(_crash_loop, when, how, (number // 8 + 2) % 4, folder / "journal")


async def _crash_loop(when: str, how: str, n: int, journal: Path) -> Figures:
    began = time.monotonic()
    policy = RestartPolicy("permanent", restarts=n, seconds=60.0)
    with trio.fail_after(BOUND_SECONDS):
        async with MultiEnvironment(ANY_PORT, Environment, restart=policy) as menv:
            await menv.spawn_slaves([ANY_PORT] * 2, Environment, EnvManager)
            await menv.spawn(Crasher, str(journal), when, how)
            while True:
                with pytest.raises(SlaveLost) as caught:
                    await menv.trigger_all()
                if "ends the simulation" in str(caught.value):
                    break
            await menv._closer.closed.wait()
            pids = [int(line) for line in journal.read_text().split()]
            assert len(pids) == len(set(pids)) == 1 + n, pids
            assert len(menv.restarts) == (n if when == "step" else 0)
            _check_cause(str(caught.value), how, n, pids[-1])
    return {"seconds": time.monotonic() - began}


def _check_cause(cause: str, how: str, n: int, pid: int) -> None:
    ended = f"was killed by {how}" if how.startswith("SIG") else f"exited with code {how}"
    times = f"{n} restart{'s' * (n != 1)}"
    assert f"(pid {pid}) {ended}; after {times} in 60 s restart='permanent' ends" in cause, cause

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
from tests.faults.registry import Figures, calls_of, row
from tests.support.agents import Echo, end_process

SEEN_SECONDS = 1.0
BACK_SECONDS = 5.0
BOUND_SECONDS = 30.0
SLAVES = 4
AGENTS = 3  # in each
ANY_PORT = ("localhost", 0)


class Holder(Echo):
    """Can be held in a call; asks others in its acts, or one of them until it is lost."""

    @expose
    async def hold(self) -> None:
        await trio.sleep_forever()

    @expose
    async def act(self, kill: int, addrs: list[str], lost: str | None = None) -> list[int]:
        try:
            while lost is not None:
                await self.ask(lost, kill)
        except SlaveLost:
            return []
        return [await self.ask(addr, kill) for addr in addrs]


@row(
    4,
    "a random slave killed every 2 s for 10 minutes under restart='permanent'",
    f"each seen <= {SEEN_SECONDS:g} s; restarts reported = kills; siblings' results right",
    cases=(
        "4 kills, one after the other",
        "4 kills, one after the other, in rounds",
        "300 kills, 2 s apart",
        "300 kills, 2 s apart, in rounds",
    ),
    rounds=4,
    short=2,
    quick=0,
)
def kills(case: str, number: int, folder: Path) -> Figures:
    """So many kills, each with calls in flight there and to all others, and in a step."""
    n = int(case.split()[0])
    return trio.run(_kills, n, 2.0 if "2 s apart" in case else 0.0, calls_of(case)[0])


async def _kills(n: int, seconds_apart: float, calls: str) -> Figures:
    chosen = random.Random(n)
    figures = {"seen in seconds": 0.0, "back in seconds": 0.0}
    policy = RestartPolicy("permanent", restarts=10, seconds=10.0)
    async with MultiEnvironment(ANY_PORT, Environment, restart=policy, calls=calls) as menv:
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
    # Where calls go at once, those to a slave that is not back yet fail.
    asked = [agent.addr for agent in held] if menv.calls == "rounds" else []
    failed_at: dict[str, float] = {}

    async def hold() -> None:
        with pytest.raises(SlaveLost) as caught:
            await held[victim].hold()
        failed_at["call"] = time.monotonic()
        assert (caught.value.pid, caught.value.signal) == (pid, signal.SIGKILL)
        assert caught.value.may_have_run

    async def step() -> None:
        with pytest.raises(SlaveLost) as caught:
            await menv.trigger_all(kill, [], lost=held[victim].addr)
        failed_at["step"] = time.monotonic()
        assert caught.value.pid == pid

    async def ask(agent: Any) -> None:
        number = 0
        while not failed_at or number < 10:
            assert await agent.evaluate((kill, number)) == (kill, number)
            number += 1

    with trio.fail_after(BACK_SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hold)
            nursery.start_soon(step)
            for agent in siblings:
                nursery.start_soon(ask, agent)
            await held[victim].evaluate(0)  # so that the call before is there too
            killed_at = time.monotonic()
            os.kill(pid, signal.SIGKILL)
        seen = max(failed_at.values()) - killed_at
        assert seen <= SEEN_SECONDS, failed_at
        assert await menv.trigger_all(kill, asked) == [[kill] * len(asked)] * (SLAVES * AGENTS)
        assert await _pid(held[victim]) != pid
    return seen, time.monotonic() - killed_at


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

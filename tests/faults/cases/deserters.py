"""The row about agents that end their environment and not their process, or that fork."""

from __future__ import annotations

import os
import socket
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trio

from creamas_sc import Environment, MultiEnvironment, expose
from creamas_sc.errors import SlaveLost
from creamas_sc.mp import EnvManager
from tests.faults.programs import POLL_SECONDS
from tests.faults.registry import Figures, row
from tests.support.agents import Counter, Deserter, Twins
from tests.support.processes import family, open_pidfds, wait_gone
from tests.support.shared_supervisor import own_children

LOST_SECONDS = 3.0
LEFT_SECONDS = 2.0
BOUND_SECONDS = 20.0
ANY_PORT = ("localhost", 0)
STEPS = 3


class Disconnecter(Counter):
    """Closes all sockets of its process in its act, or shuts them down."""

    def __init__(self, environment: Environment, how: str) -> None:
        super().__init__(environment)
        self.how = how

    @expose
    async def act(self, *args: Any) -> int:
        for fd in map(int, os.listdir("/proc/self/fd")):
            with suppress(OSError):  # the listing's own, or what cannot be shut down
                if not stat.S_ISSOCK(os.fstat(fd).st_mode):
                    continue
                if self.how == "closes its sockets":
                    os.close(fd)
                else:
                    with socket.socket(fileno=os.dup(fd)) as sock:
                        sock.shutdown(socket.SHUT_RDWR)
        return await super().act()


class Doubles(Counter):
    """Forks in its act; both go on, and nobody waits for the child."""

    @expose
    async def act(self, *args: Any) -> int:
        os.fork()
        return await super().act()


# What is closed or cancelled, or that the process executes another program.
DESERTIONS = tuple(f"ends by: {how}" for how in ("close", "task", "loop", "all", "exec"))
DISCONNECTIONS = ("closes its sockets", "shuts its sockets down")
FORKS = {"forks and does not wait": Doubles, "forks and waits for the child": Twins}


@row(
    16,
    "an agent ends its environment, execs, closes its sockets, or forks a child that returns",
    f"SlaveLost names it <= {LOST_SECONDS:g} s, siblings go on; forks count once, 0 left",
    cases=(*DISCONNECTIONS, *FORKS, *DESERTIONS),
    rounds=90,
    short=2,
)
def desertion(case: str, number: int, folder: Path) -> Figures:
    """One such agent among others, in the first or the second of two slaves."""
    return trio.run(_bounded, case, number % 2)


async def _bounded(case: str, which: int) -> Figures:
    with trio.fail_after(BOUND_SECONDS):
        async with MultiEnvironment(ANY_PORT, Environment) as menv:
            await menv.spawn_slaves([ANY_PORT] * 2, Environment, EnvManager)
            for addr in menv.addrs:
                await menv.spawn(Counter, addr=addr)
            return await (_fork if case in FORKS else _desert)(menv, case, which)


async def _desert(menv: MultiEnvironment, case: str, which: int) -> Figures:
    addr, pid = menv.addrs[which], menv._slaves.members[which].pid
    kind = Deserter if case in DESERTIONS else Disconnecter
    await menv.spawn(kind, case.split()[-1] if case in DESERTIONS else case, addr=addr)
    left, began = open_pidfds([pid]), trio.current_time()
    with trio.fail_after(LOST_SECONDS), pytest.raises(SlaveLost) as caught:
        await menv.trigger_all()
    seconds = trio.current_time() - began
    assert (caught.value.address, caught.value.pid) == (addr, pid)
    assert wait_gone(left, 0) == []
    assert await menv.trigger_all() == [2]
    assert (await menv.close(as_coro=True))[1 - which].ended_by == "request"
    return {"seconds": seconds}


async def _fork(menv: MultiEnvironment, case: str, which: int) -> Figures:
    for _ in range(2):
        await menv.spawn(FORKS[case], addr=menv.addrs[which])
    for step in range(1, STEPS + 1):
        done = await menv.trigger_all()
        assert [each if type(each) is int else each[0] for each in done] == [step] * 4
    assert len(menv.artifacts) == 4 * STEPS
    (keeper,), slaves = own_children(), {each.pid for each in menv._slaves.members}
    expected = {(name, pid) for name, pid in family(keeper).items() if pid not in slaves}
    assert (await menv.stop_slaves()).graceful
    began = trio.current_time()
    while other := set(family(keeper).items()) ^ expected:  # zombies are reaped a moment later
        assert trio.current_time() - began < LEFT_SECONDS, other
        await trio.sleep(POLL_SECONDS)
    return {"0 left after seconds": trio.current_time() - began}

"""The row about slaves that agents end: calls to the agents that were in them."""

from __future__ import annotations

import os
import signal
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import trio

from creamas_sc import CreativeAgent, Environment, MultiEnvironment, expose
from creamas_sc.errors import AgentError, SlaveLost
from creamas_sc.mp import EnvManager
from tests.faults.registry import Figures, row
from tests.support.agents import Counter, Deserter, Echo

LOST_SECONDS = 3.0
AT_ONCE_SECONDS = 1.0
BOUND_SECONDS = 20.0
ANY_PORT = ("localhost", 0)


class Ender(CreativeAgent):
    """Ends its process, or makes it useless, in one of several ways."""

    def __init__(self, environment: Environment, how: str) -> None:
        super().__init__(environment)
        self.how = how

    @expose
    async def act(self, *args: Any, **kwargs: Any) -> None:
        if self.how == "group killed":
            os.killpg(0, signal.SIGKILL)
        elif self.how == "descriptors closed":
            os.closerange(0, os.sysconf("SC_OPEN_MAX"))
        elif self.how == "exit":
            os._exit(3)
        else:
            os.kill(os.getpid(), getattr(signal, self.how))
        await trio.sleep_forever()


# As in the row about desertions, and what ends the process itself.
DESERTIONS = ("close", "task", "loop", "all", "exec")
ENDS = ("descriptors closed", "group killed", "exit", "SIGKILL", "SIGSEGV", "SIGABRT", *DESERTIONS)
LEARNED = ("in a step", "in a call")


@row(
    19,
    "an agent ends its slave; its neighbours are called once the loss was raised",
    f"SlaveLost that names it <= {AT_ONCE_SECONDS:g} s from each way to call; the others go on",
    cases=tuple(f"{how}, learned {when}" for how, when in product(ENDS, LEARNED)),
    rounds=10 * len(ENDS) * len(LEARNED),
    short=2,
)
def gone(case: str, number: int, folder: Path) -> Figures:
    """End the first or the second of two slaves so."""
    how, _, learned = case.partition(", learned ")
    return trio.run(_bounded, how, learned, number % 2)


async def _bounded(how: str, learned: str, which: int) -> Figures:
    with trio.fail_after(BOUND_SECONDS):
        async with MultiEnvironment(ANY_PORT, Environment) as menv:
            await menv.spawn_slaves([ANY_PORT] * 2, Environment, EnvManager)
            return await _end(menv, how, learned, which)


async def _end(menv: MultiEnvironment, how: str, learned: str, which: int) -> Figures:
    addr, pid = menv.addrs[which], menv._slaves.members[which].pid
    known, unknown = [await menv.spawn(Counter, addr=addr) for _ in range(2)]
    asker, _ = await menv.spawn(Echo, addr=menv.addrs[1 - which])
    assert await asker.ask(known[1], 0) == (0.0, None)
    ender, _ = await menv.spawn(Deserter if how in DESERTIONS else Ender, how, addr=addr)
    with trio.fail_after(LOST_SECONDS), pytest.raises(SlaveLost):
        await (menv.trigger_all if learned == "in a step" else ender.act)()
    calls: list[Callable[[], Awaitable[Any]]] = [
        known[0].act,
        partial(menv.trigger_act, known[1]),
        partial(menv.connect, unknown[1], timeout=None),
        partial(menv.gather, "act", addrs=[unknown[1]]),
        partial(menv.spawn, Counter, addr=addr),
        partial(asker.ask, known[1], 0),
        partial(asker.ask, unknown[1], 0),
    ]
    longest = 0.0
    for call in calls:
        began = trio.current_time()
        with pytest.raises((SlaveLost, AgentError)) as caught:
            await call()
        longest = max(longest, trio.current_time() - began)
        assert "SlaveLost" in repr(caught.value), call
        assert f"(pid {pid})" in str(caught.value), call
    assert await menv.trigger_all() == [((), {})]
    assert longest <= AT_ONCE_SECONDS
    return {"longest call, seconds": longest}

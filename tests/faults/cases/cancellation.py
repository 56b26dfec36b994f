"""Cancellation: at any step, nothing of what was running is left behind."""

from __future__ import annotations

import os
import random
import secrets
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import trio

from creamas_sc import Environment, MultiEnvironment
from creamas_sc.client import Client, Simulation, connect, connect_sync
from creamas_sc.errors import UnknownSimulation
from creamas_sc.mp import EnvManager
from tests.faults.agents import Asker
from tests.faults.cancel_points import CancelPoint, held
from tests.faults.daemon import Daemon, daemon
from tests.faults.programs import MARK, marked
from tests.faults.registry import Figures, calls_of, in_rounds_too, row
from tests.support.agents import Counter

BOUND_SECONDS = 30.0
# For a daemon to notice that its client is gone, and to end what that client was running.
LEFT_SECONDS = 2.0
# A phase takes about as long each time. If it ended before it could be cancelled, try again.
TRIES = 10
SLAVES = [("localhost", 0)] * 2
NAME = "cancelled"

PHASES = {
    "embedded": ("create", "grow", "spawn", "trigger", "close"),
    "attached": ("create", "attach", "spawn", "trigger", "events", "close"),
}
WHAT = ("call", "program")
# Steps and seconds that each case's phase took when it last ran to its end.
_taken: dict[str, tuple[int, float]] = {}


@row(
    7,
    "cancellation at seeded points of create, grow, attach, spawn, trigger, events, close",
    "0 leaked tasks, descriptors, processes; the next one works",
    cases=in_rounds_too(
        [
            f"{form} {phase}, the {what}"
            for form, phases in PHASES.items()
            for phase, what in product(phases, WHAT)
        ]
    ),
    rounds=1000,
    short=3,
)
def cancelled(case: str, number: int, folder: Path) -> Figures:
    """Cancel one program once, at a step or at a moment; the next one then runs to its end."""
    chosen = random.Random(number)
    calls, _ = calls_of(case)
    if case.startswith("embedded"):
        return trio.run(_cancel_then_run, case, chosen, _Embedded(calls))
    with daemon(NAME, folder) as running:
        with connect_sync(NAME) as client:  # what is opened once is not a leak
            client.create("first", slave_addrs=SLAVES)
            client.close("first")
        return trio.run(_cancel_then_run, case, chosen, _InDaemon(running, calls))


async def _cancel_then_run(case: str, chosen: random.Random, form: _Embedded) -> Figures:
    _, phase, _, what = calls_of(case)[1].replace(",", "").split()
    point = partial(CancelPoint, phase, what == "program")
    if case not in _taken:
        _taken[case] = (await _run(point(), form)).taken
    by_step = chosen.random() < 0.5
    for _ in range(TRIES):
        steps, seconds = _taken[case]
        if by_step:
            tried = await _run(point(step=chosen.randint(1, steps)), form)
        else:
            tried = await _run(point(moment=chosen.random() * seconds), form)
        _taken[case] = (await _run(point(), form)).taken
        if tried.done:
            break
    assert tried.done, f"it never took {steps} steps and {seconds} s again"
    return {
        f"total {'steps' if by_step else 'moments'} cancelled at": 1,
        f"steps of {' '.join(case.split(', ')[::2])}": steps,
    }


async def _run(point: CancelPoint, form: _Embedded) -> CancelPoint:
    with trio.fail_after(BOUND_SECONDS):
        before = held()
        await point.program(form.program)
        left = held() - before
        assert not left, f"left behind: {sorted(left)}"
        await form.check()
    return point


class _Embedded:
    """A simulation in this process."""

    def __init__(self, calls: str) -> None:
        self._calls = calls
        self._mark = secrets.token_hex(8)
        os.environ[MARK] = self._mark

    async def program(self, point: CancelPoint) -> None:
        """From its creation to its close."""
        async with MultiEnvironment(("localhost", 0), Environment, calls=self._calls) as menv:
            await point.phase("create", lambda: self._create(menv, 2))
            await point.phase("grow", lambda: self._create(menv, 4))  # beside others
            await point.phase("spawn", lambda: self._spawn(menv))
            await point.phase("trigger", lambda: self._trigger(menv))
            await point.phase("close", lambda: menv.close(as_coro=True))

    async def _create(self, menv: MultiEnvironment, slaves: int) -> None:
        left = [name for name in marked(self._mark).values() if name.startswith("slave")]
        assert len(left) == len(menv.addrs), left
        if len(left) < slaves:  # all come up, or none
            await menv.spawn_slaves(SLAVES, Environment, EnvManager)
        assert len(menv.addrs) == slaves

    async def _spawn(self, menv: MultiEnvironment) -> None:
        for addr in menv.addrs:
            await menv.spawn(Counter, addr=addr)
            await menv.spawn_n(Asker, 3, addr=addr)

    async def _trigger(self, menv: MultiEnvironment) -> None:
        askers = await menv.get_agents(agent_cls=Asker, as_coro=True)
        results = await menv.trigger_all(askers)
        agents = await menv.get_agents(as_coro=True)
        assert len(results) == len(agents)
        first = await menv.connect(askers[0])
        assert await first.ask(askers[-1], 1) == 1  # from slave to slave
        await menv.trigger_act(askers[0])

    async def check(self) -> None:
        """Nothing of it is left, at once."""
        left = marked(self._mark)
        assert not left, f"left behind: {left}"


class _InDaemon(_Embedded):
    """A simulation in a daemon, which lives on."""

    def __init__(self, running: Daemon, calls: str) -> None:
        self._calls = calls
        self._daemon = running
        self._held = running.settled()
        self._members = running.program.members()
        self._ours = False  # whether `create` has returned: then this simulation exists

    async def program(self, point: CancelPoint) -> None:
        """From its creation to its close, by a client."""
        async with connect(NAME) as client:
            await point.phase("create", lambda: self._create_there(client))
            await point.phase("attach", lambda: self._attach(client))
            async with client.attach("one") as simulation:
                await point.phase("spawn", lambda: self._spawn_there(simulation))
                await point.phase("trigger", lambda: self._trigger_there(simulation))
                await point.phase("events", lambda: self._follow(simulation))
            await point.phase("close", lambda: client.close("one"), lambda: _closed(client))

    async def _create_there(self, client: Client) -> None:
        if not self._ours:
            assert self._daemon.program.members() == self._members
            await client.create("one", slave_addrs=SLAVES, calls=self._calls)
            self._ours = True

    async def _attach(self, client: Client) -> None:
        async with client.attach("one") as simulation:
            assert len(await simulation.get_addrs()) == len(SLAVES)

    async def _spawn_there(self, simulation: Simulation) -> None:
        for addr in await simulation.get_addrs():
            await simulation.spawn("tests.support.agents:Counter", addr=addr)
            await simulation.spawn_n("tests.faults.agents:Asker", 3, addr=addr)

    async def _trigger_there(self, simulation: Simulation) -> None:
        askers = await simulation.get_agents(agent_cls="tests.faults.agents:Asker")
        results = await simulation.trigger_all(askers)
        agents = await simulation.get_agents()
        assert len(results) == len(agents)
        echo = await simulation.connect(agents[-1])
        assert await echo.evaluate(1) == 1
        assert await simulation.get_artifacts()

    async def _follow(self, simulation: Simulation) -> None:
        await simulation.wait_steps()  # of a call that was cancelled
        since, _ = await simulation.next_events()
        await simulation.start_steps(3)
        async for _, name, details in simulation.events(since):
            if name == "steps" and (details["state"], details["step"]) == ("idle", 3):
                return

    async def check(self) -> None:
        """Close the simulation if there is one; then the daemon must hold what it held before."""
        if self._ours:
            async with connect(NAME) as client:
                await _closed(client)
        self._ours = False
        self._daemon.expect(self._held, LEFT_SECONDS)


async def _settled(client: Client) -> dict[str, Any] | None:
    """The simulation, once it is neither starting nor closing; None if there is none."""
    with trio.fail_after(LEFT_SECONDS):
        while (there := await client.ls()) and there[0]["state"] != "running":
            await trio.lowlevel.checkpoint()
    return there[0] if there else None


async def _closed(client: Client) -> None:
    if await _settled(client) is not None:
        try:
            await client.close("one")
        except UnknownSimulation:  # a close that was cancelled went on
            return

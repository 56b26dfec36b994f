"""Ctrl-C ends well: what was asked of is saved, nothing is left, the exit code is the signal's."""

from __future__ import annotations

import signal
import time
from itertools import product
from pathlib import Path

import pytest
import trio
import trio.testing

from creamas_sc import Environment, MultiEnvironment
from creamas_sc.supervisor_client.connection import (
    OnExit,
    PrivateSupervisor,
    supervisor_factory,
)
from creamas_sc.supervisor_client.messages import ActorExit
from tests.support import processes
from tests.support.agents import Manager, SavingEnvironment, Sleeper
from tests.support.marks import slow_but
from tests.support.programs import running_script

HEAD = """
import asyncio, os, sys, time, trio
from creamas_sc import Environment, MultiEnvironment, run
from creamas_sc.mp import EnvManager
from tests.support import agents

class Saving(Environment):
    def save_info(self, folder):
        os.write(1, b"slave saved\\n")

class Master(MultiEnvironment):
    def save_info(self, folder):
        print("master saved", flush=True)

async def main():
    async with Master(("localhost", 0), Environment) as menv:
        await prepare(menv)
        print("ready", flush=True)
        await menv.trigger_all()

async def prepare(menv):
    await menv.spawn_slaves([("localhost", 0)] * 2, Saving, EnvManager)
    await menv.spawn(agents.Sleeper)
    if "busy" in sys.argv:
        await menv.spawn(agents.Busy, "c", addr=menv.addrs[1])

menv = Master(("localhost", 0), Environment)
"""
SYNC = HEAD + 'run(prepare(menv)); print("ready", flush=True)\n'
SCRIPTS = {
    "sync": SYNC + "run(menv.trigger_all())",
    # In naps: Python 3.14 itself may sleep through a signal that comes right before one.
    "idle": SYNC + "for _ in range(600): time.sleep(0.1)",
    "with": SYNC + "with menv:\n    run(menv.trigger_all())",
    "trio": HEAD + "trio.run(main)",
    "asyncio": HEAD + "asyncio.run(main())",
}


# What a shell calls 130, ended by SIGINT, and 143.
ENDS = {signal.SIGINT: (-signal.SIGINT, "Interrupted\n"), signal.SIGTERM: (143, "Terminated\n")}


GROUPS = ("process", "group")
# Each form of script, and each signal to both.
QUICK = {(form, [*ENDS][i % 2], GROUPS[i // 2 % 2]) for i, form in enumerate(SCRIPTS)}


@pytest.mark.parametrize(
    ("form", "number", "whom"), slow_but(QUICK, product(SCRIPTS, ENDS, GROUPS))
)
def test_a_signal_ends_a_script_well(
    form: str, number: signal.Signals, whom: str, tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPTS[form])
    with running_script(script) as under_way:
        under_way.read_until("ready")
        (keeper,) = processes.children(under_way.pid)
        left = processes.open_pidfds(processes.family(keeper).values())
        began = time.monotonic()
        under_way.signal(number, group=whom == "group")
        code, out, err = under_way.finish()
        assert time.monotonic() - began < 3
        assert processes.wait_gone(left, 0) == []
    assert sorted(out.split("\n")) == ["", "master saved", "slave saved", "slave saved"]
    assert (code, err) == ENDS[number]


@pytest.mark.slow
def test_ctrl_c_while_a_slave_is_busy(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPTS["sync"])
    with running_script(script, "busy") as under_way:
        under_way.read_until("busy")
        began = time.monotonic()
        under_way.signal(signal.SIGINT)
        code, out, _ = under_way.finish()
        assert time.monotonic() - began < 3
    assert code == -signal.SIGINT
    assert out.split("\n").count("slave saved") == 1


def test_the_end_of_a_script_closes_its_simulation(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SYNC + "sys.exit(3)")
    with running_script(script) as under_way:
        under_way.read_until("ready")
        code, out, err = under_way.finish()
    assert (code, err) == (3, "")
    assert sorted(out.split("\n")) == ["", "master saved", "slave saved", "slave saved"]


async def test_ctrl_c_ends_every_actor_by_request() -> None:
    """Within this process, so that the report can be seen."""
    menv = MultiEnvironment(("localhost", 0), Environment)

    async def step_until_ctrl_c() -> None:
        async with menv:
            await menv.spawn_slaves([("localhost", 0)] * 2, SavingEnvironment, Manager)
            await menv.spawn(Sleeper)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(menv.trigger_all)
                await trio.testing.wait_all_tasks_blocked(0.05)
                signal.raise_signal(signal.SIGINT)

    # Within a group, as the nursery of a user's own raises it.
    with trio.fail_after(30), pytest.RaisesGroup(KeyboardInterrupt):
        await step_until_ctrl_c()
    report = await menv.close(as_coro=True)
    assert [(slave.exit_code, slave.ended_by) for slave in report] == [(0, "request")] * 2


async def test_ctrl_c_does_not_hit_the_connection_to_the_supervisor() -> None:
    protected: list[bool] = []

    def supervisor(on_exit: OnExit) -> PrivateSupervisor:
        def note(event: ActorExit) -> None:
            protected.append(trio.lowlevel.currently_ki_protected())
            on_exit(event)

        return PrivateSupervisor(note)

    token = supervisor_factory.set(supervisor)
    try:
        async with MultiEnvironment(("localhost", 0), Environment) as menv:
            await menv.spawn_slaves([("localhost", 0)], Environment, Manager)
    finally:
        supervisor_factory.reset(token)
    assert protected == [True]


async def test_cancelling_a_step_reaches_the_agents(menv: MultiEnvironment) -> None:
    sleeper, _ = await menv.spawn(Sleeper)
    with trio.move_on_after(0.1) as scope:
        await menv.trigger_all()
    assert scope.cancelled_caught
    assert await sleeper.was_cancelled()

"""Deaths in a `MultiEnvironment`: what survivors and callers get to know, and that nothing is left.

Which question about killing is answered where:

- here: what a user of a `MultiEnvironment` sees when a slave or a process above it dies;
- `test_supervisor_orphans`: the supervisor's tree alone, without environments;
- `test_lifecycle`: starts and closes that overlap, fail or are cancelled, without killing;
- `tests/faults/cases/deaths` and `signals`: the same kills again and again, at random moments.
"""

from __future__ import annotations

import os
import signal
import time
from functools import partial
from itertools import product
from pathlib import Path

import pytest
import trio
import trio.testing

from creamas_sc import CreativeAgent, Environment, MultiEnvironment
from creamas_sc.errors import AgentError, ConnectionLost, NoSlaves, SlaveLost
from tests.support import processes
from tests.support.agents import Busy, Counter, CutsFrame, Deserter, Echo, Forker, Killer, Sleeper
from tests.support.marks import also_free, slow_but
from tests.support.programs import Program, running_script
from tests.support.shared_supervisor import own_children

LEFT_SECONDS = 2.0
REPORTED_SECONDS = 1.0
# Where the process has to be ended, by signals if need be.
LOST_SECONDS = 3.0

SCRIPT = """
import sys
from creamas_sc import Environment, MultiEnvironment, run
from creamas_sc.mp import EnvManager
from tests.support import agents

busy = sys.argv[1]
menv = MultiEnvironment(("localhost", 0), Environment)
run(menv.spawn_slaves([("localhost", 0)] * 3, Environment, EnvManager))
forked = [run(menv.trigger_act(run(menv.spawn(agents.Forker))[1])) for _ in range(3)]
run(menv.spawn(agents.Sleeper, addr=menv.addrs[0]))
if busy != "rest":
    run(menv.spawn(agents.Busy, busy, addr=menv.addrs[1]))
print("forked", *forked, flush=True)
if busy == "rest":
    sys.stdin.read()
run(menv.trigger_all())
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    return path


def victims(script: Program) -> dict[str, int]:
    """The processes under a script, by role; slaves are "0", "1", "2"."""
    (keeper,) = processes.children(script.pid)
    family = processes.family(keeper)
    named = {role: family.pop(role) for role in ("keeper", "zygote", "supervisor")}
    return {"script": script.pid, **named, **dict(zip("012", sorted(family.values()), strict=True))}


BUSY = ("rest", "sleep", "python", "c", "stopped")
VICTIMS = ("script", "keeper", "zygote", "supervisor")
# Each victim and each way to be busy at least once.
QUICK = {
    ("script", "rest"), ("script", "stopped"), ("keeper", "c"), ("zygote", "python"),
    ("supervisor", "sleep"),
}  # fmt: skip


@pytest.mark.parametrize(("victim", "busy"), slow_but(QUICK, product(VICTIMS, BUSY)))
def test_nothing_is_left(script: Path, victim: str, busy: str) -> None:
    with running_script(script, busy) as under_way:
        forked = [int(pid) for pid in under_way.read_until("forked").split()[1:]]
        if busy != "rest":
            under_way.read_until("busy")
        pids = victims(under_way)
        others = [pid for role, pid in pids.items() if role != "script"]
        left = processes.open_pidfds([*others, *forked])
        os.kill(pids[victim], signal.SIGKILL)
        assert processes.wait_gone(left, LEFT_SECONDS) == []


@pytest.mark.parametrize("how", ["SIGKILL", "SIGSEGV", "exit"])
@also_free
async def test_a_slave_that_dies_in_a_step(menv: MultiEnvironment, how: str) -> None:
    await menv.spawn(Killer, how)
    await menv.spawn(Sleeper)
    began = time.monotonic()
    with pytest.raises(SlaveLost) as caught:
        await menv.trigger_all()
    assert time.monotonic() - began < REPORTED_SECONDS
    lost = caught.value
    assert (lost.exit_code, lost.signal) == ((3, None) if how == "exit" else (
        None, getattr(signal, how)))  # fmt: skip
    assert lost.pid
    assert lost.may_have_run
    assert how in str(lost) or "status 3" in str(lost)
    assert ("run out of memory?" in str(lost)) == (how == "SIGKILL")
    # It is reported once; the others go on.
    survivor = menv.addrs[0]
    await menv.spawn(Counter, addr=survivor)
    with pytest.raises(SlaveLost):
        await menv.spawn(Echo, addr=lost.address)
    report = await menv.close(as_coro=True)
    assert [slave.ended_by for slave in report] == ["gone", "request"]


@also_free
async def test_a_slave_that_dies_between_steps_is_reported_at_the_next(
    menv: MultiEnvironment,
) -> None:
    for addr in menv.addrs:
        await menv.spawn(Counter, addr=addr)
    dead = menv.addrs[1]
    (killed,) = [slave for slave in menv._slaves.members if slave.address == dead]
    os.kill(killed.pid, signal.SIGKILL)
    with trio.fail_after(REPORTED_SECONDS):
        await killed.gone.wait()
    with pytest.raises(SlaveLost, match="was killed by SIGKILL") as caught:
        await menv.trigger_all()
    assert (caught.value.address, caught.value.signal) == (dead, signal.SIGKILL)
    assert len(await menv.trigger_all()) == 1


# In rounds, "task" ends no more than a connection.
@pytest.mark.parametrize(
    ("how", "calls"),
    [("task", "free"), *((how, "rounds") for how in ("loop", "all", "close", "exec"))],
)
async def test_a_slave_whose_environment_has_ended_is_lost(
    menv: MultiEnvironment, how: str, calls: str
) -> None:
    _, neighbour = await menv.spawn(Counter, addr=menv.addrs[0])
    await menv.spawn(Counter, addr=menv.addrs[1])
    await menv.spawn(Deserter, how, addr=menv.addrs[0])
    left = processes.open_pidfds([menv._slaves.members[0].pid])
    with trio.fail_after(LOST_SECONDS), pytest.raises(SlaveLost) as caught:
        await menv.trigger_all()
    assert f"(pid {caught.value.pid})" in str(caught.value)
    assert processes.wait_gone(left, 0) == []
    assert await menv.trigger_all() == [2]
    # Nothing is waited for that does not come.
    with trio.fail_after(REPORTED_SECONDS):
        for call in (menv.trigger_act, partial(menv.connect, timeout=None)):
            with pytest.raises(SlaveLost):
                await call(neighbour)
        assert await menv.trigger_all() == [3]


@also_free
async def test_once_all_slaves_are_lost_steps_say_that(menv: MultiEnvironment) -> None:
    for addr in menv.addrs:
        await menv.spawn(Killer, "SIGKILL", addr=addr)
    while menv.addrs:
        with pytest.raises(SlaveLost):
            await menv.trigger_all()
    lost = r"trigger_all: all slaves are lost; the slave .* \(pid \d+\) was killed by SIGKILL"
    with pytest.raises(NoSlaves, match=lost):
        await menv.trigger_all()


async def test_an_address_where_nothing_listens_holds_no_step_back(
    menv: MultiEnvironment,
) -> None:
    await menv.spawn(Counter)
    errors: list[ConnectionLost] = []

    async def act() -> None:
        with pytest.raises(ConnectionLost) as caught:
            await menv.trigger_act("tcp://localhost:1/1")
        errors.append(caught.value)

    with trio.fail_after(REPORTED_SECONDS):
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(act)
            await trio.testing.wait_all_tasks_blocked()
            assert await menv.trigger_all() == [1]
    assert len(errors) == 4


@pytest.mark.parametrize("busy", ["python", "c", "stopped"])
@also_free
async def test_a_slave_that_is_killed_while_it_cannot_answer(
    menv: MultiEnvironment, busy: str
) -> None:
    first, second = [await menv.connect(addr) for addr in menv.addrs]
    pid = await first.pid()
    await menv.spawn(Busy, busy, addr=menv.addrs[0])
    errors: list[SlaveLost] = []

    async def step() -> None:
        try:
            await menv.trigger_all()
        except SlaveLost as error:
            errors.append(error)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(step)
        assert await second.pid() != pid
        with trio.fail_after(REPORTED_SECONDS):
            os.kill(pid, signal.SIGKILL)
            while not errors:
                await trio.lowlevel.checkpoint()
    assert errors[0].signal == signal.SIGKILL
    assert await second.pid()


async def test_calls_to_a_dead_slave_fail_and_name_it(menv: MultiEnvironment) -> None:
    one, _ = await menv.spawn(Echo)
    two, two_addr = await menv.spawn(Echo)
    killed = menv._slaves.members[1]
    assert await one.ask(two_addr, 5) == 5
    os.kill(await two.pid(), signal.SIGKILL)

    async def ask_until_told() -> None:
        while True:
            await one.ask(two_addr, 5)

    with trio.fail_after(REPORTED_SECONDS):
        with pytest.raises(AgentError, match=r"SlaveLost in .*: the slave .* is gone"):
            await ask_until_told()
        neighbour = two_addr[:-1] + "7"
        with pytest.raises(AgentError, match=r"SlaveLost in .*: the slave .* is gone"):
            await one.reach(neighbour, None)
        await killed.gone.wait()  # or its end would be one of the close
    assert await one.evaluate(1) == 1


@also_free
async def test_a_slave_killed_in_the_middle_of_a_frame_harms_no_other(
    menv: MultiEnvironment,
) -> None:
    await menv.spawn(CutsFrame)
    with pytest.raises(SlaveLost):
        await menv.trigger_all()
    counter, _ = await menv.spawn(Counter)
    assert await counter.act() == 1
    assert await menv.trigger_all() == [2]


async def test_detached_children_of_a_dead_slave_are_killed(menv: MultiEnvironment) -> None:
    forker, _ = await menv.spawn(Forker)
    left = processes.open_pidfds([await forker.act() for _ in range(3)])
    await menv.spawn(Killer, addr=menv.addrs[0])
    with pytest.raises(SlaveLost):
        await menv.trigger_all()
    assert processes.wait_gone(left, LEFT_SECONDS) == []


@pytest.mark.slow
@pytest.mark.parametrize("busy", ["python", "c", "stopped"])
@also_free
async def test_a_slave_that_does_not_answer_is_killed_at_close(
    menv: MultiEnvironment, busy: str
) -> None:
    manager = await menv.connect(menv.addrs[0])
    await menv.spawn(Busy, busy, addr=menv.addrs[0])
    with trio.move_on_after(0.1):
        await menv.trigger_all()
    assert manager
    began = time.monotonic()
    report = await menv.close(as_coro=True)
    assert time.monotonic() - began < 2.5
    assert [slave.graceful for slave in report] == [False, True]
    assert report[0].signal in (signal.SIGTERM, signal.SIGKILL)


async def test_the_death_of_a_supervisor_ends_its_tree_and_is_reported(
    own_menv: MultiEnvironment,
) -> None:
    menv = own_menv
    await menv.spawn(Sleeper)
    (keeper,) = own_children()
    pids = processes.family(keeper)
    left = processes.open_pidfds(pids.values())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_kill_soon, pids["supervisor"])
        with pytest.raises(SlaveLost):
            await menv.trigger_all()
    report = await menv.close(as_coro=True)
    assert [slave.ended_by for slave in report] == ["lost", "lost"]
    assert processes.wait_gone(left, LEFT_SECONDS) == []


async def _kill_soon(pid: int) -> None:
    await trio.testing.wait_all_tasks_blocked(0.05)
    os.kill(pid, signal.SIGKILL)


async def test_a_slave_of_another_simulation_is_refused(menv: MultiEnvironment) -> None:
    async with MultiEnvironment(("localhost", 0), Environment) as other:
        with pytest.raises(Exception, match="simulation"):
            await other.connect(menv.addrs[0])
    agent = CreativeAgent(menv.env)
    assert agent.addr.startswith(menv.env.base_url)

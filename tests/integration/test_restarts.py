"""Slaves that are killed and started again, with what they held; and when that ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from creamas_sc import Environment, MultiEnvironment
from creamas_sc.errors import DeadlineExceeded, NoSlaves, SlaveLost, StartError
from creamas_sc.mp import Restart, RestartPolicy
from creamas_sc.restarts import driver, slave
from creamas_sc.rpc.addresses import split_address
from creamas_sc.util import run
from tests.support import agents, processes, programs
from tests.support.marks import also_free
from tests.support.shared_supervisor import own_children, uses_shared_supervisor

pytestmark = pytest.mark.usefixtures("shared_supervisor")

BOUND_SECONDS = 20
REPORTED_SECONDS = 1.0
LADDER_SECONDS = 2.5
ANY_PORT = ("localhost", 0)


@asynccontextmanager
async def society(
    restart: str | RestartPolicy,
    env_cls: type[Environment] = Environment,
    slaves: int = 2,
    seed: int | None = None,
    shared: bool = True,
    place: tuple[str, int] = ANY_PORT,
    calls: str = "rounds",
    **kwargs: Any,
) -> AsyncIterator[MultiEnvironment]:
    """A multi-environment with slaves and that policy; the block is bounded.

    Args:
        shared: Its slaves are in the tree that tests share, else in a separate one.
        place: Of the master and of each slave.
        kwargs: For each slave's environment.
    """
    with trio.fail_after(BOUND_SECONDS):
        with uses_shared_supervisor() if shared else nullcontext():
            m = MultiEnvironment(
                place, Environment, agents.Host, seed=seed, restart=restart, calls=calls
            )
        async with m:
            await m.spawn_slaves([place] * slaves, env_cls, agents.Manager, [kwargs] * slaves)
            yield m


async def lose(menv: MultiEnvironment, addr: str, number: int = signal.SIGKILL) -> int:
    """Kill the slave of that manager; its pid. Returns when its end is known here."""
    slave = menv._slaves.at(addr)
    gone, pid = slave.gone, slave.pid
    os.kill(pid, number)
    with trio.fail_after(REPORTED_SECONDS):
        await gone.wait()
    return pid


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
async def test_a_restarted_slave_has_its_agents_and_connections_again(number: int) -> None:
    async with society("permanent") as menv:
        await menv.set_host_managers()
        addrs, first = menv.addrs, menv.addrs[0]
        held = [await menv.spawn(agents.Counter, 10, addr=first)]
        held += await menv.spawn_n(agents.Counter, 2, start=20, addr=first)
        (other, other_addr) = await menv.spawn(agents.Counter, addr=addrs[1])
        wanted = {held[0][1]: [(other_addr, {"w": 1}), (held[1][1], {})], other_addr: []}
        await menv.create_connections(wanted, as_coro=True)
        assert await menv.trigger_all() == [11, 21, 21, 1]
        agents_before = await menv.get_agents(as_coro=True)
        pid = await lose(menv, first, number)
        # A call that begins now waits until all is back.
        assert await menv.trigger_all() == [11, 21, 21, 2]
        assert (menv.addrs, await menv.get_agents(as_coro=True)) == (addrs, agents_before)
        assert dict(await menv.get_connections(as_coro=True))[held[0][1]] == {
            other_addr: {"w": 1}, held[1][1]: {},
        }  # fmt: skip
        manager = await menv.connect(first)
        assert await manager.host_manager() == menv.manager.addr
        (restart,) = menv.restarts
        assert restart == Restart(
            address=first, old_pid=pid, pid=await manager.pid(), cause=restart.cause,
            exit_code=None, signal=number, number=1, incarnation=1, seconds=restart.seconds,
            agents=3, connections=2, host_manager=True, checkpoint=False, failures=(),
        )  # fmt: skip
        assert f"(pid {pid}) was killed by {signal.Signals(number).name}" in restart.cause
        assert 0 < restart.seconds < REPORTED_SECONDS
        # And what was there before reaches what is there now.
        assert await held[0][0].act() == 12
        assert await other.act() == 3
    assert [slave.ended_by for slave in menv._closer.report or ()] == ["request", "request"]


@pytest.mark.parametrize(
    ("mode", "how", "restarted"),
    [
        ("transient", "0", False),
        ("transient", "3", True),
        ("transient", "SIGKILL", True),
        ("permanent", "0", True),
        ("permanent", "3", True),
        ("temporary", "3", False),
    ],
)
async def test_the_policy_decides_which_ends_lead_to_a_restart(
    mode: str, how: str, restarted: bool
) -> None:
    async with society(mode) as menv:
        first, second = menv.addrs
        await menv.spawn(agents.Moody, how=how, addr=first)
        counter, _ = await menv.spawn(agents.Counter, addr=second)
        # The call in flight fails in any case.
        with pytest.raises(SlaveLost) as caught, trio.fail_after(REPORTED_SECONDS):
            await menv.trigger_all()
        assert caught.value.address == first
        assert await counter.act() > 0
        assert len(await menv.get_agents(as_coro=True)) == (2 if restarted else 1)
        assert menv.addrs == ([first, second] if restarted else [second])
        assert len(menv.restarts) == int(restarted)
        if restarted:
            (restart,) = menv.restarts
            number = getattr(signal, how) if how.startswith("SIG") else None
            assert (restart.signal, restart.exit_code) == (number, None if number else int(how))


@pytest.mark.parametrize("how", ["loop", "all", "exec"])
async def test_a_slave_whose_environment_has_ended_is_restarted(how: str) -> None:
    async with society("transient") as menv:
        first, second = menv.addrs
        counter, _ = await menv.spawn(agents.Counter, addr=first)
        deserter = await menv.spawn(agents.Deserter, how, addr=second)
        with pytest.raises(SlaveLost):
            await menv.trigger_act(deserter[1])
        assert await menv.get_agents(as_coro=True) == [counter.addr, deserter[1]]
        (restart,) = menv.restarts
        assert "environment" in restart.cause


async def test_a_restarted_slave_has_new_and_repeatable_random_numbers() -> None:
    async def drawn() -> list[list[float]]:
        async with society("permanent", seed=7) as menv:
            echo, _ = await menv.spawn(agents.Echo, addr=menv.addrs[0])
            sibling, _ = await menv.spawn(agents.Echo, addr=menv.addrs[1])
            found = [await echo.draw(2), await sibling.draw(2)]
            for _ in range(2):
                await lose(menv, menv.addrs[0])
                found.append(await echo.draw(2))
            return [*found, await sibling.draw(2)]

    first = await drawn()
    assert len({tuple(numbers) for numbers in first}) == 5
    assert await drawn() == first


# ---- ports on the network, which others could take

# Binds a port as another user as soon as it is free; ends, and says so, once it has it.
INTRUDER = """
import os, socket, sys
os.setuid(65534)
os.write(1, b"ready\\n")
while True:
    for host in ("0.0.0.0", "127.0.0.1"):
        for options in ((), (socket.SO_REUSEADDR,), (socket.SO_REUSEPORT,)):
            sock = socket.socket()
            for option in options:
                sock.setsockopt(socket.SOL_SOCKET, option, 1)
            try:
                sock.bind((host, int(sys.argv[1])))
                sock.listen()
            except OSError:
                sock.close()
            else:
                os.write(1, b"has the port\\n")
                sys.stdin.read()
                raise SystemExit
"""


@asynccontextmanager
async def intruder(port: int) -> AsyncIterator[trio.abc.ReceiveStream]:
    async with trio.open_nursery() as nursery:
        command = [sys.executable, "-c", INTRUDER, str(port)]
        start = partial(trio.run_process, command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        process = await nursery.start(partial(start, check=False))
        assert await process.stdout.receive_some() == b"ready\n"
        yield process.stdout
        nursery.cancel_scope.cancel()


@pytest.mark.skipif(os.getuid() != 0, reason="takes on another user id")
async def test_another_user_cannot_take_the_port_of_a_slave_that_died() -> None:
    async with society("permanent", slaves=1, place=("0.0.0.0", 0)) as menv:
        await menv.spawn(agents.Counter)
        (addr,) = menv.addrs
        async with intruder(split_address(addr)[1]) as other:
            for number in (1, 2, 3):
                await lose(menv, addr)
                assert await menv.trigger_all() == [1]
                assert len(menv.restarts) == number
            await menv.close(as_coro=True)
            assert await other.receive_some() == b"has the port\n"  # now it is free


@pytest.mark.parametrize("mode", ["temporary", "transient"])
async def test_the_port_of_a_slave_that_does_not_come_back_is_free(mode: str) -> None:
    async with society(mode, slaves=2, place=("0.0.0.0", 0)) as menv:
        first = menv.addrs[0]
        moody, _ = await menv.spawn(agents.Moody, how="0", addr=first)
        with pytest.raises(SlaveLost):
            await moody.act()
        place = ("0.0.0.0", split_address(first)[1])
        await menv.spawn_slaves([place], Environment, agents.Manager)
        assert menv.addrs[-1] == first


async def test_a_taken_port_still_fails_a_start_at_once() -> None:
    async with society("permanent", slaves=1, place=("0.0.0.0", 0)) as menv:
        place = ("0.0.0.0", split_address(menv.addrs[0])[1])
        with pytest.raises(StartError, match=f"cannot listen on 0.0.0.0:{place[1]}: the port is"):
            await menv.spawn_slaves([place], Environment, agents.Manager)
        assert len(menv.addrs) == 1


# ---- checkpoints


@also_free
async def test_a_checkpoint_is_taken_after_each_step_and_given_back(calls: str) -> None:
    async with society("permanent", agents.Keeper, calls=calls) as menv:
        for addr in menv.addrs:
            await menv.spawn_n(agents.Counter, 2, addr=addr)
        for n in (1, 2, 3):
            assert await menv.trigger_all() == [n] * 4
        await lose(menv, menv.addrs[0])
        assert await menv.trigger_all() == [4] * 4
        await lose(menv, menv.addrs[1])
        assert await menv.trigger_all() == [5] * 4
        assert [restart.checkpoint for restart in menv.restarts] == [True, True]


@pytest.mark.parametrize(
    ("breaks", "text"),
    [
        ("checkpoint", "its checkpoint: its last one failed: ValueError in .*cannot be kept"),
        ("restore", "its checkpoint: ValueError in .*: cannot be restored"),
    ],
)
async def test_a_failed_checkpoint_is_reported(
    breaks: str, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with society("permanent", agents.Keeper, slaves=1, breaks=breaks) as menv:
        await menv.spawn(agents.Counter)
        assert await menv.trigger_all() == [1]
        await lose(menv, menv.addrs[0])
        assert await menv.trigger_all() == [1]  # a new one
        (restart,) = menv.restarts
        assert (restart.agents, restart.checkpoint) == (1, False)
        assert len(restart.failures) == 1
        assert re.search(text, restart.failures[0])
        assert "NOT restored" in caplog.text


# ---- what is restored in part, or not at once


async def test_what_could_not_be_restored_is_reported(tmp_path: Path) -> None:
    mood = tmp_path / "mood"
    async with society("permanent", slaves=1) as menv:
        moody = await menv.spawn(agents.Moody, str(mood))
        _, addr = await menv.spawn(agents.Echo)
        await menv.create_connections(
            {moody[1]: [(addr, {}), ("tcp://x:1/1", {})], addr: [(moody[1], {})]}, as_coro=True
        )
        mood.write_text("raise")
        await lose(menv, menv.addrs[0])
        assert await menv.get_agents(as_coro=True) == [moody[1]]  # the other's place
        (restart,) = menv.restarts
        assert (restart.agents, restart.connections) == (1, 2)
        first, second, third = restart.failures
        assert re.match(rf"agents {moody[1]}: ValueError in .*: not in the mood", first)
        assert second == f"the addresses of 1 agents, {addr} the first of them"
        assert third == "1 connections, whose agents are not there"


async def test_a_restart_uses_the_arguments_as_they_were_passed() -> None:
    async with society("permanent", slaves=1) as menv:
        data = {"w": [1]}
        _, addr = await menv.spawn(agents.Counter)
        await menv.create_connections({addr: [(addr, data)]}, as_coro=True)
        data["w"].append(2)
        await lose(menv, menv.addrs[0])
        assert await menv.get_connections(as_coro=True) == [(addr, {addr: {"w": [1]}})]


@pytest.mark.parametrize("seconds", [60.0, 0.001])  # the second restart after a pause, or at once
async def test_killed_again_while_it_is_restored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    monkeypatch.setattr(slave, "EXIT_REPORT_SECONDS", 0.1)
    mood = tmp_path / "mood"
    async with society(RestartPolicy("permanent", seconds=seconds)) as menv:
        await menv.spawn(agents.Echo)
        _, addr = await menv.spawn(agents.Moody, str(mood))
        mood.write_text("once")
        await lose(menv, f"{addr.rpartition('/')[0]}/0")
        assert addr in await menv.get_agents(as_coro=True)
        (restart,) = menv.restarts
        assert (restart.incarnation, restart.failures) == (2, ())
        assert restart.number == (2 if seconds > 1 else 1)
        # The first of the two, which came to nothing, does the second no harm.
        with trio.move_on_after(0.3):
            await menv._slaves.at(restart.address).sleep(1)
        assert len(menv.restarts) == 1


async def test_a_start_that_fails_is_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mood = tmp_path / "mood"
    async with society("permanent", agents.MoodyEnvironment, slaves=1, mood=str(mood)) as menv:
        mood.touch()
        await lose(menv, menv.addrs[0])
        while "was not started again" not in caplog.text:
            await trio.lowlevel.checkpoint()
        mood.unlink()
        assert await menv.get_agents(as_coro=True) == []
        (restart,) = menv.restarts
        assert restart.number in (2, 3)


async def test_a_slave_that_cannot_be_started_again_ends_the_simulation(tmp_path: Path) -> None:
    mood = tmp_path / "mood"
    policy = RestartPolicy("permanent", restarts=2)
    async with society(policy, agents.MoodyEnvironment, slaves=2, mood=str(mood)) as menv:
        mood.touch()
        pid = await lose(menv, menv.addrs[0])
        with pytest.raises(SlaveLost) as caught:
            await menv.get_agents(as_coro=True)
        assert caught.value.pid == pid
        text = str(caught.value)
        assert re.search(rf"pid {pid}\) was killed by SIGKILL, and was not started again: ", text)
        assert "not in the mood" in text
        assert text.endswith("; after 2 restarts in 60 s restart='permanent' ends the simulation")
        await menv._closer.closed.wait()
        assert menv.restarts == []
        assert [slave.ended_by for slave in await menv.close(as_coro=True)] == ["gone", "request"]


# ---- the end


async def test_the_simulation_ends_after_the_allowed_number_of_restarts() -> None:
    async with society(RestartPolicy("permanent", restarts=3, seconds=30)) as menv:
        await menv.spawn(agents.Moody, addr=menv.addrs[0])
        for _ in range(4):
            assert len(await menv.get_agents(as_coro=True)) == 1
            with pytest.raises(SlaveLost):
                await menv.trigger_all()
        cause = "SIGKILL; after 3 restarts in 30 s restart='permanent' ends the simulation"
        with pytest.raises(SlaveLost, match=cause):
            await menv.get_agents(as_coro=True)
        await menv._closer.closed.wait()
        assert [restart.number for restart in menv.restarts] == [1, 2, 3]
        with pytest.raises(SlaveLost, match=cause):
            await menv.spawn_slaves([ANY_PORT], Environment, agents.Manager)


async def test_restart_all_ends_the_simulation_with_its_first_lost_slave() -> None:
    async with society("all") as menv:
        await menv.spawn(agents.Sleeper, addr=menv.addrs[1])
        errors: list[SlaveLost] = []

        async def step() -> None:
            with pytest.raises(SlaveLost) as caught:
                await menv.trigger_all()
            errors.append(caught.value)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(step)
            await trio.testing.wait_all_tasks_blocked(0.05)
            first = menv.addrs[0]
            pid = await lose(menv, first)
        await menv._closer.closed.wait()
        with pytest.raises(
            SlaveLost, match="with restart='all' that ends the simulation"
        ) as caught:
            await menv.trigger_all()
        assert (caught.value.pid, errors[0].address) == (pid, first)
        assert menv.restarts == []


@pytest.mark.parametrize("seconds", [0.0, 0.005, 0.01, 0.02, 0.03, 0.05])
@pytest.mark.parametrize("stop", ["close", "stop_slaves"])
async def test_a_close_in_the_middle_of_a_restart(stop: str, seconds: float) -> None:
    async with society("permanent") as menv:
        await menv.spawn_n(agents.Counter, 5, addr=menv.addrs[0])
        for addr in menv.addrs:
            await lose(menv, addr)
        await trio.sleep(seconds)  # the moment of the fault
        with trio.fail_after(REPORTED_SECONDS):
            report = await (
                menv.stop_slaves() if stop == "stop_slaves" else menv.close(as_coro=True)
            )
        assert len(report) == 2
        assert {slave.ended_by for slave in report} <= {"gone", "request"}
        before = len(menv.restarts)
        if stop == "stop_slaves":
            with pytest.raises(NoSlaves):
                await menv.get_agents(as_coro=True)
            await menv.spawn_slaves([ANY_PORT], Environment, agents.Manager)
            await menv.spawn(agents.Counter)
            await lose(menv, menv.addrs[0])
            assert await menv.trigger_all() == [1]
            assert len(menv.restarts) == before + 1


async def test_a_supervisor_that_dies_ends_restarts() -> None:
    async with society("permanent", shared=False) as menv:
        (keeper,) = own_children()
        os.kill(processes.family(keeper)["supervisor"], signal.SIGKILL)
        with pytest.raises(SlaveLost):
            await ask_until_told(menv)
        assert menv.restarts == []


async def ask_until_told(menv: MultiEnvironment) -> None:
    while True:
        await menv.get_agents(as_coro=True)


async def test_a_close_while_a_restart_hangs(tmp_path: Path) -> None:
    mood = tmp_path / "mood"
    async with society("permanent", agents.MoodyEnvironment, mood=str(mood)) as menv:
        mood.write_text("hang")
        await lose(menv, menv.addrs[0])
        with trio.move_on_after(0.3) as scope:
            await menv.get_agents(as_coro=True)
        assert scope.cancelled_caught
        with trio.fail_after(LADDER_SECONDS):
            report = await menv.close(as_coro=True)
        assert [slave.ended_by for slave in report] == ["gone", "request"]


async def test_a_restart_that_hangs_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "RESTART_SECONDS", 0.3)
    mood = tmp_path / "mood"
    policy = RestartPolicy("permanent", restarts=1)
    async with society(policy, agents.MoodyEnvironment, mood=str(mood)) as menv:
        mood.write_text("hang")
        await lose(menv, menv.addrs[0])
        with pytest.raises(SlaveLost, match=r"it was not back within 0\.3 s; after 1 restart in"):
            await menv.get_agents(as_coro=True)


async def test_a_restore_that_hangs_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "RESTART_SECONDS", 0.5)
    mood = tmp_path / "mood"
    async with society("permanent") as menv:
        _, addr = await menv.spawn(agents.Moody, str(mood))
        mood.write_text("stop once")
        await lose(menv, menv.addrs[0])
        assert await menv.get_agents(as_coro=True) == [addr]
        (restart,) = menv.restarts
        assert (restart.number, restart.incarnation) == (2, 2)


def test_a_script_without_a_loop() -> None:
    with MultiEnvironment(ANY_PORT, Environment, restart="permanent") as menv:
        run(menv.spawn_slaves([ANY_PORT], Environment, agents.Manager))
        run(menv.spawn(agents.Moody))
        for n in (1, 2):
            with pytest.raises(SlaveLost):
                run(menv.trigger_all())
            assert len(menv.get_agents()) == 1
            assert len(menv.restarts) == n


# ---- those who call meanwhile


@also_free
async def test_a_step_waits_for_what_is_being_restored(calls: str) -> None:
    async with society("permanent", agents.SlowKeeper, calls=calls) as menv:
        for addr in menv.addrs:
            await menv.spawn(agents.Counter, addr=addr)
        assert await menv.trigger_all() == [1, 1]
        await lose(menv, menv.addrs[0])
        base_url = menv._slaves.at(menv.addrs[0]).base_url
        while not menv._env.network.endpoint.link(base_url):  # noqa: ASYNC110 - nothing tells
            await trio.sleep(0.01)
        assert menv.restarts == []
        assert await menv.trigger_all() == [2, 2]
        assert len(menv.restarts) == 1


async def test_a_limited_step_in_rounds_does_not_wait_longer_for_a_restart() -> None:
    async with society("permanent", agents.SlowKeeper, calls="rounds") as menv:
        for addr in menv.addrs:
            await menv.spawn(agents.Counter, addr=addr)
        await lose(menv, menv.addrs[0])
        with pytest.raises(DeadlineExceeded, match="before all slaves were back") as caught:
            await menv.trigger_all_within(0.01)
        assert (menv.restarts, caught.value.may_have_run) == ([], False)
        assert await menv.trigger_all_within(BOUND_SECONDS) == [1, 1]


async def test_a_call_during_a_restart_can_be_cancelled(tmp_path: Path) -> None:
    mood = tmp_path / "mood"
    policy = RestartPolicy("permanent", restarts=100)
    async with society(policy, agents.MoodyEnvironment, mood=str(mood)) as menv:
        echo, _ = await menv.spawn(agents.Echo, addr=menv.addrs[0])
        mood.touch()
        await lose(menv, menv.addrs[0])
        with trio.move_on_after(0.2) as scope:
            await echo.evaluate(1)
        assert scope.cancelled_caught
        assert menv.restarts == []


async def test_other_slaves_keep_answering_during_a_restart() -> None:
    async with society(RestartPolicy("permanent", restarts=20)) as menv:
        first, second = menv.addrs
        await menv.spawn_n(agents.Counter, 3, addr=first)
        echo, _ = await menv.spawn(agents.Echo, addr=second)
        done = trio.Event()
        asked = 0

        async def ask() -> None:
            nonlocal asked
            while not done.is_set():
                assert await echo.evaluate((asked, "x")) == (asked, "x")
                asked += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            for n in range(3):
                await lose(menv, first)
                assert len(await menv.get_agents(as_coro=True)) == 4
                assert len(menv.restarts) == n + 1
            done.set()
        assert asked > 10
        assert {restart.address for restart in menv.restarts} == {first}


CHANGED = """
import os, signal, time
from pathlib import Path
from creamas_sc import CreativeAgent, Environment, MultiEnvironment, expose, run
from creamas_sc.mp import EnvManager
import painters

class Mine(painters.Painter):
    @expose
    def versions(self):
        return 1, painters.VERSION

def edit(path):
    path.write_text(path.read_text().replace("1", "2"))
    os.utime(path, (time.time() + 2, time.time() + 2))

with MultiEnvironment(("localhost", 0), Environment, restart="permanent") as menv:
    run(menv.spawn_slaves([("localhost", 0)] * 2, Environment, EnvManager))
    early, _ = run(menv.spawn(Mine, addr=menv.addrs[0]))
    edit(Path(__file__)), edit(Path(painters.__file__))
    late, _ = run(menv.spawn(Mine, addr=menv.addrs[1]))
    print(*run(early.versions()), *run(late.versions()))
    try:
        run(early.die())
    except ConnectionError:
        pass
    print(*run(early.versions()))
    (restart,) = menv.restarts
    print(*(Path(file).name for file in restart.changed_files))
    print(str(restart).rpartition("without the later changes of ")[2])
"""
PAINTERS = """
import os, signal
from creamas_sc import CreativeAgent, expose
VERSION = 1
class Painter(CreativeAgent):
    @expose
    def die(self):
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_code_edited_during_a_run_is_not_loaded(tmp_path: Path) -> None:
    script, painters = tmp_path / "script.py", tmp_path / "painters.py"
    script.write_text(CHANGED)
    painters.write_text(PAINTERS)
    ended = programs.run_script(script)
    assert (ended.returncode, ended.stdout.splitlines()) == (
        0, ["1 1 1 1", "1 1", "painters.py script.py", f"{painters}, {script}"],
    ), ended.stderr  # fmt: skip


async def test_a_slave_waits_for_another_that_comes_back() -> None:
    async with society("transient") as menv:
        one, _ = await menv.spawn(agents.Echo, addr=menv.addrs[0])
        _, other = await menv.spawn(agents.Echo, addr=menv.addrs[1])
        assert await one.ask(other, 1) == 1
        await lose(menv, menv.addrs[1])
        manager = menv.addrs[1]  # its agents come a moment later
        assert (await one.reach(manager, BOUND_SECONDS)).addr == manager

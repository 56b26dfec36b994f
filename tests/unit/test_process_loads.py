"""What a process takes, as the kernel says, and how long a slave takes in steps."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import Any

import trio
import trio.testing

from creamas_sc.restarts.slave import Slave
from creamas_sc.runtime.process_load import ENDED, load_of

MIB = 1 << 20


def test_of_this_process() -> None:
    before = load_of(os.getpid())
    used = sum(os.times()[:2])
    assert before["state"] == "running"
    assert before["cpu_seconds"] is not None
    assert before["memory_bytes"] is not None
    assert abs(before["cpu_seconds"] - used) < 0.2
    kept = b"x" * (64 * MIB)
    after = load_of(os.getpid())
    assert after["memory_bytes"] is not None
    assert after["memory_bytes"] - before["memory_bytes"] > len(kept) * 0.9


def test_of_one_that_is_stopped_and_then_ends() -> None:
    code = "import sys; print('up', flush=True); sys.stdin.read()"
    command = [sys.executable, "-S", "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        os.kill(process.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        assert load_of(process.pid)["state"] == "stopped"
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert load_of(process.pid) == ENDED  # a zombie
    assert load_of(process.pid) == ENDED


def slave() -> Slave:
    order: Any = {}
    return Slave("slave-0", "tcp://localhost:1/", os.getpid(), order, agents=3)


async def test_how_long_a_slave_takes(autojump_clock: trio.testing.MockClock) -> None:
    made = slave()
    load = made.load()
    assert (load["address"], load["pid"]) == ("tcp://localhost:1/0", os.getpid())
    assert (load["agents"], load["restarts"], load["state"]) == (3, 0, "running")
    assert (load["step_seconds"], load["waited_seconds"]) == (None, None)
    made.begin_step()
    await trio.sleep(2)
    assert (made.load()["step_seconds"], made.load()["waited_seconds"]) == (None, 2.0)
    await trio.sleep(1)
    made.end_step()
    await trio.sleep(5)
    made.end_step()  # the step's own end, when the slave had answered long ago
    assert (made.load()["step_seconds"], made.load()["waited_seconds"]) == (3.0, None)


async def test_of_a_slave_that_has_ended() -> None:
    made = slave()
    made.gone.set()
    load = made.load()
    assert load["state"] == "lost"
    assert (load["cpu_seconds"], load["memory_bytes"]) == (None, None)
    assert made.load(coming=True)["state"] == "restarting"

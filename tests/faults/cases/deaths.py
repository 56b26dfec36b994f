"""Processes killed at random moments, again and again: nothing is left.

`tests/integration/test_deaths.py` says which tests of killing answer which question.
"""

from __future__ import annotations

import os
import random
import signal
import time
from itertools import product
from pathlib import Path

from tests.faults.daemon import daemon_killed
from tests.faults.programs import MarkedProgram, script
from tests.faults.registry import Figures, row
from tests.support.processes import kill_together

LEFT_SECONDS = 2.0
OWNERS = ("script", "supervisor", "daemon")
MOMENTS = ("idle", "busy", "spawning", "closing")
# The first spawns, and the beginning of a close, take about as long.
WINDOW_SECONDS = 0.05

SCRIPT = """
import sys, time
from creamas_sc import Environment, MultiEnvironment, run
from creamas_sc.mp import EnvManager
from tests.support import agents

def slaves(n):
    run(menv.spawn_slaves([("localhost", 0)] * n, Environment, EnvManager))

menv = MultiEnvironment(("localhost", 0), Environment)
moment = sys.argv[1]
slaves(2)
for addr in menv.addrs:
    run(menv.spawn(agents.Forker, addr=addr))
run(menv.trigger_all())
print("idle", flush=True)
if moment == "idle":
    time.sleep(60)
if moment == "busy":
    run(menv.spawn(agents.Busy))
    run(menv.trigger_all())
if moment == "spawning":
    print("spawning", flush=True)
    for _ in range(100):
        slaves(1)
        run(menv.spawn_n(agents.Echo, 100))
run(menv.spawn(agents.Sleeper))
print("closing", flush=True)
menv.close()
"""


@row(
    1,
    "owner killed (SIGKILL): script, its supervisor, daemon",
    "0 descendants after 2 s; the same command starts again",
    cases=tuple(f"{who} {when}" for who, when in product(OWNERS, MOMENTS)),
    rounds=600,
    short=3,
)
def owner_killed(case: str, number: int, folder: Path) -> Figures:
    """Kill the owner, and run the same command again."""
    who, when = case.split()
    if who == "daemon":
        return daemon_killed(when, number, folder)
    with script(folder, SCRIPT, when) as program:
        program.read_until(when)
        if when in ("spawning", "closing"):  # at a different moment each time
            time.sleep(random.Random(number).random() * WINDOW_SECONDS)
        if who == "script":
            program.process.kill()
        elif not _killed_if_there(program, "creamas-superv"):
            return {}
        # A script whose supervisor is gone gets an error, and may go on.
        seconds = program.wait_none(LEFT_SECONDS, but={program.process.pid})
        with script(folder, SCRIPT, when) as following:
            following.read_until(when)
            following.process.kill()
            following.wait_none(LEFT_SECONDS)
        return {"seconds": seconds}


def _killed_if_there(program: MarkedProgram, name: str) -> bool:
    """Kill the process of that name, unless it has ended in order just now."""
    try:
        program.kill(name)
    except (AssertionError, ProcessLookupError):
        if program.process.wait(LEFT_SECONDS) == 0:
            return False
        raise
    return True


ROLES = ("keeper", "zygote", "superv")
STOPPED_THEN_KILLED = tuple(
    f"{stopped} stopped, {killed} killed"
    for stopped, killed in product(ROLES, (*ROLES, "script"))
    if stopped != killed
)


@row(
    11,
    "keeper, zygote, supervisor: one killed; one stopped and another killed; two together",
    "0 actors left after 2 s; a forked-away process is at worst swept by the next start",
    cases=(*(f"{role} killed" for role in ROLES), *STOPPED_THEN_KILLED, "keeper+zygote killed"),
    rounds=50 * 13,
    short=2,
)
def inner_process_killed(case: str, number: int, folder: Path) -> Figures:
    """Stop and kill what the case names; forked-away processes are python3, actors are not."""
    with script(folder, SCRIPT, "idle") as program:
        program.read_until("idle")
        for act in case.split(", "):
            who, _, how = act.partition(" ")
            _strike(how, [_pid(program, role) for role in who.split("+")])
        began = time.monotonic()
        while actors := _actors(program):
            assert time.monotonic() - began < LEFT_SECONDS, f"left: {actors}"
            time.sleep(0.005)
        seconds = time.monotonic() - began
        if who != "keeper+zygote":
            program.wait_none(LEFT_SECONDS - seconds, but={program.process.pid})
            return {"seconds": seconds}
        lost = len(_forked(program))
        assert lost > 0, "nothing was lost: they were not killed together"
        with script(folder, SCRIPT, "idle") as following:
            following.read_until("idle")
            swept = program.wait_none(LEFT_SECONDS, but={program.process.pid})
        return {"seconds": seconds, "lost": lost, "seconds after the next start": swept}


def _strike(how: str, pids: list[int]) -> None:
    if len(pids) > 1:
        return kill_together(*pids)
    os.kill(pids[0], signal.SIGSTOP if how == "stopped" else signal.SIGKILL)


def _pid(program: MarkedProgram, role: str) -> int:
    if role == "script":
        return program.process.pid
    (pid,) = (pid for pid, name in program.members().items() if name == f"creamas-{role}")
    return pid


def _actors(program: MarkedProgram) -> dict[int, str]:
    return {pid: name for pid, name in program.members().items() if name.startswith("slave")}


def _forked(program: MarkedProgram) -> list[int]:
    members = program.members()
    return [
        pid
        for pid, name in members.items()
        if name.startswith("python") and pid != program.process.pid
    ]

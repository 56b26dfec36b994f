"""Slaves that do not end when asked, or that leave processes behind."""

from __future__ import annotations

import time
from itertools import product
from pathlib import Path

from tests.faults.programs import script
from tests.faults.registry import Figures, row

GRACE_SECONDS = 1.0
OVER_SECONDS = 1.0

STUBBORN = """
import signal, sys, threading
from creamas_sc import CreativeAgent, Environment, MultiEnvironment, expose, run
from creamas_sc.mp import EnvManager
from tests.support import agents

class IgnoresSigterm(agents.Busy):
    @expose
    async def act(self):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        await super().act()

with MultiEnvironment(("localhost", 0), Environment) as menv:
    run(menv.spawn_slaves([("localhost", 0)] * 2, Environment, EnvManager))
    how = sys.argv[1]
    run(menv.spawn(IgnoresSigterm, "python" if how == "ignores" else how))
    step = threading.Thread(target=lambda: run(menv.trigger_all()), daemon=True)
    step.start()
    sys.stdin.readline()
    print(menv.close()[0].ended_by, flush=True)
print("closed", flush=True)
"""
HOW = {"ignores SIGTERM": "ignores", "SIGSTOPped": "stopped", "Python": "python", "C": "c"}


@row(
    3,
    "a slave that ignores SIGTERM, is SIGSTOPped, loops in Python, or holds the GIL in C",
    f"gone by grace + {OVER_SECONDS:g} s, under close and under the owner's death",
    cases=tuple(f"{how}, {end}" for how, end in product(HOW, ("close", "owner's death"))),
    rounds=50 * 8,
    short=1,
)
def stubborn_slave(case: str, number: int, folder: Path) -> Figures:
    """End a simulation that has such a slave, by a close or by the death of its owner."""
    how, _, end = case.partition(", ")
    with script(folder, STUBBORN, HOW[how]) as program:
        program.read_until("busy")
        began = time.monotonic()
        if end == "close":
            program.say("close")
            program.read_until("closed", GRACE_SECONDS + OVER_SECONDS)
            assert program.process.wait(OVER_SECONDS) == 0
        else:
            program.process.kill()
        program.wait_none(GRACE_SECONDS + OVER_SECONDS + began - time.monotonic())
        return {"seconds": time.monotonic() - began}


ENDS = ("close", "stop_slaves", "owner's death")
FORKING = """
import sys
from creamas_sc import Environment, MultiEnvironment, run
from creamas_sc.mp import EnvManager
from tests.support import agents

with MultiEnvironment(("localhost", 0), Environment) as menv:
    n, end = int(sys.argv[1]), sys.argv[2]
    run(menv.spawn_slaves([("localhost", 0)] * n, Environment, EnvManager))
    for addr in menv.addrs:
        run(menv.spawn(agents.Forker, addr=addr))
    run(menv.trigger_all())
    print("forked", flush=True)
    sys.stdin.readline()
    if end == "stop_slaves":
        run(menv.stop_slaves())
    menv.close()
print("closed", flush=True)
"""


@row(
    5,
    "slaves that leave double-forked children in new sessions, 4 or 100 at once",
    "0 left",
    cases=tuple(f"{n} slaves, {end}" for n, end in product((4, 100), ENDS)),
    rounds=6,
    short=1,
)
def forked_children(case: str, number: int, folder: Path) -> Figures:
    """Start slaves with one such child each, and end them."""
    slaves, _, end = case.partition(" slaves, ")
    with script(folder, FORKING, slaves, end) as program:
        program.read_until("forked")
        assert len(program.members()) >= 2 * int(slaves)
        if end == "owner's death":
            program.process.kill()
        else:
            program.say(end)
            program.read_until("closed")
            assert program.process.wait(OVER_SECONDS) == 0
        return {"seconds": program.wait_none(GRACE_SECONDS + OVER_SECONDS)}

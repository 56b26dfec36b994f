"""The row about Ctrl-C and SIGTERM: a script ends well, whatever it does, however it is written."""

from __future__ import annotations

import os
import random
import signal
import time
from itertools import product
from pathlib import Path

from tests.faults.board import Figures, row
from tests.faults.scene import Scene, script

LIMITS = {"idle": 1.0, "busy": 3.0, "spawning": 3.0, "closing": 3.0}
SECOND_SECONDS = 1.0
# A moment of its own each time, within the spawns and within a close.
WINDOW_SECONDS = 0.1
CODES = {signal.SIGINT: {-signal.SIGINT}, signal.SIGTERM: {143, -signal.SIGTERM}}

HEAD = """
import asyncio, sys, threading, time
import anyio, trio
from creamas_sc import Environment, MultiEnvironment, run
from creamas_sc.mp import EnvManager
from tests import agents

moment = sys.argv[1]

async def body(menv):
    await menv.spawn_slaves([("localhost", 0)] * 2, Environment, EnvManager)
    await menv.spawn(agents.Sleeper)
    print("idle", flush=True)
    if moment == "idle":
        await anyio.sleep(60)
    if moment == "busy":
        await menv.spawn(agents.Busy, "sleep")
        await menv.trigger_all()
    if moment == "spawning":
        print("spawning", flush=True)
        for _ in range(100):
            await menv.spawn_slaves([("localhost", 0)], Environment, EnvManager)
            await menv.spawn_n(agents.Echo, 100)
    await menv.spawn(agents.SlowToClose)
    print("closing", flush=True)

async def main():
    async with MultiEnvironment(("localhost", 0), Environment) as menv:
        await body(menv)
"""
FORMS = {
    "sync": """
with MultiEnvironment(("localhost", 0), Environment) as menv:
    run(body(menv))
""",
    "trio": "trio.run(main)",
    "asyncio": "asyncio.run(main())",
}
SIGNALS = ("SIGINT", "SIGTERM")
WHOM = ("process", "group")


@row(
    2,
    "SIGINT and SIGTERM to a script, to the process and to the group; twice",
    "idle <= 1 s, busy <= 3 s, second <= 1 s; exit codes; 0 left; stderr one line at most",
    cases=tuple(
        " ".join(case) for case in product(FORMS, SIGNALS, WHOM, LIMITS, ("once", "twice"))
    ),
    rounds=3 * 2 * 2 * 4 * 2 * 4,
    short=2,
)
def signalled(case: str, number: int, folder: Path) -> Figures:
    """Signal a script in the middle of something."""
    form, name, whom, moment, times = case.split()
    how = signal.Signals[name]
    rng = random.Random(number)
    with script(folder, HEAD + FORMS[form], moment) as scene:
        scene.read_until(moment)
        if moment in ("spawning", "closing"):
            time.sleep(rng.random() * WINDOW_SECONDS)
        began = time.monotonic()
        _send(scene, how, whom)
        if times == "twice":
            time.sleep(rng.random() * WINDOW_SECONDS)
            began = time.monotonic()
            _send(scene, how, whom)
        limit = SECOND_SECONDS if times == "twice" else LIMITS[moment]
        code = scene.process.wait(limit)
        seconds = time.monotonic() - began
        scene.wait_none(LIMITS["busy"])
        assert scene.process.stderr is not None
        told = scene.process.stderr.read().decode()
    assert code in CODES[how], f"exit code {code}: {told}"
    assert told.count("\n") <= 1, told
    return {f"{times}, {moment}, seconds": seconds}


def _send(scene: Scene, how: signal.Signals, whom: str) -> None:
    if whom == "group":
        os.killpg(scene.process.pid, how)
    else:
        os.kill(scene.process.pid, how)

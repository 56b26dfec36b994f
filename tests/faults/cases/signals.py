"""Ctrl-C and SIGTERM at random moments: scripts, clients and daemons end in order."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path

from tests.faults.programs import script
from tests.faults.registry import Figures, row
from tests.faults.signal_targets import CLIENTS, DAEMONS, SignalTarget, client, daemon

LIMITS = {"idle": 1.0, "busy": 3.0, "spawning": 3.0, "closing": 3.0}
SECOND_SECONDS = 1.0
# A different moment each time, within the spawns and within a close.
WINDOW_SECONDS = 0.1

HEAD = """
import asyncio, sys, threading, time
import anyio, trio
from creamas_sc import Environment, MultiEnvironment, run
from creamas_sc.mp import EnvManager
from tests.support import agents

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
NAMES = ("SIGINT", "SIGTERM")
WHOM = ("process", "group")


SCRIPTS = tuple(f"script/{form}" for form in FORMS)
EACH = (*SCRIPTS, *(f"client/{form}" for form in CLIENTS), *(f"daemon/{verb}" for verb in DAEMONS))


@row(
    2,
    "SIGINT and SIGTERM to a script, a client, a daemon: to the process, to the group; twice",
    "idle <= 1 s, busy <= 3 s, second <= 1 s; exit codes; 0 left; stderr one line at most, of a "
    "daemon none, after two signals one; of a client what Python prints",
    cases=tuple(" ".join(case) for case in product(EACH, NAMES, WHOM, LIMITS, ("once", "twice"))),
    rounds=8 * 2 * 2 * 4 * 2 * 2,
    short=4,
)
def signalled(case: str, number: int, folder: Path) -> Figures:
    """Send one or two signals at the given moment."""
    who, name, whom, moment, times = case.split()
    how = signal.Signals[name]
    rng = random.Random(number)
    with _under_way(who, moment, number, folder) as one:
        if moment in ("spawning", "closing"):
            time.sleep(rng.random() * WINDOW_SECONDS)
        began = time.monotonic()
        one.send(how, whom)
        if times == "twice":
            time.sleep(rng.random() * WINDOW_SECONDS)
            began = time.monotonic()
            one.send(how, whom)
        code = one.wait(SECOND_SECONDS if times == "twice" else LIMITS[moment])
        seconds = time.monotonic() - began
        one.program.wait_none(LIMITS["busy"])
        errors = one.complaints()
    assert code in _codes(who, how, times), f"exit code {code}: {errors}"
    if who.startswith("client"):  # it ends as any Python script does
        last = errors.splitlines()[-1:]
        assert times == "twice" or last == (["KeyboardInterrupt"] if name == "SIGINT" else []), (
            errors
        )
    else:
        assert errors.count("\n") <= (times == "twice" or not who.startswith("daemon")), errors
    return {f"{who.partition('/')[0]}, {times}, {moment}, seconds": seconds}


@contextmanager
def _under_way(who: str, moment: str, number: int, folder: Path) -> Iterator[SignalTarget]:
    what, _, form = who.partition("/")
    if what == "script":
        with script(folder, HEAD + FORMS[form], moment) as program:
            program.read_until(moment)
            yield SignalTarget.of(program)
    else:
        with (client if what == "client" else daemon)(
            form, f"row-2-{number}", moment, folder
        ) as it:
            yield it


def _codes(who: str, how: signal.Signals, times: str) -> set[int]:
    """What may come of it: a second signal that is late finds all of it over."""
    if who.startswith("daemon"):
        once = 130 if how is signal.SIGINT else 0
        return {once} if times == "once" else {once, 128 + how, -how}
    if who.startswith("client"):
        # A second Ctrl-C may strike within a library, whose error then ends the script.
        return {-how, 130, 1} if times == "twice" else {-how}
    if how is signal.SIGINT:
        return {-how, 130}  # which are the same to a shell
    return {143} if times == "once" else {143, -how}

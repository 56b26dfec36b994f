"""The row about scripts and daemons that are started with standard descriptors closed."""

from __future__ import annotations

import sys
import time
from itertools import combinations, product
from pathlib import Path

from creamas_sc.client import connect_sync
from creamas_sc.errors import CreamasError
from tests.faults.daemon import CALL_SECONDS, LEFT_SECONDS, LOGS, SLAVES
from tests.faults.programs import POLL_SECONDS, MarkedProgram
from tests.faults.registry import Figures, row

NAME = "row-18"
BOUND_SECONDS = 20.0
CLOSE = {"0": "<&-", "1": ">&-", "2": "2>&-"}
SUBSETS = tuple("+".join(chosen) for n in (3, 2, 1) for chosen in combinations(CLOSE, n))
# "start" returns while the daemon runs, "run" stays in the foreground.
STARTED = ("script", "run", "start")
ROUNDS_EACH = 5
# The program that an agent ran succeeded, and no standard descriptor is a socket.
WELL = (0, False)
SCRIPT = f"""
from pathlib import Path
from creamas_sc import Environment, MultiEnvironment, run
from creamas_sc.mp import EnvManager
from tests.faults.agents import Printer

with MultiEnvironment(("localhost", 0), Environment) as menv:
    run(menv.spawn_slaves([("localhost", 0)] * 2, Environment, EnvManager))
    for addr in menv.addrs:
        run(menv.spawn(Printer, addr=addr))
    assert run(menv.trigger_all()) == {[WELL] * 2}
Path("done").touch()
"""


@row(
    18,
    "a script, or a daemon and its commands, with standard input, output or error closed",
    f"all works, agents print and run programs in it; 0 left {LEFT_SECONDS:g} s after its end",
    cases=tuple(f"{what}, closed {which}" for what, which in product(STARTED, SUBSETS)),
    rounds=ROUNDS_EACH * len(STARTED) * len(SUBSETS),
    short=3,
)
def closed(case: str, number: int, folder: Path) -> Figures:
    """Start it by a shell that closes them."""
    what, _, which = case.partition(", closed ")
    redirections = " ".join(CLOSE[number] for number in which.split("+"))
    seconds = (_run_script if what == "script" else _use_daemon)(what, redirections, folder)
    return {f"seconds until 0 left, {what}": seconds}


def _start(redirections: str, folder: Path, *args: str) -> MarkedProgram:
    line = f'export CREAMAS_LOG_FOLDER="$PWD/{LOGS}"; exec "$@" {redirections}'
    return MarkedProgram(["sh", "-c", line, "sh", sys.executable, *args], folder)


def _run_script(what: str, redirections: str, folder: Path) -> float:
    script = folder / "script.py"
    script.write_text(SCRIPT)
    with _start(redirections, folder, str(script)) as program:
        code, _, err = program.finish(BOUND_SECONDS)
        # Agents and their programs write there, if it is open; nobody else does.
        assert (code, set(err.splitlines()) - {"this is an error"}) == (0, set()), err
        assert (folder / "done").exists()
        return program.wait_none(LEFT_SECONDS)


def _use_daemon(what: str, redirections: str, folder: Path) -> float:
    def command(verb: str) -> MarkedProgram:
        return _start(redirections, folder, "-m", "supervisor.cli", verb, "--daemon", NAME)

    with command(what) as running:
        if what == "start":
            assert running.process.wait(BOUND_SECONDS) == 0, running.finish()
        _simulate()
        with command("stop") as stop:
            assert stop.process.wait(BOUND_SECONDS) == 0, stop.finish()
        assert running.process.wait(BOUND_SECONDS) == 0, running.finish()
        return running.wait_none(LEFT_SECONDS)


def _simulate() -> None:
    began = time.monotonic()
    while True:
        try:
            with connect_sync(NAME, timeout=CALL_SECONDS) as client:
                client.create("one", slave_addrs=SLAVES)
                with client.attach("one") as simulation:
                    for addr in simulation.get_addrs():
                        simulation.spawn("tests.faults.agents:Printer", addr=addr)
                    assert simulation.trigger_all() == [WELL] * 2
                return
        except CreamasError:  # where its output is closed, nothing says that a daemon listens
            if time.monotonic() - began > BOUND_SECONDS:
                raise
            time.sleep(POLL_SECONDS)

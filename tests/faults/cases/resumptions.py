"""Recorded runs that are killed again and again, and resumed: as if nothing had happened."""

from __future__ import annotations

import functools
import json
import os
import random
import signal
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import product, zip_longest
from pathlib import Path
from typing import Any

from creamas_sc.client import SyncClient, connect_sync
from creamas_sc.errors import CreamasError
from creamas_sc.results.run_file import read_object
from creamas_sc.results.schema import COLUMNS
from tests.faults import painters
from tests.faults.daemon import started
from tests.faults.killed_calls import VARIABLE, KilledCall
from tests.faults.programs import MarkedProgram
from tests.faults.registry import Figures, row
from tests.support.programs import BOUND_SECONDS

SLAVES = (1, 2, 4)
LEFT_SECONDS = 2.0
STEP_SECONDS = 0.03
START_SECONDS = 0.6
# How many calls a run makes at least, and the first part of a resume.
CALLS = {"script": 340, "host": 340, "slave": 20}
FIRST_CALLS = {"script": 60, "host": 60, "slave": 8}
HOW = ("before", "after", "torn", "0", "200", "2000")
# It differs from run to run, or says that the run was resumed.
NOT_COMPARED = {"steps": ("began", "seconds")}
RUN = ("class", "parameters", "seed", "code", "versions")
VICTIMS = {
    "script": ("script", "keeper", "zygote", "supervisor", "slave", "all"),
    "host": ("host", "keeper", "zygote", "supervisor", "slave", "all"),
}
CASES = (
    *(f"{where}: {who}" for where, victims in VICTIMS.items() for who in victims),
    *(f"{where}: a call of {who}" for where in VICTIMS for who in (where, "slave")),
)
SCRIPT = """
import sys
from pathlib import Path
from tests.faults.painters import main

main(Path(sys.argv[1]), int(sys.argv[2]))
"""
# What the names of processes begin with.
_NAMES: dict[str, str | tuple[str, ...]] = {
    "all": "",
    "keeper": "creamas-keeper",
    "supervisor": ("creamas-superv", "creamas-daemon"),
    "zygote": "creamas-zygote",
}


class Instant:
    """When and where to kill.

    Args:
        who: See `VICTIMS`, or "a call of " a process.
        drawn: Draws what is left open.
        done: The step of the checkpoint from which it is resumed: half of the instants are in the
            resume then. None if it is not.
    """

    def __init__(self, who: str, drawn: random.Random, done: int | None) -> None:
        self.call: KilledCall | None = None
        early = drawn.random() < 0.5
        if who.startswith("a call of "):
            process = who.removeprefix("a call of ")
            calls = (FIRST_CALLS if early else CALLS)[process]
            self.call = KilledCall(process, 1 + drawn.randrange(calls), drawn.choice(HOW))
            self.after, self.seconds = "", 0.0
        elif done is not None and early:
            self.after, self.seconds = "starts", drawn.random() * START_SECONDS
        else:
            self.after = f"step {drawn.randrange((done or 0) + 1, painters.STEPS + 1)}"
            self.seconds = drawn.random() * STEP_SECONDS
        self.who, self.index = who, drawn.random()

    def kill(self, program: MarkedProgram) -> None:
        """Kill what is there of it."""
        members = sorted(program.members().items())
        pids = [pid for pid, name in members if name.startswith(_NAMES.get(self.who, self.who))]
        if self.who == "script":
            pids = [program.pid]
        if self.who != "all" and pids:
            pids = [pids[int(self.index * len(pids))]]
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:  # it has ended meanwhile
                continue


@row(
    21,
    "a recorded run killed at any instant, and resumed, itself killed: script, host, supervisor, "
    "keeper, zygote, slave, all; in a write, fsync, rename, in the cut, in the resume",
    "record, artifacts and the agents' last state equal those of a run that was not killed",
    cases=tuple(f"{case}, {n} slaves" for case, n in product(CASES, SLAVES)),
    rounds=500,
    short=2,
    quick=0,
)
def killed_and_resumed(case: str, number: int, folder: Path) -> Figures:
    """Kill a run once to three times; each time it goes on, at another number of slaves."""
    where, _, rest = case.partition(": ")
    who, _, slaves = rest.partition(", ")
    drawn = random.Random(number)
    once = _in_script if where == "script" else _in_daemon
    place = folder / "record"
    place.mkdir()
    kills = resumed = 0
    n = int(slaves.split()[0])
    for attempt in range(3):
        done = painters.last_checkpoint(place)
        if done == painters.STEPS:
            break
        if attempt == 0 or drawn.random() < 0.6:
            kills += 1
            resumed += done is not None
            once(place, n, Instant(who, drawn, done))
            _check_readable(place)
        n = drawn.choice(SLAVES)
    resumed += painters.last_checkpoint(place) is not None
    once(place, n, None)
    _compare(_seen(place), _reference(once))
    return {"total kills": kills, "total resumed": resumed}


# ---- a script


def _in_script(place: Path, slaves: int, instant: Instant | None) -> None:
    script = place.parent / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(place), str(slaves)]
    with _variable(instant), MarkedProgram(command, place.parent) as program:
        if instant is None or instant.call is not None:
            done = instant is None
            _, errors = program.process.communicate(timeout=BOUND_SECONDS)
            assert not done or program.process.returncode == 0, errors.decode()
        else:
            _wait(program, instant)
            instant.kill(program)
            program.process.communicate(timeout=BOUND_SECONDS)
        program.wait_none(LEFT_SECONDS)


def _wait(program: MarkedProgram, instant: Instant) -> None:
    program.read_until(instant.after)
    time.sleep(instant.seconds)


# ---- a daemon


def _in_daemon(place: Path, slaves: int, instant: Instant | None) -> None:
    name = "row-21"
    # Into a file: it is not read, and a full pipe would stop the daemon.
    with (
        (place.parent / "daemon.log").open("ab") as log,
        started("run", name, place.parent, stderr=log) as program,
    ):
        try:
            with connect_sync(name, timeout=BOUND_SECONDS) as client:
                _simulate(client, program, place, slaves, instant)
        except (CreamasError, OSError):
            if instant is None:
                raise
        if program.process.poll() is None:
            program.process.send_signal(signal.SIGTERM)
        program.process.wait(BOUND_SECONDS)
        program.wait_none(LEFT_SECONDS)


def _simulate(
    client: SyncClient, program: MarkedProgram, place: Path, slaves: int, instant: Instant | None
) -> None:
    """Have a daemon begin the run, or go on with it, until it has all steps."""
    resumes = painters.last_checkpoint(place) is not None
    if instant is not None and instant.after == "starts":
        threading.Timer(instant.seconds, instant.kill, [program]).start()
    with _variable(instant):
        if resumes:
            client.resume("one", place, slaves=slaves)
        else:
            client.create(
                "one",
                menv_cls="tests.faults.painters:Gallery",
                env_cls="creamas_sc:Environment",
                mgr_cls="creamas_sc.mp:MultiEnvManager",
                slave_addrs=[painters.ANY_PORT] * slaves,
                slave_env_cls="tests.faults.painters:Hall",
                slave_kwargs=[{"light": 0.9}] * slaves,
                seed=painters.SEED,
                record=painters.record(place),
            )
    with client.attach("one") as one:
        if not resumes:
            one.set_host_managers()
            painters.populate(one)
        if one.get_age() == 0 and one.progress()["state"] == "idle":
            one.start_steps(painters.STEPS)
        if instant is not None and instant.after.startswith("step"):
            while one.get_age() < int(instant.after.split()[1]):
                if one.progress()["state"] != "stepping":
                    break
            time.sleep(instant.seconds)
            instant.kill(program)
        one.wait_steps()
        if instant is not None:
            return
        state = painters.last_state(one)
    (place / painters.LAST).write_text(json.dumps([None, state]))
    client.close("one")


# ---- what is compared


@functools.cache
def _reference(once: Callable[[Path, int, Instant | None], None]) -> dict[str, Any]:
    """What is there of a run that was not killed."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "record"
        place.mkdir()
        once(place, 2, None)
        return _seen(place)


def _compare(seen: dict[str, Any], wanted: dict[str, Any]) -> None:
    differ = [name for name in wanted if seen[name] != wanted[name]]
    for name in differ:
        pairs = zip_longest(seen[name], wanted[name])
        print(name, next(pair for pair in pairs if pair[0] != pair[1]), file=sys.stderr)
    assert not differ, f"{differ} differ from those of the run that was not killed"


def _seen(place: Path) -> dict[str, Any]:
    """All that a run has left, but for what may differ."""
    (path,) = [each for each in place.glob("run-*.sqlite") if _has_steps(each)]
    found: dict[str, Any] = {}
    with closing(sqlite3.connect(path)) as db:
        for table, names in (*COLUMNS.items(), ("run", RUN)):
            kept = [f'"{name}"' for name in names if name not in NOT_COMPARED.get(table, ())]
            if table != "events":
                order = "" if table == "run" else "ORDER BY step, rowid"
                rows = db.execute(f"SELECT {', '.join(kept)} FROM {table} {order}")
                found[table] = rows.fetchall()
    files = [row[-1] for row in found["artifacts"] if row[-1] is not None]
    found["objects"] = [read_object(place, name) for name in files]
    history, found["last state"] = json.loads((place / painters.LAST).read_text())
    found["agents and artifacts"] = json.loads(found.pop("last state"))
    if history is not None:
        assert len(history) == painters.STEPS, history
    return found


def _has_steps(path: Path) -> bool:
    with closing(sqlite3.connect(path)) as db:
        try:
            return bool(db.execute("SELECT count(*) FROM steps").fetchone()[0])
        except sqlite3.OperationalError:  # it was killed before the tables were there
            return False


def _check_readable(place: Path) -> None:
    """What a killed run has left is whole, and has each step up to some."""
    for path in place.glob("run-*.sqlite"):
        with closing(sqlite3.connect(path)) as db:
            assert db.execute("PRAGMA quick_check").fetchall() == [("ok",)]
            if _has_steps(path):
                steps = [step for (step,) in db.execute("SELECT step FROM steps ORDER BY step")]
                assert steps == list(range(1, len(steps) + 1)), steps


@contextmanager
def _variable(instant: Instant | None) -> Iterator[None]:
    """Have processes that are started in the block end in a call, if that is asked for."""
    if instant is not None and instant.call is not None:
        os.environ.update(instant.call.variable())
    try:
        yield
    finally:
        os.environ.pop(VARIABLE, None)

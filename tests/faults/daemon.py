"""Daemons that faults are injected into."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from creamas_sc.client import SyncClient, connect_sync
from creamas_sc.errors import CreamasError
from tests.faults.programs import POLL_SECONDS, MarkedProgram
from tests.faults.registry import Figures

LEFT_SECONDS = 2.0
STOP_SECONDS = 5.0
CALL_SECONDS = 20.0
# A different moment each time, within a create and within a close.
WINDOW_SECONDS = 0.1
SLAVES = [("localhost", 0), ("localhost", 0)]
LOGS = "logs"


class Daemon:
    """A daemon in the foreground."""

    def __init__(self, program: MarkedProgram) -> None:
        self.program = program

    @property
    def pids(self) -> dict[str, int]:
        """Its processes, by name; of several of one name, one."""
        return {name: pid for pid, name in self.program.members().items()}

    def held(self) -> set[str]:
        """Its processes, and the descriptors of those that outlive simulations."""
        found = {f"process {pid}: {name}" for pid, name in self.program.members().items()}
        for name, pid in self.pids.items():
            if name.startswith("creamas-"):
                count = len(os.listdir(f"/proc/{pid}/fd"))
                found.add(f"{count} descriptors of {name}")
        return found

    def settled(self) -> set[str]:
        """What it holds once that does not change any more."""
        held, same = self.held(), 0
        while same < 10:
            time.sleep(POLL_SECONDS)
            before, held = held, self.held()
            same = same + 1 if held == before else 0
        return held

    def expect(self, before: set[str], seconds: float) -> None:
        """Wait until it holds what it held before.

        Raises:
            AssertionError: After so many seconds it did not.
        """
        deadline = time.monotonic() + seconds
        while (other := self.held() ^ before) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        assert not other, f"left behind, or lost: {sorted(other)}"


@contextmanager
def started(
    verb: str,
    name: str,
    folder: Path,
    *,
    stderr: int | IO[bytes] = subprocess.PIPE,
    descriptors: int | None = None,
) -> Iterator[MarkedProgram]:
    """The command ``run`` or ``start`` of a daemon that listens by now, for the block.

    Args:
        descriptors: How many each of the daemon's processes may have.
    """
    command = [sys.executable, "-m", "supervisor.cli", verb, "--daemon", name]
    limit = "" if descriptors is None else f"ulimit -n {descriptors}; "
    shell = f'{limit}export CREAMAS_LOG_FOLDER="$PWD/{LOGS}"; exec "$@"'
    with MarkedProgram(["sh", "-c", shell, "sh", *command], folder, stderr) as program:
        program.read_until(".sock\n")
        yield program


@contextmanager
def daemon(
    name: str, folder: Path, *, killed: bool = False, descriptors: int | None = None
) -> Iterator[Daemon]:
    """A daemon for the length of the block; its end is an orderly one, and leaves nothing.

    Args:
        killed: The block ends it in another way.
        descriptors: How many each of its processes may have.
    """
    # Into a file: it is not read while the daemon runs, and a full pipe would stop it.
    with (
        (folder / "daemon.log").open("wb") as log,
        started("run", name, folder, stderr=log, descriptors=descriptors) as program,
    ):
        yield Daemon(program)
        if killed:
            return
        program.process.send_signal(signal.SIGTERM)
        assert program.process.wait(STOP_SECONDS) == 0
        program.wait_none(LEFT_SECONDS)


def daemon_killed(when: str, number: int, folder: Path) -> Figures:
    """Kill a daemon's process; nothing is left, and the same command starts it again."""
    name = f"row-1-{number}"
    with daemon(name, folder, killed=True) as running:
        with connect_sync(name, timeout=CALL_SECONDS) as client:
            work = _begin(client, when)
            time.sleep(random.Random(number).random() * WINDOW_SECONDS)
            running.program.process.kill()
            seconds = running.program.wait_none(LEFT_SECONDS)
            if work is not None:
                work.join(CALL_SECONDS)
                assert not work.is_alive(), "the client hangs"
    with daemon(name, folder):
        return {"seconds": seconds}


def _begin(client: SyncClient, when: str) -> threading.Thread | None:
    """Bring a simulation to that moment; the thread that waits for its end."""
    if when == "spawning":
        return _apart(lambda: client.create("one", slave_addrs=SLAVES))
    client.create("one", slave_addrs=SLAVES)
    with client.attach("one") as simulation:
        for addr in simulation.get_addrs():
            forker, _ = simulation.spawn("tests.support.agents:Forker", addr=addr)
            simulation.trigger_act(forker.addr)
            simulation.spawn("tests.support.agents:SlowToClose", addr=addr)
        if when == "busy":
            simulation.start_steps()
    return _apart(lambda: client.close("one")) if when == "closing" else None


def _apart(call: Callable[[], object]) -> threading.Thread:
    def attempt() -> None:
        try:
            call()
        except CreamasError:  # the daemon was killed
            return

    thread = threading.Thread(target=attempt)
    thread.start()
    return thread

"""A daemon that is killed in the middle of something."""

from __future__ import annotations

import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from creamas_sc.client import SyncClient, connect_sync
from creamas_sc.errors import CreamasError
from tests.faults.board import Figures
from tests.faults.scene import Scene

LEFT_SECONDS = 2.0
STOP_SECONDS = 5.0
CALL_SECONDS = 20.0
# A moment of its own each time, within a create and within a close.
WINDOW_SECONDS = 0.1
SLAVES = [("localhost", 0), ("localhost", 0)]


def daemon_killed(when: str, number: int, folder: Path) -> Figures:
    """Kill a daemon's process; nothing is left, and the same command starts it again."""
    name = f"row-1-{number}"
    command = [sys.executable, "-m", "supervisor.cli", "run", "--daemon", name]
    with Scene(command, folder) as scene:
        scene.read_until(".sock\n")
        with connect_sync(name, timeout=CALL_SECONDS) as client:
            work = _begin(client, when)
            time.sleep(random.Random(number).random() * WINDOW_SECONDS)
            scene.process.kill()
            seconds = scene.wait_none(LEFT_SECONDS)
            if work is not None:
                work.join(CALL_SECONDS)
                assert not work.is_alive(), "the client hangs"
    with running(name, folder):
        pass
    return {"seconds": seconds}


@contextmanager
def running(name: str, folder: Path) -> Iterator[None]:
    """A daemon of that name within the block, and its orderly end."""
    command = [sys.executable, "-m", "supervisor.cli", "run", "--daemon", name]
    with Scene(command, folder) as scene:
        scene.read_until(".sock\n")
        yield
        scene.process.send_signal(signal.SIGTERM)
        assert scene.process.wait(STOP_SECONDS) == 0


def _begin(client: SyncClient, when: str) -> threading.Thread | None:
    """Bring a simulation to that moment; the thread that waits for its end."""
    if when == "spawning":
        return _apart(lambda: client.create("one", slave_addrs=SLAVES))
    client.create("one", slave_addrs=SLAVES)
    with client.attach("one") as simulation:
        for addr in simulation.get_addrs():
            forker, _ = simulation.spawn("tests.agents:Forker", addr=addr)
            simulation.trigger_act(forker.addr)
            simulation.spawn("tests.agents:SlowToClose", addr=addr)
        if when == "busy":
            simulation.start_steps()
    return _apart(lambda: client.close("one")) if when == "closing" else None


def _apart(call: Callable[[], object]) -> threading.Thread:
    def attempt() -> None:
        try:
            call()
        except CreamasError:  # the daemon has gone under it
            return

    thread = threading.Thread(target=attempt)
    thread.start()
    return thread

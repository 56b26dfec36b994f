"""Signals to a daemon, and to a script that is its client, in the middle of the same things."""

from __future__ import annotations

import json
import os
import select
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from creamas_sc.client import connect_sync
from tests.faults.daemon import LOGS, started
from tests.faults.programs import MarkedProgram, script
from tests.support.programs import BOUND_SECONDS

__all__ = ["CLIENTS", "DAEMONS", "SignalTarget", "client", "daemon"]

DAEMONS = ("run", "start")
SIMULATION = "one"

ASYNC = """
import sys, time
import anyio
from creamas_sc.client import connect, connect_sync

name, moment = sys.argv[1:]
ANY_PORT = ("localhost", 0)
ENVIRONMENT, MANAGER = "creamas_sc:Environment", "creamas_sc.mp:EnvManager"

async def main():
    async with connect(name) as client:
        await client.create("one", slave_addrs=[ANY_PORT] * 2)
        async with client.attach("one") as one:
            await one.spawn("tests.client.society:Sleeper")
            print(moment, flush=True)
            if moment == "idle":
                await anyio.sleep(60)
            if moment == "busy":
                await one.trigger_all()
            if moment == "spawning":
                for _ in range(100):
                    await one.spawn_slaves([ANY_PORT], ENVIRONMENT, MANAGER)
                    await one.spawn_n("tests.support.agents:Echo", 100)
            await one.spawn("tests.support.agents:SlowToClose")
            print("closes", flush=True)
            await client.close("one")

anyio.run(main)
"""
CLIENTS = {
    "sync": ASYNC.replace("anyio.run(main)", "main()")
    .replace("await anyio", "time")
    .replace("connect(", "connect_sync(")
    .replace("async ", "")
    .replace("await ", ""),
    "trio": ASYNC.replace("run(main)", "run(main, backend='trio')"),
    "asyncio": ASYNC,
}
READY = {"idle": "idle", "busy": "busy", "spawning": "spawning", "closing": "closes"}


class SignalTarget:
    """The process that the signals go to.

    Attributes:
        wait: Waits for the end, so many seconds; returns the exit code, negative for a signal.
        complaints: Reads standard error; of a daemon, the unexpected lines of its log.
        program: Its processes.
    """

    def __init__(
        self,
        pid: int,
        wait: Callable[[float], int],
        complaints: Callable[[], str],
        program: MarkedProgram,
    ) -> None:
        self.pid, self.wait, self.complaints, self.program = pid, wait, complaints, program

    @classmethod
    def of(cls, program: MarkedProgram) -> SignalTarget:
        """A program's own process."""
        return cls(program.process.pid, program.process.wait, lambda: _stderr(program), program)

    def send(self, how: signal.Signals, whom: str) -> None:
        """Send a signal to the process, or to its group."""
        (os.killpg if whom == "group" else os.kill)(self.pid, how)


@contextmanager
def daemon(verb: str, name: str, moment: str, folder: Path) -> Iterator[SignalTarget]:
    """A daemon in the foreground or background, whose client has it do something."""
    with _daemon(verb, name, folder) as target, _client("sync", name, moment, folder) as asking:
        yield target
        if moment != "idle":  # it is in a call, whose failure ends it
            asking.process.wait(BOUND_SECONDS)


@contextmanager
def client(form: str, name: str, moment: str, folder: Path) -> Iterator[SignalTarget]:
    """A client in the middle of something; its daemon notices no more than that it goes."""
    with _daemon("run", name, folder) as running, _client(form, name, moment, folder) as program:
        yield SignalTarget.of(program)
        with connect_sync(name, timeout=BOUND_SECONDS) as other:
            if moment in ("idle", "busy"):
                with other.attach(SIMULATION) as one:
                    _expect_left(one, moment)
        running.send(signal.SIGTERM, "process")
        assert running.wait(BOUND_SECONDS) == 0
        running.complaints()


@contextmanager
def _client(form: str, name: str, moment: str, folder: Path) -> Iterator[MarkedProgram]:
    with script(folder, CLIENTS[form], name, moment) as program:
        program.read_until(READY[moment])
        if moment == "busy":
            with connect_sync(name, timeout=BOUND_SECONDS) as other:
                with other.attach(SIMULATION) as one:
                    while not _naps(one)[0]:
                        assert program.process.poll() is None
        yield program


@contextmanager
def _daemon(verb: str, name: str, folder: Path) -> Iterator[SignalTarget]:
    with started(verb, name, folder) as program:
        pid = program.pid
        wait: Callable[[float], int] = program.process.wait
        if verb == "start":
            assert program.process.wait(BOUND_SECONDS) == 0
            (pid,) = (pid for pid, comm in program.members().items() if comm == "creamas-daemon")
            wait = _waits_for(pid)

        def complaints() -> str:
            log = folder / LOGS / f"{name}.log"
            text = _stderr(program) if verb == "run" else log.read_text()
            return "".join(line for line in text.splitlines(True) if not _is_expected(line))

        yield SignalTarget(pid, wait, complaints, program)


def _waits_for(pid: int) -> Callable[[float], int]:
    """How to wait for an adopted orphan: it is a child, though this process did not start it."""

    def wait(seconds: float) -> int:
        pidfd = os.pidfd_open(pid)
        try:
            over, _, _ = select.select([pidfd], [], [], seconds)
            assert over, f"the daemon has not ended within {seconds:g} s"
        finally:
            os.close(pidfd)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    return wait


def _stderr(program: MarkedProgram) -> str:
    assert program.process.stderr is not None
    return program.process.stderr.read().decode()


def _is_expected(line: str) -> bool:
    """Whether it is a line that a daemon logs in the ordinary course."""
    try:
        entry = json.loads(line)
    except ValueError:
        return False
    return entry["level"] in ("info", "warning") and "exception" not in entry


def _naps(one: Any) -> tuple[int, int]:
    (addr,) = one.get_agents()
    begun, cancelled = one.connect(addr).naps()
    return begun, cancelled


def _expect_left(one: Any, moment: str) -> None:
    """The simulation is as it was, but for the client, whose step was cancelled."""
    while one.progress()["clients"] > 1:
        one.next_events(0, timeout=0.01)
    assert _naps(one) == ((1, 1) if moment == "busy" else (0, 0))

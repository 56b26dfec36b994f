"""Monitors a daemon's memory and the calls of a good client during an attack."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import trio

from creamas_sc.client import connect_sync
from creamas_sc.errors import CreamasError
from tests.faults.daemon import LOGS, Daemon
from tests.faults.good_client import SIMULATION
from tests.faults.programs import MarkedProgram
from tests.faults.registry import TOTAL, Figures

__all__ = ["Monitor", "proportional_kib"]

MOST_MIB = 32
P99_SECONDS = 0.1
RECOVERY_SECONDS = 1.0
BOUND_SECONDS = 120.0
SAMPLE_SECONDS = 0.2
# In a log: an unexpected error.
UNEXPECTED = ("Traceback", "inside creamas_sc")

Attack = Callable[[], Awaitable[Figures]]


class Monitor:
    """Monitors a daemon that has the good client's simulation.

    Args:
        folder: The daemon's.
        timely: Record times and check them against their limits.

    Attributes:
        figures: The largest of all attacks; totals are summed.
    """

    def __init__(self, name: str, daemon: Daemon, folder: Path, timely: bool) -> None:
        self.figures: Figures = {}
        self._name = name
        self._daemon = daemon
        self._folder = folder
        self._timely = timely
        self._pids = daemon.program.members()
        self._kib_before = 0
        self._kib_most = 0
        self._calls: list[float] = []
        self._sampled = trio.Event()
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "tests.faults.good_client", self._name]
        log = self._stack.enter_context((self._folder / "client.log").open("wb"))
        self._client = self._stack.enter_context(MarkedProgram(command, self._folder, log))
        self._client.read_until("calling\n")
        return self

    def __exit__(self, *exc_info: object) -> None:
        with self._stack:
            self._client.process.communicate()
        if exc_info[0] is None:
            assert self._client.process.returncode == 0, self._log("client.log")
            for file in (Path("daemon.log"), *(self._folder / LOGS).rglob("*.log")):
                found = [
                    line for line in self._log(file) if any(map(line.__contains__, UNEXPECTED))
                ]
                assert not found, f"{file}: {found[:3]}"

    def _log(self, name: str | Path) -> list[str]:
        return (self._folder / name).read_text().splitlines()

    def during(self, name: str, attack: Attack) -> None:
        """Monitor an attack, and what is there after it.

        Raises:
            AssertionError: A limit was exceeded, or a process has changed.
        """
        self._kib_before = self._kib_before or self._kib()
        self._kib_most = 0
        self._ask()
        self._calls.clear()
        figures = trio.run(self._run, attack)
        began = time.monotonic()
        self._reconnect(began)
        recovered = time.monotonic() - began
        members = self._daemon.program.members()
        assert members == self._pids, f"{self._pids} became {members}"
        p99 = statistics.quantiles(self._calls, n=100)[-1]
        mib = (self._kib_most - self._kib_before) / 1024
        longest = max(self._calls)
        self._note({"MiB more": mib, **figures})
        assert mib <= MOST_MIB, f"{name}: {mib:.1f} MiB more"
        if self._timely:
            self._note({"p99 ms": 1000 * p99, "longest call ms": 1000 * longest})
            self._note({"recovered in s": recovered})
            assert p99 <= P99_SECONDS, f"{name}: p99 {p99:.3f} s of {len(self._calls)} calls"
            assert recovered <= RECOVERY_SECONDS, f"{name}: recovered in {recovered:.2f} s"

    def _note(self, figures: Figures) -> None:
        for name, value in figures.items():
            before = self.figures.get(name)
            summed = name.startswith(TOTAL)
            if before is None:
                self.figures[name] = value
            else:
                self.figures[name] = before + value if summed else max(before, value)

    def _reconnect(self, began: float) -> None:
        """Connect as a new client, as soon as possible."""
        while True:
            try:
                with connect_sync(self._name, timeout=BOUND_SECONDS) as client:
                    with client.attach(SIMULATION) as simulation:
                        simulation.get_age()
                return
            except CreamasError:
                if time.monotonic() - began > BOUND_SECONDS:
                    raise

    async def called(self, count: int) -> None:
        """Wait until the client has made so many more calls."""
        wanted = len(self._calls) + count
        while len(self._calls) < wanted:
            await self._sampled.wait()

    # ---- meanwhile

    async def _run(self, attack: Attack) -> Figures:
        with trio.fail_after(BOUND_SECONDS):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._sample)
                figures = await attack()
                await self.called(1)  # one more look, after it
                nursery.cancel_scope.cancel()
        return figures

    async def _sample(self) -> None:
        while True:
            self._kib_most = max(self._kib_most, self._kib())
            self._calls += await trio.to_thread.run_sync(self._ask)
            sampled, self._sampled = self._sampled, trio.Event()
            sampled.set()
            await trio.sleep(SAMPLE_SECONDS)

    def _ask(self) -> list[float]:
        self._client.say("")
        seconds: list[float] = json.loads(self._client.read_until("["))
        return seconds

    def _kib(self) -> int:
        return sum(map(proportional_kib, self._pids))


def proportional_kib(pid: int) -> int:
    """Proportional set size of a process; 0 if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))

"""W1 and W8: a start and a close, seen from outside the script that has the slaves."""

from __future__ import annotations

import json
import subprocess
import sys
import time

from tests.benchmarks.measures import alive, descendants
from tests.benchmarks.workloads import Report, Sizes

__all__ = ["w1", "w8"]

GONE_SECONDS = 30.0
LOOK_SECONDS = 0.001


def w1(name: str, report: Report, sizes: Sizes) -> None:
    """A cold start: from before the exec of the interpreter until all slaves have answered."""
    for slaves in sizes.cold:
        with _Script(name, slaves) as script:
            for mark, seconds in script.marks.items():
                report(f"start from {mark}", seconds, "s", slaves=slaves)


def w8(name: str, report: Report, sizes: Sizes) -> None:
    """An orderly close: from its request until the script and all its processes are gone."""
    for slaves in sizes.cold:
        with _Script(name, slaves) as script:
            pids = [script.process.pid, *descendants(script.process.pid)]
            began = time.perf_counter()
            script.let_go()
            while left := alive(pids):
                if time.perf_counter() - began > GONE_SECONDS:
                    raise RuntimeError(f"still there: {left}")
                time.sleep(LOOK_SECONDS)
            report("close", time.perf_counter() - began, "s", slaves=slaves)


class _Script:
    """One that has started its slaves.

    Attributes:
        marks: Seconds of its start, by what they count from.
    """

    marks: dict[str, float]

    def __init__(self, name: str, slaves: int) -> None:
        self._arguments = (name, str(slaves))

    def __enter__(self) -> _Script:
        command = [sys.executable, "-m", "tests.benchmarks.child", *self._arguments]
        self.process = subprocess.Popen(
            [*command, repr(time.monotonic())], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self.process.stdout is not None
        self.marks = json.loads(self.process.stdout.readline())
        return self

    def let_go(self) -> None:
        """Have it stop its slaves and end."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    def __exit__(self, *exc_info: object) -> None:
        self.let_go()
        assert self.process.stdout is not None
        self.process.stdout.close()
        if self.process.wait(GONE_SECONDS):
            raise RuntimeError(f"a script of {self._arguments} failed")

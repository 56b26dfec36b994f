"""Run scripts as a user would: from a file, to their end or until a signal."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
BOUND_SECONDS = 30.0


def command(script: Path, *args: str) -> list[str]:
    """How a script is run."""
    return [sys.executable, "-W", "error::ResourceWarning", str(script), *args]


def environ() -> dict[str, str]:
    """The environment of a script that finds this project."""
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def run(
    script: Path, *args: str, seconds: float = BOUND_SECONDS
) -> subprocess.CompletedProcess[str]:
    """Run a script to its end."""
    return subprocess.run(
        command(script, *args),
        env=environ(),
        cwd=script.parent,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


class Running:
    """A running script, in a process group of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.pid = process.pid

    def read_until(self, word: str, seconds: float = BOUND_SECONDS) -> str:
        """Read lines until one contains ``word``; returns that line."""
        assert self.process.stdout is not None
        while True:
            # The pipe is read without a buffer, so select knows about everything in it.
            assert select.select([self.process.stdout], [], [], seconds)[0], f"no {word!r}"
            line = ""
            while not line.endswith("\n"):
                char = os.read(self.process.stdout.fileno(), 1).decode()
                assert char, f"ended before {word!r}: {self.process.communicate()}"
                line += char
            if word in line:
                return line.strip()

    def signal(self, number: signal.Signals, *, group: bool = False) -> None:
        """Send a signal to the script, or to its process group as a terminal does."""
        if group:
            os.killpg(self.pid, number)
        else:
            os.kill(self.pid, number)

    def finish(self, seconds: float = BOUND_SECONDS) -> tuple[int, str, str]:
        """Wait for the end; exit code, rest of the output, and stderr."""
        out, err = self.process.communicate(timeout=seconds)
        return self.process.returncode, out, err


@contextmanager
def running(script: Path, *args: str) -> Iterator[Running]:
    """Run a script for the block; kill it at the end if it is still running."""
    process = subprocess.Popen(
        command(script, *args),
        env=environ(),
        cwd=script.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        try:
            yield Running(process)
        finally:
            process.kill()

"""Programs that faults are injected into; an environment variable marks all their descendants."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from tests.support.programs import Program, environ

MARK = "CREAMAS_TEST_MARK"
POLL_SECONDS = 0.005


def reap_orphans() -> None:
    """Reap adopted processes that have ended."""
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG) == (0, 0):
                return
        except ChildProcessError:
            return


def marked(mark: str) -> dict[int, str]:
    """Pid and name of each living process with that mark."""
    found = {}
    wanted = f"{MARK}={mark}".encode()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if wanted in (entry / "environ").read_bytes().split(b"\0"):
                found[int(entry.name)] = (entry / "comm").read_text().strip()
        except OSError:  # it has just ended, or is a zombie without memory
            continue
    return found


class MarkedProgram(Program):
    """A running command and all its descendants, detached ones included."""

    def __init__(
        self, command: list[str], folder: Path, stderr: int | IO[bytes] = subprocess.PIPE
    ) -> None:
        self.mark = secrets.token_hex(8)
        super().__init__(command, folder, stderr=stderr, env=environ(**{MARK: self.mark}))

    def members(self) -> dict[int, str]:
        """Pid and name of each living process with the mark."""
        return marked(self.mark)

    def wait_none(self, seconds: float, but: Collection[int] = ()) -> float:
        """Wait until no process with the mark is left but those named; how long that took.

        Raises:
            AssertionError: Some were left after ``seconds``.
        """
        began = time.monotonic()
        # Waiting for a list of pids would not do: a process may be forking right now.
        while left := {pid: name for pid, name in self.members().items() if pid not in but}:
            assert time.monotonic() - began < seconds, f"left after {seconds:g} s: {left}"
            time.sleep(POLL_SECONDS)
        return time.monotonic() - began

    def kill(self, name: str) -> None:
        """Kill the one process of that name."""
        pids = [pid for pid, comm in self.members().items() if comm == name]
        assert len(pids) == 1, f"{name}: {self.members()}"
        os.kill(pids[0], signal.SIGKILL)

    def __exit__(self, *exc_info: object) -> None:
        self.process.kill()
        for pid in self.members():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        super().__exit__(*exc_info)


@contextmanager
def script(folder: Path, text: str, *args: str) -> Iterator[MarkedProgram]:
    """Run a Python script for the block; what is left of it at the end is killed."""
    path = folder / "script.py"
    path.write_text(text)
    with MarkedProgram([sys.executable, str(path), *args], folder) as program:
        yield program

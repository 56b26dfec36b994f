"""Programs that faults are injected into; an environment variable marks all their descendants."""

from __future__ import annotations

import ctypes
import os
import secrets
import select
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Self

PR_SET_CHILD_SUBREAPER = 36
MARK = "CREAMAS_TEST_MARK"
ROOT = Path(__file__).parents[2]
BOUND_SECONDS = 30.0
POLL_SECONDS = 0.005


def adopt_orphans() -> None:
    """Make descendants that lose their parent this process's children."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


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
        except OSError:  # it has just ended, or is over and has no memory any more
            continue
    return found


class Program:
    """A running command and all its descendants, detached ones included."""

    def __init__(
        self, command: list[str], folder: Path, stderr: int | IO[bytes] = subprocess.PIPE
    ) -> None:
        self.mark = secrets.token_hex(8)
        environ = {**os.environ, MARK: self.mark, "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(
            command,
            env=environ,
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            start_new_session=True,
        )
        self.out = b""

    def read_until(self, word: str, seconds: float = BOUND_SECONDS) -> None:
        """Wait until ``word`` was printed."""
        assert self.process.stdout is not None
        deadline = time.monotonic() + seconds
        while word.encode() not in self.out:
            left = deadline - time.monotonic()
            assert left > 0, f"no {word!r} in {self.out!r}"
            assert select.select([self.process.stdout], [], [], left)[0], f"no {word!r}"
            data = os.read(self.process.stdout.fileno(), 4096)
            assert data, f"ended before {word!r}: {self.process.communicate()}"
            self.out += data

    def say(self, line: str) -> None:
        """Write a line to its standard input."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n".encode())
        self.process.stdin.flush()

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

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> int:
        """Signal the one process of that name; its pid."""
        pids = [pid for pid, comm in self.members().items() if comm == name]
        assert len(pids) == 1, f"{name}: {self.members()}"
        os.kill(pids[0], number)
        return pids[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.process.kill()
        for pid in self.members():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.communicate()


@contextmanager
def script(folder: Path, text: str, *args: str) -> Iterator[Program]:
    """Run a Python script for the block; what is left of it at the end is killed."""
    path = folder / "script.py"
    path.write_text(text)
    with Program([sys.executable, str(path), *args], folder) as program:
        yield program

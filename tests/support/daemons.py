"""Starts daemons for tests, as `supervisor.daemon.process.start` does, but as children.

It imports neither trio nor the supervisor: the client's tests also run where only a client is
installed, and may have the daemon on another Python.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from creamas_sc.runtime.paths import daemon_socket
from tests.support import processes
from tests.support.programs import ROOT

NAME = "test"
READY = "ready"  # as in `supervisor.daemon.process`, which a client alone cannot import
BOUND_SECONDS = 20.0


@dataclass
class Daemon:
    """A daemon that is a child of this process."""

    process: subprocess.Popen[bytes]
    name: str
    socket: Path
    log_folder: Path

    @property
    def log(self) -> str:
        """What it has logged."""
        return (self.log_folder / f"{self.name}.log").read_text()

    @property
    def family(self) -> dict[str, int]:
        """Pids of all its processes, by role or actor's name."""
        (keeper,) = processes.children(self.process.pid)
        return {"run": self.process.pid, **processes.family(keeper)}


def spawn(log_folder: Path, name: str = NAME, *nodes: str) -> tuple[Daemon, int]:
    """Start a daemon without waiting for it; returns it, and the pipe that it reports to.

    It listens for ``nodes``, a host and a port, if these are given.

    Its Python is ``$CREAMAS_TEST_PYTHON``, or the one that runs the tests.
    """
    read, write = os.pipe()
    python = os.environ.get("CREAMAS_TEST_PYTHON", sys.executable)
    main = ROOT / "supervisor" / "__main__.py"
    process = subprocess.Popen(
        [python, "-P", main, "daemon", name, log_folder, str(write), *nodes],
        stdin=subprocess.DEVNULL,
        pass_fds=[write],
        start_new_session=True,
    )
    os.close(write)
    return Daemon(process, name, daemon_socket(name), log_folder), read


def report(read: int) -> str:
    """Read how a start went: READY, or the text of an error; closes the pipe."""
    try:
        assert select.select([read], [], [], BOUND_SECONDS)[0], "no start"
        return os.read(read, 1 << 16).decode()
    finally:
        os.close(read)


@contextmanager
def running(log_folder: Path, name: str = NAME, *nodes: str) -> Iterator[Daemon]:
    """A daemon for the length of the block, as `spawn` starts it; it may have ended by then."""
    daemon, read = spawn(log_folder, name, *nodes)
    try:
        assert report(read).partition("\n")[0] == READY
        yield daemon
    finally:
        end(daemon)


def end(daemon: Daemon) -> None:
    """End a daemon, unless it has ended."""
    process = daemon.process
    if process.poll() is None:
        process.send_signal(signal.SIGCONT)
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(BOUND_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise

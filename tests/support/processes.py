"""Processes of this machine: their children, waiting for their ends, killing several at once."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans() -> None:
    """Make this process the parent of descendants that lose theirs."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def reap_orphan(pid: int) -> bool:
    """Reap one of our processes if it has ended and lost its parent; return whether it was one."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True
    name, _, rest = stat.partition("(")[2].rpartition(")")
    if rest.split()[0] == "Z" and name.startswith("creamas"):
        os.waitpid(pid, os.WNOHANG)
        return True
    return False


def kill_together(*pids: int) -> None:
    """SIGKILL them all, so that none sees another's death."""
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in pids:
            os.kill(pid, number)


def family(keeper_pid: int) -> dict[str, int]:
    """Pids of a tree's keeper, zygote, supervisor and actors, by role or actor's name."""
    zygote = children(keeper_pid)[0]
    named = {(Path("/proc") / str(p) / "comm").read_text().strip(): p for p in children(zygote)}
    return {
        "keeper": keeper_pid,
        "zygote": zygote,
        "supervisor": named.pop("creamas-superv"),
        **named,
    }


def record_of(pid: int) -> str:
    """The path of the tree's record that a process inherited."""
    (found,) = (
        each.removeprefix("CREAMAS_TREE=")
        for each in Path(f"/proc/{pid}/environ").read_text().split("\0")
        if each.startswith("CREAMAS_TREE=")
    )
    return found


def is_stopped(pid: int) -> bool:
    """Whether a process is stopped, as by SIGSTOP."""
    return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] == b"T"


def children(pid: int) -> list[int]:
    """Pids of the children of ``pid``."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_bytes()
            except OSError:
                continue
            if int(stat.rpartition(b")")[2].split()[1]) == pid:
                found.append(int(entry.name))
    return sorted(found)


def parent(pid: int) -> int:
    """Pid of the parent of ``pid``."""
    return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[1])


def open_pidfds(pids: Iterable[int]) -> dict[int, int]:
    """Map each pid to a pidfd."""
    return {pid: os.pidfd_open(pid) for pid in set(pids)}


def wait_gone(pidfds: dict[int, int], seconds: float) -> list[int]:
    """Wait until all have ended; close the pidfds and return the pids that are still there."""
    left = dict(pidfds)
    deadline = time.monotonic() + seconds
    while left:
        remaining = max(0.0, deadline - time.monotonic())
        poll = select.poll()
        for fd in left.values():
            poll.register(fd, select.POLLIN)
        ended = {fd for fd, _ in poll.poll(remaining * 1000)}
        left = {pid: fd for pid, fd in left.items() if fd not in ended}
        if not remaining:
            break
    for fd in pidfds.values():
        os.close(fd)
    return sorted(left)


@contextmanager
def reaping_orphans(seconds: float = 2.0) -> Iterator[None]:
    """Wait for what a block's programs leave, which must end, and reap it.

    It becomes this process's: of multiprocessing, say, which has one that outlives the program.
    """
    before = {*children(os.getpid())}
    yield
    pidfds = open_pidfds({*children(os.getpid())} - before)
    assert not wait_gone(pidfds, seconds)
    for pid in pidfds:
        os.waitpid(pid, 0)

"""What Linux offers to make sure that a process ends: death signals, adoption, pidfds.

Standard library only: the keeper runs on this.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import time

from supervisor.timeouts import SWEEP_SECONDS

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_STATE_ZOMBIE = b"Z"
_STATE_STOPPED = b"T"
# Of /proc/PID/stat, counted from the state on.
_STAT_PARENT = 1
_STAT_TERMINAL = 4
_STAT_START = 19

_libc = ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, argument: int | bytes) -> None:
    value = argument if isinstance(argument, bytes) else ctypes.c_ulong(argument)
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"prctl({option}): {os.strerror(error)}")


def become_subreaper() -> None:
    """Adopt orphans among the descendants, in place of init."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def name_process(name: str) -> None:
    """Set what ``ps`` shows as the command; 15 bytes of it are kept."""
    _prctl(_PR_SET_NAME, name.encode()[:15])


def keep_freed_memory() -> None:
    """Have the C library reuse what was freed, up to some megabytes, and not give it back at once.

    An array of 1 MiB that comes and goes would otherwise be 256 page faults each time, which take
    longer than all else that is done with it.
    """
    try:
        mallopt = _libc.mallopt
    except AttributeError:  # not glibc
        return
    mallopt(_M_TRIM_THRESHOLD, 16 << 20)
    mallopt(_M_MMAP_THRESHOLD, 8 << 20)


def die_with_parent(parent_pid: int, with_signal: signal.Signals) -> None:
    """Have the kernel send ``with_signal`` when the parent ends; exit if it already has.

    The parent must have forked from its only thread: a thread's end counts as the parent's.
    """
    _prctl(_PR_SET_PDEATHSIG, with_signal)
    if os.getppid() != parent_pid:
        os._exit(1)


def kill_pidfd(pidfd: int, with_signal: signal.Signals) -> bool:
    """Signal the very process that ``pidfd`` was opened for; whether it was still there."""
    try:
        signal.pidfd_send_signal(pidfd, with_signal)
    except ProcessLookupError:
        return False
    return True


def has_ended(pidfd: int) -> bool:
    """Whether the process is over, reaped or not."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def wake(pid: int) -> bool:
    """Have a process go on if a signal has stopped it; whether it was stopped."""
    if _stat(pid)[:1] != [_STATE_STOPPED]:
        return False
    try:
        os.kill(pid, signal.SIGCONT)
    except ProcessLookupError:  # it has ended meanwhile
        return False
    return True


def zombie_status(pid: int) -> int | None:
    """Wait status of a process that has ended and is not reaped yet; None if unknown."""
    fields = _stat(pid)
    return int(fields[-1]) if fields and fields[0] == _STATE_ZOMBIE else None


def start_time(pid: int) -> int | None:
    """When it started, in clock ticks since boot: with it a pid is unique; None if it is gone."""
    fields = _stat(pid)
    return int(fields[_STAT_START]) if fields else None


def parent(pid: int) -> int:
    """Pid of its parent; 0 if it has none, or is gone."""
    fields = _stat(pid)
    return int(fields[_STAT_PARENT]) if fields else 0


def has_terminal(pid: int) -> bool:
    """Whether it has a controlling terminal."""
    fields = _stat(pid)
    return bool(fields) and fields[_STAT_TERMINAL] != b"0"


def _stat(pid: int) -> list[bytes]:
    """What /proc has of a process from its state on; nothing if it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()
    except OSError:
        return []


def children() -> list[int]:
    """Pids of the children of this process, adopted and unreaped ones included."""
    pid = os.getpid()
    try:
        with open(f"/proc/{pid}/task/{pid}/children", "rb") as file:
            return [int(word) for word in file.read().split()]
    except OSError:  # a kernel without CONFIG_PROC_CHILDREN
        others = [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]
        return [each for each in others if _stat(each)[_STAT_PARENT:][:1] == [b"%d" % pid]]


def reap() -> list[tuple[int, int]]:
    """Collect the children that have ended: their pids and wait statuses."""
    ended: list[tuple[int, int]] = []
    try:
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return ended
            ended.append((pid, status))
    except ChildProcessError:
        return ended


def kill_child(pid: int) -> bool:
    """Kill a child; False if it has become another user's, as `sudo` does: it may not be killed."""
    try:
        os.kill(pid, signal.SIGKILL)
    except PermissionError:
        return False
    return True


def sweep() -> bool:
    """Kill and reap every child, and what that adopts in turn; whether none is left to kill."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    deadline = time.monotonic() + SWEEP_SECONDS
    while time.monotonic() < deadline:
        of_others = {pid for pid in children() if not kill_child(pid)}
        reap()
        if not set(children()) - of_others:
            return True
        signal.sigtimedwait({signal.SIGCHLD}, 0.01)
    return False

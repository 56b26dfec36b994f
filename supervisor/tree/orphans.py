"""Orphans: what a tree leaves behind if its keeper and zygote are killed at one blow.

Any other death in a tree is cleaned up by a process above it (see `supervisor.tree.zygote`). For
this one each tree has a record, a file that its keeper and its zygote hold locked for as long as
they live, and whose path is in the environment of everything that comes of the tree, however
it forks itself away. The next keeper that starts looks at all records of its user:

    locked               the tree lives: leave it alone
    not locked           both died: end what bears the record's path, then remove the record
    of an earlier boot   nothing can be left: remove it
    of another pid namespace   leave it to a start there

A lock needs no pid, so this is right in any container and after any reboot; the kernel releases it
when its holders die. Two sweeps at a time share out the records, as each locks those that it works
on; a new record appears whole and locked, so no sweep takes it for that of a dead tree.

A process is ended only if all of this holds: it is this user's; its environment names a record that
no process holds locked and whose keeper is gone; pids mean the same as when that was written; it
started after that keeper; it does not own a living tree itself, as a daemon or script does that an
agent has started; and neither it nor its parents or descendants have a controlling terminal, where
a person may work by now, as in a terminal multiplexer that an agent has started. A name or a pid
alone never suffices.

Standard library only: the keeper runs on this.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import stat
import time
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from supervisor.timeouts import ORPHANS_SECONDS
from supervisor.tree import linux

# As in `creamas_sc.supervisor_client.launcher`, which sets it for each keeper.
VARIABLE = "CREAMAS_TREE"
SUFFIX = ".tree"
_RECORD_BYTES = 512


class Mark(NamedTuple):
    """A process, which cannot be mistaken for a later one with the same pid."""

    pid: int
    start: int


class Record(NamedTuple):
    """What is known of a tree.

    Attributes:
        name: Of its file, which its processes bear.
        held: Whether its keeper or zygote lives.
        place: Boot and pid namespace of its processes.
        owner: The script or daemon that started it.
    """

    name: str
    held: bool
    place: tuple[str, str]
    owner: Mark
    keeper: Mark


class Bearer(NamedTuple):
    """A process of this user whose environment names a record.

    Attributes:
        parent: Pid of its parent.
        terminal: Whether it has a controlling terminal.
    """

    mark: Mark
    record: str
    parent: int = 0
    terminal: bool = False


# ---- records


def current_place() -> tuple[str, str]:
    """The boot and the pid namespace in which this process's pids mean something.

    Raises:
        OSError: /proc does not say, or is that of another namespace.
    """
    if os.readlink("/proc/self") != str(os.getpid()):
        raise ProcessLookupError("/proc is that of another pid namespace")
    with open("/proc/sys/kernel/random/boot_id") as file:
        boot = file.read().strip()
    return boot, os.readlink("/proc/self/ns/pid")


def write(path: str, owner_pid: int) -> int:
    """Make the record of the tree whose keeper this process is.

    It appears whole and locked, so that no sweep can take it for a dead tree's.

    Returns:
        A descriptor that holds the lock, in this process and in those it forks.

    Raises:
        OSError: There can be none, or there is one: another tree's.
    """
    pid = os.getpid()
    marks = (owner_pid, linux.start_time(owner_pid) or 0, pid, linux.start_time(pid) or 0)
    draft = f"{path}.new"
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(draft, flags, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.write(fd, " ".join(map(str, (*current_place(), *marks))).encode())
        os.link(draft, path)
    except BaseException:
        os.close(fd)
        raise
    finally:
        os.unlink(draft)
    return fd


# ---- what to end


def victims(
    known: Iterable[Record], place: tuple[str, str], seen: Sequence[Bearer]
) -> list[Bearer]:
    """The orphans among ``seen``: processes of dead trees.

    Args:
        place: Where ``seen`` was seen; see `current_place`.
    """
    known = list(known)
    dead = {record.name: record for record in known if not record.held and record.place == place}
    owners = {record.owner for record in known if record.held}
    living = {bearer.mark for bearer in seen}
    parents = {bearer.mark.pid: bearer.parent for bearer in seen}

    def root(bearer: Bearer) -> int:
        pid = bearer.mark.pid
        for _ in parents:  # looked at one by one, they may seem to be each other's parents
            if parents[pid] not in parents:
                break
            pid = parents[pid]
        return pid

    at_terminals = {root(bearer) for bearer in seen if bearer.terminal}
    found = []
    for bearer in seen:
        record = dead.get(bearer.record)
        if record is None or record.keeper in living or bearer.mark in owners:
            continue
        if root(bearer) in at_terminals:
            continue
        if bearer.mark.start >= record.keeper.start:
            found.append(bearer)
    return found


def over(known: Iterable[Record], place: tuple[str, str], seen: Sequence[Bearer]) -> set[str]:
    """Names of the records of which nothing is left: no process bears them, or an old boot's."""
    borne = {bearer.record for bearer in seen}
    return {
        record.name
        for record in known
        if not record.held
        and (record.place[0] != place[0] or (record.place == place and record.name not in borne))
    }


# ---- the sweep


def sweep(folder: str) -> None:
    """End the orphans of trees whose records are in ``folder``, and remove these records.

    It takes a second at most. A process that the kernel does not let die until then is left to the
    next start.

    Raises:
        OSError: The folder or /proc cannot be read.
    """
    give_up_at = time.monotonic() + ORPHANS_SECONDS
    place = current_place()
    known, locks = _take_records(folder)
    try:
        while locks:
            pids = [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]
            seen = [bearer for pid in pids if (bearer := _look_at(pid)) is not None]
            for name in over(known, place, seen) & locks.keys():
                os.unlink(os.path.join(folder, name))
                os.close(locks.pop(name))
            killed = [fd for each in victims(known, place, seen) if (fd := _kill(each)) is not None]
            if not killed or not _wait_ended(killed, give_up_at):
                return
    finally:
        for fd in locks.values():
            os.close(fd)


def _take_records(folder: str) -> tuple[list[Record], dict[str, int]]:
    """All records, and by name the locks of those that were not held."""
    known: list[Record] = []
    locks: dict[str, int] = {}
    for name in os.listdir(folder):
        if not name.endswith(SUFFIX):
            continue
        path = os.path.join(folder, name)
        try:
            fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:  # its tree has just ended, or it is not a record
            continue
        held = False
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # held, or this file system has no locks
            held = True
        record = _read(name, held, fd)
        if record is not None:
            known.append(record)
        if held or record is None:
            os.close(fd)
        else:
            locks[name] = fd
    return known, locks


def _read(name: str, held: bool, fd: int) -> Record | None:
    """What the file says; None if it is not a record, or another sweep has just removed it."""
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or not status.st_nlink:
        return None
    try:
        boot, namespace, *numbers = os.pread(fd, _RECORD_BYTES, 0).decode().split()
        owner, owner_start, keeper, keeper_start = map(int, numbers)
    except ValueError:
        return None
    return Record(
        name, held, (boot, namespace), Mark(owner, owner_start), Mark(keeper, keeper_start)
    )


def _look_at(pid: int) -> Bearer | None:
    """What it bears; None if it bears nothing, is another user's, or is gone."""
    wanted = f"{VARIABLE}=".encode()
    try:
        if os.stat(f"/proc/{pid}").st_uid != os.geteuid():
            return None
        with open(f"/proc/{pid}/environ", "rb") as file:
            borne = [each for each in file.read().split(b"\0") if each.startswith(wanted)]
    except OSError:
        return None
    start = linux.start_time(pid)
    if not borne or start is None:
        return None
    name = os.path.basename(os.fsdecode(borne[0][len(wanted) :]))
    return Bearer(Mark(pid, start), name, linux.parent(pid), linux.has_terminal(pid))


def _kill(bearer: Bearer) -> int | None:
    """Kill it; returns a pidfd of it, None if it is gone or may not be killed."""
    try:
        pidfd = os.pidfd_open(bearer.mark.pid)
    except OSError:
        return None
    try:
        # Only now is it certain that the pid is still that process's.
        there = _look_at(bearer.mark.pid)
        same = there is not None and (there.mark, there.record) == (bearer.mark, bearer.record)
        if same and linux.kill_pidfd(pidfd, signal.SIGKILL):
            return pidfd
    except PermissionError:  # it has become another user's
        pass
    os.close(pidfd)
    return None


def _wait_ended(pidfds: Sequence[int], give_up_at: float) -> bool:
    """Wait until all are over, and close them; False if time ran out."""
    left = set(pidfds)
    poll = select.poll()
    for fd in left:
        poll.register(fd, select.POLLIN)
    while left and (remaining := give_up_at - time.monotonic()) > 0:
        for fd, _ in poll.poll(remaining * 1000):
            poll.unregister(fd)
            left.discard(fd)
    for fd in pidfds:
        os.close(fd)
    return not left

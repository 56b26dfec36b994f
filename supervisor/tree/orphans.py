"""What trees left behind whose keeper and zygote were killed at one blow: found, and ended.

A process is ended only where all of this holds: it is this user's; its environment names a record
(see `supervisor.tree.tree_record`) that no process holds locked and whose keeper is gone; pids mean
the same as when that was written; it started after that keeper; and it owns no living tree itself,
as a daemon or script does that an agent has started. A name or a pid alone never suffices.
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

from supervisor.timeouts import LEFTOVERS_SECONDS
from supervisor.tree import linux, tree_record

_RECORD_BYTES = 512


class Mark(NamedTuple):
    """A process that cannot be mistaken for a later one with its pid."""

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
    """A process of this user whose environment names a record."""

    mark: Mark
    record: str


def victims(
    known: Iterable[Record], place: tuple[str, str], seen: Sequence[Bearer]
) -> list[Bearer]:
    """Those of ``seen`` that a dead tree has left here.

    Args:
        place: Where ``seen`` was seen; see `supervisor.tree.tree_record.place`.
    """
    known = list(known)
    dead = {record.name: record for record in known if not record.held and record.place == place}
    owners = {record.owner for record in known if record.held}
    living = {bearer.mark for bearer in seen}
    found = []
    for bearer in seen:
        record = dead.get(bearer.record)
        if record is None or record.keeper in living or bearer.mark in owners:
            continue
        if bearer.mark.start >= record.keeper.start:
            found.append(bearer)
    return found


def over(known: Iterable[Record], place: tuple[str, str], seen: Sequence[Bearer]) -> set[str]:
    """Names of the records of which nothing is left: nobody bears them, or they are of old boots.

    Those of another pid namespace are left to a start there.
    """
    borne = {bearer.record for bearer in seen}
    return {
        record.name
        for record in known
        if not record.held
        and (record.place[0] != place[0] or (record.place == place and record.name not in borne))
    }


def sweep(folder: str) -> None:
    """End what is left of dead trees whose records are in ``folder``, and remove those.

    It takes a second at most: what is left then, a process that the kernel does not let die, is the
    next start's. Of two sweeps at once each record is one's alone, as it is locked meanwhile.

    Raises:
        OSError: The folder or /proc cannot be read.
    """
    give_up_at = time.monotonic() + LEFTOVERS_SECONDS
    place = tree_record.place()
    known, locks = _take_records(folder)
    try:
        while locks:
            seen = _bearers()
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
    """All records, and by name the locks of those that nobody held."""
    known: list[Record] = []
    locks: dict[str, int] = {}
    for name in os.listdir(folder):
        if not name.endswith(tree_record.SUFFIX):
            continue
        path = os.path.join(folder, name)
        try:
            fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:  # its tree has just ended, or it is no record
            continue
        held = not _lock(fd)
        record = _read(name, held, fd)
        if record is not None:
            known.append(record)
        if held or record is None:
            os.close(fd)
        else:
            locks[name] = fd
    return known, locks


def _lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # held, or not to be had
        return False
    return True


def _read(name: str, held: bool, fd: int) -> Record | None:
    """What the file says; None where it is none of ours, or another sweep has just removed it."""
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


def _bearers() -> list[Bearer]:
    """All living processes of this user that bear a record."""
    pids = (int(entry) for entry in os.listdir("/proc") if entry.isdigit())
    return [bearer for pid in pids if (bearer := _look_at(pid)) is not None]


def _look_at(pid: int) -> Bearer | None:
    """What it bears; None where that is nothing, or it is another user's or gone."""
    wanted = f"{tree_record.VARIABLE}=".encode()
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
    return Bearer(Mark(pid, start), os.path.basename(os.fsdecode(borne[0][len(wanted) :])))


def _kill(bearer: Bearer) -> int | None:
    """Kill it; a pidfd of it, None where it is gone or may not be killed."""
    try:
        pidfd = os.pidfd_open(bearer.mark.pid)
    except OSError:
        return None
    try:
        # Only now is it sure that nobody else has got its pid.
        if _look_at(bearer.mark.pid) == bearer and linux.kill_pidfd(pidfd, signal.SIGKILL):
            return pidfd
    except PermissionError:  # it has become another user's
        pass
    os.close(pidfd)
    return None


def _wait_ended(pidfds: Sequence[int], give_up_at: float) -> bool:
    """Wait until all are over, and close them; False where time ran out."""
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

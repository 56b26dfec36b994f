"""The record of a tree: a file that is locked for as long as the tree's keeper or zygote lives.

Its path is in the environment of the keeper, and so of whatever comes of the tree, wherever that
forks itself to. Where nobody holds the lock any more, both died at one blow: what still bears the
path is left over, and `supervisor.tree.orphans` ends it at the next start. A lock needs no pid, so
it is right in any container and after any reboot; the kernel lets go of it when its holders die.

Standard library only: the keeper runs on this.
"""

from __future__ import annotations

import fcntl
import os

from supervisor.tree import linux

# As in `creamas_sc.processes.launcher`, which sets it for each keeper.
VARIABLE = "CREAMAS_TREE"
SUFFIX = ".tree"


def place() -> tuple[str, str]:
    """The boot and the pid namespace in which this process's pids mean something.

    Raises:
        OSError: /proc does not tell, or is that of another namespace.
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
        os.write(fd, " ".join(map(str, (*place(), *marks))).encode())
        os.link(draft, path)
    except BaseException:
        os.close(fd)
        raise
    finally:
        os.unlink(draft)
    return fd


def others(path: str) -> bool:
    """Whether its folder has records beside that of ``path``."""
    folder, own = os.path.split(path)
    return any(name.endswith(SUFFIX) and name != own for name in os.listdir(folder))

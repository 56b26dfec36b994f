"""One daemon per name: a lock file beside the daemon's socket.

The lock is a ``flock``, and every process of a daemon inherits its descriptor (see `process`), so

    locked, socket answers      the daemon runs
    locked, no answer           it is starting or ending, or its owner was killed and the rest of it
                                is about to end
    not locked                  nothing of it is left: files that are still there are removed

The lock file is removed last, while it is locked, and a process that locks it checks that it is
still the one at that path: so two daemons never hold locks of two files for one name.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from creamas_sc.errors import StartError
from creamas_sc.runtime.peer_user import peer_pid
from supervisor.timeouts import LOCK_PAUSE_SECONDS, LOCK_SECONDS


@contextmanager
def locked(path: Path) -> Iterator[int]:
    """Hold the lock beside the socket ``path``; gives its descriptor.

    Waits a little for a daemon that is ending. At the end socket and lock are removed, unless a
    process of this daemon is left, which holds the lock too.

    Raises:
        StartError: There is a daemon of that name.
    """
    give_up_at = time.monotonic() + LOCK_SECONDS
    while (fd := take(path)) is None:
        runs = listens(path)
        if runs or time.monotonic() > give_up_at:
            try:
                holder = lock_path(path).read_text(errors="replace").strip()
            except FileNotFoundError:  # it has ended
                holder = ""
            how = "runs already" if runs else "is starting or ending"
            raise StartError(f"daemon {path.stem!r} {how} (pid {holder or 'unknown'})")
        time.sleep(LOCK_PAUSE_SECONDS)  # a lock has no wait with a bound
    try:
        write_holder(fd, os.getpid())
        yield fd
    finally:
        os.close(fd)
        _clear(path)


def lock_path(path: Path) -> Path:
    """The lock beside the socket ``path``."""
    return path.with_suffix(".lock")


def write_holder(fd: int, pid: int) -> None:
    """Write into a lock who holds it, for messages; a full disk does no harm."""
    with suppress(OSError):
        os.ftruncate(fd, 0)
        os.pwrite(fd, b"%d\n" % pid, 0)


def identity(path: Path) -> tuple[int, int] | None:
    """Which file is at ``path``; None if there is none, or if that cannot be known."""
    try:
        status = path.lstat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def take(path: Path) -> int | None:
    """Take the lock; returns a descriptor that holds it, None while another process does.

    Raises:
        StartError: The lock file cannot be opened.
    """
    lock = lock_path(path)
    try:
        fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StartError(f"cannot open the lock {lock}: {error.strerror}") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(fd), lock.lstat()):
            return fd
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)  # held; or its holder has just removed it
    return None


def is_held(path: Path) -> bool:
    """Whether any process of the daemon at ``path`` is left: all of them hold its lock."""
    try:
        with lock_path(path).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def listens(path: Path) -> bool:
    """Whether any process accepts connections at the socket ``path``."""
    return listener_pid(path) is not None


def listener_pid(path: Path) -> int | None:
    """The process that accepts connections at the socket ``path``; 0 if it is not known."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.setblocking(False)
        try:
            sock.connect(os.fspath(path))
        except OSError as error:
            return 0 if error.errno == errno.EAGAIN else None  # its queue is full
        return peer_pid(sock)


def clear_socket(path: Path) -> None:
    """Remove the socket of a daemon that was killed.

    Raises:
        StartError: It is something else, or another process uses it.
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise StartError(f"{path} is in the way and is not a socket: remove it")
    if (pid := listener_pid(path)) is not None:
        named = f" (pid {pid})" if pid else ""
        raise StartError(f"another process{named} is listening on {path}: stop it first")
    path.unlink()


def clear_dead(folder: Path) -> None:
    """Remove sockets and locks of all daemons of which nothing is left."""
    for lock in folder.glob("*.lock"):
        _clear(lock.with_suffix(".sock"))


def _clear(path: Path) -> None:
    """Remove socket and lock, unless a process holds the lock or uses the socket."""
    with suppress(StartError):  # a start of that name will raise it
        fd = take(path)
        if fd is None:
            return
        with os.fdopen(fd), suppress(OSError):  # of a folder that cannot be written now
            try:
                clear_socket(path)
            finally:
                lock_path(path).unlink(missing_ok=True)  # last: then the name is free

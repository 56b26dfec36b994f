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
    while (fd := _take(path)) is None:
        runs = listens(path)
        if runs or time.monotonic() > give_up_at:
            try:
                holder = _lock_of(path).read_text(errors="replace").strip()
            except FileNotFoundError:  # it has ended
                holder = ""
            how = "runs already" if runs else "is starting or ending"
            raise StartError(f"daemon {path.stem!r} {how} (pid {holder or 'unknown'})")
        time.sleep(LOCK_PAUSE_SECONDS)  # a lock has no wait with a bound
    try:
        os.ftruncate(fd, 0)
        os.pwrite(fd, b"%d\n" % os.getpid(), 0)
        yield fd
    finally:
        os.close(fd)
        _clear(path)


def _lock_of(path: Path) -> Path:
    return path.with_suffix(".lock")


def _take(path: Path) -> int | None:
    """Take the lock; returns a descriptor that holds it, None while another process does.

    Raises:
        StartError: The lock file cannot be opened.
    """
    lock = _lock_of(path)
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
        with _lock_of(path).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def listens(path: Path) -> bool:
    """Whether any process accepts connections at the socket ``path``."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.setblocking(False)
        try:
            sock.connect(os.fspath(path))
        except OSError as error:
            return error.errno == errno.EAGAIN  # its queue is full
    return True


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
    if listens(path):
        raise StartError(f"another process is listening on {path}: stop it first")
    path.unlink()


def clear_dead(folder: Path) -> None:
    """Remove sockets and locks of all daemons of which nothing is left."""
    for lock in folder.glob("*.lock"):
        _clear(lock.with_suffix(".sock"))


def _clear(path: Path) -> None:
    """Remove socket and lock, unless a process holds the lock or uses the socket."""
    with suppress(StartError):  # a start of that name will raise it
        fd = _take(path)
        if fd is None:
            return
        try:
            clear_socket(path)
        finally:
            _lock_of(path).unlink(missing_ok=True)  # last: then the name is free
            os.close(fd)

"""One daemon of a name: a lock beside its socket, and what a dead one has left is cleared."""

from __future__ import annotations

import fcntl
import os
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from creamas_sc.errors import StartError
from supervisor.timeouts import DISMISS_SECONDS, LOCK_PAUSE_SECONDS, LOCK_SECONDS

__all__ = ["clear_dead", "clear_socket", "locked"]


@contextmanager
def locked(path: Path) -> Iterator[int]:
    """Hold the lock beside the socket ``path``; its descriptor.

    Waits a little for one that is just ending. At the end socket and lock are removed, unless a
    process of the daemon's is left, which holds the lock too.

    Raises:
        StartError: There is a daemon already.
    """
    give_up_at = time.monotonic() + LOCK_SECONDS
    while (fd := _take(path)) is None:
        listens = _somebody_listens(path)
        if listens or time.monotonic() > give_up_at:
            how = "runs already" if listens else "is starting or ending"
            raise StartError(f"daemon {path.stem!r} {how} (pid {_holder(path)})")
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
    """A descriptor that holds the lock; None while another process does.

    Raises:
        StartError: There can be no lock.
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


def _holder(path: Path) -> str:
    try:
        return _lock_of(path).read_text(errors="replace").strip() or "unknown"
    except FileNotFoundError:  # it has ended
        return "unknown"


def _somebody_listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(DISMISS_SECONDS)
        try:
            sock.connect(os.fspath(path))
        except OSError:
            return False
    return True


def clear_socket(path: Path) -> None:
    """Remove what a killed daemon has left.

    Raises:
        StartError: It is something else.
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise StartError(f"{path} is in the way and no socket: remove it")
    if _somebody_listens(path):
        raise StartError(f"something that is no daemon listens at {path}: end it")
    path.unlink()


def clear_dead(folder: Path) -> None:
    """Remove the sockets and locks of daemons of which nothing is left."""
    for lock in folder.glob("*.lock"):
        _clear(lock.with_suffix(".sock"))


def _clear(path: Path) -> None:
    """Remove socket and lock, unless somebody holds the lock or uses the socket."""
    with suppress(StartError):  # which a start of that name will tell
        fd = _take(path)
        if fd is None:
            return
        try:
            clear_socket(path)
        finally:
            _lock_of(path).unlink(missing_ok=True)  # last: then the name is anybody's
            os.close(fd)

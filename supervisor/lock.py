"""One daemon of a name: a lock beside its socket, and what a killed one has left is cleared."""

from __future__ import annotations

import fcntl
import os
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from creamas_sc.errors import StartError
from supervisor.bounds import DISMISS_SECONDS, LOCK_PAUSE_SECONDS, LOCK_SECONDS

__all__ = ["clear_socket", "locked"]


@contextmanager
def locked(path: Path) -> Iterator[int]:
    """Hold the lock beside the socket ``path``; its descriptor.

    Waits a little for one that is just ending.

    Raises:
        StartError: There is a daemon already.
    """
    lock = path.with_suffix(".lock")
    fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        give_up_at = time.monotonic() + LOCK_SECONDS
        while not _take(fd):
            listens = _somebody_listens(path)
            if listens or time.monotonic() > give_up_at:
                pid = os.pread(fd, 32, 0).decode(errors="replace").strip() or "unknown"
                how = "runs already" if listens else "is starting or ending"
                raise StartError(f"daemon {path.stem!r} {how} (pid {pid})")
            time.sleep(LOCK_PAUSE_SECONDS)  # a lock has no wait with a bound
        os.ftruncate(fd, 0)
        os.pwrite(fd, b"%d\n" % os.getpid(), 0)
        yield fd
    finally:
        os.close(fd)


def _take(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


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

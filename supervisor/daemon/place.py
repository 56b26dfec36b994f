"""A daemon's socket and lock, which its supervisor keeps in place.

The folder may be cleaned up or removed while the daemon lives (by a logout, or by a cleaner of
temporary files). Then the supervisor makes both files again, and holds the new lock itself: it ends
after all simulations. If another daemon has come up in the place meanwhile, this one is *replaced*.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

import trio

from creamas_sc.errors import StartError
from creamas_sc.runtime.paths import runtime_folder
from supervisor.daemon.lock import clear_socket, identity, listens, lock_path, take, write_holder

# As many may wait to be accepted: beyond, a client on trio would not see that it is not connected.
BACKLOG = 1024


class DaemonPlace:
    """Socket and lock of the daemon whose owner is ``pid`` and holds the lock now.

    Attributes:
        replaced: Whether another daemon of that name runs there.
    """

    def __init__(self, path: Path, pid: int) -> None:
        self.path = path
        self.replaced = False
        self._pid = pid
        self._lock = identity(lock_path(path))
        self._lock_fd: int | None = None
        self._socket: tuple[int, int] | None = None

    def listen(self) -> trio.SocketListener:
        """Open the socket, where no file may be, for this user alone.

        Raises:
            StartError: It cannot be opened.
        """
        sock = socket.socket(socket.AF_UNIX)
        before = os.umask(0o177)
        try:
            sock.bind(os.fspath(self.path))
            self._socket = identity(self.path)
            sock.listen(BACKLOG)
        except OSError as error:
            sock.close()
            raise StartError(f"cannot listen at {self.path}: {error.strerror or error}") from error
        finally:
            os.umask(before)
        return trio.SocketListener(trio.socket.from_stdlib_socket(sock))

    def in_place(self) -> bool:
        """Whether socket and lock are those of this daemon."""
        return self._has_socket() and self._has_lock()

    def _has_socket(self) -> bool:
        return self._socket is not None and identity(self.path) == self._socket

    def _has_lock(self) -> bool:
        return self._lock is not None and identity(lock_path(self.path)) == self._lock

    def put_back(self) -> trio.SocketListener:
        """Take the lock again if it was removed, and open the socket again.

        Raises:
            CreamasError: It cannot be done now.
        """
        runtime_folder()
        if not self._has_lock():
            self._take_lock()
        try:
            clear_socket(self.path)
        except OSError as error:
            raise StartError(f"cannot remove {self.path}: {error.strerror}") from error
        return self.listen()

    def _take_lock(self) -> None:
        fd = take(self.path)
        if fd is None:
            self.replaced = listens(self.path)
            raise StartError(f"another process holds the lock {lock_path(self.path)}")
        if self._lock_fd is not None:
            os.close(self._lock_fd)
        self._lock_fd = fd  # held until this process ends
        self._lock = identity(lock_path(self.path))
        write_holder(fd, self._pid)

    def remove_socket(self) -> None:
        """Remove the socket, unless it is no longer this daemon's.

        Raises:
            OSError: It cannot be removed.
        """
        if self._has_socket():
            self.path.unlink(missing_ok=True)

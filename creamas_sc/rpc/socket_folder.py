"""The unix sockets of a simulation's environments, in a folder that only their user can enter.

    <runtime folder>/environments/<simulation>/<port>

Environments on one machine connect over these sockets only: another user cannot reach them, nor put
one of its own in a dead environment's place. A port is of one environment at a time (see
`rpc.addresses`), so a socket that is there already and does not answer was left by a process that
was killed.

A process that has the folder open holds a shared lock on it. So who gets the exclusive lock knows
that nobody is there: the last one to leave removes the folder, and a simulation that starts removes
those that were left when all processes were killed at once.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import trio

from creamas_sc.errors import StartError
from creamas_sc.runtime.paths import SOCKET_PATH_BYTES, runtime_folder, simulation_folder

log = logging.getLogger(__name__)

BACKLOG = 1024


class SocketFolder:
    """The folder of one simulation's sockets, kept from removal until it is closed.

    Raises:
        CreamasError: The user's runtime folder is not usable.
    """

    def __init__(self, simulation: str) -> None:
        self._path = simulation_folder(simulation)
        self._parent = self._path.parent
        self._mine: dict[Path, int] = {}
        self._open()

    def _open(self) -> None:
        while True:
            self._parent.mkdir(mode=0o700, exist_ok=True)
            self._path.mkdir(mode=0o700, exist_ok=True)
            try:
                self._fd = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY)
            except FileNotFoundError:  # it was removed before it could be locked
                continue
            fcntl.flock(self._fd, fcntl.LOCK_SH)
            if os.fstat(self._fd).st_nlink:
                return
            os.close(self._fd)  # it was just being removed

    def _put_back(self) -> None:
        """Make the folder again, which something has removed."""
        runtime_folder()
        gone = self._fd
        try:
            self._open()
        except OSError as error:
            raise StartError(f"cannot make the folder {self._path}: {error.strerror}") from error
        os.close(gone)

    def listen(self, port: int) -> trio.SocketListener:
        """Listen as the environment that has ``port``.

        Raises:
            StartError: It cannot be done.
            CreamasError: The user's runtime folder is not usable.
        """
        path = self._path / str(port)
        if not os.fstat(self._fd).st_nlink:
            self._put_back()
        if path.exists() and _answers(path):
            raise StartError(f"cannot listen at {path}: another environment does")
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with _short(path) as place:
                path.unlink(missing_ok=True)
                sock.bind(place)
            self._mine[path] = path.stat().st_ino
            sock.listen(BACKLOG)
        except OSError as error:
            sock.close()
            raise StartError(f"cannot listen at {path}: {error.strerror}") from error
        return trio.SocketListener(trio.socket.from_stdlib_socket(sock))

    def in_place(self, port: int) -> bool:
        """Whether the socket at which this process listens for ``port`` is still there."""
        path = self._path / str(port)
        try:
            return path.stat().st_ino == self._mine[path]
        except OSError:
            return False

    def connect(self, port: int) -> socket.socket:
        """A connection to the environment that has ``port``.

        Raises:
            OSError: Nothing listens there (FileNotFoundError, ConnectionRefusedError), or too many
                wait to be accepted (BlockingIOError).
        """
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.setblocking(False)
        try:
            with _short(self._find(str(port))) as place:
                sock.connect(place)
        except OSError:
            sock.close()
            raise
        return sock

    def _find(self, name: str) -> Path:
        """The socket of that name: here, or in another simulation, which will refuse by name."""
        here = self._path / name
        return here if here.exists() else next(self._path.parent.glob(f"*/{name}"), here)

    def close(self) -> None:
        """Remove this process's sockets, and the folder if no other process has it open."""
        for path in self._mine:
            try:
                if self.in_place(int(path.name)):
                    path.unlink(missing_ok=True)
            except OSError as error:
                log.warning("cannot remove %s: %s", path, error.strerror)
        os.close(self._fd)
        _remove_unless_open(self._path)


def remove_abandoned_folders() -> None:
    """Remove the folders of simulations whose processes were all killed."""
    parent = runtime_folder() / "environments"
    if parent.is_dir():
        for each in parent.iterdir():
            _remove_unless_open(each)


def _remove_unless_open(path: Path) -> None:
    try:
        # A link is another user's, who has made the runtime folder again after its removal.
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:  # it is gone, or no folder of ours
        return
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for name in os.listdir(folder):
            os.unlink(name, dir_fd=folder)
        os.rmdir(path)
    except OSError:  # it is in use, or another process removes it
        pass
    finally:
        os.close(folder)


def _answers(path: Path) -> bool:
    """Whether a process listens at a socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock, _short(path) as place:
        sock.setblocking(False)
        return sock.connect_ex(place) in (0, errno.EAGAIN)


@contextmanager
def _short(path: Path) -> Iterator[str]:
    """The path of a socket, by way of a descriptor if it is too long for the system."""
    if len(os.fsencode(path)) <= SOCKET_PATH_BYTES:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)

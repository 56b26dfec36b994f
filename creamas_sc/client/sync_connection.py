"""A blocking connection that is opened again after an interrupt broke it; one call at a time."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

from creamas_sc.client import messages
from creamas_sc.errors import ConnectionLost, DeadlineExceeded
from creamas_sc.rpc.auth import client_identity
from creamas_sc.rpc.sync_connection import BlockingConnection
from creamas_sc.wire.codec import Codec, Payload
from creamas_sc.wire.handshake import Handshake

__all__ = ["Line", "open_connection"]

# For connecting and the handshake: the daemon does both at once, unless it is stuck.
OPEN_SECONDS = 5.0
# Before the next try at a daemon whose queue of connections is full.
RETRY_SECONDS = 0.02

Open = Callable[[float | None], BlockingConnection]


class Line:
    """Calls from any thread, in turn.

    Args:
        open_anew: Makes the connection, within seconds or in its own bounds.
        what: The other end, for messages.

    Attributes:
        closed: Whether `close` was called.
    """

    def __init__(self, open_anew: Open, what: str) -> None:
        self._open = open_anew
        self._what = what
        self._connection: BlockingConnection | None = None
        self.closed = False
        self._process = os.getpid()
        # For a thread to be able to go on where an interrupt kept it from letting go of the lock.
        self._lock = threading.RLock()
        self._caller: int | None = None

    @property
    def lost(self) -> bool:
        """Whether the peer has ended the connection."""
        connection = self._connection
        if connection is None or self.closed:
            return False
        return not connection.alive and not connection.interrupted

    def open(self, timeout: float | None = None) -> None:
        """Connect now rather than at the first call."""
        began = time.monotonic()
        try:
            self._enter("connect", timeout)
            self._connected(_left(began, timeout))
        finally:
            self._leave()

    def call(
        self, target: str | None, method: str, payload: Payload, timeout: float | None = None
    ) -> Payload:
        """As `BlockingConnection.call`; a wait for other threads' calls counts for ``timeout``."""
        began = time.monotonic()
        try:
            self._enter(method, timeout)
            connection = self._connected(_left(began, timeout))
            return connection.call(target, method, payload, timeout=timeout, began=began)
        except ConnectionLost:
            if self.closed:
                raise messages.detached(self._what) from None
            raise
        finally:
            self._leave()

    def renew(self, timeout: float | None = None) -> None:
        """Connect again where the peer has ended the connection; errors as of connecting."""
        began = time.monotonic()
        try:
            self._enter("connect", timeout)
            if self.lost:
                self._connection = self._open(_left(began, timeout))
                self._process = os.getpid()
        finally:
            self._leave()

    def wait_end(self, timeout: float) -> None:
        """Wait until the peer has closed the connection."""
        with self._lock:
            if self._connection is not None:
                self._connection.wait_end(timeout)

    def close(self) -> None:
        """Close the connection; a call in flight in another thread gets `ConnectionLost`."""
        self.closed = True
        connection = self._connection
        if connection is None:
            return
        if self._process == os.getpid():
            connection.shut_down()
        with self._lock:  # which that thread lets go of
            connection.close()

    # ---- one at a time

    def _enter(self, method: str, timeout: float | None) -> None:
        if not self._lock.acquire(timeout=-1 if timeout is None else max(timeout, 0)):
            raise DeadlineExceeded(
                f"{method}: other threads' calls to {self._what} took all of the {timeout:g} s",
                may_have_run=False,
            )
        connection = self._connection
        if self._caller == threading.get_ident() and connection is not None:
            # A signal handler calls in the middle of a call, or an interrupt hit the end of one.
            # Not closed yet: the outer call may still wait for what its descriptor's number names.
            self._connection = None
            connection.shut_down()
        self._caller = threading.get_ident()

    def _leave(self) -> None:
        if self._caller == threading.get_ident():
            self._caller = None
        try:
            self._lock.release()
        except RuntimeError:
            pass  # it was never ours: the wait for it was interrupted

    def _connected(self, timeout: float | None) -> BlockingConnection:
        if self.closed:
            raise messages.detached(self._what)
        connection = self._connection
        forked = self._process != os.getpid()  # which must not speak on its parent's
        if connection is not None and (forked or connection.interrupted):
            connection.interrupt()
            connection = None
        if connection is None:
            self._connection = connection = self._open(timeout)
            self._process = os.getpid()
        return connection


def _left(began: float, timeout: float | None) -> float | None:
    return None if timeout is None else max(0.0, began + timeout - time.monotonic())


def open_connection(
    daemon: str, path: Path, codec: Codec, name: str, timeout: float | None
) -> BlockingConnection:
    """Connect to the daemon that listens at ``path``, and shake hands.

    Raises:
        ConnectionLost: Nobody listens there, or nobody answers.
        HandshakeError: Who listens there is no daemon of this user.
        CreamasError: The socket may not be opened.
    """
    seconds = OPEN_SECONDS if timeout is None else min(timeout, OPEN_SECONDS)
    deadline = time.monotonic() + seconds
    handshake = Handshake.client(client_identity())
    connection = BlockingConnection(_connect(daemon, path, deadline), codec=codec, name=name)
    try:
        connection.shake_hands(handshake, max(0.0, deadline - time.monotonic()))
    except DeadlineExceeded:
        raise messages.no_answer(daemon, path, seconds) from None
    except ConnectionLost:
        raise messages.no_answer(daemon, path) from None
    return connection


def _connect(daemon: str, path: Path, deadline: float) -> socket.socket:
    while True:
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.setblocking(False)
            sock.connect(os.fspath(path))
            return sock
        except OSError as error:
            sock.close()
            if error.errno not in messages.BUSY:
                denied = isinstance(error, PermissionError)
                raise messages.unreachable(daemon, path, error) from (error if denied else None)
            if time.monotonic() > deadline:
                raise messages.no_answer(daemon, path) from None
        except BaseException:
            sock.close()
            raise
        # Nothing tells when there is room again: asking is the only way.
        time.sleep(RETRY_SECONDS)

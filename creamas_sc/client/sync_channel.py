"""A blocking connection for several threads, replaced when an interrupt or a fork spoils it.

Threads take turns: a call holds the channel's lock from the first byte of its request to the last
byte of its answer. Three things can strike in the middle of a call:

- A Ctrl-C, or another exception from a signal handler. `BlockingConnection` cancels the call and
  usually stays usable. If bytes may be lost, it is ``interrupted``, and the next call reconnects.
- A signal handler that calls over the same channel. The lock is reentrant, so the handler gets in,
  finds its own thread as the caller, and starts a new connection. The outer call fails with
  ConnectionLost, because its answer can no longer be received.
- A fork. The child must not write to the parent's connection, so its first call reconnects.

A connection that the *peer* has ended is not replaced by the next call, which fails, but only by
`BlockingChannel.call_again`: the caller is to learn what happened first.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from creamas_sc.client import connection_errors
from creamas_sc.client.base_client import Channel
from creamas_sc.client.daemon_api import Call
from creamas_sc.errors import ConnectionLost, DeadlineExceeded, HandshakeError
from creamas_sc.rpc.auth import client_identity
from creamas_sc.rpc.sync_connection import BlockingConnection
from creamas_sc.runtime.timeouts import BUSY_RETRY_SECONDS, OPEN_SECONDS
from creamas_sc.wire.codec import Codec, Payload
from creamas_sc.wire.handshake import Handshake

Result = TypeVar("Result")


class BlockingChannel(Channel):
    """Calls from any thread, one at a time; its coroutines block and never suspend.

    Args:
        connect: Makes a connection, within a number of seconds; None for its default limits.
        what: The other end, for messages.
    """

    def __init__(self, connect: Callable[[float | None], BlockingConnection], what: str) -> None:
        super().__init__(what)
        self._connect = connect
        self._connection: BlockingConnection | None = None
        self._process = os.getpid()
        # Reentrant, so that a thread can go on if an interrupt kept it from releasing the lock.
        self._lock = threading.RLock()
        self._caller: int | None = None

    @property
    def lost(self) -> bool:
        connection = self._connection
        if connection is None or self.closed:
            return False
        return not connection.alive and not connection.interrupted

    def open(self, timeout: float | None = None, *, replace: bool = False) -> None:
        """Connect now rather than at the first call.

        Args:
            timeout: Seconds; None for the limits of connecting itself.
            replace: Connect again if the peer has ended the connection.
        """
        self._take_turn(
            "connect", timeout, lambda began: self._usable(_left(began, timeout), replace)
        )

    async def _call(self, call: Call, timeout: float | None) -> Payload:
        def work(began: float) -> Payload:
            connection = self._usable(_left(began, timeout))
            return connection.call(*call, timeout=timeout, began=began)

        return self._take_turn(call.method, timeout, work)

    async def run(self, function: Callable[..., None], *args: Any) -> None:
        function(*args)

    async def call_shielded(self, call: Call, timeout: float) -> None:
        await self.call(call, timeout)  # only another signal interrupts it

    async def call_again(self, call: Call, timeout: float) -> Payload:
        if self.closed:  # a simulation may outlive its client's `disconnect`
            other = BlockingChannel(self._connect, self._what)
            try:
                return await other.call(call, timeout)
            finally:
                other.close()
        try:
            return await self.call(call, timeout)
        except ConnectionLost:
            if not self.lost:
                raise
        self.open(timeout, replace=True)
        return await self.call(call, timeout)

    async def wait_closed(self, timeout: float) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.wait_end(timeout)

    def close(self) -> None:
        """Close the connection; a call in progress in another thread raises `ConnectionLost`."""
        self.closed = True
        connection = self._connection
        if connection is None:
            return
        if self._process == os.getpid():
            connection.shut_down()
        with self._lock:  # that call then releases it
            connection.close()

    def _take_turn(
        self, method: str, timeout: float | None, work: Callable[[float], Result]
    ) -> Result:
        """Do ``work`` while no other thread uses the connection; it gets the time of the start."""
        began = time.monotonic()
        thread = threading.get_ident()
        try:
            if not self._lock.acquire(timeout=-1 if timeout is None else max(timeout, 0)):
                raise DeadlineExceeded(
                    f"{method}: other threads' calls to {self._what} took all of the {timeout:g} s",
                    may_have_run=False,
                )
            connection = self._connection
            if self._caller == thread and connection is not None:
                # A signal handler calls in the middle of a call, or an interrupt hit the end of
                # one. Only shut down, not closed: the outer call may still poll its descriptor.
                self._connection = None
                connection.shut_down()
            self._caller = thread
            return work(began)
        finally:
            if self._caller == thread:
                self._caller = None
            try:
                self._lock.release()
            except RuntimeError:
                pass  # an interrupt, or the timeout, ended the wait for it

    def _usable(self, timeout: float | None, replace: bool = False) -> BlockingConnection:
        """Return the connection, a new one if there is none yet or if it cannot be used."""
        if self.closed:
            raise connection_errors.detached(self._what)
        connection = self._connection
        forked = self._process != os.getpid()
        if connection is not None and (forked or connection.interrupted):
            connection.interrupt()
            connection = None
        if connection is None or (replace and self.lost):
            self._connection = connection = self._connect(timeout)
            self._process = os.getpid()
        return connection


def _left(began: float, timeout: float | None) -> float | None:
    return None if timeout is None else max(0.0, began + timeout - time.monotonic())


def open_connection(
    daemon: str, path: Path, codec: Codec, name: str, timeout: float | None
) -> BlockingConnection:
    """Connect to the daemon that listens at ``path``, and shake hands.

    Raises:
        ConnectionLost: No process listens there, or it does not answer.
        HandshakeError: The process that listens there is not a daemon of this user.
        CreamasError: The socket may not be opened.
    """
    seconds = OPEN_SECONDS if timeout is None else min(timeout, OPEN_SECONDS)
    deadline = time.monotonic() + seconds
    handshake = Handshake(client_identity(), client=True)
    connection = BlockingConnection(_connect(daemon, path, deadline), codec=codec, name=name)
    try:
        connection.perform_handshake(handshake, max(0.0, deadline - time.monotonic()))
    except DeadlineExceeded:
        raise connection_errors.no_answer(daemon, path, seconds) from None
    except ConnectionLost:
        raise connection_errors.no_answer(daemon, path) from None
    return connection


def _connect(daemon: str, path: Path, deadline: float) -> socket.socket:
    while True:
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.setblocking(False)
            sock.connect(os.fspath(path))
            connection_errors.check_owner(sock, path)
            return sock
        except HandshakeError:
            sock.close()
            raise
        except OSError as error:
            sock.close()
            if error.errno not in connection_errors.BUSY:
                denied = isinstance(error, PermissionError)
                raise connection_errors.unreachable(daemon, path, error) from (
                    error if denied else None
                )
            if time.monotonic() > deadline:
                raise connection_errors.no_answer(daemon, path) from None
        except BaseException:
            sock.close()
            raise
        # There is no notification of room in the queue.
        time.sleep(BUSY_RETRY_SECONDS)

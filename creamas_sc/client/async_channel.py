"""Connections to a daemon under asyncio and trio, each owned by an ``async with`` block."""

from __future__ import annotations

import logging
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import anyio
from anyio.abc import SocketAttribute, SocketStream

from creamas_sc.client.base_client import Channel
from creamas_sc.client.connection_errors import BUSY, check_owner, no_answer, unreachable
from creamas_sc.client.daemon_api import Call
from creamas_sc.errors import ConnectionLost, DeadlineExceeded, HandshakeError, ProtocolError
from creamas_sc.rpc.auth import client_identity
from creamas_sc.rpc.connection import Connection, perform_handshake
from creamas_sc.runtime.timeouts import BUSY_RETRY_SECONDS, OPEN_SECONDS
from creamas_sc.wire.codec import Codec, Payload
from creamas_sc.wire.handshake import Handshake

log = logging.getLogger(__name__)

# For a cancelled call's confirmation and for queued data, before a closing connection is cut.
LINGER_SECONDS = 0.5

Function = TypeVar("Function", bound=Callable[..., Any])
OpenAnother = Callable[[], AbstractAsyncContextManager["AsyncChannel"]]


class AsyncChannel(Channel):
    """Calls over a connection that an ``async with`` block owns.

    Args:
        what: The other end, for messages.
        open_another: Makes another connection to the same place.
    """

    def __init__(self, connection: Connection, what: str, open_another: OpenAnother) -> None:
        super().__init__(what)
        self.connection = connection
        self._open_another = open_another

    @property
    def lost(self) -> bool:
        return not self.closed and not self.connection.alive

    async def _call(self, call: Call, timeout: float | None) -> Payload:
        return await self.connection.call(*call, timeout=timeout)

    async def run(self, function: Callable[..., None], *args: Any) -> None:
        with anyio.CancelScope(shield=True):  # bounded by the function
            await anyio.to_thread.run_sync(function, *args)

    async def call_shielded(self, call: Call, timeout: float) -> None:
        with anyio.CancelScope(shield=True):  # bounded by the timeout
            await self.connection.call(*call, timeout=timeout)

    async def call_again(self, call: Call, timeout: float) -> Payload:
        with anyio.move_on_after(timeout):
            if not self.closed and not self.lost:
                try:
                    return await self.call(call)
                except ConnectionLost as error:
                    if not self.lost:
                        raise
                    log.debug("%s: calling again: %s", call.method, error)
            async with self._open_another() as other:
                return await other.call(call)
        raise DeadlineExceeded(f"{call.method} of {self._what} did not finish in {timeout:g} s")

    async def wait_closed(self, timeout: float) -> None:
        with anyio.move_on_after(timeout):
            await self.connection.closed.wait()


def open_channel(
    daemon: str, path: Path, codec: Codec, what: str
) -> AbstractAsyncContextManager[AsyncChannel]:
    """Connect to the daemon that listens at ``path`` until the block ends.

    An exception raised in the block leaves it unchanged, not in a group.

    Args:
        what: The other end, for messages.

    Raises:
        ConnectionLost: No process listens there, or it does not answer.
        HandshakeError: The process that listens there is not a daemon of this user.
        CreamasError: The socket may not be opened.
    """
    return asynccontextmanager(_protected(_open_channel))(daemon, path, codec, what)


def _protected(function: Function) -> Function:
    """Let a Ctrl-C under trio strike only where ``function`` awaits.

    A second Ctrl-C could otherwise interrupt the cleanup that the first one has started, between
    any two of its lines.
    """
    trio: Any = sys.modules.get("trio")
    return function if trio is None else trio.lowlevel.enable_ki_protection(function)


async def _open_channel(
    daemon: str, path: Path, codec: Codec, what: str
) -> AsyncIterator[AsyncChannel]:
    handshake = Handshake(client_identity(), client=True)
    stream = await _open(daemon, path, handshake)
    connection = Connection(stream, codec=codec, name=what)
    channel = AsyncChannel(connection, what, partial(open_channel, daemon, path, codec, what))
    tasks = anyio.create_task_group()
    await tasks.__aenter__()
    tasks.start_soon(_protected(_run), connection)
    try:
        yield channel
    finally:
        channel.closed = True
        try:
            with anyio.CancelScope(shield=True):  # bounded
                await connection.aclose()
        finally:
            connection.abort()
            # The group's only task has ended: it needs no exception, and must not wrap one.
            await tasks.__aexit__(None, None, None)


async def _run(connection: Connection) -> None:
    """Run the connection until the block closes it.

    It is shielded, within a limit: calls that are cancelled with the block get their confirmation.
    """
    async with anyio.create_task_group() as tasks:
        scope = anyio.CancelScope(shield=True)
        tasks.start_soon(_limit, scope)
        with scope:
            await connection.run()
        tasks.cancel_scope.cancel()


async def _limit(scope: anyio.CancelScope) -> None:
    """Give ``scope`` a deadline once this task is cancelled."""
    try:
        await anyio.sleep_forever()
    finally:
        scope.deadline = anyio.current_time() + LINGER_SECONDS


async def _open(daemon: str, path: Path, handshake: Handshake) -> SocketStream:
    try:
        with anyio.fail_after(OPEN_SECONDS):
            stream = await _connect(path)
            try:
                check_owner(stream.extra(SocketAttribute.raw_socket), path)
            except HandshakeError:
                await anyio.aclose_forcefully(stream)
                raise
            await perform_handshake(stream, handshake)
        return stream
    except TimeoutError:
        raise no_answer(daemon, path, OPEN_SECONDS) from None
    except (anyio.EndOfStream, anyio.BrokenResourceError):
        raise no_answer(daemon, path) from None
    except HandshakeError:
        raise
    except ProtocolError as error:
        raise HandshakeError(f"what listens at {path} speaks another protocol: {error}") from error
    except OSError as error:
        denied = isinstance(error, PermissionError)
        raise unreachable(daemon, path, error) from (error if denied else None)


async def _connect(path: Path) -> SocketStream:
    while True:
        try:
            return await anyio.connect_unix(path)
        except OSError as error:
            if error.errno not in BUSY:
                raise
        # There is no notification of room in the queue.
        await anyio.sleep(BUSY_RETRY_SECONDS)

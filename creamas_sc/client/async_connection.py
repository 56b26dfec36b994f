"""Connections to a daemon under asyncio and trio, each owned by a block."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import anyio
from anyio.abc import SocketStream

from creamas_sc.client.messages import BUSY, no_answer, unreachable
from creamas_sc.errors import HandshakeError, ProtocolError
from creamas_sc.rpc.auth import client_identity
from creamas_sc.rpc.connection import Connection
from creamas_sc.wire.codec import Codec
from creamas_sc.wire.frames import MAX_FRAME_BYTES, FrameReader
from creamas_sc.wire.handshake import Handshake

__all__ = ["OPEN_SECONDS", "RETRY_SECONDS", "linked"]

# For connecting and the handshake: the daemon does both at once, unless it is stuck.
OPEN_SECONDS = 5.0
HANDSHAKE_BYTES = 4096
# A call that is cancelled waits for the answer to that, and a close for what is queued.
LINGER_SECONDS = 0.5
# Before the next try at a daemon whose queue of connections is full.
RETRY_SECONDS = 0.02

Function = TypeVar("Function", bound=Callable[..., Any])


def linked(
    daemon: str, path: Path, codec: Codec, name: str
) -> AbstractAsyncContextManager[Connection]:
    """A connection to the daemon that listens at ``path``; it is over when the block ends.

    What is raised in the block leaves it as it is, not in a group.

    Raises:
        ConnectionLost: Nobody listens there, or nobody answers.
        HandshakeError: Who listens there is no daemon of this user.
        CreamasError: The socket may not be opened.
    """
    return asynccontextmanager(_protected(_linked))(daemon, path, codec, name)


def _protected(function: Function) -> Function:
    """Under trio, have a Ctrl-C come where ``function`` awaits, not between any two of its lines:
    a second one comes in the middle of what the first has led to.
    """
    trio: Any = sys.modules.get("trio")
    return function if trio is None else trio.lowlevel.enable_ki_protection(function)


async def _linked(daemon: str, path: Path, codec: Codec, name: str) -> AsyncIterator[Connection]:
    handshake = Handshake.client(client_identity())
    reader = FrameReader(HANDSHAKE_BYTES)
    stream = await _open(daemon, path, handshake, reader)
    reader.max_frame_bytes = MAX_FRAME_BYTES
    connection = Connection(stream, codec=codec, reader=reader, name=name)
    tasks = anyio.create_task_group()
    await tasks.__aenter__()
    tasks.start_soon(_protected(_run), connection)
    try:
        yield connection
    finally:
        try:
            with anyio.CancelScope(shield=True):  # bounded
                await connection.aclose()
        finally:
            connection.abort()
            # Its one task is over: there is nothing to be told of the error, nor to wrap it.
            await tasks.__aexit__(None, None, None)


async def _run(connection: Connection) -> None:
    """Run until the block closes it: calls that are cancelled with the block get their answer."""
    async with anyio.create_task_group() as tasks:
        scope = anyio.CancelScope(shield=True)
        tasks.start_soon(_limit, scope)
        with scope:
            await connection.run()
        tasks.cancel_scope.cancel()


async def _limit(scope: anyio.CancelScope) -> None:
    """Once it is cancelled, ``scope`` has no longer than a close may take."""
    try:
        await anyio.sleep_forever()
    finally:
        scope.deadline = anyio.current_time() + LINGER_SECONDS


async def _open(daemon: str, path: Path, handshake: Handshake, reader: FrameReader) -> SocketStream:
    stream: SocketStream | None = None
    done = False
    try:
        with anyio.fail_after(OPEN_SECONDS):
            stream = await _connect(path)
            await _shake_hands(stream, handshake, reader)
        done = True
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
    finally:
        if stream is not None and not done:
            with anyio.CancelScope(shield=True):
                await anyio.aclose_forcefully(stream)


async def _connect(path: Path) -> SocketStream:
    while True:
        try:
            return await anyio.connect_unix(path)
        except OSError as error:
            if error.errno not in BUSY:
                raise
        # Nothing tells when there is room again: asking is the only way.
        await anyio.sleep(RETRY_SECONDS)


async def _shake_hands(stream: SocketStream, handshake: Handshake, reader: FrameReader) -> None:
    """Prove each other; the server says nothing more until it is asked."""
    while True:
        for data in handshake.data_to_send():
            await stream.send(data)
        if handshake.complete:
            return
        for frame in reader.receive_data(await stream.receive(HANDSHAKE_BYTES)):
            handshake.receive(frame)

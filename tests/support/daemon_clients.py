"""Clients of a daemon that speak its protocol themselves, and orders for hosts."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import trio

from creamas_sc.errors import HandshakeError
from creamas_sc.rpc.auth import user_membership
from creamas_sc.rpc.connection import Connection
from creamas_sc.rpc.socket_stream import ConnectedStream
from creamas_sc.runtime.nurseries import open_unwrapping_nursery
from creamas_sc.wire.codec import Codec, Payload
from creamas_sc.wire.frames import FrameReader
from creamas_sc.wire.handshake import Handshake, Identity
from tests.support import trees

BOUND_SECONDS = 20.0
CODEC = Codec()
Summary = dict[str, Any]


def order(entry: str = "host", **spec: Any) -> Summary:
    """An order for a host from `tests.support.entries`."""
    actor = dict(trees.order("", entry, json.dumps(spec).encode()))
    return {key: actor[key] for key in ("entry", "spec", "environ", "cwd", "path")}


class Client:
    """A connection to a daemon, or to the host it was handed to."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    async def call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call the other end."""
        answer = await self.connection.call(None, method, self.pack(*args, **kwargs))
        return CODEC.decode(answer)

    @staticmethod
    def pack(*args: Any, **kwargs: Any) -> Payload:
        """A call's arguments."""
        return CODEC.encode((args, kwargs))

    async def create(self, name: str, entry: str = "host", **spec: Any) -> Summary:
        """Create a simulation; what comes back, ``info`` decoded: its slaves' pids."""
        made: Summary = await self.call("create", name, order(entry, **spec), {"by": "test"})
        return {**made, "info": json.loads(made["info"])}


def user_identity(key: bytes | None = None) -> Identity:
    """The identity of one of the user's processes, or one with another key."""
    key = key or user_membership().key
    return Identity("creamas-supervisor", key, "client", f"pid {os.getpid()}", os.getpid())


async def shake_hands(stream: ConnectedStream, identity: Identity | None = None) -> FrameReader:
    """Prove an identity, by default the user's; returns the reader for what follows."""
    handshake = Handshake(identity or user_identity(), client=True)
    reader = FrameReader()
    while True:
        for data in handshake.data_to_send():
            await stream.send(data)
        if handshake.complete:
            return reader
        for frame in reader.receive_data(await stream.receive()):
            try:
                handshake.receive(frame)
            except HandshakeError:
                for data in handshake.data_to_send():  # why it is refused
                    await stream.send(data)
                raise


async def connect_socket(path: Path) -> ConnectedStream:
    """A connection on which nothing has been sent yet."""
    sock = socket.socket(socket.AF_UNIX)
    sock.setblocking(False)
    try:
        sock.connect(os.fspath(path))
    except OSError:
        sock.close()
        raise
    return ConnectedStream(sock)


@asynccontextmanager
async def connected(path: Path) -> AsyncIterator[Client]:
    """A client of the daemon at ``path``."""
    stream = await connect_socket(path)
    try:
        reader = await shake_hands(stream)
        connection = Connection(stream, reader=reader)
        async with open_unwrapping_nursery() as nursery:
            nursery.start_soon(connection.run)
            yield Client(connection)
            await connection.aclose()
    finally:
        with trio.CancelScope(shield=True):
            await anyio.aclose_forcefully(stream)


async def until(client: Client, name: str, state: str) -> Summary:
    """Ask until the last simulation of that name is in that state; its summary."""
    while True:
        last = [each for each in await client.call("ls", all=True) if each["name"] == name][-1:]
        if last and last[0]["state"] == state:
            summary: Summary = last[0]
            return summary


async def ask(path: Path, method: str, *args: Any) -> Any:
    """Make one call as a new client of the daemon at ``path``."""
    with trio.fail_after(BOUND_SECONDS):
        async with connected(path) as client:
            return await client.call(method, *args)

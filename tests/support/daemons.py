"""Starts daemons for tests, and talks to them as clients do."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import trio

from creamas_sc.errors import HandshakeError
from creamas_sc.rpc.auth import user_membership
from creamas_sc.rpc.connection import Connection
from creamas_sc.rpc.socket_stream import ConnectedStream
from creamas_sc.runtime.nurseries import open_unwrapping_nursery
from creamas_sc.runtime.paths import daemon_socket
from creamas_sc.wire.codec import Codec, Payload
from creamas_sc.wire.frames import FrameReader
from creamas_sc.wire.handshake import Handshake, Identity
from supervisor.daemon.process import READY
from tests.support import trees

NAME = "test"
BOUND_SECONDS = 20.0
CODEC = Codec()
Told = dict[str, Any]


@dataclass
class Daemon:
    """A daemon that is a child of this process."""

    process: subprocess.Popen[bytes]
    socket: Path
    log_folder: Path

    @property
    def log(self) -> str:
        """What it has logged."""
        return (self.log_folder / f"{NAME}.log").read_text()

    @property
    def family(self) -> dict[str, int]:
        """Pids of all its processes, by role or actor's name."""
        (keeper,) = trees.children(self.process.pid)
        return {"run": self.process.pid, **trees.family(keeper)}


def spawn(log_folder: Path, **environ: str) -> tuple[subprocess.Popen[bytes], int]:
    """Start a daemon like `supervisor.daemon.process.start`; its process, and where it reports."""
    read, write = os.pipe()
    main = trees.ROOT / "supervisor" / "__main__.py"
    process = subprocess.Popen(
        [sys.executable, "-P", main, "daemon", NAME, log_folder, str(write)],
        stdin=subprocess.DEVNULL,
        pass_fds=[write],
        start_new_session=True,
        env={**os.environ, **environ},
    )
    os.close(write)
    return process, read


def report(read: int) -> str:
    """How a start went: READY, or the text of an error."""
    try:
        assert select.select([read], [], [], BOUND_SECONDS)[0], "no start"
        return os.read(read, 1 << 16).decode()
    finally:
        os.close(read)


@contextmanager
def running(log_folder: Path) -> Iterator[Daemon]:
    """A daemon for the length of the block; nothing of it is left afterwards."""
    process, read = spawn(log_folder)
    try:
        told = report(read)
        assert told == READY, told
        yield Daemon(process, daemon_socket(NAME), log_folder)
    finally:
        end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a daemon that may have ended."""
    if process.poll() is None:
        process.send_signal(signal.SIGCONT)
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(BOUND_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise


def order(entry: str = "host", **spec: Any) -> Told:
    """An order for a host from `tests.support.entries`."""
    told = trees.order("", entry, json.dumps(spec).encode())
    return {key: told[key] for key in ("entry", "spec", "environ", "cwd", "path")}


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

    async def create(self, name: str, entry: str = "host", **spec: Any) -> Told:
        """Create a simulation; what comes back, ``info`` decoded: its slaves' pids."""
        told: Told = await self.call("create", name, order(entry, **spec), {"by": "test"})
        return {**told, "info": json.loads(told["info"])}


async def shake_hands(stream: ConnectedStream, key: bytes | None = None) -> FrameReader:
    """Prove that this is one of the user's processes."""
    address = f"pid {os.getpid()}"
    key = key or user_membership().key
    identity = Identity("creamas-supervisor", key, "client", address, os.getpid())
    handshake = Handshake(identity, client=True)
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
    """A connection that has said nothing yet."""
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


async def until(client: Client, name: str, state: str) -> Told:
    """Ask until the last simulation of that name is in that state; its summary."""
    while True:
        last = [each for each in await client.call("ls", all=True) if each["name"] == name][-1:]
        if last and last[0]["state"] == state:
            told: Told = last[0]
            return told

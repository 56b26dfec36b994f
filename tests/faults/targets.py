"""The sockets of a daemon's tree, who may connect to them, and the valid requests there."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import trio

from creamas_sc.client import SyncClient
from creamas_sc.rpc.addresses import split_address
from creamas_sc.rpc.auth import DAEMON_SIMULATION, user_membership
from creamas_sc.rpc.socket_stream import ConnectedStream
from creamas_sc.runtime.paths import daemon_socket
from creamas_sc.wire.frames import FrameReader, Kind, encode_frame
from creamas_sc.wire.handshake import Handshake, Identity
from tests.faults.hostile_bytes import request
from tests.support.daemon_clients import shake_hands
from tests.support.streams import connect_to

__all__ = ["Target", "find_targets"]

Connect = Callable[[], Awaitable[ConnectedStream]]
Call = tuple[Any, str]

FULL_SECONDS = 0.001
KEY_BYTES = 32


@dataclass(frozen=True)
class Target:
    """A socket, and an identity to connect with.

    Attributes:
        connect: Makes a connection on which nothing was sent yet.
        identity: Sent in the handshake; a stranger's has a wrong key.
        stranger: Whether the handshake fails, so that the first message ends the connection.
        calls: Valid calls that change nothing, each made with ``args``.
        first: Request to be sent and answered after the handshake.
    """

    connect: Connect
    identity: Identity
    stranger: bool
    calls: tuple[Call, ...]
    args: tuple[Any, ...] = ()
    first: bytes = b""

    @property
    def sound(self) -> list[bytes]:
        """Valid messages."""
        if self.stranger:
            hello = b"".join(Handshake(self.identity, client=True).data_to_send())
            proof = encode_frame(Kind.HELLO, 0, secrets.token_bytes(32))
            return [hello, b"".join(proof)]
        return [request(*call, *self.args) for call in self.calls]

    @property
    def halves(self) -> list[bytes]:
        """Beginnings of a valid message, for connections that then fall silent."""
        frame = self.sound[0]
        return [b"", frame[:1], frame[: len(frame) // 2], frame[:-1]]

    async def open(self) -> ConnectedStream:
        """Connect, prove the identity and send ``first``; garbage may follow."""
        stream = await self.connect()
        try:
            if not self.stranger:
                await shake_hands(stream, self.identity)
                await self._begin(stream)
        except BaseException:
            with trio.CancelScope(shield=True):
                await anyio.aclose_forcefully(stream)
            raise
        return stream

    async def _begin(self, stream: ConnectedStream) -> None:
        if self.first:
            await stream.send(self.first)
            reader = FrameReader()
            while not reader.receive_data(await stream.receive()):
                pass


def find_targets(daemon: str, client: SyncClient, simulation: str) -> dict[str, Target]:
    """Find all targets; the simulation has an `Insider` and an `Echo` in its first slave."""
    daemon_end = partial(_unix, daemon_socket(daemon))
    ours = Identity(DAEMON_SIMULATION, user_membership().key, "client", "x", os.getpid())
    stranger = Identity(DAEMON_SIMULATION, secrets.token_bytes(KEY_BYTES), "client", "x", 1)
    with client.attach(simulation) as attached:
        (insider,) = attached.get_agents(agent_cls="tests.faults.agents:Insider")
        echo, *_ = attached.get_agents(agent_cls="tests.support.agents:Echo")
        of, key = attached.connect(insider).membership()
    number = split_address(echo)[2]
    slave = partial(_environment, echo)
    peer = Identity(of, key, "environment", "tcp://localhost:1/", os.getpid())
    outsider = Identity(of, secrets.token_bytes(KEY_BYTES), "environment", "tcp://localhost:1/", 1)
    value = ("x", {1: (2, b"y")}, [1.5, {3}])
    hosts = ((echo, "evaluate"), (None, "get_age"), (None, "progress"), (None, "get_agents"))
    return {
        "a stranger at the daemon": Target(daemon_end, stranger, True, ((None, "ls"),)),
        "a client at the daemon": Target(
            daemon_end, ours, False, ((None, "ls"), (None, "status")), (), request(None, "ls")
        ),
        "a client of a host": Target(
            daemon_end, ours, False, hosts, (value,), request(None, "attach", simulation, {})
        ),
        "a stranger at a slave": Target(slave, outsider, True, ((number, "evaluate"),)),
        "a peer of a slave": Target(
            slave, peer, False, ((number, "evaluate"), (number, "")), (value,)
        ),
    }


async def _unix(path: Path) -> ConnectedStream:
    sock = socket.socket(socket.AF_UNIX)
    sock.setblocking(False)
    while True:
        try:
            sock.connect(os.fspath(path))
            return ConnectedStream(sock)
        except BlockingIOError:  # its queue is full, and nothing tells when that changes
            await trio.sleep(FULL_SECONDS)
        except BaseException:
            sock.close()
            raise


async def _environment(address: str) -> ConnectedStream:
    return ConnectedStream(connect_to(address))

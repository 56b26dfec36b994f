"""Connections handed from one process to another, with the bytes that were read from them.

One packet of a SEQPACKET socket hands over one connection: msgpack ``[kind, note, backlog]``, and
the connection's descriptor beside it.
"""

from __future__ import annotations

import logging
import os
import socket
from array import array
from collections.abc import Sequence
from typing import Final, NamedTuple

import msgpack
import trio

log = logging.getLogger(__name__)

CONTROL: Final = "control"
"""Kind of the first one: the way between a host and its supervisor."""
CLIENT: Final = "client"
"""Kind of all others: a client that has proved itself and asked to be attached."""

MAX_BACKLOG_BYTES: Final = 1 << 15
# A packet larger than this was not sent by `send`.
_PACKET_BYTES: Final = MAX_BACKLOG_BYTES + (1 << 12)
_MAX_NOTE_LENGTH: Final = 500
_INT: Final = array("i").itemsize


class Handed(NamedTuple):
    """A connection that was handed over.

    Attributes:
        kind: `CONTROL` or `CLIENT`.
        note: Who is at its other end, for messages.
        backlog: What was read from it already.
        sock: The connection, non-blocking; the receiver's own from here on.
    """

    kind: str
    note: str
    backlog: bytes
    sock: socket.socket


async def send_descriptors(
    sock: trio.socket.SocketType, data: bytes, descriptors: Sequence[int]
) -> None:
    """Send one packet, and descriptors with it."""
    await sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", descriptors))])


async def receive_descriptors(
    sock: trio.socket.SocketType, max_bytes: int
) -> tuple[bytes, list[int]]:
    """Receive one packet, and the descriptor with it, if any, which is not inherited.

    There is none either if this process has no room for it.
    """
    data, ancillary, _, _ = await sock.recvmsg(
        max_bytes, socket.CMSG_SPACE(_INT), socket.MSG_CMSG_CLOEXEC
    )
    descriptors = array("i")
    for level, kind, packed in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(packed[: len(packed) // _INT * _INT])
    return data, list(descriptors)


async def send(sock: trio.socket.SocketType, kind: str, note: str, backlog: bytes, fd: int) -> None:
    """Hand over the connection ``fd``; the caller still has its own copy to close.

    Waits while the receiver takes nothing; cancelled, it has handed over nothing.

    Raises:
        OSError: The receiver is gone.
        ValueError: The backlog has more than `MAX_BACKLOG_BYTES`.
    """
    if len(backlog) > MAX_BACKLOG_BYTES:
        raise ValueError(f"{len(backlog)} bytes of backlog are over {MAX_BACKLOG_BYTES}")
    packet: bytes = msgpack.packb([kind, note[:_MAX_NOTE_LENGTH], backlog])
    await send_descriptors(sock, packet, [fd])


async def receive(sock: trio.socket.SocketType) -> Handed | None:
    """Wait for the next connection; None if no more will come.

    One that cannot be taken, because this process has no descriptor left for it, is closed: its
    peer sees the end.
    """
    while True:
        try:
            packet, descriptors = await receive_descriptors(sock, _PACKET_BYTES)
        except ConnectionResetError:  # the sender ended with packets unread
            return None
        if not packet:
            return None
        handed = _opened(packet, descriptors)
        if handed is not None:
            return handed
        for fd in descriptors:
            os.close(fd)


def _opened(packet: bytes, descriptors: list[int]) -> Handed | None:
    try:
        kind, note, backlog = msgpack.unpackb(packet)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        log.warning("a connection was handed over wrongly: %r", error)
        return None
    if len(descriptors) != 1:
        log.warning("the connection of %s cannot be taken: no descriptor is left for it", note)
        return None
    connection = socket.socket(fileno=descriptors[0])
    connection.setblocking(False)
    return Handed(kind, note, backlog, connection)

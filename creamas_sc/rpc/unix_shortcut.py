"""Unix sockets between the environments of one machine, beside their TCP ports, which are slower.

Their names are in Linux' abstract namespace: no file is left, and they are seen where the loopback
addresses are, in the same network namespace. They tell nobody what they are for: only who has a
simulation's key knows the name that belongs to an address of it.
"""

from __future__ import annotations

import hashlib
import hmac
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import trio

from creamas_sc.rpc.socket_stream import ConnectedStream

__all__ = ["NearListener", "connect_near", "listen_near"]

BACKLOG = 1024
# Fewer trips for a large message; the kernel takes less where its own limit is lower.
BUFFER_BYTES = 1 << 20


class NearListener:
    """A unix socket that listens."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock

    async def accept(self) -> ConnectedStream:
        """The next connection.

        Raises:
            OSError: There can be none now.
        """
        while True:
            await trio.lowlevel.wait_readable(self._sock.fileno())
            try:
                return _stream(self._sock.accept()[0])
            except (BlockingIOError, ConnectionAbortedError):
                continue  # who asked has gone again


@contextmanager
def listen_near(key: bytes, url: str) -> Iterator[NearListener | None]:
    """Listen beside the address ``url`` of the simulation with that key; None if it cannot be."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        try:
            sock.bind(_name(key, url))
            sock.listen(BACKLOG)
        except OSError:  # it is a shortcut: there is the other way
            yield None
            return
        yield NearListener(sock)


def connect_near(key: bytes, url: str) -> ConnectedStream | None:
    """A connection to who listens beside ``url`` on this machine; None if nobody does."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.setblocking(False)
    try:
        sock.connect(_name(key, url))
    except OSError:
        sock.close()
        return None
    return _stream(sock)


def _stream(sock: socket.socket) -> ConnectedStream:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
    return ConnectedStream(sock)


def _name(key: bytes, url: str) -> bytes:
    return b"\0creamas-" + hmac.digest(key, url.encode(), hashlib.sha256)[:16].hex().encode()

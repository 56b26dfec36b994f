"""Unix sockets between the environments of one machine, beside their TCP ports, which are slower.

Their names are in Linux' abstract namespace: no file is left, and they are visible where the
loopback addresses are, in the same network namespace. Names are derived from the simulation's key,
so other users cannot guess which address one belongs to.
"""

from __future__ import annotations

import hashlib
import hmac
import socket

import trio

from creamas_sc.rpc.socket_stream import ConnectedStream

BACKLOG = 1024


def listen_nearby(key: bytes, url: str) -> trio.SocketListener | None:
    """Listen beside the address ``url`` of the simulation with that key; None if impossible."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(_name(key, url))
        sock.listen(BACKLOG)
    except OSError:  # it is a shortcut: there is the other way
        sock.close()
        return None
    return trio.SocketListener(trio.socket.from_stdlib_socket(sock))


def connect_nearby(key: bytes, url: str) -> ConnectedStream | None:
    """A connection to what listens beside ``url`` on this machine; None if nothing does."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.setblocking(False)
    try:
        sock.connect(_name(key, url))
    except OSError:
        sock.close()
        return None
    return ConnectedStream(sock, large=True)


def _name(key: bytes, url: str) -> bytes:
    return b"\0creamas-" + hmac.digest(key, url.encode(), hashlib.sha256)[:16].hex().encode()

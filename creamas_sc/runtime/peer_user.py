"""Which user is at the other end of a unix socket, as the kernel knows."""

from __future__ import annotations

import os
import socket
import struct

_CREDENTIALS = struct.Struct("3i")


def stranger(sock: socket.socket) -> str | None:
    """Who is at the other end of a connected unix socket, unless it is this process's user.

    A socket's credentials are of the process that connected or that began to listen. So a client
    that asks knows whether somebody else has taken its server's place, before it says anything.
    """
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(credentials)
    return None if uid == os.geteuid() else f"pid {pid} of user {uid}"


def peer_pid(sock: socket.socket) -> int:
    """The process at the other end of a connected unix socket."""
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid: int = _CREDENTIALS.unpack(credentials)[0]
    return pid

"""Errors of clients whose daemon or simulation cannot be reached."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

from creamas_sc.errors import ConnectionLost, CreamasError, HandshakeError, HostLost
from creamas_sc.runtime.paths import DEFAULT_DAEMON
from creamas_sc.runtime.peer_user import stranger
from creamas_sc.supervisor_client.messages import HostStatus

# The daemon's queue of connections is full: try again.
BUSY = frozenset({errno.EAGAIN, errno.ENOTCONN})
_NO_LISTENER = frozenset({errno.ENOENT, errno.ECONNREFUSED, errno.ENOTSOCK})


def unreachable(daemon: str, path: Path, error: OSError) -> CreamasError:
    """Return the error for a connection that could not be made."""
    if isinstance(error, PermissionError):
        return CreamasError(
            f"permission to open the daemon's socket {path} is denied: the folder {path.parent} "
            "and everything in it must belong to you"
        )
    text = f"the daemon {daemon!r} at {path} cannot be reached: {error.strerror or error}"
    if error.errno in _NO_LISTENER:
        named = "" if daemon == DEFAULT_DAEMON else f" --daemon {daemon}"
        text = (
            f"the daemon {daemon!r} is not running (nothing listens at {path}): start it with "
            f"`creamas-supervisor start{named}`"
        )
        if not os.environ.get("XDG_RUNTIME_DIR"):
            text += ", or set XDG_RUNTIME_DIR, which is not set, as it was where it was started"
    return ConnectionLost(text, address=str(path), may_have_run=False)


def check_owner(sock: socket.socket, path: Path) -> None:
    """Check that what listens at the other end is a process of this user.

    Raises:
        HandshakeError: Another user has put a socket there.
    """
    if (who := stranger(sock)) is not None:
        raise HandshakeError(f"{who} listens at {path}, where a daemon of yours should")


def no_answer(daemon: str, path: Path, seconds: float | None = None) -> ConnectionLost:
    """Return the error for a listener that stays silent, or hangs up during the handshake."""
    how = "hung up" if seconds is None else f"did not answer in {seconds:g} s"
    text = f"the daemon {daemon!r} at {path} {how}: its log may say why"
    return ConnectionLost(text, address=str(path), may_have_run=False)


def daemon_lost(
    daemon: str, lost: ConnectionLost, *, old_pid: int, pid: int | None, reconnect: bool
) -> ConnectionLost:
    """Return the error for a call to a daemon whose connection has ended.

    Args:
        old_pid: The daemon that the client had connected to.
        pid: The daemon that answers now; None if there is none.
        reconnect: Whether the user must connect again; else the client has done so.
    """
    if pid == old_pid:
        text = f"the connection to the daemon {daemon!r} was lost; the daemon itself answers"
    else:
        text = f"the daemon {daemon!r} is gone, and its simulations with it"
        text += "" if pid is None else "; another daemon of that name runs now"
    text += ": connect again" if reconnect and pid is not None else ""
    return ConnectionLost(text, address=lost.address, may_have_run=lost.may_have_run)


def detached(what: str) -> ConnectionLost:
    """Return the error for calls after `disconnect` or `detach`."""
    return ConnectionLost(f"no longer connected to {what}", may_have_run=False)


def simulation_lost(
    name: str, pid: int, lost: ConnectionLost, status: HostStatus | None
) -> ConnectionLost:
    """Return the error for a call to a simulation whose connection has ended.

    Args:
        status: What the daemon knows of the host; None if the daemon itself does not answer.
    """
    address, may_have_run = lost.address, lost.may_have_run
    if status is not None and not status["ended"]:
        text = (
            f"the connection to the simulation {name!r} was lost; its host (pid {pid}) is still "
            "running: attach again"
        )
        return ConnectionLost(text, address=address, may_have_run=may_have_run)
    how = "is lost: the daemon does not answer any more, and its simulations end with it"
    if status is not None:
        how = f"has ended: {status['cause'] or 'its host has ended'}"
    text = f"the simulation {name!r} {how}"
    error = HostLost(text, address=address, may_have_run=may_have_run)
    error.expected = status is not None and status["expected"]
    return error

"""What is said when a daemon, or a simulation in it, cannot be reached."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from creamas_sc.errors import ConnectionLost, CreamasError, HostLost
from creamas_sc.runtime.paths import DEFAULT_DAEMON

__all__ = [
    "daemon_gone",
    "daemon_lost",
    "detached",
    "no_answer",
    "replaced",
    "simulation_lost",
    "unreachable",
]

# Of a busy daemon: whoever connects may try again.
BUSY = frozenset({errno.EAGAIN, errno.ENOTCONN})
_NOBODY = frozenset({errno.ENOENT, errno.ECONNREFUSED, errno.ENOTSOCK})


def unreachable(daemon: str, path: Path, error: OSError) -> CreamasError:
    """The error of a connection that could not be made."""
    if error.errno in _NOBODY:
        start = "creamas-supervisor start"
        if daemon != DEFAULT_DAEMON:
            start += f" --daemon {daemon}"
        return ConnectionLost(
            f"no daemon {daemon!r} listens at {path}: start it with `{start}`",
            address=str(path),
            may_have_run=False,
        )
    if isinstance(error, PermissionError):
        return CreamasError(
            f"the daemon's socket {path} may not be opened: the folder {path.parent} and what is "
            "in it must be yours"
        )
    return ConnectionLost(
        f"the daemon {daemon!r} at {path} cannot be reached: {error.strerror or error}",
        address=str(path),
        may_have_run=False,
    )


def no_answer(daemon: str, path: Path, seconds: float | None = None) -> ConnectionLost:
    """Something listens and says nothing, or goes away in the middle of the handshake."""
    how = "hung up" if seconds is None else f"did not answer in {seconds:g} s"
    return ConnectionLost(
        f"the daemon {daemon!r} at {path} {how}: its log may say why",
        address=str(path),
        may_have_run=False,
    )


def daemon_gone(daemon: str, lost: ConnectionLost) -> ConnectionLost:
    """The error of a call to a daemon that was there when the client connected."""
    return ConnectionLost(
        f"the daemon {daemon!r} is gone, and its simulations with it",
        address=lost.address,
        may_have_run=lost.may_have_run,
    )


def daemon_lost(
    daemon: str, lost: ConnectionLost, *, ours: bool, anew: bool = False
) -> ConnectionLost:
    """The error of a call whose connection ended although a daemon of that name answers.

    Args:
        ours: It is the one that was there when the client connected.
        anew: The client has no new connection to it: the user must connect again.
    """
    if ours:
        text = f"the connection to the daemon {daemon!r} was lost; the daemon itself answers"
    else:
        text = (
            f"the daemon {daemon!r} is gone, and its simulations with it; another of that name "
            "runs now"
        )
    text += ": connect again" if anew else ""
    return ConnectionLost(text, address=lost.address, may_have_run=lost.may_have_run)


def detached(what: str) -> ConnectionLost:
    """The error of a call after the user's own farewell."""
    return ConnectionLost(f"no longer connected to {what}", may_have_run=False)


def replaced(name: str) -> HostLost:
    """The error of attaching again where in the meantime another simulation has the name."""
    return HostLost(
        f"the simulation {name!r} has ended, and another of that name was created since: attach "
        "to that one",
        may_have_run=False,
    )


def simulation_lost(
    name: str, pid: int, lost: ConnectionLost, fate: Mapping[str, Any] | None
) -> ConnectionLost:
    """The error of a call to a simulation whose connection has ended.

    Args:
        fate: What the daemon knows of the host; None where the daemon itself does not answer.
    """
    told: dict[str, Any] = {"address": lost.address, "may_have_run": lost.may_have_run}
    if fate is None:
        why = "the daemon does not answer any more, and its simulations end with it"
        return HostLost(f"the simulation {name!r} is lost: {why}", **told)
    if fate["ended"]:
        why = fate["cause"] or "its host has ended"
        error = HostLost(f"the simulation {name!r} has ended: {why}", **told)
        error.expected = fate["expected"]
        return error
    return ConnectionLost(
        f"the connection to the simulation {name!r} was lost; its host (pid {pid}) is still "
        "there: attach again",
        **told,
    )

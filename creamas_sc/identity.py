"""Which simulation an environment belongs to, the key that proves it, and where daemons listen.

A simulation of a `MultiEnvironment` has an id and a random key of its own, which its slaves get
when they start. An environment that belongs to none is open to this user's other processes: their
key is in a file only the user can read.
"""

from __future__ import annotations

import os
import re
import stat
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path

from creamas_sc.errors import BadValue, CreamasError
from creamas_sc.wire.handshake import Identity

__all__ = [
    "Membership",
    "check_name",
    "client_identity",
    "daemon_name",
    "daemon_socket",
    "membership",
    "runtime_folder",
    "user_membership",
]

KEY_BYTES = 32
USER_SIMULATION = "user"
# What daemons and their clients call themselves in the handshake.
DAEMON_SIMULATION = "creamas-supervisor"
DEFAULT_DAEMON = "default"
# What a unix socket's path may have: sun_path without its closing zero.
SOCKET_PATH_BYTES = 107
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True)
class Membership:
    """What an environment shows to others of its simulation.

    Attributes:
        simulation: The simulation's id; sent in clear.
        key: Its shared secret; never sent.
        role: "master" for a MultiEnvironment's own environment, "slave", or "environment".
    """

    simulation: str
    key: bytes = field(repr=False)
    role: str = "environment"

    @classmethod
    def new(cls, role: str = "master") -> Membership:
        """A simulation of its own, with a fresh id and key."""
        return cls(os.urandom(8).hex(), os.urandom(KEY_BYTES), role)


# Set around the making of an environment that belongs to a simulation.
membership: ContextVar[Membership | None] = ContextVar("membership", default=None)


def runtime_folder() -> Path:
    """The user's private folder for keys and sockets, made with mode 0700.

    It is in $XDG_RUNTIME_DIR, or else, also where that is no absolute path, in the folder for
    temporary files. A $XDG_RUNTIME_DIR that is not there is made, with mode 0700 like all above it
    that is missing: another place instead would hide daemons from those who come when it is there.

    Raises:
        CreamasError: It exists and others could read it, or it belongs to somebody else.
    """
    base = os.environ.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(base):
        folder = Path(base) / "creamas"
    else:
        import tempfile  # which takes long, and few need it

        folder = Path(tempfile.gettempdir()) / f"creamas-{os.getuid()}"
    try:
        _make_private(folder)
    except OSError as error:
        raise CreamasError(
            f"the folder {folder} cannot be made: {error.strerror}; set XDG_RUNTIME_DIR to a "
            "folder of yours"
        ) from error
    status = folder.lstat()
    private = stat.S_ISDIR(status.st_mode) and not status.st_mode & 0o077
    if not private or status.st_uid != os.getuid():
        raise CreamasError(f"{folder} must be a folder of yours with mode 0700; remove or mend it")
    return folder


def _make_private(folder: Path) -> None:
    """Make it, and what is missing above it, for this user alone; what is there stays as it is."""
    if not os.path.lexists(folder.parent):
        _make_private(folder.parent)
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        pass  # what it is, others look at


def check_name(name: object, what: str) -> str:
    """``name``, if it will do as the name of a daemon or simulation.

    Args:
        what: What it names, for the error.

    Raises:
        BadValue: It is of another form.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise BadValue(
            f"{name!r:.100} is no name of a {what}: use up to 64 letters, digits, '.', '_' and "
            "'-', with a letter or digit first"
        )
    return name


def daemon_name(given: str | None = None) -> str:
    """``given``, else ``$CREAMAS_DAEMON``, else "default".

    Raises:
        BadValue: It is no name.
    """
    name = given if given is not None else os.environ.get("CREAMAS_DAEMON") or DEFAULT_DAEMON
    return check_name(name, "daemon")


def daemon_socket(name: str) -> Path:
    """Where the daemon of that name listens.

    Raises:
        BadValue: It is no name.
        CreamasError: The folder will not do (see `runtime_folder`), or the path is too long.
    """
    path = runtime_folder() / f"{check_name(name, 'daemon')}.sock"
    if len(os.fsencode(path)) > SOCKET_PATH_BYTES:
        raise CreamasError(
            f"the socket's path {path} is longer than the {SOCKET_PATH_BYTES} bytes that the "
            "system allows: set XDG_RUNTIME_DIR to a shorter folder"
        )
    return path


def client_identity() -> Identity:
    """What a client shows to a daemon of its user."""
    key = user_membership().key
    return Identity(DAEMON_SIMULATION, key, "client", f"pid {os.getpid()}", os.getpid())


def user_membership() -> Membership:
    """The membership of environments outside any simulation: all of this user's processes.

    The key is made at the first use; of two processes that make it at once, one wins.
    """
    path = runtime_folder() / "key"
    try:
        key = path.read_bytes()
    except FileNotFoundError:
        key = _make_key(path)
    if len(key) != KEY_BYTES:
        raise CreamasError(f"{path} is no key of {KEY_BYTES} bytes; remove it")
    return Membership(USER_SIMULATION, key)


def _make_key(path: Path) -> bytes:
    import tempfile

    descriptor, draft = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(os.urandom(KEY_BYTES))
        try:
            os.link(draft, path)
        except FileExistsError:
            pass  # another process was faster: its key it is
    finally:
        os.unlink(draft)
    return path.read_bytes()

"""Which simulation an environment belongs to, and the key that proves it.

A simulation of a `MultiEnvironment` has an id and a random key of its own, which its slaves get
when they start. An environment that belongs to none is open to this user's other processes: their
key is in a file only the user can read.
"""

from __future__ import annotations

import os
import secrets
import stat
import tempfile
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path

from creamas_sc.errors import CreamasError

__all__ = ["Membership", "membership", "user_membership"]

KEY_BYTES = 32
USER_SIMULATION = "user"


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
        return cls(secrets.token_hex(8), secrets.token_bytes(KEY_BYTES), role)


# Set around the making of an environment that belongs to a simulation.
membership: ContextVar[Membership | None] = ContextVar("membership", default=None)


def runtime_folder() -> Path:
    """The user's private folder for keys and sockets, made with mode 0700.

    Raises:
        CreamasError: It exists and others could read it, or it belongs to somebody else.
    """
    base = os.environ.get("XDG_RUNTIME_DIR")
    if base:
        folder = Path(base) / "creamas"
    else:
        folder = Path(tempfile.gettempdir()) / f"creamas-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, parents=True)
    except FileExistsError:
        pass  # what it is comes next
    status = folder.lstat()
    private = stat.S_ISDIR(status.st_mode) and not status.st_mode & 0o077
    if not private or status.st_uid != os.getuid():
        raise CreamasError(f"{folder} must be a folder of yours with mode 0700; remove or mend it")
    return folder


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
    descriptor, draft = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(KEY_BYTES))
        try:
            os.link(draft, path)
        except FileExistsError:
            pass  # another process was faster: its key it is
    finally:
        os.unlink(draft)
    return path.read_bytes()

"""Who belongs to a simulation, and the key that proves it.

A simulation of a `MultiEnvironment` has an id and a random key, which its slaves get
when they start. An environment outside any simulation is open to this user's other processes: their
key is in a file that only the user can read.
"""

from __future__ import annotations

import os
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path

from creamas_sc.errors import CreamasError
from creamas_sc.runtime.paths import runtime_folder
from creamas_sc.wire.handshake import Identity

KEY_BYTES = 32
USER_SIMULATION = "user"
# What daemons and their clients call themselves in the handshake.
DAEMON_SIMULATION = "creamas-supervisor"


@dataclass(frozen=True)
class Membership:
    """What an environment shows to others of its simulation.

    Attributes:
        simulation: The simulation's id; sent in clear.
        key: Its shared secret; never sent.
        role: "master" for a MultiEnvironment's own environment, "slave", or "environment".
        generation: As of `Identity`.
    """

    simulation: str
    key: bytes = field(repr=False)
    role: str = "environment"
    generation: int = 0

    @classmethod
    def new(cls) -> Membership:
        """The master of a new simulation, with a fresh id and key."""
        return cls(os.urandom(8).hex(), os.urandom(KEY_BYTES), "master")

    def identity(self, address: str) -> Identity:
        """What an end of connections shows to others; ``address`` is where it can be reached."""
        return Identity(self.simulation, self.key, self.role, address, os.getpid(), self.generation)


# Set in a slave: the membership of environments that are made there.
membership: ContextVar[Membership | None] = ContextVar("membership", default=None)


def client_identity() -> Identity:
    """What a client shows to a daemon of its user."""
    member = Membership(DAEMON_SIMULATION, user_membership().key, "client")
    return member.identity(f"pid {os.getpid()}")


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
        raise CreamasError(f"{path} is not a key of {KEY_BYTES} bytes; remove it")
    return Membership(USER_SIMULATION, key)


def _make_key(path: Path) -> bytes:
    import tempfile

    descriptor, draft = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(os.urandom(KEY_BYTES))
        with suppress(FileExistsError):  # another process was faster: its key it is
            os.link(draft, path)
    finally:
        os.unlink(draft)
    return path.read_bytes()

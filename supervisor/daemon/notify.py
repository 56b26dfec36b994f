"""What a daemon says to systemd, if systemd has started it: see sd_notify(3).

Of a unit with ``Type=notify``, systemd waits for READY before it counts as started. With
``WatchdogSec`` it kills and starts a daemon again that does not say WATCHDOG in time. Each message
is one datagram to the socket that ``NOTIFY_SOCKET`` names.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress

import trio

# Within the time that systemd waits for one, so many are sent.
PER_INTERVAL = 3
_SOCKET, _SECONDS, _PID = "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"


class Notifier:
    """Says to systemd how the daemon is; without systemd, it says nothing to nobody.

    Args:
        address: A path, or the name of an abstract socket after an "@"; empty for none.
        watchdog_seconds: How long systemd waits for a sign of life; None for ever.
    """

    def __init__(self, address: str = "", watchdog_seconds: float | None = None) -> None:
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self.watchdog_seconds = watchdog_seconds

    @classmethod
    def take(cls, environ: MutableMapping[str, str] = os.environ) -> Notifier:
        """Make the one of this process, and remove it from the environment of its children."""
        address, micros, pid = (environ.pop(name, "") for name in (_SOCKET, _SECONDS, _PID))
        mine = pid in ("", str(os.getpid()))
        seconds = int(micros) / 1e6 if micros.isascii() and micros.isdigit() and mine else None
        return cls(address, seconds or None)

    def ready(self, status: str) -> None:
        """Clients can connect; ``status`` is shown by systemctl."""
        self._send(f"READY=1\nSTATUS={status}")

    def stopping(self) -> None:
        """The daemon has begun to end."""
        self._send("STOPPING=1\nSTATUS=closing all simulations")

    async def watch(self, ping: Callable[[], Awaitable[object]]) -> None:
        """Give signs of life, as long as ``ping`` returns in time; until cancelled, or at once."""
        if not self._address or self.watchdog_seconds is None:
            return
        pause = self.watchdog_seconds / PER_INTERVAL
        while True:
            await ping()
            self._send("WATCHDOG=1")
            await trio.sleep(pause)

    def _send(self, message: str) -> None:
        if not self._address:
            return
        # Neither a systemd that is gone nor one that does not read may end or hold up the daemon.
        with (
            suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock,
        ):
            sock.setblocking(False)
            sock.sendto(message.encode(), self._address)

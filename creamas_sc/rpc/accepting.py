"""Accept connections, also while the process is out of descriptors."""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import closing

import trio

from creamas_sc.errors import CreamasError, HandshakeError
from creamas_sc.runtime.timeouts import LOOK_SECONDS

log = logging.getLogger(__name__)

# So many reasons of refusals are logged in such a time, each once: who connects can choose them.
MOST_REASONS = 8
REPEAT_SECONDS = 60.0
# Of strangers: how many may be open, and how long one has at least. Where so many are, the next one
# takes the place of the oldest, if that had so much time.
MAX_STRANGERS = 32
STRANGER_SECONDS = 0.25
PAUSE_SECONDS = 0.1  # out of descriptors: the kernel keeps peers waiting
_SCARCE = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS}


async def accept(listener: trio.SocketListener) -> trio.SocketStream | None:
    """Return the next connection, or None once ``listener`` is closed.

    As `trio.serve_listeners` does, but that logs a traceback ten times a second while there are no
    descriptors, and strangers can bring that about.
    """
    logged = False
    while True:
        try:
            return await listener.accept()
        except trio.ClosedResourceError:
            return None
        except OSError as error:
            if error.errno not in _SCARCE:
                raise
            if not logged:
                log.warning("cannot accept connections now: %s", error.strerror)
                logged = True
            await trio.sleep(PAUSE_SECONDS)


async def keep_listening(
    listener: trio.SocketListener,
    serve: Callable[[trio.SocketListener], Awaitable[None]],
    in_place: Callable[[], bool],
    listen: Callable[[], trio.SocketListener],
) -> None:
    """Serve a unix socket, and put it back when it was removed; until ``serve`` returns.

    Folders for temporary files are cleaned up, and $XDG_RUNTIME_DIR goes when its user logs out.

    Args:
        listener: Closed at the end, as are those that follow it.
        serve: Accepts connections; returns once its listener is closed.
        in_place: Whether the socket is still there.
        listen: Puts it back; raises CreamasError if that cannot be done now.
    """
    while True:
        over = False

        async def run(current: trio.SocketListener, looking: trio.CancelScope) -> None:
            nonlocal over
            await serve(current)
            over = True
            looking.cancel()

        with closing(listener.socket):
            async with trio.open_nursery() as serving:
                serving.start_soon(run, listener, serving.cancel_scope)
                while in_place():  # noqa: ASYNC110 - nothing tells
                    await trio.sleep(LOOK_SECONDS)
                serving.cancel_scope.cancel()
        if over:
            return
        listener = await _put_back(listen)


async def _put_back(listen: Callable[[], trio.SocketListener]) -> trio.SocketListener:
    logged = False
    while True:
        try:
            listener = listen()
        except CreamasError as error:
            if not logged:
                log.warning("the socket was removed, and cannot be put back yet: %s", error)
                logged = True
        else:
            log.warning("the socket was removed, and put back: %s", listener.socket.getsockname())
            return listener
        await trio.sleep(LOOK_SECONDS)


class RefusalLog:
    """Logs refused connections: in a minute a few reasons, each once, and how many more there were.

    So nobody fills the log by connecting again and again.
    """

    def __init__(self, log: logging.Logger, most_reasons: int = MOST_REASONS) -> None:
        self._log = log
        self._most_reasons = most_reasons
        self._reasons: set[str] = set()
        self._since = 0.0
        self._more = 0
        self._last = logging.INFO, ""

    def add(self, level: int, reason: str, who: str = "") -> None:
        """Log that a connection was refused, or count it.

        Args:
            who: Its other end, which may differ where the reason is the same.
        """
        now = time.monotonic()
        if now >= self._since + REPEAT_SECONDS:
            self.close()
            self._since = now
        if reason in self._reasons or len(self._reasons) >= self._most_reasons:
            self._more += 1
            self._last = level, reason
            return
        self._reasons.add(reason)
        self._log.log(level, "refused a connection%s: %s", who and f" of {who}", reason)

    def close(self) -> None:
        """Log how many there were that were not logged."""
        if self._more:
            level, reason = self._last
            self._log.log(level, "refused %d more connections; the last: %s", self._more, reason)
        self._more = 0
        self._reasons.clear()


class Strangers:
    """Those that have connected and have yet to prove themselves: `MAX_STRANGERS` at most."""

    def __init__(self) -> None:
        self._since: dict[trio.CancelScope, float] = {}  # oldest first
        self._left = trio.lowlevel.ParkingLot()

    async def admit(self) -> trio.CancelScope:
        """Wait until there is room for one more; the oldest must go if it had its time.

        So a peer that connects and says nothing keeps nobody out. More wait in the kernel's queue.

        Returns:
            Cancelled if it must go; to be given to `leave`.
        """
        while len(self._since) >= MAX_STRANGERS:
            oldest, since = next(iter(self._since.items()))
            with trio.move_on_at(since + STRANGER_SECONDS) as scope:
                await self._left.park()
            if scope.cancelled_caught and oldest in self._since:
                oldest.cancel()
                await self._left.park()
        proving = trio.CancelScope()
        self._since[proving] = trio.current_time()
        return proving

    def __len__(self) -> int:
        return len(self._since)

    @staticmethod
    def refusal() -> HandshakeError:
        """The error of one that had to go."""
        return HandshakeError(f"it proved nothing, and {MAX_STRANGERS} more had connected")

    def leave(self, proving: trio.CancelScope) -> None:
        """One has proved itself, or is gone."""
        self._since.pop(proving, None)
        self._left.unpark_all()

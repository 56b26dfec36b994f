"""How many of a client's calls to agents run at once: an adaptive limit that bounds memory.

The size of an answer is not known before it arrives, and then it has to be kept until the client
reads it. So no call begins while answers wait to be read. The limit starts low, grows by one with
each small answer, and falls back to the start with a large one. Calls may wait for each other: if
none ends for a while, the limit is doubled, so that those which wait get a chance to run.
"""

from __future__ import annotations

import trio

from creamas_sc.rpc.connection import Connection

__all__ = ["ConcurrencyLimit"]

FEW = 4
LARGE_BYTES = 1 << 18
# After so long without the end of a call, the running calls may be waiting for queued ones.
STUCK_SECONDS = 0.1


class ConcurrencyLimit:
    """The limit of one client's calls."""

    def __init__(self) -> None:
        self._limit = FEW
        self._running = 0
        self._ended = trio.Event()
        self._queue = trio.Lock()

    async def acquire(self, connection: Connection) -> None:
        """Wait until a call may begin, in order; `release` it when it has ended."""
        if not self._queue.locked() and self._free(connection):
            self._running += 1
            return
        async with self._queue:  # only the first in the queue wakes when a call ends
            while not self._free(connection):
                if connection.out.drained:
                    await self._wait_for_end()
                else:
                    await connection.out.wait_until_drained()
            self._running += 1

    def _free(self, connection: Connection) -> bool:
        return self._running < self._limit and connection.out.drained

    async def _wait_for_end(self) -> None:
        with trio.move_on_after(STUCK_SECONDS):
            await self._ended.wait()
            return
        self._limit *= 2

    def release(self, size: int) -> None:
        """A call has ended, with an answer of ``size`` bytes."""
        self._running -= 1
        self._limit = FEW if size > LARGE_BYTES else self._limit + 1
        ended, self._ended = self._ended, trio.Event()
        ended.set()

"""How many of a client's calls to agents run at once: few at first, so that answers do not pile up.

How large an answer is nobody knows before it is here, and then it has to be kept until the client
reads it. So no further calls are begun while answers wait to be read, and few where answers are
large. Calls may wait for each other: where none ends for a while, more are let in.
"""

from __future__ import annotations

import trio

from creamas_sc.rpc.connection import Connection

__all__ = ["Turns"]

FEW = 4
LARGE_BYTES = 1 << 18
# Without any end of a call, after which those that wait may be what the others wait for.
PATIENCE_SECONDS = 0.1


class Turns:
    """The turns of one client's calls."""

    def __init__(self) -> None:
        self._limit = FEW
        self._running = 0
        self._ended = trio.Event()
        self._door = trio.Lock()

    async def begin(self, connection: Connection) -> None:
        """Wait for a turn, in order; `end` gives it back."""
        if not self._door.locked() and self._free(connection):
            self._running += 1
            return
        async with self._door:  # only the first in the queue looks up when a call ends
            while not self._free(connection):
                if connection.drained:
                    await self._wait_for_an_end()
                else:
                    await connection.wait_until_drained()
            self._running += 1

    def _free(self, connection: Connection) -> bool:
        return self._running < self._limit and connection.drained

    async def _wait_for_an_end(self) -> None:
        with trio.move_on_after(PATIENCE_SECONDS):
            await self._ended.wait()
            return
        self._limit *= 2

    def end(self, size: int) -> None:
        """A call has ended, with an answer of ``size`` bytes."""
        self._running -= 1
        self._limit = FEW if size > LARGE_BYTES else self._limit + 1
        ended, self._ended = self._ended, trio.Event()
        ended.set()

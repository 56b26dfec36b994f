"""What a connection has to write: in order, in few writes, and by whoever is nearest.

Whoever has something to send writes it directly when the socket is free and nobody else is about
to; what the socket does not take, and what several tasks send at once, is left to the writer task.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import Any

import anyio
from anyio.abc import ByteStream, SocketAttribute

from creamas_sc.rpc.loops import Loop

__all__ = ["HIGH_WATER_BYTES", "Outgoing"]

# Senders wait while more than this is queued; a peer that asks on meanwhile is served in turn.
HIGH_WATER_BYTES = 1 << 22
# So many are written even while more is about to come: the peer begins with them meanwhile.
BATCH = 32
# Up to here one more copy costs less than a list of buffers.
JOIN_BYTES = 1 << 16
# What one write may consist of; the kernel's own limit is 1024.
MAX_BUFFERS = 512


class Outgoing:
    """The queue of one stream.

    Args:
        on_failure: Called when the stream takes no more; the reader sees the end too.

    Attributes:
        size: Bytes in the queue.
        drained: Whether the peer reads what is sent, or all is over.
        crowded: Several tasks are about to send: one write for all of them.
    """

    def __init__(self, stream: ByteStream, loop: Loop, on_failure: Callable[[], object]) -> None:
        self.size = 0
        self.drained = True
        self.crowded = False
        self._stream = stream
        self._raw = _raw_socket(stream)
        self._on_failure = on_failure
        self._new_waiter = loop.waiter
        self._buffers: list[Any] = []
        self._held = False
        self._writing = False
        self._wake = loop.waiter()
        self._drained_event = anyio.Event()

    async def wait_until_drained(self) -> None:
        """Wait until the peer has read what is queued, or all is over."""
        while not self.drained:  # of those that wait, another may fill it up again
            await self._drained_event.wait()

    async def flush(self) -> None:
        """Wait until all is written, or all is over."""
        if self._buffers or self._writing:
            self.fill()  # until the writer has written all
            self._wake.set()
            await self._drained_event.wait()

    def fill(self) -> None:
        """Have senders wait until all is written."""
        if self.drained:
            self.drained = False
            self._drained_event = anyio.Event()

    def end(self) -> None:
        """All is over, or written: nobody need wait any longer."""
        self.drained = True
        self._drained_event.set()

    def hold(self) -> None:
        """Only queue what is put, until `release`: more of it is about to come."""
        self._held = True

    def release(self) -> None:
        """Write what was queued meanwhile."""
        self._held = False
        if self._buffers and not self._writing:
            self._write_now()

    def put(self, buffers: Sequence[Any]) -> None:
        """Queue the buffers of a frame, and write them if it is time to."""
        self._buffers += buffers
        self.size += len(buffers[0]) if len(buffers) == 1 else sum(map(len, buffers))
        if self.size > HIGH_WATER_BYTES:
            self.fill()
        if self._writing:
            return
        if len(self._buffers) < BATCH and (self._held or self.crowded):
            if not self._held:
                self._wake.set()
        elif self._raw is None:
            self._wake.set()
        else:
            self._write_now()

    def _write_now(self) -> None:
        """Write what the socket takes now; the rest is the writer task's."""
        try:
            while self._buffers and self._raw is not None:
                if not self._send(self._raw):
                    break
        except OSError:
            pass  # so does the writer's attempt: it may wake whom this task is not to wake now
        if self._buffers:
            self._wake.set()
        else:
            self.end()

    def _send(self, sock: socket.socket) -> bool:
        """Write once; whether the socket took all of it."""
        buffers = self._buffers
        try:
            if len(buffers) == 1:
                sent = sock.send(buffers[0])
            elif self.size <= JOIN_BYTES:
                sent = sock.send(b"".join(buffers))
            else:
                sent = sock.sendmsg(buffers[:MAX_BUFFERS])
        except BlockingIOError:
            return False
        self.size -= sent
        if not self.size:
            buffers.clear()
            return True
        count = 0
        while sent >= len(buffers[count]):
            sent -= len(buffers[count])
            count += 1
        del buffers[:count]
        if sent:
            buffers[0] = memoryview(buffers[0])[sent:]
        return not sent

    async def run(self) -> None:
        """Be the writer task."""
        try:
            while True:
                await self._wake.wait()
                self._wake = self._new_waiter()
                if self._buffers and not self._held:
                    await self._write_all()
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
            self._on_failure()
        finally:
            self._writing = False

    async def _write_all(self) -> None:
        self._writing = True
        while self._buffers:
            if self._raw is None or not self._send(self._raw):
                chunk = self._next_chunk()
                await self._stream.send(chunk)
                self.size -= len(chunk)
        self._writing = False
        self.end()

    def _next_chunk(self) -> Any:
        """Take from the queue what goes into one write: a large buffer, or small ones joined."""
        buffers = self._buffers
        size = count = 0
        for buffer in buffers:
            size += len(buffer)
            if size > JOIN_BYTES and count:
                break
            count += 1
        chunk = buffers[0] if count == 1 else b"".join(buffers[:count])
        del buffers[:count]
        return chunk


def _raw_socket(stream: ByteStream) -> socket.socket | None:
    """The non-blocking socket under ``stream`` where writing to it directly is sound: on trio."""
    raw = stream.extra(SocketAttribute.raw_socket, None)
    return raw if isinstance(raw, socket.socket) and raw.gettimeout() == 0 else None

"""What a connection has to write: in order, in few system calls, by the task that is nearest.

    put()  --->  queue  --->  socket, at once, by the task that called put()     (the usual case)
                   |
                   +------->  writer task, `run`: what the socket did not take, what several tasks
                              send at about the same time, and streams that are not plain sockets

Waking another task to write would cost more than the write, so `put` writes directly unless

* the queue is ``held``: the reader handles a batch of frames and calls `release` after it, so that
  all its answers leave in one write. A batch that grows to `BATCH` buffers is written early: the
  peer can begin with them;
* it is ``crowded``: the last batch settled several calls, so their callers are about to send again.
  The writer task runs after all of them and writes once;
* the writer task is writing: order is kept because it alone writes until the queue is empty;
* the buffers are put ``lazily``: what is put next takes them along.

A direct write never waits and never raises. When the socket takes no more, or is broken, the rest
is left to the writer task, which waits for the socket, or meets the same error and reports it.

``drained`` is the one signal of backpressure. It turns False when more than `HIGH_WATER_BYTES` are
queued and True when all of them are written (not when the size falls below the mark: this avoids
flapping) or the connection is over. Callers wait for it before they send, and `ServingLimits`
depends on it.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import Any

import anyio
from anyio.abc import ByteStream, SocketAttribute

from creamas_sc.rpc.loops import Loop

HIGH_WATER_BYTES = 1 << 22
BATCH = 32
# Up to this size one more copy costs less than a list of buffers.
JOIN_BYTES = 1 << 16
# How many buffers one write may consist of; the kernel's own limit is 1024.
MAX_BUFFERS = 512


class WriteQueue:
    """The queue of one stream.

    Args:
        on_failure: Called when the stream takes no more.

    Attributes:
        size: Bytes in the queue.
        drained: Whether the peer reads what is sent, or the connection is over.
        held: Whether to queue only, until `release`.
        crowded: Whether several tasks are about to send.
    """

    def __init__(self, stream: ByteStream, loop: Loop, on_failure: Callable[[], object]) -> None:
        self.size = 0
        self.drained = True
        self.held = False
        self.crowded = False
        self._stream = stream
        # Writing to the socket directly is sound where it is non-blocking: on trio.
        raw = stream.extra(SocketAttribute.raw_socket, None)
        usable = isinstance(raw, socket.socket) and raw.gettimeout() == 0
        self._raw: socket.socket | None = raw if usable else None
        self._on_failure = on_failure
        self._new_waiter = loop.waiter
        self._buffers: list[Any] = []
        # Whether there is anything in the queue that was not put lazily.
        self._urgent = False
        self._writing = False
        self._wake = loop.waiter()
        self._drained_event = anyio.Event()

    # ---- backpressure

    async def wait_until_drained(self) -> None:
        """Wait until everything is written, or the connection is over."""
        while not self.drained:  # another task that waits may fill it up again
            await self._drained_event.wait()

    async def flush(self) -> None:
        """Write everything, or wait until the connection is over."""
        if self._buffers or self._writing:
            self.fill()
            self._urgent = True  # else a queue that is held would not write what was put lazily
            self._wake.set()
            await self._drained_event.wait()

    def fill(self) -> None:
        """Make senders wait until everything is written."""
        if self.drained:
            self.drained = False
            self._drained_event = anyio.Event()

    def end(self) -> None:
        """Let everybody go on: everything is written, or the connection is over."""
        self.drained = True
        self._drained_event.set()

    def discard(self) -> None:
        """Give up what is queued: the connection is over, and it may be much."""
        self._buffers.clear()
        self.size = 0

    def leave(self) -> None:
        """Write nothing of what is queued, here in a forked child: that is for the parent."""
        self._buffers.clear()
        self._urgent = False
        raw, self._raw = self._raw, None
        if raw is not None:
            raw.close()

    # ---- writing

    def put(self, buffers: Sequence[Any], *, lazily: bool = False) -> None:
        """Queue the buffers of a frame, and write them if it is time to."""
        self._buffers += buffers
        self.size += len(buffers[0]) if len(buffers) == 1 else sum(map(len, buffers))
        if self.size > HIGH_WATER_BYTES:
            self.fill()
        elif lazily:
            return
        self._urgent = True
        if self._writing:
            return
        if len(self._buffers) < BATCH and (self.held or self.crowded):
            if not self.held:
                self._wake.set()
        elif self._raw is None:
            self._wake.set()
        else:
            self._write_now()

    def urge(self) -> None:
        """Write what was put lazily."""
        if self._buffers and not self._urgent:
            self._urgent = True
            if not (self.held or self._writing):
                self._write_now()

    def release(self) -> None:
        """Write what was queued while the queue was held."""
        self.held = False
        if self._urgent and not self._writing:
            self._write_now()

    def _write_now(self) -> bool:
        """Write what the socket takes now; return whether that was everything."""
        buffers, sock = self._buffers, self._raw
        try:
            while buffers and sock is not None:
                if len(buffers) == 1:
                    sent = sock.send(buffers[0])
                elif self.size <= JOIN_BYTES:
                    sent = sock.send(b"".join(buffers))
                else:
                    sent = sock.sendmsg(buffers[:MAX_BUFFERS])
                self.size -= sent
                if not self.size:
                    buffers.clear()
                elif self._drop(sent):
                    break
        except OSError:  # full, or broken: then the writer task meets the same error
            pass
        if not buffers:
            self._urgent = False
            if not self.drained:
                self.end()
            return True
        if not self._writing:
            self._wake.set()
        return False

    def _drop(self, sent: int) -> bool:
        """Remove the bytes that were sent; return whether a buffer was cut: the socket is full."""
        buffers, count = self._buffers, 0
        while sent >= len(buffers[count]):
            sent -= len(buffers[count])
            count += 1
        del buffers[:count]
        if sent:
            buffers[0] = memoryview(buffers[0])[sent:]
        return bool(sent)

    async def run(self) -> None:
        """Be the writer task."""
        try:
            while True:
                await self._wake.wait()
                self._wake = self._new_waiter()
                if not self._buffers or self.held:
                    continue
                self._writing = True
                while not self._write_now():
                    chunk = self._next_chunk()
                    await self._stream.send(chunk)
                    self.size -= len(chunk)
                self._writing = False
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
            self._on_failure()
        finally:
            self._writing = False

    def _next_chunk(self) -> Any:
        """Take from the queue what goes into one write: a large buffer, or small ones joined.

        A stream that is not a plain socket, such as any of asyncio's, is written to by this alone.
        """
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

"""One framed connection, driven by the calling thread: one call at a time, and no other thread.

The socket is non-blocking; all waiting is done in ``poll``. What the bytes mean is `WireProtocol`'s
business, as in the async `creamas_sc.rpc.connection`; here is what is different:

    call():  start_call -> _pump until the slot is filled -> result
    _pump(): write what the socket takes -> poll -> receive what is there -> next_frame -> again

A Ctrl-C may come between any two instructions. In ``poll``, where nearly all time is spent, it
loses nothing: the call is cancelled, the peer confirms that, and the connection stays good. While
bytes are on their way between the socket and this object (``_intact`` is False), some may be lost:
then the connection is closed and `interrupted`, so that its owner opens another one.
"""

from __future__ import annotations

import logging
import math
import select
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

from creamas_sc.errors import ConnectionLost, DeadlineExceeded, HandshakeError, ProtocolError
from creamas_sc.foreign import printable
from creamas_sc.runtime.timeouts import ACKNOWLEDGE_SECONDS
from creamas_sc.wire.codec import Codec, Payload
from creamas_sc.wire.frames import (
    MAX_FRAME_BYTES,
    MAX_HANDSHAKE_BYTES,
    Buffer,
    Frame,
    FrameReader,
    Kind,
)
from creamas_sc.wire.handshake import Handshake
from creamas_sc.wire.protocol import WireProtocol

log = logging.getLogger(__name__)

READ_BYTES = 1 << 18


class _Output:
    """What is to be written; the peer's calls, which need the limits, are not served here."""

    size = 0
    drained = True

    def __init__(self) -> None:
        self.buffers: list[Buffer] = []

    def put(self, buffers: Sequence[Buffer], *, lazily: bool = False) -> None:
        self.buffers += buffers


class _Slot:
    """Where the answer to the one call is left."""

    def __init__(self) -> None:
        self.answer: Frame | None = None

    def set(self) -> None:
        """Nothing waits for it but `_pump`, which looks."""


class BlockingConnection:
    """The calling end of a connection; it serves no calls, and ignores events.

    Args:
        sock: A connected stream socket; owned and closed by the connection.
        codec: Decodes errors, and the results that some of them hold.
        name: The peer, for error messages.
    """

    def __init__(
        self, sock: socket.socket, *, codec: Codec | None = None, name: str = "peer"
    ) -> None:
        sock.setblocking(False)
        self.name = name
        self._interrupted = False
        self._sock = sock
        self._poll = select.poll()
        self._out = _Output()
        reader = FrameReader(MAX_HANDSHAKE_BYTES)
        self.protocol = WireProtocol(self._out, codec or Codec(), name, reader)
        # False while bytes may be neither in the socket nor here.
        self._intact = True

    # ---- life

    @property
    def alive(self) -> bool:
        """Whether calls can be made."""
        return self.protocol.alive

    def perform_handshake(self, handshake: Handshake, timeout: float) -> None:
        """Prove each other's membership, as the first thing. An error closes the connection.

        Raises:
            HandshakeError: The peer has refused, or is refused.
            ConnectionLost: It went away.
            DeadlineExceeded: It did not answer in ``timeout`` seconds.
        """
        deadline = time.monotonic() + timeout
        protocol = self.protocol
        try:
            self._out.buffers += handshake.data_to_send()
            while not handshake.complete:
                if not self._pump(lambda: bool(protocol.frames), deadline):
                    raise DeadlineExceeded(
                        f"{self.name} did not answer in time", may_have_run=False
                    )
                try:
                    while protocol.frames:
                        handshake.receive(protocol.frames.popleft())
                finally:  # a peer that is refused is told why
                    self._out.buffers += handshake.data_to_send()
                    self._write()
            protocol.reader.max_frame_bytes = MAX_FRAME_BYTES
        except HandshakeError:
            self.close()
            raise
        except ProtocolError as error:
            raise HandshakeError(f"{self.name} speaks another protocol: {error}") from error
        except BaseException:
            self.close()
            raise

    @property
    def interrupted(self) -> bool:
        """Whether, between calls, it cannot go on because a signal came at a bad moment."""
        return self._interrupted or (self.alive and not self._intact)

    def interrupt(self) -> None:
        """Close it for such a reason."""
        if self.alive:
            self._interrupted = True
            self.close()

    def wait_end(self, timeout: float) -> None:
        """Wait until the peer has ended the connection; between calls."""
        with suppress(ConnectionLost):
            if self.alive:
                self._pump(partial(self._is_settled, _Slot()), time.monotonic() + timeout)

    def shut_down(self) -> None:
        """End it from another thread: a call in flight there gets `ConnectionLost`."""
        self.protocol.alive = False
        with suppress(OSError):  # the peer, or `close`, was faster
            self._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End the connection; the peer cancels what is in flight."""
        self.protocol.alive = False
        self._sock.close()

    # ---- calls

    def call(
        self,
        target: int | str | None,
        method: str,
        payload: Payload,
        *,
        timeout: float | None = None,
        began: float | None = None,
    ) -> Payload:
        """Call ``method`` of the peer's ``target`` and return its answer.

        A Ctrl-C cancels the peer's work, waits for that within a bound, and is then raised.

        Args:
            timeout: Seconds this call may take.
            began: When they began to count, on the monotonic clock; now by default.

        Raises:
            ConnectionLost: The connection ended.
            DeadlineExceeded: ``timeout`` passed.
            Exception: What the callee raised, as `creamas_sc.errors` decodes it.
        """
        if not self._intact:
            raise ConnectionLost(f"no connection to {self.name}", may_have_run=False)
        now = time.monotonic()
        deadline = None if timeout is None else (now if began is None else began) + timeout
        left = None if deadline is None else max(deadline - now, 0.0)
        slot = _Slot()
        try:
            number = self.protocol.start_call(slot, target, method, payload, left)
            in_time = self._pump(partial(self._is_settled, slot), deadline)
            if not in_time:
                self._cancel(number, slot)
        except BaseException:  # Ctrl-C, or what a signal handler of the user's raised
            self._end_calls(slot)
            raise
        finally:
            self.protocol.pending.clear()
        if in_time or (slot.answer is not None and slot.answer.kind is Kind.REPLY):
            return self.protocol.result(slot.answer)
        raise DeadlineExceeded(
            f"{method} of {self.name} did not finish in {timeout:g} s",
            acknowledged=self.protocol.confirms(slot.answer),
            addresses=[target] if isinstance(target, str) else [],
        )

    def _cancel(self, number: int, slot: _Slot) -> None:
        """Ask the peer to cancel a call, and wait for its answer within the bound."""
        self.protocol.cancel(number)
        deadline = time.monotonic() + ACKNOWLEDGE_SECONDS
        answered = self._pump(partial(self._is_settled, slot), deadline)
        if self._out.buffers and not answered:  # it does not even read: half a frame may be out
            self.interrupt()

    def _end_calls(self, slot: _Slot) -> None:
        """After a signal: cancel the call, and close the connection unless it is whole."""
        if not self.alive:
            return
        whole = False
        try:
            if self._intact:
                for number in list(self.protocol.pending):
                    self._cancel(number, slot)
            whole = self._intact
        except ConnectionLost:
            pass  # the signal's error counts
        finally:
            if not whole:
                self.interrupt()

    def _is_settled(self, slot: _Slot) -> bool:
        """Handle what has arrived; return whether the call is settled."""
        while (frame := self.protocol.next_frame()) is not None:
            if frame.kind is not Kind.EVENT:
                self.close()
                raise ProtocolError(f"{self.name} sent an unexpected {frame.kind.name} frame")
        return slot.answer is not None

    # ---- the socket

    def _pump(self, done: Callable[[], bool], deadline: float | None) -> bool:
        """Write what is queued and read what comes until ``done``; False past the deadline.

        Args:
            done: Handles what has been read.
        """
        while True:
            self._write()
            timeout = None
            if deadline is not None:
                # Rounded up: waits that end too early would be repeated, in a busy loop.
                timeout = max(0, math.ceil((deadline - time.monotonic()) * 1000))
            if not self.alive:
                raise self._lost()
            writes = select.POLLOUT if self._out.buffers else 0
            self._poll.register(self._sock, select.POLLIN | writes)
            if not self._poll.poll(timeout):
                return False
            self._intact = False  # until what is read is handled
            try:
                data = self._sock.recv(READ_BYTES)
            except BlockingIOError:
                data = None
            except OSError as error:
                raise self._lost() from error
            if data == b"":
                raise self._lost()
            try:
                self.protocol.receive_data(data or b"")
            except ProtocolError as error:
                log.warning("closing the connection to %s: %s", printable(self.name), error)
                self.close()
                raise
            is_done = done()
            self._intact = True
            if is_done:
                return True

    def _write(self) -> None:
        """Write what the socket takes now."""
        buffers = self._out.buffers
        while buffers and self.alive:
            chunk = buffers[0]
            self._intact = False
            try:
                sent = self._sock.send(chunk)
            except BlockingIOError:
                sent = 0
            except OSError as error:
                raise self._lost() from error
            if sent == len(chunk):
                del buffers[0]
            else:
                buffers[0] = memoryview(chunk)[sent:]
            self._intact = True
            if buffers and sent < len(chunk):
                return

    def _lost(self) -> ConnectionLost:
        self.close()
        return ConnectionLost(f"the connection to {self.name} was lost", address=self.name)

"""One framed connection, driven by the thread that calls: one call at a time, and no other thread.

The socket is non-blocking; all waiting is done in ``poll``. A Ctrl-C there loses nothing: the call
is cancelled and the connection stays good. One that comes while bytes are on their way between
the socket and this object, may have lost some: then the connection is closed, and `interrupted`.
"""

from __future__ import annotations

import itertools
import logging
import math
import select
import socket
import time
from collections.abc import Callable, Sequence

import msgpack

from creamas_sc.errors import (
    ConnectionLost,
    DeadlineExceeded,
    HandshakeError,
    ProtocolError,
    from_wire,
)
from creamas_sc.rpc.cancelling import ACKNOWLEDGE_SECONDS, confirms
from creamas_sc.wire.codec import Codec, Payload
from creamas_sc.wire.frames import MAX_FRAME_BYTES, Buffer, Frame, FrameReader, Kind, encode_frame
from creamas_sc.wire.handshake import Handshake

__all__ = ["BlockingConnection"]

log = logging.getLogger(__name__)

HANDSHAKE_BYTES = 4096
READ_BYTES = 1 << 18
CALL_ID_MASK = (1 << 32) - 1


class BlockingConnection:
    """The calling end of a connection; it answers no calls, and passes over events.

    Args:
        sock: A connected stream socket; owned and closed by the connection.
        codec: Decodes errors, and the results that some of them hold.
        name: The peer, for error messages.

    Attributes:
        alive: Whether calls can be made.
    """

    def __init__(
        self, sock: socket.socket, *, codec: Codec | None = None, name: str = "peer"
    ) -> None:
        sock.setblocking(False)
        self.name = name
        self.alive = True
        self._interrupted = False
        self._sock = sock
        self._poll = select.poll()
        self._codec = codec or Codec()
        self._reader = FrameReader(HANDSHAKE_BYTES)
        self._ids = itertools.count(1)
        self._out: list[Buffer] = []
        # False while bytes may be neither in the socket nor here.
        self._intact = True
        self._awaited = 0
        self._answer: Frame | None = None

    # ---- life

    def shake_hands(self, handshake: Handshake, timeout: float) -> None:
        """Prove each other; the first thing to do. An error closes the connection.

        Raises:
            HandshakeError: The peer refused, or is none of ours.
            ConnectionLost: It went away.
            DeadlineExceeded: It did not answer in ``timeout`` seconds.
        """
        deadline = time.monotonic() + timeout
        try:
            self._out += handshake.data_to_send()
            while not handshake.complete:
                self._shake(handshake, deadline)
            self._reader.max_frame_bytes = MAX_FRAME_BYTES
        except ProtocolError as error:
            raise HandshakeError(f"{self.name} speaks another protocol: {error}") from error
        except BaseException:
            self.close()
            raise

    def _shake(self, handshake: Handshake, deadline: float) -> None:
        frames: list[Frame] = []
        if not self._pump(lambda: bool(frames), frames.append, deadline):
            raise DeadlineExceeded(f"{self.name} did not answer in time", may_have_run=False)
        try:
            for frame in frames:
                handshake.receive(frame)
        finally:  # a refusal is told, too
            self._out += handshake.data_to_send()
            self._write()

    @property
    def interrupted(self) -> bool:
        """Whether, between calls, it cannot go on because a signal came at a bad moment."""
        return self._interrupted or (self.alive and not self._intact)

    def interrupt(self) -> None:
        """End it for such a reason."""
        if self.alive:
            self._interrupted = True
            self.close()

    def wait_end(self, timeout: float) -> None:
        """Wait until the peer has ended the connection; between calls."""
        try:
            if self.alive:
                self._pump(lambda: False, self._take, time.monotonic() + timeout)
        except ConnectionLost:
            return

    def shut_down(self) -> None:
        """End it from another thread: a call in flight there gets `ConnectionLost`."""
        self.alive = False
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the peer, or `close`, was faster

    def close(self) -> None:
        """End the connection; the peer cancels what is in flight."""
        self.alive = False
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
            Exception: What the callee raised, as `creamas_sc.errors` tells it.
        """
        if not self.alive or not self._intact:
            raise ConnectionLost(f"no connection to {self.name}", may_have_run=False)
        call_id = next(self._ids) & CALL_ID_MASK
        now = time.monotonic()
        deadline = None if timeout is None else (now if began is None else began) + timeout
        left = None if deadline is None else max(deadline - now, 0.0)
        meta = msgpack.packb((target, method, left))
        frame = encode_frame(Kind.REQUEST, call_id, meta, payload.body, payload.parts)
        try:
            self._awaited, self._answer = call_id, None
            self._out += frame
            in_time = self._pump(self._answered, self._take, deadline)
            acknowledged = in_time or self._cancel(call_id)
        except BaseException:  # Ctrl-C, or what a signal handler of the user's raised
            self._end_call(call_id)
            raise
        if in_time or (self._answer is not None and self._answer.kind is Kind.REPLY):
            return self._told()
        raise DeadlineExceeded(
            f"{method} of {self.name} did not finish in {timeout:g} s",
            acknowledged=acknowledged and confirms(self._answer, self._codec),
            addresses=[target] if isinstance(target, str) else [],
        )

    def _answered(self) -> bool:
        return self._answer is not None

    def _told(self) -> Payload:
        frame, self._answer = self._answer, None
        assert frame is not None
        if frame.kind is Kind.REPLY:
            return Payload(frame.body, frame.parts)
        raise from_wire(self._codec.decode(Payload(frame.body, frame.parts)))

    def _cancel(self, call_id: int) -> bool:
        """Ask the peer to cancel a call; whether it confirmed within the bound."""
        self._out += encode_frame(Kind.CANCEL, call_id)
        deadline = time.monotonic() + ACKNOWLEDGE_SECONDS
        acknowledged = self._pump(self._answered, self._take, deadline)
        if self._out and not acknowledged:  # it does not even read: half a frame may be out
            self.interrupt()
        return acknowledged

    def _end_call(self, call_id: int) -> None:
        """After a signal: cancel the call, and close the connection unless it is whole."""
        if not self.alive:
            return
        whole = False
        try:
            if self._intact and self._answer is None:
                self._cancel(call_id)
            whole = self._intact
        except ConnectionLost:
            pass  # the signal's error counts
        finally:
            if not whole:
                self.interrupt()

    # ---- the socket

    def _pump(
        self, done: Callable[[], bool], take: Callable[[Frame], object], deadline: float | None
    ) -> bool:
        """Write what is queued and read what comes until ``done``; False past the deadline."""
        while True:
            self._write()
            if not self._wait(deadline):
                return False
            for frame in self._read():
                take(frame)
            self._intact = True
            if done():
                return True

    def _wait(self, deadline: float | None) -> bool:
        """Wait until the socket can be read, or written if there is something to write."""
        events = select.POLLIN | select.POLLOUT if self._out else select.POLLIN
        timeout = None
        if deadline is not None:
            # Rounded up: a wait that ends early is no harm, many of no length are.
            timeout = max(0, math.ceil((deadline - time.monotonic()) * 1000))
        if not self.alive:
            raise self._lost()
        self._poll.register(self._sock, events)
        return bool(self._poll.poll(timeout))

    def _read(self) -> Sequence[Frame]:
        """The frames that are there; leaves it to the caller to say that none was lost."""
        self._intact = False
        try:
            data = self._sock.recv(READ_BYTES)
        except BlockingIOError:
            return ()
        except OSError as error:
            raise self._lost() from error
        if not data:
            raise self._lost()
        try:
            return self._reader.receive_data(data)
        except ProtocolError as error:
            log.warning("closing the connection to %s: %s", self.name, error)
            self.close()
            raise

    def _take(self, frame: Frame) -> None:
        if frame.kind in (Kind.REPLY, Kind.FAILURE):
            if frame.call_id == self._awaited:  # else: a late answer to a call given up
                self._answer = frame
        elif frame.kind is not Kind.EVENT:
            self.close()
            raise ProtocolError(f"{self.name} sent an unexpected {frame.kind.name} frame")

    def _write(self) -> None:
        """Write what the socket takes now."""
        while self._out and self.alive:
            chunk = self._out[0]
            self._intact = False
            try:
                sent = self._sock.send(chunk)
            except BlockingIOError:
                sent = 0
            except OSError as error:
                raise self._lost() from error
            if sent == len(chunk):
                del self._out[0]
            else:
                self._out[0] = memoryview(chunk)[sent:]
            self._intact = True
            if self._out and sent < len(chunk):
                return

    def _lost(self) -> ConnectionLost:
        self.close()
        return ConnectionLost(f"the connection to {self.name} was lost", address=self.name)

"""How much the calls of a peer may cost this end: one rule for what is served, and when.

An answer needs memory until the peer has read it, and a peer may ask faster than it reads. So
everything depends on one question: does the peer read what is sent to it? The output says so with
``drained``, which turns False once more bytes wait than the high-water mark, and True once all of
them are written.

    the peer reads      a call is served when it arrives, up to ``max_calls`` at a time
    it does not         a call waits until the peer has read everything, then it is served. The
                        calls that wait may hold ``max_unread_bytes`` of arguments; others are
                        refused
    it does not, and    an answer that was under way is queued, up to ``max_unread_bytes``; past
    answers get ready   that it is dropped, and an error takes its place

A refusal is an answer, too: a peer that reads nothing and is refused `MAX_UNREAD_REFUSALS` times in
a row loses its connection. Together this bounds the memory that a peer can take, by itself, to the
high-water mark, twice ``max_unread_bytes`` and the refusals.

Why there is no credit window, as HTTP/2 has: it would need frames that give credit, and a peer that
follows the rules would wait for a round trip where it does not wait now. An answer is dropped
rather than held back because holding it takes the same memory, and would also stop the slave from
which it came, which has other callers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

from creamas_sc.errors import CallRefused, EncodeError, ProtocolError
from creamas_sc.wire.codec import Payload, payload_size

MAX_CALLS = 100_000
# An answer of this size, in bytes, is never dropped: the error would take as much.
SMALL_BYTES = 1 << 12
MAX_UNREAD_REFUSALS = 100_000


class Output(Protocol):
    """Where a connection writes.

    Attributes:
        size: How many bytes have been put and not been written yet.
        drained: Whether the peer reads what is sent to it.
    """

    size: int
    drained: bool

    def put(self, buffers: Sequence[Any], *, lazily: bool = False) -> None:
        """Write the buffers of a frame; ``lazily`` if the next one may take them along."""


class PeerFloods(ProtocolError):
    """The peer makes one call after the other, and reads no answers."""


class ServingLimits:
    """The limits of one connection.

    Args:
        output: The connection's.
        max_calls: How many calls of the peer may be in flight.
        max_unread_bytes: How much may wait for a peer that does not read: answers, and as much
            again of calls. One answer always may, however large. None for no limit.

    Attributes:
        waiting_bytes: Size of the calls that wait until the peer reads.
    """

    def __init__(self, output: Output, max_calls: int, max_unread_bytes: int | None) -> None:
        self.waiting_bytes = 0
        self._output = output
        self._max_calls = max_calls
        self._max_unread = math.inf if max_unread_bytes is None else max_unread_bytes
        self._refusals = 0

    def admit(self, method: str, arguments: Payload, in_flight: int) -> bool:
        """Decide on a call that has arrived.

        Returns:
            Whether to serve it now. Otherwise it waits until the output is drained, and `stop_wait`
            must be called then.

        Raises:
            CallRefused: It is not to be served.
            PeerFloods: The connection is to be closed.
        """
        drained = self._output.drained
        if in_flight >= self._max_calls:
            reason = f"{self._max_calls} calls are in flight"
        elif drained:
            return True
        else:
            size = payload_size(arguments)
            if self.waiting_bytes + size <= self._max_unread:
                self.waiting_bytes += size
                return False
            waiting = self.waiting_bytes
            reason = f"{waiting} bytes of calls are waiting already until answers are read"
        self._refusals = 0 if drained else self._refusals + 1
        if self._refusals > MAX_UNREAD_REFUSALS:
            raise PeerFloods("it makes more calls than it may, and reads no answers")
        raise CallRefused(f"{method}: {reason}")

    def stop_wait(self, arguments: Payload) -> None:
        """Note that a call no longer waits: it is served now, or was cancelled."""
        self.waiting_bytes -= payload_size(arguments)

    def check_answer(self, method: str, answer: Payload, peer: str) -> None:
        """Check that there is room for an answer to a peer that reads too slowly, or not at all.

        Raises:
            EncodeError: There is none; the answer is to be dropped.
        """
        size, queued = payload_size(answer), self._output.size
        if size > SMALL_BYTES and queued + size > self._max_unread:
            raise EncodeError(
                f"the answer of {method}, {size} bytes, was dropped: {queued} bytes of answers "
                f"wait for {peer} to read them, and the limit is {self._max_unread}; make fewer "
                "such calls at once"
            )

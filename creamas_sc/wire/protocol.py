"""One end of a connection, without I/O: calls in both directions, cancellation and events.

Both drivers, `creamas_sc.rpc.connection` (async) and `creamas_sc.rpc.sync_connection` (blocking),
consist of one `WireProtocol` each. They move bytes and wake tasks; everything that the two ends
must agree on is here.

    this end                                              the peer
    start_call(slot, ...)        --- REQUEST id --->      next_frame() returns the request
      pending[id] = slot                                    in_flight[id] = what cancels it
    next_frame() fills the slot  <-- REPLY id -------     reply(id, payload)
      slot.answer = frame        <-- FAILURE id -----     fail(id, error)
      slot.set()
    cancel(id)                   --- CANCEL id ---->      in_flight[id]()
                                 <-- FAILURE id -----     fail(id, DeadlineExceeded)
    post(event)                  --- EVENT --------->     next_frame() returns the event

A call is *pending* from `start_call` until it is settled or forgotten. It is settled exactly once:
by a REPLY, by a FAILURE, or, with no answer, by `end`. The owner of the slot is woken by ``set``
and asks `result` what came of it. An answer to a call that is not pending came too late and is
ignored; so is a CANCEL of a call that is not in flight.

A cancelled call is over only when the callee has answered: this answer is its *confirmation*, which
`confirms` reads. Drivers wait for it as they like, for `ACKNOWLEDGE_SECONDS` at most.

The header of a request is ``[target, method, seconds that remain]``. Agents are asked the same
thing again and again, so both ends remember the latest headers.

Bytes leave through ``output.put``, in whole frames. After `end` nothing is sent any more, and
`start_call` raises `ConnectionLost`.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Protocol

import msgpack

from creamas_sc.errors import (
    AgentErrors,
    ConnectionLost,
    CreamasError,
    DeadlineExceeded,
    DecodeError,
    EncodeError,
    ProtocolError,
    from_wire,
    to_wire,
    unwrapped,
)
from creamas_sc.wire.codec import Codec, Payload
from creamas_sc.wire.frames import Buffer, Frame, FrameReader, Kind, encode_frame
from creamas_sc.wire.limits import MAX_CALLS, Output, ServingLimits

log = logging.getLogger(__name__)

CALL_ID_MASK = (1 << 32) - 1
# How many headers of requests are remembered, in each direction, by all connections together.
MAX_KNOWN_HEADERS = 4096
# Longer ones are not: a peer could fill the memory with them.
KNOWN_HEADER_BYTES = 512


class Slot(Protocol):
    """Where the answer to a call is left: a frame, or None if the connection ended."""

    answer: Any

    def set(self) -> None:
        """Wake the owner of the call: it is settled."""


class WireProtocol:
    """The state of one end.

    Args:
        output: Where frames are written.
        codec: Carries errors, and the results that some of them hold.
        name: The peer, for messages.
        reader, backlog: Where a handshake or another process left off.
        max_calls, max_unread_bytes: As of `ServingLimits`.

    Attributes:
        alive: Whether calls can be made.
        pending: The calls of this end that are not settled.
        in_flight: What cancels each call of the peer that is being served.
        frames: What has been received and not been handled.
        settled: How many calls have been settled, counted by `next_frame`.
    """

    def __init__(
        self,
        output: Output,
        codec: Codec,
        name: str,
        reader: FrameReader | None = None,
        backlog: Sequence[Frame] = (),
        max_calls: int = MAX_CALLS,
        max_unread_bytes: int | None = None,
    ) -> None:
        self.codec = codec
        self.name = name
        self.alive = True
        self.pending: dict[int, Slot] = {}
        self.in_flight: dict[int, Callable[[], object]] = {}
        self.reader = reader or FrameReader()
        self.frames = deque(backlog)
        self.settled = 0
        self.limits = ServingLimits(output, max_calls, max_unread_bytes)
        self._output = output
        self._last_id = 0

    def end(self) -> None:
        """Settle all calls: the connection is over."""
        self.alive = False
        pending, self.pending = self.pending, {}
        for slot in pending.values():
            slot.set()

    def discard(self) -> None:
        """Give up what has arrived: a connection that is over is garbage that is kept for long."""
        self.frames.clear()
        self.reader = FrameReader()

    # ---- calls of this end

    def start_call(
        self,
        slot: Slot,
        target: int | str | None,
        method: str,
        payload: Payload,
        remaining: float | None,
    ) -> int:
        """Send a call that may take ``remaining`` seconds, or as long as it takes.

        Returns:
            The call's number, for `cancel` and `forget`.

        Raises:
            ConnectionLost: The connection is over.
            EncodeError: The call is too large.
        """
        if not self.alive:
            raise ConnectionLost(f"no connection to {self.name}", may_have_run=False)
        header: bytes
        if remaining is None:
            header = _endless_header(target, method)
        else:
            header = msgpack.packb((target, method, remaining))
        number = self._last_id = (self._last_id + 1) & CALL_ID_MASK
        buffers = encode_frame(Kind.REQUEST, number, header, payload.body, payload.parts)
        self.pending[number] = slot
        self._output.put(buffers)
        return number

    def cancel(self, number: int) -> None:
        """Ask the peer to cancel a call."""
        if self.alive:
            self._output.put(encode_frame(Kind.CANCEL, number))

    def forget(self, number: int) -> None:
        """Ignore the answer to a call, if it is still pending."""
        self.pending.pop(number, None)

    def result(self, answer: Frame | None) -> Payload:
        """What a settled call returned.

        Raises:
            ConnectionLost: There is no answer.
            Exception: What the callee raised, as `creamas_sc.errors` decodes it.
        """
        if answer is None:
            raise ConnectionLost(f"the connection to {self.name} was lost", address=self.name)
        if answer.kind is Kind.REPLY:
            return Payload(answer.body, answer.parts)
        raise from_wire(self.codec.decode(Payload(answer.body, answer.parts)))

    def confirms(self, answer: Frame | None) -> bool:
        """Whether the answer to a cancelled call says that nothing of the call runs any more."""
        if answer is None or answer.kind is Kind.REPLY:
            return answer is not None
        try:
            error = from_wire(self.codec.decode(Payload(answer.body, answer.parts)))
        except DecodeError:
            return False
        return not isinstance(error, DeadlineExceeded) or error.acknowledged

    def post(
        self,
        event: str,
        payload: Payload,
        *,
        with_answer: bool = False,
        lazily: bool = False,
    ) -> None:
        """Send an event, which has no answer. Does nothing once the connection is over.

        Args:
            with_answer: If calls of the peer are in flight, the event may wait for the next answer:
                both leave in one write, the event first.
            lazily: The event waits for what is sent next, or until the output is urged.
        """
        if self.alive:
            buffers = encode_frame(Kind.EVENT, 0, event.encode(), payload.body, payload.parts)
            lazily = lazily or (with_answer and bool(self.in_flight))
            self._output.put(buffers, lazily=lazily)

    # ---- what arrives

    def receive_data(self, data: Buffer) -> None:
        """Take the stream's next bytes; `next_frame` has what they complete.

        Raises:
            ProtocolError: They are not frames.
        """
        self.frames += self.reader.receive_data(data)

    def next_frame(self) -> Frame | None:
        """Handle what has arrived up to the next request or event, and return that.

        Returns:
            None once everything that has arrived is handled, or the connection is over.

        Raises:
            ProtocolError: The peer sent what it must not send.
        """
        frames, pending = self.frames, self.pending
        while frames and self.alive:
            frame = frames.popleft()
            kind = frame.kind
            if kind is Kind.REPLY or kind is Kind.FAILURE:
                slot = pending.pop(frame.call_id, None)
                if slot is not None:
                    self.settled += 1
                    slot.answer = frame
                    slot.set()
            elif kind is Kind.REQUEST or kind is Kind.EVENT:
                return frame
            elif kind is Kind.CANCEL:
                cancel = self.in_flight.get(frame.call_id)
                if cancel is not None:
                    cancel()
            else:
                raise ProtocolError(f"unexpected {kind.name} frame")
        return None

    def event_name(self, frame: Frame) -> str:
        """The name of an event.

        Raises:
            ProtocolError: It is malformed.
        """
        try:
            return frame.meta.decode()
        except UnicodeDecodeError as error:
            raise ProtocolError(f"malformed event: {error}") from error

    # ---- answers to the peer's calls

    def reply(self, number: int, answer: Payload) -> None:
        """Answer a call.

        Raises:
            EncodeError: The answer is too large.
        """
        if self.alive:
            self._output.put(encode_frame(Kind.REPLY, number, b"", answer.body, answer.parts))

    def fail(self, number: int, error: BaseException) -> None:
        """Answer a call with an error."""
        if not self.alive:
            return
        if not isinstance(unwrapped(error), (CreamasError, AgentErrors)):
            log.error("a call failed inside creamas_sc", exc_info=error)
        try:
            answer = self.codec.encode(to_wire(error), "the error of a call")
            if not self._output.drained:
                self.limits.check_answer("a call that failed", answer, self.name)
        except EncodeError as refused:
            answer = self.codec.encode(to_wire(refused))
        self._output.put(encode_frame(Kind.FAILURE, number, b"", answer.body, answer.parts))


@lru_cache(MAX_KNOWN_HEADERS)
def _endless_header(target: int | str | None, method: str) -> bytes:
    """The header of a request that may take as long as it takes."""
    return bytes(msgpack.packb((target, method, None)))


def request_header(meta: bytes) -> tuple[Any, str, float | None]:
    """Target, method and remaining seconds of a request; the target may be of any type.

    Raises:
        ProtocolError: The header is malformed.
    """
    try:
        target, method, remaining = msgpack.unpackb(meta)
        if not isinstance(method, str) or not (remaining is None or remaining >= 0):
            raise TypeError("no method, or no seconds")
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise ProtocolError(f"malformed request: {error!r}") from error
    return target, method, remaining


known_header = lru_cache(MAX_KNOWN_HEADERS)(request_header)

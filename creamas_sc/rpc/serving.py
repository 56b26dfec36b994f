"""The peer's calls on one connection: which are taken up, when, and how their answers go back."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import anyio

from creamas_sc.errors import (
    AgentErrors,
    CallRefused,
    ConnectionLost,
    CreamasError,
    EncodeError,
    ProtocolError,
    to_wire,
    unwrapped,
)
from creamas_sc.rpc.cancelling import ServedCall, served_call
from creamas_sc.rpc.write_queue import Outgoing
from creamas_sc.wire.codec import Codec, Payload
from creamas_sc.wire.frames import Frame, Kind, encode_frame
from creamas_sc.wire.requests import RequestHeaders

if TYPE_CHECKING:
    from creamas_sc.rpc.connection import Connection

__all__ = ["Answer", "Handler", "Request", "Serving", "payload_size"]

log = logging.getLogger(__name__)

# An answer that is never dropped for want of room: to tell of that takes as much.
SMALL_BYTES = 1 << 12
# Of calls refused to a peer that reads none of its answers; it gets no more chances then.
MAX_UNREAD_REFUSALS = 100_000


class Request(NamedTuple):
    """A call that arrived: ``remaining`` is its deadline in seconds from now, or None.

    ``target`` is what the peer named, of any type: an agent's number; to a host, its address.
    """

    connection: Connection
    target: Any
    method: str
    payload: Payload
    remaining: float | None


Answer = Payload | Awaitable[Payload]
Handler = Callable[[Request], Answer]


class _Flood(ProtocolError):
    """The peer asks and asks, and reads nothing."""


class Serving:
    """The calls of the peer of ``connection``; see there for the other arguments.

    Attributes:
        in_flight: What cancels each call that has been taken up and not answered.
    """

    def __init__(
        self,
        connection: Connection,
        handler: Handler | None,
        codec: Codec,
        out: Outgoing,
        metas: RequestHeaders,
        max_calls: int,
        max_unread_bytes: int | None,
    ) -> None:
        self.in_flight: dict[int, anyio.CancelScope] = {}
        self._connection = connection
        self._handler = handler
        self._codec = codec
        self._out = out
        self._metas = metas
        self._max_calls = max_calls
        self._max_unread = float("inf") if max_unread_bytes is None else max_unread_bytes
        self._waiting_bytes = 0
        self._refusals = 0

    # ---- calls

    def take(self, frame: Frame) -> tuple[Request, Awaitable[Payload]] | None:
        """Take up a call: answer it at once, or return what is to be awaited, in `finish`.

        Raises:
            ProtocolError: It is no call, or one too many.
        """
        target, method, remaining = self._metas.unpack(frame.meta)
        payload = Payload(frame.body, frame.parts)
        request = Request(self._connection, target, method, payload, remaining)
        try:
            answer = self._begin(request)
            if not isinstance(answer, Payload):
                return request, answer
            self._reply(frame.call_id, answer)
        except _Flood:
            raise
        except Exception as error:
            self.fail(frame.call_id, error)
        return None

    async def finish(
        self, call_id: int, request: Request, answer: Awaitable[Payload], served: ServedCall
    ) -> None:
        """Await the answer to a call, and send it."""
        served_call.set(served)
        try:
            payload = await answer
            if not self._out.drained:
                self._check_room(request.method, payload)
            self._reply(call_id, payload)
        except Exception as error:
            self.fail(call_id, error)
        finally:
            served_call.set(None)

    def _begin(self, request: Request) -> Answer:
        if self._handler is None:
            raise CallRefused(f"{request.method}: this end takes no calls")
        if len(self.in_flight) >= self._max_calls:
            self._count_refusal()
            raise CallRefused(f"{request.method}: {self._max_calls} calls are in flight")
        if not self._out.drained:
            return self._begin_late(self._handler, request)
        return self._handler(request)

    def _begin_late(self, handler: Handler, request: Request) -> Awaitable[Payload]:
        """Serve a peer that asks on, but does not read its answers, once it has read them."""
        size = payload_size(request.payload)
        if self._waiting_bytes + size > self._max_unread:
            self._count_refusal()
            raise CallRefused(
                f"{request.method}: {self._waiting_bytes} bytes of calls wait already until "
                "answers are read"
            )
        self._waiting_bytes += size
        return self._serve_later(handler, request, size)

    def _count_refusal(self) -> None:
        """Each is an answer that takes memory, too."""
        self._refusals = 0 if self._out.drained else self._refusals + 1
        if self._refusals > MAX_UNREAD_REFUSALS:
            raise _Flood("it makes more calls than there may be, and reads no answers")

    async def _serve_later(self, handler: Handler, request: Request, size: int) -> Payload:
        try:
            await self._out.wait_until_drained()
        finally:
            self._waiting_bytes -= size
        if not self._connection.alive:
            raise ConnectionLost(f"no connection to {self._connection.name}", may_have_run=False)
        answer = handler(request)
        return answer if isinstance(answer, Payload) else await answer

    # ---- answers

    def _check_room(self, method: str, answer: Payload) -> None:
        """Refuse an answer to a peer that reads too slowly, or not at all.

        To wait with it would hold it all the same, and hold up the call's own peer, a slave, which
        has other callers.
        """
        size = payload_size(answer)
        if size > SMALL_BYTES and self._out.size + size > self._max_unread:
            raise EncodeError(
                f"the answer of {method}, {size} bytes, was dropped: {self._out.size} bytes of "
                f"answers wait for {self._connection.name} to read them, and the limit is "
                f"{self._max_unread}; make fewer such calls at once"
            )

    def _reply(self, call_id: int, answer: Payload) -> None:
        if not self._connection.alive:
            return
        if self._connection.before_reply is not None:
            self._connection.before_reply()
        self._out.put(encode_frame(Kind.REPLY, call_id, b"", answer.body, answer.parts))

    def fail(self, call_id: int, error: Exception) -> None:
        """Answer a call with an error."""
        if not self._connection.alive:
            return
        if not isinstance(unwrapped(error), (CreamasError, AgentErrors)):
            log.error("a call failed inside creamas_sc", exc_info=error)
        if self._connection.before_reply is not None:
            self._connection.before_reply()
        try:
            told = self._codec.encode(to_wire(error))
            if not self._out.drained:
                self._check_room("a call that failed", told)
        except EncodeError as refused:
            told = self._codec.encode(to_wire(refused))
        self._out.put(encode_frame(Kind.FAILURE, call_id, b"", told.body, told.parts))


def payload_size(payload: Payload) -> int:
    """Bytes that it takes."""
    return len(payload.body) + sum(memoryview(part).nbytes for part in payload.parts)

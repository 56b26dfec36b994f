"""One framed connection, driven with anyio: calls go both ways, pipelined, each cancellable.

The reader task handles what arrives; a call that a handler can answer at once is answered there,
any other gets a task of its own. Whoever has something to send writes it directly when the socket
is free and nobody else is about to; what the socket does not take is left to the writer task.
"""

from __future__ import annotations

import itertools
import logging
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

import anyio
import anyio.lowlevel
import msgpack
from anyio.abc import ByteStream, SocketAttribute, TaskGroup

from creamas_sc.errors import (
    CallRefused,
    ConnectionLost,
    CreamasError,
    DeadlineExceeded,
    DecodeError,
    EncodeError,
    ProtocolError,
    from_wire,
    to_wire,
)
from creamas_sc.wire.cancelling import (
    ACKNOWLEDGE_SECONDS,
    ServedCall,
    confirms,
    served_call,
)
from creamas_sc.wire.codec import Codec, Payload
from creamas_sc.wire.frames import Frame, FrameReader, Kind, encode_frame

__all__ = ["Connection", "Request", "payload_size"]

log = logging.getLogger(__name__)

# Time to write out what is queued when a connection is closed, in seconds.
FLUSH_SECONDS = 0.5
READ_BYTES = 1 << 18
# Senders wait while more than this is queued; a peer that asks on meanwhile is served in turn.
HIGH_WATER_BYTES = 1 << 22
JOIN_BYTES = 1 << 16
# An answer that is never dropped for want of room: to tell of that takes as much.
SMALL_BYTES = 1 << 12
MAX_CALLS_IN_FLIGHT = 100_000
# Of calls refused to a peer that reads none of its answers; it gets no more chances then.
MAX_UNREAD_REFUSALS = 100_000
CALL_ID_MASK = (1 << 32) - 1


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
EventHandler = Callable[[str, Payload], None]


class _Flood(ProtocolError):
    """The peer asks and asks, and reads nothing."""


class _Slot:
    """A call of ours in flight."""

    __slots__ = ("done", "frame")

    def __init__(self) -> None:
        self.done = anyio.Event()
        self.frame: Frame | None = None


class Connection:
    """Both ends of a connection are one of these.

    Args:
        stream: The connected byte stream; owned and closed by the connection.
        serve: Answers the peer's calls; None refuses them. It returns the answer, or an awaitable
            of it, which then runs in a task of its own. Errors it raises travel to the caller.
        codec: Carries errors, and the results that some of them hold.
        on_event: Told of each event, in order, in the reader task.
        reader, backlog: Where a handshake on ``stream`` left off.
        name: The peer, for error messages.
        max_calls: How many of the peer's calls may be in flight; further ones are refused.
        max_unread_bytes: How much may wait for a peer that does not read: answers, and as much
            again of calls. One answer always may, however large; what is more becomes an error of
            its call. None for no limit.
    """

    def __init__(
        self,
        stream: ByteStream,
        serve: Handler | None = None,
        *,
        codec: Codec | None = None,
        on_event: EventHandler | None = None,
        reader: FrameReader | None = None,
        backlog: Sequence[Frame] = (),
        name: str = "peer",
        max_calls: int = MAX_CALLS_IN_FLIGHT,
        max_unread_bytes: int | None = None,
    ) -> None:
        self.name = name
        self.closed = anyio.Event()
        self._max_calls = max_calls
        self._max_unread = float("inf") if max_unread_bytes is None else max_unread_bytes
        self._waiting_bytes = 0
        self._refusals = 0
        self._stream = stream
        self._serve = serve
        self._codec = codec or Codec()
        self._on_event = on_event
        self._reader = reader or FrameReader()
        self._backlog = list(backlog)
        self._ids = itertools.count(1)
        self._pending: dict[int, _Slot] = {}
        self._serving: dict[int, anyio.CancelScope] = {}
        self._scope = anyio.CancelScope()
        self._tasks: TaskGroup | None = None
        self._out: list[Any] = []
        self._out_bytes = 0
        self._corked = False
        self._writing = False
        self._wake = anyio.Event()
        self._drained = anyio.Event()
        self._drained.set()
        self._over = False
        self._raw = _raw_socket(stream)
        self.before_reply: Callable[[], None] | None = None

    # ---- life

    async def run(self) -> None:
        """Read and write until the peer goes, breaks the protocol, or `aclose` is called.

        Never raises but for cancellation: calls in flight get `ConnectionLost`, the peer's calls
        are cancelled.
        """
        try:
            with self._scope:
                async with anyio.create_task_group() as tasks:
                    self._tasks = tasks
                    tasks.start_soon(self._write_loop)
                    await self._read_loop()
                    self._end()
                    tasks.cancel_scope.cancel()
        finally:
            self._end()
            with anyio.CancelScope(shield=True):
                await anyio.aclose_forcefully(self._stream)
            self.closed.set()

    async def aclose(self) -> None:
        """Write out what is queued, within a bound, and end the connection."""
        try:
            if not self._over and (self._out or self._writing):
                if self._drained.is_set():
                    self._drained = anyio.Event()  # set by the writer once all is written
                self._wake.set()
                with anyio.move_on_after(FLUSH_SECONDS):
                    await self._drained.wait()
        finally:
            self.abort()
            # Who closes from within a call that it serves is itself part of what ends.
            if self._tasks is not None and served_call.get() is None:
                with anyio.CancelScope(shield=True):
                    await self.closed.wait()

    def abort(self) -> None:
        """End the connection at once."""
        self._end()
        self._scope.cancel()

    @property
    def alive(self) -> bool:
        """Whether calls can be made."""
        return not self._over

    @property
    def serving(self) -> bool:
        """Whether calls of the peer are in flight."""
        return bool(self._serving)

    @property
    def drained(self) -> bool:
        """Whether the peer reads what is sent, or all is over."""
        return self._drained.is_set()

    async def wait_until_drained(self) -> None:
        """Wait until the peer has read what is queued, or the connection is over."""
        while not self._drained.is_set():  # of those that wait, another may fill it up again
            await self._drained.wait()

    def _end(self) -> None:
        self._over = True
        for slot in self._pending.values():
            slot.done.set()
        self._drained.set()

    # ---- calls of ours

    async def call(
        self,
        target: int | str | None,
        method: str,
        payload: Payload,
        *,
        timeout: float | None = None,
        acknowledge_seconds: float = ACKNOWLEDGE_SECONDS,
    ) -> Payload:
        """Call ``method`` of the peer's ``target`` and return its answer.

        Args:
            timeout: Seconds this call may take; the caller's own cancel scopes count too.
            acknowledge_seconds: How long the peer has to confirm, once the timeout has passed.

        Raises:
            ConnectionLost: The connection ended.
            DeadlineExceeded: ``timeout`` passed.
            Exception: What the callee raised, as `creamas_sc.errors` tells it.
        """
        if not self._drained.is_set():
            timeout = await self._wait_for_room(method, timeout)
        if self._over:
            raise ConnectionLost(f"no connection to {self.name}", may_have_run=False)
        call_id = next(self._ids) & CALL_ID_MASK
        slot = self._pending[call_id] = _Slot()
        deadline = anyio.current_effective_deadline()
        meta = msgpack.packb((target, method, _remaining(deadline, timeout)))
        try:
            self._send(encode_frame(Kind.REQUEST, call_id, meta, payload.body, payload.parts))
            await self._reply_to(call_id, slot, timeout, method, acknowledge_seconds)
        finally:
            del self._pending[call_id]
        try:
            return self._answer(slot.frame)
        except DeadlineExceeded:
            # The callee's clock was a little ahead: let the caller's own scope do its part.
            if 0 < deadline - anyio.current_time() < ACKNOWLEDGE_SECONDS:
                await anyio.sleep_until(deadline)
                await anyio.lowlevel.checkpoint()
            raise

    async def _wait_for_room(self, method: str, timeout: float | None) -> float | None:
        """Wait until the peer has read what is queued; what is left of ``timeout`` then."""
        began = anyio.current_time()
        with anyio.move_on_after(timeout):
            await self.wait_until_drained()
            return None if timeout is None else max(timeout - anyio.current_time() + began, 0.0)
        raise DeadlineExceeded(
            f"{method} could not be sent to {self.name} in {timeout:g} s",
            may_have_run=False,
            addresses=[self.name],
        )

    async def _reply_to(
        self,
        call_id: int,
        slot: _Slot,
        timeout: float | None,
        method: str,
        acknowledge_seconds: float,
    ) -> None:
        """Wait until ``slot`` is filled; a wait that is given up cancels the peer's work."""
        try:
            if timeout is None:
                await slot.done.wait()
                return
            with anyio.move_on_after(timeout):
                await slot.done.wait()
        except anyio.get_cancelled_exc_class():
            await self._cancel(call_id, slot, ACKNOWLEDGE_SECONDS)
            raise
        if slot.done.is_set():
            return
        acknowledged = await self._cancel(call_id, slot, acknowledge_seconds)
        if slot.frame is None or slot.frame.kind is not Kind.REPLY:
            raise DeadlineExceeded(
                f"{method} of {self.name} did not finish in {timeout:g} s",
                acknowledged=acknowledged,
                addresses=[self.name],
            )

    async def _cancel(self, call_id: int, slot: _Slot, seconds: float) -> bool:
        """Ask the peer to cancel a call; whether it confirmed within the bound."""
        if not self._over:
            self._send(encode_frame(Kind.CANCEL, call_id))
            with anyio.move_on_after(seconds, shield=True):
                await slot.done.wait()
        acknowledged = confirms(slot.frame, self._codec)
        served = served_call.get()
        if not acknowledged and served is not None:
            served.unconfirmed.append(self.name)
        return acknowledged

    def _answer(self, frame: Frame | None) -> Payload:
        if frame is None:
            raise ConnectionLost(f"the connection to {self.name} was lost", address=self.name)
        if frame.kind is Kind.REPLY:
            return Payload(frame.body, frame.parts)
        raise from_wire(self._codec.decode(Payload(frame.body, frame.parts)))

    def post(self, event: str, payload: Payload) -> None:
        """Send an event; nobody answers. Does nothing once the connection is over."""
        if not self._over:
            meta = event.encode()
            self._send(encode_frame(Kind.EVENT, 0, meta, payload.body, payload.parts))

    # ---- reading

    async def _read_loop(self) -> None:
        try:
            self._take(self._backlog)
            while not self._over:
                data = await self._stream.receive(READ_BYTES)
                self._take(self._reader.receive_data(data))
        except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
            return
        except (ProtocolError, DecodeError) as error:
            log.warning("closing the connection to %s: %s", self.name, error)

    def _take(self, frames: Sequence[Frame]) -> None:
        self._corked = True
        try:
            for frame in frames:
                self._take_frame(frame)
        finally:
            self._corked = False
            if self._out and not self._writing:
                self._flush()

    def _take_frame(self, frame: Frame) -> None:
        kind = frame.kind
        if kind is Kind.REPLY or kind is Kind.FAILURE:
            slot = self._pending.get(frame.call_id)
            if slot is not None:  # else: a late answer to a call given up
                slot.frame = frame
                slot.done.set()
        elif kind is Kind.REQUEST:
            self._take_request(frame)
        elif kind is Kind.CANCEL:
            scope = self._serving.get(frame.call_id)
            if scope is not None:
                scope.cancel()
        elif kind is Kind.EVENT:
            self._take_event(frame)
        else:
            raise ProtocolError(f"unexpected {kind.name} frame")

    def _take_event(self, frame: Frame) -> None:
        try:
            name = frame.meta.decode()
        except UnicodeDecodeError as error:
            raise ProtocolError(f"malformed event: {error}") from error
        if self._on_event is None:
            return
        try:
            self._on_event(name, Payload(frame.body, frame.parts))
        except Exception:  # nobody waits for it, and the calls must go on
            log.exception("taking the event %r of %s failed", name, self.name)

    def _take_request(self, frame: Frame) -> None:
        try:
            target, method, remaining = msgpack.unpackb(frame.meta)
            if not isinstance(method, str) or not (remaining is None or remaining >= 0):
                raise TypeError("no method, or no seconds")
        except (ValueError, TypeError, msgpack.UnpackException) as error:
            raise ProtocolError(f"malformed request: {error!r}") from error
        payload = Payload(frame.body, frame.parts)
        request = Request(self, target, method, payload, remaining)
        call_id = frame.call_id
        try:
            answer = self._begin(request)
            if isinstance(answer, Payload):
                self._reply(call_id, answer)
                return
        except _Flood:
            raise
        except Exception as error:
            self._fail(call_id, error)
            return
        scope = anyio.CancelScope()
        self._serving[call_id] = scope
        assert self._tasks is not None
        self._tasks.start_soon(self._finish, call_id, request, answer, scope)

    def _begin(self, request: Request) -> Answer:
        if self._serve is None:
            raise CallRefused(f"{request.method}: this end takes no calls")
        if len(self._serving) >= self._max_calls:
            self._count_refusal()
            raise CallRefused(f"{request.method}: {self._max_calls} calls are in flight")
        if not self._drained.is_set():
            return self._begin_late(self._serve, request)
        return self._serve(request)

    def _begin_late(self, serve: Handler, request: Request) -> Awaitable[Payload]:
        """Serve a peer that asks on, but does not read its answers, once it has read them."""
        size = payload_size(request.payload)
        if self._waiting_bytes + size > self._max_unread:
            self._count_refusal()
            raise CallRefused(
                f"{request.method}: {self._waiting_bytes} bytes of calls wait already until "
                "answers are read"
            )
        self._waiting_bytes += size
        return self._serve_later(serve, request, size)

    def _count_refusal(self) -> None:
        """Each is an answer that takes memory, too."""
        self._refusals = 0 if self._drained.is_set() else self._refusals + 1
        if self._refusals > MAX_UNREAD_REFUSALS:
            raise _Flood("it makes more calls than there may be, and reads no answers")

    async def _serve_later(self, serve: Handler, request: Request, size: int) -> Payload:
        try:
            await self.wait_until_drained()
        finally:
            self._waiting_bytes -= size
        if self._over:
            raise ConnectionLost(f"no connection to {self.name}", may_have_run=False)
        answer = serve(request)
        return answer if isinstance(answer, Payload) else await answer

    async def _finish(
        self, call_id: int, request: Request, answer: Awaitable[Payload], scope: anyio.CancelScope
    ) -> None:
        """Await the answer to one of the peer's calls, within the call's deadline, and send it."""
        served = ServedCall()
        served_call.set(served)
        try:
            with scope:
                if request.remaining is not None:
                    scope.deadline = anyio.current_time() + request.remaining
                if not self._drained.is_set():
                    await self._wait_to_take_up(answer)
                payload = await answer
                if not self._drained.is_set():
                    self._check_room(request.method, payload)
                self._reply(call_id, payload)
                return
        except Exception as error:
            self._fail(call_id, error)
            return
        finally:
            self._serving.pop(call_id, None)
        ended = f"{request.method} was cancelled, or its time ran out"
        late = served.unconfirmed
        self._fail(call_id, DeadlineExceeded(ended, acknowledged=not late, addresses=late))

    async def _wait_to_take_up(self, answer: Awaitable[Payload]) -> None:
        try:
            await self.wait_until_drained()
        except anyio.get_cancelled_exc_class():
            await answer  # begun all the same: it is cancelled where it first waits
            raise

    def _check_room(self, method: str, answer: Payload) -> None:
        """Refuse an answer to a peer that reads too slowly, or not at all.

        To wait with it would hold it all the same, and hold up the call's own peer, a slave, which
        has other callers.
        """
        size = payload_size(answer)
        if size > SMALL_BYTES and self._out_bytes + size > self._max_unread:
            raise EncodeError(
                f"the answer of {method}, {size} bytes, was dropped: "
                f"{self._out_bytes} bytes of answers wait for {self.name} to read them, and the "
                f"limit is {self._max_unread}; make fewer such calls at once"
            )

    def _reply(self, call_id: int, answer: Payload) -> None:
        if self._over:
            return
        if self.before_reply is not None:
            self.before_reply()
        self._send(encode_frame(Kind.REPLY, call_id, b"", answer.body, answer.parts))

    def _fail(self, call_id: int, error: Exception) -> None:
        if self._over:
            return
        if not isinstance(error, (CreamasError, ExceptionGroup)):
            log.error("a call failed inside creamas_sc", exc_info=error)
        if self.before_reply is not None:
            self.before_reply()
        try:
            told = self._codec.encode(to_wire(error))
            if not self._drained.is_set():
                self._check_room("a call that failed", told)
        except EncodeError as refused:
            told = self._codec.encode(to_wire(refused))
        self._send(encode_frame(Kind.FAILURE, call_id, b"", told.body, told.parts))

    # ---- writing

    def _send(self, buffers: Sequence[Any]) -> None:
        self._out.extend(buffers)
        self._out_bytes += sum(map(len, buffers))
        if self._out_bytes > HIGH_WATER_BYTES and self._drained.is_set():
            self._drained = anyio.Event()
        if not self._corked and not self._writing:
            # With several calls in flight others are about to send: one write for all of them.
            if len(self._pending) > 1 or self._raw is None:
                self._wake.set()
            else:
                self._flush()

    def _flush(self) -> None:
        """Write from here what the socket takes now; the rest is the writer task's."""
        while self._out and self._raw is not None:
            chunk = self._next_chunk()
            try:
                sent = self._raw.send(chunk)
            except BlockingIOError:
                sent = 0
            except OSError:
                self._end()  # the reader sees the end too
                return
            self._out_bytes -= sent
            if sent < len(chunk):
                self._out.insert(0, memoryview(chunk)[sent:])
                break
        if self._out:
            self._wake.set()
        else:
            self._drained.set()

    def _next_chunk(self) -> Any:
        """Take from the queue what goes into one write: a large buffer, or small ones joined."""
        out = self._out
        if len(out) == 1 or len(out[0]) >= JOIN_BYTES:
            return out.pop(0)
        size = count = 0
        for count, buffer in enumerate(out):
            size += len(buffer)
            if size > JOIN_BYTES and count:
                break
        else:
            count += 1
        chunk = b"".join(out[:count])
        del out[:count]
        return chunk

    async def _write_loop(self) -> None:
        try:
            while True:
                await self._wake.wait()
                self._wake = anyio.Event()
                self._writing = True
                while self._out:
                    chunk = self._next_chunk()
                    await self._stream.send(chunk)
                    self._out_bytes -= len(chunk)
                self._writing = False
                self._drained.set()
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
            self._end()
        finally:
            self._writing = False


def _remaining(deadline: float, timeout: float | None) -> float | None:
    """Seconds until the nearer of ``deadline`` (on the loop's clock) and ``timeout``, or None."""
    left = deadline - anyio.current_time()
    if timeout is not None:
        left = min(left, timeout)
    return None if left == float("inf") else max(left, 0.0)


def payload_size(payload: Payload) -> int:
    """Bytes that it takes."""
    return len(payload.body) + sum(memoryview(part).nbytes for part in payload.parts)


def _raw_socket(stream: ByteStream) -> socket.socket | None:
    """The non-blocking socket under ``stream`` where writing to it directly is sound: on trio."""
    raw = stream.extra(SocketAttribute.raw_socket, None)
    return raw if isinstance(raw, socket.socket) and raw.gettimeout() == 0 else None

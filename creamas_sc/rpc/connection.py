"""One framed connection, driven with anyio: calls in both directions, pipelined and cancellable.

What the bytes mean is `WireProtocol`'s business, how they leave is `WriteQueue`'s. This module
reads them and serves the peer's calls. It has to do so without a task for each call, because
starting a task costs more than most calls take. Therefore **the reader rotates**:

    task A is the reader:  receive, handle frames, await the handler of a call ...
      the handler returns without suspending  -> A sends the answer and goes on reading
      it suspends for one round of the scheduler only  -> so does A, then it goes on
      it suspends for anything else  -> A hands the reader role to a new task B. A stays with the
                                        handler, sends its answer and ends. B reads on

So there is exactly one reader at any time, and frames are handled in the order in which they
arrive; only a call that really waits costs a task, the one it is in already. `watch` makes this
possible: it drives the reader's coroutine and is asked (`_suspending`) before each suspension. A
handler has the reader's context variables until it suspends; what it sets there stays in its task,
because B is started in the context in which the connection began.

Each turn as the reader has a cancel scope. While a call is awaited the scope is the call's: the
peer's CANCEL and the call's deadline cancel it. If it is cancelled before the role was handed on,
the handler is cancelled at its next suspension, which hands the role on first. So the scope is
never cancelled while its task is still the reader, and no cancelled call can end the reading.

The frames that one `receive` completes are a batch. All that is sent while it is handled leaves in
one write, at its end or when the reader suspends. In a long batch the reader yields to the
scheduler every `YIELD_SECONDS`.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context, copy_context
from functools import partial
from typing import Any, NamedTuple
from weakref import WeakSet

import anyio
import anyio.lowlevel
from anyio.abc import ByteStream, TaskGroup

from creamas_sc.errors import (
    CallRefused,
    ConnectionLost,
    DeadlineExceeded,
    DecodeError,
    HandshakeError,
    ProtocolError,
)
from creamas_sc.foreign import is_ctrl_c, printable
from creamas_sc.rpc.calls import Outbound, ServedCall, served_call
from creamas_sc.rpc.loops import ANYIO_LOOP, Loop
from creamas_sc.rpc.write_queue import WriteQueue
from creamas_sc.runtime.coroutines import watch
from creamas_sc.runtime.timeouts import YIELD_SECONDS
from creamas_sc.wire.codec import Codec, Payload
from creamas_sc.wire.frames import MAX_HANDSHAKE_BYTES, Frame, FrameReader, Kind
from creamas_sc.wire.handshake import Handshake
from creamas_sc.wire.limits import MAX_CALLS, PeerFloods
from creamas_sc.wire.protocol import (
    KNOWN_HEADER_BYTES,
    WireProtocol,
    known_header,
    request_header,
)

log = logging.getLogger(__name__)

# Time to write out what is queued when a connection is closed, and for its end, in seconds.
FLUSH_SECONDS = 0.5
# Time to tell a peer why it is refused.
REFUSAL_SECONDS = 0.2
READ_BYTES = 1 << 17


class Request(NamedTuple):
    """A call that arrived: ``remaining`` is its deadline in seconds from now, or None.

    ``target`` is what the peer named, of any type: an agent's number; for a host, its address.
    """

    connection: Connection
    target: Any
    method: str
    payload: Payload
    remaining: float | None


Answer = Payload | Awaitable[Payload]
Handler = Callable[[Request], Answer]
EventHandler = Callable[[str, Payload], None]


class _Turn:
    """A task's turn as the reader.

    Attributes:
        call: The peer's call that it awaits, if any.
        rested: Whether that has let the scheduler go round once.
        over: Whether another task is the reader by now.
    """

    __slots__ = ("call", "over", "rested", "scope")

    def __init__(self) -> None:
        self.scope = anyio.CancelScope()
        self.call: tuple[int, Request, ServedCall] | None = None
        self.over = False
        self.rested = False


class Connection(Outbound):
    """Both ends of a connection are one of these.

    Args:
        stream: The connected byte stream; owned and closed by the connection.
        serve: Answers the peer's calls; None refuses them. It returns the answer, or an awaitable
            of it; see the module for the task that runs it. Errors it raises travel to the caller.
        codec: Carries errors, and the results that some of them hold.
        on_event: Called with each event, in order, in the reader task.
        reader, backlog: Where another process left off reading ``stream``.
        name: The peer, for error messages.
        max_calls, max_unread_bytes: As of `creamas_sc.wire.limits.ServingLimits`.
    """

    _context: Context

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
        max_calls: int = MAX_CALLS,
        max_unread_bytes: int | None = None,
    ) -> None:
        loop: Loop = getattr(stream, "loop", ANYIO_LOOP)
        out = WriteQueue(stream, loop, self._end)
        codec = codec or Codec()
        protocol = WireProtocol(out, codec, name, reader, backlog, max_calls, max_unread_bytes)
        super().__init__(protocol, out, loop)
        self.closed = anyio.Event()
        self._stream = stream
        self._receive_into = getattr(stream, "receive_into", None)
        self._handler = serve
        self._on_event = on_event
        self._scope = anyio.CancelScope()
        self._tasks: TaskGroup | None = None

    # ---- life

    async def run(self) -> None:
        """Read and write until the peer goes, breaks the protocol, or `aclose` is called.

        Raises nothing but cancellation: calls in flight get `ConnectionLost`, the peer's calls are
        cancelled.
        """
        _running.add(self)
        try:
            with self._scope:
                async with anyio.create_task_group() as tasks:
                    self._tasks = tasks
                    self._context = copy_context()
                    tasks.start_soon(self.out.run)
                    await self._read()
        finally:
            self._end()
            self.out.discard()
            self.protocol.discard()
            try:
                with anyio.CancelScope(shield=True):
                    await anyio.aclose_forcefully(self._stream)
            finally:
                self.closed.set()

    async def aclose(self) -> None:
        """Write out what is queued, within a bound, and end the connection."""
        try:
            if self.alive:
                with anyio.move_on_after(FLUSH_SECONDS):
                    await self.out.flush()
        finally:
            self.abort()
            # A task that closes the connection while it serves a call of it is part of what ends.
            if self._tasks is not None and served_call.get() is None:
                # At once, unless a Ctrl-C has struck one of the tasks at an awkward moment.
                with anyio.move_on_after(FLUSH_SECONDS, shield=True):
                    await self.closed.wait()

    def abort(self) -> None:
        """End the connection at once."""
        self._end()
        self._scope.cancel()

    def _end(self) -> None:
        self.protocol.end()
        self.out.end()

    def leave(self) -> None:
        """Send and handle nothing more, here in a forked child: the parent does."""
        self.protocol.alive = False
        self.out.leave()

    # ---- reading

    async def _read(self) -> None:
        """Be the reader, until the connection ends or the role is handed on; then end the call."""
        turn = _Turn()
        with turn.scope:
            await watch(self._read_frames(turn), partial(self._suspending, turn))
            return
        # The scope was cancelled, which it is for a call that has handed the role on.
        assert turn.call is not None
        call_id, request, served = turn.call
        ended = f"{request.method} was cancelled, or its time ran out"
        late = list(served.unconfirmed)
        error = DeadlineExceeded(ended, acknowledged=not late, addresses=late)
        self.protocol.fail(call_id, error)

    def _suspending(self, turn: _Turn, trap: Any) -> bool:
        """Hand the reader role on, if the task is about to suspend in a call of the peer."""
        if turn.call is None:
            return True
        if trap is self._loop.checkpoint and not turn.rested and turn.scope.deadline == math.inf:
            turn.rested = True  # a round of the scheduler takes less than another reader does
            if not self.protocol.frames:
                self.out.release()
            return True
        turn.over = True
        # A full queue is left to the writer task: the call may be about to wait for just that, and
        # is not to be woken before it has suspended.
        if not self.protocol.frames and self.out.drained:
            self.out.release()
        assert self._tasks is not None
        self._context.run(self._tasks.start_soon, self._read)
        return False

    async def _read_frames(self, turn: _Turn) -> None:
        protocol, reader, into = self.protocol, self.protocol.reader, self._receive_into
        try:
            while protocol.alive:
                await self._handle_batch(turn)
                if turn.over:
                    return
                if into is None or reader.filling is None:
                    data = await self._stream.receive(READ_BYTES)
                    protocol.frames += reader.receive_data(data)
                else:
                    with reader.filling.room() as room:  # or the part could not grow
                        count = await into(room)
                    protocol.frames += reader.filled(count)
        except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
            pass
        except (ProtocolError, DecodeError) as error:
            log.warning("closing the connection to %s: %s", printable(self.name), error)
        self._end()
        assert self._tasks is not None
        self._tasks.cancel_scope.cancel()

    async def _handle_batch(self, turn: _Turn) -> None:
        """Handle everything that has been received."""
        protocol, out = self.protocol, self.out
        protocol.settled = 0
        out.held = True
        try:
            yield_at = time.perf_counter() + YIELD_SECONDS
            while (frame := protocol.next_frame()) is not None:
                if frame.kind is Kind.EVENT:
                    self._take_event(frame)
                else:
                    begun = self._begin(frame)
                    if begun is not None:
                        await self._finish(turn, frame.call_id, *begun)
                        if turn.over:
                            return
                if protocol.frames and time.perf_counter() > yield_at:
                    out.release()
                    await anyio.lowlevel.checkpoint()
                    out.held = True
                    yield_at = time.perf_counter() + YIELD_SECONDS
        finally:
            if not turn.over:
                out.crowded = protocol.settled > 1
                out.release()

    def _take_event(self, frame: Frame) -> None:
        name = self.protocol.event_name(frame)
        if self._on_event is None:
            return
        try:
            self._on_event(name, Payload(frame.body, frame.parts))
        except BaseException as error:  # it has no caller to tell, and the calls must go on
            if is_ctrl_c(error):
                raise
            log.exception("handling the event %r of %s failed", name, self.name)

    # ---- serving

    def _begin(self, frame: Frame) -> tuple[Request, Awaitable[Payload]] | None:
        """Answer a call of the peer at once, or return what is to be awaited."""
        protocol = self.protocol
        read_header = known_header if len(frame.meta) <= KNOWN_HEADER_BYTES else request_header
        target, method, remaining = read_header(frame.meta)
        request = Request(self, target, method, Payload(frame.body, frame.parts), remaining)
        try:
            if self._handler is None:
                raise CallRefused(f"{method}: this end takes no calls")
            if protocol.limits.admit(method, request.payload, len(protocol.in_flight)):
                answer = self._handler(request)
            else:
                answer = self._serve_when_drained(self._handler, request)
            if not isinstance(answer, Payload):
                return request, answer
            protocol.reply(frame.call_id, answer)
        except PeerFloods:
            raise
        except BaseException as error:  # user code may raise anything, SystemExit included
            if is_ctrl_c(error):
                raise
            protocol.fail(frame.call_id, error)
        return None

    async def _serve_when_drained(self, handler: Handler, request: Request) -> Payload:
        try:
            await self.out.wait_until_drained()
        finally:
            self.protocol.limits.stop_wait(request.payload)
        if not self.alive:
            raise ConnectionLost(f"no connection to {self.name}", may_have_run=False)
        answer = handler(request)
        return answer if isinstance(answer, Payload) else await answer

    def _reply(self, call_id: int, method: str, payload: Payload) -> None:
        if not self.out.drained:
            self.protocol.limits.check_answer(method, payload, self.name)
        self.protocol.reply(call_id, payload)

    async def _finish(
        self, turn: _Turn, call_id: int, request: Request, answer: Awaitable[Payload]
    ) -> None:
        """Await the answer to a call of the peer, within its deadline, and send it."""
        protocol, served = self.protocol, ServedCall()
        served.of_agent = type(request.target) is int  # clients name an address, or nothing
        turn.call = call_id, request, served
        protocol.in_flight[call_id] = turn.scope.cancel
        if request.remaining is not None:
            turn.scope.deadline = anyio.current_time() + request.remaining
        served_call.set(served)
        try:
            # Not kept in this frame, which the traceback of a wait that ran out may hold for long.
            self._reply(call_id, request.method, await answer)
        except Exception as error:
            protocol.fail(call_id, error)
        finally:
            served_call.set(None)
            served.of_agent = False  # for tasks that were started in it and go on
            protocol.in_flight.pop(call_id, None)
        if not turn.over:
            turn.call = None
            turn.rested = False
            if request.remaining is not None:
                turn.scope.deadline = math.inf


# Those of this process, from whose sockets a forked child must stay away.
_running: WeakSet[Connection] = WeakSet()


def _leave_connections() -> None:
    for connection in list(_running):
        connection.leave()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_leave_connections)


async def perform_handshake(stream: ByteStream, handshake: Handshake) -> None:
    """Prove each other's membership, as the first thing on ``stream``; an error closes it.

    Reads nothing beyond the handshake. A peer that is refused is told why, within a bound.

    Raises:
        HandshakeError: The peer has refused, or is refused.
        ProtocolError: It speaks another protocol.
        anyio.EndOfStream, anyio.BrokenResourceError, OSError: It is gone.
    """
    reader = FrameReader(MAX_HANDSHAKE_BYTES)
    try:
        while True:
            for data in handshake.data_to_send():
                await stream.send(data)
            if handshake.complete:
                return
            for frame in reader.receive_data(await stream.receive(reader.missing_bytes)):
                handshake.receive(frame)
    except BaseException as error:
        try:
            if isinstance(error, HandshakeError):
                with anyio.move_on_after(REFUSAL_SECONDS):
                    for data in handshake.data_to_send():
                        await stream.send(data)
        except (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
            pass  # it is gone already
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.aclose_forcefully(stream)
        raise

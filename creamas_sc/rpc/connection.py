"""One framed connection, driven with anyio: calls go both ways, pipelined, each cancellable.

One task at a time is the reader. It handles what arrives, and the peer's calls as well, one after
the other: a call that never suspends costs no task. When one does suspend, another task becomes
the reader, and the one before it ends with that call.
"""

from __future__ import annotations

import itertools
import logging
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context, copy_context
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
from anyio.abc import ByteStream, TaskGroup

from creamas_sc.errors import ConnectionLost, DeadlineExceeded, DecodeError, ProtocolError
from creamas_sc.rpc.calls import Calls, Slot, failure
from creamas_sc.rpc.cancelling import ACKNOWLEDGE_SECONDS, ServedCall, served_call
from creamas_sc.rpc.loops import AnyioLoop, Loop
from creamas_sc.rpc.serving import Handler, Request, Serving
from creamas_sc.rpc.write_queue import Outgoing
from creamas_sc.runtime.coroutines import watch
from creamas_sc.wire.codec import Codec, Payload
from creamas_sc.wire.frames import Frame, FrameReader, Kind, encode_frame
from creamas_sc.wire.requests import RequestHeaders

__all__ = ["Connection"]

log = logging.getLogger(__name__)

# Time to write out what is queued when a connection is closed, and for its end, in seconds.
FLUSH_SECONDS = 0.5
READ_BYTES = 1 << 17
# The reader lets other tasks run this often, in seconds, whatever the peer sends.
YIELD_SECONDS = 0.01
MAX_CALLS_IN_FLIGHT = 100_000
CALL_ID_MASK = (1 << 32) - 1

EventHandler = Callable[[str, Payload], None]


class _Turn:
    """A task's turn as the reader.

    Attributes:
        call: The peer's that it awaits, if any.
        rested: Whether that has let the scheduler go round once.
        over: Whether another task is the reader by now.
    """

    __slots__ = ("call", "over", "rested", "scope")

    def __init__(self) -> None:
        self.scope = anyio.CancelScope()
        self.call: tuple[int, Request, ServedCall] | None = None
        self.over = False
        self.rested = False


class Connection:
    """Both ends of a connection are one of these.

    Args:
        stream: The connected byte stream; owned and closed by the connection.
        serve: Answers the peer's calls; None refuses them. It returns the answer, or an awaitable
            of it, which has a task of its own from its first suspension on that is more than one
            round of the scheduler; until then it shares the context variables of others. Errors it
            raises travel to the caller.
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
        loop: Loop = getattr(stream, "loop", None) or AnyioLoop()
        self._loop = loop
        self._stream = stream
        self._receive_into: Callable[[memoryview], Awaitable[int]] | None
        self._receive_into = getattr(stream, "receive_into", None)
        self.codec = codec or Codec()
        self._on_event = on_event
        self._reader = reader or FrameReader()
        self._frames = deque(backlog)
        self._ids = itertools.count(1)
        self._pending: dict[int, Slot] = {}
        self._scope = anyio.CancelScope()
        self._tasks: TaskGroup | None = None
        self._context: Context | None = None
        self._over = False
        self._out = Outgoing(stream, loop, self._end)
        self._metas = RequestHeaders()
        self._serving = Serving(
            self, serve, self.codec, self._out, self._metas, max_calls, max_unread_bytes
        )
        # Called before each answer to the peer, to send what must be there first.
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
                    self._context = copy_context()
                    tasks.start_soon(self._out.run)
                    await self._read()
        finally:
            self._end()
            try:
                with anyio.CancelScope(shield=True):
                    await anyio.aclose_forcefully(self._stream)
            finally:
                self.closed.set()

    async def aclose(self) -> None:
        """Write out what is queued, within a bound, and end the connection."""
        try:
            if not self._over:
                with anyio.move_on_after(FLUSH_SECONDS):
                    await self._out.flush()
        finally:
            self.abort()
            # Who closes from within a call that it serves is itself part of what ends.
            if self._tasks is not None and served_call.get() is None:
                # At once, unless a Ctrl-C has struck one of its tasks at an awkward moment.
                with anyio.move_on_after(FLUSH_SECONDS, shield=True):
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
        return bool(self._serving.in_flight)

    @property
    def drained(self) -> bool:
        """Whether the peer reads what is sent, or all is over."""
        return self._out.drained

    async def wait_until_drained(self) -> None:
        """Wait until the peer has read what is queued, or the connection is over."""
        await self._out.wait_until_drained()

    def _end(self) -> None:
        self._over = True
        for call in self._pending.values():
            call.set()
        self._out.end()

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
        if timeout is not None or not self._out.drained:
            async with Calls(self._loop, timeout, acknowledge_seconds) as calls:
                call = await calls.start(self, target, method, payload)
                await calls.wait()
                return await calls.answer(call)
        # The same without what a call like most does not need.
        slot, until = self._loop.waiter(), self._loop.effective_deadline()
        number = self.send_request(slot, target, method, payload, until)
        try:
            await slot.wait()
        except anyio.get_cancelled_exc_class():
            async with Calls(self._loop) as calls:
                calls.take_over(self, number, method, slot)
            raise
        finally:
            self.forget(number)
        frame: Frame | None = slot.answer
        if frame is not None and frame.kind is Kind.REPLY:
            return Payload(frame.body, frame.parts)
        raise await failure(self, frame, until)

    def send_request(
        self, slot: Slot, target: int | str | None, method: str, payload: Payload, until: float
    ) -> int:
        """Send a call that may take until that time; its number, by which it is forgotten.

        Raises:
            ConnectionLost: The connection is over.
        """
        if self._over:
            raise ConnectionLost(f"no connection to {self.name}", may_have_run=False)
        remaining = None if until == math.inf else max(until - anyio.current_time(), 0.0)
        number = next(self._ids) & CALL_ID_MASK
        meta = self._metas.pack(target, method, remaining)
        buffers = encode_frame(Kind.REQUEST, number, meta, payload.body, payload.parts)
        self._pending[number] = slot
        self._out.put(buffers)
        return number

    def send_cancel(self, number: int) -> None:
        """Ask the peer to cancel a call."""
        if not self._over:
            self._out.put(encode_frame(Kind.CANCEL, number))

    def forget(self, number: int) -> None:
        """Whatever comes of that call, nobody waits for it."""
        self._pending.pop(number, None)

    def await_answer(self, number: int, slot: Slot) -> None:
        """Have ``slot`` wait for the answer to a call that has been sent."""
        self._pending[number] = slot

    def post(self, event: str, payload: Payload) -> None:
        """Send an event; nobody answers. Does nothing once the connection is over."""
        if not self._over:
            meta = event.encode()
            self._out.put(encode_frame(Kind.EVENT, 0, meta, payload.body, payload.parts))

    # ---- reading

    async def _read(self) -> None:
        """Be the reader, until the connection ends or a call that is served here suspends."""
        turn = _Turn()
        with turn.scope:
            await watch(self._read_on(turn), partial(self._suspending, turn))
            return
        # Only of a call that has left the reader's part to another could the scope be cancelled.
        assert turn.call is not None
        call_id, request, served = turn.call
        ended = f"{request.method} was cancelled, or its time ran out"
        late = served.unconfirmed
        error = DeadlineExceeded(ended, acknowledged=not late, addresses=late)
        self._serving.fail(call_id, error)

    def _suspending(self, turn: _Turn, trap: Any) -> bool:
        if turn.call is None:
            return True
        if trap is self._loop.checkpoint and not turn.rested and turn.scope.deadline == math.inf:
            turn.rested = True  # a round of the scheduler takes less than another reader does
            if not self._frames:
                self._out.release()
            return True
        turn.over = True
        # The call may wait for just that: it is not to be woken before it has suspended.
        if not self._frames and self._out.drained:
            self._out.release()
        assert self._tasks is not None
        assert self._context is not None
        # What the call has set in its context is no concern of the calls behind it.
        self._context.run(self._tasks.start_soon, self._read)
        return False

    async def _read_on(self, turn: _Turn) -> None:
        try:
            while not self._over:
                await self._take_frames(turn)
                if turn.over:
                    return
                await self._receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
            pass
        except (ProtocolError, DecodeError) as error:
            log.warning("closing the connection to %s: %s", self.name, error)
        self._end()
        assert self._tasks is not None
        self._tasks.cancel_scope.cancel()

    async def _receive(self) -> None:
        into = self._receive_into
        room = None if into is None else self._reader.room()
        if into is None or room is None:
            data = await self._stream.receive(READ_BYTES)
            self._frames += self._reader.receive_data(data)
        else:
            with room:  # or the part could not grow
                count = await into(room)
            self._frames += self._reader.filled(count)

    async def _take_frames(self, turn: _Turn) -> None:
        """Handle what has been received, as one batch: what is sent meanwhile leaves together."""
        frames, answers = self._frames, 0
        self._out.hold()
        try:
            give_way_at = time.perf_counter() + YIELD_SECONDS
            while frames and not self._over:
                frame = frames.popleft()
                if frame.kind is Kind.REPLY or frame.kind is Kind.FAILURE:
                    call = self._pending.get(frame.call_id)
                    if call is not None:  # else: a late answer to a call given up
                        answers += 1
                        call.answer = frame
                        call.set()
                elif frame.kind is Kind.REQUEST:
                    taken = self._serving.take(frame)
                    if taken is not None:
                        await self._serve(turn, frame.call_id, *taken)
                        if turn.over:
                            return
                else:
                    self._take_other(frame)
                if frames and time.perf_counter() > give_way_at:
                    await self._give_way()
                    give_way_at = time.perf_counter() + YIELD_SECONDS
        finally:
            if not turn.over:
                self._out.crowded = answers > 1
                self._out.release()

    async def _give_way(self) -> None:
        self._out.release()
        await anyio.lowlevel.checkpoint()
        self._out.hold()

    async def _serve(
        self, turn: _Turn, call_id: int, request: Request, answer: Awaitable[Payload]
    ) -> None:
        """Await the answer to a call of the peer, within its deadline."""
        served = ServedCall()
        turn.call = call_id, request, served
        self._serving.in_flight[call_id] = turn.scope
        if request.remaining is not None:
            turn.scope.deadline = anyio.current_time() + request.remaining
        try:
            await self._serving.finish(call_id, request, answer, served)
        finally:
            self._serving.in_flight.pop(call_id, None)
        if not turn.over:
            turn.call = None
            turn.rested = False
            if request.remaining is not None:
                turn.scope.deadline = math.inf

    def _take_other(self, frame: Frame) -> None:
        if frame.kind is Kind.CANCEL:
            scope = self._serving.in_flight.get(frame.call_id)
            if scope is not None:
                scope.cancel()
        elif frame.kind is Kind.EVENT:
            self._take_event(frame)
        else:
            raise ProtocolError(f"unexpected {frame.kind.name} frame")

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

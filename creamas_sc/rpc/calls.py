"""Calls to peers: one at a time with `Outbound.call`, or several by one task with `Calls`.

A call needs no task. Its owner, the task that makes it, waits for a *waiter*, and the reader of the
connection sets that when the answer has arrived. A single call has its own waiter; the calls
of a `Calls` block share one, which is set when nothing more is to be waited for.

    start ---> pending ---+--- answered -----------> ended
                          +--- connection lost ----> ended, no answer
                          +--- time is over -------> CANCEL is sent; the peer has a bounded time
                          |                          to confirm
                          +--- owner cancelled ----> the same, shielded from the cancellation

In every case, when the owner goes on, the call has ended, was confirmed to have ended, or is
reported as unconfirmed. Where the owner itself serves a call of another peer, it passes that on:
`ServedCall.unconfirmed` lists who did not confirm.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from dataclasses import dataclass

import anyio
import anyio.lowlevel

from creamas_sc.errors import DeadlineExceeded
from creamas_sc.rpc.loops import Loop
from creamas_sc.rpc.write_queue import WriteQueue
from creamas_sc.runtime.timeouts import ACKNOWLEDGE_SECONDS
from creamas_sc.wire.codec import Payload
from creamas_sc.wire.frames import Frame, Kind
from creamas_sc.wire.protocol import WireProtocol

# Decoding an answer of this size, in bytes, takes so long that the owner begins before the others
# are there.
LARGE_ANSWER_BYTES = 1 << 15


class ServedCall:
    """A call of a peer that is being served.

    Attributes:
        of_agent: Whether it waits here for an agent's method, called from another environment.
        unconfirmed: The peers further on that were asked to cancel their part of the work, and did
            not confirm that in time.
    """

    of_agent = False
    unconfirmed: tuple[str, ...] = ()


# The call that the running task serves, if any.
served_call: ContextVar[ServedCall | None] = ContextVar("served_call", default=None)


class Outbound:
    """The half of a connection that sends calls and events.

    Args:
        protocol: The connection's state.
        out: Where its frames are written.
        loop: The running loop.

    Attributes:
        name: The peer, for error messages.
        post: Sends an event; see `WireProtocol.post`.
    """

    def __init__(self, protocol: WireProtocol, out: WriteQueue, loop: Loop) -> None:
        self.protocol = protocol
        self.out = out
        self.name = protocol.name
        self.post = protocol.post
        self._loop = loop

    @property
    def alive(self) -> bool:
        """Whether calls can be made."""
        return self.protocol.alive

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
            Exception: What the callee raised, as `creamas_sc.errors` decodes it.
        """
        if timeout is not None or not self.out.drained:
            async with Calls(self._loop, timeout, acknowledge_seconds) as calls:
                call = await calls.start(self, target, method, payload)
                await calls.wait()
                return await calls.answer(call)
        # Fast path: no timeout, no backpressure.
        slot, until = self._loop.waiter(), self._loop.effective_deadline()
        remaining = None if until == math.inf else max(until - anyio.current_time(), 0.0)
        number = self.protocol.start_call(slot, target, method, payload, remaining)
        try:
            await slot.wait()
        except BaseException as error:  # cancelled, or a Ctrl-C
            try:
                if isinstance(error, anyio.get_cancelled_exc_class()) and not slot.is_set():
                    self.protocol.cancel(number)
                    with anyio.move_on_after(ACKNOWLEDGE_SECONDS, shield=True):
                        await slot.wait()
                    self.confirms(slot.answer)
            finally:
                self.protocol.forget(number)
            raise
        frame: Frame | None = slot.answer
        if frame is not None and frame.kind is Kind.REPLY:
            return Payload(frame.body, frame.parts)
        return await self.result(frame, until)

    async def result(self, answer: Frame | None, deadline: float) -> Payload:
        """What came of a call of a task with that deadline; see `WireProtocol.result`."""
        try:
            return self.protocol.result(answer)
        except DeadlineExceeded:
            # If the callee's clock is a little ahead, the caller's own cancel scope comes first.
            if 0 < deadline - anyio.current_time() < ACKNOWLEDGE_SECONDS:
                await anyio.sleep_until(deadline)
                await anyio.lowlevel.checkpoint()
            raise

    def confirms(self, answer: Frame | None) -> bool:
        """Whether the answer to a cancelled call confirms its end; if not, it is noted."""
        confirmed = self.protocol.confirms(answer)
        served = served_call.get()
        if not confirmed and served is not None:
            served.unconfirmed += (self.name,)
        return confirmed


@dataclass(slots=True, eq=False)
class Call:
    """One of several calls; it is the slot that its connection fills.

    Attributes:
        on_end: Called when it is settled.
        ended: Whether it is no longer waited for.
        succeeded: Whether it was answered, and not by an error.
    """

    calls: Calls
    link: Outbound
    method: str
    on_end: Callable[[], None] | None = None
    number: int = 0
    answer: Frame | None = None
    ended: bool = False
    succeeded: bool = False
    overdue: bool = False
    acknowledged: bool = False

    def set(self) -> None:
        """Note that the call is settled."""
        if self.ended:
            return
        self.ended = True
        if self.on_end is not None:
            self.on_end()
        calls, answer = self.calls, self.answer
        self.succeeded = answer is not None and answer.kind is Kind.REPLY
        large = answer is not None and len(answer.body) > LARGE_ANSWER_BYTES
        calls.unanswered -= 1
        if not calls.unanswered or not self.succeeded or large:
            calls.waiter.set()


class Calls(AbstractAsyncContextManager["Calls"]):
    """Calls that one task makes at the same time, in an ``async with``: at its end, all are over.

    Args:
        loop: The running one.
        timeout: Seconds that each may take; the task's own cancel scopes count too.
        acknowledge_seconds: How long peers have to confirm, once the timeout has passed.

    Attributes:
        unanswered: How many have not ended.
        waiter: What the task waits for.
    """

    def __init__(
        self,
        loop: Loop,
        timeout: float | None = None,
        acknowledge_seconds: float = ACKNOWLEDGE_SECONDS,
    ) -> None:
        self.unanswered = 0
        self.waiter = loop.waiter()
        self._calls: list[Call] = []
        self._new_waiter = loop.waiter
        self._deadline = loop.effective_deadline()
        self._timeout = timeout
        self._until = math.inf if timeout is None else anyio.current_time() + timeout
        self._acknowledge_seconds = acknowledge_seconds

    async def __aexit__(self, *exc_info: object) -> None:
        try:
            if self.unanswered:
                await self._cancel(ACKNOWLEDGE_SECONDS)
        finally:
            for call in self._calls:
                if call.answer is None:
                    call.link.protocol.forget(call.number)

    async def start(
        self,
        link: Outbound,
        target: int | str | None,
        method: str,
        payload: Payload,
        on_end: Callable[[], None] | None = None,
    ) -> Call:
        """Call ``method`` of the peer's ``target``; ``on_end`` is called when that is settled.

        Raises:
            ConnectionLost: There is no connection.
            DeadlineExceeded: The timeout passed before the call could be sent.
        """
        if not link.out.drained:
            with anyio.CancelScope(deadline=self._until) as scope:
                await link.out.wait_until_drained()
            if scope.cancelled_caught:
                raise DeadlineExceeded(
                    f"{method} could not be sent to {link.name} in {self._timeout:g} s",
                    may_have_run=False,
                    addresses=[link.name],
                )
        call = Call(self, link, method, on_end)
        until = min(self._deadline, self._until)
        remaining = None if until == math.inf else max(until - anyio.current_time(), 0.0)
        call.number = link.protocol.start_call(call, target, method, payload, remaining)
        self._calls.append(call)
        self.unanswered += 1
        return call

    async def wait(self) -> None:
        """Wait until all have ended, one has failed, or one has a large answer."""
        if self._timeout is None:
            await self.waiter.wait()
        else:
            with anyio.CancelScope(deadline=self._until):
                await self.waiter.wait()
            if not self.waiter.is_set():  # the time is over
                for call in await self._cancel(self._acknowledge_seconds):
                    call.overdue = call.ended = True
                self.unanswered = 0
        if self.unanswered:
            self.waiter = self._new_waiter()

    async def answer(self, call: Call) -> Payload:
        """What came back of a call that has ended.

        Raises:
            ConnectionLost: The connection ended.
            DeadlineExceeded: The timeout passed.
            Exception: What the callee raised, as `creamas_sc.errors` decodes it.
        """
        frame = call.answer
        if frame is not None and frame.kind is Kind.REPLY:
            return Payload(frame.body, frame.parts)
        if call.overdue:
            raise DeadlineExceeded(
                f"{call.method} of {call.link.name} did not finish in {self._timeout:g} s",
                acknowledged=call.acknowledged,
                addresses=[call.link.name],
            )
        return await call.link.result(frame, self._deadline)

    async def _cancel(self, seconds: float) -> list[Call]:
        """Ask the peers to cancel what has not ended, and note who confirms in time."""
        cancelled = [call for call in self._calls if not call.ended]
        for call in cancelled:
            call.link.protocol.cancel(call.number)
        with anyio.move_on_after(seconds, shield=True):
            while self.unanswered:
                self.waiter = self._new_waiter()
                await self.waiter.wait()
        for call in cancelled:
            call.acknowledged = call.link.confirms(call.answer)
        return cancelled

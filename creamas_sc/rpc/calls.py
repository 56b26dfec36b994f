"""Calls of peers under way: one task makes one call or several, and waits for all of them.

A task of its own for each call would cost more than the call.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Protocol, Self

import anyio
import anyio.lowlevel

from creamas_sc.errors import ConnectionLost, DeadlineExceeded, from_wire
from creamas_sc.rpc.cancelling import ACKNOWLEDGE_SECONDS, confirms, served_call
from creamas_sc.rpc.loops import Loop, Waiter
from creamas_sc.wire.codec import Payload
from creamas_sc.wire.frames import Frame, Kind

if TYPE_CHECKING:
    from creamas_sc.rpc.connection import Connection

__all__ = ["Call", "Calls", "Slot", "failure"]

# To decode an answer of this size, in bytes, takes so long that the others are not waited for.
_LARGE_ANSWER = 1 << 15


class Slot(Protocol):
    """Where a connection leaves the answer to a call, None if there will be none, and says so."""

    answer: Any

    def set(self) -> None:
        """It is there."""


class Call:
    """One call; its connection leaves the answer, and sets it when there is one or will be none.

    Attributes:
        ended: Whether nobody waits for it any longer.
    """

    __slots__ = ("_calls", "acknowledged", "answer", "ended", "link", "method", "number", "overdue")

    def __init__(self, calls: Calls, link: Connection, method: str) -> None:
        self.answer: Frame | None = None
        self.ended = self.overdue = self.acknowledged = False
        self.link = link
        self.method = method
        self.number = 0
        self._calls = calls

    @property
    def succeeded(self) -> bool:
        """Whether it was answered, and not by an error."""
        return self.answer is not None and self.answer.kind is Kind.REPLY

    def set(self) -> None:
        """It has ended."""
        if not self.ended:
            self.ended = True
            self._calls._note_end(self.answer)


class Calls:
    """Calls that one task makes at once, in an ``async with``: at its end, none goes on.

    Args:
        loop: The running one.
        timeout: Seconds that each may take; the task's own cancel scopes count too.
        acknowledge_seconds: How long peers have to confirm, once the timeout has passed.

    Attributes:
        unanswered: How many have not ended.
    """

    def __init__(
        self,
        loop: Loop,
        timeout: float | None = None,
        acknowledge_seconds: float = ACKNOWLEDGE_SECONDS,
    ) -> None:
        self.unanswered = 0
        self._calls: list[Call] = []
        self._new_waiter = loop.waiter
        self._waiter = loop.waiter()
        self._deadline = loop.effective_deadline()
        self._timeout = timeout
        self._until = math.inf if timeout is None else anyio.current_time() + timeout
        self._acknowledge_seconds = acknowledge_seconds

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        try:
            if self.unanswered:
                await self._cancel(ACKNOWLEDGE_SECONDS)
        finally:
            for call in self._calls:
                call.link.forget(call.number)

    async def start(
        self, link: Connection, target: int | str | None, method: str, payload: Payload
    ) -> Call:
        """Call ``method`` of the peer's ``target``.

        Raises:
            ConnectionLost: There is no connection.
            DeadlineExceeded: The timeout passed before the call could be sent.
        """
        if not link.drained:
            await self._wait_for_room(link, method)
        call = Call(self, link, method)
        until = min(self._deadline, self._until)
        call.number = link.send_request(call, target, method, payload, until)
        self._calls.append(call)
        self.unanswered += 1
        return call

    def take_over(self, link: Connection, number: int, method: str, slot: Waiter) -> None:
        """Have a call for which a task has waited by ``slot`` be one of these."""
        call = Call(self, link, method)
        call.number, call.answer, call.ended = number, slot.answer, slot.is_set()
        self._calls.append(call)
        if not call.ended:
            self.unanswered += 1
            link.await_answer(number, call)

    async def wait(self) -> None:
        """Wait until all of those started have ended, one has failed, or one has a large answer."""
        if self._timeout is None:
            await self._waiter.wait()
        else:
            with anyio.CancelScope(deadline=self._until):
                await self._waiter.wait()
            if not self._waiter.is_set():
                await self._give_up()
        if self.unanswered:
            self._waiter = self._new_waiter()

    async def answer(self, call: Call) -> Payload:
        """What came back of a call that has ended.

        Raises:
            ConnectionLost: The connection ended.
            DeadlineExceeded: The timeout passed.
            Exception: What the callee raised, as `creamas_sc.errors` tells it.
        """
        frame = call.answer
        if frame is not None and frame.kind is Kind.REPLY:
            return Payload(frame.body, frame.parts)
        name = call.link.name
        if call.overdue:
            raise DeadlineExceeded(
                f"{call.method} of {name} did not finish in {self._timeout:g} s",
                acknowledged=call.acknowledged,
                addresses=[name],
            )
        raise await failure(call.link, frame, self._deadline)

    def _note_end(self, answer: Frame | None) -> None:
        self.unanswered -= 1
        if (
            not self.unanswered
            or answer is None
            or answer.kind is not Kind.REPLY
            or len(answer.body) > _LARGE_ANSWER
        ):
            self._waiter.set()

    async def _wait_for_room(self, link: Connection, method: str) -> None:
        """Wait until the peer has read what is queued."""
        with anyio.CancelScope(deadline=self._until):
            await link.wait_until_drained()
            return
        raise DeadlineExceeded(
            f"{method} could not be sent to {link.name} in {self._timeout:g} s",
            may_have_run=False,
            addresses=[link.name],
        )

    async def _give_up(self) -> None:
        """The time has passed: have the peers cancel their work."""
        for call in await self._cancel(self._acknowledge_seconds):
            call.overdue = call.ended = True
        self.unanswered = 0

    async def _cancel(self, seconds: float) -> list[Call]:
        """Ask the peers to cancel what has not ended, and note who confirms within the bound."""
        cancelled = [call for call in self._calls if not call.ended]
        for call in cancelled:
            call.link.send_cancel(call.number)
        with anyio.move_on_after(seconds, shield=True):
            while self.unanswered:
                self._waiter = self._new_waiter()
                await self._waiter.wait()
        served = served_call.get()
        for call in cancelled:
            call.acknowledged = confirms(call.answer, call.link.codec)
            if not call.acknowledged and served is not None:
                served.unconfirmed.append(call.link.name)
        return cancelled


async def failure(link: Connection, frame: Frame | None, deadline: float) -> BaseException:
    """The error of a call that was not answered, or by ``frame``; of a task with that deadline."""
    if frame is None:
        return ConnectionLost(f"the connection to {link.name} was lost", address=link.name)
    error = from_wire(link.codec.decode(Payload(frame.body, frame.parts)))
    if isinstance(error, DeadlineExceeded):
        # The callee's clock was a little ahead: let the caller's own scope do its part.
        if 0 < deadline - anyio.current_time() < ACKNOWLEDGE_SECONDS:
            await anyio.sleep_until(deadline)
            await anyio.lowlevel.checkpoint()
    return error

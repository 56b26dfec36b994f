"""One actor that the service owns: what is told of it, and how it is ended."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import trio

from supervisor.actors import escalation
from supervisor.actors.escalation import Step
from supervisor.actors.tractor_adapter import Actor, first_of
from supervisor.timeouts import CANCEL_SECONDS

Told = dict[str, Any]
Act = Callable[[], Awaitable[object]]

_DEPTH = list(Step)


class Slot:
    """An actor that the service owns, from its process's first moment to its receipt."""

    def __init__(self, slot: str, actor: Actor, number: int) -> None:
        self.slot = slot
        self.number = number  # receipts come in the order of the starts
        self.actor = actor
        self.announced = False  # its start has been answered: its end is an event
        self.stopping = False
        self.gone = trio.Event()  # its slot is free again
        self._asked = False
        self._step = Step.GONE

    def describe(self) -> str:
        """Name and pid, for a message."""
        return f"{self.actor.process.name} (pid {self.actor.process.pid})"

    def failure(self) -> str:
        """Why it did not come up."""
        outcome = self.actor.outcome
        if outcome is not None and outcome.error is not None:
            return f"{self.describe()} failed to start: {outcome.error}"
        if self.actor.process.exited.is_set():
            return f"{self.describe()} {self.actor.process.describe_end()} while starting"
        return f"{self.describe()} ended before it was ready"

    @property
    def returned(self) -> bool:
        """Whether its entry has come to an end without an error."""
        return self.actor.outcome is not None and self.actor.outcome.payload is not None

    def fate(self) -> Told:
        """What is told of every end."""
        process, outcome = self.actor.process, self.actor.outcome
        return {
            "slot": self.slot,
            "pid": process.pid,
            "exit_code": process.exit_code,
            "signal": process.signal,
            "error": None if outcome is None else outcome.error,
            "traceback": "" if outcome is None else outcome.traceback,
        }

    def receipt(self, seconds: float) -> Told:
        """What is told of a stop."""
        fate = self.fate()
        step = self._step
        outcome = self.actor.outcome
        if step is Step.CANCEL and outcome is not None:
            step = Step.REQUEST  # it answered in time, its process took a little longer
        return {
            **fate,
            "seconds": seconds,
            "graceful": self.returned and fate["exit_code"] == 0,
            "ladder": step.value,
            "payload": None if outcome is None else outcome.payload,
        }

    async def end(self, grace: float, payload: bytes = b"") -> None:
        """Take it down the ladder; returns when it is over, or past killing.

        Two of these may run at a time, with different patience; the receipt tells the deepest step.
        """
        exited = self.actor.process.exited
        await escalation.escalate(exited, self._acts(payload), grace)
        if exited.is_set():
            await self.actor.settled.wait()

    def kill(self) -> None:
        """Take the last step first; `end` then sees it over."""
        self.stopping = True
        self._mark(Step.KILL)
        self.actor.process.kill()

    def _acts(self, payload: bytes) -> dict[Step, Act]:
        actor = self.actor

        async def request() -> None:
            self._mark(Step.REQUEST)
            if not self._asked:
                self._asked = True
                # Whole, even where the one who asks is cancelled: the next stop relies on it.
                with trio.move_on_after(CANCEL_SECONDS) as scope:
                    scope.shield = True
                    await actor.request_stop(payload)
            await first_of(actor.finished, actor.process.exited)
            if actor.outcome is None:  # nothing more is to be heard of it
                await actor.cancel()

        async def cancel() -> None:
            self._mark(Step.CANCEL)
            if actor.outcome is None:  # else it is ending itself
                await actor.cancel()

        async def terminate() -> None:
            self._mark(Step.TERM)
            actor.process.terminate()

        async def kill() -> None:
            self._mark(Step.KILL)
            actor.process.kill()

        return {
            Step.REQUEST: request,
            Step.CANCEL: cancel,
            Step.TERM: terminate,
            Step.KILL: kill,
        }

    def _mark(self, step: Step) -> None:
        if self.stopping:  # an end that nobody asked for has no step
            self._step = max(self._step, step, key=_DEPTH.index)

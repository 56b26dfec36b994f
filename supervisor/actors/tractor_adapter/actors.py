"""Actors: a child process each, with one tractor context to talk to its entry.

Of an actor there is one object, from before its process is forked to its `StopResult`. These are
its events, in the order in which they come::

    ready      its entry called ready()             } or neither, if the start
    finished   its entry ended, or cannot say so    } failed; see `outcome`
    exited     the process is gone
    reported   its last words were read, its slot is free, and its owner has been informed

`Actor.run` is the one task that sees an actor from the handshake to ``reported``. It ends a process
that stays although its entry has ended. `Actor.stop` may run beside it, several times even, each
with its own grace: it only escalates and then waits for ``reported``.

tractor raises nothing past this module: a broken context ends `_converse`, which sets ``finished``.
A process that was killed leaves tractor's context waiting for ever, which is why `run` waits for
``exited``, lets messages that are on their way arrive, and then closes the connection itself.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import trio

from creamas_sc.runtime.nurseries import first_of, split_cancellation
from creamas_sc.supervisor_client.messages import (
    ActorEnd,
    ActorExit,
    ProcessOrder,
    StopResult,
    describe_exit,
)
from supervisor.actors.entry_runner import Outcome
from supervisor.actors.escalation import STAGES, StopStage, escalate
from supervisor.actors.tractor_adapter import entry, patches
from supervisor.actors.tractor_adapter.compat import QUIET, tractor
from supervisor.timeouts import CANCEL_SECONDS, DRAIN_SECONDS, TURN_SECONDS
from supervisor.tree.zygote_client import Process, ZygoteClient

log = logging.getLogger(__name__)

_CLOSED = (trio.ClosedResourceError, trio.BrokenResourceError, tractor.RemoteActorError)


class Actor(Process):
    """One actor.

    Args:
        slot: Identifies it in messages to its owner.
        number: Its place in the order of all starts.
        inherit: Descriptors of which its process gets copies.

    Attributes:
        ready: Set when the entry has said so; ``info`` is what it passed.
        finished: Set when the entry has ended, or can no longer say so.
        outcome: How the entry ended; None while it runs, and if it could not say so.
        announced: Its start was answered, so its end is reported as an event.
        stopping: Its end was requested.
        reported: Set last, when nothing more is to come.
    """

    node = ""  # it runs on this machine

    def __init__(self, slot: str, name: str, number: int, inherit: Sequence[int] = ()) -> None:
        super().__init__(name, inherit)
        self.slot = slot
        self.number = number
        self.ready = trio.Event()
        self.info = b""
        self.finished = trio.Event()
        self.outcome: Outcome | None = None
        self.announced = False
        self.stopping = False
        self.reported = trio.Event()
        self._portal: Any = None
        self._context: Any = None
        self._stream: Any = None
        self._asked = False
        self._cancelled = False
        self._stage = StopStage.GONE  # the last that was needed

    # ---- its messages to the owner

    def failure(self) -> str:
        """Why it did not come up."""
        if self.outcome is not None and self.outcome.error is not None:
            return f"{self} failed to start: {self.outcome.error}"
        if self.exited.is_set():
            return f"{self} {describe_exit(self.exit_code, self.signal)} while starting"
        return f"{self} ended before it was ready"

    @property
    def returned(self) -> bool:
        """Whether its entry has ended without an error."""
        return self.outcome is not None and self.outcome.payload is not None

    def exit_message(self) -> ActorExit:
        """The event of its end."""
        return {**self._end(), "expected": self.stopping, "returned": self.returned}

    def _end(self) -> ActorEnd:
        return {
            "slot": self.slot,
            "pid": self.pid,
            "exit_code": self.exit_code,
            "signal": self.signal,
            "error": None if self.outcome is None else self.outcome.error,
            "traceback": "" if self.outcome is None else self.outcome.traceback,
        }

    # ---- its life

    async def run(
        self,
        portal: Any,
        disconnected: trio.Event,
        order: ProcessOrder,
        on_end: Callable[[Actor], None],
    ) -> None:
        """Talk to the entry until the process is gone; raises nothing but cancellation.

        Args:
            portal: tractor's, to the process.
            disconnected: Set when nothing more can be read from it.
            order: What the process is to run.
            on_end: Called when all is over, before ``reported`` is set.
        """
        self._portal = portal
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._converse, order)
            await first_of(self.finished, self.exited)
            if self.outcome is not None:
                with trio.move_on_after(CANCEL_SECONDS):
                    await self.exited.wait()
            if not self.stopping and not self.exited.is_set():
                # The entry ended unasked, but its process stays.
                await escalate(self.exited, self._act)
            await self.exited.wait()
            with trio.move_on_after(DRAIN_SECONDS):
                await first_of(self.finished, disconnected)
            # All that it sent has been read by now; `_converse` needs a turn to take it.
            with trio.move_on_after(TURN_SECONDS):
                await self.finished.wait()
            # tractor drops a context whose channel is closed, and sends nothing to the other side.
            await trio.aclose_forcefully(portal.channel.msgstream.stream)
            nursery.cancel_scope.cancel()
        # tractor keeps something of every call to an actor, for ever.
        contexts = portal.actor._contexts
        for key in [key for key in contexts if key[0] == portal.channel.uid]:
            del contexts[key]
        self._portal = self._context = self._stream = None
        self.finished.set()
        on_end(self)
        self.reported.set()

    async def _converse(self, order: ProcessOrder) -> None:
        try:
            async with self._portal.open_context(entry.serve, order=order) as (context, _):
                self._context = context
                async with context.open_stream() as stream:
                    self._stream = stream
                    async for kind, payload in stream:
                        if kind == "ready":
                            self.info = payload
                            self.ready.set()
                        elif kind == "ended":
                            self.outcome = Outcome(*payload)
                            self.finished.set()
        except Exception as error:  # tractor's, all of them; the process's end says the rest
            log.debug("the context of %s ended: %r", self.name, error)
        except BaseExceptionGroup as group:
            cancelled, _ = split_cancellation(group)
            if cancelled is not None:
                raise cancelled from None
        self.finished.set()

    # ---- its end

    async def stop(
        self,
        grace_seconds: float,
        payload: bytes = b"",
        first: StopStage = StopStage.REQUEST,
    ) -> StopResult:
        """Stop it; returns when it is gone, or when even SIGKILL did not help.

        Two of these may run at a time, with different graces; the results have the last stage
        that either of them needed.

        Args:
            payload: Goes to the entry with the request.
            first: The stage to begin with.
        """
        began = time.monotonic()
        self.stopping = True
        # An actor that is not ready would not hear a request.
        grace = grace_seconds if self.ready.is_set() else 0.0
        await escalate(self.exited, lambda stage: self._act(stage, payload), grace, first)
        if self.exited.is_set():
            await self.reported.wait()
        stage = self._stage
        if stage is StopStage.CANCEL and self.outcome is not None:
            stage = StopStage.REQUEST  # it answered in time, its process took a little longer
        return {
            **self._end(),
            "seconds": time.monotonic() - began,
            "graceful": self.returned and self.exit_code == 0,
            "ended_by": stage.value,
            "payload": None if self.outcome is None else self.outcome.payload,
        }

    async def _act(self, stage: StopStage, payload: bytes = b"") -> None:
        if self.stopping:  # an end that was not requested needs no stage
            self._stage = max(self._stage, stage, key=STAGES.index)
        if stage is StopStage.REQUEST:
            if not self._asked:
                self._asked = True
                # Whole, even if the caller is cancelled: the next stop relies on it.
                with trio.move_on_after(CANCEL_SECONDS) as scope, suppress(*_CLOSED):
                    scope.shield = True
                    if self._stream is not None:
                        await self._stream.send(["stop", payload])
            await first_of(self.finished, self.exited)
        if stage is StopStage.TERM:
            self.terminate()
        elif stage is StopStage.KILL:
            self.kill()
        # With an outcome the process is ending itself. Once: tractor would wait for a second
        # answer for ever.
        elif self.outcome is None and self._portal is not None and not self._cancelled:
            self._cancelled = True
            if self._context is not None:
                # It ends with the actor, and must not ask for that over a connection that closes.
                self._context._cancel_called = True
            with suppress(*_CLOSED):
                await self._portal.cancel_actor(timeout=CANCEL_SECONDS)


class Simulation:
    """A nursery of actors."""

    def __init__(self, actors: Any, tasks: trio.Nursery) -> None:
        self._actors = actors
        self._tasks = tasks

    async def start(
        self, actor: Actor, order: ProcessOrder, on_end: Callable[[Actor], None]
    ) -> None:
        """Start an actor's process and have it run ``order``.

        Returns as soon as the process talks; wait for ``ready`` or ``finished`` next.

        Args:
            on_end: See `Actor.run`.

        Raises:
            DiedEarly: The process ended before it talked.
            OSError: There can be no process.
        """
        patches.next_process.set(actor)
        # What our `new_proc` passed to tractor's nursery.
        portal, disconnected = await self._actors.start_actor(
            actor.name, enable_modules=[entry.__name__]
        )
        self._tasks.start_soon(actor.run, portal, disconnected, order, on_end)


@asynccontextmanager
async def open_simulation() -> AsyncIterator[Simulation]:
    """Open a nursery of the root: what happens in one simulation does not touch another.

    Actors that are left at the block's end are cancelled by tractor, then killed.
    """
    async with trio.open_nursery() as tasks:
        async with tractor.open_nursery() as actors:
            yield Simulation(actors, tasks)
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def open_root(zygote: ZygoteClient) -> AsyncIterator[None]:
    """Be the root of a tractor tree whose processes come from ``zygote``."""
    patches.use_zygote(zygote)
    async with tractor.open_root_actor(
        name="supervisor", arbiter_addr=patches.NO_ADDRESS, loglevel=QUIET
    ):
        yield

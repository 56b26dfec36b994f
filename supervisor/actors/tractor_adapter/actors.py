"""tractor's tree as the supervisor uses it: a root, a nursery a simulation, a context an actor.

Nothing of tractor's is raised from here: an actor's end is an event and an `Outcome`.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import trio

from creamas_sc.runtime.nurseries import split_cancellation
from supervisor.actors.tractor_adapter import entry, patches
from supervisor.actors.tractor_adapter.compat import QUIET, tractor
from supervisor.actors.tractor_adapter.patches import Died, Forker, first_of
from supervisor.timeouts import CANCEL_SECONDS, LAST_WORDS_SECONDS, TURN_SECONDS
from supervisor.tree.zygote_client import Process

__all__ = ["Actor", "Died", "Forker", "Outcome", "Simulation", "Tree", "first_of", "open_tree"]

log = logging.getLogger(__name__)


class Outcome(NamedTuple):
    """How an entry ended: the payload it returned, or the text of what it raised."""

    payload: bytes | None
    error: str | None
    traceback: str


class Actor:
    """One actor: a process, and the conversation with it.

    Attributes:
        process: Its process; ``process.exited`` is its end.
        ready: Set once the entry said so; ``info`` is what it gave.
        finished: Set when the entry has ended, or can no longer say so.
        outcome: How the entry ended; None while it runs and where it could not tell.
        settled: Set last of all: the process is over and the conversation too.
    """

    def __init__(self, process: Process, portal: Any, disconnected: trio.Event) -> None:
        self.process = process
        self._disconnected = disconnected
        self.ready = trio.Event()
        self.info = b""
        self.finished = trio.Event()
        self.outcome: Outcome | None = None
        self.settled = trio.Event()
        self._portal = portal
        self._context: Any = None
        self._stream: Any = None
        self._cancelled = False

    async def request_stop(self, payload: bytes) -> None:
        """Ask the entry to end; one that cannot be asked any more is left alone."""
        if self._stream is None:
            return
        try:
            await self._stream.send(["stop", payload])
        except (trio.BrokenResourceError, trio.ClosedResourceError, tractor.RemoteActorError):
            log.debug("%s can no longer be asked to stop", self.process.name)

    async def cancel(self) -> None:
        """Have tractor cancel the actor."""
        if self._cancelled:  # a second answer would never come, and tractor waits for it
            return
        self._cancelled = True
        if self._context is not None:
            # Its context ends with it, and is not to ask for that over a connection that closes.
            self._context._cancel_called = True
        try:
            await self._portal.cancel_actor(timeout=CANCEL_SECONDS)
        except (trio.ClosedResourceError, trio.BrokenResourceError, tractor.RemoteActorError):
            log.debug("%s can no longer be cancelled", self.process.name)

    async def attend(self, order: dict[str, Any]) -> None:
        """Converse until the entry has ended, or the process; never raises but for cancellation."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._converse, order)
            await self.process.exited.wait()
            with trio.move_on_after(LAST_WORDS_SECONDS):
                await first_of(self.finished, self._disconnected)
            # All it sent has been read by now, and waits for `_converse` to have its turn.
            with trio.move_on_after(TURN_SECONDS):
                await self.finished.wait()
            # A context whose channel is closed is dropped without a word to the other side.
            await trio.aclose_forcefully(self._portal.channel.msgstream.stream)
            nursery.cancel_scope.cancel()
        self._forget()
        self.finished.set()
        self.settled.set()

    async def _converse(self, order: dict[str, Any]) -> None:
        try:
            async with self._portal.open_context(entry.live, order=order) as (context, _):
                self._context = context
                async with context.open_stream() as stream:
                    self._stream = stream
                    async for message in stream:
                        self._take(message)
        except Exception as error:  # tractor's, all of them; the process's end says the rest
            log.debug("the context of %s ended: %r", self.process.name, error)
        except BaseExceptionGroup as group:
            cancelled, _ = split_cancellation(group)
            if cancelled is not None:
                raise cancelled from None
        self.finished.set()

    def _take(self, message: list[Any]) -> None:
        kind, payload = message
        if kind == "ready":
            self.info = payload
            self.ready.set()
        elif kind == "ended":
            self.outcome = Outcome(
                payload.get("done"), payload.get("failed"), payload.get("traceback", "")
            )
            self.finished.set()

    def _forget(self) -> None:
        """Drop what tractor keeps of every call to an actor, for ever."""
        contexts = self._portal.actor._contexts
        uid = self._portal.channel.uid
        for key in [key for key in contexts if key[0] == uid]:
            del contexts[key]


class Simulation:
    """A nursery of actors."""

    def __init__(self, actors: Any, tasks: trio.Nursery) -> None:
        self._actors = actors
        self._tasks = tasks

    async def start(self, name: str, order: dict[str, Any], inherit: Sequence[int] = ()) -> Actor:
        """Start an actor's process and hand it ``order`` (see `supervisor.actors.entry_runner`).

        Returns as soon as the process talks; wait for ``ready`` or ``finished`` next.

        Args:
            inherit: Descriptors that the process gets copies of, as ``Control.descriptors``.

        Raises:
            Died: The process ended before it talked.
            OSError: There is no process to be had.
        """
        with patches.inheriting(inherit):
            started = await self._actors.start_actor(name, enable_modules=[entry.__name__])
        actor = Actor(*started)  # what our `new_proc` told its nursery
        self._tasks.start_soon(actor.attend, order)
        return actor


class Tree:
    """The root of the actors."""

    @asynccontextmanager
    async def open_simulation(self) -> AsyncIterator[Simulation]:
        """A nursery of its own: what happens in one simulation does not touch another.

        Whoever is left at the block's end is cancelled by tractor, then killed.
        """
        async with trio.open_nursery() as tasks:
            async with tractor.open_nursery() as actors:
                yield Simulation(actors, tasks)
            tasks.cancel_scope.cancel()


@asynccontextmanager
async def open_tree(forker: Forker) -> AsyncIterator[Tree]:
    """Be the root of a tractor tree whose processes come from ``forker``."""
    patches.use_forker(forker)
    async with tractor.open_root_actor(
        name="supervisor", arbiter_addr=patches.NO_ADDRESS, loglevel=QUIET
    ):
        yield Tree()

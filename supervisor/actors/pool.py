"""The actors of one simulation: started all or none, watched, and stopped in parallel.

Each actor has a slot, which is taken from the request to start it until it is reported as ended::

    free --start--> starting --all are ready--> in use --exited, reported--> free
                        `--one failed, or time is up: all of this start are stopped--'

A start that wants a slot whose actor is being stopped, or that another start has reserved, waits.
Of an actor that ended by itself the pool keeps the object, until a stop asks for its result or the
slot is used again.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import trio

from creamas_sc.errors import CreamasError, StartError, enumerate_first
from creamas_sc.foreign import shorten
from creamas_sc.runtime.coroutines import at_once
from creamas_sc.runtime.nurseries import first_of
from creamas_sc.runtime.process_load import ENDED, ProcessLoad
from creamas_sc.supervisor_client import messages
from supervisor.actors.escalation import StopStage
from supervisor.actors.tractor_adapter import Actor, DiedEarly
from supervisor.nodes.placement import Placement
from supervisor.nodes.remote_actor import RemoteActor
from supervisor.timeouts import GRACE_SECONDS, MAX_STARTING, START_SECONDS

log = logging.getLogger(__name__)

AnyActor = Actor | RemoteActor

# Of an actor's name, in messages and to the zygote.
NAME_LENGTH = 100


class ActorPool:
    """The actors of one simulation.

    Args:
        place: Where they run.
        on_exit: Called for each actor that ends after its start was answered.
        others: How many actors it may have beside slaves.
    """

    def __init__(
        self, place: Placement, on_exit: Callable[[messages.ActorExit], None], others: int = 0
    ) -> None:
        self._place = place
        self._on_exit = on_exit
        self._most = messages.MAX_SLAVES + others
        self._actors: dict[str, AnyActor] = {}
        self._ended: dict[str, AnyActor] = {}
        self._starting: dict[str, trio.Event] = {}
        self._closing = False
        self._numbers = itertools.count()

    @property
    def processes(self) -> list[messages.ProcessInfo]:
        """Those that run, in the order of their starts."""
        return [
            {"slot": actor.slot, "name": actor.name, "pid": actor.pid, "node": actor.node}
            for actor in _in_order(self._actors.values())
        ]

    # ---- starting

    async def start(
        self,
        orders: Sequence[messages.ActorOrder],
        timeout: float | None = None,
        inherit: Sequence[int] = (),
        code: messages.Code | None = None,
    ) -> list[messages.StartedActor]:
        """Start actors, all or none.

        Args:
            timeout: Seconds until all are ready, 30 by default.
            inherit: Descriptors of which each gets copies; not on nodes.
            code: What they load of the user's on nodes.

        Returns:
            One answer per order, in the same order.

        Raises:
            StartError: One failed, or time ran out; those that had come up are gone again.
        """
        seconds = START_SECONDS if timeout is None else timeout
        names = [order["slot"] for order in orders]
        over = trio.Event()
        actors: list[AnyActor] = []
        failures: list[str] = []
        try:
            with trio.move_on_after(seconds):
                await self._reserve(names, over)
                await self._place.wait_until_clear(names)
                actors += [
                    self._place.make(order, _name(order), next(self._numbers), inherit, code)
                    for order in orders
                ]
                await self._bring_up(actors, orders, failures)
            unready = [str(actor) for actor in actors if not actor.ready.is_set()]
            if not actors:  # time ran out before that
                unready = [_name(order) for order in orders]
            if unready and not failures:
                failures = [f"not ready within {seconds:g} s: {enumerate_first(unready)}"]
            failures += [actor.failure() for actor in actors if actor.finished.is_set()]
            if failures:
                raise StartError(shorten(failures[0]))
        except BaseException:
            with trio.CancelScope(shield=True):
                running = [actor for actor in actors if self._actors.get(actor.slot) is actor]
                await at_once(lambda actor: actor.stop(GRACE_SECONDS), running)
            raise
        finally:
            self._starting = {k: v for k, v in self._starting.items() if v is not over}
            over.set()
        for actor in actors:
            actor.announced = True
        return [{"slot": actor.slot, "pid": actor.pid, "info": actor.info} for actor in actors]

    async def _reserve(self, names: Sequence[str], over: trio.Event) -> None:
        """Reserve slots for one start, which sets ``over`` at its end.

        Waits for actors in these slots that are being stopped, and for other starts of these slots.

        Raises:
            StartError: One is in use, or they are too many.
        """
        while True:
            present = [self._actors[name] for name in names if name in self._actors]
            awaited = [self._starting[name] for name in names if name in self._starting]
            awaited += [actor.reported for actor in present if actor.stopping]
            if not awaited:
                break
            await awaited[0].wait()
        if self._closing:
            raise StartError("the supervisor is closing")
        if len({*self._actors, *self._starting}) + len(names) > self._most:
            raise StartError(
                f"cannot start {len(names)} slaves: a simulation can have {messages.MAX_SLAVES}"
            )
        for name in names:
            if name in self._actors or names.count(name) > 1:
                raise StartError(f"slot {name} is taken")
        self._starting.update(dict.fromkeys(names, over))

    async def _bring_up(
        self, actors: Sequence[AnyActor], orders: Sequence[messages.ActorOrder], failures: list[str]
    ) -> None:
        """Start all; returns when all are ready, or when one has put why it is not in ``failures``.

        An actor that ends while others are still starting fails them too.
        """
        all_ready = trio.Event()
        turns = trio.CapacityLimiter(MAX_STARTING)
        pending = len(actors)

        async def bring_up(actor: AnyActor, order: messages.ActorOrder) -> None:
            nonlocal pending
            try:
                async with turns:
                    try:
                        await self._place.start(actor, order, self._retire)
                    except DiedEarly:
                        raise StartError(actor.failure()) from None
                    except OSError as error:
                        raise StartError(f"{actor.name} did not start: {error}") from error
                self._actors[actor.slot] = actor
                self._ended.pop(actor.slot, None)
                await first_of(actor.ready, actor.finished)
                if actor.ready.is_set() and not actor.finished.is_set():
                    pending -= 1
                    if pending == 0:
                        all_ready.set()
                    await first_of(all_ready, actor.finished)
                if actor.finished.is_set():
                    raise StartError(actor.failure())
            except StartError as error:
                failures.append(str(error))
                nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            for actor, order in zip(actors, orders, strict=True):
                nursery.start_soon(bring_up, actor, order)

    def _retire(self, actor: AnyActor) -> None:
        """Free the slot of an actor that has ended, and report its end."""
        del self._actors[actor.slot]
        if actor.announced:
            self._ended[actor.slot] = actor
            self._on_exit(actor.exit_message())

    async def loads(self, slots: Sequence[str]) -> dict[str, ProcessLoad]:
        """What actors take of their machines, by slot; "unknown" if their node does not answer."""
        there = [self._actors[slot] for slot in slots if slot in self._actors]
        return dict.fromkeys(slots, ENDED) | await self._place.loads(there)

    async def stacks(self, seconds: float) -> dict[str, Any]:
        """Where the code of actors on nodes is just now, by slot; see `JoinedNode.stacks`."""
        return await self._place.stacks(list(self._actors.values()), seconds)

    # ---- stopping

    async def stop(
        self, slots: Sequence[str] | None, grace: float | None = None, payload: bytes = b""
    ) -> list[messages.StopResult]:
        """Stop actors in parallel, and answer when all are gone.

        Args:
            slots: Which; None for all. The results of those that have ended before say how. If a
                start is under way in a slot and has no process there yet, it is waited for.
            grace: Seconds an entry has to return, 1.0 by default.
            payload: Goes to each entry with the request.

        Raises:
            CreamasError: There never was an actor in one of ``slots``.
        """
        for name in slots or ():
            if name in self._starting and name not in self._actors:
                await self._starting[name].wait()
        known = {**self._ended, **self._actors}
        for name in slots or ():
            if name not in known:
                raise CreamasError(f"no actor in slot {name}")
        chosen = _in_order(known.values()) if slots is None else [known[name] for name in slots]
        seconds = GRACE_SECONDS if grace is None else grace
        results = await at_once(lambda actor: actor.stop(seconds, payload), chosen)
        for actor in chosen:
            if self._ended.get(actor.slot) is actor:
                del self._ended[actor.slot]
        return results

    async def close(self, grace: float = GRACE_SECONDS) -> list[messages.StopResult]:
        """Stop all, those of starts under way too, and start no more."""
        self._closing = True
        return await self.stop(None, grace)

    async def kill(self) -> list[messages.StopResult]:
        """End all at once, without a request, and start no more."""
        self._closing = True
        chosen = _in_order(self._actors.values())
        return await at_once(lambda actor: actor.stop(0, first=StopStage.KILL), chosen)


def _in_order(actors: Iterable[AnyActor]) -> list[AnyActor]:
    return sorted(actors, key=lambda actor: actor.number)


def _name(order: messages.ActorOrder) -> str:
    return order["name"][:NAME_LENGTH]

"""What a supervisor does for the one who started it: start actors, watch them, end them.

Wire form of the methods and events: see `supervisor.root`.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Iterable, Sequence

import trio

from creamas_sc.errors import CreamasError, StartError
from creamas_sc.runtime.nurseries import open_unwrapping_nursery
from supervisor.actors.slot import Slot, Told
from supervisor.actors.tractor_adapter import Died, Simulation, first_of
from supervisor.texts import enumerate_first, shorten
from supervisor.timeouts import CANCEL_SECONDS, GRACE_SECONDS, LAUNCHES, MAX_SLAVES, START_SECONDS

log = logging.getLogger(__name__)

# Of an actor's name, in messages and to the zygote.
NAME_LENGTH = 100
_ORDER_KEYS = ("entry", "spec", "environ", "cwd", "path")


class Service:
    """The actors of one simulation.

    Args:
        simulation: Where they live.
        nursery: Runs the watch over each.
        on_exit: Told of each actor that ends after its start was answered.
        others: How many actors it may have beside slaves.
    """

    def __init__(
        self,
        simulation: Simulation,
        nursery: trio.Nursery,
        on_exit: Callable[[Told], None],
        others: int = 0,
    ) -> None:
        self._simulation = simulation
        self._nursery = nursery
        self._on_exit = on_exit
        self._most = MAX_SLAVES + others
        self._slots: dict[str, Slot] = {}
        self._ended: dict[str, Slot] = {}
        self._starting: dict[str, trio.Event] = {}
        self._closing = False
        self.numbers = itertools.count()

    @property
    def processes(self) -> list[Told]:
        """slot, name and pid of those that run, in the order of their starts."""
        return [
            {"slot": slot.slot, "name": slot.actor.process.name, "pid": slot.actor.process.pid}
            for slot in sorted(self._slots.values(), key=lambda slot: slot.number)
        ]

    async def start(
        self,
        orders: Sequence[Told],
        timeout: float | None = None,
        inherit: Sequence[int] = (),
    ) -> list[Told]:
        """Start actors, all or none.

        Args:
            orders: For each: slot, name, entry, spec, environ, cwd, path (see
                `supervisor.actors.entry_runner`).
            timeout: Seconds until all are ready, 30 by default.
            inherit: Descriptors that each gets copies of.

        Returns:
            slot, pid and info of each, in the order asked.

        Raises:
            StartError: One failed, or time ran out; whatever had come up is gone again.
        """
        seconds = START_SECONDS if timeout is None else timeout
        starting = _Start(self, orders, inherit)
        over = trio.Event()
        try:
            with trio.move_on_after(seconds):
                await self._reserve([order["slot"] for order in orders], over)
                await starting.run()
            failure = starting.verdict(seconds)
            if failure is not None:
                raise StartError(shorten(failure))
        except BaseException:
            with trio.CancelScope(shield=True):
                await self._end(starting.slots.values(), b"", GRACE_SECONDS)
            raise
        finally:
            self._starting = {k: v for k, v in self._starting.items() if v is not over}
            over.set()
        for slot in starting.slots.values():
            slot.announced = True
        return [
            {"slot": name, "pid": slot.actor.process.pid, "info": slot.actor.info}
            for name, slot in ((order["slot"], starting.slots[order["slot"]]) for order in orders)
        ]

    async def _reserve(self, names: Sequence[str], over: trio.Event) -> None:
        """Keep ``names`` for one start, which sets ``over`` at its end.

        Waits for those that are being stopped, and for other starts of the same slots.

        Raises:
            StartError: One is in use, or they are too many.
        """
        while (event := self._hindrance(names)) is not None:
            await event.wait()
        if self._closing:
            raise StartError("the supervisor is closing")
        if len({*self._slots, *self._starting}) + len(names) > self._most:
            raise StartError(
                f"cannot start {len(names)} slaves: a simulation can have {MAX_SLAVES}"
            )
        for name in names:
            if name in self._slots or names.count(name) > 1:
                raise StartError(f"slot {name} is taken")
        self._starting.update(dict.fromkeys(names, over))

    def _hindrance(self, names: Sequence[str]) -> trio.Event | None:
        for name in names:
            slot = self._slots.get(name)
            if name in self._starting:
                return self._starting[name]
            if slot is not None and slot.stopping:
                return slot.gone
        return None

    async def launch(self, order: Told, number: int, inherit: Sequence[int]) -> Slot:
        """Start one actor's process and the watch over it; does not wait until it is ready."""
        body = {key: order[key] for key in _ORDER_KEYS}
        name = order["name"][:NAME_LENGTH]
        try:
            actor = await self._simulation.start(name, body, inherit)
        except Died as error:
            process = error.process
            message = f"{process.name} (pid {process.pid}) {error} while starting"
            raise StartError(message) from None
        except OSError as error:
            raise StartError(f"{name} did not start: {error}") from error
        slot = self._slots[order["slot"]] = Slot(order["slot"], actor, number)
        self._ended.pop(order["slot"], None)
        self._nursery.start_soon(self._watch, slot)
        return slot

    async def _watch(self, slot: Slot) -> None:
        """See one actor to its end, and tell of it."""
        actor = slot.actor
        await first_of(actor.finished, actor.process.exited)
        if actor.outcome is not None:
            with trio.move_on_after(CANCEL_SECONDS):
                await actor.process.exited.wait()
        if not slot.stopping and not actor.process.exited.is_set():
            await slot.end(0)  # the entry returned, or raised, unasked, and the process stays
        await actor.settled.wait()
        self._retire(slot)

    def _retire(self, slot: Slot) -> None:
        """Free the slot of one that is over, and tell of its end, once."""
        if self._slots.get(slot.slot) is slot and slot.actor.settled.is_set():
            del self._slots[slot.slot]
            slot.gone.set()
            if slot.announced:
                self._ended[slot.slot] = slot
                self._on_exit({**slot.fate(), "expected": slot.stopping, "returned": slot.returned})

    async def stop(
        self, slots: Sequence[str] | None, grace: float | None = None, payload: bytes = b""
    ) -> list[Told]:
        """End actors in parallel, each by its own ladder, and answer when they are gone.

        Args:
            slots: Which; None for all. Some may have ended before: their receipts tell how. One
                whose process is only to come, or whose start was cancelled, is waited for.
            grace: Seconds an entry has to return, 1.0 by default.
            payload: Goes to each entry with the request.

        Raises:
            CreamasError: There never was an actor in one of ``slots``.
        """
        for name in slots or ():
            if name in self._starting and name not in self._slots:
                await self._starting[name].wait()
        known = {**self._ended, **self._slots}
        names = sorted(known, key=lambda n: known[n].number) if slots is None else list(slots)
        for name in names:
            if name not in known:
                raise CreamasError(f"no actor in slot {name}")
        chosen = [known[name] for name in names]
        receipts = await self._end(chosen, payload, GRACE_SECONDS if grace is None else grace)
        for slot in chosen:
            if self._ended.get(slot.slot) is slot:
                del self._ended[slot.slot]
        return receipts

    async def close(self, grace: float = GRACE_SECONDS) -> list[Told]:
        """Stop all, those of starts under way too, and take no more."""
        self._closing = True
        return await self.stop(None, grace)

    async def kill(self) -> list[Told]:
        """End all at once, unasked, and take no more."""
        self._closing = True
        chosen = sorted(self._slots.values(), key=lambda slot: slot.number)
        for slot in chosen:
            slot.kill()
        return await self._end(chosen, b"", 0)

    async def _end(self, slots: Iterable[Slot], payload: bytes, grace: float) -> list[Told]:
        chosen = list(slots)
        began = time.monotonic()
        seconds: dict[Slot, float] = {}

        async def end(slot: Slot) -> None:
            slot.stopping = True
            # One that is not ready would not hear a request.
            await slot.end(grace if slot.actor.ready.is_set() else 0.0, payload)
            seconds[slot] = time.monotonic() - began
            self._retire(slot)

        async with open_unwrapping_nursery() as nursery:
            for slot in chosen:
                nursery.start_soon(end, slot)
        return [slot.receipt(seconds[slot]) for slot in chosen]


class _Start:
    """One call of `Service.start` under way."""

    def __init__(self, service: Service, orders: Sequence[Told], inherit: Sequence[int]) -> None:
        self.slots: dict[str, Slot] = {}
        self.failure: str | None = None
        self.all_ready = trio.Event()
        self._service = service
        self._orders = orders
        self._inherit = inherit
        self._pending = len(orders)
        self._launches = trio.CapacityLimiter(LAUNCHES)

    async def run(self) -> None:
        """Start all; returns when all are ready, or one is not to be."""
        if not self._orders:
            self.all_ready.set()
        async with open_unwrapping_nursery() as nursery:
            for order in self._orders:
                number = next(self._service.numbers)
                nursery.start_soon(self._one, order, number, nursery.cancel_scope)

    async def _one(self, order: Told, number: int, scope: trio.CancelScope) -> None:
        try:
            async with self._launches:
                slot = await self._service.launch(order, number, self._inherit)
            self.slots[order["slot"]] = slot
        except StartError as error:
            self._fail(str(error), scope)
            return
        actor = slot.actor
        await first_of(actor.ready, actor.finished)
        if actor.ready.is_set() and not actor.finished.is_set():
            self._pending -= 1
            if self._pending == 0:
                self.all_ready.set()
            # One that ends while others still start fails them too.
            await first_of(self.all_ready, actor.finished)
        if actor.finished.is_set():
            self._fail(slot.failure(), scope)

    def _fail(self, failure: str, scope: trio.CancelScope) -> None:
        self.failure = self.failure or failure
        scope.cancel()

    def verdict(self, seconds: float) -> str | None:
        """Why it failed, after ``run`` ended or ``seconds`` did; None where all are up."""
        if self.failure is None and not self.all_ready.is_set():
            return f"not ready within {seconds:g} s: {self._unready()}"
        ended = [slot for slot in self.slots.values() if slot.actor.finished.is_set()]
        return self.failure or (ended[0].failure() if ended else None)

    def _unready(self) -> str:
        """Names of those that time ran out for."""
        names = []
        for order in self._orders:
            slot = self.slots.get(order["slot"])
            if slot is None or not slot.actor.ready.is_set():
                names.append(order["name"][:NAME_LENGTH] if slot is None else slot.describe())
        return enumerate_first(names)

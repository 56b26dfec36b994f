"""Carries out what the restart policy says: the machine's actions, its time, and who waits."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import trio
from anyio.abc import TaskStatus

from creamas_sc.errors import ConnectionLost, CreamasError, SlaveLost
from creamas_sc.reports import Restart
from creamas_sc.restarts.journal import Restored
from creamas_sc.restarts.machine import (
    Closing,
    EndSimulation,
    Event,
    Restarts,
    SlaveExited,
    SlaveStarted,
    StartFailed,
    StartSlave,
    StopSlave,
    TimePassed,
)
from creamas_sc.restarts.policy import RestartPolicy

__all__ = ["Restarter"]

log = logging.getLogger(__name__)

# One restart, its start and all that is restored.
RESTART_SECONDS = 30.0
# How long a call waits for the slave it is for, restarts after failed ones and pauses included.
PATIENCE_SECONDS = 30.0
# A connection that ends while a slave is restored is news of its death, which follows within this.
NEWS_SECONDS = 0.5


class Slave(Protocol):
    """What is restarted: `creamas_sc.mp.slave_pool.Slave`."""

    slot: str
    pid: int
    incarnation: int
    gone: trio.Event
    exit: Any

    @property
    def address(self) -> str:
        """Address of its manager."""

    @property
    def in_order(self) -> bool:
        """Whether it ended by itself, without failing."""

    def end(self) -> str:
        """How it ended, in words."""

    def lost(self) -> SlaveLost:
        """The error of whoever needs it now that it is gone."""


class Restarter:
    """Restarts the slaves of one multi-environment, or ends it.

    Args:
        start_again: Starts a slave that is gone anew in its place, and has it watched.
        stop_again: Ends one that came up in vain, or whose start was given up.
        restore: Gives a slave what it had.
        on_restart: Told of each restart when it is done.
        on_end: Told, with the error that calls meet from then on, that the simulation is to end.
    """

    def __init__(
        self,
        policy: RestartPolicy,
        *,
        start_again: Callable[[Any], Awaitable[object]],
        stop_again: Callable[[Any], Awaitable[object]],
        restore: Callable[[Any], Awaitable[Restored]],
        on_restart: Callable[[Restart], object],
        on_end: Callable[[SlaveLost], object],
    ) -> None:
        self._machine = Restarts(policy)
        self._start_again = start_again
        self._stop_again = stop_again
        self._restore = restore
        self._on_restart = on_restart
        self._on_end = on_end
        self._slaves: dict[str, Slave] = {}
        # Slaves that are to come up again, from the loss until all is restored.
        self._coming: dict[str, trio.Event] = {}
        self._lost_at: dict[str, float] = {}
        self._due: float | None = None
        self._nursery: trio.Nursery
        self._over = trio.Event()

    async def run(self, *, task_status: TaskStatus[Any] = trio.TASK_STATUS_IGNORED) -> None:
        """Be there until `aclose`; the restarts are tasks of this one."""
        try:
            async with trio.open_nursery() as self._nursery:
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._machine.receive(Closing(), trio.current_time())
            self._release_all()
            self._over.set()

    def stop(self) -> None:
        """Restart nothing from here on, and cancel what is under way."""
        self._machine.receive(Closing(), trio.current_time())
        self._nursery.cancel_scope.cancel()

    async def aclose(self) -> None:
        """Wait for the end as well: what came up in vain is gone then."""
        self.stop()
        with trio.CancelScope(shield=True):
            await self._over.wait()

    # ---- what happens to slaves

    def watch(self, slave: Slave) -> None:
        """A slave has come up, for the first time or again."""
        self._slaves[slave.slot] = slave
        self._tell(SlaveStarted(slave.slot))

    def lose(self, slave: Slave) -> None:
        """A slave has ended unasked."""
        self._lost_at[slave.slot] = trio.current_time()
        self._tell(SlaveExited(slave.slot, slave.in_order, slave.end()))
        if not self._machine.expects(slave.slot):
            self._release(slave.slot)

    def expects(self, slot: str) -> bool:
        """Whether a slave that is gone is to come back."""
        return slot in self._coming

    async def wait(self, slave: Slave) -> None:
        """Wait until a slave is back, where it is to come back.

        Raises:
            SlaveLost: It was not within a bound.
        """
        coming = self._coming.get(slave.slot)
        if coming is None:
            return
        with trio.move_on_after(PATIENCE_SECONDS):
            await coming.wait()
            return
        raise slave.lost()

    # ---- the machine

    def _tell(self, event: Event) -> None:
        for action in self._machine.receive(event, trio.current_time()):
            match action:
                case StartSlave(slot, number):
                    self._nursery.start_soon(self._restart, self._slaves[slot], number)
                case StopSlave(slot):
                    self._nursery.start_soon(self._stop_again, self._slaves[slot])
                case EndSimulation(slot, cause):
                    self._end(self._slaves[slot], cause)
        for slot in self._slaves:
            if self._machine.expects(slot):
                self._coming.setdefault(slot, trio.Event())
        due = self._machine.due_at()
        if due is not None and due != self._due:
            self._nursery.start_soon(self._wake, due)
        self._due = due

    async def _wake(self, due: float) -> None:
        await trio.sleep_until(due)
        self._tell(TimePassed())

    def _end(self, slave: Slave, cause: str) -> None:
        error = slave.lost()
        self._on_end(
            SlaveLost(
                cause,
                address=error.address,
                pid=error.pid,
                exit_code=error.exit_code,
                signal=error.signal,
            )
        )
        self._release_all()

    def _release_all(self) -> None:
        for slot in list(self._coming):
            self._release(slot)

    def _release(self, slot: str) -> None:
        coming = self._coming.pop(slot, None)
        if coming is not None:
            coming.set()

    # ---- one restart

    async def _restart(self, slave: Slave, number: int) -> None:
        old_pid, cause, old = slave.pid, slave.end(), slave.lost()
        gone: trio.Event | None = None  # of the process that is started here
        try:
            with trio.fail_after(RESTART_SECONDS):
                await self._start_again(slave)
                gone = slave.gone
                restored = await self._restore(slave)
        except (CreamasError, trio.TooSlowError) as error:
            await self._give_up(slave, cause, error, gone)
            return
        if gone.is_set() or self._machine.ended:  # its loss was told, and what follows from it
            return
        restart = Restart(
            address=slave.address,
            old_pid=old_pid,
            pid=slave.pid,
            cause=cause,
            exit_code=old.exit_code,
            signal=old.signal,
            number=number,
            incarnation=slave.incarnation,
            seconds=trio.current_time() - self._lost_at[slave.slot],
            **vars(restored),
        )
        log.warning("%s", restart)
        self._on_restart(restart)
        self._release(slave.slot)

    async def _give_up(
        self, slave: Slave, cause: str, error: Exception, gone: trio.Event | None
    ) -> None:
        """A restart came to nothing: where nobody else tells the machine, tell it."""
        slow = isinstance(error, trio.TooSlowError)
        why = f"it was not back within {RESTART_SECONDS:g} s" if slow else str(error)
        if gone is not None:
            with trio.move_on_after(NEWS_SECONDS if isinstance(error, ConnectionLost) else 0):
                await gone.wait()
            if gone.is_set():
                return
            await self._stop_again(slave)
        log.warning("%s, and was not started again: %s", cause, why)
        self._tell(StartFailed(slave.slot, f"{cause}, and was not started again: {why}"))
        if not self._machine.expects(slave.slot):
            self._release(slave.slot)

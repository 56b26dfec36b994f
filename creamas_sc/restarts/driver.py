"""Carries out the restart policy: the machine's actions, and those who wait for slaves.

The driver reports to `RestartMachine` what happens, and runs each restart as a task in its
nursery::

    SlavePool --- watch, note_loss ---> RestartDriver --- slave_up, slave_lost, ... ---> machine
        ^                                 |       ^                                         |
        |   restart_slave, discard_...    |       +--------------- actions -----------------+
        +---------------------------------+
                                          +--- restart done: event set ---> callers in `wait`

From the loss of a slave that is to come back until all that it held is restored, its slot has an
event in ``coming``. Calls for it wait for that event (`wait`), except those that restore it. The
event is set when the restart is complete, when the machine gives the slave up, and when the
simulation ends: the waiting callers make their calls then, and get results, or the error of the
loss.

One restart is one task (`_restart`), which begins with the policy's pause. It ends in one of four
ways: the slave is back; the new process died, which is reported as a loss and handled there; the
start failed or took too long, which `_restart` reports to the machine itself; or the simulation
ended first. So each attempt reaches the machine exactly once.
`aclose` cancels the tasks and waits for them; a process that is just being started is stopped by
the pool before the task ends, so nothing is left.
"""

from __future__ import annotations

import logging
from typing import Protocol

import trio
from anyio.abc import TaskStatus

from creamas_sc.errors import ConnectionLost, CreamasError, SlaveLost
from creamas_sc.foreign import printable
from creamas_sc.reports import Restart
from creamas_sc.restarts.machine import Action, EndSimulation, RestartMachine, StartSlave
from creamas_sc.restarts.policy import RestartPolicy
from creamas_sc.restarts.slave import Slave

log = logging.getLogger(__name__)

# One restart: the start, and the restoring of all that the slave held.
RESTART_SECONDS = 30.0
# A call's wait for its slave, including further restarts after failed ones and their pauses.
RETURN_SECONDS = 30.0


class SlaveOwner(Protocol):
    """What the driver needs of the owner of the slaves, a `creamas_sc.mp.slave_pool.SlavePool`."""

    async def restart_slave(self, slave: Slave) -> tuple[str, ...]:
        """Start a process for a slave that is gone, at the same address; all or nothing.

        Returns:
            The files that were changed; it has loaded the versions with which the simulation began.
        """

    async def discard_restart(self, slave: Slave) -> None:
        """Stop the process of a restart that is not wanted, or did not succeed."""

    def note_restart(self, restart: Restart) -> None:
        """A slave is back, with all that could be restored."""

    def end_simulation(self, cause: SlaveLost) -> None:
        """The policy ends the simulation; ``cause`` is the error of calls from now on."""


class RestartDriver:
    """Restarts the slaves of one multi-environment, or ends it.

    Attributes:
        running: Whether restarts are possible: from `run` to its end.
        coming: Events of the slots whose slaves are to come back, from the loss until all is
            restored.
    """

    def __init__(self, policy: RestartPolicy, owner: SlaveOwner) -> None:
        self._machine = RestartMachine(policy)
        self._owner = owner
        self.running = False
        self.coming: dict[str, trio.Event] = {}
        self._lost_at: dict[str, float] = {}
        self._nursery: trio.Nursery
        self._scope = trio.CancelScope()
        self._ended = trio.Event()

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Restart slaves until `aclose`."""
        self.running = True
        try:
            with self._scope:
                async with trio.open_nursery() as self._nursery:
                    task_status.started()
                    await trio.sleep_forever()
        finally:
            self.running = False
            self._machine.end()
            self._release(*self.coming)
            self._ended.set()

    def stop(self) -> None:
        """Restart nothing from now on, and cancel what is under way."""
        self._machine.end()
        self._scope.cancel()

    async def aclose(self) -> None:
        """Stop, and wait until the processes of unfinished restarts are gone."""
        self.stop()
        if self.running:
            with trio.CancelScope(shield=True):
                await self._ended.wait()

    # ---- what happens to slaves

    def watch(self, slave: Slave) -> None:
        """Note that a slave has come up, for the first time or again."""
        if not self._machine.slave_up(slave.slot):
            self._nursery.start_soon(self._owner.discard_restart, slave)
        if slave.gone.is_set():
            self.note_loss(slave)

    def note_loss(self, slave: Slave) -> None:
        """Note that a slave has ended without being asked to."""
        now = self._lost_at[slave.slot] = trio.current_time()
        why, normally = slave.describe_end(), slave.exited_normally
        self._follow(slave, self._machine.slave_lost(slave.slot, why, now, normally))

    async def wait(self, slave: Slave) -> None:
        """Wait until a slave is back, if it is to come back.

        Raises:
            SlaveLost: It did not come back in time.
        """
        coming = self.coming.get(slave.slot)
        if coming is None:
            return
        with trio.move_on_after(RETURN_SECONDS):
            await coming.wait()
            return
        raise slave.loss()

    def _follow(self, slave: Slave, action: Action) -> None:
        """Do what the machine says about the loss of a slave."""
        match action:
            case StartSlave(at, number):
                self.coming.setdefault(slave.slot, trio.Event())
                self._nursery.start_soon(self._restart, slave, at, number)
            case EndSimulation(cause):
                self._owner.end_simulation(slave.loss(cause))
        if self._machine.ended:
            self._release(*self.coming)
        elif not self._machine.expects(slave.slot):
            self._release(slave.slot)
        if slave.slot not in self.coming:
            slave.free_port()

    def _release(self, *slots: str) -> None:
        """Let the calls go on that wait for these slaves."""
        for slot in slots:
            coming = self.coming.pop(slot, None)
            if coming is not None:
                coming.set()

    # ---- one restart

    async def _restart(self, slave: Slave, at: float, number: int) -> None:
        await trio.sleep_until(at)
        if self._machine.ended:
            return  # not wanted any more
        old_pid, cause, old_exit = slave.pid, slave.describe_end(), slave.exit
        slave.reported = True
        gone: trio.Event | None = None  # of the new process
        try:
            with trio.fail_after(RESTART_SECONDS):
                changed_files = await self._owner.restart_slave(slave)
                gone = slave.gone
                self.watch(slave)
                assert slave.journal is not None
                restored = await slave.journal.restore()
        except (CreamasError, trio.TooSlowError) as error:
            if gone is not None:
                if isinstance(error, ConnectionLost):
                    await slave.wait_for_exit_report()
                if gone.is_set():
                    return  # reported as a loss
                await self._owner.discard_restart(slave)
            slow = isinstance(error, trio.TooSlowError)
            why = f"it was not back within {RESTART_SECONDS:g} s" if slow else str(error)
            text = f"{cause}, and was not started again: {why}"
            log.warning("%s", printable(text))
            # Once it was up, its end may have been reported meanwhile, and counts once.
            lost = self._machine.start_failed if gone is None else self._machine.slave_lost
            self._follow(slave, lost(slave.slot, text, trio.current_time()))
            return
        if gone.is_set() or self._machine.ended:
            return  # reported as a loss, or not wanted any more
        restart = Restart(
            address=slave.address,
            old_pid=old_pid,
            pid=slave.pid,
            cause=cause,
            exit_code=old_exit["exit_code"],
            signal=old_exit["signal"],
            number=number,
            incarnation=slave.incarnation,
            seconds=trio.current_time() - self._lost_at[slave.slot],
            changed_files=changed_files,
            **vars(restored),
        )
        log.warning("%s", printable(str(restart)))
        self._owner.note_restart(restart)
        self._release(slave.slot)

"""The slaves of one multi-environment: started, lost, restarted and stopped through a supervisor.

The pool owns three things: the connection to the supervisor, which owns the processes; a `Slave`
for each of them, with the journal of what it was given; and the driver that carries the restart
policy out.

::

    MultiEnvironment -- start, stop, end_as_lost --> SlavePool -- start, stop --> supervisor
          ^                                            |   ^                          |
          | Observer                 watch, note_loss  |   |                          |
          +--------------------------------------------+   +----- exit reports -------+
                                                       v
                                                 RestartDriver

A slave's process ends in one of two ways. The pool asks for it: then the supervisor's answer says
how it went. Or the supervisor reports it: then `_note_exit` sets the slave's ``gone``, and informs
the observer and the driver. The report may overtake the answer to the start of that very process;
such reports are kept by slot and process id until the answer is there.

A caller learns of a death earlier, through its lost connection. `explain_loss` is the one place
that makes an error of that: it waits a moment for the exit report, so that the error can say how
the process ended. Once a caller has got the error, ``reported`` is set, and further steps go on
without that slave, unless it comes back.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from copy import copy
from typing import Any

import trio
from anyio.abc import TaskStatus

from creamas_sc.errors import (
    ConnectionLost,
    CreamasError,
    HandshakeError,
    SlaveLost,
    StartError,
)
from creamas_sc.foreign import printable
from creamas_sc.mp.machines import Machines
from creamas_sc.mp.observer import Observer
from creamas_sc.mp.placing import addresses, check_places_to_run
from creamas_sc.mp.preloading import load_classes
from creamas_sc.mp.slave_orders import SlaveOrders
from creamas_sc.mp.stop_reports import stop_report
from creamas_sc.reports import Restart, StopReport
from creamas_sc.restarts.driver import RestartDriver
from creamas_sc.restarts.journal import SlaveJournal
from creamas_sc.restarts.policy import RestartPolicy
from creamas_sc.restarts.slave import Slave
from creamas_sc.rpc.auth import Membership
from creamas_sc.rpc.network import Network
from creamas_sc.runtime.coroutines import at_once
from creamas_sc.runtime.event_loop import LoopHandle
from creamas_sc.runtime.validation import check_kind
from creamas_sc.supervisor_client.connection import Supervisor, supervisor_factory
from creamas_sc.supervisor_client.messages import ActorExit, ActorOrder, StopResult
from creamas_sc.supervisor_client.spec import pack, unpack

# Beyond a stop's grace: the supervisor's further stop stages, and its answer.
STOP_SECONDS = 2.0

log = logging.getLogger(__name__)


class SlavePool:
    """The slaves of one multi-environment, and the supervisor that owns their processes.

    Args:
        member: Their membership in the simulation; without one they are the user's environments
            like any other.
        seed: Makes their random generators repeatable; None for fresh entropy.
        network: The master environment's; None if the slaves are not called from here.
        policy: What the loss of a slave leads to.
        logger: The user's; has ``log(level, message)``.
        seed_drawn: Whether ``seed`` was drawn, not given.

    Attributes:
        agent_classes: Names of classes that slaves load at their start, beside those of the
            script.
        ordering: Makes the orders, and says which code they load.
        machines: Says where they run.
        supervisor: Runs from the first start until `aclose`.
        restarts: Every restart so far.
        note_event: Takes what is to be recorded of them, by name.
        driver: Carries the policy out; runs from a start of slaves to their stop.
        end_cause: Why the restart policy ended the simulation: of this error, all further calls
            raise copies.
        have_host_manager: Whether a slave has got the address of one.
    """

    agent_classes: Sequence[str] = ()
    note_event: Callable[[str, Mapping[str, Any]], None] | None = None
    end_cause: SlaveLost | None = None
    have_host_manager = False
    _closing = False

    def __init__(
        self,
        member: Membership | None = None,
        seed: int | None = None,
        network: Network | None = None,
        policy: RestartPolicy | None = None,
        logger: Any = None,
        seed_drawn: bool = False,
    ) -> None:
        self.supervisor: Supervisor | None = None
        self.policy = policy or RestartPolicy()
        self.observer = Observer()
        self.driver = RestartDriver(self.policy, self)
        self.restarts: list[Restart] = []
        self._make_supervisor = supervisor_factory.get()
        self.ordering = SlaveOrders(member, seed, seed_drawn)
        self.machines = Machines(network, self.ordering)
        self._network = network
        self._logger = logger
        self._slaves: list[Slave] = []
        self._by_url: dict[str, Slave] = {}
        self._early_exits: dict[tuple[str, int], ActorExit] = {}
        # One start or stop at a time; a close ends a start under way.
        self._lock = trio.Lock()
        self._starting = trio.CancelScope()

    def observe(self, observer: Observer, policy: RestartPolicy | None = None) -> None:
        """Inform ``observer`` from now on; a ``policy`` counts from the next start of slaves on."""
        self.observer = observer
        self.policy = policy or self.policy

    @property
    def addrs(self) -> list[str]:
        """Addresses of the managers."""
        return [slave.address for slave in self.members]

    @property
    def members(self) -> list[Slave]:
        """All slaves but those whose loss was reported and that do not come back."""
        coming = self.driver.coming
        return [s for s in self._slaves if not s.reported or s.slot in coming]

    def lost(self, slaves: Sequence[Slave]) -> list[Slave]:
        """Those of ``slaves`` whose loss was reported, and that do not come back."""
        return [s for s in slaves if s in self._slaves and s not in self.members]

    def why_none(self) -> str:
        """Say why there are no members."""
        if self._slaves:
            return f"all slaves are lost; {self._slaves[-1].describe_end()}"
        return (
            "there are no slaves; was spawn_slaves() awaited, or the simulation created with any?"
        )

    def at(self, address: str) -> Slave:
        """The slave whose manager is at ``address``.

        Raises:
            ValueError: There is none.
        """
        check_kind("addr", address, str)
        slave = self._find(address)
        if slave is None or slave.address != address:
            raise ValueError(f"{address!r} is not a slave's manager; these are: {self.addrs}")
        return slave

    def _find(self, address: str) -> Slave | None:
        """The slave in which the agent at ``address`` is."""
        return self._by_url.get(address.rpartition("/")[0] + "/")

    # ---- starting

    def orders(
        self,
        addrs: Sequence[tuple[str, int]] | int,
        env_cls: type | str,
        mgr_cls: type | str,
        kwargs: Sequence[Mapping[str, Any]] | None,
        args: tuple[Any, ...] = (),
        place: str | Sequence[str] | None = None,
    ) -> list[ActorOrder]:
        """What to order from the supervisor for slaves at ``addrs``; errors as `spawn_slaves`."""
        addrs = addresses(addrs, self._network)
        running = sum(not slave.gone.is_set() and not slave.node for slave in self._slaves)
        restarts = self.policy.restarts_slaves
        places = check_places_to_run(place, len(addrs), self.machines.default)
        return self.ordering.make(running, addrs, env_cls, mgr_cls, kwargs, args, restarts, places)

    async def start(self, loop: LoopHandle, orders: Sequence[ActorOrder]) -> list[Slave]:
        """Start slaves, all or none, and the supervisor with the first ones.

        Args:
            loop: Runs the supervisor's connection and the restarts.

        Raises:
            StartError: A slave did not come up, or the pool was closed; nothing of the call is
                left.
        """
        async with self._lock:
            if not self._closing:
                with trio.CancelScope() as self._starting:
                    return await self._start(loop, orders)
        raise StartError("the multi-environment was closed while slaves were starting")

    async def _start(self, loop: LoopHandle, orders: Sequence[ActorOrder]) -> list[Slave]:
        first = self.supervisor is None
        started: list[Slave] = []
        try:
            if first:
                await loop.nursery.start(self._supervise)
            if first or not self.driver.running:
                self.driver = RestartDriver(self.policy, self)
                await loop.nursery.start(self.driver.run)
            assert self.supervisor is not None
            placed = self.machines.place(self.supervisor, orders, self._slaves)
            for order, answer in await self.machines.start(self.supervisor, await placed):
                url, _ = unpack(answer["info"])
                slave = Slave(answer["slot"], url, answer["pid"], order)
                if self._network is not None and self.policy.restarts_slaves:
                    slave.journal = SlaveJournal(self._network, slave.address)
                started.append(slave)
                self._slaves.append(slave)
                self._by_url[slave.base_url] = slave
                self._take_early_exit(slave)
            if self.policy.restarts_slaves:
                await at_once(Slave.hold_port, started)
            await at_once(self._connect, started)
            if self._network is not None:
                await self.machines.bring(self.agent_classes, self._slaves)
                await load_classes(self._network, started, self.agent_classes)
                await self.machines.check_code(self._slaves)
        except BaseException:
            with trio.CancelScope(shield=True):
                await self._stop_processes([order["slot"] for order in orders])
                if first:
                    await self.driver.aclose()
                    await self.aclose()
            self._forget(started)
            raise
        for slave in started:
            self.driver.watch(slave)
        return started

    async def _supervise(self, *, task_status: TaskStatus[Any] = trio.TASK_STATUS_IGNORED) -> None:
        """Start the supervisor and keep it until `aclose`."""
        self.supervisor = self._make_supervisor(self._note_exit)
        try:
            await self.supervisor.run(task_status=task_status)
        finally:
            for slave in self._slaves:
                slave.gone.set()
            self.supervisor = None
            self.driver.stop()

    async def _connect(self, slave: Slave) -> None:
        if self._network is None:
            return
        try:
            await self._network.connect(slave.address, 0)
        except (ConnectionLost, HandshakeError) as error:
            ended = await slave.wait_for_exit_report()
            why = slave.describe_end() if ended else f"{slave.base_url}: {error}"
            raise StartError(why) from error

    # ---- losing

    def _note_exit(self, exit_: ActorExit) -> None:
        """The supervisor reports that a process has ended."""
        for slave in self._slaves:
            if (slave.slot, slave.pid) == (exit_["slot"], exit_["pid"]):
                slave.exit = exit_
                slave.gone.set()
                self.machines.note_loss(slave, self._slaves)
                if slave.ended_as or not exit_["expected"]:
                    log.warning("%s", printable(slave.describe_end()))
                    self._note_event("slave_lost", slave.loss_details())
                    self.observer.slave_lost(slave)
                    self.driver.note_loss(slave)
                return
        if not exit_["expected"]:
            self._early_exits[exit_["slot"], exit_["pid"]] = exit_

    def _take_early_exit(self, slave: Slave) -> None:
        """Note a report that overtook the answer to the start; the driver will see ``gone``."""
        exit_ = self._early_exits.pop((slave.slot, slave.pid), None)
        if exit_ is not None:
            self._note_exit(exit_)

    async def explain_loss(self, address: str, error: ConnectionLost) -> Exception:
        """Make the error of a call whose connection was lost.

        It is a `SlaveLost` that says how the process ended if the connection was to a slave, and
        the policy's cause once the policy has ended the simulation.
        """
        slave = gone = self._find(address)
        if slave is not None and not await slave.wait_for_exit_report():
            if not await self._end_deserted(slave):  # is it back? what it was before
                gone = slave.before
        if self.end_cause is not None:
            return copy(self.end_cause)
        if gone is None:
            return error
        lost = gone.loss()
        lost.may_have_run = error.may_have_run
        return lost

    async def _end_deserted(self, slave: Slave) -> bool:
        """End a slave whose environment is gone although its process is not; whether it is so."""
        if self._closing or self._network is None:
            return False
        if await self._network.endpoint.listens(slave.base_url):
            return False
        with trio.CancelScope(shield=True):
            await self.end_as_lost([slave], "its environment had ended and its process had not")
        return await slave.wait_for_exit_report()

    async def end_as_lost(self, slaves: Sequence[Slave], why: str) -> None:
        """End slaves whose processes run, with the consequences of a loss."""
        slaves = [slave for slave in slaves if not slave.ended_as]
        for slave in slaves:
            slave.ended_as, slave.reported = why, True
        await self._stop_processes([slave.slot for slave in slaves])
        for slave in slaves:
            if slave.ended_as:  # else: it is back already
                slave.stoppable = False

    # ---- restarting

    def holds(self, address: str) -> bool:
        """Whether the agent at ``address`` is in one of the slaves, or was in one that is lost."""
        return self._find(address) is not None

    async def wait_for(self, address: str) -> None:
        """Wait until the slave of the agent at ``address`` is back, if it is to come back.

        Raises:
            SlaveLost: It did not come back in time.
        """
        if self.driver.coming:
            slave = self._find(address)
            if slave is not None:
                await self.driver.wait(slave)

    def note_host_manager(self, manager: str, host: str) -> None:
        """Keep the address of a slave's host manager for its restart."""
        self.have_host_manager = True
        slave = self._find(manager)
        if slave is not None and slave.journal is not None:
            slave.journal.note_host_manager(host)

    async def restart_slave(self, slave: Slave) -> tuple[str, ...]:
        """Start a process for a slave that is gone, at the same address.

        Returns:
            The files that were changed; it has loaded the versions with which the simulation began.

        Raises:
            StartError: It did not come up; nothing of it is left.
        """
        slave.stoppable = False
        try:
            if self.supervisor is None:
                raise StartError("the supervisor is gone")
            again = await self.machines.place_again(self.supervisor, slave)
            ((order, answer),) = await self.machines.start(self.supervisor, [again])
        except BaseException:
            await self.discard_restart(slave)
            raise
        if self._network is not None:
            self._network.forget([slave.base_url])
        slave.mark_restarted(answer["pid"], order)
        self.machines.note_start(slave, unpack(answer["info"])[1], self._slaves)
        self._take_early_exit(slave)
        versions = self.ordering.versions
        return () if versions is None else tuple(versions.changed_files())

    async def discard_restart(self, slave: Slave) -> None:
        """Stop the process of a restart that is not wanted, or did not succeed."""
        with trio.CancelScope(shield=True):
            await self._stop_processes([slave.slot])
        slave.stoppable = False

    def note_restart(self, restart: Restart) -> None:
        """A slave is back."""
        self.restarts.append(restart)
        self._log(str(restart))
        self._note_event("slave_restarted", vars(restart))
        self.observer.slave_restarted(restart)

    def end_simulation(self, cause: SlaveLost) -> None:
        """The restart policy ends the simulation."""
        self.observer.end_simulation(cause)

    def refuse_starts(self) -> None:
        """Start and restart nothing from now on, and give up what is being started."""
        self._closing = True
        self._starting.cancel()
        self.driver.stop()

    # ---- stopping

    async def stop(self, grace_seconds: float, folder: str | None) -> StopReport:
        """Stop all slaves and forget them; returns how each ended, and what failed."""
        async with self._lock:
            await self.driver.aclose()
            slaves = list(self._slaves)
            slots = [slave.slot for slave in slaves if slave.stoppable]
            results: dict[str, StopResult] = {}
            if slots and self.supervisor is not None:
                # If the connection is lost, the supervisor is gone, and its slaves with it.
                with suppress(ConnectionLost), trio.move_on_after(grace_seconds + STOP_SECONDS):
                    stopped = await self.supervisor.stop(slots, grace_seconds, pack(folder))
                    results = {result["slot"]: result for result in stopped}
            self._forget(slaves)
        return stop_report(slaves, results, self.ordering.seed, folder is not None, self._log)

    async def aclose(self) -> None:
        """End the supervisor; when this returns, no process of it is left."""
        await self.machines.aclose()
        if self.supervisor is not None:
            await self.supervisor.aclose()

    async def _stop_processes(self, slots: Sequence[str]) -> None:
        """Stop the processes of these slots that run, without grace."""
        for slot in slots:
            try:
                if self.supervisor is not None:
                    with trio.move_on_after(STOP_SECONDS):
                        await self.supervisor.stop([slot], 0.0, pack(None))
            except CreamasError as error:  # it is gone already, or the supervisor is
                log.debug("slot %s: %s", slot, error)

    def _forget(self, slaves: Sequence[Slave]) -> None:
        for slave in slaves:
            slave.free_port()
            self._slaves.remove(slave)
            if self._by_url.get(slave.base_url) is slave:
                del self._by_url[slave.base_url]
            self.machines.note_loss(slave, self._slaves)
        if self._network is not None:
            self._network.forget([slave.base_url for slave in slaves])

    def _note_event(self, event: str, details: Mapping[str, Any]) -> None:
        if self.note_event is not None:
            self.note_event(event, details)

    def _log(self, warning: str) -> None:
        """Tell the user's logger, if there is one."""
        if self._logger is not None:
            self._logger.log(logging.WARNING, warning)

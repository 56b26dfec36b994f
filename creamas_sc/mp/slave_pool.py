"""A multi-environment's slaves: how they are described, started, lost and stopped."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Any

import trio
from anyio.abc import TaskStatus

from creamas_sc.errors import (
    BadValue,
    ConnectionLost,
    CreamasError,
    HandshakeError,
    SlaveLost,
    StartError,
)
from creamas_sc.processes.messages import (
    ActorExit,
    ActorOrder,
    ExitStatus,
    StartedActor,
    StopResult,
    describe_exit,
)
from creamas_sc.processes.spec import SLAVE_ENTRY, SlaveSpec, actor_order, changed, pack, unpack
from creamas_sc.processes.supervisor_client import Supervisor, supervisor_factory
from creamas_sc.reports import SlaveReceipt
from creamas_sc.restarts.driver import Restarter
from creamas_sc.rpc.auth import Membership
from creamas_sc.rpc.endpoint import base_url, split_address
from creamas_sc.runtime.class_loading import portable_name
from creamas_sc.runtime.coroutines import at_once
from creamas_sc.runtime.event_loop import LoopHandle
from creamas_sc.runtime.validation import check_mappings, check_places, check_text

__all__ = ["Slave", "Slaves"]

# Of one simulation; as in `supervisor.timeouts`.
MAX_SLAVES = 512
# A lost connection tells of a death before its cause is known; the cause is awaited this long.
CAUSE_SECONDS = 0.5
# Beyond a stop's grace: the rest of the supervisor's ladder, and its answer.
LADDER_SECONDS = 2.0

_UNKNOWN_EXIT: ExitStatus = {"exit_code": None, "signal": None, "error": None}

log = logging.getLogger(__name__)


@dataclass(eq=False)  # one is itself, whatever becomes of it
class Slave:
    """One slave, running, gone, or running again.

    Attributes:
        slot: What the supervisor calls it.
        base_url: Of its environment.
        agents: How many agents were spawned into it.
        gone: Set when its process has ended; ``exit`` then tells how, None where unknown.
        reported: Its loss was raised to a caller; from then on the others go on without it.
        silent: It is being ended because it did not answer in a step's time.
        incarnation: How often it was started again; ``before`` is what it was before that.
        known: Whether the supervisor can tell of it: not once its end was answered, nor while it is
            being started again.
    """

    slot: str
    base_url: str
    pid: int
    agents: int = 0
    gone: trio.Event = field(default_factory=trio.Event)
    exit: ExitStatus | None = None
    reported: bool = False
    silent: bool = False
    incarnation: int = 0
    before: Slave | None = None
    known: bool = True

    def revive(self, pid: int) -> None:
        """It runs again, in that process."""
        self.before = copy(self)
        self.before.before = None
        self.pid, self.incarnation = pid, self.incarnation + 1
        self.gone, self.exit = trio.Event(), None
        self.reported, self.silent, self.known = False, False, True

    @property
    def in_order(self) -> bool:
        """Whether it has ended by itself, without failing."""
        told = self.exit or _UNKNOWN_EXIT
        return told["exit_code"] == 0 and not told["error"] and not self.silent

    @property
    def address(self) -> str:
        """Address of its manager."""
        return f"{self.base_url}0"

    def end(self) -> str:
        """How it ended, in words."""
        told = self.exit or _UNKNOWN_EXIT
        how = describe_exit(told["exit_code"], told["signal"])
        why = f": {told['error']}" if told["error"] else ""
        if self.silent:
            why = ", as it did not answer when a step's time was up"
        return f"the slave {self.base_url} (pid {self.pid}) {how}{why}"

    def lost(self) -> SlaveLost:
        """The error of whoever needs it now that it is gone."""
        self.reported = True
        told = self.exit or _UNKNOWN_EXIT
        return SlaveLost(
            self.end(),
            address=self.address,
            pid=self.pid,
            exit_code=told["exit_code"],
            signal=told["signal"],
        )

    async def sleep(self, seconds: float) -> None:
        """Sleep, but wake with `SlaveLost` if it dies."""
        with trio.move_on_after(seconds):
            await self.gone.wait()
            raise self.lost()


class Slaves:
    """The slaves of one multi-environment, and the supervisor that owns their processes."""

    def __init__(self, member: Membership | None, seed: int | None) -> None:
        self.supervisor: Supervisor | None = None
        self._make_supervisor = supervisor_factory.get()
        # Told of each slave that ends unasked.
        self.on_loss: Callable[[Slave], object] | None = None
        # Told the base URLs of those that are over and done with.
        self.on_forget: Callable[[list[str]], object] = list
        # Without a simulation of their own they are the user's environments like any other.
        self._member = None if member is None else (member.simulation, member.key, "slave")
        self._seed = seed
        self._slaves: list[Slave] = []
        self._by_url: dict[str, Slave] = {}
        self._by_slot: dict[str, Slave] = {}
        self._early_exits: dict[int, ActorExit] = {}
        self._started = 0
        # Made with the first slaves, where the policy asks for one.
        self.make_restarter: Callable[[], Restarter | None] = lambda: None
        self.restarter: Restarter | None = None
        self._orders: dict[str, ActorOrder] = {}

    @property
    def addrs(self) -> list[str]:
        """Addresses of the managers."""
        return [slave.address for slave in self.members]

    @property
    def members(self) -> list[Slave]:
        """All slaves but those whose loss was reported and that do not come back."""
        return [slave for slave in self._slaves if not slave.reported or self.expects(slave)]

    def expects(self, slave: Slave) -> bool:
        """Whether one that is gone is to come back."""
        return self.restarter is not None and self.restarter.expects(slave.slot)

    def at(self, address: str) -> Slave:
        """The slave whose manager is at ``address``.

        Raises:
            ValueError: There is none.
        """
        check_text("addr", address)
        slave = self._by_url.get(address.rpartition("/")[0] + "/")
        if slave is None or slave.address != address:
            raise ValueError(f"{address!r} is no slave's manager; there are {self.addrs}")
        return slave

    # ---- starting

    def orders(
        self,
        addrs: Sequence[tuple[str, int]],
        env_cls: type | str,
        mgr_cls: type | str,
        kwargs: Sequence[Mapping[str, Any]] | None,
        args: tuple[Any, ...] = (),
    ) -> list[ActorOrder]:
        """What to ask of the supervisor for slaves at ``addrs``; see `spawn_slaves` for errors."""
        addrs = check_places(addrs)
        kwargs = None if kwargs is None else check_mappings(kwargs)
        if kwargs is not None and len(kwargs) != len(addrs):
            raise ValueError(
                f"slave_kwargs has {len(kwargs)} items for {len(addrs)} slave_addrs: give one each"
            )
        if sum(not slave.gone.is_set() for slave in self._slaves) + len(addrs) > MAX_SLAVES:
            raise BadValue(f"cannot start {len(addrs)} slaves: a simulation can have {MAX_SLAVES}")
        orders = []
        for i, addr in enumerate(addrs):
            index = self._started + i
            spec = SlaveSpec(
                addr=addr,
                env_cls=portable_name(env_cls),
                mgr_cls=portable_name(mgr_cls),
                args=args,
                kwargs={} if kwargs is None else kwargs[i],
                member=self._member,
                set_seed=True if self._seed is None else self._seed,
                index=index,
            )
            name = f"slave-{index} {base_url(*addr)}"
            orders.append(actor_order(f"slave-{index}", name, SLAVE_ENTRY, spec.encode()))
        self._started += len(addrs)
        return orders

    async def supervise(self, *, task_status: TaskStatus[Any] = trio.TASK_STATUS_IGNORED) -> None:
        """Start the supervisor and keep it until `aclose`; a task of the home loop."""
        self.supervisor = self._make_supervisor(self._note_exit)
        try:
            await self.supervisor.run(task_status=task_status)
        finally:
            for slave in self._slaves:
                slave.gone.set()
            self.supervisor = None
            self.stop_restarts()

    async def start(
        self,
        home: LoopHandle,
        orders: Sequence[ActorOrder],
        connect: Callable[[Slave], Awaitable[object]],
    ) -> list[Slave]:
        """Start slaves, all or none, and the supervisor with the first ones.

        Args:
            home: Where the supervisor's task runs.
            connect: Awaited for each slave; what it raises fails the start.

        Raises:
            StartError: One did not come up; nothing of the call is left.
        """
        first = self.supervisor is None
        if first:
            await home.nursery.start(self.supervise)
        if first or self.restarter is None:
            await self._start_restarter(home)
        slots = [order["slot"] for order in orders]
        try:
            assert self.supervisor is not None
            started = [self._adopt(told) for told in await self.supervisor.start(orders)]
            await self._connect_all(started, connect)
        except BaseException:
            with trio.CancelScope(shield=True):
                await self._undo(slots)
                if first:
                    await self._end_restarts()
                    await self.aclose()
            self._forget(slots)
            raise
        if self.restarter is not None:
            self._watch(started, orders)
        return started

    def _adopt(self, told: StartedActor) -> Slave:
        slave = Slave(told["slot"], unpack(told["info"]), told["pid"])
        self._slaves.append(slave)
        self._by_url[slave.base_url] = slave
        self._by_slot[slave.slot] = slave
        self._note_early_exit(slave)
        return slave

    def _note_early_exit(self, slave: Slave) -> None:
        """Its end may have been told before the start's answer was taken up."""
        told = self._early_exits.pop(slave.pid, None)
        if told is not None:
            self._note_exit(told)

    async def _connect_all(
        self, slaves: Sequence[Slave], connect: Callable[[Slave], Awaitable[object]]
    ) -> None:
        await at_once(lambda slave: self._connect(slave, connect), slaves)

    async def _connect(self, slave: Slave, connect: Callable[[Slave], Awaitable[object]]) -> None:
        try:
            await connect(slave)
        except (ConnectionLost, HandshakeError) as error:
            with trio.move_on_after(CAUSE_SECONDS):
                await slave.gone.wait()
            why = slave.end() if slave.gone.is_set() else f"{slave.base_url}: {error}"
            raise StartError(why) from error

    # ---- starting again

    async def _start_restarter(self, home: LoopHandle) -> None:
        restarter = self.make_restarter()
        if restarter is not None:
            await home.nursery.start(restarter.run)
        self.restarter = restarter

    async def _end_restarts(self) -> None:
        if self.restarter is not None:
            await self.restarter.aclose()
            self.restarter = None

    def _watch(self, started: Sequence[Slave], orders: Sequence[ActorOrder]) -> None:
        assert self.restarter is not None
        for slave, order in zip(started, orders, strict=True):
            self._orders[slave.slot] = order
            self.restarter.watch(slave)
            if slave.gone.is_set():
                self.restarter.lose(slave)

    async def start_again(self, slave: Slave) -> None:
        """Start one that is gone anew, at the same address.

        Raises:
            StartError: It did not come up; nothing of it is left.
        """
        host, port, _ = split_address(slave.address)
        order = self._orders[slave.slot]
        spec = changed(order["spec"], addr=(host, port), incarnation=slave.incarnation + 1)
        slave.known = False
        try:
            if self.supervisor is None:
                raise StartError("the supervisor is gone")
            (told,) = await self.supervisor.start([{**order, "spec": spec}])
        except BaseException:
            with trio.CancelScope(shield=True):
                await self._undo([slave.slot])
            raise
        self.on_forget([slave.base_url])
        slave.revive(told["pid"])
        if self.restarter is not None:
            self.restarter.watch(slave)
        self._note_early_exit(slave)

    async def stop_again(self, slave: Slave) -> None:
        """End one whose restart came to nothing."""
        with trio.CancelScope(shield=True):
            await self._undo([slave.slot])
        slave.known = False

    def stop_restarts(self) -> None:
        """Start nothing again from here on."""
        if self.restarter is not None:
            self.restarter.stop()

    async def _undo(self, slots: Sequence[str]) -> None:
        """End those of ``slots`` that run."""
        for slot in slots:
            try:
                if self.supervisor is not None:
                    with trio.move_on_after(LADDER_SECONDS):
                        await self.supervisor.stop([slot], 0.0, pack(None))
            except CreamasError as error:  # it is gone already, or the supervisor is
                log.debug("slot %s: %s", slot, error)

    def _forget(self, slots: Sequence[str]) -> None:
        forgotten = []
        for slot in slots:
            self._orders.pop(slot, None)
            slave = self._by_slot.pop(slot, None)
            if slave is not None:
                self._slaves.remove(slave)
                self._by_url.pop(slave.base_url, None)
                forgotten.append(slave.base_url)
        self.on_forget(forgotten)

    # ---- losing

    def _note_exit(self, told: ActorExit) -> None:
        slave = self._by_slot.get(told["slot"])
        if slave is None or slave.pid != told["pid"]:
            if not told["expected"]:
                self._early_exits[told["pid"]] = told
            return
        slave.exit = told
        slave.gone.set()
        if slave.silent or not told["expected"]:
            log.warning("%s", slave.end())
            if self.on_loss is not None:
                self.on_loss(slave)
            if self.restarter is not None:
                self.restarter.lose(slave)

    async def end_silent(self, slaves: Sequence[Slave]) -> None:
        """End slaves that do not answer; what follows is what follows from a loss."""
        for slave in slaves:
            slave.silent = slave.reported = True
        await self._undo([slave.slot for slave in slaves])
        for slave in slaves:
            if slave.silent:  # else: it is back already
                slave.known = False

    async def wait_for(self, address: str) -> None:
        """Wait until the slave at ``address`` is back, where it is to come back.

        Raises:
            SlaveLost: It was not within a bound.
        """
        slave = self._by_url.get(address.rpartition("/")[0] + "/")
        if slave is not None and self.restarter is not None:
            await self.restarter.wait(slave)

    async def explain_loss(self, address: str, error: ConnectionLost) -> Exception:
        """What a lost connection to ``address`` means: a `SlaveLost` if it is a slave's."""
        slave = self._by_url.get(address.rpartition("/")[0] + "/")
        if slave is None:
            return error
        with trio.move_on_after(CAUSE_SECONDS):
            await slave.gone.wait()
        gone = slave if slave.gone.is_set() else slave.before
        if gone is None:
            return error
        lost = gone.lost()  # of one that came back before this was told, of what it was before
        lost.may_have_run = error.may_have_run
        return lost

    # ---- stopping

    async def stop(self, grace_seconds: float, folder: str | None) -> list[SlaveReceipt]:
        """Stop all slaves and forget them; how each ended."""
        await self._end_restarts()
        slaves = list(self._slaves)
        slots = [slave.slot for slave in slaves if slave.known]
        told: Sequence[StopResult] = ()
        if slots and self.supervisor is not None:
            try:
                with trio.move_on_after(grace_seconds + LADDER_SECONDS):
                    told = await self.supervisor.stop(slots, grace_seconds, pack(folder))
            except ConnectionLost:
                told = ()  # the supervisor is gone, and its slaves with it
        by_slot = {receipt["slot"]: receipt for receipt in told}
        self._forget([slave.slot for slave in slaves])
        return [_receipt(slave, by_slot.get(slave.slot)) for slave in slaves]

    async def aclose(self) -> None:
        """End the supervisor; when this returns, no process of it is left."""
        if self.supervisor is not None:
            await self.supervisor.aclose()


def _receipt(slave: Slave, told: StopResult | None) -> SlaveReceipt:
    exit_ = told or slave.exit or _UNKNOWN_EXIT
    payload = None if told is None else told["payload"]
    errors = [] if payload is None else list(unpack(payload))
    if exit_.get("error"):
        errors.append(exit_["error"])
    return SlaveReceipt(
        address=slave.address,
        pid=slave.pid,
        exit_code=exit_["exit_code"],
        signal=exit_["signal"],
        seconds=0.0 if told is None else told["seconds"],
        graceful=told is not None and told["graceful"],
        ended_by=told["ladder"]
        if told is not None
        else "gone"
        if not slave.known
        else "lost"
        if slave.gone.is_set()
        else "unknown",
        errors=tuple(errors),
    )

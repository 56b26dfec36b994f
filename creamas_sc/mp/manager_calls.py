"""The master's calls of its slaves' managers: of one, of all at once, and the steps of all agents.

A step with a limit ends in three stages: each slave cancels, when the time is up, the acts that go
on and answers with what was done; a slave whose answer is not there `SILENT_SECONDS` later counts
as silent, with all its agents; and silent slaves are stopped if the limit asks for it.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import chain
from typing import Any

import trio

from creamas_sc.core.gathering import take_part
from creamas_sc.core.step_loop import UNLIMITED, StepLimit
from creamas_sc.errors import (
    AgentError,
    AgentErrors,
    ConnectionLost,
    CreamasError,
    DeadlineExceeded,
    DecodeError,
    StepOverran,
    agent_errors,
    step_error,
)
from creamas_sc.foreign import printable
from creamas_sc.mp.agent_order import AgentOrder
from creamas_sc.mp.managers import SPAWN_INDEX
from creamas_sc.mp.slave_pool import SlavePool
from creamas_sc.mp.step_reports import StepReports
from creamas_sc.restarts.journal import SlaveJournal
from creamas_sc.restarts.slave import Slave
from creamas_sc.results.observing import Asked
from creamas_sc.rpc.calls import Call, Calls
from creamas_sc.rpc.connection import Connection
from creamas_sc.rpc.node import BaseTimeout, Node
from creamas_sc.rpc.rounds.plan import TAKES_PER_STEP, Plan
from creamas_sc.rpc.socket_stream import TRIO_LOOP
from creamas_sc.rpc.step_replies import STEP_METHODS, undecodable_reply
from creamas_sc.runtime.class_loading import portable_name
from creamas_sc.runtime.coroutines import at_once, backoff
from creamas_sc.runtime.nurseries import open_unwrapping_nursery
from creamas_sc.runtime.timeouts import ACKNOWLEDGE_SECONDS
from creamas_sc.util import get_manager
from creamas_sc.wire.codec import Payload
from creamas_sc.wire.packing import Undecodable

log = logging.getLogger(__name__)

# How long a slave may take to answer once a step's time is up; then it counts as silent.
SILENT_SECONDS = 0.4
# A manager is its environment's first agent.
MANAGER = 0


class ManagerCalls:
    """Calls of the managers of a multi-environment's slaves.

    Args:
        node: The master environment's.
        slaves: Knows which slaves are being restarted, and explains losses to the node.

    Attributes:
        reports: Of the steps.
    """

    def __init__(self, node: Node, slaves: SlavePool) -> None:
        self._node = node
        self._slaves = slaves
        self.reports = StepReports(node, slaves)
        self._spawned = 0
        self.order = AgentOrder(node)
        # The processes of the slaves that are connected to each other, as far as they can be.
        self._connected: list[tuple[str, int]] = []
        self._classes: set[str] = set()

    async def wait_ready(self, slave: Slave, check_ready: bool) -> None:
        """Wait until a slave can be reached and, if asked, its manager says that it is ready."""
        # Checked again: a slave that was reachable before may be dead by now.
        manager = await self._node.connect(slave.address, 0, check_again=True)
        pauses = backoff()
        # Polled: ``is_ready`` may depend on anything.
        while check_ready and not await manager.is_ready():
            await slave.sleep(next(pauses))

    async def spawn(
        self, method: str, n: int, addr: str | None, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Make ``n`` agents in the slave of the manager at ``addr``, or in the smallest slave."""
        members = self._slaves.members
        slave = self._slaves.at(addr) if addr else min(members, key=lambda slave: slave.agents)
        args = (portable_name(args[0]), *args[1:])
        kwargs[SPAWN_INDEX] = self._spawned
        # Counted before the call, so that calls under way count too.
        self._spawned += n
        slave.agents += n
        try:
            answer = await self._node.call_agent(slave.address, method, args, kwargs)
        except BaseException:
            slave.agents -= n
            raise
        if slave.journal is not None:
            slave.journal.note_spawn(method, args, kwargs, answer)
        if args[0] not in self._classes:
            self._classes.add(args[0])
            await self._warn_of(args[0], slave)
        return answer

    async def _warn_of(self, agent_cls: str, slave: Slave) -> None:
        """Log a warning if agents of a class that was spawned for the first time cannot act."""
        # Shielded: the agents are there, so the caller must get to know them.
        with suppress(CreamasError), trio.move_on_after(ACKNOWLEDGE_SECONDS, shield=True):
            missing = await self._node.call_agent(slave.address, "missing_act", (agent_cls,), {})
            if missing is not None:
                log.warning("%s", printable(missing))

    async def create_connections(
        self, slaves: Sequence[Slave], connection_map: Mapping[str, Any]
    ) -> list[Any]:
        """Make connections; those of agents that are in none of ``slaves`` are left out."""
        parts: dict[str, dict[str, Any]] = {slave.address: {} for slave in slaves}
        for addr, connections in connection_map.items():
            part = parts.get(get_manager(addr))
            if part is not None:
                part[addr] = connections

        async def create(slave: Slave) -> list[Any]:
            part = parts[slave.address]
            made = await self._node.call_agent(slave.address, "create_connections", (part,), {})
            if slave.journal is not None:
                slave.journal.note_connections(part)
            return made  # type: ignore[no-any-return]

        return list(chain.from_iterable(await at_once(create, slaves)))

    async def gather(
        self,
        slaves: Sequence[Slave],
        addrs: Iterable[str] | None,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        in_rounds: bool = False,
    ) -> dict[str, Any]:
        """Call a method of the agents at ``addrs``, or of all; its name is the first of ``args``.

        Args:
            in_rounds: Whether calls that the methods make go in rounds: then all slaves take part.

        Raises:
            AgentErrors: Some failed.
        """
        parts: dict[Slave, list[str]] = {slave: [] for slave in slaves if in_rounds}
        if addrs is not None:
            addrs = list(dict.fromkeys(addrs))
            for addr in addrs:
                parts.setdefault(self._slaves.at(get_manager(addr)), []).append(addr)
        called, name = args[0], "gather"
        if in_rounds:
            await self._connect_peers(slaves, UNLIMITED)
            name, args = "gather_in_rounds", (*self._next_step(slaves), *args)

        async def call(slave: Slave) -> Any:
            try:
                payload = self._node.codec.encode((args, {**kwargs, "addrs": parts[slave]}))
                answer = await self._node.send(slave.address, name, payload)
                return self._decode(slave, name, answer)
            except AgentErrors as errors:
                return errors

        async with self._serving(args if in_rounds else None):
            if addrs is None:
                answers = await self.call_all(slaves, name, args, kwargs, kept=(AgentErrors,))
            else:
                answers = await at_once(call, list(parts))
        values: dict[str, Any] = {}
        failures: dict[str, AgentError] = {}
        for answer in answers:
            if isinstance(answer, AgentErrors):
                failures.update(answer.failures)
                answer = answer.results
            values.update(answer)
        if addrs is None:
            values = dict(self.order.sort(list(values.items())))
        if failures:
            failures = dict(self.order.sort(list(failures.items())))
            raise agent_errors(f"failed in {called}", failures, values)
        return values if addrs is None else {addr: values[addr] for addr in addrs}

    def _next_step(self, slaves: Sequence[Slave]) -> tuple[int, list[str]]:
        """The number of a step in rounds, and those who take part."""
        steps = self._node.steps
        steps.taken, steps.why = steps.taken + 1, {}
        master = [self._node.base_url] if self._slaves.have_host_manager else []
        return steps.taken, [*(slave.base_url for slave in slaves), *master]

    @asynccontextmanager
    async def _serving(self, step: Sequence[Any] | None) -> AsyncIterator[None]:
        """Have the host manager serve calls in a step in rounds, if there is one.

        Args:
            step: Begins with what `_next_step` returned; None for no rounds.
        """
        if step is None or self._node.base_url not in step[1]:
            yield
            return
        async with open_unwrapping_nursery() as nursery:
            nursery.start_soon(take_part, self._node, Plan(step[0] * TAKES_PER_STEP, step[1]))
            yield
            nursery.cancel_scope.cancel()  # all slaves have answered

    async def call_all(
        self,
        slaves: Sequence[Slave],
        method: str,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        kept: tuple[type[Exception], ...] = (),
        limit_seconds: float | None = None,
    ) -> list[Any]:
        """Call the managers of several slaves, all at once.

        Args:
            kept: Errors of these classes stand in the place of the slave's result; any other
                cancels the remaining calls and is raised.
            limit_seconds: After these the calls are given up for good; by default, after the base
                timeout they are cancelled.

        Returns:
            What the managers returned, in the order of ``slaves``.
        """
        node = self._node
        payload = node.codec.encode((args, dict(kwargs or {})))
        links = {slave: node.endpoint.link(slave.base_url) for slave in slaves}
        ready = {s: link for s, link in links.items() if link is not None and link.out.drained}
        if len(ready) == len(slaves) and not self._slaves.driver.coming:
            return await self._call_ready(ready, method, payload, kept, limit_seconds)

        async def send(slave: Slave) -> Any:
            try:
                answer = await node.send(slave.address, method, payload, last_seconds=limit_seconds)
                return self._decode(slave, method, answer)
            except kept as error:
                return error

        # In a task each, so that no call waits for what another one has to wait for first.
        return await at_once(send, slaves)

    async def _call_ready(
        self,
        links: Mapping[Slave, Connection],
        method: str,
        payload: Payload,
        kept: tuple[type[Exception], ...],
        limit_seconds: float | None,
    ) -> list[Any]:
        """The common case of `call_all`: nothing has to be waited for before the calls are sent.

        All takes place within this task. A result is decoded when it arrives, while others are on
        their way.
        """
        timeout = BaseTimeout.call if limit_seconds is None else limit_seconds
        confirm = ACKNOWLEDGE_SECONDS if limit_seconds is None else 0
        results: dict[Slave, Any] = {}
        async with Calls(TRIO_LOOP, timeout, confirm) as calls:

            async def take_failure(slave: Slave) -> None:
                try:
                    await calls.answer(pending.pop(slave))
                except ConnectionLost as error:
                    raise await self._slaves.explain_loss(slave.address, error) from None
                except kept as error:
                    results[slave] = error

            pending: dict[Slave, Call] = {}
            for slave, link in links.items():
                pending[slave] = await calls.start(link, MANAGER, method, payload)
            while pending:
                await calls.wait()
                for slave, call in list(pending.items()):
                    if call.succeeded:
                        answer = await calls.answer(pending.pop(slave))
                        try:
                            results[slave] = self._decode(slave, method, answer)
                        except kept as error:
                            results[slave] = error
                failed = [slave for slave, call in pending.items() if call.ended]
                if len(failed) == 1:
                    await take_failure(failed[0])
                elif failed:  # at once, as the explanation of a loss may take a moment
                    await at_once(take_failure, failed)
        return [results[slave] for slave in links]

    def _decode(self, slave: Slave, method: str, payload: Payload) -> Any:
        """What the manager of ``slave`` has returned.

        Raises:
            AgentErrors: It holds what its agents returned, and some of that cannot be decoded here.
            DecodeError: It cannot be decoded here.
        """
        try:
            return self._node.codec.decode(payload)
        except DecodeError as error:
            if method in STEP_METHODS:
                self._blame_agents(slave, payload)
            raise undecodable_reply(slave.address, method, error) from error

    def _blame_agents(self, slave: Slave, payload: Payload) -> None:
        """Raise AgentErrors if what some agents of ``slave`` returned is to blame."""
        try:
            answer = self._node.codec.decode_leniently(payload)
        except DecodeError:
            return
        returned = answer
        if isinstance(answer, list):  # of all agents: the manager is not one of them
            returned = {f"{slave.base_url}{number}": each for number, each in enumerate(answer, 1)}
        elif not isinstance(answer, dict):
            return
        failed = {addr: Undecodable.within(each) for addr, each in returned.items()}
        failures = {addr: each.error for addr, each in failed.items() if each is not None}
        kept = {addr: each for addr, each in returned.items() if failed[addr] is None}
        if failures:
            results = list(kept.values()) if isinstance(answer, list) else kept
            raise agent_errors("returned what cannot be decoded here", failures, results)

    async def _connect_peers(self, slaves: Sequence[Slave], limit: StepLimit) -> None:
        """Have slaves connect to each other: while an act computes, they cannot."""
        if self._slaves.driver.coming:  # they take part
            with trio.move_on_at(limit.deadline) as waiting:
                await at_once(lambda slave: self._slaves.wait_for(slave.address), slaves)
            if waiting.cancelled_caught:
                raise DeadlineExceeded(
                    "the step's time was up before all slaves were back, so no agent acted",
                    may_have_run=False,
                    acknowledged=True,
                )
        processes = [(slave.base_url, slave.pid) for slave in slaves]
        if len(slaves) > 1 and processes != self._connected:
            seconds = None
            if limit is not UNLIMITED:
                seconds = max(limit.deadline - trio.current_time(), 0.0)
            urls = [slave.base_url for slave in slaves]
            kept = (DeadlineExceeded,)
            await self.call_all(slaves, "connect_peers", (urls,), kept=kept, limit_seconds=seconds)
            self._connected = processes

    async def take_step(
        self,
        slaves: Sequence[Slave],
        limit: StepLimit,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        asked: Asked | None = None,
    ) -> list[Any]:
        """As `_take_step`; reports how it went."""
        with self.reports.step():
            return await self._take_step(slaves, limit, args, kwargs, asked)

    async def _take_step(
        self,
        slaves: Sequence[Slave],
        limit: StepLimit,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        asked: Asked | None,
    ) -> list[Any]:
        """Make the agents of ``slaves`` act once, within the limit.

        Args:
            asked: What is to be observed, for a record.

        Returns:
            One value per agent, in slave and then spawn order.

        Raises:
            StepOverran: Some were late.
            AgentErrors: None were, but some failed.
            SlaveLost: A slave died.
        """
        method = "trigger_all"
        kept: tuple[type[Exception], ...] = (AgentErrors, StepOverran)
        if self._node.steps.in_rounds:
            await self._connect_peers(slaves, limit)
        left = limit_seconds = None
        if limit is not UNLIMITED:
            left = max(limit.deadline - trio.current_time(), 0.0)
            limit_seconds = left + SILENT_SECONDS
            method, kept = "trigger_all_within", (*kept, DeadlineExceeded)
        if self._node.steps.in_rounds:
            method = "trigger_all_in_rounds"
            args = (*self._next_step(slaves), left, *args)
        elif left is not None:
            args = (left, *args)
        step = args if self._node.steps.in_rounds else None
        if asked is not None:
            method, args = "trigger_all_observed", (method, tuple(asked), *args)
        async with self._serving(step):
            answers = await self.call_all(
                slaves, method, args, kwargs, kept=kept, limit_seconds=limit_seconds
            )
        results: list[Any] = []
        failures: dict[str, AgentError] = {}
        late: list[str] = []
        silent: list[Slave] = []
        for slave, answer in zip(slaves, answers, strict=True):
            if isinstance(answer, StepOverran):
                late += answer.addresses
            elif isinstance(answer, DeadlineExceeded):
                silent.append(slave)
                continue
            if isinstance(answer, (AgentErrors, StepOverran)):
                failures.update(answer.failures)
                answer = answer.results
            results += answer
        if self._node.steps.in_rounds:
            answered = [slave for slave in slaves if slave not in silent]
            results = self.order.results(answered, results, {*failures, *late})
            failures = {addr: failures[addr] for addr in sorted(failures, key=self.order.number_at)}
            late.sort(key=self.order.number_at)
        journals = [s.journal for s in slaves if s.journal is not None and s not in silent]
        offering = [journal for journal in journals if journal.offers_checkpoint]
        if offering:
            await at_once(SlaveJournal.take_checkpoint, offering)
        if silent and limit.kill:
            why = "it did not answer when a step's time was up"
            await self._slaves.end_as_lost(silent, why)
        if failures or late or silent:
            raise step_error(failures, results, late, [slave.address for slave in silent])
        return results

"""The steps of a multi-environment: of all agents, of one, and gathers where calls go in rounds.

A step with a limit ends in three stages: each slave cancels, when the time is up, the acts that go
on and answers with what was done; a slave whose answer is not there `SILENT_SECONDS` later counts
as silent, with all its agents; and silent slaves are stopped if the limit asks for it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from functools import partial
from typing import Any

import trio

from creamas_sc.core.gathering import take_part
from creamas_sc.core.step_loop import UNLIMITED, StepLimit, step_limit
from creamas_sc.errors import (
    AgentError,
    AgentErrors,
    DeadlineExceeded,
    StepOverran,
    agent_errors,
    step_error,
)
from creamas_sc.mp.agent_order import AgentOrder
from creamas_sc.mp.artifacts import ArtifactInbox
from creamas_sc.mp.manager_calls import ManagerCalls
from creamas_sc.mp.slave_pool import SlavePool
from creamas_sc.mp.step_lock import StepLock
from creamas_sc.mp.step_reports import StepReports
from creamas_sc.restarts.journal import SlaveJournal
from creamas_sc.restarts.slave import Slave
from creamas_sc.results import recordings
from creamas_sc.results.observing import Asked
from creamas_sc.rpc.network import Network
from creamas_sc.rpc.rounds.plan import TAKES_PER_STEP, Plan
from creamas_sc.runtime.coroutines import at_once
from creamas_sc.runtime.nurseries import open_unwrapping_nursery
from creamas_sc.util import get_manager

# How long a slave may take to answer once a step's time is up; then it counts as silent.
SILENT_SECONDS = 0.4


class Steps:
    """Takes the steps, one at a time.

    Args:
        network: The master environment's.
        slaves: Those that act.
        managers: Calls of their managers.
        inbox: Gets the artifacts that arrive, and keeps those of a step back until its end.

    Attributes:
        lock: Held while agents act.
        order: Of the agents.
        reports: Of the steps of all agents.
        count: How many steps of all agents were taken.
    """

    count = 0

    def __init__(
        self, network: Network, slaves: SlavePool, managers: ManagerCalls, inbox: ArtifactInbox
    ) -> None:
        self.lock = StepLock()
        self.order = AgentOrder(network)
        self.reports = StepReports(network, slaves)
        self._network = network
        self._slaves = slaves
        self._managers = managers
        self._inbox = inbox
        # The processes of the slaves that are connected to each other, as far as they can be.
        self._connected: list[tuple[str, int]] = []
        network.become_master(slaves, inbox.take)

    @asynccontextmanager
    async def of_one_agent(self, slaves: Sequence[Slave]) -> AsyncIterator[None]:
        """Take a step of one agent in the block."""
        async with self.lock:
            with self._artifacts_last(slaves):
                yield

    def _artifacts_last(self, slaves: Sequence[Slave]) -> AbstractContextManager[None]:
        """Take a step in the block: artifacts of it are added at its end."""
        return self._inbox.step([slave.base_url for slave in slaves])

    # ---- all agents

    async def take(
        self,
        slaves: Sequence[Slave],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        recording: Any = None,
    ) -> list[Any]:
        """Make the agents of ``slaves`` act once, within the `step_limit`.

        Args:
            recording: Of the simulation, if it is recorded.

        Returns:
            One value per agent, in spawn order.

        Raises:
            StepOverran: Some were late.
            AgentErrors: None were, but some failed.
            SlaveLost: A slave died.
        """
        async with self.lock:
            return await recordings.take(recording, partial(self._take, slaves, args, kwargs))

    async def _take(
        self,
        slaves: Sequence[Slave],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        asked: Asked | None,
    ) -> list[Any]:
        """As `take`; ``asked`` is what is to be observed, for a record."""
        limit = step_limit.get()
        with self._artifacts_last(slaves), self.reports.step():
            try:
                answers = await self._call(slaves, limit, args, kwargs, asked)
                results = await self._join(slaves, limit, answers)
            except Exception as error:
                self.count += getattr(error, "may_have_run", True)
                raise
            self.count += 1
            return results

    async def _call(
        self,
        slaves: Sequence[Slave],
        limit: StepLimit,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        asked: Asked | None,
    ) -> list[Any]:
        """Call the managers of ``slaves``; what each answered, or the error that it kept."""
        method, step = "trigger_all", None
        kept: tuple[type[Exception], ...] = (AgentErrors, StepOverran)
        in_rounds = self._network.steps.in_rounds
        if in_rounds:
            await self._connect_peers(slaves, limit)
        left = limit_seconds = None
        if limit is not UNLIMITED:
            left = _seconds_left(limit)
            limit_seconds = left + SILENT_SECONDS
            method, kept = "trigger_all_within", (*kept, DeadlineExceeded)
        if in_rounds:
            method, step = "trigger_all_in_rounds", self._next_step(slaves)
            args = (*step, left, *args)
        elif left is not None:
            args = (left, *args)
        if asked is not None:
            method, args = "trigger_all_observed", (method, tuple(asked), *args)
        async with self._serving(step):
            return await self._managers.call_all(
                slaves, method, args, kwargs, kept=kept, limit_seconds=limit_seconds
            )

    async def _join(
        self, slaves: Sequence[Slave], limit: StepLimit, answers: Sequence[Any]
    ) -> list[Any]:
        """Make one result of the answers, or raise what the step has failed with."""
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
        if self._network.steps.in_rounds:
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

    # ---- gathers

    async def gather(
        self,
        slaves: Sequence[Slave],
        addrs: Iterable[str] | None,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> dict[str, Any]:
        """Call a method of the agents at ``addrs``, or of all; its name is the first of ``args``.

        If calls go in rounds, so do those that the methods make, unless a step is under way.

        Raises:
            AgentErrors: Some failed.
        """
        if self._network.steps.in_rounds:
            async with self.lock.held_by_gather() as in_rounds:
                if in_rounds:
                    with self._artifacts_last(slaves):
                        return await self._gather(slaves, addrs, args, kwargs, True)
        return await self._gather(slaves, addrs, args, kwargs, False)

    async def _gather(
        self,
        slaves: Sequence[Slave],
        addrs: Iterable[str] | None,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        in_rounds: bool,
    ) -> dict[str, Any]:
        """As `gather`; in rounds, all slaves take part."""
        parts: dict[Slave, list[str]] = {slave: [] for slave in slaves if in_rounds}
        if addrs is not None:
            addrs = list(dict.fromkeys(addrs))
            for addr in addrs:
                parts.setdefault(self._slaves.at(get_manager(addr)), []).append(addr)
        called, name, step = args[0], "gather", None
        if in_rounds:
            await self._connect_peers(slaves, UNLIMITED)
            name, step = "gather_in_rounds", self._next_step(slaves)
            args = (*step, *args)
        kept = (AgentErrors,)

        async def call(slave: Slave) -> Any:
            payload = self._network.codec.encode((args, {**kwargs, "addrs": parts[slave]}))
            return await self._managers.call(slave, name, payload, kept)

        async with self._serving(step):
            if addrs is None:
                answers = await self._managers.call_all(slaves, name, args, kwargs, kept=kept)
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

    # ---- rounds

    def _next_step(self, slaves: Sequence[Slave]) -> tuple[int, list[str]]:
        """The number of a step in rounds, and those who take part."""
        steps = self._network.steps
        steps.taken, steps.why = steps.taken + 1, {}
        master = [self._network.base_url] if self._slaves.have_host_manager else []
        return steps.taken, [*(slave.base_url for slave in slaves), *master]

    @asynccontextmanager
    async def _serving(self, step: tuple[int, list[str]] | None) -> AsyncIterator[None]:
        """Have the host manager serve calls in a step in rounds, if there is one.

        Args:
            step: What `_next_step` returned; None for no rounds.
        """
        if step is None or self._network.base_url not in step[1]:
            yield
            return
        async with open_unwrapping_nursery() as nursery:
            nursery.start_soon(take_part, self._network, Plan(step[0] * TAKES_PER_STEP, step[1]))
            yield
            nursery.cancel_scope.cancel()  # all slaves have answered

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
            seconds = None if limit is UNLIMITED else _seconds_left(limit)
            urls = [slave.base_url for slave in slaves]
            kept = (DeadlineExceeded,)
            await self._managers.call_all(
                slaves, "connect_peers", (urls,), kept=kept, limit_seconds=seconds
            )
            self._connected = processes


def _seconds_left(limit: StepLimit) -> float:
    return max(limit.deadline - trio.current_time(), 0.0)

"""The master's calls of its slaves' managers: of one, or of all at once."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import chain
from typing import Any

import trio

from creamas_sc.errors import (
    ConnectionLost,
    CreamasError,
    DecodeError,
    agent_errors,
)
from creamas_sc.foreign import printable
from creamas_sc.mp.managers import SPAWN_INDEX
from creamas_sc.mp.slave_pool import SlavePool
from creamas_sc.restarts.slave import Slave
from creamas_sc.rpc.base_timeout import BaseTimeout
from creamas_sc.rpc.calls import Call, Calls
from creamas_sc.rpc.connection import Connection
from creamas_sc.rpc.network import Network
from creamas_sc.rpc.socket_stream import TRIO_LOOP
from creamas_sc.rpc.step_replies import STEP_METHODS, undecodable_reply
from creamas_sc.runtime.class_loading import portable_name
from creamas_sc.runtime.coroutines import at_once, backoff
from creamas_sc.runtime.timeouts import ACKNOWLEDGE_SECONDS
from creamas_sc.util import get_manager
from creamas_sc.wire.codec import Payload
from creamas_sc.wire.packing import Undecodable

log = logging.getLogger(__name__)

# A manager is its environment's first agent.
MANAGER = 0
# The methods that make all agents of a slave act, and what they wait for; one step at a time.
_OF_STEPS = frozenset(name for name in STEP_METHODS if name.startswith("trigger_all"))
_OF_STEPS |= {"connect_peers"}


class ManagerCalls:
    """Calls of the managers of a multi-environment's slaves.

    Args:
        network: The master environment's.
        slaves: Knows which slaves are being restarted, and explains losses to the network.

    Attributes:
        spawned: How many agents were spawned.
        classes: Names of their classes.
    """

    def __init__(self, network: Network, slaves: SlavePool) -> None:
        self._network = network
        self._slaves = slaves
        self.spawned = 0
        self.classes: set[str] = set()

    async def wait_ready(self, slave: Slave, check_ready: bool) -> None:
        """Wait until a slave can be reached and, if asked, its manager says that it is ready."""
        # Checked again: a slave that was reachable before may be dead by now.
        manager = await self._network.connect(slave.address, 0, check_again=True)
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
        await self._slaves.machines.bring([args[0]], members)
        kwargs[SPAWN_INDEX] = self.spawned
        # Counted before the call, so that calls under way count too.
        self.spawned += n
        slave.agents += n
        try:
            answer = await self._network.call_agent(slave.address, method, args, kwargs)
        except BaseException:
            slave.agents -= n
            raise
        if slave.journal is not None:
            slave.journal.note_spawn(method, args, kwargs, answer)
        if args[0] not in self.classes:
            self.classes.add(args[0])
            await self._warn_of(args[0], slave)
        return answer

    async def _warn_of(self, agent_cls: str, slave: Slave) -> None:
        """Log a warning if agents of a class that was spawned for the first time cannot act."""
        # Shielded: the agents are there, so the caller must get to know them.
        with suppress(CreamasError), trio.move_on_after(ACKNOWLEDGE_SECONDS, shield=True):
            missing = await self._network.call_agent(slave.address, "missing_act", (agent_cls,), {})
            if missing is not None:
                log.warning("%s", printable(missing))

    async def set_host(self, addr: str, host: str, timeout: float) -> Any:
        """Make the manager at the address ``host`` the host manager of the one at ``addr``."""
        manager = await self._network.connect(addr, timeout)
        answer = await manager.set_host_manager(host)
        self._slaves.note_host_manager(addr, host)
        return answer

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
            made = await self._network.call_agent(slave.address, "create_connections", (part,), {})
            if slave.journal is not None:
                slave.journal.note_connections(part)
            return made  # type: ignore[no-any-return]

        return list(chain.from_iterable(await at_once(create, slaves)))

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
        payload = self._network.codec.encode((args, dict(kwargs or {})))
        if method not in _OF_STEPS:
            return await self._call_all(slaves, method, payload, kept, limit_seconds)
        for slave in slaves:
            slave.begin_step()
        try:
            return await self._call_all(slaves, method, payload, kept, limit_seconds)
        finally:
            for slave in slaves:
                slave.end_step()

    async def _call_all(
        self,
        slaves: Sequence[Slave],
        method: str,
        payload: Payload,
        kept: tuple[type[Exception], ...],
        limit_seconds: float | None,
    ) -> list[Any]:
        network = self._network
        links = {slave: network.endpoint.link(slave.base_url) for slave in slaves}
        ready = {s: link for s, link in links.items() if link is not None and link.out.drained}
        if len(ready) == len(slaves) and not self._slaves.driver.coming:
            return await self._call_ready(ready, method, payload, kept, limit_seconds)
        # In a task each, so that no call waits for what another one has to wait for first.
        send = partial(
            self.call, method=method, payload=payload, kept=kept, limit_seconds=limit_seconds
        )
        return await at_once(send, slaves)

    async def call(
        self,
        slave: Slave,
        method: str,
        payload: Payload,
        kept: tuple[type[Exception], ...],
        limit_seconds: float | None = None,
    ) -> Any:
        """Call the manager of one slave, as `call_all` does, with encoded arguments."""
        try:
            answer = await self._network.send(
                slave.address, method, payload, last_seconds=limit_seconds
            )
            return self._decode(slave, method, answer)
        except kept as error:
            return error
        finally:
            if method in _OF_STEPS:
                slave.end_step()

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
                on_end = slave.end_step if method in _OF_STEPS else None
                pending[slave] = await calls.start(link, MANAGER, method, payload, on_end)
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
            return self._network.codec.decode(payload)
        except DecodeError as error:
            if method in STEP_METHODS:
                self._blame_agents(slave, payload)
            raise undecodable_reply(slave.address, method, error) from error

    def _blame_agents(self, slave: Slave, payload: Payload) -> None:
        """Raise AgentErrors if what some agents of ``slave`` returned is to blame."""
        try:
            answer = self._network.codec.decode_leniently(payload)
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

"""The master's calls of its slaves' managers, one or all at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

from creamas_sc.errors import ConnectionLost
from creamas_sc.mp.managers import SPAWN_INDEX
from creamas_sc.mp.slave_pool import SlavePool
from creamas_sc.restarts.slave import Slave
from creamas_sc.rpc.calls import Call, Calls
from creamas_sc.rpc.node import Node, call_timeout
from creamas_sc.rpc.socket_stream import TRIO_LOOP
from creamas_sc.runtime.class_loading import portable_name
from creamas_sc.runtime.coroutines import at_once
from creamas_sc.util import get_manager
from creamas_sc.wire.codec import Payload
from creamas_sc.wire.protocol import ACKNOWLEDGE_SECONDS

__all__ = ["ManagerCalls"]

# Between two calls of a slave's ``is_ready``, in seconds: the shortest pause, and the longest.
READY_PAUSES = (0.01, 0.2)
# A manager is its environment's first agent.
MANAGER = 0


class ManagerCalls:
    """Calls of the managers of a multi-environment's slaves.

    Args:
        node: The master environment's.
        slaves: Knows which slaves are being restarted, and explains losses to the node.
    """

    def __init__(self, node: Node, slaves: SlavePool) -> None:
        self._node = node
        self._slaves = slaves
        self._spawned = 0

    async def wait_ready(self, slave: Slave, check_ready: bool) -> None:
        """Wait until a slave can be reached and, if asked, its manager says that it is ready."""
        # ``anew``: a slave that was reachable before may be dead by now.
        manager = await self._node.connect(slave.address, 0, check_again=True)
        pause, longest = READY_PAUSES
        # Polled: ``is_ready`` may depend on anything.
        while check_ready and not await manager.is_ready():
            await slave.sleep(pause)
            pause = min(2 * pause, longest)

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
            answer = await self._call(slave, method, args, kwargs)
        except BaseException:
            slave.agents -= n
            raise
        if slave.journal is not None:
            slave.journal.note_spawn(method, args, kwargs, answer)
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
            made: list[Any] = await self._call(slave, "create_connections", (part,), {})
            if slave.journal is not None:
                slave.journal.note_connections(part)
            return made

        return list(chain.from_iterable(await at_once(create, slaves)))

    async def gather(self, slaves: Sequence[Slave], method: str, *args: Any) -> list[Any]:
        """Call several slaves' managers and join the lists that they return."""
        return list(chain.from_iterable(await self.call_all(slaves, method, args)))

    async def _call(
        self, slave: Slave, method: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:
        payload = self._node.codec.encode((args, kwargs))
        return self._node.codec.decode(await self._node.send(slave.address, method, payload))

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

        The common case, in which nothing has to be waited for before the calls are sent, takes
        place within this task. A result is decoded when it arrives, while others are on their way.

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
        links = [node.link(slave.address) for slave in slaves]
        ready = [link for link in links if link is not None and link.drained]
        if len(ready) < len(slaves) or any(map(self._slaves.expects, slaves)):
            # In a task each, so that no call waits for what another one has to wait for first.
            return await at_once(
                lambda slave: self._send(slave, method, payload, kept, limit_seconds), slaves
            )
        timeout = call_timeout() if limit_seconds is None else limit_seconds
        confirm = ACKNOWLEDGE_SECONDS if limit_seconds is None else 0
        results: dict[Slave, Any] = {}
        async with Calls(TRIO_LOOP, timeout, confirm) as calls:

            async def take_failure(slave: Slave) -> None:
                try:
                    await calls.answer(pending.pop(slave))
                except ConnectionLost as error:
                    raise await node.explain(slave.address, error) from None
                except kept as error:
                    results[slave] = error

            pending: dict[Slave, Call] = {}
            for slave, link in zip(slaves, ready, strict=True):
                pending[slave] = await calls.start(link, MANAGER, method, payload)
            while pending:
                await calls.wait()
                for slave, call in list(pending.items()):
                    if call.succeeded:
                        results[slave] = node.codec.decode(await calls.answer(pending.pop(slave)))
                failed = [slave for slave, call in pending.items() if call.ended]
                if failed:  # at once, as the explanation of a loss may take a moment
                    await at_once(take_failure, failed)
        return [results[slave] for slave in slaves]

    async def _send(
        self,
        slave: Slave,
        method: str,
        payload: Payload,
        kept: tuple[type[Exception], ...],
        limit_seconds: float | None,
    ) -> Any:
        node = self._node
        try:
            answer = await node.send(slave.address, method, payload, last_seconds=limit_seconds)
            return node.codec.decode(answer)
        except kept as error:
            return error

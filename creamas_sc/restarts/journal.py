"""What slaves were given, kept to give it again to those that are started again.

It is kept encoded, as it was when it was given: what a caller changes later does not count.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from creamas_sc.errors import AgentErrors, ConnectionLost, CreamasError, NotExposed
from creamas_sc.rpc.node import Node
from creamas_sc.wire.codec import Codec, Payload

__all__ = ["Journals", "Record", "Restored"]

log = logging.getLogger(__name__)

# Calls a method of the slave's manager, arguments and result encoded.
Call = Callable[[str, Payload], Awaitable[Payload]]


@dataclass
class Restored:
    """What of a record was given again; ``failures`` says what was not, and why."""

    agents: int = 0
    connections: int = 0
    host_manager: bool = False
    checkpoint: bool = False
    failures: tuple[str, ...] = ()

    def fail(self, what: str) -> None:
        """Note what was not restored."""
        self.failures = (*self.failures, what)


@dataclass(frozen=True)
class _Spawn:
    """One spawn that succeeded, and the addresses of the agents that it made."""

    method: str
    arguments: Payload
    addresses: list[str]


@dataclass
class Record:
    """What one slave was given through its multi-environment.

    Agents that agents made, and connections that they made themselves, are not in it: they are for
    the environment's checkpoint to keep.
    """

    codec: Codec
    _spawns: list[_Spawn] = field(default_factory=list)
    _connections: dict[str, dict[str, Any]] = field(default_factory=dict)
    _host_manager: str | None = None
    _checkpoint: Payload | None = None
    _no_checkpoint: str = ""
    # Whether its environment's class has checkpoints; None while that is not known.
    offers_checkpoint: bool | None = None

    # ---- keeping

    def note_spawn(
        self, method: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], answer: Any
    ) -> None:
        """Keep a spawn that succeeded."""
        arguments = _copied(self.codec.encode((args, kwargs)))
        self._spawns.append(_Spawn(method, arguments, _addresses(answer)))

    def note_connections(self, connection_map: Mapping[str, Iterable[Any]]) -> None:
        """Keep connections that were made; as with agents, the first of an address counts."""
        for address, connections in self._copy(dict(connection_map)).items():
            known = self._connections.setdefault(address, {})
            for other, data in connections:
                known.setdefault(getattr(other, "addr", other), data)

    def note_host_manager(self, address: str) -> None:
        """Keep who its host manager is."""
        self._host_manager = address

    async def take_checkpoint(self, call: Call) -> None:
        """Ask for a checkpoint and keep it in place of the last one.

        One that fails is logged, and from there on none is kept: an older state is not this one.
        """
        try:
            answer = await call("checkpoint", self.codec.encode(((), {})))
        except NotExposed:  # a manager of the user's own
            self.offers_checkpoint = False
            return
        except ConnectionLost:
            raise
        except CreamasError as error:
            log.error("a checkpoint failed: %s", error)
            self._checkpoint, self._no_checkpoint = None, f"its last one failed: {error}"
            return
        self.offers_checkpoint = answer.body != self.codec.encode(None).body
        if self.offers_checkpoint:
            self._checkpoint, self._no_checkpoint = _copied(answer), ""

    def _copy(self, value: Any) -> Any:
        return self.codec.decode(self.codec.encode(value))

    # ---- giving again

    async def restore(self, call: Call) -> Restored:
        """Give it all to a slave with nothing in it, in the order in which it must come.

        Raises:
            ConnectionLost: The slave ended.
        """
        restored = Restored()
        if self._host_manager is not None:
            arguments = self.codec.encode(((self._host_manager,), {}))
            restored.host_manager = await self._done(
                restored, "its host manager", call, "set_host_manager", arguments
            )
        for spawn in sorted(self._spawns, key=_first_number):
            await self._spawn_again(restored, call, spawn)
        if self._connections:
            await self._connect_again(restored, call)
        if self._checkpoint is not None:
            restored.checkpoint = await self._done(
                restored, "its checkpoint", call, "restore", self._checkpoint
            )
        elif self._no_checkpoint:
            restored.fail(f"its checkpoint: {self._no_checkpoint}")
        return restored

    async def _done(
        self, restored: Restored, what: str, call: Call, method: str, arguments: Payload
    ) -> bool:
        return await self._try(restored, what, call, method, arguments) is not None

    async def _try(
        self, restored: Restored, what: str, call: Call, method: str, arguments: Payload
    ) -> Payload | None:
        """The answer; None, and a failure noted, where there is an error in its place."""
        try:
            return await call(method, arguments)
        except ConnectionLost:
            raise
        except (CreamasError, AgentErrors) as error:
            restored.fail(f"{what}: {error}")
            return None

    async def _spawn_again(self, restored: Restored, call: Call, spawn: _Spawn) -> None:
        what = f"agents {', '.join(spawn.addresses[:3])}{', ...' * (len(spawn.addresses) > 3)}"
        answer = await self._try(restored, what, call, spawn.method, spawn.arguments)
        if answer is None:
            return
        made = _addresses(self.codec.decode(answer))
        restored.agents += len(made)
        moved = [old for old, new in zip(spawn.addresses, made, strict=False) if old != new]
        if moved:
            restored.fail(f"the addresses of {len(moved)} agents, {moved[0]} the first of them")

    async def _connect_again(self, restored: Restored, call: Call) -> None:
        wanted = {agent: list(known.items()) for agent, known in self._connections.items()}
        arguments = self.codec.encode(((wanted,), {}))
        answer = await self._try(restored, "connections", call, "create_connections", arguments)
        if answer is None:
            return
        # One answer for each agent that is there.
        restored.connections = sum(map(len, self.codec.decode(answer)))
        missing = sum(map(len, wanted.values())) - restored.connections
        if missing > 0:
            restored.fail(f"{missing} connections, whose agents are not there")


class Journals:
    """The records of a multi-environment's slaves, by their managers' addresses.

    Attributes:
        kept: Whether there are any: only where the restart policy needs them.
    """

    def __init__(self, net: Node) -> None:
        self.kept = False
        self._net = net
        self._records: dict[str, Record] = {}

    def clear(self) -> None:
        """Forget all."""
        self._records.clear()

    def _of(self, manager: str) -> Record:
        return self._records.setdefault(manager, Record(self._net.codec))

    def note_spawn(
        self, manager: str, method: str, args: tuple[Any, ...], kwargs: Any, answer: Any
    ) -> None:
        """See `Record.note_spawn`."""
        if self.kept:
            self._of(manager).note_spawn(method, args, kwargs, answer)

    def note_connections(self, manager: str, connection_map: Mapping[str, Any]) -> None:
        """See `Record.note_connections`."""
        if self.kept:
            self._of(manager).note_connections(connection_map)

    def note_host_manager(self, manager: str, host: str) -> None:
        """See `Record.note_host_manager`."""
        if self.kept:
            self._of(manager).note_host_manager(host)

    def offers_checkpoint(self, manager: str) -> bool:
        """Whether a checkpoint may be asked for there."""
        return self.kept and self._of(manager).offers_checkpoint is not False

    async def take_checkpoint(self, manager: str) -> None:
        """See `Record.take_checkpoint`."""
        await self._of(manager).take_checkpoint(self._call(manager))

    async def restore(self, manager: str) -> Restored:
        """See `Record.restore`."""
        return await self._of(manager).restore(self._call(manager))

    def _call(self, manager: str) -> Call:
        async def call(method: str, payload: Payload) -> Payload:
            # Others wait for the slave; this is what they wait for.
            return await self._net.send(manager, method, payload, at_once=True)

        return call


def _addresses(answer: Any) -> list[str]:
    """Of the agents that a spawn made: ``(agent, address)``, or a list of these."""
    made = [answer] if isinstance(answer, tuple) else answer
    return [address for _, address in made]


def _first_number(spawn: _Spawn) -> int:
    """Agents' numbers tell in which order they were made, replies perhaps not."""
    return int(spawn.addresses[0].rpartition("/")[2]) if spawn.addresses else 0


def _copied(payload: Payload) -> Payload:
    """A payload whose large parts are no views of what may change."""
    return Payload(payload.body, [bytes(part) for part in payload.parts])

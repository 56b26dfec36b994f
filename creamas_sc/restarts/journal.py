"""What a slave was given, kept so that a restarted slave can be given it again.

Values are kept encoded, as they were when they were given: later changes by the caller do not
count. A restarted slave gets everything in the order in which the parts depend on each other: its
host manager, its agents in the order of their numbers, so that each has its old address, their
connections, and last the environment's checkpoint, which may refer to all of them. Where a run has
checkpoints on disk, the last one takes the place of what was given before it.

Agents that agents made, and connections that they made themselves, are not in the journal: they are
for the environment's checkpoint to keep.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from creamas_sc.errors import AgentErrors, ConnectionLost, CreamasError, NotExposed
from creamas_sc.foreign import printable
from creamas_sc.rpc.network import Network
from creamas_sc.wire.codec import Payload

log = logging.getLogger(__name__)


@dataclass
class Restored:
    """What of a journal was given again; ``failures`` says what was not, and why."""

    agents: int = 0
    connections: int = 0
    host_manager: bool = False
    checkpoint: bool = False
    failures: tuple[str, ...] = ()

    def fail(self, what: str) -> None:
        """Note what was not restored."""
        self.failures = (*self.failures, what)


class _Spawn(NamedTuple):
    """One spawn that succeeded, and the addresses of the agents that it made."""

    method: str
    arguments: Payload
    addresses: list[str]


class SlaveJournal:
    """What one slave was given through its multi-environment.

    Args:
        network: The master environment's, which calls the slave.
        manager: Address of the slave's manager.

    Attributes:
        offers_checkpoint: Whether the slave's environment has checkpoints, as far as is known.
    """

    def __init__(self, network: Network, manager: str) -> None:
        self._network = network
        self._manager = manager
        self._spawns: list[_Spawn] = []
        self._connections: dict[str, dict[str, Any]] = {}
        self._host_manager: str | None = None
        self._part: Payload | None = None
        self._checkpoint: Payload | None = None
        self._no_checkpoint = ""
        self.offers_checkpoint = True

    # ---- keeping

    def note_spawn(self, method: str, args: Any, kwargs: Mapping[str, Any], answer: Any) -> None:
        """Keep a spawn that succeeded."""
        arguments = _without_views(self._network.codec.encode((args, kwargs)))
        self._spawns.append(_Spawn(method, arguments, _addresses(answer)))

    def note_connections(self, connection_map: Mapping[str, Any]) -> None:
        """Keep connections that were made; as with agents, the first to an address counts."""
        codec = self._network.codec
        for address, connections in codec.decode(codec.encode(dict(connection_map))).items():
            known = self._connections.setdefault(address, {})
            for other, data in connections:
                known.setdefault(getattr(other, "addr", other), data)

    def note_host_manager(self, address: str) -> None:
        """Keep the address of its host manager."""
        self._host_manager = address

    def note_checkpoint(self, place: str, urls: Sequence[str], master: str) -> None:
        """Note that a checkpoint has its agents, in place of what they were made with.

        Args:
            place, urls, master: As of `restore_part`.
        """
        self._part = self._network.codec.encode(((place, list(urls), master), {}))
        self._spawns.clear()
        self._connections.clear()

    async def take_checkpoint(self) -> None:
        """Get a checkpoint from the slave and keep it in place of the last one.

        If one fails, that is logged and none is kept: an older state would not fit the present.

        Raises:
            ConnectionLost: The slave ended.
        """
        codec = self._network.codec
        try:
            answer = await self._network.send(
                self._manager, "checkpoint", codec.encode(((), {})), at_once=True
            )
        except NotExposed:  # the user's own manager class
            self.offers_checkpoint = False
        except ConnectionLost:
            raise
        except CreamasError as error:
            log.error("a checkpoint failed: %s", printable(str(error)))
            self._checkpoint, self._no_checkpoint = None, f"its last one failed: {error}"
        else:
            self.offers_checkpoint = answer.body != codec.encode(None).body
            if self.offers_checkpoint:
                self._checkpoint, self._no_checkpoint = _without_views(answer), ""

    # ---- giving again

    async def restore(self) -> Restored:
        """Give everything to the restarted slave, in which there is nothing yet.

        Raises:
            ConnectionLost: The slave ended.
        """
        codec, restored = self._network.codec, Restored()
        if self._host_manager is not None:
            arguments = codec.encode(((self._host_manager,), {}))
            answer = await self._try(restored, "its host manager", "set_host_manager", arguments)
            restored.host_manager = answer is not None
        if self._part is not None:
            answer = await self._try(restored, "the last checkpoint", "_restore_part", self._part)
            restored.checkpoint = answer is not None
            restored.agents += 0 if answer is None else codec.decode(answer)
        for spawn in sorted(self._spawns, key=_first_number):
            old = spawn.addresses
            what = f"agents {', '.join(old[:3])}{', ...' * (len(old) > 3)}"
            answer = await self._try(restored, what, spawn.method, spawn.arguments)
            if answer is not None:
                made = _addresses(codec.decode(answer))
                restored.agents += len(made)
                moved = [a for a, b in zip(old, made, strict=False) if a != b]
                if moved:
                    what = f"the addresses of {len(moved)} agents"
                    restored.fail(f"{what}, {moved[0]} the first of them")
        if self._connections:
            wanted = {agent: list(known.items()) for agent, known in self._connections.items()}
            arguments = codec.encode(((wanted,), {}))
            answer = await self._try(restored, "connections", "create_connections", arguments)
            if answer is not None:
                # One answer for each agent that exists.
                restored.connections = sum(map(len, codec.decode(answer)))
                missing = sum(map(len, wanted.values())) - restored.connections
                if missing > 0:
                    restored.fail(f"{missing} connections, whose agents are not there")
        if self._checkpoint is not None:
            answer = await self._try(restored, "its checkpoint", "restore", self._checkpoint)
            restored.checkpoint |= answer is not None
        elif self._no_checkpoint:
            restored.fail(f"its checkpoint: {self._no_checkpoint}")
        return restored

    async def _try(
        self, restored: Restored, what: str, method: str, arguments: Payload
    ) -> Payload | None:
        """Call the manager; an error is noted in ``restored``, and the answer is None."""
        try:
            # ``at_once``: other calls wait until this slave is restored, which these calls do.
            return await self._network.send(self._manager, method, arguments, at_once=True)
        except ConnectionLost:
            raise
        except (CreamasError, AgentErrors) as error:
            restored.fail(f"{what}: {error}")
            return None


def _first_number(spawn: _Spawn) -> int:
    """The first agent's: numbers show the order of spawning, the order of replies may not."""
    return int(spawn.addresses[0].rpartition("/")[2]) if spawn.addresses else 0


def _addresses(answer: Any) -> list[str]:
    """Of the agents that a spawn made: ``(agent, address)``, or a list of these."""
    made = [answer] if isinstance(answer, tuple) else answer
    return [address for _, address in made]


def _without_views(payload: Payload) -> Payload:
    """Copy the large parts, which may be views of memory that the caller changes."""
    return Payload(payload.body, [bytes(part) for part in payload.parts])

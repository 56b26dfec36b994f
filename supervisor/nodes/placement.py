"""Where the actors of one simulation run: here, or on nodes, as their orders say.

For a pool it has the methods of `Simulation`, so starts are all or none, and stops are side by
side, wherever the actors are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import trio

from creamas_sc.errors import StartError
from creamas_sc.runtime.coroutines import at_once
from creamas_sc.runtime.process_load import UNKNOWN, ProcessLoad, load_of
from creamas_sc.supervisor_client.messages import ActorOrder, Code
from supervisor.actors.tractor_adapter import Actor, Simulation
from supervisor.nodes.joined_node import JoinedNode
from supervisor.nodes.registry import NodeRegistry
from supervisor.nodes.remote_actor import RemoteActor


class Placement:
    """Where the actors of one simulation run.

    Args:
        here: For those that run on this machine.
        nodes: For the others.
    """

    def __init__(self, here: Simulation, nodes: NodeRegistry) -> None:
        self._here = here
        self._nodes = nodes
        self._prefix = nodes.new_prefix()
        self._code: set[str] = set()
        # Slots of what ran on nodes that are lost: which node, and until when it may run there.
        self._unclear: dict[str, tuple[str, float]] = {}

    def make(
        self,
        order: ActorOrder,
        name: str,
        number: int,
        inherit: Sequence[int] = (),
        code: Code | None = None,
    ) -> Actor | RemoteActor:
        """An actor that can be started.

        Raises:
            StartError: There is no such node.
        """
        node = order.get("node", "")
        if not node:
            return Actor(order["slot"], name, number, inherit)
        joined = self._nodes.find(node)
        if code is not None:
            self._code.add(code["simulation"])
        key = f"{self._prefix}/{order['slot']}"
        return RemoteActor(order["slot"], name, number, joined, key, code)

    async def wait_until_clear(self, slots: Sequence[str]) -> None:
        """Wait until nothing that was started in these slots can run on a node that is lost.

        Raises:
            StartError: The caller's deadline comes first.
        """
        for slot in slots:
            node, until = self._unclear.get(slot, ("", 0.0))
            if until > trio.current_effective_deadline():
                seconds = until - trio.current_time()
                raise StartError(
                    f"what runs in slot {slot} may go on for another {seconds:.1f} s: its node "
                    f"{node} is lost, and ends it by then"
                )
            if node:
                await trio.sleep_until(until)
                del self._unclear[slot]

    async def start(self, actor: Any, order: ActorOrder, on_end: Callable[[Any], None]) -> None:
        """As `Simulation.start`.

        Raises:
            StartError: The node is gone.
        """

        def end(ended: RemoteActor) -> None:
            if ended.clear_at is not None:
                self._unclear[ended.slot] = ended.node, ended.clear_at
            on_end(ended)

        if isinstance(actor, RemoteActor):
            actor.begin(order, end)
        else:
            await self._here.start(actor, order, on_end)

    async def loads(self, actors: Sequence[Any]) -> dict[str, ProcessLoad]:
        """What these take of their machines, by slot."""
        loads = {each.slot: UNKNOWN if each.node else load_of(each.pid) for each in actors}
        there = _by_node(actors)
        for answer in await at_once(lambda node: node.loads(there[node]), list(there)):
            loads |= answer
        return loads

    async def stacks(self, actors: Sequence[Any], seconds: float) -> dict[str, Any]:
        """Where the code of those on nodes is just now, by slot; see `JoinedNode.stacks`."""
        there = _by_node(actors)
        answers = await at_once(lambda node: node.stacks(there[node], seconds), list(there))
        return {slot: each for answer in answers for slot, each in answer.items()}

    def forget(self) -> None:
        """Have nodes forget the simulation's code."""
        for simulation in self._code:
            self._nodes.forget(simulation)


def _by_node(actors: Sequence[Any]) -> dict[JoinedNode, list[RemoteActor]]:
    """Those that are on nodes."""
    there: dict[JoinedNode, list[RemoteActor]] = {}
    for actor in actors:
        if isinstance(actor, RemoteActor):
            there.setdefault(actor.joined, []).append(actor)
    return there

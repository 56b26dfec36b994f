"""The nodes of a supervisor, by name, and the listener that lets them in."""

from __future__ import annotations

import itertools
import logging
import platform
from typing import TYPE_CHECKING

import trio

from creamas_sc.errors import BadValue, CallRefused, StartError
from creamas_sc.runtime.coroutines import at_once
from creamas_sc.runtime.installation import installed_version
from creamas_sc.runtime.validation import check_count, check_seconds
from creamas_sc.supervisor_client import messages
from supervisor.nodes.joined_node import JoinedNode
from supervisor.nodes.received import about_of
from supervisor.rpc_server import start_apart

if TYPE_CHECKING:
    from supervisor.nodes.listener import NodeListener

log = logging.getLogger(__name__)

MAX_NODES = 512


class NodeRegistry:
    """The nodes that have joined, in the order in which they did.

    Args:
        nursery: Runs the listener, and the nodes.
    """

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._nodes: dict[str, JoinedNode] = {}
        self._changed = trio.Event()
        self._prefixes = itertools.count(1)
        self._listener: NodeListener | None = None
        self._version = ""

    # ---- joining and leaving

    async def listen(self, settings: messages.NodeSettings) -> tuple[str, int]:
        """Let nodes in from now on; returns where.

        Raises:
            CallRefused: They are let in already.
            BadValue, StartError: As of `NodeListener.open`.
        """
        # Its imports are large, and few have nodes.
        from supervisor.nodes.listener import NodeListener

        if self._listener is not None:
            raise CallRefused("this supervisor listens for nodes already")
        self._version = installed_version()  # an upgrade of the files does not change what runs
        self._listener = await NodeListener.open(settings, self)
        start_apart(self._nursery, self._listener.run)
        return self._listener.address

    def admit(self, node: JoinedNode, about: object) -> str:
        """Take a node in that says this of itself; its name.

        Raises:
            BadValue, CallRefused: It cannot be one of these.
        """
        node.about = told = about_of(about)
        name = told["name"]
        if self._listener is None:
            raise CallRefused("the supervisor takes no nodes any more")
        ours = self._version, ".".join(platform.python_version_tuple()[:2])
        if (told["version"], told["python"]) != ours:
            raise CallRefused(
                f"node {name} has creamas_sc {told['version']} on Python {told['python']}, and its "
                f"supervisor {ours[0]} on Python {ours[1]}: both need the same"
            )
        for other in list(self._nodes.values()):
            if other.about["instance"] == told["instance"]:
                other.drop("it has joined again")
        if len(self._nodes) >= MAX_NODES:
            raise CallRefused(f"the supervisor has {MAX_NODES} nodes already")
        names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
        free = next(each for each in names if each not in self._nodes)
        self._nodes[free] = node
        self._wake()
        log.info("node %s has joined, with %d cores", free, told["cores"])
        return free

    def remove(self, node: JoinedNode) -> None:
        """Take out a node that has ended."""
        del self._nodes[node.name]
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def aclose(self, why: str) -> None:
        """Let no more nodes in, and end those that have joined; within a bound."""
        listener, self._listener = self._listener, None
        if listener is None:
            return
        await at_once(lambda node: node.end(why), list(self._nodes.values()))
        await listener.aclose()

    # ---- asking

    def new_prefix(self) -> str:
        """Make the slots of a simulation unique on all nodes."""
        return str(next(self._prefixes))

    def find(self, name: str) -> JoinedNode:
        """The node of that name.

        Raises:
            StartError: There is none.
        """
        node = self._nodes.get(name)
        if node is None:
            there = f"there are {', '.join(self._nodes)}" if self._nodes else "there is none"
            raise StartError(f"there is no node {name!r:.100}: {there}")
        return node

    def forget(self, simulation: str) -> None:
        """Have all nodes forget a simulation's code."""
        for node in self._nodes.values():
            node.forget(simulation)

    async def nodes(self) -> list[messages.NodeInfo]:
        """All that have joined, in that order."""
        return [node.info() for node in self._nodes.values()]

    async def wait_nodes(self, count: int, timeout: float) -> list[messages.NodeInfo]:
        """Wait until ``count`` nodes have joined, but not longer than ``timeout``; all there are.

        Raises:
            BadValue: An argument is not valid, or no nodes can join.
        """
        check_count("count", count)
        check_seconds(timeout, "timeout", endless=False)
        if self._listener is None:
            raise BadValue(
                "no nodes can join this simulation: pass nodes= to MultiEnvironment, or start the "
                "daemon with --listen HOST:PORT"
            )
        with trio.move_on_after(timeout):
            while len(self._nodes) < count:
                await self._changed.wait()
        return await self.nodes()

    async def node_access(self) -> dict[str, object]:
        """What a node needs to join: "host", "port" and "key", and the "key_file" that has it.

        Raises:
            BadValue: The supervisor does not listen for nodes.
        """
        if self._listener is None:
            raise BadValue(
                "this daemon does not listen for nodes: start it with --listen HOST:PORT, as in "
                "creamas-supervisor start --listen 0.0.0.0:0"
            )
        host, port = self._listener.address
        key, key_file = self._listener.key, self._listener.key_file
        return {"host": host, "port": port, "key": key, "key_file": key_file}

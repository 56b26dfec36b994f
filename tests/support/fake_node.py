"""A node without processes, joined in memory to a supervisor's registry."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any, cast

import trio

from creamas_sc.errors import ConnectionLost, CreamasError, StartError
from creamas_sc.runtime.installation import installed_version
from creamas_sc.supervisor_client.messages import ActorExit, Code, NodeAbout
from creamas_sc.wire.frames import FrameReader
from supervisor.nodes.joined_node import JoinedNode
from supervisor.nodes.registry import NodeRegistry
from supervisor.rpc_server import Method, MethodServer
from supervisor.timeouts import RENEW_SECONDS
from tests.support.streams import memory_pair

LEASE = 10.0


def about(name: str = "a", **changes: Any) -> NodeAbout:
    """What a node of that name says of itself."""
    told = {
        "name": name,
        "instance": os.urandom(4).hex(),
        "host": "192.0.2.1",
        "pid": 7,
        "cores": 4,
        "memory": 1 << 30,
        "engine": "",
        "version": installed_version(),
        "python": "{}.{}".format(*sys.version_info),
        **changes,
    }
    return cast(NodeAbout, told)


class FakeNode:
    """A node; with `open` it joins.

    Attributes:
        running: Process ids, by slot.
        calls: What it was asked, in order.
        answers: While not set, nothing is answered.
        up: While not set, nothing that is started comes up.
        refusal: Of starts; none if empty.
        ended: Why it was asked to end.
    """

    def __init__(self, registry: NodeRegistry, nursery: trio.Nursery, lease: float = LEASE) -> None:
        self._nursery = nursery
        near, far = memory_pair()
        self.joined = JoinedNode(far, registry, lease, "192.0.2.1:5")
        methods: list[Method] = [
            self.start,
            self.stop,
            self.loads,
            self.stacks,
            self.forget,
            self.end,
        ]
        named = {method.__name__: method for method in methods}
        self.server = MethodServer(near, named, "the supervisor", FrameReader())
        self.running: dict[str, int] = {}
        self.calls: list[tuple[Any, ...]] = []
        self.answers = trio.Event()
        self.answers.set()
        self.up = trio.Event()
        self.up.set()
        self.refusal = ""
        self.ended = ""
        self.renewing = trio.CancelScope()
        self._pids = iter(range(100, 10_000))

    async def join(self, told: object) -> dict[str, Any]:
        """Connect and join; what the supervisor answers."""
        self._nursery.start_soon(self.server.connection.run)
        self._nursery.start_soon(self.joined.run)
        answer: dict[str, Any] = await self.server.call("join", told)
        self._nursery.start_soon(self._renew)
        return answer

    async def _renew(self) -> None:
        with self.renewing:
            while True:
                await trio.sleep(RENEW_SECONDS)
                try:
                    await self.server.call("renew")
                except CreamasError:
                    return

    def cut(self) -> None:
        """End the connection."""
        self.renewing.cancel()
        self.server.connection.abort()

    def fall_silent(self) -> None:
        """Renew no more, and answer nothing."""
        self.renewing.cancel()
        self.answers = trio.Event()

    def exit(self, slot: str, **changes: Any) -> None:
        """A process ends by itself."""
        self._report(slot, self.running.pop(slot), **{"expected": False, **changes})

    def _report(self, slot: str, pid: int, **changes: Any) -> None:
        message = {**_end(slot, pid), "expected": True, "returned": True, **changes}
        self.server.post("exited", cast(ActorExit, message))

    # ---- what the supervisor asks

    async def start(
        self, orders: Sequence[Any], timeout: float, code: Code | None
    ) -> list[dict[str, Any]]:
        """Start processes."""
        self.calls.append(("start", [order["slot"] for order in orders], code))
        if orders and self.refusal:
            raise StartError(self.refusal)
        started = []
        for order in orders:
            pid = self.running[order["slot"]] = next(self._pids)
            started.append({"slot": order["slot"], "pid": pid, "info": order["spec"]})
        try:
            await self.up.wait()
        except trio.Cancelled:
            for order in orders:
                del self.running[order["slot"]]
            raise
        await self.answers.wait()
        return started

    async def stop(
        self, slots: Sequence[str], grace: float, payload: bytes
    ) -> list[dict[str, Any]]:
        """Stop processes."""
        self.calls.append(("stop", list(slots), grace, payload))
        await self.answers.wait()
        for slot in slots:
            if slot not in self.running:
                raise CreamasError(f"no actor in slot {slot}")
        results = []
        for slot in slots:
            pid = self.running.pop(slot)
            self._report(slot, pid)
            done = {"seconds": 0.1, "graceful": True, "ended_by": "request", "payload": payload}
            results.append({**_end(slot, pid), **done})
        return results

    async def loads(self, slots: Sequence[str]) -> dict[str, Any]:
        """Tell loads."""
        await self.answers.wait()
        load = {"state": "sleeping", "cpu_seconds": 1.0, "memory_bytes": 2}
        return {slot: load for slot in slots if slot in self.running}

    async def stacks(self, slots: Sequence[str], seconds: float) -> dict[str, Any]:
        """Tell where code is."""
        await self.answers.wait()
        return {slot: ("running", {"places": []}, (), "") for slot in slots}

    async def forget(self, simulation: str) -> None:
        """Forget code."""
        self.calls.append(("forget", simulation))

    async def end(self, why: str) -> None:
        """End."""
        await self.answers.wait()
        self.ended = why

    async def leave(self) -> None:
        """Say that nothing runs here any more."""
        try:
            await self.server.call("leave", "its job is over")
        except ConnectionLost:
            return


def _end(slot: str, pid: int) -> dict[str, Any]:
    return {
        "slot": slot,
        "pid": pid,
        "exit_code": 0,
        "signal": None,
        "error": None,
        "traceback": "",
    }

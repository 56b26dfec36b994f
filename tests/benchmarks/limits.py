"""The bare limit: forked workers, a pipe and pickle each, hand-written batches, and no library.

Agents are plain objects in a list. They have addresses, but cannot be called; nothing has a
deadline, nothing can be cancelled, an error ends everything. What a library adds is to be compared
with this.
"""

from __future__ import annotations

import asyncio
import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any

from tests.benchmarks.adapter import Adapter, drive
from tests.benchmarks.measures import shares
from tests.benchmarks.work import OUTSIDE_SECONDS, burn, burn_unevenly

__all__ = ["Fork"]

PR_SET_PDEATHSIG = 1


class Counter:
    """A plain agent."""

    def __init__(self, addr: str) -> None:
        self.addr = addr
        self.count = 0
        self.connections: dict[str, dict[str, Any]] = {}

    async def act(self, *args: Any) -> Any:
        self.count += 1
        return self.count

    def add_connections(self, connections: Sequence[Any]) -> list[bool]:
        """Whether each was new."""
        new = []
        for addr, data in connections:
            new.append(addr not in self.connections)
            self.connections.setdefault(addr, dict(data))
        return new


class Echo(Counter):
    """Returns its arguments."""

    async def act(self, *args: Any, **kwargs: Any) -> Any:
        return args, kwargs


class Burner(Counter):
    """Holds the processor."""

    async def act(self, *args: Any) -> Any:
        return burn()


class Pausing(Counter):
    """Waits once in each act; `Worker` makes a task of each."""

    async def act(self, *args: Any) -> Any:
        import trio

        await trio.lowlevel.checkpoint()


class Uneven(Counter):
    """Works for a moment, one of a hundred for a hundred times as long."""

    async def act(self, *args: Any) -> Any:
        return burn_unevenly(int(self.addr.rpartition("/")[2]))


class Outside(Pausing):
    """Waits for the outside."""

    async def act(self, *args: Any) -> Any:
        import trio

        await trio.sleep(OUTSIDE_SECONDS)


KINDS: dict[str, type[Counter]] = {
    "Burner": Burner,
    "Counter": Counter,
    "Echo": Echo,
    "Outside": Outside,
    "Pausing": Pausing,
    "Uneven": Uneven,
}


class Worker:
    """What runs in a slave."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.agents: dict[str, Counter] = {}
        self.loop: asyncio.AbstractEventLoop

    def serve(self, pipe: Connection, parent: int) -> None:
        """Carry out what comes, until the master ends it."""
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self.loop = asyncio.new_event_loop()
        while os.getppid() == parent:
            method, args = pipe.recv()
            pipe.send(getattr(self, method)(*args))

    def pid(self) -> int:
        """The first question, whose answer says that the worker is up."""
        return os.getpid()

    def spawn(self, kind: str, n: int) -> list[str]:
        """New agents; their addresses."""
        cls, first = KINDS[kind], len(self.agents)
        addrs = [f"{self.name}/{number}" for number in range(first, first + n)]
        self.agents.update((addr, cls(addr)) for addr in addrs)
        return addrs

    def trigger_all(self, *args: Any) -> list[Any]:
        """Act after act in one task; or a task an agent where agents wait."""
        if any(isinstance(agent, Pausing) for agent in self.agents.values()):
            import trio

            return trio.run(self._tasks, args)
        return self.loop.run_until_complete(self._acts(args))

    async def _acts(self, args: tuple[Any, ...]) -> list[Any]:
        return [await agent.act(*args) for agent in self.agents.values()]

    async def _tasks(self, args: tuple[Any, ...]) -> list[Any]:
        import trio

        results: list[Any] = [None] * len(self.agents)

        async def act(position: int, agent: Counter) -> None:
            results[position] = await agent.act(*args)

        async with trio.open_nursery() as nursery:
            for position, agent in enumerate(self.agents.values()):
                nursery.start_soon(act, position, agent)
        return results

    def get_agents(self) -> list[str]:
        """Addresses."""
        return list(self.agents)

    def get_connections(self) -> list[tuple[str, dict[str, Any]]]:
        """Of each agent."""
        return [(addr, agent.connections) for addr, agent in self.agents.items()]

    def create_connections(self, connection_map: Mapping[str, Sequence[Any]]) -> list[Any]:
        """For each agent, whether each was new."""
        return [self.agents[addr].add_connections(c) for addr, c in connection_map.items()]


class Fork(Adapter):
    """The master of the workers; its methods block."""

    peer = "limit"
    version = f"Python {'.'.join(map(str, sys.version_info[:3]))}"
    variants = ("fork",)

    def run(self, function: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        return drive(function, *args)

    async def start(self) -> None:
        fork = multiprocessing.get_context("fork")
        self._processes, self._pipes = [], []
        for number in range(self.slaves):
            ours, theirs = fork.Pipe()
            worker = Worker(f"w{number}")
            process = fork.Process(target=worker.serve, args=(theirs, os.getpid()))
            process.start()
            theirs.close()
            self._processes.append(process)
            self._pipes.append(ours)
        self._pids: list[int] = self._all("pid")
        self._turn = 0

    async def stop(self) -> None:
        for process in self._processes:
            process.kill()
        for process, pipe in zip(self._processes, self._pipes, strict=True):
            process.join()
            pipe.close()

    def _all(self, method: str, *args: Any) -> list[Any]:
        return self._each(method, [args] * self.slaves)

    def _each(self, method: str, args: Sequence[tuple[Any, ...]]) -> list[Any]:
        for pipe, its_args in zip(self._pipes, args, strict=True):
            pipe.send((method, its_args))
        return [pipe.recv() for pipe in self._pipes]

    async def spawn(self, kind: str, n: int) -> list[str]:
        made = self._each("spawn", [(kind, share) for share in shares(n, self.slaves)])
        return [addr for part in made for addr in part]

    async def spawn_one(self, kind: str) -> str:
        pipe = self._pipes[self._turn % self.slaves]
        self._turn += 1
        pipe.send(("spawn", (kind, 1)))
        (addr,) = pipe.recv()
        return str(addr)

    async def trigger_all(self, *args: Any) -> list[Any]:
        return [result for part in self._all("trigger_all", *args) for result in part]

    async def get_agents(self) -> list[str]:
        return [addr for part in self._all("get_agents") for addr in part]

    async def create_connections(self, connection_map: Mapping[str, Sequence[Any]]) -> list[Any]:
        parts: list[dict[str, Sequence[Any]]] = [{} for _ in range(self.slaves)]
        for addr, connections in connection_map.items():
            parts[int(addr[1 : addr.index("/")])][addr] = connections
        made = self._each("create_connections", [(part,) for part in parts])
        return [answer for part in made for answer in part]

    async def get_connections(self) -> list[tuple[str, dict[str, Any]]]:
        return [pair for part in self._all("get_connections") for pair in part]

    async def slave_pids(self) -> list[int]:
        return self._pids

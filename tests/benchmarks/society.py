"""This project, as a system that the workloads measure, in each of its forms.

Embedded, a script's own `MultiEnvironment`: "trio", awaited under trio, "rounds", the same with
agents' calls in rounds, and "sync", from plain code. "attached" and "attached-sync", a client of a
running daemon.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, contextmanager
from functools import partial
from typing import Any

from creamas_sc import __version__
from tests.benchmarks.adapter import Adapter, drive
from tests.benchmarks.measures import shares

__all__ = ["DAEMON", "Society", "society"]

MODULE = "tests.benchmarks.agents"
ANY_PORT = ("localhost", 0)
READY_SECONDS = 60
DAEMON = "benchmarks"


def society(variant: str, slaves: int) -> Society:
    """The adapter of that form."""
    return _FORMS[variant](variant, slaves)


class Society(Adapter):
    """What the forms have in common: each makes an operation's call in its own way.

    Attributes:
        addrs: Addresses of the slaves' managers.
        name: Of the simulation in the daemon; of an attached form.
    """

    peer = "creamas_sc"
    version = f"{__version__}, Python {'.'.join(map(str, sys.version_info[:3]))}"
    variants = ("trio", "rounds", "sync", "attached", "attached-sync")

    addrs: list[str]
    name: str
    _callers: list[Any]
    _n: int

    @classmethod
    def surroundings(cls, variant: str) -> Any:
        """For the attached forms, a daemon."""
        return _daemon() if variant.startswith("attached") else super().surroundings(variant)

    @abstractmethod
    async def _call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """Carry out an operation of `MultiEnvironment`."""

    @abstractmethod
    async def _at_once(self, calls: Sequence[Callable[[], Any]]) -> list[Any]:
        """Make calls concurrently, where the form can."""

    @abstractmethod
    async def pids(self) -> dict[str, int]:
        """Processes by what they are: "host" where there is one, and slaves by number."""

    async def slave_pids(self) -> list[int]:
        return [pid for name, pid in (await self.pids()).items() if name != "host"]

    @abstractmethod
    def _operation(self, name: str) -> Callable[..., Any]:
        """What makes the call, for `_at_once`."""

    async def spawn(self, kind: str, n: int) -> list[str]:
        spawn_n = self._operation("spawn_n")
        made = await self._at_once(
            [
                partial(spawn_n, f"{MODULE}:{kind}", share, addr=addr)
                for addr, share in zip(self.addrs, shares(n, self.slaves), strict=True)
            ]
        )
        return [addr for part in made for _, addr in part]

    async def spawn_one(self, kind: str) -> str:
        _, addr = await self._call("spawn", kind if ":" in kind else f"{MODULE}:{kind}")
        return str(addr)

    async def trigger_all(self, *args: Any) -> list[Any]:
        return await self._call("trigger_all", *args)  # type: ignore[no-any-return]

    async def get_agents(self) -> list[str]:
        return await self._call("get_agents")  # type: ignore[no-any-return]

    async def create_connections(self, connection_map: Mapping[str, Sequence[Any]]) -> list[Any]:
        return await self._call("create_connections", connection_map)  # type: ignore[no-any-return]

    async def get_connections(self) -> list[tuple[str, dict[str, Any]]]:
        return await self._call("get_connections")  # type: ignore[no-any-return]

    async def setup_calls(self, n: int, local: bool) -> None:
        first, other = self.addrs[0], self.addrs[0 if local else 1]
        self._callers = []
        for _, rater in await self._call("spawn_n", f"{MODULE}:Rater", n, addr=other):
            caller, _ = await self._call("spawn", f"{MODULE}:Caller", rater, addr=first)
            self._callers.append(caller)

    async def run_calls(self, m: int) -> None:
        done = await self._at_once([partial(caller.act, m) for caller in self._callers])
        assert done == [m] * len(self._callers)

    async def latencies(self, m: int) -> list[float]:
        (took,) = await self._at_once([partial(self._callers[0].measure, m)])
        return took  # type: ignore[no-any-return]

    @property
    def places(self) -> list[str]:
        """What the addresses of a slave's agents begin with, for each slave."""
        return [addr.removesuffix("0") for addr in self.addrs]

    async def setup_step_calls(self, n: int) -> None:
        first, second = self.addrs
        await self._call("spawn_n", f"{MODULE}:StepCaller", n, addr=first)
        await self._call("spawn_n", f"{MODULE}:Rater", n, addr=second)

    async def step_calls(self, m: int) -> None:
        await self.trigger_all(self.places[1], m)

    async def setup_opinions(self, n: int) -> None:
        self._n = len(await self.spawn("Critic", n))

    async def ask_opinions(self, m: int) -> None:
        heard = await self.trigger_all(self.places, self._n, m)
        assert heard == [0.5 * m] * self._n

    async def trigger_neighbours(self, n: int) -> list[Any]:
        return await self.trigger_all(self.places, n)

    async def payload(self, kind: str, nbytes: int, m: int) -> float:
        (took,) = await self._at_once([partial(self._callers[0].send, kind, nbytes, m)])
        return took  # type: ignore[no-any-return]


class _Embedded(Society):
    """A `MultiEnvironment` of this process.

    Attributes:
        calls: How agents' calls go in steps.
    """

    calls = "free"

    @abstractmethod
    async def _enter(self) -> None:
        """Begin the ``with`` block of the multi-environment."""

    @abstractmethod
    async def _leave(self) -> None:
        """End it."""

    @abstractmethod
    async def _finish(self, coroutine: Awaitable[Any]) -> Any:
        """Await it, or run it."""

    async def start(self) -> None:
        from creamas_sc import Environment, MultiEnvironment
        from creamas_sc.mp import EnvManager, MultiEnvManager

        self.marks["imported"] = time.monotonic()
        self.menv = MultiEnvironment(ANY_PORT, Environment, MultiEnvManager, calls=self.calls)
        await self._enter()
        places = [ANY_PORT] * self.slaves
        await self._finish(self.menv.spawn_slaves(places, Environment, EnvManager))
        self.marks["spawn_slaves done"] = time.monotonic()
        assert await self._finish(self.menv.wait_slaves(READY_SECONDS, check_ready=True))
        self.addrs = self.menv.addrs

    async def stop(self) -> None:
        report = await self._finish(self.menv.close(as_coro=True))
        await self._leave()
        assert report.graceful, report

    def _operation(self, name: str) -> Callable[..., Any]:
        method: Callable[..., Any] = getattr(self.menv, name)
        plain = name in ("get_agents", "create_connections", "get_connections")
        return partial(method, as_coro=True) if plain else method

    async def _call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        return await self._finish(self._operation(name)(*args, **kwargs))

    async def _at_once(self, calls: Sequence[Callable[[], Any]]) -> list[Any]:
        return await self._finish(_gathered(calls))  # type: ignore[no-any-return]

    async def pids(self) -> dict[str, int]:
        members = self.menv._slaves.members
        return {f"slave {number}": slave.pid for number, slave in enumerate(members)}


class _Trio(_Embedded):
    _exits: AsyncExitStack

    def run(self, function: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        import trio

        return trio.run(self._guarded, function, *args)

    async def _guarded(self, function: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        async with AsyncExitStack() as self._exits:
            return await function(*args)

    async def _enter(self) -> None:
        await self._exits.enter_async_context(self.menv)

    async def _leave(self) -> None:
        await self._exits.aclose()

    async def _finish(self, coroutine: Awaitable[Any]) -> Any:
        return await coroutine


class _Rounds(_Trio):
    calls = "rounds"


class _Sync(_Embedded):
    _exits: ExitStack

    def run(self, function: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        with ExitStack() as self._exits:
            return drive(function, *args)

    async def _enter(self) -> None:
        self._exits.enter_context(self.menv)

    async def _leave(self) -> None:
        self._exits.close()

    async def _finish(self, coroutine: Awaitable[Any]) -> Any:
        from creamas_sc import run

        return run(coroutine)


class _Attached(Society):
    """A client of a daemon, under trio."""

    _exits: AsyncExitStack

    def run(self, function: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        import trio

        return trio.run(self._guarded, function, *args)

    async def _guarded(self, function: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        async with AsyncExitStack() as self._exits:
            return await function(*args)

    async def start(self) -> None:
        from creamas_sc.client import connect

        self.name = f"bench-{os.getpid()}"
        self._client = await self._exits.enter_async_context(connect(DAEMON))
        self.marks["connected"] = time.monotonic()
        created = await self._client.create(
            self.name, slave_addrs=[ANY_PORT] * self.slaves, calls="free"
        )
        self.addrs = created["addrs"]
        self._simulation = await self._exits.enter_async_context(self._client.attach(self.name))
        assert await self._simulation.wait_slaves(READY_SECONDS, check_ready=True)

    async def stop(self) -> None:
        report = await self._client.close(self.name)
        await self._exits.aclose()
        assert report.graceful, report

    def _operation(self, name: str) -> Callable[..., Any]:
        return getattr(self._simulation, name)  # type: ignore[no-any-return]

    async def _call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        return await self._operation(name)(*args, **kwargs)

    async def _at_once(self, calls: Sequence[Callable[[], Any]]) -> list[Any]:
        return await _gathered(calls)

    async def pids(self) -> dict[str, int]:
        simulation = await self._client.inspect(self.name)
        return {p["slot"]: p["pid"] for p in simulation["processes"]}


class _AttachedSync(Society):
    """A blocking client of a daemon: its calls are made one after the other."""

    _exits: ExitStack

    def run(self, function: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        with ExitStack() as self._exits:
            return drive(function, *args)

    async def start(self) -> None:
        from creamas_sc.client import connect_sync

        self.name = f"bench-{os.getpid()}"
        self._client = self._exits.enter_context(connect_sync(DAEMON))
        self.marks["connected"] = time.monotonic()
        created = self._client.create(self.name, slave_addrs=[ANY_PORT] * self.slaves, calls="free")
        self.addrs = created["addrs"]
        self._simulation = self._exits.enter_context(self._client.attach(self.name))
        assert self._simulation.wait_slaves(READY_SECONDS, check_ready=True)

    async def stop(self) -> None:
        report = self._client.close(self.name)
        self._exits.close()
        assert report.graceful, report

    def _operation(self, name: str) -> Callable[..., Any]:
        return getattr(self._simulation, name)  # type: ignore[no-any-return]

    async def _call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        return self._operation(name)(*args, **kwargs)

    async def _at_once(self, calls: Sequence[Callable[[], Any]]) -> list[Any]:
        return [call() for call in calls]

    async def pids(self) -> dict[str, int]:
        simulation = self._client.inspect(self.name)
        return {p["slot"]: p["pid"] for p in simulation["processes"]}


_FORMS: dict[str, type[Society]] = {
    "trio": _Trio,
    "rounds": _Rounds,
    "sync": _Sync,
    "attached": _Attached,
    "attached-sync": _AttachedSync,
}


async def _gathered(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """Under trio; the results in order."""
    import trio

    results: list[Any] = [None] * len(calls)

    async def make(position: int, call: Callable[[], Any]) -> None:
        results[position] = await call()

    async with trio.open_nursery() as nursery:
        for position, call in enumerate(calls):
            nursery.start_soon(make, position, call)
    return results


@contextmanager
def _daemon() -> Iterator[None]:
    """A new daemon with a new folder, which its processes find by the environment."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_RUNTIME_DIR"] = os.environ["CREAMAS_LOG_FOLDER"] = folder
        command = [sys.executable, "-m", "supervisor.cli"]
        quiet = subprocess.DEVNULL
        subprocess.run([*command, "start", "--daemon", DAEMON], check=True, stdout=quiet)
        try:
            yield
        finally:
            subprocess.run([*command, "stop", "--daemon", DAEMON], check=True, stdout=quiet)

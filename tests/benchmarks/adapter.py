"""What a system must be able to do for the workloads to measure it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

__all__ = ["Adapter", "drive"]


def drive(function: Callable[..., Awaitable[Any]], *args: Any) -> Any:
    """Run an async function that never suspends, without a loop."""
    running = function(*args).__await__()
    try:
        next(running)
    except StopIteration as end:
        return end.value
    raise RuntimeError(f"{function} waits for something, and no loop runs")


class Adapter(ABC):
    """A system under measurement, with slaves and agents.

    Workloads are async functions that await nothing but these methods, so `run` may be any loop, or
    none. Kinds of agents are the names of classes in `tests.benchmarks.agents`.

    Attributes:
        peer, version: Who it is, in results.
        variants: Its forms; the first is the default.
        marks: Further moments of `start`, by `time.monotonic`: name -> seconds.
    """

    peer: ClassVar[str]
    version: ClassVar[str] = ""
    variants: ClassVar[tuple[str, ...]] = ("",)

    def __init__(self, variant: str, slaves: int) -> None:
        self.variant = variant
        self.slaves = slaves
        self.marks: dict[str, float] = {}

    @classmethod
    def surroundings(cls, variant: str) -> AbstractContextManager[None]:
        """What must be there before the first process that is measured, such as a daemon."""
        return nullcontext()

    def setup(self) -> None:
        """What must be done outside the loop."""
        return

    @abstractmethod
    def run(self, function: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        """Run an async function to its end."""

    @abstractmethod
    async def start(self) -> None:
        """Bring up the slaves; returns when each has answered."""

    @abstractmethod
    async def stop(self) -> None:
        """End them; returns when they are gone."""

    @abstractmethod
    async def spawn(self, kind: str, n: int) -> list[str]:
        """Make agents, spread evenly over the slaves; their addresses."""

    @abstractmethod
    async def spawn_one(self, kind: str) -> str:
        """Make an agent in whichever slave the system chooses; its address."""

    @abstractmethod
    async def trigger_all(self, *args: Any) -> list[Any]:
        """Every agent acts once; all results."""

    @abstractmethod
    async def get_agents(self) -> list[str]:
        """Addresses of all agents."""

    @abstractmethod
    async def create_connections(self, connection_map: Mapping[str, Sequence[Any]]) -> list[Any]:
        """Address -> ``[(address, data)]``; for each agent, whether each was new."""

    @abstractmethod
    async def get_connections(self) -> list[tuple[str, dict[str, Any]]]:
        """``(address, {neighbour: data})`` of all agents."""

    @abstractmethod
    async def slave_pids(self) -> list[int]:
        """The slaves' processes."""

    async def setup_calls(self, n: int, local: bool) -> None:
        """Callers in the first slave, each with an agent of its own to call: in the second slave,
        or, if ``local``, in the first as well."""
        raise NotImplementedError

    async def run_calls(self, m: int) -> None:
        """All callers at once make that many calls each, one after the other."""
        raise NotImplementedError

    async def latencies(self, m: int) -> list[float]:
        """The first caller alone: the seconds of each of that many calls."""
        raise NotImplementedError

    async def payload(self, kind: str, nbytes: int, m: int) -> float:
        """The first caller has "numpy" arrays or "bytes" judged; the seconds of all."""
        raise NotImplementedError

    async def setup_step_calls(self, n: int) -> None:
        """Callers in the first slave, each with an agent of its own to call in the second one."""
        raise NotImplementedError

    async def step_calls(self, m: int) -> None:
        """One step, in which each caller makes that many calls, one after the other."""
        raise NotImplementedError

    async def setup_opinions(self, n: int) -> None:
        """Agents that ask each other, spread evenly over the slaves."""
        raise NotImplementedError

    async def ask_opinions(self, m: int) -> None:
        """One step, in which each asks so many others for an opinion of an array of 8 KiB."""
        raise NotImplementedError

    async def trigger_neighbours(self, n: int) -> list[Any]:
        """As `trigger_all`, of so many agents that ask one other each, if the system has calls."""
        return await self.trigger_all()

    def hang(self, kind: str, on_acting: Callable[[], object]) -> None:
        """Ten agents of that kind act, until a signal comes; ends as a user's script would."""

        async def acting() -> None:
            await self.start()
            try:
                await self.spawn(kind, 10)
                on_acting()
                await self.trigger_all()
            finally:
                await self.stop()

        self.setup()
        self.run(acting)

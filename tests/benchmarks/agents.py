"""Agents whose own work is next to nothing, so that what is measured is everything around it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import trio

from creamas_sc import Artifact, CreativeAgent, Environment, Proxy, expose
from tests.benchmarks.work import OUTSIDE_SECONDS, burn, burn_unevenly, touch


class Tally(CreativeAgent):
    """Counts its acts."""

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self.count = 0

    @expose
    async def act(self) -> int:
        self.count += 1
        return self.count

    @expose
    def get_count(self) -> int:
        return self.count


class Counter(Tally):
    """The agent of most workloads."""


class Echo(CreativeAgent):
    """Its ``act`` is the default one, which returns its arguments."""


class Pausing(CreativeAgent):
    """Waits once in each act."""

    @expose
    async def act(self) -> None:
        await trio.lowlevel.checkpoint()


class Burner(CreativeAgent):
    """Holds the processor for about a millisecond."""

    @expose
    async def act(self) -> int:
        return burn()


class Sleeper(CreativeAgent):
    """Waits for longer than anybody wants to."""

    @expose
    async def act(self) -> None:
        await trio.sleep(30)


class Busy(CreativeAgent):
    """Holds the processor for longer than anybody wants to."""

    @expose
    async def act(self) -> None:
        end = time.monotonic() + 30
        while time.monotonic() < end:
            burn()


class Publisher(CreativeAgent):
    """Makes an artifact an act."""

    @expose
    async def act(self) -> None:
        self.publish(Artifact(self, 0.5, domain=float))


class Rater(CreativeAgent):
    """Is called by a `Caller`."""

    @expose
    async def act(self, *args: Any) -> None:
        """Only callers do something."""

    @expose
    def evaluate(self, artifact: Any) -> tuple[float, None]:
        return touch(artifact.obj if isinstance(artifact, Artifact) else artifact), None


class Caller(CreativeAgent):
    """Calls a `Rater`, again and again."""

    def __init__(self, environment: Environment, rater: str) -> None:
        super().__init__(environment)
        self._address = rater
        self._proxy: Proxy | None = None

    async def _rater(self) -> Any:
        if self._proxy is None:
            self._proxy = await self.env.connect(self._address)
        return self._proxy

    @expose
    async def act(self, calls: int) -> int:
        """Make that many calls, one after the other."""
        rater = await self._rater()
        for number in range(calls):
            await rater.evaluate(number)
        return calls

    @expose
    async def measure(self, calls: int) -> list[float]:
        """The seconds of each of that many calls."""
        rater, took = await self._rater(), []
        for number in range(calls):
            began = time.perf_counter()
            await rater.evaluate(number)
            took.append(time.perf_counter() - began)
        return took

    @expose
    async def send(self, kind: str, nbytes: int, times: int) -> float:
        """Have an artifact of that size judged so many times; the seconds of all."""
        import numpy as np  # the other workloads' slaves go without it

        data: Any = np.ones(nbytes, dtype=np.uint8)
        if kind == "bytes":
            data = data.tobytes()
        rater, began = await self._rater(), time.perf_counter()
        for _ in range(times):
            await rater.evaluate(Artifact(self, data))
        return time.perf_counter() - began


class StepCaller(CreativeAgent):
    """Calls, in its act, the agent with its own number in another slave."""

    @expose
    async def act(self, place: str, calls: int) -> None:
        rater: Any = await self.env.connect(f"{place}{self.addr.rpartition('/')[2]}")
        for number in range(calls):
            await rater.evaluate(number)


class Neighbour(CreativeAgent):
    """Asks others, by its place in the society: its agents are spread evenly over the slaves."""

    def neighbour(self, places: Sequence[str], n: int, distance: int) -> str:
        """The address of the agent at that distance, of a society of ``n``."""
        place, slash, number = self.addr.rpartition("/")
        slave = places.index(place + slash)
        at = ((int(number) - 1) * len(places) + slave + distance) % n
        return f"{places[at % len(places)]}{at // len(places) + 1}"

    @expose
    def answer(self, value: Any) -> float:
        return 0.5


class Critic(Neighbour):
    """Asks others for an opinion of an array."""

    @expose
    async def act(self, places: Sequence[str], n: int, asked: int) -> float:
        import numpy as np  # the other workloads' slaves go without it

        array, total = np.full((32, 32), 0.5), 0.0
        for distance in range(1, asked + 1):
            other: Any = await self.env.connect(self.neighbour(places, n, 7 * distance))
            total += await other.opinion(array)
        return total

    @expose
    def opinion(self, array: Any) -> float:
        return float(array[0, 0])


class Uneven(Neighbour):
    """Works for a moment, one of a hundred for a hundred times as long, and asks another one."""

    @expose
    async def act(self, places: Sequence[str], n: int) -> None:
        burn_unevenly(int(self.addr.rpartition("/")[2]))
        other: Any = await self.env.connect(self.neighbour(places, n, 7))
        await other.answer(1)


class Outside(Neighbour):
    """Waits for the outside, and asks another one."""

    @expose
    async def act(self, places: Sequence[str], n: int) -> None:
        await trio.sleep(OUTSIDE_SECONDS)
        other: Any = await self.env.connect(self.neighbour(places, n, 7))
        await other.answer(1)


class Roamer(Neighbour):
    """Asks agents of all other slaves by turns, each of its slave another one."""

    @expose
    async def act(self, places: Sequence[str], n: int, calls: int) -> int:
        slaves = len(places)
        mine = int(self.addr.rpartition("/")[2])
        for number in range(calls):
            distance = 1 + (mine + number) % max(1, slaves - 1)
            other: Any = await self.env.connect(self.neighbour(places, n, distance))
            await other.answer(number)
        return calls

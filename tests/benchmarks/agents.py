"""Agents whose own work is next to nothing, so that what is measured is everything around it."""

from __future__ import annotations

import time
from typing import Any

import trio

from creamas_sc import Artifact, CreativeAgent, Environment, Proxy, expose
from tests.benchmarks.work import burn, touch


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

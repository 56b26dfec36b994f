"""How an environment's agents are made: all that one call asks for, or none."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import trio

from creamas_sc.core.randomness import Spawned
from creamas_sc.runtime.timeouts import YIELD_SECONDS


class Spawning:
    """Makes agents for one call after another.

    Args:
        agents: The environment's, which put themselves in there.

    Attributes:
        calls: The calls whose place in the order of spawning in the simulation is known.
    """

    def __init__(self, agents: list[Any]) -> None:
        self.calls: list[Spawned] = []
        self._agents = agents
        self._turn = trio.Lock()

    async def make(self, make: Callable[[], Any], n: int, index: int | None) -> list[Any]:
        """Call ``make`` as often as there are to be agents: all are made, or none.

        Other tasks may run every `YIELD_SECONDS`, so that this can be cancelled. Only if one of
        them makes an agent by itself meanwhile do those made here stay after an error: to remove
        them would change its address.

        Args:
            n: How many there will be.
            index: The first one's number in the order of spawning in the simulation, if known.
        """
        if self._turn.locked():
            await self._turn.acquire()
        else:
            self._turn.acquire_nowait()
        agents, count, alone = self._agents, len(self._agents), True
        if index is not None:
            self.calls.append(Spawned(count, index, n))
        made: list[Any] = []
        yield_at = time.perf_counter() + YIELD_SECONDS
        try:
            while len(made) < n:
                made.append(make())
                if time.perf_counter() > yield_at:
                    before = len(agents)
                    try:
                        await trio.lowlevel.checkpoint()
                    finally:
                        alone = alone and len(agents) == before
                    yield_at = time.perf_counter() + YIELD_SECONDS
        except BaseException:
            if alone:
                del agents[count:]
            raise
        finally:
            self._turn.release()
        return made

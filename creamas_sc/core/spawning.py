"""How an environment's agents are made, all that one call asks for or none; and their order."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import trio

from creamas_sc.core.randomness import RandomSource, Spawned
from creamas_sc.rpc.rounds.order import Order, sort_key
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

    def register(self, agent: Any, maker: Any) -> int:
        """Give a new agent its number in the environment.

        Args:
            maker: The agent whose code makes it, as part of a step in rounds, or None.
        """
        self._agents.append(agent)
        if maker is not None:
            agent._order = (*sort_key(maker.number), maker._made)
            maker._made += 1
        return len(self._agents) - 1

    def order(self, agent: Any, source: RandomSource) -> Order:
        """An agent's place in the order of spawning in the simulation."""
        return source.order(agent._number, self.calls)

    def generator(self, agent: Any, source: RandomSource, numpy: bool) -> Any:
        """Make an agent's random generator, Python's or numpy's."""
        order = agent._order
        made = order if type(order) is tuple and order[0] != sys.maxsize else None
        make = source.numpy_generator if numpy else source.generator
        return make(agent._number, self.calls, made)

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

"""How an environment's agents are made, all that one call asks for or none; and their order."""

from __future__ import annotations

import sys
import time
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from inspect import iscoroutine
from typing import Any

import trio

from creamas_sc.core.randomness import RandomSource, Spawned
from creamas_sc.rpc.rounds.order import Order, sort_key
from creamas_sc.runtime.timeouts import YIELD_SECONDS


@dataclass(slots=True)
class _Call:
    """A call that makes agents; ``registered``: how many it has put into the environment."""

    spawning: Spawning
    registered: int = 0


# The call by which the running task makes agents.
_call: ContextVar[_Call | None] = ContextVar("_call", default=None)


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
        call = _call.get()
        if call is not None and call.spawning is self:
            call.registered += 1
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
        made, number, calls = None, agent._number, self.calls
        if type(order) is tuple and order[0] != sys.maxsize:
            made = order
        elif type(order) is tuple:  # it may have been made in another slave, before a checkpoint
            source, number, calls = source._replace(environment=order[1]), order[2], []
        make = source.numpy_generator if numpy else source.generator
        return make(number, calls, made)

    async def make(
        self,
        make: Callable[[], Any],
        n: int,
        index: int | None,
        complete: Callable[[Any], Awaitable[Any]] | None = None,
    ) -> list[Any]:
        """Call ``make`` as often as there are to be agents: all are made, or none.

        Other tasks may run every `YIELD_SECONDS`, so that this can be cancelled, and while agents
        are completed. Only if one of them makes an agent by itself meanwhile do those made here
        stay after an error: to remove them would change its address.

        Args:
            n: How many there will be.
            index: The first one's number in the order of spawning in the simulation, if known.
            complete: Awaited with each thing that was made, in order; returns the agent.
        """
        if self._turn.locked():
            await self._turn.acquire()
        else:
            self._turn.acquire_nowait()
        agents, count, made = self._agents, len(self._agents), list[Any]()
        outer, call = _call.get(), _Call(self)
        _call.set(call)
        try:
            try:
                if index is not None:
                    self.calls.append(Spawned(count, index, n))
                await _make_all(make, n, made)
            finally:
                self._turn.release()
            if complete is not None:  # without a turn: it may wait for other spawns
                made[:] = [await complete(each) for each in made]
        except BaseException:
            for each in made:
                if iscoroutine(each):
                    each.close()
            if len(agents) - count == call.registered:
                del agents[count:]
            raise
        finally:
            _call.set(outer)
        if outer is not None and outer.spawning is self:  # it has made these on its own way
            outer.registered += call.registered
        return made


async def _make_all(make: Callable[[], Any], n: int, made: list[Any]) -> None:
    yield_at = time.perf_counter() + YIELD_SECONDS
    while len(made) < n:
        made.append(make())
        if time.perf_counter() > yield_at:
            await trio.lowlevel.checkpoint()
            yield_at = time.perf_counter() + YIELD_SECONDS

"""The society of a simulation: its agents and their connections, as plain values."""

from __future__ import annotations

from typing import Any, Final

import trio

from creamas_sc.errors import DeadlineExceeded
from creamas_sc.mp import MultiEnvironment
from creamas_sc.results.weights import weight
from creamas_sc.rpc.rounds.order import text_of
from creamas_sc.runtime.validation import check_seconds

MOST_EDGES: Final = 300_000


async def society_view(menv: MultiEnvironment, timeout: float | None) -> dict[str, Any]:
    """Ask all slaves, between two steps: a call within one would make it unrepeatable.

    Raises:
        DeadlineExceeded: The step under way was not done in time.
    """
    check_seconds(timeout)
    with trio.move_on_after(float("inf") if timeout is None else timeout) as waiting:
        async with menv._steps.lock:
            waiting.deadline = float("inf")
            return await _ask(menv)
    raise DeadlineExceeded(
        f"the step under way was not done after {timeout:g} s, and the agents are asked for "
        "between steps",
        acknowledged=True,
        may_have_run=False,
    )


async def _ask(menv: MultiEnvironment) -> dict[str, Any]:
    begin = trio.current_time()
    age = MultiEnvironment.overview(menv).counts["age"]
    if not menv._slaves.members:
        return {**_view(age, [], {}, []), "seconds": 0.0}
    # Not what a subclass overrides.
    agents = await MultiEnvironment.get_agents(menv, addr=False, as_coro=True)
    numbers = await MultiEnvironment.get_numbers(menv, as_coro=True)
    connections = await MultiEnvironment.get_connections(menv, data=True, as_coro=True)
    view = _view(age, agents, numbers, connections)
    return {**view, "seconds": trio.current_time() - begin}


def _view(age: int, agents: Any, numbers: Any, connections: Any) -> dict[str, Any]:
    """See `creamas_sc.simulation_api.SimulationAPI.get_society`."""
    addresses = [agent.addr for agent in agents]
    place = {address: at for at, address in enumerate(addresses)}
    edges = [
        (place[one], place[other], weight(data))
        for one, others in connections
        if one in place
        for other, data in others.items()
        if other in place
    ]
    kept = edges[:MOST_EDGES]
    return {
        "age": age,
        "address": addresses,
        "agent": [text_of(numbers[each]) if each in numbers else each for each in addresses],
        "type": [agent.class_name for agent in agents],
        "edges": len(edges),
        "from": [edge[0] for edge in kept],
        "to": [edge[1] for edge in kept],
        "weight": [edge[2] for edge in kept],
    }

"""Connects agents: as a graph of NetworkX does, or at random."""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable
from typing import Any

from creamas_sc.errors import BadValue
from creamas_sc.foreign import summary_of
from creamas_sc.simulation_files.plan import Connections
from creamas_sc.util import sort_by_number


def check_graph(connections: Connections) -> None:
    """Check that there is such a generator, and that it takes the arguments.

    Raises:
        BadValue: There is none, or it does not.
        ImportError: NetworkX is not installed.
    """
    _arguments(connections, 1, 1)


def connect(env: Any, connections: Connections) -> None:
    """Connect the agents of a simulation.

    Args:
        env: A `MultiEnvironment`, or an attached simulation of the blocking client.

    Raises:
        BadValue: The graph cannot be made, or has another number of nodes.
    """
    addrs = sort_by_number(env, env.get_agents())
    seed = env.get_seed() if hasattr(env, "get_seed") else env.seed
    generator = random.Random(f"{seed}/connections")
    if connections.graph is None:
        _connect_randomly(env, addrs, connections.random, generator)
        return
    from creamas_sc.nx import connections_from_graph

    make, arguments = _arguments(connections, len(addrs), generator.getrandbits(32))
    try:
        graph = make(**arguments)
        if graph.is_multigraph():  # two agents are connected or not
            import networkx

            graph = (networkx.DiGraph if graph.is_directed() else networkx.Graph)(graph)
        graph.remove_edges_from([(node, node) for node in graph if graph.has_edge(node, node)])
        connections_from_graph(env, graph)
    except Exception as error:  # of NetworkX
        raise BadValue(
            f"{connections.place}: {connections.graph} failed: {summary_of(error)}"
        ) from error


def _connect_randomly(env: Any, addrs: list[str], n: int, generator: random.Random) -> None:
    others = range(len(addrs) - 1)
    drawn = [generator.sample(others, min(n, len(others))) for _ in addrs]
    env.create_connections(
        {
            addr: [(addrs[other + (other >= own)], {}) for other in drawn[own]]
            for own, addr in enumerate(addrs)
        }
    )


def _arguments(
    connections: Connections, agents: int, seed: int
) -> tuple[Callable[..., Any], dict[str, Any]]:
    """A generator of NetworkX, and its arguments."""
    try:
        import networkx
    except ImportError as error:
        raise ImportError("graphs need NetworkX: pip install 'creamas-sc[nx]'") from error
    name = str(connections.graph)
    make = getattr(networkx, name, None)
    if not callable(make) or not str(make.__module__).startswith("networkx.generators."):
        raise BadValue(f"NetworkX has no generator of graphs of that name, {name}")
    signature = inspect.signature(make)
    usual = {"n": agents, "seed": seed}
    arguments = {name: value for name, value in usual.items() if name in signature.parameters}
    arguments.update(connections.arguments)
    try:
        signature.bind(**arguments)
    except TypeError as error:
        raise BadValue(f"{name}: {error}; it is {name}{signature}") from None
    return make, arguments

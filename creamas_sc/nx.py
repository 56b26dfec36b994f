"""Converts agents' connections from and to NetworkX graphs; needs the extra ``nx``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from creamas_sc.util import sort_by_number

if TYPE_CHECKING:
    import networkx

__all__ = ["connections_from_graph", "graph_from_connections"]


def connections_from_graph(env: Any, G: Any, edge_data: bool = False) -> None:
    """Connect agents in the way that the nodes of a graph are connected.

    The agents, except managers, are assigned to the nodes in the order of spawning, which depends
    on no slave or port. If each slave gets its agents by one ``spawn_n``, neighbouring nodes tend
    to share a slave. Each node gets its agent's address as the attribute ``addr``.

    Args:
        env: An Environment or MultiEnvironment, or an attached simulation of the blocking client.
        G: A NetworkX Graph (an edge connects both ways) or DiGraph, with a node for each agent.
        edge_data: Store the data of edges in the connections; its keys must be strings.

    Raises:
        ImportError: NetworkX is not installed.
        TypeError: ``G`` is not such a graph, or ``env`` is not an environment.
        ValueError: The numbers of nodes and agents differ.
    """
    nx = _networkx()
    if not isinstance(G, nx.Graph) or G.is_multigraph():
        raise TypeError(f"G must be a NetworkX Graph or DiGraph, not {type(G).__name__}")
    if not hasattr(env, "get_agents"):
        raise TypeError(f"env must be an environment, not {type(env).__name__}")
    addrs = sort_by_number(env, env.get_agents(addr=True))
    if len(addrs) != len(G):
        raise ValueError(f"the graph has {len(G)} nodes, the environment {len(addrs)} agents")
    addr_of = dict(zip(G, addrs, strict=True))
    nx.set_node_attributes(G, addr_of, "addr")
    env.create_connections(
        {
            addr: [
                (addr_of[other], dict(data) if edge_data else {})
                for other, data in G.adj[node].items()
            ]
            for node, addr in addr_of.items()
        }
    )


def graph_from_connections(env: Any, directed: bool = False) -> networkx.Graph[str]:
    """Return the graph of the agents' connections, with the connections' data as edge data.

    Args:
        env: As of `connections_from_graph`.
        directed: Make a DiGraph. In an undirected graph, an edge merges the data of both
            directions; where they differ, that of the agent that was spawned later wins.

    Returns:
        A NetworkX graph whose nodes are the addresses of all agents, except managers, in the order
        of spawning.

    Raises:
        ImportError: NetworkX is not installed.
    """
    nx = _networkx()
    graph: networkx.Graph[str] = nx.DiGraph() if directed else nx.Graph()
    connections = dict(env.get_connections(data=True))
    addrs = sort_by_number(env, connections)
    graph.add_nodes_from(addrs)
    for addr in addrs:
        graph.add_edges_from((addr, other, data) for other, data in connections[addr].items())
    return graph


def _networkx() -> Any:
    try:
        import networkx
    except ImportError as error:
        raise ImportError(
            "connections and graphs need NetworkX: pip install 'creamas-sc[nx]'"
        ) from error
    return networkx

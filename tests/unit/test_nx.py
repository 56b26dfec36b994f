"""Connections from and to graphs."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from creamas_sc.nx import connections_from_graph, graph_from_connections

nx = pytest.importorskip("networkx")

ADDRS = ["tcp://localhost:5556/1", "tcp://localhost:5556/2", "tcp://localhost:5556/10"]


class FakeEnvironment:
    """Holds connections as an environment of plain agents would."""

    def __init__(self, addrs: list[str]) -> None:
        self.known: dict[str, dict[str, Any]] = {addr: {} for addr in addrs}

    def get_agents(self, addr: bool) -> list[str]:
        assert addr
        return list(self.known)

    def create_connections(self, connections: dict[str, list[tuple[str, Any]]]) -> None:
        for addr, known in connections.items():
            self.known[addr].update(known)

    def get_connections(self, data: bool) -> list[tuple[str, dict[str, Any]]]:
        assert data
        return list(self.known.items())


@pytest.fixture
def env() -> FakeEnvironment:
    return FakeEnvironment(sorted(ADDRS))


def test_nodes_take_agents_in_the_order_of_addresses(env: FakeEnvironment) -> None:
    graph = nx.DiGraph([("a", "b"), ("b", "c")])
    connections_from_graph(env, graph)
    first, second, third = ADDRS
    assert env.known == {first: {second: {}}, second: {third: {}}, third: {}}
    assert dict(graph.nodes(data="addr")) == {"a": first, "b": second, "c": third}


class SlavesEnvironment(FakeEnvironment):
    """Its agents were spawned in the reverse order of their addresses."""

    def get_numbers(self) -> dict[str, int]:
        return {addr: number for number, addr in enumerate(reversed(ADDRS))}


def test_graphs_have_the_order_of_spawning() -> None:
    env = SlavesEnvironment(ADDRS)
    graph = nx.path_graph(3)
    connections_from_graph(env, graph, edge_data=True)
    assert dict(graph.nodes(data="addr")) == dict(enumerate(reversed(ADDRS)))
    third, second, _ = ADDRS
    env.known[second][third] = {"attitude": 0.1}
    env.known[third][second] = {"attitude": 0.9}
    seen = graph_from_connections(env)
    assert list(seen) == ADDRS[::-1]
    assert seen[second][third] == {"attitude": 0.9}, "the one that was spawned later prevails"


def test_an_undirected_edge_connects_both_ways(env: FakeEnvironment) -> None:
    connections_from_graph(env, nx.path_graph(3))
    first, second, third = ADDRS
    assert env.known == {first: {second: {}}, second: {first: {}, third: {}}, third: {second: {}}}


def test_edge_data_is_copied_when_asked(env: FakeEnvironment) -> None:
    graph = nx.Graph()
    graph.add_nodes_from(range(3))
    graph.add_edge(0, 1, attitude=0.5)
    connections_from_graph(env, graph)
    assert env.known[ADDRS[0]] == {ADDRS[1]: {}}
    connections_from_graph(env, graph, edge_data=True)
    there, back = env.known[ADDRS[0]][ADDRS[1]], env.known[ADDRS[1]][ADDRS[0]]
    assert there == back == {"attitude": 0.5}
    assert there is not back


@pytest.mark.parametrize("graph", [{}, [(0, 1)], nx.MultiGraph([(0, 1)])])
def test_only_simple_graphs(env: FakeEnvironment, graph: Any) -> None:
    with pytest.raises(TypeError, match=f"Graph or DiGraph, not {type(graph).__name__}"):
        connections_from_graph(env, graph)


def test_there_must_be_a_node_for_each_agent(env: FakeEnvironment) -> None:
    with pytest.raises(ValueError, match="the graph has 4 nodes, the environment 3 agents"):
        connections_from_graph(env, nx.path_graph(4))


def test_env_must_be_an_environment() -> None:
    with pytest.raises(TypeError, match="must be an environment, not str"):
        connections_from_graph("localhost", nx.path_graph(4))


@pytest.mark.parametrize(("directed", "cls"), [(False, nx.Graph), (True, nx.DiGraph)])
def test_graph_from_connections(env: FakeEnvironment, directed: bool, cls: type) -> None:
    first, second, third = ADDRS
    env.known[second] = {first: {"attitude": 0.5}}
    graph = graph_from_connections(env, directed=directed)
    assert type(graph) is cls
    assert list(graph) == [first, second, third], "agents without connections included"
    assert list(graph.edges(data=True)) == (
        [(second, first, {"attitude": 0.5})] if directed else [(first, second, {"attitude": 0.5})]
    )


def test_in_an_undirected_graph_the_later_agent_prevails(env: FakeEnvironment) -> None:
    first, second, _ = ADDRS
    env.known[second] = {first: {"attitude": 0.9}}
    env.known[first] = {second: {"attitude": 0.1, "since": 3}}
    graph = graph_from_connections(env)
    assert graph[first][second] == {"attitude": 0.9, "since": 3}


def test_connections_survive_the_way_through_a_graph(env: FakeEnvironment) -> None:
    env.known[ADDRS[2]] = {ADDRS[0]: {"attitude": 1}, ADDRS[1]: {}}
    other = FakeEnvironment(ADDRS)
    connections_from_graph(other, graph_from_connections(env, directed=True), edge_data=True)
    assert other.known == env.known


@pytest.mark.parametrize(
    "call", [lambda env: connections_from_graph(env, None), graph_from_connections]
)
def test_without_networkx(call: Any, env: FakeEnvironment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "networkx", None)
    with pytest.raises(ImportError, match=r"pip install 'creamas-sc\[nx\]'"):
        call(env)

"""A society as a graph, or as a matrix if it is large."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from heapq import nlargest
from typing import Final, NamedTuple

from creamas_sc.page.source import Json

# From so many agents on it is a matrix, of so many rows and columns at most.
MATRIX_FROM: Final = 500
BINS: Final = 128
# The strongest ones are shown.
MOST_EDGES: Final = 4000


class Node(NamedTuple):
    """An agent.

    Attributes:
        agent: Its label: its number as text, or its name.
        type, slave, address: None if unknown.
    """

    agent: str
    type: str | None = None
    slave: str | None = None
    address: str | None = None


def society(
    step: int | None,
    nodes: Sequence[Node],
    edges: Sequence[tuple[int, int, float]],
    artifacts: Mapping[str, int],
    total: int | None = None,
) -> Json:
    """What the page shows.

    Args:
        nodes: In the order of the agents' numbers.
        edges: Places of two nodes, and the weight.
        artifacts: How many each agent has, by its label.
        total: How many edges there are, if ``edges`` are not all.
    """
    head = {
        "step": step,
        "agents": len(nodes),
        "edges_total": len(edges) if total is None else total,
    }
    counts = [artifacts.get(node.agent, 0) for node in nodes]
    if len(nodes) >= MATRIX_FROM:
        return {**head, "view": "matrix", **_matrix(nodes, edges, counts)}
    strongest = nlargest(MOST_EDGES, edges, key=lambda edge: edge[2])
    return {
        **head,
        "view": "graph",
        "nodes": [
            {**node._asdict(), "artifacts": count}
            for node, count in zip(nodes, counts, strict=True)
        ],
        "edges": strongest,
    }


def _matrix(
    nodes: Sequence[Node], edges: Sequence[tuple[int, int, float]], counts: Sequence[int]
) -> Json:
    size = min(BINS, len(nodes))
    bin_of = [at * size // len(nodes) for at in range(len(nodes))]
    members: list[list[str]] = [[] for _ in range(size)]
    artifacts = [0] * size
    for at, node in enumerate(nodes):
        members[bin_of[at]].append(node.agent)
        artifacts[bin_of[at]] += counts[at]
    cells = [0.0] * (size * size)
    for one, other, strength in edges:
        cells[bin_of[one] * size + bin_of[other]] += strength
    bins = [(each[0], each[-1], len(each)) for each in members]
    return {"bins": bins, "cells": cells, "artifacts": artifacts}

"""Random connections of agents, drawn with the generator of each."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any


def connect_randomly(agents: Sequence[Any], n: int) -> None:
    """See `Environment.create_random_connections`."""
    addrs = [agent.addr for agent in agents]
    for own, agent in enumerate(agents):
        moved: dict[int, int] = {}  # into the place of one that was drawn: it is drawn once
        for left in range(len(addrs) - 1, max(len(addrs) - 1 - n, 0), -1):
            drawn = draw_below(left, agent)
            other = moved.get(drawn, drawn)
            moved[drawn] = moved.get(left - 1, left - 1)
            agent.add_connection(addrs[other + (other >= own)])


def draw_below(n: int, agent: Any) -> int:
    """Draw an int with the generator of an agent, Python's or numpy's, if it has one."""
    return int(getattr(agent, "rng", random).random() * n)

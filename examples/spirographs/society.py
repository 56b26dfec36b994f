"""The societies: each spreads its agents over slaves, connects them, and steps them."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from creamas_sc import Artifact
from creamas_sc.core.environment import Environment
from creamas_sc.mp import EnvManager, MultiEnvironment

from .agent import Spirographer

__all__ = ["SOCIETIES", "Plan", "Step", "peers_of", "simulate"]

# What is compared: the habits, as far as they are not the defaults, of all agents of a society.
SOCIETIES: dict[str, dict[str, Any]] = {
    "self-criticism and vetoes": {},
    "vetoes alone": {"self_critical": False},
    "neither": {"self_critical": False, "quorum": 0.0},
}


@dataclass(frozen=True)
class Plan:
    """Parameters of a run."""

    agents: int = 24
    steps: int = 30
    slaves: int = 2
    peers: int = 4  # agents whose opinion each agent asks
    seed: int = field(default_factory=lambda: random.getrandbits(32))


@dataclass(frozen=True)
class Step:
    """The results of one step."""

    number: int  # from 1
    invented: int
    discarded: int  # by their inventors
    asked: int  # opinions of others
    published: list[Artifact]


async def simulate(
    plan: Plan, habits: Mapping[str, Any], on_step: Callable[[Step], None], nodes: Any = None
) -> list[Step]:
    """Run a society; its processes have ended when this returns or raises.

    Calls go in rounds: so the seed decides what is published, and in which order, at any number of
    slaves, and wherever they are.

    Args:
        habits: Of its agents.
        on_step: Called after each step, for progress.
        nodes: Other machines for the slaves, as `MultiEnvironment` takes them.
    """
    any_port = ("localhost", 0)
    async with MultiEnvironment(
        any_port, Environment, name="spirographs", seed=plan.seed, nodes=nodes
    ) as environment:
        await environment.spawn_slaves([any_port] * plan.slaves, Environment, EnvManager)
        await environment.wait_slaves(10, check_ready=True)
        await _populate(environment, plan, habits)
        steps: list[Step] = []
        published: list[Artifact] = []
        for number in range(1, plan.steps + 1):
            await environment.trigger_all(published)
            seen = len(environment.artifacts)
            outcomes = await environment.trigger_all()
            published = environment.artifacts[seen:]
            discarded = sum(outcome.discarded for outcome in outcomes)
            asked = sum(outcome.asked for outcome in outcomes)
            steps.append(Step(number, len(outcomes), discarded, asked, published))
            on_step(steps[-1])
        return steps


async def _populate(environment: MultiEnvironment, plan: Plan, habits: Mapping[str, Any]) -> None:
    names = [f"agent {number:02}" for number in range(plan.agents)]
    addrs: list[str] = []
    for number, name in enumerate(names):
        slave = environment.addrs[number % plan.slaves]
        _, addr = await environment.spawn(Spirographer, dict(habits), name=name, addr=slave)
        addrs.append(addr)
    peers = peers_of(plan)
    await environment.create_connections(
        {
            addr: [(addrs[peer], {"name": names[peer]}) for peer in peers[number]]
            for number, addr in enumerate(addrs)
        },
        as_coro=True,
    )


def peers_of(plan: Plan) -> list[list[int]]:
    """Return for each agent the agents that it asks; they do not depend on the slaves."""
    draw = random.Random(plan.seed)
    agents = range(plan.agents)
    peers = []
    for agent in agents:
        others = [other for other in agents if other != agent]
        peers.append(draw.sample(others, min(plan.peers, len(others))))
    return peers

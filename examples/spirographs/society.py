"""The society: spreads its agents over slaves, connects them across slaves, and steps them."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from creamas_sc import Artifact
from creamas_sc.core.environment import Environment
from creamas_sc.mp import EnvManager, MultiEnvironment

from .agent import Spirographer

__all__ = ["Plan", "Step", "peers_of", "simulate"]


@dataclass(frozen=True)
class Plan:
    """Parameters of a run."""

    agents: int = 24
    steps: int = 60
    slaves: int = 2
    peers: int = 4  # agents whose opinion each agent asks
    seed: int = field(default_factory=lambda: random.getrandbits(32))


@dataclass(frozen=True)
class Step:
    """The results of one step."""

    number: int  # from 1
    novelties: list[float]  # of every agent's invention, as its inventor sees it
    published: list[Artifact]


async def simulate(plan: Plan, on_step: Callable[[Step], None]) -> list[Step]:
    """Run a simulation; its processes have ended when this returns or raises.

    Args:
        on_step: Called after each step, for progress.
    """
    any_port = ("localhost", 0)
    async with MultiEnvironment(
        any_port, Environment, name="spirographs", seed=plan.seed
    ) as environment:
        await environment.spawn_slaves([any_port] * plan.slaves, Environment, EnvManager)
        await environment.wait_slaves(10, check_ready=True)
        await _populate(environment, plan)
        steps: list[Step] = []
        published: list[Artifact] = []
        for number in range(1, plan.steps + 1):
            await environment.trigger_all(published)
            seen = len(environment.artifacts)
            inventions = await environment.trigger_all()
            # Sorted, because which of two agents publishes first depends on timing.
            published = sorted(environment.artifacts[seen:], key=lambda made: made.creator)
            steps.append(Step(number, [novelty for novelty, _ in inventions], published))
            on_step(steps[-1])
        return steps


async def _populate(environment: MultiEnvironment, plan: Plan) -> None:
    names = [f"agent {number:02}" for number in range(plan.agents)]
    addrs: list[str] = []
    for number, name in enumerate(names):
        slave = environment.addrs[number % plan.slaves]
        _, addr = await environment.spawn(Spirographer, name=name, addr=slave)
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
    """Return for each agent the agents that it asks, in other slaves if there are any."""
    draw = random.Random(plan.seed)
    agents = range(plan.agents)
    peers = []
    for agent in agents:
        elsewhere = [other for other in agents if (other - agent) % plan.slaves != 0]
        others = elsewhere or [other for other in agents if other != agent]
        peers.append(draw.sample(others, min(plan.peers, len(others))))
    return peers

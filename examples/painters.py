"""Agents that mix colours and publish the ones that are new to them."""

from __future__ import annotations

from collections import deque
from math import dist, sqrt
from typing import Any

import anyio

from creamas_sc import Artifact, CreativeAgent, Environment, expose

Colour = tuple[float, float, float]


class Painter(CreativeAgent):
    """Mixes one colour in each step, near the last one that it published.

    Args:
        environment: Where the painter lives.
        novelty: How far a colour must be from all that the painter remembers to be published, from
            0 to 1.
        memory: How many of its published colours the painter remembers.
        seconds: How long mixing one colour takes.
    """

    def __init__(
        self,
        environment: Environment,
        novelty: float = 0.15,
        memory: int = 50,
        seconds: float = 0.02,
    ) -> None:
        super().__init__(environment)
        self.novelty = novelty
        self.seconds = seconds
        self.colours: deque[Colour] = deque(maxlen=memory)

    @expose
    async def act(self) -> None:
        """Mix a colour; publish it if it is new enough."""
        await anyio.sleep(self.seconds)  # meanwhile the others mix theirs
        base = self.colours[-1] if self.colours else (0.5, 0.5, 0.5)
        red, green, blue = (_mixed(part, self.rng.random()) for part in base)
        artifact = Artifact(self, (red, green, blue), domain="colour")
        value, framing = self.evaluate(artifact)
        if value >= self.novelty:
            artifact.add_eval(self, value, framing)
            self.colours.append(artifact.obj)
            self.publish(artifact)

    @expose
    def evaluate(self, artifact: Artifact) -> tuple[float, str]:
        """Return how new a colour is to this painter, and a framing of that.

        The novelty is the distance to the nearest remembered colour, from 0 to 1.
        """
        nearest = min((dist(artifact.obj, known) for known in self.colours), default=sqrt(3))
        return nearest / sqrt(3), f"of {len(self.colours)} colours"

    @expose
    def palette(self) -> list[Colour]:
        """Return the colours that the painter remembers, oldest first."""
        return list(self.colours)


def _mixed(part: float, random: Any) -> float:
    return float(min(1.0, max(0.0, part + 0.6 * (random - 0.5))))

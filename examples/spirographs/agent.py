"""The agent of the society: it invents, criticises itself, judges others and learns.

Three things differ from the paper. An agent asks only those it is connected to, not the whole
society; a share of them must agree, where the paper's veto lets any one of them forbid (``quorum``
1.0 brings that back); and there is no vote for the best of a step: all that pass are published.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import anyio
import numpy as np

from creamas_sc import Artifact, expose
from creamas_sc.core.agent import CreativeAgent

from .curves import Gears, Image, mutate, picture, random_gears
from .memory import Memory

__all__ = ["Habits", "Spirographer", "gears_of"]


@dataclass(frozen=True)
class Habits:
    """How an agent goes about its work."""

    capacity: int = 100  # pictures in memory
    doodles: int = 10  # random pictures in memory before the first step
    attempts: int = 8  # candidates drawn for one invention
    boldness: float = 0.3  # share of candidates that are random, not near something remembered
    threshold: float = 0.36  # least novelty to show a picture, or to agree to another's
    quorum: float = 0.75  # share of the asked who must agree
    attention: float = 0.5  # chance to memorize a picture that was published


def gears_of(artifact: Artifact) -> Gears:
    """The gears that drew a published picture."""
    return Gears(*artifact.get_feature_value("gears"))


class Spirographer(CreativeAgent):
    """Seeks pictures unlike those that it remembers."""

    def __init__(self, environment: Any, habits: dict[str, Any] | None = None, **kwargs: Any):
        """
        Args:
            habits: Fields of `Habits` that differ from the defaults.
        """
        super().__init__(environment, **kwargs)
        self.habits = Habits(**(habits or {}))
        self.memory = Memory(self.habits.capacity)
        self._latest: Artifact | None = None
        for gears in (random_gears(self.rng) for _ in range(self.habits.doodles)):
            self.memory.memorize(gears, picture(gears))

    @expose
    async def act(self, published: Sequence[Artifact] | None = None) -> tuple[float, bool] | None:
        """Take part in one of the two rounds of a step.

        The memory changes in the first round only. So all of a step's pictures are judged by what
        was known when it began, and a seeded run repeats itself however the calls interleave.

        Args:
            published: What the step before added to the domain: look at it, and invent nothing.
                None: invent.

        Returns:
            From inventing, the novelty of what was invented and whether it was published.
        """
        if published is not None:
            self.learn(published)
            return None
        invention = self.invent()
        novelty = invention.evals[self.name]
        accepted = novelty >= self.habits.threshold and await self.persuade(invention)
        if accepted:
            self.publish(invention)
        return novelty, accepted

    def learn(self, published: Sequence[Artifact]) -> None:
        """Memorize one's own latest picture, and those of the domain that catch the attention."""
        if self._latest is not None:
            self.memory.memorize(gears_of(self._latest), self._latest.obj)
        for artifact in published:
            noticed = self.rng.random() < self.habits.attention
            if noticed and artifact.creator != self.name:
                self.memory.memorize(gears_of(artifact), artifact.obj)

    def invent(self) -> Artifact:
        """The most novel of several candidates, as an artifact that this agent has evaluated."""
        candidates = [self._candidate() for _ in range(self.habits.attempts)]
        novelty, gears, image = max(candidates, key=lambda candidate: candidate[0])
        artifact = Artifact(self, image, domain=np.ndarray)
        artifact.add_feature_value("gears", tuple(gears))
        artifact.add_eval(self, novelty)
        self._latest = artifact
        return artifact

    def _candidate(self) -> tuple[float, Gears, Image]:
        known = None if self.rng.random() < self.habits.boldness else self.memory.recall(self.rng)
        gears = random_gears(self.rng) if known is None else mutate(known, self.rng)
        image = picture(gears)
        return self.memory.novelty(image), gears, image

    async def persuade(self, artifact: Artifact) -> bool:
        """Ask all connected agents at once, and tell whether enough of them find it novel too."""
        opinions: dict[str, float] = {}
        agreed: list[bool] = []

        async def ask(addr: str, name: str) -> None:
            novelty, agrees = await self.ask_opinion(addr, artifact)
            opinions[name] = novelty
            agreed.append(agrees)

        async with anyio.create_task_group() as tasks:
            for addr, data in self.connections.items():
                tasks.start_soon(ask, addr, data["name"])
        for name, novelty in opinions.items():
            artifact.add_eval(name, novelty)
        return sum(agreed) >= self.habits.quorum * len(agreed)

    @expose
    def evaluate(self, artifact: Artifact) -> tuple[float, bool]:
        """The picture's novelty to this agent, and whether it would have it in the domain."""
        novelty = self.memory.novelty(artifact.obj)
        return novelty, novelty >= self.habits.threshold

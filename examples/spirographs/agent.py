"""The agent of the society: it invents, criticises itself, judges others and learns.

Three things differ from the paper. An agent asks only the agents that it is connected to, not the
whole society. A share of them must agree, while in the paper a single veto is enough (``quorum``
1.0 restores that). And there is no vote for the best picture of a step: all that pass are
published.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import anyio
import numpy as np

from creamas_sc import Artifact, expose
from creamas_sc.core.agent import CreativeAgent

from .curves import Gears, Image, mutate, picture, random_gears
from .memory import Memory

__all__ = ["Habits", "Outcome", "Spirographer", "gears_of"]


@dataclass(frozen=True)
class Habits:
    """Parameters of an agent's behaviour."""

    capacity: int = 100  # pictures in memory
    doodles: int = 10  # random pictures in memory before the first step
    attempts: int = 4  # candidates drawn for one invention
    boldness: float = 0.3  # share of candidates that are random, not near something remembered
    threshold: float = 0.34  # least novelty to show a picture, or to agree to another's
    self_critical: bool = True  # whether the agent discards what is less novel to itself
    quorum: float = 0.75  # share of the agents asked that must agree; for 0, none is asked
    attention: float = 0.5  # chance to memorize a picture that was published


class Outcome(NamedTuple):
    """What came of an invention."""

    novelty: float  # to its inventor
    discarded: bool  # by its inventor
    asked: int  # opinions of others


def gears_of(artifact: Artifact) -> Gears:
    """Return the gears that drew a published picture."""
    return Gears(*artifact.get_feature_value("gears"))


class Spirographer(CreativeAgent):
    """An agent that looks for pictures unlike those that it remembers."""

    def __init__(self, environment: Any, habits: dict[str, Any] | None = None, **kwargs: Any):
        """
        Args:
            habits: Fields of `Habits` that differ from the defaults.
        """
        super().__init__(environment, **kwargs)
        self.habits = Habits(**(habits or {}))
        self.memory = Memory(self.habits.capacity)
        self._latest: Artifact | None = None
        for gears in (random_gears(self.numpy_rng) for _ in range(self.habits.doodles)):
            self.memory.memorize(gears, picture(gears))

    @expose
    async def act(self, published: Sequence[Artifact] | None = None) -> Outcome | None:
        """Take part in one of the two halves of a step: learn first, then invent.

        The memory changes in the first half only, so all pictures of a step are judged by what was
        known when it began.

        Args:
            published: The pictures that the last step published, to learn from; None to invent.

        Returns:
            After inventing, what came of it; else None.
        """
        if published is not None:
            self.learn(published)
            return None
        invention = self.invent()
        novelty = invention.evals[self.name]
        if self.habits.self_critical and novelty < self.habits.threshold:
            return Outcome(novelty, discarded=True, asked=0)
        asked = len(self.connections) if self.habits.quorum else 0
        if not asked or await self.persuade(invention):
            self.publish(invention)
        return Outcome(novelty, discarded=False, asked=asked)

    def learn(self, published: Sequence[Artifact]) -> None:
        """Memorize the agent's own latest picture, and the published ones that it notices."""
        if self._latest is not None:
            self.memory.memorize(gears_of(self._latest), self._latest.obj)
        for artifact in published:
            noticed = self.numpy_rng.random() < self.habits.attention
            if noticed and artifact.creator != self.name:
                self.memory.memorize(gears_of(artifact), artifact.obj)

    def invent(self) -> Artifact:
        """Return the most novel of several candidates, as an artifact with its evaluation."""
        candidates = [self._candidate() for _ in range(self.habits.attempts)]
        novelty, gears, image = max(candidates, key=lambda candidate: candidate[0])
        artifact = Artifact(self, image, domain=np.ndarray)
        artifact.add_feature_value("gears", tuple(gears))
        artifact.add_eval(self, novelty)
        self._latest = artifact
        return artifact

    def _candidate(self) -> tuple[float, Gears, Image]:
        known = (
            None
            if self.numpy_rng.random() < self.habits.boldness
            else self.memory.recall(self.numpy_rng)
        )
        gears = random_gears(self.numpy_rng) if known is None else mutate(known, self.numpy_rng)
        image = picture(gears)
        return self.memory.novelty(image), gears, image

    async def persuade(self, artifact: Artifact) -> bool:
        """Ask all connected agents at once; return whether enough of them find it novel too."""
        opinions: dict[str, float] = {}
        agreed: list[bool] = []

        async def ask(addr: str, name: str) -> None:
            novelty, agrees = await self.ask_opinion(addr, artifact)
            opinions[name] = novelty
            agreed.append(agrees)

        async with anyio.create_task_group() as tasks:
            for addr, data in self.connections.items():
                tasks.start_soon(ask, addr, data.get("name", addr))
        for name, novelty in opinions.items():
            artifact.add_eval(name, novelty)
        return sum(agreed) >= self.habits.quorum * len(agreed)

    @expose
    def evaluate(self, artifact: Artifact) -> tuple[float, bool]:
        """Return the picture's novelty to this agent, and whether it agrees to publish it."""
        novelty = self.memory.novelty(artifact.obj)
        return novelty, novelty >= self.habits.threshold

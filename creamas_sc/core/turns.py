"""A step whose agents act one after another, each in its turn; and one that the age counts."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from creamas_sc.errors import AgentError, AgentErrors, CallRefused, CreamasError, RecordError


@contextmanager
def age_ahead(env: Any) -> Iterator[None]:
    """Take a step in the block that the age of a multi-environment counts already."""
    if not hasattr(env, "_age_is_ahead"):
        yield
        return
    env._age_is_ahead = True
    try:
        yield
    finally:
        env._age_is_ahead = False


@dataclass
class Turns:
    """Such a step, and how far it has got.

    Attributes:
        env: Where the agents live.
        to_act: Addresses of those that have not acted.
        results, failures: Of those that have.
        error: What the step has failed with although all have acted.
    """

    env: Any
    to_act: deque[str]
    results: list[Any] = field(default_factory=list)
    failures: dict[str, AgentError] = field(default_factory=dict)
    error: Exception | None = None

    async def take(self) -> None:
        """Let the remaining agents act; may be awaited again if something stopped it."""
        recording = getattr(self.env, "_recording", None)
        if recording is None:
            await self._take()
            return
        try:
            await recording.take(self._take_observed)
        except (AgentErrors, RecordError) as error:
            if isinstance(error, RecordError) and not error.may_have_run:
                raise
            self.error = error

    async def _take_observed(self, asked: Any) -> list[Any]:
        """As `take`, for a record, to which ``asked`` is passed on."""
        await self._take()
        await self.env._observe_agents(asked)
        if self.failures:
            raise AgentErrors("failed to act", self.failures, self.results)
        return self.results

    async def _take(self) -> None:
        while self.to_act:
            addr = self.to_act.popleft()
            try:
                self.results.append(await self.env.trigger_act(addr=addr))
            except Exception as error:
                ours = isinstance(error, CreamasError)
                if ours and not isinstance(error, (AgentError, CallRefused)):
                    raise  # not the agent's failure: a lost slave
                if not isinstance(error, AgentError):
                    error = AgentError.from_exception(addr, error)
                self.failures[addr] = error
        note_step = getattr(self.env, "_note_step", None)
        if note_step is not None:
            note_step()

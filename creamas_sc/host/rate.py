"""A meter of how fast a simulation steps, over the last few seconds."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

__all__ = ["RateMeter"]

WINDOW_SECONDS = 5.0
# Steps that end closer together than this share a mark, so that a window has few.
MARK_SECONDS = 0.1


class _Mark(NamedTuple):
    time: float
    steps: int
    acts: int


class RateMeter:
    """Steps and acts per second over a sliding window, or over the last step if that is longer."""

    def __init__(self, now: float) -> None:
        self._marks = deque([_Mark(now, 0, 0)])

    def count(self, now: float, acts: int) -> None:
        """One more step, of ``acts`` acts, has ended at ``now`` (seconds)."""
        marks = self._marks
        last = marks[-1]
        if len(marks) > 1 and now - marks[-2].time < MARK_SECONDS:
            marks.pop()
        marks.append(_Mark(now, last.steps + 1, last.acts + acts))
        while len(marks) > 2 and marks[1].time <= now - WINDOW_SECONDS:
            marks.popleft()

    @property
    def steps_per_second(self) -> float | None:
        """None before the first step has ended."""
        first, last, seconds = self._span()
        return (last.steps - first.steps) / seconds if seconds > 0 else None

    @property
    def acts_per_second(self) -> float | None:
        """None before the first step has ended."""
        first, last, seconds = self._span()
        return (last.acts - first.acts) / seconds if seconds > 0 else None

    def _span(self) -> tuple[_Mark, _Mark, float]:
        first, last = self._marks[0], self._marks[-1]
        return first, last, last.time - first.time

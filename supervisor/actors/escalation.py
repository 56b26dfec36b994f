"""The ladder of a stop: graceful request, bounded wait, hard kill.

    request   the actor is asked over its context, its entry returns, it ends itself: no signal
    cancel    that did not come to an end in the grace: tractor cancels it
    term      SIGTERM
    kill      SIGKILL, by pidfd; nothing withstands it, not even a stopped process

Nothing is known here of what is ended: `escalate` is given the acts and the event.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from enum import Enum
from typing import NamedTuple

import trio

from supervisor.timeouts import CANCEL_SECONDS, KILL_SECONDS, TERM_SECONDS


class Step(Enum):
    """What it took to end an actor; the values travel in receipts."""

    GONE = "gone"
    REQUEST = "request"
    CANCEL = "cancel"
    TERM = "term"
    KILL = "kill"


class StopStage(NamedTuple):
    """One step and the seconds it has."""

    step: Step
    seconds: float


def rungs(grace_seconds: float) -> list[StopStage]:
    """The ladder for a grace; a grace of 0 leaves the request out."""
    below = [
        StopStage(Step.CANCEL, CANCEL_SECONDS),
        StopStage(Step.TERM, TERM_SECONDS),
        StopStage(Step.KILL, KILL_SECONDS),
    ]
    return [StopStage(Step.REQUEST, grace_seconds), *below] if grace_seconds > 0 else below


async def escalate(
    ended: trio.Event, acts: Mapping[Step, Callable[[], Awaitable[object]]], grace_seconds: float
) -> Step | None:
    """Take step after step until ``ended`` is set.

    No step outlasts its seconds, whatever its act waits for. The acts raise nothing.

    Returns:
        The step that sufficed; None where even the last did not.
    """
    if ended.is_set():
        return Step.GONE
    for step, seconds in rungs(grace_seconds):
        with trio.move_on_after(seconds):
            await acts[step]()
            await ended.wait()
        if ended.is_set():
            return step
    return None

"""How an actor is stopped: graceful request, bounded wait, hard kill.

    request   its entry is asked to return, and the process ends itself; no signal
    cancel    the entry did not return within the grace period: tractor cancels it
    term      SIGTERM
    kill      SIGKILL, by pidfd: not even a stopped process survives that

This module does not know what is stopped: `escalate` is given the act and the event.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from enum import Enum

import trio

from supervisor.timeouts import CANCEL_SECONDS, KILL_SECONDS, TERM_SECONDS


class StopStage(Enum):
    """What it took to stop an actor; the values travel in a `StopResult`."""

    GONE = "gone"
    REQUEST = "request"
    CANCEL = "cancel"
    TERM = "term"
    KILL = "kill"


def stages(grace_seconds: float) -> list[tuple[StopStage, float]]:
    """The stages and the seconds that each lasts; a grace of 0 leaves the request out."""
    request = [(StopStage.REQUEST, grace_seconds)] if grace_seconds > 0 else []
    return [
        *request,
        (StopStage.CANCEL, CANCEL_SECONDS),
        (StopStage.TERM, TERM_SECONDS),
        (StopStage.KILL, KILL_SECONDS),
    ]


async def escalate(
    ended: trio.Event, act: Callable[[StopStage], Awaitable[object]], grace_seconds: float
) -> StopStage | None:
    """Go from stage to stage until ``ended`` is set.

    A stage never takes longer than its seconds, even if its act would.

    Args:
        act: Does what a stage is about; raises nothing.

    Returns:
        The stage that sufficed; None if even the last did not.
    """
    if ended.is_set():
        return StopStage.GONE
    for stage, seconds in stages(grace_seconds):
        with trio.move_on_after(seconds):
            await act(stage)
            await ended.wait()
        if ended.is_set():
            return stage
    return None

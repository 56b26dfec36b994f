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
from typing import Final

import trio

from supervisor.timeouts import CANCEL_SECONDS, KILL_SECONDS, TERM_SECONDS


class StopStage(Enum):
    """What it took to stop an actor; the values travel in a `StopResult`."""

    GONE = "gone"
    REQUEST = "request"
    CANCEL = "cancel"
    TERM = "term"
    KILL = "kill"


STAGES: Final = list(StopStage)
_SECONDS: Final = {
    StopStage.CANCEL: CANCEL_SECONDS,
    StopStage.TERM: TERM_SECONDS,
    StopStage.KILL: KILL_SECONDS,
}


async def escalate(
    ended: trio.Event,
    act: Callable[[StopStage], Awaitable[object]],
    grace_seconds: float = 0.0,
    first: StopStage = StopStage.REQUEST,
) -> None:
    """Go from stage to stage until ``ended`` is set, or even the last stage did not help.

    A stage never takes longer than its seconds, even if its act would.

    Args:
        act: Does what a stage is about; raises nothing.
        grace_seconds: How long the request lasts; 0 leaves it out.
        first: The stage to begin with.
    """
    for stage in STAGES[STAGES.index(first) :]:
        seconds = _SECONDS.get(stage, grace_seconds)
        if seconds > 0 and not ended.is_set():
            with trio.move_on_after(seconds):
                await act(stage)
                await ended.wait()

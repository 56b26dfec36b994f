"""The lock of a multi-environment's steps: one at a time, in the order of the requests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from creamas_sc.core.step_loop import UNLIMITED, step_limit
from creamas_sc.errors import CreamasError, DeadlineExceeded
from creamas_sc.rpc.calls import served_call
from creamas_sc.rpc.rounds.activity import current_activity


class StepLock:
    """A lock for which no agent of the step under way waits: that step would never end.

    An agent's act reaches the master through calls of its manager. So while a step is under way,
    whatever such a call leads to is refused a step, whichever agent it comes from.
    """

    def __init__(self) -> None:
        self._lock = trio.Lock()
        # That hold the lock, or wait for it.
        self._gathers = 0

    def locked(self) -> bool:
        """Whether a step is under way."""
        return self._lock.locked()

    async def __aenter__(self) -> None:
        """Wait for the turn of a step, within the `step_limit`.

        Raises:
            CreamasError: The step is asked for by an agent's call, and another one is under way.
            DeadlineExceeded: The step's time was up before.
        """
        limit = step_limit.get()
        if not self._lock.locked():
            if limit is UNLIMITED:
                self._lock.acquire_nowait()
                return
        elif _asked_by_agent():
            raise CreamasError(
                "a step is under way, and an agent's call cannot take another: the step would wait "
                "for its own agent; take the step when this one is done"
            )
        with trio.move_on_at(limit.deadline) as scope:
            await self._lock.acquire()
        if scope.cancelled_caught:
            raise DeadlineExceeded(
                "the step's time was up before it was its turn",
                acknowledged=True,
                may_have_run=False,
            )

    async def __aexit__(self, *exc_info: object) -> None:
        self._lock.release()

    @asynccontextmanager
    async def held_by_gather(self) -> AsyncIterator[bool]:
        """Hold the lock in the block, unless a step is under way; whether it is held.

        Gathers wait for each other as steps do, unless an agent's call asks for one.
        """
        if self._lock.locked() and (not self._gathers or _asked_by_agent()):
            yield False
            return
        self._gathers += 1
        try:
            async with self._lock:
                yield True
        finally:
            self._gathers -= 1


def _asked_by_agent() -> bool:
    """Whether the running task serves an agent's call, in rounds or not."""
    call, activity = served_call.get(), current_activity.get()
    in_rounds = activity is not None and not activity.over
    return in_rounds or (call is not None and call.of_agent)

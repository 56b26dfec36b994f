"""The last events of a simulation, each with a number, for clients that ask for them."""

from __future__ import annotations

from collections import deque
from typing import Any

import trio

from creamas_sc.errors import BadValue
from creamas_sc.runtime.validation import check_seconds

__all__ = ["Events"]

KEPT_EVENTS = 1000

Event = tuple[int, str, dict[str, Any]]


class Events:
    """A ring of the last events.

    Readers fetch events, none are sent. So however many readers there are, and however slow, an
    event costs the same: its place in the ring.
    """

    def __init__(self) -> None:
        self._kept: deque[Event] = deque(maxlen=KEPT_EVENTS)
        self._last = 0
        self._posted = trio.Event()

    def post(self, name: str, details: dict[str, Any]) -> None:
        """Add an event; ``details`` must not be changed afterwards."""
        self._last += 1
        self._kept.append((self._last, name, details))
        posted, self._posted = self._posted, trio.Event()
        posted.set()

    async def after(self, since: int | None, timeout: float | None) -> tuple[int, list[Event]]:
        """Events after number ``since``, at once if there are any, else when one comes.

        Args:
            since: None to get the number only, and no events.
            timeout: Seconds to wait; None for no limit.

        Returns:
            The number of the last event, and those after ``since`` that are kept; none if the
            timeout passed.

        Raises:
            BadValue: ``since`` is not the number of an event, or ``timeout`` is not a number of
                seconds.
        """
        if since is None:
            return self._last, []
        self._check(since, timeout)
        with trio.move_on_after(float("inf") if timeout is None else timeout):
            while self._last <= since:
                await self._posted.wait()
        fresh = min(self._last - since, len(self._kept))
        return self._last, [self._kept[-i] for i in range(fresh, 0, -1)]

    def _check(self, since: int, timeout: float | None) -> None:
        if type(since) is not int or not 0 <= since <= self._last:
            raise BadValue(
                f"since must be the number of an event, from 0 to {self._last}, not {since!r}"
            )
        check_seconds(timeout)

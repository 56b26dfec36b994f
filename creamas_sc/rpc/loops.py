"""What a connection needs of the event loop, by anyio; `socket_stream` has trio's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import anyio

__all__ = ["AnyioLoop", "Loop", "Waiter"]


class Waiter(Protocol):
    """An event for which one task waits; an answer may be left with it."""

    answer: Any

    def is_set(self) -> bool:
        """Whether it has been set."""

    def set(self) -> None:
        """Wake the task that waits, or will wait."""

    async def wait(self) -> None:
        """Return once it is set."""


class Loop(Protocol):
    """The loop of the running task."""

    @property
    def waiter(self) -> Callable[[], Waiter]:
        """Makes a waiter that is not set."""

    @property
    def checkpoint(self) -> object:
        """What a task yields in a checkpoint, to be recognized; any other object if unknown."""

    @property
    def effective_deadline(self) -> Callable[[], float]:
        """Returns when the running task will be cancelled, on the loop's clock."""


class AnyioWaiter:
    """An event with an answer."""

    def __init__(self) -> None:
        self.answer: Any = None
        self._event = anyio.Event()
        self.is_set, self.set, self.wait = self._event.is_set, self._event.set, self._event.wait


class AnyioLoop:
    """Any loop that anyio knows."""

    waiter = AnyioWaiter
    checkpoint = object()
    effective_deadline = staticmethod(anyio.current_effective_deadline)

"""What a connection needs of the event loop, by anyio; `socket_stream` has trio's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import anyio

from creamas_sc.wire.protocol import Slot


class Waiter(Slot, Protocol):
    """An event for which one task waits; an answer may be left with it."""

    def is_set(self) -> bool: ...

    async def wait(self) -> None: ...


class Loop(NamedTuple):
    """The running loop.

    Attributes:
        waiter: Makes a waiter that is not set.
        checkpoint: What a task yields in a checkpoint, to be recognized; any object if unknown.
        effective_deadline: Returns when the running task will be cancelled, on the loop's clock.
    """

    waiter: Callable[[], Waiter]
    checkpoint: object
    effective_deadline: Callable[[], float]


class _AnyioWaiter:
    def __init__(self) -> None:
        self.answer: Any = None
        self._event = anyio.Event()
        self.is_set, self.set, self.wait = self._event.is_set, self._event.set, self._event.wait


ANYIO_LOOP = Loop(_AnyioWaiter, object(), anyio.current_effective_deadline)

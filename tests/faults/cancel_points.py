"""Cancel a program at a chosen point, and list what it may have left behind."""

from __future__ import annotations

import math
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import trio

__all__ = ["CancelPoint", "held"]

T = TypeVar("T")


class CancelPoint(trio.abc.Instrument):
    """Cancels a program in one of its phases: at its n-th step, or some seconds into it.

    A step is one step of any task of this loop. Between two steps only other processes work; to
    cancel at different points of their work, use ``moment``.

    Args:
        phase: Name of the phase.
        whole: Cancel the whole program, or only the phase's call, which is then made again.
        step: Counted from 1; 0 for none.
        moment: Seconds after the phase began.

    Attributes:
        taken: Steps and seconds that the phase took, up to the cancellation if there was one.
    """

    def __init__(self, phase: str, whole: bool, *, step: int = 0, moment: float = math.inf) -> None:
        self.taken = (0, 0.0)
        self._steps = 0
        self._phase = phase
        self._step = step
        self._moment = moment
        self._whole = trio.CancelScope()
        self._call = trio.CancelScope()
        self._scope = self._whole if whole else self._call

    @property
    def done(self) -> bool:
        """Whether it has cancelled."""
        return self._scope.cancel_called

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """Called by trio."""
        self._steps += 1
        if self._steps == self._step:
            self._scope.cancel()

    async def program(self, body: Callable[[CancelPoint], Awaitable[object]]) -> None:
        """Run the program, to its end or until it is cancelled."""
        with self._whole:
            await body(self)

    async def phase(
        self,
        name: str,
        call: Callable[[], Awaitable[T]],
        again: Callable[[], Awaitable[T]] | None = None,
    ) -> T:
        """Make a phase's call; if it was cancelled, make it again, or make ``again``."""
        if name != self._phase:
            return await call()
        with self._call, self._counting():
            return await call()
        return await (again or call)()

    @contextmanager
    def _counting(self) -> Iterator[None]:
        began = trio.current_time()
        self._scope.deadline = began + self._moment
        trio.lowlevel.add_instrument(self)
        try:
            yield
        finally:
            trio.lowlevel.remove_instrument(self)
            self._scope.deadline = math.inf
            self.taken = self._steps, trio.current_time() - began


def held() -> set[str]:
    """Tasks of this loop and descriptors of this process, by what they are."""
    root = trio.lowlevel.current_root_task()
    assert root is not None
    return {*_tasks(root), *_descriptors()}


def _tasks(task: trio.lowlevel.Task) -> list[str]:
    found = [f"task {id(task)}: {task.name}"]
    for nursery in task.child_nurseries:
        for child in nursery.child_tasks:
            found += _tasks(child)
    return found


def _descriptors() -> list[str]:
    found = []
    for number in os.listdir("/proc/self/fd"):
        try:
            found.append(f"descriptor {number}: {os.readlink(f'/proc/self/fd/{number}')}")
        except OSError:  # the listing's own
            continue
    return found

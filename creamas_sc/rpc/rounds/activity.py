"""What runs in a step: acts, and methods that serve calls; and what each of them waits for."""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from typing import Any

import trio

from creamas_sc.rpc.rounds.order import Order
from creamas_sc.rpc.socket_stream import effective_deadline

# How long nothing may run before a round ends without the activities that wait; and without those
# that wait for the outside, which may be slow, or for what only a call of this round would bring.
HOLD_SECONDS = 0.05
OUTSIDE_SECONDS = 60.0

current_activity: ContextVar[Activity | None] = ContextVar("activity", default=None)
# What a task that waits for an answer is marked with; trio removes it when the task goes on.
WAITS = object()
# Where trio waits for other tasks of the process, and where for a time, or for ever.
_FOR_TASKS = ("trio._sync", "trio._channel", "trio._core._parking_lot")
_INSIDE = (*_FOR_TASKS, "trio._core._run")
_SLEEP = "trio._timeouts"


class Activity:
    """An act, or a method that serves a call, which may make calls in its turn.

    Args:
        work: Its coroutine.
        agent: Whose code it is.
        suspend: Called before it suspends for the first time.

    Attributes:
        order: Whose code it is, once it has waited: that agent's number.
        waiting: How many of its tasks wait for answers, while it keeps a task.
        over: Whether it has ended.
        scope: Cancels it, while it keeps a task.
    """

    __slots__ = (
        "_agent", "context", "inner", "order", "over", "scope", "suspend", "task", "waiting",
        "work",
    )  # fmt: skip

    def __init__(
        self,
        work: Coroutine[Any, Any, None],
        agent: Any = None,
        suspend: Callable[[], None] | None = None,
    ) -> None:
        self.work = work
        self._agent = agent
        self.suspend = suspend
        self.order: Order | None = None
        self.waiting = 0
        self.over = False
        self.scope: trio.CancelScope | None = None
        self.task: trio.lowlevel.Task | None = None
        self.inner = 0
        self.context: Context = copy_context()
        self.context.run(current_activity.set, self)

    @property
    def agent(self) -> Any:
        """Whose code it is."""
        return self._agent

    def resume(self, value: Any, error: BaseException | None) -> Any:
        """Let its code run on, with a value or an error; return what it waits for.

        Raises:
            StopIteration: It has ended.
        """
        if error is None:
            return self.context.run(self.work.send, value)
        return self.context.run(self.work.throw, error)

    def is_quiet(self) -> bool:
        """Whether, keeping a task, it waits for answers, and for nothing from outside it."""
        assert self.task is not None
        return self.waiting > 0 and _all_wait(self.task, self.inner)

    def hold_seconds(self, until: float) -> float:
        """How long, keeping a task, it may hold a round open in which nothing runs.

        For ever if it waits for a time before ``until``.
        """
        assert self.task is not None
        return _hold_seconds(self.task, self.inner, until)


def _all_wait(task: trio.lowlevel.Task, inner: int = 0) -> bool:
    """Whether a task and those that it has started all wait for answers, some for one another."""
    abort = task._abort_func
    waits = abort is not None and (
        task.custom_sleep_data is WAITS or abort.__module__ in _FOR_TASKS
    )
    for nursery in task.child_nurseries[inner:]:
        if not all(map(_all_wait, nursery.child_tasks)):
            return False
        waits = waits or not nursery._nested_child_running
    return waits


def _hold_seconds(task: trio.lowlevel.Task, inner: int, until: float) -> float:
    """The longest that a task, or one that it has started, may hold a round open.

    Trio does not tell what a task waits for, but the function that would end the wait does.
    """
    abort, seconds = task._abort_func, HOLD_SECONDS
    if abort is not None and task.custom_sleep_data is not WAITS:
        module = abort.__module__
        if module == _SLEEP and effective_deadline(task) < until:
            return math.inf
        if module not in (*_INSIDE, _SLEEP):  # a thread, a socket, or the like
            seconds = OUTSIDE_SECONDS
    children = (each for nursery in task.child_nurseries[inner:] for each in nursery.child_tasks)
    return max(seconds, *(_hold_seconds(child, 0, until) for child in children), 0.0)

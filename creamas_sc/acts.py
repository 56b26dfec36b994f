"""The act loop: every agent of an environment acts once, concurrently, at the price of a loop.

An act that never suspends must not cost a task. So one worker task awaits act after act; when a
worker suspends for the first time, the next worker is started and takes over the agents that are
left, and the suspended one ends with the act it is in. Where act after act suspends, workers are
started several at a time. Every act still lives in one task from
start to end, so cancel scopes stay right. The acts of one worker share its context variables.

A step may have a limit of its own, `step_limit`: what is not done then is cancelled, and the rest
is kept.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from inspect import isawaitable
from operator import length_hint
from types import CoroutineType
from typing import Any, NamedTuple

import trio

from creamas_sc.home import is_ctrl_c
from creamas_sc.wire.waiting import watch

__all__ = ["UNLIMITED", "StepLimit", "Unfinished", "run_acts", "step_limit"]

# A step of many short acts stays cancellable: a worker yields to the scheduler this often.
YIELD_SECONDS = 0.01
_ACTS_PER_CLOCK_READING = 64
# How many workers are started together at most.
_MOST_WORKERS = 64


class StepLimit(NamedTuple):
    """How long a step may take.

    Attributes:
        deadline: When it is to end, on trio's clock.
        kill: Whether a slave that does not answer then is to be ended.
    """

    deadline: float = math.inf
    kill: bool = False


UNLIMITED = StepLimit()
# Of the steps that the running task takes; users' own `trigger_all` methods lie between.
step_limit: ContextVar[StepLimit] = ContextVar("step_limit", default=UNLIMITED)


class Unfinished(Exception):
    """The step's time was up before the act had ended, or begun."""


async def run_acts(
    agents: Sequence[Any], act: Callable[[Any], Any]
) -> tuple[list[Any], dict[int, BaseException]]:
    """Await ``act(agent)`` for all agents, concurrently.

    Returns:
        The results in the agents' order (None for one that failed), and position -> exception of
        those that failed; `Unfinished` of those that `step_limit` cut off. Cancellation and a
        real Ctrl-C pass through.
    """
    step = _Step(agents, act)
    async with trio.open_nursery() as nursery:
        nursery.cancel_scope.deadline = step_limit.get().deadline
        await step.work(nursery)
    if nursery.cancel_scope.cancelled_caught:
        step.leave_the_rest()
    return step.results, step.failures


class _Step:
    """One step in the making; its workers share the iterator over the agents."""

    def __init__(self, agents: Sequence[Any], act: Callable[[Any], Any]) -> None:
        self._left = iter(agents)
        self.todo: Iterator[tuple[int, Any]] = enumerate(self._left)
        self.act = act
        self.results: list[Any] = [None] * len(agents)
        self.failures: dict[int, BaseException] = {}
        # Workers that have been started and not begun; how many to start when none is left.
        self._ready = 1
        self._more = 1

    async def work(self, nursery: trio.Nursery) -> None:
        """Act for agent after agent until none is left or one suspends."""
        self._ready -= 1
        # The worker before handed over before it could see that the step is cancelled.
        await trio.lowlevel.checkpoint_if_cancelled()
        worker, left = _Worker(self), length_hint(self._left)

        def hand_over() -> bool:
            worker.suspended = True
            if not self._ready:
                self._start_workers(nursery, at_once=left - length_hint(self._left) == 1)
            return False

        await watch(worker.run(), hand_over)

    def _start_workers(self, nursery: trio.Nursery, *, at_once: bool) -> None:
        """Start the next worker, or more of them: where each act suspends, and so each worker does
        ``at_once``, a round of the scheduler for each of them would take longer than the act.
        """
        self._more = min(2 * self._more, _MOST_WORKERS) if at_once else 1
        self._ready = min(self._more, length_hint(self._left))
        for _ in range(self._ready):
            nursery.start_soon(self.work, nursery)

    def leave_the_rest(self) -> None:
        """Time is up: whoever has not begun does not act."""
        for position, _ in self.todo:
            self.failures[position] = Unfinished()


class _Worker:
    __slots__ = ("step", "suspended")

    def __init__(self, step: _Step) -> None:
        self.step = step
        self.suspended = False

    async def run(self) -> None:
        step = self.step
        results, act, failures = step.results, step.act, step.failures
        give_way_at = time.perf_counter() + YIELD_SECONDS
        for position, agent in step.todo:
            try:
                value = act(agent)
                if type(value) is CoroutineType or isawaitable(value):
                    value = await value
                results[position] = value
            except trio.Cancelled:
                failures[position] = Unfinished()
                raise
            except BaseException as error:  # user code may raise anything, SystemExit included
                if is_ctrl_c(error):
                    raise
                failures[position] = error
            if self.suspended:
                return
            if not position % _ACTS_PER_CLOCK_READING and time.perf_counter() > give_way_at:
                await trio.lowlevel.checkpoint()
                return

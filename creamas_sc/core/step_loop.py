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
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from inspect import isawaitable
from itertools import islice
from operator import length_hint
from types import CoroutineType
from typing import Any, NamedTuple

import trio

from creamas_sc.runtime.coroutines import watch
from creamas_sc.runtime.event_loop import is_ctrl_c
from creamas_sc.runtime.nurseries import cancellation_in, open_unwrapping_nursery

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
    agents: Sequence[Any], act: Callable[[Any], Any] | None = None
) -> tuple[list[Any], dict[int, BaseException]]:
    """Await ``act(agent)``, without ``act`` ``agent.act()``, for all agents, concurrently.

    Returns:
        The results in the agents' order (None for one that failed), and position -> exception of
        those that failed; `Unfinished` of those that `step_limit` cut off. Cancellation and a
        real Ctrl-C pass through.
    """
    step = _Step(agents, act)
    async with open_unwrapping_nursery() as nursery:
        nursery.cancel_scope.deadline = step_limit.get().deadline
        await step.work(nursery)
    if nursery.cancel_scope.cancelled_caught:
        step.leave_the_rest()
    return step.results, step.failures


class _Step:
    """One step in the making; its workers share the iterator over the agents.

    Attributes:
        results: Of all agents up to the one that acts, in order; None where there is none yet.
    """

    def __init__(self, agents: Sequence[Any], act: Callable[[Any], Any] | None) -> None:
        self.left = iter(tuple(agents))  # the hint of its length is right
        self.act = act
        self.results: list[Any] = []
        self.failures: dict[int, BaseException] = {}
        # Workers that have been started and not begun; how many to start when none is left.
        self._ready = 1
        self._more = 1

    async def work(self, nursery: trio.Nursery) -> None:
        """Act for agent after agent until none is left or one suspends."""
        self._ready -= 1
        # The worker before handed over before it could see that the step is cancelled.
        await trio.lowlevel.checkpoint_if_cancelled()
        worker, acted = _Worker(self), len(self.results)

        def hand_over(_: Any) -> bool:
            at_once = len(self.results) == acted
            if worker.acting:
                worker.suspended_at = len(self.results)
                self.results.append(None)
            if not self._ready:
                self._start_workers(nursery, at_once=at_once)
            return False

        await watch(worker.run(), hand_over)

    def _start_workers(self, nursery: trio.Nursery, *, at_once: bool) -> None:
        """Start the next worker, or more of them: where each act suspends, and so each worker does
        ``at_once``, a round of the scheduler for each of them would take longer than the act.
        """
        self._more = min(2 * self._more, _MOST_WORKERS) if at_once else 1
        self._ready = min(self._more, length_hint(self.left))
        for _ in range(self._ready):
            nursery.start_soon(self.work, nursery)

    def leave_the_rest(self) -> None:
        """Time is up: whoever has not begun does not act."""
        for _ in self.left:
            self.failures[len(self.results)] = Unfinished()
            self.results.append(None)


class _Worker:
    __slots__ = ("acting", "step", "suspended_at")

    def __init__(self, step: _Step) -> None:
        self.step = step
        self.acting = True
        # The position of the act that has suspended, the worker's last.
        self.suspended_at: int | None = None

    async def run(self) -> None:
        step = self.step
        left, act, results = step.left, step.act, step.results
        append = results.append
        give_way_at = time.perf_counter() + YIELD_SECONDS
        while length_hint(left):
            for agent in islice(left, _ACTS_PER_CLOCK_READING):
                try:
                    value = agent.act() if act is None else act(agent)
                    if type(value) is CoroutineType or isawaitable(value):
                        value = await value
                except BaseException as error:  # user code may raise anything, SystemExit included
                    cancelled = cancellation_in(error)
                    if cancelled is not None:
                        self._fail(Unfinished())
                        raise cancelled from None
                    if is_ctrl_c(error):
                        raise
                    self._fail(error)
                else:
                    if self.suspended_at is None:
                        append(value)
                    else:
                        results[self.suspended_at] = value
                if self.suspended_at is not None:
                    return
            if time.perf_counter() > give_way_at:
                self.acting = False
                await trio.lowlevel.checkpoint()
                return

    def _fail(self, error: BaseException) -> None:
        at, results = self.suspended_at, self.step.results
        if at is None:
            at = len(results)
            results.append(None)
        self.step.failures[at] = error

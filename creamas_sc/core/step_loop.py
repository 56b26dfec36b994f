"""The inner loop of a step: every agent of an environment acts once, concurrently.

Most acts never suspend, and such an act must not cost a task: a task takes fifty times as long as a
trivial act. So a worker, one task, awaits act after act. An act that suspends keeps its worker, and
the next worker takes over the agents that are left::

    worker 1:  act 0 .. act 1 .. act 2 ----suspended----> act 2 ends, and worker 1 with it
    worker 2:                          act 3 .. act 4 ----suspended----> act 4 ends ...
    worker 3:                                             act 5 .. no agent is left: it ends

The first worker runs in the task that called `run_acts`, the others in a nursery there.

**Who takes over when an act suspends.** Each worker drives its loop through `watch`, which calls
`_Worker._hand_over` right before the worker suspends for the first time. That notes the position of
the suspended act (`suspended_at`), reserves its place in the results, and starts the next worker,
unless one that was started has not begun yet (`_Step.ready`). A worker that resumes stores its
result at the reserved place and ends; it never takes another agent. All workers draw from one
iterator, in one thread and with no await in between, so each agent is taken exactly once, in order,
and the results are in the agents' order.

**How many workers are started.** One new worker at a time costs a round of the scheduler for each
act that suspends. So where a worker suspends in its very first act, twice as many as the last time
are started, up to MAX_WORKERS_AT_ONCE; a worker that got further resets that to one. A worker that
finds no agent left just ends.

**Yielding.** A worker whose acts never suspend hands over like this as well, every YIELD_SECONDS,
so that a long step can be cancelled and lets other tasks run. Then no act is suspended.

**Limits.** Each act lives in one task from start to end, so cancel scopes and nurseries in it are
safe. Acts of one worker share its context variables. A step's own time limit (`step_limit`) is the
deadline of the nursery: acts that are under way then are cancelled, agents that are left do not
act, both are recorded as `Unfinished`, and the rest is kept. Cancellation from outside passes
through.
"""

from __future__ import annotations

import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from inspect import isawaitable
from itertools import islice
from operator import length_hint
from types import CoroutineType
from typing import Any, NamedTuple
from weakref import WeakSet

import trio

from creamas_sc.errors import BadValue
from creamas_sc.foreign import is_ctrl_c, shown
from creamas_sc.rpc.rounds.activity import Activity
from creamas_sc.rpc.rounds.driver import Rounds
from creamas_sc.runtime.coroutines import watch
from creamas_sc.runtime.nurseries import cancellation_in, open_unwrapping_nursery
from creamas_sc.runtime.timeouts import YIELD_SECONDS
from creamas_sc.runtime.validation import check_seconds

ACTS_PER_CLOCK_READING = 64
MAX_WORKERS_AT_ONCE = 64


class StepLimit(NamedTuple):
    """How long a step may take.

    Attributes:
        deadline: When it ends, on trio's clock.
        kill: Whether a slave that does not answer then is killed.
    """

    deadline: float = math.inf
    kill: bool = False

    @classmethod
    def within(cls, seconds: Any, on_overrun: Any) -> StepLimit:
        """Return the limit of a step that begins now.

        Raises:
            BadValue: An argument is not as `MultiEnvironment.trigger_all_within` takes it.
        """
        check_seconds(seconds, "seconds", endless=False)
        if on_overrun not in ("cancel", "kill"):
            raise BadValue(f'on_overrun must be "cancel" or "kill", not {shown(on_overrun)}')
        return cls(trio.current_time() + seconds, kill=on_overrun == "kill")


UNLIMITED = StepLimit()
# For the steps that the running task takes. A context variable, because users may override
# `trigger_all` in between.
step_limit: ContextVar[StepLimit] = ContextVar("step_limit", default=UNLIMITED)


@contextmanager
def limited(limit: StepLimit) -> Iterator[None]:
    """Have steps that are taken in the block end within ``limit``."""
    token = step_limit.set(limit)
    try:
        yield
    finally:
        step_limit.reset(token)


class Unfinished(Exception):
    """The step's time was up before the act had ended, or begun."""


async def run_acts(
    agents: Sequence[Any],
    act: Callable[[Any], Any] | None = None,
    rounds: Rounds | None = None,
) -> tuple[list[Any], dict[int, BaseException]]:
    """Await ``act(agent)``, by default ``agent.act()``, for all agents, concurrently.

    Args:
        rounds: Where their calls go, and drive them; None for calls that go at once.

    Returns:
        The results in the agents' order (None for one that failed), and position -> exception of
        those that failed: `Unfinished` if `step_limit` cut the act off. Cancellation and a real
        Ctrl-C are raised instead.
    """
    async with open_unwrapping_nursery() as nursery:
        nursery.cancel_scope.deadline = step_limit.get().deadline
        step = _Step(agents, act, nursery)
        if rounds is None:
            await _Worker(step).run()
        else:
            await rounds.run(partial(_next_acts, step), nursery)
    if nursery.cancel_scope.cancelled_caught:
        for _ in step.left:
            step.failures[len(step.results)] = Unfinished()
            step.results.append(None)
    return step.results, step.failures


class _Step:
    """What the workers of one step share.

    Attributes:
        agents: All of them.
        left: Iterator over those that have not begun.
        results: Of all agents that have begun, in order; None where there is none yet.
        ready: Workers that were started and have not begun.
        batch: How many workers were started the last time.
    """

    def __init__(
        self, agents: Sequence[Any], act: Callable[[Any], Any] | None, nursery: trio.Nursery
    ) -> None:
        self.agents = tuple(agents)
        self.left = iter(self.agents)  # a tuple's iterator knows how many are left
        self.act = act
        self.nursery = nursery
        self.results: list[Any] = []
        self.failures: dict[int, BaseException] = {}
        self.ready = self.batch = 1
        _steps.add(self)


# Those under way. In a forked child that goes on with one, no further agent acts: in the parent
# each does, and if each of them forked too, the processes would double with every act.
_steps: WeakSet[_Step] = WeakSet()


def _leave_steps() -> None:
    for step in list(_steps):
        deque(step.left, maxlen=0)


os.register_at_fork(after_in_child=_leave_steps)


class _Worker:
    """One task that lets agent after agent act, until none is left or one suspends.

    Attributes:
        acting: Whether the worker is inside an act, rather than yielding between two.
        suspended_at: Position of the act that suspended, the worker's last; None before.
    """

    __slots__ = ("acting", "first", "step", "suspended_at")

    def __init__(self, step: _Step) -> None:
        self.step = step
        self.acting = True
        self.first = 0
        self.suspended_at: int | None = None

    async def run(self) -> None:
        step = self.step
        step.ready -= 1
        # The step may have been cancelled since the last worker handed over.
        await trio.lowlevel.checkpoint_if_cancelled()
        self.first = len(step.results)
        await watch(self.act_in_turn(), self._hand_over)

    async def act_in_turn(self) -> None:
        """Let agent after agent act."""
        step = self.step
        left, act, results = step.left, step.act, step.results
        append = results.append
        yield_at = time.perf_counter() + YIELD_SECONDS
        while length_hint(left):
            for agent in islice(left, ACTS_PER_CLOCK_READING):
                try:
                    value = agent.act() if act is None else act(agent)
                    if type(value) is CoroutineType or isawaitable(value):
                        value = await value
                except BaseException as error:  # user code may raise anything, SystemExit included
                    cancelled = cancellation_in(error)
                    if cancelled is None and is_ctrl_c(error):
                        raise
                    position = self.suspended_at
                    if position is None:
                        position = len(results)
                        append(None)
                    step.failures[position] = error if cancelled is None else Unfinished()
                    if cancelled is not None:
                        raise cancelled from None
                else:
                    if self.suspended_at is None:
                        append(value)
                    else:
                        results[self.suspended_at] = value
                if self.suspended_at is not None:
                    return
            if time.perf_counter() > yield_at:
                self.acting = False
                await trio.lowlevel.checkpoint()
                return

    def _hand_over(self, _: Any) -> bool:
        """Start the next worker or workers; called before this one suspends."""
        step = self.step
        in_first_act = len(step.results) == self.first
        self.suspend()
        if not step.ready:
            step.batch = min(2 * step.batch, MAX_WORKERS_AT_ONCE) if in_first_act else 1
            step.ready = min(step.batch, length_hint(step.left))
            for _ in range(step.ready):
                step.nursery.start_soon(_Worker(step).run)
        return False  # once is enough

    def suspend(self) -> None:
        """Reserve the place of the act that is about to suspend."""
        if self.acting and self.suspended_at is None:
            self.suspended_at = len(self.step.results)
            self.step.results.append(None)


class _Acts(Activity):
    """Acts, one after another, until one waits: from then on, that one alone."""

    __slots__ = ("_worker",)

    def __init__(self, worker: _Worker) -> None:
        super().__init__(worker.act_in_turn(), suspend=worker.suspend)
        self._worker = worker

    @property
    def agent(self) -> Any:
        worker = self._worker
        at = len(worker.step.results) if worker.suspended_at is None else worker.suspended_at
        return worker.step.agents[at]


def _next_acts(step: _Step) -> Activity | None:
    return _Acts(_Worker(step)) if length_hint(step.left) else None

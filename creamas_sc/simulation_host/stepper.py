"""The steps that a simulation takes by itself, at full speed, with or without a client.

::

    IDLE --start--> STEPPING --all steps taken--> IDLE
                      |  ^
                pause |  | resume, start
                      v  |
             PAUSED, FAILED (an error)          CLOSED (`stop`, from any step)

One task takes the steps (`_run`). `pause` only sets a flag, which the task sees between two steps,
and waits; `resume` clears it, so that a pause which has not happened yet does not happen. Every
change of state wakes all who wait in `pause`, `wait` and `stop`. If one of these gives up, the flag
stays.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping
from enum import Enum
from inspect import isawaitable
from typing import Any, NamedTuple, Protocol

import trio

from creamas_sc.core.turns import age_ahead
from creamas_sc.errors import (
    AgentError,
    AgentErrors,
    BadValue,
    CreamasError,
    DeadlineExceeded,
    RecordError,
    SlaveLost,
    StepOverran,
    agent_errors,
)
from creamas_sc.foreign import shown
from creamas_sc.runtime.validation import MAX_INT, check_seconds
from creamas_sc.simulation_host.error_boundary import error_boundary, error_text

log = logging.getLogger(__name__)

# The shortest time between two reports of the progress within a state.
REPORT_SECONDS = 0.1
# The window over which the rate of steps is measured.
WINDOW_SECONDS = 5.0
# Steps that end closer together than this share a mark, so that a window has few.
MARK_SECONDS = 0.1


class State(Enum):
    """Whether a simulation takes steps, and why not; clients get the values."""

    IDLE = "idle"
    STEPPING = "stepping"
    PAUSED = "paused"
    FAILED = "failed"
    CLOSED = "closed"


class Steps(Protocol):
    """What is stepped: a `MultiEnvironment`."""

    age: int

    def trigger_all(self, *args: Any, **kwargs: Any) -> Any:
        """Make every agent act once; the user's own may be a plain method."""

    def trigger_all_within(self, seconds: float, *args: Any, **kwargs: Any) -> Any:
        """The same in a limited time."""


class _Mark(NamedTuple):
    time: float
    steps: int
    acts: int


class RateMeter:
    """Steps and acts per second over a sliding window, or over the last step if that is longer."""

    def __init__(self, now: float) -> None:
        self._marks = deque([_Mark(now, 0, 0)])

    def count(self, now: float, acts: int) -> None:
        """One more step, of ``acts`` acts, has ended at ``now`` (seconds)."""
        marks = self._marks
        last = marks[-1]
        if len(marks) > 1 and now - marks[-2].time < MARK_SECONDS:
            marks.pop()
        marks.append(_Mark(now, last.steps + 1, last.acts + acts))
        while len(marks) > 2 and marks[1].time <= now - WINDOW_SECONDS:
            marks.popleft()

    def per_second(self) -> tuple[float, float] | tuple[None, None]:
        """Steps and acts per second; None before the first step has ended."""
        first, last = self._marks[0], self._marks[-1]
        seconds = last.time - first.time
        if seconds <= 0:
            return None, None
        return (last.steps - first.steps) / seconds, (last.acts - first.acts) / seconds


class Stepper:
    """Takes steps, each by a call of ``trigger_all``, which waits for its turn like any other.

    Args:
        menv: What is stepped.
        address: The master environment's, which stands for the user's code in errors.
        nursery: Where the steps run.
        report: Called at every change of state, and ten times a second while stepping.
    """

    def __init__(
        self, menv: Steps, address: str, nursery: trio.Nursery, report: Callable[[], object]
    ) -> None:
        self.state = State.IDLE
        self.error = ""
        self._menv = menv
        self._address = address
        self._nursery = nursery
        self._report = report
        self._reported_at = 0.0
        self._scope = trio.CancelScope()
        self._changed = trio.lowlevel.ParkingLot()
        self._pausing = False
        self._within: tuple[float, str] | None = None
        self._overran = 0
        self._step = 0
        self._step_began: float | None = None
        self._of: int | None = None
        self._args: tuple[Any, ...] = ()
        self._kwargs: Mapping[str, Any] = {}
        self._rate = RateMeter(0.0)

    def progress(self) -> dict[str, Any]:
        """The progress of the steps that were started last; see `creamas_sc.simulation_api`."""
        steps, acts = self._rate.per_second() if self.state is State.STEPPING else (None, None)
        began = self._step_began
        left = None if self._of is None or not steps else (self._of - self._step) / steps
        return {
            "state": self.state.value,
            "step": self._step,
            "of": self._of,
            "pausing": self._pausing and self.state is State.STEPPING,
            "overran": self._overran,
            "step_seconds": None if began is None else trio.current_time() - began,
            "steps_per_second": steps,
            "acts_per_second": acts,
            "seconds_left": left,
            "error": self.error,
        }

    # ---- requests of clients

    def start(
        self,
        n: int | None,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        within: tuple[float, str] | None = None,
        done: int = 0,
    ) -> None:
        """Take ``n`` steps from now on (None: no end); those that were paused are dropped.

        Args:
            args, kwargs: Of each ``act``.
            within: ``seconds`` and ``on_overrun`` of each step, for `trigger_all_within`.
            done: How many of them were taken before.

        Raises:
            CreamasError: Steps are being taken already.
            BadValue: ``n`` is not an int above zero.
        """
        if n is not None and (type(n) is not int or not 0 < n <= MAX_INT):
            raise BadValue(
                f"n must be an int above 0, up to {MAX_INT:,}, or None for no end, not {shown(n)}"
            )
        if self.state is State.STEPPING:
            raise CreamasError(
                "the simulation is taking steps already: pause it, or wait for its steps"
            )
        self._step, self._of, self._overran = done, n, 0
        self._within = within
        self._args, self._kwargs = args, kwargs
        self._go()

    def kept(self, in_step: bool) -> Any:
        """What a checkpoint is to keep: plain values; None if it takes no steps.

        Args:
            in_step: Whether the step under way counts as taken.
        """
        if self._step_began is None:
            return None
        done = self._step + in_step
        return [self._of, done, list(self._args), dict(self._kwargs), self._within]

    def take_up(self, kept: Any) -> None:
        """Go on with the steps of a checkpoint."""
        of, done, args, kwargs, within = kept
        if of is None or done < of:
            self.start(of, tuple(args), kwargs, within, done)

    def resume(self) -> None:
        """Go on with the steps that a pause or an error stopped; undo a pause that is under way.

        Raises:
            CreamasError: There are no steps to go on with.
        """
        if self.state is State.IDLE:
            raise CreamasError("there are no steps to resume: start some first")
        if self.state is State.STEPPING:
            self._pausing = False
            self._changed.unpark_all()
            self._report()
        else:
            self._go()

    async def pause(self, timeout: float | None = None) -> None:
        """Stop after the step under way; returns when it is done, or `resume` was called first.

        The request stays, even if this call is cancelled or its time is up.

        Raises:
            DeadlineExceeded: ``timeout`` seconds passed.
        """
        check_seconds(timeout)
        if self.state is State.STEPPING and not self._pausing:
            self._pausing = True
            self._report()
        with trio.move_on_after(float("inf") if timeout is None else timeout):
            while self._pausing and self.state is State.STEPPING:
                await self._changed.park()
            return
        raise DeadlineExceeded(
            f"the step was not done after {timeout:g} s: the simulation pauses when it is",
            acknowledged=True, addresses=[self._address],
        )  # fmt: skip

    async def wait(self, timeout: float | None) -> None:
        """Wait until no more steps are taken.

        Raises:
            DeadlineExceeded: ``timeout`` seconds passed.
        """
        check_seconds(timeout)
        with trio.move_on_after(float("inf") if timeout is None else timeout):
            while self.state is State.STEPPING:
                await self._changed.park()
            return
        raise DeadlineExceeded(
            f"the simulation was still stepping after {timeout:g} s", acknowledged=True,
            may_have_run=False, addresses=[self._address],
        )  # fmt: skip

    async def stop(self, seconds: float) -> None:
        """Cancel the step under way, for the close, and wait up to ``seconds`` for its end."""
        self._scope.cancel()
        with trio.move_on_after(seconds):
            while self.state is State.STEPPING:
                await self._changed.park()

    # ---- stepping

    def _go(self) -> None:
        self._pausing = False
        self._rate = RateMeter(trio.current_time())
        self._scope = trio.CancelScope()
        self._change(State.STEPPING)
        self._nursery.start_soon(self._run, self._scope)

    async def _run(self, scope: trio.CancelScope) -> None:
        with scope:
            self._change(*await self._take_steps())
            return
        self._change(State.CLOSED)

    async def _take_steps(self) -> tuple[State, str]:
        """Step until there is a reason to stop; returns the next state, and an error's text."""
        while self._of is None or self._step < self._of:
            if self._pausing:
                return State.PAUSED, ""
            try:
                acts = await self._take_step()
            except SlaveLost as error:
                # The step is not repeated: no agent must act twice in it. The next one goes on
                # with the other slaves.
                log.warning("step %d was cut short: %s", self._step + 1, error)
                acts = 0
            except AgentErrors as errors:  # all agents have acted
                self._count(len(errors.results) + len(errors.failures))
                return State.FAILED, self._log_failure(errors, errors.exceptions[0])
            except DeadlineExceeded as error:
                if self._within is None:
                    return State.FAILED, self._log_failure(error, error)
                self._overran += 1
                log.warning("step %d was cut short: %s", self._step + 1, error)
                results, failures = _done_in_time(error)
                acts = len(results) + len(failures)
                if failures:
                    self._count(acts)
                    group = agent_errors("failed to act", failures, results)
                    return State.FAILED, self._log_failure(group, group.exceptions[0])
            except RecordError as error:
                if error.may_have_run:  # all agents have acted
                    self._count(len(error.results))
                else:
                    self._menv.age -= 1
                return State.FAILED, self._log_failure(error, error)
            except CreamasError as error:
                return State.FAILED, self._log_failure(error, error)
            self._count(acts)
            await trio.lowlevel.checkpoint()  # the user's own trigger_all may have none
        return State.IDLE, ""

    def _log_failure(self, error: Exception, first: Exception) -> str:
        """Log an error with the remote traceback of its ``first`` part; returns its text."""
        text, notes = error_text(error), "\n".join(["", *getattr(first, "__notes__", ())])
        log.error("step %d failed: %s%s", self._step, text, notes)
        return text

    async def _take_step(self) -> int:
        """Make all agents act; returns how many did."""
        self._step_began = trio.current_time()
        try:
            with error_boundary(self._address), age_ahead(self._menv):
                self._menv.age += 1
                if self._within is None:
                    results = self._menv.trigger_all(*self._args, **self._kwargs)
                else:
                    seconds, on_overrun = self._within
                    results = self._menv.trigger_all_within(
                        seconds, *self._args, on_overrun=on_overrun, **self._kwargs
                    )
                if isawaitable(results):
                    results = await results
        finally:
            self._step_began = None
        return len(results) if isinstance(results, list) else 0

    def _count(self, acts: int) -> None:
        now = trio.current_time()
        self._step += 1
        self._rate.count(now, acts)
        if now - self._reported_at >= REPORT_SECONDS:
            self._reported_at = now
            self._report()

    def _change(self, state: State, error: str = "") -> None:
        """Change the state; nothing else does."""
        self.state, self.error = state, error
        log.info("steps: %s at step %d%s", state.value, self._step, error and f": {error}")
        self._changed.unpark_all()
        self._report()


def _done_in_time(error: DeadlineExceeded) -> tuple[list[Any], dict[str, AgentError]]:
    """Results and failures of a step whose time was up: none if it was not even its turn."""
    if isinstance(error, StepOverran):
        return error.results, error.failures
    return [], {}

"""A simulation that steps by itself, at full speed, whether a client is there or not."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from enum import Enum
from inspect import isawaitable
from typing import Any, Protocol

import trio

from creamas_sc.errors import AgentErrors, BadValue, CreamasError, DeadlineExceeded, SlaveLost
from creamas_sc.host.error_boundary import border, in_words
from creamas_sc.host.rate import Pace
from creamas_sc.runtime.validation import check_seconds

__all__ = ["State", "Stepper"]

log = logging.getLogger(__name__)

# Between two reports of how far the steps are, in seconds.
REPORT_SECONDS = 0.1


class State(Enum):
    """Whether a simulation steps by itself, and why not; the values are told to clients."""

    IDLE = "idle"
    STEPPING = "stepping"
    PAUSED = "paused"
    FAILED = "failed"
    CLOSED = "closed"


class Steps(Protocol):
    """What is stepped: a `MultiEnvironment`."""

    age: int

    def trigger_all(self, *args: Any, **kwargs: Any) -> Any:
        """Make every agent act once; a user's own may be a plain method."""


class Stepper:
    """The steps that a simulation takes by itself.

    It takes its turn at the step lock like anybody who calls ``trigger_all``.

    Args:
        menv: What is stepped.
        address: Tells the master environment's, for errors of the user's code.
        nursery: Where the steps run.
        report: Called at every change of state, and ten times a second while stepping.
    """

    def __init__(
        self,
        menv: Steps,
        address: Callable[[], str],
        nursery: trio.Nursery,
        report: Callable[[], object],
    ) -> None:
        self.state = State.IDLE
        self.error = ""
        self._menv = menv
        self._address = address
        self._nursery = nursery
        self._report = report
        self._reported_at = 0.0
        self._scope = trio.CancelScope()
        self._changed = trio.Event()
        self._pausing = False
        self._step = 0
        self._step_began: float | None = None
        self._of: int | None = None
        self._args: tuple[Any, ...] = ()
        self._kwargs: Mapping[str, Any] = {}
        self._pace = Pace(0.0)

    def progress(self) -> dict[str, Any]:
        """How far the steps are that were started last; see `creamas_sc.simulation_api`."""
        stepping = self.state is State.STEPPING
        pace = self._pace.steps_per_second if stepping else None
        began = self._step_began
        left = None if self._of is None or not pace else (self._of - self._step) / pace
        return {
            "state": self.state.value,
            "step": self._step,
            "of": self._of,
            "step_seconds": None if began is None else trio.current_time() - began,
            "acts_per_second": self._pace.acts_per_second if stepping else None,
            "seconds_left": left,
            "error": self.error,
        }

    # ---- what clients ask for

    def start(self, n: int | None, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Take ``n`` steps from here on (None: no end), in place of those that were paused.

        Raises:
            CreamasError: It steps already.
            BadValue: ``n`` is no int above zero.
        """
        if n is not None and (type(n) is not int or n < 1):
            raise BadValue(f"n must be an int above 0, or None for no end, not {n!r}")
        if self.state is State.STEPPING:
            raise CreamasError(
                "the simulation steps by itself already: pause it, or wait for its steps"
            )
        self._step, self._of = 0, n
        self._args, self._kwargs = args, kwargs
        self._go()

    def resume(self) -> None:
        """Go on with the steps that a pause or an error stopped; those that go on do.

        Raises:
            CreamasError: There are none.
        """
        if self.state is State.IDLE:
            raise CreamasError("there are no steps to resume: start some first")
        if self.state is State.STEPPING:
            self._pausing = False
            self._tell_waiting()
        else:
            self._go()

    async def pause(self) -> None:
        """Stop after the step under way; returns when that is done, or `resume` was faster.

        What was asked stands, even where the one who asked is cancelled.
        """
        self._pausing = self.state is State.STEPPING
        while self._pausing and self.state is State.STEPPING:
            await self._changed.wait()

    async def wait(self, timeout: float | None) -> None:
        """Wait until no steps are taken any more, for whatever reason.

        Raises:
            DeadlineExceeded: ``timeout`` seconds passed.
        """
        check_seconds(timeout)
        with trio.move_on_after(float("inf") if timeout is None else timeout):
            while self.state is State.STEPPING:
                await self._changed.wait()
            return
        raise DeadlineExceeded(
            f"the simulation still stepped after {timeout:g} s", acknowledged=True,
            may_have_run=False, addresses=[self._address()],
        )  # fmt: skip

    async def stop(self, seconds: float) -> None:
        """Cancel the step under way, for the close; waits that long for its end."""
        self._scope.cancel()
        with trio.move_on_after(seconds):
            while self.state is State.STEPPING:
                await self._changed.wait()

    # ---- stepping

    def _go(self) -> None:
        self._pausing = False
        self._pace = Pace(trio.current_time())
        self._scope = trio.CancelScope()
        self._change(State.STEPPING)
        self._nursery.start_soon(self._run, self._scope)

    async def _run(self, scope: trio.CancelScope) -> None:
        with scope:
            self._change(*await self._take_steps())
            return
        self._change(State.CLOSED)

    async def _take_steps(self) -> tuple[State, str]:
        """Step until there is a reason not to; the state that it makes."""
        while self._of is None or self._step < self._of:
            if self._pausing:
                return State.PAUSED, ""
            try:
                await self._take_step()
            except AgentErrors as errors:  # all have acted
                self._count(len(errors.results) + len(errors.failures))
                return self._failed(errors)
            except SlaveLost as error:
                # The others go on, but not with this step: nobody is to act twice in it.
                log.warning("step %d was cut short: %s", self._step + 1, error)
                self._count(0)
            except CreamasError as error:
                return self._failed(error)
            await trio.lowlevel.checkpoint()  # a trigger_all of the user's may have none
        return State.IDLE, ""

    def _failed(self, error: CreamasError | AgentErrors) -> tuple[State, str]:
        first = error.exceptions[0] if isinstance(error, AgentErrors) else error
        story = "\n".join(["", *getattr(first, "__notes__", ())])
        log.error("step %d failed: %s%s", self._step, in_words(error), story)
        return State.FAILED, in_words(error)

    async def _take_step(self) -> None:
        self._step_began = trio.current_time()
        try:
            with border(self._address()):
                self._menv.age += 1
                results = self._menv.trigger_all(*self._args, **self._kwargs)
                if isawaitable(results):
                    results = await results
        finally:
            self._step_began = None
        self._count(len(results) if isinstance(results, list) else 0)

    def _count(self, acts: int) -> None:
        now = trio.current_time()
        self._step += 1
        self._pace.count(now, acts)
        if now - self._reported_at >= REPORT_SECONDS:
            self._reported_at = now
            self._report()

    def _change(self, state: State, error: str = "") -> None:
        """The one place where the state changes."""
        self.state, self.error = state, error
        log.info("steps: %s at step %d%s", state.value, self._step, error and f": {error}")
        self._tell_waiting()
        self._report()

    def _tell_waiting(self) -> None:
        changed, self._changed = self._changed, trio.Event()
        changed.set()

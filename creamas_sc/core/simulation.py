"""Simulations: steps of an environment, in each of which every agent acts once."""

from __future__ import annotations

import inspect
import logging
import os
import random
import sys
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, Self

from creamas_sc import util
from creamas_sc.core.agent import CreativeAgent
from creamas_sc.core.environment import Environment
from creamas_sc.core.turns import Turns, age_ahead
from creamas_sc.errors import AgentErrors, CreamasError, RecordError
from creamas_sc.logging import ObjectLogger
from creamas_sc.runtime.event_loop import loop_of_thread

__all__ = ["Simulation"]

Order = Literal["alphabetical", "spawned", "random"]
Callback = Callable[[int], object]
Folder = str | os.PathLike[str]

_ORDERS = ("alphabetical", "spawned", "random")
_NEEDED_OF_ENVIRONMENT = ("get_agents", "trigger_act", "trigger_all", "close")


class Simulation:
    """Steps an environment: in each step every agent acts once.

    `step` and `steps` let the agents act one after another in `order`; `async_step` and
    `async_steps` let all act at once. All four block until the step is done; `astep` and `asteps`
    are `async_step` and `async_steps` to be awaited.

    If an agent's ``act`` raises, the others act nevertheless. When all have acted and the callback
    has been called, the step raises an ``AgentErrors`` with the failures and the others' results,
    and the next step can follow. Anything else that stops `step`, such as a lost slave or Ctrl-C,
    leaves the step unfinished: `finish_step` lets the remaining agents act.

    Args:
        env: An Environment or a MultiEnvironment.
        callback: Called with the step's number after each step, in the caller's thread.
        log_folder: If given, the simulation logs its steps.
        record: A folder, or a `creamas_sc.results.Record`: the steps are recorded there, as of
            ``record=`` of the environment.

    Attributes:
        env: The environment that is stepped.
        callback: As given.
        cur_step: Number of the step that was started last; 0 before the first. It goes on where a
            resumed simulation was.
        name: The simulation's name in logs.
        logger: An `ObjectLogger`, or None.

    Raises:
        TypeError: ``env`` is not an environment, or ``callback`` is not a plain callable.
    """

    @classmethod
    def create(
        cls,
        agent_cls: type[CreativeAgent] | Iterable[type[CreativeAgent]] | None = None,
        n_agents: int | Iterable[int] = 10,
        agent_kwargs: Mapping[str, Any] | Iterable[Mapping[str, Any]] | None = None,
        env_cls: type[Environment] = Environment,
        env_kwargs: Mapping[str, Any] | None = None,
        callback: Callback | None = None,
        conns: int = 0,
        log_folder: Folder | None = None,
        record: Any = None,
    ) -> Self:
        """Create an environment, agents in it, and their simulation.

        Args:
            agent_cls: The agents' class, or a list of classes.
            n_agents: How many agents; for a list of classes, a list of as many numbers.
            agent_kwargs: Keyword arguments of the agents. For a list of classes, it may be a list
                of them; one mapping is used for all.
            env_cls: The environment's class.
            env_kwargs: Keyword arguments of its ``create``; the default ``addr`` has a free port.
            callback: Called with the step's number after each step.
            conns: How many random connections each agent starts with.
            log_folder: Where environment, agents and simulation log; overrides a ``log_folder``
                in ``agent_kwargs``.
            record: As of the constructor.

        Raises:
            TypeError: A class or the callback is not what it should be.
            ValueError: The lists differ in length.
        """
        if not (isinstance(env_cls, type) and issubclass(env_cls, Environment)):
            raise TypeError(
                f"env_cls must be an Environment, not {env_cls!r}; for a MultiEnvironment spawn "
                "its agents first and call Simulation(menv)"
            )
        _check_callback(callback)
        plan = _agent_plan(agent_cls, n_agents, agent_kwargs)
        env = env_cls.create(**{"addr": ("localhost", 0), **(env_kwargs or {})})
        try:
            overrides: dict[str, Any] = {}
            if log_folder is not None:
                env.log_folder = os.fspath(log_folder)
                overrides = {"log_folder": log_folder}
            for agent_class, n, kwargs in plan:
                for _ in range(n):
                    agent_class(env, **{**kwargs, **overrides})
            if conns > 0:
                env.create_random_connections(n=conns)
            return cls(env, callback, log_folder, **({} if record is None else {"record": record}))
        except BaseException:
            env.close()
            raise

    def __init__(
        self,
        env: Any,
        callback: Callback | None = None,
        log_folder: Folder | None = None,
        *,
        record: Any = None,
    ) -> None:
        _check_environment(env)
        _check_callback(callback)
        if record is not None:
            _record(env, record)
        self.env = env
        self.callback = callback
        self.name = "sim"
        self.cur_step = getattr(env, "_resumed_age", 0)
        # Addresses depend on slaves and ports, which a seed does not determine.
        in_slaves = hasattr(env, "get_numbers") and not isinstance(env, Environment)
        self._order: Order = "spawned" if in_slaves else "alphabetical"
        self._unfinished: Turns | None = None
        self._started_at = self._step_started_at = time.monotonic()
        self._acting_seconds = 0.0
        self.logger = None if log_folder is None else ObjectLogger(self, log_folder)

    @property
    def order(self) -> Order:
        """How `step` orders the agents: "alphabetical" (by address), "spawned" or "random".

        "spawned" is by their `number`, the place in the order of spawning, and the default for a
        MultiEnvironment: it depends on no slave or port. "alphabetical" is the default for an
        Environment. A change takes effect with the next step; other values raise a ValueError.
        """
        return self._order

    @order.setter
    def order(self, order: Order) -> None:
        if order not in _ORDERS:
            raise ValueError(f"order must be one of {', '.join(_ORDERS)}, not {order!r}")
        self._order = order

    def step(self) -> list[Any]:
        """Let all agents act, one after another in `order`.

        Returns:
            What their ``act`` returned, in the order of acting.

        Raises:
            AgentErrors: Some ``act`` raised; all have acted.
            RuntimeError: The last step is unfinished, or the call would block the agents' loop.
        """
        self._check_can_step("use `await astep()`, or trigger_act for each agent in turn")
        addrs = self.env.get_agents(addr=True)
        if self._order == "alphabetical":
            addrs = sorted(addrs)
        else:
            addrs = util.sort_by_number(self.env, addrs)
        if self._order == "random":
            seed = getattr(self.env, "seed", None)
            # The order does not depend on other users of `random`.
            rng = random if seed is None else random.Random(f"{seed}/{self.cur_step}")
            rng.shuffle(addrs)
        with self._counted():
            self._unfinished = turns = Turns(self.env, deque(addrs))
            self._run(turns)
        return self._finish_turns(turns)

    def finish_step(self) -> list[Any]:
        """Let the agents act that did not when `step` was stopped; skips those that are gone.

        Returns:
            What all agents of the step returned, in the order of acting; an empty list if no step
            is unfinished.

        Raises:
            AgentErrors: Some ``act`` raised; all have acted.
        """
        turns = self._unfinished
        if turns is None:
            return []
        present = set(self.env.get_agents(addr=True))
        turns.to_act = deque(addr for addr in turns.to_act if addr in present)
        self._run(turns)
        return self._finish_turns(turns)

    def steps(self, n: int, progress: bool = True) -> list[list[Any]]:
        """Call `step` ``n`` times and return the list of its results.

        ``progress=False`` hides the progress, which is shown on a terminal as a bar, and in a
        notebook as `creamas_sc.notebooks` does.
        """
        return [self.step() for _ in self._with_progress(n, progress)]

    def async_step(self) -> list[Any]:
        """Let all agents act concurrently, and block until they have.

        Returns:
            What their ``act`` returned, in spawn order.

        Raises:
            AgentErrors: Some ``act`` raised; all have acted.
            RuntimeError: The last step is unfinished, or the call would block the agents' loop:
                await `astep`.
        """
        self._check_can_step("use `await astep()`")
        with self._finished_after(), self._counted():
            return util.run(self.env.trigger_all())  # type: ignore[no-any-return]

    def async_steps(self, n: int, progress: bool = True) -> list[list[Any]]:
        """Call `async_step` ``n`` times and return the list of its results; see `steps`."""
        return [self.async_step() for _ in self._with_progress(n, progress)]

    async def astep(self) -> list[Any]:
        """Take an `async_step`, to be awaited, under trio or asyncio."""
        self._check_can_step()
        with self._finished_after(), self._counted():
            return await self.env.trigger_all()  # type: ignore[no-any-return]

    async def asteps(self, n: int, progress: bool = True) -> list[list[Any]]:
        """Take `async_steps`, to be awaited, under trio or asyncio."""
        return [await self.astep() for _ in self._with_progress(n, progress)]

    def close(self, folder: Folder | None = None) -> Any:
        """Close the environment and return what its ``close`` returns."""
        try:
            return self.env.close(folder=folder)
        finally:
            self._close_log()

    async def aclose(self, folder: Folder | None = None) -> Any:
        """Do what `close` does, to be awaited, under trio or asyncio."""
        try:
            return await self.env.close(folder=folder, as_coro=True)
        finally:
            self._close_log()

    def end(self, folder: Folder | None = None) -> Any:
        """Deprecated: use `close`."""
        warnings.warn("Simulation.end: use close", DeprecationWarning, stacklevel=2)
        return self.close(folder)

    def _check_can_step(self, instead_of_blocking: str = "") -> None:
        """Raise a RuntimeError if the last step is unfinished, or if this one would block a loop.

        Args:
            instead_of_blocking: What to do on the agents' loop; empty for a step that is awaited.
        """
        if self._unfinished is not None:
            raise RuntimeError(
                f"step {self.cur_step} was stopped with {len(self._unfinished.to_act)} agents "
                "still to act: call finish_step() first"
            )
        # `util.run` would refuse too, but only after the step was counted.
        if instead_of_blocking and loop_of_thread() is not None:
            raise RuntimeError(
                f"this would block the loop on which the agents live: {instead_of_blocking}"
            )

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """Count a step for the block, unless it is refused: then no agent has acted."""
        age = getattr(self.env, "age", self.cur_step)
        self.cur_step += 1
        self.env.age = self.cur_step
        self._step_started_at = time.monotonic()
        self._log(logging.INFO, f"step {self.cur_step}")
        try:
            with age_ahead(self.env):
                yield
        except CreamasError as error:
            if self._is_refusal(error):
                self._log(logging.INFO, f"step {self.cur_step} was refused: {error}")
                self._unfinished = None
                self.cur_step -= 1
                self.env.age = age
            raise

    def _is_refusal(self, error: Exception) -> bool:
        """Whether an error of a step says that no agent has acted in it."""
        turns = self._unfinished
        acted = turns is not None and bool(turns.results or turns.failures)
        return isinstance(error, CreamasError) and not error.may_have_run and not acted

    def _with_progress(self, n: int, shown: bool) -> Iterable[int]:
        """Count ``n`` steps; show how they go, if there are several and someone can see it."""
        if not shown or n < 2:
            return range(n)
        if "IPython" in sys.modules:
            from creamas_sc.notebooks import in_notebook, show_steps

            if in_notebook():
                return show_steps(self.env, n)
        if sys.stderr is None or not sys.stderr.isatty():
            return range(n)
        try:
            # Imported here: it takes long, and is seldom needed.
            from rich.console import Console
            from rich.progress import track
        except ImportError:
            return range(n)
        return track(range(n), "Steps", console=Console(stderr=True))

    def _run(self, turns: Turns) -> None:
        try:
            util.run(turns.take())
        except Exception as error:
            if not self._is_refusal(error):
                error.add_note(
                    f"This stopped step {self.cur_step} with {len(turns.to_act)} agents still to "
                    "act: finish_step() lets them."
                )
            raise

    def _finish_turns(self, turns: Turns) -> list[Any]:
        with self._finished_after():
            if turns.failures:
                n = len(turns.failures) + len(turns.results)
                message = f"in step {self.cur_step}, {len(turns.failures)} of {n} agents failed"
                raise AgentErrors(message, turns.failures, turns.results)
            if turns.error is not None:
                raise turns.error
        return turns.results

    @contextmanager
    def _finished_after(self) -> Iterator[None]:
        """Finish the step after the block, also if it raises an error after all have acted."""
        try:
            yield
        except AgentErrors:
            self._finish()
            raise
        except RecordError as error:
            if error.may_have_run:
                self._finish()
            raise
        self._finish()

    def _finish(self) -> None:
        self._unfinished = None
        seconds = time.monotonic() - self._step_started_at
        self._acting_seconds += seconds
        self._log(logging.INFO, f"step {self.cur_step} took {seconds:.3f} s")
        if self.callback is not None:
            self.callback(self.cur_step)

    def _close_log(self) -> None:
        if self.logger is None:
            return
        seconds = time.monotonic() - self._started_at
        self._log(
            logging.INFO,
            f"closed after {self.cur_step} steps and {seconds:.3f} s, "
            f"{self._acting_seconds:.3f} s of them acting",
        )
        self.logger.close()

    def _log(self, level: int, message: str) -> None:
        if self.logger is not None:
            self.logger.log(level, message)


def _check_environment(env: Any) -> None:
    missing = [name for name in _NEEDED_OF_ENVIRONMENT if not hasattr(env, name)]
    if missing:
        kind = type(env).__name__
        raise TypeError(f"a simulation needs an environment; {kind} has no {missing[0]}")


def _record(env: Any, record: Any) -> None:
    if not hasattr(env, "_record"):
        kind = type(env).__name__
        raise TypeError(f"record: {kind} runs elsewhere; give record= where it is created")
    env._record(record)


def _check_callback(callback: Any) -> None:
    if callback is None:
        return
    if not callable(callback):
        raise TypeError(f"callback must be callable, not {callback!r}")
    if inspect.iscoroutinefunction(callback):
        raise TypeError(
            "callback must be a plain function; for an async one await it after each astep()"
        )


def _agent_plan(
    agent_cls: Any, n_agents: Any, agent_kwargs: Any
) -> list[tuple[type[CreativeAgent], int, Mapping[str, Any]]]:
    """Return class, number and keyword arguments for each class."""
    if isinstance(agent_cls, type) or not isinstance(agent_cls, Iterable):
        agent_cls, n_agents, agent_kwargs = [agent_cls], [n_agents], [agent_kwargs or {}]
    classes = list(agent_cls)
    for cls in classes:
        if not (isinstance(cls, type) and issubclass(cls, CreativeAgent)):
            raise TypeError(f"agent_cls must be a CreativeAgent, not {cls!r}")
    if not isinstance(n_agents, Iterable):
        raise TypeError("for a list of agent classes, n_agents must be a list of numbers")
    if agent_kwargs is None or isinstance(agent_kwargs, Mapping):
        agent_kwargs = [agent_kwargs or {}] * len(classes)
    numbers, kwargs = list(n_agents), list(agent_kwargs)
    if not len(classes) == len(numbers) == len(kwargs):
        raise ValueError(
            f"{len(classes)} agent classes, but {len(numbers)} n_agents and {len(kwargs)} "
            "agent_kwargs"
        )
    return list(zip(classes, numbers, kwargs, strict=True))

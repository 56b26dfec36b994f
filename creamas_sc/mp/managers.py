"""Managers: the agents through which an environment is controlled from outside."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from inspect import isawaitable
from types import FunctionType
from typing import TYPE_CHECKING, Any

import trio

from creamas_sc.core.agent import Agent, makes_agents, missing_act
from creamas_sc.core.artifact import Artifact
from creamas_sc.core.digests import digests_of, state_of
from creamas_sc.core.environment import Environment
from creamas_sc.core.step_loop import StepLimit, limited
from creamas_sc.errors import CallRefused, ConnectionLost, CreamasError, LoadError
from creamas_sc.foreign import shown
from creamas_sc.results.observing import Asked
from creamas_sc.rpc.base_timeout import BaseTimeout
from creamas_sc.rpc.exposed import expose, exposed_method, start_call
from creamas_sc.rpc.rounds.plan import TAKES_PER_STEP, Plan, step_plan
from creamas_sc.runtime.class_loading import class_name, load_object
from creamas_sc.runtime.code_versions import loaded_code, take_code

if TYPE_CHECKING:
    pass

log = logging.getLogger(__name__)

# The keyword by which `MultiEnvironment` passes the position of a spawn in the order over all
# slaves, on which the agents' random generators depend.
SPAWN_INDEX = "_spawn_index"
# Agents that one call may make; they take about a gigabyte.
MAX_SPAWNED = 1_000_000


class Manager(Agent):
    """What every manager can do: make agents, and end its environment's process.

    A manager must be its environment's first agent.
    """

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self.stop_received = trio.Event()

    @expose
    async def spawn(self, agent_cls: str | type, *args: Any, **kwargs: Any) -> tuple[Agent, str]:
        """Make an agent in this environment.

        Args:
            agent_cls: ``pkg.mod:Cls``, or the class itself; or an
                `agent_factory`, whose function may be a coroutine function.
            *args, **kwargs: Passed on after the environment.

        Returns:
            The agent, which arrives in other environments as a proxy, and its address.

        Raises:
            LoadError: The name is not that of an agent class.
            AgentError: The agent's ``__init__`` raised; the environment is as before.
        """
        ((agent, addr),) = await self._spawn(agent_cls, 1, args, kwargs)
        return agent, addr

    async def _spawn(
        self, agent_cls: Any, n: int, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> list[tuple[Agent, str]]:
        """Make ``n`` agents, all or none."""
        index = kwargs.pop(SPAWN_INDEX, None)
        try:
            factory = _agent_factory(agent_cls)
            arguments = (self.env, *args)
            make = partial(start_call, factory, arguments, kwargs)
            complete = None if isinstance(factory, type) else partial(_completed, factory)
            made = await self.env._spawning.make(make, n, index, complete)
        except CallRefused as refusal:
            raise refusal.by(self.addr) from refusal.__cause__
        return [(agent, agent.addr) for agent in made]

    @expose
    def _load_classes(self, names: list[str]) -> None:
        """Load classes now that a later `spawn` may name; what does not load is left to it."""
        for name in names:
            try:
                load_object(name)
            except LoadError as error:
                log.debug("not loaded at the start: %s", error)

    @expose
    def _take_code(self, files: dict[str, tuple[int, bytes]], names: list[str]) -> None:
        """Take files that the master has loaded since, and load classes."""
        take_code(files)
        self._load_classes(names)

    @expose
    def _loaded_code(self) -> dict[str, tuple[str, str]]:
        """The user's code in this process; see `loaded_code`."""
        return loaded_code()

    @expose
    def missing_act(self, agent_cls: str | type) -> str | None:
        """What to say of an agent class whose agents do nothing in a step; None for any other."""
        try:
            factory = _agent_factory(agent_cls)
        except CallRefused:  # as spawning them will be
            return None
        return missing_act(factory) if isinstance(factory, type) else None

    @expose
    def _digests(self, places: dict[str, Any], number: Any = None) -> dict[str, Any]:
        """Digests of the agents' states, or the state of one; see `creamas_sc.core.digests`."""
        if number is None:
            return digests_of(self.env, places)
        return state_of(self.env, places, number)

    @expose
    async def checkpoint(self) -> tuple[tuple[Any], dict[str, Any]] | None:
        """Return the arguments for a later `restore`; None if the environment has no checkpoints.

        It has them if its class has the methods ``checkpoint()``, which returns its state, and
        ``restore(state)``; either may be async.
        """
        if not all(hasattr(self.env, name) for name in ("checkpoint", "restore")):
            return None
        state = self.env.checkpoint()  # type: ignore[attr-defined]
        return (await state if isawaitable(state) else state,), {}

    @expose
    async def restore(self, state: Any) -> None:
        """Give the environment the state of its last checkpoint."""
        restored = self.env.restore(state)  # type: ignore[attr-defined]
        if isawaitable(restored):
            await restored

    @expose
    async def _write_part(self, path: str) -> dict[str, Any]:
        """Write the environment's part of a checkpoint; see `checkpoint_parts`."""
        from creamas_sc.mp.checkpoint_parts import write_part  # few need it

        return await write_part(self.env, path)

    @expose
    async def _restore_part(self, place: str, urls: list[str], master: str) -> int:
        """Take up the environment's part of a checkpoint; how many agents that are."""
        from creamas_sc.mp.checkpoint_parts import restore_part

        return await restore_part(self.env, place, urls, master)

    @expose
    def stop(self) -> None:
        """End the environment, and its process if it has its own."""
        self.env.get_loop().call_soon(self.stop_received.set)


def check_number(n: Any) -> None:
    """Raise a ValueError unless ``n`` agents can be made in one call."""
    if type(n) is not int or not 0 <= n <= MAX_SPAWNED:
        raise ValueError(f"n must be an int of at least 0, at most {MAX_SPAWNED:,}, not {shown(n)}")


async def _completed(factory: Any, made: Any) -> Agent:
    """The agent that a factory has returned, or returns in time."""
    agent = await made if isawaitable(made) else made
    if not isinstance(agent, Agent):
        raise LoadError(f"{factory!r} must return an agent, not {agent!r}")
    return agent


def _agent_factory(agent_cls: str | type | Callable[..., Any]) -> Callable[..., Any]:
    factory = load_object(agent_cls) if isinstance(agent_cls, str) else agent_cls
    if isinstance(factory, type):
        if issubclass(factory, Agent):
            return factory
        raise LoadError(
            f"{class_name(factory)} is not an agent class: derive it from CreativeAgent"
        )
    # The name may come from elsewhere: nothing is called that was not meant to be.
    if isinstance(factory, FunctionType) and makes_agents(factory):
        return factory
    what = f"a {type(factory).__name__}"
    if isinstance(factory, FunctionType):
        what += " without @agent_factory"
    raise LoadError(f"{agent_cls!r} is not an agent class, but {what}")


class EnvManager(Manager):
    """Manages one environment, in a slave of a `MultiEnvironment` or on its own."""

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self._host_manager: str | None = None
        self._step = trio.Lock()

    @expose
    def set_host_manager(self, addr: str) -> None:
        """Set the address of the host manager, which `report` and `get_artifacts` call."""
        self._host_manager = addr

    @expose
    def host_manager(self) -> str | None:
        """Address of the host manager; None before it is set."""
        return self._host_manager

    def _send_numbers(self) -> None:
        """Send the master the agents' numbers, if it lacks some."""
        self.env.network.steps.send_numbers(self.env.get_agents(addr=False))

    async def _host(self, timeout: float | None) -> Any:
        if self._host_manager is None:
            raise CreamasError(
                f"{self.addr} has no host manager: call set_host_managers() of the MultiEnvironment"
            )
        try:
            return await self.env.connect(self._host_manager, timeout=timeout)
        except ConnectionLost as error:
            raise ConnectionLost(
                f"could not reach the host manager {self._host_manager}",
                address=self._host_manager,
                may_have_run=False,
            ) from error

    @expose
    async def report(self, msg: Any, timeout: float | None = None) -> Any:
        """Send ``msg`` to the host manager and return what its ``handle`` returns.

        Args:
            timeout: Seconds to keep trying to connect; the base timeout by default.
        """
        host = await self._host(BaseTimeout.connect if timeout is None else timeout)
        return await host.handle(msg)

    @expose
    def handle(self, msg: Any) -> Any:
        """Take a message from another manager; override in a subclass."""

    @expose
    def get_agents(
        self, addr: bool = True, agent_cls: type | None = None, as_coro: bool = False
    ) -> list[Any]:
        """The environment's agents without this manager; see `Environment.get_agents`."""
        self._send_numbers()
        return self.env.get_agents(addr=addr, agent_cls=agent_cls)

    @expose
    def get_numbers(self) -> dict[str, Any]:
        """See `Environment.get_numbers`."""
        return self.env.get_numbers()

    @expose
    def set_log_folder(self, log_folder: str) -> None:
        """Set the environment's log folder."""
        self.env.log_folder = log_folder

    @expose
    def artifacts(self) -> list[Artifact]:
        """Artifacts published in this environment alone."""
        return self.env.artifacts

    @expose
    async def get_artifacts(self) -> list[Artifact]:
        """All artifacts that the host manager knows; this environment's if there is none."""
        if self._host_manager is None:
            return self.env.artifacts
        host = await self._host(BaseTimeout.connect)
        return await host.get_artifacts()  # type: ignore[no-any-return]

    @expose
    def create_connections(self, connection_map: dict[str, Any]) -> list[list[bool]]:
        """See `Environment.create_connections`."""
        return self.env.create_connections(connection_map)

    @expose
    def get_connections(self, data: bool = False) -> list[tuple[str, Any]]:
        """See `Environment.get_connections`."""
        self._send_numbers()
        return self.env.get_connections(data=data)

    @expose
    async def is_ready(self) -> bool:
        """Whether the environment is ready; see `Environment.is_ready`."""
        ready: Any = self.env.is_ready()
        return bool(await ready if isawaitable(ready) else ready)

    @expose
    async def spawn_n(
        self, agent_cls: str | type, n: int, *args: Any, **kwargs: Any
    ) -> list[tuple[Agent, str]]:
        """Make ``n`` agents with the same arguments, all or none; see `spawn`."""
        check_number(n)
        return await self._spawn(agent_cls, n, args, kwargs)

    @expose
    async def trigger_all(self, *args: Any, **kwargs: Any) -> list[Any]:
        """Make every agent of the environment act once; see `Environment.trigger_all`."""
        return await self.env.trigger_all(*args, **kwargs)

    @expose
    async def trigger_all_within(self, seconds: float, *args: Any, **kwargs: Any) -> list[Any]:
        """As `trigger_all`; agents that have not acted after ``seconds`` are cancelled.

        Raises:
            StepOverran: Some were; it names them, and holds the others' results.
        """
        with limited(StepLimit(trio.current_time() + seconds)):
            return await self.trigger_all(*args, **kwargs)

    @expose
    async def connect_peers(self, peers: list[str]) -> None:
        """Connect to the environments at these base URLs, as far as they can be reached."""
        await self.env.network.steps.connect(peers)

    @expose
    async def trigger_all_in_rounds(
        self, step: int, peers: list[str], seconds: float | None, *args: Any, **kwargs: Any
    ) -> list[Any]:
        """As `trigger_all`, or `trigger_all_within`; the agents' calls go in rounds.

        Args:
            step: Number of the step, higher than those before.
            peers: Base URLs of all environments that take part.
            seconds: As of `trigger_all_within`; None for no limit.
        """
        async with self._in_rounds(step, peers):
            if seconds is None:
                return await self.trigger_all(*args, **kwargs)
            return await self.trigger_all_within(seconds, *args, **kwargs)

    @asynccontextmanager
    async def _in_rounds(self, step: int, peers: list[str]) -> AsyncIterator[None]:
        try:  # without the round of the scheduler that `acquire` takes
            self._step.acquire_nowait()
        except trio.WouldBlock:  # a step that was cancelled may not have ended here
            await self._step.acquire()
        try:
            self._send_numbers()
            number = step * TAKES_PER_STEP
            token = step_plan.set(Plan(number, peers))
            try:
                yield
            finally:
                step_plan.reset(token)
                # Also where the environment took no step: the peers wait for this one.
                self.env.network.steps.begin(number + TAKES_PER_STEP)
        finally:
            self._step.release()

    @expose
    async def trigger_all_observed(
        self, method: str, asked: tuple[int, bool, bool], *args: Any, **kwargs: Any
    ) -> list[Any]:
        """As this manager's ``method``; what is to be recorded goes ahead of the answer.

        Args:
            asked: Fields of an `Asked`.
        """
        try:
            return await exposed_method(self, method)(*args, **kwargs)  # type: ignore[no-any-return]
        finally:
            self.observe_agents(asked)

    @expose
    def observe_agents(self, asked: tuple[int, bool, bool]) -> None:
        """Send the master what is to be recorded of the agents."""
        self._send_numbers()
        observed = self.env._observe(Asked(*asked))
        if not observed.is_empty:
            self.env.network.steps.send_observed(observed.to_wire())

    @expose
    async def gather(
        self, method: str, /, *args: Any, addrs: list[str] | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """Call one method of every agent of the environment; see `Environment.gather`."""
        self._send_numbers()
        try:
            return await self.env.gather(method, *args, addrs=addrs, **kwargs)
        except CallRefused as refusal:
            raise refusal.by(self.addr) from refusal.__cause__

    @expose
    async def gather_in_rounds(
        self,
        step: int,
        peers: list[str],
        method: str,
        /,
        *args: Any,
        addrs: list[str] | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """As `gather`; calls that the methods make go in rounds, as of `trigger_all_in_rounds`."""
        async with self._in_rounds(step, peers):
            return await self.gather(method, *args, addrs=addrs, **kwargs)

    @expose
    def close(self, folder: str | None = None) -> Any:
        """Called before the environment closes; override in a subclass."""

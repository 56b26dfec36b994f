"""Environments: where agents live, and through which they reach each other."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from inspect import isawaitable
from typing import Any, Self

from creamas_sc.core.agent import Agent
from creamas_sc.core.artifact import Artifact
from creamas_sc.core.construction import make_environment, place_of, serializers_of
from creamas_sc.core.gathering import act_each, call_each
from creamas_sc.core.listener import Listener
from creamas_sc.core.random_connections import connect_randomly, draw_below
from creamas_sc.core.randomness import RandomSource, check_seed, draw_seed
from creamas_sc.core.recorded import EnvironmentSubject
from creamas_sc.core.saving import save_all
from creamas_sc.core.spawning import Spawning
from creamas_sc.errors import agent_errors
from creamas_sc.logging import ObjectLogger
from creamas_sc.results import recordings
from creamas_sc.results.observing import Asked, Observed, observe
from creamas_sc.rpc.addresses import base_url as url_of
from creamas_sc.rpc.addresses import split_address
from creamas_sc.rpc.exposed import Proxy
from creamas_sc.rpc.network import Network
from creamas_sc.rpc.rounds.order import Order, sort_key
from creamas_sc.rpc.rounds.plan import check_calls, step_plan
from creamas_sc.runtime.class_loading import end_script_load
from creamas_sc.runtime.event_loop import (
    LoopHandle,
    background_loop,
    current_loop,
    on_loop,
    sync_or_coro,
)
from creamas_sc.runtime.gc_control import gc_paused
from creamas_sc.runtime.validation import check_int, check_kind, check_seconds, make_folder

__all__ = ["Environment"]


class Environment:
    """A place for agents, with an address at which others reach them.

    Make one with `create`. An agent takes the environment as its first argument, which gives it
    the address ``tcp://host:port/number``.

    Args:
        addr: ``(host, port)`` to listen on; port 0 is any free one.
        clock, connect_kwargs, base_url: As creamas passes them to a subclass, for it to pass on:
            kept as an attribute; a dict with ``codec`` and ``extra_serializers``; ``addr`` as a
            URL.
        codec: `creamas_sc.MsgPack` or None, which mean the same.
        extra_serializers: Callables that return ``(class, encode, decode)``; None for those
            registered with `creamas_sc.serializers.register`.
        name: Shown in logs; the address by default.
        log_folder: See the property.
        record: A folder, or a `creamas_sc.results.Record`: each `trigger_all` is recorded there,
            with what the ``observe()`` of agents and of the environment return; see
            `creamas_sc.results`.

    Attributes:
        manager: The environment's manager, agent number 0, or None.
        network: The connections to other environments.

    Raises:
        TypeError: ``codec`` is another one.
    """

    manager: Any = None

    _loop: LoopHandle | None = None
    _age = 0
    _logger: ObjectLogger | None = None
    _log_folder: str | None = None
    _random = RandomSource()
    _recording: Any = None
    # In a simulation that is recorded, numbers of agents that have other connections since then.
    _reconnected: set[int] | None = None

    def __init__(
        self,
        addr: tuple[str, int] | str | None = None,
        clock: Any = None,
        connect_kwargs: Mapping[str, Any] | None = None,
        *,
        base_url: str | None = None,
        codec: Any = None,
        extra_serializers: Iterable[Callable[[], tuple[Any, ...]]] | None = None,
        name: str | None = None,
        log_folder: str | None = None,
        record: Any = None,
    ) -> None:
        end_script_load()
        place = place_of(addr, base_url)
        serializers = serializers_of(codec, extra_serializers, connect_kwargs)
        self._agents: list[Agent] = []
        self.network = Network(self._agents, Agent, url_of(*place), serializers)
        self._listener = Listener(self.network, place)
        self.clock, self._name = clock, name
        self._artifacts: list[Artifact] = []
        self._spawning = Spawning(self._agents)
        if log_folder is not None:
            self.log_folder = log_folder
        self._record(record)

    @classmethod
    def create(cls, addr: tuple[str, int], *args: Any, as_coro: bool = False, **kwargs: Any) -> Any:
        """Make an environment that listens on ``addr``.

        Args:
            as_coro: Return a coroutine of the environment instead of blocking until it listens.
            *args, **kwargs: Passed to the class.

        Raises:
            StartError: The address is not available.
        """
        env = make_environment(cls, addr, args, kwargs)
        return sync_or_coro(env, env.open(), as_coro)

    @on_loop
    async def open(self, make_manager: Callable[[Self], Any] | None = None) -> Self:
        """Start to listen, unless the environment listens already; returns the environment.

        Args:
            make_manager: Makes the `manager`, after the address is bound and before any call is
                served.

        Raises:
            StartError: The address is not available.
            ConnectionLost: The environment was closed before it listened.
        """

        def prepare() -> None:
            for agent in self._agents:
                agent._addr = None
            if make_manager is not None:
                self.manager = make_manager(self)

        await self._listener.open(self.get_loop(), prepare)
        return self

    def get_loop(self) -> LoopHandle:
        """Return the loop on which this environment lives; chosen at the first call."""
        if self._loop is None:
            self._loop = current_loop() or background_loop()
        return self._loop

    @property
    def base_url(self) -> str:
        """``tcp://host:port/``; an agent's address is this followed by its number."""
        return self.network.base_url

    @property
    def name(self) -> str:
        """Name of the environment."""
        return self._name or self.base_url

    @property
    def artifacts(self) -> list[Artifact]:
        """Artifacts published in this environment, in order of publication."""
        return self._artifacts

    @property
    def age(self) -> int:
        """Age of the environment in simulation steps."""
        return self._age

    @age.setter
    def age(self, age: int) -> None:
        check_int("age", age)
        self._age = age

    @property
    def seed(self) -> int:
        """Seed of the agents' random generators; drawn unless it was set. Setting None draws one.

        Generators that were used already do not change with it.
        """
        seed = self._random.seed
        if seed is None:
            seed = draw_seed()
            self._random = self._random._replace(seed=seed)
        return seed

    @seed.setter
    def seed(self, seed: int | None) -> None:
        self._random = self._random._replace(seed=check_seed(seed))

    @property
    def calls(self) -> str:
        """How agents' calls go in a step and in `gather`: "rounds" or "free".

        See `MultiEnvironment`.
        """
        return "rounds" if self.network.steps.in_rounds else "free"

    @calls.setter
    def calls(self, calls: str) -> None:
        self.network.steps.in_rounds = check_calls(calls)

    @property
    def logger(self) -> ObjectLogger | None:
        """Logger of the environment; None until `log_folder` is set."""
        return self._logger

    @property
    def log_folder(self) -> str | None:
        """Folder for logs; setting it creates the logger."""
        return self._log_folder

    @log_folder.setter
    def log_folder(self, folder: str) -> None:
        check_kind("log_folder", folder, str)
        self._log_folder = folder
        self._logger = ObjectLogger(self, folder, add_name=True, init=True)

    # ---- agents

    def _register(self, agent: Agent) -> int:
        """Give a new agent its number in this environment."""
        rounds = self.network.steps.rounds
        return self._spawning.register(agent, None if rounds is None else rounds.agent)

    def _order_of(self, agent: Agent) -> Order:
        """An agent's `number`; see `RandomSource.order`."""
        return self._spawning.order(agent, self._random)

    def get_agents(
        self, addr: bool = True, agent_cls: type | None = None, include_manager: bool = False
    ) -> list[Any]:
        """Return the agents in this environment, in the order of their creation.

        Args:
            addr: Return their addresses rather than the agents.
            agent_cls: Only agents of exactly this class.
            include_manager: Include the manager, agent 0, if there is one.
        """
        skip = self.manager is not None and not include_manager
        agents = self._agents[1:] if skip else self._agents[:]
        if agent_cls is not None:
            agents = [agent for agent in agents if type(agent) is agent_cls]
        # Faster than the property, which would take as long as all the rest.
        return [agent._addr or agent.addr for agent in agents] if addr else agents

    def get_numbers(self) -> dict[str, Order]:
        """Return the agents' addresses and `number`, in ascending order; without the manager."""
        agents = self.get_agents(addr=False)
        agents.sort(key=lambda agent: sort_key(agent.number))
        return {agent.addr: agent.number for agent in agents}

    def get_agent(self, addr: str) -> Agent:
        """Return the agent at ``addr``.

        Raises:
            ValueError: The address is not in this environment.
            KeyError: There is no such agent.
        """
        number = split_address(addr)[2]
        if not addr.startswith(self.base_url):
            raise ValueError(f"{addr} is not in this environment, {self.base_url}")
        agent: Agent = self.network.agent(number)
        return agent

    def get_random_agent(self, agent: Agent) -> Agent:
        """Return an agent of this environment other than ``agent``, drawn with its `rng`.

        Raises:
            ValueError: There is no other.
        """
        others = [other for other in self.get_agents(addr=False) if other is not agent]
        if not others:
            raise ValueError(f"{self} has no agent besides {agent}")
        return others[draw_below(len(others), agent)]  # type: ignore[no-any-return]

    @on_loop
    async def connect(self, addr: str, timeout: float | None = 0) -> Proxy:
        """Return a proxy of the agent at ``addr``, in this environment or another.

        Where agents' calls go in rounds, an agent gets it at once, as asking would take a round: a
        wrong address shows in the first call.

        Args:
            addr: ``tcp://host:port/number``.
            timeout: Seconds to keep trying while nothing listens there; 0 for one attempt, None for
                no limit. There is one attempt for what was in a slave that does not come back.

        Raises:
            ValueError: The address is malformed.
            ConnectionLost, HandshakeError: Its environment cannot be reached.
            UnknownAgent: Its environment has no such agent.
        """
        check_kind("addr", addr, str)
        check_seconds(timeout)
        if (proxy := self.network.proxy_in_step(addr)) is not None:
            return proxy
        if not self._listener.listens:
            await self.open()
        return await self.network.connect(addr, timeout)

    # ---- acting

    @on_loop
    async def trigger_act(
        self, *args: Any, addr: str | None = None, agent: Any = None, **kwargs: Any
    ) -> Any:
        """Make one agent act and return what its ``act`` returns.

        Args:
            addr: Its address; required if ``agent`` is None.
            *args, **kwargs: Passed to ``act``.

        Raises:
            TypeError: Neither ``addr`` nor ``agent`` is given.
        """
        if agent is None:
            if addr is None:
                raise TypeError("trigger_act needs addr or agent")
            agent = self.get_agent(addr)
        self._log(logging.DEBUG, "Triggering agent in %s", agent.addr)
        value = agent.act(*args, **kwargs)
        return await value if isawaitable(value) else value

    @on_loop
    async def trigger_all(self, *args: Any, **kwargs: Any) -> list[Any]:
        """Make every agent but the manager act once, concurrently.

        Returns:
            What each ``act`` returned, in the order of the agents' creation.

        Raises:
            AgentErrors: Some raised; the group names them and holds the others' results.
        """
        return await recordings.take(self._recording, partial(self._act_observed, args, kwargs))

    async def _act_all(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
        agents = self.get_agents(addr=False)
        act: Callable[[Any], Any] | None = None  # passing arguments on, even none, takes time
        if type(self).trigger_act is not Environment.trigger_act:
            act = lambda agent: self.trigger_act(*args, agent=agent, **kwargs)  # noqa: E731
        elif args or kwargs:
            act = lambda agent: agent.act(*args, **kwargs)  # noqa: E731
        with self.network.steps.take(step_plan.get()) as rounds:
            return await act_each(agents, act, rounds)

    async def _act_observed(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], asked: Asked | None
    ) -> list[Any]:
        try:
            return await self._act_all(args, kwargs)
        finally:
            await self._observe_agents(asked)

    @on_loop
    async def gather(
        self, method: str, /, *args: Any, addrs: Iterable[str] | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """Call one exposed method of every agent but the manager, concurrently.

        As `MultiEnvironment.gather`, of this environment's agents in the order of their creation.
        If one lacks the method or does not exist, none is called. Calls that the methods make go as
        in a step; see `calls`.
        """
        if addrs is None:
            agents = self.get_agents(addr=False)
        else:
            agents = [self.get_agent(addr) for addr in dict.fromkeys(addrs)]
        with self.network.steps.take(step_plan.get()) as rounds:
            return await call_each(agents, method, args, kwargs, rounds)

    # ---- recording

    def _record(self, record: Any) -> None:
        """Record what follows, unless ``record`` is None; see `creamas_sc.results`."""
        if record is not None:
            self._recording = recordings.make(record, EnvironmentSubject(self), self._recording)

    def _observe(self, asked: Asked) -> Observed:
        """Observe the agents for a record."""
        changed, self._reconnected = self._reconnected, set()
        return observe(self.get_agents(addr=False), asked, changed)

    async def _observe_agents(self, asked: Asked | None) -> None:
        """Pass on to the record what it asks for."""
        if asked is not None:
            self._recording.take_observed(self.base_url, self._observe(asked))

    def is_ready(self) -> bool:
        """Return whether the environment is ready; override it if becoming ready takes time."""
        return True

    # ---- connections

    def create_random_connections(self, n: int = 5) -> None:
        """Connect every agent to ``n`` others of this environment, drawn with the agent's `rng`.

        Existing connections count among the ``n``.

        Raises:
            TypeError, ValueError: ``n`` is not a positive int.
        """
        check_int("n", n)
        if n <= 0:
            raise ValueError(f"n must be greater than zero, not {n}")
        connect_randomly(self.get_agents(addr=False), n)

    def create_connections(self, connection_map: Mapping[str, Iterable[Any]]) -> list[list[bool]]:
        """Make the connections of ``connection_map`` whose agents are in this environment.

        Args:
            connection_map: Address -> list of ``(addr, data)``, the argument of
                `CreativeAgent.add_connections`.

        Returns:
            What ``add_connections`` returned, for each of these agents.
        """
        with gc_paused():
            return [
                agent.add_connections(connection_map[agent.addr])
                for agent in self.get_agents(addr=False)
                if agent.addr in connection_map
            ]

    def get_connections(self, data: bool = True) -> list[tuple[str, Any]]:
        """Return ``(addr, connections)`` of every agent but the manager.

        Args:
            data: ``connections`` maps addresses to data rather than listing addresses.
        """
        with gc_paused():
            return [(a.addr, a.get_connections(data=data)) for a in self.get_agents(addr=False)]

    def clear_connections(self) -> None:
        """Remove all connections of all agents."""
        for agent in self.get_agents(addr=False):
            agent.clear_connections()

    # ---- artifacts

    def add_artifact(self, artifact: Artifact) -> None:
        """Add an artifact, here and in the master environment if there is one.

        Raises:
            EncodeError: The artifact cannot travel to the master; it is not added.
        """
        check_kind("artifact", artifact, Artifact)
        artifact.env_time = self.age
        self.network.publish(artifact)
        self._artifacts.append(artifact)
        if self._recording is not None:
            self._recording.note_artifact(artifact)
        self._log(logging.DEBUG, "Artifact %d added: %s", len(self._artifacts), artifact)

    def add_artifacts(self, artifacts: Iterable[Artifact]) -> None:
        """Add several artifacts, in order."""
        for artifact in artifacts:
            self.add_artifact(artifact)

    async def get_artifacts(self, agent: Any = None) -> list[Artifact]:
        """Return all artifacts, or those of ``agent``; with a manager, all that it knows of."""
        artifacts = self._artifacts if self.manager is None else await self.manager.get_artifacts()
        return [a for a in artifacts if agent is None or a.creator == agent.name]

    # ---- randomness

    def _make_rng(self, agent: Agent, numpy: bool = False) -> Any:
        """Make an agent's random generator; see `RandomSource`."""
        return self._spawning.generator(agent, self._random._replace(seed=self.seed), numpy)

    # ---- the end

    def save_info(self, folder: str | None, *args: Any, **kwargs: Any) -> Any:
        """Save results; called by `close`. Override it in a subclass."""

    def close(self, folder: str | None = None, as_coro: bool = False) -> Any:
        """Save, close every agent, and close all connections; a second call does nothing.

        Args:
            folder: Passed to `save_info` and each agent's ``close``, as an absolute path; created
                if it does not exist.
            as_coro: Return a coroutine instead of blocking.

        Returns:
            What `save_info` returned.

        Raises:
            AgentErrors: `save_info` or an agent's ``close`` raised; all else was closed.
            BadValue: The folder cannot be created, or is another user's; nothing was closed.
        """
        if self._listener.closed:  # and the loop may have ended, too
            return _nothing() if as_coro else None
        return sync_or_coro(self, self._close(make_folder(folder)), as_coro)

    @on_loop
    async def _close(self, folder: str | None) -> Any:
        if self._listener.closed:
            return None
        self._listener.closed = True
        failures: dict[str, BaseException] = {}
        try:
            saved = await save_all(self, folder, failures)
        finally:
            await self.network.endpoint.aclose()
            if self._recording is not None:
                error = await recordings.close(self._recording)
                failures |= {} if error is None else {self.base_url: error}
        if failures:
            raise agent_errors("failed to close", failures, [])
        return saved

    def destroy(self, folder: str | None = None, as_coro: bool = False) -> Any:
        """Deprecated: use `close`."""
        warnings.warn("destroy is deprecated: use close", DeprecationWarning, stacklevel=2)
        return self.close(folder=folder, as_coro=as_coro)

    def _log(self, level: int, msg: str, *args: Any) -> None:
        if self._logger is not None:
            text = msg % args
            self._logger.log(level, text)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name})"


async def _nothing() -> None:
    return None

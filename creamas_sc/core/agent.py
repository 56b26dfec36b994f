"""Agents: what has an address in an environment, and what every creative agent can do."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from creamas_sc.core.artifact import Artifact
from creamas_sc.logging import ObjectLogger
from creamas_sc.rpc.exposed import expose
from creamas_sc.runtime.class_loading import class_name
from creamas_sc.runtime.validation import check_kind
from creamas_sc.util import sanitize_agent_name

if TYPE_CHECKING:
    import os

    from creamas_sc.core.environment import Environment

__all__ = ["Agent", "CreativeAgent", "agent_factory"]

Factory = TypeVar("Factory", bound=Callable[..., Any])


def agent_factory(function: Factory) -> Factory:
    """Mark a function that makes an agent, for `spawn` to call in place of an agent class.

    The function gets the environment and what `spawn` was given, and returns the agent::

        @agent_factory
        async def painter(environment, style):
            return Painter(environment, palette=await load(style))

    `spawn` takes names, and a name may lead to anything that can be imported: it calls no function
    without this mark.
    """
    function._makes_agents_ = True  # type: ignore[attr-defined]
    return function


def makes_agents(function: Any) -> bool:
    """Whether a function is marked as an `agent_factory`."""
    return getattr(function, "_makes_agents_", False) is True


def missing_act(agent_cls: type) -> str | None:
    """What to say about a class whose agents do nothing in a step; None if they act."""
    if not issubclass(agent_cls, CreativeAgent) or agent_cls.act is not CreativeAgent.act:
        return None
    import difflib

    own = [name for name in dir(agent_cls) if not hasattr(CreativeAgent, name)]
    near = difflib.get_close_matches("act", own, 1)
    hint = f"; is its {near[0]} meant?" if near else ""
    return f"{class_name(agent_cls)} has no method act, so its agents do nothing in a step{hint}"


class Agent:
    """Base of everything that has an address in an environment: creative agents and managers.

    Args:
        environment: Where the agent lives; it gives the agent its number.

    Raises:
        TypeError: ``environment`` is not an Environment.
    """

    # Cached; an environment that learns its port resets it.
    _addr: str | None = None
    _order: int | tuple[int, ...] | None = None
    _made = 0

    def __init__(self, environment: Environment) -> None:
        register = getattr(environment, "_register", None)
        if register is None:
            kind = type(environment).__name__
            raise TypeError(
                f"{type(self).__name__} needs an Environment as its first argument, not {kind}"
            )
        self._env = environment
        self._number: int = register(self)

    @property
    def addr(self) -> str:
        """The agent's address, ``tcp://host:port/number``."""
        if self._addr is None:
            self._addr = f"{self._env.base_url}{self._number}"
        return self._addr

    @property
    def number(self) -> int | tuple[int, ...]:
        """The agent's place in the order of spawning in the simulation, from 0 on.

        It depends on no slave, port or address. Of an agent that another one made in a step, a
        tuple: ``(17, 0)`` is the first one that agent 17 made.
        """
        if self._order is None:
            self._order = self._env._order_of(self)
        return self._order

    @property
    def env(self) -> Environment:
        """The environment where the agent lives."""
        return self._env

    def qualname(self) -> str:
        """Name by which the agent's class is spawned elsewhere, ``pkg.mod:Class``."""
        return class_name(type(self))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.addr})"


class CreativeAgent(Agent):
    """Base of the agents that make and judge artifacts.

    A subclass overrides `act` and, if needed, `evaluate` and `close`. Other agents can call only
    methods that are marked with ``@expose``; an override must be marked again. Where a simulation
    is recorded, an optional method ``observe()`` is called after each step, and the dict of names
    and scalars that it returns is kept: see `creamas_sc.results`.

    Args:
        environment: Where the agent lives.
        resources: What the agent may spend in a step; 0 or less means no limit.
        name: The agent's name, by default (None or empty) its address.
        log_folder: If given, the agent logs into its own folder within it.
        log_level: Level of that logger.

    Attributes:
        logger: An `ObjectLogger`, or None (the default): the agent logs nothing.

    Raises:
        TypeError: ``environment`` is not an Environment, or ``name`` is not a string.
    """

    logger: Any = None
    # Made at first use: most agents of a large society never need some of these.
    _artifacts: list[Artifact] | None = None
    _domain_knowledge: dict[str, Any] | None = None
    _known: dict[str, dict[str, Any]] | None = None
    _rng: Any = None
    _numpy_rng: Any = None
    _name: str | None = None
    _max_res: float = 0
    _cur_res: float = 0

    def __init__(
        self,
        environment: Environment,
        resources: float = 0,
        name: str | None = None,
        log_folder: str | os.PathLike[str] | None = None,
        log_level: int = logging.DEBUG,
    ) -> None:
        if name is not None and not isinstance(name, str):
            raise TypeError(f"an agent's name must be a str, not {type(name).__name__}")
        super().__init__(environment)
        if resources > 0:
            self._max_res = self._cur_res = resources
        if name is not None:
            self._name = name
        if log_folder is not None:
            self.logger = ObjectLogger(self, log_folder, add_name=True, log_level=log_level)

    @property
    def name(self) -> str:
        """The agent's name. Evaluations and artifacts refer to it, so do not change it later."""
        return self._name or self.addr

    @name.setter
    def name(self, name: str) -> None:
        self._name = name

    def sanitized_name(self) -> str:
        """Return the name in a form that suits files and folders."""
        return sanitize_agent_name(self.name)

    @property
    def rng(self) -> Any:
        """The agent's own random generator, a `random.Random`.

        It depends only on the simulation's seed and the order of spawning, not on the slave where
        the agent lives. Another generator may be set in its place.
        """
        if self._rng is None:
            self._rng = self.env._make_rng(self)
        return self._rng

    @rng.setter
    def rng(self, rng: Any) -> None:
        self._rng = rng

    @property
    def numpy_rng(self) -> Any:
        """A generator of numpy's, ``numpy.random.Generator``, which depends on the same as `rng`.

        Raises:
            ModuleNotFoundError: numpy is not installed.
        """
        if self._numpy_rng is None:
            self._numpy_rng = self.env._make_rng(self, numpy=True)
        return self._numpy_rng

    @property
    def A(self) -> list[Artifact]:
        """Artifacts that the agent has made."""
        if self._artifacts is None:
            self._artifacts = []
        return self._artifacts

    @property
    def D(self) -> dict[str, Any]:
        """Domain knowledge: what the agent knows of others' artifacts, by agent."""
        if self._domain_knowledge is None:
            self._domain_knowledge = {}
        return self._domain_knowledge

    @property
    def connections(self) -> dict[str, dict[str, Any]]:
        """Agents that this agent knows: address -> its data about that agent."""
        if self._known is None:
            self._known = {}
        return self._known

    @property
    def max_res(self) -> float:
        """Resources in a step, at least 0; 0 means no limit. Caps `cur_res`."""
        return self._max_res

    @max_res.setter
    def max_res(self, value: float) -> None:
        self._max_res = max(value, 0)
        self._cur_res = min(self._cur_res, self._max_res)

    @property
    def cur_res(self) -> float:
        """Resources left, between 0 and `max_res` (so always 0 if there is no limit)."""
        return self._cur_res

    @cur_res.setter
    def cur_res(self, value: float) -> None:
        self._cur_res = max(min(value, self._max_res), 0)

    def refill(self) -> None:
        """Set the resources left to `max_res`."""
        self._cur_res = self._max_res

    def add_artifact(self, artifact: Artifact) -> None:
        """Keep an artifact in `A`.

        Raises:
            TypeError: It is not an `Artifact`.
        """
        check_kind("artifact", artifact, Artifact)
        self.A.append(artifact)

    def publish(self, artifact: Artifact) -> None:
        """Add an artifact to those of the environment, where every agent can find it.

        Raises:
            TypeError: It is not an `Artifact`.
        """
        check_kind("artifact", artifact, Artifact)
        self.env.add_artifact(artifact)
        if self.logger is not None:
            self._log(logging.DEBUG, f"published {artifact}")

    async def connect(self, addr: str) -> Any:
        """Return a proxy of the agent at ``addr``; errors as in the environment's ``connect``."""
        return await self.env.connect(addr)

    async def random_connection(self) -> Any:
        """Return a proxy of one of `connections`, drawn with the agent's `rng`.

        Raises:
            IndexError: The agent has no connections.
        """
        if not self._known:
            raise IndexError(f"{self.name} has no connections to choose from")
        addrs = list(self._known)
        # Both numpy's and Python's generators have random().
        return await self.env.connect(addrs[int(self.rng.random() * len(addrs))])

    async def ask_opinion(self, addr: str, artifact: Artifact) -> Any:
        """Return what the `evaluate` of the agent at ``addr`` returns for the artifact."""
        other = await self.env.connect(addr)
        return await other.evaluate(artifact)

    @expose
    def add_connection(self, addr: Any, **data: Any) -> bool:
        """Connect to an agent.

        Args:
            addr: Its address; the agent or its proxy is accepted too.
            **data: Stored for it in `connections`.

        Returns:
            False if the agent is connected already; its data then stays as it is.

        Raises:
            TypeError: ``addr`` is not an address and has none.
        """
        addr = _address_of(addr)
        connections = self.connections
        if addr in connections:
            return False
        connections[addr] = data
        self._note_reconnected()
        return True

    @expose
    def add_connections(self, conns: Iterable[tuple[Any, Mapping[str, Any]]]) -> list[bool]:
        """Call `add_connection` for each ``(addr, data)`` pair, in order."""
        if type(self).add_connection is not CreativeAgent.add_connection:
            return [self.add_connection(addr, **data) for addr, data in conns]
        known, added = self.connections, []
        for other, data in conns:
            addr = other if type(other) is str else _address_of(other)
            kept = _kept(addr, **data)
            new = addr not in known
            if new:
                known[addr] = kept
            added.append(new)
        self._note_reconnected()
        return added

    @expose
    def remove_connection(self, addr: Any) -> dict[str, Any] | None:
        """Remove a connection; returns its data, or None if there was none."""
        self._note_reconnected()
        return self.connections.pop(_address_of(addr), None)

    @expose
    def clear_connections(self) -> None:
        """Remove all connections."""
        self._known = None
        self._note_reconnected()

    def _note_reconnected(self) -> None:
        """Note for a record, if there is one, that the connections are others now."""
        if (changed := self._env._reconnected) is not None:
            changed.add(self._number)

    @expose
    def get_connections(self, data: bool = False) -> Any:
        """Return the connected addresses, or with ``data`` a copied dict of address -> data."""
        if not self._known:
            return {} if data else []
        if data:
            return {addr: dict(kept) for addr, kept in self._known.items()}
        return list(self._known)

    @expose
    def evaluate(self, artifact: Artifact) -> Any:
        """Judge an artifact. Override it, as a plain or an async method.

        Returns:
            The evaluation and its framing, ``(0.0, None)`` unless overridden.
        """
        return 0.0, None

    @expose
    async def act(self, *args: Any, **kwargs: Any) -> Any:
        """Take the agent's turn in a step. Override it, as an async or a plain method.

        Returns:
            What ``trigger_act`` and ``trigger_all`` return; ``(args, kwargs)`` unless overridden.
        """
        return args, kwargs

    @expose
    def close(self, folder: str | None = None) -> Any:
        """Release what the agent holds, before the environment closes. Override it, plain or async.

        Args:
            folder: Where to save results; None to save nothing.
        """

    def _log(self, level: int, message: str) -> None:
        if self.logger is not None:
            self.logger.log(level, message)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name})"


def _kept(addr: str, **data: Any) -> dict[str, Any]:
    """Return the data that `CreativeAgent.add_connection` stores."""
    return data


def _address_of(agent: Any) -> str:
    addr = agent if isinstance(agent, str) else getattr(agent, "addr", None)
    if not isinstance(addr, str):
        raise TypeError(f"expected an agent's address (or the agent, or its proxy), not {agent!r}")
    return addr

"""Agents: who lives at an address, and what every creative agent can do."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from creamas_sc.core.artifact import Artifact
from creamas_sc.logging import ObjectLogger
from creamas_sc.rpc.exposed import expose
from creamas_sc.runtime.class_loading import class_name
from creamas_sc.util import sanitize_agent_name

if TYPE_CHECKING:
    import os

    from creamas_sc.core.environment import Environment

__all__ = ["Agent", "CreativeAgent"]


class Agent:
    """Whatever has an address in an environment: creative agents and managers.

    Args:
        environment: Where the agent is to live; it gives the agent its number.

    Raises:
        TypeError: ``environment`` is no Environment.
    """

    # An environment that is bound again, to the port that it got, sets this to None.
    _addr: str | None = None

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

    A subclass overrides `act` and, as it needs, `evaluate` and `close`. A method is open to other
    agents only if it is marked with ``@expose``, an overriding one included.

    Args:
        environment: Where the agent is to live.
        resources: What the agent may spend in a step; 0 stands for no limit. Below 0 counts as 0.
        name: The agent's name, by default (None or empty) its address.
        log_folder: If given, the agent logs into its own folder within it.
        log_level: Level of that logger.

    Raises:
        TypeError: ``environment`` is no Environment, or ``name`` no string.
    """

    # Most agents of a large society never use some of these, so that they are made at first use.
    _artifacts: list[Artifact] | None = None
    _domain_knowledge: dict[str, Any] | None = None
    _known: dict[str, dict[str, Any]] | None = None
    _logger: Any = None
    _rng: Any = None
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
            raise TypeError(f"an agent's name is a string, not {type(name).__name__}")
        super().__init__(environment)
        if resources > 0:
            self._max_res = self._cur_res = resources
        if name is not None:
            self._name = name
        if log_folder is not None:
            self._logger = ObjectLogger(self, log_folder, add_name=True, log_level=log_level)

    @property
    def name(self) -> str:
        """The agent's name. Evaluations and artifacts are kept under it: better not change it."""
        return self._name or self.addr

    @name.setter
    def name(self, name: str) -> None:
        self._name = name

    def sanitized_name(self) -> str:
        """The name in a form that suits files and folders."""
        return sanitize_agent_name(self.name)

    @property
    def logger(self) -> Any:
        """An `ObjectLogger`, or None (the default): the agent logs nothing."""
        return self._logger

    @logger.setter
    def logger(self, logger: Any) -> None:
        self._logger = logger

    @property
    def rng(self) -> Any:
        """The agent's own random generator: numpy's where numpy is installed, else Python's.

        In a seeded simulation it depends on the seed and on the order of spawning only, not on
        the slave where the agent lives.
        """
        if self._rng is None:
            self._rng = self.env._make_rng(self)
        return self._rng

    @property
    def A(self) -> list[Artifact]:
        """Artifacts that the agent has made."""
        if self._artifacts is None:
            self._artifacts = []
        return self._artifacts

    @property
    def D(self) -> dict[str, Any]:
        """Domain knowledge: what the agent has seen of others' artifacts, by agent."""
        if self._domain_knowledge is None:
            self._domain_knowledge = {}
        return self._domain_knowledge

    @property
    def connections(self) -> dict[str, dict[str, Any]]:
        """Agents that this agent knows: address -> what it keeps about that agent."""
        if self._known is None:
            self._known = {}
        return self._known

    @property
    def max_res(self) -> float:
        """Resources in a step, at least 0; 0 stands for no limit. Caps `cur_res`."""
        return self._max_res

    @max_res.setter
    def max_res(self, value: float) -> None:
        self._max_res = max(value, 0)
        self._cur_res = min(self._cur_res, self._max_res)

    @property
    def cur_res(self) -> float:
        """Resources left, between 0 and `max_res` (so always 0 where there is no limit)."""
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
            TypeError: It is no `Artifact`.
        """
        if not isinstance(artifact, Artifact):
            raise TypeError(f"{self.name} can keep only an Artifact, not {type(artifact).__name__}")
        self.A.append(artifact)

    def publish(self, artifact: Artifact) -> None:
        """Add an artifact to the environment's, where every agent can find it.

        Raises:
            TypeError: It is no `Artifact`.
        """
        if not isinstance(artifact, Artifact):
            raise TypeError(
                f"{self.name} can publish only an Artifact, not {type(artifact).__name__}"
            )
        self.env.add_artifact(artifact)
        if self.logger is not None:
            self._log(logging.DEBUG, f"published {artifact}")

    async def connect(self, addr: str) -> Any:
        """Proxy of the agent at ``addr``; the environment's ``connect`` tells what is raised."""
        return await self.env.connect(addr)

    async def random_connection(self) -> Any:
        """Proxy of one of `connections`, drawn with the agent's `rng`.

        Raises:
            IndexError: The agent has no connections.
        """
        if not self._known:
            raise IndexError(f"{self.name} has no connections to choose from")
        addrs = list(self._known)
        # random() is what numpy's and Python's generators have in common.
        return await self.env.connect(addrs[int(self.rng.random() * len(addrs))])

    async def ask_opinion(self, addr: str, artifact: Artifact) -> Any:
        """What the agent at ``addr`` returns from its `evaluate` of the artifact."""
        other = await self.env.connect(addr)
        return await other.evaluate(artifact)

    @expose
    def add_connection(self, addr: Any, **data: Any) -> bool:
        """Get to know an agent.

        Args:
            addr: Its address; an agent or a proxy is accepted too.
            **data: Kept about it in `connections`.

        Returns:
            False if the agent is known already: what is kept about it stays as it is.

        Raises:
            TypeError: ``addr`` is not an address and has none.
        """
        addr = _address_of(addr)
        connections = self.connections
        if addr in connections:
            return False
        connections[addr] = data
        return True

    @expose
    def add_connections(self, conns: Iterable[tuple[Any, Mapping[str, Any]]]) -> list[bool]:
        """Get to know the agents of ``(addr, data)`` pairs: `add_connection` of each, in order."""
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
        return added

    @expose
    def remove_connection(self, addr: Any) -> dict[str, Any] | None:
        """Forget an agent; what was kept about it, or None if it was not known."""
        return self.connections.pop(_address_of(addr), None)

    @expose
    def clear_connections(self) -> None:
        """Forget all agents."""
        self._known = None

    @expose
    def get_connections(self, data: bool = False) -> Any:
        """Addresses of the known agents, with ``data`` a dict of address -> data (a copy)."""
        if not self._known:
            return {} if data else []
        if data:
            return {addr: dict(kept) for addr, kept in self._known.items()}
        return list(self._known)

    @expose
    def evaluate(self, artifact: Artifact) -> Any:
        """Judge an artifact; to be overridden, as a plain or an async method.

        Returns:
            The evaluation and its framing, ``(0.0, None)`` unless overridden.
        """
        return 0.0, None

    @expose
    async def act(self, *args: Any, **kwargs: Any) -> Any:
        """The agent's turn in a step; to be overridden.

        Returns:
            What ``trigger_act`` and ``trigger_all`` hand on, ``(args, kwargs)`` unless overridden.
        """
        return args, kwargs

    @expose
    def close(self, folder: str | None = None) -> Any:
        """Called once before the environment closes; to be overridden.

        Args:
            folder: Where to save what should be kept; None to save nothing.
        """

    def _log(self, level: int, message: str) -> None:
        if self.logger is not None:
            self.logger.log(level, message)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name})"


def _kept(addr: str, **data: Any) -> dict[str, Any]:
    """What `CreativeAgent.add_connection` keeps."""
    return data


def _address_of(agent: Any) -> str:
    addr = agent if isinstance(agent, str) else getattr(agent, "addr", None)
    if not isinstance(addr, str):
        raise TypeError(f"expected an agent's address (or the agent, or its proxy), not {agent!r}")
    return addr

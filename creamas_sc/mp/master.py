"""The master environment of a multi-environment, and the manager in it."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from creamas_sc.core.artifact import Artifact
from creamas_sc.core.construction import make_environment
from creamas_sc.core.environment import Environment
from creamas_sc.errors import ConnectionLost
from creamas_sc.mp.managers import Manager
from creamas_sc.rpc.auth import Membership
from creamas_sc.rpc.exposed import expose

if TYPE_CHECKING:
    from creamas_sc.mp.multienvironment import MultiEnvironment


class MultiEnvManager(Manager):
    """Manages a `MultiEnvironment`, its ``menv``: the same operations, for calls by agents."""

    _menv: weakref.ref[MultiEnvironment]

    @property
    def menv(self) -> MultiEnvironment:
        """The multi-environment; the manager does not keep it alive.

        Raises:
            ConnectionLost: It is gone, without having been closed.
        """
        menv = self._menv()
        if menv is None:
            text = f"the MultiEnvironment of {self.addr} is gone: keep it until you close it"
            raise ConnectionLost(text, address=self.addr, may_have_run=False)
        return menv

    @menv.setter
    def menv(self, menv: MultiEnvironment) -> None:
        self._menv = weakref.ref(menv)

    @expose
    def handle(self, msg: Any) -> Any:
        """Take a message that a slave's manager reports; override in a subclass.

        An artifact that it adds to ``menv`` in a step is there once, even if it was published, too.
        """

    @expose
    async def spawn(  # type: ignore[override]
        self, agent_cls: str | type, *args: Any, addr: str | None = None, **kwargs: Any
    ) -> str:
        """Make an agent in a slave; returns its address. See `MultiEnvironment.spawn`."""
        return (await self.menv.spawn(agent_cls, *args, addr=addr, **kwargs))[1]

    @expose
    async def spawn_n(
        self, agent_cls: str | type, n: int, *args: Any, addr: str | None = None, **kwargs: Any
    ) -> list[str]:
        """Make ``n`` agents in one slave; their addresses. See `MultiEnvironment.spawn_n`."""
        spawned = await self.menv.spawn_n(agent_cls, n, *args, addr=addr, **kwargs)
        return [address for _, address in spawned]

    @expose
    async def get_agents(self, addr: bool = True, agent_cls: type | None = None) -> list[Any]:
        """Agents of all slaves; see `MultiEnvironment.get_agents`."""
        return await self.menv.get_agents(  # type: ignore[no-any-return]
            addr=addr, agent_cls=agent_cls, as_coro=True
        )

    @expose
    async def get_numbers(self) -> dict[str, Any]:
        """See `MultiEnvironment.get_numbers`."""
        return await self.menv.get_numbers(as_coro=True)  # type: ignore[no-any-return]

    @expose
    async def create_connections(self, connection_map: dict[str, Any]) -> list[list[bool]]:
        """See `MultiEnvironment.create_connections`."""
        return await self.menv.create_connections(  # type: ignore[no-any-return]
            connection_map, as_coro=True
        )

    @expose
    async def get_connections(self, data: bool = True) -> list[tuple[str, Any]]:
        """See `MultiEnvironment.get_connections`."""
        return await self.menv.get_connections(  # type: ignore[no-any-return]
            data=data, as_coro=True
        )

    @expose
    async def get_artifacts(self) -> list[Artifact]:
        """Artifacts of all agents; see `MultiEnvironment.artifacts`."""
        return self.menv.artifacts

    @expose
    async def get_slave_managers(self) -> list[str]:
        """Addresses of the slaves' managers."""
        return self.menv.get_slave_managers()

    @expose
    async def set_as_host_manager(self, addr: str, timeout: float = 5) -> Any:
        """Become the host manager of the manager at ``addr``."""
        return await self.menv.set_host_manager(addr, timeout=timeout)

    @expose
    async def trigger_all(self, *args: Any, **kwargs: Any) -> list[Any]:
        """Make every agent of all slaves act once; see `MultiEnvironment.trigger_all`."""
        return await self.menv.trigger_all(*args, **kwargs)

    @expose
    async def gather(
        self, method: str, /, *args: Any, addrs: list[str] | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """Call one method of every agent of all slaves; see `MultiEnvironment.gather`."""
        return await self.menv.gather(method, *args, addrs=addrs, **kwargs)

    @expose
    async def is_ready(self) -> bool:
        """See `MultiEnvironment.is_ready`."""
        return await self.menv.is_ready()

    @expose
    def close(self, folder: str | None = None) -> Any:
        """Called before the multi-environment closes; override in a subclass."""


def make_master(
    menv: MultiEnvironment,
    member: Membership,
    seed: int | None,
    calls: str,
    addr: tuple[str, int],
    env_cls: type[Environment],
    env_kwargs: Mapping[str, Any],
    mgr_cls: type | None,
) -> Environment:
    """Make the master environment of ``menv``, and its manager if there is to be one."""
    env = make_environment(env_cls, addr, (), env_kwargs)
    env._listener.member = member
    env.calls = calls
    if seed is not None:
        env.seed = seed
    if mgr_cls is not None:
        env.manager = mgr_cls(env)
        env.manager._order = (sys.maxsize, 0, 0)  # after all agents
        env.manager.menv = menv
    return env

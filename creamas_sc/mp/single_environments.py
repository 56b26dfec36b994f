"""Single environments with a manager: in the calling process, or each in its own."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Self

import anyio
import trio

from creamas_sc.core.construction import make_environment
from creamas_sc.core.environment import Environment
from creamas_sc.core.randomness import seed_process
from creamas_sc.mp.closer import behind
from creamas_sc.mp.managers import EnvManager, Manager
from creamas_sc.mp.slave_main import name_process
from creamas_sc.mp.slave_pool import SlavePool
from creamas_sc.reports import StopReport
from creamas_sc.restarts.slave import Slave
from creamas_sc.runtime.class_loading import end_script_load
from creamas_sc.runtime.event_loop import LoopHandle, background_loop, on_loop, sync_or_coro
from creamas_sc.supervisor_client.messages import ActorOrder
from creamas_sc.util import run

log = logging.getLogger(__name__)

# How long the agents' ``close`` and `save_info` may take when an environment is interrupted.
CLOSE_SECONDS = 5.0


async def start(
    addr: tuple[str, int],
    env_cls: type[Environment],
    mgr_cls: type[Manager],
    *env_args: Any,
    **env_kwargs: Any,
) -> None:
    """Run an environment with a manager in this process until the manager's ``stop`` is called.

    The environment is closed, with its ``log_folder`` as folder, however this ends.

    Args:
        addr: ``(host, port)`` to listen on.
        env_cls: Class of the environment, whose ``__init__`` gets ``env_args`` and ``env_kwargs``.
        mgr_cls: Class of the manager.

    Raises:
        StartError: The address is not available.
    """
    await _serve(None, addr, env_cls, mgr_cls, env_args, env_kwargs)


async def _serve(
    seed: int | None,
    addr: tuple[str, int],
    env_cls: type[Environment],
    mgr_cls: type[Manager],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> None:
    env = make_environment(env_cls, addr, args, kwargs)
    if seed is not None:
        env.seed = seed
    try:
        await env.open(mgr_cls)
        await env.get_loop().call(env.manager.stop_received.wait)
    finally:
        with anyio.move_on_after(CLOSE_SECONDS, shield=True):
            await env.close(folder=env.log_folder, as_coro=True)


def spawn_container(
    addr: tuple[str, int],
    env_cls: type[Environment] = Environment,
    mgr_cls: type[Manager] = EnvManager,
    set_seed: bool | int = True,
    *args: Any,
    **kwargs: Any,
) -> None:
    """Run an environment in this process, blocking, until its manager's `stop`, or Ctrl-C.

    Args:
        addr: ``(host, port)`` to listen on.
        env_cls: Class of the environment, whose ``__init__`` gets ``args`` and ``kwargs``.
        mgr_cls: Class of the manager.
        set_seed: True for fresh entropy in the process's random generators, an int to make them
            repeatable, False to leave them alone.
    """
    end_script_load()
    name_process(f"creamas: {env_cls.__name__}({addr[0]}:{addr[1]})")
    seed_process(set_seed)
    try:
        seed = None if isinstance(set_seed, bool) else set_seed
        run(_serve(seed, addr, env_cls, mgr_cls, args, kwargs))
    except KeyboardInterrupt:
        log.info("interrupted by the user")


def spawn_containers(
    addrs: Sequence[tuple[str, int]],
    env_cls: type[Environment] = Environment,
    env_params: Iterable[Mapping[str, Any]] | None = None,
    mgr_cls: type[Manager] = EnvManager,
    *args: Any,
    **kwargs: Any,
) -> Containers:
    """Start environments, each in its own process, under one supervisor of this process.

    Returns when each has bound its address: all come up, or none. They end with `Containers.stop`,
    with this process, or each with its manager's `stop`.

    Args:
        addrs: ``(host, port)`` of each.
        env_cls: Class of the environments, whose ``__init__`` gets ``args`` and ``kwargs``.
        env_params: Keyword arguments for each environment, in place of ``kwargs``.
        mgr_cls: Class of the managers.

    Raises:
        ValueError: ``env_params`` and ``addrs`` differ in length.
        StartError: One did not come up.
    """
    end_script_load()
    each = [kwargs for _ in addrs] if env_params is None else list(env_params)
    containers = Containers(background_loop())
    orders = containers._slaves.orders(addrs, env_cls, mgr_cls, each, args)
    containers._loop.run_sync(containers._start(orders))
    return containers


class Container:
    """One environment in its own process.

    Attributes:
        address: Of its manager.
        pid: Its process.
    """

    def __init__(self, loop: LoopHandle, slave: Slave) -> None:
        self._loop = loop
        self._slave = slave
        self.address = slave.address
        self.pid = slave.pid

    def get_loop(self) -> LoopHandle:
        """The loop that watches the process."""
        return self._loop

    @property
    def running(self) -> bool:
        """Whether its process is running."""
        return not self._slave.gone.is_set()

    def wait(self, timeout: float | None = None, as_coro: bool = False) -> Any:
        """Wait up to ``timeout`` seconds for its process to end; returns whether it has."""
        return sync_or_coro(self, self._wait(timeout), as_coro)

    @on_loop
    async def _wait(self, timeout: float | None) -> bool:
        with trio.move_on_after(float("inf") if timeout is None else timeout):
            await self._slave.gone.wait()
        return self._slave.gone.is_set()


class Containers(list[Container]):
    """The containers of one `spawn_containers`; ``with`` stops them at the block's end."""

    def __init__(self, loop: LoopHandle) -> None:
        super().__init__()
        self._loop = loop
        self._slaves = SlavePool()

    def get_loop(self) -> LoopHandle:
        """The loop that watches the processes."""
        return self._loop

    async def _start(self, orders: Sequence[ActorOrder]) -> None:
        started = await self._slaves.start(self._loop, orders)
        self._loop.closers[id(self)] = partial(self._stop, 1)
        self.extend(Container(self._loop, slave) for slave in started)

    def stop(self, timeout: float = 1, as_coro: bool = False) -> Any:
        """Stop all and their supervisor; the `StopReport` says how each ended.

        Args:
            timeout: How many seconds each may take to save and close its agents.

        Raises:
            AgentErrors: Some failed to save or close; all were stopped.
        """
        return sync_or_coro(self, self._stop(timeout), as_coro)

    @on_loop
    async def _stop(self, timeout: float) -> StopReport:
        with trio.CancelScope(shield=True):
            try:
                report = await self._slaves.stop(timeout, None)
            finally:
                await self._slaves.aclose()
                self._loop.closers.pop(id(self), None)
        return report.checked()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        with behind(error, self):
            self.stop()

"""The multi-environment: a master environment, and slaves with the agents in their processes."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from inspect import isawaitable
from itertools import chain
from typing import Any, Self, TypeVar

import anyio
import sniffio
import trio

from creamas_sc.core.artifact import Artifact
from creamas_sc.core.environment import Environment
from creamas_sc.core.step_loop import StepLimit, step_limit
from creamas_sc.errors import (
    AgentError,
    BadValue,
    NoSlaves,
    SlaveLost,
    StartError,
)
from creamas_sc.mp.manager_calls import ManagerCalls
from creamas_sc.mp.managers import SPAWN_INDEX
from creamas_sc.mp.slave_pool import Slave, Slaves
from creamas_sc.mp.step import Step, take_turn
from creamas_sc.processes.messages import ActorOrder
from creamas_sc.reports import Restart, StopReport
from creamas_sc.restarts.driver import Restarter
from creamas_sc.restarts.journal import Journals
from creamas_sc.restarts.policy import Mode, RestartPolicy
from creamas_sc.rpc.auth import Membership, membership
from creamas_sc.rpc.exposed import Proxy
from creamas_sc.rpc.node import base_timeout, call_timeout
from creamas_sc.runtime.class_loading import end_script_load, portable_name
from creamas_sc.runtime.coroutines import at_once
from creamas_sc.runtime.event_loop import (
    LoopHandle,
    adopt_running_loop,
    is_ctrl_c,
    on_loop,
    sync_or_coro,
)
from creamas_sc.runtime.interrupts import install_signal_handling
from creamas_sc.runtime.validation import (
    check_folder,
    check_int,
    check_kind,
    check_seconds,
    check_text,
)
from creamas_sc.util import get_manager

__all__ = ["MultiEnvironment"]

log = logging.getLogger(__name__)

T = TypeVar("T")

# Seconds that slaves have to save and close their agents in `close`.
GRACE_SECONDS = 1.0
# Between two questions whether a slave is ready, in seconds: shortest, longest.
READY_PAUSES = (0.01, 0.2)


class MultiEnvironment:
    """An environment over several processes of one machine.

    Not a subclass of `Environment`: it has a master environment, `env`, which holds only its
    manager, and slaves, each with an environment, a manager and agents of its own.

    The constructor starts nothing. ``async with`` (under trio or asyncio) or ``with`` guarantees
    the close; without them call `close`. Async methods may be awaited under trio and asyncio, or
    given to `creamas_sc.util.run` in plain code; the others have a sync form and, with
    ``as_coro=True``, an async one.

    Args:
        addr: ``(host, port)`` of the master environment; port 0 is any free one.
        env_cls: Class of the master environment.
        mgr_cls: Class of its manager, a subclass of `MultiEnvManager`; None for no manager.
        name: Shown in logs; "host:port" by default.
        logger: Has ``log(level, message)``.
        seed: Makes a run repeatable: each agent's ``rng`` depends on it and the order of spawning.
        restart: What the loss of a slave leads to: "temporary", the others go on without it;
            "transient", it is started again unless it ended in order; "permanent", it is started
            again however it ended; "all", the multi-environment closes. Or a `RestartPolicy`, which
            says after how many restarts in how many seconds it closes: 3 in 60 without.
        **env_kwargs: Passed to ``env_cls``.

    Raises:
        BadValue: ``restart`` is none of these.
    """

    def __init__(
        self,
        addr: tuple[str, int],
        env_cls: type[Environment],
        mgr_cls: type | None = None,
        name: str | None = None,
        logger: Any = None,
        *,
        seed: int | None = None,
        restart: str | RestartPolicy = "temporary",
        **env_kwargs: Any,
    ) -> None:
        end_script_load()
        if seed is not None and (type(seed) is not int or seed < 0):
            raise ValueError(f"seed must be an int of at least 0, or None, not {seed!r}")
        member = Membership.new()
        token = membership.set(member)
        try:
            self._env = env_cls(addr, **env_kwargs)
        finally:
            membership.reset(token)
        self._env.network.artifact_sink = self._take_artifact
        self._env.network.call_timeout = call_timeout
        self._manager = None if mgr_cls is None else mgr_cls(self._env)
        if self._manager is not None:
            self._manager.menv = self
            self._env.manager = self._manager
        self._env._seed = seed
        self._slaves = Slaves(member, seed)
        self._env.network.explain_loss = self._slaves.explain_loss
        self._slaves.on_forget = self._env.network.forget
        self._slaves.make_restarter = self._make_restarter
        self._managers = ManagerCalls(self._env.network, self._slaves.expects, self._caused)
        self._records = Journals(self._env.network)
        self._restarts: list[Restart] = []
        self._on_restart: Callable[[Restart], object] = lambda restart: None
        # What ends the simulation by the restart policy, and the error that its calls meet then.
        self._on_end: Callable[[SlaveLost], object] = self._end_for
        self._cause: SlaveLost | None = None
        self._set_policy(RestartPolicy.of(restart))
        self._name = name if isinstance(name, str) else f"{addr[0]}:{addr[1]}"
        self._logger = logger
        self._age = 0
        self._artifacts: list[Artifact] = []
        self._step_lock = trio.Lock()
        # One start or stop of slaves at a time; a close ends a start under way.
        self._starts_and_stops = trio.Lock()
        self._starting = trio.CancelScope()
        # During a step, what each slave published; None between steps.
        self._step_artifacts: dict[str, list[Artifact]] | None = None
        self._spawned = 0
        self._receipt: StopReport | None = None
        # Seconds that slaves have to save and close their agents, asked when a close comes to them.
        self._slaves_grace: Callable[[], float] = lambda: GRACE_SECONDS
        self._closed = trio.Event()
        self._exits = AsyncExitStack()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name})"

    def get_loop(self) -> LoopHandle:
        """The loop on which the master environment lives."""
        return self._env.get_loop()

    # ---- properties

    @property
    def name(self) -> str:
        """The name of the environment."""
        return self._name

    @property
    def env(self) -> Environment:
        """The master environment, which holds the manager and connects to the slaves."""
        return self._env

    @property
    def manager(self) -> Any:
        """The master environment's manager, or None."""
        return self._manager

    @property
    def seed(self) -> int | None:
        """The seed that the constructor got; None for fresh entropy."""
        return self._env.seed

    @property
    def logger(self) -> Any:
        """The logger that the constructor got."""
        return self._logger

    @property
    def addrs(self) -> list[str]:
        """Addresses of the slaves' managers, in the order of the slaves."""
        return self._slaves.addrs

    @property
    def restarts(self) -> list[Restart]:
        """Every restart of a slave so far, and what of its contents was restored."""
        return list(self._restarts)

    @property
    def age(self) -> int:
        """Age of the environment in simulation steps."""
        return self._age

    @age.setter
    def age(self, age: int) -> None:
        check_int("age", age)
        self._age = age
        self._env.age = age

    @property
    def artifacts(self) -> list[Artifact]:
        """Artifacts that agents of all slaves published, and those added here.

        Those of a step are there when ``trigger_all`` returns, in slave and then publication order.
        """
        return self._artifacts

    def get_slave_managers(self) -> list[str]:
        """Addresses of the slaves' managers."""
        return self.addrs

    async def connect(self, *args: Any, **kwargs: Any) -> Proxy:
        """A proxy of an agent; see `Environment.connect`."""
        return await self._env.connect(*args, **kwargs)

    # ---- slaves

    @on_loop
    async def spawn_slaves(
        self,
        slave_addrs: Sequence[tuple[str, int]],
        slave_env_cls: type[Environment] | str,
        slave_mgr_cls: type | str,
        slave_kwargs: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        """Start slaves; returns when each has bound its address. All come up, or none.

        Args:
            slave_addrs: ``(host, port)`` of each; port 0 is any free one, and `addrs` tells which.
            slave_env_cls: Class of their environments, or its name ``pkg.mod:Cls``.
            slave_mgr_cls: Class of their managers, or its name.
            slave_kwargs: Keyword arguments for each environment.

        Raises:
            ValueError: ``slave_kwargs`` is not of the length of ``slave_addrs``.
            LoadError: A class cannot be loaded by name in another process.
            StartError: A slave did not come up: a port is taken, a class does not import, its
                ``__init__`` raised.
        """
        orders = self._slaves.orders(slave_addrs, slave_env_cls, slave_mgr_cls, slave_kwargs)
        async with self._starts_and_stops:
            self._check_open()
            with trio.CancelScope() as self._starting:
                await self._start_slaves(orders)
                return
        raise StartError("the multi-environment was closed while slaves were starting")

    async def _start_slaves(self, orders: Sequence[ActorOrder]) -> None:
        await self._env.open()
        self.get_loop().closers[self] = partial(self._close, None)
        await self._slaves.start(
            self.get_loop(), orders, lambda slave: self._env.connect(slave.address)
        )

    @on_loop
    async def wait_slaves(self, timeout: float, check_ready: bool = False) -> bool:
        """Wait until all slaves are online and, if asked, ready.

        Args:
            timeout: Seconds to wait.
            check_ready: Also wait until each slave's manager says so from ``is_ready``.

        Returns:
            False if the timeout passed first.

        Raises:
            NoSlaves: There are none; was `spawn_slaves` awaited?
            SlaveLost: One died.
            AgentError: Its ``is_ready`` raised.
        """
        check_seconds(timeout, endless=False)
        slaves = self._need_slaves("wait_slaves")
        with trio.move_on_after(timeout):
            await at_once(lambda slave: self._wait_slave(slave, check_ready), slaves)
            return True
        self._log(logging.DEBUG, "Timeout while waiting for the slaves.")
        return False

    async def _wait_slave(self, slave: Slave, check_ready: bool) -> None:
        # Asked anew: what was reachable before may be dead by now.
        manager = await self._env.network.connect(slave.address, 0, check_again=True)
        pause, longest = READY_PAUSES
        # `is_ready` is any predicate of the user's: nothing tells when its answer changes.
        while check_ready and not await manager.is_ready():
            await slave.sleep(pause)
            pause = min(2 * pause, longest)

    def check_ready(self) -> bool:
        """Whether the multi-environment itself is ready; override where that takes time."""
        return True

    @on_loop
    async def is_ready(self) -> bool:
        """Whether the master environment, `check_ready` and all slaves say that they are ready."""
        if self._receipt is not None:
            return False
        for check in (self._env.is_ready, self.check_ready):
            ready: Any = check()
            if not (await ready if isawaitable(ready) else ready):
                return False
        return all(await self._managers.call_all(self._slaves.members, "is_ready"))

    @on_loop
    async def set_host_manager(self, addr: str, timeout: float = 5) -> Any:
        """Make this multi-environment's manager the host manager of the manager at ``addr``.

        Raises:
            TypeError: There is no manager: the constructor got no ``mgr_cls``.
        """
        check_text("addr", addr)
        check_seconds(timeout)
        host = self._need_manager()
        await self._env.open()
        manager = await self._env.connect(addr, timeout=timeout)
        answer = await manager.set_host_manager(host.addr)
        self._records.note_host_manager(addr, host.addr)
        return answer

    @on_loop
    async def set_host_managers(self, timeout: float = 5) -> list[Any]:
        """Make this multi-environment's manager the host manager of all slaves' managers."""
        check_seconds(timeout)
        slaves = self._need_slaves("set_host_managers")
        self._need_manager()
        return await at_once(lambda slave: self.set_host_manager(slave.address, timeout), slaves)

    # ---- agents

    @on_loop
    async def spawn(
        self, agent_cls: str | type, *args: Any, addr: str | None = None, **kwargs: Any
    ) -> tuple[Proxy, str]:
        """Make an agent in a slave.

        Args:
            agent_cls: ``pkg.mod:Cls``, or the class itself.
            addr: Address of the slave's manager; the slave with the fewest agents by default.
            *args, **kwargs: Passed to the agent's ``__init__`` after its environment.

        Returns:
            A proxy of the agent, and its address.

        Raises:
            LoadError: The name leads to no agent class.
            AgentError: Its ``__init__`` raised. The slave lives on.
        """
        return await self._spawn("spawn", 1, addr, (agent_cls, *args), kwargs)  # type: ignore[no-any-return]

    @on_loop
    async def spawn_n(
        self, agent_cls: str | type, n: int, *args: Any, addr: str | None = None, **kwargs: Any
    ) -> list[tuple[Proxy, str]]:
        """Make ``n`` agents with the same arguments in one slave; see `spawn`.

        Returns:
            Proxy and address of each, in order.
        """
        if type(n) is not int or n < 0:
            raise ValueError(f"n must be an int of at least 0, not {n!r}")
        return await self._spawn("spawn_n", n, addr, (agent_cls, n, *args), kwargs)  # type: ignore[no-any-return]

    async def _spawn(
        self, method: str, n: int, addr: str | None, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        slaves = self._need_slaves(method)
        slave = self._slaves.at(addr) if addr else min(slaves, key=lambda slave: slave.agents)
        args = (portable_name(args[0]), *args[1:])
        index = self._spawned
        # Counted before the call, so that calls under way count too.
        self._spawned += n
        slave.agents += n
        kwargs[SPAWN_INDEX] = index
        try:
            answer = await self._managers.call(slave, method, args, kwargs)
        except BaseException:
            slave.agents -= n
            raise
        self._records.note_spawn(slave.address, method, args, kwargs, answer)
        return answer

    def get_agents(
        self, addr: bool = True, agent_cls: type | None = None, as_coro: bool = False
    ) -> Any:
        """Agents of all slaves, in slave and then spawn order, without the managers.

        Args:
            addr: Return their addresses rather than proxies.
            agent_cls: Only agents of exactly this class.
            as_coro: Return a coroutine instead of blocking.
        """
        return sync_or_coro(self, self._gather("get_agents", addr, agent_cls), as_coro)

    # ---- acting

    @on_loop
    async def trigger_act(self, addr: str) -> Any:
        """Make the agent at ``addr`` act and return what its ``act`` returns."""
        self._need_slaves("trigger_act")
        async with self._step_lock:
            agent = await self._env.connect(addr, timeout=base_timeout())
            return await agent.act()

    @on_loop
    async def trigger_all(self, *args: Any, **kwargs: Any) -> list[Any]:
        """Make every agent act once, concurrently, and wait for all of them.

        One step at a time: calls wait for each other, in order.

        Args:
            *args, **kwargs: Passed to each ``act``.

        Returns:
            One value per agent, in slave and then spawn order; managers do not act.

        Raises:
            AgentErrors: Some ``act`` raised; ``failures`` maps address to error, ``results`` holds
                what the others returned.
            SlaveLost: A slave died; its agents may have acted, and those of the others too. It is
                told once: from the next call on, the other slaves go on without it.
            NoSlaves: There are none; was `spawn_slaves` awaited?
        """
        slaves = self._need_slaves("trigger_all")
        await take_turn(self._step_lock)
        self._step_artifacts = {}
        try:
            return await self._step(slaves, args, kwargs)
        finally:
            self._step_lock.release()
            published, self._step_artifacts = self._step_artifacts, None
            for slave in slaves:
                for artifact in published.get(slave.base_url, ()):
                    self._take_artifact(slave.base_url, artifact)

    @on_loop
    async def trigger_all_within(
        self, seconds: float, *args: Any, on_overrun: str = "cancel", **kwargs: Any
    ) -> list[Any]:
        """Make every agent act once, in a limited time; what was done in time is not lost.

        When the time is up, the acts that go on are cancelled, and those not begun are left out. A
        slave that has not confirmed that 0.4 seconds later, as one whose agent computes without
        ever waiting cannot, counts as late with all its agents.

        Args:
            seconds: How long the step may take, the wait for steps before it included.
            *args, **kwargs: Passed to each ``act``.
            on_overrun: What becomes of a slave that does not confirm: "cancel", nothing more;
                "kill", it is ended as if it had been lost, with what the restart policy says.

        Returns:
            As `trigger_all`, where all were in time.

        Raises:
            StepOverran: Some were not: ``addresses`` names them, and ``results`` and ``failures``
                hold what the others did.
            DeadlineExceeded: It was never this step's turn; nobody acted.
            AgentErrors, SlaveLost, NoSlaves: As of `trigger_all`.
        """
        check_seconds(seconds, "seconds", endless=False)
        if on_overrun not in ("cancel", "kill"):
            raise BadValue(f'on_overrun must be "cancel" or "kill", not {on_overrun!r}')
        limit = StepLimit(trio.current_time() + seconds, kill=on_overrun == "kill")
        token = step_limit.set(limit)
        try:
            return await self.trigger_all(*args, **kwargs)
        finally:
            step_limit.reset(token)

    async def _step(
        self, slaves: Sequence[Slave], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> list[Any]:
        step = Step(self._managers)
        parts = await step.take(slaves, args, kwargs)
        await self._take_checkpoints([slave for slave in slaves if slave not in step.silent])
        if step.silent and step.limit.kill:
            await self._slaves.end_silent(step.silent)
        return step.outcome(slaves, list(chain.from_iterable(parts)))

    # ---- connections

    def create_connections(
        self, connection_map: Mapping[str, Iterable[Any]], as_coro: bool = False
    ) -> Any:
        """Make the connections of ``connection_map`` for agents that are in the slaves.

        Args:
            connection_map: Address -> list of ``(addr, data)``, as `CreativeAgent.add_connections`
                takes it.
            as_coro: Return a coroutine instead of blocking.
        """
        return sync_or_coro(self, self._create_connections(connection_map), as_coro)

    @on_loop
    async def _create_connections(self, connection_map: Mapping[str, Iterable[Any]]) -> list[Any]:
        slaves = self._need_slaves("create_connections")
        parts: dict[str, dict[str, Any]] = {slave.address: {} for slave in slaves}
        for addr, connections in connection_map.items():
            part = parts.get(get_manager(addr))
            if part is not None:
                part[addr] = connections

        async def create(slave: Slave) -> list[Any]:
            part = parts[slave.address]
            made: list[Any] = await self._managers.call(slave, "create_connections", (part,))
            self._records.note_connections(slave.address, part)
            return made

        made = await at_once(create, slaves)
        return list(chain.from_iterable(made))

    def get_connections(self, data: bool = True, as_coro: bool = False) -> Any:
        """``(addr, connections)`` of all agents, in slave and then spawn order.

        Args:
            data: ``connections`` maps addresses to data rather than listing addresses.
            as_coro: Return a coroutine instead of blocking.
        """
        return sync_or_coro(self, self._gather("get_connections", data), as_coro)

    # ---- artifacts

    def add_artifact(self, artifact: Artifact) -> None:
        """Add an artifact to the environment."""
        check_kind("artifact", artifact, Artifact)
        artifact.env_time = self.age
        self._artifacts.append(artifact)
        self._log(logging.DEBUG, f"Artifact {len(self._artifacts)} added: {artifact}")

    def add_artifacts(self, artifacts: Iterable[Artifact]) -> None:
        """Add several artifacts, in order."""
        for artifact in artifacts:
            self.add_artifact(artifact)

    def get_artifacts(
        self, agent_name: str | None = None, *, since: int = 0, limit: int | None = None
    ) -> list[Artifact]:
        """All artifacts, or those that the agent of that name published.

        Args:
            since: How many of them to leave out, from the first one on.
            limit: How many to return at most; None for all.

        Raises:
            ValueError: ``since`` or ``limit`` is no int of at least 0.
        """
        for name, value in (("since", since), ("limit", 0 if limit is None else limit)):
            if type(value) is not int or value < 0:
                raise ValueError(f"{name} must be an int of at least 0, not {value!r}")
        found = self._artifacts
        if agent_name is not None:
            found = [a for a in found if a.creator == agent_name]
        return found[since : None if limit is None else since + limit]

    def _take_artifact(self, url: str, artifact: Artifact) -> None:
        """A slave tells of an artifact."""
        if self._step_artifacts is not None:
            self._step_artifacts.setdefault(url, []).append(artifact)
            return
        try:
            self.add_artifact(artifact)
        except BaseException as error:  # a subclass may raise anything, SystemExit included
            if is_ctrl_c(error):
                raise
            # The step, and the other artifacts, are not lost for it.
            log.exception("an artifact of %s could not be added", url)

    # ---- restarts

    def _set_policy(self, policy: RestartPolicy) -> None:
        self._policy = policy
        self._records.kept = policy.restarts_slaves
        # Calls that would have failed wait for a slave that comes back.
        self._env.network.before_call = self._slaves.wait_for if policy.restarts_slaves else None

    def _make_restarter(self) -> Restarter | None:
        self._records.clear()
        if self._policy.kind is Mode.TEMPORARY:
            return None
        return Restarter(
            self._policy,
            start_again=self._slaves.start_again,
            stop_again=self._slaves.stop_again,
            restore=lambda slave: self._records.restore(slave.address),
            on_restart=self._note_restart,
            on_end=lambda error: self._on_end(error),
        )

    async def _take_checkpoints(self, slaves: Sequence[Slave]) -> None:
        """After a step, of slaves whose environments offer them."""
        offering = [slave for slave in slaves if self._records.offers_checkpoint(slave.address)]
        if offering:
            await at_once(lambda s: self._records.take_checkpoint(s.address), offering)

    def _note_restart(self, restart: Restart) -> None:
        self._restarts.append(restart)
        self._log(logging.WARNING, str(restart))
        self._on_restart(restart)

    def _end_for(self, cause: SlaveLost) -> None:
        """The restart policy ends the simulation."""
        self._cause = cause
        self.get_loop().nursery.start_soon(self._close_for_cause)

    async def _close_for_cause(self) -> None:
        log.error("%s: closing: %s", self, self._cause)
        try:
            await self._close(None)
        except Exception:  # nobody is left to raise it to
            log.exception("%s: closing failed in part", self)

    def _caused(self) -> SlaveLost | None:
        """The error of whoever calls once the restart policy has ended the simulation."""
        if self._cause is None:
            return None
        fields = {name: getattr(self._cause, name) for name in SlaveLost.fields}
        return SlaveLost(str(self._cause), **fields)

    # ---- the end

    def save_info(self, folder: str | None, *args: Any, **kwargs: Any) -> Any:
        """Save what was gathered; called by `close`. Override in a subclass."""

    @property
    def in_step(self) -> bool:
        """Whether agents are acting."""
        return self._step_lock.locked()

    @on_loop
    async def stop_slaves(self, timeout: float = 1) -> StopReport:
        """Stop all slaves: ask, wait, and force what does not answer.

        Args:
            timeout: Seconds that a slave has to save and close its agents.

        Returns:
            What became of each; when it returns, their processes are gone.
        """
        check_seconds(timeout, endless=False)
        return await self._stop_slaves(timeout, None)

    async def _stop_slaves(self, timeout: float, folder: str | None) -> StopReport:
        async with self._starts_and_stops:
            receipts = await self._slaves.stop(timeout, folder)
        for slave in receipts:
            if not slave.graceful or slave.errors:
                self._log(logging.WARNING, f"Could not stop {slave.address} in order: {slave}")
            for error in slave.errors:  # what was not saved must not pass unseen
                log.error("%s", error.partition("\n")[0])
        return StopReport(receipts)

    def close(self, folder: str | None = None, as_coro: bool = False) -> Any:
        """Save, stop the slaves and the supervisor, and close the master environment.

        Args:
            folder: Passed to `save_info` here and in the slaves, and to the agents' ``close``.
            as_coro: Return a coroutine instead of blocking.

        Returns:
            The `StopReport`; a second call returns the first one's.

        Raises:
            AgentError: `save_info` raised; everything was closed. What slaves failed to save is in
                the receipt, and logged.
            AgentErrors: An agent's ``close`` raised in the master environment.
        """
        check_folder(folder)
        if self._closed.is_set():  # and the loop may have ended, too
            return self._told() if as_coro else self._receipt
        return sync_or_coro(self, self._close(folder), as_coro)

    async def _told(self) -> StopReport | None:
        return self._receipt

    @on_loop
    async def _close(self, folder: str | None) -> StopReport:
        if self._receipt is not None:
            await self._closed.wait()
            return self._receipt
        receipt = self._receipt = StopReport()
        self._starting.cancel()
        self._slaves.stop_restarts()
        try:
            await self._save(receipt, folder)
        except Exception as error:
            raise AgentError.from_exception(self._env.base_url, error) from error
        finally:
            await self._end(receipt, folder)
        return receipt

    async def _save(self, receipt: StopReport, folder: str | None) -> None:
        """Let the user's `save_info` finish; where the close is cancelled, within the grace."""
        cancelled = trio.current_effective_deadline() == -math.inf
        with trio.CancelScope(shield=cancelled) as scope:
            if cancelled:
                scope.deadline = trio.current_time() + GRACE_SECONDS
            saved = self.save_info(folder)
            receipt.saved = await saved if isawaitable(saved) else saved
        if scope.cancelled_caught:
            log.error("%s: save_info did not end within %g s", self, GRACE_SECONDS)

    async def _end(self, receipt: StopReport, folder: str | None) -> None:
        """End everything; each wait is bounded, so that a cancelled close still closes."""
        try:
            with trio.CancelScope(shield=True):
                receipt.extend(await self._stop_slaves(self._slaves_grace(), folder))
                await self._slaves.aclose()
            with anyio.move_on_after(GRACE_SECONDS, shield=True) as scope:
                await self._env.close(folder=folder, as_coro=True)
            if scope.cancelled_caught:
                log.error("%s: an agent's close did not end within %g s", self, GRACE_SECONDS)
        finally:
            self.get_loop().closers.pop(self, None)
            self._closed.set()

    def destroy(self, folder: str | None = None, as_coro: bool = False) -> Any:
        """Deprecated: use `close`."""
        warnings.warn("destroy is deprecated: use close", DeprecationWarning, stacklevel=2)
        return self.close(folder=folder, as_coro=as_coro)

    # ---- helpers

    def _check_open(self) -> None:
        cause = self._caused()
        if cause is not None:
            raise cause
        if self._receipt is not None:
            raise NoSlaves(f"{self!r} is closed")

    def _need_manager(self) -> Any:
        if self._manager is None:
            raise TypeError(f"{self!r} has no manager to be the host manager: pass mgr_cls")
        return self._manager

    def _need_slaves(self, method: str) -> list[Slave]:
        self._check_open()
        slaves = self._slaves.members
        if not slaves:
            raise NoSlaves(f"{method}: there are no slaves; was spawn_slaves() awaited?")
        return slaves

    @on_loop
    async def _gather(self, method: str, *args: Any) -> list[Any]:
        """Call ``method`` of all managers and join the lists that they return."""
        slaves = self._need_slaves(method)
        return list(chain.from_iterable(await self._managers.call_all(slaves, method, args)))

    def _log(self, level: int, msg: str) -> None:
        if self._logger is not None:
            self._logger.log(level, msg)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        install_signal_handling()
        if self._env._loop is None and sniffio.current_async_library() == "trio":
            self._env._loop = await self._exits.enter_async_context(adopt_running_loop())
        self._exits.push_async_callback(self._close, None)
        return self

    async def __aexit__(self, *exc_info: Any) -> bool | None:
        return await self._exits.__aexit__(*exc_info)

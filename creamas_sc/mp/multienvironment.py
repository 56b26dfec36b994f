"""The multi-environment: a master environment, and slaves with the agents in their processes."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from inspect import isawaitable
from itertools import chain
from typing import Any, Self

import trio

from creamas_sc.core.artifact import Artifact
from creamas_sc.core.environment import Environment
from creamas_sc.core.step_loop import StepLimit, limited
from creamas_sc.errors import NoSlaves
from creamas_sc.mp.agent_order import merged
from creamas_sc.mp.artifacts import ArtifactInbox, select_artifacts
from creamas_sc.mp.closer import Closer, behind
from creamas_sc.mp.manager_calls import ManagerCalls
from creamas_sc.mp.managers import check_number
from creamas_sc.mp.master import make_master
from creamas_sc.mp.observer import Observer, Overview
from creamas_sc.mp.recorded import Recordable
from creamas_sc.mp.resumable import Resumable
from creamas_sc.mp.slave_pool import SlavePool
from creamas_sc.mp.steps import Steps
from creamas_sc.nodes import NodeInfo
from creamas_sc.nodes import of as nodes_of
from creamas_sc.reports import Restart, StepReport, StopReport
from creamas_sc.restarts.policy import RestartPolicy
from creamas_sc.restarts.slave import Slave
from creamas_sc.rpc.auth import Membership
from creamas_sc.rpc.exposed import Proxy
from creamas_sc.runtime.class_loading import end_script_load
from creamas_sc.runtime.coroutines import at_once
from creamas_sc.runtime.event_loop import LoopHandle, on_loop, sync_or_coro
from creamas_sc.runtime.validation import check_int, check_kind, check_seconds, make_folder
from creamas_sc.supervisor_client.messages import ActorOrder


class MultiEnvironment(Resumable, Recordable):
    """An environment over several processes, of one machine or of several.

    Not a subclass of `Environment`: it has a master environment, `env`, which holds only its
    manager, and slaves, each with its own environment, manager and agents.

    The constructor starts nothing. ``async with`` (under trio or asyncio) or ``with`` guarantees
    the close; without them call `close`. If nobody refers to one any more, because a notebook's
    cell runs again say, it is closed in the background, with a ResourceWarning. Async methods may
    be awaited under trio and asyncio, or given to `creamas_sc.util.run` in plain code; the others
    have a sync form and, with ``as_coro=True``, an async one.

    In a script, Ctrl-C and SIGTERM close it and then end the script: as it starts, a SIGTERM
    handler and an excepthook are installed, unless the script has set its own.

    Args:
        addr: ``(host, port)`` of the master environment; port 0 is any free one.
        env_cls: Class of the master environment.
        mgr_cls: Class of its manager, a subclass of `MultiEnvManager`; None for no manager.
        name: Shown in logs; "host:port" by default.
        logger: Has ``log(level, message)``.
        seed: Makes a run repeatable: each agent's ``rng`` depends on it and the order of spawning;
            see `creamas_sc.verification` for what else it covers. By default one is drawn, which
            the property `seed` and the stop report have.
        restart: What happens when a slave is lost. "temporary": the others go on without it.
            "transient": it is started again unless it ended normally. "permanent": it is started
            again however it ended. "all": the multi-environment closes. A `RestartPolicy` also
            limits the restarts, after which it closes; the default is 3 in 60 s. Its docstring says
            what a restarted slave gets back.
        calls: How calls between agents go in a step. "rounds": all that were made are exchanged at
            once, again and again, so that a seed gives the same at any number of slaves: see
            `creamas_sc.rpc.rounds`. "free": each call at once, so that what a step leads to may
            depend on timing, and what is in spawn order else is so slave after slave; a single
            chain of calls takes about half as long then, many calls side by side take longer.
        record: A folder, or a `creamas_sc.results.Record`: each step is recorded there, with what
            the ``observe()`` of agents and of this class return; see `creamas_sc.results`. By
            default nothing is.
        nodes: Other machines for slaves: `creamas_sc.nodes.Nodes`, or a cluster or client of
            dask.distributed; see `creamas_sc.nodes`. They are started with the first slaves, and
            end with the close.
        **env_kwargs: Passed to ``env_cls``.

    Raises:
        BadValue: ``restart``, ``calls``, ``record`` or ``nodes`` is none of these.
        ValueError: ``seed`` is not an int of at least 0.
    """

    _age = 0
    _loop: LoopHandle | None = None

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
        calls: str = "rounds",
        record: Any = None,
        nodes: Any = None,
        **env_kwargs: Any,
    ) -> None:
        end_script_load()
        policy, member = RestartPolicy.of(restart), Membership.new()
        self._env = env = make_master(self, member, seed, calls, addr, env_cls, env_kwargs, mgr_cls)
        self._name = name if isinstance(name, str) else f"{addr[0]}:{addr[1]}"
        self._logger = logger
        self._artifacts: list[Artifact] = []
        self._slaves = SlavePool(member, env.seed, env.network, policy, logger, seed is None)
        self._slaves.machines.nodes = nodes_of(nodes)
        self._managers = ManagerCalls(env.network, self._slaves)
        self._steps = Steps(env.network, self._slaves, self._managers, ArtifactInbox(self))
        self._closer = Closer(self, env, self._slaves)
        self._record(record, env_kwargs)

    def __repr__(self) -> str:
        now = MultiEnvironment.overview(self).counts
        contents = f"slaves={now['slaves']}, agents={now['agents']}, age={now['age']}"
        closed = ", closed" if self._closer.report is not None else ""
        return f"{type(self).__name__}({self.name}, {contents}{closed})"

    def get_loop(self) -> LoopHandle:
        """The loop on which the master environment lives."""
        self._loop = self._env.get_loop()
        return self._loop

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
        return self._env.manager

    @property
    def seed(self) -> int:
        """The seed of the simulation, given or drawn: another run with it draws the same numbers.

        It can be set before the slaves are started; None draws one.
        """
        return self._env.seed

    @seed.setter
    def seed(self, seed: int | None) -> None:
        self._slaves.ordering.set_seed(seed)
        self._env.seed = self._slaves.ordering.seed

    @property
    def calls(self) -> str:
        """How calls between agents go in a step; it can be set between steps."""
        return self._env.calls

    @calls.setter
    def calls(self, calls: str) -> None:
        self._env.calls = calls

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
        return list(self._slaves.restarts)

    @property
    def last_step(self) -> StepReport | None:
        """Whether the last step of all agents repeats itself, and why not; None before it."""
        return self._steps.reports.last

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
        slave_addrs: Sequence[tuple[str, int]] | int,
        slave_env_cls: type[Environment] | str,
        slave_mgr_cls: type | str,
        slave_kwargs: Sequence[Mapping[str, Any]] | None = None,
        *,
        place: str | Sequence[str] | None = None,
    ) -> None:
        """Start slaves; returns when each is ready to take agents. All come up, or none.

        Beside each other they bind their addresses and load the agent classes that the script has
        or has imported.

        Unless ``OMP_NUM_THREADS`` is set, it is set in the slaves to a fair share of the cores:
        else numpy's linear algebra would use as many threads as there are cores in each of them.

        Args:
            slave_addrs: ``(host, port)`` of each; port 0 is any free one, and `addrs` tells which.
                Or how many: then each has the host of the master environment, and any free port.
            slave_env_cls: Class of their environments, or its name ``pkg.mod:Cls``.
            slave_mgr_cls: Class of their managers, or its name.
            slave_kwargs: Keyword arguments for each environment.
            place: On which machine: "here"; "nodes", each on the node with the most free cores; the
                name of a node; or a list of these, one for each slave. By default on nodes, if the
                constructor got any. On a node a slave listens at the node's host, whatever its host
                here; beside such slaves, those here need one that other machines reach, as
                "0.0.0.0" is.

        Raises:
            ValueError: ``slave_kwargs`` is not of the length of ``slave_addrs``.
            BadValue: ``place`` is none of these, or the addresses do not go together.
            LoadError: A class cannot be loaded by name in another process.
            StartError: A slave did not come up: a port is taken, a class does not import, its
                ``__init__`` raised; or too few nodes have joined.
        """
        given = slave_addrs, slave_env_cls, slave_mgr_cls, slave_kwargs
        await self._start_slaves(self._slaves.orders(*given, place=place))

    async def _start_slaves(self, orders: Sequence[ActorOrder]) -> None:
        """Start slaves; see `spawn_slaves`."""
        self._open_slaves()
        await self._closer.wait_abandoned()
        if self._recording is not None:
            await self._recording.open()
        await self._env.open()
        self.get_loop().closers[self._closer] = partial(self._closer.close, None)
        await self._slaves.start(self.get_loop(), orders)

    def get_nodes(self, as_coro: bool = False) -> Any:
        """The nodes that there are, as dicts: see `creamas_sc.nodes.NodeInfo`.

        Args:
            as_coro: Return a coroutine instead of blocking.
        """
        return sync_or_coro(self, self._get_nodes(), as_coro)

    @on_loop
    async def _get_nodes(self) -> list[NodeInfo]:
        return await self._slaves.machines.joined(self._slaves.supervisor)

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
        slaves = self._open_slaves("wait_slaves")
        with trio.move_on_after(timeout):
            await at_once(lambda slave: self._managers.wait_ready(slave, check_ready), slaves)
            return True
        self._log(logging.DEBUG, "Timeout while waiting for the slaves.")
        return False

    def check_ready(self) -> bool:
        """Whether the multi-environment itself is ready; override it if that takes time."""
        return True

    @on_loop
    async def is_ready(self) -> bool:
        """Whether the master environment, `check_ready` and all slaves say that they are ready."""
        if self._closer.report is not None:
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
        check_kind("addr", addr, str)
        check_seconds(timeout)
        await self._env.open()  # the other manager will call this one
        return await self._managers.set_host(addr, self._need_manager().addr, timeout)

    @on_loop
    async def set_host_managers(self, timeout: float = 5) -> list[Any]:
        """Make this multi-environment's manager the host manager of all slaves' managers.

        If agents' calls go in rounds, calls of it do so from then on: it takes part in each round,
        so steps with few calls take longer.
        """
        check_seconds(timeout)
        slaves = self._open_slaves("set_host_managers")
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
        self._open_slaves("spawn")
        return await self._managers.spawn("spawn", 1, addr, (agent_cls, *args), kwargs)  # type: ignore[no-any-return]

    @on_loop
    async def spawn_n(
        self, agent_cls: str | type, n: int, *args: Any, addr: str | None = None, **kwargs: Any
    ) -> list[tuple[Proxy, str]]:
        """Make ``n`` agents, a million at most, with the same arguments in one slave; see `spawn`.

        Returns:
            Proxy and address of each, in order.
        """
        check_number(n)
        self._open_slaves("spawn_n")
        return await self._managers.spawn("spawn_n", n, addr, (agent_cls, n, *args), kwargs)  # type: ignore[no-any-return]

    def get_agents(
        self, addr: bool = True, agent_cls: type | None = None, as_coro: bool = False
    ) -> Any:
        """Agents of all slaves, without the managers, in spawn order.

        Args:
            addr: Return their addresses rather than proxies.
            agent_cls: Only agents of exactly this class.
            as_coro: Return a coroutine instead of blocking.
        """
        return sync_or_coro(self, self._gather("get_agents", addr, agent_cls), as_coro)

    def get_numbers(self, as_coro: bool = False) -> Any:
        """Agents' `number`, the place in the order of spawning, by address, in ascending order.

        Args:
            as_coro: Return a coroutine instead of blocking.
        """
        return sync_or_coro(self, self._get_numbers(), as_coro)

    @on_loop
    async def _get_numbers(self) -> dict[str, Any]:
        answers = await self._managers.call_all(self._open_slaves("get_numbers"), "get_numbers")
        return merged(answers)

    @on_loop
    async def gather(
        self, method: str, /, *args: Any, addrs: Iterable[str] | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """Call one exposed method of all agents, concurrently, in one message to each slave.

        If agents' calls go in rounds, so do those that the methods make: such a ``gather`` is a
        step, and steps wait for it. While another step is under way, they go at once.

        Args:
            method: Its name.
            addrs: Addresses of the agents to call instead of all.
            *args, **kwargs: Passed to each.

        Returns:
            Address -> what the method returned, in the order of ``addrs``, or in spawn order.

        Raises:
            NotExposed, UnknownAgent: One lacks the method, or does not exist.
            ValueError: An address is in none of the slaves.
            AgentErrors: Some raised, or returned what cannot travel or be decoded here:
                ``failures`` maps address to error, and ``results`` the other agents' addresses to
                what they returned.
            SlaveLost: A slave died.
            NoSlaves: There are none.
        """
        slaves = self._open_slaves("gather")
        return await self._steps.gather(slaves, addrs, (method, *args), kwargs)

    # ---- acting

    @on_loop
    async def trigger_act(self, addr: str) -> Any:
        """Make the agent at ``addr`` act and return what its ``act`` returns."""
        slaves = self._open_slaves("trigger_act")
        async with self._steps.of_one_agent(slaves):
            agent = await self._env.connect(addr)  # in one attempt: other steps wait
            return await agent.act()

    @on_loop
    async def trigger_all(self, *args: Any, **kwargs: Any) -> list[Any]:
        """Make every agent act once, concurrently, and wait for all of them.

        One step at a time: calls wait for each other, in order.

        Args:
            *args, **kwargs: Passed to each ``act``.

        Returns:
            One value per agent, in spawn order; managers do not act.

        Raises:
            AgentErrors: Some ``act`` raised, or returned what cannot travel or be decoded here;
                ``failures`` maps address to error, ``results`` holds what the others returned.
            SlaveLost: A slave died; its agents may have acted, and those of the others too. This is
                raised once: from the next call on, the other slaves go on without it.
            NoSlaves: There are none; was `spawn_slaves` awaited?
            CreamasError: An agent's call asks for this step while another one is under way.
        """
        slaves = self._open_slaves("trigger_all")
        return await self._steps.take(slaves, args, kwargs, self._recording)

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
            on_overrun: What happens to a slave that does not confirm. "cancel": nothing more.
                "kill": it is killed and counts as lost, with what the restart policy says.

        Returns:
            As `trigger_all`, if all were in time.

        Raises:
            StepOverran: Some were not: ``addresses`` names them, and ``results`` and ``failures``
                hold what the others did.
            DeadlineExceeded: The time was up before it was this step's turn or, where calls go in
                rounds, before all slaves that are started again were back; no agent acted.
            AgentErrors, SlaveLost, NoSlaves: As of `trigger_all`.
        """
        with limited(StepLimit.within(seconds, on_overrun)):
            return await self.trigger_all(*args, **kwargs)

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
        slaves = self._open_slaves("create_connections")
        return await self._managers.create_connections(slaves, connection_map)

    def get_connections(self, data: bool = True, as_coro: bool = False) -> Any:
        """``(addr, connections)`` of all agents, in spawn order.

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
        if self._recording is not None:
            self._recording.note_artifact(artifact)
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
            ValueError: ``since`` or ``limit`` is not an int of at least 0.
        """
        return select_artifacts(self._artifacts, agent_name, since, limit)

    # ---- for a host

    def attach_observer(self, observer: Observer, restart: RestartPolicy | None = None) -> None:
        """Report losses, restarts and the end by policy to ``observer``, which has to close then.

        Args:
            restart: Replaces the policy that the constructor got.
        """
        self._slaves.observe(observer, restart)

    def overview(self) -> Overview:
        """What is in the multi-environment now."""
        return Overview.of(self._age, len(self._artifacts), self._env.seed, self._slaves)

    # ---- the end

    def save_info(self, folder: str | None, *args: Any, **kwargs: Any) -> Any:
        """Save what was gathered; called by `close`. Override in a subclass."""

    @property
    def in_step(self) -> bool:
        """Whether agents are acting."""
        return self._steps.lock.locked()

    @on_loop
    async def stop_slaves(self, timeout: float = 1) -> StopReport:
        """Stop all slaves: ask, wait, and force what does not answer.

        Args:
            timeout: Seconds that a slave has to save and close its agents.

        Returns:
            How each ended; when it returns, their processes are gone.

        Raises:
            AgentErrors: Some failed to save or close; all were stopped.
        """
        check_seconds(timeout, endless=False)
        return (await self._slaves.stop(timeout, None)).checked()

    def close(self, folder: str | None = None, as_coro: bool = False) -> Any:
        """Save, stop the slaves and the supervisor, and close the master environment.

        Args:
            folder: Where to save, created if it does not exist: `save_info` gets its absolute path,
                that of each slave and its agents' ``close`` the folder "slave-0", "slave-1", ...
                within it.
            as_coro: Return a coroutine instead of blocking.

        Returns:
            The `StopReport`, which says how each slave ended; a second call, after one that raised
            too, returns the first one's.

        Raises:
            BadValue: The folder cannot be created, or has another user's link or folder where a
                slave would save; nothing was closed.
            AgentError: `save_info` raised; everything was closed.
            AgentErrors: The `save_info` of slaves or the ``close`` of agents raised, or a slave had
                to be ended while it saved; everything was closed. ``failures`` maps addresses to
                errors.
        """
        if self._closer.closed.is_set() and not as_coro:  # the loop may be closed as well
            return self._closer.report
        return sync_or_coro(self, self._close(make_folder(folder)), as_coro)

    async def _close(self, folder: str | None) -> StopReport | None:
        return await self._closer.close_once(folder)  # this object is kept alive until then

    def destroy(self, folder: str | None = None, as_coro: bool = False) -> Any:
        """Deprecated: use `close`."""
        warnings.warn("destroy is deprecated: use close", DeprecationWarning, stacklevel=2)
        return self.close(folder=folder, as_coro=as_coro)

    def __del__(self) -> None:
        if "_closer" in vars(self):
            self._closer.abandon(self)

    # ---- helpers

    def _need_manager(self) -> Any:
        if self.manager is None:
            raise TypeError(f"{self!r} has no manager to be the host manager: pass mgr_cls")
        return self.manager

    def _open_slaves(self, needed_by: str = "") -> list[Slave]:
        """The slaves of an environment that is not closed; ``needed_by`` needs at least one."""
        self._closer.check_open()
        slaves = self._slaves.members
        if needed_by and not slaves:
            raise NoSlaves(f"{needed_by}: {self._slaves.why_none()}")
        return slaves

    @on_loop
    async def _gather(self, method: str, *args: Any) -> list[Any]:
        """Call ``method`` of all managers and join the lists that they return."""
        answers = await self._managers.call_all(self._open_slaves(method), method, args)
        return self._steps.order.sort(list(chain.from_iterable(answers)))

    def _log(self, level: int, msg: str) -> None:
        if self._logger is not None:
            self._logger.log(level, msg)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        with behind(error, self):
            self.close()

    async def __aenter__(self) -> Self:
        await self._closer.enter()
        return self

    async def __aexit__(self, *exc_info: Any) -> bool | None:
        return await self._closer.exits.__aexit__(*exc_info)

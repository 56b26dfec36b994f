"""What can be asked of a simulation in a daemon: one table for its host and for both clients.

A simulation mirrors its `MultiEnvironment`: the same names, parameters, defaults and results.
``as_coro`` is left out, properties become ``get_*`` (and ``set_*``), and what is local (``env``,
``manager``, ``logger``) is not mirrored. To these come the operations of the host, which steps the
simulation by itself.
"""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import wraps
from typing import Any

__all__ = ["OPERATIONS", "Kind", "Operation", "SimulationAPI"]


class Kind(Enum):
    """How an operation is done on the `MultiEnvironment`."""

    METHOD = "a method, whose result is awaited if it can be"
    TWO_FORMS = "a method that takes as_coro"
    GETTER = "a property"
    SETTER = "the setting of a property"
    HOST = "a method of the host"


@dataclass(frozen=True)
class Operation:
    """One row of the table.

    Attributes:
        name: What clients call.
        attribute: The name at the `MultiEnvironment`, or at the host.
        signature: Parameters without self.
    """

    name: str
    kind: Kind
    attribute: str
    signature: inspect.Signature


OPERATIONS: dict[str, Operation] = {}


def _operation(
    kind: Kind, attribute: str = ""
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Enter a method in the table; a call passes its checked arguments to `_invoke`."""

    def enter(stub: Callable[..., Any]) -> Callable[..., Any]:
        whole = inspect.signature(stub)
        own = list(whole.parameters.values())[1:]
        signature = whole.replace(parameters=own)
        name = stub.__name__
        operation = OPERATIONS[name] = Operation(name, kind, attribute or name, signature)

        @wraps(stub)
        def method(self: SimulationAPI, /, *args: Any, **kwargs: Any) -> Any:
            signature.bind(*args, **kwargs)  # the TypeError that a plain call would raise
            return self._invoke(operation, args, kwargs)

        return method

    return enter


class SimulationAPI:
    """The operations of a simulation; of the async client each is awaited.

    Where nothing else is said, an operation is that of `MultiEnvironment`, with its parameters,
    results and errors. Classes may be given as ``pkg.mod:Cls`` where this process lacks them.
    """

    @abstractmethod
    def _invoke(self, operation: Operation, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Have the host carry out an operation."""

    def __getattr__(self, name: str) -> Any:
        getter = f"get_{name}"
        hint = f": call {getter}()" if getter in OPERATIONS else ""
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}{hint}")

    # ---- properties

    @_operation(Kind.GETTER, "name")
    def get_name(self) -> Any:
        """The name of the environment."""

    @_operation(Kind.GETTER, "seed")
    def get_seed(self) -> Any:
        """The seed that the simulation was created with; None for fresh entropy."""

    @_operation(Kind.GETTER, "addrs")
    def get_addrs(self) -> Any:
        """Addresses of the slaves' managers, in the order of the slaves."""

    @_operation(Kind.GETTER, "restarts")
    def get_restarts(self) -> Any:
        """Every restart of a slave so far, and what of its contents was restored."""

    @_operation(Kind.GETTER, "age")
    def get_age(self) -> Any:
        """Age of the environment in simulation steps."""

    @_operation(Kind.SETTER, "age")
    def set_age(self, age: int) -> Any:
        """Set the age of the environment."""

    @_operation(Kind.GETTER, "in_step")
    def get_in_step(self) -> Any:
        """Whether agents are acting."""

    # ---- slaves

    @_operation(Kind.METHOD)
    def spawn_slaves(
        self,
        slave_addrs: Sequence[tuple[str, int]],
        slave_env_cls: type | str,
        slave_mgr_cls: type | str,
        slave_kwargs: Sequence[Mapping[str, Any]] | None = None,
    ) -> Any:
        """Start slaves; returns when each has bound its address. All come up, or none."""

    @_operation(Kind.METHOD)
    def wait_slaves(self, timeout: float, check_ready: bool = False) -> Any:
        """Wait until all slaves are online and, if asked, ready; False if ``timeout`` passed."""

    @_operation(Kind.METHOD)
    def check_ready(self) -> Any:
        """Whether the multi-environment itself is ready."""

    @_operation(Kind.METHOD)
    def is_ready(self) -> Any:
        """Whether the master environment, `check_ready` and all slaves say that they are ready."""

    @_operation(Kind.METHOD)
    def set_host_manager(self, addr: str, timeout: float = 5) -> Any:
        """Make the simulation's manager the host manager of the manager at ``addr``."""

    @_operation(Kind.METHOD)
    def set_host_managers(self, timeout: float = 5) -> Any:
        """Make the simulation's manager the host manager of all slaves' managers."""

    @_operation(Kind.METHOD)
    def get_slave_managers(self) -> Any:
        """Addresses of the slaves' managers."""

    @_operation(Kind.METHOD)
    def stop_slaves(self, timeout: float = 1) -> Any:
        """Stop all slaves; the receipt tells how each ended."""

    # ---- agents

    @_operation(Kind.METHOD)
    def connect(self, addr: str, timeout: float | None = 0) -> Any:
        """A proxy of the agent at ``addr``, after a check that there is one."""

    @_operation(Kind.METHOD)
    def spawn(
        self, agent_cls: str | type, *args: Any, addr: str | None = None, **kwargs: Any
    ) -> Any:
        """Make an agent in a slave; a proxy of it, and its address."""

    @_operation(Kind.METHOD)
    def spawn_n(
        self, agent_cls: str | type, n: int, *args: Any, addr: str | None = None, **kwargs: Any
    ) -> Any:
        """Make ``n`` agents with the same arguments in one slave; proxy and address of each."""

    @_operation(Kind.TWO_FORMS)
    def get_agents(self, addr: bool = True, agent_cls: type | str | None = None) -> Any:
        """Agents of all slaves, in slave and then spawn order, without the managers."""

    @_operation(Kind.METHOD)
    def trigger_act(self, addr: str) -> Any:
        """Make the agent at ``addr`` act and return what its ``act`` returns."""

    @_operation(Kind.METHOD)
    def trigger_all(self, *args: Any, **kwargs: Any) -> Any:
        """Make every agent act once, concurrently, and wait for all of them.

        One step at a time: calls, and the simulation's own steps, wait for each other, in order.
        """

    @_operation(Kind.METHOD)
    def trigger_all_within(
        self, seconds: float, *args: Any, on_overrun: str = "cancel", **kwargs: Any
    ) -> Any:
        """Make every agent act once, in a limited time; what was done in time is not lost."""

    # ---- connections

    @_operation(Kind.TWO_FORMS)
    def create_connections(self, connection_map: Mapping[str, Iterable[Any]]) -> Any:
        """Make the connections of ``connection_map`` for agents that are in the slaves."""

    @_operation(Kind.TWO_FORMS)
    def get_connections(self, data: bool = True) -> Any:
        """``(addr, connections)`` of all agents, in slave and then spawn order."""

    # ---- artifacts

    @_operation(Kind.METHOD)
    def add_artifact(self, artifact: Any) -> Any:
        """Add an artifact to the environment."""

    @_operation(Kind.METHOD)
    def add_artifacts(self, artifacts: Iterable[Any]) -> Any:
        """Add several artifacts, in order."""

    @_operation(Kind.METHOD)
    def get_artifacts(
        self, agent_name: str | None = None, *, since: int = 0, limit: int | None = None
    ) -> Any:
        """Artifacts of all agents, or of the one of that name; ``since`` and ``limit`` page."""

    # ---- the end

    @_operation(Kind.METHOD)
    def save_info(self, folder: str | None, *args: Any, **kwargs: Any) -> Any:
        """Save what was gathered; `close` calls it too."""

    @_operation(Kind.TWO_FORMS)
    def close(self, folder: str | None = None) -> Any:
        """End the simulation, for everybody: save, stop the slaves, end the host; the receipt."""

    @_operation(Kind.TWO_FORMS)
    def destroy(self, folder: str | None = None) -> Any:
        """Deprecated: use `close`."""

    # ---- of the host

    @_operation(Kind.HOST)
    def call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method that a subclass of `MultiEnvironment` marked with ``@expose``."""

    @_operation(Kind.HOST)
    def start_steps(self, n: int | None = None, *args: Any, **kwargs: Any) -> Any:
        """Have the simulation step by itself from here on; returns at once with its progress.

        An error stops the steps, until `resume`; the loss of a slave cuts one step short, and the
        others go on.

        Args:
            n: How many steps; None for no end.
            *args, **kwargs: Passed to each ``trigger_all``.

        Raises:
            CreamasError: It does so already.
            BadValue: ``n`` is no int above zero.
        """

    @_operation(Kind.HOST)
    def pause(self) -> Any:
        """Finish the step under way and step no more until `resume`; the progress."""

    @_operation(Kind.HOST)
    def resume(self) -> Any:
        """Go on where `pause` or an error stopped the steps; the progress."""

    @_operation(Kind.HOST)
    def progress(self) -> Any:
        """How far the simulation's own steps are, and what is in it; a dict of plain values.

        ``state`` ("idle", "stepping", "paused", "failed", or "closed": the close of the simulation
        ended them), ``step`` and ``of`` of the steps that were started last (``of`` None: no end),
        ``step_seconds`` that the step under way has taken so far (None where none is: one that
        only grows tells of an agent that is stuck), ``acts_per_second`` and ``seconds_left`` (None
        where unknown), ``error`` (text of what stopped them), ``age``, ``agents``, ``slaves``,
        ``artifacts``, ``restarts`` (of slaves, so far), ``clients``.
        """

    @_operation(Kind.HOST)
    def wait_steps(self, timeout: float | None = None) -> Any:
        """Wait until the simulation steps no more by itself; the progress, whatever its state.

        Raises:
            DeadlineExceeded: ``timeout`` seconds passed.
        """

    @_operation(Kind.HOST)
    def next_events(self, since: int | None = None, timeout: float | None = None) -> Any:
        """Events after number ``since``, at once if there are any, else when one comes.

        The host keeps the last 1,000: who asks too late finds numbers missing.

        Args:
            since: Number of the last event known; None for those from now on.
            timeout: Seconds to wait; None for no limit.

        Returns:
            The number of the last event there is, and ``[(number, name, details), ...]``: "steps"
            (their progress, at most ten a second while stepping and at every change of state),
            "slave_lost", "slave_restarted" (the fields of `creamas_sc.mp.Restart`), "closing". The
            list is empty where the timeout passed, and at once for ``since=None``.
        """

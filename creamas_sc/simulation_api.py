"""The operations of a simulation in a daemon: one table for its host and both clients.

They mirror `MultiEnvironment`, with the same names, parameters, defaults and results, except that
``as_coro`` is left out and properties become ``get_*`` (and ``set_*``); what is local (``env``,
``manager``, ``logger``) is not mirrored. The host adds operations, with which the
simulation steps by itself.

Each method of `SimulationAPI` is a stub that `_operation` enters in the table: its signature is
what clients check arguments against before they send them, and the host again when it has received
them. Calling it passes the arguments to `_invoke`, which each client implements.
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
    """How the host carries out an operation on the `MultiEnvironment`."""

    METHOD = "a method; its result is awaited if it is awaitable"
    TWO_FORMS = "a method that takes as_coro"
    GETTER = "a property"
    SETTER = "the setting of a property"
    HOST = "a method of the host"


@dataclass(frozen=True)
class Operation:
    """A row of the table.

    Attributes:
        name: What clients call.
        attribute: The name in the `MultiEnvironment` or the host.
        signature: The parameters without self.
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
        signature = whole.replace(parameters=list(whole.parameters.values())[1:])
        name = stub.__name__
        operation = OPERATIONS[name] = Operation(name, kind, attribute or name, signature)

        @wraps(stub)
        def method(self: SimulationAPI, /, *args: Any, **kwargs: Any) -> Any:
            signature.bind(*args, **kwargs)  # the TypeError that a plain call would raise
            return self._invoke(operation, args, kwargs)

        return method

    return enter


class SimulationAPI:
    """The operations of a simulation; in the async client each is awaited.

    Unless stated otherwise, an operation is that of `MultiEnvironment`, with its parameters,
    results and errors. Classes that this process lacks may be given as ``pkg.mod:Cls``.

    Calls of different clients are independent of each other, but only one step is taken at a time:
    `trigger_all` and `trigger_all_within` of all clients, and the simulation's own steps, wait for
    each other. A client that goes away cancels its own calls and nothing else.
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
        """Return the name of the environment."""

    @_operation(Kind.GETTER, "seed")
    def get_seed(self) -> Any:
        """Return the seed of the simulation, given or drawn."""

    @_operation(Kind.SETTER, "seed")
    def set_seed(self, seed: int | None) -> Any:
        """Set the seed of the simulation, before its slaves are started; None draws one."""

    @_operation(Kind.GETTER, "calls")
    def get_calls(self) -> Any:
        """Return how calls between agents go in a step: "free" or "rounds"."""

    @_operation(Kind.SETTER, "calls")
    def set_calls(self, calls: str) -> Any:
        """Set how calls between agents go in a step."""

    @_operation(Kind.GETTER, "addrs")
    def get_addrs(self) -> Any:
        """Return the addresses of the slaves' managers, in the order of the slaves."""

    @_operation(Kind.GETTER, "restarts")
    def get_restarts(self) -> Any:
        """Return all restarts of slaves so far, with what was restored."""

    @_operation(Kind.GETTER, "last_step")
    def get_last_step(self) -> Any:
        """Return whether the last step of all agents repeats itself, and why not."""

    @_operation(Kind.GETTER, "steps_taken")
    def get_steps_taken(self) -> Any:
        """Return how many steps of all agents were taken, those before a resume included."""

    @_operation(Kind.GETTER, "age")
    def get_age(self) -> Any:
        """Return the age of the environment in simulation steps."""

    @_operation(Kind.SETTER, "age")
    def set_age(self, age: int) -> Any:
        """Set the age of the environment."""

    @_operation(Kind.GETTER, "in_step")
    def get_in_step(self) -> Any:
        """Return whether agents are acting."""

    # ---- slaves

    @_operation(Kind.METHOD)
    def spawn_slaves(
        self,
        slave_addrs: Sequence[tuple[str, int]] | int,
        slave_env_cls: type | str,
        slave_mgr_cls: type | str,
        slave_kwargs: Sequence[Mapping[str, Any]] | None = None,
        *,
        place: str | Sequence[str] | None = None,
    ) -> Any:
        """Start slaves; returns when all have bound their addresses. All start, or none."""

    @_operation(Kind.TWO_FORMS)
    def get_nodes(self) -> Any:
        """Return the nodes that have joined the daemon, as dicts."""

    @_operation(Kind.METHOD)
    def wait_slaves(self, timeout: float, check_ready: bool = False) -> Any:
        """Wait until all slaves are online and, if asked, ready; False if ``timeout`` passed."""

    @_operation(Kind.METHOD)
    def check_ready(self) -> Any:
        """Return whether the multi-environment itself is ready."""

    @_operation(Kind.METHOD)
    def is_ready(self) -> Any:
        """Return whether the master environment, `check_ready` and all slaves are ready."""

    @_operation(Kind.METHOD)
    def set_host_manager(self, addr: str, timeout: float = 5) -> Any:
        """Make the simulation's manager the host manager of the manager at ``addr``."""

    @_operation(Kind.METHOD)
    def set_host_managers(self, timeout: float = 5) -> Any:
        """Make the simulation's manager the host manager of all slaves' managers."""

    @_operation(Kind.METHOD)
    def get_slave_managers(self) -> Any:
        """Return the addresses of the slaves' managers."""

    @_operation(Kind.METHOD)
    def stop_slaves(self, timeout: float = 1) -> Any:
        """Stop all slaves; the report says how each ended."""

    # ---- agents

    @_operation(Kind.METHOD)
    def connect(self, addr: str, timeout: float | None = 0) -> Any:
        """Return a proxy of the agent at ``addr``, after checking that it exists."""

    @_operation(Kind.METHOD)
    def spawn(
        self, agent_cls: str | type, *args: Any, addr: str | None = None, **kwargs: Any
    ) -> Any:
        """Create an agent in a slave; returns its proxy and address."""

    @_operation(Kind.METHOD)
    def spawn_n(
        self, agent_cls: str | type, n: int, *args: Any, addr: str | None = None, **kwargs: Any
    ) -> Any:
        """Create ``n`` agents with the same arguments in one slave; like `spawn` for each."""

    @_operation(Kind.TWO_FORMS)
    def get_agents(self, addr: bool = True, agent_cls: type | str | None = None) -> Any:
        """Return the agents of all slaves, in spawn order, except managers."""

    @_operation(Kind.TWO_FORMS)
    def get_numbers(self) -> Any:
        """Return the agents' numbers, their places in the order of spawning, by address."""

    @_operation(Kind.METHOD)
    def gather(
        self, method: str, /, *args: Any, addrs: Iterable[str] | None = None, **kwargs: Any
    ) -> Any:
        """Call one exposed method of all agents, or of those at ``addrs``; address -> value."""

    @_operation(Kind.METHOD)
    def trigger_act(self, addr: str) -> Any:
        """Let the agent at ``addr`` act and return what its ``act`` returns."""

    @_operation(Kind.METHOD)
    def trigger_all(self, *args: Any, **kwargs: Any) -> Any:
        """Let every agent act once, concurrently, and wait for all of them.

        One step at a time: calls and the simulation's own steps wait for each other, in order.
        """

    @_operation(Kind.METHOD)
    def trigger_all_within(
        self, seconds: float, *args: Any, on_overrun: str = "cancel", **kwargs: Any
    ) -> Any:
        """Let every agent act once, within a time limit; results that were in time are kept.

        Args:
            seconds: How long the step may take, the wait for earlier steps included.
            *args, **kwargs: Passed to each ``act``.
            on_overrun: What happens to a slave whose agents cannot be cancelled, because one
                computes without awaiting. "cancel": nothing more; "kill": it is killed.

        Raises:
            StepOverran: ``addresses`` names the agents that were not done, ``results`` holds what
                the others returned, and ``acknowledged`` is False if a slave did not answer.
        """

    # ---- connections

    @_operation(Kind.TWO_FORMS)
    def create_connections(self, connection_map: Mapping[str, Iterable[Any]]) -> Any:
        """Create the connections in ``connection_map`` of agents that are in the slaves."""

    @_operation(Kind.TWO_FORMS)
    def get_connections(self, data: bool = True) -> Any:
        """Return ``(addr, connections)`` of all agents, in spawn order."""

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
        """Return artifacts of all agents or of one; ``since`` and ``limit`` select a page."""

    # ---- the end

    @_operation(Kind.METHOD)
    def save_info(self, folder: str | None, *args: Any, **kwargs: Any) -> Any:
        """Save results; `close` calls it too."""

    @_operation(Kind.TWO_FORMS)
    def close(self, folder: str | None = None) -> Any:
        """End the simulation, for all clients: save, stop the slaves, end the host.

        Returns:
            The `StopReport`: how each slave ended, and what failed to be saved.
        """

    @_operation(Kind.TWO_FORMS)
    def destroy(self, folder: str | None = None) -> Any:
        """Deprecated: use `close`."""

    # ---- of the host

    @_operation(Kind.HOST)
    def call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method of a `MultiEnvironment` subclass that is marked with ``@expose``."""

    @_operation(Kind.HOST)
    def start_steps(self, n: int | None = None, *args: Any, **kwargs: Any) -> Any:
        """Let the simulation step by itself from now on; returns its progress at once.

        An error stops the steps until `resume`; it is in `progress` and, with its traceback, in the
        daemon's logs. The loss of a slave ends only the current step early.

        Args:
            n: How many steps; None for no end.
            *args, **kwargs: Passed to each ``trigger_all``.

        Raises:
            CreamasError: It is stepping already.
            BadValue: ``n`` is not an int above zero.
        """

    @_operation(Kind.HOST)
    def start_steps_within(
        self,
        seconds: float,
        n: int | None = None,
        *args: Any,
        on_overrun: str = "cancel",
        **kwargs: Any,
    ) -> Any:
        """Let the simulation step by itself, each step in a limited time; returns its progress.

        As `start_steps`, with steps as of `trigger_all_within`. A step whose time is up is over:
        what was done in time is kept, the daemon's log and ``overran`` in `progress` say that it
        was cut short, and the next one begins. An agent that raises stops the steps.

        Args:
            seconds: How long each step may take, the wait for steps of clients included.
            n, *args, **kwargs: As of `start_steps`.
            on_overrun: As of `trigger_all_within`.

        Raises:
            CreamasError: It is stepping already.
            BadValue: An argument is not valid.
        """

    @_operation(Kind.HOST)
    def pause(self, timeout: float | None = None) -> Any:
        """Finish the current step, then stop until `resume`; returns the progress.

        If this call ends early, the simulation still stops after the step: ``pausing`` in
        `progress` says so.

        Args:
            timeout: Seconds to wait for the end of the step; None for no limit.

        Raises:
            DeadlineExceeded: ``timeout`` seconds passed.
        """

    @_operation(Kind.HOST)
    def resume(self) -> Any:
        """Continue after `pause` or an error; returns the progress."""

    @_operation(Kind.HOST)
    def progress(self) -> Any:
        """Return how far the simulation's own steps have got, and what is in it, as a dict.

        ``state`` ("idle", "stepping", "paused", "failed", or "closed" if the simulation's close
        ended the steps); ``step`` and ``of`` for the steps that were started last (``of`` is None
        for no end); ``pausing``, whether it stops after the current step; ``overran``, how many of
        these steps ran out of time; ``repeatable``, whether all steps so far repeat themselves
        (False once one does not, None if agents' calls are free), and ``why`` the last one that
        does not; ``step_seconds``, how long the current step has taken so far
        (None if there is none; if it only grows, an agent is stuck); ``steps_per_second``,
        ``acts_per_second`` and ``seconds_left`` (None if unknown); ``error`` (text of what stopped
        the steps); ``age``, ``agents``, ``slaves``, ``artifacts``, ``restarts`` (of slaves, so far)
        and ``clients``.
        """

    @_operation(Kind.HOST)
    def process_loads(self) -> Any:
        """Return what the processes of the simulation take, and which slave a step waits for.

        Nothing is asked of the slaves, so one that computes or is stopped changes nothing.

        Returns:
            A dict: ``time`` (seconds of a clock that only goes forward), ``host`` and ``slaves``,
            in their order. Each of these has ``address``, ``pid``, ``state`` ("running",
            "sleeping", "waiting for a disk", "stopped", "ended"; of a slave also "restarting",
            "lost" and, if its node does not answer, "unknown"), ``cpu_seconds`` since its start and
            ``memory_bytes``, what it shares with others included (None if it has ended). A slave
            also has ``node`` (empty for the daemon's machine), ``agents``, ``restarts``,
            ``step_seconds`` (how long it took to answer in the last step; None before the first)
            and ``waited_seconds`` (how long the current step has waited for its answer; None if it
            has answered). In rounds a slave answers when all are done: there ``cpu_seconds`` tells
            which of them is slow.
        """

    @_operation(Kind.HOST)
    def get_society(self, timeout: float | None = None) -> Any:
        """Return all agents and their connections, as they are between two steps.

        Other than `get_connections`, which does not wait for the step under way, it leaves steps
        repeatable.

        Args:
            timeout: Seconds to wait for the end of the step under way; None for no limit.

        Returns:
            A dict: ``age``; ``seconds``, how long the next step had to wait; lists with a place for
            each agent: ``agent`` (its number as text), ``address`` and ``type`` (its class);
            ``edges``, how many connections there are; and of 300,000 of these at most, lists:
            ``from`` and ``to`` (places of agents), ``weight`` (the number "weight" in the data, or
            the only number there; else 1).

        Raises:
            DeadlineExceeded: ``timeout`` seconds passed.
        """

    @_operation(Kind.HOST)
    def get_artifact_scores(self, since: int = 0, limit: int = 2000) -> Any:
        """Return columns about artifacts, without the artifacts.

        Args:
            since: The number of the first one, from 0 on.
            limit: How many, 2,000 at most.

        Returns:
            A dict: ``total``, how many artifacts there are; and lists: ``step`` (the environment's
            age when each was published), ``agent`` (the creator's number as text, or its name) and
            ``score`` (the mean of its numeric evaluations; None without one).
        """

    @_operation(Kind.HOST)
    def show_artifacts(self, numbers: Sequence[int], whole: bool = False, side: int = 512) -> Any:
        """Return artifacts as plain values, as `creamas_sc.results.artifact_views` has them.

        No class of theirs is needed here. ``look`` is how one looks, as a tuple of the fields of
        `creamas_sc.runtime.pictures.Look`, or None.

        Args:
            numbers: Which ones, 100 at most; those that there are not are left out.
            whole: With evaluations, framings and features.
            side: The most pixels of a picture in a row or column, 512 at most.
        """

    @_operation(Kind.HOST)
    def wait_steps(self, timeout: float | None = None) -> Any:
        """Wait until the simulation no longer steps by itself; returns the progress.

        Raises:
            DeadlineExceeded: ``timeout`` seconds passed.
        """

    @_operation(Kind.HOST)
    def next_events(self, since: int | None = None, timeout: float | None = None) -> Any:
        """Return the events after number ``since``, or wait for the next one if there are none.

        The host keeps the last 1,000 events: if a client asks too late, numbers are missing.

        Args:
            since: Number of the last known event; None to start with the next one.
            timeout: Seconds to wait; None for no limit.

        Returns:
            The number of the last event so far, and ``[(number, name, details), ...]``: "steps"
            (the progress, at most ten times a second while stepping and at every change of state),
            "slave_lost", "slave_restarted" (the fields of `creamas_sc.mp.Restart`),
            "not_repeatable" (``age`` at a step that does not repeat itself, and ``why``),
            "closing". The list is empty if the timeout passed, and always for ``since=None``,
            without waiting.
        """

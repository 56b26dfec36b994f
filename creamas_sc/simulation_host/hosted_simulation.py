"""A simulation in a daemon: its multi-environment, and what clients can ask of it."""

from __future__ import annotations

import inspect
import os
import time
import warnings
from collections import deque
from collections.abc import Mapping, Sequence
from functools import partial
from inspect import isawaitable
from typing import Any

import trio

from creamas_sc.core.step_loop import StepLimit
from creamas_sc.errors import (
    BadArguments,
    BadValue,
    ConnectionLost,
    CreamasError,
    HostLost,
    NotExposed,
    SlaveLost,
)
from creamas_sc.foreign import shown
from creamas_sc.mp import MultiEnvironment, RestartPolicy
from creamas_sc.mp.observer import Observer
from creamas_sc.mp.recorded import number_at
from creamas_sc.reports import Restart, StepReport
from creamas_sc.restarts.slave import Slave
from creamas_sc.results.artifact_views import ArtifactViews
from creamas_sc.rpc.connection import Connection
from creamas_sc.rpc.exposed import is_exposed, start_call
from creamas_sc.runtime.class_loading import class_name
from creamas_sc.runtime.process_load import load_of
from creamas_sc.runtime.validation import check_seconds, make_folder
from creamas_sc.simulation_api import Kind, Operation
from creamas_sc.simulation_host.error_boundary import error_boundary
from creamas_sc.simulation_host.shutdown import Shutdown, fit_to_travel
from creamas_sc.simulation_host.society_view import society_view
from creamas_sc.simulation_host.stepper import Stepper

# What a step that is cancelled at the close may still take, in seconds.
STEP_END_SECONDS = 1.0
KEPT_EVENTS = 1000

Event = tuple[int, str, dict[str, Any]]


class Events:
    """A ring of the last events, each with a number, for clients that ask for them.

    Readers fetch events, none are sent. So however many readers there are, and however slow, an
    event costs the same: its place in the ring.
    """

    def __init__(self) -> None:
        self._kept: deque[Event] = deque(maxlen=KEPT_EVENTS)
        self._last = 0
        self._posted = trio.lowlevel.ParkingLot()

    def post(self, name: str, details: dict[str, Any]) -> None:
        """Add an event; ``details`` must not be changed afterwards."""
        self._last += 1
        self._kept.append((self._last, name, details))
        self._posted.unpark_all()

    async def after(self, since: int | None, timeout: float | None) -> tuple[int, list[Event]]:
        """Events after number ``since``, at once if there are any, else when one comes.

        Args:
            since: None to get the number only, and no events.
            timeout: Seconds to wait; None for no limit.

        Returns:
            The number of the last event, and those after ``since`` that are kept; none if the
            timeout passed.

        Raises:
            BadValue: ``since`` is not the number of an event, or ``timeout`` is not a number of
                seconds.
        """
        if since is None:
            return self._last, []
        if type(since) is not int or not 0 <= since <= self._last:
            raise BadValue(
                f"since must be the number of an event, from 0 to {self._last}, not {shown(since)}"
            )
        check_seconds(timeout)
        with trio.move_on_after(float("inf") if timeout is None else timeout):
            while self._last <= since:
                await self._posted.park()
        fresh = min(self._last - since, len(self._kept))
        return self._last, [self._kept[-i] for i in range(fresh, 0, -1)]


class HostedSimulation(Observer):
    """What a host runs.

    Args:
        menv: The user's; its master environment is open.
        name: The simulation's.
        nursery: Runs the steps that the simulation takes by itself.
        restart: Replaces the policy that ``menv`` was made with.

    Attributes:
        address: The master environment's, which stands for the user's code in errors.
        network: The master environment's, which calls agents.
        clients: The connections of those that are attached.
    """

    def __init__(
        self,
        menv: MultiEnvironment,
        name: str,
        nursery: trio.Nursery,
        restart: RestartPolicy | None = None,
    ) -> None:
        self.name = name
        self.clients: set[Connection] = set()
        self.address = menv.env.base_url
        self.network = menv.env.network
        self._menv = menv
        self._events = Events()
        self._repeatable: bool | None = None
        self._why: tuple[str, ...] = ()
        self.shutdown = Shutdown(menv, self.address, self._events.post)
        self._stepper = Stepper(
            menv, self.address, nursery, lambda: self._events.post("steps", self.progress())
        )
        self._views = ArtifactViews(menv._artifacts, partial(number_at, self.network))
        menv.attach_observer(self, restart)

    # ---- operations

    def begin(self, operation: Operation, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Begin an operation for a client; returns the result, or an awaitable of it.

        Raises:
            BadArguments: They do not fit.
        """
        try:
            operation.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise BadArguments(f"{operation.name}: {error}") from None
        name = operation.attribute
        if name in ("close", "destroy"):
            return self._close(*args, **kwargs)
        if operation.kind is Kind.GETTER:
            return getattr(self._menv, name)
        if operation.kind is Kind.SETTER:
            return setattr(self._menv, name, *args, *kwargs.values())
        if operation.kind is Kind.HOST:
            return getattr(self, name)(*args, **kwargs)
        if operation.kind is Kind.TWO_FORMS:
            kwargs = {**kwargs, "as_coro": True}
        return start_call(getattr(self._menv, name), args, kwargs)

    def closed_error(self, error: ConnectionLost) -> HostLost | None:
        """The error of a call that failed because the simulation was closed; None if it was not.

        The loss of the slave that is the very cause of the close is not replaced.
        """
        cause = self.shutdown.cause
        if not self.shutdown.requested.is_set() or (
            isinstance(error, SlaveLost) and error.pid == getattr(cause, "pid", None)
        ):
            return None
        why = "" if cause is None else f": {cause}"
        return HostLost(f"the simulation {self.name!r} was closed{why}")

    # ---- operations of the host

    async def call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method that the user's subclass exposes."""
        cls = type(self._menv)
        if not is_exposed(getattr(cls, method, None)):
            raise NotExposed(
                f"{class_name(cls)} has no method {method!r} that is marked with @expose"
            )
        function = getattr(self._menv, method)
        signature = inspect.signature(function)
        try:
            signature.bind(*args, **kwargs)
        except TypeError as error:
            text = f"{method}: {error}; the method is {method}{signature}"
            raise BadArguments(text) from None
        with error_boundary(self.address, within_user_code=True):
            value = function(*args, **kwargs)
            return await value if isawaitable(value) else value

    def start_steps(self, n: int | None = None, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Take steps without being asked for each, from now on; returns the progress."""
        self._check_open()
        self._stepper.start(n, args, kwargs)
        return self.progress()

    def start_steps_within(
        self,
        seconds: float,
        n: int | None = None,
        *args: Any,
        on_overrun: str = "cancel",
        **kwargs: Any,
    ) -> dict[str, Any]:
        """The same, each step within a limited time."""
        self._check_open()
        StepLimit.within(seconds, on_overrun)  # of the first step: whether there can be one
        self._stepper.start(n, args, kwargs, within=(seconds, on_overrun))
        return self.progress()

    async def pause(self, timeout: float | None = None) -> dict[str, Any]:
        """Stop after the step under way; returns the progress."""
        await self._stepper.pause(timeout)
        return self.progress()

    def resume(self) -> dict[str, Any]:
        """Go on with the steps; returns the progress."""
        self._check_open()
        self._stepper.resume()
        return self.progress()

    async def wait_steps(self, timeout: float | None = None) -> dict[str, Any]:
        """Wait until it takes no more steps; returns the progress."""
        await self._stepper.wait(timeout)
        return self.progress()

    async def next_events(self, since: int | None = None, timeout: float | None = None) -> Any:
        """Events after number ``since``, or the next to come."""
        return await self._events.after(since, timeout)

    async def get_society(self, timeout: float | None = None) -> dict[str, Any]:
        """Agents and connections, between two steps."""
        return await society_view(self._menv, timeout)

    def get_artifact_scores(self, since: int = 0, limit: int = 2000) -> dict[str, Any]:
        """Steps, creators and scores of artifacts."""
        return self._views.scores(since, limit)

    def show_artifacts(
        self, numbers: Sequence[int], whole: bool = False, side: int = 512
    ) -> list[dict[str, Any]]:
        """Artifacts as plain values."""
        return self._views.views(numbers, whole, side)

    def progress(self) -> dict[str, Any]:
        """How far it is: plain values, at once, even if the user's class is broken."""
        counts = MultiEnvironment.overview(self._menv).counts
        repeats = {"repeatable": self._repeatable, "why": list(self._why)}
        return {**self._stepper.progress(), **counts, **repeats, "clients": len(self.clients)}

    async def process_loads(self) -> dict[str, Any]:
        """What the processes take, and how long each slave takes in steps: plain values."""
        host = {"address": self.address, "pid": os.getpid(), **load_of(os.getpid())}
        pool = self._menv._slaves
        away = await pool.machines.loads(pool.supervisor, pool.members)
        slaves = [slave.load(slave.slot in pool.driver.coming, away) for slave in pool.members]
        return {"time": time.monotonic(), "host": host, "slaves": slaves}

    def about(self) -> dict[str, Any]:
        """What it is doing, for those who ask where its code is."""
        loads = [slave.load() for slave in self._menv._slaves.members]
        waits = {each["address"]: each["waited_seconds"] for each in loads}
        waits = {address: seconds for address, seconds in waits.items() if seconds is not None}
        steps = self._stepper.progress()
        return {
            "address": self.address,
            "state": steps["state"],
            "step": steps["step"],
            "waits_for": waits,
        }

    def describe(self) -> dict[str, Any]:
        """The same for the supervisor, and what stays the same."""
        now = MultiEnvironment.overview(self._menv)
        menv_cls = class_name(type(self._menv))
        fixed: dict[str, Any] = {"addrs": now.addrs, "pids": now.pids, "slots": now.slots}
        fixed |= {"menv_cls": menv_cls}
        fixed |= {"restart": now.policy, "seed": now.seed}
        if (recording := self._menv._recording) is not None:
            fixed["record"] = recording.path
        return {**self.progress(), **fixed}

    def _check_open(self) -> None:
        if self.shutdown.requested.is_set():
            raise CreamasError(f"the simulation {self.name!r} is closing")

    # ---- the end

    async def _close(self, folder: str | None = None) -> Any:
        self.shutdown.request(make_folder(folder))
        return fit_to_travel(await self.shutdown.outcome(), self.network.codec.encode)

    async def close(self) -> None:
        """End the steps, and then everything, in the time that was requested."""
        await self._stepper.stop(STEP_END_SECONDS)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            await self.shutdown.run()

    # ---- as the observer of the multi-environment

    def slave_lost(self, slave: Slave) -> None:
        """Post an event."""
        self._events.post("slave_lost", slave.loss_details())

    def slave_restarted(self, restart: Restart) -> None:
        """Post an event."""
        self._events.post("slave_restarted", dict(vars(restart)))

    def step_taken(self, step: StepReport) -> None:
        """Keep whether all steps so far repeat themselves; post an event if one does not."""
        if self._repeatable is not False:
            self._repeatable = step.repeatable
        if step.repeatable is False:
            self._why = step.why
            details = {"age": MultiEnvironment.overview(self._menv).counts["age"]}
            self._events.post("not_repeatable", {**details, "why": list(step.why)})

    def kept(self, step: int) -> Any:
        """The steps that it takes by itself, for `take_up`."""
        return self._stepper.kept(step > 0)

    def take_up(self, kept: Any) -> None:
        """Go on with the steps that it took when a checkpoint was written, if it did."""
        if kept is not None:
            self._stepper.take_up(kept)

    def end_simulation(self, cause: SlaveLost) -> None:
        """Request the close."""
        self.shutdown.request(cause=cause)

    def stop_grace_seconds(self) -> float:
        """What is left of the grace period."""
        return self.shutdown.slaves_grace_seconds()

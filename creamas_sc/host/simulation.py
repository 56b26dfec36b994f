"""A simulation in a daemon: its multi-environment, and what clients can ask of it."""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Awaitable, Callable, Mapping
from inspect import isawaitable
from typing import Any

import trio

from creamas_sc.errors import (
    AgentError,
    BadArguments,
    ConnectionLost,
    CreamasError,
    EncodeError,
    HostLost,
    NotExposed,
    SlaveLost,
)
from creamas_sc.host.error_boundary import border
from creamas_sc.host.events import Events
from creamas_sc.host.shutdown import Closing, fit_to_travel
from creamas_sc.host.stepper import Stepper
from creamas_sc.mp import MultiEnvironment
from creamas_sc.mp.slave_pool import Slave
from creamas_sc.reports import Restart
from creamas_sc.rpc.exposed import _EXPOSED, start_call
from creamas_sc.runtime.class_loading import class_name
from creamas_sc.runtime.validation import check_folder
from creamas_sc.simulation_api import Kind, Operation
from creamas_sc.wire.codec import Payload

__all__ = ["HostedSimulation"]

# What a step that is cancelled at the close may still take, in seconds.
STEP_END_SECONDS = 1.0
CLOSES = ("close", "destroy")


class HostedSimulation:
    """What a host runs.

    Args:
        menv: The user's; its slaves are there.
        name: The simulation's.
        nursery: Runs its own steps.

    Attributes:
        clients: How many are attached.
    """

    def __init__(self, menv: MultiEnvironment, name: str, nursery: trio.Nursery) -> None:
        self.name = name
        self.pid = os.getpid()
        self.clients = 0
        self.codec = menv._env.network.codec
        self.closing = Closing(menv)
        self._menv = menv
        self._events = Events()
        self._stepper = Stepper(menv, lambda: self.address, nursery, self._tell_steps)
        menv._slaves.on_loss = self._note_loss
        menv._on_restart = self._note_restart
        menv._on_end = self._end_for

    @property
    def address(self) -> str:
        """The master environment's, which stands for the user's code in errors."""
        return self._menv._env.base_url

    async def relay(self, address: str, method: str, payload: Payload) -> Payload:
        """Have the agent at ``address`` called, the body unopened both ways."""
        with border(self.address):
            return await self._menv._env.network.relay(address, method, payload)

    # ---- operations

    def begin(self, operation: Operation, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Begin what a client asks for: the result, or an awaitable of it.

        Raises:
            BadArguments: They do not fit.
            Exception: What it raised at once; see `border`.
        """
        try:
            operation.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise BadArguments(f"{operation.name}: {error}") from None
        if operation.name in CLOSES:
            with border(self.address):
                for folder in (*args, *kwargs.values()):
                    check_folder(folder)
            return self._close(*args, **kwargs)
        with border(self.address):
            return self._begin(operation, args, kwargs)

    def _begin(self, operation: Operation, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        name = operation.attribute
        if operation.kind is Kind.GETTER:
            return getattr(self._menv, name)
        if operation.kind is Kind.SETTER:
            return setattr(self._menv, name, *args, *kwargs.values())
        if operation.kind is Kind.HOST:
            return getattr(self, name)(*args, **kwargs)
        if operation.kind is Kind.TWO_FORMS:
            kwargs = {**kwargs, "as_coro": True}
        return start_call(getattr(self._menv, name), args, kwargs)

    async def finish(self, result: Awaitable[Any]) -> Any:
        """Wait for what `begin` began."""
        try:
            with border(self.address):
                return await result
        except ConnectionLost as error:
            if not self.closing.asked.is_set():
                raise
            cause = self.closing.cause
            if isinstance(error, SlaveLost) and error.pid == getattr(cause, "pid", None):
                raise
            why = "" if cause is None else f": {cause}"
            raise HostLost(f"the simulation {self.name!r} was closed{why}") from error

    def decode(self, payload: Payload) -> Any:
        """What a client sent."""
        with border(self.address):
            return self.codec.decode(payload)

    def encode(self, value: Any, what: str) -> Payload:
        """``value`` for a client; what cannot travel is an error of the code that made it."""
        try:
            with border(self.address):
                return self.codec.encode(value, root=f"the reply of {what}")
        except EncodeError as error:
            raise AgentError.from_exception(self.address, error) from error

    # ---- operations of the host

    def call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method that the user's subclass exposes."""
        kind = type(self._menv)
        if not getattr(getattr(kind, method, None), _EXPOSED, False):
            raise NotExposed(
                f"{class_name(kind)} has no method {method!r} that is marked with @expose"
            )
        function = getattr(self._menv, method)
        try:
            inspect.signature(function).bind(*args, **kwargs)
        except TypeError as error:
            told = f"{method}: {error}; the method is {method}{inspect.signature(function)}"
            raise BadArguments(told) from None
        return self._call(function, args, kwargs)

    async def _call(
        self, method: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:
        with border(self.address, within_user_code=True):
            value = method(*args, **kwargs)
            return await value if isawaitable(value) else value

    def start_steps(self, n: int | None = None, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Step by itself from here on; the progress."""
        self._check_open()
        self._stepper.start(n, args, kwargs)
        return self.progress()

    async def pause(self) -> dict[str, Any]:
        """Stop after the step under way; the progress."""
        await self._stepper.pause()
        return self.progress()

    def resume(self) -> dict[str, Any]:
        """Go on with the steps; the progress."""
        self._check_open()
        self._stepper.resume()
        return self.progress()

    async def wait_steps(self, timeout: float | None = None) -> dict[str, Any]:
        """Wait until it steps no more; the progress."""
        await self._stepper.wait(timeout)
        return self.progress()

    async def next_events(self, since: int | None = None, timeout: float | None = None) -> Any:
        """Events after number ``since``, or the next to come."""
        return await self._events.after(since, timeout)

    def progress(self) -> dict[str, Any]:
        """How far it is: plain values, at once, whatever state the user's class is in."""
        slaves = [slave for slave in self._menv._slaves.members if not slave.gone.is_set()]
        return {
            **self._stepper.progress(),
            "age": self._menv._age,
            "agents": sum(slave.agents for slave in slaves),
            "slaves": len(slaves),
            "artifacts": len(self._menv._artifacts),
            "restarts": len(self._menv._restarts),
            "clients": self.clients,
        }

    def describe(self) -> dict[str, Any]:
        """The same for the supervisor, and what stays the same."""
        addrs = [slave.address for slave in self._menv._slaves.members]
        kind = class_name(type(self._menv))
        restart = str(self._menv._policy)
        return {**self.progress(), "addrs": addrs, "menv_cls": kind, "restart": restart}

    def _check_open(self) -> None:
        if self.closing.asked.is_set():
            raise CreamasError(f"the simulation {self.name!r} is closing")

    # ---- the end

    async def _close(self, folder: str | None = None) -> Any:
        self.ask_close(folder)
        return fit_to_travel(await self.closing.outcome(), self.codec.encode)

    def ask_close(
        self,
        folder: str | None = None,
        grace: float | None = None,
        cause: CreamasError | None = None,
    ) -> None:
        """Have the simulation end; see `Closing.ask`."""
        first = not self.closing.asked.is_set()
        self.closing.ask(folder, grace, cause)
        if first:
            self._events.post("closing", {"cause": "closed" if cause is None else str(cause)})

    async def close(self) -> None:
        """End the steps, and then everything; bounded as `ask_close` said."""
        await self._stepper.stop(STEP_END_SECONDS)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            await self.closing.run_shutdown()

    # ---- news

    def _tell_steps(self) -> None:
        self._events.post("steps", self.progress())

    def _note_loss(self, slave: Slave) -> None:
        how: dict[str, Any] = {
            "address": slave.address,
            "pid": slave.pid,
            "exit_code": None if slave.exit is None else slave.exit["exit_code"],
            "signal": None if slave.exit is None else slave.exit["signal"],
        }
        self._events.post("slave_lost", {**how, "cause": slave.end()})

    def _note_restart(self, restart: Restart) -> None:
        self._events.post("slave_restarted", dict(vars(restart)))

    def _end_for(self, cause: SlaveLost) -> None:
        """The restart policy ends the simulation."""
        self.ask_close(cause=cause)

"""Lines to a supervisor: to one of this process's own, or to that which runs this process.

For one of its own a process starts the keeper with one end of a socketpair and speaks the frame
protocol with the supervisor over the other. When that connection closes, for whatever reason, the
supervisor ends everything it started and then itself.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, Protocol

import trio
from anyio.abc import TaskStatus

from creamas_sc.errors import ConnectionLost, StartError
from creamas_sc.processes.launcher import launch
from creamas_sc.rpc.connection import Connection
from creamas_sc.rpc.serving import Handler
from creamas_sc.rpc.socket_stream import ConnectedStream
from creamas_sc.wire.codec import Codec, Payload

__all__ = ["Line", "OnExit", "PrivateSupervisor", "Supervisor", "Told", "supervisor_factory"]

log = logging.getLogger(__name__)

# After the connection is closed: the supervisor's whole ladder, and some more.
END_SECONDS = 3.0
KILL_SECONDS = 1.0
# What the supervisor gives actors to become ready, where the caller says nothing.
START_SECONDS = 30.0

Told = Mapping[str, Any]
OnExit = Callable[[Told], None]


class Supervisor(Protocol):
    """Starts, watches and ends actors for this process."""

    async def run(self, *, task_status: TaskStatus[Any] = trio.TASK_STATUS_IGNORED) -> None:
        """Be there until `aclose` or cancellation."""

    async def start(
        self, orders: Sequence[Told], timeout: float | None = None
    ) -> list[dict[str, Any]]:
        """Start actors, all or none; their slot, pid and info, in order."""

    async def stop(
        self, slots: Sequence[str] | None, grace: float, payload: bytes
    ) -> list[dict[str, Any]]:
        """End actors by the ladder and return their receipts."""

    async def aclose(self) -> None:
        """Let go of it."""


class Line:
    """A connection to a supervisor, over a connected socket that it owns.

    Args:
        on_exit: Told of each actor that ends: slot, pid, exit_code, signal, error, expected.
        serve: Answers the supervisor's own calls, where it has any.
    """

    def __init__(self, sock: socket.socket, on_exit: OnExit, serve: Handler | None = None) -> None:
        self._on_exit = on_exit
        self._codec = Codec()
        self._connection = Connection(
            ConnectedStream(sock), serve, on_event=self._take_event, name="the supervisor"
        )

    async def run(self) -> None:
        """Converse until the supervisor is gone, or `aclose`."""
        await self._connection.run()

    async def aclose(self) -> None:
        """End the connection."""
        await self._connection.aclose()

    async def start(
        self, orders: Sequence[Told], timeout: float | None = None
    ) -> list[dict[str, Any]]:
        """Start actors, all or none; their slot, pid and info, in order.

        Args:
            timeout: Seconds until all are ready, 30 by default.

        Raises:
            StartError: One did not come up, or the supervisor itself did not.
        """
        try:
            # The supervisor keeps the deadline; ours is for one that never comes up.
            with trio.fail_after((timeout or START_SECONDS) + END_SECONDS):
                return await self.call("start", list(orders), timeout)  # type: ignore[no-any-return]
        except ConnectionLost as error:
            raise StartError("the supervisor ended while it was starting slaves") from error
        except trio.TooSlowError as error:
            raise StartError("the supervisor does not answer") from error

    async def stop(
        self, slots: Sequence[str] | None, grace: float, payload: bytes
    ) -> list[dict[str, Any]]:
        """End actors by the ladder and return their receipts."""
        return await self.call("stop", slots, grace, payload)  # type: ignore[no-any-return]

    async def call(self, method: str, *args: Any) -> Any:
        """Call a method of the supervisor's; see `supervisor.root`."""
        answer = await self._connection.call(None, method, self._codec.encode((args, {})))
        return self._codec.decode(answer)

    def _take_event(self, name: str, payload: Payload) -> None:
        if name == "exited":
            self._on_exit(self._codec.decode(payload))


class PrivateSupervisor:
    """A supervisor of this process's own.

    Args:
        on_exit: As of `Line`.
        inherited: Descriptors that the last process of its tree keeps open until it ends.
        preload: What its zygote imports for all actors, beside what slaves need.

    Attributes:
        gone: Set when nothing of it is left.
    """

    def __init__(
        self, on_exit: OnExit, inherited: Sequence[int] = (), preload: Sequence[str] = ()
    ) -> None:
        self._on_exit = on_exit
        self._inherited = inherited
        self._preload = preload
        self._line: Line | None = None
        self._keeper: subprocess.Popen[bytes] | None = None
        self._closing = trio.Event()
        self.gone = trio.Event()

    # A Ctrl-C goes to the main task: here it would end the line, and slaves without a request.
    @trio.lowlevel.enable_ki_protection
    async def run(self, *, task_status: TaskStatus[Any] = trio.TASK_STATUS_IGNORED) -> None:
        """Start the supervisor and keep it until `aclose` or cancellation; then nothing is left.

        Raises:
            StartError: There can be no supervisor here; the message says what to do.
        """
        ours, keeper, _ = launch(self._inherited, self._preload)
        self._keeper = keeper
        line = self._line = Line(ours, self._on_exit)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._mind_closing, line)
                task_status.started()
                await line.run()  # ends with `aclose`, or with the supervisor
                nursery.cancel_scope.cancel()
        finally:
            ours.close()
            try:
                with trio.CancelScope(shield=True):
                    await _see_off(keeper)
            finally:
                self.gone.set()

    async def _mind_closing(self, line: Line) -> None:
        await self._closing.wait()
        await line.aclose()

    @property
    def line(self) -> Line:
        """The line to it; there is one once `run` has started."""
        assert self._line is not None
        return self._line

    async def start(
        self, orders: Sequence[Told], timeout: float | None = None
    ) -> list[dict[str, Any]]:
        """As of `Line`."""
        return await self.line.start(orders, timeout)

    async def stop(
        self, slots: Sequence[str] | None, grace: float, payload: bytes
    ) -> list[dict[str, Any]]:
        """As of `Line`."""
        return await self.line.stop(slots, grace, payload)

    async def aclose(self) -> None:
        """End the supervisor and whatever it still runs; returns when all processes are gone."""
        self._closing.set()
        with trio.CancelScope(shield=True):
            await self.gone.wait()

    @property
    def exit_code(self) -> int | None:
        """How it ended: 0 where it was asked to; None while it runs."""
        return None if self._keeper is None else self._keeper.returncode

    def kill(self) -> None:
        """End everything at once, with no request; `run` returns when it is over."""
        if self._keeper is not None:
            self._keeper.kill()


# Where a `MultiEnvironment` made in this context gets its supervisor.
supervisor_factory: ContextVar[Callable[[OnExit], Supervisor]] = ContextVar(
    "supervisor_factory", default=PrivateSupervisor
)


async def _see_off(keeper: subprocess.Popen[bytes]) -> None:
    """Wait for the keeper, the last to die, and reap it; force it past its time."""
    pidfd = os.pidfd_open(keeper.pid)
    try:
        for act, seconds in ((signal.SIGCONT, END_SECONDS), (signal.SIGKILL, KILL_SECONDS)):
            keeper.send_signal(act)
            with trio.move_on_after(seconds):
                await trio.lowlevel.wait_readable(pidfd)
                keeper.wait()
                return
            log.warning("the supervisor did not end within %g s", seconds)
    finally:
        os.close(pidfd)

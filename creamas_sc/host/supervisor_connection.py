"""A host's line to the supervisor that started it, over which its slaves are started too."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import Any

import trio
from anyio.abc import TaskStatus

from creamas_sc.errors import CallRefused, EncodeError
from creamas_sc.processes.messages import ActorExit, ActorOrder, StartedActor, StopResult
from creamas_sc.processes.supervisor_client import OnExit, SupervisorConnection
from creamas_sc.rpc.connection import Request
from creamas_sc.wire.codec import Codec, Payload

__all__ = ["HostConnection"]


class HostConnection:
    """The line, for as long as the host lives; `supervisor` makes of it what slaves need.

    Args:
        sock: Connected to the supervisor; owned from here on.

    Attributes:
        describe: Answers the supervisor's question how the simulation does: plain values, at once.
        gone: Set when the line has ended.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.describe: Callable[[], dict[str, Any]] = dict
        self.gone = trio.Event()
        self._codec = Codec()
        self._on_exit: OnExit | None = None
        # Whoever is cancelled still needs it for a while, to stop the slaves.
        self._scope = trio.CancelScope(shield=True)
        self.line = SupervisorConnection(sock, self._note_exit, self._serve)

    async def run(self) -> None:
        """Converse until the supervisor is gone, or `end`; cancellation from outside waits."""
        try:
            with self._scope:
                await self.line.run()
        finally:
            self.gone.set()

    def end(self) -> None:
        """Converse no more."""
        self._scope.cancel()

    def supervisor(self, on_exit: OnExit) -> HostedSupervisor:
        """The supervisor of the simulation's slaves, who tells ``on_exit`` of their ends."""
        self._on_exit = on_exit
        return HostedSupervisor(self)

    def _note_exit(self, told: ActorExit) -> None:
        if self._on_exit is not None:
            self._on_exit(told)

    def _serve(self, request: Request) -> Payload:
        if request.method == "ping":
            return self._codec.encode(True)
        if request.method != "describe":
            raise CallRefused(f"a host has no method {request.method!r}")
        try:
            return self._codec.encode(self.describe())
        except EncodeError:  # a value that the user's class put there
            return self._codec.encode({})


class HostedSupervisor:
    """The host's own supervisor, as its `MultiEnvironment` sees it.

    To close it ends nothing: slaves are stopped by name, and the line is the host's.
    """

    def __init__(self, host: HostConnection) -> None:
        self._host = host
        self._closing = trio.Event()
        self._over = trio.Event()

    async def run(self, *, task_status: TaskStatus[Any] = trio.TASK_STATUS_IGNORED) -> None:
        """Be there until `aclose`, or until the supervisor is gone.

        Cancellation from outside waits: a close comes with it, which stops the slaves first.
        """
        task_status.started()
        try:
            with trio.CancelScope(shield=True):
                async with trio.open_nursery() as nursery:
                    for event in (self._closing, self._host.gone):
                        nursery.start_soon(_cancel_after, event, nursery.cancel_scope)
        finally:
            self._over.set()

    async def start(
        self, orders: Sequence[ActorOrder], timeout: float | None = None
    ) -> list[StartedActor]:
        """As of `SupervisorConnection`."""
        return await self._host.line.start(orders, timeout)

    async def stop(
        self, slots: Sequence[str] | None, grace: float, payload: bytes
    ) -> list[StopResult]:
        """As of `SupervisorConnection`."""
        return await self._host.line.stop(slots, grace, payload)

    async def aclose(self) -> None:
        """Let go of it."""
        self._closing.set()
        with trio.CancelScope(shield=True):
            await self._over.wait()


async def _cancel_after(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()

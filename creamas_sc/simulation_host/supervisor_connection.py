"""A host's connection to the supervisor that started it, which also starts the host's slaves."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import trio
from anyio.abc import TaskStatus

from creamas_sc.errors import CallRefused, EncodeError
from creamas_sc.rpc.connection import Request
from creamas_sc.supervisor_client.connection import OnExit, SupervisorConnection
from creamas_sc.supervisor_client.messages import NodeSettings
from creamas_sc.wire.codec import Codec, Payload


class HostConnection(SupervisorConnection):
    """The connection, which lives from `serve` to `end`, as long as the host.

    Args:
        sock: Connected to the supervisor; closed with the connection.
        describe: Called when the supervisor asks how the simulation is; returns plain values.

    Attributes:
        gone: Set when the connection has ended.
    """

    def __init__(self, sock: socket.socket, describe: Callable[[], dict[str, Any]]) -> None:
        super().__init__(sock, lambda _: None, self._answer)
        self.gone = trio.Event()
        self._describe = describe
        # Tasks that are cancelled still need the connection for a while, to stop the slaves.
        self._scope.shield = True

    async def serve(self) -> None:
        """Send and receive until the supervisor is gone, or until `end`."""
        try:
            await super().run()
        finally:
            self.gone.set()

    def _answer(self, request: Request) -> Payload:
        codec = Codec()
        if request.method == "ping":
            return codec.encode(True)
        if request.method != "describe":
            raise CallRefused(f"a host has no method {request.method!r}")
        try:
            return codec.encode(self._describe())
        except EncodeError:  # a value that the user's class put there
            return codec.encode({})

    def as_supervisor(self, on_exit: OnExit) -> HostedSupervisor:
        """Return a supervisor that reports the ends of slaves to ``on_exit``."""
        self._on_exit = on_exit
        return HostedSupervisor(self)


class HostedSupervisor:
    """The `Supervisor` of a host's `MultiEnvironment`: it starts slaves over the connection.

    Its end ends no process: slaves are stopped by name.
    """

    def __init__(self, connection: HostConnection) -> None:
        self.start, self.stop, self.loads = connection.start, connection.stop, connection.loads
        self.nodes, self.wait_nodes = connection.nodes, connection.wait_nodes
        self._gone = connection.gone
        # Shielded: a cancelled close stops the slaves before it releases the supervisor.
        self._scope = trio.CancelScope(shield=True)
        self._over = trio.Event()

    async def run(self, *, task_status: TaskStatus[Any] = trio.TASK_STATUS_IGNORED) -> None:
        """Wait for `aclose`, or for the end of the connection."""
        task_status.started()
        try:
            with self._scope:
                await self._gone.wait()
        finally:
            self._over.set()

    async def listen_for_nodes(self, settings: NodeSettings) -> tuple[str, int]:
        """Refuse: that is the daemon's, for all its simulations."""
        raise CallRefused(
            "a simulation of a daemon runs on the daemon's nodes: start the daemon with --listen "
            "HOST:PORT"
        )

    async def aclose(self) -> None:
        """Release the supervisor; the connection stays."""
        self._scope.cancel()
        with trio.CancelScope(shield=True):
            await self._over.wait()

"""The supervisor's process: the root of the actors, served over one control connection.

Calls of its owner, who started it (see `creamas_sc.supervisor_client.messages` for the types):

    start(orders, timeout, code)  -> [messages.StartedActor]
    stop(slots, grace, payload)   -> [StopResult]; without slots, of all, and its nodes end, too
    loads(slots)                  -> {slot: ProcessLoad}
    listen_for_nodes(settings)    -> [host, port] at which it does from then on
    nodes()                       -> [NodeInfo]
    wait_nodes(count, timeout)    -> the same, when so many have joined or time is up
    ping()                        -> None, while the supervisor is alive
    renew(seconds)                kill all, this process first, unless called again within these
    listen(settings)              from then on it is a daemon's (see `supervisor.daemon.service`);
                                  answers as listen_for_nodes, or None
    close_all()                   -> [StopResult] of the daemon's hosts; then the supervisor ends

Event ``exited``: an `ActorExit`. SIGTERM, and the end of the connection or of the script, are
requests to stop all actors with the default grace and to end.
"""

from __future__ import annotations

import math
import os
import signal
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING

import trio

from creamas_sc.errors import CallRefused
from creamas_sc.rpc.socket_stream import ConnectedStream
from creamas_sc.runtime.nurseries import first_of
from creamas_sc.supervisor_client import messages
from creamas_sc.wire.frames import FrameReader
from supervisor.actors import tractor_adapter
from supervisor.actors.pool import ActorPool
from supervisor.nodes.placement import Placement
from supervisor.nodes.registry import NodeRegistry
from supervisor.rpc_server import Method, MethodServer, start_apart
from supervisor.timeouts import SWEEP_WAIT_SECONDS
from supervisor.tree.zygote_client import open_zygote

if TYPE_CHECKING:
    from supervisor.daemon.service import DaemonService

# A peer that inherited its descriptor is trusted with large specs.
MAX_FRAME_BYTES = 1 << 30


def run(control_fd: int, zygote_socket: socket.socket, zygote_pid: int, keeper_pidfd: int) -> int:
    """Be the supervisor until the control connection ends; returns the exit code."""
    trio.run(_supervise, socket.socket(fileno=control_fd), zygote_socket, zygote_pid, keeper_pidfd)
    return 0


async def _supervise(
    control: socket.socket, zygote_socket: socket.socket, zygote_pid: int, keeper_pidfd: int
) -> None:
    async with (
        open_zygote(zygote_socket) as zygote,
        tractor_adapter.open_root(zygote),
        tractor_adapter.open_simulation() as simulation,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(_wake_zygote, keeper_pidfd, zygote_pid)
        root = _Root(ConnectedStream(control), simulation, nursery)
        nursery.start_soon(root.end_on_sigterm)
        await root.serve(zygote.script_gone)
        nursery.cancel_scope.cancel()


async def _wake_zygote(keeper_pidfd: int, zygote_pid: int) -> None:
    """Wake a stopped zygote when the keeper is gone: only it can end what was forked away."""
    await trio.lowlevel.wait_readable(keeper_pidfd)
    await trio.sleep(SWEEP_WAIT_SECONDS)  # a running zygote has killed this process by now
    os.kill(zygote_pid, signal.SIGCONT)


class _Root:
    """What the owner, at the other end of the control connection, can call."""

    def __init__(
        self, stream: ConnectedStream, simulation: tractor_adapter.Simulation, nursery: trio.Nursery
    ) -> None:
        self._stream = stream
        self._nursery = nursery
        self._over = trio.Event()
        self._nodes = NodeRegistry(nursery)
        self._place = Placement(simulation, self._nodes)
        self._pool = ActorPool(self._place, lambda message: self._server.post("exited", message))
        self._daemon: DaemonService | None = None
        self._lease = trio.CancelScope()
        methods: dict[str, Method] = {
            "start": self._start,
            "stop": self._stop,
            "loads": self._pool.loads,
            "listen_for_nodes": self._nodes.listen,
            "nodes": self._nodes.nodes,
            "wait_nodes": self._nodes.wait_nodes,
            "listen": self._listen,
            "ping": self._ping,
            "renew": self._renew,
            "close_all": self._close_all,
        }
        self._server = MethodServer(stream, methods, "the script", FrameReader(MAX_FRAME_BYTES))

    async def serve(self, script_gone: trio.Event) -> None:
        """Answer calls until the owner is gone or wants the end; then stop all actors."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._server.connection.run)
            await first_of(self._over, self._stream.ended, script_gone)
            # Beside the calls that the connection's end cancels, not after them.
            if self._daemon is not None:
                await self._daemon.aclose(owner_gone=not self._over.is_set())
            await self._pool.close()
            await self._nodes.aclose("its supervisor ends")
            await self._server.connection.aclose()

    async def end_on_sigterm(self) -> None:
        """SIGTERM is a request to end all."""
        with trio.open_signal_receiver(signal.SIGTERM) as received:
            async for _ in received:
                self._over.set()

    async def _start(
        self,
        orders: Sequence[messages.ActorOrder],
        timeout: float | None = None,
        code: messages.Code | None = None,
    ) -> list[messages.StartedActor]:
        return await self._pool.start(orders, timeout, code=code)

    async def _stop(
        self, slots: Sequence[str] | None, grace: float | None = None, payload: bytes = b""
    ) -> list[messages.StopResult]:
        results = await self._pool.stop(slots, grace, payload)
        if slots is None:  # this supervisor may have another owner next, who has other nodes
            await self._nodes.aclose("its supervisor is not used any more")
        return results

    async def _ping(self) -> None:
        """Answer: the supervisor is alive."""

    async def _renew(self, seconds: float) -> None:
        first = self._lease.deadline == math.inf
        self._lease.deadline = trio.current_time() + seconds
        if first:
            start_apart(self._nursery, self._end_with_lease)

    async def _end_with_lease(self) -> None:
        """Be killed at the end of the lease: then the zygote ends all that there is at once."""
        with self._lease:
            await trio.sleep_forever()
        os.kill(os.getpid(), signal.SIGKILL)

    async def _listen(self, settings: messages.DaemonSettings) -> tuple[str, int] | None:
        # Embedded use, whose start is to be short, does without.
        from supervisor.daemon.service import DaemonService

        if self._daemon is not None:
            raise CallRefused("this supervisor is a daemon's already")
        self._daemon = DaemonService.open(settings, self._nursery, self._over, self._nodes)
        nodes = settings["nodes"]
        return None if nodes is None else await self._nodes.listen(nodes)

    async def _close_all(self) -> list[messages.NamedStopResult]:
        if self._daemon is None:
            raise CallRefused("this supervisor is not a daemon's")
        return await self._daemon.stop()

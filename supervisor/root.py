"""The supervisor's process: the root of the actors, served over one control connection.

Calls of its owner, who started it (see `supervisor.rpc_server`):

    start(orders, timeout)        -> [{slot, pid, info}]
    stop(slots, grace, payload)   -> [receipt]
    shutdown()                    -> [receipt]; then the supervisor ends
    listen(settings)              from then on it is a daemon's (see `supervisor.daemon.service`)
    close_all(grace, payload)     -> [receipt] of the daemon's hosts; then the supervisor ends

Event ``exited``: {slot, pid, exit_code, signal, error, traceback, expected, returned}.
The connection's end is a request to stop all with the default grace.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import trio

from creamas_sc.errors import CallRefused
from creamas_sc.rpc.socket_stream import ConnectedStream
from creamas_sc.wire.frames import FrameReader
from supervisor.actors import tractor_adapter
from supervisor.actors.pool import Service
from supervisor.actors.slot import Told
from supervisor.rpc_server import Method, MethodServer
from supervisor.timeouts import GRACE_SECONDS, SWEEP_PATIENCE_SECONDS
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
        tractor_adapter.open_tree(zygote) as tree,
        tree.open_simulation() as simulation,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(_mind_keeper, keeper_pidfd, zygote_pid)
        owner = _Owner(ConnectedStream(control), tree, simulation, nursery)
        nursery.start_soon(owner.mind_signals)
        await owner.serve(zygote.script_gone)
        nursery.cancel_scope.cancel()


async def _mind_keeper(keeper_pidfd: int, zygote_pid: int) -> None:
    """Wake a stopped zygote when the keeper is gone: its sweep must find what was forked away."""
    await trio.lowlevel.wait_readable(keeper_pidfd)
    await trio.sleep(SWEEP_PATIENCE_SECONDS)  # a running zygote has killed this process by now
    os.kill(zygote_pid, signal.SIGCONT)


class _Owner:
    """The one who started this, at the other end of the control connection."""

    def __init__(
        self,
        stream: ConnectedStream,
        tree: tractor_adapter.Tree,
        simulation: tractor_adapter.Simulation,
        nursery: trio.Nursery,
    ) -> None:
        self._stream = stream
        self._tree = tree
        self._nursery = nursery
        self._over = trio.Event()
        self._service = Service(simulation, nursery, self._tell_exit)
        self._listening: DaemonService | None = None
        self._front = MethodServer(
            stream, self._methods(), "the script", FrameReader(MAX_FRAME_BYTES)
        )

    async def serve(self, script_gone: trio.Event) -> None:
        """Answer calls until the peer goes, or asks for the end; then stop all actors."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._front.connection.run)
            await tractor_adapter.first_of(self._over, self._stream.ended, script_gone)
            # Beside the calls that the connection's end cancels, not after them.
            if self._listening is not None:
                await self._listening.aclose()
            await self._service.close()
            await self._front.connection.aclose()

    async def mind_signals(self) -> None:
        """SIGTERM is a request to end all."""
        with trio.open_signal_receiver(signal.SIGTERM) as received:
            async for _ in received:
                self._over.set()

    def _tell_exit(self, told: Told) -> None:
        """Post the event of an actor's end."""
        self._front.post("exited", told)

    def _methods(self) -> Mapping[str, Method]:
        async def start(orders: Sequence[Told], timeout: float | None = None) -> list[Told]:
            return await self._service.start(orders, timeout)

        return {
            "start": start,
            "stop": self._service.stop,
            "shutdown": self._shutdown,
            "listen": self._listen,
            "close_all": self._close_all,
        }

    async def _shutdown(self) -> list[Told]:
        receipts = await self._service.close()
        self._over.set()
        return receipts

    async def _listen(self, settings: Told) -> None:
        # Embedded use, whose start is to be short, does without.
        from supervisor.daemon.service import DaemonService

        if self._listening is not None:
            raise CallRefused("this supervisor listens already")
        self._listening = DaemonService.open(settings, self._tree, self._nursery, self._over)

    async def _close_all(self, grace: float = GRACE_SECONDS, payload: bytes = b"") -> list[Told]:
        if self._listening is None:
            raise CallRefused("this supervisor does not listen")
        return await self._listening.stop(grace, payload)

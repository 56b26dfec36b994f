"""The supervisor's process: the root of the actors, served over one control connection.

Calls (target nil; arguments and answers through the codec, as ``(args, kwargs)``):

    start(orders, timeout)        -> [{slot, pid, info}]
    stop(slots, grace, payload)   -> [receipt]
    shutdown()                    -> [receipt]; then the supervisor ends

Event ``exited``: {slot, pid, exit_code, signal, error, traceback, expected}.
The connection's end is a request to stop all with the default grace.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import trio

from creamas_sc.errors import BadArguments, CallRefused
from creamas_sc.wire.codec import Codec, Payload
from creamas_sc.wire.connection import Connection, Request
from creamas_sc.wire.frames import FrameReader
from creamas_sc.wire.streams import ConnectedStream
from supervisor import seam
from supervisor.bounds import SWEEP_PATIENCE_SECONDS
from supervisor.processes import open_zygote
from supervisor.service import Service
from supervisor.slots import Told

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
        seam.open_tree(zygote) as tree,
        tree.open_simulation() as simulation,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(_mind_keeper, keeper_pidfd, zygote_pid)
        front = _Front(ConnectedStream(control))
        front.service = Service(simulation, nursery, front.tell_exit)
        nursery.start_soon(front.mind_signals)
        await front.serve(zygote.script_gone)
        nursery.cancel_scope.cancel()


async def _mind_keeper(keeper_pidfd: int, zygote_pid: int) -> None:
    """Wake a stopped zygote when the keeper is gone: its sweep must find what was forked away."""
    await trio.lowlevel.wait_readable(keeper_pidfd)
    await trio.sleep(SWEEP_PATIENCE_SECONDS)  # a running zygote has killed this process by now
    os.kill(zygote_pid, signal.SIGCONT)


class _Front:
    """The control connection's dispatch."""

    service: Service

    def __init__(self, stream: ConnectedStream) -> None:
        self._codec = Codec()
        self._stream = stream
        self._over = trio.Event()
        self._connection = Connection(
            stream,
            self._dispatch,
            codec=self._codec,
            reader=FrameReader(MAX_FRAME_BYTES),
            name="the script",
        )

    async def serve(self, script_gone: trio.Event) -> None:
        """Answer calls until the peer goes, or asks for the end; then stop all actors."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._connection.run)
            await seam.first_of(self._over, self._stream.ended, script_gone)
            # Beside the calls that the connection's end cancels, not after them.
            await self.service.close()
            await self._connection.aclose()

    async def mind_signals(self) -> None:
        """SIGTERM is a request to end all."""
        with trio.open_signal_receiver(signal.SIGTERM) as received:
            async for _ in received:
                self._over.set()

    def tell_exit(self, told: Told) -> None:
        """Post the event of an actor's end."""
        self._connection.post("exited", self._codec.encode(told))

    def _dispatch(self, request: Request) -> Awaitable[Payload]:
        methods: Mapping[str, Callable[..., Awaitable[Any]]] = {
            "start": self.service.start,
            "stop": self.service.stop,
            "shutdown": self._shutdown,
        }
        method = methods.get(request.method)
        if method is None:
            raise CallRefused(f"the supervisor has no method {request.method}")
        return self._call(method, request)

    async def _call(self, method: Callable[..., Awaitable[Any]], request: Request) -> Payload:
        args, kwargs = self._codec.decode(request.payload)
        try:
            answer = method(*args, **kwargs)
        except TypeError as error:
            raise BadArguments(str(error)) from error
        return self._codec.encode(await answer)

    async def _shutdown(self) -> list[Told]:
        receipts = await self.service.close()
        self._over.set()
        return receipts

"""A stream over a socket that is connected already; on trio only, and at its lowest level.

It takes fewer trips to the scheduler than anyio's own socket streams, and lets the connection write
to the socket directly. `TRIO_LOOP` is what a connection needs of trio besides.
"""

from __future__ import annotations

import math
import socket
import struct
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Self

import anyio
import trio
from anyio.abc import ByteStream, SocketAttribute

from creamas_sc.rpc.loops import Loop
from creamas_sc.runtime.peer_user import stranger

# Fewer trips for a large message; the kernel takes less where its own limit is lower.
SEND_BUFFER_BYTES = 1 << 20
# A machine that has not answered for so long is cut off or has crashed. While nothing is under way
# the kernel asks it, after some seconds and again.
UNHEARD_SECONDS = 10
_ASK_AFTER_SECONDS, _ASK_AGAIN_SECONDS, _ASKED = 4, 2, 3
# Of the kernel's struct tcp_info: how often it has sent again what was not acknowledged, how many
# segments were not, and the milliseconds since the last acknowledgement.
_TCP_INFO = struct.Struct("=2xB21xI28xI")


class TrioWaiter:
    """An event for one task; it costs a third of trio's own."""

    __slots__ = ("_set", "_task", "answer")

    def __init__(self) -> None:
        self.answer: Any = None
        self._set = False
        self._task: trio.lowlevel.Task | None = None

    def is_set(self) -> bool:
        return self._set

    def set(self) -> None:
        self._set = True
        task, self._task = self._task, None
        if task is not None:
            trio.lowlevel.reschedule(task)

    async def wait(self) -> None:
        if self._set:
            await trio.lowlevel.checkpoint()
        else:
            self._task = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._abort)

    def _abort(self, _: Any) -> trio.lowlevel.Abort:
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED


def effective_deadline(task: trio.lowlevel.Task | None = None) -> float:
    """As `trio.current_effective_deadline`, which takes four times as long; of any task.

    Trio makes three calls for each of the dozen scopes around an agent's act: 3 us of a call that
    takes 30. This is its algorithm, on its private names, and tests compare the two.
    """
    status: Any = (task or trio.lowlevel.current_task())._cancel_status
    if status.effectively_cancelled:
        return -math.inf
    deadline = math.inf
    while status is not None:
        scope = status._scope
        if scope._deadline < deadline:
            deadline = scope._deadline
        if scope._shield:
            break
        status = status._parent
    return deadline


_checkpoint = trio.lowlevel.cancel_shielded_checkpoint()  # noqa: ASYNC105 - to see what it yields
TRIO_LOOP = Loop(TrioWaiter, _checkpoint.send(None), effective_deadline)


class ConnectedStream(ByteStream):
    """A stream over a connected socket.

    Args:
        sock: Owned by the stream.
        large: Whether to ask for a large send buffer, for a unix socket.

    Attributes:
        local: Whether both ends are on this machine, as a unix socket's are.
        ended: Set once the peer has gone, before the reader has dealt with it.
    """

    loop = TRIO_LOOP

    def __init__(self, sock: socket.socket, *, large: bool = False) -> None:
        self.ended = trio.Event()
        sock.setblocking(False)
        self.local = sock.family == socket.AF_UNIX
        if not self.local:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _ASK_AFTER_SECONDS)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _ASK_AGAIN_SECONDS)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _ASKED)
        elif large:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        self._raw = sock
        self._closed = False

    def stranger(self) -> str | None:
        """Who is at the other end of a unix socket, unless it is this process's user."""
        return stranger(self._raw) if self.local else None

    def is_unheard(self) -> bool:
        """Whether the peer's machine does not acknowledge what was sent, for `UNHEARD_SECONDS`.

        TCP_USER_TIMEOUT would say so as well of a peer that computes and reads nothing meanwhile.
        """
        if self._closed:
            return False
        info = self._raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
        repeated, unacknowledged, milliseconds = _TCP_INFO.unpack(info)
        silent = milliseconds >= UNHEARD_SECONDS * 1000
        return bool(repeated and unacknowledged and silent)

    @classmethod
    def adopt(cls, stream: trio.SocketStream) -> Self:
        """The same connection; ``stream`` must not be used any more."""
        raw = stream.socket
        sock = socket.socket(raw.family, raw.type, raw.proto, raw.detach())
        return cls(sock, large=True)

    def receive_into(self, buffer: memoryview) -> Coroutine[Any, Any, int]:
        """Read what has come into ``buffer``, which is not empty; return how many bytes."""
        return self.receive(into=buffer)

    async def receive(self, max_bytes: int = 65536, into: memoryview | None = None) -> Any:
        """Read what has come, at most ``max_bytes``."""
        raw = self._raw
        try:
            while True:
                if self._closed:
                    raise anyio.ClosedResourceError
                await trio.lowlevel.wait_readable(raw)
                try:
                    received = raw.recv(max_bytes) if into is None else raw.recv_into(into)
                except BlockingIOError:
                    continue
                if not received:
                    self.ended.set()
                    raise anyio.EndOfStream
                return received
        except trio.ClosedResourceError:
            raise anyio.ClosedResourceError from None
        except OSError as error:
            self.ended.set()
            raise anyio.BrokenResourceError from error

    async def send(self, item: bytes) -> None:
        """Write all of ``item``."""
        rest = memoryview(item)
        try:
            while True:
                if self._closed:
                    raise anyio.ClosedResourceError
                await trio.lowlevel.wait_writable(self._raw)
                try:
                    rest = rest[self._raw.send(rest) :]
                except BlockingIOError:
                    continue
                if not rest:
                    return
        except trio.ClosedResourceError:
            raise anyio.ClosedResourceError from None
        except OSError as error:
            raise anyio.BrokenResourceError from error

    async def send_eof(self) -> None:
        """Write no more."""
        try:
            self._raw.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise anyio.BrokenResourceError from error

    async def aclose(self) -> None:
        """Close the socket."""
        if not self._closed:
            self._closed = True
            trio.lowlevel.notify_closing(self._raw)
            self._raw.close()
        await trio.lowlevel.checkpoint()

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """The socket itself, to be written to directly."""
        return {SocketAttribute.raw_socket: lambda: self._raw}

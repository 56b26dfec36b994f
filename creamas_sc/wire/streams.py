"""An anyio stream over a connected socket that is there already."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from typing import Any

import anyio
import trio
from anyio.abc import ByteStream, SocketAttribute


class ConnectedStream(ByteStream):
    """What anyio's own socket streams are, for such a socket; on trio only.

    Attributes:
        ended: Set once the peer has gone, before whoever reads has dealt with it.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.ended = trio.Event()
        sock.setblocking(False)
        self._raw = sock
        self._stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Read what has come, at most ``max_bytes``."""
        try:
            data = await self._stream.receive_some(max_bytes)
        except trio.ClosedResourceError:
            raise anyio.ClosedResourceError from None
        except trio.BrokenResourceError as error:
            self.ended.set()
            raise anyio.BrokenResourceError from error
        if not data:
            self.ended.set()
            raise anyio.EndOfStream
        return bytes(data)

    async def send(self, item: bytes) -> None:
        """Write all of ``item``."""
        try:
            await self._stream.send_all(item)
        except trio.ClosedResourceError:
            raise anyio.ClosedResourceError from None
        except trio.BrokenResourceError as error:
            raise anyio.BrokenResourceError from error

    async def send_eof(self) -> None:
        """Write no more."""
        await self._stream.send_eof()

    async def aclose(self) -> None:
        """Close the socket."""
        await self._stream.aclose()

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """The socket itself, to be written to directly."""
        return {SocketAttribute.raw_socket: lambda: self._raw}

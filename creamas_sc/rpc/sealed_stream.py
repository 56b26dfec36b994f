"""A stream between machines, on which everything proves that it comes from the peer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from anyio.abc import ByteStream

from creamas_sc.rpc.socket_stream import TRIO_LOOP, ConnectedStream
from creamas_sc.wire.sealing import MAX_RECORD_BYTES, RecordKeys, RecordReader, RecordWriter


class SealedStream(ByteStream):
    """What `wire.sealing` says, over a connected stream that it owns.

    It has no raw socket, so a connection sends all through `send`, in one task.
    """

    loop = TRIO_LOOP

    def __init__(self, stream: ConnectedStream, keys: RecordKeys) -> None:
        self._stream = stream
        self._writer = RecordWriter(keys.sending)
        self._reader = RecordReader(keys.receiving)
        self._opened = b""

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Read what was proved, at most ``max_bytes``.

        Raises:
            ProtocolError: Something does not come from the peer.
        """
        while not self._opened:
            self._opened = self._reader.receive_data(await self._stream.receive(MAX_RECORD_BYTES))
        data, self._opened = self._opened[:max_bytes], self._opened[max_bytes:]
        return data

    async def send(self, item: bytes) -> None:
        """Write all of ``item``."""
        await self._stream.send(b"".join(self._writer.seal(item)))

    async def send_eof(self) -> None:
        """Write no more."""
        await self._stream.send_eof()

    async def aclose(self) -> None:
        """Close the socket."""
        await self._stream.aclose()

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """None: the socket must not be written to directly."""
        return {}

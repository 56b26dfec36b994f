"""Records that prove their sender: what follows the handshake on a network.

A handshake proves that both ends know the key, not that nobody sits between them: a relay can pass
it on, and then speak for either end. So the two ends derive keys from the simulation's key and all
that the handshake said, and every later record has a MAC under them::

    length of data (4) | MAC (16) | data

The MAC covers the record's number in its direction, so a record that is changed, left out, repeated
or moved is noticed. Records are not encrypted: who reads the network reads them.
"""

from __future__ import annotations

import hmac
import struct
from hashlib import blake2b
from typing import Final, NamedTuple

from creamas_sc.errors import ProtocolError

MAX_RECORD_BYTES: Final = 1 << 16
_LENGTH: Final = struct.Struct("!I")
_MAC_BYTES: Final = 16
_HEADER_BYTES: Final = _LENGTH.size + _MAC_BYTES


class RecordKeys(NamedTuple):
    """The keys of one end of a connection, 32 bytes each; the other end has them exchanged."""

    sending: bytes
    receiving: bytes


class _Numbered:
    """The MACs of one direction's records, in order."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._number = 0

    def mac(self, data: bytes | memoryview) -> bytes:
        state = blake2b(self._number.to_bytes(8, "big"), digest_size=_MAC_BYTES, key=self._key)
        state.update(data)
        self._number += 1
        return state.digest()


class RecordWriter:
    """Seals what is sent."""

    def __init__(self, key: bytes) -> None:
        self._macs = _Numbered(key)

    def seal(self, data: bytes) -> list[bytes | memoryview]:
        """The buffers of the records that carry ``data``."""
        buffers: list[bytes | memoryview] = []
        whole = memoryview(data).cast("B")
        for start in range(0, len(whole), MAX_RECORD_BYTES):
            piece = whole[start : start + MAX_RECORD_BYTES]
            buffers += [_LENGTH.pack(len(piece)) + self._macs.mac(piece), piece]
        return buffers


class RecordReader:
    """Takes what arrives, and gives out what was proved."""

    def __init__(self, key: bytes) -> None:
        self._macs = _Numbered(key)
        self._received = bytearray()

    def receive_data(self, data: bytes) -> bytes:
        """The data of the records that ``data`` completes.

        Raises:
            ProtocolError: A record is not the peer's next one.
        """
        received = self._received
        received += data
        opened = bytearray()
        start = 0
        while len(received) - start >= _HEADER_BYTES:
            (length,) = _LENGTH.unpack_from(received, start)
            if not 0 < length <= MAX_RECORD_BYTES:
                raise ProtocolError(
                    f"a record of {length} bytes: from 1 to {MAX_RECORD_BYTES} may be"
                )
            begin = start + _HEADER_BYTES
            if len(received) - begin < length:
                break
            piece = bytes(received[begin : begin + length])
            mac = bytes(received[start + _LENGTH.size : begin])
            if not hmac.compare_digest(mac, self._macs.mac(piece)):
                raise ProtocolError("a record does not come from the peer of the handshake")
            opened += piece
            start = begin + length
        del received[:start]
        return bytes(opened)

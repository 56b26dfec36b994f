"""Frames to bytes and back, without I/O.

A frame is a fixed header, the lengths of its parts, and then meta, body and parts::

    length u32 | kind u8 | pad u8 | meta length u16 | call id u32 | number of parts u32
    part lengths u32 ... | meta | body | parts

``length`` counts everything after the header; all numbers are big-endian. The parts are large
binary pieces (array data, long ``bytes``) which travel next to the body, so that neither side
copies them into or out of it.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from enum import IntEnum
from itertools import groupby
from typing import Final, NamedTuple, TypeAlias

from creamas_sc.errors import EncodeError, ProtocolError

Buffer: TypeAlias = bytes | bytearray | memoryview

MAX_FRAME_BYTES: Final = 256 * 2**20
"""Default limit of what follows a frame's header, in bytes."""
MAX_CONTROL_FRAME_BYTES: Final = 64 * 2**20
"""The same limit of what a daemon takes from a client that is not attached."""
HELLO_FRAME_BYTES: Final = 1024
"""The largest hello, in bytes."""
MAX_HANDSHAKE_BYTES: Final = 4096
"""The same limit before the handshake is done; it leaves room to refuse a hello with a reason."""
MAX_PARTS: Final = 1024

_HEADER: Final = struct.Struct("!IBxHII")
_MAX_META_BYTES: Final = 2**16 - 1
# Up to here one more copy costs less than one more write.
_JOIN_BYTES: Final = 16 * 2**10
# What an arriving part gets at first; from there on it doubles.
_GROWTH_BYTES: Final = 2**20


class Kind(IntEnum):
    """What a frame is for."""

    HELLO = 1
    REQUEST = 2
    REPLY = 3
    FAILURE = 4
    CANCEL = 5
    EVENT = 6


# Kind(number) costs ten times as much as a look-up.
_KINDS: Final = {int(kind): kind for kind in Kind}


class Frame(NamedTuple):
    """One frame, its fields in the order of `encode_frame`'s parameters.

    Parts that `FrameReader` returns are bytearrays of their own: aligned, and writable, so that
    an array may be built upon one.
    """

    kind: Kind
    call_id: int
    meta: bytes = b""
    body: bytes = b""
    parts: Sequence[Buffer] = ()


def encode_frame(
    kind: Kind,
    call_id: int,
    meta: bytes = b"",
    body: Buffer = b"",
    parts: Sequence[Buffer] = (),
) -> list[Buffer]:
    """Lay out a frame as buffers to be written in order; small ones are joined.

    Large bodies and parts are passed on as they are, not copied: they must not change until
    they are written.

    Raises:
        EncodeError: The frame is larger than `MAX_FRAME_BYTES`, or has more than `MAX_PARTS` parts
            or 65,535 bytes of meta.
    """
    if not parts:
        length = len(meta) + len(body)
        if length > MAX_FRAME_BYTES or len(meta) > _MAX_META_BYTES:
            _check_limits(length, len(meta), 0)
        head = _HEADER.pack(length, kind, len(meta), call_id, 0) + meta
        return [head + body] if len(body) <= _JOIN_BYTES else [head, body]
    flat = [_flat(part) for part in parts]
    table = struct.pack(f"!{len(flat)}I", *map(len, flat))
    length = len(table) + len(meta) + len(body) + sum(map(len, flat))
    _check_limits(length, len(meta), len(flat))
    head = _HEADER.pack(length, kind, len(meta), call_id, len(flat)) + table + meta
    joined: list[Buffer] = []
    for small, run in groupby([head, body, *flat], lambda buffer: len(buffer) <= _JOIN_BYTES):
        pieces = list(run)
        joined += [b"".join(pieces)] if small else pieces
    return joined


def _check_limits(length: int, meta: int, parts: int) -> None:
    if length > MAX_FRAME_BYTES:
        raise EncodeError(f"a frame of {length} bytes is over the limit of {MAX_FRAME_BYTES}")
    if meta > _MAX_META_BYTES:
        raise EncodeError(f"{meta} bytes of meta are over the limit of {_MAX_META_BYTES}")
    if parts > MAX_PARTS:
        raise EncodeError(f"a frame of {parts} parts is over the limit of {MAX_PARTS}")


def _flat(part: Buffer) -> Buffer:
    """The part such that ``len`` counts bytes."""
    if isinstance(part, memoryview) and (part.itemsize != 1 or part.ndim != 1):
        return part.cast("B") if part.nbytes else b""
    return part


class _Filling:
    """A frame whose parts are still arriving, each into its own buffer."""

    def __init__(self, kind: Kind, call_id: int, head: bytes, meta: int, sizes: Sequence[int]):
        self._parts = [bytearray() for _ in sizes]
        self.frame = Frame(kind, call_id, head[:meta], head[meta:], self._parts)
        self._missing = [(n, size) for n, size in enumerate(sizes) if size][::-1]
        # Of the buffer that is being filled: how many bytes have come.
        self._filled = 0

    @property
    def complete(self) -> bool:
        return not self._missing

    @property
    def missing_bytes(self) -> int:
        return sum(size for _, size in self._missing) - self._filled

    def room(self) -> memoryview:
        """Memory for the next bytes; to be released before anything else is done here."""
        number, size = self._missing[-1]
        part = self._parts[number]
        if not part:
            # Not all at once: a size that is only announced takes little memory.
            part = self._parts[number] = bytearray(min(size, _GROWTH_BYTES))
        elif self._filled == len(part):
            part += bytes(min(size, 2 * len(part)) - len(part))
        return memoryview(part)[self._filled :]

    def advance(self, count: int) -> None:
        """``count`` bytes have come into `room`."""
        self._filled += count
        if self._filled == self._missing[-1][1]:
            self._missing.pop()
            self._filled = 0

    def fill(self, data: bytes, start: int) -> int:
        """Take what belongs to the parts from ``data[start:]``; return where the rest starts."""
        view = memoryview(data)
        while self._missing and start < len(data):
            with self.room() as room:
                taken = min(len(room), len(data) - start)
                room[:taken] = view[start : start + taken]
            self.advance(taken)
            start += taken
        return start


class FrameReader:
    """Turns a stream's chunks into frames; holds at most one unfinished frame.

    Attributes:
        max_frame_bytes: The largest ``length`` accepted; may be raised after the handshake.
        filling: The frame whose parts are arriving, if any: the next bytes belong into its
            ``room()``, which must be released, and `filled` be called, before anything else.
    """

    def __init__(self, max_frame_bytes: int = MAX_FRAME_BYTES) -> None:
        self.max_frame_bytes = max_frame_bytes
        self._rest = bytearray()
        self._wanted = _HEADER.size  # Bytes which the rest must hold to be worth a look.
        self.filling: _Filling | None = None
        self._error: str | None = None

    @property
    def missing_bytes(self) -> int:
        """How many bytes the next frame lacks, as far as is known.

        A driver that reads no more than that at a time never reads beyond the frame.
        """
        if self.filling is not None:
            return self.filling.missing_bytes
        return self._wanted - len(self._rest)

    def filled(self, count: int) -> list[Frame]:
        """``count`` bytes, at least 1, have been read into the room of ``filling``.

        Returns:
            The frame that they complete, if they do.
        """
        filling = self.filling
        assert filling is not None
        filling.advance(count)
        if not filling.complete:
            return []
        self.filling = None
        self._wanted = _HEADER.size
        return [filling.frame]

    def receive_data(self, data: Buffer) -> list[Frame]:
        """Take the stream's next bytes and return the frames that they complete.

        Frames before a broken one are returned first: the next call raises, or, if the limit was
        raised in between, goes on. It may be given no bytes.

        Raises:
            ProtocolError: The bytes are no frames: unknown kind, over the limit, lengths that do
                not add up. Such a stream has no next frame: every later call raises as well.
        """
        if self._error is not None:
            raise ProtocolError(self._error)
        data = bytes(data)
        if self._rest:
            self._rest += data
            # Looked at only when there is enough, so that a large frame is not copied per chunk.
            if len(self._rest) < self._wanted:
                return []
            data = bytes(self._rest)
            self._rest.clear()
        frames: list[Frame] = []
        start, total = 0, len(data)
        try:
            while True:
                if self.filling is not None:
                    start = self.filling.fill(data, start)
                    if not self.filling.complete:
                        return frames
                    frames.append(self.filling.frame)
                    self.filling = None
                if total - start < _HEADER.size:
                    self._wanted = _HEADER.size
                    break
                length, number, meta, call_id, parts = _HEADER.unpack_from(data, start)
                kind = _KINDS.get(number)
                if kind is None or length > self.max_frame_bytes or parts or meta > length:
                    end = self._read_head(data, start)
                    if not end:
                        break
                    start = end
                    continue
                head = start + _HEADER.size
                end = head + length
                if total < end:
                    self._wanted = end - start
                    break
                middle = head + meta
                frames.append(Frame(kind, call_id, data[head:middle], data[middle:end], []))
                start = end
        except ProtocolError as error:
            if not frames:
                self._error = str(error)
                self._rest.clear()
                raise
            self._wanted = _HEADER.size  # the frames before it first
        if start < total:
            self._rest += data[start:] if start else data
        return frames

    def _read_head(self, data: bytes, start: int) -> int:
        """Read a frame up to its parts, or say what is wrong with it."""
        length, number, meta, call_id, count = _HEADER.unpack_from(data, start)
        kind = _KINDS.get(number)
        if kind is None:
            raise ProtocolError(f"not a frame: unknown kind {number}")
        if length > self.max_frame_bytes:
            limit = self.max_frame_bytes
            raise ProtocolError(f"a frame of {length} bytes is over the limit of {limit}")
        if count > MAX_PARTS:
            raise ProtocolError(f"a frame of {count} parts is over the limit of {MAX_PARTS}")
        if 4 * count + meta > length:
            raise ProtocolError("a frame's lengths do not add up")
        self._wanted = _HEADER.size + 4 * count
        if len(data) - start < self._wanted:
            return 0
        sizes = struct.unpack_from(f"!{count}I", data, start + _HEADER.size)
        head = start + self._wanted
        self._wanted += length - 4 * count - sum(sizes)
        end = start + self._wanted
        if end < head + meta:
            raise ProtocolError("a frame's lengths do not add up")
        if len(data) < end:
            return 0
        self.filling = _Filling(kind, call_id, data[head:end], meta, sizes)
        return end

"""Frames: layout, limits, and what a reader makes of bytes that are none."""

from __future__ import annotations

import struct
import tracemalloc

import pytest

from creamas_sc.errors import EncodeError, ProtocolError
from creamas_sc.wire.frames import _GROWTH_BYTES, MAX_PARTS, Frame, FrameReader, Kind, encode_frame


def wire(*args: object, **kwargs: object) -> bytes:
    return b"".join(map(bytes, encode_frame(*args, **kwargs)))  # type: ignore[arg-type]


def header(
    length: int = 0, kind: int = 2, meta: int = 0, call_id: int = 1, parts: int = 0
) -> bytes:
    return struct.pack("!IBxHII", length, kind, meta, call_id, parts)


def test_layout() -> None:
    data = wire(Kind.REQUEST, 7, b"me", b"body", [b"one", b"three"])
    table = struct.pack("!II", 3, 5)
    assert data == header(22, 2, 2, 7, 2) + table + b"me" + b"body" + b"one" + b"three"


@pytest.mark.parametrize("kind", Kind)
def test_every_kind_comes_back(kind: Kind) -> None:
    [frame] = FrameReader().receive_data(wire(kind, 2**32 - 1, b"m", b"b", [b"p", b""]))
    assert frame == Frame(kind, 2**32 - 1, b"m", b"b", [b"p", b""])
    assert type(frame.kind) is Kind


def test_empty_frame() -> None:
    assert wire(Kind.CANCEL, 3) == header(0, 5, 0, 3)
    assert FrameReader().receive_data(header(0, 5, 0, 3)) == [Frame(Kind.CANCEL, 3, b"", b"", [])]


def test_byte_by_byte() -> None:
    data = wire(Kind.REPLY, 1, b"m", b"body", [b"", b"part", b""]) + wire(Kind.EVENT, 0, b"e")
    reader = FrameReader()
    frames = [frame for byte in data for frame in reader.receive_data(bytes([byte]))]
    assert frames == [
        Frame(Kind.REPLY, 1, b"m", b"body", [b"", b"part", b""]),
        Frame(Kind.EVENT, 0, b"e", b"", []),
    ]
    assert reader.missing_bytes == 16


def test_a_stream_may_be_cut_anywhere() -> None:
    data = wire(Kind.REPLY, 1, b"m", b"body", [b"part"])
    for cut in range(1, len(data)):
        reader = FrameReader()
        assert reader.receive_data(data[:cut]) == []
        assert 0 < reader.missing_bytes <= len(data) - cut
        assert len(reader.receive_data(data[cut:])) == 1


def test_parts_are_writable_and_apart() -> None:
    [frame] = FrameReader().receive_data(wire(Kind.REPLY, 1, b"", b"", [b"abc", b"def"]))
    first, second = frame.parts
    first[0:1] = b"X"  # type: ignore[index]
    assert (first, second) == (b"Xbc", b"def")


def test_large_pieces_are_not_copied() -> None:
    body, part = bytes(2**20), bytearray(2**20)
    buffers = encode_frame(Kind.REPLY, 1, b"", body, [b"small", part])
    assert any(buffer is body for buffer in buffers)
    assert any(buffer is part for buffer in buffers)
    assert len(buffers) == 4  # head; body; the small part; the large part


def test_small_pieces_are_joined() -> None:
    assert len(encode_frame(Kind.REPLY, 1, b"m", b"b", [b"p", b"q"])) == 1


def test_memoryviews_count_bytes() -> None:
    view = memoryview(bytes(16)).cast("d")
    [frame] = FrameReader().receive_data(wire(Kind.REPLY, 1, b"", b"", [view, view[:0]]))
    assert frame.parts == [bytes(16), b""]


def test_sender_refuses_what_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("creamas_sc.wire.frames.MAX_FRAME_BYTES", 100)
    with pytest.raises(EncodeError, match=r"200 bytes .* limit of 100"):
        encode_frame(Kind.REPLY, 1, b"", bytes(200))
    monkeypatch.undo()
    with pytest.raises(EncodeError, match="parts"):
        encode_frame(Kind.REPLY, 1, b"", b"", [b""] * (MAX_PARTS + 1))
    with pytest.raises(EncodeError, match="meta"):
        encode_frame(Kind.REPLY, 1, bytes(2**16))


def test_most_parts() -> None:
    [frame] = FrameReader().receive_data(wire(Kind.REPLY, 1, b"", b"", [b"x"] * MAX_PARTS))
    assert len(frame.parts) == MAX_PARTS


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        header(kind=0),
        header(kind=7),
        header(length=2**32 - 1),
        header(length=4, meta=5),
        header(length=4 * (MAX_PARTS + 1), parts=MAX_PARTS + 1),
        header(length=7, parts=2),
        header(length=8, parts=1) + struct.pack("!I", 5),
        header(length=10, meta=3, parts=1) + struct.pack("!I", 4),
    ],
)
def test_broken_frames(data: bytes) -> None:
    reader = FrameReader(2**20)
    with pytest.raises(ProtocolError):
        reader.receive_data(data)
    with pytest.raises(ProtocolError):
        reader.receive_data(header())


def test_frames_before_a_broken_one_come_first() -> None:
    reader = FrameReader()
    assert len(reader.receive_data(wire(Kind.REPLY, 1, b"", b"abc") + header(kind=9))) == 1
    with pytest.raises(ProtocolError, match="unknown kind 9"):
        reader.receive_data(b"")


def test_limit_may_be_raised_between_frames() -> None:
    # As when the peer's first request arrives in one read with its last hello.
    reader = FrameReader(100)
    large = wire(Kind.REQUEST, 1, b"", bytes(200))
    assert len(reader.receive_data(wire(Kind.HELLO, 0, b"", b"x") + large)) == 1
    reader.max_frame_bytes = 1000
    [frame] = reader.receive_data(b"")
    assert len(frame.body) == 200


def test_the_limit_is_of_the_reader() -> None:
    data = wire(Kind.REPLY, 1, b"", bytes(101))
    with pytest.raises(ProtocolError, match="limit of 100"):
        FrameReader(100).receive_data(data)
    assert len(FrameReader(101).receive_data(data)) == 1


@pytest.mark.parametrize("piece", [1, 7, 1000, 1 << 20])
def test_parts_may_be_read_into_their_own_memory(piece: int) -> None:
    """As a socket is read: into the room that there is, and else into bytes."""
    parts = [b"a" * 10_000, b"", b"b" * 3000]
    sent = b"".join(
        bytes(buffer)
        for n in range(3)
        for buffer in encode_frame(Kind.REPLY, n, b"meta", b"body", parts)
    )
    reader, frames = FrameReader(), list[Frame]()
    while sent:
        if reader.filling is None:
            frames += reader.receive_data(sent[:piece])
            sent = sent[piece:]
            continue
        with reader.filling.room() as room:
            count = min(len(room), piece, len(sent))
            room[:count] = sent[:count]
        sent = sent[count:]
        frames += reader.filled(count)
    assert reader.missing_bytes == 16
    assert frames == [Frame(Kind.REPLY, n, b"meta", b"body", parts) for n in range(3)]


def test_memory_for_a_large_part_grows_as_it_comes() -> None:
    size = 10 * _GROWTH_BYTES + 17
    head, part = encode_frame(Kind.REPLY, 1, b"", b"", [bytes(size)])
    reader, held = FrameReader(), 0
    assert reader.receive_data(head) == []
    while reader.filling is not None:
        with reader.filling.room() as room:
            count = min(len(room), 100_000)
            assert held + len(room) <= max(2 * held, _GROWTH_BYTES)
        held += count
        frames = reader.filled(count)
    assert frames == [Frame(Kind.REPLY, 1, b"", b"", [part])]


def test_parts_that_are_only_announced_take_no_memory() -> None:
    parts = [bytes(_GROWTH_BYTES)] * 100
    head, *_ = encode_frame(Kind.REPLY, 1, b"", b"", parts)
    reader = FrameReader()
    tracemalloc.start()
    try:
        reader.receive_data(head)
        assert reader.filling is not None
        room = reader.filling.room()
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert room is not None
    room.release()
    assert held < 2 * _GROWTH_BYTES

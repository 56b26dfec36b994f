"""Records: what was sealed is opened, in whatever pieces it comes; anything else is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from creamas_sc.errors import ProtocolError
from creamas_sc.wire.sealing import MAX_RECORD_BYTES, RecordReader, RecordWriter

KEY, OTHER = b"k" * 32, b"o" * 32
HEADER_BYTES = 20


def sealed(*messages: bytes, key: bytes = KEY) -> bytes:
    writer = RecordWriter(key)
    return b"".join(b"".join(writer.seal(message)) for message in messages)


def opened(data: bytes, sizes: list[int]) -> bytes:
    """What a reader makes of ``data`` that arrives in pieces of ``sizes``, and then the rest."""
    reader, whole = RecordReader(KEY), b""
    for size in sizes:
        whole += reader.receive_data(data[:size])
        data = data[size:]
    return whole + reader.receive_data(data)


@given(st.lists(st.binary(max_size=300)), st.lists(st.integers(1, 400)))
def test_everything_arrives_in_any_pieces(messages: list[bytes], sizes: list[int]) -> None:
    assert opened(sealed(*messages), sizes) == b"".join(messages)


def test_large_messages_are_several_records() -> None:
    message = bytes(range(256)) * (MAX_RECORD_BYTES // 100)
    assert opened(sealed(message), [1 << 16] * 5) == message
    assert len(sealed(message)) == len(message) + HEADER_BYTES * 3


@given(st.lists(st.binary(min_size=1, max_size=50), min_size=1, max_size=5), st.data())
def test_a_changed_byte_opens_nothing_from_its_record_on(
    messages: list[bytes], data: st.DataObject
) -> None:
    whole = bytearray(sealed(*messages))
    position = data.draw(st.integers(0, len(whole) - 1))
    whole[position] ^= data.draw(st.integers(1, 255))
    reader, got = RecordReader(KEY), b""
    try:
        for byte in bytes(whole):
            got += reader.receive_data(bytes([byte]))
    except ProtocolError:
        pass
    sound, count = b"", 0
    for message in messages:
        count += HEADER_BYTES + len(message)
        if position < count:
            break
        sound += message
    assert got == sound


@pytest.mark.parametrize(
    "records",
    [
        sealed(b"a", b"b")[-HEADER_BYTES - 1 :],
        sealed(b"a") * 2,
        sealed(b"a", key=OTHER),
        b"\0" * HEADER_BYTES,
        b"\xff" * HEADER_BYTES,
    ],
    ids=["one left out", "one repeated", "another key", "empty", "too long"],
)
def test_what_the_peer_did_not_send_next(records: bytes) -> None:
    with pytest.raises(ProtocolError, match="a record"):
        RecordReader(KEY).receive_data(records)

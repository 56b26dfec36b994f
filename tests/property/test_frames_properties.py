"""However a stream is cut into chunks, the same frames come out of it."""

from __future__ import annotations

import itertools
from functools import partial

from hypothesis import strategies as st

from creamas_sc.errors import ProtocolError
from creamas_sc.wire.frames import Frame, FrameReader, Kind, encode_frame
from tests.support.properties import holds_for

pieces = st.one_of(st.binary(max_size=20), st.integers(0, 40_000).map(bytes))
frames = st.builds(
    Frame,
    st.sampled_from(Kind),
    st.integers(0, 2**32 - 1),
    st.binary(max_size=20),
    pieces,
    st.lists(pieces, max_size=4),
)

holds = partial(holds_for, few=75, many=400)


def wire(frame: Frame) -> bytes:
    return b"".join(map(bytes, encode_frame(*frame)))


def read(data: bytes, cuts: list[int]) -> tuple[list[Frame], bool]:
    """Frames of ``data`` cut at ``cuts``, and whether a protocol error ended them."""
    reader = FrameReader(2**20)
    found: list[Frame] = []
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    try:
        for start, end in itertools.pairwise(edges):
            found += reader.receive_data(data[start:end])
        found += reader.receive_data(b"")
    except ProtocolError:
        return found, True
    return found, False


@holds(st.lists(frames, max_size=5), st.lists(st.integers(0, 2**20), max_size=12))
def test_any_chunking_gives_the_same_frames(sent: list[Frame], cuts: list[int]) -> None:
    found, broken = read(b"".join(map(wire, sent)), cuts)
    assert not broken
    assert found == sent


@holds(
    st.lists(frames, max_size=3),
    st.lists(st.tuples(st.integers(0, 2**20), st.integers(0, 255)), min_size=1, max_size=4),
    st.lists(st.integers(0, 2**20), max_size=8),
)
def test_any_chunking_of_a_damaged_stream_ends_alike(
    sent: list[Frame], damage: list[tuple[int, int]], cuts: list[int]
) -> None:
    data = bytearray(b"".join(map(wire, sent)) or b"\0")
    for place, byte in damage:
        data[place % min(len(data), 64)] = byte
    assert read(bytes(data), cuts) == read(bytes(data), [])


@holds(st.binary(max_size=200))
def test_noise_is_refused_or_waited_upon(data: bytes) -> None:
    assert read(data, []) == read(data, list(range(len(data))))


@holds(st.lists(frames, max_size=5))
def test_who_reads_what_is_missing_reads_each_frame_alone(sent: list[Frame]) -> None:
    data = b"".join(map(wire, sent))
    reader = FrameReader()
    place = 0
    for frame in sent:
        found: list[Frame] = []
        while not found:
            missing = reader.missing_bytes
            assert missing > 0
            found = reader.receive_data(data[place : place + missing])
            place += missing
        assert found == [frame]
        assert reader.missing_bytes == 16
    assert place == len(data)

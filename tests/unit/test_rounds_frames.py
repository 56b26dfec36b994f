"""What arrives from the other environments of a step in rounds, before it is read."""

from __future__ import annotations

from typing import Any

from creamas_sc.rpc.rounds.frames import BUSY, IDLE, LEAVES, Frames, Piece, columns, event_name
from creamas_sc.wire.codec import Codec
from creamas_sc.wire.packing import LARGE_BYTES


def test_large_bytes_travel_out_of_band() -> None:
    large = bytes(LARGE_BYTES)
    call: Any = 0, 1, None, 1, "method", (large, 1), {}
    codec = Codec()
    payload = codec.encode(columns(0, Piece([call], [(2, large), (3, "small")])))
    assert [len(part) for part in payload.parts] == [len(large)] * 2
    frame = codec.decode(payload)
    assert frame[7][0] == [large, 1]
    assert frame[2] == [large, "small"]


def test_a_peer_may_leave_a_step_once_more_when_it_has_begun_the_next_one() -> None:
    frames = Frames()
    frames.begin(1)
    for step, payload in ((2, BUSY), (1, LEAVES), (2, IDLE)):
        assert frames.take("peer", event_name(step), payload) is None
    assert frames.begin(2) == []
    assert [frames.next("peer") for _ in range(3)] == [
        (False, BUSY, False),
        (False, IDLE, False),
        None,
    ]


def test_a_peer_that_has_left_a_step_may_have_begun_the_next_one() -> None:
    frames = Frames()
    frames.begin(1)
    for step, payload in ((1, LEAVES), (2, IDLE)):
        assert frames.take("peer", event_name(step), payload) is None
    assert frames.next("peer") is not None
    assert frames.next("peer") is None
    frames.lose("peer")
    frames.begin(2)
    assert frames.next("peer") == (False, IDLE, False)


def test_a_peer_that_has_begun_the_next_step_may_say_late_that_it_has_left_this_one() -> None:
    frames = Frames()
    frames.begin(1)
    for step, payload in ((2, IDLE), (1, LEAVES)):
        assert frames.take("peer", event_name(step), payload) is None
    assert frames.next("peer") == (False, LEAVES, False)
    assert frames.next("peer") is None
    frames.begin(2)
    assert frames.next("peer") == (False, IDLE, False)

"""What arrives from the other environments of a step in rounds, before it is read."""

from __future__ import annotations

from creamas_sc.rpc.rounds.frames import BUSY, IDLE, LEAVES, Frames, event_name


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

"""Which agents each slave takes up."""

from __future__ import annotations

import sys

from creamas_sc.mp.checkpoint_parts import assign
from creamas_sc.rpc.rounds.order import Order

LATER = sys.maxsize  # begins the number of an agent that nothing spawned


def test_as_many_slaves_take_up_what_each_had() -> None:
    assert assign([[3, 0], [1]], 2) == [[(0, 0), (0, 1)], [(1, 0)]]


def test_other_slaves_take_agents_by_their_numbers() -> None:
    assert assign([[0, 2], [1, 3]], 1) == [[(0, 0), (1, 0), (0, 1), (1, 1)]]
    assert assign([[0, 1, 2, 3]], 3) == [[(0, 0), (0, 3)], [(0, 1)], [(0, 2)]]


def test_agents_stay_with_the_one_that_made_them() -> None:
    numbers: list[list[Order]] = [[0, (0, 0), (0, 1), (LATER, 1, 4)], [1, (1, 0), (1, 0, 0), (LATER, 2, 4)]]
    first, second = assign(numbers, 2 + 1)[:2]
    assert first == [(0, 0), (0, 1), (0, 2), (1, 3)]
    assert second == [(1, 0), (1, 1), (1, 2)]

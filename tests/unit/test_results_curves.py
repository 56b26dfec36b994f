"""Curves: values by step in a limited space."""

from __future__ import annotations

import math
from typing import Any

from creamas_sc.results.curves import Curve
from creamas_sc.results.weights import weight


def test_few_steps_are_all_there() -> None:
    curve = Curve()
    for step in (1, 2, 5):
        curve.add(step, step * 10.0)
    assert (curve.width, curve.last) == (1, 5)
    assert curve.coarse(1) == {0: 10.0, 1: 20.0, 4: 50.0}


def test_values_of_one_step_are_their_mean() -> None:
    curve = Curve()
    curve.add(1, 1.0)
    curve.add(1, 2.0)
    assert curve.coarse(1) == {0: 1.5}


def test_many_steps_are_means_of_some() -> None:
    curve = Curve(buckets=4)
    for step in range(1, 11):
        curve.add(step, step)
    assert (curve.width, curve.last) == (4, 10)
    assert curve.coarse(4) == {0: 2.5, 1: 6.5, 2: 9.5}
    assert curve.coarse(8) == {0: 4.5, 1: 9.5}


def test_its_space_is_limited_wherever_it_begins() -> None:
    curve = Curve(buckets=64)
    for step in (1_000_000, 1, 999_999):
        curve.add(step, 7.0)
    assert len(curve.coarse(curve.width)) <= 64
    assert curve.coarse(curve.width) == {0: 7.0, 999_999 // curve.width: 7.0}


def test_the_width_for_so_many_points() -> None:
    curve = Curve()
    for step in range(1, 101):
        curve.add(step, 1.0)
    assert [curve.width_for(points) for points in (100, 50, 49, 10, 1)] == [1, 2, 4, 16, 128]


def test_what_is_no_value() -> None:
    curve = Curve()
    for step, value in ((0, 1.0), (-1, 1.0), (1, math.nan), (1, math.inf)):
        curve.add(step, value)
    assert (curve.last, curve.coarse(1)) == (0, {})


def test_weights() -> None:
    assert [weight(data) for data in (2, 0.5, -1.0)] == [2.0, 0.5, -1.0]
    assert weight({"weight": 3, "age": 7}) == 3.0
    assert weight({"attitude": -0.5, "kind": "friend", "old": True}) == -0.5
    nothing: Any = (None, "2", True, {}, {"weight": "x", "age": 2}, {"a": 2, "b": 3}, [2])
    for data in (*nothing, math.nan, 10**400):
        assert weight(data) == 1.0

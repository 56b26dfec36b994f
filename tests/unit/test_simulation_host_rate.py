"""How fast the steps are, over the window."""

from __future__ import annotations

from creamas_sc.simulation_host.stepper import MARK_SECONDS, WINDOW_SECONDS, RateMeter


def test_unknown_before_the_first_step() -> None:
    meter = RateMeter(10.0)
    assert meter.per_second() == (None, None)


def test_steps_longer_than_the_window() -> None:
    meter = RateMeter(0.0)
    for i in range(1, 5):
        meter.count(60.0 * i, 600)
    assert meter.per_second() == (1 / 60, 10)


def test_only_the_window_counts() -> None:
    meter = RateMeter(0.0)
    now = 0.0
    for seconds, acts in [(0.01, 1)] * 1000 + [(0.01, 5)] * 1000:
        now += seconds
        meter.count(now, acts)
    assert [round(rate or 0) for rate in meter.per_second()] == [100, 500]


def test_marks_are_few_however_fast_the_steps() -> None:
    meter = RateMeter(0.0)
    for i in range(100_000):
        meter.count(i / 10_000, 1)
    assert len(meter._marks) < 2 * WINDOW_SECONDS / MARK_SECONDS
    assert round(meter.per_second()[0] or 0, -2) == 10_000

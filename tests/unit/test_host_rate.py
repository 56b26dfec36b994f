"""How fast the steps are, over the window."""

from __future__ import annotations

from creamas_sc.host.rate import MARK_SECONDS, WINDOW_SECONDS, Pace


def test_unknown_before_the_first_step() -> None:
    pace = Pace(10.0)
    assert pace.steps_per_second is None
    assert pace.acts_per_second is None


def test_steps_longer_than_the_window() -> None:
    pace = Pace(0.0)
    for i in range(1, 5):
        pace.count(60.0 * i, 600)
    assert pace.steps_per_second == 1 / 60
    assert pace.acts_per_second == 10


def test_only_the_window_counts() -> None:
    pace = Pace(0.0)
    now = 0.0
    for seconds, acts in [(0.01, 1)] * 1000 + [(0.01, 5)] * 1000:
        now += seconds
        pace.count(now, acts)
    assert round(pace.acts_per_second or 0) == 500
    assert round(pace.steps_per_second or 0) == 100


def test_marks_are_few_however_fast_the_steps() -> None:
    pace = Pace(0.0)
    for i in range(100_000):
        pace.count(i / 10_000, 1)
    assert len(pace._marks) < 2 * WINDOW_SECONDS / MARK_SECONDS
    assert round(pace.steps_per_second or 0, -2) == 10_000

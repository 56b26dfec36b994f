"""The progress bar, on a stream that pretends to be a terminal."""

from __future__ import annotations

import io
from collections.abc import Iterator
from itertools import count
from types import SimpleNamespace

import pytest

from creamas_sc.runtime import progress
from creamas_sc.runtime.progress import with_progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Standard error; a second passes between any two looks at the clock."""
    ticks: Iterator[int] = count()
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: next(ticks)))
    stream = Terminal()
    monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=stream))
    return stream


def drawn(terminal: Terminal) -> list[str]:
    return [line.rstrip() for line in terminal.getvalue().split("\r")[1:]]


def test_each_step_is_shown(terminal: Terminal) -> None:
    assert list(with_progress(3)) == [0, 1, 2]
    assert drawn(terminal) == [
        "[..............................] step 0/3 in 0:00",
        "[##########....................] step 1/3 in 0:01, 0:02 left",
        "[####################..........] step 2/3 in 0:02, 0:01 left",
        "[##############################] step 3/3 in 0:03",
    ]
    assert terminal.getvalue().endswith("\n")


def test_two_steps_are_many(terminal: Terminal) -> None:
    assert list(with_progress(2)) == [0, 1]
    assert len(drawn(terminal)) == 3


def test_long_times(terminal: Terminal) -> None:
    assert progress._line(1, 2, 3725.0).rstrip().endswith("in 1:02:05, 1:02:05 left")


def test_fast_steps_are_not_all_drawn(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: 0.0))
    assert len(list(with_progress(1000))) == 1000
    assert len(drawn(terminal)) == 2, "the first and the last"


def test_a_pause_between_two_drawings(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = count()
    clock = SimpleNamespace(monotonic=lambda: next(ticks) * 0.06)
    monkeypatch.setattr(progress, "time", clock)
    assert list(with_progress(9))
    assert len(drawn(terminal)) == 6, "every second one, the first and the last"


def test_the_line_ends_when_a_step_fails(terminal: Terminal) -> None:
    def steps() -> None:
        for step in with_progress(3):
            if step == 1:
                raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        steps()
    assert drawn(terminal)[-1].startswith("[##########....")
    assert terminal.getvalue().endswith("\n")


@pytest.mark.parametrize(("n", "shown"), [(0, True), (1, True), (3, False)])
def test_nothing_is_shown_for_one_step_or_when_asked(
    terminal: Terminal, n: int, shown: bool
) -> None:
    assert list(with_progress(n, shown)) == list(range(n))
    assert terminal.getvalue() == ""


@pytest.mark.parametrize("stream", [None, io.StringIO()])
def test_nothing_is_shown_but_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, stream: io.StringIO | None
) -> None:
    monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=stream))
    assert list(with_progress(3)) == [0, 1, 2]
    assert stream is None or stream.getvalue() == ""

"""A live view in a notebook's cell: progress, a metric, the last artifacts. It ends with the run.

For steps that a cell takes itself::

    from creamas_sc.notebooks import show_steps

    for step in show_steps(menv, 100):
        run(menv.trigger_all())

`creamas_sc.Simulation` does the same by itself, in ``async_steps(100)`` say. To follow a simulation
in a daemon until its steps are done::

    from creamas_sc.notebooks import show_simulation

    colours = connect_sync().attach("colours")
    colours.start_steps(1000)
    show_simulation(colours)    # "Interrupt" leaves it; the simulation goes on

The view is drawn by the cell itself, a few times a second, and nothing of it runs on afterwards: a
saved notebook has what was shown last. Outside of a notebook, `show_steps` only counts.
"""

from __future__ import annotations

import math
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from importlib import import_module
from typing import Any

from creamas_sc import results
from creamas_sc.errors import BadValue, CreamasError, DeadlineExceeded
from creamas_sc.foreign import shorten
from creamas_sc.runtime import html

__all__ = ["show_simulation", "show_steps"]

# How often the view is drawn again.
EVERY_SECONDS = 0.5
# How many of the last values are drawn, and in which size, in pixels.
VALUES = 200
WIDTH, HEIGHT = 240, 36
# A name of a record's metric, or a function of the environment.
Metric = str | Callable[[Any], float] | None


def in_notebook() -> bool:
    """Whether what is displayed appears in a cell, which can be updated."""
    ipython: Any = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return shell is not None and hasattr(shell, "kernel")


def show_steps(env: Any, n: int, *, metric: Metric = None, artifacts: int = 3) -> Iterator[int]:
    """Count ``n`` steps that the loop's body takes, and show how they go in the notebook's cell.

    Args:
        env: The `Environment` or `MultiEnvironment` that is stepped.
        metric: What to draw: a name of what its record has, or a function of ``env`` that returns
            a number. By default the record's first metric, or the number of artifacts.
        artifacts: How many of the last artifacts to show.

    Yields:
        The numbers of the steps, from 1 on.
    """
    if not in_notebook():
        yield from range(1, n + 1)
        return
    view, series = _View(), _Series(metric, getattr(env, "_recording", None))
    began, step = time.monotonic(), 0

    def draw(now: bool, state: str) -> None:
        if not view.is_due and not now:
            return
        seconds = time.monotonic() - began
        rate = step / seconds if seconds > 0 else None
        left = (n - step) / rate if rate else None
        name, values = series.latest()
        there = env.artifacts
        last = there[len(there) - min(artifacts, len(there)) :] if artifacts else []
        view.draw(_progress(type(env).__name__, state, step, n, rate, left),
                  _curve(name, values), _gallery(last, len(there)))  # fmt: skip

    try:
        draw(True, "stepping")
        for step in range(1, n + 1):
            yield step
            series.note(env)
            draw(False, "stepping")
    finally:  # also where the body has raised, or broken out of the loop
        draw(True, "done" if step == n and series.noted == n else "stopped")


def show_simulation(simulation: Any, *, metric: str | None = None, artifacts: int = 3) -> None:
    """Show in the notebook's cell how an attached simulation steps, until its steps are done.

    Args:
        metric: What to draw of what its record has; its first metric by default.
        artifacts: How many of the last artifacts to show.

    Raises:
        CreamasError: This is not a notebook; or the simulation has ended.
    """
    if not in_notebook():
        raise CreamasError(
            "show_simulation draws in a notebook's cell; on a terminal use creamas-supervisor "
            f"attach {simulation.name}, or top"
        )
    host = simulation._client.inspect(simulation.name)["host"] or {}
    view, series = _View(), _Series(metric, host.get("record"))
    name, state = simulation.name, ""

    def draw(progress: Mapping[str, Any], said: str = "") -> None:
        total = progress["artifacts"]
        steps = progress["steps_per_second"], progress["seconds_left"]
        line = _progress(name, said or progress["state"], progress["step"], progress["of"], *steps)
        error = f"<div>{escape(progress['error'])}</div>" if progress["error"] else ""
        view.draw(line + error, _curve(*series.latest()),
                  _gallery(_last_artifacts(simulation, total, artifacts), total))  # fmt: skip

    progress = simulation.progress()
    try:
        while state != progress["state"] or progress["state"] == "stepping":
            draw(progress)
            state = progress["state"]
            try:
                progress = simulation.wait_steps(EVERY_SECONDS)
            except DeadlineExceeded:
                progress = simulation.progress()
    except KeyboardInterrupt:
        draw(simulation.progress(), "left; the simulation goes on")
        raise


def _last_artifacts(simulation: Any, total: int, number: int) -> Sequence[Any] | CreamasError:
    if not number:
        return []
    try:
        found: list[Any] = simulation.get_artifacts(since=max(0, total - number), limit=number)
        return found
    except CreamasError as error:  # their classes are not known here, say
        return error


# ---- what is drawn


class _View:
    """One output of the cell, drawn again and again."""

    def __init__(self) -> None:
        self._display: Any = import_module("IPython.display").display
        self._handle: Any = None
        self._drawn_at = -math.inf

    @property
    def is_due(self) -> bool:
        """Whether it was drawn long enough ago."""
        return time.monotonic() - self._drawn_at >= EVERY_SECONDS

    def draw(self, *parts: str) -> None:
        """Draw parts, which are HTML, in place of those before."""
        data = {"text/html": "".join(f"<div>{part}</div>" for part in parts if part)}
        if self._handle is None:
            self._handle = self._display(data, raw=True, display_id=True)
        else:
            self._handle.update(data, raw=True)
        self._drawn_at = time.monotonic()


class _Series:
    """The values of a metric so far.

    Args:
        recording: Of an environment, or the path of its file, if there is one.

    Attributes:
        noted: How many steps there were.
    """

    def __init__(self, metric: Metric, recording: Any) -> None:
        self.noted = 0
        self._metric = metric
        self._recording = recording
        self._values: deque[float] = deque(maxlen=VALUES)

    def note(self, env: Any) -> None:
        """Note the value after a step."""
        self.noted += 1
        value = self._metric(env) if callable(self._metric) else len(env.artifacts)
        self._values.append(float(value))

    def latest(self) -> tuple[str, Sequence[float]]:
        """Name and last values of what is to be drawn."""
        if callable(self._metric):
            return getattr(self._metric, "__name__", "metric"), self._values
        recorded = _recorded(self._recording)
        name = self._metric or next(iter(recorded), None)
        if name is None:
            return "artifacts", self._values
        return name, recorded.get(name, [])


def _recorded(recording: Any) -> dict[str, list[float]]:
    path = getattr(recording, "path", recording)
    if path is None:
        return {}
    try:
        found = results.open(path).latest_metrics(VALUES)
    except (OSError, BadValue):  # it is only beginning
        return {}
    return {
        name: [float(value) for _, value in values if isinstance(value, (int, float))]
        for name, values in found.items()
    }


def _progress(
    name: str, state: str, step: int, of: int | None, rate: float | None, left: float | None
) -> str:
    parts = [state, f"step {step:,}" + ("" if of is None else f" of {of:,}")]
    parts += [] if rate is None else [f"{rate:.3g} steps/s"]
    parts += [] if not left else [f"{_clock(left)} left"]
    bar = "" if not of else f'<br><progress value="{step}" max="{of}"></progress>'
    return f"<b>{escape(name)}</b> {escape(', '.join(parts))}{bar}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _curve(name: str, values: Sequence[float]) -> str:
    """A name, the last value, and a line of all of them."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return ""
    low, span = min(finite), (max(finite) - min(finite)) or 1.0
    width = max(len(finite) - 1, 1)
    points = " ".join(
        f"{WIDTH * place / width:.1f},{HEIGHT - 2 - (HEIGHT - 4) * (value - low) / span:.1f}"
        for place, value in enumerate(finite)
    )
    return (
        f"{escape(name)} {html.cell(finite[-1])}<br>"
        f'<svg width="{WIDTH}" height="{HEIGHT}" role="img">'
        f'<polyline points="{points}" fill="none" stroke="currentColor"/></svg>'
    )


def _gallery(artifacts: Sequence[Any] | CreamasError, total: int) -> str:
    if isinstance(artifacts, CreamasError):
        why = shorten(" ".join(str(artifacts).split()), 200)
        return escape(f"{total:,} artifacts, which cannot be shown here: {why}")
    rows = [[artifact.creator, artifact.obj] for artifact in artifacts]
    if not rows:
        return ""
    return html.table(("by", "artifact"), reversed(rows), f"the last of {total:,} artifacts")

"""How a simulation's progress is shown: a live picture, plain lines, JSON lines, or the result."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Self

from creamas_sc.foreign import printable
from supervisor.cli.output import clock, count, out, out_json

if TYPE_CHECKING:
    from rich.console import RenderableType

LINE_SECONDS = 1.0
# The duration of a step is shown once it takes longer than this.
SLOW_SECONDS = 5.0

Progress = Mapping[str, Any]


class Display:
    """Shows a simulation while it is entered; this one shows nothing.

    Attributes:
        for_programs: Whether it prints JSON.
    """

    for_programs = False

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        """Show what was held back, and stop."""

    def update(self, progress: Progress) -> None:
        """Show the current progress."""

    def event(self, name: str, details: Progress) -> None:
        """Show that something happened."""


class Result(Display):
    """The last progress only, once the block has ended without an error."""

    def __init__(self, name: str, json: bool) -> None:
        super().__init__(name)
        self.for_programs = json
        self._latest: Progress = {}

    def __exit__(self, *error: Any) -> None:
        if error[0] is not None:
            return
        if self.for_programs:
            out_json({"name": self._name, **self._latest}, indent=2)
        else:
            out(progress_line(self._name, self._latest))

    def update(self, progress: Progress) -> None:
        self._latest = dict(progress)


class JsonLines(Display):
    """A line of JSON for every change of the progress and every event."""

    for_programs = True
    _latest: Progress | None = None

    def update(self, progress: Progress) -> None:
        if progress != self._latest:
            self._latest = dict(progress)
            self.event("steps", progress)

    def event(self, name: str, details: Progress) -> None:
        out_json({"name": self._name, "event": name, **details})


class Plain(Display):
    """Lines of text; for the progress at most one a second, unless the state changes."""

    def __init__(self, name: str, now: Callable[[], float] = time.monotonic) -> None:
        super().__init__(name)
        self._now = now
        self._printed_at = -LINE_SECONDS
        self._printed = self._latest = self._state = ""

    def __exit__(self, *error: Any) -> None:
        self._print()

    def update(self, progress: Progress) -> None:
        self._latest = progress_line(self._name, progress)
        state, self._state = self._state, progress["state"]
        if state != self._state or self._now() - self._printed_at >= LINE_SECONDS:
            self._print()

    def event(self, name: str, details: Progress) -> None:
        out(f"{self._name}: {event_line(name, details)}")

    def _print(self) -> None:
        if self._latest != self._printed:
            self._printed, self._printed_at = self._latest, self._now()
            out(self._latest)


class Live(Display):
    """A picture on the terminal that changes; events are lines above it."""

    def __init__(self, name: str) -> None:
        from rich.console import Console
        from rich.live import Live

        super().__init__(name)
        self._live = Live(console=Console(highlight=False), auto_refresh=False)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._live.__exit__(*error)

    def update(self, progress: Progress) -> None:
        self._live.update(picture(self._name, progress), refresh=True)

    def event(self, name: str, details: Progress) -> None:
        line = printable(event_line(name, details))
        self._live.console.print(line, style="yellow", markup=False)


def picture(name: str, progress: Progress) -> RenderableType:
    """Return the two lines that `Live` shows."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    state, of = progress["state"], progress["of"]
    styles = {"stepping": "green", "failed": "red", "paused": "yellow"}
    cells: list[RenderableType] = [Text(name, "bold"), Text(state, styles.get(state, "dim"))]
    if steps := _steps(progress):
        cells.append(Text(steps))
    cells += [Text(part, "yellow") for part in _pausing(progress)]
    if of:
        cells.append(ProgressBar(total=of, completed=progress["step"]))
    cells += [Text(part) for part in _speed(progress)]
    grid = Table.grid(padding=(0, 2), expand=bool(of))
    for cell in cells:  # the bar gets the remaining width
        grid.add_column(no_wrap=True, ratio=1 if isinstance(cell, ProgressBar) else None)
    grid.add_row(*cells)
    below = Text("  ".join([*_contents(progress), "(Ctrl-C detaches)"]), "dim")
    error = printable(progress["error"])
    return Group(grid, below, *([Text(error, "red")] if error else ()))


def progress_line(name: str, progress: Progress) -> str:
    """Format the whole progress of a simulation in a line."""
    steps = _steps(progress)
    parts = [progress["state"], *([steps] if steps else ()), *_pausing(progress)]
    error = [f"error: {' '.join(progress['error'].split())}"] if progress["error"] else []
    return f"{name}: {', '.join([*parts, *_speed(progress), *_contents(progress), *error])}"


def event_line(name: str, details: Progress) -> str:
    """Format an event in a line."""
    match name:
        case "slave_lost":
            return f"lost: {details['cause']}"
        case "slave_restarted":
            return f"restarted a slave: {_restart(details)}"
        case "closing":
            return "is being closed"
        case "gap":
            return f"{count(details['lost'], 'event')} came too fast to be shown"
        case _:
            values = (f"{key} {value}" for key, value in details.items() if value is not None)
            return f"{name} {', '.join(values)}"


def _restart(details: Progress) -> str:
    parts = [f"{details['address']} (pid {details['pid']}), restart {details['number']}"]
    parts += [count(details[f"{noun}s"], noun) for noun in ("agent", "connection")]
    parts += [what.replace("_", " ") for what in ("host_manager", "checkpoint") if details[what]]
    return "; NOT restored: ".join([", ".join(parts), *details["failures"]])


def _steps(progress: Progress) -> str:
    step, of = progress["step"], progress["of"]
    seconds = progress.get("step_seconds") or 0.0
    slow = f" (the next has taken {clock(seconds)} so far)" if seconds > SLOW_SECONDS else ""
    if of is not None:
        return f"step {step:,} of {of:,}{slow}"
    return f"step {step:,}{slow}" if step or slow else ""


def _pausing(progress: Progress) -> list[str]:
    return ["pauses after this step"] if progress.get("pausing") else []


def _speed(progress: Progress) -> list[str]:
    speed, left = progress["acts_per_second"], progress["seconds_left"]
    parts = [] if speed is None else [f"{speed:,.0f} acts/s"]
    return parts if left is None else [*parts, f"{clock(left)} left"]


def _contents(progress: Progress) -> list[str]:
    nouns = ("agent", "slave", "artifact", "client")
    parts = [count(progress[f"{noun}s"], noun) for noun in nouns]
    if restarts := progress.get("restarts", 0):
        parts.append(count(restarts, "restart"))
    if overran := progress.get("overran", 0):
        parts.append(f"{count(overran, 'step')} cut short")
    return parts

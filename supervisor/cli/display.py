"""How a simulation's progress is shown: a live picture, plain lines, JSON lines, or the result."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Self

from creamas_sc.foreign import printable
from supervisor.cli.output import clock, count, out, out_json

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

LINE_SECONDS = 1.0
# The duration of a step is shown once it takes longer than this.
SLOW_SECONDS = 5.0

Progress = Mapping[str, Any]


def seen_by_client(progress: Progress) -> dict[str, Any]:
    """Return a simulation's progress as this process shows it: not as one of its clients."""
    return {**progress, "clients": max(0, progress["clients"] - 1)}


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

    def __init__(self, name: str, console: Console | None = None) -> None:
        from rich.console import Console
        from rich.live import Live

        super().__init__(name)
        self._console = console or Console(highlight=False)
        self._live = Live(console=self._console, auto_refresh=False)
        self._drawn: list[int] = []

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._go_to_last_line()
        self._live.__exit__(*error)

    def update(self, progress: Progress) -> None:
        self._go_to_last_line()
        drawn = picture(self._name, progress, self._console.width)
        lines = self._console.render_lines(drawn, pad=False)
        self._drawn = [sum(segment.cell_length for segment in line) for line in lines]
        self._live.update(drawn, refresh=True)

    def event(self, name: str, details: Progress) -> None:
        self._go_to_last_line()
        line = printable(event_line(name, details))
        self._console.print(line, style="yellow", markup=False)

    def _go_to_last_line(self) -> None:
        """Have `rich` draw over the whole picture, even if the terminal is narrower by now.

        Then the terminal has wrapped the lines, and there are more than rich will erase.
        """
        from rich.control import Control
        from rich.segment import ControlType

        width = self._console.width
        wrapped = sum(max(length - 1, 0) // width for length in self._drawn)
        self._drawn = []
        for _ in range(wrapped):
            erase = ((ControlType.ERASE_IN_LINE, 2), (ControlType.CURSOR_UP, 1))
            self._console.control(Control(*erase))


# A bar that is shorter says little.
LEAST_BAR = 10


def picture(name: str, progress: Progress, width: int) -> RenderableType:
    """Return the lines that `Live` shows, two if ``width`` columns are enough."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    state, of = progress["state"], progress["of"]
    styles = {"stepping": "green", "failed": "red", "paused": "yellow"}
    cells = [Text(name, "bold"), Text(state, styles.get(state, "dim"))]
    if steps := _steps(progress):
        cells.append(Text(steps))
    cells += [Text(part, "yellow") for part in _pausing(progress)]
    after = [Text(part) for part in _speed(progress)]
    line = Text("  ").join([*cells, *after])
    above: RenderableType = line
    if of and width - line.cell_len - 2 >= LEAST_BAR:  # the bar gets the remaining width
        bar = ProgressBar(total=of, completed=progress["step"])
        grid = Table.grid(padding=(0, 2), expand=True)
        for cell in (*cells, bar, *after):
            grid.add_column(no_wrap=True, ratio=1 if cell is bar else None)
        grid.add_row(*cells, bar, *after)
        above = grid
    below = Text("  ".join([*_contents(progress), "(Ctrl-C detaches)"]), "dim")
    error = printable(progress["error"])
    return Group(above, below, *([Text(error, "red")] if error else ()))


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
        case "not_repeatable":
            return f"step {details['age']:,} does not repeat itself: {'; '.join(details['why'])}"
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
    parts = [count(progress[f"{noun}s"], noun) for noun in ("agent", "slave", "artifact")]
    parts.append(count(progress["clients"], "other client"))
    if restarts := progress.get("restarts", 0):
        parts.append(count(restarts, "restart"))
    if overran := progress.get("overran", 0):
        parts.append(f"{count(overran, 'step')} cut short")
    return parts

"""How a simulation's progress looks: a live picture, plain lines, JSON lines, or nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from supervisor.cli.output import clock, count, flush, out, out_json

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["Display", "Last", "Lines", "Live", "Plain", "progress_line"]

LINE_SECONDS = 1.0
# A step that takes longer than this is told of while it lasts.
SLOW_SECONDS = 5.0

Progress = Mapping[str, Any]


class Display(Protocol):
    """Shows a simulation while it is entered."""

    for_programs: bool

    def __enter__(self) -> object:
        """Begin to show."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Show what was held back, and end."""

    def update(self, progress: Progress) -> None:
        """Show how far it is now."""

    def event(self, name: str, details: Progress) -> None:
        """Show that something happened."""


class Last:
    """One JSON document at the end of the steps: the last progress."""

    for_programs = True

    def __init__(self, name: str) -> None:
        self._name = name
        self._latest: Progress = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            out_json({"name": self._name, **self._latest}, indent=2)

    def update(self, progress: Progress) -> None:
        self._latest = dict(progress)

    def event(self, name: str, details: Progress) -> None:
        pass


class Lines:
    """JSON lines: all there is to know, as it comes."""

    for_programs = True

    def __init__(self, name: str) -> None:
        self._name = name
        self._shown: Progress | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, progress: Progress) -> None:
        if progress != self._shown:
            self._shown = dict(progress)
            self._tell("steps", progress)

    def event(self, name: str, details: Progress) -> None:
        self._tell(name, details)

    def _tell(self, event: str, details: Progress) -> None:
        out_json({"name": self._name, "event": event, **details})
        flush()


class Plain:
    """Plain lines; those of progress at most one a second, unless the state changes."""

    for_programs = False

    def __init__(self, name: str, now: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._now = now
        self._printed_at = -LINE_SECONDS
        self._printed: str | None = None
        self._state: str | None = None
        self._latest: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._print()

    def update(self, progress: Progress) -> None:
        self._latest = progress_line(self._name, progress)
        state, self._state = self._state, progress["state"]
        if state != self._state or self._now() - self._printed_at >= LINE_SECONDS:
            self._print()

    def event(self, name: str, details: Progress) -> None:
        out(f"{self._name}: {event_line(name, details)}")
        flush()

    def _print(self) -> None:
        if self._latest is None or self._latest == self._printed:
            return
        self._printed, self._printed_at = self._latest, self._now()
        out(self._latest)
        flush()


class Live:
    """A picture on the terminal that changes; events are lines above it."""

    for_programs = False

    def __init__(self, name: str) -> None:
        from rich.console import Console
        from rich.live import Live

        self._name = name
        self._live = Live(console=Console(highlight=False), auto_refresh=False)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._live.__exit__(*error)

    def update(self, progress: Progress) -> None:
        """As of `Display`."""
        self._live.update(picture(self._name, progress), refresh=True)

    def event(self, name: str, details: Progress) -> None:
        """As of `Display`."""
        self._live.console.print(event_line(name, details), style="yellow", markup=False)


def picture(name: str, progress: Progress) -> RenderableType:
    """The two lines that `Live` shows."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    state, of = progress["state"], progress["of"]
    styles = {"stepping": "green", "failed": "red", "paused": "yellow"}
    cells: list[RenderableType] = [Text(name, "bold"), Text(state, styles.get(state, "dim"))]
    if steps := _steps(progress):
        cells.append(Text(steps))
    if of:
        cells.append(ProgressBar(total=of, completed=progress["step"]))
    cells += [Text(part) for part in _speed(progress)]
    grid = Table.grid(padding=(0, 2), expand=bool(of))
    for cell in cells:  # the bar gets the room that is left
        grid.add_column(no_wrap=True, ratio=1 if isinstance(cell, ProgressBar) else None)
    grid.add_row(*cells)
    below = Text("  ".join([*_contents(progress), "(Ctrl-C detaches)"]), "dim")
    return Group(grid, below, *([Text(progress["error"], "red")] if progress["error"] else ()))


def progress_line(name: str, progress: Progress) -> str:
    """All of a simulation's progress in a line."""
    steps = _steps(progress)
    parts = [progress["state"], *([steps] if steps else ())]
    error = [f"error: {' '.join(progress['error'].split())}"] if progress["error"] else []
    return f"{name}: {', '.join([*parts, *_speed(progress), *_contents(progress), *error])}"


def event_line(name: str, details: Progress) -> str:
    """An event in a line."""
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
            return f"{name} {_told(details)}"


def _restart(details: Progress) -> str:
    parts = [f"{details['address']} (pid {details['pid']}), restart {details['number']}"]
    parts += [count(details[f"{noun}s"], noun) for noun in ("agent", "connection")]
    parts += [what.replace("_", " ") for what in ("host_manager", "checkpoint") if details[what]]
    return "; NOT restored: ".join([", ".join(parts), *details["failures"]])


def _told(details: Progress) -> str:
    return ", ".join(f"{key} {value}" for key, value in details.items() if value is not None)


def _steps(progress: Progress) -> str:
    step, of = progress["step"], progress["of"]
    seconds = progress.get("step_seconds") or 0.0
    slow = f" (the next one takes {clock(seconds)} already)" if seconds > SLOW_SECONDS else ""
    if of is not None:
        return f"step {step:,} of {of:,}{slow}"
    return f"step {step:,}{slow}" if step or slow else ""


def _speed(progress: Progress) -> list[str]:
    speed, left = progress["acts_per_second"], progress["seconds_left"]
    told = [] if speed is None else [f"{speed:,.0f} acts/s"]
    return told if left is None else [*told, f"{clock(left)} left"]


def _contents(progress: Progress) -> list[str]:
    nouns = ("agent", "slave", "artifact", "client")
    told = [count(progress[f"{noun}s"], noun) for noun in nouns]
    restarts = progress.get("restarts", 0)
    return [*told, count(restarts, "restart")] if restarts else told

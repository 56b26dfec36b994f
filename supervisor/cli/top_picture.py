"""The picture of the command top."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from rich.console import ConsoleDimensions, Group, RenderableType
from rich.table import Table
from rich.text import Text

from creamas_sc.foreign import printable
from supervisor.cli.output import clock
from supervisor.cli.watching import STEP_RATE, Seen

HELP = "p pause  r resume  Tab next  q quit"
BARS, ASCII_BARS = "▁▂▃▄▅▆▇█", "_.-:=+*#"
STYLES = {"stepping": "green", "failed": "red", "paused": "yellow", "stopped": "red", "lost": "red"}
LEVELS = {"warning": "yellow", "error": "red", "critical": "red"}
# Of the lines of the screen: simulations, then slaves; the log gets the others.
MOST_SIMULATIONS = 8
LEAST_LOG = 3
MANY_LINES = 10
# A narrower terminal gets fewer columns, and one that is still narrower only a few.
WIDE, NARROW = 70, 50
LEAST_NAME = 8
SPARKS = 40


def picture(
    daemon: str,
    seen: Sequence[Seen],
    marked: str | None,
    metric: str | None,
    said: str,
    size: ConsoleDimensions,
    unicode: bool,
) -> RenderableType:
    """What is drawn, no more lines than ``size`` has.

    Args:
        daemon: Its name, in words.
        marked: The simulation that is shown in detail.
        metric: What is drawn of it; its first one by default.
        said: What the last key has led to.
        unicode: Whether the terminal can show more than ASCII.
    """
    left = size.height - 1  # the last line is for what is said
    parts: list[RenderableType] = [_line(daemon, "dim")]
    left -= 1
    rows = _window(seen, marked, min(MOST_SIMULATIONS, max(1, left // 3)))
    parts.append(_simulations(rows, marked, size.width))
    left -= len(rows) + 1
    if not seen:
        parts.append(_line("there are no simulations; creamas-supervisor create makes one", "dim"))
    shown = next((each for each in seen if each.name == marked), None)
    if shown is not None:
        lines = list(islice(_detail(shown, metric, unicode), max(0, left)))
        parts += lines
        left -= len(lines)
        if shown.loads is not None and left > 2:
            reserved = LEAST_LOG + 1 if left >= MANY_LINES else 0
            table, used = _processes(shown.loads, left - reserved, size.width)
            parts.append(table)
            left -= used
        parts += _log(shown, max(0, left), size.width)
    parts.append(_line(said or HELP, "yellow" if said else "dim"))
    return Group(*parts)


def _line(text: str, style: str = "") -> Text:
    return Text(printable(text), style, no_wrap=True, overflow="ellipsis")


def _window(seen: Sequence[Seen], marked: str | None, lines: int) -> Sequence[Seen]:
    """As many of the simulations as there are lines, the marked one among them."""
    at = next((place for place, each in enumerate(seen) if each.name == marked), 0)
    first = max(0, min(at - lines // 2, len(seen) - lines))
    return seen[first : first + lines]


def _table(name: str, *columns: str, numbers: Sequence[str]) -> Table:
    """A table; its first column gets narrower if need be, and only then the others."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    table.add_column(name, overflow="ellipsis", min_width=LEAST_NAME)
    for column in (*columns, *numbers):
        justify: Any = "right" if column in numbers else "left"
        table.add_column(column, justify=justify, no_wrap=True, overflow="ellipsis")
    return table


def _simulations(rows: Sequence[Seen], marked: str | None, width: int) -> Table:
    times = ("STEPS/S", "LEFT") if width >= NARROW else ()
    counts = ("AGENTS", "ARTIFACTS") if width >= WIDE else ()
    table = _table("  NAME", "STATE", "STEP", numbers=(*times, *counts))
    for seen in rows:
        progress = seen.progress or {}
        state = progress.get("state") or seen.summary["state"]
        if progress.get("pausing"):
            state = "pausing"
        cells: list[str | Text] = [
            _line(f"{'>' if seen.name == marked else ' '} {seen.name}"),
            Text(state, STYLES.get(state, "")),
            _steps(progress),
            *[
                _number(progress.get("steps_per_second")),
                "-" if progress.get("seconds_left") is None else clock(progress["seconds_left"]),
            ][: len(times)],
            *(_count(progress.get(key.lower())) for key in counts),
        ]
        table.add_row(*cells, style="bold" if seen.name == marked else "")
    return table


def _steps(progress: Mapping[str, Any]) -> str:
    step, of = progress.get("step"), progress.get("of")
    if step is None:
        return "-"
    return f"{step:,}" if of is None else f"{step:,}/{of:,}"


def _count(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _number(value: float | None) -> str:
    """Three digits or more, without an exponent as long as that is readable."""
    if value is None:
        return "-"
    if abs(value) >= 100 or value == 0:
        return f"{value:,.0f}" if abs(value) < 1e9 else f"{value:.3g}"
    return f"{value:.3g}"


def _detail(seen: Seen, metric: str | None, unicode: bool) -> Iterator[RenderableType]:
    yield _line("")
    name = metric or next(iter(seen.metrics), STEP_RATE)
    values = seen.metrics.get(name)
    if values:
        yield _line(f"{name} {sparkline(values, SPARKS, unicode)} {_number(values[-1])}")
    elif metric is not None:
        others = ", ".join(seen.metrics)
        yield _line(f"{metric}: not a metric of {seen.name}; there are {others}", "yellow")
    error = (seen.progress or {}).get("error")
    for text in (seen.problem, error):
        if text:
            yield _line(" ".join(str(text).split()), "red")


def sparkline(values: Sequence[float], width: int, unicode: bool) -> str:
    """The last values as bars, from the least to the greatest of them."""
    bars, last = (BARS if unicode else ASCII_BARS), values[-width:]
    finite = [value for value in last if abs(value) < float("inf")]
    if not finite:
        return ""
    low, span = min(finite), max(finite) - min(finite)
    heights = ((value - low) / span if span else 0.5 for value in finite)
    return "".join(bars[round(height * (len(bars) - 1))] for height in heights)


def _processes(loads: Mapping[str, Any], lines: int, width: int) -> tuple[Table, int]:
    """The host, and as many slaves as there are lines; how many lines that takes.

    If they are not all shown, those that are stopped, that the step waits for, or that are busiest
    are, in this order.
    """
    more = ("PID", "AGENTS") if width >= WIDE else ()
    memory = ("MEMORY",) if width >= NARROW else ()
    table = _table("PROCESS", "STATE", numbers=(*more, "CPU", *memory, "STEP"))
    table.add_row(_line("host"), *_cells(loads["host"], width), "")
    places = list(enumerate(loads["slaves"]))
    room, hidden = lines - 2, 0
    if len(places) > room:
        hidden = len(places) - (room - 1 if room > 1 else max(0, room))
        places = sorted(places, key=lambda each: _urgency(each[1]), reverse=True)[:-hidden]
    for place, slave in places:
        address = slave["address"].removeprefix("tcp://").removesuffix("/0")
        on = f" on {slave['node']}" if slave.get("node") else ""
        table.add_row(_line(f"slave {place} {address}{on}"), *_cells(slave, width), _step(slave))
    if hidden and room > 1:
        table.add_row(_line(f"and {hidden:,} more"))
    return table, table.row_count + 1


def _urgency(slave: Mapping[str, Any]) -> tuple[bool, float, float]:
    return slave["state"] == "stopped", slave["waited_seconds"] or 0.0, slave["cpu"] or 0.0


def _cells(process: Mapping[str, Any], width: int) -> list[str | Text]:
    state, cpu, memory = process["state"], process["cpu"], process["memory_bytes"]
    agents = _count(process["agents"]) if "agents" in process else ""
    size = "-" if memory is None else f"{memory / (1 << 20):,.0f} MiB"
    return [
        Text(state, STYLES.get(state, "")),
        *([str(process["pid"]), agents] if width >= WIDE else ()),
        "-" if cpu is None else f"{cpu:.0%}",
        *([size] if width >= NARROW else ()),
    ]


def _step(slave: Mapping[str, Any]) -> str | Text:
    waited, took = slave["waited_seconds"], slave["step_seconds"]
    if waited is not None and waited >= 1:
        return Text(f"waits {clock(waited)}", "yellow")
    return "-" if took is None else f"{took:.3g} s"


def _log(seen: Seen, lines: int, width: int) -> list[Text]:
    """The last lines of the log, as long as there is room."""
    shown = []
    for entry in seen.log[-max(0, lines - 1) :] if lines > 1 else []:
        text = entry.get("printed")
        if text is None:
            when = str(entry.get("timestamp", ""))[11:19]
            text = f"{when} {entry.get('level', '')} {entry.get('event', '')}"
        first = str(text).partition("\n")[0][:width]
        shown.append(_line(first, LEVELS.get(str(entry.get("level")), "dim")))
    return [_line(""), *shown] if shown else []

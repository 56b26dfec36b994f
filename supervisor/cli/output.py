"""Printing: data on standard output, everything else on standard error."""

from __future__ import annotations

import io
import json
import math
import os
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, is_dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, TextIO

from creamas_sc.foreign import printable, printable_json
from supervisor.cli.exits import Exit, Failure

if TYPE_CHECKING:
    from creamas_sc.reports import StopReport


COLUMN_GAP = "  "
# Columns of a table are not made narrower than this.
LEAST_WIDTH = 8


def set_up() -> None:
    """Have lines of data written at once, with what standard output cannot encode escaped."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # None if it was closed when this process started
        sys.stdout.reconfigure(errors="backslashreplace", line_buffering=True)


def out(line: str, color: str = "") -> None:
    """Print a line of data, whose texts may come from anyone; ``color`` as terminals number it."""
    line = printable(line)
    _print(f"\x1b[{color}m{line}\x1b[0m" if color else line)


def _print(text: str) -> None:
    try:
        print(text)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise Failure(f"cannot write to standard output: {error.strerror}") from error


def note(line: str) -> None:
    """Print a message, which is not data, on standard error."""
    if sys.stderr is not None:
        with suppress(OSError):
            print(f"creamas-supervisor: {printable(line)}", file=sys.stderr)


def emit(value: Any, as_json: bool, readable: Callable[[], Iterable[str]]) -> None:
    """Print a command's data, as one JSON document or for people."""
    if as_json:
        out_json(value, indent=2)
    else:
        for line in readable():
            out(line)


def out_json(value: Any, indent: int | None = None) -> None:
    """Print a value as JSON."""
    document = json.dumps(value, indent=indent, default=_plain, ensure_ascii=False)
    _print(printable_json(document))


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return repr(value)  # a user's `save_info` may return anything


def table(head: Sequence[str], rows: Iterable[Sequence[object]], *, indent: int = 0) -> list[str]:
    """Format columns that are as wide as necessary, or as a terminal allows.

    Args:
        indent: How many columns of the terminal the caller needs for itself.
    """
    lines = [list(head), *([_cell(value) for value in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    room = _columns() - indent - len(COLUMN_GAP) * (len(widths) - 1)
    while sum(widths) > room and max(widths) > LEAST_WIDTH:
        widths[widths.index(max(widths))] -= 1
    formatted = []
    for line in lines:
        cells = [textwrap.wrap(cell, width) for cell, width in zip(line, widths, strict=True)]
        for parts in zip_longest(*cells, fillvalue=""):
            formatted.append(COLUMN_GAP.join(map(str.ljust, parts, widths)).rstrip())
    return formatted


def wrapped(text: str, *, indent: int) -> list[str]:
    """Break a line of words as a terminal's width asks for; what follows is indented further."""
    width = _columns()
    if width == math.inf:
        return [" " * indent + text]
    start = " " * indent
    more = start + "  "
    return textwrap.wrap(text, max(int(width), LEAST_WIDTH + len(more)), initial_indent=start,
                         subsequent_indent=more, break_on_hyphens=False)  # fmt: skip


def _columns() -> float:
    terminal = sys.stdout is not None and sys.stdout.isatty()
    return shutil.get_terminal_size().columns if terminal else math.inf


def pairs(values: Mapping[str, object]) -> list[str]:
    """Format a line for each name and its value."""
    width = max(map(len, values), default=0)
    return [f"{name.ljust(width)}  {_cell(value)}".rstrip() for name, value in values.items()]


def _cell(value: object) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    return "-" if value is None or not text else printable(text)


def moment_in_short(epoch: float) -> str:
    """Format a time for a table: that of today, or the date."""
    then = time.localtime(epoch)
    return time.strftime("%H:%M:%S" if then[:3] == time.localtime()[:3] else "%Y-%m-%d", then)


def moment(epoch: float | None) -> str | None:
    """Format a time, in seconds since 1970, as local time."""
    return None if epoch is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(epoch))


def clock(seconds: float) -> str:
    """Format a duration in hours, minutes and seconds."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def count(number: int, noun: str) -> str:
    """Format a number and its noun, in the plural unless the number is 1."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def is_terminal(stream: TextIO | None) -> bool:
    """Return whether a stream is a terminal that can do more than print line after line."""
    dumb = os.environ.get("TERM", "") in ("", "dumb", "unknown")
    return stream is not None and stream.isatty() and not dumb


def colored(stream: TextIO | None) -> bool:
    """Return whether to write colours to a stream."""
    return is_terminal(stream) and not os.environ.get("NO_COLOR")


# ---- how the slaves of a simulation ended


def report_data(name: str, report: StopReport) -> dict[str, Any]:
    """Return the end of a simulation as data for programs."""
    return {
        "name": name,
        "graceful": report.graceful,
        "saved": report.saved,
        "seed": report.seed,
        "errors": list(report.errors),
        "slaves": list(report),
    }


def report_lines(name: str, report: StopReport) -> list[str]:
    """Return the end of a simulation in lines for people."""
    head = ("SLAVE", "PID", "ENDED BY", "EXIT", "SECONDS")
    rows = []
    for slave in report:
        code = slave.exit_code if slave.signal is None else f"signal {slave.signal}"
        rows.append((slave.address, slave.pid, slave.ended_by, code, f"{slave.seconds:.2f}"))
    seed = "" if report.seed is None else f"; its seed was {report.seed}"
    return [*(table(head, rows) if rows else ()), f"{name} was closed{seed}"]


def judge(report: StopReport) -> Exit:
    """Return whether a simulation ended well; print what did not go well."""
    problems = [
        f"{slave.address} did not end in time and was killed; give it more with --timeout"
        for slave in report
        if slave.ended_by in ("term", "kill")
    ]
    for text in (*report.errors, *(text for slave in report for text in slave.errors)):
        problems.append(f"closing raised: {text.splitlines()[0] if text else text}")
    for problem in problems:
        note(problem)
    return Exit.FAILED if problems else Exit.DONE

"""What the command prints: data on standard output, everything else on standard error."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from typing import Any, TextIO

__all__ = [
    "ReaderGone",
    "clock",
    "colored",
    "count",
    "emit",
    "flush",
    "moment",
    "note",
    "out",
    "out_json",
    "pairs",
    "table",
]

PREFIX = "creamas-supervisor: "


class ReaderGone(Exception):
    """Nobody reads standard output any more."""


def out(line: str) -> None:
    """Print a line of data.

    Raises:
        ReaderGone: There is no reader.
    """
    stream = sys.stdout
    if stream is None:  # it was closed when this process started
        return
    encoding = stream.encoding or "utf-8"
    try:
        stream.write(line.encode(encoding, "backslashreplace").decode(encoding) + "\n")
    except BrokenPipeError as error:
        raise ReaderGone from error


def flush() -> None:
    """See to it that data printed so far is out; errors as `out`."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError as error:
        raise ReaderGone from error


def note(line: str) -> None:
    """Tell the user something that is no data."""
    if sys.stderr is None:
        return
    try:
        print(f"{PREFIX}{line}", file=sys.stderr)
    except OSError:
        pass  # nobody is there to be told


def emit(value: Any, as_json: bool, readable: Callable[[], Iterable[str]]) -> None:
    """Print a verb's data, as one JSON document or for people."""
    if as_json:
        out_json(value, indent=2)
    else:
        for line in readable():
            out(line)


def out_json(value: Any, indent: int | None = None) -> None:
    """Print a value as JSON."""
    out(json.dumps(value, indent=indent, default=_plain, ensure_ascii=False))


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return repr(value)  # what a user's `save_info` returned may be anything


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Lines of columns, each as wide as it must be."""
    lines = [list(head), *([_cell(value) for value in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]


def pairs(values: Mapping[str, object]) -> list[str]:
    """Lines of a name and its value."""
    width = max(map(len, values), default=0)
    return [f"{name.ljust(width)}  {_cell(value)}".rstrip() for name, value in values.items()]


def _cell(value: object) -> str:
    return "-" if value is None or value == "" else str(value)


def moment(epoch: float | None) -> str | None:
    """A moment in local time."""
    return None if epoch is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(epoch))


def clock(seconds: float) -> str:
    """A duration as hours, minutes and seconds."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def count(number: int, noun: str) -> str:
    """A number and its noun, with an s where there is not one."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def colored(stream: TextIO) -> bool:
    """Whether to write colours to it."""
    return (
        stream is not None
        and stream.isatty()
        and not os.environ.get("NO_COLOR")
        and os.environ.get("TERM") != "dumb"
    )

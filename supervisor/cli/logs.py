"""The command logs: what a daemon and its simulations have written."""

from __future__ import annotations

import json as jsonlib
import os
import select
import sys
from contextlib import suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any, BinaryIO

from cyclopts import Parameter

from creamas_sc.errors import CreamasError, UnknownSimulation
from supervisor.cli.daemon_connection import checked_name, chosen_daemon, connected
from supervisor.cli.exits import Exit, Failure
from supervisor.cli.output import colored, out, out_json
from supervisor.cli.params import Daemon, at_least

BLOCK_BYTES = 1 << 16
# How often a file is polled for new lines.
POLL_SECONDS = 0.1
LEVEL_COLORS = {"warning": "33", "error": "31", "critical": "31;1", "debug": "2"}
# Not in the list of values for people: shown in another place, or not at all.
NOT_SHOWN = ("timestamp", "level", "event", "exception", "logger", "pid")


def logs(
    name: str | None = None,
    /,
    *,
    follow: Annotated[bool, Parameter(name=("--follow", "-f"))] = False,
    lines: Annotated[int, Parameter(name=("--lines", "-n")), at_least(0)] = 100,
    daemon: Daemon = None,
    json: bool = False,
) -> int:
    """Show the log of a simulation, or of the daemon.

    Everything that agents print is in the log of their simulation.

    For example:

        creamas-supervisor logs novelty
        creamas-supervisor logs novelty -f -n 0       # new lines only
        creamas-supervisor logs                       # the daemon's log

    Args:
        name: A simulation, which may have ended. Default: the daemon itself.
        follow: Go on until Ctrl-C, or until the simulation or daemon has ended.
        lines: How many of the last lines to show. Default: 100.
        json: Print a JSON list, or with -f a JSON object in each line.
    """
    path, pid = _find(name, daemon)
    show = out_json if json else partial(_show, name)
    try:
        opened = path.open("rb")
    except FileNotFoundError:
        what = "the daemon" if name is None else f"the simulation {name!r}"
        raise Failure(f"{what} has no log: the file {path} does not exist") from None
    with opened as file, _watched(pid if follow else None) as process:
        tail = _Tail(file, lines)
        if json and not follow:
            out_json([_parsed(line) for line in tail.read(whole=True)], indent=2)
            return Exit.DONE
        alive = follow
        while True:
            for line in tail.read(whole=not alive):
                show(_parsed(line))
            if not alive:
                return Exit.DONE
            # After its end, read once more what it wrote last.
            alive = not select.select([process], [], [], POLL_SECONDS)[0]


def _find(name: str | None, flag: str | None) -> tuple[Path, int | None]:
    """Return the file of a log, and the process that writes to it, if there is one."""
    settings, daemon = chosen_daemon(flag)
    path = settings.logs() / f"{daemon}.log"
    if name is not None:
        checked_name(name, "simulation")
    writer: dict[str, Any] = {}
    unknown: UnknownSimulation | None = None
    try:
        with connected(flag) as (client, _):
            writer = client.status()
            path = Path(writer["log"] or path)
            if name is not None:
                writer = client.inspect(name)
    except UnknownSimulation as error:
        unknown = error
    except CreamasError:
        pass  # the log can be read without the daemon
    if name is not None:
        path = path.with_name(daemon) / f"{name}.log"
        if unknown is not None and not path.exists():
            raise unknown
    running = unknown is None and writer.get("state") != "ended"
    return path, writer.get("pid") if running else None


def _watched(pid: int | None) -> BinaryIO:
    """Open a file that is readable once the process has ended; at once if there is none."""
    with suppress(ProcessLookupError):
        if pid is not None:
            return open(os.pidfd_open(pid), "rb", buffering=0)
    return open(os.devnull, "rb")


class _Tail:
    """The last lines of a file, and the lines that are appended later."""

    def __init__(self, file: BinaryIO, lines: int) -> None:
        self._file = file
        start = end = file.seek(0, os.SEEK_END)
        block = BLOCK_BYTES
        parts = [b""]
        while start > 0 and lines and len(parts) <= lines + 1:
            start, block = max(0, end - block), 2 * block
            file.seek(start)
            parts = file.read(end - start).split(b"\n")
        # After a last line end, the last part is empty and not a line.
        self._incomplete = b"\n".join(parts[-lines - (not parts[-1]) :])

    def read(self, *, whole: bool) -> list[str]:
        """Return the new lines; with ``whole`` also a last one without a line end."""
        if os.fstat(self._file.fileno()).st_size < self._file.tell():
            self._file.seek(0)  # the file was truncated
        *lines, self._incomplete = (self._incomplete + self._file.read()).split(b"\n")
        if whole and self._incomplete:
            lines, self._incomplete = [*lines, self._incomplete], b""
        return [line.decode(errors="replace") for line in lines]


def _parsed(line: str) -> dict[str, Any]:
    try:
        entry = jsonlib.loads(line)
    except ValueError:
        entry = None
    # Any other line was printed, usually by a user's code.
    return entry if isinstance(entry, dict) and "event" in entry else {"printed": line}


def _show(name: str | None, entry: dict[str, Any]) -> None:
    if "printed" in entry:
        out(entry["printed"])
        return
    level = str(entry.get("level", ""))
    values = [
        f"{key}={value}"
        for key, value in entry.items()
        if key not in NOT_SHOWN and not (key == "simulation" and value == name)
    ]
    when = str(entry.get("timestamp"))
    with suppress(ValueError):
        when = f"{datetime.fromisoformat(when).astimezone():%Y-%m-%d %H:%M:%S}"
    first, *rest = str(entry["event"]).splitlines() or [""]
    color = LEVEL_COLORS.get(level, "") if colored(sys.stdout) else ""
    out(" ".join([when, level, first, *values]), color)
    for more in (*rest, *str(entry.get("exception", "")).splitlines()):
        out(f"    {more}")

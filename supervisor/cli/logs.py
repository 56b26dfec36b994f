"""The command logs: what a daemon and its simulations have written."""

from __future__ import annotations

import json as jsonlib
import os
import select
import sys
from contextlib import closing, suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any, BinaryIO

from cyclopts import Parameter

from creamas_sc.errors import CreamasError, UnknownSimulation
from creamas_sc.runtime.log_files import BEGINS, log_files
from creamas_sc.runtime.paths import exposed
from supervisor.cli.daemon_connection import checked_name, chosen_daemon, connected
from supervisor.cli.exits import Exit, Failure
from supervisor.cli.output import colored, out, out_json
from supervisor.cli.params import Daemon, Whole, at_least
from supervisor.daemon.records import last_log

BLOCK_BYTES = 1 << 16
# How often a file is polled for new lines.
POLL_SECONDS = 0.1
LEVEL_COLORS = {"warning": "33", "error": "31", "critical": "31;1", "debug": "2"}
# Not in the list of values for people: shown in another place, or not at all.
NOT_SHOWN = ("timestamp", "level", "event", "exception", "logger", "pid", BEGINS)


def logs(
    name: str | None = None,
    /,
    *,
    follow: Annotated[bool, Parameter(name=("--follow", "-f"))] = False,
    lines: Annotated[int, Parameter(name=("--lines", "-n")), Whole, at_least(0)] = 100,
    all: bool = False,
    daemon: Daemon = None,
    json: bool = False,
) -> int:
    """Show the log of a simulation, or of the daemon.

    Everything that agents print is in the log of their simulation. Of each
    log the last 128 MiB are kept, and 160 MiB at most; where older lines
    were removed, a line says how much.

    For example:

        creamas-supervisor logs novelty
        creamas-supervisor logs novelty -f -n 0       # new lines only
        creamas-supervisor logs                       # the daemon's log

    Args:
        name: A simulation, which may have ended. Default: the daemon itself.
        follow: Go on until Ctrl-C, or until the simulation or daemon has ended.
        lines: How many of the last lines to show. Default: 100.
        all: Include earlier simulations of that name.
        json: Print a JSON list, or with -f a JSON object in each line.
    """
    path, pid = _find(name, daemon)
    show = out_json if json else partial(_show, name)
    if path.parent.is_dir() and (place := exposed(path.parent)) is not None:
        raise Failure(f"the log {path} is not shown: other users may write to {place}")
    try:
        opened = path.open("rb")
    except FileNotFoundError:
        what = "the daemon" if name is None else f"the simulation {name!r}"
        raise Failure(f"{what} has no log: the file {path} does not exist") from None
    with (
        closing(_Tail(opened, lines, None if all else name)) as tail,
        _watched(pid if follow else None) as process,
    ):
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
    path = last_log(settings.logs(), daemon)
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
        path = path.with_suffix("") / f"{name}.log"
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
    """The last lines of a log, and the lines that are appended later.

    Args:
        file: The newest of the log's files; closed with the tail.
        simulation: Leave out what is from simulations that had this name before.
    """

    def __init__(self, file: BinaryIO, lines: int, simulation: str | None = None) -> None:
        self._path = Path(file.name)
        self._file = file
        self._before: BinaryIO | None = None  # into which processes may go on writing for a while
        last = _last_lines(file, lines)
        for path in reversed(log_files(self._path)):
            missing = lines - last.count(b"\n") - (not last.endswith(b"\n") and bool(last))
            if missing <= 0:
                break
            with path.open("rb") as older:
                if not _same(older, self._file):
                    last = _last_lines(older, missing) + last
        self._incomplete = last if simulation is None else _last_run(last, simulation)

    def read(self, *, whole: bool) -> list[str]:
        """Return the new lines; with ``whole`` also a last one without a line end."""
        if os.fstat(self._file.fileno()).st_size < self._file.tell():
            self._file.seek(0)  # the file was truncated
        late = b"" if self._before is None else self._before.read()
        data = late + self._incomplete + self._file.read()
        while (newer := self._open_newer()) is not None:
            data += self._file.read()  # until it was moved
            if self._before is not None:
                self._before.close()
            self._before, self._file = self._file, newer
            data += newer.read()
        *lines, self._incomplete = data.split(b"\n")
        if whole and self._incomplete:
            lines, self._incomplete = [*lines, self._incomplete], b""
        return [line.decode(errors="replace") for line in lines]

    def _open_newer(self) -> BinaryIO | None:
        """Open the file that follows the one being read; None if that is the newest."""
        newer: BinaryIO | None = None
        for path in reversed(log_files(self._path)):
            try:
                file = path.open("rb")
            except FileNotFoundError:  # it was just moved
                continue
            if _same(file, self._file):
                file.close()
                break
            if newer is not None:
                newer.close()
            newer = file
        else:
            # It was removed, or is just being moved and will be found again.
            if newer is not None and os.fstat(self._file.fileno()).st_nlink:
                newer.close()
                return None
        return newer

    def close(self) -> None:
        self._file.close()
        if self._before is not None:
            self._before.close()


def _same(one: BinaryIO, other: BinaryIO) -> bool:
    return os.path.sameopenfile(one.fileno(), other.fileno())


def _last_lines(file: BinaryIO, lines: int) -> bytes:
    """The last lines of a file, with their ends, and its end as the place to read on from."""
    start = end = file.seek(0, os.SEEK_END)
    block = BLOCK_BYTES
    parts = [b""]
    while start > 0 and lines and len(parts) <= lines + 1:
        start, block = max(0, end - block), 2 * block
        file.seek(start)
        parts = file.read(end - start).split(b"\n")
    # After a last line end, the last part is empty and not a line.
    return b"\n".join(parts[-lines - (not parts[-1]) :])


def _last_run(data: bytes, name: str) -> bytes:
    """The lines of the last simulation of that name."""
    lines = data.splitlines(keepends=True)
    for number in range(len(lines) - 1, -1, -1):
        if BEGINS.encode() in lines[number]:
            entry = _parsed(lines[number].decode(errors="replace"))
            if entry.get(BEGINS) == name:
                return b"".join(lines[number:])
    return data


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

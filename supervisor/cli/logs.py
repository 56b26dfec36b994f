"""The command logs: what a daemon and its simulations have written."""

from __future__ import annotations

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
from creamas_sc.runtime.log_files import BEGINS
from creamas_sc.runtime.log_tail import LogTail, parsed
from creamas_sc.runtime.paths import exposed
from supervisor.cli.daemon_connection import checked_name, chosen_daemon, connected
from supervisor.cli.exits import Exit, Failure
from supervisor.cli.output import colored, out, out_json
from supervisor.cli.params import Daemon, Whole, at_least
from supervisor.daemon.records import last_log

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
        closing(LogTail(opened, lines, None if all else name)) as tail,
        _watched(pid if follow else None) as process,
    ):
        if json and not follow:
            out_json([parsed(line) for line in tail.read(whole=True)], indent=2)
            return Exit.DONE
        alive = follow
        while True:
            for line in tail.read(whole=not alive):
                show(parsed(line))
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

"""The verb logs: what a daemon and its simulations have written."""

from __future__ import annotations

import json as jsonlib
import os
import select
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any, BinaryIO

from cyclopts import Parameter

from creamas_sc.errors import CreamasError, UnknownSimulation
from supervisor.cli.daemon_connection import checked_name, chosen_daemon, linked
from supervisor.cli.exits import Exit, Failure
from supervisor.cli.output import colored, flush, out, out_json
from supervisor.cli.params import Daemon, at_least

__all__ = ["logs"]

BLOCK_BYTES = 1 << 16
# A file tells nobody that it has grown: how often to look.
LOOK_SECONDS = 0.1
LEVEL_COLORS = {"warning": "33", "error": "31", "critical": "31;1", "debug": "2"}
# In the readable form: shown otherwise, or for programs only.
NOT_SHOWN = ("timestamp", "level", "event", "exception", "logger", "pid")


def logs(
    name: Annotated[
        str | None, Parameter(help="A simulation, also one that ended; without: the daemon.")
    ] = None,
    /,
    *,
    follow: Annotated[
        bool,
        Parameter(
            name=("--follow", "-f"), help="Go on until Ctrl-C, or until what logs has ended."
        ),
    ] = False,
    lines: Annotated[
        int,
        Parameter(
            name=("--lines", "-n"),
            validator=at_least(0),
            help="How many of the last lines; 100 by default.",
        ),
    ] = 100,
    daemon: Daemon = None,
    json: Annotated[
        bool, Parameter(help="Print a JSON list, or with -f a JSON object a line.")
    ] = False,
) -> int:
    """Show the log of a simulation, or the daemon's own.

    All that agents print is in the log of their simulation.

    For example:

        creamas-supervisor logs novelty
        creamas-supervisor logs novelty -f -n 0       # only what is new
        creamas-supervisor logs                       # the daemon's
    """
    path, pid = _find(name, daemon)
    show = out_json if json else partial(_show, name)
    with _opened(path, name) as file, _watched(pid if follow else None) as lives:
        tail = _Tail(file, lines)
        if json and not follow:
            out_json([_parsed(line) for line in tail.read(whole=True)], indent=2)
            return Exit.DONE
        alive = follow
        while True:
            for line in tail.read(whole=not alive):
                show(_parsed(line))
            flush()
            if not alive:
                return Exit.DONE
            alive = lives()  # once it is dead, what it wrote last is still to be read


def _find(name: str | None, flag: str | None) -> tuple[Path, int | None]:
    """The file of a log, and the process that writes into it, if there is one."""
    settings, daemon = chosen_daemon(flag)
    path = settings.logs() / f"{daemon}.log"
    if name is not None:
        checked_name(name, "simulation")
    told: dict[str, Any] = {}
    unknown: UnknownSimulation | None = None
    try:
        with linked(flag) as (client, _):
            told = client.status()
            path = Path(told["log"] or path)
            if name is not None:
                told = client.inspect(name)
    except UnknownSimulation as error:
        unknown = error
    except CreamasError:
        pass  # its log is still there to be read
    if name is not None:
        path = path.with_name(daemon) / f"{name}.log"
        if unknown is not None and not path.exists():
            raise unknown
    lives = unknown is None and told.get("state") != "ended"
    return path, told.get("pid") if lives else None


@contextmanager
def _opened(path: Path, name: str | None) -> Iterator[BinaryIO]:
    try:
        file = path.open("rb")
    except FileNotFoundError:
        what = "the daemon" if name is None else f"the simulation {name!r}"
        raise Failure(f"{what} has no log: there is no file {path}") from None
    with file:
        yield file


@contextmanager
def _watched(pid: int | None) -> Iterator[Callable[[], bool]]:
    """A function that waits a moment and says whether a process still lives."""
    try:
        descriptor = None if pid is None else os.pidfd_open(pid)
    except ProcessLookupError:
        descriptor = None
    if descriptor is None:
        yield lambda: False
        return
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    try:
        yield lambda: not poll.poll(LOOK_SECONDS * 1000)
    finally:
        os.close(descriptor)


class _Tail:
    """The last lines of a file, and those that come."""

    def __init__(self, file: BinaryIO, lines: int) -> None:
        self._file = file
        self._begun = b""
        _seek_last(file, lines)

    def read(self, *, whole: bool) -> list[str]:
        """The lines that are new; ``whole``: also a last one that has no end."""
        if os.fstat(self._file.fileno()).st_size < self._file.tell():
            self._file.seek(0)  # somebody has emptied it
        *lines, self._begun = (self._begun + self._file.read()).split(b"\n")
        if whole and self._begun:
            lines, self._begun = [*lines, self._begun], b""
        return [line.decode(errors="replace") for line in lines]


def _seek_last(file: BinaryIO, lines: int) -> None:
    """Go to the begin of the last lines; the end of a line that is not ended counts as one."""
    place = file.seek(0, os.SEEK_END)
    if place == 0 or lines == 0:
        return
    file.seek(-1, os.SEEK_END)
    missing = lines + (file.read(1) == b"\n")
    while place > 0:
        start = max(0, place - BLOCK_BYTES)
        file.seek(start)
        block = file.read(place - start)
        if block.count(b"\n") >= missing:
            for _ in range(missing):
                block = block[: block.rindex(b"\n")]
            file.seek(start + len(block) + 1)
            return
        missing -= block.count(b"\n")
        place = start
    file.seek(0)


def _parsed(line: str) -> dict[str, Any]:
    try:
        told = jsonlib.loads(line)
    except ValueError:
        told = None
    # Whatever else stands there was printed, by a user's code as a rule.
    return told if isinstance(told, dict) and "event" in told else {"printed": line}


def _show(name: str | None, told: dict[str, Any]) -> None:
    if "printed" in told:
        out(told["printed"])
        return
    level = str(told.get("level", ""))
    ids = [
        f"{key}={value}"
        for key, value in told.items()
        if key not in NOT_SHOWN and not (key == "simulation" and value == name)
    ]
    line = " ".join([_local(told.get("timestamp")), level, str(told["event"]), *ids])
    color = LEVEL_COLORS.get(level)
    out(f"\x1b[{color}m{line}\x1b[0m" if color and colored(sys.stdout) else line)
    for more in str(told.get("exception", "")).splitlines():
        out(f"    {more}")


def _local(timestamp: object) -> str:
    try:
        moment = datetime.fromisoformat(str(timestamp)).astimezone()
    except ValueError:
        return str(timestamp)
    return f"{moment:%Y-%m-%d %H:%M:%S}"

"""The command top: a daemon's simulations, drawn again and again, or as a stream of JSON."""

from __future__ import annotations

import os
import select
import sys
import termios
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from creamas_sc.errors import CreamasError
from creamas_sc.runtime.validation import MAX_SECONDS
from supervisor.cli import output
from supervisor.cli.daemon_connection import connected
from supervisor.cli.exits import Exit, Failure
from supervisor.cli.params import Daemon
from supervisor.cli.watching import Seen, Watches, watches

if TYPE_CHECKING:
    from creamas_sc.client import SyncClient

LEAST_SECONDS = 0.1
_NEXT = ("\t", "j", "\x1b[B", "\x1b[C")
_BEFORE = ("k", "\x1b[A", "\x1b[D", "\x1b[Z")


def top(
    name: str | None = None,
    /,
    *,
    metric: Annotated[str | None, Parameter(metavar="NAME")] = None,
    every: Annotated[float, Parameter(metavar="SECONDS")] = 1.0,
    json: bool = False,
    daemon: Daemon = None,
) -> int:
    """Watch the simulations: steps, slaves, a metric, the log.

    The picture is drawn again each second. Keys: p pauses the simulation that
    is marked, r lets it go on, Tab marks the next one, q quits. None of them
    ends a simulation.

    For example:

        creamas-supervisor top
        creamas-supervisor top novelty --metric novelty
        creamas-supervisor top --json | jq -c '[.name, .progress.step]'

    Args:
        name: The simulation to show first; with --json, the only one.
        metric: What to draw, of what a record holds. Default: its first one, or steps/s.
        every: Seconds between two looks. Default: 1.
        json: Print a JSON object in a line for each simulation and look, until Ctrl-C.
    """
    if not LEAST_SECONDS <= every <= MAX_SECONDS:
        allowed = f"from {LEAST_SECONDS} to {MAX_SECONDS:,.0f}"
        raise Failure(f"--every must be a number of seconds {allowed}", Exit.USAGE)
    if not json and not output.is_terminal(sys.stdout):
        ways = "creamas-supervisor ls, attach NAME, or top --json"
        raise Failure(f"top draws on a terminal, and this is none: use {ways}", Exit.USAGE)
    with connected(daemon) as (client, _), watches(client) as found:
        if name is not None:
            client.inspect(name)  # a name that there is not is an error
        if json:
            return _stream(found, name, every)
        return _Screen(client, found, name, metric).run(every)


# ---- for programs


def _stream(found: Watches, name: str | None, every: float) -> int:
    due = time.monotonic()
    while True:
        shown = [seen for seen in found.look(name, name is None) if name in (None, seen.name)]
        for seen in shown:
            output.out_json(_plain(seen))
        if name is not None and not shown:
            output.note(f"{name} has ended")
            return Exit.DONE
        due = max(due + every, time.monotonic())
        time.sleep(max(0.0, due - time.monotonic()))


def _plain(seen: Seen) -> dict[str, Any]:
    summary = {key: seen.summary[key] for key in ("name", "state", "pid", "since", "cause")}
    latest = {name: values[-1] for name, values in seen.metrics.items()}
    return {
        "time": time.time(),
        **summary,
        "progress": seen.progress,
        "processes": seen.loads,
        "metrics": latest,
        "log": seen.log[len(seen.log) - seen.new :],
        "problem": seen.problem,
    }


# ---- for people


class _Screen:
    """The picture on a terminal, and what keys do."""

    def __init__(
        self, client: SyncClient, found: Watches, name: str | None, metric: str | None
    ) -> None:
        self._daemon = f"the daemon {client.daemon!r} (pid {client.pid})"
        self._watches = found
        self._marked = name
        self._metric = metric
        self._names: list[str] = []
        self._said = ""

    def run(self, every: float) -> int:
        """Draw until the user quits."""
        from rich.console import Console
        from rich.live import Live

        console = Console(highlight=False)
        with _keys() as keys, Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                seen = self._look()
                due = time.monotonic() + every
                while True:
                    live.update(self._picture(seen, console), refresh=True)
                    key = keys(max(0.0, due - time.monotonic()))
                    if key == "q":
                        return Exit.DONE
                    if not key or self._act(key):
                        break

    def _look(self) -> list[Seen]:
        seen = self._watches.look(self._marked, False)
        self._names = [each.name for each in seen]
        if self._marked not in self._names:
            before, self._marked = self._marked, self._first(seen)
            if before is not None:
                self._said = f"{before} has ended"
            if self._marked is not None:
                seen = self._watches.look(self._marked, False)
        return seen

    def _first(self, seen: Sequence[Seen]) -> str | None:
        """Which one to mark: one that takes steps, if there is any."""
        steps = [each.name for each in seen if (each.progress or {}).get("state") == "stepping"]
        return next(iter([*steps, *self._names]), None)

    def _act(self, key: str) -> bool:
        """Do what a key means; whether to look again."""
        self._said = ""
        if self._marked is None:
            return False
        if key in (*_NEXT, *_BEFORE):
            step = 1 if key in _NEXT else -1
            self._marked = self._names[(self._names.index(self._marked) + step) % len(self._names)]
            return True
        try:
            if key == "p":
                self._said = self._watches.pause(self._marked)
            elif key == "r":
                self._said = self._watches.resume(self._marked)
            else:
                self._said = "p pauses, r resumes, Tab marks the next simulation, q quits"
                return False
        except CreamasError as error:
            self._said = " ".join(str(error).split())
        return True

    def _picture(self, seen: Sequence[Seen], console: Any) -> Any:
        from supervisor.cli.top_picture import picture

        return picture(
            self._daemon, seen, self._marked, self._metric, self._said, console.size,
            console.encoding.startswith("utf"),
        )  # fmt: skip


def _no_key(seconds: float) -> str:
    time.sleep(seconds)
    return ""


@contextmanager
def _keys() -> Iterator[Callable[[float], str]]:
    """Read single keys from the terminal: a function that waits some seconds for one."""
    if not output.is_terminal(sys.stdin):
        yield _no_key
        return
    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    changed = termios.tcgetattr(fd)
    changed[3] &= ~(termios.ICANON | termios.ECHO)
    # Ctrl-Z would leave the shell with this screen.
    changed[6][termios.VSUSP] = os.fpathconf(fd, "PC_VDISABLE").to_bytes(1, "little")

    def key(seconds: float) -> str:
        if not select.select([fd], [], [], seconds)[0]:
            return ""
        data = os.read(fd, 64)
        return data.decode(errors="replace") if data else "q"  # the terminal has gone

    termios.tcsetattr(fd, termios.TCSADRAIN, changed)
    try:
        yield key
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)

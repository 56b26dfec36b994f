"""The command attach, and what all commands that wait for a simulation's steps have in common."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from creamas_sc.errors import ConnectionLost, CreamasError, DeadlineExceeded
from supervisor.cli.daemon_connection import connected
from supervisor.cli.display import Display, JsonLines, Live, Plain, seen_by_client
from supervisor.cli.exits import Exit
from supervisor.cli.main import Terminated
from supervisor.cli.output import is_terminal, note, out_json
from supervisor.cli.params import Daemon, Name

if TYPE_CHECKING:
    from creamas_sc.client import SyncClient, SyncSimulation

# How often a display is updated when there are no events.
REFRESH_SECONDS = 1.0


def attach(
    name: Name, /, *, until_done: bool = False, json: bool = False, daemon: Daemon = None
) -> int:
    """Follow a simulation's progress and events.

    Ctrl-C detaches, and the simulation goes on. The command also ends when
    the simulation does. With --until-done it fails (exit code 1) if not all
    steps were taken.

    For example:

        creamas-supervisor attach novelty
        creamas-supervisor attach novelty --until-done
        creamas-supervisor attach novelty --json | jq .acts_per_second

    Args:
        until_done: Return when the steps are done.
        json: Print a JSON object in a line for each event, for programs.
    """
    with connected(daemon) as (client, _), client.attach(name) as sim:
        display = JsonLines(name) if json else on_terminal(name)
        return watch(client, sim, display, until_done=until_done)


def on_terminal(name: str) -> Display:
    """Return what shows a simulation to people, on a terminal or elsewhere."""
    return Live(name) if is_terminal(sys.stdout) else Plain(name)


def watch(
    client: SyncClient,
    sim: SyncSimulation,
    display: Display,
    *,
    until_done: bool,
    timeout: float | None = None,
) -> Exit:
    """Show a simulation until it ends or the user leaves, and say which of these happened.

    Args:
        until_done: Return when its steps are done, and fail if not all of them were taken.
        timeout: Seconds to follow it; None for no limit.

    Raises:
        CreamasError: The simulation ended other than by being closed, or the daemon is gone.
        DeadlineExceeded: ``timeout`` passed.
    """
    progress: dict[str, Any] = {}
    closing = False
    try:
        with display:
            for events in _events(sim, timeout):
                for event, details in events:
                    closing = closing or (event == "closing" and details["cause"] == "closed")
                    if event == "steps":
                        progress |= seen_by_client(details)
                    else:
                        display.event(event, details)
                # For people, the cause of a failure is in the last message and nowhere else.
                in_message = until_done and not display.for_programs
                display.update(progress | {"error": ""} if in_message else progress)
                # A simulation whose steps are closed is about to end: how, is known then.
                if until_done and progress["state"] not in ("stepping", "closed"):
                    break
    except ConnectionLost:
        if not closing and not was_closed(client, sim.name):
            raise
        code = closed(sim.name, display.for_programs)
        return Exit.FAILED if until_done and _unfinished(progress) else code
    except KeyboardInterrupt as error:
        note("detached; the simulation goes on")
        return code_of(error)
    if progress["state"] == "failed":
        cause = " ".join(progress["error"].split())
        more = f"creamas-supervisor logs {sim.name} has more"
        note(f"the steps of {sim.name} failed: {cause}; {more}")
        return Exit.FAILED
    if _unfinished(progress):
        at = f"step {progress['step']:,} of {progress['of']:,}"
        note(f"the steps of {sim.name} are not done: {progress['state']} at {at}")
        return Exit.FAILED
    return Exit.DONE


def _events(sim: SyncSimulation, timeout: float | None) -> Iterator[list[tuple[str, Any]]]:
    """Yield the progress, then what has happened since: at least once a second, perhaps nothing.

    Raises:
        DeadlineExceeded: ``timeout`` seconds passed.
    """
    give_up_at = math.inf if timeout is None else time.monotonic() + timeout
    last, _ = sim.next_events()
    yield [("steps", sim.progress())]
    while (left := give_up_at - time.monotonic()) > 0:
        before = last
        last, events = sim.next_events(last, min(left, REFRESH_SECONDS))
        lost = last - before - len(events)
        gap = [("gap", {"lost": lost})] if lost else []
        yield [*gap, *((event, details) for _, event, details in events)]
    raise DeadlineExceeded(f"{sim.name} is still stepping after {timeout:g} s")


def code_of(interrupt: KeyboardInterrupt) -> Exit:
    """Return the exit code after a signal that ended a wait."""
    return Exit.TERMINATED if isinstance(interrupt, Terminated) else Exit.INTERRUPTED


def closed(name: str, json: bool) -> Exit:
    """Say that a simulation was closed."""
    if json:
        out_json({"name": name, "state": "ended", "cause": "closed"})
    else:
        note(f"{name} was closed")
    return Exit.DONE


def _unfinished(progress: Mapping[str, Any]) -> bool:
    return progress.get("of") is not None and progress["step"] < progress["of"]


def was_closed(client: SyncClient, name: str) -> bool:
    """Return whether the simulation of that name has ended because it was closed."""
    try:
        return bool(client.inspect(name)["cause"] == "closed")
    except CreamasError:  # the daemon has gone too, or no longer knows the name
        return False

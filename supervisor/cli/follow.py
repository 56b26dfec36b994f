"""Follow a simulation: its progress and events, until it ends, its steps do, or the user leaves."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from creamas_sc.errors import ConnectionLost, CreamasError
from supervisor.cli.display import Display, Live, Plain
from supervisor.cli.exits import Exit, Terminated
from supervisor.cli.output import note, out_json

if TYPE_CHECKING:
    from creamas_sc.client import SyncClient, SyncSimulation

__all__ = ["Ended", "follow", "how_it_ended", "outcome", "show", "unfinished", "watch"]

# How often a display is brought up to date where no event comes.
REFRESH_SECONDS = 1.0


class Ended(Exception):
    """The simulation ended.

    Args:
        error: The error of the call that was under way.
        progress: The last that is known.
        announced: The simulation said that it was being closed.
    """

    def __init__(
        self, error: CreamasError, progress: Mapping[str, Any], announced: bool = False
    ) -> None:
        super().__init__(str(error))
        self.error = error
        self.progress = progress
        self.announced = announced


def show(name: str) -> Display:
    """What shows people a simulation on this process's standard output."""
    dumb = sys.stdout is None or not sys.stdout.isatty()
    return Plain(name) if dumb else Live(name)


def follow(sim: SyncSimulation, display: Display, *, until_done: bool) -> dict[str, Any]:
    """Show a simulation until its steps are done; for ever, unless ``until_done``.

    Returns:
        Its last progress.

    Raises:
        Ended: The simulation did.
    """
    sim.timeout = None  # an event may be far away
    announced = False
    progress: dict[str, Any] = {}
    with display:
        try:
            last, _ = sim.next_events()
            progress = sim.progress()
            display.update(progress)
            while not until_done or progress["state"] == "stepping":
                before = last
                last, events = sim.next_events(last, REFRESH_SECONDS)
                if lost := last - before - len(events):
                    display.event("gap", {"lost": lost})
                for _, name, details in events:
                    announced = announced or (name == "closing" and details["cause"] == "closed")
                    if name == "steps":
                        progress |= details
                    else:
                        display.event(name, details)
                display.update(progress)
        except ConnectionLost as error:
            raise Ended(error, progress, announced) from error
    return progress


def watch(client: SyncClient, sim: SyncSimulation, display: Display, *, until_done: bool) -> Exit:
    """Follow a simulation to the end, and tell in words how that came."""
    try:
        return outcome(sim.name, follow(sim, display, until_done=until_done))
    except Ended as ended:
        code = how_it_ended(client, sim.name, ended, display.for_programs)
        return Exit.FAILED if until_done and unfinished(ended.progress) else code
    except KeyboardInterrupt:
        code = Exit.INTERRUPTED
    except Terminated:
        code = Exit.TERMINATED
    note("detached; the simulation goes on")
    return code


def how_it_ended(client: SyncClient, name: str, ended: Ended, json: bool) -> Exit:
    """Tell how a simulation ended.

    Raises:
        CreamasError: By no close; the message says how.
    """
    if not ended.announced and _cause(client, name) != "closed":
        raise ended.error
    if json:
        out_json({"name": name, "state": "ended", "cause": "closed"})
    else:
        note(f"{name} was closed")
    return Exit.DONE


def outcome(name: str, progress: Mapping[str, Any]) -> Exit:
    """What steps that are over mean; tells why not all were taken."""
    if progress["state"] == "failed":
        words = " ".join(progress["error"].split())
        note(f"the steps of {name} failed: {words}; creamas-supervisor logs {name} has more")
        return Exit.FAILED
    if unfinished(progress):
        at = f"step {progress['step']:,} of {progress['of']:,}"
        note(f"the steps of {name} are not done: {progress['state']} at {at}")
        return Exit.FAILED
    return Exit.DONE


def unfinished(progress: Mapping[str, Any]) -> bool:
    """Whether fewer steps were taken than asked for."""
    return progress.get("of") is not None and progress["step"] < progress["of"]


def _cause(client: SyncClient, name: str) -> str:
    try:
        return str(client.inspect(name)["cause"])
    except CreamasError:  # the daemon has gone too, or knows the name no more
        return ""

"""Verbs of a simulation's own steps: step, pause, resume, wait."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from creamas_sc.errors import ConnectionLost, UnknownSimulation
from supervisor.cli.daemon_connection import linked
from supervisor.cli.display import Last, progress_line
from supervisor.cli.exits import Exit, Failure
from supervisor.cli.follow import Ended, how_it_ended, outcome, show, unfinished, watch
from supervisor.cli.output import emit
from supervisor.cli.params import Daemon, Json, Name, Seconds, at_least

if TYPE_CHECKING:
    from creamas_sc.client import SyncSimulation

__all__ = ["pause", "resume", "step", "wait"]


def step(
    name: Name,
    n: Annotated[
        int | None, Parameter(validator=at_least(1), help="How many steps; 1 by default.")
    ] = None,
    /,
    *,
    forever: Annotated[bool, Parameter(help="Step on until pause or close.")] = False,
    wait: Annotated[
        bool, Parameter(help="Follow the steps and return when they are done.")
    ] = False,
    daemon: Daemon = None,
    json: Json = False,
) -> int:
    """Have a simulation step by itself.

    In a step every agent acts once. Returns at once, unless told to wait.

    For example:

        creamas-supervisor step novelty 1000
        creamas-supervisor step novelty 10 --wait
        creamas-supervisor step novelty --forever
    """
    if forever and n is not None:
        raise Failure("give a number of steps or --forever, not both", Exit.USAGE)
    steps = None if forever else n or 1
    with linked(daemon) as (client, _), client.attach(name) as sim:
        progress = sim.start_steps(steps)
        if not wait:
            return _tell(name, progress, json)
        return watch(client, sim, Last(name) if json else show(name), until_done=True)


def pause(name: Name, /, *, daemon: Daemon = None, json: Json = False) -> int:
    """Stop a simulation's steps until resume.

    The step under way is finished first.

    For example:

        creamas-supervisor pause novelty
    """
    return _ask(name, daemon, json, lambda sim: sim.pause())


def resume(name: Name, /, *, daemon: Daemon = None, json: Json = False) -> int:
    """Go on where pause or an error stopped the steps.

    For example:

        creamas-supervisor resume novelty
    """
    return _ask(name, daemon, json, lambda sim: sim.resume())


def wait(
    name: Name,
    /,
    *,
    timeout: Annotated[
        Seconds, Parameter(help="Seconds to wait at most; no limit without.")
    ] = None,
    daemon: Daemon = None,
    json: Json = False,
) -> int:
    """Wait until a simulation's steps are done.

    Or paused, or it has ended. It fails (exit code 1) if not all steps that
    were asked for have been taken; 75 means that the time was up.

    For example:

        creamas-supervisor step novelty 1000
        creamas-supervisor wait novelty --timeout 3600
    """
    with linked(daemon) as (client, settings):
        progress: dict[str, Any] = {}
        try:
            with client.attach(name) as sim:
                progress = sim.progress()
                sim.timeout = None if timeout is None else timeout + settings.answer_timeout
                progress = sim.wait_steps(timeout=timeout)
        except (ConnectionLost, UnknownSimulation) as error:
            code = how_it_ended(client, name, Ended(error, progress), json)
            return Exit.FAILED if unfinished(progress) else code
    _tell(name, progress, json)
    return outcome(name, progress)


def _ask(name: str, daemon: str | None, json: bool, what: Callable[[SyncSimulation], Any]) -> int:
    with linked(daemon) as (client, _), client.attach(name) as sim:
        return _tell(name, what(sim), json)


def _tell(name: str, progress: Mapping[str, Any], json: bool) -> int:
    emit({"name": name, **progress}, json, lambda: [progress_line(name, progress)])
    return Exit.DONE

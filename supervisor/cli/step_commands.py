"""Commands for a simulation's own steps: step, pause, resume, wait."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

from creamas_sc.errors import UnknownSimulation
from supervisor.cli.daemon_connection import connected
from supervisor.cli.display import Result, progress_line
from supervisor.cli.exits import Exit, Failure
from supervisor.cli.follow import closed, on_terminal, was_closed, watch
from supervisor.cli.output import emit
from supervisor.cli.params import Daemon, Json, Name, Seconds, Whole, at_least

if TYPE_CHECKING:
    from creamas_sc.client import SyncSimulation


def step(
    name: Name,
    n: Annotated[int | None, Whole, at_least(1)] = None,
    /,
    *,
    forever: bool = False,
    wait: bool = False,
    daemon: Daemon = None,
    json: Json = False,
) -> int:
    """Let a simulation step by itself.

    In a step every agent acts once. The command returns at once, unless
    --wait is given.

    For example:

        creamas-supervisor step novelty 1000
        creamas-supervisor step novelty 10 --wait
        creamas-supervisor step novelty --forever

    Args:
        n: Number of steps. Default: 1.
        forever: Step until pause or close.
        wait: Follow the steps and return when they are done.
    """
    if forever and n is not None:
        raise Failure("give a number of steps or --forever, not both", Exit.USAGE)
    with connected(daemon) as (client, _), client.attach(name) as sim:
        progress = sim.start_steps(None if forever else n or 1)
        if not wait:
            return _show(name, progress, json)
        display = Result(name, json) if json else on_terminal(name)
        return watch(client, sim, display, until_done=True)


def pause(name: Name, /, *, daemon: Daemon = None, json: Json = False) -> int:
    """Stop a simulation's steps until resume.

    The current step is finished first.

    For example:

        creamas-supervisor pause novelty
    """
    return _request(name, daemon, json, lambda sim: sim.pause())


def resume(name: Name, /, *, daemon: Daemon = None, json: Json = False) -> int:
    """Continue the steps after pause or an error.

    For example:

        creamas-supervisor resume novelty
    """
    return _request(name, daemon, json, lambda sim: sim.resume())


def wait(
    name: Name, /, *, timeout: Seconds = None, daemon: Daemon = None, json: Json = False
) -> int:
    """Wait until a simulation's steps are done.

    The command also returns when they are paused or the simulation ends. It
    fails (exit code 1) if not all steps were taken, and with exit code 75 if
    the time is up.

    For example:

        creamas-supervisor step novelty 1000
        creamas-supervisor wait novelty --timeout 3600

    Args:
        timeout: Seconds to wait. Default: no limit.
    """
    with connected(daemon) as (client, settings):
        try:
            with client.attach(name) as sim:
                sim.timeout = None if timeout is None else timeout + settings.answer_timeout
                display = Result(name, json)
                return watch(client, sim, display, until_done=True, timeout=timeout)
        except UnknownSimulation:
            if not was_closed(client, name):
                raise
            return closed(name, json)


def _request(
    name: str, daemon: str | None, json: bool, request: Callable[[SyncSimulation], Any]
) -> int:
    with connected(daemon) as (client, _), client.attach(name) as sim:
        return _show(name, request(sim), json)


def _show(name: str, progress: Mapping[str, Any], json: bool) -> int:
    emit({"name": name, **progress}, json, lambda: [progress_line(name, progress)])
    return Exit.DONE

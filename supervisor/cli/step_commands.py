"""Commands for a simulation's own steps: step, pause, resume, wait."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from creamas_sc.errors import DeadlineExceeded, UnknownSimulation
from supervisor.cli.daemon_connection import checked_name, connected, extra_time, start_deadline
from supervisor.cli.display import Result, progress_line, seen_by_client
from supervisor.cli.exits import Exit, Failure
from supervisor.cli.follow import closed, code_of, on_terminal, was_closed, watch
from supervisor.cli.output import emit, note
from supervisor.cli.params import Daemon, Json, Name, Seconds, Whole, at_least

if TYPE_CHECKING:
    from creamas_sc.client import SyncSimulation

OnOverrun = Literal["cancel", "kill"]
# A step that takes longer is waited for in words.
SOON_SECONDS = 0.5


def step(
    name: Name,
    n: Annotated[int | None, Whole, at_least(1)] = None,
    /,
    *,
    forever: bool = False,
    wait: bool = False,
    within: Seconds = None,
    on_overrun: Annotated[OnOverrun | None, Parameter(metavar="WHAT")] = None,
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
        creamas-supervisor step novelty 1000 --within 2

    Args:
        n: Number of steps. Default: 1.
        forever: Step until pause or close.
        wait: Follow the steps and return when they are done.
        within: How long each step may take; agents that are late are cancelled.
        on_overrun: With --within: cancel, or kill slaves that do not even answer. Default: cancel.
    """
    if forever and n is not None:
        raise Failure("give a number of steps or --forever, not both", Exit.USAGE)
    if on_overrun is not None and within is None:
        raise Failure("--on-overrun goes with --within", Exit.USAGE)
    number = None if forever else n or 1
    with connected(daemon) as (client, _), client.attach(name) as sim:
        if within is None:
            progress = sim.start_steps(number)
        else:
            progress = sim.start_steps_within(within, number, on_overrun=on_overrun or "cancel")
        if not wait:
            return _show(name, progress, json)
        display = Result(name, json) if json else on_terminal(name)
        return watch(client, sim, display, until_done=True)


def pause(
    name: Name, /, *, timeout: Seconds = None, daemon: Daemon = None, json: Json = False
) -> int:
    """Stop a simulation's steps until resume.

    The current step is finished first, and the command waits for that. If it
    ends before, by Ctrl-C or --timeout (exit code 75), the simulation still
    stops after the step.

    For example:

        creamas-supervisor pause novelty
        creamas-supervisor pause novelty --timeout 0

    Args:
        timeout: Seconds to wait for the end of the step. Default: no limit.
    """
    with connected(daemon) as (client, settings), client.attach(name) as sim:
        later = f"{name} pauses after this step"
        try:
            progress = _pause(sim, timeout, settings.answer_timeout, later)
        except DeadlineExceeded as error:
            if not error.acknowledged:  # by the simulation
                raise
            text = f"the step was not done after {timeout:g} s; {later}"
            raise Failure(text, Exit.TIMED_OUT) from None
        except KeyboardInterrupt as error:
            note(f"not waiting any longer; {later}")
            return code_of(error)
        return _show(name, progress, json)


def _pause(
    sim: SyncSimulation, timeout: float | None, answer_timeout: float, later: str
) -> Mapping[str, Any]:
    """Pause a simulation; print what happens ``later`` if its step takes long."""
    left = timeout
    if timeout is None or timeout > SOON_SECONDS:
        sim.timeout = SOON_SECONDS + answer_timeout
        try:
            return sim.pause(SOON_SECONDS)  # type: ignore[no-any-return]
        except DeadlineExceeded as error:
            if not error.acknowledged:
                raise
        note(f"{later}; Ctrl-C ends only the wait for it")
        left = None if timeout is None else timeout - SOON_SECONDS
    sim.timeout = None if left is None else left + answer_timeout
    return sim.pause(left)  # type: ignore[no-any-return]


def resume(
    name: Annotated[str, Parameter(help="A simulation's name; with FOLDER, that of a new one.")],
    folder: Path | None = None,
    /,
    *,
    slaves: Annotated[int | None, Whole, at_least(1)] = None,
    step: Annotated[int | None, Whole, at_least(0)] = None,
    changed_code: bool = False,
    place: Annotated[str | None, Parameter(metavar="PLACE")] = None,
    timeout: Seconds = None,
    daemon: Daemon = None,
    json: Json = False,
) -> int:
    """Continue the steps after pause or an error, or a recorded run.

    With FOLDER, the record of a run that has ended, or whose processes were
    killed, a new simulation goes on with it from its last checkpoint. What was
    recorded after that is removed. FOLDER may also be the file of one run.

    For example:

        creamas-supervisor resume novelty
        creamas-supervisor create novelty simulation.toml --record results --checkpoint-every 10
        creamas-supervisor resume novelty results --slaves 4

    Args:
        slaves: With FOLDER: how many. Default: as many as there were.
        step: With FOLDER: go on from the checkpoint of this step. Default: the last one.
        changed_code: With FOLDER: go on although the agents' code is not what it was.
        place: With FOLDER: on which machine slaves run: here, nodes, or the name of a node. The
            folder must be the same there. Default: here.
        timeout: With FOLDER: seconds until everything is ready. Default: create_timeout, 30.
    """
    if folder is None:
        given: dict[str, Any] = {"--slaves": slaves, "--step": step, "--timeout": timeout}
        given |= {"--changed-code": changed_code or None, "--place": place}
        wrong = next((option for option, value in given.items() if value is not None), None)
        if wrong is not None:
            raise Failure(f"{wrong} goes with a FOLDER of a recorded run", Exit.USAGE)
        return _request(name, daemon, json, lambda sim: sim.resume())
    checked_name(name, "simulation")
    with connected(daemon) as (client, settings):
        seconds = settings.create_timeout if timeout is None else timeout
        with extra_time(client, seconds), start_deadline(time.monotonic() + seconds):
            created = client.resume(
                name,
                folder,
                slaves=slaves,
                step=step,
                changed_code=changed_code,
                place=place,
                timeout=seconds,
            )
        with client.attach(name) as sim:
            progress = sim.progress()
    emit({**created, **progress}, json, lambda: [f"resumed {progress_line(name, progress)}"])
    return Exit.DONE


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
    progress = seen_by_client(progress)
    emit({"name": name, **progress}, json, lambda: [progress_line(name, progress)])
    return Exit.DONE

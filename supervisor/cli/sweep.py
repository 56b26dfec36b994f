"""The command sweep: a study, of which it runs what is not done."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from creamas_sc.errors import BadValue
from supervisor.cli import params
from supervisor.cli.create import import_path, killed_on_error
from supervisor.cli.daemon_connection import checked_name, connected, extra_time, start_deadline
from supervisor.cli.exits import Exit, Failure
from supervisor.cli.output import count, emit, note
from supervisor.cli.params import Daemon, Json, Whole, at_least
from supervisor.cli.user_code import own_errors, searched

if TYPE_CHECKING:
    from creamas_sc import Experiment

# Of runs that failed, as many are shown.
_SHOWN = 3


def sweep(
    study: str,
    /,
    *,
    workers: Annotated[int | None, Parameter(metavar="N"), Whole, at_least(1)] = None,
    name: str | None = None,
    daemon: Daemon = None,
    json: Json = False,
) -> int:
    """Run a simulation with many parameters and seeds.

    STUDY is a TOML file, or file.py:NAME, an Experiment that a module defines.
    Ctrl-C stops the runs in order; the same command then runs what is not
    done, and what has failed. The exit code is 0 if all runs are done, and 1
    if some failed or were lost.

    No daemon is needed. With --name, a daemon runs the study as a simulation
    whose steps are the runs: the command returns at once, and attach, pause,
    resume, wait and close do what they always do.

    For example:

        creamas-supervisor sweep study.toml
        creamas-supervisor sweep study.py:experiment --workers 4
        creamas-supervisor sweep study.toml --name study

    Args:
        study: Its keys: python -c 'help("creamas_sc.simulation_files")'
        workers: How many runs go on side by side. Default: as many as there are cores.
        name: Have a daemon run it, as a simulation of this name.
    """
    classes = params.Classes()
    wanted = study if study.endswith(".toml") else classes.of(study, "STUDY")
    with searched(classes.folders), own_errors():
        experiment = _experiment(wanted)
        if name is not None:
            return _in_daemon(name, wanted, workers, experiment, classes.folders, daemon, json)
        progress = experiment.run(workers)
    ends = {state: getattr(progress, state) for state in ("total", "done", "failed", "lost")}
    data = {**ends, "taken": progress.taken, "seconds": progress.seconds}
    emit({"folder": str(experiment.folder), **data}, json,
         lambda: [f"{progress}; they are in {experiment.folder}"])  # fmt: skip
    return _judge(experiment) if progress.failed or progress.lost else Exit.DONE


def _experiment(study: str) -> Experiment:
    from creamas_sc.experiments.study import load_experiment

    try:
        return load_experiment(study)
    except BadValue as error:
        raise Failure(str(error), Exit.USAGE) from None


def _in_daemon(
    name: str,
    study: str,
    workers: int | None,
    experiment: Experiment,
    folders: Sequence[str],
    daemon: str | None,
    json: bool,
) -> int:
    """Have a daemon run it."""
    checked_name(name, "simulation")
    if not experiment.left:
        raise Failure(f"all {experiment.total} runs are done; they are in {experiment.folder}")
    study = os.path.abspath(study) if study.endswith(".toml") else study
    with connected(daemon) as (client, settings), import_path(folders):
        seconds = settings.create_timeout
        with extra_time(client, seconds), start_deadline(time.monotonic() + seconds):
            created = client.create(
                name,
                menv_cls="creamas_sc.experiments.study:Study",
                env_kwargs={"experiment": study, "workers": workers},
                timeout=seconds,
            )
        with killed_on_error(client, name), client.attach(name) as sim:
            left, total = sim.call("runs_left")
            sim.start_steps(left)
    line = f"{name} takes {left} of {count(total, 'run')} (pid {created['pid']})"
    emit({**created, "runs": left, "total": total}, json, lambda: [line])
    return Exit.DONE


def _judge(experiment: Experiment) -> Exit:
    bad = [row for row in experiment.runs.rows() if row["state"] in ("failed", "lost")]
    for row in bad[:_SHOWN]:
        note(f"run {row['key']} {row['state']}: {row['error']}")
    if len(bad) > _SHOWN:
        note(f"and {count(len(bad) - _SHOWN, 'other run')}")
    return Exit.FAILED

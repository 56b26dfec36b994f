"""The command sweep: a study, of which it runs what is not done."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from creamas_sc.errors import BadValue
from creamas_sc.foreign import shown
from creamas_sc.runtime.class_loading import load_object
from supervisor.cli import params
from supervisor.cli.exits import Exit, Failure
from supervisor.cli.output import count, emit, note
from supervisor.cli.params import Json, Whole, at_least
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
    json: Json = False,
) -> int:
    """Run a simulation with many parameters and seeds.

    STUDY is a TOML file, or file.py:NAME, an Experiment that a module defines.
    No daemon is needed. Ctrl-C stops the runs in order; the same command then
    runs what is not done, and what has failed. The exit code is 0 if all runs
    are done, and 1 if some failed or were lost.

    For example:

        creamas-supervisor sweep study.toml
        creamas-supervisor sweep study.py:experiment --workers 4

    Args:
        study: Its keys: python -c 'help("creamas_sc.simulation_files")'
        workers: How many runs go on side by side. Default: as many as there are cores.
    """
    classes = params.Classes()
    name = None if study.endswith(".toml") else classes.of(study, "STUDY")
    with searched(classes.folders), own_errors():
        experiment = _of_file(study) if name is None else _of_module(name)
        progress = experiment.run(workers)
    ends = {state: getattr(progress, state) for state in ("total", "done", "failed", "lost")}
    data = {**ends, "taken": progress.taken, "seconds": progress.seconds}
    emit({"folder": str(experiment.folder), **data}, json,
         lambda: [f"{progress}; they are in {experiment.folder}"])  # fmt: skip
    return _judge(experiment) if progress.failed or progress.lost else Exit.DONE


def _of_file(study: str) -> Experiment:
    from creamas_sc import Experiment

    try:
        return Experiment.from_file(study)
    except BadValue as error:
        raise Failure(str(error), Exit.USAGE) from None


def _of_module(name: str) -> Experiment:
    from creamas_sc import Experiment

    found = load_object(name)
    if not isinstance(found, Experiment):
        raise Failure(f"{name} must be an Experiment, not {shown(found)}", Exit.USAGE)
    return found


def _judge(experiment: Experiment) -> Exit:
    bad = [row for row in experiment.runs.rows() if row["state"] in ("failed", "lost")]
    for row in bad[:_SHOWN]:
        note(f"run {row['key']} {row['state']}: {row['error']}")
    if len(bad) > _SHOWN:
        note(f"and {count(len(bad) - _SHOWN, 'other run')}")
    return Exit.FAILED

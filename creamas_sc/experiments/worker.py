"""Takes runs of experiments: here, or in the process of a worker, which this module is the main of.

A worker reads requests, a line of JSON each, and answers each but the first with one. It has a
process group of its own, so that Ctrl-C reaches only the process that runs the experiment: that one
decides. When that process has ended, so does the worker, and what it runs.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextvars import Context
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final, TypedDict

from creamas_sc.errors import AgentErrors, LoadError
from creamas_sc.foreign import cut_tracebacks, summary_of, traceback_of
from creamas_sc.runtime.class_loading import load_object
from creamas_sc.runtime.code_versions import loaded_sources
from creamas_sc.runtime.loaded_modules import imported_by
from creamas_sc.runtime.main_script import MainScript, adopt_script

if TYPE_CHECKING:
    from creamas_sc.simulation_files.reading import SimulationFile

_LOCK: Final = ".attempt.lock"
_LOCK_SECONDS: Final = 15.0  # until an earlier attempt at a run has ended
_LOCK_PAUSE_SECONDS: Final = 0.1  # between two tries: a lock has no wait with a bound


class RunOrder(TypedDict):
    """What a run is.

    Attributes:
        build, metrics: Names of functions; "" for no metrics.
        file: Path and text of the file of the simulation, which ``build`` is the reader of then.
        folder: Where it is recorded; what is there of an earlier attempt is removed.
    """

    build: str
    metrics: str
    file: Sequence[str]
    parameters: dict[str, Any]
    seed: int
    steps: int
    folder: str


class Outcome(TypedDict):
    """What came of a run.

    Attributes:
        error, traceback: What it raised, as text; None if it was done.
    """

    seconds: float
    error: str | None
    traceback: str | None


def prepare(
    build: str, metrics: str, file: Sequence[str], parameters: Sequence[dict[str, Any]]
) -> str:
    """Load the experiment's functions and classes; return the SHA-256 of their code.

    Args:
        parameters: Of all runs, on which the classes in a file may depend.

    Raises:
        LoadError: They are not found.
    """
    from creamas_sc.results.describing import code_fingerprint

    modules, names = set[str](), {build, metrics} - {""}
    if file:
        from creamas_sc.simulation_files.building import names_in

        simulation = _simulation(file)
        names = {name for row in parameters for name in names_in(simulation.plan(row))}
    for name in names:
        modules |= imported_by(load_object(name).__module__)
    return code_fingerprint(loaded_sources(modules))


def _simulation(file: Sequence[str]) -> SimulationFile:
    from creamas_sc.simulation_files.reading import SimulationFile
    from creamas_sc.simulation_files.source import Source

    path, text = file
    return SimulationFile(Source(Path(path), text))


def take_run(order: RunOrder) -> Outcome:
    """Take a run to its end; what it raises is in the outcome, but for Ctrl-C."""
    began = time.perf_counter()
    error = traceback = None
    try:
        Context().run(_take, order)
    except (Exception, SystemExit) as raised:
        cut_tracebacks(raised)
        error, traceback = summary_of(raised), traceback_of(raised)
        if isinstance(raised, AgentErrors) and raised.failures:
            error = f"{error}: {next(iter(raised.failures.values()))}"
    return {"seconds": time.perf_counter() - began, "error": error, "traceback": traceback}


def _take(order: RunOrder) -> None:
    lock = _clear(Path(order["folder"]))
    try:
        _take_alone(order)
    finally:
        os.close(lock)


def _clear(folder: Path) -> int:
    """Remove what earlier attempts at a run left; return a lock, for as long as this one goes on.

    An earlier one may have lost its worker or its machine's network, and be about to end.

    Raises:
        TimeoutError: Another process goes on with the run.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / _LOCK
    lock = os.open(path, os.O_CREAT | os.O_RDWR, 0o666)
    try:
        _lock_within(lock, _LOCK_SECONDS)
        for each in folder.iterdir():
            if each.is_dir() and not each.is_symlink():
                shutil.rmtree(each, ignore_errors=True)
            elif each != path:
                each.unlink(missing_ok=True)
    except BaseException:
        os.close(lock)
        raise
    return lock


def _lock_within(lock: int, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            # Of this process, and not of those that it forks, as flock's would be.
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except (BlockingIOError, PermissionError):  # locked, on either kind of system
            if time.monotonic() > deadline:
                raise TimeoutError("another process goes on with this run") from None
        time.sleep(_LOCK_PAUSE_SECONDS)


def _take_alone(order: RunOrder) -> None:
    from creamas_sc.core.randomness import drawn_seed
    from creamas_sc.core.simulation import Simulation
    from creamas_sc.results import Record

    parameters, seed = order["parameters"], order["seed"]
    drawn_seed.set(seed)  # of environments that get none
    if order["file"]:
        from creamas_sc.simulation_files.building import build_plan

        plan = _simulation(order["file"]).plan(parameters)
        record = plan.create.get("record") or Record(order["folder"])
        record = replace(record, folder=order["folder"], parameters=parameters)
        built = build_plan(plan, seed, None)
    else:
        metrics = load_object(order["metrics"]) if order["metrics"] else None
        record = Record(order["folder"], metrics, parameters)
        built = load_object(order["build"])(dict(parameters), seed)
    simulation = built if isinstance(built, Simulation) else Simulation(built)
    try:
        simulation.env.seed  # noqa: B018 - drawn now, if it was given none
        simulation.env._record(record)
        simulation.async_steps(order["steps"], progress=False)  # the experiment shows its own
    finally:
        simulation.close()


# ---- the process of a worker

_FUNCTIONS: Final[dict[str, Callable[..., Any]]] = {
    function.__name__: function for function in (prepare, take_run)
}


def main() -> None:
    """Answer requests until there are no more; file descriptors of both are arguments."""
    read, write = map(int, sys.argv[1:3])
    requests: SimpleQueue[dict[str, Any] | None] = SimpleQueue()
    busy, ended = threading.Event(), threading.Event()
    threading.Thread(target=_read, args=(read, requests, busy, ended), daemon=True).start()
    with open(write, "w", encoding="utf-8") as answers:
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
            while (request := requests.get()) is not None:
                if "path" in request:  # the first one, which gets no answer
                    _set_up(request)
                    continue
                busy.set()
                if ended.is_set():
                    return
                answer = json.dumps(_answer(request))
                busy.clear()
                print(answer, file=answers, flush=True)
        except (KeyboardInterrupt, BrokenPipeError):
            return


def _read(
    read: int,
    requests: SimpleQueue[dict[str, Any] | None],
    busy: threading.Event,
    ended: threading.Event,
) -> None:
    with open(read, encoding="utf-8") as lines:
        for line in lines:
            requests.put(json.loads(line))
    requests.put(None)
    ended.set()
    if busy.is_set():  # the process that runs the experiment has ended
        os.kill(os.getpid(), signal.SIGTERM)


def _set_up(request: dict[str, Any]) -> None:
    """Import modules from where the experiment's process does, and take its script as one's own."""
    sys.path[:] = request["path"]
    file, package, argv = request["script"]
    if file:
        adopt_script(MainScript(file, package, tuple(argv)))


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"value": _FUNCTIONS[request["call"]](*request["args"])}
    except Exception as error:
        return {"error": str(error) if isinstance(error, LoadError) else summary_of(error)}


if __name__ == "__main__":
    main()

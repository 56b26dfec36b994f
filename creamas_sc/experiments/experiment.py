"""Experiments, as users know them: what is run, the running, and what came of it."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final, Protocol, Self

from creamas_sc import results
from creamas_sc.core.randomness import check_seed
from creamas_sc.errors import BadValue, CreamasError
from creamas_sc.experiments.design import Run, design
from creamas_sc.experiments.ledger import RUN_COLUMNS, Ledger, read_runs
from creamas_sc.experiments.worker import Outcome, RunOrder, prepare, take_run
from creamas_sc.experiments.workers import Workers
from creamas_sc.foreign import shown, summary_of
from creamas_sc.results.tables import Table
from creamas_sc.runtime.class_loading import end_script_load, portable_name
from creamas_sc.runtime.signals import ctrl_c_deferred, install_signal_handling
from creamas_sc.runtime.validation import check_count

_LOGGER: Final = logging.getLogger(__name__)
_STATE: Final = RUN_COLUMNS.index("state")
RUNS: Final = "runs"
"""The folder of what each run records."""
_BUILD: Final = "creamas_sc.simulation_files:build"
"""What builds the simulations of a file; part of the keys of its runs."""


class Executor(Protocol):
    """What takes runs: of `concurrent.futures`, or a client of dask's."""

    def submit(self, function: Callable[..., Any], *args: Any) -> Future[Any]:
        """Have ``function(*args)`` called."""


@dataclass
class Progress:
    """How far an experiment is.

    Attributes:
        total: How many runs it has.
        done, failed, lost: How many of them are; a failed or lost one is run again by the next
            `Experiment.run`.
        taken: How many were taken since `Experiment.run` was called.
        seconds: Since then.
        error: What the first of these that failed or was lost raised; None if none did.
    """

    total: int
    done: int
    failed: int = 0
    lost: int = 0
    taken: int = 0
    seconds: float = 0.0
    error: str | None = None
    _began: float = field(default_factory=time.monotonic, repr=False)

    @property
    def seconds_left(self) -> float | None:
        """About how long the rest takes; None before the first run has ended."""
        left = self.total - self.done - self.failed - self.lost
        return self.seconds / self.taken * left if self.taken else None

    def __str__(self) -> str:
        parts = [f"{self.done} of {self.total} runs done"]
        parts += [f"{n} {name}" for name, n in (("failed", self.failed), ("lost", self.lost)) if n]
        if self.seconds_left:
            parts.append(f"about {_in_words(self.seconds_left)} left")
        return ", ".join(parts)

    def note(self, state: str, error: str | None = None) -> None:
        """A run has ended."""
        self.error = self.error or error
        setattr(self, state, getattr(self, state) + 1)
        self.taken += 1
        self.seconds = time.monotonic() - self._began


class Experiment:
    """A simulation that is run with combinations of parameters, several times each.

    Args:
        build: ``build(parameters, seed)`` makes a `Simulation`, `Environment` or `MultiEnvironment`
            with its agents; a function or class of a module or of the script, or its name as
            "module:name". Environments that are given no seed get the run's.
        parameters: A dict of lists, of which all combinations are run; or rows: dicts, a data frame
            of pandas or polars, or a pair of names and rows of values, such as samples of scipy's.
            Values are None, bools, numbers, strings and lists of these.
        steps: How many each run takes.
        folder: Where the ledger and the records are; created if need be.
        replicates: How many runs each combination has, which differ by their seeds.
        seed: Decides, with a run's key, the run's seed.
        metrics: As of `creamas_sc.results.Record`; a function of a module or of the script, or its
            name. By default the environment's method ``observe()``, if it has one.

    Raises:
        BadValue: An argument is none of these.
        LoadError: Another process cannot load ``build`` or ``metrics``.
    """

    def __init__(
        self,
        build: Callable[[dict[str, Any], int], Any] | str,
        parameters: Any,
        *,
        steps: int,
        folder: str | os.PathLike[str],
        replicates: int = 10,
        seed: int = 1,
        metrics: Callable[[Any], Any] | str | None = None,
    ) -> None:
        end_script_load()
        self._file: tuple[str, ...] = ()
        self._about: dict[str, str] = {}
        if not isinstance(folder, (str, os.PathLike)):
            raise BadValue(f"folder must be a path, not {shown(folder)}")
        check_count("steps", steps)
        check_count("replicates", replicates)
        if check_seed(seed) is None:
            raise BadValue("seed must be an int of at least 0")
        self.folder = Path(folder)
        self.build = portable_name(build)
        self.metrics = "" if metrics is None else portable_name(metrics)
        self.steps, self.seed = steps, seed
        self._design = design(self.build, parameters, replicates, seed)

    @classmethod
    def from_file(cls, file: str | os.PathLike[str]) -> Self:
        """The study that a TOML file describes; see `creamas_sc.simulation_files`.

        Raises:
            BadValue: The file is not valid; the message has the line and the key.
        """
        from creamas_sc.simulation_files.study import read_study

        study = read_study(file)
        made = cls(_BUILD, study.parameters, **study.options())
        made._file = (str(study.simulation.source.path), study.simulation.source.text)
        made._about = {"simulation": study.simulation.about}
        return made

    def __repr__(self) -> str:
        return f"<Experiment {self.build} in {self.folder}: {len(self._design)} runs>"

    def run(
        self,
        workers: int | None = None,
        *,
        executor: Executor | None = None,
        progress: Callable[[Progress], object] | None = None,
    ) -> Progress:
        """Take all runs that are not done, several at a time.

        One that fails stops no other: it is in `runs` with its error, of which the first is logged.

        Ctrl-C and SIGTERM stop them in order; those that were under way are run again by the next
        call.

        Args:
            workers: How many processes take them side by side; by default as many as there are
                cores. Simulations with slaves want fewer.
            executor: Takes the runs in place of processes of this experiment's: one of
                `concurrent.futures`, or a client of dask's. Then ``workers`` is how many it gets at
                a time, by default all. The folder must be the same there.
            progress: Called as each run ends. By default a line on a terminal is kept up to date.

        Raises:
            BadValue: The folder has another experiment, the code has changed since, or another
                process is running it.
            LoadError: ``build`` or ``metrics`` cannot be loaded.
            OSError: The ledger cannot be written; the disk is full, say.
        """
        if workers is not None:
            check_count("workers", workers)
        install_signal_handling()
        with closing(Ledger(self.folder)) as ledger:
            if executor is not None:
                at_once = workers or len(self._design)
                if hasattr(executor, "get_executor"):  # a client of dask's
                    from creamas_sc.experiments.dask_runs import DaskRuns

                    executor = DaskRuns(executor, self.folder)
                return self._run(ledger, executor, at_once, progress)
            own = Workers(self.workers(workers))
            try:
                report = self._run(ledger, own, own.n, progress)
            except BaseException:
                own.stop()
                raise
            finally:
                own.close()
            return report

    def _run(
        self,
        ledger: Ledger,
        executor: Executor,
        at_once: int,
        progress: Callable[[Progress], object] | None,
    ) -> Progress:
        rows = list({repr(run.parameters): run.parameters for run in self._design}.values())
        # This is waited on, as a Ctrl-C may strike it at any moment, unlike a future.
        ended: SimpleQueue[Future[Any]] = SimpleQueue()
        _submit(executor, ended, prepare, self.build, self.metrics, self._file, rows)
        code = ended.get().result()
        ledger.check(
            {
                "build": self.build,
                "metrics": self.metrics,
                "steps": self.steps,
                "seed": self.seed,
                "parameters": sorted(self._design[0].parameters),
                **self._about,
                "code": code,
            }
        )
        to_do = ledger.plan(self._design)
        report = Progress(len(self._design), len(self._design) - len(to_do))
        line = _Line()
        tell = line.show if progress is None else progress
        waiting, under_way = iter(to_do), dict[Future[Any], Run]()
        try:
            while True:
                for run in waiting:
                    ledger.begin(run.key, os.getpid())
                    future = _submit(executor, ended, take_run, self._order(run))
                    under_way[future] = run
                    if len(under_way) >= at_once:
                        break
                if not under_way:
                    break
                future = ended.get()
                if getattr(executor, "stopping", False):
                    raise CreamasError(
                        getattr(executor, "why_stopping", "the experiment was stopped")
                    )
                report.note(*_note_end(ledger, under_way.pop(future), future))
                tell(report)
        finally:
            for future in under_way:
                future.cancel()
            with suppress(OSError):  # what is left running is noted as lost by the next call
                ledger.put_back()
            line.end()
        if report.error is not None:
            _LOGGER.warning("%s; the first error: %s", report, report.error)
        return report

    def _order(self, run: Run) -> RunOrder:
        return {
            "build": self.build,
            "metrics": self.metrics,
            "file": self._file,
            "parameters": run.parameters,
            "seed": run.seed,
            "steps": self.steps,
            "folder": str((self.folder / RUNS / run.key).absolute()),
        }

    def workers(self, workers: int | None) -> int:
        """How many processes `run` starts if it is asked for ``workers``."""
        if workers is not None:
            check_count("workers", workers)
        return min(workers or len(os.sched_getaffinity(0)), self.total)

    @property
    def total(self) -> int:
        """How many runs there are."""
        return len(self._design)

    @property
    def left(self) -> int:
        """How many of them are not done."""
        done = {row[0] for row in read_runs(self.folder) if row[_STATE] == "done"}
        return sum(run.key not in done for run in self._design)

    @property
    def runs(self) -> Table:
        """The ledger: one row for each run that was planned, and a column for each parameter.

        The others are ``key``, ``replicate``, ``seed``, ``state``, ``pid`` (of the process that ran
        the experiment), ``began`` (seconds since 1970), ``seconds``, ``error`` and ``traceback``.
        """
        return _table(read_runs(self.folder))

    def results(self) -> results.Results:
        """What the runs have recorded; see `creamas_sc.results.open`.

        Raises:
            BadValue: There is nothing yet.
        """
        try:
            return results.open(self.folder)
        except (BadValue, FileNotFoundError) as error:
            failed = next(filter(None, self.runs["error"]), None)
            why = "call run() first" if failed is None else f"the first run that failed: {failed}"
            raise BadValue(f"there are no results: {error}; {why}") from None


def _submit(
    executor: Executor,
    ended: SimpleQueue[Future[Any]],
    function: Callable[..., Any],
    *args: Any,
) -> Future[Any]:
    """Have ``function(*args)`` called; its future is put into ``ended`` when it has ended."""
    with ctrl_c_deferred():
        future = executor.submit(function, *args)
        future.add_done_callback(ended.put)
    return future


def _note_end(ledger: Ledger, run: Run, future: Future[Outcome]) -> tuple[str, str | None]:
    """Note what came of a run; returns its state, and its error if it has one."""
    try:
        outcome = future.result()
    except Exception as error:  # of the executor: the run's own are in its outcome
        ledger.end(run.key, "lost", 0.0, summary_of(error), None)
        return "lost", summary_of(error)
    state = "done" if outcome["error"] is None else "failed"
    ledger.end(run.key, state, **outcome)
    return state, outcome["error"]


def _table(rows: Iterable[tuple[Any, ...]]) -> Table:
    columns: dict[str, list[Any]] = {name: [] for name in RUN_COLUMNS}
    for row in rows:
        for name, value in zip(columns, row, strict=True):
            columns[name].append(value)
    parameters: list[Mapping[str, Any]] = [json.loads(text) for text in columns.pop("parameters")]
    names = list(dict.fromkeys(name for row in parameters for name in row))
    columns["seed"] = [int(seed) for seed in columns["seed"]]
    of_parameters = {name: [row.get(name) for row in parameters] for name in names}
    return Table({"key": columns.pop("key"), **of_parameters, **columns})


class _Line:
    """A line of the terminal that is kept up to date, if standard error is one."""

    def __init__(self) -> None:
        self._length = 0

    def show(self, report: Progress) -> None:
        """Show a report in place of the last one."""
        if sys.stderr.isatty():
            print(f"\r{report!s:{self._length}}", end="", file=sys.stderr, flush=True)
            self._length = len(str(report))

    def end(self) -> None:
        """What is printed next is on the next line."""
        if self._length:
            print(file=sys.stderr)


def _in_words(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"

"""What an experiment runs, and its ledger; without processes."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from creamas_sc import Environment, Experiment
from creamas_sc.errors import BadValue, LoadError
from creamas_sc.experiments import worker
from creamas_sc.experiments.design import Run, design, rows_of
from creamas_sc.experiments.experiment import Progress
from creamas_sc.experiments.ledger import _SQL, FILE, Ledger, read_runs
from creamas_sc.experiments.worker import RunOrder, take_run


def test_all_combinations_and_each_row_once() -> None:
    assert rows_of({"a": [1, 2], "b": ["x"]}) == [{"a": 1, "b": "x"}, {"a": 2, "b": "x"}]
    assert rows_of([{"a": 1}, {"a": 1}, {"a": 2}]) == [{"a": 1}, {"a": 2}]


def test_rows_of_tables_and_samples() -> None:
    numpy = pytest.importorskip("numpy")
    samples = numpy.array([[0.25, 1.0], [0.5, 2.0]])
    rows = [{"a": 0.25, "b": 1.0}, {"a": 0.5, "b": 2.0}]
    assert rows_of((["a", "b"], samples)) == rows
    assert rows_of({"a": numpy.array([1, 2])}) == [{"a": 1}, {"a": 2}]
    for library in ("pandas", "polars"):
        frame: Any = pytest.importorskip(library).DataFrame(rows)
        assert rows_of(frame) == rows


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"a": 5}, "'a' must be a list of values, not 5"),
        ({"a": "xyz"}, "'a' must be a list of values, not 'xyz'"),
        ({"a": []}, "there are no rows"),
        ([], "there are no rows"),
        ([{"a": 1}, {"b": 1}], "all rows must have the same names"),
        ({"a": [[{}]]}, "'a' must be an int, float, str, bool or None, not dict, nor a list"),
        ({"seed": [1, 2]}, "'seed' is a column of the ledger already: use another name"),
        (5, "parameters must be a dict of lists to combine, rows of a table"),
        ((["a", "b"], [[1]]), "a pair of names and rows of values"),
    ],
)
def test_refused_parameters(parameters: Any, reason: str) -> None:
    with pytest.raises(BadValue, match=reason):
        rows_of(parameters)


VALUES = st.lists(st.integers() | st.floats(allow_nan=False) | st.text(), min_size=1, unique=True)


@given(first=VALUES, more=VALUES, replicates=st.integers(1, 3))
def test_another_value_or_replicate_changes_no_run(
    first: list[Any], more: list[Any], replicates: int
) -> None:
    before = design("m:build", {"a": first, "b": [1]}, replicates, 7)
    after = design("m:build", {"b": [1], "a": [*more, *first]}, replicates + 1, 7)
    later = {run.key: run for run in after}
    assert all(later[run.key] == run for run in before)
    assert len({run.seed for run in after}) == len(after)


def test_seeds_depend_on_the_experiment_and_the_key() -> None:
    runs = [design("m:build", {"a": [1]}, 1, seed)[0] for seed in (1, 2)]
    assert runs[0].key == runs[1].key
    assert runs[0].seed != runs[1].seed
    # A change of how they are derived would change the results of every study.
    assert runs[0] == Run("9db441c7833bc78f", {"a": 1}, 0, 597170063003608)


RUNS = design("m:build", {"a": [1, 2]}, 2, 1)


def states(folder: Path) -> list[str]:
    return [row[4] for row in read_runs(folder)]


def test_a_ledger_keeps_what_came_of_runs(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    assert ledger.plan(RUNS) == RUNS
    for run in RUNS[:3]:
        ledger.begin(run.key, 5)
    ledger.end(RUNS[0].key, "done", 1.5, None, None)
    ledger.end(RUNS[1].key, "failed", 0.5, "ValueError: no", "Traceback ...")
    assert states(tmp_path) == ["done", "failed", "running", "planned"]
    ledger.close()  # as if it was killed
    ledger = Ledger(tmp_path)
    assert ledger.plan(RUNS) == RUNS[1:]
    assert states(tmp_path) == ["done", "failed", "lost", "planned"]
    assert read_runs(tmp_path)[2][8] == "the process that ran the experiment ended"
    ledger.begin(RUNS[1].key, 6)
    assert read_runs(tmp_path)[1][5:] == (6, read_runs(tmp_path)[1][6], None, None, None)
    ledger.put_back()
    assert states(tmp_path)[1] == "planned"
    ledger.close()


def test_one_process_runs_an_experiment_at_a_time(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    with pytest.raises(BadValue, match="is running in another process"):
        Ledger(tmp_path)
    ledger.close()
    Ledger(tmp_path).close()


def test_another_experiment_is_refused_with_what_differs(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.check({"steps": 5, "code": "abc"})
    ledger.check({"steps": 5, "code": "abc"})
    with pytest.raises(BadValue, match="of which the steps differs: 5, and now 6; take another"):
        ledger.check({"steps": 6, "code": "abc"})
    with pytest.raises(
        BadValue, match=r"of which the code differs; take another folder.*open reads what"
    ):
        ledger.check({"steps": 5, "code": "abd"})
    ledger.close()


def test_a_full_disk_is_an_os_error_and_the_rest_is_run_later(tmp_path: Path) -> None:
    study = Experiment(
        f"{__name__}:build_empty", {"a": [1, 2]}, steps=1, folder=tmp_path, replicates=1
    )
    with sqlite3.connect(tmp_path / FILE) as database:
        database.executescript(f"{_SQL}; PRAGMA user_version = 1;")
        database.execute(  # as SQLite fails where there is no room
            "CREATE TRIGGER full BEFORE UPDATE ON runs WHEN NEW.state IN ('done', 'planned') "
            "BEGIN INSERT INTO nowhere VALUES (1); END"
        )
    database.close()
    with pytest.raises(OSError, match=r"\.sqlite cannot be written: .*; mend that") as full:
        study.run(executor=Here())
    assert full.value.__suppress_context__  # one error is shown
    with sqlite3.connect(tmp_path / FILE) as database:
        database.execute("DROP TRIGGER full")
    database.close()
    assert study.run(executor=Here()).done == 2


def test_what_is_no_ledger_is_refused_and_left(tmp_path: Path) -> None:
    path = tmp_path / FILE
    path.write_text("something else " * 100)
    with pytest.raises(BadValue, match="is not the ledger of an experiment"):
        Ledger(tmp_path)
    assert path.read_text().startswith("something else")
    path.unlink()
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(BadValue, match="of another version of creamas-sc: 99, not 1"):
        Ledger(tmp_path)


class Here:
    """Takes runs in this process."""

    def submit(self, function: Callable[..., Any], *args: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(function(*args))
        return future


class Struck(Here):
    """A Ctrl-C comes as it takes a run, in the middle of what its threads wait for."""

    whole = False

    def submit(self, function: Callable[..., Any], *args: Any) -> Future[Any]:
        self.whole = False
        if function is take_run:
            signal.raise_signal(signal.SIGINT)
        self.whole = True
        return super().submit(function, *args)


def test_a_ctrl_c_strikes_no_executor_as_it_takes_a_run(tmp_path: Path) -> None:
    study = Experiment(f"{__name__}:build_empty", {"a": [1, 2]}, steps=1, folder=tmp_path)
    executor = Struck()
    with pytest.raises(KeyboardInterrupt):
        study.run(executor=executor)
    assert executor.whole
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert {*states(tmp_path)} == {"planned"}


def build(parameters: dict[str, Any], seed: int) -> Any:
    raise AssertionError


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"steps": 0}, "steps must be an int above 0, not 0"),
        ({"replicates": 1.0}, "replicates must be an int above 0, not 1.0"),
        ({"seed": None}, "seed must be an int"),
        ({"folder": None}, "folder must be a path, not None"),
    ],
)
def test_refused_experiments(tmp_path: Path, arguments: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadValue, match=reason):
        Experiment(build, {"a": [1]}, **{"steps": 1, "folder": tmp_path / "x", **arguments})
    assert not (tmp_path / "x").exists()


def test_a_build_that_other_processes_cannot_load_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="move it to the top level"):
        Experiment(lambda parameters, seed: None, {"a": [1]}, steps=1, folder=tmp_path)


def test_progress_in_words() -> None:
    progress = Progress(300, 12)
    assert str(progress) == "12 of 300 runs done"
    progress.note("done")
    progress.note("failed")
    progress.seconds = 4.0
    assert str(progress) == "13 of 300 runs done, 1 failed, about 10 min left"
    assert progress.seconds_left == 4.0 / 2 * 286


def build_empty(parameters: dict[str, Any], seed: int) -> Environment:
    return Environment(("localhost", 0))


def test_a_run_draws_no_progress_bar_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    order = RunOrder(
        build=f"{__name__}:build_empty",
        metrics="",
        file=(),
        parameters={},
        seed=1,
        steps=3,
        folder=str(tmp_path),
    )
    assert take_run(order)["error"] is None
    assert capsys.readouterr().err == ""


def test_results_of_runs_that_failed_say_why(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    study = Experiment(f"{__name__}:build", {"a": [1]}, steps=1, folder=tmp_path / "out")
    with pytest.raises(BadValue, match=r"there are no results: .*out; call run\(\) first"):
        study.results()
    assert study.run(executor=Here()).error == "AssertionError"
    assert caplog.messages == ["0 of 10 runs done, 10 failed; the first error: AssertionError"]
    with pytest.raises(BadValue, match=r"no results: .*; the first run that failed: Assert"):
        study.results()


def test_no_ledger_no_rows(tmp_path: Path) -> None:
    assert read_runs(tmp_path) == []
    (tmp_path / FILE).touch()  # by a process that begins
    assert read_runs(tmp_path) == []
    runs = Experiment(build, {"a": [1]}, steps=1, folder=tmp_path).runs
    assert list(runs)[:2] == ["key", "replicate"]
    assert json.dumps(list(runs.rows())) == "[]"


HOLD = """
import fcntl, sys
file = open(sys.argv[1], "w")
fcntl.lockf(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


def test_a_run_waits_until_an_earlier_attempt_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    (folder / "of-before").mkdir(parents=True)
    order: RunOrder = {
        "build": f"{__name__}:build_empty",
        "metrics": "",
        "file": (),
        "parameters": {"a": 1},
        "seed": 1,
        "steps": 1,
        "folder": str(folder),
    }
    command = [sys.executable, "-S", "-E", "-c", HOLD, str(folder / ".attempt.lock")]
    monkeypatch.setattr(worker, "_LOCK_SECONDS", 0.0)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as earlier:
        assert earlier.stdout is not None
        assert earlier.stdout.readline() == b"held\n"
        assert take_run(order)["error"] == "TimeoutError: another process goes on with this run"
        assert (folder / "of-before").exists()
        monkeypatch.setattr(worker, "_LOCK_SECONDS", 10.0)
        threading.Timer(0.05, earlier.communicate).start()
        assert take_run(order)["error"] is None
    assert not (folder / "of-before").exists()


class _AtOnce:
    """In place of a thread: what it does is done as it starts."""

    def __init__(self, target: Callable[..., None], args: tuple[Any, ...], daemon: bool) -> None:
        self.start = partial(target, *args)


def test_a_worker_that_starts_after_its_owners_end_takes_no_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (read, requests), (answers, write) = os.pipe(), os.pipe()
    with open(requests, "w") as file:
        file.write('{"call": "note", "args": [1]}\n')
    called: list[int] = []
    monkeypatch.setattr(worker, "_FUNCTIONS", {"note": called.append})
    replaced = SimpleNamespace(Thread=_AtOnce, Event=threading.Event)
    monkeypatch.setattr(worker, "threading", replaced)
    monkeypatch.setattr(sys, "argv", ["", str(read), str(write)])
    worker.main()
    os.close(answers)
    assert called == []

"""Experiments in their worker processes: failures, kills, Ctrl-C, and what is run again."""

from __future__ import annotations

import os
import select
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from creamas_sc.errors import BadValue
from creamas_sc.experiments import Experiment, workers
from creamas_sc.experiments.ledger import read_runs
from creamas_sc.experiments.worker import prepare
from tests.support import programs
from tests.support.processes import children

STUDY = """
import os, signal, sys, time
from pathlib import Path
from creamas_sc import (
    CreativeAgent, EnvManager, Environment, Experiment, MultiEnvironment, expose, run
)

HERE = Path(__file__).parent

class Walker(CreativeAgent):
    place = 0.0

    @expose
    async def act(self):
        self.place += self.rng.random()

    def observe(self):
        return {"place": self.place}

def build(parameters, seed):
    how = parameters["how"]
    with open(HERE / "taken", "a") as taken:
        print(how, seed, os.getpid(), file=taken)
    if how == "raise" and not (HERE / "mended").exists():
        raise ValueError("it is raining")
    if how == "die" and not (HERE / "mended").exists():
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "slaves":
        menv = MultiEnvironment(("localhost", 0), Environment, calls="rounds", seed=seed)
        run(menv.spawn_slaves([("localhost", 0)] * 2, Environment, EnvManager))
        run(menv.spawn_n(Walker, 2, addr=menv.addrs[0]))
        run(menv.spawn_n(Walker, 2, addr=menv.addrs[1]))
        return menv
    env = Environment(("localhost", 0))
    for _ in range(4):
        Walker(env)
    if how == "wait":
        print("waits", flush=True)
        time.sleep(60)
    return env

if __name__ == "__main__":
    hows, replicates = sys.argv[1].split(","), int(sys.argv[2])
    study = Experiment(build, {"how": hows}, steps=3, replicates=replicates, folder=HERE / "out")
    print(study.run(workers=2))
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "study.py"
    path.write_text(STUDY)
    return path


def taken(script: Path) -> Counter[str]:
    """How often each kind of run was begun."""
    path = script.parent / "taken"
    return Counter(line.split()[0] for line in path.read_text().splitlines())


def states(script: Path) -> list[str]:
    return [row[4] for row in read_runs(script.parent / "out")]


def walks(script: Path) -> dict[str, list[float]]:
    """Where the agents were in the last step, by run."""
    from creamas_sc import results

    agents = results.open(script.parent / "out").filter(step=3).agents
    found: dict[str, list[float]] = {}
    for row in agents.rows():
        found.setdefault(row["run"], []).append(row["place"])
    return found


@pytest.mark.slow
def test_failed_and_lost_runs_are_rows_and_are_run_again(script: Path) -> None:
    ended = programs.run_script(script, "plain,raise,die", "2")
    assert ended.returncode == 0
    assert ended.stdout == "2 of 6 runs done, 2 failed, 2 lost\n"
    said, first = ended.stderr.splitlines()[0].split("; the first error: ")
    assert said + "\n" == ended.stdout
    assert first == "ValueError: it is raining" or "ended by signal 9" in first
    assert states(script) == ["done", "done", "failed", "failed", "lost", "lost"]
    rows = read_runs(script.parent / "out")
    assert rows[2][8] == "ValueError: it is raining"
    assert "it is raining" in rows[2][9].splitlines()[-1]
    assert "study.py" in rows[2][9]
    assert rows[4][8].endswith("the process of the run ended by signal 9")
    before = walks(script)
    (script.parent / "mended").touch()
    ended = programs.run_script(script, "plain,raise,die", "3")
    assert (ended.stdout, ended.stderr) == ("9 of 9 runs done\n", "")
    assert taken(script) == {"plain": 3, "raise": 5, "die": 5}
    after = walks(script)
    assert len(after) == 9
    assert {run: after[run] for run in before} == before


@pytest.mark.slow
def test_slaves_of_runs(script: Path) -> None:
    ended = programs.run_script(script, "slaves,plain", "1")
    assert (ended.stdout, ended.stderr) == ("2 of 2 runs done\n", "")
    found = walks(script)
    assert all(len(places) == 4 for places in found.values())


def test_ctrl_c_ends_runs_in_order_and_the_rest_is_run_later(script: Path) -> None:
    with programs.running_script(script, "wait,plain", "1") as program:
        program.read_until("waits")
        program.signal(signal.SIGINT, group=True)
        code, _, errors = program.finish()
    assert code == -signal.SIGINT
    assert errors == "Interrupted\n"
    assert states(script)[0] == "planned"
    assert programs.run_script(script, "plain", "1").stdout == "1 of 1 runs done\n"
    assert states(script) == ["planned", "done"]


def test_a_worker_that_starts_is_interrupted_in_silence(capfd: pytest.CaptureFixture[str]) -> None:
    for pause in (0.0, 0.02, 0.05):
        worker = workers.Worker(1, workers.Caller.here())
        time.sleep(pause)
        worker.kill(signal.SIGINT)
        worker.close()
    assert capfd.readouterr().err == ""


def test_sigterm_ends_runs_as_ctrl_c_does(script: Path) -> None:
    with programs.running_script(script, "wait", "1") as program:
        program.read_until("waits")
        program.signal(signal.SIGTERM)
        code, _, errors = program.finish()
    assert (code, errors) == (128 + signal.SIGTERM, "Terminated\n")
    assert states(script) == ["planned"]


@pytest.mark.slow
def test_workers_end_with_the_process_that_runs_the_experiment(script: Path) -> None:
    with programs.running_script(script, "wait", "1") as program:
        program.read_until("waits")
        (worker,) = children(program.pid)
        pidfd = os.pidfd_open(worker)
        program.signal(signal.SIGKILL)
        try:
            assert select.select([pidfd], [], [], programs.BOUND_SECONDS)[0]
        finally:
            os.close(pidfd)
        program.finish()  # else it may still be the worker's parent
        os.waitpid(worker, 0)  # orphans of tests become children of this process
    assert states(script) == ["running"]
    assert programs.run_script(script, "plain", "1").stdout == "1 of 1 runs done\n"
    assert states(script) == ["lost", "done"]


@pytest.mark.slow
def test_edited_code_is_refused(script: Path) -> None:
    assert programs.run_script(script, "plain", "1").returncode == 0
    script.write_text(STUDY.replace("self.rng.random()", "1"))
    ended = programs.run_script(script, "plain", "2")
    assert ended.returncode == 1
    assert "has an experiment of which the code differs" in ended.stderr
    assert len(states(script)) == 1


EXECUTOR = """
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from study import HERE, Experiment

if __name__ == "__main__":
    what = {"build": "study:build", "parameters": {"how": ["plain"]}, "steps": 3, "replicates": 3}
    study, own = (Experiment(**what, folder=HERE / name) for name in ("out", "own"))
    with ProcessPoolExecutor(2, get_context("fork")) as executor:
        print(study.run(executor=executor, progress=lambda now: print(now.done, end=" ")))
    print(study.runs["how"], study.runs["state"])
    print(own.run())
    places = [each.results().filter(step=3).agents["place"] for each in (study, own)]
    print(len(places[0]), places[0] == places[1])
"""


@pytest.mark.slow
def test_an_executor_takes_the_runs(script: Path) -> None:
    path = script.parent / "executor.py"
    path.write_text(EXECUTOR)
    ended = programs.run_script(path)
    assert ended.stderr == ""
    assert ended.stdout.splitlines() == [
        "1 2 3 3 of 3 runs done",
        "['plain', 'plain', 'plain'] ['done', 'done', 'done']",
        "3 of 3 runs done",
        "12 True",
    ]


def test_a_build_that_cannot_be_loaded_is_told_once(tmp_path: Path) -> None:
    study = Experiment("nowhere:build", {"a": [1]}, steps=1, folder=tmp_path / "out")
    with pytest.raises(Exception, match=r"^module 'nowhere' of 'nowhere:build' does not import"):
        study.run()
    assert [*study.runs.rows()] == []


def test_workers_is_checked(tmp_path: Path) -> None:
    study = Experiment("nowhere:build", {"a": [1]}, steps=1, folder=tmp_path / "out")
    with pytest.raises(BadValue, match="workers must be an int above 0, not 0"):
        study.run(workers=0)


# In place of a worker's Python: ends, and says so if no other one has started beside it in time.
STARTS = """
echo started >> "$0"
for _ in $(seq 500); do
    [ "$(wc -l < "$0")" -ge 2 ] && exit 1
    sleep 0.01
done
echo alone >> "$0"
"""


def test_workers_start_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "starts"
    monkeypatch.setattr(workers, "python_command", lambda: ["sh", "-c", STARTS, str(file)])
    own = workers.Workers(2)
    futures = [own.submit(prepare, "study:build", "") for _ in range(2)]
    for future in futures:
        with pytest.raises(workers.WorkerLost, match="ended with exit code 1"):
            future.result()
    own.close()
    assert file.read_text().splitlines() == ["started"] * 2

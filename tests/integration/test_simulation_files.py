"""Simulations and studies of files: in a daemon, in a script, and by the command sweep."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from creamas_sc import results
from creamas_sc.experiments.ledger import read_runs
from tests.support.processes import children
from tests.support.programs import BOUND_SECONDS, Program, environ, run, run_script

# Looked for, not imported: each worker would import it as it collects the tests.
pytestmark = pytest.mark.skipif(find_spec("networkx") is None, reason="needs networkx")

COMMAND = [sys.executable, "-m", "supervisor.cli"]
AGENTS = """
import os
from creamas_sc import CreativeAgent, expose

class Walker(CreativeAgent):
    place = 0.0

    def __init__(self, environment, speed=1.0, **kwargs):
        super().__init__(environment, **kwargs)
        self.speed = speed

    @expose
    async def act(self):
        self.place += self.speed * self.rng.random()

    def observe(self):
        with open(f"seen-{self.env.seed}", "a"):  # in the working folder
            return {"place": self.place, "peers": len(self.connections)}

def measure(environment):
    return {"age": environment.age}
"""
SIMULATION = """
seed = 4
calls = "rounds"
steps = 6

[slaves]
number = 2

[agents.Walker]
class = "agents/walkers.py:Walker"
number = 8
arguments = { speed = 2.0 }

[connections]
graph = "barabasi_albert_graph"
arguments = { m = 2 }

[record]
folder = "out"
metrics = "walkers:measure"
observe_every = 2
"""
STUDY = """
[study]
simulation = "simulation.toml"
folder = "study"
steps = 4
replicates = 3

[study.parameters]
agents.Walker.speed = [1.0, 3.0]
slaves.number = [1, 2]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the files; the programs run in another one."""
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "walkers.py").write_text(AGENTS)
    (tmp_path / "simulation.toml").write_text(SIMULATION)
    (tmp_path / "study.toml").write_text(STUDY)
    return tmp_path


@pytest.fixture
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("elsewhere")


@pytest.fixture
def daemon(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("CREAMAS_LOG_FOLDER", str(elsewhere / "logs"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(elsewhere))
    assert run(*COMMAND, "start").returncode == 0
    yield
    run(*COMMAND, "stop")


def rows(folder: Path) -> list[dict[str, Any]]:
    found = [{**row} for row in results.open(folder).agents.rows()]
    assert found
    return [{key: row[key] for key in ("step", "agent", "place", "peers")} for row in found]


SCRIPT = """
import sys
from creamas_sc import run
from creamas_sc.simulation_files import build

with build(sys.argv[1]) as menv:
    for _ in range(6):
        run(menv.trigger_all())
"""


@pytest.mark.slow
def test_a_file_makes_the_same_simulation_in_a_daemon_and_in_a_script(
    daemon: None, folder: Path, elsewhere: Path
) -> None:
    file = folder / "simulation.toml"
    done = run(*COMMAND, "create", "walks", file, folder=elsewhere)
    assert (done.returncode, done.stderr) == (0, "")
    assert "8 agents in 2 slaves" in done.stdout
    assert "which takes 6 steps" in done.stdout
    assert run(*COMMAND, "wait", "walks").returncode == 0
    details = json.loads(run(*COMMAND, "inspect", "walks", "--json").stdout)
    assert details["cwd"] == str(folder)
    assert (details["host"]["seed"], details["host"]["age"]) == (4, 6)
    assert run(*COMMAND, "close", "walks").returncode == 0
    created = rows(folder / "out")
    assert {row["step"] for row in created} == {2, 4, 6}
    assert sum(row["peers"] for row in created if row["step"] == 2) == 2 * 2 * (8 - 2)
    assert results.open(folder / "out").metrics["age"] == [1, 2, 3, 4, 5, 6]
    assert (folder / "seen-4").exists()

    file.write_text(SIMULATION.replace('"out"', '"script-out"').replace("number = 2", "number = 3"))
    script = elsewhere / "script.py"
    script.write_text(SCRIPT)
    done = run_script(script, str(file))
    assert (done.returncode, done.stderr) == (0, "")
    assert rows(folder / "script-out") == created


@pytest.mark.slow
def test_a_graph_that_does_not_fit_leaves_no_simulation(
    daemon: None, folder: Path, elsewhere: Path
) -> None:
    file = folder / "simulation.toml"
    graph = 'graph = "grid_2d_graph"\narguments = { m = 3, n = 3 }'
    begin, end = SIMULATION.index("graph ="), SIMULATION.index("[record]")
    file.write_text(f"{SIMULATION[:begin]}{graph}\n{SIMULATION[end:]}")
    done = run(*COMMAND, "create", "walks", file, folder=elsewhere)
    assert done.returncode == 1
    assert f"{file}, line 15: connections.graph: grid_2d_graph failed: " in done.stderr
    assert "the graph has 9 nodes, the environment 8 agents" in done.stderr
    assert json.loads(run(*COMMAND, "ls", "--json").stdout) == []


def states(folder: Path) -> Counter[str]:
    return Counter(row[4] for row in read_runs(folder / "study"))


def sweep(folder: Path, elsewhere: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return run(*COMMAND, "sweep", folder / "study.toml", *words, folder=elsewhere, seconds=90)


def places(folder: Path) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for row in results.open(folder / "study").filter(step=4).agents.rows():
        found.setdefault(row["run"], []).append(row["place"])
    return found


def begun(folder: Path) -> dict[str, float]:
    return {row[0]: row[6] for row in read_runs(folder / "study") if row[4] == "done"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "how",
    [
        signal.SIGINT,
        *(
            pytest.param(other, marks=pytest.mark.long)
            for other in (signal.SIGTERM, signal.SIGKILL)
        ),
    ],
)
def test_a_study_that_is_stopped_is_run_to_its_end_by_the_same_command(
    folder: Path, elsewhere: Path, how: signal.Signals
) -> None:
    (folder / "study.toml").write_text(STUDY.replace("replicates = 3", "replicates = 1"))
    command = [*COMMAND, "sweep", str(folder / "study.toml"), "--workers", "1"]
    with Program(command, folder=elsewhere, env=environ()) as program:
        give_up_at = time.monotonic() + BOUND_SECONDS
        while states(folder)["done"] < 1:
            assert time.monotonic() < give_up_at
            time.sleep(0.02)
        (worker,) = children(program.pid)
        program.signal(how)
        code, _, errors = program.finish()
    if how is signal.SIGKILL:
        os.waitpid(worker, 0)  # orphans of tests become children of this process
    words = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
    if how in words:
        assert (code, errors) == (128 + how, f"creamas-supervisor: {words[how]}\n")
        assert states(folder)["running"] == 0
    before = begun(folder)
    assert 1 <= len(before) < 4
    done = sweep(folder, elsewhere, "--json", "--workers", "2")
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    assert (report["total"], report["done"]) == (4, 4)
    assert report["taken"] == 4 - len(before)
    after = begun(folder)
    assert {key: after[key] for key in before} == before
    assert set(map(len, places(folder).values())) == {8}
    assert "seen-4" not in os.listdir(folder)  # the simulation's seed does not count
    table = results.open(folder / "study").runs
    assert sorted({*table["parameters"][0]}) == ["agents.Walker.speed", "slaves.number"]


@pytest.mark.slow
def test_a_terminal_shows_one_line_of_progress(folder: Path, elsewhere: Path) -> None:
    (folder / "study.toml").write_text(STUDY.replace("[1.0, 3.0]", "[1.0]").replace("3\n", "1\n"))
    terminal, other_end = pty.openpty()
    with open(terminal, "rb", buffering=0) as shown:
        with open(other_end, "wb") as stderr:
            command = [*COMMAND, "sweep", str(folder / "study.toml")]
            with Program(command, folder=elsewhere, env=environ(), stderr=stderr) as program:
                code, out, _ = program.finish()
            assert (code, out) == (0, f"2 of 2 runs done; they are in {folder / 'study'}\n")
            text = shown.read(10_000).decode()
    assert re.fullmatch(r"\r1 of 2 runs done, about \d+ s left\r2 of 2 runs done *\r\n", text)


@pytest.mark.long
def test_a_run_that_fails_is_shown_and_exits_with_1(folder: Path, elsewhere: Path) -> None:
    study = STUDY.replace("[1.0, 3.0]", '[1.0, "fast"]').replace("[1, 2]", "[1]")
    study = study.replace("replicates = 3", "replicates = 1")
    (folder / "study.toml").write_text(study)
    done = sweep(folder, elsewhere, "--workers", "1")
    assert done.returncode == 1
    assert done.stdout == f"1 of 2 runs done, 1 failed; they are in {folder / 'study'}\n"
    assert "/1: can't multiply sequence by non-int of type 'float'\n" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.long
def test_another_simulation_in_the_file_is_refused(folder: Path, elsewhere: Path) -> None:
    short = STUDY.replace("replicates = 3", "replicates = 1").replace("[1.0, 3.0]", "[1.0]")
    short = short.replace("[1, 2]", "[1]")
    (folder / "study.toml").write_text(short)
    assert sweep(folder, elsewhere).returncode == 0
    (folder / "study.toml").write_text(short.replace("[1.0]", "[1.0, 2.0]"))
    assert sweep(folder, elsewhere).stdout.startswith("2 of 2 runs done")
    file = folder / "simulation.toml"
    file.write_text(SIMULATION.replace("number = 8", "number = 9"))
    done = sweep(folder, elsewhere)
    assert done.returncode == 1
    assert "has an experiment of which the simulation differs; take another" in done.stderr
    file.write_text(SIMULATION)
    walkers = folder / "agents" / "walkers.py"
    walkers.write_text(AGENTS.replace("self.rng.random()", "1"))
    assert "of which the code differs; take another" in sweep(folder, elsewhere).stderr


@pytest.mark.long
def test_a_daemon_takes_the_runs_of_a_study(daemon: None, folder: Path, elsewhere: Path) -> None:
    (folder / "study.toml").write_text(STUDY.replace("replicates = 3", "replicates = 2"))

    def command(*words: str) -> Any:
        done = run(*COMMAND, *words, "--json", folder=elsewhere, seconds=BOUND_SECONDS)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    begin = ("sweep", str(folder / "study.toml"), "--name", "study", "--workers", "2")
    begun = command(*begin)
    assert (begun["runs"], begun["total"]) == (8, 8)
    paused = command("pause", "study")
    assert paused["state"] == "paused"
    assert paused["step"] < 8
    command("close", "study", "--timeout", "10")
    assert set(states(folder)) <= {"done", "planned"}
    host = command(*begin)["pid"]
    os.kill(host, signal.SIGKILL)  # the test would fail if its workers went on
    while command("ls"):
        time.sleep(0.02)
    left = 8 - states(folder)["done"]
    assert command(*begin)["runs"] == left
    assert command("wait", "study")["step"] == left
    assert states(folder) == {"done": 8}
    command("close", "study")
    again = run(*COMMAND, *begin, folder=elsewhere)
    assert again.returncode == 1
    assert f"all 8 runs are done; they are in {folder / 'study'}" in again.stderr

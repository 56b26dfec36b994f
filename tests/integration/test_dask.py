"""Experiments on a cluster of dask's: runs whose worker is killed, that crash, that are stopped."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from creamas_sc import results
from creamas_sc.experiments.ledger import read_runs
from tests.support import programs
from tests.support.processes import reaping_orphans

pytestmark = pytest.mark.skipif(
    find_spec("distributed") is None, reason="dask is not installed (extra dask)"
)

STUDY = """
import os, signal, sys, time
from pathlib import Path
from distributed import Client, LocalCluster
from creamas_sc import CreativeAgent, Environment, Experiment, expose

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
        print(how, seed, file=taken)
    first = not (HERE / f"taken-{seed}").exists()
    (HERE / f"taken-{seed}").touch()
    if how == "raise":
        raise ValueError("it is raining")
    if how == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "kill" and first:
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)
    if how == "wait":
        time.sleep(60)
    env = Environment(("localhost", 0))
    for _ in range(4):
        Walker(env)
    return env

def study(hows, folder):
    what = {"build": build, "parameters": {"how": hows.split(",")}, "steps": 3, "replicates": 1}
    return Experiment(**what, folder=HERE / folder)

if __name__ == "__main__":
    hows, *where = sys.argv[1:]
    if where:
        print(study(hows, "own").run())
    else:
        options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
        with LocalCluster(**options) as cluster, Client(cluster) as client:
            print(study(hows, "out").run(executor=client))
"""


@pytest.fixture
def script(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "study.py"
    path.write_text(STUDY)
    with reaping_orphans():
        yield path


def taken(script: Path) -> Counter[str]:
    """How often each kind of run was begun."""
    path = script.parent / "taken"
    lines = path.read_text().splitlines() if path.exists() else []
    return Counter(line.split()[0] for line in lines)


@pytest.mark.long
def test_a_run_is_repeated_if_its_worker_dies_and_not_if_it_crashes(script: Path) -> None:
    ended = programs.run_script(script, "plain,kill,raise,die")
    assert ended.stdout == "2 of 4 runs done, 1 failed, 1 lost\n", ended.stderr
    assert taken(script) == {"plain": 1, "kill": 2, "raise": 1, "die": 1}
    errors = [row[8] for row in read_runs(script.parent / "out")]
    assert errors[:3] == [None, None, "ValueError: it is raining"]
    assert errors[3].endswith("the process of the run ended by signal 9")
    assert programs.run_script(script, "plain,kill", "own").stdout == "2 of 2 runs done\n"
    places = [
        results.open(script.parent / folder).filter(step=3).agents["place"]
        for folder in ("out", "own")
    ]
    assert len(places[0]) == 2 * 4
    assert places[0] == places[1]


@pytest.mark.long
def test_ctrl_c_ends_the_runs_that_the_cluster_has(script: Path) -> None:
    with programs.running_script(script, "wait") as program:
        while not taken(script):
            time.sleep(0.05)
        program.signal(signal.SIGINT, group=True)
        code, _, _ = program.finish()
    assert code == -signal.SIGINT
    assert [row[4] for row in read_runs(script.parent / "out")] == ["planned"]


NODES = """
import os, signal, time
from distributed import Client, LocalCluster
from creamas_sc import (
    CreativeAgent, EnvManager, Environment, MultiEnvironment, expose, run
)
from creamas_sc.errors import SlaveLost
from creamas_sc.nodes.dask_nodes import DaskNodes

class Walker(CreativeAgent):
    @expose
    async def act(self):
        return self.rng.random()

def society(cluster, **options):
    menv = MultiEnvironment(
        ("localhost", 0), Environment, seed=1, nodes=DaskNodes(cluster, **options)
    )
    run(menv.spawn_slaves(4, Environment, EnvManager))
    for _ in range(8):
        run(menv.spawn(Walker))
    return menv

def engines(menv):
    return sorted(node["engine"] for node in menv.get_nodes())

def main():
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with LocalCluster(**options, security=True) as cluster, Client(cluster) as client:
        first, second = society(cluster), society(client)
        print(engines(first), engines(second))
        print(run(first.trigger_all()) == run(second.trigger_all()))
        first.close()
        print(len(run(second.trigger_all())))
        (worker, *_) = client.run(os.getpid).values()
        os.kill(worker, signal.SIGKILL)
        try:
            while True:
                run(second.trigger_all())
        except SlaveLost as error:
            print("its node" in str(error), len(second.addrs) < 4)
        while len(second.get_nodes()) < 2:  # its nanny starts the worker again
            time.sleep(0.1)
        print(engines(second), len(cluster.workers))
        second.close()

if __name__ == "__main__":
    main()
"""


@pytest.mark.long
def test_societies_on_one_cluster_and_the_end_of_a_worker(tmp_path: Path) -> None:
    script = tmp_path / "societies.py"
    script.write_text(NODES)
    with reaping_orphans(seconds=12):
        command = programs.script_command(script)
        ended = programs.run(*command, folder=tmp_path, seconds=90.0)
    assert ended.stdout.splitlines() == [
        "['0', '1'] ['0', '1']",
        "True",
        "8",
        "True True",
        "['0', '1'] 2",
    ], ended.stderr
    assert "Traceback" not in ended.stderr

"""Runs that go on from a checkpoint: as if they had never ended, at any number of slaves."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest

from creamas_sc import (
    Artifact,
    CreativeAgent,
    Environment,
    MultiEnvironment,
    Simulation,
    branch,
    expose,
    resume,
    run,
)
from creamas_sc.checkpoints.files import Checkpoints
from creamas_sc.client import connect_sync
from creamas_sc.errors import AgentErrors, BadValue, CheckpointError, SlaveLost
from creamas_sc.mp import EnvManager, MultiEnvManager
from creamas_sc.results import Record
from tests.support.daemons import running
from tests.support.programs import Program, script_command

ANY_PORT = ("localhost", 0)
STEPS = 11
# Columns that no seed determines.
_TIMES = ("began", "seconds")


@dataclass
class Memory:
    seen: list[Any] = field(default_factory=list)


class Painter(CreativeAgent):
    """Has others judge what it draws, and keeps in all kinds of ways what comes of it."""

    def __init__(self, environment: Environment, harsh: float = 1.0) -> None:
        super().__init__(environment)
        self.harsh, self.acts, self.memory = harsh, 0, Memory()
        self.asked: dict[str, int] = {}
        self.friend: Any = None

    @expose
    def evaluate(self, artifact: Any) -> Any:
        self.memory.seen.append(artifact)
        return float(artifact.obj.sum()) * self.harsh - self.rng.random(), None

    @expose
    async def act(self) -> float:
        self.acts += 1
        artifact = Artifact(self, self.numpy_rng.random((4, 4)), domain=np.ndarray)
        other = self.friend = await self.random_connection()
        opinion, _ = await other.evaluate(artifact)
        artifact.add_eval(other.addr, opinion)
        self.asked[other.addr] = self.asked.get(other.addr, 0) + 1
        if opinion > 7:
            self.add_artifact(artifact)
            self.publish(artifact)
        if self.acts == 4 and self.number == 3:
            Pupil(self.env)
        if self.acts == 6:
            self.add_connection(list(self.asked)[-1], w=self.rng.random())
            self.remove_connection(next(iter(self.connections)))
        return float(opinion)

    @expose
    def hold(self, what: str) -> None:
        self.held = open(os.devnull) if what else None

    def observe(self) -> dict[str, Any]:
        return {"made": len(self.A), "seen": len(self.memory.seen), "asked": len(self.asked)}


class Pupil(CreativeAgent):
    """Made by another agent."""

    @expose
    async def act(self) -> float:
        return self.rng.random()  # type: ignore[no-any-return]


class Society(MultiEnvironment):
    """Has a state of its own."""

    counted = 0

    def observe(self) -> dict[str, Any]:
        self.counted += 1
        return {"artifacts": len(self.artifacts), "counted": self.counted}


def society(folder: Path, slaves: int = 2, agents: int = 8, **kwargs: Any) -> Society:
    record = Record(folder, checkpoint_every=kwargs.pop("checkpoint_every", 5))
    menv = Society(ANY_PORT, Environment, MultiEnvManager, seed=1, record=record, **kwargs)
    run(menv.spawn_slaves([ANY_PORT] * slaves, Environment, EnvManager))
    run(menv.set_host_managers())
    for number in range(agents):
        run(menv.spawn(Painter, harsh=1 - number / 100))
    addrs = list(menv.get_numbers())
    known = {
        addr: [(addrs[(at + 1) % agents], {}), (addrs[(at + 3) % agents], {"w": at})]
        for at, addr in enumerate(addrs)
    }
    menv.create_connections(known)
    return menv


def go_on(menv: MultiEnvironment, until: int = STEPS) -> None:
    while menv.steps_taken < until:
        run(menv.trigger_all())


def rows(file: Path) -> dict[str, list[Any]]:
    """All that a run has recorded, but times and events."""
    found = {}
    with closing(sqlite3.connect(file)) as database:
        for table in ("steps", "metrics", "numbers", "agents", "artifacts", "connections"):
            cursor = database.execute(f"SELECT * FROM {table} ORDER BY rowid")
            names = [description[0] for description in cursor.description]
            keep = [at for at, name in enumerate(names) if name not in _TIMES]
            found[table] = [tuple(row[at] for at in keep) for row in cursor]
    return found


@pytest.fixture(scope="module")
def whole(_surroundings: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """What a run records that is not interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    with society(folder) as menv:
        go_on(menv)
    return rows(folder / "run-1.sqlite")


@contextmanager
def stopped(folder: Path, steps: int, **kwargs: Any) -> Iterator[Path]:
    """A run that was closed after some steps."""
    with society(folder, **kwargs) as menv:
        go_on(menv, steps)
    yield folder / "run-1.sqlite"


def test_as_if_it_had_never_ended(tmp_path: Path, whole: dict[str, list[Any]]) -> None:
    with stopped(tmp_path, 8) as file:
        assert Checkpoints(file).steps() == [0, 5]
        with resume(tmp_path, slaves=3) as menv:
            assert (menv.steps_taken, menv.seed, len(menv.addrs)) == (5, 1, 3)
            assert type(menv) is Society
            go_on(menv)
            assert menv.counted == STEPS
    found = rows(file)
    assert found == whole
    assert len(found["artifacts"]) > 20
    assert {row[2] for row in found["steps"]} == {8, 9}  # a pupil was made
    assert Checkpoints(file).steps() == [5, 10]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("slaves", "step"),
    [
        (1, None),
        pytest.param(2, None, marks=pytest.mark.long),
        (4, 0),
        pytest.param(2, 0, marks=pytest.mark.long),
    ],
)
def test_at_any_number_of_slaves_from_any_checkpoint(
    tmp_path: Path, whole: dict[str, list[Any]], slaves: int, step: int | None
) -> None:
    with stopped(tmp_path, 9) as file:
        with resume(file, slaves=slaves, step=step) as menv:
            assert menv.steps_taken == (5 if step is None else step)
            go_on(menv, 7)
        with resume(file) as menv:  # from the same one
            go_on(menv)
    assert rows(file) == whole


def test_what_cannot_be_kept_is_refused_before_the_first_step(tmp_path: Path) -> None:
    with society(tmp_path, 1, 2) as menv:
        run(menv.gather("hold", "file"))
        with pytest.raises(CheckpointError, match=r"agent 0 \(.*Painter\): its held: ") as caught:
            run(menv.trigger_all())
        assert not caught.value.may_have_run
        assert menv.steps_taken == 0
        run(menv.gather("hold", ""))
        go_on(menv, 1)
        run(menv.gather("hold", "file"))
        menv._recording.record.__dict__["checkpoint_every"] = 2
        with pytest.raises(CheckpointError, match="no checkpoint of step 2: agent 0") as caught:
            run(menv.trigger_all())
        assert len(caught.value.results) == 2
        assert caught.value.may_have_run
    assert Checkpoints(tmp_path / "run-1.sqlite").steps() == [0]
    assert [row[0] for row in rows(tmp_path / "run-1.sqlite")["steps"]] == [1, 2]


@pytest.mark.slow
def test_refusals_leave_everything_as_it_was(tmp_path: Path) -> None:
    def state() -> Any:
        return rows(file), sorted(tmp_path.rglob("*"))

    with society(tmp_path, 1, 4) as menv:
        go_on(menv, 6)
        file = tmp_path / "run-1.sqlite"
        with pytest.raises(BadValue, match="is being written by another process"):
            resume(tmp_path)
    before = state()
    with pytest.raises(CheckpointError, match="no checkpoint of step 3"):
        resume(tmp_path, step=3)
    with pytest.raises(BadValue, match="slaves must be an int above 0"):
        resume(tmp_path, slaves=0)
    part = Checkpoints(file).place(5) / "slave-0"
    data = part.read_bytes()
    part.write_bytes(data.replace(b"memory", b"memori"))
    with pytest.raises(CheckpointError, match=f"{part}: it was changed.*of step 0"):
        resume(tmp_path)
    part.write_bytes(data)
    manifest = Checkpoints(file).read()
    manifest.code[__file__] = "0" * 64
    (Checkpoints(file).place(5) / "manifest").write_bytes(manifest.encode())
    with pytest.raises(CheckpointError, match=f"{__file__} changed since the checkpoint"):
        resume(tmp_path)
    assert state() == before
    with resume(tmp_path, changed_code=True) as menv:
        go_on(menv, 7)
    assert len(rows(file)["steps"]) == 7


@pytest.mark.slow
def test_a_branch_is_a_run_of_its_own(tmp_path: Path, whole: dict[str, list[Any]]) -> None:
    with stopped(tmp_path, STEPS) as file:
        with branch(tmp_path, 5, {"mood": "calm"}) as menv:
            go_on(menv)
            assert (Path(menv._recording.path)).name == "run-2.sqlite"
        assert rows(file) == whole == rows(tmp_path / "run-2.sqlite")
        assert Checkpoints(tmp_path / "run-2.sqlite").steps() == [5, 10]
    with closing(sqlite3.connect(tmp_path / "run-2.sqlite")) as database:
        ((ours, parameters),) = database.execute("SELECT id, parameters FROM run")
    with closing(sqlite3.connect(file)) as database:
        ((theirs, others),) = database.execute("SELECT id, parameters FROM run")
    assert ours != theirs
    assert '"mood"' in parameters
    assert '"mood"' not in others


@pytest.mark.slow
def test_a_restarted_slave_has_what_the_last_checkpoint_has(tmp_path: Path) -> None:
    with society(tmp_path, restart="transient", checkpoint_every=1) as menv:
        go_on(menv, 4)
        before = menv.get_connections()
        slave = menv._slaves.members[0]
        gone = slave.gone
        os.kill(slave.pid, signal.SIGKILL)
        run(gone.wait())
        run(menv.trigger_all())
        (restart,) = menv.restarts
        assert restart.failures == ()
        assert (restart.agents, restart.checkpoint) == (4, True)
        assert menv.get_connections() == before
    made = [row for row in rows(tmp_path / "run-1.sqlite")["agents"] if row[0] == 5]
    assert made  # of step 5
    with resume(tmp_path) as menv:
        go_on(menv, 6)


@pytest.mark.slow
def test_a_run_that_lost_a_slave_goes_on_from_where_it_was_whole(
    tmp_path: Path, whole: dict[str, list[Any]]
) -> None:
    with society(tmp_path, checkpoint_every=1) as menv:
        go_on(menv, 3)
        slave = menv._slaves.members[0]
        os.kill(slave.pid, signal.SIGKILL)
        with pytest.raises(SlaveLost) as caught:
            run(menv.trigger_all())
        with suppress(AgentErrors):  # some know agents that are gone
            run(menv.trigger_all())  # the others go on without it
        acted = caught.value.may_have_run  # a step in which nobody acted does not count
        assert (menv.steps_taken, len(menv.addrs)) == (4 + acted, 1)
    file = tmp_path / "run-1.sqlite"
    assert Checkpoints(file).steps() == [2, 3]
    with resume(tmp_path) as menv:
        go_on(menv)
    assert rows(file) == whole


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["trio", "asyncio"])
def test_it_can_be_awaited_on_any_loop(tmp_path: Path, backend: str) -> None:
    async def main() -> None:
        async with await resume(tmp_path, as_coro=True) as menv:
            await menv.trigger_all()
            assert menv.steps_taken == 3
        async with await branch(tmp_path, as_coro=True) as menv:
            await menv.trigger_all()
            assert menv.steps_taken == 3

    with stopped(tmp_path, 2, slaves=1, agents=2, checkpoint_every=2):
        anyio.run(main, backend=backend)


@pytest.mark.slow
def test_turns_of_a_simulation_go_on_where_they_were(tmp_path: Path) -> None:
    found = []
    for stop in (8, 3):
        folder = tmp_path / str(stop)
        with society(folder, 2, 4, checkpoint_every=2) as menv:
            sim = Simulation(menv)
            sim.order = "random"
            sim.steps(stop, progress=False)
        with resume(folder, slaves=1, step=None if stop == 3 else 8) as menv:
            sim = Simulation(menv)
            sim.order = "random"
            assert sim.cur_step == menv.steps_taken == {3: 2, 8: 8}[stop]
            sim.steps(9 - sim.cur_step, progress=False)
            assert menv.age == 9
        found.append(rows(folder / "run-1.sqlite"))
    assert found[0] == found[1]


SCRIPT = f"""
import sys, time
from tests.integration.test_resume import Painter, Society, go_on, resume, society, Path

folder = Path(sys.argv[1])
with (resume(folder) if folder.exists() else society(folder)) as menv:
    for _ in range(menv.steps_taken, {STEPS}):
        go_on(menv, menv.steps_taken + 1)
        print("step", menv.steps_taken, flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("after", [2, pytest.param(7, marks=pytest.mark.long)])
def test_a_script_that_was_killed_goes_on(
    tmp_path: Path, whole: dict[str, list[Any]], after: int
) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [*script_command(script), str(tmp_path / "runs")]
    with Program(command) as program:
        program.read_until(f"step {after}")
    with Program(command) as program:
        assert program.finish()[0] == 0
    assert rows(tmp_path / "runs" / "run-1.sqlite") == whole


@pytest.mark.slow
def test_a_daemon_goes_on_with_a_run_whose_host_was_killed(tmp_path: Path) -> None:
    with running(tmp_path) as daemon, connect_sync(daemon.name) as client:
        created = client.create(
            "first",
            slave_addrs=[ANY_PORT] * 2,
            seed=1,
            record=Record(tmp_path / "runs", checkpoint_every=2),
        )
        with client.attach("first") as sim:
            for _ in range(4):
                sim.spawn(Pupil)
            sim.start_steps(3000)
            while sim.progress()["step"] < 5:
                time.sleep(0.01)
        os.kill(created["pid"], signal.SIGKILL)
        client.resume("second", tmp_path / "runs", slaves=3)
        with client.attach("second") as sim:
            progress = sim.progress()
            assert progress["state"] == "stepping"
            assert progress["of"] == 3000
            assert 4 <= progress["step"] < 3000
            sim.pause()
            assert sim.get_steps_taken() == sim.progress()["step"] == sim.get_age()
            assert (len(sim.get_addrs()), len(sim.get_agents())) == (3, 4)
        client.close("second")

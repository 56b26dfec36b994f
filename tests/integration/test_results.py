"""Records of real slaves: in a script, in a daemon, after a kill, and of two runs of one seed."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from creamas_sc import (
    Artifact,
    CreativeAgent,
    Environment,
    MultiEnvironment,
    Simulation,
    expose,
    results,
    run,
)
from creamas_sc.client import connect_sync
from creamas_sc.errors import AgentErrors, BadValue, SlaveLost, StepOverran
from creamas_sc.mp import EnvManager
from tests.support.daemons import running
from tests.support.programs import Program, script_command
from tests.support.shared_supervisor import uses_shared_supervisor

ANY_PORT = ("localhost", 0)
BOUND_SECONDS = 30

pytestmark = pytest.mark.usefixtures("shared_supervisor")


class Member(CreativeAgent):
    """Draws a number, asks those that it knows for theirs, publishes what is large."""

    drawn = 0.0

    @expose
    async def own(self) -> float:
        return self.drawn

    @expose
    async def act(self, asks: bool = True) -> bool:
        self.drawn = self.rng.random()
        for address in self.connections if asks else ():
            other = await self.connect(address)
            self.drawn = max(self.drawn, await other.own())
        if self.drawn > 0.5:
            artifact = Artifact(self, self.drawn, domain=float)
            artifact.add_eval(self, self.drawn)
            self.publish(artifact)
        return "sqlite3" in sys.modules

    @expose
    def fail(self) -> None:
        self.observe = None  # type: ignore[assignment,method-assign]

    def observe(self) -> dict[str, Any]:
        return {"drawn": self.drawn, "even": int(self.drawn * 100) % 2 == 0}


class Society(MultiEnvironment):
    """Looks at all agents after each step."""

    async def observe(self) -> dict[str, Any]:
        own = await self.gather("own")
        return {"most": max(own.values()), "artifacts": len(self.artifacts)}


@asynccontextmanager
async def society(
    folder: Path, slaves: int = 2, agents: int = 6, **kwargs: Any
) -> AsyncIterator[Any]:
    """Agents that know the two that were made before them."""
    with trio.fail_after(BOUND_SECONDS):
        with uses_shared_supervisor():
            menv = Society(ANY_PORT, Environment, seed=3, record=folder, **kwargs)
        async with menv:
            await menv.spawn_slaves([ANY_PORT] * slaves, Environment, EnvManager)
            made = [(await menv.spawn(Member))[1] for _ in range(agents)]
            known = {made[i]: [(made[i - 1], {"w": i}), (made[i - 2], {})] for i in range(agents)}
            await menv.create_connections(known, as_coro=True)
            yield menv


def contents(folder: Path, table: str) -> list[dict[str, Any]]:
    """The rows of a table, without what differs from run to run."""
    rows = list(getattr(results.open(folder), table).rows())
    return [
        {name: v for name, v in row.items() if name not in ("began", "seconds", "time")}
        for row in rows
    ]


async def test_two_runs_of_one_seed_leave_equal_rows(tmp_path: Path) -> None:
    for slaves in (1, 2, 2):
        async with society(tmp_path / f"{slaves}", slaves, calls="rounds") as menv:
            for _ in range(4):
                assert await menv.trigger_all() == [False] * 6  # no slave has a database
    runs = [results.open(tmp_path / "1"), results.open(tmp_path / "2")]
    assert runs[1].runs["run"] == ["run-1", "run-2"]
    for table in ("steps", "metrics", "agents", "artifacts", "connections", "events"):
        first = contents(tmp_path / "1", table)
        both = contents(tmp_path / "2", table)
        assert [row for row in both if row.pop("run") == "run-1"] == [
            row for row in contents(tmp_path / "2", table) if row.pop("run") == "run-2"
        ]
        for row in first:
            del row["run"]
        assert first == both[: len(first)]
    agents = runs[0].agents
    assert list(agents["agent"]) == [0, 1, 2, 3, 4, 5] * 4
    assert runs[0].steps["repeatable"] == [1] * 4
    assert len(set(agents["drawn"])) > 4
    assert runs[0].connections["other"][:4] == [5, 4, 0, 5]
    assert runs[0].metrics["artifacts"][-1] == len(runs[0].artifacts["object"]) > 0
    for name in ("code", "seed", "parameters"):
        assert [*runs[0].runs[name]] * 2 == runs[1].runs[name]


@pytest.mark.slow
async def test_losses_and_restarts_are_events(tmp_path: Path) -> None:
    async with society(tmp_path, restart="permanent") as menv:
        await menv.trigger_all()
        (slave, _) = menv._slaves.members
        gone = slave.gone
        os.kill(slave.pid, signal.SIGKILL)
        await gone.wait()
        await menv.trigger_all(False)
    events = results.open(tmp_path).events
    assert events["event"] == ["slave_lost", "slave_restarted"]
    assert events["step"] == [2, 2]
    assert events["details"][0]["signal"] == signal.SIGKILL
    rows = results.open(tmp_path).filter(step=2).connections
    # Those of the slave's agents are made again, and none is missing.
    assert set(rows["agent"]) == {0, 2, 4}


async def test_a_step_in_which_a_slave_dies_is_in_the_record(tmp_path: Path) -> None:
    async with society(tmp_path) as menv:
        await menv.trigger_all()
        os.kill(menv._slaves.members[0].pid, signal.SIGKILL)
        with pytest.raises(SlaveLost):
            await menv.trigger_all()
        with pytest.raises(AgentErrors, match="3 of the agents failed to act"):
            await menv.trigger_all()  # they know some that are lost
    steps = results.open(tmp_path).steps
    assert steps["step"] == [1, 2, 3]
    assert steps["repeatable"] == [1, 0, 1]
    assert steps["error"][0] is None
    assert "SIGKILL" in steps["error"][1]
    assert list(results.open(tmp_path).filter(step=3).agents["agent"]) == [1, 3, 5]


async def test_an_agent_that_cannot_be_observed_is_named(tmp_path: Path) -> None:
    async with society(tmp_path) as menv:
        addrs = await menv.get_agents(as_coro=True)
        await menv.gather("fail", addrs=[addrs[1]])
        with pytest.raises(AgentErrors, match="failed in observe") as raised:
            await menv.trigger_all()
        assert list(raised.value.failures) == [addrs[1]]
        assert len(raised.value.results) == 6


async def test_a_folder_that_cannot_be_starts_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    menv = MultiEnvironment(ANY_PORT, Environment, record=tmp_path / "file")
    with trio.fail_after(BOUND_SECONDS):
        async with menv:
            with pytest.raises(BadValue, match="cannot be created"):
                await menv.spawn_slaves([ANY_PORT], Environment, EnvManager)
            assert menv.overview().pids == []


async def test_a_step_that_does_not_repeat_itself_says_why(tmp_path: Path) -> None:
    async with society(tmp_path, calls="rounds", agents=2) as menv:
        await menv.trigger_all()
        os.kill(menv._slaves.members[1].pid, signal.SIGSTOP)
        with pytest.raises(StepOverran):
            await menv.trigger_all_within(0.05, on_overrun="kill")
    steps = results.open(tmp_path).steps
    assert steps["repeatable"] == [1, 0]
    assert steps["why"][0] is None
    assert "time was up" in steps["why"][1][0]
    assert "time was up" in steps["error"][1]


def test_a_simulation_of_turns(tmp_path: Path) -> None:
    with uses_shared_supervisor():
        menv = MultiEnvironment(ANY_PORT, Environment, seed=1)
    with menv:
        run(menv.spawn_slaves([ANY_PORT] * 2, Environment, EnvManager))
        for _ in range(3):
            run(menv.spawn(Member))
        simulation = Simulation(menv, record=results.Record(tmp_path))
        menv.calls = "rounds"
        simulation.async_step()
        simulation.step()
    found = results.open(tmp_path)
    assert found.steps["acts"] == [3, 3]
    assert found.steps["repeatable"] == [1, None]
    assert list(found.agents["agent"]) == [0, 1, 2] * 2
    assert found.steps["age"] == [1, 2]


# ---- kill -9

SCRIPT = """
import sys
from creamas_sc import Artifact, CreativeAgent, Environment, MultiEnvironment, expose, run
from creamas_sc.mp import EnvManager

class Painter(CreativeAgent):
    step = 0
    @expose
    async def act(self):
        self.step += 1
        self.publish(Artifact(self, bytes(70_000) + self.step.to_bytes(4, "big"), domain=bytes))
    def observe(self):
        return {"taken": self.step, "text": "x" * 100}

class Society(MultiEnvironment):
    def observe(self):
        return {"artifacts": len(self.artifacts)}

with Society(("localhost", 0), Environment, seed=1, record=sys.argv[1]) as menv:
    run(menv.spawn_slaves([("localhost", 0)] * 2, Environment, EnvManager))
    for addr in menv.addrs:
        run(menv.spawn_n(Painter, 5, addr=addr))
    print("ready", flush=True)
    while True:
        run(menv.trigger_all())
        print("step", flush=True)
"""


def check_whole_steps(folder: Path, least: int) -> int:
    """Check that a record holds whole steps only; returns how many."""
    record = results.open(folder)
    steps = record.steps["step"]
    assert steps == list(range(1, len(steps) + 1))
    assert len(steps) >= least
    agents = record.agents
    assert list(agents["step"]) == [step for step in steps for _ in range(10)]
    if steps:
        assert record.metrics["artifacts"] == [10 * step for step in steps]
    artifacts = record.artifacts
    assert artifacts["step"] == [step for step in steps for _ in range(10)]
    for step, obj in zip(artifacts["step"][-10:], artifacts["object"][-10:], strict=True):
        assert obj[-4:] == step.to_bytes(4, "big")
    return len(steps)


@pytest.mark.slow
def test_a_script_that_is_killed_leaves_whole_steps(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    moments = random.Random(1)
    folder = tmp_path / "record"
    for number in range(1, 4):
        with Program(script_command(script, str(folder)), tmp_path) as program:
            program.read_until("ready")
            for _ in range(number - 1):
                program.read_until("step")
            time.sleep(moments.random() * 0.02)  # somewhere in a step
            program.process.send_signal(signal.SIGKILL)
            program.process.wait(BOUND_SECONDS)
        found = check_whole_steps(folder / f"run-{number}.sqlite", number - 1)
        assert results.open(folder / f"run-{number}.sqlite").runs["ended"] == [None]
        assert found < 100
    assert len(results.open(folder).runs["run"]) == 3


# ---- in a daemon


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with running(tmp_path_factory.mktemp("logs"), "results") as daemon:
        with connect_sync(daemon.name, timeout=BOUND_SECONDS) as client:
            yield client


def test_a_daemon_records_and_a_reader_reads_meanwhile(client: Any, tmp_path: Path) -> None:
    record = results.Record(tmp_path / "new", parameters={"alpha": 0.5}, observe_every=2)
    client.create("sim", slave_addrs=[ANY_PORT] * 2, record=record, calls="rounds")
    try:
        with client.attach("sim") as sim:
            sim.spawn_n(f"{__name__}:Member", 4)
            sim.start_steps(100)
            seen = 0
            while sim.progress()["state"] == "stepping":
                found = results.open(tmp_path / "new")
                steps = found.steps["step"]
                assert steps == list(range(1, len(steps) + 1))
                assert len(steps) >= seen
                seen = len(steps)
                assert set(found.filter(step=range(seen + 1)).agents["step"]) == set(
                    range(2, seen + 1, 2)
                )
            assert sim.progress()["state"] == "idle"
        path = client.inspect("sim")["host"]["record"]
        assert path == str(tmp_path / "new" / "run-1.sqlite")
    finally:
        client.close("sim")
    found = results.open(path)
    assert found.steps["step"] == list(range(1, 101))
    assert found.steps["age"] == list(range(1, 101))
    assert found.runs["parameters"] == [{"alpha": 0.5}]
    assert found.runs["ended"] != [None]


def test_a_host_that_is_killed_leaves_whole_steps(client: Any, tmp_path: Path) -> None:
    made = client.create("lost", slave_addrs=[ANY_PORT] * 2, record=tmp_path)
    with client.attach("lost") as sim:
        sim.spawn_n(f"{__name__}:Member", 4)
        sim.start_steps()
        while sim.progress()["step"] < 5:
            pass
        os.kill(made["pid"], signal.SIGKILL)
    steps = results.open(tmp_path).steps["step"]
    assert steps == list(range(1, len(steps) + 1))
    assert len(steps) >= 5
    assert list(results.open(tmp_path).agents["step"]) == [step for step in steps for _ in range(4)]

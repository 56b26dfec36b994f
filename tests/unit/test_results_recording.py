"""A single environment that is recorded: its steps, what fails in them, and a disk that is full."""

from __future__ import annotations

import math
import shutil
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio

from creamas_sc import Artifact, CreativeAgent, Environment, Simulation, expose
from creamas_sc.core.randomness import RandomSource
from creamas_sc.core.recorded import EnvironmentSubject
from creamas_sc.errors import AgentErrors, BadValue, CheckpointError, RecordError, SlaveLost
from creamas_sc.results import Record, Results, open
from creamas_sc.results.columns import pack
from creamas_sc.results.observing import Observed, Part
from creamas_sc.results.recording import Recording
from creamas_sc.results.run_file import RunFile
from creamas_sc.runtime.event_loop import adopt_running_loop

ANY_PORT = ("localhost", 0)
BOUND_SECONDS = 20


class Painter(CreativeAgent):
    """Publishes what it is asked to."""

    acts = 0

    @expose
    async def act(self, obj: Any = None, *, fail: bool = False) -> int:
        self.acts += 1
        if obj is not None:
            artifact = Artifact(self, obj, domain=float)
            artifact.add_eval(self, 0.5, "mine")
            artifact.add_eval("critic", 0.25)
            artifact.add_feature_value("size", np.float64(2))
            self.publish(artifact)
        if fail and self.number == 1:
            raise ValueError("no paint")
        return self.acts

    def observe(self) -> dict[str, Any]:
        return {"acts": self.acts, "half": self.acts / 2}


class Blind(Painter):
    """Fails when it is observed."""

    def observe(self) -> dict[str, Any]:
        raise KeyError("nothing")


class Studio(Environment):
    """Has a metric."""

    async def observe(self) -> dict[str, Any]:
        await trio.lowlevel.checkpoint()
        return {"artifacts": len(self.artifacts)}


@asynccontextmanager
async def studio(
    record: Any, agents: int = 2, cls: type[Environment] = Studio, agent_cls: type = Painter
) -> AsyncIterator[Any]:
    with trio.fail_after(BOUND_SECONDS):
        async with adopt_running_loop():
            env = await cls.create(ANY_PORT, record=record, as_coro=True)
            env.seed = 5
            for _ in range(agents):
                agent_cls(env)
            yield env
            await env.close(as_coro=True)


def file_of(env: Any) -> RunFile:
    file: RunFile = env._recording._file
    return file


def fill_disk(env: Any) -> None:
    database = file_of(env)._db
    ((pages,),) = database.execute("PRAGMA page_count").fetchall()
    database.execute(f"PRAGMA max_page_count = {pages}")


def free_disk(env: Any) -> None:
    file_of(env)._db.execute("PRAGMA max_page_count = 100000")


async def test_each_step_can_be_read_when_it_is_done(tmp_path: Path) -> None:
    async with studio(tmp_path) as env:
        assert await env.trigger_all() == [1, 1]
        results = open(tmp_path)
        assert dict(results.agents) == {
            "run": ["run-1"] * 2,
            "step": results.agents["step"],
            "agent": results.agents["agent"],
            "acts": results.agents["acts"],
            "half": results.agents["half"],
        }
        assert list(results.agents["agent"]) == [0, 1]
        assert await env.trigger_all(1.5) == [2, 2]
        assert list(results.agents["step"]) == [1, 1, 2, 2]
        assert list(results.agents["half"]) == [0.5, 0.5, 1.0, 1.0]
        assert list(results.metrics.rows()) == [
            {"run": "run-1", "step": 1, "artifacts": 0},
            {"run": "run-1", "step": 2, "artifacts": 2},
        ]
        assert (results.steps["acts"], results.steps["errors"]) == ([2, 2], [0, 0])
        assert results.runs["ended"] == [None]
    (run,) = open(tmp_path).runs.rows()
    assert run["ended"] > run["began"]
    assert (run["seed"], run["class"]) == ("5", f"{__name__}:Studio")
    assert run["setup"] == {"calls": "rounds"}
    assert run["versions"]["numpy"] == np.__version__


async def test_artifacts(tmp_path: Path) -> None:
    large = np.arange(20_000.0)
    async with studio(tmp_path) as env:
        env.add_artifact(Artifact("nobody", 1j))
        await env.trigger_all(0.5)
        await env.trigger_act(large, agent=env.get_agents(addr=False)[1])
        env.add_artifact(Artifact("nobody", object()))
    rows = list(open(tmp_path).artifacts.rows())
    assert [(row["artifact"], row["step"], row["agent"]) for row in rows] == [
        (0, 1, None),  # before the step
        (1, 1, 0),
        (2, 1, 1),
        (3, 2, 1),  # after it
        (4, 2, None),
    ]
    assert [row["creator"] for row in rows] == ["nobody", "0", "1", "1", "nobody"]
    assert rows[1]["evaluations"] == {"0": 0.5, "critic": 0.25}
    assert rows[1]["framings"] == {"0": "mine", "critic": None}
    assert rows[1]["features"] == {"size": 2.0}
    assert rows[1]["domain"] == "builtins:float"
    assert [row["object"] for row in rows[:3]] == [1j, 0.5, 0.5]
    assert np.array_equal(rows[3]["object"], large)
    assert rows[4]["object"] is None
    assert rows[4]["object_class"] == "builtins:object"
    assert len(list((tmp_path / "objects").iterdir())) == 1


async def test_an_artifact_whose_class_fails_costs_no_step(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Artifact):
        @property
        def evals(self) -> dict[str, Any]:
            raise SystemExit("no evaluations")

    async with studio(tmp_path) as env:
        env.add_artifact(Broken("x", 1))
        assert await env.trigger_all(0.5) == [1, 1]
    assert open(tmp_path).artifacts["creator"] == [None, "0", "1"]
    assert "is left out of the record" in caplog.text


async def test_artifacts_are_not_kept_for_the_record(tmp_path: Path) -> None:
    async with studio(tmp_path) as env:
        await env.trigger_all(0.5)
        assert len(env.artifacts) == 2
        assert env._recording._artifacts == []
        env.artifacts.clear()  # the user's own way to save memory
        await env.trigger_all(0.75)
    assert open(tmp_path).artifacts["object"][:] == [0.5, 0.5, 0.75, 0.75]


async def test_connections_when_they_change(tmp_path: Path) -> None:
    async with studio(tmp_path, agents=3) as env:
        first, second, third = env.get_agents(addr=False)
        first.add_connection(second, weight=1)
        await env.trigger_all()
        await env.trigger_all()
        first.add_connections([(third.addr, {})])
        second.add_connection("tcp://elsewhere:1/2")
        await env.trigger_all()
        first.clear_connections()
        second.remove_connection("tcp://elsewhere:1/2")
        await env.trigger_all()
    rows = [tuple(row.values())[1:] for row in open(tmp_path).connections.rows()]
    assert rows == [
        (1, 0, 1, {"weight": 1}),
        (3, 0, 1, {"weight": 1}),
        (3, 0, 2, {}),
        (3, 1, "tcp://elsewhere:1/2", {}),
        (4, 0, None, None),
        (4, 1, None, None),
    ]


async def test_connections_that_arrive_late_are_kept(tmp_path: Path) -> None:
    async with studio(tmp_path) as env:
        late = Observed(0, [Part(None, {"late": pack([1, 1])})], {0: [("x", "{}")]}, [])
        await env.trigger_all()
        env._recording.take_observed(env.base_url, late)
        env.get_agents(addr=False)[1].add_connection("tcp://elsewhere:1/2")
        await env.trigger_all()
    found = open(tmp_path)
    assert found.connections["other"] == ["x", "tcp://elsewhere:1/2"]
    assert "late" not in found.agents  # it is of another step


async def test_numbers_that_are_forgotten_before_the_step_is_over(tmp_path: Path) -> None:
    async with studio(tmp_path) as env:
        recording = env._recording
        take, numbers = recording.take_observed, recording._subject.numbers

        def take_and_forget(*observed: Any) -> None:
            take(*observed)
            recording._subject.numbers = lambda url: ()

        recording.take_observed = take_and_forget
        await env.trigger_all()
        recording._subject.numbers = numbers
    assert list(open(tmp_path).agents["agent"]) == [0, 1]


async def test_every_nth_step(tmp_path: Path) -> None:
    record = Record(tmp_path, observe_every=2, connections_every=3)
    async with studio(record) as env:
        first, second = env.get_agents(addr=False)
        for step in range(1, 7):
            if step == 2:
                first.connections[second.addr] = {}  # unnoticed
            await env.trigger_all()
    results = open(tmp_path)
    assert list(results.agents["step"]) == [2, 2, 4, 4, 6, 6]
    assert results.connections["step"] == [3, 6]


async def test_agents_that_fail_are_in_the_step(tmp_path: Path) -> None:
    async with studio(tmp_path, agents=3) as env:
        with pytest.raises(AgentErrors) as raised:
            await env.trigger_all(fail=True)
        assert raised.value.results == [1, 1]
    (row,) = open(tmp_path).steps.rows()
    assert (row["acts"], row["errors"], row["error"]) == (3, 1, None)
    assert list(open(tmp_path).agents["acts"]) == [1, 1, 1]


async def test_an_observe_that_fails_is_raised_with_the_results(tmp_path: Path) -> None:
    async with studio(tmp_path) as env:
        blind = Blind(env)
        with pytest.raises(AgentErrors, match="failed in observe") as raised:
            await env.trigger_all()
        assert list(raised.value.failures) == [blind.addr]
        assert raised.value.failures[blind.addr].type_name == "KeyError"
        assert raised.value.results == [1, 1, 1]
    results = open(tmp_path)
    assert list(results.agents["agent"]) == [0, 1]
    (event,) = results.events.rows()
    assert (event["event"], event["details"]["agent"]) == ("observe_failed", 2)


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        (lambda env: 1 / 0, "ZeroDivisionError in .*: division by zero"),
        (lambda env: [1], "metrics must be a dict of names and values, not list"),
        (lambda env: {"step": 1}, "the metric 'step' is a column of the table already"),
        (lambda env: {"x": [1]}, "the metric 'x' must be an int, float, str, bool or None"),
    ],
)
async def test_metrics_that_fail(tmp_path: Path, metrics: Any, message: str) -> None:
    async with studio(Record(tmp_path, metrics=metrics)) as env:
        with pytest.raises(AgentErrors) as raised:
            await env.trigger_all()
        assert raised.value.results == [1, 1]
        with pytest.raises(Exception, match=message):
            raise raised.value.exceptions[0]
    assert open(tmp_path).steps["acts"] == [2]


async def test_a_function_may_give_the_metrics(tmp_path: Path) -> None:
    record = Record(tmp_path, metrics=lambda env: {"nan": math.nan, "agents": 2, "t": "x"})
    async with studio(record) as env:
        await env.trigger_all()
    (row,) = open(tmp_path).metrics.rows()
    # SQLite has no nan.
    assert row == {"run": "run-1", "step": 1, "nan": None, "agents": 2, "t": "x"}


async def test_a_full_disk_keeps_the_step_and_the_results(tmp_path: Path) -> None:
    large = np.zeros(8_000)  # in the table
    async with studio(tmp_path) as env:
        await env.trigger_all()
        fill_disk(env)
        with pytest.raises(RecordError, match=r"step 2 is not in the record: .*full") as raised:
            await env.trigger_all(large)
        assert raised.value.results == [2, 2]
        assert raised.value.may_have_run
        assert len(env.artifacts) == 2
        with pytest.raises(RecordError, match="step 2 is not in the record") as raised:
            await env.trigger_all(large)
        assert not raised.value.may_have_run
        assert [agent.acts for agent in env.get_agents(addr=False)] == [2, 2]
        free_disk(env)
        assert await env.trigger_all() == [3, 3]
    results = open(tmp_path)
    assert results.steps["step"] == [1, 2, 3]
    assert list(results.agents["acts"]) == [1, 1, 2, 2, 3, 3]
    assert results.artifacts["step"] == [2, 2]


async def test_what_could_not_be_written_is_written_at_the_close(tmp_path: Path) -> None:
    async with studio(tmp_path) as env:
        await env.trigger_all()
        fill_disk(env)
        with pytest.raises(RecordError):
            await env.trigger_all(np.zeros(8_000))
        free_disk(env)
    assert open(tmp_path).steps["step"] == [1, 2]


async def test_a_close_says_what_it_could_not_write(tmp_path: Path) -> None:
    async with studio(tmp_path) as env:
        await env.trigger_all()
        env.add_artifact(Artifact("x", np.zeros(8_000)))
        fill_disk(env)
        with pytest.raises(AgentErrors, match="failed to close"):
            await env.close(as_coro=True)
    assert open(tmp_path).steps["step"] == [1]


async def test_a_folder_that_vanishes_ends_the_record_and_not_the_simulation(
    tmp_path: Path,
) -> None:
    async with studio(tmp_path / "gone") as env:
        await env.trigger_all()
        shutil.rmtree(tmp_path / "gone")
        with pytest.raises(RecordError, match="was removed or moved; the simulation goes on"):
            await env.trigger_all()
        assert await env.trigger_all() == [3, 3]
    assert not (tmp_path / "gone").exists()


async def test_writing_that_hangs_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with studio(tmp_path) as env:
        await env.trigger_all()
        monkeypatch.setattr(env._recording, "_seconds", 0.05)
        database = file_of(env)
        go_on = trio.Event()
        token = trio.lowlevel.current_trio_token()
        write = database.write

        def hang(batch: Any) -> None:
            trio.from_thread.run(go_on.wait, trio_token=token)
            write(batch)

        monkeypatch.setattr(database, "write", hang)
        with pytest.raises(RecordError, match=r"was not written for 0\.05 s; the simulation goes"):
            await env.trigger_all()
        assert await env.trigger_all() == [3, 3]
        go_on.set()
        async with env._recording._limiter:  # until the thread has ended
            assert open(tmp_path).steps["step"] == [1, 2]


async def test_a_folder_that_does_not_answer_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = trio.Event()
    token = trio.lowlevel.current_trio_token()
    create = RunFile.create

    def hang(folder: str, run: dict[str, Any]) -> RunFile:
        trio.from_thread.run(go_on.wait, trio_token=token)
        return create(folder, run)

    monkeypatch.setattr(RunFile, "create", hang)
    async with studio(tmp_path) as env:
        monkeypatch.setattr(env._recording, "_seconds", 0.05)
        with pytest.raises(BadValue, match=r"did not answer for 0\.05 s"):
            await env.trigger_all()
        assert [agent.acts for agent in env.get_agents(addr=False)] == [0, 0]
        go_on.set()
        async with env._recording._limiter:  # until the thread has ended
            assert not list(tmp_path.glob(".*"))  # and has closed what it made


async def test_a_cancelled_step_is_not_in_the_record(tmp_path: Path) -> None:
    class Sleeper(Painter):
        @expose
        async def act(self, *args: Any, **kwargs: Any) -> int:
            if args:
                await trio.sleep_forever()
            return 0

    async with studio(tmp_path, agent_cls=Sleeper) as env:
        await env.trigger_all()
        with trio.move_on_after(0.01):
            await env.trigger_all(True)
        await env.trigger_all()
    results = open(tmp_path)
    assert results.steps["step"] == [1, 3]
    assert (results.events["step"], results.events["event"]) == ([3], ["step_cancelled"])
    assert results.events["details"] == [{"step": 2}]


async def test_a_step_that_is_done_is_written_even_if_its_caller_is_cancelled(
    tmp_path: Path,
) -> None:
    async with studio(Record(tmp_path, metrics=lambda env: {})) as env:
        with trio.CancelScope() as scope:
            take = env._recording._write

            async def cancelled(batch: Any) -> Any:
                scope.cancel()
                return await take(batch)

            env._recording._write = cancelled
            await env.trigger_all()
    assert open(tmp_path).steps["step"] == [1]


async def test_agents_that_agents_made(tmp_path: Path) -> None:
    class Maker(Painter):
        @expose
        async def act(self, *args: Any, **kwargs: Any) -> int:
            if self.number == 1:
                Painter(self.env)
            return 0

    async with studio(tmp_path, agent_cls=Maker) as env:
        env._random = RandomSource(1)
        env.calls = "rounds"
        await env.trigger_all()
        await env.trigger_all()
    agents = open(tmp_path).agents
    assert list(agents["agent"]) == [0, 1, "1.0", 0, 1, "1.0", "1.1"]


def test_a_simulation_records_its_steps(tmp_path: Path) -> None:
    sim = Simulation.create(Painter, 2, env_cls=Studio, record=tmp_path)
    try:
        assert sim.step() == [1, 1]
        assert sim.async_step() == [2, 2]
        with pytest.raises(BadValue, match="recorded already"):
            Simulation(sim.env, record=tmp_path)
    finally:
        sim.close()
    results = open(tmp_path)
    assert (results.steps["step"], results.steps["age"]) == ([1, 2], [1, 2])
    assert results.steps["acts"] == [2, 2]
    assert list(results.agents["acts"]) == [1, 1, 2, 2]
    assert list(results.metrics["step"]) == [1, 2]


def test_steps_of_a_simulation_that_cannot_be_written_are_steps(tmp_path: Path) -> None:
    sim = Simulation.create(Painter, 2, env_cls=Studio, record=tmp_path)
    try:
        sim.step()
        fill_disk(sim.env)
        sim.env.add_artifact(Artifact("x", np.zeros(8_000)))
        with pytest.raises(RecordError, match="step 2"):
            sim.step()
        assert sim.cur_step == 2
        with pytest.raises(RecordError, match="step 2"):
            sim.step()
        assert sim.cur_step == 2  # it was refused
        free_disk(sim.env)
        assert sim.step() == [3, 3]
        assert sim.cur_step == 3
    finally:
        sim.close()
    assert open(tmp_path).steps["step"] == [1, 2, 3]


def test_a_simulation_whose_agents_fail_one_after_the_other(tmp_path: Path) -> None:
    class Failing(Painter):
        @expose
        async def act(self, *args: Any, **kwargs: Any) -> int:
            return await super().act(fail=True)

    sim = Simulation.create(Failing, 2, env_cls=Studio, record=tmp_path)
    try:
        with pytest.raises(AgentErrors, match="in step 1, 1 of 2 agents failed"):
            sim.step()
    finally:
        sim.close()
    assert open(tmp_path).steps["errors"] == [1]


def test_a_simulation_elsewhere_is_recorded_there(tmp_path: Path) -> None:
    class Attached:
        get_agents = trigger_act = trigger_all = close = None

    with pytest.raises(TypeError, match="give record= where it is created"):
        Simulation(Attached(), record=tmp_path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Record.of(5), "record must be a folder or a Record, not 5"),
        (lambda: Record("x", observe_every=0), "observe_every must be an int above 0, not 0"),
        (lambda: Record("x", connections_every=True), "connections_every must be an int above 0"),
        (lambda: Record("x", metrics=len).fields(), "metrics does not travel to a daemon"),
    ],
)
def test_records_that_cannot_be(make: Any, message: str) -> None:
    with pytest.raises(BadValue, match=message):
        make()


def test_results_are_of_the_type_that_is_named() -> None:
    assert open.__annotations__["return"] == Results.__name__


class _Subject(EnvironmentSubject):
    """Has checkpoints, which are noted."""

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        self.steps: list[int] = []
        self.fails: Exception | None = None

    async def write_checkpoint(self, file: Path, run: str, step: int, *args: Any) -> None:
        if self.fails is not None:
            raise self.fails
        self.steps.append(step)


@asynccontextmanager
async def with_checkpoints(folder: Path) -> AsyncIterator[tuple[Recording, _Subject]]:
    async with studio(None, 0) as env:
        subject = _Subject(env)
        recording = Recording(Record(folder, checkpoint_every=1), subject)
        yield recording, subject
        await recording.aclose()


async def test_a_step_in_which_a_slave_was_lost_has_no_checkpoint(tmp_path: Path) -> None:
    async def lose(asked: Any) -> list[Any]:
        raise SlaveLost("it was killed")

    async def act(asked: Any) -> list[Any]:
        return [1]

    async with with_checkpoints(tmp_path) as (recording, subject):
        await recording.take(act)
        with pytest.raises(SlaveLost):
            await recording.take(lose)
        assert subject.steps == [0, 1]
        await recording.take(act)  # the others go on without it
        assert subject.steps == [0, 1, 3]


@pytest.mark.parametrize(
    "error", [SlaveLost("gone"), OSError("full"), sqlite3.OperationalError("full")]
)
async def test_results_are_not_lost_with_a_checkpoint(tmp_path: Path, error: Exception) -> None:
    async def act(asked: Any) -> list[Any]:
        return [1, 2]

    async with with_checkpoints(tmp_path) as (recording, subject):
        await recording.take(act)
        subject.fails = error
        with pytest.raises(CheckpointError, match=f"no checkpoint of step 2: {error}") as caught:
            await recording.take(act)
        assert caught.value.results == [1, 2]
        assert caught.value.may_have_run


async def test_a_record_that_cannot_be_cut_is_an_error_of_the_record(tmp_path: Path) -> None:
    async def act(asked: Any) -> list[Any]:
        return [1]

    async with with_checkpoints(tmp_path) as (recording, _):
        await recording.take(act)
        file = recording._file
        assert file is not None
        file._db.execute("PRAGMA query_only = 1")
        with pytest.raises(RecordError, match=r"run-1\.sqlite cannot be written: "):
            await recording.go_on({"ended": None}, "resumed", {})
        file._db.execute("PRAGMA query_only = 0")

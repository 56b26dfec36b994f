"""Simulations over a fake environment, and over one that does not listen."""

from __future__ import annotations

import io
import random
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from creamas_sc.core.agent import CreativeAgent
from creamas_sc.core.environment import Environment
from creamas_sc.core.simulation import Simulation
from creamas_sc.errors import (
    AgentError,
    AgentErrors,
    BadValue,
    CreamasError,
    NoSlaves,
    SlaveLost,
    UnknownAgent,
)
from creamas_sc.runtime.event_loop import adopt_running_loop

ADDRS = [f"tcp://localhost:5556/{number}" for number in (1, 2, 3)]


class FakeEnvironment:
    """Agents are addresses; ``faults`` says what the act of an agent raises, once."""

    def __init__(self) -> None:
        self.age = 0
        self.seed: int | None = None
        self.addrs = list(reversed(ADDRS))
        self.acted: list[str] = []
        self.faults: dict[str, BaseException] = {}
        self.closed: list[Any] = []

    def get_agents(self, addr: bool) -> list[str]:
        assert addr
        return list(self.addrs)

    async def trigger_act(self, *, addr: str) -> str:
        self.acted.append(addr)
        if addr in self.faults:
            raise self.faults.pop(addr)
        return f"{addr} in {self.age}"

    async def trigger_all(self) -> list[str]:
        if "all" in self.faults:
            raise self.faults.pop("all")
        return [f"{addr} in {self.age}" for addr in self.addrs]

    def close(self, folder: Any = None, as_coro: bool = False) -> Any:
        async def close() -> str:
            return "report"

        self.closed.append(folder)
        return close() if as_coro else "report"


class Painter(CreativeAgent):
    def __init__(self, environment: Environment, colour: str = "red", **kwargs: Any) -> None:
        super().__init__(environment, **kwargs)
        self.colour = colour
        if colour == "none":
            raise ValueError("no colour")

    async def act(self, *args: Any, **kwargs: Any) -> str:
        return self.colour


class Poet(CreativeAgent):
    pass


class Studio(Environment):
    """An environment that cannot be reached."""

    made: list[Studio] = []  # noqa: RUF012
    closed = False

    @classmethod
    def create(cls, addr: tuple[str, int], *args: Any, as_coro: bool = False, **kwargs: Any) -> Any:
        env = cls(addr, *args, **kwargs)
        cls.made.append(env)
        return env

    def close(self, folder: str | None = None, as_coro: bool = False) -> Any:
        self.closed = True


@pytest.fixture
def env() -> FakeEnvironment:
    return FakeEnvironment()


@pytest.fixture
def sim(env: FakeEnvironment) -> Simulation:
    return Simulation(env)


@pytest.fixture
def studios() -> Any:
    yield Studio.made
    Studio.made.clear()


# ---- stepping


def test_a_step_lets_agents_act_in_turn(env: FakeEnvironment, sim: Simulation) -> None:
    assert sim.step() == [f"{addr} in 1" for addr in ADDRS]
    assert env.acted == ADDRS
    assert sim.steps(2) == [[f"{addr} in {step}" for addr in ADDRS] for step in (2, 3)]
    assert (sim.cur_step, env.age) == (3, 3)


def test_async_steps_let_agents_act_at_once(env: FakeEnvironment, sim: Simulation) -> None:
    assert sim.async_step() == [f"{addr} in 1" for addr in env.addrs]
    assert sim.async_steps(2) == [[f"{addr} in {step}" for addr in env.addrs] for step in (2, 3)]
    assert (sim.cur_step, env.age) == (3, 3)
    assert env.acted == [], "trigger_all does it"


@pytest.mark.parametrize("backend", ["trio", "asyncio"])
def test_the_awaited_forms(env: FakeEnvironment, sim: Simulation, backend: str) -> None:
    async def main() -> Any:
        return await sim.astep(), await sim.asteps(2), await sim.aclose("results")

    step = [[f"{addr} in {step}" for addr in env.addrs] for step in (1, 2, 3)]
    assert anyio.run(main, backend=backend) == (step[0], step[1:], "report")
    assert env.closed == ["results"]


def test_many_steps_show_progress(sim: Simulation, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[tuple[int, bool]] = []

    def with_progress(_: Simulation, n: int, progress: bool) -> range:
        shown.append((n, progress))
        return range(n)

    monkeypatch.setattr(Simulation, "_with_progress", with_progress)
    sim.steps(2)
    sim.async_steps(3)
    anyio.run(sim.asteps, 4)
    sim.steps(2, progress=False)
    sim.async_steps(3, progress=False)
    anyio.run(sim.asteps, 4, False)
    assert shown == [(2, True), (3, True), (4, True), (2, False), (3, False), (4, False)]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_progress_bar(sim: Simulation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    assert len(sim.steps(3)) == 3
    assert "Steps" in terminal.getvalue()
    assert "100%" in terminal.getvalue()


def test_the_progress_bar_ends_when_a_step_fails(
    env: FakeEnvironment, sim: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    env.faults = {ADDRS[0]: ZeroDivisionError("mine")}
    with pytest.raises(AgentErrors):
        sim.steps(3)
    assert terminal.getvalue().endswith("\n\x1b[?25h"), "on a new line, with the cursor"


@pytest.mark.parametrize(("n", "progress"), [(0, True), (1, True), (3, False)])
def test_no_progress_bar_for_one_step_or_when_asked(
    sim: Simulation, n: int, progress: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    assert len(sim.steps(n, progress)) == n
    assert terminal.getvalue() == ""


@pytest.mark.parametrize("stream", [None, io.StringIO()])
def test_no_progress_bar_but_on_a_terminal(
    sim: Simulation, stream: io.StringIO | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    assert len(sim.steps(3)) == 3
    assert stream is None or stream.getvalue() == ""


def test_no_steps(sim: Simulation) -> None:
    assert sim.steps(0) == sim.async_steps(0) == []
    assert sim.cur_step == 0


def test_order(env: FakeEnvironment, sim: Simulation, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sim.order == "alphabetical"
    sim.order = "random"
    monkeypatch.setattr(random, "shuffle", lambda addrs: addrs.insert(0, addrs.pop()))
    sim.step()
    assert env.acted == [ADDRS[2], ADDRS[0], ADDRS[1]]
    with pytest.raises(ValueError, match="one of alphabetical, spawned, random, not 'reversed'"):
        sim.order = "reversed"  # type: ignore[assignment]
    assert sim.order == "random"


def test_a_seed_makes_the_random_order_repeatable(env: FakeEnvironment) -> None:
    env.addrs = [f"tcp://localhost:5556/{number}" for number in range(1, 30)]
    orders = []
    for seed in (1, 1, 2):
        env.seed, env.acted = seed, []
        sim = Simulation(env)
        sim.order = "random"
        sim.steps(2)
        orders.append(env.acted)
    assert orders[0] == orders[1] != orders[2]
    assert orders[0][:29] != orders[0][29:], "not the same order each step"


class SlavesEnvironment(FakeEnvironment):
    """Its agents were spawned in the reverse order of their addresses, or as ``spawned`` is."""

    spawned = ADDRS[::-1]

    def get_numbers(self) -> dict[str, int]:
        return {addr: number for number, addr in enumerate(self.spawned)}


def test_agents_in_slaves_act_in_the_order_of_spawning() -> None:
    env = SlavesEnvironment()
    env.addrs = ADDRS[1:] + ADDRS[:1]
    sim = Simulation(env)
    assert sim.order == "spawned"
    sim.step()
    assert env.acted == ADDRS[::-1]
    env.acted.clear()
    sim.order = "alphabetical"
    sim.step()
    assert env.acted == ADDRS


def test_the_random_order_is_drawn_from_that_of_spawning() -> None:
    drawn = []
    for spawned in (ADDRS, ADDRS[::-1]):
        env = SlavesEnvironment()
        env.spawned, env.seed = spawned, 5
        sim = Simulation(env)
        sim.order = "random"
        sim.steps(5)
        drawn.append([spawned.index(addr) for addr in env.acted])
    assert drawn[0] == drawn[1]


def test_agents_of_one_environment_act_in_the_order_of_addresses(studios: list[Studio]) -> None:
    sim = Simulation.create(Painter, 11, env_cls=Studio)
    for agent in studios[0].get_agents(addr=False):
        agent.colour = str(agent.number)
    assert sim.order == "alphabetical"
    assert sim.step() == ["0", "1", "10", *"23456789"]
    sim.order = "spawned"
    assert sim.step() == [*"0123456789", "10"]


async def test_what_blocks_is_refused_on_the_agents_loop(env: Any, sim: Simulation) -> None:
    async with adopt_running_loop():
        for step in (sim.step, sim.async_step):
            with pytest.raises(RuntimeError, match=r"use `await astep\(\)`"):
                step()
        assert (sim.cur_step, env.age) == (0, 0)
        assert len(await sim.astep()) == 3


def test_attributes(env: FakeEnvironment, sim: Simulation) -> None:
    assert (sim.env, sim.name, sim.cur_step, sim.callback) == (env, "sim", 0, None)


STEPS: list[Callable[[Simulation], Any]] = [
    Simulation.step,
    Simulation.async_step,
    lambda sim: anyio.run(sim.astep, backend="trio"),
    lambda sim: anyio.run(sim.astep),
]


@pytest.mark.parametrize("step", STEPS)
def test_a_callback_is_told_the_step(env: Any, step: Any) -> None:
    called: list[int] = []
    sim = Simulation(env, called.append)
    assert sim.callback == called.append
    step(sim)
    step(sim)
    assert called == [1, 2]


@pytest.mark.parametrize("step", STEPS)
def test_the_callback_runs_in_the_callers_thread(env: Any, step: Any) -> None:
    called: list[Any] = []
    step(Simulation(env, lambda n: called.append(threading.get_ident())))
    assert called == [threading.get_ident()]


@pytest.mark.parametrize("step", STEPS)
def test_a_failing_callback_leaves_the_simulation_usable(env: Any, step: Any) -> None:
    faults = [ValueError("mine")]

    def callback(n: int) -> None:
        if faults:
            raise faults.pop()

    sim = Simulation(env, callback)
    with pytest.raises(ValueError, match="mine"):
        step(sim)
    assert len(step(sim)) == 3


@pytest.mark.parametrize("callback", [3, "print"])
def test_a_callback_must_be_callable(env: Any, callback: Any) -> None:
    with pytest.raises(TypeError, match="callback must be callable"):
        Simulation(env, callback)


def test_a_callback_must_be_plain(env: Any) -> None:
    async def callback(n: int) -> None:
        pass

    with pytest.raises(TypeError, match="plain function"):
        Simulation(env, callback)


def test_only_environments_are_simulated() -> None:
    with pytest.raises(TypeError, match="needs an environment; str has no get_agents"):
        Simulation("localhost")


# ---- failures


def test_an_act_that_raises_keeps_nobody_from_acting(env: FakeEnvironment) -> None:
    called: list[int] = []
    sim = Simulation(env, called.append)
    env.faults = {
        ADDRS[0]: ZeroDivisionError("mine"),
        ADDRS[2]: AgentError(address=ADDRS[2], type_name="KeyError", message="theirs"),
    }
    with pytest.raises(AgentErrors, match="in step 1, 2 of 3 agents failed") as caught:
        sim.step()
    assert env.acted == ADDRS
    assert caught.value.results == [f"{ADDRS[1]} in 1"]
    failures = caught.value.failures
    assert [(a, e.type_name, e.message) for a, e in failures.items()] == [
        (ADDRS[0], "ZeroDivisionError", "mine"),
        (ADDRS[2], "KeyError", "theirs"),
    ]
    assert isinstance(failures[ADDRS[0]].__cause__, ZeroDivisionError)
    assert called == [1], "the step is over"
    assert len(sim.step()) == 3


def test_an_agent_that_is_gone_is_one_failure(env: FakeEnvironment, sim: Simulation) -> None:
    env.faults = {ADDRS[1]: UnknownAgent("stopped itself")}
    with pytest.raises(AgentErrors) as caught:
        sim.step()
    assert list(caught.value.failures) == [ADDRS[1]]
    assert len(caught.value.results) == 2


@pytest.mark.parametrize("step", STEPS[1:])
def test_failures_of_a_concurrent_step_end_it(env: FakeEnvironment, step: Any) -> None:
    called: list[int] = []
    sim = Simulation(env, called.append)
    failure = AgentError(address=ADDRS[0], type_name="E", message="m")
    env.faults = {"all": AgentErrors("1 failed", {ADDRS[0]: failure}, ["kept"])}
    with pytest.raises(AgentErrors) as caught:
        step(sim)
    assert caught.value.results == ["kept"]
    assert called == [1]
    assert len(step(sim)) == 3


@pytest.mark.parametrize("step", STEPS[1:])
def test_after_another_error_a_concurrent_step_can_follow(env: Any, step: Any) -> None:
    called: list[int] = []
    sim = Simulation(env, called.append)
    env.faults = {"all": NoSlaves("was spawn_slaves awaited?")}
    with pytest.raises(NoSlaves):
        step(sim)
    assert called == []
    assert len(step(sim)) == 3


@pytest.mark.parametrize("error", [SlaveLost("gone"), KeyboardInterrupt()])
def test_a_stopped_step_can_be_finished(env: FakeEnvironment, error: BaseException) -> None:
    called: list[int] = []
    sim = Simulation(env, called.append)
    env.faults = {ADDRS[1]: error}
    with pytest.raises(type(error)):
        sim.step()
    assert called == []
    for step in (sim.step, sim.async_step, lambda: anyio.run(sim.astep)):
        with pytest.raises(RuntimeError, match=r"step 1 was stopped with 1 .* finish_step\(\)"):
            step()
    assert sim.finish_step() == [f"{addr} in 1" for addr in (ADDRS[0], ADDRS[2])]
    assert env.acted == ADDRS, "nobody twice"
    assert (called, sim.cur_step) == ([1], 1)
    assert len(sim.step()) == 3


def test_the_error_tells_what_to_do(env: FakeEnvironment, sim: Simulation) -> None:
    env.faults = {ADDRS[0]: SlaveLost("gone")}
    with pytest.raises(SlaveLost) as caught:
        sim.step()
    assert caught.value.__notes__ == [
        "This stopped step 1 with 2 agents still to act: finish_step() lets them."
    ]


def test_finish_step_leaves_out_who_is_gone(env: FakeEnvironment, sim: Simulation) -> None:
    env.faults = {ADDRS[0]: SlaveLost("gone")}
    with pytest.raises(SlaveLost):
        sim.step()
    env.addrs.remove(ADDRS[1])
    assert sim.finish_step() == [f"{ADDRS[2]} in 1"]


def test_a_step_stopped_at_its_last_agent_is_finished_too(env: Any, sim: Simulation) -> None:
    env.faults = {ADDRS[2]: SlaveLost("gone")}
    with pytest.raises(SlaveLost):
        sim.step()
    assert len(sim.finish_step()) == 2
    assert len(sim.step()) == 3


def test_finish_step_without_an_unfinished_step(env: FakeEnvironment, sim: Simulation) -> None:
    assert sim.finish_step() == []
    sim.step()
    assert sim.finish_step() == []
    assert len(env.acted) == 3


def test_a_step_that_cannot_begin_does_not_count(env: FakeEnvironment, sim: Simulation) -> None:
    def get_agents(addr: bool) -> Any:
        raise NoSlaves("was spawn_slaves awaited?")

    env.get_agents = get_agents  # type: ignore[method-assign]
    with pytest.raises(NoSlaves):
        sim.step()
    assert (sim.cur_step, env.age) == (0, 0)


@pytest.mark.parametrize("step", STEPS[1:])
@pytest.mark.parametrize(
    "error",
    [NoSlaves("was spawn_slaves awaited?"), SlaveLost("gone", may_have_run=False), BadValue("no")],
)
def test_a_step_that_is_refused_does_not_count(env: Any, step: Any, error: Exception) -> None:
    called: list[int] = []
    sim = Simulation(env, called.append)
    env.age = 7
    env.faults = {"all": error}
    with pytest.raises(type(error)):
        step(sim)
    assert (sim.cur_step, env.age, called) == (0, 7, [])
    assert step(sim)[0].endswith("in 1")
    env.faults = {"all": SlaveLost("gone in the step")}
    with pytest.raises(SlaveLost):
        step(sim)
    assert (sim.cur_step, env.age) == (2, 2)


def test_a_step_whose_first_act_is_refused_does_not_count(env: Any) -> None:
    sim = Simulation(env)
    env.faults = {ADDRS[0]: CreamasError("a step is under way")}
    with pytest.raises(CreamasError, match="under way") as caught:
        sim.step()
    assert not hasattr(caught.value, "__notes__")
    assert (sim.cur_step, env.age, sim.finish_step()) == (0, 0, [])
    env.faults = {ADDRS[1]: CreamasError("a step is under way")}
    with pytest.raises(CreamasError, match="under way"):
        sim.step()
    assert (sim.cur_step, env.age) == (1, 1)
    assert len(sim.finish_step()) == 2


@pytest.mark.parametrize("step", STEPS)
def test_a_callback_that_raises_does_not_take_its_step_back(env: Any, step: Any) -> None:
    def call(step: int) -> None:
        raise NoSlaves("of the callback's own")

    sim = Simulation(env, call)
    with pytest.raises(NoSlaves):
        step(sim)
    assert (sim.cur_step, env.age) == (1, 1)


# ---- the end


def test_close(env: FakeEnvironment, sim: Simulation) -> None:
    assert sim.close() == "report"
    assert sim.close("results") == "report"
    assert env.closed == [None, "results"]


def test_end_is_deprecated(env: FakeEnvironment, sim: Simulation) -> None:
    with pytest.warns(DeprecationWarning, match="use close") as warned:
        assert sim.end("results") == "report"
    assert warned[0].filename == __file__
    assert env.closed == ["results"]


def test_steps_are_logged(env: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sim = Simulation(env, log_folder=str(tmp_path))
    sim.step()
    sim.close()
    assert [message.split(" took")[0] for message in caplog.messages[:2]] == [
        "sim: step 1",
        "sim: step 1",
    ]
    assert "closed after 1 steps" in caplog.messages[2]


# ---- create


def test_create(studios: list[Studio]) -> None:
    called: list[int] = []
    kwargs = {"colour": "blue"}
    sim = Simulation.create(
        Painter, 3, kwargs, env_cls=Studio, env_kwargs={"name": "studio"}, callback=called.append,
        conns=2,
    )  # fmt: skip
    assert isinstance(sim.env, Studio)
    assert sim.env.name == "studio"
    assert sim.env.base_url == "tcp://localhost:0/", "any free port"
    agents = sim.env.get_agents(addr=False)
    assert [type(agent) for agent in agents] == [Painter] * 3
    assert [len(agent.connections) for agent in agents] == [2, 2, 2]
    assert sim.step() == sim.async_step() == ["blue"] * 3
    assert called == [1, 2]
    assert kwargs == {"colour": "blue"}, "the caller's stays as it was"


def test_create_makes_ten_agents_without_connections(studios: Any) -> None:
    sim = Simulation.create(Poet, env_cls=Studio)
    agents = sim.env.get_agents(addr=False)
    assert len(agents) == 10
    assert not any(agent.connections for agent in agents)


def test_create_makes_connections(studios: Any) -> None:
    sim = Simulation.create(Poet, 3, env_cls=Studio, conns=1)
    assert [len(agent.connections) for agent in sim.env.get_agents(addr=False)] == [1, 1, 1]


def test_create_with_several_classes(studios: Any) -> None:
    sim = Simulation.create([Painter, Poet], [1, 2], [{"colour": "blue"}, {}], env_cls=Studio)
    assert [type(agent) for agent in sim.env.get_agents(addr=False)] == [Painter, Poet, Poet]
    sim = Simulation.create((Poet, Poet), (1, 1), {"resources": 3}, env_cls=Studio)
    assert [agent.max_res for agent in sim.env.get_agents(addr=False)] == [3, 3]


def test_create_makes_an_instance_of_the_subclass(studios: Any) -> None:
    class Special(Simulation):
        pass

    assert type(Special.create(Poet, 1, env_cls=Studio)) is Special


def test_create_hands_the_log_folder_on(studios: Any, tmp_path: Path) -> None:
    sim = Simulation.create(
        Poet, 1, {"name": "p", "log_folder": "elsewhere"}, env_cls=Studio, log_folder=tmp_path
    )
    (agent,) = sim.env.get_agents(addr=False)
    assert agent.logger.folder == str(tmp_path / "p")
    assert sim.env.log_folder == sim.logger.folder == str(tmp_path)  # type: ignore[union-attr]


def test_create_keeps_the_agents_own_log_folder(studios: Any, tmp_path: Path) -> None:
    sim = Simulation.create(Poet, 1, {"name": "p", "log_folder": tmp_path}, env_cls=Studio)
    (agent,) = sim.env.get_agents(addr=False)
    assert agent.logger.folder == str(tmp_path / "p")
    assert sim.logger is None


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, TypeError, "agent_cls must be a CreativeAgent, not None"),
        ({"agent_cls": int}, TypeError, "must be a CreativeAgent, not <class 'int'>"),
        ({"agent_cls": [Poet, int], "n_agents": [1, 1]}, TypeError, "must be a CreativeAgent"),
        ({"agent_cls": [Poet]}, TypeError, "n_agents must be a list"),
        ({"agent_cls": [Poet], "n_agents": [1, 2]}, ValueError, "1 agent classes, but 2 n_agents"),
        (
            {"agent_cls": [Poet], "n_agents": [1], "agent_kwargs": [{}, {}]},
            ValueError,
            "and 2 agent_kwargs",
        ),
        ({"agent_cls": Poet, "env_cls": int}, TypeError, "env_cls must be an Environment"),
        ({"agent_cls": Poet, "callback": 3}, TypeError, "callback must be callable"),
    ],
)
def test_create_checks_before_it_makes_anything(
    studios: list[Studio], arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Simulation.create(**{"env_cls": Studio, **arguments})
    assert studios == []


def test_create_closes_what_it_made_when_an_agent_fails(studios: list[Studio]) -> None:
    with pytest.raises(ValueError, match="no colour"):
        Simulation.create(Painter, 2, {"colour": "none"}, env_cls=Studio)
    assert [studio.closed for studio in studios] == [True]

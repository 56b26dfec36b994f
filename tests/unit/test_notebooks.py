"""The live view of notebooks, with a fake of IPython: what is drawn, how often, and how it ends."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from creamas_sc import Artifact, CreativeAgent, Environment, Simulation, expose, notebooks
from creamas_sc.errors import CreamasError, DeadlineExceeded, DecodeError
from creamas_sc.notebooks import in_notebook, show_simulation, show_steps
from tests.support.cli_fakes import NAME, FakeClient, progress
from tests.support.records import write_run


class Cell:
    """What was drawn, one text after another, all in one output."""

    def __init__(self) -> None:
        self.drawn: list[str] = []
        self.outputs = 0

    def display(self, data: Any, *, raw: bool, display_id: bool) -> Any:
        assert raw
        assert display_id
        self.outputs += 1
        self.update(data, raw=True)
        return self

    def update(self, data: Any, *, raw: bool) -> None:
        (text,) = data.values()
        self.drawn.append(text)

    @property
    def last(self) -> str:
        """The text of what was drawn last, without its tags."""
        return re.sub(r"<[^>]*>", " ", self.drawn[-1])


@pytest.fixture
def cell(monkeypatch: pytest.MonkeyPatch) -> Cell:
    """A notebook's cell, which is drawn at every chance."""
    made = Cell()
    ipython: Any = ModuleType("IPython")
    # The custom exceptions are those of errors, see `creamas_sc.runtime.signals`.
    ipython.get_ipython = lambda: SimpleNamespace(kernel=object(), custom_exceptions=True)
    display: Any = ModuleType("IPython.display")
    display.display = made.display
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    monkeypatch.setattr(notebooks, "EVERY_SECONDS", 0.0)
    return made


class Env:
    """An environment with artifacts."""

    def __init__(self) -> None:
        self.artifacts: list[Artifact] = []

    def step(self) -> None:
        self.artifacts.append(Artifact("ada", f"<b>{len(self.artifacts)}"))


def test_outside_of_a_notebook_it_only_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    assert not in_notebook()
    assert list(show_steps(object(), 3)) == [1, 2, 3]
    terminal: Any = ModuleType("IPython")
    terminal.get_ipython = lambda: SimpleNamespace()
    monkeypatch.setitem(sys.modules, "IPython", terminal)
    assert not in_notebook()
    with pytest.raises(CreamasError, match="creamas-supervisor attach novelty"):
        show_simulation(SimpleNamespace(name="novelty"))


def test_steps_are_shown_in_one_output_to_their_end(cell: Cell) -> None:
    env = Env()
    for step in show_steps(env, 4):
        env.step()
        assert len(cell.drawn) == step
    assert cell.outputs == 1
    assert "Env  done, step 4 of 4" in cell.last
    assert '<progress value="4" max="4">' in cell.drawn[-1]
    assert "artifacts 4" in cell.last
    assert "<polyline" in cell.drawn[-1]
    assert "the last of 4 artifacts" in cell.last
    for number in (1, 2, 3):
        assert f"&lt;b&gt;{number}" in cell.drawn[-1]
    assert "&lt;b&gt;0" not in cell.drawn[-1]
    assert "stepping, step 1 of 4" in re.sub(r"<[^>]*>", " ", cell.drawn[1])


def test_it_is_not_drawn_more_often_than_twice_a_second(
    cell: Cell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notebooks, "EVERY_SECONDS", 60.0)
    env = Env()
    for _ in show_steps(env, 1000):
        env.step()
    assert len(cell.drawn) == 2  # at the beginning and at the end


def test_steps_that_are_broken_off_are_shown_as_stopped(cell: Cell) -> None:
    env = Env()

    def take_steps() -> None:
        for step in show_steps(env, 4):
            if step == 3:
                raise ValueError("odd")

    with pytest.raises(ValueError, match="odd"):
        take_steps()
    assert "stopped, step 3 of 4" in cell.last
    for _ in show_steps(env, 1):
        break
    assert "stopped, step 1 of 1" in cell.last


def test_a_metric_is_a_function_or_of_the_record(cell: Cell, tmp_path: Path) -> None:
    env: Any = Env()

    def novelty(env: Any) -> float:
        return len(env.artifacts) / 4

    for _ in show_steps(env, 2, metric=novelty, artifacts=0):
        env.step()
    assert "novelty 0.5" in cell.last
    assert "the last of" not in cell.last
    path = write_run(tmp_path, metrics=[{"value": 0.25, "other": 7}, {"value": 0.75, "other": 9}])
    env._recording = SimpleNamespace(path=str(path))
    list(show_steps(env, 1))
    assert "value 0.75" in cell.last
    list(show_steps(env, 1, metric="other"))
    assert "other 9" in cell.last
    list(show_steps(env, 1, metric="missing"))
    assert "<svg" not in cell.drawn[-1]


class Painter(CreativeAgent):
    @expose
    async def act(self) -> None:
        self.publish(Artifact(self, 1))


def test_simulations_show_their_steps(cell: Cell) -> None:
    simulation = Simulation.create(Painter, n_agents=2, env_cls=Environment)
    try:
        assert len(simulation.async_steps(3)) == 3
        assert "Environment  done, step 3 of 3" in cell.last
        assert "the last of 6 artifacts" in cell.last
        simulation.async_steps(3, progress=False)
        simulation.async_step()
        assert "step 3 of 3" in cell.last
    finally:
        simulation.close()


@pytest.fixture
def attached() -> Any:
    """A simulation of a fake daemon."""
    client = FakeClient()
    client.sim._client = client  # type: ignore[attr-defined]
    client.sim.answers["get_artifacts"] = [[Artifact("ada", 1.5)]]
    return client.sim


def shown(state: str, step: int, **more: Any) -> Any:
    return progress(state, step, 9, **{"steps_per_second": 2.0, "seconds_left": 4.0, **more})


def test_an_attached_simulation_is_followed_until_its_steps_are_done(
    cell: Cell, attached: Any
) -> None:
    late = DeadlineExceeded("late", acknowledged=True)
    attached.answers["progress"] = [shown("stepping", 1), shown("stepping", 2)]
    attached.answers["wait_steps"] = [late, shown("idle", 9)]
    show_simulation(attached)
    texts = [re.sub(r"<[^>]*>", " ", each) for each in cell.drawn]
    assert len(texts) == 3
    assert f"{NAME}  stepping, step 1 of 9, 2 steps/s, 0:04 left" in texts[0]
    assert "idle, step 9 of 9" in texts[2]
    assert "the last of 1 artifacts" in texts[2]
    assert attached.called("get_artifacts")[0] == ((), {"since": 0, "limit": 3})


def test_one_that_does_not_step_is_shown_once(cell: Cell, attached: Any) -> None:
    idle = shown("idle", 3, error="dropped <the> brush")
    attached.answers["progress"] = attached.answers["wait_steps"] = [idle]
    attached.answers["get_artifacts"] = [DecodeError("the class 'P' is\nnot known here")]
    show_simulation(attached)
    assert len(cell.drawn) == 1
    assert "dropped &lt;the&gt; brush" in cell.last
    assert "which cannot be shown here: the class &#x27;P&#x27; is not known here" in cell.last


def test_an_interrupt_leaves_it_and_is_said(cell: Cell, attached: Any) -> None:
    attached.answers["progress"] = [shown("stepping", 1)]
    attached.answers["wait_steps"] = [KeyboardInterrupt()]
    with pytest.raises(KeyboardInterrupt):
        show_simulation(attached)
    assert "left; the simulation goes on, step 1 of 9" in cell.last

"""`verify` over real slaves: societies that repeat themselves, and some that do not."""

from __future__ import annotations

import inspect
import json
import os
import random
import re
import signal
import sys
import textwrap
import time
from collections.abc import Callable
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
import trio

from creamas_sc import (
    Artifact,
    CreativeAgent,
    Environment,
    MultiEnvironment,
    expose,
    run,
    verify,
)
from creamas_sc.errors import BadValue, SlaveLost
from creamas_sc.mp import EnvManager
from creamas_sc.verification import causes
from tests.support.programs import environ, run_script
from tests.support.programs import run as run_program
from tests.support.shared_supervisor import uses_shared_supervisor

pytestmark = pytest.mark.usefixtures("shared_supervisor")

ANY_PORT = ("localhost", 0)


class Member(CreativeAgent):
    """Asks others and remembers what they say; from its second act on, spoils the run in one way.

    Args:
        how: The way; "" for none.
    """

    def __init__(self, environment: Environment, how: str = "") -> None:
        super().__init__(environment)
        self.how = how
        self.memory: list[Any] = []
        self.asked = 0
        self.waiting = trio.Event()

        if how == "born at random":
            self.luck = random.random()

    @expose
    async def judge(self, value: float, depth: int) -> float:
        self.asked += 1
        if depth:
            other = await self.random_connection()
            value = await other.judge(value, depth - 1)
        return float(value * self.rng.random() + self.asked)

    @expose
    def wake(self) -> None:
        self.waiting.set()

    @expose
    async def act(self) -> Any:
        other = await self.random_connection()
        judged = await other.judge(0.5, 2)
        self.memory.append({"from": other, "judged": judged})
        self.publish(Artifact(self, judged, domain=float))
        if self.how == "fails":
            raise ValueError(f"of {self.addr}")
        if self.how and len(self.memory) > 1:
            return await self.spoil()
        return judged

    async def spoil(self) -> Any:
        match self.how:
            case "random":
                return random.random()
            case "time":
                self.memory[-1]["at"] = time.time()
            case "address":
                self.memory[-1]["by"] = f"by {self.addr}"
            case "published address":
                self.publish(Artifact(self, f"by {self.addr}", domain=str))
            case "sorted by address":
                self.order = sorted(self.connections)
            case "held up" if self.number == 0:
                await self.waiting.wait()
                return os.getpid()
            case "held up" if self.number == 3:
                await (await self.connect(next(iter(self.connections)))).wake()
        return None


def society(
    how: str = "", calls: str = "rounds", members: int = 6
) -> Callable[[int, int], MultiEnvironment]:
    """What builds societies of members, each of which knows all others."""

    def build(slaves: int, seed: int) -> MultiEnvironment:
        with uses_shared_supervisor():
            menv = MultiEnvironment(ANY_PORT, Environment, seed=seed, calls=calls)
        run(menv.spawn_slaves([ANY_PORT] * slaves, Environment, EnvManager))
        addrs = [run(menv.spawn(Member, how))[1] for _ in range(members)]
        menv.create_connections(
            {addr: [(other, {}) for other in addrs if other != addr] for addr in addrs}
        )
        return menv

    return build


@pytest.mark.slow
def test_a_society_that_repeats_itself() -> None:
    outcome = verify(society(), steps=3, slaves=(1, 2, 4))
    assert outcome, str(outcome)
    assert (outcome.seed, outcome.steps, outcome.slaves) == (1, 3, (1, 1, 2, 4))
    assert (outcome.calls, outcome.difference) == ("rounds", None)
    assert outcome.not_compared == ("Member.waiting: Event",)


def test_agents_that_fail_alike_repeat_themselves() -> None:
    assert verify(society("fails"), steps=2, slaves=(1, 2))


@pytest.mark.parametrize(
    ("how", "slaves", "agent", "change", "cause"),
    [
        ("random", (1, 2), 1, "result", "random, a generator that agents share, was used (in"),
        ("time", (1, 1), 0, "state memory[1]['at']", causes.USES_TIME),
        ("address", (1, 1), 0, "state memory[1]['by']", causes.USES_ADDRESS),
        ("published address", (1, 1), 0, "artifacts[1].obj", causes.USES_ADDRESS),
        ("sorted by address", (1, 2), 0, "state order", causes.REORDERED_AGENTS),
    ],
)
def test_societies_that_do_not(
    how: str, slaves: tuple[int, int], agent: int, change: str, cause: str
) -> None:
    outcome = verify(society(how), steps=4, slaves=(1, 2))
    difference = outcome.difference
    assert difference is not None
    assert (difference.step, difference.agent, difference.slaves) == (2, agent, slaves)
    (named,) = difference.changes
    assert str(named).startswith(f"{change}: ")
    (found,) = difference.causes
    assert cause in found
    assert outcome.steps == 2


def test_a_round_that_is_ended_by_force_is_a_cause() -> None:
    difference = verify(society("held up"), steps=3, slaves=(2,)).difference
    assert difference is not None
    assert (difference.step, difference.agent) == (2, 0)
    assert [change.what for change in difference.changes] == ["result"]
    for cause in difference.causes:  # of each run
        assert cause.startswith("the step is not repeatable: a round ended while tcp://")


def test_free_calls_are_named() -> None:
    outcome = verify(society(calls="free"), steps=2, slaves=(1, 2))
    assert outcome.calls == "free"
    assert outcome.difference is not None
    assert outcome.difference.causes == (causes.FREE_CALLS,)
    assert 'calls="rounds"' in str(outcome)


def test_the_start_is_compared_too() -> None:
    def build(slaves: int, seed: int) -> MultiEnvironment:
        return society(str(random.random()))(slaves, seed)

    difference = verify(build, steps=3, slaves=(1,)).difference
    assert difference is not None
    assert (difference.step, difference.agent) == (0, 0)
    assert [change.path for change in difference.changes] == ["how"]
    assert re.search(r"random, .* used \(in this script\)", difference.causes[0])


def test_agents_that_are_born_at_random() -> None:
    difference = verify(society("born at random"), steps=3, slaves=(1, 2)).difference
    assert difference is not None
    assert (difference.step, difference.agent, difference.slaves) == (0, 1, (1, 2))
    assert [change.path for change in difference.changes] == ["luck"]
    (cause,) = difference.causes
    assert cause.startswith("random, a generator that agents share, was used (in slave 1 of 1)")


def test_steps_may_be_the_users_own() -> None:
    async def build(slaves: int, seed: int) -> MultiEnvironment:
        with uses_shared_supervisor():
            menv = MultiEnvironment(ANY_PORT, Environment, seed=seed, calls="rounds")
        await menv.spawn_slaves([ANY_PORT] * slaves, Environment, EnvManager)
        await menv.spawn(CreativeAgent)
        return menv

    calls = 0

    async def step(menv: MultiEnvironment) -> Any:
        nonlocal calls
        calls += 1
        return [await menv.trigger_all(calls), calls]

    difference = verify(build, steps=3, slaves=(1,), step=step).difference
    assert difference is not None
    assert (difference.step, difference.agent) == (1, None)
    assert str(difference.changes[0]) == "result[0][0][0][0]: 1 and 2"


def test_the_seed_must_be_used() -> None:
    build = society()
    with pytest.raises(BadValue, match="build must pass its seed on, 8: the simulation has 1"):
        verify(lambda slaves, _: build(slaves, 1), seed=8)


def test_a_slave_that_is_lost_is_an_error() -> None:
    def step(menv: MultiEnvironment) -> None:
        os.kill(menv.overview().pids[0], signal.SIGKILL)
        run(menv.trigger_all())

    with pytest.raises(SlaveLost):
        verify(society(), steps=1, slaves=(1,), step=step)


# ---- in processes of their own


@pytest.mark.slow
def test_the_example_of_the_docstring(tmp_path: Path) -> None:
    assert verify.__doc__ is not None
    lines = inspect.cleandoc(verify.__doc__).split("::\n", 1)[1].split("\n")
    code = takewhile(lambda line: not line or line.startswith("    "), lines)
    script = tmp_path / "painting.py"
    script.write_text(textwrap.dedent("\n".join(code)))
    done = run_script(script)
    assert (done.returncode, done.stdout, done.stderr) == (
        0, "same: 3 steps, seed 1, runs with 1, 1, 2 slaves\n", "",
    )  # fmt: skip


SOCIETY = """
from creamas_sc import CreativeAgent, expose

class Listing(CreativeAgent):
    seen = ()

    @expose
    async def act(self):
        self.seen = list({f"word {n}" for n in range(20)})
"""


@pytest.mark.parametrize(
    ("chosen", "code"), [("", 0), pytest.param("random", 1, marks=pytest.mark.slow)]
)
def test_sets_of_strings_from_the_command_line(tmp_path: Path, chosen: str, code: int) -> None:
    (tmp_path / "society.py").write_text(SOCIETY)
    words = ["verify", "--agents", "society.py:Listing=4", "--slaves", "1,2", "--steps", "2"]
    words += ["--calls", "rounds", "--json"]
    env = environ(PYTHONHASHSEED=chosen)
    if not chosen:
        del env["PYTHONHASHSEED"]
    command = [sys.executable, "-P", "-m", "supervisor.cli", *words]
    done = run_program(*command, folder=tmp_path, env=env)
    assert done.returncode == code, done.stderr
    outcome = json.loads(done.stdout)
    assert outcome["same"] is (code == 0)
    if code:
        assert outcome["difference"]["agent"] == 0
        assert outcome["difference"]["step"] == 1
        assert outcome["difference"]["changes"][0][:2] == ["state", "seen"]
        assert outcome["difference"]["causes"] == [causes.REORDERED, causes.HASHES_DIFFER]

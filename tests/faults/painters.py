"""A recorded society that is killed and resumed, with what researchers' agents have."""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from creamas_sc import (
    Artifact,
    CreativeAgent,
    Environment,
    MultiEnvironment,
    Simulation,
    expose,
    resume,
    run,
)
from creamas_sc.checkpoints.files import Checkpoints
from creamas_sc.mp import EnvManager, MultiEnvManager
from creamas_sc.results.record import Record
from tests.faults import killed_calls

AGENTS = 10
STEPS = 12
EVERY = 2
SEED = 7
LAST = "last.json"
ANY_PORT = ("localhost", 0)
# A picture of this width is a file of its own in the record.
WIDTHS = (4, 4, 4, 96)
MADE_AT_MOST = 2
_ADDRESS = re.compile(r"tcp://[^\s/]+:[0-9]+/[0-9]+")

killed_calls.arm()


@dataclass
class Memory:
    """What a painter remembers."""

    seen: dict[str, float] = field(default_factory=dict)
    last: deque[Any] = field(default_factory=lambda: deque(maxlen=3))
    best: Artifact | None = None


class Hall(Environment):
    """Has state of its own."""

    def __init__(self, *args: Any, light: float = 1.0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.light = light


class Painter(CreativeAgent):
    """Draws, asks others, learns from them, and has apprentices."""

    def __init__(self, environment: Any, taste: float, **kwargs: Any) -> None:
        super().__init__(environment, **kwargs)
        self.taste = taste
        self.memory = Memory()
        self.canvas = np.zeros(3)
        self.apprentices: list[Any] = []
        self.shared = [self.memory.last, self.memory.last]

    @expose
    async def act(self) -> float:
        width = self.rng.choice(WIDTHS)
        picture = self.numpy_rng.random((width, width)) * vars(self.env)["light"]
        artifact = Artifact(self, picture, domain="picture")
        artifact.add_feature_value("mean", float(picture.mean()))
        for _ in range(2):
            other = await self.random_connection()
            judgement, framing = await other.evaluate(artifact)
            artifact.add_eval(other.addr, judgement, framing)
            self.connections[other.addr]["trust"] += judgement
            self.memory.seen[other.addr] = judgement
        self.canvas += picture.mean()
        self.shared[0].append((self.number, artifact.get_feature_value("mean")))
        if self.memory.best is None or picture.mean() > self.memory.best.obj.mean():
            self.memory.best = artifact
        if self.rng.random() < 0.6:
            self.publish(artifact)
        if self.rng.random() < 0.1 and len(self.apprentices) < MADE_AT_MOST:
            apprentice = type(self)(self.env, self.rng.random())
            apprentice.add_connection(self.addr, trust=1.0)
            self.add_connection(apprentice.addr, trust=0.0)
            self.apprentices.append(apprentice)
        if self.rng.random() < 0.1 and len(self.connections) > 2:
            self.remove_connection(self.rng.choice(list(self.connections)))
        return float(self.canvas.sum())

    @expose
    def evaluate(self, artifact: Any) -> tuple[float, str]:
        value = float(abs(artifact.obj.mean() - self.taste) + self.numpy_rng.random())
        self.taste += 0.01 * (value - self.taste)
        return value, f"{self.number} of {artifact.obj.shape}"

    def observe(self) -> dict[str, Any]:
        return {"taste": self.taste, "seen": len(self.memory.seen), "drawn": self.rng.random()}

    @expose
    def portrait(self) -> dict[str, Any]:
        """All that it is."""
        best = self.memory.best
        return {
            "name": self.name,
            "taste": self.taste,
            "canvas": self.canvas.tolist(),
            "connections": list(self.connections.items()),
            "seen": list(self.memory.seen.items()),
            "last": list(self.memory.last),
            "shares": self.shared[0] is self.shared[1] is self.memory.last,
            "best": None if best is None else [best.obj.tobytes().hex()[:64], list(best.evals)],
            "apprentices": [each.number for each in self.apprentices],
            "are they": [each.env is self.env for each in self.apprentices],
            "rng": _hash(self.rng.getstate()),
            "numpy": _hash(self.numpy_rng.bit_generator.state),
        }


class Gallery(MultiEnvironment):
    """Measures the society, and remembers what it measured."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.history: list[int] = []
        self.rng = random.Random(SEED)

    def observe(self) -> dict[str, Any]:
        self.history.append(len(self.artifacts))
        return {"shown": len(self.artifacts), "drawn": self.rng.random(), "age": self.age}


def record(folder: Path) -> Record:
    """How it is recorded."""
    return Record(folder, checkpoint_every=EVERY, connections_every=5, parameters={"of": "row"})


def populate(menv: Any) -> None:
    """Spawn the painters into the slaves, and connect them."""
    draws = random.Random(SEED)
    addrs = []
    for number in range(AGENTS):
        named = {"name": f"painter {number}"} if number % 2 else {}
        spawned = menv.spawn("tests.faults.painters:Painter", draws.random(), **named)
        addrs.append(_result(spawned)[1])
    pairs = {a: [(b, {"trust": 0.5}) for b in draws.sample(addrs, 4) if b != a] for a in addrs}
    menv.create_connections(pairs)


def last_state(menv: Any) -> str:
    """All agents and artifacts, by their numbers, as JSON."""
    numbers = _result(menv.get_numbers())
    portraits = _result(menv.gather("portrait"))
    agents = [[numbers[addr], portraits[addr]] for addr in portraits]
    artifacts = [
        [a.creator, _hash(a.obj.tobytes()), a.env_time, a.evals, a.framings, a.feature_values]
        for a in menv.get_artifacts()
    ]
    text = json.dumps([agents, artifacts])
    return _ADDRESS.sub(lambda found: f"agent {numbers[found[0]]}", text)


def last_checkpoint(folder: Path) -> int | None:
    """The step after which the last checkpoint of the run in a folder was written."""
    files = [file for file in folder.glob("run-*.sqlite") if Checkpoints(file).steps()]
    return Checkpoints(files[0]).steps()[-1] if files else None


def main(folder: Path, slaves: int) -> None:
    """Take up the run in a folder, or begin one; take all steps left, and write the last state."""
    print("starts", flush=True)
    if last_checkpoint(folder) is not None:
        menv = resume(folder, slaves=slaves)
    else:
        menv = Gallery(ANY_PORT, Environment, MultiEnvManager, seed=SEED, record=record(folder))
        places = [ANY_PORT] * slaves
        run(menv.spawn_slaves(places, Hall, EnvManager, [{"light": 0.9}] * slaves))
        run(menv.set_host_managers())
        populate(menv)
    with menv:
        simulation = Simulation(menv)
        print("is there", flush=True)
        while menv.steps_taken < STEPS:
            simulation.async_step()
            print(f"step {menv.steps_taken}", flush=True)
        (folder / LAST).write_text(json.dumps([menv.history, last_state(menv)]))
    print("is closed", flush=True)


def _result(value: Any) -> Any:
    return value if isinstance(value, (Mapping, list, tuple)) else run(value)


def _hash(value: Any) -> str:
    data = value if isinstance(value, bytes) else repr(value).encode()
    return hashlib.sha256(data).hexdigest()

"""Societies of a script or a daemon with slaves on other machines, which have nodes."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from creamas_sc.supervisor_client.node_key import make_key
from tests.support.machines import Machine, machines, needs_machines
from tests.support.programs import Program

pytestmark = needs_machines

PORT = 5601
SECONDS = 60.0

# Prints "ready" and a digest of what its society has published.
SCRIPT = """
import hashlib, sys, time
from creamas_sc import Environment, MultiEnvironment, resume, run
from creamas_sc.mp import EnvManager
from creamas_sc.nodes import Nodes
from creamas_sc.results import Record
from far_painters import Painter  # in no folder of the nodes

host, key, slaves, record, *options = sys.argv[1:]
nodes = None if host == "localhost" else Nodes((host, {port}), key, count=2, seconds=20.0)
if nodes is not None:
    nodes.lease = 2.0


if "resume" in options:
    menv = resume(record, slaves=int(slaves), nodes=nodes)
else:
    kept = Record(record, checkpoint_every=2) if record else None
    menv = MultiEnvironment((host, 0), Environment, seed=7, nodes=nodes, record=kept)
with menv:
    if "resume" not in options:
        run(menv.spawn_slaves(int(slaves), Environment, EnvManager))
        for _ in range(6):
            run(menv.spawn(Painter))
        agents = menv.get_agents()
        for agent, other in zip(agents, agents[1:] + agents[:1]):
            run(run(menv.connect(agent)).set_neighbour(other))
    while menv.steps_taken < 4:
        run(menv.trigger_all())
    print("digest", hashlib.sha256(repr([a.obj for a in menv.artifacts]).encode()).hexdigest())
    print("ready", len(menv.artifacts), flush=True)
    if "wait" in options:
        time.sleep(60)
print("closed", flush=True)
"""

PAINTERS = """
from creamas_sc import Artifact, CreativeAgent, expose


class Painter(CreativeAgent):
    neighbour = ""
    seen = 0.0

    @expose
    def set_neighbour(self, addr):
        self.neighbour = addr

    @expose
    def show(self, colour):
        self.seen += colour
        return self.seen + self.rng.random()

    @expose
    async def act(self):
        other = await self.connect(self.neighbour)
        answer = await other.show(self.rng.random())
        self.publish(Artifact(self, answer, domain=float))
"""


class Society:
    """A script on the first machine, and nodes on the others."""

    def __init__(self, folder: Path, here: Machine, *others: Machine) -> None:
        self.folder, self.here, self.others = folder, here, others
        self.key = folder / "nodes.key"
        self.script = folder / "script" / "society.py"
        self.script.parent.mkdir()
        self.script.write_text(SCRIPT.replace("{port}", str(PORT)))
        (self.script.parent / "far_painters.py").write_text(PAINTERS)
        make_key(self.key)

    def start(self, host: str, slaves: int, record: Path | str, *options: str) -> Program:
        words = [self.script, host, self.key, slaves, record, *options]
        return self.here.program(sys.executable, *map(str, words))

    def run(self, host: str, slaves: int, record: Path | str, *options: str) -> str:
        """The digest of what it has published."""
        with self.start(host, slaves, record, *options) as program:
            digest = program.read_until("digest", SECONDS)
            program.read_until("closed", SECONDS)
        return digest

    @contextmanager
    def nodes(self, *hidden: Path) -> Iterator[list[Program]]:
        """A node on each of the others, for which the script's and other folders are empty."""
        mounts = [f"mount -t tmpfs none {each}" for each in (self.script.parent, *hidden)]
        words = ["unshare", "--mount", "sh", "-c", " && ".join([*mounts, 'exec "$@"']), "sh"]
        words += [sys.executable, "-m", "supervisor.cli", "node", "--retry", "30"]
        words += ["--join", f"{self.here.address}:{PORT}", "--key-file", str(self.key)]
        started = [each.program(*words) for each in self.others]
        try:
            yield started
        finally:
            for each in started:
                each.process.kill()
                each.process.communicate()


@pytest.fixture
def society(tmp_path: Path) -> Iterator[Society]:
    with machines(tmp_path, 3) as made:
        yield Society(tmp_path, *made)


@pytest.mark.long
def test_one_seed_gives_the_same_on_one_machine_and_on_three(society: Society) -> None:
    """Also after a kill: the run goes on with another number of slaves, elsewhere."""
    one = society.run("localhost", 2, "")
    with society.nodes():
        assert society.run(society.here.address, 4, "") == one
    record = society.folder / "record"
    with society.nodes(), society.start(society.here.address, 4, record, "wait") as program:
        program.read_until("ready", SECONDS)
        os.kill(program.pid, signal.SIGKILL)
        for each in society.others:
            wait_without_slaves(each)
    with society.nodes():
        assert society.run(society.here.address, 3, record, "resume") == one


@pytest.mark.long
def test_a_record_that_is_not_shared_has_no_checkpoints(society: Society) -> None:
    record = society.folder / "record"
    record.mkdir()
    with society.nodes(record), society.start(society.here.address, 2, record) as program:
        _, errors = program.process.communicate(timeout=SECONDS)
    assert "is not the master's folder: record into one that all machines" in errors.decode()


@pytest.mark.slow
@pytest.mark.parametrize(
    "ended_by", [pytest.param(signal.SIGINT, marks=pytest.mark.long), signal.SIGKILL]
)
def test_a_script_that_ends_leaves_nothing_on_nodes(
    society: Society, ended_by: signal.Signals
) -> None:
    with society.nodes(), society.start(society.here.address, 4, "", "wait") as program:
        program.read_until("ready", SECONDS)
        assert [len(slaves_on(each)) for each in society.others] == [2, 2]
        os.kill(program.pid, ended_by)
        for each in society.others:
            wait_without_slaves(each)
        society.here.wait_empty(10.0)


def slaves_on(machine: Machine) -> list[int]:
    return [pid for pid, name in machine.processes().items() if "slave-" in name]


def wait_without_slaves(machine: Machine, seconds: float = 4.0) -> None:
    until = time.monotonic() + seconds
    while slaves_on(machine):
        assert time.monotonic() < until, machine.processes()
        time.sleep(0.02)

"""Scripts: their own classes, their ends by Ctrl-C, their children."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from creamas_sc.client import SyncSimulation, connect_sync
from tests.support import programs
from tests.support.clients import BOUND_SECONDS, KINDS, SOCIETY, Named, needs_trio
from tests.support.programs import Program

# No guard: the host loads the script again, up to the first call into creamas_sc.
CREATES = """
import sys
from creamas_sc import Artifact
from creamas_sc.client import connect, connect_sync
from creamas_sc.errors import CreamasError

class Note(Artifact):
    "Made here."

name, role = sys.argv[1:]
with connect_sync() as client:
    if role == "create":
        client.create(name, slave_addrs=[("localhost", 0)])
    with client.attach(name) as simulation:
        try:
            simulation.add_artifact(Note(role, [1]))
            print([type(note).__name__ for note in simulation.get_artifacts()])
        except CreamasError as error:
            print(type(error).__name__, error)
        try:
            print(simulation.spawn(Note))
        except CreamasError as error:
            print(type(error).__name__, error)
"""
AGENTS = """
import sys, anyio
from creamas_sc import CreativeAgent, expose
from creamas_sc.client import connect

class Mine(CreativeAgent):
    @expose
    def hello(self):
        return "hello from " + self.addr

async def main():
    async with connect() as client:
        await client.create(sys.argv[1], slave_addrs=[("localhost", 0)])
        async with client.attach(sys.argv[1]) as simulation:
            mine, addr = await simulation.spawn(Mine)
            assert await mine.hello() == "hello from " + addr
            assert await simulation.get_agents(agent_cls=Mine) == [addr]
            print("said hello")

anyio.run(main)
"""
FOLLOWS = {
    "sync": """
import sys
from creamas_sc.client import connect_sync

with connect_sync() as client, client.attach(sys.argv[1]) as simulation:
    print("attached", flush=True)
    simulation.trigger_all()
""",
    "asyncio": """
import sys, anyio
from creamas_sc.client import connect

async def main():
    async with connect() as client, client.attach(sys.argv[1]) as simulation:
        print("attached", flush=True)
        await simulation.trigger_all()

anyio.run(main)
""",
}
FOLLOWS["trio"] = FOLLOWS["asyncio"].replace("run(main)", "run(main, backend='trio')")
FORKS = """
import os, sys
from creamas_sc.client import connect_sync

with connect_sync() as client, client.attach(sys.argv[1]) as simulation:
    child = os.fork()
    for _ in range(200):
        assert simulation.get_name() == sys.argv[1]
        assert client.status()["pid"] == client.pid
    if not child:
        client.disconnect()
        simulation.detach()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert simulation.get_name() == sys.argv[1]
"""


@pytest.fixture
def script(tmp_path: Path, named: Named) -> Path:
    return tmp_path / "script.py"


def run(script: Path, *arguments: str) -> str:
    """What a script prints that must not warn, nor fail."""
    done = programs.run(sys.executable, "-W", "error", script, *arguments, folder=script.parent)
    assert done.returncode == 0, done.stderr
    return done.stdout


def daemon_python() -> tuple[int, int]:
    with connect_sync(timeout=BOUND_SECONDS) as client:
        return client.python


def test_classes_of_the_script(script: Path, named: Named, tmp_path: Path) -> None:
    """They work where the daemon runs the same Python, and the simulation the same script."""
    script.write_text(CREATES)
    other = tmp_path / "other.py"
    other.write_text(CREATES)
    name = named()
    first, second = run(script, name, "create").splitlines()
    if daemon_python() != sys.version_info[:2]:
        for line, kind in ((first, "EncodeError"), (second, "LoadError")):
            assert line.startswith(kind)
            assert "the daemon 'default' runs Python" in line
            assert "move it to a module, say agents.py" in line
        return
    assert first == "['Note']"
    assert second.startswith("LoadError __main__:Note is not an agent class")
    assert run(script, name, "visit").startswith("['Note', 'Note']")
    for line in run(other, name, "visit").splitlines():
        assert f"was created by {script}" in line


@needs_trio
def test_agents_of_the_script(script: Path, named: Named) -> None:
    if daemon_python() != sys.version_info[:2]:
        pytest.skip("the daemon runs another Python")
    script.write_text(AGENTS)
    assert run(script, named()) == "said hello\n"


@contextmanager
def napping(script: Path, name: str) -> Iterator[tuple[Program, SyncSimulation]]:
    """Run the script until it is in the middle of a step; yields it, and another client."""
    with connect_sync(timeout=BOUND_SECONDS) as client:
        client.create(name, slave_addrs=[("localhost", 0)])
        with client.attach(name) as simulation:
            sleeper, _ = simulation.spawn(f"{SOCIETY}:Sleeper")
            with Program([sys.executable, str(script), name], script.parent) as program:
                program.read_until("attached")
                while not sleeper.naps()[0]:
                    simulation.next_events(0, timeout=0.01)
                yield program, simulation
            assert sleeper.naps() == (1, 1)
            while simulation.progress()["clients"] > 1:
                simulation.next_events(0, timeout=0.01)


@pytest.mark.parametrize("kind", KINDS)
def test_ctrl_c_detaches(kind: str, script: Path, named: Named) -> None:
    """The script's call is cancelled, and the simulation goes on."""
    script.write_text(FOLLOWS[kind])
    with napping(script, named()) as (program, simulation):
        assert simulation.progress()["clients"] == 2
        program.signal(signal.SIGINT)
        code, _, errors = program.finish()
    assert code == -signal.SIGINT
    assert errors.endswith("KeyboardInterrupt\n")


@pytest.mark.parametrize(
    "apart_seconds",
    [0.0, *(pytest.param(s, marks=pytest.mark.slow) for s in (0.001, 0.004)), 0.002],
)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "asyncio"])
def test_a_second_ctrl_c_does_not_hang(
    kind: str, apart_seconds: float, script: Path, named: Named
) -> None:
    """It comes in the middle of what the first has led to.

    Under asyncio, any script may hang until a third one: a second that comes before the first has
    woken the main task is raised in place of that wake-up, which is lost.
    """
    script.write_text(FOLLOWS[kind])
    with napping(script, named()) as (program, _):
        program.signal(signal.SIGINT)
        time.sleep(apart_seconds)
        program.signal(signal.SIGINT)
        code, _, _ = program.finish()
    # 1 if the second one broke a library in the middle of its clean-up.
    assert code in (-signal.SIGINT, 1)


def test_a_forked_child_has_connections_of_its_own(script: Path, named: Named) -> None:
    script.write_text(FORKS)
    name = named()
    with connect_sync(timeout=BOUND_SECONDS) as client:
        client.create(name)
        run(script, name)
        client.close(name)

"""Several machines: network namespaces that a switch joins."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from creamas_sc.supervisor_client.node_key import make_key
from tests.faults.cases.machines import FAULTS, Fault, link_cut, suffer
from tests.support import programs
from tests.support.far_society import FarSociety
from tests.support.far_spirographs import PICTURE, PUBLISHED
from tests.support.machines import Machine, has_netem, machines, needs_machines
from tests.support.processes import children, open_pidfds, wait_gone
from tests.support.programs import Program

pytestmark = needs_machines

# Answers each word on a connection, which ends when nothing comes or goes for a second.
ECHO = """
import socket
server = socket.create_server(("0.0.0.0", 5000))
print(socket.gethostname(), flush=True)
while True:
    connection, _ = server.accept()
    while word := connection.recv(100):
        connection.sendall(word)
"""
ASK = """
import socket, sys, time
began = time.monotonic()
with socket.create_connection((sys.argv[1], 5000), timeout=float(sys.argv[2])) as connection:
    for _ in range(10):
        connection.sendall(b"word")
        assert connection.recv(100) == b"word"
print(time.monotonic() - began)
"""


def _echo(machine: Machine) -> Program:
    return machine.program(sys.executable, "-c", ECHO)


def _asks(machine: Machine, other: Machine, seconds: float = 10.0) -> float:
    """Seconds that ten round trips took; 0 if one took longer than so many ``seconds``."""
    done = machine.run(sys.executable, "-c", ASK, other.address, f"{seconds}")
    return 0.0 if done.returncode else float(done.stdout)


@pytest.mark.parametrize("delay", [0.0, pytest.param(0.01, marks=pytest.mark.long)])
def test_machines_reach_each_other_unless_one_is_cut_off(tmp_path: Path, delay: float) -> None:
    with machines(tmp_path, 3, delay=delay) as (first, second, third), _echo(first) as server:
        assert server.read_until("machine") == "machine-0"
        assert list(first.processes()) == [server.pid]
        assert _asks(second, first) >= 20 * delay
        second.cut()
        assert not _asks(second, first, 0.3)
        assert _asks(third, first)
        second.mend()
        assert _asks(second, first)
        second.set_link(False)
        assert not _asks(second, first, 0.3)
        second.set_link(True)
        assert _asks(second, first)


@pytest.mark.long
@pytest.mark.skipif(has_netem(), reason="netem chooses by itself which frames it loses")
def test_frames_are_lost(tmp_path: Path) -> None:
    with machines(tmp_path, 2, loss=0.2, seed=1) as (first, second), _echo(first) as server:
        server.read_until("machine")
        # TCP sends again after 0.2 s what was lost: more than the client waits, or it takes long.
        assert max(_asks(second, first) or 1.0 for _ in range(5)) > 0.2


def test_machines_end_with_the_process_that_made_them(tmp_path: Path) -> None:
    text = f"""
from tests.support.machines import *
from pathlib import Path
with machines(Path({str(tmp_path)!r}), 2, delay=0.001):
    print("made", flush=True)
    input()
"""
    with Program([sys.executable, "-c", text]) as program:
        program.read_until("made")
        pids = children(program.pid)
        assert len(pids) >= 2
        pidfds = open_pidfds(pids)
        program.signal(signal.SIGKILL)
        assert not wait_gone(pidfds, programs.BOUND_SECONDS)
    for pid in pids:
        os.waitpid(pid, 0)  # they became ours


# ---- societies on them

LEASE_SECONDS = 2.0
QUICK = {"node killed"}

SHORT_FAULTS: dict[str, Fault] = {
    **{name: fault for name, fault in FAULTS.items() if "link" not in name},
    "link cut for less than the lease": partial(link_cut, 0.3),
    "link cut for more than the lease": partial(link_cut, 2.5),
    "link cut for long": partial(link_cut, 8.0),
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name in QUICK else pytest.mark.long)
        for name in SHORT_FAULTS
    ],
)
def test_what_runs_on_a_lost_machine_ends_and_goes_on_elsewhere(tmp_path: Path, name: str) -> None:
    suffer(SHORT_FAULTS[name], 1, tmp_path / "society", LEASE_SECONDS)


@pytest.mark.slow
@pytest.mark.parametrize("calls", ["rounds", pytest.param("free", marks=pytest.mark.long)])
def test_agents_on_several_machines_call_each_other(tmp_path: Path, calls: str) -> None:
    with (
        machines(tmp_path / "machines", 3, delay=0.005) as made,
        FarSociety(made, tmp_path, calls=calls) as society,
    ):
        assert {host for _, host in society.where().values()} == {"machine-1", "machine-2"}
        outcome = society.step()
        assert outcome["results"]
        assert outcome["seconds"] > 0.01  # there and back
        society.close()


@pytest.mark.slow
def test_a_seed_gives_the_same_bytes_on_one_machine_and_on_three(tmp_path: Path) -> None:
    key = tmp_path / "nodes.key"
    make_key(key)
    left = []
    for count in (0, 3):
        folder = tmp_path / f"{count}"
        folder.mkdir()
        with machines(folder / "machines", count + 1) as (first, *others), ExitStack() as stack:
            words: list[str | Path] = [folder, f"{count}", first.address, "5555", key]
            script = stack.enter_context(
                first.program(sys.executable, "-m", "tests.support.far_spirographs", *words)
            )
            join: list[str | Path] = ["--join", f"{first.address}:5555", "--key-file", key]
            for each in others:
                stack.enter_context(
                    each.program(sys.executable, "-m", "supervisor.cli", "node", *join)
                )
            code, _, errors = script.finish()
            assert code == 0, errors
            for each in others:
                each.wait_empty(programs.BOUND_SECONDS)
        left.append([(folder / name).read_bytes() for name in (PICTURE, PUBLISHED)])
    assert left[0] == left[1]
    assert len(left[0][1].splitlines()) > 20

"""A host under a real daemon, through the clients that users have."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from creamas_sc.client import RestartPolicy, SyncClient, SyncSimulation, connect_sync
from creamas_sc.errors import HostLost
from creamas_sc.simulation_host.main import EXIT_SECONDS
from supervisor.daemon.process import Settings, start
from tests.support import trees

DAEMON = "hosts"
ANY_PORT = ("localhost", 0)
SLAVES: dict[str, Any] = {
    "slave_addrs": [ANY_PORT] * 2,
    "slave_mgr_cls": "tests.support.agents:Manager",
}
CLOSES = "tests.integration.test_simulation_host_closes"


@pytest.fixture
def client(tmp_path: Path) -> Iterator[SyncClient]:
    """A client of a daemon of the test's own."""
    start(Settings(DAEMON, tmp_path))
    with connect_sync(DAEMON, timeout=20) as connected:
        yield connected
        connected.stop()


def test_steps_go_on_while_nobody_is_there(client: SyncClient, tmp_path: Path) -> None:
    client.create("sim", **SLAVES)
    with client.attach("sim") as simulation:
        simulation.spawn_n("tests.support.agents:Counter", 3)
        simulation.start_steps(50)
    with client.attach("sim") as simulation:
        told = simulation.wait_steps(timeout=20)
        assert (told["state"], told["step"], told["age"]) == ("idle", 50, 50)
        assert len(simulation.get_artifacts()) == 150
        (host, *slaves) = client.inspect("sim")["processes"]
        assert len(slaves) == 2
        assert signal.SIGINT in ignored(host["pid"])
        log = (tmp_path / DAEMON / "sim.log").read_text()
        assert '"request": "c1-' in log


def ignored(pid: int) -> set[int]:
    """The signals that a process ignores."""
    status = Path(f"/proc/{pid}/status").read_text()
    mask = int(
        next(line for line in status.split("\n") if line.startswith("SigIgn")).split()[1], 16
    )
    return {number for number in range(1, 65) if mask >> (number - 1) & 1}


def test_restart_all_ends_a_daemons_simulation_with_one_slave(client: SyncClient) -> None:
    client.create("sim", restart="all", **SLAVES)
    simulation = client.attach("sim")
    pids = [process["pid"] for process in client.inspect("sim")["processes"]]
    left = trees.open_pidfds(pids)
    os.kill(pids[1], signal.SIGKILL)
    with pytest.raises(
        HostLost, match=rf"pid {pids[1]}\) was killed by SIGKILL; with restart='all'"
    ):
        ask_until_told(simulation)
    assert trees.wait_gone(left, 2) == []
    (told,) = client.ls(all=True)
    assert told["state"] == "ended"
    assert f"(pid {pids[1]}) was killed by SIGKILL" in told["cause"]


def ask_until_told(simulation: SyncSimulation) -> None:
    while True:
        simulation.progress()


def test_clients_get_an_event_for_a_restart(client: SyncClient) -> None:
    client.create("sim", restart=RestartPolicy("permanent", restarts=1), **SLAVES)
    with (
        client.attach("sim") as simulation,
        client_of_its_own() as other,
        other.attach("sim") as watching,
    ):
        simulation.spawn_n("tests.support.agents:Counter", 2, addr=simulation.get_addrs()[0])
        last, _ = watching.next_events()
        first, second = [p["pid"] for p in client.inspect("sim")["processes"]][1:]
        os.kill(first, signal.SIGKILL)
        lost = next_event(watching, last, "slave_lost")
        told = next_event(watching, last, "slave_restarted")
        assert (lost["pid"], told["old_pid"], told["number"]) == (first, first, 1)
        assert (told["agents"], told["signal"], told["failures"]) == (2, signal.SIGKILL, ())
        assert simulation.trigger_all() == [1, 1]
        assert simulation.progress()["restarts"] == 1
        (restart,) = simulation.get_restarts()
        assert vars(restart) == told
        assert client.inspect("sim")["about"]["restart"] == "permanent, at most 1 restart in 60 s"
        os.kill(second, signal.SIGKILL)
        cause = r"SIGKILL; after 1 restart in 60 s restart='permanent' ends the simulation"
        with pytest.raises(HostLost, match=cause):
            ask_until_told(simulation)
    (ended,) = client.ls(all=True)
    assert re.search(cause, ended["cause"])


def next_event(simulation: SyncSimulation, since: int, name: str) -> dict[str, Any]:
    while True:
        since, events = simulation.next_events(since, 20)
        for _, kind, details in events:
            if kind == name:
                return dict(details)


def test_saving_has_the_grace_of_the_close(client: SyncClient) -> None:
    client.create("sim", menv_cls=f"{CLOSES}:Saver", env_kwargs={"how": "slow"}, **SLAVES)
    began = time.monotonic()
    receipt = client.close("sim", timeout=0.3)
    assert time.monotonic() - began < 2
    assert receipt.graceful
    assert len(receipt) == 2


def test_a_call_that_never_ends_does_not_keep_its_host_alive(client: SyncClient) -> None:
    client.create("sim", menv_cls=f"{CLOSES}:Forever", **SLAVES)
    caught: list[Any] = []

    def wait_in_vain() -> None:
        with client_of_its_own() as other, pytest.raises(HostLost):
            caught.append(other.attach("sim").is_ready())

    waiting = threading.Thread(target=wait_in_vain)
    with client.attach("sim") as simulation:
        waiting.start()
        while simulation.progress()["clients"] < 2:
            pass  # each is a round trip
        began = time.monotonic()
        assert simulation.close().graceful
        assert time.monotonic() - began < EXIT_SECONDS + 2
    waiting.join(10)
    assert not caught
    (told,) = client.ls(all=True)
    assert told["state"] == "ended"


def client_of_its_own() -> SyncClient:
    return connect_sync(DAEMON, timeout=20)

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
from tests.support import daemons, processes

DAEMON = "hosts"
ANY_PORT = ("localhost", 0)
SLAVES: dict[str, Any] = {
    "slave_addrs": [ANY_PORT] * 2,
    "slave_mgr_cls": "tests.support.agents:Manager",
}
CLOSES = "tests.integration.test_simulation_host_closes"


@pytest.fixture(scope="module")
def log_folder(_surroundings: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The log folder of a daemon for all tests here; none of its processes is left at the end."""
    with daemons.running(tmp_path_factory.mktemp("logs"), DAEMON) as daemon:
        left = processes.open_pidfds(daemon.family.values())
        yield daemon.log_folder
    assert daemon.process.returncode == 0
    assert processes.wait_gone(left, 0) == []


@pytest.fixture
def client(log_folder: Path) -> Iterator[SyncClient]:
    """A client of that daemon; a simulation that the test has left is killed."""
    with connect_sync(DAEMON, timeout=20) as connected:
        yield connected
        for left in connected.ls():
            connected.kill(left["name"])


def the_ended(client: SyncClient, name: str) -> dict[str, Any]:
    """The summary of a simulation that has ended."""
    (summary,) = [each for each in client.ls(all=True) if each["name"] == name]
    assert summary["state"] == "ended"
    return dict(summary)


def test_steps_go_on_without_clients(client: SyncClient, log_folder: Path) -> None:
    client.create("stepping", **SLAVES)
    with client.attach("stepping") as simulation:
        simulation.spawn_n("tests.support.agents:Counter", 3)
        simulation.start_steps(50)
    with client.attach("stepping") as simulation:
        progress = simulation.wait_steps(timeout=20)
        assert (progress["state"], progress["step"], progress["age"]) == ("idle", 50, 50)
        assert len(simulation.get_artifacts()) == 150
        (host, *slaves) = client.inspect("stepping")["processes"]
        assert len(slaves) == 2
        assert signal.SIGINT in ignored(host["pid"])
        log = (log_folder / DAEMON / "stepping.log").read_text()
        assert '"request": "c1-' in log


def ignored(pid: int) -> set[int]:
    """The signals that a process ignores."""
    status = Path(f"/proc/{pid}/status").read_text()
    mask = int(
        next(line for line in status.split("\n") if line.startswith("SigIgn")).split()[1], 16
    )
    return {number for number in range(1, 65) if mask >> (number - 1) & 1}


def test_restart_all_ends_a_daemons_simulation_with_one_slave(client: SyncClient) -> None:
    client.create("all", restart="all", **SLAVES)
    simulation = client.attach("all")
    pids = [process["pid"] for process in client.inspect("all")["processes"]]
    left = processes.open_pidfds(pids)
    os.kill(pids[1], signal.SIGKILL)
    with pytest.raises(
        HostLost, match=rf"pid {pids[1]}\) was killed by SIGKILL; with restart='all'"
    ):
        ask_until_lost(simulation)
    assert processes.wait_gone(left, 2) == []
    assert f"(pid {pids[1]}) was killed by SIGKILL" in the_ended(client, "all")["cause"]


def ask_until_lost(simulation: SyncSimulation) -> None:
    while True:
        simulation.progress()


def test_clients_get_an_event_for_a_restart(client: SyncClient) -> None:
    client.create("restarted", restart=RestartPolicy("permanent", restarts=1), **SLAVES)
    with (
        client.attach("restarted") as simulation,
        another_client() as other,
        other.attach("restarted") as watching,
    ):
        simulation.spawn_n("tests.support.agents:Counter", 2, addr=simulation.get_addrs()[0])
        last, _ = watching.next_events()
        first, second = [p["pid"] for p in client.inspect("restarted")["processes"]][1:]
        os.kill(first, signal.SIGKILL)
        lost = next_event(watching, last, "slave_lost")
        restarted = next_event(watching, last, "slave_restarted")
        assert (lost["pid"], restarted["old_pid"], restarted["number"]) == (first, first, 1)
        assert (restarted["agents"], restarted["signal"], restarted["failures"]) == (
            2,
            signal.SIGKILL,
            (),
        )
        assert simulation.trigger_all() == [1, 1]
        assert simulation.progress()["restarts"] == 1
        (restart,) = simulation.get_restarts()
        assert vars(restart) == restarted
        assert (
            client.inspect("restarted")["about"]["restart"]
            == "permanent, at most 1 restart in 60 s"
        )
        os.kill(second, signal.SIGKILL)
        cause = r"SIGKILL; after 1 restart in 60 s restart='permanent' ends the simulation"
        with pytest.raises(HostLost, match=cause):
            ask_until_lost(simulation)
    assert re.search(cause, the_ended(client, "restarted")["cause"])


def next_event(simulation: SyncSimulation, since: int, name: str) -> dict[str, Any]:
    while True:
        since, events = simulation.next_events(since, 20)
        for _, kind, details in events:
            if kind == name:
                return dict(details)


def test_saving_has_the_grace_of_the_close(client: SyncClient) -> None:
    client.create("saving", menv_cls=f"{CLOSES}:Saver", env_kwargs={"how": "slow"}, **SLAVES)
    began = time.monotonic()
    report = client.close("saving", timeout=0.3)
    assert time.monotonic() - began < 2
    assert report.graceful
    assert len(report) == 2


@pytest.mark.slow
def test_a_call_that_never_ends_does_not_keep_its_host_alive(client: SyncClient) -> None:
    client.create("endless", menv_cls=f"{CLOSES}:Forever", **SLAVES)
    caught: list[Any] = []

    def wait_in_vain() -> None:
        with another_client() as other, pytest.raises(HostLost):
            caught.append(other.attach("endless").is_ready())

    waiting = threading.Thread(target=wait_in_vain)
    with client.attach("endless") as simulation:
        waiting.start()
        while simulation.progress()["clients"] < 2:
            pass  # each is a round trip
        began = time.monotonic()
        assert simulation.close().graceful
        assert time.monotonic() - began < EXIT_SECONDS + 2
    waiting.join(10)
    assert not caught
    the_ended(client, "endless")


def another_client() -> SyncClient:
    return connect_sync(DAEMON, timeout=20)

"""A row about societies on several machines: what ends there, and links that are cut."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.faults.registry import TOTAL, Figures, row
from tests.support.far_society import FarSociety, slaves_on, wait_none
from tests.support.machines import POLL_SECONDS, Machine, machines, missing
from tests.support.processes import parent

__all__ = ["FAULTS", "link_cut", "suffer"]

# Of one round, so that there are many in a time that consists of waiting.
SIDE_BY_SIDE = 10
CLUSTERS_SIDE_BY_SIDE = 4  # each starts eight more processes, and dask is slow to import
LEASE_SECONDS = 10.0
# Beyond the lease: nothing is left.
LEFT_SECONDS = 2.0
# Past the lease and its margin: the slaves run elsewhere.
BACK_SECONDS = 5.0
# A different moment each time, within a step or between two.
WINDOW_SECONDS = 0.01

Fault = Callable[[FarSociety, Machine, float], Figures]


def _node_killed(society: FarSociety, victim: Machine, lease: float) -> Figures:
    began = time.monotonic()
    society.nodes[victim].signal(signal.SIGKILL)
    gone = victim.wait_empty(lease + LEFT_SECONDS)  # the tree's keeper sees its end
    return {"gone in seconds": gone, **_elsewhere(society, victim, began, lease)}


def _node_stopped(society: FarSociety, victim: Machine, lease: float) -> Figures:
    began = time.monotonic()
    society.stop_node(victim, True)
    gone = wait_none(victim, "slave-", lease + LEFT_SECONDS)
    figures = _elsewhere(society, victim, began, lease)
    society.stop_node(victim, False)
    society.wait_nodes()
    return {"gone in seconds": gone, **figures}


def _machine_lost(society: FarSociety, victim: Machine, lease: float) -> Figures:
    began = time.monotonic()
    victim.cut()
    victim.kill()
    return _elsewhere(society, victim, began, lease)


def _slave_killed(society: FarSociety, victim: Machine, lease: float) -> Figures:
    os.kill(slaves_on(victim)[0], signal.SIGKILL)
    lost = [outcome for outcome in [society.finish_step()] if "lost" in outcome]
    lost += society.step_until_whole()
    for outcome in lost:
        assert "SIGKILL" in outcome["error"], outcome
    return {f"{TOTAL}losses told": len(lost)}


def _script_killed(society: FarSociety, victim: Machine, lease: float) -> Figures:
    society.script.signal(signal.SIGKILL)
    gone = society.machine.wait_empty(lease + LEFT_SECONDS)
    gone = max(gone, *(wait_none(each, "slave-", lease + LEFT_SECONDS) for each in society.others))
    _end_nodes(society, lease)
    return {"gone in seconds": gone}


def _daemon_killed(society: FarSociety, victim: Machine, lease: float) -> Figures:
    society.daemon.signal(signal.SIGKILL)
    gone = wait_none(society.machine, "creamas", lease + LEFT_SECONDS)
    gone = max(gone, *(wait_none(each, "slave-", lease + LEFT_SECONDS) for each in society.others))
    assert society.script.finish(lease + LEFT_SECONDS)[0] == 1
    assert "HostLost" in society.errors(society.machine)
    _end_nodes(society, lease)
    return {"gone in seconds": gone}


def _worker_killed(society: FarSociety, victim: Machine, lease: float) -> Figures:
    node = _named(victim, "creamas-node")
    os.kill(parent(node), signal.SIGKILL)
    began = time.monotonic()
    while node in victim.processes():
        assert time.monotonic() - began < lease + LEFT_SECONDS
        time.sleep(POLL_SECONDS)
    gone = time.monotonic() - began
    lost = [outcome for outcome in [society.finish_step()] if "lost" in outcome]
    lost += society.step_until_whole()
    assert all(f"node {victim.name}" in outcome["error"] for outcome in lost), lost
    society.wait_nodes()  # with that of the worker that the nanny has started again
    return {"node gone in seconds": gone, f"{TOTAL}losses told": len(lost)}


def _nanny_killed(society: FarSociety, victim: Machine, lease: float) -> Figures:
    began = time.monotonic()
    society.nodes[victim].signal(signal.SIGKILL)
    gone = wait_none(victim, "creamas", lease + LEFT_SECONDS)
    return {"gone in seconds": gone, **_elsewhere(society, victim, began, lease)}


def _scheduler_killed(society: FarSociety, victim: Machine, lease: float) -> Figures:
    # The workers end then, and the nodes with them: the slaves have nowhere to go.
    cluster: Any = society
    cluster.scheduler.signal(signal.SIGKILL)
    gone = max(wait_none(each, "creamas", lease + LEFT_SECONDS) for each in society.others)
    society.finish_step()
    lost = society.step()
    assert "node machine-" in lost["error"], lost
    return {"gone in seconds": gone}


def _supervisor_killed(society: FarSociety, victim: Machine, lease: float) -> Figures:
    os.kill(_named(society.machine, "creamas-superv"), signal.SIGKILL)
    gone = max(wait_none(each, "slave-", lease + LEFT_SECONDS) for each in society.others)
    society.script.signal(signal.SIGKILL)
    society.machine.wait_empty(lease + LEFT_SECONDS)
    _end_nodes(society, lease)
    return {"gone in seconds": gone}


def _end_nodes(society: FarSociety, lease: float) -> None:
    """End nodes that try to join again what is not there any more; nothing is left of them."""
    for each, node in society.nodes.items():
        node.signal(signal.SIGTERM)
        each.wait_empty(lease + LEFT_SECONDS)


def link_cut(seconds: float, society: FarSociety, victim: Machine, lease: float) -> Figures:
    """Cut a machine off, for less or more than the lease."""
    began = time.monotonic()
    victim.cut()
    figures = {}
    if seconds > lease:
        figures["gone in seconds"] = wait_none(victim, "slave-", lease + LEFT_SECONDS)
        figures |= _elsewhere(society, victim, began, lease)
    time.sleep(max(0.0, began + seconds - time.monotonic()))
    victim.mend()
    if seconds < lease:
        outcome = society.finish_step()
        assert "results" in outcome, outcome
        assert {host for _, host in society.where().values()} == {
            each.name for each in society.others
        }
    society.wait_nodes()
    assert "results" in society.step()
    return figures


def _elsewhere(society: FarSociety, victim: Machine, began: float, lease: float) -> Figures:
    """Check that the machine's slaves are lost as its node is, and come back on another one."""
    lost = [outcome for outcome in [society.finish_step()] if "lost" in outcome]
    lost += society.step_until_whole()
    seconds = time.monotonic() - began
    for outcome in lost:  # none if that was between two steps: the second one waits
        assert f"node {victim.name}" in outcome["error"], outcome
    hosts = {host for _, host in society.where().values()}
    assert victim.name not in hosts, hosts
    assert seconds < lease + 1.0 + BACK_SECONDS, f"back after {seconds} s: {society.outcomes}"
    return {"back in seconds": seconds, f"{TOTAL}losses told": len(lost)}


def _named(machine: Machine, name: str) -> int:
    (pid,) = (pid for pid, each in machine.processes().items() if each == name)
    return pid


FAULTS: dict[str, Fault] = {
    "node killed": _node_killed,
    "node stopped": _node_stopped,
    "machine lost": _machine_lost,
    "slave killed": _slave_killed,
    "script killed": _script_killed,
    "its supervisor killed": _supervisor_killed,
    "daemon killed": _daemon_killed,
    "dask worker killed": _worker_killed,
    "dask nanny killed": _nanny_killed,
    "dask scheduler killed": _scheduler_killed,
    "link cut for 5 s": partial(link_cut, 5.0),
    "link cut for 15 s": partial(link_cut, 15.0),
    "link cut for 60 s": partial(link_cut, 60.0),
}
OF_CLUSTERS = (_worker_killed, _nanny_killed, _scheduler_killed)


@row(
    22,
    "societies on 3 machines: node, slave, script, supervisor, daemon, dask worker, nanny or "
    "scheduler killed; a link cut for 5, 15, 60 s",
    f"0 slaves left there <= lease + {LEFT_SECONDS:g} s; never two of one place at once; results "
    "right; all elsewhere then",
    cases=tuple(FAULTS),
    rounds=5 * len(FAULTS),
    short=len(FAULTS),
    quick=0,
)
def machines_lost(case: str, number: int, folder: Path) -> Figures:
    """Have several societies suffer it side by side."""
    if missing():
        pytest.skip(missing())
    count = CLUSTERS_SIDE_BY_SIDE if FAULTS[case] in OF_CLUSTERS else SIDE_BY_SIDE
    with ThreadPoolExecutor(count) as threads:
        trials = [
            threads.submit(
                suffer,
                FAULTS[case],
                number * count + each,
                folder / f"{each}",
                LEASE_SECONDS,
            )
            for each in range(count)
        ]
        errors = [error for each in trials if (error := each.exception())]
    if errors:
        raise ExceptionGroup(f"{len(errors)} of {len(trials)} trials failed", errors)  # type: ignore[type-var]
    figures: Figures = {f"{TOTAL}trials": len(trials)}
    for each in trials:
        for name, value in each.result().items():
            before = figures.get(name, 0.0)
            figures[name] = before + value if name.startswith(TOTAL) else max(before, value)
    return figures


def suffer(fault: Fault, seed: int, folder: Path, lease: float) -> Figures:
    """Have a society on three machines suffer a fault in or after its second step."""
    folder.mkdir(exist_ok=True)
    with (
        machines(folder / "machines", 3) as made,
        _society(fault, made, folder, lease) as society,
    ):
        society.step()
        society.begin_step()
        time.sleep(random.Random(seed).random() * WINDOW_SECONDS)
        figures = fault(society, society.others[seed % 2], lease)
        if society.script.process.poll() is None:
            society.close()
    return figures


def _society(fault: Fault, made: list[Machine], folder: Path, lease: float) -> FarSociety:
    if fault in OF_CLUSTERS:
        pytest.importorskip("distributed")
        from tests.support.far_cluster import FarCluster

        return FarCluster(made, folder, lease=lease)
    if fault is _daemon_killed:
        return FarSociety(made, folder, daemon="far")  # the lease is its own
    return FarSociety(made, folder, lease=lease)

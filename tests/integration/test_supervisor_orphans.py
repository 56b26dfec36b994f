"""A supervisor's tree without environments: one process is killed, another may be stopped.

Nothing may be left after two seconds. See `test_deaths` for the other tests of killing.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from itertools import product
from typing import Any

import pytest
import trio

from creamas_sc.supervisor_client.connection import PrivateSupervisor
from tests.support import processes, trees
from tests.support.marks import slow_but
from tests.support.processes import open_pidfds
from tests.support.trees import script_with_actors

LEFT_SECONDS = 2.0
CROWD = ("obey", "loop", "hold_gil", "ignore_sigterm", "fork_away_and_loop")
ROLES = ("script", "keeper", "zygote", "supervisor")


def everybody(pids: dict[str, Any]) -> dict[int, int]:
    """Pidfds of the whole tree, forked-away descendants included."""
    return open_pidfds([*(p for p in pids.values() if isinstance(p, int)), *pids["forked"]])


@pytest.mark.parametrize("victim", ROLES)
def test_nothing_is_left_when_one_is_killed(victim: str) -> None:
    with script_with_actors(*CROWD) as pids:
        left = everybody(pids)
        os.kill(pids[victim], signal.SIGKILL)
        assert processes.wait_gone(left, LEFT_SECONDS) == []


async def test_a_supervisor_that_was_killed_is_gone_when_all_its_processes_are() -> None:
    supervisor = PrivateSupervisor(lambda message: None)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            await nursery.start(supervisor.run)
            orders = [trees.order(entry, entry) for entry in ("obey", "loop", "ignore_sigterm")]
            started = await supervisor.start(orders)
            left = open_pidfds(actor["pid"] for actor in started)
            supervisor.kill()
            await supervisor.gone.wait()
            assert processes.wait_gone(left, 0.0) == []


@pytest.mark.slow
async def test_a_supervisor_all_of_whose_processes_are_stopped_can_be_killed() -> None:
    before = set(processes.children(os.getpid()))
    supervisor = PrivateSupervisor(lambda message: None)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            await nursery.start(supervisor.run)
            await supervisor.start([trees.order("obey", "obey")])
            (keeper,) = set(processes.children(os.getpid())) - before
            family = processes.family(keeper)
            left = open_pidfds(family.values())
            for pid in family.values():
                os.kill(pid, signal.SIGSTOP)
            supervisor.kill()
            supervisor.end()
            assert await trio.to_thread.run_sync(processes.wait_gone, left, LEFT_SECONDS) == []


# Each role at least once on either side.
QUICK = {
    ("keeper", "script"), ("zygote", "supervisor"), ("supervisor", "keeper"), ("obey", "zygote")
}  # fmt: skip
PAIRS = [pair for pair in product((*ROLES[1:], "obey"), ROLES) if pair[0] != pair[1]]


@pytest.mark.slow
@pytest.mark.parametrize(("stopped", "victim"), slow_but(QUICK, PAIRS))
def test_nothing_is_left_when_another_is_stopped(stopped: str, victim: str) -> None:
    with script_with_actors("obey", "hold_gil", "fork_away") as pids:
        left = everybody(pids)
        os.kill(pids[stopped], signal.SIGSTOP)
        os.kill(pids[victim], signal.SIGKILL)
        assert processes.wait_gone(left, LEFT_SECONDS) == []


def test_detached_children_of_a_killed_actor_are_killed_and_siblings_live() -> None:
    with script_with_actors("obey", "fork_away", "fork_away_and_loop") as pids:
        left = everybody({"a": pids["fork_away"], "b": pids["fork_away_and_loop"], **pids})
        lost = open_pidfds([pids["fork_away"], pids["fork_away_and_loop"], *pids["forked"]])
        for entry in ("fork_away", "fork_away_and_loop"):
            os.kill(pids[entry], signal.SIGKILL)
        assert processes.wait_gone(lost, LEFT_SECONDS) == []
        os.kill(pids["obey"], 0)
        os.kill(pids["script"], signal.SIGKILL)
        assert processes.wait_gone(left, LEFT_SECONDS) == []


def test_actors_are_asked_to_end_though_a_fork_of_the_script_keeps_its_connection() -> None:
    with script_with_actors("--fork", "obey") as pids:
        heir = pids.pop("heir")
        left = everybody(pids)
        os.kill(pids["script"], signal.SIGKILL)
        try:
            # Well before the zygote gives up waiting.
            assert processes.wait_gone(left, 1.0) == []
        finally:
            os.kill(heir, signal.SIGKILL)
            with suppress(ChildProcessError):  # this process may have become its parent
                os.waitpid(heir, 0)

"""A node's process and its tree: whatever ends it, or stops it, nothing is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from supervisor.timeouts import GRACE_SECONDS
from tests.support import nodes, processes
from tests.support.processes import open_pidfds, wait_gone
from tests.support.programs import environ

LEASE_SECONDS = 1.0
BOUND_SECONDS = 30
LEFT_SECONDS = 2.0
IN_ORDER_SECONDS = 10.0
CROWD = ("obey", "loop", "fork_away")

Family = dict[str, int]


@asynccontextmanager
async def working(
    folder: Path, lease: float = 10.0, *, pipe: bool = False
) -> AsyncIterator[tuple[nodes.Listening, nodes.NodeProcess, nodes.Joined, dict[int, int], Family]]:
    """A node with actors: where it has joined, its process, and pidfds of all that is to go."""
    options = [] if pipe else nodes.key_file(folder)
    with trio.fail_after(BOUND_SECONDS):
        async with nodes.listening(lease) as there:
            with nodes.node_process(*there.join, *options, "--retry", "0.3", pipe=pipe) as node:
                joined = await there.next()
                await joined.start(*CROWD)
                (keeper,) = processes.children(node.process.pid)
                family = processes.family(keeper)
                yield there, node, joined, open_pidfds(family.values()), family


async def gone(left: dict[int, int], seconds: float = LEFT_SECONDS) -> list[int]:
    """The pids of those that are still there after so much time."""
    return await trio.to_thread.run_sync(wait_gone, left, seconds)


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["node", "keeper", "zygote", "supervisor"])
async def test_nothing_is_left_when_one_is_killed(victim: str, tmp_path: Path) -> None:
    async with working(tmp_path) as (there, node, joined, left, family):
        os.kill({"node": node.process.pid, **family}[victim], signal.SIGKILL)
        assert await gone(left) == []
        if victim != "node":  # it has a fresh tree
            assert joined.about is not None
            again = await there.next()
            assert await again.start("obey")
            assert again.about == joined.about
            assert joined.left == "its processes were killed"


@pytest.mark.slow
async def test_what_is_stopped_is_ended_at_the_lease_by_the_other(tmp_path: Path) -> None:
    async with working(tmp_path, LEASE_SECONDS) as (_, node, _, left, _):
        os.kill(node.process.pid, signal.SIGSTOP)
        assert await gone(left, LEASE_SECONDS + LEFT_SECONDS) == []
        os.kill(node.process.pid, signal.SIGCONT)
    async with working(tmp_path, LEASE_SECONDS) as (there, _, _, left, family):
        os.kill(family["supervisor"], signal.SIGSTOP)
        assert await gone(left, LEASE_SECONDS + LEFT_SECONDS) == []
        again = await there.next()
        assert await again.start("obey")


@pytest.mark.slow
async def test_a_supervisor_that_is_silent_has_lost_the_node(tmp_path: Path) -> None:
    async with working(tmp_path, LEASE_SECONDS) as (there, _, joined, left, _):
        joined.be_silent()
        assert await gone(left, LEASE_SECONDS + LEFT_SECONDS) == []
        joined.speak()
        again = await there.next()
        assert await again.start("obey")


@pytest.mark.long
async def test_a_node_ends_when_its_supervisor_does_not_come_back(tmp_path: Path) -> None:
    with trio.fail_after(BOUND_SECONDS):
        async with nodes.listening() as there:
            options = [*there.join, *nodes.key_file(tmp_path), "--retry", "0.3"]
            with nodes.node_process(*options) as node:
                joined = await there.next()
                await joined.start(*CROWD)
                left = open_pidfds(
                    processes.family(processes.children(node.process.pid)[0]).values()
                )
                there.close()
                joined.connection.abort()
                assert await gone(left) == []
                assert await node.wait() == 69


def close_key(node: nodes.NodeProcess) -> None:
    assert node.process.stdin is not None
    node.process.stdin.close()


def terminate(node: nodes.NodeProcess) -> None:
    node.process.terminate()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("end", "why"),
    [(close_key, "its engine closed its input"), (terminate, "it got SIGTERM")],
)
async def test_a_node_that_is_asked_to_ends_in_order(
    end: Callable[[nodes.NodeProcess], None], why: str, tmp_path: Path
) -> None:
    async with working(tmp_path, pipe=True) as (_, node, joined, left, _):
        end(node)
        assert await node.wait() == 0
        assert wait_gone(left, 0.0) == []
        assert joined.left == why
        assert joined.exits == []


@pytest.mark.long
async def test_a_second_signal_kills(tmp_path: Path) -> None:
    async with working(tmp_path) as (_, node, _, left, _):
        began = trio.current_time()
        node.process.terminate()
        node.process.send_signal(signal.SIGINT)
        assert await gone(left) == []
        assert trio.current_time() - began < GRACE_SECONDS  # which "loop" takes otherwise
        assert await node.wait() in (128 + signal.SIGINT, 128 + signal.SIGTERM)


@pytest.mark.long
async def test_a_node_that_is_to_outlive_its_terminal_does(tmp_path: Path) -> None:
    with trio.fail_after(BOUND_SECONDS):
        async with nodes.listening() as there:
            options = [*there.join, *nodes.key_file(tmp_path)]
            with nodes.node_process(*options, ignores="HUP") as node:
                joined = await there.next()
                node.process.send_signal(signal.SIGHUP)
                assert await joined.start("obey")
                node.process.terminate()
                assert await node.wait() == 0
                assert joined.left == "it got SIGTERM"


@pytest.mark.slow
async def test_a_node_that_its_supervisor_ends_answers_when_nothing_is_left(
    tmp_path: Path,
) -> None:
    async with working(tmp_path) as (_, node, joined, left, _):
        await joined.call("end", "it was enough")
        assert wait_gone(left, 0.0) == []
        await joined.connection.aclose()
        assert await node.wait() == 0


@pytest.mark.slow
async def test_a_node_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    # Its key's pipe stays open: this process holds it, too.
    ours, theirs = os.pipe()
    engine = (
        "import subprocess, sys; print(subprocess.Popen(sys.argv[2:], stdin=int(sys.argv[1])).pid,"
        " flush=True); sys.stdin.read()"
    )
    with trio.fail_after(BOUND_SECONDS):
        async with nodes.listening() as there:
            command = [sys.executable, "-P", "-m", "supervisor.cli", "node", "--key-fd", "0"]
            with subprocess.Popen(
                [sys.executable, "-c", engine, str(ours), *command, *there.join],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=[ours],
                env=environ(),
            ) as parent:
                os.close(ours)
                os.write(theirs, nodes.KEY.hex().encode() + b"\n")
                joined = await there.next()
                pids = await joined.start(*CROWD)
                assert parent.stdout is not None
                left = open_pidfds([int(parent.stdout.readline()), *pids])
                parent.kill()
            assert await gone(left, IN_ORDER_SECONDS) == []
            assert joined.left == "the process that started it is gone"
    os.close(theirs)

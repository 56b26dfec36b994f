"""Nodes of a script's supervisor and of a daemon: started, lost, and ended with it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from creamas_sc.client import connect_sync
from creamas_sc.errors import BadValue, StartError
from creamas_sc.supervisor_client.connection import PrivateSupervisor
from creamas_sc.supervisor_client.messages import ActorExit, ActorOrder
from supervisor.cli.main import main
from supervisor.timeouts import LEASE_MARGIN_SECONDS
from tests.support import daemons, trees
from tests.support.nodes import KEY, NodeProcess, key_file, node_process
from tests.support.processes import children, family, open_pidfds, wait_gone

BOUND_SECONDS = 40.0
LEASE_SECONDS = 2.0

pytestmark = pytest.mark.slow


def order(slot: str, node: str, entry: str = "obey") -> ActorOrder:
    return {**trees.order(slot, entry, slot.encode()), "node": node}


def processes_of(node: NodeProcess) -> dict[int, int]:
    """Pidfds of a node's process and its tree."""
    (keeper,) = children(node.process.pid)
    return open_pidfds([node.process.pid, *family(keeper).values()])


async def wait_for(event: trio.Event) -> None:
    with trio.fail_after(BOUND_SECONDS):
        await event.wait()


class Tree:
    """A script's supervisor with nodes.

    Attributes:
        exits: Reported so far, with the times.
        nodes: Their processes, by name.
    """

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self.exits: list[tuple[float, ActorExit]] = []
        self.exited = trio.Event()
        self.supervisor = PrivateSupervisor(self._note)
        self.nodes: dict[str, NodeProcess] = {}
        self._stack = stack
        self._folder = folder

    def _note(self, message: ActorExit) -> None:
        self.exits.append((trio.current_time(), message))
        self.exited.set()

    async def join(self, place: tuple[str, int], *names: str) -> None:
        """Start nodes, and wait until they have joined."""
        for name in names:
            options = ["--join", "{}:{}".format(*place), "--name", name, "--retry", "0.5"]
            process = self._stack.enter_context(node_process(*options, *key_file(self._folder)))
            self.nodes[name] = process
            await self.supervisor.wait_nodes(len(self.nodes), BOUND_SECONDS)


@asynccontextmanager
async def tree(folder: Path, *names: str) -> AsyncIterator[Tree]:
    with trio.fail_after(BOUND_SECONDS), ExitStack() as stack:
        async with trio.open_nursery() as nursery:
            made = Tree(stack, folder)
            await nursery.start(made.supervisor.run)
            try:
                place = await made.supervisor.listen_for_nodes(
                    {"host": "127.0.0.1", "port": 0, "key": KEY, "lease": LEASE_SECONDS}
                )
                await made.join(place, *names)
                yield made
            finally:
                await made.supervisor.aclose()


async def test_actors_run_here_and_there_and_all_ends_with_the_script(tmp_path: Path) -> None:
    async with tree(tmp_path, "a", "b") as made:
        orders = [order("0", "a"), order("1", ""), order("2", "b")]
        started = await made.supervisor.start(orders)
        assert [each["info"] for each in started] == [b"0 ready", b"1 ready", b"2 ready"]
        loads = await made.supervisor.loads(["0", "1", "2", "3"])
        assert [loads[slot]["state"] == "ended" for slot in "0123"] == [False] * 3 + [True]
        assert all(loads[slot]["memory_bytes"] for slot in "012")
        assert [info["processes"] for info in await made.supervisor.nodes()] == [1, 1]
        with pytest.raises(StartError, match=r"4 \(pid \d+\) failed to start.*\(on node a\)"):
            await made.supervisor.start([order("3", "b"), order("4", "a", "fail_to_start")])
        (result,) = await made.supervisor.stop(["2"], 1.0, b"bye")
        assert (result["payload"], result["graceful"]) == (b"bye stopped", True)
        left = {pid: fd for node in made.nodes.values() for pid, fd in processes_of(node).items()}
        await made.supervisor.aclose()
        assert await trio.to_thread.run_sync(wait_gone, left, BOUND_SECONDS) == []
        assert [await node.wait() for node in made.nodes.values()] == [0, 0]


@pytest.mark.long
async def test_a_killed_node_is_lost_at_once_and_replaced_after_its_lease(tmp_path: Path) -> None:
    async with tree(tmp_path, "a", "b") as made:
        await made.supervisor.start([order("0", "a")])
        left = processes_of(made.nodes["a"])
        killed_at = trio.current_time()
        made.nodes["a"].process.kill()
        await wait_for(made.exited)
        ((at, message),) = made.exits
        assert at < killed_at + 1.0
        assert message["error"] == "its node a is lost: its connection ended"
        await made.supervisor.start([order("0", "b")])
        # It was heard less than a second before.
        least = LEASE_SECONDS + LEASE_MARGIN_SECONDS - 1.0
        assert least < trio.current_time() - killed_at < least + 2.5
        assert await trio.to_thread.run_sync(wait_gone, left, 0.1) == []


@pytest.mark.long
async def test_a_stopped_node_is_lost_and_what_it_ran_is_gone_by_then(tmp_path: Path) -> None:
    async with tree(tmp_path, "a") as made:
        await made.supervisor.start([order("0", "a")])
        left = processes_of(made.nodes["a"])
        os.close(left.pop(made.nodes["a"].process.pid))
        os.kill(made.nodes["a"].process.pid, signal.SIGSTOP)
        await wait_for(made.exited)
        ((_, message),) = made.exits
        assert message["error"] == "its node a is lost: it was not heard for 2 s"
        assert await trio.to_thread.run_sync(wait_gone, left, 0.0) == []
        os.kill(made.nodes["a"].process.pid, signal.SIGCONT)
        (info,) = await made.supervisor.wait_nodes(1, BOUND_SECONDS)
        assert info["name"] == "a"
        await made.supervisor.start([order("0", "a")])


@pytest.mark.long
async def test_a_node_that_is_terminated_frees_its_slots(tmp_path: Path) -> None:
    async with tree(tmp_path, "a", "b") as made:
        await made.supervisor.start([order("0", "a")])
        began = trio.current_time()
        made.nodes["a"].process.terminate()
        await wait_for(made.exited)
        ((_, message),) = made.exits
        assert message["expected"] is False
        await made.supervisor.start([order("0", "b")])
        assert trio.current_time() < began + LEASE_SECONDS
        assert await made.nodes["a"].wait() == 0


def test_a_daemon_s_nodes_are_listed_and_end_with_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with daemons.running(tmp_path, daemons.NAME, "127.0.0.1", "0"), ExitStack() as stack:
        client = stack.enter_context(connect_sync(daemons.NAME))
        access: dict[str, Any] = client.node_access()
        key = Path(access["key_file"])
        assert (key.stat().st_mode & 0o777, key.parent) == (0o600, tmp_path)
        assert main(["nodes", "--daemon", daemons.NAME]) == 0
        join = f"node --join 127.0.0.1:{access['port']} --key-file {key}"
        assert join in capsys.readouterr().err
        node = stack.enter_context(node_process(*join.split()[1:], "--name", "far"))
        give_up_at = time.monotonic() + BOUND_SECONDS
        while not client.nodes():
            assert time.monotonic() < give_up_at
        assert main(["nodes", "--daemon", daemons.NAME]) == 0
        assert capsys.readouterr().out.splitlines()[1].split()[:3] == [
            "far",
            "127.0.0.1",
            str(len(os.sched_getaffinity(0))),
        ]
        client.create("novelty", slave_addrs=1, place="far")
        assert main(["inspect", "novelty", "--daemon", daemons.NAME]) == 0
        (line,) = [line for line in capsys.readouterr().out.splitlines() if "slave-0" in line]
        _, pid, address, _, on = line.split()
        assert (on, address.startswith("tcp://127.0.0.1:")) == ("far", True)
        assert main(["dump", "novelty", "--daemon", daemons.NAME]) == 0
        dumped = capsys.readouterr().out
        assert f"slave-0, {address[:-1]}, pid {pid} on node far: " in dumped
        assert dumped.count("no agent acts here") == 2
        with client.attach("novelty") as simulation:
            (load,) = simulation.process_loads()["slaves"]
        assert (load["node"], load["state"] == "unknown") == ("far", False)
        assert load["memory_bytes"] > 1 << 20
        left = processes_of(node)
        client.stop()
        assert wait_gone(left, BOUND_SECONDS) == []
        assert node.process.wait() == 0


def test_a_daemon_without_nodes_says_how_to_have_some(tmp_path: Path) -> None:
    with daemons.running(tmp_path), connect_sync(daemons.NAME) as client:
        assert client.nodes() == []
        with pytest.raises(BadValue, match="start it with --listen HOST:PORT"):
            client.node_access()

"""A node's stay with a supervisor, with a clock of its own and without processes."""

from __future__ import annotations

import math
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from anyio.abc import TaskStatus
from hypothesis import strategies as st

from creamas_sc.errors import ConnectionLost, StartError
from creamas_sc.supervisor_client.messages import NodeAbout
from supervisor import timeouts
from supervisor.nodes import stay as module
from supervisor.nodes.stay import Stay
from tests.support import nodes, trees
from tests.support.properties import holds_for
from tests.support.streams import memory_pair

ABOUT: NodeAbout = {
    "name": "here", "instance": "1", "host": "10.0.0.1", "pid": 1, "cores": 2, "memory": 3,
    "engine": "", "version": "1", "python": "3.12",
}  # fmt: skip
LEASE = 10.0


class Tree:
    """In place of a `PrivateSupervisor`: notes what it is asked to do, and when it is killed.

    Attributes:
        answers: Whether it does; a supervisor that is stopped does not.
        ends_after: Seconds from the request to end to its end.
    """

    made: list[Tree]

    def __init__(self, on_exit: Any) -> None:
        self.gone = trio.Event()
        self.calls: list[tuple[str, Any]] = []
        self.on_exit = on_exit
        self.answers = True
        self.ends_after = 0.5
        self.killed_at: float | None = None
        self._ending = trio.Event()
        self.made.append(self)

    async def run(self, *, task_status: TaskStatus[Any] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        try:
            await self._ending.wait()
            if self.killed_at is None:
                await trio.sleep(self.ends_after)
        finally:
            self.gone.set()

    async def call(self, method: str, *args: Any) -> Any:
        self.calls.append((method, args))
        if not self.answers:
            await trio.sleep_forever()
        if method == "start":
            return [{"slot": each["slot"], "pid": 7, "info": b""} for each in args[0]]
        return None

    def kill(self) -> None:
        if self.killed_at is None:
            self.killed_at = trio.current_time()
        self._ending.set()

    def end(self) -> None:
        self._ending.set()

    def die(self) -> None:
        """As if somebody had killed it."""
        self._ending.set()
        self.ends_after = 0.0


@pytest.fixture(autouse=True)
def _no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "now", trio.current_time)
    monkeypatch.setattr(module, "PrivateSupervisor", Tree)
    Tree.made = []


@asynccontextmanager
async def staying(lease: float = LEASE) -> AsyncIterator[tuple[Stay, Tree, nodes.Joined]]:
    """A stay that has joined; at the end of the block it has ended."""
    near, far = memory_pair()
    stay, joined = Stay(near, ABOUT), nodes.Joined(far, lease)
    with trio.fail_after(1000):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(joined.connection.run)
            nursery.start_soon(stay.run)
            await trio.testing.wait_all_tasks_blocked()
            assert stay.joined
            yield stay, Tree.made[-1], joined
            await Tree.made[-1].gone.wait()
            await trio.testing.wait_all_tasks_blocked()
            await joined.connection.aclose()


async def test_a_stay_renews_its_lease_and_that_of_its_tree(autojump_clock: Any) -> None:
    async with staying() as (stay, tree, joined):
        assert joined.about == ABOUT
        await trio.sleep(3.5 * timeouts.RENEW_SECONDS)
        assert joined.renewed == 3
        assert tree.calls == [("ping", ()), *[("renew", (LEASE,))] * 4]
        stay.leave("it was enough")


async def test_silence_for_a_lease_kills_the_tree(autojump_clock: Any) -> None:
    async with staying() as (stay, tree, joined):
        await trio.sleep(2.5)
        joined.be_silent()
        await tree.gone.wait()
        joined.speak()
        assert tree.killed_at == trio.current_time() == 2.0 + LEASE
        assert (stay.why, stay.left) == ("its lease of 10 s was not renewed", False)


async def test_a_lease_counts_from_when_its_renewal_was_sent(autojump_clock: Any) -> None:
    async with staying() as (_, tree, joined):
        await trio.sleep(2.5)
        joined.be_silent()
        await trio.sleep(4.5)
        joined.speak()  # to what was sent at 3.0
        await trio.sleep(0.5)
        joined.be_silent()
        await tree.gone.wait()
        joined.speak()
        assert tree.killed_at == 3.0 + LEASE


async def test_a_tree_whose_supervisor_is_stopped_is_killed(autojump_clock: Any) -> None:
    async with staying() as (stay, tree, _):
        await trio.sleep(2.5)
        tree.answers = False
        await tree.gone.wait()
        assert tree.killed_at == trio.current_time() == 3.0 + LEASE
        assert not stay.left


async def test_a_machine_that_slept_for_a_lease_kills_its_tree(
    autojump_clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with staying() as (stay, tree, _):
        await trio.sleep(2.5)
        monkeypatch.setattr(module, "now", lambda: trio.current_time() + LEASE)
        await tree.gone.wait()
        assert tree.killed_at == trio.current_time() == 3.0
        assert not stay.left


async def test_the_connections_end_kills_the_tree(autojump_clock: Any) -> None:
    async with staying() as (stay, tree, joined):
        await joined.connection.aclose()
        await tree.gone.wait()
        assert tree.killed_at == trio.current_time() == 0.0
        assert stay.why == "the connection to the supervisor ended"


async def test_a_tree_that_is_killed_by_others_is_told(autojump_clock: Any) -> None:
    async with staying() as (stay, tree, joined):
        tree.die()
        await tree.gone.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert joined.left == "its processes were killed"
        assert not stay.left


async def test_a_node_that_leaves_says_so_when_nothing_is_left(autojump_clock: Any) -> None:
    async with staying() as (stay, tree, joined):
        stay.leave("it got SIGTERM")
        await trio.testing.wait_all_tasks_blocked()
        assert joined.left is None
        with pytest.raises(StartError, match="this node ends: it got SIGTERM"):
            await joined.start("obey")
        await tree.gone.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert joined.left == "it got SIGTERM"
        assert tree.killed_at is None


async def test_the_supervisor_has_its_answer_when_nothing_is_left(autojump_clock: Any) -> None:
    async with staying() as (stay, tree, joined):
        await joined.call("end", "the simulation is closed")
        assert trio.current_time() == tree.ends_after
        assert tree.gone.is_set()
        assert stay.left
        assert joined.left is None


async def test_a_supervisor_that_does_not_take_it_is_an_error(autojump_clock: Any) -> None:
    near, far = memory_pair()
    joined = nodes.Joined(far, math.nan)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(joined.connection.run)
        await joined.connection.aclose()
        with pytest.raises(ConnectionLost):
            await Stay(near, ABOUT).run()
    assert Tree.made[-1].gone.is_set()


async def test_exits_and_loads_are_of_what_it_has_started(autojump_clock: Any) -> None:
    async with staying() as (stay, tree, joined):
        assert await joined.start("obey") == [7]
        loads = await joined.call("loads", ["7/obey", "7/other"])
        assert loads["7/other"]["state"] == "ended"
        tree.on_exit({"slot": "7/obey", "pid": 7})
        await trio.testing.wait_all_tasks_blocked()
        assert joined.exits == [{"slot": "7/obey", "pid": 7}]
        stay.leave("it was enough")


async def test_code_is_held_until_it_is_forgotten(
    autojump_clock: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    folder = tmp_path / "creamas" / "environments" / "abc"
    async with staying() as (stay, _, joined):
        files = {"0" * 64: (5_000, b"/a/b.py\0source"), "../../escape": (0, b"")}
        await joined.call("start", [], 1.0, {"simulation": "abc", "files": files})
        assert [each.name for each in folder.iterdir()] == ["0" * 64]
        assert (folder / ("0" * 64)).stat().st_mtime_ns == 5_000
        await joined.call("forget", "abc")
        assert not folder.exists()
        with pytest.raises(StartError, match="not the id of a simulation"):
            await joined.call("start", [], 1.0, {"simulation": "../abc", "files": files})
        await joined.call("start", [], 1.0, {"simulation": "abc", "files": files})
        stay.leave("it was enough")
    assert not folder.exists()


async def test_orders_fit_this_machine(
    autojump_clock: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ours").mkdir()
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    monkeypatch.setenv("SLURM_JOB_ID", "5")
    monkeypatch.setenv("HOME", "/home/here")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    order = trees.order("7/obey", "obey")
    order["environ"] = {
        "HOME": "/home/there", "CUDA_VISIBLE_DEVICES": "3", "CREAMAS_LOG_FILE": "/log", "MINE": "1",
    }  # fmt: skip
    order["cwd"] = str(tmp_path / "missing")
    order["path"] = [str(tmp_path / name) for name in ("ours", "open", "missing")]
    async with staying() as (stay, tree, joined):
        await joined.call("start", [order, {**order, "cwd": str(tmp_path / "ours")}], 1.0, None)
        first, second = tree.calls[-1][1][0]
        stay.leave("it was enough")
    environ = first["environ"]
    assert environ["MINE"] == "1"
    assert (environ["HOME"], environ["SLURM_JOB_ID"]) == ("/home/here", "5")
    assert not environ.keys() & {"CUDA_VISIBLE_DEVICES", "CREAMAS_LOG_FILE"}
    assert (first["cwd"], second["cwd"]) == (os.getcwd(), str(tmp_path / "ours"))
    assert first["path"] == [str(tmp_path / "ours")]


async def _lost_at(delays: list[float], lease: float) -> tuple[float, float]:
    """When the tree is killed, and when the supervisor takes the node for lost.

    The supervisor hears each renewal after half of its delay, and the node the answer after all.
    """
    heard_at = 0.0
    left = list(delays)

    class Slow(nodes.Joined):
        async def _serve(self, request: Any) -> Any:
            nonlocal heard_at
            if request.method == "renew":
                delay = left.pop(0) if left else math.inf
                await trio.sleep(delay / 2)
                heard_at = trio.current_time()
                await trio.sleep(delay / 2)
            return await super()._serve(request)

    near, far = memory_pair()
    joined = Slow(far, lease)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(joined.connection.run)
        await Stay(near, ABOUT).run()
        nursery.cancel_scope.cancel()
    killed_at = Tree.made[-1].killed_at
    assert killed_at is not None
    return killed_at, heard_at + lease + timeouts.LEASE_MARGIN_SECONDS


@holds_for(
    st.lists(st.floats(0.0, 12.0), max_size=20),
    st.sampled_from([0.5, 2.0, 10.0]),
    few=50,
    many=300,
)
def test_the_tree_is_killed_before_the_supervisor_starts_others(
    delays: list[float], lease: float
) -> None:
    clock = trio.testing.MockClock(autojump_threshold=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "now", trio.current_time)
        patch.setattr(module, "PrivateSupervisor", Tree)
        began = clock.current_time()
        killed_at, clear_at = trio.run(_lost_at, delays, lease, clock=clock)
    assert killed_at - began <= clear_at
    answered = [delay for delay in delays if delay < lease]
    assert killed_at - began <= lease + sum(answered) + len(answered) * lease / 4 + 1e-6

"""Nodes on a cluster of dask's: what is asked of the cluster, and what its workers start."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

pytest.importorskip("distributed")

from creamas_sc import nodes
from creamas_sc.errors import BadValue, StartError
from creamas_sc.nodes import NodeAccess, dask_nodes, dask_plugin
from creamas_sc.nodes.dask_nodes import DaskNodes
from creamas_sc.nodes.dask_plugin import NodePlugin

KEY = bytes(range(32))
ACCESS = NodeAccess("127.0.0.1", 4444, KEY)


class FakeClient:
    """A client of dask's, as far as nodes use one."""

    asynchronous = False
    status = "running"

    def __init__(self, address: str = "tls://127.0.0.1:1", workers: int = 2) -> None:
        self.scheduler = SimpleNamespace(address=address)
        self.address = address
        self.workers = workers
        self.plugins: dict[str, NodePlugin] = {}
        self.handlers: dict[str, Callable[[Any], None]] = {}
        self.error: Exception | None = None
        self.closed = False

    def sync(self, call: Any, callback_timeout: float) -> Any:
        return asyncio.run(asyncio.wait_for(call(), callback_timeout))

    def scheduler_info(self) -> dict[str, str]:
        return {"address": self.address}

    async def nthreads(self) -> dict[str, int]:
        return dict.fromkeys(map(str, range(self.workers)), 1)

    def subscribe_topic(self, topic: str, handler: Callable[[Any], None]) -> None:
        self.handlers[topic] = handler

    async def register_plugin(self, plugin: NodePlugin) -> None:
        self.plugins[plugin.name] = plugin
        if self.error is not None:
            raise self.error

    async def unregister_worker_plugin(self, name: str) -> None:
        del self.plugins[name]

    def close(self, timeout: float) -> None:
        self.closed = True


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> FakeClient:
    monkeypatch.setattr(dask_nodes, "Client", FakeClient)
    return FakeClient()


def test_an_open_scheduler_is_refused(client: FakeClient) -> None:
    cluster = SimpleNamespace(asynchronous=False, scheduler_address="tcp://192.0.2.1:8786")
    with pytest.raises(BadValue, match=r"tcp://192\.0\.2\.1:8786, .* security=True"):
        DaskNodes(cluster)
    for address in (
        "tls://127.0.0.1:8786",
        "tcp://localhost:8786",
        "tcp://[::1]:8786",
        "inproc://x",
    ):
        DaskNodes(FakeClient(address))
    # Through a tunnel: the scheduler itself is open.
    client.address = "tcp://192.0.2.1:8786"
    with pytest.raises(BadValue, match="security=True"):
        DaskNodes(client).start(ACCESS)
    assert not client.plugins


def test_a_client_for_coroutines_is_refused(client: FakeClient) -> None:
    client.asynchronous = True
    with pytest.raises(BadValue, match="asynchronous=True"):
        DaskNodes(client)


def test_each_has_a_plugin_of_its_own_while_it_has_nodes(client: FakeClient) -> None:
    both = [DaskNodes(client), DaskNodes(client, count=5)]
    for each in both:
        each.start(ACCESS)
    assert [each.count for each in both] == [2, 5]
    assert len(client.plugins) == 2
    both[0].stop()
    assert len(client.plugins) == 1
    both[1].stop()
    both[1].stop()
    assert not client.plugins
    assert not client.closed  # it is the user's


def test_nodes_join_where_this_machine_is_seen_from_the_scheduler(client: FakeClient) -> None:
    assert DaskNodes(client).listen == ("127.0.0.1", 0)
    everywhere = DaskNodes(client, listen=("0.0.0.0", 0))
    assert everywhere.listen == ("0.0.0.0", 0)
    everywhere.start(ACCESS._replace(host="0.0.0.0"))
    (plugin,) = client.plugins.values()
    assert plugin._access == ACCESS


def test_one_without_workers_waits_for_one(client: FakeClient) -> None:
    client.workers = 0
    waiting = DaskNodes(client)
    waiting.start(ACCESS)
    assert waiting.count == 1


def test_what_a_worker_lacks_is_told(client: FakeClient) -> None:
    client.error = ModuleNotFoundError("No module named 'creamas_sc'")
    lacking = DaskNodes(client)
    with pytest.raises(StartError, match=r"on the cluster: .*No module named 'creamas_sc'"):
        lacking.start(ACCESS)
    lacking.stop()
    assert not client.plugins


def test_a_cluster_that_is_gone_is_no_error_at_the_end(client: FakeClient) -> None:
    gone = DaskNodes(client)
    gone.start(ACCESS)
    client.plugins.clear()
    gone.stop()


def test_dask_is_recognized_by_its_classes() -> None:
    with pytest.raises(BadValue, match=r"a cluster or client of dask\.distributed, not"):
        nodes.of(FakeClient())


# ---- the plugin

NODE = """
import sys
key = sys.stdin.buffer.readline()
print(sys.argv[1:], key, file=open(OUT, "w"), flush=True)
"""


class FakeWorker:
    """A worker of dask's, as far as the plugin uses one."""

    name = "job-3"
    address = "tls://127.0.0.1:2"

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []
        self.telling = asyncio.Event()

    def log_event(self, topic: str, message: str) -> None:
        self.told.append((topic, message))
        self.telling.set()


def node(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Have the plugin start this in place of a node."""
    monkeypatch.setattr(dask_plugin, "_NODE", ("-S", "-E", "-c", code))


def test_a_node_gets_the_key_and_ends_with_its_input(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    node(monkeypatch, NODE.replace("OUT", repr(str(out))) + "sys.exit(len(sys.stdin.read()))")

    async def main() -> int:
        worker: Any = FakeWorker()
        plugin = NodePlugin("mine", ACCESS)
        plugin.setup(worker)
        await plugin.teardown(worker)
        assert worker.told == []
        return int(plugin._process.returncode)

    assert asyncio.run(main()) == 0
    arguments = ["--join", "127.0.0.1:4444", "--key-fd", "0", "--engine", "job-3"]
    line = KEY.hex().encode() + b"\n"
    assert out.read_text() == f"{arguments} {line!r}\n"


def test_a_node_that_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    node(monkeypatch, "import time; time.sleep(60)")
    monkeypatch.setattr(dask_plugin, "END_SECONDS", 0.1)

    async def main() -> int:
        worker: Any = FakeWorker()
        plugin = NodePlugin("mine", ACCESS)
        plugin.setup(worker)
        await plugin.teardown(worker)
        return int(plugin._process.returncode)

    assert asyncio.run(main()) == -9


@pytest.mark.parametrize(
    ("code", "how"),
    [
        ("sys.exit('first\\nthe key is another one')", "ended: the key is another one"),
        ("sys.exit(3)", "exited with code 3"),
        (
            "print('x', file=sys.stderr, flush=True); os.kill(os.getpid(), 9)",
            "was killed by SIGKILL",
        ),
    ],
)
def test_why_a_node_has_ended_is_told(monkeypatch: pytest.MonkeyPatch, code: str, how: str) -> None:
    node(monkeypatch, f"import os, sys; {code}")

    async def main() -> list[tuple[str, str]]:
        worker: Any = FakeWorker()
        plugin = NodePlugin("mine", ACCESS)
        plugin.setup(worker)
        await asyncio.wait_for(worker.telling.wait(), 10)
        await plugin.teardown(worker)
        told: list[tuple[str, str]] = worker.told
        return told

    assert asyncio.run(main()) == [("mine", f"the node of tls://127.0.0.1:2 {how}")]


def test_what_a_node_prints_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    chatty = "import sys, time\nwhile True: print('x' * 1000, file=sys.stderr); time.sleep(1e-4)"
    node(monkeypatch, chatty)
    for name, value in (("ERRORS_BYTES", 10_000), ("BOUND_SECONDS", 0.001), ("END_SECONDS", 0.0)):
        monkeypatch.setattr(dask_plugin, name, value)

    async def main() -> None:
        worker: Any = FakeWorker()
        plugin = NodePlugin("mine", ACCESS)
        plugin.setup(worker)
        emptied = size = 0
        try:
            with anyio.fail_after(10):
                while emptied < 3:
                    before, size = size, os.fstat(plugin._errors.fileno()).st_size
                    emptied += size < before
                    await asyncio.sleep(0.001)
        finally:
            await plugin.teardown(worker)

    asyncio.run(main())


def test_a_worker_without_what_nodes_need_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask_plugin, "missing_packages", lambda: ["trio"])
    plugin = NodePlugin("mine", ACCESS)
    worker: Any = FakeWorker.__new__(FakeWorker)
    with pytest.raises(StartError, match=r"as trio is not installed there: .* install "):
        plugin.setup(worker)
    asyncio.run(plugin.teardown(worker))

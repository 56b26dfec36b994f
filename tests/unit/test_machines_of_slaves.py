"""The machines of a multi-environment's slaves: nodes are awaited, chosen and sent code."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from creamas_sc.core.environment import Environment
from creamas_sc.errors import BadValue, StartError
from creamas_sc.mp import EnvManager, MultiEnvironment
from creamas_sc.mp.machines import Machines
from creamas_sc.mp.slave_orders import SlaveOrders
from creamas_sc.mp.slave_pool import SlavePool
from creamas_sc.nodes import NodeAccess, Nodes, of
from creamas_sc.restarts.slave import Slave
from creamas_sc.rpc.auth import Membership
from creamas_sc.runtime.code_versions import CodeVersions
from creamas_sc.supervisor_client.launcher import THREADS
from creamas_sc.supervisor_client.messages import (
    ActorOrder,
    Code,
    ExitStatus,
    NodeInfo,
    NodeSettings,
    StopResult,
)
from creamas_sc.supervisor_client.spec import SlaveSpec
from tests.unit.test_placing import node


class FakeSupervisor:
    """Has nodes, and notes what it is asked for."""

    def __init__(self, nodes: Sequence[NodeInfo] = ()) -> None:
        self.joined = list(nodes)
        self.settings: NodeSettings | None = None
        self.code: Code | None = None
        self.waited: list[tuple[int, float]] = []

    async def listen_for_nodes(self, settings: NodeSettings) -> tuple[str, int]:
        self.settings = settings
        return settings["host"], 7000

    async def nodes(self) -> list[NodeInfo]:
        return self.joined

    async def wait_nodes(self, count: int, timeout: float) -> list[NodeInfo]:
        self.waited.append((count, timeout))
        return self.joined

    async def start(self, orders: Sequence[ActorOrder], code: Code | None = None) -> list[Any]:
        self.code = code
        return [{"slot": order["slot"], "pid": 5, "info": b""} for order in orders]


class StartedNodes(Nodes):
    """Notes that they were started and stopped."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.noted: list[Any] = []

    def start(self, access: NodeAccess) -> None:
        self.noted.append(access)
        self.count = 2

    def stop(self) -> None:
        self.noted.append("stopped")


def made(supervisor: FakeSupervisor, nodes: Nodes | None = None) -> tuple[Machines, SlaveOrders]:
    ordering = SlaveOrders(Membership.new(), 1)
    machines = Machines(None, ordering)
    machines.nodes = nodes
    return machines, ordering


def orders(ordering: SlaveOrders, *places: str) -> list[ActorOrder]:
    addrs = [("localhost", 0)] * len(places)
    return ordering.make(0, addrs, Environment, EnvManager, None, places=places)


def slave_of(order: ActorOrder, url: str) -> Slave:
    return Slave(order["slot"], url, 5, order)


async def test_slaves_here_ask_nothing_of_the_supervisor() -> None:
    supervisor: Any = FakeSupervisor()
    machines, ordering = made(supervisor)
    here = orders(ordering, "", "")
    assert await machines.place(supervisor, here, []) == here
    await machines.start(supervisor, here)
    assert (supervisor.code, supervisor.waited) == (None, [])


async def test_nodes_are_started_awaited_and_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(THREADS, raising=False)
    supervisor: Any = FakeSupervisor([node("n1", 4), node("n2", 2)])
    nodes = StartedNodes(listen=("127.0.0.1", 0), seconds=3.0)
    nodes.lease = 2.0
    machines, ordering = made(supervisor, nodes)
    placed = await machines.place(supervisor, orders(ordering, "nodes", "n2", "nodes"), [])
    assert [order.get("node") for order in placed] == ["n1", "n2", "n1"]
    assert [order["environ"][THREADS] for order in placed] == ["2", "2", "2"]
    specs = [SlaveSpec.decode(order["spec"]) for order in placed]
    assert [(each.addr, each.node) for each in specs] == [
        (("10.0.0.1", 0), "n1"),
        (("10.0.0.2", 0), "n2"),
        (("10.0.0.1", 0), "n1"),
    ]
    assert supervisor.settings["lease"] == 2.0
    assert nodes.noted == [NodeAccess("127.0.0.1", 7000, supervisor.settings["key"])]
    assert supervisor.waited == [(2, 3.0)]  # as many as `start` has said
    await machines.aclose()
    await machines.aclose()
    assert nodes.noted[1:] == ["stopped"]


async def test_nodes_that_could_not_be_started_are_started_by_the_next_call() -> None:
    supervisor: Any = FakeSupervisor([node("n1", 4)])
    nodes = StartedNodes(listen=("127.0.0.1", 0))
    machines, ordering = made(supervisor, nodes)
    wanted = orders(ordering, "nodes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nodes, "start", lambda access: of(3))
        with pytest.raises(BadValue):
            await machines.place(supervisor, wanted, [])
    assert nodes.noted == []
    with pytest.raises(StartError, match="1 of 2 nodes"):
        await machines.place(supervisor, wanted, [])
    assert len(nodes.noted) == 1


def test_what_a_node_needs_is_shown_without_its_key() -> None:
    assert repr(NodeAccess("127.0.0.1", 7000, b"secret")) == "<NodeAccess at 127.0.0.1:7000>"


async def test_too_few_nodes_are_an_error_that_says_what_to_do() -> None:
    supervisor: Any = FakeSupervisor([node("n1", 4)])
    nodes = StartedNodes(listen=("127.0.0.1", 0), seconds=0.5)
    machines, ordering = made(supervisor, nodes)
    with pytest.raises(StartError, match=r"1 of 2 nodes have joined at tcp://127.0.0.1:7000/"):
        await machines.place(supervisor, orders(ordering, "nodes"), [])
    await machines.aclose()
    assert nodes.noted[-1] == "stopped"


async def test_the_threads_that_the_user_has_set_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(THREADS, "7")
    supervisor: Any = FakeSupervisor([node("n1", 4)])
    machines, ordering = made(supervisor)
    (placed,) = await machines.place(supervisor, orders(ordering, "nodes"), [])
    assert placed["environ"][THREADS] == "7"


async def test_a_lost_slave_is_started_where_it_was_or_elsewhere() -> None:
    supervisor: Any = FakeSupervisor([node("n1", 4), node("n2", 2)])
    machines, ordering = made(supervisor)
    (order,) = await machines.place(supervisor, orders(ordering, "n1"), [])
    slave = slave_of(order, "tcp://10.0.0.1:5000/")
    again = await machines.place_again(supervisor, slave)
    spec = SlaveSpec.decode(again["spec"])
    assert (again.get("node"), spec.addr, spec.elsewhere, spec.incarnation) == (
        "n1",
        ("10.0.0.1", 5000),
        ("10.0.0.1", 0),
        1,
    )
    supervisor.joined = supervisor.joined[1:]
    again = await machines.place_again(supervisor, slave)
    spec = SlaveSpec.decode(again["spec"])
    assert (again.get("node"), spec.node) == ("n2", "n2")
    assert (spec.addr, spec.elsewhere) == (("10.0.0.1", 5000), ("10.0.0.2", 0))
    supervisor.joined = []
    with pytest.raises(StartError, match="no node is there"):
        await machines.place_again(supervisor, slave)
    assert len(supervisor.waited) == 2  # for the first slaves, and for this one


async def test_a_lost_slave_of_this_machine_is_started_here() -> None:
    supervisor: Any = FakeSupervisor()
    machines, ordering = made(supervisor)
    (order,) = orders(ordering, "")
    again = await machines.place_again(supervisor, slave_of(order, "tcp://localhost:5000/"))
    spec = SlaveSpec.decode(again["spec"])
    assert (spec.addr, spec.elsewhere, spec.node) == (("localhost", 5000), None, "")


async def test_slaves_on_nodes_get_the_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "far_away.py").write_text("WHERE = 'sent'")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "far_away", raising=False)
    importlib.import_module("far_away")
    supervisor: Any = FakeSupervisor([node("n1", 4)])
    machines, ordering = made(supervisor)
    versions = ordering.versions
    assert versions is not None
    versions.folder.mkdir(parents=True)
    placed = await machines.place(supervisor, orders(ordering, "nodes"), [])
    await machines.start(supervisor, placed)
    assert supervisor.code is not None
    assert supervisor.code["simulation"] == versions.folder.name
    other = CodeVersions(tmp_path / "other" / "environments" / versions.folder.name)
    other.folder.mkdir(parents=True)
    (tmp_path / "other").chmod(0o700)
    other.take(supervisor.code["files"])
    assert other.digests() == versions.digests()
    assert str(tmp_path / "far_away.py") in other.digests()


def test_what_nodes_may_be() -> None:
    assert of(None) is None
    nodes = Nodes(count=3)
    assert of(nodes) is nodes
    with pytest.raises(BadValue, match=r"creamas_sc\.nodes\.Nodes, or a cluster"):
        of("a cluster")
    for wrong in ({"count": 0}, {"seconds": -1}, {"listen": "here"}):
        with pytest.raises(BadValue):
            Nodes(**wrong)


def test_nodes_of_other_means_need_a_key_that_they_can_read(tmp_path: Path) -> None:
    access = NodeAccess("0.0.0.0", 7000, b"")
    with pytest.raises(BadValue, match="key_file"):
        Nodes().start(access)
    nodes = Nodes(key_file=tmp_path / "k")
    key = nodes.key()
    assert key == nodes.key()
    nodes.start(access)


async def test_slaves_by_number_have_the_host_of_their_master() -> None:
    menv = MultiEnvironment(("127.0.0.1", 0), Environment)
    made = menv._slaves.orders(2, Environment, EnvManager, None)
    assert [SlaveSpec.decode(each["spec"]).addr for each in made] == [("127.0.0.1", 0)] * 2
    for wrong in (-1, 10_000, True):
        with pytest.raises(BadValue):
            menv._slaves.orders(wrong, Environment, EnvManager, None)
    with pytest.raises(BadValue, match="2 slaves"):
        menv._slaves.orders(2, Environment, EnvManager, None, place=["here"])


@pytest.mark.parametrize("before", [True, False])
def test_a_node_that_was_lost_before_is_no_error_of_a_stop(before: bool) -> None:
    (order,) = orders(SlaveOrders(Membership.new(), 1), "lab")
    slave = slave_of(order, "tcp://10.0.0.1:5556/")
    how: ExitStatus = {"exit_code": None, "signal": None, "error": "its node lab is lost: cut"}
    if before:
        slave.exit = how
        slave.gone.set()
    end: StopResult = {
        **how, "slot": slave.slot, "pid": slave.pid, "traceback": "", "seconds": 0.1,
        "graceful": False, "ended_by": "gone", "payload": None,
    }  # fmt: skip

    assert slave.stop_report(end).errors == (() if before else ("its node lab is lost: cut",))


async def test_exits_that_overtake_their_starts_are_told_apart_where_machines_share_a_pid() -> None:
    pool = SlavePool(Membership.new(), 1)
    how: Any = {
        "pid": 5, "exit_code": 1, "signal": None, "error": None, "traceback": "",
        "expected": False, "returned": False,
    }  # fmt: skip
    wanted = orders(SlaveOrders(Membership.new(), 1), "a", "b")
    for order, code in zip(wanted, (1, 2), strict=True):
        how |= {"slot": order["slot"], "exit_code": code}
        pool._note_exit(how.copy())

    for order, code in zip(wanted, (1, 2), strict=True):
        slave = slave_of(order, f"tcp://10.0.0.{code}:5556/")
        pool._slaves.append(slave)
        pool._take_early_exit(slave)
        assert slave.exit["exit_code"] == code

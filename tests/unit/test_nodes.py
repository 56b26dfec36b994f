"""Nodes as a supervisor sees them: who joins, what they run, and how they are lost."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from creamas_sc.errors import BadValue, CallRefused, CreamasError, StartError
from creamas_sc.runtime.installation import installed_version
from creamas_sc.supervisor_client.messages import ActorExit, ActorOrder
from supervisor.actors.pool import ActorPool
from supervisor.nodes import registry as registry_module
from supervisor.nodes.placement import Placement
from supervisor.nodes.registry import NodeRegistry
from supervisor.timeouts import LEASE_MARGIN_SECONDS
from tests.support.fake_node import LEASE, FakeNode, about

CLEAR = LEASE + LEASE_MARGIN_SECONDS


class NoProcesses:
    """Where nothing can be started."""

    async def start(self, actor: object, order: object, on_end: object) -> None:
        raise OSError("there are no processes here")


class There:
    """A supervisor's nodes, and the pool of one simulation.

    Attributes:
        exits: What the pool has reported, with the times.
    """

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery
        self.registry = NodeRegistry(nursery)
        self.registry._listener = object()  # type: ignore[assignment]
        self.registry._version = installed_version()
        place = Placement(NoProcesses(), self.registry)  # type: ignore[arg-type]
        self.place = place
        self.exits: list[tuple[float, ActorExit]] = []
        self.pool = ActorPool(place, self._note)

    def _note(self, message: ActorExit) -> None:
        self.exits.append((trio.current_time(), message))

    async def join(self, name: str = "a", **changes: Any) -> FakeNode:
        """Have a node join."""
        node = FakeNode(self.registry, self.nursery)
        await node.join(about(name, **changes))
        return node

    @property
    def names(self) -> list[str]:
        return list(self.registry._nodes)


@pytest.fixture
async def there() -> AsyncIterator[There]:
    async with opened() as value:
        yield value


@asynccontextmanager
async def opened() -> AsyncIterator[There]:
    with trio.fail_after(1000):
        async with trio.open_nursery() as nursery:
            yield There(nursery)
            nursery.cancel_scope.cancel()


def order(slot: str, node: str = "a") -> ActorOrder:
    return {
        "slot": slot,
        "name": slot,
        "node": node,
        "entry": "m:f",
        "spec": slot.encode(),
        "environ": {},
        "cwd": "/",
        "path": [],
    }


# ---- joining


async def test_a_node_gets_the_name_that_it_wants_or_the_next(
    autojump_clock: MockClock, there: There
) -> None:
    first, second = FakeNode(there.registry, there.nursery), FakeNode(there.registry, there.nursery)
    assert await first.join(about("a")) == {"name": "a", "lease": LEASE}
    assert (await second.join(about("a")))["name"] == "a-2"
    assert there.names == ["a", "a-2"]
    (info, _) = await there.registry.nodes()
    assert (info["cores"], info["processes"], info["heard"]) == (4, 0, 0.0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"version": "0.0.1"}, "node a has creamas_sc 0.0.1 on Python .*both need the same"),
        ({"python": "3.9"}, "on Python 3.9, and its supervisor .*: both need the same"),
        ({"name": "nodes"}, "a node cannot be called 'nodes'"),
        ({"name": "a\x1b[2J"}, "is not a name for a node"),
        ({"cores": 0}, "at least one core"),
        ({"host": 5}, "what a node says of itself has no host, or a wrong one"),
    ],
)
async def test_who_cannot_be_a_node_is_told_why_and_gone(
    autojump_clock: MockClock, there: There, changes: dict[str, Any], words: str
) -> None:
    node = FakeNode(there.registry, there.nursery)
    with pytest.raises(CallRefused, match=words):
        await node.join(about(**changes))
    await node.server.connection.closed.wait()
    assert there.names == []


async def test_who_connects_and_does_not_join_is_gone_after_a_while(
    autojump_clock: MockClock, there: There
) -> None:
    node = FakeNode(there.registry, there.nursery)
    there.nursery.start_soon(node.joined.run)
    await node.server.connection.run()
    assert trio.current_time() == pytest.approx(35.0)


async def test_there_are_not_more_nodes_than_allowed(
    autojump_clock: MockClock, there: There, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry_module, "MAX_NODES", 1)
    await there.join()
    with pytest.raises(CallRefused, match="has 1 nodes already"):
        await there.join("b")


async def test_nodes_are_waited_for_until_so_many_are_there_or_time_is_up(
    autojump_clock: MockClock, there: There
) -> None:
    assert await there.registry.wait_nodes(1, 3.0) == []
    assert trio.current_time() == pytest.approx(3.0)
    there.nursery.start_soon(there.join)
    (info,) = await there.registry.wait_nodes(1, 60.0)
    assert info["name"] == "a"
    assert trio.current_time() == pytest.approx(3.0)
    with pytest.raises(BadValue, match="count must be"):
        await there.registry.wait_nodes(0, 1.0)


# ---- running


async def test_actors_start_and_stop_on_the_nodes_that_their_orders_name(
    autojump_clock: MockClock, there: There
) -> None:
    a, b = await there.join("a"), await there.join("b")
    started = await there.pool.start([order("0", "b"), order("1"), order("2", "b")])
    assert [(each["slot"], each["info"]) for each in started] == [
        (slot, slot.encode()) for slot in "012"
    ]
    assert [each["node"] for each in there.pool.processes] == ["b", "a", "b"]
    assert (len(a.running), len(b.running)) == (1, 2)
    assert [info["processes"] for info in await there.registry.nodes()] == [1, 2]
    results = await there.pool.stop(["0", "1"], 3.0, b"bye")
    assert [(each["slot"], each["payload"], each["ended_by"]) for each in results] == [
        ("0", b"bye", "request"),
        ("1", b"bye", "request"),
    ]
    assert a.calls[-1][2:] == (3.0, b"bye")
    assert sorted((each["slot"], each["expected"]) for _, each in there.exits) == [
        ("0", True),
        ("1", True),
    ]
    assert [each["slot"] for each in there.pool.processes] == ["2"]


async def test_two_simulations_may_have_the_same_slots(
    autojump_clock: MockClock, there: There
) -> None:
    node = await there.join()
    place = Placement(NoProcesses(), there.registry)  # type: ignore[arg-type]
    other = ActorPool(place, lambda message: None)
    await there.pool.start([order("0")])
    await other.start([order("0")])
    assert len(node.running) == 2
    await other.close()
    assert [each["slot"] for each in there.pool.processes] == ["0"]


async def test_a_node_that_is_not_there_starts_nothing_anywhere(
    autojump_clock: MockClock, there: There
) -> None:
    node = await there.join()
    with pytest.raises(StartError, match="there is no node 'c': there are a"):
        await there.pool.start([order("0"), order("1", "c")])
    assert node.calls == []


async def test_all_are_started_or_none_across_nodes(
    autojump_clock: MockClock, there: There
) -> None:
    a, b = await there.join("a"), await there.join("b")
    b.refusal = "1 failed to start: ValueError"
    with pytest.raises(StartError, match=r"1 failed to start: ValueError \(on node b\)"):
        await there.pool.start([order("0", "a"), order("1", "b")])
    with pytest.raises(StartError, match="there are no processes here"):
        await there.pool.start([order("0", "a"), order("1", "")])
    assert (a.running, b.running, there.pool.processes, there.exits) == ({}, {}, [], [])


async def test_an_exit_is_reported_with_the_node_s_words(
    autojump_clock: MockClock, there: There
) -> None:
    node = await there.join()
    (started,) = await there.pool.start([order("0")])
    (slot,) = node.running
    node.exit(slot, exit_code=3, error="it was tired")
    await wait_all_tasks_blocked()
    ((_, message),) = there.exits
    assert message["slot"] == "0"
    assert (message["pid"], message["exit_code"]) == (started["pid"], 3)
    assert (message["error"], message["expected"]) == ("it was tired", False)
    (result,) = await there.pool.stop(["0"])
    assert (result["exit_code"], result["ended_by"]) == (3, "gone")


async def test_an_exit_that_overtakes_the_answer_to_its_start_fails_the_start(
    autojump_clock: MockClock, there: There
) -> None:
    node = await there.join()
    answers = node.answers = trio.Event()

    async def exit_early() -> None:
        await wait_all_tasks_blocked()
        (slot,) = node.running
        node.exit(slot, exit_code=4)
        answers.set()

    there.nursery.start_soon(exit_early)
    with pytest.raises(StartError, match=r"0 \(pid 100 on node a\) exited with code 4 while star"):
        await there.pool.start([order("0")])
    assert (there.pool.processes, there.exits) == ([], [])


async def test_a_cancelled_start_is_undone_on_its_node(
    autojump_clock: MockClock, there: There
) -> None:
    node = await there.join()
    node.up = trio.Event()
    with trio.move_on_after(1.0):
        await there.pool.start([order("0")])
    assert trio.current_time() == pytest.approx(1.0)
    assert (node.running, there.pool.processes, there.exits) == ({}, [], [])
    node.up.set()
    await there.pool.start([order("0")])
    assert trio.current_time() == pytest.approx(1.0)


async def test_what_a_node_stops_by_itself_is_lost(autojump_clock: MockClock, there: There) -> None:
    node = await there.join()
    await there.pool.start([order("0")])
    node.exit(*node.running, expected=True)
    await wait_all_tasks_blocked()
    ((_, message),) = there.exits
    assert (message["expected"], message["error"]) == (False, "its node a has stopped it")


async def test_code_is_sent_once_and_forgotten_with_its_simulation(
    autojump_clock: MockClock, there: There
) -> None:
    node = await there.join()
    files = {"one": (1, b"1"), "two": (1, b"2")}
    await there.pool.start([order("0"), order("1")], code={"simulation": "x", "files": files})
    more = {"one": (1, b"1"), "two": (2, b"new"), "three": (1, b"3")}
    await there.pool.start([order("2")], code={"simulation": "x", "files": more})
    sent = [call[2] for call in node.calls if call[2] is not None]
    lacking = {name: more[name] for name in ("two", "three")}
    assert sent == [{"simulation": "x", "files": files}, {"simulation": "x", "files": lacking}]
    there.place.forget()
    await wait_all_tasks_blocked()
    assert node.calls[-1] == ("forget", "x")


async def test_loads_come_from_the_nodes_or_are_unknown(
    autojump_clock: MockClock, there: There
) -> None:
    await there.join("a")
    b = await there.join("b")
    await there.pool.start([order("0"), order("1", "b")])
    b.fall_silent()
    loads = await there.pool.loads(["0", "1", "2"])
    assert [loads[slot]["state"] for slot in "012"] == ["sleeping", "unknown", "ended"]
    assert trio.current_time() < 2.0


async def test_stacks_come_from_the_nodes_or_the_problem_is_named(
    autojump_clock: MockClock, there: There
) -> None:
    await there.join("a")
    b = await there.join("b")
    await there.pool.start([order("0"), order("1", "b")])
    b.fall_silent()
    assert await there.pool.stacks(2.0) == {
        "0": ("running", {"places": []}, (), ""),
        "1": ("unknown", None, (), "its node b does not answer"),
    }
    assert trio.current_time() == pytest.approx(3.0, abs=0.5)


# ---- losing a node


async def test_what_was_on_a_node_is_lost_at_once_when_its_connection_ends(
    autojump_clock: MockClock, there: There
) -> None:
    node = await there.join()
    await there.pool.start([order("0"), order("1")])
    await trio.sleep(3.5)  # heard at 3
    node.cut()
    await wait_all_tasks_blocked()
    assert there.names == []
    assert [at for at, _ in there.exits] == pytest.approx([3.5, 3.5])
    _, message = there.exits[0]
    assert message["error"] == "its node a is lost: its connection ended"
    assert (message["exit_code"], message["signal"], message["expected"]) == (None, None, False)
    results = await there.pool.stop(["0", "1"])
    assert [each["ended_by"] for each in results] == ["gone", "gone"]
    assert results[0]["error"] == message["error"]
    assert trio.current_time() == pytest.approx(3.5)


@pytest.mark.parametrize("stopped", [False, True])
async def test_a_slot_of_a_lost_node_is_used_again_when_nothing_can_run_there(
    autojump_clock: MockClock, there: There, stopped: bool
) -> None:
    node, other = await there.join("a"), await there.join("b")
    await there.pool.start([order("0")])
    await trio.sleep(3.5)  # heard at 3
    node.cut()
    await wait_all_tasks_blocked()
    if stopped:
        await there.pool.stop(["0"])
    await there.pool.start([order("1", "b")])  # another slot, at once
    assert trio.current_time() == pytest.approx(3.5)
    await there.pool.start([order("0", "b")])
    assert trio.current_time() == pytest.approx(3.0 + CLEAR)
    assert len(other.running) == 2


async def test_a_start_that_would_have_to_wait_too_long_says_so_at_once(
    autojump_clock: MockClock, there: There
) -> None:
    node = await there.join("a")
    await there.join("b")
    await there.pool.start([order("0")])
    node.cut()
    await wait_all_tasks_blocked()
    with pytest.raises(
        StartError, match=r"slot 0 may go on for another 11\.0 s: its node a is lost"
    ):
        await there.pool.start([order("0", "b")], 5.0)
    assert trio.current_time() == pytest.approx(0.0)


async def test_a_node_that_leaves_in_order_frees_its_slots_at_once(
    autojump_clock: MockClock, there: There
) -> None:
    node = await there.join("a")
    await there.join("b")
    await there.pool.start([order("0")])
    await node.leave()
    await wait_all_tasks_blocked()
    ((_, message),) = there.exits
    assert message["error"] == "its node a has left: its job is over"
    await there.pool.start([order("0", "b")])
    assert trio.current_time() == pytest.approx(0.0)


async def test_a_node_that_is_not_heard_is_lost_after_its_lease(
    autojump_clock: MockClock, there: There
) -> None:
    node = await there.join("a")
    await there.join("b")
    await there.pool.start([order("0")])
    await trio.sleep(2.5)  # heard at 2
    node.fall_silent()
    await there.registry.wait_nodes(3, 60.0)
    ((at, message),) = there.exits
    assert at == pytest.approx(2.0 + CLEAR)
    assert message["error"] == "its node a is lost: it was not heard for 10 s"
    began = trio.current_time()
    await there.pool.start([order("0", "b")])
    assert trio.current_time() == began


async def test_a_node_that_is_lost_during_a_start_fails_all_of_it(
    autojump_clock: MockClock, there: There
) -> None:
    a, b = await there.join("a"), await there.join("b")
    b.answers = trio.Event()

    async def cut() -> None:
        await trio.sleep(1.0)
        b.cut()

    there.nursery.start_soon(cut)
    with pytest.raises(StartError, match=r"1 \(on node b\) did not start: its node b is lost"):
        await there.pool.start([order("0", "a"), order("1", "b")])
    assert (a.running, there.pool.processes, there.exits) == ({}, [], [])
    await there.pool.start([order("0", "a")])
    assert trio.current_time() == pytest.approx(1.0)
    await there.pool.start([order("1", "a")])  # it may have come up there
    assert trio.current_time() == pytest.approx(CLEAR)


async def test_a_stop_on_a_silent_node_is_bounded_and_goes_on_there(
    autojump_clock: MockClock, there: There
) -> None:
    node = await there.join()
    await there.pool.start([order("0")])
    answers = node.answers = trio.Event()
    (result,) = await there.pool.stop(["0"], 1.0)
    assert trio.current_time() == pytest.approx(2.5)
    assert result["error"] == "its node a did not answer when it was to be stopped"
    assert (result["ended_by"], result["graceful"]) == ("gone", False)
    assert [each["slot"] for each in there.pool.processes] == ["0"]
    with pytest.raises(StartError, match="not ready within 3 s"):  # it may still run
        await there.pool.start([order("0")], 3.0)
    answers.set()
    await wait_all_tasks_blocked()
    assert there.pool.processes == []
    await there.pool.start([order("0")])


async def test_a_start_that_a_silent_node_does_not_answer_is_bounded(
    autojump_clock: MockClock, there: There
) -> None:
    node = await there.join()
    node.answers = trio.Event()
    with pytest.raises(StartError, match="not ready within 2 s"):
        await there.pool.start([order("0")], 2.0)
    assert trio.current_time() == pytest.approx(2.0 + 2.5)
    assert [each["slot"] for each in there.pool.processes] == ["0"]
    node.answers.set()
    await wait_all_tasks_blocked()
    assert (node.running, there.pool.processes) == ({}, [])


async def test_a_node_joins_again_under_its_name_while_its_old_self_is_in_the_lease(
    autojump_clock: MockClock,
    there: There,
) -> None:
    told = about("a")
    first, second = FakeNode(there.registry, there.nursery), FakeNode(there.registry, there.nursery)
    await first.join(told)
    await there.pool.start([order("0")])
    await trio.sleep(4.5)  # heard at 4
    assert (await second.join(told))["name"] == "a"
    await wait_all_tasks_blocked()
    ((at, message),) = there.exits
    assert (at, message["error"]) == (4.5, "its node a is lost: it has joined again")
    assert there.names == ["a"]
    await there.pool.start([order("1")])
    assert trio.current_time() == 4.5
    await there.pool.start([order("0")])
    assert trio.current_time() == pytest.approx(4.0 + CLEAR)


@pytest.mark.parametrize("message", [None, {"slot": "1/0"}, {"slot": 5, "pid": "x"}])
async def test_a_node_that_sends_nonsense_is_dropped_alone(
    autojump_clock: MockClock, there: There, message: Any
) -> None:
    node, other = await there.join("a"), await there.join("b")
    await there.pool.start([order("0"), order("1", "b")])
    node.server.post("exited", message)
    await node.server.connection.closed.wait()
    assert there.names == ["b"]
    assert [each["slot"] for _, each in there.exits] == ["0"]
    assert len(other.running) == 1


# ---- the end


async def test_the_supervisor_s_end_ends_its_nodes(autojump_clock: MockClock, there: There) -> None:
    class Listener:
        async def aclose(self) -> None: ...

    there.registry._listener = Listener()  # type: ignore[assignment]
    node, silent = await there.join("a"), await there.join("b")
    silent.fall_silent()
    await there.registry.aclose("its supervisor ends")
    assert node.ended == "its supervisor ends"
    assert (node.joined.left, silent.joined.left) == (True, False)
    assert there.names == []
    assert trio.current_time() < 1.0
    with pytest.raises(CallRefused, match="takes no nodes any more"):
        await there.join("c")


async def test_a_node_that_did_not_stop_its_actors_is_not_waited_for(
    autojump_clock: MockClock, there: There
) -> None:
    node = await there.join()
    await there.pool.start([order("0")])
    node.fall_silent()
    await there.pool.close()
    closed_at = trio.current_time()

    class Listener:
        async def aclose(self) -> None: ...

    there.registry._listener = Listener()  # type: ignore[assignment]
    await there.registry.aclose("its supervisor ends")
    await node.server.connection.closed.wait()
    assert trio.current_time() == closed_at
    assert node.joined.left is False


async def test_nodes_end_with_the_tasks_that_keep_them(autojump_clock: MockClock) -> None:
    async with opened() as there:
        node = await there.join()
        await there.pool.start([order("0")])
    await node.server.connection.closed.wait()
    assert [each["error"] for _, each in there.exits] == [
        "its node a is lost: the supervisor ended"
    ]


async def test_a_daemon_without_a_listener_says_how_to_get_one(
    autojump_clock: MockClock, there: There
) -> None:
    there.registry._listener = None
    with pytest.raises(CreamasError, match=r"creamas-supervisor start --listen 0\.0\.0\.0:0"):
        await there.registry.node_access()

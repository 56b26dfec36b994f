"""Simulations of a daemon: create, look at, attach to, and end them; what their deaths mean."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from creamas_sc.errors import (
    BadArguments,
    BadValue,
    CallRefused,
    ConnectionLost,
    CreamasError,
    DeadlineExceeded,
    StartError,
    UnknownSimulation,
)
from tests.support import processes
from tests.support.daemon_clients import Client, connected, order, until
from tests.support.daemons import BOUND_SECONDS, Daemon, running
from tests.support.programs import ROOT

ABOUT = {"python": (3, 11)}
GONE_SECONDS = 10.0


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with running(tmp_path_factory.mktemp("logs")) as daemon:
        yield daemon


@pytest.fixture
async def client(daemon: Daemon) -> AsyncIterator[Client]:
    """A client of the daemon; what a test leaves in there is killed."""
    with trio.fail_after(BOUND_SECONDS):
        async with connected(daemon.socket) as client:
            yield client
        async with connected(daemon.socket) as client:
            for summary in await client.call("ls"):
                await client.call("kill", summary["name"])


async def test_a_simulation_is_created_shown_attached_to_and_closed(
    daemon: Daemon, client: Client, tmp_path: Path
) -> None:
    made = await client.create("one", slaves=2)
    left = processes.open_pidfds([made["pid"], *made["info"]])
    (summary,) = await client.call("ls")
    since = summary.pop("since")
    assert summary == {
        "name": "one",
        "state": "running",
        "pid": made["pid"],
        "cause": "",
        "host": {"clients": 0},
    }
    shown = await client.call("inspect", "one")
    assert (shown["since"], shown["about"], shown["stop_results"]) == (since, {"by": "test"}, [])
    assert (shown["cwd"], shown["path"]) == (os.getcwd(), [str(ROOT)])
    assert shown["environ"]["CREAMAS_CHECK_LOCAL"] == "1"
    assert [(each["slot"], each["pid"]) for each in shown["processes"]] == [
        ("host", made["pid"]),
        *zip(("slave-0", "slave-1"), made["info"], strict=True),
    ]
    async with connected(daemon.socket) as attached:
        answer = await attached.call("attach", "one", ABOUT)
        assert answer == {"pid": made["pid"], "asked": ["one", ABOUT]}
        big = b"x" * (1 << 20)
        assert await attached.call("echo", 1, big) == (1, big)
        assert (await client.call("inspect", "one"))["host"] == {"clients": 1}
    report = await client.call("close", "one", 1.0, b"this")
    assert processes.wait_gone(left, 0) == []
    assert (report["payload"], report["ended_by"]) == (b"closed with this", "request")
    assert await client.call("ls") == []
    assert (await client.call("ls", all=True))[-1]["cause"] == "closed"
    shown = await client.call("inspect", "one")
    assert (shown["state"], shown["processes"]) == ("ended", [])
    assert [each["slot"] for each in shown["stop_results"]] == ["host"]
    assert await client.call("host_status", "one", made["pid"]) == {
        "ended": True,
        "expected": True,
        "cause": "closed",
    }


async def test_processes_of_a_simulation_log_to_its_file(daemon: Daemon, client: Client) -> None:
    place = (await client.create("one", "tell_place"))["info"]
    assert place["environ"]["CREAMAS_LOG_FILE"] == str(daemon.log_folder / "test" / "one.log")
    assert place["environ"]["CREAMAS_SIMULATION"] == "one"
    assert "CREAMAS_SIMULATION" not in (await client.call("inspect", "one"))["environ"]
    # The sockets to the supervisor, both of them, and what trio opens.
    sockets = [where for fd, where in place["fds"].items() if where.startswith("socket:")]
    assert len(sockets) == 6


# ---- what is refused


@pytest.mark.parametrize("name", ["", "-a", "a/b", "a" * 65, 3, None, ["a"], "a\n"])
async def test_a_bad_name_is_refused(client: Client, name: object) -> None:
    with pytest.raises(BadValue, match="not a name for a simulation"):
        await client.call("create", name, order(), {})
    with pytest.raises(UnknownSimulation):
        await client.call("inspect", name)
    with pytest.raises(UnknownSimulation):
        await client.call("close", name)
    assert (await client.call("host_status", name, 1))["ended"]


async def test_a_name_that_is_taken_is_refused(client: Client) -> None:
    await client.create("one")
    with pytest.raises(BadValue, match="a simulation 'one' already, running: close it first"):
        await client.create("one")
    await client.call("close", "one")
    await client.create("one")


@pytest.mark.slow
async def test_a_name_is_free_as_soon_as_its_simulation_ends(
    daemon: Daemon, client: Client
) -> None:
    """Of a host that was killed a moment ago, and of one that is being closed or killed."""
    pid = (await client.create("one"))["pid"]
    for _ in range(5):
        os.kill(pid, signal.SIGKILL)
        pid = (await client.create("one"))["pid"]
    for way in ("kill", "close", "kill"):
        async with connected(daemon.socket) as other, trio.open_nursery() as nursery:
            nursery.start_soon(other.call, way, "one")
            await until(client, "one", "closing")
            await client.create("one")
    for _ in range(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.call, "kill", "one")
            await trio.testing.wait_all_tasks_blocked()  # it is sent first
            await client.create("one")
    pid = (await client.call("inspect", "one"))["pid"]
    os.kill(pid, signal.SIGSTOP)  # it does not answer, but has not ended
    with pytest.raises(BadValue, match="a simulation 'one' already, running: close it first"):
        await client.create("one")
    await client.call("kill", "one")


async def test_an_unknown_simulation_is_named_and_the_known_are_listed(client: Client) -> None:
    with pytest.raises(UnknownSimulation, match="no simulation 'x': there is none; `create`"):
        await client.call("close", "x")
    await client.create("b")
    await client.create("a")
    with pytest.raises(UnknownSimulation, match="no simulation 'x': there are a, b; `create`"):
        await client.call("kill", "x")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"spec": "text"}, "order of the host: 'spec' must be bytes"),
        ({"environ": None}, "order of the host: 'environ' must be dict"),
        ({"environ": {"A": 1}}, "must contain only strings"),
        ({"path": [b"/"]}, "must contain only strings"),
        ({"cwd": "/\u0100"}, "a character for each byte"),
    ],
)
async def test_a_bad_order_is_refused(client: Client, change: dict[str, object], text: str) -> None:
    with pytest.raises(BadValue, match=text):
        await client.call("create", "one", {**order(), **change}, {})
    assert await client.call("ls") == []


async def test_bad_arguments_are_refused(client: Client) -> None:
    with pytest.raises(
        BadArguments, match=r"create\(name, order, about, timeout, token\): missing"
    ):
        await client.call("create", "one")
    with pytest.raises(BadValue, match="timeout must be a number of seconds, 0 or more, not -1"):
        await client.call("create", "one", order(), {}, timeout=-1)
    with pytest.raises(BadValue, match="grace must be a number of seconds"):
        await client.call("stop", float("nan"))
    with pytest.raises(BadValue, match="payload must be bytes, not str"):
        await client.call("stop", 1.0, "text")
    with pytest.raises(BadValue, match="over the limit of 65536"):
        await client.call("create", "one", order(), {"x": b"x" * (1 << 16)})
    with pytest.raises(BadArguments, match="unknown extension"):  # nothing is imported for it
        await client.call("create", "one", order(), {"x": Path})
    with pytest.raises(CallRefused, match="no method attach; there are close, create"):
        await client.call("attach", "one", {})
    assert await client.call("ls") == []


# ---- creating


@pytest.mark.parametrize(
    ("entry", "spec", "reason"),
    [
        ("fail_to_start", b"value", "ValueError: said why"),
        ("no_such_entry", b"", "has no 'no_such_entry'"),
        ("die_starting", b"", "was killed by SIGKILL while starting"),
        ("host", b'{"slaves": 1, "runs": "fail_to_start"}', "KeyError"),
    ],
)
async def test_a_host_that_does_not_come_up_is_told(
    client: Client, entry: str, spec: bytes, reason: str
) -> None:
    with pytest.raises(StartError, match=reason):
        await client.call("create", "one", {**order(entry), "spec": spec}, {})
    assert await client.call("ls") == []
    record = (await client.call("ls", all=True))[-1]
    assert reason in record["cause"]
    await client.create("one")


async def test_creating_has_a_deadline(client: Client) -> None:
    with pytest.raises(StartError, match=r"not ready within 0.2 s: host one \(pid \d+\)$"):
        await client.call("create", "one", order("never_ready"), {}, timeout=0.2)
    with pytest.raises(StartError, match=r"not ready within 0.3 s: slave-0"):
        await client.create("one", slaves=1, runs="never_ready", timeout=0.3)
    assert await client.call("ls") == []


async def test_a_client_that_vanishes_while_creating_leaves_nothing(
    daemon: Daemon, client: Client
) -> None:
    before = daemon.family
    early, late = order("never_ready"), order(slaves=2, runs="never_ready")
    async with connected(daemon.socket) as one, connected(daemon.socket) as two:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ignore_loss, one, "create", "early", early, {})
            nursery.start_soon(ignore_loss, two, "create", "late", late, {})
            while len(daemon.family) < len(before) + 4:  # two hosts, two slaves
                await client.call("ls")
            one.connection.abort()
            two.connection.abort()
    for name in ("early", "late"):
        assert "closed while it was starting" in (await until(client, name, "ended"))["cause"]
    assert daemon.family == before


async def test_a_create_that_is_cancelled_leaves_nothing(daemon: Daemon, client: Client) -> None:
    before = daemon.family
    with trio.move_on_after(0.1):
        await client.create("one", slaves=1, runs="never_ready")
    await until(client, "one", "ended")
    assert daemon.family == before
    payload = Client.pack("one", order("never_ready"), {})
    with pytest.raises(DeadlineExceeded):
        await client.connection.call(None, "create", payload, timeout=0.1)
    await until(client, "one", "ended")
    assert daemon.family == before


async def test_an_answered_create_can_be_taken_back(daemon: Daemon, client: Client) -> None:
    before = daemon.family
    about = {"by": "test"}
    await client.call("create", "one", order(slaves=1), about, None, "mine")
    await client.call("undo_create", "one", "other")
    assert len(daemon.family) == len(before) + 2
    await client.call("undo_create", "one", "mine")
    assert daemon.family == before
    cause = (await client.call("inspect", "one"))["cause"]
    assert cause == "killed: its creation was cancelled"


@pytest.mark.parametrize("way", ["close", "kill"])
async def test_a_starting_simulation_can_be_ended(daemon: Daemon, client: Client, way: str) -> None:
    async with connected(daemon.socket) as other, trio.open_nursery() as nursery:

        async def create() -> None:
            with pytest.raises(StartError, match="'one' was closed while it was starting"):
                await other.create("one", "never_ready")

        nursery.start_soon(create)
        await until(client, "one", "starting")
        with pytest.raises(CallRefused, match="simulation 'one' is starting"):
            await attach(daemon, "one")
        await client.call(way, "one")
    assert await client.call("ls") == []


# ---- ending


async def test_kill_sends_no_stop_request(client: Client) -> None:
    made = await client.create("one", slaves=2)
    left = processes.open_pidfds([made["pid"], *made["info"]])
    reports = await client.call("kill", "one")
    assert processes.wait_gone(left, 0) == []
    assert [(each["slot"], each["ended_by"], each["signal"]) for each in reports] == [
        (slot, "kill", signal.SIGKILL) for slot in ("host", "slave-0", "slave-1")
    ]
    record = await client.call("inspect", "one")
    assert (record["cause"], len(record["stop_results"])) == ("killed on request", 3)


async def test_a_kill_may_say_why(client: Client) -> None:
    await client.create("one")
    with pytest.raises(BadValue, match="why must be str, not int"):
        await client.call("kill", "one", 3)
    await client.call("kill", "one", "its agents " + "failed " * 1000)
    cause = (await client.call("inspect", "one"))["cause"]
    assert cause.startswith("killed: its agents failed failed")
    assert len(cause) < 2100


async def test_kill_cuts_a_close_short(client: Client) -> None:
    await client.create("one", "obstinate")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.call, "close", "one", 30.0)
        await until(client, "one", "closing")
        with trio.fail_after(GONE_SECONDS):
            await client.call("kill", "one")


async def test_a_host_may_end_by_itself(client: Client) -> None:
    for entry, cause in (
        ("return_later", "closed"),
        ("fail_unasked", "the host (pid {pid}) failed: RuntimeError: broke"),
        ("exit_unasked", "the host (pid {pid}) exited with code 0"),
    ):
        made = await client.create(entry, entry)
        record = await until(client, entry, "ended")
        assert record["cause"] == cause.format(pid=made["pid"])
        status = await client.call("host_status", entry, made["pid"])
        assert status == {"ended": True, "expected": cause == "closed", "cause": record["cause"]}


# ---- deaths


async def test_a_host_that_is_killed_ends_its_simulation_alone(
    daemon: Daemon, client: Client
) -> None:
    made = await client.create("one", slaves=2)
    other = await client.create("other", slaves=1)
    slaves = processes.open_pidfds(made["info"])
    async with connected(daemon.socket) as attached, connected(daemon.socket) as bystander:
        await attached.call("attach", "one", ABOUT)
        await bystander.call("attach", "other", ABOUT)
        assert await client.call("host_status", "other", other["pid"]) == {
            "ended": False,
            "expected": False,
            "cause": "",
        }
        os.kill(made["pid"], signal.SIGKILL)
        with trio.fail_after(GONE_SECONDS):
            await attached.connection.closed.wait()
            status = await client.call("host_status", "one", made["pid"])
        cause = f"the host (pid {made['pid']}) was killed by SIGKILL"
        assert status == {"ended": True, "expected": False, "cause": cause}
        assert processes.wait_gone(slaves, 1.0) == []
        assert (await until(client, "one", "ended"))["cause"] == cause
        with pytest.raises(UnknownSimulation, match=r"'one' has ended: the host .* by SIGKILL"):
            await attach(daemon, "one")
        assert await bystander.call("echo", 1) == (1,)
        assert (await client.call("inspect", "other"))["host"] == {"clients": 1}


async def test_a_slave_that_is_killed_is_told_to_its_host(client: Client) -> None:
    made = await client.create("one", slaves=2)
    os.kill(made["info"][0], signal.SIGKILL)
    while (host := (await client.call("inspect", "one"))["host"]) == {"clients": 0}:
        pass
    assert host == {"clients": 0, "lost": ["slave-0"]}
    assert (await client.call("close", "one"))["graceful"]


@pytest.mark.slow
async def test_hosts_that_do_not_answer_bound_everything(daemon: Daemon, client: Client) -> None:
    stopped = await client.create("stopped", slaves=1)
    another = await client.create("another")
    obstinate = await client.create("obstinate", "obstinate")
    await client.create("good")
    for pid in (stopped["pid"], another["pid"]):
        os.kill(pid, signal.SIGSTOP)
    with trio.fail_after(0.5 + 1.0):
        hosts = [each["host"] for each in await client.call("ls")]
    assert hosts == [None, None, None, {"clients": 0}]
    left = processes.open_pidfds([stopped["pid"], *stopped["info"], obstinate["pid"]])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(expect_no_answer, daemon, "another")
        nursery.start_soon(client.call, "close", "obstinate", 30.0)
        await until(client, "obstinate", "closing")
        with trio.fail_after(3.1 + 0.3 + 0.2 + 2.0):
            reports = await close_at_once(client, "stopped", "obstinate")
        assert [(each["ended_by"], each["signal"]) for each in reports] == [
            ("kill", signal.SIGKILL),
            ("cancel", None),  # the shorter of the two grace periods counts
        ]
        assert [each["payload"] for each in reports] == [None, None]
        assert processes.wait_gone(left, 0) == []
    record = await client.call("inspect", "obstinate")
    assert record["cause"] == f"closed, but the host (pid {obstinate['pid']}) exited with code 0"
    with trio.fail_after(2.0):
        await client.call("kill", "another")


async def test_a_host_that_was_stopped_for_a_while_goes_on(daemon: Daemon, client: Client) -> None:
    made = await client.create("one")
    os.kill(made["pid"], signal.SIGSTOP)
    assert (await client.call("ls"))[0]["host"] is None
    os.kill(made["pid"], signal.SIGCONT)
    await attach(daemon, "one")
    assert (await client.call("ls"))[0]["host"] is not None


async def test_a_host_may_not_touch_its_own_slot(client: Client) -> None:
    with pytest.raises(StartError, match="'host' is reserved for the host"):
        await client.create("one", "reach_for_host")


async def test_many_starts_and_ends_leak_no_descriptor(daemon: Daemon, client: Client) -> None:
    roles = ("run", "keeper", "zygote", "supervisor")
    kill = (signal.SIGKILL, signal.SIGTERM)

    async def once(number: int) -> None:
        made = await client.create("one", slaves=1)
        await attach(daemon, "one")
        if number % 3 == 0:
            await client.call("close", "one")
        else:
            os.kill(made["pid"], kill[number % 2])
            while await client.call("ls"):
                pass

    async def count() -> list[int]:
        await client.call("ls")
        return [len(os.listdir(f"/proc/{daemon.family[role]}/fd")) for role in roles]

    await once(0)
    before = await count()
    for number in range(10):
        await once(number)
    assert await count() == before


# ---- helpers


async def attach(daemon: Daemon, name: str) -> None:
    """Attach, say something, and go."""
    async with connected(daemon.socket) as attached:
        await attached.call("attach", name, ABOUT)
        assert await attached.call("echo", 5) == (5,)


async def close_at_once(client: Client, *names: str) -> list[Any]:
    """Close several with little grace; their reports."""
    reports: dict[str, Any] = {}

    async def close(name: str) -> None:
        reports[name] = await client.call("close", name, 0.1)

    async with trio.open_nursery() as nursery:
        for name in names:
            nursery.start_soon(close, name)
    return [reports[name] for name in names]


async def expect_no_answer(daemon: Daemon, name: str) -> None:
    """Attach to a host that is stopped."""
    with trio.fail_after(6), pytest.raises(ConnectionLost, match=r"\(pid \d+\) does not answer"):
        await attach(daemon, name)


async def ignore_loss(client: Client, method: str, *args: object) -> None:
    try:
        await client.call(method, *args)
    except CreamasError:
        return

"""Both clients with a daemon in threads: what a real one does too seldom."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import anyio
import pytest

from creamas_sc.client import (
    async_channel,
    base_client,
    connect_sync,
    connection_errors,
    daemon_api,
    sync_channel,
)
from creamas_sc.client.daemon_api import Call
from creamas_sc.client.sync_client import SyncClient
from creamas_sc.errors import (
    BadValue,
    ConnectionLost,
    CreamasError,
    DeadlineExceeded,
    EncodeError,
    HandshakeError,
    HostLost,
    UnknownSimulation,
)
from creamas_sc.reports import SlaveReceipt, StopReport
from creamas_sc.runtime.paths import daemon_socket
from creamas_sc.supervisor_client.spec import pack
from tests.support.clients import Awaited, connected, each_async_client, each_client
from tests.support.fake_daemon import FakeDaemon

SAVED = StopReport([SlaveReceipt("tcp://a:1/0", 70, 0, None, 0.5, True, "request")], "all")


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


@pytest.fixture
def daemon() -> Iterator[FakeDaemon]:
    daemon = FakeDaemon(daemon_socket("default"))
    yield daemon
    daemon.close()


# ---- connecting


@each_client
async def test_nobody_listens(kind: str) -> None:
    with pytest.raises(ConnectionLost, match="start it with `creamas-supervisor start`") as caught:
        async with connected(kind):
            pass
    assert not caught.value.may_have_run
    with pytest.raises(ConnectionLost, match="creamas-supervisor start --daemon other`"):
        async with connected(kind, "other"):
            pass


@each_client
async def test_a_socket_that_a_dead_daemon_left(kind: str) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        daemon_socket("default").unlink(missing_ok=True)
        sock.bind(os.fspath(daemon_socket("default")))
    with pytest.raises(ConnectionLost, match="creamas-supervisor start"):
        async with connected(kind):
            pass


@each_client
async def test_names(kind: str, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadValue, match=r"'\.\./x' is not a name for a daemon"):
        async with connected(kind, "../x"):
            pass
    monkeypatch.setenv("CREAMAS_DAEMON", "another")
    with pytest.raises(ConnectionLost, match="the daemon 'another' is not running"):
        async with connected(kind):
            pass
    async with connected(kind, "default") as client:
        assert (client.daemon, client.pid, client.python) == ("default", os.getpid(), (3, 11))
        with pytest.raises(BadValue, match="not a name for a simulation"):
            async with client.attach("a b"):
                pass


@each_client
async def test_a_wrong_key(kind: str, daemon: FakeDaemon) -> None:
    daemon.key = b"q" * 32
    with pytest.raises(HandshakeError, match="wrong key"):
        async with connected(kind):
            pass


@each_client
async def test_another_user_in_the_daemons_place(
    kind: str, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    uid = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: uid + 1)
    with pytest.raises(HandshakeError, match=f"of user {uid} listens at .*default.sock"):
        async with connected(kind):
            pass


@each_client
async def test_who_does_not_answer(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sync_channel, "OPEN_SECONDS", 0.05)
    monkeypatch.setattr(async_channel, "OPEN_SECONDS", 0.05)
    with socket.socket(socket.AF_UNIX) as silent:
        daemon_socket("default").unlink(missing_ok=True)
        silent.bind(os.fspath(daemon_socket("default")))
        silent.listen()
        with pytest.raises(ConnectionLost, match=r"did not answer in 0\.05 s") as caught:
            async with connected(kind):
                pass
        assert not caught.value.may_have_run


@each_client
async def test_who_hangs_up(kind: str, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    def hang_up(sock: socket.socket) -> None:
        raise ConnectionError

    monkeypatch.setattr(daemon, "shake_hands", hang_up)
    with pytest.raises(ConnectionLost, match=r"its log may say why|cannot be reached"):
        async with connected(kind):
            pass


def test_a_folder_of_others() -> None:
    path = daemon_socket("default")
    error = connection_errors.unreachable("default", path, PermissionError(13, "Permission denied"))
    assert type(error) is CreamasError
    assert str(path.parent) in str(error)
    path.parent.chmod(0o755)
    with pytest.raises(CreamasError, match="mode 0700"):
        connect_sync()


# ---- what comes of a lost connection


@each_client
@pytest.mark.parametrize("when", ["in a call", "before a call"])
async def test_a_lost_host(kind: str, daemon: FakeDaemon, when: str) -> None:
    daemon.ended = {"ended": True, "expected": False, "cause": "killed by SIGKILL"}
    async with connected(kind) as client, client.attach("sim") as simulation:
        if when == "before a call":
            daemon.peers[-1].close()
            await _seen_lost(simulation)
        daemon.methods["trigger_all"] = _drop
        with pytest.raises(HostLost, match="'sim' has ended: killed by SIGKILL") as caught:
            await simulation.trigger_all()
        assert caught.value.may_have_run == (when == "in a call")
        daemon.ended = {"ended": False, "expected": False, "cause": ""}
        with pytest.raises(ConnectionLost, match=r"\(pid 100\) is still running: attach again"):
            await simulation.trigger_all()


def _drop() -> None:
    raise ConnectionAbortedError


async def _seen_lost(simulation: Any) -> None:
    """Have the client know it: an async one reads all the time, a blocking one in calls only."""
    if hasattr(simulation, "plain"):
        simulation.plain._channel._connection.wait_end(10)
    else:
        await simulation._channel.connection.closed.wait()


def test_a_lost_host_after_disconnecting_from_the_daemon(daemon: FakeDaemon) -> None:
    daemon.ended = {"ended": True, "expected": False, "cause": "killed by SIGKILL"}
    daemon.methods["trigger_all"] = _drop
    with connect_sync() as client, client.attach("sim") as simulation:
        client.disconnect()
        with pytest.raises(HostLost, match="killed by SIGKILL"):
            simulation.trigger_all()


@each_client
async def test_a_lost_daemon(kind: str, daemon: FakeDaemon) -> None:
    async with connected(kind) as client, client.attach("sim") as simulation:
        daemon.stop_listening()
        for peer in daemon.peers:
            peer.close()
        with pytest.raises(HostLost, match="the daemon does not answer any more"):
            await simulation.trigger_all()
        with pytest.raises(ConnectionLost, match="the daemon 'default' is gone"):
            await client.ls()


@each_client
async def test_a_lost_connection_is_no_lost_daemon(kind: str, daemon: FakeDaemon) -> None:
    daemon.methods["ls"] = lambda all: _drop()
    async with connected(kind) as client:
        with pytest.raises(ConnectionLost, match="was lost; the daemon itself answers") as caught:
            await client.ls()
        assert caught.value.may_have_run
        daemon.methods["ls"] = lambda all: [all]
        if kind == "sync":
            assert await client.ls() == [False]
        else:
            with pytest.raises(ConnectionLost, match="the daemon itself answers: connect again"):
                await client.ls()
        client = getattr(client, "plain", client)
        client.pid = 1
        daemon.peers[-1 if kind == "sync" else 0].close()
        with pytest.raises(ConnectionLost, match=r"is gone, and its simulations .* runs now"):
            await Awaited(client).ls() if kind == "sync" else await client.ls()


@each_client
async def test_a_lost_host_where_the_connection_to_the_daemon_is_lost_too(
    kind: str, daemon: FakeDaemon
) -> None:
    daemon.ended = {"ended": True, "expected": False, "cause": "killed by SIGKILL"}
    daemon.methods["trigger_all"] = _drop
    async with connected(kind) as client, client.attach("sim") as simulation:
        daemon.peers[0].close()
        with pytest.raises(HostLost, match="'sim' has ended: killed by SIGKILL"):
            await simulation.trigger_all()


@each_client
async def test_more_than_the_daemon_takes(
    kind: str, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon_api, "MAX_BYTES", 100_000)
    async with connected(kind) as client:
        with pytest.raises(EncodeError, match=r"arguments of create .* takes 100000 at most"):
            await client.create("sim", env_kwargs={"large": bytes(100_000)})
        assert (await client.status())["name"] == "default"


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"addr": 5}, "addr: 5 is not an address"),
    ({"addr": ("localhost", "x")}, "addr: .* is not an address"),
    ({"addr": ("localhost", 99999)}, "addr: .* is not an address"),
    ({"slave_addrs": 5.5}, "slave_addrs must be a list"),
    ({"slave_addrs": [5]}, "slave_addrs: 5 is not an address"),
    ({"slave_addrs": ["localhost:1"]}, "slave_addrs: 'localhost:1' is not an address"),
    ({"env_kwargs": [1]}, "env_kwargs must be a dict"),
    ({"slave_kwargs": [5]}, "slave_kwargs must be a dict"),
    ({"slave_kwargs": {"a": 1}}, "slave_kwargs must be a list"),
]


@pytest.mark.parametrize(("wrong", "text"), WRONG, ids=lambda value: str(value)[:40])
def test_what_a_simulation_cannot_be_created_with(
    daemon: FakeDaemon, wrong: dict[str, Any], text: str
) -> None:
    with connect_sync() as client, pytest.raises(BadValue, match=text):
        client.create("sim", **wrong)


def test_what_slaves_cannot_be_spawned_with(daemon: FakeDaemon) -> None:
    slave = [("localhost", 0)], "m:E", "m:M"
    with connect_sync() as client, client.attach("sim") as simulation:
        with pytest.raises(BadValue, match="slave_kwargs must be a list"):
            simulation.spawn_slaves(*slave, slave_kwargs="x")
        with pytest.raises(BadValue, match="slave_addrs must be a list"):
            simulation.spawn_slaves(5, *slave[1:])
        with pytest.raises(TypeError, match="folder must be a path or None, not 5"):
            client.close("sim", folder=5)  # type: ignore[arg-type]


@each_client
async def test_a_daemon_that_is_stopped(kind: str, daemon: FakeDaemon) -> None:
    """When `stop` returns, the daemon has let go of the connection."""
    ending = threading.Timer(0.05, lambda: daemon.peers[0].close())

    def stop(grace: float, payload: bytes) -> Any:
        ending.start()
        return [
            {"name": "sim", "pid": 7, "ended_by": "request", "payload": pack(SAVED)},
            {"name": "forced", "pid": 8, "ended_by": "kill", "signal": 9, "payload": None},
            {"name": "odd", "pid": 9, "ended_by": "request", "payload": pack("odd")},
        ]

    daemon.methods["stop"] = stop
    async with connected(kind) as client:
        asked, forced, odd = await client.stop()
        assert asked == {"name": "sim", "pid": 7, "ended_by": "request", "report": SAVED}
        assert asked["report"].saved == "all"
        (host,) = forced["report"]
        assert (host.address, host.signal, host.ended_by) == ("forced", 9, "kill")
        assert [report.pid for report in odd["report"]] == [9]
        assert "the report of 'odd' cannot be read here" in odd["report"].errors[0]
        if kind == "sync":
            assert client.plain._channel.lost
        else:
            assert client._channel.connection.closed.is_set()
        daemon.stop_listening()
        with pytest.raises(ConnectionLost, match="is gone"):
            await client.stop()
    ending.join()


@each_client
async def test_errors_that_the_host_tells_are_not_a_lost_host(
    kind: str, daemon: FakeDaemon
) -> None:
    def lose() -> None:
        raise ConnectionLost("no slave there", address="tcp://localhost:1/")

    daemon.methods["trigger_all"] = lose
    async with connected(kind) as client, client.attach("sim") as simulation:
        for _ in range(2):
            with pytest.raises(ConnectionLost, match="no slave there"):
                await simulation.trigger_all()


@each_client
async def test_after_the_disconnection(kind: str, daemon: FakeDaemon) -> None:
    async with connected(kind) as client:
        async with client.attach("sim") as simulation:
            assert await simulation.trigger_all(1, a=2) == [(1,), {"a": 2}]
            assert repr(getattr(simulation, "plain", simulation)).endswith(
                "Simulation 'sim' in the daemon 'default', host pid 100>"
            )
        with pytest.raises(ConnectionLost, match="no longer connected to the simulation 'sim'"):
            await simulation.trigger_all()
    with pytest.raises(ConnectionLost, match="no longer connected to the daemon 'default'"):
        await client.ls()


def test_a_blocking_client_must_not_suspend() -> None:
    class Suspends:
        def __await__(self) -> Generator[None, None, None]:
            yield

    async def wait() -> None:
        await Suspends()

    coroutine = wait()
    with pytest.raises(AssertionError, match="must not suspend"):
        base_client.run_blocking(coroutine)
    coroutine.close()


# ---- events


@each_client
async def test_events(kind: str, daemon: FakeDaemon) -> None:
    """They are asked for as they are used up; what was lost is reported."""
    kept: dict[int | None, Any] = {
        None: (10, []),
        10: (12, [(11, "steps", {}), (12, "steps", {})]),
        12: (12, []),  # an answer without any
        20: (22, [(21, "steps", {}), (22, "closing", {})]),
    }
    late = [(20, [(19, "steps", {}), (20, "slave_lost", {"pid": 1})])]

    def next_events(since: int | None = None, timeout: float | None = None) -> Any:
        if since == 12 and daemon.requests("next_events") > 3:
            return late[0]
        return kept[since]

    daemon.methods["next_events"] = next_events
    async with connected(kind) as client, client.attach("sim") as simulation:
        assert [event async for event in simulation.events()] == [
            (11, "steps", {}),
            (12, "steps", {}),
            (18, "gap", {"lost": 6}),
            (19, "steps", {}),
            (20, "slave_lost", {"pid": 1}),
            (21, "steps", {}),
            (22, "closing", {}),
        ]
        async for event in simulation.events(since=20):
            assert event == (21, "steps", {})
            break


@each_client
async def test_events_of_a_simulation_that_ends(kind: str, daemon: FakeDaemon) -> None:
    def end() -> None:
        raise ConnectionAbortedError

    daemon.methods["next_events"] = lambda *_: end()
    for expected in (True, False):
        daemon.ended = {"ended": True, "expected": expected, "cause": "gone"}
        async with connected(kind) as client, client.attach("sim") as simulation:
            events = simulation.events(5)
            error = StopAsyncIteration if expected else HostLost
            with pytest.raises(error):
                await anext(events)


# ---- the async client's blocks


class Mine(Exception):
    pass


@each_async_client
async def test_a_block_raises_its_own_error(kind: str, daemon: FakeDaemon) -> None:
    with pytest.raises(Mine) as caught:
        async with connected(kind) as client, client.attach("sim"):
            raise Mine
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    with pytest.raises(UnknownSimulation):
        async with connected(kind) as client, client.attach("none"):
            pass


@each_async_client
async def test_a_cancelled_block_closes(kind: str, daemon: FakeDaemon) -> None:
    async def cancel_when_it_hangs() -> None:
        await anyio.to_thread.run_sync(daemon.peers[-1].hanging.wait, 10)
        scope.cancel()

    with anyio.CancelScope() as scope:
        async with connected(kind) as client, client.attach("sim") as simulation:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(cancel_when_it_hangs)
                await simulation._call(_hang(simulation))
    assert scope.cancelled_caught
    assert daemon.peers[-1].cancelled
    await anyio.to_thread.run_sync(daemon.peers[-1].thread.join, 10)
    assert not daemon.peers[-1].thread.is_alive()


@each_async_client
async def test_calls_are_independent(kind: str, daemon: FakeDaemon) -> None:
    async with connected(kind) as client, client.attach("sim") as simulation:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(simulation._call, _hang(simulation))
            for n in range(50):
                assert await simulation.trigger_all(n) == [(n,), {}]
            tasks.cancel_scope.cancel()
        assert await simulation.trigger_all() == [(), {}]


def _hang(simulation: Any) -> Call:
    return Call(None, "hang", simulation._codec.encode(((), {})))


# ---- a create whose answer is on its way when its caller is cancelled


@each_async_client
async def test_a_cancelled_create_is_taken_back(kind: str, daemon: FakeDaemon) -> None:
    creating, cancelled = threading.Event(), threading.Event()
    tokens = _note_tokens(daemon, creating, cancelled)

    async def cancel() -> None:
        await anyio.to_thread.run_sync(creating.wait, 10)
        scope.cancel()
        cancelled.set()

    async with connected(kind) as client, anyio.create_task_group() as tasks:
        tasks.start_soon(cancel)
        with anyio.CancelScope() as scope:
            await client.create("new")
        assert scope.cancelled_caught
        assert tokens["undo_create"] == tokens["create"]


def test_an_interrupted_create_is_taken_back(daemon: FakeDaemon) -> None:
    creating, cancelled = threading.Event(), threading.Event()
    tokens = _note_tokens(daemon, creating, cancelled)

    def interrupt(number: int, frame: FrameType | None) -> None:
        cancelled.set()
        raise KeyboardInterrupt

    def signal_when_it_creates() -> None:
        assert creating.wait(10)
        os.kill(os.getpid(), signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, interrupt)
    signaller = threading.Thread(target=signal_when_it_creates)
    try:
        with connect_sync() as client:
            signaller.start()
            with pytest.raises(KeyboardInterrupt):
                client.create("new")
            assert tokens["undo_create"] == tokens["create"]
    finally:
        signaller.join()
        signal.signal(signal.SIGUSR1, before)


def test_what_a_late_create_makes_is_taken_back(
    daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base_client, "ROLLBACK_SECONDS", 10.0)
    creating, late = threading.Event(), threading.Event()
    tokens = _note_tokens(daemon, creating, late)
    with connect_sync() as client:
        client.timeout = 0.05
        timer = threading.Timer(0.6, late.set)  # past the time to acknowledge
        timer.start()
        with pytest.raises(DeadlineExceeded) as caught:
            client.create("new")
        timer.join()
        assert not caught.value.acknowledged
        assert tokens["undo_create"] == tokens["create"]


@each_client
async def test_a_create_that_is_refused_is_not_taken_back(kind: str, daemon: FakeDaemon) -> None:
    daemon.methods["create"] = lambda *args: daemon.fail("no")
    async with connected(kind) as client:
        with pytest.raises(UnknownSimulation):
            await client.create("new")
    assert daemon.requests("undo_create") == 0


def _note_tokens(
    daemon: FakeDaemon, creating: threading.Event, answer: threading.Event
) -> dict[str, str]:
    """Let creates begin, and answer on request; yields what they and the clean-up are given."""
    tokens = {}

    def create(*args: Any) -> dict[str, Any]:
        tokens["create"] = args[-1]
        creating.set()
        assert answer.wait(10)
        return {"name": "new", "pid": 1, "info": pack({})}

    def undo_create(name: str, token: str) -> None:
        tokens["undo_create"] = token

    daemon.methods.update(create=create, undo_create=undo_create)
    return tokens


# ---- the blocking client: time, threads and interrupts


def test_a_timeout_of_the_simulation(daemon: FakeDaemon) -> None:
    with connect_sync() as client, client.attach("sim") as simulation:
        simulation.timeout = 0.05
        with pytest.raises(DeadlineExceeded, match=r"did not finish in 0\.05 s") as caught:
            simulation.call_agent("tcp://localhost:1/1", "hang", (), {})
        assert caught.value.addresses == ["tcp://localhost:1/1"]
        assert caught.value.acknowledged
        assert simulation.trigger_all() == [(), {}]


def test_threads_take_turns(daemon: FakeDaemon) -> None:
    with connect_sync() as client, client.attach("sim") as simulation:
        answers: list[Any] = []

        def use(n: int) -> None:
            answers.extend(simulation.trigger_all(n, i)[0] for i in range(100))

        threads = [threading.Thread(target=use, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(answers) == [(n, i) for n in range(4) for i in range(100)]


def test_detaching_ends_the_call_of_another_thread(daemon: FakeDaemon) -> None:
    with connect_sync() as client:
        simulation = client.attach("sim")
        errors: list[Exception] = []

        def hang() -> None:
            try:
                simulation.call_agent("tcp://localhost:1/1", "hang", (), {})
            except ConnectionLost as error:
                errors.append(error)

        thread = threading.Thread(target=hang)
        thread.start()
        peer = daemon.peers[-1]
        assert peer.hanging.wait(10)
        simulation.timeout = 0.05
        with pytest.raises(DeadlineExceeded, match="other threads' calls") as caught:
            simulation.trigger_all()
        assert not caught.value.may_have_run
        simulation.detach()
        thread.join(10)
        assert "no longer connected" in str(errors[0])


@pytest.fixture
def broken(daemon: FakeDaemon) -> Iterator[tuple[SyncClient, Any]]:
    """A simulation whose connection an interrupt has just broken."""
    with connect_sync() as client, client.attach("sim") as simulation:
        connection = simulation._channel._connection
        assert connection is not None
        connection._intact = False
        yield client, simulation


def test_after_an_interrupt_it_attaches_again(
    daemon: FakeDaemon, broken: tuple[SyncClient, Any]
) -> None:
    _, simulation = broken
    assert simulation.trigger_all(1) == [(1,), {}]
    assert [peer.requests[0][1] for peer in daemon.peers] == ["status", "attach", "attach"]


def test_where_the_simulation_has_ended_since(
    daemon: FakeDaemon, broken: tuple[SyncClient, Any]
) -> None:
    _, simulation = broken
    del daemon.simulations["sim"]
    daemon.ended = {"ended": True, "expected": True, "cause": "closed"}
    with pytest.raises(HostLost, match="'sim' has ended: closed") as caught:
        simulation.trigger_all()
    assert not caught.value.may_have_run


def test_where_another_has_its_name_since(
    daemon: FakeDaemon, broken: tuple[SyncClient, Any]
) -> None:
    _, simulation = broken
    daemon.simulations["sim"] = 200
    with pytest.raises(HostLost, match="another of that name was created since"):
        simulation.trigger_all()


def test_the_daemon_too_is_connected_again(daemon: FakeDaemon) -> None:
    with connect_sync() as client:
        connection = client._channel._connection
        assert connection is not None
        connection.interrupt()
        assert client.status()["name"] == "default"


def test_a_signal_handler_that_calls(daemon: FakeDaemon) -> None:
    """The call that it interrupts is lost; the handler's own goes on."""
    inner: list[Any] = []
    with connect_sync() as client, client.attach("sim") as simulation:
        before = signal.signal(
            signal.SIGUSR1, lambda *_: inner.append(simulation.trigger_all("inner"))
        )
        try:
            threading.Timer(0.05, lambda: os.kill(os.getpid(), signal.SIGUSR1)).start()
            with pytest.raises(ConnectionLost):
                simulation.call_agent("tcp://localhost:1/1", "hang", (), {})
        finally:
            signal.signal(signal.SIGUSR1, before)
        assert inner == [[("inner",), {}]]
        assert simulation.trigger_all("outer") == [("outer",), {}]


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_interrupts_at_any_moment(daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each call returns its own answer or is interrupted; the next one always works."""
    # Some hit a destructor, which swallows them.
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    interrupted = calls = 0
    large = bytes(300_000)
    try:
        with connect_sync() as client, client.attach("sim") as simulation:
            end = time.monotonic() + 1.0
            while time.monotonic() < end:
                calls += 1
                sent = (calls, large if calls % 5 == 0 else b"")
                try:
                    signal.setitimer(signal.ITIMER_REAL, 1e-6 + (calls * 7919 % 1000) * 1e-6)
                    answer = simulation.trigger_all(*sent)
                    signal.setitimer(signal.ITIMER_REAL, 0)
                except KeyboardInterrupt:
                    interrupted += 1
                else:
                    assert answer == [sent, {}]
            signal.setitimer(signal.ITIMER_REAL, 0)
            assert simulation.trigger_all("end") == [("end",), {}]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert interrupted > 20

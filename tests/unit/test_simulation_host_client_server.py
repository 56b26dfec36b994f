"""What a host's clients can ask, and what of one concerns no other; without slaves."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, NoReturn

import msgpack
import pytest
import trio
import trio.testing

from creamas_sc import Artifact, Environment, MultiEnvironment, expose
from creamas_sc.errors import (
    AgentError,
    BadArguments,
    BadValue,
    CallRefused,
    ConnectionLost,
    CreamasError,
    DeadlineExceeded,
    EncodeError,
    NoSlaves,
    NotExposed,
    UnknownAgent,
    UnknownSimulation,
)
from creamas_sc.rpc.fd_passing import CLIENT, Handed
from creamas_sc.runtime.event_loop import adopt_running_loop
from creamas_sc.simulation_api import OPERATIONS, Kind
from creamas_sc.simulation_host import client_server as server_module
from creamas_sc.simulation_host.client_server import ClientServer
from creamas_sc.simulation_host.hosted_simulation import HostedSimulation
from creamas_sc.wire import codec
from creamas_sc.wire.codec import Codec
from creamas_sc.wire.frames import Kind as FrameKind
from creamas_sc.wire.frames import encode_frame
from tests.support.agents import Host
from tests.support.hosting import NAME, Client
from tests.support.values import Stranger

BOUND_SECONDS = 3600  # of the test's clock

Clock = trio.testing.MockClock


class Society(MultiEnvironment):
    """A user's own: agents are three numbers, and much of it raises."""

    cancelled = 0

    async def trigger_all(self, *args: Any, **kwargs: Any) -> list[Any]:
        async with self._steps.lock:
            try:
                await trio.sleep(1)
            except trio.Cancelled:
                type(self).cancelled += 1
                raise
            return [1, 2, 3]

    def get_slave_managers(self) -> NoReturn:
        raise SystemExit("no managers")

    def check_ready(self) -> bool:
        raise KeyboardInterrupt

    def get_connections(self, data: bool = True, as_coro: bool = False) -> Any:
        if not as_coro:
            raise RuntimeError("blocking")
        return ["connections", data]  # nothing to await

    def add_artifacts(self, artifacts: Any) -> NoReturn:
        raise ValueError("the user's own")

    @expose
    def double(self, n: int) -> int:
        return 2 * n

    @expose
    async def later(self, n: int) -> int:
        await trio.sleep(1)
        return n

    @expose
    def stranger(self) -> Any:
        return [Stranger()]

    @expose
    def leaves(self) -> NoReturn:
        raise GeneratorExit

    @expose
    async def leaves_later(self) -> NoReturn:
        await trio.sleep(1)
        raise GeneratorExit

    @expose
    def misuse(self) -> None:
        self.add_artifact(7)  # type: ignore[arg-type]

    def private(self) -> None:
        """Not for clients."""


class Odd(Society):
    """Whose properties raise."""

    @property
    def age(self) -> int:
        raise LookupError("no age")

    @age.setter
    def age(self, age: int) -> None:
        raise LookupError("no age")


class Hosting:
    """A simulation, its server, and clients of it."""

    def __init__(self, simulation: HostedSimulation, nursery: trio.Nursery) -> None:
        self.simulation = simulation
        self.server = ClientServer(simulation)
        self._nursery = nursery

    def client(self, backlog: bytes = b"") -> Client:
        """One that is attached."""
        ours, theirs = socket.socketpair()
        self._nursery.start_soon(self.server._welcome, Handed(CLIENT, "pid 1", backlog, theirs))
        client = Client(ours)
        self._nursery.start_soon(client.connection.run)
        return client


@asynccontextmanager
async def hosting(menv_cls: Callable[..., MultiEnvironment] = Society) -> AsyncIterator[Hosting]:
    """A simulation of ``menv_cls`` without slaves."""
    async with adopt_running_loop(), trio.open_nursery() as nursery:
        menv = menv_cls(("localhost", 0), Environment, Host, name=NAME, seed=3)
        await menv.env.open()  # in which a thread looks up a name: a clock that jumps is unbounded
        with trio.fail_after(BOUND_SECONDS):
            simulation = HostedSimulation(menv, NAME, nursery)
            yield Hosting(simulation, nursery)
            await menv.env.close(as_coro=True)
        nursery.cancel_scope.cancel()


@pytest.fixture
async def host() -> AsyncIterator[Hosting]:
    """A simulation without slaves, and its server."""
    async with hosting() as made:
        yield made


async def test_attaching(host: Hosting, autojump_clock: Clock) -> None:
    client = host.client()
    answer = await client("attach", NAME, {"pid": 1})
    assert answer["name"] == NAME
    assert answer["pid"] == os.getpid()
    assert answer["python"] == sys.version_info[:2]
    assert answer["progress"]["clients"] == 1
    with pytest.raises(UnknownSimulation, match="this is 'sim', not 'other'"):
        await client("attach", "other", {})


async def test_a_request_that_was_read_before_the_handover(
    host: Hosting, autojump_clock: Clock
) -> None:
    client = host.client(_attach_frame()[:-3])
    await client.connection._stream.send(_attach_frame()[-3:])
    assert (await client("progress"))["clients"] == 1


def _attach_frame() -> bytes:
    body = Codec().encode(((NAME, {}), {})).body
    meta: bytes = msgpack.packb((None, "attach", None))
    return b"".join(encode_frame(FrameKind.REQUEST, 0, meta, body))


async def test_a_handover_that_is_no_protocol_is_closed(
    host: Hosting, autojump_clock: Clock
) -> None:
    client = host.client(b"\0" * 100)
    await client.connection.closed.wait()
    assert not host.simulation.clients


async def test_properties_and_their_setting(host: Hosting, autojump_clock: Clock) -> None:
    client = host.client()
    assert await client("get_name") == NAME
    assert await client("get_seed") == 3
    assert await client("get_addrs") == []
    assert await client("get_in_step") is False
    assert await client("set_age", age=5) is None
    assert await client("get_age") == 5


async def test_artifacts(host: Hosting, autojump_clock: Clock) -> None:
    client = host.client()
    for i in range(5):
        await client("add_artifact", Artifact("ab"[i % 2], i))
    assert [a.obj for a in await client("get_artifacts")] == [0, 1, 2, 3, 4]
    assert [a.obj for a in await client("get_artifacts", since=1, limit=2)] == [1, 2]
    assert [a.obj for a in await client("get_artifacts", "a", since=1)] == [2, 4]
    assert await client("get_artifacts", since=9) == []
    for wrong in ({"since": -1}, {"limit": -1}, {"since": None}, {"limit": 1.5}):
        with pytest.raises(BadValue, match="must be an int of at least 0"):
            await client("get_artifacts", **wrong)


async def test_what_has_two_forms_is_asked_for_the_async_one(
    host: Hosting, autojump_clock: Clock
) -> None:
    client = host.client()
    assert await client("get_connections", data=False) == ["connections", False]
    with pytest.raises(NoSlaves, match="there are no slaves"):
        await client("get_agents")


async def test_any_error_in_the_users_code_is_reported(
    host: Hosting, autojump_clock: Clock
) -> None:
    client = host.client()
    for method, args, name in (
        ("get_slave_managers", (), "SystemExit"),
        ("is_ready", (), "KeyboardInterrupt"),
        ("add_artifacts", ([],), "ValueError"),
    ):
        with pytest.raises(AgentError) as caught:
            await client(method, *args)
        assert caught.value.type_name == name
        assert caught.value.address == host.simulation.address
    assert await client("get_name") == NAME


async def test_a_class_whose_properties_raise(autojump_clock: Clock) -> None:
    async with hosting(Odd) as host:
        client = host.client()
        with pytest.raises(AgentError, match="LookupError"):
            await client("get_age")
        with pytest.raises(AgentError, match="LookupError"):
            await client("set_age", 5)
        assert (await client("progress"))["age"] == 0
        assert host.simulation.describe()["state"] == "idle"
        await client("start_steps", 1)
        assert (await client("wait_steps"))["state"] == "failed"


async def test_what_does_not_fit(host: Hosting, autojump_clock: Clock) -> None:
    client = host.client()
    for method, args in (("get_name", (1,)), ("set_age", ()), ("resume", (1,)), ("connect", ())):
        with pytest.raises(BadArguments, match=method):
            await client(method, *args)
    with pytest.raises(CallRefused, match="no operation 'nonsense'"):
        await client("nonsense")
    with pytest.raises(CallRefused, match="not an agent's address"):
        await client.connection.call(3, "act", client.codec.encode(((), {})))
    with pytest.raises(BadArguments, match="expected"):
        await client.connection.call(None, "get_name", client.codec.encode("odd"))
    with pytest.raises(BadValue):
        await client("next_events", -1)


async def test_a_subclass_s_own_methods(host: Hosting, autojump_clock: Clock) -> None:
    client = host.client()
    assert await client("call", "double", 4) == 8
    assert await client("call", "later", n=4) == 4
    for name in ("private", "close", "nothing", "trigger_all", "_net"):
        with pytest.raises(NotExposed, match="no method"):
            await client("call", name)
    with pytest.raises(BadArguments, match=r"double\(n: .int.\)"):
        await client("call", "double", 1, 2)
    with pytest.raises(AgentError, match="Stranger"):
        await client("call", "stranger")
    with pytest.raises(AgentError) as caught:  # the user's mistake, not the client's
        await client("call", "misuse")
    assert caught.value.type_name in ("AttributeError", "TypeError")


async def test_agents_of_the_master_environment(host: Hosting, autojump_clock: Clock) -> None:
    client = host.client()
    address = f"{host.simulation.address}0"
    manager = await client("connect", address)
    assert await manager.handle((1, 2)) == ("heard", (1, 2))
    with pytest.raises(NotExposed):
        await manager.nothing()
    with pytest.raises(UnknownAgent):
        await client.call_agent(f"{host.simulation.address}7", "act", (), {})
    with pytest.raises(BadValue, match="agent's address"):
        await client.call_agent("nonsense", "act", (), {})


async def test_steps_and_their_events(host: Hosting, autojump_clock: Clock) -> None:
    one, other = host.client(), host.client()
    number, _ = await other("next_events")
    assert (await one("start_steps", 3, "x"))["state"] == "stepping"
    assert (await one("wait_steps"))["step"] == 3
    last, events = await other("next_events", number)
    assert [details["step"] for _, name, details in events if name == "steps"] == [0, 1, 2, 3, 3]
    assert (await one("pause"))["state"] == "idle"
    with pytest.raises(CreamasError, match="no steps to resume"):
        await one("resume")
    assert await one("next_events", last, 2.5) == (last, [])
    await one("start_steps")
    with pytest.raises(DeadlineExceeded, match="still stepping"):
        await one("wait_steps", timeout=2)


async def test_a_client_that_vanishes_cancels_its_own_calls_only(
    host: Hosting, autojump_clock: Clock
) -> None:
    Society.cancelled = 0
    one, other = host.client(), host.client()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_expect_lost, one, "trigger_all")
        await trio.testing.wait_all_tasks_blocked()
        await other("start_steps", 2)
        one.connection.abort()
    assert (await other("wait_steps"))["state"] == "idle"
    assert Society.cancelled == 1
    assert (await other("progress"))["clients"] == 1


async def _expect_lost(client: Client, *call: Any) -> None:
    with pytest.raises(ConnectionLost):
        await client(*call)


async def test_a_call_s_deadline_cancels_it_here(host: Hosting, autojump_clock: Clock) -> None:
    Society.cancelled = 0
    client = host.client()
    await client("get_name")
    payload = client.codec.encode(((), {}))
    with pytest.raises(DeadlineExceeded):
        await client.connection.call(None, "trigger_all", payload, timeout=0.5)
    assert Society.cancelled == 1


async def test_there_is_room_for_so_many(
    host: Hosting, autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "MAX_CLIENTS", 2)
    clients = [host.client() for _ in range(2)]
    for client in clients:
        await client("get_name")
    late = host.client()
    with pytest.raises(CallRefused, match="has 2 clients already"):
        await late("attach", NAME, {})
    await late.connection.closed.wait()
    await clients[0].connection.aclose()
    await trio.testing.wait_all_tasks_blocked()
    assert await host.client()("get_name") == NAME


async def test_one_that_is_turned_away_and_says_nothing(
    host: Hosting, autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "MAX_CLIENTS", 0)
    began = trio.current_time()
    await host.client().connection.closed.wait()
    assert trio.current_time() - began == pytest.approx(server_module.REFUSE_SECONDS)


async def test_calls_are_numbered_in_the_log(host: Hosting, autojump_clock: Clock) -> None:
    structlog = pytest.importorskip("structlog")
    bound = []

    def note(self: Any) -> list[str]:
        bound.append(structlog.contextvars.get_contextvars())
        return []

    host.simulation._menv.__class__ = type("Noting", (Society,), {"get_slave_managers": note})
    one = host.client()
    await one("get_name")
    await one("get_slave_managers")
    await host.client()("get_slave_managers")
    assert [ids["request"] for ids in bound] == ["c1-2", "c2-1"]


async def test_a_wrong_argument_is_told_as_such(host: Hosting, autojump_clock: Clock) -> None:
    client = host.client()
    for method, args, error, text in (
        ("connect", (None,), BadArguments, "addr must be a str"),
        ("connect", ("tcp://localhost:99999/0",), BadValue, "addr: .* at most 65535"),
        ("connect", ("tcp://localhost:1/0", "x"), BadValue, "timeout must be"),
        ("set_host_manager", (5,), BadArguments, "addr must be a str"),
        ("set_host_managers", (float("nan"),), BadValue, "timeout must be"),
        ("add_artifact", (5,), BadArguments, "artifact must be an Artifact"),
        ("stop_slaves", ("x",), BadValue, "timeout must be"),
        ("set_age", ("x",), BadArguments, "age must be an int"),
        ("close", (5,), BadArguments, "folder must be a path"),
    ):
        with pytest.raises(error, match=text):
            await client(method, *args)
    assert not host.simulation.shutdown.requested.is_set()


async def test_a_client_has_so_many_calls(
    host: Hosting, autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "MAX_CALLS", 2)
    client = host.client()
    async with trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(client, "call", "later", 1)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(CallRefused, match="2 calls are in flight"):
            await client("get_name")


async def test_close_answers_all_who_asked(host: Hosting, autojump_clock: Clock) -> None:
    clients = [host.client() for _ in range(3)]
    reports: list[Any] = []

    async def close(client: Client, method: str) -> None:
        reports.append(await client(method))

    async with trio.open_nursery() as nursery:
        await clients[0]("start_steps")
        nursery.start_soon(_expect_lost, clients[0], "call", "later", 5)
        await trio.testing.wait_all_tasks_blocked()
        for client, method in zip(clients[1:], ("close", "destroy"), strict=True):
            nursery.start_soon(close, client, method)
        await host.simulation.shutdown.requested.wait()
        last, events = await clients[1]("next_events", 0)
        assert events[-1] == (last, "closing", {"cause": "closed"})
        await host.simulation.close()
        await host.simulation.shutdown.wait_answered()
        await host.server.aclose()
        nursery.cancel_scope.cancel()
    assert reports == [[], []]
    with pytest.raises(CallRefused, match="is closing"):
        await host.client()("attach", NAME, {})


def test_every_operation_is_there() -> None:
    for operation in OPERATIONS.values():
        owner = HostedSimulation if operation.kind is Kind.HOST else MultiEnvironment
        assert hasattr(owner, operation.attribute), operation


async def test_artifacts_that_are_too_many_for_a_message_come_in_pages(
    host: Hosting, monkeypatch: pytest.MonkeyPatch, autojump_clock: Clock
) -> None:
    monkeypatch.setattr(codec, "MAX_VALUE_BYTES", 1 << 20)
    client = host.client()
    artifacts = [Artifact("me", bytes(300_000 + n)) for n in range(4)]
    for artifact in artifacts:
        await client("add_artifact", artifact)
    with pytest.raises(EncodeError, match=r"get_artifacts: 1,200.*since and limit"):
        await client("get_artifacts")
    pages = [await client("get_artifacts", since=n, limit=2) for n in (0, 2)]
    assert pages == [artifacts[:2], artifacts[2:]]


@pytest.mark.parametrize("method", ["leaves", "leaves_later"])
async def test_a_users_generator_exit_ends_nothing(
    host: Hosting, method: str, autojump_clock: Clock
) -> None:
    client = host.client()
    with pytest.raises(AgentError, match="GeneratorExit"):
        await client("call", method)
    assert (await client("progress"))["clients"] == 1

"""Environments in this process: their agents, their end, and calls between two over loopback."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import msgpack
import pytest
import trio
import trio.testing
from anyio.abc import SocketAttribute

from creamas_sc import Artifact, CreativeAgent, Environment, Proxy, Simulation, expose, run
from creamas_sc.core import listener
from creamas_sc.errors import (
    AgentError,
    AgentErrors,
    BadArguments,
    ConnectionLost,
    EncodeError,
    HandshakeError,
    NotExposed,
    StartError,
    UnknownAgent,
    agent_errors,
)
from creamas_sc.mp import EnvManager
from creamas_sc.rpc import accepting, addresses, endpoint, network
from creamas_sc.rpc.accepting import MOST_REASONS
from creamas_sc.rpc.addresses import split_address
from creamas_sc.rpc.connection import Connection, Request
from creamas_sc.rpc.sealed_stream import SealedStream
from creamas_sc.rpc.socket_folder import SocketFolder
from creamas_sc.runtime.event_loop import adopt_running_loop
from creamas_sc.runtime.timeouts import HANDSHAKE_SECONDS, LOOK_SECONDS
from creamas_sc.wire.codec import Payload
from creamas_sc.wire.frames import Kind, encode_frame
from creamas_sc.wire.handshake import Handshake, Identity
from creamas_sc.wire.sealing import RecordWriter
from tests.support.agents import Counter, Echo, Raises
from tests.support.streams import connect_to, stranger_at
from tests.support.values import Stranger

BOUND_SECONDS = 20

ANY_PORT = ("localhost", 0)


class Noting(Environment):
    """Notes the order of its end."""

    noted: list[str]

    def save_info(self, folder: str | None, *args: Any, **kwargs: Any) -> Any:
        self.noted = [f"saved in {folder}"]
        return "what was saved"


class Nests(CreativeAgent):
    """Waits in a nursery, one task of which may fail as it is cancelled."""

    @expose
    async def act(self, *, fail: bool = False) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._wait, fail)
            await trio.sleep_forever()

    async def close(self, folder: str | None = None) -> None:
        await self.act(fail=True)

    async def _wait(self, fail: bool) -> None:
        try:
            await trio.sleep_forever()
        finally:
            if fail:
                raise ValueError("beside")


class Fails(CreativeAgent):
    @expose
    async def step(self) -> None:
        """Fail as a step of others that it takes within a nursery."""
        error = AgentError(address=self.addr, type_name="ValueError", message="no")
        async with trio.open_nursery():
            raise agent_errors("failed", {self.addr: error}, [])


class Closes(CreativeAgent):
    @expose
    async def close(self, folder: str | None = None) -> None:
        await trio.lowlevel.checkpoint()
        self.env.noted.append(f"{split_address(self.addr)[2]} in {folder}")  # type: ignore[attr-defined]


@asynccontextmanager
async def environments(count: int = 1, cls: type[Environment] = Environment) -> AsyncIterator[Any]:
    """Environments at home in the test's own loop, bounded and closed."""
    with trio.fail_after(BOUND_SECONDS):
        async with adopt_running_loop():
            envs = [await cls.create(ANY_PORT, as_coro=True) for _ in range(count)]
            try:
                yield envs[0] if count == 1 else envs
            finally:
                for env in envs:
                    await env.close(as_coro=True)


@pytest.fixture
def env() -> Iterator[Environment]:
    """An environment as a plain script has it."""
    env = Environment.create(ANY_PORT)
    yield env
    env.close()


# ---- making


def test_create_in_a_plain_script(env: Environment) -> None:
    port = split_address(env.base_url + "0")[1]
    assert port > 0
    assert env.base_url == f"tcp://localhost:{port}/" == env.name
    with connect_to(env.base_url):
        pass
    with pytest.raises(ConnectionRefusedError):  # there are others on the network
        socket.create_connection(("localhost", port))


@pytest.mark.parametrize("runner", [asyncio.run, lambda coroutine: trio.run(lambda: coroutine)])
def test_create_in_an_async_one(runner: Callable[..., Any]) -> None:
    async def main() -> Any:
        env = await Environment.create(ANY_PORT, name="mine", as_coro=True)
        assert await env.trigger_all() == []
        await env.close(as_coro=True)
        return env

    assert runner(main()).name == "mine"


async def test_create_on_a_home_loop_names_the_async_form() -> None:
    async with adopt_running_loop():
        with pytest.raises(RuntimeError, match="as_coro=True"):
            Environment.create(ANY_PORT)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1"])
def test_addresses(host: str) -> None:
    env = Environment.create((host, 0))
    addrs = [Echo(env).addr for _ in range(3)]
    assert [split_address(addr)[2] for addr in addrs] == [0, 1, 2]
    assert {split_address(addr)[0] for addr in addrs} == {host}
    assert run(env.connect(addrs[1])).addr == addrs[1]
    env.close()


async def test_a_taken_port_names_the_address() -> None:
    async with environments() as env:
        port = split_address(env.base_url + "0")[1]
        with pytest.raises(StartError, match=f"localhost:{port}: the port is taken"):
            await Environment.create(("localhost", port), as_coro=True)


@pytest.mark.parametrize(
    "addr", [("no.such.host.invalid", 0), ("localhost", 1 << 20), ("localhost", -1)]
)
async def test_an_address_that_cannot_be_had(addr: tuple[str, int]) -> None:
    with pytest.raises(StartError, match=f"{addr[0]}:{addr[1]}"):
        await Environment.create(addr, as_coro=True)


async def test_agents_made_before_it_listens_get_the_port() -> None:
    async with adopt_running_loop():
        env = Environment(ANY_PORT)
        agent = Echo(env)
        assert agent.addr == "tcp://localhost:0/0"
        await env.open()
        assert agent.addr == f"{env.base_url}0" != "tcp://localhost:0/0"
        await env.close(as_coro=True)


async def test_opening_at_once_listens_once(monkeypatch: pytest.MonkeyPatch) -> None:
    bound = []

    async def bind(*place: Any) -> Any:
        await trio.testing.wait_all_tasks_blocked()
        bound.append(await addresses.bind(*place))
        return bound[-1]

    monkeypatch.setattr(listener, "bind", bind)
    async with adopt_running_loop():
        env = Environment(ANY_PORT)
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(env.open)
        await env.close(as_coro=True)
        for port in bound[1:]:
            port.close()
    assert len(bound) == 1


async def test_a_closed_environment_stays_closed() -> None:
    async with adopt_running_loop():
        env = Environment(ANY_PORT)
        agent = Echo(env)
        await env.close(as_coro=True)
        with pytest.raises(ConnectionLost, match="closed"):
            await env.connect(agent.addr)
        with pytest.raises(ConnectionLost, match="closed"):
            await env.open()


# ---- agents


def test_get_agents(env: Environment) -> None:
    agents = [Echo(env), Counter(env), Echo(env)]
    addrs = [agent.addr for agent in agents]
    assert env.get_agents() == addrs
    assert env.get_agents(addr=False) == agents
    assert env.get_agents(addr=False, agent_cls=Echo) == [agents[0], agents[2]]
    assert env.get_agents(agent_cls=CreativeAgent) == []
    assert [env.get_agent(addr) for addr in addrs] == agents


def test_the_manager_is_left_out(env: Environment) -> None:
    env.manager = manager = EnvManager(env)
    agent = Echo(env)
    assert split_address(manager.addr)[2] == 0
    assert env.get_agents(addr=False) == [agent]
    assert env.get_agents(addr=False, include_manager=True) == [manager, agent]
    assert run(env.trigger_all(1)) == [((1,), {})]
    assert [addr for addr, _ in env.get_connections()] == [agent.addr]
    assert env.get_random_agent(object()) is agent  # type: ignore[arg-type]


def test_agents_that_are_not_there(env: Environment) -> None:
    agent = Echo(env)
    with pytest.raises(KeyError, match="there is no agent"):
        env.get_agent(f"{env.base_url}7")
    with pytest.raises(ValueError, match="is not in this environment"):
        env.get_agent("tcp://localhost:1/0")
    digits = "9" * 5000
    bad = ["", "localhost:1/0", "tcp://localhost/0", "tcp://localhost:x/0", f"{agent.addr}x"]
    for addr in [*bad, f"tcp://localhost:{digits}/1", f"{env.base_url}{digits}"]:
        with pytest.raises(ValueError, match="is not an agent's address"):
            env.get_agent(addr)
    with pytest.raises(ValueError, match="has no agent besides"):
        env.get_random_agent(agent)


# ---- acting


async def test_trigger_act() -> None:
    async with environments() as env:
        agent = Echo(env)
        assert await env.trigger_act(1, agent=agent, b=2) == ((1,), {"b": 2})
        assert await env.trigger_act(addr=agent.addr) == ((), {})
        with pytest.raises(TypeError, match="addr or agent"):
            await env.trigger_act(1)
        with pytest.raises(KeyError):
            await env.trigger_act(addr=f"{env.base_url}9")


async def test_trigger_all() -> None:
    async with environments() as env:
        for start in (0, 10, 20):
            Counter(env, start)
        assert await env.trigger_all() == [1, 11, 21]
        assert await env.trigger_all() == [2, 12, 22]


@pytest.mark.parametrize("kind", ["value", "exit"])
async def test_trigger_all_tells_who_failed_and_keeps_the_rest(kind: str) -> None:
    async with environments() as env:
        agents = [Counter(env), Raises(env, kind, "act"), Counter(env, 5)]
        with pytest.raises(AgentErrors, match="1 of the agents failed to act") as caught:
            await env.trigger_all()
        (failure,) = caught.value.failures.values()
        assert failure.address == agents[1].addr
        assert failure.message == "raised in act"
        assert "Traceback" in failure.traceback_text
        assert caught.value.results == [1, 6]


def test_an_act_may_be_a_plain_method(env: Environment) -> None:
    class Plain(CreativeAgent):
        @expose
        def act(self, *args: Any, **kwargs: Any) -> Any:
            return args

    agent = Plain(env)
    assert run(env.trigger_act(1, agent=agent)) == (1,)
    assert run(env.trigger_all(2)) == [(2,)]
    assert Simulation(env).step() == [()]


async def test_an_overridden_trigger_act_is_used() -> None:
    class Twice(Environment):
        async def trigger_act(self, *args: Any, **kwargs: Any) -> Any:
            return await super().trigger_act(*args, **kwargs), "through mine"

    async with environments(cls=Twice) as env:
        Counter(env)
        assert await env.trigger_all() == [(1, "through mine")]


# ---- connections


def test_connections(env: Environment) -> None:
    one, two, three = (Echo(env).addr for _ in range(3))
    elsewhere = "tcp://localhost:1/1"
    made = env.create_connections(
        {one: [(two, {"a": 1}), (elsewhere, {})], three: [(one, {}), (one, {})], elsewhere: []}
    )
    assert made == [[True, True], [True, False]]
    assert env.get_connections() == [
        (one, {two: {"a": 1}, elsewhere: {}}),
        (two, {}),
        (three, {one: {}}),
    ]
    assert env.get_connections(data=False) == [(one, [two, elsewhere]), (two, []), (three, [one])]
    env.clear_connections()
    assert [connections for _, connections in env.get_connections()] == [{}, {}, {}]


@pytest.mark.parametrize("n", [1, 3, 5, 100])
def test_random_connections(env: Environment, n: int) -> None:
    agents = [Echo(env) for _ in range(6)]
    env.create_random_connections(n)
    for agent in agents:
        known = agent.get_connections()
        assert agent.addr not in known
        assert len(known) == min(n, 5)


@pytest.mark.parametrize("own_rng", [False, True])
def test_a_seed_repeats_random_connections_and_agents(own_rng: bool) -> None:
    numpy = pytest.importorskip("numpy")
    drawn = []
    for seed in (1, 1, 2):
        env = Environment(("localhost", 0))
        env.seed = seed
        agents = [Echo(env) for _ in range(9)]
        for agent in agents:
            if own_rng:
                agent.rng = numpy.random.default_rng([seed, agent.number])
        env.create_random_connections(4)
        known = [agent.get_connections() for agent in agents]
        random = [env.get_random_agent(agent).addr for agent in agents]
        drawn.append((known, random))
        for agent, others in zip(agents, known, strict=True):
            assert agent.addr not in others
            assert len(set(others)) == 4
    assert drawn[0] == drawn[1] != drawn[2]


def test_random_connections_are_evenly_drawn() -> None:
    env = Environment(("localhost", 0))
    env.seed = 1
    agents = [Echo(env) for _ in range(6)]
    counts: dict[tuple[str, str], int] = {}
    for _ in range(1000):
        env.clear_connections()
        env.create_random_connections(2)
        for pair in [(agent.addr, addr) for agent in agents for addr in agent.connections]:
            counts[pair] = counts.get(pair, 0) + 1
    assert len(counts) == 30
    assert all(330 < count < 470 for count in counts.values())


def test_numbers_of_agents() -> None:
    env = Environment(("localhost", 0))
    agents = [Echo(env) for _ in range(3)]
    agents[0]._order, agents[1]._order = (1, 0), 1
    by_number = [(agents[i].addr, agents[i].number) for i in (1, 0, 2)]
    assert list(env.get_numbers().items()) == by_number


@pytest.mark.parametrize(
    ("n", "error"), [(0, ValueError), (-1, ValueError), (1.0, TypeError), ("1", TypeError)]
)
def test_random_connections_of_no_number(env: Environment, n: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="n must be"):
        env.create_random_connections(n)


# ---- artifacts, age, logs


def test_artifacts(env: Environment) -> None:
    one, two = Echo(env), Echo(env)
    artifacts = [Artifact(one, 1), Artifact(two, 2), Artifact(one, 3)]
    env.age = 4
    env.add_artifact(artifacts[0])
    env.age = 5
    env.add_artifacts(artifacts[1:])
    assert env.artifacts == artifacts
    assert [artifact.env_time for artifact in artifacts] == [4, 5, 5]
    assert run(env.get_artifacts()) == artifacts
    assert run(env.get_artifacts(agent=one)) == [artifacts[0], artifacts[2]]


def test_a_log_folder_makes_a_logger(tmp_path: Path) -> None:
    env = Environment.create(ANY_PORT, log_folder=str(tmp_path))
    assert env.logger is not None
    assert env.log_folder == str(tmp_path)
    with pytest.raises(TypeError, match="log_folder must be a str"):
        env.log_folder = tmp_path
    env.close()
    for handler in env.logger.logger.handlers[:]:
        handler.close()


# ---- the end


def test_close_saves_and_then_closes_in_order(tmp_path: Path) -> None:
    there = tmp_path / "of" / "all"
    env = Noting.create(ANY_PORT)
    for _ in range(3):
        Closes(env)
    assert env.close(folder=there) == "what was saved"
    assert env.noted == [f"saved in {there}", *(f"{n} in {there}" for n in range(3))]
    assert there.is_dir()
    assert env.close() is None
    with pytest.raises(FileNotFoundError):
        connect_to(env.base_url)


def test_an_agents_own_close_is_called_wherever_it_is_from(tmp_path: Path) -> None:
    env = Environment.create(ANY_PORT)
    folders: list[str | None] = []
    CreativeAgent(env)
    vars(CreativeAgent(env))["close"] = lambda folder: folders.append(folder)
    env.close(folder=str(tmp_path))
    assert folders == [str(tmp_path)]


@pytest.mark.parametrize("kind", ["value", "exit", "interrupt"])
def test_close_closes_all_and_then_tells_who_failed(kind: str) -> None:
    env = Noting.create(ANY_PORT)
    failing, other = Raises(env, kind, "close"), Closes(env)
    with pytest.raises(AgentErrors, match="1 of the agents failed to close") as caught:
        env.close()
    assert list(caught.value.failures) == [failing.addr]
    assert env.noted == ["saved in None", f"{split_address(other.addr)[2]} in None"]
    with pytest.raises(FileNotFoundError):
        connect_to(env.base_url)


def test_save_info_that_fails_is_told_by_the_environments_address() -> None:
    class Failing(Noting):
        def save_info(self, folder: str | None, *args: Any, **kwargs: Any) -> Any:
            super().save_info(folder)
            raise OSError("disk full")

    env = Failing.create(ANY_PORT)
    Closes(env)
    with pytest.raises(AgentErrors) as caught:
        env.close()
    assert {a: e.message for a, e in caught.value.failures.items()} == {env.base_url: "disk full"}
    assert env.noted == ["saved in None", "0 in None"]


@pytest.mark.parametrize("value", [3, "ab", ("ab", "cd"), [[], {}, None]])
async def test_what_is_sent_must_be_arguments(value: Any) -> None:
    async with adopt_running_loop():
        env = await Environment.create(ANY_PORT, as_coro=True)
        echo = Echo(env)
        payload = env.network.codec.encode(value)
        request = Request(cast("Connection", None), echo.addr, "evaluate", payload, None)
        with pytest.raises(BadArguments, match="expected \\(args, kwargs\\)"):
            await env.network.relay(echo.addr, request)


async def test_a_cancelled_close_closes() -> None:
    async with adopt_running_loop():
        one = await Environment.create(ANY_PORT, as_coro=True)
        other = await Environment.create(ANY_PORT, as_coro=True)
        assert await (await one.connect(Echo(other).addr)).evaluate(1) == 1
        # More than the socket takes at once, so that there is something to wait for.
        link = await one.network.endpoint.connection(other.base_url)
        link.post("news", Payload(bytes(1 << 24)))
        with trio.CancelScope() as scope:
            scope.cancel()
            await one.close(as_coro=True)
        with pytest.raises(FileNotFoundError):
            connect_to(one.base_url)
        await other.close(as_coro=True)


def test_destroy_warns(env: Environment) -> None:
    with pytest.warns(DeprecationWarning, match="use close") as caught:
        env.destroy()
    assert caught[0].filename == __file__


# ---- calls within an environment


class Local(Echo):
    @expose
    def takes_two(self, a: int, b: int = 2) -> int:
        return a + b

    @expose
    def same(self, value: Any) -> bool:
        return value is self.known

    known: Any = None

    @property
    def ends_the_process(self) -> Any:
        raise SystemExit("a property was run")


async def test_no_property_is_run_for_others() -> None:
    async with environments(2) as (here, there):
        for env in (here, there):
            agent = Local(env)
            proxy = await here.connect(agent.addr)
            with pytest.raises(NotExposed, match="no exposed method 'ends_the_process'"):
                await proxy.ends_the_process()
            vars(agent)["given"] = expose(lambda: 1)
            assert await proxy.given() == 1
            vars(agent)["takes_two"] = lambda: 2  # not exposed, and in place of one that is
            with pytest.raises(NotExposed):
                await proxy.takes_two()


async def test_a_local_call_enforces_expose() -> None:
    async with environments() as env:
        proxy = await env.connect(Local(env).addr)
        assert isinstance(proxy, Proxy)
        assert await proxy.takes_two(1) == 3
        with pytest.raises(NotExposed, match=r"Local.secret of .* is not exposed"):
            await proxy.secret()
        for name in ("nothing", "_register", "connections"):
            with pytest.raises(NotExposed, match=f"no exposed method '{name}'"):
                await getattr(proxy, name)()
        with pytest.raises(BadArguments, match="takes_two"):
            await proxy.takes_two(1, 2, 3)
        with pytest.raises(AgentError, match=r"ValueError in .*: mine"):
            await proxy.fail("mine")
        with pytest.raises(UnknownAgent):
            await env.connect(f"{env.base_url}44")


@pytest.mark.parametrize("checked", [True, False])
async def test_local_calls_pass_the_codec_where_asked(
    checked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CREAMAS_CHECK_LOCAL", "1" if checked else "0")
    async with environments() as env:
        agent = Local(env)
        proxy = await env.connect(agent.addr)
        agent.known = value = [1, (2, 3)]
        assert await proxy.evaluate(value) == value
        assert await proxy.same(value) is not checked
        if checked:
            with pytest.raises(EncodeError, match=r"args\[0\]: .*Stranger"):
                await proxy.evaluate(Stranger())
            with pytest.raises(EncodeError, match=r"the reply of give_stranger.*Stranger"):
                await proxy.give_stranger()
        else:
            stranger = Stranger()
            assert await proxy.evaluate(stranger) is stranger


# ---- calls between environments


async def test_two_environments_call_each_other() -> None:
    async with environments(2) as (here, there):
        one, two = Echo(here), Echo(there)
        assert await one.ask(two.addr, {"x": (1, 2)}) == {"x": (1, 2)}
        assert await two.ask(one.addr, 3 + 4j) == 3 + 4j
        proxy = await here.connect(two.addr)
        # Through the other environment and back.
        assert await proxy.ask(one.addr, [1]) == [1]
        with pytest.raises(NotExposed):
            await proxy.secret()
        with pytest.raises(BadArguments):
            await proxy.evaluate()
        with pytest.raises(AgentError, match=r"ValueError in .*: theirs") as caught:
            await proxy.fail("theirs")
        assert caught.value.address == two.addr
        with pytest.raises(UnknownAgent):
            await here.connect(f"{there.base_url}9")
        assert await proxy.evaluate("still there") == "still there"


async def test_agents_travel_as_proxies() -> None:
    async with environments(2) as (here, there):
        one, two = Echo(here), Echo(there)
        returned = await (await here.connect(two.addr)).evaluate(one)
        assert returned == await there.connect(one.addr)
        assert returned.addr == one.addr
        assert await returned.evaluate(5) == 5


async def test_the_other_environment_closes() -> None:
    async with environments(2) as (here, there):
        proxy = await here.connect(Echo(there).addr)
        await there.close(as_coro=True)
        with pytest.raises(ConnectionLost):
            await proxy.evaluate(1)


async def test_connect_with_nobody_there() -> None:
    async with environments() as env:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        addr = f"tcp://localhost:{port}/0"
        with pytest.raises(ConnectionLost, match=f"nothing listens at tcp://localhost:{port}/"):
            await env.connect(addr)
        with pytest.raises(ConnectionLost, match="nothing listens"):
            await env.connect(addr, timeout=0.05)
        with pytest.raises(ValueError, match="is not an agent's address"):
            await env.connect("tcp://localhost")


async def test_connecting_again_and_again_can_be_cancelled() -> None:
    async with environments() as env:
        addr = Echo(env).addr
        with trio.move_on_after(0.01) as scope:
            for _ in range(100_000):
                await env.connect(addr)
        assert scope.cancelled_caught


async def test_connecting_again_and_again_lets_others_run() -> None:
    async with environments() as env, trio.open_nursery() as nursery:
        made: list[Echo] = []

        async def make() -> None:
            made.append(Echo(env))

        nursery.start_soon(make)
        for _ in range(100):
            with contextlib.suppress(UnknownAgent):
                await env.connect(f"{env.base_url}0")
                break
        assert made


@pytest.mark.parametrize("timeout", [BOUND_SECONDS, None])
async def test_connect_waits_until_somebody_listens(
    timeout: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = trio.Event()
    connect_once = SocketFolder.connect

    def connect(folder: SocketFolder, port: int) -> socket.socket:
        try:
            return connect_once(folder, port)
        except OSError:
            refused.set()
            raise

    monkeypatch.setattr(SocketFolder, "connect", connect)
    async with environments() as env:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        found: list[Proxy] = []

        async def seek() -> None:
            found.append(await env.connect(f"tcp://localhost:{port}/0", timeout=timeout))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(seek)
            await refused.wait()
            late = Environment(("localhost", port))
            Echo(late)
            await late.open()
        assert await found[0].evaluate(1) == 1
        await late.close(as_coro=True)


@pytest.mark.parametrize(("host", "family"), [("localhost", "AF_UNIX"), ("0.0.0.0", "AF_INET")])
async def test_by_unix_socket_within_a_machine_and_by_tcp_if_asked(host: str, family: str) -> None:
    async with environments(1) as one, adopt_running_loop():
        other = await Environment.create((host, 0), as_coro=True)
        far = await one.connect(Echo(other).addr)
        assert await far.evaluate(b"x" * 200_000) == b"x" * 200_000
        assert await (await other.connect(Echo(one).addr)).evaluate(1) == 1
        (stream,) = {link._stream for link in one.network.endpoint._links.values()}
        raw = getattr(stream, "_stream", stream).extra(SocketAttribute.raw_socket)
        assert raw.family.name == family
        assert isinstance(stream, SealedStream) == (family == "AF_INET")
        await other.close(as_coro=True)


async def test_what_a_relay_on_the_network_says_is_refused(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It lets both ends prove themselves, passes all on, and then speaks for one of them."""
    monkeypatch.setattr(addresses, "is_loopback", lambda _: False)
    monkeypatch.setattr(endpoint, "is_loopback", lambda _: False)
    streams: list[trio.SocketStream] = []

    async def copy(source: trio.SocketStream, sink: trio.SocketStream, both: trio.Nursery) -> None:
        with contextlib.suppress(trio.BrokenResourceError):
            async for data in source:
                await sink.send_all(data)
        both.cancel_scope.cancel()

    async def relay(caller: trio.SocketStream) -> None:
        called = await trio.open_tcp_stream("127.0.0.1", port)
        streams.append(called)
        async with caller, called, trio.open_nursery() as both:
            both.start_soon(copy, caller, called, both)
            both.start_soon(copy, called, caller, both)

    async with adopt_running_loop(), trio.open_nursery() as nursery:
        there = await Environment.create(("127.0.0.1", 0), as_coro=True)
        here = await Environment.create(("127.0.0.3", 0), as_coro=True)
        Echo(there)
        port = split_address(f"{there.base_url}0")[1]
        (listener,) = await trio.open_tcp_listeners(port, host="127.0.0.2")
        nursery.start_soon(trio.serve_listeners, relay, [listener])
        proxy = await here.connect(f"tcp://127.0.0.2:{port}/0")
        assert await proxy.evaluate("as sent") == "as sent"
        (link,) = there.network.endpoint._links.values()
        spawn = encode_frame(Kind.REQUEST, 99, msgpack.packb((0, "evaluate", None)), b"")
        record = RecordWriter(b"the relay's own key").seal(b"".join(spawn))
        await streams[0].send_all(b"".join(record))
        with trio.fail_after(BOUND_SECONDS):
            await link.closed.wait()
        assert "a record" in caplog.text
        with pytest.raises(ConnectionLost):
            await proxy.evaluate("after it")
        for env in (here, there):
            await env.close(as_coro=True)
        nursery.cancel_scope.cancel()


class TwoAddresses(trio.abc.HostnameResolver):
    """Knows one name, with an IPv6 address first, as the system has it for the most part."""

    async def getaddrinfo(self, host: Any, port: Any, *kinds: int) -> Any:
        assert host == b"named"
        return [
            *socket.getaddrinfo("::1", port, 0, *kinds[1:]),
            *socket.getaddrinfo("127.0.0.4", port, 0, *kinds[1:]),
        ]

    async def getnameinfo(self, sockaddr: Any, flags: int) -> Any:
        raise NotImplementedError


async def test_peers_look_for_an_environment_only_where_it_listens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At another address of the same name, the port may be another user's, who passes all on."""
    monkeypatch.setattr(addresses, "is_loopback", lambda _: False)
    trio.socket.set_custom_hostname_resolver(TwoAddresses())
    async with adopt_running_loop(), trio.open_nursery() as nursery:
        there = await Environment.create(("named", 0), as_coro=True)
        here = await Environment.create(("0.0.0.0", 0), as_coro=True)
        port = split_address(Echo(there).addr)[1]
        strangers: list[trio.SocketStream] = []

        async def note(stream: trio.SocketStream) -> None:
            strangers.append(stream)

        try:
            listeners = await trio.open_tcp_listeners(port, host="::1")
        except OSError:
            pytest.skip("there is no IPv6 here")
        nursery.start_soon(trio.serve_listeners, note, listeners)
        proxy = await here.connect(f"tcp://named:{port}/0")
        assert await proxy.evaluate("as sent") == "as sent"
        assert strangers == []
        for env in (here, there):
            await env.close(as_coro=True)
        nursery.cancel_scope.cancel()


async def test_another_user_in_an_environments_place(monkeypatch: pytest.MonkeyPatch) -> None:
    async with environments(2) as (here, there):
        uid = os.geteuid()
        monkeypatch.setattr(os, "geteuid", lambda: uid + 1)
        with pytest.raises(HandshakeError, match=f"of user {uid} listens at {there.base_url}"):
            await here.connect(Echo(there).addr)


async def test_a_socket_that_was_removed_is_put_back(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "mine"))
    async with environments(2) as (here, there):
        shutil.rmtree(tmp_path / "mine")
        (tmp_path / "mine").touch()  # in its way
        await trio.sleep(LOOK_SECONDS + 1)
        with pytest.raises(ConnectionLost, match="nothing listens"):
            await here.connect(Echo(there).addr)
        (tmp_path / "mine").unlink()
        await trio.sleep(LOOK_SECONDS + 1)
        assert await (await here.connect(Echo(there).addr)).evaluate(1) == 1
    assert not list((tmp_path / "mine" / "creamas" / "environments").iterdir())


async def test_another_environment_at_the_address_gets_no_proof(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with environments(3) as (here, gone, other):
        address, folder = Echo(gone).addr, other.network.endpoint._folder
        assert folder is not None
        await gone.close(as_coro=True)
        listener = folder.listen(split_address(address)[1])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(other.network.endpoint._accept_all, listener, nursery)
            with pytest.raises(HandshakeError, match=f"{other.base_url} answered, which was not"):
                await here.connect(address)
            await listener.aclose()


async def test_who_refuses_often_logs_seldom(caplog: pytest.LogCaptureFixture) -> None:
    async with environments() as env:
        for _ in range(20):
            async with stranger_at(env.base_url) as stranger:
                await stranger.send_all(b"GET / HTTP/1.1\r\n\r\n" * 10)
                with contextlib.suppress(trio.BrokenResourceError):
                    while await stranger.receive_some():
                        pass
    refused = [line for line in caplog.messages if "refused" in line]
    assert len(refused) == 2
    assert refused[1].startswith("refused 19 more connections; the last: ")


async def test_who_refuses_for_many_reasons_logs_seldom(caplog: pytest.LogCaptureFixture) -> None:
    async with environments() as env:
        for kind in range(40):
            async with stranger_at(env.base_url) as stranger:
                await stranger.send_all(bytes([0, 0, 0, 9, 100 + kind]) * 10)
                with contextlib.suppress(trio.BrokenResourceError):
                    while await stranger.receive_some():
                        pass
    refused = [line for line in caplog.messages if "refused" in line]
    assert len(set(refused)) == len(refused) == MOST_REASONS + 1
    assert refused[-1].startswith(f"refused {40 - MOST_REASONS} more connections; the last: ")


async def test_strangers_on_the_network_take_few_descriptors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(accepting, "MAX_STRANGERS", 2)
    async with adopt_running_loop():
        env = await Environment.create(("0.0.0.0", 0), as_coro=True)
        port = split_address(f"{env.base_url}0")[1]
        strangers = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(5)]
        with trio.fail_after(BOUND_SECONDS):
            for stranger in strangers[:-2]:
                with contextlib.suppress(trio.BrokenResourceError):
                    assert await stranger.receive_some() == b""
        assert len(env.network.endpoint._strangers) == 2
        other = await Environment.create(ANY_PORT, as_coro=True)
        local = await other.connect(Echo(env).addr.replace("0.0.0.0", "localhost"))
        assert await local.evaluate(1) == 1
        for stranger in strangers:
            await stranger.aclose()
        await other.close(as_coro=True)
        await env.close(as_coro=True)


async def test_silent_strangers_on_the_network_keep_no_peer_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(accepting, "MAX_STRANGERS", 2)
    monkeypatch.setattr(accepting, "STRANGER_SECONDS", 0.05)
    async with adopt_running_loop(), contextlib.AsyncExitStack() as strangers:
        env = await Environment.create(("0.0.0.0", 0), as_coro=True)
        port = split_address(f"{env.base_url}0")[1]
        other = await Environment.create(ANY_PORT, as_coro=True)
        for count in (2, 9):  # none of them had its time when the peer connects
            for _ in range(count):
                stranger = await trio.open_tcp_stream("127.0.0.1", port)
                await strangers.enter_async_context(stranger)
            with trio.fail_after(HANDSHAKE_SECONDS / 2):
                proxy = await other.connect(Echo(env).addr)
                assert await proxy.evaluate(count) == count
            other.network.endpoint.drop(env.base_url)
        assert "127.0.0.1" not in caplog.text
        assert "it proved nothing, and 2 more had connected" in caplog.text
        await other.close(as_coro=True)
        await env.close(as_coro=True)


async def test_strangers_on_the_network_learn_nothing_of_the_simulation() -> None:
    async with adopt_running_loop():
        env = await Environment.create(("0.0.0.0", 0), as_coro=True)
        port = split_address(f"{env.base_url}0")[1]
        stranger = Identity("guessed", bytes(32), "slave", "tcp://x:1/", 1)
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            for data in Handshake(stranger, client=True).data_to_send():
                await stream.send_all(data)
            answer = b"".join([bytes(data) async for data in stream])
        assert b"another simulation" in answer
        own = env.network.endpoint._identity
        for known in (own.simulation, own.role, str(own.pid), str(port)):
            assert known.encode() not in answer
        await env.close(as_coro=True)


async def test_many_peers_on_the_network_wait_for_each_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(accepting, "MAX_STRANGERS", 2)
    monkeypatch.setattr(accepting, "STRANGER_SECONDS", BOUND_SECONDS)
    async with environments(20) as envs, adopt_running_loop():
        far = await Environment.create(("0.0.0.0", 0), as_coro=True)
        address = Echo(far).addr
        with trio.fail_after(BOUND_SECONDS):
            async with trio.open_nursery() as nursery:
                for env in envs:
                    nursery.start_soon(env.connect, address)
        await far.close(as_coro=True)


async def test_a_loop_of_calls_within_an_environment_can_be_cancelled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(network, "YIELD_SECONDS", 0.0)
    async with environments() as env:
        proxy = await env.connect(Echo(env).addr)
        calls = 0
        with trio.CancelScope() as scope:
            while calls < 200:
                assert await proxy.evaluate(calls) == calls
                calls += 1
                if calls == 100:
                    scope.cancel()
        assert scope.cancelled_caught
        assert calls == 100


async def test_a_stranger_at_the_address() -> None:
    async def hang_up(stream: trio.SocketStream) -> None:
        await stream.aclose()

    async with environments() as env, trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, hang_up, [listener])
        port = listener.socket.getsockname()[1]
        with pytest.raises(ConnectionLost, match=f"{port}/ did not answer"):
            await env.connect(f"tcp://0.0.0.0:{port}/0")
        nursery.cancel_scope.cancel()


def test_proxies_work_from_any_thread(env: Environment) -> None:
    proxy = run(env.connect(Echo(env).addr))

    async def ask() -> Any:
        return await proxy.evaluate(3)

    assert asyncio.run(ask()) == trio.run(ask) == run(ask()) == 3


@pytest.mark.parametrize("fail", [False, True])
@pytest.mark.parametrize("count", [1, 2], ids=["within", "between"])
async def test_cancellation_passes_the_nursery_of_an_agent(
    count: int, fail: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with environments(2) as envs:
        agent = Nests(envs[count - 1])
        asking = Echo(envs[0])
        proxy = await asking.connect(agent.addr)
        with trio.move_on_after(0.05) as scope:
            await proxy.act(fail=fail)
        assert scope.cancelled_caught
        with trio.move_on_after(0.05) as scope:
            await envs[count - 1].close(as_coro=True)
        assert scope.cancelled_caught
    assert caplog.text.count("ValueError: beside") == 1 + fail  # that of the close, and of the call


async def test_a_nursery_hides_no_agents_errors() -> None:
    async with environments(2) as (here, there):
        agent = Fails(there)
        proxy = await Echo(here).connect(agent.addr)
        with pytest.raises(AgentErrors) as caught:
            await proxy.step()
    assert list(caught.value.failures) == [agent.addr]


@pytest.mark.parametrize("host", ["localhost", "0.0.0.0"])
async def test_another_user_can_keep_a_port_from_a_restart_on_the_network_only(host: str) -> None:
    async with environments() as here:
        with socket.socket() as other:
            other.bind((addresses.numeric(host), 0))
            other.listen()
            env = Environment((host, other.getsockname()[1]))
            local = host == "localhost"
            for env._listener.restarted in (False, True):
                if local and env._listener.restarted:
                    await env.open()
                    assert (await here.connect(Echo(env).addr)).class_name.endswith("Echo")
                else:
                    with pytest.raises(StartError, match="the port is taken"):
                        await env.open()
            await env.close(as_coro=True)


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
async def test_a_port_is_kept_for_the_next_life_at_it(host: str) -> None:
    life = await addresses.bind(host, 0)
    place = "127.0.0.1" if host == "0.0.0.0" else "::1", life.number
    held = await addresses.hold(host, life.number)
    assert held is not None
    for _ in range(2):
        with socket.create_connection(place):
            with pytest.raises(StartError, match="the port is taken"):
                await addresses.bind(host, life.number)
            life.close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(place)
        with pytest.raises(StartError, match="the port is taken"):
            await addresses.bind(host, life.number)
        life = await addresses.bind(host, life.number, restarted=True)
    life.close()
    held.close()
    (await addresses.bind(host, life.number)).close()


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", socket.gethostname()])
async def test_no_port_is_kept_where_nobody_connects_over_it(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not addresses.is_loopback(host):  # as many systems have it for their own name
        monkeypatch.setitem(addresses._LOOPBACK, host, "127.0.1.1")
    first = await addresses.bind(host, 0)
    assert await addresses.hold(host, first.number) is None
    second = await addresses.bind(host, first.number, restarted=True)
    assert (second.number, second.sock) == (first.number, None)
    first.close()


async def test_a_close_while_the_address_is_looked_up_leaves_nothing_listening(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found, ports = trio.Event(), []

    async def look_up_slowly(*place: Any) -> addresses.Port:
        await found.wait()
        ports.append(await addresses.bind(*place))
        return ports[0]

    monkeypatch.setattr(listener, "bind", look_up_slowly)
    async with adopt_running_loop(), trio.open_nursery() as nursery:
        env = Environment(("localhost", 0))

        async def open_it() -> None:
            with pytest.raises(ConnectionLost, match="this environment is closed"):
                await env.open()

        nursery.start_soon(open_it)
        await trio.testing.wait_all_tasks_blocked()
        await env.close(as_coro=True)
        found.set()
    assert ports[0].sock is not None
    assert ports[0].sock.fileno() < 0

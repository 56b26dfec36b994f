"""Environments that listen elsewhere than their addresses say, and machines that do not answer."""

from __future__ import annotations

import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
import trio
import trio.testing

from creamas_sc import Environment
from creamas_sc.errors import ConnectionLost
from creamas_sc.rpc import endpoint, socket_stream
from creamas_sc.rpc.addresses import address_towards, base_url
from creamas_sc.rpc.routes import Route
from creamas_sc.rpc.socket_stream import _TCP_INFO, ConnectedStream
from creamas_sc.runtime.event_loop import adopt_running_loop
from creamas_sc.runtime.paths import simulation_folder
from tests.support.agents import Echo

BOUND_SECONDS = 20


@asynccontextmanager
async def environments(*addrs: tuple[str, int], elsewhere: Any = None) -> AsyncIterator[list[Any]]:
    """Environments in this process, the last one of them ``elsewhere``."""
    with trio.fail_after(BOUND_SECONDS):
        async with adopt_running_loop():
            envs = [Environment(addr) for addr in addrs]
            envs[-1]._listener.elsewhere = elsewhere
            for env in envs:
                await env.open()
            try:
                yield envs
            finally:
                for env in envs:
                    await env.close(as_coro=True)


def route_to(env: Any, generation: int = 0) -> Route:
    host, port = env.network.endpoint.place
    return Route(host, port, generation)


def unused_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


async def test_a_moved_environment_is_found_by_its_route() -> None:
    address = ("192.0.2.7", 5555)  # which no machine has
    async with environments(("localhost", 0), address, elsewhere=("127.0.0.1", 0)) as (near, moved):
        agent = Echo(moved)
        assert agent.addr == "tcp://192.0.2.7:5555/0"
        near.network.endpoint.move({moved.base_url: route_to(moved)})
        proxy = await near.connect(agent.addr)
        assert await proxy.evaluate(3) == 3
        # Without a connection it is found again.
        near.network.endpoint.drop(moved.base_url)
        assert near.network.endpoint.link(moved.base_url) is None
        assert await proxy.evaluate(4) == 4


async def test_what_was_given_up_is_not_called_and_calls_nobody() -> None:
    async with environments(("localhost", 0), ("localhost", 0)) as (near, stale):
        agent, ours = Echo(stale), Echo(near)
        proxy = await near.connect(agent.addr)
        assert await proxy.evaluate(3) == 3
        link = near.network.endpoint.link(stale.base_url)
        near.network.endpoint.move({stale.base_url: Route("", 0, 1)})
        await link.closed.wait()
        with pytest.raises(ConnectionLost, match="was given up: its machine was not heard"):
            await proxy.evaluate(4)
        with pytest.raises(ConnectionLost):
            await stale.connect(ours.addr)
        # The next one there is of a later generation.
        stale.network.endpoint._identity = replace(stale.network.endpoint._identity, generation=1)
        assert await proxy.evaluate(5) == 5


async def test_who_is_connecting_to_where_an_environment_was_goes_where_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real, tried = endpoint.Endpoint._try, trio.Event()

    async def attempt(self: Any, folder: Any, host: str, *args: Any) -> ConnectedStream:
        if host == "192.0.2.7":  # a machine that is cut off
            tried.set()
            await trio.sleep_forever()
        return await real(self, folder, host, *args)

    monkeypatch.setattr(endpoint.Endpoint, "_try", attempt)
    address = ("192.0.2.7", 5555)
    async with environments(("localhost", 0), address, elsewhere=("127.0.0.1", 0)) as (near, moved):
        agent = Echo(moved)
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                assert await (await near.connect(agent.addr)).evaluate(3) == 3

            nursery.start_soon(ask)
            await tried.wait()
            near.network.endpoint.move({moved.base_url: route_to(moved)})
        assert not near.network.endpoint._trying


async def test_whether_an_environment_listens_is_asked_where_it_is() -> None:
    async with environments(("localhost", 0), ("127.0.0.1", 0)) as (asking, other):
        listens = asking.network.endpoint.listens
        assert await listens(other.base_url)
        assert not await listens(base_url("127.0.0.1", unused_port()))
        own = address_towards("192.0.2.7") if has_address() else "127.0.0.1"
        assert not await listens(base_url(own, unused_port()))
        asking.network.endpoint.move({base_url("192.0.2.7", 1): route_to(other)})
        assert await listens(base_url("192.0.2.7", 1))


def has_address() -> bool:
    """Whether this machine has another address than the loopback's."""
    try:
        return not address_towards("192.0.2.7").startswith("127.")
    except OSError:
        return False


@pytest.mark.skipif(not has_address(), reason="this machine has only a loopback address")
async def test_an_environment_of_another_runtime_folder_of_this_machine_is_found_over_tcp(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = address_towards("192.0.2.7")
    async with environments((own, 0), (own, 0)) as (asking, other):
        agent = Echo(other)
        folder = simulation_folder(asking.network.endpoint._identity.simulation)
        (folder / str(other.network.endpoint.place[1])).unlink()
        proxy = await asking.connect(agent.addr)
        assert await proxy.evaluate(5) == 5
        shutil.rmtree(folder, ignore_errors=True)


async def test_what_a_stranger_says_of_moves_is_not_believed() -> None:
    async with environments(("localhost", 0), ("localhost", 0)) as (asking, other):
        agent = Echo(other)
        await asking.connect(agent.addr)
        asking.network.announce(other.base_url, {"tcp://192.0.2.7:1/": Route("192.0.2.8", 2, 1)})
        await asking.network.connect(agent.addr, 0, check_again=True)
        assert other.network.endpoint.routes == {}


@pytest.mark.parametrize(
    ("repeated", "unacknowledged", "milliseconds", "unheard"),
    [
        (0, 0, 60_000, False),  # nothing was sent
        (0, 3, 60_000, False),  # its window is full: it computes
        (2, 3, 9_000, False),  # not for long
        (2, 3, 10_000, True),
    ],
)
def test_a_machine_that_does_not_acknowledge(
    monkeypatch: pytest.MonkeyPatch,
    repeated: int,
    unacknowledged: int,
    milliseconds: int,
    unheard: bool,
) -> None:
    class Sock:
        family = socket.AF_INET

        def setblocking(self, flag: bool) -> None: ...

        def setsockopt(self, *args: Any) -> None: ...

        def getsockopt(self, level: int, option: int, size: int) -> bytes:
            assert (level, option) == (socket.IPPROTO_TCP, socket.TCP_INFO)
            return _TCP_INFO.pack(repeated, unacknowledged, milliseconds)

    sock: Any = Sock()
    assert ConnectedStream(sock).is_unheard() is unheard


async def test_connections_of_tcp_are_kept_alive_and_watched() -> None:
    listener = await trio.open_tcp_listeners(0, host="127.0.0.1")
    with listener[0].socket:
        stream = ConnectedStream.adopt(
            await trio.testing.open_stream_to_socket_listener(listener[0])
        )
        sock = stream._raw
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        options = [socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT]
        idle, again, times = [sock.getsockopt(socket.IPPROTO_TCP, each) for each in options]
        assert idle + again * times == socket_stream.UNHEARD_SECONDS
        assert not stream.is_unheard()
        await stream.aclose()
        assert not stream.is_unheard()


async def test_the_connection_to_a_machine_that_is_cut_off_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(endpoint, "WATCH_SECONDS", 0.01)
    async with environments(("localhost", 0), ("127.0.0.1", 0)) as (asking, other):
        agent = Echo(other)
        # Over TCP, as to another machine.
        monkeypatch.setattr(endpoint, "is_loopback", lambda host: False)
        port = await trio.open_tcp_listeners(0, host="127.0.0.1")
        place = port[0].socket.getsockname()
        with port[0].socket:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(other.network.endpoint._accept_all, port[0], nursery)
                asking.network.endpoint.routes[other.base_url] = Route(place[0], place[1], 0)
                await asking.connect(agent.addr)
                link = asking.network.endpoint.link(other.base_url)
                assert link is not None
                monkeypatch.setattr(ConnectedStream, "is_unheard", lambda self: True)
                while link.alive:  # noqa: ASYNC110 - nothing tells
                    await trio.sleep(0.01)
                nursery.cancel_scope.cancel()

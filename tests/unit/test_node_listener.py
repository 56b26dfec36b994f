"""Where a supervisor listens for nodes: who is let in, and what becomes of the others."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
import trio

from creamas_sc.errors import BadValue, HandshakeError, StartError
from creamas_sc.rpc import accepting
from creamas_sc.supervisor_client.messages import NodeSettings
from creamas_sc.wire.frames import FrameReader
from supervisor.nodes import channel, joined_node
from supervisor.nodes.registry import NodeRegistry
from supervisor.rpc_server import MethodServer
from tests.support.fake_node import about

KEY, OTHER = b"k" * 32, b"o" * 32


def settings(**changes: Any) -> NodeSettings:
    usual: NodeSettings = {"host": "127.0.0.1", "port": 0, "key": KEY, "lease": 10.0}
    return {**usual, **changes}  # type: ignore[typeddict-item]


@asynccontextmanager
async def listening() -> AsyncIterator[tuple[NodeRegistry, str, int]]:
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            registry = NodeRegistry(nursery)
            host, port = await registry.listen(settings())
            yield registry, host, port
            await registry.aclose("the test is over")


@asynccontextmanager
async def connected(host: str, port: int) -> AsyncIterator[MethodServer]:
    """A node's end of a connection."""
    stream = await channel.connect(host, port, KEY)
    server = MethodServer(stream, {}, "the supervisor", FrameReader())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.connection.run)
        yield server
        await server.connection.aclose()


async def test_who_has_the_key_joins_and_others_learn_that_it_is_wrong(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with listening() as (registry, host, port):
        with pytest.raises(HandshakeError, match="wrong key"):
            await channel.connect(host, port, OTHER)
        async with connected(host, port) as node:
            assert (await node.call("join", about("far")))["name"] == "far"
            assert [info["name"] for info in await registry.nodes()] == ["far"]
    assert "refused a connection of 127.0.0.1:" in caplog.text


async def test_strangers_that_say_nothing_keep_no_node_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(accepting, "MAX_STRANGERS", 2)
    monkeypatch.setattr(accepting, "STRANGER_SECONDS", 0.05)
    async with listening() as (_, host, port):
        silent = [await trio.open_tcp_stream(host, port) for _ in range(3)]
        async with connected(host, port) as node:
            await node.call("join", about("far"))
        for stream in silent:
            await stream.aclose()


async def test_an_error_here_ends_one_connection_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with listening() as (registry, host, port):
        async with connected(host, port) as good:
            await good.call("join", about("good"))
            with monkeypatch.context() as patch:
                patch.setattr(joined_node.JoinedNode, "_until_over", None)
                bad = await channel.connect(host, port, KEY)
                with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
                    await bad.receive()
                await anyio.aclose_forcefully(bad)
            await good.call("renew")
            assert [info["name"] for info in await registry.nodes()] == ["good"]
    assert "serving the node at 127.0.0.1:" in caplog.text


async def test_there_can_be_no_second_listener_at_a_place() -> None:
    async with listening() as (_, host, port):
        async with trio.open_nursery() as nursery:
            with pytest.raises(StartError, match=f"cannot listen for nodes at {host}:{port}: Addr"):
                await NodeRegistry(nursery).listen(settings(port=port))
            with pytest.raises(BadValue, match="a key of nodes has 32 bytes, not 5"):
                await NodeRegistry(nursery).listen(settings(key=b"short"))


async def test_at_its_end_all_connections_end_and_the_port_is_free() -> None:
    async with listening() as (registry, host, port), connected(host, port) as node:
        await registry.aclose("the test is over")
        await node.connection.closed.wait()
        with pytest.raises(OSError, match=r"all attempts|refused"):
            await trio.open_tcp_stream(host, port)

"""The channel of a node: who gets in, who does not, and what both ends are told."""

from __future__ import annotations

import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import anyio
import pytest
import trio

from creamas_sc.errors import ConnectionLost, HandshakeError, StartError
from supervisor.nodes import channel

KEY, OTHER = b"k" * 32, b"o" * 32
CERTIFICATE = channel.new_certificate()

Outcome = channel.TlsStream | Exception


@asynccontextmanager
async def served(
    serve: Callable[[trio.SocketStream], Awaitable[object]],
) -> AsyncIterator[tuple[str, int]]:
    """Serve connections with ``serve``; gives the address."""
    async with trio.open_nursery() as nursery:
        start = partial(trio.serve_tcp, serve, 0, host="127.0.0.1")
        listeners = await nursery.start(start)
        yield "127.0.0.1", listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def listening(
    key: bytes = KEY,
) -> AsyncIterator[tuple[str, int, trio.MemoryReceiveChannel[Outcome]]]:
    """What a supervisor makes of each connection, once it is known."""
    known, outcomes = trio.open_memory_channel[Outcome](10)

    async def serve(stream: trio.SocketStream) -> None:
        try:
            accepted = await channel.accept(stream, CERTIFICATE, key)
        except Exception as error:
            await known.send(error)
            return
        await known.send(accepted)
        try:
            await accepted.send(b"from the supervisor " + await accepted.receive())
        finally:
            await anyio.aclose_forcefully(accepted)

    with trio.fail_after(20):
        async with served(serve) as (host, port):
            yield host, port, outcomes


async def test_what_each_end_sends_arrives_and_its_end_too() -> None:
    async with listening() as (host, port, outcomes):
        stream = await channel.connect(host, port, KEY)
        await stream.send(b"from the node")
        assert await stream.receive() == b"from the supervisor from the node"
        with pytest.raises(anyio.EndOfStream):
            await stream.receive()
        assert isinstance(await outcomes.receive(), channel.TlsStream)
        await anyio.aclose_forcefully(stream)


async def test_a_wrong_key_is_refused_by_both_ends() -> None:
    async with listening(OTHER) as (host, port, outcomes):
        with pytest.raises(HandshakeError, match=f"{host}:{port} has another key.*wrong key"):
            await channel.connect(host, port, KEY)
        outcome = await outcomes.receive()
        assert isinstance(outcome, HandshakeError)


async def test_a_relay_with_another_certificate_is_refused() -> None:
    relay_certificate = channel.new_certificate()
    async with listening() as (host, port, outcomes):

        async def relay(stream: trio.SocketStream) -> None:
            near = trio.SSLStream(
                stream, relay_certificate.context, server_side=True, https_compatible=True
            )
            context = ssl._create_unverified_context()
            far = trio.SSLStream(await trio.open_tcp_stream(host, port), context)

            async def pump(source: trio.abc.Stream, sink: trio.abc.Stream) -> None:
                try:
                    while data := await source.receive_some():
                        await sink.send_all(data)
                except trio.BrokenResourceError:
                    pass

            async with near, far, trio.open_nursery() as nursery:
                nursery.start_soon(pump, near, far)
                await pump(far, near)
                nursery.cancel_scope.cancel()

        async with served(relay) as (near_host, near_port):
            with pytest.raises(HandshakeError, match="wrong key"):
                await channel.connect(near_host, near_port, KEY)
        outcome = await outcomes.receive()
        assert not isinstance(outcome, channel.TlsStream)


@pytest.mark.parametrize("first", [b"GET / HTTP/1.1\r\n\r\n", b"\0" * 100, b"\x16\x03\x01\xff\xff"])
async def test_what_speaks_no_tls_is_refused(first: bytes) -> None:
    async with listening() as (host, port, outcomes):
        stranger = await trio.open_tcp_stream(host, port)
        async with stranger:
            await stranger.send_all(first)
            await stranger.send_eof()
            outcome = await outcomes.receive()
        assert isinstance(outcome, (HandshakeError, anyio.BrokenResourceError))


async def test_garbage_inside_tls_is_refused() -> None:
    async with listening() as (host, port, outcomes):
        context = ssl._create_unverified_context()
        async with trio.SSLStream(
            await trio.open_tcp_stream(host, port), context, https_compatible=True
        ) as stranger:
            await stranger.send_all(b"\xff" * 4000)
            outcome = await outcomes.receive()
        assert isinstance(outcome, Exception)


async def test_who_says_nothing_must_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "HANDSHAKE_SECONDS", 0.05)
    async with listening() as (host, port, outcomes):
        async with await trio.open_tcp_stream(host, port) as stranger:
            assert await stranger.receive_some() == b""
        assert isinstance(await outcomes.receive(), TimeoutError)


async def test_a_supervisor_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "JOIN_SECONDS", 0.05)

    async def say_nothing(_: trio.SocketStream) -> None:
        await trio.sleep_forever()

    async with served(say_nothing) as (host, port):
        with pytest.raises(ConnectionLost, match=r"did not answer within 0\.05 s"):
            await channel.connect(host, port, KEY)


async def test_what_listens_for_something_else_is_named() -> None:
    async with served(lambda stream: stream.send_all(b"SSH-2.0-OpenSSH_9.6\r\n")) as (host, port):
        with pytest.raises(HandshakeError, match=f"{host}:{port} .* is no supervisor that listens"):
            await channel.connect(host, port, KEY)
    with pytest.raises(ConnectionLost, match=f"nothing listens at {host}:{port}"):
        await channel.connect(host, port, KEY)


def test_a_missing_package_is_an_error_that_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(StartError, match=r"package cryptography: .*\[nodes\]"):
        channel.new_certificate()

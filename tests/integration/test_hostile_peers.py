"""A peer that is not a member of the simulation changes nothing, on any port of the tree."""

from __future__ import annotations

import gc
import os
import resource
import secrets
import socket
import struct
from pathlib import Path

import pytest
import trio

from creamas_sc import Environment, MultiEnvironment
from creamas_sc.errors import HandshakeError
from creamas_sc.wire.frames import Kind, encode_frame
from tests.support import processes
from tests.support.agents import Counter, Echo
from tests.support.shared_supervisor import own_children
from tests.support.streams import stranger_at

GREETINGS = {
    "http": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "random": secrets.token_bytes(4096),
    "truncated": b"".join(encode_frame(Kind.HELLO, 0, b"", b"x" * 100))[:-50],
    "a request first": b"".join(encode_frame(Kind.REQUEST, 1, b"\x93\x01\xa3act\xc0", b"")),
    "4 GiB header": struct.pack("!IBxHII", 2**32 - 1, 1, 0, 0, 0),
    "malformed hello": b"".join(encode_frame(Kind.HELLO, 0, b"", b"\xc1")),
    "half-open": b"",
}


def listening_ports(pids: list[int]) -> set[int]:
    """TCP ports on which any of the processes listens."""
    inodes = set()
    for pid in pids:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            try:
                target = os.readlink(entry)
            except OSError:  # the listing's own
                continue
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    ports = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                ports.add(int(fields[1].rpartition(":")[2], 16))
    return ports


def tree() -> list[int]:
    (keeper,) = own_children()
    return list(processes.family(keeper).values())


async def test_nothing_listens_on_the_network(own_menv: MultiEnvironment) -> None:
    assert own_menv.addrs
    assert listening_ports([*tree(), os.getpid()]) == set()


@pytest.mark.parametrize("greeting", GREETINGS)
async def test_hostile_peers_change_nothing(menv: MultiEnvironment, greeting: str) -> None:
    echo, _ = await menv.spawn(Echo)
    await menv.spawn(Counter)
    addresses = [*menv.addrs, menv.manager.addr]
    strangers = [stranger_at(address) for address in addresses for _ in range(3)]
    try:
        for stranger in strangers:
            await stranger.send_all(GREETINGS[greeting])
        assert await echo.evaluate(1) == 1
        assert await menv.trigger_all() == [((), {}), 1]
        if greeting not in ("half-open", "truncated"):
            for stranger in strangers:
                with trio.fail_after(3):
                    await _read_to_end(stranger)
    finally:
        for stranger in strangers:
            await stranger.aclose()
    assert await menv.trigger_all() == [((), {}), 2]
    report = await menv.close(as_coro=True)
    assert report.graceful


async def _read_to_end(stream: trio.SocketStream) -> None:
    try:
        while await stream.receive_some(4096):
            pass
    except trio.BrokenResourceError:
        return


async def test_a_slave_without_descriptors_lives_and_lets_peers_in_later(
    menv: MultiEnvironment,
) -> None:
    echo, addr = await menv.spawn(Echo)
    pid = await echo.pid()
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    there = len(os.listdir(f"/proc/{pid}/fd"))
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (there + 2, limits[1]))
    strangers = [stranger_at(addr) for _ in range(10)]
    try:
        while len(os.listdir(f"/proc/{pid}/fd")) < there + 2:
            assert await echo.evaluate(1) == 1
        for _ in range(100):
            assert await echo.evaluate(1) == 1
    finally:
        for stranger in strangers:
            await stranger.aclose()
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
    other = await Environment.create(("localhost", 0), as_coro=True)
    try:
        with pytest.raises(HandshakeError, match="simulation"):
            await other.connect(addr)
    finally:
        await other.close(as_coro=True)
    report = await menv.close(as_coro=True)
    assert report.graceful


@pytest.mark.slow
async def test_a_half_open_connection_is_cut(menv: MultiEnvironment) -> None:
    async with stranger_at(menv.addrs[0]) as stranger:
        with trio.fail_after(8):
            await _read_to_end(stranger)


async def test_environments_outside_the_simulation_are_refused(menv: MultiEnvironment) -> None:
    env = await Environment.create(("localhost", 0), as_coro=True)
    try:
        with pytest.raises(HandshakeError, match="simulation"):
            await env.connect(menv.addrs[0])
    finally:
        await env.close(as_coro=True)


async def test_a_socket_of_something_that_is_not_a_daemon() -> None:
    with socket.create_server(("0.0.0.0", 0)) as server:
        port = server.getsockname()[1]
        env = await Environment.create(("localhost", 0), as_coro=True)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_answer, server)
                with pytest.raises(HandshakeError, match=f":{port}/"):
                    await env.connect(f"tcp://0.0.0.0:{port}/1")
        finally:
            await env.close(as_coro=True)


async def _answer(server: socket.socket) -> None:
    listener = trio.SocketListener(trio.socket.from_stdlib_socket(server.dup()))
    async with listener:
        async with await listener.accept() as stream:
            await stream.send_all(b"220 mail.example.com ESMTP\r\n")


async def test_a_connection_that_is_cancelled_at_any_moment_is_closed() -> None:
    env = await Environment.create(("localhost", 0), as_coro=True)
    with socket.create_server(("0.0.0.0", 0)) as silent:
        address = f"tcp://0.0.0.0:{silent.getsockname()[1]}/1"
        try:
            for checkpoints in range(20):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(env.connect, address)
                    for _ in range(checkpoints):
                        await trio.lowlevel.checkpoint()
                    nursery.cancel_scope.cancel()
                gc.collect()  # where one is left open, this warns of it
        finally:
            await env.close(as_coro=True)

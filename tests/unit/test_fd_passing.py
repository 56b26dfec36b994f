"""Connections handed over a socketpair, as a supervisor hands them to a host."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Iterator

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from creamas_sc.rpc import fd_passing

Pair = tuple[trio.socket.SocketType, trio.socket.SocketType]
BOUND_SECONDS = 5


@pytest.fixture
def pair() -> Iterator[Pair]:
    """The sender's end and the receiver's."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours, theirs = (trio.socket.from_stdlib_socket(end) for end in ends)
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def client() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A client's end, and the one that is handed over."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


async def test_a_connection_comes_with_what_was_read_from_it(
    pair: Pair, client: tuple[socket.socket, socket.socket]
) -> None:
    peer, handed_on = client
    await fd_passing.send(pair[0], fd_passing.CLIENT, "pid 7", b"read already", handed_on.fileno())
    handed_on.close()
    handed = await fd_passing.receive(pair[1])
    assert handed is not None
    assert (handed.kind, handed.note, handed.backlog) == ("client", "pid 7", b"read already")
    with handed.sock:
        peer.sendall(b"and more")
        assert handed.sock.recv(100) == b"and more"
        assert handed.sock.gettimeout() == 0
        assert not os.get_inheritable(handed.sock.fileno())


async def test_the_senders_end_is_no_connection(pair: Pair) -> None:
    pair[0].close()
    assert await fd_passing.receive(pair[1]) is None


async def test_the_largest_backlog_goes_through_and_no_more(
    pair: Pair, client: tuple[socket.socket, socket.socket]
) -> None:
    fd = client[1].fileno()
    backlog = os.urandom(fd_passing.MAX_BACKLOG_BYTES)
    await fd_passing.send(pair[0], fd_passing.CLIENT, "n" * 1000, backlog, fd)
    handed = await fd_passing.receive(pair[1])
    assert handed is not None
    handed.sock.close()
    assert (handed.note, handed.backlog) == ("n" * 500, backlog)
    with pytest.raises(ValueError, match="over 32768"):
        await fd_passing.send(pair[0], fd_passing.CLIENT, "", backlog + b"x", fd)


async def test_a_receiver_that_takes_nothing_makes_the_sender_wait(
    pair: Pair, client: tuple[socket.socket, socket.socket]
) -> None:
    sent = 0

    async def send_on() -> None:
        nonlocal sent
        while True:
            await fd_passing.send(pair[0], fd_passing.CLIENT, "", b"x" * 4096, client[1].fileno())
            sent += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send_on)
        await wait_all_tasks_blocked(0.01)
        nursery.cancel_scope.cancel()
    assert 1 < sent < 1000
    for _ in range(sent):  # all that was sent is whole; what was cancelled is not there
        handed = await fd_passing.receive(pair[1])
        assert handed is not None
        handed.sock.close()
    pair[0].close()
    assert await fd_passing.receive(pair[1]) is None


async def test_a_receiver_that_is_gone_is_an_error(
    pair: Pair, client: tuple[socket.socket, socket.socket]
) -> None:
    pair[1].close()
    with pytest.raises(BrokenPipeError):
        await fd_passing.send(pair[0], fd_passing.CLIENT, "", b"", client[1].fileno())


async def test_one_that_cannot_be_taken_is_closed_and_the_next_comes(
    pair: Pair, client: tuple[socket.socket, socket.socket], caplog: pytest.LogCaptureFixture
) -> None:
    peer, handed_on = client
    other, taken = socket.socketpair()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with other:
        await fd_passing.send(pair[0], fd_passing.CLIENT, "pid 7", b"", handed_on.fileno())
        handed_on.close()
        free = os.open(os.devnull, os.O_RDONLY)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
        try:
            with trio.move_on_after(0.05):
                await fd_passing.receive(pair[1])
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert peer.recv(1) == b""
        assert "the connection of pid 7 cannot be taken" in caplog.text
        await fd_passing.send(pair[0], fd_passing.CLIENT, "pid 8", b"", taken.fileno())
        taken.close()
        handed = await fd_passing.receive(pair[1])
        assert handed is not None
        handed.sock.close()
        assert handed.note == "pid 8"


@pytest.mark.parametrize("packet", [b"\xc1", b"\x91\xa1x", b"\x01"])
async def test_what_is_no_handover_is_dropped(
    pair: Pair, client: tuple[socket.socket, socket.socket], packet: bytes
) -> None:
    await pair[0].send(packet)
    await fd_passing.send(pair[0], fd_passing.CONTROL, "", b"", client[1].fileno())
    with trio.fail_after(BOUND_SECONDS):
        handed = await fd_passing.receive(pair[1])
    assert handed is not None
    handed.sock.close()
    assert handed.kind == fd_passing.CONTROL

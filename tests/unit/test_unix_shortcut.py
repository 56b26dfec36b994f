"""Unix sockets beside TCP ports: found with the key and the address only."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import anyio
import pytest
import trio

from creamas_sc.rpc.socket_stream import ConnectedStream
from creamas_sc.rpc.unix_shortcut import connect_nearby, listen_nearby

# A key of this process: tests of several run at once.
KEY, URL = os.urandom(32), "tcp://localhost:5555/"


@contextmanager
def listening() -> Iterator[trio.SocketListener | None]:
    listener = listen_nearby(KEY, URL)
    yield listener
    if listener is not None:
        listener.socket.close()


async def test_who_knows_key_and_address_connects() -> None:
    with listening() as listener, trio.fail_after(10):
        assert listener is not None
        ours = connect_nearby(KEY, URL)
        assert ours is not None
        theirs = ConnectedStream.adopt(await listener.accept())
        await ours.send(b"hello")
        assert await theirs.receive() == b"hello"
        await theirs.aclose()
        with pytest.raises(anyio.EndOfStream):
            await ours.receive()
        await ours.aclose()


@pytest.mark.parametrize(
    ("key", "url"), [(b"x" * 32, URL), (KEY, "tcp://localhost:5556/")], ids=["key", "url"]
)
async def test_nobody_is_there_for_others(key: bytes, url: str) -> None:
    with listening():
        assert connect_nearby(key, url) is None
    assert connect_nearby(KEY, URL) is None


async def test_the_second_of_one_address_does_without() -> None:
    with listening() as first, listening() as second:
        assert first is not None
        assert second is None
    with listening() as again:
        assert again is not None


async def test_a_full_queue_is_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("creamas_sc.rpc.unix_shortcut.BACKLOG", 0)
    with listening():
        streams = [connect_nearby(KEY, URL) for _ in range(5)]
        assert streams[0] is not None
        assert streams[-1] is None
        for stream in streams:
            if stream is not None:
                await stream.aclose()

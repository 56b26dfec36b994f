"""Unix sockets beside TCP ports: found by who knows the key and the address, and by nobody else."""

from __future__ import annotations

import os

import anyio
import pytest
import trio

from creamas_sc.rpc.unix_shortcut import connect_near, listen_near

# A key of this process: tests of several run at once.
KEY, URL = os.urandom(32), "tcp://localhost:5555/"


async def test_who_knows_key_and_address_connects() -> None:
    with listen_near(KEY, URL) as listener, trio.fail_after(10):
        assert listener is not None
        ours = connect_near(KEY, URL)
        assert ours is not None
        theirs = await listener.accept()
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
    with listen_near(KEY, URL):
        assert connect_near(key, url) is None
    assert connect_near(KEY, URL) is None


async def test_the_second_of_one_address_does_without() -> None:
    with listen_near(KEY, URL) as first, listen_near(KEY, URL) as second:
        assert first is not None
        assert second is None
    with listen_near(KEY, URL) as again:
        assert again is not None


async def test_a_full_queue_is_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("creamas_sc.rpc.unix_shortcut.BACKLOG", 0)
    with listen_near(KEY, URL):
        streams = [connect_near(KEY, URL) for _ in range(5)]
        assert streams[0] is not None
        assert streams[-1] is None
        for stream in streams:
            if stream is not None:
                await stream.aclose()

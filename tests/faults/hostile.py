"""What strangers send: frames with bytes changed, bombs, and lengths of what never comes."""

from __future__ import annotations

import random
import struct
from collections.abc import Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import msgpack
import trio

from creamas_sc.wire.codec import Codec
from creamas_sc.wire.frames import Kind, encode_frame
from creamas_sc.wire.streams import ConnectedStream

__all__ = ["FOUR_GIB", "Open", "bombs", "mutated", "pester", "request"]

# A connection to whom it goes to, with all said that lets what follows be read.
Open = Callable[[], Awaitable[ConnectedStream]]

CODEC = Codec()
FOUR_GIB = struct.pack("!IBxHII", 2**32 - 1, Kind.REQUEST.value, 0, 0, 0)
# A connection ends with the first frame that is none.
BATCH = 4
SENDERS = 10
# What a peer has to end a connection; one that waits for the rest of a frame does not.
END_SECONDS = 0.02
DEEPEST = 50_000
MAX_META_BYTES = (1 << 16) - 1


def request(target: Any, method: str, *args: Any, call_id: int = 1) -> bytes:
    """A call's frame."""
    body = CODEC.encode((args, {}))
    return _request(msgpack.packb((target, method, None)), body.body, call_id)


def _request(meta: bytes, body: bytes, call_id: int = 1) -> bytes:
    return b"".join(encode_frame(Kind.REQUEST, call_id, meta, body))


def mutated(chance: random.Random, sound: list[bytes]) -> Iterator[bytes]:
    """Frames without end, each with one to three bytes changed."""
    kinds = [b"".join(encode_frame(kind, 1, b"x" * 9, b"y" * 9, [b"z" * 9])) for kind in Kind]
    frames = [*sound, *kinds]
    while True:
        frame = bytearray(chance.choice(frames))
        for _ in range(chance.randint(1, 3)):
            frame[chance.randrange(len(frame))] = chance.randrange(256)
        yield bytes(frame)


def bombs(chance: random.Random, target: Any, method: str) -> Iterator[bytes]:
    """Calls without end whose arguments, or heads, go deeper or are longer than can be."""
    meta = msgpack.packb((target, method, None))
    lengths = [bytes([head]) + b"\xff" * 5 for head in (0xDD, 0xDF, 0xDB, 0xC6, 0xC9)]
    while True:
        depth = chance.randint(1, DEEPEST)
        bomb = chance.choice(
            [b"\x91" * depth, b"\x81\xc0" * depth, _nested(chance), chance.choice(lengths)]
        )
        yield chance.choice(
            [
                _request(meta, bomb + b"\xc0"),
                _request(meta, b"\x92\x90" + bomb + b"\x80"),
                _request(bomb[:MAX_META_BYTES], b"\xc0"),
            ]
        )


def _nested(chance: random.Random) -> bytes:
    """Extensions within each other, of any code."""
    value = b"\x90"
    for _ in range(chance.randint(1, 500)):
        code = chance.randrange(0, 20)
        value = struct.pack("!BIb", 0xC9, len(value), code) + value
    return value


async def pester(open_: Open, frames: Iterator[bytes], count: int) -> None:
    """Send so many frames, over several connections at a time, and wait for each one's end."""
    left = count

    async def sender() -> None:
        nonlocal left
        while left > 0:
            left -= BATCH
            try:
                async with _closing(await open_()) as stream:
                    with trio.move_on_after(END_SECONDS):
                        await stream.send(b"".join(next(frames) for _ in range(BATCH)))
                        while True:
                            await stream.receive()
            except (anyio.EndOfStream, anyio.BrokenResourceError, OSError):
                continue

    async with trio.open_nursery() as nursery:
        for _ in range(SENDERS):
            nursery.start_soon(sender)


@asynccontextmanager
async def _closing(stream: ConnectedStream) -> Any:
    try:
        yield stream
    finally:
        with trio.CancelScope(shield=True):
            await anyio.aclose_forcefully(stream)

"""The row about a relay between machines: both ends prove themselves, and then it meddles."""

from __future__ import annotations

import random
import secrets
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import trio

from creamas_sc.errors import ConnectionLost, DeadlineExceeded
from creamas_sc.rpc.connection import Connection, Handler, Request, perform_handshake
from creamas_sc.rpc.sealed_stream import SealedStream
from creamas_sc.rpc.socket_stream import ConnectedStream
from creamas_sc.wire.codec import Payload
from creamas_sc.wire.handshake import Handshake, Identity
from tests.faults.registry import Figures, row
from tests.support.streams import BOUND_SECONDS, CODEC, ask

CALLS = 20
CALL_SECONDS = 0.5
HEADER_BYTES = 20
KEY = b"k" * 32
HERE = Identity("society", KEY, "master", "tcp://one.example:5555/", 1)
THERE = Identity("society", KEY, "slave", "tcp://two.example:5555/", 2)

# What a relay makes of the records at hand, from the one that it has chosen on.
Meddle = Callable[[list[bytes], random.Random], list[bytes]]


def _changed(records: list[bytes], chance: random.Random) -> list[bytes]:
    record = bytearray(records[0])
    record[chance.randrange(len(record))] ^= chance.randrange(1, 256)
    return [bytes(record), *records[1:]]


def _added(records: list[bytes], chance: random.Random) -> list[bytes]:
    own = records[0][:4] + secrets.token_bytes(len(records[0]) - 4)
    return [own, *records]


MEDDLING: dict[str, Meddle] = {
    "passes all on": lambda records, _: records,
    "changes a byte": _changed,
    "adds a record": _added,
    "repeats a record": lambda records, _: [records[0], *records],
    "leaves a record out": lambda records, _: records[1:],
    "cuts a record short": lambda records, _: [records[0][:-1], *records[1:]],
}
DIRECTIONS = ("calls", "answers")
CASES = tuple(f"{how}: {which}" for how in MEDDLING for which in DIRECTIONS)


@row(
    14,
    "a relay between machines that both ends have proved themselves through",
    "what is not the peer's next record ends the connection; no other value arrives",
    cases=CASES,
    rounds=50 * len(CASES),
    short=2 * len(CASES),
    quick=4,
)
def relay(case: str, number: int, folder: Path) -> Figures:
    """Make calls through a relay that meddles once, in one direction."""
    how, _, which = case.partition(": ")
    received, answered = trio.run(_calls, MEDDLING[how], which, random.Random(number))
    assert received == list(range(len(received)))
    assert answered == list(range(len(answered)))
    if how == "passes all on":
        assert len(answered) == CALLS
    else:
        assert len(answered) < CALLS
    return {"total calls": len(answered)}


async def _calls(meddle: Meddle, which: str, chance: random.Random) -> tuple[list[Any], list[Any]]:
    """The values that arrived as calls, and those that arrived as answers."""
    received: list[Any] = []
    answered: list[Any] = []

    def serve(request: Request) -> Payload:
        received.append(CODEC.decode(request.payload)[0])
        return request.payload

    (ours, near), (far, theirs) = socket.socketpair(), socket.socketpair()
    streams = [ConnectedStream(sock) for sock in (ours, near, far, theirs)]
    relays = {
        "calls": _Relay(streams[1], streams[2]),
        "answers": _Relay(streams[2], streams[1]),
    }
    try:
        with trio.fail_after(BOUND_SECONDS):
            async with trio.open_nursery() as relaying:
                for each in relays.values():
                    relaying.start_soon(each.run)
                here, there = await _proved(streams[0], streams[3], serve)
                relays[which].arm(meddle, chance)
                async with trio.open_nursery() as running:
                    running.start_soon(here.run)
                    running.start_soon(there.run)
                    # What was left out is missed when the next record comes: a cancellation.
                    with suppress(ConnectionLost, DeadlineExceeded):
                        for value in range(CALLS):
                            answer = await ask(here, "echo", value, timeout=CALL_SECONDS)
                            answered.append(answer[0])
                    here.abort()
                    there.abort()
                relaying.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True):
            for stream in streams:
                await anyio.aclose_forcefully(stream)
    return received, answered


async def _proved(
    ours: ConnectedStream, theirs: ConnectedStream, serve: Handler
) -> tuple[Connection, Connection]:
    """Both ends of a connection, after the handshake."""
    client, server = Handshake(HERE, client=True), Handshake(THERE, client=False)
    async with trio.open_nursery() as proving:
        proving.start_soon(perform_handshake, ours, client)
        proving.start_soon(perform_handshake, theirs, server)
    return (
        Connection(SealedStream(ours, client.record_keys())),
        Connection(SealedStream(theirs, server.record_keys()), serve),
    )


class _Relay:
    """One direction of a relay; it passes all on until it is armed."""

    def __init__(self, source: ConnectedStream, sink: ConnectedStream) -> None:
        self._source, self._sink = source, sink
        self._meddle: Meddle | None = None
        self._chance = random.Random()
        self._left = 0

    def arm(self, meddle: Meddle, chance: random.Random) -> None:
        """From some record on, do it once."""
        self._meddle, self._chance = meddle, chance
        self._left = chance.randrange(CALLS // 2)

    async def run(self) -> None:
        with suppress(anyio.EndOfStream, anyio.BrokenResourceError):
            while True:
                data = await self._source.receive()
                if self._meddle is not None:
                    self._left -= 1
                    if self._left < 0:
                        data = b"".join(self._meddle(list(_records(data)), self._chance))
                        self._meddle = None
                await self._sink.send(data)
        await self._sink.send_eof()


def _records(data: bytes) -> Iterator[bytes]:
    while data:
        end = HEADER_BYTES + int.from_bytes(data[:4], "big")
        yield data[:end]
        data = data[end:]

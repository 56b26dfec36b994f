"""The row about garbage: what strangers, clients and peers send that is none of the protocol."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import anyio
import numpy
import trio

from creamas_sc.client import SyncClient, connect_sync
from creamas_sc.rpc.socket_stream import ConnectedStream
from creamas_sc.wire.frames import FrameReader, Kind
from tests.faults.board import Figures, row
from tests.faults.daemon import LOGS, SLAVES, daemon
from tests.faults.good_client import SIMULATION
from tests.faults.hostile import FOUR_GIB, Garbage, bombs, mutations, request
from tests.faults.places import Place, places
from tests.faults.watch import MOST_MIB, P99_SECONDS, RECOVERY_SECONDS, Watch

NAME = "row-10"
PLACES = (
    "a stranger at the door",
    "a client at the door",
    "a client of a host",
    "a stranger at a slave",
    "a peer of a slave",
)
SCARCE = "all of them, 256 descriptors a process"
CASES = (*PLACES, SCARCE)
# The first round of each case is a short one.
WHOLE_ROUNDS = 20
FRAMES, BOMBS = 10_000, 100
FEW_FRAMES, FEW_BOMBS = 500, 20
HALF_OPEN = 1000
DESCRIPTORS = 256

SENDERS = 8
# Of frames that leave a connection alive: so many, then a call, then one that ends it.
BATCH = 24
LAST = 2**31
STUCK_SECONDS = 20.0
BOUND_SECONDS = 120.0
# A daemon's and a slave's patience with those who have not proved themselves, and a margin.
CUT_SECONDS = 5.0 + 2.0
# Of the client that means well, at least: the worst hundredth is to be more than one of them.
CALLS, FEW_CALLS = 300, 100
# A place that lets nobody else in does not answer.
OPEN_SECONDS = 0.1
REFUSED = ("are open", "Too many open files", "no descriptor is left")

Wait = Callable[[], Awaitable[None]]


@row(
    10,
    f"mutated frames, {len(PLACES) * WHOLE_ROUNDS * FRAMES:,}; nesting and length bombs, "
    f"{len(PLACES) * WHOLE_ROUNDS * BOMBS:,}; a 4 GiB header; {HALF_OPEN:,} half-open connections; "
    f"{DESCRIPTORS} descriptors in all",
    f"0 crashes; memory + <= {MOST_MIB} MiB; a good client's p99 <= {1000 * P99_SECONDS:.0f} ms; "
    f"recovers <= {RECOVERY_SECONDS:g} s",
    cases=CASES,
    rounds=len(CASES) * (1 + WHOLE_ROUNDS),
    short=len(CASES),
    quick=0,
)
def garbage(case: str, number: int, folder: Path) -> Figures:
    """One daemon, with a simulation and a client that means well; and others, who do not."""
    whole = number >= len(CASES)
    chance = random.Random(number)
    with daemon(NAME, folder, descriptors=DESCRIPTORS if case == SCARCE else None) as running:
        with connect_sync(NAME, timeout=BOUND_SECONDS) as client:
            _create(client)
            ways = places(NAME, client, SIMULATION)
            with Watch(NAME, running, folder, whole) as watch:
                if case == SCARCE:
                    _take_descriptors(watch, list(ways.values()), folder, whole)
                else:
                    _send(watch, ways[case], chance, whole)
        return watch.figures


def _create(client: SyncClient) -> None:
    client.create(SIMULATION, slave_addrs=SLAVES)
    with client.attach(SIMULATION) as simulation:
        for addr in simulation.get_addrs():
            simulation.spawn("tests.support.agents:Echo", addr=addr)
        simulation.spawn("tests.faults.agents:Insider", addr=simulation.get_addrs()[0])
        simulation.trigger_all(numpy.zeros(1))  # some garbage loads it, as any array does


def _send(watch: Watch, place: Place, chance: random.Random, whole: bool) -> None:
    frames, some = (FRAMES, BOMBS) if whole else (FEW_FRAMES, FEW_BOMBS)
    kinds = mutations(chance, place.sound), bombs(chance, place.calls)

    async def send(frames: int, some: int) -> Figures:
        sent = [await _pester(place, *each) for each in zip(kinds, (frames, some), strict=True)]
        await _converse(place, [], FOUR_GIB + bytes(1 << 20))
        return {"total frames": sent[0], "total bombs": sent[1], "total 4 GiB headers": 1}

    trio.run(send, FEW_FRAMES, FEW_BOMBS)  # what is made once is no leak
    watch.during("garbage", partial(send, frames, some))
    watch.during("half-open", partial(_half_open, watch, place, whole))


# ---- garbage


async def _pester(place: Place, kind: Garbage, count: int) -> int:
    """Send at least so many of a kind, over several connections at a time; how many."""
    sent = 0

    async def sender() -> None:
        nonlocal sent
        while sent < count:
            within = 0 if place.stranger else min(BATCH, count - sent - 1)
            sent += within + 1
            await _converse(place, [kind.within() for _ in range(within)], kind.breaking())

    async with trio.open_nursery() as nursery:
        for _ in range(SENDERS):
            nursery.start_soon(sender)
    return sent


async def _converse(place: Place, within: list[bytes], breaking: bytes) -> None:
    """Send all of it; a call behind what must not end the connection is answered."""
    stream = await place.open()
    try:
        with trio.fail_after(STUCK_SECONDS):
            if within:
                call = request(*place.calls[0], *place.args, call_id=LAST)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(stream.send, b"".join([*within, call]))
                    await _answer(stream)
            try:
                await stream.send(breaking)
                await stream.send_eof()
            except anyio.BrokenResourceError:
                return  # it has seen enough
            await _read_to_end(stream)
    finally:
        with trio.CancelScope(shield=True):
            await anyio.aclose_forcefully(stream)


async def _answer(stream: ConnectedStream) -> None:
    reader = FrameReader()
    while True:
        for frame in reader.receive_data(await stream.receive()):
            if frame.call_id == LAST:
                assert frame.kind is Kind.REPLY, frame
                return


async def _read_to_end(stream: ConnectedStream) -> None:
    try:
        while True:
            await stream.receive()
    except (anyio.EndOfStream, anyio.BrokenResourceError):
        return


# ---- those who say nothing, or half of something


async def _half_open(watch: Watch, place: Place, whole: bool) -> Figures:
    """Say no more; those who have not proved themselves are cut."""
    streams: list[ConnectedStream] = []
    try:
        await _open_many(place, streams, HALF_OPEN)
        if whole and place.stranger:
            with trio.fail_after(CUT_SECONDS):
                async with trio.open_nursery() as nursery:
                    for stream in streams:
                        nursery.start_soon(_read_to_end, stream)
        await watch.called(CALLS if whole else FEW_CALLS)
    finally:
        await _close(streams)
    return {"total half-open": len(streams)}


async def _open_many(place: Place, streams: list[ConnectedStream], count: int) -> None:
    async def opener(first: int) -> None:
        for number in range(first, count, SENDERS):
            streams.append(await place.open())
            await streams[-1].send(place.halves[number % len(place.halves)])

    async with trio.open_nursery() as nursery:
        for first in range(SENDERS):
            nursery.start_soon(opener, first)


async def _close(streams: list[ConnectedStream]) -> None:
    with trio.CancelScope(shield=True):
        for stream in streams:
            await anyio.aclose_forcefully(stream)


# ---- out of descriptors


def _take_descriptors(watch: Watch, ways: list[Place], folder: Path, whole: bool) -> None:
    """As many as there can be, at each place, by those who do not go again until they are told."""
    for place in ways:  # what is made once is no leak
        trio.run(_take_all, place)
    for place, name in zip(ways, PLACES, strict=True):
        count = CALLS if whole else FEW_CALLS
        watch.during(name, partial(_take_all, place, partial(watch.called, count)))
        told = "".join(file.read_text() for file in (folder / LOGS).rglob("*.log"))
        assert any(reason in told for reason in REFUSED), name


async def _take_all(place: Place, called: Wait = trio.lowlevel.checkpoint) -> Figures:
    streams: list[ConnectedStream] = []
    try:
        for _ in range(DESCRIPTORS):
            with trio.move_on_after(OPEN_SECONDS):
                try:
                    streams.append(await place.open())
                except (anyio.EndOfStream, anyio.BrokenResourceError, OSError):
                    continue  # refused
        await called()
    finally:
        await _close(streams)
    return {"total connections": len(streams)}

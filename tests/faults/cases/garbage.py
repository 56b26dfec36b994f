"""Garbage: strangers, clients and peers send what is not the protocol."""

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
from tests.faults.daemon import LOGS, SLAVES, daemon
from tests.faults.good_client import SIMULATION
from tests.faults.hostile_bytes import FOUR_GIB, Garbage, bombs, mutations, request
from tests.faults.monitor import MOST_MIB, P99_SECONDS, RECOVERY_SECONDS, Monitor
from tests.faults.registry import Figures, row
from tests.faults.targets import Target, find_targets

NAME = "row-10"
TARGETS = (
    "a stranger at the daemon",
    "a client at the daemon",
    "a client of a host",
    "a stranger at a slave",
    "a peer of a slave",
)
SCARCE = "all of them, 256 descriptors a process"
CASES = (*TARGETS, SCARCE)
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
# How long a daemon and a slave wait for a peer's proof of identity, and a margin.
CUT_SECONDS = 5.0 + 2.0
# Calls of the good client, at least: its slowest hundredth must be more than one call.
CALLS, FEW_CALLS = 300, 100
# A target that accepts no more connections does not answer.
OPEN_SECONDS = 0.1
REFUSED = ("are open", "Too many open files", "no descriptor is left")

Wait = Callable[[], Awaitable[None]]


@row(
    10,
    f"mutated frames, {len(TARGETS) * WHOLE_ROUNDS * FRAMES:,}; nesting and length bombs, "
    f"{len(TARGETS) * WHOLE_ROUNDS * BOMBS:,}; a 4 GiB header; {HALF_OPEN:,} half-open "
    f"connections; {DESCRIPTORS} descriptors in all",
    f"0 crashes; memory + <= {MOST_MIB} MiB; a good client's p99 <= {1000 * P99_SECONDS:.0f} ms; "
    f"recovers <= {RECOVERY_SECONDS:g} s",
    cases=CASES,
    rounds=len(CASES) * (1 + WHOLE_ROUNDS),
    short=len(CASES),
    quick=0,
)
def garbage(case: str, number: int, folder: Path) -> Figures:
    """Attack a daemon that has a simulation and a good client."""
    whole = number >= len(CASES)
    chance = random.Random(number)
    with daemon(NAME, folder, descriptors=DESCRIPTORS if case == SCARCE else None) as running:
        with connect_sync(NAME, timeout=BOUND_SECONDS) as client:
            _create(client)
            targets = find_targets(NAME, client, SIMULATION)
            with Monitor(NAME, running, folder, whole) as monitor:
                if case == SCARCE:
                    _take_descriptors(monitor, list(targets.values()), folder, whole)
                else:
                    _send(monitor, targets[case], chance, whole)
        return monitor.figures


def _create(client: SyncClient) -> None:
    client.create(SIMULATION, slave_addrs=SLAVES)
    with client.attach(SIMULATION) as simulation:
        for addr in simulation.get_addrs():
            simulation.spawn("tests.support.agents:Echo", addr=addr)
        simulation.spawn("tests.faults.agents:Insider", addr=simulation.get_addrs()[0])
        simulation.trigger_all(numpy.zeros(1))  # some garbage loads it, as any array does


def _send(monitor: Monitor, target: Target, chance: random.Random, whole: bool) -> None:
    frames, some = (FRAMES, BOMBS) if whole else (FEW_FRAMES, FEW_BOMBS)
    kinds = mutations(chance, target.sound), bombs(chance, target.calls)

    async def send(frames: int, some: int) -> Figures:
        sent = [await _pester(target, *each) for each in zip(kinds, (frames, some), strict=True)]
        await _converse(target, [], FOUR_GIB + bytes(1 << 20))
        return {"total frames": sent[0], "total bombs": sent[1], "total 4 GiB headers": 1}

    trio.run(send, FEW_FRAMES, FEW_BOMBS)  # what is made once is not a leak
    monitor.during("garbage", partial(send, frames, some))
    monitor.during("half-open", partial(_half_open, monitor, target, whole))


# ---- garbage


async def _pester(target: Target, kind: Garbage, count: int) -> int:
    """Send at least so many of a kind, over several connections at a time; how many."""
    sent = 0

    async def sender() -> None:
        nonlocal sent
        while sent < count:
            within = 0 if target.stranger else min(BATCH, count - sent - 1)
            sent += within + 1
            await _converse(target, [kind.within() for _ in range(within)], kind.breaking())

    async with trio.open_nursery() as nursery:
        for _ in range(SENDERS):
            nursery.start_soon(sender)
    return sent


async def _converse(target: Target, within: list[bytes], breaking: bytes) -> None:
    """Send all of it; a call behind what must not end the connection is answered."""
    stream = await target.open()
    try:
        with trio.fail_after(STUCK_SECONDS):
            if within:
                call = request(*target.calls[0], *target.args, call_id=LAST)
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


async def _half_open(monitor: Monitor, target: Target, whole: bool) -> Figures:
    """Say no more; those who have not proved themselves are cut."""
    streams: list[ConnectedStream] = []
    try:
        await _open_many(target, streams, HALF_OPEN)
        if whole and target.stranger:
            with trio.fail_after(CUT_SECONDS):
                async with trio.open_nursery() as nursery:
                    for stream in streams:
                        nursery.start_soon(_read_to_end, stream)
        await monitor.called(CALLS if whole else FEW_CALLS)
    finally:
        await _close(streams)
    return {"total half-open": len(streams)}


async def _open_many(target: Target, streams: list[ConnectedStream], count: int) -> None:
    async def opener(first: int) -> None:
        for number in range(first, count, SENDERS):
            streams.append(await target.open())
            await streams[-1].send(target.halves[number % len(target.halves)])

    async with trio.open_nursery() as nursery:
        for first in range(SENDERS):
            nursery.start_soon(opener, first)


async def _close(streams: list[ConnectedStream]) -> None:
    with trio.CancelScope(shield=True):
        for stream in streams:
            await anyio.aclose_forcefully(stream)


# ---- out of descriptors


def _take_descriptors(monitor: Monitor, targets: list[Target], folder: Path, whole: bool) -> None:
    """Open as many connections as possible at each target, and keep them while the client calls."""
    for target in targets:  # what is made once is not a leak
        trio.run(_take_all, target)
    for target, name in zip(targets, TARGETS, strict=True):
        count = CALLS if whole else FEW_CALLS
        monitor.during(name, partial(_take_all, target, partial(monitor.called, count)))
        logs = "".join(file.read_text() for file in (folder / LOGS).rglob("*.log"))
        assert any(reason in logs for reason in REFUSED), name


async def _take_all(target: Target, called: Wait = trio.lowlevel.checkpoint) -> Figures:
    streams: list[ConnectedStream] = []
    try:
        for _ in range(DESCRIPTORS):
            with trio.move_on_after(OPEN_SECONDS):
                try:
                    streams.append(await target.open())
                except (anyio.EndOfStream, anyio.BrokenResourceError, OSError):
                    continue  # refused
        await called()
    finally:
        await _close(streams)
    return {"total connections": len(streams)}

"""The row about memory that clients may take: by creates that fail, and by answers left unread."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import anyio
import pytest
import trio

from creamas_sc.client import SyncClient, connect_sync
from creamas_sc.errors import CreamasError
from creamas_sc.runtime.paths import daemon_socket
from tests.faults.daemon import SLAVES, Daemon, daemon
from tests.faults.hostile_bytes import request
from tests.faults.monitor import proportional_kib
from tests.faults.registry import Figures, row
from tests.support.daemon_clients import connect_socket, shake_hands

NAME = "row-20"
CREATES = "creates that fail"
UNREAD_OF_DAEMON, UNREAD_OF_HOST = "answers of the daemon unread", "answers of a host unread"
CASES = (UNREAD_OF_DAEMON, UNREAD_OF_HOST, CREATES)
# So many MiB of answers may wait for one client.
UNREAD_MIB = {UNREAD_OF_DAEMON: 64, UNREAD_OF_HOST: 256}
TIMES, MIB = 30, 20
# Orders for processes pass through tractor, which takes seconds for each of these.
CREATE_SECONDS = 60.0
SHORT_TIMES, SHORT_MIB = 200, 4
SHORT_CREATES = 25
# Of a value that is being sent there are so many copies.
COPIES = 3
# Of simulations that have ended, 16 MiB are kept, and allocators keep some.
KEPT_MIB = 48
# What malloc keeps in host and slave of blocks of less than 32 MiB that were freed: as measured, up
# to 160 MiB in every fourth run. What is unread is several times that.
HEAP_MIB = {UNREAD_OF_HOST: 208}
# It grows no more after these.
STEADY_SECONDS = 1.0
GOOD_SECONDS = 5.0
FREED_SECONDS = 5.0
SAMPLE_SECONDS = 0.02


@row(
    20,
    f"{TIMES} creates with {MIB} MiB of environment fail; {TIMES} answers of {MIB} MiB unread",
    f"memory while it lasts bounded; <= {KEPT_MIB} MiB more {FREED_SECONDS:g} s after it; "
    f"good calls <= {GOOD_SECONDS:g} s",
    cases=CASES,
    rounds=4 * len(CASES),
    short=len(CASES),
    quick=0,
)
def hoard(case: str, number: int, folder: Path) -> Figures:
    """Do that to a daemon with a simulation."""
    whole = number >= len(CASES)
    times, mib = (TIMES, MIB) if whole else (SHORT_TIMES, SHORT_MIB)
    with (
        daemon(NAME, folder) as running,
        connect_sync(NAME, timeout=CREATE_SECONDS) as client,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("LARGE", "x" * (mib << 20))
        client.create("one", slave_addrs=SLAVES[:1])
        with client.attach("one") as simulation:
            _, addr = simulation.spawn("tests.faults.agents:Holder")
            before = _mib(running)
            limit = KEPT_MIB + COPIES * mib
            if case == CREATES:
                times = times if whole else SHORT_CREATES
                most = max(_fail(client, running, number) for number in range(times))
            elif case == UNREAD_OF_DAEMON:
                limit += UNREAD_MIB[case]
                calls = [request(None, "inspect", "one", call_id=2 + n) for n in range(times)]
                held = _host_stopped(running, client)
                most = trio.run(_ask, running, client, request(None, "status"), calls, held)
            else:
                limit += UNREAD_MIB[case]
                call = addr, "give_bytes", mib << 20, times
                calls = [request(*call, call_id=2 + n) for n in range(times)]
                first = request(None, "attach", "one", {})
                most = trio.run(_ask, running, client, first, calls, nullcontext())
        heap = HEAP_MIB.get(case, 0)
        assert most - before <= limit + heap, f"{most - before:.0f} MiB more"
        kept = _kept(running, before, KEPT_MIB + heap)
    return {"MiB more": most - before, "MiB more after it": kept}


def _fail(client: SyncClient, running: Daemon, number: int) -> float:
    with pytest.raises(CreamasError, match="no_such"):
        client.create(f"bad{number}", env_cls="no_such:Environment")
    return _mib(running)


async def _ask(
    running: Daemon,
    client: SyncClient,
    first: bytes,
    calls: list[bytes],
    held: AbstractContextManager[None],
) -> float:
    """Make calls without reading an answer; the most that the daemon took until the end.

    Args:
        held: At the end of its block the answers are made, all at once.
    """
    stream = await connect_socket(daemon_socket(NAME))
    try:
        await shake_hands(stream)
        await stream.send(first)
        await stream.receive()
        with held:
            await stream.send(b"".join(calls))
        return _most(running, client)  # nothing else runs on this loop
    finally:
        with trio.CancelScope(shield=True):
            await anyio.aclose_forcefully(stream)


def _most(running: Daemon, client: SyncClient) -> float:
    most, grown_at = 0.0, time.monotonic()
    while time.monotonic() - grown_at < STEADY_SECONDS:
        _expect_service(client)
        if (now := _mib(running)) > most + 1:
            most, grown_at = now, time.monotonic()
        time.sleep(SAMPLE_SECONDS)
    return most


def _expect_service(client: SyncClient) -> None:
    began = time.monotonic()
    assert [each["name"] for each in client.ls()] == ["one"]
    assert time.monotonic() - began <= GOOD_SECONDS


@contextmanager
def _host_stopped(running: Daemon, client: SyncClient) -> Iterator[None]:
    """Inspects wait for a host until their time is up."""
    pid = running.pids["host one"]
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
        _expect_service(client)
    finally:
        os.kill(pid, signal.SIGCONT)


def _kept(running: Daemon, before: float, limit: float) -> float:
    """What the daemon still has more, once that is within the limit."""
    began = time.monotonic()
    while (more := _mib(running) - before) > limit:
        assert time.monotonic() - began < FREED_SECONDS, f"{more:.0f} MiB more"
        time.sleep(SAMPLE_SECONDS)
    return more


def _mib(running: Daemon) -> float:
    return sum(map(proportional_kib, running.program.members())) / 1024

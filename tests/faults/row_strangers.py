"""The row about strangers, and about clients and peers that send what is no frame."""

from __future__ import annotations

import os
import random
import resource
import socket
import statistics
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import trio

from creamas_sc import Environment, MultiEnvironment, run
from creamas_sc.client import SyncSimulation, connect_sync
from creamas_sc.errors import CreamasError
from creamas_sc.identity import daemon_socket
from creamas_sc.mp import EnvManager
from creamas_sc.wire.endpoint import split_address
from creamas_sc.wire.frames import FrameReader
from creamas_sc.wire.handshake import Handshake, Identity
from creamas_sc.wire.streams import ConnectedStream
from tests.agents import Echo
from tests.faults.board import Figures, row
from tests.faults.daemon import daemon
from tests.faults.hostile import FOUR_GIB, Open, bombs, mutated, pester, request
from tests.faults.scene import MARK, Scene, marked
from tests.supervisor_daemon import connect_socket, shake_hands

NAME = "row-10"
ANY_PORT = ("localhost", 0)
BOUND_SECONDS = 120.0
P99_SECONDS = 0.1
RECOVERY_SECONDS = 1.0
MOST_BYTES = 32 << 20
SAMPLE_SECONDS = 0.05
PAUSE_SECONDS = 0.005
MIN_CALLS = 200
FRAMES = 9_000
BOMBS = 300
HALF_OPEN = 1000
DESCRIPTORS = 256
WARM = 200

TARGETS = ("door", "client at the door", "client of a host", "stranger at a slave", "slave's peer")


@row(
    10,
    f"mutated frames, {FRAMES} a round; nesting and length bombs, {BOMBS} a round; a 4 GiB header; "
    f"{HALF_OPEN} half-open connections; {DESCRIPTORS} descriptors in all",
    f"0 crashes; memory + <= {MOST_BYTES >> 20} MiB; a good client's p99 <= 100 ms; "
    f"recovers <= {RECOVERY_SECONDS:g} s",
    cases=(
        *(f"mutated, {target}" for target in TARGETS),
        *(f"bombs, {target}" for target in TARGETS[1:]),
        *(f"4 GiB, {target}" for target in TARGETS),
        "half-open",
        "descriptors",
    ),
    rounds=23 * 16,
    short=3,
)
def strangers(case: str, number: int, folder: Path) -> Figures:
    """Let them at it, beside a client that means well."""
    what, _, target = case.partition(", ")
    chance = random.Random(number)
    if target == "slave's peer":
        return _beside_a_script(what, chance)
    with daemon(NAME, folder) as running:
        if what == "descriptors":
            _limit_descriptors(running.scene)
        with connect_sync(NAME, timeout=BOUND_SECONDS) as client:
            client.create("good", slave_addrs=[ANY_PORT] * 2)
            with client.attach("good") as good:
                echo, _ = good.spawn("tests.agents:Echo")
                pids = running.scene.members
                watch = _Watch(partial(echo.evaluate, 1), pids, afresh=_attach_anew)
                attack = _attack(what, target, chance, _opens(good, target), echo.addr)
                return watch.during(attack, everybody_in=what != "descriptors")


def _beside_a_script(what: str, chance: random.Random) -> Figures:
    mark = f"row-10-{chance.random()}"
    os.environ[MARK] = mark
    try:
        with MultiEnvironment(ANY_PORT, Environment) as menv:
            run(menv.spawn_slaves([ANY_PORT] * 2, Environment, EnvManager))
            echo, addr = run(menv.spawn(Echo))
            open_ = partial(_peer, menv, split_address(addr)[1])
            ask = partial(_evaluate, echo)
            watch = _Watch(ask, partial(marked, mark), afresh=ask)
            attack = _attack(what, "slave's peer", chance, open_, split_address(addr)[2])
            return watch.during(attack)
    finally:
        del os.environ[MARK]


def _evaluate(echo: Any) -> Any:
    return run(echo.evaluate(1))


def _limit_descriptors(scene: Scene) -> None:
    for pid in scene.members():
        _, most = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (DESCRIPTORS, most))


def _attach_anew() -> None:
    with connect_sync(NAME, timeout=RECOVERY_SECONDS) as client, client.attach("good") as good:
        good.progress()


# ---- who they are


def _opens(good: SyncSimulation, target: str) -> Open:
    if target.endswith("a slave"):
        return partial(_tcp, split_address(good.get_addrs()[0])[1])
    ways = {"client at the door": _proved, "client of a host": _attached}
    return ways.get(target, _unproved)


async def _unproved() -> ConnectedStream:
    while True:
        try:
            return await connect_socket(daemon_socket(NAME))
        except BlockingIOError:  # its queue is full
            await trio.sleep(0.01)


async def _proved() -> ConnectedStream:
    return await _opened(await _unproved(), request(None, "ls"))


async def _attached() -> ConnectedStream:
    return await _opened(await _unproved(), request(None, "attach", "good", {}))


async def _opened(stream: ConnectedStream, first: bytes) -> ConnectedStream:
    done = False
    try:
        await shake_hands(stream)
        await stream.send(first)
        done = True
        return stream
    finally:
        if not done:
            with trio.CancelScope(shield=True):
                await anyio.aclose_forcefully(stream)


async def _tcp(port: int) -> ConnectedStream:
    sock = trio.socket.socket()
    try:
        await sock.connect(("127.0.0.1", port))
    except BaseException:
        sock.close()
        raise
    return ConnectedStream(socket.socket(fileno=sock.detach()))


async def _peer(menv: MultiEnvironment, port: int) -> ConnectedStream:
    """One that has the simulation's key, as other slaves do."""
    simulation, key, _ = menv._slaves._member  # type: ignore[misc]
    identity = Identity(simulation, key, "environment", "tcp://localhost:1/", os.getpid())
    stream = await _tcp(port)
    handshake, reader = Handshake.client(identity), FrameReader()
    try:
        while True:
            for data in handshake.data_to_send():
                await stream.send(data)
            if handshake.complete:
                return stream
            for frame in reader.receive_data(await stream.receive()):
                handshake.receive(frame)
    except BaseException:
        with trio.CancelScope(shield=True):
            await anyio.aclose_forcefully(stream)
        raise


# ---- what they do


Attack = Callable[[int], Awaitable[None]]


def _attack(what: str, target: str, chance: random.Random, open_: Open, agent: Any) -> Attack:
    """What is done, in part ``1 / n`` for a warm-up and then whole."""
    to = agent if target in ("client of a host", "slave's peer") else None
    method = "evaluate" if to is not None else "ls"

    async def attack(part: int) -> None:
        if what == "mutated":
            sound = [request(to, method), request(to, method, "x", {1: (2,)}, call_id=2)]
            await pester(open_, mutated(chance, sound), FRAMES // part)
        elif what == "bombs":
            await pester(open_, bombs(chance, to, method), BOMBS // part)
        elif what == "4 GiB":
            await pester(open_, iter(lambda: FOUR_GIB, b""), WARM)
        else:
            count = DESCRIPTORS if what == "descriptors" else HALF_OPEN
            await _half_open(open_, count // part)

    return attack


async def _half_open(open_: Open, count: int) -> None:
    """Say nothing, for a while."""
    streams: list[ConnectedStream] = []
    try:
        for _ in range(count):
            streams.append(await open_())
            await trio.lowlevel.checkpoint()
        await trio.sleep(RECOVERY_SECONDS)
    finally:
        with trio.CancelScope(shield=True):
            for stream in streams:
                await anyio.aclose_forcefully(stream)


# ---- what is seen meanwhile


class _Watch:
    """A client that means well, and what the processes do that serve it.

    Args:
        ask: Its call.
        pids: The processes that are to live through it.
        afresh: Comes in anew.
    """

    def __init__(
        self,
        ask: Callable[[], object],
        pids: Callable[[], dict[int, str]],
        afresh: Callable[[], object],
    ) -> None:
        self._ask = ask
        self._pids = pids
        self._afresh = afresh
        self._over = threading.Event()
        self._calls: list[float] = []
        self._most = 0

    def during(self, attack: Attack, *, everybody_in: bool = True) -> Figures:
        """Watch an attack; what it cost.

        Args:
            everybody_in: Others get in meanwhile.
        """
        trio.run(attack, 10)  # what is made once is no leak
        pids = self._pids()
        before = _memory(pids)
        with self._watching(pids):
            trio.run(_bounded, attack)
            began = time.monotonic()
            while True:
                try:
                    self._afresh()
                    break
                except CreamasError:
                    assert time.monotonic() - began < RECOVERY_SECONDS, "nobody gets in any more"
            recovered = time.monotonic() - began
        assert self._pids() == pids
        p99 = statistics.quantiles(self._calls, n=100)[-1]
        grown = self._most - before
        assert p99 <= P99_SECONDS, f"p99 {p99:.3f} s of {len(self._calls)} calls"
        assert grown <= MOST_BYTES, f"{grown >> 20} MiB more"
        assert recovered <= RECOVERY_SECONDS, f"{recovered:.2f} s"
        return {
            "p99 in ms": 1000 * p99,
            "MiB more": max(grown, 0) / (1 << 20),
            "recovered in s": recovered,
        }

    @contextmanager
    def _watching(self, pids: dict[int, str]) -> Iterator[None]:
        with ThreadPoolExecutor(1) as executor:
            asking = executor.submit(self._ask_on, pids)
            try:
                yield
            finally:
                self._over.set()
                asking.result(BOUND_SECONDS)

    def _ask_on(self, pids: dict[int, str]) -> None:
        sampled = 0.0
        while not self._over.is_set() or len(self._calls) < MIN_CALLS:
            began = time.monotonic()
            self._ask()
            now = time.monotonic()
            self._calls.append(now - began)
            if now > sampled + SAMPLE_SECONDS:
                self._most, sampled = max(self._most, _memory(pids)), now
            self._over.wait(PAUSE_SECONDS)  # the strangers are in this process, too


async def _bounded(attack: Attack) -> None:
    with trio.fail_after(BOUND_SECONDS):
        await attack(1)


def _memory(pids: dict[int, str]) -> int:
    """Bytes that the processes have resident."""
    pages = [Path(f"/proc/{pid}/statm").read_text().split()[1] for pid in pids]
    return sum(map(int, pages)) * resource.getpagesize()

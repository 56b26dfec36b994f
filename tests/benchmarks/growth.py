"""How cost grows: ``python -m tests.benchmarks.growth [agents slaves clients payloads memory]``.

Prints the figures at each size, and for each row of them a line: linear or not, and where it bends.
All of it takes about ten minutes; sizes may be chosen, so that it is short.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence

import trio

from tests.benchmarks import memory_growth
from tests.benchmarks.__main__ import load, prepare
from tests.benchmarks.scaling import Point, describe_growth
from tests.benchmarks.society import DAEMON, Society, society

SLAVES = 2
REPEATS = 3
CALLS_A_CLIENT = 50
LEAST_SECONDS = 0.2


class Rows:
    """Rows of figures: for each title, sizes and costs in seconds."""

    def __init__(self, what: str) -> None:
        self.what = what
        self._rows: dict[str, list[Point]] = {}

    def add(self, title: str, size: int, seconds: float) -> None:
        """Note a figure."""
        self._rows.setdefault(title, []).append((size, seconds))

    def show(self) -> None:
        """Print them."""
        for title, points in self._rows.items():
            figures = ", ".join(f"{_time(cost)} at {size:,}" for size, cost in points)
            print(f"{title}, by {self.what}: {figures}")
            print(f"    {describe_growth(points)}", flush=True)


def _time(seconds: float) -> str:
    for unit, least in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= least:
            return f"{seconds / least:.3g} {unit}"
    return f"{seconds * 1e6:.3g} us"


async def _median(call: Callable[[], Awaitable[object]]) -> float:
    """Seconds of a call, of a few after one that warms up."""
    await call()
    took = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        await call()
        took.append(time.perf_counter() - began)
    return statistics.median(took)


def agents(sizes: Sequence[int]) -> None:
    """A society of each size: made, stepped, connected to each other, and asked for that."""
    rows = Rows("agents")

    async def measure(system: Society, n: int) -> None:
        await system.start()
        began = time.perf_counter()
        addrs = await system.spawn("Counter", n)
        rows.add("spawn_n", n, time.perf_counter() - began)
        rows.add("trigger_all", n, await _median(system.trigger_all))
        known = {addr: [(addrs[i - 1], {"w": 0.5})] for i, addr in enumerate(addrs)}
        began = time.perf_counter()
        await system.create_connections(known)
        rows.add("create_connections, 1 each", n, time.perf_counter() - began)
        rows.add("get_connections, 1 each", n, await _median(system.get_connections))
        await system.stop()

    for n in sizes:
        system = society("trio", SLAVES)
        system.run(measure, system, n)
    rows.show()


def slaves(sizes: Sequence[int]) -> None:
    """Slaves that come up, step 100 agents each, and are closed."""
    rows = Rows("slaves")

    async def measure(system: Society, n: int) -> None:
        began = time.perf_counter()
        await system.start()
        rows.add("start", n, time.perf_counter() - began)
        await system.spawn("Counter", 100 * n)
        rows.add("trigger_all, 100 agents a slave", n, await _median(system.trigger_all))
        began = time.perf_counter()
        await system.stop()
        rows.add("close", n, time.perf_counter() - began)

    for n in sizes:
        system = society("trio", n)
        system.run(measure, system, n)
    rows.show()


def clients(sizes: Sequence[int]) -> None:
    """Clients of a daemon's simulation, all in one process: they attach, then call at once."""
    rows = Rows("clients")

    async def measure(system: Society, n: int) -> None:
        from creamas_sc.client import connect

        await system.start()
        attached, go = trio.Event(), trio.Event()
        there = 0

        async def client() -> None:
            nonlocal there
            async with connect(DAEMON) as daemon, daemon.attach(system.name) as simulation:
                there += 1
                if there == n:
                    attached.set()
                await go.wait()
                for _ in range(CALLS_A_CLIENT):
                    await simulation.get_age()

        began = time.perf_counter()
        async with trio.open_nursery() as nursery:
            for _ in range(n):
                nursery.start_soon(client)
            await attached.wait()
            rows.add("attach", n, time.perf_counter() - began)
            began = time.perf_counter()
            go.set()
        rows.add(f"{CALLS_A_CLIENT} calls each, and detach", n, time.perf_counter() - began)
        await system.stop()

    with Society.surroundings("attached"):
        for n in sizes:
            system = society("attached", SLAVES)
            system.run(measure, system, n)
    rows.show()


def payloads(sizes: Sequence[int]) -> None:
    """A call across slaves with bytes of each size, in KiB."""
    rows = Rows("KiB")

    async def measure(system: Society) -> None:
        await system.start()
        await system.setup_calls(1, False)
        for kind in ("bytes", "numpy"):
            for kib in sizes:
                await system.payload(kind, kib << 10, 2)
                times, took = 1, 0.0
                while took < LEAST_SECONDS:
                    times *= 2
                    took = await system.payload(kind, kib << 10, times)
                rows.add(f"a call with {kind}", kib, took / times)
        await system.stop()

    system = society("trio", SLAVES)
    system.run(measure, system)
    rows.show()


KINDS: dict[str, Callable[[Sequence[int]], None]] = {
    "agents": agents,
    "slaves": slaves,
    "clients": clients,
    "payloads": payloads,
}
SIZES: dict[str, tuple[int, ...]] = {
    "agents": (1_000, 10_000, 100_000, 1_000_000),
    "slaves": (1, 2, 4, 8, 16),
    "clients": (1, 10, 50, 200),
    "payloads": (1, 16, 64, 256, 1024, 16 << 10, 64 << 10),
}
STEPS = 100_000


def _sizes(text: str) -> tuple[int, ...]:
    return tuple(sorted(map(int, text.split(","))))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.growth", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("kinds", nargs="*", choices=[[], *KINDS, "memory"], metavar="KIND")
    for kind, sizes in SIZES.items():
        parser.add_argument(
            f"--{kind}", type=_sizes, default=sizes, metavar="N,N", help=f"{sizes} by default"
        )
    parser.add_argument("--steps", type=int, default=STEPS, help=f"for memory; {STEPS} by default")
    args = parser.parse_args()
    prepare()
    print(load(), flush=True)
    for kind in args.kinds or [*KINDS, "memory"]:
        if kind == "memory":
            memory_growth.show(args.steps)
        else:
            KINDS[kind](getattr(args, kind))
    print(load())


if __name__ == "__main__":
    main()

"""The workloads, written once for every system, but for those that are seen from outside."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.benchmarks.adapter import Adapter
from tests.benchmarks.measures import Memory, memory, percentile
from tests.benchmarks.work import burn

__all__ = ["WORKLOADS", "Report", "Sizes"]

SETTLE_SECONDS = 0.5
WARM_CALLS = 100

# Called with a metric, its value, its unit, and what tells it from others of that metric.
Report = Callable[..., None]


@dataclass(frozen=True)
class Sizes:
    """How much of everything.

    Attributes:
        cold: W1 and W8: numbers of slaves.
        one_by_one, spawn: W2: agents, alone and at once.
        agents, steps: W3: sizes of the society, and how many steps at each.
        many, many_steps: W3: agents that return their arguments, or wait; steps.
        burns, burn_steps, burn_rounds: W4.
        callers, calls, alone: W5: callers, calls of each, calls of the lone one.
        connected, degree: W6: agents, connections of each.
        big, small: W7: artifacts of 1 MiB and 64 KiB.
        remembered: W9: agents.
        imports: W10: slaves, simulations.
        callers_in_step: W11: callers, calls of each in a step.
        critics, asked: W12: agents, and how many each asks.
        neighbours: W13 and W14: agents.
        calls_steps: W11 to W14: steps.
    """

    cold: tuple[int, ...] = (4, 8)
    one_by_one: int = 200
    spawn: tuple[int, ...] = (1_000, 10_000)
    agents: tuple[int, ...] = (100, 1_000, 10_000)
    steps: tuple[int, ...] = (200, 50, 10)
    many: int = 10_000
    many_steps: int = 5
    burns: int = 100
    burn_steps: int = 5
    burn_rounds: int = 5
    callers: int = 100
    calls: int = 50
    alone: int = 2_000
    connected: int = 10_000
    degree: int = 10
    big: int = 100
    small: int = 500
    remembered: int = 10_000
    imports: tuple[int, int] = (2, 4)
    callers_in_step: tuple[tuple[int, int], ...] = ((1, 1_000), (100, 50), (1_000, 10), (10_000, 2))
    critics: int = 200
    asked: int = 10
    neighbours: int = 1_000
    calls_steps: int = 3


FULL = Sizes()
TINY = Sizes(
    cold=(1,),
    one_by_one=2,
    spawn=(10,),
    agents=(4, 10),
    steps=(2, 2),
    many=10,
    many_steps=2,
    burns=2,
    burn_steps=1,
    burn_rounds=1,
    callers=3,
    calls=2,
    alone=20,
    connected=10,
    degree=2,
    big=2,
    small=2,
    remembered=10,
    imports=(1, 1),
    callers_in_step=((1, 3), (2, 2)),
    critics=4,
    asked=2,
    neighbours=100,
    calls_steps=1,
)


@contextmanager
def _timed() -> Iterator[list[float]]:
    """Appends the seconds of its block to the list that it gives."""
    took: list[float] = []
    began = time.perf_counter()
    yield took
    took.append(time.perf_counter() - began)


async def w2(system: Adapter, report: Report, sizes: Sizes) -> None:
    """Spawning: one by one, many at once, and one by one beside many."""
    await system.start()
    with _timed() as took:
        for _ in range(sizes.one_by_one):
            await system.spawn_one("Counter")
    report("spawn one by one", sizes.one_by_one / took[0], "agents/s")
    for n in sizes.spawn:
        with _timed() as took:
            addrs = await system.spawn("Counter", n)
        assert len(set(addrs)) == n
        report("spawn_n", n / took[0], "agents/s", n=n)
    with _timed() as took:
        for _ in range(sizes.one_by_one):
            await system.spawn_one("Counter")
    report("spawn one by one, late", sizes.one_by_one / took[0], "agents/s")
    await system.stop()


async def w3(system: Adapter, report: Report, sizes: Sizes) -> None:
    """Steps: `trigger_all`, all results in the master when it returns."""
    await system.start()
    there = 0
    for n, steps in zip(sizes.agents, sizes.steps, strict=True):
        await system.spawn("Counter", n - there)
        there = n
        await _steps(system, report, steps, "acts", n)
    await system.stop()
    for kind, metric, args in (
        ("Echo", "acts, default", ()),
        ("Echo", "acts, default, two arguments", (7, "red")),
        ("Pausing", "acts that wait", ()),
    ):
        await system.start()
        await system.spawn(kind, sizes.many)
        results = await _steps(system, report, sizes.many_steps, metric, sizes.many, *args)
        if kind == "Echo":
            assert results[-1] == (args, {})
        await system.stop()


async def _steps(
    system: Adapter, report: Report, steps: int, metric: str, n: int, *args: Any
) -> list[Any]:
    results = await system.trigger_all(*args)  # the first one warms up
    took = []
    for _ in range(steps):
        with _timed() as took_one:
            results = await system.trigger_all(*args)
        took += took_one
        assert len(results) == n
    report(metric, n * steps / sum(took), "acts/s", n=n)
    report(f"step, {metric}", percentile(took, 50) * 1e3, "ms", n=n)
    return results


async def w4(system: Adapter, report: Report, sizes: Sizes) -> None:
    """Efficiency: a millisecond an act, against the same work in a plain loop, per slave."""
    await system.start()
    await system.spawn("Burner", sizes.burns)
    await system.trigger_all()
    shares = []
    for _ in range(sizes.burn_rounds):
        with _timed() as plain:
            for _ in range(sizes.burns * sizes.burn_steps):
                burn()
        with _timed() as took:
            for _ in range(sizes.burn_steps):
                await system.trigger_all()
        shares.append(plain[0] / took[0] / system.slaves)
    report("efficiency", percentile(shares, 50), "of 1")
    await system.stop()


async def w5(system: Adapter, report: Report, sizes: Sizes) -> None:
    """Calls from agent to agent, between slaves and inside one."""
    await system.start()
    for where in ("across", "inside"):
        try:
            await system.setup_calls(sizes.callers, where == "inside")
        except NotImplementedError:
            continue
        await system.run_calls(2)
        with _timed() as took:
            await system.run_calls(sizes.calls)
        report("calls", sizes.callers * sizes.calls / took[0], "calls/s", where=where)
        await system.latencies(WARM_CALLS)
        alone = await system.latencies(sizes.alone)
        report("latency p50", percentile(alone, 50) * 1e6, "us", where=where)
        report("latency p99", percentile(alone, 99) * 1e6, "us", where=where)
    await system.stop()


async def w6(system: Adapter, report: Report, sizes: Sizes) -> None:
    """A social network: addresses, then connections there and back."""
    n, degree = sizes.connected, sizes.degree
    await system.start()
    await system.spawn("Counter", n)
    with _timed() as took:
        addrs = await system.get_agents()
    report("get_agents", took[0], "s")
    assert len(set(addrs)) == n
    network = {
        addr: [(addrs[(i + 997 * j + 1) % n], {"w": 0.5}) for j in range(degree)]
        for i, addr in enumerate(addrs)
    }
    with _timed() as took:
        made = await system.create_connections(network)
    report("create_connections", took[0], "s")
    assert sum(map(sum, made)) == len(made) * len(made[0])
    with _timed() as took:
        got = await system.get_connections()
    report("get_connections", took[0], "s")
    assert len(got) == n
    assert got[-1][1]
    await system.stop()


async def w7(system: Adapter, report: Report, sizes: Sizes) -> None:
    """Large values: an agent has another slave's agent judge an artifact."""
    await system.start()
    await system.setup_calls(1, False)
    for kind in ("numpy", "bytes"):
        for nbytes, times in ((1 << 20, sizes.big), (1 << 16, sizes.small)):
            await system.payload(kind, nbytes, 5)
            took = await system.payload(kind, nbytes, times)
            report("throughput", nbytes * times / took / 1e6, "MB/s", kind=kind, KiB=nbytes >> 10)
    await system.stop()


async def w9(system: Adapter, report: Report, sizes: Sizes) -> None:
    """Memory: of an idle slave, and of an agent."""
    await system.start()
    pids = await system.slave_pids()
    idle = _settled(pids)
    report("idle slave, PSS", sum(m.pss for m in idle) / len(idle) / 1024, "MiB")
    report("idle slave, own", sum(m.own for m in idle) / len(idle) / 1024, "MiB")
    await system.spawn("Counter", sizes.remembered)
    more = sum(m.own for m in _settled(pids)) - sum(m.own for m in idle)
    report("agent", more * 1024 / sizes.remembered, "bytes")
    await system.stop()


async def w11(system: Adapter, report: Report, sizes: Sizes) -> None:
    """Calls across slaves, made in steps by few and by many callers."""
    for callers, calls in sizes.callers_in_step:
        await system.start()
        await system.setup_step_calls(callers)
        await system.step_calls(1)
        with _timed() as took:
            for _ in range(sizes.calls_steps):
                await system.step_calls(calls)
        n = callers * calls * sizes.calls_steps
        report("calls", n / took[0], "calls/s", callers=callers)
        if callers == 1:
            report("call", took[0] / n * 1e6, "us", callers=callers)
        await system.stop()


async def w12(system: Adapter, report: Report, sizes: Sizes) -> None:
    """A society where each agent asks others for an opinion of an array of 32 x 32."""
    await system.start()
    await system.setup_opinions(sizes.critics)
    await system.ask_opinions(sizes.asked)
    with _timed() as took:
        for _ in range(sizes.calls_steps):
            await system.ask_opinions(sizes.asked)
    opinions = sizes.critics * sizes.asked * sizes.calls_steps
    report("opinions", opinions / took[0], "opinions/s")
    await system.stop()


async def w13(system: Adapter, report: Report, sizes: Sizes) -> None:
    """One act of a hundred takes a hundred times as long."""
    await _neighbours(system, report, sizes, "Uneven", "step, uneven")


async def w14(system: Adapter, report: Report, sizes: Sizes) -> None:
    """Each agent waits 50 ms for the outside."""
    await _neighbours(system, report, sizes, "Outside", "step, outside")


async def _neighbours(
    system: Adapter, report: Report, sizes: Sizes, kind: str, metric: str
) -> None:
    await system.start()
    await system.spawn(kind, sizes.neighbours)
    await system.trigger_neighbours(sizes.neighbours)
    took: list[float] = []
    for _ in range(sizes.calls_steps):
        with _timed() as took_one:
            results = await system.trigger_neighbours(sizes.neighbours)
        took += took_one
        assert len(results) == sizes.neighbours
    report(metric, percentile(took, 50) * 1e3, "ms", n=sizes.neighbours)
    await system.stop()


def _settled(pids: Iterable[int]) -> list[Memory]:
    """Of each, when it has come to rest."""
    time.sleep(SETTLE_SECONDS)
    return [memory(pid) for pid in pids]


WORKLOADS: dict[str, Callable[[Adapter, Report, Sizes], Awaitable[None]]] = {
    each.__name__: each for each in (w2, w3, w4, w5, w6, w7, w9, w11, w12, w13, w14)
}

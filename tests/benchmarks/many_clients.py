"""Clients that come, call and go at random while a simulation steps on: what it costs its steps.

    python -m tests.benchmarks.many_clients [--clients 50] [--seconds 60]

Starts a daemon with a society of 1,000 agents on 2 slaves. Prints what each kind of
call takes while nothing else goes on; then the rate of the simulation's own steps alone, with the
clients, and what is to be expected of it with them: host and slaves serve a call or a step at a
time, so the time that the clients' calls take is not there for steps.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from creamas_sc.client import connect

AGENTS = "tests.benchmarks.agents:Tally"
NAME = "crowd"
SLAVES = 2
ALONE = 31
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Report:
    """What was seen: steps and processor time in two stretches, and the clients' calls."""

    call_ms: dict[str, float] = field(default_factory=dict)
    alone: dict[str, float] = field(default_factory=dict)
    crowded: dict[str, float] = field(default_factory=dict)
    calls: Counter[str] = field(default_factory=Counter)
    visits: int = 0
    attach_seconds: list[float] = field(default_factory=list)


async def crowd(clients: int, seconds: float, agents: int) -> Report:
    """Create the simulation in the daemon that is there, measure it, and close it."""
    report = Report()
    async with connect() as client:
        await client.create(NAME, mgr_cls=None, slave_addrs=[("localhost", 0)] * SLAVES, seed=1)
        async with client.attach(NAME) as sim:
            for addr in await sim.get_addrs():
                await sim.spawn_n(AGENTS, agents // SLAVES, addr=addr)
            report.call_ms = {name(call): await _milliseconds(call, sim) for call in CALLS}
            report.call_ms["visit"] = await _milliseconds(_visit)
            await sim.start_steps()
            report.alone = await _stretch(sim, client, max(1.0, seconds / 6))
            async with trio.open_nursery() as nursery:
                for number in range(clients):
                    nursery.start_soon(_come_and_go, random.Random(number), report)
                report.crowded = await _stretch(sim, client, seconds)
                nursery.cancel_scope.cancel()
            await sim.pause()
        await client.close(NAME)
    return report


async def _stretch(sim: Any, client: Any, seconds: float) -> dict[str, float]:
    simulation = await client.inspect(NAME)
    pids = {p["slot"]: p["pid"] for p in simulation["processes"]}
    groups = {
        "slaves": [pid for slot, pid in pids.items() if slot != "host"],
        "host": [pids["host"]],
        "supervisor": [(await client.status())["pid"]],
        "clients": [os.getpid()],
    }
    began, steps = time.monotonic(), (await sim.progress())["step"]
    before = {name: sum(map(_cpu, group)) for name, group in groups.items()}
    await trio.sleep(seconds)
    steps, took = (await sim.progress())["step"] - steps, time.monotonic() - began
    used = {name: sum(map(_cpu, group)) - before[name] for name, group in groups.items()}
    return {
        "steps_per_second": steps / took,
        **{f"cpu_{name}": seconds / took for name, seconds in used.items()},
        "cpu_slaves_ms_a_step": 1000 * used["slaves"] / max(steps, 1),
    }


async def _milliseconds(call: Callable[..., Awaitable[object]], *args: Any) -> float:
    """What a call takes by itself; the median."""
    rng, times = random.Random(0), []
    for _ in range(ALONE):
        began = time.perf_counter()
        await call(*args, rng)
        times.append(time.perf_counter() - began)
    return 1000 * sorted(times)[ALONE // 2]


async def _visit(rng: random.Random) -> None:
    async with connect() as client, client.attach(NAME):
        pass


def name(call: Callable[..., object]) -> str:
    """What a kind of call is called in the report."""
    return call.__name__.strip("_")


def _cpu(pid: int) -> float:
    """Processor seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


async def _come_and_go(rng: random.Random, report: Report) -> None:
    while True:
        began = trio.current_time()
        async with connect() as client, client.attach(NAME) as sim:
            report.attach_seconds.append(trio.current_time() - began)
            report.visits += 1
            for _ in range(rng.randrange(1, 10)):
                call = rng.choice(CALLS)
                await call(sim, rng)
                report.calls[name(call)] += 1
                await trio.sleep(rng.expovariate(10))


async def _progress(sim: Any, rng: random.Random) -> None:
    assert (await sim.progress())["agents"] > 0


async def _get_agents(sim: Any, rng: random.Random) -> None:
    assert await sim.get_agents()


async def _call_an_agent(sim: Any, rng: random.Random) -> None:
    addr = rng.choice(await sim.get_agents())
    agent = await sim.connect(addr)
    assert await agent.get_count() >= 0


async def _trigger_act(sim: Any, rng: random.Random) -> None:
    slave = rng.choice(await sim.get_addrs())
    await sim.trigger_act(slave.removesuffix("/0") + "/1")


async def _give_up(sim: Any, rng: random.Random) -> None:
    with trio.move_on_after(rng.random() / 100):
        await sim.trigger_all()


async def _get_artifacts(sim: Any, rng: random.Random) -> None:
    await sim.get_artifacts(limit=10)


CALLS: list[Callable[[Any, random.Random], Awaitable[None]]] = [
    _progress,
    _get_agents,
    _call_an_agent,
    _trigger_act,
    _give_up,
    _get_artifacts,
]


@contextmanager
def _daemon() -> Iterator[None]:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_RUNTIME_DIR"] = os.environ["CREAMAS_LOG_FOLDER"] = folder
        command = [sys.executable, "-m", "supervisor.cli"]
        subprocess.run([*command, "start"], check=True)
        try:
            yield
        finally:
            subprocess.run([*command, "stop"], check=True)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--agents", type=int, default=1000)
    args = parser.parse_args()
    with _daemon():
        report = trio.run(crowd, args.clients, args.seconds, args.agents)
    attach = sorted(report.attach_seconds)
    counted = report.calls + Counter(visit=report.visits)
    busy = sum(n * report.call_ms[kind] for kind, n in counted.items()) / 1000 / args.seconds
    print(
        json.dumps(
            {
                "call_ms": report.call_ms,
                "alone": report.alone,
                "crowded": report.crowded,
                "rate": report.crowded["steps_per_second"] / report.alone["steps_per_second"],
                "expected_rate": 1 - busy,
                "visits": report.visits,
                "calls": dict(report.calls),
                "attach_ms_p50": 1000 * attach[len(attach) // 2],
                "attach_ms_max": 1000 * attach[-1],
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()

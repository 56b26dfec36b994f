"""Memory over many steps: whether it stays flat, in a master, a slave and a daemon's host."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from tests.benchmarks.measures import memory
from tests.benchmarks.scaling import Point, slope
from tests.benchmarks.society import Society, society

__all__ = ["show"]

SLAVES = 2
AGENTS = 100
SAMPLES = 50
# What the first steps fill and keep, such as free lists and caches.
WARM_UP = 0.2
# An allocator's noise over a whole run; what is kept for each of 100,000 steps is more.
NOISE_BYTES = 128 << 10

Samples = dict[str, list[Point]]


def show(steps: int) -> None:
    """Print the memory of each process at the start and the end, and its slope, for both forms."""
    for title, form in (("embedded", "trio"), ("attached", "attached")):
        with Society.surroundings(form):
            system = society(form, SLAVES)
            samples: Samples = system.run(_sampled, system, steps)
        for name, points in samples.items():
            settled = points[int(len(points) * WARM_UP) :]
            bytes_a_step = slope(settled)
            verdict = "flat" if abs(bytes_a_step) * steps < NOISE_BYTES else "not flat"
            first, last = settled[0][1] / 2**20, settled[-1][1] / 2**20
            print(
                f"memory of the {name}, {title}, {steps:,} steps: {first:.2f} MiB after warm-up, "
                f"{last:.2f} MiB at the end, {bytes_a_step:+.2f} bytes a step: {verdict}",
                flush=True,
            )


async def _sampled(system: Society, steps: int) -> Samples:
    await system.start()
    await system.spawn("Counter", AGENTS)
    pids = await system.pids()
    pids.setdefault("client" if "host" in pids else "master", os.getpid())
    samples: Samples = {name: [] for name in pids}
    for number in range(1, SAMPLES + 1):
        for _ in range(steps // SAMPLES):
            await system.trigger_all()
        _add(samples, pids, number * (steps // SAMPLES))
    await system.stop()
    return samples


def _add(samples: Samples, pids: Mapping[str, Any], step: int) -> None:
    for name, pid in pids.items():
        samples[name].append((step, memory(pid).own * 1024))

"""What a record costs: the processors' time of a step, of all processes, with it and without.

Two simulations of the same agents take turns, so that both meet the same machine; each agent is
observed for one metric in each step.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import trio

from creamas_sc import CreativeAgent, Environment, MultiEnvironment, expose
from creamas_sc.mp import EnvManager

ANY_PORT = ("localhost", 0)
SLAVES = 2
WARM_UP = 5


class Busy(CreativeAgent):
    """Computes for a while in each act."""

    novelty = 0.5

    @expose
    async def act(self, loops: int) -> None:
        for _ in range(loops):
            pass

    def observe(self) -> dict[str, Any]:
        """The one metric."""
        return {"novelty": self.novelty}


def cpu_ms(pids: Sequence[int]) -> float:
    """Milliseconds on a processor so far, of all threads of these processes."""
    times = [
        int((task / "schedstat").read_text().split()[0])
        for pid in pids
        for task in Path(f"/proc/{pid}/task").iterdir()
    ]
    return sum(times) / 1e6


async def measure(folder: str, agents: int, steps: int, all_loops: Sequence[int]) -> None:
    """Print a line for each number of loops."""
    async with (
        MultiEnvironment(ANY_PORT, Environment, seed=1) as off,
        MultiEnvironment(ANY_PORT, Environment, seed=1, record=folder) as on,
    ):
        for menv in (off, on):
            await menv.spawn_slaves([ANY_PORT] * SLAVES, Environment, EnvManager)
            for addr in menv.addrs:
                await menv.spawn_n(Busy, agents // SLAVES, addr=addr)
        for loops in all_loops:
            used: dict[MultiEnvironment, list[float]] = {off: [], on: []}
            for _ in range(WARM_UP + steps):
                for menv, times in used.items():
                    pids = [*menv.overview().pids, os.getpid()]
                    before = cpu_ms(pids)
                    await menv.trigger_all(loops)
                    times.append(cpu_ms(pids) - before)
            without, with_ = (median(times[WARM_UP:]) for times in used.values())
            more = with_ - without
            print(
                f"{agents:,} agents, {without / agents * 1e3:.2f} us an agent's step: "
                f"{without:.2f} ms a step, {with_:.2f} ms recorded, "
                f"{more:+.2f} ms ({more / without:+.1%})",
                flush=True,
            )


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agents", type=int, default=10_000)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--loops", type=int, nargs="*", default=[0, 300, 1000, 3000])
    parser.add_argument("--folder", help="where to record; by default a temporary one")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        trio.run(measure, folder, given.agents, given.steps, given.loops)


if __name__ == "__main__":
    main()

"""The script that `tests.benchmarks.machines` measures, on the first machine.

It takes "CALLS STEPS" as a line, and prints the seconds of each of so many steps, in which every
agent makes so many calls.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import trio

from creamas_sc import Environment, MultiEnvironment
from creamas_sc.mp import EnvManager
from creamas_sc.nodes import Nodes
from tests.benchmarks.agents import Roamer


async def main(
    host: str, port: int, key_file: str, nodes: int, slaves: int, agents: int, calls: str
) -> None:
    """Start slaves and agents, and take steps."""
    where: dict[str, Any] = {}
    if nodes:
        where["nodes"] = Nodes((host, port), key_file, nodes, 30.0)
    async with MultiEnvironment((host, 0), Environment, seed=1, calls=calls, **where) as menv:
        began = time.monotonic()
        await menv.spawn_slaves([(host, 0)] * slaves, Environment, EnvManager)
        _say(time.monotonic() - began)
        for addr in menv.addrs:
            await menv.spawn_n(Roamer, agents // slaves, addr=addr)
        places = [addr.removesuffix("0") for addr in menv.addrs]
        while line := await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
            asked, steps = map(int, line.split())
            took = []
            for _ in range(steps):
                began = time.perf_counter()
                done = await menv.trigger_all(places, agents, asked)
                took.append(time.perf_counter() - began)
                assert done == [asked] * agents
            _say(took)


def _say(value: Any) -> None:
    print(json.dumps(value), flush=True)


if __name__ == "__main__":
    trio.run(main, *json.loads(sys.argv[1]))

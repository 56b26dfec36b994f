"""A well-behaved client in its own process: ``python -m tests.faults.good_client DAEMON``.

It calls the daemon, the simulation's host, an agent, and another agent through that one, in turn,
with a pause after each. For each line of input it prints the durations of its calls since the
previous line, in seconds.
"""

from __future__ import annotations

import json
import os
import select
import sys
import time
from collections.abc import Callable
from itertools import cycle

from creamas_sc.client import SyncSimulation, connect_sync

SIMULATION = "good"
PAUSE_SECONDS = 0.005
CALL_SECONDS = 30.0


def main() -> None:
    """Call until standard input ends."""
    with connect_sync(sys.argv[1], timeout=CALL_SECONDS) as client:
        with client.attach(SIMULATION) as simulation:
            _call_on(cycle([client.status, *_calls(simulation)]))


def _calls(simulation: SyncSimulation) -> list[Callable[[], object]]:
    addrs = simulation.get_agents(agent_cls="tests.support.agents:Echo")
    near, far = (simulation.connect(addr) for addr in addrs)

    def pass_on() -> None:
        assert near.ask(addrs[1], [1, (2,)]) == [1, (2,)]

    def answer() -> None:
        assert far.evaluate({"x": 1}) == {"x": 1}

    pass_on()
    return [simulation.get_age, answer, pass_on]


def _call_on(calls: cycle[Callable[[], object]]) -> None:
    print("calling", flush=True)
    seconds: list[float] = []
    while True:
        if select.select([0], [], [], PAUSE_SECONDS)[0]:
            if not os.read(0, 4096):
                return
            print(json.dumps(seconds), flush=True)
            seconds.clear()
        began = time.monotonic()
        next(calls)()
        seconds.append(time.monotonic() - began)


if __name__ == "__main__":
    main()

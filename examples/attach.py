"""One script creates a simulation in the daemon, others visit it, and the last one closes it.

    creamas-supervisor start
    python examples/attach.py create
    python examples/attach.py visit            # as often as you like, from any terminal
    python examples/attach.py visit --async
    python examples/attach.py close

Only anyio and msgpack are needed here: the agents' module is imported by the daemon's processes.
"""

from __future__ import annotations

import sys
from typing import Any

import anyio

from creamas_sc.client import connect, connect_sync

NAME = "palette"
SLAVES = [("localhost", 0), ("localhost", 0)]  # port 0: any free one


def create() -> None:
    """Create the simulation, start its steps, and detach."""
    with connect_sync() as client:
        client.create(NAME, slave_addrs=SLAVES, seed=1)
        with client.attach(NAME) as sim:
            for addr in sim.get_addrs():
                sim.spawn_n("painters:Painter", 12, addr=addr)
            sim.start_steps(20)
    print(f"{NAME} goes on stepping in the daemon")


def visit() -> None:
    """Make all painters act once more, report what they have made, and detach."""
    with connect_sync() as client, client.attach(NAME) as sim:
        sim.wait_steps(timeout=60)
        sim.trigger_all()
        agents, artifacts = sim.get_agents(), sim.get_artifacts()
        palette = sim.connect(agents[0]).palette()
    report(agents, artifacts, palette)


async def visit_async() -> None:
    """Do what `visit` does, under asyncio or trio."""
    async with connect() as client, client.attach(NAME) as sim:
        await sim.wait_steps(timeout=60)
        await sim.trigger_all()
        agents, artifacts = await sim.get_agents(), await sim.get_artifacts()
        palette = await (await sim.connect(agents[0])).palette()
    report(agents, artifacts, palette)


def report(agents: list[str], artifacts: list[Any], palette: list[Any]) -> None:
    """Print the results of a visit."""
    print(f"{len(agents)} painters have published {len(artifacts)} colours")
    print(f"{agents[0]} remembers {len(palette)}, the last one {palette[-1]}")


def close() -> None:
    """Close the simulation for all clients."""
    with connect_sync() as client:
        for slave in client.close(NAME):
            print(f"{slave.address} ended in {slave.seconds:.2f} s, by {slave.ended_by}")


def main() -> int:
    """Run the command that the arguments name."""
    match sys.argv[1:]:
        case ["create"]:
            create()
        case ["visit"]:
            visit()
        case ["visit", "--async"]:
            anyio.run(visit_async)
        case ["close"]:
            close()
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

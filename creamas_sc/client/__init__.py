"""Clients of the `creamas-supervisor` daemon, whose simulations outlive the scripts that use them.

Start the daemon once, with ``creamas-supervisor start``. Then, in any script or notebook::

    from creamas_sc.client import connect_sync

    with connect_sync() as client:
        client.create("novelty", slave_addrs=[("localhost", 0)] * 2)
        with client.attach("novelty") as simulation:
            painter, addr = simulation.spawn("painters:Painter")  # painters.py is beside the script
            print(simulation.trigger_all())
            print(painter.sketches())                             # an exposed method of the agent
            simulation.start_steps(1000)                          # goes on by itself

    with connect_sync() as client:                                # later, from anywhere
        with client.attach("novelty") as simulation:
            print(simulation.wait_steps()["step"], simulation.get_artifacts(limit=10))
        print(client.close("novelty").graceful)

Under asyncio or trio, where several tasks may make calls at once::

    async with connect() as client, client.attach("novelty") as simulation:
        painter, addr = await simulation.spawn("painters:Painter")
        print(await painter.sketches())

The operations of a simulation are those of `MultiEnvironment`, as described in
`creamas_sc.simulation_api.SimulationAPI`. Those of the daemon are in
`creamas_sc.client.daemon_api.DaemonAPI`. The client needs only anyio and msgpack, as the agents'
modules are imported by the daemon's processes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from creamas_sc.restarts.policy import RestartPolicy
from creamas_sc.runtime.lazy_import import lazy_attributes

if TYPE_CHECKING:
    from creamas_sc.client.async_client import Client, Simulation, connect
    from creamas_sc.client.sync_client import SyncClient, SyncSimulation, connect_sync

__all__ = [
    "Client",
    "RestartPolicy",
    "Simulation",
    "SyncClient",
    "SyncSimulation",
    "connect",
    "connect_sync",
]

# Imported at first use: the blocking client needs no event loop.
__getattr__ = lazy_attributes(
    __name__,
    {
        "Client": "async_client",
        "Simulation": "async_client",
        "SyncClient": "sync_client",
        "SyncSimulation": "sync_client",
        "connect": "async_client",
        "connect_sync": "sync_client",
    },
)
